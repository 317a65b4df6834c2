#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "attestd/base/io.h"
#include "attestd/conf/issuer_conf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct conf_errors errors;

static struct att_slice text(const char *yaml)
{
    return att_slice_str(yaml);
}

/* An error at this line, for this field, with these words. */
static void assert_error(int line, const char *field, const char *words)
{
    for (size_t i = 0; i < errors.n; i++) {
        const struct conf_error *e = &errors.v[i];
        if (e->line == line && strcmp(e->field, field) == 0 && strstr(e->text, words)) {
            return;
        }
    }
    for (size_t i = 0; i < errors.n; i++) {
        print_message("  %d: %s: %s\n", errors.v[i].line, errors.v[i].field, errors.v[i].text);
    }
    fail_msg("no error at line %d, field %s: %s", line, field, words);
}

static void attestd_refused(const char *yaml, int line, const char *field, const char *words)
{
    struct conf_attestd *conf = NULL;
    struct att_err err = {0};
    assert_int_equal(conf_attestd_parse(text(yaml), &conf, &errors, &err), ATT_E_PARSE);
    assert_null(conf);
    assert_error(line, field, words);
    assert_int_equal(conf_attestd_parse(text(yaml), &conf, NULL, NULL), ATT_E_PARSE);
}

static void test_yaml_refused(void **state)
{
    (void)state;
    attestd_refused("", 0, "", "empty");
    attestd_refused("# nothing\n", 0, "", "empty");
    attestd_refused("just text\n", 1, "", "expected a mapping, found one value");
    attestd_refused("- a\n- b\n", 1, "", "expected a mapping, found a list");
    attestd_refused("log: text\nlog: json\n", 2, "log", "twice");
    attestd_refused("log: &a text\n", 1, "", "no anchor");
    attestd_refused("log: !!str text\n", 1, "", "no tag");
    attestd_refused("log: text\nlog_level: *a\n", 2, "", "alias");
    attestd_refused("a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n", 1, "", "no anchor");
    attestd_refused("log: text\n---\nlog: json\n", 2, "", "one YAML document");
    attestd_refused("log: \"a\\0b\"\n", 1, "", "NUL");
    attestd_refused("? [a]\n: b\n", 1, "", "plain word as key");
    attestd_refused("log: text\n\tlog_level: info\n", 2, "", "not YAML");
    attestd_refused("a: [[[[[[[[[[[[[[[[x]]]]]]]]]]]]]]]]\n", 1, "", "too deep");

    char *big = malloc(CONF_FILE_MAX + 2);
    memset(big, ' ', CONF_FILE_MAX + 1);
    struct conf_attestd *conf = NULL;
    assert_int_equal(conf_attestd_parse(ATT_SLICE(big, CONF_FILE_MAX + 1), &conf, &errors, NULL),
                     ATT_E_PARSE);
    assert_error(0, "", "at most");
    free(big);
}

/* A module of the list; n is its name's and its token's. */
#define HSM(n)      "  - name: " n "\n    module: /m\n    token: \"pkcs11:token=" n ";serial=1\"\n"
#define HSM_SECTION "hsm:\n  module: /m\n  token: \"pkcs11:token=z;serial=1\"\n"

static void test_hsms_refused(void **state)
{
    (void)state;
    attestd_refused("hsms:\n" HSM("a") HSM("b") HSM("a"), 8, "hsms[2].name",
                    "another name than that of hsms[0], found \"a\" again");
    attestd_refused("hsms:\n" HSM("default") HSM_SECTION, 2, "hsms[0].name",
                    "another name than that of hsm, found \"default\" again");
    attestd_refused("hsms:\n" HSM("a") "  - module: /m\n    token: \"pkcs11:token=b;serial=1\"\n",
                    5, "hsms[1].name", "required");
    attestd_refused("hsms:\n" HSM("a") "  - name: b\n    token: \"pkcs11:token=b;serial=1\"\n", 5,
                    "hsms[1].module", "required");
    attestd_refused("hsms:\n" HSM("a/b"), 2, "hsms[0].name", "[a-z0-9]");
    attestd_refused("hsms:\n" HSM("a23456789012345678901234567890123"), 2, "hsms[0].name",
                    "at most 32 characters, found 33");
    attestd_refused(
        "hsms:\n" HSM("a") "  - name: b\n    module: /m\n    token: \"pkcs11:slot-id=0\"\n", 7,
        "hsms[1].token", "slots and libraries change");
    attestd_refused("hsms:\n" HSM("a") "  - name: b\n    module: m.so\n    token: "
                                       "\"pkcs11:token=b;serial=1\"\n",
                    6, "hsms[1].module", "absolute path");
    attestd_refused("hsms:\n" HSM("a") HSM("b") "    sessions: 9\n", 8, "hsms[1].sessions",
                    "1 … 8, found 9");
    attestd_refused("hsms:\n" HSM("a") "    files: [ /a, b ]\n", 5, "hsms[0].files[1]",
                    "absolute path");
    attestd_refused("hsms:\n" HSM("a") "  - name: b\n    module: /m\n    token: "
                                       "\"pkcs11:token=a;serial=1?pin-source=file:/p\"\n",
                    7, "hsms[1].token", "another token than that of hsms[0]");
    attestd_refused("hsms:\n" HSM("a") HSM("b") "default_hsm: c\n", 8, "default_hsm",
                    "name of a module of this file, found \"c\"");
    attestd_refused("default_hsm: default\n", 1, "default_hsm", "name of a module");
    attestd_refused("hsms:\n" HSM("a") HSM("b") HSM("c") HSM("d") HSM("e"), 2, "hsms", "4");
    attestd_refused("hsms:\n" HSM("a") HSM("b") HSM("c") HSM("d") HSM_SECTION, 2, "hsms",
                    "at most 4 modules with the section hsm, found 5");
    attestd_refused("hsms: { a: b }\n", 1, "hsms", "expected a list");
}

