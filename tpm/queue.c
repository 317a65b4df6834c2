#include "tpm/queue.h"

#include "attestd/base/clock.h"
#include "tpm/session.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define AGENT_TEXT      64u
#define REOPEN_FIRST_MS 50
#define REOPEN_MAX_MS   5000
#define IDLE_TICK_MS    2000

enum job_state { JOB_WAITING, JOB_RUNNING, JOB_DONE };

/* On its caller's stack: it is in the list only while that caller waits. */
struct job {
    struct job *next;
    enum job_state state;
    enum tpm_op op;
    enum tpm_prio prio;
    char agent[AGENT_TEXT];
    uint64_t round;
    int64_t deadline_ms, queued_us;
    tpm_queue_fn *fn;
    void *arg;
    struct att_err *err;
    enum att_rc rc;
    pthread_cond_t done;
};

struct samples {
    uint64_t count, failed;
    uint32_t run_us[TPM_QUEUE_STATS_WINDOW], wait_us[TPM_QUEUE_STATS_WINDOW];
};

/* How far an agent is served within a priority: the round that its next job belongs to. Who has had
 * nothing of late begins with the round that runs, before whoever runs in it comes again. */
struct share {
    struct share *next;
    char agent[AGENT_TEXT];
    enum tpm_prio prio;
    uint64_t next_round;
    size_t waiting;
};

struct tpm_queue {
    pthread_mutex_t lock;
    pthread_cond_t work;
    pthread_t worker;
    struct tpm_context *ctx; /* its who made it busy */
    bool busy;               /* a thread, the worker or a caller, is with ctx, without the lock */
    struct job *jobs;        /* waiting, in order of arrival */
    struct share *shares;
    uint64_t round[TPM_PRIO_COUNT]; /* of the job started last */
    size_t waiting, waiting_max, max_len;
    bool stop, alive;
    uint64_t timeouts, refused, reopened;
    int64_t reopen_at_ms, reopen_pause_ms;
    int64_t running_since_ms, stuck_ms; /* 0: nothing runs */
    enum tpm_op running;
    struct samples ops[TPM_OP_COUNT];
};

const char *tpm_op_name(enum tpm_op op)
{
    static const char *const names[] = {
        [TPM_OP_SIGN] = "sign",       [TPM_OP_CREATE] = "create", [TPM_OP_LOAD] = "load",
        [TPM_OP_CERTIFY] = "certify", [TPM_OP_QUOTE] = "quote",   [TPM_OP_ACTIVATE] = "activate",
        [TPM_OP_SEAL] = "seal",       [TPM_OP_OTHER] = "other"};
    return (unsigned)op < TPM_OP_COUNT ? names[op] : "?";
}

static struct timespec monotonic_after(int64_t ms)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    if (ms < 0) {
        ms = 0;
    }
    ts.tv_sec += (time_t)(ms / 1000);
    ts.tv_nsec += (long)(ms % 1000) * 1000000;
    if (ts.tv_nsec >= 1000000000) {
        ts.tv_sec++;
        ts.tv_nsec -= 1000000000;
    }
    return ts;
}

static void cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(cond, &attr);
    (void)pthread_condattr_destroy(&attr);
}

/* ---- shares and order (all with the lock held) -------------------------------------------- */

static struct share *find_share(struct tpm_queue *q, const char *agent, enum tpm_prio prio)
{
    for (struct share *s = q->shares; s; s = s->next) {
        if (s->prio == prio && strcmp(s->agent, agent) == 0) {
            return s;
        }
    }
    return NULL;
}

/* Forgets agents that wait for nothing and are not ahead of the others. */
static void prune_shares(struct tpm_queue *q)
{
    for (struct share **at = &q->shares; *at;) {
        struct share *s = *at;
        if (s->waiting == 0 && s->next_round <= q->round[s->prio]) {
            *at = s->next;
            free(s);
        } else {
            at = &s->next;
        }
    }
}

static struct share *get_share(struct tpm_queue *q, const char *agent, enum tpm_prio prio)
{
    struct share *s = find_share(q, agent, prio);
    if (!s && (s = calloc(1, sizeof(*s)))) {
        memcpy(s->agent, agent, AGENT_TEXT);
        s->prio = prio;
        s->next = q->shares;
        q->shares = s;
    }
    return s;
}

static bool before(const struct job *a, const struct job *b)
{
    if (a->prio != b->prio) {
        return a->prio < b->prio;
    }
    if (a->round != b->round) {
        return a->round < b->round;
    }
    return a->deadline_ms < b->deadline_ms;
}

