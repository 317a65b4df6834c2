/* From a request to an answer: routes, methods, JWS discipline (RFC 8555 §6), problems. */
#include "provision/issuer/device.h"
#include "provision/issuer/jwt.h"
#include "provision/issuer/metrics.h"
#include "provision/issuer/revoke.h"
#include "provision/issuer/renewal.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum key_kind { KEY_JWK, KEY_KID, KEY_EITHER };

struct route {
    const char *noun;
    bool has_id;
    enum key_kind key;
    issuer_handler handler;
    bool evidence; /* logs may be in it */
};

#define RENEWAL "renewalInfo/" /* read without a signature (RFC 9773 §4.2) */

static const struct route routes[] = {
    {"newAccount", false, KEY_JWK, issuer_new_account, false},
    {"newOrder", false, KEY_KID, issuer_new_order, false},
    {"newAttestationKey", false, KEY_KID, issuer_new_attestation_key, false},
    {"hostView", false, KEY_KID, issuer_host_view, false},
    {"newToken", false, KEY_KID, issuer_new_token, false},
    {"keyChange", false, KEY_KID, issuer_key_change, false},
    {"revokeCert", false, KEY_EITHER, issuer_revoke_cert, false},
    {"account", true, KEY_KID, issuer_account, false},
    {"orders", true, KEY_KID, issuer_account_orders, false},
    {"order", true, KEY_KID, issuer_order, false},
    {"authz", true, KEY_KID, issuer_authz, false},
    {"challenge", true, KEY_KID, issuer_challenge, true},
    {"finalize", true, KEY_KID, issuer_finalize, false},
    {"certificate", true, KEY_KID, issuer_certificate, false},
    {"alternate", true, KEY_KID, issuer_alternate, false},
    {"ak", true, KEY_KID, issuer_attestation_key, true},
    {"dns-order", true, KEY_KID, issuer_dns_order, false},
    {"dns-authz", true, KEY_KID, issuer_dns_authz, false},
    {"dns-challenge", true, KEY_KID, issuer_dns_challenge, false},
    {"dns-finalize", true, KEY_KID, issuer_dns_finalize, false},
    {"device-order", true, KEY_KID, issuer_device_order, false},
    {"device-authz", true, KEY_KID, issuer_device_authz, false},
    {"device-challenge", true, KEY_KID, issuer_device_challenge, false},
    {"device-finalize", true, KEY_KID, issuer_device_finalize, false},
};

/* ---- problems
 * -------------------------------------------------------------------------------------------- */

static void put_problem(struct issuer_response *response, const struct acme_problem *problem)
{
    json_t *json = NULL;
    att_buf_reset(&response->body);
    response->status = problem->status ? problem->status : 500;
    response->content_type = ACME_PROBLEM_CONTENT_TYPE;
    if (problem->retry_after_s > 0) {
        response->retry_after_s = problem->retry_after_s;
    }
    if (acme_problem_encode(problem, &json, NULL) == ATT_OK) {
        if (response->request_id[0]) { /* RFC 9457 §3.1.5: this very occurrence */
            json_object_set_new(json, "instance",
                                json_sprintf("urn:uuid:%s", response->request_id));
        }
        if (att_json_dump(json, false, &response->body, NULL)) {
            att_buf_reset(&response->body);
        }
        json_decref(json);
    }
}

/* Our own troubles are told to the log, not to the peer. */
static void problem_of_err(const struct att_err *err, struct acme_problem *ret_problem)
{
    switch (err->rc) {
    case ATT_E_IO:
    case ATT_E_NOMEM:
    case ATT_E_INTERNAL:
    case ATT_E_CRYPTO:
    case ATT_E_EXISTS:
    case ATT_E_GONE:
        acme_problem_set(ret_problem, ACME_P_SERVER_INTERNAL, "%s",
                         strcmp(err->reason, "diskFull") == 0
                             ? "the issuer's disk is full: nothing was changed"
                             : "the issuer could not do its work: nothing was changed");
        return;
    case ATT_E_RETRY:
        acme_problem_set(ret_problem, ACME_P_RATE_LIMITED, "try again");
        ret_problem->retry_after_s = 1;
        return;
    case ATT_E_UNREACHABLE: /* the database: RFC 8555 §6.7 has no word for it, HTTP has 503 */
        acme_problem_set(ret_problem, ACME_P_SERVER_INTERNAL,
                         "the issuer's database is away: try again");
        ret_problem->status = 503;
        ret_problem->retry_after_s = 2;
        return;
    case ATT_E_NOTFOUND:
        acme_problem_set(ret_problem, ACME_P_MALFORMED, "there is no such thing here");
        ret_problem->status = 404;
        return;
    default:
        acme_problem_from_err(ret_problem, err);
    }
}

