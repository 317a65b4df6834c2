/* Goes by the database's catalogue instead of the list of our tables: what a later version adds is
 * copied without a word here. */
#include "provision/store/copy.h"

#include "attestd/base/hash.h"
#include "provision/store/store_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PART 100 /* rows: some are logs of 4 MiB */

struct column {
    char name[64];
    enum store_type type;
};

struct table {
    char name[64];
    struct column column[STORE_COLUMNS_MAX]; /* the first is the key */
    size_t n;
    char *first, *after, *insert; /* SQL; lives as long as the connections */
};

struct copy {
    struct store *from, *to;
    struct store_tx *tx_from, *tx_to;
    struct table *table;
    size_t n;
    struct store_copy_report *report;
};

/* ---- the catalogue
 * -------------------------------------------------------------------------------- */

/* In the order in which they were made: a table that refers to another comes after it. */
#define TABLES                                                                                     \
    "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"             \
    " AND name <> 'migrations' ORDER BY rowid"
#define COLUMNS "SELECT name, type, pk FROM pragma_table_info(?1) ORDER BY pk <> 1, cid"

static bool copy_text(char *to, size_t room, struct att_slice from)
{
    return snprintf(to, room, "%.*s", (int)from.len, from.ptr ? (const char *)from.ptr : "") <
           (int)room;
}

static enum att_rc see_table(void *user, const struct store_row *row, struct att_err *err)
{
    struct copy *c = user;
    if (c->n == STORE_COPY_TABLES ||
        !copy_text(c->table[c->n].name, sizeof c->table[0].name, c->from->ops->row_bytes(row, 0))) {
        return att_fail(err, ATT_E_LIMIT, "store: more than %d tables", STORE_COPY_TABLES);
    }
    c->n++;
    return ATT_OK;
}

struct columns {
    struct copy *copy;
    struct table *table;
    int64_t keys;
};

static enum att_rc see_column(void *user, const struct store_row *row, struct att_err *err)
{
    struct columns *c = user;
    const struct store_db_ops *ops = c->copy->from->ops;
    struct table *t = c->table;
    struct att_slice type = ops->row_bytes(row, 1);
    bool fits = t->n < STORE_COLUMNS_MAX &&
                copy_text(t->column[t->n].name, sizeof t->column[0].name, ops->row_bytes(row, 0));
    if (fits && att_slice_eq(type, ATT_SLICE_LIT("TEXT"))) {
        t->column[t->n].type = STORE_TEXT;
    } else if (fits && att_slice_eq(type, ATT_SLICE_LIT("BLOB"))) {
        t->column[t->n].type = STORE_BLOB;
    } else if (fits && att_slice_eq(type, ATT_SLICE_LIT("BIGINT"))) {
        t->column[t->n].type = STORE_INT;
    } else {
        return att_fail(err, ATT_E_UNSUPPORTED, "store: %s has a column that cannot be copied",
                        t->name);
    }
    t->n++;
    c->keys += ops->row_int(row, 2) != 0;
    return ATT_OK;
}

static char *text_of(struct att_buf *buf)
{
    size_t len = 0;
    att_buf_u8(buf, 0);
    char *text = buf->failed ? NULL : (char *)att_buf_steal(buf, &len);
    att_buf_done(buf);
    return text;
}

static char *select_sql(const struct table *t, const char *where)
{
    struct att_buf sql = {0};
    att_buf_put_str(&sql, "SELECT ");
    for (size_t i = 0; i < t->n; i++) {
        att_buf_printf(&sql, "%s%s", i ? ", " : "", t->column[i].name);
    }
    att_buf_printf(&sql, " FROM %s%s ORDER BY %s LIMIT %d", t->name, where, t->column[0].name,
                   PART);
    return text_of(&sql);
}

