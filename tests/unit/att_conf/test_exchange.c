/* Profiles of token exchanges: each check alone, then what a whole one gives. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "attestd/conf/exchange.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEAD "endpoint: https://a.example/token\ngrant: token-exchange\naudience: b\n"

static struct conf_errors errors;

static void refused(const char *yaml, int line, const char *field, const char *words)
{
    struct conf_exchange *x = NULL;
    assert_int_equal(conf_exchange_parse(att_slice_str(yaml), &x, &errors, NULL), ATT_E_PARSE);
    assert_null(x);
    for (size_t i = 0; i < errors.n; i++) {
        const struct conf_error *e = &errors.v[i];
        if (errors.n == 1 && e->line == line && strcmp(e->field, field) == 0 &&
            strstr(e->text, words)) {
            return;
        }
        print_message("  %d: %s: %s\n", e->line, e->field, e->text);
    }
    fail_msg("not one error, at line %d, field %s: %s", line, field, words);
}

static void test_refused(void **state)
{
    (void)state;
    refused("- x\n", 1, "", "expected a mapping");
    refused("grant: jwt-bearer\naudience: b\n", 1, "endpoint", "required");
    refused("endpoint: https://a.example\naudience: b\n", 1, "grant", "required");
    refused("endpoint: https://a.example\ngrant: jwt-bearer\n", 1, "audience", "required");
    refused("endpoint: http://a.example/t\ngrant: jwt-bearer\naudience: b\n", 1, "endpoint",
            "expected https://");
    refused("endpoint: https://u@a.example/t\ngrant: jwt-bearer\naudience: b\n", 1, "endpoint",
            "expected https://");
    refused("endpoint: https://a.example\ngrant: password\naudience: b\n", 2, "grant",
            "token-exchange, jwt-bearer, client-assertion");
    refused("endpoint: https://a.example\ngrant: client-assertion\naudience: b\n", 1, "client_id",
            "required by the grant");
    refused("endpoint: https://a.example\ngrant: jwt-bearer\naudience: b\nsubject_token_type: x\n",
            4, "subject_token_type", "token-exchange only");
    refused(HEAD "body: xml\n", 4, "body", "form, json");
    refused(HEAD "body: [ form ]\n", 4, "body", "expected text");
    refused(HEAD "client_secret: x\n", 4, "client_secret", "unknown key");
    refused(HEAD "\"client\\ex\": x\n", 4, "client?x", "unknown key"); /* to a terminal */
    refused(HEAD "token: a..b\n", 4, "token", "path of a member");
    refused(HEAD "ca_file: x.pem\n", 4, "ca_file", "absolute path");
    refused(HEAD "lifetime: soon\n", 4, "lifetime", "");
    refused(HEAD "timeout: 61s\n", 4, "timeout", "1s to 60s");
    refused(HEAD "fields: x\n", 4, "fields", "expected a mapping");
    refused(HEAD "fields:\n  assertion: x\n", 5, "fields.assertion", "the grant sets this");
    refused(HEAD "fields:\n  client_secret: x\n", 5, "fields.client_secret", "the grant sets this");
    refused(HEAD "fields:\n  a: [ b ]\n", 5, "fields.a", "expected text");
    refused(HEAD "fields:\n  a: \"b\\nc\"\n", 5, "fields.a", "on one line");
}

static void test_too_many_fields(void **state)
{
    (void)state;
    char yaml[2000];
    int len = snprintf(yaml, sizeof yaml, HEAD "fields:\n");
    for (int i = 0; i <= CONF_EXCHANGE_FIELDS_MAX; i++) {
        len += snprintf(yaml + len, sizeof yaml - (size_t)len, "  f%d: x\n", i);
    }
    refused(yaml, 5, "fields", "at most 32");
}

static void test_whole(void **state)
{
    (void)state;
    struct conf_exchange *x = NULL;
    assert_int_equal(conf_exchange_parse(att_slice_str(HEAD), &x, &errors, NULL), ATT_OK);
    assert_string_equal(x->token, "access_token");
    assert_string_equal(x->subject_token_type, "urn:ietf:params:oauth:token-type:jwt");
    assert_string_equal(x->ca_file, CONF_EXCHANGE_ROOTS);
    assert_null(x->client_id);
    assert_false(x->json);
    assert_int_equal(x->lifetime_s, 300);
    assert_int_equal(x->timeout_s, 10);
    conf_exchange_free(x);
    x = NULL;
    assert_int_equal(
        conf_exchange_parse(att_slice_str("endpoint: https://a.example/t\ngrant: jwt-bearer\n"
                                          "audience: b\nbody: json\nclient_id: c\ntoken: a.b\n"
                                          "lifetime: 1h\ntimeout: 60s\nca_file: /ca.pem\n"
                                          "fields: { one: \"1\", two: x y }\n"),
                            &x, &errors, NULL),
        ATT_OK);
    assert_int_equal(x->grant, CONF_GRANT_JWT_BEARER);
    assert_true(x->json);
    assert_null(x->subject_token_type);
    assert_int_equal(x->lifetime_s, 3600);
    assert_int_equal(x->n_fields, 2);
    assert_string_equal(x->fields[1].name, "two");
    assert_string_equal(x->fields[1].value, "x y");
    conf_exchange_free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_refused),
                                       cmocka_unit_test(test_too_many_fields),
                                       cmocka_unit_test(test_whole)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
