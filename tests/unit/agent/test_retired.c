/* Replaced keys: how long they stay, how many, and which goes first. */
#include "attestd/agent/retired.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define T0   ((int64_t)1800000000)
#define HOUR 3600
#define DAY  86400

static struct agent_now at(int64_t wall_s, int64_t boot_s)
{
    return (struct agent_now){.utc_s = T0 + wall_s, .boot_ms = (1000 + boot_s) * 1000};
}

/* An agent whose certificate was installed at that moment, for an hour, in this boot. */
static void install(struct agent_record *rec, const char *key_id, int64_t when_s)
{
    snprintf(rec->key_id, sizeof(rec->key_id), "%s", key_id);
    rec->dates = (struct agent_dates){.not_before = T0 + when_s - 60,
                                      .not_after = T0 + when_s + HOUR,
                                      .installed_at = T0 + when_s,
                                      .installed_boot_ms = (1000 + when_s) * 1000,
                                      .renew_at = T0 + when_s + HOUR / 2,
                                      .same_boot = true};
}

static void rotate(struct agent_record *rec, const char *key_id, int64_t when_s)
{
    agent_retired_take(rec, at(when_s, when_s));
    install(rec, key_id, when_s);
}

static void test_first_key_replaces_none(void **state)
{
    (void)state;
    struct agent_record rec = {.name = "a"};
    rotate(&rec, "k1", 0);
    assert_int_equal(rec.n_retired, 0);
    assert_string_equal(rec.old_key_id, "");
    assert_true(agent_retired_wait_ms(&rec, at(0, 0)) == INT64_MAX);
    assert_null(agent_retired_over(&rec, at(DAY, DAY)));
    assert_false(agent_retired_drop(&rec, "k1"));
}

static void test_until_its_certificate_ends(void **state)
{
    (void)state;
    struct agent_record rec = {.name = "a"};
    rotate(&rec, "k1", 0);
    rotate(&rec, "k2", HOUR / 2);
    assert_int_equal(rec.n_retired, 1);
    assert_string_equal(rec.retired[0].key_id, "k1");
    assert_int_equal(rec.retired[0].not_after, T0 + HOUR);
    assert_string_equal(rec.old_key_id, "");
    assert_int_equal(agent_retired_wait_ms(&rec, at(HOUR / 2, HOUR / 2)), HOUR / 2 * 1000);
    assert_null(agent_retired_over(&rec, at(HOUR - 1, HOUR - 1)));
    const struct agent_retired *over = agent_retired_over(&rec, at(HOUR, HOUR));
    assert_non_null(over);
    assert_string_equal(over->key_id, "k1");
    assert_int_equal(agent_retired_wait_ms(&rec, at(HOUR, HOUR)), 0);
    assert_true(agent_retired_drop(&rec, "k1"));
    assert_int_equal(rec.n_retired, 0);
    struct agent_record none = {0};
    assert_memory_equal(rec.retired, none.retired, sizeof(rec.retired));
}

/* One clock alone ends it, and neither can keep it beyond the other. */
static void test_either_clock_ends_it(void **state)
{
    (void)state;
    struct agent_record rec = {.name = "a"};
    rotate(&rec, "k1", 0);
    rotate(&rec, "k2", HOUR / 2);
    assert_non_null(agent_retired_over(&rec, at(HOUR, HOUR / 2))); /* a wall clock ahead */
    assert_non_null(agent_retired_over(&rec, at(-DAY, HOUR)));     /* one that went back */
    assert_null(agent_retired_over(&rec, at(-DAY, HOUR - 1)));
    assert_int_equal(agent_retired_wait_ms(&rec, at(-DAY, HOUR - 1)), 1000);
    assert_int_equal(agent_retired_wait_ms(&rec, at(HOUR - 1, 0)), 1000);
}

/* What is over, or was never dated, is not retired: it goes at once. */
static void test_of_an_ended_certificate_goes_at_once(void **state)
{
    (void)state;
    struct agent_record rec = {.name = "a"};
    rotate(&rec, "k1", 0);
    rotate(&rec, "k2", HOUR);
    assert_int_equal(rec.n_retired, 0);
    assert_string_equal(rec.old_key_id, "k1");
    memset(&rec.dates, 0, sizeof(rec.dates));
    agent_retired_take(&rec, at(HOUR, HOUR));
    assert_int_equal(rec.n_retired, 0);
    assert_string_equal(rec.old_key_id, "k2");
    /* The wall clock went back: the clock that never jumps knows. */
    install(&rec, "k3", 0);
    agent_retired_take(&rec, at(-DAY, HOUR));
    assert_string_equal(rec.old_key_id, "k3");
}

