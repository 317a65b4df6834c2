#include "provision/verify/dmverity.h"

#include "attestd/base/enc.h"
#include "provision/verify/sequence.h"
#include "provision/verify/steps.h"
#include "tpm/parse/ima_dm.h"

#include <stdio.h>
#include <string.h>

/* ---- the device ------------------------------------------------------------------------------ */

struct device {
    uint32_t major, minor;
    bool loaded, resumed;
    uint8_t root[ATT_SHA256_LEN];
    struct {
        uint8_t sha256[ATT_SHA256_LEN];
    } tables[8]; /* that were loaded: the same root under other names */
    size_t n_tables;
    char *why;
    size_t why_size;
};

static bool refuse(struct device *d, size_t number, const char *what)
{
    (void)snprintf(d->why, d->why_size, "pcr10 entry %zu: device %u:%u: %s", number, d->major,
                   d->minor, what);
    return false;
}

static bool take_load(struct device *d, size_t number, const struct parse_ima_dm *dm)
{
    if (!dm->is_verity) {
        return refuse(d, number, dm->why);
    }
    if (d->loaded && memcmp(d->root, dm->root, sizeof d->root) != 0) {
        return refuse(d, number, "it has another root hash than before in this boot");
    }
    if (d->n_tables == sizeof d->tables / sizeof d->tables[0]) {
        return refuse(d, number, "more tables than are followed");
    }
    memcpy(d->tables[d->n_tables++].sha256, dm->table, ATT_SHA256_LEN);
    memcpy(d->root, dm->root, sizeof d->root);
    d->loaded = true;
    return true;
}

static bool take_resume(struct device *d, size_t number, const struct parse_ima_dm *dm)
{
    for (size_t i = 0; dm->has_table && i < d->n_tables; i++) {
        if (memcmp(d->tables[i].sha256, dm->table, ATT_SHA256_LEN) == 0) {
            d->resumed = true;
            return true;
        }
    }
    return refuse(d, number, "a table came into force that was not seen being loaded");
}

static bool take_entry(struct device *d, const struct parse_ima_entry *entry)
{
    struct parse_ima_dm dm;
    struct att_err err = {0};
    if (parse_ima_dm(entry, &dm, &err) != ATT_OK) {
        (void)snprintf(d->why, d->why_size, "%s", err.msg); /* it may be of this device */
        return false;
    }
    if (!dm.has_device || dm.major != d->major || dm.minor != d->minor) {
        return true;
    }
    return dm.kind == PARSE_IMA_DM_LOAD     ? take_load(d, entry->number, &dm)
           : dm.kind == PARSE_IMA_DM_RESUME ? take_resume(d, entry->number, &dm)
                                            : true;
}

bool verify_dmverity_device(struct att_slice list_bytes, uint32_t major, uint32_t minor,
                            uint8_t ret_root[ATT_SHA256_LEN], char *ret_why, size_t why_size)
{
    ATT_CLEANUP(parse_ima_done) struct parse_ima list = {0};
    struct device d = {.major = major, .minor = minor, .why = ret_why, .why_size = why_size};
    struct att_err err = {0};
    enum att_rc rc = parse_ima_init(&list, list_bytes, &err);
    while (rc == ATT_OK) {
        struct parse_ima_entry entry;
        rc = parse_ima_next(&list, &entry, &err);
        if (rc == ATT_OK && !take_entry(&d, &entry)) {
            return false;
        }
    }
    if (rc != ATT_E_NOTFOUND) {
        (void)snprintf(ret_why, why_size, "%s", err.msg);
        return false;
    }
    if (!d.resumed) {
        (void)snprintf(ret_why, why_size,
                       "IMA's list does not say what device %u:%u is (a rule \"measure "
                       "func=CRITICAL_DATA label=device-mapper\" that was in force when it was "
                       "made, and a device of dm-verity)",
                       major, minor);
        return false;
    }
    memcpy(ret_root, d.root, ATT_SHA256_LEN);
    return true;
}

