#include "attestd/base/slice.h"

#include <openssl/crypto.h>
#include <string.h>

struct att_slice att_slice_str(const char *s)
{
    return (struct att_slice){(const uint8_t *)s, s ? strlen(s) : 0};
}

bool att_slice_eq(struct att_slice a, struct att_slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

bool att_slice_eq_str(struct att_slice a, const char *s)
{
    return att_slice_eq(a, att_slice_str(s));
}

bool att_slice_eq_secret(struct att_slice a, struct att_slice b)
{
    return a.len == b.len && (a.len == 0 || CRYPTO_memcmp(a.ptr, b.ptr, a.len) == 0);
}

struct att_cur att_cur_init(struct att_slice bytes)
{
    return (struct att_cur){bytes.ptr, bytes.len, false};
}

struct att_slice att_cur_take(struct att_cur *cur, size_t len)
{
    if (cur->failed || len > cur->left) {
        cur->failed = true;
        cur->left = 0;
        return (struct att_slice){NULL, 0};
    }
    struct att_slice out = {cur->ptr, len};
    if (len) {
        cur->ptr += len;
        cur->left -= len;
    }
    return out;
}

static uint64_t take_uint(struct att_cur *cur, size_t width, bool big)
{
    struct att_slice raw = att_cur_take(cur, width);
    uint64_t value = 0;
    for (size_t i = 0; i < raw.len; i++) {
        value = value << 8 | raw.ptr[big ? i : raw.len - 1 - i];
    }
    return value;
}

uint8_t att_cur_u8(struct att_cur *cur)
{
    return (uint8_t)take_uint(cur, 1, true);
}

uint16_t att_cur_be16(struct att_cur *cur)
{
    return (uint16_t)take_uint(cur, 2, true);
}

uint32_t att_cur_be32(struct att_cur *cur)
{
    return (uint32_t)take_uint(cur, 4, true);
}

uint64_t att_cur_be64(struct att_cur *cur)
{
    return take_uint(cur, 8, true);
}

uint16_t att_cur_le16(struct att_cur *cur)
{
    return (uint16_t)take_uint(cur, 2, false);
}

uint32_t att_cur_le32(struct att_cur *cur)
{
    return (uint32_t)take_uint(cur, 4, false);
}

uint64_t att_cur_le64(struct att_cur *cur)
{
    return take_uint(cur, 8, false);
}

static struct att_slice take_prefixed(struct att_cur *cur, size_t len, size_t max)
{
    if (len > max) {
        cur->failed = true;
        cur->left = 0;
    }
    return att_cur_take(cur, len);
}

struct att_slice att_cur_take_be16(struct att_cur *cur, size_t max)
{
    return take_prefixed(cur, att_cur_be16(cur), max);
}

struct att_slice att_cur_take_be32(struct att_cur *cur, size_t max)
{
    return take_prefixed(cur, att_cur_be32(cur), max);
}

bool att_cur_done(const struct att_cur *cur)
{
    return !cur->failed && cur->left == 0;
}
