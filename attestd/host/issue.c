/* One worker, one agent: from "something is due" to an installed certificate, step by step as the
 * life table says. What must survive a crash is on disk before finalize: the key and the order. */
#include "attestd/host/internal.h"
#include "attestd/host/issue.h"
#include "attestd/base/enc.h"
#include "provision/enrol/messages.h"
#include "provision/evidence/attobj.h"
#include "provision/evidence/statement.h"
#include "tpm/parse/types.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ORDER_TIMEOUT_MS 20000
#define STEPS_MAX        12 /* of one turn: a loop that the table does not foresee ends */

void host_evidence_done(struct host_evidence *evidence)
{
    proc_key_evidence_done(&evidence->made);
    att_buf_done(&evidence->statement);
    att_buf_done(&evidence->spki);
    evidence_logs_done(&evidence->logs);
    att_buf_done(&evidence->key_authorization);
    host_measured_done(&evidence->measured);
    *evidence = (struct host_evidence){0};
}

static void issue_done(struct host_issue *job)
{
    if (job->have_order) {
        acme_order_done(&job->order);
    }
    if (job->have_key) {
        proc_key_done(&job->key);
    }
    (void)!host_aside_join(&job->dump, NULL);
    (void)!host_aside_join(&job->journal, NULL);
    if (job->have_evidence) {
        host_evidence_done(&job->evidence);
    }
    att_buf_done(&job->ak_pem);
    (void)!host_aside_join(&job->ahead.aside, NULL);
    certs_install_gen_done(&job->ahead.gen);
    att_buf_done(&job->ahead.csr);
}

static void drop_order(struct host_issue *job)
{
    if (job->have_order) {
        acme_order_done(&job->order);
        job->order = (struct acme_order){0};
        job->have_order = false;
    }
}

/* The table's event, and whatever of rec goes with it, in one step under the lock. */
static enum att_rc advance(struct host_issue *job, enum agent_event event, struct att_err *err)
{
    struct host *host = job->host;
    HOST_LOCKED(host);
    struct agent *agent = agent_registry_find(host->reg, job->rec.name);
    if (!agent) {
        return att_fail(err, ATT_E_NOTFOUND, "no agent %s", job->rec.name);
    }
    enum att_rc rc = agent_life_apply(&agent->rec.life, event, err);
    if (rc != ATT_OK) {
        agent->check_keys = true; /* frozen or removed meanwhile: what was made is left over */
        return rc;
    }
    struct agent_life life = agent->rec.life;
    memcpy(agent->rec.next_key_id, job->rec.next_key_id, sizeof(agent->rec.next_key_id));
    memcpy(agent->rec.order_url, job->rec.order_url, sizeof(agent->rec.order_url));
    job->rec = agent->rec;
    job->rec.life = life;
    return ATT_OK;
}

void host_issue_lap(struct host_issue *job, enum agent_stage stage)
{
    int64_t now = att_boottime_us();
    job->stage_us[stage] += now - job->lap_us;
    job->lap_us = now;
}

static enum att_rc from_keyd(struct host_issue *job, enum agent_stage stage, enum att_rc rc)
{
    host_issue_lap(job, stage);
    if (rc != ATT_OK) {
        job->where = HOST_AT_KEYD;
    }
    return rc;
}

static enum att_rc from_issuer(struct host_issue *job, enum agent_stage stage, enum att_rc rc)
{
    host_issue_lap(job, stage);
    host_client_heard(job->host, job->client);
    if (rc != ATT_OK) {
        job->where = HOST_AT_ISSUER;
    }
    return rc;
}

/* ---- key ---------------------------------------------------------------------------------------
 */

static enum att_rc need_key(struct host_issue *job, struct att_err *err);

/* The key that was made ahead, if it is there and good. One that is not is destroyed with the next
 * comparison of keys and records. */
static bool have_spare(struct host_issue *job)
{
    if (!job->rec.next_key_id[0]) {
        return false;
    }
    job->have_key = host_spare_take(job->host, job->rec.next_key_id, &job->key);
    struct att_err ignored = {0};
    if (need_key(job, &ignored) == ATT_OK && host_spare_fresh(&job->key, &job->rec)) {
        return true;
    }
    if (job->have_key) {
        proc_key_done(&job->key);
        job->have_key = false;
    }
    HOST_LOCKED(job->host);
    struct agent *agent = agent_registry_find(job->host->reg, job->rec.name);
    if (agent) {
        agent->check_keys = true;
    }
    return false;
}

