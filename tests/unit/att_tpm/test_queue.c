/* tpm/queue: order, fairness, deadlines, limits, and a TPM that goes away. */
#include "tests/unit/att_tpm/common.h"
#include "tpm/queue.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

static pthread_mutex_t order_lock = PTHREAD_MUTEX_INITIALIZER;
static char order[512];

static void sleep_ms(long ms)
{
    struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000};
    (void)nanosleep(&ts, NULL);
}

static enum att_rc note(struct tpm_context *ctx, void *arg, struct att_err *err)
{
    (void)ctx;
    (void)err;
    (void)pthread_mutex_lock(&order_lock);
    (void)strncat(order, arg, sizeof(order) - strlen(order) - 1);
    (void)pthread_mutex_unlock(&order_lock);
    return ATT_OK;
}

static atomic_bool gate_open, gate_entered;

static enum att_rc hold(struct tpm_context *ctx, void *arg, struct att_err *err)
{
    (void)ctx;
    (void)arg;
    (void)err;
    gate_entered = true;
    while (!gate_open) {
        sleep_ms(1);
    }
    return ATT_OK;
}

static enum att_rc clock_job(struct tpm_context *ctx, void *arg, struct att_err *err)
{
    return tpm_context_clock(ctx, arg, err);
}

static enum att_rc fail_job(struct tpm_context *ctx, void *arg, struct att_err *err)
{
    (void)ctx;
    (void)arg;
    return att_fail(err, ATT_E_DENIED, "no");
}

struct call {
    struct tpm_queue *queue;
    enum tpm_prio prio;
    const char *agent;
    int64_t deadline_ms;
    tpm_queue_fn *fn;
    char text[16];
    enum att_rc rc;
    struct att_err err;
    pthread_t thread;
};

static void *run_call(void *arg)
{
    struct call *c = arg;
    c->rc = tpm_queue_run(c->queue, TPM_OP_SIGN, c->prio, c->agent, c->deadline_ms, c->fn, c->text,
                          &c->err);
    return NULL;
}

/* Changes when a job is in the queue, or has been until its deadline. */
static size_t waited(struct tpm_queue *queue)
{
    struct tpm_queue_stats stats;
    tpm_queue_stats(queue, &stats);
    return stats.waiting + stats.timeouts;
}

/* Starts a call in a thread of its own and returns once it waits in the queue, or has waited. */
static void start(struct call *c, struct tpm_queue *queue, enum tpm_prio prio, const char *agent,
                  int64_t in_ms, tpm_queue_fn *fn, const char *text)
{
    size_t before = waited(queue);
    *c = (struct call){.queue = queue,
                       .prio = prio,
                       .agent = agent,
                       .deadline_ms = att_boottime_ms() + in_ms,
                       .fn = fn};
    (void)snprintf(c->text, sizeof(c->text), "%s", text);
    assert_int_equal(pthread_create(&c->thread, NULL, run_call, c), 0);
    if (fn == hold) {
        while (!gate_entered) {
            sleep_ms(1);
        }
        return;
    }
    while (waited(queue) == before) {
        sleep_ms(1);
    }
}

static enum att_rc join(struct call *c)
{
    assert_int_equal(pthread_join(c->thread, NULL), 0);
    return c->rc;
}

static struct tpm_queue *new_queue(size_t max_len)
{
    struct tpm_queue *queue = NULL;
    gate_open = gate_entered = false;
    order[0] = '\0';
    assert_ok(tpm_queue_new(open_tpm(&the_tpm), max_len, &queue, err));
    return queue;
}

static void deadlines_pass(void **state)
{
    struct tpm_queue *queue = new_queue(0);
    struct call holder, late;
    struct tpm_queue_stats stats;
    (void)state;
    assert_refused(tpm_queue_run(queue, TPM_OP_SIGN, TPM_PRIO_RENEWAL, "a", att_boottime_ms() - 1,
                                 note, "x", err),
                   ATT_E_TIMEOUT, "");
    start(&holder, queue, TPM_PRIO_HANDSHAKE, "h", 60000, hold, "");
    start(&late, queue, TPM_PRIO_HANDSHAKE, "a", 50, note, "never");
    int64_t before = att_boottime_ms();
    assert_int_equal(join(&late), ATT_E_TIMEOUT);
    assert_true(att_boottime_ms() - before < 50000); /* not for the one before it */
    assert_int_equal(late.err.rc, ATT_E_TIMEOUT);
    gate_open = true;
    assert_int_equal(join(&holder), ATT_OK);
    assert_string_equal(order, "");
    tpm_queue_stats(queue, &stats);
    assert_int_equal(stats.timeouts, 2);
    assert_int_equal(stats.waiting, 0);
    tpm_queue_free(queue);
}

