/* The log and its second signer. */
#include "provision/audit/log_internal.h"

#include "attestd/base/clock.h"
#include "attestd/base/io.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- the key that auditors know
 * ------------------------------------------------------------------ */

void audit_log_tpm_vkey_file(const char *state_dir, char ret[AUDIT_FILE_ROOM])
{
    snprintf(ret, AUDIT_FILE_ROOM, "%s/audit.tpm.vkey", state_dir);
}

/* ret_new: the file is not there, or of another log of ours; the key is the one that was shown. */
static enum att_rc know_key(const struct audit_log *log, const struct audit_cosigned *now,
                            struct audit_p256_vkey *ret_vkey, bool *ret_new, struct att_err *err)
{
    char file[AUDIT_FILE_ROOM];
    struct att_err why = {0};
    att_autobuf text = ATT_BUF_INIT(AUDIT_P256_VKEY_MAX);
    audit_log_tpm_vkey_file(log->state_dir, file);
    enum att_rc rc = att_io_read_file(file, AUDIT_P256_VKEY_MAX, &text, &why);
    *ret_new = rc == ATT_E_NOTFOUND;
    if (!*ret_new) {
        rc = rc ? rc : audit_p256_vkey_parse(att_buf_slice(&text), ret_vkey, &why);
        if (rc) {
            return audit_refuse(err, "logTpmKey", "%s: %s", file, why.msg);
        }
        if (memcmp(ret_vkey->spki, now->spki, sizeof now->spki) != 0) {
            return audit_refuse(err, "logTpmKey",
                                "the TPM process has another key than %s, which auditors know: "
                                "the TPM, or its process's folder, is another one (docs/AUDIT.md)",
                                file);
        }
        *ret_new = strcmp(ret_vkey->name, log->key.vkey.name) != 0;
    }
    return audit_p256_vkey_make(log->key.vkey.name, ATT_SLICE_ARRAY(now->spki), ret_vkey, err);
}

enum att_rc audit_log_save_tpm_vkey(const struct audit_log *log, struct att_err *err)
{
    char file[AUDIT_FILE_ROOM], text[AUDIT_P256_VKEY_MAX + 1];
    audit_log_tpm_vkey_file(log->state_dir, file);
    audit_p256_vkey_text(&log->tpm_vkey, text);
    strcat(text, "\n");
    return att_io_write_file(file, att_slice_str(text), 0644, err);
}

/* ---- the table against what was signed
 * ----------------------------------------------------------- */

struct follow {
    struct audit_tree tree;
    uint64_t until;
};

static enum att_rc follow_leaf(void *user, const struct store_leaf *leaf, struct att_err *err)
{
    struct follow *f = user;
    if (f->tree.size == f->until) {
        return ATT_OK;
    }
    if (leaf->seq != (int64_t)f->tree.size + 1) {
        return audit_refuse(err, "logTruncated", "leaf %llu is not in the database",
                            (unsigned long long)f->tree.size + 1);
    }
    struct audit_hash hash = audit_tree_leaf(leaf->leaf);
    return audit_tree_append(&f->tree, &hash, NULL, NULL, err);
}

static enum att_rc follow_tx(void *user, struct store_tx *tx, struct att_err *err)
{
    struct follow *f = user;
    int64_t left = (int64_t)(f->until - f->tree.size);
    return left ? store_leaf_each(tx, (int64_t)f->tree.size + 1, left, follow_leaf, f, err)
                : ATT_OK;
}

/* The root of the first `size` leaves of the table. */
static enum att_rc table_root(const struct audit_log *log, struct store *store, uint64_t size,
                              struct audit_hash *ret_root, struct att_err *err)
{
    struct follow *f = calloc(1, sizeof *f);
    if (!f) {
        return att_fail(err, ATT_E_NOMEM, "audit log: no memory");
    }
    if (size >= log->tree.size) {
        f->tree = log->tree;
    }
    f->until = size;
    enum att_rc rc = store_run(store, false, follow_tx, f, err);
    *ret_root = audit_tree_root(&f->tree);
    if (!rc && f->tree.size != size) {
        rc = audit_refuse(err, "logTruncated", "leaf %llu is not in the database",
                          (unsigned long long)f->tree.size + 1);
    }
    free(f);
    return rc;
}

static enum att_rc check_origin(const struct audit_log *log, const struct audit_checkpoint *last,
                                struct att_err *err)
{
    return !last->origin[0] || strcmp(last->origin, log->key.vkey.name) == 0
               ? ATT_OK
               : audit_refuse(err, "logOrigin",
                              "the TPM process signs the log %s, not %s: it has to be told of a "
                              "new log (attest-issuerd-tpm --new-log)",
                              last->origin, log->key.vkey.name);
}

