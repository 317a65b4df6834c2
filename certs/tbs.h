/* The parts of a TBSCertificate (RFC 5280 §4.1). Internal to certs/. */
#ifndef CERTS_TBS_H
#define CERTS_TBS_H

#include "certs/build.h"

#define CERTS_EXT_SKI              "2.5.29.14"
#define CERTS_EXT_KEY_USAGE        "2.5.29.15"
#define CERTS_EXT_SAN              "2.5.29.17"
#define CERTS_EXT_BASIC            "2.5.29.19"
#define CERTS_EXT_NAME_CONSTRAINTS "2.5.29.30"
#define CERTS_EXT_CRL              "2.5.29.31"
#define CERTS_EXT_AKI              "2.5.29.35"
#define CERTS_EXT_EKU              "2.5.29.37"
#define CERTS_EKU_SERVER           "1.3.6.1.5.5.7.3.1"
#define CERTS_EKU_CLIENT           "1.3.6.1.5.5.7.3.2"

enum certs_key_usage { CERTS_KU_DIGITAL_SIGNATURE, CERTS_KU_CA /* keyCertSign, cRLSign */ };

struct certs_tbs {
    const uint8_t *serial; /* CERTS_SERIAL_LEN */
    struct certs_validity validity;
    struct att_slice spki;
    bool any_key;              /* spki: of any kind, already checked by the caller; else P-256 */
    const X509 *ca_cert;       /* NULL: self-issued */
    const char *common_name;   /* NULL: empty subject */
    struct att_buf extensions; /* Extension elements; key identifiers are added by finish */
};

void certs_put_rdn(struct att_buf *buf, const char *oid, const char *value);
size_t certs_ext_begin(struct att_buf *exts, const char *oid, bool critical);
void certs_ext_end(struct att_buf *exts, size_t mark);
void certs_ext_key_usage(struct att_buf *exts, enum certs_key_usage usage);
void certs_ext_eku(struct att_buf *exts, const char *const *oids, bool critical);
void certs_ext_basic_leaf(struct att_buf *exts);
void certs_ext_basic_ca(struct att_buf *exts, bool last); /* last: pathlen 0 */
/* What an intermediate has: key usage, CA right above leaves, name constraints where trust_domain
 * is not NULL. */
void certs_ext_intermediate(struct att_buf *exts, const char *trust_domain);
void certs_ext_crl(struct att_buf *exts, const char *url);
/* A GeneralName: otherName PermanentIdentifier (RFC 4043 §2) without an assigner. */
void certs_put_permanent_id(struct att_buf *buf, const char *ek_id);
/* Checks what all have in common, puts the whole together, frees tbs->extensions in any case. */
ATT_MUST_USE enum att_rc certs_tbs_finish(struct certs_tbs *tbs, struct att_buf *ret_tbs,
                                          uint8_t ret_digest[ATT_SHA256_LEN], struct att_err *err);

#endif
