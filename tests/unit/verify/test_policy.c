/* Boot policies: what is refused when they are read. Judging by them is in test_agent.c. */
#include "tests/unit/verify/harness.h"

#include "attestd/base/enc.h"

#define V "0000000000000000000000000000000000000000000000000000000000000001"
#define P "\"pcrs\":{\"0\":[\"" V "\"]}"
#define A "\"name\":\"a\",\"version\":1,\"bank\":\"sha256\","

static enum att_rc parse(const char *text, struct att_err *err)
{
    verify_autopolicy *policy = NULL;
    return verify_policy_parse(att_slice_str(text), &policy, err);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } rows[] = {
        {"", ""},
        {"[]", "object"},
        {"{" A P ",\"logs\":[]} x", ""},
        {"{" A P ",\"logs\":[],\"name\":\"b\"}", ""},
        {"{" A P ",\"logs\":[],\"extra\":1}", "extra"},
        {"{\"version\":1,\"bank\":\"sha256\"," P ",\"logs\":[]}", "name"},
        {"{\"name\":\"\",\"version\":1,\"bank\":\"sha256\"," P ",\"logs\":[]}", "name"},
        {"{\"name\":\"A\",\"version\":1,\"bank\":\"sha256\"," P ",\"logs\":[]}", "name"},
        {"{\"name\":\"none\",\"version\":1,\"bank\":\"sha256\"," P ",\"logs\":[]}", "reserved"},
        {"{\"name\":\"a\",\"version\":0,\"bank\":\"sha256\"," P ",\"logs\":[]}", "version"},
        {"{\"name\":\"a\",\"version\":\"1\",\"bank\":\"sha256\"," P ",\"logs\":[]}", "version"},
        {"{\"name\":\"a\",\"version\":2147483648,\"bank\":\"sha256\"," P ",\"logs\":[]}",
         "version"},
        {"{\"name\":\"a\",\"version\":1,\"bank\":\"sha1\"," P ",\"logs\":[]}", "bank"},
        {"{\"name\":\"a\",\"version\":1,\"bank\":\"sha384\"," P ",\"logs\":[]}", "pcrs.0[0]"},
        {"{" A "\"pcrs\":{},\"logs\":[]}", "pcrs"},
        {"{" A "\"pcrs\":[],\"logs\":[]}", "pcrs"},
        {"{" A "\"logs\":[]}", "pcrs"},
        {"{" A "\"pcrs\":{\"24\":[\"" V "\"]},\"logs\":[]}", "24"},
        {"{" A "\"pcrs\":{\"00\":[\"" V "\"]},\"logs\":[]}", "00"},
        {"{" A "\"pcrs\":{\"-1\":[\"" V "\"]},\"logs\":[]}", "-1"},
        {"{" A "\"pcrs\":{\"1 \":[\"" V "\"]},\"logs\":[]}", "1 "},
        {"{" A "\"pcrs\":{\"0\":[]},\"logs\":[]}", "pcrs.0"},
        {"{" A "\"pcrs\":{\"0\":\"" V "\"},\"logs\":[]}", "pcrs.0"},
        {"{" A "\"pcrs\":{\"0\":[\"00\"]},\"logs\":[]}", "pcrs.0[0]"},
        {"{" A "\"pcrs\":{\"0\":[\"" V "\",7]},\"logs\":[]}", "pcrs.0[1]"},
        {"{" A P "}", "logs"},
        {"{" A P ",\"logs\":\"firmware\"}", "logs"},
        {"{" A P ",\"logs\":[\"bios\"]}", "logs[0]"},
        {"{" A P ",\"logs\":[\"ima\",\"ima\"]}", "logs[1]"},
        {"{" A P ",\"logs\":[],\"notBefore\":1}", "notBefore"},
        {"{" A P ",\"logs\":[],\"notAfter\":\"tomorrow\"}", "notAfter"},
        {"{" A P ",\"logs\":[],\"notBefore\":\"2026-01-02T00:00:00Z\",\"notAfter\":"
         "\"2026-01-01T00:00:00Z\"}",
         "notAfter"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct att_err err = {0};
        if (!parse(rows[i].text, &err)) {
            fail_msg("accepted: %s", rows[i].text);
        }
        if (!strstr(err.msg, rows[i].says)) {
            fail_msg("%s: \"%s\" does not say \"%s\"", rows[i].text, err.msg, rows[i].says);
        }
    }
}

