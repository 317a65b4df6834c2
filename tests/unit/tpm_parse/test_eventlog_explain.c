/* What is said of an event, and that nothing is said to be measured that was not. */
#include "vectors.h"

#include "attestd/base/hash.h"
#include "tpm/parse/eventlog_explain.h"
#include "tpm/parse/eventlog_payload.h"

/* An event of the SHA-256 bank whose digest is H(hashed). */
struct made {
    struct parse_eventlog_event event;
    uint8_t digest[ATT_SHA256_LEN];
};

static void make(struct made *ret, uint32_t type, struct att_slice data, struct att_slice hashed)
{
    memset(ret, 0, sizeof *ret);
    att_sha256(ret->digest, hashed);
    ret->event.type = type;
    ret->event.data = data;
    ret->event.n_digests = 1;
    ret->event.digests[0].alg = PARSE_ALG_SHA256;
    ret->event.digests[0].digest = ATT_SLICE_ARRAY(ret->digest);
}

static enum parse_eventlog_cover cover_of(uint32_t type, struct att_slice data,
                                          struct att_slice hashed, struct att_slice *measured)
{
    struct made made;
    make(&made, type, data, hashed);
    return parse_eventlog_covers(&made.event, measured);
}

static void le(struct att_buf *buf, uint64_t v, size_t width)
{
    for (size_t i = 0; i < width; i++) {
        att_buf_u8(buf, (uint8_t)(v >> (8 * i)));
    }
}

static void utf16(struct att_buf *buf, const char *text)
{
    for (; *text; text++) {
        le(buf, (uint8_t)*text, 2);
    }
}

static const uint8_t guid[16] = {0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11,
                                 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c};

static void variable(struct att_buf *buf, const char *name, struct att_slice data)
{
    att_buf_put(buf, guid, sizeof guid);
    le(buf, strlen(name), 8);
    le(buf, data.len, 8);
    utf16(buf, name);
    att_buf_put_slice(buf, data);
}

/* ---- refusals ---------------------------------------------------------------------------------
 */

static void test_payloads_that_were_not_hashed(void **state)
{
    (void)state;
    struct att_slice text = ATT_SLICE_LIT("Calling EFI Application from Boot Option");
    struct att_slice other = ATT_SLICE_LIT("Calling EFI Application from Boot Optiom");
    struct att_slice measured = {NULL, 77};
    assert_int_equal(cover_of(PARSE_EV_EFI_ACTION, text, other, &measured),
                     PARSE_EVENTLOG_COVERS_NONE);
    assert_int_equal(measured.len, 77); /* untouched */
    /* a type rewritten to one whose digest is of an image: never believed */
    static const uint32_t elsewhere[] = {
        PARSE_EV_EFI_BOOT_SERVICES_APPLICATION,
        PARSE_EV_EFI_BOOT_SERVICES_DRIVER,
        PARSE_EV_EFI_RUNTIME_SERVICES_DRIVER,
        PARSE_EV_EFI_PLATFORM_FIRMWARE_BLOB,
        PARSE_EV_EFI_PLATFORM_FIRMWARE_BLOB2,
        PARSE_EV_POST_CODE,
        PARSE_EV_NO_ACTION,
        PARSE_EV_CPU_MICROCODE,
        PARSE_EV_COMPACT_HASH,
        PARSE_EV_EFI_HCRTM_EVENT,
    };
    for (size_t i = 0; i < sizeof elsewhere / sizeof elsewhere[0]; i++) {
        assert_int_equal(cover_of(elsewhere[i], text, text, NULL), PARSE_EVENTLOG_COVERS_NONE);
    }
}

