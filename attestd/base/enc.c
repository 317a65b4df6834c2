#include "attestd/base/enc.h"

#include "attestd/base/secret.h"

#include <openssl/evp.h>
#include <string.h>

static const char digits[] = "0123456789abcdef";

void att_hex(char *ret, struct att_slice bytes)
{
    for (size_t i = 0; i < bytes.len; i++) {
        ret[2 * i] = digits[bytes.ptr[i] >> 4];
        ret[2 * i + 1] = digits[bytes.ptr[i] & 15];
    }
    ret[2 * bytes.len] = 0;
}

void att_buf_hex(struct att_buf *buf, struct att_slice bytes)
{
    for (size_t i = 0; i < bytes.len; i++) {
        att_buf_u8(buf, (uint8_t)digits[bytes.ptr[i] >> 4]);
        att_buf_u8(buf, (uint8_t)digits[bytes.ptr[i] & 15]);
    }
}

static int nibble(uint8_t c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    if (c >= 'A' && c <= 'F') {
        return c - 'A' + 10;
    }
    return -1;
}

enum att_rc att_unhex(struct att_buf *ret_bytes, struct att_slice text, struct att_err *err)
{
    if (text.len % 2) {
        return att_fail(err, ATT_E_PARSE, "hex of odd length %zu", text.len);
    }
    for (size_t i = 0; i < text.len; i += 2) {
        int hi = nibble(text.ptr[i]), lo = nibble(text.ptr[i + 1]);
        if (hi < 0 || lo < 0) {
            return att_fail(err, ATT_E_PARSE, "not a hex digit at offset %zu", i + (hi >= 0));
        }
        att_buf_u8(ret_bytes, (uint8_t)(hi << 4 | lo));
    }
    return att_buf_ok(ret_bytes, err);
}

enum att_rc att_unhex_exact(uint8_t *ret, size_t len, const char *text, struct att_err *err)
{
    if (!text || strlen(text) != 2 * len) {
        return att_fail(err, ATT_E_PARSE, "expected %zu hex digits, found %zu", 2 * len,
                        text ? strlen(text) : 0);
    }
    att_autobuf raw = {0};
    enum att_rc rc = att_unhex(&raw, att_slice_str(text), err);
    if (rc == ATT_OK && len) {
        memcpy(ret, raw.ptr, len);
    }
    return rc;
}

/* ---- base64url ---------------------------------------------------------------------------------
 *
 * Arithmetic instead of tables and branches: MAC keys come this way, and a compiler makes vectors
 * of it. libjose's decoder, which looks through its alphabet for each character, took 43 ns a
 * character, a third of all that an issuance cost the issuer; this takes less than 2. */

#define INVALID    0x80
#define CHUNK_TEXT 256 /* characters */
#define CHUNK      192 /* the bytes that they are */

/* 0xff when lo ≤ c ≤ hi, else 0. */
static inline uint8_t within(uint8_t c, uint8_t lo, uint8_t hi)
{
    return (uint8_t) - (uint8_t)((uint8_t)(c - lo) <= (uint8_t)(hi - lo));
}

static inline uint8_t sextet_of(uint8_t c)
{
    uint8_t upper = within(c, 'A', 'Z'), lower = within(c, 'a', 'z'), digit = within(c, '0', '9'),
            minus = within(c, '-', '-'), under = within(c, '_', '_');
    uint8_t any = upper | lower | digit | minus | under;
    return (uint8_t)((upper & (c - 'A')) | (lower & (c - 'a' + 26)) | (digit & (c - '0' + 52)) |
                     (minus & 62) | (under & 63) | (INVALID & ~any));
}

static inline uint8_t char_of(uint8_t sextet)
{
    return (uint8_t)((within(sextet, 0, 25) & (sextet + 'A')) |
                     (within(sextet, 26, 51) & (sextet - 26 + 'a')) |
                     (within(sextet, 52, 61) & (sextet - 52 + '0')) |
                     (within(sextet, 62, 62) & '-') | (within(sextet, 63, 63) & '_'));
}

/* One chunk, the last one filled up: loops of known length are what a compiler makes vectors of. */
struct chunk {
    uint8_t bytes[CHUNK], text[CHUNK_TEXT];
};

static void encode_chunk(struct chunk *c)
{
    for (size_t i = 0; i < CHUNK_TEXT / 4; i++) {
        const uint8_t *b = c->bytes + 3 * i;
        uint8_t *t = c->text + 4 * i;
        t[0] = b[0] >> 2;
        t[1] = (uint8_t)((b[0] << 4 | b[1] >> 4) & 63);
        t[2] = (uint8_t)((b[1] << 2 | b[2] >> 6) & 63);
        t[3] = b[2] & 63;
    }
    for (size_t i = 0; i < CHUNK_TEXT; i++) {
        c->text[i] = char_of(c->text[i]);
    }
}

