/* An agent is frozen at keyd, whose list counts, and in its record, which stops renewals and is
 * what is shown. A kill between the two leaves them apart: whatever one of them says is frozen, is.
 * Who thawed and got no answer thaws again. */
#include "attestd/host/internal.h"

#include <string.h>

pthread_mutex_t *host_freeze_begin(struct host *host)
{
    pthread_mutex_lock(&host->freeze_lock);
    host->freeze_seq++;
    return &host->freeze_lock;
}

uint64_t host_freeze_seen(struct host *host)
{
    pthread_mutex_lock(&host->freeze_lock);
    uint64_t seen = host->freeze_seq;
    pthread_mutex_unlock(&host->freeze_lock);
    return seen;
}

static bool listed(const json_t *list, const char *name)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *one = json_string_value(json_array_get(list, i));
        if (one && strcmp(one, name) == 0) {
            return true;
        }
    }
    return false;
}

/* Frozen at keyd: the record follows. */
static void follow_keyd(struct host *host, const json_t *list)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        struct att_err err = {0};
        if (!name || host_agent_event(host, name, AGENT_EV_FREEZE, NULL, NULL) != ATT_OK) {
            continue; /* not ours, or frozen already */
        }
        att_log(ATT_WARN, "agent.frozen", ATT_S("agent", name), ATT_S("why", "frozenAtKeyd"));
        if (host_agent_save(host, name, &err) != ATT_OK) {
            att_log_err(ATT_ERROR, "agent.recordNotSaved", &err);
        }
    }
}

/* Frozen by its record: keyd follows. */
static void tell_keyd(struct host *host, const json_t *list)
{
    for (size_t i = 0;; i++) {
        char name[AGENT_NAME_MAX + 1];
        {
            HOST_LOCKED(host);
            const struct agent *agent = agent_registry_at(host->reg, i);
            if (!agent) {
                return;
            }
            if (agent->rec.life.state != AGENT_FROZEN || listed(list, agent->rec.name)) {
                continue;
            }
            memcpy(name, agent->rec.name, sizeof(name));
        }
        struct att_err err = {0};
        if (proc_keyd_freeze(host->keyd, name, &err) != ATT_OK) {
            att_log_err(ATT_ERROR, "agent.notFrozenAtKeyd", &err);
        } else {
            att_log(ATT_WARN, "agent.frozen", ATT_S("agent", name), ATT_S("why", "frozenByRecord"));
        }
    }
}

void host_freeze_settle(struct host *host, const json_t *list, uint64_t seen)
{
    if (!json_is_array(list)) {
        return;
    }
    pthread_mutex_lock(&host->freeze_lock);
    if (host->freeze_seq == seen) {
        follow_keyd(host, list);
        tell_keyd(host, list);
    }
    pthread_mutex_unlock(&host->freeze_lock);
}
