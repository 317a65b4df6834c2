/* From records to files. */
#include "provision/audit/log_internal.h"

#include "attestd/base/clock.h"
#include "attestd/base/io.h"
#include "provision/audit/leaf.h"

#include <stdlib.h>
#include <string.h>

/* ---- leaves of new records
 * ---------------------------------------------------------------------- */

/* Leaves that were made and not inserted yet: SQL is not run while rows are read. */
struct fresh {
    int64_t first, n, head;
    uint8_t (*salts)[AUDIT_SALT_LEN];
    struct att_buf bundle;
};

static enum att_rc make_leaf(void *user, const struct store_audit *a, struct att_err *err)
{
    struct fresh *f = user;
    att_autobuf leaf = ATT_BUF_INIT(AUDIT_ENTRY_MAX);
    if (a->seq != f->first + f->n) {
        enum att_rc rc = att_fail(err, ATT_E_AUTH, "audit record %lld: is not there",
                                  (long long)(f->first + f->n));
        att_err_reason(err, "auditMissing");
        return rc;
    }
    uint8_t *salt = f->salts[f->n];
    enum att_rc rc = audit_salt_new(salt, err);
    if (!rc) {
        rc = audit_leaf_make(a->seq, a->at, a->record, salt, &leaf, err);
    }
    if (!rc) {
        f->n++;
        audit_bundle_put(&f->bundle, att_buf_slice(&leaf));
        rc = att_buf_ok(&f->bundle, err);
    }
    return rc;
}

/* In the write lock: another issuer may have been here. */
static enum att_rc make_leaves(void *user, struct store_tx *tx, struct att_err *err)
{
    struct fresh *f = user;
    struct store_leaf leaf = {0};
    int64_t have = 0;
    enum att_rc rc = store_leaf_head(tx, &have, err);
    f->first = have + 1;
    f->n = 0;
    att_buf_reset(&f->bundle);
    rc = rc ? rc : store_audit_each(tx, f->first, AUDIT_STEP, make_leaf, f, err);
    struct att_slice rest = att_buf_slice(&f->bundle);
    for (int64_t i = 0; !rc && i < f->n; i++) {
        leaf.seq = f->first + i;
        leaf.salt = ATT_SLICE(f->salts[i], AUDIT_SALT_LEN);
        rc = audit_bundle_next(&rest, &leaf.leaf, err);
        rc = rc ? rc : store_leaf_append(tx, &leaf, err);
    }
    f->head = have + f->n;
    return rc;
}

struct heads {
    int64_t records, leaves;
};

static enum att_rc read_heads(void *user, struct store_tx *tx, struct att_err *err)
{
    struct heads *h = user;
    struct store_audit head = {0};
    enum att_rc rc = store_audit_head(tx, &head, err);
    h->records = head.seq;
    return rc ? rc : store_leaf_head(tx, &h->leaves, err);
}

static enum att_rc follow_records(struct store *store, struct heads *h, struct att_err *err)
{
    struct fresh f = {.salts = calloc(AUDIT_STEP, sizeof *f.salts)};
    enum att_rc rc = f.salts ? store_run(store, true, make_leaves, &f, err)
                             : att_fail(err, ATT_E_NOMEM, "audit log: no memory");
    h->leaves = rc ? h->leaves : f.head;
    free(f.salts);
    att_buf_done(&f.bundle);
    return rc;
}

/* ---- files
 * -------------------------------------------------------------------------------------- */

struct step {
    struct audit_log *log;
    uint64_t old, first;    /* first: of the bundle in which the old tree's last leaf is */
    struct att_buf entries; /* from first on */
    uint64_t n;             /* of them */
};

/* What is published already is looked at again: a database that was taken back while we run may
 * have grown beyond it since. The old tree's last tile is in memory, also when it is full. */
static enum att_rc take_leaf(void *user, const struct store_leaf *leaf, struct att_err *err)
{
    struct step *s = user;
    if (leaf->seq != (int64_t)(s->first + s->n) + 1) {
        return audit_refuse(err, "logTruncated", "leaf %llu is not in the database",
                            (unsigned long long)(s->first + s->n) + 1);
    }
    if (s->first + s->n < s->old) {
        struct audit_hash hash = audit_tree_leaf(leaf->leaf);
        if (memcmp(&hash, &s->log->tree.tile[0][s->n], sizeof hash) != 0) {
            return audit_refuse(err, "logForked", "leaf %lld is another than was published",
                                (long long)leaf->seq);
        }
    }
    audit_bundle_put(&s->entries, leaf->leaf);
    s->n++;
    return att_buf_ok(&s->entries, err);
}

