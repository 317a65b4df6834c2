#include "attestd/proc/seccomp_filter.h"

#include "attestd/base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/fsverity.h>
#include <sched.h>
#include <seccomp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* libseccomp's SCMP_A0 … leave the second datum out, of which clang warns. */
#define ARG_EQ(n, value) SCMP_CMP64((n), SCMP_CMP_EQ, (scmp_datum_t)(value), 0)

/* By name: a call that this architecture lacks (open on arm64) or this libseccomp does not know is
 * left out. */
static const char *const common_calls[] = {
    /* memory */
    "brk",
    "mmap",
    "munmap",
    "mprotect",
    "mremap",
    "madvise",
    "mlock",
    "mlock2",
    "munlock",
    "memfd_secret",
    "membarrier",
    /* files that are open */
    "read",
    "write",
    "readv",
    "writev",
    "pread64",
    "pwrite64",
    "preadv",
    "pwritev",
    "lseek",
    "close",
    "close_range",
    "dup",
    "dup2",
    "dup3",
    "fcntl",
    "flock",
    "fsync",
    "fdatasync",
    "fadvise64",
    "fstat",
    "fstatfs",
    "pipe2",
    /* files by name: Landlock and the file modes say which */
    "stat",
    "lstat",
    "newfstatat",
    "statx",
    "statfs",
    "access",
    "faccessat",
    "faccessat2",
    "readlink",
    "readlinkat",
    "getdents64",
    "getcwd",
    "umask",
    /* waiting */
    "poll",
    "ppoll",
    "select",
    "pselect6",
    "epoll_create1",
    "epoll_ctl",
    "epoll_wait",
    "epoll_pwait",
    "eventfd2",
    "timerfd_create",
    "timerfd_settime",
    "setitimer",
    "timerfd_gettime",
    "nanosleep",
    "clock_nanosleep",
    "restart_syscall",
    "pause",
    /* sockets; socket(2) itself has its own rules */
    "connect",
    "accept",
    "accept4",
    "bind",
    "listen",
    "getsockname",
    "getpeername",
    "getsockopt",
    "setsockopt",
    "sendto",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "shutdown",
    /* threads and signals of this process; clone and tgkill have their own rules */
    "futex",
    "set_robust_list",
    "rseq",
    "set_tid_address",
    "sched_yield",
    "sched_getaffinity",
    "gettid",
    "exit",
    "exit_group",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "rt_sigtimedwait",
    "rt_sigpending",
    "rt_sigsuspend",
    "sigaltstack",
    "signalfd4",
    /* who and when */
    "getpid",
    "getppid",
    "getuid",
    "geteuid",
    "getgid",
    "getegid",
    "getresuid",
    "getresgid",
    "getgroups",
    "uname",
    "sysinfo",
    "getrusage",
    "times",
    "getrandom",
    "clock_gettime",
    "clock_getres",
    "gettimeofday",
    "time",
    "arch_prctl",
    "getrlimit",
};

/* Opening files for writing too, and changing names: not for whod. */
static const char *const file_calls[] = {
    "open",     "openat",    "ftruncate", "fallocate", "fchmod", "rename",
    "renameat", "renameat2", "unlink",    "unlinkat",  "rmdir",  "mkdir",
    "mkdirat",  "chmod",     "fchmodat",  "link",      "linkat",
};

/* What whod reads besides. The flags of openat2 stand in memory, out of a filter's sight. */
static const char *const look_calls[] = {"openat2", "getxattr"};

/* attestd asks whod about a pid that an operator names, spiffed about one that connected. */
static const char *const pidfd_calls[] = {"pidfd_open"};

/* libevent wakes itself by them. */
static const char *const spiffed_calls[] = {"epoll_create", "pipe", "eventfd", "socketpair"};

/* A server and a client of the network need a little more (libevent, libcurl, SQLite). */
static const char *const network_calls[] = {
    "sendmmsg",  "recvmmsg",   "sendfile", "epoll_create", "pipe",    "eventfd",   "fchown",
    "utimensat", "socketpair", "truncate", "getpriority",  "symlink", "symlinkat", /* certs/install
                                                                                    */
    "chown",     "fchownat", /* a control socket for a group */
};

/* tokend makes processes and gives them their own, narrower sandbox; clone has its own rule. */
static const char *const tokend_calls[] = {
    "wait4", "waitid", "kill", "pidfd_open", "seccomp", "setrlimit", "socketpair",
};

