/* PCR selections and values as they travel. A selection names one bank, never SHA-1. */
#ifndef ATTESTD_VERIFY_PCRS_H
#define ATTESTD_VERIFY_PCRS_H

#include "attestd/base/buf.h"
#include "attestd/base/hash.h"

#include <jansson.h>

#define VERIFY_PCR_COUNT         24
#define VERIFY_SELECTION_TPM_LEN 10 /* count 1, hash, sizeofSelect 3, bitmap */

/* One bank and the PCRs of it: bit n of mask is PCR n. */
struct verify_selection {
    uint16_t bank; /* TPM_ALG_ID */
    size_t digest_len;
    uint32_t mask;
};

/* "sha256:0,1,7": sha256, sha384 or sha512; indices ascending, 0–23, at least one. */
ATT_MUST_USE enum att_rc verify_selection_parse(const char *text, struct verify_selection *ret,
                                                struct att_err *err);
void verify_selection_text(const struct verify_selection *selection, struct att_buf *ret_text);
/* The TPML_PCR_SELECTION that a quote over exactly this has: TPM 2.0 Part 2, 10.9.7. */
void verify_selection_tpm(const struct verify_selection *selection,
                          uint8_t ret[VERIFY_SELECTION_TPM_LEN]);

/* Values of one bank's PCRs; those not in mask are meaningless. */
struct verify_pcrs {
    struct verify_selection selection;
    uint8_t value[VERIFY_PCR_COUNT][ATT_HASH_MAX];
};

/* {"sha256": {"0": "<hex>", …}}, exactly one bank; any PCR 0–23. ATT_E_PARSE names the member. */
ATT_MUST_USE enum att_rc verify_pcrs_parse(const json_t *json, struct verify_pcrs *ret,
                                           struct att_err *err);
ATT_MUST_USE enum att_rc verify_pcrs_json(const struct verify_pcrs *pcrs, json_t **ret_json,
                                          struct att_err *err);

/* Logs by name. */
#define VERIFY_LOG_FIRMWARE 1U
#define VERIFY_LOG_SYSTEMD  2U
#define VERIFY_LOG_IMA      4U
/* "firmware" → its bit; 0 for a name that is none. */
uint32_t verify_log_bit(struct att_slice name);
const char *verify_log_name(uint32_t bit); /* "?" for a set that is not one log */

/* "sha256" → TPM_ALG_ID and length; SHA-1 is ATT_E_UNSUPPORTED, anything else ATT_E_PARSE. */
ATT_MUST_USE enum att_rc verify_bank_parse(const char *name, uint16_t *ret_bank, size_t *ret_len,
                                           struct att_err *err);
const char *verify_bank_name(uint16_t bank); /* "sha256"; "?" */

#endif
