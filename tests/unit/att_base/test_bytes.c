/* slice, cursor, buf, enc: what every parser stands on. */
#include "attestd/base/buf.h"
#include "attestd/base/enc.h"
#include "attestd/base/hash.h"
#include "attestd/base/secret.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void test_cursor_refuses_to_pass_the_end(void **state)
{
    (void)state;
    const uint8_t bytes[] = {1, 2, 3};
    struct att_cur cur = att_cur_init(ATT_SLICE_ARRAY(bytes));
    assert_int_equal(att_cur_be16(&cur), 0x0102);
    assert_int_equal(att_cur_be32(&cur), 0);
    assert_true(cur.failed);
    assert_int_equal(att_cur_u8(&cur), 0); /* the byte that is left is not given any more */
    assert_false(att_cur_done(&cur));
}

static void test_cursor_refuses_lengths_over_the_cap(void **state)
{
    (void)state;
    const uint8_t bytes[] = {0, 3, 'a', 'b', 'c'};
    struct att_cur cur = att_cur_init(ATT_SLICE_ARRAY(bytes));
    assert_int_equal(att_cur_take_be16(&cur, 2).len, 0);
    assert_true(cur.failed);
    cur = att_cur_init(ATT_SLICE_ARRAY(bytes));
    assert_true(att_slice_eq_str(att_cur_take_be16(&cur, 3), "abc"));
    assert_true(att_cur_done(&cur));
}

static void test_cursor_reads_both_byte_orders(void **state)
{
    (void)state;
    const uint8_t b[] = {1, 2, 3, 4, 5, 6, 7, 8};
    struct att_cur cur = att_cur_init(ATT_SLICE_ARRAY(b));
    assert_true(att_cur_le64(&cur) == 0x0807060504030201ULL);
    cur = att_cur_init(ATT_SLICE_ARRAY(b));
    assert_true(att_cur_be64(&cur) == 0x0102030405060708ULL);
    cur = att_cur_init(ATT_SLICE_ARRAY(b));
    assert_int_equal(att_cur_le16(&cur), 0x0201);
    assert_int_equal(att_cur_le32(&cur), 0x06050403);
}

static void test_buf_refuses_to_outgrow_its_maximum(void **state)
{
    (void)state;
    att_autobuf buf = ATT_BUF_INIT(4);
    struct att_err err = {0};
    att_buf_put_str(&buf, "abc");
    att_buf_be16(&buf, 1);
    assert_int_equal(att_buf_ok(&buf, &err), ATT_E_LIMIT);
    att_buf_u8(&buf, 'd'); /* would fit, but a write was lost before */
    assert_int_equal(buf.len, 3);
    att_buf_reset(&buf);
    att_buf_be32(&buf, 0x61626364);
    assert_int_equal(att_buf_ok(&buf, NULL), ATT_OK);
    assert_string_equal(att_buf_cstr(&buf), "abcd");
}

static void test_hex_refuses(void **state)
{
    (void)state;
    static const char *const bad[] = {"0", "0g", "g0", " 00", "0x00", "00 "};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        att_autobuf out = {0};
        assert_int_equal(att_unhex(&out, att_slice_str(bad[i]), NULL), ATT_E_PARSE);
    }
    uint8_t two[2];
    assert_int_equal(att_unhex_exact(two, 2, "000102", NULL), ATT_E_PARSE);
    assert_int_equal(att_unhex_exact(two, 2, "aBcD", NULL), ATT_OK);
    assert_int_equal(two[0] << 8 | two[1], 0xabcd);
}

static void test_base64url_refuses(void **state)
{
    (void)state;
    /* padding, foreign alphabet, white space, impossible length, stray bits (RFC 4648 §3.5) */
    static const char *const bad[] = {"YQ==", "ab+/", "YQ\n", "A", "YR", "Y Q", "YWJ", "AAAAA"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        att_autobuf out = {0};
        assert_int_equal(att_unb64u(&out, att_slice_str(bad[i]), NULL), ATT_E_PARSE);
        assert_int_equal(out.len, 0);
    }
}

/* Every byte in every place of a group, and beyond the length that is decoded at a time. */
static void test_base64url_alphabet(void **state)
{
    (void)state;
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    for (size_t len = 4; len <= 1024; len *= 16) {
        for (size_t i = 0; i < 4 * 256; i++) {
            uint8_t text[1024];
            memset(text, 'A', len);
            size_t place = len - 4 + i / 256;
            text[place] = (uint8_t)i;
            att_autobuf out = {0}, again = {0};
            const char *known = (uint8_t)i ? strchr(alphabet, (int)(i & 255)) : NULL;
            enum att_rc rc = att_unb64u(&out, ATT_SLICE(text, len), NULL);
            assert_int_equal(rc, known ? ATT_OK : ATT_E_PARSE);
            if (known) {
                uint32_t group = (uint32_t)(known - alphabet) << (18 - 6 * (i / 256));
                const uint8_t *last = out.ptr + out.len - 3;
                assert_int_equal(out.len, len / 4 * 3);
                assert_int_equal((uint32_t)last[0] << 16 | (uint32_t)last[1] << 8 | last[2], group);
                att_buf_b64u(&again, att_buf_slice(&out));
                assert_true(att_slice_eq(att_buf_slice(&again), ATT_SLICE(text, len)));
            }
        }
    }
}

