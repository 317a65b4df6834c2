#include "tpm/internal.h"

static enum att_rc refuse(struct att_err *err, const char *what)
{
    att_err_clear(err);
    (void)!att_fail(err, ATT_E_DENIED, "the TPM's owner hierarchy has a password, and %s", what);
    att_err_reason(err, "ownerPassword");
    return ATT_E_DENIED;
}

/* TPM2_PolicySecret asks for the entity's authValue whatever comes of the session (Part 3 §23.4);
 * the hierarchy is no subject of dictionary-attack protection (Part 1 §19.8). */
static enum att_rc try_it(struct tpm_context *ctx, struct att_err *err)
{
    tpm_autoobj tmp = TPM_OBJ_INIT(ctx), policy = TPM_OBJ_INIT(ctx);
    ESYS_TR session;
    TSS2_RC trc;
    enum att_rc rc = tpm_session_policy(ctx, &policy, err);
    rc = rc ? rc : tpm_hierarchy_session(ctx, ESYS_TR_RH_OWNER, &tmp, &session, err);
    if (rc != ATT_OK) {
        return rc;
    }
    TPM_CALL(ctx, trc,
             Esys_PolicySecret(ctx->esys, ESYS_TR_RH_OWNER, policy.tr, session, ESYS_TR_NONE,
                               ESYS_TR_NONE, NULL, NULL, NULL, 0, NULL, NULL));
    return trc == TSS2_RC_SUCCESS ? ATT_OK : tpm_fail(err, trc, "trying the owner's password");
}

enum att_rc tpm_context_owner(struct tpm_context *ctx, struct att_slice auth, struct att_err *err)
{
    struct tpm_info info;
    enum att_rc rc = tpm_context_info(ctx, &info, err);
    if (rc != ATT_OK) {
        return rc;
    }
    att_secret_done(&ctx->owner_auth);
    if (!info.owner_auth_set) {
        return ATT_OK;
    }
    if (auth.len == 0) {
        return refuse(err, "none is given");
    }
    rc = att_secret_copy(&ctx->owner_auth, auth, err);
    rc = rc ? rc : try_it(ctx, err);
    if (rc != ATT_OK) {
        att_secret_done(&ctx->owner_auth);
    }
    return rc == ATT_E_AUTH ? refuse(err, "the one that is given is another") : rc;
}
