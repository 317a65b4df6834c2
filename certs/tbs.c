#include "certs/tbs.h"

#include "attestd/base/keytype.h"
#include "certs/chain.h"
#include "certs/der.h"
#include "certs/key.h"
#include "certs/oid.h"

#include <openssl/x509v3.h>
#include <string.h>

#define KEY_ID_LEN 20

void certs_put_rdn(struct att_buf *buf, const char *oid, const char *value)
{
    size_t set = certs_der_begin(buf, DER_SET);
    size_t seq = certs_der_begin(buf, DER_SEQUENCE);
    certs_der_put_oid(buf, oid);
    certs_der_put(buf, DER_UTF8, att_slice_str(value));
    certs_der_end(buf, seq);
    certs_der_end(buf, set);
}

/* Two elements are open from here: the Extension and its OCTET STRING. Both end at the same byte,
 * so one mark and the other's place found again from it suffice: the outer header is put in by end.
 */
size_t certs_ext_begin(struct att_buf *exts, const char *oid, bool critical)
{
    size_t outer = certs_der_begin(exts, DER_SEQUENCE);
    static const uint8_t yes[] = {0xff};
    certs_der_put_oid(exts, oid);
    if (critical) {
        certs_der_put(exts, DER_BOOLEAN, ATT_SLICE_ARRAY(yes));
    }
    size_t inner = certs_der_begin(exts, DER_OCTETS);
    return outer << 16 | (inner - outer);
}

void certs_ext_end(struct att_buf *exts, size_t mark)
{
    size_t outer = mark >> 16;
    certs_der_end(exts, outer + (mark & 0xffff));
    certs_der_end(exts, outer);
}

/* RFC 5280 §4.2.1.3; named bits without trailing zeroes. */
void certs_ext_key_usage(struct att_buf *exts, enum certs_key_usage usage)
{
    static const uint8_t digital_signature[] = {7, 0x80}, ca[] = {1, 0x06};
    size_t m = certs_ext_begin(exts, CERTS_EXT_KEY_USAGE, true);
    certs_der_put(exts, DER_BITS,
                  usage == CERTS_KU_CA ? ATT_SLICE_ARRAY(ca) : ATT_SLICE_ARRAY(digital_signature));
    certs_ext_end(exts, m);
}

void certs_ext_eku(struct att_buf *exts, const char *const *oids, bool critical)
{
    size_t m = certs_ext_begin(exts, CERTS_EXT_EKU, critical);
    size_t seq = certs_der_begin(exts, DER_SEQUENCE);
    for (; *oids; oids++) {
        certs_der_put_oid(exts, *oids);
    }
    certs_der_end(exts, seq);
    certs_ext_end(exts, m);
}

void certs_ext_basic_leaf(struct att_buf *exts)
{
    size_t m = certs_ext_begin(exts, CERTS_EXT_BASIC, true);
    certs_der_put(exts, DER_SEQUENCE, ATT_SLICE(NULL, 0)); /* cA is FALSE by default */
    certs_ext_end(exts, m);
}

void certs_ext_basic_ca(struct att_buf *exts, bool last)
{
    static const uint8_t ca[] = {DER_BOOLEAN, 1, 0xff, DER_INTEGER, 1, 0};
    size_t m = certs_ext_begin(exts, CERTS_EXT_BASIC, true);
    certs_der_put(exts, DER_SEQUENCE, ATT_SLICE(ca, last ? 6 : 3));
    certs_ext_end(exts, m);
}

/* RFC 5280 §4.2.1.13: CRLDistributionPoints { { distributionPoint [0] { fullName [0] { URI } } } }
 */
void certs_ext_crl(struct att_buf *exts, const char *url)
{
    size_t m = certs_ext_begin(exts, CERTS_EXT_CRL, false);
    size_t points = certs_der_begin(exts, DER_SEQUENCE);
    size_t point = certs_der_begin(exts, DER_SEQUENCE);
    size_t name = certs_der_begin(exts, DER_CONTEXT_C(0));
    size_t full = certs_der_begin(exts, DER_CONTEXT_C(0));
    certs_der_put(exts, DER_CONTEXT(6), att_slice_str(url));
    certs_der_end(exts, full);
    certs_der_end(exts, name);
    certs_der_end(exts, point);
    certs_der_end(exts, points);
    certs_ext_end(exts, m);
}

