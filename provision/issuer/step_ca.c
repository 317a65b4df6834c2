/* The attestation CA's endpoints in Smallstep's dialect: an EK and an AK are named, a credential is
 * made that only their TPM solves, and who solves it gets an AK certificate. There is no account,
 * and the certificate is good for permanent identifiers alone: no AK record stands beside it, and
 * M4 asks for one. */
#include "provision/issuer/ca.h"
#include "provision/issuer/device.h"
#include "provision/issuer/generations.h"

#include "certs/chain.h"
#include "certs/oid.h"
#include "provision/enrol/step.h"
#include "provision/verify/stock_ak.h"
#include "tpm/parse/makecred.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct step {
    struct issuer *issuer;
    struct issuer_settings *settings;
    struct issuer_response *response;
    int64_t now;
    char source[ISSUER_SOURCE_LEN];
    bool proven; /* the solution came: it is that TPM which asks */
    struct enrol_step_attest request;
    struct verify_verdict *verdict;
    struct verify_ek_facts ek;
    struct verify_ak_facts ak;
    struct parse_public ek_pub;
    struct store_step row;
    struct store_host host;
    struct store_cert cert;
    uint8_t secret[ENROL_STEP_SECRET_LEN];
};

/* ---- attest
 * -----------------------------------------------------------------------------------------------
 */

/* The template that an EK of this kind has, for TPM2_MakeCredential: policy A or B is the same to
 * it. The EK's own area is not sent, so of its attributes nothing is known (no_ek_area). */
static enum att_rc template_of(const EVP_PKEY *key, struct parse_public *ret, struct att_err *err)
{
    bool rsa = EVP_PKEY_is_a(key, "RSA");
    int bits = EVP_PKEY_get_bits(key);
    enum parse_ek_template which = rsa && bits == 2048   ? PARSE_EK_L1
                                   : rsa && bits == 3072 ? PARSE_EK_H6
                                   : !rsa && bits == 256 ? PARSE_EK_L2
                                   : !rsa && bits == 384 ? PARSE_EK_H3
                                                         : PARSE_EK_NONE;
    enum att_rc rc = which == PARSE_EK_NONE
                         ? att_fail(err, ATT_E_DENIED, "the EK is of no known template's kind")
                         : parse_public_ek_template(which, ret, err);
    rc = rc ? rc : parse_public_set_pkey(ret, key, err);
    if (rc) {
        att_err_reason(err, "ekTemplate");
    }
    return rc;
}

/* The certificate that came for this very EK. */
static enum att_rc find_ek(struct step *s, struct att_slice *ret_der, struct att_err *err)
{
    for (size_t i = 0; i < s->request.n_ek_certs; i++) {
        certs_autox509 *cert = NULL;
        struct att_slice der = att_buf_slice(&s->request.ek_certs[i]);
        if (certs_cert_parse(der, &cert, NULL) == ATT_OK &&
            certs_cert_matches_spki(cert, att_buf_slice(&s->request.ek), NULL) == ATT_OK) {
            const EVP_PKEY *key = X509_get0_pubkey(cert);
            *ret_der = der;
            return key ? template_of(key, &s->ek_pub, err)
                       : issuer_refuse(err, ATT_E_DENIED, "ekTemplate", "the EK cannot be read");
        }
    }
    return issuer_refuse(err, ATT_E_DENIED, "ekCertMismatch",
                         "none of ekCerts is for the EK that was named");
}

static enum att_rc judge(struct step *s, struct att_err *err)
{
    att_autobuf area = {0};
    struct att_slice cert = {0};
    enum att_rc rc = find_ek(s, &cert, err);
    if (!rc) {
        rc = parse_public_encode(&s->ek_pub, &area, err);
    }
    if (rc) {
        return rc;
    }
    struct verify_ek_in in = {.ek_cert = cert,
                              .ek_pub = att_buf_slice(&area),
                              .no_ek_area = true,
                              .half = true,
                              .have_version = s->request.version[0] != 0,
                              .version = strtoull(s->request.version, NULL, 16) << 32,
                              .roots = s->settings->ek_roots,
                              .deny = s->settings->deny,
                              .n_deny = s->settings->n_deny,
                              .now = s->now};
    snprintf(in.manufacturer, sizeof in.manufacturer, "%s", s->request.manufacturer);
    const struct verify_stock_ak_in ak = {
        .pub = att_buf_slice(&s->request.ak_pub),
        .create_data = att_buf_slice(&s->request.create_data),
        .create_attestation = att_buf_slice(&s->request.create_attestation),
        .create_signature = att_buf_slice(&s->request.create_signature)};
    if (verify_ek(&in, s->verdict, &s->ek) != VERIFY_ACCEPTED ||
        verify_stock_ak(&ak, s->verdict, &s->ak) != VERIFY_ACCEPTED) {
        return verify_verdict_err(s->verdict, err);
    }
    return ATT_OK;
}

