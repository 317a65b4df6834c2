/* verify_logs over firmware logs of real machines: the grammar takes healthy ones, and no event of
 * theirs can be rewritten without being seen. */
#include "tests/unit/verify/harness.h"

#include "attestd/base/io.h"

#include <stdlib.h>

static bool load(const char *name, struct att_buf *ret)
{
    char path[4300];
    const char *source = getenv("ATT_SOURCE_DIR"), *dir = getenv("ATTESTD_VECTORS");
    if (dir) {
        (void)snprintf(path, sizeof(path), "%s/eventlogs/%s", dir, name);
    } else {
        (void)snprintf(path, sizeof(path), "%s/../shared/vectors/eventlogs/%s",
                       source ? source : ".", name);
    }
    return !att_io_read_file(path, PARSE_EVENTLOG_MAX, ret, NULL);
}

/* What a TPM would quote after this log. */
static bool quoted_after(struct att_slice log, uint32_t mask, struct parse_pcr_set *ret)
{
    struct parse_eventlog_pcrs pcrs;
    if (parse_eventlog_replay(log, PARSE_ALG_SHA256, &pcrs, NULL)) {
        return false;
    }
    memset(ret, 0, sizeof(*ret));
    ret->sel = (struct parse_pcr_sel){.bank = PARSE_ALG_SHA256, .mask = mask};
    ret->digest_len = pcrs.digest_len;
    for (unsigned pcr = 0; pcr < PARSE_PCR_COUNT; pcr++) {
        if (mask & (1U << pcr)) {
            memcpy(ret->value[pcr], pcrs.value[pcr], pcrs.digest_len);
        }
    }
    return true;
}

static void judge(struct att_slice log, const struct parse_pcr_set *quoted,
                  struct verify_verdict *verdict)
{
    struct evidence_logs logs = {0};
    assert_int_equal(evidence_logs_add(&logs, "firmware", log, NULL), ATT_OK);
    verify_logs(&(struct verify_logs_wanted){.logs = VERIFY_LOG_FIRMWARE}, quoted, &logs, verdict);
    evidence_logs_done(&logs);
}

static const char *const healthy[] = {
    "crypto_agile_eventlog",         "event-arch-linux.bin",     "event-bootorder.bin",
    "event-gce-ubuntu-2104-log.bin", "event-moklisttrusted.bin", "event-postcode.bin",
    "event-sd-boot-fedora37.bin",
};
#define N_HEALTHY (sizeof(healthy) / sizeof(healthy[0]))
#define BOOT_PCRS 0x43ffU /* 0-9, 14 */

static void test_healthy(void **state)
{
    (void)state;
    size_t n = 0;
    for (size_t i = 0; i < N_HEALTHY; i++) {
        att_autobuf log = {0};
        struct parse_pcr_set quoted;
        if (!load(healthy[i], &log)) {
            continue;
        }
        assert_true(quoted_after(att_buf_slice(&log), BOOT_PCRS, &quoted));
        verify_autoverdict *verdict = verify_verdict_new();
        judge(att_buf_slice(&log), &quoted, verdict);
        assert_accepted(verdict, healthy[i]);
        n++;
    }
    if (n == 0) {
        print_message("[  SKIP  ] no real logs here (ATTESTD_VECTORS)\n");
        skip();
    }
}

/* Each event's type in turn is made an EV_EFI_ACTION and EV_NO_ACTION; each event of PCR 7 gets
 * another last byte of payload. None of this changes a digest that is extended. */
