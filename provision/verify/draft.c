#include "provision/verify/draft.h"

#include "attestd/base/enc.h"
#include "attestd/base/text.h"
#include "provision/verify/steps.h"
#include "tpm/parse/eventlog.h"
#include "provision/verify/bootlog.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* ---- names ----------------------------------------------------------------------------------- */

/* What a name in the log is called here. pcr PARSE_PCR_COUNT: any. */
static const struct {
    unsigned pcr;
    const char *type, *name, *id;
} names[] = {
    {7, "EV_EFI_VARIABLE_DRIVER_CONFIG", "SecureBoot", "secureboot.state"},
    {7, "EV_EFI_VARIABLE_DRIVER_CONFIG", "PK", "secureboot.pk"},
    {7, "EV_EFI_VARIABLE_DRIVER_CONFIG", "KEK", "secureboot.kek"},
    {7, "EV_EFI_VARIABLE_DRIVER_CONFIG", "db", "secureboot.db"},
    {7, "EV_EFI_VARIABLE_DRIVER_CONFIG", "dbx", "secureboot.dbx"},
    {7, "EV_EFI_VARIABLE_AUTHORITY", NULL, "secureboot.authority"},
    {0, "EV_S_CRTM_VERSION", NULL, "firmware.version"},
    {0, "EV_S_CRTM_CONTENTS", NULL, "firmware.crtm"},
    {0, NULL, NULL, "firmware.code"},
    {1, "EV_EFI_VARIABLE_BOOT", "BootOrder", "boot.order"},
    {1, "EV_EFI_VARIABLE_BOOT2", "BootOrder", "boot.order"},
    {1, "EV_EFI_VARIABLE_BOOT", NULL, "boot.entry"},
    {1, "EV_EFI_VARIABLE_BOOT2", NULL, "boot.entry"},
    {1, NULL, NULL, "firmware.config"},
    {2, NULL, NULL, "driver.code"},
    {3, NULL, NULL, "driver.config"},
    {5, "EV_EFI_GPT_EVENT", NULL, "disk.partitions"},
    {5, "EV_EFI_GPT_EVENT2", NULL, "disk.partitions"},
    {6, NULL, NULL, "firmware.maker"},
    {PARSE_PCR_COUNT, "EV_IPL", "kernel_cmdline", "cmdline"},
    {PARSE_PCR_COUNT, "EV_IPL", "module_cmdline", "module.cmdline"},
    {PARSE_PCR_COUNT, "EV_IPL", "grub_cmd", "loader.command"},
    /* The kernel's EFI stub, drivers/firmware/efi/libstub */
    {9, "EV_EVENT_TAG", "0x8f3b22ec", "initrd"},
    {9, "EV_EVENT_TAG", "0x8f3b22ed", "cmdline"},
    {9, "EV_IPL", NULL, "loader.file"},
    /* systemd-stub: PCR 11 the sections, PCR 12 the command line; systemd-boot: PCR 8 before 251 */
    {11, "EV_IPL", NULL, "uki.section"},
    {12, "EV_IPL", NULL, "cmdline"},
    {8, "EV_IPL", NULL, "cmdline"},
    {14, NULL, NULL, "mok"},
};
#define N_NAMES (sizeof(names) / sizeof(names[0]))

static bool contains(const char *text, const char *word)
{
    return text && strcasestr(text, word);
}

static const char *image_name(const struct verify_event *event, bool last)
{
    if (contains(event->hint, "shim")) {
        return "shim";
    }
    if (contains(event->hint, "grub") || contains(event->hint, "systemd-boot") ||
        contains(event->hint, "BOOTX64") || contains(event->hint, "BOOTAA64")) {
        return "loader";
    }
    return last ? "kernel" : "image";
}

static void append_lower(char *ret, size_t room, const char *text)
{
    size_t n = strlen(ret);
    for (; *text && n + 1 < room; text++) {
        unsigned char c = (unsigned char)*text;
        ret[n++] = isalnum(c) ? (char)tolower(c) : c == '.' || c == '_' ? (char)c : '-';
    }
    ret[n] = '\0';
}

