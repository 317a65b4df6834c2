/* The system calls of each profile, by libseccomp. Internal to proc. */
#ifndef ATTESTD_PROC_SECCOMP_FILTER_H
#define ATTESTD_PROC_SECCOMP_FILTER_H

#include "attestd/proc/sandbox.h"

/* Loads the filter for all threads. relaxed: a deny-list (sanitizer builds), else an allow-list:
 * what is not on it fails with EPERM; executing programs, tracing and reading other processes'
 * memory ends the process. */
ATT_MUST_USE enum att_rc proc_seccomp_load(enum proc_profile profile, bool relaxed,
                                           struct att_err *err);
/* The same filter as instructions, to be put in force later by seccomp(2). The caller frees. */
ATT_MUST_USE enum att_rc proc_seccomp_export(enum proc_profile profile, bool relaxed,
                                             uint8_t **ret_filter, size_t *ret_len,
                                             struct att_err *err);

#endif
