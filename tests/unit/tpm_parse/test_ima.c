/* IMA lists: the kernel's own (tests/vectors/ima, recorded by tests/boot/record --ima), 826 lines
 * of another machine, each template written by hand, and each way of not being a list. */
#include "tests/unit/tpm_parse/vectors.h"

#include "attestd/base/enc.h"
#include "tests/support/imalist.h"
#include "tpm/parse/ima.h"

static void read_ima(const char *name, struct att_buf *ret)
{
    char folder[900];
    const char *root = getenv("ATT_VECTORS");
    snprintf(folder, sizeof folder, "%s/ima", root ? root : "tests/vectors");
    read_file_at(folder, name, ret);
}

static enum att_rc replay(struct att_slice bytes, uint16_t bank, struct parse_ima_pcrs *ret,
                          struct att_err *err)
{
    struct parse_ima_replay how = {.bank = bank, .at_least = SIZE_MAX};
    return parse_ima_replay(bytes, &how, ret, err);
}

/* ---- refusals -------------------------------------------------------------------------------- */

static uint8_t digest_a[32], digest_b[32], digest_c[32];

/* boot_aggregate, /usr/bin/a, /usr/bin/b */
static void three(bool ascii, struct att_buf *ret, size_t ends[3])
{
    struct imalist_entry entries[] = {imalist_file("boot_aggregate", digest_a),
                                      imalist_file("/usr/bin/a", digest_b),
                                      imalist_file("/usr/bin/b", digest_c)};
    for (size_t i = 0; i < 3; i++) {
        (ascii ? imalist_ascii : imalist_binary)(&entries[i], ret);
        ends[i] = ret->len;
    }
}

static void test_truncated(void **state)
{
    (void)state;
    for (int ascii = 0; ascii < 2; ascii++) {
        att_autobuf list = {0};
        size_t ends[3];
        struct parse_ima_pcrs pcrs;
        three(ascii, &list, ends);
        for (size_t len = 0; len < list.len; len++) {
            uint8_t *copy = malloc(len + 1);
            memcpy(copy, list.ptr, len);
            struct att_err err = {0};
            enum att_rc rc = replay(ATT_SLICE(copy, len), PARSE_ALG_SHA256, &pcrs, &err);
            bool whole = len == ends[0] || len == ends[1];
            if (whole != (rc == ATT_OK) || (!whole && (rc != ATT_E_PARSE || !err.msg[0]))) {
                fail_msg("%zu bytes: %s %s", len, att_rc_name(rc), err.msg);
            }
            free(copy);
        }
        assert_refused(replay(ATT_SLICE(list.ptr, ends[1] - 1), PARSE_ALG_SHA256, &pcrs, err),
                       ATT_E_PARSE, "",
                       ascii ? "pcr10 entry 1: its line is cut off"
                             : "pcr10 entry 1: it is longer than what is left of the list");
    }
}

