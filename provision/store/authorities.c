/* What a rotation of an authority asks of the store: who still has what. */
#include "provision/store/store_internal.h"

struct number {
    struct store *store;
    int64_t value;
};

static enum att_rc take(void *user, const struct store_row *row, struct att_err *err)
{
    struct number *n = user;
    (void)err;
    n->value = n->store->ops->row_int(row, 0);
    return ATT_OK;
}

enum att_rc store_cert_last_end(struct store_tx *tx, const char *kind, int64_t made_until,
                                int64_t now, int64_t *ret_end, struct att_err *err)
{
    struct number end = {.store = tx->store};
    const struct store_value values[] = {STORE_VTEXT(kind), STORE_VINT(made_until),
                                         STORE_VINT(now)};
    enum att_rc rc = store_exec(tx,
                                "SELECT COALESCE(MAX(not_after), 0) FROM certs WHERE kind = ?1"
                                " AND created_at <= ?2 AND not_after > ?3"
                                " AND status IN ('issued', 'intent')",
                                values, 3, take, &end, NULL, err);
    if (!rc) {
        *ret_end = end.value;
    }
    return rc;
}

enum att_rc store_ticket_last_end(struct store_tx *tx, int64_t made_until, int64_t now,
                                  int64_t *ret_end, struct att_err *err)
{
    struct number end = {.store = tx->store};
    const struct store_value values[] = {STORE_VINT(made_until), STORE_VINT(now)};
    enum att_rc rc = store_exec(tx,
                                "SELECT COALESCE(MAX(expires_at), 0) FROM tickets WHERE"
                                " created_at <= ?1 AND expires_at > ?2 AND uses_left > 0",
                                values, 2, take, &end, NULL, err);
    if (!rc) {
        *ret_end = end.value;
    }
    return rc;
}

enum att_rc store_host_saw_view(struct store_tx *tx, const char *host, int64_t version,
                                struct att_err *err)
{
    const struct store_value values[] = {STORE_VTEXT(host), STORE_VINT(version)};
    return store_exec(tx, "UPDATE hosts SET view_seen = ?2 WHERE id = ?1 AND view_seen < ?2",
                      values, 2, NULL, NULL, NULL, err);
}

/* The columns of store_hosts in their order. */
#define HOST                                                                                       \
    "SELECT id, label, labels, state, account, reason, manufacturer, model, version, ek_source,"   \
    " notes, created_at, updated_at, seen_at, registered_by, view_seen FROM hosts"

enum att_rc store_hosts_behind(struct store_tx *tx, int64_t version, int64_t now, int64_t limit,
                               store_each_fn each, void *user, struct att_err *err)
{
    const struct store_value values[] = {STORE_VINT(version), STORE_VINT(now), STORE_VINT(limit)};
    return store_walk(tx, &store_hosts,
                      HOST " WHERE state = 'approved' AND view_seen < ?1 AND EXISTS"
                           " (SELECT 1 FROM certs WHERE certs.host = hosts.id AND not_after > ?2"
                           " AND certs.kind = 'agent' AND certs.status = 'issued')"
                           " ORDER BY id LIMIT ?3",
                      values, 3, each, user, err);
}

enum att_rc store_hosts_untold(struct store_tx *tx, int64_t version, int64_t now, int64_t limit,
                               store_each_fn each, void *user, struct att_err *err)
{
    const struct store_value values[] = {STORE_VINT(version), STORE_VINT(now), STORE_VINT(limit)};
    return store_walk(tx, &store_hosts,
                      HOST " WHERE state <> 'banned' AND view_seen < ?1 AND (EXISTS"
                           " (SELECT 1 FROM certs WHERE certs.host = hosts.id AND not_after > ?2"
                           " AND certs.kind = 'agent' AND certs.status = 'issued') OR EXISTS"
                           " (SELECT 1 FROM aks WHERE aks.host = hosts.id AND expires_at > ?2"
                           " AND aks.state = 'valid')) ORDER BY id LIMIT ?3",
                      values, 3, each, user, err);
}

enum att_rc store_issuers_forget(struct store_tx *tx, int64_t before, struct att_err *err)
{
    const struct store_value value = STORE_VINT(before);
    return store_exec(tx, "DELETE FROM issuers WHERE seen_at < ?1", &value, 1, NULL, NULL, NULL,
                      err);
}
