/* What others get of a log: proofs, files, and the issuer's own look at the whole. */
#include "provision/audit/log_internal.h"

#include "attestd/base/io.h"
#include "provision/audit/leaf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void audit_inclusion_done(struct audit_inclusion *inclusion)
{
    att_buf_done(&inclusion->note);
    att_buf_done(&inclusion->leaf);
    att_buf_done(&inclusion->salt);
}

static enum att_rc take_leaf(void *user, const struct store_leaf *leaf, struct att_err *err)
{
    struct audit_inclusion *in = user;
    if (leaf->seq != (int64_t)in->index + 1) {
        return ATT_OK;
    }
    att_buf_put_slice(&in->leaf, leaf->leaf);
    att_buf_put_slice(&in->salt, leaf->salt);
    return att_buf_ok(&in->leaf, err);
}

static enum att_rc behind(int64_t seq, struct att_err *err)
{
    att_err_clear(err);
    enum att_rc rc =
        att_fail(err, ATT_E_RETRY, "audit log: record %lld is not published yet", (long long)seq);
    att_err_reason(err, "logBehind");
    return rc;
}

static enum att_rc prove(const struct audit_log *log, struct store_tx *tx, int64_t seq,
                         struct audit_inclusion *in, struct att_err *err)
{
    char file[AUDIT_FILE_ROOM];
    audit_log_checkpoint_file(log->state_dir, file);
    enum att_rc rc = audit_log_read_signed(log, file, &in->checkpoint, &in->note, err);
    if (rc == ATT_E_NOTFOUND || (!rc && (uint64_t)seq > in->checkpoint.size)) {
        rc = behind(seq, err);
    }
    if (rc) {
        return rc;
    }
    struct audit_files_reader reader = {.dir = log->dir, .size = in->checkpoint.size};
    in->index = (uint64_t)seq - 1;
    rc = audit_prove_inclusion(in->index, in->checkpoint.size, audit_files_hash, &reader,
                               &in->proof, err);
    att_buf_done(&reader.tile);
    rc = rc ? rc : store_leaf_each(tx, seq, 1, take_leaf, in, err);
    /* Made and published since this transaction began. */
    return rc || in->leaf.len ? rc : behind(seq, err);
}

enum att_rc audit_log_prove(const struct audit_log *log, struct store_tx *tx, int64_t seq,
                            struct audit_inclusion *ret_inclusion, struct att_err *err)
{
    struct audit_inclusion in = {0};
    if (seq < 1) {
        return att_fail(err, ATT_E_NOTFOUND, "audit log: there is no record %lld", (long long)seq);
    }
    enum att_rc rc = prove(log, tx, seq, &in, err);
    if (!rc) { /* what is handed out holds */
        struct audit_hash leaf = audit_tree_leaf(att_buf_slice(&in.leaf));
        rc = audit_check_inclusion(in.index, in.checkpoint.size, &leaf, &in.proof,
                                   &in.checkpoint.root, err);
    }
    if (rc) {
        audit_inclusion_done(&in);
        return rc;
    }
    *ret_inclusion = in;
    return ATT_OK;
}

enum att_rc audit_log_read(const char *state_dir, const char *path, struct att_buf *ret_bytes,
                           bool *ret_final, struct att_err *err)
{
    struct audit_tile tile;
    char dir[AUDIT_FILE_ROOM];
    if (strcmp(path, "checkpoint") == 0) {
        *ret_final = false;
        audit_log_checkpoint_file(state_dir, dir);
        return att_io_read_file(dir, AUDIT_NOTE_MAX, ret_bytes, err);
    }
    if (audit_tile_parse(path, &tile, NULL)) {
        return att_fail(err, ATT_E_NOTFOUND, "audit log: there is no such tile");
    }
    *ret_final = true;
    snprintf(dir, sizeof dir, "%s/audit-log", state_dir);
    return audit_files_get(dir, &tile, ret_bytes, err);
}

/* ---- the whole
 * ---------------------------------------------------------------------------------- */

