#include "attestd/agent/retired.h"
#include "attestd/host/internal.h"
#include "attestd/base/io.h"
#include "certs/install.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct agent_now host_now(void)
{
    return (struct agent_now){.utc_s = att_now_utc_s(), .boot_ms = att_boottime_ms()};
}

/* ---- at start ----------------------------------------------------------------------------------
 */

static bool json_name(const char *file, char ret[AGENT_NAME_MAX + 1])
{
    size_t len = strlen(file);
    if (len <= 5 || len - 5 > AGENT_NAME_MAX || strcmp(file + len - 5, ".json") != 0) {
        return false;
    }
    memcpy(ret, file, len - 5);
    ret[len - 5] = '\0';
    return agent_name_check(ret, NULL) == ATT_OK;
}

/* The record decides which key is in force. A loss of power may have kept it and lost the switch of
 * the link, which is synced after it: the generation is there, since it was synced before. False:
 * none is there after all. */
static bool settle_chain(struct host *host, const struct agent_record *rec)
{
    att_autobuf uri = {0};
    struct att_err why = {0};
    bool changed = false;
    enum att_rc rc = host_key_uri(rec->key_id, &uri, &why);
    const char *text = att_buf_cstr(&uri);
    if (rc == ATT_OK && text) {
        rc = certs_install_settle(host->paths.agents, rec->name, text, &changed, &why);
    }
    if (rc == ATT_OK && changed) {
        att_log(ATT_WARN, "chain.settled", ATT_S("agent", rec->name), ATT_S("key", rec->key_id));
    } else if (rc != ATT_OK) {
        att_err_prefix(&why, "%s", rec->name);
        att_log_err(ATT_ERROR, "chain.notSettled", &why);
    }
    return rc == ATT_OK;
}

static enum att_rc load_one(struct host *host, const char *name, struct att_err *err)
{
    struct agent_record rec = {0};
    struct att_err why = {0};
    enum att_rc rc = agent_record_load(host->paths.records, name, &rec, &why);
    if (rc != ATT_OK) {
        /* The view will bring the agent back, as one without a certificate. */
        att_log_err(ATT_ERROR, "agent.recordBad", &why);
        return rc == ATT_E_PARSE ? ATT_OK : att_fail(err, rc, "%s", why.msg);
    }
    rec.dates.same_boot = strcmp(rec.boot_id, host->boot_id) == 0;
    rec.dates.not_backdated = rec.identifier[0] != '\0';
    agent_retired_loaded(&rec, host_now());
    bool settled = !agent_life_serving(&rec.life) || settle_chain(host, &rec);
    HOST_LOCKED(host);
    struct agent *agent;
    rc = agent_registry_add(host->reg, &rec, &agent, err);
    if (rc == ATT_OK) {
        agent->check_keys = true;
        agent->forced = !settled; /* what readers find is not of the key in force */
    }
    return rc;
}

static bool is_serving(struct host *host, const char *name)
{
    HOST_LOCKED(host);
    const struct agent *agent = agent_registry_find(host->reg, name);
    return agent && agent_life_serving(&agent->rec.life);
}

/* An installed chain that no record speaks for (its record was damaged, or a kill came between
 * installing and writing that down) would stay in place beyond its end, and its key is an orphan
 * that keyd will be told to destroy: it goes out of service now. */
static enum att_rc withdraw_strangers(struct host *host, struct att_err *err)
{
    DIR *dir = opendir(host->paths.agents);
    if (!dir) {
        return att_fail_errno(err, ATT_E_IO, "cannot read %s", host->paths.agents);
    }
    struct dirent *entry;
    while ((entry = readdir(dir)) != NULL) {
        const char *name = entry->d_name;
        if (agent_name_check(name, NULL) != ATT_OK || is_serving(host, name)) {
            continue;
        }
        struct att_err why = {0};
        if (host_chain_withdraw(host, name, &why) == ATT_OK) {
            att_log(ATT_WARN, "chain.withoutRecord", ATT_S("agent", name));
        } else {
            att_err_prefix(&why, "%s", name);
            att_log_err(ATT_ERROR, "chain.notWithdrawn", &why);
        }
    }
    closedir(dir);
    return ATT_OK;
}

/* What a kill left of an atomic write; the lock says that nobody else writes here. */
static void tidy(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    while (dir && (entry = readdir(dir)) != NULL) {
        if (strstr(entry->d_name, ".tmp.")) {
            (void)unlinkat(dirfd(dir), entry->d_name, 0);
        }
    }
    if (dir) {
        closedir(dir);
    }
}

enum att_rc host_agents_load(struct host *host, struct att_err *err)
{
    tidy(host->paths.dir);
    tidy(host->paths.records);
    tidy(host->paths.withdrawn);
    DIR *dir = opendir(host->paths.records);
    if (!dir) {
        return att_fail_errno(err, ATT_E_IO, "cannot read %s", host->paths.records);
    }
    enum att_rc rc = ATT_OK;
    struct dirent *entry;
    while (rc == ATT_OK && (entry = readdir(dir)) != NULL) {
        char name[AGENT_NAME_MAX + 1];
        if (json_name(entry->d_name, name)) {
            rc = load_one(host, name, err);
        }
    }
    closedir(dir);
    return rc == ATT_OK ? withdraw_strangers(host, err) : rc;
}

/* ---- changes -----------------------------------------------------------------------------------
 */

pthread_mutex_t *host_save_lock(struct host *host, const char *name)
{
    uint32_t hash = 2166136261U; /* FNV-1a */
    for (; *name; name++) {
        hash = (hash ^ (unsigned char)*name) * 16777619U;
    }
    return &host->save_locks[hash % HOST_SAVE_LOCKS];
}

