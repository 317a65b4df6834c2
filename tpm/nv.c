#include "tpm/nv.h"

#include "tpm/internal.h"

#define CHUNK_MAX 1024u

enum att_rc tpm_nv_list(struct tpm_context *ctx, uint32_t first, uint32_t last,
                        uint32_t *ret_indices, size_t max, size_t *ret_count, struct att_err *err)
{
    if ((first >> 24) != 0x01 || (last >> 24) != 0x01 || first > last) {
        return att_fail(err, ATT_E_INVAL, "NV indices 0x%08x…0x%08x: expected 0x01…", first, last);
    }
    enum att_rc rc = tpm_begin(ctx, err);
    return rc == ATT_OK ? tpm_handle_list(ctx, first, last, ret_indices, max, ret_count, err) : rc;
}

/* Who authorises the reading: the index itself, else the owner. The index's authValue is not ours
 * to know: the empty one is tried only where a wrong guess costs nothing. Without NO_DA each guess
 * counts as a dictionary attack, and the TPM locks out (Part 1 §19.8). */
static enum att_rc choose_auth(struct tpm_context *ctx, const TPMS_NV_PUBLIC *pub, ESYS_TR index,
                               struct tpm_obj *tmp, ESYS_TR *ret_auth, ESYS_TR *ret_session,
                               struct att_err *err)
{
    if ((pub->attributes & TPMA_NV_AUTHREAD) && (pub->attributes & TPMA_NV_NO_DA)) {
        *ret_auth = index;
        *ret_session = ESYS_TR_PASSWORD;
        return ATT_OK;
    }
    if (pub->attributes & TPMA_NV_OWNERREAD) {
        *ret_auth = ESYS_TR_RH_OWNER;
        return tpm_hierarchy_session(ctx, ESYS_TR_RH_OWNER, tmp, ret_session, err);
    }
    return att_fail(err, ATT_E_DENIED,
                    "NV index 0x%08x: expected OWNERREAD, or AUTHREAD with NO_DA (without NO_DA a "
                    "guess of its authValue would count towards the TPM's lockout)",
                    pub->nvIndex);
}

static enum att_rc read_all(struct tpm_context *ctx, ESYS_TR nv, const TPMS_NV_PUBLIC *pub,
                            struct att_buf *ret_bytes, struct att_err *err)
{
    tpm_autoobj tmp = TPM_OBJ_INIT(ctx);
    ESYS_TR auth, session;
    uint16_t chunk =
        (uint16_t)(ctx->nv_chunk && ctx->nv_chunk < CHUNK_MAX ? ctx->nv_chunk : CHUNK_MAX / 2);
    enum att_rc rc = choose_auth(ctx, pub, nv, &tmp, &auth, &session, err);
    for (uint16_t at = 0; rc == ATT_OK && at < pub->dataSize;) {
        tpm_autofree TPM2B_MAX_NV_BUFFER *data = NULL;
        uint16_t left = (uint16_t)(pub->dataSize - at);
        uint16_t want = left < chunk ? left : chunk;
        TSS2_RC trc;
        TPM_CALL(ctx, trc,
                 Esys_NV_Read(ctx->esys, auth, nv, session, ESYS_TR_NONE, ESYS_TR_NONE, want, at,
                              &data));
        if (trc != TSS2_RC_SUCCESS) {
            return tpm_fail(err, trc, "reading an NV index");
        }
        if (data->size != want) {
            return att_fail(err, ATT_E_PROTOCOL, "NV index 0x%08x: %u bytes for %u", pub->nvIndex,
                            data->size, want);
        }
        att_buf_put(ret_bytes, data->buffer, data->size);
        rc = att_buf_ok(ret_bytes, err);
        at = (uint16_t)(at + want);
    }
    return rc;
}

enum att_rc tpm_nv_read(struct tpm_context *ctx, uint32_t index, size_t max,
                        struct att_buf *ret_bytes, struct att_err *err)
{
    tpm_autoobj nv = TPM_OBJ_INIT(ctx);
    tpm_autofree TPM2B_NV_PUBLIC *pub = NULL;
    bool there = false;
    TSS2_RC trc;
    if ((index >> 24) != 0x01) {
        return att_fail(err, ATT_E_INVAL, "NV index 0x%08x: expected 0x01…", index);
    }
    enum att_rc rc = tpm_begin(ctx, err);
    if (rc == ATT_OK) {
        rc = tpm_handle_exists(ctx, index, &there, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    if (!there) {
        return att_fail(err, ATT_E_NOTFOUND, "NV index 0x%08x is not defined", index);
    }
    TPM_CALL(
        ctx, trc,
        Esys_TR_FromTPMPublic(ctx->esys, index, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &nv.tr));
    if (trc == TSS2_RC_SUCCESS) {
        nv.persistent = true;
        TPM_CALL(ctx, trc,
                 Esys_NV_ReadPublic(ctx->esys, nv.tr, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE,
                                    &pub, NULL));
    } else {
        nv.tr = ESYS_TR_NONE;
    }
    if (trc != TSS2_RC_SUCCESS) {
        return tpm_fail(err, trc, "reading an NV index's public area");
    }
    if (pub->nvPublic.dataSize > max) {
        return att_fail(err, ATT_E_LIMIT, "NV index 0x%08x has %u bytes: at most %zu", index,
                        pub->nvPublic.dataSize, max);
    }
    if (!(pub->nvPublic.attributes & TPMA_NV_WRITTEN)) {
        return att_fail(err, ATT_E_CONFLICT, "NV index 0x%08x was never written", index);
    }
    return read_all(ctx, nv.tr, &pub->nvPublic, ret_bytes, err);
}
