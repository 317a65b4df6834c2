/* device-attest-01 for a permanent identifier: a standard statement is judged within the request.
 * What comes of it is never an agent's: rows, routes and authority are those of other names. */
#include "provision/issuer/device.h"

#include "certs/chain.h"
#include "certs/oid.h"
#include "provision/evidence/attobj.h"
#include "provision/issuer/generations.h"
#include "provision/verify/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct proving {
    struct issuer_call *call;
    struct att_buf att_obj;
    struct store_dns_authz authz;
    struct store_host host;
    struct verify_verdict *verdict;
    struct verify_device_facts facts;
    const struct att_err *refusal;
    bool judged; /* the statement is good: that TPM asks */
    char problem[4096];
};

/* ---- the store's word on an AK certificate
 * -----------------------------------------------------------------------------------------------
 */

static enum att_rc check_firmware(const struct issuer_settings *s, const struct store_host *host,
                                  const struct store_ak *ak, struct att_err *err)
{
    struct att_cur cur = att_cur_init(att_buf_slice(&ak->firmware));
    struct verify_verdict *verdict = verify_verdict_new();
    enum att_rc rc = !verdict ? att_fail(err, ATT_E_NOMEM, "no memory")
                     : verify_firmware(s->deny, s->n_deny, host->manufacturer, att_cur_be64(&cur),
                                       NULL, verdict) == VERIFY_ACCEPTED
                         ? ATT_OK
                         : verify_verdict_err(verdict, err);
    verify_verdict_free(verdict);
    return rc;
}

/* Of the attestation CA's endpoints: there is no record beside it. */
static enum att_rc check_step_ak(const struct issuer_settings *s, struct store_tx *tx,
                                 const struct store_cert *cert, const struct store_host *host,
                                 struct att_err *err)
{
    att_autojson *firmware = issuer_json(cert->firmware);
    enum att_rc rc = issuer_step_firmware(s, firmware, err);
    return rc ? rc : issuer_host_check_claims(tx, host, cert->subject, err);
}

static enum att_rc check_certificate(const struct issuer_settings *s, struct store_tx *tx,
                                     const struct store_cert *cert, const struct store_host *host,
                                     struct att_slice der, struct att_err *err)
{
    att_autobuf own = {0};
    struct att_slice pem = att_slice_str(cert->pem);
    struct store_ak ak = {0};
    if (strcmp(cert->status, STORE_CERT_ISSUED) != 0) {
        return issuer_refuse(err, ATT_E_DENIED, "akUnknown", "the AK certificate %s is %s",
                             cert->serial, cert->status);
    }
    if (der.len && (certs_pem_take(&pem, &own, NULL) || !att_slice_eq(att_buf_slice(&own), der))) {
        return issuer_refuse(err, ATT_E_DENIED, "akUnknown",
                             "x5c[0] is not the AK certificate that was issued as %s",
                             cert->serial);
    }
    if (!cert->account[0]) {
        return check_step_ak(s, tx, cert, host, err);
    }
    enum att_rc rc = store_get(tx, &store_aks, cert->ord, &ak, NULL);
    if (rc == ATT_E_NOTFOUND || (!rc && strcmp(ak.state, STORE_AK_VALID) != 0)) {
        rc = issuer_refuse(err, ATT_E_DENIED, "akUnknown",
                           "the AK of certificate %s is none any more: the host enrolled again, or "
                           "ended",
                           cert->serial);
    } else if (rc) {
        rc = att_fail(err, rc, "AK records cannot be read");
    } else {
        rc = check_firmware(s, host, &ak, err);
    }
    store_record_done(&store_aks, &ak);
    return rc;
}

/* The EK is still that host's. */
static enum att_rc check_identifier(struct store_tx *tx, const struct store_host *host,
                                    const char *identifier, struct att_err *err)
{
    struct store_host_ek ek = {0};
    enum att_rc rc = store_get(tx, &store_host_eks, identifier, &ek, NULL);
    if (rc && rc != ATT_E_NOTFOUND) {
        return att_fail(err, rc, "hosts cannot be read");
    }
    if (rc || !ek.proven || strcmp(ek.host, host->id) != 0) {
        rc = issuer_refuse(err, ATT_E_DENIED, "identifierMismatch",
                           "host %.12s has not proved EK %s", host->id, identifier);
    }
    store_record_done(&store_host_eks, &ek);
    return rc;
}

