#include "provision/issuer/conns.h"

#include "provision/issuer/addrs.h"
#include "provision/issuer/metrics.h"

#include <arpa/inet.h>
#include <event2/buffer.h>
#include <malloc.h>
#include <netdb.h>
#include <netinet/in.h>
#include <openssl/bio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

#define FILES_MAX 65536
#define LEAST     16    /* connections that are worth serving */
#define TELL_MS   10000 /* a line about what was ended, at most so often */

/* Whom a connection is counted for. */
struct key {
    uint8_t bytes[ISSUER_ADDR_GROUP];
};

struct issuer_conn {
    struct issuer_conns *conns;
    struct bufferevent *bev;
    SSL *ssl;
    int64_t since_ms; /* accepted, or the first byte of the request under way; 0: none is */
    int64_t last_ms;  /* of the last whole request; 0: none yet */
    uint64_t mark;    /* bytes read up to the last whole request */
    bool held, ended, known, shaken;
    struct key key;
    /* A balancer's: until it has said whose the connection is, it is nobody's. */
    bool asked;                         /* whether its peer is a balancer */
    struct issuer_proxy_reader *header; /* NULL: none is awaited */
    char peer[INET6_ADDRSTRLEN], source[INET6_ADDRSTRLEN];
    struct issuer_conn *next, *prev;
};

struct issuer_conns {
    struct issuer_conns_opts opts;
    struct issuer_conn *first;
    unsigned count;
    int64_t told_ms;
    unsigned ended[4]; /* since then, by why */
    int64_t proxy_told_ms;
    unsigned proxy_refused; /* since then */
};

enum why { SLOW, MEMORY, PLACES, DRAINED };

/* ---- birth and end of one ------------------------------------------------------------------- */

static int slot;
static pthread_once_t slot_once = PTHREAD_ONCE_INIT;

/* Called when an SSL object goes, with whatever was set in its slot. */
static void gone(void *parent, void *ptr, CRYPTO_EX_DATA *ad, int index, long argl, void *argp)
{
    (void)parent, (void)ad, (void)index, (void)argl, (void)argp;
    struct issuer_conn *conn = ptr;
    if (!conn) {
        return;
    }
    struct issuer_conns *conns = conn->conns;
    if (conn->prev) {
        conn->prev->next = conn->next;
    } else {
        conns->first = conn->next;
    }
    if (conn->next) {
        conn->next->prev = conn->prev;
    }
    conns->count--;
    atomic_fetch_sub(conns->opts.connections, 1);
    free(conn->header);
    free(conn);
}

static void make_slot(void)
{
    slot = SSL_get_ex_new_index(0, NULL, NULL, NULL, gone);
}

enum att_rc issuer_conns_new(const struct issuer_conns_opts *opts, struct issuer_conns **ret_conns,
                             struct att_err *err)
{
    pthread_once(&slot_once, make_slot);
    struct issuer_conns *conns = calloc(1, sizeof *conns);
    if (!conns) {
        return att_fail(err, ATT_E_NOMEM, "connections");
    }
    conns->opts = *opts;
    *ret_conns = conns;
    return ATT_OK;
}

void issuer_conns_free(struct issuer_conns *conns)
{
    free(conns);
}

static uint64_t bytes_read(const struct issuer_conn *conn)
{
    BIO *bio = SSL_get_rbio(conn->ssl);
    return bio ? BIO_number_read(bio) : 0;
}

/* ---- whose it is ---------------------------------------------------------------------------- */

static void set_key(struct issuer_conn *conn, bool v6, const uint8_t *address)
{
    issuer_addr_group(v6, address, conn->key.bytes);
    conn->known = true;
}

/* Once it has a socket. A balancer's connection awaits its header from then on. */
static void ask_peer(struct issuer_conn *conn)
{
    const struct issuer_conns_opts *opts = &conn->conns->opts;
    struct sockaddr_storage addr = {0};
    socklen_t len = sizeof addr;
    evutil_socket_t fd = bufferevent_getfd(conn->bev);
    if (conn->asked || fd < 0 || getpeername(fd, (struct sockaddr *)&addr, &len) != 0) {
        return;
    }
    conn->asked = true;
    bool balancer = opts->balancer && opts->balancer(opts->balancer_user, (struct sockaddr *)&addr);
    if (balancer) {
        conn->header = calloc(1, sizeof *conn->header);
        if (!conn->header) {
            abort(); /* as for the connection itself */
        }
        (void)getnameinfo((struct sockaddr *)&addr, len, conn->peer, sizeof conn->peer, NULL, 0,
                          NI_NUMERICHOST);
        return;
    }
    if (addr.ss_family == AF_INET) {
        set_key(conn, false, (const uint8_t *)&((const struct sockaddr_in *)&addr)->sin_addr);
    } else if (addr.ss_family == AF_INET6) {
        set_key(conn, true, (const uint8_t *)&((const struct sockaddr_in6 *)&addr)->sin6_addr);
    }
    conn->known = true;
}

