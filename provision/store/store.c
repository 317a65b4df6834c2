#include "provision/store/store_internal.h"

#include "attestd/base/clock.h"

#include <stdlib.h>
#include <string.h>

/* ---- transactions
 * -------------------------------------------------------------------------------- */

static enum att_rc attempt(struct store *store, enum store_mode mode, store_fn fn, void *user,
                           struct att_err *why)
{
    struct store_tx tx = {.store = store};
    enum att_rc rc = store->ops->begin(store->db, mode, &tx.con, why);
    if (rc) {
        return rc;
    }
    rc = fn(user, &tx, why);
    if (rc) {
        store->ops->rollback(tx.con, why);
        return rc;
    }
    return store->ops->commit(tx.con, why);
}

static enum att_rc run(struct store *store, enum store_mode mode, store_fn fn, void *user,
                       struct att_err *err)
{
    struct att_err own = {0};
    struct store_stats *stats = &store->stats;
    int64_t from = att_boottime_us();
    enum att_rc rc = attempt(store, mode, fn, user, err ? err : &own);
    att_histogram_add(mode == STORE_READ ? &stats->read : &stats->write, att_boottime_us() - from);
    if (rc == ATT_E_UNREACHABLE) {
        atomic_fetch_add(&stats->unreachable, 1);
    } else if (rc == ATT_E_RETRY && strcmp((err ? err : &own)->reason, STORE_BUSY) == 0) {
        atomic_fetch_add(&stats->busy, 1);
    } else if (rc == ATT_E_IO || rc == ATT_E_INTERNAL || rc == ATT_E_TIMEOUT) {
        atomic_fetch_add(&stats->failed, 1);
    }
    return rc;
}

const struct store_stats *store_stats(const struct store *store)
{
    return &store->stats;
}

enum att_rc store_run(struct store *store, bool write, store_fn fn, void *user, struct att_err *err)
{
    return run(store, write ? STORE_WRITE : STORE_READ, fn, user, err);
}

enum att_rc store_run_soft(struct store *store, store_fn fn, void *user, struct att_err *err)
{
    return run(store, STORE_WRITE_SOFT, fn, user, err);
}

enum att_rc store_exec(struct store_tx *tx, const char *sql, const struct store_value *values,
                       size_t n_values, store_row_fn on_row, void *user, int64_t *ret_changed,
                       struct att_err *err)
{
    return tx->store->ops->exec(tx->con, sql, values, n_values, on_row, user, ret_changed, err);
}

/* ---- records
 * --------------------------------------------------------------------------------------- */

static struct store_sql *sql_of(struct store_tx *tx, const struct store_table *table)
{
    size_t i = 0;
    while (i + 1 < STORE_TABLES && store_tables[i] != table) {
        i++;
    }
    return &tx->store->sql[i];
}

static size_t column_of(const struct store_table *table, const char *name)
{
    size_t i = 0;
    while (i < table->n_columns && strcmp(table->columns[i].name, name) != 0) {
        i++;
    }
    return i;
}

static void *member(const struct store_column *column, void *record)
{
    return (char *)record + column->offset;
}

static const void *member_const(const struct store_column *column, const void *record)
{
    return (const char *)record + column->offset;
}

void store_record_done(const struct store_table *table, void *record)
{
    for (size_t i = 0; i < table->n_columns; i++) {
        void *m = member(&table->columns[i], record);
        if (table->columns[i].type == STORE_TEXT) {
            free(*(char **)m);
        } else if (table->columns[i].type == STORE_BLOB) {
            att_buf_done(m);
        }
    }
    memset(record, 0, table->record_size);
}

static enum att_rc load(struct store_tx *tx, const struct store_table *table,
                        const struct store_row *row, void *record, struct att_err *err)
{
    const struct store_db_ops *ops = tx->store->ops;
    for (size_t i = 0; i < table->n_columns; i++) {
        void *m = member(&table->columns[i], record);
        if (table->columns[i].type == STORE_INT) {
            *(int64_t *)m = ops->row_int(row, (int)i);
            continue;
        }
        struct att_slice bytes = ops->row_bytes(row, (int)i);
        bool ok;
        if (table->columns[i].type == STORE_TEXT) {
            char *text = strndup(bytes.ptr ? (const char *)bytes.ptr : "", bytes.len);
            *(char **)m = text;
            ok = text != NULL;
        } else {
            att_buf_put_slice(m, bytes);
            ok = !((struct att_buf *)m)->failed;
        }
        if (!ok) {
            return att_fail(err, ATT_E_NOMEM, "store: no memory for a record of %s", table->name);
        }
    }
    return ATT_OK;
}

struct fetch {
    struct store_tx *tx;
    const struct store_table *table;
    void *record;
    bool found;
};

static enum att_rc fetch_row(void *user, const struct store_row *row, struct att_err *err)
{
    struct fetch *f = user;
    if (f->found) {
        return ATT_OK;
    }
    enum att_rc rc = load(f->tx, f->table, row, f->record, err);
    if (rc) {
        store_record_done(f->table, f->record);
    }
    f->found = !rc;
    return rc;
}

