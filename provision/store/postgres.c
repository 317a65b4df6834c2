/* PostgreSQL, which several issuers share.
 *
 * One writer at a time in the whole database: a transaction that writes begins with an advisory
 * lock that ends with it, and runs at READ COMMITTED, so that each of its statements sees all that
 * the writers before it committed. Transactions of this store are closures over the state of a
 * request; with SERIALIZABLE they would have to be run again after a failure, which none of them
 * was written for, and nearly all of them append to the one audit chain, so that they would fail
 * against each other and not run side by side. So there is no serialization failure and no deadlock
 * to repeat. Of one issuer one writer waits for that lock, so that readers find connections.
 * Readers have a snapshot of their own (REPEATABLE READ, READ ONLY), and no lock.
 *
 * A connection that the server closed since its last use is noticed when a transaction begins, and
 * replaced; within a transaction its loss is the transaction's failure. After a COMMIT without an
 * answer nobody knows whether it stands: that is told as a failure (storeDown), and who asks again
 * finds out. */
#include "provision/store/postgres.h"

#include "attestd/base/clock.h"
#include "provision/store/dialect.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DOWN_MS 250
/* "atte", 1 */
#define TURN "SELECT pg_advisory_xact_lock(1635021925, 1)"

static const char *const begin_sql[] = {
    [STORE_READ] = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    [STORE_WRITE] = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; " TURN,
    [STORE_WRITE_SOFT] = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;"
                         "SET LOCAL synchronous_commit = off; " TURN,
};

/* ---- connections
 * ------------------------------------------------------------------------------- */

static enum att_rc busy(const struct store_db *db, const char *what, struct att_err *err)
{
    enum att_rc rc = att_fail(err, ATT_E_RETRY, "%s: no %s within %d s", db->where, what,
                              STORE_PG_TURN_MS / 1000);
    att_err_reason(err, STORE_BUSY);
    return rc;
}

/* With the lock; false when the time is over. */
static bool wait_freed(struct store_db *db, const struct timespec *until)
{
    return pthread_cond_timedwait(&db->freed, &db->lock, until) == 0;
}

static struct timespec in_time(void)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += STORE_PG_TURN_MS / 1000;
    return until;
}

static enum att_rc take_turn(struct store_db *db, struct att_err *err)
{
    struct timespec until = in_time();
    bool in = true;
    pthread_mutex_lock(&db->lock);
    while (db->writing && in) {
        in = wait_freed(db, &until);
    }
    bool mine = !db->writing;
    db->writing = true;
    pthread_mutex_unlock(&db->lock);
    return mine ? ATT_OK : busy(db, "turn to write", err);
}

static void give_turn(struct store_db *db)
{
    pthread_mutex_lock(&db->lock);
    db->writing = false;
    pthread_cond_broadcast(&db->freed);
    pthread_mutex_unlock(&db->lock);
}

static void forget(struct store_db *db)
{
    pthread_mutex_lock(&db->lock);
    db->n_open--;
    pthread_cond_broadcast(&db->freed);
    pthread_mutex_unlock(&db->lock);
}

/* A new one in a place that was counted already. */
static enum att_rc dial(struct store_db *db, struct store_con **ret_con, struct att_err *err)
{
    pthread_mutex_lock(&db->lock);
    bool down = att_boottime_ms() < db->down_until_ms;
    pthread_mutex_unlock(&db->lock);
    enum att_rc rc = ATT_OK;
    if (down) {
        rc = att_fail(err, ATT_E_UNREACHABLE, "%s: could not be reached just now", db->where);
        att_err_reason(err, "storeDown");
    } else {
        rc = store_pg_connect(db, ret_con, err);
    }
    if (rc && !down) {
        pthread_mutex_lock(&db->lock);
        db->down_until_ms = att_boottime_ms() + DOWN_MS;
        pthread_mutex_unlock(&db->lock);
    }
    if (rc) {
        forget(db);
    }
    return rc;
}

