/* The next key, made ahead while nothing is due: creating it is the slowest TPM command of a
 * renewal (78 ms at the median of measured chips), and its files have to be synced. */
#include "attestd/host/issue.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A key that waited longer is given up for a new one. A certificate that lives long gets its next
 * key half that long before its renewal. */
#define AGE_MAX_S INT64_C(86400)
#define RETRY_MS  20000

static struct host_spare *find(struct host *host, const char *agent)
{
    for (size_t i = 0; i < host->n_spares; i++) {
        if (strcmp(host->spares[i].agent, agent) == 0) {
            return &host->spares[i];
        }
    }
    return NULL;
}

bool host_spare_wanted(const struct host *host, const struct agent *agent, struct agent_now now)
{
    return agent->rec.life.state == AGENT_VALID && agent->rec.next_key_id[0] == '\0' &&
           !agent->busy && !agent->check_keys && !agent->forced && host->have_identity &&
           now.boot_ms >= agent->spare_not_before_ms &&
           agent_sched_wait_ms(&agent->rec.dates, now) <= AGE_MAX_S / 2 * 1000;
}

bool host_key_fits(const struct proc_key *key, const struct agent_record *rec)
{
    return strcmp(key->store, rec->key_store) == 0 &&
           strcmp(key->type, agent_record_key_type(rec)) == 0 &&
           (rec->hsm[0] ? strcmp(key->hsm, rec->hsm) == 0 : key->usual);
}

bool host_spare_fresh(const struct proc_key *key, const struct agent_record *rec)
{
    int64_t most = rec->lifetime_s > 0 && rec->lifetime_s < AGE_MAX_S ? rec->lifetime_s : AGE_MAX_S;
    int64_t age = att_now_utc_s() - key->created_at; /* a clock that went back: not known */
    return strcmp(key->state, "new") == 0 && host_key_fits(key, rec) && age >= 0 && age <= most;
}

bool host_spare_take(struct host *host, const char *key_id, struct proc_key *ret_key)
{
    HOST_LOCKED(host);
    for (size_t i = 0; i < host->n_spares; i++) {
        if (strcmp(host->spares[i].key.key_id, key_id) == 0) {
            *ret_key = host->spares[i].key;
            host->spares[i] = host->spares[--host->n_spares];
            return true;
        }
    }
    return false;
}

void host_spare_drop(struct host *host, const char *agent)
{
    struct host_spare *spare = find(host, agent);
    if (spare) {
        proc_key_done(&spare->key);
        *spare = host->spares[--host->n_spares];
    }
}

void host_spare_forget(struct host *host, const char *agent)
{
    HOST_LOCKED(host);
    host_spare_drop(host, agent);
}

void host_spares_free(struct host *host)
{
    while (host->n_spares) {
        host_spare_drop(host, host->spares[0].agent);
    }
    free(host->spares);
    host->spares = NULL;
}

/* Only for speed: without it keyd is asked for the key's public half. Takes over *key. */
static void remember(struct host *host, struct proc_key *key)
{
    host_spare_drop(host, key->agent);
    struct host_spare *more =
        realloc(host->spares, (host->n_spares + 1) * sizeof(struct host_spare));
    if (!more) {
        proc_key_done(key);
        return;
    }
    host->spares = more;
    struct host_spare *spare = &more[host->n_spares++];
    memcpy(spare->agent, key->agent, sizeof(spare->agent));
    spare->key = *key;
    *key = (struct proc_key){0};
}

/* Is the key, in the record in memory, the agent's next one? If not it is left over. */
static bool assign(struct host *host, const char *name, struct proc_key *key)
{
    HOST_LOCKED(host);
    struct agent *agent = agent_registry_find(host->reg, name);
    if (!agent) {
        return false;
    }
    struct agent_record *rec = &agent->rec;
    if (rec->life.state != AGENT_VALID || rec->next_key_id[0]) {
        agent->check_keys = true; /* frozen or removed meanwhile: it is looked for and destroyed */
        return false;
    }
    memcpy(rec->next_key_id, key->key_id, sizeof(key->key_id));
    remember(host, key);
    return true;
}

static enum att_rc make(struct host *host, const char *name, struct att_err *err)
{
    struct proc_key key = {0};
    char store[sizeof(((struct agent_record *)0)->key_store)];
    char type[sizeof(((struct agent_record *)0)->key_type)];
    char hsm[sizeof(((struct agent_record *)0)->hsm)];
    {
        HOST_LOCKED(host);
        const struct agent *agent = agent_registry_find(host->reg, name);
        if (!agent) {
            return att_fail(err, ATT_E_NOTFOUND, "no agent %s", name);
        }
        memcpy(store, agent->rec.key_store, sizeof(store));
        memcpy(hsm, agent->rec.hsm, sizeof(hsm));
        snprintf(type, sizeof(type), "%s", agent_record_key_type(&agent->rec));
    }
    enum att_rc rc = proc_keyd_key_create_type(host->keyd, name, store, type, hsm, &key, err);
    host_keys_created(host, name, rc);
    if (rc == ATT_OK && assign(host, name, &key)) {
        /* A kill before this leaves a key that no record speaks of: the next start destroys it. */
        rc = host_agent_save(host, name, err);
    }
    proc_key_done(&key);
    return rc;
}

void host_spare_make(struct host *host, const char *name)
{
    struct att_err err = {0};
    enum att_rc rc = make(host, name, &err);
    if (rc == ATT_OK) {
        return;
    }
    att_err_prefix(&err, "%s", name);
    att_log_err(ATT_WARN, "agent.spareKey", &err);
    HOST_LOCKED(host);
    struct agent *agent = agent_registry_find(host->reg, name);
    if (agent) {
        agent->spare_not_before_ms = att_boottime_ms() + RETRY_MS;
        agent->unsaved |= agent->rec.next_key_id[0] != '\0';
    }
}
