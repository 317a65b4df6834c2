#include "attestd/client/wire.h"

#include "attestd/base/clock.h"
#include "attestd/base/secret.h"
#include "attestd/client/status.h"

#include <errno.h>
#include <inttypes.h>
#include <nghttp2/nghttp2.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEAD_LEN 5 /* of a message: compressed flag, length */
#define READ_MAX 16384
#define OWN_MAX  8 /* header fields that each request has */

struct wire {
    int fd;
    const char *agent;
    nghttp2_session *session;
    int32_t stream; /* of the call; 0: none */
    struct att_buf request, body;
    struct att_slice out; /* libnghttp2's until the next mem_send: not all of it is gone yet */
    size_t sent;          /* of request */
    size_t taken;         /* of body, by wire_message */
    int http_status;
    long grpc_status; /* -1: none */
    char type[64], text[STATUS_TEXT_MAX];
    bool ended, kept;
    const char *bad;
};

/* ---- what comes ---- */

static void keep(char *ret, size_t room, const uint8_t *value, size_t len)
{
    len = len < room ? len : room - 1;
    memcpy(ret, value, len);
    ret[len] = 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
                     void *user)
{
    struct wire *wire = user;
    (void)session;
    (void)flags;
    if (frame->hd.stream_id != wire->stream) {
        return 0;
    }
    struct att_slice is = ATT_SLICE(name, name_len), says = ATT_SLICE(value, value_len);
    if (att_slice_eq_str(is, ":status")) {
        wire->http_status = (int)status_number(says);
    } else if (att_slice_eq_str(is, "content-type")) {
        keep(wire->type, sizeof wire->type, value, value_len);
    } else if (att_slice_eq_str(is, "grpc-status")) {
        wire->grpc_status = status_number(says);
    } else if (att_slice_eq_str(is, "grpc-message")) {
        status_text(says, wire->text);
    } else if (att_slice_eq_str(is, "attestd-kept")) {
        wire->kept = att_slice_eq_str(says, "true");
    }
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *data,
                   size_t len, void *user)
{
    struct wire *wire = user;
    (void)session;
    (void)flags;
    if (stream == wire->stream) {
        att_buf_put(&wire->body, data, len);
        if (wire->body.failed) {
            wire->bad = "the answer is too long";
            return NGHTTP2_ERR_CALLBACK_FAILURE;
        }
    }
    return 0;
}

static int on_close(nghttp2_session *session, int32_t stream, uint32_t code, void *user)
{
    struct wire *wire = user;
    (void)session;
    (void)code;
    wire->ended = wire->ended || stream == wire->stream;
    return 0;
}

/* ---- what goes ---- */

static ssize_t on_read(nghttp2_session *session, int32_t stream, uint8_t *to, size_t room,
                       uint32_t *flags, nghttp2_data_source *source, void *user)
{
    struct wire *wire = user;
    size_t left = stream == wire->stream ? wire->request.len - wire->sent : 0;
    size_t n = left < room ? left : room;
    (void)session;
    (void)source;
    if (n) {
        memcpy(to, wire->request.ptr + wire->sent, n);
        wire->sent += n;
    }
    *flags = n == left ? NGHTTP2_DATA_FLAG_EOF : NGHTTP2_DATA_FLAG_NONE;
    return (ssize_t)n;
}

/* libnghttp2 copies and does not write. */
static nghttp2_nv field(const char *name, const char *value)
{
    return (nghttp2_nv){.name = (uint8_t *)(uintptr_t)name,
                        .value = (uint8_t *)(uintptr_t)value,
                        .namelen = strlen(name),
                        .valuelen = strlen(value),
                        .flags = NGHTTP2_NV_FLAG_NONE};
}

static enum att_rc broken(const struct wire *wire, const char *what, struct att_err *err)
{
    return att_fail(err, ATT_E_PROTOCOL, "attestd's socket for workloads: %s",
                    wire->bad ? wire->bad : what);
}

#define GONE "attestd's socket for workloads ended the connection"

static enum att_rc gone(struct att_err *err)
{
    return att_fail(err, ATT_E_GONE, GONE);
}

enum att_rc wire_new(int fd, const char *agent, struct wire **ret_wire, struct att_err *err)
{
    nghttp2_session_callbacks *on = NULL;
    const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_ENABLE_PUSH, 0}};
    struct wire *wire = calloc(1, sizeof *wire);
    if (!wire) {
        if (fd >= 0) {
            close(fd);
        }
        return att_fail(err, ATT_E_NOMEM, "gRPC");
    }
    wire->fd = fd;
    wire->agent = agent;
    int rc = nghttp2_session_callbacks_new(&on);
    if (rc == 0) {
        nghttp2_session_callbacks_set_on_header_callback(on, on_header);
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(on, on_data);
        nghttp2_session_callbacks_set_on_stream_close_callback(on, on_close);
        rc = nghttp2_session_client_new(&wire->session, on, wire);
    }
    rc = rc ? rc : nghttp2_submit_settings(wire->session, NGHTTP2_FLAG_NONE, settings, 1);
    nghttp2_session_callbacks_del(on);
    if (rc != 0) {
        wire_free(wire);
        return att_fail(err, ATT_E_NOMEM, "gRPC: %s", nghttp2_strerror(rc));
    }
    *ret_wire = wire;
    return ATT_OK;
}

