/* M4: the evidence of one order is judged. */
#include "provision/issuer/order.h"

#include "certs/chain.h"
#include "certs/san.h"
#include "provision/enrol/messages.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct m4 {
    struct issuer_call *call;
    struct enrol_m4_request request;
    struct store_order order;
    struct store_host host;
    struct store_ak ak;
    struct store_entry entry;
    struct issuer_entry *parsed;
    struct issuer_policy *policy; /* NULL: none, or it is not there */
    struct issuer_policy_use use; /* of the profile */
    char *parent;                 /* issuer_sealed_note */
    char m4[65];                  /* what was judged, as it is kept */
    struct verify_verdict *verdict;
    struct verify_agent_facts facts;
    struct verify_measured_facts measured;
    bool judged;
    const struct att_err *refusal;
    char problem[4096];
    json_t *notes; /* of host, as it was loaded */
    json_t *known;
};

enum att_rc issuer_order_check(struct issuer_call *call, struct store_tx *tx,
                               const struct store_order *order, const char *ak_id,
                               struct store_host *ret_host, struct store_ak *ret_ak,
                               struct store_entry *ret_entry, struct issuer_entry **ret_parsed,
                               struct att_err *err)
{
    enum att_rc rc = store_get(tx, &store_hosts, order->host, ret_host, NULL);
    if (rc == ATT_E_NOTFOUND) {
        return issuer_refuse(err, ATT_E_DENIED, "hostUnknown", "the order's host is gone");
    }
    if (rc) {
        return att_fail(err, rc, "hosts cannot be read");
    }
    rc = issuer_host_check(ret_host, err);
    if (!rc && strcmp(ret_host->account, call->account.thumbprint) != 0) {
        rc = issuer_refuse(err, ATT_E_DENIED, "accountMismatch",
                           "host %.12s belongs to another account", ret_host->id);
    }
    issuer_autoentry *parsed = NULL;
    if (!rc) {
        rc = issuer_entry_for(call->issuer, tx, order->entry, ret_host, ret_entry, &parsed, err);
    }
    if (!rc && (strcmp(parsed->v->profile, order->profile) != 0 ||
                strcmp(ret_entry->spiffe_id, order->identifier) != 0)) {
        rc = issuer_refuse(err, ATT_E_DENIED, "notAssigned", "the entry of agent %s has changed",
                           order->entry);
    }
    if (rc) {
        return rc;
    }
    rc = store_get(tx, &store_aks, ak_id, ret_ak, NULL);
    if (rc && rc != ATT_E_NOTFOUND) {
        return att_fail(err, rc, "AK records cannot be read");
    }
    if (rc || strcmp(ret_ak->state, STORE_AK_VALID) != 0 ||
        strcmp(ret_ak->account, call->account.id) != 0 || strcmp(ret_ak->host, ret_host->id) != 0) {
        return issuer_refuse(err, ATT_E_DENIED, "akUnknown",
                             "the AK record is %s: the host has to enrol again",
                             rc ? "not there" : ret_ak->state);
    }
    if (ret_parsed) {
        *ret_parsed = parsed;
        parsed = NULL;
    }
    return ATT_OK;
}

static enum att_rc load(void *user, struct store_tx *tx, struct att_err *err)
{
    struct m4 *m = user;
    struct issuer_call *call = m->call;
    enum att_rc rc = issuer_order_load(call, tx, &m->order, err);
    if (rc) {
        return rc;
    }
    if (strcmp(issuer_order_status(&m->order, call->now), "pending") != 0 ||
        strcmp(m->order.chall_status, "pending") != 0) {
        return issuer_problem(call, err, ACME_P_MALFORMED, NULL,
                              "the challenge is not pending: no authorization is used twice");
    }
    rc = issuer_logs_asked(&m->request.logs, m->order.logs, err);
    if (rc) {
        return issuer_problem(call, err, ACME_P_MALFORMED, NULL, "%s", err->msg);
    }
    const char *ak = issuer_url_id(call->issuer, "ak", m->request.ak_url);
    rc = issuer_order_check(call, tx, &m->order, ak ? ak : "", &m->host, &m->ak, &m->entry,
                            &m->parsed, err);
    m->notes = issuer_json(m->host.notes);
    if (!rc) {
        rc = issuer_policy_get(call->issuer, tx, m->order.policy, &m->policy, err);
    }
    if (!rc) {
        rc = issuer_policy_use(tx, call->settings->conf, m->order.profile, &m->use, err);
    }
    if (!rc) {
        m->known = issuer_logs_known(tx, m->notes);
        rc = issuer_logs_supply(tx, m->notes, &m->request.logs, err);
    }
    return rc;
}

