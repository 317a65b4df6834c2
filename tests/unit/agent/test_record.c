#include "attestd/agent/registry.h"
#include "attestd/base/io.h"
#include "attestd/base/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static struct agent_record full(void)
{
    struct agent_record rec = {
        .name = "portfolio-rebalancer",
        .spiffe_id = "spiffe://bank.example/agent/portfolio-rebalancer",
        .profile = "trading",
        .key_store = "tpm",
        .lifetime_s = 3600,
        .life = {AGENT_RENEW_FINALIZING, AGENT_ABSENT},
        .key_id = "00112233445566778899aabbccddeeff",
        .next_key_id = "ffeeddccbbaa99887766554433221100",
        .retired = {{.key_id = "0000000000000000000000000000000a",
                     .serial = "0b0c",
                     .not_after = 1700},
                    {.key_id = "0000000000000000000000000000000b", .not_after = 2700}},
        .n_retired = 2,
        .order_url = "https://127.0.0.1:1/acme/order/1",
        .serial = "0a",
        .boot = "ovmf-guest",
        .dates = {.not_before = 100,
                  .not_after = 3700,
                  .installed_at = 160,
                  .renew_at = 1900,
                  .installed_boot_ms = 5},
        .boot_id = "b",
        .last_error = {.at = 7, .code = "denied", .reason = "bootPolicy", .message = "PCR 7"},
        .attempts = 3,
        .issued = 12,
    };
    return rec;
}

static json_t *as_json(const struct agent_record *rec)
{
    att_autobuf text = {0};
    json_t *json = NULL;
    assert_int_equal(agent_record_encode(rec, &text, NULL), ATT_OK);
    assert_int_equal(att_json_parse(att_buf_slice(&text), AGENT_STATE_MAX, &json, NULL), ATT_OK);
    return json;
}

static enum att_rc parse_json(const json_t *json, struct agent_record *ret)
{
    att_autobuf text = {0};
    struct att_err err = {0};
    assert_int_equal(att_json_dump(json, false, &text, NULL), ATT_OK);
    enum att_rc rc = agent_record_parse(att_buf_slice(&text), ret, &err);
    assert_true(rc == ATT_OK || err.msg[0]);
    return rc;
}

/* The record with one member replaced (NULL: taken away) is refused. */
static void refused(const char *member, json_t *value)
{
    struct agent_record rec = full(), out;
    json_t *json = as_json(&rec);
    if (value) {
        json_object_set_new(json, member, value);
    } else {
        json_object_del(json, member);
    }
    memset(&out, 0x5a, sizeof(out));
    struct agent_record before = out;
    assert_int_equal(parse_json(json, &out), ATT_E_PARSE);
    assert_memory_equal(&out, &before, sizeof(out));
    json_decref(json);
}

