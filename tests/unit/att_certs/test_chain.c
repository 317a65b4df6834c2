#include "tests/unit/att_certs/fixture.h"

#include "certs/der.h"

#include <openssl/x509v3.h>

static void refused(const STACK_OF(X509) * certs, const STACK_OF(X509) * roots,
                    enum certs_purpose purpose, int64_t at, const char *reason)
{
    struct att_err why = {0};
    assert_int_equal(certs_chain_verify(certs, roots, purpose, at, &why), ATT_E_AUTH);
    if (strcmp(why.reason, reason) != 0) {
        fail_msg("expected %s, got %s: %s", reason, why.reason, why.msg);
    }
}

struct world {
    struct ca ca, other;
    EVP_PKEY *key;
    X509 *leaf;
    STACK_OF(X509) * chain, *roots;
};

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    ca_init(&w->ca, TD);
    ca_init(&w->other, TD);
    assert_ok(certs_key_generate(&w->key, err));
    w->leaf = make_leaf(&w->ca, w->key);
    w->chain = stack_of(2, w->leaf, w->ca.cert);
    w->roots = stack_of(1, w->ca.root);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    sk_X509_pop_free(w->chain, X509_free);
    sk_X509_pop_free(w->roots, X509_free);
    X509_free(w->leaf);
    EVP_PKEY_free(w->key);
    ca_done(&w->ca);
    ca_done(&w->other);
    free(w);
    return 0;
}

static void test_path_refused(void **state)
{
    struct world *w = *state;
    int64_t now = att_now_utc_s();
    certs_autostack *empty = sk_X509_new_null();
    certs_autostack *foreign = stack_of(1, w->other.root);
    certs_autostack *alone = stack_of(1, w->leaf);
    /* A root that comes along is no anchor. */
    certs_autostack *with_root = stack_of(3, w->leaf, w->ca.cert, w->ca.root);
    refused(empty, w->roots, CERTS_PURPOSE_WORKLOAD, now, "chainEmpty");
    refused(w->chain, empty, CERTS_PURPOSE_WORKLOAD, now, "chainPath");
    refused(w->chain, foreign, CERTS_PURPOSE_WORKLOAD, now, "chainPath");
    refused(with_root, foreign, CERTS_PURPOSE_WORKLOAD, now, "chainPath");
    refused(alone, w->roots, CERTS_PURPOSE_WORKLOAD, now, "chainPath");
    refused(w->chain, w->roots, CERTS_PURPOSE_WORKLOAD, now + 3601, "chainExpired");
    refused(w->chain, w->roots, CERTS_PURPOSE_WORKLOAD, now - 120, "chainNotYet");
    refused(w->chain, w->roots, CERTS_PURPOSE_AK, now, "chainEku");
    refused(w->chain, w->roots, CERTS_PURPOSE_HOST_VIEW, now, "chainEku");
    assert_int_equal(certs_chain_verify(w->chain, w->roots, CERTS_PURPOSE_NONE, now, NULL),
                     ATT_E_INVAL);
    assert_ok(certs_chain_verify(w->chain, w->roots, CERTS_PURPOSE_WORKLOAD, now, err));
    assert_ok(certs_chain_verify(w->chain, w->roots, CERTS_PURPOSE_TLS_SERVER, now, err));
}

static void test_signature_refused(void **state)
{
    struct world *w = *state;
    att_autobuf der = {0};
    certs_autox509 *bent = NULL;
    assert_ok(certs_cert_der(w->leaf, &der, err));
    uint8_t *at = memmem(der.ptr, der.len, "rebalancer", 10);
    at[0] = 's'; /* another agent's name under the old signature */
    assert_ok(certs_cert_parse(att_buf_slice(&der), &bent, err));
    certs_autostack *chain = stack_of(2, bent, w->ca.cert);
    refused(chain, w->roots, CERTS_PURPOSE_WORKLOAD, att_now_utc_s(), "chainSignature");
}

