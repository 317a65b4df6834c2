/* A small HTTP/1.1 server for what anybody may read: GET or HEAD, one request a connection, one
 * thread. In the clear (revocation lists and metrics) or over TLS (keys of tokens). evhttp is not
 * used here: it has no limit of connections, and strangers must not take the descriptors that
 * others need. */
#ifndef ATTESTD_WEB_PLAIN_H
#define ATTESTD_WEB_PLAIN_H

#include "attestd/base/buf.h"

#include <sys/types.h>

#define WEB_IDLE_S   5
#define WEB_LIFE_S   15   /* of a connection, however it is busy */
#define WEB_HEAD_MAX 4096 /* bytes of a request */
#define WEB_MOST     128  /* connections; beyond, a newcomer is closed */
#define WEB_PER_PEER 16   /* of them one address has (IPv6: one /64); of a unix socket: all */

struct web_request {
    const char *path;   /* as in the request line, without query */
    const char *accept; /* NULL: none */
};
struct web_answer {
    const char *status;  /* "200 OK" */
    char headers[512];   /* further ones, each ended by CRLF */
    struct att_buf body; /* freed by the server */
};
/* In the server's thread; must not wait for long. */
typedef void web_handler(void *user, const struct web_request *request,
                         struct web_answer *ret_answer);

struct web_opts {
    const char *what;      /* in errors: "crl.listen" */
    const char *host;      /* an address, or */
    const char *unix_path; /* a socket, made anew with mode 0666 (its folder says who comes) */
    uint16_t port;
    web_handler *handler;
    /* NULL: in the clear. What a connection begins with, counted for it (SSL_CTX_up_ref); NULL: it
     * is closed. In the server's thread. */
    struct ssl_ctx_st *(*tls)(void *user);
    void *user;
};
struct web_plain;

ATT_MUST_USE enum att_rc web_plain_new(const struct web_opts *opts, struct web_plain **ret_server,
                                       struct att_err *err);
void web_plain_free(struct web_plain *server); /* NULL is fine */
uint16_t web_plain_port(const struct web_plain *server);

#endif
