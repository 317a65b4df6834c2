/* The statements of the TPM: ENROL_PROVE, KEY_EVIDENCE, KEY_CSR, USER_QUOTE. Each extraData is made
 * here from parts that were looked at here; none is taken from the caller. */
#include "attestd/keyd/hsmlink.h"

#include "certs/csr.h"
#include "certs/key.h"
#include "certs/san.h"
#include "provision/enrol/schedule.h"
#include "provision/evidence/formula.h"
#include "provision/evidence/statement.h"

#include <stdlib.h>
#include <string.h>

_Static_assert(PROC_AGENT_MAX == CERTS_AGENT_NAME_MAX, "an agent that may be named has its keys");

/* ---- quotes -------------------------------------------------------------------------------- */

static enum att_rc selection(struct att_slice text, struct parse_pcr_sel *ret, struct att_err *err)
{
    char copy[PARSE_PCR_TEXT_MAX];
    if (text.len >= sizeof copy) {
        return att_fail(err, ATT_E_PARSE, "pcrSelection: too long");
    }
    KEYD_TEXT(text, copy);
    enum att_rc rc = parse_pcr_sel_parse(copy, ret, err);
    att_err_prefix(err, "pcrSelection");
    return rc;
}

static enum att_rc check_manifest(struct att_slice cbor, struct att_err *err)
{
    struct evidence_logs logs = {0};
    enum att_rc rc = evidence_manifest_parse(cbor, &logs, err);
    evidence_logs_done(&logs);
    return rc;
}

/* What the wire's "pcrs" member is, as text. */
static enum att_rc pcrs_text(const struct tpm_quote *quote, struct att_buf *ret,
                             struct att_err *err)
{
    att_autojson *json = NULL;
    enum att_rc rc = parse_pcr_set_json(&quote->values, &json, err);
    return rc == ATT_OK ? att_json_dump(json, false, ret, err) : rc;
}

struct quote_job {
    struct keyd *keyd;
    const char *agent; /* "": the host */
    struct parse_pcr_sel sel;
    uint8_t extra[ATT_SHA256_LEN];
    struct tpm_quote *quote;
};

static enum att_rc run_quote(struct tpm_context *ctx, void *arg, struct att_err *err)
{
    struct quote_job *job = arg;
    enum att_rc rc = job->agent[0] ? keyd_frozen_check(job->keyd, job->agent, err) : ATT_OK;
    return rc == ATT_OK
               ? tpm_quote_create(ctx, &job->sel, ATT_SLICE_ARRAY(job->extra), job->quote, err)
               : rc;
}

/* ---- USER_QUOTE ---------------------------------------------------------------------------- */

KEYD_OPERATION(user_quote)
{
    struct att_slice manifest = request->v[PROC_USER_QUOTE_REQ_LOG_MANIFEST].bytes;
    tpm_autoquote quote = {0};
    struct quote_job job = {.keyd = keyd, .agent = "", .quote = &quote};
    enum att_rc rc = selection(request->v[PROC_USER_QUOTE_REQ_PCR_SELECTION].bytes, &job.sel, err);
    if (rc == ATT_OK) {
        rc = check_manifest(manifest, err);
    }
    if (rc == ATT_OK) {
        rc = keyd_ready(keyd, err);
    }
    if (rc == ATT_OK) {
        evidence_user_quote_extra(job.extra, request->v[PROC_USER_QUOTE_REQ_NONCE].bytes, manifest);
        rc = keyd_run(keyd, TPM_OP_QUOTE, TPM_PRIO_RENEWAL, "", run_quote, &job, err);
    }
    att_autobuf pcrs = ATT_BUF_INIT(PROC_PCRS_MAX);
    if (rc == ATT_OK) {
        rc = pcrs_text(&quote, &pcrs, err);
    }
    const struct proc_value values[] = {
        [PROC_USER_QUOTE_REP_ATTEST] = {.bytes = att_buf_slice(&quote.attest)},
        [PROC_USER_QUOTE_REP_SIG] = {.bytes = att_buf_slice(&quote.sig)},
        [PROC_USER_QUOTE_REP_PCRS] = {.bytes = att_buf_slice(&pcrs)},
        [PROC_USER_QUOTE_REP_EXTRA_DATA] = {.bytes = ATT_SLICE_ARRAY(job.extra)},
    };
    return rc == ATT_OK ? proc_reply_encode(op, values, ret_payload, err) : rc;
}