static void unlink_job(struct tpm_queue *q, struct job *job)
{
    for (struct job **at = &q->jobs; *at; at = &(*at)->next) {
        if (*at == job) {
            *at = job->next;
            break;
        }
    }
    q->waiting--;
    struct share *s = find_share(q, job->agent, job->prio);
    if (s) {
        s->waiting--;
    }
    prune_shares(q);
}

static void finish(struct job *job, enum att_rc rc)
{
    job->rc = rc;
    job->state = JOB_DONE;
    (void)pthread_cond_signal(&job->done);
}

/* The next job, out of the list; those whose time has passed are ended on the way. */
static struct job *take_job(struct tpm_queue *q)
{
    for (;;) {
        struct job *best = NULL;
        for (struct job *j = q->jobs; j; j = j->next) {
            if (!best || before(j, best)) {
                best = j;
            }
        }
        if (!best) {
            return NULL;
        }
        if (best->deadline_ms > att_boottime_ms()) {
            q->round[best->prio] = best->round;
            unlink_job(q, best);
            best->state = JOB_RUNNING;
            return best;
        }
        q->timeouts++;
        unlink_job(q, best);
        finish(best,
               att_fail(best->err, ATT_E_TIMEOUT, "the TPM was busy until the deadline of this %s",
                        tpm_op_name(best->op)));
    }
}

/* ---- running -------------------------------------------------------------------------------- */

/* A dead context is opened again, with pauses that grow. Without the lock. */
static enum att_rc revive(struct tpm_queue *q, struct att_err *err)
{
    if (tpm_context_alive(q->ctx)) {
        return ATT_OK;
    }
    int64_t now = att_boottime_ms();
    if (now < q->reopen_at_ms) {
        return att_fail(err, ATT_E_GONE, "the TPM is gone; next attempt in %lld ms",
                        (long long)(q->reopen_at_ms - now));
    }
    enum att_rc rc = tpm_context_reopen(q->ctx, err);
    if (rc == ATT_OK) {
        q->reopen_pause_ms = 0;
        return ATT_OK;
    }
    q->reopen_pause_ms = q->reopen_pause_ms == 0 ? REOPEN_FIRST_MS : q->reopen_pause_ms * 2;
    if (q->reopen_pause_ms > REOPEN_MAX_MS) {
        q->reopen_pause_ms = REOPEN_MAX_MS;
    }
    q->reopen_at_ms = att_boottime_ms() + q->reopen_pause_ms;
    return rc;
}

static void record(struct samples *s, int64_t wait_us, int64_t run_us, bool failed)
{
    size_t at = s->count % TPM_QUEUE_STATS_WINDOW;
    s->run_us[at] = run_us > UINT32_MAX ? UINT32_MAX : (uint32_t)run_us;
    s->wait_us[at] = wait_us > UINT32_MAX ? UINT32_MAX : (uint32_t)wait_us;
    s->count++;
    s->failed += failed;
}

/* With the lock held. 0: nothing runs. */
static int64_t running_ms(const struct tpm_queue *q)
{
    int64_t ms = q->running_since_ms ? att_boottime_ms() - q->running_since_ms : 0;
    return q->running_since_ms && ms < 1 ? 1 : ms;
}

static bool is_stuck(const struct tpm_queue *q)
{
    return running_ms(q) > q->stuck_ms;
}

static enum att_rc fail_stuck(const struct tpm_queue *q, struct att_err *err)
{
    enum att_rc rc = att_fail(err, ATT_E_TIMEOUT, "the TPM has not answered a %s for %lld s",
                              tpm_op_name(q->running), (long long)(running_ms(q) / 1000));
    att_err_reason(err, "tpmSilent");
    return rc;
}

/* With the lock held, which is let go while the job runs; nobody else runs one. */
static void run_job(struct tpm_queue *q, struct job *job)
{
    q->busy = true;
    q->running_since_ms = att_boottime_ms();
    q->running = job->op;
    (void)pthread_mutex_unlock(&q->lock);
    uint64_t generation = tpm_context_generation(q->ctx);
    enum att_rc rc = revive(q, job->err);
    bool reopened = tpm_context_generation(q->ctx) != generation;
    int64_t started = att_boottime_us();
    if (rc == ATT_OK) {
        rc = job->fn(q->ctx, job->arg, job->err);
    }
    int64_t ended = att_boottime_us();
    (void)pthread_mutex_lock(&q->lock);
    q->busy = false;
    q->running_since_ms = 0;
    q->reopened += reopened;
    q->alive = tpm_context_alive(q->ctx);
    record(&q->ops[job->op], started - job->queued_us, ended - started, rc != ATT_OK);
    finish(job, rc);
}

