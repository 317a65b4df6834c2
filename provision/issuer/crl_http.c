/* The revocation lists in the clear: GET or HEAD of /workload.crl and /attestation.crl, one request
 * a connection, and nothing else. One thread. evhttp is not used here: it has no limit of
 * connections, and strangers must not take the descriptors that the ACME server needs. */
#include "provision/issuer/revoke.h"

#include <arpa/inet.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define IDLE_S   5
#define LIFE_S   15   /* of a connection, however it is busy: a byte now and then keeps no place */
#define HEAD_MAX 4096 /* bytes of a request */
#define BACKLOG  128
#define MOST     128 /* connections; beyond, a newcomer is closed */
#define PER_PEER 16  /* of them one address has (IPv6: one /64) */

struct issuer_crl_server {
    struct issuer *issuer;
    pthread_t thread;
    bool started;
    struct event_base *base;
    struct evconnlistener *listener;
    struct event *wake;
    int wake_fd;
    uint16_t port;
    struct conn *conns;
    unsigned n;
};

struct conn {
    struct issuer_crl_server *server;
    struct bufferevent *bev;
    struct event *end;
    uint8_t peer[16]; /* as IPv6; of a real one the first 8 bytes */
    bool answered;
    struct conn *next;
};

static void close_conn(struct conn *conn)
{
    struct conn **at = &conn->server->conns;
    while (*at != conn) {
        at = &(*at)->next;
    }
    *at = conn->next;
    conn->server->n--;
    event_free(conn->end);
    bufferevent_free(conn->bev);
    free(conn);
}

static void on_end(evutil_socket_t fd, short what, void *user)
{
    (void)fd;
    (void)what;
    close_conn(user);
}

static void on_written(struct bufferevent *bev, void *user)
{
    struct conn *conn = user;
    if (conn->answered && evbuffer_get_length(bufferevent_get_output(bev)) == 0) {
        close_conn(conn);
    }
}

static void on_event(struct bufferevent *bev, short what, void *user)
{
    (void)bev;
    if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR | BEV_EVENT_TIMEOUT)) {
        close_conn(user);
    }
}

static void answer(struct conn *conn, const char *status, const char *headers,
                   const struct att_buf *body, bool head)
{
    struct evbuffer *out = bufferevent_get_output(conn->bev);
    conn->answered = true;
    bufferevent_disable(conn->bev, EV_READ);
    evbuffer_add_printf(out, "HTTP/1.1 %s\r\nConnection: close\r\n%sContent-Length: %zu\r\n\r\n",
                        status, headers, body ? body->len : 0);
    if (body && !head) {
        evbuffer_add(out, body->ptr, body->len);
    }
}

static void send_list(struct conn *conn, const struct issuer_crl_ref *of, bool head)
{
    char headers[160];
    uint64_t number = 0;
    struct att_err err = {0};
    att_autobuf der = ATT_BUF_INIT(CERTS_CRL_MAX);
    enum att_rc rc = issuer_crl_get(conn->server->issuer, of, &der, &number, &err);
    if (rc == ATT_E_NOTFOUND) {
        answer(conn, "404 Not Found", "", NULL, head);
        return;
    }
    if (rc) {
        att_log_err(ATT_ERROR, "crl.failed", &err);
        answer(conn, "503 Service Unavailable", "Retry-After: 5\r\n", NULL, head);
        return;
    }
    /* RFC 5280 §4.2.1.13 */
    snprintf(
        headers, sizeof headers,
        "Content-Type: application/pkix-crl\r\nCache-Control: max-age=%d\r\nETag: \"%llu\"\r\n",
        ISSUER_CRL_FRESH_S, (unsigned long long)number);
    answer(conn, "200 OK", headers, &der, head);
}

