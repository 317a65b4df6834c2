/* The document: one spelling, strict, and its root; fs-verity's digest without a kernel. */
#include "attestd/base/enc.h"
#include "certs/key.h"
#include "certs/oid.h"
#include "provision/manifest/sign.h"
#include "provision/manifest/verity.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct manifest_file file_of(const char *path, enum manifest_role role, uint8_t fill)
{
    struct manifest_file file = {.path = (char *)(uintptr_t)path, .role = role, .size = fill};
    memset(file.sha256, fill, sizeof file.sha256);
    memset(file.verity, fill + 1, sizeof file.verity);
    return file;
}

/* A Python agent: interpreter, script, package, model, and a link between two of them. */
static void fill(struct manifest *m)
{
    const struct manifest_file files[] = {
        file_of("/usr/bin/python3.11", MANIFEST_EXECUTABLE, 1),
        file_of("/opt/agent/agent.py", MANIFEST_SCRIPT, 2),
        file_of("/opt/agent/lib/risk/__init__.py", MANIFEST_PACKAGE, 3),
        file_of("/opt/agent/model/weights.bin", MANIFEST_MODEL, 4)};
    *m = (struct manifest){0};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        assert_int_equal(manifest_add_file(m, &files[i], NULL), ATT_OK);
    }
    assert_int_equal(manifest_add_link(m, "/opt/agent/model/latest", "weights.bin", NULL), ATT_OK);
    assert_int_equal(manifest_add_dir(m, "/opt/agent/model", NULL), ATT_OK);
    assert_int_equal(manifest_add_dir(m, "/opt/agent/lib", NULL), ATT_OK);
    assert_int_equal(manifest_finish(m, NULL), ATT_OK);
}

static char *text_of(const struct manifest *m)
{
    struct att_buf text = {0};
    assert_int_equal(manifest_encode(m, &text, NULL), ATT_OK);
    return (char *)att_buf_steal(&text, NULL);
}

static char *with(const char *text, const char *old, const char *new)
{
    const char *at = strstr(text, old);
    char *ret = NULL;
    assert_non_null(at);
    assert_true(asprintf(&ret, "%.*s%s%s", (int)(at - text), text, new, at + strlen(old)) > 0);
    return ret;
}

static void refused(const char *text, enum att_rc want, const char *word)
{
    struct manifest m = {0};
    struct att_err err = {0};
    enum att_rc rc = manifest_parse(att_slice_str(text), &m, &err);
    if (rc != want || !strstr(err.msg, word)) {
        fail_msg("expected %s with \"%s\", got %s: %s", att_rc_name(want), word, att_rc_name(rc),
                 err.msg);
    }
    assert_null(m.files);
}

