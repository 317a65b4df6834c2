/* attestctl migrate scan: where static keys lie on a machine, or in an image of one. Reads; writes
 * nothing. Values are in one locked buffer that is wiped after each file. */
#ifndef ATTESTD_SCAN_SCAN_H
#define ATTESTD_SCAN_SCAN_H

#include "attestd/scan/findings.h"

#define SCAN_PATHS_MAX 256

struct scan_options {
    const char *root;         /* NULL: this machine; else a folder that is "/", without processes */
    const char *const *paths; /* folders and files beside the known places; in root */
    size_t n_paths;
    const char *const *users; /* whose homes; none: all, or the caller's own where it is not root */
    size_t n_users;
    bool units, homes, processes;
    int slow_ms; /* how long a process's memory may take to be read; 0: 2000 */
    int home_ms; /* … and one user's home; 0: 60000 */
};

/* ATT_E_NOTFOUND: root, a path or a user is not there; nothing was scanned then. ATT_E_NOMEM.
 * What cannot be read is no error: ret->skipped. Once in a process. */
ATT_MUST_USE enum att_rc scan_run(const struct scan_options *options, struct scan_findings *ret,
                                  struct att_err *err);

#endif
