/* verify_logs over what is measured after the firmware: a guest's IMA list and TPM
 * (tests/vectors/ima), and records of systemd's log; one thing wrong at a time. */
#include "tests/unit/verify/harness.h"

#include "attestd/base/io.h"
#include "tests/support/imalist.h"
#include "tpm/parse/ima.h"

#include <stdlib.h>

#define WANTED (VERIFY_LOG_FIRMWARE | VERIFY_LOG_IMA)
#define MASK   0x47ffU /* 0-10, 14 */

struct guest {
    struct att_buf firmware, ima, systemd, tail;
    size_t ends[64], n; /* of IMA's entries */
    size_t signed_len;  /* of ima, the rest is its tail; SIZE_MAX: all of it */
    size_t systemd_signed;
    struct parse_pcr_set quoted;
    uint32_t wanted;
    bool allow;
    struct verify_memo *memo;
    size_t base; /* bytes of ima that it says it begins with; 0: none */
};

static void load(const char *folder, const char *name, struct att_buf *ret)
{
    char path[4300];
    const char *root = getenv("ATT_VECTORS");
    (void)snprintf(path, sizeof(path), "%s/%s/%s", root ? root : "tests/vectors", folder, name);
    assert_int_equal(att_io_read_file(path, (size_t)4 << 20, ret, NULL), ATT_OK);
}

static void find_entries(struct guest *g)
{
    ATT_CLEANUP(parse_ima_done) struct parse_ima list = {0};
    struct parse_ima_entry entry;
    assert_int_equal(parse_ima_init(&list, att_buf_slice(&g->ima), NULL), ATT_OK);
    g->n = 0;
    while (parse_ima_next(&list, &entry, NULL) == ATT_OK) {
        assert_true(g->n < 64);
        g->ends[g->n++] = list.pos;
    }
    assert_true(g->n >= 5);
}

static void guest_new(struct guest *g, const char *list)
{
    att_autobuf text = {0};
    memset(g, 0, sizeof(*g));
    load("ima", "eventlog.bin", &g->firmware);
    load("ima", list, &g->ima);
    load("ima", "pcrs.json", &text);
    assert_int_equal(parse_pcr_set_parse(att_buf_slice(&text), NULL, &g->quoted, NULL), ATT_OK);
    g->quoted.sel.mask = MASK;
    g->wanted = WANTED;
    g->allow = true;
    g->signed_len = g->systemd_signed = SIZE_MAX;
    find_entries(g);
}

static void guest_done(struct guest *g)
{
    att_buf_done(&g->firmware);
    att_buf_done(&g->ima);
    att_buf_done(&g->systemd);
    att_buf_done(&g->tail);
}

static void add(struct evidence_logs *logs, const char *name, const struct att_buf *bytes,
                size_t signed_len)
{
    size_t n = signed_len < bytes->len ? signed_len : bytes->len;
    assert_int_equal(evidence_logs_add(logs, name, ATT_SLICE(bytes->ptr, n), NULL), ATT_OK);
    if (n < bytes->len) {
        struct att_slice tail = ATT_SLICE(bytes->ptr + n, bytes->len - n);
        assert_int_equal(evidence_logs_set_tail(logs, name, tail, NULL), ATT_OK);
    }
}

static struct verify_replayed replayed; /* by the last judge */

static struct verify_verdict *judge(const struct guest *g)
{
    struct evidence_logs logs = {0};
    struct verify_verdict *verdict = verify_verdict_new();
    add(&logs, "firmware", &g->firmware, SIZE_MAX);
    if (g->ima.len) {
        add(&logs, "ima", &g->ima, g->signed_len);
    }
    if (g->base) {
        uint8_t digest[ATT_SHA256_LEN];
        att_sha256(digest, ATT_SLICE(g->ima.ptr, g->base));
        assert_int_equal(evidence_logs_set_base(&logs, "ima", g->base, digest, NULL), ATT_OK);
    }
    if (g->systemd.len) {
        add(&logs, "systemd", &g->systemd, g->systemd_signed);
    }
    struct verify_logs_wanted wanted = {.logs = g->wanted,
                                        .violations_allowed = g->allow,
                                        .memo = g->memo,
                                        .ret_replayed = &replayed};
    replayed = (struct verify_replayed){0};
    verify_logs(&wanted, &g->quoted, &logs, verdict);
    evidence_logs_done(&logs);
    return verdict;
}