/* A line at most so often: a balancer that sends none sends none with any connection. */
static void refuse_header(struct issuer_conn *conn, enum issuer_proxy_result why)
{
    struct issuer_conns *conns = conn->conns;
    int64_t now_ms = att_boottime_ms();
    issuer_metrics_proxy(why);
    conns->proxy_refused++;
    if (!conns->proxy_told_ms || now_ms - conns->proxy_told_ms >= TELL_MS) {
        att_log(ATT_WARN, "proxy.refused", ATT_S("reason", issuer_proxy_word(why)),
                ATT_S("balancer", conn->peer), ATT_S("expected", issuer_proxy_expected(why)),
                ATT_N("bytes", conn->header->len), ATT_N("refused", conns->proxy_refused));
        conns->proxy_told_ms = now_ms;
        conns->proxy_refused = 0;
    }
}

/* The header of a balancer is there: that of another host, or its own connection (a health check).
 */
static void know_source(struct issuer_conn *conn, const struct issuer_proxy_source *source)
{
    free(conn->header);
    conn->header = NULL;
    if (source->known) {
        issuer_proxy_text(source, conn->source);
        set_key(conn, source->v6, source->address);
        return;
    }
    uint8_t own[16] = {0};
    bool v6 = inet_pton(AF_INET6, conn->peer, own) == 1;
    if (!v6) {
        (void)!inet_pton(AF_INET, conn->peer, own);
    }
    set_key(conn, v6, own);
}

/* Before TLS reads from its socket. Once the header is whole nothing stands between them. */
static long before_read(BIO *bio, int oper, const char *argp, size_t len, int argi, long argl,
                        int ret, size_t *processed)
{
    (void)argp, (void)len, (void)argi, (void)argl, (void)processed;
    if (oper != BIO_CB_READ) {
        return oper & BIO_CB_RETURN ? ret : 1;
    }
    struct issuer_conn *conn = (struct issuer_conn *)BIO_get_callback_arg(bio);
    struct issuer_proxy_source source = {0};
    evutil_socket_t fd = bufferevent_getfd(conn->bev);
    BIO_clear_retry_flags(bio);
    if (conn->ended) {
        return -1;
    }
    enum issuer_proxy_result result = issuer_proxy_read(conn->header, fd, &source);
    if (result == ISSUER_PROXY_OK) {
        BIO_set_callback_ex(bio, NULL);
        know_source(conn, &source);
        return 1;
    }
    if (result == ISSUER_PROXY_MORE) {
        BIO_set_retry_read(bio);
        return -1;
    }
    if (issuer_proxy_word(result)) {
        refuse_header(conn, result);
    }
    conn->ended = true;
    return -1; /* with that the handshake fails, and evhttp closes it */
}

const char *issuer_conn_source(const SSL *ssl)
{
    const struct issuer_conn *conn = SSL_get_ex_data(ssl, slot);
    return conn && conn->source[0] ? conn->source : NULL;
}

/* What came until the handshake was done belongs to no request. */
static void on_info(const SSL *ssl, int where, int result)
{
    (void)result;
    struct issuer_conn *conn = SSL_get_ex_data(ssl, slot);
    if (conn && !conn->asked && (where & SSL_CB_HANDSHAKE_START)) {
        ask_peer(conn); /* nothing has been read yet */
    }
    if (conn && conn->header && (where & SSL_CB_HANDSHAKE_START)) {
        BIO *bio = SSL_get_rbio(ssl);
        BIO_set_callback_arg(bio, (char *)conn);
        BIO_set_callback_ex(bio, before_read);
    }
    if (conn && !conn->shaken && (where & SSL_CB_HANDSHAKE_DONE)) {
        conn->shaken = true;
        conn->mark = bytes_read(conn);
    }
}

