/* The ASCII form: "10 <hash> ima-ng sha256:<hex> /path", one space between fields, one line each.
 * What was hashed is built again from what is shown. */
#include "tpm/parse/ima_fields.h"

#include "attestd/base/enc.h"

#include <string.h>

/* Up to the next space, which goes with it; the last field is the rest. */
static struct att_slice word(struct att_slice *rest, bool last)
{
    const uint8_t *space = !last && rest->len ? memchr(rest->ptr, ' ', rest->len) : NULL;
    struct att_slice found = ATT_SLICE(rest->ptr, space ? (size_t)(space - rest->ptr) : rest->len);
    size_t taken = found.len + (space ? 1 : 0);
    *rest = ATT_SLICE(rest->ptr + taken, rest->len - taken);
    return found;
}

/* Decimal without sign or leading zero. */
static bool number(struct att_slice text, uint32_t max, uint32_t *ret)
{
    uint64_t value = 0;
    if (text.len == 0 || text.len > 10 || (text.len > 1 && text.ptr[0] == '0')) {
        return false;
    }
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9') {
            return false;
        }
        value = value * 10 + (uint64_t)(text.ptr[i] - '0');
    }
    *ret = (uint32_t)value;
    return value <= max;
}

static bool put_hex(struct att_buf *buf, struct att_slice hex)
{
    for (size_t i = 0; i < hex.len; i++) {
        if (hex.ptr[i] >= 'A' && hex.ptr[i] <= 'F') {
            return false; /* the kernel writes none */
        }
    }
    return att_unhex(buf, hex, NULL) == ATT_OK;
}

/* "sha256:<hex>" or "verity:sha256:<hex>": the colon before the digest is the last. */
static bool put_digest(struct att_buf *buf, struct att_slice text)
{
    const uint8_t *colon = text.len ? memrchr(text.ptr, ':', text.len) : NULL;
    if (!colon || memchr(text.ptr, 0, text.len)) {
        return false;
    }
    size_t head = (size_t)(colon - text.ptr) + 1;
    att_buf_put(buf, text.ptr, head);
    att_buf_u8(buf, 0);
    return put_hex(buf, ATT_SLICE(colon + 1, text.len - head));
}

static void put_le(struct att_buf *buf, uint32_t value, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        att_buf_u8(buf, (uint8_t)(value >> (8 * i)));
    }
}

static bool put_field(struct att_buf *buf, enum parse_ima_field field, struct att_slice text)
{
    uint32_t value = 0;
    switch (field) {
    case PARSE_IMA_D_NG:
    case PARSE_IMA_D_NGV2:
        return put_digest(buf, text);
    case PARSE_IMA_D_MODSIG:
        return text.len == 0 || put_digest(buf, text);
    case PARSE_IMA_N:
    case PARSE_IMA_N_NG:
    case PARSE_IMA_XATTRNAMES:
        att_buf_put_slice(buf, text);
        if (field == PARSE_IMA_N_NG || (field == PARSE_IMA_XATTRNAMES && text.len)) {
            att_buf_u8(buf, 0);
        }
        return true;
    case PARSE_IMA_UINT32:
    case PARSE_IMA_UINT16:
        if (text.len == 0) {
            return true;
        }
        if (!number(text, field == PARSE_IMA_UINT32 ? UINT32_MAX : UINT16_MAX, &value)) {
            return false;
        }
        put_le(buf, value, field == PARSE_IMA_UINT32 ? 4 : 2);
        return true;
    default:
        return put_hex(buf, text);
    }
}

/* Each field behind its length, as in the binary form; the slices are set when nothing moves any
 * more. */
static const char *build(struct parse_ima *list, struct parse_ima_entry *entry,
                         struct att_slice rest)
{
    struct att_buf *buf = &list->scratch;
    bool legacy = entry->tmpl->fields[0] == PARSE_IMA_D;
    size_t at[PARSE_IMA_FIELDS], len[PARSE_IMA_FIELDS], n = 0, begin = buf->len;
    while (n < PARSE_IMA_FIELDS && entry->tmpl->fields[n] != PARSE_IMA_END) {
        bool last = n + 1 == PARSE_IMA_FIELDS || entry->tmpl->fields[n + 1] == PARSE_IMA_END;
        size_t prefix = buf->len;
        if (!legacy) {
            put_le(buf, 0, 4);
        }
        at[n] = buf->len;
        if (!put_field(buf, entry->tmpl->fields[n], word(&rest, last)) || buf->failed) {
            return "a field does not have its form";
        }
        len[n] = buf->len - at[n];
        for (size_t i = 0; !legacy && i < 4; i++) {
            buf->ptr[prefix + i] = (uint8_t)(len[n] >> (8 * i));
        }
        n++;
    }
    for (size_t i = 0; i < n; i++) {
        entry->fields[i] = ATT_SLICE(buf->ptr + at[i], len[i]);
    }
    entry->n_fields = n;
    entry->parts[0] = ATT_SLICE(buf->ptr + begin, buf->len - begin);
    entry->n_parts = 1;
    return NULL;
}

static const char *take(struct parse_ima *list, struct parse_ima_entry *entry,
                        struct att_slice line)
{
    struct att_slice rest = line;
    if (!number(word(&rest, false), PARSE_PCR_COUNT - 1, &entry->pcr)) {
        entry->pcr = PARSE_IMA_PCR;
        return "its PCR is not 0…23";
    }
    att_buf_reset(&list->scratch);
    if (!put_hex(&list->scratch, word(&rest, false))) {
        return "its template hash is not lowercase hex";
    }
    size_t shown = list->scratch.len;
    if (shown != 20 && shown != 32 && shown != 48 && shown != 64) {
        return "its template hash is not of 20, 32, 48 or 64 bytes";
    }
    if (list->shown_len && list->shown_len != shown) {
        return "its template hash is of another length than those before";
    }
    list->shown_len = shown;
    entry->tmpl = parse_ima_template_by_name(word(&rest, false));
    if (!entry->tmpl) {
        return "its template is none that is known";
    }
    const char *fault = build(list, entry, rest);
    entry->shown = ATT_SLICE(list->scratch.ptr, shown);
    return fault;
}

enum att_rc parse_ima_take_line(struct parse_ima *list, struct parse_ima_entry *entry,
                                struct att_err *err)
{
    const uint8_t *at = list->bytes.ptr + list->pos;
    size_t left = list->bytes.len - list->pos;
    const uint8_t *end = memchr(at, '\n', left < PARSE_IMA_ENTRY_MAX ? left : PARSE_IMA_ENTRY_MAX);
    if (!end) {
        return parse_ima_bad(entry, err,
                             left < PARSE_IMA_ENTRY_MAX ? "its line is cut off"
                                                        : "its line is beyond 256 KiB");
    }
    struct att_slice line = ATT_SLICE(at, (size_t)(end - at));
    const char *fault =
        memchr(line.ptr, 0, line.len) ? "a NUL in its line" : take(list, entry, line);
    if (fault) {
        return parse_ima_bad(entry, err, fault);
    }
    entry->size = line.len + 1;
    return entry->tmpl->fields[0] == PARSE_IMA_D ? parse_ima_set_legacy(entry, err) : ATT_OK;
}
