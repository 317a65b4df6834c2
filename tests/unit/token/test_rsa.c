/* The token of an agent whose key is RSA, refusals first, over a store with an OpenSSL key. */
#include "pkcs11/token/module.h"

#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <p11-kit/pkcs11.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct {
    EVP_PKEY *key;
    struct att_slice cert;
    unsigned signatures;
    enum att_rc sign_rc;
    size_t sign_len; /* 0: as it should be */
} fx;
static CK_FUNCTION_LIST *f;
static CK_SESSION_HANDLE session;
static char text[] = "a text of some length";

static struct att_slice make_cert(EVP_PKEY *key)
{
    X509 *cert = X509_new();
    unsigned char *der = NULL;
    X509_set_version(cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 4711);
    X509_gmtime_adj(X509_getm_notBefore(cert), 0);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_set_pubkey(cert, key);
    assert_true(X509_sign(cert, key, EVP_sha256()) > 0);
    int len = i2d_X509(cert, &der);
    X509_free(cert);
    return ATT_SLICE(der, (size_t)len);
}

static enum att_rc view(void *user, uint64_t known, struct token_view *ret, struct att_err *err)
{
    (void)user;
    (void)err;
    ret->generation = 1;
    ret->same = known == 1;
    strcpy(ret->spiffe_id, "spiffe://bank.example/agent/market-data");
    memset(ret->key_id, '1', 32);
    ret->chain = &fx.cert;
    ret->chain_count = 1;
    ret->bundle = &fx.cert;
    ret->bundle_count = 1;
    return ATT_OK;
}

static enum att_rc sign(void *user, const char *key_id, struct att_slice digest,
                        uint8_t ret_signature[TOKEN_SIGNATURE_LEN], struct att_err *err)
{
    (void)user;
    (void)key_id;
    (void)digest;
    (void)ret_signature;
    fail_msg("an RSA key was asked for ECDSA");
    return att_fail(err, ATT_E_INTERNAL, "never");
}

static enum att_rc sign_rsa(void *user, const char *key_id, enum att_rsa_scheme scheme,
                            struct att_slice digest, uint8_t ret_signature[ATT_RSA_MODULUS_MAX],
                            size_t *ret_len, struct att_err *err)
{
    (void)user;
    (void)key_id;
    fx.signatures++;
    if (fx.sign_rc != ATT_OK) {
        return att_fail(err, fx.sign_rc, "as told");
    }
    size_t len = ATT_RSA_MODULUS_MAX;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(fx.key, NULL);
    const EVP_MD *md = digest.len == 32   ? EVP_sha256()
                       : digest.len == 48 ? EVP_sha384()
                                          : EVP_sha512();
    assert_int_equal(EVP_PKEY_sign_init(ctx), 1);
    assert_int_equal(EVP_PKEY_CTX_set_rsa_padding(ctx, scheme == ATT_RSA_PSS ? RSA_PKCS1_PSS_PADDING
                                                                             : RSA_PKCS1_PADDING),
                     1);
    assert_int_equal(EVP_PKEY_CTX_set_signature_md(ctx, md), 1);
    if (scheme == ATT_RSA_PSS) {
        assert_int_equal(EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, RSA_PSS_SALTLEN_DIGEST), 1);
    }
    assert_int_equal(EVP_PKEY_sign(ctx, ret_signature, &len, digest.ptr, digest.len), 1);
    EVP_PKEY_CTX_free(ctx);
    *ret_len = fx.sign_len ? fx.sign_len : len;
    return ATT_OK;
}

static struct token_store store = {.view = view, .sign = sign, .sign_rsa = sign_rsa};

