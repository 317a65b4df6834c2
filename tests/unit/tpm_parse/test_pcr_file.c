/* The PCR file of tpm2-tools: its form is what tpm2_quote 5.4 writes (lengths 668 and 1200). That
 * tpm2_checkquote accepts it is tests/integration/test_main_job.sh's to show. */
#include "tpm/parse/pcr_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static struct parse_pcr_set make(const char *selection)
{
    struct parse_pcr_set set = {0};
    assert_int_equal(parse_pcr_sel_parse(selection, &set.sel, NULL), ATT_OK);
    set.digest_len = parse_alg_digest_len(set.sel.bank);
    for (unsigned i = 0; i < PARSE_PCR_COUNT; i++) {
        if (set.sel.mask & (1U << i)) {
            memset(set.value[i], (int)i + 1, set.digest_len);
        }
    }
    return set;
}

static void round_trip(const char *selection, size_t len)
{
    struct parse_pcr_set set = make(selection), out;
    att_autobuf file = {0};
    assert_int_equal(parse_pcr_file_encode(&set, &file, NULL), ATT_OK);
    assert_int_equal(file.len, len);
    assert_int_equal(parse_pcr_file_parse(att_buf_slice(&file), &set.sel, &out, NULL), ATT_OK);
    assert_memory_equal(&out, &set, sizeof(set));
    /* One byte more or less, and any byte changed, other than in a value. */
    assert_int_equal(parse_pcr_file_parse(ATT_SLICE(file.ptr, file.len - 1), &set.sel, &out, NULL),
                     ATT_E_PARSE);
    att_buf_u8(&file, 0);
    assert_int_equal(parse_pcr_file_parse(att_buf_slice(&file), &set.sel, &out, NULL), ATT_E_PARSE);
    size_t same = 0;
    for (size_t i = 0; i < len; i++) {
        file.ptr[i] ^= 0x40;
        enum att_rc rc = parse_pcr_file_parse(ATT_SLICE(file.ptr, len), &set.sel, &out, NULL);
        same += rc == ATT_OK && memcmp(&out, &set, sizeof(set)) == 0;
        file.ptr[i] ^= 0x40;
    }
    assert_int_equal(same, 0); /* a changed byte shows: refused, or another value */
}

static void test_round_trips(void **state)
{
    (void)state;
    round_trip("sha256:0", 668);
    round_trip("sha256:0,7", 668);
    round_trip("sha256:0,1,2,3,4,5,6,7", 668);
    round_trip("sha256:0,1,2,3,4,5,6,7,8", 1200);
    round_trip("sha384:0,1,2,3,4,5,6,7,8,9,14,23", 1200);
}

static void test_another_selection_is_refused(void **state)
{
    (void)state;
    struct parse_pcr_set set = make("sha256:0,7"), out;
    struct parse_pcr_sel other;
    att_autobuf file = {0};
    assert_int_equal(parse_pcr_file_encode(&set, &file, NULL), ATT_OK);
    assert_int_equal(parse_pcr_sel_parse("sha256:0,6", &other, NULL), ATT_OK);
    assert_int_equal(parse_pcr_file_parse(att_buf_slice(&file), &other, &out, NULL), ATT_E_PARSE);
    assert_int_equal(parse_pcr_sel_parse("sha512:0,7", &other, NULL), ATT_OK);
    assert_int_equal(parse_pcr_file_parse(att_buf_slice(&file), &other, &out, NULL), ATT_E_PARSE);
    set.sel.mask = 0;
    assert_int_equal(parse_pcr_file_encode(&set, &file, NULL), ATT_E_INVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trips),
        cmocka_unit_test(test_another_selection_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
