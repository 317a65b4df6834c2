/* Policies of components over real boots: each rule fails alone, and the finding names the very
 * event. The boots are those of tests/vectors and, where they are, of the shared vectors. */
#include "tests/unit/verify/boots.h"

#define DAY 86400

static json_t *variant(const char *member, const char *value)
{
    return json_pack("{s:s}", member, value);
}

static json_t *digest_variant(const uint8_t digest[ATT_SHA256_LEN])
{
    char hex[2 * ATT_SHA256_LEN + 1];
    att_hex(hex, ATT_SLICE(digest, ATT_SHA256_LEN));
    return variant("digest", hex);
}

static void set_window(json_t *of, const char *member, int64_t late_s)
{
    char text[ATT_TIME_TEXT_LEN];
    att_time_text(text, FORGE_NOW + late_s);
    json_object_set_new(of, member, json_string(text));
}

static void other_digest(struct boot *boot, size_t at)
{
    att_sha256(boot->events[at].digest, ATT_SLICE_LIT("something else"));
}

/* ---- the host's own boot --------------------------------------------------------------------- */

static void test_good(void **state)
{
    (void)state;
    struct boot boot = boot_ovmf();
    boot_finish(&boot, BOOT_PCRS);
    att_autojson *policy = boot_draft(&boot, "ovmf");
    assert_good(judge_at(policy, &boot, 0), "the boot it was drafted from");
    static const char *const ids[] = {"firmware.version", "secureboot.state", "secureboot.pk",
                                      "secureboot.db",    "kernel",           "boot.order",
                                      "cmdline",          "initrd",           "pcr7.separator"};
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        (void)component_of(policy, ids[i]);
    }
    boot_done(&boot);
}

static const char *const recorded[] = {
    "event-arch-linux.bin",     "event-bootorder.bin", "event-gce-ubuntu-2104-log.bin",
    "event-moklisttrusted.bin", "event-postcode.bin",  "event-sd-boot-fedora37.bin",
    "crypto_agile_eventlog",
};

/* Each event of each real log in turn gets another digest, is dropped, is doubled: never accepted,
 * and where it is by digest the finding names this event. */
static void test_real_logs(void **state)
{
    (void)state;
    size_t n = 0;
    for (size_t i = 0; i < sizeof(recorded) / sizeof(recorded[0]); i++) {
        struct boot boot;
        if (!boot_shared(recorded[i], &boot)) {
            continue;
        }
        n++;
        boot_finish(&boot, 0xffffU);
        att_autojson *policy = boot_draft(&boot, "real");
        assert_good(judge_at(policy, &boot, 0), recorded[i]);
        for (size_t at = 0; at < boot.n; at++) {
            struct boot_event saved = boot.events[at];
            bool hashed = saved.type == PARSE_EV_EFI_BOOT_SERVICES_APPLICATION ||
                          saved.type == PARSE_EV_EVENT_TAG ||
                          saved.type == PARSE_EV_EFI_PLATFORM_FIRMWARE_BLOB;
            if (saved.type == PARSE_EV_NO_ACTION || !hashed) {
                continue;
            }
            char says[64];
            (void)snprintf(says, sizeof(says), "pcr%u event %zu (", saved.pcr, at + 1);
            other_digest(&boot, at);
            boot_finish(&boot, 0xffffU);
            verify_autoverdict *verdict = judge_at(policy, &boot, 0);
            assert_refused(verdict, VERIFY_REASON_BOOT_POLICY, recorded[i]);
            assert_int_equal(verdict->n_findings, 1);
            assert_non_null(strstr(verdict->findings[0].detail, says));
            boot.events[at] = saved;
        }
        boot_done(&boot);
    }
    if (n == 0) {
        print_message("[  SKIP  ] no real logs here (ATTESTD_VECTORS)\n");
        skip();
    }
}

/* ---- one thing wrong ------------------------------------------------------------------------- */

static void test_changed_components(void **state)
{
    (void)state;
    static const struct {
        uint32_t pcr, type;
        unsigned n;
        const char *component, *says;
    } rows[] = {
        {4, PARSE_EV_EFI_BOOT_SERVICES_APPLICATION, 0, "kernel", "pcr4 event 10 (kernel): found "},
        {9, PARSE_EV_EVENT_TAG, 0, "cmdline", "pcr9 event 21 (cmdline): found "},
        {9, PARSE_EV_EVENT_TAG, 1, "initrd", "pcr9 event 22 (initrd): found "},
        {0, PARSE_EV_EFI_PLATFORM_FIRMWARE_BLOB, 1, "firmware.code-2",
         "pcr0 event 3 (firmware.code-2): found "},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct boot boot = boot_ovmf();
        boot_finish(&boot, BOOT_PCRS);
        att_autojson *policy = boot_draft(&boot, "ovmf");
        size_t at = boot_find(&boot, rows[i].pcr, rows[i].type, rows[i].n);
        uint8_t good[ATT_SHA256_LEN];
        memcpy(good, boot.events[at].digest, sizeof(good));
        other_digest(&boot, at);
        boot_finish(&boot, BOOT_PCRS);
        assert_finding(judge_at(policy, &boot, 0), VERIFY_FINDING_VARIANT_UNKNOWN,
                       rows[i].component, rows[i].says);
        /* And with it among the variants it is a good boot: nothing else was wrong. */
        json_array_append_new(variants_of(policy, rows[i].component),
                              digest_variant(boot.events[at].digest));
        assert_good(judge_at(policy, &boot, 0), rows[i].component);
        memcpy(boot.events[at].digest, good, sizeof(good));
        boot_finish(&boot, BOOT_PCRS);
        assert_good(judge_at(policy, &boot, 0), rows[i].component);
        boot_done(&boot);
    }
}

