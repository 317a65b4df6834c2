/* M8: a token for an agent. Who asks is the host's account (the outer JWS); that the agent's key is
 * there and may be used now is shown by its signature over the very nonce of this request (the
 * inner one), and what evidence both rest on by the certificate that the inner one names. */
#include "provision/issuer/jwt.h"

#include "certs/key.h"
#include "certs/oid.h"
#include "certs/san.h"
#include "provision/issuer/ca.h"
#include "provision/issuer/order.h"
#include "provision/oidc/jwt.h"

#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROOF_TYP     "attestd-token"
#define AUDIENCES_MAX 8
#define SKEW_S        60 /* a verdict may be so much newer than our clock */
#define LEAST_S       10 /* a token of less life is not worth its record */
#define JTI_BYTES     16

struct mint {
    struct issuer_call *call;
    const struct conf_jwt *conf;
    struct oidc_jwt proof;
    const char *spiffe_id; /* of the proof */
    const char *audience[AUDIENCES_MAX];
    size_t n_audience;
    char name[CERTS_AGENT_NAME_MAX + 1];
    struct store_host host;
    struct store_cert cert;
    char kid[ACME_THUMBPRINT_LEN], jti[2 * JTI_BYTES + 1];
    EVP_PKEY *key;
    int64_t expires_at;
};

static enum att_rc refuse(struct att_err *err, const char *reason, const char *what)
{
    return issuer_refuse(err, ATT_E_DENIED, reason, "%s", what);
}

/* ---- what is asked for ----------------------------------------------------------------------- */

static enum att_rc take_audiences(struct mint *m, struct att_err *err)
{
    const json_t *list = json_object_get(m->proof.claims, "audience");
    size_t n = json_array_size(list);
    if (n < 1 || n > AUDIENCES_MAX) {
        return issuer_refuse(err, ATT_E_PARSE, "malformed",
                             "\"audience\": expected an array of 1 to %d", AUDIENCES_MAX);
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *one = json_array_get(list, i);
        const char *text = json_string_value(one);
        if (!text || strlen(text) != json_string_length(one) || !conf_audience_ok(text)) {
            return issuer_refuse(err, ATT_E_PARSE, "malformed",
                                 "\"audience\": expected texts of 1 to %d printable characters",
                                 CONF_AUDIENCE_MAX);
        }
        m->audience[m->n_audience++] = text;
    }
    return ATT_OK;
}

/* {"proof": compact JWS by the agent's key, of {"nonce", "spiffeId", "audience": […]}} */
static enum att_rc take_request(struct mint *m, struct att_err *err)
{
    static const char *const types[] = {PROOF_TYP, NULL};
    att_autojson *json = NULL;
    const char *text = NULL;
    struct att_slice name;
    enum att_rc rc =
        att_json_parse(att_buf_slice(&m->call->jws.payload), ISSUER_PLAIN_BODY_MAX, &json, err);
    if (!rc) {
        rc = att_json_str(json, "proof", &text, err);
    }
    if (rc) {
        att_err_reason(err, "malformed");
        return ATT_E_PARSE;
    }
    rc = oidc_jwt_parse_as(att_slice_str(text), types, &m->proof, err);
    if (rc) {
        return issuer_refuse(err, ATT_E_DENIED, "tokenProof", "the proof is not of its form");
    }
    m->spiffe_id = issuer_string(m->proof.claims, "spiffeId");
    if (certs_spiffe_agent_name(att_slice_str(m->spiffe_id), m->call->issuer->trust_domain, &name,
                                NULL)) {
        m->spiffe_id = "";
        return issuer_refuse(err, ATT_E_DENIED, "notAssigned", "expected spiffe://%s/agent/NAME",
                             m->call->issuer->trust_domain);
    }
    snprintf(m->name, sizeof m->name, "%.*s", (int)name.len, (const char *)name.ptr);
    return take_audiences(m, err);
}

/* ---- checks, in order ------------------------------------------------------------------------ */

static enum att_rc check_nonce(const struct mint *m, struct att_err *err)
{
    return strcmp(issuer_string(m->proof.claims, "nonce"), m->call->jws.nonce) == 0
               ? ATT_OK
               : refuse(err, "tokenNonce", "the proof is not of this request's nonce");
}

