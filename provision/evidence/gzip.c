#include "provision/evidence/logs.h"

#include <limits.h>
#include <string.h>
#define ZLIB_CONST 1 /* next_in points to const */
#include <zlib.h>

#define GZIP_WINDOW (15 + 16) /* zlib's way to say: a gzip member and nothing else */
#define STEP        ((size_t)64 << 10)

enum att_rc evidence_gzip(struct att_slice bytes, struct att_buf *ret_gz, struct att_err *err)
{
    z_stream z = {0};
    if (bytes.len > UINT_MAX) {
        return att_fail(err, ATT_E_LIMIT, "%zu bytes are too many for one gzip member", bytes.len);
    }
    if (deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, GZIP_WINDOW, 8, Z_DEFAULT_STRATEGY) !=
        Z_OK) {
        return att_fail(err, ATT_E_NOMEM, "gzip: no memory");
    }
    size_t before = ret_gz->len;
    uLong bound = deflateBound(&z, (uLong)bytes.len);
    uint8_t *at = bound > UINT_MAX ? NULL : att_buf_extend(ret_gz, bound);
    static const uint8_t nothing;
    z.next_in = bytes.len ? bytes.ptr : &nothing;
    z.avail_in = (uInt)bytes.len;
    z.next_out = at;
    z.avail_out = (uInt)bound;
    int done = at ? deflate(&z, Z_FINISH) : Z_BUF_ERROR;
    deflateEnd(&z);
    if (done != Z_STREAM_END) {
        return att_fail(err, ATT_E_LIMIT, "gzip: no room for %zu bytes", bytes.len);
    }
    ret_gz->len = before + z.total_out;
    return ATT_OK;
}

/* Grows in steps, so that a small bomb costs at most what it unpacks to, and never above max. */
static enum att_rc inflate_all(z_stream *z, size_t max, struct att_buf *ret_bytes,
                               struct att_err *err)
{
    size_t got = 0;
    for (int state = Z_OK; state != Z_STREAM_END;) {
        size_t room = max - got < STEP ? max - got + 1 : STEP; /* + 1 shows that there is more */
        uint8_t *at = att_buf_extend(ret_bytes, room);
        if (!at) {
            return att_buf_ok(ret_bytes, err);
        }
        z->next_out = at;
        z->avail_out = (uInt)room;
        state = inflate(z, Z_NO_FLUSH);
        size_t made = room - z->avail_out;
        ret_bytes->len -= z->avail_out;
        got += made;
        if (got > max) {
            return att_fail(err, ATT_E_LIMIT, "gzip: more than %zu bytes unpacked", max);
        }
        bool stuck = state == Z_BUF_ERROR || (state == Z_OK && made == 0 && z->avail_in == 0);
        if ((state != Z_OK && state != Z_STREAM_END) || stuck) {
            return att_fail(err, ATT_E_PARSE, "gzip: %s", z->msg ? z->msg : "truncated");
        }
    }
    return ATT_OK;
}

enum att_rc evidence_gunzip(struct att_slice gz, size_t max, struct att_buf *ret_bytes,
                            struct att_err *err)
{
    if (gz.len == 0 || gz.len > UINT_MAX) {
        return att_fail(err, ATT_E_PARSE, "gzip: %zu bytes are no gzip member", gz.len);
    }
    z_stream z = {.next_in = gz.ptr, .avail_in = (uInt)gz.len};
    if (inflateInit2(&z, GZIP_WINDOW) != Z_OK) {
        return att_fail(err, ATT_E_NOMEM, "gzip: no memory");
    }
    size_t before = ret_bytes->len;
    enum att_rc rc = inflate_all(&z, max, ret_bytes, err);
    size_t left = z.avail_in;
    inflateEnd(&z);
    if (rc == ATT_OK && left) {
        rc = att_fail(err, ATT_E_PARSE, "gzip: %zu bytes after the end of the member", left);
    }
    if (rc != ATT_OK) {
        ret_bytes->len = before;
    }
    return rc;
}
