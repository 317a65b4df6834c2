#include "attestd/base/io.h"
#include "attestd/base/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static enum att_rc open_file(const char *path, const char *what, int *ret_fd, struct att_err *err)
{
    struct stat st;
    att_autofd fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 || fstat(fd, &st) != 0) {
        return att_fail_errno(err, errno == ENOENT ? ATT_E_NOTFOUND : ATT_E_IO, "%s: %s", what,
                              path);
    }
    if (!S_ISREG(st.st_mode) || (st.st_mode & 07)) {
        return att_fail(err, ATT_E_DENIED,
                        "%s: %s: expected a file that others cannot read, found %s %03o", what,
                        path, S_ISREG(st.st_mode) ? "mode" : "no regular file, mode",
                        (unsigned)(st.st_mode & 0777));
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

enum att_rc att_secret_load_line(const char *path, const char *what, size_t max,
                                 struct att_secret *ret_secret, struct att_err *err)
{
    att_autofd fd = -1;
    enum att_rc rc = open_file(path, what, &fd, err);
    att_autosecret text = {0};
    if (rc == ATT_OK) {
        rc =
            att_secret_new(&text, max + 3, err); /* room for CR LF, and to see that there is more */
    }
    if (rc != ATT_OK) {
        return rc;
    }
    ssize_t got = read_up_to(fd, text.ptr, text.len);
    if (got < 0) {
        return att_fail_errno(err, ATT_E_IO, "%s: %s", what, path);
    }
    size_t len = (size_t)got;
    len -= len && text.ptr[len - 1] == '\n';
    len -= len && len < (size_t)got && text.ptr[len - 1] == '\r';
    const char *found =
        len == 0    ? "none"
        : len > max ? "more"
        : memchr(text.ptr, '\n', len) || memchr(text.ptr, '\r', len) || memchr(text.ptr, 0, len)
            ? "more than one line, or a NUL"
            : NULL;
    return found ? att_fail(err, ATT_E_PARSE,
                            "%s: a %s of 1 … %zu bytes on one line expected, found %s", path, what,
                            max, found)
                 : att_secret_copy(ret_secret, ATT_SLICE(text.ptr, len), err);
}
