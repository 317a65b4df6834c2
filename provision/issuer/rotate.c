/* The steps after the making: chain, publish, activate, retire. */
#include "provision/issuer/rotate.h"

#include "certs/authority.h"
#include "certs/oid.h"
#include "provision/issuer/kinds.h"

#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SKEW_S      120     /* between the clocks of issuers */
#define LEAST_S     2592000 /* a new intermediate lasts for a month at least */
#define BEHIND_SHOW 5

/* ---- rows -------------------------------------------------------------------------------------
 */

static bool is(const struct store_authority *row, const char *state)
{
    return strcmp(row->state, state) == 0;
}

static bool copy_row(struct store_authority *to, const struct store_authority *from)
{
    *to = (struct store_authority){.view = from->view,
                                   .created_at = from->created_at,
                                   .published_at = from->published_at,
                                   .activated_at = from->activated_at,
                                   .retired_at = from->retired_at};
    return issuer_set(&to->id, from->id) && issuer_set(&to->kind, from->kind) &&
           issuer_set(&to->state, from->state) && issuer_set(&to->keyref, from->keyref) &&
           issuer_set(&to->root_keyref, from->root_keyref) && issuer_set(&to->chain, from->chain) &&
           issuer_set(&to->root, from->root) && issuer_set(&to->csr, from->csr);
}

static enum att_rc take_row(void *user, const void *record, struct att_err *err)
{
    struct issuer_rotation_rows *rows = user;
    const struct store_authority *row = record;
    rows->n++;
    struct store_authority *to = is(row, STORE_AUTHORITY_ACTIVE)     ? &rows->active
                                 : is(row, STORE_AUTHORITY_OUTGOING) ? &rows->outgoing
                                 : is(row, STORE_AUTHORITY_RETIRED)  ? NULL
                                                                     : &rows->under_way;
    if (!to || to->id) {
        return ATT_OK;
    }
    return copy_row(to, row) ? ATT_OK : att_fail(err, ATT_E_NOMEM, "no memory");
}

enum att_rc issuer_rotate_rows(struct store_tx *tx, struct issuer_rotation_rows *rows,
                               struct att_err *err)
{
    return store_each(tx, &store_authorities, "kind", rows->kind, take_row, rows, err);
}

void issuer_rotate_rows_done(struct issuer_rotation_rows *rows)
{
    store_record_done(&store_authorities, &rows->under_way);
    store_record_done(&store_authorities, &rows->active);
    store_record_done(&store_authorities, &rows->outgoing);
}

static enum att_rc get_row(const struct issuer_rotation *r, struct store_tx *tx,
                           struct store_authority *ret_row, struct att_err *err)
{
    enum att_rc rc = issuer_approval_holds(r->call, tx, err);
    if (rc) {
        return rc;
    }
    rc = store_get(tx, &store_authorities, r->id, ret_row, NULL);
    return rc == ATT_E_NOTFOUND
               ? issuer_refuse(err, rc, "caUnknown", "there is no authority %.40s", r->id)
           : rc ? att_fail(err, rc, "authorities cannot be read")
                : ATT_OK;
}

static enum att_rc in_state(const struct store_authority *row, const char *state,
                            struct att_err *err)
{
    return is(row, state)
               ? ATT_OK
               : issuer_refuse(err, ATT_E_CONFLICT, "caState", "authority %s is %s, expected %s",
                               row->id, row->state, state);
}

static enum att_rc put_state(struct store_tx *tx, struct store_authority *row, const char *state,
                             struct att_err *err)
{
    return issuer_set(&row->state, state) ? store_put(tx, &store_authorities, row, err)
                                          : att_fail(err, ATT_E_NOMEM, "no memory");
}

