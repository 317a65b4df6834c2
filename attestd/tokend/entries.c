/* Entries that change while connections are there. attestd is asked all the time whether it has
 * others now; when it has, each process that was granted an agent is decided about once more, with
 * the pidfd from its accept. Whoever is not the agent any more gets no signature and finds no
 * object, on a connection that stays: p11-kit's client would not survive its end, and an entry that
 * is put right makes it the agent again.
 *
 * An agent may have hundreds of processes. Of each user one is decided about at a time, and of all
 * of them as many as leave half of the links to newcomers. Next is whose process has asked for a
 * signature meanwhile, then the agent about which was decided longest ago: another agent's
 * signature waits for the one decision that is under way, its newcomers for none. */
#include "attestd/tokend/internal.h"

#include "attestd/base/clock.h"
#include "attestd/base/log.h"

#include <string.h>

#define RETRY_MS 200
#define UNDER_WAY_MAX                                                                              \
    4 /* decisions, of as many users: newcomers have the other half of the links */

static bool decided(const struct conn *conn)
{
    return conn->entries == conn->tokend->entries.now;
}

/* Granted an agent, and not another program since. */
static bool granted(const struct conn *conn)
{
    return conn->state == CONN_SERVING && conn->agent && !conn->dead && !conn->changed;
}

/* A decision is about a process; it has one identity, whatever the number of its connections. */
static bool same_process(const struct conn *a, const struct conn *b)
{
    return a->agent == b->agent && memcmp(a->identity, b->identity, sizeof a->identity) == 0;
}

void tokend_conn_mark(struct conn *conn, bool changed, bool unassigned)
{
    conn->agent->changed -= conn->changed || conn->unassigned;
    conn->changed = changed;
    conn->unassigned = unassigned;
    conn->agent->changed += conn->changed || conn->unassigned;
    conn->tokend->report.changed = true;
}

static void settle(const struct conn *about, bool unassigned)
{
    uint64_t asked = about->asked;
    for (struct conn *conn = about->tokend->conns; conn; conn = conn->next) {
        if (granted(conn) && same_process(conn, about)) {
            conn->entries = asked; /* where these are old, it is behind as long as before */
            conn->wanted = conn->wanted && !decided(conn);
            tokend_conn_mark(conn, false, unassigned);
        }
    }
}

/* Those whose signatures wait look whether they still have to: all of the agent's. */
static void wake(struct tokend *tokend, const struct agent *agent)
{
    for (struct conn *conn = tokend->conns; conn; conn = conn->next) {
        if (conn->wait == WAIT_DECISION && !conn->dead && conn->agent == agent) {
            tokend_request_look_again(conn);
        }
    }
}

static void tell(const struct conn *conn, bool unassigned, const struct att_err *err)
{
    if (unassigned != conn->unassigned) {
        att_log(unassigned ? ATT_WARN : ATT_INFO,
                unassigned ? "tokend.unassigned" : "tokend.assigned-again", ATT_N("pid", conn->pid),
                ATT_N("uid", conn->uid), ATT_S("agent", conn->agent->name),
                ATT_S("reason", err ? err->reason : ""), ATT_S("message", err ? err->msg : ""));
    }
}

static void end_decision(struct conn *conn)
{
    conn->again = NULL;
    conn->share->deciding = false;
    conn->tokend->entries.under_way--;
}

static void decided_again(void *user, enum att_rc rc, const struct proc_msg *reply,
                          const struct att_err *err)
{
    struct conn *conn = user;
    struct tokend *tokend = conn->tokend;
    struct agent *agent = conn->agent;
    end_decision(conn);
    if (rc == ATT_OK) {
        const struct proc_value *v = reply->v;
        bool same = att_slice_eq(v[PROC_WORKLOAD_IDENTIFY_REP_IDENTITY].bytes,
                                 ATT_SLICE_ARRAY(conn->identity));
        bool unassigned =
            !att_slice_eq_str(v[PROC_WORKLOAD_IDENTIFY_REP_AGENT].bytes, conn->agent->name);
        if (same) {
            tell(conn, unassigned, NULL);
            settle(conn, unassigned);
        } else {
            tokend_caller_changed(conn);
        }
    } else if (rc == ATT_E_DENIED || rc == ATT_E_NOTFOUND) {
        tell(conn, true, err);
        settle(conn, true);
    } else if (rc == ATT_E_GONE || !tokend_caller_alive(conn)) {
        tokend_conn_end(conn);
    } else { /* attestd or whod is away or busy */
        agent->retry_at_ms = att_boottime_ms() + RETRY_MS;
    }
    wake(tokend, agent);
    tokend_entries_decide(tokend);
}