static void test_names_refused(void **state)
{
    struct world *w = *state;
    int64_t now = att_now_utc_s();
    static const char *const outside[] = {"spiffe://bank.example.evil/agent/x",
                                          "spiffe://sub.bank.example/agent/x",
                                          "spiffe://evil.example/agent/x"};
    for (size_t i = 0; i < 3; i++) {
        certs_autox509 *leaf = make_leaf_as(&w->ca, w->key, outside[i]);
        certs_autostack *chain = stack_of(2, leaf, w->ca.cert);
        refused(chain, w->roots, CERTS_PURPOSE_WORKLOAD, now, "chainNames");
    }
    certs_autox509 *server = make_server(&w->ca, w->key); /* DNS and IP are excluded */
    certs_autostack *chain = stack_of(2, server, w->ca.cert);
    refused(chain, w->roots, CERTS_PURPOSE_TLS_SERVER, now, "chainNames");
}

static void test_ca_refused(void **state)
{
    struct world *w = *state;
    int64_t now = att_now_utc_s();
    certs_autostack *ca_as_leaf = stack_of(1, w->ca.cert);
    refused(ca_as_leaf, w->roots, CERTS_PURPOSE_WORKLOAD, now, "chainCa");
    /* Below an intermediate with pathlen 0 there is no further CA. */
    struct ca deep = {.root = w->ca.root, .root_key = w->ca.root_key};
    assert_ok(certs_key_generate(&deep.key, err));
    deep.cert = make_intermediate(deep.key, TD, w->ca.cert, w->ca.key);
    certs_autox509 *leaf = make_leaf(&deep, w->key);
    certs_autostack *chain = stack_of(3, leaf, deep.cert, w->ca.cert);
    refused(chain, w->roots, CERTS_PURPOSE_WORKLOAD, now, "chainCa");
    X509_free(deep.cert);
    /* A leaf that signs. */
    deep.cert = w->leaf;
    EVP_PKEY_free(deep.key);
    deep.key = w->key;
    certs_autox509 *under = make_leaf(&deep, w->key);
    certs_autostack *bad = stack_of(3, under, w->leaf, w->ca.cert);
    refused(bad, w->roots, CERTS_PURPOSE_WORKLOAD, now, "chainPath"); /* it has no name */
}

/* The same leaf, by the same CA, with other rights of its key; NULL: none are said. */
static X509 *with_usage(const struct world *w, const char *usage)
{
    X509 *leaf = X509_dup(w->leaf), *fresh = NULL;
    uint8_t *der = NULL;
    int at = X509_get_ext_by_NID(leaf, NID_key_usage, -1);
    assert_true(at >= 0);
    X509_EXTENSION_free(X509_delete_ext(leaf, at));
    if (usage) {
        X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, NULL, NID_key_usage, usage);
        assert_non_null(ext);
        assert_int_equal(X509_add_ext(leaf, ext, at), 1);
        X509_EXTENSION_free(ext);
    }
    assert_true(X509_sign(leaf, w->ca.key, EVP_sha256()) > 0);
    int len = i2d_X509(leaf, &der); /* read anew: what was known of it is of the other one */
    assert_true(len > 0);
    assert_ok(certs_cert_parse(ATT_SLICE(der, (size_t)len), &fresh, err));
    OPENSSL_free(der);
    X509_free(leaf);
    return fresh;
}

static void test_key_usage_refused(void **state)
{
    struct world *w = *state;
    int64_t now = att_now_utc_s();
    static const char *const bad[] = {NULL, "critical,keyAgreement"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        certs_autox509 *leaf = with_usage(w, bad[i]);
        certs_autostack *chain = stack_of(2, leaf, w->ca.cert);
        refused(chain, w->roots, CERTS_PURPOSE_WORKLOAD, now, "chainKeyUsage");
    }
    certs_autox509 *leaf = with_usage(w, "critical,digitalSignature");
    certs_autostack *chain = stack_of(2, leaf, w->ca.cert);
    assert_ok(certs_chain_verify(chain, w->roots, CERTS_PURPOSE_WORKLOAD, now, err));
}