/* False when there is a character that is none of the alphabet's. */
static bool decode_chunk(struct chunk *c)
{
    uint8_t bad = 0;
    for (size_t i = 0; i < CHUNK_TEXT; i++) {
        c->text[i] = sextet_of(c->text[i]);
        bad |= c->text[i];
    }
    for (size_t i = 0; i < CHUNK_TEXT / 4; i++) {
        const uint8_t *t = c->text + 4 * i;
        uint8_t *b = c->bytes + 3 * i;
        b[0] = (uint8_t)(t[0] << 2 | t[1] >> 4);
        b[1] = (uint8_t)(t[1] << 4 | t[2] >> 2);
        b[2] = (uint8_t)(t[2] << 6 | t[3]);
    }
    return (bad & INVALID) == 0;
}

void att_buf_b64u(struct att_buf *buf, struct att_slice bytes)
{
    struct chunk c;
    for (size_t i = 0; i < bytes.len; i += CHUNK) {
        size_t len = bytes.len - i < CHUNK ? bytes.len - i : CHUNK;
        memset(c.bytes + len, 0, CHUNK - len);
        memcpy(c.bytes, bytes.ptr + i, len);
        encode_chunk(&c);
        att_buf_put(buf, c.text, (len * 4 + 2) / 3);
    }
    if (bytes.len) {
        att_wipe(&c, sizeof c);
    }
}

/* Bits behind the last whole byte are zero: there is one text for each value (RFC 4648 §3.5). */
static bool unb64u_chunk(struct chunk *c, struct att_slice text, uint8_t *ret)
{
    memset(c->text + text.len, 'A', CHUNK_TEXT - text.len);
    memcpy(c->text, text.ptr, text.len);
    bool ok = decode_chunk(c);
    size_t len = text.len * 3 / 4;
    memcpy(ret, c->bytes, len);
    return ok && (text.len % 4 == 0 || c->bytes[len] == 0);
}

enum att_rc att_unb64u(struct att_buf *ret_bytes, struct att_slice text, struct att_err *err)
{
    if (text.len == 0) {
        return ATT_OK;
    }
    if (text.len % 4 == 1) {
        return att_fail(err, ATT_E_PARSE, "base64url of impossible length %zu", text.len);
    }
    size_t before = ret_bytes->len;
    uint8_t *at = att_buf_extend(ret_bytes, text.len / 4 * 3 + text.len % 4 * 3 / 4);
    if (!at) {
        return att_buf_ok(ret_bytes, err);
    }
    struct chunk c;
    bool ok = true;
    for (size_t i = 0; i < text.len && ok; i += CHUNK_TEXT) {
        size_t len = text.len - i < CHUNK_TEXT ? text.len - i : CHUNK_TEXT;
        ok = unb64u_chunk(&c, ATT_SLICE(text.ptr + i, len), at + i / 4 * 3);
    }
    att_wipe(&c, sizeof c);
    if (!ok) {
        att_wipe(at, ret_bytes->len - before);
        ret_bytes->len = before;
        return att_fail(err, ATT_E_PARSE, "not base64url, or with stray bits");
    }
    return ATT_OK;
}

/* ---- base64
 * ------------------------------------------------------------------------------------- */

void att_buf_b64(struct att_buf *buf, struct att_slice bytes)
{
    size_t need = (bytes.len + 2) / 3 * 4;
    if (need == 0 || bytes.len > INT32_MAX) {
        buf->failed = buf->failed || bytes.len > 0;
        return;
    }
    uint8_t *at = att_buf_extend(buf, need + 1); /* EVP_EncodeBlock writes a NUL */
    if (at) {
        EVP_EncodeBlock(at, bytes.ptr, (int)bytes.len);
        buf->len--;
    }
}

enum att_rc att_unb64(struct att_buf *ret_bytes, struct att_slice text, struct att_err *err)
{
    if (text.len % 4 || text.len > INT32_MAX) {
        return att_fail(err, ATT_E_PARSE, "base64 of impossible length %zu", text.len);
    }
    if (text.len == 0) {
        return ATT_OK;
    }
    size_t pad = (size_t)(text.ptr[text.len - 1] == '=') + (size_t)(text.ptr[text.len - 2] == '=');
    size_t before = ret_bytes->len;
    uint8_t *at = att_buf_extend(ret_bytes, text.len / 4 * 3);
    if (!at) {
        return att_buf_ok(ret_bytes, err);
    }
    int got = EVP_DecodeBlock(at, text.ptr, (int)text.len);
    ret_bytes->len = got < 0 ? before : before + (size_t)got - pad;
    att_autobuf again = {0};
    att_buf_b64(&again, ATT_SLICE(at, ret_bytes->len - before));
    if (got < 0 || !att_slice_eq(att_buf_slice(&again), text)) {
        ret_bytes->len = before;
        return att_fail(err, ATT_E_PARSE, "malformed base64");
    }
    return ATT_OK;
}
