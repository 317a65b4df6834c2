/* The event log's grammar and its replay, on logs made here. Real logs: test_eventlog_real.c. */
#include "vectors.h"

#include "attestd/base/hash.h"
#include "tpm/parse/eventlog.h"

/* ---- logs made by hand ------------------------------------------------------------------------
 */

static void le16(struct att_buf *buf, uint16_t v)
{
    att_buf_u8(buf, (uint8_t)v);
    att_buf_u8(buf, (uint8_t)(v >> 8));
}

static void le32(struct att_buf *buf, uint32_t v)
{
    le16(buf, (uint16_t)v);
    le16(buf, (uint16_t)(v >> 16));
}

static void sha1_event(struct att_buf *log, uint32_t pcr, uint32_t type, struct att_slice data)
{
    static const uint8_t zero[20];
    le32(log, pcr);
    le32(log, type);
    att_buf_put(log, zero, sizeof zero);
    le32(log, (uint32_t)data.len);
    att_buf_put_slice(log, data);
}

/* Record 0 naming these algorithms. */
static void spec_id(struct att_buf *log, const uint16_t *algs, const uint16_t *lens, uint32_t n)
{
    att_autobuf data = {0};
    att_buf_put(&data, "Spec ID Event03", 16);
    le32(&data, 0);
    att_buf_put(&data, "\0\2\0\2", 4);
    le32(&data, n);
    for (uint32_t i = 0; i < n; i++) {
        le16(&data, algs[i]);
        le16(&data, lens[i]);
    }
    att_buf_u8(&data, 0);
    sha1_event(log, 0, PARSE_EV_NO_ACTION, att_buf_slice(&data));
}

static void spec_id_sha256(struct att_buf *log)
{
    const uint16_t alg = PARSE_ALG_SHA256, len = 32;
    spec_id(log, &alg, &len, 1);
}

/* An event of the SHA-256 bank alone whose digest is H(data). */
static void event(struct att_buf *log, uint32_t pcr, uint32_t type, struct att_slice data)
{
    uint8_t digest[ATT_SHA256_LEN];
    att_sha256(digest, data);
    le32(log, pcr);
    le32(log, type);
    le32(log, 1);
    le16(log, PARSE_ALG_SHA256);
    att_buf_put(log, digest, sizeof digest);
    le32(log, (uint32_t)data.len);
    att_buf_put_slice(log, data);
}

static void locality_event(struct att_buf *log, uint8_t locality)
{
    uint8_t data[17] = "StartupLocality";
    data[16] = locality;
    event(log, 0, PARSE_EV_NO_ACTION, ATT_SLICE_ARRAY(data));
}

static enum att_rc walk(struct att_slice bytes, size_t *ret_events, struct att_err *err)
{
    struct parse_eventlog log;
    enum att_rc rc = parse_eventlog_init(&log, bytes, err);
    struct parse_eventlog_event ev;
    while (rc == ATT_OK && (rc = parse_eventlog_next(&log, &ev, err)) == ATT_OK) {
        *ret_events = log.number;
    }
    return rc == ATT_E_NOTFOUND ? ATT_OK : rc;
}

static enum att_rc replay(const struct att_buf *log, struct parse_eventlog_pcrs *ret,
                          struct att_err *err)
{
    return parse_eventlog_replay(att_buf_slice(log), PARSE_ALG_SHA256, ret, err);
}

/* ---- refusals ---------------------------------------------------------------------------------
 */

static void test_logs_without_a_first_event(void **state)
{
    (void)state;
    size_t n = 0;
    assert_refused(walk(ATT_SLICE_LIT(""), &n, err), ATT_E_PARSE, "", "no first event");
    att_autobuf log = {0};
    spec_id_sha256(&log);
    for (size_t len = 0; len < log.len; len++) {
        assert_refused(walk(ATT_SLICE(log.ptr, len), &n, err), ATT_E_PARSE, "", "no first event");
    }
}

static void test_a_log_beyond_4_mib(void **state)
{
    (void)state;
    uint8_t *big = calloc(1, PARSE_EVENTLOG_MAX + 1);
    size_t n = 0;
    assert_refused(walk(ATT_SLICE(big, PARSE_EVENTLOG_MAX + 1), &n, err), ATT_E_LIMIT, "",
                   "at most 4194304");
    free(big);
}

