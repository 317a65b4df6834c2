/* M2: the TPM solved the challenge and quoted its boot. Single try. */
#include "provision/issuer/ca.h"

#include "provision/enrol/messages.h"
#include "tpm/parse/public.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct m2 {
    struct issuer_call *call;
    struct store_ak ak;
    struct enrol_m2_request request;
    struct verify_verdict *verdict;
    struct verify_quote_facts quote;
    enum verify_change change;
    struct issuer_policy *policy; /* NULL: none, or it is not there */
    struct issuer_policy_use use; /* of enrolment */
    json_t *facts;                /* of M1 */
    struct store_host host;
    bool host_found;
    struct verify_clock previous;
    bool have_previous;
    struct parse_pcr_set previous_pcrs; /* of the enrolment that holds now */
    bool have_previous_pcrs;
    bool judged;
    struct store_cert cert;
    char decision[65];
    const struct att_err *refusal;
};

static bool certified(const struct m2 *m)
{
    return strcmp(issuer_string(m->facts, "ekSource"), "certificate") == 0;
}

static struct issuer_tpm tpm_of(const struct m2 *m)
{
    return (struct issuer_tpm){.ek = m->ak.ek,
                               .others = json_object_get(m->facts, "others"),
                               .ak_name = issuer_string(m->facts, "akName"),
                               .certified = certified(m)};
}

/* The PCRs that were quoted when the host's present AK was enrolled. */
static enum att_rc take_previous_pcrs(void *user, const void *record, struct att_err *err)
{
    struct m2 *m = user;
    const struct store_ak *ak = record;
    (void)err;
    if (strcmp(ak->state, STORE_AK_VALID) == 0) {
        att_autojson *facts = issuer_json(ak->facts);
        const json_t *pcrs = json_object_get(facts, "pcrs");
        m->have_previous_pcrs =
            pcrs && parse_pcr_set_from_json(pcrs, NULL, &m->previous_pcrs, NULL) == ATT_OK;
    }
    return ATT_OK;
}

/* What the verdict needs from the store. */
static enum att_rc load(void *user, struct store_tx *tx, struct att_err *err)
{
    struct m2 *m = user;
    struct issuer_call *call = m->call;
    enum att_rc rc = store_get(tx, &store_aks, call->id, &m->ak, NULL);
    if (rc == ATT_E_NOTFOUND || (!rc && strcmp(m->ak.account, call->account.id) != 0)) {
        return issuer_refuse(err, ATT_E_DENIED, "akUnknown", "this account has no such AK");
    }
    if (rc) {
        return att_fail(err, rc, "AK records cannot be read");
    }
    if (strcmp(m->ak.state, STORE_AK_PENDING) != 0) {
        return issuer_refuse(err, ATT_E_DENIED, "activation",
                             "the AK record is %s: a challenge is answered once", m->ak.state);
    }
    if (m->ak.expires_at <= call->now) {
        return issuer_refuse(err, ATT_E_DENIED, "activation",
                             "the challenge was to be answered within %d s", ISSUER_AK_PENDING_S);
    }
    m->facts = issuer_json(m->ak.facts);
    struct issuer_tpm tpm = tpm_of(m);
    rc = issuer_host_resolve(tx, &tpm, &m->host, &m->host_found, err);
    att_autojson *notes = issuer_json(m->host_found ? m->host.notes : "");
    if (!rc && m->host_found) {
        m->have_previous =
            issuer_clock_then(m->ak.clock, call->now - m->ak.created_at, notes, &m->previous);
        rc = store_each(tx, &store_aks, "host", m->host.id, take_previous_pcrs, m, err);
    }
    if (!rc) {
        rc = issuer_policy_get(call->issuer, tx, m->ak.profile_boot, &m->policy, err);
    }
    if (!rc) {
        rc = issuer_policy_use(tx, call->settings->conf, CONF_ENROLMENT, &m->use, err);
    }
    if (!rc) {
        rc = issuer_logs_asked(&m->request.logs, m->ak.logs, err);
    }
    return rc ? rc : issuer_logs_supply(tx, notes, &m->request.logs, err);
}

