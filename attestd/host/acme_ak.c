/* The AK's certificate at another server than an attest-issuerd: from an attestation CA in
 * Smallstep's dialect (docs/PROTOCOL.md), or from a file. Whether its signer is trusted is the
 * server's to say. */
#include "attestd/host/internal.h"
#include "attestd/base/enc.h"
#include "attestd/base/io.h"
#include "attestd/base/secret.h"
#include "certs/chain.h"
#include "certs/oid.h"
#include "provision/acme/http.h"
#include "provision/enrol/messages.h"
#include "provision/enrol/step.h"
#include "tpm/parse/public.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER_MAX ENROL_STEP_BODY_MAX

static enum att_rc ak_spki(const struct host *host, struct att_buf *ret, struct att_err *err)
{
    struct parse_public ak;
    enum att_rc rc = parse_public_parse(host->identity.ak_pub, &ak, err);
    return rc == ATT_OK ? parse_public_spki(&ak, ret, err) : rc;
}

/* For this AK, and in force now. */
static enum att_rc check_chain(const struct host *host, struct att_slice pem,
                               struct certs_cert_info *ret_info, struct att_err *err)
{
    certs_autostack *certs = NULL;
    att_autobuf spki = {0};
    int64_t now = att_now_utc_s();
    enum att_rc rc = certs_pem_parse(pem, &certs, err);
    if (rc == ATT_OK) {
        rc = ak_spki(host, &spki, err);
    }
    if (rc == ATT_OK) {
        rc = certs_cert_matches_spki(sk_X509_value(certs, 0), att_buf_slice(&spki), err);
    }
    if (rc == ATT_OK) {
        rc = certs_cert_info(sk_X509_value(certs, 0), ret_info, err);
    }
    if (rc == ATT_OK && (ret_info->not_after <= now || ret_info->not_before > now + 86400)) {
        rc = att_fail(err, ATT_E_AUTH, "it is not valid now");
    }
    if (rc != ATT_OK) {
        att_err_prefix(err, "the AK's certificate");
        att_err_reason(err, "akCertificate");
    }
    return rc;
}

