#include "provision/issuer/server.h"

#include "attestd/base/io.h"
#include "provision/issuer/addrs.h"
#include "provision/issuer/ca.h"
#include "provision/issuer/conns.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <event2/listener.h>
#include <event2/thread.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define IDLE_S         30
#define GROUPS_MAX     16
#define BACKLOG        512
#define ACCEPT_RETRY   100 /* ms between looks at the connections */
#define ACCEPT_TELL_MS 10000

/* A hostView request that waits for something new. */
struct hold {
    struct evhttp_request *request;
    char host[VERIFY_ID_HEX], account[ACME_THUMBPRINT_LEN], request_id[40];
    int64_t version, until_ms;
    struct hold *next;
};

struct worker {
    struct issuer_server *server;
    pthread_t thread;
    bool started;
    struct event_base *base;
    struct evhttp *http;
    struct evconnlistener *listener; /* owned by http once bound; NULL: accepts no more */
    struct evhttp_bound_socket *bound;
    struct event *wake, *tick;
    int wake_fd;
    struct hold *holds;
    struct issuer_conns *conns;
    bool paused; /* not accepting: too many connections, or no descriptors */
    int64_t accept_told_ms;
};

struct group {
    char name[32];
    long long n;
};

struct issuer_server {
    struct issuer *issuer;
    struct worker *workers;
    unsigned n_workers;
    uint16_t port;
    unsigned most; /* connections */
    atomic_int stopping;
    atomic_llong drain_until_ms;
    pthread_mutex_t lock; /* groups */
    struct group groups[GROUPS_MAX];
};

/* ---- connections
 * ------------------------------------------------------------------------------------------ */

static pthread_once_t threads_once = PTHREAD_ONCE_INIT;

static void use_threads(void)
{
    evthread_use_pthreads();
}

static struct bufferevent *new_connection(struct event_base *base, void *user)
{
    struct worker *w = user;
    struct issuer_server *server = w->server;
    /* Never NULL from here: evhttp would fall back to talking HTTP in the clear. */
    issuer_autoendpoints *endpoints = issuer_endpoints_get(server->issuer->ca);
    SSL *ssl = SSL_new(endpoints->ssl);
    if (!ssl) {
        abort();
    }
    struct bufferevent *bev = bufferevent_openssl_socket_new(
        base, -1, ssl, BUFFEREVENT_SSL_ACCEPTING, BEV_OPT_CLOSE_ON_FREE);
    if (!bev || issuer_conns_add(w->conns, ssl, bev, NULL)) {
        abort();
    }
    if (issuer_conns_full(w->conns) && w->listener) {
        w->paused = true;
        evconnlistener_disable(w->listener);
    }
    /* Peers that close without close_notify are common; HTTP has lengths of its own. */
    bufferevent_openssl_set_allow_dirty_shutdown(bev, 1);
    return bev;
}

/* By the configuration that is in force. */
static bool is_balancer(void *user, const struct sockaddr *peer)
{
    issuer_autosettings *settings = issuer_settings_get(user);
    return issuer_addr_listed(peer, settings->conf->proxies, settings->conf->n_proxy_from);
}

static SSL *ssl_of(struct evhttp_request *request)
{
    struct evhttp_connection *connection = evhttp_request_get_connection(request);
    struct bufferevent *bev = connection ? evhttp_connection_get_bufferevent(connection) : NULL;
    return bev ? bufferevent_openssl_get_ssl(bev) : NULL;
}

static void note_group(struct issuer_server *server, SSL *ssl)
{
    if (!ssl || SSL_get_app_data(ssl)) {
        return;
    }
    SSL_set_app_data(ssl, server); /* counted */
    const char *name = certs_tls_group(ssl);
    pthread_mutex_lock(&server->lock);
    for (size_t i = 0; i < GROUPS_MAX; i++) {
        struct group *g = &server->groups[i];
        if (!g->name[0]) {
            snprintf(g->name, sizeof g->name, "%s", name);
        }
        if (strcmp(g->name, name) == 0) {
            g->n++;
            break;
        }
    }
    pthread_mutex_unlock(&server->lock);
    att_log(ATT_DEBUG, "tls.connected", ATT_S("group", name),
            ATT_S("version", SSL_get_version(ssl)));
}

json_t *issuer_server_groups(struct issuer_server *server)
{
    json_t *groups = json_object();
    if (server) {
        pthread_mutex_lock(&server->lock);
        for (size_t i = 0; i < GROUPS_MAX && server->groups[i].name[0]; i++) {
            json_object_set_new(groups, server->groups[i].name, json_integer(server->groups[i].n));
        }
        pthread_mutex_unlock(&server->lock);
    }
    return groups;
}

