/* PCR values in the file form of tpm2-tools 5: what `tpm2_quote --pcrs_format=serialized` writes
 * and `tpm2_checkquote -f` reads without a selection on its command line (its "values" form needs
 * one, and 5.4 fails there on more than eight PCRs). It is TPML_PCR_SELECTION, a count, and that
 * many TPML_DIGEST as they lie in a little-endian machine's memory: selections of 8 bytes (16 of
 * them whatever their count), digests of 66 bytes (8 a list). */
#ifndef TPM_PARSE_PCR_FILE_H
#define TPM_PARSE_PCR_FILE_H

#include "tpm/parse/pcr.h"

#define PARSE_PCR_FILE_MAX 2048

/* Appends the file. ATT_E_INVAL where the set cannot be written. */
ATT_MUST_USE enum att_rc parse_pcr_file_encode(const struct parse_pcr_set *set,
                                               struct att_buf *ret_bytes, struct att_err *err);
/* Strict: exactly what encoding the values gives, for exactly this selection. ATT_E_PARSE. */
ATT_MUST_USE enum att_rc parse_pcr_file_parse(struct att_slice bytes,
                                              const struct parse_pcr_sel *want,
                                              struct parse_pcr_set *ret_set, struct att_err *err);

#endif
