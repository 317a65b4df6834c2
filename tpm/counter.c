#include "tpm/counter.h"

#include "tpm/internal.h"
#include "tpm/parse/seal_policy.h"

#define COUNTER_SIZE 8

static enum att_rc check_index(uint32_t index, struct att_err *err)
{
    return parse_seal_counter_ok(index)
               ? ATT_OK
               : att_fail(err, ATT_E_INVAL, "NV counter 0x%08x: expected an owner's NV index",
                          index);
}

/* ret_obj holds the index where it is defined; its Name is as ESYS checked it. */
static enum att_rc open_index(struct tpm_context *ctx, uint32_t index, struct tpm_obj *ret_obj,
                              struct parse_name *ret_name, struct att_err *err)
{
    tpm_autoobj nv = TPM_OBJ_INIT(ctx);
    tpm_autofree TPM2B_NV_PUBLIC *pub = NULL;
    tpm_autofree TPM2B_NAME *name = NULL;
    bool there = false;
    TSS2_RC trc;
    enum att_rc rc = tpm_handle_exists(ctx, index, &there, err);
    if (rc != ATT_OK || !there) {
        return rc;
    }
    TPM_CALL(
        ctx, trc,
        Esys_TR_FromTPMPublic(ctx->esys, index, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &nv.tr));
    if (trc == TSS2_RC_SUCCESS) {
        nv.persistent = true;
        TPM_CALL(ctx, trc,
                 Esys_NV_ReadPublic(ctx->esys, nv.tr, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE,
                                    &pub, &name));
    } else {
        nv.tr = ESYS_TR_NONE;
    }
    if (trc != TSS2_RC_SUCCESS) {
        return tpm_fail(err, trc, "reading an NV counter's public area");
    }
    ret_name->len = 0; /* another algorithm's, longer: nobody's that we know */
    if (name->size <= sizeof(ret_name->bytes)) {
        memcpy(ret_name->bytes, name->name, name->size);
        ret_name->len = name->size;
    }
    *ret_obj = nv;
    nv.tr = ESYS_TR_NONE;
    return ATT_OK;
}

static bool is_name(const struct parse_name *name, const struct parse_name *want)
{
    return att_slice_eq(parse_name_slice(name), parse_name_slice(want));
}

enum att_rc tpm_counter_open(struct tpm_context *ctx, uint32_t index, struct tpm_obj *ret_obj,
                             bool *ret_ours, struct att_err *err)
{
    struct parse_name name = {0}, want;
    enum att_rc rc = open_index(ctx, index, ret_obj, &name, err);
    parse_seal_counter_name(index, &want);
    *ret_ours = rc == ATT_OK && is_name(&name, &want);
    return rc;
}

static enum att_rc read_value(struct tpm_context *ctx, ESYS_TR nv, uint64_t *ret_value,
                              struct att_err *err)
{
    tpm_autoobj tmp = TPM_OBJ_INIT(ctx);
    tpm_autofree TPM2B_MAX_NV_BUFFER *data = NULL;
    ESYS_TR session;
    TSS2_RC trc;
    enum att_rc rc = tpm_hierarchy_session(ctx, ESYS_TR_RH_OWNER, &tmp, &session, err);
    if (rc != ATT_OK) {
        return rc;
    }
    TPM_CALL(ctx, trc,
             Esys_NV_Read(ctx->esys, ESYS_TR_RH_OWNER, nv, session, ESYS_TR_NONE, ESYS_TR_NONE,
                          COUNTER_SIZE, 0, &data));
    if (trc != TSS2_RC_SUCCESS) {
        return tpm_fail(err, trc, "reading the NV counter");
    }
    struct att_cur cur = att_cur_init(ATT_SLICE(data->buffer, data->size));
    *ret_value = att_cur_be64(&cur);
    return att_cur_done(&cur)
               ? ATT_OK
               : att_fail(err, ATT_E_PROTOCOL, "the NV counter has %u bytes", data->size);
}

/* ret_nv holds the index where it is defined. */
static enum att_rc look(struct tpm_context *ctx, uint32_t index, struct tpm_obj *ret_nv,
                        struct tpm_counter *ret, struct att_err *err)
{
    struct tpm_counter counter = {0};
    struct parse_name name = {0}, written, unwritten;
    enum att_rc rc = check_index(index, err);
    if (rc == ATT_OK) {
        rc = open_index(ctx, index, ret_nv, &name, err);
    }
    parse_seal_counter_name(index, &written);
    parse_seal_counter_unwritten_name(index, &unwritten);
    counter.ours = is_name(&name, &written);
    counter.begun = is_name(&name, &unwritten);
    counter.defined = ret_nv->tr != ESYS_TR_NONE;
    if (rc == ATT_OK && counter.ours) {
        rc = read_value(ctx, ret_nv->tr, &counter.value, err);
    }
    if (rc == ATT_OK) {
        *ret = counter;
    }
    return rc;
}

