/* One call: a stream of a connection, from its headers to its trailers. */
#include "attestd/spiffe/internal.h"

#include "attestd/base/clock.h"
#include "attestd/base/secret.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGE_ROOM 1024 /* of grpc-message */

/* ---- answers shared by streams ------------------------------------------------------------- */

struct grpc_bytes *grpc_bytes_new(size_t len)
{
    struct grpc_bytes *bytes =
        len <= GRPC_ANSWER_MAX ? malloc(sizeof *bytes + GRPC_PREFIX_LEN + len) : NULL;
    if (bytes) {
        bytes->refs = 1;
        bytes->secret = bytes->own = false;
        bytes->len = GRPC_PREFIX_LEN + len;
        bytes->data[0] = 0; /* not compressed */
        for (unsigned i = 0; i < 4; i++) {
            bytes->data[1 + i] = (uint8_t)(len >> (8 * (3 - i)));
        }
    }
    return bytes;
}

struct grpc_bytes *grpc_bytes_ref(struct grpc_bytes *bytes)
{
    if (bytes) {
        bytes->refs++;
    }
    return bytes;
}

void grpc_bytes_unref(struct grpc_bytes *bytes)
{
    if (bytes && --bytes->refs == 0) {
        if (bytes->secret) {
            att_wipe(bytes->data, bytes->len);
        }
        free(bytes);
    }
}

/* What is one stream's alone counts as its reader's as long as it waits. */
static void count(const struct grpc_call *call, const struct grpc_bytes *bytes, bool waits)
{
    const struct grpc_handler *handler = call->conn->opts->handler;
    if (bytes && bytes->own && handler->waits && call->conn->user) {
        handler->waits(call->conn->user, waits ? (int64_t)bytes->len : -(int64_t)bytes->len);
    }
}

/* at: now or later; takes a reference, and gives that of what was there back. */
static void set_message(struct grpc_call *call, struct grpc_bytes **at, struct grpc_bytes *bytes)
{
    struct grpc_bytes *was = *at;
    count(call, bytes, true);
    *at = grpc_bytes_ref(bytes);
    count(call, was, false);
    grpc_bytes_unref(was);
}

/* ---- birth and end ------------------------------------------------------------------------- */

/* The name of any mark: which method it is shows at the end of the headers. */
static const char *mark_of(const struct grpc_method *methods)
{
    for (; methods->path; methods++) {
        if (methods->mark) {
            return methods->mark;
        }
    }
    return NULL;
}

struct grpc_call *grpc_call_new(struct grpc_conn *conn, int32_t stream)
{
    struct grpc_call *call = calloc(1, sizeof *call);
    if (!call) {
        return NULL;
    }
    call->conn = conn;
    call->stream = stream;
    grpc_headers_init(&call->headers, mark_of(conn->opts->methods));
    grpc_inbox_init(&call->inbox, GRPC_REQUEST_MAX);
    call->next = conn->calls;
    call->at = &conn->calls;
    if (call->next) {
        call->next->at = &call->next;
    }
    conn->calls = call;
    call->made_ms = att_boottime_ms();
    if (conn->opts->handler->begin) {
        call->counted = conn->opts->handler->begin(conn->user);
        call->refused = !call->counted;
    }
    return call;
}

static void drop_request(struct grpc_call *call)
{
    call->conn->waiting -= call->inbox.message.len;
    grpc_inbox_done(&call->inbox);
}

void grpc_call_free(struct grpc_call *call)
{
    *call->at = call->next;
    if (call->next) {
        call->next->at = call->at;
    }
    if (call->begun && call->conn->user) {
        call->conn->opts->handler->ended(call->conn->user, call);
    }
    if (call->counted && call->conn->user) {
        call->conn->opts->handler->end(call->conn->user);
    }
    if (call->deadline) {
        event_free(call->deadline);
    }
    drop_request(call);
    set_message(call, &call->now, NULL);
    set_message(call, &call->later, NULL);
    while (call->queued) {
        grpc_bytes_unref(call->queue[--call->queued]);
    }
    free(call->status_text);
    free(call);
}

/* ---- the answer ---------------------------------------------------------------------------- */

static nghttp2_nv field(const char *name, const char *value, size_t len)
{
    return (nghttp2_nv){(uint8_t *)(uintptr_t)name, (uint8_t *)(uintptr_t)value, strlen(name), len,
                        NGHTTP2_NV_FLAG_NONE};
}

