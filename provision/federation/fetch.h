/* One look at a bundle endpoint (SPIFFE Federation §5.2): HTTPS without redirects, a bounded
 * answer, addresses asked for before they are connected to. */
#ifndef PROVISION_FEDERATION_FETCH_H
#define PROVISION_FEDERATION_FETCH_H

#include "attestd/base/buf.h"

#include <openssl/x509.h>
#include <pthread.h>
#include <sys/socket.h>

struct acme_http;

struct federation_endpoint {
    const char *url; /* https */
    /* https_web */
    const char *ca_file; /* PEM; NULL: the system's roots */
    /* https_spiffe: whose SPIFFE ID the endpoint must show (NULL: https_web), and by which roots.
     * The URL's host is not looked at then (§5.2.2). */
    const char *spiffe_id;
    const STACK_OF(X509) * roots;
    /* NULL: it may be connected to; else what it is. May itself be NULL: any. */
    const char *(*refused)(void *user, const struct sockaddr *address);
    void *user;
    int timeout_ms; /* of the whole look */
};

/* Ends a look that is under way, and those after it; from any thread. */
struct federation_stop {
    pthread_mutex_t lock;
    struct acme_http *http;
    bool stopped;
};
void federation_stop_init(struct federation_stop *stop);
void federation_stop_done(struct federation_stop *stop);
void federation_stop(struct federation_stop *stop);

/* By reason: endpointAway (ATT_E_UNREACHABLE, ATT_E_TIMEOUT), endpointTls (its certificate is not
 * to be believed), endpointId (it is another SPIFFE ID's), endpointAddress, endpointStatus (not
 * 200; a redirect is none, either), bundleSize. ATT_E_GONE: stopped. stop may be NULL. */
ATT_MUST_USE enum att_rc federation_fetch(const struct federation_endpoint *endpoint,
                                          struct federation_stop *stop, struct att_buf *ret_text,
                                          struct att_err *err);

#endif
