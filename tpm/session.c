#include "tpm/session.h"

#include "attestd/base/clock.h"
#include "attestd/base/hash.h"
#include "tpm/internal.h"

void tpm_session_set_limits(struct tpm_context *ctx, uint32_t max_uses, uint32_t max_idle_ms)
{
    ctx->session.max_uses = max_uses ? max_uses : TPM_SESSION_MAX_USES;
    ctx->session.max_idle_ms = max_idle_ms ? max_idle_ms : TPM_SESSION_MAX_IDLE_MS;
}

void tpm_session_drop(struct tpm_context *ctx)
{
    struct tpm_obj obj = {.ctx = ctx, .tr = ctx->session.tr};
    ctx->session.tr = ESYS_TR_NONE;
    ctx->session.uses = 0;
    tpm_obj_done(&obj);
}

static bool too_idle(const struct tpm_context *ctx)
{
    return att_boottime_ms() - ctx->session.last_used_ms >= (int64_t)ctx->session.max_idle_ms;
}

void tpm_session_idle(struct tpm_context *ctx)
{
    if (ctx->session.tr != ESYS_TR_NONE && too_idle(ctx)) {
        tpm_session_drop(ctx);
    }
}

uint64_t tpm_session_started(const struct tpm_context *ctx)
{
    return ctx->session.started;
}

static enum att_rc start(struct tpm_context *ctx, ESYS_TR salt_key, TPM2_SE type, uint16_t hash,
                         struct tpm_obj *ret_session, struct att_err *err)
{
    static const TPMT_SYM_DEF aes = {
        .algorithm = TPM2_ALG_AES, .keyBits.aes = 128, .mode.aes = TPM2_ALG_CFB};
    static const TPMT_SYM_DEF none = {.algorithm = TPM2_ALG_NULL};
    ESYS_TR tr = ESYS_TR_NONE;
    TSS2_RC rc;
    TPM_CALL(ctx, rc,
             Esys_StartAuthSession(ctx->esys, salt_key, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE,
                                   ESYS_TR_NONE, NULL, type, type == TPM2_SE_HMAC ? &aes : &none,
                                   hash, &tr));
    if (rc != TSS2_RC_SUCCESS) {
        return tpm_fail(err, rc, "starting a TPM session");
    }
    ctx->session.started++;
    *ret_session = (struct tpm_obj){.ctx = ctx, .tr = tr};
    return ATT_OK;
}

enum att_rc tpm_session_get(struct tpm_context *ctx, TPMA_SESSION attributes, ESYS_TR *ret_tr,
                            struct att_err *err)
{
    if (ctx->session.tr != ESYS_TR_NONE && !ctx->session.pinned &&
        (ctx->session.uses >= ctx->session.max_uses || too_idle(ctx))) {
        tpm_session_drop(ctx);
    }
    if (ctx->session.tr == ESYS_TR_NONE) {
        ESYS_TR srk;
        tpm_autoobj session = TPM_OBJ_INIT(ctx);
        enum att_rc rc = tpm_srk_get(ctx, &srk, err);
        if (rc == ATT_OK) {
            rc = start(ctx, srk, TPM2_SE_HMAC, TPM2_ALG_SHA256, &session, err);
        }
        if (rc != ATT_OK) {
            return rc;
        }
        ctx->session.tr = session.tr;
        ctx->session.uses = 0;
        session.tr = ESYS_TR_NONE;
    }
    TSS2_RC trc = Esys_TRSess_SetAttributes(ctx->esys, ctx->session.tr,
                                            attributes | TPMA_SESSION_CONTINUESESSION, 0xff);
    if (trc != TSS2_RC_SUCCESS) {
        return tpm_fail(err, trc, "setting the session's attributes");
    }
    ctx->session.pinned = true;
    ctx->session.uses++;
    ctx->session.last_used_ms = att_boottime_ms();
    *ret_tr = ctx->session.tr;
    return ATT_OK;
}

enum att_rc tpm_set_auth(struct tpm_context *ctx, ESYS_TR tr, struct att_slice auth,
                         struct att_err *err)
{
    TPM2B_AUTH value = {0};
    if (auth.len > sizeof(value.buffer)) {
        return att_fail(err, ATT_E_INVAL, "authValue of %zu bytes: at most %zu", auth.len,
                        sizeof(value.buffer));
    }
    value.size = (uint16_t)auth.len;
    if (auth.len != 0) {
        memcpy(value.buffer, auth.ptr, auth.len);
    }
    TSS2_RC rc = ctx->alive ? Esys_TR_SetAuth(ctx->esys, tr, &value) : TSS2_TCTI_RC_NO_CONNECTION;
    att_wipe(&value, sizeof(value));
    if (rc != TSS2_RC_SUCCESS) {
        return tpm_fail(err, rc, "setting an object's authValue");
    }
    return ATT_OK;
}

