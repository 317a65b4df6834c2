#include "provision/verify/logs.h"

#include "provision/verify/steps.h"
#include "tpm/parse/eventlog.h"
#include "tpm/parse/eventlog_explain.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    uint32_t bit;
} log_names[] = {
    {"firmware", VERIFY_LOG_FIRMWARE}, {"systemd", VERIFY_LOG_SYSTEMD}, {"ima", VERIFY_LOG_IMA}};
#define N_LOG_NAMES (sizeof(log_names) / sizeof(log_names[0]))

uint32_t verify_log_bit(struct att_slice name)
{
    for (size_t i = 0; i < N_LOG_NAMES; i++) {
        if (att_slice_eq_str(name, log_names[i].name)) {
            return log_names[i].bit;
        }
    }
    return 0;
}

const char *verify_log_name(uint32_t bit)
{
    for (size_t i = 0; i < N_LOG_NAMES; i++) {
        if (log_names[i].bit == bit) {
            return log_names[i].name;
        }
    }
    return "?";
}

enum att_rc verify_manifest_sha256(const struct evidence_logs *logs, uint8_t ret[ATT_SHA256_LEN],
                                   struct att_err *err)
{
    att_autobuf cbor = ATT_BUF_INIT(EVIDENCE_MANIFEST_MAX);
    enum att_rc rc = evidence_manifest_encode(logs, &cbor, err);
    rc = rc ? rc : att_buf_ok(&cbor, err);
    if (!rc) {
        att_sha256(ret, att_buf_slice(&cbor));
    }
    return rc;
}

/* ---- the grammar of the firmware log --------------------------------------------------------- */

/* Digest of the payload by definition: TCG PC Client PFP 1.06 clause 10.4.1. The others' digests
 * are of images and blobs that are not in the log. */
static bool digest_is_of_payload(uint32_t type)
{
    switch (type) {
    case PARSE_EV_SEPARATOR:
    case PARSE_EV_ACTION:
    case PARSE_EV_S_CRTM_VERSION:
    case PARSE_EV_OMIT_BOOT_DEVICE_EVENTS:
    case PARSE_EV_EFI_ACTION:
    case PARSE_EV_EFI_GPT_EVENT:
    case PARSE_EV_EFI_GPT_EVENT2:
    case PARSE_EV_EFI_VARIABLE_DRIVER_CONFIG:
    case PARSE_EV_EFI_VARIABLE_AUTHORITY:
    case PARSE_EV_EFI_VARIABLE_BOOT:
    case PARSE_EV_EFI_VARIABLE_BOOT2:
        return true;
    default:
        return false;
    }
}

static bool is_variable(uint32_t type)
{
    return type == PARSE_EV_EFI_VARIABLE_BOOT || type == PARSE_EV_EFI_VARIABLE_AUTHORITY;
}

/* PFP 1.06 clause 3.3.4: what may be measured where. Types of PCR 8 and above are the operating
 * system's; any that has a name may be there. */