/* ---- ENROL_PROVE --------------------------------------------------------------------------- */

struct activate_job {
    struct keyd *keyd;
    struct att_slice blob, secret;
    struct att_buf *value;
};

static enum att_rc run_activate(struct tpm_context *ctx, void *arg, struct att_err *err)
{
    struct activate_job *job = arg;
    enum att_rc rc = keyd_worker_identity(job->keyd, ctx, err);
    return rc == ATT_OK ? tpm_ek_activate(ctx, &job->keyd->worker.ek, job->blob, job->secret,
                                          job->value, err)
                        : rc;
}

enum att_rc keyd_activate(struct keyd *keyd, struct att_slice blob, struct att_slice secret,
                          struct att_buf *ret_value, struct att_err *err)
{
    struct activate_job job = {keyd, blob, secret, ret_value};
    enum att_rc rc = keyd_run(keyd, TPM_OP_ACTIVATE, TPM_PRIO_RENEWAL, "", run_activate, &job, err);
    if (rc == ATT_E_AUTH) {
        att_err_reason(err, "activation");
    }
    return rc;
}

static enum att_rc check_ak_url(struct keyd *keyd, struct att_slice url, struct att_err *err)
{
    char *issuer = NULL;
    struct att_err cause = {0};
    enum att_rc rc = keyd_issuer_get(keyd, &issuer, err);
    if (rc == ATT_OK && keyd_url_under(issuer, url, &cause) != ATT_OK) {
        rc = keyd_deny(err, "akUrl", "akUrl: %s", cause.msg);
    }
    free(issuer);
    return rc;
}

/* K, from the activated credential; neither leaves this function's caller. */
static enum att_rc derive_k(struct keyd *keyd, const struct proc_msg *request, uint8_t ret_k[32],
                            struct att_err *err)
{
    const struct proc_value *v = request->v;
    char thumbprint[ACME_THUMBPRINT_LEN], url[PROC_URL_MAX + 1];
    att_autobuf value = ATT_BUF_INIT(64);
    KEYD_TEXT(v[PROC_ENROL_PROVE_REQ_AK_URL].bytes, url);
    enum att_rc rc = keyd_account_need(keyd, thumbprint, err);
    if (rc == ATT_OK) {
        rc = keyd_activate(keyd, v[PROC_ENROL_PROVE_REQ_CREDENTIAL_BLOB].bytes,
                           v[PROC_ENROL_PROVE_REQ_ENCRYPTED_SECRET].bytes, &value, err);
    }
    if (rc == ATT_OK && value.len != ENROL_CV_LEN) {
        rc = att_fail(err, ATT_E_AUTH, "the credential holds %zu bytes, %d expected", value.len,
                      ENROL_CV_LEN);
        att_err_reason(err, "activation");
    }
    if (rc == ATT_OK) {
        rc = enrol_schedule_k_digests(
            att_buf_slice(&value), url, thumbprint, v[PROC_ENROL_PROVE_REQ_M1_SHA256].bytes.ptr,
            v[PROC_ENROL_PROVE_REQ_M1_REPLY_SHA256].bytes.ptr, ret_k, err);
    }
    if (value.ptr) {
        att_wipe(value.ptr, value.cap);
    }
    return rc;
}

