/* A user that asks too often is refused; others are not. */
#include "attestd/proc/ipc.h"
#include "attestd/whod/whod.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static int setup(void **state)
{
    return whod_limits_new((struct whod_limits **)state, NULL) == ATT_OK ? 0 : -1;
}

static int teardown(void **state)
{
    whod_limits_free(*state);
    return 0;
}

static bool ask(struct whod_limits *limits, uid_t uid, int64_t now_ms)
{
    struct att_err err = {0};
    enum att_rc rc = whod_limits_enter(limits, uid, false, now_ms, &err);
    if (rc == ATT_OK) {
        whod_limits_leave(limits, uid);
        return true;
    }
    assert_int_equal(rc, ATT_E_LIMIT);
    assert_string_equal(err.reason, "rateLimited");
    return false;
}

static void test_limits_end_a_burst(void **state)
{
    struct whod_limits *limits = *state;
    for (int i = 0; i < WHOD_BURST; i++) {
        assert_true(ask(limits, 1001, 1000));
    }
    assert_false(ask(limits, 1001, 1000));
    assert_false(ask(limits, 1001, 500)); /* a clock that goes back gives nothing */
    assert_true(ask(limits, 1002, 1000));
    int got = 0;
    for (int i = 0; i < WHOD_BURST; i++) {
        got += ask(limits, 1001, 2000);
    }
    assert_in_range(got, WHOD_PER_SECOND, WHOD_PER_SECOND + WHOD_PER_SECOND / 2);
}

/* Entries that change have all of a user's running callers looked at: that is no rate of theirs,
 * and leaves newcomers the burst that they have. */
static void test_limits_looking_again_takes_none_of_the_rate(void **state)
{
    struct whod_limits *limits = *state;
    for (int i = 0; i < 2 * WHOD_BURST; i++) {
        assert_int_equal(whod_limits_enter(limits, 1001, true, 1000, NULL), ATT_OK);
        whod_limits_leave(limits, 1001);
    }
    for (int i = 0; i < WHOD_BURST; i++) {
        assert_true(ask(limits, 1001, 1000));
    }
    assert_false(ask(limits, 1001, 1000));
    for (int i = 0; i < WHOD_AT_ONCE; i++) { /* without any rate left, but not beyond the places */
        assert_int_equal(whod_limits_enter(limits, 1001, true, 1000, NULL), ATT_OK);
    }
    assert_int_equal(whod_limits_enter(limits, 1001, true, 1000, NULL), ATT_E_LIMIT);
}

static void test_limits_bound_what_runs_at_once(void **state)
{
    struct whod_limits *limits = *state;
    for (int i = 0; i < WHOD_AT_ONCE; i++) {
        assert_int_equal(whod_limits_enter(limits, 1001, false, 1000, NULL), ATT_OK);
    }
    assert_false(ask(limits, 1001, 1000));
    assert_true(ask(limits, 1002, 1000));
    whod_limits_leave(limits, 1001);
    assert_true(ask(limits, 1001, 1000));
}

/* Users whose files do not answer hold their places for ever: not those that running callers need.
 */
static void test_limits_leave_places_for_others(void **state)
{
    struct whod_limits *limits = *state;
    int got = 0;
    for (uid_t uid = 1; uid <= 2 * PROC_CONNECTIONS_MAX; uid++) {
        got += whod_limits_enter(limits, uid, false, 1000, NULL) == ATT_OK;
    }
    assert_int_equal(got, WHOD_IN_ALL);
    assert_in_range(got, 1, PROC_CONNECTIONS_MAX - 4);
    whod_limits_leave(limits, 1);
    assert_true(ask(limits, 999, 1000));
}

/* More users than are remembered: who is idle for longest is forgotten, nobody who is busy. */
static void test_limits_remember_a_bounded_number(void **state)
{
    struct whod_limits *limits = *state;
    assert_int_equal(whod_limits_enter(limits, 1, false, 0, NULL), ATT_OK);
    for (uid_t uid = 2; uid < 3 * WHOD_USERS_MAX; uid++) {
        assert_true(ask(limits, uid, (int64_t)uid));
    }
    for (int i = 1; i < WHOD_AT_ONCE; i++) {
        assert_int_equal(whod_limits_enter(limits, 1, false, 0, NULL), ATT_OK);
    }
    assert_false(ask(limits, 1, 0)); /* the first place is still taken */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_limits_end_a_burst, setup, teardown),
        cmocka_unit_test_setup_teardown(test_limits_looking_again_takes_none_of_the_rate, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_limits_bound_what_runs_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_limits_leave_places_for_others, setup, teardown),
        cmocka_unit_test_setup_teardown(test_limits_remember_a_bounded_number, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