/* Secure Boot switched on and off: the policy of the one refuses the other. */
static void test_secure_boot(void **state)
{
    (void)state;
    struct boot boot = boot_ovmf();
    boot_finish(&boot, BOOT_PCRS);
    att_autojson *off = boot_draft(&boot, "off");
    struct boot_event *event =
        &boot.events[boot_find(&boot, 7, PARSE_EV_EFI_VARIABLE_DRIVER_CONFIG, 0)];
    uint8_t data[64];
    assert_true(event->data.len <= sizeof(data));
    memcpy(data, event->data.ptr, event->data.len);
    assert_int_equal(data[event->data.len - 1], 0);
    data[event->data.len - 1] = 1;
    event->data.ptr = data;
    att_sha256(event->digest, event->data);
    boot_finish(&boot, BOOT_PCRS);
    att_autojson *on = boot_draft(&boot, "on");
    assert_finding(judge_at(off, &boot, 0), VERIFY_FINDING_VARIANT_UNKNOWN, "secureboot.state",
                   "pcr7 event 4 (secureboot.state)");
    data[event->data.len - 1] = 0;
    att_sha256(event->digest, event->data);
    boot_finish(&boot, BOOT_PCRS);
    assert_finding(judge_at(on, &boot, 0), VERIFY_FINDING_VARIANT_UNKNOWN, "secureboot.state",
                   "pcr7 event 4 (secureboot.state)");
    boot_done(&boot);
}

static void test_missing(void **state)
{
    (void)state;
    struct boot boot = boot_ovmf();
    boot_finish(&boot, BOOT_PCRS);
    att_autojson *policy = boot_draft(&boot, "ovmf");
    boot_remove(&boot, boot_find(&boot, 9, PARSE_EV_EVENT_TAG, 1));
    boot_finish(&boot, BOOT_PCRS);
    assert_finding(judge_at(policy, &boot, 0), VERIFY_FINDING_COMPONENT_MISSING, "initrd",
                   "pcr9 component initrd: missing from the firmware log");
    json_object_set_new(component_of(policy, "initrd"), "count", json_string("optional"));
    assert_good(judge_at(policy, &boot, 0), "an initrd that may be absent");
    boot_done(&boot);
}

static void test_duplicated(void **state)
{
    (void)state;
    struct boot boot = boot_ovmf();
    boot_finish(&boot, BOOT_PCRS);
    att_autojson *policy = boot_draft(&boot, "ovmf");
    size_t at = boot_find(&boot, 9, PARSE_EV_EVENT_TAG, 1);
    boot_insert(&boot, at + 1, boot.events[at]);
    boot_finish(&boot, BOOT_PCRS);
    assert_finding(judge_at(policy, &boot, 0), VERIFY_FINDING_COMPONENT_DUPLICATED, "initrd",
                   "pcr9 event 23 (initrd): measured once more");
    json_object_set_new(component_of(policy, "initrd"), "count", json_string("some"));
    assert_good(judge_at(policy, &boot, 0), "an initrd that may come more than once");
    boot_done(&boot);
}

static void test_reordered(void **state)
{
    (void)state;
    struct boot boot = boot_ovmf();
    boot_finish(&boot, BOOT_PCRS);
    att_autojson *policy = boot_draft(&boot, "ovmf");
    size_t at = boot_find(&boot, 9, PARSE_EV_EVENT_TAG, 0);
    struct boot_event first = boot.events[at];
    boot.events[at] = boot.events[at + 1];
    boot.events[at + 1] = first;
    boot_finish(&boot, BOOT_PCRS);
    assert_finding(judge_at(policy, &boot, 0), VERIFY_FINDING_COMPONENT_ORDER, "cmdline",
                   "pcr9 event 22 (cmdline): measured after components");
    boot_done(&boot);
}

static void test_left_over(void **state)
{
    (void)state;
    struct boot boot = boot_ovmf();
    boot_finish(&boot, BOOT_PCRS);
    att_autojson *policy = boot_draft(&boot, "ovmf");
    struct boot_event more = {.pcr = 8, .type = PARSE_EV_IPL, .data = ATT_SLICE_LIT("grub_cmd: x")};
    att_sha256(more.digest, ATT_SLICE_LIT("x"));
    boot_insert(&boot, boot.n, more);
    boot_finish(&boot, BOOT_PCRS);
    assert_finding(judge_at(policy, &boot, 0), VERIFY_FINDING_EVENT_UNEXPECTED, "",
                   "pcr8 event 25 (EV_IPL grub_cmd): \"x\"");
    att_autojson *left_open = json_deep_copy(policy);
    json_array_append_new(json_object_get(left_open, "unjudged"), json_integer(8));
    assert_good(judge_at(left_open, &boot, 0), "pcr8 is left open");
    json_object_set_new(policy, "severities", json_pack("{s:s}", "eventUnexpected", "warn"));
    verify_autoverdict *verdict = judge_at(policy, &boot, 0);
    assert_accepted(verdict, "warned of only");
    assert_int_equal(verdict->n_findings, 1);
    assert_int_equal(verdict->findings[0].severity, VERIFY_SEVERITY_WARN);
    assert_non_null(strstr(find_check(verdict, VERIFY_REASON_BOOT_POLICY)->detail,
                           "1 findings that do not refuse"));
    boot_done(&boot);
}