/* line: "GET /workload.crl HTTP/1.1" */
static void on_line(struct conn *conn, char *line)
{
    struct issuer_crl_ref of;
    char *path = strchr(line, ' ');
    char *version = path ? strchr(path + 1, ' ') : NULL;
    if (!version || strncmp(version, " HTTP/1.", 8) != 0) {
        answer(conn, "400 Bad Request", "", NULL, false);
        return;
    }
    *path++ = *version = 0;
    bool head = strcmp(line, "HEAD") == 0;
    if (!head && strcmp(line, "GET") != 0) {
        answer(conn, "405 Method Not Allowed", "Allow: GET, HEAD\r\n", NULL, false);
    } else if (path[0] != '/' || !issuer_crl_parse(path + 1, &of)) {
        answer(conn, "404 Not Found", "", NULL, head);
    } else {
        send_list(conn, &of, head);
    }
}

static void on_read(struct bufferevent *bev, void *user)
{
    struct conn *conn = user;
    struct evbuffer *in = bufferevent_get_input(bev);
    struct evbuffer_ptr end = evbuffer_search(in, "\r\n\r\n", 4, NULL);
    if (conn->answered || end.pos < 0) {
        if (!conn->answered && evbuffer_get_length(in) >= HEAD_MAX) {
            answer(conn, "431 Request Header Fields Too Large", "", NULL, false);
        }
        return;
    }
    char *line = evbuffer_readln(in, NULL, EVBUFFER_EOL_CRLF_STRICT);
    if (line) {
        on_line(conn, line);
    } else {
        answer(conn, "400 Bad Request", "", NULL, false);
    }
    free(line);
}

static void peer_of(const struct sockaddr *addr, uint8_t ret[16])
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    memset(ret, 0, 16);
    if (addr->sa_family == AF_INET) {
        memcpy(ret, mapped, sizeof mapped);
        memcpy(ret + 12, &((const struct sockaddr_in *)addr)->sin_addr, 4);
    } else if (addr->sa_family == AF_INET6) {
        const uint8_t *v6 = ((const struct sockaddr_in6 *)addr)->sin6_addr.s6_addr;
        memcpy(ret, v6, memcmp(v6, mapped, sizeof mapped) == 0 ? 16 : 8);
    }
}

static bool has_room(const struct issuer_crl_server *server, const uint8_t peer[16])
{
    unsigned n = 0;
    for (const struct conn *conn = server->conns; conn; conn = conn->next) {
        n += memcmp(conn->peer, peer, sizeof conn->peer) == 0;
    }
    return server->n < MOST && n < PER_PEER;
}

static struct conn *new_conn(struct issuer_crl_server *server, evutil_socket_t fd)
{
    const struct timeval life = {LIFE_S, 0};
    struct conn *conn = calloc(1, sizeof *conn);
    if (!conn) {
        return NULL;
    }
    conn->server = server;
    conn->end = evtimer_new(server->base, on_end, conn);
    if (conn->end && evtimer_add(conn->end, &life) == 0) {
        conn->bev = bufferevent_socket_new(server->base, fd, BEV_OPT_CLOSE_ON_FREE);
    }
    if (!conn->bev) {
        if (conn->end) {
            event_free(conn->end);
        }
        free(conn);
        return NULL;
    }
    return conn;
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *addr,
                      int len, void *user)
{
    struct issuer_crl_server *server = user;
    const struct timeval idle = {IDLE_S, 0};
    uint8_t peer[16];
    (void)listener;
    (void)len;
    peer_of(addr, peer);
    struct conn *conn = has_room(server, peer) ? new_conn(server, fd) : NULL;
    if (!conn) {
        close(fd);
        return;
    }
    memcpy(conn->peer, peer, sizeof peer);
    conn->next = server->conns;
    server->conns = conn;
    server->n++;
    bufferevent_setcb(conn->bev, on_read, on_written, on_event, conn);
    bufferevent_setwatermark(conn->bev, EV_READ, 0, HEAD_MAX);
    bufferevent_set_timeouts(conn->bev, &idle, &idle);
    bufferevent_enable(conn->bev, EV_READ | EV_WRITE);
}

