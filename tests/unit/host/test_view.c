/* hostView documents: who signed, and the form of what was signed. */
#include "attestd/base/clock.h"
#include "attestd/host/view.h"
#include "certs/build.h"
#include "certs/key.h"
#include "provision/acme/jws.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/evp.h>

/* A root with a view signer, a TLS server and a workload root. */
struct world {
    EVP_PKEY *root_key, *signer_key, *server_key, *workload_key;
    struct att_buf root, signer, server, workload, workload_pem;
};

static EVP_PKEY *new_key(struct att_buf *ret_spki)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    unsigned char *der = NULL;
    int len = i2d_PUBKEY(key, &der);
    assert_true(len > 0);
    att_buf_put(ret_spki, der, (size_t)len);
    OPENSSL_free(der);
    return key;
}

static void make_root(EVP_PKEY **ret_key, struct att_buf *ret_der, const char *name)
{
    att_autobuf spki = {0}, tbs = {0};
    uint8_t digest[ATT_SHA256_LEN];
    *ret_key = new_key(&spki);
    struct certs_ca_spec spec = {.validity = certs_validity_from(att_now_utc_s(), 86400),
                                 .spki = att_buf_slice(&spki),
                                 .common_name = name};
    assert_int_equal(certs_serial_new(spec.serial, NULL), ATT_OK);
    assert_int_equal(certs_root_tbs(&spec, &tbs, digest, NULL), ATT_OK);
    assert_int_equal(certs_tbs_sign(att_buf_slice(&tbs), *ret_key, ret_der, NULL), ATT_OK);
}

static void make_leaf(const struct world *w, bool server, EVP_PKEY **ret_key, struct att_buf *ret)
{
    att_autobuf spki = {0}, tbs = {0};
    uint8_t digest[ATT_SHA256_LEN], serial[CERTS_SERIAL_LEN];
    certs_autox509 *ca = NULL;
    *ret_key = new_key(&spki);
    assert_int_equal(certs_cert_parse(att_buf_slice(&w->root), &ca, NULL), ATT_OK);
    assert_int_equal(certs_serial_new(serial, NULL), ATT_OK);
    struct certs_validity validity = certs_validity_from(att_now_utc_s(), 3600);
    if (server) {
        const char *const names[] = {"127.0.0.1"};
        struct certs_server_spec spec = {
            .validity = validity, .spki = att_buf_slice(&spki), .names = names, .n_names = 1};
        memcpy(spec.serial, serial, sizeof(serial));
        assert_int_equal(certs_server_tbs(&spec, ca, &tbs, digest, NULL), ATT_OK);
    } else {
        struct certs_signer_spec spec = {
            .validity = validity, .spki = att_buf_slice(&spki), .common_name = "view"};
        memcpy(spec.serial, serial, sizeof(serial));
        assert_int_equal(certs_view_signer_tbs(&spec, ca, &tbs, digest, NULL), ATT_OK);
    }
    assert_int_equal(certs_tbs_sign(att_buf_slice(&tbs), w->root_key, ret, NULL), ATT_OK);
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    make_root(&w->root_key, &w->root, "TLS root");
    make_root(&w->workload_key, &w->workload, "workload root");
    make_leaf(w, false, &w->signer_key, &w->signer);
    make_leaf(w, true, &w->server_key, &w->server);
    certs_autox509 *root = NULL;
    assert_int_equal(certs_cert_parse(att_buf_slice(&w->workload), &root, NULL), ATT_OK);
    assert_int_equal(certs_pem_dump(root, &w->workload_pem, NULL), ATT_OK);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    EVP_PKEY_free(w->root_key);
    EVP_PKEY_free(w->signer_key);
    EVP_PKEY_free(w->server_key);
    EVP_PKEY_free(w->workload_key);
    att_buf_done(&w->root);
    att_buf_done(&w->signer);
    att_buf_done(&w->server);
    att_buf_done(&w->workload);
    att_buf_done(&w->workload_pem);
    free(w);
    return 0;
}

static json_t *payload(struct world *w)
{
    char now[ATT_TIME_TEXT_LEN];
    att_time_text(now, att_now_utc_s());
    json_t *json = json_pack(
        "{s:I, s:s, s:s, s:{s:s, s:s}, s:[{s:s, s:s, s:s, s:s, s:I, s:[]}], s:s, s:[]}", "version",
        (json_int_t)3, "issuedAt", now, "trustDomain", "bank.example", "host", "id", "aa", "state",
        "approved", "entries", "name", "market-data", "spiffeId",
        "spiffe://bank.example/agent/market-data", "key", "tpm", "profile", "trading", "lifetimeS",
        (json_int_t)3600, "workload", "bundle", att_buf_cstr(&w->workload_pem), "policies");
    assert_non_null(json);
    return json;
}

