/* systemd's user-space log. The records are written after systemd's source (tpm2-util.c), since
 * Debian 12's systemd has no such log yet. */
#include "tests/unit/tpm_parse/vectors.h"

#include "tests/support/imalist.h"
#include "tpm/parse/logform.h"
#include "tpm/parse/systemd.h"

#define MASK 0xffffffu

static enum att_rc replay(struct att_slice bytes, struct parse_systemd_pcrs *ret,
                          struct att_err *err)
{
    struct parse_systemd_replay how = {
        .bank = PARSE_ALG_SHA256, .at_least = SIZE_MAX, .mask = MASK};
    return parse_systemd_replay(bytes, &how, ret, err);
}

static void three(struct att_buf *ret, size_t ends[3])
{
    static const char *const phases[] = {"enter-initrd", "leave-initrd", "sysinit"};
    for (size_t i = 0; i < 3; i++) {
        systemdlog_record(ret, 11, "phase", phases[i], NULL);
        ends[i] = ret->len;
    }
}

/* ---- refusals -------------------------------------------------------------------------------- */

static void test_truncated(void **state)
{
    (void)state;
    att_autobuf log = {0};
    size_t ends[3];
    struct parse_systemd_pcrs pcrs;
    three(&log, ends);
    for (size_t len = 1; len < log.len; len++) {
        uint8_t *copy = malloc(len);
        memcpy(copy, log.ptr, len);
        struct att_err err = {0};
        enum att_rc rc = replay(ATT_SLICE(copy, len), &pcrs, &err);
        bool whole = len == ends[0] || len == ends[1];
        if (whole != (rc == ATT_OK)) {
            fail_msg("%zu bytes: %s", len, err.msg);
        }
        free(copy);
    }
    assert_refused(replay(ATT_SLICE(log.ptr, ends[1] - 1), &pcrs, err), ATT_E_PARSE, "",
                   "record 1: it is cut off");
}

static void bad(const char *text, const char *says)
{
    struct parse_systemd_pcrs pcrs;
    assert_refused(replay(att_slice_str(text), &pcrs, err), ATT_E_PARSE, "", says);
}

static void test_forms(void **state)
{
    (void)state;
#define D      "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae" /* of "foo" */
#define ONE    "{\"hashAlg\":\"sha256\",\"digest\":\"" D "\"}"
#define S      ",\"content_type\":\"systemd\""
#define C(s)   S ",\"content\":{\"string\":\"" s "\",\"eventType\":\"phase\"}}\n"
#define R(pcr) "{\"pcr\":" pcr ",\"digests\":[" ONE "]"
    struct parse_systemd_pcrs pcrs;
    assert_ok(replay(ATT_SLICE_LIT(R("11") C("foo")), &pcrs, err));
    assert_int_equal(pcrs.n_records, 1);
    bad(R("11") C("bar"), "pcr11 record 0: payload does not match its digest");
    bad(R("11") S ",\"content\":{\"eventType\":\"phase\"}}\n", "payload does not match its digest");
    bad(R("10") C("foo"), "pcr10 record 0: systemd measures nothing into this PCR");
    bad(R("14") C("foo"), "pcr14 record 0: systemd measures nothing into this PCR");
    bad(R("24") C("foo"), "record 0: \"pcr\" is not 0…23");
    bad(R("-1") C("foo"), "record 0: \"pcr\" is not 0…23");
    bad(R("\"11\"") C("foo"), "record 0: \"pcr\" is not 0…23");
    bad(R("11") ",\"pcr\":11" C("foo"), "it is no JSON object");
    bad("[]\n", "it is no JSON object");
    bad("\n", "it is no JSON object");
    bad("\x1e\x1e" R("11") C("foo"), "it is no JSON object");
    bad("{\"pcr\":11,\"digests\":[]" C("foo"), "\"digests\" is not a list of 1 to 8");
    bad("{\"pcr\":11" C("foo"), "\"digests\" is not a list of 1 to 8");
    bad("{\"pcr\":11,\"digests\":[{\"digest\":\"" D "\"}]" C("foo"), "without hashAlg or digest");
    bad("{\"pcr\":11,\"digests\":[{\"hashAlg\":\"sha257\",\"digest\":\"" D "\"}]" C("foo"),
        "a digest of a hash that is not known");
    bad("{\"pcr\":11,\"digests\":[{\"hashAlg\":\"sha384\",\"digest\":\"" D "\"}]" C("foo"),
        "not the lowercase hex of its hash's length");
    bad("{\"pcr\":11,\"digests\":[" ONE "," ONE "]" C("foo"), "two digests of one hash");
    bad("{\"pcr\":11,\"digests\":[{\"hashAlg\":\"sha1\",\"digest\":"
        "\"0beec7b5ea3f0fdbc95d0dd47f3c5bc275da8a33\"}]" C("foo"),
        "it has no digest of the replayed bank");
    bad(R("11") ",\"content_type\":\"ima\",\"content\":{}}\n", "\"content_type\" is not systemd");
    /* An HMAC with the volume's key is no hash of the string: in PCR 15 only. */
    bad(R("11") S ",\"content\":{\"string\":\"x\",\"eventType\":\"volume-key\"}}\n",
        "pcr11 record 0: payload does not match its digest");
    assert_ok(replay(
        ATT_SLICE_LIT(R("15") S ",\"content\":{\"string\":\"x\",\"eventType\":\"volume-key\"}}\n"),
        &pcrs, err));
    /* One story for all banks. */
    bad("{\"pcr\":11,\"digests\":[" ONE ",{\"hashAlg\":\"sha1\",\"digest\":"
        "\"0000000000000000000000000000000000000000\"}]" C("foo"),
        "payload does not match its digest");
}

