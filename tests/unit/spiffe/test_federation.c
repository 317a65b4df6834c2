/* What spiffed makes of attestd's answers to FEDERATION: the whole set of a view or the one of
 * before, never a part of one. Real sockets and proc_server. */
#include "attestd/base/clock.h"
#include "attestd/proc/workload_proto.h"
#include "attestd/spiffe/service.h"

#include <event2/event.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* SEQUENCE { OCTET STRING of 3 bytes }: as much of a certificate as is looked at here. */
static const uint8_t root[] = {0x30, 0x05, 0x04, 0x03, 1, 2, 3};

/* The view of attestd, and what goes wrong with it. */
static struct {
    pthread_mutex_t lock;
    uint64_t number;
    size_t n;           /* trust domains d0.example … */
    size_t fails_at;    /* this index is not answered; SIZE_MAX: all are */
    size_t changes_at;  /* from this index on it is another view */
    size_t cut_root_at; /* its root lacks a byte */
    unsigned asked;
} view = {.lock = PTHREAD_MUTEX_INITIALIZER};

static char dir[64], path[128];
static struct event_base *base;
static struct proc_server *server;
static struct spiffed *spiffed;
static struct agent alpha;

static enum att_rc answer(void *user, const struct proc_peer *peer, const struct proc_op *op,
                          const struct proc_msg *request, struct att_buf *ret_payload,
                          struct att_err *err)
{
    char name[32];
    (void)user;
    (void)peer;
    size_t index = (size_t)request->v[PROC_WORKLOAD_FEDERATION_REQ_INDEX].num;
    pthread_mutex_lock(&view.lock);
    size_t n = view.n;
    bool fails = index >= view.fails_at;
    uint64_t number = view.number + (index >= view.changes_at);
    const struct att_slice der = ATT_SLICE(root, sizeof root - (index == view.cut_root_at ? 1 : 0));
    view.asked++;
    pthread_mutex_unlock(&view.lock);
    if (fails || (index >= n && index > 0)) {
        return att_fail(err, fails ? ATT_E_UNREACHABLE : ATT_E_INVAL, "no");
    }
    snprintf(name, sizeof name, n ? "d%zu.example" : "", index);
    const struct proc_value reply[] = {
        [PROC_WORKLOAD_FEDERATION_REP_NUMBER] = proc_num(number),
        [PROC_WORKLOAD_FEDERATION_REP_COUNT] = proc_num(n),
        [PROC_WORKLOAD_FEDERATION_REP_TRUST_DOMAIN] = proc_text(name),
        [PROC_WORKLOAD_FEDERATION_REP_ROOTS] = {.items = &der, .item_count = n ? 1 : 0},
        [PROC_WORKLOAD_FEDERATION_REP_KEYS] = proc_bytes(att_slice_str("{\"keys\":[]}")),
        [PROC_WORKLOAD_FEDERATION_REP_AGENTS] = proc_bytes(att_slice_str(n ? "alpha\n" : ""))};
    return proc_reply_encode(op, reply, ret_payload, err);
}

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/att-fed.XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/s", dir);
    base = event_base_new();
    const struct proc_server_opts opts = {.path = path,
                                          .clients = {.uids = {geteuid()}, .count = 1},
                                          .table = proc_workload_table,
                                          .handler = answer,
                                          .frame_timeout_ms = 5000};
    assert_int_equal(proc_server_new(&opts, &server, NULL), ATT_OK);
    assert_int_equal(proc_server_start(server, NULL), ATT_OK);
    spiffed = calloc(1, sizeof *spiffed);
    assert_non_null(spiffed);
    const struct ask_opts to = {base, path, "attestd", geteuid(), proc_workload_table, 10000, 1};
    assert_int_equal(ask_new(&to, &spiffed->views, NULL), ATT_OK);
    snprintf(alpha.name, sizeof alpha.name, "alpha");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    spiffed_federation_done(&spiffed->federation);
    ask_free(spiffed->views);
    proc_server_free(server);
    free(spiffed);
    event_base_free(base);
    unlink(path);
    rmdir(dir);
    return 0;
}

static void see(uint64_t number, size_t n)
{
    pthread_mutex_lock(&view.lock);
    view.number = number;
    view.n = n;
    view.fails_at = view.changes_at = view.cut_root_at = SIZE_MAX;
    view.asked = 0;
    pthread_mutex_unlock(&view.lock);
}

/* attestd says that something has changed; until nothing is asked any more. */
static void look(void)
{
    spiffed->standing++;
    spiffed->federation.retry_ms = 0;
    spiffed_federation_refresh(spiffed);
    for (int64_t until = att_boottime_ms() + 60000; spiffed->federation.asking;) {
        const struct timeval moment = {0, 10000};
        assert_true(att_boottime_ms() < until);
        event_base_loopexit(base, &moment);
        event_base_dispatch(base);
    }
}

static size_t given(void)
{
    size_t at = 0, n = 0;
    while (spiffed_federated(spiffed, &alpha, &at)) {
        n++;
    }
    return n;
}

static void is(size_t n, uint64_t number)
{
    assert_int_equal(given(), n);
    assert_int_equal(spiffed->federation.number, number);
    assert_null(spiffed->federation.coming);
}

static void whole(void **state)
{
    (void)state;
    see(5, 3);
    look();
    is(3, 5);
    assert_int_equal(view.asked, 3);
    assert_true(spiffed_federation_known(spiffed));
    see(9, 0); /* a view that lacks the part */
    look();
    is(0, 9);
}

static void not_answered(void **state)
{
    (void)state;
    see(5, 2);
    look();
    is(2, 5);
    uint64_t roots = spiffed_federated_roots(spiffed, &alpha);
    for (size_t i = 0; i < 3; i++) {
        see(7, 3);
        view.fails_at = i;
        look();
        assert_int_equal(view.asked, i + 1);
        is(2, 5);
        assert_int_equal(spiffed_federated_roots(spiffed, &alpha), roots);
        assert_true(spiffed->federation.retry_ms > 0); /* asked again by itself */
    }
    see(7, 3);
    look();
    is(3, 7);
    assert_true(spiffed_federated_roots(spiffed, &alpha) != roots);
}

/* Nothing is known before the first whole set. */
static void first_not_answered(void **state)
{
    (void)state;
    see(5, 2);
    view.fails_at = 1;
    look();
    assert_int_equal(given(), 0);
    assert_false(spiffed_federation_known(spiffed));
    see(5, 2);
    look();
    is(2, 5);
}

/* Another view came in between: none of two halves. */
static void two_views(void **state)
{
    (void)state;
    see(5, 2);
    look();
    for (size_t i = 1; i < 4; i++) {
        see(7, 4);
        view.changes_at = i;
        look();
        is(2, 5);
    }
    /* attestd has just started and knows none yet: what it said before holds. */
    see(0, 0);
    look();
    is(2, 5);
}

static void cut_root(void **state)
{
    (void)state;
    see(5, 2);
    look();
    see(7, 3);
    view.cut_root_at = 2;
    look();
    is(2, 5);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(whole), TEST(not_answered), TEST(first_not_answered),
                                       TEST(two_views), TEST(cut_root)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
