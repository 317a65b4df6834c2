/* So many in a second, more at once after a rest; a clock that stands or goes back gives nothing.
 */
#include "attestd/spiffe/rate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static unsigned take_all(struct rate *rate, int64_t now_ms)
{
    unsigned n = 0;
    while (n < 1000 && rate_take(rate, 50, 100, now_ms)) {
        n++;
    }
    return n;
}

static void test_a_burst_then_the_rate(void **state)
{
    struct rate rate;
    (void)state;
    rate_init(&rate, 50, 100, 1000);
    assert_int_equal(take_all(&rate, 1000), 100);
    assert_false(rate_take(&rate, 50, 100, 1019)); /* 20 ms each */
    assert_true(rate_take(&rate, 50, 100, 1020));
    assert_int_equal(take_all(&rate, 2020), 50);
}

static void test_who_asks_in_vain_loses_nothing(void **state)
{
    struct rate rate;
    (void)state;
    rate_init(&rate, 50, 100, 0);
    (void)take_all(&rate, 0);
    for (int64_t ms = 1; ms < 20; ms++) {
        assert_false(rate_take(&rate, 50, 100, ms));
    }
    assert_true(rate_take(&rate, 50, 100, 20));
}

static void test_no_more_than_the_burst_is_saved(void **state)
{
    struct rate rate;
    (void)state;
    rate_init(&rate, 50, 100, 0);
    (void)take_all(&rate, 0);
    assert_int_equal(take_all(&rate, 3600000), 100);
    assert_int_equal(take_all(&rate, INT64_MAX), 100);
}

static void test_a_clock_that_goes_back(void **state)
{
    struct rate rate;
    (void)state;
    rate_init(&rate, 50, 100, 5000);
    (void)take_all(&rate, 5000);
    assert_false(rate_take(&rate, 50, 100, 1000));
    assert_false(rate_take(&rate, 50, 100, 1010));
    assert_true(rate_take(&rate, 50, 100, 1020));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_burst_then_the_rate),
        cmocka_unit_test(test_who_asks_in_vain_loses_nothing),
        cmocka_unit_test(test_no_more_than_the_burst_is_saved),
        cmocka_unit_test(test_a_clock_that_goes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
