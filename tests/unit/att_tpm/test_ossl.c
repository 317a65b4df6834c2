/* One OpenSSL library context inside TPM_CALL, a new one each time outside of it; and HMACs as ESYS
 * asks for them, the short way and libcrypto's. */
#include "tpm/internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <openssl/evp.h>

static void test_outside_each_call_makes_its_own(void **state)
{
    (void)state;
    OSSL_LIB_CTX *a = OSSL_LIB_CTX_new(), *b = OSSL_LIB_CTX_new();
    assert_non_null(a);
    assert_non_null(b);
    assert_ptr_not_equal(a, b);
    OSSL_LIB_CTX_free(a); /* LeakSanitizer sees it when this does nothing */
    OSSL_LIB_CTX_free(b);
    OSSL_LIB_CTX_free(NULL);
}

static void test_inside_it_is_one(void **state)
{
    (void)state;
    tpm_ossl_enter();
    OSSL_LIB_CTX *a = OSSL_LIB_CTX_new();
    OSSL_LIB_CTX_free(a);
    OSSL_LIB_CTX *b = OSSL_LIB_CTX_new();
    assert_int_equal(tpm_ossl_leave(TPM2_RC_RETRY), TPM2_RC_RETRY);
    assert_non_null(a);
    assert_ptr_equal(a, b);
    OSSL_LIB_CTX *outside = OSSL_LIB_CTX_new();
    assert_ptr_not_equal(a, outside);
    OSSL_LIB_CTX_free(outside);
    /* Freed, and still there: it works, and is not the default context. */
    EVP_MD *md = EVP_MD_fetch(a, "SHA256", NULL);
    assert_non_null(md);
    EVP_MD_free(md);
    assert_ptr_not_equal(a, OSSL_LIB_CTX_get0_global_default());
}

static TSS2_RC nested(struct tpm_context *ctx)
{
    TSS2_RC rc;
    TPM_CALL(ctx, rc, TSS2_RC_SUCCESS);
    return rc;
}

static void test_a_call_leaves_what_it_enters(void **state)
{
    (void)state;
    struct tpm_context ctx = {.alive = true};
    TSS2_RC rc;
    TPM_CALL(&ctx, rc, nested(&ctx));
    assert_int_equal(rc, TSS2_RC_SUCCESS);
    ctx.alive = false;
    TPM_CALL(&ctx, rc, TSS2_RC_SUCCESS);
    assert_int_equal(rc, TSS2_TCTI_RC_NO_CONNECTION);
    OSSL_LIB_CTX *a = OSSL_LIB_CTX_new(), *b = OSSL_LIB_CTX_new();
    assert_ptr_not_equal(a, b); /* outside again */
    OSSL_LIB_CTX_free(a);
    OSSL_LIB_CTX_free(b);
}

/* ---- HMAC ---------------------------------------------------------------------------------- */

/* RFC 4231 §4.3: test case 2. */
static const char key_text[] = "Jefe", data_text[] = "what do ya want for nothing?";
static const uint8_t want[32] = {0x5b, 0xdc, 0xc1, 0x46, 0xbf, 0x60, 0x75, 0x4e, 0x6a, 0x04, 0x24,
                                 0x26, 0x08, 0x95, 0x75, 0xc7, 0x5a, 0x00, 0x3f, 0x08, 0x9d, 0x27,
                                 0x39, 0x83, 0x9d, 0xec, 0x58, 0xb9, 0x64, 0xec, 0x38, 0x43};

enum way { BY_TYPE, BY_NAME }; /* tss2 3.2 and 4.1; later ones */

static EVP_PKEY *new_key(enum way way, struct att_slice key)
{
    EVP_PKEY *made = way == BY_TYPE
                         ? EVP_PKEY_new_raw_private_key(EVP_PKEY_HMAC, NULL, key.ptr, key.len)
                         : EVP_PKEY_new_raw_private_key_ex(NULL, "HMAC", NULL, key.ptr, key.len);
    assert_non_null(made);
    return made;
}

static EVP_MD_CTX *start(enum way way, struct att_slice key, const EVP_MD *md)
{
    EVP_PKEY *made = new_key(way, key);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    assert_int_equal(EVP_DigestSignInit(ctx, NULL, md, NULL, made), 1);
    EVP_PKEY_free(made);
    return ctx;
}

static size_t finish(EVP_MD_CTX *ctx, struct att_slice data, uint8_t ret[EVP_MAX_MD_SIZE])
{
    size_t len = EVP_MAX_MD_SIZE, asked = 0;
    assert_int_equal(EVP_DigestSignUpdate(ctx, data.ptr, data.len / 2), 1);
    assert_int_equal(EVP_DigestSignUpdate(ctx, data.ptr + data.len / 2, data.len - data.len / 2),
                     1);
    assert_int_equal(EVP_DigestSignFinal(ctx, NULL, &asked), 1);
    assert_int_equal(EVP_DigestSignFinal(ctx, ret, &len), 1);
    assert_int_equal(len, asked);
    EVP_MD_CTX_free(ctx);
    return len;
}

static void check_known(EVP_MD_CTX *ctx)
{
    uint8_t mac[EVP_MAX_MD_SIZE];
    assert_int_equal(finish(ctx, att_slice_str(data_text), mac), sizeof want);
    assert_memory_equal(mac, want, sizeof want);
}

static void test_the_short_way_is_hmac(void **state)
{
    (void)state;
    for (enum way way = BY_TYPE; way <= BY_NAME; way++) {
        check_known(start(way, att_slice_str(key_text), EVP_sha256()));
        tpm_ossl_enter();
        check_known(start(way, att_slice_str(key_text), EVP_sha256()));
        check_known(start(way, att_slice_str(key_text), EVP_sha256())); /* and again */
        (void)tpm_ossl_leave(TSS2_RC_SUCCESS);
    }
}

