/* The AK's enrolment, second message (M2): this AK is in the TPM of that EK, and this is its boot.
 * Checks, in order: activation, malformed, akAttributes, quoteMagic, quoteType, quoteSignature,
 * akHierarchy, quoteNonce, pcrSelection, pcrDigest, tpmCleared, clockRollback, logMissing,
 * logReplay, policyMissing, policyUnsigned, policySigner, policyNotYetValid, policyExpired,
 * bootPolicy. (firmwareDenied with the signed version: verify_firmware afterwards.) M1 is judged by
 * verify_ek and verify_ak. */
#ifndef ATTESTD_VERIFY_ENROL_H
#define ATTESTD_VERIFY_ENROL_H

#include "provision/verify/quote.h"

struct verify_enrol_in {
    struct att_slice ak_pub;         /* TPMT_PUBLIC that M1 carried and verify_ak accepted */
    struct att_slice proof;          /* as sent */
    struct att_slice expected_proof; /* HMAC(K, "proof"): 32 bytes, by provision/enrol */
    struct att_slice expected_extra; /* HMAC(K, "quote" ‖ nonce ‖ SHA-256(log manifest)) */
    struct verify_quoted quoted;
    struct verify_boot boot;
    const struct verify_clock *previous; /* this host's last statement; NULL at first contact */
    const struct parse_pcr_set *previous_pcrs; /* of its last enrolment; NULL: not on record */
};

ATT_MUST_USE enum verify_result verify_enrol(const struct verify_enrol_in *in,
                                             struct verify_verdict *verdict,
                                             struct verify_quote_facts *ret,
                                             enum verify_change *ret_change);

#endif
