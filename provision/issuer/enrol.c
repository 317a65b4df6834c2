/* M1: an EK and an AK are named; the challenge that only their TPM can solve. */
#include "provision/issuer/context.h"

#include "provision/enrol/messages.h"
#include "tpm/parse/makecred.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct m1 {
    struct issuer_call *call;
    struct enrol_m1_request request;
    struct verify_verdict *verdict;
    struct verify_ek_facts ek;
    struct verify_ak_facts ak;
    json_t *others; /* EK ids */
    char ak_name[2 * (2 + PARSE_DIGEST_MAX) + 1];
    char id[ISSUER_ID_LEN];
    uint8_t cv[ENROL_CV_LEN];
    struct enrol_m1_response answer;
    struct att_buf body;
    struct store_ak record;
    const struct att_err *refusal;
};

/* Empty, and so good for nothing, where it is gone. */
static enum att_rc read_ticket(const struct issuer_call *call, struct store_tx *tx,
                               struct store_ticket *ret_ticket, struct att_err *err)
{
    enum att_rc rc = store_get(tx, &store_tickets, call->account.ticket, ret_ticket, NULL);
    return rc && rc != ATT_E_NOTFOUND ? att_fail(err, rc, "tickets cannot be read") : ATT_OK;
}

static bool ticket_good(const struct issuer_call *call, const struct store_ticket *ticket)
{
    return ticket->uses_left > 0 && ticket->expires_at > call->now;
}

/* Before anything of the message is looked at: an account that is nobody's yet has a ticket that is
 * good for something. */
static enum att_rc check_caller(void *user, struct store_tx *tx, struct att_err *err)
{
    struct issuer_call *call = ((struct m1 *)user)->call;
    struct store_host host = {0};
    struct store_ticket ticket = {0};
    enum att_rc rc = issuer_check_rate(call, tx, err);
    if (rc || !call->account.ticket[0]) {
        return rc;
    }
    rc = store_find(tx, &store_hosts, "account", call->account.thumbprint, &host, NULL);
    store_record_done(&store_hosts, &host);
    if (rc == ATT_E_NOTFOUND) {
        rc = read_ticket(call, tx, &ticket, err);
        if (!rc && !ticket_good(call, &ticket)) {
            rc = issuer_refuse(err, ATT_E_DENIED, "ticketInvalid",
                               "the account's ticket is used up or expired");
        }
        store_record_done(&store_tickets, &ticket);
        return rc;
    }
    return rc ? att_fail(err, rc, "hosts cannot be read") : ATT_OK;
}

static enum att_rc judge(struct m1 *m, struct att_err *err)
{
    const struct enrol_m1_request *r = &m->request;
    const struct issuer_settings *s = m->call->settings;
    struct att_slice chain[ENROL_CERTS_MAX];
    for (size_t i = 0; i < r->n_ek_chain; i++) {
        chain[i] = att_buf_slice(&r->ek_chain[i]);
    }
    struct verify_ek_in in = {
        .ek_cert = att_buf_slice(&r->ek_cert),
        .ek_chain = chain,
        .n_ek_chain = r->n_ek_chain,
        .ek_pub = att_buf_slice(&r->ek_pub),
        .have_version = r->version[0] != 0,
        .version = strtoull(r->version, NULL, 16),
        .roots = s->ek_roots,
        .deny = s->deny,
        .n_deny = s->n_deny,
        .inventory = s->conf->enrolment->ek_inventory,
        .now = m->call->now,
    };
    snprintf(in.manufacturer, sizeof in.manufacturer, "%s", r->manufacturer);
    if (verify_ek(&in, m->verdict, &m->ek) != VERIFY_ACCEPTED ||
        verify_ak(att_buf_slice(&r->ak_pub), m->verdict, &m->ak) != VERIFY_ACCEPTED) {
        return verify_verdict_err(m->verdict, err);
    }
    att_hex(m->ak_name, parse_name_slice(&m->ak.name));
    for (size_t i = 0; i < r->n_other_ek_certs; i++) {
        char id[VERIFY_ID_HEX];
        enum att_rc rc = verify_ek_id_of_cert(att_buf_slice(&r->other_ek_certs[i]), id, err);
        if (rc) {
            att_err_reason(err, "malformed");
            att_err_prefix(err, "otherEkCerts[%zu]", i);
            return rc;
        }
        json_array_append_new(m->others, json_string(id));
    }
    return ATT_OK;
}

