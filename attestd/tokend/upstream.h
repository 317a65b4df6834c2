/* A client of one of attestd's local sockets inside the loop: calls wait in a queue that is fair
 * between those for whom they are made, and go out over a few connections, one at a time on each
 * (the servers answer serially). A lost connection is made anew by itself; a call that finds nobody
 * waits for gap_ms, so that a restart of the other side is not noticed. */
#ifndef TOKEND_UPSTREAM_H
#define TOKEND_UPSTREAM_H

#include "attestd/proc/ipc.h"
#include "attestd/tokend/loop.h"

struct tokend_upstream;
struct tokend_call;

#define TOKEND_UPSTREAM_LINKS_MAX 8

struct tokend_upstream_opts {
    struct tokend_loop *loop;
    const char *path;
    const char *peer; /* for messages */
    uid_t user;       /* whose process serves there, or root's: nobody else is asked anything */
    const struct proc_op *table;
    unsigned links; /* at most TOKEND_UPSTREAM_LINKS_MAX */
    unsigned each;  /* … of which calls for one and the same hold at most so many; 0: all */
    int64_t gap_ms;
};

/* Whoever calls are made for; who was served longest ago is next. {0} at first. */
struct tokend_fair {
    uint64_t served;
};

/* reply borrows until this returns; NULL unless rc is ATT_OK. */
typedef void tokend_done_fn(void *user, enum att_rc rc, const struct proc_msg *reply,
                            const struct att_err *err);

ATT_MUST_USE enum att_rc tokend_upstream_new(const struct tokend_upstream_opts *opts,
                                             struct tokend_upstream **ret_upstream,
                                             struct att_err *err);
void tokend_upstream_free(struct tokend_upstream *upstream); /* calls are dropped unanswered */

/* passed: a descriptor for the request (copied), or -1. fair is kept by reference until done is
 * called or the call forgotten (and compared until its answer comes or its time is over). done is
 * called once, never from inside this function. */
ATT_MUST_USE enum att_rc tokend_upstream_call(struct tokend_upstream *upstream, uint16_t op,
                                              const struct proc_value *values, int passed,
                                              struct tokend_fair *fair, int64_t timeout_ms,
                                              tokend_done_fn *done, void *user,
                                              struct tokend_call **ret_call, struct att_err *err);
/* done will not be called; what is under way is let run out. NULL is fine. */
void tokend_call_forget(struct tokend_call *call);
/* Time-outs and new tries; to be called every 50 ms or so while busy. */
void tokend_upstream_tick(struct tokend_upstream *upstream);
bool tokend_upstream_busy(const struct tokend_upstream *upstream);

#endif
