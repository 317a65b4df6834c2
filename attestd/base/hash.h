/* SHA-256, HMAC and HKDF by libcrypto, with the algorithm fetched once. */
#ifndef ATTESTD_BASE_HASH_H
#define ATTESTD_BASE_HASH_H

#include "attestd/base/err.h"
#include "attestd/base/slice.h"

#define ATT_SHA256_LEN 32
#define ATT_HASH_MAX   64

/* Digest of the concatenation of n slices. These three abort() only if libcrypto has no SHA-256 at
 * all, in which case nothing of ours could run. */
void att_sha256(uint8_t ret[ATT_SHA256_LEN], struct att_slice bytes);
void att_sha256_v(uint8_t ret[ATT_SHA256_LEN], const struct att_slice *parts, size_t n);
void att_hmac_sha256_v(uint8_t ret[ATT_SHA256_LEN], struct att_slice key,
                       const struct att_slice *parts, size_t n);
/* RFC 5869, SHA-256; len ≤ 255*32. */
ATT_MUST_USE enum att_rc att_hkdf_sha256(uint8_t *ret, size_t len, struct att_slice ikm,
                                         struct att_slice salt, struct att_slice info,
                                         struct att_err *err);
/* Any digest by OpenSSL's name ("SHA1", "SHA256", "SHA384", "SHA512", "SM3-256"…) over n slices;
 * ret has ATT_HASH_MAX bytes of room. ATT_E_UNSUPPORTED when libcrypto lacks it. */
ATT_MUST_USE enum att_rc att_hash_v(const char *name, uint8_t ret[ATT_HASH_MAX], size_t *ret_len,
                                    const struct att_slice *parts, size_t n, struct att_err *err);
/* Fills with random bytes from libcrypto; ATT_E_CRYPTO when there is no entropy. */
ATT_MUST_USE enum att_rc att_random(uint8_t *ret, size_t len, struct att_err *err);

#endif