static enum att_rc take_leaves(void *user, struct store_tx *tx, struct att_err *err)
{
    struct step *s = user;
    s->first = s->old ? (s->old - 1) / AUDIT_TILE_WIDTH * AUDIT_TILE_WIDTH : 0;
    s->n = 0;
    att_buf_reset(&s->entries);
    return store_leaf_each(tx, (int64_t)s->first + 1, AUDIT_STEP, take_leaf, s, err);
}

static enum att_rc put_entries(const struct step *s, struct att_err *err)
{
    struct att_slice rest = att_buf_slice(&s->entries), entry;
    uint64_t bundle = s->first / AUDIT_TILE_WIDTH, left = s->n;
    enum att_rc rc = ATT_OK;
    for (; !rc && left > 0; bundle++) {
        unsigned width = left < AUDIT_TILE_WIDTH ? (unsigned)left : AUDIT_TILE_WIDTH;
        struct att_slice all = rest;
        for (unsigned i = 0; !rc && i < width; i++) {
            rc = audit_bundle_next(&rest, &entry, err);
        }
        const struct audit_tile tile = {AUDIT_ENTRIES, bundle, width};
        all.len -= rest.len;
        rc = rc ? rc : audit_files_put(s->log->dir, &tile, all, err);
        left -= width;
    }
    return rc;
}

static enum att_rc put_full(void *user, unsigned level, uint64_t index,
                            const struct audit_hash *hashes, struct att_err *err)
{
    const struct step *s = user;
    const struct audit_tile tile = {(int)level, index, AUDIT_TILE_WIDTH};
    return audit_files_put(s->log->dir, &tile,
                           ATT_SLICE(hashes, (size_t)AUDIT_TILE_WIDTH * AUDIT_HASH_LEN), err);
}

static enum att_rc put_tiles(struct step *s, struct audit_tree *tree, struct att_err *err)
{
    struct att_slice rest = att_buf_slice(&s->entries), entry;
    enum att_rc rc = ATT_OK;
    for (uint64_t i = 0; !rc && i < s->n; i++) {
        rc = audit_bundle_next(&rest, &entry, err);
        if (!rc && s->first + i >= s->old) {
            struct audit_hash leaf = audit_tree_leaf(entry);
            rc = audit_tree_append(tree, &leaf, put_full, s, err);
        }
    }
    for (unsigned level = 0; !rc && level < AUDIT_LEVELS; level++) {
        unsigned width = audit_tree_width(tree->size, level);
        if (width && tree->size >> 8 * level != s->old >> 8 * level) {
            const struct audit_tile tile = {(int)level, tree->size >> 8 * (level + 1), width};
            rc = audit_files_put(s->log->dir, &tile,
                                 ATT_SLICE(tree->tile[level], (size_t)width * AUDIT_HASH_LEN), err);
        }
    }
    return rc;
}

static enum att_rc write_checkpoint(const struct audit_log *log, const struct att_buf *note,
                                    bool *ret_guarded, struct att_err *err)
{
    char file[AUDIT_FILE_ROOM];
    audit_log_guard_file(log->state_dir, file);
    enum att_rc rc = att_io_write_file(file, att_buf_slice(note), 0600, err);
    *ret_guarded = !rc;
    if (!rc) {
        audit_log_checkpoint_file(log->state_dir, file);
        rc = att_io_write_file(file, att_buf_slice(note), 0644, err);
    }
    return rc;
}

static bool reason_is(const struct att_err *err, const char *reason)
{
    return strcmp(err->reason, reason) == 0;
}

/* With the counter's next number where that is due; the other side may say: not yet. Or that it has
 * signed more than we know of, since the answer of a call before was lost: that is asked, once. */
