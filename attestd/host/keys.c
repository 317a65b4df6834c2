/* keyd's keys against what the records say. A crash may leave a key that no record speaks of, or a
 * switch half done; both are put right here. */
#include "attestd/agent/retired.h"
#include "attestd/host/issue.h"

#include <string.h>

#define RETIRE_AGAIN_MS 20000

static bool is(const char *a, const char *b)
{
    return a[0] && strcmp(a, b) == 0;
}

static enum att_rc destroy(struct host *host, const struct proc_key *key, const char *why,
                           struct att_err *err)
{
    enum att_rc rc = proc_keyd_key_destroy(host->keyd, key->key_id, err);
    if (rc == ATT_OK) {
        att_log(ATT_INFO, "key.destroyed", ATT_S("agent", key->agent), ATT_S("key", key->key_id),
                ATT_S("state", key->state), ATT_S("why", why));
    }
    return rc;
}

static void renew(struct host *host, const char *name)
{
    HOST_LOCKED(host);
    struct agent *agent = agent_registry_find(host->reg, name);
    if (agent) {
        agent->forced |= agent->rec.life.state == AGENT_VALID;
    }
}

static enum att_rc check_one(struct host *host, const struct agent_record *rec,
                             const struct proc_key *key, struct att_err *err)
{
    if (is(rec->key_id, key->key_id)) {
        if (!host_key_fits(key, rec)) {
            renew(host, rec->name); /* the entry names another store, module or type since */
        }
        return strcmp(key->state, "active") != 0 && rec->life.state != AGENT_FROZEN
                   ? proc_keyd_key_activate(host->keyd, key->key_id, err)
                   : ATT_OK;
    }
    if (is(rec->next_key_id, key->key_id) || agent_retired_find(rec, key->key_id)) {
        return ATT_OK;
    }
    return destroy(host, key, is(rec->old_key_id, key->key_id) ? "replaced" : "orphan", err);
}

/* The next key is gone at keyd: the table knows what to do. */
static enum att_rc next_lost(struct host *host, const char *name, struct att_err *err)
{
    HOST_LOCKED(host);
    struct agent *agent = agent_registry_find(host->reg, name);
    if (!agent) {
        return ATT_OK;
    }
    if (agent->rec.life.state == AGENT_VALID) {
        agent->rec.next_key_id[0] = '\0'; /* made ahead, and missed by nobody */
        return ATT_OK;
    }
    if (!agent_life_can(&agent->rec.life, AGENT_EV_KEY_LOST)) {
        return ATT_OK;
    }
    agent->rec.next_key_id[0] = '\0';
    agent->rec.order_url[0] = '\0';
    return agent_life_apply(&agent->rec.life, AGENT_EV_KEY_LOST, err);
}

static bool at_keyd(const struct proc_key *keys, size_t n, const char *key_id)
{
    size_t i = 0;
    while (i < n && strcmp(keys[i].key_id, key_id) != 0) {
        i++;
    }
    return i < n;
}

/* Retired keys that keyd has no more: destroyed before a kill, or with the TPM's owner. */
static enum att_rc forget_retired(struct host *host, const char *name, const struct proc_key *keys,
                                  size_t n, struct att_err *err)
{
    bool changed = false;
    {
        HOST_LOCKED(host);
        struct agent *agent = agent_registry_find(host->reg, name);
        for (size_t i = agent ? agent->rec.n_retired : 0; i-- > 0;) {
            if (!at_keyd(keys, n, agent->rec.retired[i].key_id)) {
                changed |= agent_retired_drop(&agent->rec, agent->rec.retired[i].key_id);
            }
        }
    }
    return changed ? host_agent_save(host, name, err) : ATT_OK;
}

/* The record as it is, written down first where memory is ahead of the file. A full disk keeps no
 * key of an agent that has none in force, revoked say: a start with the older record finds it gone.
 */
