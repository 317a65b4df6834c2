/* Public keys as EVP_PKEY. Internal to this folder: see jws.h for what is accepted. */
#ifndef ATTESTD_PROVISION_ACME_JWK_H
#define ATTESTD_PROVISION_ACME_JWK_H

#include "attestd/base/json.h"

#include <openssl/types.h>

/* The caller frees *ret_pkey (EVP_PKEY_free). Reason "badPublicKey". */
ATT_MUST_USE enum att_rc acme_jwk_pkey(const json_t *jwk, EVP_PKEY **ret_pkey, struct att_err *err);
ATT_MUST_USE enum att_rc acme_jwk_pkey_from_spki(struct att_slice spki_der, EVP_PKEY **ret_pkey,
                                                 struct att_err *err);
/* Is it a kind and size of key that we accept? */
ATT_MUST_USE enum att_rc acme_jwk_accept(EVP_PKEY *pkey, struct att_err *err);

#endif