static enum att_rc judge(struct m2 *m, struct att_err *err)
{
    uint8_t proof[ATT_SHA256_LEN], extra[ATT_SHA256_LEN];
    att_autobuf manifest = ATT_BUF_INIT(EVIDENCE_MANIFEST_MAX);
    enum att_rc rc = evidence_manifest_encode(&m->request.logs, &manifest, err);
    if (!rc && m->ak.secret.len != ENROL_K_LEN) {
        rc = att_fail(err, ATT_E_INTERNAL, "AK record %s has no key", m->ak.id);
    }
    struct verify_enrol_in in = {.ak_pub = att_buf_slice(&m->ak.pub)};
    if (!rc) {
        rc = parse_pcr_sel_parse(m->ak.pcr_selection, &in.boot.selection, err);
    }
    if (rc) {
        return rc;
    }
    enrol_schedule_proof(m->ak.secret.ptr, proof);
    enrol_schedule_quote_extra(m->ak.secret.ptr, m->ak.nonce.ptr, att_buf_slice(&manifest), extra);
    in.proof = ATT_SLICE_ARRAY(m->request.proof);
    in.expected_proof = ATT_SLICE_ARRAY(proof);
    in.expected_extra = ATT_SLICE_ARRAY(extra);
    in.quoted = (struct verify_quoted){att_buf_slice(&m->request.quote.attest),
                                       att_buf_slice(&m->request.quote.sig), &m->request.pcrs,
                                       &m->request.logs};
    in.boot.logs = issuer_logs_bits(m->ak.logs);
    in.boot.memo = m->call->issuer->memo;
    in.boot.boot_none = strcmp(m->ak.profile_boot, "none") == 0;
    in.boot.policy = m->policy ? m->policy->v : NULL;
    in.boot.signers = m->use.signers;
    in.boot.n_signers = m->use.n_signers;
    in.boot.mode = m->use.mode;
    in.boot.now = m->call->now;
    in.previous = m->have_previous ? &m->previous : NULL;
    in.previous_pcrs = m->have_previous_pcrs ? &m->previous_pcrs : NULL;
    m->judged = true;
    enum verify_result result = verify_enrol(&in, m->verdict, &m->quote, &m->change);
    att_wipe(proof, sizeof proof);
    if (result == VERIFY_ACCEPTED) {
        const char *claimed = issuer_string(m->facts, "claimedVersion");
        uint64_t version = strtoull(claimed, NULL, 16);
        const struct issuer_settings *s = m->call->settings;
        result = verify_firmware(s->deny, s->n_deny, issuer_string(m->facts, "manufacturer"),
                                 m->quote.clock.firmware_version, *claimed ? &version : NULL,
                                 m->verdict);
    }
    return result == VERIFY_ACCEPTED ? ATT_OK : verify_verdict_err(m->verdict, err);
}

/* ---- granting
 * -------------------------------------------------------------------------------------------- */

/* An account is one host's: orders and views are found by it. */
static enum att_rc check_account(struct m2 *m, struct store_tx *tx, struct att_err *err)
{
    struct store_host other = {0};
    enum att_rc rc =
        store_find(tx, &store_hosts, "account", m->call->account.thumbprint, &other, NULL);
    if (rc == ATT_E_NOTFOUND) {
        return ATT_OK;
    }
    rc = rc ? att_fail(err, rc, "hosts cannot be read")
            : issuer_refuse(err, ATT_E_DENIED, "accountMismatch",
                            "the account is that of host %.12s: another host needs one of its own",
                            other.id);
    store_record_done(&store_hosts, &other);
    return rc;
}

/* Without an EK certificate nothing says that the EK is a TPM's, unless an operator did: of this
 * very EK, by import or ticket. issuer_host_resolve finds no host for another one that is merely
 * listed. */
static enum att_rc check_ek_source(const struct m2 *m, bool named, struct att_err *err)
{
    if (certified(m)) {
        return ATT_OK;
    }
    if (m->host_found && strcmp(m->host.ek_source, "certificate") == 0) {
        return issuer_refuse(err, ATT_E_DENIED, "ekChain",
                             "host %.12s enrolled with an EK certificate and now sends none",
                             m->host.id);
    }
    if (!m->host_found && !named) {
        return issuer_refuse(err, ATT_E_DENIED, "hostUnknown",
                             "EK %.12s has no certificate: an operator has to import it, or a "
                             "ticket has to name it",
                             m->ak.ek);
    }
    return ATT_OK;
}

