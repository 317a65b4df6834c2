/* What a TPM is made to sign: the formulas of docs/PROTOCOL.md, as pure functions. */
#ifndef ATTESTD_PROVISION_EVIDENCE_FORMULA_H
#define ATTESTD_PROVISION_EVIDENCE_FORMULA_H

#include "attestd/base/hash.h"

/* M4, TPM2_Certify: SHA-256(keyAuthorization). */
void evidence_certify_extra(uint8_t ret[ATT_SHA256_LEN], struct att_slice key_authorization);
/* M4, an HSM's key: the digest that it signs, SHA-256(keyAuthorization ‖ attributes). */
void evidence_hsm_digest(uint8_t ret[ATT_SHA256_LEN], struct att_slice key_authorization,
                         struct att_slice attributes);
/* M4, TPM2_Quote: SHA-256("attestd-q/1" ‖ keyAuthorization ‖ SHA-256(certInfo) ‖
 * SHA-256(evidence)). cert_info is the attributes of an HSM's key, and empty where
 * nothing is stated of the key. */
void evidence_quote_extra(uint8_t ret[ATT_SHA256_LEN], struct att_slice key_authorization,
                          struct att_slice cert_info, struct att_slice evidence);
/* A quote for an operator: SHA-256("attestd-user-q/1" ‖ nonce ‖ SHA-256(log manifest)). */
void evidence_user_quote_extra(uint8_t ret[ATT_SHA256_LEN], struct att_slice nonce,
                               struct att_slice manifest);

#endif
