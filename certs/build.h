/* Certificates, built as a TBSCertificate first and signed after: whoever signs can record the
 * digest of what will be signed, and after a crash sign the very same bytes again
 * (docs/PROTOCOL.md, "The leaf"). All are version 3 and ecdsa-with-SHA256 under a P-256 CA key;
 * times are UTC seconds. */
#ifndef CERTS_BUILD_H
#define CERTS_BUILD_H

#include "attestd/base/buf.h"
#include "attestd/base/hash.h"

#include <openssl/evp.h>
#include <openssl/x509.h>

#define CERTS_SERIAL_LEN     16
#define CERTS_BACKDATE_S     60 /* notBefore lies this far back, for clocks that are a little slow */
#define CERTS_LIFETIME_MIN_S 120
#define CERTS_TBS_MAX        8192
#define CERTS_HOLDING_MAX    256 /* bytes of the key-holding extension's value */
#define CERTS_BOOT_NAME_MAX  64

/* 16 random bytes, positive and of full length (RFC 5280 §4.1.2.2). */
ATT_MUST_USE enum att_rc certs_serial_new(uint8_t ret_serial[CERTS_SERIAL_LEN],
                                          struct att_err *err);

/* How the key is held: the extension of docs/PROTOCOL.md. */
/* EXPORTABLE: made in memory, and handed to its agent on demand: others may have a copy. */
enum certs_key_store {
    CERTS_STORE_NONE,
    CERTS_STORE_TPM,
    CERTS_STORE_HSM,
    CERTS_STORE_MEMORY,
    CERTS_STORE_EXPORTABLE,
};
const char *certs_key_store_name(enum certs_key_store store); /* "tpm" …; never NULL */
enum certs_key_store certs_key_store_parse(const char *name); /* CERTS_STORE_NONE: unknown */

struct certs_key_holding {
    enum certs_key_store store;
    char boot[CERTS_BOOT_NAME_MAX + 1]; /* the boot policy's name, or "none"; never empty */
    uint8_t decision[ATT_SHA256_LEN];   /* SHA-256 of the decision record */
};

ATT_MUST_USE enum att_rc certs_key_holding_encode(const struct certs_key_holding *holding,
                                                  struct att_buf *ret_der, struct att_err *err);
/* Exact DER, version 1, a known store, a name of [a-z0-9._-]+, 32 bytes; nothing trails. */
ATT_MUST_USE enum att_rc certs_key_holding_parse(struct att_slice der,
                                                 struct certs_key_holding *ret_holding,
                                                 struct att_err *err);
/* From a certificate; ATT_E_NOTFOUND when it has none. */
ATT_MUST_USE enum att_rc certs_key_holding_get(const X509 *cert,
                                               struct certs_key_holding *ret_holding,
                                               struct att_err *err);

/* What the agent is made of, and how well that is known: 1 its host says so, 2 the kernel's list
 * too (docs/PROTOCOL.md, "An agent's manifest"). */
#define CERTS_MEASURED_LEVEL_MAX 3
struct certs_measured {
    unsigned level; /* 0: the certificate says nothing of it */
    uint8_t root[ATT_SHA256_LEN];
};
ATT_MUST_USE enum att_rc certs_measured_encode(const struct certs_measured *measured,
                                               struct att_buf *ret_der, struct att_err *err);
/* Exact DER, version 1, level 1 … 3; nothing trails. */
ATT_MUST_USE enum att_rc certs_measured_parse(struct att_slice der,
                                              struct certs_measured *ret_measured,
                                              struct att_err *err);
/* From a certificate; ATT_E_NOTFOUND when it has none. */
ATT_MUST_USE enum att_rc certs_measured_get(const X509 *cert, struct certs_measured *ret_measured,
                                            struct att_err *err);

/* The key's parent in its TPM opens by a policy alone (docs/PROTOCOL.md). A certificate without it
 * says nothing of a policy: those of earlier versions, and keys under the SRK or in no TPM. */
struct certs_sealed {
    bool sealed;                    /* false: the certificate does not have it */
    uint8_t policy[ATT_SHA256_LEN]; /* authPolicy: as the parent's public area has it, which the
                                       key's qualified Name proves */
    uint32_t counter; /* NV index of the policy counter, by the host's word; 0: none is known */
};
ATT_MUST_USE enum att_rc certs_sealed_encode(const struct certs_sealed *sealed,
                                             struct att_buf *ret_der, struct att_err *err);
