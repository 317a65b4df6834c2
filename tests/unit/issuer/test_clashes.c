/* One warning for each group of agents that only digests tell apart. */
#include "provision/issuer/clashes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define TAIL " and may meet on a host: digests narrow, they do not isolate one from the other"

/* NAME, its host's label and its workload. */
static struct conf_entry *entry(const char *name, const char *zone, const char *workload)
{
    struct conf_entry *made = NULL;
    json_t *json = json_pack("{s:s, s:s, s:[o], s:[o], s:s, s:s}", "name", name, "owner", "o",
                             "hosts", json_sprintf("label:zone=%s", zone), "workload",
                             json_loads(workload, 0, NULL), "key", "tpm", "profile", "p");
    assert_non_null(json);
    assert_int_equal(conf_entry_from_json(json, &made, NULL), ATT_OK);
    json_decref(json);
    return made;
}

/* All pairs, as entry.apply compares them. */
static json_t *warnings(struct conf_entry *const *all, size_t n)
{
    struct issuer_clashes clashes = {0};
    for (size_t i = 0; i < n; i++) {
        for (size_t k = i + 1; k < n; k++) {
            assert_int_equal(issuer_clashes_note(&clashes, all[i], all[k], NULL), ATT_OK);
        }
    }
    json_t *list = issuer_clashes_warnings(&clashes);
    assert_non_null(list);
    issuer_clashes_done(&clashes);
    for (size_t i = 0; i < n; i++) {
        conf_entry_free(all[i]);
    }
    return list;
}

static const char *at(const json_t *list, size_t i)
{
    return json_string_value(json_array_get(list, i));
}

static void test_apart_no_warning(void **state)
{
    (void)state;
    struct conf_entry *all[] = {entry("a", "x", "{\"uid\":1}"), entry("b", "x", "{\"uid\":2}"),
                                entry("c", "y", "{\"uid\":1}"),
                                entry("d", "x", "{\"unit\":\"d.service\"}")};
    json_t *list = warnings(all, 4);
    assert_int_equal(json_array_size(list), 0);
    json_decref(list);
}

static void test_one_line_a_group(void **state)
{
    (void)state;
    struct conf_entry *all[] = {
        entry("a", "x", "{\"uid\":1}"),     entry("u", "x", "{\"unit\":\"u.service\"}"),
        entry("b", "x", "{\"uid\":1}"),     entry("c", "x", "{\"uid\":1}"),
        entry("far", "y", "{\"uid\":1}"), /* the same user on hosts where the others are not */
        entry("near", "y", "{\"uid\":1}"),  entry("v", "x", "{\"unit\":\"u.service\"}"),
        entry("alone", "x", "{\"uid\":9}"),
    };
    json_t *list = warnings(all, sizeof all / sizeof *all);
    assert_int_equal(json_array_size(list), 3);
    assert_string_equal(at(list, 0), "agents a, b, c share uid 1 without different units" TAIL);
    assert_string_equal(at(list, 1), "agents u, v share unit u.service" TAIL);
    assert_string_equal(at(list, 2), "agents far, near share uid 1 without different units" TAIL);
    json_decref(list);
}

/* Two groups that a later agent joins are one. */
static void test_groups_grow_together(void **state)
{
    (void)state;
    struct issuer_clashes clashes = {0};
    struct conf_entry *all[5];
    for (size_t i = 0; i < 5; i++) {
        char name[8];
        snprintf(name, sizeof name, "a%zu", i);
        all[i] = entry(name, "x", "{\"uid\":1}");
    }
    static const size_t pairs[][2] = {{0, 1}, {2, 3}, {3, 2}, {1, 0}, {3, 4}, {4, 0}, {1, 2}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        assert_int_equal(issuer_clashes_note(&clashes, all[pairs[i][0]], all[pairs[i][1]], NULL),
                         ATT_OK);
    }
    json_t *list = issuer_clashes_warnings(&clashes);
    assert_int_equal(json_array_size(list), 1);
    assert_string_equal(at(list, 0),
                        "agents a0, a1, a2, a3, a4 share uid 1 without different units" TAIL);
    json_decref(list);
    issuer_clashes_done(&clashes);
    for (size_t i = 0; i < 5; i++) {
        conf_entry_free(all[i]);
    }
}

static void test_bounds(void **state)
{
    (void)state;
    struct conf_entry *all[120];
    char name[16], workload[32];
    for (size_t i = 0; i < 120; i++) {
        snprintf(name, sizeof name, "n%zu", i);
        all[i] = entry(name, "x", "{\"uid\":1}");
    }
    json_t *list = warnings(all, 120);
    assert_int_equal(json_array_size(list), 1); /* 7140 pairs */
    assert_non_null(strstr(at(list, 0), "agents n0, n1, "));
    assert_non_null(strstr(at(list, 0), ", n49 and 70 more share uid 1 "));
    json_decref(list);
    for (size_t i = 0; i < 80; i++) { /* 40 groups of two */
        snprintf(name, sizeof name, "n%zu", i);
        snprintf(workload, sizeof workload, "{\"uid\":%zu}", 1 + i / 2);
        all[i] = entry(name, "x", workload);
    }
    list = warnings(all, 80);
    assert_int_equal(json_array_size(list), ISSUER_CLASHES_MAX + 1);
    assert_string_equal(at(list, ISSUER_CLASHES_MAX), "and 8 more groups of agents");
    json_decref(list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_apart_no_warning),
        cmocka_unit_test(test_one_line_a_group),
        cmocka_unit_test(test_groups_grow_together),
        cmocka_unit_test(test_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
