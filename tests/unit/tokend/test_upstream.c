/* The non-blocking client: refusals, restarts and fairness, against the product's own server. */
#include "attestd/tokend/upstream.h"

#include "attestd/base/clock.h"
#include "attestd/proc/sign_proto.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[64], path[96];
static struct tokend_loop loop;
static struct tokend_upstream *up;
static struct proc_server *server;
static atomic_int served, slow_ms;
static atomic_bool hold; /* calls for agents whose name begins with h are not answered */
static char order[64];

static enum att_rc sign(void *user, const struct proc_peer *peer, const struct proc_op *op,
                        const struct proc_msg *request, struct att_buf *ret_payload,
                        struct att_err *err)
{
    static const uint8_t signature[64] = {1};
    (void)user;
    (void)peer;
    struct att_slice agent = request->v[PROC_SIGN_REQ_AGENT].bytes;
    usleep((useconds_t)slow_ms * 1000);
    int n = atomic_fetch_add(&served, 1);
    if (n < (int)sizeof order - 1) {
        order[n] = (char)agent.ptr[0];
    }
    while (agent.ptr[0] == 'h' && atomic_load(&hold)) {
        usleep(1000);
    }
    if (agent.ptr[0] == 'x') {
        enum att_rc rc = att_fail(err, ATT_E_DENIED, "no");
        att_err_reason(err, "frozen");
        return rc;
    }
    const struct proc_value values[] = {{.bytes = ATT_SLICE_ARRAY(signature)}};
    return proc_reply_encode(op, values, ret_payload, err);
}

static void start_server(void)
{
    const struct proc_server_opts opts = {.path = path,
                                          .clients = {.uids = {geteuid()}, .count = 1},
                                          .table = proc_sign_table,
                                          .handler = sign,
                                          .frame_timeout_ms = 1000};
    assert_int_equal(proc_server_new(&opts, &server, NULL), ATT_OK);
    assert_int_equal(proc_server_start(server, NULL), ATT_OK);
}

static void stop_server(void)
{
    proc_server_free(server);
    server = NULL;
}

static uid_t expected; /* whose server it should be */

static void make_shared_upstream(unsigned links, unsigned each)
{
    const struct tokend_upstream_opts opts = {&loop,           path,  "keyd", expected,
                                              proc_sign_table, links, each,   400};
    assert_int_equal(tokend_upstream_new(&opts, &up, NULL), ATT_OK);
}

static void make_upstream(unsigned links)
{
    make_shared_upstream(links, 0);
}

struct answer {
    int count;
    enum att_rc rc;
    char reason[40];
};

static void done(void *user, enum att_rc rc, const struct proc_msg *reply,
                 const struct att_err *err)
{
    struct answer *answer = user;
    answer->count++;
    answer->rc = rc;
    assert_true((rc == ATT_OK) == (reply != NULL));
    snprintf(answer->reason, sizeof answer->reason, "%s", rc == ATT_OK ? "" : err->reason);
}

static struct tokend_call *call(const char *agent, struct tokend_fair *fair, int64_t timeout_ms,
                                struct answer *answer)
{
    static const uint8_t digest[32];
    struct tokend_call *made = NULL;
    const struct proc_value values[] = {
        {.bytes = att_slice_str(agent)},
        {.bytes = ATT_SLICE_LIT("00000000000000000000000000000000")},
        {.bytes = ATT_SLICE_ARRAY(digest)},
    };
    assert_int_equal(tokend_upstream_call(up, PROC_SIGN_SIGN, values, -1, fair, timeout_ms, done,
                                          answer, &made, NULL),
                     ATT_OK);
    assert_int_equal(answer->count, 0); /* never from inside the call */
    return made;
}

static void turn_until(const int *count, int want, int64_t most_ms)
{
    int64_t end = att_boottime_ms() + most_ms;
    while (*count < want && att_boottime_ms() < end) {
        tokend_loop_run(&loop, 20);
        tokend_upstream_tick(up);
    }
    assert_int_equal(*count, want);
}