/* A command that is never answered: nobody else waits for it, and the statistics tell. */
static void a_silent_tpm_is_said(void **state)
{
    struct tpm_queue *queue = new_queue(0);
    struct call holder, waits;
    struct tpm_queue_stats stats;
    (void)state;
    tpm_queue_set_stuck_ms(queue, 600000);
    tpm_queue_stats(queue, &stats);
    assert_false(stats.stuck);
    assert_int_equal(stats.running_ms, 0);
    start(&holder, queue, TPM_PRIO_HANDSHAKE, "h", 100, hold, "");
    start(&waits, queue, TPM_PRIO_HANDSHAKE, "a", 3000, note, "never");
    tpm_queue_stats(queue, &stats);
    assert_false(stats.stuck);
    assert_true(stats.running_ms > 0);
    tpm_queue_set_stuck_ms(queue, 200); /* over long before the one that waits gives up */
    assert_int_equal(join(&waits), ATT_E_TIMEOUT);
    assert_string_equal(waits.err.reason, "tpmSilent");
    int64_t before = att_boottime_ms();
    assert_refused(
        tpm_queue_run(queue, TPM_OP_QUOTE, TPM_PRIO_RENEWAL, "b", before + 60000, note, "x", err),
        ATT_E_TIMEOUT, "tpmSilent");
    assert_true(att_boottime_ms() - before < 50000); /* at once, not at its deadline */
    tpm_queue_stats(queue, &stats);
    assert_true(stats.stuck);
    assert_int_equal(stats.running, TPM_OP_SIGN);
    assert_int_equal(stats.waiting, 0);
    gate_open = true;
    assert_int_equal(join(&holder), ATT_OK);
    assert_ok(tpm_queue_run(queue, TPM_OP_SIGN, TPM_PRIO_RENEWAL, "b", att_boottime_ms() + 60000,
                            note, "y", err));
    assert_string_equal(order, "y");
    tpm_queue_stats(queue, &stats);
    assert_false(stats.stuck);
    tpm_queue_free(queue);
}

static void limits_hold(void **state)
{
    struct tpm_queue *queue = new_queue(3);
    struct call holder, calls[3], extra;
    (void)state;
    start(&holder, queue, TPM_PRIO_HANDSHAKE, "h", 60000, hold, "");
    for (size_t i = 0; i < 3; i++) {
        start(&calls[i], queue, TPM_PRIO_RENEWAL, "a", 60000, note, "a");
    }
    extra = (struct call){.queue = queue,
                          .agent = "b",
                          .deadline_ms = att_boottime_ms() + 1000,
                          .fn = note,
                          .text = "b"};
    (void)run_call(&extra);
    assert_int_equal(extra.rc, ATT_E_LIMIT);
    gate_open = true;
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(join(&calls[i]), ATT_OK);
    }
    assert_int_equal(join(&holder), ATT_OK);
    assert_string_equal(order, "aaa");
    tpm_queue_free(queue);
}

static void one_agent_cannot_fill_it(void **state)
{
    struct tpm_queue *queue = new_queue(0);
    struct call holder, extra;
    struct call *calls = calloc(TPM_QUEUE_AGENT_MAX, sizeof(*calls));
    (void)state;
    start(&holder, queue, TPM_PRIO_HANDSHAKE, "h", 60000, hold, "");
    for (size_t i = 0; i < TPM_QUEUE_AGENT_MAX; i++) {
        start(&calls[i], queue, TPM_PRIO_HANDSHAKE, "greedy", 60000, note, "g");
    }
    extra = (struct call){
        .queue = queue, .agent = "greedy", .deadline_ms = att_boottime_ms() + 1000, .fn = note};
    (void)run_call(&extra);
    assert_int_equal(extra.rc, ATT_E_LIMIT);
    start(&extra, queue, TPM_PRIO_HANDSHAKE, "modest", 60000, note, "m");
    gate_open = true;
    for (size_t i = 0; i < TPM_QUEUE_AGENT_MAX; i++) {
        assert_int_equal(join(&calls[i]), ATT_OK);
    }
    assert_int_equal(join(&extra), ATT_OK);
    assert_int_equal(join(&holder), ATT_OK);
    /* The modest agent's job came last and was among the first two. */
    const char *m = strchr(order, 'm');
    assert_non_null(m);
    assert_true(m - order <= 1);
    free(calls);
    tpm_queue_free(queue);
}

/* A neighbour whose jobs never end delays by the one that runs, and no other. */
static void a_flood_delays_by_what_runs(void **state)
{
    struct tpm_queue *queue = new_queue(0);
    struct call holder, flood[4], modest;
    (void)state;
    start(&holder, queue, TPM_PRIO_HANDSHAKE, "greedy", 60000, hold, "");
    for (size_t i = 0; i < 4; i++) {
        start(&flood[i], queue, TPM_PRIO_HANDSHAKE, "greedy", 60000, note, "g");
    }
    start(&modest, queue, TPM_PRIO_HANDSHAKE, "modest", 60000, note, "m");
    gate_open = true;
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(join(&flood[i]), ATT_OK);
    }
    assert_int_equal(join(&modest), ATT_OK);
    assert_int_equal(join(&holder), ATT_OK);
    assert_string_equal(order, "mgggg");
    tpm_queue_free(queue);
}

