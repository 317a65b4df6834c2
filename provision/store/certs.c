/* Certificates in bulk: their table is the one that keeps every row, so that no serial number is
 * used twice. What asks for some of them reads those, and without their bytes. */
#include "provision/store/store_internal.h"

#include <string.h>

/* The columns of store_certs in their order. */
#define LIGHT                                                                                      \
    "SELECT serial, id, kind, status, subject, account, host, ord, profile, '' AS pem, decision,"  \
    " reason, replaced, firmware, x'' AS tbs, not_before, not_after, created_at, ended_at"         \
    " FROM certs"
#define FILTER                                                                                     \
    "(?1 = '' OR status = ?1) AND (?2 = '' OR kind = ?2) AND (?3 = '' OR subject = ?3"             \
    " OR SUBSTR(subject, LENGTH(subject) - LENGTH(?3)) = '/' || ?3)"
#define BEHIND " AND created_at <= ?5 AND (created_at < ?5 OR serial > ?6)"
#define NEWEST " ORDER BY created_at DESC, serial LIMIT ?4"
#define LIVE   " AND not_after > ?2 AND status IN ('issued', 'intent')"

static int64_t most(int64_t limit)
{
    return limit < 0 ? INT64_MAX : limit;
}

enum att_rc store_cert_list(struct store_tx *tx, const struct store_cert_query *query,
                            store_each_fn each, void *user, struct att_err *err)
{
    const struct store_value values[] = {STORE_VTEXT(query->status ? query->status : ""),
                                         STORE_VTEXT(query->kind ? query->kind : ""),
                                         STORE_VTEXT(query->name ? query->name : ""),
                                         STORE_VINT(most(query->limit)),
                                         STORE_VINT(query->after ? query->after_at : INT64_MAX),
                                         STORE_VTEXT(query->after ? query->after : ""),
                                         STORE_VTEXT(query->host ? query->host : "")};
    return query->host
               ? store_walk(tx, &store_certs, LIGHT " WHERE host = ?7 AND " FILTER BEHIND NEWEST,
                            values, 7, each, user, err)
               : store_walk(tx, &store_certs, LIGHT " WHERE " FILTER BEHIND NEWEST, values, 6, each,
                            user, err);
}

enum att_rc store_cert_live(struct store_tx *tx, enum store_cert_of of, const char *value,
                            int64_t now, int64_t limit, store_each_fn each, void *user,
                            struct att_err *err)
{
    const struct store_value values[] = {STORE_VTEXT(value), STORE_VINT(now),
                                         STORE_VINT(most(limit))};
    const char *sql = of == STORE_CERT_OF_HOST ? LIGHT " WHERE host = ?1" LIVE
                                                       " ORDER BY created_at DESC, serial LIMIT ?3"
                                               : LIGHT " WHERE subject = ?1" LIVE
                                                       " ORDER BY created_at DESC, serial LIMIT ?3";
    return store_walk(tx, &store_certs, sql, values, 3, each, user, err);
}

enum att_rc store_cert_revoked(struct store_tx *tx, const char *kind, int64_t now, int64_t limit,
                               store_each_fn each, void *user, struct att_err *err)
{
    const struct store_value values[] = {STORE_VTEXT(kind), STORE_VINT(now), STORE_VINT(limit)};
    return store_walk(tx, &store_certs,
                      LIGHT " WHERE status = 'revoked' AND kind = ?1 AND not_after > ?2"
                            " ORDER BY serial LIMIT ?3",
                      values, 3, each, user, err);
}

struct count {
    struct store *store;
    int64_t value;
};

static enum att_rc take(void *user, const struct store_row *row, struct att_err *err)
{
    struct count *c = user;
    (void)err;
    c->value = c->store->ops->row_int(row, 0);
    return ATT_OK;
}

enum att_rc store_cert_count(struct store_tx *tx, const char *host, int64_t *ret_n,
                             struct att_err *err)
{
    struct count c = {.store = tx->store};
    const struct store_value value = STORE_VTEXT(host);
    enum att_rc rc = store_exec(tx, "SELECT COUNT(*) FROM certs WHERE host = ?1", &value, 1, take,
                                &c, NULL, err);
    if (!rc) {
        *ret_n = c.value;
    }
    return rc;
}

enum att_rc store_cert_states(struct store_tx *tx, int64_t *ret_issued, int64_t *ret_intents,
                              struct att_err *err)
{
    struct count issued = {.store = tx->store}, intents = issued;
    enum att_rc rc =
        store_exec(tx, "SELECT COUNT(*) FROM certs WHERE status IN ('issued', 'revoked')", NULL, 0,
                   take, &issued, NULL, err);
    if (!rc) {
        rc = store_exec(tx, "SELECT COUNT(*) FROM certs WHERE status = 'intent'", NULL, 0, take,
                        &intents, NULL, err);
    }
    if (!rc) {
        *ret_issued = issued.value;
        *ret_intents = intents.value;
    }
    return rc;
}

enum att_rc store_cert_sweep(struct store_tx *tx, int64_t before, int64_t limit,
                             int64_t *ret_emptied, struct att_err *err)
{
    const struct store_value values[] = {STORE_VINT(before), STORE_VINT(limit)};
    return store_exec(tx,
                      "UPDATE certs SET pem = '', tbs = x'' WHERE serial IN"
                      " (SELECT serial FROM certs WHERE not_after < ?1 AND tbs <> x''"
                      " AND status <> 'intent' LIMIT ?2)",
                      values, 2, NULL, NULL, ret_emptied, err);
}