/* An approved host, by enrolment or from the inventory: nobody is let in by these endpoints. */
static enum att_rc find_host(struct step *s, struct store_tx *tx, const char *ek,
                             const char *ak_name, struct att_err *err)
{
    struct issuer_tpm tpm = {.ek = ek, .ak_name = ak_name, .certified = true};
    bool found = false;
    store_record_done(&store_hosts, &s->host);
    enum att_rc rc = issuer_host_resolve(tx, &tpm, &s->host, &found, err);
    if (!rc && (!found || tpm.disputed[0])) {
        rc = issuer_refuse(err, ATT_E_DENIED, "hostUnknown", "no approved host has EK %.12s", ek);
    }
    if (!rc) {
        rc = issuer_host_check(&s->host, err);
    }
    return rc ? rc : issuer_host_check_claims(tx, &s->host, ek, err);
}

enum att_rc issuer_step_firmware(const struct issuer_settings *settings, const json_t *firmware,
                                 struct att_err *err)
{
    struct verify_verdict *verdict = verify_verdict_new();
    enum att_rc rc =
        !verdict ? att_fail(err, ATT_E_NOMEM, "no memory")
        : verify_firmware_unsigned(settings->deny, settings->n_deny,
                                   issuer_string(firmware, "manufacturer"),
                                   issuer_string(firmware, "version"),
                                   issuer_string(firmware, "claimed"), verdict) == VERIFY_ACCEPTED
            ? ATT_OK
            : verify_verdict_err(verdict, err);
    verify_verdict_free(verdict);
    return rc;
}

static enum att_rc fill_row(struct step *s, struct att_err *err)
{
    char digest[65], name[2 * (2 + PARSE_DIGEST_MAX) + 1];
    uint8_t sha256[ATT_SHA256_LEN];
    json_t *verdict = NULL;
    att_sha256(sha256, ATT_SLICE_ARRAY(s->secret));
    att_hex(digest, ATT_SLICE_ARRAY(sha256));
    att_hex(name, parse_name_slice(&s->ak.name));
    enum att_rc rc = verify_verdict_json(s->verdict, &verdict, err);
    att_autojson *facts =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:o*}", "akName", name, "manufacturer",
                  s->ek.manufacturer, "model", s->ek.model, "version", s->ek.version, "claimed",
                  s->request.version, "ekCertSha256", s->ek.cert_sha256, "verdict", verdict);
    issuer_autofree *text = facts ? issuer_json_text(facts) : NULL;
    att_buf_put(&s->row.spki, s->ak.spki, s->ak.spki_len);
    s->row.created_at = s->now;
    s->row.expires_at = s->now + ISSUER_AK_PENDING_S;
    bool ok = !rc && text && issuer_set(&s->row.secret, digest) &&
              issuer_set(&s->row.ek, s->ek.id) && issuer_set(&s->row.source, s->source) &&
              issuer_set(&s->row.facts, text) && !s->row.spki.failed;
    return ok ? ATT_OK : rc ? rc : att_fail(err, ATT_E_NOMEM, "no memory");
}

static enum att_rc look(void *user, struct store_tx *tx, struct att_err *err)
{
    struct step *s = user;
    char name[2 * (2 + PARSE_DIGEST_MAX) + 1];
    att_hex(name, parse_name_slice(&s->ak.name));
    return find_host(s, tx, s->ek.id, name, err);
}

static enum att_rc save(void *user, struct store_tx *tx, struct att_err *err)
{
    struct step *s = user;
    enum att_rc rc = look(s, tx, err);
    if (!rc) {
        rc = store_step_room(tx, &s->row, s->now, err);
    }
    return rc ? rc : store_insert(tx, &store_step_pending, &s->row, err);
}

static enum att_rc attest(struct step *s, const struct issuer_request *request, struct att_err *err)
{
    att_autobuf credential = {0}, secret = {0};
    enum att_rc rc = enrol_step_attest_parse(request->body, &s->request, err);
    if (!rc) {
        rc = judge(s, err);
    }
    if (!rc) { /* strangers take no writer's turn */
        rc = store_run(s->issuer->store, false, look, s, err);
    }
    if (!rc) {
        rc = att_random(s->secret, sizeof s->secret, err);
    }
    if (!rc) {
        rc = parse_makecred_create(&s->ek_pub, ATT_SLICE_ARRAY(s->secret), &s->ak.name, &credential,
                                   &secret, err);
    }
    if (!rc) {
        rc = fill_row(s, err);
    }
    if (!rc) {
        rc = store_run(s->issuer->store, true, save, s, err);
    }
    return rc ? rc
              : enrol_step_attest_answer(att_buf_slice(&credential), att_buf_slice(&secret),
                                         &s->response->body, err);
}

