/* One connection: the socket, libnghttp2's session, what a peer may do to it. */
#include "attestd/spiffe/internal.h"

#include "attestd/base/clock.h"
#include "attestd/base/hash.h"
#include "attestd/base/io.h"
#include "attestd/base/secret.h"
#include "attestd/proc/listen.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_MAX 16384
#define TURN_MAX ((size_t)256 << 10) /* bytes sent before it is others' turn */

/* ---- frames that came ---------------------------------------------------------------------- */

static int spend(struct grpc_conn *conn, int cost)
{
    if (cost && !grpc_budget_take(&conn->budget, cost, att_boottime_ms())) {
        grpc_conn_cut(conn, "a flood of small frames or resets");
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    return 0;
}

static struct grpc_call *call_of(nghttp2_session *session, int32_t stream)
{
    return nghttp2_session_get_stream_user_data(session, stream);
}

/* Whoever takes the first message of a stream and cancels it, as SPIFFE libraries fetch once, did
 * what a unary call does: that reset costs nothing. It comes once for a stream: a second one finds
 * no call. */
static int cost_of_reset(const struct grpc_call *call)
{
    return call && call->delivered ? 0 : GRPC_COST_RESET;
}

static int cost_of(nghttp2_session *session, const nghttp2_frame_hd *hd)
{
    switch (hd->type) {
    case NGHTTP2_RST_STREAM:
        return cost_of_reset(call_of(session, hd->stream_id));
    case NGHTTP2_SETTINGS:
        return hd->flags & NGHTTP2_FLAG_ACK ? 0 : GRPC_COST_SETTINGS;
    case NGHTTP2_DATA:
        return hd->length == 0 && !(hd->flags & NGHTTP2_FLAG_END_STREAM) ? GRPC_COST_EMPTY : 0;
    case NGHTTP2_HEADERS:
        return GRPC_COST_CALL;
    case NGHTTP2_CONTINUATION:
        return 0; /* counted by itself */
    default:
        return GRPC_COST_SMALL;
    }
}

/* Before libnghttp2 reads a frame's payload: also for CONTINUATION, of which nothing else is told.
 */
static int on_begin_frame(nghttp2_session *session, const nghttp2_frame_hd *hd, void *user)
{
    struct grpc_conn *conn = user;
    if (hd->type == NGHTTP2_HEADERS) {
        conn->continuations = 0;
        conn->block = 0;
    }
    if (hd->type == NGHTTP2_HEADERS || hd->type == NGHTTP2_CONTINUATION) {
        conn->continuations += hd->type == NGHTTP2_CONTINUATION;
        conn->block += hd->length;
        if (conn->continuations > GRPC_CONTINUATIONS_MAX || conn->block > GRPC_BLOCK_MAX) {
            grpc_conn_cut(conn, "a header block in too many parts or bytes");
            return NGHTTP2_ERR_CALLBACK_FAILURE;
        }
    }
    return spend(conn, cost_of(session, hd));
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct grpc_conn *conn = user;
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST) {
        return 0;
    }
    struct grpc_call *call = grpc_call_new(conn, frame->hd.stream_id);
    if (!call) {
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* RST_STREAM */
    }
    (void)nghttp2_session_set_stream_user_data(session, call->stream, call);
    return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
                     void *user)
{
    struct grpc_call *call = call_of(session, frame->hd.stream_id);
    (void)flags;
    if (!call || frame->hd.type != NGHTTP2_HEADERS) {
        return 0;
    }
    if (!grpc_headers_add(&call->headers, ATT_SLICE(name, name_len), ATT_SLICE(value, value_len))) {
        grpc_conn_cut(user, "the headers of a request are too many or too long");
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    return 0;
}

static void on_pong(struct grpc_conn *conn, const nghttp2_ping *pong)
{
    if (conn->challenged && !conn->cut &&
        memcmp(pong->opaque_data, conn->challenge, sizeof conn->challenge) == 0) {
        conn->challenged = false;
        conn->opts->handler->answered(conn->user);
    }
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct grpc_conn *conn = user;
    struct grpc_call *call = frame->hd.stream_id ? call_of(session, frame->hd.stream_id) : NULL;
    conn->hello = conn->hello || frame->hd.type == NGHTTP2_SETTINGS;
    if (frame->hd.type == NGHTTP2_PING && (frame->hd.flags & NGHTTP2_FLAG_ACK)) {
        on_pong(conn, &frame->ping);
    }
    if (call && frame->hd.type == NGHTTP2_HEADERS && !call->remote_ended && !call->method &&
        !call->finished) {
        grpc_call_headers(call);
    }
    if (call && (frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA) &&
        (frame->hd.flags & NGHTTP2_FLAG_END_STREAM)) {
        grpc_call_end(call);
    }
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *data,
                   size_t len, void *user)
{
    struct grpc_call *call = call_of(session, stream);
    (void)flags;
    (void)user;
    if (call) {
        grpc_call_data(call, ATT_SLICE(data, len));
    }
    return 0;
}

static int on_close(nghttp2_session *session, int32_t stream, uint32_t code, void *user)
{
    struct grpc_call *call = call_of(session, stream);
    (void)code;
    (void)user;
    if (call) {
        grpc_call_free(call);
    }
    return 0;
}

/* We reset a stream for what its client did there: as good as its own reset (CVE-2025-8671). Not
 * REFUSED_STREAM, nor our CANCEL of what is not read. */
static bool made_us_reset(const nghttp2_frame *frame)
{
    return frame->hd.type == NGHTTP2_RST_STREAM &&
           (frame->rst_stream.error_code == NGHTTP2_PROTOCOL_ERROR ||
            frame->rst_stream.error_code == NGHTTP2_FLOW_CONTROL_ERROR ||
            frame->rst_stream.error_code == NGHTTP2_STREAM_CLOSED ||
            frame->rst_stream.error_code == NGHTTP2_FRAME_SIZE_ERROR);
}

/* The answer is complete while the request is not: nothing more of it is wanted (RFC 9113 §8.1). */
static int on_sent(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct grpc_call *call = frame->hd.stream_id ? call_of(session, frame->hd.stream_id) : NULL;
    if (made_us_reset(frame)) {
        (void)spend(user, GRPC_COST_RESET);
    }
    if (call && !call->remote_ended && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) &&
        (frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA)) {
        (void)nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, call->stream, NGHTTP2_NO_ERROR);
    }
    return 0;
}

