#include "attestd/base/enc.h"
#include "provision/evidence/logs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void refuse(const char *text, const char *word)
{
    json_t *json = NULL;
    struct att_err err = {0};
    struct evidence_logs logs = {.n = 77};
    assert_int_equal(att_json_parse(att_slice_str(text), 1 << 20, &json, NULL), ATT_OK);
    assert_int_not_equal(evidence_logs_parse(json, &logs, &err), ATT_OK);
    if (!strstr(err.msg, word)) {
        fail_msg("\"%s\" is not in \"%s\"", word, err.msg);
    }
    assert_int_equal(logs.n, 77);
    json_decref(json);
}

#define HELLO "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"

/* A log entry whose data is the gzip of bytes. */
static char *entry(const char *length, const char *hex, struct att_slice gz)
{
    struct att_buf text = {0};
    att_buf_put_str(&text, "[{\"name\":\"ima\",\"length\":");
    att_buf_put_str(&text, length);
    att_buf_put_str(&text, ",\"sha256\":\"");
    att_buf_put_str(&text, hex);
    att_buf_put_str(&text, "\",\"data\":\"");
    att_buf_b64u(&text, gz);
    att_buf_put_str(&text, "\"}]");
    assert_non_null(att_buf_cstr(&text));
    return (char *)text.ptr;
}

static void refuse_entry(const char *length, const char *hex, struct att_slice gz, const char *word)
{
    char *text = entry(length, hex, gz);
    refuse(text, word);
    free(text);
}

static void test_refusals(void **state)
{
    (void)state;
    refuse("{}", "expected an array");
    refuse("[1]", "\"name\"");
    refuse("[{}]", "\"name\"");
    refuse("[{},{},{},{}]", "at most 3");
    refuse("[{\"name\":\"kernel\",\"length\":0,\"sha256\":\"" HELLO "\"}]", "expected firmware");
    refuse("[{\"name\":\"ima\",\"length\":0,\"sha256\":\"" HELLO "\",\"x\":1}]", "members");
    refuse("[{\"name\":\"ima\",\"length\":0}]", "members");
    refuse("[{\"name\":\"ima\",\"length\":-1,\"sha256\":\"" HELLO "\"}]", "\"length\"");
    refuse("[{\"name\":\"ima\",\"length\":4194305,\"sha256\":\"" HELLO "\"}]", "\"length\"");
    refuse("[{\"name\":\"ima\",\"length\":1.0,\"sha256\":\"" HELLO "\"}]", "\"length\"");
    refuse("[{\"name\":\"ima\",\"length\":1,\"sha256\":\"2c\"}]", "expected 64 hex digits");
    refuse("[{\"name\":\"ima\",\"length\":1,\"sha256\":\"2CF24dba5fb0a30e26e83b2ac5b9e29e1b161e5c"
           "1fa7425e73043362938b9824\"}]",
           "lowercase");
    refuse("[{\"name\":\"ima\",\"length\":1,\"sha256\":\"" HELLO "\"},"
           "{\"name\":\"ima\",\"length\":1,\"sha256\":\"" HELLO "\"}]",
           "twice");
}

static void test_gzip_refusals(void **state)
{
    (void)state;
    struct att_buf gz = {0};
    assert_int_equal(evidence_gzip(ATT_SLICE_LIT("hello"), &gz, NULL), ATT_OK);
    refuse_entry("5", HELLO, ATT_SLICE_LIT(""), "gzip");
    refuse_entry("5", HELLO, ATT_SLICE_LIT("hello"), "gzip");
    refuse_entry("5", HELLO, ATT_SLICE(gz.ptr, gz.len - 1), "truncated");
    refuse_entry("5", HELLO, ATT_SLICE(gz.ptr, 3), "truncated");
    refuse_entry("6", HELLO, att_buf_slice(&gz), "length says 6 bytes, there are 5");
    refuse_entry("5", "3cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
                 att_buf_slice(&gz), "sha256 is not");
    size_t one = gz.len;
    att_buf_u8(&gz, 0);
    refuse_entry("5", HELLO, att_buf_slice(&gz), "1 bytes after the end");
    gz.len = one;
    /* Two members: gunzip(1) would join them. */
    assert_int_equal(evidence_gzip(ATT_SLICE_LIT("x"), &gz, NULL), ATT_OK);
    refuse_entry("6", HELLO, att_buf_slice(&gz), "after the end");
    gz.len = one;
    gz.ptr[one - 6] ^= 1; /* CRC-32 */
    refuse_entry("5", HELLO, att_buf_slice(&gz), "incorrect data check");
    att_buf_done(&gz);
}

