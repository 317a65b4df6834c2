/* Bundles of another trust domain, each wrong in one thing. */
#include "provision/federation/bundle.h"

#include "attestd/base/enc.h"
#include "certs/chain.h"
#include "certs/key.h"
#include "provision/acme/jws.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <openssl/evp.h>
#include <openssl/x509v3.h>
#include <string.h>

#define TD "partner.example"

struct cert_of {
    const char *uri; /* NULL: none */
    bool not_ca, not_self_signed;
};

static void add_ext(X509 *cert, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, cert, cert, NULL, NULL, 0);
    X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    assert_non_null(ext);
    assert_int_equal(X509_add_ext(cert, ext, -1), 1);
    X509_EXTENSION_free(ext);
}

static X509 *make_cert(EVP_PKEY *key, struct cert_of of)
{
    X509 *cert = X509_new();
    EVP_PKEY *other = EVP_EC_gen("P-256");
    assert_non_null(cert);
    X509_set_version(cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC,
                               (const unsigned char *)"root", -1, -1, 0);
    X509_set_issuer_name(cert, X509_get_subject_name(cert));
    X509_gmtime_adj(X509_getm_notBefore(cert), -60);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_set_pubkey(cert, key);
    add_ext(cert, NID_basic_constraints, of.not_ca ? "critical,CA:FALSE" : "critical,CA:TRUE");
    add_ext(cert, NID_key_usage, "critical,keyCertSign,cRLSign");
    if (of.uri) {
        char text[300];
        snprintf(text, sizeof text, "URI:%s", of.uri);
        add_ext(cert, NID_subject_alt_name, text);
    }
    assert_true(X509_sign(cert, of.not_self_signed ? other : key, EVP_sha256()) > 0);
    EVP_PKEY_free(other);
    return cert;
}

static json_t *jwk_of(EVP_PKEY *key)
{
    att_autobuf spki = {0};
    json_t *jwk = NULL;
    assert_int_equal(certs_key_spki(key, &spki, NULL), ATT_OK);
    assert_int_equal(acme_spki_to_jwk(att_buf_slice(&spki), &jwk, NULL), ATT_OK);
    return jwk;
}

static json_t *x509_element_of(EVP_PKEY *key, X509 *cert)
{
    att_autobuf der = {0}, b64 = {0};
    json_t *jwk = jwk_of(key);
    assert_int_equal(certs_cert_der(cert, &der, NULL), ATT_OK);
    att_buf_b64(&b64, att_buf_slice(&der));
    json_object_set_new(jwk, "use", json_string("x509-svid"));
    json_object_set_new(jwk, "x5c", json_pack("[s]", att_buf_cstr(&b64)));
    return jwk;
}

static json_t *x509_element(struct cert_of of)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = make_cert(key, of);
    json_t *jwk = x509_element_of(key, cert);
    X509_free(cert);
    EVP_PKEY_free(key);
    return jwk;
}

static json_t *jwt_element(const char *kid)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    json_t *jwk = jwk_of(key);
    EVP_PKEY_free(key);
    json_object_set_new(jwk, "use", json_string("jwt-svid"));
    if (kid) {
        json_object_set_new(jwk, "kid", json_string(kid));
    }
    return jwk;
}

static json_t *good(void)
{
    return json_pack("{s:[o, o], s:i, s:i}", "keys", x509_element((struct cert_of){0}),
                     jwt_element("k1"), "spiffe_sequence", 7, "spiffe_refresh_hint", 300);
}

/* Takes json. reason "": it is taken, and *ret_bundle (may be NULL) the caller's. */
static void parsed(json_t *json, const char *reason, struct federation_bundle *ret_bundle)
{
    att_autobuf text = {0};
    struct federation_bundle bundle;
    struct att_err err = {0};
    assert_non_null(json);
    assert_int_equal(att_json_dump(json, false, &text, NULL), ATT_OK);
    json_decref(json);
    enum att_rc rc = federation_bundle_parse(att_buf_slice(&text), TD, &bundle, &err);
    if (strcmp(err.reason, reason) != 0) {
        print_error("expected \"%s\", got \"%s\" (%s)\n", reason, err.reason, err.msg);
    }
    assert_string_equal(err.reason, reason);
    assert_int_equal(rc == ATT_OK, reason[0] == 0);
    if (rc == ATT_OK && ret_bundle) {
        *ret_bundle = bundle;
    } else if (rc == ATT_OK) {
        federation_bundle_done(&bundle);
    }
}

