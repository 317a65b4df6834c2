/* revokeCert (RFC 8555 §7.6). */
#include "certs/chain.h"
#include "provision/acme/requests.h"
#include "provision/issuer/generations.h"
#include "provision/issuer/dns_ca.h"
#include "provision/issuer/revoke.h"

#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct ending {
    struct issuer_call *call;
    struct acme_revocation_request request;
    X509 *cert;
    char serial[2 * CERTS_SERIAL_LEN + 1];
    char who[2 * ATT_SHA256_LEN + 1]; /* the account, or the digest of the key that signed */
    bool dns;
};

/* Byte for byte the one that we signed: a row says what its TBS is, and its kind who signs. */
static bool is_ours(const struct issuer *issuer, const struct ending *e,
                    const struct store_cert *row)
{
    struct issuer_authority all[ISSUER_GENERATIONS_MAX + 1];
    size_t n = issuer_authorities_all(issuer, row->kind, all);
    uint8_t *tbs = NULL;
    int len = i2d_re_X509_tbs(e->cert, &tbs);
    bool same = len > 0 && row->tbs.len &&
                att_slice_eq(att_buf_slice(&row->tbs), ATT_SLICE(tbs, (size_t)len));
    OPENSSL_free(tbs);
    bool signed_here = false;
    for (size_t i = 0; same && !signed_here && i < n; i++) { /* the public half: it may be away */
        signed_here = all[i].ca && X509_verify(e->cert, X509_get0_pubkey(all[i].ca)) == 1;
    }
    return signed_here;
}

/* By the account that has it, or by its own key (no account needed). */
static enum att_rc may_revoke(const struct ending *e, const struct store_cert *row,
                              struct att_err *err)
{
    struct issuer_call *call = e->call;
    if (call->jws.kid) {
        return strcmp(row->account, call->account.id) == 0
                   ? ATT_OK
                   : issuer_problem(call, err, ACME_P_UNAUTHORIZED, NULL,
                                    "the certificate is another account's");
    }
    att_autobuf signer = {0};
    uint8_t *own = NULL;
    int len = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(e->cert), &own);
    enum att_rc rc = acme_jwk_to_spki(call->jws.jwk, &signer, err);
    bool same = !rc && len > 0 && att_slice_eq(att_buf_slice(&signer), ATT_SLICE(own, (size_t)len));
    OPENSSL_free(own);
    return rc || same ? rc
                      : issuer_problem(call, err, ACME_P_UNAUTHORIZED, NULL,
                                       "signed by another key than the certificate's");
}

/* Who may, and whether there is something to end. */
static enum att_rc look(void *user, struct store_tx *tx, struct att_err *err)
{
    struct ending *e = user;
    struct issuer_call *call = e->call;
    struct store_cert row = {0};
    enum att_rc rc = store_get(tx, &store_certs, e->serial, &row, err);
    if (rc == ATT_E_NOTFOUND || (!rc && !is_ours(call->issuer, e, &row))) {
        store_record_done(&store_certs, &row);
        rc = issuer_problem(call, err, ACME_P_MALFORMED, NULL,
                            "no such certificate was issued here, or it ended long since");
        call->problem.status = 404;
        return rc;
    }
    if (!rc) {
        rc = may_revoke(e, &row, err);
    }
    if (!rc && strcmp(row.status, STORE_CERT_ISSUED) != 0) {
        rc = issuer_problem(call, err, ACME_P_ALREADY_REVOKED, NULL, "the certificate is %s",
                            row.status);
    }
    if (!rc && row.not_after <= call->now) {
        rc = issuer_problem(call, err, ACME_P_MALFORMED, NULL, "the certificate has expired");
    }
    e->dns = !rc && strcmp(row.kind, issuer_ca_kind_name(ISSUER_CA_DNS)) == 0;
    store_record_done(&store_certs, &row);
    return rc;
}

