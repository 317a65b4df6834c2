/* Between the files of the IMA parser. */
#ifndef TPM_PARSE_IMA_FIELDS_H
#define TPM_PARSE_IMA_FIELDS_H

#include "tpm/parse/ima.h"

/* ATT_E_PARSE: "pcr10 entry 41: what (offset 5120)". */
enum att_rc parse_ima_bad(const struct parse_ima_entry *entry, struct att_err *err,
                          const char *what);
/* The parts that are hashed of template "ima", from its two fields. */
ATT_MUST_USE enum att_rc parse_ima_set_legacy(struct parse_ima_entry *entry, struct att_err *err);
/* kind, alg, file and name from the fields; refuses fields without their form. */
ATT_MUST_USE enum att_rc parse_ima_meaning(struct parse_ima_entry *entry, struct att_err *err);
/* One line of an ASCII list: the template data is built in the iterator's scratch. */
ATT_MUST_USE enum att_rc parse_ima_take_line(struct parse_ima *list, struct parse_ima_entry *entry,
                                             struct att_err *err);
/* Bytes of a digest of the kernel's hash of that name ("sha256", "sm3-256"); 0: not known. */
size_t parse_ima_hash_len(struct att_slice name);

#endif
