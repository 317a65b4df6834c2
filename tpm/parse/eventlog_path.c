/* UEFI strings, GUIDs and device paths as text. */
#include "tpm/parse/eventlog_payload.h"

#include "attestd/base/enc.h"

#include <stdio.h>

#define TEXT_MAX ((size_t)64 << 10)

void parse_eventlog_guid_text(char ret[PARSE_GUID_TEXT_LEN], const uint8_t guid[16])
{
    static const unsigned order[16] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
    static const char digits[] = "0123456789abcdef";
    size_t at = 0;
    for (size_t i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) {
            ret[at++] = '-';
        }
        ret[at++] = digits[guid[order[i]] >> 4];
        ret[at++] = digits[guid[order[i]] & 15];
    }
    ret[at] = 0;
}

static void put_utf8(struct att_buf *buf, uint32_t c)
{
    if (c < 0x80) {
        att_buf_u8(buf, (uint8_t)c);
    } else if (c < 0x800) {
        att_buf_u8(buf, (uint8_t)(0xC0 | c >> 6));
        att_buf_u8(buf, (uint8_t)(0x80 | (c & 0x3F)));
    } else if (c < 0x10000) {
        att_buf_u8(buf, (uint8_t)(0xE0 | c >> 12));
        att_buf_u8(buf, (uint8_t)(0x80 | (c >> 6 & 0x3F)));
        att_buf_u8(buf, (uint8_t)(0x80 | (c & 0x3F)));
    } else {
        att_buf_u8(buf, (uint8_t)(0xF0 | c >> 18));
        att_buf_u8(buf, (uint8_t)(0x80 | (c >> 12 & 0x3F)));
        att_buf_u8(buf, (uint8_t)(0x80 | (c >> 6 & 0x3F)));
        att_buf_u8(buf, (uint8_t)(0x80 | (c & 0x3F)));
    }
}

/* Up to the first NUL or the end. */
static void put_utf16(struct att_buf *buf, struct att_slice utf16)
{
    struct att_cur cur = att_cur_init(utf16);
    while (cur.left >= 2) {
        uint32_t c = att_cur_le16(&cur);
        if (c == 0) {
            return;
        }
        if (c >= 0xD800 && c <= 0xDBFF) {
            struct att_cur ahead = cur;
            uint32_t low = att_cur_le16(&ahead);
            bool pair = !ahead.failed && low >= 0xDC00 && low <= 0xDFFF;
            c = pair ? 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00) : 0xFFFD;
            cur = pair ? ahead : cur;
        } else if (c >= 0xDC00 && c <= 0xDFFF) {
            c = 0xFFFD;
        }
        put_utf8(buf, c);
    }
}

static json_t *buf_json(const struct att_buf *buf)
{
    return buf->failed ? NULL : json_stringn(buf->len ? (const char *)buf->ptr : "", buf->len);
}

json_t *parse_eventlog_utf16_json(struct att_slice utf16)
{
    if (utf16.len % 2) {
        return NULL;
    }
    att_autobuf text = ATT_BUF_INIT(2 * PARSE_EVENTLOG_EVENT_MAX);
    put_utf16(&text, utf16);
    return buf_json(&text);
}

static void put_guid(struct att_buf *text, struct att_slice guid)
{
    char name[PARSE_GUID_TEXT_LEN];
    parse_eventlog_guid_text(name, guid.ptr);
    att_buf_put_str(text, name);
}

/* UEFI 2.10 clause 10.3.5.1 */
static void put_hard_drive(struct att_buf *text, struct att_slice body)
{
    struct att_cur cur = att_cur_init(body);
    uint32_t number = att_cur_le32(&cur);
    (void)att_cur_take(&cur, 16); /* start, size */
    struct att_slice signature = att_cur_take(&cur, 16);
    uint8_t format = att_cur_u8(&cur);
    if (cur.failed || format != 2) { /* 2: GPT */
        att_buf_printf(text, "HD(%u)", number);
        return;
    }
    att_buf_printf(text, "HD(%u,GPT,", number);
    put_guid(text, signature);
    att_buf_put_str(text, ")");
}

static void put_acpi(struct att_buf *text, struct att_slice body)
{
    struct att_cur cur = att_cur_init(body);
    uint32_t hid = att_cur_le32(&cur), uid = att_cur_le32(&cur);
    if (hid == 0x0a0341d0) { /* PNP0A03 */
        att_buf_printf(text, "PciRoot(0x%x)", uid);
    } else {
        att_buf_printf(text, "Acpi(0x%08x,0x%x)", hid, uid);
    }
}

/* One node, UEFI 2.10 clause 10.3; false: not one that is written here. */
static bool put_node(struct att_buf *text, uint8_t type, uint8_t sub, struct att_slice body)
{
    switch (type << 8 | sub) {
    case 0x0101:
        if (body.len == 2) {
            att_buf_printf(text, "Pci(0x%x,0x%x)", body.ptr[1], body.ptr[0]);
        }
        return body.len == 2;
    case 0x0201:
        put_acpi(text, body);
        return body.len == 8;
    case 0x0305:
        if (body.len == 2) {
            att_buf_printf(text, "USB(0x%x,0x%x)", body.ptr[0], body.ptr[1]);
        }
        return body.len == 2;
    case 0x0401:
        put_hard_drive(text, body);
        return true;
    case 0x0404:
        put_utf16(text, body);
        return true;
    case 0x0406:
    case 0x0407:
        if (body.len == 16) {
            att_buf_put_str(text, sub == 6 ? "FvFile(" : "Fv(");
            put_guid(text, body);
            att_buf_put_str(text, ")");
        }
        return body.len == 16;
    default:
        return false;
    }
}

json_t *parse_eventlog_device_path_json(struct att_slice path)
{
    att_autobuf text = ATT_BUF_INIT(TEXT_MAX);
    struct att_cur cur = att_cur_init(path);
    while (cur.left) {
        uint8_t type = att_cur_u8(&cur), sub = att_cur_u8(&cur);
        uint16_t len = att_cur_le16(&cur);
        if (cur.failed || len < 4) {
            return NULL;
        }
        struct att_slice body = att_cur_take(&cur, len - 4u);
        if (cur.failed) {
            return NULL;
        }
        if (type == 0x7F) {
            break;
        }
        size_t before = text.len;
        att_buf_put_str(&text, before ? "/" : "");
        size_t node = text.len;
        if (!put_node(&text, type, sub, body)) {
            text.len = text.failed ? text.len : node;
            att_buf_printf(&text, "Path(%u,%u,", type, sub);
            att_buf_hex(&text, body);
            att_buf_put_str(&text, ")");
        }
    }
    return buf_json(&text);
}
