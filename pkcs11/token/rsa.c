/* RSA, for an agent whose key is one: which mechanisms, and what of their input is signed. Nothing
 * but a digest leaves this process; the structure around it is made where the key is. */
#include "pkcs11/token/internal.h"

#include <openssl/core_names.h>
#include <openssl/params.h>
#include <string.h>

static const struct {
    CK_MECHANISM_TYPE hash, hash_and_sign, hash_and_pss;
    CK_RSA_PKCS_MGF_TYPE mgf;
    size_t len;
    const char *name;
} hashes[] = {
    {CKM_SHA256, CKM_SHA256_RSA_PKCS, CKM_SHA256_RSA_PKCS_PSS, CKG_MGF1_SHA256, 32, "SHA256"},
    {CKM_SHA384, CKM_SHA384_RSA_PKCS, CKM_SHA384_RSA_PKCS_PSS, CKG_MGF1_SHA384, 48, "SHA384"},
    {CKM_SHA512, CKM_SHA512_RSA_PKCS, CKM_SHA512_RSA_PKCS_PSS, CKG_MGF1_SHA512, 64, "SHA512"}};
#define HASHES (sizeof hashes / sizeof hashes[0])

const CK_ULONG token_rsa_mechanisms[TOKEN_RSA_MECHANISMS] = {
    CKM_RSA_PKCS,
    CKM_RSA_PKCS_PSS,
    CKM_SHA256_RSA_PKCS,
    CKM_SHA384_RSA_PKCS,
    CKM_SHA512_RSA_PKCS,
#if TOKEN_PSS_WITH_HASH /* what pkcs11-provider 1.0 signs PSS by, and by nothing else */
    CKM_SHA256_RSA_PKCS_PSS,
    CKM_SHA384_RSA_PKCS_PSS,
    CKM_SHA512_RSA_PKCS_PSS,
#endif
};

bool token_rsa_is_mechanism(CK_MECHANISM_TYPE type)
{
    for (size_t i = 0; i < TOKEN_RSA_MECHANISMS; i++) {
        if (token_rsa_mechanisms[i] == type) {
            return true;
        }
    }
    return false;
}

static CK_RV begin_hash(struct token_rsa *rsa, size_t i)
{
    rsa->md = EVP_MD_CTX_new();
    if (!rsa->md || EVP_DigestInit_ex(rsa->md, EVP_get_digestbyname(hashes[i].name), NULL) != 1) {
        token_rsa_end(rsa);
        return CKR_FUNCTION_FAILED;
    }
    return CKR_OK;
}

/* RFC 8017 §9.1.1 allows any salt; TLS 1.3 (RFC 8446 §4.2.3) and X.509 use one as long as the
 * digest, with the same hash for MGF1: the one form that is signed. */
static CK_RV check_pss(const CK_MECHANISM *mechanism, struct token_rsa *ret)
{
    CK_RSA_PKCS_PSS_PARAMS params;
    if (!mechanism->pParameter || mechanism->ulParameterLen != sizeof params) {
        return CKR_MECHANISM_PARAM_INVALID;
    }
    memcpy(&params, mechanism->pParameter, sizeof params);
    for (size_t i = 0; i < HASHES; i++) {
        bool hashes_too = mechanism->mechanism == hashes[i].hash_and_pss;
        if (params.hashAlg == hashes[i].hash && params.mgf == hashes[i].mgf &&
            params.sLen == hashes[i].len &&
            (hashes_too || mechanism->mechanism == CKM_RSA_PKCS_PSS)) {
            *ret = (struct token_rsa){.scheme = ATT_RSA_PSS, .digest_len = hashes[i].len};
            return hashes_too ? begin_hash(ret, i) : CKR_OK;
        }
    }
    return CKR_MECHANISM_PARAM_INVALID;
}

static bool is_pss(CK_MECHANISM_TYPE type)
{
    return type == CKM_RSA_PKCS_PSS || type == CKM_SHA256_RSA_PKCS_PSS ||
           type == CKM_SHA384_RSA_PKCS_PSS || type == CKM_SHA512_RSA_PKCS_PSS;
}

CK_RV token_rsa_begin(const CK_MECHANISM *mechanism, struct token_rsa *ret)
{
    token_rsa_end(ret);
    if (!token_rsa_is_mechanism(mechanism->mechanism)) {
        return CKR_MECHANISM_INVALID;
    }
    if (is_pss(mechanism->mechanism)) {
        return check_pss(mechanism, ret);
    }
    if (mechanism->ulParameterLen) {
        return CKR_MECHANISM_PARAM_INVALID;
    }
    struct token_rsa rsa = {.scheme = ATT_RSA_PKCS1};
    for (size_t i = 0; i < HASHES; i++) {
        if (mechanism->mechanism == hashes[i].hash_and_sign) {
            rsa.digest_len = hashes[i].len;
            CK_RV rv = begin_hash(&rsa, i);
            if (rv != CKR_OK) {
                return rv;
            }
        }
    }
    *ret = rsa;
    return CKR_OK;
}