static enum att_rc make_session(struct grpc_conn *conn, struct att_err *err)
{
    nghttp2_session_callbacks *on = NULL;
    nghttp2_option *option = NULL;
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, GRPC_STREAMS_MAX},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, GRPC_HEADER_BYTES_MAX},
    };
    int rc = nghttp2_session_callbacks_new(&on);
    rc = rc ? rc : nghttp2_option_new(&option);
    if (rc == 0) {
        nghttp2_session_callbacks_set_on_begin_frame_callback(on, on_begin_frame);
        nghttp2_session_callbacks_set_on_begin_headers_callback(on, on_begin_headers);
        nghttp2_session_callbacks_set_on_header_callback(on, on_header);
        nghttp2_session_callbacks_set_on_frame_recv_callback(on, on_frame);
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(on, on_data);
        nghttp2_session_callbacks_set_on_stream_close_callback(on, on_close);
        nghttp2_session_callbacks_set_on_frame_send_callback(on, on_sent);
        nghttp2_option_set_no_http_messaging(option, 1); /* header.h */
        nghttp2_option_set_max_outbound_ack(option, 64);
        nghttp2_option_set_no_closed_streams(option, 1);
        /* Its own limit (1000, then 33 a second) does not tell resets apart: budget.h bounds them.
         */
        nghttp2_option_set_stream_reset_rate_limit(option, INT32_MAX, INT32_MAX);
        rc = nghttp2_session_server_new2(&conn->session, on, conn, option);
    }
    rc = rc ? rc
            : nghttp2_submit_settings(conn->session, NGHTTP2_FLAG_NONE, settings,
                                      sizeof settings / sizeof settings[0]);
    nghttp2_session_callbacks_del(on);
    nghttp2_option_del(option);
    return rc == 0 ? ATT_OK : att_fail(err, ATT_E_NOMEM, "HTTP/2: %s", nghttp2_strerror(rc));
}

/* ---- the socket ---------------------------------------------------------------------------- */

/* False: it did not come from the process that this connection is. */
static bool from_the_writer(const struct grpc_conn *conn, struct msghdr *msg)
{
    if (!conn->writer) {
        return true;
    }
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_CREDENTIALS &&
            c->cmsg_len == CMSG_LEN(sizeof(struct ucred))) {
            struct ucred cred;
            memcpy(&cred, CMSG_DATA(c), sizeof cred);
            return cred.pid == conn->writer;
        }
    }
    return false;
}

