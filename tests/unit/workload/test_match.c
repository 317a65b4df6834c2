/* One agent, or a refusal that says why. */
#include "attestd/base/enc.h"
#include "attestd/workload/match.h"
#include "attestd/workload/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define EXE   "1111111111111111111111111111111111111111111111111111111111111111"
#define OTHER "2222222222222222222222222222222222222222222222222222222222222222"
#define CODE  "3333333333333333333333333333333333333333333333333333333333333333"
#define MODEL "4444444444444444444444444444444444444444444444444444444444444444"

static char *exe_list[] = {(char[]){OTHER}, (char[]){EXE}};
static char *other_list[] = {(char[]){OTHER}};
static char *code_list[] = {(char[]){CODE}};

static struct workload_caller caller_of(uint32_t uid, const char *unit)
{
    struct workload_caller c = {.facts = {.pid = 7, .uid = uid, .euid = uid}};
    snprintf(c.facts.unit, sizeof c.facts.unit, "%s", unit);
    snprintf(c.facts.cgroup, sizeof c.facts.cgroup, "/trading.slice/%s", unit);
    memset(c.exe_sha256, 0x11, sizeof c.exe_sha256);
    return c;
}

static enum att_rc match(const struct conf_workload *w, size_t n, const struct workload_caller *c,
                         const struct workload_wanted *wanted, struct att_err *err)
{
    const struct workload_rule rules[] = {{"agent", w, n}};
    size_t at = 99;
    enum att_rc rc = workload_match(rules, 1, c, wanted, &at, err);
    assert_int_equal(at, rc == ATT_OK ? 0 : 99);
    return rc;
}

static void refused(const struct conf_workload *w, const struct workload_caller *c,
                    const char *words)
{
    struct att_err err = {0};
    assert_int_equal(match(w, 1, c, NULL, &err), ATT_E_DENIED);
    assert_string_equal(err.reason, "notAssigned");
    if (!strstr(err.msg, words)) {
        fail_msg("\"%s\" is not in \"%s\"", words, err.msg);
    }
}

static void test_match_refuses_by_each_member(void **state)
{
    (void)state;
    struct workload_caller c = caller_of(1001, "rebalancer.service");
    refused(&(struct conf_workload){0}, &c, "neither uid nor unit");
    refused(&(struct conf_workload){.n_exe_sha256 = 2, .exe_sha256 = exe_list}, &c,
            "neither uid nor unit");
    refused(&(struct conf_workload){.has_uid = true, .uid = 0}, &c, "wants user 0");
    refused(&(struct conf_workload){.unit = (char[]){"rebalancer.scope"}}, &c,
            "is in rebalancer.service");
    refused(&(struct conf_workload){.unit = (char[]){"rebalancer"}}, &c, "wants unit");
    refused(&(struct conf_workload){.unit = (char[]){"other.slice"}}, &c, "wants unit");
    refused(&(struct conf_workload){.has_uid = true, .uid = 1001, .unit = (char[]){"x.service"}},
            &c, "wants unit x.service");
    refused(
        &(struct conf_workload){
            .has_uid = true, .uid = 1001, .exe_sha256 = other_list, .n_exe_sha256 = 1},
        &c, EXE);
    refused(
        &(struct conf_workload){
            .has_uid = true, .uid = 1001, .script_sha256 = code_list, .n_script_sha256 = 1},
        &c, "wants a script");
    c.script.known = true;
    refused(
        &(struct conf_workload){
            .has_uid = true, .uid = 1001, .script_sha256 = code_list, .n_script_sha256 = 1},
        &c, "its script");
    refused(&(struct conf_workload){.has_uid = true,
                                    .uid = 1001,
                                    .manifest_path = (char[]){"/m"},
                                    .manifest_sha256 = (char[]){MODEL}},
            &c, "cannot be read");
}

/* Started by 1001, with the rights of 1002 (set-uid): neither's agent. */
static void test_match_refuses_mixed_users(void **state)
{
    (void)state;
    struct workload_caller c = caller_of(1001, "x.service");
    c.facts.euid = 1002;
    refused(&(struct conf_workload){.has_uid = true, .uid = 1001}, &c, "with the rights of 1002");
    refused(&(struct conf_workload){.has_uid = true, .uid = 1002}, &c, "with the rights of 1002");
}