static void test_every_known_digest_must_agree(void **state)
{
    (void)state;
    struct made made;
    uint8_t sha384[ATT_HASH_MAX];
    size_t len = 0;
    struct att_slice data = ATT_SLICE_LIT("x");
    make(&made, PARSE_EV_ACTION, data, data);
    assert_ok(att_hash_v("SHA384", sha384, &len, &data, 1, err));
    made.event.n_digests = 2;
    made.event.digests[1].alg = PARSE_ALG_SHA384;
    made.event.digests[1].digest = ATT_SLICE(sha384, 48);
    assert_int_equal(parse_eventlog_covers(&made.event, NULL), PARSE_EVENTLOG_COVERS_ALL);
    sha384[0] ^= 1;
    assert_int_equal(parse_eventlog_covers(&made.event, NULL), PARSE_EVENTLOG_COVERS_NONE);
    /* only an algorithm that nobody here can compute: nothing is proved */
    made.event.n_digests = 1;
    made.event.digests[0].alg = 0x7777;
    assert_int_equal(parse_eventlog_covers(&made.event, NULL), PARSE_EVENTLOG_COVERS_NONE);
}

static void test_labels_are_not_hashed(void **state)
{
    (void)state;
    struct att_slice data = ATT_SLICE_ARRAY("grub_cmd: linux /vmlinuz root=/dev/vda1"), measured;
    assert_int_equal(
        cover_of(PARSE_EV_IPL, data, ATT_SLICE_LIT("linux /vmlinuz root=/dev/vda1"), &measured),
        PARSE_EVENTLOG_COVERS_PART);
    assert_true(att_slice_eq_str(measured, "linux /vmlinuz root=/dev/vda1"));
    /* other labels are no labels; other types have none */
    assert_int_equal(cover_of(PARSE_EV_IPL, ATT_SLICE_LIT("evil_cmd: x"), ATT_SLICE_LIT("x"), NULL),
                     PARSE_EVENTLOG_COVERS_NONE);
    assert_int_equal(
        cover_of(PARSE_EV_ACTION, ATT_SLICE_LIT("grub_cmd: x"), ATT_SLICE_LIT("x"), NULL),
        PARSE_EVENTLOG_COVERS_NONE);
}

static void test_variable_name_is_not_hashed_in_the_old_form(void **state)
{
    (void)state;
    att_autobuf payload = {0};
    struct att_slice order = ATT_SLICE_LIT("\1\0\2\0"), measured;
    variable(&payload, "BootOrder", order);
    struct att_slice all = att_buf_slice(&payload);
    assert_int_equal(cover_of(PARSE_EV_EFI_VARIABLE_BOOT, all, all, &measured),
                     PARSE_EVENTLOG_COVERS_ALL);
    assert_int_equal(cover_of(PARSE_EV_EFI_VARIABLE_BOOT, all, order, &measured),
                     PARSE_EVENTLOG_COVERS_PART);
    assert_true(att_slice_eq(measured, order));
    /* BOOT2 and DRIVER_CONFIG hash the whole structure or nothing */
    assert_int_equal(cover_of(PARSE_EV_EFI_VARIABLE_BOOT2, all, order, NULL),
                     PARSE_EVENTLOG_COVERS_NONE);
    assert_int_equal(cover_of(PARSE_EV_EFI_VARIABLE_DRIVER_CONFIG, all, order, NULL),
                     PARSE_EVENTLOG_COVERS_NONE);
}

static enum att_rc try_variable(struct att_slice bytes)
{
    struct parse_eventlog_variable v;
    return parse_eventlog_variable(bytes, &v, NULL);
}

static void test_variables_that_are_refused(void **state)
{
    (void)state;
    att_autobuf payload = {0};
    variable(&payload, "SecureBoot", ATT_SLICE_LIT("\1"));
    assert_exact(att_buf_slice(&payload), try_variable);
    struct parse_eventlog_variable v;
    payload.ptr[23] = 0x80; /* 2^63 + 10 characters: twice that is 20 bytes, modulo 2^64 */
    assert_refused(parse_eventlog_variable(att_buf_slice(&payload), &v, err), ATT_E_PARSE, "",
                   "lengths");
    payload.ptr[23] = 0;
    memset(payload.ptr + 24, 0xFF, 8);
    assert_refused(parse_eventlog_variable(att_buf_slice(&payload), &v, err), ATT_E_PARSE, "",
                   "lengths");
}