static void test_refuses(void **state)
{
    (void)state;
    static const struct {
        const char *old, *new;
        enum att_rc rc;
        const char *word;
    } cases[] = {
        {"\"version\": 1", "\"version\": 2", ATT_E_UNSUPPORTED, "version 1"},
        {"\"version\": 1", "\"version\": 1.0", ATT_E_UNSUPPORTED, "version 1"},
        {"\"version\": 1", "\"version\": 1, \"more\": 1", ATT_E_PARSE, "no other members"},
        {"\"version\": 1", "\"version\": 1, \"version\": 1", ATT_E_PARSE, "occurs twice"},
        {"\"links\": [", "\"linkz\": [", ATT_E_PARSE, "\"links\" is missing"},
        {"\"role\":\"script\"", "\"role\":\"sript\"", ATT_E_PARSE, "a role that is known"},
        {"\"role\":\"script\"", "\"role\":\"script\",\"x\":1", ATT_E_PARSE, "no other members"},
        {"\"size\":2", "\"size\":-2", ATT_E_PARSE, "a size"},
        {"\"size\":2", "\"size\":2.5", ATT_E_PARSE, "a size"},
        {"/opt/agent/agent.py", "opt/agent/agent.py", ATT_E_PARSE, "absolute path"},
        {"/opt/agent/agent.py", "/opt/agent/../agent.py", ATT_E_PARSE, "absolute path"},
        {"/opt/agent/agent.py", "/opt/agent//agent.py", ATT_E_PARSE, "absolute path"},
        {"/opt/agent/agent.py", "/opt/agent/./agent.py", ATT_E_PARSE, "absolute path"},
        {"/opt/agent/agent.py", "/opt/agent/agent.py/", ATT_E_PARSE, "absolute path"},
        {"/opt/agent/agent.py", "/opt/agent/a\\ngent.py", ATT_E_PARSE, "absolute path"},
        {"/opt/agent/agent.py", "/zzz", ATT_E_PARSE, "in the order"},
        {"/opt/agent/agent.py", "/opt/agent/lib/risk/__init__.py", ATT_E_PARSE, "in the order"},
        {"/opt/agent/agent.py", "/opt/agent/agent.pz", ATT_E_AUTH, "has root"},
        {"\"role\":\"script\"", "\"role\":\"config\"", ATT_E_AUTH, "has root"},
        {"\"size\":2", "\"size\":3", ATT_E_AUTH, "has root"},
        {"\"target\":\"weights.bin\"", "\"target\":\"weights.bim\"", ATT_E_AUTH, "has root"},
        {"\"/opt/agent/lib\"", "\"/opt/agent/lic\"", ATT_E_AUTH, "has root"},
        {"\"sha256\":\"02", "\"sha256\":\"03", ATT_E_AUTH, "has root"},
        {"\"sha256\":\"02", "\"sha256\":\"0G", ATT_E_PARSE, "64 lowercase hex"},
        {"\"verity\":\"03", "\"verity\":\"13", ATT_E_AUTH, "has root"},
        {"\"verity\":\"03", "\"verity\":\"3", ATT_E_PARSE, "64 lowercase hex"},
        {"\"root\": \"", "\"root\": \"0", ATT_E_PARSE, "root"},
        {"}\n", "} x\n", ATT_E_PARSE, "JSON"},
        {"\"root\"", "\"signature\": \"a.b.c\",\n\"root\"", ATT_E_PARSE, "detached JWS"},
        {"\"root\"", "\"signature\": \"..\",\n\"root\"", ATT_E_PARSE, "detached JWS"},
    };
    struct manifest m;
    fill(&m);
    char *good = text_of(&m);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *bad = with(good, cases[i].old, cases[i].new);
        if (strcmp(cases[i].old, "}\n") == 0) { /* the last one */
            free(bad);
            assert_true(asprintf(&bad, "%sx", good) > 0);
        }
        refused(bad, cases[i].rc, cases[i].word);
        free(bad);
    }
    for (size_t len = 0; len + 1 < strlen(good); len++) {
        struct manifest none = {0};
        assert_int_not_equal(manifest_parse(ATT_SLICE(good, len), &none, NULL), ATT_OK);
    }
    free(good);
    manifest_done(&m);
}

static void test_adding_refuses(void **state)
{
    (void)state;
    struct manifest m = {0};
    struct manifest_file file = file_of("relative", MANIFEST_FILE, 1);
    assert_int_equal(manifest_add_file(&m, &file, NULL), ATT_E_INVAL);
    assert_int_equal(manifest_finish(&m, NULL), ATT_E_INVAL); /* nothing in it */
    file.path = (char[]){"/a"};
    assert_int_equal(manifest_add_file(&m, &file, NULL), ATT_OK);
    assert_int_equal(manifest_add_file(&m, &file, NULL), ATT_OK);
    assert_int_equal(manifest_finish(&m, NULL), ATT_E_EXISTS);
    manifest_done(&m);
    assert_int_equal(manifest_add_file(&m, &file, NULL), ATT_OK);
    assert_int_equal(manifest_add_link(&m, "/a", "b", NULL), ATT_OK);
    assert_int_equal(manifest_finish(&m, NULL), ATT_E_EXISTS); /* a link and a file */
    manifest_done(&m);
    for (size_t i = 0; i < MANIFEST_DIRS_MAX; i++) {
        char path[32];
        snprintf(path, sizeof path, "/d%zu", i);
        assert_int_equal(manifest_add_dir(&m, path, NULL), ATT_OK);
    }
    assert_int_equal(manifest_add_dir(&m, "/one-more", NULL), ATT_E_LIMIT);
    manifest_done(&m);
}

