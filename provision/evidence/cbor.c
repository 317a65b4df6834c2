#include "provision/evidence/cbor.h"

#include <cbor.h>
#include <jansson.h>
#include <string.h>

/* libcbor changed the length type of its callbacks in 0.10. */
#if CBOR_MAJOR_VERSION > 0 || CBOR_MINOR_VERSION >= 10
#define CB_LEN uint64_t
#else
#define CB_LEN size_t
#endif

enum kind { OTHER, UINT, NEGINT, BYTES, TEXT, ARRAY, MAP };
static const char *const kind_names[] = {"another kind",  "an integer", "a negative integer",
                                         "a byte string", "a text",     "an array",
                                         "a map"};

struct item {
    enum kind kind;
    uint64_t value; /* the number, or the count */
    struct att_slice bytes;
};

static void on_uint(void *user, uint64_t v)
{
    *(struct item *)user = (struct item){.kind = UINT, .value = v};
}

static void on_uint8(void *user, uint8_t v)
{
    on_uint(user, v);
}

static void on_uint16(void *user, uint16_t v)
{
    on_uint(user, v);
}

static void on_uint32(void *user, uint32_t v)
{
    on_uint(user, v);
}

static void on_negint(void *user, uint64_t v)
{
    *(struct item *)user = (struct item){.kind = NEGINT, .value = v};
}

static void on_negint8(void *user, uint8_t v)
{
    on_negint(user, v);
}

static void on_negint16(void *user, uint16_t v)
{
    on_negint(user, v);
}

static void on_negint32(void *user, uint32_t v)
{
    on_negint(user, v);
}

static void on_bytes(void *user, cbor_data at, CB_LEN len)
{
    *(struct item *)user = (struct item){.kind = BYTES, .bytes = ATT_SLICE(at, (size_t)len)};
}

static void on_text(void *user, cbor_data at, CB_LEN len)
{
    *(struct item *)user = (struct item){.kind = TEXT, .bytes = ATT_SLICE(at, (size_t)len)};
}

static void on_array(void *user, CB_LEN n)
{
    *(struct item *)user = (struct item){.kind = ARRAY, .value = n};
}

static void on_map(void *user, CB_LEN n)
{
    *(struct item *)user = (struct item){.kind = MAP, .value = n};
}

/* Everything else (indefinite lengths, tags, floats, simple values) stays OTHER. */
static enum att_rc next(struct evidence_cbor *cbor, const char *what, enum kind want,
                        struct item *ret_item, struct att_err *err)
{
    struct cbor_callbacks callbacks = cbor_empty_callbacks;
    callbacks.uint8 = on_uint8;
    callbacks.uint16 = on_uint16;
    callbacks.uint32 = on_uint32;
    callbacks.uint64 = on_uint;
    callbacks.negint8 = on_negint8;
    callbacks.negint16 = on_negint16;
    callbacks.negint32 = on_negint32;
    callbacks.negint64 = on_negint;
    callbacks.byte_string = on_bytes;
    callbacks.string = on_text;
    callbacks.array_start = on_array;
    callbacks.map_start = on_map;
    struct item item = {0};
    if (cbor->left.len == 0) {
        return att_fail(err, ATT_E_PARSE, "%s: CBOR ends where it should stand", what);
    }
    struct cbor_decoder_result res =
        cbor_stream_decode(cbor->left.ptr, cbor->left.len, &callbacks, &item);
    if (res.status != CBOR_DECODER_FINISHED || res.read == 0 || res.read > cbor->left.len) {
        return att_fail(err, ATT_E_PARSE, "%s: malformed or truncated CBOR", what);
    }
    bool int_either = want == UINT && item.kind == NEGINT;
    if (item.kind != want && !int_either) {
        return att_fail(err, ATT_E_PARSE, "%s: expected %s, found %s", what, kind_names[want],
                        kind_names[item.kind]);
    }
    cbor->left = ATT_SLICE(cbor->left.ptr + res.read, cbor->left.len - res.read);
    *ret_item = item;
    return ATT_OK;
}

