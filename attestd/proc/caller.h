/* A client of one of attestd's local sockets, for processes with threads: one blocking call per
 * operation of a table. Thread-safe: calls from several threads run side by side on a small pool of
 * connections. A lost connection is made anew at the next call; operations that are harmless to
 * repeat (PROC_OP_AGAIN) are resent once by themselves.
 *
 * Errors: what the peer answered, with its code, reason and message; ATT_E_UNREACHABLE when nobody
 * listens; ATT_E_TIMEOUT; ATT_E_GONE when the connection went away; ATT_E_PROTOCOL when the answer
 * has not its form. */
#ifndef ATTESTD_PROC_CALLER_H
#define ATTESTD_PROC_CALLER_H

#include "attestd/proc/ipc.h"

struct proc_caller;

#define PROC_ANY_USER ((uid_t)-1)

/* Does not connect yet. user: who serves there, beside root (ATT_E_DENIED foreignServer otherwise);
 * PROC_ANY_USER where only root can make the socket. peer: what the messages call the other side
 * ("keyd"), kept by reference, as is table. timeout_ms bounds each call. */
ATT_MUST_USE enum att_rc proc_caller_new(const char *socket_path, const char *peer, uid_t user,
                                         const struct proc_op *table, int64_t timeout_ms,
                                         struct proc_caller **ret_caller, struct att_err *err);
void proc_caller_free(struct proc_caller *caller); /* no call may be under way */

/* What a call's reply borrows from. {0}, then proc_answer_done. */
struct proc_answer {
    struct att_buf frame;
    struct proc_msg msg;
};
void proc_answer_done(struct proc_answer *answer);
#define proc_autoanswer ATT_CLEANUP(proc_answer_done) struct proc_answer

/* values in the order of the operation's request shape (NULL: it has none). passed: a descriptor
 * that travels with it (for operations with PROC_OP_FD), borrowed, else -1. */
ATT_MUST_USE enum att_rc proc_call(struct proc_caller *caller, uint16_t which,
                                   const struct proc_value *values, int passed,
                                   struct proc_answer *ret_answer, struct att_err *err);

static inline struct proc_value proc_text(const char *s)
{
    return (struct proc_value){.bytes = att_slice_str(s)};
}
static inline struct proc_value proc_bytes(struct att_slice slice)
{
    return (struct proc_value){.bytes = slice};
}
static inline struct proc_value proc_num(uint64_t num)
{
    return (struct proc_value){.num = num};
}
/* A text field as a C string, cut to fit: the table's bounds make it fit. room includes the NUL. */
void proc_take_text(struct att_slice from, char *ret, size_t room);

#endif