static void test_not_quoted(void **state)
{
    (void)state;
    struct boot boot = boot_ovmf();
    boot_finish(&boot, BOOT_PCRS);
    att_autojson *policy = boot_draft(&boot, "ovmf");
    boot_finish(&boot, BOOT_PCRS & ~(1U << 9));
    assert_finding(judge_at(policy, &boot, 0), VERIFY_FINDING_PCR_UNCOVERED, "",
                   "the quote does not cover pcr9");
    boot_done(&boot);
}

/* Two findings, and both are told. */
static void test_all_collected(void **state)
{
    (void)state;
    struct boot boot = boot_ovmf();
    boot_finish(&boot, BOOT_PCRS);
    att_autojson *policy = boot_draft(&boot, "ovmf");
    json_object_set_new(component_of(policy, "initrd"), "remedy", json_string("call Ann"));
    other_digest(&boot, boot_find(&boot, 4, PARSE_EV_EFI_BOOT_SERVICES_APPLICATION, 0));
    other_digest(&boot, boot_find(&boot, 9, PARSE_EV_EVENT_TAG, 1));
    boot_finish(&boot, BOOT_PCRS);
    verify_autoverdict *verdict = judge_at(policy, &boot, 0);
    assert_refused(verdict, VERIFY_REASON_BOOT_POLICY, "two");
    assert_int_equal(verdict->n_findings, 2);
    assert_string_equal(verdict->findings[0].component, "kernel");
    assert_int_equal(verdict->findings[0].pcr, 4);
    assert_int_equal(verdict->findings[0].event, 10);
    assert_string_equal(verdict->findings[0].log, "firmware");
    assert_string_equal(verdict->findings[1].component, "initrd");
    assert_string_equal(verdict->findings[1].remedy, "call Ann");
    unsigned fails = 0;
    for (size_t i = 0; i < verdict->n_checks; i++) {
        fails += verdict->checks[i].reason == VERIFY_REASON_BOOT_POLICY &&
                 verdict->checks[i].outcome == VERIFY_FAIL;
    }
    assert_int_equal(fails, 2);
    att_autojson *json = NULL;
    assert_int_equal(verify_verdict_json(verdict, &json, NULL), ATT_OK);
    const json_t *second = json_array_get(json_object_get(json, "findings"), 1);
    assert_string_equal(json_string_value(json_object_get(second, "id")), "variantUnknown");
    assert_string_equal(json_string_value(json_object_get(second, "severity")), "refuse");
    assert_string_equal(json_string_value(json_object_get(json, "mode")), "enforce");
    boot_done(&boot);
}

/* ---- variants -------------------------------------------------------------------------------- */

/* A kernel update: for a week both are good, before it only the old one, after it only the new. */
static void test_kernel_update(void **state)
{
    (void)state;
    struct boot before = boot_ovmf(), after = boot_ovmf();
    boot_finish(&before, BOOT_PCRS);
    att_autojson *policy = boot_draft(&before, "fleet");
    size_t at = boot_find(&after, 4, PARSE_EV_EFI_BOOT_SERVICES_APPLICATION, 0);
    att_sha256(after.events[at].digest, ATT_SLICE_LIT("the new kernel"));
    boot_finish(&after, BOOT_PCRS);
    json_t *variants = variants_of(policy, "kernel");
    json_t *new_kernel = digest_variant(after.events[at].digest);
    json_object_set_new(new_kernel, "label", json_string("6.1.0-19"));
    json_array_append_new(variants, new_kernel);
    json_object_set_new(json_array_get(variants, 0), "label", json_string("6.1.0-18"));
    set_window(new_kernel, "notBefore", DAY);
    set_window(json_array_get(variants, 0), "notAfter", 8 * DAY);

    assert_good(judge_at(policy, &before, 0), "old, before");
    assert_finding(judge_at(policy, &after, 0), VERIFY_FINDING_VARIANT_NOT_YET_VALID, "kernel",
                   "\"6.1.0-19\" was allowed only from 2026-11-24T16:00:00Z");
    assert_good(judge_at(policy, &before, DAY), "old, first second");
    assert_good(judge_at(policy, &after, DAY), "new, first second");
    assert_good(judge_at(policy, &before, 8 * DAY), "old, last second");
    assert_good(judge_at(policy, &after, 8 * DAY), "new, last second");
    assert_finding(judge_at(policy, &before, 8 * DAY + 1), VERIFY_FINDING_VARIANT_EXPIRED, "kernel",
                   "pcr4 event 10 (kernel): ");
    assert_good(judge_at(policy, &after, 8 * DAY + 1), "new, after");
    boot_done(&before);
    boot_done(&after);
}