static void test_spec_ids_that_are_refused(void **state)
{
    (void)state;
    size_t n = 0;
    uint16_t algs[17], lens[17];
    for (uint16_t i = 0; i < 17; i++) {
        algs[i] = (uint16_t)(0x100 + i);
        lens[i] = 32;
    }
#define REFUSED(count, text)                                                                       \
    do {                                                                                           \
        att_autobuf log = {0};                                                                     \
        spec_id(&log, algs, lens, (count));                                                        \
        assert_refused(walk(att_buf_slice(&log), &n, err), ATT_E_PARSE, "", text);                 \
    } while (0)
    REFUSED(0, "names 0 algorithms");
    REFUSED(17, "names 17 algorithms, 1…16 expected");
    lens[0] = 65;
    REFUSED(1, "0x0100 65 bytes");
    lens[0] = 0;
    REFUSED(1, "0x0100 0 bytes");
    algs[0] = PARSE_ALG_SHA256;
    lens[0] = 31;
    REFUSED(1, "0x000b 31 bytes");
    lens[0] = 32;
    algs[1] = PARSE_ALG_SHA256;
    REFUSED(2, "0x000b twice");
#undef REFUSED
    /* vendor bytes that the event does not hold; one byte after the vendor info */
    att_autobuf log = {0}, longer = {0};
    spec_id_sha256(&log);
    log.ptr[log.len - 1] = 4;
    assert_refused(walk(att_buf_slice(&log), &n, err), ATT_E_PARSE, "", "not as long as its");
    log.ptr[log.len - 1] = 0;
    att_buf_put_slice(&longer, att_buf_slice(&log));
    att_buf_u8(&longer, 0);
    longer.ptr[28]++;
    assert_refused(walk(att_buf_slice(&longer), &n, err), ATT_E_PARSE, "", "not as long as its");
}

/* A prefix of a log is a log exactly where it ends with an event, or where what is left of the next
 * one cannot be told from padding. */
static void test_every_truncation(void **state)
{
    (void)state;
    att_autobuf log = {0};
    size_t ends[5], n_ends = 0;
    spec_id_sha256(&log);
    ends[n_ends++] = log.len;
    event(&log, 7, PARSE_EV_SEPARATOR, ATT_SLICE_LIT("\0\0\0\0"));
    ends[n_ends++] = log.len;
    event(&log, 4, PARSE_EV_EFI_ACTION, ATT_SLICE_LIT("Calling EFI Application"));
    ends[n_ends++] = log.len;
    event(&log, 0, PARSE_EV_S_CRTM_VERSION, ATT_SLICE_LIT("v1"));
    ends[n_ends++] = log.len;
    for (size_t len = ends[0]; len <= log.len; len++) {
        size_t last = 0, events = 0;
        while (last + 1 < n_ends && ends[last + 1] <= len) {
            last++;
        }
        int padding = 1;
        for (size_t i = ends[last]; i < len; i++) {
            padding = padding && log.ptr[i] == 0;
        }
        uint8_t *copy = malloc(len);
        memcpy(copy, log.ptr, len);
        struct att_err why = {0};
        enum att_rc rc = walk(ATT_SLICE(copy, len), &events, &why);
        free(copy);
        assert_int_equal(rc, padding ? ATT_OK : ATT_E_PARSE);
        if (padding) {
            assert_int_equal(events, last + 1);
        } else {
            char name[32];
            snprintf(name, sizeof name, "event %zu: ", last + 1);
            assert_non_null(strstr(why.msg, name));
        }
    }
}

/* A good first event, then this one of PCR 7, changed at one byte: its header is pcr 0, type 4,
 * count 8, algorithm 12, digest 14, size 46. */
static enum att_rc walk_changed(size_t offset, uint8_t value, struct att_err *err)
{
    att_autobuf log = {0};
    spec_id_sha256(&log);
    size_t at = log.len, n = 0;
    event(&log, 7, PARSE_EV_SEPARATOR, ATT_SLICE_LIT("\0\0\0\0"));
    log.ptr[at + offset] = value;
    return walk(att_buf_slice(&log), &n, err);
}

