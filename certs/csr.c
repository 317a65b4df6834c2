#include "certs/csr.h"

#include "certs/der.h"
#include "certs/key.h"
#include "certs/oid.h"
#include "certs/san.h"
#include "certs/tbs.h"

#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <string.h>

#define OID_EXTENSION_REQUEST "1.2.840.113549.1.9.14" /* RFC 2985 §5.4.2 */

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

static void put_device_san(struct att_buf *buf, const char *identifier)
{
    size_t names = certs_der_begin(buf, DER_SEQUENCE);
    certs_put_permanent_id(buf, identifier);
    certs_der_end(buf, names);
}

/* value: GeneralNames. */
static bool add_san(X509_REQ *req, const struct att_buf *value)
{
    ASN1_OCTET_STRING *octets = ASN1_OCTET_STRING_new();
    X509_EXTENSION *ext = NULL;
    STACK_OF(X509_EXTENSION) *exts = NULL;
    bool ok = !value->failed && octets &&
              ASN1_OCTET_STRING_set(octets, value->ptr, (int)value->len) == 1 &&
              (ext = X509_EXTENSION_create_by_NID(NULL, NID_subject_alt_name, 1, octets)) &&
              X509v3_add_ext(&exts, ext, -1) && X509_REQ_add_extensions(req, exts) == 1;
    sk_X509_EXTENSION_pop_free(exts, X509_EXTENSION_free);
    X509_EXTENSION_free(ext);
    ASN1_OCTET_STRING_free(octets);
    return ok;
}

