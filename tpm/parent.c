#include "tpm/parent.h"

#include "attestd/base/enc.h"
#include "tpm/internal.h"

#include <stdio.h>
#include <stdlib.h>

struct tpm_parent {
    struct tpm_blob blob;
    struct parse_name name;
    struct tpm_parent_policy policy;
    struct tpm_parent_stats stats;
};

/* ---- policies ------------------------------------------------------------------------------ */

void tpm_parent_policy_done(struct tpm_parent_policy *policy)
{
    att_buf_done(&policy->key);
    free(policy->approvals);
    *policy = (struct tpm_parent_policy){0};
}

static enum att_rc make_room_for(struct tpm_parent_policy *policy, size_t more, struct att_err *err)
{
    if (policy->n + more > TPM_APPROVALS_MAX) {
        return att_fail(err, ATT_E_LIMIT, "%zu approved boots: at most %d", policy->n + more,
                        TPM_APPROVALS_MAX);
    }
    struct tpm_approval *grown = realloc(policy->approvals, (policy->n + more) * sizeof(*grown));
    if (!grown) {
        return att_fail(err, ATT_E_NOMEM, "no memory for a PCR policy");
    }
    policy->approvals = grown;
    return ATT_OK;
}

enum att_rc tpm_parent_policy_add(struct tpm_parent_policy *policy,
                                  const struct parse_pcr_policy *from, struct att_err *err)
{
    enum att_rc rc = make_room_for(policy, from->n_boots, err);
    for (size_t i = 0; rc == ATT_OK && i < from->n_boots; i++) {
        const struct parse_pcr_boot *boot = &from->boots[i];
        struct tpm_approval approval = {
            .version = from->version, .recovery = from->recovery, .pcrs = boot->pcrs};
        memcpy(approval.policy, from->name, sizeof(approval.policy));
        memcpy(approval.label, boot->label, sizeof(approval.label));
        memcpy(approval.sig, boot->approval, sizeof(approval.sig));
        rc = parse_pcr_policy_branch(from, boot, &approval.branch, err);
        policy->approvals[policy->n + i] = approval;
    }
    if (rc == ATT_OK) {
        memcpy(policy->ref, from->ref, sizeof(policy->ref));
        policy->n += from->n_boots;
    }
    return rc;
}

