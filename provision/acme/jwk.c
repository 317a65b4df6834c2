#include "provision/acme/jwk.h"

#include "attestd/base/enc.h"
#include "attestd/base/hash.h"
#include "attestd/base/p256.h"
#include "provision/acme/jws.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/x509.h>
#include <string.h>

#define RSA_BITS_MIN 2048
#define RSA_BITS_MAX 4096
#define SPKI_MAX     ((size_t)1024)

static enum att_rc bad_key(struct att_err *err, const char *what)
{
    enum att_rc rc = att_fail(err, ATT_E_PARSE, "public key: %s", what);
    att_err_reason(err, "badPublicKey");
    return rc;
}

static enum att_rc no_memory(struct att_err *err)
{
    return att_fail_openssl(err, ATT_E_CRYPTO, "public key: not built");
}

/* ---- what is accepted --------------------------------------------------------------------------
 */
static enum att_rc accept_ec(EVP_PKEY *pkey, struct att_err *err)
{
    char group[64] = "";
    size_t len = 0;
    if (EVP_PKEY_get_group_name(pkey, group, sizeof group, &len) != 1 ||
        strcmp(group, SN_X9_62_prime256v1) != 0) {
        return bad_key(err, "an EC key must be on P-256");
    }
    return ATT_OK;
}

static enum att_rc accept_rsa(EVP_PKEY *pkey, struct att_err *err)
{
    int bits = EVP_PKEY_get_bits(pkey);
    if (bits < RSA_BITS_MIN || bits > RSA_BITS_MAX) {
        return bad_key(err, "an RSA key must have 2048 … 4096 bits");
    }
    BIGNUM *e = NULL;
    bool good = EVP_PKEY_get_bn_param(pkey, OSSL_PKEY_PARAM_RSA_E, &e) == 1 && BN_is_odd(e) &&
                BN_num_bits(e) >= 17 && BN_num_bits(e) <= 64;
    BN_free(e);
    return good ? ATT_OK : bad_key(err, "an RSA exponent must be odd, 65537 … 2^64");
}

enum att_rc acme_jwk_accept(EVP_PKEY *pkey, struct att_err *err)
{
    if (EVP_PKEY_is_a(pkey, "EC") == 1) {
        return accept_ec(pkey, err);
    }
    if (EVP_PKEY_is_a(pkey, "RSA") == 1) {
        return accept_rsa(pkey, err);
    }
    return bad_key(err, "expected EC P-256 or RSA");
}

/* ---- JWK to key --------------------------------------------------------------------------------
 */
static enum att_rc rsa_of(OSSL_PARAM_BLD *build, EVP_PKEY **ret_pkey, struct att_err *err)
{
    OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(build);
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
    EVP_PKEY *pkey = NULL;
    int ok = params && ctx && EVP_PKEY_fromdata_init(ctx) == 1
                 ? EVP_PKEY_fromdata(ctx, &pkey, EVP_PKEY_PUBLIC_KEY, params)
                 : -1;
    OSSL_PARAM_free(params);
    EVP_PKEY_CTX_free(ctx);
    if (ok != 1) {
        EVP_PKEY_free(pkey);
        ERR_clear_error();
        return bad_key(err, "not an RSA key");
    }
    enum att_rc rc = acme_jwk_accept(pkey, err);
    if (rc != ATT_OK) {
        EVP_PKEY_free(pkey);
        return rc;
    }
    *ret_pkey = pkey;
    return ATT_OK;
}

static enum att_rc coordinate(const json_t *jwk, const char *name, uint8_t ret[ATT_P256_LEN],
                              struct att_err *err)
{
    att_autobuf raw = {0};
    if (att_json_b64u(jwk, name, ATT_P256_LEN, &raw, NULL) != ATT_OK || raw.len != ATT_P256_LEN) {
        return bad_key(err, "\"x\" and \"y\" must be 32 bytes of base64url each");
    }
    memcpy(ret, raw.ptr, ATT_P256_LEN);
    return ATT_OK;
}