/* What a PCR policy in a TPM can be made of: the values of the boots that the policy allows. */
static void test_values(void **state)
{
    (void)state;
    struct boot boot = boot_ovmf(), after = boot_ovmf();
    uint8_t values[VERIFY_POLICY_VALUES_MAX][PARSE_DIGEST_MAX];
    size_t n = 0;
    boot_finish(&boot, BOOT_PCRS);
    att_autojson *json = boot_draft(&boot, "values");
    size_t at = boot_find(&after, 4, PARSE_EV_EFI_BOOT_SERVICES_APPLICATION, 0);
    att_sha256(after.events[at].digest, ATT_SLICE_LIT("the new kernel"));
    boot_finish(&after, BOOT_PCRS);
    json_t *new_kernel = digest_variant(after.events[at].digest);
    set_window(new_kernel, "notBefore", DAY);
    json_array_append_new(variants_of(json, "kernel"), new_kernel);
    json_object_set_new(component_of(json, "initrd"), "count", json_string("any"));
    char *text = json_dumps(json, 0);
    verify_autopolicy *policy = NULL;
    assert_int_equal(verify_policy_parse(att_slice_str(text), &policy, NULL), ATT_OK);
    free(text);
    for (unsigned pcr = 0; pcr < 8; pcr++) {
        assert_int_equal(verify_policy_values(policy, pcr, FORGE_NOW, NULL, values, &n, NULL),
                         ATT_OK);
        assert_int_equal(n, 1);
        assert_memory_equal(values[0], boot.pcrs.value[pcr], ATT_SHA256_LEN);
    }
    assert_int_equal(verify_policy_values(policy, 4, FORGE_NOW + DAY, NULL, values, &n, NULL),
                     ATT_OK);
    assert_int_equal(n, 2);
    assert_memory_equal(values[0], boot.pcrs.value[4], ATT_SHA256_LEN);
    assert_memory_equal(values[1], after.pcrs.value[4], ATT_SHA256_LEN);
    struct att_err err = {0};
    assert_int_equal(verify_policy_values(policy, 9, FORGE_NOW, NULL, values, &n, &err),
                     ATT_E_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "component initrd may come any number"));
    assert_int_equal(verify_policy_values(policy, 8, FORGE_NOW, NULL, values, &n, NULL),
                     ATT_E_NOTFOUND);
    boot_done(&boot);
    boot_done(&after);
}

/* A boot by GRUB: the command line is in PCR 8, and its text is what was hashed. */
static void put_cmdline(struct boot *boot, const char *whole)
{
    struct boot_event event = {.pcr = 8, .type = PARSE_EV_IPL, .data = att_slice_str(whole)};
    att_sha256(event.digest, att_slice_str(whole + strlen("kernel_cmdline: ")));
    boot_insert(boot, boot->n, event);
}

static void test_pattern(void **state)
{
    (void)state;
    static const char good[] = "kernel_cmdline: /vmlinuz root=UUID=1f-2 ro quiet";
    static const char bad[] = "kernel_cmdline: /vmlinuz root=UUID=1f-2 ro quiet init=/bin/sh";
    struct boot boot = boot_ovmf();
    put_cmdline(&boot, good);
    boot_finish(&boot, BOOT_PCRS);
    att_autojson *policy = boot_draft(&boot, "grub");
    json_t *cmdline = component_of(policy, "cmdline");
    assert_int_equal(json_integer_value(json_object_get(cmdline, "pcr")), 8);
    json_object_set_new(cmdline, "variants",
                        json_pack("[{s:s}]", "pattern", "/vmlinuz* root=UUID=* ro quiet"));
    assert_good(judge_at(policy, &boot, 0), "pattern");
    boot.n--;
    put_cmdline(&boot, bad);
    boot_finish(&boot, BOOT_PCRS);
    assert_finding(judge_at(policy, &boot, 0), VERIFY_FINDING_VARIANT_UNKNOWN, "cmdline",
                   "ro quiet init=/bin/sh\"");
    /* The text of a good one over the digest of a bad one. */
    boot.events[boot.n - 1].data = att_slice_str(good);
    boot_finish(&boot, BOOT_PCRS);
    assert_finding(judge_at(policy, &boot, 0), VERIFY_FINDING_PAYLOAD_UNCHECKED, "cmdline",
                   "the payload proves nothing");
    /* Exact text. */
    json_object_set_new(cmdline, "variants",
                        json_pack("[{s:s}]", "text", "/vmlinuz root=UUID=1f-2 ro quiet"));
    boot.n--;
    put_cmdline(&boot, good);
    boot_finish(&boot, BOOT_PCRS);
    assert_good(judge_at(policy, &boot, 0), "text");
    boot.n--;
    put_cmdline(&boot, "kernel_cmdline: /vmlinuz root=UUID=1f-2 ro quiet ");
    boot_finish(&boot, BOOT_PCRS);
    assert_finding(judge_at(policy, &boot, 0), VERIFY_FINDING_VARIANT_UNKNOWN, "cmdline",
                   "pcr8 event 25 (cmdline)");
    boot_done(&boot);
}

