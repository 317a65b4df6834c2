#include "tpm/parse/eventlog_explain.h"

#include "attestd/base/enc.h"
#include "attestd/base/hash.h"
#include "tpm/parse/eventlog_payload.h"

#include <stdio.h>
#include <string.h>

static const struct {
    uint32_t type;
    const char *name;
    bool elsewhere; /* what was hashed is not in the log */
} types[] = {
    {PARSE_EV_PREBOOT_CERT, "EV_PREBOOT_CERT", false},
    {PARSE_EV_POST_CODE, "EV_POST_CODE", true},
    {PARSE_EV_NO_ACTION, "EV_NO_ACTION", true},
    {PARSE_EV_SEPARATOR, "EV_SEPARATOR", false},
    {PARSE_EV_ACTION, "EV_ACTION", false},
    {PARSE_EV_EVENT_TAG, "EV_EVENT_TAG", false},
    {PARSE_EV_S_CRTM_CONTENTS, "EV_S_CRTM_CONTENTS", true},
    {PARSE_EV_S_CRTM_VERSION, "EV_S_CRTM_VERSION", false},
    {PARSE_EV_CPU_MICROCODE, "EV_CPU_MICROCODE", true},
    {PARSE_EV_PLATFORM_CONFIG_FLAGS, "EV_PLATFORM_CONFIG_FLAGS", false},
    {PARSE_EV_TABLE_OF_DEVICES, "EV_TABLE_OF_DEVICES", false},
    {PARSE_EV_COMPACT_HASH, "EV_COMPACT_HASH", true},
    {PARSE_EV_IPL, "EV_IPL", false},
    {PARSE_EV_IPL_PARTITION_DATA, "EV_IPL_PARTITION_DATA", false},
    {PARSE_EV_NONHOST_CODE, "EV_NONHOST_CODE", true},
    {PARSE_EV_NONHOST_CONFIG, "EV_NONHOST_CONFIG", false},
    {PARSE_EV_NONHOST_INFO, "EV_NONHOST_INFO", false},
    {PARSE_EV_OMIT_BOOT_DEVICE_EVENTS, "EV_OMIT_BOOT_DEVICE_EVENTS", false},
    {PARSE_EV_POST_CODE2, "EV_POST_CODE2", true},
    {PARSE_EV_EFI_EVENT_BASE, "EV_EFI_EVENT_BASE", false},
    {PARSE_EV_EFI_VARIABLE_DRIVER_CONFIG, "EV_EFI_VARIABLE_DRIVER_CONFIG", false},
    {PARSE_EV_EFI_VARIABLE_BOOT, "EV_EFI_VARIABLE_BOOT", false},
    {PARSE_EV_EFI_BOOT_SERVICES_APPLICATION, "EV_EFI_BOOT_SERVICES_APPLICATION", true},
    {PARSE_EV_EFI_BOOT_SERVICES_DRIVER, "EV_EFI_BOOT_SERVICES_DRIVER", true},
    {PARSE_EV_EFI_RUNTIME_SERVICES_DRIVER, "EV_EFI_RUNTIME_SERVICES_DRIVER", true},
    {PARSE_EV_EFI_GPT_EVENT, "EV_EFI_GPT_EVENT", false},
    {PARSE_EV_EFI_ACTION, "EV_EFI_ACTION", false},
    {PARSE_EV_EFI_PLATFORM_FIRMWARE_BLOB, "EV_EFI_PLATFORM_FIRMWARE_BLOB", true},
    {PARSE_EV_EFI_HANDOFF_TABLES, "EV_EFI_HANDOFF_TABLES", true},
    {PARSE_EV_EFI_PLATFORM_FIRMWARE_BLOB2, "EV_EFI_PLATFORM_FIRMWARE_BLOB2", true},
    {PARSE_EV_EFI_HANDOFF_TABLES2, "EV_EFI_HANDOFF_TABLES2", true},
    {PARSE_EV_EFI_VARIABLE_BOOT2, "EV_EFI_VARIABLE_BOOT2", false},
    {PARSE_EV_EFI_GPT_EVENT2, "EV_EFI_GPT_EVENT2", false},
    {PARSE_EV_EFI_HCRTM_EVENT, "EV_EFI_HCRTM_EVENT", true},
    {PARSE_EV_EFI_VARIABLE_AUTHORITY, "EV_EFI_VARIABLE_AUTHORITY", false},
    {PARSE_EV_EFI_SPDM_FIRMWARE_BLOB, "EV_EFI_SPDM_FIRMWARE_BLOB", true},
    {PARSE_EV_EFI_SPDM_FIRMWARE_CONFIG, "EV_EFI_SPDM_FIRMWARE_CONFIG", false},
};
#define N_TYPES (sizeof types / sizeof types[0])