enum att_rc tpm_hierarchy_session(struct tpm_context *ctx, ESYS_TR hierarchy,
                                  struct tpm_obj *ret_tmp, ESYS_TR *ret_session,
                                  struct att_err *err)
{
    const struct att_secret *auth =
        hierarchy == ESYS_TR_RH_OWNER ? &ctx->owner_auth : &ctx->endorsement_auth;
    enum att_rc rc = tpm_set_auth(ctx, hierarchy, att_secret_slice(auth), err);
    if (rc != ATT_OK) {
        return rc;
    }
    if (auth->len == 0) {
        *ret_session = ESYS_TR_PASSWORD;
        return ATT_OK;
    }
    if (ctx->session.tr != ESYS_TR_NONE || ctx->srk.tr != ESYS_TR_NONE) {
        return tpm_session_get(ctx, 0, ret_session, err);
    }
    /* Without an SRK there is nothing to salt with; the HMAC still keeps the authValue itself off
     * the bus. */
    rc = start(ctx, ESYS_TR_NONE, TPM2_SE_HMAC, TPM2_ALG_SHA256, ret_tmp, err);
    if (rc == ATT_OK) {
        *ret_session = ret_tmp->tr;
    }
    return rc;
}

enum att_rc tpm_session_policy(struct tpm_context *ctx, struct tpm_obj *ret_session,
                               struct att_err *err)
{
    return start(ctx, ESYS_TR_NONE, TPM2_SE_POLICY, TPM2_ALG_SHA256, ret_session, err);
}

/* ---- EK policies -------------------------------------------------------------------------- */

/* PolicyA: H(H(0… ‖ TPM_CC_PolicySecret ‖ TPM_RH_ENDORSEMENT) ‖ "") (TCG EK Credential Profile
 * 2.5, B.6.2; Part 3 §23.4) */
static enum att_rc policy_a(uint16_t hash, uint8_t ret[ATT_HASH_MAX], size_t *ret_len,
                            struct att_err *err)
{
    static const uint8_t zeros[ATT_HASH_MAX];
    static const uint8_t command[] = {0, 0, 1, 0x51, 0x40, 0, 0, 0x0b};
    size_t len = parse_alg_digest_len(hash);
    const char *name = parse_alg_openssl_name(hash);
    struct att_slice first[] = {ATT_SLICE(zeros, len), ATT_SLICE_ARRAY(command)};
    enum att_rc rc = att_hash_v(name, ret, ret_len, first, 2, err);
    if (rc != ATT_OK) {
        return rc;
    }
    uint8_t inner[ATT_HASH_MAX];
    memcpy(inner, ret, *ret_len);
    struct att_slice second[] = {ATT_SLICE(inner, *ret_len)};
    return att_hash_v(name, ret, ret_len, second, 1, err);
}

/* PolicyC, the PolicyAuthorizeNV branch that PolicyB ORs with A (same document, B.6.4): constants
 * of the profile, since the index's Name is fixed. */
static struct att_slice policy_c(uint16_t hash)
{
    static const uint8_t sha256[] = {0x37, 0x67, 0xe2, 0xed, 0xd4, 0x3f, 0xf4, 0x5a,
                                     0x3a, 0x7e, 0x1e, 0xae, 0xfc, 0xef, 0x78, 0x64,
                                     0x3d, 0xca, 0x96, 0x46, 0x32, 0xe7, 0xaa, 0xd8,
                                     0x2c, 0x67, 0x3a, 0x30, 0xd8, 0x63, 0x3f, 0xde};
    static const uint8_t sha384[] = {0xd6, 0x03, 0x2c, 0xe6, 0x1f, 0x2f, 0xb3, 0xc2, 0x40, 0xeb,
                                     0x3c, 0xf6, 0xa3, 0x32, 0x37, 0xef, 0x2b, 0x6a, 0x16, 0xf4,
                                     0x29, 0x3c, 0x22, 0xb4, 0x55, 0xe2, 0x61, 0xcf, 0xfd, 0x21,
                                     0x7a, 0xd5, 0xb4, 0x94, 0x7c, 0x2d, 0x73, 0xe6, 0x30, 0x05,
                                     0xee, 0xd2, 0xdc, 0x2b, 0x35, 0x93, 0xd1, 0x65};
    switch (hash) {
    case TPM2_ALG_SHA256:
        return ATT_SLICE_ARRAY(sha256);
    case TPM2_ALG_SHA384:
        return ATT_SLICE_ARRAY(sha384);
    default:
        return (struct att_slice){0};
    }
}

