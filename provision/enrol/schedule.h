/* The key schedule of enrolment (docs/PROTOCOL.md M2): everything that both sides saw enters K, so
 * that an answer fits one account, one AK URL, one request and one response only. Pure functions.
 */
#ifndef ATTESTD_PROVISION_ENROL_SCHEDULE_H
#define ATTESTD_PROVISION_ENROL_SCHEDULE_H

#include "attestd/base/hash.h"

#define ENROL_CV_LEN    32 /* the activated credential */
#define ENROL_K_LEN     32
#define ENROL_NONCE_LEN 32

/* What K is bound to. Borrows. */
struct enrol_transcript {
    const char *ak_url;           /* the Location of M1's response, as text */
    const char *thumbprint;       /* of the account key, 43 characters of base64url */
    struct att_slice m1_payload;  /* bytes of the request's JWS payload, decoded */
    struct att_slice m1_response; /* bytes of the response body */
};

/* K = HKDF-SHA256(ikm = cv, salt = empty, info = "attestd-ak/1" ‖ AK URL ‖ thumbprint ‖
 * SHA-256(M1 payload) ‖ SHA-256(M1 response body), 32 bytes). cv must have ENROL_CV_LEN bytes and
 * thumbprint 43 characters (ATT_E_INVAL). The caller wipes ret_k. */
ATT_MUST_USE enum att_rc enrol_schedule_k(struct att_slice cv,
                                          const struct enrol_transcript *transcript,
                                          uint8_t ret_k[ENROL_K_LEN], struct att_err *err);
/* As above from the two digests, for a side that kept only those. */
ATT_MUST_USE enum att_rc enrol_schedule_k_digests(struct att_slice cv, const char *ak_url,
                                                  const char *thumbprint,
                                                  const uint8_t m1_payload_sha256[ATT_SHA256_LEN],
                                                  const uint8_t m1_response_sha256[ATT_SHA256_LEN],
                                                  uint8_t ret_k[ENROL_K_LEN], struct att_err *err);
/* HMAC-SHA256(K, "proof"). */
void enrol_schedule_proof(const uint8_t k[ENROL_K_LEN], uint8_t ret_proof[ATT_SHA256_LEN]);
/* HMAC-SHA256(K, "quote" ‖ nonce ‖ SHA-256(log manifest)): the quote's extraData. */
void enrol_schedule_quote_extra(const uint8_t k[ENROL_K_LEN], const uint8_t nonce[ENROL_NONCE_LEN],
                                struct att_slice manifest, uint8_t ret_extra[ATT_SHA256_LEN]);

#endif
