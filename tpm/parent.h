/* The storage parent whose policy gates Load: no object under it can be loaded, and none made, but
 * in a boot that its policy allows. Its children carry only their authValues, so that what is
 * loaded works on, also when PCRs change later.
 *
 * A context has at most one. With one set, tpm_key_create and tpm_seal_create make objects under
 * it; blobs that name it as their parent are loaded through the policy, others as before. After a
 * load the object's context is saved (TPM2_ContextSave), so that a key which had to give up its
 * slot comes back without the policy, for as long as the TPM is not reset: the policy is
 * satisfied once for each boot, not once for each use.
 *
 * Transient objects at once: SRK, parent, child; the SRK gives way when it has to. Whatever a
 * failed attempt loaded or started is flushed. */
#ifndef ATT_TPM_PARENT_H
#define ATT_TPM_PARENT_H

#include "tpm/parse/pcr_policy.h"
#include "tpm/tss2pem.h"

#define TPM_APPROVALS_MAX   (4 * PARSE_PCR_POLICY_BOOTS_MAX)
#define TPM_TICKET_MAX      80 /* TPMT_TK_VERIFIED */
#define TPM_PCR_CHANGED_MAX 8  /* attempts, when PCRs are extended in between */

/* TPM2_VerifySignature's ticket, marshalled: says to this TPM, until TPM2_Clear, that it has
 * checked the approval's signature before. Not secret. len 0: none yet. */
struct tpm_ticket {
    uint8_t bytes[TPM_TICKET_MAX];
    size_t len;
};

struct tpm_approval {
    char policy[PARSE_PCR_POLICY_NAME_MAX + 1], label[PARSE_PCR_POLICY_NAME_MAX + 1];
    uint32_t version;
    bool recovery;
    struct parse_pcr_set pcrs; /* of the branch, value by value: to name what differs */
    struct parse_seal_branch branch;
    uint8_t sig[PARSE_PCR_POLICY_SIG_LEN];
    struct tpm_ticket ticket;
};

/* What can open the parent. Owns its memory; {0} opens nothing. */
struct tpm_parent_policy {
    bool direct;        /* the parent's authPolicy is the one approval's branch itself: no key */
    struct att_buf key; /* TPMT_PUBLIC of the policy key */
    char ref[PARSE_POLICY_REF_MAX + 1];
    size_t n;
    struct tpm_approval *approvals; /* tried in this order where several fit */
};
void tpm_parent_policy_done(struct tpm_parent_policy *policy);
#define tpm_autoparentpolicy ATT_CLEANUP(tpm_parent_policy_done) struct tpm_parent_policy
/* Appends a policy's boots; its signatures are the caller's to check (the TPM does, too). */
ATT_MUST_USE enum att_rc tpm_parent_policy_add(struct tpm_parent_policy *policy,
                                               const struct parse_pcr_policy *from,
                                               struct att_err *err);
/* PolicyPCR of these values, and nothing else. */
ATT_MUST_USE enum att_rc tpm_parent_policy_direct(const struct parse_pcr_set *values,
                                                  struct tpm_parent_policy *ret_policy,
                                                  struct att_err *err);

/* Creates a parent with this authPolicy under the SRK; nothing of it is left in the TPM. */
ATT_MUST_USE enum att_rc tpm_parent_create(struct tpm_context *ctx,
                                           const uint8_t auth_policy[PARSE_POLICY_LEN],
                                           struct tpm_blob *ret_blob, struct att_err *err);
/* Is this a parent as tpm_parent_create makes them, with this authPolicy? ATT_E_DENIED, reason
 * "parentPolicy", when not. */
ATT_MUST_USE enum att_rc tpm_parent_check(const struct tpm_blob *blob,
                                          const uint8_t auth_policy[PARSE_POLICY_LEN],
                                          struct att_err *err);

/* From now on; copies blob, takes over *policy. Earlier ones are forgotten, what is loaded stays.
 * No TPM is asked. */
ATT_MUST_USE enum att_rc tpm_parent_set(struct tpm_context *ctx, const struct tpm_blob *blob,
                                        struct tpm_parent_policy *policy, struct att_err *err);
void tpm_parent_unset(struct tpm_context *ctx);

/* Loads the parent and satisfies its policy, for nothing: would a load work now? Errors of this and
 * of every load or creation under the parent:
 *   ATT_E_DENIED bootSealed       no approval is for the PCRs as they are; names those that differ
 *   ATT_E_DENIED policySignature  the TPM refuses the approval's signature (edited, another key)
 *   ATT_E_DENIED policyCounter    the host's counter is above the policy's version: an older one
 *   ATT_E_DENIED counterMissing   the counter is not defined, or something else is at its index
 *   ATT_E_DENIED recoveryOver     a recovery approval for another boot
 *   ATT_E_RETRY                   PCRs were extended during each of TPM_PCR_CHANGED_MAX attempts */
ATT_MUST_USE enum att_rc tpm_parent_probe(struct tpm_context *ctx, struct att_err *err);

/* Is an approval for the PCRs as they are? They are read and nothing else is done: for who would
 * otherwise write to the TPM for a boot in which nothing opens. ATT_E_DENIED bootSealed. */
ATT_MUST_USE enum att_rc tpm_parent_fits(struct tpm_context *ctx, struct att_err *err);

struct tpm_parent_stats {
    uint64_t opened;      /* policies satisfied */
    uint64_t pcr_changed; /* attempts that an extend in between cost */
    uint64_t verified;    /* VerifySignature: approvals that had no ticket, or a stale one */
    uint64_t refused;
    uint64_t restored; /* loads by a saved context */
    /* By which approval the last one was; empty: none yet. */
    char policy[PARSE_PCR_POLICY_NAME_MAX + 1], label[PARSE_PCR_POLICY_NAME_MAX + 1];
    uint32_t version;
    bool recovery, counted; /* counted: its branch looked at a counter */
};
void tpm_parent_stats(const struct tpm_context *ctx, struct tpm_parent_stats *ret_stats);
/* The i-th approval's signature and its ticket, as it is now; false beyond the last one. */
bool tpm_parent_ticket(const struct tpm_context *ctx, size_t i,
                       uint8_t ret_sig[PARSE_PCR_POLICY_SIG_LEN], struct tpm_ticket *ret_ticket);

#endif
