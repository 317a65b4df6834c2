/* proposal.*: what one person registered and another approves, whole or not at all. */
#include "provision/issuer/admin.h"
#include "provision/issuer/generations.h"
#include "provision/issuer/jwt.h"
#include "provision/issuer/rotate.h"

#include <stdio.h>
#include <string.h>

#define OPEN_MAX      256 /* all of them */
#define OPEN_MINE_MAX 64
#define DAY_MINE_MAX  256 /* one identity's of 24 hours, decided or not */
#define DAY_S         86400
#define ARGS_BYTES    ((size_t)1 << 20) /* as JSON: what is proposed can be read, too */

/* ---- four eyes ------------------------------------------------------------------------------- */

enum att_rc issuer_four_eyes(const struct issuer_admin_call *call, const struct store_host *host,
                             struct att_err *err)
{
    if (!call->conf || !call->conf->four_eyes) {
        return ATT_OK;
    }
    if (issuer_who_is(call->who, call->conf, host->registered_by)) {
        return issuer_refuse(err, ATT_E_CONFLICT, "fourEyes",
                             "host %.12s was registered by %.200s: somebody else has to approve it",
                             host->id, call->who->identity);
    }
    att_autojson *notes = issuer_json(host->notes);
    if (strcmp(host->state, STORE_HOST_BANNED) == 0 &&
        issuer_who_is(call->who, call->conf, issuer_string(notes, ISSUER_BANNED_BY))) {
        return issuer_refuse(err, ATT_E_CONFLICT, "fourEyes",
                             "host %.12s was banned by %.200s: somebody else has to approve it",
                             host->id, call->who->identity);
    }
    /* One that was approved before is pending for a reason. */
    bool fresh = strcmp(host->state, STORE_HOST_PENDING) == 0 && !host->reason[0];
    bool relabels = issuer_arg(call, "label") || json_object_get(call->args, "labels");
    if (relabels && !fresh) {
        return issuer_refuse(err, ATT_E_CONFLICT, "fourEyes",
                             "host %.12s is no new one: its labels change by host import, which "
                             "somebody else approves",
                             host->id);
    }
    return ATT_OK;
}

/* ---- what it would do ------------------------------------------------------------------------ */

static void digest_text(const char *text, char ret[65])
{
    uint8_t digest[ATT_SHA256_LEN];
    att_sha256(digest, att_slice_str(text));
    att_hex(ret, ATT_SLICE_ARRAY(digest));
}

/* The newest of the keys that sign tokens: the one that is replaced. */
static enum att_rc jwt_effect(struct store_tx *tx, json_t **ret_effect, struct att_err *err)
{
    att_autojson *keys = NULL;
    enum att_rc rc = issuer_jwt_public(tx, NULL, &keys, err);
    size_t n = json_array_size(keys);
    const char *kid = n ? issuer_string(json_array_get(keys, n - 1), "kid") : "";
    *ret_effect = rc ? NULL : json_pack("{s:s, s:s}", "step", "replace", "kid", kid);
    return rc || *ret_effect ? rc : att_fail(err, ATT_E_NOMEM, "no memory");
}

/* A step of an authority's rotation is what it is where the authorities stand: any other step that
 * was taken since makes it another one. Of ca.rotate it says which one is due. */
static enum att_rc step_effect(const struct issuer_admin_call *call, const char *op,
                               struct store_tx *tx, json_t **ret_effect, struct att_err *err)
{
    int64_t number = 0;
    if (strcmp(op, "ca.jwt.replace") == 0) {
        return jwt_effect(tx, ret_effect, err);
    }
    enum att_rc rc = issuer_generations_number(tx, &number, err);
    if (rc) {
        return rc;
    }
    *ret_effect = json_pack("{s:I}", "authorities", (json_int_t)number);
    if (!*ret_effect) {
        return att_fail(err, ATT_E_NOMEM, "no memory");
    }
    return strcmp(op, "ca.rotate") == 0 ? issuer_rotate_due(call, tx, *ret_effect, err) : ATT_OK;
}