/* Exact DER, version 1; nothing trails. */
ATT_MUST_USE enum att_rc certs_sealed_parse(struct att_slice der, struct certs_sealed *ret_sealed,
                                            struct att_err *err);
/* From a certificate; ATT_E_NOTFOUND when it has none. */
ATT_MUST_USE enum att_rc certs_sealed_get(const X509 *cert, struct certs_sealed *ret_sealed,
                                          struct att_err *err);

/* Which of its host's HSM modules has the key, by the host's word (docs/PROTOCOL.md). A certificate
 * without it says nothing of a module. */
#define CERTS_HSM_NAME_MAX 32
struct certs_hsm {
    char name[CERTS_HSM_NAME_MAX + 1]; /* [a-z0-9][a-z0-9._-]*; "": it is not there */
};
ATT_MUST_USE enum att_rc certs_hsm_encode(const struct certs_hsm *hsm, struct att_buf *ret_der,
                                          struct att_err *err);
/* Exact DER, version 1; nothing trails. */
ATT_MUST_USE enum att_rc certs_hsm_parse(struct att_slice der, struct certs_hsm *ret_hsm,
                                         struct att_err *err);
/* From a certificate; ATT_E_NOTFOUND when it has none. */
ATT_MUST_USE enum att_rc certs_hsm_get(const X509 *cert, struct certs_hsm *ret_hsm,
                                       struct att_err *err);

/* What each TBS function takes and gives. ca_cert is the issuer's certificate (its subject and
 * subject key id go in). ret_tbs gets the DER TBSCertificate appended; ret_digest is its SHA-256.
 */
struct certs_validity {
    int64_t not_before; /* callers give now - CERTS_BACKDATE_S */
    int64_t not_after;  /* exclusive of nothing: the last valid second */
};

/* not_before = now - 60, not_after = now + lifetime. */
struct certs_validity certs_validity_from(int64_t now_s, int64_t lifetime_s);

struct certs_leaf_spec {
    uint8_t serial[CERTS_SERIAL_LEN];
    struct certs_validity validity;
    struct att_slice spki; /* DER, P-256 */
    const char *spiffe_id;
    const char *crl_url; /* NULL: no CRL distribution point */
    struct certs_key_holding holding;
    struct certs_measured measured;
    struct certs_sealed sealed;
    struct certs_hsm hsm;
};
/* Empty subject; SAN critical, exactly this URI; KU critical digitalSignature; EKU serverAuth and
 * clientAuth; basicConstraints critical CA:FALSE; SKI, AKI keyIdentifier; key holding. Refuses a
 * lifetime under 2 minutes and one that outlives ca_cert. */
ATT_MUST_USE enum att_rc certs_leaf_tbs(const struct certs_leaf_spec *spec, const X509 *ca_cert,
                                        struct att_buf *ret_tbs, uint8_t ret_digest[ATT_SHA256_LEN],
                                        struct att_err *err);

struct certs_ak_spec {
    uint8_t serial[CERTS_SERIAL_LEN];
    struct certs_validity validity;
    struct att_slice spki;       /* DER, P-256 */
    const char *ek_id;           /* 64 lowercase hex digits */
    const char *manufacturer;    /* TCG text: "id:53544D20" */
    const char *model, *version; /* as in the EK certificate, or "unknown" */
    const char *uri;             /* a further SAN: urn:ek:sha256:BASE64; NULL: none */
};
/* Empty subject; SAN critical: directoryName of the three TCG attributes and otherName
 * PermanentIdentifier = EK id; EKU 2.23.133.8.3 only; KU critical digitalSignature. */
ATT_MUST_USE enum att_rc certs_ak_tbs(const struct certs_ak_spec *spec, const X509 *ca_cert,
                                      struct att_buf *ret_tbs, uint8_t ret_digest[ATT_SHA256_LEN],
                                      struct att_err *err);
/* The PermanentIdentifier of an AK certificate (64 hex digits) into ret. */
ATT_MUST_USE enum att_rc certs_ak_ek_id(const X509 *ak_cert, char ret[2 * ATT_SHA256_LEN + 1],
                                        struct att_err *err);

