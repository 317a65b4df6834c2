/* TPM2_Certify: the AK states that a key is in this TPM (TPM 2.0 Part 3 §18.2). */
#ifndef ATT_TPM_CERTIFY_H
#define ATT_TPM_CERTIFY_H

#include "tpm/tss2pem.h"

/* Owns its buffers. */
struct tpm_certify {
    struct att_buf attest; /* TPMS_ATTEST */
    struct att_buf sig;    /* TPMT_SIGNATURE */
};

void tpm_certify_done(struct tpm_certify *certify);
#define tpm_autocertify ATT_CLEANUP(tpm_certify_done) struct tpm_certify

/* extra_data ≤ 64 bytes. The key's authValue authorises it by HMAC, never in clear. Errors as
 * tpm_key_sign(). */
ATT_MUST_USE enum att_rc tpm_certify_create(struct tpm_context *ctx, const struct tpm_blob *key,
                                            struct att_slice auth, struct att_slice extra_data,
                                            struct tpm_certify *ret_certify, struct att_err *err);

#endif
