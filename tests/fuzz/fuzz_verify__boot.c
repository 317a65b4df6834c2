/* A policy of components over a hostile boot log: the policy's length (2 bytes, big endian), the
 * policy, the log. Whatever the log, the judge ends, and a verdict that accepts has no finding that
 * refuses. */
#include "provision/verify/policy.h"

#include "tpm/parse/eventlog.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct att_cur cur = att_cur_init(ATT_SLICE(data, size));
    struct att_slice json = att_cur_take_be16(&cur, UINT16_MAX);
    struct att_slice log = ATT_SLICE(cur.ptr, cur.left);
    verify_autopolicy *policy = NULL;
    struct parse_eventlog_pcrs pcrs;
    if (cur.failed || verify_policy_parse(json, &policy, NULL) ||
        parse_eventlog_replay(log, policy->bank, &pcrs, NULL)) {
        return 0;
    }
    struct parse_pcr_set quoted = {.sel = {.bank = policy->bank, .mask = 0xffffff},
                                   .digest_len = policy->digest_len};
    memcpy(quoted.value, pcrs.value, sizeof(quoted.value));
    const struct verify_policy_in in = {
        .policy = policy, .quoted = &quoted, .now = policy->not_before, .firmware = log};
    verify_autoverdict *verdict = verify_verdict_new();
    if (!verdict) {
        return 0;
    }
    verify_policy_check(&in, verdict);
    if (verify_verdict_result(verdict) == VERIFY_ACCEPTED && verdict->n_refusing) {
        abort();
    }
    return 0;
}
