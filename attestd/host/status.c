/* What attestd says about itself and its agents (docs/CONTROL.md). */
#include "attestd/host/internal.h"
#include "attestd/base/enc.h"
#include "certs/tls.h"

#include <string.h>

json_t *host_time_json(int64_t utc_s)
{
    if (utc_s == 0) {
        return json_null();
    }
    char text[ATT_TIME_TEXT_LEN];
    att_time_text(text, utc_s);
    return json_string(text);
}

json_t *host_error_json(const struct agent_error *error)
{
    if (error->at == 0) {
        return json_null();
    }
    return json_pack("{s:s, s:s, s:s, s:o}", "code", error->code, "reason",
                     error->reason[0] ? error->reason : error->code, "message", error->message,
                     "at", host_time_json(error->at));
}

static json_t *text_or_null(const char *text)
{
    return text[0] ? json_string(text) : json_null();
}

static json_t *retired_json(const struct agent_record *rec)
{
    json_t *list = json_array();
    for (size_t i = 0; i < rec->n_retired; i++) {
        json_array_append_new(list,
                              json_pack("{s:s, s:o}", "keyId", rec->retired[i].key_id, "notAfter",
                                        host_time_json(rec->retired[i].not_after)));
    }
    return list;
}

json_t *host_agent_json(const struct agent *agent, struct agent_now now)
{
    const struct agent_record *rec = &agent->rec;
    bool serving = agent_life_serving(&rec->life);
    int64_t left = serving ? rec->dates.not_after - now.utc_s : 0;
    int64_t back_off = agent->not_before_ms - now.boot_ms;
    int64_t renewal = serving ? agent_sched_wait_ms(&rec->dates, now) / 1000 : 0;
    if (back_off / 1000 > renewal) {
        renewal = back_off / 1000;
    }
    json_t *json =
        json_pack("{s:s, s:o, s:s, s:s, s:s, s:I, s:I, s:I}", "name", rec->name, "spiffeId",
                  text_or_null(rec->spiffe_id), "state", agent_state_name(rec->life.state), "key",
                  rec->key_store, "profile", rec->profile, "lifetimeS", (json_int_t)rec->lifetime_s,
                  "issued", (json_int_t)rec->issued, "attempts", (json_int_t)rec->attempts);
    json_object_set_new(json, "keyType", json_string(agent_record_key_type(rec)));
    json_object_set_new(json, "hsm", text_or_null(rec->hsm));
    json_object_set_new(json, "identifier", text_or_null(rec->identifier));
    json_object_set_new(json, "certificate", json_boolean(serving));
    json_object_set_new(json, "boot", text_or_null(serving ? rec->boot : ""));
    json_object_set_new(json, "serial", text_or_null(serving ? rec->serial : ""));
    json_object_set_new(json, "keyId", text_or_null(rec->key_id));
    json_object_set_new(json, "nextKeyId", text_or_null(rec->next_key_id));
    json_object_set_new(json, "retired", retired_json(rec));
    json_object_set_new(json, "orderUrl", text_or_null(rec->order_url));
    json_object_set_new(json, "notBefore", host_time_json(serving ? rec->dates.not_before : 0));
    json_object_set_new(json, "notAfter", host_time_json(serving ? rec->dates.not_after : 0));
    json_object_set_new(json, "renewAt", host_time_json(serving ? rec->dates.renew_at : 0));
    json_object_set_new(json, "leftS", serving ? json_integer(left) : json_null());
    json_object_set_new(json, "renewalInS",
                        rec->life.state == AGENT_FROZEN ? json_null() : json_integer(renewal));
    json_object_set_new(json, "busy", json_boolean(agent->busy));
    json_object_set_new(json, "lastError", host_error_json(&rec->last_error));
    return json;
}

/* ---- status ------------------------------------------------------------------------------------
 */

/* keyd's own words, with the percentiles also as one line for people. info: keyd's; NULL, and err
 * why. */
static json_t *tpm_json(const json_t *info, const struct att_err *err)
{
    if (!info) {
        return json_pack("{s:s, s:s}", "state", "keydAway", "reason", err->msg);
    }
    const json_t *from = json_object_get(info, "tpm");
    json_t *tpm = json_is_object(from) ? json_copy((json_t *)(uintptr_t)from) : json_object();
    json_object_set(tpm, "state", json_object_get(info, "state"));
    const char *const members[] = {"reason", "ops", "keys", "bad", "frozen", "sandbox", "sealing"};
    for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
        json_object_set(tpm, members[i], json_object_get(info, members[i]));
    }
    att_autobuf line = {0};
    const char *op;
    json_t *stats;
    json_object_foreach(json_object_get(info, "ops"), op, stats)
    {
        double p50 = (double)json_integer_value(json_object_get(stats, "p50Us")) / 1000;
        double p95 = (double)json_integer_value(json_object_get(stats, "p95Us")) / 1000;
        att_buf_printf(&line, "%s%s %.1f/%.1f", line.len ? ", " : "", op, p50, p95);
    }
    att_buf_put_str(&line, line.len ? " ms (p50/p95)" : "none yet");
    const char *text = att_buf_cstr(&line);
    json_object_set_new(tpm, "operations", json_string(text ? text : ""));
    return tpm;
}

