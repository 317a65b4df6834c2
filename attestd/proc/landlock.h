/* Landlock (kernel ≥ 5.13): which files a process of ours can still reach. Internal to proc. */
#ifndef ATTESTD_PROC_LANDLOCK_H
#define ATTESTD_PROC_LANDLOCK_H

#include "attestd/proc/sandbox.h"

/* Binds the calling thread and whatever it starts. ret_abi is the ABI in force; 0 with a reason in
 * ret_reason where the kernel has none. A kernel that has it and refuses is an error. */
ATT_MUST_USE enum att_rc proc_landlock_enter(const struct proc_sandbox_path *paths, int *ret_abi,
                                             char *ret_reason, size_t reason_room,
                                             struct att_err *err);

#endif
