/* The codec: shapes, frames, replies. No I/O. */
#include "attestd/proc/ipc.h"

#include <string.h>

const struct proc_op *proc_op_find(const struct proc_op *table, uint16_t op)
{
    for (; table->name; table++) {
        if (table->op == op) {
            return table;
        }
    }
    return NULL;
}

/* RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF; no control characters. */
static bool text_ok(struct att_slice text)
{
    for (size_t i = 0; i < text.len;) {
        uint8_t c = text.ptr[i];
        if (c < 0x80) {
            if (c < 0x20 || c == 0x7f) {
                return false;
            }
            i++;
            continue;
        }
        size_t more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
        if (c < 0xc2 || c > 0xf4 || text.len - i <= more) {
            return false;
        }
        uint32_t point = c & (0x3fu >> more);
        for (size_t k = 1; k <= more; k++) {
            if ((text.ptr[i + k] & 0xc0) != 0x80) {
                return false;
            }
            point = point << 6 | (text.ptr[i + k] & 0x3fu);
        }
        static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
        if (point < least[more] || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff)) {
            return false;
        }
        i += more + 1;
    }
    return true;
}

static enum att_rc check_bounds(const struct proc_field *field, uint64_t got, const char *unit,
                                struct att_err *err)
{
    if (got < field->min || got > field->max) {
        return att_fail(err, got > field->max ? ATT_E_LIMIT : ATT_E_PARSE,
                        "field %s: %llu%s, %u to %u expected", field->name, (unsigned long long)got,
                        unit, field->min, field->max);
    }
    return ATT_OK;
}

static enum att_rc check_value(const struct proc_field *field, const struct proc_value *value,
                               struct att_err *err)
{
    switch (field->type) {
    case PROC_U32:
        return check_bounds(field, value->num, "", err);
    case PROC_U64:
        return ATT_OK;
    case PROC_BYTES:
    case PROC_TEXT:
        if (field->type == PROC_TEXT && !text_ok(value->bytes)) {
            return att_fail(err, ATT_E_PARSE, "field %s: not clean UTF-8 text", field->name);
        }
        return check_bounds(field, value->bytes.len, " bytes", err);
    case PROC_LIST:
        for (size_t i = 0; i < value->item_count; i++) {
            if (value->items[i].len > field->item_max) {
                return att_fail(err, ATT_E_LIMIT, "field %s: item %zu has %zu bytes, at most %u",
                                field->name, i, value->items[i].len, field->item_max);
            }
        }
        return check_bounds(field, value->item_count, " items", err);
    }
    return att_fail(err, ATT_E_INTERNAL, "field %s has no type", field->name);
}

static enum att_rc read_list(const struct proc_field *field, struct att_cur *cur,
                             struct proc_msg *msg, struct proc_value *value, struct att_err *err)
{
    uint32_t count = att_cur_be32(cur);
    if (count > field->max || count > PROC_ITEMS_MAX - msg->items_used) {
        return att_fail(err, ATT_E_LIMIT, "field %s: %u items, at most %u", field->name, count,
                        field->max);
    }
    struct att_slice *items = msg->items + msg->items_used;
    for (uint32_t i = 0; i < count; i++) {
        items[i] = att_cur_take_be32(cur, field->item_max);
    }
    msg->items_used += count;
    value->items = items;
    value->item_count = count;
    return ATT_OK;
}

enum att_rc proc_msg_parse(const struct proc_shape *shape, struct att_slice payload,
                           struct proc_msg *ret_msg, struct att_err *err)
{
    struct att_cur cur = att_cur_init(payload);
    ret_msg->count = 0;
    ret_msg->items_used = 0;
    for (size_t i = 0; i < PROC_FIELDS_MAX && shape->fields[i].name; i++) {
        const struct proc_field *field = &shape->fields[i];
        struct proc_value *value = &ret_msg->v[i];
        *value = (struct proc_value){0};
        enum att_rc rc = ATT_OK;
        switch (field->type) {
        case PROC_U32:
            value->num = att_cur_be32(&cur);
            break;
        case PROC_U64:
            value->num = att_cur_be64(&cur);
            break;
        case PROC_BYTES:
        case PROC_TEXT:
            value->bytes = att_cur_take_be32(&cur, field->max);
            break;
        case PROC_LIST:
            rc = read_list(field, &cur, ret_msg, value, err);
            break;
        }
        if (rc == ATT_OK && cur.failed) {
            rc = att_fail(err, ATT_E_PARSE, "field %s: cut short, or longer than %u", field->name,
                          field->max);
        }
        if (rc == ATT_OK) {
            rc = check_value(field, value, err);
        }
        if (rc != ATT_OK) {
            return rc;
        }
        ret_msg->count++;
    }
    if (!att_cur_done(&cur)) {
        return att_fail(err, ATT_E_PARSE, "%zu bytes behind the last field", cur.left);
    }
    return ATT_OK;
}

enum att_rc proc_msg_encode(const struct proc_shape *shape, const struct proc_value *values,
                            struct att_buf *ret_bytes, struct att_err *err)
{
    for (size_t i = 0; i < PROC_FIELDS_MAX && shape->fields[i].name; i++) {
        const struct proc_field *field = &shape->fields[i];
        const struct proc_value *value = &values[i];
        enum att_rc rc = check_value(field, value, err);
        if (rc != ATT_OK) {
            return rc;
        }
        switch (field->type) {
        case PROC_U32:
            att_buf_be32(ret_bytes, (uint32_t)value->num);
            break;
        case PROC_U64:
            att_buf_be64(ret_bytes, value->num);
            break;
        case PROC_BYTES:
        case PROC_TEXT:
            att_buf_field_be32(ret_bytes, value->bytes);
            break;
        case PROC_LIST:
            att_buf_be32(ret_bytes, (uint32_t)value->item_count);
            for (size_t k = 0; k < value->item_count; k++) {
                att_buf_field_be32(ret_bytes, value->items[k]);
            }
            break;
        }
    }
    return att_buf_ok(ret_bytes, err);
}