/* Fills fields with grpc-status and, where there is one, grpc-message; returns how many. */
static size_t status_fields(const struct grpc_call *call, nghttp2_nv *fields, char code[12],
                            char message[MESSAGE_ROOM])
{
    int len = snprintf(code, 12, "%d", (int)call->status);
    fields[0] = field("grpc-status", code, (size_t)len);
    if (!call->status_text) {
        return 1;
    }
    fields[1] = field("grpc-message", message,
                      grpc_message_encode(call->status_text, message, MESSAGE_ROOM));
    return 2;
}

static void submit_trailers(struct grpc_call *call)
{
    char code[12], message[MESSAGE_ROOM];
    nghttp2_nv fields[2];
    size_t n = status_fields(call, fields, code, message);
    call->done = true;
    if (nghttp2_submit_trailer(call->conn->session, call->stream, fields, n) != 0) {
        grpc_conn_cut(call->conn, "no memory for trailers");
    }
}

static void next_message(struct grpc_call *call)
{
    set_message(call, &call->now, call->later);
    set_message(call, &call->later, NULL);
    if (!call->now && call->queued) {
        call->now = call->queue[0];
        call->queued--;
        memmove(call->queue, call->queue + 1, call->queued * sizeof call->queue[0]);
    }
    call->sent = 0;
    call->waiting_since_ms = call->now ? att_boottime_ms() : 0;
}

/* libnghttp2 asks when flow control and the socket let it send: nothing is copied before. */
static ssize_t read_answer(nghttp2_session *session, int32_t stream, uint8_t *buf, size_t room,
                           uint32_t *flags, nghttp2_data_source *source, void *user)
{
    struct grpc_call *call = source->ptr;
    (void)session;
    (void)stream;
    (void)user;
    size_t len = 0;
    while (call->now && len < room) {
        size_t left = call->now->len - call->sent;
        size_t take = left < room - len ? left : room - len;
        memcpy(buf + len, call->now->data + call->sent, take);
        call->conn->out_secret = call->conn->out_secret || call->now->secret;
        call->sent += take;
        len += take;
        if (call->sent == call->now->len) {
            call->delivered = true;
            next_message(call);
        } else {
            call->waiting_since_ms = att_boottime_ms();
        }
    }
    if (!call->now && call->finished) {
        *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
        submit_trailers(call);
    } else if (len == 0) {
        call->deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    grpc_budget_give(&call->conn->budget, GRPC_BUDGET_SENT);
    return (ssize_t)len;
}

static void submit_headers(struct grpc_call *call)
{
    const nghttp2_nv fields[] = {
        field(":status", "200", 3),
        field("content-type", "application/grpc", 16),
        field("attestd-kept", "true", 4),
    };
    nghttp2_data_provider provider = {.source.ptr = call, .read_callback = read_answer};
    call->answered = true;
    if (nghttp2_submit_response(call->conn->session, call->stream, fields, call->kept ? 3 : 2,
                                &provider) != 0) {
        grpc_conn_cut(call->conn, "no memory for an answer");
    }
}

/* Headers and trailers in one (gRPC over HTTP/2, "Trailers-Only"). */
static void submit_trailers_only(struct grpc_call *call)
{
    char code[12], message[MESSAGE_ROOM];
    nghttp2_nv fields[5] = {
        field(":status", "200", 3),
        field("content-type", "application/grpc", 16),
    };
    size_t n = 2 + status_fields(call, fields + 2, code, message);
    if (call->status == GRPC_UNIMPLEMENTED) {
        fields[n++] = field("grpc-accept-encoding", "identity", 8);
    }
    call->answered = call->done = true;
    if (nghttp2_submit_response(call->conn->session, call->stream, fields, n, NULL) != 0) {
        grpc_conn_cut(call->conn, "no memory for an answer");
    }
}

static void answer_http(struct grpc_call *call, int status)
{
    char code[12];
    int len = snprintf(code, sizeof code, "%d", status);
    const nghttp2_nv fields[] = {field(":status", code, (size_t)len)};
    call->answered = call->finished = call->done = true;
    (void)nghttp2_submit_response(call->conn->session, call->stream, fields, 1, NULL);
}

static void go_on(struct grpc_call *call)
{
    if (!call->waiting_since_ms) {
        call->waiting_since_ms = att_boottime_ms();
    }
    if (call->deferred) {
        call->deferred = false;
        (void)nghttp2_session_resume_data(call->conn->session, call->stream);
    }
    grpc_conn_wake(call->conn);
}

void grpc_call_send(struct grpc_call *call, struct grpc_bytes *bytes)
{
    if (call->finished) {
        return;
    }
    if (!call->now || call->sent == 0) {
        set_message(call, &call->now, bytes);
        call->sent = 0;
    } else {
        set_message(call, &call->later, bytes);
    }
    if (!call->answered) {
        submit_headers(call);
    }
    go_on(call);
}

/* Who is refused is not given what waits for him, nor the rest of it. */
static void take_back_secrets(struct grpc_call *call)
{
    bool begun = call->now && call->now->secret && call->sent > 0;
    if (call->later && call->later->secret) {
        set_message(call, &call->later, NULL);
    }
    if (call->now && call->now->secret) {
        set_message(call, &call->now, call->later);
        set_message(call, &call->later, NULL);
        call->sent = 0;
    }
    if (begun) {
        (void)nghttp2_submit_rst_stream(call->conn->session, NGHTTP2_FLAG_NONE, call->stream,
                                        NGHTTP2_CANCEL);
    }
}

bool grpc_call_wants_fresh(const struct grpc_call *call)
{
    return call->headers.fresh;
}

void grpc_call_kept(struct grpc_call *call)
{
    call->kept = true;
}

bool grpc_call_append(struct grpc_call *call, struct grpc_bytes *bytes)
{
    if (call->finished) {
        return true;
    }
    if (call->queued == GRPC_QUEUE_MAX) {
        return false;
    }
    call->queue[call->queued++] = grpc_bytes_ref(bytes);
    grpc_budget_give(&call->conn->budget, GRPC_BUDGET_ANSWER);
    if (!call->now) {
        next_message(call);
    }
    if (!call->answered) {
        submit_headers(call);
    }
    go_on(call);
    return true;
}

void grpc_call_finish(struct grpc_call *call, enum grpc_status status, const char *message)
{
    if (call->finished) {
        return;
    }
    if (status != GRPC_OK) {
        take_back_secrets(call);
    }
    call->finished = true;
    call->status = status;
    call->status_text = message && *message ? strdup(message) : NULL;
    drop_request(call);
    if (!call->answered) {
        submit_trailers_only(call);
    }
    go_on(call);
}

bool grpc_call_finished(const struct grpc_call *call)
{
    return call->finished;
}

/* ---- the request --------------------------------------------------------------------------- */

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    grpc_call_finish(arg, GRPC_DEADLINE_EXCEEDED, "the call's time is over");
}

