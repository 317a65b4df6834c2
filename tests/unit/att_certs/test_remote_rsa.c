/* RSA keys that sign elsewhere: what is refused before the key is asked, then TLS 1.2 and 1.3 with
 * each scheme that a server may want, against OpenSSL's own server. */
#include "tests/unit/att_certs/fixture.h"

#include <openssl/err.h>
#include <openssl/rsa.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>

struct elsewhere {
    EVP_PKEY *key;
    int signed_;
    enum att_rsa_scheme scheme;
    size_t digest_len;
    bool broken, short_;
};

static const EVP_MD *md_of(size_t len)
{
    return len == 32 ? EVP_sha256() : len == 48 ? EVP_sha384() : EVP_sha512();
}

static enum att_rc sign_rsa(void *user, enum att_rsa_scheme scheme, struct att_slice digest,
                            struct att_buf *ret_sig, struct att_err *err)
{
    struct elsewhere *e = user;
    uint8_t sig[512];
    size_t len = sizeof sig;
    if (e->broken) {
        return att_fail(err, ATT_E_DENIED, "agent alpha is frozen");
    }
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(e->key, NULL);
    bool ok = EVP_PKEY_sign_init(ctx) == 1 &&
              EVP_PKEY_CTX_set_rsa_padding(ctx, scheme == ATT_RSA_PSS ? RSA_PKCS1_PSS_PADDING
                                                                      : RSA_PKCS1_PADDING) == 1 &&
              EVP_PKEY_CTX_set_signature_md(ctx, md_of(digest.len)) == 1 &&
              (scheme != ATT_RSA_PSS ||
               EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, RSA_PSS_SALTLEN_DIGEST) == 1) &&
              EVP_PKEY_sign(ctx, sig, &len, digest.ptr, digest.len) == 1;
    EVP_PKEY_CTX_free(ctx);
    assert_true(ok);
    e->scheme = scheme;
    e->digest_len = digest.len;
    e->signed_++;
    att_buf_put(ret_sig, sig, e->short_ ? len - 1 : len);
    return ATT_OK;
}

static enum att_rc sign_ec(void *user, struct att_slice digest, struct att_buf *ret_sig,
                           struct att_err *err)
{
    (void)user;
    (void)digest;
    (void)ret_sig;
    return att_fail(err, ATT_E_CRYPTO, "of P-256");
}

static EVP_PKEY *held(struct elsewhere *e, unsigned bits)
{
    EVP_PKEY *key = NULL;
    *e = (struct elsewhere){.key = EVP_RSA_gen(bits)};
    assert_non_null(e->key);
    const struct certs_signer signer = {.sign = sign_ec, .sign_rsa = sign_rsa, .user = e};
    assert_ok(certs_key_remote_new(e->key, &signer, &key, err));
    return key;
}

/* ---- refusals ---- */

static void refuses_key(EVP_PKEY *key, const struct certs_signer *signer, enum att_rc rc)
{
    EVP_PKEY *none = NULL;
    assert_int_equal(certs_key_remote_new(key, signer, &none, NULL), rc);
    assert_null(none);
    EVP_PKEY_free(key);
}

static void test_keys_that_are_refused(void **state)
{
    (void)state;
    struct elsewhere e = {0};
    const struct certs_signer both = {.sign = sign_ec, .sign_rsa = sign_rsa, .user = &e};
    const struct certs_signer elliptic = {.sign = sign_ec, .user = &e};
    const struct certs_signer rsa = {.sign_rsa = sign_rsa, .user = &e};
    refuses_key(EVP_RSA_gen(1024), &both, ATT_E_PARSE);
    refuses_key(EVP_RSA_gen(2048), &elliptic, ATT_E_PARSE); /* nobody signs for it */
    refuses_key(EVP_EC_gen("P-256"), &rsa, ATT_E_INVAL);
    refuses_key(EVP_EC_gen("P-384"), &both, ATT_E_PARSE);
}