/* ---- what is said ------------------------------------------------------------------------------
 */

static json_t *payload_of(uint32_t type, struct att_slice data)
{
    struct made made;
    make(&made, type, data, data);
    return parse_eventlog_payload_json(&made.event);
}

static void assert_payload(uint32_t type, struct att_slice data, const char *want)
{
    att_autojson *json = payload_of(type, data);
    att_autobuf text = {0};
    if (!want) {
        assert_null(json);
        return;
    }
    assert_non_null(json);
    assert_ok(att_json_dump(json, false, &text, err));
    assert_string_equal(att_buf_cstr(&text), want);
}

static void test_payloads_without_their_form(void **state)
{
    (void)state;
    assert_payload(PARSE_EV_SEPARATOR, ATT_SLICE_LIT("\0\0\0"), NULL);
    assert_payload(PARSE_EV_SEPARATOR, ATT_SLICE_LIT("\0\0\0\0\0"), NULL);
    assert_payload(PARSE_EV_EFI_VARIABLE_BOOT, ATT_SLICE_LIT("abc"), NULL);
    assert_payload(PARSE_EV_EFI_GPT_EVENT, ATT_SLICE_LIT("EFI PART"), NULL);
    assert_payload(PARSE_EV_EFI_PLATFORM_FIRMWARE_BLOB, ATT_SLICE_LIT("short"), NULL);
    assert_payload(PARSE_EV_EFI_HANDOFF_TABLES, ATT_SLICE_LIT("\377\377\377\377\377\377\377\377"),
                   NULL);
    assert_payload(PARSE_EV_EVENT_TAG, ATT_SLICE_LIT("\1\0\0\0\5\0\0\0abcd"), NULL);
    assert_payload(PARSE_EV_EFI_BOOT_SERVICES_APPLICATION, ATT_SLICE_LIT("x"), NULL);
}

static void test_plain_payloads(void **state)
{
    (void)state;
    assert_payload(PARSE_EV_SEPARATOR, ATT_SLICE_LIT("\0\0\0\0"), "{\"separator\":\"0x0\"}");
    assert_payload(PARSE_EV_EFI_ACTION, ATT_SLICE_LIT("Exit Boot Services Invocation"),
                   "{\"text\":\"Exit Boot Services Invocation\"}");
    assert_payload(PARSE_EV_IPL, ATT_SLICE_LIT("\xff\xfe"), "{\"data\":\"fffe\"}");
    assert_payload(PARSE_EV_IPL, ATT_SLICE_LIT("bad \xc3\x28"), "{\"data\":\"62616420c328\"}");
    assert_payload(PARSE_EV_IPL, ATT_SLICE_LIT("r\0o\0=\0"), "{\"text\":\"ro=\"}");
    assert_payload(PARSE_EV_ACTION, ATT_SLICE_LIT("a\nFORGED LINE\x1b[0m"),
                   "{\"data\":\"610a464f52474544204c494e451b5b306d\"}");
    assert_payload(PARSE_EV_NO_ACTION, ATT_SLICE_LIT("StartupLocality\0\3"),
                   "{\"signature\":\"StartupLocality\",\"startupLocality\":3}");
    assert_payload(PARSE_EV_EVENT_TAG, ATT_SLICE_LIT("\xec\x22\x3b\x8f\2\0\0\0ab"),
                   "{\"tag\":\"0x8f3b22ec\",\"text\":\"ab\"}");
    assert_payload(PARSE_EV_EFI_PLATFORM_FIRMWARE_BLOB2,
                   ATT_SLICE_LIT("\2FV\0\x10\0\0\0\0\0\0\0\x20\0\0\0\0\0\0"),
                   "{\"description\":\"FV\",\"base\":\"0x1000\",\"length\":8192}");
}

