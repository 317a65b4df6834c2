/* The iterator and the binary form; ima_ascii.c has the other. */
#include "tpm/parse/ima.h"

#include "tpm/parse/ima_fields.h"

#include <string.h>

#define LEGACY_NAME_LEN 256 /* IMA_EVENT_NAME_LEN_MAX + 1 */
#define LEGACY_DIGEST   20

static const struct parse_ima_template templates[PARSE_IMA_TEMPLATES] = {
    {"ima", {PARSE_IMA_D, PARSE_IMA_N}},
    {"ima-ng", {PARSE_IMA_D_NG, PARSE_IMA_N_NG}},
    {"ima-sig", {PARSE_IMA_D_NG, PARSE_IMA_N_NG, PARSE_IMA_SIG}},
    {"ima-ngv2", {PARSE_IMA_D_NGV2, PARSE_IMA_N_NG}},
    {"ima-sigv2", {PARSE_IMA_D_NGV2, PARSE_IMA_N_NG, PARSE_IMA_SIG}},
    {"ima-buf", {PARSE_IMA_D_NG, PARSE_IMA_N_NG, PARSE_IMA_BUF}},
    {"ima-modsig",
     {PARSE_IMA_D_NG, PARSE_IMA_N_NG, PARSE_IMA_SIG, PARSE_IMA_D_MODSIG, PARSE_IMA_MODSIG}},
    {"evm-sig",
     {PARSE_IMA_D_NG, PARSE_IMA_N_NG, PARSE_IMA_EVMSIG, PARSE_IMA_XATTRNAMES,
      PARSE_IMA_XATTRLENGTHS, PARSE_IMA_XATTRVALUES, PARSE_IMA_UINT32, PARSE_IMA_UINT32,
      PARSE_IMA_UINT16}},
};

const struct parse_ima_template *parse_ima_template_by_name(struct att_slice name)
{
    for (size_t i = 0; i < PARSE_IMA_TEMPLATES; i++) {
        if (att_slice_eq_str(name, templates[i].name)) {
            return &templates[i];
        }
    }
    return NULL;
}

const char *parse_ima_field_name(const struct parse_ima_template *tmpl, size_t i)
{
    static const char *const names[] = {
        [PARSE_IMA_D] = "d",
        [PARSE_IMA_D_NG] = "d-ng",
        [PARSE_IMA_D_NGV2] = "d-ngv2",
        [PARSE_IMA_N] = "n",
        [PARSE_IMA_N_NG] = "n-ng",
        [PARSE_IMA_SIG] = "sig",
        [PARSE_IMA_D_MODSIG] = "d-modsig",
        [PARSE_IMA_MODSIG] = "modsig",
        [PARSE_IMA_BUF] = "buf",
        [PARSE_IMA_EVMSIG] = "evmsig",
        [PARSE_IMA_XATTRNAMES] = "xattrnames",
        [PARSE_IMA_XATTRLENGTHS] = "xattrlengths",
        [PARSE_IMA_XATTRVALUES] = "xattrvalues",
        [PARSE_IMA_UINT32] = "iuid",
        [PARSE_IMA_UINT16] = "imode",
    };
    enum parse_ima_field field = i < PARSE_IMA_FIELDS ? tmpl->fields[i] : PARSE_IMA_END;
    if (field == PARSE_IMA_UINT32 && tmpl->fields[i - 1] == PARSE_IMA_UINT32) {
        return "igid";
    }
    return field == PARSE_IMA_END ? "?" : names[field];
}

enum att_rc parse_ima_bad(const struct parse_ima_entry *entry, struct att_err *err,
                          const char *what)
{
    return att_fail(err, ATT_E_PARSE, "pcr%u entry %zu: %s (offset %zu)", entry->pcr, entry->number,
                    what, entry->offset);
}

/* ---- the binary form ------------------------------------------------------------------------- */

static void take_fields(struct att_cur *cur, struct parse_ima_entry *entry)
{
    for (size_t i = 0; i < PARSE_IMA_FIELDS && entry->tmpl->fields[i] != PARSE_IMA_END; i++) {
        entry->fields[i] = att_cur_take(cur, att_cur_le32(cur));
        entry->n_fields = i + 1;
    }
}

/* Template "ima" comes without lengths but the name's, and is hashed with the name padded. */
static enum att_rc take_legacy(struct att_cur *cur, struct parse_ima_entry *entry,
                               struct att_err *err)
{
    entry->fields[0] = att_cur_take(cur, LEGACY_DIGEST);
    uint32_t len = att_cur_le32(cur);
    entry->fields[1] = att_cur_take(cur, len);
    entry->n_fields = 2;
    if (cur->failed) {
        return parse_ima_bad(entry, err, "it is longer than what is left of the list");
    }
    return parse_ima_set_legacy(entry, err);
}

enum att_rc parse_ima_set_legacy(struct parse_ima_entry *entry, struct att_err *err)
{
    static const uint8_t zeroes[LEGACY_NAME_LEN] = {0};
    size_t len = entry->fields[1].len;
    if (len >= LEGACY_NAME_LEN) {
        return parse_ima_bad(entry, err, "its name is longer than the 255 bytes of template ima");
    }
    entry->parts[0] = entry->fields[0];
    entry->parts[1] = entry->fields[1];
    entry->parts[2] = ATT_SLICE(zeroes, LEGACY_NAME_LEN - len);
    entry->n_parts = 3;
    return ATT_OK;
}

