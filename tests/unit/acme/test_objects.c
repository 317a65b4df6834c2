#include "provision/acme/objects.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static json_t *json_of(const char *text)
{
    json_t *json = NULL;
    struct att_err err = {0};
    if (att_json_parse(att_slice_str(text), 1 << 20, &json, &err) != ATT_OK) {
        fail_msg("%s", err.msg);
    }
    return json;
}

static json_t *without(const char *text, const char *name)
{
    json_t *json = json_of(text);
    assert_int_equal(json_object_del(json, name), 0);
    return json;
}

static json_t *with(const char *text, const char *name, const char *value)
{
    json_t *json = json_of(text), *v = json_loads(value, JSON_DECODE_ANY, NULL);
    assert_non_null(v);
    assert_int_equal(json_object_set_new(json, name, v), 0);
    return json;
}

static void expect(const struct att_err *err, const char *word)
{
    if (!strstr(err->msg, word)) {
        fail_msg("\"%s\" is not in \"%s\"", word, err->msg);
    }
}

/* ---- directory ---------------------------------------------------------------------------------
 */
#define DIRECTORY                                                                                  \
    "{\"newNonce\":\"https://ca/n\",\"newAccount\":\"https://ca/a\",\"newOrder\":\"https://ca/"    \
    "o\","                                                                                         \
    "\"newAttestationKey\":\"https://ca/k\",\"hostView\":\"https://ca/v\","                        \
    "\"meta\":{\"externalAccountRequired\":true,\"profiles\":{\"trading\":\"1 h\"},"               \
    "\"attestd\":{\"version\":1,\"trustDomain\":\"bank.example\"}}}"

static void refuse_directory(json_t *json, const char *word)
{
    struct acme_directory dir = {.version = 77};
    struct att_err err = {0};
    assert_int_not_equal(acme_directory_parse(json, &dir, &err), ATT_OK);
    expect(&err, word);
    assert_int_equal(dir.version, 77);
    json_decref(json);
}

static void test_directory(void **state)
{
    (void)state;
    refuse_directory(json_of("[]"), "newNonce");
    refuse_directory(without(DIRECTORY, "newNonce"), "newNonce");
    refuse_directory(without(DIRECTORY, "newAccount"), "newAccount");
    refuse_directory(without(DIRECTORY, "newOrder"), "newOrder");
    refuse_directory(with(DIRECTORY, "newOrder", "\"http://ca/o\""), "https URL");
    refuse_directory(with(DIRECTORY, "newOrder", "\"https://ca/o\\nx\""), "control");
    refuse_directory(with(DIRECTORY, "hostView", "1"), "hostView");
    refuse_directory(with(DIRECTORY, "meta", "{\"externalAccountRequired\":\"yes\"}"),
                     "expected true or false");
    refuse_directory(with(DIRECTORY, "meta", "{\"profiles\":[]}"), "profiles");
    refuse_directory(with(DIRECTORY, "meta", "{\"profiles\":{\"a\":1}}"), "\"a\"");
    refuse_directory(with(DIRECTORY, "meta", "{\"attestd\":{\"trustDomain\":\"x\"}}"), "version");

    json_t *json = json_of(DIRECTORY), *again = NULL;
    struct acme_directory dir = {0};
    assert_int_equal(acme_directory_parse(json, &dir, NULL), ATT_OK);
    assert_true(dir.external_account_required);
    assert_string_equal(dir.profiles[0].name, "trading");
    assert_string_equal(dir.trust_domain, "bank.example");
    assert_null(dir.key_change);
    assert_int_equal(acme_directory_encode(&dir, &again, NULL), ATT_OK);
    assert_true(json_equal(json, again));
    acme_directory_done(&dir);
    json_decref(json);
    json_decref(again);
    /* A plain ACME server, with members of its own. */
    json = json_of("{\"newNonce\":\"https://ca/n\",\"newAccount\":\"https://ca/a\",\"newOrder\":"
                   "\"https://ca/o\",\"surprise\":{}}");
    assert_int_equal(acme_directory_parse(json, &dir, NULL), ATT_OK);
    assert_null(dir.host_view);
    acme_directory_done(&dir);
    json_decref(json);
}

