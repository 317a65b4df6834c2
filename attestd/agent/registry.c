#include "attestd/agent/registry.h"

#include <stdlib.h>
#include <string.h>

struct agent_registry {
    struct agent **list; /* sorted by name */
    size_t count, room;
    uint64_t generation;
};

const char *agent_stage_name(enum agent_stage stage)
{
    static const char *const names[AGENT_STAGE_COUNT] = {
        "tpmCreate", "netOrder",    "netAuthorization", "tpmEvidence", "netChallenge",
        "tpmCsr",    "netFinalize", "netCertificate",   "install",     "switch",
    };
    return (unsigned)stage < AGENT_STAGE_COUNT ? names[stage] : "unknown";
}

enum att_rc agent_registry_new(struct agent_registry **ret_reg, struct att_err *err)
{
    struct agent_registry *reg = calloc(1, sizeof(*reg));
    if (!reg) {
        return att_fail(err, ATT_E_NOMEM, "no memory for the registry of agents");
    }
    *ret_reg = reg;
    return ATT_OK;
}

void agent_registry_free(struct agent_registry *reg)
{
    if (!reg) {
        return;
    }
    for (size_t i = 0; i < reg->count; i++) {
        free(reg->list[i]);
    }
    free(reg->list);
    free(reg);
}

size_t agent_registry_count(const struct agent_registry *reg)
{
    return reg->count;
}

struct agent *agent_registry_at(struct agent_registry *reg, size_t i)
{
    return i < reg->count ? reg->list[i] : NULL;
}

/* The place of name, or where it belongs. */
static size_t place(const struct agent_registry *reg, const char *name, bool *ret_found)
{
    size_t low = 0, high = reg->count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int c = strcmp(reg->list[mid]->rec.name, name);
        if (c == 0) {
            *ret_found = true;
            return mid;
        }
        if (c < 0) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    *ret_found = false;
    return low;
}

struct agent *agent_registry_find(struct agent_registry *reg, const char *name)
{
    bool found;
    size_t i = place(reg, name, &found);
    return found ? reg->list[i] : NULL;
}

static enum att_rc make_room(struct agent_registry *reg, size_t count, struct att_err *err)
{
    if (count > AGENT_MAX) {
        return att_fail(err, ATT_E_LIMIT, "more than %d agents on one host", AGENT_MAX);
    }
    if (count <= reg->room) {
        return ATT_OK;
    }
    size_t room = (count + 15) / 16 * 16;
    struct agent **list = realloc(reg->list, room * sizeof(struct agent *));
    if (!list) {
        return att_fail(err, ATT_E_NOMEM, "no memory for %zu agents", room);
    }
    reg->list = list;
    reg->room = room;
    return ATT_OK;
}

enum att_rc agent_registry_add(struct agent_registry *reg, const struct agent_record *rec,
                               struct agent **ret_agent, struct att_err *err)
{
    enum att_rc rc = agent_name_check(rec->name, err);
    if (rc != ATT_OK) {
        return rc;
    }
    bool found;
    size_t i = place(reg, rec->name, &found);
    if (found) {
        return att_fail(err, ATT_E_EXISTS, "agent %s is there already", rec->name);
    }
    rc = make_room(reg, reg->count + 1, err);
    if (rc != ATT_OK) {
        return rc;
    }
    struct agent *agent = calloc(1, sizeof(*agent));
    if (!agent) {
        return att_fail(err, ATT_E_NOMEM, "no memory for agent %s", rec->name);
    }
    agent->rec = *rec;
    memmove(reg->list + i + 1, reg->list + i, (reg->count - i) * sizeof(struct agent *));
    reg->list[i] = agent;
    reg->count++;
    if (ret_agent) {
        *ret_agent = agent;
    }
    return ATT_OK;
}