/* last: no further image follows in PCR 4. */
static void base_id(const struct verify_event *event, bool last, char *ret, size_t room)
{
    *ret = '\0';
    if (event->log == VERIFY_LOG_SYSTEMD) {
        append_lower(ret, room, "systemd.");
        append_lower(ret, room, event->type[0] == '-' ? "record" : event->type);
        return;
    }
    if (!strcmp(event->type, "EV_SEPARATOR") || !strcmp(event->type, "EV_EFI_ACTION")) {
        (void)snprintf(ret, room, "pcr%u.%s", event->pcr,
                       event->type[3] == 'S' ? "separator" : "action");
        return;
    }
    if (event->pcr == 4 && event->type_code == PARSE_EV_EFI_BOOT_SERVICES_APPLICATION) {
        append_lower(ret, room, image_name(event, last));
        return;
    }
    for (size_t i = 0; i < N_NAMES; i++) {
        if ((names[i].pcr == PARSE_PCR_COUNT || names[i].pcr == event->pcr) &&
            (!names[i].type || !strcmp(names[i].type, event->type)) &&
            (!names[i].name || !strcmp(names[i].name, event->name))) {
            append_lower(ret, room, names[i].id);
            return;
        }
    }
    (void)snprintf(ret, room, "pcr%u.", event->pcr);
    append_lower(ret, room, event->name[0] ? event->name : event->type);
}

/* The first of a name has the name, the further ones a number. */
static void unique_id(const json_t *components, const char *base, char *ret, size_t room)
{
    (void)snprintf(ret, room, "%.50s", base);
    for (unsigned n = 2;; n++) {
        size_t i = 0;
        while (i < json_array_size(components) &&
               strcmp(json_string_value(json_object_get(json_array_get(components, i), "id")),
                      ret) != 0) {
            i++;
        }
        if (i == json_array_size(components)) {
            return;
        }
        (void)snprintf(ret, room, "%.50s-%u", base, n);
    }
}

/* ---- components ------------------------------------------------------------------------------ */

static json_t *variant_json(const struct verify_event *event, size_t digest_len)
{
    char hex[2 * PARSE_DIGEST_MAX + 1], label[VERIFY_LABEL_MAX];
    att_hex(hex, ATT_SLICE(event->digest, digest_len));
    json_t *json = json_pack("{s:s}", "digest", hex);
    const char *what = event->text ? event->text : event->hint;
    if (json && what) {
        (void)snprintf(label, sizeof(label), "%.200s", what);
        att_text_clean(label);
        if (label[0] && json_object_set_new(json, "label", json_string(label))) {
            json_decref(json);
            return NULL;
        }
    }
    return json;
}

static bool is_image(const struct verify_event *event)
{
    return event->log == VERIFY_LOG_FIRMWARE && event->pcr == 4 &&
           event->type_code == PARSE_EV_EFI_BOOT_SERVICES_APPLICATION;
}

static json_t *component_json(const struct verify_bootlog *log, size_t at, const json_t *before)
{
    const struct verify_event *event = &log->list[at];
    char base[VERIFY_COMPONENT_ID_MAX + 1], id[VERIFY_COMPONENT_ID_MAX + 1];
    bool last = true;
    for (size_t i = at + 1; i < log->n; i++) {
        last = last && !is_image(&log->list[i]);
    }
    base_id(event, last, base, sizeof(base));
    unique_id(before, base, id, sizeof(id));
    json_t *json = json_pack("{s:s, s:s, s:i, s:s}", "id", id, "log", verify_log_name(event->log),
                             "pcr", (int)event->pcr, "type", event->type);
    bool good = json && (!event->name[0] ||
                         json_object_set_new(json, "name", json_string(event->name)) == 0);
    json_t *variants = json_array();
    good = json_array_append_new(variants, variant_json(event, log->digest_len)) == 0 && good;
    good = json_object_set_new(json, "variants", variants) == 0 && good;
    if (!good) {
        json_decref(json);
        return NULL;
    }
    return json;
}