void issuer_refuse_err(struct issuer_response *response, const struct att_err *err)
{
    struct acme_problem problem = {0};
    problem_of_err(err, &problem);
    put_problem(response, &problem);
}

void issuer_refuse_plain(struct issuer_response *response, int status, enum acme_problem_type type,
                         const char *text)
{
    struct acme_problem problem;
    acme_problem_set(&problem, type, "%s", text);
    problem.status = status;
    put_problem(response, &problem);
}

/* ---- directory
 * --------------------------------------------------------------------------------------------- */

static enum att_rc add_profiles(json_t *meta, const struct conf_issuer *conf)
{
    json_t *profiles = json_object();
    for (unsigned i = 0; i < conf->n_profiles; i++) {
        const struct conf_profile *p = &conf->profiles[i];
        json_object_set_new(profiles, p->name, json_string(p->description ? p->description : ""));
    }
    for (unsigned i = 0; conf->dns && i < conf->dns->n_profiles; i++) {
        const struct conf_dns_profile *p = &conf->dns->profiles[i];
        json_object_set_new(profiles, p->name, json_string(p->description));
    }
    for (unsigned i = 0; conf->devices && i < conf->devices->n_profiles; i++) {
        const struct conf_device_profile *p = &conf->devices->profiles[i];
        json_object_set_new(profiles, p->name, json_string(p->description));
    }
    return json_object_set_new(meta, "profiles", profiles) == 0 ? ATT_OK : ATT_E_NOMEM;
}

static void directory(struct issuer *issuer, struct issuer_response *response)
{
    issuer_autosettings *settings = issuer_settings_get(issuer);
    att_autojson *json = json_object();
    static const char *const nouns[] = {"newNonce",   "newAccount", "newOrder",
                                        "revokeCert", "keyChange",  "newAttestationKey",
                                        "hostView",   "renewalInfo"};
    for (size_t i = 0; i < sizeof nouns / sizeof nouns[0]; i++) {
        json_object_set_new(json, nouns[i], json_sprintf("%s/%s", issuer->base_url, nouns[i]));
    }
    if (settings->conf->jwt && issuer->jwt) {
        json_object_set_new(json, "newToken", json_sprintf("%s/newToken", issuer->base_url));
    }
    json_t *meta = json_pack("{s:b, s:{s:i, s:s}}", "externalAccountRequired",
                             settings->conf->eab_required ? 1 : 0, "attestd", "version", 1,
                             "trustDomain", issuer->trust_domain);
    if (add_profiles(meta, settings->conf) || json_object_set_new(json, "meta", meta) ||
        att_json_dump(json, false, &response->body, NULL)) {
        issuer_refuse_plain(response, 500, ACME_P_SERVER_INTERNAL, "no memory");
        return;
    }
    response->status = 200;
    response->content_type = "application/json";
}

/* ---- revocation lists
 * -------------------------------------------------------------------------------------- */

static bool is_crl(const char *rest, struct issuer_crl_ref *ret_of)
{
    return strncmp(rest, "crl/", 4) == 0 && issuer_crl_parse(rest + 4, ret_of);
}

/* Anybody may have them: they are signed, and name serial numbers only. */
static void crl(struct issuer *issuer, const struct issuer_crl_ref *of,
                const struct issuer_request *request, struct issuer_response *response)
{
    struct att_err err = {0};
    uint64_t number = 0;
    enum att_rc rc = issuer_crl_get(issuer, of, &response->body, &number, &err);
    if (rc == ATT_E_NOTFOUND) {
        issuer_refuse_plain(response, 404, ACME_P_MALFORMED, "there is no such resource");
        return;
    }
    if (rc) {
        att_log_err(ATT_ERROR, "crl.failed", &err);
        issuer_refuse_plain(response, 503, ACME_P_SERVER_INTERNAL, "the list cannot be made now");
        response->retry_after_s = 5;
        return;
    }
    snprintf(response->etag, sizeof response->etag, "\"%llu\"", (unsigned long long)number);
    response->cache = "max-age=30"; /* ISSUER_CRL_FRESH_S */
    response->status = 200;
    response->content_type = "application/pkix-crl";
    if (request->if_none_match && strcmp(request->if_none_match, response->etag) == 0) {
        att_buf_reset(&response->body);
        response->content_type = NULL;
        response->status = 304;
    }
}

