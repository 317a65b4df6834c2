/* Single values, counters, tickets, evidence: statements of their own. */
#include "provision/store/store_internal.h"

#include "attestd/base/enc.h"
#include "attestd/base/hash.h"

struct value {
    struct store *store;
    struct att_buf *bytes; /* may be NULL */
    bool found;
};

static enum att_rc take_bytes(void *user, const struct store_row *row, struct att_err *err)
{
    struct value *v = user;
    v->found = true;
    if (!v->bytes) {
        return ATT_OK;
    }
    att_buf_put_slice(v->bytes, v->store->ops->row_bytes(row, 0));
    return att_buf_ok(v->bytes, err);
}

enum att_rc store_meta_get(struct store_tx *tx, const char *key, struct att_buf *ret_value,
                           struct att_err *err)
{
    struct value v = {.store = tx->store, .bytes = ret_value};
    struct store_value arg = STORE_VTEXT(key);
    enum att_rc rc =
        store_exec(tx, "SELECT value FROM meta WHERE key = ?1", &arg, 1, take_bytes, &v, NULL, err);
    if (!rc && !v.found) {
        rc = att_fail(err, ATT_E_NOTFOUND, "store: %s is not set", key);
    }
    return rc;
}

enum att_rc store_meta_set(struct store_tx *tx, const char *key, struct att_slice value,
                           struct att_err *err)
{
    const struct store_value args[] = {STORE_VTEXT(key), STORE_VBLOB(value)};
    return store_exec(tx,
                      "INSERT INTO meta (key, value) VALUES (?1, ?2)"
                      " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                      args, 2, NULL, NULL, NULL, err);
}

enum att_rc store_meta_count(struct store_tx *tx, const char *key, int64_t *ret_value,
                             struct att_err *err)
{
    att_autobuf old = ATT_BUF_INIT(8);
    struct att_err why = {0};
    enum att_rc rc = store_meta_get(tx, key, &old, &why);
    if (rc && rc != ATT_E_NOTFOUND) {
        if (err) {
            *err = why;
        }
        return rc;
    }
    struct att_cur cur = att_cur_init(att_buf_slice(&old));
    int64_t value = rc ? 0 : (int64_t)att_cur_be64(&cur);
    if (!rc && !att_cur_done(&cur)) {
        return att_fail(err, ATT_E_IO, "store: counter %s is damaged", key);
    }
    value++;
    att_autobuf now = ATT_BUF_INIT(8);
    att_buf_be64(&now, (uint64_t)value);
    rc = att_buf_ok(&now, err);
    if (!rc) {
        rc = store_meta_set(tx, key, att_buf_slice(&now), err);
    }
    if (!rc) {
        *ret_value = value;
    }
    return rc;
}

enum att_rc store_ticket_spend(struct store_tx *tx, const char *kid, int64_t now,
                               struct att_err *err)
{
    const struct store_value args[] = {STORE_VTEXT(kid), STORE_VINT(now)};
    int64_t changed = 0;
    enum att_rc rc = store_exec(tx,
                                "UPDATE tickets SET uses_left = uses_left - 1"
                                " WHERE kid = ?1 AND uses_left > 0 AND expires_at > ?2",
                                args, 2, NULL, NULL, &changed, err);
    if (!rc && changed != 1) {
        rc = att_fail(err, ATT_E_DENIED, "the enrolment ticket is unknown, used up or expired");
        att_err_reason(err, "ticketInvalid");
    }
    return rc;
}

struct number {
    struct store *store;
    int64_t value;
};

static enum att_rc take_number(void *user, const struct store_row *row, struct att_err *err)
{
    struct number *n = user;
    (void)err;
    n->value = n->store->ops->row_int(row, 0);
    return ATT_OK;
}

enum att_rc store_ticket_accounts(struct store_tx *tx, const char *kid, int64_t *ret_n,
                                  struct att_err *err)
{
    struct number n = {.store = tx->store};
    const struct store_value arg = STORE_VTEXT(kid);
    enum att_rc rc = store_exec(tx, "SELECT COUNT(*) FROM accounts WHERE ticket = ?1", &arg, 1,
                                take_number, &n, NULL, err);
    if (!rc) {
        *ret_n = n.value;
    }
    return rc;
}

/* Both counts of one reading of the index (account, created_at, status). */
struct recent {
    struct store *store;
    int64_t orders, fruitless;
};

static enum att_rc take_recent(void *user, const struct store_row *row, struct att_err *err)
{
    struct recent *r = user;
    (void)err;
    r->orders = r->store->ops->row_int(row, 0);
    r->fruitless = r->store->ops->row_int(row, 1);
    return ATT_OK;
}

enum att_rc store_account_recent(struct store_tx *tx, const char *account, int64_t since,
                                 struct store_recent *ret_recent, struct att_err *err)
{
    struct recent orders = {.store = tx->store};
    struct number aks = {.store = tx->store};
    const struct store_value args[] = {STORE_VTEXT(account), STORE_VINT(since)};
    enum att_rc rc = store_exec(tx,
                                "SELECT COUNT(*), COUNT(CASE WHEN status <> 'valid' THEN 1 END)"
                                " FROM orders WHERE account = ?1 AND created_at >= ?2",
                                args, 2, take_recent, &orders, NULL, err);
    if (!rc) {
        rc = store_exec(tx, "SELECT COUNT(*) FROM aks WHERE account = ?1 AND created_at >= ?2",
                        args, 2, take_number, &aks, NULL, err);
    }
    if (!rc) {
        *ret_recent = (struct store_recent){orders.orders, orders.fruitless, aks.value};
    }
    return rc;
}

enum att_rc store_dns_recent(struct store_tx *tx, const char *account, int64_t since,
                             struct store_recent *ret_recent, struct att_err *err)
{
    struct recent orders = {.store = tx->store};
    const struct store_value args[] = {STORE_VTEXT(account), STORE_VINT(since)};
    enum att_rc rc = store_exec(tx,
                                "SELECT COUNT(*), COUNT(CASE WHEN status <> 'valid' THEN 1 END)"
                                " FROM dns_orders WHERE account = ?1 AND created_at >= ?2",
                                args, 2, take_recent, &orders, NULL, err);
    if (!rc) {
        *ret_recent = (struct store_recent){orders.orders, orders.fruitless, 0};
    }
    return rc;
}

enum att_rc store_ak_replace_pending(struct store_tx *tx, const char *account, const char *ek,
                                     struct att_err *err)
{
    const struct store_value args[] = {STORE_VTEXT(account), STORE_VTEXT(ek)};
    return store_exec(tx,
                      "UPDATE aks SET state = 'ended', ended_reason = 'replaced', secret = x''"
                      " WHERE account = ?1 AND ek = ?2 AND state = 'pending'",
                      args, 2, NULL, NULL, NULL, err);
}

/* What strangers and hosts can make many of. share: how many rows go with one, at most. */
static const struct {
    const char *sql;
    int64_t share;
} swept[] = {
    {"DELETE FROM orders WHERE id IN (SELECT id FROM orders WHERE expires_at < ?1 LIMIT ?2)", 1},
    {"DELETE FROM dns_orders WHERE id IN" /* and their authorizations, one a name */
     " (SELECT id FROM dns_orders WHERE expires_at < ?1 LIMIT ?2)",
     16},
    {"DELETE FROM aks WHERE id IN"
     " (SELECT id FROM aks WHERE state <> 'valid' AND expires_at < ?1 LIMIT ?2)",
     1},
};

/* Of this EK (and source, where it is given) the oldest goes while there are most of them; of an EK
 * it is one of the source that has the most. */
static enum att_rc step_evict(struct store_tx *tx, const struct store_step *row, bool source,
                              int64_t most, struct att_err *err)
{
    struct number n = {.store = tx->store};
    const struct store_value args[] = {STORE_VTEXT(row->ek), STORE_VTEXT(row->source)};
    enum att_rc rc =
        source ? store_exec(tx, "SELECT COUNT(*) FROM step_pending WHERE ek = ?1 AND source = ?2",
                            args, 2, take_number, &n, NULL, err)
               : store_exec(tx, "SELECT COUNT(*) FROM step_pending WHERE ek = ?1", args, 1,
                            take_number, &n, NULL, err);
    if (rc || n.value < most) {
        return rc;
    }
    return source ? store_exec(tx,
                               "DELETE FROM step_pending WHERE secret IN"
                               " (SELECT secret FROM step_pending WHERE ek = ?1 AND source = ?2"
                               " ORDER BY seq LIMIT 1)",
                               args, 2, NULL, NULL, NULL, err)
                  : store_exec(tx,
                               "DELETE FROM step_pending WHERE secret IN"
                               " (SELECT p.secret FROM step_pending p WHERE p.ek = ?1 ORDER BY"
                               " (SELECT COUNT(*) FROM step_pending q WHERE q.ek = p.ek"
                               " AND q.source = p.source) DESC, p.seq LIMIT 1)",
                               args, 1, NULL, NULL, NULL, err);
}

enum att_rc store_step_room(struct store_tx *tx, struct store_step *row, int64_t now,
                            struct att_err *err)
{
    struct number all = {.store = tx->store}, last = all;
    const struct store_value time = STORE_VINT(now);
    enum att_rc rc = store_exec(tx, "DELETE FROM step_pending WHERE expires_at <= ?1", &time, 1,
                                NULL, NULL, NULL, err);
    if (!rc) {
        rc = step_evict(tx, row, true, STORE_STEP_OF_SOURCE, err);
    }
    if (!rc) {
        rc = step_evict(tx, row, false, STORE_STEP_OF_EK, err);
    }
    if (!rc) {
        rc = store_exec(tx, "SELECT COUNT(*) FROM step_pending", NULL, 0, take_number, &all, NULL,
                        err);
    }
    if (!rc && all.value >= STORE_STEP_MAX) {
        rc = att_fail(err, ATT_E_RETRY, "%d credentials wait to be solved", STORE_STEP_MAX);
        att_err_reason(err, "stepFull");
    }
    if (!rc) {
        rc = store_exec(tx, "SELECT COALESCE(MAX(seq), 0) FROM step_pending", NULL, 0, take_number,
                        &last, NULL, err);
    }
    if (!rc) {
        row->seq = last.value + 1;
    }
    return rc;
}

enum att_rc store_sweep(struct store_tx *tx, int64_t before, int64_t limit, bool *ret_more,
                        struct att_err *err)
{
    struct store_value arg = STORE_VINT(before);
    bool more = false;
    enum att_rc rc = ATT_OK;
    for (size_t i = 0; i < sizeof swept / sizeof swept[0] && !rc; i++) {
        int64_t n = 0, most = limit > swept[i].share ? limit / swept[i].share : 1;
        const struct store_value bounded[] = {STORE_VINT(before), STORE_VINT(most)};
        rc = store_exec(tx, swept[i].sql, bounded, 2, NULL, NULL, &n, err);
        more = more || n >= most;
    }
    if (!rc) {
        rc = store_exec(tx, "DELETE FROM step_pending WHERE expires_at < ?1", &arg, 1, NULL, NULL,
                        NULL, err);
    }
    if (!rc) {
        rc = store_exec(tx, "DELETE FROM tickets WHERE expires_at < ?1", &arg, 1, NULL, NULL, NULL,
                        err);
    }
    if (!rc) {
        struct store_value done = STORE_VINT(before - STORE_REQUEST_S);
        rc = store_exec(tx, "DELETE FROM admin_requests WHERE at < ?1", &done, 1, NULL, NULL, NULL,
                        err);
    }
    if (!rc) {
        rc = store_exec(tx, "UPDATE proposals SET args = '' WHERE args <> '' AND expires_at < ?1",
                        &arg, 1, NULL, NULL, NULL, err);
    }
    if (!rc) {
        struct store_value decided = STORE_VINT(before - STORE_PROPOSAL_S);
        rc = store_exec(tx, "DELETE FROM proposals WHERE expires_at < ?1", &decided, 1, NULL, NULL,
                        NULL, err);
    }
    if (!rc) {
        *ret_more = more;
    }
    return rc;
}

enum att_rc store_blob_put(struct store_tx *tx, struct att_slice bytes, int64_t now,
                           char ret_sha256[65], struct att_err *err)
{
    uint8_t digest[ATT_SHA256_LEN];
    char text[2 * ATT_SHA256_LEN + 1];
    att_sha256(digest, bytes);
    att_hex(text, ATT_SLICE_ARRAY(digest));
    const struct store_value args[] = {STORE_VTEXT(text), STORE_VBLOB(bytes), STORE_VINT(now)};
    enum att_rc rc = store_exec(tx,
                                "INSERT INTO blobs (sha256, data, created_at) VALUES (?1, ?2, ?3)"
                                " ON CONFLICT (sha256) DO UPDATE SET"
                                " created_at = excluded.created_at",
                                args, 3, NULL, NULL, NULL, err);
    for (size_t i = 0; !rc && i < sizeof text; i++) {
        ret_sha256[i] = text[i];
    }
    return rc;
}

#define TOUCH_S 3600

enum att_rc store_blob_touch(struct store_tx *tx, const char *sha256, int64_t now,
                             struct att_err *err)
{
    const struct store_value args[] = {STORE_VTEXT(sha256), STORE_VINT(now),
                                       STORE_VINT(now - TOUCH_S)};
    return store_exec(tx, "UPDATE blobs SET created_at = ?2 WHERE sha256 = ?1 AND created_at < ?3",
                      args, 3, NULL, NULL, NULL, err);
}

enum att_rc store_blob_get(struct store_tx *tx, const char *sha256, struct att_buf *ret_bytes,
                           struct att_err *err)
{
    struct value v = {.store = tx->store, .bytes = ret_bytes};
    struct store_value arg = STORE_VTEXT(sha256);
    enum att_rc rc = store_exec(tx, "SELECT data FROM blobs WHERE sha256 = ?1", &arg, 1, take_bytes,
                                &v, NULL, err);
    if (!rc && !v.found) {
        rc = att_fail(err, ATT_E_NOTFOUND, "store: no evidence with SHA-256 %.64s", sha256);
    }
    return rc;
}

enum att_rc store_blob_sweep(struct store_tx *tx, int64_t before, int64_t limit,
                             int64_t *ret_removed, struct att_err *err)
{
    const struct store_value args[] = {STORE_VINT(before), STORE_VINT(limit)};
    return store_exec(tx,
                      "DELETE FROM blobs WHERE sha256 IN"
                      " (SELECT sha256 FROM blobs WHERE created_at < ?1 LIMIT ?2)",
                      args, 2, NULL, NULL, ret_removed, err);
}

bool store_blob_has(struct store_tx *tx, const char *sha256)
{
    struct value v = {.store = tx->store};
    struct store_value arg = STORE_VTEXT(sha256);
    return store_exec(tx, "SELECT 1 FROM blobs WHERE sha256 = ?1", &arg, 1, take_bytes, &v, NULL,
                      NULL) == ATT_OK &&
           v.found;
}
