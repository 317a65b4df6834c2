/* A line that somebody causes again and again is said once a second, and hides no other. */
#include "attestd/base/often.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

static void the_same_once_a_second(void **state)
{
    (void)state;
    struct att_often often = ATT_OFTEN_INIT;
    assert_true(att_often(&often, "agent a is frozen", 5000));
    for (int64_t ms = 5000; ms < 5999; ms += 37) {
        assert_false(att_often(&often, "agent a is frozen", ms));
    }
    assert_true(att_often(&often, "agent a is frozen", 6000));
    assert_false(att_often(&often, "agent a is frozen", 6999));
}

static void another_is_not_hidden(void **state)
{
    (void)state;
    struct att_often often = ATT_OFTEN_INIT;
    for (int i = 0; i < ATT_OFTEN_PLACES; i++) {
        char text[32];
        snprintf(text, sizeof text, "agent %d is frozen", i);
        assert_true(att_often(&often, text, 5000));
        assert_false(att_often(&often, text, 5001));
    }
    assert_true(att_often(&often, "one too many is said, too", 5002));
}

static void at_the_beginning_of_time(void **state)
{
    (void)state;
    struct att_often often = ATT_OFTEN_INIT;
    assert_true(att_often(&often, "x", 0));
    assert_false(att_often(&often, "x", 0));
    assert_true(att_often(&often, "", 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_once_a_second),
        cmocka_unit_test(another_is_not_hidden),
        cmocka_unit_test(at_the_beginning_of_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
