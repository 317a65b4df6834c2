/* File signatures in IMA's list: the "sig" field of ima-sig, ima-sigv2 and others is the file's
 * security.ima attribute. Kernel: security/integrity/integrity.h (struct signature_v2_hdr,
 * struct ima_file_id), security/integrity/digsig_asymmetric.c:
 *   u8 type, version, hash_algo; be32 keyid; be16 sig_size; sig[sig_size]
 * type 3, version 2: over the file's digest; type 6, version 3: over the hash of {6, hash_algo,
 * fs-verity digest}. RSA with PKCS#1 v1.5, or ECDSA. keyid: the last 4 bytes of the key's subject
 * key identifier. SHA-256, SHA-384 and SHA-512 only. */
#ifndef ATTESTD_VERIFY_IMASIG_H
#define ATTESTD_VERIFY_IMASIG_H

#include "attestd/base/err.h"
#include "attestd/base/hash.h"
#include "tpm/parse/ima.h"

#include <openssl/evp.h>

#define VERIFY_IMASIG_KEYS_MAX 16
#define VERIFY_IMASIG_CERT_MAX 8192 /* bytes of a certificate */
/* Of one list of IMA, signatures that were verified and do not hold; further ones are not verified.
 * What a host writes there costs it nothing, verifying costs the issuer much. */
#define VERIFY_IMASIG_TRIES 32

struct verify_imasig_key {
    EVP_PKEY *key; /* owned: RSA of 2048 bits and more, or EC on P-256, P-384, P-521 */
    uint8_t keyid[4];
    uint8_t cert_sha256[ATT_SHA256_LEN];
};
/* From a certificate, base64 of its DER. Its own validity and issuer are not looked at: the policy
 * that has it vouches for it. ATT_E_PARSE says what was expected. */
ATT_MUST_USE enum att_rc verify_imasig_key_parse(const char *base64, struct verify_imasig_key *ret,
                                                 struct att_err *err);
void verify_imasig_key_done(struct verify_imasig_key *key);

enum verify_imasig {
    VERIFY_IMASIG_NONE = 0,  /* the entry has no signature */
    VERIFY_IMASIG_MALFORMED, /* or of another type or hash, or not over this kind of digest */
    VERIFY_IMASIG_UNKNOWN,   /* no key of that id */
    VERIFY_IMASIG_BAD,       /* its key did not make it over this digest */
    VERIFY_IMASIG_UNTRIED,   /* there is a key of that id, and no try was left */
    VERIFY_IMASIG_GOOD,
};
/* "is not there", "is malformed", "is by a key that is not allowed", "does not hold", "was not
 * verified: too many before it do not hold", "holds". */
const char *verify_imasig_word(enum verify_imasig sig);
/* Of a violation: NONE. No two keys have the same id. tries: how many may still turn out not to
 * hold; one less for each that does not. ret_keyid: of a signature that has one, else zeroes. */
enum verify_imasig verify_imasig_check(const struct verify_imasig_key *keys, size_t n,
                                       const struct parse_ima_entry *entry, size_t *tries,
                                       uint8_t ret_keyid[4]);

#endif