/* Whoever asks while nobody is served does it himself: to wake the worker, and to be woken by it,
 * takes longer than much of what a TPM does. What waits is the worker's, which goes from one job to
 * the next without a pause. With the lock held. */
static void run_here(struct tpm_queue *q)
{
    struct job *job = take_job(q);
    if (job) {
        run_job(q, job);
    }
    if (q->jobs || q->stop) {
        (void)pthread_cond_signal(&q->work);
    }
}

static void be_idle(struct tpm_queue *q)
{
    q->busy = true;
    (void)pthread_mutex_unlock(&q->lock);
    if (tpm_context_alive(q->ctx)) {
        tpm_session_idle(q->ctx);
    }
    (void)pthread_mutex_lock(&q->lock);
    q->busy = false;
}

static void *worker(void *arg)
{
    struct tpm_queue *q = arg;
    (void)pthread_mutex_lock(&q->lock);
    while (!q->stop || q->busy) {
        struct job *job = q->busy || q->stop ? NULL : take_job(q);
        if (job) {
            run_job(q, job);
            continue;
        }
        struct timespec until = monotonic_after(IDLE_TICK_MS);
        if (pthread_cond_timedwait(&q->work, &q->lock, &until) == ETIMEDOUT && !q->busy) {
            be_idle(q);
        }
    }
    while (q->jobs) {
        struct job *job = q->jobs;
        unlink_job(q, job);
        finish(job, att_fail(job->err, ATT_E_GONE, "the TPM queue is being closed"));
    }
    (void)pthread_mutex_unlock(&q->lock);
    return NULL;
}

/* ---- outside -------------------------------------------------------------------------------- */

enum att_rc tpm_queue_new(struct tpm_context *ctx, size_t max_len, struct tpm_queue **ret_queue,
                          struct att_err *err)
{
    struct tpm_queue *q = calloc(1, sizeof(*q));
    if (!q) {
        tpm_context_free(ctx);
        return att_fail(err, ATT_E_NOMEM, "no memory for a TPM queue");
    }
    q->ctx = ctx;
    q->alive = tpm_context_alive(ctx);
    q->max_len = max_len ? max_len : TPM_QUEUE_LEN_DEFAULT;
    q->stuck_ms = TPM_QUEUE_STUCK_MS;
    (void)pthread_mutex_init(&q->lock, NULL);
    cond_init(&q->work);
    int rc = pthread_create(&q->worker, NULL, worker, q);
    if (rc != 0) {
        (void)pthread_cond_destroy(&q->work);
        (void)pthread_mutex_destroy(&q->lock);
        tpm_context_free(ctx);
        free(q);
        return att_fail_native(err, ATT_E_IO, ATT_DOM_ERRNO, rc, "starting the TPM's thread: %s",
                               strerror(rc));
    }
    *ret_queue = q;
    return ATT_OK;
}

void tpm_queue_free(struct tpm_queue *queue)
{
    if (!queue) {
        return;
    }
    (void)pthread_mutex_lock(&queue->lock);
    queue->stop = true;
    (void)pthread_cond_signal(&queue->work);
    (void)pthread_mutex_unlock(&queue->lock);
    (void)pthread_join(queue->worker, NULL);
    tpm_context_free(queue->ctx);
    while (queue->shares) {
        struct share *s = queue->shares;
        queue->shares = s->next;
        free(s);
    }
    (void)pthread_cond_destroy(&queue->work);
    (void)pthread_mutex_destroy(&queue->lock);
    free(queue);
}

void tpm_queue_set_stuck_ms(struct tpm_queue *queue, int64_t stuck_ms)
{
    (void)pthread_mutex_lock(&queue->lock);
    queue->stuck_ms = stuck_ms;
    (void)pthread_mutex_unlock(&queue->lock);
}

static enum att_rc enqueue(struct tpm_queue *q, struct job *job, struct att_err *err)
{
    if (q->stop) {
        return att_fail(err, ATT_E_GONE, "the TPM queue is being closed");
    }
    if (is_stuck(q)) {
        q->timeouts++;
        return fail_stuck(q, err);
    }
    if (q->waiting >= q->max_len) {
        q->refused++;
        return att_fail(err, ATT_E_LIMIT, "the TPM queue is full: %zu jobs wait", q->waiting);
    }
    struct share *share = get_share(q, job->agent, job->prio);
    if (!share) {
        return att_fail(err, ATT_E_NOMEM, "no memory for a TPM job");
    }
    if (share->waiting >= TPM_QUEUE_AGENT_MAX) {
        q->refused++;
        return att_fail(err, ATT_E_LIMIT, "%zu TPM jobs of this agent wait already",
                        share->waiting);
    }
    uint64_t now = q->round[job->prio];
    job->round = share->next_round > now ? share->next_round : now;
    share->next_round = job->round + 1;
    share->waiting++;
    struct job **at = &q->jobs;
    while (*at) {
        at = &(*at)->next;
    }
    *at = job;
    q->waiting++;
    q->waiting_max = q->waiting > q->waiting_max ? q->waiting : q->waiting_max;
    return ATT_OK;
}

