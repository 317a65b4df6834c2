#include "attestd/agent/sched.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define T0   ((int64_t)1800000000)
#define HOUR 3600
#define DAY  86400

/* Installed one minute after notBefore (the issuer's backdating), for an hour, at boot second 1000.
 */
static struct agent_dates fresh(void)
{
    return (struct agent_dates){.not_before = T0 - 60,
                                .not_after = T0 + HOUR,
                                .installed_at = T0,
                                .installed_boot_ms = 1000000,
                                .renew_at = T0 + HOUR / 2,
                                .same_boot = true};
}

static struct agent_now at(int64_t wall_s, int64_t boot_s)
{
    return (struct agent_now){.utc_s = T0 + wall_s, .boot_ms = (1000 + boot_s) * 1000};
}

static void test_expired_by_either_clock(void **state)
{
    (void)state;
    struct agent_dates d = fresh();
    assert_false(agent_sched_expired(&d, at(HOUR - 1, HOUR - 1)));
    assert_true(agent_sched_expired(&d, at(HOUR, HOUR - 1)));
    assert_true(agent_sched_expired(&d, at(HOUR - 1, HOUR)));
    d.not_after = 0;
    assert_true(agent_sched_expired(&d, at(0, 0)));
}

static void test_clock_a_day_ahead(void **state)
{
    (void)state;
    struct agent_dates d = fresh();
    assert_true(agent_sched_expired(&d, at(DAY + 60, 60)));
    assert_int_equal(agent_sched_wait_ms(&d, at(DAY + 60, 60)), 0);
}

/* The wall clock goes back a day: not served a second longer than an hour, and renewed. */
static void test_clock_a_day_back(void **state)
{
    (void)state;
    struct agent_dates d = fresh();
    assert_true(agent_sched_due(&d, at(-DAY + 60, 60)));
    assert_false(agent_sched_expired(&d, at(-DAY + 60, 60)));
    assert_true(agent_sched_expired(&d, at(-DAY + HOUR, HOUR)));
    assert_int_equal(agent_sched_wait_ms(&d, at(-DAY + 60, 60)), 0);
}

/* A small correction backwards is no reason to renew. */
static void test_small_correction(void **state)
{
    (void)state;
    struct agent_dates d = fresh();
    assert_false(agent_sched_due(&d, at(-30, 60)));
    assert_true(agent_sched_due(&d, at(-61, 60)));
}

/* Installed while the wall clock was a day behind: half of its life passes on the timers' clock. */
static void test_installed_with_clock_behind(void **state)
{
    (void)state;
    struct agent_dates d = fresh();
    d.installed_at = T0 - DAY;
    assert_false(agent_sched_due(&d, at(-DAY + 60, 60)));
    assert_true(agent_sched_due(&d, at(-DAY + HOUR / 2, HOUR / 2)));
    assert_true(agent_sched_expired(&d, at(-DAY + HOUR, HOUR)));
}

/* Another boot: only the wall clock can tell, and one before the installation cannot. */
static void test_other_boot(void **state)
{
    (void)state;
    struct agent_dates d = fresh();
    d.same_boot = false;
    assert_false(agent_sched_expired(&d, (struct agent_now){T0 + 60, 5000}));
    assert_false(agent_sched_due(&d, (struct agent_now){T0 + 60, 999999999}));
    assert_true(agent_sched_expired(&d, (struct agent_now){T0 - DAY, 5000}));
    assert_true(agent_sched_expired(&d, (struct agent_now){T0 + HOUR, 5000}));
}

static void test_wait(void **state)
{
    (void)state;
    struct agent_dates d = fresh();
    assert_int_equal(agent_sched_wait_ms(&d, at(60, 60)), (HOUR / 2 - 60) * 1000);
    /* The clock that comes first. */
    assert_int_equal(agent_sched_wait_ms(&d, at(100, 60)), (HOUR / 2 - 100) * 1000);
    assert_int_equal(agent_sched_wait_ms(&d, at(60, 100)), (HOUR / 2 - 100) * 1000);
    assert_int_equal(agent_sched_wait_ms(&d, at(HOUR / 2, 60)), 0);
    d.renew_at = T0 + 40 * DAY;
    d.not_after = T0 + 90 * DAY;
    assert_int_equal(agent_sched_wait_ms(&d, at(60, 60)), (int64_t)DAY * 1000);
}

static void test_renew_at_bounds(void **state)
{
    (void)state;
    const uint32_t randoms[] = {0, 1, UINT32_MAX / 2, UINT32_MAX};
    for (size_t i = 0; i < 4; i++) {
        for (uint32_t slot = 0; slot < 7; slot++) {
            int64_t when = agent_sched_renew_at(T0, T0 + 1000, slot, 7, randoms[i]);
            assert_in_range((uintmax_t)when, (uintmax_t)(T0 + 449), (uintmax_t)(T0 + 550));
        }
    }
    assert_int_equal(agent_sched_renew_at(T0, T0 + 1000, 0, 1, 0), T0 + 450);
    assert_int_equal(agent_sched_renew_at(T0, T0 + 1000, 0, 1, UINT32_MAX), T0 + 549);
    assert_int_equal(agent_sched_renew_at(T0, T0, 0, 1, 5), T0);
    /* slots 0 and a slot beyond do not divide by zero or leave the range */
    assert_in_range((uintmax_t)agent_sched_renew_at(T0, T0 + 1000, 9, 0, 0), (uintmax_t)(T0 + 450),
                    (uintmax_t)(T0 + 550));
}

