/* Opening a log: its key, and what the table says against what was published. */
#include "provision/audit/log_internal.h"

#include "attestd/base/enc.h"
#include "attestd/base/io.h"
#include "provision/audit/leaf.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum att_rc audit_refuse(struct att_err *err, const char *reason, const char *fmt, ...)
{
    char text[300];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    enum att_rc rc = att_fail(err, ATT_E_AUTH, "audit log: %s", text);
    att_err_reason(err, reason);
    return rc;
}

void audit_log_guard_file(const char *state_dir, char ret[AUDIT_FILE_ROOM])
{
    snprintf(ret, AUDIT_FILE_ROOM, "%s/audit.checkpoint", state_dir);
}

void audit_log_checkpoint_file(const char *state_dir, char ret[AUDIT_FILE_ROOM])
{
    snprintf(ret, AUDIT_FILE_ROOM, "%s/audit-log/checkpoint", state_dir);
}

enum att_rc audit_log_sign(const struct audit_log *log, struct audit_checkpoint *c,
                           struct att_buf *ret_note, struct att_err *err)
{
    att_autobuf text = {0};
    snprintf(c->origin, sizeof c->origin, "%s", log->key.vkey.name);
    audit_checkpoint_text(c, &text);
    att_buf_put_slice(ret_note, att_buf_slice(&text));
    att_buf_u8(ret_note, '\n');
    enum att_rc rc =
        audit_note_sign(att_buf_slice(&text), &log->key.vkey, log->key.key, ret_note, err);
    return rc || !log->before.key ? rc
                                  : audit_note_sign(att_buf_slice(&text), &log->before.vkey,
                                                    log->before.key, ret_note, err);
}

enum att_rc audit_log_read_signed(const struct audit_log *log, const char *file,
                                  struct audit_checkpoint *ret_checkpoint, struct att_buf *note,
                                  struct att_err *err)
{
    att_autobuf bytes = ATT_BUF_INIT(AUDIT_NOTE_MAX);
    struct audit_note parsed;
    struct audit_checkpoint c;
    enum att_rc rc = att_io_read_file(file, AUDIT_NOTE_MAX, &bytes, err);
    if (!rc) {
        rc = audit_note_parse(att_buf_slice(&bytes), &parsed, err);
    }
    if (!rc && (!log->before.key || audit_note_verify(&parsed, &log->before.vkey, NULL))) {
        rc = audit_note_verify(&parsed, &log->key.vkey, err);
    }
    if (!rc) {
        rc = audit_checkpoint_parse(parsed.text, &c, err);
    }
    if (!rc && strcmp(c.origin, log->key.vkey.name) != 0) {
        rc = att_fail(err, ATT_E_AUTH, "is of the log %s", c.origin);
    }
    if (rc) {
        att_err_prefix(err, "%s", file);
        return rc;
    }
    if (note) {
        att_buf_put_slice(note, att_buf_slice(&bytes));
    }
    *ret_checkpoint = c;
    return ATT_OK;
}

/* ---- the key
 * ------------------------------------------------------------------------------------ */

/* Of an empty log: nothing was published. */
static enum att_rc first_guard(struct audit_log *log, struct att_err *err)
{
    char guard[AUDIT_FILE_ROOM];
    att_autobuf note = {0};
    struct audit_tree none = {0};
    struct audit_checkpoint c = {.root = audit_tree_root(&none)};
    audit_log_guard_file(log->state_dir, guard);
    enum att_rc rc = audit_log_sign(log, &c, &note, err);
    return rc ? rc : att_io_write_file(guard, att_buf_slice(&note), 0600, err);
}

/* The guard stands before the key does: a log with a key and without a guard lost it. One of an
 * empty log, without a key, is of a start that ended in between. */
static enum att_rc make_key(struct audit_log *log, const char *origin, struct att_err *err)
{
    char guard[AUDIT_FILE_ROOM];
    att_autobuf bytes = ATT_BUF_INIT(AUDIT_NOTE_MAX);
    struct audit_note parsed;
    struct audit_checkpoint c;
    audit_log_guard_file(log->state_dir, guard);
    enum att_rc rc = att_io_read_file(guard, AUDIT_NOTE_MAX, &bytes, NULL);
    bool published = rc == ATT_OK && (audit_note_parse(att_buf_slice(&bytes), &parsed, NULL) ||
                                      audit_checkpoint_parse(parsed.text, &c, NULL) || c.size > 0);
    if (published || (rc && rc != ATT_E_NOTFOUND)) {
        return audit_refuse(err, "logKey",
                            "%s is there and ca/log.key is not: put the key back, or begin a new "
                            "log (docs/OPERATIONS.md)",
                            guard);
    }
    rc = audit_key_new(origin, &log->key, err);
    if (!rc) {
        rc = first_guard(log, err);
    }
    return rc ? rc : audit_key_save(log->state_dir, &log->key, err);
}