static bool four_eyes(const struct m2 *m)
{
    const struct conf_admin *admin = m->call->settings->conf->admin;
    return admin && admin->four_eyes;
}

/* The state of a host that this account is bound to only now. */
static bool first_state(struct m2 *m, const struct issuer_tpm *tpm, bool named)
{
    struct store_host *host = &m->host;
    char why[80];
    if (tpm->disputed[0]) {
        snprintf(why, sizeof why, "the banned host %.12s lists its EK", tpm->disputed);
        return issuer_set(&host->state, STORE_HOST_PENDING) && issuer_set(&host->reason, why);
    }
    /* With four eyes a ticket only registers; somebody else approves. */
    return !named || four_eyes(m) || strcmp(host->state, STORE_HOST_PENDING) != 0 ||
           issuer_set(&host->state, STORE_HOST_APPROVED);
}

/* Binds the host to this account, by ticket where it is not yet; decides its state. */
static enum att_rc bind_host(struct m2 *m, struct store_tx *tx, const struct issuer_tpm *tpm,
                             struct att_err *err)
{
    struct issuer_call *call = m->call;
    const char *kid = call->account.ticket;
    struct store_host *host = &m->host;
    if (m->host_found && strcmp(host->account, call->account.thumbprint) == 0) {
        return check_ek_source(m, false, err);
    }
    struct store_ticket ticket = {0};
    enum att_rc rc = ATT_OK;
    if (kid[0]) {
        rc = store_get(tx, &store_tickets, kid, &ticket, NULL);
        if (rc && rc != ATT_E_NOTFOUND) {
            return att_fail(err, rc, "tickets cannot be read");
        }
        if (rc || (ticket.ek[0] && strcmp(ticket.ek, m->ak.ek) != 0)) {
            rc = issuer_refuse(err, ATT_E_DENIED, "ticketInvalid",
                               "the account's ticket is gone or names another EK");
        }
    }
    bool named = !rc && kid[0] && ticket.ek[0];
    if (!rc && m->host_found && host->account[0] && (!named || four_eyes(m))) {
        rc = issuer_refuse(err, ATT_E_DENIED, "accountMismatch",
                           "host %.12s belongs to another account", host->id);
    }
    if (!rc) {
        rc = check_account(m, tx, err);
    }
    if (!rc) {
        rc = check_ek_source(m, named, err);
    }
    if (!rc && kid[0]) {
        rc = store_ticket_spend(tx, kid, call->now, err);
    }
    if (!rc && !m->host_found) {
        rc = issuer_host_new(m->ak.ek, STORE_HOST_PENDING, issuer_string(m->facts, "ekSource"),
                             call->now, host, err);
    }
    if (!rc) {
        bool ok =
            first_state(m, tpm, named) && issuer_set(&host->account, call->account.thumbprint);
        if (ok && ticket.created_by && ticket.created_by[0] &&
            strcmp(host->state, STORE_HOST_PENDING) == 0) {
            ok = issuer_set(&host->registered_by, ticket.created_by);
        }
        if (ok && ticket.label && ticket.label[0] && !host->label[0]) {
            ok = issuer_set(&host->label, ticket.label);
        }
        host->updated_at = call->now;
        rc = ok ? ATT_OK : att_fail(err, ATT_E_NOMEM, "no memory");
    }
    store_record_done(&store_tickets, &ticket);
    return rc;
}

static enum att_rc keep_m2(struct m2 *m, struct store_tx *tx, bool proven, char ret_digest[65],
                           struct att_err *err);