enum att_rc issuer_rotate_note(struct issuer_rotation *r, struct store_tx *tx,
                               const struct store_authority *row, const char *step,
                               struct att_err *err)
{
    int64_t number = 0;
    json_t *record = issuer_record("ca", step, NULL, NULL, row->id);
    json_object_set_new(record, "certificateKind", json_string(row->kind));
    if (r->force) {
        json_object_set_new(record, "forced", json_true());
    }
    certs_autostack *chain = NULL;
    if (row->chain[0] && certs_pem_parse(att_slice_str(row->chain), &chain, NULL) == ATT_OK) {
        struct certs_cert_info info;
        char hex[65];
        if (certs_cert_info(sk_X509_value(chain, 0), &info, NULL) == ATT_OK) {
            att_hex(hex, ATT_SLICE_ARRAY(info.sha256));
            json_object_set_new(record, "serial", json_string(info.serial_hex));
            json_object_set_new(record, "sha256", json_string(hex));
            json_object_set_new(record, "notAfter", issuer_time_json(info.not_after));
        }
    }
    enum att_rc rc = store_meta_count(tx, "authorities", &number, err);
    if (!rc) {
        rc = issuer_admin_audit(r->call, tx, record, err);
    } else {
        json_decref(record);
    }
    if (!rc) {
        json_object_set_new(r->call->result, "id", json_string(row->id));
        json_object_set_new(r->call->result, "step", json_string(step));
        json_object_set_new(r->call->result, "state", json_string(row->state));
    }
    return rc;
}

void issuer_rotate_done(struct issuer_rotation *r)
{
    struct att_err err = {0};
    r->call->wake = true;
    att_log(ATT_INFO, "ca.step", ATT_S("step", issuer_string(r->call->result, "step")),
            ATT_S("authority", issuer_string(r->call->result, "id")),
            ATT_N("uid", r->call->who->uid));
    if (issuer_generations_refresh(r->call->issuer, &err)) {
        att_log_err(ATT_ERROR, "ca.refresh", &err);
        json_object_set_new(r->call->result, "warning", json_string(err.msg));
    }
}

static enum att_rc run(struct issuer_rotation *r, store_fn step, struct att_err *err)
{
    enum att_rc rc = store_run(r->call->issuer->store, true, step, r, err);
    if (!rc) {
        issuer_rotate_done(r);
    }
    return rc;
}

/* ---- chain ------------------------------------------------------------------------------------
 */

/* The key is the request's: its CSR is in the row. */
static enum att_rc spki_of_csr(const char *pem, struct att_buf *ret_spki, struct att_err *err)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    X509_REQ *req = bio ? PEM_read_bio_X509_REQ(bio, NULL, NULL, NULL) : NULL;
    uint8_t *der = NULL;
    int len = req ? i2d_X509_PUBKEY(X509_REQ_get_X509_PUBKEY(req), &der) : -1;
    if (len > 0) {
        att_buf_put(ret_spki, der, (size_t)len);
    }
    OPENSSL_free(der);
    X509_REQ_free(req);
    BIO_free(bio);
    return len > 0 ? att_buf_ok(ret_spki, err)
                   : att_fail_openssl(err, ATT_E_PARSE, "the stored request");
}

/* What goes after a leaf is all but the root. */
static enum att_rc split(const STACK_OF(X509) * chain, struct store_authority *row,
                         struct att_err *err)
{
    att_autobuf pem = {0}, root = {0};
    int n = sk_X509_num(chain);
    enum att_rc rc = certs_pem_dump(sk_X509_value(chain, n - 1), &root, err);
    for (int i = 0; i + 1 < n && !rc; i++) {
        rc = certs_pem_dump(sk_X509_value(chain, i), &pem, err);
    }
    if (!rc && !(issuer_set(&row->chain, att_buf_cstr(&pem)) &&
                 issuer_set(&row->root, att_buf_cstr(&root)))) {
        rc = att_fail(err, ATT_E_NOMEM, "no memory");
    }
    return rc;
}

