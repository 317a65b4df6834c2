#include "tests/unit/att_certs/fixture.h"

#include "certs/der.h"

#include <openssl/x509v3.h>

struct recipe {
    const char *san; /* openssl syntax; NULL: none */
    const char *cn;  /* NULL: empty subject */
    const char *ext; /* a second extension: "keyUsage" value; NULL: none */
    bool challenge;  /* a challengePassword attribute */
    const EVP_MD *md;
};

static void build(const struct recipe *recipe, EVP_PKEY *key, struct att_buf *ret)
{
    X509_REQ *req = X509_REQ_new();
    X509_REQ_set_version(req, X509_REQ_VERSION_1);
    X509_REQ_set_pubkey(req, key);
    if (recipe->cn) {
        X509_NAME_add_entry_by_txt(X509_REQ_get_subject_name(req), "CN", MBSTRING_UTF8,
                                   (const unsigned char *)recipe->cn, -1, -1, 0);
    }
    STACK_OF(X509_EXTENSION) *exts = sk_X509_EXTENSION_new_null();
    if (recipe->san) {
        sk_X509_EXTENSION_push(exts,
                               X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, recipe->san));
    }
    if (recipe->ext) {
        sk_X509_EXTENSION_push(exts, X509V3_EXT_conf_nid(NULL, NULL, NID_key_usage, recipe->ext));
    }
    if (sk_X509_EXTENSION_num(exts)) {
        X509_REQ_add_extensions(req, exts);
    }
    if (recipe->challenge) {
        X509_REQ_add1_attr_by_NID(req, NID_pkcs9_challengePassword, MBSTRING_ASC,
                                  (const unsigned char *)"x", 1);
    }
    assert_true(X509_REQ_sign(req, key, recipe->md ? recipe->md : EVP_sha256()) > 0);
    uint8_t *der = NULL;
    int len = i2d_X509_REQ(req, &der);
    assert_true(len > 0);
    att_buf_put(ret, der, (size_t)len);
    OPENSSL_free(der);
    sk_X509_EXTENSION_pop_free(exts, X509_EXTENSION_free);
    X509_REQ_free(req);
}

static void refused(struct att_slice der, enum att_rc rc, const char *words)
{
    struct certs_csr csr;
    struct att_err why = {0};
    memset(&csr, 0x5a, sizeof csr);
    assert_int_equal(certs_csr_verify(der, ID, &csr, &why), rc);
    assert_string_equal(why.reason, "badCSR");
    if (!strstr(why.msg, words)) {
        fail_msg("expected \"%s\" in \"%s\"", words, why.msg);
    }
    assert_int_equal(csr.spki_len, 0x5a5a5a5a5a5a5a5a); /* untouched */
}

static void recipe_refused(const struct recipe *recipe, EVP_PKEY *key, enum att_rc rc,
                           const char *words)
{
    att_autobuf der = {0};
    build(recipe, key, &der);
    refused(att_buf_slice(&der), rc, words);
}

