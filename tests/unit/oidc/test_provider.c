/* Sets of keys, and where they come from: a file that is replaced, a server over TLS. */
#include "tests/unit/oidc/sign.h"

#include "attestd/base/clock.h"
#include "attestd/base/io.h"
#include "tests/unit/acme/tls_server.h"

#include <openssl/pem.h>

static void parse_refused(json_t *keys, const char *reason)
{
    struct oidc_jwks *jwks = NULL;
    json_t *set = json_pack("{s:o}", "keys", keys);
    char *text = json_dumps(set, JSON_COMPACT);
    refused(oidc_jwks_parse(att_slice_str(text), &jwks, &err), ATT_E_PARSE, reason);
    assert_null(jwks);
    free(text);
    json_decref(set);
}

static json_t *one(json_t *jwk)
{
    json_t *keys = json_array();
    json_array_append_new(keys, jwk);
    return keys;
}

static json_t *with(json_t *jwk, const char *name, json_t *value)
{
    json_object_set_new(jwk, name, value);
    return jwk;
}

static void test_sets(void **state)
{
    (void)state;
    EVP_PKEY *ec = EVP_EC_gen("P-256"), *rsa = EVP_RSA_gen(2048), *small = EVP_RSA_gen(1024);
    struct oidc_jwks *jwks = NULL;
    parse_refused(json_array(), "jwksForm");
    parse_refused(json_null(), "jwksForm");
    parse_refused(one(json_integer(1)), "jwksForm");
    parse_refused(one(with(jwk_of(ec, "k"), "d", json_string("AAAA"))), "jwksForm");
    parse_refused(one(json_pack("{s:s, s:s, s:s}", "kty", "oct", "kid", "k", "k", "AAAA")),
                  "jwksForm");
    json_t *twice = one(jwk_of(ec, "k"));
    json_array_append_new(twice, jwk_of(rsa, "k"));
    parse_refused(twice, "jwksForm");
    json_t *many = json_array();
    for (int i = 0; i <= OIDC_KEYS_MAX; i++) {
        json_array_append_new(many, json_object());
    }
    parse_refused(many, "jwksForm");
    /* These are nobody's to verify by: each alone leaves no key. */
    parse_refused(one(with(jwk_of(ec, "k"), "use", json_string("enc"))), "jwksForm");
    parse_refused(one(with(jwk_of(ec, "k"), "key_ops", json_pack("[s]", "sign"))), "jwksForm");
    parse_refused(one(with(jwk_of(ec, "k"), "alg", json_string("ES384"))), "jwksForm");
    parse_refused(one(with(jwk_of(ec, "k"), "alg", json_string("RS256"))), "jwksForm");
    parse_refused(one(with(jwk_of(ec, "k"), "crv", json_string("P-384"))), "jwksForm");
    parse_refused(one(with(jwk_of(ec, "k"), "kid", json_integer(1))), "jwksForm");
    /* An RSA key of 1024 bits: by hand, since nobody here writes one. */
    BIGNUM *n = NULL;
    unsigned char raw[128];
    att_autobuf b64 = {0};
    assert_int_equal(EVP_PKEY_get_bn_param(small, "n", &n), 1);
    assert_int_equal(BN_bn2binpad(n, raw, sizeof raw), (int)sizeof raw);
    att_buf_b64u(&b64, ATT_SLICE_ARRAY(raw));
    parse_refused(one(json_pack("{s:s, s:s, s:s, s:s}", "kty", "RSA", "kid", "k", "e", "AQAB", "n",
                                att_buf_cstr(&b64))),
                  "jwksForm");
    BN_free(n);
    /* Beside one that is good, they are skipped. */
    char *text = set_text(with(jwk_of(ec, "e"), "alg", json_string("ES384")), jwk_of(rsa, "r"));
    assert_int_equal(oidc_jwks_parse(att_slice_str(text), &jwks, NULL), ATT_OK);
    assert_int_equal(jwks->n, 1);
    assert_int_equal(jwks->skipped, 1);
    assert_null(oidc_jwks_find(jwks, "e"));
    assert_int_equal(oidc_jwks_find(jwks, "r")->algs, OIDC_RS256 | OIDC_PS256);
    oidc_jwks_free(jwks);
    free(text);
    /* Too long. */
    char *big = calloc(1, OIDC_JWKS_MAX + 2);
    memset(big, ' ', OIDC_JWKS_MAX + 1);
    refused(oidc_jwks_parse(ATT_SLICE(big, OIDC_JWKS_MAX + 1), &jwks, &err), ATT_E_LIMIT,
            "jwksSize");
    free(big);
    EVP_PKEY_free(ec);
    EVP_PKEY_free(rsa);
    EVP_PKEY_free(small);
}

