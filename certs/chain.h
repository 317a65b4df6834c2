/* Certificates and chains: read from bytes, verified, tied to a key. STACK_OF(X509)s are owned by
 * the caller (sk_X509_pop_free, or certs_autostack of oid.h); the leaf comes first. */
#ifndef CERTS_CHAIN_H
#define CERTS_CHAIN_H

#include "attestd/base/buf.h"
#include "attestd/base/hash.h"

#include <openssl/evp.h>
#include <openssl/x509.h>

#define CERTS_CERT_MAX        8192 /* bytes of one DER certificate */
#define CERTS_CHAIN_MAX_CERTS 10
#define CERTS_CHAIN_MAX_LEN   65536 /* bytes of PEM */

/* Exactly one DER certificate: trailing bytes are an error. */
ATT_MUST_USE enum att_rc certs_cert_parse(struct att_slice der, X509 **ret_cert,
                                          struct att_err *err);
/* The certificate's own bytes, never re-encoded; appended. */
ATT_MUST_USE enum att_rc certs_cert_der(const X509 *cert, struct att_buf *ret_der,
                                        struct att_err *err);
ATT_MUST_USE enum att_rc certs_cert_sha256(const X509 *cert, uint8_t ret[ATT_SHA256_LEN],
                                           struct att_err *err);
/* One or more PEM CERTIFICATE blocks with nothing but white space between and after them
 * (RFC 8555 §9.1 allows no other text; RFC 7468 strict). */
ATT_MUST_USE enum att_rc certs_pem_parse(struct att_slice pem, STACK_OF(X509) * *ret_certs,
                                         struct att_err *err);
/* n DER certificates, as in an x5c header or an attestation statement. */
ATT_MUST_USE enum att_rc certs_der_parse(const struct att_slice *ders, size_t n,
                                         STACK_OF(X509) * *ret_certs, struct att_err *err);
/* The first block of text decoded, not parsed; text is what follows it. For PEM that was parsed
 * when it came. */
ATT_MUST_USE enum att_rc certs_pem_take(struct att_slice *text, struct att_buf *ret_der,
                                        struct att_err *err);
/* RFC 7468; label: "CERTIFICATE", "PUBLIC KEY". */
ATT_MUST_USE enum att_rc certs_pem_encode(const char *label, struct att_slice der,
                                          struct att_buf *ret_pem, struct att_err *err);
ATT_MUST_USE enum att_rc certs_pem_dump(const X509 *cert, struct att_buf *ret_pem,
                                        struct att_err *err);
ATT_MUST_USE enum att_rc certs_pem_dump_all(const STACK_OF(X509) * certs, struct att_buf *ret_pem,
                                            struct att_err *err);

enum certs_purpose {
    CERTS_PURPOSE_NONE,     /* always refused */
    CERTS_PURPOSE_WORKLOAD, /* EKU serverAuth and clientAuth, exactly one SPIFFE URI (X509-SVID) */
    CERTS_PURPOSE_TLS_SERVER, /* EKU serverAuth; the name is the TLS library's to check */
    CERTS_PURPOSE_AK,         /* EKU 2.23.133.8.3 */
    CERTS_PURPOSE_DEVICE,     /* EKU clientAuth; a device's, the name is the caller's to check */
    CERTS_PURPOSE_HOST_VIEW,  /* EKU CERTS_OID_EKU_HOST_VIEW */
};

/* certs[0] is the leaf, the rest is used for path building only; roots are the only anchors (a root
 * within certs gains no trust by being there). at_s: UTC seconds. Checked besides RFC 5280 path
 * validation with X509_V_FLAG_X509_STRICT: the leaf is not a CA, has digitalSignature, and the EKU
 * of the purpose; P-256 or better, no SHA-1. ATT_E_AUTH with one of these reasons:
 * chainEmpty chainPath chainSignature chainExpired chainNotYet chainNames chainCa chainKeyUsage
 * chainEku chainSan chainAlgorithm */
ATT_MUST_USE enum att_rc certs_chain_verify(const STACK_OF(X509) * certs,
                                            const STACK_OF(X509) * roots,
                                            enum certs_purpose purpose, int64_t at_s,
                                            struct att_err *err);
/* ATT_OK when the certificate's SPKI is the key's; ATT_E_AUTH, reason "chainKey", otherwise. */
ATT_MUST_USE enum att_rc certs_cert_matches_key(const X509 *cert, const EVP_PKEY *key,
                                                struct att_err *err);
ATT_MUST_USE enum att_rc certs_cert_matches_spki(const X509 *cert, struct att_slice spki,
                                                 struct att_err *err);
/* The same of DER bytes: walks to the SubjectPublicKeyInfo and looks at nothing else, so it is for
 * certificates that are known by their bytes. ATT_E_PARSE when it does not find its way. */
ATT_MUST_USE enum att_rc certs_der_matches_spki(struct att_slice cert_der, struct att_slice spki,
                                                struct att_err *err);

struct certs_cert_info {
    char serial_hex[2 * 20 + 1]; /* lowercase, without sign byte */
    int64_t not_before, not_after;
    uint8_t sha256[ATT_SHA256_LEN];
    uint8_t spki_sha256[ATT_SHA256_LEN];
};
ATT_MUST_USE enum att_rc certs_cert_info(const X509 *cert, struct certs_cert_info *ret_info,
                                         struct att_err *err);

#endif