struct certs_server_spec {
    uint8_t serial[CERTS_SERIAL_LEN];
    struct certs_validity validity;
    struct att_slice spki;
    const char *const *names; /* DNS names and IP addresses (told apart by their form); n ≥ 1 */
    size_t n_names;
    const char *crl_url;   /* certs_dns_tbs, certs_device_tbs: NULL: no CRL distribution point */
    const char *device_id; /* certs_device_tbs, which has no names: 64 lowercase hex digits */
};
/* The issuer's own TLS certificate: EKU serverAuth. */
ATT_MUST_USE enum att_rc certs_server_tbs(const struct certs_server_spec *spec, const X509 *ca_cert,
                                          struct att_buf *ret_tbs,
                                          uint8_t ret_digest[ATT_SHA256_LEN], struct att_err *err);

/* For a service that proved control of these DNS names by http-01 (lowercase, no wildcards):
 * critical SAN, empty subject, EKU serverAuth. spki: of any kind that certs_dns_csr_verify took. */
ATT_MUST_USE enum att_rc certs_dns_tbs(const struct certs_server_spec *spec, const X509 *ca_cert,
                                       struct att_buf *ret_tbs, uint8_t ret_digest[ATT_SHA256_LEN],
                                       struct att_err *err);

/* For a key that an AK certified, of a host that is known by this id: empty subject; critical SAN
 * of exactly one otherName, PermanentIdentifier (RFC 4043) = device_id; EKU clientAuth. spki: of
 * any kind that certs_device_csr_verify took. */
ATT_MUST_USE enum att_rc certs_device_tbs(const struct certs_server_spec *spec, const X509 *ca_cert,
                                          struct att_buf *ret_tbs,
                                          uint8_t ret_digest[ATT_SHA256_LEN], struct att_err *err);

struct certs_ca_spec {
    uint8_t serial[CERTS_SERIAL_LEN];
    struct certs_validity validity;
    struct att_slice spki;
    const char *common_name;
    const char *trust_domain; /* workload intermediate: name constraints are added; else NULL */
};
/* A CA right above leaves: pathlen 0. With trust_domain: critical nameConstraints that permit URIs
 * of exactly that host and exclude every DNS name and IP address (RFC 5280 §4.2.1.10). */
ATT_MUST_USE enum att_rc certs_intermediate_tbs(const struct certs_ca_spec *spec,
                                                const X509 *ca_cert, struct att_buf *ret_tbs,
                                                uint8_t ret_digest[ATT_SHA256_LEN],
                                                struct att_err *err);
/* Self-issued; sign it with the key whose SPKI the spec holds. */
ATT_MUST_USE enum att_rc certs_root_tbs(const struct certs_ca_spec *spec, struct att_buf *ret_tbs,
                                        uint8_t ret_digest[ATT_SHA256_LEN], struct att_err *err);

/* A root's name and key under another root: whoever trusts only that one follows it
 * (cross-signing). trust_domain has to be NULL. */
ATT_MUST_USE enum att_rc certs_cross_tbs(const struct certs_ca_spec *spec, const X509 *ca_cert,
                                         struct att_buf *ret_tbs,
                                         uint8_t ret_digest[ATT_SHA256_LEN], struct att_err *err);

struct certs_signer_spec {
    uint8_t serial[CERTS_SERIAL_LEN];
    struct certs_validity validity;
    struct att_slice spki;
    const char *common_name;
};
/* Signs hostView documents: EKU CERTS_OID_EKU_HOST_VIEW only (critical), so that neither can stand
 * in for the TLS server nor the server for it. */
ATT_MUST_USE enum att_rc certs_view_signer_tbs(const struct certs_signer_spec *spec,
                                               const X509 *ca_cert, struct att_buf *ret_tbs,
                                               uint8_t ret_digest[ATT_SHA256_LEN],
                                               struct att_err *err);

/* Signs exactly these TBS bytes (they must be a DER TBSCertificate naming ecdsa-with-SHA256, or
 * ATT_E_PARSE) and appends the certificate's DER. Doing it twice gives two valid certificates of
 * the same TBS: same serial, same content, other signature. */
ATT_MUST_USE enum att_rc certs_tbs_sign(struct att_slice tbs, EVP_PKEY *ca_key,
                                        struct att_buf *ret_cert, struct att_err *err);
/* Does not sign when ca_key is not the key of ca_cert (NULL: do not ask). */
ATT_MUST_USE enum att_rc certs_tbs_sign_for(struct att_slice tbs, const X509 *ca_cert,
                                            EVP_PKEY *ca_key, struct att_buf *ret_cert,
                                            struct att_err *err);

#endif
