/* http-01: a client says that it is ready, the name is asked, what it said is written down. */
#include "provision/acme/requests.h"
#include "provision/issuer/dns.h"
#include "provision/issuer/http01.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- what the name said
 * ---------------------------------------------------------------------------------------------- */

struct result {
    struct issuer *issuer;
    const struct issuer_http01_request *request;
    const struct acme_problem *problem; /* NULL: it is proved */
    char text[4096];                    /* of the problem; "" */
    int64_t now;
};

static enum att_rc set_order(struct store_tx *tx, struct store_dns_order *order, const char *status,
                             const char *error, struct att_err *err)
{
    return issuer_set(&order->status, status) && issuer_set(&order->error, error)
               ? store_put(tx, &store_dns_orders, order, err)
               : att_fail(err, ATT_E_NOMEM, "no memory");
}

enum att_rc issuer_dns_fail_order(struct store_tx *tx, const char *id, const char *problem,
                                  struct att_err *err)
{
    struct store_dns_order order = {0};
    enum att_rc rc = store_get(tx, &store_dns_orders, id, &order, err);
    if (!rc && (strcmp(order.status, "pending") == 0 || strcmp(order.status, "ready") == 0)) {
        rc = set_order(tx, &order, "invalid", problem, err);
    }
    store_record_done(&store_dns_orders, &order);
    return rc;
}

static enum att_rc count_open(void *user, const void *record, struct att_err *err)
{
    (void)err;
    *(size_t *)user += strcmp(((const struct store_dns_authz *)record)->status, "valid") != 0;
    return ATT_OK;
}

/* The order is ready when each of its authorizations is valid (RFC 8555 §7.1.6). */
enum att_rc issuer_dns_order_ready(struct store_tx *tx, const char *id, struct att_err *err)
{
    size_t open = 0;
    struct store_dns_order order = {0};
    enum att_rc rc = store_each(tx, &store_dns_authzs, "ord", id, count_open, &open, err);
    if (!rc && open == 0) {
        rc = store_get(tx, &store_dns_orders, id, &order, err);
        if (!rc && strcmp(order.status, "pending") == 0) {
            rc = set_order(tx, &order, "ready", "", err);
        }
    }
    store_record_done(&store_dns_orders, &order);
    return rc;
}

static enum att_rc audit(const struct result *r, struct store_tx *tx,
                         const struct store_dns_authz *a, struct att_err *err)
{
    json_t *record = issuer_record("validation", r->problem ? "refused" : "granted",
                                   r->problem ? acme_problem_word(r->problem->type) : NULL,
                                   r->problem ? r->problem->detail : NULL, a->name);
    json_object_set_new(record, "method", json_string(ACME_CHALLENGE_HTTP));
    json_object_set_new(record, "order", json_string(a->ord));
    json_object_set_new(record, "account", json_string(a->account));
    return issuer_audit(tx, r->now, record, NULL, err);
}

static enum att_rc write_result(void *user, struct store_tx *tx, struct att_err *err)
{
    struct result *r = user;
    struct store_dns_authz a = {0};
    enum att_rc rc = store_get(tx, &store_dns_authzs, r->request->id, &a, err);
    /* Deactivated or swept away meanwhile. */
    if (rc == ATT_E_NOTFOUND || (!rc && strcmp(a.status, STORE_AUTHZ_PROCESSING) != 0)) {
        att_err_clear(err);
        store_record_done(&store_dns_authzs, &a);
        return ATT_OK;
    }
    if (!rc) {
        a.validated_at = r->problem ? 0 : r->now;
        rc =
            issuer_set(&a.status, r->problem ? "invalid" : "valid") && issuer_set(&a.error, r->text)
                ? store_put(tx, &store_dns_authzs, &a, err)
                : att_fail(err, ATT_E_NOMEM, "no memory");
    }
    if (!rc) {
        rc = r->problem ? issuer_dns_fail_order(tx, a.ord, r->text, err)
                        : issuer_dns_order_ready(tx, a.ord, err);
    }
    if (!rc) {
        rc = audit(r, tx, &a, err);
    }
    store_record_done(&store_dns_authzs, &a);
    return rc;
}

static void problem_text(const struct issuer_http01_request *request,
                         const struct acme_problem *problem, char *ret, size_t room)
{
    struct acme_problem named = *problem;
    json_t *json = NULL;
    acme_problem_add_name(&named, problem->type, request->name, problem->detail);
    if (acme_problem_encode(&named, &json, NULL) == ATT_OK) {
        issuer_autofree *text = issuer_json_text(json);
        snprintf(ret, room, "%s", text && strlen(text) < room ? text : "");
    }
    json_decref(json);
}