static void hsms_are(const char *yaml, const char *names)
{
    struct conf_attestd *conf = NULL;
    char found[200] = "";
    assert_int_equal(conf_attestd_parse(att_slice_str(yaml), &conf, &errors, NULL), ATT_OK);
    for (unsigned i = 0; i < conf->n_hsms; i++) {
        strcat(strcat(found, i ? " " : ""), conf->hsms[i].name);
        assert_ptr_equal(conf_attestd_hsm_find(conf, conf->hsms[i].name), &conf->hsms[i]);
        assert_int_equal(conf->hsms[i].sessions, 4);
        assert_string_equal(conf->hsms[i].sandbox, "local");
    }
    assert_string_equal(found, names);
    assert_null(conf->hsm);
    assert_null(conf_attestd_hsm_find(conf, "other"));
    if (conf->n_hsms) {
        assert_string_equal(conf->default_hsm, conf->hsms[0].name);
    }
    conf_attestd_free(conf);
}

/* The default first: what default_hsm names, else the one called default, else the file's first. */
static void test_hsms(void **state)
{
    (void)state;
    hsms_are("log: text\n", "");
    hsms_are("hsms: []\n", "");
    hsms_are(HSM_SECTION, "default");
    hsms_are(HSM_SECTION "  name: vault\n", "vault");
    hsms_are("hsms:\n" HSM("a") HSM("b"), "a b");
    hsms_are("hsms:\n" HSM("a") HSM("b") HSM_SECTION, "default a b");
    hsms_are("hsms:\n" HSM("a") HSM("b") HSM("default"), "default a b");
    hsms_are("hsms:\n" HSM("a") HSM("b") HSM("c") "default_hsm: c\n", "c a b");
    hsms_are("hsms:\n" HSM("a") HSM_SECTION "default_hsm: a\n", "a default");
}

static void test_attestd_refused(void **state)
{
    (void)state;
    attestd_refused("log: text\nlogg: x\n", 2, "logg", "unknown key, expected one of: issuer");
    attestd_refused("issuer:\n  urll: x\n", 2, "issuer.urll", "unknown key");
    attestd_refused("issuer: x\n", 1, "issuer", "expected a mapping, found one value");
    attestd_refused("log: [a]\n", 1, "log", "expected one value, found a list");
    attestd_refused("log: xml\n", 1, "log", "text, json; found \"xml\"");
    attestd_refused("\nlog_level: loud\n", 2, "log_level", "debug, info");
    attestd_refused("state_dir: var/x\n", 1, "state_dir", "absolute path, found \"var/x\"");
    attestd_refused("logs:\n  ima: x\n", 2, "logs.ima", "absolute path");
    static const char *const tcti[] = {
        "/dev/tpm0",         "device", "device:",       "device:tpm0",
        "device: /dev/tpm0", "swtpm",  "swtpm:",        "swtpm:path=",
        "swtpm:path=sock",   "tabrmd", "cmd:tpm2_send", "libtss2.so:x",
        "devices:/dev/tpm0",
    };
    static const char *const over_tcp[] = {"mssim", "mssim:host=localhost,port=2321",
                                           "swtpm:host=127.0.0.1,port=2321", "swtpm:port=2321"};
    char yaml[200];
    for (size_t i = 0; i < sizeof tcti / sizeof *tcti; i++) {
        snprintf(yaml, sizeof yaml, "tpm:\n  tcti: \"%s\"\n", tcti[i]);
        attestd_refused(yaml, 2, "tpm.tcti", "device:/PATH");
    }
    for (size_t i = 0; i < sizeof over_tcp / sizeof *over_tcp; i++) {
        snprintf(yaml, sizeof yaml, "tpm:\n  tcti: \"%s\"\n", over_tcp[i]);
        attestd_refused(yaml, 2, "tpm.tcti", "attestd-keyd has no network");
    }
    attestd_refused("tpm:\n  tcti: none\n", 2, "tpm.tcti", "a host without a TPM is not served");
    attestd_refused("tpm:\n  pcr: 8\n", 2, "tpm.pcr", "none, 7, signed");
    attestd_refused("tpm:\n  pcr: signed\n", 2, "tpm.policy_key", "required with pcr: signed");
    attestd_refused("tpm:\n  policy_key: /k\n", 2, "tpm.pcr", "expected signed beside");
    attestd_refused("tpm:\n  pcr: 7\n  policies: /p\n", 2, "tpm.pcr", "expected signed beside");
    attestd_refused("tpm:\n  pcr: signed\n  policy_key: k\n", 3, "tpm.policy_key", "absolute path");
    attestd_refused("tpm:\n  pcr: signed\n  policy_key: /k\n  policy_ref: a b\n", 4,
                    "tpm.policy_ref", "expected 1-32 of");
    attestd_refused("control_group: \"a b\"\n", 1, "control_group", "group's name");
    attestd_refused("signatures: { per_second: 1000001 }\n", 1, "signatures.per_second", "at most");
    attestd_refused("signatures:\n  per_second: 9\n  burst: 1000001\n", 3, "signatures.burst",
                    "at most 1000000, found 1000001");
    attestd_refused("signatures: { burst: 5 }\n", 1, "signatures.burst", "per_second beside it");
    attestd_refused("signatures: { per_second: -1 }\n", 1, "signatures.per_second", "expected");
    attestd_refused("hsm:\n  module: /m.so\n", 2, "hsm.token", "required");
    attestd_refused("hsm:\n  token: \"pkcs11:token=a;serial=1\"\n", 2, "hsm.module", "required");
    attestd_refused("hsm:\n  module: m.so\n  token: \"pkcs11:token=a;serial=1\"\n", 2, "hsm.module",
                    "absolute path");
    attestd_refused("hsm:\n  module: /m\n  token: \"pkcs11:token=a\"\n", 3, "hsm.token",
                    "serial is missing");
    attestd_refused("hsm:\n  module: /m\n  token: \"pkcs11:token=a;serial=1?pin-value=1234\"\n", 3,
                    "hsm.token", "pin-value: a PIN does not stand");
    attestd_refused("hsm:\n  module: /m\n  token: \"pkcs11:token=a;serial=1\"\n  sandbox: none\n",
                    4, "hsm.sandbox", "local, network");
    attestd_refused("hsm:\n  module: /m\n  token: \"pkcs11:token=a;serial=1\"\n  sessions: 9\n", 4,
                    "hsm.sessions", "1 … 8, found 9");
    attestd_refused("hsm:\n  module: /m\n  token: \"pkcs11:token=a;serial=1\"\n  files:\n    - /a\n"
                    "    - b\n",
                    6, "hsm.files[1]", "absolute path");
    attestd_refused("hsm:\n  module: /m\n  token: \"pkcs11:token=a;serial=1\"\n  pin: 1\n", 4,
                    "hsm.pin", "unknown key");
    attestd_refused("issuer:\n  url: https://a\n", 2, "issuer", "ca_file or ca_sha256");
    attestd_refused("issuer:\n  ca_file: /a\n", 2, "issuer.url", "required");
    attestd_refused("issuer:\n  url: https://a\n  ca_sha256: AB\n", 3, "issuer.ca_sha256",
                    "64 lowercase hex digits, found \"AB\"");
    attestd_refused("issuer:\n  url: https://a\n  ca_file: /a\n  ca_sha256: "
                    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n",
                    4, "issuer.ca_sha256", "found both");
}