static char *insert_sql(const struct table *t)
{
    struct att_buf sql = {0};
    att_buf_printf(&sql, "INSERT INTO %s (", t->name);
    for (size_t i = 0; i < t->n; i++) {
        att_buf_printf(&sql, "%s%s", i ? ", " : "", t->column[i].name);
    }
    att_buf_put_str(&sql, ") VALUES (");
    for (size_t i = 0; i < t->n; i++) {
        att_buf_printf(&sql, "%s?%zu", i ? ", " : "", i + 1);
    }
    att_buf_put_str(&sql, ")");
    return text_of(&sql);
}

static enum att_rc learn_table(struct copy *c, struct table *t, struct att_err *err)
{
    char where[96];
    struct columns columns = {c, t, 0};
    const struct store_value name = STORE_VTEXT(t->name);
    enum att_rc rc = store_exec(c->tx_from, COLUMNS, &name, 1, see_column, &columns, NULL, err);
    if (rc) {
        return rc;
    }
    if (columns.keys != 1) {
        return att_fail(err, ATT_E_UNSUPPORTED, "store: %s has %lld key columns; expected one",
                        t->name, (long long)columns.keys);
    }
    snprintf(where, sizeof where, " WHERE %s > ?1", t->column[0].name);
    t->first = select_sql(t, "");
    t->after = select_sql(t, where);
    t->insert = insert_sql(t);
    return t->first && t->after && t->insert ? ATT_OK : att_fail(err, ATT_E_NOMEM, "no memory");
}

/* ---- rows
 * ------------------------------------------------------------------------------------------ */

/* The rows of one table in the order of the key: which of both is compared by bytes. */
struct reading {
    struct copy *copy;
    const struct table *table;
    struct store *store;
    bool write; /* into the new store */
    int64_t rows, seen, last_int;
    struct att_buf last;
    uint8_t digest[ATT_SHA256_LEN]; /* H(digest before ‖ row) */
};

static void digest_row(struct reading *r, const struct store_value *values)
{
    att_autobuf row = ATT_BUF_INIT((size_t)1 << 30);
    for (size_t i = 0; i < r->table->n; i++) {
        att_buf_be64(&row, values[i].type == STORE_INT ? (uint64_t)values[i].num
                                                       : (uint64_t)values[i].bytes.len);
        att_buf_put_slice(&row, values[i].bytes);
    }
    const struct att_slice parts[] = {ATT_SLICE_ARRAY(r->digest), att_buf_slice(&row)};
    uint8_t next[ATT_SHA256_LEN];
    att_sha256_v(next, parts, 2);
    memcpy(r->digest, next, sizeof next);
}

static enum att_rc read_row(void *user, const struct store_row *row, struct att_err *err)
{
    struct reading *r = user;
    const struct store_db_ops *ops = r->store->ops;
    struct store_value values[STORE_COLUMNS_MAX];
    for (size_t i = 0; i < r->table->n; i++) {
        enum store_type type = r->table->column[i].type;
        values[i] = type == STORE_INT ? STORE_VINT(ops->row_int(row, (int)i))
                                      : (struct store_value){type, 0, ops->row_bytes(row, (int)i)};
    }
    digest_row(r, values);
    r->rows++;
    r->seen++;
    r->last_int = values[0].num;
    att_buf_reset(&r->last);
    att_buf_put_slice(&r->last, values[0].bytes);
    enum att_rc rc = att_buf_ok(&r->last, err);
    return rc || !r->write ? rc
                           : store_exec(r->copy->tx_to, r->table->insert, values, r->table->n, NULL,
                                        NULL, NULL, err);
}

static enum att_rc read_table(struct reading *r, struct store_tx *tx, struct att_err *err)
{
    const struct table *t = r->table;
    enum att_rc rc = store_exec(tx, t->first, NULL, 0, read_row, r, NULL, err);
    while (!rc && r->seen == PART) {
        /* The value lies in a copy: reading goes over r->last. */
        att_autobuf key = {0};
        att_buf_put_slice(&key, att_buf_slice(&r->last));
        struct store_value after =
            t->column[0].type == STORE_INT
                ? STORE_VINT(r->last_int)
                : (struct store_value){t->column[0].type, 0, att_buf_slice(&key)};
        r->seen = 0;
        rc = att_buf_ok(&key, err);
        if (!rc) {
            rc = store_exec(tx, t->after, &after, 1, read_row, r, NULL, err);
        }
    }
    att_buf_done(&r->last);
    return rc;
}

