/* Who a peer is, before each message: attestd decides once and whenever the entries changed, whod
 * says at most once a second, and for each private key, that it is still the same program. */
#include "attestd/spiffe/service.h"

#include "attestd/base/clock.h"
#include "attestd/base/log.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

bool spiffed_peer_alive(const struct peer *peer)
{
    struct pollfd poll_fd = {.fd = peer->pidfd, .events = POLLIN};
    return poll(&poll_fd, 1, 0) == 0; /* readable: the process has ended */
}

static bool by_these_entries(const struct peer *peer)
{
    return peer->agent && peer->entries == peer->spiffed->entries;
}

bool spiffed_peer_proved(const struct peer *peer)
{
    return by_these_entries(peer) && att_boottime_ms() - peer->proved_ms < PROVED_MS &&
           spiffed_peer_alive(peer);
}

static bool has_due(const struct peer *peer)
{
    for (const struct job *job = peer->jobs; job; job = job->next) {
        if (job->due) {
            return true;
        }
    }
    return false;
}

/* Serving may end jobs, and with them their places in the list; some want a proof that is newer. */
static void serve_due(struct peer *peer)
{
    struct job *next;
    for (struct job *job = peer->jobs; job; job = next) {
        next = job->next;
        if (job->due && !grpc_call_finished(job->call)) {
            spiffed_job_serve(job);
        }
    }
    if (peer->prove_now) {
        peer->prove_now = false;
        peer->proved_ms = -PROVED_MS;
        spiffed_peer_pump(peer);
    }
}

/* ---- answers ------------------------------------------------------------------------------- */

static void finish_all(struct peer *peer, enum grpc_status status, const char *message)
{
    for (struct job *job = peer->jobs; job; job = job->next) {
        if (!spiffed_is_public(job)) {
            spiffed_finish(job, status, message);
        }
    }
}

static void nobody(struct peer *peer, const struct att_err *err)
{
    spiffed_agent_leave(peer->agent);
    peer->agent = NULL;
    spiffed_peer_count(peer, true);
    peer->prove_again = false;
    peer->denied_ms = att_boottime_ms();
    snprintf(peer->denied, sizeof peer->denied, "no agent's entry fits this process (%s)",
             err->reason[0] ? err->reason : "notAssigned");
    finish_all(peer, GRPC_PERMISSION_DENIED, peer->denied);
}

/* exec, another unit, another user: the stream was granted to somebody else. */
static void changed(struct peer *peer)
{
    att_log(ATT_WARN, "spiffed.caller-changed", ATT_N("pid", peer->pid), ATT_N("uid", peer->uid),
            ATT_S("agent", peer->agent ? peer->agent->name : ""));
    finish_all(peer, GRPC_PERMISSION_DENIED,
               "the caller is another program, unit or user than when it connected");
    peer->prove_again = false;
    grpc_conn_cut(peer->conn, NULL);
}

/* attestd or whod is away or busy: who got something keeps waiting for more, others are told. */
static void not_known(struct peer *peer, const struct att_err *err)
{
    unsigned left_out;
    if (spiffed_worth_a_line(peer->share, &left_out)) {
        att_log(ATT_WARN, "spiffed.not-identified", ATT_N("pid", peer->pid),
                ATT_N("uid", peer->uid), ATT_S("code", att_rc_name(err->rc)),
                ATT_S("reason", err->reason), ATT_S("message", err->msg),
                ATT_N("leftOut", left_out));
    }
    peer->retry_ms = att_boottime_ms() + RETRY_MS;
    for (struct job *job = peer->jobs; job; job = job->next) {
        if (job->due && !job->sent) {
            spiffed_finish_err(job, ATT_E_UNREACHABLE, err);
        }
    }
}

static void proved(struct peer *peer)
{
    peer->proved_ms = peer->asked_ms;
    peer->prove_again = peer->entries != peer->spiffed->entries;
    if (peer->prove_again) { /* decided by others: once more, before anything is served */
        spiffed_peer_pump(peer);
    } else {
        serve_due(peer);
    }
}

static void granted(struct peer *peer, const struct proc_msg *reply)
{
    const struct proc_value *v = reply->v;
    struct att_slice identity = v[PROC_WORKLOAD_IDENTIFY_REP_IDENTITY].bytes;
    if (peer->identified && !att_slice_eq(identity, ATT_SLICE_ARRAY(peer->identity))) {
        changed(peer);
        return;
    }
    struct agent *agent =
        spiffed_agent_join(peer->spiffed, v[PROC_WORKLOAD_IDENTIFY_REP_AGENT].bytes);
    if (!agent) {
        const struct att_err err = {.rc = ATT_E_NOMEM, .msg = "no memory"};
        not_known(peer, &err);
        return;
    }
    spiffed_agent_leave(peer->agent); /* after the join: it may be the same */
    peer->agent = agent;
    peer->entries = peer->asked;
    memcpy(peer->identity, identity.ptr, sizeof peer->identity);
    peer->identified = true;
    spiffed_peer_count(peer, false);
    proved(peer);
}