static void test_every_byte(void **state)
{
    (void)state;
    att_autobuf log = {0};
    size_t ends[3];
    struct parse_systemd_pcrs good, pcrs;
    three(&log, ends);
    assert_ok(replay(att_buf_slice(&log), &good, err));
    const char *string = strstr((char *)log.ptr, "enter-initrd");
    const char *digest = strstr((char *)log.ptr, "\"digest\":\"");
    size_t at[] = {(size_t)(string - (char *)log.ptr), (size_t)(digest + 10 - (char *)log.ptr)};
    for (size_t i = 0; i < 2; i++) {
        log.ptr[at[i]] ^= 1;
        assert_refused(replay(att_buf_slice(&log), &pcrs, err), ATT_E_PARSE, "", "record 0");
        log.ptr[at[i]] ^= 1;
    }
}

static void test_records_moved(void **state)
{
    (void)state;
    att_autobuf log = {0};
    size_t ends[3];
    struct parse_systemd_pcrs good, pcrs;
    three(&log, ends);
    assert_ok(replay(att_buf_slice(&log), &good, err));
    const struct att_slice r[] = {ATT_SLICE(log.ptr, ends[0]),
                                  ATT_SLICE(log.ptr + ends[0], ends[1] - ends[0]),
                                  ATT_SLICE(log.ptr + ends[1], ends[2] - ends[1])};
    static const int orders[][4] = {{0, 2, 1, -1}, {0, 2, -1, -1}, {0, 1, 1, 2}, {0, 1, -1, -1}};
    for (size_t i = 0; i < 4; i++) {
        att_autobuf moved = {0};
        for (size_t k = 0; k < 4 && orders[i][k] >= 0; k++) {
            att_buf_put_slice(&moved, r[orders[i][k]]);
        }
        assert_ok(replay(att_buf_slice(&moved), &pcrs, err));
        assert_memory_not_equal(pcrs.value[11], good.value[11], 32);
    }
}

static void test_signed_part(void **state)
{
    (void)state;
    att_autobuf log = {0};
    size_t ends[3];
    struct parse_systemd_pcrs pcrs;
    three(&log, ends);
    struct parse_pcr_set quoted = {.sel = {PARSE_ALG_SHA256, 1u << 11}, .digest_len = 32};
    struct parse_systemd_replay how = {
        .bank = PARSE_ALG_SHA256, .at_least = ends[0] + 3, .mask = 1u << 11, .until = &quoted};
    assert_refused(parse_systemd_replay(att_buf_slice(&log), &how, &pcrs, err), ATT_E_PARSE, "",
                   "record 1: the signed part of the log ends inside it");
    how.at_least = log.len + 1;
    assert_refused(parse_systemd_replay(att_buf_slice(&log), &how, &pcrs, err), ATT_E_PARSE, "",
                   "its signed part has");
    how.at_least = ends[0];
    systemdlog_extend("enter-initrd", quoted.value[11]);
    systemdlog_extend("leave-initrd", quoted.value[11]);
    assert_ok(parse_systemd_replay(att_buf_slice(&log), &how, &pcrs, err));
    assert_int_equal(pcrs.used, ends[1]);
}

static void test_caps(void **state)
{
    (void)state;
    struct parse_systemd log;
    assert_refused(parse_systemd_init(&log, ATT_SLICE("x", PARSE_SYSTEMD_MAX + 1), err),
                   ATT_E_LIMIT, "", "at most");
    att_autobuf text = {0};
    for (size_t i = 0; i <= PARSE_SYSTEMD_RECORD_MAX; i++) {
        att_buf_u8(&text, ' ');
    }
    att_buf_u8(&text, '\n');
    struct parse_systemd_pcrs pcrs;
    assert_refused(replay(att_buf_slice(&text), &pcrs, err), ATT_E_PARSE, "",
                   "it is beyond 16 KiB");
    /* Each is JSON and a hash: what is cheap to send, or named only, must not cost a second. */
    att_buf_reset(&text);
    for (size_t i = 0; i < PARSE_SYSTEMD_RECORDS_MAX; i++) {
        systemdlog_record(&text, 11, "phase", "x", NULL);
    }
    assert_ok(replay(att_buf_slice(&text), &pcrs, err));
    assert_int_equal(pcrs.n_records, PARSE_SYSTEMD_RECORDS_MAX);
    systemdlog_record(&text, 11, "phase", "x", NULL);
    assert_refused(replay(att_buf_slice(&text), &pcrs, err), ATT_E_LIMIT, "",
                   "record 8192: at most 8192 are read");
}

