/* The words in which a refusal is told: the same in the problem document, in the audit record, in
 * attestctl and in the log. A word is a contract: add, never rename. */
#ifndef ATTESTD_VERIFY_REASON_H
#define ATTESTD_VERIFY_REASON_H

#include "attestd/base/err.h"

/* X(constant, word, what the check of that name proves): each is the name of a check, too. */
#define VERIFY_REASONS(X)                                                                          \
    X(MALFORMED, "malformed", "every structure parses whole, within its caps, no byte left over")  \
    X(EK_CHAIN, "ekChain", "the EK certificate leads to a pinned maker's root")                    \
    X(EK_CERT_MISMATCH, "ekCertMismatch", "the EK certificate is for the EK that was sent")        \
    X(EK_TEMPLATE, "ekTemplate", "the EK's public area is one of the TCG's templates")             \
    X(AK_ATTRIBUTES, "akAttributes", "the AK is a restricted signing key that cannot leave")       \
    X(AK_HIERARCHY, "akHierarchy", "the AK is a primary of the endorsement hierarchy")             \
    X(AK_CERTIFICATE, "akCertificate", "the AK certificate leads to the attestation root")         \
    X(ACTIVATION, "activation", "the TPM of this EK holds this AK")                                \
    X(CERTIFY_TYPE, "certifyType", "the key's statement is the TPM's own TPM2_Certify")            \
    X(CERTIFY_NAME, "certifyName", "the certified Name is that of the sent public area")           \
    X(CERTIFY_SIGNATURE, "certifySignature", "the key's statement is signed by the AK")            \
    X(CERTIFY_NONCE, "certifyNonce", "the key's statement was made for this order")                \
    X(KEY_ATTRIBUTES, "keyAttributes", "the key was born in the TPM and cannot leave it")          \
    X(KEY_PARENT, "keyParent", "the key stands under the parent that was sent")                    \
    X(KEY_STORE, "keyStore", "the profile allows this kind of key")                                \
    X(KEY_TYPE, "keyType", "the key is of a type and size that profile and entry allow")           \
    X(KEY_HSM, "keyHsm", "the key is in an HSM module that profile and entry allow")               \
    X(IDENTIFIER_MISMATCH, "identifierMismatch", "the AK is in the TPM that the order names")      \
    X(AK_UNKNOWN, "akUnknown", "the AK is one that this host enrolled")                            \
    X(AK_STALE, "akStale", "the AK was enrolled since the last start or resume, on this firmware") \
    X(ACCOUNT_MISMATCH, "accountMismatch", "the host belongs to this account")                     \
    X(QUOTE_SIGNATURE, "quoteSignature", "the quote is signed by the AK")                          \
    X(QUOTE_MAGIC, "quoteMagic", "the quote was made inside a TPM")                                \
    X(QUOTE_TYPE, "quoteType", "the quote is a quote")                                             \
    X(QUOTE_NONCE, "quoteNonce", "the quote was made for this request")                            \
    X(PCR_SELECTION, "pcrSelection", "the quote covers exactly the PCRs asked for")                \
    X(PCR_DIGEST, "pcrDigest", "the sent PCR values are the quoted ones")                          \
    X(EVIDENCE_MISMATCH, "evidenceMismatch", "the evidence speaks of this order, key and logs")    \
    X(LOG_MISSING, "logMissing", "each log asked for is there")                                    \
    X(LOG_REPLAY, "logReplay", "the logs replay to the quoted PCRs")                               \
    X(BOOT_POLICY, "bootPolicy", "the boot is one that the policy allows")                         \
    X(POLICY_MISSING, "policyMissing", "there is a boot policy to judge by")                       \
    X(POLICY_UNSIGNED, "policyUnsigned", "the boot policy is signed, where that is demanded")      \
    X(POLICY_SIGNER, "policySigner", "the boot policy is signed by a key that may sign it")        \
    X(POLICY_NOT_YET_VALID, "policyNotYetValid", "the boot policy is valid already")               \
    X(POLICY_EXPIRED, "policyExpired", "the boot policy is valid now")                             \
    X(CLOCK_ROLLBACK, "clockRollback", "the TPM's clock did not go back")                          \
    X(TPM_CLEARED, "tpmCleared", "the TPM was not cleared since the last statement")               \
    X(TICKET_INVALID, "ticketInvalid", "the ticket allows this enrolment")                         \
    X(FIRMWARE_DENIED, "firmwareDenied", "the TPM's firmware is not on the deny list")             \
    X(HOST_UNKNOWN, "hostUnknown", "the host is approved")                                         \
    X(HOST_BANNED, "hostBanned", "the host is not banned")                                         \
    X(NOT_ASSIGNED, "notAssigned", "the agent is assigned to this host")                           \
    X(MODEL_DIGEST, "modelDigest", "the agent's files have the digests that are expected")         \
    X(MANIFEST_MISSING, "manifestMissing", "the agent's manifest came with the evidence")          \
    X(MANIFEST_ROOT, "manifestRoot", "the manifest is the quoted one, and one that is allowed")    \
    X(MANIFEST_SIGNATURE, "manifestSignature", "the manifest is signed by a key that may sign it") \
    X(MEASURED_LEVEL, "measuredLevel", "the agent's files are known as well as is demanded")       \
    X(CSR_SIGNATURE, "csrSignature", "the CSR is signed by its own key")                           \
    X(CSR_NAME, "csrName", "the CSR asks for no name but the order's")                             \
    X(CSR_KEY, "csrKey", "the CSR is for the certified key")                                       \
    X(CSR_ACCOUNT_KEY, "csrAccountKey", "the CSR's key is not an account key")                     \
    X(INTERNAL, "internal", "the verifier could do its work")

enum verify_reason {
    VERIFY_REASON_NONE = 0,
#define VERIFY_REASON_ENUM(id, word, proves) VERIFY_REASON_##id,
    VERIFY_REASONS(VERIFY_REASON_ENUM)
#undef VERIFY_REASON_ENUM
        VERIFY_REASON_COUNT
};

/* "quoteNonce"; "none" for VERIFY_REASON_NONE and anything out of range. Never NULL. */
const char *verify_reason_word(enum verify_reason reason);
/* What the check of that name proves, for people. Never NULL. */
const char *verify_reason_proves(enum verify_reason reason);
/* ATT_E_NOTFOUND for a word that is none. */
ATT_MUST_USE enum att_rc verify_reason_from_word(const char *word, enum verify_reason *ret_reason,
                                                 struct att_err *err);

#endif