static void test_base64_refuses(void **state)
{
    (void)state;
    static const char *const bad[] = {"YQ", "Y===", "YR==", "ab-_", "YQ==YQ==", "====", " YQ="};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        att_autobuf out = {0};
        assert_int_equal(att_unb64(&out, att_slice_str(bad[i]), NULL), ATT_E_PARSE);
        assert_int_equal(out.len, 0);
    }
}

static void test_encodings_round_trip(void **state)
{
    (void)state;
    uint8_t bytes[451]; /* more than two chunks */
    for (size_t len = 0; len <= sizeof bytes; len++) {
        for (size_t i = 0; i < len; i++) {
            bytes[i] = (uint8_t)(i * 37 + len);
        }
        att_autobuf u = {0}, b = {0}, h = {0}, back = {0};
        att_buf_b64u(&u, ATT_SLICE(bytes, len));
        assert_int_equal(att_unb64u(&back, att_buf_slice(&u), NULL), ATT_OK);
        assert_true(att_slice_eq(att_buf_slice(&back), ATT_SLICE(bytes, len)));
        att_buf_reset(&back);
        att_buf_b64(&b, ATT_SLICE(bytes, len));
        assert_int_equal(att_unb64(&back, att_buf_slice(&b), NULL), ATT_OK);
        assert_true(att_slice_eq(att_buf_slice(&back), ATT_SLICE(bytes, len)));
        att_buf_reset(&back);
        att_buf_hex(&h, ATT_SLICE(bytes, len));
        assert_int_equal(att_unhex(&back, att_buf_slice(&h), NULL), ATT_OK);
        assert_true(att_slice_eq(att_buf_slice(&back), ATT_SLICE(bytes, len)));
    }
}

/* RFC 4231 §4.3, RFC 5869 A.1 and A.3, FIPS 180-4 */
static void test_hashes_match_their_standards(void **state)
{
    (void)state;
    uint8_t out[64], want[64];
    struct att_slice abc = ATT_SLICE_LIT("abc");
    att_sha256(out, abc);
    assert_int_equal(
        att_unhex_exact(want, 32,
                        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", NULL),
        ATT_OK);
    assert_memory_equal(out, want, 32);
    const struct att_slice what[] = {ATT_SLICE_LIT("what do ya want "),
                                     ATT_SLICE_LIT("for nothing?")};
    att_hmac_sha256_v(out, ATT_SLICE_LIT("Jefe"), what, 2);
    assert_int_equal(
        att_unhex_exact(want, 32,
                        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843", NULL),
        ATT_OK);
    assert_memory_equal(out, want, 32);
    uint8_t ikm[22];
    memset(ikm, 0x0b, sizeof ikm);
    assert_int_equal(att_hkdf_sha256(out, 42, ATT_SLICE_ARRAY(ikm), ATT_SLICE(NULL, 0),
                                     ATT_SLICE(NULL, 0), NULL),
                     ATT_OK);
    assert_int_equal(
        att_unhex_exact(want, 42,
                        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d"
                        "2d9d201395faa4b61a96c8",
                        NULL),
        ATT_OK);
    assert_memory_equal(out, want, 42);
    const uint8_t salt[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    const uint8_t info[] = {0xf0, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9};
    assert_int_equal(att_hkdf_sha256(out, 42, ATT_SLICE_ARRAY(ikm), ATT_SLICE_ARRAY(salt),
                                     ATT_SLICE_ARRAY(info), NULL),
                     ATT_OK);
    assert_int_equal(
        att_unhex_exact(want, 42,
                        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5"
                        "bf34007208d5b887185865",
                        NULL),
        ATT_OK);
    assert_memory_equal(out, want, 42);
    size_t len = 0;
    assert_int_equal(att_hash_v("NO-SUCH-HASH", out, &len, &abc, 1, NULL), ATT_E_UNSUPPORTED);
    assert_int_equal(att_hash_v("SHA384", out, &len, &abc, 1, NULL), ATT_OK);
    assert_int_equal(len, 48);
}

static void test_secret_is_wiped_and_bounded(void **state)
{
    (void)state;
    struct att_secret secret = {0};
    assert_int_equal(att_secret_new(&secret, 0, NULL), ATT_E_INVAL);
    assert_int_equal(att_secret_new(&secret, (1u << 20) + 1, NULL), ATT_E_INVAL);
    assert_int_equal(att_secret_copy(&secret, ATT_SLICE_LIT("s3cret"), NULL), ATT_OK);
    assert_true(att_slice_eq_secret(att_secret_slice(&secret), ATT_SLICE_LIT("s3cret")));
    assert_false(att_slice_eq_secret(att_secret_slice(&secret), ATT_SLICE_LIT("s3creT")));
    att_secret_done(&secret);
    assert_null(secret.ptr);
    att_secret_done(&secret);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cursor_refuses_to_pass_the_end),
        cmocka_unit_test(test_cursor_refuses_lengths_over_the_cap),
        cmocka_unit_test(test_cursor_reads_both_byte_orders),
        cmocka_unit_test(test_buf_refuses_to_outgrow_its_maximum),
        cmocka_unit_test(test_hex_refuses),
        cmocka_unit_test(test_base64url_refuses),
        cmocka_unit_test(test_base64url_alphabet),
        cmocka_unit_test(test_base64_refuses),
        cmocka_unit_test(test_encodings_round_trip),
        cmocka_unit_test(test_hashes_match_their_standards),
        cmocka_unit_test(test_secret_is_wiped_and_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
