/* What a token process that was taken over can send to tokend: no more than one request at a time,
 * in its own agent's name, and nothing that grows. */
#include "attestd/tokend/internal.h"

#include "attestd/base/clock.h"
#include "attestd/tokend/own.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static struct tokend *tokend;
static struct agent *agent;
static struct conn *conn;
static int token; /* its end of the channel */

/* A view of about 8 KiB, known for this second. */
static void make_view(void)
{
    static uint8_t cert[4000];
    const struct att_slice items[] = {ATT_SLICE_ARRAY(cert), ATT_SLICE_ARRAY(cert)};
    const struct proc_value values[] = {
        {.num = 0},
        {.bytes = ATT_SLICE_LIT("spiffe://bank.example/agent/a")},
        {.bytes = ATT_SLICE_LIT("00000000000000000000000000000000")},
        {.items = items, .item_count = 2},
        {.items = NULL, .item_count = 0},
        {.num = 7}};
    const struct proc_op *op = proc_op_find(tokend_inner_table, TOKEND_INNER_VIEW);
    assert_int_equal(proc_msg_encode(&op->reply, values, &agent->view, NULL), ATT_OK);
    agent->generation = 7;
    agent->not_after = att_now_utc_s() + 3600;
    agent->fetched = true;
    agent->fetched_at_ms = att_boottime_ms() + 3600000;
}

static int setup(void **state)
{
    (void)state;
    int ends[2], size = 4096;
    tokend = calloc(1, sizeof *tokend);
    conn = calloc(1, sizeof *conn);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    assert_int_equal(setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof size), 0);
    token = ends[1];
    tokend->payload = tokend_own_buf(PROC_FRAME_MAX);
    tokend->frame = tokend_own_buf(PROC_FRAME_MAX + 4);
    assert_int_equal(tokend_loop_init(&tokend->loop, NULL), ATT_OK);
    agent = tokend_agent_join(tokend, ATT_SLICE_LIT("agent"));
    make_view();
    conn->tokend = tokend;
    conn->agent = agent;
    conn->state = CONN_SERVING;
    conn->channel = ends[0];
    conn->client = -1;
    conn->pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
    conn->pid = getpid();
    conn->channel_source.fd = conn->pid_source.fd = -1;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    tokend_conn_end(conn);
    att_buf_done(&conn->out);
    tokend_agent_leave(agent);
    free(conn);
    tokend_loop_done(&tokend->loop);
    tokend_own_buf_free(&tokend->payload);
    tokend_own_buf_free(&tokend->frame);
    free(tokend);
    close(token);
    return 0;
}

/* Appends a request to what has come from the token. */
static void put(uint16_t which, const struct proc_value *values)
{
    const struct proc_op *op = proc_op_find(tokend_inner_table, which);
    att_autobuf payload = {0}, frame = {0};
    assert_int_equal(proc_msg_encode(&op->request, values, &payload, NULL), ATT_OK);
    assert_int_equal(proc_frame_encode(1, which, att_buf_slice(&payload), &frame, NULL), ATT_OK);
    assert_true(conn->in_len + frame.len <= sizeof conn->in);
    memcpy(conn->in + conn->in_len, frame.ptr, frame.len);
    conn->in_len += frame.len;
}

static void put_view(void)
{
    const struct proc_value values[] = {{.num = 0}};
    put(TOKEND_INNER_VIEW, values);
}

static void one_after_the_other_is_served(void **state)
{
    (void)state;
    static uint8_t answer[65536];
    for (int i = 0; i < 3; i++) {
        put_view();
        assert_true(tokend_conn_requests(conn));
        assert_int_equal(conn->in_len, 0);
        assert_int_equal(conn->wait, WAIT_NOTHING);
        /* what did not fit stays, and nothing else is taken meanwhile */
        ssize_t got = recv(token, answer, sizeof answer, 0);
        assert_true(got > 0);
        att_buf_done(&conn->out);
    }
}

/* An honest token waits for its answer. */
static void two_at_once_end_the_connection(void **state)
{
    (void)state;
    put_view();
    put_view();
    assert_false(tokend_conn_requests(conn));
}

/* It reads no answer: what waits to be sent is one answer, not as many as it asked for. */
static void no_request_while_an_answer_waits(void **state)
{
    (void)state;
    put_view();
    assert_true(tokend_conn_requests(conn));
    assert_true(conn->out.len > 0);
    put_view();
    assert_false(tokend_conn_requests(conn));
}

static void a_half_request_waits(void **state)
{
    (void)state;
    put_view();
    conn->in_len -= 1;
    assert_true(tokend_conn_requests(conn));
    assert_int_equal(conn->out.len, 0);
}

static void unknown_and_broken_requests_end_the_connection(void **state)
{
    (void)state;
    static const uint8_t unknown[] = {0, 0, 0, 6, 0, 0, 0, 1, 0, 9};
    static const uint8_t huge[] = {0xff, 0xff, 0xff, 0xff};
    static const uint8_t short_head[] = {0, 0, 0, 2, 0, 0};
    static const uint8_t reply[] = {0, 0, 0, 14, 0, 0, 0, 1, 0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0};
    const struct att_slice all[] = {ATT_SLICE_ARRAY(unknown), ATT_SLICE_ARRAY(huge),
                                    ATT_SLICE_ARRAY(short_head), ATT_SLICE_ARRAY(reply)};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        memcpy(conn->in, all[i].ptr, all[i].len);
        conn->in_len = all[i].len;
        assert_false(tokend_conn_requests(conn));
    }
}

/* A token without a slot has no agent to speak for. */
static void nobodys_token_asks_for_nothing(void **state)
{
    (void)state;
    static const uint8_t digest[32];
    const struct proc_value sign[] = {{.bytes = ATT_SLICE_LIT("00000000000000000000000000000000")},
                                      {.bytes = ATT_SLICE_ARRAY(digest)}};
    conn->agent = NULL;
    put_view();
    assert_false(tokend_conn_requests(conn));
    conn->in_len = 0;
    put(TOKEND_INNER_SIGN, sign);
    assert_false(tokend_conn_requests(conn));
    conn->agent = agent;
}

/* The caller has ended, and its token is told nothing more. */
static void no_signature_for_a_caller_that_has_ended(void **state)
{
    (void)state;
    if (getenv("ATT_VALGRIND")) {
        skip(); /* valgrind 3.19 has no pidfd_open */
    }
    static const uint8_t digest[32];
    const struct proc_value sign[] = {{.bytes = ATT_SLICE_LIT("00000000000000000000000000000000")},
                                      {.bytes = ATT_SLICE_ARRAY(digest)}};
    pid_t pid = fork();
    if (pid == 0) {
        _exit(0);
    }
    close(conn->pidfd);
    conn->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    siginfo_t info;
    assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0); /* a zombie */
    assert_false(tokend_caller_alive(conn));
    conn->same_at_ms = att_boottime_ms(); /* whod was asked just now */
    put(TOKEND_INNER_SIGN, sign);
    assert_false(tokend_conn_requests(conn));
    assert_int_equal(conn->wait, WAIT_NOTHING);
    assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED), 0);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(one_after_the_other_is_served),
        TEST(two_at_once_end_the_connection),
        TEST(no_request_while_an_answer_waits),
        TEST(a_half_request_waits),
        TEST(unknown_and_broken_requests_end_the_connection),
        TEST(nobodys_token_asks_for_nothing),
        TEST(no_signature_for_a_caller_that_has_ended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
