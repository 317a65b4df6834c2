/* proxy_from of issuer.yaml: addresses and ranges of balancers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "attestd/conf/issuer_conf.h"

#include <stdio.h>
#include <string.h>

#define HEAD                                                                                       \
    "trust_domain: bank.example\nurl: https://127.0.0.1:8443/acme\nek: { roots_dir: /r }\n"        \
    "enrolment: { boot: ovmf-guest, pcrs: \"sha256:0,7\" }\n"                                      \
    "profiles:\n  - { name: trading, boot: none, pcrs: \"sha256:0\" }\n"
#define LINE 7

static struct conf_errors errors;

static void taken(void **state)
{
    (void)state;
    struct conf_issuer *conf = NULL;
    assert_int_equal(conf_issuer_parse(att_slice_str(HEAD), &conf, NULL, NULL), ATT_OK);
    assert_int_equal(conf->n_proxy_from, 0);
    conf_issuer_free(conf);
    const char *yaml = HEAD "proxy_from: [10.77.0.0/24, 10.0.0.9, \"fd00::9\"]\n";
    assert_int_equal(conf_issuer_parse(att_slice_str(yaml), &conf, NULL, NULL), ATT_OK);
    assert_int_equal(conf->n_proxy_from, 3);
    assert_true(conf->proxies[0].bits == 24 && !conf->proxies[0].v6);
    assert_true(conf->proxies[1].bits == 32 && conf->proxies[1].address[3] == 9);
    assert_true(conf->proxies[2].v6 && conf->proxies[2].bits == 128);
    conf_issuer_free(conf);
}

static void refused(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "10.0.0.1/8", "0.0.0.0/0", "::/0",     "10.0.0.0/33",     "10.0.0",
        "10.0.0.0/",  "",          "balancer", "::ffff:10.0.0.1", "::ffff:10.0.0.0/104"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        char yaml[1024];
        struct conf_issuer *conf = NULL;
        snprintf(yaml, sizeof yaml, HEAD "proxy_from: [10.0.0.9, \"%s\"]\n", wrong[i]);
        assert_int_equal(conf_issuer_parse(att_slice_str(yaml), &conf, &errors, NULL), ATT_E_PARSE);
        assert_null(conf);
        const struct conf_error *e = &errors.v[0];
        if (errors.n != 1 || e->line != LINE || strcmp(e->field, "proxy_from[1]") != 0 ||
            !strstr(e->text, "without host bits and not of all addresses")) {
            fail_msg("\"%s\": %zu errors, line %d, %s: %s", wrong[i], errors.n, e->line, e->field,
                     e->text);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(taken), cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
