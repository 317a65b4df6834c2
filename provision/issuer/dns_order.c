/* Orders and authorizations for DNS names: made, told, deactivated. */
#include "provision/acme/requests.h"
#include "provision/issuer/dns.h"
#include "provision/issuer/renewal.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOKEN_BYTES 24 /* RFC 8555 §11.3: at least 128 bits */

/* ---- objects
 * ------------------------------------------------------------------------------------------------
 */

void issuer_dns_view_done(struct issuer_dns_view *view)
{
    for (size_t i = 0; i < view->n; i++) {
        store_record_done(&store_dns_authzs, &view->authzs[i]);
    }
    free(view->authzs);
    store_record_done(&store_dns_orders, &view->order);
    *view = (struct issuer_dns_view){0};
}

bool issuer_dns_is_device(const char *type)
{
    return strcmp(type, ACME_ID_PERMANENT) == 0;
}

const char *issuer_dns_noun(const char *type)
{
    return issuer_dns_is_device(type) ? "device" : "dns";
}

const char *issuer_dns_status(const struct store_dns_order *order, int64_t now)
{
    bool waits = strcmp(order->status, "pending") == 0 || strcmp(order->status, "ready") == 0;
    return waits && order->expires_at <= now ? "invalid" : order->status;
}

json_t *issuer_dns_order_json(const struct issuer *issuer, const struct issuer_dns_view *view,
                              int64_t now)
{
    const struct store_dns_order *order = &view->order;
    const char *noun = issuer_dns_noun(order->type);
    json_t *identifiers = json_array(), *authzs = json_array();
    for (size_t i = 0; i < view->n; i++) {
        json_array_append_new(identifiers, json_pack("{s:s, s:s}", "type", order->type, "value",
                                                     view->authzs[i].name));
        json_array_append_new(
            authzs, json_sprintf("%s/%s-authz/%s", issuer->base_url, noun, view->authzs[i].id));
    }
    json_t *o = json_pack("{s:s, s:o, s:o, s:o, s:o, s:s}", "status", issuer_dns_status(order, now),
                          "expires", issuer_time_json(order->expires_at), "identifiers",
                          identifiers, "authorizations", authzs, "finalize",
                          json_sprintf("%s/%s-finalize/%s", issuer->base_url, noun, order->id),
                          "profile", order->profile);
    if (order->cert[0]) {
        json_object_set_new(o, "certificate",
                            json_sprintf("%s/certificate/%s", issuer->base_url, order->cert));
    }
    if (order->error[0]) {
        json_object_set_new(o, "error", issuer_json(order->error));
    }
    return o;
}

static json_t *challenge_json(const struct issuer *issuer, const struct store_dns_authz *a)
{
    const char *status =
        strcmp(a->status, "deactivated") == 0 ? (a->validated_at ? "valid" : "pending") : a->status;
    bool device = issuer_dns_is_device(a->type);
    json_t *c = json_pack(
        "{s:s, s:o, s:s, s:s}", "type", device ? ACME_CHALLENGE_DEVICE_ATTEST : ACME_CHALLENGE_HTTP,
        "url",
        json_sprintf("%s/%s-challenge/%s", issuer->base_url, issuer_dns_noun(a->type), a->id),
        "status", status, "token", a->token);
    if (a->validated_at) {
        json_object_set_new(c, "validated", issuer_time_json(a->validated_at));
    }
    if (a->error[0]) {
        json_object_set_new(c, "error", issuer_json(a->error));
    }
    return c;
}

static json_t *authz_json(const struct issuer *issuer, const struct store_dns_authz *a, int64_t now)
{
    bool open = strcmp(a->status, "pending") == 0 || strcmp(a->status, STORE_AUTHZ_PROCESSING) == 0;
    bool over = a->expires_at <= now;
    const char *status = open                                      ? (over ? "invalid" : "pending")
                         : over && strcmp(a->status, "valid") == 0 ? "expired"
                                                                   : a->status;
    return json_pack("{s:s, s:o, s:{s:s, s:s}, s:[o]}", "status", status, "expires",
                     issuer_time_json(a->expires_at), "identifier", "type", a->type, "value",
                     a->name, "challenges", challenge_json(issuer, a));
}

