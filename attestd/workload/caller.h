/* Who is calling: what the kernel says of a process that a pidfd names. Runs in whod.
 *
 * Everything is read through one descriptor of /proc/PID, opened once. It is the pidfd's process
 * because the pidfd's own Pid is that number and the process was alive after the folder was opened;
 * a pid is not given away while its process lives. What was read is of one instant, or it is not
 * told: the facts are read again at the end and must be the same. */
#ifndef ATTESTD_WORKLOAD_CALLER_H
#define ATTESTD_WORKLOAD_CALLER_H

#include "attestd/base/hash.h"
#include "attestd/workload/digest.h"

#include <sys/types.h>

#define WORKLOAD_FILES_MAX  16
#define WORKLOAD_PATH_MAX   1024
#define WORKLOAD_CGROUP_MAX 1024
#define WORKLOAD_UNIT_MAX   255

/* What does not change while a connection lasts. */
struct workload_facts {
    uint8_t identity[ATT_SHA256_LEN]; /* over the members below and the executable's inode */
    uint32_t pid, parent;
    uint32_t uid, euid, gid;
    uint64_t start_time; /* clock ticks since boot */
    char unit[WORKLOAD_UNIT_MAX + 1];
    char invocation_id[33];
    char cgroup[WORKLOAD_CGROUP_MAX + 1];
};

struct workload_digest {
    bool known;
    uint8_t sha256[ATT_SHA256_LEN];
};

/* An answer. Texts are clean UTF-8 (att_text_clean), for people and logs. */
struct workload_caller {
    struct workload_facts facts;
    char exe_path[WORKLOAD_PATH_MAX + 1];
    uint8_t exe_sha256[ATT_SHA256_LEN];
    char script_path[WORKLOAD_PATH_MAX + 1]; /* as the process was told it; empty: none */
    struct workload_digest script;
    struct workload_digest files[WORKLOAD_FILES_MAX]; /* in the order asked for */
    size_t n_files;
};

/* {.pidfd = -1, .dir = -1}, then workload_process_done. */
struct workload_process {
    int pidfd; /* borrowed */
    int dir;   /* /proc/PID */
    struct workload_facts facts;
};
void workload_process_done(struct workload_process *process);

/* The facts, cheaply. accepted_ms: CLOCK_BOOTTIME of the accept where the pidfd was made from a
 * number, else 0. ATT_E_GONE: it has ended, or became another meanwhile. ATT_E_DENIED pidReused: it
 * began after accepted_ms; pidMismatch: the pidfd is another process's; unreadable: we lack the
 * privilege to see. ATT_E_INVAL notPidfd. */
ATT_MUST_USE enum att_rc workload_process_open(int pidfd, pid_t pid, int64_t accepted_ms,
                                               struct workload_process *ret_process,
                                               struct att_err *err);

/* The whole answer: reads the executable, the script and files (paths as the process sees them, at
 * most WORKLOAD_FILES_MAX) and looks at the facts again. A script or file that cannot be read is
 * not known, which is no error. */
ATT_MUST_USE enum att_rc workload_process_look(const struct workload_process *process,
                                               struct workload_cache *cache,
                                               const struct att_slice *files, size_t n_files,
                                               struct workload_caller *ret_caller,
                                               struct att_err *err);

#endif
