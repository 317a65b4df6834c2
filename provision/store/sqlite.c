#include "provision/store/sqlite.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUSY_TIMEOUT_MS 10000
#define IDLE_MAX        16

enum att_rc store_sqlite_fail(struct store_con *con, int code, const char *what,
                              struct att_err *err)
{
    int extended = con->sqlite ? sqlite3_extended_errcode(con->sqlite) : code;
    const char *text = con->sqlite ? sqlite3_errmsg(con->sqlite) : sqlite3_errstr(code);
    enum att_rc rc = ATT_E_IO;
    const char *reason = "store";
    switch (code & 0xff) {
    case SQLITE_FULL:
        reason = "diskFull";
        break;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        rc = ATT_E_RETRY;
        reason = "storeBusy";
        break;
    case SQLITE_NOMEM:
        rc = ATT_E_NOMEM;
        break;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        reason = "storeCorrupt";
        break;
    case SQLITE_CONSTRAINT:
        rc = extended == SQLITE_CONSTRAINT_PRIMARYKEY || extended == SQLITE_CONSTRAINT_UNIQUE ||
                     extended == SQLITE_CONSTRAINT_ROWID
                 ? ATT_E_EXISTS
                 : ATT_E_CONFLICT;
        reason = rc == ATT_E_EXISTS ? "exists" : "conflict";
        break;
    default:
        break;
    }
    rc = att_fail_native(err, rc, ATT_DOM_SQLITE, extended, "store %s: %s: %s", con->db->path, what,
                         text);
    att_err_reason(err, reason);
    return rc;
}

void store_sqlite_con_free(struct store_con *con)
{
    if (!con) {
        return;
    }
    for (size_t i = 0; i < con->n_statements; i++) {
        sqlite3_finalize(con->statements[i].stmt);
    }
    sqlite3_close(con->sqlite);
    free(con);
}

/* The database holds MAC keys of tickets: nobody else may read it. SQLite gives its -wal and -shm
 * files the mode of the main file. */
static enum att_rc touch_private(const char *path, struct att_err *err)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return att_fail_errno(err, ATT_E_IO, "store %s: cannot be opened", path);
    }
    struct stat st;
    bool ok = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
              ((st.st_mode & 077) == 0 || fchmod(fd, 0600) == 0);
    close(fd);
    return ok ? ATT_OK : att_fail(err, ATT_E_IO, "store %s: not a private regular file", path);
}

enum att_rc store_sqlite_con_open(struct store_db *db, struct store_con **ret_con,
                                  struct att_err *err)
{
    struct store_con *con = calloc(1, sizeof *con);
    if (!con) {
        return att_fail(err, ATT_E_NOMEM, "store: no memory for a connection");
    }
    con->db = db;
    int code = sqlite3_open_v2(db->path, &con->sqlite,
                               SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX |
                                   SQLITE_OPEN_PRIVATECACHE,
                               NULL);
    if (code == SQLITE_OK) {
        sqlite3_busy_timeout(con->sqlite, BUSY_TIMEOUT_MS);
        sqlite3_extended_result_codes(con->sqlite, 1);
        code = sqlite3_exec(con->sqlite,
                            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
                            "PRAGMA foreign_keys=ON; PRAGMA trusted_schema=OFF;"
                            "PRAGMA wal_autocheckpoint=0;"
                            "PRAGMA temp_store=MEMORY;",
                            NULL, NULL, NULL);
    }
    if (code != SQLITE_OK) {
        enum att_rc rc = store_sqlite_fail(con, code, "opening", err);
        store_sqlite_con_free(con);
        return rc;
    }
    *ret_con = con;
    return ATT_OK;
}

static enum att_rc acquire(struct store_db *db, struct store_con **ret_con, struct att_err *err)
{
    pthread_mutex_lock(&db->lock);
    struct store_con *con = db->idle;
    if (con) {
        db->idle = con->next;
        db->n_idle--;
    }
    pthread_mutex_unlock(&db->lock);
    if (con) {
        *ret_con = con;
        return ATT_OK;
    }
    return store_sqlite_con_open(db, ret_con, err);
}

static void release(struct store_db *db, struct store_con *con)
{
    pthread_mutex_lock(&db->lock);
    bool keep = db->n_idle < IDLE_MAX;
    if (keep) {
        con->next = db->idle;
        db->idle = con;
        db->n_idle++;
    }
    pthread_mutex_unlock(&db->lock);
    if (!keep) {
        store_sqlite_con_free(con);
    }
}

