/* What whod can be asked (run_dir/whod.sock): who is behind this pidfd? And what are an
 * agent's files?
 * whod is the only process with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH; it answers attestd and
 * tokend, and nobody else. */
#ifndef ATTESTD_PROC_WHO_PROTO_H
#define ATTESTD_PROC_WHO_PROTO_H

#include "attestd/proc/ipc.h"

#define PROC_WHO_FILES_MAX  16
#define PROC_WHO_PATH_MAX   1024
#define PROC_WHO_CGROUP_MAX 1024
#define PROC_WHO_UNIT_MAX   255
#define PROC_WHO_READ_MAX   ((uint32_t)4 << 20)
#define PROC_WHO_CHUNK_MAX  ((uint32_t)192 << 10)
#define PROC_WHO_SEEN_MAX   (82 + PROC_WHO_PATH_MAX)
#define PROC_WHO_BATCH_MAX  16
#define PROC_WHO_NAMES_MAX  250

enum proc_who_op {
    PROC_WHO_WHO = 1,
    PROC_WHO_SAME = 2,
    PROC_WHO_READ = 3,
    PROC_WHO_MEASURE = 4,
    PROC_WHO_LIST = 5,
};

/* WHO: a pidfd beside the frame; pid (as the socket's SO_PEERCRED said; must be the pidfd's),
 * acceptedMs (CLOCK_BOOTTIME when the connection was accepted where the pidfd was made by
 * pidfd_open, so that a process that began later is refused, since the pid may have been reused;
 * 0: the pidfd is SO_PEERPIDFD's), files (paths whose digests are wanted, as the process sees them:
 * in its mount namespace and root; at most PROC_WHO_FILES_MAX), again (1: not a caller that comes,
 * but one that was told of before, since entries changed; takes nothing from its user's rate, which
 * newcomers have, only from the number that is looked at side by side) →
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
    PROC_WHO_REQ_AGAIN,
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

/* The three that follow look at an agent's files (attestd/workload/measure.h): as a process sees
 * them whose pidfd goes with the request, or with pid 0 as the host's first process does, and then
 * the descriptor is not looked at. At most two of them are answered at a time (ATT_E_LIMIT
 * measuring): they may take long, and others wait to be told who calls them.
 *
 * READ: of a file that everybody may read (mode o+r), at most PROC_WHO_READ_MAX bytes long in all:
 * pid, path, offset → size of the whole, bytes. ATT_E_DENIED notPublic; ATT_E_NOTFOUND. */
enum { PROC_WHO_READ_REQ_PID, PROC_WHO_READ_REQ_PATH, PROC_WHO_READ_REQ_OFFSET };
enum { PROC_WHO_READ_REP_SIZE, PROC_WHO_READ_REP_BYTES };

/* MEASURE: pid, maxAgeS (how old a digest may be that was read before), withinMs (nothing is read
 * after that time, or after whod's own), sizes (be64 for each path: a file of another size is not
 * read; all ones: of any), paths → one item a path: kind (u8), flags (u8: 1 verity, 2 sha256), be64
 * size, verity (32), sha256 (32), be32 major and minor of the file system's device, text. Those
 * that were not reached in time are of the kind "not yet", the first never is: who asks for them
 * again comes to an end. */
enum {
    PROC_WHO_MEASURE_REQ_PID,
    PROC_WHO_MEASURE_REQ_MAX_AGE_S,
    PROC_WHO_MEASURE_REQ_WITHIN_MS,
    PROC_WHO_MEASURE_REQ_SIZES,
    PROC_WHO_MEASURE_REQ_PATHS,
};
enum { PROC_WHO_MEASURE_REP_SEEN };

/* LIST: pid, path of a folder, after (a name; empty: from the beginning) → the names behind it in
 * the order of their bytes, each after a byte for its kind; more (1: ask again with the last). */
enum { PROC_WHO_LIST_REQ_PID, PROC_WHO_LIST_REQ_PATH, PROC_WHO_LIST_REQ_AFTER };
enum { PROC_WHO_LIST_REP_MORE, PROC_WHO_LIST_REP_NAMES };

extern const struct proc_op proc_who_table[];

#endif
