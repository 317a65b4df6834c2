#include "attestd/tokend/upstream.h"

#include "attestd/base/clock.h"
#include "attestd/base/io.h"
#include "attestd/base/log.h"
#include "attestd/proc/peer.h"
#include "attestd/tokend/own.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define RETRY_MS       100
#define TRIES_MAX      3
#define FOREIGN_MS     10000 /* between lines about a foreign server */
#define CALL_FRAME_MAX 512   /* bytes; longer requests (REPORT) get pages of their own */
#define READ_AHEAD     1024  /* bytes: most answers come whole by one call */
#define LONG_FRAME_MAX 32768 /* every request of the tables that are used here fits */

struct tokend_call {
    struct tokend_call *next; /* in the queue */
    const struct proc_op *op;
    uint32_t id;
    uint8_t frame[CALL_FRAME_MAX];
    uint8_t *long_frame; /* NULL: in frame */
    size_t frame_len;
    int passed;               /* own copy; -1: none, or sent */
    struct tokend_fair *fair; /* of a forgotten call: compared only, it may be no more */
    int64_t made_ms, deadline_ms;
    unsigned tries;
    tokend_done_fn *done; /* NULL: forgotten */
    void *user;
};

struct link {
    struct tokend_source source;
    struct tokend_upstream *up;
    int fd;
    bool full;                /* waits for room to send the rest */
    struct tokend_call *call; /* NULL: idle */
    size_t sent;
    struct att_buf in;
};

struct tokend_upstream {
    struct tokend_upstream_opts opts;
    struct sockaddr_un addr;
    struct link links[TOKEND_UPSTREAM_LINKS_MAX];
    struct tokend_call *queue;
    uint64_t clock;
    uint32_t next_id;
    int64_t retry_at_ms; /* nobody listened: not before then */
    bool foreign;        /* the last one who listened was another user's process */
    uid_t foreign_uid;
    int64_t foreign_told_ms; /* 0: never */
    struct proc_msg msg;
    struct att_buf payload, frame; /* of a request under construction */
};

static void pump(struct tokend_upstream *up);

static struct tokend_slab call_slab = {sizeof(struct tokend_call), NULL};

static void call_free(struct tokend_call *call)
{
    att_close(&call->passed);
    tokend_own_free(call->long_frame, call->frame_len);
    tokend_slab_give(&call_slab, call);
}

static void finish(struct tokend_call *call, enum att_rc rc, const struct proc_msg *reply,
                   const struct att_err *err)
{
    if (call->done) {
        call->done(call->user, rc, reply, err);
    }
    call_free(call);
}

static const char foreign_server[] = "another user's process serves there";

static void fail(const struct tokend_upstream *up, struct tokend_call *call, enum att_rc rc,
                 const char *what)
{
    struct att_err err = {0};
    if (what == foreign_server) {
        (void)!att_fail(&err, rc, "%s %s: %s, uid %u, expected %u", up->opts.peer, call->op->name,
                        what, (unsigned)up->foreign_uid, (unsigned)up->opts.user);
        att_err_reason(&err, "foreignServer");
    } else {
        (void)!att_fail(&err, rc, "%s %s: %s", up->opts.peer, call->op->name, what);
    }
    finish(call, rc, NULL, &err);
}

static void enqueue(struct tokend_upstream *up, struct tokend_call *call)
{
    struct tokend_call **at = &up->queue;
    while (*at) {
        at = &(*at)->next;
    }
    call->next = NULL;
    *at = call;
}

/* What is under way counts also when its caller has gone: the other side works on it. */
static bool has_room(const struct tokend_upstream *up, const struct tokend_fair *fair)
{
    unsigned held = 0;
    for (unsigned i = 0; i < up->opts.links; i++) {
        held += up->links[i].call && up->links[i].call->fair == fair;
    }
    return up->opts.each == 0 || !fair || held < up->opts.each;
}

/* Who was served longest ago; between equals who came first. Not whom nobody waits for any more:
 * the next tick takes those away. NULL: nobody may go now. */
static struct tokend_call **choose(struct tokend_upstream *up)
{
    struct tokend_call **best = NULL;
    uint64_t least = UINT64_MAX;
    for (struct tokend_call **at = &up->queue; *at; at = &(*at)->next) {
        const struct tokend_call *call = *at;
        if (!call->done || call->tries >= TRIES_MAX || !has_room(up, call->fair)) {
            continue;
        }
        uint64_t served = call->fair ? call->fair->served : 0;
        if (served < least) {
            least = served;
            best = at;
        }
    }
    return best;
}