static enum att_rc differs(const char *table, struct att_err *err)
{
    enum att_rc rc = att_fail(err, ATT_E_INTERNAL,
                              "store: what was read back of %s is not what was "
                              "written: nothing is copied",
                              table);
    att_err_reason(err, "copyDiffers");
    return rc;
}

static enum att_rc copy_table(struct copy *c, const struct table *t, struct att_err *err)
{
    struct reading there = {.copy = c, .table = t, .store = c->to};
    struct reading from = {.copy = c, .table = t, .store = c->from, .write = true};
    struct reading back = there;
    enum att_rc rc = read_table(&there, c->tx_to, err);
    if (!rc && there.rows) {
        rc = att_fail(err, ATT_E_EXISTS, "store: %s of the new store has %lld rows; expected none",
                      t->name, (long long)there.rows);
        att_err_reason(err, "storeNotEmpty");
    }
    if (!rc) {
        rc = read_table(&from, c->tx_from, err);
    }
    if (!rc) {
        rc = read_table(&back, c->tx_to, err);
    }
    if (!rc && (back.rows != from.rows || memcmp(back.digest, from.digest, sizeof back.digest))) {
        rc = differs(t->name, err);
    }
    if (rc) {
        att_err_prefix(err, "%s", t->name);
        return rc;
    }
    snprintf(c->report->table[c->report->n].name, sizeof t->name, "%s", t->name);
    c->report->table[c->report->n++].rows = from.rows;
    return ATT_OK;
}

/* ---- all of it
 * -------------------------------------------------------------------------------------- */

static enum att_rc write_all(void *user, struct store_tx *tx, struct att_err *err)
{
    struct copy *c = user;
    struct store_audit head = {0};
    c->tx_to = tx;
    c->report->n = 0;
    enum att_rc rc = ATT_OK;
    for (size_t i = 0; i < c->n && !rc; i++) {
        rc = copy_table(c, &c->table[i], err);
    }
    if (!rc) {
        rc = store_audit_head(c->tx_from, &head, err);
    }
    return rc ? rc : store_audit_verify(tx, &head, &c->report->head, err);
}

static enum att_rc read_all(void *user, struct store_tx *tx, struct att_err *err)
{
    struct copy *c = user;
    c->tx_from = tx;
    enum att_rc rc = store_exec(tx, TABLES, NULL, 0, see_table, c, NULL, err);
    for (size_t i = 0; i < c->n && !rc; i++) {
        rc = learn_table(c, &c->table[i], err);
    }
    return rc ? rc : store_run(c->to, true, write_all, c, err);
}

static enum att_rc open_both(const struct store_place *from, const struct store_place *to,
                             struct copy *c, struct att_err *err)
{
    if (store_spec_shared(from->spec)) {
        return att_fail(err, ATT_E_UNSUPPORTED, "store: only an SQLite database is copied");
    }
    enum att_rc rc = store_open_place(from, &c->from, err);
    return rc ? rc : store_open_place(to, &c->to, err);
}

enum att_rc store_copy(const struct store_place *from, const struct store_place *to,
                       struct store_copy_report *ret_report, struct att_err *err)
{
    struct store_copy_report report = {0};
    struct copy c = {.report = &report, .table = calloc(STORE_COPY_TABLES, sizeof *c.table)};
    enum att_rc rc =
        c.table ? open_both(from, to, &c, err) : att_fail(err, ATT_E_NOMEM, "store: no memory");
    if (!rc) {
        rc = store_run(c.from, false, read_all, &c, err);
    }
    store_free(c.from);
    store_free(c.to);
    for (size_t i = 0; i < c.n; i++) { /* after the connections: see exec in db.h */
        free(c.table[i].first);
        free(c.table[i].after);
        free(c.table[i].insert);
    }
    free(c.table);
    if (!rc) {
        *ret_report = report;
    }
    return rc;
}