static enum att_rc effect_of_step(const struct issuer_admin_call *call, const char *op,
                                  struct store_tx *tx, char ret_effect[65], json_t **ret_result,
                                  struct att_err *err)
{
    att_autojson *effect = NULL;
    enum att_rc rc = step_effect(call, op, tx, &effect, err);
    issuer_autofree *text = rc ? NULL : issuer_json_text(effect);
    if (!rc && !text) {
        rc = att_fail(err, ATT_E_NOMEM, "no memory");
    }
    if (!rc) {
        digest_text(text, ret_effect);
        if (ret_result) {
            *ret_result = json_incref(effect);
        }
    }
    return rc;
}

/* Runs it dry as whoever is in the call. ret_effect: "" where the operation cannot say. */
static enum att_rc effect_of(const struct issuer_admin_call *call, const struct issuer_admin_op *op,
                             struct store_tx *tx, char ret_effect[65], json_t **ret_result,
                             struct att_err *err)
{
    ret_effect[0] = 0;
    if (strncmp(op->op, "ca.", 3) == 0) {
        return effect_of_step(call, op->op, tx, ret_effect, ret_result, err);
    }
    if (!issuer_duty_of(op->op, true).dry_run) {
        return ATT_OK;
    }
    att_autojson *args = json_copy((json_t *)(uintptr_t)call->args);
    att_autojson *result = json_object();
    struct issuer_admin_call dry = *call;
    json_object_set_new(args, "dryRun", json_true());
    dry.args = args;
    dry.result = result;
    enum att_rc rc = op->fn(&dry, tx, err);
    if (rc) {
        return rc;
    }
    att_autojson *told = json_copy(result);
    json_object_del(told, "version"); /* of the view: others' changes move it, too */
    json_object_del(told, "warnings");
    issuer_autofree *text = issuer_json_text(told);
    if (!text) {
        return att_fail(err, ATT_E_NOMEM, "no memory");
    }
    digest_text(text, ret_effect);
    if (ret_result) {
        *ret_result = json_incref(result);
    }
    return ATT_OK;
}

/* ---- making ---------------------------------------------------------------------------------- */

static json_t *proposal_json(const struct store_proposal *p, int64_t now)
{
    bool over = strcmp(p->state, STORE_PROPOSAL_OPEN) == 0 && p->expires_at <= now;
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:o, s:o, s:o}", "id", p->id, "op", p->op,
                     "state", over ? "expired" : p->state, "sha256", p->sha256, "by", p->by_who,
                     "decidedBy", p->decided_by, "reason", p->reason, "createdAt",
                     issuer_time_json(p->created_at), "expiresAt", issuer_time_json(p->expires_at),
                     "decidedAt", issuer_time_json(p->decided_at));
}

struct open_count {
    const struct issuer_admin_call *call;
    unsigned all, mine, today;
};

static enum att_rc count_open(void *user, const void *record, struct att_err *err)
{
    struct open_count *c = user;
    const struct store_proposal *p = record;
    (void)err;
    if (p->expires_at > c->call->now) {
        c->all++;
        c->mine += issuer_who_is(c->call->who, c->call->conf, p->by_who);
    }
    return ATT_OK;
}

static enum att_rc count_made(void *user, const void *record, struct att_err *err)
{
    struct open_count *c = user;
    const struct store_proposal *p = record;
    (void)err;
    c->today += issuer_who_is(c->call->who, c->call->conf, p->by_who);
    return ATT_OK;
}

static enum att_rc check_room(const struct issuer_admin_call *call, struct store_tx *tx,
                              struct att_err *err)
{
    struct open_count c = {.call = call};
    enum att_rc rc = store_proposal_list(tx, STORE_PROPOSAL_OPEN, INT64_MIN, NULL, INT64_MAX,
                                         count_open, &c, err);
    rc =
        rc ? rc
           : store_proposal_list(tx, NULL, call->now - DAY_S, NULL, INT64_MAX, count_made, &c, err);
    if (!rc && (c.all >= OPEN_MAX || c.mine >= OPEN_MINE_MAX)) {
        rc = issuer_refuse(err, ATT_E_CONFLICT, "proposalsFull",
                           "%u proposals are open, %u of them yours; at most %d and %d", c.all,
                           c.mine, OPEN_MAX, OPEN_MINE_MAX);
    }
    if (!rc && c.today >= DAY_MINE_MAX) {
        rc = issuer_refuse(err, ATT_E_CONFLICT, "proposalsFull",
                           "%u proposals of the last 24 hours are yours; at most %d", c.today,
                           DAY_MINE_MAX);
    }
    return rc;
}

