#include "certs/der.h"

#include <string.h>
#include <time.h>

static const uint8_t ecdsa_sha256[] = {0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86,
                                       0x48, 0xce, 0x3d, 0x04, 0x03, 0x02};
const struct att_slice certs_der_ecdsa_sha256 = {ecdsa_sha256, sizeof ecdsa_sha256};

static const uint8_t rsa_sha256[] = {0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86,
                                     0xf7, 0x0d, 0x01, 0x01, 0x0b, 0x05, 0x00};
const struct att_slice certs_der_rsa_sha256 = {rsa_sha256, sizeof rsa_sha256};

size_t certs_der_begin(struct att_buf *buf, uint8_t tag)
{
    att_buf_u8(buf, tag);
    return buf->len;
}

void certs_der_end(struct att_buf *buf, size_t mark)
{
    if (buf->failed) {
        return;
    }
    size_t len = buf->len - mark;
    uint8_t head[4];
    size_t head_len;
    if (len < 0x80) {
        head[0] = (uint8_t)len;
        head_len = 1;
    } else if (len <= 0xff) {
        head[0] = 0x81;
        head[1] = (uint8_t)len;
        head_len = 2;
    } else if (len <= 0xffff) {
        head[0] = 0x82;
        head[1] = (uint8_t)(len >> 8);
        head[2] = (uint8_t)len;
        head_len = 3;
    } else {
        buf->failed = true; /* nothing of ours is that long */
        return;
    }
    if (att_buf_extend(buf, head_len)) {
        memmove(buf->ptr + mark + head_len, buf->ptr + mark, len);
        memcpy(buf->ptr + mark, head, head_len);
    }
}

void certs_der_put(struct att_buf *buf, uint8_t tag, struct att_slice content)
{
    size_t mark = certs_der_begin(buf, tag);
    att_buf_put_slice(buf, content);
    certs_der_end(buf, mark);
}

void certs_der_put_uint(struct att_buf *buf, struct att_slice bytes)
{
    while (bytes.len > 1 && bytes.ptr[0] == 0) {
        bytes.ptr++;
        bytes.len--;
    }
    size_t mark = certs_der_begin(buf, DER_INTEGER);
    if (bytes.len == 0 || bytes.ptr[0] & 0x80) {
        att_buf_u8(buf, 0);
    }
    att_buf_put_slice(buf, bytes);
    certs_der_end(buf, mark);
}

/* Base 128, most significant group first, X.690 §8.19. */
static void put_arc(struct att_buf *buf, unsigned __int128 arc)
{
    uint8_t groups[19];
    size_t n = 0;
    do {
        groups[n++] = (uint8_t)(arc & 0x7f);
        arc >>= 7;
    } while (arc);
    while (n--) {
        att_buf_u8(buf, (uint8_t)(groups[n] | (n ? 0x80 : 0)));
    }
}

void certs_der_put_oid(struct att_buf *buf, const char *dotted)
{
    size_t mark = certs_der_begin(buf, DER_OID);
    unsigned __int128 arc = 0, first = 0;
    size_t n = 0;
    for (const char *c = dotted;; c++) {
        if (*c >= '0' && *c <= '9') {
            arc = arc * 10 + (unsigned)(*c - '0');
            continue;
        }
        if (n == 0) {
            first = arc;
        } else {
            put_arc(buf, n == 1 ? first * 40 + arc : arc);
        }
        n++;
        arc = 0;
        if (*c != '.') {
            buf->failed |= *c != 0 || n < 2 || first > 2;
            break;
        }
    }
    certs_der_end(buf, mark);
}

void certs_der_put_time(struct att_buf *buf, int64_t utc_s)
{
    time_t t = (time_t)utc_s;
    struct tm tm;
    char text[32];
    if (!gmtime_r(&t, &tm) || tm.tm_year < 70 || tm.tm_year + 1900 > 9999) {
        buf->failed = true;
        return;
    }
    bool utc = tm.tm_year + 1900 < 2050;
    size_t len = strftime(text, sizeof text, "%Y%m%d%H%M%SZ", &tm);
    size_t century = utc ? 2 : 0; /* UTCTime leaves it out */
    certs_der_put(buf, utc ? 0x17 : 0x18, ATT_SLICE(text + century, len - century));
}

/* Reads the header; on success the content is next in cur. */
static size_t take_header(struct att_cur *cur, uint8_t tag)
{
    if (att_cur_u8(cur) != tag) {
        cur->failed = true;
        return 0;
    }
    size_t len = att_cur_u8(cur);
    if (len < 0x80) {
        return len;
    }
    size_t n = len & 0x7f;
    if (n == 0 || n > 3) { /* indefinite, or beyond anything that is read here */
        cur->failed = true;
        return 0;
    }
    len = 0;
    for (size_t i = 0; i < n; i++) {
        len = len << 8 | att_cur_u8(cur);
    }
    if (len < 0x80 || (n > 1 && len >> (8 * (n - 1)) == 0)) { /* not the shortest form */
        cur->failed = true;
        return 0;
    }
    return len;
}

struct att_slice certs_der_take(struct att_cur *cur, uint8_t tag)
{
    size_t len = take_header(cur, tag);
    return cur->failed ? ATT_SLICE(NULL, 0) : att_cur_take(cur, len);
}

struct att_slice certs_der_take_whole(struct att_cur *cur, uint8_t tag)
{
    const uint8_t *start = cur->ptr;
    struct att_slice content = certs_der_take(cur, tag);
    if (cur->failed) {
        return ATT_SLICE(NULL, 0);
    }
    return ATT_SLICE(start, (size_t)(content.ptr + content.len - start));
}
