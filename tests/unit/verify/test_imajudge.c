/* IMA's list judged by a policy's ima rule: a guest's list (tests/vectors/ima) and entries behind
 * it, with one thing wrong at a time. */
#include "tests/unit/verify/imaguest.h"

/* ---- the guest's own list -------------------------------------------------------------------- */

static void test_good(void **state)
{
    (void)state;
    struct guest g;
    guest_new(&g, 10);
    good(&g, "; IMA: 10 entries, 9 on allow lists, 0 excluded");
    /* A list that went through a kexec has the same aggregate again. */
    att_autobuf first = {0};
    att_buf_put(&first, g.ima.ptr, 4 + 20 + 4 + 8 + 4); /* header of entry 0 */
    size_t len = first.ptr[36] + ((size_t)first.ptr[37] << 8);
    att_buf_put(&first, g.ima.ptr + first.len, len);
    att_buf_put_slice(&g.ima, att_buf_slice(&first));
    settle(&g);
    good(&g, "; IMA: 11 entries, 9 on allow lists");
    guest_done(&g);
}

static void test_other_aggregate(void **state)
{
    (void)state;
    struct guest g;
    guest_new(&g, 10);
    add(&g, "ima-ngv2", "ima:sha256", "boot_aggregate", 1);
    bad(&g, VERIFY_FINDING_IMA_UNLISTED, "pcr10 entry 10: boot_aggregate: sha256:0101");
    guest_done(&g);
}

/* The kernel could not measure: with the rule it is a finding, whatever the name says. */
static void test_violation(void **state)
{
    (void)state;
    struct guest g;
    guest_new(&g, 10);
    att_autobuf whole = {0};
    load("ima.bin", &whole);
    att_buf_put(&g.ima, whole.ptr + g.ima.len, whole.len - g.ima.len);
    settle(&g);
    bad(&g, VERIFY_FINDING_IMA_VIOLATION, "pcr10 entry 10: /mnt/weights_1.bin: a violation");
    json_object_set_new(g.policy, "imaViolations", json_string("allow"));
    good(&g, "11 entries, 9 on allow lists, 0 excluded, 1 violations");
    guest_done(&g);
}

/* ---- entries behind it ----------------------------------------------------------------------- */

static void test_unlisted(void **state)
{
    (void)state;
    struct guest g;
    guest_new(&g, 10);
    add(&g, "ima-ngv2", "ima:sha256", "/usr/bin/evil", 1);
    bad(&g, VERIFY_FINDING_IMA_UNLISTED,
        "pcr10 entry 10: /usr/bin/evil: sha256:"
        "0101010101010101010101010101010101010101010101010101010101010101: no allow list has this "
        "name");
    guest_done(&g);
    /* What the kernel measured of itself is no file, and is judged the same. */
    guest_new(&g, 10);
    uint8_t digest[32] = {7};
    const struct imalist_entry buf = {.tmpl = "ima-buf",
                                      .prefix = "sha256",
                                      .file = ATT_SLICE_ARRAY(digest),
                                      .name = "kexec-cmdline",
                                      .extra = {ATT_SLICE_LIT("init=/bin/sh")},
                                      .n_extra = 1};
    add_entry(&g, &buf);
    bad(&g, VERIFY_FINDING_IMA_UNLISTED, "pcr10 entry 10: kexec-cmdline: sha256:07");
    guest_done(&g);
}

static void test_digest(void **state)
{
    (void)state;
    struct guest g;
    guest_new(&g, 10);
    add(&g, "ima-ngv2", "ima:sha256", "/bin/busybox", 2);
    bad(&g, VERIFY_FINDING_IMA_DIGEST,
        "pcr10 entry 10: /bin/busybox: sha256:"
        "0202020202020202020202020202020202020202020202020202020202020202, allowed is sha256:"
        "3d9f2889d6782537624a4e1a10e68a2ddd53e0ee8bac02676f27308f42ec6bf6");
    guest_done(&g);
    /* The digest of a file is not the one that fs-verity gives it. */
    guest_new(&g, 10);
    struct parse_ima_entry third = {0};
    ATT_CLEANUP(parse_ima_done) struct parse_ima list = {0};
    assert_int_equal(parse_ima_init(&list, att_buf_slice(&g.ima), NULL), ATT_OK);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(parse_ima_next(&list, &third, NULL), ATT_OK);
    }
    uint8_t digest[32];
    memcpy(digest, third.file.ptr, 32);
    const struct imalist_entry verity = {.tmpl = "ima-ngv2",
                                         .prefix = "verity:sha256",
                                         .file = ATT_SLICE_ARRAY(digest),
                                         .name = "/bin/busybox"};
    add_entry(&g, &verity);
    bad(&g, VERIFY_FINDING_IMA_DIGEST, "/bin/busybox: verity:sha256:3d9f");
    guest_done(&g);
}

