/* What a store may have very many of, a page at a time: by an index, behind a key, and never more
 * than was asked for. A page costs the same wherever it begins. */
#include "provision/store/store_internal.h"

#include <stdio.h>
#include <string.h>

/* The columns of store_hosts in their order. */
#define HOSTS                                                                                      \
    "SELECT id, label, labels, state, account, reason, manufacturer, model, version, ek_source,"   \
    " notes, created_at, updated_at, seen_at, registered_by, view_seen FROM hosts"
#define ENTRIES    "SELECT name, spiffe_id, json, version, updated_at FROM entries"
#define PREFIX_MAX 64

enum att_rc store_host_list(struct store_tx *tx, const char *after, const char *state,
                            int64_t limit, store_each_fn each, void *user, struct att_err *err)
{
    const struct store_value values[] = {STORE_VTEXT(after ? after : ""), STORE_VINT(limit),
                                         STORE_VTEXT(state ? state : "")};
    return state ? store_walk(tx, &store_hosts,
                              HOSTS " WHERE state = ?3 AND id > ?1 ORDER BY id LIMIT ?2", values, 3,
                              each, user, err)
                 : store_walk(tx, &store_hosts, HOSTS " WHERE id > ?1 ORDER BY id LIMIT ?2", values,
                              2, each, user, err);
}

/* Ids are lowercase hex: whatever begins with a text lies between it and itself with a 'g'. */
enum att_rc store_host_called(struct store_tx *tx, const char *label, const char *prefix,
                              int64_t limit, store_each_fn each, void *user, struct att_err *err)
{
    char end[PREFIX_MAX + 2] = "";
    if (prefix && (size_t)snprintf(end, sizeof end, "%sg", prefix) >= sizeof end) {
        prefix = NULL; /* longer than an id */
    }
    const struct store_value values[] = {STORE_VTEXT(label), STORE_VINT(limit),
                                         STORE_VTEXT(prefix ? prefix : ""), STORE_VTEXT(end)};
    return prefix ? store_walk(tx, &store_hosts,
                               HOSTS " WHERE label = ?1 OR (id >= ?3 AND id < ?4) LIMIT ?2", values,
                               4, each, user, err)
                  : store_walk(tx, &store_hosts, HOSTS " WHERE label = ?1 LIMIT ?2", values, 2,
                               each, user, err);
}

enum att_rc store_entry_list(struct store_tx *tx, const char *after, int64_t limit,
                             store_each_fn each, void *user, struct att_err *err)
{
    const struct store_value values[] = {STORE_VTEXT(after ? after : ""), STORE_VINT(limit)};
    return store_walk(tx, &store_entries, ENTRIES " WHERE name > ?1 ORDER BY name LIMIT ?2", values,
                      2, each, user, err);
}

/* ---- counts
 * --------------------------------------------------------------------------------------- */

struct counting {
    struct store *store;
    struct store_counts *counts;
};

static enum att_rc add_state(void *user, const struct store_row *row, struct att_err *err)
{
    struct counting *c = user;
    struct att_slice state = c->store->ops->row_bytes(row, 0);
    int64_t n = c->store->ops->row_int(row, 1);
    (void)err;
    const struct {
        const char *state;
        int64_t *into;
    } all[] = {{STORE_HOST_APPROVED, &c->counts->approved},
               {STORE_HOST_PENDING, &c->counts->pending},
               {STORE_HOST_BANNED, &c->counts->banned}};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (att_slice_eq(state, att_slice_str(all[i].state))) {
            *all[i].into = n;
        }
    }
    return ATT_OK;
}

static enum att_rc take_entries(void *user, const struct store_row *row, struct att_err *err)
{
    struct counting *c = user;
    (void)err;
    c->counts->entries = c->store->ops->row_int(row, 0);
    return ATT_OK;
}

enum att_rc store_counts(struct store_tx *tx, struct store_counts *ret_counts, struct att_err *err)
{
    struct store_counts counts = {0};
    struct counting c = {tx->store, &counts};
    enum att_rc rc = store_exec(tx, "SELECT state, COUNT(*) FROM hosts GROUP BY state", NULL, 0,
                                add_state, &c, NULL, err);
    rc = rc ? rc
            : store_exec(tx, "SELECT COUNT(*) FROM entries", NULL, 0, take_entries, &c, NULL, err);
    if (!rc) {
        *ret_counts = counts;
    }
    return rc;
}