static enum att_rc record(struct issuer_admin_call *call, struct store_tx *tx,
                          const struct store_proposal *p, const char *what, struct att_err *err)
{
    json_t *json = issuer_record("proposal", "done", p->reason, what, p->id);
    json_object_set_new(json, "op", json_string(p->op));
    json_object_set_new(json, "sha256", json_string(p->sha256));
    json_object_set_new(json, "by", json_string(p->by_who));
    return issuer_admin_audit(call, tx, json, err);
}

enum att_rc issuer_proposal_make(struct issuer_admin_call *call, const struct issuer_admin_op *op,
                                 struct store_tx *tx, struct att_err *err)
{
    char id[ISSUER_ID_LEN], effect[65], sha256[65];
    issuer_autofree *args = issuer_json_text(call->args);
    struct store_proposal p = {.created_at = call->now,
                               .expires_at = call->now + call->conf->proposal_lifetime_s};
    enum att_rc rc = args ? check_room(call, tx, err) : att_fail(err, ATT_E_NOMEM, "no memory");
    if (!rc && strlen(args) > ARGS_BYTES) {
        rc = issuer_refuse(err, ATT_E_LIMIT, "proposalSize",
                           "%s: its arguments have %zu bytes as JSON, a proposal has at most %zu",
                           op->op, strlen(args), ARGS_BYTES);
    }
    rc = rc ? rc : effect_of(call, op, tx, effect, NULL, err);
    rc = rc ? rc : issuer_new_id(id, err);
    if (rc) {
        return rc;
    }
    digest_text(args, sha256);
    bool ok = issuer_set(&p.id, id) && issuer_set(&p.op, op->op) && issuer_set(&p.args, args) &&
              issuer_set(&p.sha256, sha256) && issuer_set(&p.effect, effect) &&
              issuer_set(&p.state, STORE_PROPOSAL_OPEN) &&
              issuer_set(&p.by_who, call->who->identity) && issuer_set(&p.by_id, call->who->id) &&
              issuer_set(&p.decided_by, "") && issuer_set(&p.reason, "");
    rc = ok ? store_insert(tx, &store_proposals, &p, err) : att_fail(err, ATT_E_NOMEM, "no memory");
    rc = rc ? rc : record(call, tx, &p, "proposed", err);
    if (!rc) {
        json_object_set_new(call->result, "proposal", proposal_json(&p, call->now));
    }
    store_record_done(&store_proposals, &p);
    return rc;
}

/* ---- reading --------------------------------------------------------------------------------- */

struct listing {
    struct issuer_page page;
    const char *state;
};

static enum att_rc add(void *user, const void *row, struct att_err *err)
{
    struct listing *l = user;
    const struct store_proposal *p = row;
    (void)err;
    if (!issuer_page_take(&l->page, p->id, 1024 + strlen(p->reason))) {
        return ATT_OK;
    }
    att_autojson *json = proposal_json(p, l->page.call->now);
    if (!l->state || strcmp(l->state, issuer_string(json, "state")) == 0) {
        json_array_append(l->page.list, json);
    }
    return ATT_OK;
}

static bool is_proposal_id(const char *text)
{
    size_t n = strlen(text);
    return n >= 1 && n < ISSUER_ID_LEN &&
           strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") == n;
}

enum att_rc issuer_admin_proposal_list(struct issuer_admin_call *call, struct store_tx *tx,
                                       struct att_err *err)
{
    struct listing l = {.state = issuer_arg(call, "state")};
    enum att_rc rc = issuer_page_begin(call, "proposals", 0, &l.page, err);
    if (!rc && l.page.after && !is_proposal_id(l.page.after)) {
        rc = issuer_refuse(err, ATT_E_INVAL, "usage",
                           "after: expected a proposal's id, found \"%.40s\"", l.page.after);
    }
    rc =
        rc ? rc
           : store_proposal_list(tx, NULL, INT64_MIN, l.page.after, l.page.limit + 1, add, &l, err);
    return rc ? rc : issuer_page_end(&l.page, err);
}