static void test_weak(void **state)
{
    (void)state;
    struct guest g;
    guest_new(&g, 10);
    add(&g, "ima-ng", "sha1", "/bin/busybox", 1);
    bad(&g, VERIFY_FINDING_IMA_TEMPLATE, "entry 10: /bin/busybox: its digest is of sha1");
    guest_done(&g);
    guest_new(&g, 10);
    add(&g, "ima", NULL, "/bin/busybox", 1);
    bad(&g, VERIFY_FINDING_IMA_TEMPLATE, "entry 10: /bin/busybox: its template is ima, which");
    guest_done(&g);
    guest_new(&g, 10);
    json_object_set_new(rule(&g), "templates", json_pack("[s]", "ima-ngv2"));
    bad(&g, VERIFY_FINDING_IMA_TEMPLATE, "entry 1: kernel_version: its template is ima-buf");
    guest_done(&g);
}

static void test_excludes(void **state)
{
    (void)state;
    struct guest g;
    guest_new(&g, 10);
    json_object_set_new(rule(&g), "excludes",
                        json_pack("[{s:s, s:s}]", "prefix", "/tmp/", "reason", "builds"));
    good(&g, "9 on allow lists, 0 excluded");
    add(&g, "ima-ngv2", "ima:sha256", "/tmp/a.out", 1);
    good(&g, "9 on allow lists, 1 excluded");
    verify_autoverdict *verdict = judge_with(&g, NULL);
    assert_int_equal(verdict->n_findings, 1);
    assert_int_equal(verdict->findings[0].id, VERIFY_FINDING_IMA_EXCLUDED);
    assert_int_equal(verdict->findings[0].severity, VERIFY_SEVERITY_INFO);
    assert_non_null(strstr(verdict->findings[0].detail,
                           "1 entries begin with /tmp/ and are left open: builds"));
    add(&g, "ima-ngv2", "ima:sha256", "/tmp", 1); /* not below it */
    bad(&g, VERIFY_FINDING_IMA_UNLISTED, "entry 11: /tmp: ");
    guest_done(&g);
    /* A name that is on a list is not left open. */
    guest_new(&g, 10);
    json_object_set_new(rule(&g), "excludes",
                        json_pack("[{s:s, s:s}]", "prefix", "/bin/", "reason", "all of it"));
    add(&g, "ima-ngv2", "ima:sha256", "/bin/busybox", 3);
    bad(&g, VERIFY_FINDING_IMA_DIGEST, "/bin/busybox");
    guest_done(&g);
}

/* ---- more than one list ---------------------------------------------------------------------- */

static const char second_text[] = VERIFY_IMALIST_HEADER
    "sha256:0101010101010101010101010101010101010101010101010101010101010101 /usr/bin/new\n";

static json_t *name_second(struct guest *g, const struct verify_imalist *list, const char *member,
                           const char *time)
{
    char hex[65];
    att_hex(hex, ATT_SLICE(verify_imalist_sha256(list), 32));
    json_t *allow = json_pack("{s:s, s:s}", "sha256", hex, "label", "the roll-out");
    if (member) {
        json_object_set_new(allow, member, json_string(time));
    }
    json_array_append_new(json_object_get(rule(g), "allowlists"), allow);
    return allow;
}

