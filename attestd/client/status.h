/* A call's status (gRPC over HTTP/2, "Responses") as bytes of the server. */
#ifndef ATTESTD_CLIENT_STATUS_H
#define ATTESTD_CLIENT_STATUS_H

#include "attestd/base/err.h"
#include "attestd/base/slice.h"

#define STATUS_TEXT_MAX 320 /* with its NUL; what is longer is cut */

/* One to five digits; -1: no such number. */
long status_number(struct att_slice value);
/* grpc-message, percent-decoded; what is no escape stays as it is. Clean text. */
void status_text(struct att_slice value, char ret_text[STATUS_TEXT_MAX]);
/* What status, which is not 0, means. ATT_E_DENIED, ATT_E_RETRY (UNAVAILABLE), ATT_E_NOTFOUND,
 * ATT_E_CONFLICT (FAILED_PRECONDITION), ATT_E_INVAL, ATT_E_TIMEOUT, ATT_E_LIMIT,
 * ATT_E_UNSUPPORTED; ATT_E_PROTOCOL for anything else. The reason is the word that attestd puts
 * before or behind its sentence. */
ATT_MUST_USE enum att_rc status_refusal(long status, const char *text, struct att_err *err);

#endif
