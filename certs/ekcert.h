/* Endorsement key certificates (TCG EK Credential Profile 2.6): from NV bytes to a proven maker.
 * Nothing is ever fetched from an address in a certificate. */
#ifndef CERTS_EKCERT_H
#define CERTS_EKCERT_H

#include "attestd/base/buf.h"
#include "attestd/base/hash.h"

#include <openssl/evp.h>
#include <openssl/x509.h>

#define CERTS_EK_NV_MAX    8192
#define CERTS_EK_CHAIN_MAX 10  /* certificates that a client may send beside the EK's */
#define CERTS_EK_STORE_MAX 512 /* certificates in the operator's folder */
#define CERTS_EK_ATTR_MAX  64

/* The one DER certificate at the front of an NV index's content; what follows it may be 0x00 or
 * 0xff only. Borrowed from nv. ATT_E_PARSE otherwise. */
ATT_MUST_USE enum att_rc certs_ek_strip(struct att_slice nv, struct att_slice *ret_der,
                                        struct att_err *err);

/* The makers' certificates that the operator trusts. path is a file (PEM or DER), or a folder of
 * which every *.pem, *.crt and *.cer is read; self-issued CAs become anchors, other CAs help
 * building paths. Immutable after load: share it between threads. */
struct certs_ek_store;
ATT_MUST_USE enum att_rc certs_ek_store_load(const char *path, struct certs_ek_store **ret_store,
                                             struct att_err *err);
void certs_ek_store_free(struct certs_ek_store *store);
size_t certs_ek_store_roots(const struct certs_ek_store *store);

/* Why an EK certificate is refused; the err's reason word is "ekChain" for all of them. */
enum certs_ek_verdict {
    CERTS_EK_REFUSED = 0, /* not judged: an error of ours */
    CERTS_EK_MALFORMED,   /* not one DER certificate, or a chain member is not */
    CERTS_EK_KEY_TYPE,    /* neither RSA ≥ 2048 nor P-256, P-384 */
    CERTS_EK_IS_CA,       /* basicConstraints say CA, or it is self-issued */
    CERTS_EK_EKU,         /* lacks EKU 2.23.133.8.1 */
    CERTS_EK_KEY_USAGE,   /* has a key usage, with neither keyEncipherment nor keyAgreement */
    CERTS_EK_SAN,         /* lacks the TCG attributes */
    CERTS_EK_CRITICAL,    /* a critical extension that nobody here understands */
    CERTS_EK_NO_PATH,     /* no path to a root of the store */
    CERTS_EK_SIGNATURE,   /* a signature on the path does not hold */
    CERTS_EK_EXPIRED,     /* something on the path is not valid at that time */
    CERTS_EK_OK,
};
const char *certs_ek_verdict_name(enum certs_ek_verdict verdict);

struct certs_ek_info {
    enum certs_ek_verdict verdict;
    char ek_id[2 * ATT_SHA256_LEN + 1]; /* hex SHA-256 of spki */
    uint8_t spki[CERTS_EK_NV_MAX];      /* DER SubjectPublicKeyInfo, as in the certificate */
    size_t spki_len;
    char manufacturer[CERTS_EK_ATTR_MAX + 1]; /* as written: "id:53544D20" */
    char model[CERTS_EK_ATTR_MAX + 1];
    char version[CERTS_EK_ATTR_MAX + 1];
    int64_t not_before, not_after;
};

/* The certificate alone: everything but the path (verdict stays CERTS_EK_REFUSED in ret_info on
 * success: nothing has been proved). */
ATT_MUST_USE enum att_rc certs_ek_parse(struct att_slice der, struct certs_ek_info *ret_info,
                                        struct att_err *err);
/* ekCert (NV padding allowed) and the chain that the client sent (used for building the path, never
 * trusted), at a time. ATT_OK only with verdict CERTS_EK_OK. On refusal ATT_E_AUTH or ATT_E_PARSE,
 * and ret_info->verdict says why (the one out-parameter that is set on failure; the rest is zero).
 */
ATT_MUST_USE enum att_rc certs_ek_verify(const struct certs_ek_store *store, struct att_slice cert,
                                         const struct att_slice *chain, size_t n_chain,
                                         int64_t at_s, struct certs_ek_info *ret_info,
                                         struct att_err *err);

#endif