static void test_lengths(void **state)
{
    (void)state;
    att_autobuf list = {0};
    size_t ends[3];
    struct parse_ima_pcrs pcrs;
    three(false, &list, ends);
    size_t name = ends[0] + 24, data = name + 4 + strlen("ima-ngv2"), field = data + 4;
    static const struct {
        size_t which;
        uint8_t byte[4];
        const char *says;
    } cases[] = {
        {0, {0xff, 0xff, 0xff, 0xff}, "pcr10 entry 1: the list ends inside its header"},
        {0, {9, 0, 0, 0}, "pcr10 entry 1: its template is none that is known"},
        {1, {0xff, 0xff, 0xff, 0x7f}, "pcr10 entry 1: its template data is beyond 256 KiB"},
        {1, {0xff, 0xff, 0, 0}, "pcr10 entry 1: it is longer than what is left of the list"},
        {2,
         {0xff, 0xff, 0xff, 0xff},
         "pcr10 entry 1: its fields are not as long as its template data"},
        {2, {1, 0, 0, 0}, "pcr10 entry 1: its fields are not as long as its template data"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        att_autobuf copy = {0};
        att_buf_put_slice(&copy, att_buf_slice(&list));
        size_t at = cases[i].which == 0 ? name : cases[i].which == 1 ? data : field;
        memcpy(copy.ptr + at, cases[i].byte, 4);
        assert_refused(replay(att_buf_slice(&copy), PARSE_ALG_SHA256, &pcrs, err), ATT_E_PARSE, "",
                       cases[i].says);
    }
}

/* Whatever byte changes: another value, or a refusal; never the same PCR 10. */
static void test_every_byte(void **state)
{
    (void)state;
    for (int ascii = 0; ascii < 2; ascii++) {
        att_autobuf list = {0};
        size_t ends[3];
        struct parse_ima_pcrs good, pcrs;
        three(ascii, &list, ends);
        assert_ok(replay(att_buf_slice(&list), PARSE_ALG_SHA256, &good, err));
        for (size_t i = 0; i < list.len; i++) {
            list.ptr[i] ^= 1;
            if (replay(att_buf_slice(&list), PARSE_ALG_SHA256, &pcrs, NULL) == ATT_OK &&
                memcmp(pcrs.value[10], good.value[10], 32) == 0) {
                fail_msg("byte %zu is bound to nothing", i);
            }
            list.ptr[i] ^= 1;
        }
    }
}

static void test_hash_shown(void **state)
{
    (void)state;
    att_autobuf list = {0};
    size_t ends[3];
    struct parse_ima_pcrs pcrs;
    three(false, &list, ends);
    size_t places[] = {ends[0] + 4 /* hash shown */, ends[1] - 3 /* name */,
                       ends[1] - strlen("/usr/bin/a") - 6 /* file's digest */};
    for (size_t i = 0; i < 3; i++) {
        list.ptr[places[i]] ^= 0x20;
        assert_refused(replay(att_buf_slice(&list), PARSE_ALG_SHA256, &pcrs, err), ATT_E_PARSE, "",
                       "pcr10 entry 1: template hash does not match its data");
        list.ptr[places[i]] ^= 0x20;
    }
}

static void test_entries_moved(void **state)
{
    (void)state;
    att_autobuf list = {0};
    size_t ends[3];
    struct parse_ima_pcrs good, pcrs;
    three(false, &list, ends);
    assert_ok(replay(att_buf_slice(&list), PARSE_ALG_SHA256, &good, err));
    const struct att_slice e[] = {ATT_SLICE(list.ptr, ends[0]),
                                  ATT_SLICE(list.ptr + ends[0], ends[1] - ends[0]),
                                  ATT_SLICE(list.ptr + ends[1], ends[2] - ends[1])};
    static const int orders[][4] = {{0, 2, 1, -1}, {0, 2, -1, -1}, {0, 1, 1, 2}, {0, 1, -1, -1}};
    for (size_t i = 0; i < 4; i++) {
        att_autobuf moved = {0};
        for (size_t k = 0; k < 4 && orders[i][k] >= 0; k++) {
            att_buf_put_slice(&moved, e[orders[i][k]]);
        }
        assert_ok(replay(att_buf_slice(&moved), PARSE_ALG_SHA256, &pcrs, err));
        assert_memory_not_equal(pcrs.value[10], good.value[10], 32);
    }
}

static void one_bad(const struct imalist_entry *entry, const char *says)
{
    for (int ascii = 0; ascii < 2; ascii++) {
        att_autobuf list = {0};
        struct parse_ima_pcrs pcrs;
        (ascii ? imalist_ascii : imalist_binary)(entry, &list);
        assert_refused(replay(att_buf_slice(&list), PARSE_ALG_SHA256, &pcrs, err), ATT_E_PARSE, "",
                       says);
    }
}

static void test_unknown(void **state)
{
    (void)state;
    struct imalist_entry entry = imalist_file("/usr/bin/a", digest_a);
    entry.tmpl = "ima-v9";
    one_bad(&entry, "pcr10 entry 0: its template is none that is known");
    entry.tmpl = "ima-ngv2";
    entry.prefix = "ima:sha257";
    one_bad(&entry, "its digest is of a hash that is not known");
    entry.prefix = "ima:sha256:sha256";
    one_bad(&entry, "its digest is of a hash that is not known");
    entry.prefix = "dm-verity:sha256";
    one_bad(&entry, "its digest is neither ima: nor verity:");
    entry.prefix = "sha256";
    one_bad(&entry, "its digest is neither ima: nor verity:");
    entry.prefix = "ima:sha384";
    one_bad(&entry, "its digest is not as long as its hash");
    entry.tmpl = "ima-ng";
    entry.prefix = "verity:sha256";
    one_bad(&entry, "its digest is of a hash that is not known");
}

static void bad_line(const char *text, const char *says)
{
    struct parse_ima_pcrs pcrs;
    assert_refused(replay(att_slice_str(text), PARSE_ALG_SHA256, &pcrs, err), ATT_E_PARSE, "",
                   says);
}

static void test_lines(void **state)
{
    (void)state;
#define H "86d3a65a7218e1de1ad8fa7a38bfd36b7fb20e8f"
    bad_line("24 " H " ima-ng sha1:" H " x\n", "its PCR is not 0…23");
    bad_line("010 " H " ima-ng sha1:" H " x\n", "its PCR is not 0…23");
    bad_line("1x " H " ima-ng sha1:" H " x\n", "its PCR is not 0…23");
    bad_line("10  " H " ima-ng sha1:" H " x\n", "its template hash is not of 20");
    bad_line("10 " H "00 ima-ng sha1:" H " x\n", "its template hash is not of 20");
    bad_line("10 86D3a65a7218e1de1ad8fa7a38bfd36b7fb20e8f ima-ng sha1:" H " x\n", "lowercase hex");
    bad_line("10 " H " ima-ng " H " x\n", "a field does not have its form");
    bad_line("10 " H " ima-sig sha1:" H " x 0g\n", "a field does not have its form");
    bad_line("10 " H " ima-ng sha1:" H "\n", "template hash does not match its data");
    bad_line("10 " H " ima-ng sha1:" H " x\n\n", "pcr10 entry 0: template hash does not match");
#undef H
}

static void test_legacy_name(void **state)
{
    (void)state;
    char name[300];
    memset(name, 'n', sizeof name);
    name[256] = 0;
    att_autobuf list = {0};
    struct imalist_entry entry = {.tmpl = "ima", .file = ATT_SLICE(digest_a, 20), .name = name};
    struct parse_ima_pcrs pcrs;
    imalist_binary(&entry, &list);
    assert_refused(replay(att_buf_slice(&list), PARSE_ALG_SHA256, &pcrs, err), ATT_E_PARSE, "",
                   "its name is longer than the 255 bytes of template ima");
}

static void test_signed_part(void **state)
{
    (void)state;
    for (int ascii = 0; ascii < 2; ascii++) {
        att_autobuf list = {0};
        size_t ends[3];
        struct parse_ima_pcrs pcrs;
        three(ascii, &list, ends);
        struct parse_ima_replay how = {.bank = PARSE_ALG_SHA256, .at_least = ends[0] + 7};
        assert_refused(parse_ima_replay(att_buf_slice(&list), &how, &pcrs, err), ATT_E_PARSE, "",
                       "pcr10 entry 1: the signed part of the list ends inside it");
        how.at_least = list.len + 1;
        assert_refused(parse_ima_replay(att_buf_slice(&list), &how, &pcrs, err), ATT_E_PARSE, "",
                       "its signed part has");
        how.at_least = ends[0];
        assert_ok(parse_ima_replay(att_buf_slice(&list), &how, &pcrs, err));
        assert_int_equal(pcrs.used, ends[0]);
        /* Behind the signed part it goes on to the value that is looked for, and no further. */
        uint8_t until[32] = {0};
        struct imalist_entry a = imalist_file("boot_aggregate", digest_a),
                             b = imalist_file("/usr/bin/a", digest_b);
        imalist_extend(&a, until);
        imalist_extend(&b, until);
        how.until = until;
        list.ptr[list.len - 2] ^= 1; /* in an entry that nobody quoted */
        assert_ok(parse_ima_replay(att_buf_slice(&list), &how, &pcrs, err));
        assert_int_equal(pcrs.used, ends[1]);
        assert_int_equal(pcrs.n_entries, 2);
        assert_memory_equal(pcrs.value[10], until, 32);
        how.at_least = ends[2];
        assert_refused(parse_ima_replay(att_buf_slice(&list), &how, &pcrs, err), ATT_E_PARSE, "",
                       "pcr10 entry 2: ");
    }
}

static void test_caps(void **state)
{
    (void)state;
    struct parse_ima list;
    assert_refused(parse_ima_init(&list, ATT_SLICE(NULL, 0), err), ATT_E_PARSE, "", "empty");
    assert_refused(parse_ima_init(&list, ATT_SLICE("x", PARSE_IMA_MAX + 1), err), ATT_E_LIMIT, "",
                   "at most");
    att_autobuf line = ATT_BUF_INIT((size_t)1 << 20);
    att_buf_put_str(&line, "10 ");
    while (line.len < PARSE_IMA_ENTRY_MAX) {
        att_buf_put_str(&line, "00000000000000000000000000000000");
    }
    att_buf_put_str(&line, "\n");
    struct parse_ima_pcrs pcrs;
    assert_refused(replay(att_buf_slice(&line), PARSE_ALG_SHA256, &pcrs, err), ATT_E_PARSE, "",
                   "its line is beyond 256 KiB");
}

/* ---- good lists ------------------------------------------------------------------------------ */

/* Each template, both forms, against values computed without the parser. */
static void test_templates(void **state)
{
    (void)state;
    static const uint8_t id[] = {0xe8, 3, 0, 0}, mode[] = {0xa4, 0x81}, sig[] = {3, 2, 4, 1, 2, 3};
    uint8_t d[32];
    att_sha256(d, ATT_SLICE_LIT("file"));
    const struct att_slice none = {NULL, 0}, s = ATT_SLICE_ARRAY(sig);
    struct imalist_entry entries[] = {
        {"ima", NULL, ATT_SLICE(d, 20), "/bin/sh", {none}, 0, false},
        {"ima-ng", "sha1", ATT_SLICE(d, 20), "/bin/my_file", {none}, 0, false},
        {"ima-sig", "sha256", ATT_SLICE_ARRAY(d), "/bin/sh", {s}, 1, false},
        {"ima-sig", "sha256", ATT_SLICE_ARRAY(d), "/bin/unsigned", {none}, 1, false},
        {"ima-ngv2", "verity:sha256", ATT_SLICE_ARRAY(d), "/models/m", {none}, 0, false},
        {"ima-sigv2", "verity:sha256", ATT_SLICE_ARRAY(d), "/models/m", {s}, 1, false},
        {"ima-buf", "sha256", ATT_SLICE_ARRAY(d), "kexec-cmdline", {s}, 1, false},
        {"ima-modsig", "sha256", ATT_SLICE_ARRAY(d), "/k.ko", {none, none, none}, 3, false},
        {"ima-ngv2", "ima:sha256", ATT_SLICE(digest_c, 20), "/var/log/x", {none}, 0, true},
    };
    memset(digest_c, 0, sizeof digest_c);
    for (int ascii = 0; ascii < 2; ascii++) {
        att_autobuf all = {0};
        uint8_t value[32] = {0};
        struct parse_ima_pcrs pcrs;
        for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++) {
            (ascii ? imalist_ascii : imalist_binary)(&entries[i], &all);
            imalist_extend(&entries[i], value);
            assert_ok(replay(att_buf_slice(&all), PARSE_ALG_SHA256, &pcrs, err));
            assert_memory_equal(pcrs.value[10], value, 32);
        }
        assert_int_equal(pcrs.n_violations, 1);
        assert_int_equal(pcrs.first_violation, 8);
        assert_int_equal(pcrs.with_entries, 1u << 10);
        assert_int_equal(pcrs.last_entry[10], 8);
    }
    /* evm-sig: its numbers are not hex in ASCII. */
    struct imalist_entry evm = {"evm-sig",
                                "sha256",
                                ATT_SLICE_ARRAY(d),
                                "/bin/sh",
                                {s, ATT_SLICE("security.selinux|security.ima", 30), s, s,
                                 ATT_SLICE_ARRAY(id), ATT_SLICE_ARRAY(id), ATT_SLICE_ARRAY(mode)},
                                7,
                                false};
    att_autobuf binary = {0}, line = {0}, data = {0};
    imalist_binary(&evm, &binary);
    uint8_t value[32] = {0};
    struct parse_ima_pcrs pcrs;
    imalist_extend(&evm, value);
    assert_ok(replay(att_buf_slice(&binary), PARSE_ALG_SHA256, &pcrs, err));
    assert_memory_equal(pcrs.value[10], value, 32);
    att_buf_put_str(&line, "10 ");
    att_buf_hex(&line, ATT_SLICE(binary.ptr + 4, 20));
    att_buf_put_str(&line, " evm-sig sha256:");
    att_buf_hex(&line, ATT_SLICE_ARRAY(d));
    att_buf_put_str(&line, " /bin/sh 030204010203 security.selinux|security.ima 030204010203 "
                           "030204010203 1000 1000 33188\n");
    assert_ok(replay(att_buf_slice(&line), PARSE_ALG_SHA256, &pcrs, err));
    assert_memory_equal(pcrs.value[10], value, 32);
}