static enum att_rc check_entry(struct mint *m, struct store_tx *tx, struct att_err *err)
{
    struct store_entry entry = {0};
    issuer_autoentry *parsed = NULL;
    enum att_rc rc = issuer_entry_for(m->call->issuer, tx, m->name, &m->host, &entry, &parsed, err);
    for (size_t i = 0; !rc && i < m->n_audience; i++) {
        if (!conf_entry_allows_audience(parsed->v, m->audience[i])) {
            rc = issuer_refuse(err, ATT_E_DENIED, "audienceDenied",
                               "the entry of agent %s does not allow the audience \"%.255s\"",
                               m->name, m->audience[i]);
        }
    }
    store_record_done(&store_entries, &entry);
    return rc;
}

/* The certificate that the proof's key has, by its serial number. */
static enum att_rc check_cert(struct mint *m, struct store_tx *tx, struct att_err *err)
{
    struct store_cert *cert = &m->cert;
    enum att_rc rc = store_get(tx, &store_certs, m->proof.kid, cert, NULL);
    if (rc && rc != ATT_E_NOTFOUND) {
        return att_fail(err, rc, "certificates cannot be read");
    }
    if (rc || strcmp(cert->kind, "agent") != 0 || strcmp(cert->host, m->host.id) != 0 ||
        strcmp(cert->subject, m->spiffe_id) != 0) {
        return refuse(err, "noCertificate", "the proof names no certificate of this agent here");
    }
    if (strcmp(cert->status, STORE_CERT_REVOKED) == 0) {
        return refuse(err, "certRevoked", "the agent's certificate is revoked");
    }
    if (strcmp(cert->status, STORE_CERT_ISSUED) != 0 || cert->not_after < m->call->now + LEAST_S) {
        return refuse(err, "noCertificate", "the agent's certificate has ended");
    }
    return ATT_OK;
}

static enum att_rc key_of_cert(const char *pem, EVP_PKEY **ret_key, struct att_err *err)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    X509 *leaf = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
    EVP_PKEY *key = leaf ? X509_get_pubkey(leaf) : NULL;
    enum att_rc rc = key ? ATT_OK : att_fail_openssl(err, ATT_E_INTERNAL, "a stored certificate");
    X509_free(leaf);
    BIO_free(bio);
    if (!rc) {
        *ret_key = key;
    }
    return rc;
}

static enum att_rc check_proof(const struct mint *m, struct att_err *err)
{
    EVP_PKEY *key = NULL;
    enum att_rc rc =
        acme_keys_get_by(m->call->issuer->cert_keys, key_of_cert, m->cert.pem, &key, err);
    if (!rc && oidc_jwt_verify(&m->proof, key, NULL)) {
        rc = refuse(err, "tokenProof", "the proof is not signed by the agent's key");
    }
    EVP_PKEY_free(key);
    return rc;
}

/* The AK is of the boot that the host is known to be in. */
static enum att_rc check_boot(const struct store_ak *ak, const json_t *notes, struct att_err *err)
{
    struct verify_clock now = {0}, enrolled = issuer_ak_clock(ak);
    bool same = issuer_host_clock(notes, &now) && now.reset_count == enrolled.reset_count &&
                now.restart_count == enrolled.restart_count &&
                now.firmware_version == enrolled.firmware_version;
    return same ? ATT_OK : refuse(err, "akStale", "the certificate's AK is of another boot");
}

static enum att_rc check_age(const struct mint *m, int64_t at, struct att_err *err)
{
    long long age = m->call->now - at, most = m->conf->evidence_max_age_s;
    if (age < -SKEW_S) {
        return issuer_refuse(err, ATT_E_DENIED, "clockBack",
                             "the certificate's verdict is %lld s ahead of the issuer's clock",
                             -age);
    }
    return age <= most ? ATT_OK
                       : issuer_refuse(err, ATT_E_DENIED, "evidenceStale",
                                       "the certificate's verdict is %lld s old, at most %lld s "
                                       "are allowed",
                                       age, most);
}

/* The verdict that the certificate rests on would bear one now, too: nothing that it was judged by
 * has changed (as finalize asks), and nothing was refused since. What other agents' verdicts and
 * enrolments said meanwhile makes it neither younger nor better. */
