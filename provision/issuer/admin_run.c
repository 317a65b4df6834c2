/* Running one operation: whose it is, that it is done once, four eyes, and its record. */
#include "provision/issuer/admin.h"

#include <stdio.h>
#include <string.h>

#define REFUSALS_MAX  128 /* records of one identity's in ISSUER_RECENT_S */
#define STRANGERS_MAX 32  /* of one address's without an identity */
#define STRANGERS_ALL 256 /* of all of these */
#define ROLELESS_MAX  32  /* of one address's identities that have no role */
#define ROLELESS_ALL  256 /* of all of these: anybody with an account at a provider has a name */

struct run {
    struct issuer_admin_call *call;
    const struct issuer_admin_op *op;
};

/* In the operation's own transaction, where it has one: what was refused may be asked again. */
static enum att_rc spend_request(const struct issuer_admin_call *call, const char *op,
                                 struct store_tx *tx, struct att_err *err)
{
    const struct issuer_who *who = call->who;
    uint8_t digest[ATT_SHA256_LEN];
    char hex[65];
    if (!who->remote) {
        return ATT_OK;
    }
    if (!who->request[0]) {
        return issuer_refuse(err, ATT_E_INVAL, "usage",
                             "\"id\": expected 16 to 64 of A-Z a-z 0-9 _ -, new for each request "
                             "that changes something");
    }
    att_autobuf text = {0};
    att_buf_printf(&text, "%s\n%s", who->identity, who->request);
    att_sha256(digest, att_buf_slice(&text));
    att_hex(hex, ATT_SLICE_ARRAY(digest));
    struct store_admin_request row = {.at = call->now};
    enum att_rc rc = issuer_set(&row.id, hex) && issuer_set(&row.op, op)
                         ? store_insert(tx, &store_admin_requests, &row, NULL)
                         : ATT_E_NOMEM;
    store_record_done(&store_admin_requests, &row);
    if (rc == ATT_E_EXISTS) {
        return issuer_refuse(err, ATT_E_CONFLICT, "requestDone",
                             "request %.64s was done before: nothing is done again", who->request);
    }
    return rc ? att_fail(err, rc, "the request cannot be remembered") : ATT_OK;
}

static bool is_dry(const struct issuer_admin_call *call)
{
    return json_is_true(json_object_get(call->args, "dryRun"));
}

static enum att_rc run_tx(void *user, struct store_tx *tx, struct att_err *err)
{
    struct run *r = user;
    struct issuer_admin_call *call = r->call;
    bool four_eyes = call->conf && call->conf->four_eyes;
    bool write = r->op->write && !is_dry(call);
    enum att_rc rc = write ? spend_request(call, r->op->op, tx, err) : ATT_OK;
    if (rc) {
        return rc;
    }
    if (write && four_eyes && issuer_duty_of(r->op->op, true).approver) {
        return issuer_proposal_make(call, r->op, tx, err);
    }
    return r->op->fn(call, tx, err);
}

/* Whether somebody else has to approve it. The socket takes an authority's steps at once. */
static bool is_proposed(const struct run *r)
{
    return r->op->write && r->call->who->remote && r->call->conf && r->call->conf->four_eyes &&
           issuer_duty_of(r->op->op, true).approver;
}

/* Of what takes its own transactions the request is spent first: what was refused, too, is asked
 * again with a new id. */
static enum att_rc spend_tx(void *user, struct store_tx *tx, struct att_err *err)
{
    const struct run *r = user;
    enum att_rc rc = spend_request(r->call, r->op->op, tx, err);
    return !rc && is_proposed(r) ? issuer_proposal_make(r->call, r->op, tx, err) : rc;
}

static enum att_rc run_steps(struct run *r, struct att_err *err)
{
    enum att_rc rc = r->op->write && r->call->who->remote
                         ? store_run(r->call->issuer->store, true, spend_tx, r, err)
                         : ATT_OK;
    return rc || is_proposed(r) ? rc : r->op->fn(r->call, NULL, err);
}

/* The approval of what takes its own transactions: looked at, carried out, and noted after it. */
static enum att_rc run_approval(struct run *r, struct att_err *err)
{
    struct issuer_approval approval = {.call = r->call};
    struct store *store = r->call->issuer->store;
    enum att_rc rc = store_run(store, true, spend_tx, r, err);
    rc = rc ? rc : store_run(store, false, issuer_approval_check, &approval, err);
    rc = rc ? rc : issuer_approval_carry_out(&approval, err);
    rc = rc ? rc : store_run(store, true, issuer_approval_note, &approval, err);
    issuer_approval_done(&approval);
    return rc;
}

/* ---- records of refusals --------------------------------------------------------------------- */

struct refusal {
    struct issuer *issuer;
    const struct issuer_who *who;
    const char *op;
    const struct att_err *why;
};