static struct tokend_call *dequeue(struct tokend_upstream *up, struct tokend_call **at)
{
    struct tokend_call *call = *at;
    *at = call->next;
    call->next = NULL;
    if (call->fair) {
        call->fair->served = ++up->clock;
    }
    return call;
}

/* ---- links -------------------------------------------------------------------------------------
 */

static void link_close(struct link *link)
{
    tokend_loop_remove(link->up->opts.loop, &link->source);
    att_close(&link->fd);
    att_buf_reset(&link->in);
    link->sent = 0;
    link->full = false;
}

/* The connection went: what was on it is tried again, at most twice, since every call of the tables
 * that are used here may be repeated (PROC_OP_AGAIN). */
static void link_lost(struct link *link)
{
    struct tokend_call *call = link->call;
    struct tokend_upstream *up = link->up;
    link->call = NULL;
    link_close(link);
    /* Most likely the peer has ended: the other connections, of which nothing has been read yet,
     * are no place for a second try. */
    for (unsigned i = 0; i < up->opts.links; i++) {
        if (up->links[i].fd >= 0 && !up->links[i].call) {
            link_close(&up->links[i]);
        }
    }
    if (call) { /* after its last try the next tick answers it, from outside of any call */
        enqueue(up, call);
    }
}

static ssize_t send_some(int fd, struct att_slice bytes, int passed)
{
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {.room = {0}};
    struct iovec iov = {.iov_base = (void *)(uintptr_t)bytes.ptr, .iov_len = bytes.len};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (passed >= 0) {
        msg.msg_control = control.room;
        msg.msg_controllen = sizeof control.room;
        struct cmsghdr *head = CMSG_FIRSTHDR(&msg);
        *head = (struct cmsghdr){
            .cmsg_len = CMSG_LEN(sizeof passed), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(head), &passed, sizeof passed);
    }
    return sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void wait_for_room(struct link *link, bool full)
{
    if (link->full != full) {
        link->full = full;
        tokend_loop_change(link->up->opts.loop, &link->source, full ? EPOLLIN | EPOLLOUT : EPOLLIN);
    }
}

/* The descriptor travels with the first byte, and stays ours for a second try. */
static void link_send(struct link *link)
{
    struct tokend_call *call = link->call;
    const uint8_t *frame = call->long_frame ? call->long_frame : call->frame;
    while (link->sent < call->frame_len) {
        struct att_slice rest = {frame + link->sent, call->frame_len - link->sent};
        ssize_t put = send_some(link->fd, rest, link->sent == 0 ? call->passed : -1);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            wait_for_room(link, true);
            return;
        }
        if (put < 0) {
            link_lost(link);
            return;
        }
        link->sent += (size_t)put;
    }
    wait_for_room(link, false);
}

static size_t wanted(const struct att_buf *in)
{
    struct att_cur cur = att_cur_init(att_buf_slice(in));
    return in->len < 4 ? 4 : (size_t)att_cur_be32(&cur) + 4;
}

static void link_answer(struct link *link)
{
    struct tokend_call *call = link->call;
    struct tokend_upstream *up = link->up;
    struct proc_frame frame;
    struct att_err err = {0};
    if (!call ||
        proc_frame_parse(ATT_SLICE(link->in.ptr + 4, link->in.len - 4), &frame, &err) != ATT_OK ||
        frame.id != call->id || frame.op != (call->op->op | PROC_REPLY)) {
        call = link->call;
        link->call = NULL;
        link_close(link);
        if (call) {
            fail(up, call, ATT_E_PROTOCOL, "answered another request");
        }
        return;
    }
    link->call = NULL;
    enum att_rc rc = proc_reply_parse(call->op, frame.payload, &up->msg, &err);
    finish(call, rc, rc == ATT_OK ? &up->msg : NULL, &err);
    att_buf_reset(&link->in);
}

/* The servers say nothing that they were not asked: what is more than an answer is none. */
static void link_receive(struct link *link)
{
    while (link->fd >= 0) {
        size_t want = wanted(&link->in);
        if (want > PROC_FRAME_MAX + 4 || want < link->in.len) {
            link_lost(link);
            return;
        }
        size_t step = (want < READ_AHEAD ? READ_AHEAD : want) - link->in.len;
        uint8_t *at = att_buf_extend(&link->in, step);
        ssize_t got = at ? recv(link->fd, at, step, MSG_DONTWAIT) : 0;
        link->in.len -= step - (got > 0 ? (size_t)got : 0);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            return;
        }
        if (got <= 0) {
            link_lost(link);
            return;
        }
        if (link->in.len >= 4 && link->in.len == wanted(&link->in)) {
            link_answer(link);
            return;
        }
    }
}

