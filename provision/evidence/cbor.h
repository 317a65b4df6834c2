/* Deterministic CBOR (RFC 8949 §4.2.1) over libcbor's streaming coder, which never allocates: a
 * declared length or count costs nothing until the bytes are there. Internal to this folder.
 *
 * The reader gives one head at a time. That an encoding is the deterministic one is proved by the
 * parsers, which encode again what they understood and compare. */
#ifndef ATTESTD_PROVISION_EVIDENCE_CBOR_H
#define ATTESTD_PROVISION_EVIDENCE_CBOR_H

#include "attestd/base/buf.h"

struct evidence_cbor {
    struct att_slice left;
};

/* Each reads one item and fails with ATT_E_PARSE naming `what` when it is of another kind,
 * indefinite, tagged or cut off, ATT_E_LIMIT when beyond max. */
ATT_MUST_USE enum att_rc evidence_cbor_map(struct evidence_cbor *cbor, const char *what, size_t max,
                                           size_t *ret_n, struct att_err *err);
ATT_MUST_USE enum att_rc evidence_cbor_array(struct evidence_cbor *cbor, const char *what,
                                             size_t max, size_t *ret_n, struct att_err *err);
ATT_MUST_USE enum att_rc evidence_cbor_uint(struct evidence_cbor *cbor, const char *what,
                                            uint64_t max, uint64_t *ret_v, struct att_err *err);
/* Either sign, magnitude at most max. */
ATT_MUST_USE enum att_rc evidence_cbor_int(struct evidence_cbor *cbor, const char *what,
                                           int32_t max, int32_t *ret_v, struct att_err *err);
ATT_MUST_USE enum att_rc evidence_cbor_bool(struct evidence_cbor *cbor, const char *what,
                                            bool *ret_v, struct att_err *err);
ATT_MUST_USE enum att_rc evidence_cbor_bytes(struct evidence_cbor *cbor, const char *what,
                                             size_t max, struct att_slice *ret_bytes,
                                             struct att_err *err);
/* UTF-8 without control characters into ret (room bytes with the NUL). */
ATT_MUST_USE enum att_rc evidence_cbor_text(struct evidence_cbor *cbor, const char *what, char *ret,
                                            size_t room, struct att_err *err);
/* A member name out of names[n]: its index. Unknown and repeated ones (bit in *seen) are refused.
 */
ATT_MUST_USE enum att_rc evidence_cbor_key(struct evidence_cbor *cbor, const char *what,
                                           const char *const *names, size_t n, unsigned *seen,
                                           size_t *ret_index, struct att_err *err);
/* All of `must` (bits) in seen? Names the first that is missing. */
ATT_MUST_USE enum att_rc evidence_cbor_have(const char *what, const char *const *names,
                                            unsigned must, unsigned seen, struct att_err *err);
/* Nothing left? */
ATT_MUST_USE enum att_rc evidence_cbor_end(const struct evidence_cbor *cbor, const char *what,
                                           struct att_err *err);

/* Is this text that evidence_cbor_text would accept? */
bool evidence_text_ok(struct att_slice text);

void evidence_cbor_put_map(struct att_buf *buf, size_t n);
void evidence_cbor_put_array(struct att_buf *buf, size_t n);
void evidence_cbor_put_uint(struct att_buf *buf, uint64_t v);
void evidence_cbor_put_int(struct att_buf *buf, int32_t v);
void evidence_cbor_put_bool(struct att_buf *buf, bool v);
void evidence_cbor_put_bytes(struct att_buf *buf, struct att_slice bytes);
void evidence_cbor_put_text(struct att_buf *buf, const char *text);

#endif