/* ---- secret
 * -----------------------------------------------------------------------------------------------
 */

static void digest_of(const struct step *s, char ret[65])
{
    uint8_t sha256[ATT_SHA256_LEN];
    att_sha256(sha256, ATT_SLICE_ARRAY(s->secret));
    att_hex(ret, ATT_SLICE_ARRAY(sha256));
}

static enum att_rc load_row(void *user, struct store_tx *tx, struct att_err *err)
{
    struct step *s = user;
    char digest[65];
    digest_of(s, digest);
    s->proven = false;
    store_record_done(&store_step_pending, &s->row);
    enum att_rc rc = store_get(tx, &store_step_pending, digest, &s->row, NULL);
    if (rc == ATT_E_NOTFOUND) {
        return issuer_refuse(err, ATT_E_DENIED, "activation",
                             "no credential that waits has this secret");
    }
    if (rc) {
        return att_fail(err, rc, "credentials cannot be read");
    }
    s->proven = s->row.expires_at > s->now;
    return s->proven ? ATT_OK
                     : issuer_refuse(err, ATT_E_DENIED, "activation", "the credential has expired");
}

struct refusal {
    struct step *s;
    const struct att_err *why;
};

/* What a proved TPM is refused uses the solution up and is on record. */
static enum att_rc refuse(void *user, struct store_tx *tx, struct att_err *err)
{
    struct refusal *r = user;
    struct step *s = r->s;
    enum att_rc rc = store_delete(tx, &store_step_pending, s->row.secret, err);
    if (rc) {
        return rc;
    }
    json_t *record = issuer_record("enrol", "refused", r->why->reason, r->why->msg, s->row.ek);
    json_object_set_new(record, "message", json_string("attestationCa"));
    json_object_set_new(record, "order", json_string(s->row.secret));
    if (s->host.id) {
        json_object_set_new(record, "host", json_string(s->host.id));
    }
    return issuer_audit(tx, s->now, record, NULL, err);
}

static void settle_refusal(struct step *s, enum att_rc rc, const struct att_err *why)
{
    struct refusal r = {s, why};
    struct att_err lost = {0};
    issuer_intent_unsure(s->issuer, rc);
    if (s->proven && rc == ATT_E_DENIED) {
        enum att_rc kept = store_run(s->issuer->store, true, refuse, &r, &lost);
        if (kept && kept != ATT_E_NOTFOUND) { /* not found: another request used it */
            att_log_err(ATT_ERROR, "audit.lost", &lost);
        }
    }
}

static enum att_rc audit(struct step *s, struct store_tx *tx, const json_t *facts,
                         char ret_decision[65], struct att_err *err)
{
    json_t *record = issuer_record("enrol", "granted", NULL, NULL, s->row.ek);
    json_object_set_new(record, "message", json_string("attestationCa"));
    json_object_set_new(record, "host", json_string(s->host.id));
    json_object_set_new(record, "order", json_string(s->row.secret));
    json_object_set_new(record, "m1", json_incref((json_t *)(uintptr_t)facts));
    return issuer_audit(tx, s->now, record, ret_decision, err);
}

/* urn:ek:sha256:BASE64, by which step finds the AK certificate of its EK. */
static enum att_rc ek_urn(const char *ek_id, char ret[80], struct att_err *err)
{
    uint8_t digest[ATT_SHA256_LEN];
    att_autobuf text = {0};
    enum att_rc rc = att_unhex_exact(digest, sizeof digest, ek_id, err);
    att_buf_b64(&text, ATT_SLICE_ARRAY(digest));
    const char *b64 = att_buf_cstr(&text);
    if (rc || !b64) {
        return rc ? rc : att_fail(err, ATT_E_NOMEM, "no memory");
    }
    snprintf(ret, 80, "urn:ek:sha256:%s", b64);
    return ATT_OK;
}

/* What was found at attest must still be so. */
static enum att_rc check_basis(struct step *s, struct store_tx *tx, const json_t *facts,
                               struct att_err *err)
{
    const char *name = issuer_string(facts, "akName");
    const struct issuer_tpm tpm = {.ek = s->row.ek, .ak_name = name, .certified = true};
    enum att_rc rc = find_host(s, tx, s->row.ek, name, err);
    if (!rc) {
        rc = issuer_step_firmware(s->settings, facts, err);
    }
    return rc ? rc : issuer_host_record_eks(tx, s->host.id, &tpm, err);
}

