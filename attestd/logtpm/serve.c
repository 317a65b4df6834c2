/* The operations. */
#include "attestd/logtpm/internal.h"

#include "attestd/base/clock.h"
#include "attestd/base/hash.h"
#include "attestd/base/io.h"
#include "attestd/base/log.h"
#include "attestd/proc/logtpm_proto.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define FRAME_TIMEOUT_MS 10000

_Static_assert(PROC_LOGTPM_SPKI_LEN == AUDIT_P256_SPKI_LEN, "key");
_Static_assert(PROC_LOGTPM_SIG_MAX == AUDIT_ECDSA_SIG_MAX, "signature");
_Static_assert(PROC_LOGTPM_SIG_MAX == TPM_SIG_DER_MAX, "signature");
_Static_assert(PROC_LOGTPM_PROOF_MAX == AUDIT_PROOF_MAX, "proof");
_Static_assert(PROC_LOGTPM_ORIGIN_MAX == AUDIT_NAME_MAX, "origin");
_Static_assert(PROC_LOGTPM_BEFORE_MAX == AUDIT_COSIGN_BEFORE_MAX, "before");

/* ---- ready or not
 * ---------------------------------------------------------------------------------- */

static bool passes_by_itself(enum att_rc rc)
{
    return rc == ATT_E_GONE || rc == ATT_E_RETRY || rc == ATT_E_TIMEOUT || rc == ATT_E_LOCKOUT ||
           rc == ATT_E_UNREACHABLE || rc == ATT_E_NOMEM || rc == ATT_E_IO;
}

/* lock is held. What is for an operator is looked at again all the same: he may have done it. */
static enum att_rc be_ready(struct logtpm *logtpm, struct att_err *err)
{
    struct att_err why = {0};
    if (logtpm->ready && tpm_context_alive(logtpm->ctx)) {
        return ATT_OK;
    }
    enum att_rc rc = logtpm_bring_up(logtpm, &why);
    if (rc == ATT_OK) {
        logtpm->ready = true;
        logtpm->why = (struct att_err){0};
        att_log(ATT_INFO, "logtpm.tpm-ready", ATT_N("counter", (long long)logtpm->counter),
                ATT_N("size", (long long)logtpm->record.last.size));
        return ATT_OK;
    }
    if (logtpm->ready || logtpm->why.rc != why.rc || strcmp(logtpm->why.reason, why.reason) != 0) {
        att_log_err(passes_by_itself(rc) ? ATT_WARN : ATT_ERROR, "logtpm.tpm-not-ready", &why);
    }
    logtpm->ready = false;
    logtpm->why = why;
    if (err) {
        *err = why;
    }
    return rc;
}

/* Whatever the TPM says for good is looked at from the start by the next call. */
static void note_failure(struct logtpm *logtpm, enum att_rc rc, const struct att_err *err)
{
    static const char *const grave[] = {"counterGone", "counterForeign", "srkName",
                                        "foreignParent"};
    for (size_t i = 0; i < sizeof grave / sizeof *grave; i++) {
        if (rc && strcmp(err->reason, grave[i]) == 0) {
            logtpm->ready = false;
        }
    }
}

/* An authorisation that was good and is not: the owner's password was changed meanwhile. What was
 * signed is not in question, so it is no ATT_E_AUTH to the issuer: it waits. */
static enum att_rc note_owner(struct logtpm *logtpm, enum att_rc rc, struct att_err *err)
{
    if (rc != ATT_E_AUTH || err->reason[0]) {
        return rc;
    }
    logtpm->ready = logtpm->owner_known = false;
    return logtpm_refuse(err, ATT_E_DENIED, "ownerPassword",
                         "the TPM refuses an authorisation that it took before: its owner's "
                         "password was changed");
}

void logtpm_poll(struct logtpm *logtpm)
{
    struct att_err err = {0};
    pthread_mutex_lock(&logtpm->lock);
    (void)!be_ready(logtpm, &err);
    pthread_mutex_unlock(&logtpm->lock);
}

bool logtpm_ready(struct logtpm *logtpm)
{
    pthread_mutex_lock(&logtpm->lock);
    bool ready = logtpm->ready;
    pthread_mutex_unlock(&logtpm->lock);
    return ready;
}

void logtpm_status(struct logtpm *logtpm, char *ret, size_t room)
{
    pthread_mutex_lock(&logtpm->lock);
    if (logtpm->ready) {
        snprintf(ret, room, "ready; %llu signatures, counter %llu, %llu leaves", logtpm->signatures,
                 (unsigned long long)logtpm->counter, (unsigned long long)logtpm->record.last.size);
    } else {
        snprintf(ret, room, "%s: %.180s",
                 logtpm->why.reason[0] ? logtpm->why.reason : "waiting for the TPM",
                 logtpm->why.msg);
    }
    pthread_mutex_unlock(&logtpm->lock);
}

