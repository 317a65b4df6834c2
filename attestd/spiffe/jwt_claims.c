#include "attestd/spiffe/jwt_claims.h"

#include <string.h>

/* struct.proto: Struct {map<string, Value> fields = 1}; ListValue {repeated Value values = 1};
 * Value {null_value = 1, number_value = 2, string_value = 3, bool_value = 4, struct_value = 5,
 * list_value = 6}. */
enum { WIRE_VARINT = 0, WIRE_I64 = 1, WIRE_LEN = 2 };
enum { V_NULL = 1, V_NUMBER, V_STRING, V_BOOL, V_STRUCT, V_LIST };

static void put_varint(struct att_buf *to, uint64_t n)
{
    for (; n > 0x7f; n >>= 7) {
        att_buf_u8(to, (uint8_t)(n | 0x80));
    }
    att_buf_u8(to, (uint8_t)n);
}

static void put_tag(struct att_buf *to, unsigned field, unsigned wire)
{
    put_varint(to, field << 3 | wire);
}

static void put_len(struct att_buf *to, unsigned field, struct att_slice bytes)
{
    put_tag(to, field, WIRE_LEN);
    put_varint(to, bytes.len);
    att_buf_put_slice(to, bytes);
}

static void put_double(struct att_buf *to, unsigned field, double number)
{
    uint64_t bits;
    memcpy(&bits, &number, sizeof bits);
    put_tag(to, field, WIRE_I64);
    for (unsigned i = 0; i < 8; i++) {
        att_buf_u8(to, (uint8_t)(bits >> (8 * i)));
    }
}

static enum att_rc put_object(const json_t *object, unsigned depth, struct att_buf *ret,
                              struct att_err *err);

static enum att_rc put_value(const json_t *value, unsigned depth, struct att_buf *ret,
                             struct att_err *err)
{
    att_autobuf inner = ATT_BUF_INIT(ret->max);
    enum att_rc rc = ATT_OK;
    switch (json_typeof(value)) {
    case JSON_STRING:
        put_len(ret, V_STRING, ATT_SLICE(json_string_value(value), json_string_length(value)));
        return ATT_OK;
    case JSON_INTEGER:
    case JSON_REAL:
        put_double(ret, V_NUMBER, json_number_value(value));
        return ATT_OK;
    case JSON_OBJECT:
        rc = put_object(value, depth + 1, &inner, err);
        put_len(ret, V_STRUCT, att_buf_slice(&inner));
        return rc;
    case JSON_ARRAY:
        for (size_t i = 0; rc == ATT_OK && i < json_array_size(value); i++) {
            att_autobuf one = ATT_BUF_INIT(ret->max);
            rc = depth < JWT_CLAIMS_DEPTH_MAX
                     ? put_value(json_array_get(value, i), depth + 1, &one, err)
                     : att_fail(err, ATT_E_LIMIT, "claims: too deep");
            put_len(&inner, 1, att_buf_slice(&one));
        }
        put_len(ret, V_LIST, att_buf_slice(&inner));
        return rc != ATT_OK ? rc : att_buf_ok(&inner, err);
    case JSON_NULL:
        put_tag(ret, V_NULL, WIRE_VARINT);
        put_varint(ret, 0);
        return ATT_OK;
    default:
        put_tag(ret, V_BOOL, WIRE_VARINT);
        put_varint(ret, json_is_true(value) ? 1 : 0);
        return ATT_OK;
    }
}

static enum att_rc put_object(const json_t *object, unsigned depth, struct att_buf *ret,
                              struct att_err *err)
{
    const char *name;
    json_t *value;
    if (depth > JWT_CLAIMS_DEPTH_MAX) {
        return att_fail(err, ATT_E_LIMIT, "claims: too deep");
    }
    /* jansson's iterators want an object that is not const, and leave it as it is. */
    json_object_foreach((json_t *)(uintptr_t)object, name, value)
    {
        att_autobuf entry = ATT_BUF_INIT(ret->max), one = ATT_BUF_INIT(ret->max);
        enum att_rc rc = put_value(value, depth, &one, err);
        if (rc != ATT_OK) {
            return rc;
        }
        put_len(&entry, 1, att_slice_str(name));
        put_len(&entry, 2, att_buf_slice(&one));
        rc = att_buf_ok(&entry, err);
        if (rc != ATT_OK) {
            return rc;
        }
        put_len(ret, 1, att_buf_slice(&entry));
    }
    return att_buf_ok(ret, err);
}

enum att_rc jwt_claims_encode(const json_t *object, struct att_buf *ret, struct att_err *err)
{
    return put_object(object, 1, ret, err);
}
