/* One connection to attestd's socket for workloads, and one gRPC call on it at a time (HTTP/2,
 * cleartext), as a client. The bytes and the socket are apart, so that what the other side says can
 * be tried without one. */
#ifndef ATTESTD_CLIENT_WIRE_H
#define ATTESTD_CLIENT_WIRE_H

#include "attestd/base/buf.h"

#include <stdbool.h>

#define WIRE_MESSAGE_MAX ((size_t)4 << 20) /* bytes of a message that is taken at all */

struct wire;

/* fd is the wire's from here on, also when it fails; -1: bytes come by wire_take alone. */
ATT_MUST_USE enum att_rc wire_new(int fd, struct wire **ret_wire, struct att_err *err);
void wire_free(struct wire *wire); /* NULL is fine; sends nothing */
int wire_fd(const struct wire *wire);
/* A new call; one that is under way is reset. message: of the request; borrowed for this call. */
ATT_MUST_USE enum att_rc wire_begin(struct wire *wire, const char *method, struct att_slice message,
                                    struct att_err *err);
/* Sends what there is to send. ATT_E_GONE, ATT_E_PROTOCOL; ATT_E_TIMEOUT: not all by then (of
 * att_boottime_ms); the rest goes first with the next call. */
ATT_MUST_USE enum att_rc wire_send(struct wire *wire, int64_t until_ms, struct att_err *err);
/* Waits for something, takes it, and sends what it asks for. until_ms < 0: for ever. ATT_E_TIMEOUT,
 * ATT_E_GONE: the connection has ended. */
ATT_MUST_USE enum att_rc wire_step(struct wire *wire, int64_t until_ms, struct att_err *err);
/* What came, in place of a socket's. ATT_E_PROTOCOL: no HTTP/2, or too long. */
ATT_MUST_USE enum att_rc wire_take(struct wire *wire, struct att_slice bytes, struct att_err *err);
/* The next whole message of the call's answer, until the next call of any of these. ATT_E_NOTFOUND
 * (without err): none yet. ATT_E_PROTOCOL: what is there is none. */
ATT_MUST_USE enum att_rc wire_message(struct wire *wire, struct att_slice *ret_message,
                                      struct att_err *err);
bool wire_ended(const struct wire *wire); /* the call */
/* After the end, what its status says (gRPC over HTTP/2, "Responses"). ATT_E_DENIED, ATT_E_RETRY
 * (UNAVAILABLE), ATT_E_NOTFOUND, ATT_E_CONFLICT (FAILED_PRECONDITION), ATT_E_INVAL, ATT_E_TIMEOUT,
 * ATT_E_LIMIT, ATT_E_UNSUPPORTED; ATT_E_PROTOCOL for anything else; ATT_E_GONE: it ended without
 * one. The reason is the word that attestd puts before or behind its sentence. */
ATT_MUST_USE enum att_rc wire_status(const struct wire *wire, struct att_err *err);

#endif