static enum att_rc create(EVP_PKEY *key, const struct att_buf *names, struct att_buf *ret_der,
                          struct att_err *err)
{
    att_autobuf spki = {0};
    certs_autokey *pub = NULL;
    enum att_rc rc = certs_key_spki(key, &spki, err);
    if (rc == ATT_OK) {
        rc = certs_key_from_spki(att_buf_slice(&spki), &pub, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    ATT_CLEANUP(req_cleanup) X509_REQ *req = X509_REQ_new();
    if (!req || X509_REQ_set_version(req, X509_REQ_VERSION_1) != 1 ||
        X509_REQ_set_pubkey(req, pub) != 1 || !add_san(req, names)) {
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

enum att_rc certs_csr_create(EVP_PKEY *key, const char *san_uri, struct att_buf *ret_der,
                             struct att_err *err)
{
    struct certs_spiffe_id id;
    att_autobuf names = {0};
    enum att_rc rc = certs_spiffe_parse(att_slice_str(san_uri), &id, err);
    put_san(&names, san_uri);
    return rc == ATT_OK ? create(key, &names, ret_der, err) : rc;
}

enum att_rc certs_csr_create_device(EVP_PKEY *key, const char *identifier, struct att_buf *ret_der,
                                    struct att_err *err)
{
    att_autobuf names = {0};
    enum att_rc rc = certs_identifier_check(att_slice_str(identifier), err);
    put_device_san(&names, identifier);
    return rc == ATT_OK ? create(key, &names, ret_der, err) : rc;
}

/* version 0, empty subject, key, extensionRequest { SAN, critical }: RFC 2986 §4.1. */
static void put_info(struct att_buf *buf, struct att_slice spki, const char *uri)
{
    static const uint8_t version = 0, yes = 0xff;
    att_autobuf names = {0};
    put_san(&names, uri);
    buf->failed |= names.failed;
    size_t info = certs_der_begin(buf, DER_SEQUENCE);
    certs_der_put(buf, DER_INTEGER, ATT_SLICE(&version, 1));
    certs_der_put(buf, DER_SEQUENCE, ATT_SLICE(NULL, 0));
    att_buf_put_slice(buf, spki);
    size_t attributes = certs_der_begin(buf, DER_CONTEXT_C(0));
    size_t attribute = certs_der_begin(buf, DER_SEQUENCE);
    certs_der_put_oid(buf, OID_EXTENSION_REQUEST);
    size_t values = certs_der_begin(buf, DER_SET);
    size_t exts = certs_der_begin(buf, DER_SEQUENCE);
    size_t ext = certs_der_begin(buf, DER_SEQUENCE);
    certs_der_put_oid(buf, CERTS_EXT_SAN);
    certs_der_put(buf, DER_BOOLEAN, ATT_SLICE(&yes, 1));
    certs_der_put(buf, DER_OCTETS, att_buf_slice(&names));
    certs_der_end(buf, ext);
    certs_der_end(buf, exts);
    certs_der_end(buf, values);
    certs_der_end(buf, attribute);
    certs_der_end(buf, attributes);
    certs_der_end(buf, info);
}

static void put_signed(struct att_buf *buf, struct att_slice info, struct att_slice signature)
{
    size_t request = certs_der_begin(buf, DER_SEQUENCE);
    att_buf_put_slice(buf, info);
    att_buf_put_slice(buf, certs_der_rsa_sha256);
    size_t bits = certs_der_begin(buf, DER_BITS);
    att_buf_u8(buf, 0);
    att_buf_put_slice(buf, signature);
    certs_der_end(buf, bits);
    certs_der_end(buf, request);
}

enum att_rc certs_csr_create_rsa(struct att_slice spki, const char *san_uri,
                                 certs_csr_sign_fn *sign, void *user, struct att_buf *ret_der,
                                 struct att_err *err)
{
    struct certs_spiffe_id id;
    uint8_t digest[ATT_SHA256_LEN];
    att_autobuf info = ATT_BUF_INIT(CERTS_CSR_MAX), signature = ATT_BUF_INIT(ATT_RSA_MODULUS_MAX);
    enum att_rc rc = certs_spiffe_parse(att_slice_str(san_uri), &id, err);
    if (rc == ATT_OK && att_keytype_modulus(spki).len == 0) {
        rc = att_fail(err, ATT_E_INVAL, "CSR: expected the SubjectPublicKeyInfo of an RSA key");
    }
    if (rc == ATT_OK) {
        put_info(&info, spki, san_uri);
        rc = att_buf_ok(&info, err);
    }
    if (rc == ATT_OK) {
        att_sha256(digest, att_buf_slice(&info));
        rc = sign(user, ATT_SLICE_ARRAY(digest), &signature, err);
    }
    if (rc == ATT_OK) {
        put_signed(ret_der, att_buf_slice(&info), att_buf_slice(&signature));
        rc = att_buf_ok(ret_der, err);
    }
    return rc;
}

/* ---- a stranger's ----
 *
 * Read by the strict cursor of der.h and not by d2i_X509_REQ, which builds a decoder for the key in
 * it (twice the time of the signature's verification), takes some BER, and would have to be asked
 * to encode again what it understood. The signature is over the very bytes that came. */

#define OID_CN "2.5.4.3"

/* The parts of a CertificationRequest (RFC 2986 §4.2), all within what was sent. */
struct request {
    struct att_slice info, alg, sig; /* info and alg with their headers */
    struct att_slice version, spki;  /* spki with its header */
    struct att_slice subject;        /* the RDNs */
    struct att_slice attributes;     /* the Attributes */
};

static enum att_rc bad(struct att_err *err, enum att_rc rc, const char *what)
{
    return att_fail(err, rc, "CSR: %s", what);
}

/* Each member is an element with this tag, whole and in its shortest form. */
static bool all_tagged(struct att_slice members, uint8_t tag)
{
    struct att_cur cur = att_cur_init(members);
    while (cur.left && !cur.failed) {
        (void)certs_der_take(&cur, tag);
    }
    return !cur.failed;
}

static bool read_info(struct att_slice info, struct request *ret)
{
    struct att_cur outer = att_cur_init(info);
    struct att_cur cur = att_cur_init(certs_der_take(&outer, DER_SEQUENCE));
    ret->version = certs_der_take(&cur, DER_INTEGER);
    ret->subject = certs_der_take(&cur, DER_SEQUENCE);
    ret->spki = certs_der_take_whole(&cur, DER_SEQUENCE);
    /* Not OPTIONAL in RFC 2986, but some leave it out when there is none. */
    ret->attributes =
        cur.left ? certs_der_take(&cur, DER_CONTEXT_C(0)) : (struct att_slice){NULL, 0};
    return att_cur_done(&cur) && all_tagged(ret->subject, DER_SET) &&
           all_tagged(ret->attributes, DER_SEQUENCE);
}

static enum att_rc read_request(struct att_slice der, struct request *ret, struct att_err *err)
{
    if (der.len > CERTS_CSR_MAX) {
        return att_fail(err, ATT_E_LIMIT, "CSR: %zu bytes, at most %d are read", der.len,
                        CERTS_CSR_MAX);
    }
    struct att_cur outer = att_cur_init(der);
    struct att_cur cur = att_cur_init(certs_der_take(&outer, DER_SEQUENCE));
    struct request request = {0};
    request.info = certs_der_take_whole(&cur, DER_SEQUENCE);
    request.alg = certs_der_take_whole(&cur, DER_SEQUENCE);
    request.sig = certs_der_take(&cur, DER_BITS);
    if (!att_cur_done(&cur) || outer.failed || !read_info(request.info, &request)) {
        return bad(err, ATT_E_PARSE, "expected a DER CertificationRequest");
    }
    if (outer.left) {
        return bad(err, ATT_E_PARSE, "bytes follow the CertificationRequest");
    }
    *ret = request;
    return ATT_OK;
}

static enum att_rc check_key(const struct request *request, EVP_PKEY **ret_key,
                             struct certs_csr *csr, struct att_err *err)
{
    enum att_rc rc = att_keytype_key(request->spki, ret_key, err);
    if (rc != ATT_OK) {
        att_err_prefix(err, "CSR");
        return rc == ATT_E_DENIED ? ATT_E_PARSE : rc; /* it is no name that is wrong */
    }
    memcpy(csr->spki, request->spki.ptr, request->spki.len); /* a key's that was taken: fits */
    csr->spki_len = request->spki.len;
    att_sha256(csr->spki_sha256, request->spki);
    return ATT_OK;
}

static enum att_rc check_signature(const struct request *request, EVP_PKEY *key,
                                   struct att_err *err)
{
    bool rsa = EVP_PKEY_is_a(key, "RSA");
    if (!att_slice_eq(request->alg, rsa ? certs_der_rsa_sha256 : certs_der_ecdsa_sha256)) {
        return bad(err, ATT_E_PARSE,
                   rsa ? "expected sha256WithRSAEncryption as the signature algorithm"
                       : "expected ecdsa-with-SHA256 as the signature algorithm");
    }
    /* The first byte counts unused bits: a signature has none. */
    if (request->sig.len < 2 || request->sig.ptr[0] != 0) {
        return bad(err, ATT_E_PARSE, "expected a signature of whole bytes");
    }
    struct att_slice sig = ATT_SLICE(request->sig.ptr + 1, request->sig.len - 1);
    uint8_t digest[ATT_SHA256_LEN];
    att_sha256(digest, request->info);
    enum att_rc rc = rsa ? att_rsa_verify(key, ATT_RSA_PKCS1, ATT_SLICE_ARRAY(digest), sig, err)
                         : certs_sig_verify(key, request->info, sig, err);
    return rc == ATT_OK ? ATT_OK : bad(err, ATT_E_AUTH, "its self-signature does not hold");
}

/* The next element is this object identifier. */
static bool take_oid(struct att_cur *cur, const char *dotted)
{
    att_autobuf want = {0};
    certs_der_put_oid(&want, dotted);
    return att_buf_ok(&want, NULL) == ATT_OK &&
           att_slice_eq(certs_der_take_whole(cur, DER_OID), att_buf_slice(&want));
}

/* One RDN of one attribute: CN, as a text of either kind that RFC 5280 §4.1.2.4 has for it. */
static bool is_common_name(struct att_slice rdns, const char *expected)
{
    struct att_cur subject = att_cur_init(rdns);
    struct att_cur rdn = att_cur_init(certs_der_take(&subject, DER_SET));
    struct att_cur cur = att_cur_init(certs_der_take(&rdn, DER_SEQUENCE));
    bool named = take_oid(&cur, OID_CN) && cur.left > 0;
    uint8_t tag = named && cur.ptr[0] == DER_PRINTABLE ? DER_PRINTABLE : DER_UTF8;
    struct att_slice text = certs_der_take(&cur, tag);
    return named && att_cur_done(&cur) && att_cur_done(&rdn) && att_cur_done(&subject) &&
           att_slice_eq(text, att_slice_str(expected));
}

static enum att_rc check_subject(const struct request *request, const char *expected,
                                 struct att_err *err)
{
    bool fits =
        request->subject.len == 0 || (expected && is_common_name(request->subject, expected));
    return fits ? ATT_OK
                : bad(err, ATT_E_DENIED,
                      "expected an empty subject, or the ordered identifier as its only CN");
}

/* exts: the Extensions of an extensionRequest. */
static enum att_rc check_san(struct att_slice exts, const char *expected, struct certs_csr *csr,
                             struct att_err *err)
{
    struct att_cur list = att_cur_init(exts);
    struct att_cur cur = att_cur_init(certs_der_take(&list, DER_SEQUENCE));
    if (list.failed || list.left || !take_oid(&cur, CERTS_EXT_SAN)) {
        return bad(err, ATT_E_DENIED,
                   "expected no requested extension but a subject alternative name");
    }
    if (cur.left && cur.ptr[0] == DER_BOOLEAN) {
        struct att_slice critical = certs_der_take(&cur, DER_BOOLEAN);
        if (critical.len != 1 || critical.ptr[0] != 0xff) { /* X.690 §11.1, §11.5 */
            return bad(err, ATT_E_PARSE, "requested extensions cannot be read");
        }
    }
    struct att_slice value = certs_der_take(&cur, DER_OCTETS);
    if (!att_cur_done(&cur)) {
        return bad(err, ATT_E_PARSE, "requested extensions cannot be read");
    }
    att_autobuf want = {0};
    put_san(&want, expected ? expected : "");
    if (!expected || want.failed || !att_slice_eq(att_buf_slice(&want), value)) {
        return att_fail(err, ATT_E_DENIED,
                        "CSR: expected exactly one SAN, the URI %.200s, or none at all",
                        expected ? expected : "(none)");
    }
    csr->has_san = true;
    return ATT_OK;
}

static enum att_rc check_attributes(const struct request *request, const char *expected,
                                    struct certs_csr *csr, struct att_err *err)
{
    if (request->attributes.len == 0) {
        return ATT_OK;
    }
    struct att_cur list = att_cur_init(request->attributes);
    struct att_cur cur = att_cur_init(certs_der_take(&list, DER_SEQUENCE));
    bool asks = take_oid(&cur, OID_EXTENSION_REQUEST);
    struct att_cur values = att_cur_init(certs_der_take(&cur, DER_SET));
    if (!asks || list.left || !att_cur_done(&cur)) {
        return bad(err, ATT_E_DENIED, "expected no attribute but one extensionRequest");
    }
    struct att_slice exts = certs_der_take(&values, DER_SEQUENCE);
    if (!att_cur_done(&values)) {
        return bad(err, ATT_E_PARSE, "extensionRequest is not one SEQUENCE");
    }
    return check_san(exts, expected, csr, err);
}

enum att_rc certs_csr_verify(struct att_slice der, const char *expected_uri,
                             struct certs_csr *ret_csr, struct att_err *err)
{
    struct request request = {0};
    struct certs_csr csr = {0};
    certs_autokey *key = NULL;
    enum att_rc rc = read_request(der, &request, err);
    if (rc == ATT_OK && (request.version.len != 1 || request.version.ptr[0] != 0)) {
        rc = bad(err, ATT_E_PARSE, "expected version 1");
    }
    if (rc == ATT_OK) {
        rc = check_key(&request, &key, &csr, err);
    }
    if (rc == ATT_OK) {
        rc = check_signature(&request, key, err);
    }
    if (rc == ATT_OK) {
        rc = check_subject(&request, expected_uri, err);
    }
    if (rc == ATT_OK) {
        rc = check_attributes(&request, expected_uri, &csr, err);
    }
    if (rc == ATT_OK) {
        *ret_csr = csr;
    } else {
        att_err_reason(err, "badCSR");
    }
    return rc;
}
