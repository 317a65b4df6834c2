/* Names and qualified names: TCG TPM 2.0 Part 1, clause 16 (Names) and 26.5 (Qualified Names). */
#ifndef TPM_PARSE_NAME_H
#define TPM_PARSE_NAME_H

#include "attestd/base/err.h"
#include "attestd/base/slice.h"
#include "tpm/parse/types.h"

/* nameAlg (big endian) and digest, as in TPM2B_NAME without the size. */
struct parse_name {
    uint8_t bytes[2 + PARSE_DIGEST_MAX];
    size_t len;
};

struct att_slice parse_name_slice(const struct parse_name *name); /* borrows name */

/* Name of the object with this TPMT_PUBLIC: nameAlg and H(area). The area is parsed strictly first
 * (ATT_E_PARSE), so that nobody has two encodings of one key. */
ATT_MUST_USE enum att_rc parse_name_of_area(struct att_slice area, struct parse_name *ret_name,
                                            struct att_err *err);

/* Bytes that claim to be a Name: a hash known here and its exact digest length. */
ATT_MUST_USE enum att_rc parse_name_parse(struct att_slice bytes, struct parse_name *ret_name,
                                          struct att_err *err);

/* Qualified Name of the last of n objects (1 ≤ n ≤ 8), chain[0] being the primary under hierarchy
 * (PARSE_RH_OWNER, PARSE_RH_ENDORSEMENT…): QN_i = nameAlg_i and H_i(QN_{i-1} and Name_i), QN of a
 * hierarchy being its 4-byte handle. */
ATT_MUST_USE enum att_rc parse_name_qualified(uint32_t hierarchy, const struct parse_name *chain,
                                              size_t n, struct parse_name *ret_name,
                                              struct att_err *err);

#endif
