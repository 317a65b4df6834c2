#include "attestd/host/issue.h"
#include "attestd/base/enc.h"
#include "attestd/base/io.h"
#include "certs/ekcert.h"
#include "provision/enrol/messages.h"
#include "tpm/parse/public.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IDENTITY_AGE_MS  60000
#define ISSUANCE_LOOK_MS 1000

void host_want_enrolment(struct host *host)
{
    HOST_LOCKED(host);
    host->enrol_wanted = true;
    host_nudge(host);
}

void host_account_lost(struct host *host)
{
    {
        HOST_LOCKED(host);
        host->rec.kid[0] = '\0';
        host->generation += host->generation != 0;
    }
    host_want_enrolment(host);
}

/* ---- keyd --------------------------------------------------------------------------------------
 */

/* Is it the keyd that it was? One that is still starting is asked again: what its keys are needed
 * for needs the TPM, too. */
static enum att_rc check_instance(struct host *host, const json_t *info, const char *state,
                                  struct att_err *err)
{
    const char *instance;
    enum att_rc rc = att_json_str(info, "instance", &instance, err);
    if (rc != ATT_OK || strcmp(instance, host->keyd_instance) == 0 ||
        strcmp(state, "starting") == 0) {
        return rc;
    }
    bool first;
    {
        HOST_LOCKED(host);
        first = host->keyd_instance[0] == '\0';
        snprintf(host->keyd_instance, sizeof(host->keyd_instance), "%s", instance);
    }
    if (!first) {
        att_log(ATT_INFO, "keyd.restarted", ATT_S("instance", instance));
        host_keys_may_be_gone(host); /* at our own start they are compared anyway */
    }
    return ATT_OK;
}

/* The state that INFO reports, as an error unless it is "ready". Also what the TPM is measured to
 * need for one renewal. */
