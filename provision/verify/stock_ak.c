#include "provision/verify/stock_ak.h"

#include "provision/verify/steps.h"
#include "tpm/parse/sig.h"

#include <string.h>

static const enum verify_reason plan[] = {VERIFY_REASON_MALFORMED, VERIFY_REASON_AK_ATTRIBUTES,
                                          VERIFY_REASON_CERTIFY_TYPE, VERIFY_REASON_CERTIFY_NAME,
                                          VERIFY_REASON_CERTIFY_SIGNATURE};

static bool read_ak(struct att_slice area, struct parse_public *ak, struct verify_ak_facts *facts,
                    struct verify_verdict *verdict)
{
    att_autobuf spki = ATT_BUF_INIT(VERIFY_SPKI_MAX);
    struct att_err err = {0};
    if (!verify_step_area(area, "public", ak, verdict)) {
        return false;
    }
    if (parse_name_of_area(area, &facts->name, &err) || parse_public_spki(ak, &spki, &err) ||
        att_buf_ok(&spki, &err)) {
        verify_fail(verdict, VERIFY_REASON_MALFORMED, "public: %s", err.msg);
        return false;
    }
    memcpy(facts->spki, spki.ptr, spki.len);
    facts->spki_len = spki.len;
    return true;
}

static enum att_rc check_key(const struct parse_public *ak, struct att_err *err)
{
    const uint32_t set = PARSE_OA_FIXED_TPM | PARSE_OA_FIXED_PARENT |
                         PARSE_OA_SENSITIVE_DATA_ORIGIN | PARSE_OA_RESTRICTED | PARSE_OA_SIGN;
    bool rsa = ak->type == PARSE_ALG_RSA && (ak->exponent == 0 || ak->exponent == 65537);
    bool p256 = ak->type == PARSE_ALG_ECC && ak->curve == PARSE_ECC_P256;
    uint16_t scheme = rsa ? PARSE_ALG_RSASSA : PARSE_ALG_ECDSA;
    if (parse_public_check_attrs(ak->attrs, set, PARSE_OA_DECRYPT | PARSE_OA_ENCRYPTED_DUPLICATION,
                                 "AK", err) != ATT_OK) {
        return ATT_E_DENIED;
    }
    if (!rsa && !p256) {
        return att_fail(err, ATT_E_DENIED, "AK: expected RSA with exponent 65537, or P-256");
    }
    if (ak->scheme.alg != scheme || ak->scheme.hash != PARSE_ALG_SHA256 ||
        ak->name_alg != PARSE_ALG_SHA256) {
        return att_fail(err, ATT_E_DENIED, "AK: expected %s with SHA-256, and a Name of SHA-256",
                        rsa ? "rsassa" : "ecdsa");
    }
    return ak->policy_len == 0 ? ATT_OK
                               : att_fail(err, ATT_E_DENIED, "AK: its authPolicy is not empty");
}

static bool check_creation(const struct verify_stock_ak_in *in, const struct parse_public *ak,
                           const struct verify_ak_facts *facts, const struct verify_statement *made,
                           struct verify_verdict *verdict)
{
    uint8_t digest[ATT_SHA256_LEN];
    struct att_err err = {0};
    if (made->magic != PARSE_MAGIC || made->type != PARSE_ATTEST_CREATION || !made->parsed) {
        verify_fail(verdict, VERIFY_REASON_CERTIFY_TYPE,
                    "createAttestation is no TPM2_CertifyCreation (magic 0x%08x, type 0x%04x)",
                    made->magic, made->type);
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_CERTIFY_TYPE, "createAttestation is a TPM2_CertifyCreation");
    att_sha256(digest, in->create_data);
    if (!att_slice_eq(made->attest.u.creation.object_name, parse_name_slice(&facts->name)) ||
        !att_slice_eq(made->attest.u.creation.creation_hash, ATT_SLICE_ARRAY(digest))) {
        verify_fail(verdict, VERIFY_REASON_CERTIFY_NAME,
                    "createAttestation is of another key, or of other creation data");
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_CERTIFY_NAME, "createAttestation is of this AK");
    if (parse_sig_verify(ak, in->create_signature, in->create_attestation, &err)) {
        verify_fail(verdict, VERIFY_REASON_CERTIFY_SIGNATURE, "createSignature: %s", err.msg);
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_CERTIFY_SIGNATURE, "the AK signed it");
    return true;
}

enum verify_result verify_stock_ak(const struct verify_stock_ak_in *in,
                                   struct verify_verdict *verdict, struct verify_ak_facts *ret)
{
    struct parse_public ak;
    struct verify_ak_facts facts = {0};
    struct verify_statement made = {0};
    struct att_err err = {0};
    if (verify_verdict_failed(verdict)) {
        return VERIFY_REFUSED;
    }
    verify_plan(verdict, plan, sizeof(plan) / sizeof(plan[0]));
    if (!read_ak(in->pub, &ak, &facts, verdict) ||
        !verify_step_statement(in->create_attestation, PARSE_ATTEST_CREATION, "createAttestation",
                               &made, verdict) ||
        !verify_step_signature(in->create_signature, "createSignature", verdict)) {
        return VERIFY_REFUSED;
    }
    verify_pass(verdict, VERIFY_REASON_MALFORMED, "every structure parses whole");
    if (check_key(&ak, &err)) {
        verify_fail(verdict, VERIFY_REASON_AK_ATTRIBUTES, "%s", err.msg);
        return VERIFY_REFUSED;
    }
    verify_pass(verdict, VERIFY_REASON_AK_ATTRIBUTES,
                "the AK is restricted to signing what the TPM says, and cannot leave it");
    if (!check_creation(in, &ak, &facts, &made, verdict) ||
        verify_verdict_result(verdict) != VERIFY_ACCEPTED) {
        return VERIFY_REFUSED;
    }
    *ret = facts;
    return VERIFY_ACCEPTED;
}
