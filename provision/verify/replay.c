/* Do the logs account for the quoted PCRs? One after the other, each from where the one before left
 * the PCRs: firmware, systemd's user space, IMA. */
#include "provision/verify/steps.h"

#include "attestd/base/enc.h"
#include "tpm/parse/eventlog.h"
#include "tpm/parse/ima.h"
#include "tpm/parse/systemd.h"

#include <stdio.h>
#include <string.h>

struct replay {
    const struct parse_pcr_set *quoted;
    struct verify_verdict *verdict;
    struct parse_eventlog_pcrs firmware;
    uint8_t value[PARSE_PCR_COUNT][PARSE_DIGEST_MAX];
    struct {
        const char *log, *item; /* who measured last: "firmware", "event"; NULL: nobody */
        size_t number;
    } last[PARSE_PCR_COUNT];
    size_t n_events, n_records, n_entries, n_violations;
    size_t systemd_used, ima_used;
};

static bool fail_log(struct replay *r, const char *log, const struct att_err *err)
{
    verify_fail(r->verdict, VERIFY_REASON_LOG_REPLAY, "%s log: %s", log, err->msg);
    return false;
}

static void take(struct replay *r, const char *log, const char *item, uint32_t mask,
                 const uint8_t value[][PARSE_DIGEST_MAX], const size_t *last)
{
    for (unsigned pcr = 0; pcr < PARSE_PCR_COUNT; pcr++) {
        memcpy(r->value[pcr], value[pcr], sizeof(r->value[pcr]));
        if (mask >> pcr & 1) {
            r->last[pcr].log = log;
            r->last[pcr].item = item;
            r->last[pcr].number = last[pcr];
        }
    }
}

struct att_slice verify_step_whole(const struct evidence_log *log, struct att_buf *room)
{
    if (log->tail.len == 0) {
        return att_buf_slice(&log->data);
    }
    *room = ATT_BUF_INIT(EVIDENCE_LOG_MAX + EVIDENCE_TAIL_MAX);
    att_buf_put_slice(room, att_buf_slice(&log->data));
    att_buf_put_slice(room, att_buf_slice(&log->tail));
    return att_buf_slice(room);
}

static bool replay_firmware(struct replay *r, const struct evidence_log *log)
{
    struct att_err err = {0};
    if (parse_eventlog_replay(att_buf_slice(&log->data), r->quoted->sel.bank, &r->firmware, &err)) {
        return fail_log(r, "firmware", &err);
    }
    take(r, "firmware", "event", r->firmware.with_events, r->firmware.value,
         r->firmware.last_event);
    r->n_events = r->firmware.n_events;
    return true;
}

static bool replay_systemd(struct replay *r, const struct evidence_log *log)
{
    att_autobuf room = {0};
    struct att_slice bytes = verify_step_whole(log, &room);
    struct parse_systemd_pcrs pcrs;
    struct parse_systemd_replay how = {.bank = r->quoted->sel.bank,
                                       .start = (const uint8_t(*)[PARSE_DIGEST_MAX])r->value,
                                       .at_least = log->data.len,
                                       .until = r->quoted,
                                       .mask = r->quoted->sel.mask & ~VERIFY_PCRS_IMA};
    struct att_err err = {0};
    if (att_buf_ok(&room, &err) || parse_systemd_replay(bytes, &how, &pcrs, &err)) {
        return fail_log(r, "systemd", &err);
    }
    take(r, "systemd", "record", pcrs.with_records, pcrs.value, pcrs.last_record);
    r->n_records = pcrs.n_records;
    r->systemd_used = pcrs.used;
    return true;
}

/* ---- IMA ------------------------------------------------------------------------------------- */

/* ima_calc_boot_aggregate: PCR 0-9 of the bank whose hash it has, of SHA-1 PCR 0-7; 0-7 for all
 * before Linux 5.9. */
static bool is_aggregate(const struct parse_eventlog_pcrs *pcrs, unsigned n,
                         struct att_slice digest)
{
    struct att_slice parts[10];
    uint8_t hash[ATT_HASH_MAX];
    size_t len = 0;
    for (unsigned pcr = 0; pcr < n; pcr++) {
        parts[pcr] = ATT_SLICE(pcrs->value[pcr], pcrs->digest_len);
    }
    return !att_hash_v(parse_alg_openssl_name(pcrs->bank), hash, &len, parts, n, NULL) &&
           att_slice_eq(ATT_SLICE(hash, len), digest);
}