/* fresh: none that was used before. */
static enum att_rc acquire(struct store_db *db, bool fresh, struct store_con **ret_con,
                           struct att_err *err)
{
    struct timespec until = in_time();
    bool in = true;
    pthread_mutex_lock(&db->lock);
    while (!db->idle && db->n_open >= STORE_PG_CONNECTIONS_MAX && in) {
        in = wait_freed(db, &until);
    }
    struct store_con *con = db->idle;
    if (con) {
        db->idle = con->next;
    } else if (db->n_open >= STORE_PG_CONNECTIONS_MAX) {
        pthread_mutex_unlock(&db->lock);
        return busy(db, "free connection", err);
    } else {
        db->n_open++;
    }
    pthread_mutex_unlock(&db->lock);
    if (con && !fresh) {
        *ret_con = con;
        return ATT_OK;
    }
    store_pg_con_free(con);
    return dial(db, ret_con, err);
}

static void release(struct store_con *con)
{
    struct store_db *db = con->db;
    if (con->lost) {
        store_pg_con_free(con);
        forget(db);
        return;
    }
    pthread_mutex_lock(&db->lock);
    con->next = db->idle;
    db->idle = con;
    pthread_cond_broadcast(&db->freed);
    pthread_mutex_unlock(&db->lock);
}

/* ---- transactions
 * ------------------------------------------------------------------------------ */

static enum att_rc begin_on(struct store_db *db, enum store_mode mode, bool fresh,
                            struct store_con **ret_con, struct att_err *err)
{
    struct store_con *con = NULL;
    enum att_rc rc = acquire(db, fresh, &con, err);
    if (rc) {
        return rc;
    }
    con->mode = mode;
    con->aborted = false;
    rc = store_pg_command(con, begin_sql[mode], STORE_PG_STATEMENT_MS, NULL, err);
    if (rc) {
        /* Waited in vain for the turn: there is a transaction to end. */
        if (!con->lost) {
            (void)store_pg_command(con, "ROLLBACK", STORE_PG_STATEMENT_MS, NULL, NULL);
        }
        release(con);
        return rc;
    }
    *ret_con = con;
    return ATT_OK;
}

static enum att_rc pg_begin(struct store_db *db, enum store_mode mode, struct store_con **ret_con,
                            struct att_err *err)
{
    struct att_err why = {0};
    enum att_rc rc = mode == STORE_READ ? ATT_OK : take_turn(db, err);
    if (rc) {
        return rc;
    }
    rc = begin_on(db, mode, false, ret_con, &why);
    if (rc == ATT_E_UNREACHABLE) { /* nothing was done yet */
        att_err_clear(&why);
        rc = begin_on(db, mode, true, ret_con, &why);
    }
    if (rc && mode != STORE_READ) {
        give_turn(db);
    }
    if (rc && err) {
        *err = why;
    }
    return rc;
}

static void end(struct store_con *con)
{
    struct store_db *db = con->db;
    bool writer = con->mode != STORE_READ;
    release(con);
    if (writer) {
        give_turn(db);
    }
}

static void pg_rollback(struct store_con *con, const struct att_err *why)
{
    (void)why;
    if (!con->lost) {
        (void)store_pg_command(con, "ROLLBACK", STORE_PG_STATEMENT_MS, NULL, NULL);
    }
    end(con);
}

static enum att_rc given_up(const struct store_con *con, struct att_err *err)
{
    enum att_rc rc = att_fail(err, con->lost ? ATT_E_UNREACHABLE : ATT_E_IO,
                              "%s: the transaction was given up", con->db->where);
    att_err_reason(err, con->lost ? "storeDown" : "store");
    return rc;
}

static enum att_rc pg_commit(struct store_con *con, struct att_err *err)
{
    if (con->lost || con->aborted) {
        enum att_rc rc = given_up(con, err);
        pg_rollback(con, NULL);
        return rc;
    }
    PGresult *result = NULL;
    enum att_rc rc = store_pg_command(con, "COMMIT", STORE_PG_STATEMENT_MS, &result, err);
    if (!rc && strcmp(PQcmdStatus(result), "COMMIT") != 0) {
        rc = given_up(con, err);
    }
    PQclear(result);
    end(con);
    return rc;
}

