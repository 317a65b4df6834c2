/* The threads beside main: workers, which serve whatever agent is ready, and the host thread, which
 * keeps account, AK record and view. */
#include "attestd/host/issue.h"
#include "attestd/proc/notify.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ROUND_LEAST_MS 1000

void host_wake(struct host *host)
{
    {
        HOST_LOCKED(host);
        pthread_cond_broadcast(&host->changed);
    }
    uint64_t one = 1;
    if (write(host->wake_fd, &one, sizeof(one)) != (ssize_t)sizeof(one)) {
        return; /* the counter is full: main will look anyway */
    }
}

void host_wait(struct host *host, int64_t ms)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_sec += (time_t)(ms / 1000);
    at.tv_nsec += (long)(ms % 1000) * 1000000;
    if (at.tv_nsec >= 1000000000) {
        at.tv_sec++;
        at.tv_nsec -= 1000000000;
    }
    (void)pthread_cond_timedwait(&host->changed, &host->lock, &at);
}

/* ---- workers -----------------------------------------------------------------------------------
 */

/* Of the agents that are ready the one that waits longest: an expired certificate first. */
static struct agent *pick(struct host *host)
{
    struct agent_now now = host_now();
    struct agent *best = NULL;
    int64_t best_at = 0;
    for (size_t i = 0; i < agent_registry_count(host->reg); i++) {
        struct agent *agent = agent_registry_at(host->reg, i);
        if (!host_agent_ready(host, agent, now)) {
            continue;
        }
        int64_t at = agent->rec.dates.not_after;
        if (!best || at < best_at) {
            best = agent;
            best_at = at;
        }
    }
    return best;
}

/* When no agent waits: one whose next key can be made ahead. */
static struct agent *pick_spare(struct host *host)
{
    struct agent_now now = host_now();
    for (size_t i = 0; i < agent_registry_count(host->reg); i++) {
        struct agent *agent = agent_registry_at(host->reg, i);
        if (host_spare_wanted(host, agent, now)) {
            return agent;
        }
    }
    return NULL;
}

struct worker {
    struct host *host;
    unsigned slot;
};

static void *work(void *arg)
{
    struct worker self = *(struct worker *)arg;
    struct host *host = self.host;
    pthread_mutex_lock(&host->lock);
    host->n_workers++;
    pthread_cond_broadcast(&host->changed);
    while (!atomic_load(&host->stop)) {
        struct agent *agent = pick(host);
        bool spare = !agent;
        if (spare) {
            agent = pick_spare(host);
        }
        if (!agent) {
            host_wait(host, 30000);
            continue;
        }
        char name[AGENT_NAME_MAX + 1];
        memcpy(name, agent->rec.name, sizeof(name));
        agent->busy = true;
        agent->settled = spare;
        pthread_mutex_unlock(&host->lock);
        if (spare) {
            host_spare_make(host, name);
        } else {
            host_agent_work(host, self.slot, name);
        }
        pthread_mutex_lock(&host->lock);
        agent = agent_registry_find(host->reg, name);
        if (agent) {
            agent->busy = agent->settled = agent->issuing = false;
        }
        pthread_mutex_unlock(&host->lock);
        host_wake(host);
        pthread_mutex_lock(&host->lock);
    }
    pthread_mutex_unlock(&host->lock);
    return NULL;
}

/* ---- the host thread ---------------------------------------------------------------------------
 */

/* What workers may do depends on the phase: they look again. */
void host_set_phase(struct host *host, enum host_phase phase)
{
    bool changed;
    {
        HOST_LOCKED(host);
        changed = host->phase != phase;
        host->phase = phase;
    }
    if (changed) {
        att_log(ATT_INFO, "host.phase", ATT_S("phase", host_phase_name(phase)));
        host_wake(host);
    }
}

enum att_rc host_sweep_once(struct host *host, struct att_err *err)
{
    if (host->swept) {
        return ATT_OK;
    }
    enum att_rc rc = host_keys_sweep(host, err);
    host->swept = rc == ATT_OK;
    return rc;
}