/* ---- authentication
 * ------------------------------------------------------------------------------------------ */

struct find_account {
    const char *column, *value;
    struct store_account *account;
};

static enum att_rc find_account(void *user, struct store_tx *tx, struct att_err *err)
{
    struct find_account *f = user;
    return store_find(tx, &store_accounts, f->column, f->value, f->account, err);
}

static enum att_rc by_kid(struct issuer_call *call, struct att_err *err)
{
    if (!call->jws.kid) {
        return issuer_refuse(err, ATT_E_PARSE, "malformed", "this resource wants kid, not jwk");
    }
    const char *id = issuer_url_id(call->issuer, "account", call->jws.kid);
    struct find_account f = {"id", id, &call->account};
    enum att_rc rc =
        id ? store_run(call->issuer->store, false, find_account, &f, NULL) : ATT_E_NOTFOUND;
    if (rc == ATT_E_NOTFOUND) {
        return issuer_problem(call, err, ACME_P_ACCOUNT_DOES_NOT_EXIST, NULL,
                              "kid names no account of this issuer");
    }
    if (rc) {
        return att_fail(err, rc, "account %s cannot be read", id);
    }
    EVP_PKEY *key = NULL;
    rc = acme_keys_get(call->issuer->keys, call->account.jwk, &key, err);
    if (!rc) {
        rc = acme_jws_verify_key(&call->jws, key, err);
    }
    EVP_PKEY_free(key);
    if (!rc && strcmp(call->account.status, STORE_ACCOUNT_VALID) != 0) {
        rc = issuer_problem(call, err, ACME_P_UNAUTHORIZED, NULL, "the account is %s",
                            call->account.status);
    }
    return rc;
}

static enum att_rc by_jwk(struct issuer_call *call, struct att_err *err)
{
    if (!call->jws.jwk) {
        return issuer_refuse(err, ATT_E_PARSE, "malformed", "this resource wants jwk, not kid");
    }
    return acme_jws_verify_jwk(&call->jws, call->jws.jwk, err);
}

static enum att_rc authenticate(struct issuer_call *call, const struct route *route,
                                struct att_err *err)
{
    const struct issuer_request *request = call->request;
    size_t most = route->evidence ? ISSUER_BODY_MAX : ISSUER_PLAIN_BODY_MAX;
    if (request->body.len > most) {
        enum att_rc rc = issuer_problem(call, err, ACME_P_MALFORMED, NULL,
                                        "a request of %zu bytes; at most %zu are read here",
                                        request->body.len, most);
        call->problem.status = 413;
        return rc;
    }
    enum att_rc rc = acme_jws_parse(request->body, most, &call->jws, err);
    if (rc) {
        return rc;
    }
    /* RFC 8555 §6.4: the signed url is compared with where we know ourselves to be, not with what
     * the Host header says. */
    size_t base = strlen(call->issuer->base_url), prefix = strlen(call->issuer->base_path);
    if (strncmp(call->jws.url, call->issuer->base_url, base) != 0 ||
        strcmp(call->jws.url + base, request->path + prefix) != 0) {
        return issuer_problem(call, err, ACME_P_UNAUTHORIZED, NULL,
                              "the signed url is not this resource's");
    }
    rc = acme_nonces_spend(call->issuer->nonces, call->jws.nonce, err);
    if (rc) {
        issuer_metrics_nonce(rc);
        return rc;
    }
    bool jwk = route->key == KEY_JWK || (route->key == KEY_EITHER && call->jws.jwk);
    return jwk ? by_jwk(call, err) : by_kid(call, err);
}

static bool jose_content(const char *type)
{
    static const char want[] = "application/jose+json";
    if (!type || strncasecmp(type, want, sizeof want - 1) != 0) {
        return false;
    }
    const char *rest = type + sizeof want - 1;
    rest += strspn(rest, " \t");
    return *rest == 0 || *rest == ';';
}

