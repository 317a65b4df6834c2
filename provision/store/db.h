/* What a database must be able to do for the store: run one SQL statement at a time with bound
 * values, inside transactions. SQLite is provision/store/sqlite.c, PostgreSQL postgres.c. The SQL
 * that passes through here is the portable part of SQL-92 plus "ON CONFLICT … DO UPDATE" and what
 * provision/store/dialect.h translates; placeholders are written ?1, ?2 … A statement that fails
 * ends the transaction (PostgreSQL takes no other after it), so what may well be there already is
 * inserted with ON CONFLICT DO NOTHING and counted. No LIMIT is negative, no SUBSTR starts from the
 * end. */
#ifndef PROVISION_STORE_DB_H
#define PROVISION_STORE_DB_H

#include "attestd/base/buf.h"

#include <stdbool.h>

enum store_type { STORE_INT, STORE_TEXT, STORE_BLOB };

/* One bound value; borrows. */
struct store_value {
    enum store_type type;
    int64_t num;
    struct att_slice bytes; /* TEXT (without NUL) and BLOB */
};

#define STORE_VINT(n)      ((struct store_value){STORE_INT, (int64_t)(n), {NULL, 0}})
#define STORE_VTEXT(s)     ((struct store_value){STORE_TEXT, 0, att_slice_str(s)})
#define STORE_VBLOB(slice) ((struct store_value){STORE_BLOB, 0, (slice)})

struct store_db;  /* the whole: path, options, connections */
struct store_con; /* one connection, used by one thread at a time */
struct store_row; /* the row a callback is looking at */

/* Called for each row; anything but ATT_OK stops the statement and is its result. */
typedef enum att_rc (*store_row_fn)(void *user, const struct store_row *row, struct att_err *err);

enum store_mode {
    STORE_READ,
    STORE_WRITE,
    STORE_WRITE_SOFT, /* a loss of power may take it back, until a STORE_WRITE after it returns */
};

/* Reason of ATT_E_RETRY: others were at work for too long (a turn, a lock, a place in the pool), or
 * the database gave this transaction up for others' sake (a deadlock, a serialization failure).
 * Nothing was changed; who asks again finds it free. */
#define STORE_BUSY "storeBusy"

/* A text was given that the database cannot hold; nothing was asked of it. */
#define STORE_NOT_UTF8 "notUtf8"

struct store_db_ops {
    const char *name;
    bool shared; /* others write to it, too: other issuers */
    /* Transactions, each on a connection that is its own from begin to commit or rollback. A writer
     * sees what writers before it wrote, and no other; commit returns when all is as durable as the
     * mode says, and several may share one. rollback never fails; why (may be NULL) is for those
     * who have to fail with it, where the database gave up more than this transaction. */
    enum att_rc (*begin)(struct store_db *db, enum store_mode mode, struct store_con **ret_con,
                         struct att_err *err);
    enum att_rc (*commit)(struct store_con *con, struct att_err *err);
    void (*rollback)(struct store_con *con, const struct att_err *why);
    /* Runs one statement; sql must be a string that lives as long as the connection does
     * (statements are kept prepared under its address). on_row may be NULL. */
    enum att_rc (*exec)(struct store_con *con, const char *sql, const struct store_value *values,
                        size_t n_values, store_row_fn on_row, void *user, int64_t *ret_changed,
                        struct att_err *err);
    /* Runs a script of statements without parameters: migrations. */
    enum att_rc (*script)(struct store_con *con, const char *sql, struct att_err *err);
    /* Columns of a row: valid only inside the callback. */
    int64_t (*row_int)(const struct store_row *row, int column);
    struct att_slice (*row_bytes)(const struct store_row *row, int column);
    int (*row_columns)(const struct store_row *row);
    void (*close)(struct store_db *db);
};

/* SQLite: WAL, synchronous=FULL, foreign keys, busy timeout 10 s; the file is made 0600.
 * ATT_E_IO names the path; a disk that is full is ATT_E_IO with reason "diskFull". */
ATT_MUST_USE enum att_rc store_sqlite_open(const char *path, struct store_db **ret_db,
                                           const struct store_db_ops **ret_ops,
                                           struct att_err *err);

/* PostgreSQL 13 or later with an UTF8 database. conninfo: as libpq reads it, a URI or KEY=VALUE,
 * without a password, which is read from password_file (may be NULL) for each connection. Over a
 * network sslmode is verify-full unless it says otherwise. At most 16 connections. A server that
 * is away, now or later, is ATT_E_UNREACHABLE with reason "storeDown"; one that others keep busy
 * ATT_E_RETRY with "storeBusy", after 10 s. ATT_E_INVAL for a connection string that is none. */
ATT_MUST_USE enum att_rc store_postgres_open(const char *conninfo, const char *password_file,
                                             struct store_db **ret_db,
                                             const struct store_db_ops **ret_ops,
                                             struct att_err *err);

#endif