/* A revocation changes the view; whoever is refused may be so because of one and hears of no view,
 * and a view may fail here (a full disk). The list is asked for after all of these, and when due.
 */
static void look_at_crl(struct host *host, struct acme_client *client, bool at_once)
{
    struct att_err err = {0};
    if (host_crl_poll(host, client, at_once, &err) != ATT_OK) {
        att_log_err(ATT_WARN, "crl.failed", &err);
    }
}

/* The view, the list, then what both may have made needless to ask: in this order. */
static enum att_rc watch_view(struct host *host, struct acme_client *client, bool fresh,
                              struct att_err *err)
{
    bool have_view = host->bundle != NULL && host->view_version != 0;
    uint64_t version = host->view_version;
    enum att_rc rc = host_view_poll(host, client, have_view && !fresh ? HOST_VIEW_WAIT_S : 0, err);
    bool changed = host->view_version != version;
    if (rc != ATT_E_GONE) {
        look_at_crl(host, client, rc != ATT_OK || changed);
    }
    if (rc == ATT_OK) {
        host_renewal_poll(host, client, changed);
    }
    if (rc == ATT_OK && host->view_version == 0) {
        return att_fail(err, ATT_E_RETRY, "the issuer has no view for this host yet");
    }
    return rc;
}

/* One round: whatever is missing is made, then the view is waited for. */
static enum att_rc round_of_host(struct host *host, struct att_err *err)
{
    bool first = !host->have_identity;
    enum att_rc rc = host_keyd_ready(host, err);
    if (rc != ATT_OK) {
        if (!host->have_identity) {
            host_set_phase(host, HOST_NO_KEYD);
        }
        return rc;
    }
    struct acme_client *client;
    if (first) {
        host_wake(host); /* the keys that wait to be compared, or to be destroyed */
    }
    if (host_acme_on(host)) {
        return host_acme_round(host, err);
    }
    rc = host_issuer_check(host, err);
    if (rc == ATT_OK) {
        rc = host_client_get(host, HOST_WORKERS, &client, err);
    }
    if (rc == ATT_OK) {
        rc = host_account_ready(host, client, err);
        if (rc != ATT_OK && rc != ATT_E_GONE) {
            look_at_crl(host, client, true);
        }
    }
    if (rc != ATT_OK) {
        bool known;
        {
            HOST_LOCKED(host);
            known = host->rec.kid[0] != '\0';
        }
        if (!known) {
            host_set_phase(host, HOST_NO_ISSUER);
        }
        return rc;
    }
    bool fresh = host_enrol_needed(host);
    if (fresh) {
        rc = host_enrol(host, client, err);
        if (rc != ATT_OK) {
            if (rc != ATT_E_GONE) {
                look_at_crl(host, client, true);
            }
            return rc;
        }
        host_wake(host);
    }
    host_set_phase(host, host->rec.approved ? HOST_ENROLLED : HOST_PENDING);
    rc = watch_view(host, client, fresh, err);
    return rc == ATT_OK ? host_sweep_once(host, err) : rc;
}

static void note_failure(struct host *host, const struct att_err *err, int64_t wait)
{
    {
        HOST_LOCKED(host);
        host_error_note(&host->last_error, err);
    }
    att_log(ATT_WARN, "host.failed", ATT_S("phase", host_phase_name(host->phase)),
            ATT_S("code", att_rc_name(err->rc)), ATT_S("reason", err->reason),
            ATT_S("message", err->msg), ATT_N("nextMs", wait));
}

/* What the error asks for beyond waiting. */
static bool react(struct host *host, const struct att_err *err)
{
    if (strcmp(err->reason, "accountDoesNotExist") == 0) {
        host_account_lost(host);
    } else if (err->rc == ATT_E_REENROL) {
        HOST_LOCKED(host);
        host->enrol_wanted = true;
    }
    return err->rc == ATT_E_DENIED;
}

