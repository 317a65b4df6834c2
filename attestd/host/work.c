/* What a worker does when an agent is ready: expiry, removal, repair, renewal; and what a failed
 * issuance means for the agent and the host. */
#include "attestd/agent/retired.h"
#include "attestd/base/io.h"
#include "attestd/host/issue.h"

#include <stdio.h>
#include <string.h>

/* ---- failures ----------------------------------------------------------------------------------
 */

struct verdict {
    bool refused;    /* by policy: long back-off */
    bool order_dead; /* nothing more comes of this order */
    bool key_lost;
};

static bool reason_is(const struct att_err *err, const char *word)
{
    return strcmp(err->reason, word) == 0;
}

static struct verdict judge_issuer(struct host *host, const struct host_issue *job,
                                   const struct att_err *err)
{
    struct verdict v = {.order_dead = job->order_dead};
    if (err->rc == ATT_E_REENROL || reason_is(err, "accountMismatch")) {
        att_log(ATT_INFO, "host.reenrol", ATT_S("reason", err->reason));
        host_want_enrolment(host);
    } else if (reason_is(err, "accountDoesNotExist")) {
        host_account_lost(host);
        v.order_dead = true;
    } else if (err->rc == ATT_E_NOTFOUND || err->rc == ATT_E_PROTOCOL) {
        v.order_dead = true;
    } else if (err->rc == ATT_E_DENIED || err->rc == ATT_E_UNSUPPORTED) {
        v.refused = true;
    } else if (err->rc == ATT_E_AUTH && job->order_dead) {
        v.refused = true;
    }
    return v;
}

static struct verdict judge(struct host *host, const struct host_issue *job,
                            const struct att_err *err)
{
    struct verdict v = {.order_dead = job->order_dead};
    switch (job->where) {
    case HOST_AT_ISSUER:
        return judge_issuer(host, job, err);
    case HOST_AT_KEYD:
        /* One that was made ahead does not outlive a TPM2_Clear, of which the issuer shall hear. */
        v.key_lost = err->rc == ATT_E_NOTFOUND || reason_is(err, "foreignParent");
        v.refused = err->rc == ATT_E_UNSUPPORTED; /* a store that this keyd has not */
        break;
    case HOST_AT_SELF:
        v.refused = err->rc == ATT_E_UNSUPPORTED || err->rc == ATT_E_DENIED; /* its files */
        break;
    }
    return v;
}

/* The strongest event that the table takes here. */
static void move_on(struct agent *agent, const struct verdict *v)
{
    struct agent_record *rec = &agent->rec;
    enum agent_event events[3];
    size_t n = 0;
    if (v->key_lost) {
        events[n++] = AGENT_EV_KEY_LOST;
    }
    if (v->refused) {
        events[n++] = AGENT_EV_REFUSED;
    }
    if (v->order_dead) {
        events[n++] = AGENT_EV_ORDER_DEAD;
    }
    for (size_t i = 0; i < n; i++) {
        if (agent_life_apply(&rec->life, events[i], NULL) == ATT_OK) {
            rec->order_url[0] = '\0';
            if (events[i] == AGENT_EV_KEY_LOST) {
                rec->next_key_id[0] = '\0';
                agent->check_keys = true; /* if keyd has it after all it is of no use */
            }
            return;
        }
    }
}

/* Short lifetimes want short pauses. */
static int64_t back_off_ms(const struct host_issue *job, const struct agent_record *rec,
                           bool refused)
{
    int64_t base = refused ? HOST_REFUSED_BASE_MS : HOST_BACKOFF_BASE_MS;
    int64_t cap = refused ? HOST_REFUSED_CAP_MS : HOST_BACKOFF_CAP_MS;
    int64_t eighth = rec->lifetime_s * 1000 / 8;
    if (eighth >= base && eighth < cap) {
        cap = eighth;
    }
    uint32_t attempt = rec->attempts > 20 ? 20 : rec->attempts;
    if (job->where == HOST_AT_ISSUER && job->client) {
        return acme_client_delay_ms(job->client, attempt, base, cap);
    }
    return agent_sched_backoff_ms(attempt, base, cap, host_random());
}

