/* Another server than an attest-issuerd: agents come from a file of this host, trust anchors too,
 * and nothing is heard but answers to orders. */
#include "attestd/host/issue.h"
#include "attestd/base/enc.h"
#include "attestd/base/io.h"
#include "certs/bundle.h"
#include "certs/chain.h"
#include "tpm/parse/public.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROOTS_MAX ((size_t)1 << 20)
#define EAB_MAX   ((size_t)4096)

bool host_acme_on(struct host *host)
{
    HOST_LOCKED(host);
    return host->conf->acme != NULL;
}

static const struct conf_attestd_acme *section(struct host *host)
{
    HOST_LOCKED(host);
    return host->conf->acme; /* freed only at the end */
}

/* ---- what it does not give ---------------------------------------------------------------------
 */

static const struct {
    const char *word, *what;
} lacks[] = {
    {"bootEvidence", "nobody judges how this host booted: no quote is asked for, and a host that "
                     "booted anything else keeps its certificates"},
    {"enrolment", "the server does not know this host; who may have which identifier is between it "
                  "and the attestation CA"},
    {"view", "agents, their selectors and trust anchors are this host's own files: whoever writes "
             "them decides"},
    {"revocationPush", "nobody tells this host of revoked certificates; they serve until they end"},
    {"spiffeIds", "certificates name a device, not an agent: no SPIFFE Workload API, no SDS"},
    {"jwtTokens", "no JWT-SVIDs are minted"},
    {"transparencyLog", "no decision record stands behind a certificate"},
};
#define LACKS (sizeof(lacks) / sizeof(lacks[0]))

json_t *host_acme_lacks(void)
{
    json_t *list = json_array();
    for (size_t i = 0; i < LACKS; i++) {
        json_array_append_new(list, json_string(lacks[i].word));
    }
    return list;
}

void host_acme_doctor(json_t *checks)
{
    for (size_t i = 0; i < LACKS; i++) {
        host_doctor_add(checks, lacks[i].word, false, true,
                        "an attest-issuerd gives it; the server of section acme does not", "%s",
                        lacks[i].what);
    }
}

/* ---- agents ------------------------------------------------------------------------------------
 */

enum att_rc host_acme_agents_load(const struct conf_attestd *conf,
                                  struct conf_acme_agents **ret_agents, struct att_err *err)
{
    if (!conf->acme) {
        return ATT_OK;
    }
    struct conf_errors *errors = calloc(1, sizeof(*errors));
    if (!errors) {
        return att_fail(err, ATT_E_NOMEM, "no memory for agents");
    }
    enum att_rc rc = conf_acme_agents_load(conf->acme->agents, ret_agents, errors, err);
    for (size_t i = 0; rc != ATT_OK && i < errors->n; i++) {
        att_autobuf line = {0};
        conf_error_text(&errors->v[i], conf->acme->agents, &line);
        const char *text = att_buf_cstr(&line);
        fprintf(stderr, "%s\n", text ? text : "out of memory");
    }
    free(errors);
    return rc;
}

void host_acme_agents_put(struct host *host, struct conf_acme_agents *agents)
{
    conf_acme_agents_free(host->acme_agents);
    host->acme_agents = agents;
}

static enum att_rc selectors_of(const struct conf_acme_agents *agents,
                                struct host_selectors **ret_selectors, struct att_err *err)
{
    att_autojson *entries = json_array();
    for (size_t i = 0; i < agents->n; i++) {
        const struct conf_acme_agent *agent = &agents->agents[i];
        const struct conf_entry entry = {
            .name = agent->name, .workload = agent->workload, .n_workload = agent->n_workload};
        json_t *workload = NULL;
        enum att_rc rc = conf_workloads_to_json(&entry, &workload, err);
        if (rc != ATT_OK) {
            return rc;
        }
        if (json_array_append_new(
                entries, json_pack("{s:s, s:o}", "name", agent->name, "workload", workload)) != 0) {
            return att_fail(err, ATT_E_NOMEM, "no memory for agents");
        }
    }
    return host_selectors_new(entries, ret_selectors, err);
}

static enum att_rc put_selectors(struct host *host, const struct conf_acme_agents *agents,
                                 struct att_err *err)
{
    ATT_CLEANUP(host_selectors_unref) struct host_selectors *selectors = NULL;
    enum att_rc rc = selectors_of(agents, &selectors, err);
    if (rc == ATT_OK) {
        HOST_LOCKED(host);
        struct host_selectors *before = host->selectors;
        host->selectors = selectors;
        selectors = before; /* let go at the end */
    }
    return rc;
}