/* A rotation keeps the log's name, and its guard, which the key before has signed. */
static enum att_rc rotate_key(struct audit_log *log, struct att_err *err)
{
    enum att_rc rc = audit_key_new(log->before.vkey.name, &log->key, err);
    return rc ? rc : audit_key_save(log->state_dir, &log->key, err);
}

static enum att_rc load_keys(struct audit_log *log, const char *origin, struct att_err *err)
{
    enum att_rc rc = audit_key_load(log->state_dir, "log.before", &log->before, NULL);
    if (rc && rc != ATT_E_NOTFOUND) {
        return audit_key_load(log->state_dir, "log.before", &log->before, err);
    }
    struct att_err why = {0};
    rc = audit_key_load(log->state_dir, "log", &log->key, &why);
    if (rc == ATT_E_NOTFOUND) {
        return log->before.key ? rotate_key(log, err) : make_key(log, origin, err);
    }
    if (rc && err) {
        *err = why;
    }
    if (!rc && log->before.key && strcmp(log->before.vkey.name, log->key.vkey.name) != 0) {
        rc = att_fail(err, ATT_E_CONFLICT, "ca/log.before.key is of another log than ca/log.key");
    }
    return rc;
}

static enum att_rc new_log(const char *state_dir, const char *origin, struct audit_log **ret_log,
                           struct att_err *err)
{
    struct audit_log *log = calloc(1, sizeof *log);
    enum att_rc rc = log ? ATT_OK : att_fail(err, ATT_E_NOMEM, "audit log: no memory");
    if (!rc) {
        log->work = calloc(1, sizeof *log->work);
        rc = log->work ? ATT_OK : att_fail(err, ATT_E_NOMEM, "audit log: no memory");
    }
    if (!rc && (size_t)snprintf(log->state_dir, sizeof log->state_dir, "%s", state_dir) >=
                   sizeof log->state_dir) {
        rc = att_fail(err, ATT_E_LIMIT, "%s: too long a path", state_dir);
    }
    if (!rc) {
        snprintf(log->dir, sizeof log->dir, "%s/audit-log", log->state_dir);
        rc = load_keys(log, origin, err);
    }
    if (rc) {
        audit_log_free(log);
        return rc;
    }
    *ret_log = log;
    return ATT_OK;
}

void audit_log_free(struct audit_log *log)
{
    if (log) {
        audit_key_done(&log->key);
        audit_key_done(&log->before);
        free(log->work);
        free(log);
    }
}

enum att_rc audit_log_make_key(const char *state_dir, const char *origin, struct att_err *err)
{
    struct audit_log *log = NULL;
    enum att_rc rc = new_log(state_dir, origin, &log, err);
    audit_log_free(log);
    return rc;
}

/* ---- the table against what was published
 * ------------------------------------------------------ */

struct replay {
    const struct audit_checkpoint *guard, *published;
    struct audit_tree tree, at_published;
    struct att_err *err;
};

static enum att_rc compare(const struct audit_checkpoint *c, const struct audit_tree *tree,
                           struct att_err *err)
{
    struct audit_hash root = audit_tree_root(tree);
    if (c->size != tree->size || memcmp(&root, &c->root, sizeof root) == 0) {
        return ATT_OK;
    }
    return audit_refuse(err, "logForked",
                        "the first %llu records are not those that the checkpoint of that size "
                        "was published for",
                        (unsigned long long)c->size);
}

