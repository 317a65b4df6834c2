#include "certs/csr.h"

#include "certs/der.h"
#include "certs/key.h"
#include "certs/oid.h"
#include "certs/san.h"

#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <string.h>

static void req_cleanup(X509_REQ **req)
{
    X509_REQ_free(*req);
}

/* GeneralNames with this one URI. */
static void put_san(struct att_buf *buf, const char *uri)
{
    size_t names = certs_der_begin(buf, DER_SEQUENCE);
    certs_der_put(buf, DER_CONTEXT(6), att_slice_str(uri));
    certs_der_end(buf, names);
}

static bool add_san(X509_REQ *req, const char *uri)
{
    att_autobuf value = {0};
    put_san(&value, uri);
    ASN1_OCTET_STRING *octets = ASN1_OCTET_STRING_new();
    X509_EXTENSION *ext = NULL;
    STACK_OF(X509_EXTENSION) *exts = NULL;
    bool ok = !value.failed && octets &&
              ASN1_OCTET_STRING_set(octets, value.ptr, (int)value.len) == 1 &&
              (ext = X509_EXTENSION_create_by_NID(NULL, NID_subject_alt_name, 1, octets)) &&
              X509v3_add_ext(&exts, ext, -1) && X509_REQ_add_extensions(req, exts) == 1;
    sk_X509_EXTENSION_pop_free(exts, X509_EXTENSION_free);
    X509_EXTENSION_free(ext);
    ASN1_OCTET_STRING_free(octets);
    return ok;
}