/* PCR by PCR, as people read it; within one in the order of the log. */
static enum att_rc components_json(const struct verify_bootlog *log, json_t **ret,
                                   struct att_err *err)
{
    att_autojson *list = json_array();
    if (log->too_many || log->n > VERIFY_COMPONENTS_MAX) {
        return att_fail(err, ATT_E_LIMIT,
                        "the boot has %zu%s events in these PCRs, a policy at most %d components",
                        log->n, log->too_many ? " and more" : "", VERIFY_COMPONENTS_MAX);
    }
    for (unsigned pcr = 0; pcr < PARSE_PCR_COUNT; pcr++) {
        for (size_t i = 0; i < log->n; i++) {
            if (log->list[i].pcr == pcr &&
                json_array_append_new(list, component_json(log, i, list))) {
                return att_fail(err, ATT_E_NOMEM, "no memory for a boot policy");
            }
        }
    }
    *ret = json_incref(list);
    return ATT_OK;
}

/* ---- the policy ------------------------------------------------------------------------------ */

static json_t *list_of_pcrs(uint32_t mask)
{
    json_t *list = json_array();
    for (unsigned pcr = 0; pcr < PARSE_PCR_COUNT; pcr++) {
        if (mask >> pcr & 1) {
            json_array_append_new(list, json_integer((json_int_t)pcr));
        }
    }
    return list;
}

/* {"allowlists": [{"sha256": hex}], "excludes": [{"prefix", "reason"}…]?} */
static json_t *ima_json(const struct verify_draft_in *in)
{
    char hex[2 * ATT_SHA256_LEN + 1];
    att_hex(hex, ATT_SLICE(verify_imalist_sha256(in->allowlist), ATT_SHA256_LEN));
    json_t *json = json_pack("{s:[{s:s}]}", "allowlists", "sha256", hex);
    json_t *excludes = in->excludes && in->excludes[0] ? json_array() : NULL;
    for (size_t i = 0; excludes && in->excludes[i]; i++) {
        json_array_append_new(excludes, json_pack("{s:s, s:s}", "prefix", in->excludes[i], "reason",
                                                  "left open when the policy was drafted"));
    }
    if (excludes) {
        json_object_set_new(json, "excludes", excludes);
    }
    return json;
}

static enum att_rc policy_text(const struct verify_draft_in *in, const struct verify_bootlog *log,
                               bool systemd, struct att_buf *ret, struct att_err *err)
{
    json_t *components = NULL;
    enum att_rc rc = components_json(log, &components, err);
    if (rc) {
        return rc;
    }
    json_t *logs = json_array();
    json_array_append_new(logs, json_string("firmware"));
    if (systemd) {
        json_array_append_new(logs, json_string("systemd"));
    }
    uint32_t unjudged = in->unjudged | (in->pcrs->sel.mask & VERIFY_PCRS_IMA);
    if (in->allowlist) {
        json_array_append_new(logs, json_string("ima"));
        unjudged &= ~VERIFY_PCRS_IMA;
    }
    att_autojson *json =
        json_pack("{s:i, s:s, s:I, s:s, s:o, s:o, s:o}", "format", 2, "name", in->name, "version",
                  (json_int_t)in->version, "bank", parse_alg_name(in->pcrs->sel.bank), "logs", logs,
                  "unjudged", list_of_pcrs(unjudged), "components", components);
    if (json && in->allowlist) {
        json_object_set_new(json, "ima", ima_json(in));
    }
    char *text = json ? json_dumps(json, JSON_INDENT(1)) : NULL;
    if (!text) {
        return att_fail(err, ATT_E_NOMEM, "no memory for a boot policy");
    }
    att_buf_put_str(ret, text);
    att_buf_put_str(ret, "\n");
    json_free_t release = NULL;
    json_get_alloc_funcs(NULL, &release);
    release(text);
    return att_buf_ok(ret, err);
}

