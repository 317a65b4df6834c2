#include "attestd/base/io.h"
#include "attestd/host/issue.h"
#include "certs/build.h"
#include "certs/install.h"
#include "certs/san.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- checks of a downloaded chain --------------------------------------------------------------
 */

static enum att_rc check_identity(const X509 *leaf, const struct agent_record *rec,
                                  struct att_slice spki, struct att_err *err)
{
    att_autobuf id = {0};
    enum att_rc rc = certs_san_spiffe(leaf, &id, err);
    if (rc == ATT_OK && !att_slice_eq_str(att_buf_slice(&id), rec->spiffe_id)) {
        rc = att_fail(err, ATT_E_AUTH, "the certificate is for %.*s, ordered was %s", (int)id.len,
                      (const char *)id.ptr, rec->spiffe_id);
        att_err_reason(err, "chainSan");
    }
    return rc == ATT_OK ? certs_cert_matches_spki(leaf, spki, err) : rc;
}

static enum att_rc bundle_copy(struct host *host, STACK_OF(X509) * *ret_roots, struct att_err *err)
{
    HOST_LOCKED(host);
    STACK_OF(X509) *roots = host->bundle ? X509_chain_up_ref(host->bundle) : NULL;
    if (!roots) {
        return att_fail(err, ATT_E_RETRY, "no trust bundle yet");
    }
    *ret_roots = roots;
    return ATT_OK;
}