/* One thing is other than it should be; the key is not asked. */
static bool signs(EVP_PKEY *key, const char *hash, int padding, int salt, const EVP_MD *mgf1)
{
    uint8_t sig[512];
    size_t len = sizeof sig;
    EVP_PKEY_CTX *pctx = NULL;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = EVP_DigestSignInit_ex(ctx, &pctx, hash, NULL, NULL, key, NULL) == 1 &&
              (!padding || EVP_PKEY_CTX_set_rsa_padding(pctx, padding) == 1) &&
              (!salt || EVP_PKEY_CTX_set_rsa_pss_saltlen(pctx, salt) == 1) &&
              (!mgf1 || EVP_PKEY_CTX_set_rsa_mgf1_md(pctx, mgf1) == 1) &&
              EVP_DigestSign(ctx, sig, &len, (const uint8_t *)"m", 1) == 1;
    EVP_MD_CTX_free(ctx);
    ERR_clear_error();
    return ok;
}

static void test_signatures_that_are_refused(void **state)
{
    (void)state;
    struct elsewhere e;
    certs_autokey *key = held(&e, 2048);
    assert_false(signs(key, "SHA1", 0, 0, NULL));
    assert_false(signs(key, "SHA224", 0, 0, NULL));
    assert_false(signs(key, "SHA3-256", 0, 0, NULL));
    assert_false(signs(key, "SHA256", RSA_NO_PADDING, 0, NULL));
    assert_false(signs(key, "SHA256", RSA_X931_PADDING, 0, NULL));
    assert_false(signs(key, "SHA256", RSA_PKCS1_PSS_PADDING, 20, NULL));
    assert_false(signs(key, "SHA256", RSA_PKCS1_PSS_PADDING, RSA_PSS_SALTLEN_MAX, NULL));
    assert_false(signs(key, "SHA256", RSA_PKCS1_PSS_PADDING, 32, EVP_sha384()));
    assert_int_equal(e.signed_, 0);
    assert_true(signs(key, "SHA256", RSA_PKCS1_PSS_PADDING, 32, EVP_sha256()));
    assert_true(signs(key, "SHA384", RSA_PKCS1_PSS_PADDING, RSA_PSS_SALTLEN_DIGEST, NULL));
    assert_int_equal(e.scheme, ATT_RSA_PSS);
    assert_int_equal(e.digest_len, 48);
    assert_true(signs(key, "SHA512", 0, 0, NULL));
    assert_int_equal(e.scheme, ATT_RSA_PKCS1);
    assert_int_equal(e.signed_, 3);
    e.short_ = true;
    assert_false(signs(key, "SHA256", 0, 0, NULL));
    e.short_ = false;
    e.broken = true;
    struct att_err why = {0};
    assert_false(signs(key, "SHA256", 0, 0, NULL));
    assert_int_equal(certs_key_remote_error(&why), ATT_E_DENIED);
    assert_string_equal(why.msg, "agent alpha is frozen");
    BIGNUM *priv = NULL;
    assert_int_equal(EVP_PKEY_get_bn_param(key, "d", &priv), 0);
    ERR_clear_error();
    EVP_PKEY_free(e.key);
}

/* ---- TLS ---- */

static X509 *self_signed(EVP_PKEY *key)
{
    X509 *cert = X509_new();
    assert_int_equal(X509_set_version(cert, 2), 1);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 7);
    X509_gmtime_adj(X509_getm_notBefore(cert), -60);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_set_pubkey(cert, key);
    assert_true(X509_sign(cert, key, EVP_sha256()) > 0);
    return cert;
}

static int any(int ok, X509_STORE_CTX *ctx)
{
    (void)ok;
    (void)ctx;
    return 1;
}

struct side {
    SSL_CTX *ctx;
    int fd;
    bool server, ok;
    int type, hash; /* of the client's signature, as the server saw it */
};

static void *handshake(void *arg)
{
    struct side *s = arg;
    SSL *ssl = SSL_new(s->ctx);
    char byte;
    SSL_set_fd(ssl, s->fd);
    s->ok = (s->server ? SSL_accept(ssl) : SSL_connect(ssl)) == 1 && SSL_write(ssl, "x", 1) == 1 &&
            SSL_read(ssl, &byte, 1) == 1;
    if (s->server && s->ok) {
        assert_int_equal(SSL_get_peer_signature_type_nid(ssl, &s->type), 1);
        assert_int_equal(SSL_get_peer_signature_nid(ssl, &s->hash), 1);
    }
    SSL_free(ssl);
    shutdown(s->fd, SHUT_RDWR);
    ERR_clear_error();
    return NULL;
}

