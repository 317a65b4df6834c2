/* What the service answered, from its bytes. */
#ifndef ATTESTD_CLIENT_ANSWER_H
#define ATTESTD_CLIENT_ANSWER_H

#include "attestd/base/err.h"
#include "attestd/base/slice.h"
#include "attestd/client/attest-client.h"

/* A ChainResponse: SPIFFE ID and key id, 1 to 16 certificates, at most 64 roots. ATT_E_PROTOCOL,
 * ATT_E_NOMEM. */
ATT_MUST_USE enum att_rc answer_chain(struct att_slice message,
                                      struct attest_client_chain **ret_chain, struct att_err *err);
/* A SignResponse, by the key that was asked for (NULL or empty: any). sig has room for
 * ATTEST_CLIENT_SIGNATURE_MAX. ATT_E_PROTOCOL. */
ATT_MUST_USE enum att_rc answer_signature(struct att_slice message, const char *key_id,
                                          uint8_t *ret_sig, size_t *ret_len, struct att_err *err);

#endif
