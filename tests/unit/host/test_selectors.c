/* The view's workload selectors: what is not understood fits nobody. */
#include "attestd/host/selectors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct host_selectors *read_all(const char *text)
{
    struct host_selectors *selectors = NULL;
    att_autojson *json = json_loads(text, JSON_DECODE_ANY, NULL);
    assert_int_equal(host_selectors_new(json, &selectors, NULL), ATT_OK);
    return selectors;
}

static enum att_rc match(const struct host_selectors *selectors, uint32_t uid, size_t *ret_at)
{
    struct workload_caller *caller = calloc(1, sizeof *caller);
    caller->facts.uid = caller->facts.euid = uid;
    enum att_rc rc = workload_match(selectors->rules, selectors->n, caller, NULL, ret_at, NULL);
    free(caller);
    return rc;
}

static void test_selectors_refuse_what_they_do_not_understand(void **state)
{
    (void)state;
    struct host_selectors *s = read_all("[{\"name\":\"a\",\"workload\":[{\"uid\":1,\"later\":[]}]},"
                                        " {\"name\":\"b\"},"
                                        " {\"name\":\"c\",\"workload\":[{\"uid\":1},{\"gid\":1}]},"
                                        " {\"name\":\"d\",\"workload\":[{\"uid\":2}]}]");
    size_t at = 99;
    assert_int_equal(s->n, 4);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(s->bad[i].rc, ATT_E_PARSE);
        assert_string_equal(s->bad[i].reason, "workloadUnknown");
    }
    assert_int_equal(s->bad[3].rc, ATT_OK);
    assert_int_equal(match(s, 1, &at), ATT_E_DENIED);
    assert_int_equal(match(s, 2, &at), ATT_OK);
    assert_string_equal(s->rules[at].agent, "d");
    host_selectors_unref(&s);
    assert_null(s);
}

static void test_selectors_outlive_their_view(void **state)
{
    (void)state;
    struct host_selectors *s = read_all("[{\"name\":\"a\",\"workload\":[{\"uid\":1}]}]");
    struct host_selectors *kept = host_selectors_ref(s);
    size_t at = 99;
    host_selectors_unref(&s);
    assert_int_equal(match(kept, 1, &at), ATT_OK);
    assert_string_equal(kept->rules[at].agent, "a");
    host_selectors_unref(&kept);
    host_selectors_unref(&kept);
    assert_null(host_selectors_ref(NULL));
}

static uint64_t number_of(const char *text)
{
    struct host_selectors *s = read_all(text);
    uint64_t number = s->number;
    host_selectors_unref(&s);
    assert_int_not_equal(number, 0);
    return number;
}

/* Who was granted an agent is decided about again when it changes, and only then. */
static void test_selectors_number(void **state)
{
    (void)state;
    static const char *const others[] = {
        "[]",
        "[{\"name\":\"b\",\"workload\":[{\"uid\":1,\"unit\":\"x.service\"}]}]",
        "[{\"name\":\"a\",\"workload\":[{\"uid\":2,\"unit\":\"x.service\"}]}]",
        "[{\"name\":\"a\",\"workload\":[{\"uid\":1,\"unit\":\"y.service\"}]}]",
        "[{\"name\":\"a\",\"workload\":[{\"uid\":1}]}]",
        "[{\"name\":\"a\",\"workload\":[{\"uid\":1,\"unit\":\"x.service\",\"later\":1}]}]",
        "[{\"name\":\"a\",\"workload\":[{\"uid\":1,\"unit\":\"x.service\"},{\"uid\":3}]}]",
        "[{\"name\":\"a\"}]",
        "[{\"name\":\"a\",\"workload\":[{\"uid\":1,\"unit\":\"x.service\"}],\"measured\":{}}]",
    };
    uint64_t number =
        number_of("[{\"name\":\"a\",\"workload\":[{\"uid\":1,\"unit\":\"x.service\"}]}]");
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        assert_int_not_equal(number_of(others[i]), number);
    }
    assert_int_equal(
        number_of("[{\"lifetimeS\":60,\"workload\":[{\"unit\":\"x.service\",\"uid\":1}],"
                  "\"name\":\"a\"}]"),
        number);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_selectors_refuse_what_they_do_not_understand),
        cmocka_unit_test(test_selectors_outlive_their_view),
        cmocka_unit_test(test_selectors_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