static void test_purposes(void **state)
{
    (void)state;
    struct ca ca;
    ca_init(&ca, NULL);
    int64_t now = att_now_utc_s();
    certs_autokey *key = NULL;
    assert_ok(certs_key_generate(&key, err));
    certs_autostack *roots = stack_of(1, ca.root);
    certs_autox509 *ak = make_ak(&ca, key), *server = make_server(&ca, key);
    certs_autostack *ak_chain = stack_of(2, ak, ca.cert);
    certs_autostack *server_chain = stack_of(2, server, ca.cert);
    assert_ok(certs_chain_verify(ak_chain, roots, CERTS_PURPOSE_AK, now, err));
    assert_ok(certs_chain_verify(server_chain, roots, CERTS_PURPOSE_TLS_SERVER, now, err));
    refused(ak_chain, roots, CERTS_PURPOSE_TLS_SERVER, now, "chainEku");
    refused(ak_chain, roots, CERTS_PURPOSE_WORKLOAD, now, "chainEku");
    refused(server_chain, roots, CERTS_PURPOSE_WORKLOAD, now, "chainEku");
    refused(server_chain, roots, CERTS_PURPOSE_HOST_VIEW, now, "chainEku");

    char id[65];
    assert_ok(certs_ak_ek_id(ak, id, err));
    assert_string_equal(id, EK);
    assert_int_equal(certs_ak_ek_id(server, id, NULL), ATT_E_PARSE);

    uint8_t buf[CERTS_SPKI_MAX], digest[ATT_SHA256_LEN];
    att_autobuf tbs = {0};
    struct certs_signer_spec spec = {.validity = certs_validity_from(now, 30 * DAY),
                                     .spki = spki_of(key, buf),
                                     .common_name = "view signer"};
    assert_ok(certs_serial_new(spec.serial, err));
    assert_ok(certs_view_signer_tbs(&spec, ca.cert, &tbs, digest, err));
    certs_autox509 *view = sign(&tbs, ca.cert, ca.key);
    certs_autostack *view_chain = stack_of(2, view, ca.cert);
    assert_ok(certs_chain_verify(view_chain, roots, CERTS_PURPOSE_HOST_VIEW, now, err));
    refused(view_chain, roots, CERTS_PURPOSE_TLS_SERVER, now, "chainEku");
    ca_done(&ca);
}

static void test_leaf_content(void **state)
{
    struct world *w = *state;
    X509 *leaf = w->leaf;
    assert_int_equal(X509_get_version(leaf), X509_VERSION_3);
    assert_int_equal(X509_NAME_entry_count(X509_get_subject_name(leaf)), 0);
    int crit = 0;
    GENERAL_NAMES *san = X509_get_ext_d2i(leaf, NID_subject_alt_name, &crit, NULL);
    assert_int_equal(crit, 1);
    assert_int_equal(sk_GENERAL_NAME_num(san), 1);
    GENERAL_NAMES_free(san);
    assert_int_equal(X509_get_key_usage(leaf), KU_DIGITAL_SIGNATURE);
    assert_int_equal(X509_get_extended_key_usage(leaf), XKU_SSL_SERVER | XKU_SSL_CLIENT);
    assert_int_equal(X509_check_ca(leaf), 0);
    const ASN1_OCTET_STRING *aki = X509_get0_authority_key_id(leaf);
    assert_int_equal(ASN1_OCTET_STRING_cmp(aki, X509_get0_subject_key_id(w->ca.cert)), 0);
    assert_int_equal(X509_get_ext_count(leaf), 7);
    struct certs_cert_info info;
    assert_ok(certs_cert_info(leaf, &info, err));
    assert_int_equal(strlen(info.serial_hex), 32);
    assert_int_equal(info.not_after - info.not_before, 3660);
    struct certs_key_holding holding;
    assert_ok(certs_key_holding_get(leaf, &holding, err));
    assert_int_equal(holding.store, CERTS_STORE_TPM);
    assert_string_equal(holding.boot, "ovmf-guest");
    assert_int_equal(holding.decision[2], 3);
    assert_int_equal(certs_key_holding_get(w->ca.cert, &holding, NULL), ATT_E_NOTFOUND);
    assert_ok(certs_cert_matches_key(leaf, w->key, err));
    struct att_err why = {0};
    assert_int_equal(certs_cert_matches_key(leaf, w->ca.key, &why), ATT_E_AUTH);
    assert_string_equal(why.reason, "chainKey");
}