static void order_is_priority_then_fairness_then_deadline(void **state)
{
    struct tpm_queue *queue = new_queue(0);
    struct call holder, c[8];
    (void)state;
    start(&holder, queue, TPM_PRIO_HANDSHAKE, "h", 60000, hold, "");
    start(&c[0], queue, TPM_PRIO_BACKGROUND, "x", 1000, note, "B ");
    start(&c[1], queue, TPM_PRIO_RENEWAL, "a", 9000, note, "a1 ");
    start(&c[2], queue, TPM_PRIO_RENEWAL, "a", 1000, note, "a2 ");
    start(&c[3], queue, TPM_PRIO_RENEWAL, "a", 1000, note, "a3 ");
    start(&c[4], queue, TPM_PRIO_RENEWAL, "b", 5000, note, "b1 ");
    start(&c[5], queue, TPM_PRIO_RENEWAL, "c", 7000, note, "c1 ");
    start(&c[6], queue, TPM_PRIO_HANDSHAKE, "d", 9000, note, "S1 ");
    start(&c[7], queue, TPM_PRIO_HANDSHAKE, "e", 8000, note, "S2 ");
    gate_open = true;
    for (size_t i = 0; i < 8; i++) {
        assert_int_equal(join(&c[i]), ATT_OK);
    }
    assert_int_equal(join(&holder), ATT_OK);
    assert_string_equal(order, "S2 S1 b1 c1 a1 a2 a3 B ");
    tpm_queue_free(queue);
}

static enum att_rc who_runs(struct tpm_context *ctx, void *arg, struct att_err *err)
{
    pthread_t self = pthread_self();
    (void)ctx;
    (void)err;
    memcpy(arg, &self, sizeof(self));
    return ATT_OK;
}

/* Nobody is woken where nobody waits. What had to wait is run by the queue's own thread, and its
 * caller's thread waits no longer than until then. */
static void who_finds_the_tpm_idle_runs_it_himself(void **state)
{
    struct tpm_queue *queue = new_queue(0);
    struct call holding, behind;
    pthread_t ran, self = pthread_self();
    (void)state;
    for (int i = 0; i < 3; i++) {
        assert_ok(tpm_queue_run(queue, TPM_OP_SIGN, TPM_PRIO_HANDSHAKE, "a",
                                att_boottime_ms() + 1000, who_runs, &ran, err));
        assert_true(pthread_equal(ran, self));
    }
    start(&holding, queue, TPM_PRIO_HANDSHAKE, "a", 5000, hold, "");
    start(&behind, queue, TPM_PRIO_HANDSHAKE, "b", 5000, who_runs, "");
    gate_open = true;
    assert_int_equal(join(&holding), ATT_OK);
    assert_int_equal(join(&behind), ATT_OK);
    memcpy(&ran, behind.text, sizeof(ran));
    assert_false(pthread_equal(ran, behind.thread));
    assert_false(pthread_equal(ran, holding.thread));
    assert_ok(tpm_queue_run(queue, TPM_OP_SIGN, TPM_PRIO_HANDSHAKE, "a", att_boottime_ms() + 1000,
                            who_runs, &ran, err));
    assert_true(pthread_equal(ran, self));
    tpm_queue_free(queue);
}

static void passes_results_and_counts(void **state)
{
    struct tpm_queue *queue = new_queue(0);
    struct tpm_queue_stats stats;
    struct tpm_clock clock;
    (void)state;
    assert_refused(tpm_queue_run(queue, TPM_OP_SEAL, TPM_PRIO_RENEWAL, "a",
                                 att_boottime_ms() + 1000, fail_job, NULL, err),
                   ATT_E_DENIED, "");
    assert_refused(tpm_queue_run(queue, TPM_OP_COUNT, TPM_PRIO_RENEWAL, "a",
                                 att_boottime_ms() + 1000, fail_job, NULL, err),
                   ATT_E_INVAL, "");
    for (unsigned i = 0; i < 300; i++) {
        assert_ok(tpm_queue_run(queue, TPM_OP_OTHER, TPM_PRIO_RENEWAL, "a",
                                att_boottime_ms() + 10000, clock_job, &clock, err));
    }
    tpm_queue_stats(queue, &stats);
    assert_int_equal(stats.ops[TPM_OP_SEAL].count, 1);
    assert_int_equal(stats.ops[TPM_OP_SEAL].failed, 1);
    assert_int_equal(stats.ops[TPM_OP_OTHER].count, 300);
    assert_int_equal(stats.ops[TPM_OP_OTHER].failed, 0);
    assert_true(stats.ops[TPM_OP_OTHER].p50_us > 0);
    assert_true(stats.ops[TPM_OP_OTHER].p95_us >= stats.ops[TPM_OP_OTHER].p50_us);
    assert_int_equal(stats.ops[TPM_OP_SIGN].p50_us, 0);
    assert_string_equal(tpm_op_name(TPM_OP_QUOTE), "quote");
    assert_string_equal(tpm_op_name(TPM_OP_COUNT), "?");
    tpm_queue_free(queue);
}

