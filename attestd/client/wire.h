/* One connection to attestd's socket for workloads, and one gRPC call on it at a time (HTTP/2,
 * cleartext), as a client: libattest-client's and our own programs'. The bytes and the socket are
 * apart, so that what the other side says can be tried without one. Times are of
 * att_boottime_ms. */
#ifndef ATTESTD_CLIENT_WIRE_H
#define ATTESTD_CLIENT_WIRE_H

#include "attestd/base/buf.h"

#include <stdbool.h>

#define WIRE_MESSAGE_MAX ((size_t)4 << 20) /* bytes of a message that is taken at all */
#define WIRE_FIELDS_MAX  4

struct wire;

struct wire_request {
    const char *method;        /* "/attestd.v1.Signer/Chain" */
    struct att_slice message;  /* borrowed for the call of wire_begin */
    const char *const *fields; /* name, value, … NULL: further headers; NULL: none */
    int64_t until_ms;          /* the server is told (grpc-timeout); < 0: it has no end */
};

/* agent: the user-agent, borrowed for the wire's life. fd is the wire's from here on, also when it
 * fails; -1: bytes come by wire_take alone. */
ATT_MUST_USE enum att_rc wire_new(int fd, const char *agent, struct wire **ret_wire,
                                  struct att_err *err);
/* One to the socket at path. ATT_E_INVAL: the path is too long; ATT_E_UNREACHABLE: nobody listens;
 * ATT_E_TIMEOUT: as many wait already as may. */
ATT_MUST_USE enum att_rc wire_connect(const char *path, const char *agent, int64_t until_ms,
                                      struct wire **ret_wire, struct att_err *err);
void wire_free(struct wire *wire); /* NULL is fine; sends nothing; wipes request and answer */
int wire_fd(const struct wire *wire);
/* A new call; one that is under way is reset. ATT_E_GONE: no call goes on this connection any more;
 * ATT_E_INVAL: more than WIRE_FIELDS_MAX further headers. */
ATT_MUST_USE enum att_rc wire_begin(struct wire *wire, const struct wire_request *request,
                                    struct att_err *err);
/* Sends what there is to send. ATT_E_GONE, ATT_E_PROTOCOL; ATT_E_TIMEOUT: not all by then; the rest
 * goes first with the next call. */
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
/* The call has ended, or its connection was given up by either side (GOAWAY). */
bool wire_ended(const struct wire *wire);
/* attestd-kept: the token was in attestd's memory, and may have been given before. */
bool wire_kept(const struct wire *wire);
/* After the end, what its status says (gRPC over HTTP/2, "Responses"): status.h; ATT_E_PROTOCOL
 * also for no gRPC; ATT_E_GONE: it ended without one. */
ATT_MUST_USE enum att_rc wire_status(const struct wire *wire, struct att_err *err);
/* After the end of a unary call: what the status says, then the one message, borrowed as above.
 * ATT_E_PROTOCOL: none, or more. */
ATT_MUST_USE enum att_rc wire_reply(struct wire *wire, struct att_slice *ret_message,
                                    struct att_err *err);
/* A whole unary call, to request->until_ms: all of the above. */
ATT_MUST_USE enum att_rc wire_call(struct wire *wire, const struct wire_request *request,
                                   struct att_slice *ret_message, struct att_err *err);

#endif