static void test_tbs(void **state)
{
    struct world *w = *state;
    uint8_t buf[CERTS_SPKI_MAX], digest[ATT_SHA256_LEN], again[ATT_SHA256_LEN];
    att_autobuf tbs = {0}, one = {0}, two = {0}, none = {0};
    struct certs_leaf_spec spec = leaf_spec(spki_of(w->key, buf));
    spec.crl_url = "http://crl.bank.example/workload.crl";
    assert_ok(certs_leaf_tbs(&spec, w->ca.cert, &tbs, digest, err));
    att_sha256(again, att_buf_slice(&tbs));
    assert_memory_equal(digest, again, sizeof digest);
    /* Signed twice, as after a crash: the same TBS inside, whole and valid both times. */
    assert_ok(certs_tbs_sign(att_buf_slice(&tbs), w->ca.key, &one, err));
    assert_ok(certs_tbs_sign(att_buf_slice(&tbs), w->ca.key, &two, err));
    assert_memory_equal(one.ptr + 4, tbs.ptr, tbs.len);
    assert_memory_equal(two.ptr + 4, tbs.ptr, tbs.len);
    certs_autox509 *cert = NULL;
    assert_ok(certs_cert_parse(att_buf_slice(&two), &cert, err));
    certs_autostack *chain = stack_of(2, cert, w->ca.cert);
    assert_ok(certs_chain_verify(chain, w->roots, CERTS_PURPOSE_WORKLOAD, att_now_utc_s(), err));
    /* libcrypto's own encoder agrees that this is DER. */
    uint8_t *re = NULL;
    int re_len = i2d_re_X509_tbs(cert, &re);
    assert_int_equal(re_len, tbs.len);
    assert_memory_equal(re, tbs.ptr, tbs.len);
    OPENSSL_free(re);

    assert_int_equal(certs_tbs_sign_for(att_buf_slice(&tbs), w->ca.cert, w->key, &none, NULL),
                     ATT_E_AUTH);
    assert_int_equal(certs_tbs_sign(ATT_SLICE(tbs.ptr, tbs.len - 1), w->ca.key, &none, NULL),
                     ATT_E_PARSE);
    assert_int_equal(certs_tbs_sign(ATT_SLICE_LIT("hello"), w->ca.key, &none, NULL), ATT_E_PARSE);
    assert_int_equal(none.len, 0);

    struct certs_leaf_spec bad = spec;
    bad.validity.not_after = bad.validity.not_before + 60 + 119;
    assert_int_equal(certs_leaf_tbs(&bad, w->ca.cert, &none, digest, NULL), ATT_E_INVAL);
    bad = spec;
    bad.validity.not_after += 3650LL * DAY;
    assert_int_equal(certs_leaf_tbs(&bad, w->ca.cert, &none, digest, NULL), ATT_E_INVAL);
    bad = spec;
    bad.serial[0] |= 0x80;
    assert_int_equal(certs_leaf_tbs(&bad, w->ca.cert, &none, digest, NULL), ATT_E_INVAL);
    bad = spec;
    bad.spiffe_id = "spiffe://bank.example";
    assert_int_equal(certs_leaf_tbs(&bad, w->ca.cert, &none, digest, NULL), ATT_E_INVAL);
    bad = spec;
    bad.spki.len--;
    assert_int_equal(certs_leaf_tbs(&bad, w->ca.cert, &none, digest, NULL), ATT_E_PARSE);
    bad = spec;
    bad.holding.boot[0] = 0;
    assert_int_equal(certs_leaf_tbs(&bad, w->ca.cert, &none, digest, NULL), ATT_E_INVAL);
    assert_int_equal(none.len, 0);
}

static void test_measured(void **state)
{
    (void)state;
    struct certs_measured in = {2, {7}}, out = {99, {0}};
    att_autobuf der = {0};
    assert_int_equal(certs_measured_encode(&in, &der, NULL), ATT_OK);
    assert_int_equal(certs_measured_parse(att_buf_slice(&der), &out, NULL), ATT_OK);
    assert_int_equal(out.level, 2);
    assert_memory_equal(out.root, in.root, sizeof in.root);
    out.level = 99;
    for (size_t len = 0; len < der.len; len++) {
        assert_int_not_equal(certs_measured_parse(ATT_SLICE(der.ptr, len), &out, NULL), ATT_OK);
    }
    der.ptr[4] = 2; /* version */
    assert_int_equal(certs_measured_parse(att_buf_slice(&der), &out, NULL), ATT_E_UNSUPPORTED);
    der.ptr[4] = 1;
    der.ptr[7] = 4; /* level */
    assert_int_equal(certs_measured_parse(att_buf_slice(&der), &out, NULL), ATT_E_PARSE);
    der.ptr[7] = 0;
    assert_int_equal(certs_measured_parse(att_buf_slice(&der), &out, NULL), ATT_E_PARSE);
    der.ptr[7] = 2;
    att_buf_u8(&der, 0); /* behind its end */
    assert_int_equal(certs_measured_parse(att_buf_slice(&der), &out, NULL), ATT_E_PARSE);
    assert_int_equal(out.level, 99);
    in.level = 4;
    assert_int_equal(certs_measured_encode(&in, &der, NULL), ATT_E_INVAL);
    in.level = 0;
    assert_int_equal(certs_measured_encode(&in, &der, NULL), ATT_E_INVAL);
}