/* PolicySecret(endorsement) on the session: policy A. */
static enum att_rc satisfy_a(struct tpm_context *ctx, ESYS_TR session, struct att_err *err)
{
    ESYS_TR auth_session;
    tpm_autoobj tmp = TPM_OBJ_INIT(ctx);
    TSS2_RC rc;
    enum att_rc result =
        tpm_hierarchy_session(ctx, ESYS_TR_RH_ENDORSEMENT, &tmp, &auth_session, err);
    if (result != ATT_OK) {
        return result;
    }
    TPM_CALL(ctx, rc,
             Esys_PolicySecret(ctx->esys, ESYS_TR_RH_ENDORSEMENT, session, auth_session,
                               ESYS_TR_NONE, ESYS_TR_NONE, NULL, NULL, NULL, 0, NULL, NULL));
    if (rc != TSS2_RC_SUCCESS) {
        return tpm_fail(err, rc, "PolicySecret(endorsement) for the EK");
    }
    return ATT_OK;
}

static enum att_rc satisfy_or(struct tpm_context *ctx, ESYS_TR session, struct att_slice a,
                              struct att_slice c, struct att_err *err)
{
    TPML_DIGEST list = {.count = 2};
    TSS2_RC rc;
    list.digests[0].size = (uint16_t)a.len;
    memcpy(list.digests[0].buffer, a.ptr, a.len);
    list.digests[1].size = (uint16_t)c.len;
    memcpy(list.digests[1].buffer, c.ptr, c.len);
    TPM_CALL(ctx, rc,
             Esys_PolicyOR(ctx->esys, session, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &list));
    if (rc != TSS2_RC_SUCCESS) {
        return tpm_fail(err, rc, "PolicyOR for the EK");
    }
    return ATT_OK;
}

enum att_rc tpm_session_ek_policy(struct tpm_context *ctx, const struct parse_public *ek,
                                  struct tpm_obj *ret_session, struct att_err *err)
{
    uint8_t a[ATT_HASH_MAX], b[ATT_HASH_MAX];
    size_t len = 0;
    enum att_rc rc = policy_a(ek->name_alg, a, &len, err);
    if (rc != ATT_OK) {
        return rc;
    }
    struct att_slice want = ATT_SLICE(ek->policy, ek->policy_len);
    struct att_slice c = policy_c(ek->name_alg);
    bool is_a = att_slice_eq(want, ATT_SLICE(a, len));
    if (!is_a) {
        /* PolicyOR: H(0… ‖ TPM_CC_PolicyOR ‖ A ‖ C) (Part 3 §23.6) */
        static const uint8_t zeros[ATT_HASH_MAX], command[] = {0, 0, 1, 0x71};
        struct att_slice parts[] = {ATT_SLICE(zeros, len), ATT_SLICE_ARRAY(command),
                                    ATT_SLICE(a, len), c};
        rc = att_hash_v(parse_alg_openssl_name(ek->name_alg), b, &len, parts, 4, err);
        if (rc != ATT_OK) {
            return rc;
        }
        if (c.len == 0 || !att_slice_eq(want, ATT_SLICE(b, len))) {
            return att_fail(err, ATT_E_UNSUPPORTED,
                            "the EK's authPolicy is neither policy A nor B of the EK profile");
        }
    }
    tpm_autoobj session = TPM_OBJ_INIT(ctx);
    rc = start(ctx, ESYS_TR_NONE, TPM2_SE_POLICY, ek->name_alg, &session, err);
    if (rc == ATT_OK) {
        rc = satisfy_a(ctx, session.tr, err);
    }
    if (rc == ATT_OK && !is_a) {
        rc = satisfy_or(ctx, session.tr, ATT_SLICE(a, len), c, err);
    }
    if (rc == ATT_OK) {
        *ret_session = session;
        session.tr = ESYS_TR_NONE;
    }
    return rc;
}
