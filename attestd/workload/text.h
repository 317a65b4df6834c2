/* What the kernel says of a process in /proc/PID/{stat,status,cgroup} and in fdinfo: bytes in,
 * structs out, no I/O. A process chooses parts of these texts itself (its name, its cgroup where it
 * was delegated one): nothing here lets such a part pass for another. */
#ifndef ATTESTD_WORKLOAD_TEXT_H
#define ATTESTD_WORKLOAD_TEXT_H

#include "attestd/base/err.h"
#include "attestd/base/slice.h"

/* proc_pid_stat(5). The name (comm) may hold anything, ") " and newlines too: the fields are
 * counted from the last ')'. */
struct workload_stat {
    uint32_t pid, parent;
    char state;
    uint64_t start_time;  /* field 22: clock ticks since boot */
    uint64_t start_stack; /* field 28: where the stack began at exec; 0 or 1 where we may not see */
};
ATT_MUST_USE enum att_rc workload_stat_parse(struct att_slice text, struct workload_stat *ret_stat,
                                             struct att_err *err);

/* proc_pid_status(5); the kernel escapes newlines in Name. */
enum { WORKLOAD_REAL, WORKLOAD_EFFECTIVE, WORKLOAD_SAVED, WORKLOAD_FILES, WORKLOAD_IDS };
struct workload_status {
    uint32_t tgid, pid, parent;
    uint32_t uid[WORKLOAD_IDS], gid[WORKLOAD_IDS];
    uint32_t ns_depth; /* pid namespaces from ours down to its own; 1: ours */
    uint32_t ns_pid;   /* its pid as it sees it itself */
};
ATT_MUST_USE enum att_rc workload_status_parse(struct att_slice text,
                                               struct workload_status *ret_status,
                                               struct att_err *err);

/* The process that a pidfd is of, by its fdinfo ("Pid:"). ATT_E_GONE: it has ended (-1);
 * ATT_E_INVAL notPidfd: another kind of descriptor, or a process out of our pid namespace (0). */
ATT_MUST_USE enum att_rc workload_fdinfo_parse(struct att_slice text, uint32_t *ret_pid,
                                               struct att_err *err);

/* The cgroup v2 path (borrowed), "/" or longer. ATT_E_NOTFOUND: the kernel has no unified
 * hierarchy. */
ATT_MUST_USE enum att_rc workload_cgroup_parse(struct att_slice text, struct att_slice *ret_path,
                                               struct att_err *err);
/* The unit of the system manager that this path lies in, as sd_pid_get_unit(3): what follows the
 * slices. A user may make cgroups below user@1000.service as it likes; its unit is that, whatever
 * stands below. Borrowed from path, without the '_' that systemd escapes with; empty: none. */
struct att_slice workload_cgroup_unit(struct att_slice path);
/* Whether the path lies in this slice of the system manager ("trading.slice"). */
bool workload_cgroup_in_slice(struct att_slice path, const char *slice);

/* 32 hex digits, as systemd writes an invocation id. */
bool workload_invocation_ok(struct att_slice text);

#endif