static void test_windows(void **state)
{
    (void)state;
    static const struct {
        const char *member, *time, *says; /* NULL: good */
    } cases[] = {
        {NULL, NULL, NULL},
        {"notAfter", "2037-01-01T00:00:00Z", NULL},
        {"notAfter", "2026-01-01T00:00:00Z",
         "its allow list the roll-out was valid until 2026-01-01T00:00:00Z"},
        {"notBefore", "2026-01-01T00:00:00Z", NULL},
        {"notBefore", "2037-01-01T00:00:00Z",
         "its allow list the roll-out is valid from 2037-01-01T00:00:00Z"},
    };
    for (size_t i = 0; i < 5; i++) {
        struct guest g;
        guest_new(&g, 10);
        verify_autoimalist *second = list_of(second_text);
        add(&g, "ima-ngv2", "ima:sha256", "/usr/bin/new", 1);
        name_second(&g, second, cases[i].member, cases[i].time);
        verify_autoverdict *verdict = judge_with(&g, second);
        if (!cases[i].says) {
            assert_accepted(verdict, "second list");
        } else {
            assert_refused(verdict, VERIFY_REASON_BOOT_POLICY, cases[i].says);
            assert_int_equal(verdict->n_refusing, 1);
            assert_int_equal(verdict->findings[0].id, VERIFY_FINDING_IMA_WINDOW);
            assert_non_null(strstr(verdict->findings[0].detail, cases[i].says));
        }
        guest_done(&g);
    }
}

/* A list that is not at hand refuses in every mode. */
/* A name that a list has is not left open because the list's window ended, or has not begun; with a
 * memory of the time before, too. */
static void test_window_excluded(void **state)
{
    (void)state;
    static const struct {
        const char *member, *time;
        char byte;
        enum verify_finding_id id;
        const char *says;
    } cases[] = {
        {"notAfter", "2026-01-01T00:00:00Z", 1, VERIFY_FINDING_IMA_WINDOW, "was valid until"},
        {"notBefore", "2037-01-01T00:00:00Z", 1, VERIFY_FINDING_IMA_WINDOW, "is valid from"},
        {"notAfter", "2026-01-01T00:00:00Z", 2, VERIFY_FINDING_IMA_DIGEST,
         "those with this name are outside of their window"},
        {"notBefore", "2037-01-01T00:00:00Z", 2, VERIFY_FINDING_IMA_DIGEST,
         "those with this name are outside of their window"},
    };
    for (size_t i = 0; i < 8; i++) {
        struct guest g;
        guest_new(&g, 10);
        g.memo = i < 4 ? NULL : verify_memo_new(4);
        verify_autoimalist *second = list_of(second_text);
        add(&g, "ima-ngv2", "ima:sha256", "/usr/bin/new", cases[i % 4].byte);
        json_object_set_new(rule(&g), "excludes",
                            json_pack("[{s:s, s:s}]", "prefix", "/usr/bin/", "reason", "test"));
        name_second(&g, second, cases[i % 4].member, cases[i % 4].time);
        for (size_t again = 0; again < 2; again++) {
            verify_autoverdict *verdict = judge_with(&g, second);
            assert_refused(verdict, VERIFY_REASON_BOOT_POLICY, cases[i % 4].says);
            assert_int_equal(verdict->n_findings, 1);
            assert_int_equal(verdict->findings[0].id, cases[i % 4].id);
            assert_non_null(strstr(verdict->findings[0].detail, cases[i % 4].says));
        }
        guest_done(&g);
    }
}

/* The same list judged while the second list's window was open, and after it ended: what was
 * remembered of before is not believed. */
static void test_window_ends(void **state)
{
    (void)state;
    struct guest g;
    guest_new(&g, 10);
    g.memo = verify_memo_new(4);
    verify_autoimalist *second = list_of(second_text);
    add(&g, "ima-ngv2", "ima:sha256", "/usr/bin/new", 1);
    name_second(&g, second, "notAfter", "2037-01-01T00:00:00Z");
    verify_autoverdict *open = judge_with(&g, second);
    assert_accepted(open, "open");
    g.now = 2114380801; /* 2037-01-01T00:00:01Z */
    verify_autoverdict *ended = judge_with(&g, second);
    assert_refused(ended, VERIFY_REASON_BOOT_POLICY, "ended");
    assert_int_equal(ended->findings[0].id, VERIFY_FINDING_IMA_WINDOW);
    guest_done(&g);
}

