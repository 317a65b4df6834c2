#include "attestd/hsmd/hsmd.h"

#include "attestd/base/hash.h"
#include "attestd/base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SALT_LEN 16
#define MARK_LEN (SALT_LEN + ATT_SHA256_LEN)

static enum att_rc form(struct att_err *err, const char *path, const char *what)
{
    (void)!att_fail(err, ATT_E_PARSE, "%s: a PIN of 1 … %d bytes on one line expected, found %s",
                    path, HSM_PIN_MAX, what);
    att_err_reason(err, "pinForm");
    return ATT_E_PARSE;
}

static enum att_rc open_file(const char *path, int *ret_fd, struct att_err *err)
{
    struct stat st;
    att_autofd fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 || fstat(fd, &st) != 0) {
        return att_fail_errno(err, errno == ENOENT ? ATT_E_NOTFOUND : ATT_E_IO, "PIN: %s", path);
    }
    if (!S_ISREG(st.st_mode) || (st.st_mode & 07)) {
        (void)!att_fail(err, ATT_E_DENIED,
                        "PIN: %s: expected a file that others cannot read, found %s %03o", path,
                        S_ISREG(st.st_mode) ? "mode" : "no regular file, mode",
                        (unsigned)(st.st_mode & 0777));
        att_err_reason(err, "pinMode");
        return ATT_E_DENIED;
    }
    *ret_fd = fd;
    fd = -1;
    return ATT_OK;
}

static ssize_t read_up_to(int fd, uint8_t *bytes, size_t room)
{
    size_t len = 0;
    for (;;) {
        ssize_t got = read(fd, bytes + len, room - len);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0 || len + (size_t)got == room) {
            return got < 0 ? -1 : (ssize_t)(len + (size_t)got);
        }
        len += (size_t)got;
    }
}

enum att_rc hsmd_pin_load(const char *path, struct att_secret *ret_pin, struct att_err *err)
{
    att_autofd fd = -1;
    enum att_rc rc = open_file(path, &fd, err);
    att_autosecret text = {0};
    if (rc == ATT_OK) {
        rc = att_secret_new(&text, HSM_PIN_MAX + 3, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    ssize_t got = read_up_to(fd, text.ptr, text.len);
    if (got < 0) {
        return att_fail_errno(err, ATT_E_IO, "PIN: %s", path);
    }
    size_t len = (size_t)got;
    len -= len && text.ptr[len - 1] == '\n';
    len -= len && len < (size_t)got && text.ptr[len - 1] == '\r';
    if (len == 0 || len > HSM_PIN_MAX) {
        return form(err, path, len ? "more" : "none");
    }
    if (memchr(text.ptr, '\n', len) || memchr(text.ptr, '\r', len) || memchr(text.ptr, 0, len)) {
        return form(err, path, "more than one line, or a NUL");
    }
    return att_secret_copy(ret_pin, ATT_SLICE(text.ptr, len), err);
}

/* ---- refused once --------------------------------------------------------------------------- */

static void digest(const struct hsmd_mark *mark, const uint8_t salt[SALT_LEN],
                   uint8_t ret[ATT_SHA256_LEN])
{
    const struct att_slice parts[] = {
        ATT_SLICE(salt, SALT_LEN), ATT_SLICE(mark->label, strlen(mark->label) + 1),
        ATT_SLICE(mark->serial, strlen(mark->serial) + 1), att_secret_slice(mark->pin)};
    att_sha256_v(ret, parts, sizeof parts / sizeof parts[0]);
}

enum att_rc hsmd_mark_check(const struct hsmd_mark *mark, struct att_err *err)
{
    att_autobuf kept = ATT_BUF_INIT(MARK_LEN);
    struct att_err why = {0};
    uint8_t now[ATT_SHA256_LEN];
    enum att_rc rc = att_io_read_file(mark->path, MARK_LEN, &kept, &why);
    if (rc == ATT_E_NOTFOUND || rc == ATT_E_LIMIT || (rc == ATT_OK && kept.len != MARK_LEN)) {
        return ATT_OK; /* none of ours */
    }
    if (rc != ATT_OK) { /* better no login than one too many */
        return att_fail(err, rc, "%s", why.msg);
    }
    digest(mark, kept.ptr, now);
    if (!att_slice_eq_secret(ATT_SLICE(kept.ptr + SALT_LEN, ATT_SHA256_LEN),
                             ATT_SLICE_ARRAY(now))) {
        return ATT_OK;
    }
    (void)!att_fail(err, ATT_E_AUTH,
                    "token \"%s\" has refused this PIN since the host booted, which is not tried "
                    "again: put the right one in its place (or remove %s)",
                    mark->label, mark->path);
    att_err_reason(err, "pinRefused");
    return ATT_E_AUTH;
}

enum att_rc hsmd_mark_set(const struct hsmd_mark *mark, struct att_err *err)
{
    uint8_t bytes[MARK_LEN];
    enum att_rc rc = att_random(bytes, SALT_LEN, err);
    if (rc != ATT_OK) {
        return rc;
    }
    digest(mark, bytes, bytes + SALT_LEN);
    return att_io_write_file(mark->path, ATT_SLICE_ARRAY(bytes), 0600, err);
}
