/* Files, whole or not at all. */
#ifndef ATTESTD_BASE_IO_H
#define ATTESTD_BASE_IO_H

#include "attestd/base/buf.h"

#include <sys/types.h>

/* Reads a whole file, regular or kernel-made (securityfs, sysfs), appending to ret_bytes.
 * ATT_E_NOTFOUND when it is not there, ATT_E_LIMIT beyond max bytes. */
ATT_MUST_USE enum att_rc att_io_read_file(const char *path, size_t max, struct att_buf *ret_bytes,
                                          struct att_err *err);
/* Replaces path with exactly these bytes: temporary file in the same folder, fsync, rename, fsync
 * of the folder. After a crash at any instant the old content or the new is there, never a part. */
ATT_MUST_USE enum att_rc att_io_write_file(const char *path, struct att_slice bytes, mode_t mode,
                                           struct att_err *err);
/* The same in steps, for whoever has other syncs to do at the same time: stage writes and syncs the
 * temporary file; commit puts it in place, from where on readers see it, and which a loss of power
 * may undo until sync_folder_of(path). Never is a part of it seen. unstage gives it up. */
struct att_io_staged {
    char tmp[4096]; /* empty: nothing staged */
};
ATT_MUST_USE enum att_rc att_io_stage(const char *path, struct att_slice bytes, mode_t mode,
                                      struct att_io_staged *ret_staged, struct att_err *err);
ATT_MUST_USE enum att_rc att_io_commit(struct att_io_staged *staged, const char *path,
                                       struct att_err *err);
void att_io_unstage(struct att_io_staged *staged);
ATT_MUST_USE enum att_rc att_io_sync_folder_of(const char *path, struct att_err *err);
/* Like mkdir -p with mode for every folder made. */
ATT_MUST_USE enum att_rc att_io_mkdirs(const char *path, mode_t mode, struct att_err *err);
/* Removes a file and syncs its folder; absent is ATT_OK. */
ATT_MUST_USE enum att_rc att_io_unlink(const char *path, struct att_err *err);
/* Moves a state file that does not parse to "<path>.bad" (".bad.1" … where taken), never over one.
 */
ATT_MUST_USE enum att_rc att_io_set_aside(const char *path, struct att_err *err);
/* Writes or reads exactly len bytes on a blocking descriptor; EINTR is retried. Reading: ATT_E_GONE
 * when the peer closed first. */
ATT_MUST_USE enum att_rc att_io_write_all(int fd, struct att_slice bytes, struct att_err *err);
ATT_MUST_USE enum att_rc att_io_read_exact(int fd, uint8_t *ret, size_t len, struct att_err *err);

void att_close(int *fd); /* for ATT_CLEANUP; sets -1 */
#define att_autofd ATT_CLEANUP(att_close) int

#endif