/* Whoever may use the host's TPM may have an account; but no other host's account speaks of it. */
static enum att_rc check_account(struct issuer_call *call, struct store_tx *tx,
                                 const struct store_host *host, struct att_err *err)
{
    struct store_host own = {0};
    enum att_rc rc = store_find(tx, &store_hosts, "account", call->account.thumbprint, &own, NULL);
    if (rc == ATT_E_NOTFOUND) {
        return ATT_OK;
    }
    if (rc) {
        return att_fail(err, rc, "hosts cannot be read");
    }
    if (strcmp(own.id, host->id) != 0) {
        rc = issuer_refuse(err, ATT_E_DENIED, "accountMismatch",
                           "the account is host %.12s's, the AK certificate is of host %.12s",
                           own.id, host->id);
    }
    store_record_done(&store_hosts, &own);
    return rc;
}

enum att_rc issuer_device_check(struct issuer_call *call, struct store_tx *tx,
                                const char *ak_serial, struct att_slice der, const char *identifier,
                                struct store_host *ret_host, struct att_err *err)
{
    struct store_cert cert = {0};
    struct store_host host = {0};
    enum att_rc rc = store_get(tx, &store_certs, ak_serial, &cert, NULL);
    if (rc == ATT_E_NOTFOUND || (!rc && strcmp(cert.kind, "ak") != 0)) {
        rc = issuer_refuse(err, ATT_E_DENIED, "akUnknown", "no AK certificate has serial number %s",
                           ak_serial);
    } else if (!rc) {
        rc = store_get(tx, &store_hosts, cert.host, &host, NULL);
        rc = rc == ATT_E_NOTFOUND
                 ? issuer_refuse(err, ATT_E_DENIED, "hostUnknown", "the AK's host is gone")
                 : rc;
    }
    if (!rc) {
        rc = issuer_host_check(&host, err);
    }
    if (!rc) {
        rc = check_certificate(call->settings, tx, &cert, &host, der, err);
    }
    if (!rc) {
        rc = check_identifier(tx, &host, identifier, err);
    }
    if (!rc) {
        rc = check_account(call, tx, &host, err);
    }
    store_record_done(&store_certs, &cert);
    if (rc) {
        store_record_done(&store_hosts, &host);
        return rc;
    }
    *ret_host = host;
    return ATT_OK;
}

/* ---- the challenge
 * -----------------------------------------------------------------------------------------------
 */

static enum att_rc read_payload(struct proving *p, struct att_err *err)
{
    /* Beside attObj there may be others' members (draft §5): they are not looked at. */
    att_autojson *json = NULL;
    enum att_rc rc = att_json_parse_few(att_buf_slice(&p->call->jws.payload),
                                        2 * EVIDENCE_ATTOBJ_MAX, 256, &json, err);
    if (rc == ATT_OK) {
        rc = att_json_b64u(json, "attObj", EVIDENCE_ATTOBJ_MAX, &p->att_obj, err);
    }
    return rc == ATT_OK || rc == ATT_E_NOMEM
               ? rc
               : issuer_problem(p->call, err, ACME_P_MALFORMED, NULL, "%s", err->msg);
}

static enum att_rc load_authz(struct proving *p, struct store_tx *tx, bool pending,
                              struct att_err *err)
{
    struct issuer_call *call = p->call;
    store_record_done(&store_dns_authzs, &p->authz);
    enum att_rc rc = store_get(tx, &store_dns_authzs, call->id, &p->authz, err);
    if (rc) {
        return rc;
    }
    if (strcmp(p->authz.account, call->account.id) != 0) {
        return issuer_problem(call, err, ACME_P_UNAUTHORIZED, NULL, "another account's resource");
    }
    if (!issuer_dns_is_device(p->authz.type)) { /* no statement proves a DNS name */
        return att_fail(err, ATT_E_NOTFOUND, "no challenge of a permanent identifier");
    }
    struct store_dns_order order = {0};
    rc = store_get(tx, &store_dns_orders, p->authz.ord, &order, err);
    if (!rc && pending &&
        (strcmp(p->authz.status, "pending") != 0 || p->authz.expires_at <= call->now ||
         strcmp(order.status, "pending") != 0)) {
        rc = issuer_problem(call, err, ACME_P_MALFORMED, NULL,
                            "the challenge is not pending: no authorization is used twice");
    }
    store_record_done(&store_dns_orders, &order);
    return rc;
}

static enum att_rc load(void *user, struct store_tx *tx, struct att_err *err)
{
    struct proving *p = user;
    enum att_rc rc = load_authz(p, tx, p->call->jws.payload.len > 0, err);
    return rc ? rc : issuer_dns_check_host(p->call, tx, err);
}