static enum att_rc put_host(struct m2 *m, struct store_tx *tx, const json_t *logs,
                            struct att_err *err)
{
    struct store_host *host = &m->host;
    struct issuer_tpm tpm = tpm_of(m);
    att_autojson *notes = issuer_json(host->notes);
    json_object_set_new(notes, "akName", json_string(tpm.ak_name));
    bool ok = issuer_set(&host->manufacturer, issuer_string(m->facts, "manufacturer")) &&
              issuer_set(&host->model, issuer_string(m->facts, "model")) &&
              issuer_set(&host->version, issuer_string(m->facts, "version")) &&
              issuer_set(&host->ek_source, issuer_string(m->facts, "ekSource"));
    if (!ok) {
        return att_fail(err, ATT_E_NOMEM, "no memory");
    }
    /* A renewal that was quoted later may have come first. */
    struct verify_clock have = {0}, *quoted = &m->quote.clock;
    bool newer = !issuer_host_clock(notes, &have) || issuer_clock_newer(quoted, &have);
    issuer_host_note(notes, newer ? quoted : NULL, "granted", "", "enrolment", logs, m->verdict,
                     m->call->now);
    char m2[65];
    enum att_rc rc = keep_m2(m, tx, true, m2, err);
    if (!rc) {
        issuer_host_evidence(notes, "m2", m2, m->ak.profile_boot, logs, m->call->now);
        rc = issuer_host_set_notes(host, notes, m->call->now, err);
    }
    if (!rc) {
        rc = store_put(tx, &store_hosts, host, err);
    }
    return rc ? rc : issuer_host_record_eks(tx, host->id, &tpm, err);
}

static bool activated(const struct verify_verdict *verdict)
{
    for (size_t i = 0; i < verdict->n_checks; i++) {
        if (verdict->checks[i].reason == VERIFY_REASON_ACTIVATION) {
            return verdict->checks[i].outcome == VERIFY_PASS;
        }
    }
    return false;
}

/* What was judged; logs are kept by themselves. Whose TPM did not solve the challenge gets nothing
 * kept: the digest says what came. */
static enum att_rc keep_m2(struct m2 *m, struct store_tx *tx, bool proven, char ret_digest[65],
                           struct att_err *err)
{
    uint8_t digest[ATT_SHA256_LEN], digests[EVIDENCE_LOGS_MAX][ATT_SHA256_LEN];
    if (!proven) {
        att_sha256(digest, att_buf_slice(&m->call->jws.payload));
        att_hex(ret_digest, ATT_SLICE_ARRAY(digest));
        return ATT_OK;
    }
    att_autobuf bytes = {0};
    issuer_logs_bound_tails(m->call, &m->request.logs);
    size_t n = issuer_logs_digests(&m->request.logs, digests);
    enum att_rc rc = enrol_m2_request_encode(&m->request, (const uint8_t(*)[ATT_SHA256_LEN])digests,
                                             n, &bytes, err);
    return rc ? rc : store_blob_put(tx, att_buf_slice(&bytes), m->call->now, ret_digest, err);
}

static enum att_rc evidence_record(struct m2 *m, struct store_tx *tx, const char *outcome,
                                   const char *reason, const char *detail, bool proven,
                                   json_t *logs, char ret_digest[65], struct att_err *err)
{
    char m1[65] = "", m2[65] = "";
    int64_t now = m->call->now;
    enum att_rc rc = keep_m2(m, tx, proven, m2, err);
    if (!rc && m->ak.m1.len) {
        rc = store_blob_put(tx, att_buf_slice(&m->ak.m1), now, m1, err);
    }
    if (rc) {
        return rc;
    }
    json_t *verdict = NULL;
    json_t *record = issuer_record("enrol", outcome, reason, detail, m->ak.ek);
    json_object_set_new(record, "account", json_string(m->call->account.thumbprint));
    json_object_set_new(record, "host", json_string(m->host.id ? m->host.id : ""));
    json_object_set_new(record, "hostState", json_string(m->host.state ? m->host.state : ""));
    json_object_set_new(record, "ak", json_string(m->ak.id));
    json_object_set_new(record, "pcrSelection", json_string(m->ak.pcr_selection));
    json_object_set_new(record, "boot", json_string(m->ak.profile_boot));
    if (m->policy) {
        json_object_set_new(record, "policyVersion", json_integer(m->policy->v->version));
        json_object_set_new(record, "mode", json_string(verify_mode_word(m->use.mode)));
    }
    json_object_set_new(record, "evidence",
                        json_pack("{s:s, s:s, s:O*}", "m1", m1, "m2", m2, "logs", logs));
    if (m->judged && verify_verdict_json(m->verdict, &verdict, NULL) == ATT_OK) {
        json_object_set_new(record, "verdict", verdict);
    }
    if (strcmp(outcome, "granted") == 0) {
        json_object_set_new(record, "since", json_string(verify_change_word(m->change)));
    }
    json_object_set(record, "m1", m->facts);
    return issuer_audit(tx, now, record, ret_digest, err);
}