/* Refusals that need no proof of the EK; M2 looks again. */
static enum att_rc check_state(void *user, struct store_tx *tx, struct att_err *err)
{
    struct m1 *m = user;
    struct issuer_call *call = m->call;
    struct issuer_tpm tpm = {.ek = m->ek.id,
                             .others = m->others,
                             .ak_name = m->ak_name,
                             .certified = m->ek.from_certificate};
    struct store_host host = {0};
    bool found = false;
    enum att_rc rc = issuer_host_resolve(tx, &tpm, &host, &found, err);
    bool mine = !rc && found && strcmp(host.account, call->account.thumbprint) == 0;
    if (!rc && !mine && call->account.ticket[0]) {
        struct store_ticket ticket = {0};
        rc = read_ticket(call, tx, &ticket, err);
        if (!rc &&
            (!ticket_good(call, &ticket) || (ticket.ek[0] && strcmp(ticket.ek, m->ek.id) != 0))) {
            rc = issuer_refuse(err, ATT_E_DENIED, "ticketInvalid",
                               "the account's ticket is used up, expired or names another EK");
        }
        store_record_done(&store_tickets, &ticket);
    }
    if (!rc) {
        const struct conf_enrolment *e = call->settings->conf->enrolment;
        att_autojson *notes = issuer_json(mine ? host.notes : "");
        att_autojson *known = issuer_logs_known(tx, notes);
        issuer_autofree *logs = issuer_logs_join(e->logs, e->n_logs);
        rc = logs ? issuer_wanted(e->pcrs, logs, known, &m->answer.wanted, err)
                  : att_fail(err, ATT_E_NOMEM, "no memory");
        issuer_autofree *clock = found ? issuer_host_clock_text(&host) : strdup("");
        if (!rc && (!clock || !issuer_set(&m->record.clock, clock) ||
                    !issuer_set(&m->record.logs, logs))) {
            rc = att_fail(err, ATT_E_NOMEM, "no memory");
        }
    }
    store_record_done(&store_hosts, &host);
    return rc;
}

static enum att_rc make_challenge(struct m1 *m, const char *url, struct att_err *err)
{
    struct issuer_call *call = m->call;
    struct parse_public ek;
    uint8_t k[ENROL_K_LEN];
    m->answer.expires_at = call->now + ISSUER_AK_PENDING_S;
    enum att_rc rc = att_random(m->cv, sizeof m->cv, err);
    if (!rc) {
        rc = att_random(m->answer.nonce, sizeof m->answer.nonce, err);
    }
    if (!rc) {
        rc = parse_public_parse(att_buf_slice(&m->request.ek_pub), &ek, err);
    }
    if (!rc) {
        rc = parse_makecred_create(&ek, ATT_SLICE_ARRAY(m->cv), &m->ak.name,
                                   &m->answer.credential_blob, &m->answer.encrypted_secret, err);
    }
    if (!rc) {
        rc = enrol_m1_response_encode(&m->answer, &m->body, err);
    }
    if (!rc) {
        struct enrol_transcript t = {url, call->account.thumbprint,
                                     att_buf_slice(&call->jws.payload), att_buf_slice(&m->body)};
        rc = enrol_schedule_k(ATT_SLICE_ARRAY(m->cv), &t, k, err);
    }
    if (!rc) {
        att_buf_put(&m->record.secret, k, sizeof k);
        rc = att_buf_ok(&m->record.secret, err);
    }
    att_wipe(k, sizeof k);
    att_wipe(m->cv, sizeof m->cv);
    return rc;
}

static enum att_rc fill_record(struct m1 *m, struct att_err *err)
{
    struct store_ak *a = &m->record;
    const struct conf_enrolment *e = m->call->settings->conf->enrolment;
    att_autojson *facts = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:O, s:s, s:s}", "ekSource",
        m->ek.from_certificate ? "certificate" : "inventory", "manufacturer", m->ek.manufacturer,
        "model", m->ek.model, "version", m->ek.version, "ekCertSha256", m->ek.cert_sha256, "others",
        m->others, "claimedVersion", m->request.version, "akName", m->ak_name);
    json_t *verdict = NULL;
    if (!facts || verify_verdict_json(m->verdict, &verdict, err)) {
        return att_fail(err, ATT_E_NOMEM, "no memory");
    }
    json_object_set_new(facts, "verdict", verdict);
    issuer_autofree *text = issuer_json_text(facts);
    bool ok = text && issuer_set(&a->id, m->id) && issuer_set(&a->account, m->call->account.id) &&
              issuer_set(&a->ek, m->ek.id) && issuer_set(&a->host, "") &&
              issuer_set(&a->state, STORE_AK_PENDING) && issuer_set(&a->ended_reason, "") &&
              issuer_set(&a->pcr_selection, e->pcrs) && issuer_set(&a->profile_boot, e->boot) &&
              issuer_set(&a->facts, text) && issuer_set(&a->cert, "");
    att_buf_put(&a->nonce, m->answer.nonce, sizeof m->answer.nonce);
    att_buf_put_slice(&a->pub, att_buf_slice(&m->request.ak_pub));
    att_buf_put_slice(&a->name, parse_name_slice(&m->ak.name));
    att_buf_put_slice(&a->ek_pub, att_buf_slice(&m->request.ek_pub));
    att_buf_put_slice(&a->m1, att_buf_slice(&m->call->jws.payload));
    a->created_at = m->call->now;
    a->expires_at = m->answer.expires_at;
    ok = ok && !a->nonce.failed && !a->pub.failed && !a->name.failed && !a->ek_pub.failed &&
         !a->m1.failed;
    return ok ? ATT_OK : att_fail(err, ATT_E_NOMEM, "no memory");
}

