#include "tests/unit/att_certs/fixture.h"

#include "certs/der.h"
#include "certs/ekcert.h"
#include "certs/tbs.h"

#include <openssl/x509v3.h>

struct ek_spec {
    const char *ca, *usage, *eku, *unknown; /* NULL: no such extension */
    bool no_san, double_san;
    int from_day, to_day;
    EVP_PKEY *key; /* NULL: RSA 2048 */
};

static const struct ek_spec good = {.ca = "critical,CA:FALSE",
                                    .usage = "critical,keyEncipherment",
                                    .eku = "2.23.133.8.1",
                                    .from_day = -1,
                                    .to_day = 3650};

struct world {
    struct ca ca, other;
    EVP_PKEY *rsa;
    char dir[256];
    struct certs_ek_store *store;
    struct att_buf chain; /* DER of the maker's intermediate */
};

static void add_ext(X509 *cert, int nid, const char *value)
{
    if (value) {
        X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, NULL, nid, value);
        assert_non_null(ext);
        assert_int_equal(X509_add_ext(cert, ext, -1), 1);
        X509_EXTENSION_free(ext);
    }
}

static void add_raw(X509 *cert, const char *oid, bool critical, const struct att_buf *value)
{
    ASN1_OBJECT *obj = NULL;
    assert_ok(certs_oid(oid, &obj, err));
    ASN1_OCTET_STRING *octets = ASN1_OCTET_STRING_new();
    ASN1_OCTET_STRING_set(octets, value->ptr, (int)value->len);
    X509_EXTENSION *ext = X509_EXTENSION_create_by_OBJ(NULL, obj, critical, octets);
    assert_int_equal(X509_add_ext(cert, ext, -1), 1);
    X509_EXTENSION_free(ext);
    ASN1_OCTET_STRING_free(octets);
    ASN1_OBJECT_free(obj);
}

static void add_san(X509 *cert, bool twice)
{
    att_autobuf san = {0};
    size_t names = certs_der_begin(&san, DER_SEQUENCE);
    size_t general = certs_der_begin(&san, DER_CONTEXT_C(4));
    size_t name = certs_der_begin(&san, DER_SEQUENCE);
    certs_put_rdn(&san, CERTS_OID_TPM_MANUFACTURER, "id:00001014");
    certs_put_rdn(&san, CERTS_OID_TPM_MODEL, "swtpm");
    certs_put_rdn(&san, CERTS_OID_TPM_VERSION, "id:20191023");
    if (twice) {
        certs_put_rdn(&san, CERTS_OID_TPM_MANUFACTURER, "id:53544D20");
    }
    certs_der_end(&san, name);
    certs_der_end(&san, general);
    certs_der_end(&san, names);
    add_raw(cert, CERTS_EXT_SAN, true, &san);
}

static void make_ek(const struct world *w, const struct ca *by, const struct ek_spec *spec,
                    struct att_buf *ret)
{
    X509 *cert = X509_new();
    X509_set_version(cert, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 7);
    X509_gmtime_adj(X509_getm_notBefore(cert), spec->from_day * (long)DAY);
    X509_gmtime_adj(X509_getm_notAfter(cert), spec->to_day * (long)DAY);
    X509_set_issuer_name(cert, X509_get_subject_name(by->cert));
    X509_set_pubkey(cert, spec->key ? spec->key : w->rsa);
    add_ext(cert, NID_basic_constraints, spec->ca);
    add_ext(cert, NID_key_usage, spec->usage);
    add_ext(cert, NID_ext_key_usage, spec->eku);
    if (!spec->no_san) {
        add_san(cert, spec->double_san);
    }
    if (spec->unknown) {
        att_autobuf null = {0};
        att_buf_put(&null, "\5\0", 2);
        add_raw(cert, spec->unknown, true, &null);
    }
    assert_true(X509_sign(cert, by->key, EVP_sha256()) > 0);
    assert_ok(certs_cert_der(cert, ret, err));
    X509_free(cert);
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    temp_dir(w->dir);
    ca_init(&w->ca, NULL);
    ca_init(&w->other, NULL);
    w->rsa = EVP_RSA_gen(2048);
    struct certs_ek_store *none = NULL;
    assert_int_equal(certs_ek_store_load(w->dir, &none, NULL), ATT_E_PARSE); /* empty */
    certs_autostack *root = stack_of(1, w->ca.root);
    write_pem(w->dir, "maker.pem", root);
    assert_ok(certs_ek_store_load(w->dir, &w->store, err));
    assert_ok(certs_cert_der(w->ca.cert, &w->chain, err));
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    certs_ek_store_free(w->store);
    att_buf_done(&w->chain);
    EVP_PKEY_free(w->rsa);
    ca_done(&w->ca);
    ca_done(&w->other);
    temp_remove(w->dir);
    free(w);
    return 0;
}

