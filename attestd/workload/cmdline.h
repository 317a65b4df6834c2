/* Which file an interpreter was told to run, by /proc/PID/cmdline. Pure.
 *
 * A process can write its own cmdline, and an interpreter runs more than its script (PYTHONPATH,
 * LD_PRELOAD, modules, a debugger of the same uid): a script's digest narrows, it does not isolate.
 * Where an option's meaning is not known for certain the answer is none, which fits no entry. */
#ifndef ATTESTD_WORKLOAD_CMDLINE_H
#define ATTESTD_WORKLOAD_CMDLINE_H

#include "attestd/base/slice.h"

/* exe: the executable's path; by its last part it is known as an interpreter (python, sh, bash,
 * dash, perl, ruby, node, with a version behind it or not). ret_script: the argument as it stands
 * (absolute, or relative to the working folder), borrowed. False: none. */
bool workload_cmdline_script(struct att_slice exe, struct att_slice cmdline,
                             struct att_slice *ret_script);

#endif
