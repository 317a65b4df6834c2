/* Making allow lists (imalist.h): from IMA's list of a good host, from lines that were gathered. */
#ifndef ATTESTD_VERIFY_IMADRAFT_H
#define ATTESTD_VERIFY_IMADRAFT_H

#include "provision/verify/imalist.h"

struct verify_imadraft_sum {
    size_t n_violations, n_weak; /* entries without a line: not measured; SHA-1 or MD5 */
};

/* Appends a line for each entry of IMA's list behind boot_aggregate, as verify_imalist_put does;
 * lines may come twice. Those whose name begins with one of the prefixes (NULL-terminated; NULL:
 * none) are left away. ATT_E_PARSE as parse_ima_next. */
ATT_MUST_USE enum att_rc verify_imadraft_lines(struct att_slice ima, const char *const *excludes,
                                               struct att_buf *lines,
                                               struct verify_imadraft_sum *ret,
                                               struct att_err *err);
/* The list of these lines: header, comment (NULL: none; without newline), each line once, sorted by
 * name. ret must be empty. ATT_E_INVAL where a line is none that a list may have. */
ATT_MUST_USE enum att_rc verify_imadraft_list(struct att_slice lines, const char *comment,
                                              struct att_buf *ret, struct att_err *err);

#endif