static void verdict_of(const struct world *w, const struct att_buf *cert,
                       const struct att_slice *chain, size_t n, enum certs_ek_verdict expected)
{
    struct certs_ek_info *info = calloc(1, sizeof *info);
    struct att_err why = {0};
    enum att_rc rc =
        certs_ek_verify(w->store, att_buf_slice(cert), chain, n, att_now_utc_s(), info, &why);
    if (info->verdict != expected) {
        fail_msg("expected %s, got %s: %s", certs_ek_verdict_name(expected),
                 certs_ek_verdict_name(info->verdict), why.msg);
    }
    assert_int_equal(rc == ATT_OK, expected == CERTS_EK_OK);
    if (rc != ATT_OK) {
        assert_string_equal(why.reason, "ekChain");
        assert_int_equal(info->spki_len, 0);
        assert_int_equal(info->ek_id[0], 0);
    }
    free(info);
}

static void spec_is(const struct world *w, struct ek_spec spec, enum certs_ek_verdict expected)
{
    att_autobuf cert = {0};
    struct att_slice chain = att_buf_slice(&w->chain);
    make_ek(w, &w->ca, &spec, &cert);
    verdict_of(w, &cert, &chain, 1, expected);
}

static void test_content_refused(void **state)
{
    struct world *w = *state;
    struct ek_spec s = good;
    s.ca = "critical,CA:TRUE";
    spec_is(w, s, CERTS_EK_IS_CA);
    s = good;
    s.eku = NULL;
    spec_is(w, s, CERTS_EK_EKU);
    s.eku = "2.23.133.8.3";
    spec_is(w, s, CERTS_EK_EKU);
    s = good;
    s.usage = "critical,digitalSignature";
    spec_is(w, s, CERTS_EK_KEY_USAGE);
    s = good;
    s.no_san = true;
    spec_is(w, s, CERTS_EK_SAN);
    s = good;
    s.double_san = true;
    spec_is(w, s, CERTS_EK_SAN);
    s = good;
    s.unknown = "1.2.3.4";
    spec_is(w, s, CERTS_EK_CRITICAL);
    s = good;
    s.to_day = 0;
    spec_is(w, s, CERTS_EK_EXPIRED);
    s = good;
    s.from_day = 1;
    spec_is(w, s, CERTS_EK_EXPIRED);
    s = good;
    s.key = EVP_RSA_gen(1024);
    spec_is(w, s, CERTS_EK_KEY_TYPE);
    EVP_PKEY_free(s.key);
    s.key = EVP_EC_gen("P-521");
    spec_is(w, s, CERTS_EK_KEY_TYPE);
    EVP_PKEY_free(s.key);
}

static void test_path_refused(void **state)
{
    struct world *w = *state;
    att_autobuf cert = {0}, foreign = {0}, chain_der = {0}, root_der = {0};
    struct att_slice chain = att_buf_slice(&w->chain);
    make_ek(w, &w->ca, &good, &cert);
    verdict_of(w, &cert, NULL, 0, CERTS_EK_NO_PATH);
    /* A maker that nobody trusts, with the whole of its chain sent along. */
    make_ek(w, &w->other, &good, &foreign);
    assert_ok(certs_cert_der(w->other.cert, &chain_der, err));
    assert_ok(certs_cert_der(w->other.root, &root_der, err));
    struct att_slice theirs[] = {att_buf_slice(&chain_der), att_buf_slice(&root_der)};
    verdict_of(w, &foreign, theirs, 2, CERTS_EK_NO_PATH);
    struct att_slice junk = ATT_SLICE_LIT("junk");
    verdict_of(w, &cert, &junk, 1, CERTS_EK_MALFORMED);
    struct att_slice many[CERTS_EK_CHAIN_MAX + 1];
    for (size_t i = 0; i <= CERTS_EK_CHAIN_MAX; i++) {
        many[i] = chain;
    }
    verdict_of(w, &cert, many, CERTS_EK_CHAIN_MAX + 1, CERTS_EK_MALFORMED);
    /* The maker's name on somebody else's signature. */
    cert.ptr[cert.len - 1] ^= 1;
    verdict_of(w, &cert, &chain, 1, CERTS_EK_SIGNATURE);
}