static enum att_rc put_ak(struct m2 *m, struct store_tx *tx, struct att_err *err)
{
    struct store_ak *a = &m->ak;
    const struct verify_clock *c = &m->quote.clock;
    att_wipe(a->secret.ptr, a->secret.len);
    att_buf_reset(&a->secret);
    att_buf_reset(&a->m1);
    att_buf_reset(&a->firmware);
    att_buf_be64(&a->firmware, c->firmware_version);
    a->clock_ms = (int64_t)c->clock_ms;
    a->reset_count = c->reset_count;
    a->restart_count = c->restart_count;
    a->safe = c->safe;
    int64_t end = issuer_authority_of(m->call->issuer, "ak").end;
    a->expires_at = m->call->now + m->call->settings->conf->enrolment->ak_lifetime_s;
    a->expires_at = a->expires_at < end ? a->expires_at : end;
    json_t *pcrs = NULL;
    enum att_rc rc = parse_pcr_set_json(&m->request.pcrs, &pcrs, err);
    if (rc) {
        return rc;
    }
    json_object_set_new(m->facts, "pcrs", pcrs);
    issuer_autofree *facts = issuer_json_text(m->facts);
    return issuer_set(&a->state, STORE_AK_VALID) && issuer_set(&a->host, m->host.id) && facts &&
                   issuer_set(&a->facts, facts) && !a->firmware.failed
               ? store_put(tx, &store_aks, a, err)
               : att_fail(err, ATT_E_NOMEM, "no memory");
}

struct old_aks {
    struct store_tx *tx;
    const char *keep;
};

static enum att_rc end_old(void *user, const void *record, struct att_err *err)
{
    struct old_aks *o = user;
    const struct store_ak *old = record;
    if (strcmp(old->id, o->keep) == 0 || strcmp(old->state, STORE_AK_ENDED) == 0) {
        return ATT_OK;
    }
    struct store_ak ended = {0};
    enum att_rc rc = store_get(o->tx, &store_aks, old->id, &ended, err);
    if (!rc) {
        rc = issuer_set(&ended.state, STORE_AK_ENDED) && issuer_set(&ended.ended_reason, "replaced")
                 ? store_put(o->tx, &store_aks, &ended, err)
                 : att_fail(err, ATT_E_NOMEM, "no memory");
    }
    store_record_done(&store_aks, &ended);
    return rc;
}

static enum att_rc intend(struct m2 *m, struct store_tx *tx, struct att_err *err)
{
    struct issuer_call *call = m->call;
    struct parse_public pub;
    att_autobuf spki = {0};
    enum att_rc rc = parse_public_parse(att_buf_slice(&m->ak.pub), &pub, err);
    if (!rc) {
        rc = parse_public_spki(&pub, &spki, err);
    }
    const char *unknown = "unknown";
    struct issuer_intent intent = {
        .kind = ISSUER_CA_AK,
        .ak = {.validity =
                   certs_validity_from(call->now, call->settings->conf->enrolment->ak_lifetime_s),
               .spki = att_buf_slice(&spki),
               .ek_id = m->ak.ek,
               .manufacturer = m->host.manufacturer[0] ? m->host.manufacturer : unknown,
               .model = m->host.model[0] ? m->host.model : unknown,
               .version = m->host.version[0] ? m->host.version : unknown},
        .subject = m->ak.ek,
        .account = m->ak.account,
        .host = m->host.id,
        .ord = m->ak.id,
        .profile = "enrolment",
        .decision = m->decision};
    return rc ? rc : issuer_intent_make(call->issuer, tx, &intent, call->now, &m->cert, err);
}

