/* Is this an attestation key? (M1, and again wherever it is used) */
#ifndef ATTESTD_VERIFY_AK_H
#define ATTESTD_VERIFY_AK_H

#include "provision/verify/ek.h"
#include "tpm/parse/name.h"

#define VERIFY_SPKI_MAX 600

struct verify_ak_facts {
    struct parse_name name;        /* computed from the public area, never taken from the host */
    uint8_t spki[VERIFY_SPKI_MAX]; /* SubjectPublicKeyInfo DER */
    size_t spki_len;
};

/* akAttributes: restricted, sign, not decrypt, fixedTPM, fixedParent, sensitiveDataOrigin, P-256,
 * ECDSA with SHA-256, Name by SHA-256. ak_pub: TPMT_PUBLIC. ret is filled only on acceptance. */
ATT_MUST_USE enum verify_result verify_ak(struct att_slice ak_pub, struct verify_verdict *verdict,
                                          struct verify_ak_facts *ret);

/* akCertificate, for `attestctl verify`: the AK certificate leads to an attestation root, has EKU
 * 2.23.133.8.3 and is no CA; its key is ak_pub's (may be empty: not compared). ret_ek_id (may be
 * NULL) is the PermanentIdentifier in it. chain: the intermediates that came with it. */
ATT_MUST_USE enum verify_result verify_ak_certificate(struct att_slice ak_cert,
                                                      const struct att_slice *chain, size_t n_chain,
                                                      struct att_slice ak_pub,
                                                      const STACK_OF(X509) * roots, int64_t now,
                                                      struct verify_verdict *verdict,
                                                      char ret_ek_id[VERIFY_ID_HEX]);

#endif
