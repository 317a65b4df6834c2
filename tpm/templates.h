/* The public areas that attestd creates, as TPMT_PUBLIC bytes (TPM 2.0 Part 2 §12.2.4). */
#ifndef ATT_TPM_TEMPLATES_H
#define ATT_TPM_TEMPLATES_H

#include "attestd/base/buf.h"
#include "tpm/parse/public.h"

enum tpm_template {
    TPM_TEMPLATE_SRK,       /* ECC P-256 storage primary, zero-size unique: what we create */
    TPM_TEMPLATE_SRK_ZEROS, /* the same with 32 zero bytes in each coordinate: what others create */
    TPM_TEMPLATE_AK,        /* restricted ECDSA-SHA256 P-256 endorsement primary */
    TPM_TEMPLATE_AK_RSA,    /* the same, RSA-2048 with RSASSA-SHA256 */
    TPM_TEMPLATE_AGENT,     /* P-256, signs only, not restricted, under the SRK */
    TPM_TEMPLATE_SEALED,    /* keyedhash data object with an authValue, under the SRK */
    TPM_TEMPLATE_COUNT
};

/* Appends the template. EK templates are in parse_public_ek_template(). */
ATT_MUST_USE enum att_rc tpm_template_encode(enum tpm_template which, struct att_buf *ret_pub,
                                             struct att_err *err);
/* Is pub (TPMT_PUBLIC of a created object) made by this template? Everything but `unique` is
 * compared, so that both SRK variants match either. ATT_E_DENIED when not, ATT_E_PARSE when it is
 * no TPMT_PUBLIC. */
ATT_MUST_USE enum att_rc tpm_template_match(enum tpm_template which, struct att_slice pub,
                                            struct att_err *err);

#endif