static void decide(struct conn *conn)
{
    struct tokend *tokend = conn->tokend;
    const struct proc_value values[] = {
        {.num = (uint64_t)conn->pid},
        {.num = (uint64_t)conn->accepted_ms},
        {.bytes = ATT_SLICE_LIT(PROC_WORKLOAD_AGAIN)},
    };
    conn->asked = tokend->entries.now;
    conn->decided_at = conn->agent->decided_at = ++tokend->entries.made;
    if (tokend_upstream_call(tokend->attestd, PROC_WORKLOAD_IDENTIFY, values, conn->pidfd,
                             &conn->share->fair_again, IDENTIFY_MS, decided_again, conn,
                             &conn->again, NULL) == ATT_OK) {
        conn->share->deciding = true;
        tokend->entries.under_way++;
    } else {
        conn->agent->retry_at_ms = att_boottime_ms() + RETRY_MS;
    }
}

/* a before b? */
static bool sooner(const struct conn *a, const struct conn *b)
{
    return a->wanted != b->wanted ? a->wanted
           : a->agent->decided_at != b->agent->decided_at
               ? a->agent->decided_at < b->agent->decided_at
               : a->decided_at < b->decided_at;
}

static struct conn *next_to_decide(const struct tokend *tokend, int64_t now_ms, bool *ret_any)
{
    struct conn *best = NULL;
    *ret_any = false;
    for (struct conn *conn = tokend->conns; conn; conn = conn->next) {
        if (!granted(conn) || decided(conn)) {
            continue;
        }
        *ret_any = true;
        if (!conn->share->deciding && now_ms >= conn->agent->retry_at_ms &&
            (!best || sooner(conn, best))) {
            best = conn;
        }
    }
    return best;
}

void tokend_entries_decide(struct tokend *tokend)
{
    struct tokend_entries *entries = &tokend->entries;
    struct conn *next;
    while ((next = next_to_decide(tokend, att_boottime_ms(), &entries->pending)) &&
           entries->under_way < UNDER_WAY_MAX) {
        decide(next);
    }
}

void tokend_entries_forget(struct conn *conn)
{
    if (conn->again) {
        tokend_call_forget(conn->again);
        end_decision(conn);
    }
}

void tokend_entries_want(struct conn *conn)
{
    conn->wanted = !decided(conn);
}

bool tokend_entries_coming(const struct conn *conn)
{
    int64_t now_ms = att_boottime_ms();
    return now_ms >= conn->agent->retry_at_ms && now_ms - conn->waits_since_ms < DECISION_MS;
}

enum att_rc tokend_entries_check(const struct conn *conn, struct att_err *err)
{
    if (conn->unassigned) {
        (void)!att_fail(err, ATT_E_DENIED, "the entry of agent %s does not fit the caller any more",
                        conn->agent->name);
        att_err_reason(err, "notAssigned");
        return ATT_E_DENIED;
    }
    if (!decided(conn) && att_boottime_ms() - conn->behind_since_ms >= TOKEND_ENTRIES_MS) {
        (void)!att_fail(err, ATT_E_UNREACHABLE,
                        "the entries changed, and nobody has said who the caller is by them");
        att_err_reason(err, "notDecided");
        return ATT_E_UNREACHABLE;
    }
    return ATT_OK;
}

/* ---- are there others? ------------------------------------------------------------------------
 */

static void heard(void *user, enum att_rc rc, const struct proc_msg *reply,
                  const struct att_err *err)
{
    struct tokend *tokend = user;
    struct tokend_entries *entries = &tokend->entries;
    (void)err;
    entries->call = NULL;
    if (rc != ATT_OK) { /* away: what it said last holds */
        entries->ask_at_ms = att_boottime_ms() + RETRY_MS;
        return;
    }
    uint64_t now = reply->v[PROC_WORKLOAD_CHANGES_REP_ENTRIES].num;
    if (now && now != entries->now) {
        /* Who is behind already is so since then: further changes give nobody more time. */
        for (struct conn *conn = tokend->conns; conn; conn = conn->next) {
            if (decided(conn)) {
                conn->behind_since_ms = att_boottime_ms();
            }
        }
        entries->now = now;
        tokend_entries_decide(tokend);
    }
}

static void ask(struct tokend *tokend)
{
    struct tokend_entries *entries = &tokend->entries;
    const struct proc_value values[] = {[PROC_WORKLOAD_CHANGES_REQ_KNOWN] = {.num = entries->now}};
    if (!entries->call && att_boottime_ms() >= entries->ask_at_ms &&
        tokend_upstream_call(tokend->changes, PROC_WORKLOAD_CHANGES, values, -1, NULL,
                             PROC_CHANGES_WAIT_MS + VIEW_MS, heard, tokend, &entries->call,
                             NULL) != ATT_OK) {
        entries->ask_at_ms = att_boottime_ms() + RETRY_MS;
    }
}

void tokend_entries_tick(struct tokend *tokend)
{
    ask(tokend);
    if (tokend->entries.pending) {
        tokend_entries_decide(tokend);
        for (const struct agent *agent = tokend->agents; agent; agent = agent->next) {
            wake(tokend, agent); /* some have waited long enough */
        }
    }
}
