#include "tests/unit/att_certs/fixture.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>

struct side {
    SSL_CTX *ctx;
    int fd;
    bool server;
    const char *host; /* a client's expectation; an IP address where it looks like one */
    /* results */
    bool ok, resumable;
    char group[32], peer[128], read[8];
};

static void *handshake(void *arg)
{
    struct side *s = arg;
    SSL *ssl = SSL_new(s->ctx);
    SSL_set_fd(ssl, s->fd);
    if (s->host && strchr("0123456789", s->host[0])) {
        X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), s->host);
    } else if (s->host) {
        SSL_set1_host(ssl, s->host);
    }
    /* A TLS 1.3 client finishes first: only the first byte read proves that the server agreed. */
    s->ok = (s->server ? SSL_accept(ssl) : SSL_connect(ssl)) == 1 && SSL_write(ssl, "x", 1) == 1 &&
            SSL_read(ssl, s->read, 1) == 1;
    if (s->ok) {
        struct att_buf id = {0};
        snprintf(s->group, sizeof s->group, "%s", certs_tls_group(ssl));
        if (certs_tls_peer_spiffe(ssl, &id, NULL) == ATT_OK) {
            snprintf(s->peer, sizeof s->peer, "%.*s", (int)id.len, (const char *)id.ptr);
        }
        att_buf_done(&id);
        SSL_SESSION *session = SSL_get1_session(ssl);
        s->resumable = session && SSL_SESSION_is_resumable(session);
        SSL_SESSION_free(session);
        assert_int_equal(SSL_version(ssl), TLS1_3_VERSION);
    }
    SSL_free(ssl);
    shutdown(s->fd, SHUT_RDWR);
    ERR_clear_error();
    return NULL;
}

static bool connect_pair(struct side *server, struct side *client)
{
    int fds[2];
    pthread_t thread;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    server->fd = fds[0];
    server->server = true;
    client->fd = fds[1];
    assert_int_equal(pthread_create(&thread, NULL, handshake, server), 0);
    handshake(client);
    pthread_join(thread, NULL);
    close(fds[0]);
    close(fds[1]);
    return server->ok && client->ok;
}

static enum att_rc sign_with(void *user, struct att_slice digest, struct att_buf *ret_der,
                             struct att_err *err)
{
    uint8_t sig[80];
    size_t len = sizeof sig;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(user, NULL);
    bool ok =
        EVP_PKEY_sign_init(ctx) == 1 && EVP_PKEY_sign(ctx, sig, &len, digest.ptr, digest.len) == 1;
    EVP_PKEY_CTX_free(ctx);
    att_buf_put(ret_der, sig, len);
    return ok ? ATT_OK : att_fail(err, ATT_E_CRYPTO, "sign");
}

static enum att_rc never_sign(void *user, struct att_slice digest, struct att_buf *ret_der,
                              struct att_err *err)
{
    (void)user;
    (void)digest;
    (void)ret_der;
    return att_fail(err, ATT_E_GONE, "the TPM is gone");
}

static EVP_PKEY *held_elsewhere(EVP_PKEY *key, bool broken)
{
    EVP_PKEY *remote = NULL;
    struct certs_signer signer = {.sign = broken ? never_sign : sign_with, .user = key};
    assert_ok(certs_key_remote_new(key, &signer, &remote, err));
    return remote;
}

struct world {
    struct ca ca, other;
    EVP_PKEY *key;
    X509 *cert;
    STACK_OF(X509) * full, *short_;
    SSL_CTX *server;
    char dir[256], root[512], other_root[512];
};

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    temp_dir(w->dir);
    path_in(w->root, w->dir, "root.pem");
    path_in(w->other_root, w->dir, "other.pem");
    ca_init(&w->ca, NULL);
    ca_init(&w->other, NULL);
    certs_autostack *root = stack_of(1, w->ca.root), *other = stack_of(1, w->other.root);
    assert_ok(certs_bundle_save(root, w->root, err));
    assert_ok(certs_bundle_save(other, w->other_root, err));
    assert_ok(certs_key_generate(&w->key, err));
    w->cert = make_server(&w->ca, w->key);
    w->full = stack_of(3, w->cert, w->ca.cert, w->ca.root);
    w->short_ = stack_of(2, w->cert, w->ca.cert);
    assert_ok(certs_tls_server_new(w->full, w->key, &w->server, err));
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    SSL_CTX_free(w->server);
    sk_X509_pop_free(w->full, X509_free);
    sk_X509_pop_free(w->short_, X509_free);
    X509_free(w->cert);
    EVP_PKEY_free(w->key);
    ca_done(&w->ca);
    ca_done(&w->other);
    temp_remove(w->dir);
    free(w);
    return 0;
}

