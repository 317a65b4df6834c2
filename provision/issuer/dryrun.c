/* Policies at the admin socket, but for their rows: a profile's mode, and the dry run: would the
 * fleet's last evidence pass this policy? Each quote was judged when it came; here its PCR values
 * and logs are judged again, by another policy, and nothing changes. */
#include "provision/issuer/admin.h"

#include "provision/enrol/messages.h"
#include "provision/verify/draft.h"

#include <stdio.h>
#include <string.h>

#define HOSTS_MAX         1000 /* of an answer */
#define FINDINGS_PER_HOST 16

void issuer_host_evidence(json_t *notes, const char *kind, const char *sha256, const char *boot,
                          const json_t *logs, int64_t now)
{
    json_object_set_new(notes, "lastEvidence",
                        json_pack("{s:o, s:s, s:s, s:s, s:O}", "at", issuer_time_json(now), "kind",
                                  kind, "sha256", sha256, "boot", boot, "logs", logs));
}

enum att_rc issuer_admin_policy_mode(struct issuer_admin_call *call, struct store_tx *tx,
                                     struct att_err *err)
{
    issuer_autosettings *settings = issuer_settings_get(call->issuer);
    const char *profile = issuer_arg(call, "profile");
    struct issuer_policy_use use = {0};
    if (strcmp(profile, CONF_ENROLMENT) != 0 && !conf_issuer_profile(settings->conf, profile)) {
        return issuer_refuse(err, ATT_E_NOTFOUND, "profileUnknown", "there is no profile \"%.64s\"",
                             profile);
    }
    enum att_rc rc =
        issuer_policy_set_mode(tx, profile, issuer_arg(call, "mode"), call->who, call->now, err);
    rc = rc ? rc : issuer_policy_use(tx, settings->conf, profile, &use, err);
    if (!rc) {
        json_object_set_new(call->result, "profile", json_string(profile));
        json_object_set_new(call->result, "mode", json_string(verify_mode_word(use.mode)));
    }
    return rc;
}

/* ---- the dry run ----------------------------------------------------------------------------- */

struct dryrun {
    struct issuer_admin_call *call;
    struct store_tx *tx;
    const struct verify_policy *policy;
    const char *host, *after; /* NULL: every one, from the start */
    bool all;                 /* also hosts that were judged by policies of another name */
    json_t *hosts;
    json_int_t passed, refused, unknown, limit;
    char last[80]; /* the host that the next call goes on after; "": there is none */
    bool more;
};

static enum att_rc read_evidence(struct dryrun *d, const json_t *evidence,
                                 struct enrol_m2_request *m2, struct enrol_m4_request *m4,
                                 struct parse_pcr_set **ret_pcrs, struct evidence_logs **ret_logs,
                                 struct att_err *err)
{
    att_autobuf bytes = {0};
    enum att_rc rc = store_blob_get(d->tx, issuer_string(evidence, "sha256"), &bytes, err);
    if (rc) {
        return rc;
    }
    if (strcmp(issuer_string(evidence, "kind"), "m4") == 0) {
        rc = enrol_m4_request_parse(att_buf_slice(&bytes), m4, err);
        *ret_pcrs = &m4->pcrs;
        *ret_logs = &m4->logs;
    } else {
        rc = enrol_m2_request_parse(att_buf_slice(&bytes), m2, err);
        *ret_pcrs = &m2->pcrs;
        *ret_logs = &m2->logs;
    }
    return rc ? rc
              : issuer_logs_supply_kept(d->tx, json_object_get(evidence, "logs"), *ret_logs, err);
}

static json_t *findings_json(const struct verify_verdict *verdict)
{
    json_t *list = json_array();
    for (size_t i = 0; i < verdict->n_findings && i < FINDINGS_PER_HOST; i++) {
        json_array_append_new(list, verify_finding_json(&verdict->findings[i]));
    }
    return list;
}

/* Every log that came is judged, as it would be by a profile that asks for the same. */
static void judge(struct dryrun *d, const struct parse_pcr_set *pcrs,
                  const struct evidence_logs *logs, json_t *row)
{
    verify_autoverdict *verdict = verify_verdict_new();
    const struct verify_policy_in in = {.policy = d->policy, .now = d->call->now, .quoted = pcrs};
    uint32_t wanted = 0;
    for (size_t i = 0; i < logs->n; i++) {
        wanted |= verify_log_bit(att_slice_str(logs->log[i].name));
    }
    if (!verdict) {
        d->unknown++;
        return;
    }
    bool good = verify_policy_try(&in, logs, wanted, verdict) == VERIFY_ACCEPTED;
    d->passed += good;
    d->refused += !good;
    json_object_set_new(row, "outcome", json_string(good ? "pass" : "refuse"));
    const struct verify_check *refusal = verify_verdict_refusal(verdict);
    if (refusal) {
        json_object_set_new(row, "reason", json_string(verify_reason_word(refusal->reason)));
        json_object_set_new(row, "detail", json_string(refusal->detail));
    }
    json_object_set_new(row, "findings", findings_json(verdict));
}