enum att_rc tpm_queue_run(struct tpm_queue *queue, enum tpm_op op, enum tpm_prio prio,
                          const char *agent, int64_t deadline_ms, tpm_queue_fn *fn, void *arg,
                          struct att_err *err)
{
    if ((unsigned)op >= TPM_OP_COUNT || (unsigned)prio >= TPM_PRIO_COUNT || !agent) {
        return att_fail(err, ATT_E_INVAL, "TPM job with operation %d, priority %d", (int)op,
                        (int)prio);
    }
    struct job job = {.state = JOB_WAITING,
                      .op = op,
                      .prio = prio,
                      .deadline_ms = deadline_ms,
                      .queued_us = att_boottime_us(),
                      .fn = fn,
                      .arg = arg,
                      .err = err};
    memcpy(job.agent, agent, strnlen(agent, AGENT_TEXT - 1));
    cond_init(&job.done);
    (void)pthread_mutex_lock(&queue->lock);
    enum att_rc rc = enqueue(queue, &job, err);
    if (rc == ATT_OK && !queue->busy && queue->waiting == 1) {
        run_here(queue);
    } else if (rc == ATT_OK && !queue->busy) {
        (void)pthread_cond_signal(&queue->work);
    }
    while (rc == ATT_OK && job.state != JOB_DONE) {
        int64_t left = deadline_ms - att_boottime_ms();
        if (job.state == JOB_WAITING && left <= 0) {
            queue->timeouts++;
            unlink_job(queue, &job);
            rc = is_stuck(queue)
                     ? fail_stuck(queue, err)
                     : att_fail(err, ATT_E_TIMEOUT,
                                "the TPM was busy until the deadline of this %s", tpm_op_name(op));
        } else if (job.state == JOB_WAITING) {
            /* Boot time runs on during suspend, the condition's clock does not: look again. */
            struct timespec until = monotonic_after(left < 60000 ? left : 60000);
            (void)pthread_cond_timedwait(&job.done, &queue->lock, &until);
        } else {
            (void)pthread_cond_wait(&job.done, &queue->lock);
        }
    }
    if (rc == ATT_OK) {
        rc = job.rc;
    }
    (void)pthread_mutex_unlock(&queue->lock);
    (void)pthread_cond_destroy(&job.done);
    return rc;
}

/* ---- statistics ----------------------------------------------------------------------------- */

static int compare_u32(const void *a, const void *b)
{
    uint32_t x, y;
    memcpy(&x, a, sizeof(x));
    memcpy(&y, b, sizeof(y));
    return (x > y) - (x < y);
}

/* Sorts its copy. */
static uint32_t quantile(uint32_t *values, size_t n, unsigned percent)
{
    if (n == 0) {
        return 0;
    }
    qsort(values, n, sizeof(values[0]), compare_u32);
    return values[(n - 1) * percent / 100];
}

void tpm_queue_stats(struct tpm_queue *queue, struct tpm_queue_stats *ret_stats)
{
    struct tpm_queue_stats stats = {0};
    struct samples copy[TPM_OP_COUNT];
    (void)pthread_mutex_lock(&queue->lock);
    stats.waiting = queue->waiting;
    stats.waiting_max = queue->waiting_max;
    stats.timeouts = queue->timeouts;
    stats.refused = queue->refused;
    stats.reopened = queue->reopened;
    stats.alive = queue->alive;
    stats.stuck = is_stuck(queue);
    stats.running = queue->running;
    stats.running_ms = running_ms(queue);
    memcpy(copy, queue->ops, sizeof(copy));
    (void)pthread_mutex_unlock(&queue->lock);
    for (size_t i = 0; i < TPM_OP_COUNT; i++) {
        size_t n =
            copy[i].count < TPM_QUEUE_STATS_WINDOW ? (size_t)copy[i].count : TPM_QUEUE_STATS_WINDOW;
        stats.ops[i].count = copy[i].count;
        stats.ops[i].failed = copy[i].failed;
        stats.ops[i].p50_us = quantile(copy[i].run_us, n, 50);
        stats.ops[i].p95_us = quantile(copy[i].run_us, n, 95);
        stats.ops[i].wait_p95_us = quantile(copy[i].wait_us, n, 95);
    }
    *ret_stats = stats;
}
