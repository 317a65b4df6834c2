#include "provision/verify/bootlog.h"

#include "attestd/base/enc.h"
#include "tpm/parse/eventlog_explain.h"
#include "tpm/parse/eventlog_payload.h"
#include "tpm/parse/systemd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void verify_bootlog_done(struct verify_bootlog *bootlog)
{
    for (size_t i = 0; i < bootlog->n; i++) {
        free(bootlog->list[i].text);
        free(bootlog->list[i].hint);
    }
    free(bootlog->list);
    *bootlog = (struct verify_bootlog){0};
}

static struct verify_event *next(struct verify_bootlog *log)
{
    if (log->n >= VERIFY_BOOT_EVENTS_MAX) {
        log->too_many = true;
        return NULL;
    }
    if (log->n == log->room) {
        size_t room = log->room ? 2 * log->room : 64;
        struct verify_event *list = reallocarray(log->list, room, sizeof(*list));
        if (!list) {
            return NULL;
        }
        log->list = list;
        log->room = room;
    }
    log->list[log->n] = (struct verify_event){0};
    return &log->list[log->n++];
}

/* ---- text ------------------------------------------------------------------------------------ */

static bool is_utf16(struct att_slice bytes)
{
    if (bytes.len < 2 || bytes.len % 2) {
        return false;
    }
    for (size_t i = 1; i < bytes.len; i += 2) {
        if (bytes.ptr[i] != 0) {
            return false;
        }
    }
    return true;
}

char *verify_text_of(struct att_slice bytes)
{
    size_t step = is_utf16(bytes) ? 2 : 1, n = bytes.len / step;
    if (n && bytes.ptr[(n - 1) * step] == 0) {
        n--; /* a final NUL */
    }
    if (n < 1 || n > VERIFY_TEXT_MAX) {
        return NULL;
    }
    char *text = malloc(n + 1);
    for (size_t i = 0; text && i < n; i++) {
        uint8_t c = bytes.ptr[i * step];
        if ((c < 0x20 && c != '\t' && c != '\n') || c > 0x7e) {
            free(text);
            return NULL;
        }
        text[i] = (char)c;
    }
    if (text) {
        text[n] = '\0';
    }
    return text;
}

/* ---- the firmware's log ---------------------------------------------------------------------- */

/* EFI_SIGNATURE_DATA: the owner's GUID, then the certificate; shim logs its own built-in one bare.
 * A DER SEQUENCE whose length is all of the rest, so that nothing else is taken for one. */
static bool is_der_sequence(struct att_slice bytes)
{
    return bytes.len > 4 && bytes.ptr[0] == 0x30 && bytes.ptr[1] == 0x82 &&
           ((size_t)bytes.ptr[2] << 8 | bytes.ptr[3]) == bytes.len - 4;
}

struct att_slice verify_signer_of(struct att_slice data)
{
    struct att_slice after =
        data.len > 16 ? ATT_SLICE(data.ptr + 16, data.len - 16) : ATT_SLICE(NULL, 0);
    return is_der_sequence(after) ? after : is_der_sequence(data) ? data : ATT_SLICE(NULL, 0);
}

static bool is_variable(uint32_t type)
{
    return type == PARSE_EV_EFI_VARIABLE_DRIVER_CONFIG || type == PARSE_EV_EFI_VARIABLE_BOOT ||
           type == PARSE_EV_EFI_VARIABLE_BOOT2 || type == PARSE_EV_EFI_VARIABLE_AUTHORITY;
}

/* The label of what GRUB measures: "kernel_cmdline: …". */
static void label_of(struct att_slice data, char ret[VERIFY_NAME_MAX + 1])
{
    static const char *const labels[] = {"grub_cmd: ", "kernel_cmdline: ", "module_cmdline: "};
    for (size_t i = 0; i < sizeof(labels) / sizeof(labels[0]); i++) {
        size_t len = strlen(labels[i]);
        if (data.len >= len && !memcmp(data.ptr, labels[i], len)) {
            (void)snprintf(ret, VERIFY_NAME_MAX + 1, "%.*s", (int)len - 2, labels[i]);
        }
    }
}

static void name_of(const struct parse_eventlog_event *event, struct att_slice payload,
                    struct verify_event *ret)
{
    struct parse_eventlog_variable variable;
    if (is_variable(event->type) && !parse_eventlog_variable(payload, &variable, NULL)) {
        char *name = verify_text_of(variable.name_utf16);
        if (name && strlen(name) <= VERIFY_NAME_MAX) {
            memcpy(ret->name, name, strlen(name) + 1);
        }
        free(name);
    } else if (event->type == PARSE_EV_EVENT_TAG) {
        struct att_cur cur = att_cur_init(payload);
        uint32_t tag = att_cur_le32(&cur);
        if (!cur.failed) {
            (void)snprintf(ret->name, sizeof(ret->name), "0x%08x", tag);
        }
    } else if (event->type == PARSE_EV_IPL) {
        label_of(payload, ret->name);
    }
}

/* An image's place: a comment, for people. */
static void hint_of(const struct parse_eventlog_event *event, struct verify_event *ret)
{
    if (event->type != PARSE_EV_EFI_BOOT_SERVICES_APPLICATION &&
        event->type != PARSE_EV_EFI_BOOT_SERVICES_DRIVER) {
        return;
    }
    json_t *json = parse_eventlog_payload_json(event);
    const char *path = json_string_value(json_object_get(json, "devicePath"));
    ret->hint = path ? strdup(path) : NULL;
    json_decref(json);
}