/* ---- the boot -------------------------------------------------------------------------------- */

/* A script of several lines, as GRUB measures a menu entry's block: it has command lines that were
 * not booted. */
static bool has_lines(const char *text)
{
    const char *end = strpbrk(text, "\n\r");
    return end && end[1] != '\0';
}

/* A word of a command line, alone or in quotes: roothash=HEX, usrhash=HEX. */
static bool names_root(const char *text, const uint8_t root[ATT_SHA256_LEN])
{
    if (has_lines(text)) {
        return false;
    }
    static const char *const keys[] = {"roothash=", "usrhash="};
    char hex[2 * ATT_SHA256_LEN + 1];
    att_hex(hex, ATT_SLICE(root, ATT_SHA256_LEN));
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        size_t key_len = strlen(keys[i]);
        for (const char *at = strstr(text, keys[i]); at; at = strstr(at + 1, keys[i])) {
            const char *value = at + key_len;
            bool begins = at == text || strchr(" \t\"\n", at[-1]);
            if (begins && strncmp(value, hex, sizeof hex - 1) == 0 &&
                strchr(" \t\"\n", value[sizeof hex - 1])) { /* or the end */
                return true;
            }
        }
    }
    return false;
}

/* As boot stubs hash a command line: the UTF-16 that firmware was given (Linux' EFI stub and
 * systemd-stub, with and without the final NUL), or the section .cmdline of a unified image. */
static bool is_digest_of(const struct verify_dmverity_boot *in, const struct verify_event *event,
                         size_t digest_len)
{
    uint8_t wide[2 * (VERIFY_TEXT_MAX + 1)] = {0};
    size_t n = strlen(in->command_line);
    if (n == 0 || n > VERIFY_TEXT_MAX) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        wide[2 * i] = (uint8_t)in->command_line[i];
    }
    const struct att_slice text = att_slice_str(in->command_line);
    const struct att_slice forms[][2] = {{{wide, 2 * n}, {0}},
                                         {{wide, 2 * n + 2}, {0}},
                                         {text, {0}},
                                         {text, ATT_SLICE("\n", 1)},
                                         {text, ATT_SLICE("", 1)}};
    const char *alg = parse_alg_openssl_name(in->quoted->pcrs->sel.bank);
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        uint8_t digest[ATT_HASH_MAX];
        size_t len = 0;
        if (att_hash_v(alg, digest, &len, forms[i], 2, NULL) == ATT_OK && len == digest_len &&
            memcmp(digest, event->digest, len) == 0) {
            return true;
        }
    }
    return false;
}

/* Does one variant say that an event with this root hash may be there? */
static bool variant_names(const struct verify_component *component,
                          const struct verify_variant *variant, const struct verify_event *event,
                          const struct verify_dmverity_boot *in, const uint8_t root[ATT_SHA256_LEN])
{
    struct verify_component only = *component;
    struct verify_variant copy = *variant;
    only.variants = &copy;
    only.n_variants = 1;
    if (variant->kind != VERIFY_VARIANT_DIGEST && variant->kind != VERIFY_VARIANT_TEXT &&
        !(variant->kind == VERIFY_VARIANT_PATTERN && names_root(variant->text, root))) {
        return false;
    }
    return verify_fit_of(&only, event, in->quoted->pcrs->digest_len, in->boot->now, NULL) ==
           VERIFY_FIT_ALLOWED;
}

static bool policy_names(const struct verify_policy *policy, const struct verify_event *event,
                         const struct verify_dmverity_boot *in, const uint8_t root[ATT_SHA256_LEN])
{
    if (policy->pcr_mask >> event->pcr & 1) {
        return true; /* by the PCR's value, and with it each event of it */
    }
    for (size_t i = 0; policy->format == 2 && i < policy->components.n; i++) {
        const struct verify_component *component = &policy->components.list[i];
        for (size_t k = 0; k < component->n_variants; k++) {
            if (variant_names(component, &component->variants[k], event, in, root)) {
                return true;
            }
        }
    }
    return false;
}