static void on_wake(evutil_socket_t fd, short what, void *user)
{
    struct issuer_crl_server *server = user;
    (void)fd;
    (void)what;
    event_base_loopexit(server->base, NULL);
}

static void *run(void *user)
{
    struct issuer_crl_server *server = user;
    event_base_dispatch(server->base);
    return NULL;
}

static socklen_t address(const struct conf_issuer *conf, struct sockaddr_storage *ret)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)ret;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret;
    memset(ret, 0, sizeof *ret);
    if (inet_pton(AF_INET, conf->crl_host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(conf->crl_port);
        return sizeof *v4;
    }
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(conf->crl_port);
    return inet_pton(AF_INET6, conf->crl_host, &v6->sin6_addr) == 1 ? sizeof *v6 : 0;
}

static enum att_rc setup(struct issuer_crl_server *server, const struct conf_issuer *conf,
                         struct att_err *err)
{
    struct sockaddr_storage addr;
    socklen_t len = address(conf, &addr);
    server->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    server->base = event_base_new();
    server->wake = server->base && server->wake_fd >= 0
                       ? event_new(server->base, server->wake_fd, EV_READ, on_wake, server)
                       : NULL;
    if (!server->wake || event_add(server->wake, NULL)) {
        return att_fail(err, ATT_E_NOMEM, "crl.listen: no memory");
    }
    server->listener =
        evconnlistener_new_bind(server->base, on_accept, server,
                                LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE,
                                BACKLOG, (struct sockaddr *)&addr, (int)len);
    socklen_t bound = sizeof addr;
    if (!server->listener ||
        getsockname(evconnlistener_get_fd(server->listener), (struct sockaddr *)&addr, &bound)) {
        return att_fail_errno(err, ATT_E_IO, "crl.listen %s: cannot listen", conf->crl->listen);
    }
    server->port = ntohs(addr.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&addr)->sin6_port
                                                    : ((struct sockaddr_in *)&addr)->sin_port);
    return ATT_OK;
}

enum att_rc issuer_crl_server_new(struct issuer *issuer, struct issuer_crl_server **ret_server,
                                  struct att_err *err)
{
    issuer_autosettings *settings = issuer_settings_get(issuer);
    const struct conf_issuer *conf = settings->conf;
    *ret_server = NULL;
    if (!conf->crl || !conf->crl->listen) {
        return ATT_OK;
    }
    struct issuer_crl_server *server = calloc(1, sizeof *server);
    if (!server) {
        return att_fail(err, ATT_E_NOMEM, "crl.listen: no memory");
    }
    *server = (struct issuer_crl_server){.issuer = issuer, .wake_fd = -1};
    enum att_rc rc = setup(server, conf, err);
    if (!rc && pthread_create(&server->thread, NULL, run, server)) {
        rc = att_fail(err, ATT_E_IO, "crl.listen: its thread cannot be started");
    }
    if (rc) {
        issuer_crl_server_free(server);
        return rc;
    }
    server->started = true;
    *ret_server = server;
    att_log(ATT_INFO, "crl.listening", ATT_S("listen", conf->crl->listen),
            ATT_N("port", server->port));
    return ATT_OK;
}

void issuer_crl_server_free(struct issuer_crl_server *server)
{
    if (!server) {
        return;
    }
    if (server->started) {
        uint64_t one = 1;
        ssize_t n = write(server->wake_fd, &one, sizeof one);
        (void)n;
        pthread_join(server->thread, NULL);
    }
    while (server->conns) {
        close_conn(server->conns);
    }
    if (server->listener) {
        evconnlistener_free(server->listener);
    }
    if (server->wake) {
        event_free(server->wake);
    }
    if (server->base) {
        event_base_free(server->base);
    }
    if (server->wake_fd >= 0) {
        close(server->wake_fd);
    }
    free(server);
}

uint16_t issuer_crl_server_port(const struct issuer_crl_server *server)
{
    return server ? server->port : 0;
}