enum att_rc tpm_parent_policy_direct(const struct parse_pcr_set *values,
                                     struct tpm_parent_policy *ret_policy, struct att_err *err)
{
    tpm_autoparentpolicy policy = {.direct = true};
    uint8_t digest[PARSE_DIGEST_MAX];
    size_t len = 0;
    enum att_rc rc = make_room_for(&policy, 1, err);
    if (rc == ATT_OK) {
        rc = parse_pcr_set_digest(values, PARSE_ALG_SHA256, digest, &len, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    struct tpm_approval *only = &policy.approvals[0];
    *only = (struct tpm_approval){.policy = "own", .label = "first", .pcrs = *values};
    only->branch.sel = values->sel;
    memcpy(only->branch.pcr_digest, digest, sizeof(only->branch.pcr_digest));
    policy.n = 1;
    *ret_policy = policy;
    policy = (struct tpm_parent_policy){0};
    return ATT_OK;
}

/* ---- the parent ---------------------------------------------------------------------------- */

enum att_rc tpm_parent_check(const struct tpm_blob *blob,
                             const uint8_t auth_policy[PARSE_POLICY_LEN], struct att_err *err)
{
    struct parse_public want, have;
    att_autobuf a = {0}, b = {0};
    parse_seal_parent_template(auth_policy, &want);
    enum att_rc rc = parse_public_parse(att_buf_slice(&blob->pub), &have, err);
    if (rc == ATT_OK) {
        have.x_len = have.y_len = 0;
        rc = parse_public_encode(&want, &a, err);
    }
    if (rc == ATT_OK) {
        rc = parse_public_encode(&have, &b, err);
    }
    if (rc == ATT_OK && !att_slice_eq(att_buf_slice(&a), att_buf_slice(&b))) {
        rc = att_fail(err, ATT_E_DENIED,
                      "the storage parent is not of the expected kind, or its authPolicy is not "
                      "that of the configured policy key and policyRef");
        att_err_reason(err, "parentPolicy");
    }
    return rc;
}

enum att_rc tpm_parent_create(struct tpm_context *ctx, const uint8_t auth_policy[PARSE_POLICY_LEN],
                              struct tpm_blob *ret_blob, struct att_err *err)
{
    struct parse_public pub;
    att_autobuf area = {0};
    tpm_autoblob blob = {0};
    parse_seal_parent_template(auth_policy, &pub);
    enum att_rc rc = parse_public_encode(&pub, &area, err);
    if (rc == ATT_OK) {
        rc = tpm_begin(ctx, err);
    }
    if (rc == ATT_OK) {
        rc = tpm_blob_create_srk(ctx, att_buf_slice(&area), &blob, err);
    }
    if (rc == ATT_OK) {
        rc = tpm_parent_check(&blob, auth_policy, err);
    }
    if (rc == ATT_OK) {
        *ret_blob = blob;
        blob = (struct tpm_blob){0};
    }
    return rc;
}

static void parent_free(struct tpm_parent *parent)
{
    if (parent) {
        tpm_blob_done(&parent->blob);
        tpm_parent_policy_done(&parent->policy);
        free(parent);
    }
}

void tpm_parent_unset(struct tpm_context *ctx)
{
    parent_free(ctx->parent);
    ctx->parent = NULL;
}

enum att_rc tpm_parent_set(struct tpm_context *ctx, const struct tpm_blob *blob,
                           struct tpm_parent_policy *policy, struct att_err *err)
{
    struct tpm_parent *parent = calloc(1, sizeof(*parent));
    if (!parent) {
        return att_fail(err, ATT_E_NOMEM, "no memory for a storage parent");
    }
    parent->blob.type = TPM_BLOB_KEY;
    parent->blob.empty_auth = blob->empty_auth;
    parent->blob.parent_handle = blob->parent_handle;
    parent->blob.parent_name = blob->parent_name;
    att_buf_put_slice(&parent->blob.pub, att_buf_slice(&blob->pub));
    att_buf_put_slice(&parent->blob.priv, att_buf_slice(&blob->priv));
    enum att_rc rc = att_buf_ok(&parent->blob.pub, err);
    if (rc == ATT_OK) {
        rc = att_buf_ok(&parent->blob.priv, err);
    }
    if (rc == ATT_OK) {
        rc = tpm_blob_name(&parent->blob, &parent->name, err);
    }
    if (rc != ATT_OK) {
        parent_free(parent);
        return rc;
    }
    if (ctx->parent) {
        parent->stats = ctx->parent->stats;
    }
    parent->policy = *policy;
    *policy = (struct tpm_parent_policy){0};
    tpm_parent_unset(ctx);
    ctx->parent = parent;
    return ATT_OK;
}

bool tpm_parent_is(const struct tpm_context *ctx, const struct parse_name *name)
{
    return ctx->parent && name->len != 0 &&
           att_slice_eq(parse_name_slice(name), parse_name_slice(&ctx->parent->name));
}

const struct parse_name *tpm_parent_name(const struct tpm_context *ctx)
{
    return ctx->parent ? &ctx->parent->name : NULL;
}

void tpm_parent_restored(struct tpm_context *ctx)
{
    if (ctx->parent) {
        ctx->parent->stats.restored++;
    }
}

void tpm_parent_stats(const struct tpm_context *ctx, struct tpm_parent_stats *ret_stats)
{
    *ret_stats = ctx->parent ? ctx->parent->stats : (struct tpm_parent_stats){0};
}

bool tpm_parent_ticket(const struct tpm_context *ctx, size_t i,
                       uint8_t ret_sig[PARSE_PCR_POLICY_SIG_LEN], struct tpm_ticket *ret_ticket)
{
    if (!ctx->parent || i >= ctx->parent->policy.n) {
        return false;
    }
    memcpy(ret_sig, ctx->parent->policy.approvals[i].sig, PARSE_PCR_POLICY_SIG_LEN);
    *ret_ticket = ctx->parent->policy.approvals[i].ticket;
    return true;
}

/* ---- the policy's commands ----------------------------------------------------------------- */

static enum att_rc denied(struct att_err *err, const char *reason)
{
    att_err_reason(err, reason);
    return ATT_E_DENIED;
}

static TPM2B_DIGEST to_digest(const uint8_t bytes[PARSE_POLICY_LEN])
{
    TPM2B_DIGEST digest = {.size = PARSE_POLICY_LEN};
    memcpy(digest.buffer, bytes, PARSE_POLICY_LEN);
    return digest;
}

/* The policy key under the owner hierarchy, whose tickets hold until TPM2_Clear; those of the NULL
 * hierarchy would say nothing. */
static enum att_rc load_policy_key(struct tpm_context *ctx, struct tpm_obj *ret_key,
                                   struct att_err *err)
{
    tpm_autoobj key = TPM_OBJ_INIT(ctx);
    TPM2B_PUBLIC pub;
    TSS2_RC trc;
    enum att_rc rc = tpm_to_public(att_buf_slice(&ctx->parent->policy.key), &pub, err);
    if (rc != ATT_OK) {
        return rc;
    }
    TPM_CALL(ctx, trc,
             Esys_LoadExternal(ctx->esys, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, NULL, &pub,
                               ESYS_TR_RH_OWNER, &key.tr));
    if (trc != TSS2_RC_SUCCESS) {
        key.tr = ESYS_TR_NONE;
        return tpm_fail(err, trc, "loading the policy key");
    }
    *ret_key = key;
    key.tr = ESYS_TR_NONE;
    return ATT_OK;
}

static enum att_rc keep_ticket(const TPMT_TK_VERIFIED *tk, struct tpm_ticket *ticket,
                               struct att_err *err)
{
    size_t len = 0;
    TSS2_RC rc = Tss2_MU_TPMT_TK_VERIFIED_Marshal(tk, ticket->bytes, sizeof(ticket->bytes), &len);
    if (rc != TSS2_RC_SUCCESS) {
        return tpm_fail(err, rc, "keeping a ticket");
    }
    ticket->len = len;
    return ATT_OK;
}

/* aHash = H(approvedPolicy ‖ policyRef) (Part 3 §23.16) */
static enum att_rc verify_approval(struct tpm_context *ctx, struct tpm_approval *approval,
                                   const uint8_t approved[PARSE_POLICY_LEN], struct att_err *err)
{
    struct tpm_parent *parent = ctx->parent;
    tpm_autoobj key = TPM_OBJ_INIT(ctx);
    tpm_autofree TPMT_TK_VERIFIED *ticket = NULL;
    TPMT_SIGNATURE sig = {
        .sigAlg = TPM2_ALG_ECDSA,
        .signature.ecdsa = {.hash = TPM2_ALG_SHA256, .signatureR.size = 32, .signatureS.size = 32}};
    uint8_t hash[PARSE_POLICY_LEN];
    TSS2_RC trc;
    const struct att_slice parts[] = {ATT_SLICE(approved, PARSE_POLICY_LEN),
                                      att_slice_str(parent->policy.ref)};
    att_sha256_v(hash, parts, 2);
    memcpy(sig.signature.ecdsa.signatureR.buffer, approval->sig, 32);
    memcpy(sig.signature.ecdsa.signatureS.buffer, approval->sig + 32, 32);
    TPM2B_DIGEST digest = to_digest(hash);
    enum att_rc rc = load_policy_key(ctx, &key, err);
    if (rc != ATT_OK) {
        return rc;
    }
    parent->stats.verified++;
    TPM_CALL(ctx, trc,
             Esys_VerifySignature(ctx->esys, key.tr, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE,
                                  &digest, &sig, &ticket));
    if (tpm_errors_number(trc) == TPM2_RC_SIGNATURE) {
        (void)att_fail(err, ATT_E_DENIED,
                       "PCR policy %s version %u: the TPM refuses the approval of boot %s: not "
                       "signed by the policy key over these PCRs",
                       approval->policy, approval->version, approval->label);
        return denied(err, "policySignature");
    }
    return trc == TSS2_RC_SUCCESS ? keep_ticket(ticket, &approval->ticket, err)
                                  : tpm_fail(err, trc, "verifying an approval");
}

static enum att_rc counter_missing(const struct tpm_approval *approval, const char *what,
                                   struct att_err *err)
{
    (void)att_fail(err, ATT_E_DENIED,
                   "PCR policy %s version %u asks for the policy counter at NV index 0x%08x, where "
                   "%s: somebody took the counter away",
                   approval->policy, approval->version, approval->branch.counter, what);
    return denied(err, "counterMissing");
}

static enum att_rc do_policy_nv(struct tpm_context *ctx, ESYS_TR session,
                                const struct tpm_approval *approval, struct att_err *err)
{
    tpm_autoobj nv = TPM_OBJ_INIT(ctx);
    tpm_autoobj tmp = TPM_OBJ_INIT(ctx);
    TPM2B_OPERAND operand = {.size = 8};
    ESYS_TR auth;
    bool ours = false;
    TSS2_RC trc;
    for (unsigned i = 0; i < 8; i++) {
        operand.buffer[i] = (uint8_t)(approval->branch.counter_max >> (56 - 8 * i));
    }
    enum att_rc rc = tpm_counter_open(ctx, approval->branch.counter, &nv, &ours, err);
    if (rc == ATT_OK && !ours) {
        return counter_missing(approval, nv.tr == ESYS_TR_NONE ? "nothing is" : "something else is",
                               err);
    }
    if (rc == ATT_OK) {
        rc = tpm_hierarchy_session(ctx, ESYS_TR_RH_OWNER, &tmp, &auth, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    TPM_CALL(ctx, trc,
             Esys_PolicyNV(ctx->esys, ESYS_TR_RH_OWNER, nv.tr, session, auth, ESYS_TR_NONE,
                           ESYS_TR_NONE, &operand, 0, PARSE_EO_UNSIGNED_LE));
    if (tpm_errors_number(trc) == TPM2_RC_POLICY) {
        (void)att_fail(err, ATT_E_DENIED,
                       "PCR policy %s version %u is older than what this host has accepted: its "
                       "policy counter is above that version",
                       approval->policy, approval->version);
        return denied(err, "policyCounter");
    }
    return trc == TSS2_RC_SUCCESS ? ATT_OK : tpm_fail(err, trc, "PolicyNV");
}

static enum att_rc do_policy_reset(struct tpm_context *ctx, ESYS_TR session,
                                   const struct tpm_approval *approval, struct att_err *err)
{
    TPM2B_OPERAND operand = {.size = 4};
    TSS2_RC trc;
    for (unsigned i = 0; i < 4; i++) {
        operand.buffer[i] = (uint8_t)(approval->branch.reset_count >> (24 - 8 * i));
    }
    TPM_CALL(ctx, trc,
             Esys_PolicyCounterTimer(ctx->esys, session, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE,
                                     &operand, PARSE_TIME_RESET_COUNT_OFFSET, PARSE_EO_EQ));
    if (tpm_errors_number(trc) == TPM2_RC_POLICY) {
        (void)att_fail(err, ATT_E_DENIED,
                       "recovery approval %s version %u is for the boot with resetCount %u",
                       approval->policy, approval->version, approval->branch.reset_count);
        return denied(err, "recoveryOver");
    }
    return trc == TSS2_RC_SUCCESS ? ATT_OK : tpm_fail(err, trc, "PolicyCounterTimer");
}

static enum att_rc do_policy_pcr(struct tpm_context *ctx, ESYS_TR session,
                                 const struct tpm_approval *approval, bool *ret_changed,
                                 struct att_err *err)
{
    const struct parse_pcr_sel *want = &approval->branch.sel;
    TPML_PCR_SELECTION sel = {.count = 1};
    TPM2B_DIGEST digest = to_digest(approval->branch.pcr_digest);
    TSS2_RC trc;
    sel.pcrSelections[0].hash = want->bank;
    sel.pcrSelections[0].sizeofSelect = 3;
    for (size_t i = 0; i < 3; i++) {
        sel.pcrSelections[0].pcrSelect[i] = (uint8_t)(want->mask >> (8 * i));
    }
    TPM_CALL(ctx, trc,
             Esys_PolicyPCR(ctx->esys, session, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &digest,
                            &sel));
    /* The values were the right ones a moment ago. */
    if (tpm_errors_number(trc) == TPM2_RC_VALUE || tpm_errors_number(trc) == TPM2_RC_PCR_CHANGED) {
        *ret_changed = true;
    }
    return trc == TSS2_RC_SUCCESS ? ATT_OK : tpm_fail(err, trc, "PolicyPCR");
}

static enum att_rc do_authorize(struct tpm_context *ctx, ESYS_TR session,
                                struct tpm_approval *approval,
                                const uint8_t approved[PARSE_POLICY_LEN], bool *ret_stale,
                                struct att_err *err)
{
    const struct tpm_parent_policy *policy = &ctx->parent->policy;
    TPM2B_DIGEST digest = to_digest(approved);
    TPM2B_NONCE ref = {.size = (uint16_t)strlen(policy->ref)};
    TPM2B_NAME key = {0};
    TPMT_TK_VERIFIED ticket;
    struct parse_name name;
    size_t used = 0;
    TSS2_RC trc;
    memcpy(ref.buffer, policy->ref, ref.size);
    enum att_rc rc = parse_name_of_area(att_buf_slice(&policy->key), &name, err);
    if (rc != ATT_OK) {
        return rc;
    }
    key.size = (uint16_t)name.len;
    memcpy(key.name, name.bytes, name.len);
    trc = Tss2_MU_TPMT_TK_VERIFIED_Unmarshal(approval->ticket.bytes, approval->ticket.len, &used,
                                             &ticket);
    if (trc == TSS2_RC_SUCCESS && used == approval->ticket.len) {
        TPM_CALL(ctx, trc,
                 Esys_PolicyAuthorize(ctx->esys, session, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE,
                                      &digest, &ref, &key, &ticket));
        if (trc == TSS2_RC_SUCCESS) {
            return ATT_OK;
        }
    } else {
        trc = TPM2_RC_TICKET; /* no ticket at all, as a damaged file gives one */
    }
    /* The fourth parameter: a ticket of before TPM2_Clear, another TPM's, or one that a file gave
     * us. */
    *ret_stale = trc == TPM2_RC_TICKET || (tpm_errors_is_param(trc) && (trc & 0xf00u) == 0x400u);
    return tpm_fail(err, trc, "PolicyAuthorize");
}

/* ---- one attempt --------------------------------------------------------------------------- */

struct attempt {
    struct tpm_approval *approval;
    tpm_parent_fn *fn;
    void *arg;
    TSS2_RC trc;
    bool changed; /* PCRs were extended in between */
    bool stale;   /* the ticket was of no use */
};

static enum att_rc satisfy(struct tpm_context *ctx, ESYS_TR session,
                           const uint8_t approved[PARSE_POLICY_LEN], struct attempt *a,
                           struct att_err *err)
{
    enum att_rc rc = ATT_OK;
    if (a->approval->branch.counter) {
        rc = do_policy_nv(ctx, session, a->approval, err);
    }
    if (rc == ATT_OK && a->approval->branch.has_reset) {
        rc = do_policy_reset(ctx, session, a->approval, err);
    }
    if (rc == ATT_OK) {
        rc = do_policy_pcr(ctx, session, a->approval, &a->changed, err);
    }
    if (rc == ATT_OK && !ctx->parent->policy.direct) {
        rc = do_authorize(ctx, session, a->approval, approved, &a->stale, err);
    }
    return rc;
}

static enum att_rc run_attempt(struct tpm_context *ctx, struct attempt *a, struct att_err *err)
{
    tpm_autoobj parent = TPM_OBJ_INIT(ctx);
    tpm_autoobj session = TPM_OBJ_INIT(ctx);
    uint8_t approved[PARSE_POLICY_LEN];
    a->changed = a->stale = false;
    a->trc = TSS2_RC_SUCCESS;
    enum att_rc rc = parse_seal_branch_digest(&a->approval->branch, approved, err);
    if (rc == ATT_OK && !ctx->parent->policy.direct && a->approval->ticket.len == 0) {
        rc = verify_approval(ctx, a->approval, approved, err);
    }
    if (rc == ATT_OK) {
        rc = tpm_blob_load_srk(ctx, &ctx->parent->blob, &parent, err);
    }
    ctx->srk.pinned = false; /* the child needs its slot, where there are but three */
    if (rc == ATT_OK) {
        rc = tpm_session_policy(ctx, &session, err);
    }
    if (rc == ATT_OK) {
        rc = satisfy(ctx, session.tr, approved, a, err);
    }
    if (rc == ATT_OK && a->fn) {
        a->trc = a->fn(ctx, parent.tr, session.tr, a->arg);
        a->changed = tpm_errors_number(a->trc) == TPM2_RC_PCR_CHANGED;
    }
    return rc;
}

static void note_opened(struct tpm_context *ctx, const struct tpm_approval *by)
{
    struct tpm_parent_stats *stats = &ctx->parent->stats;
    stats->opened++;
    memcpy(stats->policy, by->policy, sizeof(stats->policy));
    memcpy(stats->label, by->label, sizeof(stats->label));
    stats->version = by->version;
    stats->recovery = by->recovery;
    stats->counted = by->branch.counter != 0;
}

/* ---- which approval ------------------------------------------------------------------------ */

/* Of these PCRs, those that differ; 0: the approval fits. */
static uint32_t differing(const struct tpm_approval *approval, const struct parse_pcr_set *now)
{
    uint32_t mask = 0;
    for (unsigned pcr = 0; pcr < PARSE_PCR_COUNT; pcr++) {
        if ((approval->pcrs.sel.mask & 1u << pcr) &&
            memcmp(approval->pcrs.value[pcr], now->value[pcr], now->digest_len) != 0) {
            mask |= 1u << pcr;
        }
    }
    return mask;
}

static unsigned bits(uint32_t mask)
{
    unsigned n = 0;
    for (; mask; mask &= mask - 1) {
        n++;
    }
    return n;
}

struct nearest {
    const struct tpm_approval *approval;
    uint32_t mask;
    struct parse_pcr_set now;
    uint16_t no_bank; /* asked for, and the TPM has no such bank; 0: none */
};

static enum att_rc sealed(const struct nearest *nearest, struct att_err *err)
{
    char list[200] = "";
    size_t len = 0;
    if (!nearest->approval && nearest->no_bank) {
        (void)att_fail(err, ATT_E_DENIED,
                       "no boot is approved by PCRs that this TPM has: the policies in force are "
                       "for bank 0x%04x",
                       nearest->no_bank);
        return denied(err, "bootSealed");
    }
    if (!nearest->approval) {
        (void)att_fail(err, ATT_E_DENIED, "no boot is approved: there is no PCR policy in force");
        return denied(err, "bootSealed");
    }
    for (unsigned pcr = 0; pcr < PARSE_PCR_COUNT && len + 60 < sizeof(list); pcr++) {
        if (nearest->mask & 1u << pcr) {
            char now[17], want[17];
            att_hex(now, ATT_SLICE(nearest->now.value[pcr], 8));
            att_hex(want, ATT_SLICE(nearest->approval->pcrs.value[pcr], 8));
            len += (size_t)snprintf(list + len, sizeof(list) - len, "%spcr%u is %s... not %s...",
                                    len ? ", " : "", pcr, now, want);
        }
    }
    (void)att_fail(err, ATT_E_DENIED,
                   "this boot is not approved; nearest is boot %s of PCR policy %s version %u, "
                   "where %u PCRs differ: %s",
                   nearest->approval->label, nearest->approval->policy, nearest->approval->version,
                   bits(nearest->mask), list);
    return denied(err, "bootSealed");
}

/* The values of the approval's PCRs, in *now unless they are there already. */
static enum att_rc read_pcrs(struct tpm_context *ctx, const struct parse_pcr_sel *sel,
                             struct parse_pcr_set *now, struct att_err *err)
{
    if (now->sel.bank == sel->bank && now->sel.mask == sel->mask) {
        return ATT_OK;
    }
    return tpm_pcr_read(ctx, sel, now, err);
}

/* The first approval from *at on that fits, *at behind it; NULL when there is none, nearest being
 * what comes closest. One for a bank that this TPM does not have fits nowhere. */
static enum att_rc next_fitting(struct tpm_context *ctx, size_t *at, struct parse_pcr_set *now,
                                struct nearest *nearest, struct tpm_approval **ret,
                                struct att_err *err)
{
    struct tpm_parent_policy *policy = &ctx->parent->policy;
    *ret = NULL;
    while (*at < policy->n) {
        struct tpm_approval *approval = &policy->approvals[(*at)++];
        struct att_err why = {0};
        enum att_rc rc = read_pcrs(ctx, &approval->pcrs.sel, now, &why);
        if (rc == ATT_E_UNSUPPORTED) {
            *now = (struct parse_pcr_set){0};
            nearest->no_bank = approval->pcrs.sel.bank;
            continue;
        }
        if (rc != ATT_OK) {
            *err = why;
            return rc;
        }
        uint32_t mask = differing(approval, now);
        if (!mask) {
            *ret = approval;
            return ATT_OK;
        }
        if (!nearest->approval || bits(mask) < bits(nearest->mask)) {
            nearest->approval = approval;
            nearest->mask = mask;
            nearest->now = *now;
        }
    }
    return ATT_OK;
}

/* All approvals that fit, until one opens. Errors of the last one that fitted. */
static enum att_rc try_all(struct tpm_context *ctx, struct attempt *a, struct att_err *err)
{
    struct parse_pcr_set now = {0};
    struct nearest nearest = {0};
    struct att_err why = {0};
    enum att_rc rc = ATT_E_DENIED;
    bool fitted = false;
    for (size_t at = 0;;) {
        struct tpm_approval *approval = NULL;
        enum att_rc read = next_fitting(ctx, &at, &now, &nearest, &approval, err);
        if (read != ATT_OK) {
            return read;
        }
        if (!approval) {
            break;
        }
        fitted = true;
        att_err_clear(&why);
        a->approval = approval;
        rc = run_attempt(ctx, a, &why);
        if (a->stale) {
            approval->ticket.len = 0;
            att_err_clear(&why);
            rc = run_attempt(ctx, a, &why);
        }
        if (rc == ATT_OK || a->changed || !ctx->alive) {
            break;
        }
    }
    if (!fitted) {
        return sealed(&nearest, err);
    }
    if (rc != ATT_OK && err && err->rc == ATT_OK) {
        *err = why;
    }
    return rc;
}

enum att_rc tpm_parent_fits(struct tpm_context *ctx, struct att_err *err)
{
    struct parse_pcr_set now = {0};
    struct nearest nearest = {0};
    struct tpm_approval *approval = NULL;
    struct att_err why = {0};
    size_t at = 0;
    enum att_rc rc = tpm_begin(ctx, err);
    if (rc != ATT_OK) {
        return rc;
    }
    if (!ctx->parent) {
        return att_fail(err, ATT_E_INVAL, "there is no storage parent");
    }
    rc = next_fitting(ctx, &at, &now, &nearest, &approval, &why);
    if (rc != ATT_OK && err) {
        *err = why;
    }
    return rc == ATT_OK && !approval ? sealed(&nearest, err) : rc;
}

enum att_rc tpm_parent_use(struct tpm_context *ctx, tpm_parent_fn *fn, void *arg, TSS2_RC *ret_trc,
                           struct att_err *err)
{
    struct attempt a = {.fn = fn, .arg = arg};
    struct att_err why = {0};
    enum att_rc rc = ATT_E_RETRY;
    for (unsigned n = 0; n < TPM_PCR_CHANGED_MAX; n++) {
        att_err_clear(&why);
        a.changed = false;
        rc = try_all(ctx, &a, &why);
        if (!a.changed) {
            break;
        }
        ctx->parent->stats.pcr_changed++;
        rc = att_fail(&why, ATT_E_RETRY, "PCRs were extended while the policy was satisfied");
    }
    if (a.changed) {
        att_err_clear(&why);
        rc = att_fail(&why, ATT_E_RETRY,
                      "PCRs were extended during each of %d attempts to open the storage parent",
                      TPM_PCR_CHANGED_MAX);
    }
    if (rc == ATT_OK) {
        note_opened(ctx, a.approval);
        *ret_trc = a.trc;
    } else {
        ctx->parent->stats.refused++;
        if (err && err->rc == ATT_OK) {
            *err = why;
        }
    }
    return rc;
}

enum att_rc tpm_parent_probe(struct tpm_context *ctx, struct att_err *err)
{
    TSS2_RC trc = TSS2_RC_SUCCESS;
    enum att_rc rc = tpm_begin(ctx, err);
    if (rc == ATT_OK && !ctx->parent) {
        rc = att_fail(err, ATT_E_INVAL, "there is no storage parent");
    }
    return rc == ATT_OK ? tpm_parent_use(ctx, NULL, NULL, &trc, err) : rc;
}