static void set_deadline(struct grpc_call *call)
{
    int64_t us = call->headers.timeout_us;
    if (us < 0) {
        return;
    }
    struct timeval after = {(time_t)(us / 1000000), (suseconds_t)(us % 1000000)};
    call->deadline = event_new(call->conn->opts->base, -1, 0, on_deadline, call);
    if (!call->deadline || event_add(call->deadline, &after) != 0) {
        grpc_call_finish(call, GRPC_RESOURCE_EXHAUSTED, "no memory for a deadline");
    }
}

static const struct grpc_method *find_method(const struct grpc_method *methods, const char *path)
{
    while (methods->path && strcmp(methods->path, path) != 0) {
        methods++;
    }
    return methods->path ? methods : NULL;
}

static void check_method(struct grpc_call *call)
{
    call->method = find_method(call->conn->opts->methods, call->headers.path);
    if (call->refused) {
        grpc_call_finish(call, GRPC_UNAVAILABLE, "too many calls of this user at one time");
    } else if (!call->method) {
        grpc_call_finish(call, GRPC_UNIMPLEMENTED, "this server has no such method");
    } else if (call->method->mark && !grpc_headers_marked(&call->headers)) {
        char text[160];
        snprintf(text, sizeof text, "the header %s must be there exactly once, as \"true\"",
                 call->method->mark);
        grpc_call_finish(call, GRPC_INVALID_ARGUMENT, text);
    } else {
        set_deadline(call);
    }
}

void grpc_call_headers(struct grpc_call *call)
{
    int code;
    const char *why;
    switch (grpc_headers_check(&call->headers, &code, &why)) {
    case GRPC_HEADERS_OK:
        check_method(call);
        return;
    case GRPC_HEADERS_HTTP:
        answer_http(call, code);
        return;
    case GRPC_HEADERS_REFUSED:
        grpc_call_finish(call, (enum grpc_status)code, why);
        return;
    case GRPC_HEADERS_MALFORMED:
        call->finished = true;
        (void)nghttp2_submit_rst_stream(call->conn->session, NGHTTP2_FLAG_NONE, call->stream,
                                        NGHTTP2_PROTOCOL_ERROR);
        return;
    }
}

