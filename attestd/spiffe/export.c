/* A private key on its way from keyd to one call of an agent whose entry says "exportable". For
 * each message attestd is asked, who writes a record of it, and then keyd for the key. It lies here
 * until the message is made of it. The caller is looked at again before keyd is asked and before
 * the message goes, also if it was looked at within PROVED_MS: whoever has executed another program
 * since costs no export and is given no key. Nothing keeps one for the next message. */
#include "attestd/spiffe/service.h"

#include "attestd/base/clock.h"
#include "attestd/base/log.h"

#include <string.h>

/* ---- what became of it --------------------------------------------------------------------- */

void spiffed_export_done(struct job *job)
{
    att_buf_done(&job->key); /* wipes */
    job->need_ms = 0;
}

/* Is the caller proved by a question that was put after this was asked first? */
static bool proved_now(struct job *job)
{
    struct peer *peer = job->peer;
    job->need_ms = job->need_ms ? job->need_ms : att_boottime_ms();
    if (peer->proved_ms < job->need_ms) {
        job->due = peer->prove_now = true;
        return false;
    }
    job->need_ms = 0;
    return true;
}

void spiffed_export_later(struct job *job, const struct att_err *err)
{
    spiffed_export_done(job);
    if (!job->sent) {
        spiffed_finish_err(job, ATT_E_UNREACHABLE, err);
        return;
    }
    job->due = true;
    job->retry_ms = att_boottime_ms() + RETRY_MS;
}

/* Decided by others, another agent, another key in force or no certificate: what was asked for then
 * is nobody's. */
static bool is_old(const struct job *job)
{
    const struct peer *peer = job->peer;
    const struct agent *agent = peer->agent;
    return job->entries != peer->spiffed->entries || !agent ||
           strcmp(job->agent, agent->name) != 0 || !agent->exportable || !agent->chain ||
           agent->not_after <= att_now_utc_s() || strcmp(job->key_id, agent->key_id) != 0;
}

/* A key that has just been retired, or is not active yet: keyd is ahead of what attestd knows. */
static bool is_final(enum att_rc rc, const struct att_err *err)
{
    return rc == ATT_E_DENIED && strcmp(err->reason, "keyState") != 0;
}

/* False: the call is over, or it begins anew. */
static bool goes_on(struct job *job, enum att_rc rc, const struct att_err *err)
{
    job->asking = NULL;
    if (grpc_call_finished(job->call)) {
        return false;
    }
    if (is_old(job)) {
        job->due = true;
        spiffed_peer_pump(job->peer);
    } else if (is_final(rc, err)) { /* not by the entry any more, frozen, not on this host */
        spiffed_finish_err(job, rc, err);
    } else if (rc != ATT_OK) {
        spiffed_export_later(job, err);
    } else {
        return true;
    }
    return false;
}

static void exported(void *user, enum att_rc rc, const struct proc_msg *reply,
                     const struct att_err *err)
{
    struct job *job = user;
    struct att_err why = {0};
    if (!goes_on(job, rc, err)) {
        return;
    }
    spiffed_export_done(job);
    job->key = ATT_BUF_INIT(PROC_EXPORT_MAX);
    att_buf_put_slice(&job->key, reply->v[PROC_SIGN_EXPORT_REP_PKCS8].bytes);
    if (att_buf_ok(&job->key, &why) != ATT_OK) {
        spiffed_export_later(job, &why);
        return;
    }
    job->due = true;
    spiffed_peer_pump(job->peer);
}

static void noted(void *user, enum att_rc rc, const struct proc_msg *reply,
                  const struct att_err *err)
{
    struct job *job = user;
    struct att_err why = {0};
    const struct proc_value values[] = {
        [PROC_SIGN_EXPORT_REQ_AGENT] = proc_text(job->agent),
        [PROC_SIGN_EXPORT_REQ_KEY_ID] = proc_text(job->key_id),
    };
    (void)reply;
    if (goes_on(job, rc, err) &&
        ask_call(job->peer->spiffed->keyd, PROC_SIGN_EXPORT, values, 2, -1, job->peer->agent,
                 exported, job, &job->asking, &why) != ATT_OK) {
        spiffed_export_later(job, &why);
    }
}

/* ---- questions ----------------------------------------------------------------------------- */

/* Each is a record that is written and a key that leaves keyd, also for who only asks. */
static bool has_rate(struct job *job)
{
    const struct peer *peer = job->peer;
    unsigned left_out;
    if (rate_take(&peer->share->exports, UID_EXPORTS_RATE, UID_EXPORTS_BURST, att_boottime_ms())) {
        return true;
    }
    if (spiffed_worth_a_line(peer->share, &left_out)) {
        att_log(ATT_WARN, "spiffed.limit", ATT_N("pid", peer->pid), ATT_N("uid", peer->uid),
                ATT_S("agent", peer->agent->name),
                ATT_S("message", "this user is given keys too fast"), ATT_N("leftOut", left_out));
    }
    const struct att_err err = {.rc = ATT_E_LIMIT,
                                .reason = "exportRate",
                                .msg = "this user has been given all keys of this second"};
    spiffed_export_later(job, &err);
    return false;
}

static void ask_attestd(struct job *job)
{
    struct agent *agent = job->peer->agent;
    struct att_err err = {0};
    const struct proc_value values[] = {
        [PROC_WORKLOAD_EXPORT_REQ_AGENT] = proc_text(agent->name),
        [PROC_WORKLOAD_EXPORT_REQ_KEY_ID] = proc_text(agent->key_id),
        [PROC_WORKLOAD_EXPORT_REQ_PID] = proc_num((uint64_t)job->peer->pid),
        [PROC_WORKLOAD_EXPORT_REQ_UID] = proc_num(job->peer->uid),
    };
    job->entries = job->peer->entries;
    memcpy(job->agent, agent->name, sizeof job->agent);
    memcpy(job->key_id, agent->key_id, sizeof job->key_id);
    if (ask_call(agent->spiffed->views, PROC_WORKLOAD_EXPORT, values, 4, -1, agent, noted, job,
                 &job->asking, &err) != ATT_OK) {
        spiffed_export_later(job, &err);
    }
}

bool spiffed_export_may(struct job *job, const char *stays)
{
    struct agent *agent = job->peer->agent;
    if (job->agent[0] && strcmp(job->agent, agent->name) != 0) {
        spiffed_finish(job, GRPC_PERMISSION_DENIED, "the caller became another agent meanwhile");
    } else if (!spiffed_agent_known(agent)) {
        spiffed_agent_refresh(agent);
    } else if (!agent->chain || agent->not_after <= att_now_utc_s()) {
        spiffed_finish(job, job->sent ? GRPC_PERMISSION_DENIED : GRPC_UNAVAILABLE,
                       "noCertificate: no certificate is in force");
    } else if (!agent->exportable) {
        spiffed_finish(job, GRPC_PERMISSION_DENIED, stays);
    } else if (!agent->spiffed->bundle.message) {
        spiffed_bundle_refresh(agent->spiffed);
    } else if (!spiffed_federation_known(agent->spiffed)) {
        spiffed_federation_refresh(agent->spiffed);
    } else {
        return true;
    }
    return false;
}

bool spiffed_export_key(struct job *job)
{
    if (job->key.len && is_old(job)) {
        spiffed_export_done(job);
    }
    if (!proved_now(job)) {
        return false;
    }
    if (job->key.len) {
        return true;
    }
    job->due = false; /* until there is an answer */
    if (has_rate(job)) {
        ask_attestd(job);
    }
    return false;
}