/* All of it: att_buf_done leaves alone what is large. */
static void wipe(struct att_buf *buf)
{
    if (buf->ptr) {
        att_wipe(buf->ptr, buf->cap);
    }
    att_buf_done(buf);
}

void wire_free(struct wire *wire)
{
    if (wire) {
        nghttp2_session_del(wire->session);
        wipe(&wire->request);
        wipe(&wire->body);
        if (wire->fd >= 0) {
            close(wire->fd);
        }
        free(wire);
    }
}

int wire_fd(const struct wire *wire)
{
    return wire->fd;
}

bool wire_ended(const struct wire *wire)
{
    return wire->ended || (!nghttp2_session_want_read(wire->session) &&
                           !nghttp2_session_want_write(wire->session));
}

static void forget_call(struct wire *wire)
{
    if (wire->stream && !wire_ended(wire)) {
        (void)nghttp2_submit_rst_stream(wire->session, NGHTTP2_FLAG_NONE, wire->stream,
                                        NGHTTP2_CANCEL);
    }
    wire->stream = 0;
    wipe(&wire->request);
    wipe(&wire->body);
    wire->body = ATT_BUF_INIT(WIRE_MESSAGE_MAX + HEAD_LEN);
    wire->sent = wire->taken = 0;
    wire->http_status = 0;
    wire->grpc_status = -1;
    wire->type[0] = wire->text[0] = 0;
    wire->ended = wire->kept = false;
}

/* TimeoutValue is of eight digits at most, "m" milliseconds (gRPC over HTTP/2, "Requests"). */
static void timeout_text(int64_t until_ms, char ret_text[16])
{
    int64_t left = until_ms - att_boottime_ms();
    left = left < 1 ? 1 : left > 99999999 ? 99999999 : left;
    snprintf(ret_text, 16, "%" PRId64 "m", left);
}

static int32_t submit(struct wire *wire, const struct wire_request *request)
{
    nghttp2_nv fields[OWN_MAX + WIRE_FIELDS_MAX] = {
        field(":method", "POST"),         field(":scheme", "http"),
        field(":path", request->method),  field(":authority", "localhost"),
        field("te", "trailers"),          field("content-type", "application/grpc"),
        field("user-agent", wire->agent),
    };
    size_t n = OWN_MAX - 1;
    char timeout[16];
    const nghttp2_data_provider data = {.read_callback = on_read};
    if (request->until_ms >= 0) {
        timeout_text(request->until_ms, timeout);
        fields[n++] = field("grpc-timeout", timeout);
    }
    const size_t most = sizeof fields / sizeof fields[0]; /* wire_begin has counted */
    for (size_t i = 0; request->fields && request->fields[i] && n < most; i += 2) {
        fields[n++] = field(request->fields[i], request->fields[i + 1]);
    }
    return nghttp2_submit_request(wire->session, NULL, fields, n, &data, NULL);
}

enum att_rc wire_begin(struct wire *wire, const struct wire_request *request, struct att_err *err)
{
    size_t n = 0;
    while (request->fields && request->fields[n]) {
        n++;
    }
    if (n % 2 || n / 2 > WIRE_FIELDS_MAX) {
        return att_fail(err, ATT_E_INVAL, "gRPC: expected at most %d names and values of headers",
                        WIRE_FIELDS_MAX);
    }
    forget_call(wire);
    if (!nghttp2_session_check_request_allowed(wire->session)) {
        return gone(err); /* the server is about to end it (GOAWAY), or the streams are used up */
    }
    att_buf_u8(&wire->request, 0);
    att_buf_field_be32(&wire->request, request->message);
    int32_t stream = wire->request.failed ? NGHTTP2_ERR_NOMEM : submit(wire, request);
    if (stream < 0) {
        return att_fail(err, ATT_E_NOMEM, "gRPC: %s", nghttp2_strerror(stream));
    }
    wire->stream = stream;
    return ATT_OK;
}

/* ---- the socket ---- */

static int left_ms(int64_t until_ms)
{
    int64_t left = until_ms < 0 ? -1 : until_ms - att_boottime_ms();
    left = until_ms >= 0 && left < 0 ? 0 : left;
    return (int)(left > INT32_MAX ? INT32_MAX : left);
}

/* ATT_E_TIMEOUT; an interruption is as good as an event. */
static enum att_rc wait_for(const struct wire *wire, short events, int64_t until_ms,
                            struct att_err *err)
{
    struct pollfd poll_fd = {.fd = wire->fd, .events = events};
    int ready = poll(&poll_fd, 1, left_ms(until_ms));
    if (ready == 0) {
        return att_fail(err, ATT_E_TIMEOUT, "attestd's socket for workloads: no answer in time");
    }
    return ready < 0 && errno != EINTR ? att_fail_errno(err, ATT_E_IO, "poll") : ATT_OK;
}