static uint32_t key_bit(enum conf_key_kind kind)
{
    return kind == CONF_KEY_TPM          ? VERIFY_KEY_TPM
           : kind == CONF_KEY_HSM        ? VERIFY_KEY_HSM
           : kind == CONF_KEY_MEMORY     ? VERIFY_KEY_MEMORY
           : kind == CONF_KEY_EXPORTABLE ? VERIFY_KEY_EXPORTABLE
                                         : 0;
}

static uint32_t key_stores(const struct conf_profile *profile)
{
    uint32_t bits = 0;
    for (unsigned i = 0; i < profile->n_keys; i++) {
        bits |= key_bit(conf_key_kind_parse(profile->keys[i]));
    }
    return bits;
}

static uint32_t key_types(const struct conf_profile *profile)
{
    uint32_t bits = 0;
    for (unsigned i = 0; i < profile->n_key_types; i++) {
        bits |= VERIFY_TYPE(att_keytype_parse(att_slice_str(profile->key_types[i])));
    }
    return bits;
}

static enum att_rc ak_cert_der(const struct store_ak *ak, struct att_buf *ret_der,
                               struct att_err *err)
{
    if (!ak->cert[0]) {
        return ATT_OK; /* signed but not yet recorded: nothing to compare with */
    }
    struct att_slice pem = att_slice_str(ak->cert);
    return certs_pem_take(&pem, ret_der, err);
}

static enum att_rc judge(struct m4 *m, struct att_err *err)
{
    struct issuer_call *call = m->call;
    const struct conf_profile *profile =
        conf_issuer_profile(call->settings->conf, m->order.profile);
    if (!profile) {
        return issuer_refuse(err, ATT_E_DENIED, "notAssigned", "profile %s is no more",
                             m->order.profile);
    }
    att_autobuf key_auth = {0}, ak_cert = {0};
    struct verify_clock clock = {0};
    bool have_clock =
        issuer_clock_then(m->order.clock, call->now - m->order.created_at, m->notes, &clock);
    struct verify_clock enrolled = issuer_ak_clock(&m->ak);
    acme_key_authorization(m->order.token, call->account.thumbprint, &key_auth);
    struct verify_agent_in in = {
        .att_obj = att_buf_slice(&m->request.attobj),
        .evidence = att_buf_slice(&m->request.evidence),
        .quoted = {att_buf_slice(&m->request.quote.attest), att_buf_slice(&m->request.quote.sig),
                   &m->request.pcrs, &m->request.logs},
        .srk_pub = att_buf_slice(&m->request.srk_pub),
        .parent_pub = att_buf_slice(&m->request.parent_pub),
        .key_authorization = att_buf_cstr(&key_auth),
        .identifier = m->order.identifier,
        .key_stores = key_stores(profile),
        .key_types = key_types(profile),
        .hsms = (const char *const *)profile->hsms,
        .n_hsms = profile->n_hsms,
        .entry_hsm = m->parsed->v->hsm,
        .parent_pcr7 = profile->parent_pcr7,
        .ak = {.ak_pub = att_buf_slice(&m->ak.pub),
               .clock = &clock,
               .enrolled = &enrolled,
               .expires_at = m->ak.expires_at},
        .boot = {.logs = issuer_logs_bits(m->order.logs),
                 .boot_none = strcmp(m->order.policy, "none") == 0,
                 .policy = m->policy ? m->policy->v : NULL,
                 .signers = m->use.signers,
                 .n_signers = m->use.n_signers,
                 .mode = m->use.mode,
                 .now = call->now,
                 .memo = call->issuer->memo},
    };
    if (profile->has_parent_policy) {
        in.parent_policy = ATT_SLICE_ARRAY(profile->parent_policy_bytes);
    }
    in.entry_store = key_bit(m->parsed->v->key);
    in.entry_type = VERIFY_TYPE(m->parsed->v->key_type);
    if (!in.entry_store) {
        return issuer_refuse(err, ATT_E_DENIED, "keyStore", "the entry names no key store");
    }
    enum att_rc rc = ak_cert_der(&m->ak, &ak_cert, err);
    if (!rc) {
        in.ak.ak_cert = att_buf_slice(&ak_cert);
        rc = parse_pcr_sel_parse(m->order.pcr_selection, &in.boot.selection, err);
    }
    if (!rc && (!have_clock || !in.key_authorization)) {
        rc = issuer_refuse(err, ATT_E_DENIED, "akUnknown", "the host's clock is not on record");
    }
    if (rc) {
        return rc;
    }
    m->judged = true;
    enum verify_result result = verify_agent(&in, m->verdict, &m->facts);
    if (result == VERIFY_ACCEPTED) {
        result = verify_firmware(call->settings->deny, call->settings->n_deny, m->host.manufacturer,
                                 m->facts.quote.clock.firmware_version, NULL, m->verdict);
    }
    if (result != VERIFY_ACCEPTED) {
        return verify_verdict_err(m->verdict, err);
    }
    if (!issuer_sealed_note(&m->facts, profile, m->request.parent_counter, &m->parent)) {
        return att_fail(err, ATT_E_NOMEM, "no memory");
    }
    return issuer_measured_judge(m->parsed->v, &m->request, &in, &m->facts, m->verdict,
                                 &m->measured, err);
}