enum att_rc host_agent_save(struct host *host, const char *name, struct att_err *err)
{
    ATT_CLEANUP(host_lock_done) pthread_mutex_t *saving = host_save_lock(host, name);
    pthread_mutex_lock(saving);
    struct agent_record rec;
    {
        HOST_LOCKED(host);
        const struct agent *agent = agent_registry_find(host->reg, name);
        if (!agent) {
            return att_fail(err, ATT_E_NOTFOUND, "no agent %s", name);
        }
        rec = agent->rec;
    }
    return agent_record_save(host->paths.records, &rec, err);
}

enum att_rc host_agent_event(struct host *host, const char *name, enum agent_event event,
                             struct agent_record *ret_rec, struct att_err *err)
{
    HOST_LOCKED(host);
    struct agent *agent = agent_registry_find(host->reg, name);
    if (!agent) {
        return att_fail(err, ATT_E_NOTFOUND, "no agent %s", name);
    }
    enum att_rc rc = agent_life_apply(&agent->rec.life, event, err);
    if (rc == ATT_OK && ret_rec) {
        *ret_rec = agent->rec;
    }
    return rc;
}

/* Names of agents whose record the sync changed, or of all where that is simpler to be sure of. */
static enum att_rc save_all(struct host *host, struct att_err *err)
{
    for (size_t i = 0;; i++) {
        char name[AGENT_NAME_MAX + 1];
        {
            HOST_LOCKED(host);
            struct agent *agent = agent_registry_at(host->reg, i);
            if (!agent) {
                return ATT_OK;
            }
            if (!agent->unsaved) {
                continue;
            }
            agent->unsaved = false;
            memcpy(name, agent->rec.name, sizeof(name));
        }
        enum att_rc rc = host_agent_save(host, name, err);
        if (rc != ATT_OK && rc != ATT_E_NOTFOUND) {
            HOST_LOCKED(host);
            struct agent *agent = agent_registry_find(host->reg, name);
            if (agent) {
                agent->unsaved = true;
            }
            return rc;
        }
    }
}

enum att_rc host_agents_sync(struct host *host, const struct host_view *view, struct att_err *err)
{
    struct agent_sync sync = {0};
    {
        HOST_LOCKED(host);
        enum att_rc rc = agent_registry_sync(host->reg, view->entries, view->n_entries, &sync, err);
        if (rc != ATT_OK) {
            return rc;
        }
    }
    if (sync.added || sync.changed || sync.removed) {
        att_log(ATT_INFO, "agents.assigned", ATT_N("added", sync.added),
                ATT_N("changed", sync.changed), ATT_N("removed", sync.removed));
    }
    return save_all(host, err);
}

/* ---- what is due -------------------------------------------------------------------------------
 */

/* A failed issuance's back-off keeps no expired chain in service; that of a failed withdrawal does,
 * or it would be tried without end. */
bool host_agent_expired(const struct agent *agent, struct agent_now now)
{
    return agent_life_serving(&agent->rec.life) &&
           (agent->misfit || agent->revoked || agent_sched_expired(&agent->rec.dates, now)) &&
           now.boot_ms >= agent->expire_not_before_ms;
}

static bool may_issue(const struct host *host)
{
    return host->phase == HOST_ENROLLED && !host->enrol_wanted && host->bundle &&
           host->generation != 0;
}

bool host_agent_retires(const struct host *host, const struct agent *agent, struct agent_now now)
{
    return host->have_identity && now.boot_ms >= agent->retire_not_before_ms &&
           agent_retired_over(&agent->rec, now);
}

bool host_agent_ready(struct host *host, const struct agent *agent, struct agent_now now)
{
    if (agent->busy) {
        return false;
    }
    if (host_agent_expired(agent, now)) {
        return true;
    }
    if (host_agent_retires(host, agent, now)) {
        return true;
    }
    if (now.boot_ms < agent->not_before_ms) {
        return false;
    }
    enum agent_state state = agent->rec.life.state;
    if (state == AGENT_REMOVED) {
        return host->have_identity; /* its keys have to go, too */
    }
    if (agent->check_keys && host->have_identity) {
        return true;
    }
    if (state == AGENT_FROZEN || !may_issue(host)) {
        return false;
    }
    if (state == AGENT_VALID) {
        return agent->forced || agent_sched_due(&agent->rec.dates, now);
    }
    /* A step to do, or a refusal whose back-off is over. */
    return true;
}

int64_t host_agents_wait_ms(struct host *host, struct agent_now now)
{
    int64_t wait = 30000;
    for (size_t i = 0; i < agent_registry_count(host->reg); i++) {
        const struct agent *agent = agent_registry_at(host->reg, i);
        if (agent->busy || host_agent_ready(host, agent, now)) {
            continue; /* the worker that has it wakes us, or the one that takes it next */
        }
        int64_t own = wait;
        if (agent_life_serving(&agent->rec.life)) {
            own = agent_sched_wait_ms(&agent->rec.dates, now);
        }
        if (own == 0) { /* held up by something else than time */
            own = wait;
        }
        int64_t back_off = agent->not_before_ms - now.boot_ms;
        if (back_off > 0 && (own > back_off || agent->rec.life.state != AGENT_VALID)) {
            own = own < back_off ? own : back_off;
        }
        int64_t retires = agent_retired_wait_ms(&agent->rec, now);
        if (retires > 0 && retires < own) { /* what is over already waits for keyd */
            own = retires;
        }
        wait = own < wait ? own : wait;
    }
    return wait < 1 ? 1 : wait;
}