enum att_rc store_find(struct store_tx *tx, const struct store_table *table, const char *column,
                       const char *value, void *ret_record, struct att_err *err)
{
    size_t c = column_of(table, column);
    if (c == table->n_columns) {
        return att_fail(err, ATT_E_INTERNAL, "store: %s has no column %s", table->name, column);
    }
    struct fetch f = {.tx = tx, .table = table, .record = ret_record};
    struct store_value key = STORE_VTEXT(value);
    struct att_err why = {0};
    enum att_rc rc =
        store_exec(tx, sql_of(tx, table)->where[c], &key, 1, fetch_row, &f, NULL, &why);
    if (rc == ATT_E_INVAL && strcmp(why.reason, STORE_NOT_UTF8) == 0) {
        rc = ATT_OK; /* what the database cannot hold is not in it */
    }
    if (rc && err) {
        *err = why;
    }
    if (rc) {
        if (f.found) {
            store_record_done(table, ret_record);
        }
        return rc;
    }
    return f.found ? ATT_OK
                   : att_fail(err, ATT_E_NOTFOUND, "store: nothing in %s has %s \"%.80s\"",
                              table->name, column, value);
}

enum att_rc store_get(struct store_tx *tx, const struct store_table *table, const char *key,
                      void *ret_record, struct att_err *err)
{
    return store_find(tx, table, table->columns[0].name, key, ret_record, err);
}

static enum att_rc write_record(struct store_tx *tx, const struct store_table *table,
                                const char *sql, const void *record, int64_t *ret_changed,
                                struct att_err *err)
{
    struct store_value values[STORE_COLUMNS_MAX];
    for (size_t i = 0; i < table->n_columns; i++) {
        const void *m = member_const(&table->columns[i], record);
        switch (table->columns[i].type) {
        case STORE_INT:
            values[i] = STORE_VINT(*(const int64_t *)m);
            break;
        case STORE_TEXT:
            values[i] = STORE_VTEXT(*(char *const *)m);
            break;
        case STORE_BLOB:
            values[i] = STORE_VBLOB(att_buf_slice(m));
            break;
        }
    }
    return store_exec(tx, sql, values, table->n_columns, NULL, NULL, ret_changed, err);
}

enum att_rc store_insert(struct store_tx *tx, const struct store_table *table, const void *record,
                         struct att_err *err)
{
    int64_t changed = 0;
    enum att_rc rc = write_record(tx, table, sql_of(tx, table)->insert, record, &changed, err);
    if (!rc && changed == 0) {
        rc = att_fail(err, ATT_E_EXISTS, "store: %s has one with this %s, or another unique column",
                      table->name, table->columns[0].name);
        att_err_reason(err, "exists");
    }
    return rc;
}

enum att_rc store_put(struct store_tx *tx, const struct store_table *table, const void *record,
                      struct att_err *err)
{
    int64_t changed = 0;
    enum att_rc rc = write_record(tx, table, sql_of(tx, table)->put, record, &changed, err);
    if (!rc && changed == 0) {
        rc = att_fail(err, ATT_E_INTERNAL, "store: a fixed column of %s differs from what is there",
                      table->name);
    }
    return rc;
}

enum att_rc store_delete(struct store_tx *tx, const struct store_table *table, const char *key,
                         struct att_err *err)
{
    struct store_value value = STORE_VTEXT(key);
    int64_t changed = 0;
    enum att_rc rc =
        store_exec(tx, sql_of(tx, table)->remove, &value, 1, NULL, NULL, &changed, err);
    if (!rc && changed == 0) {
        rc = att_fail(err, ATT_E_NOTFOUND, "store: nothing in %s is called \"%.80s\"", table->name,
                      key);
    }
    return rc;
}

struct walk {
    struct store_tx *tx;
    const struct store_table *table;
    store_each_fn each;
    void *user;
};

/* The largest record; checked at compile time below. */
union any_record {
    struct store_account account;
    struct store_host host;
    struct store_host_ek host_ek;
    struct store_ek_claim ek_claim;
    struct store_ticket ticket;
    struct store_ak ak;
    struct store_order order;
    struct store_cert cert;
    struct store_entry entry;
    struct store_policy policy;
    struct store_dns_order dns_order;
    struct store_dns_authz dns_authz;
    struct store_renewal renewal;
    struct store_authority authority;
    struct store_issuer issuer;
    struct store_proposal proposal;
    struct store_admin_request admin_request;
};

static enum att_rc walk_row(void *user, const struct store_row *row, struct att_err *err)
{
    struct walk *w = user;
    union any_record record;
    memset(&record, 0, sizeof record);
    /* A list names its columns itself: one that the table got since would shift all behind it. */
    int have = w->tx->store->ops->row_columns(row);
    if (have < 0 || (size_t)have != w->table->n_columns) {
        return att_fail(err, ATT_E_INTERNAL, "store: a list of %s has %d columns, expected %zu",
                        w->table->name, have, w->table->n_columns);
    }
    enum att_rc rc = load(w->tx, w->table, row, &record, err);
    if (!rc) {
        rc = w->each(w->user, &record, err);
    }
    store_record_done(w->table, &record);
    return rc;
}

enum att_rc store_walk(struct store_tx *tx, const struct store_table *table, const char *sql,
                       const struct store_value *values, size_t n_values, store_each_fn each,
                       void *user, struct att_err *err)
{
    struct walk w = {.tx = tx, .table = table, .each = each, .user = user};
    return store_exec(tx, sql, values, n_values, walk_row, &w, NULL, err);
}

enum att_rc store_each(struct store_tx *tx, const struct store_table *table, const char *column,
                       const char *value, store_each_fn each, void *user, struct att_err *err)
{
    if (!column) {
        return store_walk(tx, table, sql_of(tx, table)->list, NULL, 0, each, user, err);
    }
    size_t c = column_of(table, column);
    if (c == table->n_columns) {
        return att_fail(err, ATT_E_INTERNAL, "store: %s has no column %s", table->name, column);
    }
    struct store_value key = STORE_VTEXT(value);
    return store_walk(tx, table, sql_of(tx, table)->where[c], &key, 1, each, user, err);
}
