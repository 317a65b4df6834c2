/* The section `log_tpm` of issuer.yaml. */
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

#define TPM(text) HEAD "log_tpm: { " text " }\n"

static void log_tpm(void **state)
{
    (void)state;
    struct conf_issuer *conf = NULL;
    assert_int_equal(conf_issuer_parse(att_slice_str(HEAD), &conf, NULL, NULL), ATT_OK);
    assert_null(conf->log_tpm); /* off unless it is said */
    conf_issuer_free(conf);
    const char *yaml = HEAD "log_tpm: {}\n";
    assert_int_equal(conf_issuer_parse(att_slice_str(yaml), &conf, NULL, NULL), ATT_OK);
    assert_string_equal(conf->log_tpm->tcti, "device:/dev/tpmrm0");
    assert_string_equal(conf->log_tpm->dir, "/run/attest-issuerd/tpm");
    assert_int_equal(conf->log_tpm->counter_index, 0x01804c47);
    assert_int_equal(conf->log_tpm->counter_interval_s, 3600);
    assert_null(conf->log_tpm->user);
    assert_null(conf->log_tpm->owner_password_file);
    conf_issuer_free(conf);
    yaml = TPM("tcti: \"tabrmd:\", dir: /a, state_dir: /b, user: c, counter: \"0x01bfffff\", "
               "counter_interval: 60s, owner_password_file: /d");
    assert_int_equal(conf_issuer_parse(att_slice_str(yaml), &conf, NULL, NULL), ATT_OK);
    assert_int_equal(conf->log_tpm->counter_index, 0x01bfffff);
    assert_string_equal(conf->log_tpm->owner_password_file, "/d");
    conf_issuer_free(conf);
    refused(TPM("tcti: \"mssim:host=a\""), "log_tpm.tcti", "device:/PATH");
    refused(TPM("tcti: none"), "log_tpm.tcti", "device:/PATH");
    refused(TPM("dir: a"), "log_tpm.dir", "absolute");
    refused(TPM("state_dir: a"), "log_tpm.state_dir", "absolute");
    refused(TPM("owner_password_file: a"), "log_tpm.owner_password_file", "absolute");
    refused(TPM("counter: \"0x01c00002\""), "log_tpm.counter", "of the owner's");
    refused(TPM("counter: \"0x017fffff\""), "log_tpm.counter", "of the owner's");
    refused(TPM("counter: \"0x1804c47\""), "log_tpm.counter", "eight digits");
    refused(TPM("counter: \"0x01804c4g\""), "log_tpm.counter", "eight digits");
    refused(TPM("counter_interval: 59s"), "log_tpm.counter_interval", "at least 60");
    refused(TPM("key: a"), "log_tpm.key", "unknown key");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(log_tpm)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