enum att_rc issuer_conns_add(struct issuer_conns *conns, SSL *ssl, struct bufferevent *bev,
                             struct att_err *err)
{
    struct issuer_conn *conn = calloc(1, sizeof *conn);
    if (!conn) {
        return att_fail(err, ATT_E_NOMEM, "a connection");
    }
    *conn = (struct issuer_conn){.conns = conns,
                                 .bev = bev,
                                 .ssl = ssl,
                                 .since_ms = att_boottime_ms(),
                                 .next = conns->first};
    if (conns->first) {
        conns->first->prev = conn;
    }
    conns->first = conn;
    conns->count++;
    atomic_fetch_add(conns->opts.connections, 1);
    SSL_set_ex_data(ssl, slot, conn);
    SSL_set_info_callback(ssl, on_info);
    return ATT_OK;
}

void issuer_conn_request(SSL *ssl, bool held)
{
    struct issuer_conn *conn = SSL_get_ex_data(ssl, slot);
    if (conn) {
        conn->mark = bytes_read(conn);
        conn->since_ms = 0;
        conn->last_ms = att_boottime_ms();
        conn->held = held;
    }
}

bool issuer_conns_full(const struct issuer_conns *conns)
{
    return atomic_load(conns->opts.connections) >= (long long)conns->opts.most;
}

/* ---- looking -------------------------------------------------------------------------------- */

/* evhttp owns the connection, and ends it when it reads that the peer has gone. */
static void end(struct issuer_conn *conn, enum why why)
{
    evutil_socket_t fd = bufferevent_getfd(conn->bev);
    if (fd >= 0 && shutdown(fd, SHUT_RDWR) == 0) {
        conn->conns->ended[why]++;
    }
    conn->ended = true;
}

/* Bytes of a request that is not whole. */
static uint64_t unread(const struct issuer_conn *conn)
{
    uint64_t n = bytes_read(conn);
    return conn->held || n < conn->mark ? 0 : n - conn->mark;
}

static void look_at_time(struct issuer_conn *conn, int64_t now_ms)
{
    const struct issuer_conns_opts *opts = &conn->conns->opts;
    bool shaken = SSL_is_init_finished(conn->ssl) == 1;
    if (!conn->since_ms && unread(conn) > 0) {
        conn->since_ms = now_ms;
    }
    int64_t most = shaken ? opts->request_ms : opts->handshake_ms;
    if (conn->since_ms && !conn->held && now_ms - conn->since_ms > most) {
        ask_peer(conn); /* who sent nothing was not asked */
        if (conn->header) {
            refuse_header(conn, ISSUER_PROXY_LATE);
        }
        end(conn, SLOW);
    }
}

/* While what is unread is more than this thread's share, the longest goes. */
static void look_at_memory(struct issuer_conns *conns)
{
    uint64_t share = conns->opts.unread_max / conns->opts.threads, sum = 0;
    bool over = false;
    for (struct issuer_conn *c = conns->first; c; c = c->next) {
        sum += c->ended ? 0 : unread(c);
    }
    while (sum > share) {
        struct issuer_conn *longest = NULL;
        for (struct issuer_conn *c = conns->first; c; c = c->next) {
            if (!c->ended && (!longest || unread(c) > unread(longest))) {
                longest = c;
            }
        }
        if (!longest) {
            break;
        }
        sum -= unread(longest);
        end(longest, MEMORY);
        over = true;
    }
    if (over) {
        malloc_trim(0);
    }
}

static bool know_peer(struct issuer_conn *conn)
{
    ask_peer(conn);
    return conn->known;
}

static int by_key(const void *a, const void *b)
{
    const struct issuer_conn *const *x = a, *const *y = b;
    return memcmp(&(*x)->key, &(*y)->key, sizeof(struct key));
}

/* Those that have not asked anything yet first, then those that have been silent for longest. */
static int by_use(const void *a, const void *b)
{
    const struct issuer_conn *const *x = a, *const *y = b;
    return ((*x)->last_ms > (*y)->last_ms) - ((*x)->last_ms < (*y)->last_ms);
}

/* The longest run of one address in a sorted list. */
static size_t longest_run(struct issuer_conn *const *list, size_t n, size_t *ret_start)
{
    size_t best = 0;
    for (size_t i = 0, start = 0; i < n; i++) {
        start =
            i > 0 && memcmp(&list[i]->key, &list[start]->key, sizeof(struct key)) == 0 ? start : i;
        if (i + 1 - start > best) {
            best = i + 1 - start;
            *ret_start = start;
        }
    }
    return best;
}