static void test_refuses_content(void **state)
{
    (void)state;
    certs_autokey *key = NULL;
    assert_ok(certs_key_generate(&key, err));
    EVP_PKEY *p384 = EVP_EC_gen("P-384"), *rsa = EVP_RSA_gen(1024);
    EVP_PKEY *rsa_2048 = EVP_RSA_gen(2048);
    const struct recipe plain = {.san = "URI:" ID};
    recipe_refused(&plain, p384, ATT_E_PARSE, "SubjectPublicKeyInfo of a key on P-256");
    recipe_refused(&plain, rsa, ATT_E_PARSE, "1024 bits, expected 2048 or 3072");
    recipe_refused(&(struct recipe){.san = "URI:" ID, .md = EVP_sha384()}, rsa_2048, ATT_E_PARSE,
                   "sha256WithRSAEncryption");
    recipe_refused(&(struct recipe){.san = "URI:" ID, .md = EVP_sha384()}, key, ATT_E_PARSE,
                   "ecdsa-with-SHA256");
    recipe_refused(&(struct recipe){.san = "URI:" ID "x"}, key, ATT_E_DENIED, "exactly one SAN");
    recipe_refused(&(struct recipe){.san = "URI:" ID ",URI:" ID}, key, ATT_E_DENIED,
                   "exactly one SAN");
    recipe_refused(&(struct recipe){.san = "URI:" ID ",DNS:bank.example"}, key, ATT_E_DENIED,
                   "exactly one SAN");
    recipe_refused(&(struct recipe){.san = "DNS:bank.example"}, key, ATT_E_DENIED,
                   "exactly one SAN");
    recipe_refused(&(struct recipe){.cn = "root"}, key, ATT_E_DENIED, "empty subject");
    recipe_refused(&(struct recipe){.ext = "keyCertSign"}, key, ATT_E_DENIED,
                   "no requested extension");
    recipe_refused(&(struct recipe){.san = "URI:" ID, .ext = "keyCertSign"}, key, ATT_E_DENIED,
                   "no requested extension");
    recipe_refused(&(struct recipe){.challenge = true}, key, ATT_E_DENIED, "no attribute");
    recipe_refused(&(struct recipe){.san = "URI:" ID, .challenge = true}, key, ATT_E_DENIED,
                   "no attribute");
    /* PKCS #10 version 2 does not exist, and OpenSSL 3.5 would not write it: by hand. */
    static const uint8_t version_1[] = {0x02, 0x01, 0x00};
    att_autobuf der = {0};
    build(&plain, key, &der);
    uint8_t *at = memmem(der.ptr, der.len, version_1, sizeof version_1);
    assert_true(at && at - der.ptr < 10);
    at[2] = 1;
    refused(att_buf_slice(&der), ATT_E_PARSE, "version 1");
    EVP_PKEY_free(p384);
    EVP_PKEY_free(rsa);
    EVP_PKEY_free(rsa_2048);
}

/* ---- RSA ---- */

static enum att_rc sign_pkcs1(void *user, struct att_slice digest, struct att_buf *ret,
                              struct att_err *err)
{
    uint8_t sig[512];
    size_t len = sizeof sig;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(user, NULL);
    (void)err;
    assert_int_equal(EVP_PKEY_sign_init(ctx), 1);
    assert_int_equal(EVP_PKEY_CTX_set_signature_md(ctx, EVP_sha256()), 1);
    assert_int_equal(EVP_PKEY_sign(ctx, sig, &len, digest.ptr, digest.len), 1);
    EVP_PKEY_CTX_free(ctx);
    att_buf_put(ret, sig, len);
    return att_buf_ok(ret, err);
}

static enum att_rc sign_not(void *user, struct att_slice digest, struct att_buf *ret,
                            struct att_err *err)
{
    (void)user;
    (void)digest;
    (void)ret;
    return att_fail(err, ATT_E_GONE, "no HSM");
}

static void test_rsa(void **state)
{
    (void)state;
    EVP_PKEY *key = EVP_RSA_gen(3072), *other = EVP_RSA_gen(3072);
    struct certs_csr csr;
    att_autobuf spki = {0}, der = {0}, none = {0};
    assert_ok(certs_key_spki(key, &spki, err));
    assert_ok(certs_csr_create_rsa(att_buf_slice(&spki), ID, sign_pkcs1, key, &der, err));
    assert_ok(certs_csr_verify(att_buf_slice(&der), ID, &csr, err));
    assert_true(csr.has_san);
    assert_true(att_slice_eq(ATT_SLICE(csr.spki, csr.spki_len), att_buf_slice(&spki)));
    const uint8_t *at = der.ptr; /* another reader */
    X509_REQ *req = d2i_X509_REQ(NULL, &at, (long)der.len);
    assert_non_null(req);
    assert_int_equal(X509_REQ_verify(req, key), 1);
    X509_REQ_free(req);
    recipe_refused(&(struct recipe){.san = "URI:" ID "x"}, key, ATT_E_DENIED, "exactly one SAN");
    der.ptr[der.len - 1] ^= 1;
    refused(att_buf_slice(&der), ATT_E_AUTH, "signature");
    att_buf_reset(&der);
    assert_ok(certs_csr_create_rsa(att_buf_slice(&spki), ID, sign_pkcs1, other, &der, err));
    refused(att_buf_slice(&der), ATT_E_AUTH, "signature");
    assert_int_equal(certs_csr_create_rsa(att_buf_slice(&spki), ID, sign_not, NULL, &none, NULL),
                     ATT_E_GONE);
    assert_int_equal(
        certs_csr_create_rsa(att_buf_slice(&spki), "https://x/y", sign_pkcs1, key, &none, NULL),
        ATT_E_PARSE);
    assert_int_equal(
        certs_csr_create_rsa(ATT_SLICE(spki.ptr, 10), ID, sign_pkcs1, key, &none, NULL),
        ATT_E_INVAL);
    assert_int_equal(none.len, 0);
    EVP_PKEY_free(key);
    EVP_PKEY_free(other);
}