static bool connect_as(EVP_PKEY *key, X509 *cert, int version, const char *wanted,
                       struct side *server)
{
    int fds[2];
    pthread_t thread;
    struct side client = {.ctx = SSL_CTX_new(TLS_client_method())};
    certs_autokey *sk = NULL;
    assert_ok(certs_key_generate(&sk, err));
    certs_autox509 *sc = self_signed(sk);
    *server = (struct side){.ctx = SSL_CTX_new(TLS_server_method()), .server = true};
    SSL_CTX_set_min_proto_version(server->ctx, version);
    SSL_CTX_set_max_proto_version(server->ctx, version);
    SSL_CTX_set_verify(server->ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, any);
    assert_int_equal(SSL_CTX_set1_client_sigalgs_list(server->ctx, wanted), 1);
    assert_int_equal(SSL_CTX_use_certificate(server->ctx, sc), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(server->ctx, sk), 1);
    assert_int_equal(SSL_CTX_use_certificate(client.ctx, cert), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(client.ctx, key), 1);
    assert_int_equal(SSL_CTX_check_private_key(client.ctx), 1);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    server->fd = fds[0];
    client.fd = fds[1];
    assert_int_equal(pthread_create(&thread, NULL, handshake, server), 0);
    handshake(&client);
    pthread_join(thread, NULL);
    close(fds[0]);
    close(fds[1]);
    SSL_CTX_free(server->ctx);
    SSL_CTX_free(client.ctx);
    return server->ok && client.ok;
}

static void test_tls(void **state)
{
    (void)state;
    static const struct {
        int version;
        const char *wanted;
        int type, hash;
        enum att_rsa_scheme scheme;
    } rows[] = {
        {TLS1_3_VERSION, "rsa_pss_rsae_sha256", EVP_PKEY_RSA_PSS, NID_sha256, ATT_RSA_PSS},
        {TLS1_3_VERSION, "rsa_pss_rsae_sha384", EVP_PKEY_RSA_PSS, NID_sha384, ATT_RSA_PSS},
        {TLS1_3_VERSION, "rsa_pss_rsae_sha512", EVP_PKEY_RSA_PSS, NID_sha512, ATT_RSA_PSS},
        {TLS1_2_VERSION, "rsa_pss_rsae_sha256", EVP_PKEY_RSA_PSS, NID_sha256, ATT_RSA_PSS},
        {TLS1_2_VERSION, "rsa_pss_rsae_sha512", EVP_PKEY_RSA_PSS, NID_sha512, ATT_RSA_PSS},
        {TLS1_2_VERSION, "RSA+SHA256", EVP_PKEY_RSA, NID_sha256, ATT_RSA_PKCS1},
        {TLS1_2_VERSION, "RSA+SHA384", EVP_PKEY_RSA, NID_sha384, ATT_RSA_PKCS1},
        {TLS1_2_VERSION, "RSA+SHA512", EVP_PKEY_RSA, NID_sha512, ATT_RSA_PKCS1},
    };
    static const unsigned bits[] = {2048, 3072};
    for (size_t b = 0; b < 2; b++) {
        struct elsewhere e;
        struct side server;
        certs_autokey *key = held(&e, bits[b]);
        certs_autox509 *cert = self_signed(e.key);
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
            e.signed_ = 0;
            if (!connect_as(key, cert, rows[i].version, rows[i].wanted, &server)) {
                fail_msg("%s, version %x: no connection", rows[i].wanted,
                         (unsigned)rows[i].version);
            }
            assert_int_equal(server.type, rows[i].type);
            assert_int_equal(server.hash, rows[i].hash);
            assert_int_equal(e.scheme, rows[i].scheme);
            assert_int_equal(e.signed_, 1);
        }
        e.signed_ = 0;
        assert_false(connect_as(key, cert, TLS1_3_VERSION, "ECDSA+SHA256", &server));
        assert_false(connect_as(key, cert, TLS1_2_VERSION, "RSA+SHA1", &server));
        assert_int_equal(e.signed_, 0);
        e.broken = true;
        assert_false(connect_as(key, cert, TLS1_3_VERSION, "rsa_pss_rsae_sha256", &server));
        EVP_PKEY_free(e.key);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys_that_are_refused),
        cmocka_unit_test(test_signatures_that_are_refused),
        cmocka_unit_test(test_tls),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
