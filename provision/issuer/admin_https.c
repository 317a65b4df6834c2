/* The listener of the admin API: one thread talks, a few do the work, so that a long operation
 * (audit.verify) keeps nobody from banning a host. */
#include "provision/issuer/admin_https.h"

#include "provision/issuer/ca.h"
#include "provision/issuer/conns.h"
#include "provision/issuer/shares.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/listener.h>
#include <event2/thread.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define IDLE_S      30
#define HELD_S      3600 /* an operation ends by itself */
#define TICK_MS     100
#define DRAIN_MS    300
#define BACKLOG     64
#define WORKERS     4
#define WAITING_MAX 64 /* requests that no worker has yet */
#define MOST        128
#define UNREAD_MAX  ((uint64_t)64 << 20)
#define HEADERS_MAX 40960 /* a token has up to 16 KiB */
#define VERIFY_MAX  10
_Static_assert(ISSUER_SHARES_MAX >= WAITING_MAX + WORKERS, "each may be another address's");

struct job {
    struct issuer_admin_server *server;
    struct evhttp_request *http;
    struct issuer_admin_request in;
    struct issuer_admin_answer out;
    struct att_buf body;
    char *path, *content_type, *authorization, *peer;
    char share[ISSUER_SHARE_KEY];
    struct job *next;
};

struct queue {
    struct job *first, **end;
    unsigned n;
};

struct issuer_admin_server {
    struct issuer *issuer;
    struct event_base *base;
    struct evhttp *http;
    struct evconnlistener *listener; /* http's once bound */
    struct event *wake, *tick;
    int wake_fd;
    struct issuer_conns *conns;
    atomic_llong connections;
    bool paused;
    uint16_t port;
    pthread_t loop, workers[WORKERS];
    unsigned n_workers;
    bool looping;
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct queue todo, done;     /* under lock */
    struct issuer_shares shares; /* under lock: by address, since nobody is known before he runs */
    unsigned running;            /* under lock: taken and not sent */
    bool stopping;               /* under lock */
    bool draining;               /* loop's */
};

/* ---- jobs ------------------------------------------------------------------------------------ */

static void push(struct queue *q, struct job *job)
{
    job->next = NULL;
    if (!q->first) {
        q->end = &q->first;
    }
    *q->end = job;
    q->end = &job->next;
    q->n++;
}

static struct job *pop(struct queue *q)
{
    struct job *job = q->first;
    if (job) {
        q->first = job->next;
        q->n--;
    }
    return job;
}

/* The first whose address has not its share of workers; NULL: none. */
static struct job *pop_fair(struct issuer_admin_server *s)
{
    struct queue *q = &s->todo;
    for (struct job **at = &q->first; *at; at = &(*at)->next) {
        struct job *job = *at;
        if (issuer_share_start(&s->shares, job->share)) {
            *at = job->next;
            if (!job->next) {
                q->end = at;
            }
            q->n--;
            return job;
        }
    }
    return NULL;
}

static void job_free(struct job *job)
{
    if (job) {
        X509_free(job->in.credential.cert);
        sk_X509_pop_free(job->in.credential.sent, X509_free);
        att_buf_done(&job->out.body);
        att_buf_done(&job->body);
        free(job->path);
        free(job->content_type);
        free(job->authorization);
        free(job->peer);
        free(job);
    }
}

static void poke(struct issuer_admin_server *s)
{
    uint64_t one = 1;
    ssize_t n = write(s->wake_fd, &one, sizeof one);
    (void)n;
}

static void put_busy(struct issuer_admin_answer *answer)
{
    *answer = (struct issuer_admin_answer){.status = 503, .retry_after_s = 1};
    att_buf_put_str(&answer->body,
                    "{\"ok\":false,\"error\":{\"code\":\"retry\",\"reason\":\"busy\","
                    "\"message\":\"too many requests wait: try again\"}}");
}

/* What no worker has is not begun any more. Under the lock. */
static void end_waiting(struct issuer_admin_server *s)
{
    struct job *job;
    while ((job = pop(&s->todo))) {
        issuer_share_drop(&s->shares, job->share);
        put_busy(&job->out);
        push(&s->done, job);
    }
}

