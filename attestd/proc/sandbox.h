/* What a process of ours gives up before it reads the first byte from anybody else: new privileges,
 * core dumps, being traced by its own uid, system calls outside its profile (seccomp), files
 * outside its list (Landlock, where the kernel has it). */
#ifndef ATTESTD_PROC_SANDBOX_H
#define ATTESTD_PROC_SANDBOX_H

#include "attestd/base/err.h"

#include <stdbool.h>
#include <stddef.h>

enum proc_profile {
    PROC_PROFILE_KEYD,    /* the TPM, its state folder, its socket; no network */
    PROC_PROFILE_ATTESTD, /* network, state, control socket; no TPM */
    PROC_PROFILE_ISSUERD, /* network, state */
    PROC_PROFILE_WHOD,    /* reads; no network, no file is written or made. Without Landlock, which
                             would forbid it to look at any process outside of its domain */
    PROC_PROFILE_TOKEND,  /* unix sockets; makes processes, of profile TOKEN; no network */
    PROC_PROFILE_TOKEN,   /* what is open already, and threads: opens nothing, makes nothing */
    PROC_PROFILE_HSMD, /* a vendor's module: nobody can list its calls, so a deny-list. No program
                          is executed, no process made, no namespace, no network */
    PROC_PROFILE_HSMD_NETWORK, /* the same for an HSM in the network: TCP and UDP, too */
    PROC_PROFILE_SPIFFED,      /* unix sockets and threads; no process, no network */
};

/* A file or folder that stays reachable. A path that is not there is skipped. */
struct proc_sandbox_path {
    const char *path; /* NULL ends the list */
    enum {
        PROC_PATH_READ = 1,
        PROC_PATH_WRITE,
        PROC_PATH_DEVICE,
        PROC_PATH_MODULE,
    } access; /* WRITE: read, make, rename, remove; MODULE: that, and ioctl on devices */
};

struct proc_sandbox_opts {
    enum proc_profile profile;
    const struct proc_sandbox_path
        *paths;        /* beyond what every program needs (libc, certificates, …) */
    bool need_memlock; /* RLIMIT_MEMLOCK below PROC_MEMLOCK_MIN is an error, not a remark */
};
#define PROC_MEMLOCK_MIN ((size_t)256 << 10)

/* What was put in force, for logs and INFO. */
struct proc_sandbox_report {
    const char *profile; /* "keyd", "attestd", …, with "-relaxed" in sanitizer builds */
    const char *seccomp; /* "allow-list"; "deny-list" (sanitizer builds, hsmd) */
    int landlock_abi;    /* 0: not in force */
    bool dumpable, memlock_ok;
    char reason[160]; /* why less than everything is in force; empty when all is */
};

/* Is path one of those of the list (as proc_sandbox_opts.paths), or below one? By its text; what a
 * reloaded configuration names newly is out of reach where this says no. NULL is covered. */
bool proc_sandbox_covers(const struct proc_sandbox_path *paths, const char *path);
/* Enters. Cannot be undone and holds for every thread that exists or comes (call it before threads
 * are made: Landlock binds the calling thread and its children only). ATT_E_UNSUPPORTED when the
 * kernel refuses seccomp. */
ATT_MUST_USE enum att_rc proc_sandbox_enter(const struct proc_sandbox_opts *opts,
                                            struct proc_sandbox_report *ret_report,
                                            struct att_err *err);

/* For processes that are made often: the seccomp filter is built once, before its maker enters its
 * own sandbox (which must allow seccomp(2)); each of them then puts it in force with one call. It
 * keeps what it inherited: no new privileges, no dumps, Landlock. */
struct proc_sandbox_ready {
    uint8_t *filter; /* BPF instructions */
    size_t len;
};
ATT_MUST_USE enum att_rc proc_sandbox_prepare(enum proc_profile profile,
                                              struct proc_sandbox_ready *ret_ready,
                                              struct att_err *err);
ATT_MUST_USE enum att_rc proc_sandbox_enter_ready(const struct proc_sandbox_ready *ready,
                                                  struct att_err *err);
void proc_sandbox_ready_done(struct proc_sandbox_ready *ready);

#endif
