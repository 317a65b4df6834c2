#include "tpm/certify.h"

#include "tpm/internal.h"
#include "tpm/parse/attest.h"

void tpm_certify_done(struct tpm_certify *certify)
{
    att_buf_done(&certify->attest);
    att_buf_done(&certify->sig);
}

/* What the TPM signed must be what was asked for before anybody relies on it. */
static enum att_rc check(const struct tpm_certify *certify, const struct tpm_blob *key,
                         struct att_slice extra_data, struct att_err *err)
{
    struct parse_attest attest;
    struct parse_name name;
    enum att_rc rc = parse_attest_certify(att_buf_slice(&certify->attest), &attest, err);
    if (rc == ATT_OK) {
        rc = tpm_blob_name(key, &name, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    if (!att_slice_eq(attest.extra_data, extra_data)) {
        return att_fail(err, ATT_E_PROTOCOL, "TPM2_Certify answered with another extraData");
    }
    if (!att_slice_eq(attest.u.certify.name, parse_name_slice(&name))) {
        return att_fail(err, ATT_E_PROTOCOL, "TPM2_Certify answered for another key");
    }
    return ATT_OK;
}

static enum att_rc certify(struct tpm_context *ctx, ESYS_TR key, struct att_slice extra_data,
                           struct tpm_certify *ret, struct att_err *err)
{
    static const TPMT_SIG_SCHEME by_key = {.scheme = TPM2_ALG_NULL};
    tpm_autofree TPM2B_ATTEST *attest = NULL;
    tpm_autofree TPMT_SIGNATURE *sig = NULL;
    TPM2B_DATA data;
    ESYS_TR ak, session;
    TSS2_RC trc;
    enum att_rc rc = tpm_to_data(extra_data, &data, err);
    if (rc == ATT_OK) {
        rc = tpm_ak_acquire(ctx, &ak, err);
    }
    if (rc == ATT_OK) {
        rc = tpm_session_get(ctx, 0, &session, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    /* One HMAC session cannot serve both handles; the AK's authValue is empty. */
    TPM_CALL(ctx, trc,
             Esys_Certify(ctx->esys, key, ak, session, ESYS_TR_PASSWORD, ESYS_TR_NONE, &data,
                          &by_key, &attest, &sig));
    if (trc != TSS2_RC_SUCCESS) {
        return tpm_fail(err, trc, "certifying a key");
    }
    rc = tpm_put_2b(&ret->attest, attest->size, attest->attestationData,
                    sizeof(attest->attestationData), "an attestation", err);
    return rc == ATT_OK ? tpm_from_signature(sig, &ret->sig, err) : rc;
}

enum att_rc tpm_certify_create(struct tpm_context *ctx, const struct tpm_blob *key,
                               struct att_slice auth, struct att_slice extra_data,
                               struct tpm_certify *ret_certify, struct att_err *err)
{
    tpm_autocertify out = {0};
    ESYS_TR tr = ESYS_TR_NONE;
    enum att_rc rc = tpm_begin(ctx, err);
    if (rc == ATT_OK) {
        rc = tpm_key_acquire(ctx, key, auth, &tr, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    rc = certify(ctx, tr, extra_data, &out, err);
    tpm_key_release(ctx, tr);
    if (rc == ATT_OK) {
        rc = check(&out, key, extra_data, err);
    }
    if (rc == ATT_OK) {
        *ret_certify = out;
        out = (struct tpm_certify){0};
    }
    return rc;
}
