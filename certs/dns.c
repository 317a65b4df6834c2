#include "certs/dns.h"

#include "certs/der.h"
#include "certs/tbs.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <strings.h>

static bool label_ok(const char *label, size_t len)
{
    if (len == 0 || len > 63 || label[0] == '-' || label[len - 1] == '-') {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        bool lower = label[i] >= 'a' && label[i] <= 'z';
        if (!lower && !(label[i] >= '0' && label[i] <= '9') && label[i] != '-') {
            return false;
        }
    }
    return true;
}

bool certs_dns_name_ok(const char *name)
{
    size_t left = strnlen(name, CERTS_DNS_NAME_MAX + 1);
    const char *label = name;
    if (left > CERTS_DNS_NAME_MAX) {
        return false;
    }
    for (;;) {
        size_t n = strcspn(label, ".");
        if (!label_ok(label, n)) {
            return false;
        }
        if (!label[n]) {
            /* A last label of digits only would be an IPv4 address to whoever resolves it. */
            return strspn(label, "0123456789") != n;
        }
        label += n + 1;
    }
}

enum att_rc certs_dns_tbs(const struct certs_server_spec *spec, const X509 *ca_cert,
                          struct att_buf *ret_tbs, uint8_t ret_digest[ATT_SHA256_LEN],
                          struct att_err *err)
{
    struct certs_tbs tbs = {.serial = spec->serial,
                            .validity = spec->validity,
                            .spki = spec->spki,
                            .any_key = true,
                            .ca_cert = ca_cert};
    if (spec->n_names == 0 || spec->n_names > CERTS_DNS_NAMES_MAX) {
        return att_fail(err, ATT_E_INVAL, "a certificate for %zu names, expected 1 … %d",
                        spec->n_names, CERTS_DNS_NAMES_MAX);
    }
    struct att_buf *exts = &tbs.extensions;
    size_t m = certs_ext_begin(exts, CERTS_EXT_SAN, true); /* the subject is empty */
    size_t names = certs_der_begin(exts, DER_SEQUENCE);
    for (size_t i = 0; i < spec->n_names; i++) {
        if (!certs_dns_name_ok(spec->names[i])) {
            att_buf_done(exts);
            return att_fail(err, ATT_E_INVAL, "expected a DNS name, found \"%.80s\"",
                            spec->names[i]);
        }
        certs_der_put(exts, DER_CONTEXT(2), att_slice_str(spec->names[i]));
    }
    certs_der_end(exts, names);
    certs_ext_end(exts, m);
    certs_ext_key_usage(exts, CERTS_KU_DIGITAL_SIGNATURE);
    certs_ext_eku(exts, (const char *const[]){CERTS_EKU_SERVER, NULL}, false);
    certs_ext_basic_leaf(exts);
    if (spec->crl_url) {
        certs_ext_crl(exts, spec->crl_url);
    }
    return certs_tbs_finish(&tbs, ret_tbs, ret_digest, err);
}

/* ---- CSRs ----
 *
 * Many clients, many keys: libcrypto reads them. That its reading is the only one is asked by
 * having it write what it read. */

static void req_cleanup(X509_REQ **req)
{
    X509_REQ_free(*req);
}
static void names_cleanup(GENERAL_NAMES **names)
{
    GENERAL_NAMES_free(*names);
}
static void exts_cleanup(STACK_OF(X509_EXTENSION) * *exts)
{
    sk_X509_EXTENSION_pop_free(*exts, X509_EXTENSION_free);
}

static enum att_rc bad(struct att_err *err, enum att_rc rc, const char *what)
{
    ERR_clear_error();
    return att_fail(err, rc, "CSR: %s", what);
}

static enum att_rc read_request(struct att_slice der, X509_REQ **ret_req, struct att_err *err)
{
    if (der.len == 0 || der.len > CERTS_DNS_CSR_MAX) {
        return att_fail(err, ATT_E_LIMIT, "CSR: %zu bytes, expected 1 … %d", der.len,
                        CERTS_DNS_CSR_MAX);
    }
    const uint8_t *at = der.ptr;
    uint8_t *again = NULL;
    X509_REQ *req = d2i_X509_REQ(NULL, &at, (long)der.len);
    int len = req && at == der.ptr + der.len ? i2d_re_X509_REQ_tbs(req, &again) : -1;
    OPENSSL_free(again);
    again = NULL;
    /* The encoding is cached inside; the one above was made anew. */
    int whole = len > 0 ? i2d_X509_REQ(req, &again) : -1;
    bool same = whole > 0 && (size_t)whole == der.len && memcmp(again, der.ptr, der.len) == 0;
    OPENSSL_free(again);
    if (!same || X509_REQ_get_version(req) != X509_REQ_VERSION_1) {
        X509_REQ_free(req);
        return bad(err, ATT_E_PARSE, "expected a DER CertificationRequest of version 1");
    }
    *ret_req = req;
    return ATT_OK;
}

