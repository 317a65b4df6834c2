/* Which stores and HSM modules a profile of issuer.yaml may name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "attestd/conf/issuer_conf.h"

#include <stdio.h>
#include <string.h>

#define HEAD                                                                                       \
    "trust_domain: bank.example\nurl: https://127.0.0.1:8443/acme\nek: { roots_dir: /r }\n"        \
    "enrolment: { boot: ovmf-guest, pcrs: \"sha256:0,7\" }\nprofiles:\n"
#define PROFILE(more) HEAD "  - { name: a, boot: none, pcrs: \"sha256:0\", " more " }\n"

/* The profile is at line 6. */
static void refused(const char *yaml, const char *field, const char *words)
{
    static struct conf_errors errors;
    struct conf_issuer *conf = NULL;
    assert_int_equal(conf_issuer_parse(att_slice_str(yaml), &conf, &errors, NULL), ATT_E_PARSE);
    assert_null(conf);
    for (size_t i = 0; i < errors.n; i++) {
        const struct conf_error *e = &errors.v[i];
        if (e->line == 6 && strcmp(e->field, field) == 0 && strstr(e->text, words)) {
            return;
        }
        print_message("  %d: %s: %s\n", e->line, e->field, e->text);
    }
    fail_msg("no error for field %s: %s", field, words);
}

static void accepted(const char *yaml)
{
    static struct conf_errors errors;
    struct conf_issuer *conf = NULL;
    struct att_err err = {0};
    if (conf_issuer_parse(att_slice_str(yaml), &conf, &errors, &err) != ATT_OK) {
        fail_msg("%s", err.msg);
    }
    conf_issuer_free(conf);
}

static void test_hsms(void **state)
{
    (void)state;
    accepted(PROFILE("keys: [hsm], hsms: [vault, a.b_c-2]"));
    refused(PROFILE("hsms: [vault]"), "profiles[0].hsms", "keys has no hsm");
    refused(PROFILE("keys: [hsm], hsms: [Vault]"), "profiles[0].hsms[0]", "expected a name");
    refused(PROFILE("keys: [hsm], hsms: [v, v]"), "profiles[0].hsms[1]", "twice");
    refused(PROFILE("keys: [hsm], hsms: [a23456789012345678901234567890123]"),
            "profiles[0].hsms[0]", "at most 32 characters, found 33");
}

static void test_exportable(void **state)
{
    (void)state;
    accepted(PROFILE("keys: [tpm, exportable], lifetime: 10m"));
    accepted(PROFILE("keys: [tpm, hsm, memory, exportable], lifetime: 10m"));
    refused(PROFILE("keys: [tpm, exportable], lifetime: 11m"), "profiles[0].lifetime",
            "at most 10m in a profile that allows exportable");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hsms),
        cmocka_unit_test(test_exportable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