/* ---- requests
 * ------------------------------------------------------------------------------------------------
 */

static void add_header(struct evhttp_request *request, const char *name, const char *value)
{
    if (value && value[0]) {
        evhttp_add_header(evhttp_request_get_output_headers(request), name, value);
    }
}

static void send_response(struct issuer *issuer, struct evhttp_request *request,
                          const struct issuer_response *response)
{
    char link[ACME_URL_MAX + 64];
    add_header(request, "Attest-Request-Id", response->request_id);
    if (atomic_load(&issuer->draining)) {
        add_header(request, "Connection", "close");
    }
    add_header(request, "Replay-Nonce", response->nonce);
    add_header(request, "Location", response->location);
    add_header(request, "ETag", response->etag);
    add_header(request, "Allow", response->allow);
    add_header(request, "Cache-Control", response->cache ? response->cache : "no-store");
    add_header(request, "X-Content-Type-Options", "nosniff");
    snprintf(link, sizeof link, "<%s/directory>;rel=\"index\"", issuer->base_url);
    add_header(request, "Link", link); /* RFC 8555 §7.1 */
    if (response->up[0]) {
        snprintf(link, sizeof link, "<%s>;rel=\"up\"", response->up);
        add_header(request, "Link", link);
    }
    if (response->alternate[0]) {
        snprintf(link, sizeof link, "<%s>;rel=\"alternate\"", response->alternate);
        add_header(request, "Link", link); /* RFC 8555 §7.4.2 */
    }
    if (response->retry_after_s > 0) {
        snprintf(link, sizeof link, "%d", response->retry_after_s);
        add_header(request, "Retry-After", link);
    }
    add_header(request, "Content-Type", response->content_type);
    struct evbuffer *body = evbuffer_new();
    if (body && response->body.len) {
        evbuffer_add(body, response->body.ptr, response->body.len);
    }
    evhttp_send_reply(request, response->status, response->phrase[0] ? response->phrase : NULL,
                      body);
    if (body) {
        evbuffer_free(body);
    }
}

static void set_timeout(struct evhttp_request *request, int seconds)
{
    struct evhttp_connection *connection = evhttp_request_get_connection(request);
    if (connection) {
        evhttp_connection_set_timeout(connection, seconds);
    }
}

static void answer_hold(struct worker *w, struct hold *hold);

/* A request that waits cannot be ended for its place, so an account has only so many: its oldest is
 * answered. A host needs one; another is what its process before left behind. */
static void make_room(struct worker *w, const char *account)
{
    struct hold **oldest = NULL;
    unsigned n = 0;
    for (struct hold **at = &w->holds; *at; at = &(*at)->next) {
        if (strcmp((*at)->account, account) == 0) {
            oldest = at; /* the newest come first */
            n++;
        }
    }
    if (n >= ISSUER_WAITING_MAX) {
        struct hold *hold = *oldest;
        *oldest = hold->next;
        answer_hold(w, hold);
        free(hold);
    }
}

static bool hold_request(struct worker *w, struct evhttp_request *request,
                         const struct issuer_response *response)
{
    make_room(w, response->hold_account);
    struct hold *hold = calloc(1, sizeof *hold);
    if (!hold) {
        return false;
    }
    hold->request = request;
    hold->version = response->hold_version;
    hold->until_ms = att_boottime_ms() + (int64_t)response->hold_s * 1000;
    snprintf(hold->host, sizeof hold->host, "%s", response->hold_host);
    snprintf(hold->account, sizeof hold->account, "%s", response->hold_account);
    memcpy(hold->request_id, response->request_id, sizeof hold->request_id);
    hold->next = w->holds;
    w->holds = hold;
    set_timeout(request, ISSUER_WAIT_MAX_S + IDLE_S);
    return true;
}

