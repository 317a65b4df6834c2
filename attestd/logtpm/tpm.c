/* From nothing to ready: secret, record, counter, key, in this order. Each is on the disk before
 * the next is made, and what should be there and is not is never made again: a folder from which
 * something was taken would otherwise forget what it signed. */
#include "attestd/logtpm/internal.h"

#include "attestd/base/clock.h"
#include "attestd/base/hash.h"
#include "attestd/base/io.h"
#include "tpm/parse/public.h"
#include "tpm/seal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SECRET_FILE "secret.pem"
#define RECORD_FILE "record.json"
#define KEY_FILE    "key.pem"
#define SECRET_LEN  32

void logtpm_path(const struct logtpm *logtpm, const char *name, char ret[LOGTPM_PATH])
{
    snprintf(ret, LOGTPM_PATH, "%s/%s", logtpm->dir, name);
}

enum att_rc logtpm_refuse(struct att_err *err, enum att_rc rc, const char *reason, const char *fmt,
                          ...)
{
    char text[360];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    att_err_clear(err);
    (void)!att_fail(err, rc, "%s", text);
    att_err_reason(err, reason);
    return rc;
}

static bool there(const struct logtpm *logtpm, const char *name)
{
    char path[LOGTPM_PATH];
    logtpm_path(logtpm, name, path);
    return access(path, F_OK) == 0 || errno != ENOENT;
}

static enum att_rc missing(const struct logtpm *logtpm, const char *name, const char *has,
                           struct att_err *err)
{
    return logtpm_refuse(err, ATT_E_CONFLICT, "logTpmRecord",
                         "%s has %s and no %s: something was taken out of it; restore it, or move "
                         "the folder away and tell auditors of a new key",
                         logtpm->dir, has, name);
}

/* ---- blobs
 * ----------------------------------------------------------------------------------------- */

static enum att_rc read_blob(const struct logtpm *logtpm, const char *name, enum tpm_blob_type type,
                             struct tpm_blob *ret_blob, struct att_err *err)
{
    char path[LOGTPM_PATH];
    struct att_err why = {0};
    att_autobuf text = ATT_BUF_INIT(TPM_BLOB_PEM_MAX);
    tpm_autoblob blob = {0};
    logtpm_path(logtpm, name, path);
    enum att_rc rc = att_io_read_file(path, TPM_BLOB_PEM_MAX, &text, &why);
    rc = rc ? rc : tpm_tss2pem_parse(att_buf_slice(&text), &blob, &why);
    if (rc || blob.type != type) {
        return logtpm_refuse(err, ATT_E_CONFLICT, "logTpmRecord", "%s: %s", path,
                             rc ? why.msg : "another kind of object");
    }
    *ret_blob = blob;
    blob = (struct tpm_blob){0};
    return ATT_OK;
}

static enum att_rc write_blob(const struct logtpm *logtpm, const char *name,
                              const struct tpm_blob *blob, struct att_err *err)
{
    char path[LOGTPM_PATH];
    att_autobuf text = ATT_BUF_INIT(TPM_BLOB_PEM_MAX);
    logtpm_path(logtpm, name, path);
    enum att_rc rc = tpm_tss2pem_encode(blob, &text, err);
    return rc ? rc : att_io_write_file(path, att_buf_slice(&text), 0600, err);
}

/* ---- the secret: the key's and the counter's authValues come of it
 * ---------------------------- */

static enum att_rc make_secret(struct logtpm *logtpm, struct att_secret *secret,
                               struct att_err *err)
{
    tpm_autoblob blob = {0};
    att_autosecret pool = {0};
    enum att_rc rc = att_secret_new(&pool, 2 * SECRET_LEN, err);
    rc = rc ? rc : tpm_context_random(logtpm->ctx, pool.ptr, SECRET_LEN, err);
    rc = rc ? rc : att_random(pool.ptr + SECRET_LEN, SECRET_LEN, err);
    rc = rc ? rc : att_secret_new(secret, SECRET_LEN, err);
    rc = rc ? rc
            : att_hkdf_sha256(secret->ptr, SECRET_LEN, att_secret_slice(&pool),
                              (struct att_slice){0}, ATT_SLICE_LIT("attestd-log-secret/1"), err);
    rc = rc ? rc
            : tpm_seal_create(logtpm->ctx, att_secret_slice(secret), (struct att_slice){0}, &blob,
                              err);
    return rc ? rc : write_blob(logtpm, SECRET_FILE, &blob, err);
}