static enum att_rc load(const struct issuer_admin_call *call, struct store_tx *tx,
                        struct store_proposal *ret, struct att_err *err)
{
    const char *id = issuer_arg(call, "id");
    enum att_rc rc = store_get(tx, &store_proposals, id, ret, NULL);
    if (rc) {
        return rc == ATT_E_NOTFOUND
                   ? issuer_refuse(err, rc, "proposalUnknown", "there is no proposal %.64s", id)
                   : att_fail(err, rc, "proposals cannot be read");
    }
    return ATT_OK;
}

static enum att_rc read_op(const struct store_proposal *p, struct issuer_admin_op *ret_op,
                           json_t **ret_args, struct att_err *err)
{
    *ret_args = issuer_json(p->args);
    return issuer_admin_op_find(p->op, *ret_args, ret_op, err);
}

static void show_effect(const struct issuer_admin_call *call, const struct store_proposal *p,
                        struct store_tx *tx)
{
    struct issuer_admin_op op;
    att_autojson *args = NULL, *effect = NULL;
    struct issuer_admin_call as = *call;
    struct att_err why = {0};
    char now[65];
    enum att_rc rc = read_op(p, &op, &args, &why);
    json_object_set(call->result, "args", args);
    as.args = args;
    as.scope.all = true; /* nothing is changed */
    rc = rc ? rc : effect_of(&as, &op, tx, now, &effect, &why);
    if (rc) {
        json_object_set_new(call->result, "wouldFail", json_string(why.msg));
    } else if (p->effect[0]) {
        if (effect) {
            json_object_set(call->result, "effect", effect);
        }
        json_object_set_new(call->result, "stale", json_boolean(strcmp(now, p->effect) != 0));
    }
}

/* What it says, and what it would do now, as far as its proposer still may. */
enum att_rc issuer_admin_proposal_show(struct issuer_admin_call *call, struct store_tx *tx,
                                       struct att_err *err)
{
    struct store_proposal p = {0};
    enum att_rc rc = load(call, tx, &p, err);
    if (!rc) {
        att_autojson *shown = proposal_json(&p, call->now);
        json_object_update(call->result, shown);
    }
    /* Of what was decided or has ended the digest is left. */
    if (!rc && p.args[0]) {
        show_effect(call, &p, tx);
    }
    store_record_done(&store_proposals, &p);
    return rc;
}

/* ---- deciding -------------------------------------------------------------------------------- */

static enum att_rc check_open(const struct issuer_admin_call *call, const struct store_proposal *p,
                              struct att_err *err)
{
    bool open = strcmp(p->state, STORE_PROPOSAL_OPEN) == 0;
    if (open && p->expires_at > call->now) {
        return ATT_OK;
    }
    return issuer_refuse(err, ATT_E_CONFLICT, "proposalClosed", "proposal %.64s %s%s", p->id,
                         open ? "has expired" : "was decided: ", open ? "" : p->state);
}

static bool is_mine(const struct issuer_admin_call *call, const struct store_proposal *p)
{
    return issuer_who_is(call->who, call->conf, p->by_who) ||
           issuer_who_is(call->who, call->conf, p->by_id);
}

static enum att_rc decide(struct issuer_admin_call *call, struct store_tx *tx,
                          struct store_proposal *p, const char *state, const char *reason,
                          struct att_err *err)
{
    p->decided_at = call->now;
    bool ok = issuer_set(&p->state, state) && issuer_set(&p->decided_by, call->who->identity) &&
              issuer_set(&p->reason, reason) && issuer_set(&p->args, "");
    enum att_rc rc =
        ok ? store_put(tx, &store_proposals, p, err) : att_fail(err, ATT_E_NOMEM, "no memory");
    return rc ? rc : record(call, tx, p, state, err);
}

