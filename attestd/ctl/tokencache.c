#include "attestd/ctl/tokencache.h"

#include "attestd/base/clock.h"
#include "attestd/base/enc.h"
#include "attestd/base/io.h"
#include "attestd/base/json.h"
#include "attestd/base/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define FILE_MAX ((size_t)64 << 10)
#define KIND     "attestctl token cache 1"

static void wipe(struct att_buf *buf)
{
    if (buf->ptr) {
        att_wipe(buf->ptr, buf->cap);
    }
    att_buf_done(buf);
}

void tokencache_done(struct tokencache *cache)
{
    wipe(&cache->token);
}

/* ---- form ---- */

static bool text_ok(const json_t *value)
{
    const char *text = json_string_value(value);
    size_t len = json_string_length(value);
    bool good = text && len > 0;
    for (size_t i = 0; good && i < len; i++) {
        good = text[i] >= 0x20 && text[i] < 0x7f;
    }
    return good;
}

enum att_rc tokencache_parse(struct att_slice text, const uint8_t key[ATT_SHA256_LEN],
                             struct tokencache *ret_cache, struct att_err *err)
{
    att_autojson *json = NULL;
    char own[2 * ATT_SHA256_LEN + 1];
    bool good = att_json_parse_few(text, FILE_MAX, 20, &json, NULL) == ATT_OK;
    const char *kind = json_string_value(json_object_get(json, "kind"));
    const char *hex = json_string_value(json_object_get(json, "key"));
    const json_t *token = json_object_get(json, "token");
    int64_t issued_at = json_integer_value(json_object_get(json, "issuedAt"));
    int64_t expires_at = json_integer_value(json_object_get(json, "expiresAt"));
    if (!good || !kind || strcmp(kind, KIND) != 0 || !hex || !text_ok(token) || issued_at < 1 ||
        expires_at <= issued_at) {
        return att_fail(err, ATT_E_PARSE, "no cache of attestctl token");
    }
    att_hex(own, ATT_SLICE(key, ATT_SHA256_LEN));
    if (strcmp(hex, own) != 0) {
        return att_fail(err, ATT_E_NOTFOUND, "for another agent, certificate or profile");
    }
    struct tokencache made = {
        .token = ATT_BUF_INIT(FILE_MAX), .issued_at = issued_at, .expires_at = expires_at};
    att_buf_put_str(&made.token, json_string_value(token));
    if (!att_buf_cstr(&made.token)) {
        tokencache_done(&made);
        return att_fail(err, ATT_E_NOMEM, "token cache");
    }
    *ret_cache = made;
    return ATT_OK;
}

/* ---- the file ---- */

static enum att_rc refuse(struct att_err *err, const char *path, const char *what)
{
    (void)att_fail(err, ATT_E_DENIED, "%.200s: %s", path, what);
    att_err_reason(err, "cacheFile");
    return ATT_E_DENIED;
}

static enum att_rc open_own(const char *path, int *ret_fd, struct att_err *err)
{
    struct stat st;
    att_autofd fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) {
        return att_fail(err, ATT_E_NOTFOUND, "%.200s is not there", path);
    }
    if (fd < 0 && errno == ELOOP) {
        return refuse(err, path, "expected a file, found a link");
    }
    if (fd < 0 || fstat(fd, &st) != 0) {
        return att_fail_errno(err, ATT_E_IO, "%.200s", path);
    }
    if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077) != 0) {
        return refuse(err, path, "expected a file of this user's own, mode 0600");
    }
    if (st.st_size > (off_t)FILE_MAX) {
        return refuse(err, path, "it is no cache of attestctl token, and is not overwritten");
    }
    *ret_fd = fd;
    fd = -1;
    return ATT_OK;
}

static enum att_rc read_all(int fd, const char *path, struct att_buf *ret, struct att_err *err)
{
    char part[4096];
    for (;;) {
        ssize_t n = read(fd, part, sizeof part);
        if (n < 0 && errno != EINTR) {
            return att_fail_errno(err, ATT_E_IO, "read %.200s", path);
        }
        if (n == 0) {
            att_wipe(part, sizeof part);
            return att_buf_ok(ret, err);
        }
        att_buf_put(ret, part, n > 0 ? (size_t)n : 0);
    }
}

