/* Model-signing bundles: made here and broken one thing at a time; and real ones, where the shared
 * vectors are (signed by a key on P-384, and by that key's certificate). */
#include "attestd/base/enc.h"
#include "attestd/base/io.h"
#include "attestd/base/json.h"
#include "certs/oid.h"
#include "provision/manifest/oms.h"

#include <openssl/ec.h>
#include <openssl/x509v3.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define DIGEST_A "0101010101010101010101010101010101010101010101010101010101010101"
#define DIGEST_B "0202020202020202020202020202020202020202020202020202020202020202"
#define STATEMENT                                                                                  \
    "{\"_type\":\"https://in-toto.io/Statement/v1\",\"subject\":[{\"name\":\"m\",\"digest\":{"     \
    "\"sha256\":\"SUBJECT\"}}],\"predicateType\":\"https://model_signing/signature/v1.0\","        \
    "\"predicate\":{\"resources\":[{\"name\":\"a.bin\",\"algorithm\":\"sha256\",\"digest\":"       \
    "\"" DIGEST_A "\"},{\"name\":\"sub/b.bin\",\"algorithm\":\"sha256\",\"digest\":\"" DIGEST_B    \
    "\"}],\"serialization\":{\"method\":\"files\",\"hash_type\":\"sha256\",\"allow_symlinks\":"    \
    "false,\"ignore_paths\":[\".git\"]}}}"

static EVP_PKEY *key, *other;

static int setup(void **state)
{
    (void)state;
    key = EVP_EC_gen("P-384");
    other = EVP_EC_gen("P-256");
    return key && other ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    EVP_PKEY_free(key);
    EVP_PKEY_free(other);
    return 0;
}

static char *replace(const char *text, const char *old, const char *new)
{
    const char *at = strstr(text, old);
    char *ret = NULL;
    assert_non_null(at);
    assert_true(asprintf(&ret, "%.*s%s%s", (int)(at - text), text, new, at + strlen(old)) > 0);
    return ret;
}

/* A bundle of the method "key" around this statement, signed. */
static char *bundle_of(const char *statement)
{
    const char *type = "application/vnd.in-toto+json";
    struct att_buf pae = {0}, payload = {0}, sig = {0}, text = {0};
    unsigned char der[256];
    size_t len = sizeof der;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    att_buf_printf(&pae, "DSSEv1 %zu %s %zu %s", strlen(type), type, strlen(statement), statement);
    assert_int_equal(EVP_DigestSignInit(ctx, NULL, EVP_sha384(), NULL, key), 1);
    assert_int_equal(EVP_DigestSign(ctx, der, &len, pae.ptr, pae.len), 1);
    EVP_MD_CTX_free(ctx);
    att_buf_b64(&payload, att_slice_str(statement));
    att_buf_b64(&sig, ATT_SLICE(der, len));
    att_buf_printf(&text,
                   "{\"mediaType\":\"application/vnd.dev.sigstore.bundle.v0.3+json\","
                   "\"verificationMaterial\":{\"publicKey\":{\"hint\":\"\"},\"tlogEntries\":[]},"
                   "\"dsseEnvelope\":{\"payload\":\"%.*s\",\"payloadType\":\"%s\","
                   "\"signatures\":[{\"sig\":\"%.*s\",\"keyid\":\"\"}]}}",
                   (int)payload.len, (const char *)payload.ptr, type, (int)sig.len,
                   (const char *)sig.ptr);
    att_buf_done(&pae);
    att_buf_done(&payload);
    att_buf_done(&sig);
    return (char *)att_buf_steal(&text, NULL);
}

/* The statement with its subject's digest. */
static char *statement(void)
{
    uint8_t digests[2 * ATT_SHA256_LEN], all[ATT_SHA256_LEN];
    char hex[2 * ATT_SHA256_LEN + 1];
    memset(digests, 1, 32);
    memset(digests + 32, 2, 32);
    att_sha256(all, ATT_SLICE_ARRAY(digests));
    att_hex(hex, ATT_SLICE_ARRAY(all));
    return replace(STATEMENT, "SUBJECT", hex);
}

static void refused_by(const char *json, EVP_PKEY *trusted, enum att_rc rc, const char *reason,
                       const char *word)
{
    struct manifest_oms_trust trust = {trusted, NULL, 0};
    struct manifest_oms oms = {0};
    struct att_err err = {0};
    enum att_rc got = manifest_oms_parse(att_slice_str(json), &trust, &oms, &err);
    if (got != rc || strcmp(err.reason, reason) != 0 || !strstr(err.msg, word)) {
        fail_msg("expected %s %s \"%s\": %s %s %s", att_rc_name(rc), reason, word, att_rc_name(got),
                 err.reason, err.msg);
    }
    assert_null(oms.files);
}