static enum att_rc check_verdict(const struct mint *m, struct store_tx *tx, struct att_err *err)
{
    struct store_order order = {0};
    struct store_host host = {0};
    struct store_ak ak = {0};
    struct store_entry entry = {0};
    enum att_rc rc = store_get(tx, &store_orders, m->cert.ord, &order, NULL);
    if (rc == ATT_E_NOTFOUND || (!rc && strcmp(order.decision, m->cert.decision) != 0)) {
        rc = refuse(err, "evidenceStale", "nothing is kept of the certificate's verdict");
    } else if (rc) {
        rc = att_fail(err, rc, "orders cannot be read");
    }
    rc = rc ? rc : issuer_order_check(m->call, tx, &order, order.ak, &host, &ak, &entry, NULL, err);
    att_autojson *notes = issuer_json(rc ? "{}" : host.notes);
    rc = rc ? rc : issuer_order_basis(m->call, tx, &order, &host, &ak, err);
    rc = rc ? rc : check_boot(&ak, notes, err);
    rc = rc ? rc : issuer_refusal_check(notes, &order, err);
    rc = rc ? rc : check_age(m, order.verdict_at, err);
    store_record_done(&store_orders, &order);
    store_record_done(&store_hosts, &host);
    store_record_done(&store_aks, &ak);
    store_record_done(&store_entries, &entry);
    return rc;
}

static enum att_rc check(struct mint *m, struct store_tx *tx, struct att_err *err)
{
    enum att_rc rc = check_nonce(m, err);
    if (!rc) {
        rc = issuer_host_by_account(tx, m->call->account.thumbprint, &m->host, err);
    }
    rc = rc ? rc : issuer_host_check(&m->host, err);
    rc = rc ? rc : check_entry(m, tx, err);
    rc = rc ? rc : check_cert(m, tx, err);
    rc = rc ? rc : check_proof(m, err);
    return rc ? rc : check_verdict(m, tx, err);
}

/* ---- records --------------------------------------------------------------------------------- */

static json_t *record_of(const struct mint *m, const char *outcome, const char *reason,
                         const char *detail)
{
    json_t *record = issuer_record("token", outcome, reason, detail, m->spiffe_id);
    json_t *list = json_array();
    for (size_t i = 0; i < m->n_audience; i++) {
        json_array_append_new(list, json_string(m->audience[i]));
    }
    json_object_set_new(record, "audience", list);
    json_object_set_new(record, "account", json_string(m->call->account.thumbprint));
    if (m->host.id) {
        json_object_set_new(record, "host", json_string(m->host.id));
    }
    return record;
}

/* The token itself is in no record: whoever reads the log could use it. */
static enum att_rc record_grant(struct mint *m, struct store_tx *tx, struct att_err *err)
{
    json_t *record = record_of(m, "granted", NULL, NULL);
    json_object_set_new(record, "jti", json_string(m->jti));
    json_object_set_new(record, "kid", json_string(m->kid));
    json_object_set_new(record, "serial", json_string(m->cert.serial));
    json_object_set_new(record, "decision", json_string(m->cert.decision));
    json_object_set_new(record, "expiresAt", issuer_time_json(m->expires_at));
    return issuer_audit(tx, m->call->now, record, NULL, err);
}

static enum att_rc record_refusal(void *user, struct store_tx *tx, struct att_err *err)
{
    const struct mint *m = user;
    const struct acme_problem *problem = &m->call->problem;
    return issuer_audit(
        tx, m->call->now,
        record_of(m, "refused",
                  problem->n_sub ? problem->sub[0].reason : acme_problem_word(problem->type),
                  problem->detail),
        NULL, err);
}

/* ---- minting --------------------------------------------------------------------------------- */

/* Records commit before anything is signed, as a certificate's do. */
static enum att_rc grant(void *user, struct store_tx *tx, struct att_err *err)
{
    struct mint *m = user;
    struct att_err why = {0};
    enum att_rc rc = check(m, tx, &why);
    if (rc == ATT_E_DENIED) {
        return issuer_problem(m->call, err, ACME_P_UNAUTHORIZED, why.reason, "%s", why.msg);
    }
    if (!rc && issuer_limit_take(m->call->issuer->limit, ISSUER_LIMIT_HOST_TOKENS, m->host.id,
                                 ISSUER_RECENT_TOKENS, m->call->now)) {
        rc = issuer_problem(m->call, err, ACME_P_RATE_LIMITED, NULL,
                            "%d tokens of this host within %d s", ISSUER_RECENT_TOKENS,
                            ISSUER_RECENT_S);
        m->call->problem.retry_after_s = 60;
        return rc;
    }
    if (!rc) {
        rc = issuer_jwt_signer(m->call->issuer, tx, m->call->now, m->kid, &m->key, &why);
    }
    if (!rc) {
        m->expires_at = m->call->now + m->conf->lifetime_s;
        m->expires_at = m->cert.not_after < m->expires_at ? m->cert.not_after : m->expires_at;
        rc = record_grant(m, tx, &why);
    }
    if (rc && err) {
        *err = why;
    }
    return rc;
}