static void post(struct issuer *issuer, const struct route *route, const char *id,
                 const struct issuer_request *request, struct issuer_response *response)
{
    acme_nonces_issue(issuer->nonces, response->nonce); /* RFC 8555 §6.5: on errors, too */
    if (!jose_content(request->content_type)) {
        issuer_refuse_plain(response, 415, ACME_P_MALFORMED,
                            "expected Content-Type application/jose+json");
        return;
    }
    issuer_autosettings *settings = issuer_settings_get(issuer);
    struct issuer_call call = {.issuer = issuer,
                               .settings = settings,
                               .request = request,
                               .response = response,
                               .id = id,
                               .now = issuer->clock()};
    struct att_err err = {0};
    enum att_rc rc = authenticate(&call, route, &err);
    bool known = !rc && call.account.id;
    if (known &&
        issuer_limit_reached(issuer->limit, ISSUER_LIMIT_REFUSALS, call.account.id, call.now)) {
        rc = issuer_problem(&call, &err, ACME_P_RATE_LIMITED, NULL,
                            "%d refusals within %d s: find out why first", ISSUER_RECENT_REFUSALS,
                            ISSUER_RECENT_S);
        call.problem.retry_after_s = ISSUER_RECENT_S / 2;
        known = false;
    }
    if (!rc) {
        rc = route->handler(&call, &err);
    }
    if (rc && known && !call.uncounted) {
        issuer_limit_count(issuer->limit, ISSUER_LIMIT_REFUSALS, call.account.id, call.now);
    }
    if (rc) {
        if (err.rc == ATT_OK) {
            err.rc = rc;
        }
        if (!call.has_problem) {
            problem_of_err(&err, &call.problem);
        }
        put_problem(response, &call.problem);
        if (call.problem.status != 409) { /* RFC 8555 §7.3.5 */
            response->location[0] = 0;
        }
        response->etag[0] = response->up[0] = response->alternate[0] = 0;
        response->hold_s = 0;
        atomic_fetch_add(&issuer->counters.refused, 1);
        att_log(response->status >= 500 ? ATT_ERROR : ATT_INFO, "request.refused",
                ATT_S("resource", route->noun), ATT_N("status", response->status),
                ATT_S("type", acme_problem_word(call.problem.type)), ATT_S("reason", err.reason),
                ATT_S("account", call.account.id), ATT_S("detail", err.msg));
    }
    acme_jws_done(&call.jws);
    store_record_done(&store_accounts, &call.account);
}

/* ---- routing
 * --------------------------------------------------------------------------------------------------
 */

static const struct route *find_route(const char *rest, const char **ret_id)
{
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        size_t n = strlen(routes[i].noun);
        if (strncmp(rest, routes[i].noun, n) != 0) {
            continue;
        }
        if (!routes[i].has_id && rest[n] == 0) {
            *ret_id = NULL;
            return &routes[i];
        }
        size_t len = routes[i].has_id && rest[n] == '/' ? strlen(rest + n + 1) : 0;
        if (len > 0 && len <= 64 && !strchr(rest + n + 1, '/')) {
            *ret_id = rest + n + 1;
            return &routes[i];
        }
    }
    return NULL;
}

/* Before anything is read of it. */
static bool too_many(struct issuer *issuer, const struct issuer_request *request,
                     struct issuer_response *response)
{
    issuer_autosettings *settings = issuer_settings_get(issuer);
    if (!issuer_limit_take_address(issuer->limit, ISSUER_LIMIT_ADDRESS_REQUESTS, request->peer,
                                   settings->conf->limits->address_requests, issuer->clock())) {
        return false;
    }
    if (request->method == ISSUER_POST) {
        acme_nonces_issue(issuer->nonces, response->nonce);
    }
    issuer_refuse_plain(response, 429, ACME_P_RATE_LIMITED, "too many requests of this address");
    response->retry_after_s = 60;
    return true;
}

static const char *resource_of(const char *rest, const struct route *route)
{
    static const char *const words[] = {"directory", "newNonce", "crl/",
                                        "log/",      RENEWAL,    ISSUER_STEP};
    static const char *const names[] = {"directory", "newNonce",    "crl",
                                        "log",       "renewalInfo", "attestationCa"};
    for (size_t i = 0; !route && i < sizeof words / sizeof words[0]; i++) {
        if (strncmp(rest, words[i], strlen(words[i])) == 0) {
            return names[i];
        }
    }
    return route ? route->noun : "none";
}

