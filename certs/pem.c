/* Certificates from bytes and back; declared in chain.h. */
#include "certs/chain.h"

#include "attestd/base/enc.h"
#include "certs/oid.h"
#include "certs/pem.h"

#include <openssl/x509.h>
#include <string.h>

#define BEGIN "-----BEGIN CERTIFICATE-----"
#define END   "-----END CERTIFICATE-----"

enum att_rc certs_cert_parse(struct att_slice der, X509 **ret_cert, struct att_err *err)
{
    if (der.len > CERTS_CERT_MAX) {
        return att_fail(err, ATT_E_LIMIT, "certificate of %zu bytes, at most %d are read", der.len,
                        CERTS_CERT_MAX);
    }
    const uint8_t *p = der.ptr;
    X509 *cert = der.len ? d2i_X509(NULL, &p, (long)der.len) : NULL;
    if (!cert) {
        return att_fail_openssl(err, ATT_E_PARSE, "expected a DER certificate");
    }
    if (p != der.ptr + der.len) {
        size_t more = der.len - (size_t)(p - der.ptr);
        X509_free(cert);
        return att_fail(err, ATT_E_PARSE, "%zu bytes follow the certificate", more);
    }
    *ret_cert = cert;
    return ATT_OK;
}

enum att_rc certs_cert_der(const X509 *cert, struct att_buf *ret_der, struct att_err *err)
{
    uint8_t *der = NULL;
    int len = cert ? i2d_X509(cert, &der) : -1;
    if (len <= 0) {
        return att_fail_openssl(err, ATT_E_CRYPTO, "encode a certificate");
    }
    att_buf_put(ret_der, der, (size_t)len);
    OPENSSL_free(der);
    return att_buf_ok(ret_der, err);
}

enum att_rc certs_cert_sha256(const X509 *cert, uint8_t ret[ATT_SHA256_LEN], struct att_err *err)
{
    att_autobuf der = {0};
    enum att_rc rc = certs_cert_der(cert, &der, err);
    if (rc == ATT_OK) {
        att_sha256(ret, att_buf_slice(&der));
    }
    return rc;
}

