/* Questions from an event loop: answered in it, one of somebody at a time, forgotten ones not at
 * all, and nobody is asked who serves in another's place. Real sockets and proc_server. */
#include "attestd/base/clock.h"
#include "attestd/proc/workload_proto.h"
#include "attestd/spiffe/ask.h"

#include <event2/event.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define FOREIGN 65534

static char dir[64], path[128];
static struct event_base *base;
static struct proc_server *server;
static atomic_int under_way, most, waiting, asked, asked_nobody; /* the last: its place in asked */
static atomic_bool hold; /* what is asked is answered when this is off */

static enum att_rc answer(void *user, const struct proc_peer *peer, const struct proc_op *op,
                          const struct proc_msg *request, struct att_buf *ret_payload,
                          struct att_err *err)
{
    (void)user;
    (void)peer;
    int place = atomic_fetch_add(&asked, 1) + 1;
    if (att_slice_eq_str(request->v[PROC_WORKLOAD_VIEW_REQ_AGENT].bytes, "nobody")) {
        atomic_store(&asked_nobody, place);
    }
    int now = atomic_fetch_add(&under_way, 1) + 1, before = atomic_load(&most);
    while (now > before && !atomic_compare_exchange_weak(&most, &before, now)) {
    }
    atomic_fetch_add(&waiting, 1);
    while (atomic_load(&hold)) {
        usleep(1000);
    }
    atomic_fetch_sub(&waiting, 1);
    atomic_fetch_sub(&under_way, 1);
    if (att_slice_eq_str(request->v[PROC_WORKLOAD_VIEW_REQ_AGENT].bytes, "nobody")) {
        (void)!att_fail(err, ATT_E_DENIED, "no");
        att_err_reason(err, "notAssigned");
        return ATT_E_DENIED;
    }
    const struct proc_value reply[] = {[PROC_WORKLOAD_CHANGES_REP_ENTRIES] = {.num = 7}};
    return op->op == PROC_WORKLOAD_CHANGES ? proc_reply_encode(op, reply, ret_payload, err)
                                           : att_fail(err, ATT_E_NOTFOUND, "nothing");
}

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/att-ask.XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/s", dir);
    base = event_base_new();
    atomic_store(&hold, false);
    atomic_store(&most, 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    atomic_store(&hold, false);
    proc_server_free(server);
    server = NULL;
    event_base_free(base);
    unlink(path);
    rmdir(dir);
    return 0;
}

static void serve(void)
{
    const struct proc_server_opts opts = {.path = path,
                                          .clients = {.uids = {geteuid()}, .count = 1},
                                          .table = proc_workload_table,
                                          .handler = answer,
                                          .frame_timeout_ms = 5000};
    assert_int_equal(proc_server_new(&opts, &server, NULL), ATT_OK);
    assert_int_equal(proc_server_start(server, NULL), ATT_OK);
}

static struct ask *make(unsigned threads)
{
    const struct ask_opts opts = {base,  path,   "attestd", geteuid(), proc_workload_table,
                                  10000, threads};
    struct ask *ask = NULL;
    assert_int_equal(ask_new(&opts, &ask, NULL), ATT_OK);
    return ask;
}

struct heard {
    unsigned n;
    enum att_rc rc;
    uint64_t entries;
    char reason[40];
    pthread_t thread;
};

static void done(void *user, enum att_rc rc, const struct proc_msg *reply,
                 const struct att_err *err)
{
    struct heard *heard = user;
    heard->n++;
    heard->rc = rc;
    heard->thread = pthread_self();
    heard->entries = reply ? reply->v[0].num : 0;
    snprintf(heard->reason, sizeof heard->reason, "%s", err->reason);
}

static struct ask_call *put(struct ask *ask, const char *agent, const void *of, struct heard *heard)
{
    struct ask_call *call = NULL;
    const struct proc_value view[] = {proc_text(agent ? agent : "")}, changes[] = {{.num = 1}};
    assert_int_equal(ask_call(ask, agent ? PROC_WORKLOAD_VIEW : PROC_WORKLOAD_CHANGES,
                              agent ? view : changes, 1, -1, of, done, heard, &call, NULL),
                     ATT_OK);
    return call;
}

