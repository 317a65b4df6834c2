/* Headers, time-outs, messages and SignRequests: each refusal alone. The connection's own behaviour
 * is tested with frames (integration/test_grpc_transport). */
#include "attestd/spiffe/budget.h"
#include "attestd/spiffe/inbox.h"
#include "attestd/spiffe/sign_request.h"
#include "signer.pb-c.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

struct field {
    const char *name, *value;
};

static const struct field good[] = {{":method", "POST"}, {":scheme", "http"},
                                    {":path", "/a.S/M"}, {":authority", "localhost"},
                                    {"te", "trailers"},  {"content-type", "application/grpc"}};

/* The good ones, with one changed (value NULL: left out) or added. */
static enum grpc_headers_verdict judge(const char *name, const char *value, int *ret_code,
                                       const char **ret_why)
{
    struct grpc_headers headers;
    bool changed = !name;
    grpc_headers_init(&headers, "mark");
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        bool this = name && strcmp(name, good[i].name) == 0;
        const char *now = this ? value : good[i].value;
        changed = changed || this;
        if (now) {
            assert_true(
                grpc_headers_add(&headers, att_slice_str(good[i].name), att_slice_str(now)));
        }
    }
    if (!changed) {
        assert_true(grpc_headers_add(&headers, att_slice_str(name), att_slice_str(value)));
    }
    return grpc_headers_check(&headers, ret_code, ret_why);
}

