/* Leaves of the audit log beside the records that they commit to. */
#include "provision/store/store_internal.h"

struct number {
    struct store *store;
    int64_t value;
};

static enum att_rc take_int(void *user, const struct store_row *row, struct att_err *err)
{
    struct number *n = user;
    (void)err;
    n->value = n->store->ops->row_int(row, 0);
    return ATT_OK;
}

enum att_rc store_leaf_head(struct store_tx *tx, int64_t *ret_seq, struct att_err *err)
{
    struct number n = {tx->store, 0};
    enum att_rc rc = store_exec(tx, "SELECT COALESCE(MAX(seq), 0) FROM audit_leaves", NULL, 0,
                                take_int, &n, NULL, err);
    if (!rc) {
        *ret_seq = n.value;
    }
    return rc;
}

enum att_rc store_leaf_append(struct store_tx *tx, const struct store_leaf *leaf,
                              struct att_err *err)
{
    const struct store_value values[] = {STORE_VINT(leaf->seq), STORE_VBLOB(leaf->salt),
                                         STORE_VBLOB(leaf->leaf)};
    return store_exec(tx, "INSERT INTO audit_leaves (seq, salt, leaf) VALUES (?1, ?2, ?3)", values,
                      3, NULL, NULL, NULL, err);
}

struct reader {
    struct store *store;
    store_leaf_fn each;
    void *user;
    int64_t next, seen; /* while reading in parts */
};

static enum att_rc read_row(void *user, const struct store_row *row, struct att_err *err)
{
    struct reader *r = user;
    const struct store_db_ops *ops = r->store->ops;
    struct store_leaf leaf = {.seq = ops->row_int(row, 0),
                              .salt = ops->row_bytes(row, 1),
                              .leaf = ops->row_bytes(row, 2)};
    r->seen = leaf.seq < INT64_MAX ? r->seen + 1 : 0;
    r->next = leaf.seq < INT64_MAX ? leaf.seq + 1 : leaf.seq;
    return r->each(r->user, &leaf, err);
}

#define PART 4096 /* leaves: a database client may hold a whole answer in memory */

enum att_rc store_leaf_each(struct store_tx *tx, int64_t from, int64_t limit, store_leaf_fn each,
                            void *user, struct att_err *err)
{
    struct reader r = {.store = tx->store, .each = each, .user = user, .next = from};
    int64_t left = limit > 0 ? limit : INT64_MAX, part;
    enum att_rc rc;
    do {
        part = left < PART ? left : PART;
        left -= part;
        r.seen = 0;
        const struct store_value values[] = {STORE_VINT(r.next), STORE_VINT(part)};
        rc = store_exec(tx,
                        "SELECT seq, salt, leaf FROM audit_leaves WHERE seq >= ?1"
                        " ORDER BY seq LIMIT ?2",
                        values, 2, read_row, &r, NULL, err);
    } while (!rc && r.seen == part && left > 0);
    return rc;
}

enum att_rc store_audit_erase(struct store_tx *tx, int64_t seq, struct att_err *err)
{
    const struct store_value value = STORE_VINT(seq);
    int64_t changed = 0;
    enum att_rc rc = store_exec(tx, "UPDATE audit SET record = '' WHERE seq = ?1 AND record <> ''",
                                &value, 1, NULL, NULL, &changed, err);
    if (!rc && changed == 0) {
        rc = att_fail(err, ATT_E_NOTFOUND, "audit record %lld: is not there, or erased before",
                      (long long)seq);
    }
    return rc ? rc
              : store_exec(tx, "UPDATE audit_leaves SET salt = x'' WHERE seq = ?1", &value, 1, NULL,
                           NULL, NULL, err);
}