static enum att_rc stale(const struct store_proposal *p, struct att_err *err)
{
    return issuer_refuse(err, ATT_E_CONFLICT, "proposalStale",
                         "proposal %.64s would do something else by now: look, and have it "
                         "proposed anew",
                         p->id);
}

/* Who proposed it may still do so, and it would do what it would have done then. The socket's
 * people have every role. */
static enum att_rc check_proposer(const struct issuer_admin_call *call,
                                  const struct store_proposal *p, const struct issuer_admin_op *op,
                                  const json_t *args, struct store_tx *tx, struct att_err *err)
{
    const struct issuer_duty duty = issuer_duty_of(op->op, true);
    struct issuer_who who = {.uid = -1};
    struct issuer_admin_call as = *call;
    char effect[65];
    snprintf(who.id, sizeof who.id, "%s", p->by_id);
    snprintf(who.identity, sizeof who.identity, "%s", p->by_who);
    who.remote = strncmp(who.id, "uid:", 4) != 0 && strcmp(who.id, "issuer") != 0;
    as.who = &who;
    as.args = args;
    enum att_rc rc = issuer_scope_enter(call->conf, &who, duty.roles, duty.reach, &as.scope, err);
    rc = rc ? rc : effect_of(&as, op, tx, effect, NULL, err);
    if (rc) {
        att_err_prefix(err, "what %.100s proposed", p->by_who);
        return rc;
    }
    return strcmp(effect, p->effect) != 0 ? stale(p, err) : ATT_OK;
}

enum att_rc issuer_approval_holds(const struct issuer_admin_call *call, struct store_tx *tx,
                                  struct att_err *err)
{
    const struct issuer_approval *a = call->approval;
    char effect[65];
    enum att_rc rc = a ? effect_of_step(call, a->op.op, tx, effect, NULL, err) : ATT_OK;
    return !rc && a && strcmp(effect, a->proposal.effect) != 0 ? stale(&a->proposal, err) : rc;
}

static enum att_rc carry_out(const struct issuer_approval *a, struct store_tx *tx,
                             struct att_err *err)
{
    struct issuer_admin_call *call = a->call;
    const struct issuer_duty duty = issuer_duty_of(a->op.op, true);
    struct issuer_admin_call as = *call;
    struct issuer_who who = *call->who;
    who.proposed_by = a->proposal.by_who;
    as.who = &who;
    as.args = a->args;
    as.approval = tx ? NULL : a;
    enum att_rc rc =
        issuer_scope_enter(call->conf, call->who, duty.approver, duty.reach, &as.scope, err);
    rc = rc ? rc : a->op.fn(&as, tx, err);
    call->wake = as.wake;
    return rc;
}

static enum att_rc may_approve(const struct issuer_admin_call *call, struct store_tx *tx,
                               struct issuer_approval *a, struct att_err *err)
{
    enum att_rc rc = load(call, tx, &a->proposal, err);
    rc = rc ? rc : check_open(call, &a->proposal, err);
    rc = rc ? rc : read_op(&a->proposal, &a->op, &a->args, err);
    if (!rc && is_mine(call, &a->proposal)) {
        rc = issuer_refuse(err, ATT_E_CONFLICT, "fourEyes",
                           "%.200s proposed it: somebody else has to approve it",
                           call->who->identity);
    }
    return rc ? rc : check_proposer(call, &a->proposal, &a->op, a->args, tx, err);
}

static enum att_rc note_approved(struct issuer_admin_call *call, struct store_tx *tx,
                                 struct issuer_approval *a, struct att_err *err)
{
    enum att_rc rc = decide(call, tx, &a->proposal, STORE_PROPOSAL_APPROVED, "", err);
    if (!rc) {
        json_object_set_new(call->result, "proposal", proposal_json(&a->proposal, call->now));
    }
    return rc;
}

enum att_rc issuer_admin_proposal_approve(struct issuer_admin_call *call, struct store_tx *tx,
                                          struct att_err *err)
{
    struct issuer_approval a = {.call = call};
    enum att_rc rc = may_approve(call, tx, &a, err);
    if (!rc && !a.op.store) { /* its own transactions would wait for this one */
        rc = att_fail(err, ATT_E_INTERNAL, "%s is not approved in one transaction", a.op.op);
    }
    rc = rc ? rc : carry_out(&a, tx, err);
    rc = rc ? rc : note_approved(call, tx, &a, err);
    issuer_approval_done(&a);
    return rc;
}

