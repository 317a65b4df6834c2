#include "attestd/web/plain.h"

#include <arpa/inet.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 128

struct web_plain {
    struct web_opts opts;
    char *unix_path; /* removed at the end */
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
    struct web_plain *server;
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
    SSL *ssl = conn->server->opts.tls ? bufferevent_openssl_get_ssl(conn->bev) : NULL;
    if (ssl && conn->answered) {
        (void)SSL_shutdown(ssl); /* RFC 8446 §6.1: this was all of it */
        ERR_clear_error();
    }
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

static void ask_handler(struct conn *conn, struct web_request *request, bool head)
{
    struct web_answer a = {.status = "404 Not Found"};
    conn->server->opts.handler(conn->server->opts.user, request, &a);
    if (a.body.failed) {
        answer(conn, "500 Internal Server Error", "", NULL, head);
    } else {
        answer(conn, a.status, a.headers, &a.body, head);
    }
    att_buf_done(&a.body);
}

/* line: "GET /workload.crl HTTP/1.1" */
static void on_line(struct conn *conn, char *line, const char *accept)
{
    char *path = strchr(line, ' ');
    char *version = path ? strchr(path + 1, ' ') : NULL;
    if (!version || strncmp(version, " HTTP/1.", 8) != 0) {
        answer(conn, "400 Bad Request", "", NULL, false);
        return;
    }
    *path++ = *version = 0;
    path[strcspn(path, "?")] = 0;
    bool head = strcmp(line, "HEAD") == 0;
    struct web_request request = {.path = path, .accept = accept};
    if (!head && strcmp(line, "GET") != 0) {
        answer(conn, "405 Method Not Allowed", "Allow: GET, HEAD\r\n", NULL, false);
    } else {
        ask_handler(conn, &request, head);
    }
}

/* The value of Accept among the header lines, malloc'd; the lines are taken. */
static char *take_accept(struct evbuffer *in)
{
    static const char name[] = "Accept:";
    char *accept = NULL, *line;
    while ((line = evbuffer_readln(in, NULL, EVBUFFER_EOL_CRLF_STRICT)) && line[0]) {
        if (!accept && strncasecmp(line, name, sizeof name - 1) == 0) {
            accept = strdup(line + sizeof name - 1);
        }
        free(line);
    }
    free(line);
    return accept;
}

static void on_read(struct bufferevent *bev, void *user)
{
    struct conn *conn = user;
    struct evbuffer *in = bufferevent_get_input(bev);
    struct evbuffer_ptr end = evbuffer_search(in, "\r\n\r\n", 4, NULL);
    if (conn->answered || end.pos < 0) {
        if (!conn->answered && evbuffer_get_length(in) >= WEB_HEAD_MAX) {
            answer(conn, "431 Request Header Fields Too Large", "", NULL, false);
        }
        return;
    }
    char *line = evbuffer_readln(in, NULL, EVBUFFER_EOL_CRLF_STRICT);
    char *accept = line ? take_accept(in) : NULL;
    if (line) {
        on_line(conn, line, accept);
    } else {
        answer(conn, "400 Bad Request", "", NULL, false);
    }
    free(accept);
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

static bool has_room(const struct web_plain *server, const uint8_t peer[16])
{
    unsigned n = 0;
    for (const struct conn *conn = server->conns; conn; conn = conn->next) {
        n += memcmp(conn->peer, peer, sizeof conn->peer) == 0;
    }
    return server->n < WEB_MOST && (server->unix_path || n < WEB_PER_PEER);
}

static struct bufferevent *new_bev(struct web_plain *server, evutil_socket_t fd)
{
    if (!server->opts.tls) {
        return bufferevent_socket_new(server->base, fd, BEV_OPT_CLOSE_ON_FREE);
    }
    SSL_CTX *ctx = server->opts.tls(server->opts.user);
    SSL *ssl = ctx ? SSL_new(ctx) : NULL; /* holds ctx */
    SSL_CTX_free(ctx);
    struct bufferevent *bev =
        ssl ? bufferevent_openssl_socket_new(server->base, fd, ssl, BUFFEREVENT_SSL_ACCEPTING,
                                             BEV_OPT_CLOSE_ON_FREE)
            : NULL;
    if (ssl && !bev) {
        SSL_free(ssl);
    }
    return bev;
}

static struct conn *new_conn(struct web_plain *server, evutil_socket_t fd)
{
    const struct timeval life = {WEB_LIFE_S, 0};
    struct conn *conn = calloc(1, sizeof *conn);
    if (!conn) {
        return NULL;
    }
    conn->server = server;
    conn->end = evtimer_new(server->base, on_end, conn);
    if (conn->end && evtimer_add(conn->end, &life) == 0) {
        conn->bev = new_bev(server, fd);
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
    struct web_plain *server = user;
    const struct timeval idle = {WEB_IDLE_S, 0};
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
    bufferevent_setwatermark(conn->bev, EV_READ, 0, WEB_HEAD_MAX);
    bufferevent_set_timeouts(conn->bev, &idle, &idle);
    bufferevent_enable(conn->bev, EV_READ | EV_WRITE);
}

static void on_wake(evutil_socket_t fd, short what, void *user)
{
    struct web_plain *server = user;
    (void)fd;
    (void)what;
    event_base_loopexit(server->base, NULL);
}

static void *run(void *user)
{
    struct web_plain *server = user;
    event_base_dispatch(server->base);
    return NULL;
}

static socklen_t address(const struct web_opts *opts, struct sockaddr_storage *ret)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)ret;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret;
    struct sockaddr_un *un = (struct sockaddr_un *)ret;
    memset(ret, 0, sizeof *ret);
    if (opts->unix_path) {
        un->sun_family = AF_UNIX;
        if (strlen(opts->unix_path) >= sizeof un->sun_path) {
            return 0;
        }
        memcpy(un->sun_path, opts->unix_path, strlen(opts->unix_path) + 1);
        return sizeof *un;
    }
    if (inet_pton(AF_INET, opts->host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(opts->port);
        return sizeof *v4;
    }
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(opts->port);
    return inet_pton(AF_INET6, opts->host, &v6->sin6_addr) == 1 ? sizeof *v6 : 0;
}

/* What is left of a process before is in the way; anything but a socket is not ours to remove. */
static enum att_rc clear_place(const char *path, struct att_err *err)
{
    struct stat st;
    if (lstat(path, &st) == 0 && (!S_ISSOCK(st.st_mode) || unlink(path) != 0)) {
        return att_fail(err, ATT_E_EXISTS, "%s: is there, and is no socket of ours", path);
    }
    return ATT_OK;
}

static enum att_rc listen_at(struct web_plain *server, struct att_err *err)
{
    const struct web_opts *opts = &server->opts;
    struct sockaddr_storage addr;
    socklen_t len = address(opts, &addr), bound = sizeof addr;
    const char *where = opts->unix_path ? opts->unix_path : opts->host;
    if (len == 0) {
        return att_fail(err, ATT_E_INVAL, "%s: %s is no address, or too long", opts->what, where);
    }
    enum att_rc rc = opts->unix_path ? clear_place(opts->unix_path, err) : ATT_OK;
    if (rc) {
        return rc;
    }
    server->listener =
        evconnlistener_new_bind(server->base, on_accept, server,
                                LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE,
                                BACKLOG, (struct sockaddr *)&addr, (int)len);
    if (!server->listener ||
        getsockname(evconnlistener_get_fd(server->listener), (struct sockaddr *)&addr, &bound)) {
        return att_fail_errno(err, ATT_E_IO, "%s %s: cannot listen", opts->what, where);
    }
    if (!opts->unix_path) {
        server->port = ntohs(addr.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&addr)->sin6_port
                                                        : ((struct sockaddr_in *)&addr)->sin_port);
        return ATT_OK;
    }
    server->unix_path = strdup(opts->unix_path);
    return server->unix_path && chmod(opts->unix_path, 0666) == 0
               ? ATT_OK
               : att_fail_errno(err, ATT_E_IO, "%s %s: its mode", opts->what, where);
}

static enum att_rc setup(struct web_plain *server, struct att_err *err)
{
    server->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    server->base = event_base_new();
    server->wake = server->base && server->wake_fd >= 0
                       ? event_new(server->base, server->wake_fd, EV_READ, on_wake, server)
                       : NULL;
    if (!server->wake || event_add(server->wake, NULL)) {
        return att_fail(err, ATT_E_NOMEM, "%s: no memory", server->opts.what);
    }
    return listen_at(server, err);
}

enum att_rc web_plain_new(const struct web_opts *opts, struct web_plain **ret_server,
                          struct att_err *err)
{
    struct web_plain *server = calloc(1, sizeof *server);
    if (!server) {
        return att_fail(err, ATT_E_NOMEM, "%s: no memory", opts->what);
    }
    *server = (struct web_plain){.opts = *opts, .wake_fd = -1};
    enum att_rc rc = setup(server, err);
    if (!rc && pthread_create(&server->thread, NULL, run, server)) {
        rc = att_fail(err, ATT_E_IO, "%s: its thread cannot be started", opts->what);
    }
    if (rc) {
        web_plain_free(server);
        return rc;
    }
    server->started = true;
    *ret_server = server;
    return ATT_OK;
}

void web_plain_free(struct web_plain *server)
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
    if (server->unix_path) {
        (void)unlink(server->unix_path);
        free(server->unix_path);
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

uint16_t web_plain_port(const struct web_plain *server)
{
    return server ? server->port : 0;
}
