#include "attestd/base/enc.h"

#include <jose/b64.h>
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

void att_buf_b64u(struct att_buf *buf, struct att_slice bytes)
{
    if (bytes.len == 0) {
        return;
    }
    size_t need = jose_b64_enc_buf(NULL, bytes.len, NULL, 0);
    uint8_t *at = need == SIZE_MAX ? NULL : att_buf_extend(buf, need);
    if (!at || jose_b64_enc_buf(bytes.ptr, bytes.len, at, need) != need) {
        buf->failed = true;
    }
}

enum att_rc att_unb64u(struct att_buf *ret_bytes, struct att_slice text, struct att_err *err)
{
    if (text.len == 0) {
        return ATT_OK;
    }
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.ptr[i];
        if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
              c == '-' || c == '_')) {
            return att_fail(err, ATT_E_PARSE, "not base64url at offset %zu", i);
        }
    }
    size_t need = jose_b64_dec_buf(NULL, text.len, NULL, 0);
    if (need == SIZE_MAX) {
        return att_fail(err, ATT_E_PARSE, "base64url of impossible length %zu", text.len);
    }
    size_t before = ret_bytes->len;
    uint8_t *at = att_buf_extend(ret_bytes, need);
    if (!at) {
        return att_buf_ok(ret_bytes, err);
    }
    if (need && jose_b64_dec_buf(text.ptr, text.len, at, need) != need) {
        ret_bytes->len = before;
        return att_fail(err, ATT_E_PARSE, "malformed base64url");
    }
    /* One text per value: stray bits in the last character are refused. */
    att_autobuf again = {0};
    att_buf_b64u(&again, ATT_SLICE(at, need));
    if (!att_slice_eq(att_buf_slice(&again), text)) {
        ret_bytes->len = before;
        return att_fail(err, ATT_E_PARSE, "base64url with stray bits");
    }
    return ATT_OK;
}

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