static void test_refuses_bytes(void **state)
{
    (void)state;
    certs_autokey *key = NULL, *other = NULL;
    att_autobuf der = {0}, more = {0}, ber = {0};
    assert_ok(certs_key_generate(&key, err));
    assert_ok(certs_key_generate(&other, err));
    assert_ok(certs_csr_create(key, ID, &der, err));
    refused(ATT_SLICE(der.ptr, 0), ATT_E_PARSE, "DER CertificationRequest");
    refused(ATT_SLICE(der.ptr, der.len - 1), ATT_E_PARSE, "DER CertificationRequest");
    att_buf_put_slice(&more, att_buf_slice(&der));
    att_buf_u8(&more, 0);
    refused(att_buf_slice(&more), ATT_E_PARSE, "bytes follow");
    while (more.len <= CERTS_CSR_MAX) {
        att_buf_u8(&more, 0);
    }
    refused(att_buf_slice(&more), ATT_E_LIMIT, "at most");

    /* The outer length in a longer form than DER allows. */
    assert_int_equal(der.ptr[1], 0x82);
    att_buf_u8(&ber, 0x30);
    att_buf_u8(&ber, 0x83);
    att_buf_u8(&ber, 0);
    att_buf_put(&ber, der.ptr + 2, der.len - 2);
    refused(att_buf_slice(&ber), ATT_E_PARSE, "DER CertificationRequest");

    der.ptr[der.len - 1] ^= 1; /* the signature */
    refused(att_buf_slice(&der), ATT_E_AUTH, "signature");
    der.ptr[der.len - 1] ^= 1;

    /* Another key's SPKI put in: a CSR for a key that its sender does not hold. */
    uint8_t a[CERTS_SPKI_MAX], b[CERTS_SPKI_MAX];
    struct att_slice own = spki_of(key, a), theirs = spki_of(other, b);
    uint8_t *at = memmem(der.ptr, der.len, own.ptr, own.len);
    assert_non_null(at);
    memcpy(at, theirs.ptr, theirs.len);
    refused(att_buf_slice(&der), ATT_E_AUTH, "signature");
}

static void test_accepts(void **state)
{
    (void)state;
    certs_autokey *key = NULL;
    uint8_t buf[CERTS_SPKI_MAX];
    struct certs_csr csr;
    assert_ok(certs_key_generate(&key, err));
    const struct recipe good[] = {
        {.san = "URI:" ID}, {.san = NULL}, {.cn = ID}, {.san = "critical,URI:" ID}};
    for (size_t i = 0; i < 4; i++) {
        att_autobuf der = {0};
        build(&good[i], key, &der);
        assert_ok(certs_csr_verify(att_buf_slice(&der), ID, &csr, err));
        assert_int_equal(csr.has_san, good[i].san != NULL);
        assert_true(att_slice_eq(ATT_SLICE(csr.spki, csr.spki_len), spki_of(key, buf)));
    }
    att_autobuf der = {0};
    assert_ok(certs_csr_create(key, ID, &der, err));
    assert_ok(certs_csr_verify(att_buf_slice(&der), ID, &csr, err));
    assert_true(csr.has_san);
    assert_int_equal(certs_csr_create(key, "https://x/y", &der, NULL), ATT_E_PARSE);
}

