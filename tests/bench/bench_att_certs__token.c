/* Area "token": signatures through a PKCS#11 module, as a program makes them, and the floors
 * beside.
 *
 * bench_att_certs__token COMMAND MODULE N [THREADS]
 *   sign      N signatures, one after the other
 *   loop      THREADS connections sign for N seconds
 *   connect   N connections: C_Initialize to the private key's handle
 *   first     tries every millisecond until a signature is made; N: seconds after which it gives up
 *   tls       N TLS 1.3 handshakes in memory; the client has the key, the server one in software
 *   idle      N connections, each has signed once; waits until its input ends
 *   software  N signatures of libcrypto with a P-256 key (MODULE is not used)
 * Environment: BENCH_TOKEN, BENCH_PIN: a token's label and a login (a module used directly).
 * Prints "ready", waits for a line, and then a line of JSON: n, seconds, p50 and p99 in ms. */
#include "certs/build.h"
#include "certs/key.h"
#include "certs/oid.h"
#include "tests/bench/bench.h"

#include <dlfcn.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <p11-kit/pkcs11.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

struct client {
    CK_FUNCTION_LIST *f;
    CK_SESSION_HANDLE session;
    CK_OBJECT_HANDLE key;
    struct bench times;
    double until_us;
};

static CK_C_GetFunctionList get_list;

static _Noreturn void stop(const char *what, CK_RV rv)
{
    fprintf(stderr, "bench token: %s: 0x%lx\n", what, rv);
    exit(1);
}

static void must(const char *what, CK_RV rv)
{
    if (rv != CKR_OK) {
        stop(what, rv);
    }
}

/* ---- a connection ---------------------------------------------------------------------------- */

static CK_RV find_slot(CK_FUNCTION_LIST *f, CK_SLOT_ID *ret_slot)
{
    CK_SLOT_ID slots[16];
    CK_ULONG count = 16;
    const char *label = getenv("BENCH_TOKEN");
    CK_RV rv = f->C_GetSlotList(CK_TRUE, slots, &count);
    for (CK_ULONG i = 0; rv == CKR_OK && i < count; i++) {
        CK_TOKEN_INFO info;
        if (!label || (f->C_GetTokenInfo(slots[i], &info) == CKR_OK &&
                       strncmp((const char *)info.label, label, strlen(label)) == 0)) {
            *ret_slot = slots[i];
            return CKR_OK;
        }
    }
    return rv == CKR_OK ? CKR_TOKEN_NOT_PRESENT : rv;
}

static CK_RV find_key(struct client *c)
{
    CK_OBJECT_CLASS class = CKO_PRIVATE_KEY;
    CK_ATTRIBUTE templ[] = {{CKA_CLASS, &class, sizeof class}};
    CK_ULONG count = 0;
    CK_RV rv = c->f->C_FindObjectsInit(c->session, templ, 1);
    if (rv == CKR_OK) {
        rv = c->f->C_FindObjects(c->session, &c->key, 1, &count);
        CK_RV end = c->f->C_FindObjectsFinal(c->session);
        rv = rv == CKR_OK ? end : rv;
    }
    return rv == CKR_OK && count != 1 ? CKR_KEY_HANDLE_INVALID : rv;
}

static CK_RV try_open(struct client *c)
{
    CK_C_INITIALIZE_ARGS args = {.flags = CKF_OS_LOCKING_OK};
    CK_SLOT_ID slot;
    const char *pin = getenv("BENCH_PIN");
    CK_RV rv = get_list(&c->f);
    if (rv == CKR_OK) {
        rv = c->f->C_Initialize(&args);
        rv = rv == CKR_CRYPTOKI_ALREADY_INITIALIZED ? CKR_OK : rv;
    }
    if (rv == CKR_OK) {
        rv = find_slot(c->f, &slot);
    }
    if (rv == CKR_OK) {
        rv = c->f->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, &c->session);
    }
    if (rv == CKR_OK && pin) {
        rv = c->f->C_Login(c->session, CKU_USER, (CK_BYTE *)(uintptr_t)pin, strlen(pin));
        rv = rv == CKR_USER_ALREADY_LOGGED_IN ? CKR_OK : rv;
    }
    return rv == CKR_OK ? find_key(c) : rv;
}

