#include "provision/verify/steps.h"

#include <inttypes.h>

/* resetCount and restartCount are judged as a pair: restartCount falls to 0 at a reboot. TCG TPM
 * 2.0 Part 1, clause 36 (timing components). */
enum change {
    CHANGE_NONE,
    CHANGE_RESUMED,  /* suspend or hibernation; only the PCRs tell which */
    CHANGE_REBOOTED, /* the clock may have gone back then, after loss of power */
    CHANGE_CLEARED,  /* TPM2_Clear: all counters start again */
    CHANGE_BACK,     /* a clone, or an old statement */
};

static enum change change_between(const struct verify_clock *before, const struct verify_clock *now)
{
    if (now->reset_count < before->reset_count ||
        (now->reset_count == 0 && before->reset_count == 0 && now->clock_ms < before->clock_ms)) {
        return CHANGE_CLEARED;
    }
    if (now->reset_count > before->reset_count) {
        return CHANGE_REBOOTED;
    }
    if (now->restart_count < before->restart_count || now->clock_ms < before->clock_ms) {
        return CHANGE_BACK;
    }
    return now->restart_count > before->restart_count ? CHANGE_RESUMED : CHANGE_NONE;
}

struct verify_clock verify_clock_of(const struct parse_attest *attest)
{
    return (struct verify_clock){.clock_ms = attest->clock.clock,
                                 .reset_count = attest->clock.reset_count,
                                 .restart_count = attest->clock.restart_count,
                                 .safe = attest->clock.safe != 0,
                                 .firmware_version = attest->firmware_version};
}

#define CLOCK_FMT                                                                                  \
    "resetCount %" PRIu32 ", restartCount %" PRIu32 ", clock %" PRIu64 " ms before; now %" PRIu32  \
    ", %" PRIu32 ", %" PRIu64 " ms"
#define CLOCK_ARGS(before, now)                                                                    \
    (before)->reset_count, (before)->restart_count, (before)->clock_ms, (now)->reset_count,        \
        (now)->restart_count, (now)->clock_ms

bool verify_step_clock(const struct verify_clock *previous, const char *why_skipped,
                       const struct verify_clock *now, struct verify_verdict *verdict)
{
    if (!previous) {
        verify_skip(verdict, VERIFY_REASON_TPM_CLEARED, "%s", why_skipped);
        verify_skip(verdict, VERIFY_REASON_CLOCK_ROLLBACK, "%s", why_skipped);
        return true;
    }
    enum change change = change_between(previous, now);
    if (change == CHANGE_CLEARED) {
        verify_fail(verdict, VERIFY_REASON_TPM_CLEARED, "the TPM was cleared: " CLOCK_FMT,
                    CLOCK_ARGS(previous, now));
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_TPM_CLEARED, CLOCK_FMT, CLOCK_ARGS(previous, now));
    if (change == CHANGE_BACK) {
        verify_fail(verdict, VERIFY_REASON_CLOCK_ROLLBACK,
                    "the TPM's clock went back within one boot: " CLOCK_FMT,
                    CLOCK_ARGS(previous, now));
        return false;
    }
    static const char *const words[] = {
        [CHANGE_NONE] = "same boot",
        [CHANGE_RESUMED] = "resumed from suspend or hibernation; the PCRs tell which",
        [CHANGE_REBOOTED] = "rebooted",
    };
    verify_pass(verdict, VERIFY_REASON_CLOCK_ROLLBACK, "%s%s", words[change],
                now->safe ? "" : "; the TPM says that its clock may be behind (safe is 0)");
    return true;
}
