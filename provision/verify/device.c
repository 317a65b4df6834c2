#include "provision/verify/device.h"

#include "attestd/base/enc.h"
#include "certs/build.h"
#include "certs/chain.h"
#include "certs/oid.h"
#include "provision/evidence/attobj.h"
#include "provision/evidence/formula.h"
#include "provision/verify/steps.h"
#include "tpm/parse/sig.h"

#include <stdio.h>
#include <string.h>

static const enum verify_reason plan[] = {
    VERIFY_REASON_MALFORMED,    VERIFY_REASON_AK_CERTIFICATE,    VERIFY_REASON_IDENTIFIER_MISMATCH,
    VERIFY_REASON_CERTIFY_TYPE, VERIFY_REASON_CERTIFY_SIGNATURE, VERIFY_REASON_CERTIFY_NONCE,
    VERIFY_REASON_CERTIFY_NAME, VERIFY_REASON_KEY_ATTRIBUTES,
};

struct read {
    struct evidence_attobj attobj;
    STACK_OF(X509) * certs;
    struct parse_public key;
    struct verify_device_facts facts;
    struct verify_statement certify;
};

/* ---- malformed ------------------------------------------------------------------------------- */

static bool read_key(struct read *read, struct verify_verdict *verdict)
{
    att_autobuf spki = ATT_BUF_INIT(VERIFY_SPKI_MAX);
    struct att_err err = {0};
    struct verify_device_facts *facts = &read->facts;
    if (!verify_step_area(read->attobj.pub_area, "pubArea", &read->key, verdict)) {
        return false;
    }
    if (parse_name_of_area(read->attobj.pub_area, &facts->key_name, &err) ||
        parse_public_spki(&read->key, &spki, &err) || att_buf_ok(&spki, &err)) {
        verify_fail(verdict, VERIFY_REASON_MALFORMED, "pubArea: %s", err.msg);
        return false;
    }
    memcpy(facts->spki, spki.ptr, spki.len);
    facts->spki_len = spki.len;
    return true;
}

static bool read_all(const struct verify_device_in *in, struct read *read,
                     struct verify_verdict *verdict)
{
    struct att_err err = {0};
    if (!in->key_authorization || !in->key_authorization[0] || !in->identifier ||
        !in->identifier[0]) {
        verify_fail(verdict, VERIFY_REASON_INTERNAL, "no order to judge the statement by");
        return false;
    }
    if (evidence_attobj_parse_standard(in->att_obj, &read->attobj, &err)) {
        verify_fail(verdict, VERIFY_REASON_MALFORMED, "attObj: %s", err.msg);
        return false;
    }
    if (certs_der_parse(read->attobj.x5c, read->attobj.x5c_len, &read->certs, &err)) {
        verify_fail(verdict, VERIFY_REASON_MALFORMED, "x5c: %s", err.msg);
        return false;
    }
    if (!read_key(read, verdict) ||
        !verify_step_statement(read->attobj.cert_info, PARSE_ATTEST_CERTIFY, "certInfo",
                               &read->certify, verdict) ||
        !verify_step_signature(read->attobj.sig, "attObj sig", verdict)) {
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_MALFORMED, "every structure parses whole");
    return true;
}

/* ---- the AK ---------------------------------------------------------------------------------- */

static bool check_ak(const struct verify_device_in *in, struct read *read,
                     struct verify_verdict *verdict)
{
    struct att_err err = {0};
    struct certs_cert_info info;
    char ek_id[2 * ATT_SHA256_LEN + 1];
    const X509 *leaf = sk_X509_value(read->certs, 0);
    if (certs_chain_verify(read->certs, in->roots, CERTS_PURPOSE_AK, in->now, &err) ||
        certs_ak_ek_id(leaf, ek_id, &err) || certs_cert_info(leaf, &info, &err)) {
        verify_fail(verdict, VERIFY_REASON_AK_CERTIFICATE, "x5c: %s", err.msg);
        return false;
    }
    snprintf(read->facts.ak_serial, sizeof read->facts.ak_serial, "%s", info.serial_hex);
    read->facts.ak_cert = read->attobj.x5c[0];
    verify_pass(verdict, VERIFY_REASON_AK_CERTIFICATE,
                "the attestation CA states that this AK is in the TPM with EK %s", ek_id);
    if (strcmp(ek_id, in->identifier) != 0) {
        verify_fail(verdict, VERIFY_REASON_IDENTIFIER_MISMATCH,
                    "the AK certificate is of the TPM with EK %s, the order is for %.64s", ek_id,
                    in->identifier);
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_IDENTIFIER_MISMATCH,
                "the order is for the TPM of the AK certificate");
    return true;
}

/* ---- the key's statement --------------------------------------------------------------------- */

static bool check_type(const struct read *read, struct verify_verdict *verdict)
{
    const struct verify_statement *certify = &read->certify;
    if (certify->magic != PARSE_MAGIC) {
        verify_fail(verdict, VERIFY_REASON_CERTIFY_TYPE,
                    "certInfo starts with 0x%08x, expected TPM_GENERATED 0x%08x", certify->magic,
                    PARSE_MAGIC);
        return false;
    }
    if (certify->type != PARSE_ATTEST_CERTIFY || !certify->parsed) {
        verify_fail(verdict, VERIFY_REASON_CERTIFY_TYPE,
                    "certInfo has type 0x%04x (%s), expected 0x%04x (a TPM2_Certify)",
                    certify->type, verify_statement_name(certify->type), PARSE_ATTEST_CERTIFY);
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_CERTIFY_TYPE, "certInfo is a TPM2_Certify");
    return true;
}

/* By the key in the AK certificate, with SHA-256, as its type says. `alg` chooses nothing: clients
 * write the certified key's there, or the AK's. */