static int setup(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/att-upstream.XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/sign.sock", folder);
    atomic_store(&served, 0);
    atomic_store(&slow_ms, 0);
    atomic_store(&hold, false);
    memset(order, 0, sizeof order);
    expected = geteuid();
    return tokend_loop_init(&loop, NULL) == ATT_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    atomic_store(&hold, false); /* also when a test failed */
    tokend_upstream_free(up);
    stop_server();
    tokend_loop_done(&loop);
    return rmdir(folder);
}

static void nobody_listens(void **state)
{
    (void)state;
    struct answer answer = {0};
    make_upstream(2);
    int64_t began = att_boottime_ms();
    call("agent", NULL, 5000, &answer);
    turn_until(&answer.count, 1, 60000);
    assert_int_equal(answer.rc, ATT_E_UNREACHABLE);
    assert_true(att_boottime_ms() - began >= 400); /* it waited for a restart */
}

static void a_bad_request_is_not_sent(void **state)
{
    (void)state;
    struct tokend_call *made = NULL;
    const struct proc_value values[3] = {0};
    make_upstream(1);
    assert_int_not_equal(
        tokend_upstream_call(up, PROC_SIGN_SIGN, values, -1, NULL, 1000, done, NULL, &made, NULL),
        ATT_OK);
    assert_null(made);
    assert_false(tokend_upstream_busy(up));
}

static void the_peers_error_comes_through(void **state)
{
    (void)state;
    struct answer answer = {0};
    start_server();
    make_upstream(2);
    call("x", NULL, 5000, &answer);
    turn_until(&answer.count, 1, 60000);
    assert_int_equal(answer.rc, ATT_E_DENIED);
    assert_string_equal(answer.reason, "frozen");
}

static void no_answer_in_time(void **state)
{
    (void)state;
    struct answer slow = {0}, next = {0};
    start_server();
    make_upstream(1);
    atomic_store(&slow_ms, 600);
    call("agent", NULL, 200, &slow);
    turn_until(&slow.count, 1, 2000);
    assert_int_equal(slow.rc, ATT_E_TIMEOUT);
    atomic_store(&slow_ms, 0);
    call("agent", NULL, 3000, &next); /* the late answer is not taken for this one's */
    turn_until(&next.count, 1, 60000);
    assert_int_equal(next.rc, ATT_OK);
}

static void a_restart_within_the_gap_is_not_noticed(void **state)
{
    (void)state;
    struct answer first = {0}, second = {0};
    start_server();
    make_upstream(2);
    call("agent", NULL, 5000, &first);
    turn_until(&first.count, 1, 60000);
    stop_server();
    call("agent", NULL, 5000, &second);
    int64_t until = att_boottime_ms() + 150;
    while (att_boottime_ms() < until) {
        tokend_loop_run(&loop, 20);
        tokend_upstream_tick(up);
    }
    assert_int_equal(second.count, 0);
    start_server();
    turn_until(&second.count, 1, 60000);
    assert_int_equal(second.rc, ATT_OK);
}

static void a_forgotten_call_answers_nobody(void **state)
{
    (void)state;
    struct answer forgotten = {0}, next = {0};
    start_server();
    make_upstream(1);
    atomic_store(&slow_ms, 100);
    tokend_call_forget(call("agent", NULL, 5000, &forgotten));
    call("agent", NULL, 5000, &next);
    turn_until(&next.count, 1, 60000);
    assert_int_equal(next.rc, ATT_OK);
    assert_int_equal(forgotten.count, 0);
}

/* One agent with many requests does not hold up another's single one. */
static void the_queue_is_fair(void **state)
{
    (void)state;
    struct tokend_fair loud = {0}, quiet = {0};
    struct answer answers[9] = {{0}};
    start_server();
    make_upstream(1);
    atomic_store(&slow_ms, 20);
    for (int i = 0; i < 8; i++) {
        call("loud", &loud, 5000, &answers[i]);
    }
    call("quiet", &quiet, 5000, &answers[8]);
    for (int i = 0; i < 9; i++) {
        turn_until(&answers[i].count, 1, 60000);
    }
    const char *at = strchr(order, 'q');
    assert_non_null(at);
    assert_true(at - order <= 1);
}

/* Turns until the other side has begun with so many. */
static void turn_until_served(int want)
{
    int64_t end = att_boottime_ms() + 60000;
    while (atomic_load(&served) < want && att_boottime_ms() < end) {
        tokend_loop_run(&loop, 5);
        tokend_upstream_tick(up);
    }
    assert_int_equal(atomic_load(&served), want);
}