enum att_rc tpm_counter_read(struct tpm_context *ctx, uint32_t index,
                             struct tpm_counter *ret_counter, struct att_err *err)
{
    tpm_autoobj nv = TPM_OBJ_INIT(ctx);
    enum att_rc rc = tpm_begin(ctx, err);
    return rc == ATT_OK ? look(ctx, index, &nv, ret_counter, err) : rc;
}

static enum att_rc increment(struct tpm_context *ctx, ESYS_TR nv, struct att_slice auth,
                             struct att_err *err)
{
    ESYS_TR session;
    TSS2_RC trc;
    enum att_rc rc = tpm_set_auth(ctx, nv, auth, err);
    if (rc == ATT_OK) {
        rc = tpm_session_get(ctx, 0, &session, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    TPM_CALL(ctx, trc, Esys_NV_Increment(ctx->esys, nv, nv, session, ESYS_TR_NONE, ESYS_TR_NONE));
    return trc == TSS2_RC_SUCCESS ? ATT_OK : tpm_fail(err, trc, "incrementing the NV counter");
}

/* The authValue goes as a parameter: over the salted session, encrypted. */
static enum att_rc define(struct tpm_context *ctx, uint32_t index, const TPM2B_AUTH *auth,
                          struct tpm_obj *ret_nv, struct att_err *err)
{
    const TPM2B_NV_PUBLIC pub = {.nvPublic = {.nvIndex = index,
                                              .nameAlg = TPM2_ALG_SHA256,
                                              .attributes = PARSE_SEAL_COUNTER_ATTRS,
                                              .dataSize = COUNTER_SIZE}};
    tpm_autoobj tmp = TPM_OBJ_INIT(ctx);
    ESYS_TR owner, encrypts, srk, nv = ESYS_TR_NONE;
    TSS2_RC trc;
    /* With an SRK in place the owner's session, too, is the salted one. */
    enum att_rc rc = tpm_srk_get(ctx, &srk, err);
    if (rc == ATT_OK) {
        rc = tpm_hierarchy_session(ctx, ESYS_TR_RH_OWNER, &tmp, &owner, err);
    }
    if (rc == ATT_OK) {
        rc = tpm_session_get(ctx, TPMA_SESSION_DECRYPT, &encrypts, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    TPM_CALL(ctx, trc,
             Esys_NV_DefineSpace(ctx->esys, ESYS_TR_RH_OWNER, owner,
                                 owner == encrypts ? ESYS_TR_NONE : encrypts, ESYS_TR_NONE, auth,
                                 &pub, &nv));
    if (trc != TSS2_RC_SUCCESS) {
        return tpm_fail(err, trc, "defining the NV counter");
    }
    *ret_nv = (struct tpm_obj){.ctx = ctx, .tr = nv, .persistent = true};
    return ATT_OK;
}

enum att_rc tpm_counter_define(struct tpm_context *ctx, uint32_t index, struct att_slice auth,
                               struct att_err *err)
{
    tpm_autoobj nv = TPM_OBJ_INIT(ctx);
    TPM2B_AUTH value = {.size = (uint16_t)auth.len};
    enum att_rc rc = check_index(index, err);
    if (rc == ATT_OK && (auth.len == 0 || auth.len > 32 || auth.ptr[auth.len - 1] == 0)) {
        rc = att_fail(err, ATT_E_INVAL,
                      "a counter's authValue of %zu bytes: expected 1-32 of which the last is not "
                      "zero",
                      auth.len);
    }
    if (rc == ATT_OK) {
        rc = tpm_begin(ctx, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    memcpy(value.buffer, auth.ptr, auth.len);
    rc = define(ctx, index, &value, &nv, err);
    att_wipe(&value, sizeof(value));
    return rc == ATT_OK ? increment(ctx, nv.tr, auth, err) : rc;
}

/* Whether auth is the index's authValue, without a change to it: NV_SetBits is a write, which asks
 * for the authValue first (Part 3 clause 5.6), and a counter then refuses it by its type (Part 3,
 * NV_SetBits: TPM_RC_ATTRIBUTES). Nothing gentler is there: reading is the owner's right alone. */
static enum att_rc prove_auth(struct tpm_context *ctx, ESYS_TR nv, struct att_slice auth,
                              bool *ret_proved, struct att_err *err)
{
    struct att_err why = {0};
    ESYS_TR session;
    TSS2_RC trc;
    enum att_rc rc = tpm_set_auth(ctx, nv, auth, err);
    if (rc == ATT_OK) {
        rc = tpm_session_get(ctx, 0, &session, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    TPM_CALL(ctx, trc, Esys_NV_SetBits(ctx->esys, nv, nv, session, ESYS_TR_NONE, ESYS_TR_NONE, 0));
    /* A session's attributes (bit 11) are looked at before the authValue is. */
    *ret_proved = tpm_errors_number(trc) == TPM2_RC_ATTRIBUTES && (trc & TPM2_RC_S) == 0;
    if (*ret_proved) {
        return ATT_OK;
    }
    if (trc == TSS2_RC_SUCCESS) {
        return att_fail(err, ATT_E_PROTOCOL, "the TPM set bits in the NV counter");
    }
    rc = tpm_fail(&why, trc, "trying the NV counter's authValue");
    if (rc != ATT_E_AUTH && err) {
        *err = why;
    }
    return rc == ATT_E_AUTH ? ATT_OK : rc;
}

enum att_rc tpm_counter_adopt(struct tpm_context *ctx, uint32_t index, struct att_slice auth,
                              bool *ret_adopted, struct att_err *err)
{
    tpm_autoobj nv = TPM_OBJ_INIT(ctx);
    struct tpm_counter counter;
    bool proved = false;
    enum att_rc rc = tpm_begin(ctx, err);
    if (rc == ATT_OK) {
        rc = look(ctx, index, &nv, &counter, err);
    }
    if (rc == ATT_OK && (counter.ours || counter.begun)) {
        rc = prove_auth(ctx, nv.tr, auth, &proved, err);
    }
    if (rc == ATT_OK && proved && counter.begun) {
        rc = increment(ctx, nv.tr, auth, err);
    }
    if (rc == ATT_OK) {
        *ret_adopted = proved;
    }
    return rc;
}

enum att_rc tpm_counter_raise(struct tpm_context *ctx, uint32_t index, struct att_slice auth,
                              uint64_t target, struct att_err *err)
{
    tpm_autoobj nv = TPM_OBJ_INIT(ctx);
    struct tpm_counter counter;
    enum att_rc rc = tpm_begin(ctx, err);
    if (rc == ATT_OK) {
        rc = look(ctx, index, &nv, &counter, err);
    }
    if (rc == ATT_OK && !counter.ours) {
        rc = att_fail(err, ATT_E_NOTFOUND, "NV index 0x%08x is no NV counter of ours", index);
    }
    if (rc == ATT_OK && target > counter.value && target - counter.value > TPM_COUNTER_STEPS_MAX) {
        rc = att_fail(err, ATT_E_LIMIT,
                      "the NV counter is %llu: at most %u increments at a time, not to %llu",
                      (unsigned long long)counter.value, TPM_COUNTER_STEPS_MAX,
                      (unsigned long long)target);
    }
    for (uint64_t at = counter.value; rc == ATT_OK && at < target; at++) {
        rc = increment(ctx, nv.tr, auth, err);
    }
    return rc;
}

enum att_rc tpm_counter_undefine(struct tpm_context *ctx, uint32_t index, struct att_err *err)
{
    tpm_autoobj nv = TPM_OBJ_INIT(ctx);
    tpm_autoobj tmp = TPM_OBJ_INIT(ctx);
    ESYS_TR session;
    bool ours;
    TSS2_RC trc;
    enum att_rc rc = check_index(index, err);
    if (rc == ATT_OK) {
        rc = tpm_begin(ctx, err);
    }
    if (rc == ATT_OK) {
        rc = tpm_counter_open(ctx, index, &nv, &ours, err);
    }
    if (rc != ATT_OK || nv.tr == ESYS_TR_NONE) {
        return rc;
    }
    rc = tpm_hierarchy_session(ctx, ESYS_TR_RH_OWNER, &tmp, &session, err);
    if (rc != ATT_OK) {
        return rc;
    }
    TPM_CALL(ctx, trc,
             Esys_NV_UndefineSpace(ctx->esys, ESYS_TR_RH_OWNER, nv.tr, session, ESYS_TR_NONE,
                                   ESYS_TR_NONE));
    if (trc != TSS2_RC_SUCCESS) {
        return tpm_fail(err, trc, "undefining the NV counter");
    }
    nv.tr = ESYS_TR_NONE; /* ESYS forgot it with the index */
    return ATT_OK;
}