static bool try_client(SSL_CTX *server, const struct certs_tls_pin *pin, const char *host)
{
    struct side s = {.ctx = server}, c = {.host = host};
    assert_ok(certs_tls_client_new(pin, &c.ctx, err));
    bool ok = connect_pair(&s, &c);
    SSL_CTX_free(c.ctx);
    assert_false(s.resumable || c.resumable);
    if (ok) {
        assert_string_equal(c.group, s.group);
        assert_string_equal(c.group, certs_tls_has_pq() ? "X25519MLKEM768" : "x25519");
    }
    return ok;
}

/* What a client that offers these groups and ours come to: "" is no connection. */
static void group_with(struct world *w, const char *groups, char ret[32])
{
    struct side s = {.ctx = w->server}, c = {.ctx = SSL_CTX_new(TLS_client_method())};
    /* Not const: libssl's macro casts to char *, and only reads. */
    assert_int_equal(SSL_CTX_set1_groups_list(c.ctx, (char *)(uintptr_t)groups), 1);
    bool ok = connect_pair(&s, &c);
    SSL_CTX_free(c.ctx);
    assert_string_equal(c.group, s.group);
    snprintf(ret, 32, "%s", ok ? s.group : "");
}

/* OpenSSL 3.5 has ML-KEM: there the hybrid group must be what both ends of ours come to, and with
 * others wherever they can do it; who cannot is still served. */
static void test_post_quantum_group(void **state)
{
    struct world *w = *state;
    struct certs_tls_pin pin = {.ca_file = w->root};
    char group[32];
    group_with(w, "X25519", group);
    assert_string_equal(group, "x25519");
    group_with(w, "P-256", group);
    assert_string_equal(group, "secp256r1");
    group_with(w, "P-384", group);
    assert_string_equal(group, ""); /* not in our list */
    const bool expected = OpenSSL_version_num() >= 0x30500000UL;
    assert_int_equal(certs_tls_has_pq(), expected);
    assert_true(try_client(w->server, &pin, "localhost")); /* and looks at the group */
    if (!expected) {
        print_message("OpenSSL before 3.5: no X25519MLKEM768\n");
        skip();
    }
    assert_int_equal(strncmp(certs_tls_groups(), "X25519MLKEM768", 14), 0);
    group_with(w, "X25519MLKEM768", group);
    assert_string_equal(group, "X25519MLKEM768");
    group_with(w, "X25519MLKEM768:X25519", group);
    assert_string_equal(group, "X25519MLKEM768");
    group_with(w, "P-256:X25519:X25519MLKEM768", group); /* the server's preference */
    assert_string_equal(group, "X25519MLKEM768");
}

static void test_client_refuses(void **state)
{
    struct world *w = *state;
    struct certs_tls_pin by_file = {.ca_file = w->other_root}, by_digest = {0}, leaf = {0};
    assert_false(try_client(w->server, &by_file, "localhost"));
    assert_false(try_client(w->server, &by_digest, "localhost")); /* all zero */
    assert_ok(certs_cert_sha256(w->other.root, by_digest.root_sha256, err));
    assert_false(try_client(w->server, &by_digest, "localhost"));
    assert_ok(certs_cert_sha256(w->cert, leaf.root_sha256, err));
    assert_false(try_client(w->server, &leaf, "localhost"));
    assert_ok(certs_cert_sha256(w->ca.cert, leaf.root_sha256, err));
    assert_false(try_client(w->server, &leaf, "localhost")); /* an intermediate is no root */

    by_file.ca_file = w->root;
    assert_false(try_client(w->server, &by_file, "evil.example"));
    assert_false(try_client(w->server, &by_file, "127.0.0.2"));
    assert_ok(certs_cert_sha256(w->ca.root, by_digest.root_sha256, err));
    assert_false(try_client(w->server, &by_digest, "evil.example"));

    SSL_CTX *none = NULL, *rootless = NULL;
    by_file.ca_file = "/nonexistent.pem";
    assert_int_equal(certs_tls_client_new(&by_file, &none, NULL), ATT_E_NOTFOUND);
    assert_null(none);
    /* The pinned root does not come along: it cannot be recognised. */
    assert_ok(certs_tls_server_new(w->short_, w->key, &rootless, err));
    assert_false(try_client(rootless, &by_digest, "localhost"));
    SSL_CTX_free(rootless);
}