static void on_request(struct evhttp_request *request, void *user)
{
    struct worker *w = user;
    struct issuer *issuer = w->server->issuer;
    struct evkeyvalq *headers = evhttp_request_get_input_headers(request);
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(request);
    const char *path = uri ? evhttp_uri_get_path(uri) : NULL;
    struct evbuffer *input = evhttp_request_get_input_buffer(request);
    size_t len = evbuffer_get_length(input);
    const uint8_t *bytes = len ? evbuffer_pullup(input, -1) : NULL;
    struct evhttp_connection *connection = evhttp_request_get_connection(request);
    char *peer = NULL;
    ev_uint16_t peer_port = 0;
    if (connection) {
        evhttp_connection_get_peer(connection, &peer, &peer_port);
    }
    SSL *ssl = ssl_of(request);
    const char *source = ssl ? issuer_conn_source(ssl) : NULL;
    struct issuer_request in = {
        .method = ISSUER_OTHER,
        .peer = source ? source : peer,
        .path = path && path[0] ? path : "/",
        .content_type = evhttp_find_header(headers, "Content-Type"),
        .if_none_match = evhttp_find_header(headers, "If-None-Match"),
        .prefer = evhttp_find_header(headers, "Prefer"),
        .body = bytes ? ATT_SLICE(bytes, len) : ATT_SLICE(NULL, 0),
    };
    switch (evhttp_request_get_command(request)) {
    case EVHTTP_REQ_GET:
        in.method = ISSUER_GET;
        break;
    case EVHTTP_REQ_HEAD:
        in.method = ISSUER_HEAD;
        break;
    case EVHTTP_REQ_POST:
        in.method = ISSUER_POST;
        break;
    default:
        break;
    }
    note_group(w->server, ssl);
    struct issuer_response response;
    issuer_handle(issuer, &in, &response);
    bool held = response.hold_s > 0 && !atomic_load(&w->server->stopping) &&
                hold_request(w, request, &response);
    if (ssl) {
        issuer_conn_request(ssl, held);
    }
    if (!held) {
        send_response(issuer, request, &response);
    }
    issuer_response_done(&response);
}

/* ---- waiting for a new view
 * ------------------------------------------------------------------------------------ */

static void answer_hold(struct worker *w, struct hold *hold)
{
    struct issuer *issuer = w->server->issuer;
    struct issuer_response response = {0};
    struct att_err err = {0};
    memcpy(response.request_id, hold->request_id, sizeof response.request_id);
    att_log_request(hold->request_id);
    acme_nonces_issue(issuer->nonces, response.nonce);
    if (issuer_view_answer(issuer, hold->host, hold->account, hold->version, &response, &err)) {
        /* Banned meanwhile, most likely: it learns that from its next request. */
        att_buf_reset(&response.body);
        response.status = 304;
    }
    set_timeout(hold->request, IDLE_S);
    SSL *ssl = ssl_of(hold->request);
    if (ssl) {
        issuer_conn_request(ssl, false);
    }
    send_response(issuer, hold->request, &response);
    issuer_response_done(&response);
    att_log_request(NULL);
}

static void look_at_holds(struct worker *w, bool all)
{
    int64_t now = att_boottime_ms();
    int64_t version = atomic_load(&w->server->issuer->view_version);
    struct hold **at = &w->holds;
    while (*at) {
        struct hold *hold = *at;
        if (!all && hold->until_ms > now && version <= hold->version) {
            at = &hold->next;
            continue;
        }
        *at = hold->next;
        answer_hold(w, hold);
        free(hold);
    }
}

/* The listener is closed, not only left alone: a connection would wait in its queue in vain. */
static void drain(struct worker *w)
{
    if (w->bound) {
        evhttp_del_accept_socket(w->http, w->bound);
        w->bound = NULL;
        w->listener = NULL;
    }
    look_at_holds(w, true);
    if (issuer_conns_drain(w->conns) == 0 ||
        att_boottime_ms() >= atomic_load(&w->server->drain_until_ms)) {
        event_base_loopexit(w->base, NULL);
    }
}

static void on_wake(evutil_socket_t fd, short what, void *user)
{
    struct worker *w = user;
    uint64_t n;
    (void)what;
    while (read((int)fd, &n, sizeof n) > 0) {
    }
    if (atomic_load(&w->server->stopping)) {
        drain(w);
        return;
    }
    look_at_holds(w, false);
}

static void on_tick(evutil_socket_t fd, short what, void *user)
{
    struct worker *w = user;
    (void)fd;
    (void)what;
    look_at_holds(w, false);
    issuer_conns_look(w->conns, att_boottime_ms());
    if (atomic_load(&w->server->stopping)) {
        drain(w);
        return;
    }
    if (w->paused && !issuer_conns_full(w->conns) && !atomic_load(&w->server->stopping)) {
        w->paused = false;
        evconnlistener_enable(w->listener);
    }
}

void issuer_server_wake(struct issuer_server *server)
{
    for (unsigned i = 0; i < server->n_workers; i++) {
        uint64_t one = 1;
        ssize_t n = write(server->workers[i].wake_fd, &one, sizeof one);
        (void)n;
    }
}

/* ---- threads
 * ----------------------------------------------------------------------------------------------------
 */