static void test_url(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "http://a",
        "https://",
        "https:///x",
        "https://a/",
        "https://u@a/x",
        "https://a/x?y",
        "https://a/x#y",
        "https://a:0/x",
        "https://a:70000",
        "https://a:80x",
        "https://[::1",
        "https://[::g]/x",
        "https://a b/x",
        "https://a//x",
        "https://-a/x",
        "https://a:/x",
        "",
        "HTTPS://a",
    };
    static const char *const good[] = {"https://127.0.0.1:8443/acme", "https://[::1]:8443/acme",
                                       "https://issuer.bank.example", "https://a/b/c"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (conf_url_check(bad[i], NULL) != ATT_E_PARSE) {
            fail_msg("accepted %s", bad[i]);
        }
    }
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(conf_url_check(good[i], NULL), ATT_OK);
    }
}

static void test_pcrs(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",           "sha256:",     "sha256",    "sha1:0",         "sha256:24", "sha256:1,0",
        "sha256:0,0", "sha256:0,",   "sha256:,0", "sha256:00",      "sha256: 0", "SHA256:0",
        "sha256:0+1", "sha256:0 ,1", "sha256:-1", "sha256:0,1,100", "sm3:0",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (conf_pcrs_check(bad[i], NULL) != ATT_E_PARSE) {
            fail_msg("accepted %s", bad[i]);
        }
    }
    assert_int_equal(conf_pcrs_check("sha256:0,1,2,7", NULL), ATT_OK);
    assert_int_equal(conf_pcrs_check("sha384:23", NULL), ATT_OK);
}

static void test_all_errors_at_once(void **state)
{
    (void)state;
    struct conf_attestd *conf = NULL;
    struct att_err err = {0};
    assert_int_equal(
        conf_attestd_parse(text("log: xml\nlog_level: loud\nrun_dir: x\n"), &conf, &errors, &err),
        ATT_E_PARSE);
    assert_int_equal(errors.n, 3);
    assert_non_null(strstr(err.msg, "and 2 more"));
    assert_int_equal(conf_attestd_parse(text("a: 1\nb: 2\nissuer: [x]\n"), &conf, &errors, NULL),
                     ATT_E_PARSE);
    assert_int_equal(errors.n, 3);
    att_autobuf line = {0};
    conf_error_text(&errors.v[1], "attestd.yaml", &line);
    assert_non_null(strstr(att_buf_cstr(&line), "attestd.yaml:2: b: unknown key"));

    struct att_buf many = {0};
    for (int i = 0; i < 60; i++) {
        att_buf_printf(&many, "k%d: x\n", i);
    }
    att_buf_put_str(&many, "issuer:\n");
    for (int i = 0; i < 20; i++) {
        att_buf_printf(&many, "  k%d: x\n", i);
    }
    assert_int_equal(conf_attestd_parse(att_buf_slice(&many), &conf, &errors, NULL), ATT_E_PARSE);
    assert_int_equal(errors.n, CONF_ERRORS_MAX);
    assert_int_equal(errors.dropped, 80 - CONF_ERRORS_MAX);
    att_buf_done(&many);
}

static void test_attestd_defaults(void **state)
{
    (void)state;
    struct conf_attestd *conf = NULL;
    struct att_err err = {0};
    assert_int_equal(conf_attestd_parse(text("log: json\n"), &conf, &errors, &err), ATT_OK);
    assert_null(conf->issuer);
    assert_string_equal(conf->tpm->tcti, "device:/dev/tpmrm0");
    assert_string_equal(conf->state_dir, "/var/lib/attestd");
    assert_string_equal(conf->run_dir, "/run/attestd");
    assert_string_equal(conf->control_group, "attestd-admin");
    assert_int_equal(conf->signatures->per_second, 0);
    assert_null(conf->ticket_file);
    assert_true(conf->log_json);
    assert_int_equal(conf->log_least, ATT_INFO);
    assert_int_equal(conf_path_set(&conf->run_dir, "x", NULL), ATT_E_INVAL);
    assert_int_equal(conf_path_set(&conf->run_dir, "/x", NULL), ATT_OK);
    assert_string_equal(conf->run_dir, "/x");
    conf_attestd_free(conf);
    conf_attestd_free(NULL);
}