/* A user whose executable lies on a file system that does not answer, with more callers than there
 * are links: whoever else comes is answered meanwhile. */
static void one_user_does_not_hold_all_links(void **state)
{
    (void)state;
    struct tokend_fair hanging = {0}, quiet = {0};
    struct answer hung[8] = {{0}}, answer = {0};
    start_server();
    make_shared_upstream(4, 1);
    atomic_store(&hold, true);
    for (int i = 0; i < 8; i++) {
        call("hanging", &hanging, 20000, &hung[i]);
    }
    turn_until_served(1);
    call("quiet", &quiet, 20000, &answer);
    turn_until(&answer.count, 1, 60000);
    assert_int_equal(answer.rc, ATT_OK);
    assert_string_equal(order, "hq");
    atomic_store(&hold, false);
    for (int i = 0; i < 8; i++) {
        turn_until(&hung[i].count, 1, 5000);
        assert_int_equal(hung[i].rc, ATT_OK);
    }
}

/* … also when these callers end and come anew each time. */
static void a_forgotten_call_keeps_its_share(void **state)
{
    (void)state;
    struct tokend_fair hanging = {0}, quiet = {0};
    struct answer hung[4] = {{0}}, answer = {0};
    start_server();
    make_shared_upstream(2, 1);
    atomic_store(&hold, true);
    for (int i = 0; i < 4; i++) {
        struct tokend_call *made = call("hanging", &hanging, 20000, &hung[i]);
        turn_until_served(1);
        tokend_call_forget(made);
    }
    call("quiet", &quiet, 20000, &answer);
    turn_until(&answer.count, 1, 60000);
    assert_string_equal(order, "hq");
    atomic_store(&hold, false);
}

/* What nobody waits for any more is not sent: connecting and ending in a loop jumps no queue. */
static void a_forgotten_call_is_not_sent(void **state)
{
    (void)state;
    struct tokend_fair first = {0}, gone = {0}, last = {0};
    struct answer answers[3] = {{0}};
    start_server();
    make_upstream(1);
    atomic_store(&hold, true);
    call("h", &first, 5000, &answers[0]);
    turn_until_served(1);
    struct tokend_call *made = call("gone", &gone, 5000, &answers[1]);
    call("last", &last, 5000, &answers[2]);
    tokend_call_forget(made);
    atomic_store(&hold, false);
    /* no tick in between, which would take it away */
    for (int64_t end = att_boottime_ms() + 60000; !answers[2].count && att_boottime_ms() < end;) {
        tokend_loop_run(&loop, 20);
    }
    assert_int_equal(answers[2].count, 1);
    assert_string_equal(order, "hl");
    assert_int_equal(answers[1].count, 0);
}

/* A peer that answers and goes on unasked: nothing of it is taken for an answer. */
static void *babble(void *arg)
{
    static const uint8_t signature[64] = {1};
    const int *listener = arg;
    for (;;) {
        att_autobuf in = {0}, payload = {0}, out = {0};
        struct proc_frame frame;
        const struct proc_value values[] = {{.bytes = ATT_SLICE_ARRAY(signature)}};
        int fd = accept(*listener, NULL, NULL);
        if (fd < 0) {
            return NULL;
        }
        if (proc_frame_recv(fd, &in, -1, NULL) == ATT_OK &&
            proc_frame_parse(att_buf_slice(&in), &frame, NULL) == ATT_OK &&
            proc_reply_encode(proc_op_find(proc_sign_table, PROC_SIGN_SIGN), values, &payload,
                              NULL) == ATT_OK &&
            proc_frame_encode(frame.id, PROC_SIGN_SIGN | PROC_REPLY, att_buf_slice(&payload), &out,
                              NULL) == ATT_OK) {
            atomic_fetch_add(&served, 1);
            att_buf_u8(&out, 0);
            (void)!proc_frame_send(fd, att_buf_slice(&out), -1, NULL);
        }
        close(fd);
    }
}