/* Strangers of many addresses have few connections each: those that do not even shake hands go
 * soon. */
static void hurry(struct issuer_conns *conns, int64_t now_ms)
{
    for (struct issuer_conn *c = conns->first; c; c = c->next) {
        if (!c->ended && !c->shaken && now_ms - c->since_ms > ISSUER_HURRY_MS) {
            end(c, PLACES);
        }
    }
}

/* Three quarters of all places taken: the address with the most connections gives back what it has
 * beyond a quarter, the unused ones first. Behind one proxy all have one address, and then it is
 * the idle connections that go. */
static void look_at_places(struct issuer_conns *conns, int64_t now_ms)
{
    long long all = atomic_load(conns->opts.connections);
    if (all < (long long)conns->opts.most / 4 * 3 || conns->count < 2) {
        return;
    }
    hurry(conns, now_ms);
    struct issuer_conn **list = calloc(conns->count, sizeof(struct issuer_conn *));
    size_t n = 0, start = 0;
    for (struct issuer_conn *c = conns->first; list && c; c = c->next) {
        if (!c->ended && know_peer(c)) {
            list[n++] = c;
        }
    }
    if (n) {
        size_t share = conns->opts.most / conns->opts.threads / 4;
        qsort(list, n, sizeof(struct issuer_conn *), by_key);
        size_t run = longest_run(list, n, &start);
        qsort(list + start, run, sizeof(struct issuer_conn *), by_use);
        for (size_t i = 0; i + share < run; i++) {
            if (!list[start + i]->held) {
                end(list[start + i], PLACES);
            }
        }
    }
    free(list);
}

static void tell(struct issuer_conns *conns, int64_t now_ms)
{
    const unsigned *n = conns->ended;
    if (n[SLOW] + n[MEMORY] + n[PLACES] == 0 ||
        (conns->told_ms && now_ms - conns->told_ms < TELL_MS)) {
        return;
    }
    att_log(ATT_WARN, "connections.ended", ATT_N("slow", n[SLOW]), ATT_N("memory", n[MEMORY]),
            ATT_N("places", n[PLACES]), ATT_N("connections", atomic_load(conns->opts.connections)));
    memset(conns->ended, 0, sizeof conns->ended);
    conns->told_ms = now_ms;
}

void issuer_conns_look(struct issuer_conns *conns, int64_t now_ms)
{
    for (struct issuer_conn *c = conns->first; c; c = c->next) {
        if (!c->ended) {
            look_at_time(c, now_ms);
        }
    }
    look_at_memory(conns);
    look_at_places(conns, now_ms);
    tell(conns, now_ms);
}

/* A request that has not come whole, or an answer that has not gone whole, is under way. */
static bool under_way(const struct issuer_conn *conn)
{
    return conn->held || (conn->shaken && unread(conn) > 0) ||
           evbuffer_get_length(bufferevent_get_output(conn->bev)) > 0;
}

unsigned issuer_conns_drain(struct issuer_conns *conns)
{
    for (struct issuer_conn *c = conns->first; c; c = c->next) {
        if (!c->ended && !under_way(c)) {
            end(c, DRAINED);
        }
    }
    return conns->count;
}

/* ---- room ----------------------------------------------------------------------------------- */

enum att_rc issuer_conns_room(unsigned *ret_most, struct att_err *err)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return att_fail_errno(err, ATT_E_IO, "RLIMIT_NOFILE");
    }
    rlim_t want = limit.rlim_max < FILES_MAX ? limit.rlim_max : FILES_MAX;
    if (limit.rlim_cur < want) {
        const struct rlimit more = {.rlim_cur = want, .rlim_max = limit.rlim_max};
        if (setrlimit(RLIMIT_NOFILE, &more) == 0) {
            limit.rlim_cur = want;
        }
    }
    if (limit.rlim_cur < ISSUER_FILES_SPARE + LEAST) {
        return att_fail(err, ATT_E_LIMIT, "%llu descriptors are allowed, at least %d are needed",
                        (unsigned long long)limit.rlim_cur, ISSUER_FILES_SPARE + LEAST);
    }
    rlim_t room = limit.rlim_cur - ISSUER_FILES_SPARE;
    *ret_most = room < ISSUER_CONNECTIONS_MAX ? (unsigned)room : ISSUER_CONNECTIONS_MAX;
    return ATT_OK;
}