void agent_registry_drop(struct agent_registry *reg, const char *name)
{
    bool found;
    size_t i = place(reg, name, &found);
    if (!found) {
        return;
    }
    free(reg->list[i]);
    memmove(reg->list + i, reg->list + i + 1, (reg->count - i - 1) * sizeof(struct agent *));
    reg->count--;
}

/* ---- a view of the issuer -------------------------------------------------------------------- */

static enum att_rc check_text(const char *what, const char *text, size_t max, const char *name,
                              struct att_err *err)
{
    size_t len = text ? strlen(text) : 0;
    if (len == 0 || len > max) {
        return att_fail(err, ATT_E_INVAL, "entry %.80s: %s has %zu characters, expected 1 to %zu",
                        name, what, len, max);
    }
    return ATT_OK;
}

static enum att_rc check_entry(const struct agent_entry *entry, struct att_err *err)
{
    struct agent_record rec;
    enum att_rc rc = agent_name_check(entry->name, err);
    if (rc == ATT_OK && entry->identifier) {
        rc = check_text("identifier", entry->identifier, sizeof(rec.identifier) - 1, entry->name,
                        err);
    } else if (rc == ATT_OK) {
        rc = check_text("spiffeId", entry->spiffe_id, sizeof(rec.spiffe_id) - 1, entry->name, err);
    }
    if (rc == ATT_OK && !(entry->identifier && entry->profile[0] == '\0')) {
        rc = check_text("profile", entry->profile, sizeof(rec.profile) - 1, entry->name, err);
    }
    if (rc == ATT_OK) {
        rc = check_text("key", entry->key_store, sizeof(rec.key_store) - 1, entry->name, err);
    }
    if (rc == ATT_OK && entry->key_type) {
        rc = check_text("keyType", entry->key_type, sizeof(rec.key_type) - 1, entry->name, err);
    }
    if (rc == ATT_OK && entry->hsm) {
        rc = check_text("hsm", entry->hsm, sizeof(rec.hsm) - 1, entry->name, err);
    }
    if (rc == ATT_OK && (entry->lifetime_s < 0 || entry->lifetime_s > (int64_t)366 * 86400)) {
        rc = att_fail(err, ATT_E_INVAL,
                      "entry %s: lifetime of %lld s, expected 0 (unknown) to 366 days", entry->name,
                      (long long)entry->lifetime_s);
    }
    return rc;
}

