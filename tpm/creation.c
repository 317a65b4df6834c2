/* What the AK says of its own making (TPM2_CertifyCreation), for attestation CAs that ask for it.
 */
#include "tpm/ak.h"
#include "tpm/internal.h"

void tpm_ak_creation_done(struct tpm_ak_creation *creation)
{
    att_buf_done(&creation->data);
    att_buf_done(&creation->attest);
    att_buf_done(&creation->sig);
}

/* What CreatePrimary tells of the new key. */
struct made {
    TPM2B_PUBLIC *pub;
    TPM2B_CREATION_DATA *data;
    TPM2B_DIGEST *hash;
    TPMT_TK_CREATION *ticket;
};

static enum att_rc make(struct tpm_context *ctx, struct tpm_obj *obj, struct made *made,
                        struct att_err *err)
{
    static const TPM2B_SENSITIVE_CREATE no_auth = {0};
    static const TPM2B_DATA no_data = {0};
    static const TPML_PCR_SELECTION no_pcrs = {0};
    TPM2B_PUBLIC template;
    att_autobuf area = {0};
    tpm_autoobj tmp = TPM_OBJ_INIT(ctx);
    ESYS_TR session;
    TSS2_RC trc;
    enum att_rc rc = tpm_template_encode(ctx->ak_template, &area, err);
    if (rc == ATT_OK) {
        rc = tpm_to_public(att_buf_slice(&area), &template, err);
    }
    if (rc == ATT_OK) {
        rc = tpm_hierarchy_session(ctx, ESYS_TR_RH_ENDORSEMENT, &tmp, &session, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    TPM_CALL(ctx, trc,
             Esys_CreatePrimary(ctx->esys, ESYS_TR_RH_ENDORSEMENT, session, ESYS_TR_NONE,
                                ESYS_TR_NONE, &no_auth, &template, &no_data, &no_pcrs, &obj->tr,
                                &made->pub, &made->data, &made->hash, &made->ticket));
    if (trc != TSS2_RC_SUCCESS) {
        obj->tr = ESYS_TR_NONE;
        return tpm_fail(err, trc, "creating the AK once more");
    }
    return ATT_OK;
}

/* An AK that stands at a handle of its own may be of another template: nobody can say then how it
 * was made. */
static enum att_rc check_same(const struct tpm_context *ctx, const TPM2B_PUBLIC *pub,
                              struct att_err *err)
{
    att_autobuf area = {0};
    struct parse_name name;
    enum att_rc rc = tpm_from_public(pub, &area, err);
    if (rc == ATT_OK) {
        rc = parse_name_of_area(att_buf_slice(&area), &name, err);
    }
    if (rc == ATT_OK && !att_slice_eq(parse_name_slice(&name), parse_name_slice(&ctx->ak.name))) {
        rc = att_fail(err, ATT_E_UNSUPPORTED,
                      "the AK in use was not made from attestd's template: nothing is known of "
                      "its creation");
    }
    return rc;
}

static enum att_rc certify(struct tpm_context *ctx, ESYS_TR ak, const struct made *made,
                           struct tpm_ak_creation *ret, struct att_err *err)
{
    static const TPMT_SIG_SCHEME by_key = {.scheme = TPM2_ALG_NULL};
    static const TPM2B_DATA no_data = {0};
    uint8_t bytes[sizeof(TPMS_CREATION_DATA)];
    size_t len = 0;
    tpm_autofree TPM2B_ATTEST *attest = NULL;
    tpm_autofree TPMT_SIGNATURE *sig = NULL;
    TSS2_RC trc;
    TPM_CALL(ctx, trc,
             Esys_CertifyCreation(ctx->esys, ak, ak, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE,
                                  &no_data, made->hash, &by_key, made->ticket, &attest, &sig));
    if (trc == TSS2_RC_SUCCESS) {
        trc = Tss2_MU_TPMS_CREATION_DATA_Marshal(&made->data->creationData, bytes, sizeof bytes,
                                                 &len);
    }
    if (trc != TSS2_RC_SUCCESS) {
        return tpm_fail(err, trc, "certifying the AK's creation");
    }
    att_buf_put(&ret->data, bytes, len);
    enum att_rc rc = att_buf_ok(&ret->data, err);
    if (rc == ATT_OK) {
        rc = tpm_put_2b(&ret->attest, attest->size, attest->attestationData,
                        sizeof(attest->attestationData), "an attestation", err);
    }
    return rc == ATT_OK ? tpm_from_signature(sig, &ret->sig, err) : rc;
}

enum att_rc tpm_ak_creation(struct tpm_context *ctx, struct tpm_ak_creation *ret_creation,
                            struct att_err *err)
{
    tpm_autoobj obj = TPM_OBJ_INIT(ctx);
    struct made made = {0};
    tpm_autocreation creation = {0};
    ESYS_TR tr;
    enum att_rc rc = tpm_begin(ctx, err);
    if (rc == ATT_OK) {
        rc = tpm_ak_acquire(ctx, &tr, err);
    }
    if (rc == ATT_OK) {
        rc = make(ctx, &obj, &made, err);
    }
    if (rc == ATT_OK) {
        rc = check_same(ctx, made.pub, err);
    }
    if (rc == ATT_OK) {
        rc = certify(ctx, obj.tr, &made, &creation, err);
    }
    Esys_Free(made.pub);
    Esys_Free(made.data);
    Esys_Free(made.hash);
    Esys_Free(made.ticket);
    if (rc == ATT_OK) {
        *ret_creation = creation;
        creation = (struct tpm_ak_creation){0};
    }
    return rc;
}
