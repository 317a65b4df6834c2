/* hostView documents: who signed, and the form of what was signed. */
#include "attestd/host/federation.h"
#include "attestd/host/view.h"
#include "tests/unit/host/world.h"

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

/* Other trust domains' bundles, and who is given them: whole or not at all. */
static void test_federation(void **state)
{
    struct world *w = *state;
    att_autojson *good = payload(w);
    const char *pem = att_buf_cstr(&w->workload_pem);
    json_t *entry = json_array_get(json_object_get(good, "entries"), 0);
    json_t *one = json_pack("{s:s, s:s, s:[{s:s}]}", "trustDomain", "partner.example", "roots", pem,
                            "keys", "kid", "k");
    json_t *two =
        json_pack("{s:s, s:s, s:[]}", "trustDomain", "empty.example", "roots", "", "keys");
    json_object_set_new(good, "federation", json_pack("[O, O]", one, two));
    json_object_set_new(entry, "federatesWith",
                        json_pack("[s, s]", "unknown.example", "partner.example"));
    att_autobuf text = {0};
    struct host_view view = {0};
    assert_int_equal(att_json_dump(good, false, &text, NULL), ATT_OK);
    assert_int_equal(host_view_payload_parse(att_buf_slice(&text), &view, NULL), ATT_OK);
    const struct host_federation *f = view.federation;
    assert_int_equal(f->n, 2);
    assert_string_equal(f->v[0].trust_domain, "partner.example");
    assert_int_equal(f->v[0].n_roots, 1);
    assert_true(att_slice_eq_str(att_buf_slice(&f->v[0].keys), "{\"keys\":[{\"kid\":\"k\"}]}"));
    assert_true(att_slice_eq_str(att_buf_slice(&f->v[0].agents), "market-data\n"));
    assert_int_equal(f->v[1].n_roots, 0);
    assert_int_equal(f->v[1].agents.len, 0);
    uint64_t number = f->number;
    assert_int_not_equal(number, 0);
    host_view_done(&view);
    /* Somebody else is given it: another number. */
    json_object_del(entry, "federatesWith");
    att_buf_reset(&text);
    assert_int_equal(att_json_dump(good, false, &text, NULL), ATT_OK);
    assert_int_equal(host_view_payload_parse(att_buf_slice(&text), &view, NULL), ATT_OK);
    assert_true(view.federation->number != number);
    host_view_done(&view);

    /* What another trust domain has put into its bundle, and is too long or no root here, is left
     * out: all else of the view counts. */
    att_autobuf alg = {0};
    while (alg.len <= PROC_JWT_KEYS_MAX) {
        att_buf_put_str(&alg, "aaaaaaaa");
    }
    json_object_set_new(good, "federation",
                        json_pack("[{s:s, s:s, s:[{s:s}]}, {s:s, s:s, s:[{s:s}]}, O]",
                                  "trustDomain", "long.example", "roots", pem, "keys", "alg",
                                  att_buf_cstr(&alg), "trustDomain", "odd.example", "roots",
                                  "no PEM", "keys", "kid", "k", one));
    att_buf_reset(&text);
    assert_int_equal(att_json_dump(good, false, &text, NULL), ATT_OK);
    assert_int_equal(host_view_payload_parse(att_buf_slice(&text), &view, NULL), ATT_OK);
    assert_int_equal(view.federation->n, 3);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(view.federation->v[i].n_roots, 0);
        assert_true(att_slice_eq_str(att_buf_slice(&view.federation->v[i].keys), "{\"keys\":[]}"));
    }
    assert_string_equal(view.federation->v[2].trust_domain, "partner.example");
    assert_int_equal(view.federation->v[2].n_roots, 1);
    host_view_done(&view);

    json_t *many = json_array(), *names = json_array();
    for (int i = 0; i <= PROC_FEDERATED_MAX; i++) {
        char name[32];
        snprintf(name, sizeof(name), "d%d.example", i);
        json_array_append_new(
            many, json_pack("{s:s, s:s, s:[]}", "trustDomain", name, "roots", "", "keys"));
        json_array_append_new(names, json_string(name));
    }
    json_t *const bad[] = {
        json_object(),
        json_string(pem),
        json_pack("[s]", "partner.example"),
        json_pack("[O, O]", one, one),
        json_pack("[{s:s, s:[]}]", "trustDomain", "a.example", "keys"), /* roots, be it "" */
        json_pack("[{s:s, s:s}]", "trustDomain", "a.example", "roots", ""),
        json_pack("[{s:s, s:s, s:{}}]", "trustDomain", "a.example", "roots", "", "keys"),
        json_pack("[{s:s, s:s, s:[]}]", "trustDomain", "bank.example", "roots", "", "keys"),
        json_pack("[{s:s, s:s, s:[]}]", "trustDomain", "A.example", "roots", "", "keys"),
        json_pack("[{s:s, s:s, s:[]}]", "trustDomain", "", "roots", "", "keys"),
        many,
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_non_null(bad[i]);
        json_object_set_new(good, "federation", bad[i]);
        assert_int_not_equal(parse_payload(good), ATT_OK);
    }
    json_object_set_new(good, "federation", json_array());
    assert_int_equal(parse_payload(good), ATT_OK);
    json_t *const lists[] = {json_object(), json_string("partner.example"), json_pack("[i]", 1),
                             json_pack("[s, s]", "a.example", "a.example"), names};
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        json_object_set_new(entry, "federatesWith", lists[i]);
        assert_int_not_equal(parse_payload(good), ATT_OK);
    }
    /* A view that lacks the part: nobody is given anything, and all else counts. */
    json_object_set_new(entry, "federatesWith", json_pack("[s]", "partner.example"));
    json_object_del(good, "federation");
    att_buf_reset(&text);
    assert_int_equal(att_json_dump(good, false, &text, NULL), ATT_OK);
    assert_int_equal(host_view_payload_parse(att_buf_slice(&text), &view, NULL), ATT_OK);
    assert_int_equal(view.federation->n, 0);
    assert_int_equal(view.n_entries, 1);
    host_view_done(&view);
    /* One that is cut off, at each byte, is no view. */
    json_object_set_new(good, "federation", json_pack("[O, O]", one, two));
    att_buf_reset(&text);
    assert_int_equal(att_json_dump(good, false, &text, NULL), ATT_OK);
    for (size_t len = 0; len < text.len; len++) {
        assert_int_not_equal(host_view_payload_parse(ATT_SLICE(text.ptr, len), &view, NULL),
                             ATT_OK);
    }
    json_decref(one);
    json_decref(two);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_signer, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_another_hosts_view, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_issuer_roots, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_federation, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_form, world_setup, world_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