static enum att_rc check_last(const struct audit_log *log, struct store *store,
                              const struct audit_checkpoint *last, struct att_err *err)
{
    struct audit_hash root;
    enum att_rc rc = check_origin(log, last, err);
    if (rc || !last->origin[0]) {
        return rc;
    }
    if (last->size > log->quiet_until) {
        return audit_refuse(err, "logRolledBack",
                            "the database has %llu leaves, the TPM has signed %llu: it is older "
                            "than the log",
                            (unsigned long long)log->quiet_until, (unsigned long long)last->size);
    }
    rc = table_root(log, store, last->size, &root, err);
    return rc || memcmp(&root, &last->root, sizeof root) == 0
               ? rc
               : audit_refuse(err, "logForked",
                              "the first %llu records are not those that the TPM has signed",
                              (unsigned long long)last->size);
}

/* The newest checkpoint on the disk against the counter. One that this TPM has not signed (of a
 * time without it, of another TPM) says nothing. */
static enum att_rc check_guard(struct audit_log *log, const struct audit_cosigned *now,
                               struct att_err *err)
{
    char file[AUDIT_FILE_ROOM];
    att_autobuf bytes = ATT_BUF_INIT(AUDIT_NOTE_MAX);
    struct audit_checkpoint guard;
    struct audit_note note;
    audit_log_guard_file(log->state_dir, file);
    enum att_rc rc = audit_log_read_signed(log, file, &guard, &bytes, err);
    rc = rc ? rc : audit_note_parse(att_buf_slice(&bytes), &note, err);
    if (rc || audit_p256_verify(&note, &log->tpm_vkey, NULL)) {
        return rc;
    }
    unsigned long long c = guard.counter, v = now->counter;
    if (guard.size > now->last.size) {
        return audit_refuse(err, "logRolledBack",
                            "the TPM process remembers %llu leaves, and its key has signed %llu: "
                            "its folder is an older one, or was told of a new log",
                            (unsigned long long)now->last.size, (unsigned long long)guard.size);
    }
    bool anew = now->was && (c == now->was || c + 1 == now->was);
    if (c == v || c == v + 1 || anew) {
        log->written = anew ? v : c;
        return ATT_OK;
    }
    return c < v ? audit_refuse(err, "logRolledBack",
                                "%s has the counter %llu, the TPM %llu: what is on the disk is "
                                "older than what was signed",
                                file, c, v)
                 : audit_refuse(err, "logCounter",
                                "%s has the counter %llu, the TPM %llu, where a counter never goes "
                                "back: it is another one",
                                file, c, v);
}

enum att_rc audit_log_cosign(struct audit_log *log, struct store *store,
                             const struct audit_cosigner *cosigner, struct audit_cosigned *ret_now,
                             bool *ret_linked, struct att_err *err)
{
    enum att_rc rc = cosigner->look(cosigner->user, ret_now, err);
    rc = rc ? rc : know_key(log, ret_now, &log->tpm_vkey, ret_linked, err);
    rc = rc ? rc : check_last(log, store, &ret_now->last, err);
    rc = rc ? rc : check_guard(log, ret_now, err);
    if (rc) {
        return rc;
    }
    log->cosigner = *cosigner;
    log->cosigns = true;
    log->last = ret_now->last;
    log->counter = ret_now->counter;
    log->raise_at_ms = att_boottime_ms(); /* with the first checkpoint of this process */
    return ATT_OK;
}

static enum att_rc check_files(struct audit_log *log, const struct audit_cosigned *now,
                               struct att_err *err)
{
    char file[AUDIT_FILE_ROOM];
    bool fresh = false;
    enum att_rc rc = know_key(log, now, &log->tpm_vkey, &fresh, err);
    rc = rc ? rc : check_origin(log, &now->last, err);
    audit_log_guard_file(log->state_dir, file);
    return rc || (access(file, F_OK) != 0 && errno == ENOENT) ? rc : check_guard(log, now, err);
}