static enum att_rc judge(struct proving *p, struct att_err *err)
{
    struct issuer_call *call = p->call;
    const struct issuer_generations *g = issuer_generations_now(call->issuer);
    certs_autostack *roots = NULL;
    att_autobuf key_auth = {0};
    enum att_rc rc = certs_pem_parse(att_slice_str(g->ak_roots), &roots, err);
    acme_key_authorization(p->authz.token, call->account.thumbprint, &key_auth);
    struct verify_device_in in = {.att_obj = att_buf_slice(&p->att_obj),
                                  .key_authorization = att_buf_cstr(&key_auth),
                                  .identifier = p->authz.name,
                                  .roots = roots,
                                  .now = call->now};
    if (rc || !in.key_authorization) {
        return rc ? rc : att_fail(err, ATT_E_NOMEM, "no memory");
    }
    p->judged = verify_device(&in, p->verdict, &p->facts) == VERIFY_ACCEPTED;
    return p->judged ? ATT_OK : verify_verdict_err(p->verdict, err);
}

/* Whom a record is of: the EK once its TPM has spoken; before that, anybody may have named it, and
 * the record is the account's. */
static const char *subject_of(const struct proving *p)
{
    bool foreign = p->refusal && (strcmp(p->refusal->reason, "identifierMismatch") == 0 ||
                                  strcmp(p->refusal->reason, "akUnknown") == 0);
    return p->judged && !foreign ? p->authz.name : p->call->account.thumbprint;
}

/* The statement itself is kept of what was granted; a refused one is known by its digest. */
static enum att_rc record(struct proving *p, struct store_tx *tx, const char *outcome,
                          char ret_digest[65], struct att_err *err)
{
    char digest[65];
    uint8_t sha256[ATT_SHA256_LEN];
    bool granted = !p->refusal;
    att_sha256(sha256, att_buf_slice(&p->att_obj));
    att_hex(digest, ATT_SLICE_ARRAY(sha256));
    enum att_rc rc = granted
                         ? store_blob_put(tx, att_buf_slice(&p->att_obj), p->call->now, digest, err)
                         : ATT_OK;
    if (rc) {
        return rc;
    }
    json_t *r = issuer_record("issue", outcome, granted ? NULL : p->refusal->reason,
                              granted ? NULL : p->refusal->msg, subject_of(p));
    json_t *verdict = NULL;
    json_object_set_new(r, "method", json_string(ACME_CHALLENGE_DEVICE_ATTEST));
    json_object_set_new(r, "identifier", json_string(p->authz.name));
    json_object_set_new(r, "order", json_string(p->authz.ord));
    json_object_set_new(r, "account", json_string(p->call->account.thumbprint));
    json_object_set_new(r, "token", json_string(p->authz.token));
    if (p->facts.ak_serial[0]) {
        json_object_set_new(r, "akSerial", json_string(p->facts.ak_serial));
    }
    if (granted) {
        json_object_set_new(r, "host", json_string(p->host.id));
        json_object_set_new(r, "keyStore", json_string("tpm"));
    }
    json_object_set_new(r, granted ? "evidence" : "received",
                        granted ? json_pack("{s:s}", "attObj", digest) : json_string(digest));
    if (verify_verdict_json(p->verdict, &verdict, NULL) == ATT_OK) {
        json_object_set_new(r, "verdict", verdict);
    }
    return issuer_audit(tx, p->call->now, r, ret_digest, err);
}

static enum att_rc grant(void *user, struct store_tx *tx, struct att_err *err)
{
    struct proving *p = user;
    struct verify_device_facts *f = &p->facts;
    char decision[65], spki[65];
    uint8_t digest[ATT_SHA256_LEN];
    store_record_done(&store_hosts, &p->host);
    enum att_rc rc = load_authz(p, tx, true, err);
    if (!rc) {
        rc = issuer_device_check(p->call, tx, f->ak_serial, f->ak_cert, p->authz.name, &p->host,
                                 err);
    }
    if (!rc) {
        rc = issuer_check_host_rate(p->call, &p->host, err);
    }
    if (!rc) {
        rc = record(p, tx, "granted", decision, err);
    }
    if (rc) {
        return rc;
    }
    att_sha256(digest, ATT_SLICE(f->spki, f->spki_len));
    att_hex(spki, ATT_SLICE_ARRAY(digest));
    p->authz.validated_at = p->call->now;
    bool ok = issuer_set(&p->authz.status, "valid") && issuer_set(&p->authz.host, p->host.id) &&
              issuer_set(&p->authz.ak, f->ak_serial) && issuer_set(&p->authz.spki, spki) &&
              issuer_set(&p->authz.decision, decision);
    rc = ok ? store_put(tx, &store_dns_authzs, &p->authz, err)
            : att_fail(err, ATT_E_NOMEM, "no memory");
    return rc ? rc : issuer_dns_order_ready(tx, p->authz.ord, err);
}