/* ---- orders ------------------------------------------------------------------------------------
 */
#define ORDER                                                                                      \
    "{\"status\":\"pending\",\"expires\":\"2026-11-23T16:00:00Z\",\"identifiers\":[{\"type\":"     \
    "\"spiffe-id\",\"value\":\"spiffe://bank.example/agent/a\"}],\"profile\":\"trading\","         \
    "\"authorizations\":[\"https://ca/z/1\"],\"finalize\":\"https://ca/f/1\"}"

static void refuse_order(json_t *json, const char *word)
{
    struct acme_order order = {0};
    struct att_err err = {0};
    assert_int_not_equal(acme_order_parse(json, &order, &err), ATT_OK);
    expect(&err, word);
    json_decref(json);
}

static void test_order(void **state)
{
    (void)state;
    refuse_order(without(ORDER, "status"), "status");
    refuse_order(with(ORDER, "status", "\"great\""), "great");
    refuse_order(without(ORDER, "finalize"), "finalize");
    refuse_order(without(ORDER, "authorizations"), "authorizations");
    refuse_order(with(ORDER, "authorizations", "[1]"), "authorizations");
    refuse_order(with(ORDER, "authorizations", "[\"ftp://x\"]"), "authorizations");
    refuse_order(with(ORDER, "identifiers", "[]"), "identifiers");
    refuse_order(with(ORDER, "identifiers", "[{\"type\":\"dns\"}]"), "value");
    refuse_order(with(ORDER, "expires", "\"tomorrow\""), "expires");
    refuse_order(with(ORDER, "certificate", "{}"), "certificate");
    refuse_order(with(ORDER, "error", "[]"), "problem");

    json_t *json = json_of(ORDER), *again = NULL;
    struct acme_order order = {0};
    assert_int_equal(acme_order_parse(json, &order, NULL), ATT_OK);
    assert_int_equal(order.status, ACME_S_PENDING);
    assert_string_equal(order.identifiers[0].value, "spiffe://bank.example/agent/a");
    assert_int_equal(acme_order_encode(&order, &again, NULL), ATT_OK);
    assert_true(json_equal(json, again));
    json_decref(again);
    order.status = ACME_S_INVALID;
    order.has_error = true;
    acme_problem_set(&order.error, ACME_P_UNAUTHORIZED, "no");
    assert_int_equal(acme_order_encode(&order, &again, NULL), ATT_OK);
    struct acme_order back = {0};
    assert_int_equal(acme_order_parse(again, &back, NULL), ATT_OK);
    assert_int_equal(back.error.type, ACME_P_UNAUTHORIZED);
    acme_order_done(&back);
    acme_order_done(&order);
    json_decref(json);
    json_decref(again);
}

static void refuse_request(const char *text, const char *word)
{
    struct acme_order_request request = {0};
    struct att_err err = {0};
    assert_int_not_equal(acme_order_request_parse(att_slice_str(text), &request, &err), ATT_OK);
    expect(&err, word);
    assert_string_equal(err.reason, "malformed");
}

static void test_order_request(void **state)
{
    (void)state;
#define ID "{\"type\":\"spiffe-id\",\"value\":\"spiffe://x/y\"}"
    refuse_request("", "JSON");
    refuse_request("[]", "object");
    refuse_request("{}", "identifiers");
#define FOUR ID "," ID "," ID "," ID ","
    refuse_request("{\"identifiers\":[" FOUR FOUR FOUR FOUR ID "]}", "1 … 16");
    refuse_request("{\"identifiers\":[" ID "],\"notAfter\":\"2030-01-01T00:00:00Z\"}", "notAfter");
    refuse_request("{\"identifiers\":[" ID "],\"notBefore\":\"2030-01-01T00:00:00Z\"}",
                   "notBefore");
    refuse_request("{\"identifiers\":[" ID "],\"notAfter\":\"0001-01-01T00:00:01Z\"}", "notAfter");
    refuse_request("{\"identifiers\":[" ID "],\"notAfter\":null}", "notAfter");
    refuse_request("{\"identifiers\":[" ID "],\"profile\":1}", "profile");
    refuse_request("{\"identifiers\":[{\"type\":\"spiffe-id\",\"value\":\"\"}]}", "value");
    refuse_request("{\"identifiers\":[" ID "],\"identifiers\":[]}", "twice");
    struct acme_order_request request = {0};
    struct att_buf text = {0};
    /* The times as the step command sends them. */
    const char good[] = "{\"identifiers\":[" ID "],\"profile\":\"p\",\"x\":1,"
                        "\"notBefore\":\"0001-01-01T00:00:00Z\","
                        "\"notAfter\":\"0001-01-01T00:00:00Z\"}";
    assert_int_equal(acme_order_request_parse(att_slice_str(good), &request, NULL), ATT_OK);
    assert_string_equal(request.profile, "p");
    assert_int_equal(acme_order_request_encode(&request, &text, NULL), ATT_OK);
    assert_string_equal(att_buf_cstr(&text), "{\"identifiers\":[" ID "],\"profile\":\"p\"}");
    acme_order_request_done(&request);
    att_buf_done(&text);
}

