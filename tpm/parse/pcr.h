/* PCR selections and PCR values. Selections have one bank and are compared as raw bytes, since a
 * TPM signs much that means the same: see docs/PROTOCOL.md. TCG TPM 2.0 Part 2, clause 10.9.7. */
#ifndef TPM_PARSE_PCR_H
#define TPM_PARSE_PCR_H

#include "attestd/base/buf.h"
#include "attestd/base/json.h"
#include "tpm/parse/types.h"

#define PARSE_PCR_TEXT_MAX 96 /* longest selection text and its NUL */
#define PARSE_PCR_RAW_LEN  10 /* count, hash, sizeofSelect, 3 bytes */

/* Never empty. */
struct parse_pcr_sel {
    uint16_t bank; /* PARSE_ALG_SHA256, SHA384, SHA512; SHA-1 is refused */
    uint32_t mask; /* bit i: PCR i */
};

/* "sha256:0,1,2,7": indices ascending, none twice, no spaces, no leading zeros, at least one. */
ATT_MUST_USE enum att_rc parse_pcr_sel_parse(const char *text, struct parse_pcr_sel *ret_sel,
                                             struct att_err *err);
ATT_MUST_USE enum att_rc parse_pcr_sel_text(const struct parse_pcr_sel *sel,
                                            char ret_text[PARSE_PCR_TEXT_MAX], struct att_err *err);
/* TPML_PCR_SELECTION with count 1 and sizeofSelect 3: the only form we ask for. */
ATT_MUST_USE enum att_rc parse_pcr_sel_raw(const struct parse_pcr_sel *sel,
                                           uint8_t ret_raw[PARSE_PCR_RAW_LEN], struct att_err *err);
/* The reverse: no other count (an absent or doubled bank), no other size, not empty, exact length.
 */
ATT_MUST_USE enum att_rc parse_pcr_sel_from_raw(struct att_slice raw, struct parse_pcr_sel *ret_sel,
                                                struct att_err *err);

/* Values of exactly the selected PCRs. Holds its bytes; values outside sel.mask are zero. */
struct parse_pcr_set {
    struct parse_pcr_sel sel;
    size_t digest_len; /* of the bank */
    uint8_t value[PARSE_PCR_COUNT][PARSE_DIGEST_MAX];
};

/* The `pcrs` member: {"sha256": {"0": "<hex>", …}}: one bank, decimal indices without leading
 * zeros, lowercase hex of the bank's length, at least one. want NULL: any selection; else
 * ATT_E_PARSE for any other. */
ATT_MUST_USE enum att_rc parse_pcr_set_from_json(const json_t *json,
                                                 const struct parse_pcr_sel *want,
                                                 struct parse_pcr_set *ret_set,
                                                 struct att_err *err);
/* The same from JSON text (at most 16 KiB). */
ATT_MUST_USE enum att_rc parse_pcr_set_parse(struct att_slice text,
                                             const struct parse_pcr_sel *want,
                                             struct parse_pcr_set *ret_set, struct att_err *err);
/* A new object; the caller owns it. */
ATT_MUST_USE enum att_rc parse_pcr_set_json(const struct parse_pcr_set *set, json_t **ret_json,
                                            struct att_err *err);
/* H(values in ascending order of PCR) by hash, which is the hash of the quote's signing scheme, not
 * the bank's (Part 3 clause 18.4). */
ATT_MUST_USE enum att_rc parse_pcr_set_digest(const struct parse_pcr_set *set, uint16_t hash,
                                              uint8_t ret_digest[PARSE_DIGEST_MAX], size_t *ret_len,
                                              struct att_err *err);
/* The values one after the other in ascending order: `tpm2_quote --pcrs_format=values`. Appends. */
ATT_MUST_USE enum att_rc parse_pcr_set_values(const struct parse_pcr_set *set,
                                              struct att_buf *ret_bytes, struct att_err *err);

#endif
