#include "tpm/parse/eventlog_payload.h"

#include "attestd/base/enc.h"
#include "attestd/base/hash.h"
#include "tpm/parse/eventlog_explain.h"

#include <stdio.h>
#include <string.h>

#define HEX_BYTES_MAX  1024
#define PARTITIONS_MAX 128

/* A JSON object in the making; sticky like the buffers. */
struct out {
    json_t *obj;
    bool failed;
};

/* Takes value; NULL spoils the whole object. */
static void put(struct out *out, const char *key, json_t *value)
{
    if (json_object_set_new(out->obj, key, value) != 0) {
        out->failed = true;
    }
}

static void put_num(struct out *out, const char *key, uint64_t value)
{
    if (value > INT64_MAX) {
        char text[24];
        snprintf(text, sizeof text, "0x%llx", (unsigned long long)value);
        put(out, key, json_string(text));
    } else {
        put(out, key, json_integer((json_int_t)value));
    }
}

static void put_hex_num(struct out *out, const char *key, uint64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "0x%llx", (unsigned long long)value);
    put(out, key, json_string(text));
}

static json_t *hex_json(struct att_slice bytes)
{
    att_autobuf text = {0};
    att_buf_hex(&text, bytes);
    return text.failed ? NULL : json_stringn(text.len ? (const char *)text.ptr : "", text.len);
}

/* Few bytes as they are, many by their digest. */
static void put_bytes(struct out *out, struct att_slice bytes)
{
    if (bytes.len <= HEX_BYTES_MAX) {
        put(out, "data", hex_json(bytes));
        return;
    }
    uint8_t digest[ATT_SHA256_LEN];
    att_sha256(digest, bytes);
    put(out, "dataSha256", hex_json(ATT_SLICE_ARRAY(digest)));
    put_num(out, "dataLength", bytes.len);
}

static json_t *guid_json(const uint8_t *guid)
{
    char text[PARSE_GUID_TEXT_LEN];
    parse_eventlog_guid_text(text, guid);
    return json_string(text);
}

/* UTF-8 without control characters, trailing NULs left away; NULL otherwise. */
static json_t *text_json(struct att_slice bytes)
{
    while (bytes.len && bytes.ptr[bytes.len - 1] == 0) {
        bytes.len--;
    }
    for (size_t i = 0; i < bytes.len; i++) {
        if ((bytes.ptr[i] < 0x20 && bytes.ptr[i] != '\t' && bytes.ptr[i] != '\n') ||
            bytes.ptr[i] == 0x7F) {
            return NULL;
        }
    }
    return bytes.len ? json_stringn((const char *)bytes.ptr, bytes.len) : NULL;
}

/* Every second byte of ASCII in UTF-16LE is zero. */
static bool looks_utf16(struct att_slice bytes)
{
    return bytes.len >= 4 && bytes.len % 2 == 0 && bytes.ptr[0] >= 0x20 && !bytes.ptr[1] &&
           bytes.ptr[2] >= 0x20 && !bytes.ptr[3];
}

static void put_text(struct out *out, struct att_slice bytes)
{
    json_t *text = looks_utf16(bytes) ? parse_eventlog_utf16_json(bytes) : text_json(bytes);
    if (text) {
        put(out, "text", text);
    } else {
        put_bytes(out, bytes);
    }
}

/* ---- UEFI variables ----------------------------------------------------------------------------
 */

/* EFI_SIGNATURE_LIST, UEFI 2.10 clause 32.4.1; false: it is none. */
static bool put_signature_list(json_t *lists, struct att_cur *cur)
{
    struct att_slice type = att_cur_take(cur, 16);
    uint32_t list_len = att_cur_le32(cur), header_len = att_cur_le32(cur);
    uint32_t entry_len = att_cur_le32(cur);
    if (cur->failed || list_len < 28 || header_len > list_len - 28 || entry_len <= 16) {
        return false;
    }
    (void)att_cur_take(cur, header_len);
    struct att_slice entries = att_cur_take(cur, list_len - 28 - header_len);
    if (cur->failed || entries.len % entry_len) {
        return false;
    }
    struct out list = {.obj = json_object()};
    put(&list, "signatureType", guid_json(type.ptr));
    put_num(&list, "count", entries.len / entry_len);
    put_num(&list, "size", entry_len);
    uint8_t digest[ATT_SHA256_LEN];
    att_sha256(digest, entries);
    put(&list, "sha256", hex_json(ATT_SLICE_ARRAY(digest)));
    if (list.failed) {
        json_decref(list.obj);
        return false;
    }
    return json_array_append_new(lists, list.obj) == 0;
}