static enum att_rc open_secret(struct logtpm *logtpm, struct att_secret *secret,
                               struct att_err *err)
{
    tpm_autoblob blob = {0};
    enum att_rc rc = read_blob(logtpm, SECRET_FILE, TPM_BLOB_SEALED, &blob, err);
    if (rc) {
        return rc;
    }
    rc = tpm_seal_open(logtpm->ctx, &blob, (struct att_slice){0}, secret, err);
    if (rc == ATT_E_DENIED) {
        return logtpm_refuse(err, rc, "foreignTpm",
                             "%s was sealed by another TPM, or this one was cleared: nothing can "
                             "be signed by the key that auditors know (docs/AUDIT.md)",
                             logtpm->dir);
    }
    return rc;
}

enum att_rc logtpm_open_secret(struct logtpm *logtpm, struct att_err *err)
{
    const struct tpm_options options = {.tcti = logtpm->tcti,
                                        .exclusive = tpm_context_single_client(logtpm->tcti)};
    att_autosecret secret = {0};
    enum att_rc rc = ATT_OK;
    if (!logtpm->ctx) {
        rc = tpm_context_open(&options, &logtpm->ctx, err);
    } else if (!tpm_context_alive(logtpm->ctx)) {
        logtpm->owner_known = false;
        rc = tpm_context_reopen(logtpm->ctx, err);
    }
    rc = rc ? rc : logtpm_owner(logtpm, err);
    if (!rc && !there(logtpm, SECRET_FILE)) {
        const char *has = there(logtpm, KEY_FILE)      ? KEY_FILE
                          : there(logtpm, RECORD_FILE) ? RECORD_FILE
                                                       : NULL;
        rc = has ? missing(logtpm, SECRET_FILE, has, err) : make_secret(logtpm, &secret, err);
    } else if (!rc) {
        rc = open_secret(logtpm, &secret, err);
    }
    rc = rc ? rc
            : tpm_key_auth_derive(att_secret_slice(&secret), ATT_SLICE_LIT("log-key"),
                                  logtpm->key_auth, err);
    return rc ? rc
              : tpm_key_auth_derive(att_secret_slice(&secret), ATT_SLICE_LIT("log-counter"),
                                    logtpm->counter_auth, err);
}

/* ---- the record
 * ------------------------------------------------------------------------------------ */

enum att_rc logtpm_load_record(struct logtpm *logtpm, struct att_err *err)
{
    char path[LOGTPM_PATH];
    struct att_err why = {0};
    att_autobuf text = ATT_BUF_INIT(LOGTPM_RECORD_MAX);
    logtpm_path(logtpm, RECORD_FILE, path);
    enum att_rc rc = att_io_read_file(path, LOGTPM_RECORD_MAX, &text, &why);
    rc = rc ? rc : logtpm_record_parse(att_buf_slice(&text), &logtpm->record, &why);
    return rc ? logtpm_refuse(err, ATT_E_CONFLICT, "logTpmRecord", "%s: %s", path, why.msg)
              : ATT_OK;
}

enum att_rc logtpm_keep(struct logtpm *logtpm, const struct logtpm_record *record,
                        struct att_err *err)
{
    char path[LOGTPM_PATH];
    att_autobuf text = ATT_BUF_INIT(LOGTPM_RECORD_MAX);
    logtpm_path(logtpm, RECORD_FILE, path);
    enum att_rc rc = logtpm_record_encode(record, &text, err);
    rc = rc ? rc : att_io_write_file(path, att_buf_slice(&text), 0600, err);
    if (!rc) {
        logtpm->record = *record;
    }
    return rc;
}

/* ---- the counter
 * ----------------------------------------------------------------------------------- */

enum att_rc logtpm_read_counter(struct logtpm *logtpm, uint64_t *ret_value, struct att_err *err)
{
    struct tpm_counter counter;
    enum att_rc rc = tpm_counter_read(logtpm->ctx, logtpm->opts.counter, &counter, err);
    if (rc) {
        return rc;
    }
    if (!counter.defined) {
        return logtpm_refuse(err, ATT_E_CONFLICT, "counterGone",
                             "the TPM's counter 0x%08x is not there any more: somebody removed it "
                             "(attest-issuerd-tpm --new-counter, docs/AUDIT.md)",
                             (unsigned)logtpm->opts.counter);
    }
    if (!counter.ours) {
        return logtpm_refuse(err, ATT_E_CONFLICT, "counterForeign",
                             "NV index 0x%08x of the TPM is no counter of ours",
                             (unsigned)logtpm->opts.counter);
    }
    *ret_value = counter.value;
    return ATT_OK;
}

