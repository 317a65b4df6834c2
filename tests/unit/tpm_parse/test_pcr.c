#include "vectors.h"

#include "tpm/parse/attest.h"
#include "tpm/parse/pcr.h"

/* ---- selections -------------------------------------------------------------------------------
 */

static void test_selection_texts_that_are_refused(void **state)
{
    (void)state;
    struct parse_pcr_sel sel;
    static const struct {
        const char *text;
        enum att_rc rc;
        const char *says;
    } bad[] = {
        {"", ATT_E_PARSE, "not of the form"},
        {"sha256", ATT_E_PARSE, "not of the form"},
        {"sha256:", ATT_E_PARSE, "no PCR number"},
        {"sha256:,", ATT_E_PARSE, "no PCR number"},
        {"sha256:0,", ATT_E_PARSE, "no PCR number"},
        {"sha256:0,,1", ATT_E_PARSE, "no PCR number"},
        {"sha256: 0", ATT_E_PARSE, "no PCR number"},
        {"sha256:0 ", ATT_E_PARSE, "no PCR number"},
        {"sha256:+1", ATT_E_PARSE, "no PCR number"},
        {"sha256:-1", ATT_E_PARSE, "no PCR number"},
        {"sha256:00", ATT_E_PARSE, "no PCR number"},
        {"sha256:07", ATT_E_PARSE, "no PCR number"},
        {"sha256:0x7", ATT_E_PARSE, "no PCR number"},
        {"sha256:7;8", ATT_E_PARSE, "no PCR number"},
        {"sha256:24", ATT_E_PARSE, "PCR 24"},
        {"sha256:100", ATT_E_PARSE, "no PCR number"},
        {"sha256:1,0", ATT_E_PARSE, "PCR 0 is not above"},
        {"sha256:1,1", ATT_E_PARSE, "PCR 1 is not above"},
        {"sha256:0+sha384:0", ATT_E_PARSE, "no PCR number"},
        {"sha256:all", ATT_E_PARSE, "no PCR number"},
        {"sha1:0", ATT_E_UNSUPPORTED, "bank sha1"},
        {"SHA256:0", ATT_E_UNSUPPORTED, "bank unknown"},
        {"sm3_256:0", ATT_E_UNSUPPORTED, "bank sm3_256"},
        {":0", ATT_E_UNSUPPORTED, "bank unknown"},
        {"sha256sha256sha256:0", ATT_E_PARSE, "not of the form"},
        {"sha256:0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,23,23,23,23,23,23,"
         "23",
         ATT_E_PARSE, "not"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_refused(parse_pcr_sel_parse(bad[i].text, &sel, err), bad[i].rc, "", bad[i].says);
    }
    assert_int_equal(parse_pcr_sel_parse(NULL, &sel, NULL), ATT_E_PARSE);
}

static enum att_rc try_raw(struct att_slice bytes)
{
    struct parse_pcr_sel sel;
    return parse_pcr_sel_from_raw(bytes, &sel, NULL);
}

static void test_raw_selections_that_are_refused(void **state)
{
    (void)state;
    struct parse_pcr_sel sel;
    /* what a TPM signs for an absent bank, a doubled bank, and for nothing at all */
    att_autobuf absent = {0}, twice = {0};
    read_vector("absent.attest", &absent);
    read_vector("twice.attest", &twice);
    struct parse_attest a;
    assert_ok(parse_attest_quote(att_buf_slice(&absent), &a, err));
    assert_refused(parse_pcr_sel_from_raw(a.u.quote.pcr_select, &sel, err), ATT_E_UNSUPPORTED, "",
                   "bank sha1");
    assert_ok(parse_attest_quote(att_buf_slice(&twice), &a, err));
    assert_refused(parse_pcr_sel_from_raw(a.u.quote.pcr_select, &sel, err), ATT_E_PARSE, "",
                   "2 banks");
    assert_refused(parse_pcr_sel_from_raw(ATT_SLICE_LIT("\0\0\0\0"), &sel, err), ATT_E_PARSE, "",
                   "0 banks");
    assert_refused(parse_pcr_sel_from_raw(ATT_SLICE_LIT("\0\0\0\1\0\x0B\3\0\0\0"), &sel, err),
                   ATT_E_PARSE, "", "no PCR");
    assert_refused(parse_pcr_sel_from_raw(ATT_SLICE_LIT("\0\0\0\1\0\x0B\2\1\0"), &sel, err),
                   ATT_E_PARSE, "", "sizeofSelect 2");
    assert_refused(parse_pcr_sel_from_raw(ATT_SLICE_LIT("\0\0\0\1\0\x0B\4\1\0\0\0"), &sel, err),
                   ATT_E_PARSE, "", "sizeofSelect 4");
    assert_exact(ATT_SLICE_LIT("\0\0\0\1\0\x0B\3\x83\0\1"), try_raw);
}

static void test_structs_that_cannot_be_written(void **state)
{
    (void)state;
    char text[PARSE_PCR_TEXT_MAX];
    uint8_t raw[PARSE_PCR_RAW_LEN];
    struct parse_pcr_sel empty = {PARSE_ALG_SHA256, 0}, beyond = {PARSE_ALG_SHA256, 1u << 24};
    struct parse_pcr_sel sha1 = {PARSE_ALG_SHA1, 1};
    assert_refused(parse_pcr_sel_text(&empty, text, err), ATT_E_INVAL, "", "empty");
    assert_refused(parse_pcr_sel_raw(&empty, raw, err), ATT_E_INVAL, "", "empty");
    assert_refused(parse_pcr_sel_raw(&beyond, raw, err), ATT_E_INVAL, "", "24");
    assert_refused(parse_pcr_sel_raw(&sha1, raw, err), ATT_E_UNSUPPORTED, "", "sha1");
}

static void test_selection_forms_agree(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint8_t raw[10];
    } good[] = {
        {"sha256:0", {0, 0, 0, 1, 0, 0x0B, 3, 1, 0, 0}},
        {"sha256:0,1,2,7", {0, 0, 0, 1, 0, 0x0B, 3, 0x87, 0, 0}},
        {"sha384:8,15,16,23", {0, 0, 0, 1, 0, 0x0C, 3, 0, 0x81, 0x81}},
        {"sha512:0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23",
         {0, 0, 0, 1, 0, 0x0D, 3, 0xFF, 0xFF, 0xFF}},
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct parse_pcr_sel sel, back;
        uint8_t raw[PARSE_PCR_RAW_LEN];
        char text[PARSE_PCR_TEXT_MAX];
        assert_ok(parse_pcr_sel_parse(good[i].text, &sel, err));
        assert_ok(parse_pcr_sel_raw(&sel, raw, err));
        assert_memory_equal(raw, good[i].raw, sizeof raw);
        assert_ok(parse_pcr_sel_from_raw(ATT_SLICE_ARRAY(raw), &back, err));
        assert_int_equal(back.bank, sel.bank);
        assert_int_equal(back.mask, sel.mask);
        assert_ok(parse_pcr_sel_text(&back, text, err));
        assert_string_equal(text, good[i].text);
    }
}