enum att_rc certs_csr_create(EVP_PKEY *key, const char *san_uri, struct att_buf *ret_der,
                             struct att_err *err)
{
    struct certs_spiffe_id id;
    att_autobuf spki = {0};
    certs_autokey *pub = NULL;
    enum att_rc rc = certs_spiffe_parse(att_slice_str(san_uri), &id, err);
    if (rc == ATT_OK) {
        rc = certs_key_spki(key, &spki, err);
    }
    if (rc == ATT_OK) {
        rc = certs_key_from_spki(att_buf_slice(&spki), &pub, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    ATT_CLEANUP(req_cleanup) X509_REQ *req = X509_REQ_new();
    if (!req || X509_REQ_set_version(req, X509_REQ_VERSION_1) != 1 ||
        X509_REQ_set_pubkey(req, pub) != 1 || !add_san(req, san_uri)) {
        return att_fail_openssl(err, ATT_E_CRYPTO, "build the CSR");
    }
    if (X509_REQ_sign(req, key, EVP_sha256()) <= 0) {
        rc = certs_key_remote_error(err);
        return rc != ATT_OK ? rc : att_fail_openssl(err, ATT_E_CRYPTO, "sign the CSR");
    }
    uint8_t *der = NULL;
    int len = i2d_X509_REQ(req, &der);
    if (len <= 0) {
        return att_fail_openssl(err, ATT_E_CRYPTO, "encode the CSR");
    }
    att_buf_put(ret_der, der, (size_t)len);
    OPENSSL_free(der);
    return att_buf_ok(ret_der, err);
}

/* ---- a stranger's ---- */

static enum att_rc bad(struct att_err *err, enum att_rc rc, const char *what)
{
    return att_fail(err, rc, "CSR: %s", what);
}

/* d2i accepts some BER; what it understood must encode to what was sent. */
static enum att_rc read_exact(struct att_slice der, X509_REQ **ret_req, struct att_err *err)
{
    if (der.len > CERTS_CSR_MAX) {
        return att_fail(err, ATT_E_LIMIT, "CSR: %zu bytes, at most %d are read", der.len,
                        CERTS_CSR_MAX);
    }
    const uint8_t *p = der.ptr;
    ATT_CLEANUP(req_cleanup) X509_REQ *req = d2i_X509_REQ(NULL, &p, (long)der.len);
    if (!req) {
        return att_fail_openssl(err, ATT_E_PARSE, "CSR: expected a DER CertificationRequest");
    }
    if (p != der.ptr + der.len) {
        return bad(err, ATT_E_PARSE, "bytes follow the CertificationRequest");
    }
    uint8_t *tbs = NULL, *again = NULL;
    int tbs_len = i2d_re_X509_REQ_tbs(req, &tbs); /* drops the cached encoding */
    int len = i2d_X509_REQ(req, &again);
    bool same = tbs_len > 0 && len > 0 && att_slice_eq(der, ATT_SLICE(again, (size_t)len));
    OPENSSL_free(tbs);
    OPENSSL_free(again);
    if (!same) {
        return bad(err, ATT_E_PARSE, "not DER: it does not re-encode to the same bytes");
    }
    *ret_req = req;
    req = NULL;
    return ATT_OK;
}

static enum att_rc check_key(X509_REQ *req, struct certs_csr *csr, struct att_err *err)
{
    uint8_t *der = NULL;
    int len = i2d_X509_PUBKEY(X509_REQ_get_X509_PUBKEY(req), &der);
    if (len <= 0) {
        return att_fail_openssl(err, ATT_E_PARSE, "CSR: public key");
    }
    certs_autokey *key = NULL;
    enum att_rc rc = certs_key_from_spki(ATT_SLICE(der, (size_t)len), &key, err);
    if (rc == ATT_OK) { /* its length is fixed and fits */
        memcpy(csr->spki, der, (size_t)len);
        csr->spki_len = (size_t)len;
        att_sha256(csr->spki_sha256, ATT_SLICE(der, (size_t)len));
    } else {
        att_err_prefix(err, "CSR");
    }
    OPENSSL_free(der);
    if (rc != ATT_OK) {
        return rc;
    }
    const X509_ALGOR *alg = NULL;
    X509_REQ_get0_signature(req, NULL, &alg);
    uint8_t *alg_der = NULL;
    int alg_len = i2d_X509_ALGOR(alg, &alg_der);
    bool ecdsa =
        alg_len > 0 && att_slice_eq(ATT_SLICE(alg_der, (size_t)alg_len), certs_der_ecdsa_sha256);
    OPENSSL_free(alg_der);
    if (!ecdsa) {
        return bad(err, ATT_E_PARSE, "expected ecdsa-with-SHA256 as the signature algorithm");
    }
    if (X509_REQ_verify(req, key) != 1) {
        return att_fail_openssl(err, ATT_E_AUTH, "CSR: its self-signature does not hold");
    }
    return ATT_OK;
}

static enum att_rc check_subject(X509_REQ *req, const char *expected, struct att_err *err)
{
    const X509_NAME *subject = X509_REQ_get_subject_name(req);
    int n = X509_NAME_entry_count(subject);
    if (n == 0) {
        return ATT_OK;
    }
    const X509_NAME_ENTRY *entry = X509_NAME_get_entry(subject, 0);
    const ASN1_STRING *value = X509_NAME_ENTRY_get_data(entry);
    bool fits =
        n == 1 && OBJ_obj2nid(X509_NAME_ENTRY_get_object(entry)) == NID_commonName && expected &&
        att_slice_eq(ATT_SLICE(ASN1_STRING_get0_data(value), (size_t)ASN1_STRING_length(value)),
                     att_slice_str(expected));
    return fits ? ATT_OK
                : bad(err, ATT_E_DENIED,
                      "expected an empty subject, or the ordered identifier as its only CN");
}

static enum att_rc check_san(STACK_OF(X509_EXTENSION) * exts, const char *expected,
                             struct certs_csr *csr, struct att_err *err)
{
    X509_EXTENSION *ext = sk_X509_EXTENSION_value(exts, 0);
    if (sk_X509_EXTENSION_num(exts) != 1 ||
        OBJ_obj2nid(X509_EXTENSION_get_object(ext)) != NID_subject_alt_name) {
        return bad(err, ATT_E_DENIED,
                   "expected no requested extension but a subject alternative name");
    }
    const ASN1_OCTET_STRING *value = X509_EXTENSION_get_data(ext);
    att_autobuf want = {0};
    put_san(&want, expected ? expected : "");
    if (!expected || want.failed ||
        !att_slice_eq(att_buf_slice(&want),
                      ATT_SLICE(ASN1_STRING_get0_data(value), (size_t)ASN1_STRING_length(value)))) {
        return att_fail(err, ATT_E_DENIED,
                        "CSR: expected exactly one SAN, the URI %.200s, or none at all",
                        expected ? expected : "(none)");
    }
    csr->has_san = true;
    return ATT_OK;
}

static enum att_rc check_extensions(X509_REQ *req, const char *expected, struct certs_csr *csr,
                                    struct att_err *err)
{
    int n = X509_REQ_get_attr_count(req);
    if (n == 0) {
        return ATT_OK;
    }
    X509_ATTRIBUTE *attr = X509_REQ_get_attr(req, 0);
    if (n != 1 || OBJ_obj2nid(X509_ATTRIBUTE_get0_object(attr)) != NID_ext_req ||
        X509_ATTRIBUTE_count(attr) != 1) {
        return bad(err, ATT_E_DENIED, "expected no attribute but one extensionRequest");
    }
    const ASN1_TYPE *value = X509_ATTRIBUTE_get0_type(attr, 0);
    if (!value || ASN1_TYPE_get(value) != V_ASN1_SEQUENCE) {
        return bad(err, ATT_E_PARSE, "extensionRequest is not a SEQUENCE");
    }
    const ASN1_STRING *seq = value->value.sequence;
    const uint8_t *p = ASN1_STRING_get0_data(seq), *end = p + ASN1_STRING_length(seq);
    STACK_OF(X509_EXTENSION) *exts = d2i_X509_EXTENSIONS(NULL, &p, end - p);
    enum att_rc rc = exts && p == end
                         ? check_san(exts, expected, csr, err)
                         : bad(err, ATT_E_PARSE, "requested extensions cannot be read");
    sk_X509_EXTENSION_pop_free(exts, X509_EXTENSION_free);
    return rc;
}

enum att_rc certs_csr_verify(struct att_slice der, const char *expected_uri,
                             struct certs_csr *ret_csr, struct att_err *err)
{
    ATT_CLEANUP(req_cleanup) X509_REQ *req = NULL;
    struct certs_csr csr = {0};
    enum att_rc rc = read_exact(der, &req, err);
    if (rc == ATT_OK && X509_REQ_get_version(req) != X509_REQ_VERSION_1) {
        rc = bad(err, ATT_E_PARSE, "expected version 1");
    }
    if (rc == ATT_OK) {
        rc = check_key(req, &csr, err);
    }
    if (rc == ATT_OK) {
        rc = check_subject(req, expected_uri, err);
    }
    if (rc == ATT_OK) {
        rc = check_extensions(req, expected_uri, &csr, err);
    }
    if (rc == ATT_OK) {
        *ret_csr = csr;
    } else {
        att_err_reason(err, "badCSR");
    }
    return rc;
}
