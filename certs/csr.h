/* Certificate signing requests (PKCS#10, RFC 2986): ours, and strangers'. */
#ifndef CERTS_CSR_H
#define CERTS_CSR_H

#include "attestd/base/buf.h"
#include "attestd/base/hash.h"
#include "attestd/base/keytype.h"
#include "certs/san.h"

#include <openssl/evp.h>

#define CERTS_CSR_MAX 8192 /* bytes of DER */

/* Empty subject, one critical SAN with exactly this URI, signed by key (P-256; may be a key held
 * elsewhere). Appends DER. */
ATT_MUST_USE enum att_rc certs_csr_create(EVP_PKEY *key, const char *san_uri,
                                          struct att_buf *ret_der, struct att_err *err);

/* The same for an RSA key, by its SubjectPublicKeyInfo: sign gets the SHA-256 digest of the
 * CertificationRequestInfo and appends an RSASSA-PKCS1-v1_5 signature. */
typedef enum att_rc certs_csr_sign_fn(void *user, struct att_slice digest,
                                      struct att_buf *ret_signature, struct att_err *err);
ATT_MUST_USE enum att_rc certs_csr_create_rsa(struct att_slice spki, const char *san_uri,
                                              certs_csr_sign_fn *sign, void *user,
                                              struct att_buf *ret_der, struct att_err *err);

/* Empty subject, one critical SAN with exactly this PermanentIdentifier (RFC 4043 §2) without an
 * assigner, signed by key. identifier: 1 to CERTS_IDENTIFIER_MAX bytes. Appends DER. */
ATT_MUST_USE enum att_rc certs_csr_create_device(EVP_PKEY *key, const char *identifier,
                                                 struct att_buf *ret_der, struct att_err *err);

struct certs_csr {
    /* DER SubjectPublicKeyInfo, canonical: P-256, or RSA as att_keytype_of_spki takes it */
    uint8_t spki[ATT_KEYTYPE_SPKI_MAX];
    size_t spki_len;
    uint8_t spki_sha256[ATT_SHA256_LEN];
    bool has_san; /* the CSR names the expected URI itself */
};

/* Reads a hostile CSR and checks all that can be checked without knowing the order: exact DER (it
 * re-encodes to the same bytes, nothing trails), version 1, P-256 named curve or RSA of 2048 or
 * 3072 bits with exponent 65537 in canonical form, ecdsa-with-SHA256 or sha256WithRSAEncryption by
 * the key's type, and the self-signature (RFC 8555 §7.4), a subject that is empty or has at most
 * one CN equal to expected_uri, a SAN that is absent or exactly one URI equal to expected_uri, and
 * no other requested extension. ATT_E_LIMIT, ATT_E_PARSE, ATT_E_AUTH (self-signature) or
 * ATT_E_DENIED (names something else); reason is "badCSR" in each. */
ATT_MUST_USE enum att_rc certs_csr_verify(struct att_slice der, const char *expected_uri,
                                          struct certs_csr *ret_csr, struct att_err *err);

#endif
