/* attestd-spiffed: the SPIFFE Workload API, the Signer service and gRPC's health service on
 * run_dir/public/api.sock, for everybody who may connect. Who a caller is attestd and whod say, by
 * what it is; keyd signs. This process holds no key. docs/AGENTS.md says what is served. */
#ifndef ATTESTD_SPIFFE_SPIFFED_H
#define ATTESTD_SPIFFE_SPIFFED_H

#include "attestd/base/err.h"

#include <stddef.h>
#include <sys/types.h>

struct spiffed;
struct event_base;

struct spiffed_opts {
    struct event_base *base;
    int listen_fd;                                     /* not blocking; stays the caller's */
    const char *workload_path, *whod_path, *keyd_path; /* sockets of those whom it asks */
    uid_t attestd_user, whod_user, keyd_user;          /* who serves there */
    unsigned connections_max, per_uid_max;
    int64_t slow_ms; /* who takes nothing for so long is cut */
};

/* Starts threads and serves: the sandbox is entered before. */
ATT_MUST_USE enum att_rc spiffed_new(const struct spiffed_opts *opts, struct spiffed **ret_spiffed,
                                     struct att_err *err);
/* Waits for what is asked of others at this moment, for seconds. */
void spiffed_free(struct spiffed *spiffed);
/* Ends all connections; the process is to end next. */
void spiffed_end(struct spiffed *spiffed);
/* One line for the service manager. */
void spiffed_status(const struct spiffed *spiffed, char *ret, size_t room);

int spiffed_main(int argc, char **argv);

#endif
