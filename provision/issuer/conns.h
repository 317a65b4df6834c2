/* The connections of one server thread, and what ends one before it is a burden to the others: a
 * handshake or a request that takes too long as a whole (idle time alone is evhttp's to judge),
 * bodies that fill the memory, and, when places are short, what the address with the most
 * connections leaves unused and whoever has not shaken hands yet. Nothing here knows a peer: it
 * holds before anybody is authenticated. For the thread that owns it, except for the callback of a
 * connection's end, which runs there or after the thread is gone. */
#ifndef PROVISION_ISSUER_CONNS_H
#define PROVISION_ISSUER_CONNS_H

#include "provision/issuer/context.h"

#include <event2/bufferevent.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

/* A host on line has one that waits for its view; the descriptors that the unit allows are usually
 * fewer. */
#define ISSUER_CONNECTIONS_MAX 32768
#define ISSUER_HANDSHAKE_MS    15000
#define ISSUER_HURRY_MS        2000  /* for a handshake, when places are short */
#define ISSUER_REQUEST_MS      60000 /* from its first byte to its last */
#define ISSUER_UNREAD_MAX                                                                          \
    ((uint64_t)256 << 20)      /* bytes of requests that are not whole, all threads */
#define ISSUER_FILES_SPARE 128 /* descriptors that are not connections' */

struct issuer_conns_opts {
    unsigned most;       /* connections, of all threads */
    unsigned threads;    /* how many share them */
    uint64_t unread_max; /* bytes, of all threads */
    int64_t handshake_ms, request_ms;
    atomic_llong *connections; /* counts those of all threads */
    /* Is this one a balancer, which has to say whose a connection is before TLS (proxy.h)? NULL:
     * nobody is. */
    bool (*balancer)(void *user, const struct sockaddr *peer);
    void *balancer_user;
};

struct issuer_conns;
struct issuer_conn;

ATT_MUST_USE enum att_rc issuer_conns_new(const struct issuer_conns_opts *opts,
                                          struct issuer_conns **ret_conns, struct att_err *err);
/* When no connection is left. NULL is fine. */
void issuer_conns_free(struct issuer_conns *conns);

/* A connection that was just accepted; it ends with ssl. ATT_E_NOMEM. */
ATT_MUST_USE enum att_rc issuer_conns_add(struct issuer_conns *conns, SSL *ssl,
                                          struct bufferevent *bev, struct att_err *err);
/* A whole request has come on it. held: its answer waits, for which it is not ended. */
void issuer_conn_request(SSL *ssl, bool held);
/* The address that a balancer said it is from; NULL: it said none, or the peer is no balancer. With
 * the connection's life. */
const char *issuer_conn_source(const SSL *ssl);
/* Are all places taken? */
bool issuer_conns_full(const struct issuer_conns *conns);
/* The server ends: those that have no request under way go, at each call. How many are left. */
unsigned issuer_conns_drain(struct issuer_conns *conns);
/* Ends what has to end by now (att_boottime_ms). Often enough: every 100 ms. */
void issuer_conns_look(struct issuer_conns *conns, int64_t now_ms);

/* As many descriptors as the system allows; how many connections fit beside what else is open.
 * ATT_E_LIMIT when too few do. */
ATT_MUST_USE enum att_rc issuer_conns_room(unsigned *ret_most, struct att_err *err);

#endif