static ssize_t take_bytes(struct grpc_conn *conn, uint8_t *ret, size_t room, bool *ret_foreign)
{
    union {
        struct cmsghdr align;
        uint8_t bytes[CMSG_SPACE(sizeof(struct ucred))];
    } control; /* descriptors that somebody sends find no room and are closed by the kernel */
    struct iovec iov = {ret, room};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.bytes,
                         .msg_controllen = sizeof control.bytes};
    ssize_t got;
    proc_linger_begin();
    do {
        got = recvmsg(conn->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    } while (got < 0 && errno == EINTR);
    proc_linger_end();
    *ret_foreign = got > 0 && !from_the_writer(conn, &msg);
    if (got > 0 && (msg.msg_flags & MSG_CTRUNC)) { /* once for a connection: each may cost time */
        grpc_conn_cut(conn, "it sends descriptors");
    }
    return got;
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct grpc_conn *conn = arg;
    uint8_t bytes[READ_MAX];
    bool foreign;
    (void)fd;
    (void)what;
    ssize_t got = take_bytes(conn, bytes, sizeof bytes, &foreign);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        return;
    }
    if (got <= 0) {
        grpc_conn_cut(conn, NULL);
        return;
    }
    if (foreign) {
        grpc_conn_cut(conn, "another process writes on its connection");
    }
    if (conn->cut) {
        return;
    }
    ssize_t used = nghttp2_session_mem_recv(conn->session, bytes, (size_t)got);
    if (used != got) {
        grpc_conn_cut(conn, used == NGHTTP2_ERR_BAD_CLIENT_MAGIC ? "not HTTP/2"
                            : used == NGHTTP2_ERR_FLOODED        ? "a flood of frames"
                                                                 : "HTTP/2 broken");
    }
    grpc_conn_wake(conn);
}

/* libnghttp2's memory, which it does not read again: it fills it with the next frame, which may be
 * shorter. */
static void wipe_out(struct grpc_conn *conn, size_t len)
{
    if (conn->out_secret && len) {
        att_wipe((void *)(uintptr_t)conn->out, len);
    }
}

/* True: all that was there is gone. */
static bool flush(struct grpc_conn *conn)
{
    while (conn->out_len) {
        ssize_t put = send(conn->fd, conn->out, conn->out_len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            return false;
        }
        if (put < 0) {
            conn->over = true;
            return false;
        }
        wipe_out(conn, (size_t)put);
        conn->out += put;
        conn->out_len -= (size_t)put;
        conn->out_since_ms = att_boottime_ms();
    }
    return true;
}

/* libnghttp2 is asked for more only when the socket took what it gave before, so that what waits
 * for the socket is one piece of its (a frame). While it does not take it, nothing is read either:
 * a peer cannot make us queue answers. Who reads as fast as we write waits for others, too: the
 * rest goes when the loop has looked at all. */
static void send_all(struct grpc_conn *conn)
{
    bool more = false;
    for (size_t sent = 0; !conn->over && flush(conn); sent += conn->out_len) {
        if (sent >= TURN_MAX) {
            more = true;
            break;
        }
        conn->out_secret = false; /* read_answer says */
        ssize_t len = nghttp2_session_mem_send(conn->session, &conn->out);
        if (len <= 0) {
            conn->over = conn->over || len < 0;
            break;
        }
        conn->out_len = (size_t)len;
        conn->out_since_ms = att_boottime_ms();
    }
    if ((conn->out_len || more) && !conn->over) {
        event_add(conn->writable, NULL);
        event_del(conn->readable);
    } else if (!conn->over && !conn->cut) {
        event_add(conn->readable, NULL);
    }
}

/* Everything that ends a connection happens here, with nothing of it on the stack. */
static void on_work(evutil_socket_t fd, short what, void *arg)
{
    struct grpc_conn *conn = arg;
    (void)fd;
    (void)what;
    if (conn->cut) {
        if (!conn->why) { /* the ends of its calls go out first */
            send_all(conn);
        }
        event_del(conn->readable);
        (void)nghttp2_session_terminate_session(conn->session, conn->why ? NGHTTP2_ENHANCE_YOUR_CALM
                                                                         : NGHTTP2_NO_ERROR);
    }
    send_all(conn); /* a GOAWAY is tried, and not waited for */
    bool idle = !nghttp2_session_want_read(conn->session) &&
                !nghttp2_session_want_write(conn->session) && !conn->out_len;
    if (conn->cut || conn->over || idle) {
        grpc_conn_free(conn);
    }
}

