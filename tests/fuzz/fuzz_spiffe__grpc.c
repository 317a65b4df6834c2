/* A connection of api.sock: the input is what a client writes after its preface, HTTP/2 frames to
 * be refused or answered. The handler answers each request by itself, and parses it as the services
 * do. */
#include "attestd/spiffe/grpc.h"
#include "attestd/spiffe/sign_request.h"

#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define INPUT_MAX 32768
#define TURNS_MAX 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { ECHO, LATER, MARKED, EACH };

static const struct grpc_method methods[] = {
    {"/a.S/E", GRPC_UNARY, NULL, ECHO},  {"/a.S/L", GRPC_SERVER_STREAM, NULL, LATER},
    {"/a.S/M", GRPC_UNARY, "m", MARKED}, {"/a.S/B", GRPC_BIDI, NULL, EACH},
    {NULL, GRPC_UNARY, NULL, 0},
};

static int open_calls;
static int64_t waiting;
static bool is_open;

static void request(void *user, struct grpc_call *call, const struct grpc_method *method,
                    struct att_slice message)
{
    struct sign_request sign;
    static int state;
    (void)user;
    open_calls += grpc_call_get(call) == NULL; /* of a stream of them this is the first */
    grpc_call_set(call, &state);
    if (method->id == LATER) {
        return;
    }
    if (sign_request_parse(message, &sign) == NULL && (sign.digest_len < 20 || sign.scheme > 2)) {
        abort();
    }
    struct grpc_bytes *bytes = grpc_bytes_new(message.len);
    if (bytes && message.len) {
        memcpy(bytes->data + 5, message.ptr, message.len);
    }
    if (bytes) {
        bytes->secret = bytes->own = method->id == EACH;
        grpc_call_send(call, bytes);
        grpc_bytes_unref(bytes);
    }
    if (method->id != EACH || message.len == 2) {
        grpc_call_finish(call, message.len == 2 ? GRPC_PERMISSION_DENIED : GRPC_OK, NULL);
    }
}

static void ended(void *user, struct grpc_call *call)
{
    (void)user;
    (void)call;
    open_calls--;
}

static void closed(void *user)
{
    (void)user;
    is_open = false;
}

static void waits(void *user, int64_t bytes)
{
    (void)user;
    waiting += bytes;
    if (waiting < 0) {
        abort();
    }
}

/* What it answers is read, or it would stop to read. */
static void drain(int fd)
{
    uint8_t answer[16384];
    while (recv(fd, answer, sizeof answer, MSG_DONTWAIT) > 0) {
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0";
    static const struct grpc_handler handler = {
        .request = request, .ended = ended, .closed = closed, .waits = waits};
    static struct event_base *base;
    base = base ? base : event_base_new();
    const struct grpc_opts opts = {base, methods, &handler, 1000, 1000};
    struct grpc_conn *conn = NULL;
    int ends[2];
    if (size > INPUT_MAX || !base ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) != 0) {
        return 0;
    }
    open_calls = 0;
    waiting = 0;
    is_open = grpc_conn_new(&opts, ends[1], 0, base, &conn, NULL) == ATT_OK;
    (void)!send(ends[0], preface, sizeof preface,
                MSG_NOSIGNAL); /* its NUL is the frame's last byte */
    (void)!send(ends[0], data, size, MSG_NOSIGNAL);
    for (int i = 0; i < TURNS_MAX && is_open; i++) {
        event_base_loop(base, EVLOOP_NONBLOCK);
        drain(ends[0]);
    }
    if (is_open) {
        grpc_conn_tick(conn);
        grpc_conn_free(conn);
    }
    close(ends[0]);
    if (is_open || open_calls != 0 || waiting != 0) {
        abort(); /* a call outlived its connection, or an answer its call */
    }
    return 0;
}