static enum att_rc refuse(void *user, struct store_tx *tx, struct att_err *err)
{
    struct proving *p = user;
    enum att_rc rc = load_authz(p, tx, true, err);
    if (!rc) {
        rc = record(p, tx, "refused", NULL, err);
    }
    if (!rc) {
        rc = issuer_set(&p->authz.status, "invalid") && issuer_set(&p->authz.error, p->problem)
                 ? store_put(tx, &store_dns_authzs, &p->authz, err)
                 : att_fail(err, ATT_E_NOMEM, "no memory");
    }
    return rc ? rc : issuer_dns_fail_order(tx, p->authz.ord, p->problem, err);
}

/* A verdict of "no" is an answer: the challenge comes back invalid, with the reason in it. */
static enum att_rc settle_refusal(struct proving *p, const struct att_err *why, struct att_err *err)
{
    struct issuer_call *call = p->call;
    struct acme_problem problem = {0};
    json_t *json = NULL;
    acme_problem_set(&problem, ACME_P_BAD_ATTESTATION_STATEMENT, "%s", why->msg);
    acme_problem_add(&problem, why->reason, why->msg);
    p->refusal = why;
    enum att_rc rc = acme_problem_encode(&problem, &json, err);
    if (rc) {
        return rc;
    }
    issuer_autofree *text = issuer_json_text(json);
    json_decref(json);
    snprintf(p->problem, sizeof p->problem, "%s", text ? text : "{}");
    rc = store_run(call->issuer->store, true, refuse, p, err);
    if (!rc) {
        issuer_limit_count(call->issuer->limit, ISSUER_LIMIT_REFUSALS, call->account.id, call->now);
        atomic_fetch_add(&call->issuer->counters.refused, 1);
        att_log(ATT_WARN, "order.refused", ATT_S("device", p->authz.name),
                ATT_S("reason", why->reason), ATT_S("detail", why->msg));
    }
    return rc;
}

static bool is_verdict(const struct proving *p, enum att_rc rc, const struct att_err *why)
{
    bool denied = rc == ATT_E_DENIED || rc == ATT_E_AUTH || rc == ATT_E_PARSE;
    return denied && !p->call->has_problem && why->reason[0];
}

static enum att_rc answer(struct proving *p, struct att_err *err)
{
    struct store *store = p->call->issuer->store;
    struct att_err why = {0};
    enum att_rc rc = read_payload(p, err);
    if (rc) {
        return rc;
    }
    rc = store_run(store, false, load, p, &why);
    if (!rc) {
        rc = judge(p, &why);
    }
    if (!rc) {
        rc = store_run(store, true, grant, p, &why);
    }
    if (!rc) {
        att_log(ATT_INFO, "order.ready", ATT_S("device", p->authz.name), ATT_S("host", p->host.id),
                ATT_S("ak", p->facts.ak_serial));
        return ATT_OK;
    }
    if (is_verdict(p, rc, &why)) {
        return settle_refusal(p, &why, err);
    }
    if (err) {
        *err = why;
    }
    return rc;
}

static enum att_rc run(struct proving *p, struct att_err *err)
{
    struct issuer_call *call = p->call;
    enum att_rc rc;
    if (!call->jws.payload.len) {
        rc = store_run(call->issuer->store, false, load, p, err);
    } else if (!call->settings->conf->devices) {
        rc = issuer_problem(call, err, ACME_P_UNSUPPORTED_IDENTIFIER, NULL,
                            "permanent identifiers are not issued here (any more)");
    } else {
        rc = answer(p, err);
    }
    if (rc) {
        return rc;
    }
    snprintf(call->response->up, sizeof call->response->up, "%s/device-authz/%s",
             call->issuer->base_url, p->authz.id); /* RFC 8555 §7.5.1 */
    return issuer_reply(call, 200, issuer_dns_challenge_json(call->issuer, &p->authz), err);
}

enum att_rc issuer_device_challenge(struct issuer_call *call, struct att_err *err)
{
    struct proving *p = calloc(1, sizeof *p);
    enum att_rc rc;
    if (p) {
        p->call = call;
        p->verdict = verify_verdict_new();
    }
    if (!p || !p->verdict) {
        rc = att_fail(err, ATT_E_NOMEM, "no memory");
    } else {
        rc = run(p, err);
    }
    if (p) {
        verify_verdict_free(p->verdict);
        att_buf_done(&p->att_obj);
        store_record_done(&store_dns_authzs, &p->authz);
        store_record_done(&store_hosts, &p->host);
        free(p);
    }
    return rc;
}
