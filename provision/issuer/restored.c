/* A folder that `attest-issuerd backup` made, put back. What was withdrawn since the backup is not
 * in it: a key for tokens that was stolen and withdrawn would be published and sign again. So the
 * keys from before the backup are withdrawn, before anybody is answered, and the next one is made.
 * Where the database is in use by other issuers it was not put back, and says itself what holds. */
#include "provision/issuer/jwt_internal.h"

#include "attestd/base/io.h"
#include "provision/issuer/generations.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MARK_MAX ((size_t)4096)

struct restored {
    struct issuer *issuer;
    const char *name; /* this issuer's, in the store */
    int64_t made_at, now;
    bool in_use;
    size_t n;
    struct jwt_rows gone;
};

static enum att_rc read_mark(const char *path, int64_t *ret_made_at, struct att_err *err)
{
    att_autobuf text = {0};
    att_autojson *json = NULL;
    const char *at = NULL;
    enum att_rc rc = att_io_read_file(path, MARK_MAX, &text, err);
    if (rc == ATT_E_NOTFOUND) {
        return rc;
    }
    rc = rc ? rc : att_json_parse(att_buf_slice(&text), MARK_MAX, &json, err);
    if (!rc && json_integer_value(json_object_get(json, "version")) != 1) {
        rc = att_fail(err, ATT_E_PARSE, "expected {\"version\": 1, \"madeAt\": …}");
    }
    rc = rc ? rc : att_json_str(json, "madeAt", &at, err);
    rc = rc ? rc : att_time_parse(at, ret_made_at, err);
    if (rc) {
        att_err_prefix(err, "%s (written by `attest-issuerd backup`)", path);
        att_err_reason(err, "backupMark");
    }
    return rc;
}

static enum att_rc withdraw_one(struct restored *r, struct store_tx *tx,
                                const struct store_jwt_key *row, struct att_err *err)
{
    json_t *record = issuer_record("jwtKey", "removed", "restored", NULL, row->kid);
    json_object_set_new(record, "activeAt", issuer_time_json(row->active_at));
    json_object_set_new(record, "backupOf", issuer_time_json(r->made_at));
    enum att_rc rc = issuer_audit(tx, r->now, record, NULL, err);
    r->n++;
    return rc ? rc : store_delete(tx, &store_jwt_keys, row->kid, err);
}

static enum att_rc withdraw(void *user, struct store_tx *tx, struct att_err *err)
{
    struct restored *r = user;
    struct jwt_rows *rows = &r->gone;
    struct jwt_others others = {.now = r->now, .self = r->issuer->ca->self, .name = r->name};
    r->n = 0;
    jwt_rows_done(rows);
    enum att_rc rc =
        store_shared(r->issuer->store) ? jwt_others_read(tx, "", &others, err) : ATT_OK;
    r->in_use = others.there;
    if (rc || r->in_use) {
        return rc;
    }
    rc = jwt_rows_read(tx, rows, err);
    for (size_t i = 0; i < rows->n && !rc; i++) {
        if (rows->v[i].created_at <= r->made_at) {
            rc = withdraw_one(r, tx, &rows->v[i], err);
        }
    }
    return rc || !r->n ? rc : issuer_view_bump(tx, err);
}

enum att_rc issuer_restored(struct issuer *issuer, struct att_err *err)
{
    issuer_autofree *path = NULL;
    issuer_autofree *name = issuer_self_name(issuer);
    struct restored r = {.issuer = issuer, .name = name, .now = issuer->clock()};
    if (!name || asprintf(&path, "%s/" ISSUER_BACKUP_FILE, issuer->state_dir) < 0) {
        path = NULL;
        return att_fail(err, ATT_E_NOMEM, "restored: no memory");
    }
    bool none = access(path, F_OK) && errno == ENOENT; /* all else might hide one: read_mark says */
    enum att_rc rc = none ? ATT_E_NOTFOUND : read_mark(path, &r.made_at, err);
    if (rc) {
        return rc == ATT_E_NOTFOUND ? ATT_OK : rc;
    }
    rc = store_run(issuer->store, true, withdraw, &r, err);
    for (size_t i = 0; !rc && i < r.gone.n; i++) {
        if (r.gone.v[i].created_at <= r.made_at) {
            jwt_file_remove(issuer, r.gone.v[i].keyref);
        }
    }
    jwt_rows_done(&r.gone);
    if (rc) {
        return rc;
    }
    att_log(ATT_WARN, "issuer.restored", ATT_N("keysWithdrawn", r.n),
            ATT_S("message", r.in_use ? "other issuers use the database: it holds"
                                      : "keys for tokens from before the backup are withdrawn"));
    return unlink(path) ? att_fail_errno(err, ATT_E_IO, "%s", path) : ATT_OK;
}
