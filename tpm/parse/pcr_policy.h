/* Signed PCR policies: the boots in which a host's sealed keys may be loaded, each approved by the
 * operator's policy key in the form that TPM2_VerifySignature takes, and the whole signed by the
 * same key. docs/PROTOCOL.md, "Signed PCR policies", has the format. */
#ifndef TPM_PARSE_PCR_POLICY_H
#define TPM_PARSE_PCR_POLICY_H

#include "tpm/parse/seal_policy.h"

#define PARSE_PCR_POLICY_MAX       ((size_t)256 << 10) /* bytes of a file */
#define PARSE_PCR_POLICY_BOOTS_MAX 64
#define PARSE_PCR_POLICY_NAME_MAX  64
#define PARSE_PCR_POLICY_SIG_LEN   64 /* r ‖ s */

struct parse_pcr_boot {
    char label[PARSE_PCR_POLICY_NAME_MAX + 1];
    struct parse_pcr_set pcrs;
    uint8_t approval[PARSE_PCR_POLICY_SIG_LEN]; /* over the branch's digest ‖ policyRef */
};

struct parse_pcr_policy {
    char name[PARSE_PCR_POLICY_NAME_MAX + 1];
    uint32_t version; /* 1 …; what the host's counter may be at most, where there is one */
    char ref[PARSE_POLICY_REF_MAX + 1];
    struct parse_name key; /* the policy key's Name */
    uint32_t counter;      /* NV index; 0: branches without a counter */
    bool recovery;         /* a recovery approval: for one boot, of the TPM whose resetCount is */
    uint32_t reset_count;  /* this; its branches look at no counter */
    int64_t not_before, not_after; /* UTC seconds; 0: open. keyd looks at them, no TPM can */
    uint8_t digest[32];            /* SHA-256 of what the document's signature is over */
    size_t n_boots;                /* 1 … PARSE_PCR_POLICY_BOOTS_MAX */
    struct parse_pcr_boot *boots;
    uint8_t signature[PARSE_PCR_POLICY_SIG_LEN];
};

void parse_pcr_policy_free(struct parse_pcr_policy *policy);
void parse_pcr_policy_cleanup(struct parse_pcr_policy **policy);
#define parse_autopcrpolicy ATT_CLEANUP(parse_pcr_policy_cleanup) struct parse_pcr_policy

/* The form alone; no signature is looked at. Strict: unknown or missing members, other spellings,
 * anything beyond the bounds are ATT_E_PARSE (ATT_E_LIMIT for the size), the member named. */
ATT_MUST_USE enum att_rc parse_pcr_policy_parse(struct att_slice json,
                                                struct parse_pcr_policy **ret_policy,
                                                struct att_err *err);
/* And its signatures: ATT_E_AUTH, reason "policyKey": made by another key, or for another ref
 * (NULL: any); "policySignature": the document's signature, or an approval, is not the key's. key:
 * as parse_seal_policy_key gives it. */
ATT_MUST_USE enum att_rc parse_pcr_policy_verify(const struct parse_pcr_policy *policy,
                                                 const struct parse_public *key, const char *ref,
                                                 struct att_err *err);
/* Is it valid at now (UTC)? ATT_E_DENIED, reason "policyExpired". */
ATT_MUST_USE enum att_rc parse_pcr_policy_check_time(const struct parse_pcr_policy *policy,
                                                     int64_t now, struct att_err *err);

/* The branch of a boot, and the TPMT_SIGNATURE of its approval (appended). */
ATT_MUST_USE enum att_rc parse_pcr_policy_branch(const struct parse_pcr_policy *policy,
                                                 const struct parse_pcr_boot *boot,
                                                 struct parse_seal_branch *ret_branch,
                                                 struct att_err *err);
ATT_MUST_USE enum att_rc parse_pcr_policy_approval(const struct parse_pcr_boot *boot,
                                                   struct att_buf *ret_sig, struct att_err *err);

/* Signs: fills key, each boot's approval, and the document's signature, then appends the file's
 * text. key: private, P-256. The rest of policy is the caller's; what it would not parse it does
 * not sign (ATT_E_INVAL). */
ATT_MUST_USE enum att_rc parse_pcr_policy_sign(struct parse_pcr_policy *policy, EVP_PKEY *key,
                                               struct att_buf *ret_text, struct att_err *err);

#endif
