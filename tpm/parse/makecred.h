/* TPM2_MakeCredential in software: TCG TPM 2.0 Part 1, clause 24 (credential protection), with
 * annexes B.10.3 and C.6.3 for the secret sharing of RSA and ECC keys. */
#ifndef TPM_PARSE_MAKECRED_H
#define TPM_PARSE_MAKECRED_H

#include "attestd/base/buf.h"
#include "tpm/parse/public.h"

/* Encrypts credential (1 … nameAlg's digest length bytes) so that only the TPM that holds ek, and
 * only when it has an object of that Name loaded, gives it back (TPM2_ActivateCredential).
 * ek: a storage key with AES-CFB (an EK, see parse_public_check_ek); RSA-2048, RSA-3072, P-256,
 * P-384. Appends a whole TPM2B_ID_OBJECT to ret_blob and a whole TPM2B_ENCRYPTED_SECRET to
 * ret_secret. ATT_E_INVAL, ATT_E_UNSUPPORTED, ATT_E_CRYPTO; on failure nothing is appended. */
ATT_MUST_USE enum att_rc parse_makecred_create(const struct parse_public *ek,
                                               struct att_slice credential,
                                               const struct parse_name *name,
                                               struct att_buf *ret_blob, struct att_buf *ret_secret,
                                               struct att_err *err);

#endif