static void test_hsm(void **state)
{
    (void)state;
    struct certs_hsm in = {"payments.2"}, out = {"unset"};
    att_autobuf der = {0}, none = {0};
    assert_int_equal(certs_hsm_encode(&in, &der, NULL), ATT_OK);
    assert_int_equal(certs_hsm_parse(att_buf_slice(&der), &out, NULL), ATT_OK);
    assert_string_equal(out.name, "payments.2");
    for (size_t len = 0; len < der.len; len++) {
        assert_int_equal(certs_hsm_parse(ATT_SLICE(der.ptr, len), &out, NULL), ATT_E_PARSE);
    }
    att_buf_put(&der, "", 1); /* trails */
    assert_int_equal(certs_hsm_parse(att_buf_slice(&der), &out, NULL), ATT_E_PARSE);
    der.len--;
    der.ptr[4] = 2;
    assert_int_equal(certs_hsm_parse(att_buf_slice(&der), &out, NULL), ATT_E_UNSUPPORTED);
    der.ptr[4] = 1;
    der.ptr[7] = 'P';
    assert_int_equal(certs_hsm_parse(att_buf_slice(&der), &out, NULL), ATT_E_PARSE);
    in = (struct certs_hsm){""};
    assert_int_equal(certs_hsm_encode(&in, &none, NULL), ATT_E_INVAL);
    in = (struct certs_hsm){".x"};
    assert_int_equal(certs_hsm_encode(&in, &none, NULL), ATT_E_INVAL);
}

static void test_sealed(void **state)
{
    (void)state;
    struct certs_sealed in = {true, {7}, 0x01804154}, out = {.counter = 99};
    att_autobuf der = {0}, without = {0};
    assert_int_equal(certs_sealed_encode(&in, &der, NULL), ATT_OK);
    assert_int_equal(certs_sealed_parse(att_buf_slice(&der), &out, NULL), ATT_OK);
    assert_true(out.sealed && out.counter == 0x01804154);
    assert_memory_equal(out.policy, in.policy, sizeof in.policy);
    in.counter = 0; /* no NV index: said so */
    assert_int_equal(certs_sealed_encode(&in, &without, NULL), ATT_OK);
    assert_int_equal(certs_sealed_parse(att_buf_slice(&without), &out, NULL), ATT_OK);
    assert_int_equal(out.counter, 0);
    for (size_t len = 0; len < der.len; len++) {
        assert_int_not_equal(certs_sealed_parse(ATT_SLICE(der.ptr, len), &out, NULL), ATT_OK);
    }
    memset(der.ptr + der.len - 4, 0, 4);
    assert_int_equal(certs_sealed_parse(att_buf_slice(&der), &out, NULL), ATT_E_PARSE);
    der.ptr[4] = 2; /* version */
    assert_int_equal(certs_sealed_parse(att_buf_slice(&der), &out, NULL), ATT_E_UNSUPPORTED);
    in.sealed = false;
    assert_int_equal(certs_sealed_encode(&in, &der, NULL), ATT_E_INVAL);
}