/* A good one with its first element (0: of a root, 1: of a key) changed. */
static void element(size_t at, json_t *with, const char *reason)
{
    json_t *json = good();
    json_t *keys = json_object_get(json, "keys");
    json_array_set_new(keys, at, with);
    parsed(json, reason, NULL);
}

static void with(const char *name, json_t *value, const char *reason)
{
    json_t *json = good();
    json_object_set_new(json, name, value);
    parsed(json, reason, NULL);
}

static void test_good(void **state)
{
    (void)state;
    struct federation_bundle b;
    parsed(good(), "", &b);
    assert_int_equal(sk_X509_num(b.roots), 1);
    assert_int_equal(json_array_size(b.keys), 1);
    assert_int_equal(b.sequence, 7);
    assert_int_equal(b.hint_s, 300);
    assert_int_equal(b.ignored, 0);
    const json_t *own = json_array_get(b.keys, 0);
    assert_int_equal(json_object_size(own), 5); /* kty crv x y kid, and no "use" */
    federation_bundle_done(&b);
    /* All trust is withdrawn; neither sequence nor hint. */
    parsed(json_pack("{s:[]}", "keys"), "", &b);
    assert_int_equal(sk_X509_num(b.roots), 0);
    assert_int_equal(b.sequence, -1);
    assert_int_equal(b.hint_s, -1);
    federation_bundle_done(&b);
    /* Members, uses and kinds of keys that nobody here knows. */
    json_t *json = good(), *keys = json_object_get(json, "keys");
    json_object_set_new(json, "further", json_true());
    json_array_append_new(keys, json_pack("{s:s, s:s}", "kty", "OKP", "use", "wit-svid"));
    json_array_append_new(keys, json_pack("{s:s}", "kty", "EC"));
    json_array_append_new(
        keys, json_pack("{s:s, s:s, s:s}", "kty", "OKP", "use", "jwt-svid", "kid", "ed"));
    parsed(json, "", &b);
    assert_int_equal(b.ignored, 3);
    assert_int_equal(json_array_size(b.keys), 1);
    federation_bundle_done(&b);
    element(0, x509_element((struct cert_of){.uri = "spiffe://" TD}), "");
    element(0, x509_element((struct cert_of){.uri = "https://" TD "/crl"}), "");
}

/* X509-SVID §6.2: no certificate, or more than one. */
static void test_certificates(void **state)
{
    (void)state;
    struct federation_bundle b;
    for (int empty = 0; empty < 2; empty++) {
        json_t *json = good(), *root = json_array_get(json_object_get(json, "keys"), 0);
        json_object_del(root, "x5c");
        if (empty) {
            json_object_set_new(root, "x5c", json_array());
        }
        parsed(json, "", &b);
        assert_int_equal(sk_X509_num(b.roots), 0);
        assert_int_equal(json_array_size(b.keys), 1);
        assert_int_equal(b.ignored, 1);
        federation_bundle_done(&b);
    }
    json_t *secret = good();
    json_object_del(json_array_get(json_object_get(secret, "keys"), 0), "x5c");
    json_object_set_new(json_array_get(json_object_get(secret, "keys"), 0), "d", json_string("AA"));
    parsed(secret, "bundlePrivateKey", NULL); /* whatever the element is */
    json_t *json = good();
    json_t *x5c = json_object_get(json_array_get(json_object_get(json, "keys"), 0), "x5c");
    json_array_append_new(x5c, json_string("no base64"));
    parsed(json, "", &b);
    assert_int_equal(sk_X509_num(b.roots), 1);
    assert_int_equal(b.ignored, 0);
    federation_bundle_done(&b);
}

