/* Agents' keys: P-256 under the SRK, fixedTPM, fixedParent, sensitiveDataOrigin, noDA, not
 * restricted, with a 32-byte authValue that never crosses the bus in clear. */
#ifndef ATT_TPM_KEY_H
#define ATT_TPM_KEY_H

#include "tpm/tss2pem.h"

#define TPM_KEY_AUTH_LEN 32
#define TPM_SIG_DER_MAX  72

/* auth = HKDF-SHA256(host_secret, info = "attestd-key-auth/1" ‖ counter ‖ seed_id), with the first
 * counter 0, 1, … whose result does not end in a zero byte (the TPM strips those, and tss 3.2.1
 * does so inconsistently). Deterministic. host_secret has at least 16 bytes. */
ATT_MUST_USE enum att_rc tpm_key_auth_derive(struct att_slice host_secret, struct att_slice seed_id,
                                             uint8_t ret_auth[TPM_KEY_AUTH_LEN],
                                             struct att_err *err);

/* Creates a key. auth: exactly TPM_KEY_AUTH_LEN bytes, the last not zero, else ATT_E_INVAL. The key
 * is not left in the TPM: ret_blob is all there is of it. */
ATT_MUST_USE enum att_rc tpm_key_create(struct tpm_context *ctx, struct att_slice auth,
                                        struct tpm_blob *ret_blob, struct att_err *err);

struct tpm_signature {
    uint8_t raw[64]; /* r ‖ s, 32 bytes each (JWS ES256, RFC 7518 §3.4) */
    uint8_t der[TPM_SIG_DER_MAX];
    size_t der_len; /* ECDSA-Sig-Value (RFC 3279 §2.2.3) */
};

/* Signs a SHA-256 digest with the key, loaded from the blob or still loaded from an earlier use
 * (LRU cache). ATT_E_AUTH for a wrong auth; ATT_E_DENIED, reason "foreignParent", for a blob sealed
 * under another TPM or SRK (also after TPM2_Clear). Not for JWS or certificates by itself: what may
 * be signed is the caller's to check. */
ATT_MUST_USE enum att_rc tpm_key_sign(struct tpm_context *ctx, const struct tpm_blob *key,
                                      struct att_slice auth, const uint8_t digest[32],
                                      struct tpm_signature *ret_sig, struct att_err *err);
/* Loads the key into the cache, so that the first signature need not. Proves that blob and TPM fit,
 * not that auth is right. */
ATT_MUST_USE enum att_rc tpm_key_load(struct tpm_context *ctx, const struct tpm_blob *key,
                                      struct att_err *err);
/* Forgets the loaded copy and the saved context, if any (before the blob's file is removed). */
void tpm_key_evict(struct tpm_context *ctx, const struct tpm_blob *key);

struct tpm_cache_stats {
    size_t slots, used;
    uint64_t hits, misses, evictions;
    uint64_t restores; /* of the misses, those that needed no Load: by a saved context */
};
void tpm_key_cache_stats(const struct tpm_context *ctx, struct tpm_cache_stats *ret_stats);

#endif
