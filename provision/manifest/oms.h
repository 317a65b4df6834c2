/* OpenSSF Model Signing bundles, methods "key" and "certificate": a Sigstore bundle 0.3 around a
 * DSSE envelope (DSSE protocol 1.0) around an in-toto statement 1.0 whose predicateType is
 * https://model_signing/signature/v1.0. Method "sigstore" (keyless) is not read: it needs a
 * transparency log. Pure. */
#ifndef ATTESTD_PROVISION_MANIFEST_OMS_H
#define ATTESTD_PROVISION_MANIFEST_OMS_H

#include "provision/manifest/check.h"

#include <openssl/x509.h>

#define MANIFEST_OMS_MAX       ((size_t)8 << 20) /* bytes of a bundle */
#define MANIFEST_OMS_CERTS_MAX 8

/* Exactly one of the two: the signer's public key (EC on P-256, P-384 or P-521), or certificates of
 * which one must be above the signer's (or the signer's own). */
struct manifest_oms_trust {
    EVP_PKEY *key;
    STACK_OF(X509) * roots;
    int64_t at; /* UTC seconds at which the certificates must be valid */
};

struct manifest_oms_file {
    char *name; /* relative, in its shortest spelling */
    uint8_t sha256[ATT_SHA256_LEN];
};
/* In the order of the names' bytes, each once. Owns; manifest_oms_done. */
struct manifest_oms {
    struct manifest_oms_file *files;
    size_t n;
};
void manifest_oms_done(struct manifest_oms *oms);

/* Form, signature, statement. ATT_E_PARSE or ATT_E_UNSUPPORTED bundleForm; ATT_E_AUTH
 * bundleSignature: the signature, or the signer is not one of trust's. */
ATT_MUST_USE enum att_rc manifest_oms_parse(struct att_slice json,
                                            const struct manifest_oms_trust *trust,
                                            struct manifest_oms *ret_oms, struct att_err *err);
/* All of the manifest's files below dir (absolute) are in the bundle with their digests, none is
 * lacking, and links are none of them: a file that the bundle does not list fails, also one that it
 * says to ignore; except, the bundle's own. ATT_E_DENIED bundleFile names it and both digests. */
ATT_MUST_USE enum att_rc manifest_oms_check(const struct manifest_oms *oms,
                                            const struct manifest *manifest, const char *dir,
                                            const char *except, struct att_err *err);

#endif