static int by_name(const void *a, const void *b)
{
    const struct agent_entry *const *x = a;
    const struct agent_entry *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

/* Every entry is well formed and no name stands twice. */
static enum att_rc check_view(const struct agent_entry *entries, size_t n, struct att_err *err)
{
    if (n > AGENT_MAX) {
        return att_fail(err, ATT_E_LIMIT, "%zu entries for one host, at most %d", n, AGENT_MAX);
    }
    const struct agent_entry **sorted = calloc(n ? n : 1, sizeof(*sorted));
    if (!sorted) {
        return att_fail(err, ATT_E_NOMEM, "no memory for %zu entries", n);
    }
    enum att_rc rc = ATT_OK;
    for (size_t i = 0; rc == ATT_OK && i < n; i++) {
        sorted[i] = &entries[i];
        rc = check_entry(&entries[i], err);
    }
    if (rc == ATT_OK) {
        qsort(sorted, n, sizeof(*sorted), by_name);
    }
    for (size_t i = 1; rc == ATT_OK && i < n; i++) {
        if (strcmp(sorted[i - 1]->name, sorted[i]->name) == 0) {
            rc = att_fail(err, ATT_E_INVAL, "entry %s stands twice in the view", sorted[i]->name);
        }
    }
    free(sorted);
    return rc;
}

static bool take(char *field, size_t size, const char *text)
{
    if (strcmp(field, text) == 0) {
        return false;
    }
    memset(field, 0, size);
    memcpy(field, text, strlen(text)); /* check_entry has seen that it fits */
    return true;
}

#define TAKE(field, text) take((field), sizeof(field), (text))

static const char *type_of(const struct agent_entry *entry)
{
    return entry->key_type && strcmp(entry->key_type, "ec-p256") != 0 ? entry->key_type : "";
}

static const char *hsm_of(const struct agent_entry *entry)
{
    return entry->hsm ? entry->hsm : "";
}

static const char *identifier_of(const struct agent_entry *entry)
{
    return entry->identifier ? entry->identifier : "";
}

static bool take_entry(struct agent_record *rec, const struct agent_entry *entry)
{
    bool changed = TAKE(rec->spiffe_id, entry->spiffe_id);
    changed |= TAKE(rec->profile, entry->profile);
    changed |= TAKE(rec->key_store, entry->key_store);
    changed |= TAKE(rec->key_type, type_of(entry));
    changed |= TAKE(rec->hsm, hsm_of(entry));
    changed |= TAKE(rec->identifier, identifier_of(entry));
    if (entry->identifier) {
        return changed;
    }
    changed |= rec->lifetime_s != entry->lifetime_s;
    rec->lifetime_s = entry->lifetime_s;
    return changed;
}

static enum att_rc sync_one(struct agent_registry *reg, const struct agent_entry *entry,
                            struct agent_sync *sync, struct att_err *err)
{
    struct agent *agent = agent_registry_find(reg, entry->name);
    size_t before = sync->added + sync->changed;
    if (!agent) {
        struct agent_record rec = {0};
        TAKE(rec.name, entry->name);
        take_entry(&rec, entry);
        enum att_rc rc = agent_registry_add(reg, &rec, &agent, err);
        if (rc != ATT_OK) {
            return rc;
        }
        agent->check_keys = true; /* an earlier life may have left some */
        sync->added++;
    } else {
        bool other_store = strcmp(agent->rec.key_store, entry->key_store) != 0 ||
                           strcmp(agent->rec.key_type, type_of(entry)) != 0 ||
                           strcmp(agent->rec.hsm, hsm_of(entry)) != 0;
        /* What is in service, and perhaps ordered, is of another name. */
        bool other_name = strcmp(agent->rec.identifier, identifier_of(entry)) != 0;
        bool changed = take_entry(&agent->rec, entry);
        /* The key in use is of the store before: that the certificate says so is not enough. */
        agent->forced |= (other_store || other_name) && agent->rec.life.state == AGENT_VALID;
        if (other_name) { /* what was said of the other one is no reason to wait */
            agent->not_before_ms = 0;
        }
        if (agent->rec.life.state == AGENT_REMOVED) {
            agent->reassigned = true;
            sync->added++;
        } else if (changed) {
            sync->changed++;
        }
    }
    agent->generation = reg->generation;
    agent->unsaved |= sync->added + sync->changed != before;
    return ATT_OK;
}

enum att_rc agent_registry_sync(struct agent_registry *reg, const struct agent_entry *entries,
                                size_t n, struct agent_sync *ret_sync, struct att_err *err)
{
    struct agent_sync sync = {0};
    enum att_rc rc = check_view(entries, n, err);
    if (rc != ATT_OK) {
        return rc;
    }
    /* Those that leave make no room before they are dropped: counted as still there. */
    reg->generation++;
    for (size_t i = 0; i < n; i++) {
        rc = sync_one(reg, &entries[i], &sync, err);
        if (rc != ATT_OK) {
            return rc;
        }
    }
    for (size_t i = 0; i < reg->count; i++) {
        struct agent *agent = reg->list[i];
        if (agent->generation == reg->generation) {
            continue;
        }
        agent->reassigned = false;
        if (agent->rec.life.state != AGENT_REMOVED) {
            rc = agent_life_apply(&agent->rec.life, AGENT_EV_REMOVED, err);
            if (rc != ATT_OK) {
                return rc;
            }
            agent->unsaved = true;
            sync.removed++;
        }
    }
    *ret_sync = sync;
    return ATT_OK;
}