static void test_caps(void **state)
{
    (void)state;
    att_autobuf text = {0};
    att_buf_put_str(&text, "{" A "\"pcrs\":{\"0\":[\"" V "\"");
    for (int i = 0; i < VERIFY_POLICY_VALUES_MAX; i++) {
        att_buf_put_str(&text, ",\"" V "\"");
    }
    att_buf_put_str(&text, "]},\"logs\":[]}");
    assert_int_equal(parse(att_buf_cstr(&text), NULL), ATT_E_PARSE);
    att_autobuf big = {0};
    att_buf_put_str(&big, "{" A P ",\"logs\":[]}");
    assert_int_equal(parse(att_buf_cstr(&big), NULL), ATT_OK);
    for (size_t i = 0; i < VERIFY_POLICY_BYTES_MAX; i++) {
        att_buf_u8(&big, ' ');
    }
    assert_int_equal(parse(att_buf_cstr(&big), NULL), ATT_E_LIMIT);
}

static void test_runtime_logs(void **state)
{
    (void)state;
    static const struct {
        const char *rest;
        bool good, allowed;
    } cases[] = {
        {",\"logs\":[\"firmware\",\"ima\"]}", true, false},
        {",\"logs\":[\"firmware\",\"ima\"],\"imaViolations\":\"refuse\"}", true, false},
        {",\"logs\":[\"firmware\",\"ima\"],\"imaViolations\":\"allow\"}", true, true},
        {",\"logs\":[\"firmware\",\"ima\"],\"imaViolations\":true}", false, false},
        {",\"logs\":[\"firmware\",\"ima\"],\"imaViolations\":\"warn\"}", false, false},
        {",\"logs\":[\"firmware\"],\"imaViolations\":\"allow\"}", false, false},
        {",\"logs\":[\"ima\"]}", false, false},
        {",\"logs\":[\"systemd\"]}", false, false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[600];
        verify_autopolicy *policy = NULL;
        (void)snprintf(text, sizeof(text),
                       "{\"name\":\"p\",\"version\":1,\"bank\":\"sha256\",\"pcrs\":{\"0\":[\"" V
                       "\"]}%s",
                       cases[i].rest);
        enum att_rc rc = verify_policy_parse(att_slice_str(text), &policy, NULL);
        assert_int_equal(rc, cases[i].good ? ATT_OK : ATT_E_PARSE);
        assert_true(!policy || policy->ima_violations == cases[i].allowed);
    }
}

static void test_read(void **state)
{
    (void)state;
    static const char text[] =
        "{\"name\":\"ovmf-guest\",\"version\":7,\"bank\":\"sha256\",\"pcrs\":{\"0\":[\"" V
        "\"],\"23\":[\"" V "\",\"" V "\"]},\"logs\":[\"firmware\",\"ima\"],"
        "\"notBefore\":\"2026-01-01T00:00:00Z\"}";
    verify_autopolicy *policy = NULL;
    assert_int_equal(verify_policy_parse(att_slice_str(text), &policy, NULL), ATT_OK);
    assert_string_equal(policy->name, "ovmf-guest");
    assert_int_equal(policy->version, 7);
    assert_int_equal(policy->pcr_mask, (1U << 23) | 1U);
    assert_int_equal(policy->pcrs[23].n_values, 2);
    assert_int_equal(policy->pcrs[0].values[0][31], 1);
    assert_int_equal(policy->logs, VERIFY_LOG_FIRMWARE | VERIFY_LOG_IMA);
    assert_int_equal(policy->not_before, INT64_C(1767225600));
    assert_int_equal(policy->not_after, 0);
    uint8_t digest[ATT_SHA256_LEN];
    att_sha256(digest, att_slice_str(text));
    assert_memory_equal(policy->digest, digest, sizeof(digest));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_refused), cmocka_unit_test(test_caps),
                                       cmocka_unit_test(test_read),
                                       cmocka_unit_test(test_runtime_logs)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
