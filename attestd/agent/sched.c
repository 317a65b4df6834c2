#include "attestd/agent/sched.h"

#define DAY_MS        ((int64_t)86400000)
#define BACKDATE_S    60
#define JUMP_LEAST_MS 2000

int64_t agent_sched_renew_at(int64_t not_before, int64_t not_after, uint32_t slot, uint32_t slots,
                             uint32_t random)
{
    int64_t life_ms = (not_after - not_before) * 1000;
    if (life_ms <= 0) {
        return not_before;
    }
    if (slots == 0) {
        slots = 1;
    }
    /* From 45 % to 55 % of the lifetime. */
    int64_t width = life_ms / 10;
    int64_t part = width / slots;
    int64_t at =
        life_ms * 45 / 100 + part * (slot % slots) + (int64_t)(((uint64_t)part * random) >> 32);
    return not_before + at / 1000;
}

int64_t agent_sched_latest_start(int64_t not_before, int64_t not_after, int64_t tpm_p95_us,
                                 uint32_t agents)
{
    int64_t life_s = not_after - not_before;
    int64_t margin_s = tpm_p95_us > 0 ? (tpm_p95_us / 1000 * 10 * agents) / 1000 : 0;
    if (margin_s < 30) {
        margin_s = 30;
    }
    if (margin_s > life_s / 3) {
        margin_s = life_s / 3;
    }
    return not_after - margin_s;
}

/* A moment of the certificate's dates on the timers' clock. A certificate is installed fresh, so at
 * installation it was at least its notBefore plus the issuer's backdating; a wall clock that was
 * behind that then is not believed. */
static int64_t boot_of(const struct agent_dates *dates, int64_t at)
{
    int64_t fresh = dates->not_before + (dates->not_backdated ? 0 : BACKDATE_S);
    int64_t ref = dates->installed_at > fresh ? dates->installed_at : fresh;
    return dates->installed_boot_ms + (at - ref) * 1000;
}

/* The wall clock is behind the installation by more than a correction. */
static bool went_back(const struct agent_dates *dates, struct agent_now now)
{
    return now.utc_s < dates->installed_at - BACKDATE_S;
}

bool agent_sched_expired(const struct agent_dates *dates, struct agent_now now)
{
    if (dates->not_after == 0) {
        return true;
    }
    if (now.utc_s >= dates->not_after) {
        return true;
    }
    if (!dates->same_boot) {
        return went_back(dates, now);
    }
    return now.boot_ms >= boot_of(dates, dates->not_after);
}

bool agent_sched_due(const struct agent_dates *dates, struct agent_now now)
{
    if (dates->not_after == 0 || now.utc_s >= dates->renew_at) {
        return true;
    }
    if (went_back(dates, now)) {
        return true;
    }
    return dates->same_boot && now.boot_ms >= boot_of(dates, dates->renew_at);
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

int64_t agent_sched_end_boot_ms(const struct agent_dates *dates, struct agent_now now)
{
    int64_t utc_s = now.utc_s > dates->installed_at ? now.utc_s : dates->installed_at;
    if (dates->not_after == 0 || utc_s >= dates->not_after) {
        return 0;
    }
    int64_t end = now.boot_ms + (dates->not_after - utc_s) * 1000;
    if (dates->same_boot) {
        end = least(end, boot_of(dates, dates->not_after));
    }
    return end > now.boot_ms ? end : 0;
}

int64_t agent_sched_wait_ms(const struct agent_dates *dates, struct agent_now now)
{
    if (agent_sched_expired(dates, now) || agent_sched_due(dates, now)) {
        return 0;
    }
    int64_t at = least(dates->renew_at, dates->not_after);
    int64_t wait = least((at - now.utc_s) * 1000, DAY_MS);
    if (dates->same_boot) {
        wait = least(wait, boot_of(dates, at) - now.boot_ms);
    }
    return wait < 0 ? 0 : wait;
}

int64_t agent_sched_backoff_ms(uint32_t attempt, int64_t base_ms, int64_t cap_ms, uint32_t random)
{
    int64_t wait = base_ms;
    while (attempt > 0 && wait < cap_ms) {
        wait *= 2;
        attempt--;
    }
    wait = least(wait, cap_ms);
    int64_t half = wait / 2;
    return wait - half + (int64_t)(((uint64_t)half * random) >> 32);
}

int64_t agent_clock_observe(struct agent_clock *clock, int64_t utc_ms, int64_t boot_ms)
{
    int64_t jump = clock->started ? (utc_ms - clock->utc_ms) - (boot_ms - clock->boot_ms) : 0;
    *clock = (struct agent_clock){.utc_ms = utc_ms, .boot_ms = boot_ms, .started = true};
    return jump > -JUMP_LEAST_MS && jump < JUMP_LEAST_MS ? 0 : jump;
}