static int setup(void **state)
{
    (void)state;
    fx.key = EVP_RSA_gen(2048);
    fx.cert = make_cert(fx.key);
    fx.signatures = 0;
    fx.sign_rc = ATT_OK;
    fx.sign_len = 0;
    token_module_reset(&store);
    f = token_module_functions();
    assert_int_equal(f->C_Initialize(NULL), CKR_OK);
    assert_int_equal(f->C_OpenSession(1, CKF_SERIAL_SESSION, NULL, NULL, &session), CKR_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    token_module_reset(&store);
    EVP_PKEY_free(fx.key);
    OPENSSL_free((void *)(uintptr_t)fx.cert.ptr);
    return 0;
}

static CK_OBJECT_HANDLE find(CK_OBJECT_CLASS class)
{
    CK_ATTRIBUTE templ[] = {{CKA_CLASS, &class, sizeof class}};
    CK_OBJECT_HANDLE found = 0;
    CK_ULONG count = 0;
    assert_int_equal(f->C_FindObjectsInit(session, templ, 1), CKR_OK);
    assert_int_equal(f->C_FindObjects(session, &found, 1, &count), CKR_OK);
    assert_int_equal(f->C_FindObjectsFinal(session), CKR_OK);
    assert_int_equal(count, 1);
    return found;
}

static CK_RV sign_once(CK_MECHANISM *mechanism, const void *data, size_t len, CK_BYTE *ret)
{
    CK_ULONG room = 256;
    CK_RV rv = f->C_SignInit(session, mechanism, find(CKO_PRIVATE_KEY));
    return rv != CKR_OK ? rv : f->C_Sign(session, (CK_BYTE *)(uintptr_t)data, len, ret, &room);
}

static void sha256(uint8_t ret[32])
{
    assert_int_equal(EVP_Digest(text, strlen(text), ret, NULL, EVP_sha256(), NULL), 1);
}

/* ---- refused ----------------------------------------------------------------------------------
 */

static void what_is_no_digest_is_not_signed(void **state)
{
    (void)state;
    CK_MECHANISM pkcs1 = {CKM_RSA_PKCS, NULL, 0};
    uint8_t digest[64] = {1}, info[ATT_RSA_DIGEST_INFO_MAX], sig[256];
    static const uint8_t sha1[35] = {0x30, 0x21, 0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e,
                                     0x03, 0x02, 0x1a, 0x05, 0x00, 0x04, 0x14};
    size_t len = att_rsa_digest_info(ATT_SLICE(digest, 32), info);
    assert_int_equal(sign_once(&pkcs1, digest, 32, sig), CKR_DATA_INVALID); /* the digest alone */
    assert_int_equal(sign_once(&pkcs1, digest, 36, sig), CKR_DATA_INVALID); /* MD5 ‖ SHA-1 */
    assert_int_equal(sign_once(&pkcs1, sha1, sizeof sha1, sig), CKR_DATA_INVALID);
    assert_int_equal(sign_once(&pkcs1, info, len - 1, sig), CKR_DATA_INVALID);
    info[4] ^= 1;
    assert_int_equal(sign_once(&pkcs1, info, len, sig), CKR_DATA_INVALID);
    assert_int_equal(fx.signatures, 0);
}

static void other_mechanisms_are_refused(void **state)
{
    (void)state;
    CK_OBJECT_HANDLE key = find(CKO_PRIVATE_KEY);
    const CK_MECHANISM_TYPE none[] = {
        CKM_ECDSA,
        CKM_RSA_X_509,
        CKM_SHA1_RSA_PKCS,
        CKM_MD5_RSA_PKCS,
        CKM_RSA_PKCS_OAEP,
        CKM_SHA1_RSA_PKCS_PSS,
#if !TOKEN_PSS_WITH_HASH
        CKM_SHA256_RSA_PKCS_PSS,
#endif
    };
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
        CK_MECHANISM mechanism = {none[i], NULL, 0};
        assert_int_equal(f->C_SignInit(session, &mechanism, key), CKR_MECHANISM_INVALID);
    }
    CK_MECHANISM odd = {CKM_RSA_PKCS, text, 4};
    assert_int_equal(f->C_SignInit(session, &odd, key), CKR_MECHANISM_PARAM_INVALID);
}

#if TOKEN_PSS_WITH_HASH
static void pss_with_a_hash_takes_that_hash_only(void **state)
{
    (void)state;
    CK_OBJECT_HANDLE key = find(CKO_PRIVATE_KEY);
    CK_RSA_PKCS_PSS_PARAMS params = {CKM_SHA384, CKG_MGF1_SHA384, 48};
    CK_MECHANISM pss = {CKM_SHA256_RSA_PKCS_PSS, &params, sizeof params};
    uint8_t sig[256];
    assert_int_equal(f->C_SignInit(session, &pss, key), CKR_MECHANISM_PARAM_INVALID);
    params = (CK_RSA_PKCS_PSS_PARAMS){CKM_SHA256, CKG_MGF1_SHA256, 31};
    assert_int_equal(f->C_SignInit(session, &pss, key), CKR_MECHANISM_PARAM_INVALID);
    pss.pParameter = NULL;
    assert_int_equal(f->C_SignInit(session, &pss, key), CKR_MECHANISM_PARAM_INVALID);
    assert_int_equal(fx.signatures, 0);
    /* and what it takes verifies */
    params.sLen = 32;
    pss.pParameter = &params;
    assert_int_equal(sign_once(&pss, text, strlen(text), sig), CKR_OK);
    EVP_PKEY_CTX *how;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    assert_int_equal(EVP_DigestVerifyInit(ctx, &how, EVP_sha256(), NULL, fx.key), 1);
    assert_int_equal(EVP_PKEY_CTX_set_rsa_padding(how, RSA_PKCS1_PSS_PADDING), 1);
    assert_int_equal(EVP_PKEY_CTX_set_rsa_pss_saltlen(how, RSA_PSS_SALTLEN_DIGEST), 1);
    assert_int_equal(EVP_DigestVerify(ctx, sig, sizeof sig, (uint8_t *)text, strlen(text)), 1);
    EVP_MD_CTX_free(ctx);
    assert_int_equal(f->C_VerifyInit(session, &pss, find(CKO_PUBLIC_KEY)), CKR_OK);
    assert_int_equal(f->C_Verify(session, (CK_BYTE *)text, strlen(text), sig, sizeof sig), CKR_OK);
}
#endif

