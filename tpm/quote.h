/* PCRs: reading them, and quotes over them by the AK. */
#ifndef ATT_TPM_QUOTE_H
#define ATT_TPM_QUOTE_H

#include "tpm/context.h"
#include "tpm/parse/pcr.h"

#define TPM_QUOTE_NONCE_MAX 64u

/* Reads them, and again until two rounds saw the same PCR update counter (bounded: ATT_E_RETRY).
 * ATT_E_UNSUPPORTED, reason "pcrSelection", when the TPM lacks the bank or one of the PCRs. */
ATT_MUST_USE enum att_rc tpm_quote_pcr_read(struct tpm_context *ctx,
                                            const struct parse_pcr_sel *sel,
                                            struct parse_pcr_set *ret_values, struct att_err *err);
/* TPM2_PCR_Extend: digest has the bank's length. The TPM's other banks stay as they are. */
ATT_MUST_USE enum att_rc tpm_quote_pcr_extend(struct tpm_context *ctx, unsigned pcr, uint16_t bank,
                                              struct att_slice digest, struct att_err *err);

/* Owns its buffers. */
struct tpm_quote {
    struct att_buf attest; /* TPMS_ATTEST */
    struct att_buf sig;    /* TPMT_SIGNATURE */
    struct parse_pcr_set values;
};

void tpm_quote_done(struct tpm_quote *quote);
#define tpm_autoquote ATT_CLEANUP(tpm_quote_done) struct tpm_quote

/* TPM2_Quote by the AK with this extraData (≤ 64 bytes) over exactly these PCRs, and the values
 * that hash to its pcrDigest: PCRs are read, quoted and compared, bounded times over (ATT_E_RETRY
 * when they never stood still). The signed statement is checked to be a quote with our extraData
 * and our selection before it is given out. */
ATT_MUST_USE enum att_rc tpm_quote_create(struct tpm_context *ctx, const struct parse_pcr_sel *sel,
                                          struct att_slice extra_data, struct tpm_quote *ret_quote,
                                          struct att_err *err);

#endif
