/* HTTPS by libevent: threads with an event loop each. */
#ifndef PROVISION_ISSUER_SERVER_H
#define PROVISION_ISSUER_SERVER_H

#include "provision/issuer/context.h"

/* Listens on the configured address and starts the threads. */
ATT_MUST_USE enum att_rc issuer_server_new(struct issuer *issuer, struct issuer_server **ret_server,
                                           struct att_err *err);
/* No new connections; answers those who wait; what was begun (a request that has not come whole, an
 * answer that has not gone) has limit_ms; the threads are over then. */
void issuer_server_drain(struct issuer_server *server, int64_t limit_ms);
unsigned issuer_server_most(const struct issuer_server *server); /* connections */
/* What is left at once. NULL is fine. */
void issuer_server_free(struct issuer_server *server);
/* The port that is listened on. */
uint16_t issuer_server_port(const struct issuer_server *server);

#endif
