#include "provision/acme/problem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct acme_problem parse(const char *text)
{
    struct acme_problem problem = {0};
    assert_int_equal(acme_problem_parse(att_slice_str(text), &problem, NULL), ATT_OK);
    return problem;
}

#define ACME "urn:ietf:params:acme:error:"
#define OURS "urn:attestd:error:"

static void test_parse(void **state)
{
    (void)state;
    struct acme_problem p = {.status = 77};
    assert_int_equal(acme_problem_parse(ATT_SLICE_LIT("[]"), &p, NULL), ATT_E_PARSE);
    assert_int_equal(acme_problem_parse(ATT_SLICE_LIT("<html>"), &p, NULL), ATT_E_PARSE);
    assert_int_equal(p.status, 77);
    p = parse("{}");
    assert_int_equal(p.type, ACME_P_NONE);
    p = parse("{\"type\":\"" ACME "badNonce\",\"status\":400,\"detail\":\"d\",\"more\":[]}");
    assert_int_equal(p.type, ACME_P_BAD_NONCE);
    assert_string_equal(p.detail, "d");
    p = parse("{\"type\":\"" ACME "noSuchThing\",\"status\":4000}");
    assert_int_equal(p.type, ACME_P_NONE);
    assert_int_equal(p.status, 0);
    p = parse("{\"type\":\"" OURS "hostBanned\"}");
    assert_int_equal(p.type, ACME_P_NONE);
    assert_string_equal(p.reason, "hostBanned");
    /* a reason that is no word is no reason */
    p = parse("{\"type\":\"" OURS "a b\"}");
    assert_string_equal(p.reason, "");
    p = parse(
        "{\"type\":\"" ACME "badAttestationStatement\",\"subproblems\":[1,{},{\"type\":\"" OURS
        "quoteNonce\",\"detail\":\"line\\u000abreak\\u001b[31m\"},{\"type\":\"" ACME "dns\"}]}");
    assert_int_equal(p.n_sub, 2);
    assert_string_equal(p.sub[0].reason, "quoteNonce");
    assert_string_equal(p.sub[0].detail, "line?break?[31m");
    assert_false(p.sub[0].acme);
    assert_true(p.sub[1].acme);
}

static void test_long_text_is_cut(void **state)
{
    (void)state;
    struct att_buf text = {0};
    att_buf_put_str(&text, "{\"detail\":\"");
    for (int i = 0; i < 500; i++) {
        att_buf_put_str(&text, "\xc3\xa9"); /* é */
    }
    att_buf_put_str(&text, "\"}");
    struct acme_problem p = parse(att_buf_cstr(&text));
    assert_int_equal(strlen(p.detail) % 2, 0); /* no half character */
    assert_true(strlen(p.detail) >= ACME_DETAIL_LEN - 3);
    att_buf_done(&text);
}

static void test_codes(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum att_rc rc;
        const char *reason;
    } cases[] = {
        {"{\"type\":\"" ACME "badAttestationStatement\",\"subproblems\":[{\"type\":\"" OURS
         "akStale\"}]}",
         ATT_E_REENROL, "akStale"},
        {"{\"type\":\"" ACME "badAttestationStatement\",\"subproblems\":[{\"type\":\"" OURS
         "akUnknown\"}]}",
         ATT_E_REENROL, "akUnknown"},
        {"{\"type\":\"" ACME "badAttestationStatement\",\"subproblems\":[{\"type\":\"" OURS
         "bootPolicy\"}]}",
         ATT_E_DENIED, "bootPolicy"},
        {"{\"type\":\"" ACME "rateLimited\"}", ATT_E_RETRY, "rateLimited"},
        {"{\"type\":\"" ACME "serverInternal\"}", ATT_E_RETRY, "serverInternal"},
        {"{\"status\":503}", ATT_E_RETRY, ""},
        {"{\"type\":\"" ACME "orderNotReady\"}", ATT_E_CONFLICT, "orderNotReady"},
        {"{\"type\":\"" ACME "accountDoesNotExist\"}", ATT_E_NOTFOUND, "accountDoesNotExist"},
        {"{\"type\":\"" ACME "malformed\"}", ATT_E_PROTOCOL, "malformed"},
        {"{\"type\":\"" ACME "unauthorized\"}", ATT_E_DENIED, "unauthorized"},
        {"{\"type\":\"" OURS "hostBanned\",\"status\":403}", ATT_E_DENIED, "hostBanned"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct acme_problem p = parse(cases[i].text);
        struct att_err err = {0};
        assert_int_equal(acme_problem_to_err(&p, &err), cases[i].rc);
        assert_int_equal(err.rc, cases[i].rc);
        assert_string_equal(err.reason, cases[i].reason);
        assert_int_equal(err.domain, ATT_DOM_HTTP);
    }
}

