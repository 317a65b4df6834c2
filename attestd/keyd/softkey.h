/* P-256 keys in software: the account key and keys of the store "memory". Between uses there is
 * nothing of them but a scalar in locked memory; for a use an EVP_PKEY is made of it, whose private
 * number is in libcrypto's locked heap and is wiped with it. Internal to keyd. */
#ifndef ATTESTD_KEYD_SOFTKEY_H
#define ATTESTD_KEYD_SOFTKEY_H

#include "attestd/base/buf.h"
#include "attestd/base/hash.h"
#include "attestd/base/secret.h"

#include <openssl/evp.h>

#define KEYD_SCALAR_LEN 32
#define KEYD_POINT_LEN  65 /* uncompressed, SEC 1 §2.3.3 */

/* A fresh scalar, by libcrypto's generator; also whether it could be locked is ret_scalar's to say.
 */
ATT_MUST_USE enum att_rc keyd_softkey_make(struct att_secret *ret_scalar, struct att_err *err);
/* For one use; EVP_PKEY_free wipes. point: the public half, NULL where it is not known yet. */
ATT_MUST_USE enum att_rc keyd_softkey_open(const struct att_secret *scalar, const uint8_t *point,
                                           EVP_PKEY **ret_pkey, struct att_err *err);
/* r ‖ s, appended. */
ATT_MUST_USE enum att_rc keyd_softkey_sign(EVP_PKEY *pkey, const uint8_t digest[ATT_SHA256_LEN],
                                           struct att_buf *ret_raw, struct att_err *err);

#endif
