/* P-256 keys in software: the account key and keys of the stores "memory" and "exportable". What
 * stays of them is a scalar in locked memory; for a use an EVP_PKEY is made of it, whose private
 * number is in libcrypto's locked heap and is wiped with it (openkey.h keeps some for longer).
 * Internal to keyd.
 */
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
/* Ready to sign, as often as wanted, one thread at a time. EVP_PKEY_CTX_free; it holds the key. */
ATT_MUST_USE enum att_rc keyd_softkey_ready(EVP_PKEY *pkey, EVP_PKEY_CTX **ret_ctx,
                                            struct att_err *err);
/* The key as PKCS#8 DER (RFC 5958 §2 with RFC 5915 §3, public key included), in memory of its own:
 * libcrypto's encoder would leave copies in the heap. ATT_E_LIMIT memoryLock: it cannot be locked.
 */
#define KEYD_PKCS8_LEN 138
ATT_MUST_USE enum att_rc keyd_softkey_pkcs8(const struct att_secret *scalar,
                                            const uint8_t point[KEYD_POINT_LEN],
                                            struct att_secret *ret_pkcs8, struct att_err *err);
/* r ‖ s, appended. */
ATT_MUST_USE enum att_rc keyd_softkey_sign(EVP_PKEY_CTX *ctx, const uint8_t digest[ATT_SHA256_LEN],
                                           struct att_buf *ret_raw, struct att_err *err);

#endif
