#include "vectors.h"

#include "tpm/parse/attest.h"

static const char *const files[] = {"quote.attest", "quote_rsassa.attest", "certify.attest",
                                    "nv.attest",    "creation.attest",     "absent.attest",
                                    "twice.attest"};
#define N_FILES (sizeof files / sizeof files[0])

static enum att_rc try_parse(struct att_slice bytes)
{
    struct parse_attest a;
    return parse_attest_parse(bytes, &a, NULL);
}

static void test_every_truncation_and_a_trailing_byte(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_FILES; i++) {
        att_autobuf bytes = {0};
        read_vector(files[i], &bytes);
        assert_exact(att_buf_slice(&bytes), try_parse);
    }
}

static void test_magic_and_type_have_their_own_reasons(void **state)
{
    (void)state;
    att_autobuf quote = {0}, certify = {0}, nv = {0};
    read_vector("quote.attest", &quote);
    read_vector("certify.attest", &certify);
    read_vector("nv.attest", &nv);
    struct parse_attest a;
    /* a Certify, and an NV-certify, offered as a quote */
    assert_refused(parse_attest_quote(att_buf_slice(&certify), &a, err), ATT_E_PARSE, "quoteType",
                   "0x8017");
    assert_refused(parse_attest_quote(att_buf_slice(&nv), &a, err), ATT_E_PARSE, "quoteType",
                   "0x8014");
    assert_refused(parse_attest_certify(att_buf_slice(&quote), &a, err), ATT_E_PARSE, "certifyType",
                   "0x8018");
    quote.ptr[3] ^= 1;
    assert_refused(parse_attest_quote(att_buf_slice(&quote), &a, err), ATT_E_PARSE, "quoteMagic",
                   "0xff544346");
    assert_refused(parse_attest_parse(att_buf_slice(&quote), &a, err), ATT_E_PARSE, "magic",
                   "TPM_GENERATED");
    certify.ptr[0] = 0;
    assert_refused(parse_attest_certify(att_buf_slice(&certify), &a, err), ATT_E_PARSE,
                   "certifyType", "magic");
    quote.ptr[3] ^= 1;
    quote.ptr[5] = 0x16;
    assert_refused(parse_attest_parse(att_buf_slice(&quote), &a, err), ATT_E_PARSE, "type",
                   "0x8016");
    assert_refused(parse_attest_quote(ATT_SLICE(quote.ptr, 5), &a, err), ATT_E_PARSE, "",
                   "no magic and type");
}

static void test_wrong_inner_sizes(void **state)
{
    (void)state;
    att_autobuf bytes = {0};
    read_vector("quote.attest", &bytes);
    struct parse_attest a;
    const size_t sizes[] = {6, 42}; /* qualifiedSigner, extraData */
    for (size_t i = 0; i < 2; i++) {
        uint8_t was = bytes.ptr[sizes[i] + 1];
        bytes.ptr[sizes[i] + 1] = (uint8_t)(was + 1);
        assert_int_not_equal(parse_attest_parse(att_buf_slice(&bytes), &a, NULL), ATT_OK);
        bytes.ptr[sizes[i] + 1] = 0xFF; /* longer than a Name or a nonce is */
        assert_int_not_equal(parse_attest_parse(att_buf_slice(&bytes), &a, NULL), ATT_OK);
        bytes.ptr[sizes[i] + 1] = was;
    }
    assert_ok(parse_attest_parse(att_buf_slice(&bytes), &a, err));
    size_t safe = 6 + 2 + a.qualified_signer.len + 2 + a.extra_data.len + 16;
    bytes.ptr[safe] = 2;
    assert_refused(parse_attest_parse(att_buf_slice(&bytes), &a, err), ATT_E_PARSE, "",
                   "safe is 2");
    bytes.ptr[safe] = 1;
    bytes.ptr[safe + 9] = 0xFF; /* count of the PCR selection */
    assert_int_equal(parse_attest_parse(att_buf_slice(&bytes), &a, NULL), ATT_E_PARSE);
}