enum verify_result verify_policy_try(const struct verify_policy_in *in,
                                     const struct evidence_logs *logs, uint32_t logs_wanted,
                                     struct verify_verdict *verdict)
{
    static const enum verify_reason plan[] = {
        VERIFY_REASON_LOG_MISSING,    VERIFY_REASON_LOG_REPLAY,
        VERIFY_REASON_POLICY_MISSING, VERIFY_REASON_POLICY_UNSIGNED,
        VERIFY_REASON_POLICY_SIGNER,  VERIFY_REASON_POLICY_NOT_YET_VALID,
        VERIFY_REASON_POLICY_EXPIRED, VERIFY_REASON_BOOT_POLICY};
    const struct verify_boot boot = {.logs = logs_wanted,
                                     .policy = in->policy,
                                     .signers = in->signers,
                                     .n_signers = in->n_signers,
                                     .mode = in->mode,
                                     .now = in->now,
                                     .memo = in->memo};
    const struct verify_quoted quoted = {.pcrs = in->quoted, .logs = logs};
    verify_plan(verdict, plan, sizeof(plan) / sizeof(plan[0]));
    return verify_step_boot(&boot, &quoted, NULL, verdict) ? verify_verdict_result(verdict)
                                                           : VERIFY_REFUSED;
}

/* The draft, read again, must accept the boot it is of. */
static enum att_rc prove(const struct verify_draft_in *in, struct att_slice text,
                         struct verify_verdict *verdict, struct att_err *err)
{
    verify_autopolicy *policy = NULL;
    enum att_rc rc = verify_policy_parse(text, &policy, err);
    if (rc) {
        return rc;
    }
    if (in->allowlist) {
        verify_imarule_bind(&policy->ima, in->allowlist);
    }
    const struct verify_policy_in judged = {.policy = policy, .now = in->now, .quoted = in->pcrs};
    uint32_t ima = (in->pcrs->sel.mask & VERIFY_PCRS_IMA) && evidence_logs_find(in->logs, "ima")
                       ? VERIFY_LOG_IMA
                       : 0;
    return verify_policy_try(&judged, in->logs, policy->logs | ima, verdict) == VERIFY_ACCEPTED
               ? ATT_OK
               : verify_verdict_err(verdict, err);
}

enum att_rc verify_policy_draft(const struct verify_draft_in *in, struct att_buf *ret_json,
                                struct verify_verdict *verdict, struct att_err *err)
{
    const struct evidence_log *firmware = evidence_logs_find(in->logs, "firmware");
    const struct evidence_log *systemd = evidence_logs_find(in->logs, "systemd");
    uint32_t judged = in->pcrs->sel.mask & ~VERIFY_PCRS_IMA & ~in->unjudged;
    bool with_systemd = systemd && systemd->data.len && (judged & VERIFY_PCRS_SYSTEMD);
    struct verify_bootlog_in what = {.bank = in->pcrs->sel.bank, .pcr_mask = judged};
    struct verify_bootlog log = {0};
    att_autobuf text = ATT_BUF_INIT(VERIFY_POLICY_BYTES_MAX);
    if (!firmware || !firmware->has_data) {
        return att_fail(err, ATT_E_INVAL, "a policy is drafted from a firmware log: there is none");
    }
    what.firmware = att_buf_slice(&firmware->data);
    what.systemd = with_systemd ? att_buf_slice(&systemd->data) : ATT_SLICE(NULL, 0);
    enum att_rc rc = verify_bootlog_read(&what, &log, err);
    rc = rc ? rc : policy_text(in, &log, with_systemd, &text, err);
    verify_bootlog_done(&log);
    rc = rc ? rc : prove(in, att_buf_slice(&text), verdict, err);
    if (!rc) {
        att_buf_put_slice(ret_json, att_buf_slice(&text));
        rc = att_buf_ok(ret_json, err);
    }
    return rc;
}