static enum att_rc record_tx(void *user, struct store_tx *tx, struct att_err *err)
{
    const struct refusal *r = user;
    json_t *record = issuer_record("admin", "refused",
                                   r->why->reason[0] ? r->why->reason : att_rc_name(r->why->rc),
                                   r->why->msg, r->op);
    issuer_who_put(record, r->who);
    return issuer_audit(tx, r->issuer->clock(), record, NULL, err);
}

/* Who is not known may not fill the log that is never cut. */
static bool may_record(struct issuer *issuer, const struct issuer_who *who)
{
    int64_t now = issuer->clock();
    struct issuer_limit *limit = issuer->limit;
    enum issuer_limit_kind kind = ISSUER_LIMIT_ADMIN_REFUSALS;
    issuer_autosettings *settings = issuer_settings_get(issuer);
    if (who->id[0] && issuer_who_bound(settings->conf->admin, who, NULL)) {
        return !issuer_limit_take_address(limit, kind, who->peer, ROLELESS_MAX, now) &&
               !issuer_limit_take(limit, kind, "roleless", ROLELESS_ALL, now);
    }
    if (who->id[0]) {
        uint8_t digest[ATT_SHA256_LEN];
        char key[65];
        att_sha256(digest, att_slice_str(who->identity));
        att_hex(key, ATT_SLICE_ARRAY(digest));
        return !issuer_limit_take(limit, kind, key, REFUSALS_MAX, now);
    }
    return !issuer_limit_take_address(limit, kind, who->peer, STRANGERS_MAX, now) &&
           !issuer_limit_take(limit, kind, "strangers", STRANGERS_ALL, now);
}

void issuer_admin_refused(struct issuer *issuer, const struct issuer_who *who, const char *op,
                          const struct att_err *why)
{
    struct refusal r = {issuer, who, op, why};
    struct att_err err = {0};
    if (may_record(issuer, who) && store_run(issuer->store, true, record_tx, &r, &err)) {
        att_log_err(ATT_ERROR, "admin.unrecorded", &err);
    }
}

static void tell(const struct issuer_who *who, const char *op, enum att_rc rc,
                 const struct att_err *err)
{
    att_log(rc ? ATT_WARN : ATT_INFO, "admin", ATT_S("op", op), ATT_N("uid", who->uid),
            ATT_S("who", who->identity), ATT_S("address", who->peer),
            ATT_S("outcome", rc ? "refused" : "done"), ATT_S("reason", rc ? err->reason : ""),
            ATT_S("detail", rc ? err->msg : ""));
}

/* ---- running --------------------------------------------------------------------------------- */

static enum att_rc run(struct issuer_admin_call *call, const struct issuer_admin_op *op,
                       struct att_err *err)
{
    const struct issuer_duty duty = issuer_duty_of(op->op, op->write);
    struct run r = {call, op};
    bool steps = false;
    enum att_rc rc =
        issuer_scope_enter(call->conf, call->who, duty.roles, duty.reach, &call->scope, err);
    if (!rc && strcmp(op->op, "proposal.approve") == 0) {
        rc = issuer_approval_in_steps(call, &steps, err);
    }
    if (rc) {
        return rc;
    }
    if (steps) {
        rc = run_approval(&r, err);
    } else {
        rc = op->store ? store_run(call->issuer->store, op->write, run_tx, &r, err)
                       : run_steps(&r, err);
    }
    if (!rc && call->wake) {
        issuer_view_wake(call->issuer);
    }
    return rc;
}

enum att_rc issuer_admin_run(struct issuer *issuer, const struct issuer_who *who, const char *name,
                             const json_t *args, json_t **ret_result, struct att_err *err)
{
    struct issuer_admin_op op;
    struct att_err why = {0};
    issuer_autosettings *settings = issuer_settings_get(issuer);
    enum att_rc rc = issuer_admin_op_find(name, args, &op, err);
    if (rc) {
        return rc;
    }
    struct issuer_admin_call call = {.issuer = issuer,
                                     .args = args,
                                     .who = who,
                                     .conf = settings->conf->admin,
                                     .now = issuer->clock(),
                                     .result = json_object()};
    rc = run(&call, &op, &why);
    if (op.write || rc || who->remote) {
        tell(who, name, rc, &why);
    }
    if (rc && (op.write || rc == ATT_E_DENIED)) {
        issuer_admin_refused(issuer, who, name, &why);
    }
    if (rc) {
        json_decref(call.result);
        if (err) {
            *err = why;
        }
        return rc;
    }
    *ret_result = call.result;
    return ATT_OK;
}

enum att_rc issuer_admin(void *user, const struct att_ctl_peer *peer, const char *op,
                         const json_t *args, json_t **ret_result, struct att_err *err)
{
    struct issuer *issuer = user;
    struct issuer_who who;
    issuer_autosettings *settings = issuer_settings_get(issuer);
    issuer_who_local(&who, settings->conf->admin, peer);
    return issuer_admin_run(issuer, &who, op, args, ret_result, err);
}