static void only_the_salt_of_tls_is_taken(void **state)
{
    (void)state;
    CK_OBJECT_HANDLE key = find(CKO_PRIVATE_KEY);
    CK_RSA_PKCS_PSS_PARAMS params = {CKM_SHA256, CKG_MGF1_SHA256, 32};
    CK_MECHANISM pss = {CKM_RSA_PKCS_PSS, &params, sizeof params};
    uint8_t digest[33] = {1}, sig[256];
    const CK_RSA_PKCS_PSS_PARAMS bad[] = {{CKM_SHA256, CKG_MGF1_SHA256, 0},
                                          {CKM_SHA256, CKG_MGF1_SHA256, 33},
                                          {CKM_SHA256, CKG_MGF1_SHA384, 32},
                                          {CKM_SHA_1, CKG_MGF1_SHA1, 20},
                                          {CKM_SHA384, CKG_MGF1_SHA384, 32}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        params = bad[i];
        assert_int_equal(f->C_SignInit(session, &pss, key), CKR_MECHANISM_PARAM_INVALID);
    }
    pss.ulParameterLen--;
    assert_int_equal(f->C_SignInit(session, &pss, key), CKR_MECHANISM_PARAM_INVALID);
    pss = (CK_MECHANISM){CKM_RSA_PKCS_PSS, NULL, 0};
    assert_int_equal(f->C_SignInit(session, &pss, key), CKR_MECHANISM_PARAM_INVALID);
    params = (CK_RSA_PKCS_PSS_PARAMS){CKM_SHA256, CKG_MGF1_SHA256, 32};
    pss = (CK_MECHANISM){CKM_RSA_PKCS_PSS, &params, sizeof params};
    assert_int_equal(sign_once(&pss, digest, 33, sig), CKR_DATA_LEN_RANGE);
    assert_int_equal(sign_once(&pss, digest, 31, sig), CKR_DATA_LEN_RANGE);
    assert_int_equal(fx.signatures, 0);
}

static void the_store_is_not_trusted_with_lengths(void **state)
{
    (void)state;
    CK_MECHANISM mechanism = {CKM_SHA256_RSA_PKCS, NULL, 0};
    uint8_t sig[256];
    fx.sign_len = 384; /* of another key than the certificate's */
    assert_int_equal(sign_once(&mechanism, text, strlen(text), sig), CKR_GENERAL_ERROR);
    fx.sign_len = 0;
    fx.sign_rc = ATT_E_DENIED;
    assert_int_equal(sign_once(&mechanism, text, strlen(text), sig), CKR_FUNCTION_REJECTED);
}

static void private_parts_are_sensitive(void **state)
{
    (void)state;
    const CK_ATTRIBUTE_TYPE parts[] = {CKA_PRIVATE_EXPONENT, CKA_PRIME_1,    CKA_PRIME_2,
                                       CKA_EXPONENT_1,       CKA_EXPONENT_2, CKA_COEFFICIENT};
    uint8_t value[512];
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        CK_ATTRIBUTE attr = {parts[i], value, sizeof value};
        assert_int_equal(f->C_GetAttributeValue(session, find(CKO_PRIVATE_KEY), &attr, 1),
                         CKR_ATTRIBUTE_SENSITIVE);
        attr = (CK_ATTRIBUTE){parts[i], value, sizeof value};
        assert_int_equal(f->C_GetAttributeValue(session, find(CKO_PUBLIC_KEY), &attr, 1),
                         CKR_ATTRIBUTE_TYPE_INVALID);
    }
    CK_ATTRIBUTE point = {CKA_EC_POINT, value, sizeof value};
    assert_int_equal(f->C_GetAttributeValue(session, find(CKO_PUBLIC_KEY), &point, 1),
                     CKR_ATTRIBUTE_TYPE_INVALID);
}