static enum att_rc prove(struct keyd *keyd, const struct proc_msg *request, struct quote_job *job,
                         uint8_t ret_proof[ATT_SHA256_LEN], struct att_err *err)
{
    uint8_t k[ENROL_K_LEN];
    enum att_rc rc = derive_k(keyd, request, k, err);
    if (rc == ATT_OK) {
        enrol_schedule_proof(k, ret_proof);
        enrol_schedule_quote_extra(k, request->v[PROC_ENROL_PROVE_REQ_NONCE].bytes.ptr,
                                   request->v[PROC_ENROL_PROVE_REQ_LOG_MANIFEST].bytes, job->extra);
        rc = keyd_run(keyd, TPM_OP_QUOTE, TPM_PRIO_RENEWAL, "", run_quote, job, err);
    }
    att_wipe(k, sizeof k);
    return rc;
}

KEYD_OPERATION(enrol_prove)
{
    const struct proc_value *v = request->v;
    tpm_autoquote quote = {0};
    struct quote_job job = {.keyd = keyd, .agent = "", .quote = &quote};
    uint8_t proof[ATT_SHA256_LEN] = {0};
    att_autobuf pcrs = ATT_BUF_INIT(PROC_PCRS_MAX);
    enum att_rc rc = selection(v[PROC_ENROL_PROVE_REQ_PCR_SELECTION].bytes, &job.sel, err);
    if (rc == ATT_OK) {
        rc = check_manifest(v[PROC_ENROL_PROVE_REQ_LOG_MANIFEST].bytes, err);
    }
    if (rc == ATT_OK) {
        rc = check_ak_url(keyd, v[PROC_ENROL_PROVE_REQ_AK_URL].bytes, err);
    }
    if (rc == ATT_OK) {
        rc = keyd_ready(keyd, err);
    }
    if (rc == ATT_OK) {
        rc = prove(keyd, request, &job, proof, err);
    }
    if (rc == ATT_OK) {
        rc = pcrs_text(&quote, &pcrs, err);
    }
    const struct proc_value values[] = {
        [PROC_ENROL_PROVE_REP_PROOF] = {.bytes = ATT_SLICE_ARRAY(proof)},
        [PROC_ENROL_PROVE_REP_ATTEST] = {.bytes = att_buf_slice(&quote.attest)},
        [PROC_ENROL_PROVE_REP_SIG] = {.bytes = att_buf_slice(&quote.sig)},
        [PROC_ENROL_PROVE_REP_PCRS] = {.bytes = att_buf_slice(&pcrs)},
    };
    return rc == ATT_OK ? proc_reply_encode(op, values, ret_payload, err) : rc;
}

/* ---- KEY_EVIDENCE -------------------------------------------------------------------------- */

/* token "." thumbprint (RFC 8555 §8.1): a token of at least 128 bits, and our own thumbprint. */
enum att_rc keyd_check_key_authorization(struct keyd *keyd, struct att_slice text,
                                         struct att_err *err)
{
    char thumbprint[ACME_THUMBPRINT_LEN];
    enum att_rc rc = keyd_account_need(keyd, thumbprint, err);
    if (rc != ATT_OK) {
        return rc;
    }
    size_t thumb_len = ACME_THUMBPRINT_LEN - 1;
    size_t token_len = text.len > thumb_len ? text.len - thumb_len - 1 : 0;
    bool form = token_len >= 22 && text.ptr[token_len] == '.';
    for (size_t i = 0; form && i < token_len; i++) {
        uint8_t c = text.ptr[i];
        form = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '-' || c == '_';
    }
    if (!form) {
        return keyd_deny(err, "keyAuthorization",
                         "keyAuthorization is not a token of 22 or more characters, a dot and a "
                         "thumbprint");
    }
    if (!att_slice_eq_str(ATT_SLICE(text.ptr + token_len + 1, thumb_len), thumbprint)) {
        return keyd_deny(err, "keyAuthorization", "keyAuthorization is not our account's");
    }
    return ATT_OK;
}