static size_t type_index(uint32_t type)
{
    size_t i = 0;
    while (i < N_TYPES && types[i].type != type) {
        i++;
    }
    return i;
}

const char *parse_eventlog_type_name(uint32_t type)
{
    size_t i = type_index(type);
    return i < N_TYPES ? types[i].name : NULL;
}

bool parse_eventlog_type_by_name(const char *name, uint32_t *ret_type)
{
    for (size_t i = 0; i < N_TYPES; i++) {
        if (strcmp(types[i].name, name) == 0) {
            *ret_type = types[i].type;
            return true;
        }
    }
    return false;
}

/* Every digest that libcrypto can compute is that of bytes, and there is at least one. */
static bool hashes_to(const struct parse_eventlog_event *event, struct att_slice bytes)
{
    bool any = false;
    for (size_t i = 0; i < event->n_digests; i++) {
        const char *name = parse_alg_openssl_name(event->digests[i].alg);
        uint8_t digest[ATT_HASH_MAX];
        size_t len = 0;
        if (!name || att_hash_v(name, digest, &len, &bytes, 1, NULL) != ATT_OK) {
            continue;
        }
        if (!att_slice_eq(ATT_SLICE(digest, len), event->digests[i].digest)) {
            return false;
        }
        any = true;
    }
    return any;
}

/* What GRUB hashes of "grub_cmd: set x=y": the command without its label and NUL. */
static struct att_slice after_label(struct att_slice data)
{
    static const char *const labels[] = {"grub_cmd: ", "kernel_cmdline: ", "module_cmdline: "};
    for (size_t i = 0; i < sizeof labels / sizeof labels[0]; i++) {
        size_t len = strlen(labels[i]);
        if (data.len > len && memcmp(data.ptr, labels[i], len) == 0) {
            return ATT_SLICE(data.ptr + len, data.len - len);
        }
    }
    return ATT_SLICE(NULL, 0);
}

static struct att_slice without_nul(struct att_slice data)
{
    if (data.len && data.ptr[data.len - 1] == 0) {
        data.len--;
    }
    return data;
}

/* The part of the payload that the type's firmware may have hashed alone; empty: none. */
static struct att_slice part_of(const struct parse_eventlog_event *event)
{
    struct parse_eventlog_variable variable;
    if (event->type == PARSE_EV_EFI_VARIABLE_BOOT &&
        parse_eventlog_variable(event->data, &variable, NULL) == ATT_OK) {
        return variable.data;
    }
    if (event->type == PARSE_EV_EFI_VARIABLE_AUTHORITY && event->data.len > 1) {
        /* shim before 15.3 logs one byte more than it hashes */
        return ATT_SLICE(event->data.ptr, event->data.len - 1);
    }
    if (event->type == PARSE_EV_IPL) {
        return without_nul(after_label(event->data));
    }
    return ATT_SLICE(NULL, 0);
}

