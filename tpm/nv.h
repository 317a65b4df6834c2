/* Reading NV indices (EK certificates are there). Nothing here defines or writes one. */
#ifndef ATT_TPM_NV_H
#define ATT_TPM_NV_H

#include "tpm/context.h"

/* Appends the whole content. Authorised by the index's own empty authValue where it has AUTHREAD
 * and NO_DA, else by the owner's where it has OWNERREAD, else ATT_E_DENIED: no guess that the TPM
 * counts as an attack is made. ATT_E_NOTFOUND when it is not defined, ATT_E_CONFLICT when it was
 * never written, ATT_E_LIMIT when it is larger than max. */
ATT_MUST_USE enum att_rc tpm_nv_read(struct tpm_context *ctx, uint32_t index, size_t max,
                                     struct att_buf *ret_bytes, struct att_err *err);
/* The defined indices in first…last, ascending, at most max of them into ret. */
ATT_MUST_USE enum att_rc tpm_nv_list(struct tpm_context *ctx, uint32_t first, uint32_t last,
                                     uint32_t *ret_indices, size_t max, size_t *ret_count,
                                     struct att_err *err);

#endif