static void test_client_accepts(void **state)
{
    struct world *w = *state;
    struct certs_tls_pin by_file = {.ca_file = w->root}, by_digest = {0};
    assert_true(try_client(w->server, &by_file, "localhost"));
    assert_true(try_client(w->server, &by_file, "127.0.0.1"));
    assert_ok(certs_cert_sha256(w->ca.root, by_digest.root_sha256, err));
    assert_true(try_client(w->server, &by_digest, "localhost"));
    assert_true(try_client(w->server, &by_digest, "127.0.0.1"));
}

static void test_server_refuses(void **state)
{
    struct world *w = *state;
    SSL_CTX *none = NULL;
    struct att_err why = {0};
    assert_int_equal(certs_tls_server_new(w->full, w->ca.key, &none, &why), ATT_E_AUTH);
    assert_string_equal(why.reason, "chainKey");
    certs_autostack *empty = sk_X509_new_null();
    assert_int_equal(certs_tls_server_new(empty, w->key, &none, NULL), ATT_E_INVAL);
    assert_null(none);
    /* TLS 1.2 is not spoken. */
    struct side s = {.ctx = w->server}, c = {.ctx = SSL_CTX_new(TLS_client_method())};
    SSL_CTX_set_max_proto_version(c.ctx, TLS1_2_VERSION);
    assert_false(connect_pair(&s, &c));
    SSL_CTX_free(c.ctx);
}

/* The handshake with keys that sign elsewhere, on both sides. */
static void test_remote_keys(void **state)
{
    struct world *w = *state;
    certs_autokey *server_key = held_elsewhere(w->key, false);
    certs_autokey *broken = held_elsewhere(w->key, true);
    struct certs_tls_pin pin = {.ca_file = w->root};
    SSL_CTX *ctx = NULL;
    assert_ok(certs_tls_server_new(w->full, broken, &ctx, err));
    assert_false(try_client(ctx, &pin, "localhost"));
    SSL_CTX_free(ctx);
    assert_ok(certs_tls_server_new(w->full, server_key, &ctx, err));
    assert_true(try_client(ctx, &pin, "localhost"));
    SSL_CTX_free(ctx);
}

static bool try_mutual(const struct ca *server_ca, const struct ca *client_ca, X509 *trust,
                       bool client_cert, bool broken, struct side *s, struct side *c)
{
    certs_autokey *sk = NULL, *ck = NULL;
    assert_ok(certs_key_generate(&sk, err));
    assert_ok(certs_key_generate(&ck, err));
    certs_autokey *srem = held_elsewhere(sk, false), *crem = held_elsewhere(ck, broken);
    certs_autox509 *sc = make_leaf_as(server_ca, sk, "spiffe://bank.example/agent/market-data");
    certs_autox509 *cc = make_leaf_as(client_ca, ck, ID);
    certs_autostack *schain = stack_of(2, sc, server_ca->cert);
    certs_autostack *cchain = stack_of(2, cc, client_ca->cert);
    certs_autostack *roots = stack_of(1, trust);
    assert_ok(certs_tls_mutual_new(schain, srem, roots, true, &s->ctx, err));
    if (client_cert) {
        assert_ok(certs_tls_mutual_new(cchain, crem, roots, false, &c->ctx, err));
    } else {
        c->ctx = SSL_CTX_new(TLS_client_method()); /* verifies nothing, shows nothing */
    }
    bool ok = connect_pair(s, c);
    SSL_CTX_free(s->ctx);
    SSL_CTX_free(c->ctx);
    return ok;
}

static void test_mutual(void **state)
{
    (void)state;
    struct ca ca, other;
    ca_init(&ca, TD);
    ca_init(&other, TD);
    struct side s = {0}, c = {0};
    assert_false(try_mutual(&ca, &other, ca.root, true, false, &s, &c));
    assert_false(try_mutual(&other, &ca, ca.root, true, false, &s, &c));
    assert_false(try_mutual(&ca, &ca, ca.root, false, false, &s, &c));
    assert_false(try_mutual(&ca, &ca, ca.root, true, true, &s, &c));
    assert_true(try_mutual(&ca, &ca, ca.root, true, false, &s, &c));
    assert_string_equal(s.peer, ID);
    assert_string_equal(c.peer, "spiffe://bank.example/agent/market-data");
    ca_done(&ca);
    ca_done(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_client_refuses), cmocka_unit_test(test_client_accepts),
        cmocka_unit_test(test_server_refuses), cmocka_unit_test(test_remote_keys),
        cmocka_unit_test(test_mutual),         cmocka_unit_test(test_post_quantum_group),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, setup, teardown);
}
