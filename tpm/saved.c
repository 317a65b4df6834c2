/* Saved contexts of objects that were loaded through the storage parent's policy: they come back
 * without it, for as long as the TPM is not reset (TPM 2.0 Part 1, clause 30; Part 3, §28.2). Each
 * is encrypted by the TPM and holds no more than the object's blob did. */
#include "tpm/internal.h"

#include <stdlib.h>

static struct tpm_saved *find(struct tpm_context *ctx, const struct parse_name *name)
{
    for (size_t i = 0; i < TPM_SAVED_MAX; i++) {
        struct tpm_saved *saved = &ctx->saved[i];
        if (saved->bytes.len &&
            att_slice_eq(parse_name_slice(&saved->name), parse_name_slice(name))) {
            return saved;
        }
    }
    return NULL;
}

static struct tpm_saved *oldest(struct tpm_context *ctx)
{
    struct tpm_saved *old = &ctx->saved[0];
    for (size_t i = 0; i < TPM_SAVED_MAX; i++) {
        if (!ctx->saved[i].bytes.len) {
            return &ctx->saved[i];
        }
        if (ctx->saved[i].last_used < old->last_used) {
            old = &ctx->saved[i];
        }
    }
    return old;
}

static void forget(struct tpm_saved *saved)
{
    att_buf_done(&saved->bytes);
    *saved = (struct tpm_saved){0};
}

void tpm_saved_drop(struct tpm_context *ctx, const struct parse_name *name)
{
    struct tpm_saved *saved = find(ctx, name);
    if (saved) {
        forget(saved);
    }
}

void tpm_saved_drop_all(struct tpm_context *ctx)
{
    for (size_t i = 0; i < TPM_SAVED_MAX; i++) {
        forget(&ctx->saved[i]);
    }
}

void tpm_saved_put(struct tpm_context *ctx, const struct parse_name *name, ESYS_TR tr)
{
    tpm_autofree TPMS_CONTEXT *context = NULL;
    uint8_t bytes[sizeof(TPMS_CONTEXT)];
    size_t len = 0;
    TSS2_RC rc;
    TPM_CALL(ctx, rc, Esys_ContextSave(ctx->esys, tr, &context));
    if (rc != TSS2_RC_SUCCESS ||
        Tss2_MU_TPMS_CONTEXT_Marshal(context, bytes, sizeof(bytes), &len) != TSS2_RC_SUCCESS) {
        return; /* then the next load goes through the policy again */
    }
    struct tpm_saved *saved = find(ctx, name);
    saved = saved ? saved : oldest(ctx);
    forget(saved);
    att_buf_put(&saved->bytes, bytes, len);
    if (att_buf_ok(&saved->bytes, NULL) != ATT_OK) {
        forget(saved);
        return;
    }
    saved->name = *name;
    saved->last_used = ++ctx->cache.tick;
}

bool tpm_saved_get(struct tpm_context *ctx, const struct parse_name *name, struct tpm_obj *ret_obj)
{
    struct tpm_saved *saved = find(ctx, name);
    TPMS_CONTEXT context;
    size_t used = 0;
    TSS2_RC rc;
    if (!saved) {
        return false;
    }
    if (Tss2_MU_TPMS_CONTEXT_Unmarshal(saved->bytes.ptr, saved->bytes.len, &used, &context) !=
        TSS2_RC_SUCCESS) {
        forget(saved);
        return false;
    }
    tpm_autoobj obj = TPM_OBJ_INIT(ctx);
    TPM_CALL(ctx, rc, Esys_ContextLoad(ctx->esys, &context, &obj.tr));
    if (rc != TSS2_RC_SUCCESS) { /* the TPM was reset since */
        obj.tr = ESYS_TR_NONE;
        forget(saved);
        return false;
    }
    saved->last_used = ++ctx->cache.tick;
    *ret_obj = obj;
    obj.tr = ESYS_TR_NONE;
    return true;
}