static void test_headers_refused_one_by_one(void **state)
{
    static const struct {
        const char *name, *value;
        enum grpc_headers_verdict verdict;
        int code;
        const char *why;
    } cases[] = {
        {NULL, NULL, GRPC_HEADERS_OK, 0, ""},
        {":authority", "/run/attestd/public/api.sock", GRPC_HEADERS_OK, 0, ""},
        {":authority", NULL, GRPC_HEADERS_OK, 0, ""},
        {"grpc-encoding", "identity", GRPC_HEADERS_OK, 0, ""},
        {":method", "GET", GRPC_HEADERS_HTTP, 405, "the method is not POST"},
        {"content-type", "text/plain", GRPC_HEADERS_HTTP, 415, "the content-type is not "},
        {"content-type", "application/grpcx", GRPC_HEADERS_HTTP, 415, "the content-type is not "},
        {"te", NULL, GRPC_HEADERS_REFUSED, GRPC_INTERNAL, "te: trailers is missing"},
        {"grpc-timeout", "1", GRPC_HEADERS_REFUSED, GRPC_INTERNAL, "grpc-timeout has not its form"},
        {"attestd-fresh", "true", GRPC_HEADERS_OK, 0, ""},
        {"attestd-fresh", "yes", GRPC_HEADERS_REFUSED, GRPC_INVALID_ARGUMENT, "attestd-fresh: exp"},
        {"grpc-encoding", "gzip", GRPC_HEADERS_REFUSED, GRPC_UNIMPLEMENTED, "grpc-encoding: only"},
        {":path", NULL, GRPC_HEADERS_MALFORMED, 0, ":method, :scheme or :path is missing"},
        {":scheme", "ftp", GRPC_HEADERS_MALFORMED, 0, ":scheme is neither"},
        {":path", "x", GRPC_HEADERS_MALFORMED, 0, ":path does not begin"},
        {":status", "200", GRPC_HEADERS_MALFORMED, 0, "a pseudo-header after a header"},
        {"connection", "close", GRPC_HEADERS_MALFORMED, 0, "a header that HTTP/2 does not allow"},
        {"Upper", "x", GRPC_HEADERS_MALFORMED, 0, "a header that HTTP/2 does not allow"},
        {"x", "a\nb", GRPC_HEADERS_MALFORMED, 0, "a header that HTTP/2 does not allow"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int code = -1;
        const char *why = NULL;
        enum grpc_headers_verdict verdict = judge(cases[i].name, cases[i].value, &code, &why);
        if (verdict != cases[i].verdict || code != cases[i].code ||
            strncmp(why, cases[i].why, strlen(cases[i].why)) != 0) {
            fail_msg("case %zu: %d %d \"%s\"", i, verdict, code, why);
        }
    }
}

static void test_headers_of_one_request_are_bounded(void **state)
{
    struct grpc_headers headers;
    static char value[GRPC_HEADER_BYTES_MAX];
    (void)state;
    grpc_headers_init(&headers, NULL);
    for (unsigned i = 0; i < GRPC_HEADERS_MAX; i++) {
        assert_true(grpc_headers_add(&headers, ATT_SLICE_LIT("x"), ATT_SLICE_LIT("y")));
    }
    assert_false(grpc_headers_add(&headers, ATT_SLICE_LIT("x"), ATT_SLICE_LIT("y")));
    grpc_headers_init(&headers, NULL);
    memset(value, 'y', sizeof value);
    assert_true(
        grpc_headers_add(&headers, ATT_SLICE_LIT("x"), ATT_SLICE(value, sizeof value - 33)));
    assert_false(grpc_headers_add(&headers, ATT_SLICE_LIT("x"), ATT_SLICE_LIT("")));
}

static void test_mark_must_come_once_and_be_true(void **state)
{
    static const struct {
        const char *values[2];
        bool ok;
    } cases[] = {{{"true"}, true},
                 {{NULL}, false},
                 {{"True"}, false},
                 {{"true", "true"}, false},
                 {{"false", "true"}, false}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct grpc_headers headers;
        grpc_headers_init(&headers, "mark");
        for (size_t k = 0; k < 2 && cases[i].values[k]; k++) {
            assert_true(grpc_headers_add(&headers, ATT_SLICE_LIT("mark"),
                                         att_slice_str(cases[i].values[k])));
        }
        assert_int_equal(grpc_headers_marked(&headers), cases[i].ok);
    }
}

static void test_timeouts_and_their_units(void **state)
{
    static const struct {
        const char *text;
        int64_t us; /* -1: refused */
    } cases[] = {{"1H", 3600000000}, {"2M", 120000000},
                 {"3S", 3000000},    {"4m", 4000},
                 {"5u", 5},          {"6000n", 6},
                 {"0S", 0},          {"99999999H", 99999999 * INT64_C(3600000000)},
                 {"", -1},           {"S", -1},
                 {"1", -1},          {"1s", -1},
                 {"-1S", -1},        {"123456789S", -1},
                 {"1 S", -1},        {"1.5S", -1}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int64_t us = -1;
        bool ok = grpc_timeout_parse(att_slice_str(cases[i].text), &us);
        if (ok != (cases[i].us >= 0) || (ok && us != cases[i].us)) {
            fail_msg("%s: %d %lld", cases[i].text, ok, (long long)us);
        }
    }
}

static void test_status_messages_are_percent_encoded_and_cut(void **state)
{
    char text[16];
    (void)state;
    size_t len = grpc_message_encode("a%b\n", text, sizeof text);
    assert_memory_equal(text, "a%25b%0A", len);
    assert_int_equal(len, 8);
    assert_int_equal(grpc_message_encode("ab\n", text, 4), 2); /* no half of an escape */
}

static enum grpc_status put(struct grpc_inbox *inbox, const void *bytes, size_t len, size_t *used)
{
    return grpc_inbox_put(inbox, ATT_SLICE(bytes, len), used);
}

static void test_inbox_refuses_long_and_compressed(void **state)
{
    struct grpc_inbox inbox;
    size_t used;
    (void)state;
    grpc_inbox_init(&inbox, 4);
    assert_int_equal(put(&inbox, "\0\0\0\0\5", 5, &used), GRPC_RESOURCE_EXHAUSTED);
    assert_int_equal(inbox.message.cap, 0); /* nothing is kept for what is only announced */
    grpc_inbox_done(&inbox);
    grpc_inbox_init(&inbox, 4);
    assert_int_equal(put(&inbox, "\1\0\0\0\1", 5, &used), GRPC_INTERNAL);
    grpc_inbox_done(&inbox);
    grpc_inbox_init(&inbox, 4);
    assert_true(grpc_inbox_empty(&inbox));
    assert_int_equal(put(&inbox, "\0\0\0", 3, &used), GRPC_OK);
    assert_false(grpc_inbox_empty(&inbox));
    assert_false(grpc_inbox_full(&inbox));
    assert_int_equal(put(&inbox, "\0\2ab\0", 5, &used), GRPC_OK);
    assert_int_equal(used, 4); /* what is behind it is the next one's */
    assert_true(grpc_inbox_full(&inbox));
    assert_memory_equal(inbox.message.ptr, "ab", 2);
    grpc_inbox_done(&inbox);
}

static void test_budget_is_spent_and_comes_back(void **state)
{
    struct grpc_budget budget;
    (void)state;
    grpc_budget_init(&budget, 1000);
    for (int i = 0; i < GRPC_BUDGET_MAX / GRPC_COST_RESET; i++) {
        assert_true(grpc_budget_take(&budget, GRPC_COST_RESET, 1000));
    }
    assert_false(grpc_budget_take(&budget, 1, 1000));
    assert_true(grpc_budget_take(&budget, GRPC_BUDGET_A_SECOND - 1, 2000));
    assert_false(grpc_budget_take(&budget, 1, 2000));
    grpc_budget_give(&budget, 3 * GRPC_BUDGET_MAX);
    assert_int_equal(budget.points, GRPC_BUDGET_MAX);
    assert_true(grpc_budget_take(&budget, GRPC_BUDGET_MAX, INT64_MAX / 200)); /* no overflow */
}

static const char *sign_with(int algorithm, size_t digest_len, const char *key_id, const char *id,
                             struct sign_request *ret)
{
    uint8_t digest[80] = {0}, packed[1024];
    Attestd__V1__SignRequest request;
    attestd__v1__sign_request__init(&request);
    request.algorithm = (Attestd__V1__Algorithm)algorithm;
    request.digest = (ProtobufCBinaryData){digest_len, digest};
    request.key_id = (char *)(uintptr_t)key_id;
    request.spiffe_id = (char *)(uintptr_t)id;
    size_t len = attestd__v1__sign_request__pack(&request, packed);
    return sign_request_parse(ATT_SLICE(packed, len), ret);
}

static void test_sign_requests_refused_one_by_one(void **state)
{
    static const char key[] = "00112233445566778899aabbccddeeff";
    static char long_id[PROC_SPIFFE_ID_MAX + 2];
    struct sign_request got;
    (void)state;
    memset(long_id, 'a', sizeof long_id - 1);
    assert_null(sign_with(1, 20, "", "", &got));
    assert_int_equal(got.scheme, 0);
    assert_int_equal(got.digest_len, 20);
    assert_null(sign_with(2, 48, key, "spiffe://a/b", &got));
    assert_int_equal(got.scheme, 1);
    assert_string_equal(got.key_id, key);
    assert_string_equal(got.spiffe_id, "spiffe://a/b");
    assert_null(sign_with(3, 64, "", "", &got));
    assert_int_equal(got.scheme, 2);
    assert_string_equal(sign_with(0, 32, "", "", &got),
                        "algorithm: ECDSA, RSA_PKCS1 or RSA_PSS expected");
    assert_string_equal(sign_with(4, 32, "", "", &got),
                        "algorithm: ECDSA, RSA_PKCS1 or RSA_PSS expected");
    assert_string_equal(sign_with(1, 19, "", "", &got), "digest: 20 to 64 bytes expected");
    assert_string_equal(sign_with(1, 65, "", "", &got), "digest: 20 to 64 bytes expected");
    assert_string_equal(sign_with(2, 20, "", "", &got),
                        "digest: 32, 48 or 64 bytes expected for RSA");
    assert_string_equal(sign_with(1, 32, "00", "", &got),
                        "key_id: 32 lowercase hexadecimal digits expected, as Chain answers");
    assert_string_equal(sign_with(1, 32, "00112233445566778899AABBCCDDEEFF", "", &got),
                        "key_id: 32 lowercase hexadecimal digits expected, as Chain answers");
    assert_string_equal(sign_with(1, 32, "", long_id, &got), "spiffe_id: 512 bytes at most");
    assert_string_equal(sign_request_parse(ATT_SLICE_LIT("\x1a\xff"), &got),
                        "the request is no SignRequest");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_headers_refused_one_by_one),
        cmocka_unit_test(test_headers_of_one_request_are_bounded),
        cmocka_unit_test(test_mark_must_come_once_and_be_true),
        cmocka_unit_test(test_timeouts_and_their_units),
        cmocka_unit_test(test_status_messages_are_percent_encoded_and_cut),
        cmocka_unit_test(test_inbox_refuses_long_and_compressed),
        cmocka_unit_test(test_budget_is_spent_and_comes_back),
        cmocka_unit_test(test_sign_requests_refused_one_by_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