static void test_holding_refused(void **state)
{
    (void)state;
    struct certs_key_holding in = {CERTS_STORE_MEMORY, "none", {9}}, out;
    att_autobuf der = {0};
    assert_ok(certs_key_holding_encode(&in, &der, err));
    assert_ok(certs_key_holding_parse(att_buf_slice(&der), &out, err));
    assert_int_equal(out.store, CERTS_STORE_MEMORY);
    assert_string_equal(out.boot, "none");
    assert_memory_equal(in.decision, out.decision, sizeof in.decision);
    for (size_t len = 0; len < der.len; len++) {
        assert_int_not_equal(certs_key_holding_parse(ATT_SLICE(der.ptr, len), &out, NULL), ATT_OK);
    }
    att_buf_u8(&der, 0);
    assert_int_equal(certs_key_holding_parse(att_buf_slice(&der), &out, NULL), ATT_E_PARSE);
    der.len--;
    der.ptr[4] = 2; /* version */
    assert_int_equal(certs_key_holding_parse(att_buf_slice(&der), &out, NULL), ATT_E_UNSUPPORTED);
    der.ptr[4] = 1;
    der.ptr[7] = 'M'; /* "Memory" */
    assert_int_equal(certs_key_holding_parse(att_buf_slice(&der), &out, NULL), ATT_E_PARSE);
    der.ptr[7] = 'm';
    der.ptr[15] = '/';
    assert_int_equal(certs_key_holding_parse(att_buf_slice(&der), &out, NULL), ATT_E_PARSE);
    att_buf_reset(&der);
    in.store = CERTS_STORE_EXPORTABLE;
    assert_ok(certs_key_holding_encode(&in, &der, err));
    assert_ok(certs_key_holding_parse(att_buf_slice(&der), &out, err));
    assert_int_equal(out.store, CERTS_STORE_EXPORTABLE);
    assert_string_equal(certs_key_store_name(out.store), "exportable");
    in.store = CERTS_STORE_NONE;
    assert_int_equal(certs_key_holding_encode(&in, &der, NULL), ATT_E_INVAL);
}

static void test_pem(void **state)
{
    struct world *w = *state;
    att_autobuf pem = {0}, bad = {0};
    certs_autostack *again = NULL;
    STACK_OF(X509) *none = NULL;
    assert_ok(certs_pem_dump_all(w->chain, &pem, err));
    assert_ok(certs_pem_parse(att_buf_slice(&pem), &again, err));
    assert_int_equal(sk_X509_num(again), 2);
    assert_int_equal(X509_cmp(sk_X509_value(again, 0), w->leaf), 0);

    static const char *const around[] = {"# comment\n%s", "%sgarbage", "%s-----BEGIN", "x%s"};
    for (size_t i = 0; i < 4; i++) {
        att_buf_reset(&bad);
        const char *at = strchr(around[i], '%');
        att_buf_put(&bad, around[i], (size_t)(at - around[i]));
        att_buf_put_slice(&bad, att_buf_slice(&pem));
        att_buf_put_str(&bad, at + 2);
        assert_int_equal(certs_pem_parse(att_buf_slice(&bad), &none, NULL), ATT_E_PARSE);
    }
    assert_int_equal(certs_pem_parse(ATT_SLICE(NULL, 0), &none, NULL), ATT_E_PARSE);
    assert_int_equal(certs_pem_parse(ATT_SLICE(pem.ptr, pem.len - 5), &none, NULL), ATT_E_PARSE);
    att_buf_reset(&bad);
    for (int i = 0; i < 6; i++) {
        att_buf_put_slice(&bad, att_buf_slice(&pem));
    }
    assert_int_equal(certs_pem_parse(att_buf_slice(&bad), &none, NULL), ATT_E_LIMIT);
    while (bad.len <= CERTS_CHAIN_MAX_LEN) {
        att_buf_u8(&bad, '\n');
    }
    assert_int_equal(certs_pem_parse(att_buf_slice(&bad), &none, NULL), ATT_E_LIMIT);

    att_autobuf der = {0};
    assert_ok(certs_cert_der(w->leaf, &der, err));
    att_buf_u8(&der, 0);
    X509 *cert = NULL;
    assert_int_equal(certs_cert_parse(att_buf_slice(&der), &cert, NULL), ATT_E_PARSE);
    assert_int_equal(certs_cert_parse(ATT_SLICE(der.ptr, 0), &cert, NULL), ATT_E_PARSE);
    assert_null(cert);
    assert_null(none);
}

