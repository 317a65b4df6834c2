/* The admin API over HTTPS (docs/ADMIN.md): POST /admin/v1 with the frames of the socket as bodies.
 */
#ifndef PROVISION_ISSUER_ADMIN_HTTPS_H
#define PROVISION_ISSUER_ADMIN_HTTPS_H

#include "provision/issuer/admin_auth.h"

#define ISSUER_ADMIN_PATH "/admin/v1"

/* ---- one request, without a socket ------------------------------------------------------------
 */

struct issuer_admin_request {
    enum issuer_method method;
    const char *path, *content_type;
    struct issuer_credential credential;
    struct att_slice body;
};
struct issuer_admin_answer {
    int status;
    struct att_buf body; /* JSON */
    int retry_after_s;   /* 0: none */
    bool challenge;      /* WWW-Authenticate: Bearer (RFC 6750 §3) */
};
/* Authenticates, reads, runs; never fails. Thread-safe. */
void issuer_admin_answer(struct issuer *issuer, const struct issuer_admin_request *request,
                         struct issuer_admin_answer *ret_answer);

/* ---- the listener ------------------------------------------------------------------------------
 */

struct issuer_admin_server;
/* On admin.listen, with the issuer's TLS certificate; *ret_server NULL where that is not set. */
ATT_MUST_USE enum att_rc issuer_admin_server_new(struct issuer *issuer,
                                                 struct issuer_admin_server **ret_server,
                                                 struct att_err *err);
/* Ends it when what is under way was answered. NULL is fine. */
void issuer_admin_server_free(struct issuer_admin_server *server);
uint16_t issuer_admin_server_port(const struct issuer_admin_server *server);

#endif
