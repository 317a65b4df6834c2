#include "provision/verify/enrol.h"

#include "provision/verify/steps.h"

static const enum verify_reason enrol_plan[] = {
    VERIFY_REASON_ACTIVATION,      VERIFY_REASON_MALFORMED,     VERIFY_REASON_AK_ATTRIBUTES,
    VERIFY_REASON_QUOTE_MAGIC,     VERIFY_REASON_QUOTE_TYPE,    VERIFY_REASON_QUOTE_SIGNATURE,
    VERIFY_REASON_AK_HIERARCHY,    VERIFY_REASON_QUOTE_NONCE,   VERIFY_REASON_PCR_SELECTION,
    VERIFY_REASON_PCR_DIGEST,      VERIFY_REASON_TPM_CLEARED,   VERIFY_REASON_CLOCK_ROLLBACK,
    VERIFY_REASON_LOG_MISSING,     VERIFY_REASON_LOG_REPLAY,    VERIFY_REASON_POLICY_MISSING,
    VERIFY_REASON_POLICY_UNSIGNED, VERIFY_REASON_POLICY_SIGNER, VERIFY_REASON_POLICY_NOT_YET_VALID,
    VERIFY_REASON_POLICY_EXPIRED,  VERIFY_REASON_BOOT_POLICY,
};

static bool check_activation(const struct verify_enrol_in *in, struct verify_verdict *verdict)
{
    if (in->expected_proof.len != ATT_SHA256_LEN ||
        !att_slice_eq_secret(in->proof, in->expected_proof)) {
        verify_fail(verdict, VERIFY_REASON_ACTIVATION,
                    "proof (%zu bytes) is not the one that the activated credential gives",
                    in->proof.len);
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_ACTIVATION,
                "the TPM with this EK holds this AK: it activated the credential");
    return true;
}

static bool judge(const struct verify_enrol_in *in, struct verify_verdict *verdict,
                  struct verify_quote_facts *facts)
{
    struct parse_public ak;
    struct verify_statement quote;
    if (!check_activation(in, verdict) || !verify_step_area(in->ak_pub, "akPub", &ak, verdict) ||
        !verify_step_quote_form(&in->quoted, &quote, verdict)) {
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_MALFORMED, "every structure parses whole");
    if (!verify_step_ak(&ak, verdict) ||
        !verify_step_quote(&in->quoted, &quote, NULL, &ak, in->expected_extra, &in->boot.selection,
                           verdict)) {
        return false;
    }
    struct verify_clock clock = verify_clock_of(&quote.attest);
    return verify_step_clock(in->previous, "this is the first statement of this host's TPM", &clock,
                             verdict) &&
           verify_step_boot(&in->boot, &in->quoted, NULL, verdict) &&
           verify_step_facts(&in->boot, &in->quoted, &quote, facts, verdict);
}

enum verify_result verify_enrol(const struct verify_enrol_in *in, struct verify_verdict *verdict,
                                struct verify_quote_facts *ret, enum verify_change *ret_change)
{
    struct verify_quote_facts facts;
    if (verify_verdict_failed(verdict)) {
        return VERIFY_REFUSED;
    }
    verify_plan(verdict, enrol_plan, sizeof(enrol_plan) / sizeof(enrol_plan[0]));
    if (!judge(in, verdict, &facts) || verify_verdict_result(verdict) != VERIFY_ACCEPTED) {
        return VERIFY_REFUSED;
    }
    if (ret_change) {
        *ret_change =
            verify_change_since(in->previous, in->previous_pcrs, &facts.clock, &in->quoted);
    }
    if (ret) {
        *ret = facts;
    }
    return VERIFY_ACCEPTED;
}
