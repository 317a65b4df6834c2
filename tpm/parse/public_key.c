/* TPMT_PUBLIC to and from OpenSSL's keys. */
#include "tpm/parse/public.h"

#include "attestd/base/p256.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/param_build.h>
#include <openssl/x509.h>
#include <string.h>

static void bn_done(BIGNUM **bn)
{
    BN_free(*bn);
}
static void bld_done(OSSL_PARAM_BLD **bld)
{
    OSSL_PARAM_BLD_free(*bld);
}
static void params_done(OSSL_PARAM **params)
{
    OSSL_PARAM_free(*params);
}
static void ctx_done(EVP_PKEY_CTX **ctx)
{
    EVP_PKEY_CTX_free(*ctx);
}
static void pkey_done(EVP_PKEY **pkey)
{
    EVP_PKEY_free(*pkey);
}

/* Makes the key and has libcrypto check it: for ECC that the point is on the curve, in the field
 * and not at infinity (SP 800-56A rev. 3 §5.6.2.3.3; the curves have cofactor 1). */
static enum att_rc key_from(const char *type, OSSL_PARAM *params, EVP_PKEY **ret_pkey,
                            struct att_err *err)
{
    ATT_CLEANUP(ctx_done) EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
    ATT_CLEANUP(pkey_done) EVP_PKEY *pkey = NULL;
    if (!ctx || EVP_PKEY_fromdata_init(ctx) != 1) {
        return att_fail_openssl(err, ATT_E_CRYPTO, "public area: cannot make a %s key", type);
    }
    if (EVP_PKEY_fromdata(ctx, &pkey, EVP_PKEY_PUBLIC_KEY, params) != 1) {
        return att_fail_openssl(err, ATT_E_PARSE, "public area: this is no %s public key", type);
    }
    ATT_CLEANUP(ctx_done) EVP_PKEY_CTX *check = EVP_PKEY_CTX_new_from_pkey(NULL, pkey, NULL);
    if (!check || EVP_PKEY_public_check_quick(check) != 1) {
        return att_fail_openssl(err, ATT_E_PARSE, "public area: the %s public key is not valid",
                                type);
    }
    *ret_pkey = pkey;
    pkey = NULL;
    return ATT_OK;
}

/* x ‖ y, padded on the left to the field's length. */
static enum att_rc put_point(const struct parse_public *pub, uint8_t *ret_xy, size_t field,
                             struct att_err *err)
{
    if (pub->x_len == 0 || pub->x_len > field || pub->y_len == 0 || pub->y_len > field) {
        return att_fail(err, ATT_E_PARSE, "public area: it has no point: a template, not a key");
    }
    memset(ret_xy, 0, 2 * field);
    memcpy(ret_xy + field - pub->x_len, pub->x, pub->x_len);
    memcpy(ret_xy + 2 * field - pub->y_len, pub->y, pub->y_len);
    return ATT_OK;
}

static enum att_rc p256_pkey(const struct parse_public *pub, EVP_PKEY **ret_pkey,
                             struct att_err *err)
{
    uint8_t xy[ATT_P256_XY_LEN];
    enum att_rc rc = put_point(pub, xy, ATT_P256_LEN, err);
    if (rc == ATT_OK) {
        rc = att_p256_key(xy, ret_pkey, err);
        if (rc != ATT_OK) {
            att_err_prefix(err, "public area");
        }
    }
    return rc;
}

static enum att_rc p384_pkey(const struct parse_public *pub, EVP_PKEY **ret_pkey,
                             struct att_err *err)
{
    const size_t field = 48;
    uint8_t point[1 + 2 * PARSE_COORD_MAX] = {4}; /* SEC 1 §2.3.3, uncompressed */
    enum att_rc rc = put_point(pub, point + 1, field, err);
    if (rc != ATT_OK) {
        return rc;
    }
    char group[] = "P-384";
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, group, 0),
        OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, point, 1 + 2 * field),
        OSSL_PARAM_construct_end(),
    };
    return key_from("EC", params, ret_pkey, err);
}