static struct acme_problem from(enum att_rc rc, const char *reason)
{
    struct att_err err = {0};
    struct acme_problem p = {0};
    (void)att_fail(&err, rc, "inner detail");
    att_err_reason(&err, reason);
    acme_problem_from_err(&p, &err);
    return p;
}

static void test_from_err(void **state)
{
    (void)state;
    struct acme_problem p = from(ATT_E_AUTH, "quoteNonce");
    assert_int_equal(p.type, ACME_P_BAD_ATTESTATION_STATEMENT);
    assert_int_equal(p.status, 403);
    assert_string_equal(p.sub[0].reason, "quoteNonce");
    assert_string_equal(p.sub[0].detail, "inner detail");
    p = from(ATT_E_PARSE, "badNonce");
    assert_int_equal(p.type, ACME_P_BAD_NONCE);
    assert_int_equal(p.n_sub, 0);
    assert_int_equal(from(ATT_E_PARSE, "").type, ACME_P_MALFORMED);
    assert_int_equal(from(ATT_E_AUTH, "").type, ACME_P_UNAUTHORIZED);
    assert_int_equal(from(ATT_E_RETRY, "").status, 429);
    p = from(ATT_E_IO, "");
    assert_int_equal(p.type, ACME_P_SERVER_INTERNAL);
    assert_null(strstr(p.detail, "inner")); /* nothing of the inside leaks */
}

static void test_round_trip(void **state)
{
    (void)state;
    for (int type = ACME_P_NONE + 1; type < ACME_P_COUNT; type++) {
        struct acme_problem p, back = {0};
        json_t *json = NULL;
        struct att_buf text = {0};
        acme_problem_set(&p, (enum acme_problem_type)type, "%s", "why");
        assert_true(p.status >= 400 && p.status < 600);
        acme_problem_add(&p, "quoteNonce", "the nonce is another");
        acme_problem_add(&p, "pcrDigest", NULL);
        assert_int_equal(acme_problem_encode(&p, &json, NULL), ATT_OK);
        assert_int_equal(att_json_dump(json, false, &text, NULL), ATT_OK);
        assert_int_equal(acme_problem_parse(att_buf_slice(&text), &back, NULL), ATT_OK);
        assert_int_equal(back.type, type);
        assert_int_equal(back.status, p.status);
        assert_int_equal(back.n_sub, 2);
        assert_string_equal(back.sub[0].detail, "the nonce is another");
        json_decref(json);
        att_buf_done(&text);
    }
    /* Text of a peer that is not UTF-8 still gives a document. */
    struct acme_problem p;
    json_t *json = NULL;
    acme_problem_set(&p, ACME_P_MALFORMED, "%s", "\xff\xfe");
    assert_int_equal(acme_problem_encode(&p, &json, NULL), ATT_OK);
    assert_string_equal(json_string_value(json_object_get(json, "detail")), "??");
    json_decref(json);
    for (int i = 0; i < 20; i++) {
        acme_problem_add(&p, "x", "y");
    }
    assert_int_equal(p.n_sub, ACME_SUBPROBLEMS_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse),      cmocka_unit_test(test_long_text_is_cut),
        cmocka_unit_test(test_codes),      cmocka_unit_test(test_from_err),
        cmocka_unit_test(test_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