static void handle(struct issuer *issuer, const struct issuer_request *request,
                   struct issuer_response *response)
{
    if (too_many(issuer, request, response)) {
        return;
    }
    size_t prefix = strlen(issuer->base_path);
    bool inside =
        strncmp(request->path, issuer->base_path, prefix) == 0 && request->path[prefix] == '/';
    const char *rest = inside ? request->path + prefix + 1 : "";
    bool get = request->method == ISSUER_GET || request->method == ISSUER_HEAD;
    const char *id = NULL;
    const struct route *route = inside ? find_route(rest, &id) : NULL;
    struct issuer_crl_ref of;
    response->resource = resource_of(rest, route);
    if (strcmp(rest, "directory") == 0 && get) {
        directory(issuer, response);
    } else if (strcmp(rest, "newNonce") == 0 && get) {
        acme_nonces_issue(issuer->nonces, response->nonce);
        response->status = request->method == ISSUER_HEAD ? 200 : 204; /* RFC 8555 §7.2 */
    } else if (is_crl(rest, &of) && get) {
        crl(issuer, &of, request, response);
    } else if (strncmp(rest, "log/", 4) == 0 && get) {
        if (!issuer_log_get(issuer, rest + 4, response)) {
            issuer_refuse_plain(response, 404, ACME_P_MALFORMED,
                                "there is no such part of the log");
        }
    } else if (strncmp(rest, "log/", 4) == 0 || strcmp(rest, "directory") == 0 ||
               strcmp(rest, "newNonce") == 0 || is_crl(rest, &of)) {
        response->allow = "GET, HEAD";
        issuer_refuse_plain(response, 405, ACME_P_MALFORMED,
                            "this resource is read with GET or HEAD");
    } else if (strncmp(rest, RENEWAL, sizeof RENEWAL - 1) == 0 && rest[sizeof RENEWAL - 1]) {
        if (get) {
            issuer_renewal_info(issuer, rest + sizeof RENEWAL - 1, response);
        } else {
            response->allow = "GET, HEAD";
            issuer_refuse_plain(response, 405, ACME_P_MALFORMED,
                                "this resource is read with GET or HEAD");
        }
    } else if (strncmp(rest, ISSUER_STEP, sizeof ISSUER_STEP - 1) == 0) {
        issuer_step(issuer, rest + sizeof ISSUER_STEP - 1, request, response);
    } else if (!route) {
        issuer_refuse_plain(response, 404, ACME_P_MALFORMED, "there is no such resource");
    } else if (request->method != ISSUER_POST) {
        response->allow = "POST"; /* RFC 8555 §6.3 */
        issuer_refuse_plain(response, 405, ACME_P_MALFORMED,
                            "this resource is read with POST-as-GET");
    } else {
        post(issuer, route, id, request, response);
    }
}

/* RFC 9562 §5.4: a random UUID. */
static void new_request_id(char ret[40])
{
    uint8_t b[16];
    char hex[33];
    if (att_random(b, sizeof b, NULL)) {
        memset(b, 0, sizeof b);
    }
    b[6] = (uint8_t)((b[6] & 0x0f) | 0x40);
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
    att_hex(hex, ATT_SLICE_ARRAY(b));
    snprintf(ret, 40, "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16, hex + 20);
}

void issuer_handle(struct issuer *issuer, const struct issuer_request *request,
                   struct issuer_response *ret_response)
{
    int64_t from = att_boottime_us();
    *ret_response = (struct issuer_response){.resource = "none"};
    ret_response->body.max = (size_t)16 << 20;
    new_request_id(ret_response->request_id);
    att_log_request(ret_response->request_id);
    atomic_fetch_add(&issuer->counters.requests, 1);
    handle(issuer, request, ret_response);
    int64_t us = att_boottime_us() - from;
    issuer_metrics_request(ret_response->resource, ret_response->status, us);
    att_log(ATT_DEBUG, "request", ATT_S("resource", ret_response->resource),
            ATT_N("status", ret_response->status), ATT_N("us", us), ATT_S("peer", request->peer));
    att_log_request(NULL);
}