void host_nudge(struct host *host)
{
    host->nudge = true;
    if (host->clients[HOST_WORKERS].acme) {
        acme_client_cancel(host->clients[HOST_WORKERS].acme, true);
    }
    pthread_cond_broadcast(&host->changed);
}

static bool nudged(struct host *host)
{
    HOST_LOCKED(host);
    return host->nudge;
}

static void begin_round(struct host *host)
{
    HOST_LOCKED(host);
    host->nudge = false;
    if (host->clients[HOST_WORKERS].acme && !atomic_load(&host->stop)) {
        acme_client_cancel(host->clients[HOST_WORKERS].acme, false);
    }
}

/* Until then, or a nudge, or the end; the lock is held. */
static void wait_until(struct host *host, int64_t boot_ms)
{
    for (int64_t left = boot_ms - att_boottime_ms();
         left > 0 && !host->nudge && !atomic_load(&host->stop);
         left = boot_ms - att_boottime_ms()) {
        host_wait(host, left);
    }
}

/* After a round that went well: an issuer that does not hold a long poll is not asked in a loop. */
static void rest(struct host *host, int64_t begun)
{
    HOST_LOCKED(host);
    host->last_error = (struct agent_error){0};
    wait_until(host, begun + ROUND_LEAST_MS);
}

/* keyd is on this machine and comes up with us: short pauses. */
static int64_t pause_ms(struct host *host, uint32_t attempt, bool refused)
{
    if (refused) {
        return agent_sched_backoff_ms(attempt, HOST_REFUSED_BASE_MS, HOST_REFUSED_CAP_MS,
                                      host_random());
    }
    bool local = host->phase == HOST_NO_KEYD;
    return agent_sched_backoff_ms(attempt, local ? 50 : HOST_BACKOFF_BASE_MS,
                                  local ? 5000 : HOST_BACKOFF_CAP_MS, host_random());
}

static void *drive(void *arg)
{
    struct host *host = arg;
    uint32_t attempt = 0;
    while (!atomic_load(&host->stop)) {
        struct att_err err = {0};
        int64_t begun = att_boottime_ms();
        begin_round(host);
        enum att_rc rc = round_of_host(host, &err);
        if (atomic_load(&host->stop)) {
            break;
        }
        if (rc == ATT_OK) {
            attempt = 0;
            rest(host, begun);
            continue;
        }
        if (err.rc == ATT_E_GONE && nudged(host)) {
            continue; /* the long poll was ended on purpose */
        }
        bool refused = react(host, &err);
        int64_t wait = pause_ms(host, attempt, refused);
        attempt += attempt < 20;
        note_failure(host, &err, wait);
        host_wake(host); /* main refreshes the status line */
        HOST_LOCKED(host);
        wait_until(host, att_boottime_ms() + wait);
    }
    return NULL;
}

/* ---- start and end -----------------------------------------------------------------------------
 */

enum att_rc host_threads_start(struct host *host, struct att_err *err)
{
    int rc = pthread_create(&host->host_thread, NULL, drive, host);
    if (rc != 0) {
        errno = rc;
        return att_fail_errno(err, ATT_E_IO, "cannot start the host thread");
    }
    host->host_thread_on = true;
    for (unsigned i = 0; i < HOST_WORKERS; i++) {
        struct worker self = {host, i};
        pthread_mutex_lock(&host->lock);
        rc = pthread_create(&host->workers[i], NULL, work, &self);
        while (rc == 0 && host->n_workers == i) {
            pthread_cond_wait(&host->changed, &host->lock);
        }
        pthread_mutex_unlock(&host->lock);
        if (rc != 0) {
            errno = rc;
            return att_fail_errno(err, ATT_E_IO, "cannot start a worker thread");
        }
    }
    return ATT_OK;
}

void host_threads_join(struct host *host)
{
    if (host->host_thread_on) {
        pthread_join(host->host_thread, NULL);
        host->host_thread_on = false;
    }
    for (unsigned i = 0; i < host->n_workers; i++) {
        pthread_join(host->workers[i], NULL);
    }
    host->n_workers = 0;
}