/* ---- the record
 * ------------------------------------------------------------------------------------------------
 */

/* The head of the host's own log is anchored by this record, if the quote speaks for it. A host
 * that keeps none says zeros. */
static void put_host_log(const struct m4 *m, json_t *r)
{
    static const uint8_t none[ATT_SHA256_LEN];
    char hex[2 * ATT_SHA256_LEN + 1];
    if (memcmp(m->facts.host_log_head, none, sizeof none) != 0) {
        att_hex(hex, ATT_SLICE_ARRAY(m->facts.host_log_head));
        json_object_set_new(r, "hostLogHead", json_string(hex));
    }
}

static enum att_rc record(struct m4 *m, struct store_tx *tx, const char *outcome,
                          const char *reason, const char *detail, const json_t *logs,
                          char ret_digest[65], struct att_err *err)
{
    struct issuer_call *call = m->call;
    uint8_t digests[EVIDENCE_LOGS_MAX][ATT_SHA256_LEN];
    size_t n_digests = issuer_logs_digests(&m->request.logs, digests);
    att_autobuf bytes = {0};
    /* What was judged, not what else came along; logs are kept by themselves. */
    enum att_rc rc = enrol_m4_request_encode(&m->request, (const uint8_t(*)[ATT_SHA256_LEN])digests,
                                             n_digests, &bytes, err);
    if (!rc) {
        rc = store_blob_put(tx, att_buf_slice(&bytes), call->now, m->m4, err);
    }
    if (rc) {
        return rc;
    }
    json_t *r = issuer_record("issue", outcome, reason, detail, m->order.identifier);
    json_t *verdict = NULL;
    const char *const names[] = {"order", "host",         "ak",    "profile",
                                 "boot",  "pcrSelection", "token", "account"};
    const char *const values[] = {
        m->order.id,      m->order.host,           m->ak.id ? m->ak.id : "",
        m->order.profile, m->order.policy,         m->order.pcr_selection,
        m->order.token,   call->account.thumbprint};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        json_object_set_new(r, names[i], json_string(values[i]));
    }
    json_object_set_new(r, "entryVersion", json_integer(m->entry.version));
    json_object_set_new(r, "policyVersion", json_integer(m->policy ? m->policy->v->version : 0));
    if (m->policy) {
        json_object_set_new(r, "mode", json_string(verify_mode_word(m->use.mode)));
    }
    if (strcmp(outcome, "granted") == 0) {
        json_object_set_new(r, "keyStore", json_string(m->facts.key_store));
        json_object_set_new(r, "keyType", json_string(m->facts.key_type));
        if (m->facts.hsm[0]) {
            json_object_set_new(r, "hsm", json_string(m->facts.hsm));
        }
        if (m->facts.has_hsm_token) {
            const struct evidence_hsm_token *token = &m->facts.hsm_token;
            json_object_set_new(r, "hsmToken",
                                json_pack("{s:s, s:s, s:s}", "manufacturer", token->manufacturer,
                                          "model", token->model, "serial", token->serial));
        }
    }
    json_t *measured = issuer_measured_json(&m->measured);
    if (measured) {
        json_object_set_new(r, "measured", measured);
    }
    json_t *sealed = issuer_sealed_json(m->parent);
    if (sealed) {
        json_object_set_new(r, "sealed", sealed);
    }
    put_host_log(m, r);
    json_object_set_new(r, "evidence", json_pack("{s:s, s:O*}", "m4", m->m4, "logs", logs));
    if (m->judged && verify_verdict_json(m->verdict, &verdict, NULL) == ATT_OK) {
        json_object_set_new(r, "verdict", verdict);
    }
    return issuer_audit(tx, call->now, r, ret_digest, err);
}