/* ---- values -----------------------------------------------------------------------------------
 */

#define HEX0 "0000000000000000000000000000000000000000000000000000000000000000"
#define HEX1 "00000000000000000000000000000000000000000000000000000000000000aF"
#define HEXA "00000000000000000000000000000000000000000000000000000000000000af"

static void test_values_that_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum att_rc rc;
        const char *says;
    } bad[] = {
        {"[]", ATT_E_PARSE, "exactly one bank"},
        {"{}", ATT_E_PARSE, "exactly one bank"},
        {"{\"sha256\": []}", ATT_E_PARSE, "exactly one bank"},
        {"{\"sha256\": {}}", ATT_E_PARSE, "no values"},
        {"{\"sha256\": {\"0\": \"" HEX0 "\"}, \"sha384\": {}}", ATT_E_PARSE, "exactly one bank"},
        {"{\"sha256\": {\"0\": \"" HEX0 "\"}, \"sha256\": {\"0\": \"" HEX0 "\"}}", ATT_E_PARSE, ""},
        {"{\"sha256\": {\"0\": \"" HEX0 "\", \"0\": \"" HEXA "\"}}", ATT_E_PARSE, ""},
        {"{\"sha256\": {\"0\": \"" HEX0 "\"}} x", ATT_E_PARSE, ""},
        {"{\"sha1\": {\"0\": \"0000000000000000000000000000000000000000\"}}", ATT_E_UNSUPPORTED,
         "bank sha1"},
        {"{\"sha256\": {\"0\": \"" HEX1 "\"}}", ATT_E_PARSE, "lowercase hex"},
        {"{\"sha256\": {\"0\": \"" HEX0 "00\"}}", ATT_E_PARSE, "64 lowercase hex"},
        {"{\"sha256\": {\"0\": \"00\"}}", ATT_E_PARSE, "64 lowercase hex"},
        {"{\"sha256\": {\"0\": 0}}", ATT_E_PARSE, "64 lowercase hex"},
        {"{\"sha256\": {\"00\": \"" HEX0 "\"}}", ATT_E_PARSE, "not a PCR number"},
        {"{\"sha256\": {\"24\": \"" HEX0 "\"}}", ATT_E_PARSE, "not a PCR number"},
        {"{\"sha256\": {\"\": \"" HEX0 "\"}}", ATT_E_PARSE, "not a PCR number"},
        {"{\"sha256\": {\"0x1\": \"" HEX0 "\"}}", ATT_E_PARSE, "not a PCR number"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct parse_pcr_set set;
        assert_refused(parse_pcr_set_parse(att_slice_str(bad[i].text), NULL, &set, err), bad[i].rc,
                       "", bad[i].says);
    }
}

