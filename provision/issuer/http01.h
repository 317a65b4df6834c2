/* What http-01 asks of a name (RFC 8555 §8.3), for strangers: the issuer as an HTTP client that
 * cannot be used as anybody's proxy.
 *
 * One thread of its own runs all validations side by side (libcurl's multi interface), so that a
 * target which does not answer delays no other. Each address is judged where the socket for it is
 * made, which is the address that is then connected to: what a name resolves to before or after
 * does not matter. That holds for each redirect, of which there are at most 10, to http and https
 * on the ports 80 and 443 and the configured one. No proxy, no cookies, no credentials of the URL,
 * no connection used twice; certificates of https targets are not verified (the proof is control of
 * port 80). */
#ifndef PROVISION_ISSUER_HTTP01_H
#define PROVISION_ISSUER_HTTP01_H

#include "attestd/conf/issuer_conf.h"
#include "provision/acme/problem.h"

#define ISSUER_HTTP01_REDIRECTS 10
#define ISSUER_HTTP01_BODY_MAX  ((size_t)64 << 10)
#define ISSUER_HTTP01_HEADS_MAX ((size_t)64 << 10) /* of all answers of one validation */
#define ISSUER_HTTP01_RUNNING   256                /* at a time; others wait their turn */
#define ISSUER_HTTP01_PER_NAME  4                  /* of one name at a time */
#define ISSUER_HTTP01_WAITING   4096

struct issuer_http01_request {
    char id[72]; /* the caller's word for it, given back */
    char name[254];
    char token[64];
    char key_authorization[160];
    /* Of the settings at this time. */
    struct conf_range allow[CONF_RANGES_MAX];
    size_t n_allow;
    unsigned port;
    int64_t timeout_ms;
};

/* problem: NULL when the name serves what it must. Called in the validations' thread, which it
 * should not keep for long; each request that was taken has exactly one call, also at the end. */
typedef void (*issuer_http01_fn)(void *user, const struct issuer_http01_request *request,
                                 const struct acme_problem *problem);

struct issuer_http01;
/* Starts the thread. */
ATT_MUST_USE enum att_rc issuer_http01_new(issuer_http01_fn done, void *user,
                                           struct issuer_http01 **ret_http01, struct att_err *err);
/* Ends the thread and what runs: those requests are told serverInternal. NULL is fine. */
void issuer_http01_free(struct issuer_http01 *http01);
/* Any thread; copies. One of this id that waits or runs already goes on alone. ATT_E_RETRY when
 * ISSUER_HTTP01_WAITING wait already. */
ATT_MUST_USE enum att_rc issuer_http01_start(struct issuer_http01 *http01,
                                             const struct issuer_http01_request *request,
                                             struct att_err *err);

#endif
