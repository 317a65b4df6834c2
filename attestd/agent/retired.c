#include "attestd/agent/retired.h"

#include <string.h>

static void drop_at(struct agent_record *rec, size_t i)
{
    rec->n_retired--;
    memmove(rec->retired + i, rec->retired + i + 1,
            (rec->n_retired - i) * sizeof(struct agent_retired));
    memset(rec->retired + rec->n_retired, 0, sizeof(struct agent_retired));
}

void agent_retired_take(struct agent_record *rec, struct agent_now now)
{
    memset(rec->old_key_id, 0, sizeof(rec->old_key_id));
    if (rec->key_id[0] == '\0') {
        return;
    }
    int64_t end = agent_sched_end_boot_ms(&rec->dates, now);
    if (end == 0) {
        memcpy(rec->old_key_id, rec->key_id, sizeof(rec->old_key_id));
        return;
    }
    if (rec->n_retired == AGENT_RETIRED_MAX) {
        memcpy(rec->old_key_id, rec->retired[0].key_id, sizeof(rec->old_key_id));
        drop_at(rec, 0);
    }
    struct agent_retired *last = &rec->retired[rec->n_retired++];
    memcpy(last->key_id, rec->key_id, sizeof(last->key_id));
    memcpy(last->serial, rec->serial, sizeof(last->serial));
    last->not_after = rec->dates.not_after;
    last->end_boot_ms = end;
}

void agent_retired_loaded(struct agent_record *rec, struct agent_now now)
{
    for (size_t i = 0; i < rec->n_retired; i++) {
        struct agent_retired *one = &rec->retired[i];
        /* It was replaced when the certificate in force was installed. */
        const struct agent_dates dates = {.not_after = one->not_after,
                                          .installed_at = rec->dates.installed_at};
        one->end_boot_ms = agent_sched_end_boot_ms(&dates, now);
    }
}

static size_t index_of(const struct agent_record *rec, const char *key_id)
{
    size_t i = 0;
    while (i < rec->n_retired && strcmp(rec->retired[i].key_id, key_id) != 0) {
        i++;
    }
    return i;
}

const struct agent_retired *agent_retired_find(const struct agent_record *rec, const char *key_id)
{
    size_t i = index_of(rec, key_id);
    return i < rec->n_retired ? &rec->retired[i] : NULL;
}

void agent_retired_pass_on(struct agent_record *next, const struct agent_record *now,
                           bool current_revoked)
{
    for (size_t i = 0; i < next->n_retired; i++) {
        struct agent_retired *one = &next->retired[i];
        const struct agent_retired *was = agent_retired_find(now, one->key_id);
        one->revoked |= was && was->revoked;
        one->revoked |= current_revoked && strcmp(one->key_id, now->key_id) == 0;
    }
}

bool agent_retired_drop(struct agent_record *rec, const char *key_id)
{
    size_t i = index_of(rec, key_id);
    if (i == rec->n_retired) {
        return false;
    }
    drop_at(rec, i);
    return true;
}

static int64_t left_ms(const struct agent_retired *one, struct agent_now now)
{
    if (one->revoked || now.utc_s >= one->not_after || now.boot_ms >= one->end_boot_ms) {
        return 0;
    }
    int64_t boot = one->end_boot_ms - now.boot_ms;
    int64_t wall_s = one->not_after - now.utc_s;
    return wall_s < boot / 1000 ? wall_s * 1000 : boot;
}

const struct agent_retired *agent_retired_over(const struct agent_record *rec, struct agent_now now)
{
    for (size_t i = 0; i < rec->n_retired; i++) {
        if (left_ms(&rec->retired[i], now) == 0) {
            return &rec->retired[i];
        }
    }
    return NULL;
}

int64_t agent_retired_wait_ms(const struct agent_record *rec, struct agent_now now)
{
    int64_t wait = INT64_MAX;
    for (size_t i = 0; i < rec->n_retired; i++) {
        int64_t left = left_ms(&rec->retired[i], now);
        wait = left < wait ? left : wait;
    }
    return wait;
}