static enum att_rc rsa_pkey(const struct parse_public *pub, EVP_PKEY **ret_pkey,
                            struct att_err *err)
{
    size_t len = pub->key_bits / 8u;
    if (pub->unique_len != len || len > sizeof pub->unique || !(pub->unique[0] & 0x80) ||
        !(pub->unique[len - 1] & 1)) {
        return att_fail(err, ATT_E_PARSE,
                        "public area: the modulus is not an odd number of %u bits", pub->key_bits);
    }
    ATT_CLEANUP(bn_done) BIGNUM *n = BN_bin2bn(pub->unique, (int)len, NULL);
    ATT_CLEANUP(bn_done) BIGNUM *e = BN_new();
    ATT_CLEANUP(bld_done) OSSL_PARAM_BLD *bld = OSSL_PARAM_BLD_new();
    if (!n || !e || !bld || BN_set_word(e, pub->exponent ? pub->exponent : 65537) != 1 ||
        OSSL_PARAM_BLD_push_BN(bld, OSSL_PKEY_PARAM_RSA_N, n) != 1 ||
        OSSL_PARAM_BLD_push_BN(bld, OSSL_PKEY_PARAM_RSA_E, e) != 1) {
        return att_fail_openssl(err, ATT_E_CRYPTO, "public area: cannot hold an RSA key");
    }
    ATT_CLEANUP(params_done) OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(bld);
    if (!params) {
        return att_fail_openssl(err, ATT_E_CRYPTO, "public area: cannot hold an RSA key");
    }
    return key_from("RSA", params, ret_pkey, err);
}

enum att_rc parse_public_pkey(const struct parse_public *pub, EVP_PKEY **ret_pkey,
                              struct att_err *err)
{
    switch (pub->type) {
    case PARSE_ALG_ECC:
        return pub->curve == PARSE_ECC_P256 ? p256_pkey(pub, ret_pkey, err)
                                            : p384_pkey(pub, ret_pkey, err);
    case PARSE_ALG_RSA:
        return rsa_pkey(pub, ret_pkey, err);
    default:
        return att_fail(err, ATT_E_UNSUPPORTED,
                        "public area: an object of type 0x%04x has no public key", pub->type);
    }
}

/* The form is fixed; libcrypto's encoder would cost as much as a verification. */
static enum att_rc p256_spki(const struct parse_public *pub, struct att_buf *ret_der,
                             struct att_err *err)
{
    uint8_t xy[ATT_P256_XY_LEN], spki[ATT_P256_SPKI_LEN];
    enum att_rc rc = put_point(pub, xy, ATT_P256_LEN, err);
    if (rc != ATT_OK) {
        return rc;
    }
    rc = att_p256_check(xy, err);
    if (rc != ATT_OK) {
        att_err_prefix(err, "public area");
        return rc;
    }
    att_p256_spki(spki, xy);
    att_buf_put(ret_der, spki, sizeof spki);
    return att_buf_ok(ret_der, err);
}

enum att_rc parse_public_spki(const struct parse_public *pub, struct att_buf *ret_der,
                              struct att_err *err)
{
    if (pub->type == PARSE_ALG_ECC && pub->curve == PARSE_ECC_P256) {
        return p256_spki(pub, ret_der, err);
    }
    ATT_CLEANUP(pkey_done) EVP_PKEY *pkey = NULL;
    enum att_rc rc = parse_public_pkey(pub, &pkey, err);
    if (rc != ATT_OK) {
        return rc;
    }
    uint8_t *der = NULL;
    int len = i2d_PUBKEY(pkey, &der);
    if (len <= 0) {
        return att_fail_openssl(err, ATT_E_CRYPTO, "public area: cannot write the key as DER");
    }
    att_buf_put(ret_der, der, (size_t)len);
    OPENSSL_free(der);
    return att_buf_ok(ret_der, err);
}

