/* A store from nothing: its SQL, its database, its end. */
#include "provision/store/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *steal_text(struct att_buf *buf)
{
    size_t len = 0;
    att_buf_u8(buf, 0);
    return buf->failed ? NULL : (char *)att_buf_steal(buf, &len);
}

static void put_columns(struct att_buf *sql, const struct store_table *t, const char *fmt)
{
    for (size_t i = 0; i < t->n_columns; i++) {
        att_buf_put_str(sql, i ? ", " : "");
        if (fmt) {
            att_buf_printf(sql, "?%zu", i + 1);
        } else {
            att_buf_put_str(sql, t->columns[i].name);
        }
    }
}

static void put_select(struct att_buf *sql, const struct store_table *t, size_t where)
{
    att_buf_put_str(sql, "SELECT ");
    put_columns(sql, t, NULL);
    att_buf_printf(sql, " FROM %s", t->name);
    if (where < t->n_columns) {
        att_buf_printf(sql, " WHERE %s = ?1", t->columns[where].name);
    }
    if (where != 0) {
        att_buf_printf(sql, " ORDER BY %s", t->columns[0].name);
    }
}

static void put_insert(struct att_buf *sql, const struct store_table *t)
{
    att_buf_printf(sql, "INSERT INTO %s (", t->name);
    put_columns(sql, t, NULL);
    att_buf_put_str(sql, ") VALUES (");
    put_columns(sql, t, "?");
    att_buf_put_str(sql, ")");
}

/* A column that is set is taken out of its indexes and put in again, even if it stays the same: so
 * the fixed ones are compared instead. */
static void put_upsert(struct att_buf *sql, const struct store_table *t)
{
    put_insert(sql, t);
    att_buf_printf(sql, " ON CONFLICT (%s) DO UPDATE SET ", t->columns[0].name);
    const char *between = "";
    for (size_t i = 1; i < t->n_columns; i++) {
        if (!t->columns[i].fixed) {
            att_buf_printf(sql, "%s%s = excluded.%s", between, t->columns[i].name,
                           t->columns[i].name);
            between = ", ";
        }
    }
    between = " WHERE ";
    for (size_t i = 1; i < t->n_columns; i++) {
        if (t->columns[i].fixed) {
            att_buf_printf(sql, "%s%s.%s = excluded.%s", between, t->name, t->columns[i].name,
                           t->columns[i].name);
            between = " AND ";
        }
    }
}

static bool make_sql(struct store_sql *sql, const struct store_table *t)
{
    struct att_buf text = {0};
    put_select(&text, t, 0);
    sql->get = steal_text(&text);
    put_select(&text, t, t->n_columns);
    sql->list = steal_text(&text);
    put_insert(&text, t);
    att_buf_put_str(&text, " ON CONFLICT DO NOTHING");
    sql->insert = steal_text(&text);
    put_upsert(&text, t);
    sql->put = steal_text(&text);
    att_buf_printf(&text, "DELETE FROM %s WHERE %s = ?1", t->name, t->columns[0].name);
    sql->remove = steal_text(&text);
    bool ok = sql->get && sql->list && sql->insert && sql->put && sql->remove;
    for (size_t i = 0; i < t->n_columns; i++) {
        put_select(&text, t, i);
        sql->where[i] = steal_text(&text);
        ok = ok && sql->where[i];
    }
    att_buf_done(&text);
    return ok;
}

/* ---- where it is
 * ------------------------------------------------------------------------------ */