/* 64 MiB of zeroes in 64 KiB: stopped at the cap, and the cap itself still passes. */
static void test_bomb(void **state)
{
    (void)state;
    struct att_buf gz = ATT_BUF_INIT((size_t)128 << 20), out = {0};
    struct att_err err = {0};
    size_t len = (size_t)64 << 20;
    uint8_t *zeroes = calloc(1, len);
    assert_int_equal(evidence_gzip(ATT_SLICE(zeroes, len), &gz, NULL), ATT_OK);
    assert_true(gz.len < 100000);
    assert_int_equal(evidence_gunzip(att_buf_slice(&gz), EVIDENCE_LOG_MAX, &out, &err),
                     ATT_E_LIMIT);
    assert_int_equal(out.len, 0);
    assert_true(out.cap <= 2 * EVIDENCE_LOG_MAX + 2);
    refuse_entry("4194304", HELLO, att_buf_slice(&gz), "more than 4194304 bytes unpacked");
    gz.len = 0;
    assert_int_equal(evidence_gzip(ATT_SLICE(zeroes, EVIDENCE_LOG_MAX), &gz, NULL), ATT_OK);
    assert_int_equal(evidence_gunzip(att_buf_slice(&gz), EVIDENCE_LOG_MAX, &out, NULL), ATT_OK);
    assert_int_equal(out.len, EVIDENCE_LOG_MAX);
    out.len = 0;
    assert_int_equal(evidence_gunzip(att_buf_slice(&gz), EVIDENCE_LOG_MAX - 1, &out, NULL),
                     ATT_E_LIMIT);
    free(zeroes);
    att_buf_done(&gz);
    att_buf_done(&out);
}

static void test_round_trip(void **state)
{
    (void)state;
    struct evidence_logs logs = {0}, back = {0};
    json_t *json = NULL;
    assert_int_equal(evidence_logs_add(&logs, "systemd", ATT_SLICE_LIT(""), NULL), ATT_OK);
    assert_int_equal(evidence_logs_add(&logs, "firmware", ATT_SLICE_LIT("hello"), NULL), ATT_OK);
    assert_int_equal(evidence_logs_add(&logs, "firmware", ATT_SLICE_LIT("x"), NULL), ATT_E_EXISTS);
    assert_int_equal(evidence_logs_add(&logs, "other", ATT_SLICE_LIT("x"), NULL), ATT_E_INVAL);
    assert_string_equal(logs.log[0].name, "firmware");
    assert_int_equal(evidence_logs_encode(&logs, NULL, 0, &json, NULL), ATT_OK);
    assert_int_equal(evidence_logs_parse(json, &back, NULL), ATT_OK);
    assert_true(evidence_logs_match(&logs, &back));
    assert_true(back.log[0].has_data && back.log[1].has_data);
    assert_true(att_slice_eq(att_buf_slice(&back.log[0].data), ATT_SLICE_LIT("hello")));
    assert_non_null(evidence_logs_find(&back, "systemd"));
    assert_null(evidence_logs_find(&back, "ima"));
    json_decref(json);
    evidence_logs_done(&back);
    evidence_logs_done(&logs);
}

