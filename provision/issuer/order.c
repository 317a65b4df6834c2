/* M3: orders. One identifier each, so order, authorization and challenge are one row. */
#include "provision/issuer/order.h"
#include "provision/acme/requests.h"
#include "provision/issuer/dns.h"
#include "provision/issuer/renewal.h"

#include "certs/san.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOKEN_BYTES 24 /* RFC 8555 §11.3: at least 128 bits */

/* ---- objects
 * ------------------------------------------------------------------------------------------------
 */

static json_t *identifier_json(const struct store_order *order)
{
    return json_pack("{s:s, s:s}", "type", order->identifier_type, "value", order->identifier);
}

/* A pending or ready order that nobody used in time is invalid, whatever the row says. */
const char *issuer_order_status(const struct store_order *order, int64_t now)
{
    bool waits = strcmp(order->status, "pending") == 0 || strcmp(order->status, "ready") == 0;
    return waits && order->expires_at <= now ? "invalid" : order->status;
}

json_t *issuer_order_json(const struct issuer *issuer, const struct store_order *order, int64_t now)
{
    json_t *o = json_pack(
        "{s:s, s:o, s:[o], s:[o], s:o}", "status", issuer_order_status(order, now), "expires",
        issuer_time_json(order->expires_at), "identifiers", identifier_json(order),
        "authorizations", json_sprintf("%s/authz/%s", issuer->base_url, order->id), "finalize",
        json_sprintf("%s/finalize/%s", issuer->base_url, order->id));
    if (order->profile[0]) {
        json_object_set_new(o, "profile", json_string(order->profile));
    }
    if (order->cert[0]) {
        json_object_set_new(o, "certificate",
                            json_sprintf("%s/certificate/%s", issuer->base_url, order->cert));
    }
    if (order->error[0]) {
        json_object_set_new(o, "error", issuer_json(order->error));
    }
    return o;
}

json_t *issuer_challenge_json(const struct issuer *issuer, const struct store_order *order,
                              const json_t *known)
{
    json_t *c = json_pack("{s:s, s:o, s:s, s:s}", "type", ACME_CHALLENGE_DEVICE_ATTEST, "url",
                          json_sprintf("%s/challenge/%s", issuer->base_url, order->id), "status",
                          order->chall_status, "token", order->token);
    struct acme_wanted wanted = {0};
    enum att_rc rc = issuer_wanted(order->pcr_selection, order->logs, known, &wanted, NULL);
    wanted.reads_hsm = wanted.reads_hsm_token = true;
    if (rc || acme_wanted_encode(&wanted, c, NULL)) {
        json_decref(c);
        return NULL;
    }
    if (strcmp(order->chall_status, "valid") == 0) {
        json_object_set_new(c, "validated", issuer_time_json(order->verdict_at));
    }
    /* An order that fails after its verdict leaves the challenge as it was. */
    if (order->error[0] && strcmp(order->chall_status, "invalid") == 0) {
        json_object_set_new(c, "error", issuer_json(order->error));
    }
    return c;
}

static json_t *authz_json(const struct issuer *issuer, const struct store_order *order,
                          const json_t *known, int64_t now)
{
    const char *status = order->chall_status;
    if (order->authz[0]) {
        status = order->authz;
    } else if (strcmp(status, "pending") == 0 && order->expires_at <= now) {
        status = "invalid";
    }
    return json_pack("{s:s, s:o, s:o, s:[o]}", "status", status, "expires",
                     issuer_time_json(order->expires_at), "identifier", identifier_json(order),
                     "challenges", issuer_challenge_json(issuer, order, known));
}

/* ---- newOrder
 * ------------------------------------------------------------------------------------------------
 */

struct m3 {
    struct issuer_call *call;
    struct acme_order_request request;
    char name[CERTS_AGENT_NAME_MAX + 1];
    struct store_order order;
    const struct conf_profile *profile;
    char replaces[ISSUER_SERIAL_HEX]; /* "": none */
};

bool issuer_profile_allows(const struct conf_profile *profile, enum conf_key_kind key)
{
    for (unsigned i = 0; i < profile->n_keys; i++) {
        if (conf_key_kind_parse(profile->keys[i]) == key) {
            return true;
        }
    }
    return false;
}

bool issuer_profile_allows_type(const struct conf_profile *profile, enum att_keytype type)
{
    for (unsigned i = 0; i < profile->n_key_types; i++) {
        if (att_keytype_parse(att_slice_str(profile->key_types[i])) == type) {
            return true;
        }
    }
    return false;
}

