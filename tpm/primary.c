/* The primaries: SRK and AK, found at their persistent handle or made again from their template. */
#include "tpm/ak.h"
#include "tpm/internal.h"

void tpm_primary_done(struct tpm_context *ctx, struct tpm_primary *primary)
{
    struct tpm_obj obj = {.ctx = ctx, .tr = primary->tr, .persistent = primary->persistent};
    tpm_obj_done(&obj);
    primary->tr = ESYS_TR_NONE;
    primary->pinned = false;
    primary->persistent = false;
}

/* The object becomes the context's primary; the area is kept over reconnections only to be
 * replaced here. */
static enum att_rc adopt(struct tpm_primary *primary, struct tpm_obj *obj, struct att_buf *area,
                         struct att_err *err)
{
    struct parse_name name;
    enum att_rc rc = parse_name_of_area(att_buf_slice(area), &name, err);
    if (rc != ATT_OK) {
        return rc;
    }
    att_buf_done(&primary->area);
    primary->area = *area;
    *area = (struct att_buf){0};
    primary->name = name;
    primary->tr = obj->tr;
    primary->persistent = obj->persistent;
    obj->tr = ESYS_TR_NONE;
    return ATT_OK;
}

enum att_rc tpm_open_persistent(struct tpm_context *ctx, uint32_t handle, struct tpm_obj *ret_obj,
                                struct att_buf *ret_area, struct parse_name *ret_qualified,
                                struct att_err *err)
{
    tpm_autoobj obj = TPM_OBJ_INIT(ctx);
    tpm_autofree TPM2B_PUBLIC *pub = NULL;
    tpm_autofree TPM2B_NAME *name = NULL;
    tpm_autofree TPM2B_NAME *qualified = NULL;
    struct parse_name computed;
    TSS2_RC rc;
    TPM_CALL(ctx, rc,
             Esys_TR_FromTPMPublic(ctx->esys, handle, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE,
                                   &obj.tr));
    if (rc == TSS2_RC_SUCCESS) {
        obj.persistent = true;
        TPM_CALL(ctx, rc,
                 Esys_ReadPublic(ctx->esys, obj.tr, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &pub,
                                 &name, &qualified));
    } else {
        obj.tr = ESYS_TR_NONE;
    }
    if (rc != TSS2_RC_SUCCESS) {
        return tpm_fail(err, rc, "reading a persistent object's public area");
    }
    enum att_rc result = tpm_from_public(pub, ret_area, err);
    if (result == ATT_OK) {
        result = parse_name_of_area(att_buf_slice(ret_area), &computed, err);
    }
    if (result == ATT_OK &&
        !att_slice_eq(parse_name_slice(&computed), ATT_SLICE(name->name, name->size))) {
        result =
            att_fail(err, ATT_E_PROTOCOL, "the Name of 0x%08x is not its public area's", handle);
    }
    if (result == ATT_OK && ret_qualified) {
        result = parse_name_parse(ATT_SLICE(qualified->name, qualified->size), ret_qualified, err);
    }
    if (result == ATT_OK) {
        *ret_obj = obj;
        obj.tr = ESYS_TR_NONE;
    }
    return result;
}

