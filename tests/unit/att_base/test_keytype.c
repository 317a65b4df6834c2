/* SubjectPublicKeyInfo of agents' keys: what is refused, and by which word, first. */
#include "attestd/base/keytype.h"

#include "attestd/base/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

static EVP_PKEY *rsa(int bits, unsigned exponent)
{
    EVP_PKEY *key = NULL;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
    BIGNUM *e = BN_new();
    assert_int_equal(BN_set_word(e, exponent), 1);
    assert_int_equal(EVP_PKEY_keygen_init(ctx), 1);
    assert_int_equal(EVP_PKEY_CTX_set_rsa_keygen_bits(ctx, bits), 1);
    assert_int_equal(EVP_PKEY_CTX_set1_rsa_keygen_pubexp(ctx, e), 1);
    assert_int_equal(EVP_PKEY_generate(ctx, &key), 1);
    BN_free(e);
    EVP_PKEY_CTX_free(ctx);
    return key;
}

static struct att_slice spki_of(EVP_PKEY *key, uint8_t ret[1024])
{
    uint8_t *at = ret;
    int len = i2d_PUBKEY(key, &at);
    assert_true(len > 0);
    return ATT_SLICE(ret, (size_t)len);
}

static void refused(struct att_slice spki, enum att_rc rc, const char *word, const char *says)
{
    struct att_err err = {0};
    enum att_keytype type = ATT_KEYTYPE_NONE;
    EVP_PKEY *key = NULL;
    assert_int_equal(att_keytype_of_spki(spki, &type, &err), rc);
    assert_string_equal(err.reason, word);
    if (!strstr(err.msg, says)) {
        fail_msg("\"%s\" does not say \"%s\"", err.msg, says);
    }
    assert_int_equal(type, ATT_KEYTYPE_NONE);
    assert_int_equal(att_keytype_key(spki, &key, NULL), rc);
    assert_null(key);
    assert_int_equal(att_keytype_modulus(spki).len, 0);
    assert_int_equal(att_keytype_bits(spki).len, 0);
}

