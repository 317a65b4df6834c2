/* The attestation key: a restricted P-256 endorsement primary from a fixed template, so that there
 * is nothing to lose: the same key comes back after every reset (and TPM2_Clear), as long as the
 * endorsement seed lives. Used for nothing but Certify and Quote. */
#ifndef ATT_TPM_AK_H
#define ATT_TPM_AK_H

#include "tpm/context.h"
#include "tpm/parse/name.h"

struct tpm_ak {
    struct att_buf pub;               /* TPMT_PUBLIC */
    struct parse_name name;           /* as computed by the TPM and checked here */
    struct parse_name qualified_name; /* nameAlg ‖ H(TPM_RH_ENDORSEMENT ‖ Name) */
};

void tpm_ak_done(struct tpm_ak *ak);
#define tpm_autoak ATT_CLEANUP(tpm_ak_done) struct tpm_ak

/* Makes the AK if it is not loaded and describes it. */
ATT_MUST_USE enum att_rc tpm_ak_get(struct tpm_context *ctx, struct tpm_ak *ret_ak,
                                    struct att_err *err);

/* How the AK came to be, by its own signature: the same key is made again from the template, which
 * gives its creation data, and certifies them (Part 3 §18.3). Owns its buffers. */
struct tpm_ak_creation {
    struct att_buf data;   /* TPMS_CREATION_DATA */
    struct att_buf attest; /* TPMS_ATTEST */
    struct att_buf sig;    /* TPMT_SIGNATURE */
};
void tpm_ak_creation_done(struct tpm_ak_creation *creation);
#define tpm_autocreation ATT_CLEANUP(tpm_ak_creation_done) struct tpm_ak_creation
/* ATT_E_UNSUPPORTED: the AK in use is of another template. */
ATT_MUST_USE enum att_rc tpm_ak_creation(struct tpm_context *ctx,
                                         struct tpm_ak_creation *ret_creation, struct att_err *err);

#endif
