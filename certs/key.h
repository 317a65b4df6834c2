/* P-256 keys: in files, as SubjectPublicKeyInfo, and keys whose signing happens elsewhere.
 * Everything here but the last of these refuses a key that is not on P-256 (named curve). EVP_PKEYs
 * are owned by the caller (EVP_PKEY_free, or certs_autokey of oid.h). Thread-safe. */
#ifndef CERTS_KEY_H
#define CERTS_KEY_H

#include "attestd/base/buf.h"
#include "attestd/base/hash.h"
#include "attestd/base/keytype.h"

#include <openssl/evp.h>

#define CERTS_P256_LEN     32   /* bytes of a coordinate or of r or s */
#define CERTS_SPKI_MAX     1024 /* bytes of a SubjectPublicKeyInfo that is read at all (RSA-4096) */
#define CERTS_KEY_FILE_MAX 8192
#define CERTS_SIG_DER_MAX  72

bool certs_key_is_p256(const EVP_PKEY *key);
ATT_MUST_USE enum att_rc certs_key_generate(EVP_PKEY **ret_key, struct att_err *err);
/* PKCS#8 PEM, unencrypted. Loading refuses a file that group or others may read (ATT_E_DENIED) and
 * anything but one P-256 private key; saving is atomic, mode 0600. ATT_E_NOTFOUND: no such file. */
ATT_MUST_USE enum att_rc certs_key_load(const char *path, EVP_PKEY **ret_key, struct att_err *err);
ATT_MUST_USE enum att_rc certs_key_save(EVP_PKEY *key, const char *path, struct att_err *err);

/* DER SubjectPublicKeyInfo, appended; works for every key type and for keys held elsewhere. */
ATT_MUST_USE enum att_rc certs_key_spki(const EVP_PKEY *key, struct att_buf *ret_der,
                                        struct att_err *err);
/* SHA-256 of the DER SubjectPublicKeyInfo. For an EK this is its id. */
ATT_MUST_USE enum att_rc certs_key_spki_sha256(const EVP_PKEY *key, uint8_t ret[ATT_SHA256_LEN],
                                               struct att_err *err);
/* A public key from exactly one DER SubjectPublicKeyInfo of P-256; trailing bytes are an error, and
 * so is any encoding other than the one we would write. */
ATT_MUST_USE enum att_rc certs_key_from_spki(struct att_slice der, EVP_PKEY **ret_key,
                                             struct att_err *err);
/* Whether that would give a key, without one being made. */
ATT_MUST_USE enum att_rc certs_key_check_spki(struct att_slice der, struct att_err *err);
/* A public key from the affine point (a TPM's TPMS_ECC_POINT); ATT_E_PARSE when not on the curve.
 * Coordinates shorter than 32 bytes are padded on the left. */
ATT_MUST_USE enum att_rc certs_key_from_point(struct att_slice x, struct att_slice y,
                                              EVP_PKEY **ret_key, struct att_err *err);
ATT_MUST_USE enum att_rc certs_key_point(const EVP_PKEY *key, uint8_t ret_x[CERTS_P256_LEN],
                                         uint8_t ret_y[CERTS_P256_LEN], struct att_err *err);

/* ECDSA signatures: DER (X.509, TLS) from r and s as a TPM gives them (leading zeroes optional),
 * and the 64 bytes r ‖ s of a JWS (RFC 7518 §3.4). Both appended. */
ATT_MUST_USE enum att_rc certs_sig_der(struct att_slice r, struct att_slice s,
                                       struct att_buf *ret_der, struct att_err *err);
ATT_MUST_USE enum att_rc certs_sig_raw(struct att_slice der, struct att_buf *ret_raw,
                                       struct att_err *err);
/* ECDSA over SHA-256(bytes): appends DER; verify gives ATT_E_AUTH when it does not hold. */
ATT_MUST_USE enum att_rc certs_sign(EVP_PKEY *key, struct att_slice bytes, struct att_buf *ret_der,
                                    struct att_err *err);
ATT_MUST_USE enum att_rc certs_sig_verify(EVP_PKEY *key, struct att_slice bytes,
                                          struct att_slice der, struct att_err *err);

/* A key that signs elsewhere (another process, a TPM). sign gets a SHA-256 digest (32 bytes) and
 * appends a DER ECDSA-Sig-Value to ret_der_sig; it may be called from any thread, several at once.
 * release (may be NULL) is called once, when the last reference to the EVP_PKEY goes. sign_rsa (may
 * be NULL: then RSA is refused) is of RSA keys: a digest of SHA-256, SHA-384 or SHA-512 by its
 * length, and how it is to be signed; it appends a signature as long as the modulus. */
struct certs_signer {
    enum att_rc (*sign)(void *user, struct att_slice digest, struct att_buf *ret_der_sig,
                        struct att_err *err);
    void (*release)(void *user);
    void *user;
    enum att_rc (*sign_rsa)(void *user, enum att_rsa_scheme scheme, struct att_slice digest,
                            struct att_buf *ret_sig, struct att_err *err);
};

/* An EVP_PKEY for X509_REQ_sign, X509_sign, EVP_DigestSign and TLS 1.3 on either side, made of the
 * public half (P-256; RSA-2048 or RSA-3072 where there is sign_rsa; borrowed during the call) and
 * signer (copied). Its implementation is an OpenSSL provider built into this library, in a library
 * context of its own: nothing changes for other users of libcrypto, and SSL_CTXs of the default
 * context take the key as it is. P-256 signs SHA-256 only. RSA signs by EVP_DigestSign and in TLS
 * 1.2 and 1.3, RSASSA-PKCS1-v1_5 or RSASSA-PSS, the latter with one hash for the digest and MGF1
 * and a salt of its length (RFC 8446 §4.2.3); no certificates or requests. The private half cannot
 * be exported: there is none. On failure release is not called. */
ATT_MUST_USE enum att_rc certs_key_remote_new(const EVP_PKEY *public_key,
                                              const struct certs_signer *signer, EVP_PKEY **ret_key,
                                              struct att_err *err);
/* What the last failing sign callback of this thread said, or ATT_OK: OpenSSL's error queue can
 * carry only a text. Copies into err and clears. */
enum att_rc certs_key_remote_error(struct att_err *err);

#endif