static enum att_rc next_count(struct evidence_cbor *cbor, const char *what, enum kind want,
                              size_t max, size_t *ret_n, struct att_err *err)
{
    struct item item = {0};
    enum att_rc rc = next(cbor, what, want, &item, err);
    if (rc != ATT_OK) {
        return rc;
    }
    if (item.value > max) {
        return att_fail(err, ATT_E_LIMIT, "%s: %llu entries, at most %zu", what,
                        (unsigned long long)item.value, max);
    }
    *ret_n = (size_t)item.value;
    return ATT_OK;
}

enum att_rc evidence_cbor_map(struct evidence_cbor *cbor, const char *what, size_t max,
                              size_t *ret_n, struct att_err *err)
{
    return next_count(cbor, what, MAP, max, ret_n, err);
}

enum att_rc evidence_cbor_array(struct evidence_cbor *cbor, const char *what, size_t max,
                                size_t *ret_n, struct att_err *err)
{
    return next_count(cbor, what, ARRAY, max, ret_n, err);
}

enum att_rc evidence_cbor_uint(struct evidence_cbor *cbor, const char *what, uint64_t max,
                               uint64_t *ret_v, struct att_err *err)
{
    struct item item = {0};
    enum att_rc rc = next(cbor, what, UINT, &item, err);
    if (rc != ATT_OK) {
        return rc;
    }
    if (item.kind != UINT || item.value > max) {
        return att_fail(err, ATT_E_LIMIT, "%s: expected 0 … %llu", what, (unsigned long long)max);
    }
    *ret_v = item.value;
    return ATT_OK;
}

/* RFC 8949 §3.3: one byte each. */
#define CBOR_FALSE 0xf4
#define CBOR_TRUE  0xf5

enum att_rc evidence_cbor_bool(struct evidence_cbor *cbor, const char *what, bool *ret_v,
                               struct att_err *err)
{
    uint8_t byte = cbor->left.len ? cbor->left.ptr[0] : 0;
    if (byte != CBOR_FALSE && byte != CBOR_TRUE) {
        return att_fail(err, ATT_E_PARSE, "%s: expected true or false", what);
    }
    cbor->left = (struct att_slice){cbor->left.ptr + 1, cbor->left.len - 1};
    *ret_v = byte == CBOR_TRUE;
    return ATT_OK;
}

void evidence_cbor_put_bool(struct att_buf *buf, bool v)
{
    att_buf_u8(buf, v ? CBOR_TRUE : CBOR_FALSE);
}

enum att_rc evidence_cbor_int(struct evidence_cbor *cbor, const char *what, int32_t max,
                              int32_t *ret_v, struct att_err *err)
{
    struct item item = {0};
    enum att_rc rc = next(cbor, what, UINT, &item, err);
    if (rc != ATT_OK) {
        return rc;
    }
    if (item.value >= (uint64_t)max) {
        return att_fail(err, ATT_E_LIMIT, "%s: beyond ±%d", what, (int)max);
    }
    *ret_v = item.kind == NEGINT ? -1 - (int32_t)item.value : (int32_t)item.value;
    return ATT_OK;
}

enum att_rc evidence_cbor_bytes(struct evidence_cbor *cbor, const char *what, size_t max,
                                struct att_slice *ret_bytes, struct att_err *err)
{
    struct item item = {0};
    enum att_rc rc = next(cbor, what, BYTES, &item, err);
    if (rc != ATT_OK) {
        return rc;
    }
    if (item.bytes.len > max) {
        return att_fail(err, ATT_E_LIMIT, "%s: %zu bytes, at most %zu", what, item.bytes.len, max);
    }
    *ret_bytes = item.bytes;
    return ATT_OK;
}

bool evidence_text_ok(struct att_slice text)
{
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] < 0x20 || text.ptr[i] == 0x7f) {
            return false;
        }
    }
    /* jansson refuses what is not UTF-8. */
    json_t *checked = json_stringn(text.len ? (const char *)text.ptr : "", text.len);
    json_decref(checked);
    return checked != NULL;
}