static void test_variables(void **state)
{
    (void)state;
    att_autobuf secure = {0}, order = {0}, db = {0}, list = {0}, broken = {0};
    variable(&secure, "SecureBoot", ATT_SLICE_LIT("\1"));
    assert_payload(PARSE_EV_EFI_VARIABLE_DRIVER_CONFIG, att_buf_slice(&secure),
                   "{\"guid\":\"8be4df61-93ca-11d2-aa0d-00e098032b8c\",\"name\":\"SecureBoot\","
                   "\"enabled\":true,\"data\":\"01\"}");
    variable(&order, "BootOrder", ATT_SLICE_LIT("\1\0\x0A\0"));
    assert_payload(PARSE_EV_EFI_VARIABLE_BOOT, att_buf_slice(&order),
                   "{\"guid\":\"8be4df61-93ca-11d2-aa0d-00e098032b8c\",\"name\":\"BootOrder\","
                   "\"bootOrder\":[\"Boot0001\",\"Boot000A\"]}");
    att_buf_put(&list, guid, 16);
    le(&list, 28 + 2 * 48, 4);
    le(&list, 0, 4);
    le(&list, 48, 4);
    for (int i = 0; i < 96; i++) {
        att_buf_u8(&list, 0);
    }
    variable(&db, "db", att_buf_slice(&list));
    att_autojson *json = payload_of(PARSE_EV_EFI_VARIABLE_DRIVER_CONFIG, att_buf_slice(&db));
    json_t *entry = json_array_get(json_object_get(json, "signatureLists"), 0);
    assert_int_equal(json_integer_value(json_object_get(entry, "count")), 2);
    assert_int_equal(json_integer_value(json_object_get(entry, "size")), 48);
    variable(&broken, "db", ATT_SLICE(list.ptr, list.len - 1)); /* shown as bytes then */
    att_autojson *bytes = payload_of(PARSE_EV_EFI_VARIABLE_DRIVER_CONFIG, att_buf_slice(&broken));
    assert_null(json_object_get(bytes, "signatureLists"));
    assert_non_null(json_object_get(bytes, "data"));
}

static void test_device_paths(void **state)
{
    (void)state;
    att_autobuf path = {0};
    att_buf_put(&path, "\2\1\x0c\0\xd0\x41\3\x0a\0\0\0\0\1\1\6\0\0\x1f\4\4\x0a\0\\\0E\0\0\0", 28);
    att_buf_put(&path, "\3\x7f\5\0\x09\x7f\xff\4\0", 9);
    json_t *text = parse_eventlog_device_path_json(att_buf_slice(&path));
    assert_string_equal(json_string_value(text), "PciRoot(0x0)/Pci(0x1f,0x0)/\\E/Path(3,127,09)");
    json_decref(text);
    /* node lengths below 4 and beyond the end */
    assert_null(parse_eventlog_device_path_json(ATT_SLICE_LIT("\4\4\3\0")));
    assert_null(parse_eventlog_device_path_json(ATT_SLICE_LIT("\4\4\0\0")));
    assert_null(parse_eventlog_device_path_json(ATT_SLICE_LIT("\4\4\5\0")));
    assert_null(parse_eventlog_device_path_json(ATT_SLICE_LIT("\4\4\4")));
}