static enum att_rc current(struct host *host, const char *name, struct agent_record *ret_rec,
                           struct att_err *err)
{
    bool unsaved;
    {
        HOST_LOCKED(host);
        struct agent *agent = agent_registry_find(host->reg, name);
        if (!agent) {
            return att_fail(err, ATT_E_NOTFOUND, "no agent %s", name);
        }
        unsaved = agent->unsaved;
        agent->check_keys = false; /* set again by whoever finds a reason meanwhile */
        *ret_rec = agent->rec;
    }
    if (!unsaved) {
        return ATT_OK;
    }
    enum att_rc rc = host_agent_save(host, name, err);
    {
        HOST_LOCKED(host);
        struct agent *agent = agent_registry_find(host->reg, name);
        if (agent) {
            agent->unsaved = rc != ATT_OK;
        }
    }
    if (rc != ATT_OK && !ret_rec->key_id[0]) {
        att_log_err(ATT_ERROR, "agent.recordNotSaved", err);
        att_err_clear(err);
        return ATT_OK;
    }
    return rc;
}

/* A certificate whose key is gone serves nobody: it goes out of service, and the agent gets another
 * at once. Nothing has failed; a key in keyd's memory ends with every restart of keyd. */
static enum att_rc current_lost(struct host *host, const struct agent_record *rec,
                                struct att_err *err)
{
    if (!agent_life_can(&rec->life, AGENT_EV_EXPIRED)) {
        return ATT_OK; /* it is out of service */
    }
    bool expected =
        strcmp(rec->key_store, "memory") == 0 || strcmp(rec->key_store, "exportable") == 0;
    att_log(expected ? ATT_INFO : ATT_WARN, "agent.keyLost", ATT_S("agent", rec->name),
            ATT_S("key", rec->key_id), ATT_S("keyStore", rec->key_store));
    enum att_rc rc = host_chain_withdraw(host, rec->name, err);
    if (rc == ATT_OK) {
        rc = host_agent_event(host, rec->name, AGENT_EV_EXPIRED, NULL, err);
    }
    if (rc == ATT_OK) {
        HOST_LOCKED(host);
        struct agent *agent = agent_registry_find(host->reg, rec->name);
        if (agent && is(agent->rec.key_id, rec->key_id)) {
            agent->rec.key_id[0] = '\0'; /* what is gone is not retired when the next one comes */
        }
    }
    return rc == ATT_OK ? host_agent_save(host, rec->name, err) : rc;
}

static enum att_rc check_keys(struct host *host, const char *name, struct att_err *err)
{
    struct agent_record rec;
    enum att_rc rc = current(host, name, &rec, err);
    struct proc_key *keys = NULL;
    size_t n = 0;
    if (rc == ATT_OK) {
        rc = proc_keyd_key_list(host->keyd, &keys, &n, err);
    }
    bool have_current = false, have_next = false;
    for (size_t i = 0; rc == ATT_OK && i < n; i++) {
        if (strcmp(keys[i].agent, name) == 0) {
            have_current |= is(rec.key_id, keys[i].key_id);
            have_next |= is(rec.next_key_id, keys[i].key_id);
            rc = check_one(host, &rec, &keys[i], err);
        }
    }
    if (rc == ATT_OK) {
        rc = forget_retired(host, name, keys, n, err);
    }
    proc_keys_free(keys, n);
    if (rc == ATT_OK && rec.next_key_id[0] && !have_next) {
        rc = next_lost(host, name, err);
    }
    if (rc == ATT_OK && rec.key_id[0] && !have_current) {
        rc = current_lost(host, &rec, err);
    }
    return rc;
}

void host_keys_may_be_gone(struct host *host)
{
    HOST_LOCKED(host);
    for (size_t i = 0; i < agent_registry_count(host->reg); i++) {
        struct agent *agent = agent_registry_at(host->reg, i);
        agent->check_keys = true;
        host_spare_drop(host, agent->rec.name);
    }
    pthread_cond_broadcast(&host->changed);
}

bool host_keys_left_over(enum att_rc create)
{
    return create != ATT_OK && create != ATT_E_DENIED && create != ATT_E_INVAL &&
           create != ATT_E_UNSUPPORTED;
}