/* ---- loading
 * ------------------------------------------------------------------------------------------------
 */

static enum att_rc copy_authz(const struct store_dns_authz *from, struct store_dns_authz *to,
                              struct att_err *err)
{
    bool ok = issuer_set(&to->id, from->id) && issuer_set(&to->ord, from->ord) &&
              issuer_set(&to->account, from->account) && issuer_set(&to->name, from->name) &&
              issuer_set(&to->type, from->type) && issuer_set(&to->host, from->host) &&
              issuer_set(&to->ak, from->ak) && issuer_set(&to->spki, from->spki) &&
              issuer_set(&to->decision, from->decision) && issuer_set(&to->status, from->status) &&
              issuer_set(&to->token, from->token) && issuer_set(&to->error, from->error);
    to->created_at = from->created_at;
    to->expires_at = from->expires_at;
    to->validated_at = from->validated_at;
    return ok ? ATT_OK : att_fail(err, ATT_E_NOMEM, "no memory");
}

static enum att_rc add_authz(void *user, const void *record, struct att_err *err)
{
    struct issuer_dns_view *view = user;
    if (view->n >= CERTS_DNS_NAMES_MAX) {
        return att_fail(err, ATT_E_INTERNAL, "order %s has too many names", view->order.id);
    }
    return copy_authz(record, &view->authzs[view->n++], err);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct store_dns_authz *)a)->name,
                  ((const struct store_dns_authz *)b)->name);
}

enum att_rc issuer_dns_load(struct issuer_call *call, struct store_tx *tx, const char *id,
                            struct issuer_dns_view *ret_view, struct att_err *err)
{
    struct issuer_dns_view view = {0};
    enum att_rc rc = store_get(tx, &store_dns_orders, id, &view.order, err);
    if (!rc && strcmp(view.order.account, call->account.id) != 0) {
        rc = issuer_problem(call, err, ACME_P_UNAUTHORIZED, NULL, "another account's resource");
    }
    if (!rc) {
        view.authzs = calloc(CERTS_DNS_NAMES_MAX, sizeof *view.authzs);
        rc = view.authzs ? store_each(tx, &store_dns_authzs, "ord", id, add_authz, &view, err)
                         : att_fail(err, ATT_E_NOMEM, "no memory");
    }
    if (rc) {
        issuer_dns_view_done(&view);
        return rc;
    }
    qsort(view.authzs, view.n, sizeof *view.authzs, by_name);
    *ret_view = view;
    return ATT_OK;
}

/* ---- newOrder
 * ------------------------------------------------------------------------------------------------
 */

struct opening {
    struct issuer_call *call;
    const struct acme_order_request *request;
    const char *type;                       /* of the identifiers */
    const struct conf_dns_profile *profile; /* of DNS names */
    const char *profile_name;
    char names[CERTS_DNS_NAMES_MAX][CERTS_DNS_NAME_MAX + 1];
    size_t n;
    char replaces[2 * ATT_SHA256_LEN + 1];
    struct issuer_dns_view made;
};