/* The order of adding does not show, and what is read is what was written. */
static void test_one_spelling(void **state)
{
    (void)state;
    struct manifest m, back = {0}, other = {0};
    fill(&m);
    char *text = text_of(&m);
    assert_int_equal(manifest_parse(att_slice_str(text), &back, NULL), ATT_OK);
    assert_memory_equal(back.root, m.root, sizeof m.root);
    char *again = text_of(&back);
    assert_string_equal(again, text);
    assert_int_equal(manifest_find_file(&back, "/opt/agent/agent.py")->role, MANIFEST_SCRIPT);
    assert_null(manifest_find_file(&back, "/opt/agent/agent.p"));
    assert_string_equal(manifest_find_link(&back, "/opt/agent/model/latest")->target,
                        "weights.bin");
    for (size_t i = m.n_files; i-- > 0;) {
        assert_int_equal(manifest_add_file(&other, &m.files[i], NULL), ATT_OK);
    }
    assert_int_equal(manifest_add_dir(&other, "/opt/agent/lib", NULL), ATT_OK);
    assert_int_equal(manifest_add_dir(&other, "/opt/agent/model", NULL), ATT_OK);
    assert_int_equal(manifest_add_link(&other, "/opt/agent/model/latest", "weights.bin", NULL),
                     ATT_OK);
    assert_int_equal(manifest_finish(&other, NULL), ATT_OK);
    assert_memory_equal(other.root, m.root, sizeof m.root);
    free(text);
    free(again);
    manifest_done(&m);
    manifest_done(&back);
    manifest_done(&other);
}

/* ---- signatures ---- */

static void test_signature(void **state)
{
    (void)state;
    certs_autokey *key = NULL, *second = NULL;
    struct manifest m;
    uint8_t signer[ATT_SHA256_LEN], want[ATT_SHA256_LEN];
    struct att_err err = {0};
    fill(&m);
    assert_int_equal(certs_key_generate(&key, NULL), ATT_OK);
    assert_int_equal(certs_key_generate(&second, NULL), ATT_OK);
    assert_int_equal(manifest_verify(&m, signer, &err), ATT_E_NOTFOUND);
    assert_string_equal(err.reason, "manifestSignature");
    assert_int_equal(manifest_sign(&m, key, NULL), ATT_OK);
    assert_int_equal(manifest_verify(&m, signer, NULL), ATT_OK);
    assert_int_equal(certs_key_spki_sha256(key, want, NULL), ATT_OK);
    assert_memory_equal(signer, want, sizeof want);

    char *text = text_of(&m);
    struct manifest back = {0};
    assert_int_equal(manifest_parse(att_slice_str(text), &back, NULL), ATT_OK);
    assert_int_equal(manifest_verify(&back, signer, NULL), ATT_OK);
    back.root[0] ^= 1; /* of another manifest */
    att_err_clear(&err);
    assert_int_equal(manifest_verify(&back, signer, &err), ATT_E_AUTH);
    assert_string_equal(err.reason, "manifestSignature");
    back.root[0] ^= 1;

    /* Each character of it counts: none can be another. */
    size_t wrong = 0, len = strlen(back.signature);
    for (size_t i = 0; i < len; i++) {
        char was = back.signature[i];
        back.signature[i] = was == 'A' ? 'B' : 'A';
        wrong += manifest_verify(&back, signer, NULL) != ATT_OK;
        back.signature[i] = was;
    }
    assert_int_equal(wrong, len);

    /* A signature by another key names that key. */
    assert_int_equal(manifest_sign(&back, second, NULL), ATT_OK);
    assert_int_equal(manifest_verify(&back, signer, NULL), ATT_OK);
    assert_memory_not_equal(signer, want, sizeof want);
    /* The first one's header with the second one's signature. */
    char *mixed = NULL;
    char *second_sig = strstr(back.signature, "..");
    assert_true(asprintf(&mixed, "%.*s%s", (int)(strstr(m.signature, "..") - m.signature),
                         m.signature, second_sig) > 0);
    free(back.signature);
    back.signature = mixed;
    assert_int_equal(manifest_verify(&back, signer, NULL), ATT_E_AUTH);
    free(text);
    manifest_done(&m);
    manifest_done(&back);
}

static void header_refused(struct manifest *m, const char *header)
{
    struct att_buf text = {0};
    uint8_t signer[ATT_SHA256_LEN];
    char *rest = strdup(strstr(m->signature, ".."));
    att_buf_b64u(&text, att_slice_str(header));
    att_buf_put_str(&text, rest);
    free(rest);
    free(m->signature);
    m->signature = (char *)att_buf_steal(&text, NULL);
    struct att_err err = {0};
    assert_int_not_equal(manifest_verify(m, signer, &err), ATT_OK);
    assert_true(err.rc == ATT_E_PARSE || err.rc == ATT_E_AUTH);
}

