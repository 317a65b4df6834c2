/* PKCS#11 URIs, RFC 7512: refusals first. */
#include "attestd/conf/p11uri.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void refused(const char *text, const char *words)
{
    struct conf_p11uri uri = {.token = "untouched"};
    struct att_err err = {0};
    assert_int_equal(conf_p11uri_parse(att_slice_str(text), &uri, &err), ATT_E_PARSE);
    if (!strstr(err.msg, words)) {
        fail_msg("%s: \"%s\" is not in \"%s\"", text, words, err.msg);
    }
    assert_string_equal(uri.token, "untouched");
    assert_null(strstr(err.msg, "secret"));
}

static void test_refuses_pins(void **state)
{
    (void)state;
    refused("pkcs11:token=a;serial=1?pin-value=secret", "pin-value: a PIN does not stand");
    refused("pkcs11:token=a;serial=1?pin-source=file:/a&pin-value=secret", "pin-value");
    refused("pkcs11:?pin-value=secret", "pin-value"); /* before anything else is said */
    refused("pkcs11:token=a;serial=1;pin-value=secret", "not known in the path");
    refused("pkcs11:token=a;serial=1?pin-source=%7csecret", "a command is not run");
    refused("pkcs11:token=a;serial=1?pin-source=|secret", "a command is not run");
    refused("pkcs11:token=a;serial=1?pin-source=secret", "absolute path");
    refused("pkcs11:token=a;serial=1?pin-source=file:secret", "absolute path");
    refused("pkcs11:token=a;serial=1?pin-source=file://host/secret", "absolute path");
    refused("pkcs11:token=a;serial=1?pin-source=", "pin-source: empty");
    refused("pkcs11:token=a;serial=1?pin-source=/a&pin-source=/b", "twice");
}

static void test_refuses_what_names_no_token(void **state)
{
    (void)state;
    refused("", "expected a URI pkcs11:");
    refused("pkcs11", "expected a URI pkcs11:");
    refused("PKCS11:token=a;serial=1", "expected a URI pkcs11:");
    refused("pkcs11:", "expected NAME=VALUE");
    refused("pkcs11:token=a", "serial is missing");
    refused("pkcs11:serial=1", "token is missing");
    refused("pkcs11:token=a;serial=1;", "expected NAME=VALUE");
    refused("pkcs11:token=a;serial=1?", "expected NAME=VALUE in the query");
    refused("pkcs11:token=a;serial=1;slot-id=0", "slot-id: slots and libraries change");
    refused("pkcs11:slot-description=x;token=a;serial=1", "slots and libraries change");
    refused("pkcs11:library-version=1;token=a;serial=1", "slots and libraries change");
    refused("pkcs11:token=a;serial=1;object=x", "object: the URI names a token, not a key");
    refused("pkcs11:token=a;serial=1;id=%01", "id: the URI names a token");
    refused("pkcs11:token=a;serial=1?module-path=/x", "named by hsm.module");
    refused("pkcs11:token=a;serial=1;x-vendor=1", "not known in the path");
    refused("pkcs11:token=a;serial=1?x=1", "not known in the query");
    refused("pkcs11:token=a;token=a;serial=1", "token: stands there twice");
}

static void test_refuses_forms(void **state)
{
    (void)state;
    refused("pkcs11:token=;serial=1", "token: empty");
    refused("pkcs11:token=a b;serial=1", "byte 2 of the value has to be percent-encoded");
    refused("pkcs11:token=a%2;serial=1", "two hex digits");
    refused("pkcs11:token=a%;serial=1", "two hex digits");
    refused("pkcs11:token=a%g0;serial=1", "two hex digits");
    refused("pkcs11:token=a%00;serial=1", "control character");
    refused("pkcs11:token=a%0a;serial=1", "control character");
    refused("pkcs11:token=\xc3\xa4;serial=1", "percent-encoded");
    refused("pkcs11:token=a;serial=12345678901234567", "serial: longer than 16 bytes");
    refused("pkcs11:token=123456789012345678901234567890123;serial=1", "longer than 32 bytes");
    char text[CONF_P11URI_MAX + 2] = "pkcs11:token=a;serial=1?pin-source=/";
    memset(text + strlen(text), 'a', sizeof text - strlen(text) - 1);
    refused(text, "expected a URI");
    text[1200] = 0;
    refused(text, "pin-source: longer than 1024 bytes");
}

static void test_takes_what_p11tool_prints(void **state)
{
    (void)state;
    struct conf_p11uri uri;
    assert_int_equal(
        conf_p11uri_parse(ATT_SLICE_LIT("pkcs11:model=SoftHSM%20v2;manufacturer=SoftHSM%20project;"
                                        "serial=2be59a7056fee592;token=Agenten%20%c3%a4?pin-source="
                                        "file:/etc/attestd/hsm.pin"),
                          &uri, NULL),
        ATT_OK);
    assert_string_equal(uri.model, "SoftHSM v2");
    assert_string_equal(uri.manufacturer, "SoftHSM project");
    assert_string_equal(uri.serial, "2be59a7056fee592");
    assert_string_equal(uri.token, "Agenten ä");
    assert_string_equal(uri.pin_source, "/etc/attestd/hsm.pin");
    static const char *const sources[] = {"file:///a/b", "/a/b", "file:%2fa/b"};
    for (size_t i = 0; i < 3; i++) {
        char text[128];
        snprintf(text, sizeof text, "pkcs11:serial=1;token=t?pin-source=%s", sources[i]);
        assert_int_equal(conf_p11uri_parse(att_slice_str(text), &uri, NULL), ATT_OK);
        assert_string_equal(uri.pin_source, "/a/b");
    }
    assert_int_equal(conf_p11uri_parse(ATT_SLICE_LIT("pkcs11:token=a&b;serial=0"), &uri, NULL),
                     ATT_OK);
    assert_string_equal(uri.token, "a&b");
    assert_string_equal(uri.pin_source, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refuses_pins),
        cmocka_unit_test(test_refuses_what_names_no_token),
        cmocka_unit_test(test_refuses_forms),
        cmocka_unit_test(test_takes_what_p11tool_prints),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