static void test_known(void **state)
{
    (void)state;
    struct evidence_logs logs = {0}, back = {0};
    struct att_err err = {0};
    json_t *json = NULL;
    uint8_t known[1][ATT_SHA256_LEN];
    att_sha256(known[0], ATT_SLICE_LIT("hello"));
    assert_int_equal(evidence_logs_add(&logs, "firmware", ATT_SLICE_LIT("hello"), NULL), ATT_OK);
    assert_int_equal(
        evidence_logs_encode(&logs, (const uint8_t(*)[ATT_SHA256_LEN])known, 1, &json, NULL),
        ATT_OK);
    assert_null(json_object_get(json_array_get(json, 0), "data"));
    assert_int_equal(evidence_logs_parse(json, &back, NULL), ATT_OK);
    assert_false(back.log[0].has_data);
    /* What is not here cannot be sent to somebody who lacks it. */
    json_t *again = NULL;
    assert_int_equal(evidence_logs_encode(&back, NULL, 0, &again, &err), ATT_E_INVAL);
    /* Only the named bytes may fill the gap. */
    assert_int_equal(evidence_logs_supply(&back, "firmware", ATT_SLICE_LIT("hellO"), NULL),
                     ATT_E_AUTH);
    assert_false(back.log[0].has_data);
    assert_int_equal(evidence_logs_supply(&back, "ima", ATT_SLICE_LIT("hello"), NULL),
                     ATT_E_NOTFOUND);
    assert_int_equal(evidence_logs_supply(&back, "firmware", ATT_SLICE_LIT("hello"), NULL), ATT_OK);
    assert_true(back.log[0].has_data);
    json_decref(json);
    evidence_logs_done(&back);
    evidence_logs_done(&logs);
}

/* A tail travels beside the log and is no part of what is named and signed. */
static void test_tail(void **state)
{
    (void)state;
    struct evidence_logs logs = {0}, back = {0};
    struct att_err err = {0};
    att_autobuf big = {0}, gz = {0};
    att_autojson *json = NULL;
    assert_int_equal(evidence_logs_add(&logs, "firmware", ATT_SLICE_LIT("x"), NULL), ATT_OK);
    assert_int_equal(evidence_logs_add(&logs, "ima", ATT_SLICE_LIT("hello"), NULL), ATT_OK);
    assert_int_equal(evidence_logs_set_tail(&logs, "firmware", ATT_SLICE_LIT("y"), NULL),
                     ATT_E_INVAL);
    assert_int_equal(evidence_logs_set_tail(&logs, "systemd", ATT_SLICE_LIT("y"), NULL),
                     ATT_E_NOTFOUND);
    for (size_t i = 0; i <= EVIDENCE_TAIL_MAX; i++) {
        att_buf_u8(&big, 'x');
    }
    assert_int_equal(evidence_logs_set_tail(&logs, "ima", att_buf_slice(&big), NULL), ATT_E_LIMIT);
    assert_int_equal(evidence_logs_set_tail(&logs, "ima", ATT_SLICE_LIT(", world"), NULL), ATT_OK);
    assert_int_equal(evidence_logs_encode(&logs, NULL, 0, &json, NULL), ATT_OK);
    assert_int_equal(evidence_logs_parse(json, &back, NULL), ATT_OK);
    assert_true(evidence_logs_match(&logs, &back));
    assert_true(att_slice_eq(att_buf_slice(&back.log[1].data), ATT_SLICE_LIT("hello")));
    assert_true(att_slice_eq(att_buf_slice(&back.log[1].tail), ATT_SLICE_LIT(", world")));
    assert_int_equal(back.log[0].tail.len, 0);
    evidence_logs_done(&back);
    /* None for the firmware's log, none that is too long, none that is no gzip. */
    json_t *first = json_array_get(json, 0), *second = json_array_get(json, 1);
    json_object_set(first, "tail", json_object_get(second, "tail"));
    assert_int_equal(evidence_logs_parse(json, &back, &err), ATT_E_PARSE);
    assert_non_null(strstr(err.msg, "log \"firmware\": the firmware's log does not grow"));
    json_object_del(first, "tail");
    assert_int_equal(evidence_gzip(att_buf_slice(&big), &gz, NULL), ATT_OK);
    assert_int_equal(att_json_set_b64u(second, "tail", att_buf_slice(&gz), NULL), ATT_OK);
    att_err_clear(&err);
    assert_int_equal(evidence_logs_parse(json, &back, &err), ATT_E_LIMIT);
    assert_non_null(strstr(err.msg, "\"tail\""));
    json_object_set_new(second, "tail", json_string("aaaa"));
    assert_int_equal(evidence_logs_parse(json, &back, NULL), ATT_E_PARSE);
    evidence_logs_done(&logs);
}