/* How many of the bytes were taken. */
static size_t put(struct grpc_call *call, struct att_slice bytes)
{
    size_t before = call->inbox.message.len, used = 0;
    enum grpc_status status = grpc_inbox_put(&call->inbox, bytes, &used);
    call->conn->waiting += call->inbox.message.len - before;
    if (status == GRPC_RESOURCE_EXHAUSTED) {
        grpc_call_finish(call, status, "the request is longer than 64 KiB");
    } else if (status != GRPC_OK) {
        grpc_call_finish(call, status, "the request is compressed, which was not agreed on");
    } else if (call->conn->waiting > GRPC_WAITING_MAX) {
        grpc_call_finish(call, GRPC_RESOURCE_EXHAUSTED,
                         "the requests under way on this connection are too long");
    } else if (used < bytes.len && call->method->kind != GRPC_BIDI) {
        grpc_call_finish(call, GRPC_INTERNAL, "more than one request message");
    }
    return used;
}

static void hand_over(struct grpc_call *call)
{
    call->begun = true;
    call->conn->opts->handler->request(call->conn->user, call, call->method,
                                       att_buf_slice(&call->inbox.message));
    drop_request(call);
}

static struct grpc_bytes *newest(const struct grpc_call *call)
{
    return call->later ? call->later : call->now;
}

/* A message of a stream of them: the next one has the inbox. It costs, as a call does, and what was
 * made for it alone costs more the longer it is: sent, it brings that back. */
static void hand_over_one(struct grpc_call *call)
{
    bool first = !call->begun;
    struct grpc_bytes *before = grpc_bytes_ref(newest(call));
    hand_over(call);
    grpc_inbox_init(&call->inbox, GRPC_REQUEST_MAX);
    const struct grpc_bytes *made = newest(call);
    int cost = GRPC_COST_MESSAGE;
    if (made && made != before && made->own) {
        cost += (int)(made->len / GRPC_BYTES_A_POINT);
    }
    grpc_bytes_unref(before);
    if (!first && !grpc_budget_take(&call->conn->budget, cost, att_boottime_ms())) {
        grpc_conn_cut(call->conn, "a flood of request messages");
    }
}

void grpc_call_data(struct grpc_call *call, struct att_slice bytes)
{
    while (!call->finished && !call->conn->cut && bytes.len) {
        if (call->begun && grpc_inbox_empty(&call->inbox)) {
            call->made_ms = att_boottime_ms(); /* the next message's time begins */
        }
        size_t used = put(call, bytes);
        bytes = ATT_SLICE(bytes.ptr + used, bytes.len - used);
        if (!call->finished && call->method->kind == GRPC_BIDI && grpc_inbox_full(&call->inbox)) {
            hand_over_one(call);
        }
    }
}

/* The client has sent its last: it does not go on with what it was told. */
static void end_of_requests(struct grpc_call *call)
{
    if (grpc_inbox_empty(&call->inbox)) {
        grpc_call_finish(call, GRPC_OK, NULL);
    } else {
        grpc_call_finish(call, GRPC_INTERNAL, "the request message is cut off");
    }
}

void grpc_call_end(struct grpc_call *call)
{
    call->remote_ended = true;
    if (call->finished) {
        return;
    }
    if (call->method->kind == GRPC_BIDI) {
        end_of_requests(call);
        return;
    }
    if (!grpc_inbox_full(&call->inbox)) {
        grpc_call_finish(call, GRPC_INTERNAL,
                         grpc_inbox_empty(&call->inbox) ? "no request message"
                                                        : "the request message is cut off");
        return;
    }
    hand_over(call);
}

/* ---- time ---------------------------------------------------------------------------------- */

void grpc_call_tick(struct grpc_call *call, int64_t now_ms)
{
    bool sends = call->now || (call->finished && !call->done);
    bool receives =
        !call->remote_ended && !call->finished && (!call->begun || !grpc_inbox_empty(&call->inbox));
    if (sends && call->waiting_since_ms && !call->conn->cut &&
        now_ms - call->waiting_since_ms > call->conn->opts->slow_ms) {
        if (call->conn->opts->handler->cut) {
            call->conn->opts->handler->cut(call->conn->user, "a stream is not read");
        }
        call->waiting_since_ms = 0;
        (void)nghttp2_submit_rst_stream(call->conn->session, NGHTTP2_FLAG_NONE, call->stream,
                                        NGHTTP2_CANCEL);
        grpc_conn_wake(call->conn);
    } else if (receives && now_ms - call->made_ms > call->conn->opts->slow_ms) {
        if (call->method) {
            grpc_call_finish(call, GRPC_DEADLINE_EXCEEDED, "the request did not come in time");
        } else {
            grpc_conn_cut(call->conn, "a request's headers did not come in time");
        }
    }
}

struct grpc_conn *grpc_call_conn(const struct grpc_call *call)
{
    return call->conn;
}

void grpc_call_set(struct grpc_call *call, void *state)
{
    call->state = state;
}

void *grpc_call_get(const struct grpc_call *call)
{
    return call->state;
}