static enum att_rc chain_step(void *user, struct store_tx *tx, struct att_err *err)
{
    struct issuer_rotation *r = user;
    struct store_authority row = {0};
    certs_autostack *chain = NULL;
    att_autobuf spki = {0};
    enum att_rc rc = get_row(r, tx, &row, err);
    if (!rc) {
        rc = in_state(&row, STORE_AUTHORITY_REQUESTED, err);
    }
    if (!rc) {
        rc = certs_pem_parse(att_slice_str(r->chain), &chain, err);
    }
    if (!rc) {
        rc = spki_of_csr(row.csr, &spki, err);
    }
    if (!rc) {
        const struct certs_authority_spec spec = {
            .trust_domain = strcmp(row.kind, "agent") == 0 ? r->call->issuer->trust_domain : NULL};
        rc = certs_authority_check(chain, &spec, att_buf_slice(&spki), r->call->now, LEAST_S, err);
    }
    if (!rc) {
        rc = issuer_rotate_apart(r->call->issuer, tx, row.kind, chain, err);
    }
    if (!rc) {
        rc = split(chain, &row, err);
    }
    if (!rc) {
        rc = put_state(tx, &row, STORE_AUTHORITY_PREPARED, err);
    }
    if (!rc) {
        rc = issuer_rotate_note(r, tx, &row, "prepared", err);
    }
    store_record_done(&store_authorities, &row);
    return rc;
}

enum att_rc issuer_rotate_chain(struct issuer_rotation *r, struct att_err *err)
{
    return run(r, chain_step, err);
}

/* ---- publish ----------------------------------------------------------------------------------
 */

static enum att_rc publish_step(void *user, struct store_tx *tx, struct att_err *err)
{
    struct issuer_rotation *r = user;
    struct store_authority row = {0};
    enum att_rc rc = get_row(r, tx, &row, err);
    if (!rc) {
        rc = in_state(&row, STORE_AUTHORITY_PREPARED, err);
    }
    if (!rc) { /* the version from which on hosts have it */
        rc = store_meta_count(tx, "view_version", &row.view, err);
    }
    if (!rc) {
        row.published_at = r->call->now;
        rc = put_state(tx, &row, STORE_AUTHORITY_PUBLISHED, err);
    }
    if (!rc) {
        rc = issuer_rotate_note(r, tx, &row, "published", err);
    }
    store_record_done(&store_authorities, &row);
    return rc;
}

enum att_rc issuer_rotate_publish(struct issuer_rotation *r, struct att_err *err)
{
    return run(r, publish_step, err);
}

/* ---- activate ---------------------------------------------------------------------------------
 */

struct others {
    const struct issuer_rotation *r;
    int64_t number;
    char behind[200];
};

static enum att_rc see_issuer(void *user, const void *record, struct att_err *err)
{
    struct others *o = user;
    const struct store_issuer *row = record;
    (void)err;
    bool live = row->seen_at + ISSUER_LIVE_S >= o->r->call->now;
    bool lacks = strstr(row->lacks, o->r->id) != NULL;
    if (live && (row->generation != o->number || lacks)) {
        snprintf(o->behind, sizeof o->behind, "%.120s (%s)", row->name,
                 lacks ? "has not got its key" : "has not taken the last step into use");
    }
    return ATT_OK;
}

/* Every issuer that is there has the bundle out and can sign. */
static enum att_rc issuers_ready(const struct issuer_rotation *r, struct store_tx *tx,
                                 struct att_err *err)
{
    struct issuer *issuer = r->call->issuer;
    const struct issuer_generations *now = issuer_generations_now(issuer);
    struct others o = {.r = r, .number = now->number};
    enum att_rc rc = issuer_generations_check(issuer, tx, err);
    for (size_t i = 0; !rc && i < now->n; i++) {
        if (strcmp(now->v[i].id, r->id) == 0 && now->v[i].lacks[0]) {
            rc = issuer_refuse(err, ATT_E_CONFLICT, "caKeyMissing", "this issuer: %s",
                               now->v[i].lacks);
        }
    }
    if (!rc && store_shared(issuer->store)) {
        rc = store_each(tx, &store_issuers, NULL, NULL, see_issuer, &o, err);
    }
    return rc || !o.behind[0]
               ? rc
               : issuer_refuse(err, ATT_E_CONFLICT, "caIssuerBehind", "issuer %s", o.behind);
}