/* The registry is as the file says; host_agents_sync writes down what changed. */
static enum att_rc sync_agents(struct host *host, const struct conf_acme_agents *agents,
                               const char *ek_id, struct att_err *err)
{
    struct host_view view = {.n_entries = agents->n};
    view.entries = calloc(agents->n ? agents->n : 1, sizeof(*view.entries));
    if (!view.entries) {
        return att_fail(err, ATT_E_NOMEM, "no memory for agents");
    }
    for (size_t i = 0; i < agents->n; i++) {
        const struct conf_acme_agent *agent = &agents->agents[i];
        view.entries[i] =
            (struct agent_entry){.name = agent->name,
                                 .spiffe_id = "",
                                 .profile = agent->profile ? agent->profile : "",
                                 .key_store = "tpm",
                                 .identifier = agent->identifier ? agent->identifier : ek_id};
    }
    enum att_rc rc = host_agents_sync(host, &view, err);
    free(view.entries);
    return rc;
}

/* Those read last; the host thread owns what is in force. */
static enum att_rc take_agents(struct host *host, struct att_err *err)
{
    struct conf_acme_agents *fresh;
    {
        HOST_LOCKED(host);
        fresh = host->acme_agents;
        host->acme_agents = NULL;
    }
    if (!fresh) {
        return ATT_OK;
    }
    conf_acme_agents_free(host->acme_applied);
    host->acme_applied = fresh;
    return put_selectors(host, fresh, err);
}

/* ---- trust anchors -----------------------------------------------------------------------------
 */

/* Read anew each time: a file that an operator replaces counts from then on. One that cannot be
 * read leaves what was in force. */
static enum att_rc load_roots(struct host *host, struct att_err *err)
{
    const char *path = section(host)->roots;
    att_autobuf pem = ATT_BUF_INIT(ROOTS_MAX), kept = ATT_BUF_INIT(ROOTS_MAX);
    certs_autostack *roots = NULL;
    enum att_rc rc = att_io_read_file(path, ROOTS_MAX, &pem, err);
    if (rc == ATT_OK) {
        rc = certs_bundle_parse(att_buf_slice(&pem), &roots, err);
    }
    if (rc != ATT_OK) {
        att_err_prefix(err, "acme.roots: %s", path);
        return rc;
    }
    if (att_io_read_file(host->paths.bundle, ROOTS_MAX, &kept, NULL) != ATT_OK ||
        !att_slice_eq(att_buf_slice(&kept), att_buf_slice(&pem))) {
        rc = att_io_write_file(host->paths.bundle, att_buf_slice(&pem), 0644, err);
    }
    if (rc == ATT_OK) {
        HOST_LOCKED(host);
        STACK_OF(X509) *before = host->bundle;
        host->bundle = roots;
        roots = before; /* freed at the end */
    }
    return rc;
}

/* ---- the account -------------------------------------------------------------------------------
 */

/* base64url, with white space around it at most. */
static enum att_rc read_mac_key(const char *path, struct att_buf *ret, struct att_err *err)
{
    att_autobuf text = ATT_BUF_INIT(EAB_MAX);
    enum att_rc rc = att_io_read_file(path, EAB_MAX, &text, err);
    struct att_slice key = att_buf_slice(&text);
    while (key.len && (key.ptr[key.len - 1] <= ' ' || key.ptr[key.len - 1] == '=')) {
        key.len--;
    }
    if (rc == ATT_OK && (att_unb64u(ret, key, NULL) != ATT_OK || ret->len < 16)) {
        rc = att_fail(err, ATT_E_PARSE, "expected a MAC key of 16 bytes or more in base64url");
    }
    if (text.ptr) {
        att_wipe(text.ptr, text.cap);
    }
    if (rc != ATT_OK) {
        att_err_prefix(err, "acme.eab.key_file: %s", path);
        att_err_reason(err, "eabKey");
    }
    return rc;
}

enum att_rc host_acme_bind(struct host *host, struct acme_client *client, bool eab_required,
                           struct att_err *err)
{
    const struct conf_attestd_eab *eab = section(host)->eab;
    if (!eab && eab_required) {
        enum att_rc rc = att_fail(err, ATT_E_NOTFOUND,
                                  "the server wants an external account binding: acme.eab is not "
                                  "configured");
        att_err_reason(err, "eabMissing");
        return rc;
    }
    if (!eab) {
        return acme_client_new_account(client, NULL, (struct att_slice){0}, false, err);
    }
    att_autobuf key = ATT_BUF_INIT(EAB_MAX);
    enum att_rc rc = read_mac_key(eab->key_file, &key, err);
    if (rc == ATT_OK) {
        rc = acme_client_new_account(client, eab->kid, att_buf_slice(&key), false, err);
    }
    if (key.ptr) {
        att_wipe(key.ptr, key.cap);
    }
    return rc;
}