static void on_accept_error(struct evconnlistener *listener, void *user)
{
    struct worker *w = user;
    int failed = errno;
    int64_t now = att_boottime_ms();
    w->paused = true; /* the next tick tries again */
    evconnlistener_disable(listener);
    if (!w->accept_told_ms || now - w->accept_told_ms >= ACCEPT_TELL_MS) {
        w->accept_told_ms = now;
        att_log(ATT_WARN, "accept.failed", ATT_S("error", strerror(failed)));
    }
}

static enum att_rc address(const struct conf_issuer *conf, uint16_t port,
                           struct sockaddr_storage *ret_addr, socklen_t *ret_len,
                           struct att_err *err)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)ret_addr;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret_addr;
    memset(ret_addr, 0, sizeof *ret_addr);
    if (inet_pton(AF_INET, conf->listen_host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        *ret_len = sizeof *v4;
        return ATT_OK;
    }
    if (inet_pton(AF_INET6, conf->listen_host, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        *ret_len = sizeof *v6;
        return ATT_OK;
    }
    return att_fail(err, ATT_E_INVAL, "listen: expected an address, found \"%s\"",
                    conf->listen_host);
}

/* The threads share the port by SO_REUSEPORT, and so could another process of this user, which
 * would then get a part of our connections: a port that somebody has is refused. */
static enum att_rc port_is_free(const struct conf_issuer *conf, struct att_err *err)
{
    struct sockaddr_storage addr;
    socklen_t len = 0;
    int on = 1;
    enum att_rc rc = address(conf, conf->listen_port, &addr, &len, err);
    if (rc) {
        return rc;
    }
    att_autofd fd = socket(addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) ||
        bind(fd, (struct sockaddr *)&addr, len)) {
        return att_fail_errno(err, ATT_E_IO, "listen %s: cannot listen", conf->listen);
    }
    return ATT_OK;
}

static enum att_rc listen_worker(struct worker *w, const struct conf_issuer *conf, uint16_t port,
                                 struct att_err *err)
{
    struct sockaddr_storage addr;
    socklen_t len = 0;
    enum att_rc rc = address(conf, port, &addr, &len, err);
    if (rc) {
        return rc;
    }
    w->listener = evconnlistener_new_bind(w->base, NULL, w,
                                          LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC |
                                              LEV_OPT_REUSEABLE | LEV_OPT_REUSEABLE_PORT,
                                          BACKLOG, (struct sockaddr *)&addr, (int)len);
    if (!w->listener) {
        return att_fail_errno(err, ATT_E_IO, "listen %s: cannot listen", conf->listen);
    }
    /* Accepted sockets inherit it. An answer is written in two pieces, head and body: with Nagle's
     * algorithm the second waits for the peer's delayed acknowledgement of the first (40 ms). */
    int on = 1;
    if (setsockopt(evconnlistener_get_fd(w->listener), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on)) {
        return att_fail_errno(err, ATT_E_IO, "listen %s: TCP_NODELAY", conf->listen);
    }
    w->bound = evhttp_bind_listener(w->http, w->listener);
    if (!w->bound) {
        evconnlistener_free(w->listener);
        w->listener = NULL;
        return att_fail(err, ATT_E_NOMEM, "listen: no memory");
    }
    evconnlistener_set_error_cb(w->listener, on_accept_error);
    struct sockaddr_storage bound;
    socklen_t bound_len = sizeof bound;
    if (getsockname(evconnlistener_get_fd(w->listener), (struct sockaddr *)&bound, &bound_len)) {
        return att_fail_errno(err, ATT_E_IO, "listen %s: getsockname", conf->listen);
    }
    w->server->port = ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port
                                                        : ((struct sockaddr_in *)&bound)->sin_port);
    return ATT_OK;
}