static void test_discovery(void **state)
{
    (void)state;
    char *uri = NULL;
    static const char *const bad[] = {
        "",
        "[]",
        "{}",
        "{\"issuer\":\"" ISS "\"}",
        "{\"issuer\":\"" ISS "/\",\"jwks_uri\":\"https://idp.example/k\"}",
        "{\"issuer\":\"" ISS "\",\"jwks_uri\":\"http://idp.example/k\"}",
        "{\"issuer\":\"" ISS "\",\"jwks_uri\":\"file:///etc/passwd\"}",
        "{\"issuer\":\"" ISS "\",\"jwks_uri\":7}",
        "{\"issuer\":\"" ISS "\",\"issuer\":\"" ISS "\",\"jwks_uri\":\"https://idp.example/k\"}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        refused(oidc_discovery_parse(att_slice_str(bad[i]), ISS, &uri, &err), ATT_E_PARSE,
                "discovery");
    }
    assert_int_equal(oidc_discovery_parse(ATT_SLICE_LIT("{\"issuer\":\"" ISS
                                                        "\",\"jwks_uri\":\"https://x.example/k\"}"),
                                          ISS, &uri, NULL),
                     ATT_OK);
    assert_string_equal(uri, "https://x.example/k");
    free(uri);
}

/* ---- a file ---- */

static void put_file(const char *path, const char *text)
{
    assert_int_equal(att_io_write_file(path, att_slice_str(text), 0644, NULL), ATT_OK);
}

static bool has_key(struct oidc_provider *p, const char *kid)
{
    EVP_PKEY *key = NULL;
    enum att_rc rc = oidc_provider_key(p, kid, OIDC_ES256, &key, NULL);
    EVP_PKEY_free(key);
    return rc == ATT_OK;
}

static void wait_for_key(struct oidc_provider *p, const char *kid)
{
    for (int i = 0; i < 600 && !has_key(p, kid); i++) {
        usleep(100000);
    }
    assert_true(has_key(p, kid));
}

static void test_file(void **state)
{
    (void)state;
    char dir[] = "/tmp/oidc-test-XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/keys.json", dir);
    EVP_PKEY *a = EVP_EC_gen("P-256"), *b = EVP_EC_gen("P-256"), *key = NULL;
    struct oidc_provider *p = NULL;
    const struct oidc_provider_config config = {.issuer = ISS, .jwks_file = path};
    struct att_err why = {0};
    assert_int_equal(oidc_provider_new(&config, &p, &why), ATT_E_IO);
    put_file(path, "{\"keys\":[]}");
    refused(oidc_provider_new(&config, &p, &err), ATT_E_PARSE, "jwksForm");
    char *first = set_text(jwk_of(a, "a"), NULL), *second = set_text(jwk_of(b, "b"), NULL);
    put_file(path, first);
    assert_int_equal(oidc_provider_new(&config, &p, NULL), ATT_OK);
    assert_true(has_key(p, "a"));
    refused(oidc_provider_key(p, "b", OIDC_ES256, &key, &err), ATT_E_AUTH, "tokenKid");
    refused(oidc_provider_key(p, "a", OIDC_RS256, &key, &err), ATT_E_AUTH, "tokenAlg");
    /* Replaced; and by something bad, which changes nothing. */
    put_file(path, second);
    wait_for_key(p, "b");
    assert_false(has_key(p, "a"));
    put_file(path, "{");
    usleep(1200000); /* it is looked at once a second */
    assert_true(has_key(p, "b"));
    put_file(path, first);
    wait_for_key(p, "a");
    assert_int_equal(oidc_provider_fetches(p), 0);
    oidc_provider_free(p);
    free(first);
    free(second);
    EVP_PKEY_free(a);
    EVP_PKEY_free(b);
    unlink(path);
    rmdir(dir);
}