enum att_rc proc_frame_parse(struct att_slice bytes, struct proc_frame *ret_frame,
                             struct att_err *err)
{
    struct att_cur cur = att_cur_init(bytes);
    uint32_t id = att_cur_be32(&cur);
    uint16_t op = att_cur_be16(&cur);
    if (cur.failed) {
        return att_fail(err, ATT_E_PARSE, "a frame of %zu bytes, at least %d expected", bytes.len,
                        PROC_HEADER_LEN);
    }
    if (bytes.len > PROC_FRAME_MAX) {
        return att_fail(err, ATT_E_LIMIT, "a frame of %zu bytes, at most %zu", bytes.len,
                        PROC_FRAME_MAX);
    }
    *ret_frame = (struct proc_frame){id, op, ATT_SLICE(cur.ptr, cur.left)};
    return ATT_OK;
}

enum att_rc proc_frame_encode(uint32_t id, uint16_t op, struct att_slice payload,
                              struct att_buf *ret_bytes, struct att_err *err)
{
    if (payload.len > PROC_FRAME_MAX - PROC_HEADER_LEN) {
        return att_fail(err, ATT_E_LIMIT, "a message of %zu bytes, at most %zu", payload.len,
                        PROC_FRAME_MAX - PROC_HEADER_LEN);
    }
    att_buf_be32(ret_bytes, (uint32_t)(payload.len + PROC_HEADER_LEN));
    att_buf_be32(ret_bytes, id);
    att_buf_be16(ret_bytes, op);
    att_buf_put_slice(ret_bytes, payload);
    return att_buf_ok(ret_bytes, err);
}

/* ---- replies ------------------------------------------------------------------------------- */

static const struct proc_shape error_shape = {{
    {"code", PROC_TEXT, 1, 32, 0},
    {"reason", PROC_TEXT, 0, 64, 0},
    {"message", PROC_TEXT, 0, 512, 0},
}};

enum att_rc proc_reply_encode(const struct proc_op *op, const struct proc_value *values,
                              struct att_buf *ret_payload, struct att_err *err)
{
    att_buf_reset(ret_payload);
    att_buf_u8(ret_payload, 0);
    enum att_rc rc = proc_msg_encode(&op->reply, values, ret_payload, err);
    if (rc != ATT_OK) {
        /* A reply that has not its own form is our bug, not the peer's. */
        att_err_prefix(err, "reply to %s", op->name);
        return rc == ATT_E_NOMEM ? rc : ATT_E_INTERNAL;
    }
    return ATT_OK;
}

void proc_reply_encode_err(enum att_rc rc, const struct att_err *cause, struct att_buf *ret_payload)
{
    char msg[sizeof cause->msg];
    size_t n = 0;
    /* Messages may quote what a peer sent; the wire carries printable ASCII only. */
    for (; cause && cause->msg[n] && n < sizeof msg - 1; n++) {
        char c = cause->msg[n];
        msg[n] = c < 0x20 || c > 0x7e ? '?' : c;
    }
    msg[n] = 0;
    const struct proc_value values[] = {
        {.bytes = att_slice_str(att_rc_name(rc))},
        {.bytes = att_slice_str(cause ? cause->reason : "")},
        {.bytes = att_slice_str(msg)},
    };
    att_buf_reset(ret_payload);
    att_buf_u8(ret_payload, 1);
    (void)!proc_msg_encode(&error_shape, values, ret_payload, NULL);
}

enum att_rc proc_rc_by_name(struct att_slice name)
{
    for (int rc = ATT_OK + 1; rc <= ATT_E_INTERNAL; rc++) {
        if (att_slice_eq_str(name, att_rc_name((enum att_rc)rc))) {
            return (enum att_rc)rc;
        }
    }
    return ATT_E_PROTOCOL;
}

static enum att_rc peers_error(const struct proc_op *op, struct att_slice body, struct att_err *err)
{
    struct proc_msg msg;
    if (proc_msg_parse(&error_shape, body, &msg, NULL) != ATT_OK) {
        return att_fail(err, ATT_E_PROTOCOL, "%s: an error reply that has not its form", op->name);
    }
    char reason[sizeof err->reason] = "";
    size_t len = msg.v[1].bytes.len;
    if (len >= sizeof reason) {
        len = sizeof reason - 1;
    }
    if (len) {
        memcpy(reason, msg.v[1].bytes.ptr, len);
    }
    enum att_rc rc = att_fail(err, proc_rc_by_name(msg.v[0].bytes), "%.*s", (int)msg.v[2].bytes.len,
                              (const char *)msg.v[2].bytes.ptr);
    att_err_reason(err, reason);
    return rc;
}

enum att_rc proc_reply_parse(const struct proc_op *op, struct att_slice payload,
                             struct proc_msg *ret_msg, struct att_err *err)
{
    if (payload.len == 0 || payload.ptr[0] > 1) {
        return att_fail(err, ATT_E_PROTOCOL, "%s: a reply without a status", op->name);
    }
    struct att_slice body = ATT_SLICE(payload.ptr + 1, payload.len - 1);
    if (payload.ptr[0] == 1) {
        return peers_error(op, body, err);
    }
    struct att_err cause = {0};
    if (proc_msg_parse(&op->reply, body, ret_msg, &cause) != ATT_OK) {
        return att_fail(err, ATT_E_PROTOCOL, "%s: reply: %s", op->name, cause.msg);
    }
    return ATT_OK;
}
