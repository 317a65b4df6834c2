#include "certs/chain.h"

#include "attestd/base/enc.h"
#include "certs/der.h"
#include "certs/key.h"
#include "certs/mut.h"
#include "certs/oid.h"
#include "certs/san.h"

#include <openssl/x509v3.h>
#include <openssl/x509_vfy.h>
#include <string.h>
#include <time.h>

static enum att_rc refuse(struct att_err *err, const char *reason, const char *what)
{
    att_fail(err, ATT_E_AUTH, "%s", what);
    att_err_reason(err, reason);
    return ATT_E_AUTH;
}

static const char *path_reason(int code)
{
    switch (code) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
        return "chainExpired";
    case X509_V_ERR_CERT_NOT_YET_VALID:
        return "chainNotYet";
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
    case X509_V_ERR_UNABLE_TO_DECRYPT_CERT_SIGNATURE:
    case X509_V_ERR_UNABLE_TO_DECODE_ISSUER_PUBLIC_KEY:
        return "chainSignature";
    case X509_V_ERR_PERMITTED_VIOLATION:
    case X509_V_ERR_EXCLUDED_VIOLATION:
    case X509_V_ERR_SUBTREE_MINMAX:
    case X509_V_ERR_UNSUPPORTED_CONSTRAINT_TYPE:
    case X509_V_ERR_UNSUPPORTED_CONSTRAINT_SYNTAX:
    case X509_V_ERR_UNSUPPORTED_NAME_SYNTAX:
        return "chainNames";
    case X509_V_ERR_INVALID_CA:
    case X509_V_ERR_PATH_LENGTH_EXCEEDED:
    case X509_V_ERR_KEYUSAGE_NO_CERTSIGN:
        return "chainCa";
    case X509_V_ERR_EE_KEY_TOO_SMALL:
    case X509_V_ERR_CA_KEY_TOO_SMALL:
    case X509_V_ERR_CA_MD_TOO_WEAK:
        return "chainAlgorithm";
    default:
        return "chainPath";
    }
}

static enum att_rc verify_path(const STACK_OF(X509) * certs, const STACK_OF(X509) * roots,
                               int64_t at_s, struct att_err *err)
{
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    if (!ctx ||
        X509_STORE_CTX_init(ctx, NULL, sk_X509_value(certs, 0), certs_mut_stack(certs)) != 1) {
        X509_STORE_CTX_free(ctx);
        return att_fail_openssl(err, ATT_E_NOMEM, "path validation");
    }
    X509_STORE_CTX_set0_trusted_stack(ctx, certs_mut_stack(roots));
    X509_VERIFY_PARAM *param = X509_STORE_CTX_get0_param(ctx);
    X509_VERIFY_PARAM_set_time(param, (time_t)at_s);
    X509_VERIFY_PARAM_set_auth_level(param, 2); /* 112 bits: no SHA-1, no RSA-1024 */
    X509_VERIFY_PARAM_set_depth(param, CERTS_CHAIN_MAX_CERTS);
    (void)X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_X509_STRICT);
    int ok = X509_verify_cert(ctx);
    int code = X509_STORE_CTX_get_error(ctx);
    int depth = X509_STORE_CTX_get_error_depth(ctx);
    X509_STORE_CTX_free(ctx);
    if (ok == 1) {
        return ATT_OK;
    }
    att_fail_openssl(err, ATT_E_AUTH, "certificate %d of the path: %s", depth,
                     X509_verify_cert_error_string(code));
    att_err_reason(err, path_reason(code));
    return ATT_E_AUTH;
}

static bool has_eku(const X509 *leaf, const char *dotted)
{
    EXTENDED_KEY_USAGE *eku = X509_get_ext_d2i(leaf, NID_ext_key_usage, NULL, NULL);
    bool found = false;
    for (int i = 0; i < sk_ASN1_OBJECT_num(eku); i++) {
        found |= certs_oid_is(sk_ASN1_OBJECT_value(eku, i), dotted);
    }
    EXTENDED_KEY_USAGE_free(eku);
    return found;
}

static enum att_rc check_leaf(const X509 *leaf, enum certs_purpose purpose, struct att_err *err)
{
    X509 *cert = certs_mut_x509(leaf);
    const char *eku = purpose == CERTS_PURPOSE_AK           ? CERTS_OID_EKU_AK
                      : purpose == CERTS_PURPOSE_HOST_VIEW  ? CERTS_OID_EKU_HOST_VIEW
                      : purpose == CERTS_PURPOSE_DEVICE     ? "1.3.6.1.5.5.7.3.2"
                      : purpose == CERTS_PURPOSE_WORKLOAD   ? "1.3.6.1.5.5.7.3.2"
                      : purpose == CERTS_PURPOSE_TLS_SERVER ? "1.3.6.1.5.5.7.3.1"
                                                            : NULL;
    if (!eku) {
        return att_fail(err, ATT_E_INVAL, "verify a chain for no purpose");
    }
    if ((X509_get_extension_flags(cert) & EXFLAG_CA) || X509_check_ca(cert) != 0) {
        return refuse(err, "chainCa", "the leaf is a CA certificate");
    }
    uint32_t usage = X509_get_key_usage(cert);
    if (usage == UINT32_MAX || !(usage & KU_DIGITAL_SIGNATURE) ||
        usage & (KU_KEY_CERT_SIGN | KU_CRL_SIGN)) {
        return refuse(err, "chainKeyUsage",
                      "the leaf's key usage must have digitalSignature and no CA's rights");
    }
    if (!has_eku(leaf, eku) ||
        (purpose == CERTS_PURPOSE_WORKLOAD && !has_eku(leaf, "1.3.6.1.5.5.7.3.1"))) {
        return refuse(err, "chainEku", "the leaf lacks the extended key usage for this purpose");
    }
    if (purpose == CERTS_PURPOSE_WORKLOAD) {
        att_autobuf id = {0};
        if (certs_san_spiffe(leaf, &id, err) != ATT_OK) {
            att_err_prefix(err, "the leaf is no X509-SVID");
            att_err_reason(err, "chainSan");
            return ATT_E_AUTH;
        }
    }
    return ATT_OK;
}

