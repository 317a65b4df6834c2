#include "attestd/base/enc.h"
#include "provision/enrol/schedule.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define THUMBPRINT "3go-qIWoBnedilMT5cwC9HI9w7WipQJneO0XEPZQkTw"

static uint8_t cv[ENROL_CV_LEN];

static struct enrol_transcript sample(void)
{
    for (size_t i = 0; i < sizeof cv; i++) {
        cv[i] = (uint8_t)i;
    }
    return (struct enrol_transcript){.ak_url = "https://ca.example/acme/ak/1",
                                     .thumbprint = THUMBPRINT,
                                     .m1_payload = ATT_SLICE_LIT("m1"),
                                     .m1_response = ATT_SLICE_LIT("r1")};
}

static void expect(const uint8_t got[32], const char *want)
{
    char hex[65];
    att_hex(hex, ATT_SLICE(got, 32));
    assert_string_equal(hex, want);
}

static void test_refusals(void **state)
{
    (void)state;
    struct enrol_transcript t = sample();
    uint8_t k[ENROL_K_LEN] = {0};
    assert_int_equal(enrol_schedule_k(ATT_SLICE(cv, 31), &t, k, NULL), ATT_E_INVAL);
    t.thumbprint = "short";
    assert_int_equal(enrol_schedule_k(ATT_SLICE_ARRAY(cv), &t, k, NULL), ATT_E_INVAL);
    t = sample();
    t.ak_url = "";
    assert_int_equal(enrol_schedule_k(ATT_SLICE_ARRAY(cv), &t, k, NULL), ATT_E_INVAL);
    const uint8_t zero[ENROL_K_LEN] = {0};
    assert_memory_equal(k, zero, sizeof k);
}

/* The expected values were computed with Python's hmac and hashlib. */
static void test_vector(void **state)
{
    (void)state;
    const struct enrol_transcript t = sample();
    uint8_t k[ENROL_K_LEN], out[32], nonce[ENROL_NONCE_LEN];
    memset(nonce, 7, sizeof nonce);
    assert_int_equal(enrol_schedule_k(ATT_SLICE_ARRAY(cv), &t, k, NULL), ATT_OK);
    expect(k, "72ec30682ea8b4ad315193322b2f17677d8acf8bb26c31ce42506c35565c8599");
    enrol_schedule_proof(k, out);
    expect(out, "c79c7102bb7513fa53a683c0fb3dc9e9a5458f227b9b9e4f24f18b617c1b8af7");
    enrol_schedule_quote_extra(k, nonce, ATT_SLICE_LIT("manifest"), out);
    expect(out, "d7465fed5ce7c6bbb5f6443b38fb19595ace41c850f14e9831dda808f94a5a5d");
}

static void differs(const struct enrol_transcript *t, struct att_slice secret)
{
    const struct enrol_transcript good = sample();
    uint8_t a[ENROL_K_LEN], b[ENROL_K_LEN];
    assert_int_equal(enrol_schedule_k(ATT_SLICE_ARRAY(cv), &good, a, NULL), ATT_OK);
    assert_int_equal(enrol_schedule_k(secret, t, b, NULL), ATT_OK);
    assert_memory_not_equal(a, b, sizeof a);
}

/* Each part of the transcript alone changes K. */
static void test_every_part_counts(void **state)
{
    (void)state;
    struct enrol_transcript t = sample();
    uint8_t other[ENROL_CV_LEN];
    memcpy(other, cv, sizeof other);
    other[31] ^= 1;
    differs(&t, ATT_SLICE_ARRAY(other));
    t.ak_url = "https://ca.example/acme/ak/2";
    differs(&t, ATT_SLICE_ARRAY(cv));
    t = sample();
    t.thumbprint = "4go-qIWoBnedilMT5cwC9HI9w7WipQJneO0XEPZQkTw";
    differs(&t, ATT_SLICE_ARRAY(cv));
    t = sample();
    t.m1_payload = ATT_SLICE_LIT("m2");
    differs(&t, ATT_SLICE_ARRAY(cv));
    t = sample();
    t.m1_response = ATT_SLICE_LIT("r2");
    differs(&t, ATT_SLICE_ARRAY(cv));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_vector),
        cmocka_unit_test(test_every_part_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