/* ---- of what takes its own transactions ------------------------------------------------------ */

static enum att_rc peek(void *user, struct store_tx *tx, struct att_err *err)
{
    struct issuer_approval *a = user;
    return load(a->call, tx, &a->proposal, err);
}

enum att_rc issuer_approval_in_steps(const struct issuer_admin_call *call, bool *ret_steps,
                                     struct att_err *err)
{
    struct issuer_approval a = {.call = (struct issuer_admin_call *)(uintptr_t)call};
    enum att_rc rc = store_run(call->issuer->store, false, peek, &a, err);
    *ret_steps = !rc && read_op(&a.proposal, &a.op, &a.args, NULL) == ATT_OK && !a.op.store;
    issuer_approval_done(&a);
    return rc == ATT_E_NOTFOUND ? ATT_OK : rc;
}

enum att_rc issuer_approval_check(void *user, struct store_tx *tx, struct att_err *err)
{
    struct issuer_approval *a = user;
    return may_approve(a->call, tx, a, err);
}

enum att_rc issuer_approval_carry_out(struct issuer_approval *approval, struct att_err *err)
{
    return carry_out(approval, NULL, err);
}

/* Looked at again: two may have approved it at once, and the second one's step was refused. */
enum att_rc issuer_approval_note(void *user, struct store_tx *tx, struct att_err *err)
{
    struct issuer_approval *a = user;
    store_record_done(&store_proposals, &a->proposal);
    enum att_rc rc = load(a->call, tx, &a->proposal, err);
    rc = rc ? rc : check_open(a->call, &a->proposal, err);
    return rc ? rc : note_approved(a->call, tx, a, err);
}

void issuer_approval_done(struct issuer_approval *approval)
{
    store_record_done(&store_proposals, &approval->proposal);
    json_decref(approval->args);
    approval->args = NULL;
}

/* Who could approve it as far as his reach goes: where a dry run cannot tell (it fails for another
 * reason, or its operation is of another version), his has to be everything. */
static enum att_rc may_reject(const struct issuer_admin_call *call, const struct store_proposal *p,
                              struct store_tx *tx, struct att_err *err)
{
    const struct issuer_duty duty = issuer_duty_of(p->op, true);
    struct issuer_admin_call as = *call;
    struct issuer_admin_op op;
    struct att_err why = {0};
    att_autojson *args = NULL;
    char effect[65];
    enum att_rc rc =
        issuer_scope_enter(call->conf, call->who, duty.approver, duty.reach, &as.scope, err);
    if (rc || duty.reach != ISSUER_REACH_PART) {
        return rc;
    }
    rc = read_op(p, &op, &args, &why);
    as.args = args;
    rc = rc ? rc : effect_of(&as, &op, tx, effect, NULL, &why);
    if (rc == ATT_E_DENIED && strcmp(why.reason, "roleScope") == 0) {
        *err = why;
        return rc;
    }
    return rc ? issuer_scope_all(&as.scope, err) : ATT_OK;
}

/* By an approver, or by who made it. */
enum att_rc issuer_admin_proposal_reject(struct issuer_admin_call *call, struct store_tx *tx,
                                         struct att_err *err)
{
    struct store_proposal p = {0};
    const char *reason = issuer_arg(call, "reason");
    if (!*reason || strlen(reason) > 200) {
        return issuer_refuse(err, ATT_E_INVAL, "usage", "reason: expected 1 to 200 characters");
    }
    enum att_rc rc = load(call, tx, &p, err);
    rc = rc ? rc : check_open(call, &p, err);
    if (!rc && !is_mine(call, &p)) {
        rc = may_reject(call, &p, tx, err);
    }
    rc = rc ? rc : decide(call, tx, &p, STORE_PROPOSAL_REJECTED, reason, err);
    if (!rc) {
        json_object_set_new(call->result, "proposal", proposal_json(&p, call->now));
    }
    store_record_done(&store_proposals, &p);
    return rc;
}