static void link_ready(struct tokend_source *source, uint32_t events)
{
    struct link *link = source->owner;
    if ((events & EPOLLOUT) && link->call) {
        link_send(link);
    }
    if (link->fd >= 0 && (events & (EPOLLIN | EPOLLHUP | EPOLLERR))) {
        link_receive(link);
    }
    pump(link->up);
}

/* Whoever may write in the socket's folder can serve there; the kernel says who began to listen. */
static bool served_by_the_right(struct tokend_upstream *up, int fd)
{
    struct proc_peer peer;
    if (proc_peer_get(fd, &peer, NULL) != ATT_OK) {
        return false;
    }
    up->foreign = peer.uid != up->opts.user && peer.uid != 0;
    int64_t now = att_boottime_ms();
    if (up->foreign && (!up->foreign_told_ms || now - up->foreign_told_ms >= FOREIGN_MS)) {
        up->foreign_told_ms = now;
        att_log(ATT_ERROR, "tokend.foreign-server", ATT_S("socket", up->addr.sun_path),
                ATT_N("uid", peer.uid), ATT_N("expected", up->opts.user), ATT_N("pid", peer.pid));
    }
    up->foreign_uid = peer.uid;
    return !up->foreign;
}

/* A unix socket connects at once or not at all; a full backlog is EAGAIN: tried again. */
static bool link_connect(struct link *link)
{
    struct tokend_upstream *up = link->up;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&up->addr, sizeof up->addr) != 0 ||
        !served_by_the_right(up, fd) ||
        tokend_loop_add(up->opts.loop, &link->source, fd, EPOLLIN, NULL) != ATT_OK) {
        att_close(&fd);
        return false;
    }
    link->fd = fd;
    return true;
}

static struct link *idle_link(struct tokend_upstream *up)
{
    struct link *unconnected = NULL;
    for (unsigned i = 0; i < up->opts.links; i++) {
        struct link *link = &up->links[i];
        if (!link->call && link->fd >= 0) {
            return link;
        }
        unconnected = !link->call && !unconnected ? link : unconnected;
    }
    return unconnected;
}

static void pump(struct tokend_upstream *up)
{
    int64_t now = att_boottime_ms();
    struct tokend_call **next;
    struct link *link;
    while ((next = choose(up)) && (link = idle_link(up))) {
        if (link->fd < 0 && (now < up->retry_at_ms || !link_connect(link))) {
            up->retry_at_ms = now < up->retry_at_ms ? up->retry_at_ms : now + RETRY_MS;
            return;
        }
        link->call = dequeue(up, next);
        link->call->tries++;
        link->sent = 0;
        link_send(link);
    }
}

/* ---- calls --------------------------------------------------------------------------------------
 */

static enum att_rc keep_frame(struct tokend_call *call, struct att_slice frame, struct att_err *err)
{
    if (frame.len > sizeof call->frame && !(call->long_frame = tokend_own_new(frame.len))) {
        return att_fail(err, ATT_E_NOMEM, "request of %zu bytes", frame.len);
    }
    memcpy(call->long_frame ? call->long_frame : call->frame, frame.ptr, frame.len);
    call->frame_len = frame.len;
    return ATT_OK;
}

enum att_rc tokend_upstream_call(struct tokend_upstream *upstream, uint16_t op,
                                 const struct proc_value *values, int passed,
                                 struct tokend_fair *fair, int64_t timeout_ms, tokend_done_fn *done,
                                 void *user, struct tokend_call **ret_call, struct att_err *err)
{
    att_buf_reset(&upstream->payload);
    att_buf_reset(&upstream->frame);
    struct tokend_call *call = tokend_slab_take(&call_slab);
    if (!call) {
        return att_fail(err, ATT_E_NOMEM, "call");
    }
    int64_t now = att_boottime_ms();
    call->op = proc_op_find(upstream->opts.table, op);
    call->id = ++upstream->next_id;
    call->passed = -1;
    call->fair = fair;
    call->made_ms = now;
    call->deadline_ms = now + timeout_ms;
    call->done = done;
    call->user = user;
    enum att_rc rc = proc_msg_encode(&call->op->request, values, &upstream->payload, err);
    if (rc == ATT_OK) {
        rc = proc_frame_encode(call->id, op, att_buf_slice(&upstream->payload), &upstream->frame,
                               err);
    }
    if (rc == ATT_OK) {
        rc = keep_frame(call, att_buf_slice(&upstream->frame), err);
    }
    if (rc == ATT_OK && passed >= 0 && (call->passed = fcntl(passed, F_DUPFD_CLOEXEC, 3)) < 0) {
        rc = att_fail_errno(err, ATT_E_IO, "copy a descriptor");
    }
    if (rc != ATT_OK) {
        call_free(call);
        return rc;
    }
    enqueue(upstream, call);
    *ret_call = call;
    pump(upstream);
    return ATT_OK;
}