static enum att_rc put(struct wire *wire, int64_t until_ms, struct att_err *err)
{
    enum att_rc rc = ATT_OK;
    while (rc == ATT_OK && wire->out.len) {
        ssize_t n = send(wire->fd, wire->out.ptr, wire->out.len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            rc = wait_for(wire, POLLOUT, until_ms, err);
        } else if (n < 0 && errno != EINTR) {
            return att_fail_errno(err, ATT_E_GONE, GONE);
        }
        if (n > 0) {
            wire->out = ATT_SLICE(wire->out.ptr + n, wire->out.len - (size_t)n);
        }
    }
    return rc;
}

enum att_rc wire_send(struct wire *wire, int64_t until_ms, struct att_err *err)
{
    for (;;) {
        const uint8_t *bytes = NULL;
        enum att_rc rc = wire->fd < 0 ? ATT_OK : put(wire, until_ms, err);
        if (rc != ATT_OK) {
            return rc;
        }
        ssize_t len = nghttp2_session_mem_send(wire->session, &bytes);
        if (len < 0) {
            return broken(wire, nghttp2_strerror((int)len), err);
        }
        wire->out = ATT_SLICE(bytes, (size_t)len);
        if (len == 0) {
            return ATT_OK;
        }
    }
}

enum att_rc wire_take(struct wire *wire, struct att_slice bytes, struct att_err *err)
{
    ssize_t len = nghttp2_session_mem_recv(wire->session, bytes.ptr, bytes.len);
    if (len < 0) {
        return broken(wire, nghttp2_strerror((int)len), err);
    }
    return ATT_OK;
}

enum att_rc wire_step(struct wire *wire, int64_t until_ms, struct att_err *err)
{
    uint8_t bytes[READ_MAX];
    enum att_rc rc = wait_for(wire, POLLIN, until_ms, err);
    if (rc != ATT_OK) {
        return rc;
    }
    ssize_t n = recv(wire->fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (n < 0 && (errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK)) {
        return ATT_OK;
    }
    if (n <= 0) {
        return n == 0 ? gone(err) : att_fail_errno(err, ATT_E_GONE, GONE);
    }
    rc = wire_take(wire, ATT_SLICE(bytes, (size_t)n), err);
    att_wipe(bytes, (size_t)n);
    return rc ? rc : wire_send(wire, until_ms, err);
}

/* ---- the answer ---- */

static enum att_rc check_http(const struct wire *wire, struct att_err *err)
{
    return wire->http_status == 200 && strncmp(wire->type, "application/grpc", 16) == 0
               ? ATT_OK
               : broken(wire, "no gRPC there", err);
}

enum att_rc wire_message(struct wire *wire, struct att_slice *ret_message, struct att_err *err)
{
    size_t left = wire->body.len - wire->taken;
    if (wire->taken) { /* what was given before is not needed any more */
        memmove(wire->body.ptr, wire->body.ptr + wire->taken, left);
        wire->body.len = left;
        wire->taken = 0;
    }
    if (left < HEAD_LEN) {
        return left && wire_ended(wire) ? broken(wire, "a message is cut off", err)
                                        : ATT_E_NOTFOUND;
    }
    struct att_cur cur = att_cur_init(att_buf_slice(&wire->body));
    uint8_t compressed = att_cur_u8(&cur);
    uint32_t len = att_cur_be32(&cur);
    enum att_rc rc = check_http(wire, err);
    if (rc != ATT_OK || compressed || len > WIRE_MESSAGE_MAX) {
        return rc ? rc : broken(wire, "expected a message of at most 4 MiB", err);
    }
    if (cur.left < len) {
        return wire_ended(wire) ? broken(wire, "a message is cut off", err) : ATT_E_NOTFOUND;
    }
    *ret_message = ATT_SLICE(cur.ptr, len);
    wire->taken = HEAD_LEN + (size_t)len;
    return ATT_OK;
}

bool wire_kept(const struct wire *wire)
{
    return wire->kept;
}

enum att_rc wire_status(const struct wire *wire, struct att_err *err)
{
    if (wire->http_status == 0 || (wire->http_status == 200 && wire->grpc_status < 0)) {
        return att_fail(err, ATT_E_GONE,
                        "attestd's socket for workloads ended the call without a status");
    }
    enum att_rc rc = check_http(wire, err);
    if (rc != ATT_OK || wire->grpc_status == 0) {
        return rc;
    }
    return status_refusal(wire->grpc_status, wire->text, err);
}

enum att_rc wire_reply(struct wire *wire, struct att_slice *ret_message, struct att_err *err)
{
    struct att_slice message;
    enum att_rc rc = wire_status(wire, err);
    if (rc != ATT_OK) {
        return rc;
    }
    rc = wire_message(wire, &message, err);
    if (rc == ATT_E_NOTFOUND || (rc == ATT_OK && wire->taken != wire->body.len)) {
        return broken(wire, "expected one reply message", err);
    }
    if (rc == ATT_OK) {
        *ret_message = message;
    }
    return rc;
}