static enum att_rc intend(struct step *s, struct store_tx *tx, const json_t *facts, const char *urn,
                          const char *decision, struct att_err *err)
{
    const char *unknown = "unknown";
    att_autojson *firmware = json_pack(
        "{s:s, s:s, s:s}", "manufacturer", issuer_string(facts, "manufacturer"), "version",
        issuer_string(facts, "version"), "claimed", issuer_string(facts, "claimed"));
    issuer_autofree *text = firmware ? issuer_json_text(firmware) : NULL;
    if (!text) {
        return att_fail(err, ATT_E_NOMEM, "no memory");
    }
    const char *const attrs[] = {issuer_string(facts, "manufacturer"),
                                 issuer_string(facts, "model"), issuer_string(facts, "version")};
    struct issuer_intent intent = {
        .kind = ISSUER_CA_AK,
        .ak = {.validity = certs_validity_from(s->now, s->settings->conf->devices->ak_lifetime_s),
               .spki = att_buf_slice(&s->row.spki),
               .ek_id = s->row.ek,
               .manufacturer = attrs[0][0] ? attrs[0] : unknown,
               .model = attrs[1][0] ? attrs[1] : unknown,
               .version = attrs[2][0] ? attrs[2] : unknown,
               .uri = urn},
        .subject = s->row.ek,
        .account = "", /* device_challenge.c: of these endpoints */
        .host = s->host.id,
        .ord = s->row.secret,
        .profile = CONF_ATTESTATION_CA,
        .decision = decision,
        .firmware = text};
    return issuer_intent_make(s->issuer, tx, &intent, s->now, &s->cert, err);
}

/* Takes the solution and gives the certificate in one: what fails for our own reasons leaves it. */
static enum att_rc grant(void *user, struct store_tx *tx, struct att_err *err)
{
    struct step *s = user;
    char decision[65], urn[80];
    enum att_rc rc = load_row(s, tx, err);
    if (rc) {
        return rc;
    }
    att_autojson *facts = issuer_json(s->row.facts);
    rc = check_basis(s, tx, facts, err);
    if (!rc && issuer_limit_take(s->issuer->limit, ISSUER_LIMIT_HOST_STEP, s->host.id,
                                 ISSUER_RECENT_STEP_AKS, s->now)) {
        rc = issuer_refuse(err, ATT_E_RETRY, "hostStep",
                           "host %.12s had %d AK certificates within %d s", s->host.id,
                           ISSUER_RECENT_STEP_AKS, ISSUER_RECENT_S);
    }
    if (!rc) {
        rc = store_delete(tx, &store_step_pending, s->row.secret, err);
    }
    if (!rc) {
        rc = ek_urn(s->row.ek, urn, err);
    }
    if (!rc) {
        rc = audit(s, tx, facts, decision, err);
    }
    return rc ? rc : intend(s, tx, facts, urn, decision, err);
}

static enum att_rc put_chain(struct step *s, struct att_err *err)
{
    certs_autostack *certs = NULL;
    struct att_buf ders[CERTS_CHAIN_MAX_CERTS] = {0};
    size_t n = 0;
    enum att_rc rc = certs_pem_parse(att_slice_str(s->cert.pem), &certs, err);
    for (int i = 0; !rc && i < sk_X509_num(certs) && n < CERTS_CHAIN_MAX_CERTS; i++) {
        rc = certs_cert_der(sk_X509_value(certs, i), &ders[n++], err);
    }
    if (!rc) {
        rc = enrol_step_secret_answer(ders, n, &s->response->body, err);
    }
    for (size_t i = 0; i < n; i++) {
        att_buf_done(&ders[i]);
    }
    return rc;
}

static enum att_rc secret(struct step *s, const struct issuer_request *request, struct att_err *err)
{
    struct store *store = s->issuer->store;
    enum att_rc rc = enrol_step_secret_parse(request->body, s->secret, err);
    if (!rc) {
        rc = store_run(store, false, load_row, s, err); /* strangers take no writer's turn */
    }
    if (!rc) {
        rc = store_run(store, true, grant, s, err);
    }
    if (rc == ATT_E_RETRY && strcmp(err->reason, "caChanged") == 0) {
        struct att_err stale = {0};
        if (issuer_generations_refresh(s->issuer, &stale) == ATT_OK) {
            att_err_clear(err);
            rc = store_run(store, true, grant, s, err);
        }
    }
    if (rc) {
        settle_refusal(s, rc, err);
        return rc;
    }
    if (!rc) {
        rc = issuer_intent_sign(s->issuer, &s->cert, err);
    }
    if (!rc) {
        att_log(ATT_INFO, "attestationCa.granted", ATT_S("host", s->host.id),
                ATT_S("serial", s->cert.serial));
    }
    return rc ? rc : put_chain(s, err);
}