/* ---- statements
 * -------------------------------------------------------------------------------- */

/* pg_type.dat */
#define OID_BYTEA 17
#define OID_INT8  20
#define OID_TEXT  25

struct bound {
    Oid types[STORE_PG_VALUES_MAX];
    const char *values[STORE_PG_VALUES_MAX];
    int lengths[STORE_PG_VALUES_MAX], formats[STORE_PG_VALUES_MAX];
    char ints[STORE_PG_VALUES_MAX][8];
};

static enum att_rc bind_values(const struct store_value *values, size_t n, struct bound *b,
                               struct att_err *err)
{
    if (n > STORE_PG_VALUES_MAX) {
        return att_fail(err, ATT_E_INTERNAL, "store: %zu values", n);
    }
    for (size_t i = 0; i < n; i++) {
        const struct store_value *v = &values[i];
        b->formats[i] = 1;
        if (v->type == STORE_INT) {
            for (unsigned k = 0; k < 8; k++) {
                b->ints[i][k] = (char)((uint64_t)v->num >> (56 - 8 * k));
            }
            b->types[i] = OID_INT8;
            b->values[i] = b->ints[i];
            b->lengths[i] = 8;
            continue;
        }
        if (v->type == STORE_TEXT && !store_dialect_text_ok(v->bytes)) {
            enum att_rc rc = att_fail(err, ATT_E_INVAL, "store: a text that is not UTF-8");
            att_err_reason(err, STORE_NOT_UTF8);
            return rc;
        }
        b->types[i] = v->type == STORE_TEXT ? OID_TEXT : OID_BYTEA;
        b->values[i] = v->bytes.ptr ? (const char *)v->bytes.ptr : "";
        b->lengths[i] = (int)v->bytes.len;
    }
    return ATT_OK;
}

/* Prepared once a connection under the address of its text; beyond the room for that each time. */
static enum att_rc prepare(struct store_con *con, const char *sql, const struct bound *b, size_t n,
                           char ret_name[16], struct att_err *err)
{
    size_t i = 0;
    while (i < con->n_statements && con->statements[i] != sql) {
        i++;
    }
    bool room = i < STORE_PG_STATEMENTS_MAX;
    ret_name[0] = 0;
    if (room) {
        snprintf(ret_name, 16, "s%zu", i);
    }
    if (i < con->n_statements) {
        return ATT_OK;
    }
    att_autobuf text = {0};
    enum att_rc rc = store_dialect_postgres(sql, false, &text, err);
    att_buf_u8(&text, 0);
    if (!rc) {
        rc = att_buf_ok(&text, err);
    }
    if (!rc) {
        rc = PQsendPrepare(con->pg, ret_name, (const char *)text.ptr, (int)n, b->types)
                 ? store_pg_finish(con, sql, STORE_PG_STATEMENT_MS, NULL, err)
                 : store_pg_lost(con, sql, err);
    }
    if (!rc && room) {
        con->statements[con->n_statements++] = sql;
    }
    return rc;
}

static enum att_rc run(struct store_con *con, const char *sql, const struct store_value *values,
                       size_t n, PGresult **ret_result, struct att_err *err)
{
    struct bound b;
    char name[16];
    enum att_rc rc = bind_values(values, n, &b, err);
    if (rc) {
        return rc; /* nothing was sent */
    }
    rc = prepare(con, sql, &b, n, name, err);
    if (!rc) {
        rc = PQsendQueryPrepared(con->pg, name, (int)n, b.values, b.lengths, b.formats, 1)
                 ? store_pg_finish(con, sql, STORE_PG_STATEMENT_MS, ret_result, err)
                 : store_pg_lost(con, sql, err);
    }
    con->aborted = con->aborted || rc;
    return rc;
}