static enum att_rc replay_leaf(void *user, const struct store_leaf *leaf, struct att_err *err)
{
    struct replay *r = user;
    if (leaf->seq != (int64_t)r->tree.size + 1) {
        return audit_refuse(err, "logTruncated", "leaf %llu is not in the database",
                            (unsigned long long)r->tree.size + 1);
    }
    struct audit_hash hash = audit_tree_leaf(leaf->leaf);
    enum att_rc rc = audit_tree_append(&r->tree, &hash, NULL, NULL, err);
    if (!rc) {
        rc = compare(r->guard, &r->tree, err);
    }
    if (!rc) {
        rc = compare(r->published, &r->tree, err);
    }
    if (!rc && r->tree.size == r->published->size) {
        r->at_published = r->tree;
    }
    return rc;
}

struct last {
    struct store_audit head;
    struct store_leaf leaf;
    bool fits;
};

static enum att_rc fits_leaf(void *user, const struct store_audit *a, struct att_err *err)
{
    struct last *l = user;
    (void)err;
    l->fits =
        a->record[0] == 0 || audit_leaf_is(l->leaf.leaf, a->seq, a->at, a->record, l->leaf.salt);
    return ATT_OK;
}

struct kept {
    struct att_buf salt, leaf;
};

static enum att_rc keep_leaf(void *user, const struct store_leaf *leaf, struct att_err *err)
{
    struct kept *k = user;
    att_buf_put_slice(&k->salt, leaf->salt);
    att_buf_put_slice(&k->leaf, leaf->leaf);
    return att_buf_ok(&k->leaf, err);
}

/* Records that were taken back and decided anew would hide behind the leaves of the old ones. */
static enum att_rc check_newest(struct store_tx *tx, int64_t leaves, struct att_err *err)
{
    struct last l = {0};
    struct kept k = {{0}, {0}};
    enum att_rc rc = store_audit_head(tx, &l.head, err);
    if (!rc && l.head.seq < leaves) {
        return audit_refuse(err, "logRolledBack",
                            "the database has %lld records, and leaves of %lld: it is older than "
                            "the log",
                            (long long)l.head.seq, (long long)leaves);
    }
    if (!rc && leaves > 0) {
        rc = store_leaf_each(tx, leaves, 1, keep_leaf, &k, err);
        l.leaf = (struct store_leaf){leaves, att_buf_slice(&k.salt), att_buf_slice(&k.leaf)};
        rc = rc ? rc : store_audit_each(tx, leaves, 1, fits_leaf, &l, err);
        rc = rc || l.fits ? rc
                          : audit_refuse(err, "logForked",
                                         "record %lld is another than its leaf was made of",
                                         (long long)leaves);
    }
    att_buf_done(&k.salt);
    att_buf_done(&k.leaf);
    return rc;
}

static enum att_rc replay_tx(void *user, struct store_tx *tx, struct att_err *err)
{
    struct replay *r = user;
    r->tree = r->at_published = (struct audit_tree){0};
    enum att_rc rc = store_leaf_each(tx, 1, 0, replay_leaf, r, err);
    uint64_t most = r->guard->size > r->published->size ? r->guard->size : r->published->size;
    if (!rc && r->tree.size < most) {
        rc = audit_refuse(err, "logRolledBack",
                          "the database has %llu leaves, %llu were published: it is older than the "
                          "log",
                          (unsigned long long)r->tree.size, (unsigned long long)most);
    }
    return rc ? rc : check_newest(tx, (int64_t)r->tree.size, err);
}

/* Neither guard nor published files: what one of them misses, the other one has. */
static bool is_new(const struct audit_log *log)
{
    char guard[AUDIT_FILE_ROOM];
    audit_log_guard_file(log->state_dir, guard);
    return access(guard, F_OK) && errno == ENOENT && access(log->dir, F_OK) && errno == ENOENT;
}

static enum att_rc read_guard(const struct audit_log *log, struct audit_checkpoint *ret_guard,
                              struct att_err *err)
{
    char file[AUDIT_FILE_ROOM];
    struct att_err why = {0};
    audit_log_guard_file(log->state_dir, file);
    enum att_rc rc = audit_log_read_signed(log, file, ret_guard, NULL, &why);
    return rc ? audit_refuse(err, "logGuard",
                             "%s: with it nobody sees a rolled-back database (docs/OPERATIONS.md)",
                             why.msg)
              : ATT_OK;
}

static enum att_rc read_head(void *user, struct store_tx *tx, struct att_err *err)
{
    return store_audit_head(tx, user, err);
}