static enum att_rc step_make_key(struct host_issue *job, struct att_err *err)
{
    if (have_spare(job)) {
        return advance(job, AGENT_EV_KEY_MADE, err);
    }
    enum att_rc rc = from_keyd(
        job, AGENT_STAGE_TPM_CREATE,
        proc_keyd_key_create_type(job->host->keyd, job->rec.name, job->rec.key_store,
                                  agent_record_key_type(&job->rec), job->rec.hsm, &job->key, err));
    host_keys_created(job->host, job->rec.name, rc);
    if (rc != ATT_OK) {
        return rc;
    }
    job->have_key = true;
    memcpy(job->rec.next_key_id, job->key.key_id, sizeof(job->key.key_id));
    return advance(job, AGENT_EV_KEY_MADE, err);
}

/* The next key's public half, for a job that did not make it itself. */
static enum att_rc need_key(struct host_issue *job, struct att_err *err)
{
    if (job->have_key) {
        return ATT_OK;
    }
    struct proc_key *keys = NULL;
    size_t n = 0;
    enum att_rc rc =
        from_keyd(job, AGENT_STAGE_TPM_CREATE, proc_keyd_key_list(job->host->keyd, &keys, &n, err));
    if (rc != ATT_OK) {
        return rc;
    }
    for (size_t i = 0; i < n && !job->have_key; i++) {
        if (strcmp(keys[i].key_id, job->rec.next_key_id) == 0) {
            job->key = keys[i];
            keys[i] = (struct proc_key){0};
            job->have_key = true;
        }
    }
    proc_keys_free(keys, n);
    if (!job->have_key) {
        job->where = HOST_AT_KEYD;
        return att_fail(err, ATT_E_NOTFOUND, "keyd has no key %s", job->rec.next_key_id);
    }
    return ATT_OK;
}

/* One made before the entry named another store, module or type is of no use any more. */
static enum att_rc need_key_of_entry(struct host_issue *job, struct att_err *err)
{
    enum att_rc rc = need_key(job, err);
    if (rc == ATT_OK && !host_key_fits(&job->key, &job->rec)) {
        job->where = HOST_AT_KEYD;
        rc = att_fail(err, ATT_E_NOTFOUND, "key %s is %s %s (%s), the entry says %s %s (%s) by now",
                      job->rec.next_key_id, job->key.store, job->key.hsm, job->key.type,
                      job->rec.key_store, job->rec.hsm, agent_record_key_type(&job->rec));
    }
    return rc;
}

/* ---- order -------------------------------------------------------------------------------------
 */

/* A renewal says what it replaces. That it cannot be said keeps nobody from a certificate. */
static enum att_rc new_order(struct host_issue *job, struct acme_order_request *request,
                             char **ret_url, struct att_err *err)
{
    char replaces[ACME_CERT_ID_LEN];
    if (!host_renewal_replaces(job->host, job->client, &job->rec, replaces)) {
        return acme_client_new_order(job->client, request, &job->order, ret_url, err);
    }
    struct att_err why = {0};
    request->replaces = replaces; /* borrowed for the call */
    enum att_rc rc = acme_client_new_order(job->client, request, &job->order, ret_url, &why);
    request->replaces = NULL;
    if (rc != ATT_OK && host_renewal_refused(job->client)) {
        att_log_err(ATT_INFO, "agent.replaces", &why);
        return acme_client_new_order(job->client, request, &job->order, ret_url, err);
    }
    if (rc != ATT_OK && err) {
        *err = why;
    }
    return rc;
}

static enum att_rc step_order(struct host_issue *job, struct att_err *err)
{
    bool device = job->rec.identifier[0] != '\0';
    const char *name = device ? job->rec.identifier : job->rec.spiffe_id;
    struct acme_order_request request = {.n_identifiers = 1,
                                         .profile = job->rec.profile[0] ? job->rec.profile : NULL};
    struct acme_identifier *id = &request.identifiers[0];
    snprintf(id->type, sizeof(id->type), "%s", device ? ACME_ID_PERMANENT : ACME_ID_SPIFFE);
    if (strlen(name) >= sizeof(id->value)) {
        return att_fail(err, ATT_E_LIMIT, "the agent's name is too long for an order");
    }
    memcpy(id->value, name, strlen(name) + 1);
    char *url = NULL;
    drop_order(job);
    enum att_rc rc = from_issuer(job, AGENT_STAGE_NET_ORDER, new_order(job, &request, &url, err));
    if (rc != ATT_OK) {
        return rc;
    }
    job->have_order = true;
    if (strlen(url) > AGENT_URL_MAX) {
        rc = att_fail(err, ATT_E_PROTOCOL, "the order's URL is longer than %d", AGENT_URL_MAX);
    } else {
        memcpy(job->rec.order_url, url, strlen(url) + 1);
        rc = advance(job, AGENT_EV_ORDER_MADE, err);
    }
    if (rc == ATT_OK) {
        rc = host_issue_check_order(job, err);
        job->order_dead = rc != ATT_OK;
    }
    if (rc == ATT_OK) {
        host_issue_ahead(job);
    }
    free(url);
    return rc;
}