/* Its authValue is tried, too: one that somebody put there looks the same. */
enum att_rc logtpm_own_counter(struct logtpm *logtpm, struct att_err *err)
{
    bool adopted = false;
    enum att_rc rc = tpm_counter_adopt(logtpm->ctx, logtpm->opts.counter,
                                       ATT_SLICE_ARRAY(logtpm->counter_auth), &adopted, err);
    rc = rc ? rc : logtpm_read_counter(logtpm, &logtpm->counter, err);
    return rc || adopted
               ? rc
               : logtpm_refuse(err, ATT_E_CONFLICT, "counterForeign",
                               "the TPM has a counter 0x%08x that this folder did not make: "
                               "another one has signed here before (docs/AUDIT.md)",
                               (unsigned)logtpm->opts.counter);
}

/* Nothing is remembered yet. A counter that is there is that of an end before the record's. */
static enum att_rc first_counter(struct logtpm *logtpm, struct att_err *err)
{
    struct tpm_counter counter;
    struct logtpm_record record = {.raises = LOGTPM_RAISES, .raises_at = att_now_utc_s()};
    if (there(logtpm, KEY_FILE)) {
        return missing(logtpm, RECORD_FILE, KEY_FILE, err);
    }
    enum att_rc rc = tpm_counter_read(logtpm->ctx, logtpm->opts.counter, &counter, err);
    if (!rc && !counter.defined) {
        rc = tpm_counter_define(logtpm->ctx, logtpm->opts.counter,
                                ATT_SLICE_ARRAY(logtpm->counter_auth), err);
    }
    rc = rc ? rc : logtpm_own_counter(logtpm, err);
    record.counter = logtpm->counter;
    return rc ? rc : logtpm_keep(logtpm, &record, err);
}

/* ---- the key
 * --------------------------------------------------------------------------------------- */

static enum att_rc take_key(struct logtpm *logtpm, const struct tpm_blob *key, struct att_err *err)
{
    struct parse_public pub;
    att_autobuf spki = {0};
    enum att_rc rc = parse_public_parse(att_buf_slice(&key->pub), &pub, err);
    rc = rc ? rc : parse_public_spki(&pub, &spki, err);
    if (!rc && spki.len != sizeof logtpm->spki) {
        rc = logtpm_refuse(err, ATT_E_CONFLICT, "logTpmRecord", "%s/" KEY_FILE ": no P-256 key",
                           logtpm->dir);
    }
    rc = rc ? rc : tpm_key_load(logtpm->ctx, key, err);
    if (!rc) {
        memcpy(logtpm->spki, spki.ptr, sizeof logtpm->spki);
    }
    return rc;
}

static enum att_rc open_key(struct logtpm *logtpm, struct att_err *err)
{
    tpm_autoblob key = {0};
    enum att_rc rc;
    if (there(logtpm, KEY_FILE)) {
        rc = read_blob(logtpm, KEY_FILE, TPM_BLOB_KEY, &key, err);
    } else if (logtpm->record.last.origin[0] || logtpm->record.ended[0]) {
        return missing(logtpm, KEY_FILE, RECORD_FILE, err);
    } else {
        rc = tpm_key_create(logtpm->ctx, ATT_SLICE_ARRAY(logtpm->key_auth), &key, err);
        rc = rc ? rc : write_blob(logtpm, KEY_FILE, &key, err);
    }
    rc = rc ? rc : take_key(logtpm, &key, err);
    if (!rc) {
        tpm_blob_done(&logtpm->key);
        logtpm->key = key;
        key = (struct tpm_blob){0};
    }
    return rc;
}

enum att_rc logtpm_bring_up(struct logtpm *logtpm, struct att_err *err)
{
    enum att_rc rc = logtpm_open_secret(logtpm, err);
    if (!rc && !there(logtpm, RECORD_FILE)) {
        rc = first_counter(logtpm, err);
    } else if (!rc) {
        rc = logtpm_load_record(logtpm, err);
        rc = rc ? rc : logtpm_own_counter(logtpm, err);
        rc = rc ? rc : logtpm_record_fits(&logtpm->record, logtpm->counter, err);
    }
    return rc ? rc : open_key(logtpm, err);
}
