/* One unary gRPC call on attestd's socket for workloads, on a connection of its own. */
#ifndef ATTESTD_APICLIENT_UNARY_H
#define ATTESTD_APICLIENT_UNARY_H

#include "attestd/base/buf.h"

#define APICLIENT_TIMEOUT_MS 20000

/* fields: further headers of the request (struct wire_request); NULL: none. ATT_E_UNREACHABLE:
 * nobody listens; ATT_E_TIMEOUT; and what wire_reply says. The reply is appended; who gets a secret
 * in it wipes it. ret_kept, or NULL: wire_kept. */
ATT_MUST_USE enum att_rc apiclient_unary(const char *socket_path, const char *method,
                                         const char *const *fields, struct att_slice message,
                                         struct att_buf *ret_message, bool *ret_kept,
                                         struct att_err *err);

#endif
