/* Tells attestd what is connected, so that its status shows it: a second after something changed,
 * and from time to time, since attestd forgets it when it restarts. */
#include "attestd/tokend/internal.h"

#include "attestd/base/clock.h"
#include "attestd/tokend/own.h"

#include <string.h>

#define CHANGED_MS 1000

static void told(void *user, enum att_rc rc, const struct proc_msg *reply,
                 const struct att_err *err)
{
    struct tokend *tokend = user;
    (void)rc; /* attestd is away: the next report comes all the same */
    (void)reply;
    (void)err;
    tokend->report.call = NULL;
}

static bool due(const struct tokend *tokend, int64_t now_ms)
{
    const struct tokend_report *report = &tokend->report;
    bool changed = report->changed || report->connections != tokend->connections ||
                   memcmp(&report->told, &tokend->counts, sizeof report->told) != 0;
    return !report->call &&
           (report->told_at_ms == 0 ||
            now_ms - report->told_at_ms >= (changed ? CHANGED_MS : PROC_REPORT_PERIOD_MS));
}

/* The list's items, one behind the other; the number of agents that found no place. */
static uint32_t put_agents(const struct tokend *tokend, struct att_buf *bytes,
                           struct att_slice *items, size_t *ret_n, uint32_t *ret_connections)
{
    uint32_t left_out = 0;
    *ret_n = *ret_connections = 0;
    for (const struct agent *agent = tokend->agents; agent; agent = agent->next) {
        *ret_connections += agent->connections;
        if (*ret_n == PROC_REPORT_AGENTS_MAX) {
            left_out++;
            continue;
        }
        size_t at = bytes->len;
        att_buf_be32(bytes, agent->connections);
        att_buf_be32(bytes, agent->changed);
        att_buf_put_str(bytes, agent->name);
        items[(*ret_n)++] = ATT_SLICE(bytes->ptr + at, bytes->len - at);
    }
    return left_out;
}

static uint32_t strangers_of(const struct tokend *tokend)
{
    uint32_t n = 0;
    for (const struct conn *conn = tokend->conns; conn; conn = conn->next) {
        n += conn->unknown;
    }
    return n;
}

static void send_report(struct tokend *tokend, struct att_buf *bytes)
{
    struct att_slice items[PROC_REPORT_AGENTS_MAX];
    size_t n;
    uint32_t connections;
    const struct tokend_counts *counts = &tokend->counts;
    uint32_t left_out = put_agents(tokend, bytes, items, &n, &connections);
    const struct proc_value values[] = {
        [PROC_WORKLOAD_REPORT_REQ_VERSION] = {.bytes = ATT_SLICE_LIT(ATT_VERSION)},
        [PROC_WORKLOAD_REPORT_REQ_STARTED_AT] = {.num = (uint64_t)tokend->report.started_at},
        [PROC_WORKLOAD_REPORT_REQ_CONNECTIONS] = {.num = connections},
        [PROC_WORKLOAD_REPORT_REQ_STRANGERS] = {.num = strangers_of(tokend)},
        [PROC_WORKLOAD_REPORT_REQ_ACCEPTED] = {.num = counts->accepted},
        [PROC_WORKLOAD_REPORT_REQ_REFUSED] = {.num = counts->refused},
        [PROC_WORKLOAD_REPORT_REQ_SIGNATURES] = {.num = counts->signatures},
        [PROC_WORKLOAD_REPORT_REQ_REFUSALS] = {.num = counts->refusals},
        [PROC_WORKLOAD_REPORT_REQ_DIED] = {.num = counts->died},
        [PROC_WORKLOAD_REPORT_REQ_AGENTS] = {.items = items, .item_count = n},
        [PROC_WORKLOAD_REPORT_REQ_LEFT_OUT] = {.num = left_out},
    };
    if (att_buf_ok(bytes, NULL) == ATT_OK) {
        (void)!tokend_upstream_call(tokend->views, PROC_WORKLOAD_REPORT, values, -1,
                                    &tokend->report.fair, VIEW_MS, told, tokend,
                                    &tokend->report.call, NULL);
    }
}

void tokend_report_tick(struct tokend *tokend)
{
    int64_t now_ms = att_boottime_ms();
    if (!due(tokend, now_ms)) {
        return;
    }
    struct att_buf bytes = tokend_own_buf((size_t)PROC_REPORT_AGENTS_MAX * PROC_REPORT_ITEM_MAX);
    tokend->report.told_at_ms = now_ms;
    tokend->report.told = tokend->counts;
    tokend->report.connections = tokend->connections;
    tokend->report.changed = false;
    send_report(tokend, &bytes);
    tokend_own_buf_free(&bytes);
}
