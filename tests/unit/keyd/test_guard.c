/* What the account key may sign and which URLs are the issuer's: pure functions. */
#include "attestd/keyd/internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define BASE "https://issuer.example:8443/acme"

static json_t *own_jwk(void)
{
    return json_pack("{s:s, s:s, s:s, s:s}", "kty", "EC", "crv", "P-256", "x", "XX", "y", "YY");
}

static void urls_outside_are_refused(void **state)
{
    (void)state;
    static const char *const outside[] = {
        "",
        "https://",
        "https://issuer.example:8443",
        "https://issuer.example:8443/",
        "https://issuer.example:8443/acm",
        "https://issuer.example:8443/acmex/new-order",
        "https://issuer.example:8443/ACME/new-order",
        "https://ISSUER.example:8443/acme/new-order",
        "https://issuer.example/acme/new-order",
        "https://issuer.example:443/acme/new-order",
        "https://issuer.example:08443/acme/new-order",
        "https://issuer.example:84430/acme/new-order",
        "https://issuer.example:/acme/new-order",
        "https://issuer.example.evil:8443/acme/new-order",
        "https://evil.example:8443/acme/new-order",
        "https://issuer.example:8443@evil.example/acme/new-order",
        "https://user@issuer.example:8443/acme/new-order",
        "http://issuer.example:8443/acme/new-order",
        "HTTPS://issuer.example:8443/acme/new-order",
        "https:/issuer.example:8443/acme/new-order",
        "https://issuer.example:8443/acme/../other",
        "https://issuer.example:8443/acme/./x",
        "https://issuer.example:8443/acme/..",
        "https://issuer.example:8443/acme/%2e%2e/other",
        "https://issuer.example:8443/acme/x?y",
        "https://issuer.example:8443/acme/x#y",
        "https://issuer.example:8443/acme\\x",
        "https://issuer.example:8443/acme/x y",
        "https://issuer.example:8443/other/acme/x",
        "https://issuer.example:8443\\acme/x",
    };
    for (size_t i = 0; i < sizeof outside / sizeof outside[0]; i++) {
        struct att_err err = {0};
        if (keyd_url_under(BASE, att_slice_str(outside[i]), &err) != ATT_E_DENIED) {
            fail_msg("%s passed", outside[i]);
        }
    }
    assert_int_equal(
        keyd_url_under(BASE, ATT_SLICE("https://issuer.example:8443/acme/\0x", 35), NULL),
        ATT_E_DENIED);
}

static void urls_under_the_issuer_pass(void **state)
{
    (void)state;
    static const char *const under[][2] = {
        {BASE, BASE},
        {BASE, BASE "/"},
        {BASE, BASE "/new-order"},
        {BASE, BASE "/ak/abc_DEF-123"},
        {"https://issuer.example", "https://issuer.example/x"},
        {"https://issuer.example", "https://issuer.example:443/x"},
        {"https://[::1]:8443/acme", "https://[::1]:8443/acme/x"},
        {"https://[::1]/acme", "https://[::1]/acme/x"},
    };
    for (size_t i = 0; i < sizeof under / sizeof under[0]; i++) {
        struct att_err err = {0};
        if (keyd_url_under(under[i][0], att_slice_str(under[i][1]), &err) != ATT_OK) {
            fail_msg("%s refused: %s", under[i][1], err.msg);
        }
    }
}

static void headers_are_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *header, *reason;
    } cases[] = {
        {"", "jwsHeader"},
        {"[]", "jwsHeader"},
        {"{}", "jwsAlg"},
        {"{\"alg\":\"none\",\"nonce\":\"n\",\"url\":\"" BASE "/x\",\"kid\":\"" BASE "/a\"}",
         "jwsAlg"},
        {"{\"alg\":\"HS256\",\"nonce\":\"n\",\"url\":\"" BASE "/x\",\"kid\":\"" BASE "/a\"}",
         "jwsAlg"},
        {"{\"alg\":\"es256\",\"nonce\":\"n\",\"url\":\"" BASE "/x\",\"kid\":\"" BASE "/a\"}",
         "jwsAlg"},
        {"{\"alg\":[\"ES256\"],\"nonce\":\"n\",\"url\":\"" BASE "/x\",\"kid\":\"" BASE "/a\"}",
         "jwsAlg"},
        {"{\"alg\":\"ES256\",\"url\":\"" BASE "/x\",\"kid\":\"" BASE "/a\"}", "jwsHeader"},
        {"{\"alg\":\"ES256\",\"nonce\":\"n\",\"kid\":\"" BASE "/a\"}", "jwsHeader"},
        {"{\"alg\":\"ES256\",\"nonce\":\"n\",\"url\":\"" BASE "/x\"}", "jwsHeader"},
        {"{\"alg\":\"ES256\",\"nonce\":\"n\",\"url\":\"" BASE "/x\",\"kid\":\"" BASE
         "/a\",\"crit\":[]}",
         "jwsHeader"},
        {"{\"alg\":\"ES256\",\"nonce\":\"n\",\"url\":\"" BASE "/x\",\"b64\":false}", "jwsHeader"},
        {"{\"alg\":\"ES256\",\"alg\":\"ES256\",\"nonce\":\"n\",\"url\":\"" BASE
         "/x\",\"kid\":\"" BASE "/a\"}",
         "jwsHeader"},
        {"{\"alg\":\"ES256\",\"nonce\":\"n\",\"url\":\"" BASE "/x\",\"kid\":\"" BASE "/a\"}x",
         "jwsHeader"},
        {"{\"alg\":\"ES256\",\"nonce\":\"n\",\"url\":\"https://evil.example/x\",\"kid\":\"" BASE
         "/a\"}",
         "jwsUrl"},
        {"{\"alg\":\"ES256\",\"nonce\":\"n\",\"url\":\"" BASE
         "/x\",\"kid\":\"https://evil.example/a\"}",
         "jwsKid"},
        {"{\"alg\":\"ES256\",\"nonce\":\"n\",\"url\":\"" BASE "/x\",\"kid\":7}", "jwsKid"},
        {"{\"alg\":\"ES256\",\"nonce\":\"n\",\"url\":\"" BASE "/x\",\"jwk\":{}}", "jwsJwk"},
        {"{\"alg\":\"ES256\",\"nonce\":\"n\",\"url\":\"" BASE
         "/x\",\"jwk\":{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"XX\",\"y\":\"other\"}}",
         "jwsJwk"},
        {"{\"alg\":\"ES256\",\"nonce\":\"n\",\"url\":\"" BASE
         "/x\",\"jwk\":{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"XX\",\"y\":\"YY\",\"kid\":\"1\"}}",
         "jwsJwk"},
    };
    att_autojson *jwk = own_jwk();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct att_err err = {0};
        bool kid = false;
        assert_int_equal(keyd_jws_check(att_slice_str(cases[i].header), BASE, jwk, &kid, &err),
                         ATT_E_DENIED);
        if (strcmp(err.reason, cases[i].reason) != 0) {
            fail_msg("%s: %s, expected %s", cases[i].header, err.reason, cases[i].reason);
        }
    }
}

