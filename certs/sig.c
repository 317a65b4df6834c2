/* ECDSA signatures and their two spellings; declared in key.h. */
#include "certs/der.h"
#include "certs/key.h"

#include <openssl/ecdsa.h>
#include <string.h>

enum att_rc certs_sig_der(struct att_slice r, struct att_slice s, struct att_buf *ret_der,
                          struct att_err *err)
{
    struct att_slice *both[] = {&r, &s};
    for (size_t i = 0; i < 2; i++) {
        while (both[i]->len && both[i]->ptr[0] == 0) {
            both[i]->ptr++;
            both[i]->len--;
        }
        if (both[i]->len == 0 || both[i]->len > CERTS_P256_LEN) {
            return att_fail(err, ATT_E_PARSE, "ECDSA %c of %zu bytes, expected 1 … %d", "rs"[i],
                            both[i] -> len, CERTS_P256_LEN);
        }
    }
    size_t mark = certs_der_begin(ret_der, DER_SEQUENCE);
    certs_der_put_uint(ret_der, r);
    certs_der_put_uint(ret_der, s);
    certs_der_end(ret_der, mark);
    return att_buf_ok(ret_der, err);
}

/* A minimal positive INTEGER of at most 32 bytes, right-aligned into ret. */
static bool take_uint(struct att_cur *cur, uint8_t ret[CERTS_P256_LEN])
{
    struct att_slice n = certs_der_take(cur, DER_INTEGER);
    if (n.len == 0 || n.ptr[0] & 0x80) {
        return false;
    }
    if (n.ptr[0] == 0) {
        if (n.len < 2 || !(n.ptr[1] & 0x80)) {
            return false;
        }
        n.ptr++;
        n.len--;
    }
    if (n.len > CERTS_P256_LEN) {
        return false;
    }
    memset(ret, 0, CERTS_P256_LEN - n.len);
    memcpy(ret + CERTS_P256_LEN - n.len, n.ptr, n.len);
    return true;
}

enum att_rc certs_sig_raw(struct att_slice der, struct att_buf *ret_raw, struct att_err *err)
{
    uint8_t raw[2 * CERTS_P256_LEN];
    struct att_cur cur = att_cur_init(der);
    struct att_cur in = att_cur_init(certs_der_take(&cur, DER_SEQUENCE));
    bool ok = take_uint(&in, raw) && take_uint(&in, raw + CERTS_P256_LEN) && att_cur_done(&in) &&
              att_cur_done(&cur);
    if (!ok) {
        return att_fail(err, ATT_E_PARSE, "expected one DER ECDSA-Sig-Value of P-256");
    }
    att_buf_put(ret_raw, raw, sizeof raw);
    return att_buf_ok(ret_raw, err);
}

enum att_rc certs_sign(EVP_PKEY *key, struct att_slice bytes, struct att_buf *ret_der,
                       struct att_err *err)
{
    if (!certs_key_is_p256(key)) {
        return att_fail(err, ATT_E_INVAL, "expected a P-256 key to sign with");
    }
    uint8_t sig[CERTS_SIG_DER_MAX + 8];
    size_t len = sizeof sig;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = ctx && EVP_DigestSignInit_ex(ctx, NULL, "SHA256", NULL, NULL, key, NULL) == 1 &&
              EVP_DigestSign(ctx, sig, &len, bytes.ptr, bytes.len) == 1;
    EVP_MD_CTX_free(ctx);
    if (!ok) {
        enum att_rc rc = certs_key_remote_error(err);
        return rc != ATT_OK ? rc : att_fail_openssl(err, ATT_E_CRYPTO, "sign");
    }
    att_buf_put(ret_der, sig, len);
    return att_buf_ok(ret_der, err);
}

enum att_rc certs_sig_verify(EVP_PKEY *key, struct att_slice bytes, struct att_slice der,
                             struct att_err *err)
{
    if (!certs_key_is_p256(key)) {
        return att_fail(err, ATT_E_INVAL, "expected a P-256 key to verify with");
    }
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    int ok = ctx && EVP_DigestVerifyInit_ex(ctx, NULL, "SHA256", NULL, NULL, key, NULL) == 1
                 ? EVP_DigestVerify(ctx, der.ptr, der.len, bytes.ptr, bytes.len)
                 : -1;
    EVP_MD_CTX_free(ctx);
    return ok == 1 ? ATT_OK : att_fail_openssl(err, ATT_E_AUTH, "the signature does not hold");
}