/* All that a token does: it reads, writes and waits on what it was given. */
static const char *const token_calls[] = {
    "brk",
    "mmap",
    "munmap",
    "mprotect",
    "mremap",
    "madvise",
    "read",
    "write",
    "readv",
    "writev",
    "close",
    "recvfrom",
    "recvmsg",
    "sendto",
    "sendmsg",
    "shutdown",
    "poll",
    "ppoll",
    "futex",
    "rseq",
    "rt_sigprocmask",
    "rt_sigreturn",
    "set_robust_list",
    "sched_yield",
    "gettid",
    "getpid",
    "nanosleep",
    "clock_nanosleep",
    "clock_gettime",
    "getrandom",
    "exit",
    "exit_group",
    "restart_syscall",
    "sigaltstack",
    "membarrier",
    "gettimeofday",
    "time",
};

/* Ends the process: no honest code of ours comes near these. */
static const char *const hostile_calls[] = {
    "execve",      "execveat",   "ptrace",      "process_vm_readv", "process_vm_writev",
    "pidfd_getfd", "kexec_load", "init_module", "finit_module",     "bpf",
    "userfaultfd",
};

/* What a PKCS#11 module has no business with, either: another view of the system, its clock, its
 * state; another user; rings and keyrings that reach around a filter. */
static const char *const module_calls[] = {
    "mount",
    "umount2",
    "mount_setattr",
    "move_mount",
    "fsopen",
    "fsconfig",
    "fsmount",
    "open_tree",
    "pivot_root",
    "chroot",
    "unshare",
    "setns",
    "swapon",
    "swapoff",
    "reboot",
    "delete_module",
    "kexec_file_load",
    "settimeofday",
    "clock_settime",
    "clock_adjtime",
    "adjtimex",
    "sethostname",
    "setdomainname",
    "iopl",
    "ioperm",
    "acct",
    "quotactl",
    "syslog",
    "perf_event_open",
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    "add_key",
    "request_key",
    "keyctl",
    "name_to_handle_at",
    "open_by_handle_at",
    "mknod",
    "mknodat",
    "setuid",
    "setgid",
    "setreuid",
    "setregid",
    "setresuid",
    "setresgid",
    "setgroups",
    "setfsuid",
    "setfsgid",
    "capset",
    "personality",
    "process_madvise",
    "kcmp",
    "fanotify_init",
    "fork",
    "vfork",
};

static const char *profile_of(enum proc_profile profile)
{
    static const char *const names[] = {"keyd",  "attestd", "issuerd",      "whod",   "tokend",
                                        "token", "hsmd",    "hsmd-network", "spiffed"};
    return names[profile];
}

static int add_calls(scmp_filter_ctx ctx, uint32_t action, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int number = seccomp_syscall_resolve_name(names[i]);
        if (number == __NR_SCMP_ERROR) {
            continue;
        }
        int rc = seccomp_rule_add(ctx, action, number, 0);
        if (rc != 0 && rc != -EDOM) { /* EDOM: not on this architecture */
            return rc;
        }
    }
    return 0;
}

static bool has_network(enum proc_profile profile)
{
    return profile == PROC_PROFILE_ATTESTD || profile == PROC_PROFILE_ISSUERD;
}

static int allow_sockets(scmp_filter_ctx ctx, enum proc_profile profile)
{
    static const unsigned families[] = {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK};
    size_t count = has_network(profile) ? 4 : 1; /* keyd: the TPM's socket, ours; tokend: ours */
    for (size_t i = 0; i < count; i++) {
        int rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1, ARG_EQ(0, families[i]));
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

static int allow_threads(scmp_filter_ctx ctx)
{
    /* clone3's flags stand in memory, out of a filter's sight: libc then falls back to clone. */
    int rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    if (rc == 0) {
        rc = seccomp_rule_add(
            ctx, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
            SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD | CLONE_VM, CLONE_THREAD | CLONE_VM));
    }
    if (rc == 0) { /* abort() and raise() signal their own process only */
        rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, ARG_EQ(0, getpid()));
    }
    return rc;
}

static int allow_some_arguments(scmp_filter_ctx ctx)
{
    static const unsigned long prctls[] = {PR_SET_NAME, PR_GET_NAME, PR_GET_DUMPABLE, PR_SET_VMA};
    for (size_t i = 0; i < sizeof prctls / sizeof prctls[0]; i++) {
        int rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1, ARG_EQ(0, prctls[i]));
        if (rc != 0) {
            return rc;
        }
    }
    /* Limits of ourselves may be read, not set. */
    int rc =
        seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), 2, ARG_EQ(0, 0), ARG_EQ(2, 0));
    static const unsigned long ioctls[] = {
        0x541b /* FIONREAD */, 0x5421 /* FIONBIO */,
        0x5401 /* TCGETS: stdio asks whether it is a terminal */};
    for (size_t i = 0; rc == 0 && i < sizeof ioctls / sizeof ioctls[0]; i++) {
        rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1, ARG_EQ(1, ioctls[i]));
    }
    return rc;
}

