/* A decision about one caller: what was seen, and which agent it is. Internal to attestd/host. */
#ifndef ATTESTD_HOST_DECISION_H
#define ATTESTD_HOST_DECISION_H

#include "attestd/host/local.h"
#include "attestd/host/selectors.h"
#include "attestd/workload/wire.h"

struct host;

struct host_caller {
    int pidfd; /* borrowed */
    pid_t pid;
    int64_t accepted_ms; /* as in WHO */
    bool again;          /* likewise */
};

/* {0}, then host_decision_done. Filled as far as it came, on failure too. */
struct host_decision {
    struct host_selectors *selectors; /* those it was made with; NULL: no view yet */
    struct host_local *local;         /* likewise */
    bool seen;                        /* caller is filled */
    struct workload_caller caller;
    struct workload_wanted wanted; /* the manifests that caller.files are of; into selectors */
    const char *agent;             /* into selectors */
};
ATT_MUST_USE enum att_rc host_decide(struct host *host, const struct host_caller *from,
                                     struct host_decision *decision, struct att_err *err);
void host_decision_done(struct host_decision *decision);

#endif