struct behind {
    size_t n;
    char text[400];
};

static enum att_rc name_host(void *user, const void *record, struct att_err *err)
{
    struct behind *b = user;
    const struct store_host *host = record;
    (void)err;
    size_t used = strlen(b->text);
    if (b->n++ < BEHIND_SHOW) {
        snprintf(b->text + used, sizeof b->text - used, "%s%.12s%s%.40s", used ? ", " : "",
                 host->id, host->label[0] ? " " : "", host->label);
    }
    return ATT_OK;
}

static enum att_rc hosts_have(const struct issuer_rotation *r, struct store_tx *tx, int64_t view,
                              bool retire, struct att_err *err)
{
    struct behind b = {0};
    const int64_t now = r->call->now;
    enum att_rc rc = retire
                         ? store_hosts_untold(tx, view, now, BEHIND_SHOW + 1, name_host, &b, err)
                         : store_hosts_behind(tx, view, now, BEHIND_SHOW + 1, name_host, &b, err);
    return rc || !b.n ? rc
                      : issuer_refuse(err, ATT_E_CONFLICT, "caHostsBehind",
                                      "hosts that are not known to have what was published: %s%s",
                                      b.text, b.n > BEHIND_SHOW ? " and more" : "");
}

/* Hosts have the new root, and its revocation list: a peer that checks lists wants one for each
 * certificate. */
static enum att_rc hosts_ready(const struct issuer_rotation *r, struct store_tx *tx,
                               const struct store_authority *row, struct att_err *err)
{
    const struct issuer_kind *kind = issuer_kind_of(row->kind);
    return kind && kind->hosts ? hosts_have(r, tx, row->view, false, err) : ATT_OK;
}

/* Whoever else trusts us gets the bundle in his own time; a root that is in it already needs none.
 */
static enum att_rc peers_ready(const struct issuer_rotation *r, struct store_tx *tx,
                               const struct store_authority *row,
                               const struct store_authority *active, struct att_err *err)
{
    issuer_autosettings *settings = issuer_settings_get(r->call->issuer);
    int64_t from = row->published_at + settings->conf->ca_publish_wait_s;
    char text[ATT_TIME_TEXT_LEN];
    enum att_rc rc = r->force ? ATT_OK : hosts_ready(r, tx, row, err);
    if (rc || r->force || r->call->now >= from ||
        (active->id && strcmp(active->root, row->root) == 0)) {
        return rc;
    }
    att_time_text(text, from);
    return issuer_refuse(err, ATT_E_CONFLICT, "caTooSoon",
                         "relying parties that are no hosts get the bundle until %s "
                         "(ca.publish_wait)",
                         text);
}

static enum att_rc switch_over(struct issuer_rotation *r, struct store_tx *tx,
                               struct store_authority *row, struct store_authority *active,
                               struct att_err *err)
{
    int64_t version = 0;
    enum att_rc rc = ATT_OK;
    if (active->id) {
        rc = put_state(tx, active, STORE_AUTHORITY_OUTGOING, err);
    }
    if (!rc) {
        row->activated_at = r->call->now;
        rc = put_state(tx, row, STORE_AUTHORITY_ACTIVE, err);
    }
    if (!rc) { /* there is another revocation list */
        rc = store_meta_count(tx, "view_version", &version, err);
    }
    return rc ? rc : issuer_rotate_note(r, tx, row, "activated", err);
}