static void good_headers_pass(void **state)
{
    (void)state;
    att_autojson *jwk = own_jwk();
    struct att_err err = {0};
    bool kid = false;
    assert_int_equal(
        keyd_jws_check(ATT_SLICE_LIT("{\"alg\":\"ES256\",\"nonce\":\"n\",\"url\":\"" BASE
                                     "/x\",\"kid\":\"" BASE "/account/1\"}"),
                       BASE, jwk, &kid, &err),
        ATT_OK);
    assert_true(kid);
    assert_int_equal(
        keyd_jws_check(ATT_SLICE_LIT("{\"alg\":\"ES256\",\"nonce\":\"n\",\"url\":\"" BASE
                                     "/x\",\"jwk\":{\"crv\":\"P-256\",\"kty\":\"EC\",\"y\":\"YY\","
                                     "\"x\":\"XX\"}}"),
                       BASE, jwk, &kid, &err),
        ATT_OK);
    assert_false(kid);
}

#define ID "0123456789abcdef0123456789abcdef"
#define GOOD                                                                                       \
    "{\"version\":1,\"id\":\"" ID "\",\"agent\":\"a\",\"seed\":\"" ID                              \
    "\",\"state\":\"active\",\"created\":1,\"activations\":2,\"parent\":\"000b\"}"

static void sidecars_are_read_strictly(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "{}",
        "[1]",
        "{\"version\":2,\"id\":\"" ID "\",\"agent\":\"a\",\"seed\":\"" ID
        "\",\"state\":\"new\",\"created\":1,\"activations\":2,\"parent\":\"000b\"}",
        "{\"version\":1,\"id\":\"../../etc/passwd\",\"agent\":\"a\",\"seed\":\"" ID
        "\",\"state\":\"new\",\"created\":1,\"activations\":2,\"parent\":\"000b\"}",
        "{\"version\":1,\"id\":\"" ID "\",\"agent\":\"A/b\",\"seed\":\"" ID
        "\",\"state\":\"new\",\"created\":1,\"activations\":2,\"parent\":\"000b\"}",
        "{\"version\":1,\"id\":\"" ID "\",\"agent\":\"a\",\"seed\":\"" ID
        "\",\"state\":\"other\",\"created\":1,\"activations\":2,\"parent\":\"000b\"}",
        "{\"version\":1,\"id\":\"" ID "\",\"agent\":\"a\",\"seed\":\"" ID
        "\",\"state\":\"new\",\"created\":-1,\"activations\":2,\"parent\":\"000b\"}",
        GOOD "x",
        "{\"extra\":1,\"version\":1,\"id\":\"" ID "\",\"agent\":\"a\",\"seed\":\"" ID
        "\",\"state\":\"new\",\"created\":1,\"activations\":2,\"parent\":\"000b\"}",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct keyd_key key = {0};
        if (keyd_sidecar_parse(att_slice_str(bad[i]), &key, NULL) == ATT_OK) {
            fail_msg("%s passed", bad[i]);
        }
    }
    struct keyd_key key = {0};
    assert_int_equal(keyd_sidecar_parse(ATT_SLICE_LIT(GOOD), &key, NULL), ATT_OK);
    assert_int_equal(key.state, KEYD_KEY_ACTIVE);
    assert_int_equal(key.active_seq, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(urls_outside_are_refused),   cmocka_unit_test(headers_are_refused_by_name),
        cmocka_unit_test(sidecars_are_read_strictly), cmocka_unit_test(urls_under_the_issuer_pass),
        cmocka_unit_test(good_headers_pass),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