static int compare(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* Each name's own refusal stands in a subproblem (RFC 8555 §6.7.1). */
static void refuse_name(struct opening *o, enum acme_problem_type type, const char *name,
                        const char *detail)
{
    struct acme_problem *p = &o->call->problem;
    if (!o->call->has_problem) {
        acme_problem_set(p, type, "not every name of the order can be had here");
        o->call->has_problem = true;
    }
    acme_problem_add_name(p, type, name, detail);
}

static enum att_rc take_names(struct opening *o, struct att_err *err)
{
    for (size_t i = 0; i < o->request->n_identifiers; i++) {
        const struct acme_identifier *id = &o->request->identifiers[i];
        char *to = o->names[o->n];
        if (strcmp(id->type, ACME_ID_DNS) != 0) {
            return issuer_problem(o->call, err, ACME_P_UNSUPPORTED_IDENTIFIER, NULL,
                                  "an order for DNS names has nothing else, found type %.31s",
                                  id->type);
        }
        size_t len = strnlen(id->value, CERTS_DNS_NAME_MAX + 1);
        for (size_t c = 0; c < len && len <= CERTS_DNS_NAME_MAX; c++) {
            to[c] = (char)tolower((unsigned char)id->value[c]);
        }
        to[len <= CERTS_DNS_NAME_MAX ? len : 0] = 0;
        if (certs_dns_name_ok(to)) {
            o->n++;
            continue;
        }
        bool wild = id->value[0] == '*';
        refuse_name(o, wild ? ACME_P_REJECTED_IDENTIFIER : ACME_P_MALFORMED, id->value,
                    wild ? "http-01 proves no wildcard" : "expected a DNS name");
    }
    if (o->call->has_problem) {
        return att_fail(err, ATT_E_DENIED, "%s", o->call->problem.detail);
    }
    qsort(o->names, o->n, sizeof o->names[0], compare);
    size_t kept = 0;
    for (size_t i = 0; i < o->n; i++) {
        if (kept == 0 || strcmp(o->names[kept - 1], o->names[i]) != 0) {
            memmove(o->names[kept++], o->names[i], sizeof o->names[0]);
        }
    }
    o->n = kept;
    return ATT_OK;
}

static bool allows_all(const struct conf_dns_profile *profile, const struct opening *o)
{
    for (size_t i = 0; i < o->n; i++) {
        if (!conf_dns_profile_allows(profile, o->names[i])) {
            return false;
        }
    }
    return true;
}

/* The profile that was asked for; else the first that allows every name. */
static enum att_rc choose_profile(struct opening *o, struct att_err *err)
{
    const struct conf_issuer *conf = o->call->settings->conf;
    const char *asked = o->request->profile;
    o->profile = asked ? conf_dns_profile(conf, asked) : &conf->dns->profiles[0];
    if (!o->profile) {
        return issuer_problem(o->call, err, ACME_P_INVALID_PROFILE, NULL,
                              "there is no profile %.64s for DNS names", asked);
    }
    for (unsigned i = 0; !asked && i < conf->dns->n_profiles; i++) {
        if (allows_all(&conf->dns->profiles[i], o)) {
            o->profile = &conf->dns->profiles[i];
            return ATT_OK;
        }
    }
    for (size_t i = 0; i < o->n; i++) {
        if (!conf_dns_profile_allows(o->profile, o->names[i])) {
            refuse_name(o, ACME_P_REJECTED_IDENTIFIER, o->names[i],
                        "the profile does not allow this name");
        }
    }
    return o->call->has_problem ? att_fail(err, ATT_E_DENIED,
                                           "profile %s does not allow every name", o->profile->name)
                                : ATT_OK;
}

static enum att_rc fill_authz(const struct opening *o, const char *name,
                              struct store_dns_authz *authz, struct att_err *err)
{
    uint8_t token[TOKEN_BYTES];
    char id[ISSUER_ID_LEN];
    att_autobuf text = {0};
    enum att_rc rc = att_random(token, sizeof token, err);
    if (!rc) {
        rc = issuer_new_id(id, err);
    }
    if (rc) {
        return rc;
    }
    att_buf_b64u(&text, ATT_SLICE_ARRAY(token));
    const char *token_text = att_buf_cstr(&text);
    bool ok =
        token_text && issuer_set(&authz->id, id) && issuer_set(&authz->ord, o->made.order.id) &&
        issuer_set(&authz->account, o->call->account.id) && issuer_set(&authz->type, o->type) &&
        issuer_set(&authz->name, name) && issuer_set(&authz->status, "pending") &&
        issuer_set(&authz->token, token_text) && issuer_set(&authz->error, "") &&
        issuer_set(&authz->host, "") && issuer_set(&authz->ak, "") &&
        issuer_set(&authz->spki, "") && issuer_set(&authz->decision, "");
    authz->created_at = o->made.order.created_at;
    authz->expires_at = o->made.order.expires_at;
    return ok ? ATT_OK : att_fail(err, ATT_E_NOMEM, "no memory");
}

static enum att_rc fill_order(struct opening *o, struct att_err *err)
{
    char id[ISSUER_ID_LEN];
    struct store_dns_order *order = &o->made.order;
    att_autojson *names = json_array();
    for (size_t i = 0; i < o->n; i++) {
        json_array_append_new(names, json_string(o->names[i]));
    }
    issuer_autofree *text = issuer_json_text(names);
    enum att_rc rc = issuer_new_id(id, err);
    if (rc) {
        return rc;
    }
    bool ok = text && issuer_set(&order->id, id) &&
              issuer_set(&order->account, o->call->account.id) &&
              issuer_set(&order->type, o->type) && issuer_set(&order->names, text) &&
              issuer_set(&order->profile, o->profile_name) &&
              issuer_set(&order->status, "pending") && issuer_set(&order->error, "") &&
              issuer_set(&order->cert, "") && issuer_set(&order->replaces, o->replaces);
    order->created_at = o->call->now;
    order->expires_at =
        o->call->now + (issuer_dns_is_device(o->type) ? ISSUER_ORDER_S : ISSUER_DNS_ORDER_S);
    o->made.authzs = calloc(CERTS_DNS_NAMES_MAX, sizeof *o->made.authzs);
    return ok && o->made.authzs ? ATT_OK : att_fail(err, ATT_E_NOMEM, "no memory");
}

static enum att_rc check_rate(struct issuer_call *call, struct store_tx *tx, struct att_err *err)
{
    const struct conf_limits *l = call->settings->conf->limits;
    struct store_recent n = {0};
    enum att_rc rc = store_dns_recent(tx, call->account.id, call->now - ISSUER_RECENT_S, &n, err);
    if (rc || (n.orders < l->account_orders && n.fruitless < l->account_fruitless_orders)) {
        return rc;
    }
    rc = issuer_problem(call, err, ACME_P_RATE_LIMITED, NULL,
                        "%lld orders, %lld of them without a certificate, in %d s",
                        (long long)n.orders, (long long)n.fruitless, ISSUER_RECENT_S);
    call->problem.retry_after_s = 60;
    return rc;
}

enum att_rc issuer_dns_check_host(struct issuer_call *call, struct store_tx *tx,
                                  struct att_err *err)
{
    struct store_host host = {0};
    enum att_rc rc = store_find(tx, &store_hosts, "account", call->account.thumbprint, &host, NULL);
    if (rc == ATT_E_NOTFOUND) {
        return ATT_OK; /* a service's */
    }
    if (rc) {
        return att_fail(err, rc, "hosts cannot be read");
    }
    if (strcmp(host.state, STORE_HOST_BANNED) == 0) {
        rc = issuer_problem(call, err, ACME_P_UNAUTHORIZED, "hostBanned",
                            "host %.12s is banned: %s", host.id, host.reason);
    }
    store_record_done(&store_hosts, &host);
    return rc;
}

static enum att_rc open_order(void *user, struct store_tx *tx, struct att_err *err)
{
    struct opening *o = user;
    enum att_rc rc = issuer_dns_check_host(o->call, tx, err);
    if (!rc) {
        rc = check_rate(o->call, tx, err);
    }
    if (!rc && o->request->replaces) {
        rc = issuer_replaces_check(o->call, tx, o->request, o->replaces, err);
    }
    if (!rc) {
        rc = fill_order(o, err);
    }
    if (!rc) {
        rc = store_insert(tx, &store_dns_orders, &o->made.order, err);
    }
    for (size_t i = 0; i < o->n && !rc; i++) {
        rc = fill_authz(o, o->names[i], &o->made.authzs[o->made.n++], err);
        if (!rc) {
            rc = store_insert(tx, &store_dns_authzs, &o->made.authzs[i], err);
        }
    }
    if (!rc && o->replaces[0]) {
        rc = issuer_replaces_mark(tx, o->replaces, o->made.order.id, err);
    }
    return rc;
}

/* permanent-identifier: one, of the only form that an AK certificate of ours states. Whose it is,
 * the evidence says. */
static enum att_rc take_device(struct opening *o, struct att_err *err)
{
    const char *value = o->request->identifiers[0].value;
    if (o->request->n_identifiers != 1) {
        return issuer_problem(o->call, err, ACME_P_REJECTED_IDENTIFIER, NULL,
                              "an order for a permanent-identifier has exactly one identifier");
    }
    if (strlen(value) != VERIFY_ID_HEX - 1 || strspn(value, "0123456789abcdef") != strlen(value)) {
        bool slash = strchr(value, '/') != NULL; /* device-attest §3 */
        return issuer_problem(o->call, err, slash ? ACME_P_MALFORMED : ACME_P_REJECTED_IDENTIFIER,
                              NULL, "expected an EK id: 64 lowercase hex digits");
    }
    memcpy(o->names[0], value, VERIFY_ID_HEX);
    o->n = 1;
    return ATT_OK;
}

static enum att_rc choose_device_profile(struct opening *o, struct att_err *err)
{
    const struct conf_issuer *conf = o->call->settings->conf;
    const char *asked = o->request->profile;
    const struct conf_device_profile *profile =
        asked ? conf_device_profile(conf, asked) : &conf->devices->profiles[0];
    if (!profile) {
        return issuer_problem(o->call, err, ACME_P_INVALID_PROFILE, NULL,
                              "there is no profile %.64s for permanent-identifiers", asked);
    }
    o->profile_name = profile->name;
    return ATT_OK;
}

enum att_rc issuer_dns_new_order(struct issuer_call *call, const struct acme_order_request *request,
                                 struct att_err *err)
{
    struct opening *o = calloc(1, sizeof *o);
    if (!o) {
        return att_fail(err, ATT_E_NOMEM, "no memory");
    }
    o->call = call;
    o->request = request;
    bool device = issuer_dns_is_device(request->identifiers[0].type);
    o->type = device ? ACME_ID_PERMANENT : ACME_ID_DNS;
    enum att_rc rc = device ? take_device(o, err) : take_names(o, err);
    if (!rc) {
        rc = device ? choose_device_profile(o, err) : choose_profile(o, err);
    }
    if (!rc && !device) {
        o->profile_name = o->profile->name;
    }
    if (!rc) {
        rc = store_run(call->issuer->store, true, open_order, o, err);
    }
    if (!rc) {
        snprintf(call->response->location, sizeof call->response->location, "%s/%s-order/%s",
                 call->issuer->base_url, issuer_dns_noun(o->type), o->made.order.id);
        rc = issuer_reply(call, 201, issuer_dns_order_json(call->issuer, &o->made, call->now), err);
    }
    issuer_dns_view_done(&o->made);
    free(o);
    return rc;
}

/* ---- reading
 * ------------------------------------------------------------------------------------------------
 */

static enum att_rc read_order(void *user, struct store_tx *tx, struct att_err *err)
{
    struct opening *o = user;
    enum att_rc rc = issuer_dns_load(o->call, tx, o->call->id, &o->made, err);
    return !rc && strcmp(o->made.order.type, o->type) != 0
               ? att_fail(err, ATT_E_NOTFOUND, "no order of this type")
               : rc;
}

static enum att_rc show_order(struct issuer_call *call, const char *type, struct att_err *err)
{
    if (call->jws.payload.len) {
        return issuer_problem(call, err, ACME_P_MALFORMED, NULL,
                              "this resource is read with POST-as-GET: expected an empty payload");
    }
    struct opening *o = calloc(1, sizeof *o);
    if (!o) {
        return att_fail(err, ATT_E_NOMEM, "no memory");
    }
    o->call = call;
    o->type = type;
    enum att_rc rc = store_run(call->issuer->store, false, read_order, o, err);
    if (!rc) {
        call->response->retry_after_s = strcmp(o->made.order.status, "processing") == 0 ? 1 : 0;
        rc = issuer_reply(call, 200, issuer_dns_order_json(call->issuer, &o->made, call->now), err);
    }
    issuer_dns_view_done(&o->made);
    free(o);
    return rc;
}

enum att_rc issuer_dns_order(struct issuer_call *call, struct att_err *err)
{
    return show_order(call, ACME_ID_DNS, err);
}

enum att_rc issuer_device_order(struct issuer_call *call, struct att_err *err)
{
    return show_order(call, ACME_ID_PERMANENT, err);
}

struct access {
    struct issuer_call *call;
    const char *type;
    struct store_dns_authz authz;
    bool deactivate;
};

static enum att_rc load_authz(struct access *a, struct store_tx *tx, struct att_err *err)
{
    enum att_rc rc = store_get(tx, &store_dns_authzs, a->call->id, &a->authz, err);
    if (!rc && strcmp(a->authz.account, a->call->account.id) != 0) {
        rc = issuer_problem(a->call, err, ACME_P_UNAUTHORIZED, NULL, "another account's resource");
    }
    return !rc && strcmp(a->authz.type, a->type) != 0
               ? att_fail(err, ATT_E_NOTFOUND, "no authorization of this type")
               : rc;
}

/* RFC 8555 §7.5.2. What was issued on it stays; revokeCert is for that. */
static enum att_rc deactivate(struct access *a, struct store_tx *tx, struct att_err *err)
{
    if (strcmp(a->authz.status, "invalid") == 0 || a->authz.expires_at <= a->call->now) {
        return issuer_problem(a->call, err, ACME_P_MALFORMED, NULL,
                              "the authorization is invalid or has expired");
    }
    if (strcmp(a->authz.status, "deactivated") == 0) {
        return ATT_OK;
    }
    enum att_rc rc = issuer_set(&a->authz.status, "deactivated")
                         ? store_put(tx, &store_dns_authzs, &a->authz, err)
                         : att_fail(err, ATT_E_NOMEM, "no memory");
    return rc ? rc : issuer_dns_fail_order(tx, a->authz.ord, NULL, err);
}

static enum att_rc use_authz(void *user, struct store_tx *tx, struct att_err *err)
{
    struct access *a = user;
    enum att_rc rc = load_authz(a, tx, err);
    return rc || !a->deactivate ? rc : deactivate(a, tx, err);
}

static enum att_rc answer_authz(struct issuer_call *call, const char *type, struct att_err *err)
{
    struct access a = {.call = call, .type = type};
    enum att_rc rc = ATT_OK;
    if (call->jws.payload.len) {
        rc = acme_deactivation_parse(att_buf_slice(&call->jws.payload), err);
        a.deactivate = !rc;
    }
    if (!rc) {
        rc = store_run(call->issuer->store, a.deactivate, use_authz, &a, err);
    }
    if (!rc) {
        call->response->retry_after_s = strcmp(a.authz.status, STORE_AUTHZ_PROCESSING) == 0 ? 1 : 0;
        rc = issuer_reply(call, 200, authz_json(call->issuer, &a.authz, call->now), err);
    }
    store_record_done(&store_dns_authzs, &a.authz);
    return rc;
}

enum att_rc issuer_dns_authz(struct issuer_call *call, struct att_err *err)
{
    return answer_authz(call, ACME_ID_DNS, err);
}

enum att_rc issuer_device_authz(struct issuer_call *call, struct att_err *err)
{
    return answer_authz(call, ACME_ID_PERMANENT, err);
}

/* ---- challenges are told here, answered in dns_validate.c ---- */

json_t *issuer_dns_challenge_json(const struct issuer *issuer, const struct store_dns_authz *authz)
{
    return challenge_json(issuer, authz);
}
