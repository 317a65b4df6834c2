/* Questions to attestd's other processes from inside an event loop: a fixed number of threads, each
 * with one blocking call at a time (proc/caller.h), take them from a queue; the answers come back
 * in the loop's thread. No thread is made for a question. */
#ifndef ATTESTD_SPIFFE_ASK_H
#define ATTESTD_SPIFFE_ASK_H

#include "attestd/proc/caller.h"

#define ASK_THREADS_MAX 4
#define ASK_VALUES_MAX  4
#define ASK_BYTES_MAX   4096 /* of one question, all values together */
#define ASK_WAITING_MAX 4096 /* questions in a queue, and … */
#define ASK_EACH_MAX    256  /* … of one of those for whom they are */
#define ASK_SERVED_MAX  256  /* of so many it is remembered when they were served */

struct ask;
struct ask_call;
struct event_base;

struct ask_opts {
    struct event_base *base;
    const char *path;
    const char *peer; /* for messages */
    uid_t user;       /* whose process serves there */
    const struct proc_op *table;
    int64_t timeout_ms;
    unsigned threads; /* at most ASK_THREADS_MAX */
};

/* reply borrows until this returns; NULL unless rc is ATT_OK. */
typedef void ask_done_fn(void *user, enum att_rc rc, const struct proc_msg *reply,
                         const struct att_err *err);

/* Errors: those of proc_call, but ATT_E_DENIED is the peer's own word only: a foreign server, or a
 * socket that keeps us out, is ATT_E_UNREACHABLE.
 *
 * Starts the threads: after the sandbox was entered. */
ATT_MUST_USE enum att_rc ask_new(const struct ask_opts *opts, struct ask **ret_ask,
                                 struct att_err *err);
/* Waits for the calls under way (at most timeout_ms each); nothing is answered any more. */
void ask_free(struct ask *ask);

/* values are copied. passed: a descriptor for the request (copied), or -1. of: for whom; while one
 * question of somebody is under way, his next one waits and others' go before it (NULL: nobody).
 * Who was served longest ago goes first, between equals who asked first. done is called once, from
 * the loop. ATT_E_LIMIT: too many wait, or too many of his. */
ATT_MUST_USE enum att_rc ask_call(struct ask *ask, uint16_t op, const struct proc_value *values,
                                  size_t n_values, int passed, const void *of, ask_done_fn *done,
                                  void *user, struct ask_call **ret_call, struct att_err *err);
/* It has not been sent yet. */
bool ask_waits(struct ask_call *call);
/* done will not be called, and user and of not looked at; what was not sent yet is not sent. call
 * is no more. NULL is fine. */
void ask_forget(struct ask_call *call);

#endif