void token_rsa_end(struct token_rsa *rsa)
{
    EVP_MD_CTX_free(rsa->md);
    *rsa = (struct token_rsa){0};
}

CK_RV token_rsa_update(struct token_rsa *rsa, struct att_slice part)
{
    if (!rsa->md) { /* the others sign in a single part (PKCS#11 2.40 mechanisms §2.1) */
        return CKR_FUNCTION_NOT_SUPPORTED;
    }
    rsa->updated = true;
    return part.len == 0 || EVP_DigestUpdate(rsa->md, part.ptr, part.len) == 1
               ? CKR_OK
               : CKR_FUNCTION_FAILED;
}

CK_RV token_rsa_digest(struct token_rsa *rsa, struct att_slice data, struct token_digest *ret)
{
    struct att_slice digest = data;
    unsigned len = 0;
    if (rsa->md) {
        CK_RV rv = token_rsa_update(rsa, data);
        if (rv != CKR_OK || EVP_DigestFinal_ex(rsa->md, ret->bytes, &len) != 1) {
            return CKR_FUNCTION_FAILED;
        }
        ret->len = len;
        return CKR_OK;
    }
    if (rsa->scheme == ATT_RSA_PKCS1) {
        digest = att_rsa_digest_of_info(data);
        if (digest.len == 0) { /* PKCS #1 v1.5 around anything else */
            return CKR_DATA_INVALID;
        }
    } else if (data.len != rsa->digest_len) {
        return CKR_DATA_LEN_RANGE;
    }
    memcpy(ret->bytes, digest.ptr, digest.len);
    ret->len = digest.len;
    return CKR_OK;
}

/* ---- verifying ---------------------------------------------------------------------------------
 */

static EVP_PKEY *key_of(struct att_slice modulus, struct att_slice exponent)
{
    uint8_t n_native[PEER_MODULUS_MAX], e_native[PEER_EXPONENT_MAX];
    BIGNUM *n = BN_bin2bn(modulus.ptr, (int)modulus.len, NULL);
    BIGNUM *e = BN_bin2bn(exponent.ptr, (int)exponent.len, NULL);
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
    EVP_PKEY *key = NULL;
    bool ok = n && e && ctx && BN_num_bits(n) >= 2048 && BN_is_odd(e) && !BN_is_one(e) &&
              BN_bn2nativepad(n, n_native, (int)modulus.len) > 0 &&
              BN_bn2nativepad(e, e_native, (int)exponent.len) > 0;
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_BN(OSSL_PKEY_PARAM_RSA_N, n_native, modulus.len),
        OSSL_PARAM_construct_BN(OSSL_PKEY_PARAM_RSA_E, e_native, exponent.len),
        OSSL_PARAM_construct_end(),
    };
    if (!ok || EVP_PKEY_fromdata_init(ctx) != 1 ||
        EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params) != 1) {
        key = NULL;
    }
    EVP_PKEY_CTX_free(ctx);
    BN_free(n);
    BN_free(e);
    return key;
}

bool token_rsa_key_ok(struct att_slice modulus, struct att_slice exponent)
{
    EVP_PKEY *key = modulus.len && modulus.len <= PEER_MODULUS_MAX && exponent.len &&
                            exponent.len <= PEER_EXPONENT_MAX
                        ? key_of(modulus, exponent)
                        : NULL;
    EVP_PKEY_free(key);
    return key != NULL;
}

CK_RV token_rsa_verify(struct att_slice modulus, struct att_slice exponent,
                       const struct token_rsa *rsa, const struct token_digest *digest,
                       struct att_slice signature)
{
    EVP_PKEY *key = key_of(modulus, exponent);
    enum att_rc rc = ATT_E_CRYPTO;
    if (key && signature.len != (size_t)EVP_PKEY_get_size(key)) {
        EVP_PKEY_free(key);
        return CKR_SIGNATURE_LEN_RANGE;
    }
    if (key) {
        rc = att_rsa_verify(key, rsa->scheme, ATT_SLICE(digest->bytes, digest->len), signature,
                            NULL);
    }
    EVP_PKEY_free(key);
    return rc == ATT_OK ? CKR_OK : rc == ATT_E_AUTH ? CKR_SIGNATURE_INVALID : CKR_FUNCTION_FAILED;
}
