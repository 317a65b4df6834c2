/* finalize of an order for DNS names. */
#include "provision/issuer/ca.h"
#include "provision/issuer/dns.h"
#include "provision/issuer/revoke.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct closing {
    struct issuer_call *call;
    struct issuer_dns_view view;
    struct att_buf csr;
    struct certs_dns_csr parsed;
    struct store_cert cert;
};

static enum att_rc load(void *user, struct store_tx *tx, struct att_err *err)
{
    struct closing *c = user;
    enum att_rc rc = issuer_dns_load(c->call, tx, c->call->id, &c->view, err);
    if (!rc && issuer_dns_is_device(c->view.order.type)) { /* device_finalize.c */
        rc = att_fail(err, ATT_E_NOTFOUND, "no order for DNS names");
    }
    return rc;
}

static enum att_rc not_ready(struct closing *c, struct att_err *err)
{
    const char *status = issuer_dns_status(&c->view.order, c->call->now);
    return strcmp(status, "ready") == 0 ? ATT_OK
                                        : issuer_problem(c->call, err, ACME_P_ORDER_NOT_READY, NULL,
                                                         "the order is %s", status);
}

static void names_of(const struct issuer_dns_view *view, const char *ret[CERTS_DNS_NAMES_MAX])
{
    for (size_t i = 0; i < view->n; i++) {
        ret[i] = view->authzs[i].name;
    }
}

static enum att_rc check_csr(struct closing *c, struct att_err *err)
{
    const char *names[CERTS_DNS_NAMES_MAX];
    struct att_err why = {0};
    names_of(&c->view, names);
    enum att_rc rc =
        certs_dns_csr_verify(att_buf_slice(&c->csr), names, c->view.n, &c->parsed, &why);
    return rc ? issuer_problem(c->call, err, ACME_P_BAD_CSR, NULL, "%s", why.msg) : ATT_OK;
}

/* No account's key, whoever's it is. */
enum att_rc issuer_dns_check_accounts(struct issuer_call *call, struct store_tx *tx,
                                      struct att_slice spki, struct att_err *err)
{
    char thumbprint[ACME_THUMBPRINT_LEN];
    struct store_account account = {0};
    if (acme_spki_thumbprint(spki, thumbprint, NULL)) {
        return ATT_OK; /* of a kind that no account has */
    }
    enum att_rc rc = store_find(tx, &store_accounts, "thumbprint", thumbprint, &account, NULL);
    store_record_done(&store_accounts, &account);
    if (rc == ATT_E_NOTFOUND) {
        return ATT_OK;
    }
    return rc ? att_fail(err, rc, "accounts cannot be read")
              : issuer_problem(call, err, ACME_P_BAD_CSR, "csrAccountKey",
                               "the CSR's key is an account key");
}

/* What was proved must still be so in this transaction, and the profile must still allow it. */
static enum att_rc check_basis(struct closing *c, const struct conf_dns_profile **ret_profile,
                               struct att_err *err)
{
    const struct conf_dns_profile *profile =
        conf_dns_profile(c->call->settings->conf, c->view.order.profile);
    if (!profile) {
        return issuer_problem(c->call, err, ACME_P_INVALID_PROFILE, NULL,
                              "profile %s is not configured any more", c->view.order.profile);
    }
    for (size_t i = 0; i < c->view.n; i++) {
        const struct store_dns_authz *a = &c->view.authzs[i];
        if (strcmp(a->status, "valid") != 0 || !conf_dns_profile_allows(profile, a->name)) {
            return issuer_problem(
                c->call, err, ACME_P_UNAUTHORIZED, NULL, "the authorization of %s is %s%s", a->name,
                a->status, strcmp(a->status, "valid") == 0 ? ", but no profile's any more" : "");
        }
    }
    *ret_profile = profile;
    return ATT_OK;
}

static enum att_rc audit_grant(struct closing *c, struct store_tx *tx, char ret_decision[65],
                               struct att_err *err)
{
    const struct store_dns_order *order = &c->view.order;
    json_t *record = issuer_record("issue", "granted", NULL, NULL, c->view.authzs[0].name);
    json_object_set_new(record, "message", json_string("finalize"));
    json_object_set_new(record, "method", json_string(ACME_CHALLENGE_HTTP));
    json_object_set_new(record, "order", json_string(order->id));
    json_object_set_new(record, "account", json_string(order->account));
    json_object_set_new(record, "profile", json_string(order->profile));
    json_object_set_new(record, "names", issuer_json(order->names));
    return issuer_audit(tx, c->call->now, record, ret_decision, err);
}

