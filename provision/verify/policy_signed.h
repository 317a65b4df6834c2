/* The envelope of a signed boot policy: see policy.h for its form. Reading is for this folder,
 * signing for attestctl. */
#ifndef ATTESTD_VERIFY_POLICY_SIGNED_H
#define ATTESTD_VERIFY_POLICY_SIGNED_H

#include "attestd/base/hash.h"
#include "attestd/base/json.h"

#include <openssl/types.h>

#define VERIFY_POLICY_SIGNED_MAX ((size_t)400 << 10) /* 4/3 of a policy, and its envelope */

/* Is this object an envelope, and not a policy? */
bool verify_policy_is_signed(const json_t *root);
/* Checks form and signature; appends the payload. ATT_E_PARSE, or ATT_E_AUTH with reason
 * "policySigner". ret_signer: SHA-256 of the key's SubjectPublicKeyInfo. */
ATT_MUST_USE enum att_rc verify_policy_open(const json_t *root, struct att_buf *ret_payload,
                                            uint8_t ret_signer[ATT_SHA256_LEN],
                                            struct att_err *err);
/* Appends the envelope of a policy's bytes, which must be a policy. key: private, P-256 or P-384.
 */
ATT_MUST_USE enum att_rc verify_policy_sign(struct att_slice policy, EVP_PKEY *key,
                                            struct att_buf *ret_text,
                                            uint8_t ret_signer[ATT_SHA256_LEN],
                                            struct att_err *err);

#endif
