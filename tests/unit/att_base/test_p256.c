/* Keys from coordinates: off the curve and out of the field first, then that they are the keys that
 * libcrypto's own reader makes of the same bytes. */
#include "attestd/base/p256.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

static void refused(const uint8_t xy[ATT_P256_XY_LEN])
{
    struct att_err err = {0};
    EVP_PKEY *key = NULL;
    assert_int_equal(att_p256_check(xy, &err), ATT_E_PARSE);
    assert_non_null(strstr(err.msg, "not on P-256"));
    assert_int_equal(att_p256_key(xy, &key, NULL), ATT_E_PARSE);
    assert_null(key);
}

static void test_refuses_what_is_no_point(void **state)
{
    (void)state;
    uint8_t xy[ATT_P256_XY_LEN] = {0}, spki[ATT_P256_SPKI_LEN];
    refused(xy);
    memset(xy, 0xff, sizeof xy); /* not below the field's prime */
    refused(xy);
    EVP_PKEY *key = EVP_EC_gen("P-256");
    uint8_t *der = NULL;
    assert_int_equal(i2d_PUBKEY(key, &der), ATT_P256_SPKI_LEN);
    memcpy(xy, att_p256_of_spki(ATT_SLICE(der, ATT_P256_SPKI_LEN)), sizeof xy);
    for (size_t i = 0; i < sizeof xy; i++) {
        xy[i] ^= 1;
        refused(xy);
        xy[i] ^= 1;
    }
    /* Any other head, and any other length, is not a form that is known here. */
    memcpy(spki, der, sizeof spki);
    for (size_t i = 0; i < ATT_P256_SPKI_LEN - ATT_P256_XY_LEN; i++) {
        spki[i] ^= 1;
        assert_null(att_p256_of_spki(ATT_SLICE_ARRAY(spki)));
        spki[i] ^= 1;
    }
    assert_null(att_p256_of_spki(ATT_SLICE(spki, sizeof spki - 1)));
    assert_null(att_p256_of_spki(ATT_SLICE(NULL, 0)));
    OPENSSL_free(der);
    EVP_PKEY_free(key);
}

static void test_same_as_libcrypto(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        EVP_PKEY *key = EVP_EC_gen("P-256"), *made = NULL;
        uint8_t *der = NULL, spki[ATT_P256_SPKI_LEN];
        assert_int_equal(i2d_PUBKEY(key, &der), ATT_P256_SPKI_LEN);
        const uint8_t *xy = att_p256_of_spki(ATT_SLICE(der, ATT_P256_SPKI_LEN));
        assert_non_null(xy);
        assert_int_equal(att_p256_check(xy, NULL), ATT_OK);
        assert_int_equal(att_p256_key(xy, &made, NULL), ATT_OK);
        assert_int_equal(EVP_PKEY_eq(key, made), 1);
        att_p256_spki(spki, xy);
        assert_memory_equal(spki, der, sizeof spki);
        OPENSSL_free(der);
        EVP_PKEY_free(made);
        EVP_PKEY_free(key);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_refuses_what_is_no_point),
                                       cmocka_unit_test(test_same_as_libcrypto)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
