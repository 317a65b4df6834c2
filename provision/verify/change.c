/* What happened to the TPM between two statements. */
#include "provision/verify/quote.h"

#include "tpm/parse/eventlog.h"
#include "tpm/parse/ima.h"
#include "tpm/parse/systemd.h"

#include <string.h>

const char *verify_change_word(enum verify_change change)
{
    static const char *const words[] = {
        [VERIFY_CHANGE_FIRST] = "first",         [VERIFY_CHANGE_SAME_BOOT] = "sameBoot",
        [VERIFY_CHANGE_RESUMED] = "resumed",     [VERIFY_CHANGE_HIBERNATED] = "hibernated",
        [VERIFY_CHANGE_RESTARTED] = "restarted", [VERIFY_CHANGE_REBOOTED] = "rebooted",
    };
    return words[change];
}

/* PCRs of both quotes whose values differ. */
static uint32_t differing(const struct parse_pcr_set *before, const struct parse_pcr_set *now)
{
    uint32_t mask = 0;
    for (unsigned i = 0; i < PARSE_PCR_COUNT; i++) {
        uint32_t bit = 1U << i;
        if ((before->sel.mask & now->sel.mask & bit) &&
            memcmp(before->value[i], now->value[i], now->digest_len) != 0) {
            mask |= bit;
        }
    }
    return mask;
}

static const struct evidence_log *log_with_data(const struct verify_quoted *quoted,
                                                const char *name)
{
    const struct evidence_log *log = evidence_logs_find(quoted->logs, name);
    return log && log->has_data ? log : NULL;
}

/* Which of these PCRs IMA's list or systemd's log leads through, from where the firmware log ends.
 */
static uint32_t passed_later(const struct parse_pcr_set *before, const struct verify_quoted *quoted,
                             uint32_t differ, struct att_slice firmware)
{
    const struct evidence_log *ima = log_with_data(quoted, "ima");
    const struct evidence_log *systemd = log_with_data(quoted, "systemd");
    struct parse_eventlog_pcrs start;
    uint32_t passed = 0;
    if (parse_eventlog_replay(firmware, before->sel.bank, &start, NULL)) {
        return 0;
    }
    for (unsigned pcr = 0; systemd && pcr < PARSE_PCR_COUNT; pcr++) {
        struct parse_systemd_pcrs pcrs;
        uint32_t bit = differ & VERIFY_PCRS_SYSTEMD & 1U << pcr;
        struct parse_systemd_replay how = {
            before->sel.bank, (const uint8_t(*)[PARSE_DIGEST_MAX])start.value, 0, before, bit};
        if (bit && !parse_systemd_replay(att_buf_slice(&systemd->data), &how, &pcrs, NULL) &&
            !memcmp(pcrs.value[pcr], before->value[pcr], pcrs.digest_len)) {
            passed |= bit;
        }
    }
    if (ima && (differ & VERIFY_PCRS_IMA)) {
        struct parse_ima_pcrs pcrs;
        struct parse_ima_replay how = {.bank = before->sel.bank,
                                       .start = (const uint8_t(*)[PARSE_DIGEST_MAX])start.value,
                                       .until = before->value[PARSE_IMA_PCR]};
        if (!parse_ima_replay(att_buf_slice(&ima->data), &how, &pcrs, NULL) &&
            !memcmp(pcrs.value[PARSE_IMA_PCR], before->value[PARSE_IMA_PCR], pcrs.digest_len)) {
            passed |= VERIFY_PCRS_IMA;
        }
    }
    return passed;
}

/* Resume or Restart. A value that an extend changed is one that the log passes through on its way
 * to the present one; after a Restart it is not, unless this boot measured the same and more, which
 * is then no other state of the PCRs than a resume's. */
static enum verify_change by_pcrs(const struct parse_pcr_set *before,
                                  const struct verify_quoted *quoted)
{
    const struct parse_pcr_set *now = quoted->pcrs;
    uint32_t passed = 0;
    if (!before || before->sel.bank != now->sel.bank || (now->sel.mask & ~before->sel.mask) != 0) {
        return VERIFY_CHANGE_RESTARTED;
    }
    uint32_t differ = differing(before, now);
    if (differ == 0) {
        return VERIFY_CHANGE_RESUMED;
    }
    const struct evidence_log *log = log_with_data(quoted, "firmware");
    if (!log || parse_eventlog_passes(att_buf_slice(&log->data), before, &passed, NULL)) {
        return VERIFY_CHANGE_RESTARTED;
    }
    if (differ & ~passed) {
        passed |= passed_later(before, quoted, differ & ~passed, att_buf_slice(&log->data));
    }
    return (differ & ~passed) == 0 ? VERIFY_CHANGE_RESUMED : VERIFY_CHANGE_HIBERNATED;
}

enum verify_change verify_change_since(const struct verify_clock *previous,
                                       const struct parse_pcr_set *before,
                                       const struct verify_clock *now,
                                       const struct verify_quoted *quoted)
{
    if (!previous) {
        return VERIFY_CHANGE_FIRST;
    }
    if (previous->reset_count != now->reset_count) {
        return VERIFY_CHANGE_REBOOTED;
    }
    return previous->restart_count == now->restart_count ? VERIFY_CHANGE_SAME_BOOT
                                                         : by_pcrs(before, quoted);
}
