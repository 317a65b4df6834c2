/* Saved contexts of keys that had to make room (TPM2_ContextSave, Part 3 §28.2): to bring one back
 * takes a fraction of a Load, which decrypts and checks the blob under the SRK. A context is
 * encrypted by the TPM under a key that no reset outlasts (Part 1 §30); it is kept in this process
 * only, and no longer than the connection, but for those that were loaded through the storage
 * parent's policy: they come back without it, for as long as the TPM is neither reset nor restarted
 * nor resumed (context.c, note_counts: the TPM itself would take them back after a night). Where
 * the TPM does not take one back, the blob is there. */
#include "tpm/internal.h"

#define NO_RETRY 1000u /* tries that are behind us */

static struct tpm_saved *find(struct tpm_context *ctx, const struct parse_name *name)
{
    for (size_t i = 0; i < TPM_SAVED_MAX; i++) {
        struct tpm_saved *saved = &ctx->saved[i];
        if (saved->bytes.len != 0 &&
            att_slice_eq(parse_name_slice(&saved->name), parse_name_slice(name))) {
            return saved;
        }
    }
    return NULL;
}

static void drop(struct tpm_saved *saved)
{
    att_buf_done(&saved->bytes);
    *saved = (struct tpm_saved){0};
}

/* A free place, or that of the one that was used longest ago. */
static struct tpm_saved *place(struct tpm_context *ctx)
{
    struct tpm_saved *oldest = &ctx->saved[0];
    for (size_t i = 0; i < TPM_SAVED_MAX && oldest->bytes.len != 0; i++) {
        struct tpm_saved *saved = &ctx->saved[i];
        if (saved->bytes.len == 0 || saved->last_used < oldest->last_used) {
            oldest = saved;
        }
    }
    drop(oldest);
    return oldest;
}

void tpm_saved_keep(struct tpm_context *ctx, ESYS_TR tr, const struct parse_name *name, bool gated)
{
    tpm_autofree TPMS_CONTEXT *context = NULL;
    uint8_t bytes[sizeof(TPMS_CONTEXT)];
    size_t len = 0;
    unsigned tries = NO_RETRY;
    if (find(ctx, name) || !ctx->alive) { /* nobody changes the object: it loads ever again */
        return;
    }
    /* Not TPM_CALL: that makes room where there is none, by dropping a key, which brings us here.
     */
    tpm_ossl_enter();
    TSS2_RC rc = tpm_ossl_leave(Esys_ContextSave(ctx->esys, tr, &context));
    (void)tpm_again(ctx, rc, &tries);
    if (rc != TSS2_RC_SUCCESS ||
        Tss2_MU_TPMS_CONTEXT_Marshal(context, bytes, sizeof(bytes), &len) != TSS2_RC_SUCCESS) {
        return;
    }
    struct tpm_saved *saved = place(ctx);
    saved->bytes = ATT_BUF_INIT(len);
    att_buf_put(&saved->bytes, bytes, len);
    if (att_buf_ok(&saved->bytes, NULL) != ATT_OK) {
        drop(saved);
        return;
    }
    saved->name = *name;
    saved->gated = gated;
    saved->last_used = ++ctx->cache.tick;
}

bool tpm_saved_load(struct tpm_context *ctx, const struct parse_name *name, struct tpm_obj *ret_obj)
{
    struct tpm_saved *saved = find(ctx, name);
    TPMS_CONTEXT context;
    size_t at = 0;
    ESYS_TR tr = ESYS_TR_NONE;
    TSS2_RC rc;
    if (!saved || Tss2_MU_TPMS_CONTEXT_Unmarshal(saved->bytes.ptr, saved->bytes.len, &at,
                                                 &context) != TSS2_RC_SUCCESS) {
        return false;
    }
    TPM_CALL(ctx, rc, Esys_ContextLoad(ctx->esys, &context, &tr));
    if (rc != TSS2_RC_SUCCESS) {
        drop(saved);
        return false;
    }
    saved->last_used = ++ctx->cache.tick;
    ctx->cache.restores++;
    *ret_obj = (struct tpm_obj){.ctx = ctx, .tr = tr};
    return true;
}

void tpm_saved_forget(struct tpm_context *ctx, const struct parse_name *name)
{
    struct tpm_saved *saved = find(ctx, name);
    if (saved) {
        drop(saved);
    }
}

void tpm_saved_forget_ungated(struct tpm_context *ctx)
{
    for (size_t i = 0; i < TPM_SAVED_MAX; i++) {
        if (!ctx->saved[i].gated) {
            drop(&ctx->saved[i]);
        }
    }
}

void tpm_saved_forget_all(struct tpm_context *ctx)
{
    for (size_t i = 0; i < TPM_SAVED_MAX; i++) {
        drop(&ctx->saved[i]);
    }
}