static void test_finalize(void **state)
{
    (void)state;
    static const char *const bad[] = {"{}", "{\"csr\":\"\"}", "{\"csr\":1}", "{\"csr\":\"a=\"}"};
    for (size_t i = 0; i < 4; i++) {
        struct att_buf csr = {0};
        struct att_err err = {0};
        assert_int_not_equal(acme_finalize_request_parse(att_slice_str(bad[i]), &csr, &err),
                             ATT_OK);
        assert_string_equal(err.reason, "badCSR");
        att_buf_done(&csr);
    }
    struct att_buf csr = {0}, text = {0};
    assert_int_equal(acme_finalize_request_encode(ATT_SLICE_LIT("csr"), &text, NULL), ATT_OK);
    assert_int_equal(acme_finalize_request_parse(att_buf_slice(&text), &csr, NULL), ATT_OK);
    assert_true(att_slice_eq_str(att_buf_slice(&csr), "csr"));
    att_buf_done(&csr);
    att_buf_done(&text);
}

/* ---- accounts ----------------------------------------------------------------------------------
 */
static void test_account(void **state)
{
    (void)state;
    static const char *const bad[] = {"[]",
                                      "{\"contact\":{}}",
                                      "{\"contact\":[1]}",
                                      "{\"onlyReturnExisting\":1}",
                                      "{\"externalAccountBinding\":\"x\"}",
                                      "{\"contact\":[\"a\\nb\"]}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct acme_account_request request = {0};
        struct att_err err = {0};
        assert_int_not_equal(acme_account_request_parse(att_slice_str(bad[i]), &request, &err),
                             ATT_OK);
        assert_string_equal(err.reason, "malformed");
    }
    struct acme_account_request request = {0};
    const char good[] = "{\"termsOfServiceAgreed\":true,\"contact\":[\"mailto:a@b\"],"
                        "\"externalAccountBinding\":{\"payload\":\"\"}}";
    struct att_buf text = {0};
    assert_int_equal(acme_account_request_parse(att_slice_str(good), &request, NULL), ATT_OK);
    assert_true(request.terms_agreed && !request.only_return_existing);
    assert_int_equal(acme_account_request_encode(&request, &text, NULL), ATT_OK);
    assert_string_equal(att_buf_cstr(&text), good);
    struct acme_account account = {.status = ACME_S_VALID, .contact = json_incref(request.contact)};
    struct acme_account back = {0};
    json_t *json = NULL;
    assert_int_equal(acme_account_encode(&account, &json, NULL), ATT_OK);
    assert_int_equal(acme_account_parse(json, &back, NULL), ATT_OK);
    assert_int_equal(back.status, ACME_S_VALID);
    json_decref(json);
    acme_account_done(&back);
    acme_account_done(&account);
    acme_account_request_done(&request);
    att_buf_done(&text);
}

/* ---- authorizations ----------------------------------------------------------------------------
 */
#define DIGEST "0101010101010101010101010101010101010101010101010101010101010101"
#define CHALLENGE                                                                                  \
    "{\"type\":\"device-attest-01\",\"url\":\"https://ca/c/1\",\"status\":\"pending\",\"token\":"  \
    "\"AAAAAAAAAAAAAAAAAAAAAA\",\"pcrSelection\":\"sha256:0,7\",\"logs\":[\"firmware\"],"          \
    "\"known\":[\"" DIGEST "\"]}"