static void *work(void *user)
{
    struct issuer_admin_server *s = user;
    pthread_mutex_lock(&s->lock);
    for (;;) {
        struct job *job = s->stopping ? NULL : pop_fair(s);
        if (s->stopping) {
            break;
        }
        if (!job) {
            pthread_cond_wait(&s->work, &s->lock);
            continue;
        }
        pthread_mutex_unlock(&s->lock);
        issuer_admin_answer(s->issuer, &job->in, &job->out);
        pthread_mutex_lock(&s->lock);
        issuer_share_end(&s->shares, job->share);
        push(&s->done, job);
        poke(s);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* ---- requests -------------------------------------------------------------------------------- */

static SSL *ssl_of(struct evhttp_request *request)
{
    struct evhttp_connection *connection = evhttp_request_get_connection(request);
    struct bufferevent *bev = connection ? evhttp_connection_get_bufferevent(connection) : NULL;
    return bev ? bufferevent_openssl_get_ssl(bev) : NULL;
}

static void hold(struct evhttp_request *request, bool held)
{
    struct evhttp_connection *connection = evhttp_request_get_connection(request);
    SSL *ssl = ssl_of(request);
    if (connection) {
        evhttp_connection_set_timeout(connection, held ? HELD_S : IDLE_S);
    }
    if (ssl) {
        issuer_conn_request(ssl, held);
    }
}

static void send_answer(struct evhttp_request *request, const struct issuer_admin_answer *answer)
{
    struct evkeyvalq *headers = evhttp_request_get_output_headers(request);
    char seconds[16];
    evhttp_add_header(headers, "Content-Type", "application/json");
    evhttp_add_header(headers, "Cache-Control", "no-store");
    evhttp_add_header(headers, "X-Content-Type-Options", "nosniff");
    if (answer->challenge) {
        evhttp_add_header(headers, "WWW-Authenticate", "Bearer");
    }
    if (answer->status == 405) {
        evhttp_add_header(headers, "Allow", "POST");
    }
    if (answer->retry_after_s > 0) {
        snprintf(seconds, sizeof seconds, "%d", answer->retry_after_s);
        evhttp_add_header(headers, "Retry-After", seconds);
    }
    struct evbuffer *body = evbuffer_new();
    if (body) {
        evbuffer_add(body, answer->body.ptr, answer->body.len);
    }
    evhttp_send_reply(request, answer->status, NULL, body);
    if (body) {
        evbuffer_free(body);
    }
}

static void answer_busy(struct evhttp_request *request)
{
    struct issuer_admin_answer busy;
    put_busy(&busy);
    hold(request, false);
    send_answer(request, &busy);
    att_buf_done(&busy.body);
}

static char *copy_header(struct evkeyvalq *headers, const char *name, bool *ok)
{
    const char *value = evhttp_find_header(headers, name);
    char *copy = value ? strdup(value) : NULL;
    *ok = *ok && (copy || !value);
    return copy;
}

/* A copy of all that the worker looks at. */
static bool fill(struct job *job)
{
    struct evhttp_request *http = job->http;
    struct evkeyvalq *headers = evhttp_request_get_input_headers(http);
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(http);
    const char *path = uri ? evhttp_uri_get_path(uri) : NULL;
    struct evbuffer *input = evhttp_request_get_input_buffer(http);
    struct evhttp_connection *connection = evhttp_request_get_connection(http);
    size_t len = evbuffer_get_length(input);
    SSL *ssl = ssl_of(http);
    char *peer = NULL;
    ev_uint16_t port = 0;
    bool ok = true;
    if (connection) {
        evhttp_connection_get_peer(connection, &peer, &port);
    }
    job->path = strdup(path ? path : "/");
    job->peer = peer ? strdup(peer) : NULL;
    issuer_share_key(peer, job->share);
    job->content_type = copy_header(headers, "Content-Type", &ok);
    job->authorization = copy_header(headers, "Authorization", &ok);
    job->body = ATT_BUF_INIT(ISSUER_BODY_MAX);
    uint8_t *room = len ? att_buf_extend(&job->body, len) : NULL;
    ok = ok && job->path && (!len || (room && evbuffer_remove(input, room, len) == (int)len));
    job->in = (struct issuer_admin_request){
        .method = evhttp_request_get_command(http) == EVHTTP_REQ_POST ? ISSUER_POST : ISSUER_OTHER,
        .path = job->path,
        .content_type = job->content_type,
        .credential = {.cert = ssl ? SSL_get1_peer_certificate(ssl) : NULL,
                       .authorization = job->authorization,
                       .peer = job->peer},
        .body = att_buf_slice(&job->body)};
    if (ssl && SSL_get_peer_cert_chain(ssl)) {
        job->in.credential.sent = X509_chain_up_ref(SSL_get_peer_cert_chain(ssl));
    }
    return ok;
}

static void on_request(struct evhttp_request *request, void *user)
{
    struct issuer_admin_server *s = user;
    struct job *job = calloc(1, sizeof *job);
    if (job) {
        job->server = s;
        job->http = request;
    }
    bool ok = job && fill(job);
    pthread_mutex_lock(&s->lock);
    bool taken =
        ok && !s->stopping && s->todo.n < WAITING_MAX && issuer_share_wait(&s->shares, job->share);
    if (taken) {
        hold(request, true); /* before a worker may be done with it */
        s->running++;
        push(&s->todo, job);
        pthread_cond_signal(&s->work);
    }
    pthread_mutex_unlock(&s->lock);
    if (!taken) {
        job_free(job);
        answer_busy(request);
    }
}

/* ---- the loop -------------------------------------------------------------------------------- */

static void send_done(struct issuer_admin_server *s)
{
    pthread_mutex_lock(&s->lock);
    struct job *job;
    while ((job = pop(&s->done))) {
        s->running--;
        pthread_mutex_unlock(&s->lock);
        hold(job->http, false);
        send_answer(job->http, &job->out);
        job_free(job);
        pthread_mutex_lock(&s->lock);
    }
    pthread_mutex_unlock(&s->lock);
}

static void on_wake(evutil_socket_t fd, short what, void *user)
{
    struct issuer_admin_server *s = user;
    uint64_t n;
    (void)what;
    while (read((int)fd, &n, sizeof n) > 0) {
    }
    send_done(s);
    pthread_mutex_lock(&s->lock);
    bool over = s->stopping && s->running == 0;
    if (s->stopping) {
        evconnlistener_disable(s->listener);
    }
    pthread_mutex_unlock(&s->lock);
    if (over && !s->draining) {
        struct timeval drain = {0, DRAIN_MS * 1000};
        s->draining = true;
        event_base_loopexit(s->base, &drain);
    }
}

static void on_tick(evutil_socket_t fd, short what, void *user)
{
    struct issuer_admin_server *s = user;
    (void)fd;
    (void)what;
    issuer_conns_look(s->conns, att_boottime_ms());
    pthread_mutex_lock(&s->lock);
    if (s->paused && !s->stopping && !issuer_conns_full(s->conns)) {
        s->paused = false;
        evconnlistener_enable(s->listener);
    }
    pthread_mutex_unlock(&s->lock);
}

static void on_accept_error(struct evconnlistener *listener, void *user)
{
    struct issuer_admin_server *s = user;
    s->paused = true; /* the next tick tries again */
    evconnlistener_disable(listener);
}

/* Any certificate: whether it is good is judged at each request, by reasons that have names. That
 * the peer has its key, TLS makes sure of. */
static int take_any(int preverified, X509_STORE_CTX *ctx)
{
    (void)preverified;
    (void)ctx;
    return 1;
}

static struct bufferevent *new_connection(struct event_base *base, void *user)
{
    struct issuer_admin_server *s = user;
    issuer_autoendpoints *endpoints = issuer_endpoints_get(s->issuer->ca);
    SSL *ssl = SSL_new(endpoints->ssl);
    if (!ssl) {
        abort(); /* evhttp would fall back to talking HTTP in the clear */
    }
    SSL_set_verify(ssl, SSL_VERIFY_PEER, take_any);
    SSL_set_verify_depth(ssl, VERIFY_MAX);
    struct bufferevent *bev = bufferevent_openssl_socket_new(
        base, -1, ssl, BUFFEREVENT_SSL_ACCEPTING, BEV_OPT_CLOSE_ON_FREE);
    if (!bev || issuer_conns_add(s->conns, ssl, bev, NULL)) {
        abort();
    }
    if (issuer_conns_full(s->conns)) {
        s->paused = true;
        evconnlistener_disable(s->listener);
    }
    bufferevent_openssl_set_allow_dirty_shutdown(bev, 1);
    return bev;
}

static void *run(void *user)
{
    struct issuer_admin_server *s = user;
    event_base_dispatch(s->base);
    return NULL;
}

/* ---- up and down ----------------------------------------------------------------------------- */

static enum att_rc listen_on(struct issuer_admin_server *s, const struct conf_admin *conf,
                             struct att_err *err)
{
    struct sockaddr_storage addr = {0};
    struct sockaddr_in *v4 = (struct sockaddr_in *)&addr;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&addr;
    bool is_v4 = inet_pton(AF_INET, conf->listen_host, &v4->sin_addr) == 1;
    if (is_v4) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(conf->listen_port);
    } else {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(conf->listen_port);
        (void)inet_pton(AF_INET6, conf->listen_host, &v6->sin6_addr);
    }
    socklen_t len = is_v4 ? sizeof *v4 : sizeof *v6;
    s->listener = evconnlistener_new_bind(
        s->base, NULL, s, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE,
        BACKLOG, (struct sockaddr *)&addr, (int)len);
    int on = 1;
    len = sizeof addr;
    if (!s->listener ||
        setsockopt(evconnlistener_get_fd(s->listener), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) ||
        getsockname(evconnlistener_get_fd(s->listener), (struct sockaddr *)&addr, &len)) {
        return att_fail_errno(err, ATT_E_IO, "admin.listen %s: cannot listen", conf->listen);
    }
    s->port = ntohs(is_v4 ? v4->sin_port : v6->sin6_port);
    if (!evhttp_bind_listener(s->http, s->listener)) {
        evconnlistener_free(s->listener);
        s->listener = NULL;
        return att_fail(err, ATT_E_NOMEM, "admin.listen: no memory");
    }
    evconnlistener_set_error_cb(s->listener, on_accept_error);
    return ATT_OK;
}

static enum att_rc setup(struct issuer_admin_server *s, const struct conf_admin *conf,
                         struct att_err *err)
{
    s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    s->base = event_base_new();
    s->http = s->base ? evhttp_new(s->base) : NULL;
    if (s->wake_fd < 0 || !s->http) {
        return att_fail(err, ATT_E_NOMEM, "admin.listen: no memory");
    }
    evhttp_set_bevcb(s->http, new_connection, s);
    evhttp_set_gencb(s->http, on_request, s);
    evhttp_set_timeout(s->http, IDLE_S);
    evhttp_set_max_headers_size(s->http, HEADERS_MAX);
    evhttp_set_max_body_size(s->http, (ev_ssize_t)ISSUER_BODY_MAX);
    const struct issuer_conns_opts opts = {.most = MOST,
                                           .threads = 1,
                                           .unread_max = UNREAD_MAX,
                                           .handshake_ms = ISSUER_HANDSHAKE_MS,
                                           .request_ms = ISSUER_REQUEST_MS,
                                           .connections = &s->connections};
    enum att_rc rc = issuer_conns_new(&opts, &s->conns, err);
    rc = rc ? rc : listen_on(s, conf, err);
    if (rc) {
        return rc;
    }
    struct timeval period = {0, TICK_MS * 1000};
    s->wake = event_new(s->base, s->wake_fd, EV_READ | EV_PERSIST, on_wake, s);
    s->tick = event_new(s->base, -1, EV_PERSIST, on_tick, s);
    return s->wake && s->tick && event_add(s->wake, NULL) == 0 && event_add(s->tick, &period) == 0
               ? ATT_OK
               : att_fail(err, ATT_E_NOMEM, "admin.listen: no memory");
}

static enum att_rc start(struct issuer_admin_server *s, struct att_err *err)
{
    for (unsigned i = 0; i < WORKERS; i++) {
        if (pthread_create(&s->workers[i], NULL, work, s)) {
            return att_fail(err, ATT_E_IO, "admin.listen: a thread cannot be started");
        }
        s->n_workers++;
    }
    if (pthread_create(&s->loop, NULL, run, s)) {
        return att_fail(err, ATT_E_IO, "admin.listen: a thread cannot be started");
    }
    s->looping = true;
    return ATT_OK;
}

enum att_rc issuer_admin_server_new(struct issuer *issuer, struct issuer_admin_server **ret_server,
                                    struct att_err *err)
{
    issuer_autosettings *settings = issuer_settings_get(issuer);
    const struct conf_admin *conf = settings->conf->admin;
    *ret_server = NULL;
    if (!conf || !conf->listen) {
        return ATT_OK;
    }
    struct issuer_admin_server *s = calloc(1, sizeof *s);
    if (!s) {
        return att_fail(err, ATT_E_NOMEM, "admin.listen: no memory");
    }
    s->issuer = issuer;
    s->wake_fd = -1;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->work, NULL);
    enum att_rc rc = setup(s, conf, err);
    rc = rc ? rc : start(s, err);
    if (rc) {
        issuer_admin_server_free(s);
        return rc;
    }
    issuer_admin_auth_start(settings->admin);
    *ret_server = s;
    att_log(ATT_INFO, "admin.listening", ATT_S("listen", conf->listen), ATT_N("port", s->port),
            ATT_S("four_eyes", conf->four_eyes ? "yes" : "no"));
    return ATT_OK;
}

void issuer_admin_server_free(struct issuer_admin_server *s)
{
    if (!s) {
        return;
    }
    pthread_mutex_lock(&s->lock);
    s->stopping = true;
    end_waiting(s);
    pthread_cond_broadcast(&s->work);
    pthread_mutex_unlock(&s->lock);
    if (s->looping) {
        poke(s);
    }
    for (unsigned i = 0; i < s->n_workers; i++) {
        pthread_join(s->workers[i], NULL);
    }
    if (s->looping) {
        poke(s);
        pthread_join(s->loop, NULL);
    }
    if (s->wake) {
        event_free(s->wake);
    }
    if (s->tick) {
        event_free(s->tick);
    }
    if (s->http) {
        evhttp_free(s->http);
    }
    if (s->base) {
        event_base_free(s->base);
    }
    if (s->wake_fd >= 0) {
        close(s->wake_fd);
    }
    issuer_conns_free(s->conns);
    pthread_cond_destroy(&s->work);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

uint16_t issuer_admin_server_port(const struct issuer_admin_server *server)
{
    return server ? server->port : 0;
}
