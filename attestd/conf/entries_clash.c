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

/* What uid and unit say of both keeps them apart, or one process may be made to fit both. A uid
 * here and a unit there are taken to be different things. */
static bool clash(const struct conf_workload *a, const struct conf_workload *b,
                  struct conf_entry_clash *ret)
{
    bool uids = a->has_uid && b->has_uid;
    bool units = a->unit && b->unit;
    if ((uids && a->uid != b->uid) || (units && strcmp(a->unit, b->unit) != 0)) {
        return false;
    }
    *ret = (struct conf_entry_clash){.by_unit = !uids, .uid = a->uid, .unit = a->unit};
    return uids || units;
}

bool conf_entry_clashes(const struct conf_entry *a, const struct conf_entry *b,
                        struct conf_entry_clash *ret_clash)
{
    for (size_t i = 0; i < a->n_workload; i++) {
        for (size_t k = 0; k < b->n_workload; k++) {
            struct conf_entry_clash found;
            if (clash(&a->workload[i], &b->workload[k], &found) && may_meet(a, b)) {
                *ret_clash = found;
                return true;
            }
        }
    }
    return false;
}