enum parse_eventlog_cover parse_eventlog_covers(const struct parse_eventlog_event *event,
                                                struct att_slice *ret_measured)
{
    size_t i = type_index(event->type);
    if (i < N_TYPES && types[i].elsewhere) {
        return PARSE_EVENTLOG_COVERS_NONE;
    }
    enum parse_eventlog_cover cover = PARSE_EVENTLOG_COVERS_NONE;
    struct att_slice measured = event->data;
    if (hashes_to(event, measured)) {
        cover = PARSE_EVENTLOG_COVERS_ALL;
    } else if (event->type == PARSE_EV_IPL && hashes_to(event, without_nul(event->data))) {
        measured = without_nul(event->data);
        cover = PARSE_EVENTLOG_COVERS_ALL;
    } else {
        measured = part_of(event);
        cover = measured.len && hashes_to(event, measured) ? PARSE_EVENTLOG_COVERS_PART
                                                           : PARSE_EVENTLOG_COVERS_NONE;
    }
    if (cover != PARSE_EVENTLOG_COVERS_NONE && ret_measured) {
        *ret_measured = measured;
    }
    return cover;
}

enum att_rc parse_eventlog_variable(struct att_slice payload,
                                    struct parse_eventlog_variable *ret_variable,
                                    struct att_err *err)
{
    struct att_cur cur = att_cur_init(payload);
    struct att_slice guid = att_cur_take(&cur, 16);
    uint64_t name_chars = att_cur_le64(&cur), data_len = att_cur_le64(&cur);
    if (cur.failed || name_chars > cur.left / 2 || data_len > cur.left - 2 * name_chars) {
        return att_fail(err, ATT_E_PARSE, "UEFI variable: its lengths are not those of %zu bytes",
                        payload.len);
    }
    struct parse_eventlog_variable variable = {0};
    memcpy(variable.guid, guid.ptr, sizeof variable.guid);
    variable.name_utf16 = att_cur_take(&cur, 2 * (size_t)name_chars);
    variable.data = att_cur_take(&cur, (size_t)data_len);
    if (!att_cur_done(&cur)) {
        return att_fail(err, ATT_E_PARSE, "UEFI variable: %zu bytes too many", cur.left);
    }
    *ret_variable = variable;
    return ATT_OK;
}

/* ---- JSON --------------------------------------------------------------------------------------
 */

static enum att_rc no_memory(struct att_err *err)
{
    return att_fail(err, ATT_E_NOMEM, "event log: no memory for JSON");
}

static json_t *digest_hex(const uint8_t *digest, size_t len)
{
    char hex[2 * PARSE_DIGEST_MAX + 1];
    att_hex(hex, ATT_SLICE(digest, len));
    return json_string(hex);
}

static const char *alg_key(uint16_t alg, char scratch[8])
{
    const char *name = parse_alg_name(alg);
    if (name) {
        return name;
    }
    snprintf(scratch, 8, "0x%04x", alg);
    return scratch;
}

static json_t *digests_json(const struct parse_eventlog_event *event)
{
    json_t *digests = json_object();
    for (size_t i = 0; digests && i < event->n_digests; i++) {
        char scratch[8];
        struct att_slice digest = event->digests[i].digest;
        if (json_object_set_new(digests, alg_key(event->digests[i].alg, scratch),
                                digest_hex(digest.ptr, digest.len)) != 0) {
            json_decref(digests);
            return NULL;
        }
    }
    return digests;
}

static json_t *type_json(uint32_t type)
{
    const char *name = parse_eventlog_type_name(type);
    if (name) {
        return json_string(name);
    }
    char text[12];
    snprintf(text, sizeof text, "0x%08x", type);
    return json_string(text);
}

static bool set_measured(json_t *obj, const struct parse_eventlog_event *event,
                         struct att_slice measured)
{
    json_t *part = json_object();
    return json_object_set_new(obj, "measured", part) == 0 &&
           json_object_set_new(part, "offset",
                               json_integer((json_int_t)(measured.ptr - event->data.ptr))) == 0 &&
           json_object_set_new(part, "length", json_integer((json_int_t)measured.len)) == 0;
}