static void test_every_truncation_of_values(void **state)
{
    (void)state;
    struct att_slice text =
        ATT_SLICE_LIT("{\"sha256\": {\"0\": \"" HEX0 "\", \"7\": \"" HEXA "\"}}");
    struct parse_pcr_set set;
    for (size_t len = 0; len < text.len; len++) {
        assert_int_not_equal(parse_pcr_set_parse(ATT_SLICE(text.ptr, len), NULL, &set, NULL),
                             ATT_OK);
    }
    assert_ok(parse_pcr_set_parse(text, NULL, &set, err));
}

static void test_other_values_than_asked_for(void **state)
{
    (void)state;
    struct att_slice text =
        ATT_SLICE_LIT("{\"sha256\": {\"0\": \"" HEX0 "\", \"7\": \"" HEXA "\"}}");
    struct parse_pcr_sel want;
    struct parse_pcr_set set;
    assert_ok(parse_pcr_sel_parse("sha256:0,7", &want, err));
    assert_ok(parse_pcr_set_parse(text, &want, &set, err));
    static const char *const others[] = {"sha256:0", "sha256:7", "sha256:0,1,7", "sha256:0,6"};
    for (size_t i = 0; i < 4; i++) {
        assert_ok(parse_pcr_sel_parse(others[i], &want, err));
        assert_refused(parse_pcr_set_parse(text, &want, &set, err), ATT_E_PARSE, "",
                       "were asked for");
    }
    assert_ok(parse_pcr_sel_parse("sha384:0,7", &want, err));
    assert_refused(parse_pcr_set_parse(text, &want, &set, err), ATT_E_PARSE, "",
                   "sha384 was asked for");
}