/* RFC 7093 §2 method 1: the leftmost 160 bits of SHA-256 over the public key's BIT STRING value. */
static void key_id(struct att_slice spki, uint8_t ret[KEY_ID_LEN])
{
    uint8_t digest[ATT_SHA256_LEN];
    struct att_cur outer = att_cur_init(spki);
    struct att_cur in = att_cur_init(certs_der_take(&outer, DER_SEQUENCE));
    (void)certs_der_take(&in, DER_SEQUENCE);
    struct att_slice bits = certs_der_take(&in, DER_BITS);
    size_t unused = bits.len ? 1 : 0; /* the byte that counts unused bits */
    att_sha256(digest, ATT_SLICE(bits.ptr + unused, bits.len - unused));
    memcpy(ret, digest, KEY_ID_LEN);
}

static enum att_rc put_key_ids(struct certs_tbs *tbs, struct att_err *err)
{
    uint8_t own[KEY_ID_LEN];
    key_id(tbs->spki, own);
    struct att_slice issuer = ATT_SLICE_ARRAY(own);
    ASN1_OCTET_STRING *ca_id = NULL;
    if (tbs->ca_cert) {
        ca_id = X509_get_ext_d2i(tbs->ca_cert, NID_subject_key_identifier, NULL, NULL);
        if (!ca_id) {
            return att_fail(err, ATT_E_INVAL, "the CA certificate has no subject key identifier");
        }
        issuer = ATT_SLICE(ASN1_STRING_get0_data(ca_id), (size_t)ASN1_STRING_length(ca_id));
    }
    struct att_buf *exts = &tbs->extensions;
    size_t m = certs_ext_begin(exts, CERTS_EXT_SKI, false);
    certs_der_put(exts, DER_OCTETS, ATT_SLICE_ARRAY(own));
    certs_ext_end(exts, m);
    m = certs_ext_begin(exts, CERTS_EXT_AKI, false);
    size_t seq = certs_der_begin(exts, DER_SEQUENCE);
    certs_der_put(exts, DER_CONTEXT(0), issuer);
    certs_der_end(exts, seq);
    certs_ext_end(exts, m);
    ASN1_OCTET_STRING_free(ca_id);
    return ATT_OK;
}

static void put_own_name(struct att_buf *buf, const char *common_name)
{
    size_t name = certs_der_begin(buf, DER_SEQUENCE);
    if (common_name) {
        certs_put_rdn(buf, "2.5.4.3", common_name);
    }
    certs_der_end(buf, name);
}

static void put_issuer(struct att_buf *buf, const struct certs_tbs *tbs)
{
    if (!tbs->ca_cert) {
        put_own_name(buf, tbs->common_name);
        return;
    }
    /* The CA's subject as it stands in its certificate: names are compared by their bytes. */
    const uint8_t *der = NULL;
    size_t len = 0;
    if (X509_NAME_get0_der(X509_get_subject_name(tbs->ca_cert), &der, &len) != 1) {
        buf->failed = true;
        return;
    }
    att_buf_put(buf, der, len);
}

static enum att_rc check_common(const struct certs_tbs *tbs, struct att_err *err)
{
    enum att_keytype type = ATT_KEYTYPE_NONE;
    enum att_rc rc = tbs->any_key ? ATT_OK : att_keytype_of_spki(tbs->spki, &type, err);
    if (rc != ATT_OK) {
        return rc;
    }
    if (tbs->serial[0] & 0x80 || tbs->serial[0] == 0) {
        return att_fail(err, ATT_E_INVAL,
                        "serial number: expected 16 bytes, positive, without leading zero");
    }
    const struct certs_validity *v = &tbs->validity;
    if (v->not_after - v->not_before < CERTS_LIFETIME_MIN_S + CERTS_BACKDATE_S) {
        return att_fail(err, ATT_E_INVAL, "notBefore to notAfter is %lld s, expected at least %d",
                        (long long)(v->not_after - v->not_before),
                        CERTS_LIFETIME_MIN_S + CERTS_BACKDATE_S);
    }
    struct certs_cert_info ca;
    if (!tbs->ca_cert) {
        return ATT_OK;
    }
    rc = certs_cert_info(tbs->ca_cert, &ca, err);
    if (rc == ATT_OK && v->not_after > ca.not_after) {
        rc = att_fail(err, ATT_E_INVAL, "the certificate would outlive its CA by %lld s",
                      (long long)(v->not_after - ca.not_after));
    }
    return rc;
}

