/* The section acme of attestd.yaml and its file of agents: what is refused first, then what holds.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "attestd/conf/acme_agents.h"

#include <stdio.h>
#include <string.h>

static struct conf_errors errors;

static void expect(const char *field, const char *words)
{
    for (size_t i = 0; i < errors.n; i++) {
        const struct conf_error *e = &errors.v[i];
        if (strcmp(e->field, field) == 0 && strstr(e->text, words)) {
            return;
        }
        print_message("  %d: %s: %s\n", e->line, e->field, e->text);
    }
    fail_msg("no error of field %s: %s", field, words);
}

/* Exactly one error, this one. */
static void refused(const char *yaml, const char *field, const char *words)
{
    struct conf_attestd *conf = NULL;
    assert_int_equal(conf_attestd_parse(att_slice_str(yaml), &conf, &errors, NULL), ATT_E_PARSE);
    assert_null(conf);
    expect(field, words);
    assert_int_equal(errors.n, 1);
}

#define SERVER "acme:\n  directory: https://ca.example:9000/acme/device/directory\n"
#define TLS    "  ca_file: /etc/ca.pem\n"
#define AGENTS "  agents: /etc/agents.yaml\n"
#define AK     "  ak_certificate: /etc/ak.pem\n"
#define CA     "  attestation_ca: { url: https://att.example/attestation-ca }\n"

static void test_section_refused(void **state)
{
    (void)state;
    refused(SERVER TLS AGENTS AK "  more: 1\n", "acme.more", "unknown key");
    refused("acme:\n" TLS AGENTS AK, "acme.directory", "required");
    refused("acme:\n  directory: http://ca.example/directory\n" TLS AGENTS AK, "acme.directory",
            "https");
    refused("acme:\n  directory: https://ca.example\n" TLS AGENTS AK, "acme.directory",
            "found no path");
    refused(SERVER "  roots: /etc/roots.pem\n" AGENTS AK, "acme", "found neither");
    refused(SERVER TLS
            "  ca_sha256: "
            "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n" AGENTS AK,
            "acme", "ca_file or ca_sha256, found both");
    refused(SERVER "  ca_sha256: "
                   "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n" AGENTS AK,
            "acme.roots", "required"); /* a digest is no anchor of certificates */
    refused(SERVER TLS AK, "acme.agents", "required");
    refused(SERVER TLS "  agents: agents.yaml\n" AK, "acme.agents", "absolute path");
    refused(SERVER TLS AGENTS, "acme", "attestation_ca or ak_certificate, found neither");
    refused(SERVER TLS AGENTS AK CA, "acme", "attestation_ca or ak_certificate, found both");
    refused(SERVER TLS AGENTS "  attestation_ca: { ca_file: /etc/x.pem }\n",
            "acme.attestation_ca.url", "required");
    refused(SERVER TLS AGENTS AK "  eab: { kid: me }\n", "acme.eab.key_file", "required");
    refused(SERVER TLS AGENTS AK "  eab: { key_file: /etc/eab.key }\n", "acme.eab.kid", "required");
    refused(SERVER TLS AGENTS AK "  ak: rsa-1024\n", "acme.ak", "rsa-2048");
    refused(SERVER TLS AGENTS AK "ticket_file: /etc/t.json\n", "ticket_file", "acme.eab");
    refused(SERVER TLS AGENTS AK
            "issuer: { url: https://issuer.example/acme, ca_file: /etc/i.pem }\n",
            "acme", "expected issuer or acme, found both");
}

static void test_section(void **state)
{
    (void)state;
    struct conf_attestd *conf = NULL;
    assert_int_equal(conf_attestd_parse(att_slice_str(SERVER TLS AGENTS CA
                                                      "  eab: { kid: me, key_file: /etc/e }\n"),
                                        &conf, &errors, NULL),
                     ATT_OK);
    assert_string_equal(conf->acme->roots, "/etc/ca.pem");
    assert_string_equal(conf->acme->ak, "rsa-2048");
    assert_string_equal(conf->acme->attestation_ca->ca_file, "/etc/ca.pem");
    assert_string_equal(conf->acme->eab->kid, "me");
    assert_int_equal(conf_acme_origin(conf->acme->directory), strlen("https://ca.example:9000"));
    conf_attestd_free(conf);
}

/* ---- agents ---- */

static void no_agents(const char *yaml, const char *field, const char *words)
{
    struct conf_acme_agents *agents = NULL;
    assert_int_equal(conf_acme_agents_parse(att_slice_str(yaml), &agents, &errors, NULL),
                     ATT_E_PARSE);
    assert_null(agents);
    expect(field, words);
    assert_int_equal(errors.n, 1);
}

#define W ", workload: { uid: 1 }"
static void test_agents_refused(void **state)
{
    (void)state;
    no_agents("agents: x\n", "agents", "expected a list");
    no_agents("agents:\n  - { name: Bad" W " }\n", "agents[0].name", "expected a name");
    no_agents("agents:\n  - { name: a }\n", "agents[0].workload", "required");
    no_agents("agents:\n  - { name: a, workload: { exe_sha256: [ "
              "\"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\" ] } }\n",
              "agents[0].workload[0]", "uid or unit");
    no_agents("agents:\n  - { name: a, key: memory" W " }\n", "agents[0].key", "expected tpm");
    no_agents("agents:\n  - { name: a, identifier: a/b" W " }\n", "agents[0].identifier",
              "without space and /");
    no_agents("agents:\n  - { name: a, identifier: \"a b\"" W " }\n", "agents[0].identifier",
              "without space and /");
    no_agents("agents:\n  - { name: a, identifier: \"\"" W " }\n", "agents[0].identifier",
              "1 … 255");
    no_agents("agents:\n  - { name: a, lifetime: 1h" W " }\n", "agents[0].lifetime",
              "unknown key"); /* it is the server's to say */
    no_agents("agents:\n  - { name: a" W " }\n  - { name: a" W " }\n", "agents[1].name", "twice");
}

static void test_agents(void **state)
{
    (void)state;
    struct conf_acme_agents *agents = NULL;
    const char *yaml = "agents:\n  - { name: a, identifier: ek" W " }\n"
                       "  - { name: b, identifier: serial-7, key: tpm, profile: device" W " }\n";
    assert_int_equal(conf_acme_agents_parse(att_slice_str(yaml), &agents, &errors, NULL), ATT_OK);
    assert_int_equal(agents->n, 2);
    assert_null(agents->agents[0].identifier);
    assert_null(agents->agents[0].profile);
    assert_string_equal(agents->agents[1].identifier, "serial-7");
    assert_string_equal(agents->agents[1].profile, "device");
    assert_int_equal(agents->agents[1].workload[0].uid, 1);
    conf_acme_agents_free(agents);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_section_refused),
        cmocka_unit_test(test_section),
        cmocka_unit_test(test_agents_refused),
        cmocka_unit_test(test_agents),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