/* The quote was good, whatever was found of the boot. */
static bool quote_held(const char *outcome, const char *reason)
{
    return strcmp(outcome, "granted") == 0 || strcmp(reason, "bootPolicy") == 0 ||
           strncmp(reason, "policy", strlen("policy")) == 0;
}

/* The host's row as it is now, with what this verdict adds; several agents of a host may be judged
 * at the same time, and the newest clock stays. */
static enum att_rc note_host(struct m4 *m, struct store_tx *tx, const char *outcome,
                             const char *reason, const json_t *logs, struct att_err *err)
{
    struct store_host host = {0};
    struct verify_clock have = {0};
    enum att_rc rc = store_get(tx, &store_hosts, m->order.host, &host, err);
    if (rc) {
        return rc;
    }
    att_autojson *notes = issuer_json(host.notes);
    bool granted = strcmp(outcome, "granted") == 0;
    bool newer = granted && (!issuer_host_clock(notes, &have) ||
                             issuer_clock_newer(&m->facts.quote.clock, &have));
    issuer_host_note(notes, newer ? &m->facts.quote.clock : NULL, outcome, reason,
                     m->order.identifier, granted ? logs : NULL, m->judged ? m->verdict : NULL,
                     m->call->now);
    if (!granted && m->judged) {
        rc = issuer_refusal_note(notes, &m->order, reason, m->call->now, err);
    }
    if (!rc && logs && quote_held(outcome, reason)) {
        issuer_autofree *boot = strndup(m->order.policy, strcspn(m->order.policy, "/"));
        rc = boot ? ATT_OK : att_fail(err, ATT_E_NOMEM, "no memory");
        issuer_host_evidence(notes, "m4", m->m4, boot ? boot : "", logs, m->call->now);
    }
    if (!rc) {
        rc = issuer_host_set_notes(&host, notes, m->call->now, err);
    }
    if (!rc) {
        rc = store_put(tx, &store_hosts, &host, err);
    }
    store_record_done(&store_hosts, &host);
    return rc;
}

static enum att_rc still_pending(struct m4 *m, struct store_tx *tx, struct store_order *order,
                                 struct att_err *err)
{
    enum att_rc rc = store_get(tx, &store_orders, m->order.id, order, err);
    if (!rc && (strcmp(issuer_order_status(order, m->call->now), "pending") != 0 ||
                strcmp(order->chall_status, "pending") != 0)) {
        rc = issuer_problem(m->call, err, ACME_P_MALFORMED, NULL,
                            "the challenge is not pending: no authorization is used twice");
    }
    return rc;
}

