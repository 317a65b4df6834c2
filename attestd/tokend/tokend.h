/* The process that workloads' PKCS#11 libraries connect to. It asks attestd who a caller is, makes
 * a token process for each connection, and passes that one's requests on, tagged with the agent
 * that was recorded when the connection was accepted. It holds no key and reads no frame of a
 * workload. */
#ifndef TOKEND_TOKEND_H
#define TOKEND_TOKEND_H

#include "attestd/base/err.h"

#include <stdbool.h>
#include <sys/types.h>

int tokend_main(int argc, char **argv);

struct tokend;

struct tokend_opts {
    int listen_fd; /* bound, listening, non-blocking; the caller's */
    const char *workload_path, *whod_path, *keyd_path;
    uid_t attestd_user, whod_user, keyd_user; /* who serves there; root may, too */
    unsigned connections_max, per_uid_max;
    unsigned unknown_per_uid_max; /* connections of a user's processes that are no agent */
    unsigned unproven_max;        /* … of all users, together with those that are not known yet */
};

ATT_MUST_USE enum att_rc tokend_new(const struct tokend_opts *opts, struct tokend **ret_tokend,
                                    struct att_err *err);
void tokend_free(struct tokend *tokend);
/* One turn of the loop. True: what tokend_wake_by watches may be readable. */
bool tokend_turn(struct tokend *tokend);
/* Watches one more descriptor, whose readiness ends a turn early. */
ATT_MUST_USE enum att_rc tokend_wake_by(struct tokend *tokend, int fd, struct att_err *err);
void tokend_child_signal(struct tokend *tokend); /* SIGCHLD came */
void tokend_status(const struct tokend *tokend, char *ret, unsigned long room);

#endif