/* A log that goes on from what the other side knows: the rest travels. */
static void test_base(void **state)
{
    (void)state;
    struct evidence_logs logs = {0}, back = {0};
    struct att_err err = {0};
    att_autojson *json = NULL, *whole = NULL;
    uint8_t known[1][ATT_SHA256_LEN];
    const uint8_t(*list)[ATT_SHA256_LEN] = (const uint8_t(*)[ATT_SHA256_LEN])known;
    att_sha256(known[0], ATT_SLICE_LIT("hello"));
    assert_int_equal(evidence_logs_add(&logs, "ima", ATT_SLICE_LIT("hello, world"), NULL), ATT_OK);
    assert_int_equal(evidence_logs_set_base(&logs, "ima", 13, known[0], NULL), ATT_E_INVAL);
    assert_int_equal(evidence_logs_set_base(&logs, "ima", 5, known[0], NULL), ATT_OK);
    /* Who does not know the base gets all of it. */
    assert_int_equal(evidence_logs_encode(&logs, NULL, 0, &whole, NULL), ATT_OK);
    assert_null(json_object_get(json_array_get(whole, 0), "base"));
    assert_int_equal(evidence_logs_encode(&logs, list, 1, &json, NULL), ATT_OK);
    json_t *entry = json_array_get(json, 0);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(entry, "base"), "length")),
                     5);
    assert_int_equal(evidence_logs_parse(json, &back, NULL), ATT_OK);
    assert_false(back.log[0].has_data);
    assert_int_equal(evidence_logs_supply(&back, "ima", ATT_SLICE_LIT("hellO"), &err), ATT_E_AUTH);
    assert_non_null(strstr(err.msg, "its base"));
    assert_false(back.log[0].has_data);
    assert_int_equal(evidence_logs_supply(&back, "ima", ATT_SLICE_LIT("hello"), NULL), ATT_OK);
    assert_true(back.log[0].has_data);
    assert_true(att_slice_eq(att_buf_slice(&back.log[0].data), ATT_SLICE_LIT("hello, world")));
    evidence_logs_done(&back);
    /* A rest that makes another log than the one named. */
    json_object_set_new(entry, "sha256", json_string(HELLO));
    assert_int_equal(evidence_logs_parse(json, &back, NULL), ATT_OK);
    att_err_clear(&err);
    assert_int_equal(evidence_logs_supply(&back, "ima", ATT_SLICE_LIT("hello"), &err), ATT_E_AUTH);
    assert_non_null(strstr(err.msg, "not those named"));
    assert_false(back.log[0].has_data);
    evidence_logs_done(&back);
    json_object_set_new(entry, "length", json_integer(11));
    att_err_clear(&err);
    assert_int_equal(evidence_logs_parse(json, &back, &err), ATT_E_PARSE);
    assert_non_null(strstr(err.msg, "behind the first"));
    json_object_del(entry, "data");
    att_err_clear(&err);
    assert_int_equal(evidence_logs_parse(json, &back, &err), ATT_E_PARSE);
    assert_non_null(strstr(err.msg, "members"));
    refuse("[{\"name\":\"ima\",\"length\":0,\"sha256\":\"" HELLO
           "\",\"data\":\"H4sIAAAAAAAAAwMAAAAAAAAAAAA\","
           "\"base\":{\"length\":0}}]",
           "\"base\"");
    evidence_logs_done(&logs);
}

static void test_gzip_is_stable(void **state)
{
    (void)state;
    struct att_buf a = {0}, b = {0};
    assert_int_equal(evidence_gzip(ATT_SLICE_LIT("same bytes"), &a, NULL), ATT_OK);
    assert_int_equal(evidence_gzip(ATT_SLICE_LIT("same bytes"), &b, NULL), ATT_OK);
    assert_true(att_slice_eq(att_buf_slice(&a), att_buf_slice(&b)));
    assert_int_equal(a.ptr[3], 0); /* no name, comment or extra field: RFC 1952 §2.3.1 */
    att_buf_done(&a);
    att_buf_done(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refusals), cmocka_unit_test(test_gzip_refusals),
        cmocka_unit_test(test_bomb),     cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_known),    cmocka_unit_test(test_gzip_is_stable),
        cmocka_unit_test(test_tail),     cmocka_unit_test(test_base),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