static void test_attestd_load(void **state)
{
    (void)state;
    char path[] = "/tmp/att-conf-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    struct conf_attestd *conf = NULL;
    struct att_err err = {0};
    static const char yaml[] =
        "issuer:\n  url: https://127.0.0.1:8443/acme\n  ca_sha256: "
        "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n"
        "tpm: { tcti: \"swtpm:path=/abs/sock\" }\nticket_file: /t\nlog_level: debug\n"
        "logs: { firmware: /f }\ncontrol_group: none\nsignatures: { per_second: 20 }\n";
    assert_int_equal(att_io_write_file(path, att_slice_str(yaml), 0600, NULL), ATT_OK);
    assert_int_equal(conf_attestd_load(path, &conf, &errors, &err), ATT_OK);
    assert_string_equal(conf->issuer->url, "https://127.0.0.1:8443/acme");
    assert_int_equal(conf->issuer->ca_sha256_bytes[1], 0x23);
    assert_string_equal(conf->tpm->tcti, "swtpm:path=/abs/sock");
    assert_string_equal(conf->logs->firmware, "/f");
    assert_non_null(conf->logs->ima);
    assert_string_equal(conf->ticket_file, "/t");
    assert_null(conf->control_group);
    assert_int_equal(conf->signatures->per_second, 20);
    assert_int_equal(conf->signatures->burst, 40);
    assert_int_equal(conf->log_least, ATT_DEBUG);
    conf_attestd_free(conf);
    conf = NULL;
    unlink(path);
    assert_int_equal(conf_attestd_load(path, &conf, &errors, &err), ATT_E_NOTFOUND);
    assert_int_equal(errors.n, 1);
    assert_null(conf);
}

/* ---- issuer.yaml ---- */

#define HEAD     "trust_domain: bank.example\nurl: https://127.0.0.1:8443/acme\nek: { roots_dir: /r }\n"
#define ENROL    "enrolment: { boot: ovmf-guest, pcrs: \"sha256:0,7\" }\n"
#define PROFILES "profiles:\n  - { name: trading, boot: none, pcrs: \"sha256:0\" }\n"

static void issuer_refused(const char *yaml, int line, const char *field, const char *words)
{
    struct conf_issuer *conf = NULL;
    assert_int_equal(conf_issuer_parse(text(yaml), &conf, &errors, NULL), ATT_E_PARSE);
    assert_null(conf);
    assert_error(line, field, words);
}

#define DNS(more)                                                                                  \
    HEAD ENROL PROFILES "dns: { profiles: [ { name: legacy, names: [a.example] } ]" more " }\n"
#define DNS_PROFILE(more) HEAD ENROL PROFILES "dns: { profiles: [ { " more " } ] }\n"

static void test_issuer_dns(void **state)
{
    (void)state;
    struct conf_issuer *conf = NULL;
    const char *good = DNS(", allow: [10.0.0.0/8, \"fd00::/8\"]") "limits: { host_orders: 7 }\n";
    assert_int_equal(conf_issuer_parse(text(good), &conf, &errors, NULL), ATT_OK);
    assert_int_equal(conf->dns->http_port, 80);
    assert_int_equal(conf->dns->timeout_s, 10);
    assert_int_equal(conf->dns->profiles[0].lifetime_s, 7 * 86400);
    assert_true(conf->dns->ranges[1].v6 && conf->dns->ranges[1].bits == 8);
    assert_int_equal(conf->limits->host_orders, 7);
    assert_int_equal(conf->limits->account_orders, CONF_LIMIT_ORDERS);
    assert_non_null(conf_dns_profile(conf, "legacy"));
    assert_null(conf_dns_profile(conf, "other"));
    conf_issuer_free(conf);
    struct conf_dns_profile p = {.names = (char *[]){"a.example", "*.b.example"}, .n_names = 2};
    static const char *const yes[] = {"a.example", "x.b.example", "x.y.b.example"};
    static const char *const no[] = {"b.example",   "x.a.example", "xb.example",
                                     "a.example.b", ".b.example",  ""};
    for (size_t i = 0; i < sizeof yes / sizeof yes[0]; i++) {
        assert_true(conf_dns_profile_allows(&p, yes[i]));
    }
    for (size_t i = 0; i < sizeof no / sizeof no[0]; i++) {
        assert_false(conf_dns_profile_allows(&p, no[i]) && no[i][0] != '.');
    }
}

#define ADMIN(rest) HEAD ENROL PROFILES "admin:\n  client_ca_file: /a.pem\n" rest
#define CA_LINES    "  client_crl_file: none\n" /* line 9 */
#define OIDC(more)                                                                                 \
    ADMIN(CA_LINES "  oidc: [{issuer: \"https://idp.example\", audience: a" more "}]\n")
#define BIND(binding) OIDC(", ca_file: /i.pem") "  bindings: [{" binding "}]\n"

static void test_admin(void **state)
{
    (void)state;
    struct conf_issuer *conf = NULL;
    const char *good =
        OIDC(", ca_file: /i.pem") "  people: [{name: al, ids: [\"uid:7\", \"x509:CN=al\"]}]\n"
                                  "  bindings: [{principals: [\"person:al\", "
                                  "\"oidc:https://idp.example#repo/*\"], roles: [auditor, "
                                  "revoker]}]\n";
    assert_int_equal(conf_issuer_parse(text(good), &conf, &errors, NULL), ATT_OK);
    const struct conf_admin *admin = conf->admin;
    assert_true(admin->four_eyes); /* unless the file says otherwise */
    assert_false(admin->agents);
    assert_true(admin->no_crl);
    assert_null(admin->listen);
    assert_int_equal(admin->oidc[0].leeway_s, 60);
    assert_int_equal(admin->oidc[0].max_lifetime_s, 86400);
    assert_int_equal(admin->bindings[0].role_set, CONF_ROLE_AUDITOR | CONF_ROLE_REVOKER);
    assert_string_equal(conf_admin_person(admin, "uid:7"), "al");
    assert_null(conf_admin_person(admin, "uid:77"));
    const struct conf_admin_binding *b = &admin->bindings[0];
    assert_true(conf_admin_binds(admin, b, "x509:CN=al"));
    assert_true(conf_admin_binds(admin, b, "oidc:https://idp.example#repo/x"));
    static const char *const no[] = {"al",
                                     "person:al",
                                     "x509:CN=all",
                                     "x509:CN=a",
                                     "uid:8",
                                     "oidc:https://idp.example#rep",
                                     "oidc:https://idp.example2#repo/x",
                                     ""};
    for (size_t i = 0; i < sizeof no / sizeof no[0]; i++) {
        assert_false(conf_admin_binds(admin, b, no[i]));
    }
    conf_issuer_free(conf);
}