static void more_than_an_answer_is_none(void **state)
{
    (void)state;
    struct answer answer = {0};
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    pthread_t thread;
    memcpy(addr.sun_path, path, strlen(path));
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (const struct sockaddr *)&addr, sizeof addr), 0);
    assert_int_equal(listen(listener, 8), 0);
    assert_int_equal(pthread_create(&thread, NULL, babble, &listener), 0);
    make_upstream(1);
    call("agent", NULL, 5000, &answer);
    turn_until(&answer.count, 1, 60000);
    assert_int_equal(answer.rc, ATT_E_UNREACHABLE);
    assert_int_equal(atomic_load(&served), 3); /* it was tried again, and given up */
    shutdown(listener, SHUT_RDWR);
    pthread_join(thread, NULL);
    close(listener);
    unlink(path);
}

/* With several links, too, as tokend has them to keyd: of the loud one's calls some are under way,
 * and the quiet one's is next. */
static void the_queue_is_fair_over_links(void **state)
{
    (void)state;
    struct tokend_fair loud = {0}, quiet = {0};
    struct answer answers[9] = {{0}};
    start_server();
    make_shared_upstream(4, 2);
    atomic_store(&hold, true);
    for (int i = 0; i < 8; i++) {
        call("h", &loud, 20000, &answers[i]);
    }
    turn_until_served(2);
    call("quiet", &quiet, 20000, &answers[8]);
    turn_until(&answers[8].count, 1, 60000);
    assert_string_equal(order, "hhq");
    atomic_store(&hold, false);
    for (int i = 0; i < 8; i++) {
        turn_until(&answers[i].count, 1, 5000);
    }
}

/* Somebody else's server: as root another user's, else our own, where another's is expected. It
 * ends with 1 when anything at all was written to it. */
static pid_t rogue(int *ret_ready)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct sockaddr_un addr = {.sun_family = AF_UNIX};
        char byte = 0;
        memcpy(addr.sun_path, path, strlen(path));
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        if ((geteuid() == 0 && setresuid(65534, 65534, 65534) != 0) ||
            bind(fd, (struct sockaddr *)&addr, sizeof addr) != 0 || chmod(path, 0777) != 0 ||
            listen(fd, 8) != 0 || write(ends[1], "", 1) != 1) {
            _exit(2);
        }
        for (int conn; (conn = accept(fd, NULL, NULL)) >= 0; close(conn)) {
            if (recv(conn, &byte, 1, 0) > 0) {
                _exit(1);
            }
        }
        _exit(0);
    }
    close(ends[1]);
    *ret_ready = ends[0];
    return pid;
}

/* … is told nothing, not even that there is something to sign; the right one, when it comes, is. */
static void a_foreign_server_is_asked_nothing(void **state)
{
    (void)state;
    struct answer answer = {0}, next = {0};
    char byte;
    int ready, status;
    assert_int_equal(chmod(folder, 0777), 0);
    expected = geteuid() == 0 ? 0 : geteuid() + 1;
    pid_t pid = rogue(&ready);
    assert_int_equal(read(ready, &byte, 1), 1);
    close(ready);
    make_upstream(2);
    int64_t began = att_boottime_ms();
    call("agent", NULL, 5000, &answer);
    turn_until(&answer.count, 1, 60000);
    assert_int_equal(answer.rc, ATT_E_UNREACHABLE); /* not "denied", which would mean the caller */
    assert_string_equal(answer.reason, "foreignServer");
    assert_true(att_boottime_ms() - began >= 400); /* it waited for the right one */
    assert_int_equal(waitpid(pid, &status, WNOHANG), 0);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(unlink(path), 0);
    if (geteuid() == 0) {
        start_server();
        call("agent", NULL, 5000, &next);
        turn_until(&next.count, 1, 60000);
        assert_int_equal(next.rc, ATT_OK);
    }
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(nobody_listens),
        TEST(a_foreign_server_is_asked_nothing),
        TEST(a_bad_request_is_not_sent),
        TEST(the_peers_error_comes_through),
        TEST(no_answer_in_time),
        TEST(a_restart_within_the_gap_is_not_noticed),
        TEST(a_forgotten_call_answers_nobody),
        TEST(the_queue_is_fair),
        TEST(one_user_does_not_hold_all_links),
        TEST(a_forgotten_call_keeps_its_share),
        TEST(a_forgotten_call_is_not_sent),
        TEST(the_queue_is_fair_over_links),
        TEST(more_than_an_answer_is_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
