/* One unary gRPC call (HTTP/2, cleartext) on attestd's socket for workloads, as a client. The bytes
 * and the socket are apart, so that what the other side says can be tried without one. */
#ifndef ATTESTD_APICLIENT_CALL_H
#define ATTESTD_APICLIENT_CALL_H

#include "attestd/base/buf.h"

#define APICLIENT_REPLY_MAX  ((size_t)4 << 20) /* bytes of a message that is taken at all */
#define APICLIENT_TIMEOUT_MS 20000

struct apiclient_call;

enum {
    APICLIENT_SPIFFE = 1 << 0, /* the header that the SPIFFE Workload API demands */
    APICLIENT_FRESH = 1 << 1,  /* attestd-fresh: a token that was given to nobody yet */
};
/* method: "/attestd.v1.Signer/Chain". flags: of the above. */
ATT_MUST_USE enum att_rc apiclient_call_new(const char *method, unsigned flags,
                                            struct att_slice message,
                                            struct apiclient_call **ret_call, struct att_err *err);
void apiclient_call_free(struct apiclient_call *call); /* NULL is fine; wipes the reply */
/* What is to be sent next, borrowed until the following call; empty: nothing now. */
ATT_MUST_USE enum att_rc apiclient_call_send(struct apiclient_call *call,
                                             struct att_slice *ret_bytes, struct att_err *err);
/* What came. ATT_E_PROTOCOL: it is no HTTP/2, or no answer to this. */
ATT_MUST_USE enum att_rc apiclient_call_recv(struct apiclient_call *call, struct att_slice bytes,
                                             struct att_err *err);
bool apiclient_call_ended(const struct apiclient_call *call);
/* attestd-kept: the token was in attestd's memory, and may have been given before. */
bool apiclient_call_kept(const struct apiclient_call *call);
/* After the end: the one message of the reply, borrowed; or what the status says (gRPC over HTTP/2,
 * "Responses"). ATT_E_DENIED, ATT_E_RETRY (UNAVAILABLE), ATT_E_NOTFOUND, ATT_E_CONFLICT
 * (FAILED_PRECONDITION), ATT_E_INVAL, ATT_E_TIMEOUT, ATT_E_LIMIT, ATT_E_UNSUPPORTED; ATT_E_PROTOCOL
 * for anything else; ATT_E_GONE: it ended without a status. The reason is the word that attestd
 * puts before or behind its sentence. */
ATT_MUST_USE enum att_rc apiclient_call_reply(const struct apiclient_call *call,
                                              struct att_slice *ret_message, struct att_err *err);

/* A whole call. ATT_E_UNREACHABLE: nobody listens; ATT_E_TIMEOUT; and the above. The reply is
 * appended; who gets a secret in it wipes it. ret_kept: or NULL. */
ATT_MUST_USE enum att_rc apiclient_unary(const char *socket_path, const char *method,
                                         unsigned flags, struct att_slice message,
                                         struct att_buf *ret_message, bool *ret_kept,
                                         struct att_err *err);

#endif