/* ---- a server ---- */

struct idp {
    pthread_mutex_t lock;
    char url[64];
    char *keys;
    bool other_issuer, redirect;
};

static void idp_answer(void *user, const struct tls_request *request, struct att_buf *out)
{
    struct idp *idp = user;
    pthread_mutex_lock(&idp->lock);
    char *body = NULL;
    if (idp->redirect) {
        att_buf_printf(out, "HTTP/1.1 302 Go\r\nLocation: %s/keys\r\nContent-Length: 0\r\n\r\n",
                       idp->url);
    } else if (strcmp(request->path, "/keys") == 0) {
        body = strdup(idp->keys);
    } else if (asprintf(&body, "{\"issuer\":\"%s%s\",\"jwks_uri\":\"%s/keys\"}", idp->url,
                        idp->other_issuer ? "2" : "", idp->url) < 0) {
        abort();
    }
    pthread_mutex_unlock(&idp->lock);
    if (body) {
        tls_answer(out, "200 OK", "Content-Type: application/json\r\n", body);
        free(body);
    }
}

static void tls_write_pem(const char *path, X509 *cert)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(PEM_write_X509(file, cert), 1);
    assert_int_equal(fclose(file), 0);
}

static void set_keys(struct idp *idp, char *text)
{
    pthread_mutex_lock(&idp->lock);
    free(idp->keys);
    idp->keys = text;
    pthread_mutex_unlock(&idp->lock);
}

static void wait_for_fetches(struct oidc_provider *p, uint64_t n)
{
    for (int i = 0; i < 600 && oidc_provider_fetches(p) < n; i++) {
        usleep(100000);
    }
    assert_true(oidc_provider_fetches(p) >= n);
}

/* One fetch, whatever comes of it, is over when the next was begun. */
static void whole_fetch(struct oidc_provider *p)
{
    EVP_PKEY *key = NULL;
    uint64_t n = oidc_provider_fetches(p);
    for (int i = 0; i < 600 && oidc_provider_fetches(p) < n + 2; i++) {
        (void)!oidc_provider_key(p, "nobody", OIDC_ES256, &key, NULL);
        usleep(50000);
    }
    wait_for_fetches(p, n + 2);
}

/* Keys that could not be refreshed for too long. */
static void stale_keys_are_no_good(const struct idp *idp, const char *ca)
{
    struct oidc_provider *p = NULL;
    EVP_PKEY *key = NULL;
    const struct oidc_provider_config config = {.issuer = idp->url,
                                                .ca_file = ca,
                                                .unknown_ms = 60000,
                                                .refresh_ms = 3600000,
                                                .stale_ms = 1};
    assert_int_equal(oidc_provider_new(&config, &p, NULL), ATT_OK);
    oidc_provider_start(p);
    bool stale = false;
    for (int i = 0; i < 600 && !stale; i++) {
        struct att_err err = {0};
        if (oidc_provider_key(p, "c", OIDC_ES256, &key, &err) == ATT_OK) {
            EVP_PKEY_free(key); /* within its first millisecond */
        }
        stale = strcmp(err.reason, "keysStale") == 0;
        usleep(20000);
    }
    assert_true(stale);
    oidc_provider_free(p);
}