/* "spiffe://<trust domain>/agent/<this agent>" */
static enum att_rc check_agent_of(struct att_slice id, const char *agent, const char *reason,
                                  struct att_err *err)
{
    struct certs_spiffe_id spiffe;
    struct att_err cause = {0};
    if (certs_spiffe_parse(id, &spiffe, &cause) != ATT_OK) {
        return keyd_deny(err, reason, "identifier: %s", cause.msg);
    }
    char path[PROC_AGENT_MAX + 16] = "/agent/";
    memcpy(path + 7, agent, strlen(agent) + 1);
    if (!att_slice_eq_str(spiffe.path, path)) {
        return keyd_deny(err, reason, "identifier names %.*s, this key is agent %s's",
                         (int)(spiffe.path.len < 100 ? spiffe.path.len : 100),
                         (const char *)spiffe.path.ptr, agent);
    }
    return ATT_OK;
}

/* By its Name in the TPM, or by the digest of its SubjectPublicKeyInfo. */
static enum att_rc check_which_key(const struct keyd_key *key,
                                   const struct evidence_statement *statement, struct att_err *err)
{
    uint8_t digest[ATT_SHA256_LEN];
    att_sha256(digest, att_buf_slice(&key->spki));
    if (key->name.len
            ? !att_slice_eq(ATT_SLICE(statement->key_name, statement->key_name_len),
                            parse_name_slice(&key->name))
            : !statement->has_key_spki || memcmp(statement->key_spki, digest, sizeof digest) != 0) {
        return keyd_deny(err, "evidenceKey", "evidence's %s is not that of key %s",
                         key->name.len ? "keyName" : "keySpki", key->id);
    }
    if (statement->hsm[0] && strcmp(statement->hsm, key->module) != 0) {
        return keyd_deny(err, "evidenceKey", "evidence says hsm %s, key %s is in %s",
                         statement->hsm, key->id, key->module);
    }
    return ATT_OK;
}

/* What it says of the module's token is what the module said to us. */
static enum att_rc check_token(struct keyd *keyd, const struct keyd_key *key,
                               const struct evidence_statement *statement, struct att_err *err)
{
    struct evidence_hsm_token seen;
    struct keyd_hsm *hsm = NULL;
    if (!statement->has_hsm_token) {
        return ATT_OK;
    }
    enum att_rc rc = keyd_hsms_of(keyd, key, &hsm, err);
    if (rc == ATT_OK && (!keyd_hsm_token_seen(hsm, &seen) ||
                         !evidence_hsm_token_equal(&seen, &statement->hsm_token))) {
        rc = keyd_deny(err, "evidenceKey",
                       "evidence says hsmToken \"%s\", \"%s\", \"%s\", which is not what module %s "
                       "says of its token",
                       statement->hsm_token.manufacturer, statement->hsm_token.model,
                       statement->hsm_token.serial, key->module);
    }
    return rc;
}

static enum att_rc check_statement(struct keyd *keyd, const struct keyd_key *key,
                                   struct att_slice cbor, struct att_err *err)
{
    struct evidence_statement statement = {0};
    enum att_rc rc = evidence_statement_parse(cbor, &statement, err);
    if (rc != ATT_OK) {
        att_err_prefix(err, "evidence");
        return rc;
    }
    if (strcmp(statement.key_store, key->store->name) != 0) {
        rc = keyd_deny(err, "evidenceKey", "evidence says keyStore %s, key %s is of kind %s",
                       statement.key_store, key->id, key->store->name);
    }
    if (rc == ATT_OK) {
        rc = check_which_key(key, &statement, err);
    }
    if (rc == ATT_OK) {
        rc = check_token(keyd, key, &statement, err);
    }
    if (rc == ATT_OK) {
        rc = check_agent_of(att_slice_str(statement.identifier), key->agent, "evidenceAgent", err);
    }
    evidence_statement_done(&statement);
    return rc;
}

