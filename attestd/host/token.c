/* The token service in status: what it reported last, held against the agents that there are now. A
 * connection is stale when it can sign no more: its agent is gone, has no certificate in force, or
 * the caller became another program. p11-kit's client never connects again by itself, so that the
 * program behind it has to be restarted. */
#include "attestd/host/internal.h"
#include "attestd/proc/workload_proto.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define SILENT_MS (3 * PROC_REPORT_PERIOD_MS) /* without a report: away */

void host_token_done(struct host_token *token)
{
    free(token->agents);
    *token = (struct host_token){0};
}

static enum att_rc take_agent(struct att_slice item, struct host_token_agent *ret,
                              struct att_err *err)
{
    struct att_cur cur = att_cur_init(item);
    ret->connections = att_cur_be32(&cur);
    ret->changed = att_cur_be32(&cur);
    struct att_slice name = att_cur_take(&cur, cur.left);
    if (cur.failed || name.len >= sizeof(ret->name) || memchr(name.ptr, 0, name.len)) {
        return att_fail(err, ATT_E_PARSE, "an agent of REPORT in %zu bytes: malformed", item.len);
    }
    memcpy(ret->name, name.ptr, name.len);
    ret->name[name.len] = '\0';
    if (ret->changed > ret->connections) {
        return att_fail(err, ATT_E_PARSE, "REPORT: %" PRIu32 " of %" PRIu32 " connections changed",
                        ret->changed, ret->connections);
    }
    return agent_name_check(ret->name, err);
}

enum att_rc host_token_keep(struct host *host, const struct proc_value *v, struct att_err *err)
{
    size_t n = v[PROC_WORKLOAD_REPORT_REQ_AGENTS].item_count;
    struct host_token token = {
        .at_ms = att_boottime_ms(),
        .at = att_now_utc_s(),
        .started_at = (int64_t)(v[PROC_WORKLOAD_REPORT_REQ_STARTED_AT].num & INT64_MAX),
        .connections = v[PROC_WORKLOAD_REPORT_REQ_CONNECTIONS].num,
        .strangers = v[PROC_WORKLOAD_REPORT_REQ_STRANGERS].num,
        .accepted = v[PROC_WORKLOAD_REPORT_REQ_ACCEPTED].num,
        .refused = v[PROC_WORKLOAD_REPORT_REQ_REFUSED].num,
        .signatures = v[PROC_WORKLOAD_REPORT_REQ_SIGNATURES].num,
        .refusals = v[PROC_WORKLOAD_REPORT_REQ_REFUSALS].num,
        .died = v[PROC_WORKLOAD_REPORT_REQ_DIED].num,
        .left_out = v[PROC_WORKLOAD_REPORT_REQ_LEFT_OUT].num,
        .agents = calloc(n ? n : 1, sizeof(*token.agents)),
        .n_agents = n,
    };
    proc_take_text(v[PROC_WORKLOAD_REPORT_REQ_VERSION].bytes, token.version, sizeof(token.version));
    enum att_rc rc = token.agents ? ATT_OK : att_fail(err, ATT_E_NOMEM, "no memory for a report");
    for (size_t i = 0; rc == ATT_OK && i < n; i++) {
        rc = take_agent(v[PROC_WORKLOAD_REPORT_REQ_AGENTS].items[i], &token.agents[i], err);
    }
    if (rc == ATT_OK) {
        HOST_LOCKED(host);
        struct host_token was = host->token;
        host->token = token;
        token = was;
    }
    host_token_done(&token);
    return rc;
}

/* ---- shown -------------------------------------------------------------------------------------
 */

/* Why none of an agent's connections can sign; NULL: they can. A frozen agent's wait for the thaw.
 */
static const char *stale_agent(const struct host *host, const char *name, struct agent_now now)
{
    const struct agent *agent = agent_registry_find(host->reg, name);
    return !agent                                        ? "agentGone"
           : agent->rec.life.state == AGENT_FROZEN       ? NULL
           : !agent_life_serving(&agent->rec.life)       ? "noCertificate"
           : agent_sched_expired(&agent->rec.dates, now) ? "expired"
                                                         : NULL;
}

static json_t *agents_json(const struct host *host, struct agent_now now, json_int_t *ret_stale)
{
    json_t *list = json_array();
    *ret_stale = 0;
    for (size_t i = 0; i < host->token.n_agents; i++) {
        const struct host_token_agent *agent = &host->token.agents[i];
        const char *why = stale_agent(host, agent->name, now);
        json_int_t stale = why ? agent->connections : agent->changed;
        why = !why && agent->changed ? "callerChanged" : why;
        json_t *row = json_pack("{s:s, s:I, s:I, s:s?}", "name", agent->name, "connections",
                                (json_int_t)agent->connections, "stale", stale, "why", why);
        json_array_append_new(list, row);
        *ret_stale += stale;
    }
    return list;
}

json_t *host_token_json(const struct host *host, struct agent_now now)
{
    const struct host_token *token = &host->token;
    if (token->at_ms == 0) {
        return json_pack("{s:s}", "state", "unknown");
    }
    json_int_t stale;
    json_t *agents = agents_json(host, now, &stale);
    bool silent = now.boot_ms - token->at_ms > SILENT_MS;
    json_t *json = json_pack(
        "{s:s, s:o, s:s, s:o, s:b, s:I, s:I, s:I, s:I, s:I}", "state", silent ? "away" : "serving",
        "reportedAt", host_time_json(token->at), "version", token->version, "startedAt",
        host_time_json(token->started_at), "outdated", strcmp(token->version, ATT_VERSION) != 0,
        "connections", (json_int_t)token->connections, "stale", stale, "strangers",
        (json_int_t)token->strangers, "accepted", (json_int_t)token->accepted, "refused",
        (json_int_t)token->refused);
    json_object_set_new(json, "signatures", json_integer((json_int_t)token->signatures));
    json_object_set_new(json, "refusals", json_integer((json_int_t)token->refusals));
    json_object_set_new(json, "died", json_integer((json_int_t)token->died));
    json_object_set_new(json, "leftOut", json_integer((json_int_t)token->left_out));
    json_object_set_new(json, "agents", agents);
    return json;
}