static bool starts(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

bool store_spec_shared(const char *spec)
{
    return starts(spec, "postgres:") || starts(spec, "postgresql:");
}

const char *store_sqlite_path(const char *spec)
{
    return starts(spec, "sqlite:") ? spec + strlen("sqlite:") : spec;
}

bool store_shared(const struct store *store)
{
    return store->ops->shared;
}

/* "postgres:host=db dbname=x" without its first word; a URI as it is. */
static const char *conninfo_of(const char *spec)
{
    const char *rest = strchr(spec, ':') + 1;
    return starts(rest, "//") ? spec : rest;
}

static enum att_rc open_database(struct store *store, const struct store_place *place,
                                 struct att_err *err)
{
    return store_spec_shared(place->spec)
               ? store_postgres_open(conninfo_of(place->spec), place->password_file, &store->db,
                                     &store->ops, err)
               : store_sqlite_open(store_sqlite_path(place->spec), &store->db, &store->ops, err);
}

enum att_rc store_open_raw(const struct store_place *place, struct store **ret_store,
                           struct att_err *err)
{
    struct store *store = calloc(1, sizeof *store);
    enum att_rc rc = store ? ATT_OK : att_fail(err, ATT_E_NOMEM, "store: no memory");
    for (size_t i = 0; i < STORE_TABLES && !rc; i++) {
        if (!make_sql(&store->sql[i], store_tables[i])) {
            rc = att_fail(err, ATT_E_NOMEM, "store: no memory");
        }
    }
    if (!rc) {
        rc = open_database(store, place, err);
    }
    if (rc) {
        store_free(store);
        return rc;
    }
    *ret_store = store;
    return ATT_OK;
}

enum att_rc store_open_place(const struct store_place *place, struct store **ret_store,
                             struct att_err *err)
{
    struct store *store = NULL;
    enum att_rc rc = store_open_raw(place, &store, err);
    if (!rc) {
        rc = store_migrate(store, err);
        if (rc && !store_spec_shared(place->spec)) {
            att_err_prefix(err, "%s", store_sqlite_path(place->spec));
        }
    }
    if (rc) {
        store_free(store);
        return rc;
    }
    *ret_store = store;
    return ATT_OK;
}

enum att_rc store_open(const char *spec, struct store **ret_store, struct att_err *err)
{
    return store_open_place(&(struct store_place){.spec = spec}, ret_store, err);
}

/* ---- looking
 * ---------------------------------------------------------------------------------- */

/* Not opened, since SQLite writes beside it even to read: it is there and looks like one, or it
 * will be made. */
static enum att_rc check_sqlite(const char *path, struct att_err *err)
{
    static const char magic[16] = "SQLite format 3";
    char start[sizeof magic];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return errno == ENOENT ? ATT_OK : att_fail_errno(err, ATT_E_IO, "%s", path);
    }
    ssize_t n = read(fd, start, sizeof start);
    close(fd);
    if (n < 0) {
        return att_fail_errno(err, ATT_E_IO, "%s", path);
    }
    bool good = n == 0 || (n == sizeof start && memcmp(start, magic, sizeof magic) == 0);
    return good ? ATT_OK : att_fail(err, ATT_E_PARSE, "%s: is no SQLite database", path);
}

enum att_rc store_check(const struct store_place *place, struct att_err *err)
{
    return store_check_read(place, NULL, NULL, err);
}

enum att_rc store_check_read(const struct store_place *place, store_fn fn, void *user,
                             struct att_err *err)
{
    if (!store_spec_shared(place->spec)) {
        return check_sqlite(store_sqlite_path(place->spec), err);
    }
    struct store *store = NULL;
    int64_t schema = 0;
    enum att_rc rc = store_open_raw(place, &store, err);
    if (!rc) {
        rc = store_schema(store, &schema, err);
    }
    if (!rc && schema > STORE_SCHEMA_VERSION) {
        rc = att_fail(err, ATT_E_UNSUPPORTED,
                      "store: the database has schema %lld, this program knows up to %d",
                      (long long)schema, STORE_SCHEMA_VERSION);
    }
    if (!rc && fn && schema == STORE_SCHEMA_VERSION) {
        rc = store_run(store, false, fn, user, err);
    }
    store_free(store);
    return rc;
}

void store_free(struct store *store)
{
    if (!store) {
        return;
    }
    if (store->ops) {
        store->ops->close(store->db);
    }
    for (size_t i = 0; i < STORE_TABLES; i++) {
        struct store_sql *sql = &store->sql[i];
        free(sql->get);
        free(sql->insert);
        free(sql->put);
        free(sql->remove);
        free(sql->list);
        for (size_t c = 0; c < STORE_COLUMNS_MAX; c++) {
            free(sql->where[c]);
        }
    }
    free(store);
}