void grpc_conn_wake(struct grpc_conn *conn)
{
    event_active(conn->work, EV_TIMEOUT, 0);
}

void grpc_conn_cut(struct grpc_conn *conn, const char *why)
{
    if (!conn->cut) {
        conn->cut = true;
        conn->why = why;
        if (why && conn->opts->handler->cut) {
            conn->opts->handler->cut(conn->user, why);
        }
    }
    grpc_conn_wake(conn);
}

/* ---- birth and end ------------------------------------------------------------------------- */

enum att_rc grpc_conn_new(const struct grpc_opts *opts, int fd, pid_t writer, void *user,
                          struct grpc_conn **ret_conn, struct att_err *err)
{
    struct grpc_conn *conn = calloc(1, sizeof *conn);
    if (!conn) {
        proc_close_client(&fd);
        return att_fail(err, ATT_E_NOMEM, "connection");
    }
    conn->opts = opts;
    conn->fd = fd;
    conn->writer = writer;
    conn->made_ms = att_boottime_ms();
    grpc_budget_init(&conn->budget, conn->made_ms);
    enum att_rc rc = make_session(conn, err);
    conn->readable = event_new(opts->base, fd, EV_READ | EV_PERSIST, on_readable, conn);
    conn->writable = event_new(opts->base, fd, EV_WRITE, on_work, conn);
    conn->work = event_new(opts->base, -1, 0, on_work, conn);
    if (rc == ATT_OK && (!conn->readable || !conn->writable || !conn->work ||
                         event_add(conn->readable, NULL) != 0)) {
        rc = att_fail(err, ATT_E_NOMEM, "connection");
    }
    if (rc != ATT_OK) {
        grpc_conn_free(conn);
        return rc;
    }
    conn->user = user; /* not told of what never was */
    *ret_conn = conn;
    grpc_conn_wake(conn);
    return ATT_OK;
}

enum att_rc grpc_conn_challenge(struct grpc_conn *conn, struct att_err *err)
{
    enum att_rc rc = att_random(conn->challenge, sizeof conn->challenge, err);
    if (rc == ATT_OK &&
        nghttp2_submit_ping(conn->session, NGHTTP2_FLAG_NONE, conn->challenge) != 0) {
        rc = att_fail(err, ATT_E_NOMEM, "connection");
    }
    conn->challenged = rc == ATT_OK;
    return rc;
}

void grpc_conn_free(struct grpc_conn *conn)
{
    if (!conn) {
        return;
    }
    while (conn->calls) {
        struct grpc_call *call = conn->calls;
        (void)nghttp2_session_set_stream_user_data(conn->session, call->stream, NULL);
        grpc_call_free(call);
    }
    struct event *events[] = {conn->readable, conn->writable, conn->work};
    for (size_t i = 0; i < sizeof events / sizeof events[0]; i++) {
        if (events[i]) {
            event_free(events[i]);
        }
    }
    wipe_out(conn, conn->out_len); /* what was not read any more */
    nghttp2_session_del(conn->session);
    proc_close_client(&conn->fd);
    if (conn->user) {
        conn->opts->handler->closed(conn->user);
    }
    free(conn);
}

void grpc_conn_tick(struct grpc_conn *conn)
{
    int64_t now = att_boottime_ms();
    if (!conn->hello && now - conn->made_ms > conn->opts->hello_ms) {
        grpc_conn_cut(conn, "no HTTP/2 preface in time");
    } else if (conn->challenged && now - conn->made_ms > conn->opts->hello_ms) {
        grpc_conn_cut(conn, "a PING is not answered in time");
    } else if (conn->out_len && now - conn->out_since_ms > conn->opts->slow_ms) {
        grpc_conn_cut(conn, "it does not read");
    }
    for (struct grpc_call *call = conn->calls; call; call = call->next) {
        grpc_call_tick(call, now);
    }
}

void *grpc_conn_user(const struct grpc_conn *conn)
{
    return conn->user;
}