static void sign(const char *typ, EVP_PKEY *key, const struct att_buf *leaf,
                 const struct att_buf *root, const json_t *json, struct att_buf *ret)
{
    const struct att_slice chain[] = {att_buf_slice(leaf), att_buf_slice(root)};
    att_autobuf text = {0}, header = {0};
    struct acme_signer signer = acme_signer_pkey(key);
    assert_int_equal(att_json_dump(json, false, &text, NULL), ATT_OK);
    assert_int_equal(acme_jws_protected_x5c(typ, chain, 2, &header, NULL), ATT_OK);
    assert_int_equal(
        acme_jws_sign(&signer, att_buf_slice(&header), att_buf_slice(&text), ret, NULL), ATT_OK);
}

/* Parsed with the root's digest as the pin; the reason is checked where one is expected. */
static enum att_rc judge(struct world *w, const struct att_buf *jws, int64_t at, const char *reason)
{
    uint8_t pin[ATT_SHA256_LEN];
    att_sha256(pin, att_buf_slice(&w->root));
    struct host_view_anchor anchor = {.root_sha256 = pin};
    struct host_view view = {0};
    struct att_err err = {0};
    enum att_rc rc = host_view_parse(att_buf_slice(jws), &anchor, at, &view, &err);
    if (rc != ATT_OK && reason) {
        assert_string_equal(err.reason, reason);
    }
    if (rc == ATT_OK) {
        assert_int_equal(view.version, 3);
        assert_int_equal(view.n_entries, 1);
        assert_string_equal(view.entries[0].name, "market-data");
        assert_int_equal(sk_X509_num(view.bundle), 1);
    }
    host_view_done(&view);
    return rc;
}

static void test_signer(void **state)
{
    struct world *w = *state, other = {0};
    int64_t now = att_now_utc_s();
    att_autojson *json = payload(w);
    att_autobuf good = {0}, server = {0}, foreign = {0}, mixed = {0}, typ = {0}, forged = {0};
    sign(HOST_VIEW_TYP, w->signer_key, &w->signer, &w->root, json, &good);
    assert_int_equal(judge(w, &good, now, NULL), ATT_OK);
    assert_int_equal(judge(w, &good, 0, NULL), ATT_OK); /* cached: at its own time */

    /* The issuer's TLS key does not sign views. */
    sign(HOST_VIEW_TYP, w->server_key, &w->server, &w->root, json, &server);
    assert_int_equal(judge(w, &server, now, "hostViewSigner"), ATT_E_AUTH);
    /* A chain of somebody else's, whole. */
    make_root(&other.root_key, &other.root, "other");
    make_leaf(&other, false, &other.signer_key, &other.signer);
    sign(HOST_VIEW_TYP, other.signer_key, &other.signer, &other.root, json, &foreign);
    assert_int_equal(judge(w, &foreign, now, "hostViewSigner"), ATT_E_AUTH);
    /* Somebody else's signer beside our root. */
    sign(HOST_VIEW_TYP, other.signer_key, &other.signer, &w->root, json, &mixed);
    assert_int_equal(judge(w, &mixed, now, "hostViewSigner"), ATT_E_AUTH);
    /* Our signer's certificate, somebody else's signature. */
    sign(HOST_VIEW_TYP, other.signer_key, &w->signer, &w->root, json, &forged);
    assert_int_equal(judge(w, &forged, now, "hostViewSignature"), ATT_E_AUTH);
    /* Another kind of document by the same signer. */
    sign("attestd-other", w->signer_key, &w->signer, &w->root, json, &typ);
    assert_int_not_equal(judge(w, &typ, now, NULL), ATT_OK);
    /* A signer that is over. */
    assert_int_equal(judge(w, &good, now + 7200, "hostViewSigner"), ATT_E_AUTH);
    EVP_PKEY_free(other.root_key);
    EVP_PKEY_free(other.signer_key);
    att_buf_done(&other.root);
    att_buf_done(&other.signer);
}

/* Signed by the right one, for another host: a mix-up at the issuer, or a replayed answer. */
static void test_another_hosts_view(void **state)
{
    struct world *w = *state;
    uint8_t pin[ATT_SHA256_LEN];
    att_sha256(pin, att_buf_slice(&w->root));
    att_autojson *json = payload(w); /* host.id is "aa" */
    att_autobuf jws = {0};
    sign(HOST_VIEW_TYP, w->signer_key, &w->signer, &w->root, json, &jws);
    const struct {
        const char *id;
        enum att_rc rc;
    } cases[] = {
        {NULL, ATT_OK}, {"", ATT_OK}, {"aa", ATT_OK}, {"ab", ATT_E_AUTH}, {"a", ATT_E_AUTH}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (int cached = 0; cached < 2; cached++) {
            struct host_view_anchor anchor = {.root_sha256 = pin, .host_id = cases[i].id};
            struct host_view view = {0};
            struct att_err err = {0};
            assert_int_equal(host_view_parse(att_buf_slice(&jws), &anchor,
                                             cached ? 0 : att_now_utc_s(), &view, &err),
                             cases[i].rc);
            assert_string_equal(err.reason, cases[i].rc == ATT_OK ? "" : "hostViewHost");
            host_view_done(&view);
        }
    }
}