enum att_rc tpm_create_primary(struct tpm_context *ctx, ESYS_TR hierarchy, struct att_slice area,
                               struct tpm_obj *ret_obj, struct att_buf *ret_area,
                               struct att_err *err)
{
    static const TPM2B_SENSITIVE_CREATE no_auth = {0};
    static const TPM2B_DATA no_data = {0};
    static const TPML_PCR_SELECTION no_pcrs = {0};
    TPM2B_PUBLIC template;
    tpm_autoobj tmp = TPM_OBJ_INIT(ctx);
    tpm_autoobj obj = TPM_OBJ_INIT(ctx);
    tpm_autofree TPM2B_PUBLIC *pub = NULL;
    ESYS_TR session;
    TSS2_RC trc;
    enum att_rc rc = tpm_to_public(area, &template, err);
    if (rc == ATT_OK) {
        rc = tpm_hierarchy_session(ctx, hierarchy, &tmp, &session, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    TPM_CALL(ctx, trc,
             Esys_CreatePrimary(ctx->esys, hierarchy, session, ESYS_TR_NONE, ESYS_TR_NONE, &no_auth,
                                &template, &no_data, &no_pcrs, &obj.tr, &pub, NULL, NULL, NULL));
    if (trc != TSS2_RC_SUCCESS) {
        obj.tr = ESYS_TR_NONE;
        return tpm_fail(err, trc,
                        hierarchy == ESYS_TR_RH_OWNER ? "creating an owner primary"
                                                      : "creating an endorsement primary");
    }
    rc = tpm_from_public(pub, ret_area, err);
    if (rc == ATT_OK) {
        *ret_obj = obj;
        obj.tr = ESYS_TR_NONE;
    }
    return rc;
}

/* ---- the SRK ------------------------------------------------------------------------------ */

/* Does an object take the empty authValue? PolicySecret on a trial session asks for just that, and
 * an SRK is noDA, so that a no costs nothing (Part 3 §23.4). */
static enum att_rc has_empty_auth(struct tpm_context *ctx, ESYS_TR tr, bool *ret_empty,
                                  struct att_err *err)
{
    static const TPMT_SYM_DEF none = {.algorithm = TPM2_ALG_NULL};
    tpm_autoobj trial = TPM_OBJ_INIT(ctx);
    TSS2_RC rc;
    TPM_CALL(ctx, rc,
             Esys_StartAuthSession(ctx->esys, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE,
                                   ESYS_TR_NONE, ESYS_TR_NONE, NULL, TPM2_SE_TRIAL, &none,
                                   TPM2_ALG_SHA256, &trial.tr));
    if (rc == TSS2_RC_SUCCESS) {
        TPM_CALL(ctx, rc,
                 Esys_PolicySecret(ctx->esys, tr, trial.tr, ESYS_TR_PASSWORD, ESYS_TR_NONE,
                                   ESYS_TR_NONE, NULL, NULL, NULL, 0, NULL, NULL));
    } else {
        trial.tr = ESYS_TR_NONE;
    }
    *ret_empty = rc == TSS2_RC_SUCCESS;
    enum att_rc mapped = tpm_errors_map(rc);
    if (mapped == ATT_OK || mapped == ATT_E_AUTH || mapped == ATT_E_DENIED) {
        return ATT_OK;
    }
    return tpm_fail(err, rc, "probing the persistent SRK's authValue");
}

/* ret_obj stays empty when what is there is not an SRK of the kind we use. */
static enum att_rc find_srk(struct tpm_context *ctx, struct tpm_obj *ret_obj,
                            struct att_buf *ret_area, struct att_err *err)
{
    tpm_autoobj obj = TPM_OBJ_INIT(ctx);
    bool there = false, empty = false;
    enum att_rc rc = tpm_handle_exists(ctx, ctx->srk_handle, &there, err);
    if (rc != ATT_OK || !there) {
        return rc;
    }
    rc = tpm_open_persistent(ctx, ctx->srk_handle, &obj, ret_area, NULL, NULL);
    if (rc == ATT_OK) {
        rc = tpm_template_match(TPM_TEMPLATE_SRK, att_buf_slice(ret_area), NULL);
    }
    if (rc == ATT_OK) {
        rc = has_empty_auth(ctx, obj.tr, &empty, err);
        if (rc != ATT_OK) {
            return rc;
        }
    }
    if (!ctx->alive) {
        return att_fail(err, ATT_E_GONE, "the TPM went away while its SRK was looked at");
    }
    if (!empty) {
        att_buf_reset(ret_area);
        return ATT_OK;
    }
    *ret_obj = obj;
    obj.tr = ESYS_TR_NONE;
    return ATT_OK;
}

static enum att_rc make_srk(struct tpm_context *ctx, enum tpm_template which,
                            struct tpm_obj *ret_obj, struct att_buf *ret_area, struct att_err *err)
{
    att_autobuf template = {0};
    tpm_autoobj obj = TPM_OBJ_INIT(ctx);
    enum att_rc rc = tpm_template_encode(which, &template, err);
    if (rc == ATT_OK) {
        rc = tpm_create_primary(ctx, ESYS_TR_RH_OWNER, att_buf_slice(&template), &obj, ret_area,
                                err);
    }
    if (rc == ATT_OK) {
        rc = tpm_template_match(TPM_TEMPLATE_SRK, att_buf_slice(ret_area), err);
    }
    if (rc == ATT_OK) {
        *ret_obj = obj;
        obj.tr = ESYS_TR_NONE;
    }
    return rc;
}

static enum att_rc check_pin(const struct tpm_context *ctx, struct att_slice area,
                             struct att_err *err)
{
    struct parse_name name;
    if (ctx->srk_pin.len == 0) {
        return ATT_OK;
    }
    enum att_rc rc = parse_name_of_area(area, &name, err);
    if (rc == ATT_OK && !att_slice_eq(parse_name_slice(&name), parse_name_slice(&ctx->srk_pin))) {
        rc = att_fail(err, ATT_E_DENIED,
                      "the TPM's SRK is not the recorded one: the TPM was cleared or swapped, or "
                      "somebody is on its bus");
        att_err_reason(err, "srkName");
    }
    return rc;
}

enum att_rc tpm_srk_get(struct tpm_context *ctx, ESYS_TR *ret_tr, struct att_err *err)
{
    tpm_autoobj obj = TPM_OBJ_INIT(ctx);
    att_autobuf area = {0};
    enum att_rc rc = ATT_OK;
    if (ctx->srk.tr == ESYS_TR_NONE) {
        rc = find_srk(ctx, &obj, &area, err);
        if (rc == ATT_OK && obj.tr == ESYS_TR_NONE) {
            rc = make_srk(ctx, TPM_TEMPLATE_SRK, &obj, &area, err);
        }
        if (rc == ATT_OK) {
            rc = check_pin(ctx, att_buf_slice(&area), err);
        }
        if (rc == ATT_OK) {
            rc = adopt(&ctx->srk, &obj, &area, err);
        }
        if (rc == ATT_OK) { /* the first one is the one, also where no record named it */
            ctx->srk_pin = ctx->srk.name;
        }
    }
    if (rc == ATT_OK) {
        ctx->srk.pinned = true;
        *ret_tr = ctx->srk.tr;
    }
    return rc;
}

uint32_t tpm_srk_blob_handle(const struct tpm_context *ctx)
{
    return ctx->srk.persistent ? ctx->srk_handle : TPM2_RH_OWNER;
}

enum att_rc tpm_srk_other(struct tpm_context *ctx, struct att_slice name, struct tpm_obj *ret_obj,
                          struct att_err *err)
{
    static const enum tpm_template variants[] = {TPM_TEMPLATE_SRK, TPM_TEMPLATE_SRK_ZEROS};
    for (size_t i = 0; i < 2; i++) {
        tpm_autoobj obj = TPM_OBJ_INIT(ctx);
        att_autobuf area = {0};
        struct parse_name have;
        if (variants[i] == TPM_TEMPLATE_SRK && !ctx->srk.persistent) {
            continue; /* that is the one in use */
        }
        enum att_rc rc = make_srk(ctx, variants[i], &obj, &area, err);
        if (rc == ATT_OK) {
            rc = parse_name_of_area(att_buf_slice(&area), &have, err);
        }
        if (rc != ATT_OK) {
            return rc;
        }
        if (att_slice_eq(parse_name_slice(&have), name)) {
            *ret_obj = obj;
            obj.tr = ESYS_TR_NONE;
            return ATT_OK;
        }
    }
    enum att_rc rc = att_fail(err, ATT_E_DENIED,
                              "sealed under another TPM or SRK (or this TPM was cleared since): no "
                              "SRK of this TPM has the recorded parent's Name");
    att_err_reason(err, "foreignParent");
    return rc;
}

enum att_rc tpm_context_srk(struct tpm_context *ctx, struct att_buf *ret_pub,
                            struct parse_name *ret_name, bool *ret_persistent, struct att_err *err)
{
    ESYS_TR tr;
    enum att_rc rc = tpm_begin(ctx, err);
    if (rc == ATT_OK) {
        rc = tpm_srk_get(ctx, &tr, err);
    }
    if (rc == ATT_OK && ret_pub) {
        att_buf_put_slice(ret_pub, att_buf_slice(&ctx->srk.area));
        rc = att_buf_ok(ret_pub, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    if (ret_name) {
        *ret_name = ctx->srk.name;
    }
    if (ret_persistent) {
        *ret_persistent = ctx->srk.persistent;
    }
    return ATT_OK;
}

/* ---- the AK ------------------------------------------------------------------------------- */

static enum att_rc check_ak(const struct tpm_context *ctx, struct att_slice area,
                            struct att_err *err)
{
    struct parse_public pub;
    if (ctx->ak_template == TPM_TEMPLATE_AK_RSA) {
        return tpm_template_match(TPM_TEMPLATE_AK_RSA, area, err);
    }
    enum att_rc rc = parse_public_parse(area, &pub, err);
    return rc == ATT_OK ? parse_public_check_ak(&pub, err) : rc;
}

static enum att_rc make_ak(struct tpm_context *ctx, struct tpm_obj *ret_obj,
                           struct att_buf *ret_area, struct att_err *err)
{
    att_autobuf template = {0};
    tpm_autoobj obj = TPM_OBJ_INIT(ctx);
    enum att_rc rc = tpm_template_encode(ctx->ak_template, &template, err);
    if (rc == ATT_OK) {
        rc = tpm_create_primary(ctx, ESYS_TR_RH_ENDORSEMENT, att_buf_slice(&template), &obj,
                                ret_area, err);
    }
    if (rc == ATT_OK) {
        rc = check_ak(ctx, att_buf_slice(ret_area), err);
    }
    if (rc == ATT_OK) {
        *ret_obj = obj;
        obj.tr = ESYS_TR_NONE;
    }
    return rc;
}

/* What is at the configured handle must be an AK of ours, an endorsement primary at that. */
static enum att_rc open_ak(struct tpm_context *ctx, struct tpm_obj *ret_obj,
                           struct att_buf *ret_area, struct att_err *err)
{
    tpm_autoobj obj = TPM_OBJ_INIT(ctx);
    struct parse_public pub;
    struct parse_name name, qualified, expected;
    enum att_rc rc = tpm_open_persistent(ctx, ctx->ak_handle, &obj, ret_area, &qualified, err);
    if (rc == ATT_OK) {
        rc = check_ak(ctx, att_buf_slice(ret_area), err);
    }
    if (rc == ATT_OK) {
        rc = parse_public_parse(att_buf_slice(ret_area), &pub, err);
    }
    if (rc == ATT_OK) {
        rc = parse_public_name(&pub, &name, err);
    }
    if (rc == ATT_OK) {
        rc = parse_name_qualified(PARSE_RH_ENDORSEMENT, &name, 1, &expected, err);
    }
    if (rc == ATT_OK && !att_slice_eq(parse_name_slice(&qualified), parse_name_slice(&expected))) {
        rc = att_fail(err, ATT_E_DENIED, "the key at 0x%08x is no endorsement primary",
                      ctx->ak_handle);
        att_err_reason(err, "akHierarchy");
    }
    if (rc == ATT_OK) {
        *ret_obj = obj;
        obj.tr = ESYS_TR_NONE;
    }
    return rc;
}

static enum att_rc persist_ak(struct tpm_context *ctx, struct tpm_obj *ak, struct att_err *err)
{
    tpm_autoobj tmp = TPM_OBJ_INIT(ctx);
    ESYS_TR session, persistent = ESYS_TR_NONE;
    TSS2_RC trc;
    enum att_rc rc = tpm_hierarchy_session(ctx, ESYS_TR_RH_OWNER, &tmp, &session, err);
    if (rc != ATT_OK) {
        return rc;
    }
    TPM_CALL(ctx, trc,
             Esys_EvictControl(ctx->esys, ESYS_TR_RH_OWNER, ak->tr, session, ESYS_TR_NONE,
                               ESYS_TR_NONE, ctx->ak_handle, &persistent));
    if (trc != TSS2_RC_SUCCESS) {
        return tpm_fail(err, trc, "making the AK persistent");
    }
    tpm_obj_done(ak);
    *ak = (struct tpm_obj){.ctx = ctx, .tr = persistent, .persistent = true};
    return ATT_OK;
}

enum att_rc tpm_ak_acquire(struct tpm_context *ctx, ESYS_TR *ret_tr, struct att_err *err)
{
    tpm_autoobj obj = TPM_OBJ_INIT(ctx);
    att_autobuf area = {0};
    bool there = false;
    enum att_rc rc = ATT_OK;
    if (ctx->ak.tr == ESYS_TR_NONE) {
        if (ctx->ak_handle != 0) {
            rc = tpm_handle_exists(ctx, ctx->ak_handle, &there, err);
        }
        if (rc == ATT_OK) {
            rc = there ? open_ak(ctx, &obj, &area, err) : make_ak(ctx, &obj, &area, err);
        }
        if (rc == ATT_OK && ctx->ak_handle != 0 && !there && ctx->ak_persist) {
            rc = persist_ak(ctx, &obj, err);
        }
        if (rc == ATT_OK) {
            rc = adopt(&ctx->ak, &obj, &area, err);
        }
    }
    if (rc == ATT_OK) {
        ctx->ak.pinned = true;
        *ret_tr = ctx->ak.tr;
    }
    return rc;
}

void tpm_ak_done(struct tpm_ak *ak)
{
    att_buf_done(&ak->pub);
}

enum att_rc tpm_ak_get(struct tpm_context *ctx, struct tpm_ak *ret_ak, struct att_err *err)
{
    ESYS_TR tr;
    tpm_autoak ak = {0};
    enum att_rc rc = tpm_begin(ctx, err);
    if (rc == ATT_OK) {
        rc = tpm_ak_acquire(ctx, &tr, err);
    }
    if (rc == ATT_OK) {
        att_buf_put_slice(&ak.pub, att_buf_slice(&ctx->ak.area));
        rc = att_buf_ok(&ak.pub, err);
    }
    if (rc == ATT_OK) {
        ak.name = ctx->ak.name;
        rc = parse_name_qualified(PARSE_RH_ENDORSEMENT, &ak.name, 1, &ak.qualified_name, err);
    }
    if (rc == ATT_OK) {
        *ret_ak = ak;
        ak = (struct tpm_ak){0};
    }
    return rc;
}