void host_issue_failed(struct host_issue *job, const struct att_err *err)
{
    struct host *host = job->host;
    if ((err->rc == ATT_E_CONFLICT && reason_is(err, "agentState")) || atomic_load(&host->stop)) {
        return; /* frozen, removed or stopping meanwhile: no failure */
    }
    struct verdict v = judge(host, job, err);
    int64_t wait;
    const char *state;
    {
        HOST_LOCKED(host);
        struct agent *agent = agent_registry_find(host->reg, job->rec.name);
        if (!agent) {
            return;
        }
        move_on(agent, &v);
        host_error_note(&agent->rec.last_error, err);
        wait = back_off_ms(job, &agent->rec, v.refused);
        agent->not_before_ms = att_boottime_ms() + wait;
        agent->rec.attempts += agent->rec.attempts < UINT32_MAX;
        agent->forced = false;
        state = agent_state_name(agent->rec.life.state);
    }
    att_log(ATT_WARN, v.refused ? "agent.refused" : "agent.failed", ATT_S("agent", job->rec.name),
            ATT_S("state", state), ATT_S("code", att_rc_name(err->rc)),
            ATT_S("reason", err->reason), ATT_S("message", err->msg), ATT_N("nextMs", wait));
    struct att_err save_err = {0};
    if (host_agent_save(host, job->rec.name, &save_err) != ATT_OK) {
        att_log_err(ATT_ERROR, "agent.recordNotSaved", &save_err);
    }
}

/* A failure outside an issuance. */
static void failed(struct host *host, const char *name, const char *event,
                   const struct att_err *err)
{
    struct att_err copy = *err;
    att_err_prefix(&copy, "%s", name);
    att_log_err(ATT_WARN, event, &copy);
    HOST_LOCKED(host);
    struct agent *agent = agent_registry_find(host->reg, name);
    if (agent) {
        host_error_note(&agent->rec.last_error, err);
        agent->not_before_ms =
            att_boottime_ms() + agent_sched_backoff_ms(agent->rec.attempts, HOST_BACKOFF_BASE_MS,
                                                       HOST_BACKOFF_CAP_MS, host_random());
        agent->rec.attempts += agent->rec.attempts < 1000;
        agent->expire_not_before_ms = agent->not_before_ms;
    }
}

/* ---- turns -------------------------------------------------------------------------------------
 */

/* Its certificates have not ended, but what holds a handle of their keys shall not sign any more:
 * keyd destroys what no record speaks of. They go however the record fares. Under lock. */
static void forget_keys(struct agent *agent)
{
    agent->rec.key_id[0] = '\0';
    memset(agent->rec.retired, 0, sizeof(agent->rec.retired));
    agent->rec.n_retired = 0;
    agent->check_keys = agent->unsaved = true;
}

/* ret_early: before its certificate ended. */
static enum att_rc take_out(struct host *host, const char *name, bool *ret_early,
                            struct att_err *err)
{
    struct agent_record rec;
    {
        HOST_LOCKED(host);
        struct agent *agent = agent_registry_find(host->reg, name);
        if (!agent) {
            return att_fail(err, ATT_E_NOTFOUND, "no agent %s", name);
        }
        enum att_rc rc = agent_life_apply(&agent->rec.life, AGENT_EV_EXPIRED, err);
        if (rc != ATT_OK) {
            return rc;
        }
        rec = agent->rec;
        *ret_early = agent->misfit || agent->revoked;
        agent->misfit = agent->revoked = false;
        if (*ret_early) {
            forget_keys(agent);
        }
    }
    att_log(ATT_WARN, *ret_early ? "agent.withdrawn" : "agent.expired", ATT_S("agent", name),
            ATT_S("serial", rec.serial), ATT_S("state", agent_state_name(rec.life.state)));
    return ATT_OK;
}

