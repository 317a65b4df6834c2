/* What the store's own files share; not for others. */
#ifndef PROVISION_STORE_STORE_INTERNAL_H
#define PROVISION_STORE_STORE_INTERNAL_H

#include "provision/store/store.h"

#define STORE_TABLES      21
#define STORE_COLUMNS_MAX 32

/* The SQL of one table, made once at open: statements are cached under their address. */
struct store_sql {
    char *get, *insert, *put, *remove, *list;
    char *where[STORE_COLUMNS_MAX]; /* list by this column */
};

struct store {
    struct store_db *db;
    const struct store_db_ops *ops;
    struct store_sql sql[STORE_TABLES];
    struct store_stats stats;
};

struct store_tx {
    struct store *store;
    struct store_con *con;
};

extern const struct store_table *const store_tables[STORE_TABLES];

/* Runs one statement in the transaction. */
enum att_rc store_exec(struct store_tx *tx, const char *sql, const struct store_value *values,
                       size_t n_values, store_row_fn on_row, void *user, int64_t *ret_changed,
                       struct att_err *err);

/* Each row of a statement that selects a table's columns in their order. sql lives as long as the
 * store does: statements are cached under their address. */
enum att_rc store_walk(struct store_tx *tx, const struct store_table *table, const char *sql,
                       const struct store_value *values, size_t n_values, store_each_fn each,
                       void *user, struct att_err *err);

struct store_migration {
    int number;
    const char *sql;
};
extern const struct store_migration store_migrations[];
extern const size_t store_n_migrations;
enum att_rc store_migrate(struct store *store, struct att_err *err);
/* The number of the newest migration that was applied; 0 for an empty database. Changes nothing. */
enum att_rc store_schema(struct store *store, int64_t *ret_number, struct att_err *err);

/* A store whose database is open, and no schema looked at. Not ready for store_run of records. */
enum att_rc store_open_raw(const struct store_place *place, struct store **ret_store,
                           struct att_err *err);

#endif