/* systemd-boot hashes the command line as UTF-16. */
static void test_pattern_utf16(void **state)
{
    (void)state;
    struct boot boot;
    if (!boot_shared("event-sd-boot-fedora37.bin", &boot)) {
        skip();
    }
    boot_remove(&boot, boot_find(&boot, 12, PARSE_EV_IPL, 1)); /* it is there twice */
    boot_finish(&boot, 0xffffU);
    att_autojson *policy = boot_draft(&boot, "sd-boot");
    json_t *cmdline = component_of(policy, "cmdline");
    json_object_set_new(cmdline, "variants",
                        json_pack("[{s:s}]", "pattern", " console=* efi=debug "));
    assert_good(judge_at(policy, &boot, 0), "pattern over UTF-16");
    json_object_set_new(cmdline, "variants",
                        json_pack("[{s:s}]", "pattern",
                                  " console=*"
                                  " efi=debug"));
    assert_finding(judge_at(policy, &boot, 0), VERIFY_FINDING_VARIANT_UNKNOWN, "cmdline",
                   "pcr12 event ");
    boot_done(&boot);
}

/* Who signed the image that was started: the certificate of an EV_EFI_VARIABLE_AUTHORITY. */
static void test_signer(void **state)
{
    (void)state;
    struct boot boot;
    if (!boot_shared("event-moklisttrusted.bin", &boot)) {
        skip();
    }
    boot_finish(&boot, 0xffffU);
    att_autojson *policy = boot_draft(&boot, "signed");
    const struct boot_event *event =
        &boot.events[boot_find(&boot, 7, PARSE_EV_EFI_VARIABLE_AUTHORITY, 0)];
    struct parse_eventlog_variable variable;
    assert_int_equal(parse_eventlog_variable(event->data, &variable, NULL), ATT_OK);
    struct att_slice der = verify_signer_of(variable.data);
    assert_true(der.len > 500 && der.len == variable.data.len - 16);
    uint8_t sha256[ATT_SHA256_LEN];
    char hex[2 * ATT_SHA256_LEN + 1];
    att_sha256(sha256, der);
    att_hex(hex, ATT_SLICE_ARRAY(sha256));
    json_t *authority = component_of(policy, "secureboot.authority");
    json_object_set_new(authority, "variants", json_pack("[{s:s}]", "signer", hex));
    assert_good(judge_at(policy, &boot, 0), "signer");
    hex[0] = hex[0] == '0' ? '1' : '0';
    json_object_set_new(authority, "variants", json_pack("[{s:s}]", "signer", hex));
    assert_finding(judge_at(policy, &boot, 0), VERIFY_FINDING_VARIANT_UNKNOWN,
                   "secureboot.authority", "expected signer ");
    boot_done(&boot);
}

/* A component that repeats must not eat what the next one needs. */
static void test_repeats(void **state)
{
    (void)state;
    struct boot boot = boot_ovmf();
    put_cmdline(&boot, "kernel_cmdline: a 1");
    put_cmdline(&boot, "kernel_cmdline: a 2");
    put_cmdline(&boot, "kernel_cmdline: a 3");
    boot_finish(&boot, BOOT_PCRS);
    att_autojson *policy = boot_draft(&boot, "many");
    json_t *first = component_of(policy, "cmdline"), *second = NULL;
    size_t i = 0;
    json_t *list = json_object_get(policy, "components");
    json_array_foreach(list, i, second)
    {
        if (second == first) {
            break;
        }
    }
    assert_true(i + 2 < json_array_size(list));
    json_array_remove(list, i + 2);
    second = json_array_get(list, i + 1);
    json_object_set_new(first, "count", json_string("any"));
    json_object_set_new(first, "variants", json_pack("[{s:s}]", "pattern", "a *"));
    json_object_set_new(second, "variants", json_pack("[{s:s}]", "text", "a 3"));
    assert_good(judge_at(policy, &boot, 0), "any, then one");
    json_object_set_new(second, "variants", json_pack("[{s:s}]", "text", "a 2"));
    verify_autoverdict *verdict = judge_at(policy, &boot, 0);
    assert_refused(verdict, VERIFY_REASON_BOOT_POLICY, "the one is not the last");
    boot_done(&boot);
}

/* ---- systemd's records ----------------------------------------------------------------------- */

static void put_record(struct att_buf *log, const char *type, const char *string)
{
    uint8_t digest[ATT_SHA256_LEN];
    char hex[2 * ATT_SHA256_LEN + 1];
    att_sha256(digest, att_slice_str(string));
    att_hex(hex, ATT_SLICE_ARRAY(digest));
    att_buf_printf(log,
                   "{\"pcr\":11,\"digests\":[{\"hashAlg\":\"sha256\",\"digest\":\"%s\"}],"
                   "\"content_type\":\"systemd\",\"content\":{\"string\":\"%s\",\"bootId\":"
                   "\"00\",\"timestamp\":1,\"eventType\":\"%s\"}}\n",
                   hex, string, type);
}

static void extend(uint8_t value[PARSE_DIGEST_MAX], const char *string)
{
    uint8_t digest[ATT_SHA256_LEN], next[ATT_SHA256_LEN];
    att_sha256(digest, att_slice_str(string));
    const struct att_slice parts[] = {ATT_SLICE(value, ATT_SHA256_LEN), ATT_SLICE_ARRAY(digest)};
    att_sha256_v(next, parts, 2);
    memcpy(value, next, sizeof(next));
}