/* The record as it is now takes the place of the one that was read to judge. */
static enum att_rc take_ak(struct m2 *m, struct store_tx *tx, struct att_err *err)
{
    struct store_ak now = {0};
    enum att_rc rc = store_get(tx, &store_aks, m->ak.id, &now, err);
    if (!rc && strcmp(now.state, STORE_AK_PENDING) != 0) {
        rc = issuer_refuse(err, ATT_E_DENIED, "activation",
                           "the AK record is %s: a challenge is answered once", now.state);
    }
    if (!rc) {
        att_wipe(m->ak.secret.ptr, m->ak.secret.len);
        store_record_done(&store_aks, &m->ak);
        m->ak = now;
        return ATT_OK;
    }
    att_wipe(now.secret.ptr, now.secret.len);
    store_record_done(&store_aks, &now);
    return rc;
}

static enum att_rc grant(void *user, struct store_tx *tx, struct att_err *err)
{
    struct m2 *m = user;
    /* Everything that was read before judging may have changed: look again, in this transaction. */
    enum att_rc rc = take_ak(m, tx, err);
    struct issuer_tpm tpm = tpm_of(m);
    store_record_done(&store_hosts, &m->host);
    if (!rc) {
        rc = issuer_host_resolve(tx, &tpm, &m->host, &m->host_found, err);
    }
    if (!rc) {
        rc = bind_host(m, tx, &tpm, err);
    }
    json_t *logs = NULL;
    if (!rc) {
        att_autojson *notes = issuer_json(m->host.notes);
        rc = issuer_logs_keep(m->call, tx, notes, &m->request.logs, &logs, err);
    }
    if (!rc) {
        rc = put_host(m, tx, logs, err);
    }
    if (!rc) {
        rc = evidence_record(m, tx, "granted", NULL, NULL, true, logs, m->decision, err);
    }
    struct old_aks old = {tx, m->ak.id};
    if (!rc) {
        rc = store_each(tx, &store_aks, "host", m->host.id, end_old, &old, err);
    }
    if (!rc) {
        rc = put_ak(m, tx, err);
    }
    if (!rc) {
        rc = intend(m, tx, err);
    }
    json_decref(logs);
    return rc ? rc : issuer_view_bump(tx, err);
}

/* ---- refusing
 * ---------------------------------------------------------------------------------------------- */

/* A challenge has one answer: a wrong one ends the record. */
static enum att_rc refuse(void *user, struct store_tx *tx, struct att_err *err)
{
    struct m2 *m = user;
    struct store_ak ak = {0};
    enum att_rc rc = store_get(tx, &store_aks, m->ak.id, &ak, err);
    if (!rc && strcmp(ak.state, STORE_AK_PENDING) == 0) {
        att_buf_reset(&ak.secret);
        att_buf_reset(&ak.m1);
        rc = issuer_set(&ak.state, STORE_AK_ENDED) &&
                     issuer_set(&ak.ended_reason, m->refusal->reason)
                 ? store_put(tx, &store_aks, &ak, err)
                 : att_fail(err, ATT_E_NOMEM, "no memory");
    }
    store_record_done(&store_aks, &ak);
    json_t *logs = NULL;
    bool proven = m->judged && activated(m->verdict);
    if (!rc && proven) {
        att_autojson *notes = issuer_json(m->host.notes);
        rc = issuer_logs_keep_refused(m->call, tx, notes, &m->request.logs, &logs, err);
    }
    if (!rc) {
        rc = evidence_record(m, tx, "refused", m->refusal->reason, m->refusal->msg, proven, logs,
                             NULL, err);
    }
    json_decref(logs);
    /* Only a TPM that solved the challenge gets as far as this reason. */
    if (!rc && m->judged && m->host_found && strcmp(m->refusal->reason, "tpmCleared") == 0) {
        rc = issuer_host_cleared(tx, m->host.id, m->call->now, err);
    }
    return rc;
}

static void record_refusal(struct m2 *m, const struct att_err *refusal)
{
    struct att_err lost = {0};
    m->refusal = refusal;
    if (m->ak.id && strcmp(m->ak.account, m->call->account.id) == 0 &&
        store_run(m->call->issuer->store, true, refuse, m, &lost)) {
        att_log_err(ATT_ERROR, "audit.lost", &lost);
    }
}

