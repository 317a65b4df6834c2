/* certs_pem_parse with other caps, for bundles. Internal to certs/. */
#ifndef CERTS_PEM_H
#define CERTS_PEM_H

#include "certs/chain.h"

ATT_MUST_USE enum att_rc certs_pem_parse_max(struct att_slice pem, size_t max_len, int max_certs,
                                             STACK_OF(X509) * *ret_certs, struct att_err *err);

#endif
