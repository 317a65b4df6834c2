/* The types of key that an agent may have, and their one spelling as SubjectPublicKeyInfo. A key of
 * RSA has the exponent 65537 and a modulus of exactly 2048 or 3072 bits: with these fixed the
 * whole structure is a constant around the modulus, as it is for P-256 (p256.h). Thread-safe. */
#ifndef ATTESTD_BASE_KEYTYPE_H
#define ATTESTD_BASE_KEYTYPE_H

#include "attestd/base/buf.h"
#include "attestd/base/p256.h"

#define ATT_RSA_MODULUS_MAX 384 /* bytes: RSA-3072 */
#define ATT_RSA_EXPONENT    65537
#define ATT_KEYTYPE_SPKI_MAX                                                                       \
    422 /* bytes of the longest SubjectPublicKeyInfo of a key that an agent may have */

enum att_keytype {
    ATT_KEYTYPE_NONE,
    ATT_KEYTYPE_P256,    /* ECDSA on P-256: the one of every key store */
    ATT_KEYTYPE_RSA2048, /* in an HSM only, where the profile allows it */
    ATT_KEYTYPE_RSA3072,
    ATT_KEYTYPE_COUNT,
};
/* "ec-p256", "rsa-2048", "rsa-3072"; "none". As in entries, keyd's answers and hsmd's. */
const char *att_keytype_name(enum att_keytype type);
/* ATT_KEYTYPE_NONE: none of them. */
enum att_keytype att_keytype_parse(struct att_slice name);
bool att_keytype_is_rsa(enum att_keytype type);
/* Bytes of a signature: 64 (r ‖ s), or the modulus's length. */
size_t att_keytype_sig_len(enum att_keytype type);
/* Bytes of an RSA modulus; 0 for P-256. */
size_t att_keytype_modulus_len(enum att_keytype type);

/* The type of a key from its SubjectPublicKeyInfo, which must be the bytes that we would write:
 * ATT_E_PARSE where it is no such structure of either kind, where a point is not on the curve or a
 * modulus is even; ATT_E_DENIED keyType where it is a whole RSA key of another size or exponent. */
ATT_MUST_USE enum att_rc att_keytype_of_spki(struct att_slice spki, enum att_keytype *ret_type,
                                             struct att_err *err);
/* The same, as a key: the caller's (EVP_PKEY_free). */
ATT_MUST_USE enum att_rc att_keytype_key(struct att_slice spki, EVP_PKEY **ret_key,
                                         struct att_err *err);
/* RSA: modulus, big-endian, without leading zeroes → SubjectPublicKeyInfo with exponent 65537,
 * appended. ATT_E_INVAL: of another length than the type's, or even. */
ATT_MUST_USE enum att_rc att_keytype_rsa_spki(enum att_keytype type, struct att_slice modulus,
                                              struct att_buf *ret_spki, struct att_err *err);
/* The modulus within such a SubjectPublicKeyInfo; empty for any other bytes. */
struct att_slice att_keytype_modulus(struct att_slice spki);
/* What the key identifier of a certificate is made of: the BIT STRING's content. Empty for any
 * other bytes. */
struct att_slice att_keytype_bits(struct att_slice spki);

/* ---- signatures with RSA --------------------------------------------------------------------- */

enum att_rsa_scheme {
    ATT_RSA_PKCS1 = 1, /* RSASSA-PKCS1-v1_5 (RFC 8017 §8.2) */
    ATT_RSA_PSS,       /* RSASSA-PSS, MGF1 with the same hash, salt as long as the digest (§8.1) */
};
#define ATT_RSA_DIGEST_INFO_MAX (19 + 64)
/* SHA-256, SHA-384 or SHA-512 by the digest's length; 0: none of them. Bytes of DigestInfo (RFC
 * 8017 §9.2) with this digest, in ret. */
size_t att_rsa_digest_info(struct att_slice digest, uint8_t ret[ATT_RSA_DIGEST_INFO_MAX]);
/* The digest within exactly such a DigestInfo; empty for any other bytes: whatever else PKCS #1
 * v1.5 could be made to sign is no signature that a protocol of today makes. */
struct att_slice att_rsa_digest_of_info(struct att_slice digest_info);
/* ATT_E_AUTH when it does not hold. digest: 32, 48 or 64 bytes. */
ATT_MUST_USE enum att_rc att_rsa_verify(EVP_PKEY *key, enum att_rsa_scheme scheme,
                                        struct att_slice digest, struct att_slice signature,
                                        struct att_err *err);

#endif
