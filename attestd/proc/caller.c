#include "attestd/proc/caller.h"

#include "attestd/base/clock.h"
#include "attestd/base/secret.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define POOL_MAX 8

struct proc_caller {
    struct sockaddr_un addr;
    const char *peer;
    uid_t user;
    const struct proc_op *table;
    int64_t timeout_ms;
    atomic_uint next_id;
    pthread_mutex_t lock;
    int idle[POOL_MAX]; /* connections nobody uses now */
    size_t idle_count;
};

enum att_rc proc_caller_new(const char *socket_path, const char *peer, uid_t user,
                            const struct proc_op *table, int64_t timeout_ms,
                            struct proc_caller **ret_caller, struct att_err *err)
{
    size_t len = strlen(socket_path);
    struct proc_caller *caller = calloc(1, sizeof *caller);
    if (!caller) {
        return att_fail(err, ATT_E_NOMEM, "client");
    }
    if (len == 0 || len >= sizeof caller->addr.sun_path || timeout_ms <= 0) {
        free(caller);
        return att_fail(err, ATT_E_INVAL, "socket path of %zu bytes or time-out of %lld ms", len,
                        (long long)timeout_ms);
    }
    caller->addr.sun_family = AF_UNIX;
    memcpy(caller->addr.sun_path, socket_path, len);
    caller->peer = peer;
    caller->user = user;
    caller->table = table;
    caller->timeout_ms = timeout_ms;
    pthread_mutex_init(&caller->lock, NULL);
    *ret_caller = caller;
    return ATT_OK;
}

void proc_caller_free(struct proc_caller *caller)
{
    if (!caller) {
        return;
    }
    for (size_t i = 0; i < caller->idle_count; i++) {
        close(caller->idle[i]);
    }
    pthread_mutex_destroy(&caller->lock);
    free(caller);
}

/* ---- connections --------------------------------------------------------------------------- */

/* Nothing may come on an idle connection: readable means that the peer has gone. */
static bool still_open(int fd)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    return poll(&poll_fd, 1, 0) == 0;
}

static int take_idle(struct proc_caller *caller)
{
    int fd = -1;
    pthread_mutex_lock(&caller->lock);
    while (fd < 0 && caller->idle_count) {
        fd = caller->idle[--caller->idle_count];
        if (!still_open(fd)) {
            close(fd);
            fd = -1;
        }
    }
    pthread_mutex_unlock(&caller->lock);
    return fd;
}

static void give_idle(struct proc_caller *caller, int fd)
{
    pthread_mutex_lock(&caller->lock);
    if (caller->idle_count < POOL_MAX) {
        caller->idle[caller->idle_count++] = fd;
        fd = -1;
    }
    pthread_mutex_unlock(&caller->lock);
    if (fd >= 0) {
        close(fd);
    }
}

/* Whoever may write in the socket's folder can serve there: not every server is who it should be.
 */
static enum att_rc check_server(const struct proc_caller *caller, int fd, struct att_err *err)
{
    struct proc_peer peer;
    enum att_rc rc = caller->user == PROC_ANY_USER ? ATT_OK : proc_peer_get(fd, &peer, err);
    if (rc == ATT_OK && caller->user != PROC_ANY_USER && peer.uid != caller->user &&
        peer.uid != 0) {
        rc = att_fail(err, ATT_E_DENIED, "%s is served by uid %u, expected %s's, %u",
                      caller->addr.sun_path, peer.uid, caller->peer, caller->user);
        att_err_reason(err, "foreignServer");
    }
    return rc;
}

static enum att_rc make_connection(const struct proc_caller *caller, int *ret_fd,
                                   struct att_err *err)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return att_fail_errno(err, ATT_E_IO, "socket");
    }
    if (connect(fd, (const struct sockaddr *)&caller->addr, sizeof caller->addr) != 0) {
        int failed = errno;
        close(fd);
        errno = failed;
        return att_fail_errno(err, failed == EACCES ? ATT_E_DENIED : ATT_E_UNREACHABLE, "%s at %s",
                              caller->peer, caller->addr.sun_path);
    }
    enum att_rc rc = check_server(caller, fd, err);
    if (rc != ATT_OK) {
        close(fd);
        return rc;
    }
    *ret_fd = fd;
    return ATT_OK;
}

