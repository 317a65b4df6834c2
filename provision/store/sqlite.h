/* What the SQLite files share; not for others. Connections that only read are pooled. All writing
 * goes through one connection, whose users share commits (sqlite_batch.c). */
#ifndef PROVISION_STORE_SQLITE_H
#define PROVISION_STORE_SQLITE_H

#include "provision/store/db.h"

#include <pthread.h>
#include <sqlite3.h>

#define STORE_STATEMENTS_MAX 192

struct store_statement {
    const char *sql; /* the key is the address */
    sqlite3_stmt *stmt;
    bool busy;
};

struct store_con {
    struct store_db *db;
    sqlite3 *sqlite;
    struct store_statement statements[STORE_STATEMENTS_MAX];
    size_t n_statements;
    struct store_con *next;
};

struct store_row {
    sqlite3_stmt *stmt;
};

struct store_batch; /* writers that share a commit */

/* Who has the turn (busy) owns con, open, savepoint and soft; the rest is under lock. */
struct store_writer {
    pthread_mutex_t lock;
    pthread_cond_t turn, committed, grown;
    struct store_con *con, *checkpoint_con;
    struct store_batch *open; /* begun and not yet committed */
    bool savepoint;           /* around what the present one does */
    bool soft;                /* commits do not wait for the disk at present */
    bool busy, stop, started;
    unsigned waiting;
    int wal_pages; /* when it was last written to */
    pthread_t checkpointer;
};

struct store_db {
    char *path;
    pthread_mutex_t lock; /* idle list */
    struct store_con *idle;
    size_t n_idle;
    struct store_writer writer;
};

enum att_rc store_sqlite_con_open(struct store_db *db, struct store_con **ret_con,
                                  struct att_err *err);
void store_sqlite_con_free(struct store_con *con);
enum att_rc store_sqlite_fail(struct store_con *con, int code, const char *what,
                              struct att_err *err);
enum att_rc store_sqlite_run(struct store_con *con, const char *sql,
                             const struct store_value *values, size_t n_values, store_row_fn on_row,
                             void *user, int64_t *ret_changed, struct att_err *err);
void store_sqlite_rollback(struct store_con *con);

/* Opens the writing connection and starts the thread that does the checkpoints. */
enum att_rc store_batch_init(struct store_db *db, struct att_err *err);
void store_batch_done(struct store_db *db);
/* Waits for the turn. On success exactly one of leave and undo has to follow. */
enum att_rc store_batch_enter(struct store_db *db, enum store_mode mode, struct store_con **ret_con,
                              struct att_err *err);
/* Returns when what was written is as durable as its mode says (or is not going to be: then the
 * error). */
enum att_rc store_batch_leave(struct store_db *db, struct att_err *err);
/* Takes back what was written since enter; why may be NULL. */
void store_batch_undo(struct store_db *db, const struct att_err *why);

#endif