static void refuse_challenge(json_t *json, const char *word)
{
    struct acme_challenge challenge = {0};
    struct att_err err = {0};
    assert_int_not_equal(acme_challenge_parse(json, &challenge, &err), ATT_OK);
    expect(&err, word);
    json_decref(json);
}

static void test_challenge(void **state)
{
    (void)state;
    refuse_challenge(without(CHALLENGE, "type"), "type");
    refuse_challenge(without(CHALLENGE, "url"), "url");
    refuse_challenge(without(CHALLENGE, "status"), "status");
    refuse_challenge(without(CHALLENGE, "token"), "token");
    refuse_challenge(with(CHALLENGE, "token", "\"AAAAAAAAAAAAAAAAAAAAA\""), "128 bits");
    refuse_challenge(with(CHALLENGE, "token", "\"AAAAAAAAAAAAAAAAAAAAAA==\""), "128 bits");
    refuse_challenge(with(CHALLENGE, "pcrSelection", "7"), "pcrSelection");
    refuse_challenge(with(CHALLENGE, "logs", "{}"), "logs");
    refuse_challenge(with(CHALLENGE, "logs", "[\"a-name-that-is-too-long\"]"), "logs");
    refuse_challenge(with(CHALLENGE, "known", "[\"01\"]"), "known");
    json_t *json = json_of(CHALLENGE), *again = NULL;
    struct acme_challenge challenge = {0};
    assert_int_equal(acme_challenge_parse(json, &challenge, NULL), ATT_OK);
    assert_int_equal(challenge.wanted.known[0][31], 1);
    assert_int_equal(acme_challenge_encode(&challenge, &again, NULL), ATT_OK);
    assert_true(json_equal(json, again));
    acme_challenge_done(&challenge);
    json_decref(json);
    json_decref(again);
}

static void test_authz(void **state)
{
    (void)state;
    /* Unknown challenge types are skipped, whatever is in them. */
    json_t *json = json_of(
        "{\"identifier\":{\"type\":\"spiffe-id\",\"value\":\"spiffe://x/y\"},"
        "\"status\":\"pending\",\"challenges\":[{\"type\":\"http-01\"},{},1," CHALLENGE "]}");
    struct acme_authz authz = {0};
    assert_int_equal(acme_authz_parse(json, &authz, NULL), ATT_OK);
    assert_int_equal(authz.n_challenges, 1);
    assert_non_null(acme_authz_find(&authz, ACME_CHALLENGE_DEVICE_ATTEST));
    assert_null(acme_authz_find(&authz, "http-01"));
    json_t *again = NULL;
    assert_int_equal(acme_authz_encode(&authz, &again, NULL), ATT_OK);
    acme_authz_done(&authz);
    assert_int_equal(acme_authz_parse(again, &authz, NULL), ATT_OK);
    assert_int_equal(authz.n_challenges, 1);
    acme_authz_done(&authz);
    json_decref(again);
    assert_int_equal(json_object_del(json, "challenges"), 0);
    assert_int_not_equal(acme_authz_parse(json, &authz, NULL), ATT_OK);
    json_decref(json);
    /* … but one that we know must be whole. */
    json = json_of("{\"identifier\":{\"type\":\"spiffe-id\",\"value\":\"spiffe://x/y\"},"
                   "\"status\":\"pending\",\"challenges\":[" CHALLENGE
                   ",{\"type\":\"device-attest-01\"}]}");
    assert_int_not_equal(acme_authz_parse(json, &authz, NULL), ATT_OK);
    json_decref(json);
}

static void test_key_authorization(void **state)
{
    (void)state;
    struct att_buf text = {0};
    acme_key_authorization("token", "thumb", &text);
    assert_string_equal(att_buf_cstr(&text), "token.thumb");
    att_buf_done(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_directory),     cmocka_unit_test(test_order),
        cmocka_unit_test(test_order_request), cmocka_unit_test(test_finalize),
        cmocka_unit_test(test_account),       cmocka_unit_test(test_challenge),
        cmocka_unit_test(test_authz),         cmocka_unit_test(test_key_authorization),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