/* A guest's list and what its TPM held: binary and ASCII, with a file under fs-verity, a buffer, a
 * violation. */
static void test_guest(void **state)
{
    (void)state;
    att_autobuf binary = {0}, ascii = {0}, text = {0};
    struct parse_pcr_set quoted;
    struct parse_ima_pcrs pcrs[2];
    read_ima("ima.bin", &binary);
    read_ima("ima.ascii", &ascii);
    read_ima("pcrs.json", &text);
    assert_ok(parse_pcr_set_parse(att_buf_slice(&text), NULL, &quoted, err));
    assert_ok(replay(att_buf_slice(&binary), PARSE_ALG_SHA256, &pcrs[0], err));
    assert_ok(replay(att_buf_slice(&ascii), PARSE_ALG_SHA256, &pcrs[1], err));
    for (int i = 0; i < 2; i++) {
        assert_memory_equal(pcrs[i].value[10], quoted.value[10], 32);
        assert_int_equal(pcrs[i].n_violations, 1);
    }
    ATT_CLEANUP(parse_ima_done) struct parse_ima list = {0};
    struct parse_ima_entry entry;
    bool verity = false, buf = false, underscore = false;
    assert_ok(parse_ima_init(&list, att_buf_slice(&binary), err));
    while (parse_ima_next(&list, &entry, NULL) == ATT_OK) {
        verity = verity || (strcmp(entry.kind, "verity") == 0 &&
                            att_slice_eq_str(entry.name, "/mnt/verity.bin"));
        buf = buf || (att_slice_eq_str(entry.name, "kernel_version") &&
                      entry.tmpl->fields[2] == PARSE_IMA_BUF && entry.fields[2].len > 0);
        underscore = underscore || att_slice_eq_str(entry.name, "/mnt/weights_1.bin");
    }
    assert_int_equal(list.pos, binary.len);
    assert_true(verity && buf && underscore);
}

