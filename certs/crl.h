/* Certificate revocation lists (RFC 5280 §5): complete and direct ones, version 2, of one CA for
 * what it signed itself. Signed with ecdsa-with-SHA256 by a P-256 CA key. */
#ifndef CERTS_CRL_H
#define CERTS_CRL_H

#include "attestd/base/buf.h"

#include <openssl/evp.h>
#include <openssl/x509.h>

#define CERTS_CRL_MAX         ((size_t)8 << 20) /* bytes of DER */
#define CERTS_CRL_SERIAL_MAX  20                /* RFC 5280 §4.1.2.2 */
#define CERTS_CRL_ENTRIES_MAX 131072

/* RFC 5280 §5.3.1. What an operator may give; certificateHold and removeFromCRL are not among
 * them: what is revoked stays so. */
enum certs_crl_reason {
    CERTS_CRL_UNSPECIFIED = 0, /* no reasonCode is written, as §5.3.1 wants it */
    CERTS_CRL_KEY_COMPROMISE = 1,
    CERTS_CRL_AFFILIATION_CHANGED = 3,
    CERTS_CRL_SUPERSEDED = 4,
    CERTS_CRL_CESSATION_OF_OPERATION = 5,
    CERTS_CRL_PRIVILEGE_WITHDRAWN = 9,
};
/* "keyCompromise" …; "unspecified" for what has no name. */
const char *certs_crl_reason_name(enum certs_crl_reason reason);
/* False when there is none of that name. */
bool certs_crl_reason_parse(const char *name, enum certs_crl_reason *ret_reason);
/* By number, as RFC 8555 §7.6 sends it; false when it is not one of those above. */
bool certs_crl_reason_from(int64_t code, enum certs_crl_reason *ret_reason);

struct certs_crl_entry {
    uint8_t serial[CERTS_CRL_SERIAL_MAX];
    size_t serial_len;
    int64_t revoked_at; /* UTC seconds */
    enum certs_crl_reason reason;
};

struct certs_crl_spec {
    int64_t this_update, next_update; /* UTC seconds */
    uint64_t number;                  /* grows with each CRL of this CA */
    const struct certs_crl_entry *entries;
    size_t n_entries;
};

/* Appends the DER of a CRL with cRLNumber and authorityKeyIdentifier. ATT_E_LIMIT beyond
 * CERTS_CRL_ENTRIES_MAX; ATT_E_INVAL when ca_key is not ca_cert's. */
ATT_MUST_USE enum att_rc certs_crl_create(const struct certs_crl_spec *spec, const X509 *ca_cert,
                                          EVP_PKEY *ca_key, struct att_buf *ret_der,
                                          struct att_err *err);

/* Exactly one DER CRL, version 2, with nextUpdate and no critical extension (so neither a delta
 * nor an indirect or partial one); trailing bytes are an error. The caller frees it
 * (X509_CRL_free). ATT_E_PARSE. */
ATT_MUST_USE enum att_rc certs_crl_parse(struct att_slice der, X509_CRL **ret_crl,
                                         struct att_err *err);
/* One PEM block "X509 CRL". */
ATT_MUST_USE enum att_rc certs_crl_dump(struct att_slice der, struct att_buf *ret_pem,
                                        struct att_err *err);

/* Is it ca's, and in force at at_s? ATT_E_AUTH with reason "crlIssuer", "crlAlgorithm",
 * "crlSignature", "crlNotYet" or "crlStale". */
ATT_MUST_USE enum att_rc certs_crl_verify(X509_CRL *crl, const X509 *ca, int64_t at_s,
                                          struct att_err *err);

struct certs_crl_info {
    uint64_t number;
    int64_t this_update, next_update;
    size_t n_entries;
};
/* ATT_E_PARSE: no number, or one beyond 64 bits. */
ATT_MUST_USE enum att_rc certs_crl_info(X509_CRL *crl, struct certs_crl_info *ret_info,
                                        struct att_err *err);
/* Whether this serial number (lowercase hex as in certs_cert_info) is in the list. */
bool certs_crl_has(X509_CRL *crl, const char *serial_hex);

void certs_crl_cleanup(X509_CRL **crl);
#define certs_autocrl ATT_CLEANUP(certs_crl_cleanup) X509_CRL

#endif
