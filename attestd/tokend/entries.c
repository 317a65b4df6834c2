/* Entries that change while connections are there. attestd is asked all the time whether it has
 * others now; when it has, each process that was granted an agent is decided about once more, with
 * the pidfd from its accept. Whoever is not the agent any more gets no signature and finds no
 * object, on a connection that stays: p11-kit's client would not survive its end, and an entry that
 * is put right makes it the agent again. */
#include "attestd/tokend/internal.h"

#include "attestd/base/clock.h"
#include "attestd/base/log.h"

#include <string.h>

#define RETRY_MS      200
#define UNDER_WAY_MAX 32 /* decisions; the queue is looked through for each */

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
    for (struct conn *conn = about->tokend->conns; conn; conn = conn->next) {
        if (granted(conn) && same_process(conn, about)) {
            conn->entries =
                about->asked; /* where these are old, too, it is behind as long as before */
            tokend_conn_mark(conn, false, unassigned);
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

static void decided_again(void *user, enum att_rc rc, const struct proc_msg *reply,
                          const struct att_err *err)
{
    struct conn *conn = user;
    struct tokend *tokend = conn->tokend;
    conn->again = NULL;
    tokend->entries.under_way--;
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
        tokend->entries.retry_at_ms = att_boottime_ms() + RETRY_MS;
    }
    tokend_entries_decide(tokend);
}

static void decide(struct conn *conn)
{
    struct tokend *tokend = conn->tokend;
    const struct proc_value values[] = {
        {.num = (uint64_t)conn->pid},
        {.num = (uint64_t)conn->accepted_ms},
        {.bytes = ATT_SLICE_LIT("pkcs11-again")},
    };
    conn->asked = tokend->entries.now;
    if (tokend_upstream_call(tokend->attestd, PROC_WORKLOAD_IDENTIFY, values, conn->pidfd,
                             &conn->agent->fair, IDENTIFY_MS, decided_again, conn, &conn->again,
                             NULL) == ATT_OK) {
        tokend->entries.under_way++;
    } else {
        tokend->entries.retry_at_ms = att_boottime_ms() + RETRY_MS;
    }
}

static bool being_decided(const struct conn *conn)
{
    for (const struct conn *other = conn->tokend->conns; other; other = other->next) {
        if (other->again && !other->dead && same_process(other, conn)) {
            return true;
        }
    }
    return false;
}

void tokend_entries_decide(struct tokend *tokend)
{
    struct tokend_entries *entries = &tokend->entries;
    bool wait = att_boottime_ms() < entries->retry_at_ms;
    entries->pending = false;
    for (struct conn *conn = tokend->conns; conn; conn = conn->next) {
        if (!granted(conn) || decided(conn)) {
            continue;
        }
        entries->pending = true;
        if (entries->under_way >= UNDER_WAY_MAX || wait) {
            return;
        }
        if (!being_decided(conn)) {
            decide(conn);
            wait = att_boottime_ms() < entries->retry_at_ms;
        }
    }
}

void tokend_entries_forget(struct conn *conn)
{
    if (conn->again) {
        conn->tokend->entries.under_way--;
        tokend_call_forget(conn->again);
        conn->again = NULL;
    }
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
        entries->retry_at_ms = 0;
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
    }
}
