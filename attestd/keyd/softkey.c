#include "attestd/keyd/softkey.h"

#include "certs/key.h"

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/obj_mac.h>
#include <openssl/param_build.h>
#include <string.h>

static enum att_rc public_point(const BIGNUM *scalar, uint8_t ret[KEYD_POINT_LEN],
                                struct att_err *err)
{
    EC_GROUP *group = EC_GROUP_new_by_curve_name(NID_X9_62_prime256v1);
    EC_POINT *point = group ? EC_POINT_new(group) : NULL;
    bool ok = point && !BN_is_zero(scalar) && BN_cmp(scalar, EC_GROUP_get0_order(group)) < 0 &&
              EC_POINT_mul(group, point, scalar, NULL, NULL, NULL) == 1 &&
              EC_POINT_point2oct(group, point, POINT_CONVERSION_UNCOMPRESSED, ret, KEYD_POINT_LEN,
                                 NULL) == KEYD_POINT_LEN;
    EC_POINT_free(point);
    EC_GROUP_free(group);
    return ok ? ATT_OK : att_fail_openssl(err, ATT_E_CRYPTO, "a key's public point");
}

static enum att_rc build_pkey(const BIGNUM *scalar, const uint8_t point[KEYD_POINT_LEN],
                              EVP_PKEY **ret, struct att_err *err)
{
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    OSSL_PARAM *params = NULL;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
    EVP_PKEY *pkey = NULL;
    if (build && ctx &&
        OSSL_PARAM_BLD_push_utf8_string(build, OSSL_PKEY_PARAM_GROUP_NAME, "prime256v1", 0) &&
        OSSL_PARAM_BLD_push_octet_string(build, OSSL_PKEY_PARAM_PUB_KEY, point, KEYD_POINT_LEN) &&
        OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_PRIV_KEY, scalar) &&
        (params = OSSL_PARAM_BLD_to_param(build)) != NULL && EVP_PKEY_fromdata_init(ctx) == 1) {
        (void)!EVP_PKEY_fromdata(ctx, &pkey, EVP_PKEY_KEYPAIR, params);
    }
    OSSL_PARAM_free(params); /* wipes what came from a secure BIGNUM */
    OSSL_PARAM_BLD_free(build);
    EVP_PKEY_CTX_free(ctx);
    if (!pkey) {
        return att_fail_openssl(err, ATT_E_CRYPTO, "a key of a scalar");
    }
    *ret = pkey;
    return ATT_OK;
}

enum att_rc keyd_softkey_open(const struct att_secret *scalar, const uint8_t *point,
                              EVP_PKEY **ret_pkey, struct att_err *err)
{
    uint8_t made[KEYD_POINT_LEN];
    BIGNUM *number = BN_secure_new();
    if (!number || !BN_bin2bn(scalar->ptr, (int)scalar->len, number)) {
        BN_clear_free(number);
        return att_fail_openssl(err, ATT_E_NOMEM, "a key's scalar");
    }
    BN_set_flags(number, BN_FLG_CONSTTIME);
    enum att_rc rc = ATT_OK;
    if (!point) {
        rc = public_point(number, made, err);
        point = made;
    }
    if (rc == ATT_OK) {
        rc = build_pkey(number, point, ret_pkey, err);
    }
    BN_clear_free(number);
    return rc;
}

enum att_rc keyd_softkey_make(struct att_secret *ret_scalar, struct att_err *err)
{
    EVP_PKEY *pkey = NULL;
    BIGNUM *number = BN_secure_new();
    att_autosecret scalar = {0};
    enum att_rc rc = certs_key_generate(&pkey, err);
    if (rc == ATT_OK) {
        rc = att_secret_new(&scalar, KEYD_SCALAR_LEN, err);
    }
    if (rc == ATT_OK &&
        (!number || !EVP_PKEY_get_bn_param(pkey, OSSL_PKEY_PARAM_PRIV_KEY, &number) ||
         BN_bn2binpad(number, scalar.ptr, KEYD_SCALAR_LEN) < 0)) {
        rc = att_fail_openssl(err, ATT_E_CRYPTO, "a fresh scalar");
    }
    BN_clear_free(number);
    EVP_PKEY_free(pkey);
    if (rc == ATT_OK) {
        *ret_scalar = scalar;
        scalar = (struct att_secret){0};
    }
    return rc;
}

enum att_rc keyd_softkey_ready(EVP_PKEY *pkey, EVP_PKEY_CTX **ret_ctx, struct att_err *err)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, pkey, NULL);
    if (!ctx || EVP_PKEY_sign_init(ctx) != 1 ||
        EVP_PKEY_CTX_set_signature_md(ctx, EVP_sha256()) != 1) {
        EVP_PKEY_CTX_free(ctx);
        return att_fail_openssl(err, ATT_E_CRYPTO, "a key that signs");
    }
    *ret_ctx = ctx;
    return ATT_OK;
}

enum att_rc keyd_softkey_sign(EVP_PKEY_CTX *ctx, const uint8_t digest[ATT_SHA256_LEN],
                              struct att_buf *ret_raw, struct att_err *err)
{
    uint8_t der[CERTS_SIG_DER_MAX];
    size_t len = sizeof der;
    return EVP_PKEY_sign(ctx, der, &len, digest, ATT_SHA256_LEN) == 1
               ? certs_sig_raw(ATT_SLICE(der, len), ret_raw, err)
               : att_fail_openssl(err, ATT_E_CRYPTO, "signature");
}

enum att_rc keyd_softkey_pkcs8(const struct att_secret *scalar, const uint8_t point[KEYD_POINT_LEN],
                               struct att_secret *ret_pkcs8, struct att_err *err)
{
    /* SEQUENCE { 0, { id-ecPublicKey, prime256v1 }, OCTET STRING { SEQUENCE { 1, OCTET STRING */
    static const uint8_t head[] = {0x30, 0x81, 0x87, 0x02, 0x01, 0x00, 0x30, 0x13, 0x06,
                                   0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06,
                                   0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07,
                                   0x04, 0x6d, 0x30, 0x6b, 0x02, 0x01, 0x01, 0x04, 0x20};
    static const uint8_t mid[] = {0xa1, 0x44, 0x03, 0x42, 0x00}; /* [1] { BIT STRING */
    _Static_assert(sizeof head + KEYD_SCALAR_LEN + sizeof mid + KEYD_POINT_LEN == KEYD_PKCS8_LEN,
                   "lengths");
    att_autosecret made = {0};
    enum att_rc rc = att_secret_new(&made, KEYD_PKCS8_LEN, err);
    if (rc != ATT_OK) {
        return rc;
    }
    if (!made.locked) {
        (void)!att_fail(err, ATT_E_LIMIT, "no more memory can be locked (LimitMEMLOCK)");
        att_err_reason(err, "memoryLock");
        return ATT_E_LIMIT;
    }
    memcpy(made.ptr, head, sizeof head);
    memcpy(made.ptr + sizeof head, scalar->ptr, KEYD_SCALAR_LEN);
    memcpy(made.ptr + sizeof head + KEYD_SCALAR_LEN, mid, sizeof mid);
    memcpy(made.ptr + sizeof head + KEYD_SCALAR_LEN + sizeof mid, point, KEYD_POINT_LEN);
    *ret_pkcs8 = made;
    made = (struct att_secret){0};
    return ATT_OK;
}