/* In the thread of the validations. The issuer's own end leaves the row as it is: the next process
 * asks again. */
static void on_done(void *user, const struct issuer_http01_request *request,
                    const struct acme_problem *problem)
{
    struct issuer *issuer = user;
    struct att_err err = {0};
    struct result r = {
        .issuer = issuer, .request = request, .problem = problem, .now = issuer->clock()};
    if (problem && problem->type == ACME_P_SERVER_INTERNAL) {
        return;
    }
    if (problem) {
        problem_text(request, problem, r.text, sizeof r.text);
    }
    if (store_run(issuer->store, true, write_result, &r, &err)) {
        att_log_err(ATT_ERROR, "validation.lost", &err);
    }
    att_log(ATT_INFO, "validation", ATT_S("name", request->name),
            ATT_S("outcome", problem ? acme_problem_word(problem->type) : "valid"),
            ATT_S("detail", problem ? problem->detail : ""));
}

/* ---- asking
 * --------------------------------------------------------------------------------------------------
 */

static enum att_rc ask(struct issuer *issuer, const struct conf_dns *conf,
                       const struct store_dns_authz *a, const char *thumbprint, struct att_err *err)
{
    struct issuer_http01_request request = {
        .port = conf->http_port, .timeout_ms = conf->timeout_s * 1000, .n_allow = conf->n_allow};
    memcpy(request.allow, conf->ranges, sizeof request.allow);
    snprintf(request.id, sizeof request.id, "%s", a->id);
    snprintf(request.name, sizeof request.name, "%s", a->name);
    snprintf(request.token, sizeof request.token, "%s", a->token);
    snprintf(request.key_authorization, sizeof request.key_authorization, "%s.%s", a->token,
             thumbprint);
    return issuer_http01_start(issuer->http01, &request, err);
}

struct answer {
    struct issuer_call *call;
    struct store_dns_authz authz;
    bool start;
};

static enum att_rc take_answer(void *user, struct store_tx *tx, struct att_err *err)
{
    struct answer *a = user;
    struct issuer_call *call = a->call;
    struct store_dns_order order = {0};
    enum att_rc rc = store_get(tx, &store_dns_authzs, call->id, &a->authz, err);
    if (!rc && strcmp(a->authz.account, call->account.id) != 0) {
        rc = issuer_problem(call, err, ACME_P_UNAUTHORIZED, NULL, "another account's resource");
    }
    if (!rc && issuer_dns_is_device(a->authz.type)) { /* no http-01 proves one of those */
        rc = att_fail(err, ATT_E_NOTFOUND, "no challenge of a DNS name");
    }
    /* Said twice, or said when it is over: it is told as it is (RFC 8555 §7.5.1). */
    if (rc || !call->jws.payload.len || strcmp(a->authz.status, "pending") != 0) {
        return rc;
    }
    rc = store_get(tx, &store_dns_orders, a->authz.ord, &order, err);
    if (!rc && (strcmp(order.status, "pending") != 0 || a->authz.expires_at <= call->now)) {
        rc = issuer_problem(call, err, ACME_P_MALFORMED, NULL,
                            "the order of this challenge is over");
    }
    if (!rc) {
        rc = issuer_set(&a->authz.status, STORE_AUTHZ_PROCESSING)
                 ? store_put(tx, &store_dns_authzs, &a->authz, err)
                 : att_fail(err, ATT_E_NOMEM, "no memory");
        a->start = !rc;
    }
    store_record_done(&store_dns_orders, &order);
    return rc;
}

/* It could not even wait: the client says it again later. */
static enum att_rc put_back(void *user, struct store_tx *tx, struct att_err *err)
{
    struct answer *a = user;
    return issuer_set(&a->authz.status, "pending")
               ? store_put(tx, &store_dns_authzs, &a->authz, err)
               : att_fail(err, ATT_E_NOMEM, "no memory");
}

