/* What whod can be asked (run_dir/whod.sock): who is behind this pidfd? One table, two requests.
 * whod is the only process with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH; it answers attestd and
 * tokend, and nobody else. */
#ifndef ATTESTD_PROC_WHO_PROTO_H
#define ATTESTD_PROC_WHO_PROTO_H

#include "attestd/proc/ipc.h"

#define PROC_WHO_FILES_MAX  16
#define PROC_WHO_PATH_MAX   1024
#define PROC_WHO_CGROUP_MAX 1024
#define PROC_WHO_UNIT_MAX   255

enum proc_who_op {
    PROC_WHO_WHO = 1,
    PROC_WHO_SAME = 2,
};

/* WHO: a pidfd beside the frame; pid (as the socket's SO_PEERCRED said; must be the pidfd's),
 * acceptedMs (CLOCK_BOOTTIME when the connection was accepted where the pidfd was made by
 * pidfd_open, so that a process that began later is refused, since the pid may have been reused;
 * 0: the pidfd is SO_PEERPIDFD's), files (paths whose digests are wanted, as the process sees them:
 * in its mount namespace and root; at most PROC_WHO_FILES_MAX) →
 *   identity     SHA-256 over what must not change while a connection lasts: pid, start time, uid,
 *                executable (device, inode, ctime, size), cgroup, invocation id
 *   pid, uid (real), euid, gid, parentPid
 *   startTime    clock ticks since boot (/proc/PID/stat field 22)
 *   unit         systemd's unit (of the system manager) by cgroup; empty: in none
 *   invocationId 32 hex; empty: unknown
 *   cgroup       the cgroup v2 path
 *   exePath      as the kernel shows it; for people
 *   exeSha256    32 bytes
 *   scriptPath, scriptSha256   the file that an interpreter was told to run (first argument that
 *                is a regular file); both empty where there is none
 *   fileSha256   one item for each of files: 32 bytes, or empty where it cannot be read
 * ATT_E_GONE: the process has ended (or ended meanwhile, or called exec meanwhile).
 * ATT_E_DENIED pidReused. ATT_E_LIMIT rateLimited (before anything is hashed). */
enum {
    PROC_WHO_REQ_PID,
    PROC_WHO_REQ_ACCEPTED_MS,
    PROC_WHO_REQ_FILES,
};
enum {
    PROC_WHO_REP_IDENTITY,
    PROC_WHO_REP_PID,
    PROC_WHO_REP_UID,
    PROC_WHO_REP_EUID,
    PROC_WHO_REP_GID,
    PROC_WHO_REP_PARENT_PID,
    PROC_WHO_REP_START_TIME,
    PROC_WHO_REP_UNIT,
    PROC_WHO_REP_INVOCATION_ID,
    PROC_WHO_REP_CGROUP,
    PROC_WHO_REP_EXE_PATH,
    PROC_WHO_REP_EXE_SHA256,
    PROC_WHO_REP_SCRIPT_PATH,
    PROC_WHO_REP_SCRIPT_SHA256,
    PROC_WHO_REP_FILE_SHA256,
};

/* SAME: the pidfd; pid, identity (of an earlier WHO) → same (1, or 0: it is another executable,
 * unit or user by now). Hashes no file. ATT_E_GONE: the process has ended. */
enum { PROC_WHO_SAME_REQ_PID, PROC_WHO_SAME_REQ_IDENTITY };
enum { PROC_WHO_SAME_REP_SAME };

extern const struct proc_op proc_who_table[];

#endif
