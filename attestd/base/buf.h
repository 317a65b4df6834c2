/* Owned bytes that grow up to a maximum which is part of their type's promise. */
#ifndef ATTESTD_BASE_BUF_H
#define ATTESTD_BASE_BUF_H

#include "attestd/base/err.h"
#include "attestd/base/slice.h"

#define ATT_BUF_MAX_DEFAULT ((size_t)16 << 20)

/* Owns ptr. {0} is a valid empty buffer with the default maximum. The writers are sticky like the
 * cursor: after the first that does not fit (or finds no memory) failed is set and nothing more is
 * written; look once, with att_buf_ok, before use. */
struct att_buf {
    uint8_t *ptr;
    size_t len, cap, max;
    bool failed;
};

#define ATT_BUF_INIT(max_len) ((struct att_buf){.max = (max_len)})

void att_buf_done(struct att_buf *buf);  /* frees; buf becomes {0} */
void att_buf_reset(struct att_buf *buf); /* len = 0, memory kept */
void att_buf_put(struct att_buf *buf, const void *bytes, size_t len);
void att_buf_put_slice(struct att_buf *buf, struct att_slice bytes);
void att_buf_put_str(struct att_buf *buf, const char *s);
void att_buf_printf(struct att_buf *buf, const char *fmt, ...) ATT_PRINTF(2, 3);
void att_buf_u8(struct att_buf *buf, uint8_t v);
void att_buf_be16(struct att_buf *buf, uint16_t v);
void att_buf_be32(struct att_buf *buf, uint32_t v);
void att_buf_be64(struct att_buf *buf, uint64_t v);
/* A be16- or be32-length-prefixed field. */
void att_buf_field_be16(struct att_buf *buf, struct att_slice bytes);
void att_buf_field_be32(struct att_buf *buf, struct att_slice bytes);
/* Room for len bytes at the end, to be filled by the caller; NULL when there is none. */
uint8_t *att_buf_extend(struct att_buf *buf, size_t len);

struct att_slice att_buf_slice(const struct att_buf *buf);
/* ATT_OK, or ATT_E_LIMIT / ATT_E_NOMEM when a write was lost. */
ATT_MUST_USE enum att_rc att_buf_ok(const struct att_buf *buf, struct att_err *err);
/* The content as a NUL-terminated string that the buffer keeps; NULL when there is no room. */
const char *att_buf_cstr(struct att_buf *buf);
/* Hands the bytes to the caller (free()), with a NUL behind them; buf becomes {0}. NULL when
 * nothing was ever written. ret_len may be NULL. */
uint8_t *att_buf_steal(struct att_buf *buf, size_t *ret_len);

#define att_autobuf ATT_CLEANUP(att_buf_done) struct att_buf

#endif