static void weak_peers_are_not_taken(void **state)
{
    (void)state;
    CK_OBJECT_CLASS class = CKO_PUBLIC_KEY;
    CK_KEY_TYPE type = CKK_RSA;
    CK_OBJECT_HANDLE object;
    uint8_t modulus[513], exponent[9] = {1, 0, 1};
    memset(modulus, 0xff, sizeof modulus);
    CK_ATTRIBUTE templ[] = {{CKA_CLASS, &class, sizeof class},
                            {CKA_KEY_TYPE, &type, sizeof type},
                            {CKA_MODULUS, modulus, 128},
                            {CKA_PUBLIC_EXPONENT, exponent, 3}};
    assert_int_equal(f->C_CreateObject(session, templ, 3, &object), CKR_TEMPLATE_INCOMPLETE);
    assert_int_equal(f->C_CreateObject(session, templ, 4, &object), CKR_ATTRIBUTE_VALUE_INVALID);
    templ[2].ulValueLen = 513;
    assert_int_equal(f->C_CreateObject(session, templ, 4, &object), CKR_ATTRIBUTE_VALUE_INVALID);
    templ[2].ulValueLen = 256;
    templ[3].ulValueLen = 9;
    assert_int_equal(f->C_CreateObject(session, templ, 4, &object), CKR_ATTRIBUTE_VALUE_INVALID);
    templ[3].ulValueLen = 1; /* exponent 1 */
    assert_int_equal(f->C_CreateObject(session, templ, 4, &object), CKR_ATTRIBUTE_VALUE_INVALID);
    templ[3].ulValueLen = 3;
    assert_int_equal(f->C_CreateObject(session, templ, 4, &object), CKR_OK);
}

/* ---- done -------------------------------------------------------------------------------------
 */

static void verifies(CK_MECHANISM *mechanism, void *data, size_t len, CK_BYTE *sig)
{
    CK_OBJECT_HANDLE pub = find(CKO_PUBLIC_KEY);
    assert_int_equal(f->C_VerifyInit(session, mechanism, pub), CKR_OK);
    assert_int_equal(f->C_Verify(session, data, len, sig, 256), CKR_OK);
    sig[7] ^= 1;
    assert_int_equal(f->C_VerifyInit(session, mechanism, pub), CKR_OK);
    assert_int_equal(f->C_Verify(session, data, len, sig, 256), CKR_SIGNATURE_INVALID);
    sig[7] ^= 1;
    assert_int_equal(f->C_VerifyInit(session, mechanism, pub), CKR_OK);
    assert_int_equal(f->C_Verify(session, data, len, sig, 255), CKR_SIGNATURE_LEN_RANGE);
}

static void every_mechanism_signs(void **state)
{
    (void)state;
    CK_MECHANISM pkcs1 = {CKM_RSA_PKCS, NULL, 0};
    CK_RSA_PKCS_PSS_PARAMS params = {CKM_SHA256, CKG_MGF1_SHA256, 32};
    CK_MECHANISM pss = {CKM_RSA_PKCS_PSS, &params, sizeof params};
    uint8_t digest[32], info[ATT_RSA_DIGEST_INFO_MAX], sig[256];
    sha256(digest);
    size_t len = att_rsa_digest_info(ATT_SLICE_ARRAY(digest), info);
    assert_int_equal(sign_once(&pkcs1, info, len, sig), CKR_OK);
    verifies(&pkcs1, info, len, sig);
    assert_int_equal(sign_once(&pss, digest, 32, sig), CKR_OK);
    verifies(&pss, digest, 32, sig);
    const CK_MECHANISM_TYPE hashing[] = {CKM_SHA256_RSA_PKCS, CKM_SHA384_RSA_PKCS,
                                         CKM_SHA512_RSA_PKCS};
    for (size_t i = 0; i < 3; i++) {
        CK_MECHANISM mechanism = {hashing[i], NULL, 0};
        assert_int_equal(sign_once(&mechanism, text, strlen(text), sig), CKR_OK);
        verifies(&mechanism, text, strlen(text), sig);
    }
    assert_int_equal(fx.signatures, 5);
}