static void reopens_a_tpm_that_came_back(void **state)
{
    struct tpm_queue *queue = new_queue(0);
    struct tpm_queue_stats stats;
    struct tpm_clock clock;
    enum att_rc rc = ATT_OK;
    (void)state;
    assert_ok(tpm_queue_run(queue, TPM_OP_OTHER, TPM_PRIO_RENEWAL, "a", att_boottime_ms() + 10000,
                            clock_job, &clock, err));
    uint32_t resets = clock.reset_count;
    swtpm_stop(&the_tpm);
    for (unsigned i = 0; i < 5; i++) {
        assert_refused(tpm_queue_run(queue, TPM_OP_OTHER, TPM_PRIO_RENEWAL, "a",
                                     att_boottime_ms() + 10000, clock_job, &clock, err),
                       ATT_E_GONE, "");
    }
    tpm_queue_stats(queue, &stats);
    assert_false(stats.alive);
    assert_ok(swtpm_start(&the_tpm, false, err));
    for (unsigned i = 0; i < 200; i++) {
        rc = tpm_queue_run(queue, TPM_OP_OTHER, TPM_PRIO_RENEWAL, "a", att_boottime_ms() + 10000,
                           clock_job, &clock, NULL);
        if (rc == ATT_OK) {
            break;
        }
        assert_int_equal(rc, ATT_E_GONE);
        sleep_ms(10);
    }
    assert_int_equal(rc, ATT_OK);
    assert_int_equal(clock.reset_count, resets + 1);
    tpm_queue_stats(queue, &stats);
    assert_true(stats.alive);
    assert_int_equal(stats.reopened, 1);
    tpm_queue_free(queue);
}

/* Eight threads at once, each with its own agent and key. */
struct hammer {
    struct tpm_queue *queue;
    unsigned n, ok;
};

struct sign_job {
    struct tpm_blob *blob;
    uint8_t digest[32];
    struct tpm_signature sig;
};

static enum att_rc sign_fn(struct tpm_context *ctx, void *arg, struct att_err *err)
{
    struct sign_job *job = arg;
    if (job->blob->pub.len == 0) {
        return tpm_key_create(ctx, AUTH_A, job->blob, err);
    }
    return tpm_key_sign(ctx, job->blob, AUTH_A, job->digest, &job->sig, err);
}

static void *hammer(void *arg)
{
    struct hammer *h = arg;
    tpm_autoblob blob = {0};
    struct sign_job job = {.blob = &blob};
    char agent[16];
    (void)snprintf(agent, sizeof(agent), "agent-%u", h->n);
    for (unsigned i = 0; i < 20; i++) {
        job.digest[0] = (uint8_t)i;
        if (tpm_queue_run(h->queue, i == 0 ? TPM_OP_CREATE : TPM_OP_SIGN, TPM_PRIO_HANDSHAKE, agent,
                          att_boottime_ms() + 60000, sign_fn, &job, NULL) != ATT_OK) {
            return NULL;
        }
        h->ok += i == 0 || verifies(&blob, job.digest, &job.sig);
    }
    return NULL;
}

static void serves_many_threads(void **state)
{
    struct tpm_queue *queue = new_queue(0);
    struct hammer h[8] = {0};
    pthread_t threads[8];
    (void)state;
    for (unsigned i = 0; i < 8; i++) {
        h[i] = (struct hammer){.queue = queue, .n = i};
        assert_int_equal(pthread_create(&threads[i], NULL, hammer, &h[i]), 0);
    }
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(h[i].ok, 20);
    }
    tpm_queue_free(queue);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(deadlines_pass),
        cmocka_unit_test(a_silent_tpm_is_said),
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(one_agent_cannot_fill_it),
        cmocka_unit_test(a_flood_delays_by_what_runs),
        cmocka_unit_test(order_is_priority_then_fairness_then_deadline),
        cmocka_unit_test(who_finds_the_tpm_idle_runs_it_himself),
        cmocka_unit_test(passes_results_and_counts),
        cmocka_unit_test(reopens_a_tpm_that_came_back),
        cmocka_unit_test(serves_many_threads),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