enum att_rc certs_chain_verify(const STACK_OF(X509) * certs, const STACK_OF(X509) * roots,
                               enum certs_purpose purpose, int64_t at_s, struct att_err *err)
{
    if (sk_X509_num(certs) <= 0) {
        return refuse(err, "chainEmpty", "no certificate in the chain");
    }
    if (sk_X509_num(roots) <= 0) {
        return refuse(err, "chainPath", "no root to trust");
    }
    enum att_rc rc = verify_path(certs, roots, at_s, err);
    return rc == ATT_OK ? check_leaf(sk_X509_value(certs, 0), purpose, err) : rc;
}

static enum att_rc cert_spki(const X509 *cert, struct att_buf *ret_der, struct att_err *err)
{
    uint8_t *der = NULL;
    int len = cert ? i2d_X509_PUBKEY(X509_get_X509_PUBKEY(cert), &der) : -1;
    if (len <= 0) {
        return att_fail_openssl(err, ATT_E_PARSE, "the certificate's public key");
    }
    att_buf_put(ret_der, der, (size_t)len);
    OPENSSL_free(der);
    return att_buf_ok(ret_der, err);
}

enum att_rc certs_cert_matches_spki(const X509 *cert, struct att_slice spki, struct att_err *err)
{
    att_autobuf own = {0};
    enum att_rc rc = cert_spki(cert, &own, err);
    if (rc != ATT_OK) {
        return rc;
    }
    if (spki.len == 0 || !att_slice_eq(att_buf_slice(&own), spki)) {
        return refuse(err, "chainKey", "the certificate is for another key");
    }
    return ATT_OK;
}

/* TBSCertificate, RFC 5280 §4.1: version (v3), serialNumber, signature, issuer, validity, subject,
 * subjectPublicKeyInfo. */
static struct att_slice spki_within(struct att_slice cert_der)
{
    struct att_cur outer = att_cur_init(cert_der);
    struct att_cur cert = att_cur_init(certs_der_take(&outer, DER_SEQUENCE));
    struct att_cur tbs = att_cur_init(certs_der_take(&cert, DER_SEQUENCE));
    (void)certs_der_take(&tbs, DER_CONTEXT_C(0));
    (void)certs_der_take(&tbs, DER_INTEGER);
    for (int i = 0; i < 4; i++) {
        (void)certs_der_take(&tbs, DER_SEQUENCE);
    }
    struct att_slice spki = certs_der_take_whole(&tbs, DER_SEQUENCE);
    return att_cur_done(&outer) ? spki : ATT_SLICE(NULL, 0);
}

enum att_rc certs_der_matches_spki(struct att_slice cert_der, struct att_slice spki,
                                   struct att_err *err)
{
    struct att_slice own = spki_within(cert_der);
    if (own.len == 0) {
        return att_fail(err, ATT_E_PARSE, "expected a DER certificate of version 3");
    }
    if (!att_slice_eq(own, spki)) {
        return refuse(err, "chainKey", "the certificate is for another key");
    }
    return ATT_OK;
}

enum att_rc certs_cert_matches_key(const X509 *cert, const EVP_PKEY *key, struct att_err *err)
{
    att_autobuf spki = {0};
    enum att_rc rc = certs_key_spki(key, &spki, err);
    return rc == ATT_OK ? certs_cert_matches_spki(cert, att_buf_slice(&spki), err) : rc;
}

static bool to_utc(const ASN1_TIME *time, int64_t *ret)
{
    struct tm tm;
    if (ASN1_TIME_to_tm(time, &tm) != 1) {
        return false;
    }
    *ret = (int64_t)timegm(&tm);
    return true;
}

enum att_rc certs_cert_info(const X509 *cert, struct certs_cert_info *ret_info, struct att_err *err)
{
    struct certs_cert_info info = {0};
    const ASN1_INTEGER *serial = X509_get0_serialNumber(cert);
    size_t len = (size_t)ASN1_STRING_length(serial);
    if (len == 0 || len > 20) { /* RFC 5280 §4.1.2.2 */
        return att_fail(err, ATT_E_PARSE, "serial number of %zu bytes, expected 1 … 20", len);
    }
    att_hex(info.serial_hex, ATT_SLICE(ASN1_STRING_get0_data(serial), len));
    if (!to_utc(X509_get0_notBefore(cert), &info.not_before) ||
        !to_utc(X509_get0_notAfter(cert), &info.not_after)) {
        return att_fail_openssl(err, ATT_E_PARSE, "the certificate's validity");
    }
    att_autobuf spki = {0};
    enum att_rc rc = certs_cert_sha256(cert, info.sha256, err);
    if (rc == ATT_OK) {
        rc = cert_spki(cert, &spki, err);
    }
    if (rc == ATT_OK) {
        att_sha256(info.spki_sha256, att_buf_slice(&spki));
        *ret_info = info;
    }
    return rc;
}