static void test_utf16(void **state)
{
    (void)state;
    static const struct {
        struct att_slice in;
        const char *out;
    } cases[] = {
        {{(const uint8_t *)"A\0\xe9\0\xac\x20", 6}, "A\xc3\xa9\xe2\x82\xac"},
        {{(const uint8_t *)"\x3d\xd8\x00\xde", 4}, "\xf0\x9f\x98\x80"},
        {{(const uint8_t *)"\x3d\xd8", 2}, "\xef\xbf\xbd"},     /* half a pair at the end */
        {{(const uint8_t *)"\x3d\xd8x\0", 4}, "\xef\xbf\xbdx"}, /* half a pair, then text */
        {{(const uint8_t *)"\x00\xde\x3d\xd8", 4}, "\xef\xbf\xbd\xef\xbf\xbd"}, /* the wrong way */
        {{(const uint8_t *)"a\0\0\0b\0", 6}, "a"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *text = parse_eventlog_utf16_json(cases[i].in);
        assert_non_null(text);
        assert_string_equal(json_string_value(text), cases[i].out);
        json_decref(text);
    }
    assert_null(parse_eventlog_utf16_json(ATT_SLICE_LIT("abc")));
}

static void test_type_names(void **state)
{
    (void)state;
    assert_string_equal(parse_eventlog_type_name(0x80000002), "EV_EFI_VARIABLE_BOOT");
    assert_string_equal(parse_eventlog_type_name(4), "EV_SEPARATOR");
    assert_string_equal(parse_eventlog_type_name(0), "EV_PREBOOT_CERT");
    assert_null(parse_eventlog_type_name(0x12345678));
}

/* The project's own guest: the whole object, and its PCRs against those its TPM had. */
static void test_whole_log(void **state)
{
    (void)state;
    const char *root = getenv("ATT_VECTORS");
    char folder[900];
    snprintf(folder, sizeof folder, "%s/boot", root ? root : "tests/vectors");
    att_autobuf bytes = {0};
    read_file_at(folder, "eventlog.bin", &bytes);
    att_autojson *json = NULL;
    assert_ok(parse_eventlog_explain(att_buf_slice(&bytes), &json, err));
    assert_string_equal(json_string_value(json_object_get(json, "format")), "crypto-agile");
    const json_t *events = json_object_get(json, "events");
    assert_true(json_array_size(events) > 10);
    struct parse_eventlog_pcrs pcrs;
    assert_ok(parse_eventlog_replay(att_buf_slice(&bytes), PARSE_ALG_SHA256, &pcrs, err));
    const json_t *bank = json_object_get(json_object_get(json, "pcrs"), "sha256");
    size_t n = 0;
    for (unsigned i = 0; i < PARSE_PCR_COUNT; i++) {
        n += pcrs.with_events >> i & 1;
    }
    assert_int_equal(json_object_size(bank), n);
    att_autobuf text = {0};
    read_file_at(folder, "pcrs.json", &text);
    struct parse_pcr_set set;
    assert_ok(parse_pcr_set_parse(att_buf_slice(&text), NULL, &set, err));
    assert_ok(parse_eventlog_check(&pcrs, &set, 0xFBFF, err)); /* PCR 10 is IMA's */
    size_t covered = 0, index = 0;
    json_t *event = NULL;
    json_array_foreach(events, index, event)
    {
        assert_int_equal(json_integer_value(json_object_get(event, "event")), index);
        covered += json_is_true(json_object_get(event, "digestCoversPayload"));
    }
    assert_true(covered >= 8); /* the separators at least */
    json_t *none = NULL;
    assert_refused(parse_eventlog_explain(ATT_SLICE(bytes.ptr, bytes.len - 1), &none, err),
                   ATT_E_PARSE, "", "longer than what is left");
    assert_null(none);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_payloads_that_were_not_hashed),
        cmocka_unit_test(test_every_known_digest_must_agree),
        cmocka_unit_test(test_labels_are_not_hashed),
        cmocka_unit_test(test_variable_name_is_not_hashed_in_the_old_form),
        cmocka_unit_test(test_variables_that_are_refused),
        cmocka_unit_test(test_payloads_without_their_form),
        cmocka_unit_test(test_plain_payloads),
        cmocka_unit_test(test_variables),
        cmocka_unit_test(test_device_paths),
        cmocka_unit_test(test_utf16),
        cmocka_unit_test(test_type_names),
        cmocka_unit_test(test_whole_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
