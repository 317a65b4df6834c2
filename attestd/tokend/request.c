/* What a token asks: its agent's view, or a signature. Before each signature the caller must still
 * be who it was when it connected. */
#include "attestd/tokend/internal.h"

#include "attestd/base/clock.h"
#include "attestd/base/log.h"

#include <poll.h>
#include <string.h>

bool tokend_caller_alive(const struct conn *conn)
{
    struct pollfd poll_fd = {.fd = conn->pidfd, .events = POLLIN};
    return poll(&poll_fd, 1, 0) == 0; /* readable: the process has ended */
}

/* ---- the signature
 * ---------------------------------------------------------------------------------- */

static void refuse_changed(struct conn *conn)
{
    struct att_err err = {0};
    enum att_rc rc =
        att_fail(&err, ATT_E_DENIED, "the caller is another program, unit or user now");
    att_err_reason(&err, "callerChanged");
    tokend_conn_reply_err(conn, rc, &err);
}

/* Answers by itself who must not sign, and has those wait of whom it is not known yet. Asked before
 * each step, for each may have waited. */
static bool held_back(struct conn *conn)
{
    struct att_err err = {0};
    if (conn->changed) {
        refuse_changed(conn);
        return true;
    }
    enum att_rc rc = tokend_entries_check(conn, &err);
    if (rc == ATT_E_UNREACHABLE && tokend_entries_coming(conn)) {
        conn->wait = WAIT_DECISION;
    } else if (rc != ATT_OK) {
        tokend_conn_reply_err(conn, rc, &err);
    }
    return rc != ATT_OK;
}

static void signed_by_keyd(void *user, enum att_rc rc, const struct proc_msg *reply,
                           const struct att_err *err)
{
    struct conn *conn = user;
    conn->call = NULL;
    if (rc == ATT_OK && held_back(conn)) {
        return;
    }
    if (rc == ATT_OK) {
        const struct proc_value values[] = {reply->v[PROC_SIGN_REP_SIGNATURE]};
        conn->tokend->counts.signatures++;
        tokend_conn_reply(conn, values);
        return;
    }
    if (rc == ATT_E_NOTFOUND) {
        tokend_agent_outdated(conn->agent);
    }
    /* "gone" here is keyd's device; to the token it would mean tokend. */
    tokend_conn_reply_err(conn, rc == ATT_E_GONE ? ATT_E_UNREACHABLE : rc, err);
}

static void ask_keyd(struct conn *conn)
{
    struct att_err err = {0};
    struct att_slice digest = ATT_SLICE(conn->digest, conn->digest_len);
    const struct proc_value ecdsa[] = {{.bytes = att_slice_str(conn->agent->name)},
                                       {.bytes = att_slice_str(conn->key_id)},
                                       {.bytes = digest}};
    const struct proc_value rsa[] = {{.bytes = att_slice_str(conn->agent->name)},
                                     {.bytes = att_slice_str(conn->key_id)},
                                     {.num = conn->scheme},
                                     {.bytes = digest}};
    conn->wait = WAIT_SIGN;
    struct agent *agent = conn->agent;
    struct tokend_upstream *keyd = agent->hsm ? agent->hsm : conn->tokend->keyd;
    struct tokend_fair *fair = agent->hsm ? &agent->fair_sign_hsm : &agent->fair_sign;
    enum att_rc rc = tokend_upstream_call(keyd, conn->scheme ? PROC_SIGN_SIGN_RSA : PROC_SIGN_SIGN,
                                          conn->scheme ? rsa : ecdsa, -1, fair, SIGN_MS,
                                          signed_by_keyd, conn, &conn->call, &err);
    if (rc != ATT_OK) {
        tokend_conn_reply_err(conn, rc, &err);
    }
}

/* ---- is it still the one?
 * ----------------------------------------------------------------------------- */

void tokend_caller_changed(struct conn *conn)
{
    tokend_conn_mark(conn, true, conn->unassigned);
    att_log(ATT_WARN, "tokend.caller-changed", ATT_N("pid", conn->pid), ATT_N("uid", conn->uid),
            ATT_S("agent", conn->agent->name));
}

static void checked(void *user, enum att_rc rc, const struct proc_msg *reply,
                    const struct att_err *err)
{
    struct conn *conn = user;
    conn->call = NULL;
    if (rc == ATT_E_GONE || !tokend_caller_alive(conn)) {
        tokend_conn_end(conn);
    } else if (rc != ATT_OK) {
        tokend_conn_reply_err(conn, rc, err);
    } else if (reply->v[PROC_WHO_SAME_REP_SAME].num != 1) {
        tokend_caller_changed(conn);
        refuse_changed(conn);
    } else {
        conn->same_at_ms = att_boottime_ms();
        if (!held_back(conn)) {
            ask_keyd(conn);
        }
    }
}