static void test_padding(void **state)
{
    struct world *w = *state;
    att_autobuf cert = {0}, empty = {0};
    struct att_slice chain = att_buf_slice(&w->chain), der = {0};
    make_ek(w, &w->ca, &good, &cert);
    size_t len = cert.len;
    verdict_of(w, &empty, &chain, 1, CERTS_EK_MALFORMED);
    att_buf_put(&cert, "\0\0\377\377", 4);
    assert_ok(certs_ek_strip(att_buf_slice(&cert), &der, err));
    assert_int_equal(der.len, len);
    verdict_of(w, &cert, &chain, 1, CERTS_EK_OK);
    att_buf_u8(&cert, 1);
    assert_int_equal(certs_ek_strip(att_buf_slice(&cert), &der, NULL), ATT_E_PARSE);
    verdict_of(w, &cert, &chain, 1, CERTS_EK_MALFORMED);
    assert_int_equal(certs_ek_strip(ATT_SLICE(cert.ptr, len - 1), &der, NULL), ATT_E_PARSE);
    while (cert.len <= CERTS_EK_NV_MAX) {
        att_buf_u8(&cert, 0);
    }
    assert_int_equal(certs_ek_strip(att_buf_slice(&cert), &der, NULL), ATT_E_LIMIT);
}

static void test_accepted(void **state)
{
    struct world *w = *state;
    att_autobuf cert = {0}, spki = {0};
    struct att_slice chain = att_buf_slice(&w->chain);
    struct certs_ek_info info;
    uint8_t digest[ATT_SHA256_LEN];
    char id[65];
    make_ek(w, &w->ca, &good, &cert);
    assert_ok(
        certs_ek_verify(w->store, att_buf_slice(&cert), &chain, 1, att_now_utc_s(), &info, err));
    assert_int_equal(info.verdict, CERTS_EK_OK);
    assert_string_equal(info.manufacturer, "id:00001014");
    assert_string_equal(info.model, "swtpm");
    assert_string_equal(info.version, "id:20191023");
    assert_ok(certs_key_spki(w->rsa, &spki, err));
    assert_true(att_slice_eq(ATT_SLICE(info.spki, info.spki_len), att_buf_slice(&spki)));
    att_sha256(digest, att_buf_slice(&spki));
    att_hex(id, ATT_SLICE_ARRAY(digest));
    assert_string_equal(info.ek_id, id);
    struct ek_spec p384 = good;
    p384.key = EVP_EC_gen("P-384");
    p384.usage = "critical,keyAgreement";
    spec_is(w, p384, CERTS_EK_OK);
    EVP_PKEY_free(p384.key);
}

/* The makers' real certificates load, and every intermediate finds its way or says why not. */
static void test_real_makers(void **state)
{
    (void)state;
    const char *env = getenv("ATTESTD_VECTORS"), *root = getenv("ATT_SOURCE_DIR");
    char from[512], dir[256], to[512];
    snprintf(from, sizeof from, "%s%s",
             env    ? env
             : root ? root
                    : ".",
             env ? "" : "/../shared/vectors");
    static const char *const files[] = {"ek-roots-real.pem", "ek-intermediates-real.pem"};
    temp_dir(dir);
    for (size_t i = 0; i < 2; i++) {
        att_autobuf pem = {0};
        path_in(to, from, files[i]);
        if (att_io_read_file(to, 4 << 20, &pem, NULL) != ATT_OK) {
            print_message("no %s here: skipped\n", to);
            temp_remove(dir);
            skip();
        }
        path_in(to, dir, files[i]);
        assert_ok(att_io_write_file(to, att_buf_slice(&pem), 0644, err));
    }
    struct certs_ek_store *store = NULL;
    assert_ok(certs_ek_store_load(dir, &store, err));
    assert_true(certs_ek_store_roots(store) >= 20);
    certs_ek_store_free(store);
    temp_remove(dir);
}

static void test_store_refused(void **state)
{
    struct world *w = *state;
    char dir[256], path[512];
    struct certs_ek_store *none = NULL;
    temp_dir(dir);
    path_in(path, dir, "nothing");
    assert_int_equal(certs_ek_store_load(path, &none, NULL), ATT_E_NOTFOUND);
    certs_autostack *inter = stack_of(1, w->ca.cert);
    write_pem(dir, "a.pem", inter);
    assert_int_equal(certs_ek_store_load(dir, &none, NULL), ATT_E_PARSE); /* no root */
    certs_autokey *key = NULL;
    assert_ok(certs_key_generate(&key, err));
    certs_autox509 *leaf = make_leaf(&w->ca, key);
    certs_autostack *leaves = stack_of(1, leaf);
    write_pem(dir, "b.pem", leaves);
    struct att_err why = {0};
    assert_int_equal(certs_ek_store_load(dir, &none, &why), ATT_E_PARSE);
    assert_non_null(strstr(why.msg, "b.pem"));
    path_in(path, dir, "b.pem");
    assert_ok(att_io_write_file(path, ATT_SLICE_LIT("junk"), 0644, err));
    assert_int_equal(certs_ek_store_load(dir, &none, NULL), ATT_E_PARSE);
    assert_null(none);
    temp_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_content_refused), cmocka_unit_test(test_path_refused),
        cmocka_unit_test(test_padding),         cmocka_unit_test(test_accepted),
        cmocka_unit_test(test_real_makers),     cmocka_unit_test(test_store_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