/* The log has these phases, the last of them in its tail; the TPM those before NULL. */
static void boot_phases(struct boot *boot, const char *const *phases, const char *tail,
                        const char *after_quote)
{
    att_autobuf log = {0}, rest = {0};
    boot_finish(boot, BOOT_PCRS | 1U << 11);
    for (; *phases; phases++) {
        put_record(&log, "phase", *phases);
        extend(boot->pcrs.value[11], *phases);
    }
    assert_int_equal(evidence_logs_add(&boot->logs, "systemd", att_buf_slice(&log), NULL), ATT_OK);
    if (tail) {
        put_record(&rest, "phase", tail);
        extend(boot->pcrs.value[11], tail);
    }
    if (after_quote) {
        put_record(&rest, "phase", after_quote);
    }
    assert_int_equal(evidence_logs_set_tail(&boot->logs, "systemd", att_buf_slice(&rest), NULL),
                     ATT_OK);
}

static void test_systemd(void **state)
{
    (void)state;
    static const char *const good[] = {"enter-initrd", "leave-initrd", "sysinit", "ready", NULL};
    static const char *const other[] = {"enter-initrd", "leave-initrd", "rescue", "ready", NULL};
    static const char *const early[] = {"enter-initrd", "leave-initrd", "sysinit", NULL};
    struct boot boot = boot_ovmf();
    boot_phases(&boot, good, NULL, NULL);
    att_autojson *policy = boot_draft(&boot, "phases");
    assert_good(judge_at(policy, &boot, 0), "phases");
    const json_t *component = component_of(policy, "systemd.phase-3");
    assert_string_equal(json_string_value(json_object_get(component, "log")), "systemd");
    boot_phases(&boot, other, NULL, NULL);
    assert_finding(judge_at(policy, &boot, 0), VERIFY_FINDING_VARIANT_UNKNOWN, "systemd.phase-3",
                   "pcr11 record 2 (systemd.phase-3): found \"rescue\"");
    boot_phases(&boot, early, NULL, NULL);
    assert_finding(judge_at(policy, &boot, 0), VERIFY_FINDING_COMPONENT_MISSING, "systemd.phase-4",
                   "missing from the systemd log");
    /* In the tail: judged as far as the quote goes, and no further. */
    boot_phases(&boot, early, "ready", "shutdown");
    assert_good(judge_at(policy, &boot, 0), "the last phase in the tail");
    boot_phases(&boot, early, "rescue", NULL);
    assert_finding(judge_at(policy, &boot, 0), VERIFY_FINDING_VARIANT_UNKNOWN, "systemd.phase-4",
                   "pcr11 record 3 (systemd.phase-4): found \"rescue\"");
    /* A log that the policy does not ask for is not there to explain PCR 11. */
    evidence_logs_done(&boot.logs);
    boot_finish(&boot, BOOT_PCRS | 1U << 11);
    verify_autoverdict *none = judge_at(policy, &boot, 0);
    assert_refused(none, VERIFY_REASON_LOG_MISSING, "no systemd log");
    boot_done(&boot);
}

/* ---- the policy itself ----------------------------------------------------------------------- */

static void test_modes(void **state)
{
    (void)state;
    struct boot boot = boot_ovmf();
    boot_finish(&boot, BOOT_PCRS);
    att_autojson *policy = boot_draft(&boot, "ovmf");
    other_digest(&boot, boot_find(&boot, 4, PARSE_EV_EFI_BOOT_SERVICES_APPLICATION, 0));
    boot_finish(&boot, BOOT_PCRS);
    static const enum verify_mode modes[] = {VERIFY_MODE_OBSERVE, VERIFY_MODE_WARN};
    for (size_t i = 0; i < 2; i++) {
        const struct verify_policy_in in = {.mode = modes[i]};
        verify_autoverdict *verdict = judge_as(policy, &boot, 0, in);
        assert_accepted(verdict, verify_mode_word(modes[i]));
        const struct verify_check *check = find_check(verdict, VERIFY_REASON_BOOT_POLICY);
        assert_int_equal(check->outcome, VERIFY_SKIP);
        assert_non_null(strstr(check->detail, "1 findings of boot policy ovmf would refuse"));
        assert_int_equal(verdict->n_refusing, 1);
    }
    assert_finding(judge_at(policy, &boot, 0), VERIFY_FINDING_VARIANT_UNKNOWN, "kernel", "pcr4");
    /* What is wrong with the policy refuses in every mode; so does a log that does not replay. */
    set_window(policy, "notAfter", -1);
    const struct verify_policy_in observe = {.mode = VERIFY_MODE_OBSERVE};
    verify_autoverdict *expired = judge_as(policy, &boot, 0, observe);
    assert_refused(expired, VERIFY_REASON_POLICY_EXPIRED, "observed, expired");
    json_object_del(policy, "notAfter");
    boot.pcrs.value[9][0] ^= 1;
    verify_autoverdict *replay = judge_as(policy, &boot, 0, observe);
    assert_refused(replay, VERIFY_REASON_LOG_REPLAY, "observed, other PCR");
    verify_autoverdict *missing = verify_verdict_new();
    struct verify_policy_in none = {.mode = VERIFY_MODE_OBSERVE, .quoted = &boot.pcrs};
    assert_int_equal(verify_policy_try(&none, &boot.logs, 0, missing), VERIFY_REFUSED);
    assert_refused(missing, VERIFY_REASON_POLICY_MISSING, "observed, no policy");
    boot_done(&boot);
}