/* Against libcrypto, outside: keys of every length about the block's, each hash of a TPM. */
static void test_the_short_way_agrees_with_libcrypto(void **state)
{
    (void)state;
    uint8_t key[200], data[300], inside[EVP_MAX_MD_SIZE], outside[EVP_MAX_MD_SIZE];
    const EVP_MD *const hashes[] = {EVP_sha1(), EVP_sha256(), EVP_sha384(), EVP_sha512()};
    static const size_t lens[] = {1, 31, 32, 63, 64, 65, 127, 128, 129, 144, 145, 200};
    for (size_t i = 0; i < sizeof key; i++) {
        key[i] = (uint8_t)(i * 7 + 1);
    }
    for (size_t i = 0; i < sizeof data; i++) {
        data[i] = (uint8_t)(i * 3);
    }
    for (size_t h = 0; h < 4; h++) {
        for (size_t i = 0; i < sizeof lens / sizeof lens[0]; i++) {
            const struct att_slice k = ATT_SLICE(key, lens[i]);
            size_t len = finish(start(BY_TYPE, k, hashes[h]), ATT_SLICE_ARRAY(data), outside);
            tpm_ossl_enter();
            assert_int_equal(finish(start(BY_TYPE, k, hashes[h]), ATT_SLICE_ARRAY(data), inside),
                             len);
            (void)tpm_ossl_leave(TSS2_RC_SUCCESS);
            assert_memory_equal(inside, outside, len);
        }
    }
}

static void test_one_hmac_beside_another(void **state)
{
    (void)state;
    uint8_t other[EVP_MAX_MD_SIZE], mac[EVP_MAX_MD_SIZE];
    finish(start(BY_TYPE, att_slice_str("other"), EVP_sha256()), att_slice_str(data_text), other);
    tpm_ossl_enter();
    EVP_MD_CTX *first = start(BY_TYPE, att_slice_str(key_text), EVP_sha256());
    EVP_MD_CTX *second = start(BY_TYPE, att_slice_str("other"), EVP_sha256());
    finish(second, att_slice_str(data_text), mac);
    assert_memory_equal(mac, other, sizeof want);
    check_known(first);
    (void)tpm_ossl_leave(TSS2_RC_SUCCESS);
}

/* One that was given up leaves nothing to whoever gets its place in memory. */
static void test_an_hmac_given_up(void **state)
{
    (void)state;
    tpm_ossl_enter();
    EVP_MD_CTX *ctx = start(BY_TYPE, att_slice_str("other"), EVP_sha256());
    EVP_PKEY *key = new_key(BY_TYPE, att_slice_str(key_text)); /* beside it: libcrypto's */
    assert_int_equal(EVP_MD_CTX_reset(ctx), 1);
    assert_int_equal(EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, key), 1);
    EVP_PKEY_free(key);
    check_known(ctx);
    ctx = start(BY_TYPE, att_slice_str("other"), EVP_sha256());
    (void)tpm_ossl_leave(TSS2_RC_SUCCESS);
    EVP_MD_CTX_free(ctx);
    tpm_ossl_enter();
    check_known(start(BY_TYPE, att_slice_str(key_text), EVP_sha256()));
    (void)tpm_ossl_leave(TSS2_RC_SUCCESS);
}

static void test_too_little_room_is_refused(void **state)
{
    (void)state;
    uint8_t mac[EVP_MAX_MD_SIZE];
    size_t len = 31;
    tpm_ossl_enter();
    EVP_MD_CTX *ctx = start(BY_TYPE, att_slice_str(key_text), EVP_sha256());
    assert_int_equal(EVP_DigestSignFinal(ctx, mac, &len), 0);
    EVP_MD_CTX_free(ctx);
    (void)tpm_ossl_leave(TSS2_RC_SUCCESS);
}

/* The last: after a key that nobody took, as it would be with an ESYS that goes another way, every
 * HMAC is libcrypto's. */
static void test_a_key_not_taken_ends_the_short_way(void **state)
{
    (void)state;
    tpm_ossl_enter();
    EVP_PKEY *a = new_key(BY_TYPE, att_slice_str(key_text));
    uint8_t raw[64];
    size_t len = sizeof raw;
    assert_int_equal(EVP_PKEY_get_raw_private_key(a, raw, &len), 1);
    assert_int_equal(len, 32); /* random bytes stand for it */
    EVP_PKEY_free(a);
    (void)tpm_ossl_leave(TSS2_RC_SUCCESS);
    tpm_ossl_enter();
    a = new_key(BY_TYPE, att_slice_str(key_text));
    len = sizeof raw;
    assert_int_equal(EVP_PKEY_get_raw_private_key(a, raw, &len), 1);
    assert_int_equal(len, strlen(key_text));
    assert_memory_equal(raw, key_text, len);
    EVP_PKEY_free(a);
    check_known(start(BY_TYPE, att_slice_str(key_text), EVP_sha256()));
    (void)tpm_ossl_leave(TSS2_RC_SUCCESS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_outside_each_call_makes_its_own),
        cmocka_unit_test(test_inside_it_is_one),
        cmocka_unit_test(test_a_call_leaves_what_it_enters),
        cmocka_unit_test(test_the_short_way_is_hmac),
        cmocka_unit_test(test_the_short_way_agrees_with_libcrypto),
        cmocka_unit_test(test_one_hmac_beside_another),
        cmocka_unit_test(test_an_hmac_given_up),
        cmocka_unit_test(test_too_little_room_is_refused),
        cmocka_unit_test(test_a_key_not_taken_ends_the_short_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