static void test_form(void **state)
{
    (void)state;
    struct federation_bundle b;
    struct att_err err = {0};
    static const char *const bad[] = {"",
                                      "[]",
                                      "null",
                                      "{",
                                      "{}",
                                      "{\"keys\":{}}",
                                      "{\"keys\":[1]}",
                                      "{\"keys\":[[]]}",
                                      "{\"keys\":[],\"keys\":[]}",
                                      "{\"keys\":[]} x",
                                      "{\"keys\":[\"\\u0000\"]}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        att_err_clear(&err);
        assert_int_not_equal(federation_bundle_parse(att_slice_str(bad[i]), TD, &b, &err), ATT_OK);
        assert_string_equal(err.reason, "bundleForm");
    }
    with("spiffe_sequence", json_integer(-1), "bundleForm");
    with("spiffe_sequence", json_string("7"), "bundleForm");
    with("spiffe_sequence", json_real(7.5), "bundleForm");
    with("spiffe_sequence", json_integer(INT64_MAX), "");
    with("spiffe_refresh_hint", json_integer(-1), "bundleForm");
    with("spiffe_refresh_hint", json_null(), "bundleForm");
    with("spiffe_refresh_hint", json_integer(0), "");
}

static void test_limits(void **state)
{
    (void)state;
    struct att_err err = {0};
    struct federation_bundle b;
    att_autobuf text = {0};
    att_buf_put_str(&text, "{\"keys\":[]}");
    while (text.len < FEDERATION_BUNDLE_MAX) {
        att_buf_put_str(&text, " ");
    }
    assert_int_equal(federation_bundle_parse(att_buf_slice(&text), TD, &b, &err), ATT_OK);
    federation_bundle_done(&b);
    att_buf_put_str(&text, " ");
    assert_int_equal(federation_bundle_parse(att_buf_slice(&text), TD, &b, &err), ATT_E_LIMIT);
    assert_string_equal(err.reason, "bundleSize");

    json_t *many = json_array(), *roots = json_array(), *keys = json_array();
    for (int i = 0; i < FEDERATION_ELEMENTS_MAX; i++) {
        json_array_append_new(many, json_pack("{s:s}", "use", "other"));
    }
    parsed(json_pack("{s:O}", "keys", many), "", NULL);
    json_array_append_new(many, json_object());
    parsed(json_pack("{s:o}", "keys", many), "bundleKeys", NULL);
    for (int i = 0; i < FEDERATION_ROOTS_MAX; i++) {
        json_array_append_new(roots, x509_element((struct cert_of){0}));
    }
    parsed(json_pack("{s:O}", "keys", roots), "", NULL);
    json_array_append_new(roots, x509_element((struct cert_of){0}));
    parsed(json_pack("{s:o}", "keys", roots), "bundleKeys", NULL);
    for (int i = 0; i < FEDERATION_KEYS_MAX; i++) {
        char kid[16];
        snprintf(kid, sizeof kid, "k%d", i);
        json_array_append_new(keys, jwt_element(kid));
    }
    parsed(json_pack("{s:O}", "keys", keys), "", NULL);
    json_array_append_new(keys, jwt_element("one more"));
    parsed(json_pack("{s:o}", "keys", keys), "bundleKeys", NULL);
}