/* ---- calls --------------------------------------------------------------------------------- */

void proc_answer_done(struct proc_answer *answer)
{
    att_wipe(answer->frame.ptr, answer->frame.len); /* it may have been a secret */
    att_buf_done(&answer->frame);
}

struct call {
    const struct proc_op *op;
    struct att_slice payload;
    int passed;
    int64_t deadline_ms;
};

static enum att_rc exchange(const struct proc_caller *caller, const struct call *call, int fd,
                            uint32_t id, struct att_slice frame, struct proc_answer *answer,
                            struct att_err *err)
{
    enum att_rc rc = proc_frame_send_fd(fd, frame, call->passed, call->deadline_ms, err);
    if (rc == ATT_OK) {
        rc = proc_frame_recv(fd, &answer->frame, call->deadline_ms, err);
    }
    struct proc_frame head;
    if (rc == ATT_OK) {
        rc = proc_frame_parse(att_buf_slice(&answer->frame), &head, err);
    }
    if (rc == ATT_OK && (head.id != id || head.op != (call->op->op | PROC_REPLY))) {
        rc = att_fail(err, ATT_E_PROTOCOL, "%s: %s answered another request", call->op->name,
                      caller->peer);
    }
    return rc;
}

/* ATT_E_GONE stands here for the connection only; the peer's own "gone" comes by the reply. */
static enum att_rc one_try(struct proc_caller *caller, const struct call *call,
                           struct proc_answer *answer, struct att_err *err)
{
    uint32_t id = atomic_fetch_add(&caller->next_id, 1);
    att_autobuf frame = ATT_BUF_INIT(PROC_FRAME_MAX + 4);
    enum att_rc rc = proc_frame_encode(id, call->op->op, call->payload, &frame, err);
    int fd = take_idle(caller);
    if (rc == ATT_OK && fd < 0) {
        rc = make_connection(caller, &fd, err);
    }
    if (rc == ATT_OK) {
        rc = exchange(caller, call, fd, id, att_buf_slice(&frame), answer, err);
    }
    if (rc == ATT_OK) {
        give_idle(caller, fd);
    } else if (fd >= 0) {
        close(fd);
    }
    return rc;
}

static enum att_rc send_it(struct proc_caller *caller, const struct call *call,
                           struct proc_answer *answer, struct att_err *err)
{
    struct att_err first = {0};
    enum att_rc rc = one_try(caller, call, answer, &first);
    if (rc == ATT_E_GONE && (call->op->flags & PROC_OP_AGAIN)) {
        att_err_clear(&first);
        rc = one_try(caller, call, answer, &first);
    }
    if (rc != ATT_OK) {
        if (err) {
            *err = first;
        }
        att_err_prefix(err, "%s %s", caller->peer, call->op->name);
    }
    return rc;
}

enum att_rc proc_call(struct proc_caller *caller, uint16_t which, const struct proc_value *values,
                      int passed, struct proc_answer *ret_answer, struct att_err *err)
{
    att_autobuf payload = ATT_BUF_INIT(PROC_FRAME_MAX);
    struct call call = {.op = proc_op_find(caller->table, which),
                        .passed = passed,
                        .deadline_ms = att_boottime_ms() + caller->timeout_ms};
    if (!call.op) {
        return att_fail(err, ATT_E_INTERNAL, "no operation %u", which);
    }
    enum att_rc rc = proc_msg_encode(&call.op->request, values, &payload, err);
    if (rc != ATT_OK) {
        att_err_prefix(err, "%s", call.op->name);
        return rc == ATT_E_PARSE ? ATT_E_INVAL : rc;
    }
    call.payload = att_buf_slice(&payload);
    ret_answer->frame = ATT_BUF_INIT(PROC_FRAME_MAX);
    rc = send_it(caller, &call, ret_answer, err);
    if (rc != ATT_OK) {
        return rc;
    }
    struct att_slice body = {ret_answer->frame.ptr + PROC_HEADER_LEN,
                             ret_answer->frame.len - PROC_HEADER_LEN};
    return proc_reply_parse(call.op, body, &ret_answer->msg, err);
}

void proc_take_text(struct att_slice from, char *ret, size_t room)
{
    size_t len = from.len < room ? from.len : room - 1;
    if (len) {
        memcpy(ret, from.ptr, len);
    }
    ret[len] = 0;
}
