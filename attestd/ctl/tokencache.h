/* A file in which attestctl token keeps what it got, for those who start it anew each time (AWS
 * SDKs' credential_process). It is the caller's own, mode 0600, and replaced in one step. */
#ifndef ATTESTD_CTL_TOKENCACHE_H
#define ATTESTD_CTL_TOKENCACHE_H

#include "attestd/base/buf.h"
#include "attestd/base/hash.h"

struct tokencache {
    struct att_buf token;          /* visible characters and spaces; tokencache_done wipes it */
    int64_t issued_at, expires_at; /* UTC seconds */
};
void tokencache_done(struct tokencache *cache);

/* key: a digest of all that the token depends on (agent, certificate, profile). ATT_E_NOTFOUND:
 * nothing for this key. ATT_E_PARSE: no such file's form. */
ATT_MUST_USE enum att_rc tokencache_parse(struct att_slice text, const uint8_t key[ATT_SHA256_LEN],
                                          struct tokencache *ret_cache, struct att_err *err);
/* ATT_E_NOTFOUND: there is no file, it is empty, or is for another key. ATT_E_DENIED cacheFile: it
 * is another user's, others can read it, it is a link or no file, or what it holds is none of ours:
 * then it is not to be overwritten. */
ATT_MUST_USE enum att_rc tokencache_load(const char *path, const uint8_t key[ATT_SHA256_LEN],
                                         struct tokencache *ret_cache, struct att_err *err);
/* Holds PATH.lock, so that of several processes one makes a token and the others find it. The file
 * stays; closing ret_fd lets go. ATT_E_TIMEOUT cacheLock: another process has held it for wait_ms;
 * ATT_E_IO cacheLock: it cannot be made here; ATT_E_DENIED cacheFile: it is a link or another
 * user's. */
ATT_MUST_USE enum att_rc tokencache_lock(const char *path, int wait_ms, int *ret_fd,
                                         struct att_err *err);
/* What no one is to use any more. Nothing but a cache of this user's own is removed; absent is
 * ATT_OK. */
ATT_MUST_USE enum att_rc tokencache_remove(const char *path, struct att_err *err);
/* Whole or not at all: the file of before stays. ATT_E_IO cacheWrite. */
ATT_MUST_USE enum att_rc tokencache_save(const char *path, const uint8_t key[ATT_SHA256_LEN],
                                         const struct tokencache *cache, struct att_err *err);

#endif
