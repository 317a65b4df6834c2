/* What the files of signed PCR policies share. */
#ifndef TPM_PARSE_PCR_POLICY_INTERNAL_H
#define TPM_PARSE_PCR_POLICY_INTERNAL_H

#include "tpm/parse/pcr_policy.h"

#define PCR_POLICY_FORMAT "attestd-pcr-policy/1"

/* The document without its signature: a new object, the caller's. */
ATT_MUST_USE enum att_rc pcr_policy_json(const struct parse_pcr_policy *policy, json_t **ret_json,
                                         struct att_err *err);
/* What the document's signature is over: the format's name, a NUL, and the document without its
 * signature, members sorted, no white space. Appends. */
ATT_MUST_USE enum att_rc pcr_policy_message(const struct parse_pcr_policy *policy,
                                            struct att_buf *ret_message, struct att_err *err);
/* TPMT_SIGNATURE, ECDSA with SHA-256, of r ‖ s. Appends. */
ATT_MUST_USE enum att_rc pcr_policy_raw_sig(const uint8_t raw[PARSE_PCR_POLICY_SIG_LEN],
                                            struct att_buf *ret_sig, struct att_err *err);
/* What an approval is over: the branch's digest ‖ policyRef (Part 3 §23.16: aHash). Appends. */
ATT_MUST_USE enum att_rc pcr_policy_approved(const struct parse_pcr_policy *policy,
                                             const struct parse_pcr_boot *boot,
                                             struct att_buf *ret_message, struct att_err *err);

#endif