enum att_rc audit_cosign_check(const char *state_dir, const struct audit_cosigned *now,
                               struct att_err *err)
{
    struct att_err why = {0};
    struct audit_log *log = calloc(1, sizeof *log);
    if (!log) {
        return att_fail(err, ATT_E_NOMEM, "audit log: no memory");
    }
    snprintf(log->state_dir, sizeof log->state_dir, "%s", state_dir);
    enum att_rc rc = audit_key_load(state_dir, "log", &log->key, &why);
    bool none = rc == ATT_E_NOTFOUND; /* it begins with the first start */
    if (!rc) {
        rc = audit_key_load(state_dir, "log.before", &log->before, &why);
        rc = rc == ATT_E_NOTFOUND ? ATT_OK : rc;
    }
    if (!rc) {
        att_err_clear(&why);
        rc = check_files(log, now, &why);
    }
    audit_key_done(&log->key);
    audit_key_done(&log->before);
    free(log);
    if (rc && !none && err) {
        *err = why;
    }
    return none ? ATT_OK : rc;
}

const struct audit_p256_vkey *audit_log_tpm_vkey(const struct audit_log *log)
{
    return log->cosigns ? &log->tpm_vkey : NULL;
}

/* ---- signing
 * --------------------------------------------------------------------------------------- */

/* Of the next checkpoint. One that was signed and not written has its number already. */
uint64_t audit_cosign_counter(const struct audit_log *log, bool raise)
{
    uint64_t least = log->last.counter > log->counter ? log->last.counter : log->counter;
    return raise ? log->counter + 1 : least;
}

static enum att_rc prove_growth(const struct audit_log *log, uint64_t size,
                                struct audit_proof *ret_proof, struct att_err *err)
{
    struct audit_files_reader reader = {.dir = log->dir, .size = size};
    ret_proof->n = 0;
    if (log->last.size == 0 || log->last.size >= size) {
        return ATT_OK; /* what is wrong with less, the other side says */
    }
    enum att_rc rc =
        audit_prove_consistency(log->last.size, size, audit_files_hash, &reader, ret_proof, err);
    att_buf_done(&reader.tile);
    return rc;
}

enum att_rc audit_cosign_note(struct audit_log *log, const struct audit_checkpoint *c,
                              struct att_buf *note, struct att_err *err)
{
    att_autobuf text = {0};
    struct audit_proof proof;
    uint8_t der[AUDIT_ECDSA_SIG_MAX];
    size_t len = 0;
    audit_checkpoint_text(c, &text);
    enum att_rc rc = att_buf_ok(&text, err);
    rc = rc ? rc : prove_growth(log, c->size, &proof, err);
    rc = rc ? rc
            : log->cosigner.sign(log->cosigner.user, att_buf_slice(&text), log->last.size, &proof,
                                 der, &len, err);
    if (rc) {
        return rc;
    }
    log->last = *c;
    if (!audit_p256_holds(ATT_SLICE_ARRAY(log->tpm_vkey.spki), att_buf_slice(&text),
                          ATT_SLICE(der, len))) {
        return audit_refuse(err, "logTpmSignature",
                            "what the TPM process signed does not hold by its key");
    }
    audit_note_line(log->tpm_vkey.name, log->tpm_vkey.id, ATT_SLICE(der, len), note);
    return att_buf_ok(note, err);
}

enum att_rc audit_cosign_look_again(struct audit_log *log, struct att_err *err)
{
    struct audit_cosigned now = {0};
    enum att_rc rc = log->cosigner.look(log->cosigner.user, &now, err);
    if (rc) {
        return rc;
    }
    if (memcmp(now.spki, log->tpm_vkey.spki, sizeof now.spki) != 0) {
        return audit_refuse(err, "logTpmKey", "the TPM process has another key than at our start");
    }
    if (strcmp(now.last.origin, log->key.vkey.name) != 0) {
        return audit_refuse(err, "logOrigin", "the TPM process signs the log \"%s\", not %s",
                            now.last.origin, log->key.vkey.name);
    }
    if (now.last.size < log->last.size) {
        return audit_refuse(err, "logRolledBack",
                            "the TPM process remembers %llu leaves, and has signed %llu",
                            (unsigned long long)now.last.size, (unsigned long long)log->last.size);
    }
    log->last = now.last;
    return ATT_OK;
}

/* Only to what stands on the disk: one that was raised beyond it would refuse the next start. */
enum att_rc audit_cosign_settle(struct audit_log *log, struct att_err *err)
{
    if (!log->cosigns || log->written <= log->counter) {
        return ATT_OK;
    }
    enum att_rc rc = log->cosigner.raise(log->cosigner.user, log->written, err);
    if (!rc) {
        log->counter = log->written;
        log->raise_at_ms = att_boottime_ms() + log->cosigner.raise_every_ms;
    }
    return rc;
}

bool audit_cosign_due(const struct audit_log *log)
{
    return log->cosigns && att_boottime_ms() >= log->raise_at_ms;
}