static void try_host(struct dryrun *d, const struct store_host *host, const json_t *evidence)
{
    struct enrol_m2_request m2 = {0};
    struct enrol_m4_request m4 = {0};
    struct parse_pcr_set *pcrs = NULL;
    struct evidence_logs *logs = NULL;
    struct att_err why = {0};
    json_t *row =
        json_pack("{s:s, s:s, s:s}", "host", host->id, "label", host->label, "outcome", "unknown");
    json_object_set(row, "at", json_object_get(evidence, "at"));
    if (!evidence) {
        json_object_set_new(row, "detail", json_string("no evidence of this host is kept"));
        d->unknown++;
    } else if (read_evidence(d, evidence, &m2, &m4, &pcrs, &logs, &why)) {
        json_object_set_new(row, "detail", json_string(why.msg));
        d->unknown++;
    } else {
        judge(d, pcrs, logs, row);
    }
    enrol_m2_request_done(&m2);
    enrol_m4_request_done(&m4);
    json_array_append_new(d->hosts, row);
}

static enum att_rc each_host(void *user, const void *record, struct att_err *err)
{
    struct dryrun *d = user;
    const struct store_host *host = record;
    (void)err;
    att_autojson *notes = issuer_json(host->notes);
    const json_t *evidence = json_object_get(notes, "lastEvidence");
    if (d->more ||
        (!d->all && !d->host && strcmp(issuer_string(evidence, "boot"), d->policy->name) != 0)) {
        return ATT_OK;
    }
    if ((json_int_t)json_array_size(d->hosts) >= d->limit) {
        d->more = true;
        return ATT_OK;
    }
    try_host(d, host, evidence);
    snprintf(d->last, sizeof d->last, "%s", host->id);
    return ATT_OK;
}

enum att_rc issuer_admin_policy_dryrun(struct issuer_admin_call *call, struct store_tx *tx,
                                       struct att_err *err)
{
    verify_autopolicy *policy = NULL;
    struct store_host host = {0};
    const char *file = issuer_arg(call, "filename");
    enum att_rc rc = verify_policy_parse(att_slice_str(issuer_arg(call, "text")), &policy, err);
    if (rc) {
        att_err_prefix(err, "%s", file && *file ? file : "policy");
        return rc;
    }
    rc = issuer_allowlists_bind(call->issuer, tx, policy, err);
    if (rc) {
        return rc;
    }
    rc = issuer_arg(call, "id") ? issuer_arg_host(call, tx, &host, err) : ATT_OK;
    int64_t limit = issuer_arg_int(call, "limit", 200);
    if (!rc && (limit < 1 || limit > HOSTS_MAX)) {
        rc = issuer_refuse(err, ATT_E_INVAL, "usage", "limit: expected 1 to %d, found %lld",
                           HOSTS_MAX, (long long)limit);
    }
    struct dryrun d = {.call = call,
                       .tx = tx,
                       .policy = policy,
                       .host = host.id,
                       .after = issuer_arg(call, "after"),
                       .all = json_is_true(json_object_get(call->args, "all")),
                       .hosts = json_array(),
                       .limit = (json_int_t)limit};
    json_object_set_new(call->result, "hosts", d.hosts);
    if (!rc) {
        rc = issuer_page_host(d.after, err);
    }
    if (!rc) {
        rc = d.host ? each_host(&d, &host, err)
                    : issuer_hosts_behind(tx, d.after, each_host, &d, &d.more, err);
    }
    store_record_done(&store_hosts, &host);
    if (rc) {
        return rc;
    }
    json_t *more = json_pack("{s:s, s:I, s:I, s:I, s:I}", "policy", policy->name, "version",
                             (json_int_t)policy->version, "passed", d.passed, "refused", d.refused,
                             "unknown", d.unknown);
    if (d.more) {
        json_object_set_new(more, "next", json_string(d.last));
    }
    json_object_update(call->result, more);
    json_decref(more);
    return ATT_OK;
}
