#include "attestd/host/metrics.h"

#include "attestd/base/metrics.h"
#include "attestd/web/plain.h"

#include <stdio.h>
#include <string.h>

#define TEXT_MAX ((size_t)4 << 20) /* AGENT_MAX agents with a dozen lines each */

/* ---- the host ----------------------------------------------------------------------------------
 */

static void put(struct att_metrics *m, const char *name, enum att_metric_kind kind,
                const char *help, double value)
{
    att_metrics_family(m, name, kind, help);
    att_metrics_value(m, NULL, NULL, value);
}

/* Left out where there is none: an age since 1970 would set off every alarm. */
static void put_time(struct att_metrics *m, const char *name, const char *help, int64_t at)
{
    att_metrics_family(m, name, ATT_GAUGE, help);
    if (at) {
        att_metrics_value(m, NULL, NULL, (double)at);
    }
}

static const char *reason_of(const struct agent_error *error)
{
    return error->reason[0] ? error->reason : error->code;
}

static bool serving(const struct agent *agent, struct agent_now now)
{
    return agent_life_serving(&agent->rec.life) && !agent_sched_expired(&agent->rec.dates, now);
}

/* NULL: enrolled, and each agent has a certificate in force. Under lock. */
static const char *not_ready(const struct host *host, struct agent_now now)
{
    if (host->phase != HOST_ENROLLED) {
        return host_phase_name(host->phase);
    }
    for (size_t i = 0; i < agent_registry_count(host->reg); i++) {
        const struct agent *agent = agent_registry_at(host->reg, i);
        enum agent_state state = agent->rec.life.state;
        if (state != AGENT_FROZEN && state != AGENT_REMOVED && !serving(agent, now)) {
            return "noCertificate";
        }
    }
    return NULL;
}

static void put_host(struct host *host, struct att_metrics *m, struct agent_now now)
{
    bool reachable = host->last_contact_at != 0 && host->last_error.at <= host->last_contact_at;
    att_metrics_family(m, "attestd_info", ATT_GAUGE, "The version that runs.");
    att_metrics_value(m, "version", ATT_VERSION, 1);
    put_time(m, "attestd_start_time_seconds", "Start, as Unix time.", host->started_at);
    put(m, "attestd_ready", ATT_GAUGE, "What /ready says.", not_ready(host, now) ? 0 : 1);
    att_metrics_family(m, "attestd_enrolment", ATT_GAUGE, "1 for the state that it is in.");
    for (int phase = HOST_STARTING; phase <= HOST_ENROLLED; phase++) {
        att_metrics_value(m, "state", host_phase_name((enum host_phase)phase),
                          host->phase == (enum host_phase)phase);
    }
    att_metrics_family(m, "attestd_failing", ATT_GAUGE,
                       "1: why the last round of enrolment and view failed.");
    if (host->last_error.at) {
        att_metrics_value(m, "reason", reason_of(&host->last_error), 1);
    }
    put(m, "attestd_issuer_reachable", ATT_GAUGE, "0: the last thing asked of it failed.",
        reachable);
    put_time(m, "attestd_issuer_contact_seconds", "The issuer's last answer, as Unix time.",
             host->last_contact_at);
    put_time(m, "attestd_attestation_key_not_after_seconds",
             "When the host has to enrol again, as Unix time.", host->rec.ak_expires_at);
    put(m, "attestd_view_version", ATT_GAUGE, "Of the issuer's view in force.",
        (double)host->view_version);
    put_time(m, "attestd_crl_next_update_seconds",
             "When a newer revocation list was promised, as Unix time.",
             host->crls.n && host->crls.v[0].crl ? host->crls.v[0].info.next_update : 0);
    put_time(m, "attestd_clock_jump_seconds", "When the clock was last set, as Unix time.",
             host->clock_jump_at);
    put(m, "attestd_renewal_tpm_seconds", ATT_GAUGE, "The TPM's part of a renewal, p95.",
        (double)host->tpm_p95_us / 1e6);
}

/* ---- agents and their callers ------------------------------------------------------------------
 */

static void put_states(const struct host *host, struct att_metrics *m)
{
    size_t counts[AGENT_STATE_COUNT] = {0};
    for (size_t i = 0; i < agent_registry_count(host->reg); i++) {
        counts[agent_registry_at(host->reg, i)->rec.life.state]++;
    }
    att_metrics_family(m, "attestd_agents", ATT_GAUGE, "Agents by state (docs/CONTROL.md).");
    for (size_t i = 0; i < AGENT_STATE_COUNT; i++) {
        att_metrics_value(m, "state", agent_state_name((enum agent_state)i), (double)counts[i]);
    }
}

/* One family for all agents; of each, what of gives. */
static void put_agents(const struct host *host, struct att_metrics *m, const char *name,
                       enum att_metric_kind kind, const char *help,
                       double (*of)(const struct agent *))
{
    att_metrics_family(m, name, kind, help);
    for (size_t i = 0; i < agent_registry_count(host->reg); i++) {
        const struct agent *agent = agent_registry_at(host->reg, i);
        att_metrics_value(m, "agent", agent->rec.name, of(agent));
    }
}

/* 0 where none is in force: it has ended. */
static double not_after(const struct agent *agent)
{
    bool is = agent_life_serving(&agent->rec.life);
    return is ? (double)agent->rec.dates.not_after : 0;
}

