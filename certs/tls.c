#include "certs/tls.h"

#include "certs/bundle.h"
#include "certs/chain.h"
#include "certs/mut.h"
#include "certs/oid.h"
#include "certs/san.h"

#include "attestd/base/clock.h"

#include <openssl/x509v3.h>
#include <openssl/err.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define SUITES "TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256"

/* Not const: libssl's macro casts to char *, and only reads. The slash (OpenSSL 3.5) makes a server
 * ask a client for its hybrid key share, rather than take the classic one that it sent. */
static char groups_pq[] = "X25519MLKEM768/X25519:P-256";
static char groups_classic[] = "X25519:P-256";

static bool has_pq;
static int trust_index = -1;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* What a context's verify callback goes by; freed with the context. */
struct trust {
    bool by_digest;
    uint8_t root_sha256[ATT_SHA256_LEN];
    STACK_OF(X509) * roots; /* mutual TLS */
};

static void trust_free(void *parent, void *ptr, CRYPTO_EX_DATA *ad, int idx, long argl, void *argp)
{
    struct trust *trust = ptr;
    (void)parent;
    (void)ad;
    (void)idx;
    (void)argl;
    (void)argp;
    if (trust) {
        sk_X509_pop_free(trust->roots, X509_free);
        free(trust);
    }
}

static void setup_once(void)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_method());
    has_pq = ctx && SSL_CTX_set1_groups_list(ctx, groups_pq) == 1;
    SSL_CTX_free(ctx);
    ERR_clear_error();
    trust_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, trust_free);
}

bool certs_tls_has_pq(void)
{
    pthread_once(&once, setup_once);
    return has_pq;
}

const char *certs_tls_groups(void)
{
    return certs_tls_has_pq() ? groups_pq : groups_classic;
}

const char *certs_tls_group(SSL *ssl)
{
    if (!SSL_is_init_finished(ssl)) {
        return "";
    }
    int group = (int)SSL_get_negotiated_group(ssl);
    const char *name = group ? SSL_group_to_name(ssl, group) : NULL;
    return name ? name : "";
}

static enum att_rc settings(SSL_CTX *ctx, struct att_err *err)
{
    SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    bool ok = SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) == 1 &&
              SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) == 1 &&
              SSL_CTX_set_ciphersuites(ctx, SUITES) == 1 &&
              SSL_CTX_set1_groups_list(ctx, certs_tls_has_pq() ? groups_pq : groups_classic) == 1 &&
              SSL_CTX_set_num_tickets(ctx, 0) == 1;
    return ok ? ATT_OK : att_fail_openssl(err, ATT_E_CRYPTO, "TLS settings");
}

static enum att_rc new_ctx(const SSL_METHOD *method, SSL_CTX **ret_ctx, struct att_err *err)
{
    pthread_once(&once, setup_once);
    SSL_CTX *ctx = SSL_CTX_new(method);
    if (!ctx) {
        return att_fail_openssl(err, ATT_E_CRYPTO, "TLS context");
    }
    enum att_rc rc = settings(ctx, err);
    if (rc != ATT_OK) {
        SSL_CTX_free(ctx);
        return rc;
    }
    *ret_ctx = ctx;
    return ATT_OK;
}

static void ctx_cleanup(SSL_CTX **ctx)
{
    SSL_CTX_free(*ctx);
}
#define autoctx ATT_CLEANUP(ctx_cleanup) SSL_CTX

static enum att_rc use_identity(SSL_CTX *ctx, const STACK_OF(X509) * chain, EVP_PKEY *key,
                                struct att_err *err)
{
    int n = sk_X509_num(chain);
    if (n <= 0 || n > CERTS_CHAIN_MAX_CERTS) {
        return att_fail(err, ATT_E_INVAL, "a TLS identity of %d certificates, expected 1 … %d", n,
                        CERTS_CHAIN_MAX_CERTS);
    }
    enum att_rc rc = certs_cert_matches_key(sk_X509_value(chain, 0), key, err);
    if (rc != ATT_OK) {
        return rc;
    }
    bool ok = SSL_CTX_use_certificate(ctx, sk_X509_value(chain, 0)) == 1 &&
              SSL_CTX_use_PrivateKey(ctx, key) == 1 && SSL_CTX_check_private_key(ctx) == 1;
    for (int i = 1; ok && i < n; i++) {
        ok = SSL_CTX_add1_chain_cert(ctx, sk_X509_value(chain, i)) == 1;
    }
    return ok ? ATT_OK : att_fail_openssl(err, ATT_E_CRYPTO, "TLS identity");
}

