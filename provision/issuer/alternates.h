/* Further chains of the authorities. */
#ifndef PROVISION_ISSUER_ALTERNATES_H
#define PROVISION_ISSUER_ALTERNATES_H

#include "provision/issuer/context.h"

#include <openssl/x509.h>

/* state_dir/ca/NAME-alternate.pem, whose first certificate must be of ca's subject and key;
 * *ret_pem is left as it is where the file is not there. */
ATT_MUST_USE enum att_rc issuer_alternate_load(const char *state_dir, const char *name, X509 *ca,
                                               char **ret_pem, struct att_err *err);
/* The chain for this certificate; NULL when there is none. */
const char *issuer_alternate_of(const struct issuer *issuer, const struct store_cert *cert);
/* The leaf of cert->pem and that chain; ATT_E_NOTFOUND. */
ATT_MUST_USE enum att_rc issuer_alternate_put(const struct issuer *issuer,
                                              const struct store_cert *cert,
                                              struct att_buf *ret_pem, struct att_err *err);

#endif
