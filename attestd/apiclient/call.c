#include "attestd/apiclient/call.h"

#include "attestd/base/secret.h"
#include "attestd/base/text.h"

#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEAD_LEN 5 /* of a message: compressed flag, length */

struct apiclient_call {
    nghttp2_session *session;
    int32_t stream;
    struct att_buf request, body;
    size_t sent;
    int http_status;  /* 0: none yet */
    long grpc_status; /* -1: none */
    char type[64], message[320];
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

static int hex_digit(uint8_t c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* Percent-encoded (gRPC over HTTP/2, "Status-Message"); what is no escape stays as it is. */
static void keep_message(struct apiclient_call *call, const uint8_t *value, size_t len)
{
    size_t n = 0;
    for (size_t i = 0; i < len && n + 1 < sizeof call->message; i++) {
        bool escape = value[i] == '%' && i + 2 < len && hex_digit(value[i + 1]) >= 0 &&
                      hex_digit(value[i + 2]) >= 0;
        char c = escape ? (char)(hex_digit(value[i + 1]) * 16 + hex_digit(value[i + 2]))
                        : (char)value[i];
        i += escape ? 2 : 0;
        call->message[n++] = c ? c : '?';
    }
    call->message[n] = 0;
    att_text_clean(call->message);
}

static long number(const uint8_t *value, size_t len)
{
    char text[6];
    bool digits = len > 0 && len < sizeof text;
    for (size_t i = 0; digits && i < len; i++) {
        digits = value[i] >= '0' && value[i] <= '9';
    }
    if (!digits) {
        return -1;
    }
    keep(text, sizeof text, value, len);
    return strtol(text, NULL, 10);
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
                     void *user)
{
    struct apiclient_call *call = user;
    struct att_slice is = ATT_SLICE(name, name_len);
    (void)session;
    (void)flags;
    if (frame->hd.stream_id != call->stream) {
        return 0;
    }
    if (att_slice_eq_str(is, ":status")) {
        call->http_status = (int)number(value, value_len);
    } else if (att_slice_eq_str(is, "content-type")) {
        keep(call->type, sizeof call->type, value, value_len);
    } else if (att_slice_eq_str(is, "grpc-status")) {
        call->grpc_status = number(value, value_len);
    } else if (att_slice_eq_str(is, "grpc-message")) {
        keep_message(call, value, value_len);
    } else if (att_slice_eq_str(is, "attestd-kept")) {
        call->kept = att_slice_eq_str(ATT_SLICE(value, value_len), "true");
    }
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *data,
                   size_t len, void *user)
{
    struct apiclient_call *call = user;
    (void)session;
    (void)flags;
    if (stream == call->stream) {
        att_buf_put(&call->body, data, len);
        if (call->body.failed) {
            call->bad = "the reply is too long";
            return NGHTTP2_ERR_CALLBACK_FAILURE;
        }
    }
    return 0;
}

static int on_close(nghttp2_session *session, int32_t stream, uint32_t code, void *user)
{
    struct apiclient_call *call = user;
    (void)session;
    (void)code;
    call->ended = call->ended || stream == call->stream;
    return 0;
}

/* ---- what goes ---- */

static ssize_t on_read(nghttp2_session *session, int32_t stream, uint8_t *to, size_t room,
                       uint32_t *flags, nghttp2_data_source *source, void *user)
{
    struct apiclient_call *call = user;
    size_t left = call->request.len - call->sent;
    size_t n = left < room ? left : room;
    (void)session;
    (void)stream;
    (void)source;
    memcpy(to, call->request.ptr + call->sent, n);
    call->sent += n;
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

static int submit(struct apiclient_call *call, const char *method, unsigned flags)
{
    nghttp2_nv fields[9] = {
        field(":method", "POST"),
        field(":scheme", "http"),
        field(":path", method),
        field(":authority", "localhost"),
        field("te", "trailers"),
        field("content-type", "application/grpc"),
        field("user-agent", "attestctl/" ATT_VERSION),
    };
    size_t n = 7;
    const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_ENABLE_PUSH, 0}};
    const nghttp2_data_provider data = {.read_callback = on_read};
    if (flags & APICLIENT_SPIFFE) {
        fields[n++] = field("workload.spiffe.io", "true");
    }
    if (flags & APICLIENT_FRESH) {
        fields[n++] = field("attestd-fresh", "true");
    }
    int rc = nghttp2_submit_settings(call->session, NGHTTP2_FLAG_NONE, settings, 1);
    int32_t stream = rc ? rc : nghttp2_submit_request(call->session, NULL, fields, n, &data, NULL);
    call->stream = stream;
    return stream < 0 ? stream : 0;
}

enum att_rc apiclient_call_new(const char *method, unsigned flags, struct att_slice message,
                               struct apiclient_call **ret_call, struct att_err *err)
{
    nghttp2_session_callbacks *on = NULL;
    struct apiclient_call *call = calloc(1, sizeof *call);
    if (!call) {
        return att_fail(err, ATT_E_NOMEM, "gRPC");
    }
    call->grpc_status = -1;
    call->body.max = APICLIENT_REPLY_MAX + HEAD_LEN;
    att_buf_u8(&call->request, 0);
    att_buf_field_be32(&call->request, message);
    int rc = call->request.failed ? NGHTTP2_ERR_NOMEM : nghttp2_session_callbacks_new(&on);
    if (rc == 0) {
        nghttp2_session_callbacks_set_on_header_callback(on, on_header);
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(on, on_data);
        nghttp2_session_callbacks_set_on_stream_close_callback(on, on_close);
        rc = nghttp2_session_client_new(&call->session, on, call);
    }
    rc = rc ? rc : submit(call, method, flags);
    nghttp2_session_callbacks_del(on);
    if (rc != 0) {
        apiclient_call_free(call);
        return att_fail(err, ATT_E_NOMEM, "gRPC: %s", nghttp2_strerror(rc));
    }
    *ret_call = call;
    return ATT_OK;
}

static void wipe(struct att_buf *buf)
{
    if (buf->ptr) {
        att_wipe(buf->ptr, buf->cap);
    }
    att_buf_done(buf);
}

void apiclient_call_free(struct apiclient_call *call)
{
    if (call) {
        nghttp2_session_del(call->session);
        wipe(&call->request);
        wipe(&call->body);
        free(call);
    }
}

/* ---- steps ---- */

static enum att_rc broken(const struct apiclient_call *call, const char *what, struct att_err *err)
{
    return att_fail(err, ATT_E_PROTOCOL, "attestd's socket for workloads: %s",
                    call->bad ? call->bad : what);
}

enum att_rc apiclient_call_send(struct apiclient_call *call, struct att_slice *ret_bytes,
                                struct att_err *err)
{
    const uint8_t *bytes = NULL;
    ssize_t len = nghttp2_session_mem_send(call->session, &bytes);
    if (len < 0) {
        return broken(call, nghttp2_strerror((int)len), err);
    }
    *ret_bytes = ATT_SLICE(bytes, (size_t)len);
    return ATT_OK;
}

enum att_rc apiclient_call_recv(struct apiclient_call *call, struct att_slice bytes,
                                struct att_err *err)
{
    ssize_t len = nghttp2_session_mem_recv(call->session, bytes.ptr, bytes.len);
    if (len < 0) {
        return broken(call, nghttp2_strerror((int)len), err);
    }
    return ATT_OK;
}

bool apiclient_call_ended(const struct apiclient_call *call)
{
    /* A connection that either side gave up (GOAWAY) ends the call, too. */
    return call->ended || (!nghttp2_session_want_read(call->session) &&
                           !nghttp2_session_want_write(call->session));
}

bool apiclient_call_kept(const struct apiclient_call *call)
{
    return call->kept;
}

static enum att_rc rc_of(long status)
{
    static const enum att_rc rcs[] = {
        [3] = ATT_E_INVAL,        [4] = ATT_E_TIMEOUT, [5] = ATT_E_NOTFOUND,
        [7] = ATT_E_DENIED,       [8] = ATT_E_LIMIT,   [9] = ATT_E_CONFLICT,
        [12] = ATT_E_UNSUPPORTED, [14] = ATT_E_RETRY,  [16] = ATT_E_DENIED};
    bool known = status >= 0 && (size_t)status < sizeof rcs / sizeof rcs[0] && rcs[status];
    return known ? rcs[status] : ATT_E_PROTOCOL;
}

#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

/* "word: sentence", or "sentence (word)". */
static enum att_rc refusal(const struct apiclient_call *call, struct att_err *err)
{
    const char *text = call->message, *open = strrchr(text, '(');
    char word[sizeof err->reason] = "";
    size_t len = strspn(text, LETTERS);
    size_t last = open ? strspn(open + 1, LETTERS) : 0;
    if (len > 0 && len < sizeof word && text[len] == ':' && text[len + 1] == ' ') {
        snprintf(word, sizeof word, "%.*s", (int)len, text);
        text += len + 2;
    } else if (open && last > 0 && last < sizeof word && strcmp(open + 1 + last, ")") == 0) {
        snprintf(word, sizeof word, "%.*s", (int)last, open + 1);
    }
    enum att_rc rc = att_fail(err, rc_of(call->grpc_status), "%s",
                              text[0] ? text : "attestd's socket for workloads refused");
    if (word[0]) {
        att_err_reason(err, word);
    }
    return rc;
}

enum att_rc apiclient_call_reply(const struct apiclient_call *call, struct att_slice *ret_message,
                                 struct att_err *err)
{
    if (call->http_status == 0 || (call->http_status == 200 && call->grpc_status < 0)) {
        return att_fail(err, ATT_E_GONE,
                        "attestd's socket for workloads ended the call without a status");
    }
    if (call->http_status != 200 || strncmp(call->type, "application/grpc", 16) != 0) {
        return broken(call, "no gRPC there", err);
    }
    if (call->grpc_status != 0) {
        return refusal(call, err);
    }
    struct att_cur cur = att_cur_init(att_buf_slice(&call->body));
    uint8_t compressed = att_cur_u8(&cur);
    struct att_slice message = att_cur_take_be32(&cur, APICLIENT_REPLY_MAX);
    if (compressed || !att_cur_done(&cur)) {
        return broken(call, "expected one reply message", err);
    }
    *ret_message = message;
    return ATT_OK;
}