/* A hundred agents issued in the same second for an hour: in no second more than one. */
static void test_hundred_agents_are_spread(void **state)
{
    (void)state;
    int64_t last = 0;
    for (uint32_t slot = 0; slot < 100; slot++) {
        uint32_t random = slot * 2654435761U;
        int64_t when = agent_sched_renew_at(T0, T0 + 2 * HOUR, slot, 100, random);
        assert_true(when > last);
        last = when;
    }
}

static void test_latest_start(void **state)
{
    (void)state;
    /* Ten times 0.5 s for each of 12 agents. */
    assert_int_equal(agent_sched_latest_start(T0, T0 + HOUR, 500000, 12), T0 + HOUR - 60);
    /* Never less than half a minute, never more than a third of the lifetime. */
    assert_int_equal(agent_sched_latest_start(T0, T0 + HOUR, 0, 1), T0 + HOUR - 30);
    assert_int_equal(agent_sched_latest_start(T0, T0 + HOUR, 2000000, 1000), T0 + HOUR - 1200);
    assert_int_equal(agent_sched_latest_start(T0, T0 + 60, 0, 1), T0 + 40);
}

static void test_backoff(void **state)
{
    (void)state;
    assert_int_equal(agent_sched_backoff_ms(0, 1000, 60000, 0), 500);
    assert_int_equal(agent_sched_backoff_ms(0, 1000, 60000, UINT32_MAX), 999);
    assert_int_equal(agent_sched_backoff_ms(3, 1000, 60000, 0), 4000);
    for (uint32_t attempt = 6; attempt < 4000000; attempt = attempt * 3 + 1) {
        int64_t wait = agent_sched_backoff_ms(attempt, 1000, 60000, attempt * 77777U);
        assert_in_range((uintmax_t)wait, 30000, 60000);
    }
    assert_in_range((uintmax_t)agent_sched_backoff_ms(UINT32_MAX, 1, INT64_MAX / 4, 9), 1,
                    (uintmax_t)INT64_MAX / 4);
}

static void test_clock_jump(void **state)
{
    (void)state;
    struct agent_clock clock = {0};
    assert_int_equal(agent_clock_observe(&clock, 5000000, 1000), 0);
    assert_int_equal(agent_clock_observe(&clock, 5010000, 11000), 0);
    assert_int_equal(agent_clock_observe(&clock, 5021999, 21000), 0); /* 1,999 ms: slewing */
    assert_int_equal(agent_clock_observe(&clock, 5023000 + 86400000, 22001), 86400000);
    assert_int_equal(agent_clock_observe(&clock, 5024000, 23001), -86400000);
    assert_int_equal(agent_clock_observe(&clock, 5025000, 24001), 0);
}

/* Another server need not backdate: its certificate is not due, nor over, a minute early. */
static void test_not_backdated(void **state)
{
    (void)state;
    struct agent_dates dates = {.not_before = 1000000,
                                .not_after = 1000090,
                                .installed_at = 1000001,
                                .installed_boot_ms = 5000,
                                .renew_at = 1000045,
                                .same_boot = true,
                                .not_backdated = true};
    struct agent_now now = {.utc_s = 1000002, .boot_ms = 6000};
    assert_false(agent_sched_due(&dates, now));
    assert_false(agent_sched_expired(&dates, now));
    assert_int_equal(agent_sched_wait_ms(&dates, now), 43000);
    now = (struct agent_now){.utc_s = 1000046, .boot_ms = 50000};
    assert_true(agent_sched_due(&dates, now));
    assert_false(agent_sched_expired(&dates, now));
    now.boot_ms = 5000 + 90000; /* also with a wall clock that stands */
    assert_true(agent_sched_expired(&dates, now));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_not_backdated),
        cmocka_unit_test(test_expired_by_either_clock),
        cmocka_unit_test(test_clock_a_day_ahead),
        cmocka_unit_test(test_clock_a_day_back),
        cmocka_unit_test(test_small_correction),
        cmocka_unit_test(test_installed_with_clock_behind),
        cmocka_unit_test(test_other_boot),
        cmocka_unit_test(test_wait),
        cmocka_unit_test(test_renew_at_bounds),
        cmocka_unit_test(test_hundred_agents_are_spread),
        cmocka_unit_test(test_latest_start),
        cmocka_unit_test(test_backoff),
        cmocka_unit_test(test_clock_jump),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
