/* The server with real connections: what one enrolled host can make of them. */
#include "provision/issuer/conns.h"
#include "provision/issuer/server.h"
#include "tests/unit/issuer/stage.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>

#define PLACES 40

struct peer {
    int fd;
    SSL *ssl;
};

static void wait_at_most(int fd, int seconds)
{
    struct timeval limit = {.tv_sec = seconds};
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), 0);
}

/* False: the handshake did not end in time. */
static bool peer_connect(struct peer *p, SSL_CTX *ctx, const char *from, uint16_t port, int seconds)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)}, own = to;
    assert_int_equal(inet_pton(AF_INET, "127.0.0.1", &to.sin_addr), 1);
    assert_int_equal(inet_pton(AF_INET, from, &own.sin_addr), 1);
    own.sin_port = 0;
    p->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(p->fd >= 0);
    assert_int_equal(bind(p->fd, (struct sockaddr *)&own, sizeof own), 0);
    assert_int_equal(connect(p->fd, (struct sockaddr *)&to, sizeof to), 0);
    wait_at_most(p->fd, seconds);
    p->ssl = SSL_new(ctx);
    assert_non_null(p->ssl);
    return SSL_set_fd(p->ssl, p->fd) == 1 && SSL_connect(p->ssl) == 1;
}

static void peer_done(struct peer *p)
{
    SSL_free(p->ssl);
    if (p->fd >= 0) {
        close(p->fd);
    }
}

static bool peer_write(struct peer *p, const struct att_buf *bytes)
{
    return SSL_write(p->ssl, bytes->ptr, (int)bytes->len) == (int)bytes->len;
}

/* The status of the answer; 0: none came in time. */
static int peer_status(struct peer *p, int seconds)
{
    char text[64] = "";
    int status = 0;
    wait_at_most(p->fd, seconds);
    int n = SSL_read(p->ssl, text, sizeof text - 1);
    return n > 12 && sscanf(text, "HTTP/1.%*d %d", &status) == 1 ? status : 0;
}

/* A hostView that waits for the next version. */
static bool ask_for_view(struct peer *p, struct client *c, const char *etag)
{
    char nonce[ACME_NONCE_TEXT];
    att_autobuf jws = {0}, text = {0};
    client_nonce(c, nonce);
    client_sign(c, RIG_URL "/hostView", nonce, false, ATT_SLICE(NULL, 0), &jws);
    att_buf_printf(&text,
                   "POST /acme/hostView HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                   "Content-Type: application/jose+json\r\nIf-None-Match: %s\r\n"
                   "Prefer: wait=60\r\nContent-Length: %zu\r\n\r\n",
                   etag, jws.len);
    att_buf_put_slice(&text, att_buf_slice(&jws));
    return peer_write(p, &text);
}

static int directory_from(SSL_CTX *ctx, const char *from, uint16_t port, int seconds)
{
    struct peer p;
    att_autobuf text = {0};
    int status = 0;
    att_buf_put_str(&text, "GET /acme/directory HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    if (peer_connect(&p, ctx, from, port, seconds) && peer_write(&p, &text)) {
        status = peer_status(&p, seconds);
    }
    peer_done(&p);
    return status;
}

static int drop_ended(struct peer *peers, int n)
{
    int left = 0;
    for (int i = 0; i < n; i++) {
        struct pollfd fd = {.fd = peers[i].fd, .events = POLLRDHUP};
        if (poll(&fd, 1, 0) > 0) {
            peer_done(&peers[i]);
        } else {
            peers[left++] = peers[i];
        }
    }
    return left;
}

/* Those that have got no answer, and were not ended. */
static int count_waiting(const struct peer *peers, int n)
{
    int waiting = 0;
    for (int i = 0; i < n; i++) {
        char byte;
        waiting += recv(peers[i].fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
    }
    return waiting;
}

static uint16_t free_port(void)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof addr;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&addr, len), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&addr, &len), 0);
    close(fd);
    return ntohs(addr.sin_port);
}

struct serving {
    struct stage s;
    struct issuer_server *server;
    SSL_CTX *ctx;
    uint16_t port;
};

static void serve(struct serving *v)
{
    const struct rlimit files = {ISSUER_FILES_SPARE + PLACES, ISSUER_FILES_SPARE + PLACES};
    char listen[64];
    stage_enrolled(&v->s, "none");
    snprintf(listen, sizeof listen, "threads: 2\nlisten: \"127.0.0.1:%u\"", free_port());
    reconfigure(&v->s.rig, "listen: \"127.0.0.1:8443\"", listen);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &files), 0);
    rig_ok(issuer_server_new(v->s.rig.issuer, &v->server, &err));
    v->port = issuer_server_port(v->server);
    v->ctx = SSL_CTX_new(TLS_client_method());
    assert_non_null(v->ctx);
}

static void serve_done(struct serving *v)
{
    issuer_server_free(v->server);
    SSL_CTX_free(v->ctx);
    stage_free(&v->s);
}

/* Requests that wait are not ended for their places, so one host has few of them: it cannot take
 * the places of all others. */
static void waiting_requests_of_one_host(void **state)
{
    (void)state;
    struct serving v = {0};
    struct peer peers[PLACES];
    char etag[32];
    int n = 0, waiting = 0, tries = 0;
    serve(&v);
    assert_int_equal(client_get(&v.s.client, RIG_URL "/hostView"), 200);
    rig_copy(etag, sizeof etag, v.s.client.last.etag);
    /* Whom the server ended before it had asked tries again, until every place is taken. */
    while (tries++ < 3 * PLACES && atomic_load(&v.s.rig.issuer->counters.connections) < PLACES) {
        n = drop_ended(peers, n);
        assert_true(n < PLACES);
        if (peer_connect(&peers[n], v.ctx, "127.0.0.1", v.port, 2) &&
            ask_for_view(&peers[n], &v.s.client, etag)) {
            n++;
        } else {
            peer_done(&peers[n]);
        }
    }
    assert_int_equal(directory_from(v.ctx, "127.0.0.2", v.port, 20), 200);
    /* The latest still wait; those before them were answered. */
    for (int i = 0; i < 1000; i++) {
        waiting = count_waiting(peers, n);
        if (waiting <= 2 * ISSUER_WAITING_MAX) {
            break;
        }
        usleep(10000);
    }
    assert_true(waiting >= 1);
    assert_true(waiting <= 2 * ISSUER_WAITING_MAX); /* in each of the two threads */
    for (int i = 0; i < n; i++) {
        peer_done(&peers[i]);
    }
    serve_done(&v);
}

/* One that goes on waiting hears of the change. */
static void change_wakes(void **state)
{
    (void)state;
    struct serving v = {0};
    struct peer p;
    char etag[32];
    serve(&v);
    v.s.rig.issuer->server = v.server;
    assert_int_equal(client_get(&v.s.client, RIG_URL "/hostView"), 200);
    rig_copy(etag, sizeof etag, v.s.client.last.etag);
    assert_true(peer_connect(&p, v.ctx, "127.0.0.1", v.port, 10));
    assert_true(ask_for_view(&p, &v.s.client, etag));
    assert_int_equal(peer_status(&p, 1), 0);
    rig_admin_done(&v.s.rig, "host.approve", json_pack("{s:s}", "id", v.s.tpm.ek_id));
    assert_int_equal(peer_status(&p, 20), 200);
    peer_done(&p);
    v.s.rig.issuer->server = NULL;
    serve_done(&v);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN); /* as the program does */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(change_wakes),
        cmocka_unit_test(waiting_requests_of_one_host),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