/* A host hands them on as one text of 64 KiB at most: what is longer must not get as far. */
static void test_keys_in_bytes(void **state)
{
    (void)state;
    char longest[FEDERATION_KID_MAX + 1], alg[400];
    json_t *good_keys = json_array(), *keys = json_array();
    memset(alg, 'a', sizeof alg - 1);
    alg[sizeof alg - 1] = 0;
    for (int i = 0; i < FEDERATION_KEYS_MAX; i++) {
        memset(longest, 'k', sizeof longest - 1);
        longest[sizeof longest - 1] = 0;
        longest[0] = (char)('A' + i);
        json_array_append_new(good_keys, jwt_element(longest));
        memset(longest + 1, 1, sizeof longest - 2); /* six characters each, once escaped */
        json_t *key = jwt_element(longest);
        json_object_set_new(key, "alg", json_string(alg));
        json_array_append_new(keys, key);
    }
    parsed(json_pack("{s:o}", "keys", good_keys), "", NULL);
    parsed(json_pack("{s:o}", "keys", keys), "bundleKeys", NULL);
    json_t *one = jwt_element("k1");
    att_autobuf text = {0};
    while (text.len < 70000) {
        att_buf_put_str(&text, "a");
    }
    json_object_set_new(one, "alg", json_string(att_buf_cstr(&text)));
    element(1, one, "bundleKeys");
}

/* Names that cannot be read do not say whose it is. */
static void test_names(void **state)
{
    (void)state;
    static const unsigned char broken[] = {0x30, 0x20, 0x86, 0x02, 'a', 'b'};
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = make_cert(key, (struct cert_of){0});
    ASN1_OCTET_STRING *octets = ASN1_OCTET_STRING_new();
    assert_int_equal(ASN1_OCTET_STRING_set(octets, broken, sizeof broken), 1);
    X509_EXTENSION *ext = X509_EXTENSION_create_by_NID(NULL, NID_subject_alt_name, 0, octets);
    assert_int_equal(X509_add_ext(cert, ext, -1), 1);
    assert_true(X509_sign(cert, key, EVP_sha256()) > 0);
    json_t *root = x509_element_of(key, cert);
    att_autobuf text = {0};
    struct federation_bundle b;
    struct att_err err = {0};
    json_t *json = json_pack("{s:[o]}", "keys", root);
    assert_int_equal(att_json_dump(json, false, &text, NULL), ATT_OK);
    json_decref(json);
    assert_int_not_equal(federation_bundle_parse(att_buf_slice(&text), TD, &b, &err), ATT_OK);
    X509_EXTENSION_free(ext);
    ASN1_OCTET_STRING_free(octets);
    X509_free(cert);
    EVP_PKEY_free(key);
    element(0, x509_element((struct cert_of){.uri = "SPIFFE://other.example"}), "bundleDomain");
    element(0, x509_element((struct cert_of){.uri = "SPIFFE://" TD}), "bundleDomain");
}

/* 16 roots of nearly 5 KiB are more than 64 KiB, and 13 are not. */
static void test_roots_in_bytes(void **state)
{
    (void)state;
    char uri[4600] = "https://" TD "/";
    memset(uri + strlen(uri), 'a', sizeof uri - 1 - strlen(uri));
    json_t *roots = json_array();
    EVP_PKEY *key = EVP_EC_gen("P-256");
    for (int i = 0; i < 16; i++) {
        X509 *cert = make_cert(key, (struct cert_of){0});
        X509V3_CTX ctx;
        X509V3_set_ctx(&ctx, cert, cert, NULL, NULL, 0);
        GENERAL_NAMES *names = GENERAL_NAMES_new();
        GENERAL_NAME *name = GENERAL_NAME_new();
        ASN1_IA5STRING *text = ASN1_IA5STRING_new();
        ASN1_STRING_set(text, uri, (int)strlen(uri) - i);
        GENERAL_NAME_set0_value(name, GEN_URI, text);
        sk_GENERAL_NAME_push(names, name);
        assert_int_equal(X509_add1_ext_i2d(cert, NID_subject_alt_name, names, 0, 0), 1);
        GENERAL_NAMES_free(names);
        assert_true(X509_sign(cert, key, EVP_sha256()) > 0);
        json_array_append_new(roots, x509_element_of(key, cert));
        X509_free(cert);
        if (i == 12) {
            parsed(json_pack("{s:O}", "keys", roots), "", NULL);
        }
    }
    EVP_PKEY_free(key);
    parsed(json_pack("{s:o}", "keys", roots), "bundleKeys", NULL);
}

