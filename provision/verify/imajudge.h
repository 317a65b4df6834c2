/* IMA's list judged by a policy's ima rule. Private to this folder. */
#ifndef ATTESTD_VERIFY_IMAJUDGE_H
#define ATTESTD_VERIFY_IMAJUDGE_H

#include "provision/verify/policy.h"

#define VERIFY_IMAJUDGE_SUM_MAX 160

/* Every entry behind boot_aggregate (which verify_logs compares with PCR 0-9) is on an allow list
 * that is valid now, or signed by a key that is allowed, or excluded; else it is a finding, and so
 * is a violation that is not allowed. The list must have been replayed (in->ima, in->ima_log).
 * policyMissing where an allow list is not bound. ret_sum: "; IMA: 812 entries, …" or "". What was
 * judged before by the same rule and the same allow lists (in->memo) is not judged again. */
void verify_ima_judge(const struct verify_policy_in *in, char ret_sum[VERIFY_IMAJUDGE_SUM_MAX],
                      struct verify_verdict *verdict);

#endif