static enum att_rc need_order(struct host_issue *job, struct att_err *err)
{
    if (job->have_order) {
        return ATT_OK;
    }
    enum att_rc rc =
        from_issuer(job, AGENT_STAGE_NET_ORDER,
                    acme_client_order(job->client, job->rec.order_url, &job->order, err));
    job->have_order = rc == ATT_OK;
    if (rc == ATT_OK) {
        rc = host_issue_check_order(job, err);
        job->order_dead = rc != ATT_OK;
    }
    return rc;
}

/* The order as it is at the issuer may be ahead of, or behind, what we remember. */
static enum att_rc order_died(struct host_issue *job, struct att_err *err)
{
    job->where = HOST_AT_ISSUER;
    job->order_dead = true;
    if (job->order.has_error) {
        return acme_problem_to_err(&job->order.error, err);
    }
    return att_fail(err, ATT_E_RETRY, "the order is %s", acme_status_word(job->order.status));
}

/* ---- evidence ----------------------------------------------------------------------------------
 */

/* For level 3: where the files lie, and how the kernel was started. What that is worth the issuer
 * finds in the logs. */
static void put_device(const struct host *host, const struct host_measured *measured,
                       struct evidence_statement *st)
{
    if (measured->level < 3) {
        return; /* an issuer that knows of no level 3 would not read it */
    }
    st->has_device = measured->has_device;
    st->device_major = measured->dev_major;
    st->device_minor = measured->dev_minor;
    memcpy(st->command_line, host->command_line, sizeof(st->command_line));
}

static enum att_rc build_statement(struct host_issue *job, const struct acme_wanted *wanted,
                                   struct att_err *err)
{
    struct host_evidence *ev = &job->evidence;
    struct evidence_statement st = {.level = 0};
    if (ev->measured.demanded) {
        st.has_manifest_root = true;
        memcpy(st.manifest_root, ev->measured.manifest.root, sizeof(st.manifest_root));
        st.level = 1; /* what we say; whether others say it, too, is the issuer's to find */
        put_device(job->host, &ev->measured, &st);
    }
    if (job->key.name.len > sizeof(st.key_name) ||
        strlen(job->rec.spiffe_id) >= sizeof(st.identifier)) {
        return att_fail(err, ATT_E_LIMIT, "the key's Name or the SPIFFE ID is too long");
    }
    memcpy(st.identifier, job->rec.spiffe_id, strlen(job->rec.spiffe_id) + 1);
    _Static_assert(sizeof(job->key.store) <= sizeof(st.key_store), "keyd's word fits");
    memcpy(st.key_store, job->key.store, strlen(job->key.store) + 1);
    host_issue_put_hsm(job, wanted, &st);
    if (job->key.name.len) {
        memcpy(st.key_name, job->key.name.ptr, job->key.name.len);
        st.key_name_len = job->key.name.len;
    } else {
        st.has_key_spki = true;
        att_sha256(st.key_spki, att_buf_slice(&job->key.spki));
        att_buf_put_slice(&ev->spki, att_buf_slice(&job->key.spki));
    }
    (void)!host_aside_join(&job->journal, NULL);
    memcpy(st.host_log_head, job->journal_head, sizeof(st.host_log_head));
    st.logs = ev->logs; /* lent: encoding reads names, lengths, digests */
    return evidence_statement_encode(&st, &ev->statement, err);
}

/* Of the AK's signature, a TPMT_SIGNATURE (WebAuthn §8.3). */
static int ak_alg(struct att_slice sig)
{
    struct att_cur cur = att_cur_init(sig);
    return att_cur_be16(&cur) == PARSE_ALG_RSASSA ? EVIDENCE_COSE_RS256 : EVIDENCE_COSE_ES256;
}