static const uint32_t *types_of_pcr(uint32_t pcr, size_t *ret_n)
{
    static const uint32_t common[] = {PARSE_EV_SEPARATOR, PARSE_EV_EFI_ACTION, PARSE_EV_ACTION,
                                      PARSE_EV_EVENT_TAG};
    static const uint32_t code[] = {PARSE_EV_POST_CODE,
                                    PARSE_EV_POST_CODE2,
                                    PARSE_EV_S_CRTM_CONTENTS,
                                    PARSE_EV_S_CRTM_VERSION,
                                    PARSE_EV_CPU_MICROCODE,
                                    PARSE_EV_PLATFORM_CONFIG_FLAGS,
                                    PARSE_EV_NONHOST_CODE,
                                    PARSE_EV_NONHOST_INFO,
                                    PARSE_EV_TABLE_OF_DEVICES,
                                    PARSE_EV_EFI_PLATFORM_FIRMWARE_BLOB,
                                    PARSE_EV_EFI_PLATFORM_FIRMWARE_BLOB2,
                                    PARSE_EV_EFI_BOOT_SERVICES_DRIVER,
                                    PARSE_EV_EFI_RUNTIME_SERVICES_DRIVER,
                                    PARSE_EV_EFI_HANDOFF_TABLES,
                                    PARSE_EV_EFI_HANDOFF_TABLES2,
                                    PARSE_EV_EFI_HCRTM_EVENT};
    static const uint32_t config[] = {PARSE_EV_CPU_MICROCODE,
                                      PARSE_EV_PLATFORM_CONFIG_FLAGS,
                                      PARSE_EV_TABLE_OF_DEVICES,
                                      PARSE_EV_NONHOST_CONFIG,
                                      PARSE_EV_NONHOST_INFO,
                                      PARSE_EV_POST_CODE,
                                      PARSE_EV_EFI_VARIABLE_BOOT,
                                      PARSE_EV_EFI_VARIABLE_BOOT2,
                                      PARSE_EV_EFI_VARIABLE_DRIVER_CONFIG,
                                      PARSE_EV_EFI_HANDOFF_TABLES,
                                      PARSE_EV_EFI_HANDOFF_TABLES2,
                                      PARSE_EV_EFI_SPDM_FIRMWARE_CONFIG};
    static const uint32_t drivers[] = {
        PARSE_EV_EFI_BOOT_SERVICES_DRIVER,      PARSE_EV_EFI_RUNTIME_SERVICES_DRIVER,
        PARSE_EV_EFI_BOOT_SERVICES_APPLICATION, PARSE_EV_EFI_PLATFORM_FIRMWARE_BLOB,
        PARSE_EV_EFI_PLATFORM_FIRMWARE_BLOB2,   PARSE_EV_NONHOST_CODE,
        PARSE_EV_EFI_SPDM_FIRMWARE_BLOB};
    static const uint32_t loader[] = {PARSE_EV_EFI_BOOT_SERVICES_APPLICATION,
                                      PARSE_EV_EFI_BOOT_SERVICES_DRIVER, PARSE_EV_COMPACT_HASH,
                                      PARSE_EV_IPL, PARSE_EV_OMIT_BOOT_DEVICE_EVENTS};
    static const uint32_t loader_data[] = {
        PARSE_EV_EFI_GPT_EVENT, PARSE_EV_EFI_GPT_EVENT2,    PARSE_EV_IPL_PARTITION_DATA,
        PARSE_EV_IPL,           PARSE_EV_EFI_VARIABLE_BOOT, PARSE_EV_EFI_VARIABLE_BOOT2};
    static const uint32_t maker[] = {PARSE_EV_COMPACT_HASH};
    static const uint32_t secure_boot[] = {PARSE_EV_EFI_VARIABLE_DRIVER_CONFIG,
                                           PARSE_EV_EFI_VARIABLE_AUTHORITY};
#define LIST(a)                                                                                    \
    {                                                                                              \
        (a), sizeof(a) / sizeof((a)[0])                                                            \
    }
    static const struct {
        const uint32_t *types;
        size_t n;
    } lists[] = {LIST(code),        LIST(config), LIST(drivers),     LIST(config), LIST(loader),
                 LIST(loader_data), LIST(maker),  LIST(secure_boot), LIST(common)};
#undef LIST
    size_t at = pcr < 8 ? pcr : 8;
    *ret_n = lists[at].n;
    return lists[at].types;
}

static bool listed(uint32_t list, uint32_t type)
{
    size_t n = 0;
    const uint32_t *types = types_of_pcr(list, &n);
    for (size_t i = 0; i < n; i++) {
        if (types[i] == type) {
            return true;
        }
    }
    return false;
}

static bool type_may_be_in(uint32_t pcr, uint32_t type)
{
    if (pcr < 8) {
        return listed(pcr, type) || listed(8, type);
    }
    /* PCR 17-22 belong to a dynamic launch, whose types are the platform's own. */
    return parse_eventlog_type_name(type) || (pcr >= 17 && pcr <= 22);
}