static CK_RV sign(struct client *c, const CK_BYTE digest[32], CK_BYTE sig[64])
{
    CK_MECHANISM ecdsa = {CKM_ECDSA, NULL, 0};
    CK_ULONG len = 64;
    CK_RV rv = c->f->C_SignInit(c->session, &ecdsa, c->key);
    return rv == CKR_OK ? c->f->C_Sign(c->session, (CK_BYTE *)(uintptr_t)digest, 32, sig, &len)
                        : rv;
}

static CK_RV sign_any(struct client *c)
{
    const CK_BYTE digest[32] = {1, 2, 3};
    CK_BYTE sig[64];
    return sign(c, digest, sig);
}

/* ---- what is measured ------------------------------------------------------------------------ */

static struct bench all;

static void go(void)
{
    puts("ready");
    fflush(stdout);
    (void)getchar();
}

static int report(size_t n, double seconds)
{
    printf("{\"n\":%zu,\"seconds\":%.6f,\"p50\":%.4f,\"p99\":%.4f}\n", n, seconds,
           bench_percentile_ms(&all, 0.5), bench_percentile_ms(&all, 0.99));
    return 0;
}

#define TIMED(expression)                                                                          \
    do {                                                                                           \
        double timed_at = bench_now_us();                                                          \
        expression;                                                                                \
        bench_add(&all, bench_now_us() - timed_at);                                                \
    } while (0)

static int cmd_sign(size_t n)
{
    static struct client c;
    must("open", try_open(&c));
    must("the first signature", sign_any(&c));
    go();
    double began = bench_now_us();
    for (size_t i = 0; i < n; i++) {
        TIMED(must("sign", sign_any(&c)));
    }
    return report(n, (bench_now_us() - began) / 1e6);
}

static void *sign_until(void *arg)
{
    struct client *c = arg;
    while (bench_now_us() < c->until_us) {
        double at = bench_now_us();
        must("sign", sign_any(c));
        bench_add(&c->times, bench_now_us() - at);
    }
    return NULL;
}

static int cmd_loop(size_t seconds, size_t n)
{
    struct client *clients = calloc(n, sizeof *clients);
    pthread_t *threads = calloc(n, sizeof *threads);
    size_t made = 0;
    for (size_t i = 0; i < n; i++) {
        must("open", try_open(&clients[i]));
        must("the first signature", sign_any(&clients[i]));
    }
    go();
    double began = bench_now_us();
    for (size_t i = 0; i < n; i++) {
        clients[i].until_us = began + (double)seconds * 1e6;
        if (pthread_create(&threads[i], NULL, sign_until, &clients[i]) != 0) {
            stop("pthread_create", i);
        }
    }
    for (size_t i = 0; i < n; i++) {
        pthread_join(threads[i], NULL);
        made += clients[i].times.n;
        for (size_t k = 0; k < clients[i].times.n; k++) {
            bench_add(&all, clients[i].times.us[k]);
        }
    }
    double took = (bench_now_us() - began) / 1e6;
    free(threads);
    free(clients);
    return report(made, took);
}

static int cmd_connect(size_t n)
{
    go();
    double began = bench_now_us();
    for (size_t i = 0; i < n; i++) {
        struct client c = {0};
        TIMED(must("open", try_open(&c)));
        must("Finalize", c.f->C_Finalize(NULL));
    }
    return report(n, (bench_now_us() - began) / 1e6);
}

