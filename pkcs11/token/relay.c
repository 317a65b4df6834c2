#include "pkcs11/token/relay.h"

#include "attestd/base/clock.h"
#include "attestd/base/io.h"
#include "pkcs11/token/frame.h"
#include "pkcs11/token/serve.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define HELD_MAX (TOKEN_FRAME_HEAD + TOKEN_FRAME_OPTIONS_MAX)

static struct {
    int client;
    pid_t pid;
    bool greeted, ended, gone;     /* gone: the client takes no more */
    char why[TOKEN_RELAY_WHY_MAX]; /* empty: the client closed */
    /* to p11-kit's server: frame[from … from + have) is not scanned yet */
    size_t from, have;
    struct att_slice ready; /* passed, and not read yet */
    uint8_t refusal[TOKEN_FRAME_REFUSAL_LEN];
    struct token_frame_state state;
    int64_t tokens_us; /* µs of waiting saved up: one frame costs 1e6 / RATE */
    int64_t filled_at_us;
    /* to the client */
    bool answered;          /* the version is out */
    size_t left;            /* of the frame that is being written; 0: none is */
    uint8_t held[HELD_MAX]; /* … and has not left yet */
    size_t held_len;
} relay = {.client = -1};

/* In the process image, not on the heap: only the pages that are used become this process's own. */
static uint8_t frame[TOKEN_FRAME_MAX];

static bool end_it(const char *why)
{
    snprintf(relay.why, sizeof relay.why, "%.159s", why);
    return false;
}

/* ---- reading, with the writer's pid beside every piece (unix(7), SCM_CREDENTIALS) -------------
 */

static bool by_the_caller(struct msghdr *msg)
{
    for (struct cmsghdr *head = CMSG_FIRSTHDR(msg); head; head = CMSG_NXTHDR(msg, head)) {
        if (head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_CREDENTIALS) {
            struct ucred cred;
            memcpy(&cred, CMSG_DATA(head), sizeof cred);
            return cred.pid == relay.pid;
        }
    }
    return false;
}

/* What there is, up to the room behind what is there; the kernel joins no pieces of different
 * writers. False ends the connection. */
static bool receive(bool end_may_be_here)
{
    /* Descriptors that come along find no room, so the kernel closes them. */
    union {
        char room[CMSG_SPACE(sizeof(struct ucred))];
        struct cmsghdr align;
    } control;
    size_t at = relay.from + relay.have;
    struct iovec iov = {frame + at, sizeof frame - at};
    ssize_t got;
    struct msghdr msg;
    do {
        msg = (struct msghdr){.msg_iov = &iov,
                              .msg_iovlen = 1,
                              .msg_control = control.room,
                              .msg_controllen = sizeof control.room};
        got = recvmsg(relay.client, &msg, MSG_CMSG_CLOEXEC);
    } while (got < 0 && errno == EINTR);
    if (got <= 0) {
        return end_may_be_here ? false : end_it("the connection ended within a frame");
    }
    if (!by_the_caller(&msg)) {
        return end_it("another process wrote to the connection");
    }
    relay.have += (size_t)got;
    return true;
}

/* At least len bytes; first: of a frame, so that the end may be here. */
static bool need(size_t len, bool first)
{
    if (relay.have == 0) {
        relay.from = 0;
    } else if (relay.from + len > sizeof frame) {
        memmove(frame, frame + relay.from, relay.have);
        relay.from = 0;
    }
    while (relay.have < len) {
        if (!receive(first && relay.have == 0)) {
            return false;
        }
    }
    return true;
}

static struct att_slice take(size_t len)
{
    struct att_slice taken = {frame + relay.from, len};
    relay.from += len;
    relay.have -= len;
    return taken;
}

/* ---- rate -------------------------------------------------------------------------------------
 */

static void wait_for_turn(void)
{
    const int64_t cost = 1000000 / TOKEN_SERVE_RATE, most = cost * TOKEN_SERVE_BURST;
    int64_t now = att_boottime_us();
    relay.tokens_us += now - relay.filled_at_us;
    relay.tokens_us = relay.tokens_us > most ? most : relay.tokens_us;
    relay.filled_at_us = now;
    relay.tokens_us -= cost;
    if (relay.tokens_us < 0) {
        struct timespec rest = {.tv_nsec = (long)(-relay.tokens_us * 1000)};
        nanosleep(&rest, NULL);
    }
}