static void test_admin_refused(void **state)
{
    (void)state;
    issuer_refused(ADMIN("  listen: \"8444\"\n"), 9, "admin.listen", "expected ADDRESS:PORT");
    issuer_refused(ADMIN(""), 8, "admin", "belong together");
    issuer_refused(HEAD ENROL PROFILES "admin: {listen: \"127.0.0.1:1\"}\n", 7, "admin.listen",
                   "nobody could use it");
    issuer_refused(OIDC(""), 10, "admin.oidc[0]", "exactly one of");
    issuer_refused(OIDC(", ca_file: /a, jwks_file: /b"), 10, "admin.oidc[0]", "exactly one of");
    issuer_refused(OIDC(", ca_file: /a, algs: [HS256]"), 10, "admin.oidc[0].algs[0]", "ES256");
    issuer_refused(OIDC(", ca_file: /a, algs: [none]"), 10, "admin.oidc[0].algs[0]", "ES256");
    issuer_refused(OIDC(", ca_file: /a, leeway: 301s"), 10, "admin.oidc[0].leeway", "at most 300s");
    issuer_refused(OIDC(", ca_file: /a, max_lifetime: 1s"), 10, "admin.oidc[0].max_lifetime",
                   "at least 60");
    issuer_refused(OIDC(", ca_file: /a, claims: [tid]"), 10, "admin.oidc[0].claims[0]",
                   "NAME=VALUE");
    issuer_refused(ADMIN(CA_LINES "  oidc: [{issuer: \"http://idp.example\", audience: a, "
                                  "ca_file: /a}]\n"),
                   10, "admin.oidc[0].issuer", "https");
    issuer_refused(BIND("principals: [x], roles: [root]"), 11, "admin.bindings[0].roles[0]",
                   "registrar");
    static const char *const principals[] = {"*",
                                             "x",
                                             "uid:0",
                                             "x509:CN=a*",
                                             "spiffe://*",
                                             "spiffe://bank.example*",
                                             "spiffe://bank.example/*/x",
                                             "person:nobody",
                                             "oidc:https://idp.example*",
                                             "oidc:https://idp.example",
                                             "oidc:https://idp.example#",
                                             "oidc:https://other.example#a"};
    for (size_t i = 0; i < sizeof principals / sizeof principals[0]; i++) {
        char yaml[2048];
        snprintf(yaml, sizeof yaml, "%s", BIND("principals: [\"PRINCIPAL\"], roles: [auditor]"));
        char *at = strstr(yaml, "PRINCIPAL"), rest[256];
        snprintf(rest, sizeof rest, "%s", at + 9);
        snprintf(at, sizeof yaml - (size_t)(at - yaml), "%s%s", principals[i], rest);
        issuer_refused(yaml, 11, "admin.bindings[0].principals[0]", "");
    }
    issuer_refused(BIND("principals: [\"x509:CN=a\"], roles: [auditor], paths: "
                        "[\"spiffe://other.example/agent/a\"]"),
                   11, "admin.bindings[0].paths[0]", "spiffe://bank.example/agent/NAME");
    issuer_refused(BIND("principals: [\"x509:CN=a\"], roles: [auditor], labels: [zone]"), 11,
                   "admin.bindings[0].labels[0]", "KEY=VALUE");
    issuer_refused(BIND("principals: [\"x509:CN=a\"], roles: [auditor], labels: [\"a=b\", "
                        "\"c=d\"], paths: [\"spiffe://bank.example/agent/a\"]"),
                   11, "admin.bindings[0].labels", "one label");
    issuer_refused(ADMIN(CA_LINES "  people: [{name: a, ids: [\"uid:1\"]}, {name: b, ids: "
                                  "[\"uid:1\"]}]\n"),
                   10, "admin.people[1].ids[0]", "is a's already");
    issuer_refused(ADMIN(CA_LINES "  people: [{name: a, ids: [\"uid:01\"]}]\n"), 10,
                   "admin.people[0].ids[0]", "uid:N");
}

static void test_issuer_dns_refused(void **state)
{
    (void)state;
    issuer_refused(HEAD ENROL PROFILES "dns: { profiles: [] }\n", 7, "dns.profiles", "list of 1");
    issuer_refused(DNS_PROFILE("name: a"), 7, "dns.profiles[0].names", "required");
    issuer_refused(DNS_PROFILE("name: a, names: [\"*\"]"), 7, "dns.profiles[0].names[0]",
                   "host name");
    issuer_refused(DNS_PROFILE("name: a, names: [A.example]"), 7, "dns.profiles[0].names[0]",
                   "lowercase");
    issuer_refused(DNS_PROFILE("name: a, names: [a.example], lifetime: 1m"), 7,
                   "dns.profiles[0].lifetime", "at least 120");
    issuer_refused(DNS_PROFILE("name: enrolment, names: [a.example]"), 7, "dns.profiles[0].name",
                   "twice");
    issuer_refused(DNS(", http_port: 0"), 7, "dns.http_port", "1 … 65535, found 0");
    issuer_refused(DNS(", http_port: 65536"), 7, "dns.http_port", "found 65536");
    issuer_refused(DNS(", timeout: 61s"), 7, "dns.timeout", "at most 60s");
    static const char *const ranges[] = {"10.0.0.0",    "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/",
                                         "10.0.0.0/-1", "fd00::1/8",  "fd00::/129",  "x/8"};
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        char yaml[1024];
        snprintf(yaml, sizeof yaml, "%s", DNS(", allow: [\"RANGE\"]"));
        char *at = strstr(yaml, "RANGE");
        char rest[64];
        snprintf(rest, sizeof rest, "%s", at + 5);
        snprintf(at, sizeof yaml - (size_t)(at - yaml), "%s%s", ranges[i], rest);
        issuer_refused(yaml, 7, "dns.allow[0]", "without host bits");
    }
    issuer_refused(HEAD ENROL PROFILES "limits: { host_orders: 0 }\n", 7, "limits", "at least 1");
    issuer_refused(HEAD ENROL PROFILES "limits: { hosts: 1 }\n", 7, "limits.hosts", "unknown key");
}