struct verify {
    const struct audit_log *log;
    struct audit_checkpoint checkpoint;
    struct audit_tree tree;
    struct att_buf bundle, salts; /* of AUDIT_STEP records */
    int64_t first, n, at;
    struct att_slice rest;
};

static enum att_rc keep(void *user, const struct store_leaf *leaf, struct att_err *err)
{
    struct verify *v = user;
    struct audit_hash hash = audit_tree_leaf(leaf->leaf);
    if (leaf->seq != v->first + v->n) {
        return audit_refuse(err, "logTruncated", "leaf %lld is not in the database",
                            (long long)(v->first + v->n));
    }
    v->n++;
    att_buf_field_be16(&v->bundle, leaf->leaf);
    att_buf_field_be16(&v->salts, leaf->salt);
    enum att_rc rc = att_buf_ok(&v->bundle, err);
    rc = rc ? rc : att_buf_ok(&v->salts, err);
    rc = rc ? rc : audit_tree_append(&v->tree, &hash, NULL, NULL, err);
    struct audit_hash root = {{0}};
    if (!rc && v->tree.size == v->checkpoint.size) {
        root = audit_tree_root(&v->tree);
        rc = memcmp(&root, &v->checkpoint.root, sizeof root) == 0
                 ? ATT_OK
                 : audit_refuse(err, "logForked", "the leaves are not those that were published");
    }
    return rc;
}

static enum att_rc opens(void *user, const struct store_audit *a, struct att_err *err)
{
    struct verify *v = user;
    struct att_slice leaf, salt,
        salts = ATT_SLICE(v->salts.ptr + v->at, v->salts.len - (size_t)v->at);
    size_t before = salts.len;
    if (a->seq >= v->first + v->n) {
        return ATT_OK; /* made since */
    }
    enum att_rc rc = audit_bundle_next(&v->rest, &leaf, err);
    rc = rc ? rc : audit_bundle_next(&salts, &salt, err);
    v->at += (int64_t)(before - salts.len);
    if (!rc && a->record[0] && !audit_leaf_is(leaf, a->seq, a->at, a->record, salt)) {
        rc = audit_refuse(err, "logLeaf", "record %lld is another than its leaf was made of",
                          (long long)a->seq);
    }
    return rc;
}

static enum att_rc verify_tx(void *user, struct store_tx *tx, struct att_err *err)
{
    struct verify *v = user;
    enum att_rc rc = ATT_OK;
    do {
        v->first += v->n;
        v->n = v->at = 0;
        att_buf_reset(&v->bundle);
        att_buf_reset(&v->salts);
        rc = store_leaf_each(tx, v->first, AUDIT_STEP, keep, v, err);
        v->rest = att_buf_slice(&v->bundle);
        rc = rc || !v->n ? rc : store_audit_each(tx, v->first, v->n, opens, v, err);
    } while (!rc && v->n == AUDIT_STEP);
    if (!rc && v->rest.len) {
        rc = audit_refuse(err, "logRolledBack", "the database has fewer records than leaves");
    }
    return rc || v->tree.size >= v->checkpoint.size
               ? rc
               : audit_refuse(err, "logRolledBack", "%llu leaves were published, %llu are there",
                              (unsigned long long)v->checkpoint.size,
                              (unsigned long long)v->tree.size);
}

enum att_rc audit_log_verify(const struct audit_log *log, struct store *store,
                             struct audit_checkpoint *ret_checkpoint, struct att_err *err)
{
    char file[AUDIT_FILE_ROOM];
    struct att_err why = {0};
    struct verify *v = calloc(1, sizeof *v);
    if (!v) {
        return att_fail(err, ATT_E_NOMEM, "audit log: no memory");
    }
    v->log = log;
    v->first = 1;
    audit_log_guard_file(log->state_dir, file);
    enum att_rc rc = audit_log_read_signed(log, file, &v->checkpoint, NULL, &why)
                         ? audit_refuse(err, "logGuard", "%s", why.msg)
                         : store_run(store, false, verify_tx, v, err);
    if (!rc) {
        *ret_checkpoint = v->checkpoint;
    }
    att_buf_done(&v->bundle);
    att_buf_done(&v->salts);
    free(v);
    return rc;
}