void tokend_call_forget(struct tokend_call *call)
{
    if (call) {
        call->done = NULL;
    }
}

static const char *overdue(const struct tokend_upstream *up, const struct tokend_call *call,
                           int64_t now)
{
    bool connected = false;
    for (unsigned i = 0; i < up->opts.links; i++) {
        connected = connected || up->links[i].fd >= 0;
    }
    return !call->done                ? "forgotten"
           : call->tries >= TRIES_MAX ? "the connection was lost"
           : now >= call->deadline_ms ? "no answer in time"
           : !connected && now >= call->made_ms + up->opts.gap_ms
               ? up->foreign ? foreign_server : "nobody listens"
               : NULL;
}

void tokend_upstream_tick(struct tokend_upstream *up)
{
    int64_t now = att_boottime_ms();
    pump(up);
    for (struct tokend_call **at = &up->queue; *at;) {
        struct tokend_call *call = *at;
        const char *why = overdue(up, call, now);
        if (!why) {
            at = &call->next;
            continue;
        }
        *at = call->next;
        fail(up, call,
             call->tries < TRIES_MAX && now >= call->deadline_ms ? ATT_E_TIMEOUT
                                                                 : ATT_E_UNREACHABLE,
             why);
        at = &up->queue; /* done may have made calls */
    }
    for (unsigned i = 0; i < up->opts.links; i++) {
        struct tokend_call *call = up->links[i].call;
        if (call && now >= call->deadline_ms) {
            up->links[i].call = NULL;
            link_close(&up->links[i]); /* its answer may still come: not on a link in use */
            fail(up, call, ATT_E_TIMEOUT, "no answer in time");
        }
    }
}

bool tokend_upstream_busy(const struct tokend_upstream *up)
{
    bool busy = up->queue != NULL;
    for (unsigned i = 0; i < up->opts.links; i++) {
        busy = busy || up->links[i].call;
    }
    return busy;
}

/* ---- birth
 * --------------------------------------------------------------------------------------- */

enum att_rc tokend_upstream_new(const struct tokend_upstream_opts *opts,
                                struct tokend_upstream **ret_upstream, struct att_err *err)
{
    struct tokend_upstream *up = tokend_own_new(sizeof *up);
    size_t len = strlen(opts->path);
    if (!up) {
        return att_fail(err, ATT_E_NOMEM, "client");
    }
    if (len == 0 || len >= sizeof up->addr.sun_path) {
        tokend_own_free(up, sizeof *up);
        return att_fail(err, ATT_E_INVAL, "socket path of %zu bytes: %.80s", len, opts->path);
    }
    up->opts = *opts;
    up->payload = tokend_own_buf(LONG_FRAME_MAX);
    up->frame = tokend_own_buf(LONG_FRAME_MAX);
    up->addr.sun_family = AF_UNIX;
    memcpy(up->addr.sun_path, opts->path, len);
    for (unsigned i = 0; i < TOKEND_UPSTREAM_LINKS_MAX; i++) {
        up->links[i] = (struct link){.source = {-1, link_ready, &up->links[i]},
                                     .up = up,
                                     .fd = -1,
                                     .in = tokend_own_buf(PROC_FRAME_MAX + 4)};
    }
    *ret_upstream = up;
    return ATT_OK;
}

void tokend_upstream_free(struct tokend_upstream *up)
{
    if (!up) {
        return;
    }
    for (unsigned i = 0; i < TOKEND_UPSTREAM_LINKS_MAX; i++) {
        link_close(&up->links[i]);
        tokend_own_buf_free(&up->links[i].in);
        if (up->links[i].call) {
            call_free(up->links[i].call);
        }
    }
    while (up->queue) {
        struct tokend_call *call = up->queue;
        up->queue = call->next;
        call_free(call);
    }
    tokend_own_buf_free(&up->payload);
    tokend_own_buf_free(&up->frame);
    tokend_own_free(up, sizeof *up);
}