static bool rsa_ok(EVP_PKEY *key)
{
    BIGNUM *e = NULL;
    bool ok = EVP_PKEY_get_bits(key) >= 2048 && EVP_PKEY_get_bits(key) <= 4096 &&
              EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_RSA_E, &e) == 1 && BN_is_odd(e) &&
              BN_num_bits(e) >= 17 && BN_num_bits(e) <= 64;
    BN_free(e);
    return ok;
}

static bool ec_ok(EVP_PKEY *key)
{
    char group[32] = "";
    return EVP_PKEY_get_group_name(key, group, sizeof group, NULL) == 1 &&
           (strcmp(group, "prime256v1") == 0 || strcmp(group, "secp384r1") == 0);
}

static enum att_rc check_key(X509_REQ *req, struct certs_dns_csr *csr, struct att_err *err)
{
    EVP_PKEY *key = X509_REQ_get0_pubkey(req);
    bool ok = key && ((EVP_PKEY_is_a(key, "RSA") && rsa_ok(key)) ||
                      (EVP_PKEY_is_a(key, "EC") && ec_ok(key)));
    if (!ok) {
        return bad(err, ATT_E_PARSE, "expected a key P-256, P-384 or RSA of 2048 … 4096 bits");
    }
    uint8_t *der = NULL;
    int len = i2d_X509_PUBKEY(X509_REQ_get_X509_PUBKEY(req), &der);
    if (len > 0 && (size_t)len <= sizeof csr->spki) {
        memcpy(csr->spki, der, (size_t)len);
        csr->spki_len = (size_t)len;
    }
    OPENSSL_free(der);
    return csr->spki_len ? ATT_OK : bad(err, ATT_E_PARSE, "its key is too long");
}

static enum att_rc check_signature(X509_REQ *req, struct att_err *err)
{
    static const int algorithms[] = {NID_sha256WithRSAEncryption, NID_sha384WithRSAEncryption,
                                     NID_sha512WithRSAEncryption, NID_ecdsa_with_SHA256,
                                     NID_ecdsa_with_SHA384,       NID_ecdsa_with_SHA512};
    int nid = X509_REQ_get_signature_nid(req);
    for (size_t i = 0; i < sizeof algorithms / sizeof algorithms[0]; i++) {
        if (nid == algorithms[i]) {
            return X509_REQ_verify(req, X509_REQ_get0_pubkey(req)) == 1
                       ? ATT_OK
                       : bad(err, ATT_E_AUTH, "its self-signature does not hold");
        }
    }
    return bad(err, ATT_E_PARSE, "expected a signature by RSA (PKCS #1 v1.5) or ECDSA with SHA-2");
}

/* ---- names ---- */

struct wanted {
    const char *const *names;
    size_t n;
    bool seen[CERTS_DNS_NAMES_MAX];
    const char *device; /* a permanent identifier; names is empty then */
};

/* Marks it as asked for; false when nobody wanted it. */
static bool take_name(struct wanted *w, const uint8_t *text, size_t len)
{
    if (w->device) {
        return strlen(w->device) == len && memcmp(w->device, text, len) == 0;
    }
    for (size_t i = 0; i < w->n; i++) {
        if (strlen(w->names[i]) == len && strncasecmp(w->names[i], (const char *)text, len) == 0) {
            w->seen[i] = true;
            return true;
        }
    }
    return false;
}

static enum att_rc check_subject(X509_REQ *req, struct wanted *w, struct att_err *err)
{
    const X509_NAME *subject = X509_REQ_get_subject_name(req);
    int n = X509_NAME_entry_count(subject);
    if (n == 0) {
        return ATT_OK;
    }
    const X509_NAME_ENTRY *entry = X509_NAME_get_entry(subject, 0);
    const ASN1_STRING *text = X509_NAME_ENTRY_get_data(entry);
    if (n != 1 || OBJ_obj2nid(X509_NAME_ENTRY_get_object(entry)) != NID_commonName ||
        !take_name(w, ASN1_STRING_get0_data(text), (size_t)ASN1_STRING_length(text))) {
        return bad(err, ATT_E_DENIED,
                   "expected no subject, or a CN that is one of the order's names");
    }
    return ATT_OK;
}