/* Signed as it is: what the statement says is wrong. */
static void statement_refused(const char *old, const char *new, enum att_rc rc, const char *word)
{
    char *good = statement(), *bad = replace(good, old, new), *json = bundle_of(bad);
    refused_by(json, key, rc, "bundleForm", word);
    free(good);
    free(bad);
    free(json);
}

static void test_statements(void **state)
{
    (void)state;
    statement_refused("Statement/v1", "Statement/v0", ATT_E_PARSE, "in-toto");
    statement_refused("signature/v1.0", "signature/v2.0", ATT_E_PARSE, "model_signing");
    statement_refused("\"files\"", "\"shards\"", ATT_E_UNSUPPORTED, "by files");
    statement_refused("\"hash_type\":\"sha256\"", "\"hash_type\":\"blake2b\"", ATT_E_UNSUPPORTED,
                      "sha256");
    statement_refused("\"allow_symlinks\":false", "\"allow_symlinks\":true", ATT_E_UNSUPPORTED,
                      "symbolic links");
    statement_refused("\"a.bin\"", "\"../a.bin\"", ATT_E_PARSE, "relative name");
    statement_refused("\"a.bin\"", "\"/a.bin\"", ATT_E_PARSE, "relative name");
    statement_refused("\"a.bin\"", "\"sub/b.bin\"", ATT_E_PARSE, "twice");
    statement_refused("\"algorithm\":\"sha256\"", "\"algorithm\":\"md5\"", ATT_E_PARSE, "sha256");
    statement_refused("\"digest\":\"0101", "\"digest\":\"0102", ATT_E_PARSE, "subject");
    statement_refused("{\"_type\"", "{\"_type\":1,\"_type\"", ATT_E_PARSE, "twice");
}

static void bundle_refused(const char *old, const char *new, enum att_rc rc, const char *reason,
                           const char *word)
{
    char *text = statement(), *good = bundle_of(text), *bad = replace(good, old, new);
    refused_by(bad, key, rc, reason, word);
    free(text);
    free(good);
    free(bad);
}

static void test_bundles(void **state)
{
    (void)state;
    bundle_refused("vnd.dev.sigstore", "vnd.dev.other", ATT_E_PARSE, "bundleForm", "mediaType");
    bundle_refused("dsseEnvelope", "messageSignature", ATT_E_PARSE, "bundleForm", "DSSE");
    bundle_refused("verificationMaterial", "material", ATT_E_PARSE, "bundleForm",
                   "verificationMaterial");
    bundle_refused("\"publicKey\"", "\"certificate\"", ATT_E_UNSUPPORTED, "bundleForm",
                   "method key or certificate");
    bundle_refused("in-toto+json", "in-toto+cbor", ATT_E_PARSE, "bundleForm", "in-toto");
    bundle_refused("\"signatures\":[", "\"signatures\":[{\"sig\":\"AAAA\"},", ATT_E_PARSE,
                   "bundleForm", "exactly one signature");
    /* one byte of what is signed */
    bundle_refused("\"payload\":\"e", "\"payload\":\"f", ATT_E_AUTH, "bundleSignature",
                   "does not hold");
    char *text = statement(), *good = bundle_of(text);
    refused_by(good, other, ATT_E_AUTH, "bundleSignature", "does not hold");
    refused_by(good, NULL, ATT_E_AUTH, "bundleSignature", "a certificate is expected");
    refused_by("", key, ATT_E_PARSE, "bundleForm", "JSON");
    for (size_t len = 0; len < strlen(good); len++) {
        struct manifest_oms_trust trust = {key, NULL, 0};
        struct manifest_oms oms = {0};
        assert_int_not_equal(manifest_oms_parse(ATT_SLICE(good, len), &trust, &oms, NULL), ATT_OK);
    }
    free(text);
    free(good);
}

/* ---- against files ---- */

static void add(struct manifest *m, const char *path, int fill)
{
    struct manifest_file file = {.path = (char *)(uintptr_t)path, .role = MANIFEST_MODEL};
    memset(file.sha256, fill, sizeof file.sha256);
    assert_int_equal(manifest_add_file(m, &file, NULL), ATT_OK);
}