void host_keys_created(struct host *host, const char *name, enum att_rc rc)
{
    HOST_LOCKED(host);
    struct agent *agent = agent_registry_find(host->reg, name);
    if (!agent) {
        return;
    }
    if (host_keys_left_over(rc)) {
        agent->check_keys = agent->create_lost = true;
    } else if (rc == ATT_OK && agent->create_lost) {
        /* keyd may have come to the lost request only after keys and record were compared. */
        agent->check_keys = true;
        agent->create_lost = false;
    }
}

enum att_rc host_keys_check(struct host *host, const char *name, struct att_err *err)
{
    enum att_rc rc = check_keys(host, name, err);
    if (rc != ATT_OK) {
        HOST_LOCKED(host);
        struct agent *agent = agent_registry_find(host->reg, name);
        if (agent) {
            agent->check_keys = true;
        }
    }
    return rc;
}

/* At keyd first: a kill before the record is written leaves a name of a key that is gone, and the
 * next start forgets it. */
static enum att_rc retire(struct host *host, const char *name, struct att_err *err)
{
    struct agent_retired over;
    {
        HOST_LOCKED(host);
        const struct agent *agent = agent_registry_find(host->reg, name);
        const struct agent_retired *found =
            agent ? agent_retired_over(&agent->rec, host_now()) : NULL;
        if (!found) {
            return ATT_OK;
        }
        over = *found;
    }
    enum att_rc rc = proc_keyd_key_destroy(host->keyd, over.key_id, err);
    if (rc != ATT_OK) {
        return rc;
    }
    {
        HOST_LOCKED(host);
        struct agent *agent = agent_registry_find(host->reg, name);
        if (agent) {
            agent_retired_drop(&agent->rec, over.key_id);
        }
    }
    char end[ATT_TIME_TEXT_LEN];
    att_time_text(end, over.not_after);
    att_log(ATT_INFO, "key.destroyed", ATT_S("agent", name), ATT_S("key", over.key_id),
            ATT_S("state", "retired"),
            ATT_S("why", over.revoked ? "certificateRevoked" : "certificateEnded"),
            ATT_S("notAfter", end));
    return host_agent_save(host, name, err);
}

/* A failure here must hold up nothing else that is due for the agent. */
void host_keys_retire(struct host *host, const char *name)
{
    struct att_err err = {0};
    if (retire(host, name, &err) == ATT_OK) {
        return;
    }
    att_err_prefix(&err, "%s", name);
    att_log_err(ATT_WARN, "agent.keyNotDestroyed", &err);
    HOST_LOCKED(host);
    struct agent *agent = agent_registry_find(host->reg, name);
    if (agent) {
        agent->retire_not_before_ms = att_boottime_ms() + RETIRE_AGAIN_MS;
    }
}

enum att_rc host_keys_sweep(struct host *host, struct att_err *err)
{
    struct proc_key *keys = NULL;
    size_t n = 0;
    enum att_rc rc = proc_keyd_key_list(host->keyd, &keys, &n, err);
    for (size_t i = 0; rc == ATT_OK && i < n; i++) {
        bool known;
        {
            HOST_LOCKED(host);
            known = agent_registry_find(host->reg, keys[i].agent) != NULL;
        }
        if (!known) {
            rc = destroy(host, &keys[i], "noAgent", err);
        }
    }
    proc_keys_free(keys, n);
    return rc;
}

enum att_rc host_keys_remove(struct host *host, const char *name, struct att_err *err)
{
    struct proc_key *keys = NULL;
    size_t n = 0;
    enum att_rc rc = proc_keyd_key_list(host->keyd, &keys, &n, err);
    for (size_t i = 0; rc == ATT_OK && i < n; i++) {
        if (strcmp(keys[i].agent, name) != 0) {
            continue;
        }
        if (strcmp(keys[i].state, "active") == 0) {
            rc = proc_keyd_key_retire(host->keyd, keys[i].key_id, err);
        }
        if (rc == ATT_OK) {
            rc = destroy(host, &keys[i], "agentRemoved", err);
        }
    }
    proc_keys_free(keys, n);
    return rc;
}