static void test_windows(void **state)
{
    (void)state;
    struct boot boot = boot_ovmf();
    boot_finish(&boot, BOOT_PCRS);
    att_autojson *policy = boot_draft(&boot, "ovmf");
    set_window(policy, "notBefore", 0);
    set_window(policy, "notAfter", DAY);
    assert_good(judge_at(policy, &boot, 0), "first second");
    assert_good(judge_at(policy, &boot, DAY), "last second");
    verify_autoverdict *early = judge_at(policy, &boot, -1);
    assert_refused(early, VERIFY_REASON_POLICY_NOT_YET_VALID, "early");
    verify_autoverdict *late = judge_at(policy, &boot, DAY + 1);
    assert_refused(late, VERIFY_REASON_POLICY_EXPIRED, "late");
    boot_done(&boot);
}

#define C1 "{\"id\":\"a\",\"pcr\":4,\"type\":\"EV_IPL\",\"variants\":[{\"text\":\"x\"}]}"
#define HEAD                                                                                       \
    "{\"format\":2,\"name\":\"a\",\"version\":1,\"bank\":\"sha256\",\"logs\":[\"firmware\"]"

#define IPL(id, pcr, name, kind, value)                                                            \
    "{\"id\":\"" id "\",\"pcr\":" pcr ",\"type\":\"EV_IPL\",\"name\":\"" name                      \
    "\",\"count\":\"any\",\"variants\":[{\"" kind "\":\"" value "\"}]}"

/* Names that no digest covers, where they do no harm. */
static void test_names_accepted(void **state)
{
    (void)state;
    static const char *const rows[] = {
        /* the same name; another PCR; no pattern; another type, whose names are hashed */
        HEAD ",\"components\":[" IPL("k", "4", "grub_cmd", "text",
                                     "good") "," IPL("g", "4", "grub_cmd", "pattern", "*") "]}",
        HEAD ",\"components\":[" IPL("k", "8", "kernel_cmdline", "text",
                                     "good") "," IPL("g", "9", "grub_cmd", "pattern", "*") "]}",
        HEAD ",\"components\":[" IPL("k", "8", "kernel_cmdline", "text",
                                     "good") "," IPL("g", "8", "grub_cmd", "text", "other") "]}",
        HEAD ",\"components\":[" IPL(
            "k", "4", "kernel_cmdline", "text",
            "good") ","
                    "{\"id\":\"v\",\"pcr\":4,\"type\":\"EV_EFI_ACTION\",\"variants\":"
                    "[{\"pattern\":\"*\"}]}]}",
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct att_err err = {0};
        verify_autopolicy *policy = NULL;
        if (verify_policy_parse(att_slice_str(rows[i]), &policy, &err)) {
            fail_msg("%s: %s", rows[i], err.msg);
        }
    }
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } rows[] = {
        {HEAD "}", "components"},
        {HEAD ",\"components\":{}}", "components"},
        {HEAD ",\"components\":[]}", "components"},
        {HEAD ",\"components\":[" C1 "," C1 "]}", "components[1] (a): id: there is one before"},
        {HEAD ",\"components\":[7]}", "components[0]: expected an object"},
        {HEAD ",\"components\":[{\"id\":\"A\",\"pcr\":4,\"type\":\"EV_IPL\",\"variants\":[]}]}",
         "id"},
        {HEAD ",\"components\":[{\"id\":\"a\",\"pcr\":24,\"type\":\"EV_IPL\",\"variants\":[]}]}",
         "pcr"},
        {HEAD ",\"components\":[{\"id\":\"a\",\"pcr\":4,\"type\":\"EV_X\",\"variants\":[]}]}",
         "EV_X"},
        {HEAD ",\"components\":[{\"id\":\"a\",\"pcr\":4,\"type\":\"0x0d\",\"variants\":[]}]}",
         "type"},
        {HEAD
         ",\"components\":[{\"id\":\"a\",\"pcr\":4,\"type\":\"EV_NO_ACTION\",\"variants\":[]}]}",
         "extended"},
        {HEAD ",\"components\":[{\"id\":\"a\",\"pcr\":4,\"type\":\"EV_IPL\",\"variants\":[]}]}",
         "variants"},
        {HEAD ",\"components\":[{\"id\":\"a\",\"pcr\":4,\"type\":\"EV_IPL\",\"variants\":[{}]}]}",
         "variants[0]: expected exactly one"},
        {HEAD ",\"components\":[{\"id\":\"a\",\"pcr\":4,\"type\":\"EV_IPL\",\"variants\":"
              "[{\"text\":\"x\",\"pattern\":\"*\"}]}]}",
         "exactly one"},
        {HEAD ",\"components\":[{\"id\":\"a\",\"pcr\":4,\"type\":\"EV_IPL\",\"variants\":"
              "[{\"digest\":\"00\"}]}]}",
         "digest: expected 64"},
        {HEAD ",\"components\":[{\"id\":\"a\",\"pcr\":4,\"type\":\"EV_IPL\",\"variants\":"
              "[{\"text\":\"x\",\"more\":1}]}]}",
         "more"},
        {HEAD ",\"components\":[{\"id\":\"a\",\"pcr\":4,\"type\":\"EV_IPL\",\"variants\":"
              "[{\"text\":\"x\",\"notBefore\":\"2026-01-02T00:00:00Z\",\"notAfter\":"
              "\"2026-01-01T00:00:00Z\"}]}]}",
         "notAfter is not after"},
        {HEAD ",\"components\":[{\"id\":\"a\",\"pcr\":4,\"type\":\"EV_IPL\",\"count\":\"two\","
              "\"variants\":[{\"text\":\"x\"}]}]}",
         "count"},
        {HEAD ",\"components\":[{\"id\":\"a\",\"pcr\":4,\"type\":\"EV_IPL\",\"severity\":\"low\","
              "\"variants\":[{\"text\":\"x\"}]}]}",
         "severity"},
        {HEAD ",\"components\":[{\"id\":\"a\",\"pcr\":4,\"type\":\"EV_IPL\",\"log\":\"ima\","
              "\"variants\":[{\"text\":\"x\"}]}]}",
         "log"},
        {HEAD ",\"components\":[{\"id\":\"a\",\"pcr\":4,\"type\":\"x\",\"log\":\"systemd\","
              "\"variants\":[{\"text\":\"x\"}]}]}",
         "systemd measures into"},
        {HEAD ",\"components\":[{\"id\":\"a\",\"pcr\":11,\"type\":\"x\",\"log\":\"systemd\","
              "\"variants\":[{\"text\":\"x\"}]}]}",
         "components are of the systemd log"},
        {HEAD ",\"components\":[" IPL("k", "4", "kernel_cmdline", "text",
                                      "good") "," IPL("g", "4", "grub_cmd", "pattern", "*") "]}",
         "components[1] (g): a pattern, and components[0] (k) of pcr4 has another name"},
        {HEAD ",\"components\":[" IPL("k", "4", "kernel_cmdline", "pattern", "g*") "," C1 "]}",
         "components[0] (k): a pattern, and components[1] (a) of pcr4"},
        {HEAD ",\"components\":[" C1 "],\"unjudged\":[4]}", "pcr4 has components"},
        {HEAD ",\"components\":[" C1 "],\"unjudged\":[1,1]}", "unjudged[1]"},
        {HEAD ",\"components\":[" C1 "],\"severities\":{\"x\":\"warn\"}}", "is no finding"},
        {HEAD ",\"components\":[" C1 "],\"severities\":{\"pcrValue\":\"no\"}}", "pcrValue"},
        {HEAD ",\"components\":[" C1 "],\"severities\":{\"bank\":\"warn\"}}", "always refuses"},
        {HEAD ",\"components\":[" C1 "],\"severities\":{\"tooManyEvents\":\"info\"}}",
         "always refuses"},
        {"{\"format\":3,\"name\":\"a\",\"version\":1,\"bank\":\"sha256\",\"logs\":[],"
         "\"components\":[" C1 "]}",
         "format"},
        {"{\"name\":\"a\",\"version\":1,\"bank\":\"sha256\",\"logs\":[],\"components\":[" C1 "]}",
         "components: needs \"format\": 2"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct att_err err = {0};
        verify_autopolicy *policy = NULL;
        if (!verify_policy_parse(att_slice_str(rows[i].text), &policy, &err)) {
            fail_msg("accepted: %s", rows[i].text);
        }
        if (!strstr(err.msg, rows[i].says)) {
            fail_msg("%s: \"%s\" does not say \"%s\"", rows[i].text, err.msg, rows[i].says);
        }
    }
    verify_autopolicy *policy = NULL;
    assert_int_equal(
        verify_policy_parse(att_slice_str(HEAD ",\"components\":[" C1 "]}"), &policy, NULL),
        ATT_OK);
}