#define ADD_ALL(ctx, action, names)                                                                \
    add_calls((ctx), (action), (names), sizeof(names) / sizeof *(names))

/* open and openat as far as they do not write, make or cut a file; what fs-verity says of one. */
static int allow_reading(scmp_filter_ctx ctx)
{
    const scmp_datum_t writing = O_ACCMODE | O_CREAT | O_TRUNC;
    int rc = ADD_ALL(ctx, SCMP_ACT_ALLOW, look_calls);
    int number = seccomp_syscall_resolve_name("open");
    if (rc == 0 && number != __NR_SCMP_ERROR) {
        rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, number, 1,
                              SCMP_CMP64(1, SCMP_CMP_MASKED_EQ, writing, 0));
        rc = rc == -EDOM ? 0 : rc;
    }
    if (rc == 0) {
        rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(openat), 1,
                              SCMP_CMP64(2, SCMP_CMP_MASKED_EQ, writing, 0));
    }
    static const unsigned long asks[] = {FS_IOC_MEASURE_VERITY, FS_IOC_GETVERSION};
    for (size_t i = 0; rc == 0 && i < sizeof asks / sizeof asks[0]; i++) {
        rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1, ARG_EQ(1, asks[i]));
    }
    return rc;
}

/* fork(): its own memory, no new namespace. */
static int allow_children(scmp_filter_ctx ctx)
{
    const scmp_datum_t no = CLONE_VM | CLONE_NEWNS | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET |
                            CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;
    int rc = ADD_ALL(ctx, SCMP_ACT_ALLOW, tokend_calls);
    if (rc == 0) {
        rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
                              SCMP_CMP64(0, SCMP_CMP_MASKED_EQ, no, 0));
    }
    if (rc == 0) { /* limits of the new process, by itself */
        rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), 1, ARG_EQ(0, 0));
    }
    static const unsigned long prctls[] = {PR_SET_NO_NEW_PRIVS, PR_SET_DUMPABLE, PR_SET_PDEATHSIG};
    for (size_t i = 0; rc == 0 && i < sizeof prctls / sizeof prctls[0]; i++) {
        rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1, ARG_EQ(0, prctls[i]));
    }
    return rc;
}

/* No call that names a file or makes anything: what takes a token over has this one process, its
 * two threads and what they hold. No signal of abort(), which then ends by its trap. */
static int fill_token_list(scmp_filter_ctx ctx)
{
    int rc = ADD_ALL(ctx, SCMP_ACT_ALLOW, token_calls);
    return rc == 0 ? ADD_ALL(ctx, SCMP_ACT_KILL_PROCESS, hostile_calls) : rc;
}

static int fill_allow_list(scmp_filter_ctx ctx, enum proc_profile profile)
{
    if (profile == PROC_PROFILE_TOKEN) {
        return fill_token_list(ctx);
    }
    int rc = ADD_ALL(ctx, SCMP_ACT_ALLOW, common_calls);
    if (rc == 0) {
        rc = profile == PROC_PROFILE_WHOD ? allow_reading(ctx)
                                          : ADD_ALL(ctx, SCMP_ACT_ALLOW, file_calls);
    }
    if (rc == 0 && has_network(profile)) {
        rc = ADD_ALL(ctx, SCMP_ACT_ALLOW, network_calls);
    }
    if (rc == 0 && profile == PROC_PROFILE_TOKEND) {
        rc = allow_children(ctx);
    }
    if (rc == 0 && (profile == PROC_PROFILE_ATTESTD || profile == PROC_PROFILE_SPIFFED)) {
        rc = ADD_ALL(ctx, SCMP_ACT_ALLOW, pidfd_calls);
    }
    if (rc == 0 && profile == PROC_PROFILE_SPIFFED) {
        rc = ADD_ALL(ctx, SCMP_ACT_ALLOW, spiffed_calls);
    }
    if (rc == 0) {
        rc = allow_sockets(ctx, profile);
    }
    if (rc == 0) {
        rc = allow_threads(ctx);
    }
    if (rc == 0) {
        rc = allow_some_arguments(ctx);
    }
    if (rc == 0) {
        rc = ADD_ALL(ctx, SCMP_ACT_KILL_PROCESS, hostile_calls);
    }
    return rc;
}

/* Sanitizers need calls that nobody lists; the hostile ones stay refused for them too. */
static int fill_deny_list(scmp_filter_ctx ctx, enum proc_profile profile)
{
    int rc = ADD_ALL(ctx, SCMP_ACT_ERRNO(EPERM), hostile_calls);
    static const unsigned families[] = {AF_INET, AF_INET6, AF_PACKET};
    for (size_t i = 0; rc == 0 && !has_network(profile) && i < 3; i++) {
        rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(socket), 1,
                              ARG_EQ(0, families[i]));
    }
    return rc;
}