static enum att_rc sign_checkpoint(struct audit_log *log, struct audit_checkpoint *c, bool raise,
                                   struct att_buf *note, struct att_err *err)
{
    struct att_err why = {0};
    enum att_rc rc = ATT_OK;
    for (bool looked = false;;) {
        c->counter = log->cosigns ? audit_cosign_counter(log, raise) : 0;
        att_buf_reset(note);
        att_err_clear(&why);
        rc = audit_log_sign(log, c, note, &why);
        rc = rc || !log->cosigns ? rc : audit_cosign_note(log, c, note, &why);
        if (rc == ATT_E_LIMIT && raise && reason_is(&why, "counterEarly")) {
            log->raise_at_ms = att_boottime_ms() + log->cosigner.raise_every_ms;
            raise = false;
            continue;
        }
        if (!rc || looked || !(reason_is(&why, "logOld") || reason_is(&why, "logRolledBack"))) {
            break;
        }
        looked = true;
        att_err_clear(&why);
        rc = audit_cosign_look_again(log, &why);
        if (rc) {
            break;
        }
    }
    if (rc && err) {
        *err = why;
    }
    return rc;
}

/* The guard first: whatever a reader has seen, the guard knows. The counter last: it never is ahead
 * of the guard. */
static enum att_rc put_checkpoint(struct audit_log *log, const struct audit_tree *tree, bool raise,
                                  struct att_err *err)
{
    att_autobuf note = {0};
    bool guarded = false;
    struct audit_checkpoint c = {.size = tree->size, .root = audit_tree_root(tree)};
    enum att_rc rc = sign_checkpoint(log, &c, raise, &note, err);
    rc = rc ? rc : write_checkpoint(log, &note, &guarded, err);
    if (guarded) {
        log->loose = c.counter == log->written;
        log->written = c.counter;
    }
    return rc;
}

enum att_rc audit_log_seal(struct audit_log *log, struct att_err *err)
{
    enum att_rc rc = audit_cosign_settle(log, err);
    if (rc || !log->cosigns || !log->loose) {
        return rc;
    }
    rc = put_checkpoint(log, &log->tree, true, err);
    return rc ? rc : audit_cosign_settle(log, err);
}

static void drop_partials(const struct step *s, uint64_t size)
{
    for (uint64_t i = s->old >> 8; i < size >> 8; i++) {
        audit_files_drop_partial(s->log->dir, AUDIT_ENTRIES, i);
    }
    for (unsigned level = 0; level + 1 < AUDIT_LEVELS; level++) {
        for (uint64_t i = s->old >> 8 * (level + 1); i < size >> 8 * (level + 1); i++) {
            audit_files_drop_partial(s->log->dir, (int)level, i);
        }
    }
}

static enum att_rc publish_step(struct audit_log *log, struct store *store, struct att_err *err)
{
    struct step s = {.log = log, .old = log->tree.size};
    struct audit_tree *tree = log->work;
    enum att_rc rc = store_run(store, false, take_leaves, &s, err);
    if (!rc) {
        rc = put_entries(&s, err);
    }
    if (!rc) {
        *tree = log->tree;
        rc = put_tiles(&s, tree, err);
    }
    if (!rc && tree->size >= log->quiet_until) {
        rc = put_checkpoint(log, tree, audit_cosign_due(log), err);
    }
    if (!rc) {
        log->tree = *tree;
        drop_partials(&s, tree->size);
    }
    att_buf_done(&s.entries);
    return rc;
}

enum att_rc audit_log_publish(struct audit_log *log, struct store *store, bool *ret_behind,
                              struct att_err *err)
{
    struct heads h = {0};
    enum att_rc rc = store_run(store, false, read_heads, &h, err);
    *ret_behind = false;
    rc = rc ? rc : audit_cosign_settle(log, err); /* which an earlier call could not */
    if (!rc && (h.records < h.leaves || h.leaves < (int64_t)log->tree.size)) {
        rc = audit_refuse(err, "logRolledBack",
                          "the database has %lld records and %lld leaves, %llu are published",
                          (long long)h.records, (long long)h.leaves,
                          (unsigned long long)log->tree.size);
    }
    if (!rc && h.leaves < h.records) {
        rc = follow_records(store, &h, err);
    }
    if (!rc && log->tree.size < (uint64_t)h.leaves) {
        rc = publish_step(log, store, err);
    }
    if (!rc && log->loose && audit_cosign_due(log)) { /* nothing came since */
        rc = audit_log_seal(log, err);
    }
    rc = rc ? rc : audit_cosign_settle(log, err);
    *ret_behind = !rc && (h.leaves < h.records || log->tree.size < (uint64_t)h.leaves);
    return rc;
}