static json_t *signature_lists_json(struct att_slice data)
{
    json_t *lists = json_array();
    struct att_cur cur = att_cur_init(data);
    while (lists && cur.left) {
        if (!put_signature_list(lists, &cur)) {
            json_decref(lists);
            return NULL;
        }
    }
    return lists;
}

static json_t *boot_order_json(struct att_slice data)
{
    if (data.len % 2) {
        return NULL;
    }
    json_t *order = json_array();
    struct att_cur cur = att_cur_init(data);
    while (cur.left) {
        char name[12];
        snprintf(name, sizeof name, "Boot%04X", att_cur_le16(&cur));
        if (json_array_append_new(order, json_string(name)) != 0) {
            json_decref(order);
            return NULL;
        }
    }
    return order;
}

/* EFI_LOAD_OPTION, UEFI 2.10 clause 3.1.3. */
static void put_load_option(struct out *out, struct att_slice data)
{
    struct att_cur cur = att_cur_init(data);
    (void)att_cur_le32(&cur); /* attributes */
    uint16_t path_len = att_cur_le16(&cur);
    const uint8_t *name = cur.ptr;
    size_t name_len = 0;
    while (!cur.failed && att_cur_le16(&cur) != 0) {
        name_len += 2;
    }
    struct att_slice path = att_cur_take(&cur, path_len);
    if (cur.failed) {
        put_bytes(out, data);
        return;
    }
    put(out, "description", parse_eventlog_utf16_json(ATT_SLICE(name, name_len)));
    json_t *text = parse_eventlog_device_path_json(path);
    if (text) {
        put(out, "devicePath", text);
    }
}

