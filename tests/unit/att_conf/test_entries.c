#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "attestd/base/json.h"
#include "attestd/conf/entries.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEX "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define A(rest)                                                                                    \
    "trust_domain: bank.example\nagents:\n  - name: reader\n    owner: o@bank.example\n" rest
#define HOSTS "    hosts: [\"label:zone=trading\"]\n"
#define WORK  "    workload: { uid: 1001 }\n"
#define KEY   "    key: tpm\n    profile: trading\n"

static struct conf_errors errors;

static void refused(const char *yaml, int line, const char *field, const char *words)
{
    struct conf_entries *entries = NULL;
    assert_int_equal(conf_entries_parse(att_slice_str(yaml), &entries, &errors, NULL), ATT_E_PARSE);
    assert_null(entries);
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

static void test_key_types(void **state)
{
    (void)state;
    refused(A(HOSTS WORK "    key: tpm\n    key_type: rsa-2048\n    profile: trading\n"), 8,
            "agents[0].key_type", "RSA keys are made in an HSM only");
    refused(A(HOSTS WORK "    key: memory\n    key_type: rsa-3072\n    profile: trading\n"), 8,
            "agents[0].key_type", "in an HSM only");
    refused(A(HOSTS WORK "    key: hsm\n    key_type: rsa-1024\n    profile: trading\n"), 8,
            "agents[0].key_type", "expected one of: ec-p256, rsa-2048, rsa-3072");
    refused(A(HOSTS WORK "    key: hsm\n    key_type: [rsa-2048]\n    profile: trading\n"), 8,
            "agents[0].key_type", "expected text");
    struct conf_entries *entries = NULL;
    assert_int_equal(
        conf_entries_parse(att_slice_str(A(HOSTS WORK "    key: hsm\n    key_type: rsa-2048\n"
                                                      "    profile: trading\n")),
                           &entries, &errors, NULL),
        ATT_OK);
    assert_int_equal(entries->agents[0].key_type, ATT_KEYTYPE_RSA2048);
    struct conf_entry *again = NULL;
    json_t *json = NULL;
    assert_int_equal(conf_entry_to_json(&entries->agents[0], &json, NULL), ATT_OK);
    assert_int_equal(conf_entry_from_json(json, &again, NULL), ATT_OK);
    assert_int_equal(again->key_type, ATT_KEYTYPE_RSA2048);
    conf_entry_free(again);
    json_decref(json);
    conf_entries_free(entries);
    /* The usual type is not written: entries from before stay what they are, byte for byte. */
    assert_int_equal(conf_entries_parse(att_slice_str(A(HOSTS WORK KEY)), &entries, &errors, NULL),
                     ATT_OK);
    assert_int_equal(entries->agents[0].key_type, ATT_KEYTYPE_P256);
    assert_int_equal(conf_entry_to_json(&entries->agents[0], &json, NULL), ATT_OK);
    assert_null(json_object_get(json, "key_type"));
    json_decref(json);
    conf_entries_free(entries);
}

static void test_hsm_module(void **state)
{
    (void)state;
    refused(A(HOSTS WORK "    key: tpm\n    hsm: payments\n    profile: trading\n"), 8,
            "agents[0].hsm", "with key: hsm only, found \"payments\" with key: tpm");
    refused(A(HOSTS WORK "    key: hsm\n    hsm: ../payments\n    profile: trading\n"), 8,
            "agents[0].hsm", "[a-z0-9]");
    refused(A(HOSTS WORK "    key: hsm\n    hsm: \"\"\n    profile: trading\n"), 8, "agents[0].hsm",
            "");
    refused(A(HOSTS WORK "    key: hsm\n    hsm: a23456789012345678901234567890123\n"
                         "    profile: trading\n"),
            8, "agents[0].hsm", "at most 32 characters, found 33");
    struct conf_entries *entries = NULL;
    assert_int_equal(
        conf_entries_parse(att_slice_str(A(HOSTS WORK "    key: hsm\n    hsm: payments\n"
                                                      "    profile: trading\n")),
                           &entries, &errors, NULL),
        ATT_OK);
    assert_string_equal(entries->agents[0].hsm, "payments");
    struct conf_entry *again = NULL;
    json_t *json = NULL;
    assert_int_equal(conf_entry_to_json(&entries->agents[0], &json, NULL), ATT_OK);
    assert_int_equal(conf_entry_from_json(json, &again, NULL), ATT_OK);
    assert_string_equal(again->hsm, "payments");
    conf_entry_free(again);
    json_decref(json);
    conf_entries_free(entries);
    /* Entries that name none stay what they are, byte for byte. */
    assert_int_equal(conf_entries_parse(att_slice_str(A(HOSTS WORK KEY)), &entries, &errors, NULL),
                     ATT_OK);
    assert_null(entries->agents[0].hsm);
    assert_int_equal(conf_entry_to_json(&entries->agents[0], &json, NULL), ATT_OK);
    assert_null(json_object_get(json, "hsm"));
    json_decref(json);
    conf_entries_free(entries);
}

static void test_federates_with(void **state)
{
    (void)state;
    struct conf_entries *entries = NULL;
    struct conf_entry *again = NULL;
    json_t *json = NULL;
#define F(list) A(HOSTS WORK KEY "    federates_with: " list "\n")
    refused(F("[]"), 9, "agents[0].federates_with", "");
    refused(F("partner.example"), 9, "agents[0].federates_with", "");
    refused(F("[Partner]"), 9, "agents[0].federates_with[0]", "");
    refused(F("[\"spiffe://partner.example\"]"), 9, "agents[0].federates_with[0]", "");
    refused(F("[a, b, a]"), 9, "agents[0].federates_with[2]", "twice");
    refused(F("[a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q]"), 9, "agents[0].federates_with",
            "");
    assert_int_equal(
        conf_entries_parse(att_slice_str(F("[b.example, a.example]")), &entries, NULL, NULL),
        ATT_OK);
    assert_int_equal(conf_entry_to_json(&entries->agents[0], &json, NULL), ATT_OK);
    assert_int_equal(conf_entry_from_json(json, &again, NULL), ATT_OK);
    assert_int_equal(again->n_federates_with, 2);
    assert_true(conf_entry_federates_with(again, "a.example"));
    assert_true(conf_entry_federates_with(again, "b.example"));
    assert_false(conf_entry_federates_with(again, "example"));
    json_decref(json);
    conf_entry_free(again);
    conf_entries_free(entries);
    assert_int_equal(conf_entries_parse(att_slice_str(A(HOSTS WORK KEY)), &entries, NULL, NULL),
                     ATT_OK);
    assert_int_equal(conf_entry_to_json(&entries->agents[0], &json, NULL), ATT_OK);
    assert_null(json_object_get(json, "federates_with")); /* byte for byte as before */
    json_decref(json);
    conf_entries_free(entries);
}

static void test_audiences(void **state)
{
    (void)state;
    struct conf_entries *entries = NULL;
    struct conf_entry *again = NULL;
    json_t *json = NULL;
    refused(A(HOSTS WORK KEY "    audiences: []\n"), 9, "agents[0].audiences", "");
    refused(A(HOSTS WORK KEY "    audiences: [\"a b\"]\n"), 9, "agents[0].audiences[0]",
            "without space");
    refused(A(HOSTS WORK KEY "    audiences: [\"\"]\n"), 9, "agents[0].audiences[0]",
            "1 to 255 printable");
    refused(A(HOSTS WORK KEY "    audiences: [a, b, a]\n"), 9, "agents[0].audiences[2]",
            "stands there twice");
    assert_int_equal(conf_entries_parse(att_slice_str(A(HOSTS WORK KEY "    audiences: [b, a]\n")),
                                        &entries, &errors, NULL),
                     ATT_OK);
    assert_int_equal(conf_entry_to_json(&entries->agents[0], &json, NULL), ATT_OK);
    assert_int_equal(conf_entry_from_json(json, &again, NULL), ATT_OK);
    assert_int_equal(again->n_audiences, 2);
    assert_true(conf_entry_allows_audience(again, "a") && conf_entry_allows_audience(again, "b"));
    assert_false(conf_entry_allows_audience(again, "ab") || conf_entry_allows_audience(again, ""));
    conf_entry_free(again);
    json_decref(json);
    conf_entries_free(entries);
    assert_int_equal(conf_entries_parse(att_slice_str(A(HOSTS WORK KEY)), &entries, &errors, NULL),
                     ATT_OK);
    assert_int_equal(conf_entry_to_json(&entries->agents[0], &json, NULL), ATT_OK);
    assert_null(json_object_get(json, "audiences")); /* byte for byte as before */
    json_decref(json);
    conf_entries_free(entries);
}

static void test_refused(void **state)
{
    (void)state;
    refused("agents: []\n", 1, "trust_domain", "required");
    refused("trust_domain: Bank\nagents: []\n", 1, "trust_domain", "SPIFFE trust domain");
    refused("trust_domain: b\n", 1, "agents", "required");
    refused("trust_domain: b\nagents: x\n", 2, "agents", "expected a list, found text");
    refused("trust_domain: b\nagents: []\nmore: 1\n", 3, "more", "unknown key");
    refused("- x\n", 1, "", "expected a mapping");
    refused(A(HOSTS WORK KEY "    color: red\n"), 9, "agents[0].color", "unknown key");
    refused(A(WORK KEY), 3, "agents[0].hosts", "required");
    refused(A("    hosts: []\n" WORK KEY), 5, "agents[0].hosts", "list of 1");
    refused(A("    hosts:\n      - ek:abcd\n" WORK KEY), 6, "agents[0].hosts[0]", "label:KEY");
    refused(A("    hosts:\n      - \"label:zone\"\n" WORK KEY), 6, "agents[0].hosts[0]",
            "label:KEY=VALUE");
    refused(A("    hosts:\n      - \"label:Zone=x\"\n" WORK KEY), 6, "agents[0].hosts[0]",
            "label:KEY=VALUE");
    refused(A("    hosts:\n      - \"label:zone=\"\n" WORK KEY), 6, "agents[0].hosts[0]",
            "label:KEY=VALUE");
    refused(A(HOSTS KEY), 3, "agents[0].workload", "required");
    refused(A(HOSTS "    workload: []\n" KEY), 6, "agents[0].workload", "list of 1");
    refused(A(HOSTS "    workload:\n      - exe_sha256: [\"" HEX "\"]\n" KEY), 7,
            "agents[0].workload[0]", "expected uid or unit");
    refused(A(HOSTS "    workload:\n      uid: root\n" KEY), 7, "agents[0].workload[0].uid",
            "user id, 0 … 4294967294, found root");
    refused(A(HOSTS "    workload: { uid: \"1001\" }\n" KEY), 6, "agents[0].workload[0].uid",
            "user id");
    refused(A(HOSTS "    workload: { uid: 4294967295 }\n" KEY), 6, "agents[0].workload[0].uid",
            "user id");
    refused(A(HOSTS "    workload: { uid: -1 }\n" KEY), 6, "agents[0].workload[0].uid", "user id");
    refused(A(HOSTS "    workload: { unit: rebalancer }\n" KEY), 6, "agents[0].workload[0].unit",
            "rebalancer.service");
    refused(A(HOSTS "    workload: { unit: ../x.service }\n" KEY), 6, "agents[0].workload[0].unit",
            "rebalancer.service");
    refused(A(HOSTS "    workload:\n      uid: 1\n      exe_sha256: [ab]\n" KEY), 8,
            "agents[0].workload[0].exe_sha256[0]", "64 lowercase hex");
    refused(A(HOSTS "    workload:\n      uid: 1\n      script_sha256: [ab]\n" KEY), 8,
            "agents[0].workload[0].script_sha256[0]", "64 lowercase hex");
    refused(A(HOSTS "    workload:\n      uid: 1\n      script_sha256: " HEX "\n" KEY), 8,
            "agents[0].workload[0].script_sha256", "expected a list");
    refused(A(HOSTS "    workload:\n      - script_sha256: [\"" HEX "\"]\n" KEY), 7,
            "agents[0].workload[0]", "expected uid or unit");
    refused(A(HOSTS "    workload:\n      uid: 1\n      manifest: { path: /m }\n" KEY), 8,
            "agents[0].workload[0].manifest.sha256", "required");
    refused(
        A(HOSTS "    workload:\n      uid: 1\n      manifest: { path: m, sha256: " HEX " }\n" KEY),
        8, "agents[0].workload[0].manifest.path", "absolute path");
    refused(A(HOSTS WORK "    measured: { manifest: /m }\n" KEY), 7, "agents[0].measured",
            "expected roots or signers");
    refused(A(HOSTS WORK "    measured: { manifest: m, roots: [" HEX "] }\n" KEY), 7,
            "agents[0].measured.manifest", "absolute path");
    refused(A(HOSTS WORK "    measured: { roots: [" HEX "] }\n" KEY), 7,
            "agents[0].measured.manifest", "required");
    refused(A(HOSTS WORK "    measured: { manifest: /m, signers: [ab] }\n" KEY), 7,
            "agents[0].measured.signers[0]", "64 lowercase hex");
    refused(A(HOSTS WORK "    measured: { manifest: /m, roots: [" HEX "], level: 4 }\n" KEY), 7,
            "agents[0].measured.level", "1 … 3");
    refused(A(HOSTS WORK "    measured: { manifest: /m, roots: [" HEX "], reread_s: x }\n" KEY), 7,
            "agents[0].measured.reread_s", "expected a number");
    refused(A(HOSTS WORK "    measured: { manifest: /m, roots: [" HEX "], more: 1 }\n" KEY), 7,
            "agents[0].measured.more", "unknown key");
    refused(A(HOSTS WORK "    key: usb\n    profile: trading\n"), 7, "agents[0].key",
            "tpm, hsm, memory, exportable; found \"usb\"");
    refused(A(HOSTS WORK "    key: tpm\n"), 3, "agents[0].profile", "required");
    refused(A(HOSTS WORK "    key: tpm\n    profile: No\n"), 8, "agents[0].profile", "a name");
    refused("trust_domain: b\nagents:\n  - { name: x y, owner: o, hosts: [\"label:a=b\"], "
            "workload: { uid: 1 }, key: tpm, profile: p }\n",
            3, "agents[0].name", "a name");
    refused(A(HOSTS WORK KEY "  - name: reader\n    owner: o\n" HOSTS WORK KEY), 9,
            "agents[1].name", "twice, first as agents[0]");
    refused("trust_domain: b\nagents: &a []\n", 2, "", "no anchor");
}

static void test_too_many(void **state)
{
    (void)state;
    struct att_buf yaml = {0};
    struct conf_entries *entries = NULL;
    att_buf_put_str(&yaml, "trust_domain: b\nagents:\n");
    for (int i = 0; i <= CONF_AGENTS_MAX; i++) {
        att_buf_put_str(&yaml, "- {}\n");
    }
    assert_int_equal(conf_entries_parse(att_buf_slice(&yaml), &entries, &errors, NULL),
                     ATT_E_PARSE);
    assert_int_equal(errors.n, 1);
    assert_non_null(strstr(errors.v[0].text, "list of 0 … 10000, found 10001"));
    yaml.len -= 5;
    assert_int_equal(conf_entries_parse(att_buf_slice(&yaml), &entries, &errors, NULL),
                     ATT_E_PARSE);
    assert_int_equal(errors.n, CONF_ERRORS_MAX);
    assert_int_equal(errors.dropped, 6 * CONF_AGENTS_MAX - CONF_ERRORS_MAX);
    att_buf_done(&yaml);
}

static const char design[] =
    "trust_domain: bank.example\nagents:\n  - name: portfolio-rebalancer\n"
    "    owner: trading-platform@bank.example\n"
    "    hosts: [ \"label:zone=trading\", \"ek:" HEX "\" ]\n"
    "    workload:\n      uid: 1001\n      unit: rebalancer.service\n"
    "      exe_sha256: [ \"" HEX "\" ]\n"
    "      script_sha256: [ \"" HEX "\" ]\n"
    "      manifest: { path: /opt/rebalancer/manifest.json, sha256: \"" HEX "\" }\n"
    "    measured: { manifest: /opt/m.json, roots: [\"" HEX "\"], level: 2, reread_s: 60 }\n"
    "    key: tpm\n    profile: trading\n"
    "  - name: market-data\n    owner: md\n    hosts: [\"label:zone=trading\"]\n"
    "    workload:\n      - uid: 0\n      - unit: md@1.service\n"
    "    key: memory\n    profile: short\n";

static void test_accepted(void **state)
{
    (void)state;
    struct conf_entries *e = NULL;
    struct att_err err = {0};
    if (conf_entries_parse(att_slice_str(design), &e, &errors, &err) != ATT_OK) {
        fail_msg("%s", err.msg);
    }
    assert_int_equal(e->n_agents, 2);
    const struct conf_entry *a = &e->agents[0];
    assert_string_equal(a->name, "portfolio-rebalancer");
    assert_int_equal(a->n_workload, 1);
    assert_true(a->workload[0].has_uid);
    assert_int_equal(a->workload[0].uid, 1001);
    assert_string_equal(a->workload[0].manifest_path, "/opt/rebalancer/manifest.json");
    assert_string_equal(a->measured.manifest, "/opt/m.json");
    assert_string_equal(a->measured.roots[0], HEX);
    assert_int_equal(a->measured.n_signers, 0);
    assert_int_equal(a->measured.level, 2);
    assert_int_equal(a->measured.reread_s, 60);
    assert_null(e->agents[1].measured.manifest);
    assert_int_equal(a->workload[0].n_script_sha256, 1);
    assert_string_equal(a->workload[0].script_sha256[0], HEX);
    assert_int_equal(a->key, CONF_KEY_TPM);
    assert_int_equal(e->agents[1].n_workload, 2);
    assert_true(e->agents[1].workload[0].has_uid);
    assert_false(e->agents[1].workload[1].has_uid);

    json_t *labels = json_pack("{s:s}", "zone", "trading"),
           *other = json_pack("{s:s}", "zone", "x");
    assert_true(conf_entry_selects(a, NULL, labels));
    assert_false(conf_entry_selects(a, NULL, other));
    assert_false(conf_entry_selects(a, NULL, NULL));
    assert_true(conf_entry_selects(a, HEX, other));
    assert_false(conf_entry_selects(&e->agents[1], HEX, other));
    json_decref(labels);
    json_decref(other);

    json_t *json = NULL, *second = NULL;
    struct conf_entries *again = NULL;
    assert_int_equal(conf_entries_to_json(e, &json, NULL), ATT_OK);
    assert_int_equal(conf_entries_from_json(json, &again, NULL), ATT_OK);
    assert_int_equal(conf_entries_to_json(again, &second, NULL), ATT_OK);
    assert_true(json_equal(json, second));
    json_decref(json);
    json_decref(second);
    conf_entries_free(again);
    conf_entries_free(e);
    conf_entries_free(NULL);
}

static void json_refused(const char *text, const char *words)
{
    struct conf_entry *entry = NULL;
    struct att_err err = {0};
    json_t *json = json_loads(text, 0, NULL);
    assert_non_null(json);
    assert_int_equal(conf_entry_from_json(json, &entry, &err), ATT_E_PARSE);
    assert_null(entry);
    if (!strstr(err.msg, words)) {
        fail_msg("expected \"%s\" in \"%s\"", words, err.msg);
    }
    json_decref(json);
}

#define J(work)                                                                                    \
    "{\"name\":\"a\",\"owner\":\"o\",\"hosts\":[\"label:a=b\"],\"workload\":" work                 \
    ",\"key\":\"tpm\",\"profile\":\"p\"}"

static void test_json(void **state)
{
    (void)state;
    json_refused("[]", "expected a mapping");
    json_refused("{}", "name: required");
    json_refused(J("{\"uid\":1}"), "workload: expected a list"); /* the short form is YAML's only */
    json_refused(J("[{\"uid\":\"1\"}]"), "workload[0].uid");
    json_refused(J("[{\"uid\":1.5}]"), "workload[0].uid");
    json_refused(J("[{\"uid\":true}]"), "workload[0].uid");
    json_refused(J("[{\"uid\":null}]"), "workload[0].uid");
    json_refused(J("[{\"uid\":1,\"gid\":1}]"), "workload[0].gid: unknown key");
    json_refused(J("[1]"), "workload[0]: expected a mapping");
    struct conf_entry *entry = NULL;
    json_t *json = json_loads(J("[{\"uid\":7}]"), 0, NULL), *out = NULL;
    assert_int_equal(conf_entry_from_json(json, &entry, NULL), ATT_OK);
    assert_int_equal(conf_entry_to_json(entry, &out, NULL), ATT_OK);
    assert_true(json_equal(json, out));
    json_decref(out);
    json_decref(json);
    conf_entry_free(entry);
}

/* The list alone, as hostView carries it. */
static void test_workloads_json(void **state)
{
    (void)state;
    static const char *const bad[] = {"[]", "{}", "[{}]", "[{\"uid\":1},1]",
                                      "[{\"uid\":1,\"later_sha256\":[]}]"};
    struct conf_workload *list = NULL;
    size_t n = 77;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        json_t *json = json_loads(bad[i], 0, NULL);
        assert_int_equal(conf_workloads_from_json(json, &list, &n, NULL), ATT_E_PARSE);
        assert_int_equal(n, 77);
        json_decref(json);
    }
    assert_int_equal(conf_workloads_from_json(NULL, &list, &n, NULL), ATT_E_PARSE);
    json_t *json = json_loads("[{\"uid\":1},{\"unit\":\"a.service\"}]", 0, NULL);
    assert_int_equal(conf_workloads_from_json(json, &list, &n, NULL), ATT_OK);
    assert_int_equal(n, 2);
    assert_string_equal(list[1].unit, "a.service");
    conf_workloads_free(list, n);
    json_decref(json);
}

