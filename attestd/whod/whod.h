/* attestd-whod: tells attestd and tokend who a process is. The only process with CAP_SYS_PTRACE and
 * CAP_DAC_READ_SEARCH, and with nothing else: no network, no keys, no file that it writes. */
#ifndef ATTESTD_WHOD_WHOD_H
#define ATTESTD_WHOD_WHOD_H

#include "attestd/base/err.h"

#include "attestd/proc/ipc.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

int whod_main(int argc, char **argv);

/* ---- the server ---- */

struct whod_opts {
    const char *socket_path;
    struct proc_users clients; /* who may ask beside root */
};
struct whod;
/* Binds; serving begins with whod_start, so that the sandbox is entered in between. */
ATT_MUST_USE enum att_rc whod_new(const struct whod_opts *opts, struct whod **ret_whod,
                                  struct att_err *err);
ATT_MUST_USE enum att_rc whod_start(struct whod *whod, struct att_err *err);
void whod_free(struct whod *whod);
void whod_status(struct whod *whod, char *ret, size_t room);

/* ---- limits: of each user, before anything is hashed ---- */

#define WHOD_PER_SECOND 50
#define WHOD_BURST      200
#define WHOD_AT_ONCE    3   /* of one user's processes looked at side by side */
#define WHOD_IN_ALL     12  /* … of all users' together: the other places are for SAME */
#define WHOD_USERS_MAX  256 /* remembered */

struct whod_limits;
ATT_MUST_USE enum att_rc whod_limits_new(struct whod_limits **ret_limits, struct att_err *err);
void whod_limits_free(struct whod_limits *limits);
/* Takes one request out of the user's bucket (not for a process that is looked at again) and one of
 * its places, and of all places; whod_limits_leave gives the places back. ATT_E_LIMIT rateLimited,
 * then no place was taken. */
ATT_MUST_USE enum att_rc whod_limits_enter(struct whod_limits *limits, uid_t uid, bool again,
                                           int64_t now_ms, struct att_err *err);
void whod_limits_leave(struct whod_limits *limits, uid_t uid);

/* ---- an agent's files: READ, MEASURE, LIST of who_proto.h ---- */

#define WHOD_MEASURING_MAX 2     /* at a time: WHO and SAME have the other places */
#define WHOD_MEASURE_MS    90000 /* for one request */

struct whod_measurer;
ATT_MUST_USE enum att_rc whod_measurer_new(struct whod_measurer **ret_measurer,
                                           struct att_err *err);
void whod_measurer_free(struct whod_measurer *measurer);
ATT_MUST_USE enum att_rc whod_measurer_answer(struct whod_measurer *measurer,
                                              const struct proc_peer *peer,
                                              const struct proc_op *op, const struct proc_value *v,
                                              struct att_buf *ret_payload, struct att_err *err);

/* ---- privileges ---- */

/* Gives up every capability but CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, in all five sets.
 * ret_ptrace, ret_read: which of the two were there to keep. */
ATT_MUST_USE enum att_rc whod_caps_drop(bool *ret_ptrace, bool *ret_read, struct att_err *err);

#endif
