#include "tpm/seal.h"

#include "tpm/internal.h"

static enum att_rc check_auth(struct att_slice auth, struct att_err *err)
{
    if (auth.len > 32 || (auth.len != 0 && auth.ptr[auth.len - 1] == 0)) {
        return att_fail(err, ATT_E_INVAL,
                        "a sealed object's authValue of %zu bytes: expected none, or at most 32 of "
                        "which the last is not zero",
                        auth.len);
    }
    return ATT_OK;
}

enum att_rc tpm_seal_create(struct tpm_context *ctx, struct att_slice data, struct att_slice auth,
                            struct tpm_blob *ret_blob, struct att_err *err)
{
    if (data.len == 0 || data.len > TPM_SEAL_MAX) {
        return att_fail(err, ATT_E_INVAL, "sealing %zu bytes: expected 1…%u", data.len,
                        TPM_SEAL_MAX);
    }
    enum att_rc rc = check_auth(auth, err);
    return rc == ATT_OK ? tpm_blob_create(ctx, TPM_TEMPLATE_SEALED, auth, data, ret_blob, err) : rc;
}

enum att_rc tpm_seal_open(struct tpm_context *ctx, const struct tpm_blob *blob,
                          struct att_slice auth, struct att_secret *ret_data, struct att_err *err)
{
    tpm_autoobj obj = TPM_OBJ_INIT(ctx);
    ESYS_TR session;
    TPM2B_SENSITIVE_DATA *data = NULL;
    TSS2_RC trc;
    if (blob->type != TPM_BLOB_SEALED) {
        return att_fail(err, ATT_E_INVAL, "a key is no sealed data object");
    }
    enum att_rc rc = check_auth(auth, err);
    if (rc == ATT_OK) {
        rc = tpm_begin(ctx, err);
    }
    if (rc == ATT_OK) {
        rc = tpm_blob_load(ctx, blob, &obj, err);
    }
    if (rc == ATT_OK) {
        rc = tpm_set_auth(ctx, obj.tr, auth, err);
    }
    if (rc == ATT_OK) {
        rc = tpm_session_get(ctx, TPMA_SESSION_ENCRYPT, &session, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    TPM_CALL(ctx, trc, Esys_Unseal(ctx->esys, obj.tr, session, ESYS_TR_NONE, ESYS_TR_NONE, &data));
    tpm_key_release(ctx, obj.tr);
    if (trc != TSS2_RC_SUCCESS) {
        return tpm_fail(err, trc, "unsealing");
    }
    if (data->size == 0 || data->size > TPM_SEAL_MAX) {
        rc = att_fail(err, ATT_E_PROTOCOL, "the TPM unsealed %u bytes", data->size);
    } else {
        rc = att_secret_copy(ret_data, ATT_SLICE(data->buffer, data->size), err);
    }
    att_wipe(data, sizeof(*data));
    Esys_Free(data);
    return rc;
}
