/* Shared by the files that read /proc. Internal to attestd/workload. */
#ifndef ATTESTD_WORKLOAD_INTERNAL_H
#define ATTESTD_WORKLOAD_INTERNAL_H

#include "attestd/base/buf.h"
#include "attestd/workload/caller.h"

#define WORKLOAD_PROC_MAX ((size_t)64 << 10) /* bytes read of a file in /proc/PID */

enum att_rc workload_refuse(struct att_err *err, enum att_rc rc, const char *reason,
                            const char *text);
/* By errno. */
enum att_rc workload_proc_fail(struct att_err *err, const char *what);
/* At most the first max bytes replace ret_text's content. */
ATT_MUST_USE enum att_rc workload_proc_read(int dir, const char *name, size_t max,
                                            struct att_buf *ret_text, struct att_err *err);
/* ATT_E_GONE unless it lives and its facts are what they were. */
ATT_MUST_USE enum att_rc workload_process_again(const struct workload_process *process,
                                                struct att_err *err);
/* Opens for reading what an O_PATH descriptor names: regular files only, and such as lie somewhere
 * (not what the kernel makes up while it is read). -1 otherwise. */
int workload_open_found(int found);
/* Its file system holds what the kernel makes up (or does not say what it is). */
bool workload_is_made_up(int found);

#endif