static enum att_rc ec_point(const json_t *jwk, uint8_t ret_xy[ATT_P256_XY_LEN], struct att_err *err)
{
    const char *crv = json_string_value(json_object_get(jwk, "crv"));
    if (!crv || strcmp(crv, "P-256") != 0) {
        return bad_key(err, "an EC key must have crv P-256");
    }
    enum att_rc rc = coordinate(jwk, "x", ret_xy, err);
    return rc == ATT_OK ? coordinate(jwk, "y", ret_xy + ATT_P256_LEN, err) : rc;
}

/* What att_p256_key or att_p256_check says, in the words of this file. */
static enum att_rc ec_result(enum att_rc rc, struct att_err *err)
{
    return rc == ATT_E_PARSE ? bad_key(err, "the point is not on P-256") : rc;
}

static enum att_rc ec_pkey(const json_t *jwk, EVP_PKEY **ret_pkey, struct att_err *err)
{
    uint8_t xy[ATT_P256_XY_LEN];
    enum att_rc rc = ec_point(jwk, xy, err);
    return rc == ATT_OK ? ec_result(att_p256_key(xy, ret_pkey, err), err) : rc;
}

/* RFC 7518 §6.3.1: Base64urlUInt, no leading zero octets. */
static enum att_rc big_number(const json_t *jwk, const char *name, size_t max, BIGNUM **ret_bn,
                              struct att_err *err)
{
    att_autobuf raw = {0};
    if (att_json_b64u(jwk, name, max, &raw, NULL) != ATT_OK || raw.len == 0 || raw.len > max ||
        raw.ptr[0] == 0) {
        return bad_key(err, "\"n\" and \"e\" must be base64url without leading zero bytes");
    }
    *ret_bn = BN_bin2bn(raw.ptr, (int)raw.len, NULL);
    return *ret_bn ? ATT_OK : no_memory(err);
}

static enum att_rc rsa_pkey(const json_t *jwk, EVP_PKEY **ret_pkey, struct att_err *err)
{
    BIGNUM *n = NULL, *e = NULL;
    enum att_rc rc = big_number(jwk, "n", RSA_BITS_MAX / 8, &n, err);
    if (rc == ATT_OK) {
        rc = big_number(jwk, "e", 8, &e, err);
    }
    if (rc == ATT_OK) {
        OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
        bool ok = build && OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, n) == 1 &&
                  OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_E, e) == 1;
        rc = ok ? rsa_of(build, ret_pkey, err) : no_memory(err);
        OSSL_PARAM_BLD_free(build);
    }
    BN_free(n);
    BN_free(e);
    return rc;
}

enum kind { KIND_NONE, KIND_EC, KIND_RSA };

static enum att_rc kind_of(const json_t *jwk, enum kind *ret_kind, struct att_err *err)
{
    static const char *const private_members[] = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"};
    for (size_t i = 0; i < sizeof private_members / sizeof private_members[0]; i++) {
        if (json_object_get(jwk, private_members[i])) {
            return bad_key(err, "there is private key material in the JWK");
        }
    }
    const char *kty = json_string_value(json_object_get(jwk, "kty"));
    *ret_kind = !kty                      ? KIND_NONE
                : strcmp(kty, "EC") == 0  ? KIND_EC
                : strcmp(kty, "RSA") == 0 ? KIND_RSA
                                          : KIND_NONE;
    return *ret_kind ? ATT_OK : bad_key(err, "\"kty\" must be EC or RSA");
}

enum att_rc acme_jwk_pkey(const json_t *jwk, EVP_PKEY **ret_pkey, struct att_err *err)
{
    enum kind kind = KIND_NONE;
    enum att_rc rc = kind_of(jwk, &kind, err);
    if (rc != ATT_OK) {
        return rc;
    }
    return kind == KIND_EC ? ec_pkey(jwk, ret_pkey, err) : rsa_pkey(jwk, ret_pkey, err);
}