static void test_unbound(void **state)
{
    (void)state;
    struct guest g;
    guest_new(&g, 10);
    verify_autoimalist *second = list_of(second_text);
    name_second(&g, second, NULL, NULL);
    g.mode = VERIFY_MODE_OBSERVE;
    verify_autoverdict *verdict = judge_with(&g, NULL);
    assert_int_equal(verify_verdict_result(verdict), VERIFY_REFUSED);
    assert_int_equal(verify_verdict_refusal(verdict)->reason, VERIFY_REASON_POLICY_MISSING);
    assert_non_null(strstr(verify_verdict_refusal(verdict)->detail, "is not here"));
    guest_done(&g);
}

/* ---- modes, severities ----------------------------------------------------------------------- */

static void test_lenient(void **state)
{
    (void)state;
    struct guest g;
    guest_new(&g, 10);
    add(&g, "ima-ngv2", "ima:sha256", "/usr/bin/evil", 1);
    g.mode = VERIFY_MODE_OBSERVE;
    verify_autoverdict *observed = judge_with(&g, NULL);
    assert_accepted(observed, "observe");
    assert_int_equal(observed->n_refusing, 1);
    g.mode = VERIFY_MODE_ENFORCE;
    json_object_set_new(rule(&g), "remedy", json_string("call the owner"));
    verify_autoverdict *told = judge_with(&g, NULL);
    assert_string_equal(told->findings[0].remedy, "call the owner");
    json_object_set_new(g.policy, "severities", json_pack("{s:s}", "imaUnlisted", "warn"));
    verify_autoverdict *warned = judge_with(&g, NULL);
    assert_accepted(warned, "severities");
    assert_int_equal(warned->findings[0].severity, VERIFY_SEVERITY_WARN);
    json_object_del(g.policy, "severities");
    json_object_set_new(rule(&g), "severity", json_string("warn"));
    verify_autoverdict *rules = judge_with(&g, NULL);
    assert_accepted(rules, "severity of the rule");
    guest_done(&g);
}

/* ---- only what is new ------------------------------------------------------------------------ */

static void test_incremental(void **state)
{
    (void)state;
    struct guest g;
    guest_new(&g, 10);
    g.memo = verify_memo_new(4);
    add(&g, "ima-ngv2", "ima:sha256", "/usr/bin/evil", 1);
    bad(&g, VERIFY_FINDING_IMA_UNLISTED, "entry 10: /usr/bin/evil");
    /* What was found stays found, and is told as before. */
    bad(&g, VERIFY_FINDING_IMA_UNLISTED, "entry 10: /usr/bin/evil");
    size_t before = g.ima.len;
    add(&g, "ima-ngv2", "ima:sha256", "/usr/bin/worse", 1);
    g.base = before;
    verify_autoverdict *grown = judge_with(&g, NULL);
    assert_refused(grown, VERIFY_REASON_BOOT_POLICY, "grown");
    assert_int_equal(grown->n_refusing, 2);
    assert_non_null(strstr(grown->findings[0].detail, "entry 10: /usr/bin/evil"));
    assert_non_null(strstr(grown->findings[1].detail, "entry 11: /usr/bin/worse"));
    /* What came behind the signed part is judged as well. */
    g.signed_len = before;
    g.base = 0;
    verify_autoverdict *tail = judge_with(&g, NULL);
    assert_int_equal(tail->n_refusing, 2);
    /* Another policy: all of it again. */
    g.signed_len = SIZE_MAX;
    json_object_set_new(rule(&g), "excludes",
                        json_pack("[{s:s, s:s}]", "prefix", "/usr/bin/", "reason", "test"));
    good(&g, "12 entries, 9 on allow lists, 2 excluded");
    guest_done(&g);
}

/* That it is not judged again is seen where a wrong memory is believed: this one says that the
 * whole list was judged and nothing found. */
static void rule_key(const struct guest *g, uint8_t ret[32])
{
    uint8_t digest[32];
    static const uint8_t valid[4] = {0, 0, 0, 1};
    char *text = json_dumps(g->policy, 0);
    att_sha256(digest, att_slice_str(text));
    free(text);
    const struct att_slice parts[] = {ATT_SLICE_ARRAY(digest), ATT_SLICE_ARRAY(valid)};
    att_sha256_v(ret, parts, 2);
}