/* Everything that can be refused without the TPM is refused before it is asked. */
static enum att_rc check_evidence(struct keyd *keyd, const struct proc_msg *request,
                                  struct keyd_key *ret_key, struct parse_pcr_sel *ret_sel,
                                  struct att_err *err)
{
    const struct proc_value *v = request->v;
    enum att_rc rc = keyd_ready(keyd, err);
    if (rc == ATT_OK) {
        rc = keyd_keys_get(keyd, v[PROC_KEY_EVIDENCE_REQ_KEY_ID].bytes, ret_key, err);
    }
    if (rc == ATT_OK) {
        rc = keyd_store_ready(keyd, ret_key, err);
    }
    if (rc == ATT_OK) {
        rc = keyd_frozen_check(keyd, ret_key->agent, err);
    }
    if (rc == ATT_OK) {
        rc = selection(v[PROC_KEY_EVIDENCE_REQ_PCR_SELECTION].bytes, ret_sel, err);
    }
    if (rc == ATT_OK) {
        rc = keyd_check_key_authorization(keyd, v[PROC_KEY_EVIDENCE_REQ_KEY_AUTHORIZATION].bytes,
                                          err);
    }
    return rc == ATT_OK
               ? check_statement(keyd, ret_key, v[PROC_KEY_EVIDENCE_REQ_EVIDENCE].bytes, err)
               : rc;
}

static enum att_rc attest(struct keyd *keyd, const struct proc_msg *request,
                          const struct keyd_key *key, struct keyd_proof *proof,
                          struct quote_job *quote, struct att_err *err)
{
    struct att_slice authz = request->v[PROC_KEY_EVIDENCE_REQ_KEY_AUTHORIZATION].bytes;
    enum att_rc rc = key->store->prove(keyd, key, authz, proof, err);
    if (rc == ATT_OK) {
        quote->agent = key->agent;
        evidence_quote_extra(quote->extra, authz, att_buf_slice(&proof->statement),
                             request->v[PROC_KEY_EVIDENCE_REQ_EVIDENCE].bytes);
        rc = keyd_run(keyd, TPM_OP_QUOTE, TPM_PRIO_RENEWAL, key->agent, run_quote, quote, err);
    }
    return rc;
}

KEYD_OPERATION(key_evidence)
{
    keyd_autokey key = {0};
    keyd_autoproof proof = {0};
    tpm_autoquote quote = {0};
    att_autobuf pcrs = ATT_BUF_INIT(PROC_PCRS_MAX);
    struct quote_job quote_job = {.keyd = keyd, .quote = &quote};
    enum att_rc rc = check_evidence(keyd, request, &key, &quote_job.sel, err);
    if (rc == ATT_OK) {
        rc = attest(keyd, request, &key, &proof, &quote_job, err);
    }
    if (rc == ATT_OK) {
        rc = pcrs_text(&quote, &pcrs, err);
    }
    const struct proc_value values[] = {
        [PROC_KEY_EVIDENCE_REP_CERT_INFO] = {.bytes = att_buf_slice(&proof.statement)},
        [PROC_KEY_EVIDENCE_REP_CERT_SIG] = {.bytes = att_buf_slice(&proof.sig)},
        [PROC_KEY_EVIDENCE_REP_ATTEST] = {.bytes = att_buf_slice(&quote.attest)},
        [PROC_KEY_EVIDENCE_REP_QUOTE_SIG] = {.bytes = att_buf_slice(&quote.sig)},
        [PROC_KEY_EVIDENCE_REP_PCRS] = {.bytes = att_buf_slice(&pcrs)},
        [PROC_KEY_EVIDENCE_REP_PUB_AREA] = {.bytes = att_buf_slice(&proof.pub_area)},
        [PROC_KEY_EVIDENCE_REP_SRK_PUB] = {.bytes = att_buf_slice(&proof.srk_pub)},
        [PROC_KEY_EVIDENCE_REP_PARENT_PUB] = {.bytes = att_buf_slice(&proof.parent_pub)},
    };
    return rc == ATT_OK ? proc_reply_encode(op, values, ret_payload, err) : rc;
}

/* ---- KEY_CSR ------------------------------------------------------------------------------- */

struct sign_job {
    struct keyd *keyd;
    const struct keyd_key *key;
};