static enum att_rc take_data(struct att_cur *cur, struct parse_ima_entry *entry,
                             struct att_err *err)
{
    uint32_t len = att_cur_le32(cur);
    if (!cur->failed && len > PARSE_IMA_ENTRY_MAX) {
        return parse_ima_bad(entry, err, "its template data is beyond 256 KiB");
    }
    struct att_slice data = att_cur_take(cur, len);
    if (cur->failed) {
        return parse_ima_bad(entry, err, "it is longer than what is left of the list");
    }
    struct att_cur fields = att_cur_init(data);
    take_fields(&fields, entry);
    if (!att_cur_done(&fields)) {
        return parse_ima_bad(entry, err, "its fields are not as long as its template data");
    }
    entry->parts[0] = data;
    entry->n_parts = 1;
    return ATT_OK;
}

static enum att_rc take_binary(struct parse_ima *list, struct parse_ima_entry *entry,
                               struct att_err *err)
{
    struct att_cur cur = {list->bytes.ptr + list->pos, list->bytes.len - list->pos, false};
    size_t left = cur.left;
    entry->pcr = att_cur_le32(&cur);
    entry->shown = att_cur_take(&cur, list->shown_len);
    struct att_slice name = att_cur_take(&cur, att_cur_le32(&cur));
    if (cur.failed) {
        return parse_ima_bad(entry, err, "the list ends inside its header");
    }
    if (entry->pcr >= PARSE_PCR_COUNT) {
        return parse_ima_bad(entry, err, "its PCR is not 0…23");
    }
    entry->tmpl = parse_ima_template_by_name(name);
    if (!entry->tmpl) {
        return parse_ima_bad(entry, err, "its template is none that is known");
    }
    enum att_rc rc = entry->tmpl->fields[0] == PARSE_IMA_D ? take_legacy(&cur, entry, err)
                                                           : take_data(&cur, entry, err);
    entry->size = left - cur.left;
    return rc;
}

/* ---- both forms ------------------------------------------------------------------------------ */

/* The hash that a binary list shows is as long as its file's name says, which we do not have. */
static size_t shown_len(struct att_slice bytes)
{
    static const size_t lens[] = {20, 32, 48, 64};
    for (size_t i = 0; i < sizeof lens / sizeof lens[0]; i++) {
        struct att_cur cur = att_cur_init(bytes);
        (void)att_cur_le32(&cur);
        (void)att_cur_take(&cur, lens[i]);
        struct att_slice name = att_cur_take(&cur, att_cur_le32(&cur));
        if (!cur.failed && parse_ima_template_by_name(name)) {
            return lens[i];
        }
    }
    return 20; /* the first entry will be refused, with its own reason */
}

enum att_rc parse_ima_init(struct parse_ima *ret_list, struct att_slice bytes, struct att_err *err)
{
    if (bytes.len > PARSE_IMA_MAX) {
        return att_fail(err, ATT_E_LIMIT, "IMA list: %zu bytes, at most %zu taken", bytes.len,
                        PARSE_IMA_MAX);
    }
    if (bytes.len == 0) {
        return att_fail(err, ATT_E_PARSE, "IMA list: it is empty, without even a boot_aggregate");
    }
    /* A binary list begins with a PCR below 24 and three zeroes, ASCII with a digit. */
    bool ascii = bytes.ptr[0] >= '0' && bytes.ptr[0] <= '9';
    *ret_list = (struct parse_ima){.bytes = bytes,
                                   .ascii = ascii,
                                   .shown_len = ascii ? 0 : shown_len(bytes),
                                   .scratch = ATT_BUF_INIT(PARSE_IMA_ENTRY_MAX)};
    return ATT_OK;
}

void parse_ima_done(struct parse_ima *list)
{
    att_buf_done(&list->scratch);
}

static bool all_zero(struct att_slice bytes)
{
    return bytes.len && bytes.ptr[0] == 0 && memcmp(bytes.ptr, bytes.ptr + 1, bytes.len - 1) == 0;
}

enum att_rc parse_ima_next(struct parse_ima *list, struct parse_ima_entry *ret_entry,
                           struct att_err *err)
{
    if (list->pos == list->bytes.len) {
        return ATT_E_NOTFOUND;
    }
    struct parse_ima_entry *entry = ret_entry;
    *entry =
        (struct parse_ima_entry){.number = list->number, .offset = list->pos, .pcr = PARSE_IMA_PCR};
    enum att_rc rc =
        list->ascii ? parse_ima_take_line(list, entry, err) : take_binary(list, entry, err);
    if (rc != ATT_OK) {
        return rc;
    }
    entry->violation = all_zero(entry->shown);
    rc = parse_ima_meaning(entry, err);
    if (rc == ATT_OK) {
        list->pos += entry->size;
        list->number++;
    }
    return rc;
}
