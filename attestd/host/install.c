#include "attestd/agent/retired.h"
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

#define DEVICE_LIFE_LEAST_S 60
#define CLOCK_BEHIND_MOST_S 86400 /* of another server's word on what time it is */

/* ---- checks of a downloaded chain --------------------------------------------------------------
 */

static enum att_rc check_identity(const X509 *leaf, const struct agent_record *rec,
                                  struct att_slice spki, struct att_err *err)
{
    att_autobuf id = {0};
    if (rec->identifier[0]) {
        enum att_rc named = certs_san_is_permanent(leaf, rec->identifier, err);
        return named == ATT_OK ? certs_cert_matches_spki(leaf, spki, err) : named;
    }
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

/* Another server than an attest-issuerd may say anything. Its certificates are not renewed without
 * pause, nor written down with a time that is none when it is read again. */
static enum att_rc check_dates(const struct agent_record *rec, const struct certs_cert_info *info,
                               int64_t at, struct att_err *err)
{
    if (!rec->identifier[0] ||
        (info->not_before >= 0 && info->not_after - at >= DEVICE_LIFE_LEAST_S)) {
        return ATT_OK;
    }
    enum att_rc rc = att_fail(err, ATT_E_AUTH,
                              "the certificate is valid for %lld s from now, expected at least %d, "
                              "and not from before 1970",
                              (long long)(info->not_after - at), DEVICE_LIFE_LEAST_S);
    att_err_reason(err, "chainDates");
    return rc;
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
    bool behind = now < info.not_before &&
                  !(rec->identifier[0] && info.not_before - now > CLOCK_BEHIND_MOST_S);
    int64_t at = behind ? info.not_before : now;
    if (at != now) {
        att_log(ATT_WARN, "clock.behind", ATT_S("agent", rec->name),
                ATT_N("seconds", info.not_before - now));
    }
    rc = certs_chain_verify(
        chain, roots, rec->identifier[0] ? CERTS_PURPOSE_DEVICE : CERTS_PURPOSE_WORKLOAD, at, err);
    if (rc == ATT_OK) {
        rc = check_identity(leaf, rec, spki, err);
    }
    if (rc == ATT_OK) {
        rc = check_dates(rec, &info, at, err);
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
enum att_rc host_key_uri(const char *key_id, struct att_buf *ret, struct att_err *err)
{
    att_buf_put_str(ret, "pkcs11:token=attestd;object=agent;type=private;id=");
    for (size_t i = 0; key_id[i] && key_id[i + 1]; i += 2) {
        att_buf_printf(ret, "%%%.2s", key_id + i);
    }
    return att_buf_ok(ret, err);
}

static enum att_rc begin_files(struct host_issue_ahead *ahead, struct att_err *err)
{
    att_autobuf uri = {0};
    enum att_rc rc = host_key_uri(ahead->key_id, &uri, err);
    const char *text = att_buf_cstr(&uri);
    if (rc == ATT_OK && !text) {
        rc = att_fail(err, ATT_E_NOMEM, "no memory for a key's URI");
    }
    return rc == ATT_OK
               ? certs_install_begin(ahead->host->paths.agents, ahead->name, text, &ahead->gen, err)
               : rc;
}

static enum att_rc write_ahead(void *arg, struct att_err *err)
{
    struct host_issue_ahead *ahead = arg;
    enum att_rc rc = host_agent_save(ahead->host, ahead->name, err);
    if (rc == ATT_OK) {
        rc = begin_files(ahead, err);
    }
    /* Where this fails the worker asks again, and hears why. */
    if (rc == ATT_OK && host_issue_csr(ahead->host, ahead->key_id, ahead->spiffe_id,
                                       ahead->identifier, &ahead->csr, NULL) != ATT_OK) {
        att_buf_done(&ahead->csr);
    }
    return rc;
}

static void fill_ahead(struct host_issue *job)
{
    struct host_issue_ahead *ahead = &job->ahead;
    (void)!host_aside_join(&ahead->aside, NULL); /* of an order before, which died */
    certs_install_gen_done(&ahead->gen);
    att_buf_done(&ahead->csr);
    ahead->host = job->host;
    memcpy(ahead->name, job->rec.name, sizeof(ahead->name));
    memcpy(ahead->key_id, job->rec.next_key_id, sizeof(ahead->key_id));
    memcpy(ahead->spiffe_id, job->rec.spiffe_id, sizeof(ahead->spiffe_id));
    memcpy(ahead->identifier, job->rec.identifier, sizeof(ahead->identifier));
}

void host_issue_ahead(struct host_issue *job)
{
    fill_ahead(job);
    host_aside_start(&job->ahead.aside, write_ahead, &job->ahead);
}

enum att_rc host_issue_written(struct host_issue *job, struct att_err *err)
{
    return job->ahead.aside.started ? host_aside_join(&job->ahead.aside, err)
                                    : host_agent_save(job->host, job->rec.name, err);
}

/* Proof before the new key is in force: what readers will get is what was checked. */
static enum att_rc read_back(struct host *host, const char *name, struct att_slice pem,
                             const char *key_id, struct att_err *err)
{
    att_autobuf seen_pem = {0}, seen_uri = {0}, uri = {0};
    enum att_rc rc = host_key_uri(key_id, &uri, err);
    if (rc == ATT_OK) {
        rc = certs_install_load(host->paths.agents, name, &seen_pem, &seen_uri, err);
    }
    if (rc == ATT_OK && (!att_slice_eq(att_buf_slice(&seen_pem), pem) ||
                         !att_slice_eq(att_buf_slice(&seen_uri), att_buf_slice(&uri)))) {
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
    agent_retired_take(rec, host_now());
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
                                      .same_boot = true,
                                      .not_backdated = rec->identifier[0] != '\0'};
    if (rec->identifier[0]) { /* nobody said it before */
        rec->lifetime_s = info->not_after - info->not_before;
    }
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

/* The record as it will be with the new certificate, while the one in memory stays as it is. */
static enum att_rc plan_record(struct host_issue *job, const struct certs_cert_info *info,
                               const char *boot, struct agent_record *ret_plan, struct att_err *err)
{
    struct host *host = job->host;
    HOST_LOCKED(host);
    struct agent *agent = agent_registry_find(host->reg, job->rec.name);
    if (!agent) {
        return att_fail(err, ATT_E_NOTFOUND, "no agent %s", job->rec.name);
    }
    *ret_plan = agent->rec;
    enum att_rc rc = agent_life_apply(&ret_plan->life, AGENT_EV_INSTALLED, err);
    if (rc != ATT_OK) {
        agent->check_keys = true;
        return rc;
    }
    uint32_t slot = 0, slots = (uint32_t)agent_registry_count(host->reg);
    while (slot + 1 < slots && agent_registry_at(host->reg, slot) != agent) {
        slot++;
    }
    fill_record(host, ret_plan, info, boot, slot, slots);
    return ATT_OK;
}

/* What a view may have changed since the plan. */
static bool same_entry(const struct agent_record *a, const struct agent_record *b)
{
    return strcmp(a->spiffe_id, b->spiffe_id) == 0 && strcmp(a->profile, b->profile) == 0 &&
           strcmp(a->key_store, b->key_store) == 0 && strcmp(a->key_type, b->key_type) == 0 &&
           strcmp(a->hsm, b->hsm) == 0 && strcmp(a->identifier, b->identifier) == 0 &&
           (a->identifier[0] || a->lifetime_s == b->lifetime_s);
}

static void copy_entry(struct agent_record *to, const struct agent_record *from)
{
    memcpy(to->spiffe_id, from->spiffe_id, sizeof(to->spiffe_id));
    memcpy(to->profile, from->profile, sizeof(to->profile));
    memcpy(to->key_store, from->key_store, sizeof(to->key_store));
    memcpy(to->key_type, from->key_type, sizeof(to->key_type));
    memcpy(to->hsm, from->hsm, sizeof(to->hsm));
    memcpy(to->identifier, from->identifier, sizeof(to->identifier));
    if (!from->identifier[0]) {
        to->lifetime_s = from->lifetime_s;
    }
}

/* The plan, in memory. ret_same: the file that was staged says just what memory says now. */
static enum att_rc put_in_force(struct host_issue *job, const struct agent_record *plan,
                                bool *ret_same, struct att_err *err)
{
    struct host *host = job->host;
    HOST_LOCKED(host);
    struct agent *agent = agent_registry_find(host->reg, job->rec.name);
    if (!agent) {
        return att_fail(err, ATT_E_NOTFOUND, "no agent %s", job->rec.name);
    }
    struct agent_life life = agent->rec.life;
    enum att_rc rc = agent_life_apply(&life, AGENT_EV_INSTALLED, err);
    if (rc != ATT_OK) {
        agent->check_keys = true; /* frozen or removed meanwhile */
        return rc;
    }
    struct agent_record fresh = *plan;
    fresh.life = life;
    *ret_same = same_entry(&agent->rec, plan);
    copy_entry(&fresh, &agent->rec);
    agent_retired_pass_on(&fresh, &agent->rec, agent->revoked);
    agent->revoked = false; /* the certificate before was */
    agent->rec = fresh;
    agent->forced = false;
    agent->not_before_ms = 0;
    job->rec = agent->rec;
    return ATT_OK;
}

/* The record is on its way and not to be waited for alone; name: of the agent. */
struct record_file {
    struct host *host;
    const struct agent_record *rec;
    struct att_io_staged staged;
    struct certs_install_gen *gen;
};

static enum att_rc stage_record(void *arg, struct att_err *err)
{
    struct record_file *file = arg;
    return agent_record_stage(file->host->paths.records, file->rec, &file->staged, err);
}

/* First the record, which says which key is in force and which may go, then the link. */
static enum att_rc sync_both(struct record_file *file, struct att_err *err)
{
    enum att_rc rc = agent_record_sync(file->host->paths.records, file->rec->name, err);
    return rc == ATT_OK ? certs_install_end(file->gen, err) : rc;
}

static enum att_rc activate(void *arg, struct att_err *err)
{
    struct host_issue *job = arg;
    return proc_keyd_key_activate(job->host->keyd, job->rec.next_key_id, err);
}

/* Everything that can be done without anybody seeing it, chain and record side by side; and keyd
 * learns that the new key has a certificate, before anybody can find it and sign with it. */
static enum att_rc write_both(struct host_issue *job, struct att_slice pem,
                              struct record_file *file, struct att_err *err)
{
    enum att_rc rc = ATT_OK;
    if (!job->ahead.gen.number) {
        fill_ahead(job); /* the order is an earlier job's */
        rc = begin_files(&job->ahead, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    struct host_aside record, key;
    host_aside_start(&record, stage_record, file);
    host_aside_start(&key, activate, job);
    rc = certs_install_fill(&job->ahead.gen, pem, err);
    enum att_rc staged = host_aside_join(&record, rc == ATT_OK ? err : NULL);
    rc = rc == ATT_OK ? staged : rc;
    enum att_rc active = host_aside_join(&key, rc == ATT_OK ? err : NULL);
    if (rc == ATT_OK && active != ATT_OK) {
        job->where = HOST_AT_KEYD;
    }
    return rc == ATT_OK ? active : rc;
}

/* keyd may take the new key for the active one already; the record has the old one in force. */
static void compare_keys(struct host_issue *job)
{
    HOST_LOCKED(job->host);
    struct agent *agent = agent_registry_find(job->host->reg, job->rec.name);
    if (agent) {
        agent->check_keys = true;
    }
}

/* Both in force: the link for readers, then the record for us. A kill between the two leaves the
 * record with the order, from which the same certificate is fetched again. */
static enum att_rc show_both(struct host_issue *job, struct att_slice pem, struct record_file *file,
                             bool *ret_saved, struct att_err *err)
{
    struct host *host = job->host;
    bool same = false;
    enum att_rc rc = certs_install_switch(&job->ahead.gen, err);
    if (rc == ATT_OK) {
        rc = read_back(host, job->rec.name, pem, job->rec.next_key_id, err);
    }
    if (rc == ATT_OK) {
        rc = put_in_force(job, file->rec, &same, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    job->installed = true;
    struct att_err why = {0};
    if (same) {
        *ret_saved =
            agent_record_commit(host->paths.records, job->rec.name, &file->staged, &why) == ATT_OK;
    } else {
        *ret_saved = agent_record_save(host->paths.records, &job->rec, &why) == ATT_OK;
    }
    if (!*ret_saved) {
        att_log_err(ATT_ERROR, "agent.recordNotSaved", &why);
    }
    return ATT_OK;
}

/* The certificate is in force, and that is not written down: after a restart the order is fetched
 * again. Until it is no key goes. */
static void keep_old_key(struct host_issue *job)
{
    HOST_LOCKED(job->host);
    struct agent *agent = agent_registry_find(job->host->reg, job->rec.name);
    if (agent) {
        agent->unsaved = true;
        agent->check_keys = true;
        agent->not_before_ms = att_boottime_ms() + HOST_BACKOFF_BASE_MS * 4;
    }
}

/* The key for which the record has no place any more: its certificate is over, or too many were
 * retired since. A failure here loses nothing: the keys are compared with the record later. */
static void destroy_old(struct host_issue *job)
{
    struct host *host = job->host;
    struct att_err err = {0};
    enum att_rc rc = job->rec.old_key_id[0]
                         ? proc_keyd_key_destroy(host->keyd, job->rec.old_key_id, &err)
                         : ATT_OK;
    HOST_LOCKED(host);
    struct agent *agent = agent_registry_find(host->reg, job->rec.name);
    if (rc != ATT_OK) {
        att_err_prefix(&err, "%s", job->rec.name);
        att_log_err(ATT_WARN, "agent.keyNotDestroyed", &err);
        if (agent) {
            agent->check_keys = true;
        }
    } else if (agent) {
        /* Not written down: destroying it again after a crash does no harm. */
        agent->rec.old_key_id[0] = '\0';
    }
}

/* The switch is made to last before anything is destroyed. */
static void make_last(struct host_issue *job, struct record_file *file, bool saved)
{
    struct att_err why = {0};
    if (sync_both(file, &why) != ATT_OK) {
        att_log_err(ATT_ERROR, "agent.recordNotSaved", &why);
        saved = false;
    }
    if (saved) {
        destroy_old(job);
    } else {
        keep_old_key(job);
    }
}

static void report(const struct host_issue *job, const struct certs_cert_info *info)
{
    char until[ATT_TIME_TEXT_LEN], next[ATT_TIME_TEXT_LEN];
    att_time_text(until, info->not_after);
    att_time_text(next, job->rec.dates.renew_at);
    att_log(ATT_INFO, "agent.certificate", ATT_S("agent", job->rec.name),
            ATT_S("serial", job->rec.serial), ATT_S("key", job->rec.key_id),
            ATT_S("boot", job->rec.boot), ATT_S("notAfter", until), ATT_S("renewAt", next),
            ATT_N("ms", att_boottime_ms() - job->started_ms));
    host_note(job->host, "certificate",
              json_pack("{s:s, s:s}", "agent", job->rec.name, "serial", job->rec.serial));
}

static enum att_rc install(struct host_issue *job, struct att_slice pem,
                           const struct certs_cert_info *info, const char *boot,
                           struct att_err *err)
{
    ATT_CLEANUP(host_lock_done) pthread_mutex_t *saving = host_save_lock(job->host, job->rec.name);
    pthread_mutex_lock(saving);
    struct agent_record plan;
    struct record_file file = {.host = job->host, .rec = &plan, .gen = &job->ahead.gen};
    bool saved = false;
    enum att_rc rc = plan_record(job, info, boot, &plan, err);
    if (rc == ATT_OK) {
        rc = write_both(job, pem, &file, err);
    }
    if (rc == ATT_OK) {
        rc = show_both(job, pem, &file, &saved, err);
    }
    att_io_unstage(&file.staged);
    host_issue_lap(job, AGENT_STAGE_INSTALL);
    if (rc != ATT_OK) {
        compare_keys(job);
        return rc;
    }
    make_last(job, &file, saved);
    host_issue_lap(job, AGENT_STAGE_SWITCH);
    return ATT_OK;
}

enum att_rc host_issue_install(struct host_issue *job, struct att_slice pem, struct att_err *err)
{
    struct certs_cert_info info;
    char boot[CERTS_BOOT_NAME_MAX + 1];
    enum att_rc rc = host_chain_check(job->host, pem, &job->rec, att_buf_slice(&job->key.spki),
                                      &info, boot, sizeof(boot), err);
    if (rc != ATT_OK) {
        att_err_prefix(err, "the certificate that the issuer sent");
        job->order_dead = true;
        return rc;
    }
    rc = host_aside_join(&job->ahead.aside, err); /* it takes the lock that install holds */
    if (rc == ATT_OK) {
        rc = install(job, pem, &info, boot, err);
    }
    if (rc == ATT_OK) {
        report(job, &info);
    }
    return rc;
}