static void test_operation_refused(void **state)
{
    (void)state;
    issuer_refused(HEAD ENROL PROFILES "metrics_listen: \"9464\"\n", 7, "metrics_listen",
                   "127.0.0.1");
    issuer_refused(HEAD ENROL PROFILES "metrics_listen: \"unix:metrics.sock\"\n", 7,
                   "metrics_listen", "unix:/PATH");
    issuer_refused(HEAD ENROL PROFILES "drain_timeout: 0s\n", 7, "drain_timeout", "");
    issuer_refused(HEAD ENROL PROFILES "drain_timeout: 60s\ndrain_notice: 30s\n", 7,
                   "drain_timeout", "found 90s");
    issuer_refused(HEAD ENROL "profiles:\n  - { name: trading, boot: none, pcrs: \"sha256:0\","
                              " retention: 399d }\n",
                   6, "profiles[0].retention", "evidence_lifetime (400d)");
}

static void test_issuer_refused(void **state)
{
    (void)state;
    issuer_refused("log: text\n", 1, "trust_domain", "required");
    issuer_refused(HEAD ENROL "profiles: []\n", 5, "profiles", "list of 1");
    issuer_refused(HEAD ENROL PROFILES "listen: localhost:1\n", 7, "listen", "ADDRESS:PORT");
    issuer_refused(HEAD ENROL PROFILES "listen: 127.0.0.1:65536\n", 7, "listen", "ADDRESS:PORT");
    issuer_refused(HEAD ENROL PROFILES "listen: \"[::1:1\"\n", 7, "listen", "ADDRESS:PORT");
    issuer_refused(HEAD ENROL PROFILES "store: issuer.db\n", 7, "store", "absolute");
    issuer_refused(HEAD ENROL PROFILES "store: \"sqlite:issuer.db\"\n", 7, "store", "absolute");
    issuer_refused(HEAD ENROL PROFILES "store_password_file: /p\n", 7, "store_password_file",
                   "takes no password");
    issuer_refused(HEAD ENROL PROFILES "store: \"postgres:dbname=x\"\nstore_password_file: p\n", 8,
                   "store_password_file", "absolute");
    assert_int_equal(unsetenv("CREDENTIALS_DIRECTORY"), 0);
    issuer_refused(HEAD ENROL PROFILES
                   "store: \"postgres:dbname=x\"\nstore_password_file: \"credential:\"\n",
                   8, "store_password_file", "credential:NAME");
    assert_int_equal(setenv("CREDENTIALS_DIRECTORY", "/run/c", 1), 0);
    issuer_refused(HEAD ENROL PROFILES
                   "store: \"postgres:dbname=x\"\nstore_password_file: \"credential:../db\"\n",
                   8, "store_password_file", "credential:NAME");
    issuer_refused(HEAD ENROL PROFILES "threads: 0\n", 7, "threads", "1 … 64, found 0");
    issuer_refused(HEAD ENROL PROFILES "threads: 65\n", 7, "threads", "found 65");
    issuer_refused(HEAD ENROL PROFILES "threads: two\n", 7, "threads", "whole number");
    issuer_refused(HEAD ENROL PROFILES "eab_required: maybe\n", 7, "eab_required", "true or false");
    issuer_refused(HEAD ENROL PROFILES "evidence_lifetime: 1h\n", 7, "evidence_lifetime",
                   "at least 86400");
#define JWT(m) HEAD ENROL PROFILES "jwt: {" m "}\n"
#define ISS    "issuer: \"https://id.example\", "
    issuer_refused(JWT("issuer: \"http://id.example\""), 7, "jwt.issuer", "https");
    issuer_refused(JWT("issuer: \"https://id.example/?a\""), 7, "jwt.issuer", "");
    issuer_refused(JWT(ISS "cert_file: /etc/id.crt"), 7, "jwt.cert_file", "together");
    issuer_refused(JWT(ISS "keys: hsm"), 7, "jwt.keys", "section hsm");
    issuer_refused(JWT(ISS "lifetime: 2h"), 7, "jwt.lifetime", "at most 3600s");
    issuer_refused(JWT(ISS "rotate: 2h, publish_wait: 2h"), 7, "jwt.publish_wait", "less than");
    issuer_refused(HEAD ENROL PROFILES "crl: {listen: \"8080\"}\n", 7, "crl.listen",
                   "expected ADDRESS:PORT");
    issuer_refused(HEAD ENROL PROFILES "crl: {url: \"https://crl.bank.example\"}\n", 7, "crl.url",
                   "expected http://HOST");
    issuer_refused(HEAD ENROL PROFILES "crl: {url: \"http://crl.bank.example/\"}\n", 7, "crl.url",
                   "without trailing slash");
    issuer_refused(HEAD ENROL PROFILES "crl: {lifetime: 1s}\n", 7, "crl.lifetime", "at least 120");
    issuer_refused(HEAD ENROL PROFILES "crl: {life: 1h}\n", 7, "crl.life", "");
    issuer_refused(HEAD ENROL PROFILES "ca_warning: 1h\n", 7, "ca_warning", "at least 86400");
    issuer_refused(HEAD ENROL PROFILES "tls: { cert_file: /c }\n", 7, "tls.key_file", "required");
    issuer_refused(HEAD PROFILES "enrolment: { boot: none }\n", 6, "enrolment.pcrs", "required");
    issuer_refused(HEAD PROFILES "enrolment: { boot: X, pcrs: \"sha256:0\" }\n", 6,
                   "enrolment.boot", "expected a name");
    issuer_refused(HEAD PROFILES "enrolment: { boot: none, pcrs: \"sha1:0\" }\n", 6,
                   "enrolment.pcrs", "BANK:PCR");
    issuer_refused(HEAD PROFILES "enrolment: { boot: none, pcrs: \"sha256:0\", ek: any }\n", 6,
                   "enrolment.ek", "certificate, inventory");
    issuer_refused(HEAD PROFILES "enrolment: { boot: none, pcrs: \"sha256:0\", ak_lifetime: 1m }\n",
                   6, "enrolment.ak_lifetime", "at least 600");
    issuer_refused(HEAD PROFILES
                   "enrolment: { boot: none, pcrs: \"sha256:0\", logs: [firmware, firmware] }\n",
                   6, "enrolment.logs[1]", "twice");
    issuer_refused(HEAD PROFILES "enrolment: { boot: none, pcrs: \"sha256:0\", logs: [kernel] }\n",
                   6, "enrolment.logs[0]", "firmware, systemd, ima");
    issuer_refused(HEAD PROFILES "enrolment: { boot: none, pcrs: \"sha256:0,10\", logs: [ima] }\n",
                   6, "enrolment.logs", "go on from firmware");
    issuer_refused(HEAD PROFILES
                   "enrolment: { boot: none, pcrs: \"sha256:0,1,11\", logs: [firmware, ima] }\n",
                   6, "enrolment.logs", "needs PCR 10");
    issuer_refused(
        HEAD PROFILES
        "enrolment: { boot: none, pcrs: \"sha256:0,1,10\", logs: [firmware, systemd] }\n",
        6, "enrolment.logs", "systemd needs one of");
    issuer_refused("trust_domain: Bank\nurl: https://a\nek: { roots_dir: /r }\n" ENROL PROFILES, 1,
                   "trust_domain", "SPIFFE trust domain");
    issuer_refused("trust_domain: b\nurl: http://a\nek: { roots_dir: /r }\n" ENROL PROFILES, 2,
                   "url", "https://HOST");
    issuer_refused("trust_domain: b\nurl: https://a\nek:\n  roots_dir: /r\n  deny:\n"
                   "    - { manufacturer: LONGER }\n" ENROL PROFILES,
                   6, "ek.deny[0].manufacturer", "four characters");
    issuer_refused("trust_domain: b\nurl: https://a\nek:\n  roots_dir: /r\n  deny:\n"
                   "    - manufacturer: \"STM \"\n      versions: [\"1.2.3\"]\n" ENROL PROFILES,
                   7, "ek.deny[0].versions[0]", "expected a version");
}