/* RFC 4043 §2; built as it must be, and compared. */
static enum att_rc check_device_san(X509_EXTENSION *ext, const struct wanted *w,
                                    struct att_err *err)
{
    const ASN1_OCTET_STRING *have = X509_EXTENSION_get_data(ext);
    att_autobuf want = {0};
    size_t names = certs_der_begin(&want, DER_SEQUENCE);
    certs_put_permanent_id(&want, w->device);
    certs_der_end(&want, names);
    if (att_buf_ok(&want, err)) {
        return ATT_E_NOMEM;
    }
    return att_slice_eq(att_buf_slice(&want),
                        ATT_SLICE(ASN1_STRING_get0_data(have), (size_t)ASN1_STRING_length(have)))
               ? ATT_OK
               : bad(err, ATT_E_DENIED,
                     "its subject alternative names are not the order's identifier alone");
}

static enum att_rc check_san(X509_EXTENSION *ext, struct wanted *w, struct att_err *err)
{
    if (w->device) {
        return check_device_san(ext, w, err);
    }
    ATT_CLEANUP(names_cleanup) GENERAL_NAMES *names = X509V3_EXT_d2i(ext);
    if (!names || sk_GENERAL_NAME_num(names) > CERTS_DNS_NAMES_MAX) {
        return bad(err, ATT_E_PARSE,
                   "its subject alternative names cannot be read, or are too many");
    }
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        if (name->type != GEN_DNS || !take_name(w, ASN1_STRING_get0_data(name->d.dNSName),
                                                (size_t)ASN1_STRING_length(name->d.dNSName))) {
            return bad(err, ATT_E_DENIED, "it asks for a name that was not ordered");
        }
    }
    return ATT_OK;
}

static enum att_rc check_extensions(X509_REQ *req, struct wanted *w, struct att_err *err)
{
    ATT_CLEANUP(exts_cleanup) STACK_OF(X509_EXTENSION) *exts = X509_REQ_get_extensions(req);
    bool san = false;
    for (int i = 0; i < sk_X509_EXTENSION_num(exts); i++) {
        X509_EXTENSION *ext = sk_X509_EXTENSION_value(exts, i);
        int nid = OBJ_obj2nid(X509_EXTENSION_get_object(ext));
        enum att_rc rc = ATT_OK;
        if (nid == NID_subject_alt_name && !san) {
            san = true;
            rc = check_san(ext, w, err);
        } else if (nid != NID_key_usage && nid != NID_ext_key_usage &&
                   nid != NID_basic_constraints && nid != NID_subject_key_identifier) {
            rc = bad(err, ATT_E_DENIED, "it asks for an extension that is not issued here");
        }
        if (rc != ATT_OK) {
            return rc;
        }
    }
    return ATT_OK;
}

static enum att_rc check_names(X509_REQ *req, struct wanted *w, struct att_err *err)
{
    if (!w->device && (w->n == 0 || w->n > CERTS_DNS_NAMES_MAX)) {
        return att_fail(err, ATT_E_INVAL, "CSR: %zu names", w->n);
    }
    enum att_rc rc = check_subject(req, w, err);
    if (rc == ATT_OK) {
        rc = check_extensions(req, w, err);
    }
    for (size_t i = 0; i < w->n && rc == ATT_OK; i++) {
        if (!w->seen[i]) {
            rc = att_fail(err, ATT_E_DENIED, "CSR: it does not name %.80s, which was ordered",
                          w->names[i]);
        }
    }
    return rc;
}

static enum att_rc verify(struct att_slice der, struct wanted *w, struct certs_dns_csr *ret_csr,
                          struct att_err *err)
{
    ATT_CLEANUP(req_cleanup) X509_REQ *req = NULL;
    struct certs_dns_csr csr = {0};
    enum att_rc rc = read_request(der, &req, err);
    if (rc == ATT_OK) {
        rc = check_key(req, &csr, err);
    }
    if (rc == ATT_OK) {
        rc = check_signature(req, err);
    }
    if (rc == ATT_OK) {
        rc = check_names(req, w, err);
    }
    if (rc == ATT_OK) {
        *ret_csr = csr;
    } else {
        att_err_reason(err, "badCSR");
    }
    return rc;
}

enum att_rc certs_dns_csr_verify(struct att_slice der, const char *const *names, size_t n_names,
                                 struct certs_dns_csr *ret_csr, struct att_err *err)
{
    struct wanted w = {.names = names, .n = n_names};
    return verify(der, &w, ret_csr, err);
}

enum att_rc certs_device_csr_verify(struct att_slice der, const char *identifier,
                                    struct certs_dns_csr *ret_csr, struct att_err *err)
{
    struct wanted w = {.device = identifier};
    return verify(der, &w, ret_csr, err);
}
