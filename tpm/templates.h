/* The public areas that attestd creates or recognises. */
#ifndef ATT_TPM_TEMPLATES_H
#define ATT_TPM_TEMPLATES_H

#include "attestd/base/buf.h"

enum tpm_template {
    TPM_TEMPLATE_SRK_P256,       /* TCG storage primary, zero-size unique: what we create */
    TPM_TEMPLATE_SRK_P256_ZEROS, /* the same with 32 zero bytes in each coordinate: recognised */
    TPM_TEMPLATE_AK_P256,        /* restricted ECDSA-SHA256 endorsement primary */
    TPM_TEMPLATE_AGENT_P256,     /* sign only, unrestricted, under the SRK */
    TPM_TEMPLATE_SEALED,         /* keyedhash data object with an authValue */
    /* TCG EK Credential Profile 2.x, annex B: low range, L-1 and L-2 … */
    TPM_TEMPLATE_EK_RSA2048,
    TPM_TEMPLATE_EK_P256,
    /* … and high range, H-1, H-2, H-3 (policy B for P-384) */
    TPM_TEMPLATE_EK_RSA2048_HIGH,
    TPM_TEMPLATE_EK_P256_HIGH,
    TPM_TEMPLATE_EK_P384_HIGH,
    TPM_TEMPLATE_COUNT
};

/* "srk-p256", "ak-p256", "ek-rsa2048" …; "?" when out of range. */
const char *tpm_template_name(enum tpm_template which);
/* Appends the template as TPMT_PUBLIC bytes (TPM 2.0 Part 2 §12.2.4). */
ATT_MUST_USE enum att_rc tpm_template_encode(enum tpm_template which, struct att_buf *ret_pub,
                                             struct att_err *err);
/* ATT_OK when pub (TPMT_PUBLIC) has this template's type, attributes, policy, name algorithm and
 * parameters (`unique` is not looked at); ATT_E_DENIED says which differs, ATT_E_PARSE when it is
 * no TPMT_PUBLIC. */
ATT_MUST_USE enum att_rc tpm_template_match(enum tpm_template which, struct att_slice pub,
                                            struct att_err *err);

#endif
