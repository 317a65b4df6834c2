/* Bound tokens: what is refused, by name; then the two ways in which one says so (RFC 8705 §3). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "attestd/ctl/bound.h"

#include "attestd/base/enc.h"

#include <stdio.h>

#include <string.h>

/* The x5t#S256 that RFC 8705 §3.1 shows: of another certificate than ours. */
#define PUBLISHED "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"

static uint8_t digest[ATT_SHA256_LEN];
static char own[BOUND_THUMBPRINT_LEN + 1];

static int setup(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof digest; i++) {
        digest[i] = (uint8_t)(7 * i + 1);
    }
    bound_thumbprint(digest, own);
    return strlen(own) == BOUND_THUMBPRINT_LEN ? 0 : -1;
}

static enum att_rc jwt(const char *claims, const char *more, struct att_err *err)
{
    att_autobuf token = {0};
    att_buf_b64u(&token, att_slice_str("{\"alg\":\"ES256\"}"));
    att_buf_put_str(&token, ".");
    att_buf_b64u(&token, att_slice_str(claims));
    att_buf_put_str(&token, more);
    return bound_check_jwt(att_buf_slice(&token), digest, err);
}

static void refused(const char *claims, const char *more, enum att_rc rc, const char *reason)
{
    struct att_err err = {0};
    assert_int_equal(jwt(claims, more, &err), rc);
    assert_string_equal(err.reason, reason);
}

static void test_jwt_refused(void **state)
{
    (void)state;
    char one_off[200];
    refused("{\"sub\":\"a\"}", ".c2ln", ATT_E_DENIED, "notBound");
    refused("{\"cnf\":{}}", ".c2ln", ATT_E_DENIED, "notBound");
    refused("{\"cnf\":{\"jkt\":\"x\"}}", ".c2ln", ATT_E_DENIED, "notBound");
    refused("{\"cnf\":{\"x5t#S256\":7}}", ".c2ln", ATT_E_DENIED, "notBound");
    refused("{\"cnf\":\"x5t#S256\"}", ".c2ln", ATT_E_DENIED, "notBound");
    refused("{\"cnf\":{\"x5t#S256\":\"" PUBLISHED "\"}}", ".c2ln", ATT_E_DENIED, "boundOther");
    refused("{\"cnf\":{\"x5t#S256\":\"\"}}", ".c2ln", ATT_E_DENIED, "boundOther");
    snprintf(one_off, sizeof one_off, "{\"cnf\":{\"x5t#S256\":\"%s=\"}}", own);
    refused(one_off, ".c2ln", ATT_E_DENIED, "boundOther");
    refused("[]", ".c2ln", ATT_E_UNSUPPORTED, "boundUnknown");
    refused("not json", ".c2ln", ATT_E_UNSUPPORTED, "boundUnknown");
    refused("{}", "", ATT_E_UNSUPPORTED, "boundUnknown");
    refused("{}", ".a.b.c", ATT_E_UNSUPPORTED, "boundUnknown");
    refused("{}", "!.c2ln", ATT_E_UNSUPPORTED, "boundUnknown");
    struct att_err err = {0};
    assert_int_equal(bound_check_jwt(att_slice_str("opaque"), digest, &err), ATT_E_UNSUPPORTED);
    assert_string_equal(err.reason, "boundUnknown");
    assert_int_equal(bound_check_jwt(ATT_SLICE(NULL, 0), digest, NULL), ATT_E_UNSUPPORTED);
}

static void test_introspection_refused(void **state)
{
    (void)state;
    static const struct {
        int status;
        const char *body;
        enum att_rc rc;
        const char *reason;
    } rows[] = {
        {401, "{\"active\":true}", ATT_E_PROTOCOL, "introspection"},
        {200, "<html>", ATT_E_PROTOCOL, "introspection"},
        {200, "[]", ATT_E_PROTOCOL, "introspection"},
        {200, "{}", ATT_E_PROTOCOL, "introspection"},
        {200, "{\"active\":\"true\"}", ATT_E_PROTOCOL, "introspection"},
        {200, "{\"active\":false}", ATT_E_DENIED, "tokenInactive"},
        {200, "{\"active\":true}", ATT_E_DENIED, "notBound"},
        {200, "{\"active\":true,\"cnf\":{\"x5t#S256\":\"" PUBLISHED "\"}}", ATT_E_DENIED,
         "boundOther"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct att_err err = {0};
        assert_int_equal(
            bound_check_introspection(rows[i].status, att_slice_str(rows[i].body), digest, &err),
            rows[i].rc);
        assert_string_equal(err.reason, rows[i].reason);
    }
}

static void test_bound(void **state)
{
    (void)state;
    char claims[200];
    snprintf(claims, sizeof claims, "{\"active\":true,\"cnf\":{\"x5t#S256\":\"%s\"}}", own);
    assert_int_equal(jwt(claims, ".c2ln", NULL), ATT_OK);
    assert_int_equal(bound_check_introspection(200, att_slice_str(claims), digest, NULL), ATT_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_jwt_refused),
                                       cmocka_unit_test(test_introspection_refused),
                                       cmocka_unit_test(test_bound)};
    return cmocka_run_group_tests(tests, setup, NULL);
}