bool issuer_profile_allows_hsm(const struct conf_profile *profile, const char *hsm)
{
    for (unsigned i = 0; i < profile->n_hsms; i++) {
        if (strcmp(profile->hsms[i], hsm) == 0) {
            return true;
        }
    }
    return profile->n_hsms == 0;
}

static enum att_rc choose_profile(struct m3 *m, const struct conf_entry *entry, struct att_err *err)
{
    const char *asked = m->request.profile;
    if (asked && strcmp(asked, entry->profile) != 0) {
        return issuer_problem(m->call, err, ACME_P_INVALID_PROFILE, NULL,
                              "agent %s has profile %s, not %.64s", entry->name, entry->profile,
                              asked);
    }
    m->profile = conf_issuer_profile(m->call->settings->conf, entry->profile);
    if (!m->profile) {
        return issuer_problem(m->call, err, ACME_P_INVALID_PROFILE, NULL,
                              "profile %s of agent %s is not configured", entry->profile,
                              entry->name);
    }
    if (!issuer_profile_allows(m->profile, entry->key)) {
        return issuer_problem(m->call, err, ACME_P_REJECTED_IDENTIFIER, "keyStore",
                              "profile %s does not allow %s keys", entry->profile,
                              conf_key_kind_name(entry->key));
    }
    if (!issuer_profile_allows_type(m->profile, entry->key_type)) {
        return issuer_problem(m->call, err, ACME_P_REJECTED_IDENTIFIER, "keyType",
                              "profile %s does not allow %s keys", entry->profile,
                              att_keytype_name(entry->key_type));
    }
    if (entry->hsm && !issuer_profile_allows_hsm(m->profile, entry->hsm)) {
        return issuer_problem(m->call, err, ACME_P_REJECTED_IDENTIFIER, "keyHsm",
                              "profile %s does not allow keys in the HSM module %s", entry->profile,
                              entry->hsm);
    }
    return ATT_OK;
}

static enum att_rc fill_order(struct m3 *m, const struct store_host *host,
                              const struct store_entry *entry, struct att_err *err)
{
    uint8_t token[TOKEN_BYTES];
    char id[ISSUER_ID_LEN];
    att_autobuf text = {0};
    struct store_order *o = &m->order;
    enum att_rc rc = att_random(token, sizeof token, err);
    if (!rc) {
        rc = issuer_new_id(id, err);
    }
    att_buf_b64u(&text, ATT_SLICE_ARRAY(token));
    const char *token_text = att_buf_cstr(&text);
    issuer_autofree *logs = issuer_logs_join(m->profile->logs, m->profile->n_logs);
    issuer_autofree *clock = issuer_host_clock_text(host);
    if (rc || !token_text || !logs || !clock) {
        return rc ? rc : att_fail(err, ATT_E_NOMEM, "no memory");
    }
    bool ok = issuer_set(&o->id, id) && issuer_set(&o->account, m->call->account.id) &&
              issuer_set(&o->host, host->id) && issuer_set(&o->ak, "") &&
              issuer_set(&o->identifier_type, m->request.identifiers[0].type) &&
              issuer_set(&o->identifier, m->request.identifiers[0].value) &&
              issuer_set(&o->profile, m->profile->name) && issuer_set(&o->status, "pending") &&
              issuer_set(&o->chall_status, "pending") && issuer_set(&o->error, "") &&
              issuer_set(&o->token, token_text) &&
              issuer_set(&o->pcr_selection, m->profile->pcrs) && issuer_set(&o->logs, logs) &&
              issuer_set(&o->policy, m->profile->boot) && issuer_set(&o->entry, entry->name) &&
              issuer_set(&o->clock, clock) && issuer_set(&o->decision, "") &&
              issuer_set(&o->cert, "") && issuer_set(&o->measured, "") &&
              issuer_set(&o->authz, "") && issuer_set(&o->replaces, m->replaces);
    o->entry_version = entry->version;
    o->created_at = m->call->now;
    o->expires_at = m->call->now + ISSUER_ORDER_S;
    return ok ? ATT_OK : att_fail(err, ATT_E_NOMEM, "no memory");
}

/* A refusal of the order itself, before any evidence: rejectedIdentifier, the word below it. */
static enum att_rc rejected(struct issuer_call *call, const struct att_err *why,
                            struct att_err *err)
{
    return issuer_problem(call, err, ACME_P_REJECTED_IDENTIFIER, why->reason, "%s", why->msg);
}