static enum att_rc expire(struct host *host, const char *name, struct att_err *err)
{
    bool early = false;
    enum att_rc rc = host_chain_withdraw(host, name, err);
    if (rc == ATT_OK) {
        rc = take_out(host, name, &early, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    return early ? host_keys_check(host, name, err) /* it writes the record, too */
                 : host_agent_save(host, name, err);
}

/* Nothing of the earlier life is left; the entry's fields stay. */
static enum att_rc begin_anew(struct agent *agent, struct att_err *err)
{
    struct agent_record *rec = &agent->rec;
    enum att_rc rc = agent_life_apply(&rec->life, AGENT_EV_ASSIGNED, err);
    if (rc == ATT_OK) {
        agent->reassigned = false;
        rec->key_id[0] = rec->next_key_id[0] = rec->old_key_id[0] = '\0';
        rec->order_url[0] = rec->serial[0] = rec->boot[0] = '\0';
        memset(rec->retired, 0, sizeof(rec->retired)); /* destroyed with all others */
        rec->n_retired = 0;
        rec->dates = (struct agent_dates){0};
        rec->last_error = (struct agent_error){0};
        rec->attempts = 0;
    }
    return rc;
}

/* What was kept for people to look at. A file that cannot be removed must hold up nothing. */
static void remove_kept(struct host *host, const char *name)
{
    char path[4096];
    struct att_err err = {0};
    if (host_evidence_remove(host, name, &err) != ATT_OK) {
        att_log_err(ATT_WARN, "agent.fileNotRemoved", &err);
    }
    snprintf(path, sizeof(path), "%s/%s.pem", host->paths.withdrawn, name);
    if (att_io_unlink(path, &err) != ATT_OK) {
        att_log_err(ATT_WARN, "agent.fileNotRemoved", &err);
    }
}

static enum att_rc remove_agent(struct host *host, const char *name, struct att_err *err)
{
    enum att_rc rc = certs_install_remove(host->paths.agents, name, err);
    if (rc == ATT_OK) {
        rc = host_keys_remove(host, name, err);
    }
    host_spare_forget(host, name);
    if (rc != ATT_OK) {
        return rc;
    }
    remove_kept(host, name);
    bool again = false;
    {
        HOST_LOCKED(host);
        struct agent *agent = agent_registry_find(host->reg, name);
        if (agent && agent->reassigned) {
            again = true;
            rc = begin_anew(agent, err);
        } else {
            rc = agent_record_remove(host->paths.records, name, err);
            if (rc == ATT_OK) {
                agent_registry_drop(host->reg, name);
            }
        }
    }
    if (rc == ATT_OK) {
        att_log(ATT_INFO, "agent.removed", ATT_S("agent", name),
                ATT_S("assignedAgain", again ? "yes" : "no"));
    }
    return rc == ATT_OK && again ? host_agent_save(host, name, err) : rc;
}

#define TURNS_MAX (8 + AGENT_RETIRED_MAX)

/* What is to be done, decided under the lock; ret_rec is the record to issue with. */
enum turn { TURN_NONE, TURN_EXPIRE, TURN_REMOVE, TURN_CHECK_KEYS, TURN_RETIRE, TURN_ISSUE };

static enum turn next_turn(struct host *host, const char *name, struct agent_record *ret_rec)
{
    HOST_LOCKED(host);
    struct agent *agent = agent_registry_find(host->reg, name);
    struct agent_now now = host_now();
    if (!agent) {
        return TURN_NONE;
    }
    *ret_rec = agent->rec;
    const struct agent_life *life = &agent->rec.life;
    if (host_agent_expired(agent, now)) {
        return TURN_EXPIRE;
    }
    bool busy = agent->busy;
    agent->busy = false;
    bool ready = host_agent_ready(host, agent, now);
    agent->busy = busy;
    if (!ready) {
        return TURN_NONE;
    }
    if (host_agent_retires(host, agent, now)) { /* with a back-off of its own: first */
        return TURN_RETIRE;
    }
    if (life->state == AGENT_REMOVED) {
        return TURN_REMOVE;
    }
    if (agent->check_keys) {
        return TURN_CHECK_KEYS;
    }
    enum agent_event event = life->state == AGENT_VALID ? AGENT_EV_DUE : AGENT_EV_RETRY;
    if (agent_life_can(life, event) && agent_life_apply(&agent->rec.life, event, NULL) != ATT_OK) {
        return TURN_NONE;
    }
    *ret_rec = agent->rec;
    agent->issuing = true;
    return TURN_ISSUE;
}

void host_agent_work(struct host *host, unsigned slot, const char *name)
{
    for (int i = 0; i < TURNS_MAX && !atomic_load(&host->stop); i++) {
        struct agent_record rec;
        struct att_err err = {0};
        enum att_rc rc = ATT_OK;
        switch (next_turn(host, name, &rec)) {
        case TURN_NONE:
            return;
        case TURN_EXPIRE:
            rc = expire(host, name, &err);
            break;
        case TURN_REMOVE:
            rc = remove_agent(host, name, &err);
            break;
        case TURN_CHECK_KEYS:
            rc = host_keys_check(host, name, &err);
            break;
        case TURN_RETIRE:
            host_keys_retire(host, name);
            break;
        case TURN_ISSUE:
            host_issue_run(host, slot, &rec);
            return;
        }
        if (rc != ATT_OK) {
            failed(host, name, "agent.turnFailed", &err);
            return;
        }
    }
}
