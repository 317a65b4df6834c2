/* Signatures: what goes into the module is a digest, or a structure around one that is made here.
 */
#include "pkcs11/hsm/internal.h"

#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <string.h>

/* One C_SignInit and C_Sign. */
static enum att_rc sign_once(struct hsm_call *call, CK_OBJECT_HANDLE key, CK_MECHANISM *mechanism,
                             struct att_slice data, bool rsa, uint8_t *ret, size_t *ret_len,
                             struct att_err *err)
{
    uint8_t copy[ATT_RSA_DIGEST_INFO_MAX], signature[512];
    CK_ULONG len = sizeof signature;
    memcpy(copy, data.ptr, data.len);
    CK_RV rv = call->module->C_SignInit(call->session, mechanism, key);
    if (rv != CKR_OK) {
        return hsm_call_failed(call, rv, "C_SignInit", err);
    }
    rv = call->module->C_Sign(call->session, copy, data.len, signature, &len);
    if (rv != CKR_OK) {
        return hsm_call_failed(call, rv, "C_Sign", err);
    }
    if (rsa ? len != 256 && len != ATT_RSA_MODULUS_MAX : len != HSM_SIGNATURE_LEN) {
        (void)!att_fail(err, ATT_E_PROTOCOL, "C_Sign: a signature of %lu bytes, expected %s", len,
                        rsa ? "256 or 384" : "64");
        att_err_reason(err, "moduleAnswer");
        return ATT_E_PROTOCOL;
    }
    memcpy(ret, signature, len);
    *ret_len = len;
    return ATT_OK;
}

enum att_rc hsm_sign_ecdsa(struct hsm_call *call, CK_OBJECT_HANDLE key,
                           const uint8_t digest[ATT_SHA256_LEN], uint8_t ret[HSM_SIGNATURE_LEN],
                           struct att_err *err)
{
    CK_MECHANISM mechanism = {CKM_ECDSA, NULL, 0};
    size_t len = 0;
    return sign_once(call, key, &mechanism, ATT_SLICE(digest, ATT_SHA256_LEN), false, ret, &len,
                     err);
}

/* ---- RSA ---------------------------------------------------------------------------------------
 */

static CK_RSA_PKCS_PSS_PARAMS pss_params(size_t digest_len)
{
    bool sha256 = digest_len == 32, sha384 = digest_len == 48;
    return (CK_RSA_PKCS_PSS_PARAMS){
        .hashAlg = sha256   ? CKM_SHA256
                   : sha384 ? CKM_SHA384
                            : CKM_SHA512,
        .mgf = sha256   ? CKG_MGF1_SHA256
               : sha384 ? CKG_MGF1_SHA384
                        : CKG_MGF1_SHA512,
        .sLen = digest_len,
    };
}

enum att_rc hsm_sign_rsa(struct hsm_call *call, CK_OBJECT_HANDLE key, enum att_rsa_scheme scheme,
                         struct att_slice digest, uint8_t ret[HSM_SIGNATURE_MAX], size_t *ret_len,
                         struct att_err *err)
{
    uint8_t info[ATT_RSA_DIGEST_INFO_MAX];
    size_t info_len = att_rsa_digest_info(digest, info);
    if (!info_len || (scheme != ATT_RSA_PKCS1 && scheme != ATT_RSA_PSS)) {
        return att_fail(err, ATT_E_INVAL, "a digest of %zu bytes, or no scheme of RSA", digest.len);
    }
    CK_RSA_PKCS_PSS_PARAMS params = pss_params(digest.len);
    CK_MECHANISM pkcs1 = {CKM_RSA_PKCS, NULL, 0}, pss = {CKM_RSA_PKCS_PSS, &params, sizeof params};
    return scheme == ATT_RSA_PSS
               ? sign_once(call, key, &pss, digest, true, ret, ret_len, err)
               : sign_once(call, key, &pkcs1, ATT_SLICE(info, info_len), true, ret, ret_len, err);
}

/* ---- a new key's -------------------------------------------------------------------------------
 */

static bool ecdsa_good(EVP_PKEY *pkey, const uint8_t *raw, struct att_slice digest)
{
    ECDSA_SIG *sig = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn(raw, 32, NULL), *s = BN_bin2bn(raw + 32, 32, NULL);
    unsigned char *der = NULL;
    int len = -1;
    if (sig && r && s && ECDSA_SIG_set0(sig, r, s) == 1) {
        r = s = NULL;
        len = i2d_ECDSA_SIG(sig, &der);
    }
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(pkey, NULL);
    bool good = len > 0 && ctx && EVP_PKEY_verify_init(ctx) == 1 &&
                EVP_PKEY_verify(ctx, der, (size_t)len, digest.ptr, digest.len) == 1;
    EVP_PKEY_CTX_free(ctx);
    OPENSSL_free(der);
    BN_free(r);
    BN_free(s);
    ECDSA_SIG_free(sig);
    return good;
}

/* Both schemes of RSA: a module that lacks one is found out now and not by a handshake. */
static enum att_rc check_one(struct hsm_call *call, CK_OBJECT_HANDLE private, EVP_PKEY *pkey,
                             const struct hsm_key *key, enum att_rsa_scheme scheme,
                             struct att_err *err)
{
    uint8_t bytes[ATT_SHA256_LEN], signature[HSM_SIGNATURE_MAX];
    struct att_slice digest = ATT_SLICE_ARRAY(bytes);
    size_t len = 0;
    bool rsa = att_keytype_is_rsa(key->type), good = false;
    enum att_rc rc = att_random(bytes, sizeof bytes, err);
    if (rc == ATT_OK) {
        rc = rsa ? hsm_sign_rsa(call, private, scheme, digest, signature, &len, err)
                 : hsm_sign_ecdsa(call, private, bytes, signature, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    good = rsa ? att_rsa_verify(pkey, scheme, digest, ATT_SLICE(signature, len), NULL) == ATT_OK
               : ecdsa_good(pkey, signature, digest);
    if (!good) {
        (void)!att_fail(err, ATT_E_UNSUPPORTED, "a new key's signature does not verify");
        att_err_reason(err, "keySignature");
    }
    return good ? ATT_OK : ATT_E_UNSUPPORTED;
}

enum att_rc hsm_sign_check(struct hsm_call *call, CK_OBJECT_HANDLE private,
                           const struct hsm_key *key, struct att_err *err)
{
    EVP_PKEY *pkey = NULL;
    enum att_rc rc = att_keytype_key(ATT_SLICE(key->spki, key->spki_len), &pkey, err);
    if (rc == ATT_OK) {
        rc = check_one(call, private, pkey, key, ATT_RSA_PSS, err);
    }
    if (rc == ATT_OK && att_keytype_is_rsa(key->type)) {
        rc = check_one(call, private, pkey, key, ATT_RSA_PKCS1, err);
    }
    EVP_PKEY_free(pkey);
    return rc;
}