enum att_rc issuer_dns_challenge(struct issuer_call *call, struct att_err *err)
{
    const struct conf_dns *conf = call->settings->conf->dns;
    struct answer a = {.call = call};
    if (call->jws.payload.len) {
        enum att_rc rc = acme_challenge_answer_parse(att_buf_slice(&call->jws.payload), err);
        if (rc) {
            return rc;
        }
        if (!conf || !call->issuer->http01) {
            return issuer_problem(call, err, ACME_P_UNSUPPORTED_IDENTIFIER, NULL,
                                  "DNS names are not issued here (any more)");
        }
    }
    enum att_rc rc =
        store_run(call->issuer->store, call->jws.payload.len > 0, take_answer, &a, err);
    if (!rc && a.start) {
        rc = ask(call->issuer, conf, &a.authz, call->account.thumbprint, err);
        struct att_err lost = {0};
        if (rc && store_run(call->issuer->store, true, put_back, &a, &lost)) {
            att_log_err(ATT_ERROR, "validation.lost", &lost);
        }
    }
    if (!rc) {
        snprintf(call->response->up, sizeof call->response->up, "%s/dns-authz/%s",
                 call->issuer->base_url, a.authz.id); /* RFC 8555 §7.5.1 */
        call->response->retry_after_s = strcmp(a.authz.status, STORE_AUTHZ_PROCESSING) == 0 ? 1 : 0;
        rc = issuer_reply(call, 200, issuer_dns_challenge_json(call->issuer, &a.authz), err);
    }
    store_record_done(&store_dns_authzs, &a.authz);
    return rc;
}

/* ---- at start
 * ------------------------------------------------------------------------------------------------
 */

struct resume {
    struct issuer *issuer;
    const struct conf_dns *conf;
    struct store_tx *tx;
    size_t n;
    const struct issuer_dns_seen *before; /* only those; NULL: all */
    struct issuer_dns_seen *now;          /* NULL: not noted */
};

#define LOOK_MS 60000

struct issuer_dns_seen {
    size_t n;
    char ids[ISSUER_HTTP01_WAITING][ISSUER_ID_LEN];
};

static bool was_seen(const struct issuer_dns_seen *seen, const char *id)
{
    for (size_t i = 0; i < seen->n; i++) {
        if (strcmp(seen->ids[i], id) == 0) {
            return true;
        }
    }
    return false;
}

static enum att_rc resume_one(void *user, const void *record, struct att_err *err)
{
    struct resume *r = user;
    const struct store_dns_authz *a = record;
    struct store_account account = {0};
    struct att_err full = {0};
    if (r->now && r->now->n < ISSUER_HTTP01_WAITING) {
        snprintf(r->now->ids[r->now->n++], ISSUER_ID_LEN, "%s", a->id);
    }
    if ((r->before && !was_seen(r->before, a->id)) || a->expires_at <= r->issuer->clock()) {
        return ATT_OK;
    }
    enum att_rc rc = store_get(r->tx, &store_accounts, a->account, &account, err);
    /* Who cannot wait now is asked again when the client polls in vain and orders anew. */
    if (!rc && ask(r->issuer, r->conf, a, account.thumbprint, &full) == ATT_OK) {
        r->n++;
    }
    store_record_done(&store_accounts, &account);
    return rc;
}

static enum att_rc resume_all(void *user, struct store_tx *tx, struct att_err *err)
{
    struct resume *r = user;
    r->tx = tx;
    return store_each(tx, &store_dns_authzs, "status", STORE_AUTHZ_PROCESSING, resume_one, r, err);
}

enum att_rc issuer_dns_start(struct issuer *issuer, struct att_err *err)
{
    struct resume r = {.issuer = issuer, .conf = issuer->settings->conf->dns};
    enum att_rc rc = issuer_http01_new(on_done, issuer, &issuer->http01, err);
    if (!rc) {
        rc = store_run(issuer->store, false, resume_all, &r, err);
    }
    if (!rc && r.n) {
        att_log(ATT_INFO, "validation.resumed", ATT_N("challenges", (int64_t)r.n));
    }
    return rc;
}

enum att_rc issuer_dns_look(struct issuer *issuer, struct att_err *err)
{
    issuer_autosettings *settings = issuer_settings_get(issuer);
    static const struct issuer_dns_seen nothing;
    struct issuer_dns_seen *now = calloc(1, sizeof *now);
    struct resume r = {.issuer = issuer,
                       .conf = settings->conf->dns,
                       .before = issuer->dns_seen ? issuer->dns_seen : &nothing,
                       .now = now};
    if (!now) {
        return att_fail(err, ATT_E_NOMEM, "no memory");
    }
    enum att_rc rc = r.conf ? store_run(issuer->store, false, resume_all, &r, err) : ATT_OK;
    if (r.n) {
        att_log(ATT_INFO, "validation.resumed", ATT_N("challenges", (int64_t)r.n));
    }
    free(issuer->dns_seen);
    issuer->dns_seen = now;
    return rc;
}

void issuer_dns_tick(struct issuer *issuer)
{
    struct att_err err = {0};
    int64_t now = att_boottime_ms();
    if (!issuer->http01 || now < issuer->dns_look_ms) {
        return;
    }
    issuer->dns_look_ms = now + LOOK_MS;
    if (issuer_dns_look(issuer, &err)) {
        att_log_err(ATT_WARN, "validation.look", &err);
    }
}
