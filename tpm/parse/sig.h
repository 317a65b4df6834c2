/* TPMT_SIGNATURE: TCG TPM 2.0 Part 2, clause 11.3.4. */
#ifndef TPM_PARSE_SIG_H
#define TPM_PARSE_SIG_H

#include "attestd/base/buf.h"
#include "tpm/parse/public.h"

/* Borrows the bytes it was parsed from. */
struct parse_sig {
    uint16_t alg;          /* PARSE_ALG_ECDSA, PARSE_ALG_RSASSA, PARSE_ALG_RSAPSS */
    uint16_t hash;         /* what the message says; never used to choose */
    struct att_slice r, s; /* ECDSA, 1…48 bytes each */
    struct att_slice rsa;  /* RSASSA, RSAPSS */
};

/* Exactly one TPMT_SIGNATURE. */
ATT_MUST_USE enum att_rc parse_sig_parse(struct att_slice bytes, struct parse_sig *ret_sig,
                                         struct att_err *err);
ATT_MUST_USE enum att_rc parse_sig_encode(const struct parse_sig *sig, struct att_buf *ret_bytes,
                                          struct att_err *err);

/* Is sig_bytes (TPMT_SIGNATURE) signer's signature over message? Algorithm and hash are those of
 * the signer's own scheme; a signature that names others is refused (ATT_E_AUTH), and so are SHA-1
 * and a signer without a scheme. ATT_E_AUTH: the signature does not verify; ATT_E_PARSE: it is
 * none. */
ATT_MUST_USE enum att_rc parse_sig_verify(const struct parse_public *signer,
                                          struct att_slice sig_bytes, struct att_slice message,
                                          struct att_err *err);
/* The same for a key whose scheme is null, algorithm and hash said by the caller, who has them from
 * his own configuration. A scheme that the key does have must agree. */
ATT_MUST_USE enum att_rc parse_sig_verify_as(const struct parse_public *signer, uint16_t alg,
                                             uint16_t hash, struct att_slice sig_bytes,
                                             struct att_slice message, struct att_err *err);

/* The signature as X.509, JWS and OpenSSL have it: for ECDSA the DER Ecdsa-Sig-Value, for RSA the
 * plain bytes. Appends. */
ATT_MUST_USE enum att_rc parse_sig_der(const struct parse_sig *sig, struct att_buf *ret_der,
                                       struct att_err *err);
/* The other way: appends a TPMT_SIGNATURE made of an OpenSSL signature. */
ATT_MUST_USE enum att_rc parse_sig_from_der(uint16_t alg, uint16_t hash, struct att_slice der,
                                            struct att_buf *ret_bytes, struct att_err *err);

#endif