static enum att_rc grant(void *user, struct store_tx *tx, struct att_err *err)
{
    struct m4 *m = user;
    struct store_order order = {0};
    struct store_host host = {0};
    struct store_ak ak = {0};
    struct store_entry entry = {0};
    json_t *logs = NULL;
    char digest[65];
    enum att_rc rc = still_pending(m, tx, &order, err);
    if (!rc) {
        rc = issuer_order_check(m->call, tx, &order, m->ak.id, &host, &ak, &entry, NULL, err);
    }
    /* The key was judged by what the entry said when the evidence was read; finalize takes the
     * entry's word for the key's kind, if its version is the one that is noted here. */
    if (!rc && (entry.version != m->entry.version || order.entry_version == ISSUER_ENTRY_GONE)) {
        rc = issuer_refuse(err, ATT_E_DENIED, "notAssigned",
                           "the entry of agent %s changed during the verdict", order.entry);
    }
    if (!rc) {
        rc = issuer_logs_keep(m->call, tx, m->notes, &m->request.logs, &logs, err);
    }
    if (!rc) {
        issuer_logs_bound_tails(m->call, &m->request.logs);
        rc = record(m, tx, "granted", NULL, NULL, logs, digest, err);
    }
    if (!rc) {
        rc = note_host(m, tx, "granted", "", logs, err);
    }
    if (!rc) {
        order.verdict_at = m->call->now;
        order.expires_at = m->call->now + ISSUER_ORDER_S;
        order.entry_version = entry.version;
        att_buf_reset(&order.key_spki);
        att_buf_put(&order.key_spki, m->facts.spki, m->facts.spki_len);
        issuer_autofree *policy = NULL;
        /* What only the mode let through is told from what the policy allows: finalize asks. */
        if (asprintf(&policy, "%s/%u%s", m->facts.quote.boot, m->facts.quote.policy_version,
                     m->verdict->n_refusing ? ISSUER_UNENFORCED : "") < 0) {
            policy = NULL;
        }
        rc = policy && issuer_set(&order.status, "ready") &&
                     issuer_set(&order.chall_status, "valid") && issuer_set(&order.ak, ak.id) &&
                     issuer_set(&order.policy, policy) && issuer_set(&order.decision, digest) &&
                     issuer_measured_note(&m->measured, &order.measured) &&
                     issuer_set(&order.hsm, m->facts.hsm) &&
                     issuer_set(&order.parent, m->parent ? m->parent : "") && !order.key_spki.failed
                 ? store_put(tx, &store_orders, &order, err)
                 : att_fail(err, ATT_E_NOMEM, "no memory");
    }
    if (!rc) {
        store_record_done(&store_orders, &m->order);
        m->order = order;
        order = (struct store_order){0};
    }
    json_decref(logs);
    store_record_done(&store_orders, &order);
    store_record_done(&store_hosts, &host);
    store_record_done(&store_aks, &ak);
    store_record_done(&store_entries, &entry);
    return rc;
}

static enum att_rc refuse(void *user, struct store_tx *tx, struct att_err *err)
{
    struct m4 *m = user;
    struct store_order order = {0};
    const char *reason = m->refusal->reason;
    json_t *logs = NULL;
    enum att_rc rc = still_pending(m, tx, &order, err);
    if (!rc) {
        rc = issuer_logs_keep_refused(m->call, tx, m->notes, &m->request.logs, &logs, err);
    }
    if (!rc) {
        issuer_logs_bound_tails(m->call, &m->request.logs);
        rc = record(m, tx, "refused", reason, m->refusal->msg, logs, NULL, err);
    }
    if (!rc) {
        rc = issuer_set(&order.status, "invalid") && issuer_set(&order.chall_status, "invalid") &&
                     issuer_set(&order.error, m->problem)
                 ? store_put(tx, &store_orders, &order, err)
                 : att_fail(err, ATT_E_NOMEM, "no memory");
    }
    if (!rc && m->host.id) {
        rc = note_host(m, tx, "refused", reason, logs, err);
    }
    json_decref(logs);
    /* Signed by the enrolled AK: the verdict comes to this reason only after the signature. */
    if (!rc && m->judged && strcmp(reason, "tpmCleared") == 0) {
        rc = issuer_host_cleared(tx, m->order.host, m->call->now, err);
    }
    if (!rc) {
        store_record_done(&store_orders, &m->order);
        m->order = order;
        order = (struct store_order){0};
    }
    store_record_done(&store_orders, &order);
    return rc;
}