static void test_profiles_refused(void **state)
{
    (void)state;
    const char *const yaml =
        HEAD ENROL "profiles:\n"
                   "  - { name: a, boot: none, pcrs: \"sha256:0\", lifetime: 1m }\n"   /* 6 */
                   "  - { name: a, boot: none, pcrs: \"sha256:0\" }\n"                 /* 7 */
                   "  - { name: B, boot: none, pcrs: \"sha256:0\" }\n"                 /* 8 */
                   "  - { name: c, boot: none, pcrs: \"sha256:0\", keys: [usb] }\n"    /* 9 */
                   "  - { name: d, boot: none, pcrs: \"sha256:0\", keys: [memory] }\n" /* 10 */
                   "  - { name: e, boot: none, pcrs: \"sha256:0\", lifetime: soon }\n" /* 11 */
                   "  - { name: f, boot: none, pcrs: \"sha256:0\", description: \"\" }\n"
                   "  - { name: g, boot: none, pcrs: \"sha256:0\", parent_policy: \"8\" }\n"
                   "  - { name: h, boot: none, pcrs: \"sha256:0\", parent_policy: \"abcd\" }\n"
                   "  - { name: i, boot: none, pcrs: \"sha256:0\", key_types: [rsa-1024] }\n"
                   "  - { name: j, boot: none, pcrs: \"sha256:0\", key_types: [rsa-2048] }\n";
    issuer_refused(yaml, 6, "profiles[0].lifetime", "at least 120 s");
    issuer_refused(yaml, 7, "profiles[1].name", "twice");
    issuer_refused(yaml, 8, "profiles[2].name", "expected a name");
    issuer_refused(yaml, 9, "profiles[3].keys[0]", "tpm, hsm, memory, exportable");
    issuer_refused(yaml, 10, "profiles[4].lifetime", "at most 15m");
    issuer_refused(yaml, 11, "profiles[5].lifetime", "found \"soon\"");
    issuer_refused(yaml, 12, "profiles[6].description", "1 … 256 bytes");
    issuer_refused(yaml, 13, "profiles[7].parent_policy", "none, 7 or 64");
    issuer_refused(yaml, 14, "profiles[8].parent_policy", "none, 7 or 64");
    issuer_refused(yaml, 15, "profiles[9].key_types[0]", "ec-p256, rsa-2048, rsa-3072");
    issuer_refused(yaml, 16, "profiles[10].key_types", "keys has no hsm");
    issuer_refused(HEAD ENROL "profiles:\n  - { name: a, pcrs: \"sha256:0\" }\n", 6,
                   "profiles[0].boot", "required");
}

/* Who signs policies, and what their findings do. */
#define KEY "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
static void test_policy_use(void **state)
{
    (void)state;
    const char *const yaml =
        HEAD ENROL "profiles:\n"
                   "  - { name: a, boot: b, pcrs: \"sha256:0\", policy_signers: [ \"00\" ] }\n"
                   "  - { name: c, boot: b, pcrs: \"sha256:0\", mode: lenient }\n"
                   "  - { name: enrolment, boot: b, pcrs: \"sha256:0\" }\n";
    issuer_refused(yaml, 6, "profiles[0].policy_signers", "64 hex digits");
    issuer_refused(yaml, 7, "profiles[1].mode", "enforce, warn, observe");
    issuer_refused(yaml, 8, "profiles[2].name", "not of a profile");
    issuer_refused(HEAD "enrolment: { boot: b, pcrs: \"sha256:0\", mode: no }\n" PROFILES, 4,
                   "enrolment.mode", "enforce, warn, observe");
    struct conf_issuer *conf = NULL;
    struct att_err err = {0};
    if (conf_issuer_parse(text(HEAD ENROL "profiles:\n  - { name: a, boot: b, pcrs: \"sha256:0\", "
                                          "policy_signers: [ \"" KEY "\" ], mode: observe }\n"),
                          &conf, &errors, &err) != ATT_OK) {
        fail_msg("%s", err.msg);
    }
    assert_int_equal(conf->profiles[0].n_policy_signers, 1);
    assert_int_equal(conf->profiles[0].signers[0][1], 0x11);
    assert_string_equal(conf->profiles[0].mode, "observe");
    assert_string_equal(conf->enrolment->mode, "enforce");
    assert_int_equal(conf->enrolment->n_policy_signers, 0);
    conf_issuer_free(conf);
}