static enum att_rc setup_worker(struct worker *w, const struct conf_issuer *conf, uint16_t port,
                                struct att_err *err)
{
    w->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    w->base = event_base_new();
    w->http = w->base ? evhttp_new(w->base) : NULL;
    if (w->wake_fd < 0 || !w->http) {
        return att_fail(err, ATT_E_NOMEM, "server: no memory for a thread");
    }
    evhttp_set_bevcb(w->http, new_connection, w);
    evhttp_set_gencb(w->http, on_request, w);
    evhttp_set_timeout(w->http, IDLE_S);
    evhttp_set_max_headers_size(w->http, ISSUER_HEADERS_MAX);
    evhttp_set_max_body_size(w->http, (ev_ssize_t)ISSUER_BODY_MAX);
    evhttp_set_allowed_methods(w->http, EVHTTP_REQ_GET | EVHTTP_REQ_POST | EVHTTP_REQ_HEAD |
                                            EVHTTP_REQ_PUT | EVHTTP_REQ_DELETE |
                                            EVHTTP_REQ_OPTIONS | EVHTTP_REQ_PATCH);
    const struct issuer_conns_opts opts = {
        .most = w->server->most,
        .threads = conf->threads,
        .unread_max = ISSUER_UNREAD_MAX,
        .handshake_ms = ISSUER_HANDSHAKE_MS,
        .request_ms = ISSUER_REQUEST_MS,
        .connections = &w->server->issuer->counters.connections,
        .balancer = is_balancer,
        .balancer_user = w->server->issuer,
    };
    enum att_rc rc = issuer_conns_new(&opts, &w->conns, err);
    if (!rc) {
        rc = listen_worker(w, conf, port, err);
    }
    if (rc) {
        return rc;
    }
    w->wake = event_new(w->base, w->wake_fd, EV_READ | EV_PERSIST, on_wake, w);
    w->tick = event_new(w->base, -1, EV_PERSIST, on_tick, w);
    struct timeval period = {0, ACCEPT_RETRY * 1000};
    if (!w->wake || !w->tick || event_add(w->wake, NULL) || event_add(w->tick, &period)) {
        return att_fail(err, ATT_E_NOMEM, "server: no memory for a thread");
    }
    return ATT_OK;
}

static void *run_worker(void *user)
{
    struct worker *w = user;
    event_base_dispatch(w->base);
    return NULL;
}

enum att_rc issuer_server_new(struct issuer *issuer, struct issuer_server **ret_server,
                              struct att_err *err)
{
    pthread_once(&threads_once, use_threads);
    issuer_autosettings *settings = issuer_settings_get(issuer);
    const struct conf_issuer *conf = settings->conf;
    struct issuer_server *s = calloc(1, sizeof *s);
    if (s) {
        s->workers = calloc(conf->threads, sizeof *s->workers);
    }
    if (!s || !s->workers) {
        free(s);
        return att_fail(err, ATT_E_NOMEM, "server: no memory");
    }
    s->issuer = issuer;
    pthread_mutex_init(&s->lock, NULL);
    enum att_rc rc = issuer_conns_room(&s->most, err);
    if (!rc) {
        rc = port_is_free(conf, err);
    }
    for (unsigned i = 0; i < conf->threads && !rc; i++) {
        s->workers[i] = (struct worker){.server = s, .wake_fd = -1};
        s->n_workers++;
        rc = setup_worker(&s->workers[i], conf, i ? s->port : conf->listen_port, err);
    }
    for (unsigned i = 0; i < s->n_workers && !rc; i++) {
        if (pthread_create(&s->workers[i].thread, NULL, run_worker, &s->workers[i])) {
            rc = att_fail(err, ATT_E_IO, "server: a thread cannot be started");
        } else {
            s->workers[i].started = true;
        }
    }
    if (rc) {
        issuer_server_free(s);
        return rc;
    }
    *ret_server = s;
    return ATT_OK;
}

void issuer_server_drain(struct issuer_server *server, int64_t limit_ms)
{
    atomic_store(&server->drain_until_ms, att_boottime_ms() + limit_ms);
    atomic_store(&server->stopping, 1);
    issuer_server_wake(server);
    for (unsigned i = 0; i < server->n_workers; i++) {
        if (server->workers[i].started) {
            pthread_join(server->workers[i].thread, NULL);
            server->workers[i].started = false;
        }
    }
}

unsigned issuer_server_most(const struct issuer_server *server)
{
    return server->most;
}

void issuer_server_free(struct issuer_server *server)
{
    if (!server) {
        return;
    }
    atomic_store(&server->stopping, 1);
    issuer_server_wake(server);
    for (unsigned i = 0; i < server->n_workers; i++) {
        struct worker *w = &server->workers[i];
        if (w->started) {
            pthread_join(w->thread, NULL);
        }
        while (w->holds) {
            struct hold *next = w->holds->next;
            free(w->holds);
            w->holds = next;
        }
        if (w->wake) {
            event_free(w->wake);
        }
        if (w->tick) {
            event_free(w->tick);
        }
        if (w->http) {
            evhttp_free(w->http);
        }
        if (w->base) {
            event_base_free(w->base);
        }
        if (w->wake_fd >= 0) {
            close(w->wake_fd);
        }
        issuer_conns_free(w->conns);
    }
    pthread_mutex_destroy(&server->lock);
    free(server->workers);
    free(server);
}

uint16_t issuer_server_port(const struct issuer_server *server)
{
    return server->port;
}