static enum att_rc open_order(void *user, struct store_tx *tx, struct att_err *err)
{
    struct m3 *m = user;
    struct issuer_call *call = m->call;
    struct store_host host = {0};
    struct store_entry entry = {0};
    issuer_autoentry *parsed = NULL;
    struct att_err why = {0};
    enum att_rc rc = issuer_host_by_account(tx, call->account.thumbprint, &host, &why);
    if (!rc) {
        rc = issuer_host_check(&host, &why);
    }
    if (!rc) {
        rc = issuer_entry_for(call->issuer, tx, m->name, &host, &entry, &parsed, &why);
    }
    if (rc == ATT_E_DENIED) {
        rc = rejected(call, &why, err);
    } else if (rc && err) {
        *err = why;
    }
    if (!rc) {
        rc = choose_profile(m, parsed->v, err);
    }
    if (!rc) {
        rc = issuer_check_rate(call, tx, err);
    }
    if (!rc && m->request.replaces) {
        rc = issuer_replaces_check(call, tx, &m->request, m->replaces, err);
    }
    if (!rc) {
        rc = issuer_check_host_rate(call, &host, err);
    }
    if (!rc) {
        rc = fill_order(m, &host, &entry, err);
    }
    if (!rc) {
        rc = store_insert(tx, &store_orders, &m->order, err);
    }
    if (!rc) {
        rc = issuer_replaces_mark(tx, m->replaces, m->order.id, err);
    }
    store_record_done(&store_entries, &entry);
    store_record_done(&store_hosts, &host);
    return rc;
}

static enum att_rc agent_name(struct m3 *m, struct att_err *err)
{
    struct issuer_call *call = m->call;
    if (m->request.n_identifiers != 1) {
        return issuer_problem(call, err, ACME_P_REJECTED_IDENTIFIER, NULL,
                              "an order has exactly one identifier here");
    }
    const struct acme_identifier *id = &m->request.identifiers[0];
    if (strcmp(id->type, ACME_ID_SPIFFE) != 0) {
        return issuer_problem(call, err, ACME_P_UNSUPPORTED_IDENTIFIER, NULL,
                              "identifiers of type %.31s are not issued here", id->type);
    }
    struct att_slice name;
    if (certs_spiffe_agent_name(att_slice_str(id->value), call->issuer->trust_domain, &name,
                                NULL)) {
        return issuer_problem(call, err, ACME_P_REJECTED_IDENTIFIER, "notAssigned",
                              "expected spiffe://%s/agent/NAME", call->issuer->trust_domain);
    }
    snprintf(m->name, sizeof m->name, "%.*s", (int)name.len, (const char *)name.ptr);
    return ATT_OK;
}

static enum att_rc audit_refusal(void *user, struct store_tx *tx, struct att_err *err)
{
    struct m3 *m = user;
    struct issuer_call *call = m->call;
    const char *reason =
        call->problem.n_sub ? call->problem.sub[0].reason : acme_problem_word(call->problem.type);
    json_t *record = issuer_record("issue", "refused", reason, call->problem.detail,
                                   m->request.identifiers[0].value);
    json_object_set_new(record, "message", json_string("newOrder"));
    json_object_set_new(record, "account", json_string(call->account.thumbprint));
    return issuer_audit(tx, call->now, record, NULL, err);
}

enum att_rc issuer_new_order(struct issuer_call *call, struct att_err *err)
{
    struct m3 m = {.call = call};
    enum att_rc rc = acme_order_request_parse(att_buf_slice(&call->jws.payload), &m.request, err);
    const char *type = rc ? "" : m.request.identifiers[0].type;
    if (!rc && ((call->settings->conf->dns && strcmp(type, ACME_ID_DNS) == 0) ||
                (call->settings->conf->devices && strcmp(type, ACME_ID_PERMANENT) == 0))) {
        rc = issuer_dns_new_order(call, &m.request, err);
        acme_order_request_done(&m.request);
        return rc;
    }
    if (!rc) {
        rc = agent_name(&m, err);
        if (!rc) {
            /* An order that a loss of power takes back is one that the client makes again. */
            rc = store_run_soft(call->issuer->store, open_order, &m, err);
        }
        struct att_err lost = {0};
        if (rc == ATT_E_DENIED && call->has_problem && call->problem.type != ACME_P_RATE_LIMITED &&
            store_run(call->issuer->store, true, audit_refusal, &m, &lost)) {
            att_log_err(ATT_ERROR, "audit.lost", &lost);
        }
    }
    if (!rc) {
        snprintf(call->response->location, sizeof call->response->location, "%s/order/%s",
                 call->issuer->base_url, m.order.id);
        rc = issuer_reply(call, 201, issuer_order_json(call->issuer, &m.order, call->now), err);
    }
    acme_order_request_done(&m.request);
    store_record_done(&store_orders, &m.order);
    return rc;
}