static void content_of(const struct parse_eventlog_event *event, struct verify_event *ret)
{
    struct att_slice measured = event->data;
    enum parse_eventlog_cover cover = parse_eventlog_covers(event, &measured);
    struct att_slice payload = event->data;
    struct parse_eventlog_variable variable;
    ret->covered = cover != PARSE_EVENTLOG_COVERS_NONE;
    if (cover == PARSE_EVENTLOG_COVERS_PART && event->type == PARSE_EV_EFI_VARIABLE_AUTHORITY) {
        payload = measured;
    }
    name_of(event, payload, ret);
    hint_of(event, ret);
    if (!ret->covered) {
        return;
    }
    if (!is_variable(event->type)) {
        ret->text = verify_text_of(cover == PARSE_EVENTLOG_COVERS_ALL ? payload : measured);
    } else if (event->type == PARSE_EV_EFI_VARIABLE_AUTHORITY &&
               !parse_eventlog_variable(payload, &variable, NULL)) {
        struct att_slice der = verify_signer_of(variable.data);
        ret->has_signer = der.len > 0;
        att_sha256(ret->signer, der);
    }
}

static enum att_rc take_event(const struct parse_eventlog_event *event, uint16_t bank,
                              struct verify_bootlog *log, struct att_err *err)
{
    struct att_slice digest = parse_eventlog_digest_of(event, bank);
    struct verify_event *ret = next(log);
    if (!ret) {
        return log->too_many ? ATT_OK : att_fail(err, ATT_E_NOMEM, "no memory for a boot's events");
    }
    if (digest.len != log->digest_len) {
        return att_fail(err, ATT_E_PARSE, "pcr%u event %zu has no digest of the bank", event->pcr,
                        event->number);
    }
    const char *type = parse_eventlog_type_name(event->type);
    ret->log = VERIFY_LOG_FIRMWARE;
    ret->pcr = event->pcr;
    ret->number = event->number;
    ret->type_code = event->type;
    if (type) {
        (void)snprintf(ret->type, sizeof(ret->type), "%s", type);
    } else {
        (void)snprintf(ret->type, sizeof(ret->type), "0x%08x", event->type);
    }
    memcpy(ret->digest, digest.ptr, digest.len);
    content_of(event, ret);
    return ATT_OK;
}

static enum att_rc read_firmware(const struct verify_bootlog_in *in, struct verify_bootlog *log,
                                 struct att_err *err)
{
    struct parse_eventlog walk;
    struct parse_eventlog_event event;
    enum att_rc rc = parse_eventlog_init(&walk, in->firmware, err);
    while (!rc) {
        rc = parse_eventlog_next(&walk, &event, err);
        if (!rc && event.type != PARSE_EV_NO_ACTION && event.pcr < PARSE_PCR_COUNT &&
            (in->pcr_mask >> event.pcr & 1)) {
            rc = take_event(&event, in->bank, log, err);
        }
    }
    return rc == ATT_E_NOTFOUND ? ATT_OK : rc;
}

/* ---- systemd's log --------------------------------------------------------------------------- */

static enum att_rc take_record(const struct parse_systemd_record *record, uint16_t bank,
                               struct verify_bootlog *log, struct att_err *err)
{
    struct att_slice digest = parse_systemd_digest_of(record, bank);
    struct verify_event *ret = next(log);
    if (!ret) {
        return log->too_many ? ATT_OK : att_fail(err, ATT_E_NOMEM, "no memory for a boot's events");
    }
    if (digest.len != log->digest_len) {
        return att_fail(err, ATT_E_PARSE, "pcr%u record %zu has no digest of the bank", record->pcr,
                        record->number);
    }
    ret->log = VERIFY_LOG_SYSTEMD;
    ret->pcr = record->pcr;
    ret->number = record->number;
    (void)snprintf(ret->type, sizeof(ret->type), "%s", record->type[0] ? record->type : "-");
    memcpy(ret->digest, digest.ptr, digest.len);
    ret->covered = record->covered && record->string;
    ret->text = ret->covered ? verify_text_of(att_slice_str(record->string)) : NULL;
    return ATT_OK;
}

static enum att_rc read_systemd(const struct verify_bootlog_in *in, struct verify_bootlog *log,
                                struct att_err *err)
{
    struct parse_systemd walk;
    enum att_rc rc = parse_systemd_init(&walk, in->systemd, err);
    while (!rc) {
        ATT_CLEANUP(parse_systemd_record_done) struct parse_systemd_record record = {0};
        rc = parse_systemd_next(&walk, &record, err);
        if (!rc && record.pcr < PARSE_PCR_COUNT && (in->pcr_mask >> record.pcr & 1)) {
            rc = take_record(&record, in->bank, log, err);
        }
    }
    return rc == ATT_E_NOTFOUND ? ATT_OK : rc;
}

enum att_rc verify_bootlog_read(const struct verify_bootlog_in *in, struct verify_bootlog *ret,
                                struct att_err *err)
{
    struct verify_bootlog log = {.digest_len = parse_alg_digest_len(in->bank)};
    enum att_rc rc = in->firmware.len ? read_firmware(in, &log, err) : ATT_OK;
    if (!rc && in->systemd.len) {
        rc = read_systemd(in, &log, err);
    }
    if (rc) {
        verify_bootlog_done(&log);
        return rc;
    }
    *ret = log;
    return ATT_OK;
}