enum att_rc certs_tls_server_new(const STACK_OF(X509) * chain, EVP_PKEY *key, SSL_CTX **ret_ctx,
                                 struct att_err *err)
{
    autoctx *ctx = NULL;
    enum att_rc rc = new_ctx(TLS_server_method(), &ctx, err);
    if (rc == ATT_OK) {
        rc = use_identity(ctx, chain, key, err);
    }
    if (rc == ATT_OK) {
        *ret_ctx = ctx;
        ctx = NULL;
    }
    return rc;
}

static const struct trust *trust_of(X509_STORE_CTX *store_ctx)
{
    SSL *ssl = X509_STORE_CTX_get_ex_data(store_ctx, SSL_get_ex_data_X509_STORE_CTX_idx());
    return ssl ? SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), trust_index) : NULL;
}

/* The pinned root among what the server sent; it must be a self-issued CA, never a leaf. */
static int verify_by_digest(X509_STORE_CTX *store_ctx, void *user)
{
    (void)user;
    const struct trust *trust = trust_of(store_ctx);
    STACK_OF(X509) *sent = X509_STORE_CTX_get0_untrusted(store_ctx);
    for (int i = 0; trust && i < sk_X509_num(sent); i++) {
        X509 *cert = sk_X509_value(sent, i);
        uint8_t digest[ATT_SHA256_LEN];
        if (certs_cert_sha256(cert, digest, NULL) != ATT_OK ||
            !att_slice_eq(ATT_SLICE_ARRAY(digest), ATT_SLICE_ARRAY(trust->root_sha256)) ||
            X509_check_ca(cert) != 1 || X509_self_signed(cert, 0) != 1) {
            continue;
        }
        STACK_OF(X509) *anchor = sk_X509_new_null();
        int ok = 0;
        if (anchor && sk_X509_push(anchor, cert)) {
            X509_STORE_CTX_set0_trusted_stack(store_ctx, anchor);
            ok = X509_verify_cert(store_ctx);
        }
        sk_X509_free(anchor);
        return ok == 1;
    }
    X509_STORE_CTX_set_error(store_ctx, X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN);
    return 0;
}

static int verify_mutual(X509_STORE_CTX *store_ctx, void *user)
{
    (void)user;
    const struct trust *trust = trust_of(store_ctx);
    STACK_OF(X509) *sent = X509_STORE_CTX_get0_untrusted(store_ctx);
    X509 *leaf = X509_STORE_CTX_get0_cert(store_ctx);
    STACK_OF(X509) *chain = sk_X509_new_null();
    bool ok = trust && chain && leaf && sk_X509_num(sent) <= CERTS_CHAIN_MAX_CERTS &&
              sk_X509_push(chain, leaf);
    for (int i = 0; ok && i < sk_X509_num(sent); i++) {
        ok = sk_X509_value(sent, i) == leaf || sk_X509_push(chain, sk_X509_value(sent, i));
    }
    ok = ok && certs_chain_verify(chain, trust->roots, CERTS_PURPOSE_WORKLOAD, att_now_utc_s(),
                                  NULL) == ATT_OK;
    sk_X509_free(chain);
    X509_STORE_CTX_set_error(store_ctx, ok ? X509_V_OK : X509_V_ERR_APPLICATION_VERIFICATION);
    return ok;
}