static bool found_nothing_of(const struct verify_verdict *verdict, unsigned pcr)
{
    for (size_t i = 0; i < verdict->n_findings; i++) {
        if (verdict->findings[i].pcr == pcr || verdict->findings[i].pcr >= PARSE_PCR_COUNT) {
            return false;
        }
    }
    return verdict->findings_left_out == 0;
}

/* 0: it does not name the root hash; 1: it does, and nobody answers for it; 2: it does. */
static int look(const struct verify_dmverity_boot *in, const struct verify_event *event,
                const uint8_t root[ATT_SHA256_LEN])
{
    bool says = event->covered && event->text && names_root(event->text, root);
    if (!says && (!names_root(in->command_line, root) ||
                  !is_digest_of(in, event, in->quoted->pcrs->digest_len))) {
        return 0;
    }
    return found_nothing_of(in->verdict, event->pcr) &&
                   policy_names(in->boot->policy, event, in, root)
               ? 2
               : 1;
}

static bool search(const struct verify_dmverity_boot *in, const struct verify_bootlog *log,
                   const uint8_t root[ATT_SHA256_LEN], char *ret_text, size_t text_size)
{
    char hex[2 * ATT_SHA256_LEN + 1];
    const struct verify_event *unanswered = NULL;
    att_hex(hex, ATT_SLICE(root, ATT_SHA256_LEN));
    for (size_t i = 0; !log->too_many && i < log->n; i++) {
        const struct verify_event *event = &log->list[i];
        int says = look(in, event, root);
        if (says == 2) {
            (void)snprintf(ret_text, text_size, "pcr%u event %zu", event->pcr, event->number);
            return true;
        }
        unanswered = says == 1 ? event : unanswered;
    }
    if (unanswered) {
        (void)snprintf(ret_text, text_size,
                       "pcr%u event %zu names root hash %s, and the boot policy does not name that "
                       "event by digest, text, or a pattern with the word in it, without a finding",
                       unanswered->pcr, unanswered->number, hex);
        return false;
    }
    (void)snprintf(ret_text, text_size,
                   "no event of the boot that is judged has roothash=%s or usrhash=… in its text",
                   hex);
    return false;
}

bool verify_dmverity_booted(const struct verify_dmverity_boot *in,
                            const uint8_t root[ATT_SHA256_LEN], char *ret_text, size_t text_size)
{
    const struct verify_policy *policy = in->boot->policy;
    const struct evidence_log *firmware = evidence_logs_find(in->quoted->logs, "firmware"),
                              *systemd = in->boot->logs & VERIFY_LOG_SYSTEMD
                                             ? evidence_logs_find(in->quoted->logs, "systemd")
                                             : NULL;
    if (in->boot->boot_none || !policy || !(in->boot->logs & VERIFY_LOG_FIRMWARE) || !firmware) {
        (void)snprintf(ret_text, text_size, "no boot policy judges the firmware's log");
        return false;
    }
    att_autobuf room = {0};
    struct att_slice bytes =
        systemd ? verify_step_whole(systemd, &room) : (struct att_slice){NULL, 0};
    bytes.len = bytes.len < in->systemd_used ? bytes.len : in->systemd_used;
    uint32_t judged =
        policy->format == 2 ? in->quoted->pcrs->sel.mask & ~policy->unjudged : policy->pcr_mask;
    struct verify_bootlog log = {0};
    const struct verify_bootlog_in what = {.bank = in->quoted->pcrs->sel.bank,
                                           .pcr_mask = judged & in->quoted->pcrs->sel.mask,
                                           .firmware = att_buf_slice(&firmware->data),
                                           .systemd = bytes};
    struct att_err err = {0};
    if (att_buf_ok(&room, &err) || verify_bootlog_read(&what, &log, &err)) {
        (void)snprintf(ret_text, text_size, "the boot's events: %s", err.msg);
        return false;
    }
    bool found = search(in, &log, root, ret_text, text_size);
    verify_bootlog_done(&log);
    return found;
}
