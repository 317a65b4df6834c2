/* Borrowed bytes, and a cursor that reads them without ever passing their end. */
#ifndef ATTESTD_BASE_SLICE_H
#define ATTESTD_BASE_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Borrows: whoever made the bytes keeps them. ptr may be NULL only where len is 0. */
struct att_slice {
    const uint8_t *ptr;
    size_t len;
};

#define ATT_SLICE(p, n) ((struct att_slice){(const uint8_t *)(p), (n)})
/* The bytes of an array, or of a string literal without its NUL. */
#define ATT_SLICE_ARRAY(a) ((struct att_slice){(const uint8_t *)(a), sizeof(a)})
#define ATT_SLICE_LIT(s)   ((struct att_slice){(const uint8_t *)("" s), sizeof(s) - 1})

struct att_slice att_slice_str(const char *s); /* NULL gives an empty slice */
bool att_slice_eq(struct att_slice a, struct att_slice b);
bool att_slice_eq_str(struct att_slice a, const char *s);
/* Constant time in the content; the lengths are taken to be public. */
bool att_slice_eq_secret(struct att_slice a, struct att_slice b);

/* A reader. The first read past the end sets failed; every later read then yields zeroes or an
 * empty slice, so that a parser may read a whole structure and look once. */
struct att_cur {
    const uint8_t *ptr;
    size_t left;
    bool failed;
};

struct att_cur att_cur_init(struct att_slice bytes);
uint8_t att_cur_u8(struct att_cur *cur);
uint16_t att_cur_be16(struct att_cur *cur);
uint32_t att_cur_be32(struct att_cur *cur);
uint64_t att_cur_be64(struct att_cur *cur);
uint16_t att_cur_le16(struct att_cur *cur);
uint32_t att_cur_le32(struct att_cur *cur);
uint64_t att_cur_le64(struct att_cur *cur);
struct att_slice att_cur_take(struct att_cur *cur, size_t len);
/* A be16- or be32-length-prefixed field of at most max bytes. */
struct att_slice att_cur_take_be16(struct att_cur *cur, size_t max);
struct att_slice att_cur_take_be32(struct att_cur *cur, size_t max);
/* True when nothing failed and nothing is left. */
bool att_cur_done(const struct att_cur *cur);

#endif