static bool is_space(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static void skip_space(struct att_slice *text)
{
    while (text->len && is_space(*text->ptr)) {
        text->ptr++;
        text->len--;
    }
}

static bool skip_text(struct att_slice *text, const char *expected)
{
    size_t len = strlen(expected);
    if (text->len < len || memcmp(text->ptr, expected, len) != 0) {
        return false;
    }
    text->ptr += len;
    text->len -= len;
    return true;
}

/* One block from the front of text; RFC 7468 §3. */
static enum att_rc take_block(struct att_slice *text, struct att_buf *ret_der, struct att_err *err)
{
    if (!skip_text(text, BEGIN)) {
        return att_fail(err, ATT_E_PARSE, "expected %s and nothing else beside such blocks", BEGIN);
    }
    const uint8_t *end = memmem(text->ptr, text->len, END, sizeof END - 1);
    if (!end) {
        return att_fail(err, ATT_E_PARSE, "a certificate block without %s", END);
    }
    size_t body_len = (size_t)(end - text->ptr);
    att_autobuf b64 = ATT_BUF_INIT(2 * CERTS_CERT_MAX);
    for (size_t i = 0; i < body_len; i++) {
        if (!is_space(text->ptr[i])) {
            att_buf_u8(&b64, text->ptr[i]);
        }
    }
    text->ptr = end + sizeof END - 1;
    text->len -= body_len + sizeof END - 1;
    enum att_rc rc = att_buf_ok(&b64, err);
    return rc == ATT_OK ? att_unb64(ret_der, att_buf_slice(&b64), err) : rc;
}

enum att_rc certs_pem_take(struct att_slice *text, struct att_buf *ret_der, struct att_err *err)
{
    skip_space(text);
    enum att_rc rc = take_block(text, ret_der, err);
    skip_space(text);
    return rc;
}

enum att_rc certs_pem_parse_max(struct att_slice pem, size_t max_len, int max_certs,
                                STACK_OF(X509) * *ret_certs, struct att_err *err)
{
    if (pem.len > max_len) {
        return att_fail(err, ATT_E_LIMIT, "PEM of %zu bytes, at most %zu are read", pem.len,
                        max_len);
    }
    certs_autostack *certs = sk_X509_new_null();
    skip_space(&pem);
    do {
        att_autobuf der = {0};
        X509 *cert = NULL;
        enum att_rc rc = take_block(&pem, &der, err);
        if (rc == ATT_OK) {
            rc = certs_cert_parse(att_buf_slice(&der), &cert, err);
        }
        if (rc != ATT_OK) {
            att_err_prefix(err, "PEM certificate %d", sk_X509_num(certs) + 1);
            return rc;
        }
        if (sk_X509_num(certs) >= max_certs) {
            X509_free(cert);
            return att_fail(err, ATT_E_LIMIT, "PEM: more than %d certificates", max_certs);
        }
        if (!sk_X509_push(certs, cert)) {
            X509_free(cert);
            return att_fail(err, ATT_E_NOMEM, "certificates");
        }
        skip_space(&pem);
    } while (pem.len);
    *ret_certs = certs;
    certs = NULL;
    return ATT_OK;
}

enum att_rc certs_pem_parse(struct att_slice pem, STACK_OF(X509) * *ret_certs, struct att_err *err)
{
    return certs_pem_parse_max(pem, CERTS_CHAIN_MAX_LEN, CERTS_CHAIN_MAX_CERTS, ret_certs, err);
}

enum att_rc certs_der_parse(const struct att_slice *ders, size_t n, STACK_OF(X509) * *ret_certs,
                            struct att_err *err)
{
    if (n > CERTS_CHAIN_MAX_CERTS) {
        return att_fail(err, ATT_E_LIMIT, "%zu certificates, at most %d are read", n,
                        CERTS_CHAIN_MAX_CERTS);
    }
    certs_autostack *certs = sk_X509_new_null();
    for (size_t i = 0; i < n; i++) {
        X509 *cert = NULL;
        enum att_rc rc = certs_cert_parse(ders[i], &cert, err);
        if (rc != ATT_OK) {
            att_err_prefix(err, "certificate %zu", i + 1);
            return rc;
        }
        if (!sk_X509_push(certs, cert)) {
            X509_free(cert);
            return att_fail(err, ATT_E_NOMEM, "certificates");
        }
    }
    *ret_certs = certs;
    certs = NULL;
    return ATT_OK;
}

enum att_rc certs_pem_encode(const char *label, struct att_slice der, struct att_buf *ret_pem,
                             struct att_err *err)
{
    att_autobuf b64 = {0};
    att_buf_b64(&b64, der);
    enum att_rc rc = att_buf_ok(&b64, err);
    if (rc != ATT_OK) {
        return rc;
    }
    att_buf_printf(ret_pem, "-----BEGIN %s-----\n", label);
    for (size_t at = 0; at < b64.len; at += 64) {
        att_buf_put(ret_pem, b64.ptr + at, b64.len - at < 64 ? b64.len - at : 64);
        att_buf_put_str(ret_pem, "\n");
    }
    att_buf_printf(ret_pem, "-----END %s-----\n", label);
    return att_buf_ok(ret_pem, err);
}

enum att_rc certs_pem_dump(const X509 *cert, struct att_buf *ret_pem, struct att_err *err)
{
    att_autobuf der = {0};
    enum att_rc rc = certs_cert_der(cert, &der, err);
    return rc == ATT_OK ? certs_pem_encode("CERTIFICATE", att_buf_slice(&der), ret_pem, err) : rc;
}

enum att_rc certs_pem_dump_all(const STACK_OF(X509) * certs, struct att_buf *ret_pem,
                               struct att_err *err)
{
    for (int i = 0; i < sk_X509_num(certs); i++) {
        enum att_rc rc = certs_pem_dump(sk_X509_value(certs, i), ret_pem, err);
        if (rc != ATT_OK) {
            return rc;
        }
    }
    return ATT_OK;
}