static void check(int fill_a, const char *extra, bool with_b, const char *word, const char *digest)
{
    struct manifest_oms_trust trust = {key, NULL, 0};
    struct manifest_oms oms = {0};
    struct manifest m = {0};
    struct att_err err = {0};
    char *text = statement(), *json = bundle_of(text);
    assert_int_equal(manifest_oms_parse(att_slice_str(json), &trust, &oms, NULL), ATT_OK);
    add(&m, "/m/a.bin", fill_a);
    add(&m, "/m/model.sig", 9); /* the bundle itself */
    add(&m, "/elsewhere/x", 9);
    if (with_b) {
        add(&m, "/m/sub/b.bin", 2);
    }
    if (extra) {
        add(&m, extra, 3);
    }
    assert_int_equal(manifest_finish(&m, NULL), ATT_OK);
    enum att_rc rc = manifest_oms_check(&oms, &m, "/m", "/m/model.sig", &err);
    if (word) {
        assert_int_equal(rc, ATT_E_DENIED);
        assert_string_equal(err.reason, "bundleFile");
        assert_non_null(strstr(err.msg, word));
        assert_non_null(strstr(err.msg, digest));
    } else {
        assert_int_equal(rc, ATT_OK);
    }
    manifest_oms_done(&oms);
    manifest_done(&m);
    free(text);
    free(json);
}

static void test_files(void **state)
{
    (void)state;
    check(1, NULL, true, NULL, NULL);
    check(7, NULL, true, "/m/a.bin", DIGEST_A);                     /* changed */
    check(1, NULL, false, "/m/sub/b.bin", DIGEST_B);                /* missing */
    check(1, "/m/evil.bin", true, "/m/evil.bin", "no such file");   /* unlisted */
    check(1, "/m/.git/hook", true, "/m/.git/hook", "no such file"); /* to be ignored, it says */
}

/* ---- real ones ---- */

static bool load(const char *name, struct att_buf *ret)
{
    char path[4200];
    const char *root = getenv("ATTESTD_VECTORS"), *source = getenv("ATT_SOURCE_DIR");
    if (root) {
        snprintf(path, sizeof path, "%s/oms/v1.0/%s", root, name);
    } else {
        snprintf(path, sizeof path, "%s/../shared/vectors/oms/v1.0/%s", source ? source : ".",
                 name);
    }
    return att_io_read_file(path, MANIFEST_OMS_MAX, ret, NULL) == ATT_OK;
}

static X509 *cert_in(const struct att_buf *bundle, size_t i)
{
    att_autojson *json = NULL;
    att_autobuf der = {0};
    assert_int_equal(att_json_parse(att_buf_slice(bundle), MANIFEST_OMS_MAX, &json, NULL), ATT_OK);
    const json_t *list = json_object_get(
        json_object_get(json_object_get(json, "verificationMaterial"), "x509CertificateChain"),
        "certificates");
    const char *text = json_string_value(json_object_get(json_array_get(list, i), "rawBytes"));
    assert_int_equal(att_unb64(&der, att_slice_str(text), NULL), ATT_OK);
    const unsigned char *at = der.ptr;
    X509 *cert = d2i_X509(NULL, &at, (long)der.len);
    assert_non_null(cert);
    return cert;
}

static X509 *make_cert(EVP_PKEY *subject, EVP_PKEY *issuer, const char *cn, const char *issuer_cn,
                       int nid, const char *extension)
{
    X509 *cert = X509_new();
    X509_set_version(cert, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC,
                               (const unsigned char *)cn, -1, -1, 0);
    X509_NAME_add_entry_by_txt(X509_get_issuer_name(cert), "CN", MBSTRING_ASC,
                               (const unsigned char *)issuer_cn, -1, -1, 0);
    X509_set_pubkey(cert, subject);
    if (extension) {
        X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, NULL, nid, extension);
        assert_non_null(ext);
        assert_int_equal(X509_add_ext(cert, ext, -1), 1);
        X509_EXTENSION_free(ext);
    }
    assert_true(X509_sign(cert, issuer, EVP_sha256()) > 0);
    return cert;
}

/* The good bundle, by a certificate with this extendedKeyUsage (NULL: none). */
static char *bundle_by_cert(const char *usage)
{
    certs_autox509 *leaf = make_cert(key, other, "leaf", "root", NID_ext_key_usage, usage);
    unsigned char *der = NULL;
    char *good = statement(), *json = bundle_of(good), *chain = NULL;
    struct att_buf b64 = {0};
    int len = i2d_X509(leaf, &der);
    assert_true(len > 0);
    att_buf_b64(&b64, ATT_SLICE(der, (size_t)len));
    assert_true(asprintf(&chain,
                         "\"x509CertificateChain\":{\"certificates\":[{\"rawBytes\":\"%.*s\"}]}",
                         (int)b64.len, (const char *)b64.ptr) > 0);
    char *ret = replace(json, "\"publicKey\":{\"hint\":\"\"}", chain);
    att_buf_done(&b64);
    OPENSSL_free(der);
    free(good);
    free(json);
    free(chain);
    return ret;
}

