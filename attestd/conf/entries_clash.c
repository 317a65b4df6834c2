/* Agents whose workloads only the digests tell apart. */
#include "attestd/conf/entries.h"

#include <string.h>

/* A host's labels are not known here: two different keys may meet on one host, and so may a label
 * and an EK; one key with two values cannot. */
static bool hosts_may_meet(const struct conf_host_selector *a, const struct conf_host_selector *b)
{
    if (a->kind != b->kind) {
        return true;
    }
    if (a->kind == CONF_HOST_EK) {
        return strcmp(a->key, b->key) == 0;
    }
    return strcmp(a->key, b->key) != 0 || strcmp(a->value, b->value) == 0;
}

static bool may_meet(const struct conf_entry *a, const struct conf_entry *b)
{
    for (size_t i = 0; i < a->n_hosts; i++) {
        for (size_t k = 0; k < b->n_hosts; k++) {
            if (hosts_may_meet(&a->hosts[i], &b->hosts[k])) {
                return true;
            }
        }
    }
    return false;
}

/* A process that fits one could make itself fit the other: nothing but digests stands between. A
 * uid beside a unit of its own keeps them apart only if both name a unit. */
static bool clash(const struct conf_workload *a, const struct conf_workload *b,
                  struct conf_entries_clash *ret)
{
    bool uids = a->has_uid && b->has_uid;
    bool units = a->unit && b->unit;
    if ((uids && a->uid != b->uid) || (units && strcmp(a->unit, b->unit) != 0)) {
        return false;
    }
    if (uids) {
        ret->by_unit = false;
        ret->uid = a->uid;
        return true;
    }
    ret->by_unit = units;
    ret->unit = a->unit;
    return units;
}

static bool entries_clash(const struct conf_entry *a, const struct conf_entry *b,
                          struct conf_entries_clash *ret)
{
    for (size_t i = 0; i < a->n_workload; i++) {
        for (size_t k = 0; k < b->n_workload; k++) {
            if (clash(&a->workload[i], &b->workload[k], ret)) {
                return may_meet(a, b);
            }
        }
    }
    return false;
}

size_t conf_entries_clashes(const struct conf_entries *entries, struct conf_entries_clash *ret,
                            size_t max)
{
    size_t total = 0;
    for (size_t i = 0; i < entries->n_agents; i++) {
        for (size_t k = i + 1; k < entries->n_agents; k++) {
            struct conf_entries_clash found = {.first = entries->agents[i].name,
                                               .second = entries->agents[k].name};
            if (entries_clash(&entries->agents[i], &entries->agents[k], &found)) {
                if (total < max) {
                    ret[total] = found;
                }
                total++;
            }
        }
    }
    return total;
}
