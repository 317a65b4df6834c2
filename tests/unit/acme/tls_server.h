/* A small HTTPS server for the client's tests: one thread per connection, keep-alive, whatever
 * answer the test's handler writes. A real TLS peer by OpenSSL, on 127.0.0.1 and a free port. */
#ifndef TESTS_UNIT_ACME_TLS_SERVER_H
#define TESTS_UNIT_ACME_TLS_SERVER_H

#include "attestd/base/buf.h"
#include "attestd/base/hash.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct tls_request {
    char method[8], path[256];
    char head[8192]; /* all of it, for strstr */
    struct att_buf body;
};

/* Appends a whole HTTP answer to ret_answer; nothing closes the connection. */
typedef void tls_handler(void *user, const struct tls_request *request, struct att_buf *ret_answer);

struct tls_identity {
    EVP_PKEY *key;
    X509 *cert;
};

struct tls_server {
    SSL_CTX *ctx;
    int listener;
    unsigned port;
    pthread_t thread;
    tls_handler *handler;
    void *user;
    atomic_int connections, live;
    atomic_bool stop;
};

/* issuer NULL: a root. host: DNS name or NULL for the address 127.0.0.1. */
static struct tls_identity tls_issue(const struct tls_identity *issuer, const char *name,
                                     const char *san, long not_after_s)
{
    struct tls_identity id = {EVP_EC_gen("P-256"), X509_new()};
    static long serial = 1000;
    X509_set_version(id.cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(id.cert), serial++);
    X509_gmtime_adj(X509_getm_notBefore(id.cert), -7200);
    X509_gmtime_adj(X509_getm_notAfter(id.cert), not_after_s);
    X509_set_pubkey(id.cert, id.key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(id.cert), "CN", MBSTRING_ASC,
                               (const unsigned char *)name, -1, -1, 0);
    X509 *by = issuer ? issuer->cert : id.cert;
    X509_set_issuer_name(id.cert, X509_get_subject_name(by));
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, by, id.cert, NULL, NULL, 0);
    const struct {
        int nid;
        const char *value;
    } extensions[] = {
        {NID_basic_constraints, san ? "critical,CA:FALSE" : "critical,CA:TRUE"},
        {NID_subject_key_identifier, "hash"},
        {NID_subject_alt_name, san},
    };
    for (size_t i = 0; i < 3; i++) {
        X509_EXTENSION *ext =
            extensions[i].value
                ? X509V3_EXT_conf_nid(NULL, &ctx, extensions[i].nid, extensions[i].value)
                : NULL;
        if (ext) {
            X509_add_ext(id.cert, ext, -1);
            X509_EXTENSION_free(ext);
        }
    }
    X509_sign(id.cert, issuer ? issuer->key : id.key, EVP_sha256());
    return id;
}

static void tls_identity_done(struct tls_identity *id)
{
    EVP_PKEY_free(id->key);
    X509_free(id->cert);
}

static void tls_digest(const X509 *cert, uint8_t ret[ATT_SHA256_LEN])
{
    unsigned len = 0;
    X509_digest(cert, EVP_sha256(), ret, &len);
}

/* Reads one request; false at the end of the connection. */
static bool tls_read(SSL *ssl, struct tls_request *request)
{
    size_t len = 0;
    char *end = NULL;
    while (!end) {
        int got = SSL_read(ssl, request->head + len, (int)(sizeof request->head - 1 - len));
        if (got <= 0) {
            return false;
        }
        len += (size_t)got;
        request->head[len] = 0;
        end = strstr(request->head, "\r\n\r\n");
    }
    size_t head_len = (size_t)(end - request->head) + 4;
    const char *length = strcasestr(request->head, "Content-Length:");
    size_t want = length ? strtoul(length + 15, NULL, 10) : 0;
    att_buf_put(&request->body, request->head + head_len, len - head_len);
    request->head[head_len] = 0;
    while (request->body.len < want) {
        char more[4096];
        int got = SSL_read(ssl, more, sizeof more);
        if (got <= 0) {
            return false;
        }
        att_buf_put(&request->body, more, (size_t)got);
    }
    return sscanf(request->head, "%7s %255s", request->method, request->path) == 2;
}

struct tls_connection {
    struct tls_server *server;
    int fd;
};

static void *tls_serve(void *user)
{
    struct tls_connection connection = *(struct tls_connection *)user;
    struct tls_server *server = connection.server;
    free(user);
    SSL *ssl = SSL_new(server->ctx);
    SSL_set_fd(ssl, connection.fd);
    struct tls_request *request = calloc(1, sizeof *request);
    bool open = SSL_accept(ssl) == 1;
    while (open && tls_read(ssl, request)) {
        struct att_buf answer = {0};
        server->handler(server->user, request, &answer);
        open = answer.len && SSL_write(ssl, answer.ptr, (int)answer.len) > 0;
        att_buf_done(&answer);
        att_buf_done(&request->body);
        memset(request, 0, sizeof *request);
    }
    att_buf_done(&request->body);
    free(request);
    SSL_free(ssl);
    close(connection.fd);
    atomic_fetch_sub(&server->live, 1);
    return NULL;
}

static void *tls_accept(void *user)
{
    struct tls_server *server = user;
    for (;;) {
        int fd = accept(server->listener, NULL, NULL);
        if (fd < 0 || atomic_load(&server->stop)) {
            close(fd);
            return NULL;
        }
        struct tls_connection *connection = malloc(sizeof *connection);
        *connection = (struct tls_connection){server, fd};
        atomic_fetch_add(&server->connections, 1);
        atomic_fetch_add(&server->live, 1);
        pthread_t thread;
        pthread_create(&thread, NULL, tls_serve, connection);
        pthread_detach(thread);
    }
}

/* Sends leaf and extra (NULL = leaf alone). */
static void tls_start(struct tls_server *server, const struct tls_identity *leaf, X509 *extra,
                      tls_handler *handler, void *user)
{
    signal(SIGPIPE, SIG_IGN);
    server->ctx = SSL_CTX_new(TLS_server_method());
    server->handler = handler;
    server->user = user;
    SSL_CTX_use_certificate(server->ctx, leaf->cert);
    SSL_CTX_use_PrivateKey(server->ctx, leaf->key);
    if (extra) {
        X509_up_ref(extra);
        SSL_CTX_add_extra_chain_cert(server->ctx, extra);
    }
    server->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    if (bind(server->listener, (struct sockaddr *)&at, sizeof at) != 0 ||
        listen(server->listener, 8) != 0 ||
        getsockname(server->listener, (struct sockaddr *)&at, &len) != 0) {
        abort();
    }
    server->port = ntohs(at.sin_port);
    pthread_create(&server->thread, NULL, tls_accept, server);
}

/* After the client closed its connections. */
static void tls_stop(struct tls_server *server)
{
    atomic_store(&server->stop, true);
    shutdown(server->listener, SHUT_RDWR);
    pthread_join(server->thread, NULL);
    close(server->listener);
    while (atomic_load(&server->live) > 0) {
        usleep(1000);
    }
    SSL_CTX_free(server->ctx);
}

static void tls_answer(struct att_buf *ret, const char *status, const char *headers,
                       const char *body)
{
    att_buf_printf(ret, "HTTP/1.1 %s\r\n%sContent-Length: %zu\r\n\r\n%s", status, headers,
                   strlen(body), body);
}

#endif