static enum att_rc prepare(struct store_con *con, const char *sql, sqlite3_stmt **ret_stmt,
                           struct store_statement **ret_cached, struct att_err *err)
{
    struct store_statement *slot = NULL;
    for (size_t i = 0; i < con->n_statements; i++) {
        if (con->statements[i].sql == sql) {
            slot = &con->statements[i];
            break;
        }
    }
    if (slot && !slot->busy) {
        slot->busy = true;
        *ret_stmt = slot->stmt;
        *ret_cached = slot;
        return ATT_OK;
    }
    sqlite3_stmt *stmt = NULL;
    int code = sqlite3_prepare_v3(con->sqlite, sql, -1, SQLITE_PREPARE_PERSISTENT, &stmt, NULL);
    if (code != SQLITE_OK) {
        return store_sqlite_fail(con, code, sql, err);
    }
    *ret_stmt = stmt;
    *ret_cached = NULL;
    /* A nested run of a statement that is in use gets one of its own, not cached. */
    if (!slot && con->n_statements < STORE_STATEMENTS_MAX) {
        slot = &con->statements[con->n_statements++];
        *slot = (struct store_statement){.sql = sql, .stmt = stmt, .busy = true};
        *ret_cached = slot;
    }
    return ATT_OK;
}

static int bind_values(sqlite3_stmt *stmt, const struct store_value *values, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int at = (int)i + 1, code;
        const struct store_value *v = &values[i];
        const void *bytes = v->bytes.ptr ? (const void *)v->bytes.ptr : "";
        if (v->type == STORE_INT) {
            code = sqlite3_bind_int64(stmt, at, v->num);
        } else if (v->type == STORE_TEXT) {
            code = sqlite3_bind_text64(stmt, at, bytes, v->bytes.len, SQLITE_STATIC, SQLITE_UTF8);
        } else {
            code = sqlite3_bind_blob64(stmt, at, bytes, v->bytes.len, SQLITE_STATIC);
        }
        if (code != SQLITE_OK) {
            return code;
        }
    }
    return SQLITE_OK;
}

static enum att_rc step_all(struct store_con *con, sqlite3_stmt *stmt, const char *sql,
                            store_row_fn on_row, void *user, struct att_err *err)
{
    for (;;) {
        int code = sqlite3_step(stmt);
        if (code == SQLITE_DONE) {
            return ATT_OK;
        }
        if (code != SQLITE_ROW) {
            return store_sqlite_fail(con, code, sql, err);
        }
        struct store_row row = {.stmt = stmt};
        enum att_rc rc = on_row ? on_row(user, &row, err) : ATT_OK;
        if (rc) {
            return rc;
        }
    }
}

enum att_rc store_sqlite_run(struct store_con *con, const char *sql,
                             const struct store_value *values, size_t n_values, store_row_fn on_row,
                             void *user, int64_t *ret_changed, struct att_err *err)
{
    sqlite3_stmt *stmt = NULL;
    struct store_statement *cached = NULL;
    enum att_rc rc = prepare(con, sql, &stmt, &cached, err);
    if (rc) {
        return rc;
    }
    int code = bind_values(stmt, values, n_values);
    rc = code == SQLITE_OK ? step_all(con, stmt, sql, on_row, user, err)
                           : store_sqlite_fail(con, code, sql, err);
    if (!rc && ret_changed) {
        *ret_changed = sqlite3_changes64(con->sqlite);
    }
    if (cached) {
        sqlite3_reset(stmt);
        sqlite3_clear_bindings(stmt);
        cached->busy = false;
    } else {
        sqlite3_finalize(stmt);
    }
    return rc;
}

/* After an error of disk or memory SQLite may have rolled back by itself, in a read, too; a caller
 * that took no notice would have its next statement committed by itself. */
static enum att_rc within(struct store_con *con, struct att_err *err)
{
    if (!sqlite3_get_autocommit(con->sqlite)) {
        return ATT_OK;
    }
    enum att_rc rc =
        att_fail(err, ATT_E_IO, "store %s: the transaction was given up", con->db->path);
    att_err_reason(err, "store");
    return rc;
}

static enum att_rc sqlite_exec(struct store_con *con, const char *sql,
                               const struct store_value *values, size_t n_values,
                               store_row_fn on_row, void *user, int64_t *ret_changed,
                               struct att_err *err)
{
    enum att_rc rc = within(con, err);
    return rc ? rc : store_sqlite_run(con, sql, values, n_values, on_row, user, ret_changed, err);
}