static void identified(void *user, enum att_rc rc, const struct proc_msg *reply,
                       const struct att_err *err)
{
    struct peer *peer = user;
    peer->asking = NULL;
    bool denied = rc == ATT_E_DENIED || rc == ATT_E_NOTFOUND;
    if (rc == ATT_OK) {
        granted(peer, reply);
    } else if (denied && peer->asked != peer->spiffed->entries) { /* by others */
        peer->prove_again = true;
        spiffed_peer_pump(peer);
    } else if (denied) {
        nobody(peer, err);
    } else if (rc == ATT_E_GONE || !spiffed_peer_alive(peer)) {
        grpc_conn_cut(peer->conn, NULL);
    } else {
        not_known(peer, err);
    }
}

static void checked(void *user, enum att_rc rc, const struct proc_msg *reply,
                    const struct att_err *err)
{
    struct peer *peer = user;
    peer->asking = NULL;
    if (rc == ATT_E_GONE || !spiffed_peer_alive(peer)) {
        grpc_conn_cut(peer->conn, NULL);
    } else if (rc != ATT_OK) {
        not_known(peer, err);
    } else if (reply->v[PROC_WHO_SAME_REP_SAME].num != 1) {
        changed(peer);
    } else {
        proved(peer);
    }
}

/* ---- questions ----------------------------------------------------------------------------- */

static enum att_rc ask_attestd(struct peer *peer, struct att_err *err)
{
    const struct proc_value values[] = {
        [PROC_WORKLOAD_IDENTIFY_REQ_PID] = proc_num((uint64_t)peer->pid),
        [PROC_WORKLOAD_IDENTIFY_REQ_ACCEPTED_MS] = proc_num((uint64_t)peer->accepted_ms),
        [PROC_WORKLOAD_IDENTIFY_REQ_SERVICE] =
            proc_text(peer->identified ? PROC_WORKLOAD_AGAIN_SPIFFE : "spiffe"),
    };
    peer->asked = peer->spiffed->entries;
    peer->asked_ms = att_boottime_ms();
    struct ask *ask = peer->identified ? peer->spiffed->again : peer->spiffed->who;
    return ask_call(ask, PROC_WORKLOAD_IDENTIFY, values, 3, peer->pidfd, peer->share, identified,
                    peer, &peer->asking, err);
}

static enum att_rc ask_whod(struct peer *peer, struct att_err *err)
{
    const struct proc_value values[] = {
        [PROC_WHO_SAME_REQ_PID] = proc_num((uint64_t)peer->pid),
        [PROC_WHO_SAME_REQ_IDENTITY] = proc_bytes(ATT_SLICE_ARRAY(peer->identity)),
    };
    peer->asked_ms = att_boottime_ms();
    return ask_call(peer->spiffed->same, PROC_WHO_SAME, values, 2, peer->pidfd, peer->share,
                    checked, peer, &peer->asking, err);
}

/* Everybody may have one, so nobody keeps one for nothing. */
static void end_idle_reflection(struct peer *peer, int64_t now)
{
    for (struct job *job = peer->jobs; job; job = job->next) {
        if (job->kind == JOB_REFLECTION && now - job->asked_ms > peer->spiffed->opts.slow_ms) {
            spiffed_finish(job, GRPC_DEADLINE_EXCEEDED, "nothing was asked for a while");
        }
    }
}

/* Who was told that it is nobody does not become somebody on the same connection (exec): it may
 * connect again, once what it was told is old or the entries are others. */
void spiffed_peer_step(struct peer *peer, bool tick)
{
    int64_t now = att_boottime_ms();
    bool told = peer->denied_ms &&
                (now - peer->denied_ms >= PROVED_MS || peer->asked != peer->spiffed->entries);
    if (tick) {
        end_idle_reflection(peer, now);
    }
    bool idle = !peer->agent && !peer->jobs && now - peer->idle_ms > peer->spiffed->opts.slow_ms;
    if (told || (tick && idle)) {
        grpc_conn_cut(peer->conn, NULL);
    }
}

void spiffed_peer_pump(struct peer *peer)
{
    int64_t now = att_boottime_ms();
    bool due = has_due(peer);
    if (peer->challenged || peer->asking || (!due && !(peer->prove_again && peer->jobs))) {
        return;
    }
    if (due && spiffed_peer_proved(peer)) {
        serve_due(peer);
        return;
    }
    if (now < peer->retry_ms) {
        return;
    }
    if (peer->denied_ms) { /* until it is cut: it may be another program by now */
        finish_all(peer, GRPC_PERMISSION_DENIED, peer->denied);
        return;
    }
    struct att_err err = {0};
    enum att_rc rc = by_these_entries(peer) ? ask_whod(peer, &err) : ask_attestd(peer, &err);
    if (rc != ATT_OK) {
        not_known(peer, &err);
    }
}