/* The signer behind the CSR's EVP_PKEY. */
static enum att_rc sign_with_store(void *user, struct att_slice digest, struct att_buf *ret_der_sig,
                                   struct att_err *err)
{
    const struct sign_job *job = user;
    struct keyd_sig sig;
    enum att_rc rc =
        keyd_key_sign(job->keyd, job->key, TPM_PRIO_RENEWAL, KEYD_ECDSA, digest, &sig, err);
    return rc == ATT_OK
               ? certs_sig_der(ATT_SLICE(sig.bytes, sig.len / 2),
                               ATT_SLICE(sig.bytes + sig.len / 2, sig.len / 2), ret_der_sig, err)
               : rc;
}

static enum att_rc sign_rsa_with_store(void *user, struct att_slice digest,
                                       struct att_buf *ret_signature, struct att_err *err)
{
    const struct sign_job *job = user;
    struct keyd_sig sig;
    enum att_rc rc =
        keyd_key_sign(job->keyd, job->key, TPM_PRIO_RENEWAL, KEYD_RSA_PKCS1, digest, &sig, err);
    if (rc == ATT_OK) {
        att_buf_put(ret_signature, sig.bytes, sig.len);
        rc = att_buf_ok(ret_signature, err);
    }
    return rc;
}

enum att_rc keyd_csr_create(struct keyd *keyd, const struct keyd_key *key, keyd_csr_fn *fn,
                            const char *text, struct att_buf *ret_der, struct att_err *err)
{
    struct sign_job job = {.keyd = keyd, .key = key};
    const struct certs_signer signer = {.sign = sign_with_store, .user = &job};
    EVP_PKEY *public_key = NULL, *remote = NULL;
    enum att_rc rc = certs_key_from_spki(att_buf_slice(&key->spki), &public_key, err);
    if (rc == ATT_OK) {
        rc = certs_key_remote_new(public_key, &signer, &remote, err);
    }
    if (rc == ATT_OK) {
        struct att_err outer = {0}, inner = {0};
        rc = fn(remote, text, ret_der, &outer);
        if (rc != ATT_OK) {
            /* What the store said, rather than what libcrypto makes of it. */
            enum att_rc said = certs_key_remote_error(&inner);
            rc = said != ATT_OK ? said : rc;
            if (err) {
                *err = said != ATT_OK ? inner : outer;
            }
        }
    }
    EVP_PKEY_free(remote);
    EVP_PKEY_free(public_key);
    return rc;
}

static enum att_rc create_csr(struct keyd *keyd, const struct keyd_key *key, const char *spiffe_id,
                              struct att_buf *ret_der, struct att_err *err)
{
    struct sign_job job = {.keyd = keyd, .key = key};
    return att_keytype_is_rsa(key->type)
               ? certs_csr_create_rsa(att_buf_slice(&key->spki), spiffe_id, sign_rsa_with_store,
                                      &job, ret_der, err)
               : keyd_csr_create(keyd, key, certs_csr_create, spiffe_id, ret_der, err);
}

KEYD_OPERATION(key_csr)
{
    struct att_slice spiffe_id = request->v[PROC_KEY_CSR_REQ_SPIFFE_ID].bytes;
    char text[CERTS_SPIFFE_ID_MAX + 1];
    keyd_autokey key = {0};
    att_autobuf der = ATT_BUF_INIT(PROC_CERT_MAX);
    enum att_rc rc = keyd_keys_get(keyd, request->v[PROC_KEY_CSR_REQ_KEY_ID].bytes, &key, err);
    if (rc == ATT_OK) {
        rc = keyd_store_ready(keyd, &key, err);
    }
    if (rc == ATT_OK) {
        rc = keyd_frozen_check(keyd, key.agent, err);
    }
    if (rc == ATT_OK) {
        rc = check_agent_of(spiffe_id, key.agent, "csrAgent", err);
    }
    if (rc == ATT_OK) {
        KEYD_TEXT(spiffe_id, text);
        rc = create_csr(keyd, &key, text, &der, err);
    }
    const struct proc_value values[] = {[PROC_KEY_CSR_REP_CSR] = {.bytes = att_buf_slice(&der)}};
    return rc == ATT_OK ? proc_reply_encode(op, values, ret_payload, err) : rc;
}