/* A certificate of the same authority that is for something else, or says nothing about it. */
static void test_certificate_usage(void **state)
{
    (void)state;
    static const struct {
        const char *usage, *refusal;
    } cases[] = {{"codeSigning", NULL},
                 {"serverAuth", "codeSigning"},
                 {NULL, "codeSigning"},
                 {"serverAuth,codeSigning", NULL}};
    certs_autox509 *root =
        make_cert(other, other, "root", "root", NID_basic_constraints, "critical,CA:TRUE");
    STACK_OF(X509) *roots = sk_X509_new_null();
    assert_true(sk_X509_push(roots, root) > 0);
    struct manifest_oms_trust trust = {NULL, roots, (int64_t)time(NULL)};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *json = bundle_by_cert(cases[i].usage);
        struct manifest_oms oms = {0};
        struct att_err err = {0};
        enum att_rc rc = manifest_oms_parse(att_slice_str(json), &trust, &oms, &err);
        if (cases[i].refusal) {
            assert_int_equal(rc, ATT_E_AUTH);
            assert_string_equal(err.reason, "bundleSignature");
            assert_non_null(strstr(err.msg, cases[i].refusal));
        } else if (rc != ATT_OK) {
            fail_msg("%zu: %s", i, err.msg);
        }
        manifest_oms_done(&oms);
        free(json);
    }
    sk_X509_free(roots);
}

static void real_refused(const char *name, const struct manifest_oms_trust *trust,
                         const char *reason)
{
    att_autobuf bytes = {0};
    struct manifest_oms oms = {0};
    struct att_err err = {0};
    assert_true(load(name, &bytes));
    assert_int_not_equal(manifest_oms_parse(att_buf_slice(&bytes), trust, &oms, &err), ATT_OK);
    assert_string_equal(err.reason, reason);
}

static void test_real(void **state)
{
    (void)state;
    att_autobuf by_cert = {0}, by_key = {0};
    if (!load("valid/certificate.bundle.json", &by_cert) ||
        !load("valid/key.bundle.json", &by_key)) {
        print_message("the shared vectors are not here: skipped\n");
        skip();
    }
    certs_autox509 *leaf = cert_in(&by_cert, 0);
    certs_autox509 *above = cert_in(&by_cert, 1);
    certs_autokey *signer = X509_get_pubkey(leaf);
    STACK_OF(X509) *roots = sk_X509_new_null();
    assert_true(sk_X509_push(roots, above) > 0);
    struct manifest_oms_trust keyed = {signer, NULL, 0};
    struct manifest_oms_trust rooted = {NULL, roots, 1767225600}; /* 2026-01-01 */
    struct manifest_oms oms = {0};
    assert_int_equal(manifest_oms_parse(att_buf_slice(&by_key), &keyed, &oms, NULL), ATT_OK);
    assert_int_equal(oms.n, 2);
    assert_string_equal(oms.files[0].name, "signme-1");
    manifest_oms_done(&oms);
    assert_int_equal(manifest_oms_parse(att_buf_slice(&by_cert), &rooted, &oms, NULL), ATT_OK);
    assert_int_equal(oms.n, 2);
    manifest_oms_done(&oms);

    real_refused("valid/certificate.bundle.json", &keyed, "bundleSignature");
    real_refused("valid/key.bundle.json", &rooted, "bundleSignature");
    rooted.at = 2145916800; /* 2038: the certificates have ended */
    real_refused("valid/certificate.bundle.json", &rooted, "bundleSignature");
    keyed.key = key;
    real_refused("valid/key.bundle.json", &keyed, "bundleSignature");
    keyed.key = signer;
    real_refused("valid/sigstore.bundle.json", &keyed, "bundleForm");
    real_refused("invalid/empty.bundle.json", &keyed, "bundleForm");
    real_refused("invalid/missing-envelope.bundle.json", &keyed, "bundleForm");
    real_refused("invalid/missing-verification-material.bundle.json", &keyed, "bundleForm");
    att_autobuf bytes = {0};
    assert_true(load("invalid-payload/wrong-predicate.bundle.json", &bytes));
    assert_int_not_equal(manifest_oms_parse(att_buf_slice(&bytes), &keyed, &oms, NULL), ATT_OK);
    sk_X509_free(roots);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_statements), cmocka_unit_test(test_bundles),
        cmocka_unit_test(test_files),      cmocka_unit_test(test_certificate_usage),
        cmocka_unit_test(test_real),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
