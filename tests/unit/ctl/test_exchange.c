/* A token exchange's request, and answers: each refusal alone with its word, then what is taken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "attestd/ctl/exchange.h"

#include <stdlib.h>
#include <string.h>

static char endpoint[] = "https://a.example/token", member[] = "access_token", deep[] = "a.token",
            type[] = "urn:t", client[] = "me", name[] = "scope", value[] = "a b&c=\xc3\xbc";
#define JWT                                                                                        \
    "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJzcGlmZmU6Ly9iYW5rLmV4YW1wbGUvYWdlbnQvYWxwaGEifQ.AAAABBBBCCCC"

static struct conf_exchange profile(void)
{
    return (struct conf_exchange){.endpoint = endpoint,
                                  .token = member,
                                  .subject_token_type = type,
                                  .lifetime_s = 300,
                                  .fields = {{name, value}},
                                  .n_fields = 1};
}

static void refused(int status, const char *body, enum att_rc rc, const char *reason,
                    const char *words)
{
    struct conf_exchange p = profile();
    struct exchange_token token = {0};
    struct att_err err = {0};
    assert_int_equal(exchange_answer(&p, status, att_slice_str(body), &token, &err), rc);
    assert_string_equal(err.reason, reason);
    if (!strstr(err.msg, words)) {
        fail_msg("\"%s\" is not in: %s", words, err.msg);
    }
    assert_null(strstr(err.msg, "eyJ"));
    assert_null(token.token.ptr);
}

static void test_refused(void **state)
{
    (void)state;
    const char *good = "{\"access_token\":\"abc\"}";
    refused(302, good, ATT_E_PROTOCOL, "redirect", "not followed");
    refused(201, good, ATT_E_DENIED, "answerStatus", "status 201");
    refused(503, "later", ATT_E_RETRY, "answerStatus", "status 503");
    refused(429, "{}", ATT_E_RETRY, "answerStatus", "status 429");
    refused(200, "<html>", ATT_E_PROTOCOL, "answerForm", "JSON object");
    refused(200, "[]", ATT_E_PROTOCOL, "answerForm", "JSON object");
    refused(200, "{\"access_token\":\"a\",\"access_token\":\"b\"}", ATT_E_PROTOCOL, "answerForm",
            "JSON object");
    refused(200, "{}", ATT_E_PROTOCOL, "answerToken", "expected access_token");
    refused(200, "{\"access_token\":\"\"}", ATT_E_PROTOCOL, "answerToken", "access_token");
    refused(200, "{\"access_token\":7}", ATT_E_PROTOCOL, "answerToken", "access_token");
    refused(200, "{\"access_token\":\"a b\"}", ATT_E_PROTOCOL, "answerToken", "visible");
    refused(200, "{\"access_token\":\"a\\nb\"}", ATT_E_PROTOCOL, "answerToken", "visible");
    refused(200, "{\"access_token\":\"a\",\"token_type\":\"DPoP\"}", ATT_E_PROTOCOL, "answerType",
            "Bearer");
    refused(200, "{\"access_token\":\"a\",\"token_type\":1}", ATT_E_PROTOCOL, "answerType",
            "Bearer");
    refused(200, "{\"access_token\":\"a\",\"expires_in\":0}", ATT_E_PROTOCOL, "answerLifetime",
            "expires_in");
    refused(200, "{\"access_token\":\"a\",\"expires_in\":\"soon\"}", ATT_E_PROTOCOL,
            "answerLifetime", "expires_in");
}

/* OAuth's own form, and that of others; what steers a terminal, and what may be a token. */
static void test_errors_by_name(void **state)
{
    (void)state;
    refused(400, "{\"error\":\"invalid_grant\",\"error_description\":\"too old\"}", ATT_E_DENIED,
            "invalid_grant", "status 400: too old");
    refused(401, "{\"error\":{\"type\":\"authentication_error\",\"message\":\"no\"}}", ATT_E_DENIED,
            "authentication_error", "status 401: no");
    refused(403, "{\"error\":{\"code\":403,\"status\":\"PERMISSION_DENIED\",\"message\":\"no\"}}",
            ATT_E_DENIED, "PERMISSION_DENIED", "no");
    refused(400, "{\"error\":\"a b\"}", ATT_E_DENIED, "answerStatus", "status 400");
    refused(400, "{\"error\":\"x\",\"error_description\":\"\\u001b[2J " JWT " is bad\"}",
            ATT_E_DENIED, "x", "?[2J [...] is bad");
    refused(400, "{\"error\":\"" JWT "\"}", ATT_E_DENIED, "answerStatus", "status 400");
}

static int64_t taken(const struct conf_exchange *p, const char *body)
{
    struct exchange_token token = {0};
    assert_int_equal(exchange_answer(p, 200, att_slice_str(body), &token, NULL), ATT_OK);
    assert_string_equal((const char *)token.token.ptr, "abc");
    exchange_token_done(&token);
    return token.lifetime_s;
}

static void test_taken(void **state)
{
    (void)state;
    struct conf_exchange p = profile();
    assert_int_equal(taken(&p, "{\"access_token\":\"abc\"}"), 300);
    assert_int_equal(taken(&p, "{\"access_token\":\"abc\",\"token_type\":\"bearer\","
                               "\"expires_in\":60}"),
                     60);
    assert_int_equal(taken(&p, "{\"access_token\":\"abc\",\"token_type\":\"N_A\","
                               "\"expires_in\":\"3599\"}"),
                     3599);
    assert_int_equal(taken(&p, "{\"access_token\":\"abc\",\"expires_in\":99999999}"),
                     EXCHANGE_LIFETIME_MAX);
    p.token = deep;
    assert_int_equal(taken(&p, "{\"a\":{\"token\":\"abc\"}}"), 300);
}

static void body_is(const struct conf_exchange *p, const char *expected)
{
    att_autobuf body = {0};
    assert_int_equal(exchange_body(p, "J", &body, NULL), ATT_OK);
    assert_string_equal(att_buf_cstr(&body), expected);
}

static void test_body(void **state)
{
    (void)state;
    struct conf_exchange p = profile();
    body_is(&p, "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&"
                "subject_token_type=urn%3At&subject_token=J&scope=a%20b%26c%3D%C3%BC");
    p.json = true;
    p.client_id = client;
    p.grant = CONF_GRANT_JWT_BEARER;
    body_is(&p, "{\"grant_type\":\"urn:ietf:params:oauth:grant-type:jwt-bearer\","
                "\"assertion\":\"J\",\"client_id\":\"me\",\"scope\":\"a b&c=\xc3\xbc\"}");
    p.json = false;
    p.n_fields = 0;
    p.grant = CONF_GRANT_CLIENT_CREDENTIALS;
    body_is(&p, "grant_type=client_credentials&client_id=me");
    p.grant = CONF_GRANT_CLIENT_ASSERTION;
    body_is(&p, "grant_type=client_credentials&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth"
                "%3Aclient-assertion-type%3Ajwt-bearer&client_assertion=J&client_id=me");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_refused),
                                       cmocka_unit_test(test_errors_by_name),
                                       cmocka_unit_test(test_taken), cmocka_unit_test(test_body)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