static enum att_rc pg_exec(struct store_con *con, const char *sql, const struct store_value *values,
                           size_t n_values, store_row_fn on_row, void *user, int64_t *ret_changed,
                           struct att_err *err)
{
    if (con->lost || con->aborted) {
        return given_up(con, err);
    }
    PGresult *result = NULL;
    enum att_rc rc = run(con, sql, values, n_values, &result, err);
    if (rc) {
        return rc;
    }
    if (ret_changed) {
        *ret_changed = strtoll(PQcmdTuples(result), NULL, 10);
    }
    int n = on_row ? PQntuples(result) : 0;
    for (struct store_row row = {result, 0}; row.row < n && !rc; row.row++) {
        rc = on_row(user, &row, err);
    }
    PQclear(result);
    return rc;
}

static enum att_rc pg_script(struct store_con *con, const char *sql, struct att_err *err)
{
    if (con->lost || con->aborted) {
        return given_up(con, err);
    }
    att_autobuf text = {0};
    att_buf_put_str(&text, "SET LOCAL statement_timeout = 0;");
    enum att_rc rc = store_dialect_postgres(sql, true, &text, err);
    att_buf_u8(&text, 0);
    if (!rc) {
        rc = att_buf_ok(&text, err);
    }
    if (!rc) {
        rc = store_pg_command(con, (const char *)text.ptr, STORE_PG_SCRIPT_MS, NULL, err);
        con->aborted = rc != ATT_OK;
    }
    return rc;
}

/* ---- rows
 * ------------------------------------------------------------------------------------ */

static int64_t pg_row_int(const struct store_row *row, int column)
{
    const uint8_t *at = (const uint8_t *)PQgetvalue(row->result, row->row, column);
    int len = PQgetlength(row->result, row->row, column);
    uint64_t value = len > 0 && (at[0] & 0x80) ? UINT64_MAX : 0; /* int2, int4, int8 */
    for (int i = 0; i < len && i < 8; i++) {
        value = value << 8 | at[i];
    }
    return (int64_t)value;
}

static struct att_slice pg_row_bytes(const struct store_row *row, int column)
{
    int len = PQgetlength(row->result, row->row, column);
    return len > 0 ? ATT_SLICE(PQgetvalue(row->result, row->row, column), (size_t)len)
                   : ATT_SLICE(NULL, 0);
}

static int pg_row_columns(const struct store_row *row)
{
    return PQnfields(row->result);
}

/* ---- opening
 * --------------------------------------------------------------------------------- */

static void pg_close(struct store_db *db)
{
    if (!db) {
        return;
    }
    while (db->idle) {
        struct store_con *con = db->idle;
        db->idle = con->next;
        store_pg_con_free(con);
    }
    store_pg_options_done(db);
    pthread_cond_destroy(&db->freed);
    pthread_mutex_destroy(&db->lock);
    free(db);
}

static const struct store_db_ops ops = {
    .name = "postgres",
    .shared = true,
    .begin = pg_begin,
    .commit = pg_commit,
    .rollback = pg_rollback,
    .exec = pg_exec,
    .script = pg_script,
    .row_int = pg_row_int,
    .row_bytes = pg_row_bytes,
    .row_columns = pg_row_columns,
    .close = pg_close,
};

static struct store_db *new_db(const char *password_file)
{
    struct store_db *db = calloc(1, sizeof *db);
    if (!db) {
        return NULL;
    }
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&db->lock, NULL);
    pthread_cond_init(&db->freed, &attr);
    pthread_condattr_destroy(&attr);
    if (password_file && !(db->password_file = strdup(password_file))) {
        pg_close(db);
        return NULL;
    }
    return db;
}

enum att_rc store_postgres_open(const char *conninfo, const char *password_file,
                                struct store_db **ret_db, const struct store_db_ops **ret_ops,
                                struct att_err *err)
{
    struct store_db *db = new_db(password_file);
    if (!db) {
        return att_fail(err, ATT_E_NOMEM, "store: no memory");
    }
    struct store_con *con = NULL;
    enum att_rc rc = store_pg_options(db, conninfo, err);
    if (!rc) {
        rc = acquire(db, true, &con, err);
    }
    if (rc) {
        pg_close(db);
        return rc;
    }
    release(con);
    *ret_db = db;
    *ret_ops = &ops;
    return ATT_OK;
}