/* ---- reading
 * ----------------------------------------------------------------------------------------------------
 */

enum att_rc issuer_order_load(struct issuer_call *call, struct store_tx *tx,
                              struct store_order *ret_order, struct att_err *err)
{
    enum att_rc rc = store_get(tx, &store_orders, call->id, ret_order, err);
    if (!rc && strcmp(ret_order->account, call->account.id) != 0) {
        store_record_done(&store_orders, ret_order);
        rc = issuer_problem(call, err, ACME_P_UNAUTHORIZED, NULL, "another account's resource");
    }
    return rc;
}

enum order_view { VIEW_ORDER, VIEW_AUTHZ, VIEW_CHALLENGE };

struct reading {
    struct issuer_call *call;
    enum order_view view;
    struct store_order order;
    json_t *known;
};

static enum att_rc read_order(void *user, struct store_tx *tx, struct att_err *err)
{
    struct reading *r = user;
    enum att_rc rc = issuer_order_load(r->call, tx, &r->order, err);
    struct store_host host = {0};
    /* An order itself says nothing of logs. */
    if (!rc && r->view != VIEW_ORDER &&
        store_get(tx, &store_hosts, r->order.host, &host, NULL) == ATT_OK) {
        att_autojson *notes = issuer_json(host.notes);
        r->known = issuer_logs_known(tx, notes);
    }
    store_record_done(&store_hosts, &host);
    return rc;
}

static enum att_rc show(struct issuer_call *call, enum order_view view, struct att_err *err)
{
    struct reading r = {.call = call, .view = view};
    struct issuer *issuer = call->issuer;
    enum att_rc rc = store_run(issuer->store, false, read_order, &r, err);
    if (!rc) {
        json_t *body = view == VIEW_ORDER   ? issuer_order_json(issuer, &r.order, call->now)
                       : view == VIEW_AUTHZ ? authz_json(issuer, &r.order, r.known, call->now)
                                            : issuer_challenge_json(issuer, &r.order, r.known);
        if (view == VIEW_CHALLENGE) {
            snprintf(call->response->up, sizeof call->response->up, "%s/authz/%s", issuer->base_url,
                     r.order.id); /* RFC 8555 §7.5.1 */
        }
        if (strcmp(r.order.status, "processing") == 0) {
            call->response->retry_after_s = 1;
        }
        rc = issuer_reply(call, 200, body, err);
    }
    json_decref(r.known);
    store_record_done(&store_orders, &r.order);
    return rc;
}

static enum att_rc get_only(struct issuer_call *call, enum order_view view, struct att_err *err)
{
    if (call->jws.payload.len) {
        return issuer_problem(call, err, ACME_P_MALFORMED, NULL,
                              "this resource is read with POST-as-GET: expected an empty payload");
    }
    return show(call, view, err);
}

enum att_rc issuer_order(struct issuer_call *call, struct att_err *err)
{
    return get_only(call, VIEW_ORDER, err);
}

/* RFC 8555 §7.5.2: the order's only authorization, and so the order ends, too. */
static enum att_rc deactivate(void *user, struct store_tx *tx, struct att_err *err)
{
    struct reading *r = user;
    enum att_rc rc = issuer_order_load(r->call, tx, &r->order, err);
    bool done = !rc && r->order.authz[0];
    if (rc || done) {
        return rc;
    }
    if (strcmp(r->order.chall_status, "invalid") == 0 || r->order.expires_at <= r->call->now) {
        return issuer_problem(r->call, err, ACME_P_MALFORMED, NULL,
                              "the authorization is invalid or has expired");
    }
    bool open = strcmp(r->order.status, "pending") == 0 || strcmp(r->order.status, "ready") == 0;
    bool ok = issuer_set(&r->order.authz, "deactivated") &&
              (!open || issuer_set(&r->order.status, "invalid"));
    return ok ? store_put(tx, &store_orders, &r->order, err)
              : att_fail(err, ATT_E_NOMEM, "no memory");
}

enum att_rc issuer_authz(struct issuer_call *call, struct att_err *err)
{
    if (!call->jws.payload.len) {
        return show(call, VIEW_AUTHZ, err);
    }
    struct reading r = {.call = call};
    enum att_rc rc = acme_deactivation_parse(att_buf_slice(&call->jws.payload), err);
    if (!rc) {
        rc = store_run(call->issuer->store, true, deactivate, &r, err);
    }
    store_record_done(&store_orders, &r.order);
    return rc ? rc : show(call, VIEW_AUTHZ, err);
}

enum att_rc issuer_challenge_show(struct issuer_call *call, struct att_err *err)
{
    return show(call, VIEW_CHALLENGE, err);
}