static enum att_rc save(void *user, struct store_tx *tx, struct att_err *err)
{
    struct m1 *m = user;
    enum att_rc rc = store_ak_replace_pending(tx, m->record.account, m->record.ek, err);
    return rc ? rc : store_insert(tx, &store_aks, &m->record, err);
}

static enum att_rc record_refusal(void *user, struct store_tx *tx, struct att_err *err)
{
    struct m1 *m = user;
    json_t *record =
        issuer_record("enrol", "refused", m->refusal->reason, m->refusal->msg, m->ek.id);
    json_t *verdict = NULL;
    char digest[65];
    json_object_set_new(record, "message", json_string("newAttestationKey"));
    json_object_set_new(record, "account", json_string(m->call->account.thumbprint));
    if (m->verdict->n_checks && verify_verdict_json(m->verdict, &verdict, NULL) == ATT_OK) {
        json_object_set_new(record, "verdict", verdict);
    }
    /* The digest says what came; what it says is kept, when it is no more than it need be. */
    uint8_t sha256[ATT_SHA256_LEN];
    att_autobuf bytes = {0};
    att_sha256(sha256, att_buf_slice(&m->call->jws.payload));
    att_hex(digest, ATT_SLICE_ARRAY(sha256));
    json_object_set_new(record, "received", json_string(digest));
    enum att_rc rc = enrol_m1_request_encode(&m->request, &bytes, err);
    if (!rc && bytes.len <= ISSUER_REFUSED_M1_MAX) {
        rc = store_blob_put(tx, att_buf_slice(&bytes), m->call->now, digest, err);
        json_object_set_new(record, "evidence", json_pack("{s:s}", "m1", digest));
    }
    if (rc) {
        json_decref(record);
        return rc;
    }
    return issuer_audit(tx, m->call->now, record, NULL, err);
}

static enum att_rc run(struct m1 *m, struct att_err *err)
{
    struct issuer_call *call = m->call;
    issuer_autofree *url = NULL;
    enum att_rc rc = enrol_m1_request_parse(att_buf_slice(&call->jws.payload), &m->request, err);
    if (rc) {
        return rc;
    }
    rc = store_run(call->issuer->store, false, check_caller, m, err);
    if (!rc) {
        rc = judge(m, err);
    }
    if (!rc) {
        rc = store_run(call->issuer->store, false, check_state, m, err);
    }
    if (rc) {
        struct att_err refusal = {0};
        if (err) {
            refusal = *err;
        }
        m->refusal = &refusal;
        bool told = call->has_problem && call->problem.type == ACME_P_RATE_LIMITED;
        if (!told && (rc == ATT_E_DENIED || rc == ATT_E_AUTH || rc == ATT_E_PARSE)) {
            struct att_err lost = {0};
            if (store_run(call->issuer->store, true, record_refusal, m, &lost)) {
                att_log_err(ATT_ERROR, "audit.lost", &lost);
            }
        }
        return rc;
    }
    rc = issuer_new_id(m->id, err);
    if (!rc) {
        url = issuer_url(call->issuer, "ak", m->id);
        rc = url ? make_challenge(m, url, err) : att_fail(err, ATT_E_NOMEM, "no memory");
    }
    if (!rc) {
        rc = fill_record(m, err);
    }
    if (!rc) {
        rc = store_run(call->issuer->store, true, save, m, err);
    }
    if (!rc) {
        att_buf_put_slice(&call->response->body, att_buf_slice(&m->body));
        call->response->status = 201;
        call->response->content_type = "application/json";
        snprintf(call->response->location, sizeof call->response->location, "%s", url);
        rc = att_buf_ok(&call->response->body, err);
    }
    return rc;
}

enum att_rc issuer_new_attestation_key(struct issuer_call *call, struct att_err *err)
{
    struct m1 *m = calloc(1, sizeof *m);
    enum att_rc rc = ATT_OK;
    if (m) {
        m->call = call;
        m->others = json_array();
        m->verdict = verify_verdict_new();
    }
    if (!m || !m->others || !m->verdict) {
        rc = att_fail(err, ATT_E_NOMEM, "no memory");
    } else {
        rc = run(m, err);
    }
    if (m) {
        verify_verdict_free(m->verdict);
        json_decref(m->others);
        enrol_m1_request_done(&m->request);
        enrol_m1_response_done(&m->answer);
        att_buf_done(&m->body);
        att_wipe(m->record.secret.ptr, m->record.secret.len);
        store_record_done(&store_aks, &m->record);
        free(m);
    }
    return rc;
}