enum att_rc host_chain_check(struct host *host, struct att_slice pem,
                             const struct agent_record *rec, struct att_slice spki,
                             struct certs_cert_info *ret_info, char *ret_boot, size_t boot_size,
                             struct att_err *err)
{
    certs_autostack *chain = NULL;
    certs_autostack *roots = NULL;
    enum att_rc rc = certs_pem_parse(pem, &chain, err);
    if (rc == ATT_OK) {
        rc = bundle_copy(host, &roots, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    X509 *leaf = sk_X509_value(chain, 0);
    struct certs_cert_info info;
    rc = certs_cert_info(leaf, &info, err);
    if (rc != ATT_OK) {
        return rc;
    }
    int64_t now = att_now_utc_s();
    /* A wall clock that is behind must not stop renewals: the issuer, over TLS, just made this. One
     * that is ahead makes the chain useless here, and the check below says so. */
    int64_t at = now < info.not_before ? info.not_before : now;
    if (at != now) {
        att_log(ATT_WARN, "clock.behind", ATT_S("agent", rec->name),
                ATT_N("seconds", info.not_before - now));
    }
    rc = certs_chain_verify(chain, roots, CERTS_PURPOSE_WORKLOAD, at, err);
    if (rc == ATT_OK) {
        rc = check_identity(leaf, rec, spki, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    struct certs_key_holding holding = {0};
    if (certs_key_holding_get(leaf, &holding, NULL) == ATT_OK) {
        snprintf(ret_boot, boot_size, "%s", holding.boot);
    } else {
        ret_boot[0] = '\0';
    }
    *ret_info = info;
    return ATT_OK;
}

/* ---- files -------------------------------------------------------------------------------------
 */

/* RFC 7512; id is the key id's 16 bytes. Names the key, opens nothing by itself. */
void host_key_uri(const char *key_id, struct att_buf *ret_uri)
{
    att_buf_put_str(ret_uri, "pkcs11:token=attestd;object=agent;type=private;id=");
    for (size_t i = 0; key_id[i] && key_id[i + 1]; i += 2) {
        att_buf_printf(ret_uri, "%%%.2s", key_id + i);
    }
}

enum att_rc host_chain_install(struct host *host, const char *name, struct att_slice pem,
                               const char *key_id, struct att_err *err)
{
    att_autobuf uri = {0};
    host_key_uri(key_id, &uri);
    const char *text = att_buf_cstr(&uri);
    if (!text) {
        return att_fail(err, ATT_E_NOMEM, "no memory for a key's URI");
    }
    enum att_rc rc = certs_install(host->paths.agents, name, pem, text, err);
    if (rc != ATT_OK) {
        return rc;
    }
    /* Proof before the old key goes: what readers will get is what was checked. */
    att_autobuf seen_pem = {0}, seen_uri = {0};
    rc = certs_install_load(host->paths.agents, name, &seen_pem, &seen_uri, err);
    if (rc == ATT_OK && (!att_slice_eq(att_buf_slice(&seen_pem), pem) ||
                         !att_slice_eq_str(att_buf_slice(&seen_uri), text))) {
        rc = att_fail(err, ATT_E_IO, "what was installed for %s reads back differently", name);
    }
    return rc;
}

enum att_rc host_chain_withdraw(struct host *host, const char *name, struct att_err *err)
{
    att_autobuf pem = {0}, uri = {0};
    if (certs_install_load(host->paths.agents, name, &pem, &uri, NULL) == ATT_OK) {
        char path[4096];
        snprintf(path, sizeof(path), "%s/%s.pem", host->paths.withdrawn, name);
        struct att_err why = {0};
        /* The copy is a convenience: a full disk must not keep an expired chain in service. */
        if (att_io_write_file(path, att_buf_slice(&pem), 0600, &why) != ATT_OK) {
            att_log_err(ATT_WARN, "chain.copyNotKept", &why);
        }
    }
    return certs_install_remove(host->paths.agents, name, err);
}

/* ---- the end of an issuance --------------------------------------------------------------------
 */

static void fill_record(struct host *host, struct agent_record *rec,
                        const struct certs_cert_info *info, const char *boot, uint32_t slot,
                        uint32_t slots)
{
    memcpy(rec->old_key_id, rec->key_id, sizeof(rec->old_key_id));
    memcpy(rec->key_id, rec->next_key_id, sizeof(rec->key_id));
    memset(rec->next_key_id, 0, sizeof(rec->next_key_id));
    memset(rec->order_url, 0, sizeof(rec->order_url));
    memset(rec->serial, 0, sizeof(rec->serial));
    memcpy(rec->serial, info->serial_hex, strlen(info->serial_hex));
    snprintf(rec->boot, sizeof(rec->boot), "%.*s", (int)sizeof(rec->boot) - 1, boot);
    struct agent_now now = host_now();
    rec->dates = (struct agent_dates){.not_before = info->not_before,
                                      .not_after = info->not_after,
                                      .installed_at = now.utc_s,
                                      .installed_boot_ms = now.boot_ms,
                                      .same_boot = true};
    memcpy(rec->boot_id, host->boot_id, sizeof(rec->boot_id));
    int64_t half =
        agent_sched_renew_at(info->not_before, info->not_after, slot, slots, host_random());
    int64_t latest =
        agent_sched_latest_start(info->not_before, info->not_after, host->tpm_p95_us, slots);
    rec->dates.renew_at = half < latest ? half : latest;
    rec->attempts = 0;
    rec->issued++;
    rec->last_error = (struct agent_error){0};
}

/* The record with the new certificate in it, in memory. */
static enum att_rc put_in_force(struct host_issue *job, const struct certs_cert_info *info,
                                const char *boot, struct att_err *err)
{
    struct host *host = job->host;
    HOST_LOCKED(host);
    struct agent *agent = agent_registry_find(host->reg, job->rec.name);
    if (!agent) {
        return att_fail(err, ATT_E_NOTFOUND, "no agent %s", job->rec.name);
    }
    enum att_rc rc = agent_life_apply(&agent->rec.life, AGENT_EV_INSTALLED, err);
    if (rc != ATT_OK) {
        agent->check_keys = true;
        return rc;
    }
    uint32_t slot = 0, slots = (uint32_t)agent_registry_count(host->reg);
    while (slot + 1 < slots && agent_registry_at(host->reg, slot) != agent) {
        slot++;
    }
    fill_record(host, &agent->rec, info, boot, slot, slots);
    agent->forced = false;
    agent->not_before_ms = 0;
    job->rec = agent->rec;
    return ATT_OK;
}

/* keyd's side of the switch. A failure here loses nothing: the record is on disk, and the keys are
 * compared with it later. */
static void switch_keys(struct host_issue *job)
{
    struct host *host = job->host;
    struct att_err err = {0};
    enum att_rc rc = proc_keyd_key_activate(host->keyd, job->rec.key_id, &err);
    if (rc == ATT_OK && job->rec.old_key_id[0]) {
        rc = proc_keyd_key_destroy(host->keyd, job->rec.old_key_id, &err);
    }
    HOST_LOCKED(host);
    struct agent *agent = agent_registry_find(host->reg, job->rec.name);
    if (rc != ATT_OK) {
        att_err_prefix(&err, "%s", job->rec.name);
        att_log_err(ATT_WARN, "agent.keySwitch", &err);
        if (agent) {
            agent->check_keys = true;
        }
    } else if (agent) {
        /* Not written down: destroying it again after a crash does no harm. */
        agent->rec.old_key_id[0] = '\0';
    }
}

enum att_rc host_issue_install(struct host_issue *job, struct att_slice pem, struct att_err *err)
{
    struct host *host = job->host;
    struct certs_cert_info info;
    char boot[CERTS_BOOT_NAME_MAX + 1];
    enum att_rc rc = host_chain_check(host, pem, &job->rec, att_buf_slice(&job->key.spki), &info,
                                      boot, sizeof(boot), err);
    if (rc != ATT_OK) {
        att_err_prefix(err, "the certificate that the issuer sent");
        job->order_dead = true;
        return rc;
    }
    rc = host_chain_install(host, job->rec.name, pem, job->rec.next_key_id, err);
    if (rc == ATT_OK) {
        rc = put_in_force(job, &info, boot, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    job->installed = true;
    struct att_err save_err = {0};
    rc = host_agent_save(host, job->rec.name, &save_err);
    host_issue_lap(job, AGENT_STAGE_INSTALL);
    if (rc != ATT_OK) {
        /* The certificate is in force; after a restart the order is fetched again. The old key is
         * kept until that is written down. */
        att_log_err(ATT_ERROR, "agent.recordNotSaved", &save_err);
        HOST_LOCKED(host);
        struct agent *agent = agent_registry_find(host->reg, job->rec.name);
        if (agent) {
            agent->unsaved = true;
            agent->check_keys = true;
            agent->not_before_ms = att_boottime_ms() + HOST_BACKOFF_BASE_MS * 4;
        }
    } else {
        switch_keys(job);
        host_issue_lap(job, AGENT_STAGE_SWITCH);
    }
    char until[ATT_TIME_TEXT_LEN], next[ATT_TIME_TEXT_LEN];
    att_time_text(until, info.not_after);
    att_time_text(next, job->rec.dates.renew_at);
    att_log(ATT_INFO, "agent.certificate", ATT_S("agent", job->rec.name),
            ATT_S("serial", job->rec.serial), ATT_S("key", job->rec.key_id),
            ATT_S("boot", job->rec.boot), ATT_S("notAfter", until), ATT_S("renewAt", next),
            ATT_N("ms", att_boottime_ms() - job->started_ms));
    return ATT_OK;
}
