/* What a module states of a key, as CBOR. */
#include "provision/evidence/hsmattrs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void test_round_trip(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 2000; i++) {
        uint32_t stated = i * 2654435761u >> 19;
        struct evidence_hsm_attrs in = {stated, stated & (i * 40503u)}, out;
        att_autobuf cbor = {0};
        assert_int_equal(evidence_hsm_attrs_encode(&in, &cbor, NULL), ATT_OK);
        assert_true(cbor.len <= EVIDENCE_HSM_ATTRS_MAX);
        assert_int_equal(evidence_hsm_attrs_parse(att_buf_slice(&cbor), &out, NULL), ATT_OK);
        assert_int_equal(out.stated, in.stated);
        assert_int_equal(out.holds, in.holds);
    }
}

static void test_refuses_to_encode(void **state)
{
    (void)state;
    static const struct evidence_hsm_attrs bad[] = {{0, 1}, {1u << EVIDENCE_HSM_COUNT, 0}, {2, 3}};
    for (size_t i = 0; i < 3; i++) {
        att_autobuf cbor = {0};
        assert_int_equal(evidence_hsm_attrs_encode(&bad[i], &cbor, NULL), ATT_E_INVAL);
        assert_int_equal(cbor.len, 0);
    }
}

static void refused(const char *bytes, size_t len)
{
    struct evidence_hsm_attrs out = {77, 7};
    assert_int_not_equal(evidence_hsm_attrs_parse(ATT_SLICE(bytes, len), &out, NULL), ATT_OK);
    assert_int_equal(out.stated, 77);
}
#define REFUSED(s) refused(s, sizeof(s) - 1)

static void test_refuses_to_parse(void **state)
{
    (void)state;
    struct evidence_hsm_attrs out;
    assert_int_equal(evidence_hsm_attrs_parse(ATT_SLICE_LIT("\xa1\x64sign\xf5"), &out, NULL),
                     ATT_OK);
    assert_int_equal(out.holds, 1u << EVIDENCE_HSM_SIGN);
    REFUSED("");
    REFUSED("\xa1");
    REFUSED("\xa1\x64sign");
    REFUSED("\xa1\x64sign\x01");                     /* a number */
    REFUSED("\xa1\x64sign\xf6");                     /* null */
    REFUSED("\xa1\x64sign\xf8\x15");                 /* simple(21), not as short as it can be */
    REFUSED("\xa1\x64sign\xf5\xf5");                 /* a byte more */
    REFUSED("\xa2\x64sign\xf5\x64sign\xf5");         /* twice */
    REFUSED("\xbb\0\0\0\0\0\0\0\1\x65local\xf5");    /* a length longer than it needs to be */
    REFUSED("\xa2\x65local\xf5\x64sign\xf5");        /* out of order */
    REFUSED("\xa1\x65other\xf5");                    /* unknown */
    REFUSED("\xa2\x64sign\xf5");                     /* one is missing */
    REFUSED("\xbf\x64sign\xf5\xff");                 /* indefinite */
    REFUSED("\xbb\xff\xff\xff\xff\xff\xff\xff\xff"); /* 2^64 - 1 members */
    REFUSED("\x81\xf5");                             /* an array */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_round_trip),
                                       cmocka_unit_test(test_refuses_to_encode),
                                       cmocka_unit_test(test_refuses_to_parse)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