static enum att_rc check_info(struct host *host, struct att_err *err)
{
    att_autojson *info = NULL;
    uint64_t seen = host_freeze_seen(host);
    enum att_rc rc = proc_keyd_info(host->keyd, &info, err);
    if (rc != ATT_OK) {
        return rc;
    }
    host_freeze_settle(host, json_object_get(info, "frozen"), seen);
    const char *state;
    rc = att_json_str(info, "state", &state, err);
    if (rc == ATT_OK) {
        rc = check_instance(host, info, state, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    if (strcmp(state, "ready") != 0) {
        const char *reason = json_string_value(json_object_get(info, "reason"));
        rc = att_fail(err, ATT_E_RETRY, "keyd is not ready (%s): %s", state, att_log_text(reason));
        att_err_reason(err, state);
        return rc;
    }
    int64_t p95 = 0;
    const char *op;
    json_t *stats;
    json_object_foreach(json_object_get(info, "ops"), op, stats)
    {
        p95 += json_integer_value(json_object_get(stats, "p95Us"));
    }
    HOST_LOCKED(host);
    host->tpm_p95_us = p95;
    return ATT_OK;
}

static bool same_boot(const struct proc_identity *a, const struct host_record *rec)
{
    return a->reset_count == rec->reset_count && a->restart_count == rec->restart_count &&
           strcmp(a->firmware, rec->firmware) == 0;
}

/* What the certificates in force say of the boot is of an earlier one. Under lock. */
static void renew_all(struct host *host)
{
    for (size_t i = 0; i < agent_registry_count(host->reg); i++) {
        struct agent *agent = agent_registry_at(host->reg, i);
        agent->forced |= agent->rec.life.state == AGENT_VALID;
    }
}

static void log_identity(const struct proc_identity *id, const struct host_record *rec)
{
    if (rec->ak_url[0] && !same_boot(id, rec)) {
        att_log(ATT_INFO, "tpm.boot", ATT_N("resetCount", id->reset_count),
                ATT_N("restartCount", id->restart_count),
                ATT_N("enrolledResetCount", rec->reset_count),
                ATT_N("enrolledRestartCount", rec->restart_count), ATT_S("firmware", id->firmware));
    }
}

static enum att_rc take_identity(struct host *host, struct att_err *err)
{
    struct proc_identity id = {0};
    struct proc_account account = {0};
    enum att_rc rc = proc_keyd_identity(host->keyd, &id, err);
    if (rc == ATT_OK) {
        rc = proc_keyd_account(host->keyd, &account, err);
    }
    if (rc != ATT_OK) {
        proc_identity_done(&id);
        return rc;
    }
    HOST_LOCKED(host);
    log_identity(&id, &host->rec);
    if (host->rec.kid[0] && strcmp(account.thumbprint, host->rec.thumbprint) != 0) {
        att_log(ATT_WARN, "account.keyChanged", ATT_S("old", host->rec.thumbprint),
                ATT_S("new", account.thumbprint));
        host->rec.kid[0] = '\0';
        host->rec.ak_url[0] = '\0';
    }
    if (host->generation == 0 || strcmp(account.thumbprint, host->account.thumbprint) != 0) {
        host->generation++;
    }
    proc_identity_done(&host->identity);
    proc_account_done(&host->account);
    host->identity = id;
    host->account = account;
    host->have_identity = true;
    host->identity_at_ms = att_boottime_ms();
    return ATT_OK;
}

enum att_rc host_keyd_ready(struct host *host, struct att_err *err)
{
    bool back;
    {
        HOST_LOCKED(host);
        back = host->keyd_back;
        host->keyd_back = false;
    }
    if (host->have_identity && att_boottime_ms() - host->identity_at_ms < IDENTITY_AGE_MS &&
        !host->enrol_wanted && !back) {
        return ATT_OK;
    }
    enum att_rc rc = check_info(host, err);
    if (rc == ATT_OK) {
        rc = take_identity(host, err);
    }
    if (rc != ATT_OK) {
        HOST_LOCKED(host);
        host->keyd_back |= back;
    }
    return rc;
}

/* ---- the account (M0) --------------------------------------------------------------------------
 */

enum att_rc host_save_record(struct host *host, struct att_err *err)
{
    struct host_record rec;
    {
        HOST_LOCKED(host);
        rec = host->rec;
    }
    return host_record_save(host->paths.record, &rec, err);
}

static enum att_rc bind_account(struct host *host, struct acme_client *client, bool eab_required,
                                struct att_err *err)
{
    struct host_ticket ticket = {0};
    struct att_err ticket_err = {0};
    uint64_t n = 0;
    if (host_acme_on(host)) {
        return host_acme_bind(host, client, eab_required, err);
    }
    enum att_rc rc = host_ticket_get(host, &ticket, &n, &ticket_err);
    if (rc == ATT_OK) {
        rc = acme_client_new_account(client, ticket.kid, att_secret_slice(&ticket.mac_key), false,
                                     err);
        host_ticket_done(&ticket);
        if (n && rc != ATT_OK && rc != ATT_E_RETRY && acme_client_last(client)->has_problem) {
            host_given_drop(host, n, err);
        }
        return rc;
    }
    if (eab_required) {
        rc = att_fail(err, ATT_E_NOTFOUND, "the issuer wants an enrolment ticket: %s",
                      ticket_err.msg);
        att_err_reason(err, "ticketMissing");
        return rc;
    }
    return acme_client_new_account(client, NULL, (struct att_slice){0}, false, err);
}

/* Orders of the issuer before are not asked for at the new one. Those that a worker is at end by
 * what it answers. Under lock. */
static void drop_orders(struct host *host)
{
    for (size_t i = 0; i < agent_registry_count(host->reg); i++) {
        struct agent *agent = agent_registry_at(host->reg, i);
        if (!agent->busy && agent->rec.order_url[0] &&
            agent_life_apply(&agent->rec.life, AGENT_EV_ORDER_DEAD, NULL) == ATT_OK) {
            agent->rec.order_url[0] = '\0';
            agent->not_before_ms = 0;
        }
    }
}

/* Another issuer than the one that the record speaks of: nothing of the record holds there. */
enum att_rc host_issuer_check(struct host *host, struct att_err *err)
{
    struct host_issuer issuer;
    enum att_rc rc = host_issuer_get(host, &issuer, err);
    if (rc != ATT_OK) {
        return rc;
    }
    HOST_LOCKED(host);
    if (host->rec.issuer_url[0] && strcmp(host->rec.issuer_url, issuer.url) != 0) {
        att_log(ATT_WARN, "issuer.changed", ATT_S("old", host->rec.issuer_url),
                ATT_S("new", issuer.url));
        host->rec = (struct host_record){0};
        host->view_version = host->view_kept = 0;
        host->generation++;
        drop_orders(host);
    }
    memcpy(host->rec.issuer_url, issuer.url, sizeof(issuer.url));
    memcpy(host->rec.ca_sha256, issuer.ca_sha256_hex, sizeof(issuer.ca_sha256_hex));
    return ATT_OK;
}

static enum att_rc note_account(struct host *host, const char *kid, const char *how,
                                struct att_err *err)
{
    if (!kid || strlen(kid) > HOST_URL_MAX) {
        return att_fail(err, ATT_E_PROTOCOL, "the issuer's account URL is missing or too long");
    }
    {
        HOST_LOCKED(host);
        memcpy(host->rec.kid, kid, strlen(kid) + 1);
        memcpy(host->rec.thumbprint, host->account.thumbprint, sizeof(host->rec.thumbprint));
        host->last_error = (struct agent_error){0};
    }
    host_given_drop(host, 0, NULL);
    att_log(ATT_INFO, "account.ready", ATT_S("kid", kid), ATT_S("how", how));
    return host_save_record(host, err);
}

/* keyd keeps an issuer only once there is an account: if it was started again since it was told
 * which one the ticket names that we were given, it does not know. */
static enum att_rc tell_keyd(struct host *host, struct att_err *err)
{
    struct host_ticket ticket = {0};
    uint64_t n = 0;
    if (host_acme_on(host) || host_ticket_get(host, &ticket, &n, NULL) != ATT_OK) {
        return ATT_OK; /* said when it is needed */
    }
    enum att_rc rc = n ? proc_keyd_issuer(host->keyd, ticket.url, err) : ATT_OK;
    host_ticket_done(&ticket);
    return rc;
}

enum att_rc host_account_ready(struct host *host, struct acme_client *client, struct att_err *err)
{
    {
        HOST_LOCKED(host);
        if (host->rec.kid[0]) {
            return ATT_OK;
        }
    }
    enum att_rc rc = tell_keyd(host, err);
    if (rc != ATT_OK) {
        return rc;
    }
    const struct acme_directory *dir;
    rc = acme_client_directory(client, true, &dir, err);
    host_client_heard(host, client);
    if (rc != ATT_OK) {
        return rc;
    }
    if (!host_acme_on(host) &&
        (!dir->new_attestation_key || !dir->host_view || dir->version != 1)) {
        return att_fail(err, ATT_E_UNSUPPORTED,
                        "the issuer is a plain ACME server: no newAttestationKey and hostView in "
                        "its directory (section acme of attestd.yaml is for such)");
    }
    bool eab = dir->external_account_required;
    /* The account may exist: state_dir was lost, keyd's was not. */
    struct att_err probe = {0};
    rc = acme_client_new_account(client, NULL, (struct att_slice){0}, true, &probe);
    if (rc == ATT_OK) {
        return note_account(host, acme_client_kid(client), "existing", err);
    }
    rc = bind_account(host, client, eab, err);
    host_client_heard(host, client);
    return rc == ATT_OK ? note_account(host, acme_client_kid(client), "new", err) : rc;
}

/* ---- the AK (M1, M2) ----------------------------------------------------------------------------
 */

/* Why a new AK record is needed; NULL when it is not. Under lock. */
static const char *why_enrol(struct host *host)
{
    const struct host_record *rec = &host->rec;
    if (rec->ak_url[0] == '\0' || host->ak_pem.len == 0) {
        return "noRecord";
    }
    if (host->enrol_wanted) {
        return "asked";
    }
    if (!same_boot(&host->identity, rec)) {
        return "boot";
    }
    char name[sizeof(rec->ak_name)] = "";
    if (host->identity.ak_name.len * 2 < sizeof(name)) {
        att_hex(name, host->identity.ak_name);
    }
    if (strcmp(name, rec->ak_name) != 0) {
        return "akChanged";
    }
    /* At two thirds of its life. */
    int64_t life = rec->ak_expires_at - rec->ak_enrolled_at;
    int64_t now = att_now_utc_s();
    if (life <= 0 || now >= rec->ak_enrolled_at + life * 2 / 3 ||
        now < rec->ak_enrolled_at - life) {
        return "akExpires";
    }
    return NULL;
}

bool host_enrol_needed(struct host *host)
{
    HOST_LOCKED(host);
    return why_enrol(host) != NULL;
}

static enum att_rc copy_certs(const struct att_slice *from, size_t n, struct att_buf *to,
                              size_t *ret_n, struct att_slice skip, struct att_err *err)
{
    for (size_t i = 0; i < n && *ret_n < ENROL_CERTS_MAX; i++) {
        if (skip.len && att_slice_eq(from[i], skip)) {
            continue;
        }
        struct att_buf *buf = &to[*ret_n];
        att_buf_put_slice(buf, from[i]);
        enum att_rc rc = att_buf_ok(buf, err);
        if (rc != ATT_OK) {
            return rc;
        }
        (*ret_n)++;
    }
    return ATT_OK;
}

static enum att_rc build_m1(const struct proc_identity *id, struct att_buf *ret_payload,
                            struct att_err *err)
{
    struct enrol_m1_request m1 = {0};
    att_buf_put_slice(&m1.ek_cert, id->ek_cert);
    att_buf_put_slice(&m1.ek_pub, id->ek_pub);
    att_buf_put_slice(&m1.ak_pub, id->ak_pub);
    memcpy(m1.manufacturer, id->manufacturer, sizeof(m1.manufacturer));
    memcpy(m1.version, id->firmware, sizeof(m1.version));
    enum att_rc rc = copy_certs(id->ek_chain, id->ek_chain_count, m1.ek_chain, &m1.n_ek_chain,
                                (struct att_slice){0}, err);
    if (rc == ATT_OK) {
        rc = copy_certs(id->ek_certs, id->ek_cert_count, m1.other_ek_certs, &m1.n_other_ek_certs,
                        id->ek_cert, err);
    }
    if (rc == ATT_OK) {
        rc = enrol_m1_request_encode(&m1, ret_payload, err);
    }
    enrol_m1_request_done(&m1);
    return rc;
}

/* The TPM's half of M2: activation, proof, quote. */
static enum att_rc prove(struct host *host, const struct enrol_m1_response *m1, const char *ak_url,
                         struct att_slice payload, struct att_slice body,
                         struct enrol_m2_request *m2, struct att_err *err)
{
    att_autobuf manifest = {0};
    enum att_rc rc = host_logs_collect(host, &m1->wanted, &m2->logs, err);
    if (rc == ATT_OK) {
        rc = evidence_manifest_encode(&m2->logs, &manifest, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    uint8_t payload_digest[ATT_SHA256_LEN], body_digest[ATT_SHA256_LEN];
    att_sha256(payload_digest, payload);
    att_sha256(body_digest, body);
    struct proc_enrol_args args = {
        .credential_blob = att_buf_slice(&m1->credential_blob),
        .encrypted_secret = att_buf_slice(&m1->encrypted_secret),
        .ak_url = ak_url,
        .m1_sha256 = payload_digest,
        .m1_reply_sha256 = body_digest,
        .nonce = ATT_SLICE(m1->nonce, sizeof(m1->nonce)),
        .pcr_selection = m1->wanted.pcr_selection,
        .log_manifest = att_buf_slice(&manifest),
    };
    struct proc_quote quote = {0};
    bool again = true;
    for (int tries = 0; rc == ATT_OK && again && tries < HOST_QUOTE_TRIES; tries++) {
        proc_quote_done(&quote);
        rc = proc_keyd_enrol_prove(host->keyd, &args, m2->proof, &quote, err);
        if (rc == ATT_OK) {
            rc = host_logs_read_again(host, &m2->logs, quote.pcrs, &again, err);
        }
    }
    if (rc == ATT_OK) {
        rc = parse_pcr_set_from_json(quote.pcrs, NULL, &m2->pcrs, err);
    }
    if (rc == ATT_OK) {
        m2->quote.attest = quote.attest;
        m2->quote.sig = quote.sig;
        quote.attest = (struct att_buf){0};
        quote.sig = (struct att_buf){0};
    }
    proc_quote_done(&quote);
    return rc;
}

/* The certificate is for this AK and this EK id; anything else would be of no use. */
static enum att_rc check_ak_cert(struct host *host, const struct enrol_m2_response *m2,
                                 struct att_err *err)
{
    certs_autostack *certs = NULL;
    enum att_rc rc = certs_pem_parse(att_buf_slice(&m2->ak_certificate), &certs, err);
    struct parse_public ak;
    att_autobuf spki = {0};
    if (rc == ATT_OK) {
        rc = parse_public_parse(host->identity.ak_pub, &ak, err);
    }
    if (rc == ATT_OK) {
        rc = parse_public_spki(&ak, &spki, err);
    }
    if (rc == ATT_OK) {
        rc = certs_cert_matches_spki(sk_X509_value(certs, 0), att_buf_slice(&spki), err);
    }
    if (rc != ATT_OK) {
        att_err_prefix(err, "the AK certificate that the issuer sent");
    }
    return rc;
}

static enum att_rc keep(struct host *host, const struct enrol_m2_response *m2, const char *ak_url,
                        struct att_err *err)
{
    if (strlen(ak_url) > HOST_URL_MAX) {
        return att_fail(err, ATT_E_LIMIT, "the AK URL is longer than %d", HOST_URL_MAX);
    }
    enum att_rc rc =
        att_io_write_file(host->paths.ak_chain, att_buf_slice(&m2->ak_certificate), 0644, err);
    if (rc != ATT_OK) {
        return rc;
    }
    {
        HOST_LOCKED(host);
        struct host_record *rec = &host->rec;
        if (rec->ak_url[0] && !same_boot(&host->identity, rec)) {
            renew_all(host);
        }
        memcpy(rec->ak_url, ak_url, strlen(ak_url) + 1);
        memcpy(rec->host_id, m2->host_id, sizeof(rec->host_id));
        memcpy(rec->firmware, host->identity.firmware, sizeof(rec->firmware));
        att_hex(rec->ak_name, host->identity.ak_name);
        rec->ak_expires_at = m2->expires_at;
        rec->ak_enrolled_at = att_now_utc_s();
        rec->approved = m2->host_approved;
        rec->reset_count = host->identity.reset_count;
        rec->restart_count = host->identity.restart_count;
        att_buf_reset(&host->ak_pem);
        att_buf_put_slice(&host->ak_pem, att_buf_slice(&m2->ak_certificate));
        host->enrol_wanted = false;
        host->phase = rec->approved ? HOST_ENROLLED : HOST_PENDING;
    }
    return host_save_record(host, err);
}

static enum att_rc activate(struct host *host, struct acme_client *client,
                            const struct enrol_m1_response *m1, const char *ak_url,
                            struct att_slice payload, struct att_slice body, struct att_err *err)
{
    struct enrol_m2_request request = {0};
    struct enrol_m2_response response = {0};
    att_autobuf m2_payload = ATT_BUF_INIT(ENROL_EVIDENCE_MAX);
    att_autobuf m2_body = {0};
    enum att_rc rc = prove(host, m1, ak_url, payload, body, &request, err);
    if (rc == ATT_OK) {
        rc = enrol_m2_request_encode(&request, m1->wanted.known, m1->wanted.n_known, &m2_payload,
                                     err);
    }
    enrol_m2_request_done(&request);
    if (rc == ATT_OK) {
        rc = acme_client_activate(client, ak_url, att_buf_slice(&m2_payload), &m2_body, err);
    }
    if (rc == ATT_OK) {
        rc = enrol_m2_response_parse(att_buf_slice(&m2_body), &response, err);
    }
    if (rc == ATT_OK) {
        rc = check_ak_cert(host, &response, err);
    }
    if (rc == ATT_OK) {
        rc = keep(host, &response, ak_url, err);
    }
    enrol_m2_response_done(&response);
    return rc;
}

bool host_enrol_may_begin(struct host *host)
{
    host->phase = HOST_ENROLLING;
    for (size_t i = 0; i < agent_registry_count(host->reg); i++) {
        if (agent_registry_at(host->reg, i)->issuing) {
            return false;
        }
    }
    return true;
}

/* Each issuance ends: its requests have their time-outs. */
enum att_rc host_enrol_begin(struct host *host, const char **ret_why, struct att_err *err)
{
    HOST_LOCKED(host);
    while (!host_enrol_may_begin(host) && !atomic_load(&host->stop)) {
        host_wait(host, ISSUANCE_LOOK_MS);
    }
    *ret_why = why_enrol(host);
    return atomic_load(&host->stop) ? att_fail(err, ATT_E_GONE, "attestd stops") : ATT_OK;
}

enum att_rc host_enrol(struct host *host, struct acme_client *client, struct att_err *err)
{
    const char *why = NULL;
    enum att_rc rc = host_enrol_begin(host, &why, err);
    if (rc != ATT_OK) {
        return rc;
    }
    att_autobuf payload = ATT_BUF_INIT(ENROL_M1_MAX);
    att_autobuf body = {0};
    char *ak_url = NULL;
    struct enrol_m1_response m1 = {0};
    int64_t start = att_boottime_ms();
    rc = build_m1(&host->identity, &payload, err);
    if (rc == ATT_OK) {
        rc = acme_client_new_attestation_key(client, att_buf_slice(&payload), &body, &ak_url, err);
        host_client_heard(host, client);
    }
    if (rc == ATT_OK) {
        rc = enrol_m1_response_parse(att_buf_slice(&body), &m1, err);
    }
    if (rc == ATT_OK) {
        rc =
            activate(host, client, &m1, ak_url, att_buf_slice(&payload), att_buf_slice(&body), err);
        host_client_heard(host, client);
    }
    if (rc == ATT_OK) {
        att_log(ATT_INFO, "host.enrolled", ATT_S("why", att_log_text(why)),
                ATT_S("host", host->rec.host_id),
                ATT_S("state", host->rec.approved ? "approved" : "pending"),
                ATT_S("pcrs", m1.wanted.pcr_selection), ATT_N("ms", att_boottime_ms() - start));
    }
    enrol_m1_response_done(&m1);
    free(ak_url);
    return rc;
}
