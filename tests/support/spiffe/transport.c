/* The gRPC transport alone, for its tests: serves one connection on descriptor 3 with methods that
 * do what a test asks, and ends with it. argv: slow_ms, hello_ms. On stderr, a line for each event.
 */
#include "attestd/spiffe/grpc.h"

#include <dlfcn.h>
#include <event2/event.h>
#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { ECHO, MANY, NEVER, MARKED, LATEST, EACH, SECRET, ONCE };

static const struct grpc_method methods[] = {
    {"/t.T/Echo", GRPC_UNARY, NULL, ECHO},
    {"/t.T/Many", GRPC_SERVER_STREAM, NULL, MANY},
    {"/t.T/Never", GRPC_SERVER_STREAM, NULL, NEVER},
    {"/t.T/Marked", GRPC_UNARY, "mark.example", MARKED},
    {"/t.T/Latest", GRPC_SERVER_STREAM, NULL, LATEST},
    {"/t.T/Once", GRPC_SERVER_STREAM, NULL, ONCE},
    {"/t.T/Each", GRPC_BIDI, NULL, EACH},
    {"/t.T/Secret", GRPC_BIDI, NULL, SECRET},
    {NULL, GRPC_UNARY, NULL, 0},
};

static struct event_base *base;
static struct grpc_conn *conn;
static struct grpc_call *latest;
static unsigned sent;

static void send_text(struct grpc_call *call, const void *text, size_t len)
{
    struct grpc_bytes *bytes = grpc_bytes_new(len);
    if (!bytes) {
        abort();
    }
    if (len) {
        memcpy(bytes->data + 5, text, len);
    }
    grpc_call_send(call, bytes);
    grpc_bytes_unref(bytes);
}

static void send_secret(struct grpc_call *call, size_t len)
{
    struct grpc_bytes *bytes = grpc_bytes_new(len);
    if (!bytes) {
        abort();
    }
    bytes->secret = bytes->own = true;
    memset(bytes->data + 5, 's', len);
    grpc_call_send(call, bytes);
    grpc_bytes_unref(bytes);
}

/* In libc's place: where the last piece with a secret's letters was sent from. */
static const uint8_t *sent_from;
static size_t sent_len;
/* … and what of it the socket did not take. */
static const uint8_t *unread_from;
static size_t unread_len;

ssize_t send(int fd, const void *bytes, size_t len, int flags)
{
    if (memmem(bytes, len, "ssssssss", 8)) {
        sent_from = bytes;
        sent_len = len;
    }
    ssize_t put = (ssize_t)syscall(SYS_sendto, fd, bytes, len, flags, NULL, 0);
    size_t taken = put > 0 ? (size_t)put : 0;
    unread_from = (const uint8_t *)bytes + taken;
    unread_len = memmem(unread_from, len - taken, "ssssssss", 8) ? len - taken : 0;
    return put;
}

/* In libnghttp2's place: the connection is over, and its memory is about to be free. */
void nghttp2_session_del(nghttp2_session *session)
{
    void (*real)(nghttp2_session *) =
        (void (*)(nghttp2_session *))dlsym(RTLD_NEXT, "nghttp2_session_del");
    if (unread_len) {
        fprintf(stderr, memmem(unread_from, unread_len, "ssssssss", 8) ? "unread left\n"
                                                                       : "unread wiped\n");
    }
    real(session);
}

static void look_for_secret(void)
{
    if (sent_from) {
        fprintf(stderr, memmem(sent_from, sent_len, "ssssssss", 8) ? "left\n" : "wiped\n");
    }
    sent_from = NULL;
}

static void waits(void *user, int64_t bytes)
{
    static int64_t all;
    (void)user;
    all += bytes;
    fprintf(stderr, "waits %lld\n", (long long)all);
}

static void request(void *user, struct grpc_call *call, const struct grpc_method *method,
                    struct att_slice message)
{
    (void)user;
    switch (method->id) {
    case MANY: { /* one message of so many bytes as the request says, as a big-endian number */
        struct att_cur cur = att_cur_init(message);
        size_t len = att_cur_be32(&cur);
        char *text = calloc(1, len ? len : 1);
        send_text(call, text, len);
        free(text);
        grpc_call_finish(call, GRPC_OK, NULL);
        return;
    }
    case NEVER:
        return;
    case EACH:
        fprintf(stderr, "message %zu\n", message.len);
        if (message.len == 3) {
            grpc_call_finish(call, GRPC_NOT_FOUND, "three");
        } else if (message.len != 4) {
            send_text(call, message.ptr, message.len);
        }
        return;
    case LATEST:
        latest = call;
        return;
    case ONCE: /* and then nothing */
        send_text(call, message.ptr, message.len);
        return;
    case SECRET: /* "no": it ends, refused; "ok": it ends; else a secret, so many kB, all letters s
                  */
        if (message.len == 2) {
            bool no = message.ptr[0] == 'n';
            grpc_call_finish(call, no ? GRPC_PERMISSION_DENIED : GRPC_OK, no ? "no" : NULL);
        } else {
            send_secret(call, message.len * 1000);
        }
        return;
    default:
        send_text(call, message.ptr, message.len);
        grpc_call_finish(call, GRPC_OK, "100% \xc3\xbc\n");
    }
}

/* A new state every millisecond, of 64 KiB. */
static void on_time(evutil_socket_t fd, short what, void *arg)
{
    static char state[65536];
    (void)fd;
    (void)what;
    (void)arg;
    if (latest) {
        snprintf(state, sizeof state, "%08u", ++sent);
        send_text(latest, state, sizeof state);
    }
    if (conn) {
        look_for_secret();
        static unsigned ticks;
        if (++ticks % 50 == 0) {
            grpc_conn_tick(conn);
        }
    }
}

static void ended(void *user, struct grpc_call *call)
{
    (void)user;
    latest = latest == call ? NULL : latest;
    fprintf(stderr, "ended sent=%u\n", sent);
}

static void closed(void *user)
{
    (void)user;
    conn = NULL;
    fprintf(stderr, "closed\n");
    event_base_loopbreak(base);
}

static void cut(void *user, const char *why)
{
    (void)user;
    fprintf(stderr, "cut %s\n", why);
}

int main(int argc, char **argv)
{
    static const struct grpc_handler handler = {request, ended, closed, cut,
                                                NULL,    NULL,  NULL,   waits};
    const struct timeval often = {0, 1000};
    struct att_err err = {0};
    base = event_base_new();
    const struct grpc_opts opts = {base, methods, &handler, argc > 1 ? atoi(argv[1]) : 30000,
                                   argc > 2 ? atoi(argv[2]) : 5000};
    evutil_make_socket_nonblocking(3);
    if (grpc_conn_new(&opts, 3, argc > 3 ? atoi(argv[3]) : 0, &base, &conn, &err) != ATT_OK) {
        fprintf(stderr, "%s\n", err.msg);
        return 1;
    }
    struct event *timer = event_new(base, -1, EV_PERSIST, on_time, NULL);
    event_add(timer, &often);
    event_base_dispatch(base);
    event_free(timer);
    event_base_free(base);
    return 0;
}