static void test_match_refuses_without_rules(void **state)
{
    (void)state;
    struct workload_caller c = caller_of(1001, "");
    struct att_err err = {0};
    size_t at;
    assert_int_equal(workload_match(NULL, 0, &c, NULL, &at, &err), ATT_E_DENIED);
    assert_string_equal(err.reason, "notAssigned");
    const struct workload_rule unusable[] = {{"agent", NULL, 0}};
    assert_int_equal(workload_match(unusable, 1, &c, NULL, &at, NULL), ATT_E_DENIED);
}

static void test_match_refuses_two_agents(void **state)
{
    (void)state;
    struct workload_caller c = caller_of(1001, "x.service");
    const struct conf_workload by_uid = {.has_uid = true, .uid = 1001};
    const struct conf_workload by_unit = {.unit = (char[]){"x.service"}};
    const struct conf_workload other = {.has_uid = true, .uid = 7};
    const struct workload_rule rules[] = {
        {"alpha", &by_uid, 1}, {"beta", &other, 1}, {"gamma", &by_unit, 1}};
    struct att_err err = {0};
    size_t at = 99;
    assert_int_equal(workload_match(rules, 3, &c, NULL, &at, &err), ATT_E_DENIED);
    assert_string_equal(err.reason, "ambiguous");
    assert_non_null(strstr(err.msg, "alpha, gamma"));
    assert_int_equal(at, 99);
    assert_int_equal(workload_match(rules, 2, &c, NULL, &at, NULL), ATT_OK);
    assert_int_equal(at, 0);
}

/* The refusal names the entry that came nearest, not the first. */
static void test_match_names_the_nearest(void **state)
{
    (void)state;
    struct workload_caller c = caller_of(1001, "");
    const struct conf_workload far = {.has_uid = true, .uid = 7};
    const struct conf_workload unit = {.unit = (char[]){"x.service"}};
    const struct conf_workload near = {
        .has_uid = true, .uid = 1001, .exe_sha256 = other_list, .n_exe_sha256 = 1};
    const struct workload_rule rules[] = {{"far", &far, 1}, {"unit", &unit, 1}, {"near", &near, 1}};
    struct att_err err = {0};
    size_t at;
    assert_int_equal(workload_match(rules, 3, &c, NULL, &at, &err), ATT_E_DENIED);
    assert_non_null(strstr(err.msg, "nearest is near"));
}

static void test_match_grants(void **state)
{
    (void)state;
    struct workload_caller c = caller_of(1001, "rebalancer.service");
    c.script.known = true;
    memset(c.script.sha256, 0x33, sizeof c.script.sha256);
    const struct conf_workload all[] = {{.has_uid = true, .uid = 7},
                                        {.has_uid = true,
                                         .uid = 1001,
                                         .unit = (char[]){"rebalancer.service"},
                                         .exe_sha256 = exe_list,
                                         .n_exe_sha256 = 2,
                                         .script_sha256 = code_list,
                                         .n_script_sha256 = 1}};
    const struct conf_workload slice = {.unit = (char[]){"trading.slice"}};
    assert_int_equal(match(all, 2, &c, NULL, NULL), ATT_OK);
    assert_int_equal(match(&slice, 1, &c, NULL, NULL), ATT_OK);
}

static void test_match_manifest(void **state)
{
    (void)state;
    struct workload_caller c = caller_of(1001, "");
    const struct conf_workload list[] = {
        {.has_uid = true,
         .uid = 1001,
         .manifest_path = (char[]){"/m"},
         .manifest_sha256 = (char[]){MODEL}},
        {.has_uid = true, .uid = 7, .manifest_path = (char[]){"/n"}}};
    const struct workload_rule rules[] = {
        {"a", &list[0], 1}, {"b", &list[0], 1}, {"c", &list[1], 1}};
    struct workload_wanted wanted;
    assert_int_equal(workload_match_wanted(rules, 3, &c, &wanted, NULL), ATT_OK);
    assert_int_equal(wanted.n, 1); /* once, and not of an entry that fits in nothing else */
    assert_true(att_slice_eq_str(wanted.paths[0], "/m"));
    c.n_files = 1;
    assert_int_equal(match(list, 1, &c, &wanted, NULL), ATT_E_DENIED); /* not read */
    c.files[0].known = true;
    assert_int_equal(match(list, 1, &c, &wanted, NULL), ATT_E_DENIED); /* other bytes */
    memset(c.files[0].sha256, 0x44, ATT_SHA256_LEN);
    assert_int_equal(match(list, 1, &c, &wanted, NULL), ATT_OK);
    c.n_files = 0;
    assert_int_equal(match(list, 1, &c, &wanted, NULL), ATT_E_DENIED);
}