static void test_remembers(void **state)
{
    (void)state;
    struct guest g;
    guest_new(&g, 10);
    g.memo = verify_memo_new(4);
    good(&g, "10 entries, 9 on allow lists");
    uint8_t list[32], key[32];
    rule_key(&g, key);
    att_sha256(list, att_buf_slice(&g.ima));
    struct verify_ima_judged judged;
    assert_true(verify_memo_get_judged(g.memo, list, key, &judged));
    assert_int_equal(judged.n_entries, 10);
    assert_int_equal(judged.used, g.ima.len);
    judged.n_listed = 4711;
    verify_memo_put_judged(g.memo, list, key, &judged);
    good(&g, "10 entries, 4711 on allow lists");
    guest_done(&g);
}

/* The same of the base that a longer list builds on: what was judged of it is not judged again, and
 * a memory that claims more than was sent is not believed. */
static void test_remembers_base(void **state)
{
    (void)state;
    struct guest g;
    guest_new(&g, 10);
    g.memo = verify_memo_new(4);
    good(&g, "10 entries, 9 on allow lists");
    uint8_t list[32], key[32];
    struct verify_ima_judged judged;
    size_t before = g.ima.len;
    rule_key(&g, key);
    att_sha256(list, att_buf_slice(&g.ima));
    assert_true(verify_memo_get_judged(g.memo, list, key, &judged));
    judged.n_listed = 4711;
    verify_memo_put_judged(g.memo, list, key, &judged);
    add(&g, "ima-ngv2", "ima:sha256", "/usr/bin/evil", 1);
    size_t one_more = g.ima.len;
    add(&g, "ima-ngv2", "ima:sha256", "/usr/bin/worse", 1);
    g.base = before;
    json_object_set_new(g.policy, "severities", json_pack("{s:s}", "imaUnlisted", "warn"));
    uint8_t other[32];
    rule_key(&g, other);
    verify_memo_put_judged(g.memo, list, other, &judged);
    good(&g, "12 entries, 4711 on allow lists");
    /* All of it is "used", and so is more than there is. */
    g.base = one_more;
    att_sha256(list, ATT_SLICE(g.ima.ptr, one_more));
    judged.used = g.ima.len + 1;
    verify_memo_free(g.memo);
    g.memo = verify_memo_new(4);
    verify_memo_put_judged(g.memo, list, other, &judged);
    good(&g, "12 entries, 9 on allow lists");
    guest_done(&g);
}

/* More findings than a verdict keeps: the number is right, also when it is told again. */
static void test_many(void **state)
{
    (void)state;
    struct guest g;
    guest_new(&g, 10);
    g.memo = verify_memo_new(4);
    for (size_t i = 0; i < 200; i++) {
        char name[64];
        uint8_t digest[32];
        snprintf(name, sizeof(name), "/opt/file-%zu", i);
        struct imalist_entry entry = imalist_file(name, digest);
        imalist_binary(&entry, &g.ima);
    }
    settle(&g);
    for (size_t i = 0; i < 2; i++) {
        verify_autoverdict *verdict = judge_with(&g, NULL);
        assert_refused(verdict, VERIFY_REASON_BOOT_POLICY, "many");
        assert_int_equal(verdict->n_refusing, 200);
        assert_int_equal(verdict->n_findings, VERIFY_FINDINGS_MAX);
        assert_int_equal(verdict->findings_left_out, 200 - VERIFY_FINDINGS_MAX);
    }
    guest_done(&g);
}

/* ---- the rule itself ------------------------------------------------------------------------- */