static enum att_rc intend(struct closing *c, struct store_tx *tx,
                          const struct conf_dns_profile *profile, struct att_err *err)
{
    const char *names[CERTS_DNS_NAMES_MAX];
    char decision[65];
    struct store_dns_order *order = &c->view.order;
    names_of(&c->view, names);
    enum att_rc rc = audit_grant(c, tx, decision, err);
    if (rc) {
        return rc;
    }
    struct issuer_intent intent = {
        .kind = ISSUER_CA_DNS,
        .dns = {.validity = certs_validity_from(c->call->now, profile->lifetime_s),
                .spki = ATT_SLICE(c->parsed.spki, c->parsed.spki_len),
                .names = names,
                .n_names = c->view.n},
        .subject = names[0],
        .account = order->account,
        .host = "",
        .ord = order->id,
        .profile = order->profile,
        .decision = decision};
    const struct conf_crl *crl = c->call->settings->conf->crl;
    char url[ACME_URL_MAX];
    if (crl && crl->url) {
        snprintf(url, sizeof url, "%s/%s", crl->url, issuer_crl_file(ISSUER_CRL_DNS));
        intent.dns.crl_url = url;
    }
    rc = issuer_intent_make(c->call->issuer, tx, &intent, c->call->now, &c->cert, err);
    if (!rc) {
        rc = issuer_set(&order->status, "processing") ? store_put(tx, &store_dns_orders, order, err)
                                                      : att_fail(err, ATT_E_NOMEM, "no memory");
    }
    return rc;
}

static enum att_rc grant(void *user, struct store_tx *tx, struct att_err *err)
{
    struct closing *c = user;
    const struct conf_dns_profile *profile = NULL;
    issuer_dns_view_done(&c->view);
    enum att_rc rc = load(c, tx, err);
    if (!rc) {
        rc = not_ready(c, err);
    }
    if (!rc) {
        rc = issuer_dns_check_host(c->call, tx, err);
    }
    if (!rc) {
        rc = check_basis(c, &profile, err);
    }
    if (!rc) {
        rc = issuer_dns_check_accounts(c->call, tx, ATT_SLICE(c->parsed.spki, c->parsed.spki_len),
                                       err);
    }
    return rc ? rc : intend(c, tx, profile, err);
}

static enum att_rc answer(struct closing *c, struct att_err *err)
{
    struct issuer_call *call = c->call;
    issuer_dns_view_done(&c->view);
    enum att_rc rc = store_run(call->issuer->store, false, load, c, err);
    if (rc) {
        return rc;
    }
    call->response->retry_after_s = strcmp(c->view.order.status, "processing") == 0 ? 1 : 0;
    snprintf(call->response->location, sizeof call->response->location, "%s/dns-order/%s",
             call->issuer->base_url, c->view.order.id);
    return issuer_reply(call, 200, issuer_dns_order_json(call->issuer, &c->view, call->now), err);
}

static enum att_rc run(struct closing *c, struct att_err *err)
{
    struct issuer_call *call = c->call;
    struct store *store = call->issuer->store;
    enum att_rc rc = store_run(store, false, load, c, err);
    if (!rc) {
        rc = not_ready(c, err);
    }
    if (!rc && !call->issuer->dns_ca) {
        rc = issuer_problem(call, err, ACME_P_UNSUPPORTED_IDENTIFIER, NULL,
                            "DNS names are not issued here (any more)");
    }
    if (!rc) {
        rc = acme_finalize_request_parse(att_buf_slice(&call->jws.payload), &c->csr, err);
    }
    if (!rc) {
        rc = check_csr(c, err); /* a bad one leaves the order ready (RFC 8555 §7.4) */
    }
    if (!rc) {
        rc = store_run(store, true, grant, c, err);
        issuer_intent_unsure(call->issuer, rc);
    }
    if (rc) {
        return rc;
    }
    struct att_err late = {0};
    if (issuer_intent_sign(call->issuer, &c->cert, &late)) {
        /* The intent stands and is tried again: the client polls. */
        att_log_err(ATT_ERROR, "certificate.late", &late);
    } else {
        att_log(ATT_INFO, "certificate.issued", ATT_S("name", c->cert.subject),
                ATT_S("serial", c->cert.serial), ATT_S("profile", c->cert.profile),
                ATT_N("not_after", c->cert.not_after));
    }
    return answer(c, err);
}

enum att_rc issuer_dns_finalize(struct issuer_call *call, struct att_err *err)
{
    struct closing *c = calloc(1, sizeof *c);
    if (!c) {
        return att_fail(err, ATT_E_NOMEM, "no memory");
    }
    c->call = call;
    enum att_rc rc = run(c, err);
    att_buf_done(&c->csr);
    issuer_dns_view_done(&c->view);
    store_record_done(&store_certs, &c->cert);
    free(c);
    return rc;
}
