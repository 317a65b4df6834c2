/* Public keys on P-256 from their coordinates. OpenSSL 3 takes half as long as a verification to
 * make such a key by EVP_PKEY_fromdata (a group for each key) and twice as long by d2i_PUBKEY (a
 * decoder for each key); here each is a copy of one whose group is there. Thread-safe. */
#ifndef ATTESTD_BASE_P256_H
#define ATTESTD_BASE_P256_H

#include "attestd/base/err.h"
#include "attestd/base/slice.h"

#include <openssl/types.h>

#define ATT_P256_LEN      32 /* bytes of a coordinate */
#define ATT_P256_XY_LEN   64 /* x ‖ y, big-endian */
#define ATT_P256_SPKI_LEN 91

/* ATT_OK when the coordinates are in the field and the point is on the curve; with cofactor 1 that
 * is all of SP 800-56A rev. 3 §5.6.2.3.3 (infinity has no coordinates). ATT_E_PARSE otherwise. */
ATT_MUST_USE enum att_rc att_p256_check(const uint8_t xy[ATT_P256_XY_LEN], struct att_err *err);
/* Checks likewise; the key is the caller's (EVP_PKEY_free). */
ATT_MUST_USE enum att_rc att_p256_key(const uint8_t xy[ATT_P256_XY_LEN], EVP_PKEY **ret_key,
                                      struct att_err *err);
/* DER SubjectPublicKeyInfo, named curve and uncompressed point; nothing is checked. */
void att_p256_spki(uint8_t ret_spki[ATT_P256_SPKI_LEN], const uint8_t xy[ATT_P256_XY_LEN]);
/* The coordinates within such a SubjectPublicKeyInfo; NULL for bytes of any other form. */
const uint8_t *att_p256_of_spki(struct att_slice spki);

#endif