static int cmd_first(size_t seconds)
{
    go();
    double began = bench_now_us();
    while (bench_now_us() < began + (double)seconds * 1e6) {
        struct client c = {0};
        if (try_open(&c) == CKR_OK && sign_any(&c) == CKR_OK) {
            bench_add(&all, bench_now_us() - began);
            return report(1, (bench_now_us() - began) / 1e6);
        }
        usleep(1000);
    }
    stop("no signature", seconds);
}

static int cmd_idle(size_t n)
{
    struct client *clients = calloc(n, sizeof *clients);
    for (size_t i = 0; i < n; i++) {
        must("open", try_open(&clients[i]));
        must("sign", sign_any(&clients[i]));
        usleep(10000); /* below the rate at which a user is attested */
    }
    go();
    free(clients);
    return 0;
}

static int cmd_software(size_t n)
{
    EVP_PKEY *key = NULL;
    unsigned char digest[32] = {1, 2, 3}, sig[80];
    size_t len;
    if (certs_key_generate(&key, NULL) != ATT_OK) {
        stop("a key", 0);
    }
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(key, NULL);
    if (!ctx || EVP_PKEY_sign_init(ctx) != 1) {
        stop("EVP_PKEY_sign_init", 0);
    }
    go();
    double began = bench_now_us();
    for (size_t i = 0; i < n; i++) {
        len = sizeof sig;
        TIMED(if (EVP_PKEY_sign(ctx, sig, &len, digest, sizeof digest) != 1) stop("sign", i));
    }
    double took = (bench_now_us() - began) / 1e6;
    EVP_PKEY_CTX_free(ctx);
    EVP_PKEY_free(key);
    return report(n, took);
}

/* ---- TLS ------------------------------------------------------------------------------------- */

static enum att_rc sign_elsewhere(void *user, struct att_slice digest, struct att_buf *ret_der,
                                  struct att_err *err)
{
    CK_BYTE sig[64];
    if (digest.len != 32) {
        return att_fail(err, ATT_E_INVAL, "%zu bytes to sign", digest.len);
    }
    must("sign", sign(user, digest.ptr, sig));
    return certs_sig_der(ATT_SLICE(sig, 32), ATT_SLICE(sig + 32, 32), ret_der, err);
}

static EVP_PKEY *public_of(struct client *c)
{
    CK_OBJECT_CLASS class = CKO_PUBLIC_KEY;
    CK_ATTRIBUTE templ[] = {{CKA_CLASS, &class, sizeof class}};
    CK_BYTE point[80];
    CK_ATTRIBUTE attr = {CKA_EC_POINT, point, sizeof point};
    CK_OBJECT_HANDLE found = 0;
    CK_ULONG count = 0;
    must("FindObjectsInit", c->f->C_FindObjectsInit(c->session, templ, 1));
    must("FindObjects", c->f->C_FindObjects(c->session, &found, 1, &count));
    must("FindObjectsFinal", c->f->C_FindObjectsFinal(c->session));
    must("EC_POINT", c->f->C_GetAttributeValue(c->session, found, &attr, 1));
    EVP_PKEY *key = NULL;
    /* OCTET STRING of an uncompressed point */
    if (attr.ulValueLen != 67 ||
        certs_key_from_point(ATT_SLICE(point + 3, 32), ATT_SLICE(point + 35, 32), &key, NULL)) {
        stop("the public key", attr.ulValueLen);
    }
    return key;
}

static X509 *self_signed(EVP_PKEY *key)
{
    X509 *cert = X509_new();
    X509_NAME *name = cert ? X509_get_subject_name(cert) : NULL;
    if (!cert || X509_set_version(cert, 2) != 1 ||
        ASN1_INTEGER_set(X509_get_serialNumber(cert), 1) != 1 ||
        X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"bench", -1, -1,
                                   0) != 1 ||
        X509_set_issuer_name(cert, name) != 1 || !X509_gmtime_adj(X509_getm_notBefore(cert), -60) ||
        !X509_gmtime_adj(X509_getm_notAfter(cert), 3600) || X509_set_pubkey(cert, key) != 1 ||
        X509_sign(cert, key, EVP_sha256()) <= 0) {
        stop("a certificate", 0);
    }
    return cert;
}

