/* Small secrets at rest under the SRK: keyedhash data objects, unsealed over the encrypted session.
 * fixedTPM and fixedParent: a copied file is worth nothing without this TPM. */
#ifndef ATT_TPM_SEAL_H
#define ATT_TPM_SEAL_H

#include "attestd/base/secret.h"
#include "tpm/tss2pem.h"

#define TPM_SEAL_MAX 128u /* bytes; the TPM's own bound (Part 2 §11.1.14) */

/* data: 1…TPM_SEAL_MAX bytes. auth: empty, or 1…32 bytes of which the last is not zero. */
ATT_MUST_USE enum att_rc tpm_seal_create(struct tpm_context *ctx, struct att_slice data,
                                         struct att_slice auth, struct tpm_blob *ret_blob,
                                         struct att_err *err);
/* Errors as tpm_key_sign(): AUTH, DENIED "foreignParent". */
ATT_MUST_USE enum att_rc tpm_seal_open(struct tpm_context *ctx, const struct tpm_blob *blob,
                                       struct att_slice auth, struct att_secret *ret_data,
                                       struct att_err *err);

#endif