static void wait_for(const struct heard *heard, unsigned n)
{
    for (int64_t until = att_boottime_ms() + 60000; heard->n < n;) {
        const struct timeval moment = {0, 10000};
        assert_true(att_boottime_ms() < until);
        event_base_loopexit(base, &moment);
        event_base_dispatch(base);
    }
}

static void wait_until(atomic_int *value, int wanted)
{
    for (int64_t until = att_boottime_ms() + 60000; atomic_load(value) != wanted;) {
        assert_true(att_boottime_ms() < until);
        usleep(1000);
    }
}

static void answers_and_refusals_come_in_the_loop(void **state)
{
    struct heard heard = {0}, refused = {0};
    (void)state;
    serve();
    struct ask *ask = make(2);
    put(ask, NULL, NULL, &heard);
    put(ask, "nobody", NULL, &refused);
    wait_for(&heard, 1);
    wait_for(&refused, 1);
    assert_int_equal(heard.rc, ATT_OK);
    assert_int_equal(heard.entries, 7);
    assert_true(pthread_equal(heard.thread, pthread_self()));
    assert_int_equal(refused.rc, ATT_E_DENIED); /* the peer's own word */
    assert_string_equal(refused.reason, "notAssigned");
    ask_free(ask);
}

static void one_of_somebody_at_a_time_and_others_go_ahead(void **state)
{
    struct heard first = {0}, other = {0};
    int somebody, another;
    (void)state;
    serve();
    struct ask *ask = make(3);
    atomic_store(&hold, true);
    for (int i = 0; i < 5; i++) {
        put(ask, NULL, &somebody, &first);
    }
    wait_until(&waiting, 1);
    put(ask, NULL, &another, &other); /* behind four of the same */
    wait_until(&waiting, 2);
    atomic_store(&hold, false);
    wait_for(&other, 1);
    wait_for(&first, 5);
    assert_int_equal(atomic_load(&most), 2);
    ask_free(ask);
}

static void who_is_forgotten_hears_nothing(void **state)
{
    struct heard gone = {0}, heard = {0};
    (void)state;
    serve();
    struct ask *ask = make(1);
    atomic_store(&hold, true);
    struct ask_call *first = put(ask, NULL, NULL, &gone), *second = put(ask, NULL, NULL, &gone);
    wait_until(&waiting, 1);
    assert_false(ask_waits(first));
    assert_true(ask_waits(second));
    ask_forget(first);  /* under way */
    ask_forget(second); /* in the queue */
    ask_forget(NULL);
    atomic_store(&hold, false);
    put(ask, NULL, NULL, &heard);
    wait_for(&heard, 1);
    assert_int_equal(gone.n, 0);
    ask_free(ask);
}

/* One has all that he may have in the queue, and there is one thread. */
static void who_came_later_is_not_behind_all_of_another(void **state)
{
    struct heard many = {0}, other = {0};
    int somebody, another;
    (void)state;
    serve();
    struct ask *ask = make(1);
    atomic_store(&hold, true);
    put(ask, NULL, &somebody, &many);
    wait_until(&waiting, 1);
    for (int i = 0; i < ASK_EACH_MAX; i++) {
        put(ask, NULL, &somebody, &many);
    }
    atomic_store(&asked, 0);
    put(ask, "nobody", &another, &other);
    atomic_store(&hold, false);
    wait_for(&other, 1);
    assert_in_range(atomic_load(&asked_nobody), 1, 3);
    wait_for(&many, ASK_EACH_MAX + 1);
    ask_free(ask);
}

static void what_is_forgotten_before_it_is_sent_is_not_sent(void **state)
{
    struct heard gone = {0}, heard = {0};
    struct ask_call *calls[16];
    int somebody;
    (void)state;
    serve();
    struct ask *ask = make(1);
    atomic_store(&hold, true);
    put(ask, NULL, &somebody, &heard);
    wait_until(&waiting, 1);
    for (size_t i = 0; i < 16; i++) {
        calls[i] = put(ask, NULL, &somebody, &gone);
    }
    atomic_store(&asked, 0);
    for (size_t i = 0; i < 16; i++) {
        ask_forget(calls[(i * 5) % 16]); /* also the last and the first of the queue */
    }
    put(ask, NULL, &somebody, &heard);
    atomic_store(&hold, false);
    wait_for(&heard, 2);
    assert_int_equal(atomic_load(&asked), 1);
    assert_int_equal(gone.n, 0);
    ask_free(ask);
}