static void test_826_lines(void **state)
{
    (void)state;
    const char *shared = shared_vectors();
    if (!shared) {
        print_message("skipped: no shared vectors here\n");
        skip();
    }
    char folder[1000];
    att_autobuf text = {0};
    struct parse_ima_pcrs pcrs;
    snprintf(folder, sizeof folder, "%s/ima", shared);
    read_file_at(folder, "ascii_runtime_measurements_826", &text);
    assert_ok(replay(att_buf_slice(&text), PARSE_ALG_SHA256, &pcrs, err));
    assert_int_equal(pcrs.n_entries, 826);
    assert_int_equal(pcrs.n_violations, 0);
}

static void test_explain(void **state)
{
    (void)state;
    att_autobuf binary = {0}, ascii = {0};
    att_autojson *a = NULL, *b = NULL;
    read_ima("ima.bin", &binary);
    read_ima("ima.ascii", &ascii);
    assert_ok(parse_ima_explain(att_buf_slice(&binary), &a, err));
    assert_ok(parse_ima_explain(att_buf_slice(&ascii), &b, err));
    assert_true(json_equal(json_object_get(a, "events"), json_object_get(b, "events")));
    assert_true(json_equal(json_object_get(a, "pcrs"), json_object_get(b, "pcrs")));
    const json_t *first = json_array_get(json_object_get(a, "events"), 0);
    assert_true(json_is_true(json_object_get(first, "digestCoversPayload")));
    assert_string_equal(
        json_string_value(json_object_get(json_object_get(first, "payload"), "path")),
        "boot_aggregate");
    /* A digest that is not of its payload is shown, and said not to be. */
    binary.ptr[60] ^= 1;
    json_decref(a);
    a = NULL;
    assert_ok(parse_ima_explain(att_buf_slice(&binary), &a, err));
    first = json_array_get(json_object_get(a, "events"), 0);
    assert_true(json_is_false(json_object_get(first, "digestCoversPayload")));
    const json_t *bank = json_object_get(json_object_get(a, "pcrs"), "sha256");
    assert_non_null(strstr(json_string_value(json_object_get(bank, "error")), "entry 0"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_truncated),     cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_every_byte),    cmocka_unit_test(test_hash_shown),
        cmocka_unit_test(test_entries_moved), cmocka_unit_test(test_unknown),
        cmocka_unit_test(test_lines),         cmocka_unit_test(test_legacy_name),
        cmocka_unit_test(test_signed_part),   cmocka_unit_test(test_caps),
        cmocka_unit_test(test_templates),     cmocka_unit_test(test_guest),
        cmocka_unit_test(test_826_lines),     cmocka_unit_test(test_explain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
