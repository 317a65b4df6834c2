/* When what is due. Pure arithmetic over times that the caller read; random numbers come from the
 * caller as 32 bits, so that tests can walk the whole range.
 *
 * Two clocks. CLOCK_BOOTTIME runs the timers: it never jumps. The wall clock says what certificates
 * mean; it may jump. A certificate counts as expired as soon as either clock says so, and a renewal
 * as due as soon as either clock says so: so a jump forward never lets an expired certificate be
 * served, and a jump backward never stops renewing. */
#ifndef ATTESTD_AGENT_SCHED_H
#define ATTESTD_AGENT_SCHED_H

#include "attestd/base/err.h"

#include <stdbool.h>
#include <stdint.h>

/* A certificate's dates and the moment, on both clocks, when it was installed. boot_id tells boots
 * apart (the kernel's UUID); boot_ms means nothing in another boot. */
struct agent_dates {
    int64_t not_before, not_after; /* UTC seconds; not_after 0: no certificate */
    int64_t installed_at;          /* UTC seconds */
    int64_t installed_boot_ms;     /* CLOCK_BOOTTIME */
    int64_t renew_at;              /* UTC seconds */
    bool same_boot;                /* installed_boot_ms belongs to this boot */
    /* From another server than an attest-issuerd: notBefore may be the very moment of issuing. Not
     * on disk. */
    bool not_backdated;
};

/* Half of the lifetime ± 10 % (45 to 55 % of it). slot of slots (slot < slots, slots ≥ 1) places
 * the agents of a host evenly over that range, and random moves each within its own part, so that a
 * hundred agents issued in the same second never renew in the same second. */
int64_t agent_sched_renew_at(int64_t not_before, int64_t not_after, uint32_t slot, uint32_t slots,
                             uint32_t random);
/* The last moment at which a renewal may start so as to be done in time: not_after less ten times
 * what the TPM needs at its measured p95 (µs, sum over one renewal) for each agent that may wait in
 * front of it, and never less than 30 s or more than a third of the lifetime before the end. */
int64_t agent_sched_latest_start(int64_t not_before, int64_t not_after, int64_t tpm_p95_us,
                                 uint32_t agents);

struct agent_now {
    int64_t utc_s, boot_ms;
};

/* Either clock says that the certificate is over. Where neither can tell (another boot, and a wall
 * clock before the installation) it counts as over, and so does no certificate. */
bool agent_sched_expired(const struct agent_dates *dates, struct agent_now now);
/* Either clock says that the renewal time has come; or the wall clock is before the installation.
 */
bool agent_sched_due(const struct agent_dates *dates, struct agent_now now);
/* When the certificate is over, on CLOCK_BOOTTIME: as agent_sched_expired sees it in the boot of
 * its installation; in another boot what is left of it by the wall clock, which is not believed to
 * be before the installation. 0 when it is over now. */
int64_t agent_sched_end_boot_ms(const struct agent_dates *dates, struct agent_now now);
/* Milliseconds until due or expired, whichever is first, on the clock that comes first; 0 when it
 * is now. At most one day, so that the caller looks again. */
int64_t agent_sched_wait_ms(const struct agent_dates *dates, struct agent_now now);

/* Full jitter between half and whole of min(cap, base·2^attempt). attempt counts from 0. */
int64_t agent_sched_backoff_ms(uint32_t attempt, int64_t base_ms, int64_t cap_ms, uint32_t random);

/* Wall-clock jumps: what the wall clock moved more than CLOCK_BOOTTIME since the last look, in ms;
 * 0 for less than 2 s. The first look only remembers. */
struct agent_clock {
    int64_t utc_ms, boot_ms;
    bool started;
};
int64_t agent_clock_observe(struct agent_clock *clock, int64_t utc_ms, int64_t boot_ms);

#endif