static void test_secrets(void **state)
{
    (void)state;
    static const char *const members[] = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"};
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        json_t *root = x509_element((struct cert_of){0}), *key = jwt_element("k1"),
               *other = json_pack("{s:s, s:s}", "kty", "oct", "use", "nobody's");
        json_object_set_new(root, members[i], json_string("AA"));
        json_object_set_new(key, members[i], json_string("AA"));
        json_object_set_new(other, members[i], json_string("AA"));
        element(0, root, "bundlePrivateKey");
        element(1, key, "bundlePrivateKey");
        element(1, other, "bundlePrivateKey");
    }
}

static json_t *root_with(const char *name, json_t *value)
{
    json_t *root = x509_element((struct cert_of){0});
    if (value) {
        json_object_set_new(root, name, value);
    } else {
        json_object_del(root, name);
    }
    return root;
}

static void test_roots(void **state)
{
    (void)state;
    const char *b64 = NULL;
    json_t *one = x509_element((struct cert_of){0});
    b64 = json_string_value(json_array_get(json_object_get(one, "x5c"), 0));
    element(0, root_with("x5c", json_string(b64)), "bundleRoot");
    element(0, root_with("x5c", json_object()), "bundleRoot");
    element(0, root_with("x5c", json_null()), "bundleRoot");
    element(0, root_with("x5c", json_pack("[s, s]", "AAAA", b64)), "bundleRoot");
    element(0, root_with("x5c", json_pack("[s]", "AAAA")), "bundleRoot");
    element(0, root_with("x5c", json_pack("[s]", "no base64")), "bundleRoot");
    element(0, root_with("x5c", json_pack("[i]", 1)), "bundleRoot");
    element(0, x509_element((struct cert_of){.not_ca = true}), "bundleRoot");
    element(0, x509_element((struct cert_of){.not_self_signed = true}), "bundleRoot");
    element(0, root_with("x5c", json_pack("[s]", b64)), "bundleRootKey"); /* another's */
    element(0, root_with("kty", NULL), "bundleRootKey");
    element(0, root_with("kty", json_string("RSA")), "bundleRootKey");
    element(0, root_with("x", NULL), "bundleRootKey");
    element(0, x509_element((struct cert_of){.uri = "spiffe://other.example"}), "bundleDomain");
    element(0, x509_element((struct cert_of){.uri = "spiffe://" TD ".evil"}), "bundleDomain");
    element(0, x509_element((struct cert_of){.uri = "spiffe://"}), "bundleDomain");
    json_t *json = good();
    json_array_append(json_object_get(json, "keys"),
                      json_array_get(json_object_get(json, "keys"), 0));
    parsed(json, "bundleRoot", NULL); /* twice */
    json_decref(one);
}

static json_t *key_with(const char *name, json_t *value)
{
    json_t *key = jwt_element("k1");
    if (value) {
        json_object_set_new(key, name, value);
    } else {
        json_object_del(key, name);
    }
    return key;
}