/* Which pairs share a host and what only digests tell apart. */
static void test_clashes(void **state)
{
    (void)state;
#define E(hosts, work)                                                                             \
    "{\"name\":\"a\",\"owner\":\"o\",\"hosts\":[\"" hosts "\"],\"workload\":[" work                \
    "],\"key\":\"tpm\",\"profile\":\"p\"}"
#define EK_A "ek:" HEX
#define EK_B                                                                                       \
    "ek:1"                                                                                         \
    "123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
    static const struct {
        const char *a, *b;
        bool clash;
    } cases[] = {
        {E("label:z=t", "{\"uid\":1}"), E("label:z=t", "{\"uid\":2}"), false},
        {E("label:z=t", "{\"uid\":1}"), E("label:z=u", "{\"uid\":1}"), false},
        {E(EK_A, "{\"uid\":1}"), E(EK_B, "{\"uid\":1}"), false},
        {E("label:z=t", "{\"uid\":1,\"unit\":\"a.service\"}"),
         E("label:z=t", "{\"uid\":1,\"unit\":\"b.service\"}"), false},
        {E("label:z=t", "{\"uid\":1}"), E("label:z=t", "{\"unit\":\"b.service\"}"), false},
        {E("label:z=t", "{\"uid\":1,\"unit\":\"a.service\"}"),
         E("label:z=t", "{\"uid\":2,\"unit\":\"a.service\"}"), false},
        {E("label:z=t", "{\"uid\":1}"), E("label:z=t", "{\"uid\":1}"), true},
        {E("label:z=t", "{\"uid\":1}"), E("label:rack=7", "{\"uid\":1}"), true},
        {E("label:z=t", "{\"uid\":1}"), E(EK_A, "{\"uid\":1}"), true},
        {E("label:z=t", "{\"uid\":1,\"exe_sha256\":[\"" HEX "\"]}"),
         E("label:z=t", "{\"uid\":1,\"unit\":\"b.service\"}"), true},
        {E("label:z=t", "{\"unit\":\"a.service\"}"), E("label:z=t", "{\"unit\":\"a.service\"}"),
         true},
        {E("label:z=t", "{\"uid\":7},{\"uid\":1}"), E("label:z=t", "{\"uid\":3},{\"uid\":1}"),
         true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct conf_entry *a = NULL, *b = NULL;
        struct conf_entry_clash clash;
        json_t *ja = json_loads(cases[i].a, 0, NULL), *jb = json_loads(cases[i].b, 0, NULL);
        assert_int_equal(conf_entry_from_json(ja, &a, NULL), ATT_OK);
        assert_int_equal(conf_entry_from_json(jb, &b, NULL), ATT_OK);
        if (conf_entry_clashes(a, b, &clash) != cases[i].clash ||
            conf_entry_clashes(b, a, &clash) != cases[i].clash) {
            fail_msg("%s %s", cases[i].a, cases[i].b);
        }
        conf_entry_free(a);
        conf_entry_free(b);
        json_decref(ja);
        json_decref(jb);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_key_types),      cmocka_unit_test(test_hsm_module),
        cmocka_unit_test(test_audiences),      cmocka_unit_test(test_federates_with),
        cmocka_unit_test(test_refused),        cmocka_unit_test(test_too_many),
        cmocka_unit_test(test_accepted),       cmocka_unit_test(test_json),
        cmocka_unit_test(test_workloads_json), cmocka_unit_test(test_clashes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
