/* This host's own rules (attestd/conf/local.h), held against a caller after an entry has granted.
 * Like the selectors: who is in the middle of a decision keeps the set it began with. */
#ifndef ATTESTD_HOST_LOCAL_H
#define ATTESTD_HOST_LOCAL_H

#include "attestd/conf/local.h"
#include "attestd/workload/match.h"

#define HOST_LOCAL_DIR "agents.d" /* beside the configuration's file */

/* Immutable but for its references. */
struct host_local {
    int refs;
    struct conf_local *conf;
};

/* From the folder beside conf_path; every error of the files to stderr, with file and line. */
ATT_MUST_USE enum att_rc host_local_load(const char *conf_path, struct host_local **ret_local,
                                         struct att_err *err);
struct host_local *host_local_ref(struct host_local *local); /* NULL is fine */
void host_local_unref(struct host_local **local);            /* sets NULL */
/* The number of selectors and local rules together: another one when either changes. 0 stays 0;
 * without local rules it is the selectors' own. */
uint64_t host_local_mix(const struct host_local *local, uint64_t selectors);
/* ATT_E_DENIED localRule: no alternative of the agent's rule fits the caller; says file and why the
 * last one does not. */
ATT_MUST_USE enum att_rc host_local_check(const struct host_local *local, const char *agent,
                                          const struct workload_caller *caller,
                                          struct att_err *err);

#endif