static enum att_rc activate_step(void *user, struct store_tx *tx, struct att_err *err)
{
    struct issuer_rotation *r = user;
    struct store_authority row = {0};
    enum att_rc rc = get_row(r, tx, &row, err);
    struct issuer_rotation_rows rows = {.kind = row.kind};
    if (!rc) {
        rc = in_state(&row, STORE_AUTHORITY_PUBLISHED, err);
    }
    if (!rc) {
        rc = issuer_rotate_rows(tx, &rows, err);
    }
    if (!rc && rows.outgoing.id) {
        rc = issuer_refuse(err, ATT_E_CONFLICT, "caBusy", "authority %s has to be retired first",
                           rows.outgoing.id);
    }
    if (!rc) {
        rc = issuers_ready(r, tx, err);
    }
    if (!rc) {
        rc = peers_ready(r, tx, &row, &rows.active, err);
    }
    if (!rc) {
        rc = switch_over(r, tx, &row, &rows.active, err);
    }
    issuer_rotate_rows_done(&rows);
    store_record_done(&store_authorities, &row);
    return rc;
}

enum att_rc issuer_rotate_activate(struct issuer_rotation *r, struct att_err *err)
{
    return run(r, activate_step, err);
}

/* ---- retire -----------------------------------------------------------------------------------
 */

/* The TLS root before: every issuer serves under the new one, every host that is enrolled (an AK
 * record in force, also one that waits for its approval) has heard of it, and no ticket that pins
 * it can be used any more. Who has not heard of it is cut off for good. */
static enum att_rc tls_unused(const struct issuer_rotation *r, struct store_tx *tx,
                              const struct store_authority *active, int64_t *ret_end,
                              struct att_err *err)
{
    enum att_rc rc = issuers_ready(r, tx, err);
    if (!rc) {
        rc = hosts_have(r, tx, active->view, true, err);
    }
    return rc ? rc
              : store_ticket_last_end(tx, active->activated_at + SKEW_S, r->call->now, ret_end,
                                      err);
}

static enum att_rc unused(const struct issuer_rotation *r, struct store_tx *tx,
                          const struct store_authority *row, struct att_err *err)
{
    struct issuer_rotation_rows rows = {.kind = row->kind};
    bool tls = strcmp(row->kind, "tls") == 0;
    int64_t end = 0;
    char text[ATT_TIME_TEXT_LEN];
    enum att_rc rc = issuer_rotate_rows(tx, &rows, err);
    if (!rc && tls) {
        rc = tls_unused(r, tx, &rows.active, &end, err);
    } else if (!rc) {
        rc = store_cert_last_end(tx, row->kind, rows.active.activated_at + SKEW_S, r->call->now,
                                 &end, err);
    }
    issuer_rotate_rows_done(&rows);
    att_time_text(text, end);
    return rc || !end ? rc
                      : issuer_refuse(err, ATT_E_CONFLICT, "caInUse",
                                      "%s of authority %s are in force until %s",
                                      tls ? "enrolment tickets" : "certificates", row->id, text);
}

static enum att_rc may_retire(const struct issuer_rotation *r, struct store_tx *tx,
                              const struct store_authority *row, struct att_err *err)
{
    if (is(row, STORE_AUTHORITY_ACTIVE) || is(row, STORE_AUTHORITY_RETIRED)) {
        return issuer_refuse(err, ATT_E_CONFLICT, "caState",
                             "authority %s is %s, expected outgoing, or one that was not activated",
                             row->id, row->state);
    }
    return is(row, STORE_AUTHORITY_OUTGOING) && !r->force ? unused(r, tx, row, err) : ATT_OK;
}

static enum att_rc retire_step(void *user, struct store_tx *tx, struct att_err *err)
{
    struct issuer_rotation *r = user;
    struct store_authority row = {0};
    int64_t version = 0;
    enum att_rc rc = get_row(r, tx, &row, err);
    if (!rc) {
        rc = may_retire(r, tx, &row, err);
    }
    if (!rc) { /* its root leaves the bundle */
        rc = store_meta_count(tx, "view_version", &version, err);
    }
    if (!rc) {
        row.retired_at = r->call->now;
        rc = put_state(tx, &row, STORE_AUTHORITY_RETIRED, err);
    }
    if (!rc) {
        rc = issuer_rotate_note(r, tx, &row, "retired", err);
    }
    store_record_done(&store_authorities, &row);
    return rc;
}

