/* Secret bytes: locked in memory, left out of core dumps, wiped when done. */
#ifndef ATTESTD_BASE_SECRET_H
#define ATTESTD_BASE_SECRET_H

#include "attestd/base/err.h"
#include "attestd/base/slice.h"

/* Owns whole pages: memfd_secret(2) where the kernel has it, else mlock(2) and MADV_DONTDUMP.
 * {0} is a valid empty secret. locked is false where neither worked (RLIMIT_MEMLOCK): the owner
 * decides whether that may be. */
struct att_secret {
    uint8_t *ptr;
    size_t len, mapped;
    bool locked;
};

ATT_MUST_USE enum att_rc att_secret_new(struct att_secret *ret_secret, size_t len,
                                        struct att_err *err); /* zero-filled */
/* Copies; the caller wipes its own copy. */
ATT_MUST_USE enum att_rc att_secret_copy(struct att_secret *ret_secret, struct att_slice bytes,
                                         struct att_err *err);
void att_secret_done(struct att_secret *secret); /* wipes, unmaps; secret becomes {0} */
struct att_slice att_secret_slice(const struct att_secret *secret);
/* A file of one line (a password, a PIN) of 1 … max bytes without NUL; its line end is left out.
 * what names it in messages. ATT_E_NOTFOUND; ATT_E_DENIED where others can read it, or it is no
 * regular file; ATT_E_PARSE for another form. */
ATT_MUST_USE enum att_rc att_secret_load_line(const char *path, const char *what, size_t max,
                                              struct att_secret *ret_secret, struct att_err *err);
/* Wipes ordinary memory in a way the compiler keeps. */
void att_wipe(void *bytes, size_t len);
/* Wipes the 64 KiB of stack below the caller: what libraries left there that were given a secret.
 */
void att_wipe_stack(void);

#define att_autosecret ATT_CLEANUP(att_secret_done) struct att_secret

#endif