enum att_rc host_issue_attobj(struct host_issue *job, struct att_buf *ret_cbor, struct att_err *err)
{
    const struct proc_key_evidence *made = &job->evidence.made;
    struct evidence_attobj att = {.fmt = EVIDENCE_FMT_HOST,
                                  .spki = att_buf_slice(&job->evidence.spki)};
    if (made->cert_info.len && made->pub_area.len) {
        att = (struct evidence_attobj){.fmt = EVIDENCE_FMT_TPM,
                                       .alg = ak_alg(att_buf_slice(&made->cert_sig)),
                                       .sig = att_buf_slice(&made->cert_sig),
                                       .cert_info = att_buf_slice(&made->cert_info),
                                       .pub_area = att_buf_slice(&made->pub_area)};
    } else if (made->cert_info.len) { /* what an HSM's module states, signed by the key */
        att.fmt = EVIDENCE_FMT_HSM;
        att.alg =
            strncmp(job->key.type, "rsa-", 4) == 0 ? EVIDENCE_COSE_PS256 : EVIDENCE_COSE_ES256;
        att.sig = att_buf_slice(&made->cert_sig);
        att.attributes = att_buf_slice(&made->cert_info);
    }
    struct att_buf ders[EVIDENCE_X5C_MAX] = {{0}};
    struct att_slice pem = att_buf_slice(&job->ak_pem); /* parsed when it came */
    enum att_rc rc = ATT_OK;
    for (size_t i = 0; rc == ATT_OK && pem.len && i < EVIDENCE_X5C_MAX; i++) {
        rc = certs_pem_take(&pem, &ders[i], err);
        att.x5c[att.x5c_len++] = att_buf_slice(&ders[i]);
    }
    if (rc == ATT_OK) {
        rc = evidence_attobj_encode(&att, ret_cbor, err);
    }
    for (size_t i = 0; i < EVIDENCE_X5C_MAX; i++) {
        att_buf_done(&ders[i]);
    }
    return rc;
}

/* The agent's files are what its manifest says, or there is nothing to attest, and what is in
 * service is taken away. */
static enum att_rc measure(struct host_issue *job, struct att_err *err)
{
    enum att_rc rc = host_measure_agent(job->host, job->rec.name, &job->evidence.measured, err);
    job->where = HOST_AT_SELF;
    if (rc == ATT_E_DENIED) {
        HOST_LOCKED(job->host);
        struct agent *agent = agent_registry_find(job->host->reg, job->rec.name);
        if (agent) {
            agent->misfit = agent_life_serving(&agent->rec.life);
        }
    }
    return rc;
}