static void good(const struct guest *g, const char *name)
{
    verify_autoverdict *verdict = judge(g);
    assert_accepted(verdict, name);
}

static void bad(const struct guest *g, enum verify_reason reason, const char *says)
{
    verify_autoverdict *verdict = judge(g);
    assert_refused(verdict, reason, says);
    if (!strstr(verify_verdict_refusal(verdict)->detail, says)) {
        fail_msg("\"%s\" does not say \"%s\"", verify_verdict_refusal(verdict)->detail, says);
    }
}

static void replace(struct att_buf *buf, struct att_buf *with)
{
    att_buf_done(buf);
    *buf = *with;
    *with = (struct att_buf){0};
}

static struct att_slice entry(const struct guest *g, size_t i)
{
    size_t begin = i ? g->ends[i - 1] : 0;
    return ATT_SLICE(g->ima.ptr + begin, g->ends[i] - begin);
}

/* The list with its entries in another order: -1 ends it. */
static void reorder(struct guest *g, const int *order)
{
    struct att_buf list = {0};
    for (; *order >= 0; order++) {
        att_buf_put_slice(&list, entry(g, (size_t)*order));
    }
    replace(&g->ima, &list);
}

/* ---- IMA: refusals --------------------------------------------------------------------------- */

static void test_violation(void **state)
{
    (void)state;
    struct guest g;
    guest_new(&g, "ima.bin");
    g.allow = false;
    bad(&g, VERIFY_REASON_LOG_REPLAY, "is a violation (1 in all)");
    g.allow = true;
    good(&g, "a violation that the policy allows");
    /* One that the kernel did not write is none that PCR 10 has. */
    memset(g.ima.ptr + g.ends[1] + 4, 0, 20);
    bad(&g, VERIFY_REASON_LOG_REPLAY, "of the ima log: after this, the last, the logs replay to");
    guest_done(&g);
}

static void test_bytes(void **state)
{
    (void)state;
    struct guest g;
    guest_new(&g, "ima.bin");
    const size_t places[] = {g.ends[1] + 4, g.ends[2] - 3};
    for (size_t i = 0; i < 2; i++) { /* in the digest, in the payload */
        g.ima.ptr[places[i]] ^= 1;
        bad(&g, VERIFY_REASON_LOG_REPLAY,
            "ima log: pcr10 entry 2: template hash does not match its data");
        g.ima.ptr[places[i]] ^= 1;
    }
    g.ima.len -= 1;
    bad(&g, VERIFY_REASON_LOG_REPLAY, "it is longer than what is left of the list");
    g.ima.len += 1;
    memset(g.ima.ptr + g.ends[1] + 24, 0xff, 4);
    bad(&g, VERIFY_REASON_LOG_REPLAY, "ima log: pcr10 entry 2: the list ends inside its header");
    guest_done(&g);
}

static void test_unknown(void **state)
{
    (void)state;
    struct guest g;
    guest_new(&g, "ima.bin");
    struct att_slice third = entry(&g, 2);
    uint8_t *at = g.ima.ptr + (third.ptr - g.ima.ptr);
    at[28] = 'x'; /* of the template's name */
    bad(&g, VERIFY_REASON_LOG_REPLAY, "ima log: pcr10 entry 2: its template is none that is known");
    at[28] = 'i';
    uint8_t *alg = memmem(at, third.len, "sha256", 6);
    assert_non_null(alg);
    alg[5] = '7';
    bad(&g, VERIFY_REASON_LOG_REPLAY,
        "ima log: pcr10 entry 2: its digest is of a hash that is not known");
    guest_done(&g);
}

static void test_moved(void **state)
{
    (void)state;
    static const int orders[][8] = {
        {0, 1, 3, 2, 4, -1}, {0, 1, 3, 4, -1}, {0, 1, 2, 2, 3, 4, -1}, {0, 1, -1}};
    for (size_t i = 0; i < 4; i++) {
        struct guest g;
        guest_new(&g, "ima.bin");
        int order[80];
        size_t n = 0;
        while (orders[i][n] >= 0) {
            order[n] = orders[i][n];
            n++;
        }
        for (size_t k = 5; i < 3 && k < g.n; k++) {
            order[n++] = (int)k;
        }
        order[n] = -1;
        reorder(&g, order);
        bad(&g, VERIFY_REASON_LOG_REPLAY, "of the ima log: after this, the last, the logs replay");
        guest_done(&g);
    }
}