static void test_refuses_other_sizes_and_exponents(void **state)
{
    (void)state;
    static const struct {
        int bits;
        unsigned exponent;
        const char *says;
    } cases[] = {{1024, 65537, "1024 bits, expected 2048 or 3072"},
                 {2047, 65537, "2047 bits"},
                 {2056, 65537, "2056 bits"},
                 {4096, 65537, "4096 bits"},
                 {2048, 3, "exponent of 2 bits, expected 65537"},
                 {2048, 65539, "exponent of 17 bits"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t bytes[1024];
        EVP_PKEY *key = rsa(cases[i].bits, cases[i].exponent);
        refused(spki_of(key, bytes), ATT_E_DENIED, "keyType", cases[i].says);
        EVP_PKEY_free(key);
    }
}

static void test_refuses_other_bytes(void **state)
{
    (void)state;
    uint8_t bytes[1024], other[1024];
    EVP_PKEY *key = rsa(2048, 65537), *p384 = EVP_EC_gen("P-384");
    struct att_slice spki = spki_of(key, bytes);
    refused(spki_of(p384, other), ATT_E_PARSE, "", "P-256");
    for (size_t len = 0; len < spki.len; len++) {
        refused(ATT_SLICE(spki.ptr, len), ATT_E_PARSE, "", "something else");
    }
    bytes[spki.len] = 0;
    refused(ATT_SLICE(bytes, spki.len + 1), ATT_E_PARSE, "", "something else");
    bytes[spki.len - 6] &= 0xfe; /* the modulus's last bit */
    refused(spki, ATT_E_PARSE, "", "even");
    bytes[spki.len - 6] |= 1;
    bytes[18] ^= 1; /* no NULL parameters any more */
    refused(spki, ATT_E_PARSE, "", "something else");
    EVP_PKEY_free(key);
    EVP_PKEY_free(p384);
}

static void one_type(enum att_keytype type, EVP_PKEY *key, const char *name)
{
    uint8_t bytes[1024], again[1024];
    enum att_keytype found = ATT_KEYTYPE_NONE;
    EVP_PKEY *same = NULL;
    struct att_slice spki = spki_of(key, bytes);
    assert_int_equal(att_keytype_of_spki(spki, &found, NULL), ATT_OK);
    assert_int_equal(found, type);
    assert_string_equal(att_keytype_name(type), name);
    assert_int_equal(att_keytype_parse(att_slice_str(name)), type);
    assert_int_equal(att_keytype_key(spki, &same, NULL), ATT_OK);
    assert_true(att_slice_eq(spki_of(same, again), spki));
    EVP_PKEY_free(same);
    assert_true(spki.len <= ATT_KEYTYPE_SPKI_MAX);
    X509_PUBKEY *x509 = NULL;
    assert_int_equal(X509_PUBKEY_set(&x509, key), 1);
    const unsigned char *at = NULL;
    int len = 0;
    assert_int_equal(X509_PUBKEY_get0_param(NULL, &at, &len, NULL, x509), 1);
    assert_true(att_slice_eq(att_keytype_bits(spki), ATT_SLICE(at, (size_t)len)));
    X509_PUBKEY_free(x509);
    if (att_keytype_is_rsa(type)) {
        att_autobuf made = {0};
        struct att_slice modulus = att_keytype_modulus(spki);
        assert_int_equal(modulus.len, EVP_PKEY_get_bits(key) / 8);
        assert_int_equal(att_keytype_sig_len(type), EVP_PKEY_get_size(key));
        assert_int_equal(att_keytype_rsa_spki(type, modulus, &made, NULL), ATT_OK);
        assert_true(att_slice_eq(att_buf_slice(&made), spki));
        modulus.len--;
        assert_int_equal(att_keytype_rsa_spki(type, modulus, &made, NULL), ATT_E_INVAL);
    }
}

static void test_types(void **state)
{
    (void)state;
    EVP_PKEY *keys[] = {EVP_EC_gen("P-256"), rsa(2048, 65537), rsa(3072, 65537)};
    one_type(ATT_KEYTYPE_P256, keys[0], "ec-p256");
    one_type(ATT_KEYTYPE_RSA2048, keys[1], "rsa-2048");
    one_type(ATT_KEYTYPE_RSA3072, keys[2], "rsa-3072");
    assert_int_equal(att_keytype_parse(att_slice_str("rsa-1024")), ATT_KEYTYPE_NONE);
    assert_int_equal(att_keytype_parse(att_slice_str("none")), ATT_KEYTYPE_NONE);
    for (size_t i = 0; i < 3; i++) {
        EVP_PKEY_free(keys[i]);
    }
}

/* ---- DigestInfo and signatures ---- */

static void test_digest_info(void **state)
{
    (void)state;
    static const size_t lengths[] = {32, 48, 64};
    uint8_t digest[64], info[ATT_RSA_DIGEST_INFO_MAX + 1];
    memset(digest, 0x5a, sizeof digest);
    for (size_t i = 0; i < 3; i++) {
        struct att_slice is = ATT_SLICE(digest, lengths[i]);
        size_t len = att_rsa_digest_info(is, info);
        assert_int_equal(len, 19 + lengths[i]);
        assert_true(att_slice_eq(att_rsa_digest_of_info(ATT_SLICE(info, len)), is));
        assert_int_equal(att_rsa_digest_of_info(ATT_SLICE(info, len - 1)).len, 0);
        assert_int_equal(att_rsa_digest_of_info(ATT_SLICE(info, len + 1)).len, 0);
        for (size_t bit = 0; bit < 8 * 19; bit++) { /* each bit of the head counts */
            info[bit / 8] ^= (uint8_t)(1 << bit % 8);
            assert_int_equal(att_rsa_digest_of_info(ATT_SLICE(info, len)).len, 0);
            info[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
    }
    assert_int_equal(att_rsa_digest_info(ATT_SLICE(digest, 20), info), 0); /* SHA-1 */
    assert_int_equal(att_rsa_digest_info(ATT_SLICE(digest, 0), info), 0);
    assert_int_equal(att_rsa_digest_of_info(ATT_SLICE(digest, 20)).len, 0);
    assert_int_equal(att_rsa_digest_of_info(ATT_SLICE(NULL, 0)).len, 0);
}

static size_t sign(EVP_PKEY *key, int padding, int salt, struct att_slice digest, uint8_t *ret)
{
    size_t len = 512;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(key, NULL);
    assert_int_equal(EVP_PKEY_sign_init(ctx), 1);
    assert_int_equal(EVP_PKEY_CTX_set_rsa_padding(ctx, padding), 1);
    assert_int_equal(EVP_PKEY_CTX_set_signature_md(ctx, EVP_sha256()), 1);
    if (padding == RSA_PKCS1_PSS_PADDING) {
        assert_int_equal(EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, salt), 1);
    }
    assert_int_equal(EVP_PKEY_sign(ctx, ret, &len, digest.ptr, digest.len), 1);
    EVP_PKEY_CTX_free(ctx);
    return len;
}

static void test_verify(void **state)
{
    (void)state;
    uint8_t bytes[32] = {7}, sig[512];
    struct att_slice digest = ATT_SLICE_ARRAY(bytes);
    EVP_PKEY *key = rsa(2048, 65537), *ec = EVP_EC_gen("P-256");
    size_t len = sign(key, RSA_PKCS1_PADDING, 0, digest, sig);
    assert_int_equal(att_rsa_verify(key, ATT_RSA_PSS, digest, ATT_SLICE(sig, len), NULL),
                     ATT_E_AUTH);
    assert_int_equal(att_rsa_verify(key, ATT_RSA_PKCS1, digest, ATT_SLICE(sig, len), NULL), ATT_OK);
    assert_int_equal(att_rsa_verify(ec, ATT_RSA_PKCS1, digest, ATT_SLICE(sig, len), NULL),
                     ATT_E_AUTH);
    len = sign(key, RSA_PKCS1_PSS_PADDING, 20, digest, sig); /* a salt of another length */
    assert_int_equal(att_rsa_verify(key, ATT_RSA_PSS, digest, ATT_SLICE(sig, len), NULL),
                     ATT_E_AUTH);
    len = sign(key, RSA_PKCS1_PSS_PADDING, 32, digest, sig);
    assert_int_equal(att_rsa_verify(key, ATT_RSA_PSS, digest, ATT_SLICE(sig, len), NULL), ATT_OK);
    assert_int_equal(
        att_rsa_verify(key, ATT_RSA_PSS, ATT_SLICE(bytes, 31), ATT_SLICE(sig, len), NULL),
        ATT_E_AUTH);
    sig[5] ^= 1;
    assert_int_equal(att_rsa_verify(key, ATT_RSA_PSS, digest, ATT_SLICE(sig, len), NULL),
                     ATT_E_AUTH);
    EVP_PKEY_free(key);
    EVP_PKEY_free(ec);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refuses_other_sizes_and_exponents),
        cmocka_unit_test(test_refuses_other_bytes),
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_digest_info),
        cmocka_unit_test(test_verify),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