static void put_tbs(struct att_buf *buf, const struct certs_tbs *tbs)
{
    static const uint8_t v3[] = {2};
    size_t seq = certs_der_begin(buf, DER_SEQUENCE);
    size_t version = certs_der_begin(buf, DER_CONTEXT_C(0));
    certs_der_put_uint(buf, ATT_SLICE_ARRAY(v3));
    certs_der_end(buf, version);
    certs_der_put_uint(buf, ATT_SLICE(tbs->serial, CERTS_SERIAL_LEN));
    att_buf_put_slice(buf, certs_der_ecdsa_sha256);
    put_issuer(buf, tbs);
    size_t validity = certs_der_begin(buf, DER_SEQUENCE);
    certs_der_put_time(buf, tbs->validity.not_before);
    certs_der_put_time(buf, tbs->validity.not_after);
    certs_der_end(buf, validity);
    put_own_name(buf, tbs->common_name);
    att_buf_put_slice(buf, tbs->spki);
    size_t explicit3 = certs_der_begin(buf, DER_CONTEXT_C(3));
    certs_der_put(buf, DER_SEQUENCE, att_buf_slice(&tbs->extensions));
    certs_der_end(buf, explicit3);
    certs_der_end(buf, seq);
}

enum att_rc certs_tbs_finish(struct certs_tbs *tbs, struct att_buf *ret_tbs,
                             uint8_t ret_digest[ATT_SHA256_LEN], struct att_err *err)
{
    enum att_rc rc = check_common(tbs, err);
    if (rc == ATT_OK) {
        rc = put_key_ids(tbs, err);
    }
    struct att_buf der = ATT_BUF_INIT(CERTS_TBS_MAX);
    if (rc == ATT_OK) {
        der.failed = tbs->extensions.failed;
        put_tbs(&der, tbs);
        rc = att_buf_ok(&der, err);
    }
    if (rc == ATT_OK) {
        att_buf_put_slice(ret_tbs, att_buf_slice(&der));
        rc = att_buf_ok(ret_tbs, err);
    }
    if (rc == ATT_OK) {
        att_sha256(ret_digest, att_buf_slice(&der));
    }
    att_buf_done(&der);
    att_buf_done(&tbs->extensions);
    return rc;
}

/* The TBS's own words for its signature algorithm (RFC 5280 §4.1.2.3: the same as outside). */
static bool names_ecdsa_sha256(struct att_slice tbs)
{
    struct att_cur cur = att_cur_init(tbs);
    struct att_cur in = att_cur_init(certs_der_take(&cur, DER_SEQUENCE));
    (void)certs_der_take(&in, DER_CONTEXT_C(0));
    (void)certs_der_take(&in, DER_INTEGER);
    struct att_slice alg = certs_der_take_whole(&in, DER_SEQUENCE);
    return !in.failed && att_cur_done(&cur) && att_slice_eq(alg, certs_der_ecdsa_sha256);
}

enum att_rc certs_tbs_sign(struct att_slice tbs, EVP_PKEY *ca_key, struct att_buf *ret_cert,
                           struct att_err *err)
{
    if (tbs.len > CERTS_TBS_MAX || !names_ecdsa_sha256(tbs)) {
        return att_fail(err, ATT_E_PARSE,
                        "expected a DER TBSCertificate for ecdsa-with-SHA256 to sign");
    }
    struct att_buf sig = ATT_BUF_INIT(CERTS_SIG_DER_MAX);
    enum att_rc rc = certs_sign(ca_key, tbs, &sig, err);
    if (rc == ATT_OK) {
        size_t cert = certs_der_begin(ret_cert, DER_SEQUENCE);
        att_buf_put_slice(ret_cert, tbs);
        att_buf_put_slice(ret_cert, certs_der_ecdsa_sha256);
        size_t bits = certs_der_begin(ret_cert, DER_BITS);
        att_buf_u8(ret_cert, 0); /* no unused bits */
        att_buf_put_slice(ret_cert, att_buf_slice(&sig));
        certs_der_end(ret_cert, bits);
        certs_der_end(ret_cert, cert);
        rc = att_buf_ok(ret_cert, err);
    }
    att_buf_done(&sig);
    return rc;
}

enum att_rc certs_tbs_sign_for(struct att_slice tbs, const X509 *ca_cert, EVP_PKEY *ca_key,
                               struct att_buf *ret_cert, struct att_err *err)
{
    if (ca_cert) {
        enum att_rc rc = certs_cert_matches_key(ca_cert, ca_key, err);
        if (rc != ATT_OK) {
            att_err_prefix(err, "the CA key is not the CA certificate's");
            return rc;
        }
    }
    return certs_tbs_sign(tbs, ca_key, ret_cert, err);
}