static void test_events_that_are_refused(void **state)
{
    (void)state;
    assert_ok(walk_changed(0, 23, err));
    assert_refused(walk_changed(0, 24, err), ATT_E_PARSE, "", "event 1: its PCR is not 0…23");
    assert_refused(walk_changed(3, 0xFF, err), ATT_E_PARSE, "", "event 1: its PCR is not 0…23");
    assert_refused(walk_changed(8, 0, err), ATT_E_PARSE, "", "pcr7 event 1: its number of digests");
    assert_refused(walk_changed(8, 2, err), ATT_E_PARSE, "", "pcr7 event 1: its number of digests");
    assert_refused(walk_changed(11, 0x80, err), ATT_E_PARSE, "", "number of digests");
    assert_refused(walk_changed(12, 0x0C, err), ATT_E_PARSE, "", "Spec ID does not name");
    assert_refused(walk_changed(46, 5, err), ATT_E_PARSE, "", "pcr7 event 1: it is longer");
    assert_refused(walk_changed(48, 0x11, err), ATT_E_PARSE, "",
                   "pcr7 event 1: its payload is "
                   "beyond 1 MiB");
}

static void test_two_digests_of_one_algorithm(void **state)
{
    (void)state;
    const uint16_t algs[] = {PARSE_ALG_SHA256, PARSE_ALG_SHA384}, lens[] = {32, 48};
    static const uint8_t digest[48];
    att_autobuf log = {0};
    size_t n = 0;
    spec_id(&log, algs, lens, 2);
    le32(&log, 7);
    le32(&log, PARSE_EV_ACTION);
    le32(&log, 2);
    for (int i = 0; i < 2; i++) {
        le16(&log, PARSE_ALG_SHA256);
        att_buf_put(&log, digest, 32);
    }
    le32(&log, 0);
    assert_refused(walk(att_buf_slice(&log), &n, err), ATT_E_PARSE, "", "two digests of one");
}

static void test_payloads_at_the_cap(void **state)
{
    (void)state;
    uint8_t *big = calloc(1, PARSE_EVENTLOG_EVENT_MAX + 1);
    size_t n = 0;
    big[0] = 1;
    att_autobuf good = {0}, bad = {0};
    spec_id_sha256(&good);
    spec_id_sha256(&bad);
    event(&good, 1, PARSE_EV_ACTION, ATT_SLICE(big, PARSE_EVENTLOG_EVENT_MAX));
    event(&bad, 1, PARSE_EV_ACTION, ATT_SLICE(big, PARSE_EVENTLOG_EVENT_MAX + 1));
    free(big);
    assert_ok(walk(att_buf_slice(&good), &n, err));
    assert_refused(walk(att_buf_slice(&bad), &n, err), ATT_E_PARSE, "", "beyond 1 MiB");
}

static void test_padding_and_what_is_none(void **state)
{
    (void)state;
    static const uint8_t zeroes[100], ones[1] = {0xFF};
    size_t n = 0;
    for (size_t len = 1; len <= sizeof zeroes; len++) {
        att_autobuf log = {0};
        spec_id_sha256(&log);
        event(&log, 7, PARSE_EV_SEPARATOR, ATT_SLICE_LIT("\0\0\0\0"));
        size_t end = log.len;
        att_buf_put(&log, zeroes, len);
        assert_ok(walk(att_buf_slice(&log), &n, err));
        assert_int_equal(n, 2);
        log.ptr[log.len - 1] = 1; /* one other byte: no padding */
        assert_int_equal(walk(att_buf_slice(&log), &n, NULL), ATT_E_PARSE);
        log.len = end;
        for (size_t i = 0; i < len; i++) {
            att_buf_put(&log, ones, 1);
        }
        assert_ok(walk(att_buf_slice(&log), &n, err));
        assert_int_equal(n, 2);
    }
}

static void test_pcr_minus_one_is_for_no_action_only(void **state)
{
    (void)state;
    att_autobuf log = {0}, bad = {0};
    struct parse_eventlog_pcrs pcrs;
    spec_id_sha256(&log);
    event(&log, 0xFFFFFFFF, PARSE_EV_NO_ACTION, ATT_SLICE_LIT("SP800-155 Event\0x"));
    assert_ok(replay(&log, &pcrs, err));
    assert_int_equal(pcrs.with_events, 0);
    spec_id_sha256(&bad);
    event(&bad, 0xFFFFFFFF, PARSE_EV_ACTION, ATT_SLICE_LIT("x"));
    assert_refused(replay(&bad, &pcrs, err), ATT_E_PARSE, "", "its PCR is not");
}