static bool check_aggregate(struct replay *r, const struct parse_ima_entry *entry,
                            struct att_slice firmware)
{
    struct parse_eventlog_pcrs pcrs = r->firmware;
    uint16_t bank = parse_alg_by_name(entry->alg);
    struct att_err err = {0};
    if (entry->violation || !att_slice_eq_str(entry->name, "boot_aggregate")) {
        verify_fail(r->verdict, VERIFY_REASON_LOG_REPLAY,
                    "ima log: pcr10 entry 0 is \"%.*s\"%s, expected boot_aggregate",
                    (int)(entry->name.len < 80 ? entry->name.len : 80),
                    (const char *)entry->name.ptr, entry->violation ? " (a violation)" : "");
        return false;
    }
    if (bank != pcrs.bank && parse_eventlog_replay(firmware, bank, &pcrs, &err)) {
        verify_fail(r->verdict, VERIFY_REASON_LOG_REPLAY,
                    "ima log: pcr10 entry 0: boot_aggregate is of bank %s: %s", entry->alg,
                    err.msg);
        return false;
    }
    if (!is_aggregate(&pcrs, 10, entry->file) && !is_aggregate(&pcrs, 8, entry->file)) {
        verify_fail(r->verdict, VERIFY_REASON_LOG_REPLAY,
                    "ima log: pcr10 entry 0: boot_aggregate is not of the PCRs 0-9 (%s) that the "
                    "firmware log leads to: a list of another boot, or measured without the TPM",
                    entry->alg);
        return false;
    }
    return true;
}

static bool check_first(struct replay *r, struct att_slice bytes, struct att_slice firmware)
{
    ATT_CLEANUP(parse_ima_done) struct parse_ima list = {0};
    struct parse_ima_entry first;
    struct att_err err = {0};
    if (parse_ima_init(&list, bytes, &err) || parse_ima_next(&list, &first, &err)) {
        return fail_log(r, "ima", &err);
    }
    return check_aggregate(r, &first, firmware);
}

static bool check_entries(struct replay *r, const struct parse_ima_pcrs *pcrs, bool violations)
{
    uint32_t others = pcrs->with_entries & ~VERIFY_PCRS_IMA;
    for (unsigned pcr = 0; others && pcr < PARSE_PCR_COUNT; pcr++) {
        if (others >> pcr & 1) {
            verify_fail(r->verdict, VERIFY_REASON_LOG_REPLAY,
                        "ima log: pcr%u entry %zu: expected entries of pcr10 only", pcr,
                        pcrs->last_entry[pcr]);
            return false;
        }
    }
    if (pcrs->n_violations && !violations) {
        verify_fail(r->verdict, VERIFY_REASON_LOG_REPLAY,
                    "ima log: pcr10 entry %zu is a violation (%zu in all): what was measured is "
                    "unknown, and no boot policy says imaViolations: allow",
                    pcrs->first_violation, pcrs->n_violations);
        return false;
    }
    return true;
}

/* PCR 10 starts with the list. Events of it in the firmware log would stand for entries that are
 * not shown: their types' digests are of nothing that is in the log, and who can extend the PCR can
 * write a second boot_aggregate behind what he wants to hide. */
static bool check_start(struct replay *r)
{
    if (!(r->firmware.with_events & VERIFY_PCRS_IMA)) {
        return true;
    }
    verify_fail(r->verdict, VERIFY_REASON_LOG_REPLAY,
                "pcr%u event %zu of the firmware log: only IMA measures into it", PARSE_IMA_PCR,
                r->firmware.last_event[PARSE_IMA_PCR]);
    return false;
}

/* The signed part: all of it, or from where a replay of what it begins with has led. */
static enum att_rc replay_signed(struct replay *r, const struct evidence_log *log,
                                 struct att_slice bytes, struct verify_memo *memo,
                                 struct parse_ima_pcrs *ret_pcrs, struct att_err *err)
{
    struct parse_ima_pcrs known;
    const uint8_t *start = r->value[PARSE_IMA_PCR];
    struct parse_ima_replay how = {.bank = r->quoted->sel.bank,
                                   .start = (const uint8_t(*)[PARSE_DIGEST_MAX])r->value,
                                   .at_least = log->data.len};
    if (verify_memo_get(memo, log->sha256, how.bank, start, &known) ||
        (log->has_base && verify_memo_get(memo, log->base_sha256, how.bank, start, &known))) {
        how.after = known.used <= log->data.len ? &known : NULL;
    }
    enum att_rc rc = parse_ima_replay(bytes, &how, ret_pcrs, err);
    /* Of other PCRs it would depend on more than PCR 10's start. */
    if (rc == ATT_OK && !(ret_pcrs->with_entries & ~VERIFY_PCRS_IMA)) {
        verify_memo_put(memo, log->sha256, start, ret_pcrs);
    }
    return rc;
}