static bool hashes_to(struct att_slice payload, struct att_slice digest, uint16_t bank)
{
    uint8_t hash[ATT_HASH_MAX];
    size_t len = 0;
    return !att_hash_v(parse_alg_openssl_name(bank), hash, &len, &payload, 1, NULL) &&
           att_slice_eq(ATT_SLICE(hash, len), digest);
}

static bool payload_is_hashed(const struct parse_eventlog_event *event, uint16_t bank)
{
    struct att_slice digest = parse_eventlog_digest_of(event, bank);
    if (hashes_to(event->data, digest, bank)) {
        return true;
    }
    /* Shim before 15.3 hashes one byte less of its own certificate's variable than it logs. */
    if (event->type == PARSE_EV_EFI_VARIABLE_AUTHORITY && event->data.len > 1 &&
        hashes_to(ATT_SLICE(event->data.ptr, event->data.len - 1), digest, bank)) {
        return true;
    }
    /* Before EV_EFI_VARIABLE_BOOT2 the variable's content alone was hashed. */
    struct parse_eventlog_variable variable;
    return is_variable(event->type) && !parse_eventlog_variable(event->data, &variable, NULL) &&
           hashes_to(variable.data, digest, bank);
}

/* PFP 1.06 clause 10.4.5: 0x00000000 or 0xFFFFFFFF; 1 announces an error of the firmware. */
static bool good_separator(struct att_slice data)
{
    static const uint8_t zero[4] = {0}, ones[4] = {0xff, 0xff, 0xff, 0xff};
    return att_slice_eq(data, ATT_SLICE_ARRAY(zero)) || att_slice_eq(data, ATT_SLICE_ARRAY(ones));
}

static const char *event_fault(const struct parse_eventlog_event *event, uint16_t bank)
{
    if (!type_may_be_in(event->pcr, event->type)) {
        return "its type may not be measured into this PCR";
    }
    if (digest_is_of_payload(event->type) && !payload_is_hashed(event, bank)) {
        return "payload does not match its digest";
    }
    if (event->pcr < 8 && event->type == PARSE_EV_SEPARATOR && !good_separator(event->data)) {
        return "the separator announces an error of the firmware";
    }
    return NULL;
}

struct grammar {
    unsigned separators[PARSE_PCR_COUNT];
    uint32_t with_events;
};

static bool check_event(const struct parse_eventlog_event *event, uint16_t bank,
                        struct grammar *grammar, struct verify_verdict *verdict)
{
    const char *fault = event_fault(event, bank);
    if (fault) {
        const char *type = parse_eventlog_type_name(event->type);
        verify_fail(verdict, VERIFY_REASON_LOG_REPLAY, "pcr%u event %zu (%s, type 0x%08x): %s",
                    event->pcr, event->number, type ? type : "no known type", event->type, fault);
        return false;
    }
    grammar->with_events |= 1U << event->pcr;
    if (event->type == PARSE_EV_SEPARATOR) {
        grammar->separators[event->pcr]++;
    }
    return true;
}

static bool check_separators(const struct grammar *grammar, struct verify_verdict *verdict)
{
    bool good = true;
    for (unsigned pcr = 0; pcr < 8; pcr++) {
        if ((grammar->with_events & (1U << pcr)) && grammar->separators[pcr] != 1) {
            verify_fail(verdict, VERIFY_REASON_LOG_REPLAY,
                        "pcr%u: expected exactly one separator event, found %u", pcr,
                        grammar->separators[pcr]);
            good = false;
        }
    }
    return good;
}

