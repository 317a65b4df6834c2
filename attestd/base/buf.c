#include "attestd/base/buf.h"

#include <openssl/crypto.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Whatever small buffer may have held a ticket or a credential; what is larger holds logs. */
#define WIPED_MAX 65536

static void wipe_and_free(void *ptr, size_t len)
{
    if (ptr && len <= WIPED_MAX) {
        OPENSSL_cleanse(ptr, len);
    }
    free(ptr);
}

void att_buf_done(struct att_buf *buf)
{
    if (buf) {
        wipe_and_free(buf->ptr, buf->cap);
        *buf = (struct att_buf){0};
    }
}

void att_buf_reset(struct att_buf *buf)
{
    buf->len = 0;
    buf->failed = false;
}

/* realloc() that leaves no copy behind. NULL: nothing changed. */
static uint8_t *grow(struct att_buf *buf, size_t len)
{
    if (buf->cap > WIPED_MAX) {
        return realloc(buf->ptr, len);
    }
    uint8_t *grown = malloc(len);
    if (grown && buf->ptr) {
        memcpy(grown, buf->ptr, buf->len);
        wipe_and_free(buf->ptr, buf->cap);
    }
    return grown;
}

static bool reserve(struct att_buf *buf, size_t more)
{
    size_t max = buf->max ? buf->max : ATT_BUF_MAX_DEFAULT;
    if (buf->failed || more > max || buf->len > max - more) {
        buf->failed = true;
        return false;
    }
    size_t need = buf->len + more;
    if (need <= buf->cap) {
        return true;
    }
    size_t cap = buf->cap ? buf->cap : 64;
    while (cap < need) {
        cap = cap > max / 2 ? max : cap * 2;
    }
    uint8_t *grown = grow(buf, cap + 1); /* + 1 for att_buf_cstr */
    if (!grown) {
        buf->failed = true;
        return false;
    }
    buf->ptr = grown;
    buf->cap = cap;
    return true;
}

uint8_t *att_buf_extend(struct att_buf *buf, size_t len)
{
    if (!reserve(buf, len)) {
        return NULL;
    }
    uint8_t *at = buf->ptr + buf->len;
    buf->len += len;
    return at;
}

void att_buf_put(struct att_buf *buf, const void *bytes, size_t len)
{
    if (len == 0 || !reserve(buf, len)) {
        return;
    }
    memcpy(buf->ptr + buf->len, bytes, len);
    buf->len += len;
}

void att_buf_put_slice(struct att_buf *buf, struct att_slice bytes)
{
    att_buf_put(buf, bytes.ptr, bytes.len);
}

void att_buf_put_str(struct att_buf *buf, const char *s)
{
    att_buf_put_slice(buf, att_slice_str(s));
}

void att_buf_printf(struct att_buf *buf, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    char *text = NULL;
    int len = vasprintf(&text, fmt, args);
    va_end(args);
    if (len < 0) {
        buf->failed = true;
        return;
    }
    att_buf_put(buf, text, (size_t)len);
    wipe_and_free(text, (size_t)len);
}

static void put_be(struct att_buf *buf, uint64_t v, size_t width)
{
    uint8_t raw[8];
    for (size_t i = 0; i < width; i++) {
        raw[i] = (uint8_t)(v >> (8 * (width - 1 - i)));
    }
    att_buf_put(buf, raw, width);
}

void att_buf_u8(struct att_buf *buf, uint8_t v)
{
    put_be(buf, v, 1);
}

void att_buf_be16(struct att_buf *buf, uint16_t v)
{
    put_be(buf, v, 2);
}

void att_buf_be32(struct att_buf *buf, uint32_t v)
{
    put_be(buf, v, 4);
}

void att_buf_be64(struct att_buf *buf, uint64_t v)
{
    put_be(buf, v, 8);
}

void att_buf_field_be16(struct att_buf *buf, struct att_slice bytes)
{
    if (bytes.len > UINT16_MAX) {
        buf->failed = true;
        return;
    }
    att_buf_be16(buf, (uint16_t)bytes.len);
    att_buf_put_slice(buf, bytes);
}

void att_buf_field_be32(struct att_buf *buf, struct att_slice bytes)
{
    if (bytes.len > UINT32_MAX) {
        buf->failed = true;
        return;
    }
    att_buf_be32(buf, (uint32_t)bytes.len);
    att_buf_put_slice(buf, bytes);
}

struct att_slice att_buf_slice(const struct att_buf *buf)
{
    return (struct att_slice){buf->ptr, buf->len};
}

enum att_rc att_buf_ok(const struct att_buf *buf, struct att_err *err)
{
    if (!buf->failed) {
        return ATT_OK;
    }
    size_t max = buf->max ? buf->max : ATT_BUF_MAX_DEFAULT;
    return att_fail(err, ATT_E_LIMIT, "a buffer outgrew its %zu bytes, or memory", max);
}

const char *att_buf_cstr(struct att_buf *buf)
{
    if (buf->failed || (!buf->ptr && !reserve(buf, 1))) {
        return NULL;
    }
    buf->ptr[buf->len] = 0;
    return (const char *)buf->ptr;
}

uint8_t *att_buf_steal(struct att_buf *buf, size_t *ret_len)
{
    uint8_t *ptr = buf->ptr;
    if (ret_len) {
        *ret_len = buf->len;
    }
    if (ptr) {
        ptr[buf->len] = 0; /* reserve() keeps a byte for it */
    }
    *buf = (struct att_buf){0};
    return ptr;
}
