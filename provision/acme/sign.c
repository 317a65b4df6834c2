/* The signing half of jws.h. */
#include "attestd/base/enc.h"
#include "attestd/base/hash.h"
#include "provision/acme/jws.h"

#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <string.h>

/* ---- a signer of an EVP_PKEY ------------------------------------------------------------------
 */
static enum att_rc split_rs(const unsigned char *der, size_t len, uint8_t ret_rs[ACME_ES256_LEN],
                            struct att_err *err)
{
    const unsigned char *at = der;
    ECDSA_SIG *sig = d2i_ECDSA_SIG(NULL, &at, (long)len);
    bool ok = sig && BN_bn2binpad(ECDSA_SIG_get0_r(sig), ret_rs, 32) == 32 &&
              BN_bn2binpad(ECDSA_SIG_get0_s(sig), ret_rs + 32, 32) == 32;
    ECDSA_SIG_free(sig);
    return ok ? ATT_OK : att_fail_openssl(err, ATT_E_CRYPTO, "JWS: this is not a P-256 signature");
}

static enum att_rc sign_pkey(void *user, struct att_slice input, uint8_t ret_rs[ACME_ES256_LEN],
                             struct att_err *err)
{
    unsigned char der[160];
    size_t len = sizeof der;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = ctx && EVP_DigestSignInit_ex(ctx, NULL, "SHA256", NULL, NULL, user, NULL) == 1 &&
              EVP_DigestSign(ctx, der, &len, input.ptr, input.len) == 1;
    EVP_MD_CTX_free(ctx);
    return ok ? split_rs(der, len, ret_rs, err)
              : att_fail_openssl(err, ATT_E_CRYPTO, "JWS: signing failed");
}

struct acme_signer acme_signer_pkey(EVP_PKEY *pkey)
{
    return (struct acme_signer){.user = pkey, .sign = sign_pkey};
}

/* ---- headers -----------------------------------------------------------------------------------
 */
static enum att_rc set_str(json_t *obj, const char *name, const char *text, struct att_err *err)
{
    /* jansson refuses what is not UTF-8. */
    return json_object_set_new(obj, name, json_string(text)) == 0
               ? ATT_OK
               : att_fail(err, ATT_E_INVAL, "JWS: \"%s\" could not be set", name);
}

enum att_rc acme_jws_protected(const char *nonce, const char *url, const json_t *jwk,
                               const char *kid, struct att_buf *ret_json, struct att_err *err)
{
    if (!url || (jwk == NULL) == (kid == NULL)) {
        return att_fail(err, ATT_E_INVAL, "JWS: expected an url and exactly one of jwk and kid");
    }
    att_autojson *header = json_pack("{s:s}", "alg", "ES256");
    enum att_rc rc = nonce ? set_str(header, "nonce", nonce, err) : ATT_OK;
    if (rc == ATT_OK) {
        rc = set_str(header, "url", url, err);
    }
    if (rc == ATT_OK && kid) {
        rc = set_str(header, "kid", kid, err);
    }
    if (rc == ATT_OK && jwk && json_object_set_new(header, "jwk", json_deep_copy(jwk)) != 0) {
        rc = att_fail(err, ATT_E_NOMEM, "JWS: no memory");
    }
    return rc == ATT_OK ? att_json_dump(header, false, ret_json, err) : rc;
}

enum att_rc acme_jws_protected_x5c(const char *typ, const struct att_slice *certs, size_t n_certs,
                                   struct att_buf *ret_json, struct att_err *err)
{
    if (n_certs == 0 || n_certs > ACME_X5C_MAX) {
        return att_fail(err, ATT_E_INVAL, "JWS: expected 1 … %d certificates", ACME_X5C_MAX);
    }
    att_autojson *header = json_pack("{s:s, s:s, s:[]}", "alg", "ES256", "typ", typ, "x5c");
    for (size_t i = 0; i < n_certs; i++) {
        att_autobuf text = {0};
        att_buf_b64(&text, certs[i]);
        enum att_rc rc = att_buf_ok(&text, err);
        if (rc != ATT_OK) {
            return rc;
        }
        if (json_array_append_new(json_object_get(header, "x5c"),
                                  json_stringn((const char *)text.ptr, text.len)) != 0) {
            return att_fail(err, ATT_E_NOMEM, "JWS: no memory");
        }
    }
    return att_json_dump(header, false, ret_json, err);
}

