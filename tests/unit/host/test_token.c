/* What the token service reports: refused when it makes no sense, and then nothing is kept of it.
 */
#include "attestd/host/internal.h"
#include "attestd/proc/workload_proto.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct host *host;

static int setup(void **state)
{
    (void)state;
    host = calloc(1, sizeof *host);
    pthread_mutex_init(&host->lock, NULL);
    return agent_registry_new(&host->reg, NULL) == ATT_OK ? 0 : 1;
}

static int teardown(void **state)
{
    (void)state;
    host_token_done(&host->token);
    agent_registry_free(host->reg);
    pthread_mutex_destroy(&host->lock);
    free(host);
    return 0;
}

/* A report with this one item, as tokend would send it: through the codec. */
static enum att_rc report(struct att_slice item, uint32_t connections, struct att_err *err)
{
    const struct proc_op *op = proc_op_find(proc_workload_table, PROC_WORKLOAD_REPORT);
    const struct proc_value values[] = {
        {.bytes = ATT_SLICE_LIT(ATT_VERSION)},
        {.num = 1000},
        {.num = connections},
        {0},
        {0},
        {0},
        {0},
        {0},
        {0},
        {.items = &item, .item_count = item.len ? 1 : 0},
        {0},
    };
    att_autobuf bytes = {0};
    static struct proc_msg msg;
    assert_int_equal(proc_msg_encode(&op->request, values, &bytes, NULL), ATT_OK);
    assert_int_equal(proc_msg_parse(&op->request, att_buf_slice(&bytes), &msg, NULL), ATT_OK);
    return host_token_keep(host, msg.v, err);
}

static struct att_slice item(struct att_buf *buf, uint32_t connections, uint32_t changed,
                             struct att_slice name)
{
    att_buf_reset(buf);
    att_buf_be32(buf, connections);
    att_buf_be32(buf, changed);
    att_buf_put_slice(buf, name);
    return att_buf_slice(buf);
}

static json_t *shown(int64_t later_ms)
{
    const struct agent_now now = {.utc_s = att_now_utc_s(),
                                  .boot_ms = att_boottime_ms() + later_ms};
    return host_token_json(host, now);
}

static const char *text(const json_t *json, const char *name)
{
    return json_string_value(json_object_get(json, name));
}

static void nothing_was_reported(void **state)
{
    (void)state;
    att_autojson *json = shown(0);
    assert_string_equal(text(json, "state"), "unknown");
    assert_int_equal(json_object_size(json), 1);
}

static void odd_reports_are_refused_whole(void **state)
{
    (void)state;
    att_autobuf buf = {0};
    struct att_err err = {0};
    assert_int_equal(report(item(&buf, 2, 1, ATT_SLICE_LIT("alpha")), 2, NULL), ATT_OK);
    assert_int_equal(report(ATT_SLICE_LIT("\0\0\0\1\0\0\0"), 9, &err), ATT_E_PARSE);
    assert_non_null(strstr(err.msg, "7 bytes"));
    err = (struct att_err){0};
    assert_int_equal(report(item(&buf, 1, 2, ATT_SLICE_LIT("alpha")), 9, &err), ATT_E_PARSE);
    assert_non_null(strstr(err.msg, "2 of 1 connections"));
    assert_int_equal(report(item(&buf, 1, 0, ATT_SLICE_LIT("al\0pha")), 9, NULL), ATT_E_PARSE);
    assert_int_not_equal(report(item(&buf, 1, 0, ATT_SLICE_LIT("../x")), 9, NULL), ATT_OK);
    assert_int_not_equal(report(item(&buf, 1, 0, ATT_SLICE(NULL, 0)), 9, NULL), ATT_OK);
    att_autojson *json = shown(0);
    assert_int_equal(json_integer_value(json_object_get(json, "connections")), 2);
    assert_string_equal(text(json_array_get(json_object_get(json, "agents"), 0), "name"), "alpha");
}

static void an_agent_that_is_gone_is_stale(void **state)
{
    (void)state;
    att_autobuf buf = {0};
    assert_int_equal(report(item(&buf, 3, 1, ATT_SLICE_LIT("alpha")), 3, NULL), ATT_OK);
    att_autojson *json = shown(0);
    const json_t *agent = json_array_get(json_object_get(json, "agents"), 0);
    assert_string_equal(text(json, "state"), "serving");
    assert_int_equal(json_integer_value(json_object_get(json, "stale")), 3);
    assert_string_equal(text(agent, "why"), "agentGone");
    assert_int_equal(json_integer_value(json_object_get(agent, "stale")), 3);
    assert_true(json_is_false(json_object_get(json, "outdated")));
}

static void silence_is_told(void **state)
{
    (void)state;
    assert_int_equal(report(ATT_SLICE(NULL, 0), 0, NULL), ATT_OK);
    att_autojson *soon = shown(3 * PROC_REPORT_PERIOD_MS - 1000);
    assert_string_equal(text(soon, "state"), "serving");
    att_autojson *late = shown(3 * PROC_REPORT_PERIOD_MS + 1);
    assert_string_equal(text(late, "state"), "away");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(nothing_was_reported),
        TEST(odd_reports_are_refused_whole),
        TEST(an_agent_that_is_gone_is_stale),
        TEST(silence_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