static enum att_rc end_cert(void *user, struct store_tx *tx, struct att_err *err)
{
    struct ending *e = user;
    struct issuer_call *call = e->call;
    char who[80];
    enum att_rc rc = look(e, tx, err); /* it may have changed since */
    snprintf(who, sizeof who, call->jws.kid ? "account/%s" : "key%.0s",
             call->jws.kid ? call->account.id : "");
    if (!rc) {
        const struct issuer_revocation what = {
            .serial = e->serial,
            .reason = certs_crl_reason_name((enum certs_crl_reason)e->request.reason),
            .void_detail = "it was revoked before it was signed",
            .by = who};
        rc = issuer_revoke(tx, &what, call->now, err);
    }
    /* Hosts have no certificates for DNS names, and hear of none. */
    return rc || e->dns ? rc : issuer_view_bump(tx, err);
}

static enum att_rc check_rate(struct ending *e, struct att_err *err)
{
    struct issuer_call *call = e->call;
    att_autobuf spki = {0};
    uint8_t digest[ATT_SHA256_LEN];
    snprintf(e->who, sizeof e->who, "%s", call->jws.kid ? call->account.id : "");
    if (!call->jws.kid) {
        enum att_rc rc = acme_jwk_to_spki(call->jws.jwk, &spki, err);
        if (rc) {
            return rc;
        }
        att_sha256(digest, att_buf_slice(&spki));
        att_hex(e->who, ATT_SLICE_ARRAY(digest));
    }
    if (!issuer_limit_reached(call->issuer->limit, ISSUER_LIMIT_REVOCATIONS, e->who, call->now)) {
        return ATT_OK;
    }
    enum att_rc rc =
        issuer_problem(call, err, ACME_P_RATE_LIMITED, NULL, "%d revocations within %d s",
                       ISSUER_RECENT_REVOCATIONS, ISSUER_RECENT_S);
    call->problem.retry_after_s = 60;
    return rc;
}

static enum att_rc read_cert(struct ending *e, struct att_err *err)
{
    struct issuer_call *call = e->call;
    struct certs_cert_info info;
    struct att_err why = {0};
    enum att_rc rc = certs_cert_parse(att_buf_slice(&e->request.cert), &e->cert, &why);
    if (!rc) {
        rc = certs_cert_info(e->cert, &info, &why);
    }
    if (rc || strlen(info.serial_hex) >= sizeof e->serial) {
        return issuer_problem(call, err, ACME_P_MALFORMED, NULL, "certificate: %s",
                              rc ? why.msg : "its serial number is none of ours");
    }
    snprintf(e->serial, sizeof e->serial, "%.*s", (int)sizeof e->serial - 1, info.serial_hex);
    return ATT_OK;
}

enum att_rc issuer_revoke_cert(struct issuer_call *call, struct att_err *err)
{
    struct ending e = {.call = call};
    enum att_rc rc =
        acme_revocation_request_parse(att_buf_slice(&call->jws.payload), &e.request, err);
    if (!rc) {
        rc = read_cert(&e, err);
    }
    if (!rc) {
        rc = check_rate(&e, err);
    }
    /* Strangers ask, too: they must not take a writer's turn for nothing. */
    if (!rc) {
        rc = store_run(call->issuer->store, false, look, &e, err);
    }
    if (!rc) {
        rc = store_run(call->issuer->store, true, end_cert, &e, err);
    }
    if (!rc) {
        issuer_limit_count(call->issuer->limit, ISSUER_LIMIT_REVOCATIONS, e.who, call->now);
        call->response->status = 200; /* RFC 8555 §7.6: and no body */
        if (!e.dns) {
            issuer_view_wake(call->issuer);
        }
        att_log(ATT_INFO, "certificate.revoked", ATT_S("serial", e.serial),
                ATT_S("reason", certs_crl_reason_name((enum certs_crl_reason)e.request.reason)),
                ATT_S("by", call->jws.kid ? call->account.id : "its key"));
    }
    acme_revocation_request_done(&e.request);
    X509_free(e.cert);
    return rc;
}