static void test_too_long(void **state)
{
    (void)state;
    static uint8_t big[PARSE_ATTEST_MAX + 1];
    struct parse_attest a;
    assert_refused(parse_attest_parse(ATT_SLICE_ARRAY(big), &a, err), ATT_E_LIMIT, "", "4097");
}

static void test_unwrap(void **state)
{
    (void)state;
    struct att_slice inner;
    assert_refused(parse_attest_unwrap(ATT_SLICE_LIT("\0\2\1"), &inner, err), ATT_E_PARSE, "",
                   "TPM2B_ATTEST");
    assert_refused(parse_attest_unwrap(ATT_SLICE_LIT("\0\1\1\1"), &inner, err), ATT_E_PARSE, "",
                   "TPM2B_ATTEST");
    assert_ok(parse_attest_unwrap(ATT_SLICE_LIT("\0\1\7"), &inner, err));
    assert_int_equal(inner.len, 1);
    assert_int_equal(inner.ptr[0], 7);
}

static void test_round_trip(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_FILES; i++) {
        att_autobuf bytes = {0}, again = {0};
        read_vector(files[i], &bytes);
        struct parse_attest a;
        assert_ok(parse_attest_parse(att_buf_slice(&bytes), &a, err));
        assert_ok(parse_attest_encode(&a, &again, err));
        assert_true(att_slice_eq(att_buf_slice(&bytes), att_buf_slice(&again)));
    }
}

static void test_what_a_quote_says(void **state)
{
    (void)state;
    att_autobuf bytes = {0}, qname = {0};
    read_vector("quote.attest", &bytes);
    read_vector("ak.qname", &qname);
    struct parse_attest a;
    assert_ok(parse_attest_quote(att_buf_slice(&bytes), &a, err));
    assert_true(att_slice_eq(a.qualified_signer, att_buf_slice(&qname)));
    static const uint8_t nonce[4] = {0x00, 0x11, 0x22, 0x33};
    assert_int_equal(a.extra_data.len, 32);
    assert_memory_equal(a.extra_data.ptr, nonce, 4);
    static const uint8_t select[] = {0, 0, 0, 1, 0, 0x0B, 3, 0x83, 0, 1}; /* sha256:0,1,7,16 */
    assert_true(att_slice_eq(a.u.quote.pcr_select, ATT_SLICE_ARRAY(select)));
    assert_int_equal(a.u.quote.pcr_digest.len, 32);
    assert_true(a.clock.clock > 0);
    assert_true(a.firmware_version != 0);
}

static void test_what_a_certify_says(void **state)
{
    (void)state;
    att_autobuf bytes = {0}, name = {0}, qname = {0};
    read_vector("certify.attest", &bytes);
    read_vector("agent.name", &name);
    read_vector("agent.qname", &qname);
    struct parse_attest a;
    assert_ok(parse_attest_certify(att_buf_slice(&bytes), &a, err));
    assert_true(att_slice_eq(a.u.certify.name, att_buf_slice(&name)));
    assert_true(att_slice_eq(a.u.certify.qualified_name, att_buf_slice(&qname)));
}

static void test_what_an_nv_certify_says(void **state)
{
    (void)state;
    att_autobuf bytes = {0};
    read_vector("nv.attest", &bytes);
    struct parse_attest a;
    assert_ok(parse_attest_parse(att_buf_slice(&bytes), &a, err));
    assert_int_equal(a.type, PARSE_ATTEST_NV);
    assert_int_equal(a.u.nv.contents.len, 32);
    assert_int_equal(a.u.nv.offset, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_truncation_and_a_trailing_byte),
        cmocka_unit_test(test_magic_and_type_have_their_own_reasons),
        cmocka_unit_test(test_wrong_inner_sizes),
        cmocka_unit_test(test_too_long),
        cmocka_unit_test(test_unwrap),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_what_a_quote_says),
        cmocka_unit_test(test_what_a_certify_says),
        cmocka_unit_test(test_what_an_nv_certify_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