static void test_startup_localities_that_are_refused(void **state)
{
    (void)state;
    struct parse_eventlog_pcrs pcrs;
    att_autobuf wrong = {0}, twice = {0}, late = {0}, longer = {0};
    spec_id_sha256(&wrong);
    locality_event(&wrong, 1);
    assert_refused(replay(&wrong, &pcrs, err), ATT_E_PARSE, "", "pcr0 event 1: StartupLocality is");
    spec_id_sha256(&twice);
    locality_event(&twice, 3);
    locality_event(&twice, 0);
    assert_refused(replay(&twice, &pcrs, err), ATT_E_PARSE, "", "pcr0 event 2: a second");
    spec_id_sha256(&late);
    event(&late, 0, PARSE_EV_S_CRTM_VERSION, ATT_SLICE_LIT("1"));
    locality_event(&late, 3);
    assert_refused(replay(&late, &pcrs, err), ATT_E_PARSE, "", "after PCR 0 was extended");
    spec_id_sha256(&longer);
    event(&longer, 0, PARSE_EV_NO_ACTION, ATT_SLICE_LIT("StartupLocality\0\3\0"));
    assert_refused(replay(&longer, &pcrs, err), ATT_E_PARSE, "", "StartupLocality is not");
}

static void test_banks_that_are_not_there(void **state)
{
    (void)state;
    const uint16_t algs[] = {PARSE_ALG_SHA256, PARSE_ALG_SHA384}, lens[] = {32, 48};
    struct parse_eventlog_pcrs pcrs;
    att_autobuf log = {0}, sha1 = {0}, some = {0};
    spec_id_sha256(&log);
    assert_refused(parse_eventlog_replay(att_buf_slice(&log), PARSE_ALG_SHA384, &pcrs, err),
                   ATT_E_NOTFOUND, "", "no sha384 bank");
    assert_refused(parse_eventlog_replay(att_buf_slice(&log), PARSE_ALG_RSA, &pcrs, err),
                   ATT_E_NOTFOUND, "", "no such bank");
    sha1_event(&sha1, 0, PARSE_EV_S_CRTM_CONTENTS, ATT_SLICE_LIT("x"));
    assert_refused(replay(&sha1, &pcrs, err), ATT_E_NOTFOUND, "", "no sha256 bank");
    /* an event without a digest of a declared bank: that bank's PCR cannot be replayed */
    spec_id(&some, algs, lens, 2);
    event(&some, 7, PARSE_EV_SEPARATOR, ATT_SLICE_LIT("\0\0\0\0"));
    assert_ok(replay(&some, &pcrs, err));
    assert_refused(parse_eventlog_replay(att_buf_slice(&some), PARSE_ALG_SHA384, &pcrs, err),
                   ATT_E_PARSE, "", "pcr7 event 1: it has no digest of the replayed bank");
}

/* ---- replay ------------------------------------------------------------------------------------
 */

static void quoted_from(const struct parse_eventlog_pcrs *pcrs, uint32_t mask,
                        struct parse_pcr_set *ret)
{
    memset(ret, 0, sizeof *ret);
    ret->sel = (struct parse_pcr_sel){pcrs->bank, mask};
    ret->digest_len = pcrs->digest_len;
    memcpy(ret->value, pcrs->value, sizeof ret->value);
}

static void test_check_refuses_and_names_pcr_and_event(void **state)
{
    (void)state;
    struct parse_eventlog_pcrs pcrs;
    struct parse_pcr_set quoted;
    att_autobuf log = {0};
    spec_id_sha256(&log);
    event(&log, 4, PARSE_EV_EFI_ACTION, ATT_SLICE_LIT("one"));
    event(&log, 7, PARSE_EV_EFI_ACTION, ATT_SLICE_LIT("two"));
    event(&log, 7, PARSE_EV_SEPARATOR, ATT_SLICE_LIT("\0\0\0\0"));
    assert_ok(replay(&log, &pcrs, err));
    quoted_from(&pcrs, 0x9F, &quoted);
    assert_ok(parse_eventlog_check(&pcrs, &quoted, 0xFFFFFF, err));
    quoted.value[7][31] ^= 1;
    assert_refused(parse_eventlog_check(&pcrs, &quoted, 0xFFFFFF, err), ATT_E_DENIED, "logReplay",
                   "pcr7 event 3: ");
    assert_ok(parse_eventlog_check(&pcrs, &quoted, 0x1F, err)); /* not asked about PCR 7 */
    quoted.sel.mask = 0x1F;
    assert_ok(parse_eventlog_check(&pcrs, &quoted, 0xFFFFFF, err)); /* not quoted */
    /* a PCR without events holds its reset value and no other */
    quoted.value[2][0] = 1;
    assert_refused(parse_eventlog_check(&pcrs, &quoted, 0xFFFFFF, err), ATT_E_DENIED, "logReplay",
                   "pcr2: the log has no event");
    quoted.sel.bank = PARSE_ALG_SHA384;
    assert_refused(parse_eventlog_check(&pcrs, &quoted, 0xFFFFFF, err), ATT_E_INVAL, "",
                   "another bank");
}

