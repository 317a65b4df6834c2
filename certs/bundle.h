/* Trust bundles: files of PEM root certificates. */
#ifndef CERTS_BUNDLE_H
#define CERTS_BUNDLE_H

#include "attestd/base/buf.h"

#include <openssl/x509.h>

#define CERTS_BUNDLE_MAX_CERTS 64
#define CERTS_BUNDLE_MAX_LEN   262144

/* Strict PEM as certs_pem_parse; each must be a self-issued CA certificate whose own signature
 * holds, none twice, at least one. */
ATT_MUST_USE enum att_rc certs_bundle_parse(struct att_slice pem, STACK_OF(X509) * *ret_roots,
                                            struct att_err *err);
ATT_MUST_USE enum att_rc certs_bundle_load(const char *path, STACK_OF(X509) * *ret_roots,
                                           struct att_err *err);
/* Atomic, mode 0644. */
ATT_MUST_USE enum att_rc certs_bundle_save(const STACK_OF(X509) * roots, const char *path,
                                           struct att_err *err);

#endif