static bool name_is(const char *name, const char *const *list)
{
    for (; *list; list++) {
        if (strcmp(name, *list) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_boot_number(const char *name)
{
    return strncmp(name, "Boot", 4) == 0 && strlen(name) == 8 &&
           strspn(name + 4, "0123456789abcdefABCDEF") == 4;
}

static void put_variable_data(struct out *out, const char *name, struct att_slice data)
{
    static const char *const switches[] = {"SecureBoot",   "SetupMode",  "AuditMode",
                                           "DeployedMode", "MokSBState", "MokListTrusted",
                                           "MokDBState",   "VendorKeys", NULL};
    static const char *const stores[] = {"PK",  "KEK",     "db",       "dbx",       "dbt",
                                         "dbr", "MokList", "MokListX", "MokListRT", NULL};
    json_t *special = NULL;
    if (data.len == 1 && name_is(name, switches)) {
        put(out, "enabled", json_boolean(data.ptr[0] == 1));
        put_bytes(out, data);
    } else if (name_is(name, stores) && (special = signature_lists_json(data)) != NULL) {
        put(out, "signatureLists", special);
    } else if (strcmp(name, "BootOrder") == 0 && (special = boot_order_json(data)) != NULL) {
        put(out, "bootOrder", special);
    } else if (is_boot_number(name)) {
        put_load_option(out, data);
    } else {
        put_bytes(out, data);
    }
}

static bool explain_variable(struct out *out, struct att_slice payload)
{
    struct parse_eventlog_variable variable;
    if (parse_eventlog_variable(payload, &variable, NULL) != ATT_OK) {
        return false;
    }
    json_t *name = parse_eventlog_utf16_json(variable.name_utf16);
    put(out, "guid", guid_json(variable.guid));
    put(out, "name", name);
    if (!out->failed) {
        put_variable_data(out, json_string_value(name), variable.data);
    }
    return true;
}

/* ---- other payloads ----------------------------------------------------------------------------
 */

/* UEFI_IMAGE_LOAD_EVENT, PFP 1.06 clause 10.2.3. */
static bool explain_image(struct out *out, struct att_slice payload)
{
    struct att_cur cur = att_cur_init(payload);
    uint64_t base = att_cur_le64(&cur), len = att_cur_le64(&cur), link = att_cur_le64(&cur);
    uint64_t path_len = att_cur_le64(&cur);
    /* Some loaders write a path's length of 0 and bytes after it. */
    if (cur.failed || path_len > cur.left) {
        return false;
    }
    struct att_slice path = att_cur_take(&cur, (size_t)path_len);
    put_hex_num(out, "imageBase", base);
    put_num(out, "imageLength", len);
    put_hex_num(out, "linkTimeAddress", link);
    json_t *text = parse_eventlog_device_path_json(path);
    if (text) {
        put(out, "devicePath", text);
    } else {
        put_bytes(out, path);
    }
    return true;
}

static void put_partition(json_t *list, struct att_slice raw, bool *failed)
{
    static const uint8_t unused[16] = {0};
    struct att_cur cur = att_cur_init(raw);
    struct att_slice type = att_cur_take(&cur, 16), id = att_cur_take(&cur, 16);
    uint64_t first = att_cur_le64(&cur), last = att_cur_le64(&cur), attrs = att_cur_le64(&cur);
    struct att_slice name = att_cur_take(&cur, 72);
    if (cur.failed || att_slice_eq(type, ATT_SLICE_ARRAY(unused))) {
        return;
    }
    struct out part = {.obj = json_object()};
    put(&part, "type", guid_json(type.ptr));
    put(&part, "guid", guid_json(id.ptr));
    put_num(&part, "firstLba", first);
    put_num(&part, "lastLba", last);
    put_hex_num(&part, "attributes", attrs);
    put(&part, "name", parse_eventlog_utf16_json(name));
    *failed = *failed || part.failed;
    *failed = json_array_append_new(list, part.obj) != 0 || *failed;
}

/* UEFI_GPT_DATA, PFP 1.06 clause 10.2.7; the header: UEFI 2.10 clause 5.3.2. */
static bool explain_gpt(struct out *out, struct att_slice payload)
{
    struct att_cur cur = att_cur_init(payload);
    struct att_slice header = att_cur_take(&cur, 92);
    uint64_t n = att_cur_le64(&cur);
    if (cur.failed || memcmp(header.ptr, "EFI PART", 8) != 0 || n > PARTITIONS_MAX) {
        return false;
    }
    struct att_cur size_cur = att_cur_init(ATT_SLICE(header.ptr + 84, 4));
    uint32_t entry_len = att_cur_le32(&size_cur);
    if (entry_len < 128 || entry_len > 4096 || cur.left != n * entry_len) {
        return false;
    }
    put(out, "diskGuid", guid_json(header.ptr + 56));
    json_t *list = json_array();
    put(out, "partitions", list);
    for (uint64_t i = 0; i < n && !out->failed; i++) {
        put_partition(list, att_cur_take(&cur, entry_len), &out->failed);
    }
    return true;
}

/* UEFI_PLATFORM_FIRMWARE_BLOB, PFP 1.06 clause 10.2.4; the 2nd form has a description before. */
static bool explain_blob(struct out *out, struct att_slice payload, bool described)
{
    struct att_cur cur = att_cur_init(payload);
    struct att_slice text = {NULL, 0};
    if (described) {
        text = att_cur_take(&cur, att_cur_u8(&cur));
    }
    uint64_t base = att_cur_le64(&cur), len = att_cur_le64(&cur);
    if (!att_cur_done(&cur)) {
        return false;
    }
    json_t *description = text_json(text);
    if (description) {
        put(out, "description", description);
    }
    put_hex_num(out, "base", base);
    put_num(out, "length", len);
    return true;
}

/* UEFI_HANDOFF_TABLE_POINTERS, PFP 1.06 clause 10.2.5: {n, n × {guid, address}}. */
static bool explain_tables(struct out *out, struct att_slice payload, bool described)
{
    struct att_cur cur = att_cur_init(payload);
    if (described) {
        (void)att_cur_take(&cur, att_cur_u8(&cur));
    }
    uint64_t n = att_cur_le64(&cur);
    if (cur.failed || n > 64 || cur.left != n * 24) {
        return false;
    }
    json_t *list = json_array();
    put(out, "tables", list);
    for (uint64_t i = 0; i < n && !out->failed; i++) {
        struct att_slice guid = att_cur_take(&cur, 16);
        (void)att_cur_le64(&cur);
        out->failed = json_array_append_new(list, guid_json(guid.ptr)) != 0 || out->failed;
    }
    return true;
}

static bool explain_tag(struct out *out, struct att_slice payload)
{
    struct att_cur cur = att_cur_init(payload);
    uint32_t id = att_cur_le32(&cur), len = att_cur_le32(&cur);
    struct att_slice data = att_cur_take(&cur, len);
    if (!att_cur_done(&cur)) {
        return false;
    }
    put_hex_num(out, "tag", id);
    put_text(out, data);
    return true;
}

static bool explain_spec_id(struct out *out, struct att_slice payload)
{
    struct att_cur cur = att_cur_init(payload);
    (void)att_cur_take(&cur, 16);
    uint32_t platform = att_cur_le32(&cur);
    uint8_t minor = att_cur_u8(&cur), major = att_cur_u8(&cur), errata = att_cur_u8(&cur);
    if (cur.failed) {
        return false;
    }
    put_num(out, "platformClass", platform);
    put_num(out, "specVersionMajor", major);
    put_num(out, "specVersionMinor", minor);
    put_num(out, "specErrata", errata);
    return true;
}

static bool explain_no_action(struct out *out, struct att_slice payload)
{
    json_t *signature = payload.len < 16 ? NULL : text_json(ATT_SLICE(payload.ptr, 16));
    if (!signature) {
        put_bytes(out, payload);
        return true;
    }
    put(out, "signature", signature);
    if (out->failed) {
        return false;
    }
    const char *name = json_string_value(signature);
    struct att_slice rest = {payload.ptr + 16, payload.len - 16};
    if (strcmp(name, "Spec ID Event03") == 0) {
        return explain_spec_id(out, payload);
    }
    if (strcmp(name, "StartupLocality") == 0 && rest.len == 1) {
        put_num(out, "startupLocality", rest.ptr[0]);
    } else {
        put_bytes(out, rest);
    }
    return true;
}

static bool explain_separator(struct out *out, struct att_slice payload)
{
    struct att_cur cur = att_cur_init(payload);
    uint32_t value = att_cur_le32(&cur);
    if (!att_cur_done(&cur)) {
        return false;
    }
    put_hex_num(out, "separator", value);
    return true;
}

/* POST CODE events hold a text or an address and a length. */
static bool explain_post_code(struct out *out, struct att_slice payload)
{
    json_t *text = text_json(payload);
    if (text) {
        put(out, "text", text);
        return true;
    }
    return explain_blob(out, payload, false);
}

static bool explain(struct out *out, const struct parse_eventlog_event *event)
{
    struct att_slice payload = event->data;
    switch (event->type) {
    case PARSE_EV_NO_ACTION:
        return explain_no_action(out, payload);
    case PARSE_EV_SEPARATOR:
        return explain_separator(out, payload);
    case PARSE_EV_POST_CODE:
        return explain_post_code(out, payload);
    case PARSE_EV_EVENT_TAG:
        return explain_tag(out, payload);
    case PARSE_EV_EFI_VARIABLE_DRIVER_CONFIG:
    case PARSE_EV_EFI_VARIABLE_BOOT:
    case PARSE_EV_EFI_VARIABLE_BOOT2:
    case PARSE_EV_EFI_VARIABLE_AUTHORITY:
        return explain_variable(out, payload);
    case PARSE_EV_EFI_BOOT_SERVICES_APPLICATION:
    case PARSE_EV_EFI_BOOT_SERVICES_DRIVER:
    case PARSE_EV_EFI_RUNTIME_SERVICES_DRIVER:
        return explain_image(out, payload);
    case PARSE_EV_EFI_GPT_EVENT:
    case PARSE_EV_EFI_GPT_EVENT2:
        return explain_gpt(out, payload);
    case PARSE_EV_EFI_PLATFORM_FIRMWARE_BLOB:
    case PARSE_EV_EFI_PLATFORM_FIRMWARE_BLOB2:
    case PARSE_EV_POST_CODE2:
        return explain_blob(out, payload, event->type != PARSE_EV_EFI_PLATFORM_FIRMWARE_BLOB);
    case PARSE_EV_EFI_HANDOFF_TABLES:
    case PARSE_EV_EFI_HANDOFF_TABLES2:
        return explain_tables(out, payload, event->type == PARSE_EV_EFI_HANDOFF_TABLES2);
    default:
        put_text(out, payload);
        return true;
    }
}

json_t *parse_eventlog_payload_json(const struct parse_eventlog_event *event)
{
    struct out out = {.obj = json_object()};
    if (!out.obj) {
        return NULL;
    }
    if (!explain(&out, event) || out.failed) {
        json_decref(out.obj);
        return NULL;
    }
    return out.obj;
}