static bool replay_ima(struct replay *r, const struct evidence_log *log, struct att_slice firmware,
                       const struct verify_logs_wanted *wanted)
{
    att_autobuf room = {0};
    struct att_slice bytes = verify_step_whole(log, &room);
    struct parse_ima_pcrs signed_part, pcrs;
    struct parse_ima_replay how = {.bank = r->quoted->sel.bank,
                                   .after = &signed_part,
                                   .at_least = log->data.len,
                                   .until = r->quoted->value[PARSE_IMA_PCR]};
    struct att_err err = {0};
    if (att_buf_ok(&room, &err)) {
        return fail_log(r, "ima", &err);
    }
    if (!check_start(r) || !check_first(r, bytes, firmware)) {
        return false;
    }
    if (replay_signed(r, log, bytes, wanted->memo, &signed_part, &err) ||
        parse_ima_replay(bytes, &how, &pcrs, &err)) {
        return fail_log(r, "ima", &err);
    }
    memcpy(r->value[PARSE_IMA_PCR], pcrs.value[PARSE_IMA_PCR], sizeof(r->value[PARSE_IMA_PCR]));
    r->last[PARSE_IMA_PCR].log = "ima";
    r->last[PARSE_IMA_PCR].item = "entry";
    r->last[PARSE_IMA_PCR].number = pcrs.last_entry[PARSE_IMA_PCR];
    r->n_entries = pcrs.n_entries;
    r->n_violations = pcrs.n_violations;
    r->ima_used = pcrs.used;
    return check_entries(r, &pcrs, wanted->violations_allowed);
}

/* ---- the comparison -------------------------------------------------------------------------- */

/* The first 8 bytes of each say which is which. */
static void mismatch(struct replay *r, unsigned pcr)
{
    char ours[17], theirs[17];
    att_hex(ours, ATT_SLICE(r->value[pcr], 8));
    att_hex(theirs, ATT_SLICE(r->quoted->value[pcr], 8));
    if (r->last[pcr].log) {
        verify_fail(r->verdict, VERIFY_REASON_LOG_REPLAY,
                    "pcr%u %s %zu of the %s log: after this, the last, the logs replay to %s…, the "
                    "quote has %s…",
                    pcr, r->last[pcr].item, r->last[pcr].number, r->last[pcr].log, ours, theirs);
    } else {
        verify_fail(r->verdict, VERIFY_REASON_LOG_REPLAY,
                    "pcr%u: no log has an event of it, so %s… is expected, the quote has %s…", pcr,
                    ours, theirs);
    }
}

static bool compare(struct replay *r, unsigned *ret_n)
{
    bool good = r->quoted->sel.mask != 0;
    for (unsigned pcr = 0; pcr < PARSE_PCR_COUNT; pcr++) {
        if (!(r->quoted->sel.mask >> pcr & 1)) {
            continue;
        }
        ++*ret_n;
        if (memcmp(r->value[pcr], r->quoted->value[pcr], r->quoted->digest_len) != 0) {
            mismatch(r, pcr);
            good = false;
        }
    }
    return good;
}

static void pass(struct replay *r, uint32_t wanted, unsigned n)
{
    char more[256] = "", violations[64] = "";
    if (r->n_violations) {
        (void)snprintf(violations, sizeof(violations), " (%zu of them violations, allowed)",
                       r->n_violations);
    }
    if (wanted & ~VERIFY_LOG_FIRMWARE) {
        (void)snprintf(more, sizeof(more), ", %zu records of systemd's and %zu entries of IMA's%s",
                       r->n_records, r->n_entries, violations);
    }
    verify_pass(r->verdict, VERIFY_REASON_LOG_REPLAY,
                "%zu events of the firmware log%s account for the %u quoted PCRs", r->n_events,
                more, n);
}

void verify_step_replay(const struct verify_logs_wanted *wanted, const struct parse_pcr_set *quoted,
                        const struct evidence_logs *logs, struct verify_verdict *verdict)
{
    struct replay r = {.quoted = quoted, .verdict = verdict};
    unsigned n = 0;
    const struct evidence_log *firmware = evidence_logs_find(logs, "firmware");
    if (!replay_firmware(&r, firmware) ||
        ((wanted->logs & VERIFY_LOG_SYSTEMD) &&
         !replay_systemd(&r, evidence_logs_find(logs, "systemd"))) ||
        ((wanted->logs & VERIFY_LOG_IMA) && !replay_ima(&r, evidence_logs_find(logs, "ima"),
                                                        att_buf_slice(&firmware->data), wanted))) {
        return;
    }
    if (wanted->ret_replayed) {
        wanted->ret_replayed->systemd_used = r.systemd_used;
        wanted->ret_replayed->ima_used = r.ima_used;
    }
    if (compare(&r, &n)) {
        pass(&r, wanted->logs, n);
    }
}