static void test_rewritten(void **state)
{
    (void)state;
    att_autobuf log = {0};
    struct parse_pcr_set quoted;
    if (!load(healthy[1], &log)) {
        skip();
    }
    assert_true(quoted_after(att_buf_slice(&log), BOOT_PCRS, &quoted));
    struct parse_eventlog walk;
    struct parse_eventlog_event event;
    assert_int_equal(parse_eventlog_init(&walk, att_buf_slice(&log), NULL), ATT_OK);
    size_t n = 0;
    while (!parse_eventlog_next(&walk, &event, NULL)) {
        if (event.type == PARSE_EV_NO_ACTION || event.pcr > 7) {
            continue;
        }
        uint8_t *type = log.ptr + event.offset + 4, saved[4];
        memcpy(saved, type, 4);
        static const uint8_t others[2][4] = {{3, 0, 0, 0}, {0x7f, 0xff, 0xff, 0x7f}};
        for (size_t i = 0; i < 2; i++) {
            memcpy(type, others[i], 4);
            verify_autoverdict *verdict = verify_verdict_new();
            judge(att_buf_slice(&log), &quoted, verdict);
            assert_refused(verdict, VERIFY_REASON_LOG_REPLAY, "type");
        }
        memcpy(type, saved, 4);
        if (event.pcr == 7 && event.data.len > 0) {
            uint8_t *last = log.ptr + (event.data.ptr - log.ptr) + event.data.len - 1;
            *last ^= 1;
            verify_autoverdict *verdict = verify_verdict_new();
            judge(att_buf_slice(&log), &quoted, verdict);
            assert_refused(verdict, VERIFY_REASON_LOG_REPLAY, "payload");
            *last ^= 1;
        }
        n++;
    }
    assert_true(n > 10);
}

static void test_sha1_log(void **state)
{
    (void)state;
    att_autobuf log = {0};
    if (!load("event-uefi-sha1-log.bin", &log)) {
        skip();
    }
    struct parse_pcr_set quoted = {.sel = {.bank = PARSE_ALG_SHA256, .mask = 1}, .digest_len = 32};
    verify_autoverdict *verdict = verify_verdict_new();
    judge(att_buf_slice(&log), &quoted, verdict);
    assert_refused(verdict, VERIFY_REASON_LOG_REPLAY, "SHA-1 log");
}

/* PCR 17 starts at all ones, and nothing measured into it. */
static void test_reset_values(void **state)
{
    (void)state;
    struct forge *forge = forge_new(FORGE_EK_P256, FORGE_ENROL);
    forge_build(forge, NULL);
    forge->pcrs.sel.mask |= 1U << 17 | 1U << 23;
    for (int good = 0; good < 2; good++) {
        memset(forge->pcrs.value[17], good ? 0xff : 0, ATT_SHA256_LEN);
        verify_autoverdict *verdict = verify_verdict_new();
        verify_logs(&(struct verify_logs_wanted){.logs = VERIFY_LOG_FIRMWARE}, &forge->pcrs,
                    &forge->logs, verdict);
        if (good) {
            assert_accepted(verdict, "PCR 17 at its reset value");
        } else {
            assert_refused(verdict, VERIFY_REASON_LOG_REPLAY, "PCR 17 at zero");
            assert_non_null(strstr(verify_verdict_refusal(verdict)->detail, "pcr17"));
        }
    }
    memset(forge->pcrs.value[23], 0xff, ATT_SHA256_LEN);
    verify_autoverdict *verdict = verify_verdict_new();
    verify_logs(&(struct verify_logs_wanted){.logs = VERIFY_LOG_FIRMWARE}, &forge->pcrs,
                &forge->logs, verdict);
    assert_refused(verdict, VERIFY_REASON_LOG_REPLAY, "PCR 23 at all ones");
    forge_free(forge);
}

static void test_names(void **state)
{
    (void)state;
    assert_int_equal(verify_log_bit(ATT_SLICE_LIT("firmware")), VERIFY_LOG_FIRMWARE);
    assert_int_equal(verify_log_bit(ATT_SLICE_LIT("firmware2")), 0);
    assert_int_equal(verify_log_bit((struct att_slice){0}), 0);
    assert_string_equal(verify_log_name(VERIFY_LOG_IMA), "ima");
    assert_string_equal(verify_log_name(3), "?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_healthy),  cmocka_unit_test(test_rewritten),
        cmocka_unit_test(test_sha1_log), cmocka_unit_test(test_reset_values),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
