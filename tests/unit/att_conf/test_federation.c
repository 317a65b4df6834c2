/* The section `federation` of issuer.yaml. */
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
#define LINE      7 /* of the section */
#define FED(m)    HEAD "federation: {" m "}\n"
#define URL       "url: \"https://p.example/b\""
#define DOMAIN(m) FED("trust_domains: [{name: partner.example, " URL m "}]")
#define SPIFFE(m) DOMAIN(", profile: https_spiffe, bundle_file: /b, spiffe_id: " m)
#define ONE       "trust_domains: [{name: a, " URL "}], "
#define AT        "federation.trust_domains[0]"

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

static void taken(void **state)
{
    (void)state;
    struct conf_issuer *conf = NULL;
    assert_int_equal(conf_issuer_parse(att_slice_str(HEAD), &conf, NULL, NULL), ATT_OK);
    assert_null(conf->federation);
    assert_null(conf_federated(conf->federation, "partner.example"));
    conf_issuer_free(conf);
    assert_int_equal(conf_issuer_parse(att_slice_str(DOMAIN("")), &conf, NULL, NULL), ATT_OK);
    assert_int_equal(conf->federation->refresh_min_s, 60);
    assert_int_equal(conf->federation->refresh_max_s, 3600);
    assert_int_equal(conf->federation->timeout_s, 10);
    assert_int_equal(conf->federation->n_allow, 0);
    const struct conf_federated *d = conf_federated(conf->federation, "partner.example");
    assert_non_null(d);
    assert_string_equal(d->profile, "https_web");
    assert_false(d->by_spiffe);
    assert_null(conf_federated(conf->federation, "partner"));
    conf_issuer_free(conf);
    assert_int_equal(conf_issuer_parse(att_slice_str(SPIFFE("\"spiffe://partner.example/x\"")),
                                       &conf, NULL, NULL),
                     ATT_OK);
    assert_true(conf->federation->trust_domains[0].by_spiffe);
    conf_issuer_free(conf);
}

static void domains(void **state)
{
    (void)state;
    refused(FED("refresh_min: 1m"), "federation.trust_domains", "required");
    refused(FED("trust_domains: []"), "federation.trust_domains", "");
    refused(FED("trust_domains: [{name: a.example}]"), AT ".url", "required");
    refused(DOMAIN(", also: x"), AT ".also", "");
    refused(FED("trust_domains: [{name: bank.example, " URL "}]"), AT ".name", "own trust domain");
    refused(FED("trust_domains: [{name: A, " URL "}]"), AT ".name", "");
    refused(FED("trust_domains: [{name: a, " URL "}, {name: a, " URL "}]"),
            "federation.trust_domains[1].name", "twice");
    refused(FED("trust_domains: [{name: a, url: \"http://p.example/b\"}]"), AT ".url", "");
    refused(FED("trust_domains: [{name: a, url: \"https://u@p.example/b\"}]"), AT ".url", "");
    refused(DOMAIN(", profile: web"), AT ".profile", "https_web, https_spiffe");
    refused(DOMAIN(", ca_file: roots.pem"), AT ".ca_file", "absolute");
}

static void profiles(void **state)
{
    (void)state;
    refused(DOMAIN(", profile: https_spiffe"), AT ".profile", "needs spiffe_id");
    refused(DOMAIN(", profile: https_spiffe, bundle_file: /b"), AT ".profile", "needs spiffe_id");
    refused(DOMAIN(", profile: https_spiffe, spiffe_id: \"spiffe://partner.example/x\""),
            AT ".profile", "bundle_file");
    refused(DOMAIN(", spiffe_id: \"spiffe://partner.example/x\""), AT ".spiffe_id",
            "https_spiffe only");
    refused(DOMAIN(", bundle_file: /b"), AT ".bundle_file", "https_spiffe only");
    refused(SPIFFE("\"spiffe://partner.example/x\", ca_file: /c"), AT ".ca_file", "https_web only");
    refused(SPIFFE("\"spiffe://other.example/x\""), AT ".spiffe_id",
            "SPIFFE ID of partner.example");
    refused(SPIFFE("\"spiffe://partner.example\""), AT ".spiffe_id", "with a path");
    refused(SPIFFE("\"spiffe://partner.example/\""), AT ".spiffe_id", "with a path");
    refused(SPIFFE("\"spiffe://partner.example.evil/x\""), AT ".spiffe_id", "");
}

static void bounds(void **state)
{
    (void)state;
    refused(FED(ONE "allow: [10.1.0.0/8]"), "federation.allow[0]", "host bits");
    refused(FED(ONE "refresh_min: 0s"), "federation.refresh_min", "a duration");
    refused(FED(ONE "refresh_max: 8d"), "federation.refresh_max", "at most 7d");
    refused(FED(ONE "refresh_min: 2h"), "federation.refresh_max", "at least refresh_min");
    refused(FED(ONE "timeout: 61s"), "federation.timeout", "at most 60s");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(taken), cmocka_unit_test(domains),
                                       cmocka_unit_test(profiles), cmocka_unit_test(bounds)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
