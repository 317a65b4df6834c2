#include "provision/verify/policy_signed.h"

#include "attestd/base/enc.h"
#include "provision/verify/policy.h"

#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

#define TYP            "attestd-policy"
#define HEADER_MAX     1024
#define SPKI_MAX       256
#define COORDINATE_MAX 48

/* RFC 7518 §3.4: each curve has its hash, r and s have the curve's length. */
static const struct curve {
    const char *alg, *group, *hash;
    size_t len;
} curves[] = {{"ES256", "prime256v1", "SHA256", 32}, {"ES384", "secp384r1", "SHA384", 48}};
#define N_CURVES (sizeof(curves) / sizeof(curves[0]))

static const struct curve *curve_of(EVP_PKEY *key)
{
    char group[32] = "";
    size_t len = 0;
    if (!key || EVP_PKEY_get_base_id(key) != EVP_PKEY_EC ||
        EVP_PKEY_get_group_name(key, group, sizeof(group), &len) != 1) {
        return NULL;
    }
    for (size_t i = 0; i < N_CURVES; i++) {
        if (!strcmp(group, curves[i].group)) {
            return &curves[i];
        }
    }
    return NULL;
}

static void spki_of(EVP_PKEY *key, struct att_buf *ret)
{
    unsigned char *der = NULL;
    int len = i2d_PUBKEY(key, &der);
    if (len > 0) {
        att_buf_put(ret, der, (size_t)len);
    }
    OPENSSL_free(der);
}

bool verify_policy_is_signed(const json_t *root)
{
    return json_object_get(root, "payload") || json_object_get(root, "protected");
}

/* ---- opening --------------------------------------------------------------------------------- */

/* Exactly the encoding that we would write: one key, one fingerprint. */
static EVP_PKEY *key_of(struct att_slice spki)
{
    const unsigned char *at = spki.ptr;
    EVP_PKEY *key = spki.len ? d2i_PUBKEY(NULL, &at, (long)spki.len) : NULL;
    att_autobuf again = ATT_BUF_INIT(SPKI_MAX);
    if (key) {
        spki_of(key, &again);
    }
    if (!curve_of(key) || !att_slice_eq(att_buf_slice(&again), spki)) {
        EVP_PKEY_free(key);
        return NULL;
    }
    return key;
}

static enum att_rc header_parse(struct att_slice text, EVP_PKEY **ret_key,
                                uint8_t ret_signer[ATT_SHA256_LEN], struct att_err *err)
{
    att_autojson *header = NULL;
    att_autobuf spki = ATT_BUF_INIT(SPKI_MAX);
    enum att_rc rc = att_json_parse_few(text, HEADER_MAX, 16, &header, err);
    if (rc) {
        return rc;
    }
    const char *alg = json_string_value(json_object_get(header, "alg"));
    const char *typ = json_string_value(json_object_get(header, "typ"));
    if (!alg || !typ || strcmp(typ, TYP) != 0 || json_object_size(header) != 3) {
        return att_fail(err, ATT_E_PARSE, "expected exactly alg, typ (\"" TYP "\") and spki");
    }
    rc = att_json_b64u(header, "spki", SPKI_MAX, &spki, err);
    if (rc) {
        return rc;
    }
    EVP_PKEY *key = key_of(att_buf_slice(&spki));
    const struct curve *curve = curve_of(key);
    if (!curve || strcmp(curve->alg, alg) != 0) {
        EVP_PKEY_free(key);
        return att_fail(err, ATT_E_PARSE,
                        "expected a P-256 key with ES256 or a P-384 key with ES384");
    }
    att_sha256(ret_signer, att_buf_slice(&spki));
    *ret_key = key;
    return ATT_OK;
}

static bool holds(EVP_PKEY *key, struct att_slice input, struct att_slice rs)
{
    const struct curve *curve = curve_of(key);
    unsigned char *der = NULL;
    if (rs.len != 2 * curve->len) {
        return false;
    }
    ECDSA_SIG *sig = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn(rs.ptr, (int)curve->len, NULL);
    BIGNUM *s = BN_bin2bn(rs.ptr + curve->len, (int)curve->len, NULL);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool good = false;
    if (sig && r && s && ctx && ECDSA_SIG_set0(sig, r, s) == 1) {
        r = s = NULL;
        int len = i2d_ECDSA_SIG(sig, &der);
        good = len > 0 &&
               EVP_DigestVerifyInit_ex(ctx, NULL, curve->hash, NULL, NULL, key, NULL) == 1 &&
               EVP_DigestVerify(ctx, der, (size_t)len, input.ptr, input.len) == 1;
    }
    BN_free(r);
    BN_free(s);
    OPENSSL_free(der);
    ECDSA_SIG_free(sig);
    EVP_MD_CTX_free(ctx);
    return good;
}

