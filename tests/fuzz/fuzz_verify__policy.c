/* Boot policies: JSON from an operator's file. What is read must be usable. */
#include "provision/verify/policy.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    verify_autopolicy *policy = NULL;
    if (verify_policy_parse(ATT_SLICE(data, size), &policy, NULL)) {
        return 0;
    }
    struct parse_pcr_set quoted = {.sel = {.bank = policy->bank, .mask = policy->pcr_mask},
                                   .digest_len = policy->digest_len};
    struct verify_policy_in in = {.policy = policy, .quoted = &quoted, .now = policy->not_before};
    verify_autoverdict *verdict = verify_verdict_new();
    if (!verdict) {
        return 0;
    }
    verify_policy_check(&in, verdict);
    for (unsigned pcr = 0; pcr < PARSE_PCR_COUNT; pcr++) {
        if (policy->pcr_mask & (1U << pcr)) {
            memcpy(quoted.value[pcr], policy->pcrs[pcr].values[0], policy->digest_len);
        }
    }
    /* The first allowed value of each PCR, within the window, must be an allowed boot. */
    verify_autoverdict *good = verify_verdict_new();
    if (good && policy->format == 1) {
        verify_policy_check(&in, good);
        if (verify_verdict_result(good) != VERIFY_ACCEPTED) {
            abort();
        }
    }
    return 0;
}
