#include "attestd/proc/sandbox.h"

#include "attestd/proc/landlock.h"
#include "attestd/proc/seccomp_filter.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#if ATT_SANITIZED
/* LeakSanitizer's check at exit traces its own process, which the sandbox refuses: processes that
 * have entered are not checked, all others are. */
static atomic_bool entered;
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
    return atomic_load(&entered);
}
#endif

static enum att_rc give_up_privileges(struct att_err *err)
{
    static const struct rlimit none = {0, 0};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
        return att_fail_errno(err, ATT_E_UNSUPPORTED, "PR_SET_NO_NEW_PRIVS");
    }
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) {
        return att_fail_errno(err, ATT_E_UNSUPPORTED, "PR_SET_DUMPABLE");
    }
    if (setrlimit(RLIMIT_CORE, &none) != 0) {
        return att_fail_errno(err, ATT_E_UNSUPPORTED, "RLIMIT_CORE");
    }
    return ATT_OK;
}

static void remark(struct proc_sandbox_report *report, const char *text)
{
    size_t used = strlen(report->reason);
    snprintf(report->reason + used, sizeof report->reason - used, "%s%s", used ? "; " : "", text);
}

static enum att_rc check_memlock(bool needed, struct proc_sandbox_report *report,
                                 struct att_err *err)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0) {
        return att_fail_errno(err, ATT_E_IO, "RLIMIT_MEMLOCK");
    }
    report->memlock_ok = limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur >= PROC_MEMLOCK_MIN;
    if (report->memlock_ok) {
        return ATT_OK;
    }
    if (needed) {
        return att_fail(err, ATT_E_LIMIT,
                        "RLIMIT_MEMLOCK is %llu bytes, at least %zu are needed to keep secrets out "
                        "of swap (LimitMEMLOCK= in the unit)",
                        (unsigned long long)limit.rlim_cur, PROC_MEMLOCK_MIN);
    }
    remark(report, "RLIMIT_MEMLOCK is small");
    return ATT_OK;
}

bool proc_sandbox_covers(const struct proc_sandbox_path *paths, const char *path)
{
    for (size_t i = 0; path && paths[i].path; i++) {
        size_t len = strlen(paths[i].path);
        bool below = strncmp(path, paths[i].path, len) == 0 &&
                     (path[len] == '/' || path[len] == '\0' || (len && path[len - 1] == '/'));
        if (below && !strstr(path + len, "/..")) {
            return true;
        }
    }
    return !path;
}

enum att_rc proc_sandbox_enter(const struct proc_sandbox_opts *opts,
                               struct proc_sandbox_report *ret_report, struct att_err *err)
{
    static const char *const names[][2] = {
        [PROC_PROFILE_KEYD] = {"keyd", "keyd-relaxed"},
        [PROC_PROFILE_ATTESTD] = {"attestd", "attestd-relaxed"},
        [PROC_PROFILE_ISSUERD] = {"issuerd", "issuerd-relaxed"},
        [PROC_PROFILE_WHOD] = {"whod", "whod-relaxed"},
        [PROC_PROFILE_TOKEND] = {"tokend", "tokend-relaxed"},
        [PROC_PROFILE_TOKEN] = {"token", "token-relaxed"},
        [PROC_PROFILE_HSMD] = {"hsmd", "hsmd-relaxed"},
        [PROC_PROFILE_HSMD_NETWORK] = {"hsmd-network", "hsmd-network-relaxed"},
        [PROC_PROFILE_SPIFFED] = {"spiffed", "spiffed-relaxed"}};
    bool relaxed = ATT_SANITIZED;
    bool module = opts->profile == PROC_PROFILE_HSMD || opts->profile == PROC_PROFILE_HSMD_NETWORK;
    struct proc_sandbox_report report = {
        .profile = names[opts->profile][relaxed],
        .seccomp = relaxed || module ? "deny-list" : "allow-list",
    };
    enum att_rc rc = check_memlock(opts->need_memlock, &report, err);
    if (rc == ATT_OK) {
        rc = give_up_privileges(err);
    }
    char why[96] = "";
    if (rc == ATT_OK && opts->profile == PROC_PROFILE_WHOD) {
        remark(&report, "no Landlock: it hides other processes");
    } else if (rc == ATT_OK) {
        rc = proc_landlock_enter(opts->paths, &report.landlock_abi, why, sizeof why, err);
    }
    if (rc == ATT_OK) {
        rc = proc_seccomp_load(opts->profile, relaxed, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    if (why[0]) {
        remark(&report, why);
    }
    if (relaxed) {
        remark(&report, "sanitizer build");
    }
    report.dumpable = prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) != 0;
#if ATT_SANITIZED
    atomic_store(&entered, true);
#endif
    *ret_report = report;
    return ATT_OK;
}

enum att_rc proc_sandbox_prepare(enum proc_profile profile, struct proc_sandbox_ready *ret_ready,
                                 struct att_err *err)
{
    return proc_seccomp_export(profile, ATT_SANITIZED, &ret_ready->filter, &ret_ready->len, err);
}

enum att_rc proc_sandbox_enter_ready(const struct proc_sandbox_ready *ready, struct att_err *err)
{
    struct sock_fprog program = {
        .len = (unsigned short)(ready->len / sizeof(struct sock_filter)),
        .filter = (struct sock_filter *)(void *)ready->filter,
    };
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) {
        return att_fail_errno(err, ATT_E_UNSUPPORTED, "prctl");
    }
    /* For the threads that there are, too; not 0: one that could not be bound. */
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) != 0) {
        return att_fail_errno(err, ATT_E_UNSUPPORTED, "seccomp filter made ahead");
    }
#if ATT_SANITIZED
    atomic_store(&entered, true);
#endif
    return ATT_OK;
}

void proc_sandbox_ready_done(struct proc_sandbox_ready *ready)
{
    free(ready->filter);
    *ready = (struct proc_sandbox_ready){0};
}