enum att_rc verify_policy_open(const json_t *root, struct att_buf *ret_payload,
                               uint8_t ret_signer[ATT_SHA256_LEN], struct att_err *err)
{
    att_autobuf header = ATT_BUF_INIT(HEADER_MAX), rs = ATT_BUF_INIT(2 * COORDINATE_MAX);
    att_autobuf payload = ATT_BUF_INIT(VERIFY_POLICY_BYTES_MAX), input = {0};
    EVP_PKEY *key = NULL;
    if (json_object_size(root) != 3) {
        return att_fail(err, ATT_E_PARSE,
                        "signed boot policy: expected exactly protected, payload and signature");
    }
    enum att_rc rc = att_json_b64u(root, "protected", HEADER_MAX, &header, err);
    rc = rc ? rc : att_json_b64u(root, "payload", VERIFY_POLICY_BYTES_MAX, &payload, err);
    rc = rc ? rc : att_json_b64u(root, "signature", (size_t)2 * COORDINATE_MAX, &rs, err);
    if (!rc) {
        rc = header_parse(att_buf_slice(&header), &key, ret_signer, err);
        att_err_prefix(rc ? err : NULL, "protected");
    }
    if (rc) {
        att_err_prefix(err, "signed boot policy");
        return rc;
    }
    att_buf_printf(&input, "%s.%s", json_string_value(json_object_get(root, "protected")),
                   json_string_value(json_object_get(root, "payload")));
    if (att_buf_ok(&input, NULL) || !holds(key, att_buf_slice(&input), att_buf_slice(&rs))) {
        rc =
            att_fail(err, ATT_E_AUTH,
                     "signed boot policy: the signature is not of this policy by the key it names");
        att_err_reason(err, "policySigner");
    }
    EVP_PKEY_free(key);
    if (!rc) {
        att_buf_put_slice(ret_payload, att_buf_slice(&payload));
        rc = att_buf_ok(ret_payload, err);
    }
    return rc;
}

/* ---- signing --------------------------------------------------------------------------------- */

static enum att_rc sign(EVP_PKEY *key, struct att_slice input, struct att_buf *ret_rs,
                        struct att_err *err)
{
    const struct curve *curve = curve_of(key);
    unsigned char der[160];
    uint8_t rs[2 * COORDINATE_MAX];
    size_t len = sizeof(der);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool good = ctx && EVP_DigestSignInit_ex(ctx, NULL, curve->hash, NULL, NULL, key, NULL) == 1 &&
                EVP_DigestSign(ctx, der, &len, input.ptr, input.len) == 1;
    const unsigned char *at = der;
    ECDSA_SIG *sig = good ? d2i_ECDSA_SIG(NULL, &at, (long)len) : NULL;
    int n = (int)curve->len;
    good = sig && BN_bn2binpad(ECDSA_SIG_get0_r(sig), rs, n) == n &&
           BN_bn2binpad(ECDSA_SIG_get0_s(sig), rs + n, n) == n;
    ECDSA_SIG_free(sig);
    EVP_MD_CTX_free(ctx);
    if (!good) {
        return att_fail_openssl(err, ATT_E_CRYPTO, "the policy could not be signed");
    }
    att_buf_put(ret_rs, rs, 2 * curve->len);
    return att_buf_ok(ret_rs, err);
}

enum att_rc verify_policy_sign(struct att_slice policy, EVP_PKEY *key, struct att_buf *ret_text,
                               uint8_t ret_signer[ATT_SHA256_LEN], struct att_err *err)
{
    const struct curve *curve = curve_of(key);
    verify_autopolicy *read = NULL;
    att_autobuf spki = {0}, spki64 = {0}, header = {0}, input = {0}, rs = {0};
    if (!curve) {
        return att_fail(err, ATT_E_INVAL, "expected a P-256 or P-384 key to sign with");
    }
    enum att_rc rc = verify_policy_parse(policy, &read, err);
    if (rc || read->is_signed) {
        return rc ? rc : att_fail(err, ATT_E_INVAL, "boot policy: it is signed already");
    }
    spki_of(key, &spki);
    att_sha256(ret_signer, att_buf_slice(&spki));
    att_buf_b64u(&spki64, att_buf_slice(&spki));
    att_buf_printf(&header, "{\"alg\":\"%s\",\"typ\":\"" TYP "\",\"spki\":\"%.*s\"}", curve->alg,
                   (int)spki64.len, (const char *)spki64.ptr);
    att_buf_b64u(&input, att_buf_slice(&header));
    size_t header_len = input.len;
    att_buf_put_str(&input, ".");
    att_buf_b64u(&input, policy);
    rc = att_buf_ok(&input, err);
    rc = rc ? rc : sign(key, att_buf_slice(&input), &rs, err);
    if (rc) {
        return rc;
    }
    att_buf_put_str(ret_text, "{\"protected\":\"");
    att_buf_put(ret_text, input.ptr, header_len);
    att_buf_put_str(ret_text, "\",\n\"payload\":\"");
    att_buf_put(ret_text, input.ptr + header_len + 1, input.len - header_len - 1);
    att_buf_put_str(ret_text, "\",\n\"signature\":\"");
    att_buf_b64u(ret_text, att_buf_slice(&rs));
    att_buf_put_str(ret_text, "\"}\n");
    return att_buf_ok(ret_text, err);
}