static void parts_are_hashed_together(void **state)
{
    (void)state;
    CK_MECHANISM hashing = {CKM_SHA256_RSA_PKCS, NULL, 0}, pkcs1 = {CKM_RSA_PKCS, NULL, 0};
    CK_OBJECT_HANDLE key = find(CKO_PRIVATE_KEY), pub = find(CKO_PUBLIC_KEY);
    uint8_t sig[256];
    CK_ULONG room = 0;
    assert_int_equal(f->C_SignInit(session, &pkcs1, key), CKR_OK);
    assert_int_equal(f->C_SignUpdate(session, (CK_BYTE *)text, 4), CKR_FUNCTION_NOT_SUPPORTED);
    assert_int_equal(f->C_SignInit(session, &hashing, key), CKR_OK);
    assert_int_equal(f->C_SignUpdate(session, (CK_BYTE *)text, 4), CKR_OK);
    room = sizeof sig;
    assert_int_equal(f->C_Sign(session, (CK_BYTE *)text, 4, sig, &room), CKR_OPERATION_ACTIVE);
    assert_int_equal(f->C_SignInit(session, &hashing, key), CKR_OK);
    assert_int_equal(f->C_SignUpdate(session, (CK_BYTE *)text, 4), CKR_OK);
    assert_int_equal(f->C_SignUpdate(session, (CK_BYTE *)text + 4, strlen(text) - 4), CKR_OK);
    assert_int_equal(f->C_SignFinal(session, NULL, &room), CKR_OK); /* a question of size */
    assert_int_equal(room, 256);
    room = 255;
    assert_int_equal(f->C_SignFinal(session, sig, &room), CKR_BUFFER_TOO_SMALL);
    assert_int_equal(f->C_SignFinal(session, sig, &room), CKR_OK);
    verifies(&hashing, text, strlen(text), sig);
    assert_int_equal(f->C_VerifyInit(session, &hashing, pub), CKR_OK);
    assert_int_equal(f->C_VerifyUpdate(session, (CK_BYTE *)text, strlen(text)), CKR_OK);
    assert_int_equal(f->C_VerifyFinal(session, sig, 256), CKR_OK);
}

static void what_the_token_shows(void **state)
{
    (void)state;
    CK_MECHANISM_TYPE list[8];
    CK_MECHANISM_INFO info;
    CK_ULONG count = 8, bits = 0;
    CK_KEY_TYPE type = 0;
    uint8_t modulus[256], exponent[3];
    assert_int_equal(f->C_GetMechanismList(1, list, &count), CKR_OK);
    assert_int_equal(count, TOKEN_PSS_WITH_HASH ? 8 : 5);
    for (CK_ULONG i = 0; i < count; i++) {
        assert_int_not_equal(list[i], CKM_ECDSA);
        assert_int_equal(f->C_GetMechanismInfo(1, list[i], &info), CKR_OK);
        assert_int_equal(info.ulMinKeySize, 2048);
    }
    CK_ATTRIBUTE attrs[] = {{CKA_KEY_TYPE, &type, sizeof type},
                            {CKA_MODULUS, modulus, sizeof modulus},
                            {CKA_PUBLIC_EXPONENT, exponent, sizeof exponent},
                            {CKA_MODULUS_BITS, &bits, sizeof bits}};
    assert_int_equal(f->C_GetAttributeValue(session, find(CKO_PRIVATE_KEY), attrs, 4), CKR_OK);
    assert_int_equal(type, CKK_RSA);
    assert_int_equal(bits, 2048);
    assert_memory_equal(exponent, "\1\0\1", 3);
    BIGNUM *n = NULL;
    uint8_t wanted[256];
    assert_int_equal(EVP_PKEY_get_bn_param(fx.key, "n", &n), 1);
    assert_int_equal(BN_bn2binpad(n, wanted, 256), 256);
    assert_memory_equal(modulus, wanted, 256);
    BN_free(n);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(what_is_no_digest_is_not_signed),
        TEST(other_mechanisms_are_refused),
        TEST(only_the_salt_of_tls_is_taken),
#if TOKEN_PSS_WITH_HASH
        TEST(pss_with_a_hash_takes_that_hash_only),
#endif
        TEST(the_store_is_not_trusted_with_lengths),
        TEST(private_parts_are_sensitive),
        TEST(weak_peers_are_not_taken),
        TEST(every_mechanism_signs),
        TEST(parts_are_hashed_together),
        TEST(what_the_token_shows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
