#define P11_KIT_FUTURE_UNSTABLE_API 1

#include "pkcs11/token/serve.h"

#include "attestd/base/clock.h"
#include "attestd/base/io.h"
#include "pkcs11/token/frame.h"

#include <errno.h>
#include <fcntl.h>
#include <p11-kit/remote.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define STACK_LEN 262144 /* libcrypto verifies on it */

struct relay {
    int client, to_server;
    pid_t pid;
    int64_t tokens_us; /* µs of waiting saved up: one frame costs 1e6 / RATE */
    int64_t filled_at_us;
    char why[160]; /* empty: the client closed */
};

/* In the process image, not on the heap: only the pages that are used become this process's own. */
static uint8_t frame[TOKEN_FRAME_MAX];
static char stack[STACK_LEN] __attribute__((aligned(16)));

static void say(struct relay *relay, const char *why)
{
    snprintf(relay->why, sizeof relay->why, "%.159s", why);
}

/* ---- reading, with the writer's pid beside every piece (unix(7), SCM_CREDENTIALS) -------------
 */

static bool by_the_caller(struct msghdr *msg, pid_t pid)
{
    for (struct cmsghdr *head = CMSG_FIRSTHDR(msg); head; head = CMSG_NXTHDR(msg, head)) {
        if (head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_CREDENTIALS) {
            struct ucred cred;
            memcpy(&cred, CMSG_DATA(head), sizeof cred);
            return cred.pid == pid;
        }
    }
    return false;
}

/* Exactly len bytes; false ends the connection. first: its end may be here. */
static bool read_exact(struct relay *relay, uint8_t *at, size_t len, bool first)
{
    /* Descriptors that come along find no room, so the kernel closes them. */
    union {
        char room[CMSG_SPACE(sizeof(struct ucred))];
        struct cmsghdr align;
    } control;
    while (len) {
        struct iovec iov = {at, len};
        struct msghdr msg = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control.room,
                             .msg_controllen = sizeof control.room};
        ssize_t got = recvmsg(relay->client, &msg, MSG_CMSG_CLOEXEC);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            if (!first) {
                say(relay, "the connection ended within a frame");
            }
            return false;
        }
        if (!by_the_caller(&msg, relay->pid)) {
            say(relay, "another process wrote to the connection");
            return false;
        }
        at += got;
        len -= (size_t)got;
        first = false;
    }
    return true;
}

/* ---- rate -------------------------------------------------------------------------------------
 */

static void wait_for_turn(struct relay *relay)
{
    const int64_t cost = 1000000 / TOKEN_SERVE_RATE, most = cost * TOKEN_SERVE_BURST;
    int64_t now = att_boottime_us();
    relay->tokens_us += now - relay->filled_at_us;
    relay->tokens_us = relay->tokens_us > most ? most : relay->tokens_us;
    relay->filled_at_us = now;
    relay->tokens_us -= cost;
    if (relay->tokens_us < 0) {
        struct timespec rest = {.tv_nsec = (long)(-relay->tokens_us * 1000)};
        nanosleep(&rest, NULL);
    }
}

/* ---- frames ------------------------------------------------------------------------------------
 */

static bool pass(struct relay *relay, struct att_slice bytes)
{
    if (att_io_write_all(relay->to_server, bytes, NULL) != ATT_OK) {
        say(relay, "p11-kit's server has ended the connection");
        return false;
    }
    return true;
}

static bool relay_one(struct relay *relay, struct token_frame_state *state)
{
    struct token_frame_head head;
    struct att_err err = {0};
    if (!read_exact(relay, frame, TOKEN_FRAME_HEAD, true)) {
        return false;
    }
    if (token_frame_head(frame, &head, &err) != ATT_OK) {
        say(relay, err.msg);
        return false;
    }
    size_t len = head.options_len + head.message_len;
    if (!read_exact(relay, frame + TOKEN_FRAME_HEAD, len, false)) {
        return false;
    }
    wait_for_turn(relay);
    struct att_slice message = {frame + TOKEN_FRAME_HEAD + head.options_len, head.message_len};
    switch (token_frame_check(state, message, &err)) {
    case TOKEN_FRAME_PASS:
        return pass(relay, ATT_SLICE(frame, TOKEN_FRAME_HEAD + len));
    case TOKEN_FRAME_UNSERVED:
        token_frame_refusal(head.code, frame);
        return pass(relay, ATT_SLICE(frame, TOKEN_FRAME_REFUSAL_LEN));
    case TOKEN_FRAME_REFUSED:
        break;
    }
    say(relay, err.msg);
    return false;
}

static void run_relay(struct relay *relay)
{
    struct token_frame_state state = {0};
    uint8_t version;
    if (read_exact(relay, &version, 1, true) && pass(relay, ATT_SLICE(&version, 1))) {
        relay->filled_at_us = att_boottime_us();
        while (relay_one(relay, &state)) {
        }
    }
    /* p11-kit's server sees the end of its input; a client that still waits sees it, too. */
    close(relay->to_server);
    if (relay->why[0]) {
        shutdown(relay->client, SHUT_RDWR);
    }
}

/* ---- p11-kit's server ---------------------------------------------------------------------------
 */

/* In the second thread, since that one gets a heap of its own: what it allocates then lies together
 * on a few fresh pages, and not in the gaps of the heap that was inherited from the process that
 * forked, each of which would cost a page. The relay allocates nothing. */
struct server {
    int from_relay, client;
};

static void *server_thread(void *arg)
{
    const struct server *server = arg;
    p11_kit_be_quiet();
    (void)p11_kit_remote_serve_module(token_module_functions(), server->from_relay, server->client);
    close(server->from_relay);
    shutdown(server->client, SHUT_RDWR); /* where p11-kit gave up first: wakes the relay */
    return NULL;
}

static bool start(struct server *server, pthread_t *ret_thread)
{
    pthread_attr_t attr;
    return pthread_attr_init(&attr) == 0 &&
           pthread_attr_setstack(&attr, stack, sizeof stack) == 0 &&
           pthread_create(ret_thread, &attr, server_thread, server) == 0;
}

const char *token_serve(const struct token_serve_opts *opts)
{
    static struct relay relay;
    static struct server server;
    pthread_t thread;
    int ends[2];
    relay = (struct relay){.client = opts->client, .pid = opts->pid};
    token_module_reset(opts->store);
    if (pipe2(ends, O_CLOEXEC) != 0) {
        return "no pipe";
    }
    relay.to_server = ends[1];
    server = (struct server){ends[0], opts->client};
    if (!start(&server, &thread)) {
        close(ends[0]);
        close(ends[1]);
        return "no thread";
    }
    if (!opts->confine || opts->confine(opts->user)) {
        run_relay(&relay);
    } else {
        say(&relay, "no sandbox");
        close(relay.to_server);
    }
    pthread_join(thread, NULL);
    token_module_reset(opts->store);
    return relay.why[0] ? relay.why : NULL;
}