/* Logs, statement, Certify and Quote for this challenge. */
static enum att_rc make_evidence(struct host_issue *job, const struct acme_challenge *challenge,
                                 struct att_err *err)
{
    (void)!host_aside_join(&job->dump, NULL);
    if (job->have_evidence) {
        host_evidence_done(&job->evidence);
    }
    job->have_evidence = true;
    struct host_evidence *ev = &job->evidence;
    enum att_rc rc = host_logs_collect(job->host, &challenge->wanted, &ev->logs, err);
    if (rc == ATT_OK) {
        rc = measure(job, err);
    }
    if (rc == ATT_OK) {
        rc = build_statement(job, &challenge->wanted, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    acme_key_authorization(challenge->token, acme_client_thumbprint(job->client),
                           &ev->key_authorization);
    const char *text = att_buf_cstr(&ev->key_authorization);
    if (!text) {
        return att_fail(err, ATT_E_NOMEM, "no memory for a key authorization");
    }
    bool again = true;
    for (int tries = 0; rc == ATT_OK && again && tries < HOST_QUOTE_TRIES; tries++) {
        proc_key_evidence_done(&ev->made);
        rc = proc_keyd_key_evidence(job->host->keyd, job->rec.next_key_id, text,
                                    att_buf_slice(&ev->statement), challenge->wanted.pcr_selection,
                                    &ev->made, err);
        rc = from_keyd(job, AGENT_STAGE_TPM_EVIDENCE, rc);
        if (rc == ATT_OK) {
            rc = host_logs_read_again(job->host, &ev->logs, ev->made.quote.pcrs, &again, err);
        }
    }
    return rc;
}

/* Which counter keyd holds for the storage parent; 0: none, or keyd does not say. For people: no
 * check rests on it. */
static uint32_t parent_counter(struct host *host)
{
    att_autojson *info = NULL;
    uint8_t bytes[4];
    if (proc_keyd_info(host->keyd, &info, NULL) != ATT_OK) {
        return 0;
    }
    const json_t *counter = json_object_get(json_object_get(info, "sealing"), "counter");
    const char *index = json_string_value(json_object_get(counter, "index"));
    if (!index || json_is_true(json_object_get(counter, "missing")) ||
        strncmp(index, "0x", 2) != 0 ||
        att_unhex_exact(bytes, sizeof(bytes), index + 2, NULL) != ATT_OK) {
        return 0;
    }
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

/* M4's payload; what request borrows of the evidence is given back before it is freed. */
static enum att_rc build_m4(struct host_issue *job, const struct acme_challenge *challenge,
                            struct att_buf *ret_payload, struct att_err *err)
{
    struct host_evidence *ev = &job->evidence;
    struct att_buf attobj = {0};
    struct enrol_m4_request m4 = {0};
    enum att_rc rc = parse_pcr_set_from_json(ev->made.quote.pcrs, NULL, &m4.pcrs, err);
    if (rc == ATT_OK) {
        rc = host_issue_attobj(job, &attobj, err);
    }
    if (rc == ATT_OK) {
        m4.attobj = attobj;
        m4.ak_url = job->ak_url;
        m4.evidence = ev->statement;
        m4.quote.attest = ev->made.quote.attest;
        m4.quote.sig = ev->made.quote.sig;
        m4.logs = ev->logs;
        m4.srk_pub = ev->made.srk_pub;
        m4.parent_pub = ev->made.parent_pub;
        m4.parent_counter = ev->made.parent_pub.len ? parent_counter(job->host) : 0;
        m4.manifest = ev->measured.document;
        rc = enrol_m4_request_encode(&m4, challenge->wanted.known, challenge->wanted.n_known,
                                     ret_payload, err);
    }
    att_buf_done(&attobj);
    return rc;
}

static enum att_rc write_dump(void *arg, struct att_err *err)
{
    struct host_issue *job = arg;
    return host_evidence_write(job->host, job->name, &job->evidence, err);
}

static enum att_rc answer(struct host_issue *job, const struct acme_challenge *challenge,
                          struct att_err *err)
{
    bool device = job->rec.identifier[0] != '\0';
    att_autobuf payload = ATT_BUF_INIT(ENROL_EVIDENCE_MAX);
    enum att_rc rc = need_key_of_entry(job, err);
    if (rc == ATT_OK) {
        rc = device ? host_issue_statement(job, challenge, &payload, err)
                    : make_evidence(job, challenge, err);
    }
    if (rc == ATT_OK && !device) {
        rc = build_m4(job, challenge, &payload, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    if (!device) {
        host_aside_start(&job->dump, write_dump, job);
    }
    struct acme_challenge after = {0};
    rc = from_issuer(
        job, AGENT_STAGE_NET_CHALLENGE,
        acme_client_challenge(job->client, challenge->url, att_buf_slice(&payload), &after, err));
    if (rc == ATT_OK) {
        job->accepted = after.status == ACME_S_VALID;
        acme_challenge_done(&after);
    } else if (rc != ATT_E_UNREACHABLE && rc != ATT_E_TIMEOUT && rc != ATT_E_GONE) {
        job->order_dead = true; /* an authorization is judged once */
    }
    return rc;
}

static enum att_rc attest(struct host_issue *job, struct att_err *err)
{
    if (job->order.n_authorizations != 1) {
        return att_fail(err, ATT_E_PROTOCOL, "the order has %zu authorizations, expected 1",
                        job->order.n_authorizations);
    }
    struct acme_authz authz = {0};
    enum att_rc rc =
        from_issuer(job, AGENT_STAGE_NET_AUTHORIZATION,
                    acme_client_authz(job->client, job->order.authorizations[0], &authz, err));
    if (rc != ATT_OK) {
        return rc;
    }
    const struct acme_challenge *challenge = acme_authz_find(&authz, ACME_CHALLENGE_DEVICE_ATTEST);
    if (!challenge || !challenge->token || !challenge->url) {
        rc = att_fail(err, ATT_E_UNSUPPORTED, "the issuer offers no %s challenge",
                      ACME_CHALLENGE_DEVICE_ATTEST);
        att_err_reason(err, "noDeviceAttest");
        job->where = HOST_AT_ISSUER;
        job->order_dead = true;
    } else if (authz.status == ACME_S_PENDING && challenge->status == ACME_S_PENDING) {
        rc = answer(job, challenge, err);
    } else if (authz.status != ACME_S_VALID && challenge->status != ACME_S_PROCESSING) {
        job->order_dead = true;
        rc = att_fail(err, ATT_E_RETRY, "the authorization is %s", acme_status_word(authz.status));
    }
    acme_authz_done(&authz);
    return rc;
}

/* RFC 8555 §7.1.6: the order is ready once its authorizations are valid, and ours, of which there
 * is one, is once the challenge is (§7.1.4): it need not be asked for. An issuer that is not so far
 * yet says orderNotReady to finalize, and the next attempt looks at the order. */
static bool became_ready(struct host_issue *job)
{
    bool ready = job->accepted && job->have_order && job->order.status == ACME_S_PENDING;
    if (ready) {
        job->order.status = ACME_S_READY;
    }
    return ready;
}

/* After the answer the order's own word counts: ready, or not yet, or never. */
static enum att_rc step_attest(struct host_issue *job, struct att_err *err)
{
    enum att_rc rc = need_order(job, err);
    if (rc == ATT_OK && job->order.status == ACME_S_PENDING) {
        rc = attest(job, err);
        if (rc == ATT_OK && !became_ready(job)) {
            drop_order(job);
            rc = from_issuer(job, AGENT_STAGE_NET_CHALLENGE,
                             acme_client_wait_order(job->client, job->rec.order_url, true,
                                                    ORDER_TIMEOUT_MS, &job->order, err));
            job->have_order = rc == ATT_OK;
        }
    }
    if (rc != ATT_OK) {
        return rc;
    }
    switch (job->order.status) {
    case ACME_S_READY:
    case ACME_S_PROCESSING:
    case ACME_S_VALID:
        return advance(job, AGENT_EV_VERDICT, err);
    default:
        return order_died(job, err);
    }
}

/* ---- finalize, download ------------------------------------------------------------------------
 */

static enum att_rc send_csr(struct host_issue *job, struct att_err *err)
{
    att_autobuf csr = job->ahead.csr;
    job->ahead.csr = (struct att_buf){0};
    if (!csr.len) {
        enum att_rc made =
            from_keyd(job, AGENT_STAGE_TPM_CSR,
                      host_issue_csr(job->host, job->rec.next_key_id, job->rec.spiffe_id,
                                     job->rec.identifier, &csr, err));
        if (made != ATT_OK) {
            return made;
        }
    }
    struct acme_order after = {0};
    enum att_rc rc = from_issuer(
        job, AGENT_STAGE_NET_FINALIZE,
        acme_client_finalize(job->client, job->order.finalize, att_buf_slice(&csr), &after, err));
    drop_order(job);
    if (rc == ATT_OK) {
        job->order = after;
        job->have_order = true;
    }
    return rc;
}

static enum att_rc step_finalize(struct host_issue *job, struct att_err *err)
{
    enum att_rc rc = need_order(job, err);
    if (rc == ATT_OK) {
        rc = advance(job, AGENT_EV_CSR_SENT, err);
    }
    /* On disk before the CSR leaves: after a crash the certificate is fetched, not made twice. */
    if (rc == ATT_OK) {
        rc = host_issue_written(job, err);
        host_issue_lap(job, AGENT_STAGE_TPM_CSR);
    }
    if (rc == ATT_OK && job->order.status == ACME_S_READY) {
        rc = send_csr(job, err);
    }
    return rc;
}

static enum att_rc step_download(struct host_issue *job, struct att_err *err)
{
    enum att_rc rc = need_order(job, err);
    if (rc == ATT_OK && job->order.status == ACME_S_READY) {
        rc = send_csr(job, err); /* the first one did not arrive */
    }
    if (rc == ATT_OK && job->order.status == ACME_S_PROCESSING) {
        drop_order(job);
        rc = from_issuer(job, AGENT_STAGE_NET_FINALIZE,
                         acme_client_wait_order(job->client, job->rec.order_url, false,
                                                ORDER_TIMEOUT_MS, &job->order, err));
        job->have_order = rc == ATT_OK;
    }
    if (rc != ATT_OK) {
        return rc;
    }
    if (job->order.status != ACME_S_VALID || !job->order.certificate) {
        return order_died(job, err);
    }
    att_autobuf pem = ATT_BUF_INIT(ACME_CERT_MAX);
    rc = from_issuer(job, AGENT_STAGE_NET_CERTIFICATE,
                     acme_client_certificate(job->client, job->order.certificate, &pem, err));
    if (rc == ATT_OK) {
        rc = need_key(job, err);
    }
    return rc == ATT_OK ? host_issue_install(job, att_buf_slice(&pem), err) : rc;
}

/* ---- one turn ----------------------------------------------------------------------------------
 */

static enum att_rc do_step(struct host_issue *job, enum agent_step step, struct att_err *err)
{
    job->where = HOST_AT_SELF;
    switch (step) {
    case AGENT_STEP_MAKE_KEY:
        return step_make_key(job, err);
    case AGENT_STEP_ORDER:
        return step_order(job, err);
    case AGENT_STEP_ATTEST:
        return step_attest(job, err);
    case AGENT_STEP_FINALIZE:
        return step_finalize(job, err);
    case AGENT_STEP_DOWNLOAD:
        return step_download(job, err);
    case AGENT_STEP_NONE:
        break;
    }
    return ATT_OK;
}

static enum att_rc find_head(void *arg, struct att_err *err)
{
    struct host_issue *job = arg;
    (void)err; /* a log that cannot be synced holds up no renewal: its last head is quoted */
    host_notes_head(job->host, job->journal_head);
    return ATT_OK;
}

static enum att_rc prepare(struct host_issue *job, struct att_err *err)
{
    struct host *host = job->host;
    {
        HOST_LOCKED(host);
        memcpy(job->ak_url, host->rec.ak_url, sizeof(job->ak_url));
        att_buf_put_slice(&job->ak_pem, att_buf_slice(&host->ak_pem));
    }
    host_aside_start(&job->journal, find_head, job);
    return host_client_get(host, job->slot, &job->client, err);
}

/* Steps until nothing is left to do; the error is classified by the caller (job->where). */
static enum att_rc run(struct host_issue *job, struct att_err *err)
{
    enum att_rc rc = prepare(job, err);
    for (int i = 0; rc == ATT_OK && i < STEPS_MAX; i++) {
        enum agent_step step = agent_life_step(job->rec.life.state);
        if (step == AGENT_STEP_NONE) {
            return ATT_OK;
        }
        rc = do_step(job, step, err);
    }
    return rc;
}

/* For `agent rotate` and the benchmarks: what the time went to. */
static void keep_stages(struct host_issue *job)
{
    HOST_LOCKED(job->host);
    struct agent *agent = agent_registry_find(job->host->reg, job->rec.name);
    if (agent) {
        memcpy(agent->stage_us, job->stage_us, sizeof(agent->stage_us));
    }
}

/* The evidence's files are of the certificate that is installed, or stay what they were. */
static void show_dump(struct host_issue *job)
{
    struct att_err err = {0};
    if (!job->dump.started) {
        return;
    }
    enum att_rc rc = host_aside_join(&job->dump, &err);
    if (rc == ATT_OK && job->installed) {
        rc = host_evidence_show(job->host, job->name, &err);
    }
    if (rc != ATT_OK) {
        att_log_err(ATT_WARN, "evidence.notKept", &err);
    }
}

/* Whoever waits for the certificate waits no longer; the rest is tidying up. */
static void settled(struct host_issue *job)
{
    HOST_LOCKED(job->host);
    struct agent *agent = agent_registry_find(job->host->reg, job->rec.name);
    if (agent) {
        agent->settled = true;
    }
    pthread_cond_broadcast(&job->host->changed);
}

void host_issue_run(struct host *host, unsigned slot, const struct agent_record *rec)
{
    struct host_issue job = {.host = host, .slot = slot, .rec = *rec};
    struct att_err err = {0};
    memcpy(job.name, rec->name, sizeof(job.name));
    job.started_ms = att_boottime_ms();
    job.lap_us = att_boottime_us();
    enum att_rc rc = run(&job, &err);
    if (rc != ATT_OK) {
        host_issue_failed(&job, &err);
    }
    if (job.installed) {
        keep_stages(&job);
    }
    show_dump(&job);
    if (job.installed) {
        settled(&job);
    }
    if (job.dump.started) {
        host_evidence_tidy(host, job.name);
    }
    issue_done(&job);
}