static void a_full_queue_refuses(void **state)
{
    struct heard heard = {0};
    struct ask_call *call = NULL;
    struct att_err err = {0};
    const struct proc_value values[] = {{.num = 1}};
    (void)state;
    serve();
    struct ask *ask = make(1);
    atomic_store(&hold, true);
    put(ask, NULL, NULL, &heard);
    wait_until(&waiting, 1);
    for (int i = 0; i < ASK_WAITING_MAX; i++) {
        put(ask, NULL, NULL, &heard);
    }
    assert_int_equal(
        ask_call(ask, PROC_WORKLOAD_CHANGES, values, 1, -1, NULL, done, &heard, &call, &err),
        ATT_E_LIMIT);
    assert_null(call);
    atomic_store(&hold, false);
    wait_for(&heard, ASK_WAITING_MAX + 1);
    ask_free(ask);
}

static void nobody_fills_the_queue_for_others(void **state)
{
    struct heard heard = {0}, other = {0};
    struct ask_call *call = NULL;
    int somebody, another;
    const struct proc_value values[] = {{.num = 1}};
    (void)state;
    serve();
    struct ask *ask = make(1);
    atomic_store(&hold, true);
    put(ask, NULL, &somebody, &heard);
    wait_until(&waiting, 1);
    for (int i = 0; i < ASK_EACH_MAX; i++) {
        put(ask, NULL, &somebody, &heard);
    }
    assert_int_equal(
        ask_call(ask, PROC_WORKLOAD_CHANGES, values, 1, -1, &somebody, done, &heard, &call, NULL),
        ATT_E_LIMIT);
    put(ask, NULL, &another, &other);
    atomic_store(&hold, false);
    wait_for(&other, 1);
    wait_for(&heard, ASK_EACH_MAX + 1);
    ask_free(ask);
}

static void nobody_there_is_unreachable(void **state)
{
    struct heard heard = {0};
    (void)state;
    struct ask *ask = make(1);
    put(ask, NULL, NULL, &heard);
    wait_for(&heard, 1);
    assert_int_equal(heard.rc, ATT_E_UNREACHABLE);
    ask_free(ask);
}

/* Another user's process at the socket: 1 if it was asked something. */
static _Noreturn void be_foreign(int ready)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    char byte;
    snprintf(addr.sun_path, sizeof addr.sun_path, "%.100s", path);
    if (bind(fd, (const struct sockaddr *)&addr, sizeof addr) != 0 ||
        setresuid(FOREIGN, FOREIGN, FOREIGN) != 0 || listen(fd, 8) != 0 ||
        write(ready, "r", 1) != 1) {
        _exit(2);
    }
    int client = accept(fd, NULL, NULL);
    _exit(client >= 0 && read(client, &byte, 1) > 0);
}

static void a_foreign_server_is_asked_nothing_and_says_nothing(void **state)
{
    struct heard heard = {0};
    int ready[2], status = 0;
    char byte;
    (void)state;
    if (geteuid() != 0) {
        skip();
    }
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        be_foreign(ready[1]);
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    struct ask *ask = make(1);
    put(ask, "nobody", NULL, &heard);
    wait_for(&heard, 1);
    assert_int_equal(heard.rc, ATT_E_UNREACHABLE);
    assert_string_equal(heard.reason, "foreignServer");
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    ask_free(ask);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(answers_and_refusals_come_in_the_loop, setup, teardown),
        cmocka_unit_test_setup_teardown(one_of_somebody_at_a_time_and_others_go_ahead, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(who_is_forgotten_hears_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(who_came_later_is_not_behind_all_of_another, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(what_is_forgotten_before_it_is_sent_is_not_sent, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_full_queue_refuses, setup, teardown),
        cmocka_unit_test_setup_teardown(nobody_fills_the_queue_for_others, setup, teardown),
        cmocka_unit_test_setup_teardown(nobody_there_is_unreachable, setup, teardown),
        cmocka_unit_test_setup_teardown(a_foreign_server_is_asked_nothing_and_says_nothing, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