/* ---- the answer
 * ---------------------------------------------------------------------------------------------- */

static enum att_rc answer(struct m2 *m, struct att_err *err)
{
    struct enrol_m2_response r = {.expires_at = m->ak.expires_at,
                                  .host_approved = strcmp(m->host.state, STORE_HOST_APPROVED) == 0};
    snprintf(r.host_id, sizeof r.host_id, "%s", m->host.id);
    att_buf_put_str(&r.ak_certificate, m->cert.pem);
    struct issuer_response *response = m->call->response;
    enum att_rc rc = att_buf_ok(&r.ak_certificate, err);
    if (!rc) {
        rc = enrol_m2_response_encode(&r, &response->body, err);
    }
    response->status = 200;
    response->content_type = "application/json";
    enrol_m2_response_done(&r);
    return rc;
}

static enum att_rc run(struct m2 *m, struct att_err *err)
{
    struct issuer_call *call = m->call;
    struct store *store = call->issuer->store;
    enum att_rc rc = enrol_m2_request_parse(att_buf_slice(&call->jws.payload), &m->request, err);
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
    issuer_policy_log(m->verdict, m->host.id ? m->host.id : "", "enrolment");
    if (rc) {
        why.rc = rc;
        issuer_intent_unsure(call->issuer, rc);
        if (rc == ATT_E_DENIED || rc == ATT_E_AUTH || rc == ATT_E_PARSE) {
            record_refusal(m, &why);
            issuer_view_wake(call->issuer);
        }
        if (err) {
            *err = why;
        }
        return rc;
    }
    issuer_view_wake(call->issuer);
    att_log(ATT_INFO, "host.enrolled", ATT_S("host", m->host.id), ATT_S("state", m->host.state),
            ATT_S("label", m->host.label), ATT_S("ak", m->ak.id), ATT_S("boot", m->quote.boot),
            ATT_S("since", verify_change_word(m->change)));
    rc = issuer_intent_sign(call->issuer, &m->cert, err);
    return rc ? rc : answer(m, err);
}

/* POST-as-GET: how the record stands; the challenge itself is told once, by M1. */
static enum att_rc show(struct m2 *m, struct store_tx *tx, struct att_err *err)
{
    struct issuer_call *call = m->call;
    enum att_rc rc = store_get(tx, &store_aks, call->id, &m->ak, NULL);
    if (rc && rc != ATT_E_NOTFOUND) {
        return att_fail(err, rc, "AK records cannot be read");
    }
    if (rc || strcmp(m->ak.account, call->account.id) != 0) {
        return issuer_refuse(err, ATT_E_DENIED, "akUnknown", "this account has no such AK");
    }
    bool ended = strcmp(m->ak.state, STORE_AK_ENDED) == 0;
    json_t *body = json_pack("{s:s, s:o}", "status", ended ? "invalid" : m->ak.state, "expires",
                             issuer_time_json(m->ak.expires_at));
    if (m->ak.cert[0] && !ended) {
        json_object_set_new(body, "akCertificate", json_string(m->ak.cert));
    }
    return issuer_reply(call, 200, body, err);
}

static enum att_rc show_tx(void *user, struct store_tx *tx, struct att_err *err)
{
    return show(user, tx, err);
}

enum att_rc issuer_attestation_key(struct issuer_call *call, struct att_err *err)
{
    struct m2 *m = calloc(1, sizeof *m);
    struct verify_verdict *verdict = verify_verdict_new();
    enum att_rc rc;
    if (!m || !verdict) {
        rc = att_fail(err, ATT_E_NOMEM, "no memory");
    } else {
        m->call = call;
        m->verdict = verdict;
        rc = call->jws.payload.len ? run(m, err)
                                   : store_run(call->issuer->store, false, show_tx, m, err);
        att_wipe(m->ak.secret.ptr, m->ak.secret.len);
        enrol_m2_request_done(&m->request);
        issuer_policy_put(m->policy);
        json_decref(m->facts);
        store_record_done(&store_aks, &m->ak);
        store_record_done(&store_hosts, &m->host);
        store_record_done(&store_certs, &m->cert);
    }
    verify_verdict_free(verdict);
    free(m);
    return rc;
}