static void test_signature_headers(void **state)
{
    (void)state;
    certs_autokey *key = NULL;
    struct manifest m;
    fill(&m);
    assert_int_equal(certs_key_generate(&key, NULL), ATT_OK);
    assert_int_equal(manifest_sign(&m, key, NULL), ATT_OK);
    header_refused(&m, "{}");
    header_refused(&m, "{\"alg\":\"none\",\"typ\":\"attestd-manifest\",\"jwk\":{}}");
    header_refused(&m, "{\"alg\":\"ES256\",\"typ\":\"attestd-hostview\",\"jwk\":{}}");
    header_refused(&m, "{\"alg\":\"ES256\",\"typ\":\"attestd-manifest\",\"jwk\":{\"kty\":\"EC\","
                       "\"crv\":\"P-256\",\"x\":\"AA\",\"y\":\"AA\"}}");
    header_refused(&m, "{\"alg\":\"ES256\",\"typ\":\"attestd-manifest\",\"jwk\":{},\"b64\":false}");
    header_refused(&m, "not json");
    manifest_done(&m);
}

/* ---- fs-verity, against `fsverity digest` of fsverity-utils 1.5 over the same bytes ---- */

static void test_verity(void **state)
{
    (void)state;
    static const struct {
        size_t size;
        const char *digest;
    } cases[] = {
        {0u, "3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95"},
        {1u, "b803429503d95915829b29fdbc8bbad142f3abfd11b1cadf5526582e685c0551"},
        {4095u, "b37a93497ff6ed2821409ced1dc20f4c1002cc361adf2f22ec444a22c06fe857"},
        {4096u, "87a706bdba32be89a173dc11d6a91c08165b4dcfcf743988c94595e82934a41a"},
        {4097u, "5c6077f10edc31c27b2a65cbaa199e2cfd36998bf104ccd2f7395eb509682064"},
        {8192u, "870c5a8845344e284913be24101260588059e053bc58a58aa1fb4072b4d486f2"},
        {524288u, "9613b285b37589320574d16f1447444fb68289259e661f4418dc6374ef3c5b9f"},
        {524289u, "355acec90f25617bed6ee0e57380add05b4abb6855b8c7a9224c142cf027a98a"},
        {528384u, "d88e5c2aea165a8d8864af881899bbd4e3a59c3a951524b8226b4a0c6044c343"},
        {67108864u, "d87af4dff916f4cefac8587cf6c2444afe8b0d1597385eac0ba1c2426f8b5e67"},
        {67108869u, "27ac65d693c522f85d3e9757d370c5bb423508a18215e8a4c233a709066466d1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct manifest_hash *hash = calloc(1, sizeof *hash);
        uint8_t sha256[ATT_SHA256_LEN], verity[ATT_SHA256_LEN], plain[ATT_SHA256_LEN];
        char hex[2 * ATT_SHA256_LEN + 1];
        uint8_t *bytes = malloc(cases[i].size + 1);
        for (size_t k = 0; k < cases[i].size; k++) {
            bytes[k] = (uint8_t)(k * 7 + k / 4096);
        }
        assert_int_equal(manifest_hash_init(hash, NULL), ATT_OK);
        size_t step = 1 + cases[i].size / 3; /* not by blocks */
        for (size_t at = 0; at < cases[i].size; at += step) {
            size_t n = cases[i].size - at < step ? cases[i].size - at : step;
            assert_int_equal(manifest_hash_update(hash, ATT_SLICE(bytes + at, n), NULL), ATT_OK);
        }
        assert_int_equal(manifest_hash_final(hash, sha256, verity, NULL), ATT_OK);
        att_hex(hex, ATT_SLICE_ARRAY(verity));
        assert_string_equal(hex, cases[i].digest);
        att_sha256(plain, ATT_SLICE(bytes, cases[i].size));
        assert_memory_equal(sha256, plain, sizeof plain);
        manifest_hash_done(hash);
        free(hash);
        free(bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refuses),           cmocka_unit_test(test_adding_refuses),
        cmocka_unit_test(test_one_spelling),      cmocka_unit_test(test_signature),
        cmocka_unit_test(test_signature_headers), cmocka_unit_test(test_verity),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
