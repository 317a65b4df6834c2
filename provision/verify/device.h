/* A stock device-attest-01 client's statement (fmt "tpm", draft-ietf-acme-device-attest §5,
 * WebAuthn §8.3 without authData) for a permanent identifier: an AK, which an attestation CA of
 * ours certified, certifies a key in the same TPM. No quote: nothing is said of how the host
 * booted. Checks, in order: malformed, akCertificate, identifierMismatch, certifyType,
 * certifySignature, certifyNonce, certifyName, keyAttributes. That the AK certificate is still good
 * and its host allowed is the issuer's to ask of its store; the CSR's key is compared at finalize.
 */
#ifndef ATTESTD_VERIFY_DEVICE_H
#define ATTESTD_VERIFY_DEVICE_H

#include "provision/verify/ak.h"
#include "tpm/parse/public.h"

#include <openssl/x509.h>

struct verify_device_in {
    struct att_slice att_obj; /* CBOR */
    /* -- what is expected -- */
    const char *key_authorization;
    const char *identifier;       /* EK id */
    const STACK_OF(X509) * roots; /* what an AK certificate must lead to, nothing else */
    int64_t now;
};

struct verify_device_facts {
    struct att_slice ak_cert;      /* DER, points into att_obj */
    char ak_serial[2 * 20 + 1];    /* lowercase hex */
    struct parse_name key_name;    /* computed from pubArea */
    uint8_t spki[VERIFY_SPKI_MAX]; /* of the certified key, DER */
    size_t spki_len;
};

/* ret is filled only on acceptance. */
ATT_MUST_USE enum verify_result verify_device(const struct verify_device_in *in,
                                              struct verify_verdict *verdict,
                                              struct verify_device_facts *ret);

/* keyAttributes of such a key, whose template is the client's own: fixedTPM, fixedParent,
 * sensitiveDataOrigin and sign set; restricted, decrypt and encryptedDuplication clear; P-256, or
 * RSA of 2048 or 3072 bits with exponent 65537; nameAlg SHA-256 or better; a scheme of SHA-2 or
 * none. Its authorization (userWithAuth, policy) is the client's affair. ATT_E_DENIED. */
ATT_MUST_USE enum att_rc verify_device_key(const struct parse_public *pub, struct att_err *err);

#endif