/* A server under another root than the one that is named. */
static void another_root_says_nothing(const struct oidc_provider_config *config, const char *ca)
{
    struct oidc_provider *p = NULL;
    EVP_PKEY *key = NULL;
    struct tls_identity other = tls_issue(NULL, "other", NULL, 86400);
    tls_write_pem(ca, other.cert);
    assert_int_equal(oidc_provider_new(config, &p, NULL), ATT_OK);
    oidc_provider_start(p);
    wait_for_fetches(p, 2);
    refused(oidc_provider_key(p, "c", OIDC_ES256, &key, &err), ATT_E_RETRY, "keysPending");
    oidc_provider_free(p);
    tls_identity_done(&other);
}

static void test_server(void **state)
{
    (void)state;
    struct idp idp = {.lock = PTHREAD_MUTEX_INITIALIZER};
    struct tls_server server = {0};
    char dir[] = "/tmp/oidc-test-XXXXXX", ca[64];
    EVP_PKEY *a = EVP_EC_gen("P-256"), *b = EVP_EC_gen("P-256"), *key = NULL;
    uint8_t digest[ATT_SHA256_LEN];
    assert_non_null(mkdtemp(dir));
    snprintf(ca, sizeof ca, "%s/ca.pem", dir);
    struct tls_identity root = tls_issue(NULL, "root", NULL, 86400);
    struct tls_identity leaf = tls_issue(&root, "idp", "IP:127.0.0.1", 86400);
    tls_digest(root.cert, digest);
    assert_true(digest[0] || digest[1] || digest[2] || digest[3]);
    tls_write_pem(ca, root.cert);
    tls_start(&server, &leaf, NULL, idp_answer, &idp);
    snprintf(idp.url, sizeof idp.url, "https://127.0.0.1:%u", server.port);
    set_keys(&idp, set_text(jwk_of(a, "a"), NULL));
    struct oidc_provider *p = NULL;
    const struct oidc_provider_config config = {
        .issuer = idp.url, .ca_file = ca, .unknown_ms = 200, .refresh_ms = 3600000};
    assert_int_equal(oidc_provider_new(&config, &p, NULL), ATT_OK);
    /* Nobody waits: the first question starts it. */
    refused(oidc_provider_key(p, "a", OIDC_ES256, &key, &err), ATT_E_RETRY, "keysPending");
    wait_for_key(p, "a");
    /* A new one, by a token that names it. */
    set_keys(&idp, set_text(jwk_of(a, "a"), jwk_of(b, "b")));
    wait_for_key(p, "b");
    /* What is too big, another issuer's, a redirect, an error: what was there stays. */
    char *big = malloc(OIDC_JWKS_MAX + 100);
    memset(big, ' ', OIDC_JWKS_MAX + 99);
    big[OIDC_JWKS_MAX + 99] = 0;
    set_keys(&idp, big);
    whole_fetch(p);
    assert_true(has_key(p, "a") && has_key(p, "b"));
    pthread_mutex_lock(&idp.lock);
    idp.other_issuer = true;
    pthread_mutex_unlock(&idp.lock);
    whole_fetch(p); /* what was begun before has asked for its keys */
    set_keys(&idp, set_text(jwk_of(b, "c"), NULL));
    whole_fetch(p);
    assert_false(has_key(p, "c"));
    pthread_mutex_lock(&idp.lock);
    idp.other_issuer = false;
    idp.redirect = true;
    pthread_mutex_unlock(&idp.lock);
    whole_fetch(p);
    assert_false(has_key(p, "c"));
    pthread_mutex_lock(&idp.lock);
    idp.redirect = false;
    pthread_mutex_unlock(&idp.lock);
    wait_for_key(p, "c");
    assert_false(has_key(p, "a")); /* gone with the set */
    oidc_provider_free(p);

    stale_keys_are_no_good(&idp, ca);
    another_root_says_nothing(&config, ca);
    tls_stop(&server);
    tls_identity_done(&leaf);
    tls_identity_done(&root);
    set_keys(&idp, NULL);
    EVP_PKEY_free(a);
    EVP_PKEY_free(b);
    unlink(ca);
    rmdir(dir);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sets),
        cmocka_unit_test(test_discovery),
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_server),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