static void test_first_line(void **state)
{
    (void)state;
    struct guest g;
    guest_new(&g, "ima.bin");
    reorder(&g, (int[]){1, 2, 3, 4, -1});
    bad(&g, VERIFY_REASON_LOG_REPLAY, "expected boot_aggregate");
    guest_done(&g);
    /* A list of another boot: everything else holds together. */
    guest_new(&g, "ima.bin");
    att_autobuf other = {0}, text = {0};
    struct parse_pcr_set pcrs;
    load("boot", "eventlog.bin", &other);
    load("boot", "pcrs.json", &text);
    assert_int_equal(parse_pcr_set_parse(att_buf_slice(&text), NULL, &pcrs, NULL), ATT_OK);
    memcpy(pcrs.value[10], g.quoted.value[10], PARSE_DIGEST_MAX);
    pcrs.sel.mask = MASK;
    g.quoted = pcrs;
    replace(&g.firmware, &other);
    bad(&g, VERIFY_REASON_LOG_REPLAY,
        "ima log: pcr10 entry 0: boot_aggregate is not of the PCRs 0-9 (sha256)");
    guest_done(&g);
}

/* Lists of our own: an aggregate of what the guest's firmware measured, then what the case wants.
 */
static void own_list(struct guest *g, const char *prefix, unsigned n_pcrs, struct att_buf *ret)
{
    uint8_t digest[ATT_HASH_MAX];
    size_t len = 0;
    struct att_slice parts[10];
    for (unsigned i = 0; i < n_pcrs; i++) {
        parts[i] = ATT_SLICE(g->quoted.value[i], 32);
    }
    const char *name = strcmp(prefix, "ima:sha1") == 0 ? "SHA1" : "SHA256";
    assert_int_equal(att_hash_v(name, digest, &len, parts, n_pcrs, NULL), ATT_OK);
    struct imalist_entry first = {.tmpl = "ima-ngv2",
                                  .prefix = prefix,
                                  .file = ATT_SLICE(digest, len),
                                  .name = "boot_aggregate"};
    memset(g->quoted.value[10], 0, 32);
    imalist_binary(&first, ret);
    imalist_extend(&first, g->quoted.value[10]);
}

