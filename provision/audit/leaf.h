/* What the log says of a decision record to everybody: its number, time, kind, outcome and, where
 * it is a refusal, the reason's word; and a salted commitment to the record itself, in which names
 * are. Without the salt nobody can tell a guess from the record; with it, anybody can.
 *
 *   attestd-decision/1\n<seq>\n<UTC seconds>\n<kind>\n<outcome>\n<reason or ->\n<hex>\n
 *
 * hex: SHA-256("attestd-decision/1" ‖ 32 bytes of salt ‖ the record's text). Pure but for the
 * salt. */
#ifndef PROVISION_AUDIT_LEAF_H
#define PROVISION_AUDIT_LEAF_H

#include "attestd/base/buf.h"
#include "attestd/base/hash.h"

#define AUDIT_SALT_LEN 32

ATT_MUST_USE enum att_rc audit_salt_new(uint8_t ret[AUDIT_SALT_LEN], struct att_err *err);
void audit_commit(const uint8_t salt[AUDIT_SALT_LEN], struct att_slice record,
                  uint8_t ret[ATT_SHA256_LEN]);
/* Appends the leaf of a record (JSON text); a record that is none of ours is "-" throughout. */
ATT_MUST_USE enum att_rc audit_leaf_make(int64_t seq, int64_t at, const char *record,
                                         const uint8_t salt[AUDIT_SALT_LEN],
                                         struct att_buf *ret_leaf, struct att_err *err);
/* Whether this leaf was made of this number, time, record and salt. */
bool audit_leaf_is(struct att_slice leaf, int64_t seq, int64_t at, const char *record,
                   struct att_slice salt);

#endif