/* ---- frames ------------------------------------------------------------------------------------
 */

static bool next_frame(void)
{
    struct token_frame_head head;
    struct att_err err = {0};
    if (!need(TOKEN_FRAME_HEAD, true)) {
        return false;
    }
    if (token_frame_head(frame + relay.from, &head, &err) != ATT_OK) {
        return end_it(err.msg);
    }
    size_t len = TOKEN_FRAME_HEAD + head.options_len + head.message_len;
    if (!need(len, false)) {
        return false;
    }
    struct att_slice whole = take(len);
    wait_for_turn();
    switch (token_frame_check(
        &relay.state, ATT_SLICE(whole.ptr + len - head.message_len, head.message_len), &err)) {
    case TOKEN_FRAME_PASS:
        relay.ready = whole;
        return true;
    case TOKEN_FRAME_UNSERVED:
        token_frame_refusal(head.code, relay.refusal);
        relay.ready = ATT_SLICE_ARRAY(relay.refusal);
        return true;
    case TOKEN_FRAME_REFUSED:
        break;
    }
    return end_it(err.msg);
}

static bool next(void)
{
    if (relay.greeted) {
        return next_frame();
    }
    if (relay.have == 0 && !receive(true)) {
        return false;
    }
    relay.ready = take(1);
    relay.greeted = true;
    relay.filled_at_us = att_boottime_us();
    return true;
}

ssize_t token_relay_read(void *at, size_t len)
{
    if (relay.ready.len == 0 && !relay.ended && !next()) {
        relay.ended = true;
    }
    size_t given = len < relay.ready.len ? len : relay.ready.len;
    if (given) {
        memcpy(at, relay.ready.ptr, given);
        relay.ready = ATT_SLICE(relay.ready.ptr + given, relay.ready.len - given);
    }
    return (ssize_t)given;
}

/* ---- answers -----------------------------------------------------------------------------------
 */

static bool send_all(const void *bytes, size_t len)
{
    struct iovec parts[2] = {{relay.held, relay.held_len}, {(void *)(uintptr_t)bytes, len}};
    relay.held_len = 0;
    while (parts[0].iov_len + parts[1].iov_len) {
        struct msghdr msg = {.msg_iov = parts, .msg_iovlen = 2};
        ssize_t put = sendmsg(relay.client, &msg, MSG_NOSIGNAL);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put < 0) {
            relay.gone = true;
            return false;
        }
        for (size_t i = 0; i < 2; i++) {
            size_t gone = (size_t)put < parts[i].iov_len ? (size_t)put : parts[i].iov_len;
            parts[i].iov_base = (uint8_t *)parts[i].iov_base + gone;
            parts[i].iov_len -= gone;
            put -= (ssize_t)gone;
        }
    }
    return true;
}

static size_t length_at(const uint8_t *at)
{
    struct att_cur cur = att_cur_init(ATT_SLICE(at, 4));
    return att_cur_be32(&cur);
}

/* A frame comes as head, options and message. They leave together: the client would wake up for
 * each. */
ssize_t token_relay_write(const void *bytes, size_t len)
{
    if (relay.answered && relay.left == 0 && len >= TOKEN_FRAME_HEAD) {
        const uint8_t *head = bytes;
        relay.left = TOKEN_FRAME_HEAD + length_at(head + 4) + length_at(head + 8);
    }
    relay.answered = true;
    bool last = len >= relay.left;
    relay.left -= last ? relay.left : len;
    if (!last && len <= sizeof relay.held - relay.held_len) {
        memcpy(relay.held + relay.held_len, bytes, len);
        relay.held_len += len;
        return (ssize_t)len;
    }
    return send_all(bytes, len) ? (ssize_t)len : -1;
}

/* ---- birth and end -----------------------------------------------------------------------------
 */

int token_relay_begin(int client, pid_t pid)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
        return -1;
    }
    close(ends[1]);
    memset(&relay, 0, sizeof relay);
    relay.client = client;
    relay.pid = pid;
    token_relay_stand_in = ends[0];
    return token_relay_stand_in;
}

void token_relay_refuse(const char *why)
{
    relay.ended = true;
    (void)end_it(why);
}

const char *token_relay_end(void)
{
    if (!relay.ended && !relay.gone) {
        (void)end_it("p11-kit's server has ended the connection");
    }
    att_close(&token_relay_stand_in);
    return relay.why[0] ? relay.why : NULL;
}