/* Who joins others has their key: one of its own would be a second log over the same records. */
static enum att_rc check_joins(const char *state_dir, struct store *store, struct att_err *err)
{
    struct audit_key key = {0};
    struct store_audit head = {0};
    enum att_rc rc = audit_key_load(state_dir, "log", &key, NULL);
    audit_key_done(&key);
    if (rc != ATT_E_NOTFOUND) {
        return ATT_OK; /* what is wrong with it is said when it is used */
    }
    rc = store_run(store, false, read_head, &head, err);
    return rc || head.seq == 0
               ? rc
               : audit_refuse(err, "logKey",
                              "the database has records of another issuer, and %s/ca/log.key is "
                              "not there: copy log.key and log.vkey from the ca/ of one that runs",
                              state_dir);
}

/* The lines of others (a TPM's) hold further on: what they signed stays the same. */
static enum att_rc sign_file_anew(const struct audit_log *log, const char *file, mode_t mode,
                                  struct att_err *err)
{
    att_autobuf old = ATT_BUF_INIT(AUDIT_NOTE_MAX), note = {0};
    struct audit_checkpoint c;
    struct audit_note parsed;
    enum att_rc rc = audit_log_read_signed(log, file, &c, &old, err);
    rc = rc ? rc : audit_note_parse(att_buf_slice(&old), &parsed, err);
    rc = rc ? rc : audit_log_sign(log, &c, &note, err);
    for (size_t i = 0; !rc && i < parsed.n; i++) {
        att_autobuf sig = ATT_BUF_INIT(AUDIT_NOTE_MAX);
        if (parsed.sig[i].id == log->key.vkey.id || parsed.sig[i].id == log->before.vkey.id ||
            !att_slice_eq_str(parsed.sig[i].name, c.origin)) {
            continue;
        }
        rc = att_unb64(&sig, parsed.sig[i].base64, err);
        if (!rc) {
            audit_note_line(c.origin, parsed.sig[i].id, ATT_SLICE(sig.ptr + 4, sig.len - 4), &note);
            rc = att_buf_ok(&note, err);
        }
    }
    return rc ? rc : att_io_write_file(file, att_buf_slice(&note), mode, err);
}

/* Through a rotation: once the key before is gone, the new one has signed what stands. */
static enum att_rc sign_anew(const struct audit_log *log, bool published, struct att_err *err)
{
    char file[AUDIT_FILE_ROOM];
    audit_log_guard_file(log->state_dir, file);
    enum att_rc rc = sign_file_anew(log, file, 0600, err);
    if (rc || !published) {
        return rc;
    }
    audit_log_checkpoint_file(log->state_dir, file);
    return sign_file_anew(log, file, 0644, err);
}

enum att_rc audit_log_open(const char *state_dir, const char *origin, bool joins,
                           struct store *store, struct audit_log **ret_log, struct att_err *err)
{
    struct audit_checkpoint guard = {0}, published = {0};
    struct audit_log *log = NULL;
    char file[AUDIT_FILE_ROOM];
    struct replay *r = calloc(1, sizeof *r);
    enum att_rc rc = r ? ATT_OK : att_fail(err, ATT_E_NOMEM, "audit log: no memory");
    if (!rc && joins) {
        rc = check_joins(state_dir, store, err);
    }
    if (!rc) {
        rc = new_log(state_dir, origin, &log, err);
    }
    if (!rc && joins && is_new(log)) {
        rc = first_guard(log, err);
    }
    if (!rc) {
        rc = read_guard(log, &guard, err);
    }
    if (!rc) {
        /* A folder that is gone or not ours is published anew; the guard has the say. */
        audit_log_checkpoint_file(state_dir, file);
        if (audit_log_read_signed(log, file, &published, NULL, NULL)) {
            published = (struct audit_checkpoint){.root = audit_tree_root(&r->tree)};
        }
        r->guard = &guard;
        r->published = &published;
        rc = store_run(store, false, replay_tx, r, err);
    }
    if (!rc && log->before.key) {
        rc = sign_anew(log, published.size > 0, err);
    }
    if (!rc) {
        log->tree = r->at_published;
        log->quiet_until = r->tree.size;
        *ret_log = log;
        log = NULL;
    }
    audit_log_free(log);
    free(r);
    return rc;
}

uint64_t audit_log_size(const struct audit_log *log)
{
    return log->tree.size;
}

const struct audit_vkey *audit_log_vkey(const struct audit_log *log)
{
    return &log->key.vkey;
}
