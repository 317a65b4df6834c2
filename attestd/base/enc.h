/* Hex and base64url (RFC 4648 §5, unpadded) to and from text. Decoders are strict:
 * no white space, no padding, no stray bits, exact length. */
#ifndef ATTESTD_BASE_ENC_H
#define ATTESTD_BASE_ENC_H

#include "attestd/base/buf.h"

/* ret has 2*len+1 bytes of room; lowercase. */
void att_hex(char *ret, struct att_slice bytes);
void att_buf_hex(struct att_buf *buf, struct att_slice bytes);
/* Either case. Appends to ret_bytes. */
ATT_MUST_USE enum att_rc att_unhex(struct att_buf *ret_bytes, struct att_slice text,
                                   struct att_err *err);
/* Exactly len bytes into ret. */
ATT_MUST_USE enum att_rc att_unhex_exact(uint8_t *ret, size_t len, const char *text,
                                         struct att_err *err);

void att_buf_b64u(struct att_buf *buf, struct att_slice bytes);
ATT_MUST_USE enum att_rc att_unb64u(struct att_buf *ret_bytes, struct att_slice text,
                                    struct att_err *err);
/* RFC 4648 §4 with padding, one line: for x5c header members. */
void att_buf_b64(struct att_buf *buf, struct att_slice bytes);
ATT_MUST_USE enum att_rc att_unb64(struct att_buf *ret_bytes, struct att_slice text,
                                   struct att_err *err);

#endif