static void test_match_wants_only_so_many_manifests(void **state)
{
    (void)state;
    struct workload_caller c = caller_of(1001, "");
    struct conf_workload list[WORKLOAD_FILES_MAX + 1] = {{0}};
    char paths[WORKLOAD_FILES_MAX + 1][8];
    struct workload_wanted wanted;
    for (size_t i = 0; i <= WORKLOAD_FILES_MAX; i++) {
        snprintf(paths[i], sizeof paths[i], "/m%zu", i);
        list[i] = (struct conf_workload){.has_uid = true, .uid = 1001, .manifest_path = paths[i]};
    }
    const struct workload_rule rule = {"a", list, WORKLOAD_FILES_MAX + 1};
    assert_int_equal(workload_match_wanted(&rule, 1, &c, &wanted, NULL), ATT_E_LIMIT);
}

/* Two agents of one user and one program, told apart by nothing but the unit that the kernel's
 * cgroup says: each is itself, and what one of them or the user names like the other is not it. */
static void test_match_tells_two_units_apart(void **state)
{
    (void)state;
    static const struct {
        const char *cgroup, *agent; /* NULL: nobody's */
    } callers[] = {
        {"/system.slice/system-agent.slice/agent@risk.service", "risk"},
        {"/system.slice/system-agent.slice/agent@trade.service", "trade"},
        {"/system.slice/system-agent.slice/agent@risk.service/agent@trade.service", "risk"},
        {"/system.slice/system-agent.slice/agent@trade.service/payload", "trade"},
        {"/system.slice/system-agent.slice/agent@.service", NULL},
        {"/system.slice/system-agent.slice/agent@risk.service (deleted)", NULL},
        {"/system.slice/agent@risk.service.d/agent@trade.service", NULL},
        {"/user.slice/user-61001.slice/user@61001.service/app.slice/agent@risk.service", NULL},
        {"/user.slice/user-61001.slice/session-3.scope/agent@risk.service", NULL},
        {"/../agent@risk.service", NULL},
        {"/", NULL},
    };
    const struct conf_workload risk = {.unit = (char[]){"agent@risk.service"}};
    const struct conf_workload trade = {.unit = (char[]){"agent@trade.service"}};
    const struct workload_rule rules[] = {{"risk", &risk, 1}, {"trade", &trade, 1}};
    for (size_t i = 0; i < sizeof callers / sizeof callers[0]; i++) {
        struct workload_caller c = {.facts = {.uid = 61001, .euid = 61001}};
        struct att_slice unit = workload_cgroup_unit(att_slice_str(callers[i].cgroup));
        struct att_err err = {0};
        size_t at = 99;
        snprintf(c.facts.cgroup, sizeof c.facts.cgroup, "%s", callers[i].cgroup);
        if (unit.len) {
            memcpy(c.facts.unit, unit.ptr, unit.len);
        }
        enum att_rc rc = workload_match(rules, 2, &c, NULL, &at, &err);
        const char *agent = rc == ATT_OK ? rules[at].agent : "nobody";
        if (strcmp(agent, callers[i].agent ? callers[i].agent : "nobody") != 0) {
            fail_msg("%s: %s", callers[i].cgroup, agent);
        }
        assert_true(rc == ATT_OK || strcmp(err.reason, "notAssigned") == 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_match_refuses_by_each_member),
        cmocka_unit_test(test_match_refuses_mixed_users),
        cmocka_unit_test(test_match_refuses_without_rules),
        cmocka_unit_test(test_match_refuses_two_agents),
        cmocka_unit_test(test_match_names_the_nearest),
        cmocka_unit_test(test_match_grants),
        cmocka_unit_test(test_match_tells_two_units_apart),
        cmocka_unit_test(test_match_manifest),
        cmocka_unit_test(test_match_wants_only_so_many_manifests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