static bool for_module(enum proc_profile profile)
{
    return profile == PROC_PROFILE_HSMD || profile == PROC_PROFILE_HSMD_NETWORK;
}

/* AF_UNIX (pcscd, a vendor's own daemon) and AF_NETLINK (udev); with a network TCP and UDP. */
static int deny_families(scmp_filter_ctx ctx, bool network)
{
    int rc = 0;
    for (unsigned family = 0; rc == 0 && family < AF_MAX; family++) {
        bool allowed = family == AF_UNIX || family == AF_NETLINK ||
                       (network && (family == AF_INET || family == AF_INET6));
        if (!allowed) {
            rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EAFNOSUPPORT), SCMP_SYS(socket), 1,
                                  ARG_EQ(0, family));
        }
    }
    return rc ? rc
              : seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EAFNOSUPPORT), SCMP_SYS(socket), 1,
                                 SCMP_CMP64(0, SCMP_CMP_GE, (scmp_datum_t)AF_MAX, 0));
}

/* A vendor's module asks for calls that nobody can list; it is not trusted to behave, so the same
 * holds in every build. What it is refused it can answer for: EPERM, not the end. */
static int fill_module_list(scmp_filter_ctx ctx, enum proc_profile profile)
{
    int rc = ADD_ALL(ctx, SCMP_ACT_ERRNO(EPERM), hostile_calls);
    if (rc == 0) {
        rc = ADD_ALL(ctx, SCMP_ACT_ERRNO(EPERM), module_calls);
    }
    if (rc == 0) {
        rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    }
    if (rc == 0) { /* threads only; they bring no namespace (CLONE_THREAD forbids it) */
        rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1,
                              SCMP_CMP64(0, SCMP_CMP_MASKED_EQ, CLONE_THREAD, 0));
    }
    return rc == 0 ? deny_families(ctx, profile == PROC_PROFILE_HSMD_NETWORK) : rc;
}

static enum att_rc build(enum proc_profile profile, bool relaxed, scmp_filter_ctx *ret_ctx,
                         struct att_err *err)
{
    relaxed = relaxed || for_module(profile);
    scmp_filter_ctx ctx = seccomp_init(relaxed ? SCMP_ACT_ALLOW : SCMP_ACT_ERRNO(EPERM));
    if (!ctx) {
        return att_fail(err, ATT_E_NOMEM, "seccomp filter");
    }
    /* All threads, and a wrong architecture's calls end the process (libseccomp's default). */
    int rc = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
    if (rc == 0) {
        rc = for_module(profile) ? fill_module_list(ctx, profile)
             : relaxed           ? fill_deny_list(ctx, profile)
                                 : fill_allow_list(ctx, profile);
    }
    if (rc != 0) {
        seccomp_release(ctx);
        return att_fail(err, ATT_E_UNSUPPORTED, "seccomp filter of %s: %s", profile_of(profile),
                        strerror(-rc));
    }
    *ret_ctx = ctx;
    return ATT_OK;
}

enum att_rc proc_seccomp_load(enum proc_profile profile, bool relaxed, struct att_err *err)
{
    scmp_filter_ctx ctx = NULL;
    enum att_rc rc = build(profile, relaxed, &ctx, err);
    if (rc != ATT_OK) {
        return rc;
    }
    int failed = seccomp_load(ctx);
    seccomp_release(ctx);
    return failed == 0 ? ATT_OK
                       : att_fail(err, ATT_E_UNSUPPORTED, "seccomp filter of %s: %s",
                                  profile_of(profile), strerror(-failed));
}

enum att_rc proc_seccomp_export(enum proc_profile profile, bool relaxed, uint8_t **ret_filter,
                                size_t *ret_len, struct att_err *err)
{
    scmp_filter_ctx ctx = NULL;
    enum att_rc rc = build(profile, relaxed, &ctx, err);
    if (rc != ATT_OK) {
        return rc;
    }
    att_autofd fd = memfd_create("filter", MFD_CLOEXEC);
    int failed = fd < 0 ? -errno : seccomp_export_bpf(ctx, fd);
    seccomp_release(ctx);
    off_t len = failed == 0 ? lseek(fd, 0, SEEK_END) : 0;
    uint8_t *filter = len > 0 ? malloc((size_t)len) : NULL;
    if (!filter || pread(fd, filter, (size_t)len, 0) != len) {
        free(filter);
        return att_fail(err, ATT_E_UNSUPPORTED, "seccomp filter of %s: %s", profile_of(profile),
                        strerror(failed ? -failed : ENOMEM));
    }
    *ret_filter = filter;
    *ret_len = (size_t)len;
    return ATT_OK;
}