static enum att_rc keep(struct host *host, struct att_slice pem, const char *source,
                        struct att_err *err)
{
    struct certs_cert_info info;
    enum att_rc rc = check_chain(host, pem, &info, err);
    if (rc == ATT_OK) {
        rc = att_io_write_file(host->paths.ak_chain, pem, 0644, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    {
        HOST_LOCKED(host);
        struct host_record *rec = &host->rec;
        snprintf(rec->ak_url, sizeof(rec->ak_url), "%s", source);
        memcpy(rec->firmware, host->identity.firmware, sizeof(rec->firmware));
        att_hex(rec->ak_name, host->identity.ak_name);
        rec->ak_enrolled_at = att_now_utc_s();
        rec->ak_expires_at = info.not_after;
        rec->reset_count = host->identity.reset_count;
        rec->restart_count = host->identity.restart_count;
        att_buf_reset(&host->ak_pem);
        att_buf_put_slice(&host->ak_pem, pem);
    }
    char until[ATT_TIME_TEXT_LEN];
    att_time_text(until, info.not_after);
    att_log(ATT_INFO, "ak.certificate", ATT_S("source", source), ATT_S("serial", info.serial_hex),
            ATT_S("notAfter", until));
    return host_save_record(host, err);
}

/* Another source, another AK, none yet, or two thirds of its life are over. */
static bool needed(struct host *host, const char *source)
{
    HOST_LOCKED(host);
    const struct host_record *rec = &host->rec;
    char name[sizeof(rec->ak_name)] = "";
    int64_t life = rec->ak_expires_at - rec->ak_enrolled_at, now = att_now_utc_s();
    if (host->identity.ak_name.len * 2 < sizeof(name)) {
        att_hex(name, host->identity.ak_name);
    }
    return host->ak_pem.len == 0 || strcmp(rec->ak_url, source) != 0 ||
           strcmp(rec->ak_name, name) != 0 || life <= 0 ||
           now >= rec->ak_enrolled_at + life * 2 / 3 || now < rec->ak_enrolled_at - life;
}

/* ---- a file ------------------------------------------------------------------------------------
 */

static enum att_rc from_file(struct host *host, const char *path, struct att_err *err)
{
    att_autobuf pem = ATT_BUF_INIT(CERTS_CHAIN_MAX_LEN);
    enum att_rc rc = att_io_read_file(path, CERTS_CHAIN_MAX_LEN, &pem, err);
    bool same = false;
    if (rc == ATT_OK) {
        HOST_LOCKED(host);
        same = att_slice_eq(att_buf_slice(&host->ak_pem), att_buf_slice(&pem)) &&
               host->rec.ak_expires_at > att_now_utc_s();
    }
    if (rc == ATT_OK && !(same && !needed(host, path))) {
        rc = same && strcmp(host->rec.ak_url, path) == 0
                 ? ATT_OK /* past two thirds of its life: an operator's affair */
                 : keep(host, att_buf_slice(&pem), path, err);
    }
    if (rc != ATT_OK) {
        att_err_prefix(err, "acme.ak_certificate");
        att_err_reason(err, "akCertificate");
    }
    return rc;
}

/* ---- an attestation CA -------------------------------------------------------------------------
 */

static enum att_rc refused(const char *url, const struct acme_http_response *response,
                           struct att_err *err)
{
    att_autojson *json = NULL;
    const char *said = NULL;
    if (att_json_parse(att_buf_slice(&response->body), ANSWER_MAX, &json, NULL) == ATT_OK) {
        said = json_string_value(json_object_get(json, "detail"));
        said = said ? said : json_string_value(json_object_get(json, "message"));
    }
    bool later = response->status >= 500 || response->status == 429;
    enum att_rc rc = att_fail(err, later ? ATT_E_RETRY : ATT_E_DENIED, "%.200s: HTTP %d%s%.200s",
                              url, response->status, said ? ": " : "", said ? said : "");
    att_err_reason(err, "attestationCa");
    return rc;
}

static enum att_rc post(struct acme_http *http, const char *base, const char *what,
                        struct att_slice body, struct acme_http_response *ret, struct att_err *err)
{
    char url[HOST_URL_MAX + 16];
    snprintf(url, sizeof(url), "%s/%s", base, what);
    const struct acme_http_request request = {.method = "POST",
                                              .url = url,
                                              .content_type = "application/json",
                                              .accept = "application/json",
                                              .body = body,
                                              .max_body = ANSWER_MAX};
    enum att_rc rc = acme_http_perform(http, &request, ret, err);
    if (rc != ATT_OK) {
        att_err_prefix(err, "the attestation CA");
        return rc;
    }
    return ret->status / 100 == 2 ? ATT_OK : refused(url, ret, err);
}

static enum att_rc copy(struct att_buf *to, struct att_slice from, struct att_err *err)
{
    att_buf_put_slice(to, from);
    return att_buf_ok(to, err);
}

/* The EK in use, the AK, and how that came to be. */
static enum att_rc fill(struct host *host, struct enrol_step_attest *r, struct att_err *err)
{
    const struct proc_identity *id = &host->identity;
    struct proc_ak_creation made = {0};
    struct parse_public ek;
    if (id->ek_cert.len == 0) {
        enum att_rc none =
            att_fail(err, ATT_E_UNSUPPORTED,
                     "this TPM has no EK certificate: an attestation CA asks for one");
        att_err_reason(err, "ekCertificate");
        return none;
    }
    enum att_rc rc = parse_public_parse(id->ek_pub, &ek, err);
    if (rc == ATT_OK) {
        rc = parse_public_spki(&ek, &r->ek, err);
    }
    if (rc == ATT_OK) {
        r->n_ek_certs = 1;
        rc = copy(&r->ek_certs[0], id->ek_cert, err);
    }
    for (size_t i = 0;
         rc == ATT_OK && i < id->ek_chain_count && r->n_ek_certs < ENROL_STEP_CERTS_MAX; i++) {
        rc = copy(&r->ek_certs[r->n_ek_certs++], id->ek_chain[i], err);
    }
    if (rc == ATT_OK) {
        rc = copy(&r->ak_pub, id->ak_pub, err);
    }
    if (rc == ATT_OK) {
        rc = proc_keyd_ak_creation(host->keyd, &made, err);
    }
    r->create_data = made.data;
    r->create_attestation = made.attestation;
    r->create_signature = made.signature;
    memcpy(r->manufacturer, id->manufacturer, sizeof(r->manufacturer));
    snprintf(r->version, sizeof(r->version), "%.8s", id->firmware);
    return rc;
}

/* What the TPM solves goes back: that is the dialect. */
static enum att_rc solve(struct host *host, struct att_slice answer, struct att_buf *ret_body,
                         struct att_err *err)
{
    att_autobuf credential = {0}, encrypted = {0}, secret = ATT_BUF_INIT(PROC_AK_SECRET_MAX);
    enum att_rc rc = enrol_step_attest_answer_parse(answer, &credential, &encrypted, err);
    if (rc == ATT_OK) {
        rc = proc_keyd_ak_activate(host->keyd, att_buf_slice(&credential),
                                   att_buf_slice(&encrypted), &secret, err);
    }
    if (rc == ATT_OK) {
        rc = enrol_step_secret_encode(att_buf_slice(&secret), ret_body, err);
    }
    if (secret.ptr) {
        att_wipe(secret.ptr, secret.cap);
    }
    return rc;
}

static enum att_rc take_chain(struct att_slice answer, struct att_buf *ret_pem, struct att_err *err)
{
    struct att_buf chain[ENROL_STEP_CERTS_MAX] = {{0}};
    size_t n = 0;
    enum att_rc rc = enrol_step_secret_answer_parse(answer, chain, &n, err);
    for (size_t i = 0; rc == ATT_OK && i < n; i++) {
        rc = certs_pem_encode("CERTIFICATE", att_buf_slice(&chain[i]), ret_pem, err);
    }
    for (size_t i = 0; i < n; i++) {
        att_buf_done(&chain[i]);
    }
    return rc;
}

static enum att_rc ask(struct host *host, struct acme_http *http, const char *url,
                       struct att_buf *ret_pem, struct att_err *err)
{
    struct enrol_step_attest request = {0};
    struct acme_http_response first = {0}, second = {0};
    att_autobuf body = {0}, solved = {0};
    enum att_rc rc = fill(host, &request, err);
    if (rc == ATT_OK) {
        rc = enrol_step_attest_encode(&request, &body, err);
    }
    enrol_step_attest_done(&request);
    if (rc == ATT_OK) {
        rc = post(http, url, "attest", att_buf_slice(&body), &first, err);
    }
    if (rc == ATT_OK) {
        rc = solve(host, att_buf_slice(&first.body), &solved, err);
    }
    if (rc == ATT_OK) {
        rc = post(http, url, "secret", att_buf_slice(&solved), &second, err);
    }
    if (rc == ATT_OK) {
        rc = take_chain(att_buf_slice(&second.body), ret_pem, err);
    }
    if (solved.ptr) {
        att_wipe(solved.ptr, solved.cap);
    }
    acme_http_response_done(&first);
    acme_http_response_done(&second);
    return rc;
}

/* One connection of its own, at most once in some hours. */
static enum att_rc from_ca(struct host *host, const struct conf_attestd_attestation_ca *ca,
                           struct att_err *err)
{
    if (!needed(host, ca->url)) {
        return ATT_OK;
    }
    const struct acme_http_config config = {.ca_file = ca->ca_file};
    struct acme_http *http = NULL;
    att_autobuf pem = ATT_BUF_INIT(CERTS_CHAIN_MAX_LEN);
    enum att_rc rc = acme_http_new(&config, &http, err);
    if (rc == ATT_OK) {
        rc = ask(host, http, ca->url, &pem, err);
    }
    acme_http_free(http);
    if (rc == ATT_OK) {
        rc = keep(host, att_buf_slice(&pem), ca->url, err);
    }
    if (rc == ATT_OK) {
        return ATT_OK;
    }
    /* One that is still good serves while another cannot be had. */
    HOST_LOCKED(host);
    if (host->ak_pem.len && strcmp(host->rec.ak_url, ca->url) == 0 &&
        host->rec.ak_expires_at > att_now_utc_s() + 60) {
        char name[sizeof(host->rec.ak_name)] = "";
        att_hex(name, host->identity.ak_name);
        if (strcmp(host->rec.ak_name, name) == 0) {
            att_log_err(ATT_WARN, "ak.notRenewed", err);
            return ATT_OK;
        }
    }
    return rc;
}

enum att_rc host_acme_ak(struct host *host, struct att_err *err)
{
    const struct conf_attestd_acme *acme;
    {
        HOST_LOCKED(host);
        acme = host->conf->acme; /* freed only at the end */
    }
    return acme->attestation_ca ? from_ca(host, acme->attestation_ca, err)
                                : from_file(host, acme->ak_certificate, err);
}
