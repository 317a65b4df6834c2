/* A reference policy drafted from one good boot: each event of the judged PCRs a component with one
 * variant, its digest, in the order of the log. For review by people: what is volatile between two
 * good boots has to be loosened by hand. */
#ifndef ATTESTD_VERIFY_DRAFT_H
#define ATTESTD_VERIFY_DRAFT_H

#include "provision/verify/policy.h"

struct verify_draft_in {
    const char *name;
    uint32_t version;
    /* PCRs to judge, and their values as the TPM has them. Those of IMA (10) go to unjudged. */
    const struct parse_pcr_set *pcrs;
    uint32_t unjudged;                /* PCRs that a quote may cover and that are left open */
    const struct evidence_logs *logs; /* firmware; systemd where there is one */
    int64_t now;                      /* for the check, UTC seconds */
    /* The allow list of an ima rule (PCR 10 is then judged by it, and IMA's list must be among the
     * logs), with prefixes of names to leave open (NULL-terminated); NULL: none. */
    struct verify_imalist *allowlist;
    const char *const *excludes;
};

/* Appends the policy's JSON, which was verified: the logs replay to the PCRs, and the policy read
 * again accepts this very boot. verdict gets that check by check. ATT_E_DENIED where it does not
 * (nothing is appended), ATT_E_LIMIT where there are more events than a policy may have components.
 */
ATT_MUST_USE enum att_rc verify_policy_draft(const struct verify_draft_in *in,
                                             struct att_buf *ret_json,
                                             struct verify_verdict *verdict, struct att_err *err);

/* Judges a boot by a policy without a quote: logMissing, logReplay and the policy's own checks, as
 * verify_quote does with values that it covers. */
ATT_MUST_USE enum verify_result verify_policy_try(const struct verify_policy_in *in,
                                                  const struct evidence_logs *logs,
                                                  uint32_t logs_wanted,
                                                  struct verify_verdict *verdict);

#endif