static void test_values_that_cannot_be_written(void **state)
{
    (void)state;
    struct parse_pcr_set set = {.sel = {PARSE_ALG_SHA256, 1}, .digest_len = 31};
    json_t *json = NULL;
    att_autobuf out = {0};
    uint8_t digest[PARSE_DIGEST_MAX];
    size_t len = 0;
    assert_refused(parse_pcr_set_json(&set, &json, err), ATT_E_INVAL, "", "digest_len 31");
    assert_refused(parse_pcr_set_values(&set, &out, err), ATT_E_INVAL, "", "digest_len 31");
    assert_refused(parse_pcr_set_digest(&set, PARSE_ALG_SHA256, digest, &len, err), ATT_E_INVAL, "",
                   "digest_len 31");
    set.digest_len = 32;
    assert_refused(parse_pcr_set_digest(&set, PARSE_ALG_RSA, digest, &len, err), ATT_E_INVAL, "",
                   "not a hash");
}

/* The values that tpm2_quote wrote, and the digest that the TPM signed over them. */
static void test_digest_of_a_real_quote(void **state)
{
    (void)state;
    att_autobuf values = {0}, quote = {0}, again = {0};
    read_vector("quote.pcrs", &values);
    read_vector("quote.attest", &quote);
    struct parse_attest a;
    struct parse_pcr_set set;
    memset(&set, 0, sizeof set);
    assert_ok(parse_attest_quote(att_buf_slice(&quote), &a, err));
    assert_ok(parse_pcr_sel_from_raw(a.u.quote.pcr_select, &set.sel, err));
    set.digest_len = 32;
    const size_t pcrs[] = {0, 1, 7, 16};
    assert_int_equal(values.len, sizeof pcrs / sizeof pcrs[0] * 32);
    for (size_t i = 0; i < 4; i++) {
        memcpy(set.value[pcrs[i]], values.ptr + 32 * i, 32);
    }
    uint8_t digest[PARSE_DIGEST_MAX];
    size_t len = 0;
    assert_ok(parse_pcr_set_digest(&set, PARSE_ALG_SHA256, digest, &len, err));
    assert_true(att_slice_eq(a.u.quote.pcr_digest, ATT_SLICE(digest, len)));
    assert_ok(parse_pcr_set_values(&set, &again, err));
    assert_true(att_slice_eq(att_buf_slice(&values), att_buf_slice(&again)));
    set.value[7][0] ^= 1;
    assert_ok(parse_pcr_set_digest(&set, PARSE_ALG_SHA256, digest, &len, err));
    assert_false(att_slice_eq(a.u.quote.pcr_digest, ATT_SLICE(digest, len)));
    set.value[7][0] ^= 1;
    set.value[9][0] ^= 1; /* not selected: not in the digest */
    assert_ok(parse_pcr_set_digest(&set, PARSE_ALG_SHA256, digest, &len, err));
    assert_true(att_slice_eq(a.u.quote.pcr_digest, ATT_SLICE(digest, len)));
}

static void test_json_round_trip(void **state)
{
    (void)state;
    static const char text[] =
        "{\"sha256\":{\"0\":\"" HEX0 "\",\"7\":\"" HEXA "\",\"23\":\"" HEX0 "\"}}";
    struct parse_pcr_set set;
    assert_ok(parse_pcr_set_parse(
        ATT_SLICE_LIT("{\"sha256\":{\"23\":\"" HEX0 "\",\"0\":\"" HEX0 "\",\"7\":\"" HEXA "\"}}"),
        NULL, &set, err));
    assert_int_equal(set.value[7][31], 0xaf);
    att_autojson *json = NULL;
    att_autobuf out = {0};
    assert_ok(parse_pcr_set_json(&set, &json, err));
    assert_ok(att_json_dump(json, false, &out, err));
    assert_string_equal(att_buf_cstr(&out), text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_selection_texts_that_are_refused),
        cmocka_unit_test(test_raw_selections_that_are_refused),
        cmocka_unit_test(test_structs_that_cannot_be_written),
        cmocka_unit_test(test_selection_forms_agree),
        cmocka_unit_test(test_values_that_are_refused),
        cmocka_unit_test(test_every_truncation_of_values),
        cmocka_unit_test(test_other_values_than_asked_for),
        cmocka_unit_test(test_values_that_cannot_be_written),
        cmocka_unit_test(test_digest_of_a_real_quote),
        cmocka_unit_test(test_json_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