enum att_rc tokencache_load(const char *path, const uint8_t key[ATT_SHA256_LEN],
                            struct tokencache *ret_cache, struct att_err *err)
{
    att_autofd fd = -1;
    struct att_buf text = ATT_BUF_INIT(FILE_MAX);
    enum att_rc rc = open_own(path, &fd, err);
    rc = rc ? rc : read_all(fd, path, &text, err);
    if (rc == ATT_OK && !text.len) {
        rc = att_fail(err, ATT_E_NOTFOUND, "%.200s is empty", path);
    }
    if (rc == ATT_OK) {
        rc = tokencache_parse(att_buf_slice(&text), key, ret_cache, NULL);
        rc = rc == ATT_E_PARSE
                 ? refuse(err, path, "it is no cache of attestctl token, and is not overwritten")
             : rc ? att_fail(err, rc, "%.200s is for another agent, certificate or profile", path)
                  : ATT_OK;
    }
    wipe(&text);
    return rc;
}

enum att_rc tokencache_save(const char *path, const uint8_t key[ATT_SHA256_LEN],
                            const struct tokencache *cache, struct att_err *err)
{
    char own[2 * ATT_SHA256_LEN + 1];
    struct att_buf text = ATT_BUF_INIT(FILE_MAX);
    att_hex(own, ATT_SLICE(key, ATT_SHA256_LEN));
    att_autojson *json =
        json_pack("{s:s, s:s, s:I, s:I, s:s%}", "kind", KIND, "key", own, "issuedAt",
                  (json_int_t)cache->issued_at, "expiresAt", (json_int_t)cache->expires_at, "token",
                  (const char *)cache->token.ptr, cache->token.len);
    enum att_rc rc =
        json ? att_json_dump(json, false, &text, err) : att_fail(err, ATT_E_NOMEM, "token cache");
    att_buf_put_str(&text, "\n");
    rc = rc ? rc : att_buf_ok(&text, err);
    rc = rc ? rc : att_io_write_file(path, att_buf_slice(&text), 0600, err);
    if (rc != ATT_OK) {
        att_err_reason(err, "cacheWrite");
    }
    wipe(&text);
    return rc;
}

enum att_rc tokencache_remove(const char *path, struct att_err *err)
{
    static const uint8_t no_key[ATT_SHA256_LEN];
    struct tokencache kept = {0};
    struct att_err why = {0};
    enum att_rc rc = tokencache_load(path, no_key, &kept, &why);
    tokencache_done(&kept);
    if (rc != ATT_OK && rc != ATT_E_NOTFOUND) {
        if (err) {
            *err = why;
        }
        return rc;
    }
    return att_io_unlink(path, err);
}

/* ---- one at a time ---- */

static enum att_rc no_lock(struct att_err *err, enum att_rc rc, const char *path, const char *what)
{
    (void)att_fail(err, rc, "%.200s: %s", path, what);
    att_err_reason(err, "cacheLock");
    return rc;
}

static enum att_rc open_lock(const char *path, int *ret_fd, struct att_err *err)
{
    struct stat st;
    att_autofd fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    if (fd < 0 && errno == ELOOP) {
        return refuse(err, path, "expected a file, found a link");
    }
    if (fd < 0 || fstat(fd, &st) != 0) {
        (void)att_fail_errno(err, ATT_E_IO, "%.200s", path);
        att_err_reason(err, "cacheLock");
        return ATT_E_IO;
    }
    if (!S_ISREG(st.st_mode) || st.st_uid != geteuid()) {
        return refuse(err, path, "expected a file of this user's own");
    }
    *ret_fd = fd;
    fd = -1;
    return ATT_OK;
}

enum att_rc tokencache_lock(const char *path, int wait_ms, int *ret_fd, struct att_err *err)
{
    static const struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};
    char lock[4096];
    att_autofd fd = -1;
    if ((size_t)snprintf(lock, sizeof lock, "%s.lock", path) >= sizeof lock) {
        return no_lock(err, ATT_E_IO, path, "the path is too long");
    }
    enum att_rc rc = open_lock(lock, &fd, err);
    int64_t until = att_boottime_ms() + wait_ms;
    while (rc == ATT_OK && flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK && errno != EINTR) {
            return no_lock(err, ATT_E_IO, lock, "it cannot be locked");
        }
        if (att_boottime_ms() >= until) {
            return no_lock(err, ATT_E_TIMEOUT, lock, "another process holds it");
        }
        nanosleep(&pause, NULL);
    }
    if (rc == ATT_OK) {
        *ret_fd = fd;
        fd = -1;
    }
    return rc;
}