static void test_issuer_accepts(void **state)
{
    (void)state;
    struct conf_issuer *conf = NULL;
    struct att_err err = {0};
    if (conf_issuer_parse(text(HEAD ENROL PROFILES), &conf, &errors, &err) != ATT_OK) {
        fail_msg("%s", err.msg);
    }
    assert_string_equal(conf->listen_host, "127.0.0.1");
    assert_int_equal(conf->listen_port, 8443);
    assert_int_equal(conf->threads, 4);
    assert_true(conf->eab_required);
    assert_false(conf->enrolment->boot_none);
    assert_false(conf->enrolment->ek_inventory);
    assert_int_equal(conf->enrolment->ak_lifetime_s, 7 * 86400);
    assert_int_equal(conf->enrolment->n_logs, 1);
    assert_string_equal(conf->enrolment->logs[0], "firmware");
    const struct conf_profile *p = conf_issuer_profile(conf, "trading");
    assert_non_null(p);
    assert_null(conf_issuer_profile(conf, "tradin"));
    assert_true(p->boot_none);
    assert_int_equal(p->lifetime_s, 3600);
    assert_string_equal(p->keys[0], "tpm");
    assert_null(conf->tls);
    conf_issuer_free(conf);

    static const char full[] =
        "trust_domain: bank.example\nlisten: \"[::1]:0\"\nurl: https://[::1]:8443/acme\n"
        "state_dir: /s\nrun_dir: /r\npolicies_dir: /p\nthreads: 8\neab_required: false\n"
        "ek:\n  roots_dir: /roots\n  deny:\n    - { manufacturer: \"STM \", versions: "
        "[\"1.258.0.0\"] }\n"
        "    - { manufacturer: INTC }\n"
        "enrolment: { boot: none, pcrs: \"sha256:0\", logs: [], ek: inventory, ak_lifetime: 1h }\n"
        "profiles:\n  - name: m\n    description: Memory keys\n    lifetime: 10m\n"
        "    keys: [tpm, memory]\n    boot: ovmf-guest\n    pcrs: \"sha256:0,7\"\n"
        "    logs: [firmware]\n"
        "tls: { cert_file: /c, key_file: /k }\nlog: json\nlog_level: error\ncontrol_group: wheel\n";
    conf = NULL;
    if (conf_issuer_parse(text(full), &conf, &errors, &err) != ATT_OK) {
        fail_msg("%s", err.msg);
    }
    assert_string_equal(conf->listen_host, "::1");
    assert_int_equal(conf->listen_port, 0);
    assert_false(conf->eab_required);
    assert_true(conf->enrolment->ek_inventory);
    assert_int_equal(conf->enrolment->n_logs, 0);
    assert_int_equal(conf->profiles[0].n_logs, 1);
    assert_int_equal(conf->profiles[0].lifetime_s, 600);
    conf_issuer_free(conf);
}

/* The manuals' examples are configurations. */
static char *example_of(const char *manual)
{
    const char *root = getenv("ATT_SOURCE_DIR");
    att_autobuf path = {0}, page = {0};
    att_buf_printf(&path, "%s/docs/man/%s", root ? root : ".", manual);
    if (att_io_read_file(att_buf_cstr(&path), 65536, &page, NULL) != ATT_OK) {
        return NULL;
    }
    const char *begin = strstr(att_buf_cstr(&page), ".Sh EXAMPLES");
    begin = begin ? strstr(begin, ".Bd -literal") : NULL;
    begin = begin ? strchr(begin, '\n') : NULL;
    const char *end = begin ? strstr(begin, "\n.Ed") : NULL;
    return end ? strndup(begin + 1, (size_t)(end - begin)) : NULL;
}

static void test_manual_examples(void **state)
{
    (void)state;
    struct conf_attestd *host = NULL;
    struct conf_issuer *issuer = NULL;
    struct att_err err = {0};
    char *yaml = example_of("attestd.yaml.5");
    assert_non_null(yaml);
    if (conf_attestd_parse(text(yaml), &host, &errors, &err) != ATT_OK) {
        fail_msg("attestd.yaml.5: %s", err.msg);
    }
    free(yaml);
    yaml = example_of("issuer.yaml.5");
    assert_non_null(yaml);
    if (conf_issuer_parse(text(yaml), &issuer, &errors, &err) != ATT_OK) {
        fail_msg("issuer.yaml.5: %s", err.msg);
    }
    free(yaml);
    conf_attestd_free(host);
    conf_issuer_free(issuer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_yaml_refused),
        cmocka_unit_test(test_attestd_refused),
        cmocka_unit_test(test_hsms_refused),
        cmocka_unit_test(test_hsms),
        cmocka_unit_test(test_url),
        cmocka_unit_test(test_pcrs),
        cmocka_unit_test(test_all_errors_at_once),
        cmocka_unit_test(test_attestd_defaults),
        cmocka_unit_test(test_attestd_load),
        cmocka_unit_test(test_issuer_dns),
        cmocka_unit_test(test_issuer_dns_refused),
        cmocka_unit_test(test_admin),
        cmocka_unit_test(test_admin_refused),
        cmocka_unit_test(test_operation_refused),
        cmocka_unit_test(test_issuer_refused),
        cmocka_unit_test(test_profiles_refused),
        cmocka_unit_test(test_policy_use),
        cmocka_unit_test(test_issuer_accepts),
        cmocka_unit_test(test_manual_examples),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