/* The list names certificates, not keys; what it names is over at once, and only that. */
static void test_of_a_revoked_certificate_is_over(void **state)
{
    (void)state;
    struct agent_record rec = {.name = "a"};
    rotate(&rec, "k1", 0);
    memcpy(rec.serial, "0a", sizeof("0a"));
    rotate(&rec, "k2", 1);
    memcpy(rec.serial, "0b", sizeof("0b"));
    rotate(&rec, "k3", 2);
    assert_string_equal(rec.retired[0].serial, "0a");
    assert_string_equal(rec.retired[1].serial, "0b");
    rec.retired[1].revoked = true;
    assert_string_equal(agent_retired_over(&rec, at(3, 3))->key_id, "k2");
    assert_int_equal(agent_retired_wait_ms(&rec, at(3, 3)), 0);
    assert_true(agent_retired_drop(&rec, "k2"));
    assert_null(agent_retired_over(&rec, at(3, 3)));
}

/* Revoked between a renewal's plan and its end: the certificate before, and one before that. */
static void test_revoked_while_it_is_replaced(void **state)
{
    (void)state;
    struct agent_record rec = {.name = "a"};
    rotate(&rec, "k1", 0);
    rotate(&rec, "k2", 1);
    struct agent_record next = rec;
    rotate(&next, "k3", 2);
    agent_retired_pass_on(&next, &rec, false);
    assert_null(agent_retired_over(&next, at(3, 3)));
    rec.retired[0].revoked = true;
    agent_retired_pass_on(&next, &rec, false);
    assert_true(next.retired[0].revoked && !next.retired[1].revoked);
    agent_retired_pass_on(&next, &rec, true);
    assert_true(next.retired[0].revoked && next.retired[1].revoked);
    assert_string_equal(next.retired[1].key_id, "k2");
}

static void test_oldest_makes_room(void **state)
{
    (void)state;
    struct agent_record rec = {.name = "a"};
    char key[16];
    for (int i = 0; i <= AGENT_RETIRED_MAX; i++) { /* the first replaces none */
        snprintf(key, sizeof(key), "k%d", i);
        rotate(&rec, key, i);
        assert_string_equal(rec.old_key_id, "");
        assert_int_equal(rec.n_retired, i);
    }
    rotate(&rec, "last", AGENT_RETIRED_MAX + 1);
    assert_int_equal(rec.n_retired, AGENT_RETIRED_MAX);
    assert_string_equal(rec.old_key_id, "k0");
    assert_null(agent_retired_find(&rec, "k0"));
    for (int i = 0; i < AGENT_RETIRED_MAX; i++) {
        snprintf(key, sizeof(key), "k%d", i + 1);
        assert_string_equal(rec.retired[i].key_id, key);
    }
    assert_null(agent_retired_find(&rec, "last"));
    assert_ptr_equal(agent_retired_find(&rec, "k1"), &rec.retired[0]);
    /* From the middle: the order stays. */
    assert_true(agent_retired_drop(&rec, "k3"));
    assert_string_equal(rec.retired[2].key_id, "k4");
    assert_int_equal(rec.n_retired, AGENT_RETIRED_MAX - 1);
    /* They end one after the other. */
    assert_string_equal(agent_retired_over(&rec, at(HOUR + 2, HOUR + 2))->key_id, "k1");
    assert_null(agent_retired_over(&rec, at(HOUR, HOUR)));
}

/* Read from a file, in this boot or another: what is left by the wall clock, which is not believed
 * to be before the last installation. */
static void test_loaded(void **state)
{
    (void)state;
    struct agent_record rec = {.name = "a"};
    rotate(&rec, "k1", 0);
    rotate(&rec, "k2", HOUR / 2);
    rec.dates.same_boot = false;
    rec.retired[0].end_boot_ms = 0;
    assert_non_null(agent_retired_over(&rec, at(HOUR / 2, 5))); /* not known is over */
    agent_retired_loaded(&rec, at(HOUR / 2 + 600, 5));
    assert_int_equal(rec.retired[0].end_boot_ms, (1000 + 5 + HOUR / 2 - 600) * 1000);
    assert_null(agent_retired_over(&rec, at(HOUR / 2 + 600, 5)));
    assert_non_null(agent_retired_over(&rec, at(-DAY, 5 + HOUR / 2 - 600)));
    agent_retired_loaded(&rec, at(-DAY, 5));
    assert_int_equal(rec.retired[0].end_boot_ms, (1000 + 5 + HOUR / 2) * 1000);
    agent_retired_loaded(&rec, at(HOUR, 5));
    assert_non_null(agent_retired_over(&rec, at(0, 5)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_of_an_ended_certificate_goes_at_once),
        cmocka_unit_test(test_first_key_replaces_none),
        cmocka_unit_test(test_until_its_certificate_ends),
        cmocka_unit_test(test_either_clock_ends_it),
        cmocka_unit_test(test_of_a_revoked_certificate_is_over),
        cmocka_unit_test(test_revoked_while_it_is_replaced),
        cmocka_unit_test(test_oldest_makes_room),
        cmocka_unit_test(test_loaded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