enum att_rc issuer_rotate_retire(struct issuer_rotation *r, struct att_err *err)
{
    return run(r, retire_step, err);
}

/* ---- whatever is due --------------------------------------------------------------------------
 */

static enum att_rc look(void *user, struct store_tx *tx, struct att_err *err)
{
    return issuer_rotate_rows(tx, user, err);
}

static bool is_wait(const char *reason)
{
    static const char *const words[] = {"caIssuerBehind", "caKeyMissing", "caHostsBehind",
                                        "caTooSoon",      "caInUse",      "caChanged"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcmp(words[i], reason) == 0) {
            return true;
        }
    }
    return false;
}

/* ret_id: NULL where it is of no authority. */
static const char *due(const struct issuer_rotation_rows *rows, bool start, const char **ret_id)
{
    const struct store_authority *row = &rows->under_way;
    *ret_id = row->id;
    if (row->id && is(row, STORE_AUTHORITY_PREPARED)) {
        return "publish";
    }
    if (rows->outgoing.id) {
        *ret_id = rows->outgoing.id;
        return "retire";
    }
    if (row->id && is(row, STORE_AUTHORITY_PUBLISHED)) {
        return "activate";
    }
    return row->id ? "waiting" : start ? "prepare" : "none";
}

enum att_rc issuer_rotate_due(const struct issuer_admin_call *call, struct store_tx *tx,
                              json_t *ret, struct att_err *err)
{
    const struct issuer_kind *kind = issuer_kind_by_word(issuer_arg(call, "kind"));
    struct issuer_rotation_rows rows = {.kind = kind ? kind->kind : ""};
    const char *id = NULL;
    enum att_rc rc = issuer_rotate_rows(tx, &rows, err);
    if (!rc) {
        const char *step = due(&rows, json_is_true(json_object_get(call->args, "start")), &id);
        json_object_set_new(ret, "step", json_string(step));
        json_object_set_new(ret, "id", id ? json_string(id) : NULL);
    }
    issuer_rotate_rows_done(&rows);
    return rc;
}

static enum att_rc take_step(struct issuer_rotation *r, const struct issuer_rotation_rows *rows,
                             bool start, struct att_err *err)
{
    const struct store_authority *row = &rows->under_way;
    const char *step = due(rows, start, &r->id);
    if (strcmp(step, "publish") == 0) {
        return issuer_rotate_publish(r, err);
    }
    if (strcmp(step, "retire") == 0) {
        return issuer_rotate_retire(r, err);
    }
    if (strcmp(step, "activate") == 0) {
        return issuer_rotate_activate(r, err);
    }
    if (strcmp(step, "prepare") == 0) {
        return issuer_rotate_prepare(r, err);
    }
    json_object_set_new(r->call->result, "step", json_string(step));
    if (row->id) {
        json_object_set_new(r->call->result, "id", json_string(row->id));
        json_object_set_new(r->call->result, "waiting",
                            json_string("its certificate is awaited: ca chain"));
    }
    return ATT_OK;
}

enum att_rc issuer_rotate_next(struct issuer_rotation *r, bool start, struct att_err *err)
{
    struct issuer_rotation_rows rows = {.kind = r->kind};
    struct att_err why = {0};
    enum att_rc rc = store_run(r->call->issuer->store, false, look, &rows, err);
    if (!rc) {
        rc = take_step(r, &rows, start, &why);
        if (rc && is_wait(why.reason)) {
            json_object_set_new(r->call->result, "id", json_string(r->id));
            json_object_set_new(r->call->result, "step", json_string("waiting"));
            json_object_set_new(r->call->result, "reason", json_string(why.reason));
            json_object_set_new(r->call->result, "waiting", json_string(why.msg));
            rc = ATT_OK;
        } else if (rc && err) {
            *err = why;
        }
    }
    issuer_rotate_rows_done(&rows);
    return rc;
}