/* The number param of pkey, left-padded to len bytes. */
static bool take_bn(const EVP_PKEY *pkey, const char *param, uint8_t *ret, size_t len)
{
    ATT_CLEANUP(bn_done) BIGNUM *bn = NULL;
    return EVP_PKEY_get_bn_param(pkey, param, &bn) == 1 &&
           BN_bn2binpad(bn, ret, (int)len) == (int)len;
}

static enum att_rc set_ec(struct parse_public *pub, const EVP_PKEY *pkey, struct att_err *err)
{
    uint16_t curve = EVP_PKEY_get_bits(pkey) == 256 ? PARSE_ECC_P256 : PARSE_ECC_P384;
    char group[32] = "";
    size_t group_len = 0;
    (void)EVP_PKEY_get_utf8_string_param(pkey, OSSL_PKEY_PARAM_GROUP_NAME, group, sizeof group,
                                         &group_len);
    if (strcmp(group, "prime256v1") != 0 && strcmp(group, "P-256") != 0 &&
        strcmp(group, "secp384r1") != 0 && strcmp(group, "P-384") != 0) {
        return att_fail(err, ATT_E_UNSUPPORTED, "a key on curve %s, not P-256 or P-384", group);
    }
    size_t field = curve == PARSE_ECC_P256 ? 32 : 48;
    uint8_t x[PARSE_COORD_MAX] = {0}, y[PARSE_COORD_MAX] = {0};
    if (!take_bn(pkey, OSSL_PKEY_PARAM_EC_PUB_X, x, field) ||
        !take_bn(pkey, OSSL_PKEY_PARAM_EC_PUB_Y, y, field)) {
        return att_fail_openssl(err, ATT_E_CRYPTO, "cannot read an EC key's point");
    }
    pub->type = PARSE_ALG_ECC;
    pub->curve = curve;
    memcpy(pub->x, x, sizeof x);
    memcpy(pub->y, y, sizeof y);
    pub->x_len = pub->y_len = field;
    return ATT_OK;
}

static enum att_rc set_rsa(struct parse_public *pub, const EVP_PKEY *pkey, struct att_err *err)
{
    int bits = EVP_PKEY_get_bits(pkey);
    if (bits != 2048 && bits != 3072) {
        return att_fail(err, ATT_E_UNSUPPORTED, "an RSA key of %d bits, not 2048 or 3072", bits);
    }
    uint8_t n[PARSE_RSA_MAX] = {0}, e[4] = {0};
    if (!take_bn(pkey, OSSL_PKEY_PARAM_RSA_N, n, (size_t)bits / 8) ||
        !take_bn(pkey, OSSL_PKEY_PARAM_RSA_E, e, sizeof e)) {
        return att_fail_openssl(err, ATT_E_CRYPTO, "cannot read an RSA key");
    }
    if (memcmp(e, "\x00\x01\x00\x01", 4) != 0) {
        return att_fail(err, ATT_E_UNSUPPORTED, "an RSA key whose exponent is not 65537");
    }
    pub->type = PARSE_ALG_RSA;
    pub->key_bits = (uint16_t)bits;
    pub->exponent = 0;
    memcpy(pub->unique, n, sizeof n);
    pub->unique_len = (size_t)bits / 8;
    return ATT_OK;
}

enum att_rc parse_public_set_pkey(struct parse_public *pub, const EVP_PKEY *pkey,
                                  struct att_err *err)
{
    if (EVP_PKEY_is_a(pkey, "EC")) {
        return set_ec(pub, pkey, err);
    }
    if (EVP_PKEY_is_a(pkey, "RSA")) {
        return set_rsa(pub, pkey, err);
    }
    return att_fail(err, ATT_E_UNSUPPORTED, "a key that is neither EC nor RSA");
}