static double renew_at(const struct agent *agent)
{
    bool is = agent_life_serving(&agent->rec.life);
    return is ? (double)agent->rec.dates.renew_at : 0;
}

static double issued(const struct agent *agent)
{
    return (double)agent->rec.issued;
}

static double attempts(const struct agent *agent)
{
    return (double)agent->rec.attempts;
}

static void put_all_agents(const struct host *host, struct att_metrics *m)
{
    put_states(host, m);
    put_agents(host, m, "attestd_agent_certificate_not_after_seconds", ATT_GAUGE,
               "When the certificate in force ends, as Unix time; 0: there is none.", not_after);
    put_agents(host, m, "attestd_agent_renewal_seconds", ATT_GAUGE,
               "When it is to be renewed, as Unix time; 0: there is none.", renew_at);
    put_agents(host, m, "attestd_agent_certificates", ATT_COUNTER,
               "Certificates installed since the agent was assigned.", issued);
    put_agents(host, m, "attestd_agent_attempts", ATT_GAUGE,
               "Attempts that failed since the last certificate.", attempts);
    att_metrics_family(m, "attestd_agent_failing", ATT_GAUGE, "1: why the last attempt failed.");
    for (size_t i = 0; i < agent_registry_count(host->reg); i++) {
        const struct agent_record *rec = &agent_registry_at(host->reg, i)->rec;
        if (rec->attempts && rec->last_error.at) {
            att_metrics_value2(m, "agent", rec->name, "reason", reason_of(&rec->last_error), 1);
        }
    }
    att_metrics_family(m, "attestd_agent_issuance_seconds", ATT_GAUGE,
                       "What the last certificate took, by stage.");
    for (size_t i = 0; i < agent_registry_count(host->reg); i++) {
        const struct agent *agent = agent_registry_at(host->reg, i);
        for (size_t k = 0; k < AGENT_STAGE_COUNT; k++) {
            if (agent->stage_us[k]) {
                att_metrics_value2(m, "agent", agent->rec.name, "stage",
                                   agent_stage_name((enum agent_stage)k),
                                   (double)agent->stage_us[k] / 1e6);
            }
        }
    }
}

static void put_callers(const struct host *host, struct att_metrics *m)
{
    const struct host_workload_counts *n = &host->workload_counts;
    att_metrics_family(m, "attestd_callers", ATT_COUNTER, "Local callers, by what became of them.");
    att_metrics_value(m, "outcome", "granted", (double)n->granted);
    att_metrics_value(m, "outcome", "limited", (double)n->limited);
    att_metrics_value(m, "outcome", "localRule", (double)n->by_local_rule);
    att_metrics_value(m, "outcome", "refused",
                      (double)(n->refused - n->limited - n->by_local_rule));
    const struct host_token *token = &host->token;
    put_time(m, "attestd_token_report_seconds", "The token service's last report, as Unix time.",
             token->at);
    if (token->at) {
        put(m, "attestd_token_connections", ATT_GAUGE, "Connections of PKCS#11 clients.",
            (double)token->connections);
        put(m, "attestd_token_signatures", ATT_COUNTER, "Signatures since its start.",
            (double)token->signatures);
        put(m, "attestd_token_refusals", ATT_COUNTER, "Signatures refused since its start.",
            (double)token->refusals);
    }
}

/* ---- the listener ------------------------------------------------------------------------------
 */

static void say(struct web_answer *answer, const char *why, const char *good)
{
    answer->status = why ? "503 Service Unavailable" : "200 OK";
    snprintf(answer->headers, sizeof answer->headers,
             "Content-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\n");
    att_buf_printf(&answer->body, "%s\n", why ? why : good);
}

static void answer(void *user, const struct web_request *request, struct web_answer *ret_answer)
{
    struct host *host = user;
    const char *type;
    HOST_LOCKED(host);
    struct agent_now now = host_now();
    if (strcmp(request->path, "/live") == 0) {
        say(ret_answer, NULL, "live");
    } else if (strcmp(request->path, "/ready") == 0) {
        say(ret_answer, not_ready(host, now), "ready");
    } else if (strcmp(request->path, "/metrics") == 0) {
        struct att_metrics m = {.out = &ret_answer->body,
                                .form = att_metrics_accept(request->accept, &type)};
        ret_answer->body = ATT_BUF_INIT(TEXT_MAX);
        ret_answer->status = "200 OK";
        snprintf(ret_answer->headers, sizeof ret_answer->headers, "Content-Type: %s\r\n", type);
        put_host(host, &m, now);
        put_all_agents(host, &m);
        put_callers(host, &m);
        att_metrics_end(&m);
    }
}

enum att_rc host_metrics_start(struct host *host, struct web_plain **ret_server,
                               struct att_err *err)
{
    const struct conf_listener *at = &host->conf->metrics_at;
    *ret_server = NULL;
    if (at->none) {
        return ATT_OK;
    }
    const struct web_opts opts = {.what = "metrics_listen",
                                  .host = at->host,
                                  .port = at->port,
                                  .unix_path = at->path[0] ? at->path : NULL,
                                  .handler = answer,
                                  .user = host};
    enum att_rc rc = web_plain_new(&opts, ret_server, err);
    if (rc == ATT_OK) {
        att_log(ATT_INFO, "metrics.listening", ATT_S("listen", host->conf->metrics_listen),
                ATT_N("port", web_plain_port(*ret_server)));
    }
    return rc;
}
