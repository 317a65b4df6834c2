/* What the files of the PostgreSQL store share; not for others. */
#ifndef PROVISION_STORE_POSTGRES_H
#define PROVISION_STORE_POSTGRES_H

#include "provision/store/db.h"

#include <libpq-fe.h>
#include <pthread.h>
#include <stdbool.h>

#define STORE_PG_CONNECTIONS_MAX 16
#define STORE_PG_STATEMENTS_MAX  192
#define STORE_PG_VALUES_MAX      32
#define STORE_PG_OPTIONS_MAX     64
#define STORE_PG_STATEMENT_MS    20000  /* more than the server's own statement_timeout */
#define STORE_PG_SCRIPT_MS       900000 /* migrations of a large database */
#define STORE_PG_TURN_MS         10000  /* for a connection, or for the turn to write */

struct store_con {
    struct store_db *db;
    PGconn *pg;
    enum store_mode mode;
    bool lost;    /* of no use any more */
    bool aborted; /* a statement failed: the server refuses all but the end of the transaction */
    const char *statements[STORE_PG_STATEMENTS_MAX]; /* prepared as "sN"; the key is the address */
    size_t n_statements;
    struct store_con *next;
};

struct store_row {
    const PGresult *result;
    int row;
};

struct store_db {
    char *keys[STORE_PG_OPTIONS_MAX + 1], *values[STORE_PG_OPTIONS_MAX + 1];
    size_t n_options;
    char *password_file;
    char where[160]; /* for messages: "postgres HOST/DATABASE" */
    pthread_mutex_t lock;
    pthread_cond_t freed; /* a connection, or the turn to write */
    struct store_con *idle;
    size_t n_open;
    bool writing;
    int64_t down_until_ms; /* nobody asks a server again that has just refused */
};

/* Reads the connection string (without "postgres:" before KEY=VALUE) and what is not given fills
 * in; connects to nothing. */
enum att_rc store_pg_options(struct store_db *db, const char *conninfo, struct att_err *err);
void store_pg_options_done(struct store_db *db);
/* A connection that is ready for a transaction. ATT_E_UNREACHABLE "storeDown"; ATT_E_UNSUPPORTED
 * for a server that is too old or does not keep UTF-8. */
enum att_rc store_pg_connect(struct store_db *db, struct store_con **ret_con, struct att_err *err);
void store_pg_con_free(struct store_con *con);
/* Waits for the answers to what was sent; the last result, or the first failure. ret_result may be
 * NULL. A server that does not answer within limit_ms, or is gone, loses the connection. */
enum att_rc store_pg_finish(struct store_con *con, const char *what, int64_t limit_ms,
                            PGresult **ret_result, struct att_err *err);
/* One or several statements without parameters, in one message. */
enum att_rc store_pg_command(struct store_con *con, const char *sql, int64_t limit_ms,
                             PGresult **ret_result, struct att_err *err);
/* The connection is lost; libpq says why. */
enum att_rc store_pg_lost(struct store_con *con, const char *what, struct att_err *err);

#endif