static json_t *claims_of(const struct mint *m)
{
    json_t *aud = m->n_audience == 1 ? json_string(m->audience[0]) : json_array();
    for (size_t i = 0; m->n_audience > 1 && i < m->n_audience; i++) {
        json_array_append_new(aud, json_string(m->audience[i]));
    }
    return json_pack("{s:s, s:s, s:o, s:I, s:I, s:s}", "iss", m->conf->issuer, "sub", m->spiffe_id,
                     "aud", aud, "exp", (json_int_t)m->expires_at, "iat", (json_int_t)m->call->now,
                     "jti", m->jti);
}

/* The compact form (RFC 7515 §3.1). */
static enum att_rc sign(const struct mint *m, struct att_buf *ret_token, struct att_err *err)
{
    att_autojson *header =
        json_pack("{s:s, s:s, s:s}", "alg", "ES256", "kid", m->kid, "typ", "JWT");
    att_autojson *claims = claims_of(m);
    att_autobuf h = {0}, c = {0};
    uint8_t rs[ACME_ES256_LEN];
    struct acme_signer signer = acme_signer_pkey(m->key);
    enum att_rc rc = header && claims ? att_json_dump(header, false, &h, err)
                                      : att_fail(err, ATT_E_NOMEM, "token: no memory");
    rc = rc ? rc : att_json_dump(claims, false, &c, err);
    if (rc) {
        return rc;
    }
    acme_jws_input(att_buf_slice(&h), att_buf_slice(&c), ret_token);
    rc = signer.sign(signer.user, att_buf_slice(ret_token), rs, err);
    if (rc) { /* a key in an HSM says itself why: later, mostly */
        enum att_rc said = certs_key_remote_error(err);
        return said ? said : rc;
    }
    att_buf_put_str(ret_token, ".");
    att_buf_b64u(ret_token, ATT_SLICE_ARRAY(rs));
    return att_buf_ok(ret_token, err);
}

static enum att_rc answer(struct mint *m, struct att_err *err)
{
    att_autobuf token = {0};
    enum att_rc rc = sign(m, &token, err);
    const char *text = rc ? NULL : att_buf_cstr(&token);
    if (rc || !text) {
        return rc ? rc : att_fail(err, ATT_E_NOMEM, "token: no memory");
    }
    return issuer_reply(m->call, 200,
                        json_pack("{s:s, s:s, s:I, s:I, s:s}", "token", text, "spiffeId",
                                  m->spiffe_id, "issuedAt", (json_int_t)m->call->now, "expiresAt",
                                  (json_int_t)m->expires_at, "kid", m->kid),
                        err);
}

static enum att_rc run(struct mint *m, struct att_err *err)
{
    uint8_t jti[JTI_BYTES];
    struct att_err why = {0};
    enum att_rc rc = take_request(m, &why);
    if (rc == ATT_E_DENIED) {
        return issuer_problem(m->call, err, ACME_P_UNAUTHORIZED, why.reason, "%s", why.msg);
    }
    rc = rc ? rc : att_random(jti, sizeof jti, &why);
    if (rc) {
        if (err) {
            *err = why;
        }
        return rc;
    }
    att_hex(m->jti, ATT_SLICE_ARRAY(jti));
    rc = store_run(m->call->issuer->store, true, grant, m, err);
    return rc ? rc : answer(m, err);
}

enum att_rc issuer_new_token(struct issuer_call *call, struct att_err *err)
{
    struct mint m = {.call = call, .conf = call->settings->conf->jwt};
    if (!m.conf || !call->issuer->jwt) {
        enum att_rc off = issuer_problem(call, err, ACME_P_UNAUTHORIZED, "tokensOff",
                                         "no tokens are minted here");
        call->problem.status = 404;
        return off;
    }
    m.spiffe_id = "";
    enum att_rc rc = run(&m, err);
    struct att_err lost = {0};
    if (rc == ATT_E_DENIED && call->has_problem && call->problem.type != ACME_P_RATE_LIMITED &&
        store_run(call->issuer->store, true, record_refusal, &m, &lost)) {
        att_log_err(ATT_ERROR, "audit.lost", &lost);
    }
    EVP_PKEY_free(m.key);
    oidc_jwt_done(&m.proof);
    store_record_done(&store_certs, &m.cert);
    store_record_done(&store_hosts, &m.host);
    return rc;
}
