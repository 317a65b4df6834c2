#include "provision/store/backup.h"

#include "attestd/base/io.h"
#include "provision/store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <string.h>
#include <unistd.h>

#define BUSY_TIMEOUT_MS 10000

static enum att_rc failed(sqlite3 *db, int code, const char *path, struct att_err *err)
{
    return att_fail_native(err, (code & 0xff) == SQLITE_BUSY ? ATT_E_RETRY : ATT_E_IO,
                           ATT_DOM_SQLITE, code, "backup: %s: %s", path,
                           db ? sqlite3_errmsg(db) : sqlite3_errstr(code));
}

static void close_db(sqlite3 **db)
{
    (void)sqlite3_close(*db);
}

/* One step for all of it: within a read transaction, so that no writer starts it anew. */
static enum att_rc copy_pages(sqlite3 *from, sqlite3 *to, const char *path, struct att_err *err)
{
    sqlite3_backup *backup = sqlite3_backup_init(to, "main", from, "main");
    if (!backup) {
        return failed(to, sqlite3_errcode(to), path, err);
    }
    int step = sqlite3_backup_step(backup, -1);
    int code = sqlite3_backup_finish(backup);
    return step == SQLITE_DONE && code == SQLITE_OK
               ? ATT_OK
               : failed(to, step == SQLITE_DONE ? code : step, path, err);
}

/* The first column of the first row, as a number or as text that has to be "ok". */
static enum att_rc ask(sqlite3 *db, const char *sql, const char *path, int64_t *ret_number,
                       struct att_err *err)
{
    sqlite3_stmt *stmt = NULL;
    int code = sqlite3_prepare_v2(db, sql, -1, &stmt, NULL);
    code = code == SQLITE_OK ? sqlite3_step(stmt) : code;
    enum att_rc rc = code == SQLITE_ROW ? ATT_OK : failed(db, code, path, err);
    if (!rc && ret_number) {
        *ret_number = sqlite3_column_int64(stmt, 0);
    } else if (!rc) {
        const char *text = (const char *)sqlite3_column_text(stmt, 0);
        if (!text || strcmp(text, "ok") != 0) {
            rc = att_fail(err, ATT_E_IO, "backup: %s: %.200s", path, text ? text : "no answer");
            att_err_reason(err, "storeCorrupt");
        }
    }
    sqlite3_finalize(stmt);
    return rc;
}

static enum att_rc copy(const char *from_path, const char *to_path, int64_t *ret_records,
                        struct att_err *err)
{
    ATT_CLEANUP(close_db) sqlite3 *from = NULL;
    ATT_CLEANUP(close_db) sqlite3 *to = NULL;
    int code = sqlite3_open_v2(from_path, &from, SQLITE_OPEN_READWRITE, NULL);
    if (code != SQLITE_OK) {
        return failed(from, code, from_path, err);
    }
    sqlite3_busy_timeout(from, BUSY_TIMEOUT_MS);
    code = sqlite3_open_v2(to_path, &to, SQLITE_OPEN_READWRITE, NULL);
    if (code != SQLITE_OK) {
        return failed(to, code, to_path, err);
    }
    enum att_rc rc = copy_pages(from, to, to_path, err);
    /* It has the other's mode (WAL); as one file it can be copied on. */
    if (!rc && sqlite3_exec(to, "PRAGMA journal_mode=DELETE", NULL, NULL, NULL) != SQLITE_OK) {
        rc = failed(to, sqlite3_errcode(to), to_path, err);
    }
    rc = rc ? rc : ask(to, "PRAGMA quick_check", to_path, NULL, err);
    return rc ? rc : ask(to, "SELECT COALESCE(MAX(seq), 0) FROM audit", to_path, ret_records, err);
}

enum att_rc store_backup(const char *spec, const char *to, int64_t *ret_records,
                         struct att_err *err)
{
    if (store_spec_shared(spec)) {
        return att_fail(err, ATT_E_UNSUPPORTED, "a PostgreSQL is backed up by pg_dump");
    }
    const char *path = store_sqlite_path(spec);
    if (access(path, R_OK | W_OK) != 0) {
        return att_fail_errno(err, ATT_E_NOTFOUND, "%s", path);
    }
    att_autofd fd = open(to, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return att_fail_errno(err, errno == EEXIST ? ATT_E_EXISTS : ATT_E_IO, "%s", to);
    }
    enum att_rc rc = copy(path, to, ret_records, err);
    if (!rc && fsync(fd) != 0) {
        rc = att_fail_errno(err, ATT_E_IO, "cannot sync %s", to);
    }
    if (rc) {
        (void)unlink(to);
    }
    return rc ? rc : att_io_sync_folder_of(to, err);
}