static void test_refusals(void **state)
{
    (void)state;
    refused("version", json_integer(2));
    refused("version", NULL);
    refused("unknown", json_true());
    refused("state", json_string("valid "));
    refused("state", NULL);
    refused("before", json_string("valid")); /* only of a frozen one */
    refused("name", json_string("../x"));
    refused("name", json_integer(1));
    refused("keyId", json_string("")); /* a served certificate has a key */
    refused("nextKeyId", json_string(""));
    refused("orderUrl", json_string(""));
    refused("notAfter", json_integer(0));
    refused("notAfter", json_integer(-1));
    refused("attempts", json_integer((json_int_t)UINT32_MAX + 1));
    refused("attempts", json_real(1.0));
    refused("lifetimeS", json_string("3600"));
    refused("notAfter", json_integer(INT64_MAX)); /* milliseconds of it are no number */
    char big[AGENT_URL_MAX + 2];
    memset(big, 'a', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    refused("orderUrl", json_string(big));
}

static void retired_refused(json_t *one)
{
    refused("retired", json_pack("[o]", one));
}

static void test_retired_refusals(void **state)
{
    (void)state;
    const json_int_t end = 1700;
    refused("retired", json_null());
    refused("retired", json_object());
    refused("retired", json_string("0a"));
    retired_refused(json_null());
    retired_refused(json_string("0a"));
    retired_refused(json_pack("{s:s}", "keyId", "0a"));
    retired_refused(json_pack("{s:I}", "notAfter", end));
    retired_refused(json_pack("{s:s, s:I, s:b}", "keyId", "0a", "notAfter", end, "x", 1));
    retired_refused(json_pack("{s:s, s:I}", "keyId", "", "notAfter", end));
    retired_refused(json_pack("{s:i, s:I}", "keyId", 10, "notAfter", end));
    retired_refused(json_pack("{s:s, s:s}", "keyId", "0a", "notAfter", "1700"));
    retired_refused(json_pack("{s:s, s:I}", "keyId", "0a", "notAfter", (json_int_t)0));
    retired_refused(json_pack("{s:s, s:I}", "keyId", "0a", "notAfter", (json_int_t)-1));
    retired_refused(json_pack("{s:s, s:I}", "keyId", "0a", "notAfter", (json_int_t)INT64_MAX));
    char big[AGENT_KEY_ID_MAX + 2];
    memset(big, 'a', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    retired_refused(json_pack("{s:s, s:I}", "keyId", big, "notAfter", end));
    const char *serials[] = {"", "0x0b", "0B", big};
    for (size_t i = 0; i < sizeof(serials) / sizeof(serials[0]); i++) {
        retired_refused(
            json_pack("{s:s, s:I, s:s}", "keyId", "0a", "notAfter", end, "serial", serials[i]));
    }
    retired_refused(json_pack("{s:s, s:I, s:i}", "keyId", "0a", "notAfter", end, "serial", 11));
    /* A key that is destroyed in time must be none of the others. */
    struct agent_record rec = full();
    retired_refused(json_pack("{s:s, s:I}", "keyId", rec.key_id, "notAfter", end));
    retired_refused(json_pack("{s:s, s:I}", "keyId", rec.next_key_id, "notAfter", end));
    refused("retired", json_pack("[{s:s, s:I}, {s:s, s:I}]", "keyId", "0a", "notAfter", end,
                                 "keyId", "0a", "notAfter", end + 1));
    json_t *many = json_array();
    for (int i = 0; i <= AGENT_RETIRED_MAX; i++) {
        json_array_append_new(
            many, json_pack("{s:o, s:I}", "keyId", json_sprintf("k%d", i), "notAfter", end));
    }
    refused("retired", many);
}

/* As an earlier release wrote it, and at the bound. */
static void test_retired_or_not(void **state)
{
    (void)state;
    struct agent_record rec = full(), out;
    json_t *json = as_json(&rec);
    json_object_del(json, "retired");
    json_object_set_new(json, "oldKeyId", json_string("0a"));
    assert_int_equal(parse_json(json, &out), ATT_OK);
    assert_int_equal(out.n_retired, 0);
    assert_string_equal(out.old_key_id, "0a");
    json_decref(json);
    while (rec.n_retired < AGENT_RETIRED_MAX) {
        struct agent_retired *one = &rec.retired[rec.n_retired++];
        snprintf(one->key_id, sizeof(one->key_id), "key%zu", rec.n_retired);
        one->not_after = 1;
    }
    json = as_json(&rec);
    assert_int_equal(parse_json(json, &out), ATT_OK);
    assert_memory_equal(&out, &rec, sizeof(rec));
    json_decref(json);
}

static void test_frozen_before(void **state)
{
    (void)state;
    struct agent_record rec = full(), out;
    rec.life = (struct agent_life){AGENT_FROZEN, AGENT_RENEW_FINALIZING};
    json_t *json = as_json(&rec);
    assert_int_equal(parse_json(json, &out), ATT_OK);
    assert_int_equal(out.life.before, AGENT_RENEW_FINALIZING);
    json_object_set_new(json, "before", json_string("frozen"));
    assert_int_equal(parse_json(json, &out), ATT_E_PARSE);
    json_object_set_new(json, "before", json_string("removed"));
    assert_int_equal(parse_json(json, &out), ATT_E_PARSE);
    json_decref(json);
}

static void test_round_trip(void **state)
{
    (void)state;
    struct agent_record rec = full(), out;
    json_t *json = as_json(&rec);
    assert_int_equal(parse_json(json, &out), ATT_OK);
    json_decref(json);
    assert_memory_equal(&out, &rec, sizeof(rec));
    struct agent_record empty = {.name = "a"};
    json = as_json(&empty);
    assert_int_equal(parse_json(json, &out), ATT_OK);
    json_decref(json);
    assert_memory_equal(&out, &empty, sizeof(empty));
}

static void write_text(const char *path, const char *text)
{
    assert_int_equal(att_io_write_file(path, att_slice_str(text), 0600, NULL), ATT_OK);
}

static void test_files(void **state)
{
    (void)state;
    char dir[] = "/tmp/att-record.XXXXXX", path[160], bad[176];
    assert_non_null(mkdtemp(dir));
    struct agent_record rec = full(), out = {0};
    struct att_err err = {0};
    assert_int_equal(agent_record_load(dir, rec.name, &out, NULL), ATT_E_NOTFOUND);
    assert_int_equal(agent_record_load(dir, "../x", &out, NULL), ATT_E_INVAL);
    assert_int_equal(agent_record_save(dir, &rec, NULL), ATT_OK);
    assert_int_equal(agent_record_load(dir, rec.name, &out, NULL), ATT_OK);
    assert_memory_equal(&out, &rec, sizeof(rec));
    snprintf(path, sizeof(path), "%s/%s.json", dir, rec.name);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);

    /* Garbage is kept aside, reported, and not read again. */
    write_text(path, "{\"version\": 1, ");
    assert_int_equal(agent_record_load(dir, rec.name, &out, &err), ATT_E_PARSE);
    assert_non_null(strstr(err.msg, ".bad"));
    snprintf(bad, sizeof(bad), "%s.bad", path);
    assert_int_equal(access(bad, F_OK), 0);
    assert_int_equal(agent_record_load(dir, rec.name, &out, NULL), ATT_E_NOTFOUND);

    /* Another agent's file under this name. */
    struct agent_record other = {.name = "other"};
    att_autobuf text = {0};
    assert_int_equal(agent_record_encode(&other, &text, NULL), ATT_OK);
    assert_int_equal(att_io_write_file(path, att_buf_slice(&text), 0600, NULL), ATT_OK);
    assert_int_equal(agent_record_load(dir, rec.name, &out, NULL), ATT_E_PARSE);
    char bad1[192];
    snprintf(bad1, sizeof(bad1), "%s.bad.1", path);
    assert_int_equal(access(bad1, F_OK), 0);

    assert_int_equal(agent_record_save(dir, &rec, NULL), ATT_OK);
    assert_int_equal(agent_record_remove(dir, rec.name, NULL), ATT_OK);
    assert_int_equal(agent_record_remove(dir, rec.name, NULL), ATT_OK);
    assert_int_equal(access(path, F_OK), -1);
    unlink(bad);
    unlink(bad1);
    assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refusals),       cmocka_unit_test(test_retired_refusals),
        cmocka_unit_test(test_retired_or_not), cmocka_unit_test(test_frozen_before),
        cmocka_unit_test(test_round_trip),     cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