static enum att_rc attach(SSL_CTX *ctx, const struct trust *trust,
                          int (*verify)(X509_STORE_CTX *, void *), struct att_err *err)
{
    struct trust *copy = malloc(sizeof *copy);
    if (copy) {
        *copy = *trust;
    }
    if (!copy || SSL_CTX_set_ex_data(ctx, trust_index, copy) != 1) {
        sk_X509_pop_free(trust->roots, X509_free);
        free(copy);
        return att_fail_openssl(err, ATT_E_NOMEM, "TLS trust");
    }
    SSL_CTX_set_cert_verify_callback(ctx, verify, NULL);
    return ATT_OK;
}

static enum att_rc trust_file(X509_STORE *store, const char *path, struct att_err *err)
{
    certs_autostack *roots = NULL;
    enum att_rc rc = certs_bundle_load(path, &roots, err);
    for (int i = 0; rc == ATT_OK && i < sk_X509_num(roots); i++) {
        if (X509_STORE_add_cert(store, sk_X509_value(roots, i)) != 1) {
            rc = att_fail_openssl(err, ATT_E_CRYPTO, "%s", path);
        }
    }
    return rc;
}

enum att_rc certs_tls_client_setup(SSL_CTX *ctx, const struct certs_tls_pin *pin,
                                   struct att_err *err)
{
    pthread_once(&once, setup_once);
    /* A store of our own: whatever roots the maker of ctx put in are forgotten. */
    X509_STORE *store = X509_STORE_new();
    enum att_rc rc = store ? settings(ctx, err) : att_fail(err, ATT_E_NOMEM, "TLS trust");
    if (rc == ATT_OK && pin->ca_file) {
        rc = trust_file(store, pin->ca_file, err);
    }
    if (rc != ATT_OK) {
        X509_STORE_free(store);
        return rc;
    }
    (void)X509_STORE_set_flags(store, X509_V_FLAG_X509_STRICT);
    SSL_CTX_set_cert_store(ctx, store);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    if (pin->ca_file) {
        SSL_CTX_set_cert_verify_callback(ctx, NULL, NULL);
        return ATT_OK;
    }
    struct trust trust = {.by_digest = true};
    memcpy(trust.root_sha256, pin->root_sha256, sizeof trust.root_sha256);
    return attach(ctx, &trust, verify_by_digest, err);
}

enum att_rc certs_tls_client_new(const struct certs_tls_pin *pin, SSL_CTX **ret_ctx,
                                 struct att_err *err)
{
    autoctx *ctx = NULL;
    enum att_rc rc = new_ctx(TLS_client_method(), &ctx, err);
    if (rc == ATT_OK) {
        rc = certs_tls_client_setup(ctx, pin, err);
    }
    if (rc == ATT_OK) {
        *ret_ctx = ctx;
        ctx = NULL;
    }
    return rc;
}

enum att_rc certs_tls_mutual_new(const STACK_OF(X509) * chain, EVP_PKEY *key,
                                 const STACK_OF(X509) * roots, bool server, SSL_CTX **ret_ctx,
                                 struct att_err *err)
{
    autoctx *ctx = NULL;
    if (sk_X509_num(roots) <= 0) {
        return att_fail(err, ATT_E_INVAL, "mutual TLS without a root to trust");
    }
    enum att_rc rc = new_ctx(server ? TLS_server_method() : TLS_client_method(), &ctx, err);
    if (rc == ATT_OK) {
        rc = use_identity(ctx, chain, key, err);
    }
    if (rc == ATT_OK) {
        struct trust trust = {.roots = X509_chain_up_ref(certs_mut_stack(roots))};
        rc = trust.roots ? attach(ctx, &trust, verify_mutual, err)
                         : att_fail_openssl(err, ATT_E_NOMEM, "TLS trust");
    }
    if (rc == ATT_OK) {
        SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
        *ret_ctx = ctx;
        ctx = NULL;
    }
    return rc;
}

enum att_rc certs_tls_peer_spiffe(const SSL *ssl, struct att_buf *ret_text, struct att_err *err)
{
    const X509 *peer = SSL_get0_peer_certificate(ssl);
    if (!peer) {
        return att_fail(err, ATT_E_AUTH, "the peer showed no certificate");
    }
    return certs_san_spiffe(peer, ret_text, err);
}