/* ---- good logs ------------------------------------------------------------------------------- */

static void test_replay(void **state)
{
    (void)state;
    att_autobuf log = {0}, plain = {0};
    size_t ends[3];
    uint8_t start[PARSE_PCR_COUNT][PARSE_DIGEST_MAX] = {{0}}, value[32];
    struct parse_systemd_pcrs pcrs;
    three(&log, ends);
    memset(start[11], 7, 32); /* what systemd-stub has measured before */
    memcpy(value, start[11], 32);
    systemdlog_extend("enter-initrd", value);
    systemdlog_extend("leave-initrd", value);
    systemdlog_extend("sysinit", value);
    struct parse_systemd_replay how = {PARSE_ALG_SHA256, (const void *)start, SIZE_MAX, NULL, MASK};
    assert_ok(parse_systemd_replay(att_buf_slice(&log), &how, &pcrs, err));
    assert_memory_equal(pcrs.value[11], value, 32);
    assert_int_equal(pcrs.with_records, 1u << 11);
    /* Without record separators it is the same log. */
    for (size_t i = 0; i < log.len; i++) {
        if (log.ptr[i] != 0x1e) {
            att_buf_u8(&plain, log.ptr[i]);
        }
    }
    assert_ok(parse_systemd_replay(att_buf_slice(&plain), &how, &pcrs, err));
    assert_memory_equal(pcrs.value[11], value, 32);
    /* Records of no PCR (NvPCRs), and of PCRs outside the mask, extend nothing. */
    att_buf_put_str(&log, "{\"nv_index\":29753372,\"digests\":[{\"hashAlg\":\"sha256\",\"digest\":"
                          "\"2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae\"}],"
                          "\"content_type\":\"systemd\",\"content\":{}}\n");
    systemdlog_record(&log, 3, "phase", "x", NULL);
    how.mask = 1u << 11;
    assert_ok(parse_systemd_replay(att_buf_slice(&log), &how, &pcrs, err));
    assert_memory_equal(pcrs.value[11], value, 32);
    assert_ok(parse_systemd_replay(ATT_SLICE(NULL, 0), &how, &pcrs, err));
    assert_int_equal(pcrs.n_records, 0);
}

static void test_explain(void **state)
{
    (void)state;
    att_autobuf log = {0};
    size_t ends[3];
    att_autojson *json = NULL;
    three(&log, ends);
    systemdlog_record(&log, 15, "volume-key", "cryptsetup:root:uuid", (const uint8_t[32]){9});
    assert_int_equal(parse_logform_of(att_buf_slice(&log)), PARSE_LOGFORM_SYSTEMD);
    assert_ok(parse_logform_explain(att_buf_slice(&log), &json, err));
    const json_t *events = json_object_get(json, "events");
    assert_int_equal(json_array_size(events), 4);
    assert_true(json_is_true(json_object_get(json_array_get(events, 0), "digestCoversPayload")));
    assert_true(json_is_false(json_object_get(json_array_get(events, 3), "digestCoversPayload")));
    const json_t *bank = json_object_get(json_object_get(json, "pcrs"), "sha256");
    assert_non_null(json_object_get(bank, "11"));
    assert_non_null(json_object_get(bank, "15"));
}

static void test_logform(void **state)
{
    (void)state;
    att_autojson *json = NULL;
    assert_int_equal(parse_logform_of(ATT_SLICE_LIT("10 86d3")), PARSE_LOGFORM_IMA);
    assert_int_equal(parse_logform_of(ATT_SLICE_LIT("{")), PARSE_LOGFORM_SYSTEMD);
    assert_int_equal(parse_logform_of(ATT_SLICE_LIT("\0\0\0\0\3\0\0\0")), PARSE_LOGFORM_FIRMWARE);
    assert_int_equal(parse_logform_of(ATT_SLICE_LIT("hello, world")), PARSE_LOGFORM_UNKNOWN);
    assert_int_equal(parse_logform_of(ATT_SLICE(NULL, 0)), PARSE_LOGFORM_UNKNOWN);
    assert_refused(parse_logform_explain(ATT_SLICE_LIT("hello, world"), &json, err), ATT_E_PARSE,
                   "", "neither a firmware log");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_truncated),   cmocka_unit_test(test_forms),
        cmocka_unit_test(test_every_byte),  cmocka_unit_test(test_records_moved),
        cmocka_unit_test(test_signed_part), cmocka_unit_test(test_caps),
        cmocka_unit_test(test_replay),      cmocka_unit_test(test_explain),
        cmocka_unit_test(test_logform),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