static void test_bundle(void **state)
{
    struct world *w = *state;
    char dir[256], path[512];
    temp_dir(dir);
    path_in(path, dir, "bundle.pem");
    certs_autostack *twice = stack_of(2, w->ca.root, w->ca.root);
    certs_autostack *again = NULL;
    STACK_OF(X509) *none = NULL;
    assert_int_equal(certs_bundle_load(path, &none, NULL), ATT_E_NOTFOUND);
    assert_int_equal(certs_bundle_save(twice, path, NULL), ATT_E_PARSE);
    assert_int_equal(certs_bundle_save(w->chain, path, NULL), ATT_E_PARSE);
    assert_int_equal(access(path, F_OK), -1);
    assert_ok(certs_bundle_save(w->roots, path, err));
    assert_ok(certs_bundle_load(path, &again, err));
    assert_int_equal(sk_X509_num(again), 1);
    temp_remove(dir);
}

static void run(const char *dir, const char *command, int expected)
{
    char line[1024];
    snprintf(line, sizeof line, "cd %s && %s >out.txt 2>&1", dir, command);
    int rc = system(line);
    if ((rc == 0) != (expected == 0)) {
        snprintf(line, sizeof line, "cat %s/out.txt", dir);
        (void)!system(line);
        fail_msg("%s: status %d", command, rc);
    }
}

/* The stock tool's verdict on our name-constrained chain. */
static void test_openssl_agrees(void **state)
{
    struct world *w = *state;
    char dir[256];
    if (system("openssl version >/dev/null 2>&1") != 0) {
        skip();
    }
    temp_dir(dir);
    certs_autostack *leaf = stack_of(1, w->leaf), *ca = stack_of(1, w->ca.cert);
    certs_autox509 *outside = make_leaf_as(&w->ca, w->key, "spiffe://evil.example/agent/x");
    certs_autostack *out = stack_of(1, outside);
    write_pem(dir, "bundle.pem", w->roots);
    write_pem(dir, "ca.pem", ca);
    write_pem(dir, "leaf.pem", leaf);
    write_pem(dir, "outside.pem", out);
    run(dir, "openssl verify -x509_strict -CAfile bundle.pem -untrusted ca.pem leaf.pem", 0);
    run(dir, "openssl verify -purpose sslclient -CAfile bundle.pem -untrusted ca.pem leaf.pem", 0);
    run(dir, "openssl verify -purpose sslserver -CAfile bundle.pem -untrusted ca.pem leaf.pem", 0);
    run(dir, "openssl verify -CAfile bundle.pem -untrusted ca.pem outside.pem", 1);
    run(dir,
        "openssl verify -CAfile bundle.pem -untrusted ca.pem outside.pem 2>&1 | "
        "grep -q 'permitted subtree violation'",
        0);
    run(dir,
        "openssl x509 -in leaf.pem -noout -ext subjectAltName | grep -c URI:spiffe: | grep -qx 1",
        0);
    run(dir, "openssl x509 -in ca.pem -noout -ext nameConstraints | grep -q 'URI:bank.example'", 0);
    temp_remove(dir);
}

/* GnuTLS reads arcs of up to 64 bits, Go's crypto/x509 of 31, and both refuse the whole certificate
 * otherwise. */
static void test_arcs_fit_other_readers(void **state)
{
    static const char *const ours[] = {CERTS_OID_KEY_HOLDING, CERTS_OID_EKU_HOST_VIEW};
    (void)state;
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++) {
        for (const char *at = ours[i]; *at;) {
            char *end = NULL;
            unsigned long long arc = strtoull(at, &end, 10);
            assert_ptr_not_equal(end, at);
            assert_in_range(arc, 0, INT32_MAX);
            at = *end == '.' ? end + 1 : end;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_path_refused),
        cmocka_unit_test(test_signature_refused),
        cmocka_unit_test(test_names_refused),
        cmocka_unit_test(test_ca_refused),
        cmocka_unit_test(test_key_usage_refused),
        cmocka_unit_test(test_purposes),
        cmocka_unit_test(test_leaf_content),
        cmocka_unit_test(test_tbs),
        cmocka_unit_test(test_holding_refused),
        cmocka_unit_test(test_measured),
        cmocka_unit_test(test_sealed),
        cmocka_unit_test(test_hsm),
        cmocka_unit_test(test_arcs_fit_other_readers),
        cmocka_unit_test(test_pem),
        cmocka_unit_test(test_bundle),
        cmocka_unit_test(test_openssl_agrees),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