static void ask_whod(struct conn *conn)
{
    struct att_err err = {0};
    const struct proc_value values[] = {{.num = (uint64_t)conn->pid},
                                        {.bytes = ATT_SLICE_ARRAY(conn->identity)}};
    conn->wait = WAIT_SAME;
    enum att_rc rc =
        tokend_upstream_call(conn->tokend->whod, PROC_WHO_SAME, values, conn->pidfd,
                             &conn->agent->fair_same, SAME_MS, checked, conn, &conn->call, &err);
    if (rc != ATT_OK) {
        tokend_conn_reply_err(conn, rc, &err);
    }
}

/* False: the caller has ended. */
static bool go_on(struct conn *conn)
{
    if (!tokend_caller_alive(conn)) {
        return false;
    }
    if (held_back(conn)) {
        return true;
    }
    if (att_boottime_ms() - conn->same_at_ms < SAME_FRESH_MS) {
        ask_keyd(conn);
    } else {
        ask_whod(conn);
    }
    return true;
}

static bool begin_signature(struct conn *conn, bool rsa, const struct proc_msg *request)
{
    _Static_assert((int)TOKEND_SIGN_RSA_REQ_KEY_ID == (int)TOKEND_SIGN_REQ_KEY_ID, "one reader");
    struct att_slice key_id = request->v[TOKEND_SIGN_REQ_KEY_ID].bytes;
    struct att_slice digest =
        request->v[rsa ? TOKEND_SIGN_RSA_REQ_DIGEST : TOKEND_SIGN_REQ_DIGEST].bytes;
    conn->scheme = rsa ? (uint32_t)request->v[TOKEND_SIGN_RSA_REQ_SCHEME].num : 0;
    if (!proc_key_id_ok(key_id)) {
        return false;
    }
    memcpy(conn->key_id, key_id.ptr, key_id.len);
    conn->key_id[key_id.len] = 0;
    memcpy(conn->digest, digest.ptr, digest.len);
    conn->digest_len = digest.len;
    conn->waits_since_ms = att_boottime_ms();
    tokend_entries_want(conn);
    return go_on(conn);
}

/* One whose signature was made while its decision became due begins anew: what was made then is
 * nobody's. */
void tokend_request_look_again(struct conn *conn)
{
    conn->wait = WAIT_NOTHING;
    if (!go_on(conn)) {
        tokend_conn_end(conn);
    }
}

/* ---- dispatch
 * ------------------------------------------------------------------------------------------- */

static void say_why(const struct conn *conn, struct att_slice why)
{
    char text[TOKEND_WHY_MAX + 1] = "";
    memcpy(text, why.ptr, why.len);
    conn->tokend->counts.refused++;
    att_log(ATT_WARN, "tokend.connection-refused", ATT_N("pid", conn->pid), ATT_N("uid", conn->uid),
            ATT_S("agent", conn->agent ? conn->agent->name : ""), ATT_S("message", text));
}

/* False: not a request of ours, or the caller has ended; the connection ends. */
bool tokend_request(struct conn *conn, const struct proc_frame *frame)
{
    struct proc_msg *msg = &conn->tokend->msg;
    const struct proc_op *op = proc_op_find(tokend_inner_table, frame->op);
    if (!op || conn->wait != WAIT_NOTHING ||
        proc_msg_parse(&op->request, frame->payload, msg, NULL) != ATT_OK) {
        return false;
    }
    conn->frame_id = frame->id;
    conn->frame_op = frame->op;
    if (op->op == TOKEND_INNER_BYE) {
        say_why(conn, msg->v[TOKEND_BYE_REQ_WHY].bytes);
        return false;
    }
    if (!conn->agent) { /* it has no slot, so no reason to ask */
        return false;
    }
    if (op->op == TOKEND_INNER_SIGN || op->op == TOKEND_INNER_SIGN_RSA) {
        return begin_signature(conn, op->op == TOKEND_INNER_SIGN_RSA, msg);
    }
    if (conn->unassigned) { /* nothing is there for it */
        tokend_conn_reply_err(conn, ATT_E_NOTFOUND, NULL);
        return true;
    }
    conn->known = msg->v[TOKEND_VIEW_REQ_KNOWN].num;
    tokend_agent_view(conn);
    return true;
}