/* ---- both
 * -----------------------------------------------------------------------------------------------
 */

/* 0: of our own troubles the peer is told what others are (handler.c). */
static int status_of(enum att_rc rc, const struct att_err *err)
{
    bool limit = strcmp(err->reason, "stepFull") == 0 || strcmp(err->reason, "hostStep") == 0;
    switch (rc) {
    case ATT_E_PARSE:
    case ATT_E_LIMIT:
        return 400;
    case ATT_E_DENIED:
    case ATT_E_AUTH:
        return 403;
    case ATT_E_RETRY:
        return limit ? 429 : 0;
    default:
        return 0;
    }
}

static void answer(struct step *s, enum att_rc rc, const struct att_err *err)
{
    struct issuer_response *response = s->response;
    if (rc == ATT_OK) {
        response->status = 200;
        response->content_type = "application/json";
        return;
    }
    int status = status_of(rc, err);
    char text[sizeof err->reason + sizeof err->msg + 2];
    snprintf(text, sizeof text, "%s: %s", err->reason, err->msg);
    att_log(status ? ATT_WARN : ATT_ERROR, "attestationCa.refused", ATT_S("reason", err->reason),
            ATT_S("detail", err->msg), ATT_S("ek", s->row.ek ? s->row.ek : s->ek.id));
    if (!status) {
        issuer_refuse_err(response, err);
        return;
    }
    atomic_fetch_add(&s->issuer->counters.refused, 1);
    issuer_refuse_plain(response, status,
                        status == 429   ? ACME_P_RATE_LIMITED
                        : status == 403 ? ACME_P_BAD_ATTESTATION_STATEMENT
                                        : ACME_P_MALFORMED,
                        text);
    /* step prints the status line and no body: its words are the only place for the reason. */
    snprintf(response->phrase, sizeof response->phrase, "%s", err->reason);
    response->retry_after_s = status == 429 ? 60 : 0;
}

static void serve(struct step *s, bool first, const struct issuer_request *request)
{
    struct att_err err = {0};
    if (issuer_limit_take_address(s->issuer->limit, ISSUER_LIMIT_ADDRESS_STEP, request->peer,
                                  s->settings->conf->limits->address_step, s->now)) {
        issuer_refuse_plain(s->response, 429, ACME_P_RATE_LIMITED,
                            "too many requests of this address");
        s->response->retry_after_s = ISSUER_RECENT_S / 2;
        return;
    }
    issuer_limit_source(request->peer, s->source);
    s->verdict = verify_verdict_new();
    enum att_rc rc = !s->verdict ? att_fail(&err, ATT_E_NOMEM, "no memory")
                     : first     ? attest(s, request, &err)
                                 : secret(s, request, &err);
    answer(s, rc, &err);
    verify_verdict_free(s->verdict);
    enrol_step_attest_done(&s->request);
    store_record_done(&store_step_pending, &s->row);
    store_record_done(&store_hosts, &s->host);
    store_record_done(&store_certs, &s->cert);
    att_wipe(s->secret, sizeof s->secret);
}

void issuer_step(struct issuer *issuer, const char *rest, const struct issuer_request *request,
                 struct issuer_response *response)
{
    issuer_autosettings *settings = issuer_settings_get(issuer);
    const struct conf_devices *devices = settings->conf->devices;
    bool first = strcmp(rest, "attest") == 0;
    if (!devices || !devices->attestation_ca || (!first && strcmp(rest, "secret") != 0)) {
        issuer_refuse_plain(response, 404, ACME_P_MALFORMED, "there is no such resource");
        return;
    }
    if (request->method != ISSUER_POST) {
        response->allow = "POST";
        issuer_refuse_plain(response, 405, ACME_P_MALFORMED, "this resource is asked with POST");
        return;
    }
    if (request->body.len > ENROL_STEP_BODY_MAX) {
        issuer_refuse_plain(response, 413, ACME_P_MALFORMED, "the request is too long");
        return;
    }
    struct step *s = calloc(1, sizeof *s);
    if (!s) {
        issuer_refuse_plain(response, 500, ACME_P_SERVER_INTERNAL, "no memory");
        return;
    }
    s->issuer = issuer;
    s->settings = settings;
    s->response = response;
    s->now = issuer->clock();
    serve(s, first, request);
    free(s);
}