static void test_a_sha1_log_proves_nothing(void **state)
{
    (void)state;
    struct parse_eventlog_pcrs pcrs;
    struct parse_pcr_set quoted;
    att_autobuf log = {0};
    sha1_event(&log, 0, PARSE_EV_S_CRTM_CONTENTS, ATT_SLICE_LIT("x"));
    assert_ok(parse_eventlog_replay(att_buf_slice(&log), PARSE_ALG_SHA1, &pcrs, err));
    quoted_from(&pcrs, 1, &quoted);
    assert_refused(parse_eventlog_check(&pcrs, &quoted, 1, err), ATT_E_DENIED, "logReplay",
                   "a SHA-1 log proves nothing");
}

static void extend_by(uint8_t value[32], struct att_slice data)
{
    uint8_t digest[32];
    att_sha256(digest, data);
    struct att_slice parts[] = {ATT_SLICE(value, 32), ATT_SLICE_ARRAY(digest)};
    att_sha256_v(value, parts, 2);
}

static void test_replay_by_hand(void **state)
{
    (void)state;
    att_autobuf log = {0};
    struct parse_eventlog_pcrs pcrs;
    spec_id_sha256(&log);
    locality_event(&log, 3);
    event(&log, 0, PARSE_EV_S_CRTM_VERSION, ATT_SLICE_LIT("1.0"));
    event(&log, 0, PARSE_EV_SEPARATOR, ATT_SLICE_LIT("\0\0\0\0"));
    event(&log, 17, PARSE_EV_ACTION, ATT_SLICE_LIT("launch"));
    event(&log, 5, PARSE_EV_NO_ACTION, ATT_SLICE_LIT("not extended"));
    assert_ok(replay(&log, &pcrs, err));
    uint8_t pcr0[32] = {0}, pcr17[32], reset[32] = {0}, ones[32];
    pcr0[31] = 3;
    extend_by(pcr0, ATT_SLICE_LIT("1.0"));
    extend_by(pcr0, ATT_SLICE_LIT("\0\0\0\0"));
    memset(pcr17, 0xFF, sizeof pcr17);
    memset(ones, 0xFF, sizeof ones);
    extend_by(pcr17, ATT_SLICE_LIT("launch"));
    assert_memory_equal(pcrs.value[0], pcr0, 32);
    assert_memory_equal(pcrs.value[17], pcr17, 32);
    assert_memory_equal(pcrs.value[5], reset, 32);
    assert_memory_equal(pcrs.value[16], reset, 32);
    assert_memory_equal(pcrs.value[22], ones, 32);
    assert_memory_equal(pcrs.value[23], reset, 32);
    assert_int_equal(pcrs.with_events, 1u << 0 | 1u << 17);
    assert_int_equal(pcrs.last_event[0], 3);
    assert_int_equal(pcrs.last_event[17], 4);
    assert_int_equal(pcrs.startup_locality, 3);
    assert_int_equal(pcrs.n_events, 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logs_without_a_first_event),
        cmocka_unit_test(test_a_log_beyond_4_mib),
        cmocka_unit_test(test_spec_ids_that_are_refused),
        cmocka_unit_test(test_every_truncation),
        cmocka_unit_test(test_events_that_are_refused),
        cmocka_unit_test(test_two_digests_of_one_algorithm),
        cmocka_unit_test(test_payloads_at_the_cap),
        cmocka_unit_test(test_padding_and_what_is_none),
        cmocka_unit_test(test_pcr_minus_one_is_for_no_action_only),
        cmocka_unit_test(test_startup_localities_that_are_refused),
        cmocka_unit_test(test_banks_that_are_not_there),
        cmocka_unit_test(test_check_refuses_and_names_pcr_and_event),
        cmocka_unit_test(test_a_sha1_log_proves_nothing),
        cmocka_unit_test(test_replay_by_hand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