static enum att_rc sqlite_script(struct store_con *con, const char *sql, struct att_err *err)
{
    enum att_rc rc = within(con, err);
    if (rc) {
        return rc;
    }
    int code = sqlite3_exec(con->sqlite, sql, NULL, NULL, NULL);
    return code == SQLITE_OK ? ATT_OK : store_sqlite_fail(con, code, "script", err);
}

static enum att_rc sqlite_begin(struct store_db *db, enum store_mode mode,
                                struct store_con **ret_con, struct att_err *err)
{
    if (mode != STORE_READ) {
        return store_batch_enter(db, mode, ret_con, err);
    }
    struct store_con *con = NULL;
    enum att_rc rc = acquire(db, &con, err);
    if (!rc) {
        rc = store_sqlite_run(con, "BEGIN", NULL, 0, NULL, NULL, NULL, err);
        if (rc) {
            release(db, con);
        }
    }
    if (!rc) {
        *ret_con = con;
    }
    return rc;
}

void store_sqlite_rollback(struct store_con *con)
{
    /* A failed write may have rolled back by itself; there is then nothing to end. */
    if (!sqlite3_get_autocommit(con->sqlite)) {
        sqlite3_exec(con->sqlite, "ROLLBACK", NULL, NULL, NULL);
    }
}

static void sqlite_rollback(struct store_con *con, const struct att_err *why)
{
    if (con == con->db->writer.con) {
        store_batch_undo(con->db, why);
        return;
    }
    store_sqlite_rollback(con);
    release(con->db, con);
}

static enum att_rc sqlite_commit(struct store_con *con, struct att_err *err)
{
    if (con == con->db->writer.con) {
        return store_batch_leave(con->db, err);
    }
    enum att_rc rc = store_sqlite_run(con, "COMMIT", NULL, 0, NULL, NULL, NULL, err);
    if (rc) {
        store_sqlite_rollback(con);
    }
    release(con->db, con);
    return rc;
}

static int64_t sqlite_row_int(const struct store_row *row, int column)
{
    return sqlite3_column_int64(row->stmt, column);
}

static struct att_slice sqlite_row_bytes(const struct store_row *row, int column)
{
    const void *bytes = sqlite3_column_type(row->stmt, column) == SQLITE_TEXT
                            ? (const void *)sqlite3_column_text(row->stmt, column)
                            : sqlite3_column_blob(row->stmt, column);
    int len = sqlite3_column_bytes(row->stmt, column);
    return bytes && len > 0 ? ATT_SLICE(bytes, (size_t)len) : ATT_SLICE(NULL, 0);
}

static int sqlite_row_columns(const struct store_row *row)
{
    return sqlite3_column_count(row->stmt);
}

static void sqlite_close(struct store_db *db)
{
    if (!db) {
        return;
    }
    store_batch_done(db);
    while (db->idle) {
        struct store_con *con = db->idle;
        db->idle = con->next;
        store_sqlite_con_free(con);
    }
    pthread_mutex_destroy(&db->lock);
    free(db->path);
    free(db);
}

static const struct store_db_ops ops = {
    .name = "sqlite",
    .begin = sqlite_begin,
    .commit = sqlite_commit,
    .rollback = sqlite_rollback,
    .exec = sqlite_exec,
    .script = sqlite_script,
    .row_int = sqlite_row_int,
    .row_bytes = sqlite_row_bytes,
    .row_columns = sqlite_row_columns,
    .close = sqlite_close,
};

enum att_rc store_sqlite_open(const char *path, struct store_db **ret_db,
                              const struct store_db_ops **ret_ops, struct att_err *err)
{
    enum att_rc rc = touch_private(path, err);
    if (rc) {
        return rc;
    }
    struct store_db *db = calloc(1, sizeof *db);
    if (db) {
        db->path = strdup(path);
    }
    if (!db || !db->path) {
        free(db);
        return att_fail(err, ATT_E_NOMEM, "store %s: no memory", path);
    }
    pthread_mutex_init(&db->lock, NULL);
    rc = store_batch_init(db, err);
    if (rc) {
        sqlite_close(db);
        return rc;
    }
    *ret_db = db;
    *ret_ops = &ops;
    return ATT_OK;
}