/* A verdict of "no" is an answer: the challenge comes back invalid, with the reason in it. */
static enum att_rc settle_refusal(struct m4 *m, struct att_err *why, struct att_err *err)
{
    struct acme_problem problem = {0};
    json_t *json = NULL;
    acme_problem_set(&problem, ACME_P_BAD_ATTESTATION_STATEMENT, "%s", why->msg);
    acme_problem_add(&problem, why->reason, why->msg);
    m->refusal = why;
    enum att_rc rc = acme_problem_encode(&problem, &json, err);
    if (rc) {
        return rc;
    }
    issuer_autofree *text = issuer_json_text(json);
    json_decref(json);
    snprintf(m->problem, sizeof m->problem, "%s", text ? text : "{}");
    rc = store_run(m->call->issuer->store, true, refuse, m, err);
    if (!rc) {
        struct issuer_call *call = m->call;
        issuer_limit_count(call->issuer->limit, ISSUER_LIMIT_REFUSALS, call->account.id, call->now);
        atomic_fetch_add(&call->issuer->counters.refused, 1);
        issuer_view_wake(m->call->issuer);
        att_log(ATT_WARN, "order.refused", ATT_S("agent", m->order.entry),
                ATT_S("host", m->order.host), ATT_S("reason", why->reason),
                ATT_S("detail", why->msg));
    }
    return rc;
}

static bool is_verdict(const struct m4 *m, enum att_rc rc, const struct att_err *why)
{
    bool denied = rc == ATT_E_DENIED || rc == ATT_E_AUTH || rc == ATT_E_PARSE;
    return denied && !m->call->has_problem && why->reason[0];
}

static enum att_rc run(struct m4 *m, struct att_err *err)
{
    struct issuer_call *call = m->call;
    struct store *store = call->issuer->store;
    enum att_rc rc = enrol_m4_request_parse(att_buf_slice(&call->jws.payload), &m->request, err);
    if (rc) {
        return rc;
    }
    struct att_err why = {0};
    rc = store_run(store, false, load, m, &why);
    if (!rc) {
        rc = judge(m, &why);
    }
    if (!rc) {
        rc = store_run(store, true, grant, m, &why);
    }
    issuer_policy_log(m->verdict, m->order.host ? m->order.host : "",
                      m->order.identifier ? m->order.identifier : "");
    if (!rc) {
        att_log(ATT_INFO, "order.ready", ATT_S("agent", m->order.entry),
                ATT_S("host", m->order.host), ATT_S("boot", m->order.policy));
    } else if (is_verdict(m, rc, &why)) {
        rc = settle_refusal(m, &why, err);
    } else if (err) {
        *err = why;
    }
    if (rc) {
        return rc;
    }
    snprintf(call->response->up, sizeof call->response->up, "%s/authz/%s", call->issuer->base_url,
             m->order.id);
    return issuer_reply(call, 200, issuer_challenge_json(call->issuer, &m->order, m->known), err);
}

enum att_rc issuer_challenge(struct issuer_call *call, struct att_err *err)
{
    if (!call->jws.payload.len) {
        return issuer_challenge_show(call, err);
    }
    struct m4 *m = calloc(1, sizeof *m);
    enum att_rc rc;
    if (m) {
        m->call = call;
        m->verdict = verify_verdict_new();
    }
    if (!m || !m->verdict) {
        rc = att_fail(err, ATT_E_NOMEM, "no memory");
    } else {
        rc = run(m, err);
    }
    if (m) {
        verify_verdict_free(m->verdict);
        issuer_policy_put(m->policy);
        issuer_entry_put(m->parsed);
        enrol_m4_request_done(&m->request);
        store_record_done(&store_orders, &m->order);
        store_record_done(&store_hosts, &m->host);
        store_record_done(&store_aks, &m->ak);
        store_record_done(&store_entries, &m->entry);
        json_decref(m->known);
        free(m->parent);
        json_decref(m->notes);
        free(m);
    }
    return rc;
}
