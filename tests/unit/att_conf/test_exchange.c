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
            4, "subject_token_type", "does not belong to the grant jwt-bearer");
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

#define TLS "endpoint: https://a.example/token\ngrant: client-credentials\nclient_id: me\n"

static void test_client_auth_refused(void **state)
{
    (void)state;
    refused(HEAD "client_auth: basic\n", 4, "client_auth", "none, tls");
    refused(HEAD "client_auth: tls\n", 1, "client_id", "required by client_auth: tls");
    refused(TLS, 1, "client_auth", "requires tls");
    refused(TLS "client_auth: none\n", 4, "client_auth", "requires tls");
    refused(TLS "client_auth: tls\naudience: b\n", 5, "audience",
            "does not belong to the grant client-credentials");
    refused(TLS "client_auth: tls\nbound: maybe\n", 5, "bound", "required, unchecked");
    refused(HEAD "bound: required\n", 4, "bound", "client_auth: tls only");
    refused(HEAD "introspection: https://a.example/i\n", 4, "introspection",
            "client_auth: tls only");
    refused(TLS "client_auth: tls\nbound: unchecked\nintrospection: https://a.example/i\n", 6,
            "introspection", "bound: required only");
    refused(TLS "client_auth: tls\nintrospection: http://a.example/i\n", 5, "introspection",
            "expected https://");
    refused(HEAD "region: eu-central-1\n", 4, "region",
            "does not belong to the grant token-exchange");
}

#define AWS_AT(endpoint)                                                                           \
    "endpoint: " endpoint "\ngrant: aws-roles-anywhere\n"                                          \
    "role_arn: arn:aws:iam::1:role/r\n"
#define ANCHOR  "trust_anchor_arn: arn:aws:rolesanywhere:eu-central-1:1:trust-anchor/t\n"
#define PROFILE "profile_arn: arn:aws-cn:rolesanywhere:eu-central-1:1:profile/p\n"
#define REGION  "region: eu-central-1\n"
#define AWS     AWS_AT("https://a.example/sessions")
#define WHOLE   AWS ANCHOR PROFILE REGION

static void test_aws_refused(void **state)
{
    (void)state;
    refused(AWS PROFILE REGION, 1, "trust_anchor_arn", "required");
    refused(AWS ANCHOR REGION, 1, "profile_arn", "required");
    refused(AWS ANCHOR PROFILE, 1, "region", "required");
    refused("endpoint: https://a.example/s\ngrant: aws-roles-anywhere\n" ANCHOR PROFILE REGION, 1,
            "role_arn", "required");
    refused(AWS ANCHOR PROFILE "region: EU\n", 6, "region", "such as eu-central-1");
    refused(AWS "trust_anchor_arn: arn:aws:iam::1:role/r\n" PROFILE REGION, 4, "trust_anchor_arn",
            "arn:aws:rolesanywhere:…:trust-anchor/…");
    refused(AWS ANCHOR "profile_arn: p\n" REGION, 5, "profile_arn", "expected arn:aws:");
    refused(AWS ANCHOR "profile_arn: \"arn:aws:rolesanywhere:x:1:profile/a b\"\n" REGION, 5,
            "profile_arn", "expected arn:aws:");
    refused(WHOLE "session_duration: 14m\n", 7, "session_duration", "15m to 12h");
    refused(WHOLE "session_duration: 13h\n", 7, "session_duration", "15m to 12h");
    refused(WHOLE "session_name: a\n", 7, "session_name", "2 to 64");
    refused(WHOLE "session_name: \"a b\"\n", 7, "session_name", "2 to 64");
    refused(WHOLE "audience: b\n", 7, "audience", "does not belong");
    refused(WHOLE "client_auth: tls\n", 7, "client_auth", "does not belong");
    refused(WHOLE "fields: { a: b }\n", 7, "fields", "does not belong");
    refused(AWS_AT("https://a.example/x/../sessions") ANCHOR PROFILE REGION, 1, "endpoint",
            "without . and ..");
}

static void test_as_the_agent(void **state)
{
    (void)state;
    struct conf_exchange *x = NULL;
    assert_int_equal(
        conf_exchange_parse(att_slice_str(TLS "client_auth: tls\n"), &x, &errors, NULL), ATT_OK);
    assert_true(x->client_tls && x->bound_required);
    assert_null(x->audience);
    assert_null(x->introspection);
    conf_exchange_free(x);
    assert_int_equal(conf_exchange_parse(att_slice_str(TLS "client_auth: tls\nbound: unchecked\n"),
                                         &x, &errors, NULL),
                     ATT_OK);
    assert_true(x->client_tls && !x->bound_required);
    conf_exchange_free(x);
    assert_int_equal(
        conf_exchange_parse(
            att_slice_str(WHOLE "session_duration: 15m\nsession_name: a@b\ntimeout: 5s\n"), &x,
            &errors, NULL),
        ATT_OK);
    assert_int_equal(x->grant, CONF_GRANT_AWS_ROLES_ANYWHERE);
    assert_int_equal(x->aws.duration_s, 900);
    assert_string_equal(x->aws.session_name, "a@b");
    assert_string_equal(x->aws.region, "eu-central-1");
    assert_false(x->client_tls);
    conf_exchange_free(x);
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
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),         cmocka_unit_test(test_client_auth_refused),
        cmocka_unit_test(test_aws_refused),     cmocka_unit_test(test_as_the_agent),
        cmocka_unit_test(test_too_many_fields), cmocka_unit_test(test_whole)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