static void test_keys(void **state)
{
    (void)state;
    char longest[FEDERATION_KID_MAX + 2];
    memset(longest, 'k', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    element(1, key_with("kid", NULL), "bundleKid");
    element(1, key_with("kid", json_string("")), "bundleKid");
    element(1, key_with("kid", json_integer(1)), "bundleKid");
    element(1, key_with("kid", json_string(longest)), "bundleKid");
    element(1, key_with("kid", json_string(longest + 1)), "");
    json_t *json = good();
    json_array_append_new(json_object_get(json, "keys"), jwt_element("k1"));
    parsed(json, "bundleKid", NULL);
    element(1, key_with("x", NULL), "bundleKey");
    element(1, key_with("x", json_string("AAAA")), "bundleKey");
    element(1, key_with("crv", json_string("secp256k1")), "bundleKey");
    element(1, key_with("crv", json_string("P-384")), "bundleKey");
    element(1, key_with("alg", json_integer(1)), "bundleKey");
    element(1, key_with("alg", json_string("ES256")), "");
    element(1,
            json_pack("{s:s, s:s, s:s, s:s, s:s}", "kty", "RSA", "use", "jwt-svid", "kid", "r", "n",
                      "AQAB", "e", "AQAB"),
            "bundleKey"); /* too short */
}

/* Curves that tokens of ours do not have. */
static void wide(const char *group, const char *crv, size_t len)
{
    EVP_PKEY *key = EVP_EC_gen(group);
    unsigned char point[200];
    size_t n = 0;
    att_autobuf x = {0}, y = {0};
    assert_int_equal(EVP_PKEY_get_octet_string_param(key, "pub", point, sizeof point, &n), 1);
    EVP_PKEY_free(key);
    assert_int_equal(n, 1 + 2 * len);
    att_buf_b64u(&x, ATT_SLICE(point + 1, len));
    att_buf_b64u(&y, ATT_SLICE(point + 1 + len, len));
    json_t *jwk = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "kty", "EC", "use", "jwt-svid", "kid",
                            "w", "crv", crv, "x", att_buf_cstr(&x), "y", att_buf_cstr(&y));
    element(1, json_deep_copy(jwk), "");
    json_object_set_new(jwk, "y", json_string(att_buf_cstr(&x))); /* not on the curve */
    element(1, jwk, "bundleKey");
}

static void test_wide_curves(void **state)
{
    (void)state;
    wide("P-384", "P-384", 48);
    wide("P-521", "P-521", 66);
}

static void test_kept_form_and_shared(void **state)
{
    (void)state;
    struct federation_bundle a, b, again;
    json_t *kept = NULL, *twice = NULL;
    json_t *first = good(), *second = good();
    json_t *root = json_array_get(json_object_get(first, "keys"), 0);
    json_t *key = json_deep_copy(json_array_get(json_object_get(first, "keys"), 1));
    parsed(json_deep_copy(first), "", &a);
    assert_int_equal(federation_bundle_to_json(&a, &kept, NULL), ATT_OK);
    assert_int_equal(federation_bundle_from_json(kept, &again, NULL), ATT_OK);
    assert_int_equal(federation_bundle_to_json(&again, &twice, NULL), ATT_OK);
    assert_true(json_equal(kept, twice));
    assert_string_equal(federation_bundle_shared(&a, &again), "a root");
    parsed(json_deep_copy(second), "", &b);
    assert_null(federation_bundle_shared(&a, &b));
    federation_bundle_done(&b);
    json_object_set_new(key, "kid", json_string("called otherwise"));
    json_array_append_new(json_object_get(second, "keys"), key);
    parsed(json_deep_copy(second), "", &b);
    assert_string_equal(federation_bundle_shared(&a, &b), "a key of JWT-SVIDs");
    federation_bundle_done(&b);
    json_array_append(json_object_get(second, "keys"), root);
    parsed(second, "", &b);
    assert_string_equal(federation_bundle_shared(&a, &b), "a root");
    federation_bundle_done(&b);
    federation_bundle_done(&again);
    federation_bundle_done(&a);
    json_decref(first);
    json_decref(kept);
    json_decref(twice);
    json_t *bad = json_pack("{s:s}", "roots", "");
    assert_int_equal(federation_bundle_from_json(bad, &b, NULL), ATT_E_PARSE);
    json_object_set_new(bad, "keys", json_array());
    json_object_set_new(bad, "roots", json_string("no PEM"));
    assert_int_equal(federation_bundle_from_json(bad, &b, NULL), ATT_E_PARSE);
    json_decref(bad);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),         cmocka_unit_test(test_form),
        cmocka_unit_test(test_limits),       cmocka_unit_test(test_keys_in_bytes),
        cmocka_unit_test(test_names),        cmocka_unit_test(test_roots_in_bytes),
        cmocka_unit_test(test_secrets),      cmocka_unit_test(test_roots),
        cmocka_unit_test(test_certificates), cmocka_unit_test(test_keys),
        cmocka_unit_test(test_wide_curves),  cmocka_unit_test(test_kept_form_and_shared)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
