/* Agents with connections, and the view of each: kept for a second while attestd answers (less
 * where its key turns out to be gone), and as long as its certificate lasts while attestd is away.
 */
#include "attestd/tokend/internal.h"

#include "attestd/base/clock.h"
#include "attestd/tokend/own.h"

#include <string.h>

struct agent *tokend_agent_join(struct tokend *tokend, struct att_slice name)
{
    struct agent *agent = tokend->agents;
    while (agent && !att_slice_eq_str(name, agent->name)) {
        agent = agent->next;
    }
    if (!agent) {
        agent = name.len < sizeof agent->name ? tokend_own_new(sizeof *agent) : NULL;
        if (!agent) {
            return NULL;
        }
        memcpy(agent->name, name.ptr, name.len);
        agent->tokend = tokend;
        agent->view = tokend_own_buf(PROC_FRAME_MAX);
        agent->next = tokend->agents;
        tokend->agents = agent;
    }
    agent->connections++;
    return agent;
}

void tokend_agent_leave(struct agent *agent)
{
    if (--agent->connections) {
        return;
    }
    struct agent **at = &agent->tokend->agents;
    while (*at != agent) {
        at = &(*at)->next;
    }
    *at = agent->next;
    tokend_call_forget(agent->asking);
    tokend_own_buf_free(&agent->view);
    tokend_own_free(agent, sizeof *agent);
}

/* ---- answering ----------------------------------------------------------------------------------
 */

static void answer_none(struct conn *conn)
{
    struct att_err err = {0};
    enum att_rc rc = att_fail(&err, ATT_E_NOTFOUND, "no certificate is in force");
    att_err_reason(&err, "noCertificate");
    tokend_conn_reply_err(conn, rc, &err);
}

static void answer(struct conn *conn)
{
    const struct agent *agent = conn->agent;
    const struct proc_op *op = proc_op_find(tokend_inner_table, TOKEND_INNER_VIEW);
    if (agent->view.len == 0 || agent->not_after <= att_now_utc_s()) {
        answer_none(conn);
    } else if (conn->known == agent->generation) {
        const struct proc_value same[] = {{.num = 1}, {0}, {0}, {0}, {0}, {.num = conn->known}};
        tokend_conn_reply(conn, same);
    } else if (proc_msg_parse(&op->reply, att_buf_slice(&agent->view), &conn->tokend->msg, NULL) ==
               ATT_OK) {
        tokend_conn_reply(conn, conn->tokend->msg.v);
    } else {
        answer_none(conn);
    }
}

static void answer_all(struct agent *agent, enum att_rc rc, const struct att_err *err)
{
    for (struct conn *conn = agent->tokend->conns; conn; conn = conn->next) {
        if (conn->agent == agent && conn->wait == WAIT_VIEW && !conn->dead) {
            if (rc == ATT_OK) {
                answer(conn);
            } else {
                tokend_conn_reply_err(conn, rc, err);
            }
        }
    }
}

/* ---- asking
 * -------------------------------------------------------------------------------------- */

static bool keep(struct agent *agent, const struct proc_msg *reply)
{
    const struct proc_value *v = reply->v;
    const struct proc_value values[] = {
        {.num = 0},
        v[PROC_WORKLOAD_VIEW_REP_SPIFFE_ID],
        v[PROC_WORKLOAD_VIEW_REP_KEY_ID],
        v[PROC_WORKLOAD_VIEW_REP_CHAIN],
        v[PROC_WORKLOAD_VIEW_REP_BUNDLE],
        v[PROC_WORKLOAD_VIEW_REP_GENERATION],
    };
    const struct proc_op *op = proc_op_find(tokend_inner_table, TOKEND_INNER_VIEW);
    att_buf_reset(&agent->view);
    if (proc_msg_encode(&op->reply, values, &agent->view, NULL) != ATT_OK) {
        att_buf_reset(&agent->view);
        return false;
    }
    /* 0 means "none" to a token. */
    agent->generation = v[PROC_WORKLOAD_VIEW_REP_GENERATION].num;
    agent->not_after = (int64_t)v[PROC_WORKLOAD_VIEW_REP_NOT_AFTER].num;
    struct tokend_upstream *hsm =
        att_slice_eq_str(v[PROC_WORKLOAD_VIEW_REP_KEY_STORE].bytes, "hsm")
            ? tokend_hsms_get(agent->tokend, v[PROC_WORKLOAD_VIEW_REP_HSM].bytes)
            : NULL;
    if (hsm != agent->hsm) { /* each module's links count by a clock of their own */
        agent->fair_sign_hsm.served = 0;
    }
    agent->hsm = hsm;
    return true;
}

static void viewed(void *user, enum att_rc rc, const struct proc_msg *reply,
                   const struct att_err *err)
{
    struct agent *agent = user;
    agent->asking = NULL;
    if (rc == ATT_OK && keep(agent, reply)) {
        agent->fetched_at_ms = att_boottime_ms();
    } else if (rc == ATT_E_NOTFOUND || rc == ATT_E_DENIED) {
        att_buf_reset(&agent->view);
        agent->fetched_at_ms = att_boottime_ms();
        rc = ATT_OK; /* "no certificate" is an answer */
    } else if (agent->view.len) {
        agent->fetched_at_ms = att_boottime_ms(); /* attestd is away: what it said last holds */
        rc = ATT_OK;
    }
    agent->fetched = agent->fetched || rc == ATT_OK;
    answer_all(agent, rc, err);
}

void tokend_agent_outdated(struct agent *agent)
{
    agent->outdated = true;
}

static bool is_fresh(const struct agent *agent)
{
    return agent->fetched && !agent->outdated &&
           att_boottime_ms() - agent->fetched_at_ms < VIEW_FRESH_MS;
}

void tokend_agent_view(struct conn *conn)
{
    struct agent *agent = conn->agent;
    struct tokend *tokend = conn->tokend;
    struct att_err err = {0};
    conn->wait = WAIT_VIEW;
    if (is_fresh(agent)) {
        answer(conn);
        return;
    }
    if (agent->asking) {
        return;
    }
    agent->outdated = false; /* what is asked from here on is as of now */
    const struct proc_value values[] = {{.bytes = att_slice_str(agent->name)}};
    enum att_rc rc =
        tokend_upstream_call(tokend->views, PROC_WORKLOAD_VIEW_HSM, values, -1, &agent->fair_view,
                             VIEW_MS, viewed, agent, &agent->asking, &err);
    if (rc != ATT_OK) {
        tokend_conn_reply_err(conn, rc, &err);
    }
}
