/* The section `devices` of issuer.yaml. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "attestd/conf/issuer_conf.h"

#include <string.h>

#define HEAD                                                                                       \
    "trust_domain: bank.example\nurl: https://127.0.0.1:8443/acme\nek: { roots_dir: /r }\n"        \
    "enrolment: { boot: ovmf-guest, pcrs: \"sha256:0,7\" }\n"                                      \
    "profiles:\n  - { name: trading, boot: none, pcrs: \"sha256:0\" }\n"
#define LINE 7 /* of the section */

static struct conf_errors errors;

static void refused(const char *yaml, const char *field, const char *words)
{
    struct conf_issuer *conf = NULL;
    assert_int_equal(conf_issuer_parse(att_slice_str(yaml), &conf, &errors, NULL), ATT_E_PARSE);
    assert_null(conf);
    for (size_t i = 0; i < errors.n; i++) {
        const struct conf_error *e = &errors.v[i];
        if (e->line == LINE && strcmp(e->field, field) == 0 && strstr(e->text, words)) {
            return;
        }
    }
    fail_msg("no error at line %d, field %s: %s", LINE, field, words);
}

#define DEVICES(text) HEAD "devices: { " text " }\n"

static void devices(void **state)
{
    (void)state;
    struct conf_issuer *conf = NULL;
    const char *yaml = DEVICES("profiles: [ { name: device } ]");
    assert_int_equal(conf_issuer_parse(att_slice_str(yaml), &conf, NULL, NULL), ATT_OK);
    assert_false(conf->devices->attestation_ca); /* off unless it is said */
    assert_int_equal(conf->devices->ak_lifetime_s, 86400);
    assert_int_equal(conf->devices->profiles[0].lifetime_s, 86400);
    assert_non_null(conf_device_profile(conf, "device"));
    assert_null(conf_device_profile(conf, "trading"));
    conf_issuer_free(conf);
    refused(DEVICES("profiles: []"), "devices.profiles", "list of 1");
    refused(DEVICES("profiles: [ { name: trading } ]"), "devices.profiles[0].name", "twice");
    refused(DEVICES("profiles: [ { name: a }, { name: a } ]"), "devices.profiles[1].name", "twice");
    refused(DEVICES("profiles: [ { name: a, lifetime: 1m } ]"), "devices.profiles[0].lifetime",
            "at least 120");
    refused(DEVICES("profiles: [ { name: a } ], ak_lifetime: 1m"), "devices.ak_lifetime",
            "at least 120");
    refused(DEVICES("profiles: [ { name: a } ], ak_lifetime: 32d"), "devices.ak_lifetime",
            "at most 31d");
    refused(DEVICES("profiles: [ { name: attestation-ca } ]"), "devices.profiles[0].name",
            "attestation CA");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(devices)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