/* A counter that somebody made anew in between looks the same, is above ours and does not rise by
 * our authValue: not for that is the folder an older one. */
static enum att_rc whose_counter(struct logtpm *logtpm, enum att_rc rc, struct att_err *err)
{
    struct att_err foreign = {0};
    if (rc != ATT_E_AUTH || logtpm_own_counter(logtpm, &foreign) != ATT_E_CONFLICT) {
        return rc;
    }
    if (err) {
        *err = foreign;
    }
    return ATT_E_CONFLICT;
}

/* ---- operations; lock is held
 * ------------------------------------------------------------------- */

static enum att_rc op_state(struct logtpm *logtpm, const struct proc_op *op,
                            struct att_buf *ret_payload, struct att_err *err)
{
    const struct logtpm_record *r = &logtpm->record;
    const struct proc_value values[] = {
        [PROC_LOGTPM_STATE_REP_SPKI] = {.bytes = ATT_SLICE_ARRAY(logtpm->spki)},
        [PROC_LOGTPM_STATE_REP_COUNTER] = {.num = logtpm->counter},
        [PROC_LOGTPM_STATE_REP_WAS] = {.num = r->was},
        [PROC_LOGTPM_STATE_REP_ORIGIN] = {.bytes = att_slice_str(r->last.origin)},
        [PROC_LOGTPM_STATE_REP_SIZE] = {.num = r->last.size},
        [PROC_LOGTPM_STATE_REP_ROOT] = {.bytes = ATT_SLICE_ARRAY(r->last.root.bytes)},
        [PROC_LOGTPM_STATE_REP_LAST_COUNTER] = {.num = r->last.counter},
        [PROC_LOGTPM_STATE_REP_BEFORE] = {.bytes = att_slice_str(r->before)},
    };
    return proc_reply_encode(op, values, ret_payload, err);
}

/* Remembered on the disk before the signature is made: whoever has seen one, we know it. */
static enum att_rc op_sign(struct logtpm *logtpm, const struct proc_op *op,
                           const struct proc_value *v, struct att_buf *ret_payload,
                           struct att_err *err)
{
    struct logtpm_record record = logtpm->record;
    const struct logtpm_request request = {
        v[PROC_LOGTPM_SIGN_REQ_TEXT].bytes, v[PROC_LOGTPM_SIGN_REQ_OLD].num,
        v[PROC_LOGTPM_SIGN_REQ_PROOF].items, v[PROC_LOGTPM_SIGN_REQ_PROOF].item_count};
    struct tpm_signature sig;
    uint8_t digest[ATT_SHA256_LEN];
    int64_t now = att_now_utc_s();
    logtpm_record_clock(&record, now);
    unsigned raises = logtpm_raises(&record, now, logtpm->opts.counter_interval_s);
    enum att_rc rc = logtpm_judge(&record, &request, logtpm->counter, raises, &record.last, err);
    if (rc) {
        return rc;
    }
    if (record.last.counter != record.counter) {
        record.counter = record.last.counter;
        record.raises = raises - 1;
        record.raises_at = now;
    }
    rc = logtpm_keep(logtpm, &record, err);
    if (!rc) {
        att_sha256(digest, request.text);
        rc = tpm_key_sign(logtpm->ctx, &logtpm->key, ATT_SLICE_ARRAY(logtpm->key_auth), digest,
                          &sig, err);
    }
    if (rc) {
        return rc;
    }
    logtpm->signatures++;
    const struct proc_value values[] = {
        [PROC_LOGTPM_SIGN_REP_SIGNATURE] = {.bytes = ATT_SLICE(sig.der, sig.der_len)}};
    return proc_reply_encode(op, values, ret_payload, err);
}

/* What an operator said is done with once the counter stands where a written checkpoint is. */
static enum att_rc op_raise(struct logtpm *logtpm, const struct proc_op *op,
                            const struct proc_value *v, struct att_buf *ret_payload,
                            struct att_err *err)
{
    struct logtpm_record record = logtpm->record;
    uint64_t to = v[PROC_LOGTPM_RAISE_REQ_COUNTER].num;
    if (to != record.counter) {
        return logtpm_refuse(err, ATT_E_DENIED, "counterValue",
                             "the counter follows what was signed, to %llu, not to %llu",
                             (unsigned long long)record.counter, (unsigned long long)to);
    }
    enum att_rc rc = tpm_counter_raise(logtpm->ctx, logtpm->opts.counter,
                                       ATT_SLICE_ARRAY(logtpm->counter_auth), to, err);
    rc = whose_counter(logtpm, rc, err);
    if (!rc) {
        logtpm->counter = to;
    }
    if (!rc && (record.was || record.before[0])) {
        record.was = 0;
        record.before[0] = 0;
        rc = logtpm_keep(logtpm, &record, err);
    }
    return rc ? rc : proc_reply_encode(op, NULL, ret_payload, err);
}