static SSL_CTX *side(const SSL_METHOD *method, EVP_PKEY *key, X509 *cert, X509 *peer)
{
    SSL_CTX *ctx = SSL_CTX_new(method);
    if (!ctx || SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) != 1 ||
        SSL_CTX_use_certificate(ctx, cert) != 1 || SSL_CTX_use_PrivateKey(ctx, key) != 1 ||
        X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), peer) != 1) {
        stop("SSL_CTX", 0);
    }
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(ctx, 0);
    return ctx;
}

static void handshake(SSL_CTX *client, SSL_CTX *server)
{
    SSL *c = SSL_new(client), *s = SSL_new(server);
    BIO *a = NULL, *b = NULL;
    if (!c || !s || BIO_new_bio_pair(&a, 0, &b, 0) != 1) {
        stop("SSL", 0);
    }
    SSL_set_bio(c, a, a);
    SSL_set_bio(s, b, b);
    SSL_set_connect_state(c);
    SSL_set_accept_state(s);
    for (int i = 0; i < 10 && (!SSL_is_init_finished(c) || !SSL_is_init_finished(s)); i++) {
        (void)SSL_do_handshake(c);
        (void)SSL_do_handshake(s);
    }
    if (!SSL_is_init_finished(s)) {
        stop("the handshake does not end", 0);
    }
    SSL_free(c);
    SSL_free(s);
}

static int cmd_tls(size_t n)
{
    static struct client c;
    EVP_PKEY *server_key = NULL, *key = NULL;
    must("open", try_open(&c));
    EVP_PKEY *public_key = public_of(&c);
    const struct certs_signer signer = {.sign = sign_elsewhere, .user = &c};
    if (certs_key_generate(&server_key, NULL) != ATT_OK ||
        certs_key_remote_new(public_key, &signer, &key, NULL) != ATT_OK) {
        stop("keys", 0);
    }
    X509 *server_cert = self_signed(server_key), *cert = self_signed(key);
    SSL_CTX *server = side(TLS_server_method(), server_key, server_cert, cert);
    SSL_CTX *client = side(TLS_client_method(), key, cert, server_cert);
    handshake(client, server);
    go();
    double began = bench_now_us();
    for (size_t i = 0; i < n; i++) {
        TIMED(handshake(client, server));
    }
    double took = (bench_now_us() - began) / 1e6;
    SSL_CTX_free(server);
    SSL_CTX_free(client);
    X509_free(server_cert);
    X509_free(cert);
    EVP_PKEY_free(server_key);
    EVP_PKEY_free(key);
    EVP_PKEY_free(public_key);
    return report(n, took);
}

int main(int argc, char **argv)
{
    const char *command = argc > 3 ? argv[1] : "";
    size_t n = argc > 3 ? strtoul(argv[3], NULL, 10) : 0;
    size_t threads = argc > 4 ? strtoul(argv[4], NULL, 10) : 1;
    if (strcmp(command, "software") == 0) {
        return cmd_software(n);
    }
    void *module = argc > 3 ? dlopen(argv[2], RTLD_NOW) : NULL;
    get_list = module ? (CK_C_GetFunctionList)dlsym(module, "C_GetFunctionList") : NULL;
    if (!get_list) {
        fprintf(stderr, "bench token: %s\n", module ? "no C_GetFunctionList" : "COMMAND MODULE N");
        return 2;
    }
    return strcmp(command, "sign") == 0      ? cmd_sign(n)
           : strcmp(command, "loop") == 0    ? cmd_loop(n, threads)
           : strcmp(command, "connect") == 0 ? cmd_connect(n)
           : strcmp(command, "first") == 0   ? cmd_first(n)
           : strcmp(command, "tls") == 0     ? cmd_tls(n)
           : strcmp(command, "idle") == 0    ? cmd_idle(n)
                                             : 2;
}
