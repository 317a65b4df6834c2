#include "attestd/spiffe/reflect.h"

#include <string.h>

/* descriptor.proto: FileDescriptorSet {file = 1}; FileDescriptorProto {name = 1, package = 2,
 * message_type = 4, enum_type = 5, service = 6}; DescriptorProto {name = 1, nested_type = 3,
 * enum_type = 4}; EnumDescriptorProto {name = 1}; ServiceDescriptorProto {name = 1, method = 2};
 * MethodDescriptorProto {name = 1}. */
enum { SET_FILE = 1 };
enum { FILE_NAME = 1, FILE_PACKAGE, FILE_MESSAGE = 4, FILE_ENUM, FILE_SERVICE };
enum { MESSAGE_NESTED = 3, MESSAGE_ENUM };
enum { SERVICE_METHOD = 2 };
enum { ANY_NAME = 1 };
enum { WIRE_VARINT = 0, WIRE_I64 = 1, WIRE_LEN = 2, WIRE_I32 = 5 };

#define NESTING_MAX 16

/* ---- fields -------------------------------------------------------------------------------- */

static uint64_t varint(struct att_cur *cur)
{
    uint64_t n = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint8_t byte = att_cur_u8(cur);
        n |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            return n;
        }
    }
    cur->failed = true;
    return 0;
}

/* The next field that has a length. False: there is none. */
static bool next_field(struct att_cur *cur, uint64_t *ret_field, struct att_slice *ret_bytes)
{
    while (cur->left && !cur->failed) {
        uint64_t tag = varint(cur);
        *ret_field = tag >> 3;
        switch (tag & 7) {
        case WIRE_VARINT:
            (void)varint(cur);
            break;
        case WIRE_I64:
            (void)att_cur_take(cur, 8);
            break;
        case WIRE_I32:
            (void)att_cur_take(cur, 4);
            break;
        case WIRE_LEN: {
            uint64_t len = varint(cur);
            *ret_bytes = att_cur_take(cur, len <= cur->left ? (size_t)len : SIZE_MAX);
            return !cur->failed;
        }
        default:
            cur->failed = true;
        }
    }
    return false;
}

/* The first one of this number. */
static struct att_slice field_of(struct att_slice message, uint64_t wanted)
{
    struct att_cur cur = att_cur_init(message);
    struct att_slice bytes;
    uint64_t field;
    while (next_field(&cur, &field, &bytes)) {
        if (field == wanted) {
            return bytes;
        }
    }
    return (struct att_slice){0};
}

/* ---- names --------------------------------------------------------------------------------- */

/* Takes name from the beginning of *symbol, and the dot behind it. False: it begins otherwise. */
static bool take_name(struct att_slice *symbol, struct att_slice name)
{
    if (!name.len || symbol->len < name.len || memcmp(symbol->ptr, name.ptr, name.len) != 0) {
        return false;
    }
    size_t taken = name.len;
    if (symbol->len > taken && symbol->ptr[taken++] != '.') {
        return false;
    }
    *symbol = ATT_SLICE(symbol->ptr + taken, symbol->len - taken);
    return symbol->len > 0 || taken == name.len; /* nothing follows a last dot */
}

static bool is_name(struct att_slice of, struct att_slice symbol)
{
    struct att_slice name = field_of(of, ANY_NAME);
    return name.len && att_slice_eq(name, symbol);
}

static bool service_declares(struct att_slice service, struct att_slice symbol)
{
    struct att_cur cur = att_cur_init(service);
    struct att_slice bytes;
    uint64_t field;
    if (!take_name(&symbol, field_of(service, ANY_NAME))) {
        return false;
    }
    while (symbol.len && next_field(&cur, &field, &bytes)) {
        if (field == SERVICE_METHOD && is_name(bytes, symbol)) {
            return true;
        }
    }
    return symbol.len == 0;
}

static bool message_declares(struct att_slice message, struct att_slice symbol, unsigned depth)
{
    struct att_cur cur = att_cur_init(message);
    struct att_slice bytes;
    uint64_t field;
    if (!take_name(&symbol, field_of(message, ANY_NAME))) {
        return false;
    }
    while (symbol.len && depth < NESTING_MAX && next_field(&cur, &field, &bytes)) {
        if ((field == MESSAGE_NESTED && message_declares(bytes, symbol, depth + 1)) ||
            (field == MESSAGE_ENUM && is_name(bytes, symbol))) {
            return true;
        }
    }
    return symbol.len == 0;
}

static bool file_declares(struct att_slice file, struct att_slice symbol)
{
    struct att_slice package = field_of(file, FILE_PACKAGE), bytes;
    struct att_cur cur = att_cur_init(file);
    uint64_t field;
    if (package.len && !(take_name(&symbol, package) && symbol.len)) {
        return false;
    }
    while (next_field(&cur, &field, &bytes)) {
        if ((field == FILE_MESSAGE && message_declares(bytes, symbol, 0)) ||
            (field == FILE_ENUM && is_name(bytes, symbol)) ||
            (field == FILE_SERVICE && service_declares(bytes, symbol))) {
            return true;
        }
    }
    return false;
}

/* ---- files --------------------------------------------------------------------------------- */

struct att_slice reflect_file_named(struct att_slice set, struct att_slice name)
{
    struct att_cur cur = att_cur_init(set);
    struct att_slice file;
    uint64_t field;
    while (name.len && next_field(&cur, &field, &file)) {
        if (field == SET_FILE && att_slice_eq(field_of(file, FILE_NAME), name)) {
            return file;
        }
    }
    return (struct att_slice){0};
}

struct att_slice reflect_file_declaring(struct att_slice set, struct att_slice symbol)
{
    struct att_cur cur = att_cur_init(set);
    struct att_slice file;
    uint64_t field;
    while (symbol.len && next_field(&cur, &field, &file)) {
        if (field == SET_FILE && file_declares(file, symbol)) {
            return file;
        }
    }
    return (struct att_slice){0};
}