static bool check_signature(const struct read *read, struct verify_verdict *verdict)
{
    struct att_err err = {0};
    struct parse_public ak = {0};
    const EVP_PKEY *key = X509_get0_pubkey(sk_X509_value(read->certs, 0));
    enum att_rc rc = key ? parse_public_set_pkey(&ak, key, &err)
                         : att_fail(&err, ATT_E_UNSUPPORTED, "the AK certificate's key is unknown");
    if (rc == ATT_OK) {
        uint16_t alg = ak.type == PARSE_ALG_RSA ? PARSE_ALG_RSASSA : PARSE_ALG_ECDSA;
        ak.scheme = (struct parse_scheme){alg, PARSE_ALG_SHA256, 0};
        rc = parse_sig_verify(&ak, read->attobj.sig, read->attobj.cert_info, &err);
    }
    if (rc != ATT_OK) {
        verify_fail(verdict, VERIFY_REASON_CERTIFY_SIGNATURE, "attObj sig: %s", err.msg);
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_CERTIFY_SIGNATURE, "certInfo is signed by the AK");
    return true;
}

static bool check_nonce(const struct verify_device_in *in, const struct read *read,
                        struct verify_verdict *verdict)
{
    uint8_t extra[ATT_SHA256_LEN];
    evidence_certify_extra(extra, att_slice_str(in->key_authorization));
    if (!att_slice_eq_secret(read->certify.attest.extra_data, ATT_SLICE_ARRAY(extra))) {
        verify_fail(verdict, VERIFY_REASON_CERTIFY_NONCE,
                    "certInfo.extraData (%zu bytes) is not SHA-256 of this order's "
                    "keyAuthorization",
                    read->certify.attest.extra_data.len);
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_CERTIFY_NONCE, "certInfo was made for this order");
    return true;
}

static bool check_name(const struct read *read, struct verify_verdict *verdict)
{
    char name[2 * sizeof(read->facts.key_name.bytes) + 1];
    att_hex(name, parse_name_slice(&read->facts.key_name));
    if (!att_slice_eq(read->certify.attest.u.certify.name,
                      parse_name_slice(&read->facts.key_name))) {
        verify_fail(verdict, VERIFY_REASON_CERTIFY_NAME,
                    "certInfo names another object than pubArea, whose Name is %s", name);
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_CERTIFY_NAME, "certInfo names the key %s", name);
    return true;
}

static bool sha2(uint16_t alg)
{
    return alg == PARSE_ALG_SHA256 || alg == PARSE_ALG_SHA384 || alg == PARSE_ALG_SHA512;
}

static bool scheme_ok(const struct parse_public *pub)
{
    bool rsa = pub->type == PARSE_ALG_RSA;
    bool fits = rsa ? pub->scheme.alg == PARSE_ALG_RSASSA || pub->scheme.alg == PARSE_ALG_RSAPSS
                    : pub->scheme.alg == PARSE_ALG_ECDSA;
    return pub->scheme.alg == PARSE_ALG_NULL || (fits && sha2(pub->scheme.hash));
}

enum att_rc verify_device_key(const struct parse_public *pub, struct att_err *err)
{
    const uint32_t set =
        PARSE_OA_FIXED_TPM | PARSE_OA_FIXED_PARENT | PARSE_OA_SENSITIVE_DATA_ORIGIN | PARSE_OA_SIGN;
    const uint32_t clear = PARSE_OA_RESTRICTED | PARSE_OA_DECRYPT | PARSE_OA_ENCRYPTED_DUPLICATION;
    bool p256 = pub->type == PARSE_ALG_ECC && pub->curve == PARSE_ECC_P256;
    bool rsa = pub->type == PARSE_ALG_RSA && pub->key_bits >= 2048 &&
               (pub->exponent == 0 || pub->exponent == 65537);
    if (parse_public_check_attrs(pub->attrs, set, clear, "the key", err) != ATT_OK) {
        return ATT_E_DENIED;
    }
    if (!p256 && !rsa) {
        return att_fail(err, ATT_E_DENIED,
                        "the key: expected P-256, or RSA of 2048 or 3072 bits with exponent 65537");
    }
    if (!sha2(pub->name_alg) || !scheme_ok(pub)) {
        return att_fail(err, ATT_E_DENIED, "the key: its nameAlg or scheme is not of SHA-2");
    }
    return ATT_OK;
}

static bool check_key(const struct read *read, struct verify_verdict *verdict)
{
    struct att_err err = {0};
    if (verify_device_key(&read->key, &err) != ATT_OK) {
        verify_fail(verdict, VERIFY_REASON_KEY_ATTRIBUTES, "%s", err.msg);
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_KEY_ATTRIBUTES,
                "the key was born in the TPM and cannot leave it");
    return true;
}

enum verify_result verify_device(const struct verify_device_in *in, struct verify_verdict *verdict,
                                 struct verify_device_facts *ret)
{
    struct read read = {0};
    if (verify_verdict_failed(verdict)) {
        return VERIFY_REFUSED;
    }
    verify_plan(verdict, plan, sizeof(plan) / sizeof(plan[0]));
    bool ok = read_all(in, &read, verdict) && check_ak(in, &read, verdict) &&
              check_type(&read, verdict) && check_signature(&read, verdict) &&
              check_nonce(in, &read, verdict) && check_name(&read, verdict) &&
              check_key(&read, verdict) && verify_verdict_result(verdict) == VERIFY_ACCEPTED;
    certs_stack_cleanup(&read.certs);
    if (!ok) {
        return VERIFY_REFUSED;
    }
    *ret = read.facts;
    return VERIFY_ACCEPTED;
}
