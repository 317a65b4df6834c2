#include "attestd/base/io.h"

#include "attestd/base/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void att_close(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

enum att_rc att_io_read_file(const char *path, size_t max, struct att_buf *ret_bytes,
                             struct att_err *err)
{
    att_autofd fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0) {
        return att_fail_errno(err, errno == ENOENT ? ATT_E_NOTFOUND : ATT_E_IO, "%s", path);
    }
    size_t total = 0;
    enum att_rc rc = ATT_OK;
    uint8_t chunk[16384];
    for (ssize_t got = 1; rc == ATT_OK && got != 0;) {
        got = read(fd, chunk, sizeof chunk);
        if (got < 0) {
            rc = errno == EINTR ? ATT_OK : att_fail_errno(err, ATT_E_IO, "read %s", path);
            continue;
        }
        total += (size_t)got;
        if (total > max) {
            rc = att_fail(err, ATT_E_LIMIT, "%s: more than %zu bytes", path, max);
        } else {
            att_buf_put(ret_bytes, chunk, (size_t)got);
        }
    }
    att_wipe(chunk, sizeof chunk); /* it may have been a ticket */
    return rc == ATT_OK ? att_buf_ok(ret_bytes, err) : rc;
}

enum att_rc att_io_write_all(int fd, struct att_slice bytes, struct att_err *err)
{
    while (bytes.len) {
        ssize_t put = write(fd, bytes.ptr, bytes.len);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put < 0) {
            return att_fail_errno(err, errno == EPIPE ? ATT_E_GONE : ATT_E_IO, "write");
        }
        bytes.ptr += put;
        bytes.len -= (size_t)put;
    }
    return ATT_OK;
}

enum att_rc att_io_read_exact(int fd, uint8_t *ret, size_t len, struct att_err *err)
{
    while (len) {
        ssize_t got = read(fd, ret, len);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            bool late = errno == EAGAIN || errno == EWOULDBLOCK;
            return att_fail_errno(err, late ? ATT_E_TIMEOUT : ATT_E_IO, "read");
        }
        if (got == 0) {
            return att_fail(err, ATT_E_GONE, "the peer closed the connection");
        }
        ret += got;
        len -= (size_t)got;
    }
    return ATT_OK;
}

enum att_rc att_io_sync_folder_of(const char *path, struct att_err *err)
{
    char *copy = strdup(path);
    if (!copy) {
        return att_fail(err, ATT_E_NOMEM, "path");
    }
    char *slash = strrchr(copy, '/');
    const char *folder = slash == copy ? "/" : slash ? copy : ".";
    if (slash && slash != copy) {
        *slash = 0;
    }
    att_autofd fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool ok = fd >= 0 && fsync(fd) == 0;
    enum att_rc rc = ok ? ATT_OK : att_fail_errno(err, ATT_E_IO, "sync folder %s", folder);
    free(copy);
    return rc;
}

static enum att_rc write_temporary(const char *tmp, struct att_slice bytes, mode_t mode,
                                   struct att_err *err)
{
    att_autofd fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0) {
        return att_fail_errno(err, ATT_E_IO, "create %s", tmp);
    }
    enum att_rc rc = fchmod(fd, mode) == 0 ? att_io_write_all(fd, bytes, err)
                                           : att_fail_errno(err, ATT_E_IO, "chmod %s", tmp);
    if (rc == ATT_OK && fsync(fd) != 0) {
        rc = att_fail_errno(err, ATT_E_IO, "fsync %s", tmp);
    }
    return rc;
}

enum att_rc att_io_stage(const char *path, struct att_slice bytes, mode_t mode,
                         struct att_io_staged *ret_staged, struct att_err *err)
{
    static unsigned serial;
    struct att_io_staged staged;
    unsigned mine = __atomic_add_fetch(&serial, 1, __ATOMIC_RELAXED);
    int len = snprintf(staged.tmp, sizeof staged.tmp, "%s.tmp.%ld.%u", path, (long)getpid(), mine);
    if (len < 0 || (size_t)len >= sizeof staged.tmp) {
        return att_fail(err, ATT_E_INVAL, "path too long: %.60s…", path);
    }
    (void)unlink(staged.tmp); /* left by an earlier process of this pid */
    enum att_rc rc = write_temporary(staged.tmp, bytes, mode, err);
    if (rc != ATT_OK) {
        (void)unlink(staged.tmp);
        att_err_prefix(err, "%s", path);
        return rc;
    }
    *ret_staged = staged;
    return ATT_OK;
}

enum att_rc att_io_commit(struct att_io_staged *staged, const char *path, struct att_err *err)
{
    enum att_rc rc = ATT_OK;
    if (rename(staged->tmp, path) != 0) {
        rc = att_fail_errno(err, ATT_E_IO, "rename %s", path);
        (void)unlink(staged->tmp);
    }
    staged->tmp[0] = 0;
    return rc;
}

void att_io_unstage(struct att_io_staged *staged)
{
    if (staged->tmp[0]) {
        (void)unlink(staged->tmp);
        staged->tmp[0] = 0;
    }
}

enum att_rc att_io_write_file(const char *path, struct att_slice bytes, mode_t mode,
                              struct att_err *err)
{
    struct att_io_staged staged;
    enum att_rc rc = att_io_stage(path, bytes, mode, &staged, err);
    if (rc == ATT_OK) {
        rc = att_io_commit(&staged, path, err);
    }
    return rc == ATT_OK ? att_io_sync_folder_of(path, err) : rc;
}

enum att_rc att_io_mkdirs(const char *path, mode_t mode, struct att_err *err)
{
    char part[4096];
    size_t len = strlen(path);
    if (len == 0 || len >= sizeof part) {
        return att_fail(err, ATT_E_INVAL, "folder path of %zu bytes", len);
    }
    memcpy(part, path, len + 1);
    /* Mostly it is there, or only its last part is missing. */
    bool done = mkdir(path, mode) == 0 || errno == EEXIST;
    for (size_t i = 1; i <= len && !done; i++) {
        if (part[i] != '/' && part[i] != 0) {
            continue;
        }
        char kept = part[i];
        part[i] = 0;
        if (mkdir(part, mode) != 0 && errno != EEXIST) {
            return att_fail_errno(err, ATT_E_IO, "make folder %s", part);
        }
        part[i] = kept;
    }
    struct stat st;
    if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode)) {
        return att_fail(err, ATT_E_IO, "%s is not a folder", path);
    }
    return ATT_OK;
}

enum att_rc att_io_unlink(const char *path, struct att_err *err)
{
    if (unlink(path) != 0) {
        return errno == ENOENT ? ATT_OK : att_fail_errno(err, ATT_E_IO, "remove %s", path);
    }
    return att_io_sync_folder_of(path, err);
}

enum att_rc att_io_set_aside(const char *path, struct att_err *err)
{
    char aside[4096];
    for (int i = 0; i < 1000; i++) {
        int len = i == 0 ? snprintf(aside, sizeof aside, "%s.bad", path)
                         : snprintf(aside, sizeof aside, "%s.bad.%d", path, i);
        if (len < 0 || (size_t)len >= sizeof aside) {
            return att_fail(err, ATT_E_INVAL, "path too long");
        }
        if (link(path, aside) == 0) {
            return att_io_unlink(path, err);
        }
        if (errno != EEXIST) {
            return att_fail_errno(err, ATT_E_IO, "set %s aside", path);
        }
    }
    return att_fail(err, ATT_E_LIMIT, "%s: a thousand .bad files already", path);
}
