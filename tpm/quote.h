/* PCRs: reading them, and quotes over them by the AK. */
#ifndef ATT_TPM_QUOTE_H
#define ATT_TPM_QUOTE_H

#include "tpm/context.h"

#define TPM_QUOTE_NONCE_MAX 64u

/* One bank and a set of PCRs, bit n of mask for PCR n. In the TPM's form: count 1, sizeofSelect 3.
 */
struct tpm_pcrs {
    uint16_t bank; /* TPM_ALG_ID: 0x000b SHA-256, 0x000c SHA-384 … */
    uint32_t mask; /* 1 … 0xffffff */
};

/* The values of exactly the PCRs asked for; those outside the mask are zero. */
struct tpm_pcr_values {
    struct tpm_pcrs pcrs;
    size_t digest_len;
    uint8_t digest[TPM_PCRS][64];
};

/* "sha256:0,1,7": ascending, no blanks, each once, 0…23; banks sha1 sha256 sha384 sha512 sm3_256.
 */
ATT_MUST_USE enum att_rc tpm_pcrs_parse(const char *text, struct tpm_pcrs *ret_pcrs,
                                        struct att_err *err);
/* Appends that text. */
void tpm_pcrs_text(struct tpm_pcrs pcrs, struct att_buf *ret_text);

/* Reads them, and again until two rounds saw the same PCR update counter (bounded: ATT_E_RETRY).
 * ATT_E_UNSUPPORTED when the TPM lacks the bank or one of the PCRs. */
ATT_MUST_USE enum att_rc tpm_pcr_read(struct tpm_context *ctx, struct tpm_pcrs pcrs,
                                      struct tpm_pcr_values *ret_values, struct att_err *err);
/* TPM2_PCR_Extend: digest has the bank's length. The TPM's other banks stay as they are. */
ATT_MUST_USE enum att_rc tpm_pcr_extend(struct tpm_context *ctx, unsigned pcr, uint16_t bank,
                                        struct att_slice digest, struct att_err *err);

/* Owns its buffers. */
struct tpm_quote {
    struct att_buf attest; /* TPMS_ATTEST */
    struct att_buf sig;    /* TPMT_SIGNATURE */
    struct tpm_pcr_values values;
};

void tpm_quote_done(struct tpm_quote *quote);
#define tpm_autoquote ATT_CLEANUP(tpm_quote_done) struct tpm_quote

/* TPM2_Quote by the AK with this extraData (≤ 64 bytes) over exactly these PCRs, and the values
 * that hash to its pcrDigest: PCRs are read, quoted and compared, bounded times over (ATT_E_RETRY
 * when they never stood still). The signed statement is checked to be a quote with our extraData
 * and our selection before it is given out. */
ATT_MUST_USE enum att_rc tpm_quote_create(struct tpm_context *ctx, struct tpm_pcrs pcrs,
                                          struct att_slice extra_data, struct tpm_quote *ret_quote,
                                          struct att_err *err);

#endif