static json_t *event_json(const struct parse_eventlog_event *event)
{
    att_autojson *obj = json_object();
    struct att_slice measured = {NULL, 0};
    enum parse_eventlog_cover cover = parse_eventlog_covers(event, &measured);
    bool ok = json_object_set_new(obj, "event", json_integer((json_int_t)event->number)) == 0 &&
              (event->pcr >= PARSE_PCR_COUNT ||
               json_object_set_new(obj, "pcr", json_integer((json_int_t)event->pcr)) == 0) &&
              json_object_set_new(obj, "type", type_json(event->type)) == 0 &&
              json_object_set_new(obj, "digests", digests_json(event)) == 0 &&
              json_object_set_new(obj, "size", json_integer((json_int_t)event->data.len)) == 0 &&
              json_object_set_new(obj, "digestCoversPayload",
                                  json_boolean(cover == PARSE_EVENTLOG_COVERS_ALL)) == 0 &&
              (cover != PARSE_EVENTLOG_COVERS_PART || set_measured(obj, event, measured));
    if (!ok) {
        return NULL;
    }
    struct parse_eventlog_event shown = *event;
    if (cover == PARSE_EVENTLOG_COVERS_PART && event->type == PARSE_EV_EFI_VARIABLE_AUTHORITY) {
        shown.data = measured; /* without shim's byte too many it is a variable */
    }
    json_t *payload = parse_eventlog_payload_json(&shown);
    if (payload && json_object_set_new(obj, "payload", payload) != 0) {
        return NULL;
    }
    json_t *done = obj;
    obj = NULL;
    return done;
}

static json_t *bank_json(const struct parse_eventlog_pcrs *pcrs)
{
    json_t *values = json_object();
    for (unsigned i = 0; values && i < PARSE_PCR_COUNT; i++) {
        char key[4];
        snprintf(key, sizeof key, "%u", i % PARSE_PCR_COUNT);
        if ((pcrs->with_events >> i & 1) &&
            json_object_set_new(values, key, digest_hex(pcrs->value[i], pcrs->digest_len)) != 0) {
            json_decref(values);
            return NULL;
        }
    }
    return values;
}

static json_t *replay_json(struct att_slice bytes, uint16_t bank)
{
    struct parse_eventlog_pcrs pcrs;
    struct att_err why = {0};
    if (parse_eventlog_replay(bytes, bank, &pcrs, &why) == ATT_OK) {
        return bank_json(&pcrs);
    }
    json_t *obj = json_object();
    if (json_object_set_new(obj, "error", json_string(why.msg)) != 0) {
        json_decref(obj);
        return NULL;
    }
    return obj;
}

static enum att_rc put_events(json_t *root, struct parse_eventlog *log, struct att_err *err)
{
    json_t *events = json_array();
    if (json_object_set_new(root, "events", events) != 0) {
        return no_memory(err);
    }
    struct parse_eventlog_event event;
    enum att_rc rc;
    while ((rc = parse_eventlog_next(log, &event, err)) == ATT_OK) {
        if (json_array_append_new(events, event_json(&event)) != 0) {
            return no_memory(err);
        }
    }
    return rc == ATT_E_NOTFOUND ? ATT_OK : rc;
}

enum att_rc parse_eventlog_explain(struct att_slice bytes, json_t **ret_json, struct att_err *err)
{
    struct parse_eventlog log;
    enum att_rc rc = parse_eventlog_init(&log, bytes, err);
    if (rc != ATT_OK) {
        return rc;
    }
    att_autojson *root = json_object();
    const char *format = log.crypto_agile ? "crypto-agile" : "sha1";
    if (json_object_set_new(root, "format", json_string(format)) != 0) {
        return no_memory(err);
    }
    rc = put_events(root, &log, err);
    if (rc != ATT_OK) {
        return rc;
    }
    json_t *banks = json_object();
    if (json_object_set_new(root, "pcrs", banks) != 0) {
        return no_memory(err);
    }
    for (size_t i = 0; i < log.n_algs; i++) {
        char scratch[8];
        if (json_object_set_new(banks, alg_key(log.algs[i].alg, scratch),
                                replay_json(bytes, log.algs[i].alg)) != 0) {
            return no_memory(err);
        }
    }
    *ret_json = root;
    root = NULL;
    return ATT_OK;
}