static json_t *issuer_json(struct host *host)
{
    struct host_issuer issuer = {0};
    (void)!host_issuer_get(host, &issuer, NULL);
    HOST_LOCKED(host);
    bool reachable = host->last_contact_at != 0 && host->last_error.at <= host->last_contact_at;
    bool pq = strstr(host->tls_group, "MLKEM") != NULL;
    return json_pack(
        "{s:s, s:o, s:o, s:b, s:o, s:s, s:s, s:{s:s, s:s, s:b, s:b}}", "kind",
        issuer.origin_len ? "acme" : "attest-issuerd", "lacks",
        issuer.origin_len ? host_acme_lacks() : json_array(), "url", text_or_null(issuer.url),
        "reachable", reachable, "lastContact", host_time_json(host->last_contact_at), "trustDomain",
        host->trust_domain, "roots", issuer.learned ? "view" : "given", "tls", "version", "TLSv1.3",
        "group", host->tls_group, "postQuantum", pq, "postQuantumAvailable", certs_tls_has_pq());
}

/* Under lock. */
json_t *host_enrolment_json(const struct host *host)
{
    const struct host_record *rec = &host->rec;
    json_t *json =
        json_pack("{s:s, s:I, s:I}", "state", host_phase_name(host->phase), "resetCount",
                  (json_int_t)rec->reset_count, "restartCount", (json_int_t)rec->restart_count);
    json_object_set_new(json, "ekId", text_or_null(rec->host_id));
    json_object_set_new(json, "host",
                        text_or_null(host->conf->acme       ? ""
                                     : host->view_state[0]  ? host->view_state
                                     : rec->host_id[0] == 0 ? ""
                                     : rec->approved        ? "approved"
                                                            : "pending"));
    json_object_set_new(json, "account", text_or_null(rec->kid));
    json_object_set_new(json, "ak", text_or_null(rec->ak_url));
    json_object_set_new(json, "akExpires", host_time_json(rec->ak_expires_at));
    json_object_set_new(json, "enrolledAt", host_time_json(rec->ak_enrolled_at));
    json_object_set_new(json, "viewVersion", json_integer((json_int_t)host->view_version));
    json_t *crl = host_crl_json(host);
    json_object_set_new(json, "crl", crl ? crl : json_null());
    return json;
}

/* Which agents this host narrows by itself, and where that stands. */
static json_t *local_rules_json(const struct host_local *local)
{
    json_t *list = json_array();
    for (size_t i = 0; local && i < local->conf->n; i++) {
        const struct conf_local_rule *rule = &local->conf->rules[i];
        json_array_append_new(list,
                              json_pack("{s:s, s:s}", "agent", rule->name, "file", rule->file));
    }
    return list;
}

static json_t *sandbox_json(const struct proc_sandbox_report *report)
{
    return json_pack("{s:s, s:s, s:i, s:b, s:s}", "profile", att_log_text(report->profile),
                     "seccomp", att_log_text(report->seccomp), "landlock", report->landlock_abi,
                     "dumpable", report->dumpable, "reason", report->reason);
}

/* null: this host has none, or keyd is away. The default's members stand beside the list of all. */
static json_t *hsm_json(const json_t *info)
{
    const json_t *from = host_hsm_info(info);
    const json_t *modules = json_object_get(from, "modules");
    if (!from) {
        return json_null();
    }
    json_t *hsm = json_copy((json_t *)(uintptr_t)json_array_get(modules, 0));
    hsm = hsm ? hsm : json_object();
    json_object_set(hsm, "modules", (json_t *)(uintptr_t)modules);
    json_object_set(hsm, "elsewhere", (json_t *)(uintptr_t)json_object_get(from, "elsewhere"));
    return hsm;
}

enum att_rc host_status(struct host *host, json_t **ret_result, struct att_err *err)
{
    struct att_err why = {0};
    att_autojson *info = NULL;
    if (proc_keyd_info(host->keyd, &info, &why) != ATT_OK) {
        info = NULL;
    }
    json_t *json = json_pack("{s:s, s:o, s:o, s:o, s:o}", "version", ATT_VERSION, "startedAt",
                             host_time_json(host->started_at), "tpm", tpm_json(info, &why), "hsm",
                             hsm_json(info), "issuer", issuer_json(host));
    json_t *agents = json_array();
    struct agent_now now = host_now();
    HOST_LOCKED(host);
    for (size_t i = 0; i < agent_registry_count(host->reg); i++) {
        json_array_append_new(agents, host_agent_json(agent_registry_at(host->reg, i), now));
    }
    json_object_set_new(json, "enrolment", host_enrolment_json(host));
    json_object_set_new(json, "sandbox", sandbox_json(&host->sandbox));
    json_object_set_new(json, "clock",
                        json_pack("{s:o, s:I}", "lastJumpAt", host_time_json(host->clock_jump_at),
                                  "lastJumpMs", (json_int_t)host->clock_jump_ms));
    json_object_set_new(json, "callers",
                        json_pack("{s:I, s:I, s:I, s:I}", "granted",
                                  (json_int_t)host->workload_counts.granted, "refused",
                                  (json_int_t)host->workload_counts.refused, "limited",
                                  (json_int_t)host->workload_counts.limited, "byLocalRule",
                                  (json_int_t)host->workload_counts.by_local_rule));
    json_object_set_new(json, "localRules", local_rules_json(host->local));
    json_object_set_new(json, "token", host_token_json(host, now));
    json_object_set_new(json, "lastError", host_error_json(&host->last_error));
    json_object_set_new(json, "agents", agents);
    if (!json || !agents) {
        json_decref(json);
        return att_fail(err, ATT_E_NOMEM, "no memory for the status");
    }
    *ret_result = json;
    return ATT_OK;
}
