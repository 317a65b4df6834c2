/* Public keys as a module tells them, without a module. */
#include "pkcs11/hsm/internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

/* What a module may say of an RSA key that it made. */
static void test_rsa_answers(void **state)
{
    (void)state;
    struct hsm_key key = {.type = ATT_KEYTYPE_NONE};
    struct att_err err = {0};
    uint8_t modulus[520], exponent[] = {0x01, 0x00, 0x01}, three[] = {3};
    const size_t lengths[] = {0, 128, 255, 257, 383, 512};
    memset(modulus, 0xff, sizeof modulus);
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        assert_int_equal(hsm_object_rsa_parse(ATT_SLICE(modulus, lengths[i]),
                                              ATT_SLICE_ARRAY(exponent), &key, &err),
                         ATT_E_UNSUPPORTED);
        assert_string_equal(err.reason, "keyAttributes");
    }
    assert_int_equal(
        hsm_object_rsa_parse(ATT_SLICE(modulus, 256), ATT_SLICE_ARRAY(three), &key, &err),
        ATT_E_UNSUPPORTED);
    modulus[255] = 0xfe; /* even */
    assert_int_equal(
        hsm_object_rsa_parse(ATT_SLICE(modulus, 256), ATT_SLICE_ARRAY(exponent), &key, &err),
        ATT_E_UNSUPPORTED);
    assert_int_equal(key.type, ATT_KEYTYPE_NONE);
    modulus[255] = 0xff;
    modulus[0] = 0; /* some modules pad */
    assert_int_equal(
        hsm_object_rsa_parse(ATT_SLICE(modulus, 257), ATT_SLICE_ARRAY(exponent), &key, NULL),
        ATT_OK);
    assert_int_equal(key.type, ATT_KEYTYPE_RSA2048);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rsa_answers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