static void test_aggregates(void **state)
{
    (void)state;
    static const struct {
        const char *prefix;
        unsigned n;
        const char *says; /* NULL: good */
    } cases[] = {
        {"ima:sha256", 10, NULL},
        {"ima:sha256", 8, NULL}, /* before Linux 5.9 */
        {"ima:sha256", 9, "boot_aggregate is not of the PCRs 0-9"},
        {"ima:sha1", 8, "boot_aggregate is of bank sha1: event log: it has no sha1 bank"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct guest g;
        struct att_buf list = {0};
        guest_new(&g, "ima.bin");
        own_list(&g, cases[i].prefix, cases[i].n, &list);
        replace(&g.ima, &list);
        if (cases[i].says) {
            bad(&g, VERIFY_REASON_LOG_REPLAY, cases[i].says);
        } else {
            good(&g, cases[i].prefix);
        }
        guest_done(&g);
    }
}

static void test_other_pcr(void **state)
{
    (void)state;
    struct guest g;
    struct att_buf list = {0};
    uint8_t digest[32];
    guest_new(&g, "ima.bin");
    own_list(&g, "ima:sha256", 10, &list);
    struct imalist_entry a = imalist_file("/usr/bin/a", digest);
    size_t at = list.len;
    imalist_binary(&a, &list);
    list.ptr[at] = 9;
    replace(&g.ima, &list);
    bad(&g, VERIFY_REASON_LOG_REPLAY, "ima log: pcr9 entry 1: expected entries of pcr10 only");
    guest_done(&g);
}

/* Whoever may extend PCR 10 writes a boot_aggregate of his own there when he has done what nobody
 * shall see, shows it as the list's first entry, and puts what is before it into the firmware log,
 * where the digests of these types are of nothing that is in the log. */
static void test_hidden_before_the_list(void **state)
{
    (void)state;
    static const uint8_t head[] = {10, 0, 0, 0, 13, 0, 0, 0, 1, 0, 0, 0, 0x0b, 0}; /* EV_IPL */
    static const uint8_t none[4] = {0};
    struct guest g;
    struct att_buf list = {0};
    uint8_t hidden[32];
    uint8_t start[PARSE_PCR_COUNT][PARSE_DIGEST_MAX] = {{0}};
    struct parse_ima_pcrs pcrs;
    guest_new(&g, "ima.bin");
    own_list(&g, "ima:sha256", 10, &list);
    replace(&g.ima, &list);
    good(&g, "nothing hidden");
    att_sha256(hidden, ATT_SLICE_LIT("/usr/bin/what-nobody-shall-see"));
    att_buf_put(&g.firmware, head, sizeof(head));
    att_buf_put(&g.firmware, hidden, sizeof(hidden));
    att_buf_put(&g.firmware, none, sizeof(none));
    struct att_slice parts[] = {ATT_SLICE(start[10], 32), ATT_SLICE_ARRAY(hidden)};
    att_sha256_v(start[10], parts, 2);
    struct parse_ima_replay how = {.bank = PARSE_ALG_SHA256,
                                   .start = (const uint8_t(*)[PARSE_DIGEST_MAX])start,
                                   .at_least = SIZE_MAX};
    assert_int_equal(parse_ima_replay(att_buf_slice(&g.ima), &how, &pcrs, NULL), ATT_OK);
    memcpy(g.quoted.value[10], pcrs.value[10], 32);
    bad(&g, VERIFY_REASON_LOG_REPLAY, "of the firmware log: only IMA measures into it");
    guest_done(&g);
}

static void test_wanted(void **state)
{
    (void)state;
    struct guest g;
    guest_new(&g, "ima.bin");
    g.wanted = VERIFY_LOG_IMA;
    bad(&g, VERIFY_REASON_LOG_REPLAY, "which was not asked for");
    g.wanted = WANTED;
    g.quoted.sel.mask &= ~(1U << 10);
    bad(&g, VERIFY_REASON_LOG_REPLAY, "does not cover pcr10");
    g.quoted.sel.mask = MASK;
    g.wanted |= VERIFY_LOG_SYSTEMD;
    bad(&g, VERIFY_REASON_LOG_MISSING, "the systemd log was asked for and is not there");
    g.wanted = WANTED;
    att_buf_reset(&g.ima);
    bad(&g, VERIFY_REASON_LOG_MISSING, "the ima log was asked for and is not there");
    /* Without the list nothing accounts for PCR 10. */
    g.wanted = VERIFY_LOG_FIRMWARE;
    bad(&g, VERIFY_REASON_LOG_REPLAY, "pcr10: no log has an event of it");
    guest_done(&g);
}

/* ---- IMA: the tail --------------------------------------------------------------------------- */

static void test_tail(void **state)
{
    (void)state;
    struct guest g;
    guest_new(&g, "ima.bin");
    for (size_t i = 0; i < g.n; i++) {
        g.signed_len = g.ends[i];
        good(&g, "each entry may have come after the first reading");
        assert_int_equal(replayed.ima_used, g.ends[g.n - 1]); /* wherever the tail begins */
    }
    g.signed_len = g.ends[1] + 5;
    bad(&g, VERIFY_REASON_LOG_REPLAY, "the signed part of the list ends inside it");
    /* What came after the quote is not looked at, not even whether it is an entry. */
    g.signed_len = g.ends[2];
    att_buf_put_str(&g.ima, "what came after the quote");
    good(&g, "more than was quoted");
    assert_int_equal(replayed.ima_used, g.ends[g.n - 1]);
    g.ima.len = g.ends[g.n - 1];
    g.signed_len = SIZE_MAX;
    att_buf_put_str(&g.ima, "x");
    bad(&g, VERIFY_REASON_LOG_REPLAY, "the list ends inside its header");
    /* A tail that does not lead to the quoted value. */
    g.ima.len = g.ends[g.n - 2];
    g.signed_len = g.ends[1];
    bad(&g, VERIFY_REASON_LOG_REPLAY, "of the ima log: after this, the last");
    guest_done(&g);
    /* A quote from before the signed part was whole: IMA lists first and extends then. */
    guest_new(&g, "ima.bin");
    struct att_buf list = {0};
    uint8_t digest[32];
    own_list(&g, "ima:sha256", 10, &list);
    struct imalist_entry a = imalist_file("/usr/bin/a", digest);
    imalist_binary(&a, &list);
    replace(&g.ima, &list);
    bad(&g, VERIFY_REASON_LOG_REPLAY, "pcr10 entry 1 of the ima log: after this, the last");
    guest_done(&g);
}

static void test_healthy(void **state)
{
    (void)state;
    static const char *const lists[] = {"ima.bin", "ima.ascii"};
    for (size_t i = 0; i < 2; i++) {
        struct guest g;
        guest_new(&g, lists[i]);
        good(&g, lists[i]);
        verify_autoverdict *verdict = judge(&g);
        const struct verify_check *check = find_check(verdict, VERIFY_REASON_LOG_REPLAY);
        assert_non_null(strstr(check->detail, "(1 of them violations, allowed)"));
        guest_done(&g);
    }
}

/* What was replayed before is used again, and only for what begins with the same bytes. */
static void test_memo(void **state)
{
    (void)state;
    struct guest g;
    struct parse_ima_pcrs pcrs;
    uint8_t digest[ATT_SHA256_LEN], zero[PARSE_DIGEST_MAX] = {0}, one[PARSE_DIGEST_MAX] = {1};
    guest_new(&g, "ima.bin");
    g.memo = verify_memo_new(2);
    good(&g, "first");
    att_sha256(digest, att_buf_slice(&g.ima));
    assert_true(verify_memo_get(g.memo, digest, PARSE_ALG_SHA256, zero, &pcrs));
    assert_memory_equal(pcrs.value[10], g.quoted.value[10], 32);
    assert_false(verify_memo_get(g.memo, digest, PARSE_ALG_SHA256, one, &pcrs));
    assert_false(verify_memo_get(g.memo, digest, PARSE_ALG_SHA384, zero, &pcrs));
    good(&g, "the same again");
    /* A violation that was counted before still counts. */
    g.allow = false;
    bad(&g, VERIFY_REASON_LOG_REPLAY, "is a violation (1 in all)");
    g.allow = true;
    /* It goes on from there: a change behind it is seen, and so is one before it. */
    g.base = g.ima.len;
    uint8_t file[32];
    struct imalist_entry a = imalist_file("/usr/bin/later", file);
    imalist_binary(&a, &g.ima);
    bad(&g, VERIFY_REASON_LOG_REPLAY, "of the ima log: after this, the last");
    imalist_extend(&a, g.quoted.value[10]);
    good(&g, "goes on from its base");
    g.ima.ptr[g.ima.len - 3] ^= 1;
    bad(&g, VERIFY_REASON_LOG_REPLAY, "template hash does not match its data");
    g.ima.ptr[g.ima.len - 3] ^= 1;
    g.ima.ptr[g.ends[2] - 3] ^= 1;
    bad(&g, VERIFY_REASON_LOG_REPLAY, "pcr10 entry 2: template hash does not match its data");
    g.ima.ptr[g.ends[2] - 3] ^= 1;
    /* What the memo holds is really used: a wrong value there shows. */
    pcrs.value[10][0] ^= 1;
    assert_true(verify_memo_get(g.memo, digest, PARSE_ALG_SHA256, zero, &pcrs));
    pcrs.value[10][0] ^= 1;
    att_sha256(digest, att_buf_slice(&g.ima));
    pcrs.used = g.ima.len;
    verify_memo_put(g.memo, digest, zero, &pcrs);
    bad(&g, VERIFY_REASON_LOG_REPLAY, "of the ima log: after this, the last");
    verify_memo_free(g.memo);
    guest_done(&g);
    /* The place that was used longest ago is taken. */
    struct verify_memo *memo = verify_memo_new(2);
    uint8_t keys[3][ATT_SHA256_LEN] = {{1}, {2}, {3}};
    pcrs.bank = PARSE_ALG_SHA256;
    verify_memo_put(memo, keys[0], zero, &pcrs);
    verify_memo_put(memo, keys[1], zero, &pcrs);
    assert_true(verify_memo_get(memo, keys[0], PARSE_ALG_SHA256, zero, &pcrs));
    verify_memo_put(memo, keys[2], zero, &pcrs);
    assert_true(verify_memo_get(memo, keys[0], PARSE_ALG_SHA256, zero, &pcrs));
    assert_false(verify_memo_get(memo, keys[1], PARSE_ALG_SHA256, zero, &pcrs));
    verify_memo_free(memo);
}

/* ---- systemd --------------------------------------------------------------------------------- */

static void with_systemd(struct guest *g)
{
    guest_new(g, "ima.bin");
    g->wanted |= VERIFY_LOG_SYSTEMD;
    g->quoted.sel.mask |= 1U << 11 | 1U << 15;
    systemdlog_record(&g->systemd, 11, "phase", "enter-initrd", NULL);
    systemdlog_record(&g->systemd, 15, "machine-id", "machine-id:1234", NULL);
    systemdlog_record(&g->systemd, 11, "phase", "leave-initrd", NULL);
    systemdlog_extend("enter-initrd", g->quoted.value[11]);
    systemdlog_extend("leave-initrd", g->quoted.value[11]);
    systemdlog_extend("machine-id:1234", g->quoted.value[15]);
}

static void test_systemd(void **state)
{
    (void)state;
    struct guest g;
    with_systemd(&g);
    good(&g, "all three logs");
    size_t len = g.systemd.len;
    uint8_t *second = memrchr(g.systemd.ptr, 0x1e, len);
    size_t third = (size_t)(second - g.systemd.ptr);
    g.systemd_signed = third;
    good(&g, "a record that came after the first reading");
    systemdlog_record(&g.systemd, 11, "phase", "sysinit", NULL);
    good(&g, "one that came after the quote");
    g.systemd_signed = SIZE_MAX;
    bad(&g, VERIFY_REASON_LOG_REPLAY, "pcr11 record 3 of the systemd log: after this, the last");
    g.systemd.len = len;
    g.systemd_signed = third + 4;
    bad(&g, VERIFY_REASON_LOG_REPLAY, "record 2: the signed part of the log ends inside it");
    g.systemd_signed = SIZE_MAX;
    g.systemd.len = len - 1;
    bad(&g, VERIFY_REASON_LOG_REPLAY, "systemd log: record 2: it is cut off");
    g.systemd.len = third;
    bad(&g, VERIFY_REASON_LOG_REPLAY, "pcr11 record 0 of the systemd log: after this, the last");
    g.systemd.len = len;
    uint8_t *text = memmem(g.systemd.ptr, len, "enter-initrd", 12);
    text[0] = 'x';
    bad(&g, VERIFY_REASON_LOG_REPLAY,
        "systemd log: pcr11 record 0: payload does not match its digest");
    text[0] = 'e';
    good(&g, "as it was");
    g.quoted.sel.mask &= ~(1U << 9 | 1U << 11 | 1U << 15);
    bad(&g, VERIFY_REASON_LOG_REPLAY, "the quote covers none of PCR 9, 11, 12, 13 and 15");
    guest_done(&g);
}

/* PCR 9: the loader's firmware events first, then user space. */
static void test_shared_pcr(void **state)
{
    (void)state;
    struct guest g;
    with_systemd(&g);
    systemdlog_record(&g.systemd, 9, "keyslot", "key", NULL);
    systemdlog_extend("key", g.quoted.value[9]);
    good(&g, "PCR 9 of firmware and systemd; boot_aggregate is of the firmware's");
    guest_done(&g);
    with_systemd(&g);
    systemdlog_record(&g.systemd, 7, "phase", "x", NULL);
    systemdlog_extend("x", g.quoted.value[7]);
    bad(&g, VERIFY_REASON_LOG_REPLAY, "pcr7 record 3: systemd measures nothing into this PCR");
    guest_done(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_violation),  cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_unknown),    cmocka_unit_test(test_moved),
        cmocka_unit_test(test_first_line), cmocka_unit_test(test_aggregates),
        cmocka_unit_test(test_other_pcr),  cmocka_unit_test(test_hidden_before_the_list),
        cmocka_unit_test(test_wanted),     cmocka_unit_test(test_tail),
        cmocka_unit_test(test_healthy),    cmocka_unit_test(test_memo),
        cmocka_unit_test(test_systemd),    cmocka_unit_test(test_shared_pcr),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