/* ---- signing -----------------------------------------------------------------------------------
 */
void acme_jws_input(struct att_slice protected_json, struct att_slice payload,
                    struct att_buf *ret_input)
{
    att_buf_b64u(ret_input, protected_json);
    att_buf_u8(ret_input, '.');
    att_buf_b64u(ret_input, payload);
}

/* {"protected":"…","payload":"…","signature":"…"}: base64url needs no JSON escapes. */
static enum att_rc assemble(struct att_slice input, struct att_slice signature,
                            struct att_buf *ret_text, struct att_err *err)
{
    const uint8_t *dot = memchr(input.ptr, '.', input.len);
    if (!dot) {
        return att_fail(err, ATT_E_INTERNAL, "JWS: no signing input");
    }
    size_t head = (size_t)(dot - input.ptr);
    att_buf_put_str(ret_text, "{\"protected\":\"");
    att_buf_put(ret_text, input.ptr, head);
    att_buf_put_str(ret_text, "\",\"payload\":\"");
    att_buf_put(ret_text, dot + 1, input.len - head - 1);
    att_buf_put_str(ret_text, "\",\"signature\":\"");
    att_buf_b64u(ret_text, signature);
    att_buf_put_str(ret_text, "\"}");
    return att_buf_ok(ret_text, err);
}

enum att_rc acme_jws_sign(const struct acme_signer *signer, struct att_slice protected_json,
                          struct att_slice payload, struct att_buf *ret_text, struct att_err *err)
{
    if ((signer->sign == NULL) == (signer->sign_parts == NULL)) {
        return att_fail(err, ATT_E_INVAL, "JWS: a signer has exactly one of its two functions");
    }
    att_autobuf input = ATT_BUF_INIT(2 * ACME_JWS_MAX);
    acme_jws_input(protected_json, payload, &input);
    enum att_rc rc = att_buf_ok(&input, err);
    if (rc != ATT_OK) {
        return rc;
    }
    uint8_t rs[ACME_ES256_LEN];
    rc = signer->sign ? signer->sign(signer->user, att_buf_slice(&input), rs, err)
                      : signer->sign_parts(signer->user, protected_json, payload, rs, err);
    if (rc != ATT_OK) {
        return rc;
    }
    return assemble(att_buf_slice(&input), ATT_SLICE_ARRAY(rs), ret_text, err);
}

/* ---- external account binding, RFC 8555 §7.3.4 --------------------------------------------------
 */
static enum att_rc eab_text(const char *kid, struct att_slice mac_key, const char *url,
                            const json_t *account_jwk, struct att_buf *ret_text,
                            struct att_err *err)
{
    att_autojson *header = json_pack("{s:s}", "alg", "HS256");
    att_autobuf protected_json = {0}, payload = {0}, input = {0};
    enum att_rc rc = set_str(header, "kid", kid, err);
    if (rc == ATT_OK) {
        rc = set_str(header, "url", url, err);
    }
    if (rc == ATT_OK) {
        rc = att_json_dump(header, false, &protected_json, err);
    }
    if (rc == ATT_OK) {
        rc = att_json_dump(account_jwk, false, &payload, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    acme_jws_input(att_buf_slice(&protected_json), att_buf_slice(&payload), &input);
    if ((rc = att_buf_ok(&input, err)) != ATT_OK) {
        return rc;
    }
    uint8_t mac[ATT_SHA256_LEN];
    const struct att_slice part = att_buf_slice(&input);
    att_hmac_sha256_v(mac, mac_key, &part, 1);
    return assemble(part, ATT_SLICE_ARRAY(mac), ret_text, err);
}

enum att_rc acme_eab_create(const char *kid, struct att_slice mac_key, const char *url,
                            const json_t *account_jwk, json_t **ret_eab, struct att_err *err)
{
    if (!kid || !url || mac_key.len == 0) {
        return att_fail(err, ATT_E_INVAL, "externalAccountBinding: kid, url or MAC key is missing");
    }
    att_autobuf text = {0};
    enum att_rc rc = eab_text(kid, mac_key, url, account_jwk, &text, err);
    return rc == ATT_OK ? att_json_parse(att_buf_slice(&text), text.len, ret_eab, err) : rc;
}