static bool check_grammar(struct att_slice bytes, const struct parse_pcr_set *quoted,
                          struct verify_verdict *verdict)
{
    struct parse_eventlog log;
    struct parse_eventlog_event event;
    struct grammar grammar = {0};
    struct att_err err = {0};
    enum att_rc rc = parse_eventlog_init(&log, bytes, &err);
    if (!rc && !log.crypto_agile) {
        verify_fail(verdict, VERIFY_REASON_LOG_REPLAY,
                    "the firmware log is in SHA-1 format, which proves nothing");
        return false;
    }
    while (!rc) {
        rc = parse_eventlog_next(&log, &event, &err);
        if (rc || event.type == PARSE_EV_NO_ACTION || event.pcr >= PARSE_PCR_COUNT ||
            !(quoted->sel.mask & (1U << event.pcr))) {
            continue;
        }
        if (!check_event(&event, quoted->sel.bank, &grammar, verdict)) {
            return false;
        }
    }
    if (rc != ATT_E_NOTFOUND) {
        verify_fail(verdict, VERIFY_REASON_LOG_REPLAY, "firmware log: %s", err.msg);
        return false;
    }
    return check_separators(&grammar, verdict);
}

/* ---- all of it ------------------------------------------------------------------------------- */

static bool check_present(uint32_t wanted, const struct evidence_logs *logs,
                          struct verify_verdict *verdict)
{
    bool good = true;
    for (size_t i = 0; i < N_LOG_NAMES; i++) {
        if (!(wanted & log_names[i].bit)) {
            continue;
        }
        const struct evidence_log *log = evidence_logs_find(logs, log_names[i].name);
        uint8_t digest[ATT_SHA256_LEN];
        if (!log || !log->has_data) {
            verify_fail(verdict, VERIFY_REASON_LOG_MISSING, "the %s log was asked for and %s",
                        log_names[i].name, log ? "came without its bytes" : "is not there");
            good = false;
            continue;
        }
        att_sha256(digest, att_buf_slice(&log->data));
        if (log->length != log->data.len || memcmp(digest, log->sha256, sizeof(digest)) != 0) {
            verify_fail(verdict, VERIFY_REASON_LOG_MISSING,
                        "the bytes of the %s log are not those of its length and digest",
                        log_names[i].name);
            good = false;
        }
    }
    return good;
}

/* What a log is asked for, but no PCR of its own is quoted, it proves nothing. */
static bool check_wanted(uint32_t wanted, const struct parse_pcr_set *quoted,
                         struct verify_verdict *verdict)
{
    if (!(wanted & VERIFY_LOG_FIRMWARE)) {
        verify_fail(
            verdict, VERIFY_REASON_LOG_REPLAY,
            "the %s log goes on from the firmware log, which was not asked for",
            verify_log_name((wanted & VERIFY_LOG_IMA) ? VERIFY_LOG_IMA : VERIFY_LOG_SYSTEMD));
        return false;
    }
    if ((wanted & VERIFY_LOG_IMA) && !(quoted->sel.mask & VERIFY_PCRS_IMA)) {
        verify_fail(verdict, VERIFY_REASON_LOG_REPLAY,
                    "the ima log was asked for, and the quote does not cover pcr10");
        return false;
    }
    if ((wanted & VERIFY_LOG_SYSTEMD) && !(quoted->sel.mask & VERIFY_PCRS_SYSTEMD)) {
        verify_fail(verdict, VERIFY_REASON_LOG_REPLAY,
                    "the systemd log was asked for, and the quote covers none of PCR 9, 11, 12, "
                    "13 and 15");
        return false;
    }
    return true;
}

void verify_logs(const struct verify_logs_wanted *wanted, const struct parse_pcr_set *quoted,
                 const struct evidence_logs *logs, struct verify_verdict *verdict)
{
    if (wanted->logs == 0) {
        verify_skip(verdict, VERIFY_REASON_LOG_MISSING, "no log was asked for");
        verify_skip(verdict, VERIFY_REASON_LOG_REPLAY, "no log was asked for");
        return;
    }
    if (!check_present(wanted->logs, logs, verdict)) {
        return;
    }
    verify_pass(verdict, VERIFY_REASON_LOG_MISSING, "each log asked for is there");
    if (!check_wanted(wanted->logs, quoted, verdict)) {
        return;
    }
    struct att_slice bytes = att_buf_slice(&evidence_logs_find(logs, "firmware")->data);
    if (check_grammar(bytes, quoted, verdict)) {
        verify_step_replay(wanted, quoted, logs, verdict);
    }
}