static void test_glob(void **state)
{
    (void)state;
    static const struct {
        const char *pattern, *text;
        bool fits;
    } rows[] = {{"", "", true},         {"*", "", true},
                {"a*c", "abbc", true},  {"a*c", "abb", false},
                {"?", "", false},       {"a?c", "abc", true},
                {"*b*b", "abab", true}, {"*ab*ab*ab", "abab", false},
                {"abc", "abcd", false}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(verify_glob(rows[i].pattern, rows[i].text), rows[i].fits);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_good),
                                       cmocka_unit_test(test_real_logs),
                                       cmocka_unit_test(test_changed_components),
                                       cmocka_unit_test(test_secure_boot),
                                       cmocka_unit_test(test_missing),
                                       cmocka_unit_test(test_duplicated),
                                       cmocka_unit_test(test_reordered),
                                       cmocka_unit_test(test_left_over),
                                       cmocka_unit_test(test_not_quoted),
                                       cmocka_unit_test(test_all_collected),
                                       cmocka_unit_test(test_kernel_update),
                                       cmocka_unit_test(test_values),

                                       cmocka_unit_test(test_pattern),
                                       cmocka_unit_test(test_pattern_utf16),
                                       cmocka_unit_test(test_signer),
                                       cmocka_unit_test(test_repeats),
                                       cmocka_unit_test(test_systemd),

                                       cmocka_unit_test(test_modes),
                                       cmocka_unit_test(test_windows),
                                       cmocka_unit_test(test_names_accepted),
                                       cmocka_unit_test(test_refused),
                                       cmocka_unit_test(test_glob)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