enum att_rc acme_jwk_pkey_from_spki(struct att_slice spki_der, EVP_PKEY **ret_pkey,
                                    struct att_err *err)
{
    const uint8_t *xy = att_p256_of_spki(spki_der);
    if (xy) {
        return ec_result(att_p256_key(xy, ret_pkey, err), err);
    }
    const unsigned char *at = spki_der.ptr;
    EVP_PKEY *pkey =
        spki_der.len && spki_der.len <= SPKI_MAX ? d2i_PUBKEY(NULL, &at, (long)spki_der.len) : NULL;
    if (!pkey || at != spki_der.ptr + spki_der.len) {
        EVP_PKEY_free(pkey);
        ERR_clear_error();
        return bad_key(err, "not a DER SubjectPublicKeyInfo");
    }
    enum att_rc rc = acme_jwk_accept(pkey, err);
    if (rc != ATT_OK) {
        EVP_PKEY_free(pkey);
        return rc;
    }
    *ret_pkey = pkey;
    return ATT_OK;
}

/* ---- key to SPKI and JWK -----------------------------------------------------------------------
 */
static enum att_rc ec_spki(const json_t *jwk, struct att_buf *ret_spki_der, struct att_err *err)
{
    uint8_t xy[ATT_P256_XY_LEN], spki[ATT_P256_SPKI_LEN];
    enum att_rc rc = ec_point(jwk, xy, err);
    if (rc == ATT_OK) {
        rc = ec_result(att_p256_check(xy, err), err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    att_p256_spki(spki, xy);
    att_buf_put(ret_spki_der, spki, sizeof spki);
    return att_buf_ok(ret_spki_der, err);
}

enum att_rc acme_jwk_to_spki(const json_t *jwk, struct att_buf *ret_spki_der, struct att_err *err)
{
    enum kind kind = KIND_NONE;
    enum att_rc rc = kind_of(jwk, &kind, err);
    if (rc != ATT_OK || kind == KIND_EC) {
        return rc == ATT_OK ? ec_spki(jwk, ret_spki_der, err) : rc;
    }
    EVP_PKEY *pkey = NULL;
    rc = rsa_pkey(jwk, &pkey, err);
    if (rc != ATT_OK) {
        return rc;
    }
    unsigned char *der = NULL;
    int len = i2d_PUBKEY(pkey, &der);
    EVP_PKEY_free(pkey);
    if (len <= 0) {
        return no_memory(err);
    }
    att_buf_put(ret_spki_der, der, (size_t)len);
    OPENSSL_free(der);
    return att_buf_ok(ret_spki_der, err);
}

/* len 0: as many bytes as the number has. */
static enum att_rc set_number(EVP_PKEY *pkey, const char *param, size_t len, json_t *jwk,
                              const char *name, struct att_err *err)
{
    BIGNUM *bn = NULL;
    uint8_t raw[RSA_BITS_MAX / 8];
    if (EVP_PKEY_get_bn_param(pkey, param, &bn) != 1) {
        return no_memory(err);
    }
    size_t want = len ? len : (size_t)BN_num_bytes(bn);
    int got = want <= sizeof raw ? BN_bn2binpad(bn, raw, (int)want) : -1;
    BN_free(bn);
    return got == (int)want ? att_json_set_b64u(jwk, name, ATT_SLICE(raw, want), err)
                            : no_memory(err);
}

static enum att_rc pkey_to_jwk(EVP_PKEY *pkey, json_t **ret_jwk, struct att_err *err)
{
    bool ec = EVP_PKEY_is_a(pkey, "EC") == 1;
    att_autojson *jwk = ec ? json_pack("{s:s, s:s}", "kty", "EC", "crv", "P-256")
                           : json_pack("{s:s}", "kty", "RSA");
    if (!jwk) {
        return att_fail(err, ATT_E_NOMEM, "JWK: no memory");
    }
    enum att_rc rc;
    if (ec) {
        rc = set_number(pkey, OSSL_PKEY_PARAM_EC_PUB_X, ATT_P256_LEN, jwk, "x", err);
        rc = rc == ATT_OK ? set_number(pkey, OSSL_PKEY_PARAM_EC_PUB_Y, ATT_P256_LEN, jwk, "y", err)
                          : rc;
    } else {
        rc = set_number(pkey, OSSL_PKEY_PARAM_RSA_N, 0, jwk, "n", err);
        rc = rc == ATT_OK ? set_number(pkey, OSSL_PKEY_PARAM_RSA_E, 0, jwk, "e", err) : rc;
    }
    if (rc == ATT_OK) {
        *ret_jwk = jwk;
        jwk = NULL;
    }
    return rc;
}

static enum att_rc point_to_jwk(const uint8_t xy[ATT_P256_XY_LEN], json_t **ret_jwk,
                                struct att_err *err)
{
    enum att_rc rc = ec_result(att_p256_check(xy, err), err);
    att_autojson *jwk = NULL;
    if (rc == ATT_OK) {
        jwk = json_pack("{s:s, s:s}", "kty", "EC", "crv", "P-256");
        rc = jwk ? ATT_OK : att_fail(err, ATT_E_NOMEM, "JWK: no memory");
    }
    if (rc == ATT_OK) {
        rc = att_json_set_b64u(jwk, "x", ATT_SLICE(xy, ATT_P256_LEN), err);
    }
    if (rc == ATT_OK) {
        rc = att_json_set_b64u(jwk, "y", ATT_SLICE(xy + ATT_P256_LEN, ATT_P256_LEN), err);
    }
    if (rc == ATT_OK) {
        *ret_jwk = jwk;
        jwk = NULL;
    }
    return rc;
}

enum att_rc acme_spki_to_jwk(struct att_slice spki_der, json_t **ret_jwk, struct att_err *err)
{
    const uint8_t *xy = att_p256_of_spki(spki_der);
    if (xy) {
        return point_to_jwk(xy, ret_jwk, err);
    }
    EVP_PKEY *pkey = NULL;
    enum att_rc rc = acme_jwk_pkey_from_spki(spki_der, &pkey, err);
    if (rc == ATT_OK) {
        rc = pkey_to_jwk(pkey, ret_jwk, err);
        EVP_PKEY_free(pkey);
    }
    return rc;
}

/* RFC 7638 §3: the required members only, sorted, no white space. Computed from the key and not
 * from the text, so that one key has one thumbprint. */
static enum att_rc thumbprint(const json_t *jwk, char ret[ACME_THUMBPRINT_LEN], struct att_err *err)
{
    att_autobuf text = {0}, b64 = {0};
    enum att_rc rc = att_json_dump(jwk, true, &text, err);
    if (rc != ATT_OK) {
        return rc;
    }
    uint8_t digest[ATT_SHA256_LEN];
    att_sha256(digest, att_buf_slice(&text));
    att_buf_b64u(&b64, ATT_SLICE_ARRAY(digest));
    rc = att_buf_ok(&b64, err);
    if (rc == ATT_OK) {
        memcpy(ret, b64.ptr, ACME_THUMBPRINT_LEN - 1);
        ret[ACME_THUMBPRINT_LEN - 1] = 0;
    }
    return rc;
}

enum att_rc acme_spki_thumbprint(struct att_slice spki_der, char ret[ACME_THUMBPRINT_LEN],
                                 struct att_err *err)
{
    att_autojson *jwk = NULL;
    enum att_rc rc = acme_spki_to_jwk(spki_der, &jwk, err);
    return rc == ATT_OK ? thumbprint(jwk, ret, err) : rc;
}

enum att_rc acme_jwk_thumbprint(const json_t *jwk, char ret[ACME_THUMBPRINT_LEN],
                                struct att_err *err)
{
    att_autobuf spki = {0};
    enum att_rc rc = acme_jwk_to_spki(jwk, &spki, err);
    return rc == ATT_OK ? acme_spki_thumbprint(att_buf_slice(&spki), ret, err) : rc;
}
