/* store_password_file where systemd gave this process no credentials: processes that never ask the
 * database, and commands beside the unit, read the same issuer.yaml. */
#include "attestd/conf/issuer_conf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>

static const char text[] = "trust_domain: bank.example\n"
                           "url: \"https://issuer.bank.example:8443/acme\"\n"
                           "ek: { roots_dir: /etc/attestd/ek }\n"
                           "enrolment: { boot: none, pcrs: \"sha256:0,7\" }\n"
                           "profiles: [ { name: trading, boot: none, pcrs: \"sha256:0,7\" } ]\n"
                           "store: \"postgres:dbname=x\"\n"
                           "store_password_file: \"credential:db\"\n";

static void becomes(const char *folder, const char *expected)
{
    struct conf_issuer *conf = NULL;
    struct att_err err = {0};
    assert_int_equal(
        folder ? setenv("CREDENTIALS_DIRECTORY", folder, 1) : unsetenv("CREDENTIALS_DIRECTORY"), 0);
    if (conf_issuer_parse(att_slice_str(text), &conf, NULL, &err)) {
        fail_msg("%s", err.msg);
    }
    assert_string_equal(conf->store_password_file, expected);
    conf_issuer_free(conf);
}

static void of_another_unit(void **state)
{
    (void)state;
    becomes(NULL, "credential:db"); /* who connects says what is missing: store/test_postgres */
    becomes("/run/c", "/run/c/db");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(of_another_unit)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
