/* Signed PCR policies: a file that an operator's tool wrote and anybody may have edited. What is
 * read has branches, says the same when it is written again, and needs a signature. */
#include "tpm/parse/pcr_policy.h"
#include "tpm/parse/pcr_policy_internal.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    parse_autopcrpolicy *policy = NULL, *again = NULL;
    struct parse_seal_branch branch;
    uint8_t digest[PARSE_POLICY_LEN];
    att_autojson *json = NULL;
    att_autobuf text = {0}, sig = {0};
    char hex[2 * PARSE_PCR_POLICY_SIG_LEN + 1];
    if (parse_pcr_policy_parse(ATT_SLICE(data, size), &policy, NULL) != ATT_OK) {
        return 0;
    }
    for (size_t i = 0; i < policy->n_boots; i++) {
        att_buf_reset(&sig);
        if (parse_pcr_policy_branch(policy, &policy->boots[i], &branch, NULL) != ATT_OK ||
            parse_seal_branch_digest(&branch, digest, NULL) != ATT_OK ||
            parse_pcr_policy_approval(&policy->boots[i], &sig, NULL) != ATT_OK) {
            abort();
        }
    }
    if (pcr_policy_json(policy, &json, NULL) != ATT_OK) {
        return 0;
    }
    for (size_t i = 0; i < sizeof policy->signature; i++) {
        static const char digits[] = "0123456789abcdef";
        hex[2 * i] = digits[policy->signature[i] >> 4];
        hex[2 * i + 1] = digits[policy->signature[i] & 15];
    }
    hex[sizeof hex - 1] = 0;
    if (json_object_set_new(json, "signature", json_string(hex)) != 0 ||
        att_json_dump(json, false, &text, NULL) != ATT_OK) {
        return 0;
    }
    if (parse_pcr_policy_parse(att_buf_slice(&text), &again, NULL) != ATT_OK ||
        memcmp(again->digest, policy->digest, sizeof policy->digest) != 0) {
        abort();
    }
    return 0;
}