enum att_rc evidence_cbor_text(struct evidence_cbor *cbor, const char *what, char *ret, size_t room,
                               struct att_err *err)
{
    struct item item = {0};
    enum att_rc rc = next(cbor, what, TEXT, &item, err);
    if (rc != ATT_OK) {
        return rc;
    }
    if (item.bytes.len >= room) {
        return att_fail(err, ATT_E_LIMIT, "%s: text of %zu bytes, at most %zu", what,
                        item.bytes.len, room - 1);
    }
    if (!evidence_text_ok(item.bytes)) {
        return att_fail(err, ATT_E_PARSE, "%s: not UTF-8, or control characters in it", what);
    }
    if (item.bytes.len) {
        memcpy(ret, item.bytes.ptr, item.bytes.len);
    }
    ret[item.bytes.len] = 0;
    return ATT_OK;
}

enum att_rc evidence_cbor_key(struct evidence_cbor *cbor, const char *what,
                              const char *const *names, size_t n, unsigned *seen, size_t *ret_index,
                              struct att_err *err)
{
    char name[32];
    enum att_rc rc = evidence_cbor_text(cbor, what, name, sizeof name, err);
    if (rc != ATT_OK) {
        return rc;
    }
    for (size_t i = 0; i < n; i++) {
        if (strcmp(names[i], name) != 0) {
            continue;
        }
        if (*seen & 1u << i) {
            return att_fail(err, ATT_E_PARSE, "%s: \"%s\" is there twice", what, name);
        }
        *seen |= 1u << i;
        *ret_index = i;
        return ATT_OK;
    }
    return att_fail(err, ATT_E_PARSE, "%s: unknown member \"%s\"", what, name);
}

enum att_rc evidence_cbor_have(const char *what, const char *const *names, unsigned must,
                               unsigned seen, struct att_err *err)
{
    for (size_t i = 0; must >> i; i++) {
        if (must & ~seen & 1u << i) {
            return att_fail(err, ATT_E_PARSE, "%s: \"%s\" is missing", what, names[i]);
        }
    }
    return ATT_OK;
}

enum att_rc evidence_cbor_end(const struct evidence_cbor *cbor, const char *what,
                              struct att_err *err)
{
    if (cbor->left.len) {
        return att_fail(err, ATT_E_PARSE, "%s: %zu bytes after its end", what, cbor->left.len);
    }
    return ATT_OK;
}

#define HEAD_MAX 9

static void put_head(struct att_buf *buf, const unsigned char *head, size_t len)
{
    if (len == 0) {
        buf->failed = true;
        return;
    }
    att_buf_put(buf, head, len);
}

void evidence_cbor_put_map(struct att_buf *buf, size_t n)
{
    unsigned char head[HEAD_MAX];
    put_head(buf, head, cbor_encode_map_start(n, head, sizeof head));
}

void evidence_cbor_put_array(struct att_buf *buf, size_t n)
{
    unsigned char head[HEAD_MAX];
    put_head(buf, head, cbor_encode_array_start(n, head, sizeof head));
}

void evidence_cbor_put_uint(struct att_buf *buf, uint64_t v)
{
    unsigned char head[HEAD_MAX];
    put_head(buf, head, cbor_encode_uint(v, head, sizeof head));
}

void evidence_cbor_put_int(struct att_buf *buf, int32_t v)
{
    unsigned char head[HEAD_MAX];
    if (v >= 0) {
        evidence_cbor_put_uint(buf, (uint64_t)v);
    } else {
        put_head(buf, head, cbor_encode_negint((uint64_t)(-1 - v), head, sizeof head));
    }
}

void evidence_cbor_put_bytes(struct att_buf *buf, struct att_slice bytes)
{
    unsigned char head[HEAD_MAX];
    put_head(buf, head, cbor_encode_bytestring_start(bytes.len, head, sizeof head));
    att_buf_put_slice(buf, bytes);
}

void evidence_cbor_put_text(struct att_buf *buf, const char *text)
{
    unsigned char head[HEAD_MAX];
    put_head(buf, head, cbor_encode_string_start(strlen(text), head, sizeof head));
    att_buf_put_str(buf, text);
}