static void test_rule_refusals(void **state)
{
    (void)state;
#define D64 "\"0101010101010101010101010101010101010101010101010101010101010101\""
#define L   "\"allowlists\": [{\"sha256\": " D64 "}]"
    static const struct {
        const char *ima, *says;
    } cases[] = {
        {"{}", "ima: allowlists: expected a list of 1-16"},
        {"{\"allowlists\": []}", "ima: allowlists: expected a list of 1-16"},
        {"{\"allowlists\": [{\"sha256\": \"01\"}]}", "allowlists[0]: sha256: expected 64 hex"},
        {"{\"allowlists\": [{\"sha256\": " D64 "}, {\"sha256\": " D64 "}]}",
         "allowlists[1]: sha256: there is one before"},
        {"{\"allowlists\": [{\"sha256\": " D64 ", \"path\": \"/x\"}]}",
         "allowlists[0]: unknown member \"path\""},
        {"{\"allowlists\": [{\"sha256\": " D64 ", \"notBefore\": \"2026-02-01T00:00:00Z\", "
         "\"notAfter\": \"2026-01-01T00:00:00Z\"}]}",
         "allowlists[0]: notAfter is not after notBefore"},
        {"{" L ", \"exclude\": []}", "ima: unknown member \"exclude\""},
        {"{" L ", \"excludes\": [{\"prefix\": \"/tmp/\"}]}", "excludes[0]: reason: expected"},
        {"{" L ", \"excludes\": [{\"prefix\": \"/\", \"reason\": \"x\"}]}",
         "excludes[0]: prefix: \"/\" would exclude every file"},
        {"{" L ", \"excludes\": [{\"prefix\": \"/a b/\", \"reason\": \"x\"}]}",
         "excludes[0]: prefix: it has a space"},
        {"{" L ", \"excludes\": [{\"prefix\": \"_\", \"reason\": \"x\"}]}",
         "excludes[0]: prefix: expected the beginning of a path"},
        {"{" L ", \"templates\": [\"ima\"]}", "templates[0]: expected ima-ng"},
        {"{" L ", \"templates\": [\"ima-ng\", \"ima-ng\"]}", "templates[1]: expected ima-ng"},
        {"{" L ", \"certificates\": [\"AAAA\"]}", "certificates[0]: expected one DER certificate"},
        {"{" L ", \"certificates\": [\"?\"]}", "certificates[0]: expected a DER certificate"},
        {"{" L ", \"severity\": \"loud\"}", "ima: severity: expected"},
    };
    struct guest g;
    guest_new(&g, 10);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        json_t *ima = json_loads(cases[i].ima, 0, NULL);
        struct att_err err = {0};
        verify_autopolicy *policy = NULL;
        assert_non_null(ima);
        json_object_set_new(g.policy, "ima", ima);
        char *text = json_dumps(g.policy, 0);
        assert_int_equal(verify_policy_parse(att_slice_str(text), &policy, &err), ATT_E_PARSE);
        free(text);
        if (!strstr(err.msg, cases[i].says)) {
            fail_msg("\"%s\" does not say \"%s\"", err.msg, cases[i].says);
        }
    }
    guest_done(&g);
}

/* What the rule is in contradiction with. */
static void test_rule_beside(void **state)
{
    (void)state;
    static const struct {
        const char *member, *json, *says;
    } cases[] = {
        {"logs", "[\"firmware\"]", "ima: ima is not among the logs"},
        {"unjudged", "[10]", "ima: pcr10 has values or is unjudged"},
        {"pcrs", "{\"10\": [" D64 "]}", "ima: pcr10 has values or is unjudged"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct guest g;
        struct att_err err = {0};
        verify_autopolicy *policy = NULL;
        guest_new(&g, 10);
        json_object_set_new(g.policy, cases[i].member, json_loads(cases[i].json, 0, NULL));
        char *text = json_dumps(g.policy, 0);
        assert_int_equal(verify_policy_parse(att_slice_str(text), &policy, &err), ATT_E_PARSE);
        free(text);
        if (!strstr(err.msg, cases[i].says)) {
            fail_msg("\"%s\" does not say \"%s\"", err.msg, cases[i].says);
        }
        guest_done(&g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),        cmocka_unit_test(test_other_aggregate),
        cmocka_unit_test(test_violation),   cmocka_unit_test(test_unlisted),
        cmocka_unit_test(test_digest),      cmocka_unit_test(test_weak),
        cmocka_unit_test(test_excludes),    cmocka_unit_test(test_windows),
        cmocka_unit_test(test_unbound),     cmocka_unit_test(test_lenient),
        cmocka_unit_test(test_incremental), cmocka_unit_test(test_remembers),
        cmocka_unit_test(test_many),        cmocka_unit_test(test_rule_refusals),
        cmocka_unit_test(test_rule_beside), cmocka_unit_test(test_window_excluded),
        cmocka_unit_test(test_window_ends), cmocka_unit_test(test_remembers_base),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