static enum att_rc parse_payload(const json_t *json)
{
    att_autobuf text = {0};
    struct host_view view = {0};
    assert_int_equal(att_json_dump(json, false, &text, NULL), ATT_OK);
    enum att_rc rc = host_view_payload_parse(att_buf_slice(&text), &view, NULL);
    host_view_done(&view);
    return rc;
}

static void test_form(void **state)
{
    struct world *w = *state;
    att_autojson *good = payload(w);
    assert_int_equal(parse_payload(good), ATT_OK);
    const char *const members[] = {"version", "issuedAt", "trustDomain",
                                   "host",    "entries",  "bundle"};
    for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
        att_autojson *bad = json_deep_copy(good);
        json_object_del(bad, members[i]);
        assert_int_not_equal(parse_payload(bad), ATT_OK);
        json_object_set_new(bad, members[i], json_integer(-1));
        assert_int_not_equal(parse_payload(bad), ATT_OK);
    }
    const struct {
        const char *name, *text;
    } entries[] = {{"name", "portfolio"}, /* not what spiffeId says */
                   {"spiffeId", "spiffe://other.example/agent/market-data"},
                   {"spiffeId", "spiffe://bank.example/agent/market-data/x"},
                   {"spiffeId", "https://bank.example/agent/market-data"},
                   {"lifetimeS", "3600"}};
    for (size_t i = 0; i < sizeof(entries) / sizeof(entries[0]); i++) {
        att_autojson *bad = json_deep_copy(good);
        json_t *entry = json_array_get(json_object_get(bad, "entries"), 0);
        json_object_set_new(entry, entries[i].name, json_string(entries[i].text));
        assert_int_not_equal(parse_payload(bad), ATT_OK);
    }
    att_autojson *none = json_deep_copy(good);
    json_array_clear(json_object_get(none, "entries"));
    assert_int_equal(parse_payload(none), ATT_OK);
}

/* What the issuer's TLS may be under: whole or not at all. */
static void test_issuer_roots(void **state)
{
    struct world *w = *state;
    att_autojson *good = payload(w);
    const char hex[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const char *pem = att_buf_cstr(&w->workload_pem);
    json_object_set_new(good, "issuerRoots", json_pack("{s:s, s:[s]}", "pem", pem, "retired", hex));
    att_autobuf text = {0};
    struct host_view view = {0};
    assert_int_equal(att_json_dump(good, false, &text, NULL), ATT_OK);
    assert_int_equal(host_view_payload_parse(att_buf_slice(&text), &view, NULL), ATT_OK);
    assert_int_equal(sk_X509_num(view.issuer_roots), 1);
    assert_int_equal(view.n_retired, 1);
    assert_int_equal(view.retired[0][0], 0x01);
    host_view_done(&view);
    json_t *many = json_array();
    for (size_t i = 0; i <= HOST_RETIRED_MAX; i++) {
        json_array_append_new(many, json_string(hex));
    }
    json_t *const bad[] = {
        json_string(pem),
        json_object(),
        json_pack("{s:s}", "pem", pem), /* retired is said, be it empty */
        json_pack("{s:s, s:[]}", "pem", "", "retired"),
        json_pack("{s:s, s:[]}", "pem", "-----BEGIN CERTIFICATE-----\n", "retired"),
        json_pack("{s:[s], s:[]}", "pem", pem, "retired"),
        json_pack("{s:s, s:s}", "pem", pem, "retired", hex),
        json_pack("{s:s, s:[i]}", "pem", pem, "retired", 1),
        json_pack("{s:s, s:[s]}", "pem", pem, "retired", hex + 2),
        json_pack("{s:s, s:[s]}", "pem", pem, "retired", "zz"),
        json_pack("{s:s, s:o}", "pem", pem, "retired", many),
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_non_null(bad[i]);
        json_object_set_new(good, "issuerRoots", bad[i]);
        assert_int_not_equal(parse_payload(good), ATT_OK);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_signer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_another_hosts_view, setup, teardown),
        cmocka_unit_test_setup_teardown(test_issuer_roots, setup, teardown),
        cmocka_unit_test_setup_teardown(test_form, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