/* ---- rounds ------------------------------------------------------------------------------------
 */

enum att_rc host_acme_start(struct host *host, struct att_err *err)
{
    struct conf_acme_agents *agents = NULL;
    struct att_err why = {0};
    enum att_rc rc = host_acme_agents_load(host->conf, &agents, err);
    if (rc == ATT_OK) {
        rc = put_selectors(host, agents, err);
    }
    if (rc != ATT_OK) {
        conf_acme_agents_free(agents);
        return rc;
    }
    host_acme_agents_put(host, agents);
    /* An attest-issuerd's list says nothing of this server's certificates. */
    if (att_io_unlink(host->paths.crl, &why) != ATT_OK) {
        att_log_err(ATT_WARN, "crl.notRemoved", &why);
    }
    return ATT_OK;
}

static enum att_rc ek_id_of(const struct host *host, char ret[65], struct att_err *err)
{
    struct parse_public ek;
    att_autobuf spki = {0};
    uint8_t sha256[ATT_SHA256_LEN];
    enum att_rc rc = parse_public_parse(host->identity.ek_pub, &ek, err);
    if (rc == ATT_OK) {
        rc = parse_public_spki(&ek, &spki, err);
    }
    if (rc == ATT_OK) {
        att_sha256(sha256, att_buf_slice(&spki));
        att_hex(ret, ATT_SLICE_ARRAY(sha256));
    }
    return rc;
}

/* Is it still there? Its answer is no news to anybody but `status` and `doctor`. */
static enum att_rc look(struct host *host, struct acme_client *client, struct att_err *err)
{
    int64_t now = att_boottime_ms();
    if (host->acme_asked_ms && now - host->acme_asked_ms < HOST_ACME_LOOK_S * 1000) {
        return ATT_OK;
    }
    enum att_rc rc = acme_client_directory(client, true, NULL, err);
    host_client_heard(host, client);
    if (rc == ATT_OK) {
        host->acme_asked_ms = now;
    }
    return rc;
}

/* An operator has to tell the attestation CA of it before anything else can succeed. */
static void note_ek(struct host *host, const char *ek_id)
{
    HOST_LOCKED(host);
    snprintf(host->rec.host_id, sizeof(host->rec.host_id), "%s", ek_id);
}

static enum att_rc ready(struct host *host, const char *ek_id, struct acme_client **ret_client,
                         struct att_err *err)
{
    enum att_rc rc = host_issuer_check(host, err);
    note_ek(host, ek_id);
    if (rc == ATT_OK) {
        rc = host_client_get(host, HOST_WORKERS, ret_client, err);
    }
    if (rc == ATT_OK) {
        rc = look(host, *ret_client, err);
    }
    if (rc == ATT_OK) {
        rc = host_account_ready(host, *ret_client, err);
    }
    if (rc == ATT_OK) {
        rc = host_acme_ak(host, err);
    }
    return rc;
}

static void note_ready(struct host *host)
{
    HOST_LOCKED(host);
    host->enrol_wanted = false;
    host->rec.approved = true;
}

/* Nothing is heard of this server: until something here changes, or a while is over. */
static void wait_for_change(struct host *host)
{
    int64_t until = att_boottime_ms() + HOST_VIEW_WAIT_S * 1000;
    HOST_LOCKED(host);
    for (int64_t left = until - att_boottime_ms();
         left > 0 && !host->nudge && !host->enrol_wanted && !host->keyd_back &&
         !atomic_load(&host->stop);
         left = until - att_boottime_ms()) {
        host_wait(host, left);
    }
}

enum att_rc host_acme_round(struct host *host, struct att_err *err)
{
    struct acme_client *client = NULL;
    char ek_id[65];
    enum att_rc rc = ek_id_of(host, ek_id, err);
    if (rc == ATT_OK) {
        rc = load_roots(host, err);
    }
    if (rc == ATT_OK) {
        rc = take_agents(host, err);
    }
    if (rc == ATT_OK && host->acme_applied) {
        rc = sync_agents(host, host->acme_applied, ek_id, err);
    }
    if (rc == ATT_OK) {
        rc = ready(host, ek_id, &client, err);
    }
    if (rc != ATT_OK) {
        HOST_LOCKED(host);
        if (host->phase != HOST_ENROLLED) {
            host->phase = HOST_NO_ISSUER;
        }
        return rc;
    }
    note_ready(host);
    host_set_phase(host, HOST_ENROLLED);
    host_wake(host);
    host_renewal_poll(host, client, false);
    rc = host_sweep_once(host, err);
    if (rc == ATT_OK) {
        wait_for_change(host);
    }
    return rc;
}
