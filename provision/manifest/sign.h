/* A manifest's signature: a JWS with detached payload (RFC 7515, Appendix F), HEADER..SIGNATURE.
 * The header is exactly {"alg":"ES256","typ":"attestd-manifest","jwk":{P-256}}; the payload is the
 * root's 32 bytes. Who the signer may be is not the signature's to say: compare its key. */
#ifndef ATTESTD_PROVISION_MANIFEST_SIGN_H
#define ATTESTD_PROVISION_MANIFEST_SIGN_H

#include "provision/manifest/manifest.h"

#include <openssl/types.h>

#define MANIFEST_TYP "attestd-manifest"

/* Replaces the signature of a finished manifest. key: private, P-256; borrowed. */
ATT_MUST_USE enum att_rc manifest_sign(struct manifest *manifest, EVP_PKEY *key,
                                       struct att_err *err);
/* ret_signer: SHA-256 of the signer's SubjectPublicKeyInfo, once the signature holds.
 * ATT_E_NOTFOUND manifestSignature: there is none; ATT_E_AUTH manifestSignature: it does not hold;
 * ATT_E_PARSE. */
ATT_MUST_USE enum att_rc manifest_verify(const struct manifest *manifest,
                                         uint8_t ret_signer[ATT_SHA256_LEN], struct att_err *err);

#endif
