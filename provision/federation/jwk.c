#include "provision/federation/jwk.h"

#include "attestd/base/enc.h"
#include "provision/acme/jwk.h"

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <string.h>

#define COORDINATE_MAX 66

bool federation_jwk_has_secret(const json_t *jwk)
{
    static const char *const members[] = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"};
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        if (json_object_get(jwk, members[i])) {
            return true;
        }
    }
    return false;
}

static const char *text_of(const json_t *jwk, const char *name)
{
    const char *text = json_string_value(json_object_get(jwk, name));
    return text ? text : "";
}

static bool is_ec(const json_t *jwk)
{
    return strcmp(text_of(jwk, "kty"), "EC") == 0;
}

bool federation_jwk_known(const json_t *jwk)
{
    return is_ec(jwk) || strcmp(text_of(jwk, "kty"), "RSA") == 0;
}

/* ---- P-384 and P-521, which accounts and tokens do not have here ------------------------------
 */

static const struct curve {
    const char *crv, *group;
    size_t len;
} wide[] = {{"P-384", "P-384", 48}, {"P-521", "P-521", 66}};

static const struct curve *wide_curve(const json_t *jwk)
{
    for (size_t i = 0; is_ec(jwk) && i < sizeof wide / sizeof wide[0]; i++) {
        if (strcmp(text_of(jwk, "crv"), wide[i].crv) == 0) {
            return &wide[i];
        }
    }
    return NULL;
}

/* RFC 7518 §6.2.1: x and y have the curve's length, with leading zeroes. */
static bool point_of(const json_t *jwk, const struct curve *curve,
                     uint8_t ret[1 + 2 * COORDINATE_MAX])
{
    static const char *const names[] = {"x", "y"};
    ret[0] = POINT_CONVERSION_UNCOMPRESSED;
    for (size_t i = 0; i < 2; i++) {
        att_autobuf raw = {0};
        if (att_json_b64u(jwk, names[i], curve->len, &raw, NULL) != ATT_OK ||
            raw.len != curve->len) {
            return false;
        }
        memcpy(ret + 1 + i * curve->len, raw.ptr, curve->len);
    }
    return true;
}

/* NULL: not a point of the curve. */
static EVP_PKEY *wide_key(const json_t *jwk, const struct curve *curve)
{
    uint8_t point[1 + 2 * COORDINATE_MAX];
    EVP_PKEY *key = NULL;
    if (!point_of(jwk, curve, point)) {
        return NULL;
    }
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    bool ok =
        build &&
        OSSL_PARAM_BLD_push_utf8_string(build, OSSL_PKEY_PARAM_GROUP_NAME, curve->group, 0) == 1 &&
        OSSL_PARAM_BLD_push_octet_string(build, OSSL_PKEY_PARAM_PUB_KEY, point,
                                         1 + 2 * curve->len) == 1;
    OSSL_PARAM *params = ok ? OSSL_PARAM_BLD_to_param(build) : NULL;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
    if (!params || !ctx || EVP_PKEY_fromdata_init(ctx) != 1 ||
        EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params) != 1) {
        key = NULL;
    }
    EVP_PKEY_CTX_free(ctx);
    OSSL_PARAM_free(params);
    OSSL_PARAM_BLD_free(build);
    EVP_PKEY_CTX *check = key ? EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL) : NULL;
    if (!check || EVP_PKEY_public_check(check) != 1) {
        EVP_PKEY_free(key);
        key = NULL;
    }
    EVP_PKEY_CTX_free(check);
    ERR_clear_error();
    return key;
}

static EVP_PKEY *key_of(const json_t *jwk)
{
    const struct curve *curve = wide_curve(jwk);
    EVP_PKEY *key = NULL;
    if (curve) {
        return wide_key(jwk, curve);
    }
    return acme_jwk_pkey(jwk, &key, NULL) == ATT_OK ? key : NULL;
}

/* ---- whose ----------------------------------------------------------------------------------- */

bool federation_jwk_public(const json_t *jwk, json_t **ret_own)
{
    EVP_PKEY *key = key_of(jwk);
    if (!key) {
        return false;
    }
    EVP_PKEY_free(key);
    *ret_own = is_ec(jwk)
                   ? json_pack("{s:s, s:s, s:s, s:s}", "kty", "EC", "crv", text_of(jwk, "crv"), "x",
                               text_of(jwk, "x"), "y", text_of(jwk, "y"))
                   : json_pack("{s:s, s:s, s:s}", "kty", "RSA", "n", text_of(jwk, "n"), "e",
                               text_of(jwk, "e"));
    return *ret_own != NULL;
}

bool federation_jwk_is_of(const json_t *jwk, const EVP_PKEY *key)
{
    if (!key || !text_of(jwk, "kty")[0]) {
        return false;
    }
    bool ec = EVP_PKEY_is_a(key, "EC") == 1, rsa = EVP_PKEY_is_a(key, "RSA") == 1;
    if (!ec && !rsa) {
        return !federation_jwk_known(jwk);
    }
    EVP_PKEY *own = key_of(jwk);
    bool same = own && EVP_PKEY_eq(own, key) == 1;
    EVP_PKEY_free(own);
    ERR_clear_error();
    return same;
}

bool federation_jwk_same(const json_t *a, const json_t *b)
{
    static const char *const members[] = {"kty", "crv", "x", "y", "n", "e"};
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        if (strcmp(text_of(a, members[i]), text_of(b, members[i])) != 0) {
            return false;
        }
    }
    return true;
}
