/* finalize of an order for a permanent identifier. */
#include "provision/issuer/ca.h"
#include "provision/issuer/device.h"
#include "provision/issuer/revoke.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct closing {
    struct issuer_call *call;
    struct issuer_dns_view view;
    struct att_buf csr;
    struct certs_dns_csr parsed;
    struct store_host host;
    struct store_cert cert;
};

static const struct store_dns_authz *authz_of(const struct closing *c)
{
    return &c->view.authzs[0];
}

static enum att_rc load(void *user, struct store_tx *tx, struct att_err *err)
{
    struct closing *c = user;
    issuer_dns_view_done(&c->view);
    enum att_rc rc = issuer_dns_load(c->call, tx, c->call->id, &c->view, err);
    if (!rc && (!issuer_dns_is_device(c->view.order.type) || c->view.n != 1)) {
        rc = att_fail(err, ATT_E_NOTFOUND, "no order for a permanent identifier");
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

/* A bad one leaves the order ready (RFC 8555 §7.4). */
static enum att_rc check_csr(struct closing *c, struct att_err *err)
{
    struct att_err why = {0};
    uint8_t digest[ATT_SHA256_LEN];
    char spki[65];
    enum att_rc rc =
        certs_device_csr_verify(att_buf_slice(&c->csr), authz_of(c)->name, &c->parsed, &why);
    if (rc) {
        const char *reason = rc == ATT_E_AUTH     ? "csrSignature"
                             : rc == ATT_E_DENIED ? "csrName"
                                                  : NULL;
        return issuer_problem(c->call, err, ACME_P_BAD_CSR, reason, "%s", why.msg);
    }
    att_sha256(digest, ATT_SLICE(c->parsed.spki, c->parsed.spki_len));
    att_hex(spki, ATT_SLICE_ARRAY(digest));
    return strcmp(spki, authz_of(c)->spki) == 0
               ? ATT_OK
               : issuer_problem(c->call, err, ACME_P_BAD_CSR, "csrKey",
                                "the CSR is for the key %s, the evidence is of %s", spki,
                                authz_of(c)->spki);
}

/* What was proved must still be so in this transaction. */
static enum att_rc check_basis(struct closing *c, struct store_tx *tx,
                               const struct conf_device_profile **ret_profile, struct att_err *err)
{
    struct att_err why = {0};
    const struct store_dns_authz *a = authz_of(c);
    const struct conf_device_profile *profile =
        conf_device_profile(c->call->settings->conf, c->view.order.profile);
    if (!profile) {
        return issuer_problem(c->call, err, ACME_P_INVALID_PROFILE, NULL,
                              "profile %s is not configured any more", c->view.order.profile);
    }
    if (strcmp(a->status, "valid") != 0) {
        return issuer_problem(c->call, err, ACME_P_UNAUTHORIZED, NULL,
                              "the authorization of %s is %s", a->name, a->status);
    }
    enum att_rc rc =
        issuer_device_check(c->call, tx, a->ak, ATT_SLICE(NULL, 0), a->name, &c->host, &why);
    if (rc == ATT_E_DENIED) {
        return issuer_problem(c->call, err, ACME_P_UNAUTHORIZED, why.reason, "%s", why.msg);
    }
    if (rc && err) {
        *err = why;
    }
    *ret_profile = profile;
    return rc;
}

static enum att_rc intend(struct closing *c, struct store_tx *tx,
                          const struct conf_device_profile *profile, struct att_err *err)
{
    struct store_dns_order *order = &c->view.order;
    const struct conf_crl *crl = c->call->settings->conf->crl;
    char url[ACME_URL_MAX];
    struct issuer_intent intent = {
        .kind = ISSUER_CA_DNS,
        .dns = {.validity = certs_validity_from(c->call->now, profile->lifetime_s),
                .spki = ATT_SLICE(c->parsed.spki, c->parsed.spki_len),
                .device_id = authz_of(c)->name},
        .subject = authz_of(c)->name,
        .account = order->account,
        .host = c->host.id, /* a ban ends it */
        .ord = order->id,
        .profile = order->profile,
        .decision = authz_of(c)->decision};
    if (crl && crl->url) {
        snprintf(url, sizeof url, "%s/%s", crl->url, issuer_crl_file(ISSUER_CRL_DNS));
        intent.dns.crl_url = url;
    }
    enum att_rc rc = issuer_intent_make(c->call->issuer, tx, &intent, c->call->now, &c->cert, err);
    if (!rc) {
        rc = issuer_set(&order->status, "processing") ? store_put(tx, &store_dns_orders, order, err)
                                                      : att_fail(err, ATT_E_NOMEM, "no memory");
    }
    return rc;
}

static enum att_rc grant(void *user, struct store_tx *tx, struct att_err *err)
{
    struct closing *c = user;
    const struct conf_device_profile *profile = NULL;
    store_record_done(&store_hosts, &c->host);
    enum att_rc rc = load(c, tx, err);
    if (!rc) {
        rc = not_ready(c, err);
    }
    if (!rc) {
        rc = check_csr(c, err); /* the authorization of this transaction */
    }
    if (!rc) {
        rc = check_basis(c, tx, &profile, err);
    }
    if (!rc) {
        rc = issuer_dns_check_accounts(c->call, tx, ATT_SLICE(c->parsed.spki, c->parsed.spki_len),
                                       err);
    }
    return rc ? rc : intend(c, tx, profile, err);
}

struct refusal {
    struct closing *c;
    const struct att_err *why;
};

static enum att_rc record_refusal(void *user, struct store_tx *tx, struct att_err *err)
{
    struct refusal *r = user;
    const struct store_dns_authz *a = authz_of(r->c);
    json_t *record = issuer_record("issue", "refused", r->why->reason, r->why->msg, a->name);
    json_object_set_new(record, "message", json_string("finalize"));
    json_object_set_new(record, "order", json_string(r->c->view.order.id));
    json_object_set_new(record, "account", json_string(r->c->call->account.thumbprint));
    json_object_set_new(record, "host", json_string(a->host));
    json_object_set_new(record, "akSerial", json_string(a->ak));
    json_object_set_new(record, "decision", json_string(a->decision));
    return issuer_audit(tx, r->c->call->now, record, NULL, err);
}

/* The order stays ready, for a good CSR or until its time is over; what was refused is on record.
 */
static void refused(struct closing *c, enum att_rc rc, const struct att_err *why)
{
    struct refusal r = {c, why};
    struct att_err lost = {0};
    issuer_intent_unsure(c->call->issuer, rc);
    if (rc == ATT_E_DENIED && c->view.n == 1 && authz_of(c)->decision[0]) {
        if (store_run(c->call->issuer->store, true, record_refusal, &r, &lost)) {
            att_log_err(ATT_ERROR, "audit.lost", &lost);
        }
        atomic_fetch_add(&c->call->issuer->counters.refused, 1);
    }
}

static enum att_rc answer(struct closing *c, struct att_err *err)
{
    struct issuer_call *call = c->call;
    enum att_rc rc = store_run(call->issuer->store, false, load, c, err);
    if (rc) {
        return rc;
    }
    call->response->retry_after_s = strcmp(c->view.order.status, "processing") == 0 ? 1 : 0;
    snprintf(call->response->location, sizeof call->response->location, "%s/device-order/%s",
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
                            "permanent identifiers are not issued here (any more)");
    }
    if (!rc) {
        rc = acme_finalize_request_parse(att_buf_slice(&call->jws.payload), &c->csr, err);
    }
    if (rc) {
        return rc;
    }
    struct att_err why = {0};
    rc = check_csr(c, &why);
    if (!rc) {
        rc = store_run(store, true, grant, c, &why);
    }
    if (rc) {
        refused(c, rc, &why);
        if (err) {
            *err = why;
        }
        return rc;
    }
    struct att_err late = {0};
    if (issuer_intent_sign(call->issuer, &c->cert, &late)) {
        /* The intent stands and is tried again: the client polls. */
        att_log_err(ATT_ERROR, "certificate.late", &late);
    } else {
        att_log(ATT_INFO, "certificate.issued", ATT_S("device", c->cert.subject),
                ATT_S("serial", c->cert.serial), ATT_S("host", c->cert.host),
                ATT_S("profile", c->cert.profile), ATT_N("not_after", c->cert.not_after));
    }
    return answer(c, err);
}

enum att_rc issuer_device_finalize(struct issuer_call *call, struct att_err *err)
{
    struct closing *c = calloc(1, sizeof *c);
    if (!c) {
        return att_fail(err, ATT_E_NOMEM, "no memory");
    }
    c->call = call;
    enum att_rc rc = run(c, err);
    att_buf_done(&c->csr);
    issuer_dns_view_done(&c->view);
    store_record_done(&store_hosts, &c->host);
    store_record_done(&store_certs, &c->cert);
    free(c);
    return rc;
}