static enum att_rc check_counter(struct logtpm *logtpm, struct att_err *err)
{
    enum att_rc rc = logtpm_read_counter(logtpm, &logtpm->counter, err);
    rc = rc ? rc : logtpm_record_fits(&logtpm->record, logtpm->counter, err);
    return whose_counter(logtpm, rc, err);
}

static enum att_rc serve(void *user, const struct proc_peer *peer, const struct proc_op *op,
                         const struct proc_msg *request, struct att_buf *ret_payload,
                         struct att_err *err)
{
    struct logtpm *logtpm = user;
    struct att_err why = {0};
    (void)peer;
    pthread_mutex_lock(&logtpm->lock);
    enum att_rc rc = be_ready(logtpm, &why);
    rc = rc ? rc : check_counter(logtpm, &why);
    if (rc == ATT_OK) {
        switch ((enum proc_logtpm_op)op->op) {
        case PROC_LOGTPM_STATE:
            rc = op_state(logtpm, op, ret_payload, &why);
            break;
        case PROC_LOGTPM_SIGN:
            rc = op_sign(logtpm, op, request->v, ret_payload, &why);
            break;
        case PROC_LOGTPM_RAISE:
            rc = op_raise(logtpm, op, request->v, ret_payload, &why);
            break;
        }
        if (rc) {
            att_log(ATT_WARN, "logtpm.refused", ATT_S("operation", op->name),
                    ATT_S("code", att_rc_name(rc)), ATT_S("reason", why.reason),
                    ATT_S("message", why.msg));
        }
    }
    rc = note_owner(logtpm, rc, &why);
    note_failure(logtpm, rc, &why);
    pthread_mutex_unlock(&logtpm->lock);
    if (rc && err) {
        *err = why;
    }
    return rc;
}

/* ---- birth and end
 * --------------------------------------------------------------------------------- */

static enum att_rc take_lock(struct logtpm *logtpm, struct att_err *err)
{
    char path[LOGTPM_PATH];
    logtpm_path(logtpm, "lock", path);
    logtpm->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (logtpm->lock_fd < 0) {
        return att_fail_errno(err, ATT_E_IO, "%s", path);
    }
    if (flock(logtpm->lock_fd, LOCK_EX | LOCK_NB) == 0) {
        return ATT_OK;
    }
    return errno == EWOULDBLOCK
               ? att_fail(err, ATT_E_CONFLICT, "%s: another attest-issuerd-tpm uses this folder",
                          logtpm->dir)
               : att_fail_errno(err, ATT_E_IO, "lock %s", path);
}

enum att_rc logtpm_new(const struct logtpm_opts *opts, struct logtpm **ret_logtpm,
                       struct att_err *err)
{
    struct logtpm *logtpm = calloc(1, sizeof *logtpm);
    if (!logtpm) {
        return att_fail(err, ATT_E_NOMEM, "attest-issuerd-tpm");
    }
    pthread_mutex_init(&logtpm->lock, NULL);
    logtpm->opts = *opts;
    logtpm->lock_fd = -1;
    bool fits =
        (size_t)snprintf(logtpm->dir, sizeof logtpm->dir, "%s", opts->dir) < sizeof logtpm->dir &&
        (size_t)snprintf(logtpm->tcti, sizeof logtpm->tcti, "%s", opts->tcti) <
            sizeof logtpm->tcti &&
        (size_t)snprintf(logtpm->owner_file, sizeof logtpm->owner_file, "%s",
                         opts->owner_file ? opts->owner_file : "") < sizeof logtpm->owner_file;
    enum att_rc rc = fits ? att_io_mkdirs(logtpm->dir, 0700, err)
                          : att_fail(err, ATT_E_LIMIT, "log_tpm: too long a path");
    rc = rc ? rc : take_lock(logtpm, err);
    if (!rc && opts->socket_path) {
        const struct proc_server_opts server = {.path = opts->socket_path,
                                                .clients = opts->clients,
                                                .table = proc_logtpm_table,
                                                .handler = serve,
                                                .user = logtpm,
                                                .frame_timeout_ms = FRAME_TIMEOUT_MS};
        rc = proc_server_new(&server, &logtpm->server, err);
    }
    if (rc) {
        logtpm_free(logtpm);
        return rc;
    }
    *ret_logtpm = logtpm;
    return ATT_OK;
}

enum att_rc logtpm_start(struct logtpm *logtpm, struct att_err *err)
{
    return proc_server_start(logtpm->server, err);
}

void logtpm_free(struct logtpm *logtpm)
{
    if (logtpm) {
        proc_server_free(logtpm->server);
        tpm_blob_done(&logtpm->key);
        tpm_context_free(logtpm->ctx);
        att_close(&logtpm->lock_fd);
        pthread_mutex_destroy(&logtpm->lock);
        att_wipe(logtpm->key_auth, sizeof logtpm->key_auth);
        att_wipe(logtpm->counter_auth, sizeof logtpm->counter_auth);
        free(logtpm);
    }
}