/* ---- SPIFFE IDs ---- */

static void test_spiffe(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "spiffe://",
        "spiffe:///agent/x",
        "spiffe://bank.example/",
        "SPIFFE://bank.example/x",
        "spiffe://Bank.example/x",
        "spiffe://bank.example//x",
        "spiffe://bank.example/x/",
        "spiffe://bank.example/./x",
        "spiffe://bank.example/..",
        "spiffe://bank.example/a b",
        "spiffe://bank.example:443/x",
        "spiffe://u@bank.example/x",
        "spiffe://bank.example/x?y",
        "spiffe://bank.example/x#y",
        "spiffe://bank.example/%41",
        "spiffe://bank.example?x",
        "https://bank.example/x",
        "spiffe:/bank.example/x",
        "spiffe://bank.example/\xc3\xa9",
    };
    struct certs_spiffe_id id;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (certs_spiffe_parse(att_slice_str(bad[i]), &id, NULL) == ATT_OK) {
            fail_msg("accepted %s", bad[i]);
        }
    }
    assert_int_equal(certs_spiffe_parse(ATT_SLICE("spiffe://a/b\0c", 14), &id, NULL), ATT_E_PARSE);
    att_autobuf text = {0};
    att_buf_put_str(&text, "spiffe://a/");
    while (text.len < CERTS_SPIFFE_ID_MAX) {
        att_buf_u8(&text, 'x');
    }
    assert_ok(certs_spiffe_parse(att_buf_slice(&text), &id, err));
    att_buf_u8(&text, 'x');
    assert_int_equal(certs_spiffe_parse(att_buf_slice(&text), &id, NULL), ATT_E_LIMIT);
    char domain[300] = "spiffe://";
    memset(domain + 9, 'd', 256);
    assert_int_equal(certs_spiffe_parse(ATT_SLICE(domain, 9 + 256), &id, NULL), ATT_E_PARSE);
    assert_ok(certs_spiffe_parse(ATT_SLICE(domain, 9 + 255), &id, err));

    assert_ok(certs_spiffe_parse(att_slice_str("spiffe://b_a-n.k/Agent/x.Y_-/..."), &id, err));
    assert_true(att_slice_eq_str(id.trust_domain, "b_a-n.k"));
    assert_true(att_slice_eq_str(id.path, "/Agent/x.Y_-/..."));
}

static void test_agent_names(void **state)
{
    (void)state;
    struct att_slice name;
    assert_int_equal(certs_spiffe_agent_name(att_slice_str(ID), "other.example", &name, NULL),
                     ATT_E_DENIED);
    assert_int_equal(
        certs_spiffe_agent_name(att_slice_str("spiffe://" TD "/host/x"), TD, &name, NULL),
        ATT_E_PARSE);
    assert_int_equal(
        certs_spiffe_agent_name(att_slice_str("spiffe://" TD "/agent/a/b"), TD, &name, NULL),
        ATT_E_PARSE);
    assert_int_equal(
        certs_spiffe_agent_name(att_slice_str("spiffe://" TD "/agent/Big"), TD, &name, NULL),
        ATT_E_PARSE);
    assert_int_equal(certs_spiffe_agent_name(att_slice_str("spiffe://" TD), TD, &name, NULL),
                     ATT_E_PARSE);
    assert_ok(certs_spiffe_agent_name(att_slice_str(ID), TD, &name, err));
    assert_true(att_slice_eq_str(name, "rebalancer"));
    att_autobuf text = {0};
    assert_ok(certs_spiffe_agent(&text, TD, "rebalancer", err));
    assert_true(att_slice_eq_str(att_buf_slice(&text), ID));
    assert_int_equal(certs_spiffe_agent(&text, TD, "../x", NULL), ATT_E_PARSE);
    assert_int_equal(certs_agent_name_check(att_slice_str(".gen"), NULL), ATT_E_PARSE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refuses_content),
        cmocka_unit_test(test_refuses_bytes),
        cmocka_unit_test(test_rsa),
        cmocka_unit_test(test_accepts),
        cmocka_unit_test(test_spiffe),
        cmocka_unit_test(test_agent_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
