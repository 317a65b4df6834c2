/* From nothing to ready: open the TPM, open (or once make) the host secret, open the account key. A
 * TPM that is away is waited for with growing pauses; a foreign one, or damaged state, is for an
 * operator. */
#include "attestd/keyd/internal.h"

#include "attestd/base/clock.h"
#include "tpm/seal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define HOST_FILE    "host.pem"
#define PAUSE_MIN_MS 500
#define PAUSE_MAX_MS 30000

/* ---- asking the TPM ------------------------------------------------------------------------ */

enum att_rc keyd_ready(struct keyd *keyd, struct att_err *err)
{
    pthread_mutex_lock(&keyd->lock);
    enum keyd_phase phase = keyd->phase;
    struct att_err why = keyd->why;
    pthread_mutex_unlock(&keyd->lock);
    enum att_rc rc = ATT_E_INTERNAL;
    switch (phase) {
    case KEYD_READY:
        return ATT_OK;
    case KEYD_STARTING:
        return att_fail(err, ATT_E_RETRY, "keyd is starting: the TPM has not answered yet");
    case KEYD_TPM_GONE:
        return att_fail(err, ATT_E_GONE, "the TPM is away: %.300s", why.msg);
    case KEYD_FOREIGN_TPM:
        rc = att_fail(err, ATT_E_DENIED, "%s", why.msg);
        att_err_reason(err, "foreignTpm");
        return rc;
    case KEYD_SEALED:
        rc = att_fail(err, ATT_E_DENIED, "%s", why.msg);
        att_err_reason(err, why.reason);
        return rc;
    case KEYD_FAILED:
        rc = att_fail(err, ATT_E_CONFLICT, "%s", why.msg);
        att_err_reason(err, "keydFailed");
        return rc;
    }
    return rc;
}

/* The TPM that came back is another one, or was cleared meanwhile: as if found at the start. */
static void note_swapped(struct keyd *keyd, struct att_err *err)
{
    att_err_prefix(err, "the TPM was swapped or cleared while keyd ran");
    att_err_reason(err, "foreignTpm");
    pthread_mutex_lock(&keyd->lock);
    bool news = keyd->phase == KEYD_READY;
    if (news) {
        keyd->phase = KEYD_FOREIGN_TPM;
        keyd->why = *err;
    }
    pthread_mutex_unlock(&keyd->lock);
    if (news) {
        keyd_tell(keyd, KEYD_EVENT_FAILED, NULL, err);
    }
}

enum att_rc keyd_run(struct keyd *keyd, enum tpm_op op, enum tpm_prio prio, const char *agent,
                     tpm_queue_fn *fn, void *arg, struct att_err *err)
{
    struct att_err none = {0};
    int64_t deadline = att_boottime_ms() + KEYD_OP_TIMEOUT_MS;
    err = err ? err : &none;
    enum att_rc rc = tpm_queue_run(keyd->queue, op, prio, agent, deadline, fn, arg, err);
    pthread_mutex_lock(&keyd->lock);
    bool ready = keyd->phase == KEYD_READY;
    pthread_mutex_unlock(&keyd->lock);
    if (ready && rc == ATT_E_DENIED && strcmp(err->reason, "srkName") == 0) {
        note_swapped(keyd, err);
    }
    return rc;
}

void keyd_worker_done(struct keyd_worker *worker)
{
    tpm_ek_done(&worker->ek);
    tpm_ek_certs_done(&worker->certs);
    tpm_ak_done(&worker->ak);
    att_buf_done(&worker->srk_pub);
    *worker = (struct keyd_worker){0};
}

enum att_rc keyd_worker_identity(struct keyd *keyd, struct tpm_context *ctx, struct att_err *err)
{
    struct keyd_worker *worker = &keyd->worker;
    if (worker->known && worker->generation == tpm_context_generation(ctx)) {
        return ATT_OK;
    }
    keyd_worker_done(worker);
    worker->generation = tpm_context_generation(ctx);
    worker->srk_pub = ATT_BUF_INIT(PROC_TPM_STRUCT_MAX);
    bool persistent = false;
    enum att_rc rc = tpm_context_srk(ctx, &worker->srk_pub, NULL, &persistent, err);
    if (rc == ATT_OK) {
        rc = tpm_ak_get(ctx, &worker->ak, err);
    }
    if (rc == ATT_OK) {
        rc = tpm_ek_read_certs(ctx, &worker->certs, err);
    }
    if (rc == ATT_OK) {
        rc = tpm_ek_find(ctx, &worker->certs, PARSE_EK_NONE, &worker->ek, err);
    }
    if (rc != ATT_OK) {
        keyd_worker_done(worker);
        return rc;
    }
    worker->known = true;
    pthread_mutex_lock(&keyd->lock);
    keyd->srk_persistent = persistent;
    keyd->ek_certificate = worker->ek.cert.len > 0;
    keyd->ek_kind = worker->ek.kind;
    keyd->ek_handle = worker->ek.persistent;
    keyd->ek_index = worker->ek.nv_index;
    keyd->nv_skipped_count = worker->certs.skipped_count;
    memcpy(keyd->nv_skipped, worker->certs.skipped, sizeof keyd->nv_skipped);
    pthread_mutex_unlock(&keyd->lock);
    for (size_t i = 0; i < worker->certs.skipped_count; i++) {
        char index[16];
        snprintf(index, sizeof index, "0x%08" PRIx32, worker->certs.skipped[i]);
        keyd_tell(keyd, KEYD_EVENT_SKIPPED, index, NULL);
    }
    return ATT_OK;
}

/* ---- host secret --------------------------------------------------------------------------- */

struct host_job {
    struct keyd *keyd;
    struct tpm_blob *blob;
    struct att_secret *secret;
};

static enum att_rc run_unseal(struct tpm_context *ctx, void *arg, struct att_err *err)
{
    struct host_job *job = arg;
    return tpm_seal_open(ctx, job->blob, (struct att_slice){0}, job->secret, err);
}

/* 32 bytes that neither the TPM's nor libcrypto's generator knows alone. */
static enum att_rc new_secret(struct tpm_context *ctx, struct att_secret *secret,
                              struct att_err *err)
{
    att_autosecret pool = {0};
    if (secret->ptr) {
        return ATT_OK; /* an earlier try's, from which the counter's authValue is derived */
    }
    enum att_rc rc = att_secret_new(&pool, 2 * KEYD_SECRET_LEN, err);
    if (rc == ATT_OK) {
        rc = tpm_context_random(ctx, pool.ptr, KEYD_SECRET_LEN, err);
    }
    if (rc == ATT_OK) {
        rc = att_random(pool.ptr + KEYD_SECRET_LEN, KEYD_SECRET_LEN, err);
    }
    if (rc == ATT_OK) {
        rc = att_secret_new(secret, KEYD_SECRET_LEN, err);
    }
    if (rc == ATT_OK) {
        rc = att_hkdf_sha256(secret->ptr, KEYD_SECRET_LEN, att_secret_slice(&pool),
                             (struct att_slice){0}, ATT_SLICE_LIT("attestd-host-secret/1"), err);
        if (rc != ATT_OK) {
            att_secret_done(secret);
        }
    }
    return rc;
}

static enum att_rc run_make(struct tpm_context *ctx, void *arg, struct att_err *err)
{
    struct host_job *job = arg;
    enum att_rc rc = new_secret(ctx, job->secret, err);
    if (rc == ATT_OK) {
        rc = keyd_seal_define_counter(job->keyd, ctx, att_secret_slice(job->secret), err);
    }
    if (rc == ATT_OK) {
        rc = tpm_seal_create(ctx, att_secret_slice(job->secret), (struct att_slice){0}, job->blob,
                             err);
    }
    return rc;
}

/* Without its host secret what is sealed here is lost; nothing may hide that. */
static enum att_rc refuse_orphaned(struct keyd *keyd, struct att_err *err)
{
    if (keyd_state_was_bad(keyd, HOST_FILE) || keyd_state_exists(keyd, "account.pem") ||
        keyd_state_was_bad(keyd, "account.pem") || keyd->keys_count) {
        enum att_rc rc = att_fail(err, ATT_E_CONFLICT,
                                  "%s is missing, but %s holds what was sealed with it: no new one "
                                  "is made (restore it, or remove what is there and enrol again)",
                                  HOST_FILE, keyd->dir);
        att_err_reason(err, "hostSecretMissing");
        return rc;
    }
    return ATT_OK;
}

static enum att_rc open_host_secret(struct keyd *keyd, struct att_err *err)
{
    tpm_autoblob blob = {0};
    att_autosecret secret = {0};
    struct host_job job = {keyd, &blob, &secret};
    if (keyd->host_secret.ptr) {
        return ATT_OK; /* an earlier try got so far */
    }
    enum att_rc rc = keyd_state_blob(keyd, HOST_FILE, TPM_BLOB_SEALED, &blob, err);
    bool fresh = rc == ATT_E_NOTFOUND;
    if (fresh) {
        job.secret = &keyd->seal.pending;
        att_err_clear(err);
        rc = refuse_orphaned(keyd, err);
    }
    if (rc == ATT_OK) {
        rc = keyd_run(keyd, TPM_OP_SEAL, TPM_PRIO_HANDSHAKE, "", fresh ? run_make : run_unseal,
                      &job, err);
    }
    if (rc == ATT_OK && fresh) {
        rc = keyd_seal_record(keyd, err);
    }
    if (rc == ATT_OK && fresh) {
        rc = keyd_state_write_blob(keyd, HOST_FILE, &blob, err);
    }
    if (rc == ATT_OK && job.secret->len != KEYD_SECRET_LEN) {
        rc = att_fail(err, ATT_E_CONFLICT, "%s holds %zu bytes, %d expected", HOST_FILE,
                      job.secret->len, KEYD_SECRET_LEN);
    }
    if (rc == ATT_OK) {
        keyd->host_secret = *job.secret;
        *job.secret = (struct att_secret){0};
        if (fresh) {
            keyd_tell(keyd, KEYD_EVENT_CREATED, "hostSecret", NULL);
        }
    }
    return rc;
}

/* ---- the way up ---------------------------------------------------------------------------- */

/* The SRK under which the host secret was sealed: another one is not talked to. */
static enum att_rc pinned_name(struct keyd *keyd, struct parse_name *ret_name, struct att_err *err)
{
    tpm_autoblob blob = {0};
    enum att_rc rc = keyd_state_blob(keyd, HOST_FILE, TPM_BLOB_SEALED, &blob, err);
    if (rc == ATT_E_NOTFOUND) {
        att_err_clear(err);
        return ATT_OK;
    }
    if (rc == ATT_OK) {
        *ret_name = blob.parent_name;
        rc = keyd_seal_srk_of(keyd, ret_name, err);
    }
    return rc;
}

static enum att_rc open_tpm(struct keyd *keyd, struct att_err *err)
{
    if (keyd->queue) {
        return ATT_OK;
    }
    struct parse_name pin = {0};
    enum att_rc rc = pinned_name(keyd, &pin, err);
    if (rc != ATT_OK) {
        return rc;
    }
    const struct tpm_options options = {.tcti = keyd->tcti,
                                        .srk_name = parse_name_slice(&pin),
                                        .ak_rsa = keyd->ak_rsa,
                                        .exclusive = tpm_context_single_client(keyd->tcti)};
    struct tpm_context *ctx = NULL;
    struct tpm_info info;
    rc = tpm_context_open(&options, &ctx, err);
    if (rc == ATT_OK) {
        rc = tpm_context_info(ctx, &info, err);
    }
    if (rc != ATT_OK) {
        tpm_context_free(ctx);
        return rc;
    }
    pthread_mutex_lock(&keyd->lock);
    keyd->info = info;
    keyd->info_known = true;
    pthread_mutex_unlock(&keyd->lock);
    struct tpm_queue *queue = NULL;
    rc = tpm_queue_new(ctx, 0, &queue, err);
    if (rc == ATT_OK) {
        pthread_mutex_lock(&keyd->lock);
        keyd->queue = queue;
        pthread_mutex_unlock(&keyd->lock);
    }
    return rc;
}

static enum att_rc run_identity(struct tpm_context *ctx, void *arg, struct att_err *err)
{
    return keyd_worker_identity(arg, ctx, err);
}

static enum att_rc climb(struct keyd *keyd, struct att_err *err)
{
    enum att_rc rc = open_tpm(keyd, err);
    if (rc == ATT_OK) {
        rc = keyd_seal_prepare(keyd, err);
    }
    if (rc == ATT_OK) {
        rc = open_host_secret(keyd, err);
    }
    if (rc == ATT_OK) {
        rc = keyd_seal_settle(keyd, err);
    }
    if (rc == ATT_OK) {
        rc = keyd_account_load(keyd, err);
    }
    if (rc == ATT_OK) {
        rc = keyd_seal_tidy(keyd, err);
    }
    if (rc == ATT_OK) {
        rc = keyd_run(keyd, TPM_OP_OTHER, TPM_PRIO_HANDSHAKE, "", run_identity, keyd, err);
    }
    return rc;
}

static bool is_foreign(enum att_rc rc, const struct att_err *err)
{
    return rc == ATT_E_DENIED &&
           (strcmp(err->reason, "foreignParent") == 0 || strcmp(err->reason, "srkName") == 0);
}

/* Time, or the TPM's coming back, does not mend these. */
static bool is_final(enum att_rc rc)
{
    return rc == ATT_E_INVAL || rc == ATT_E_CONFLICT || rc == ATT_E_PARSE || rc == ATT_E_DENIED ||
           rc == ATT_E_AUTH || rc == ATT_E_UNSUPPORTED;
}

static void settle(struct keyd *keyd, enum att_rc rc, struct att_err *err)
{
    enum keyd_phase phase = KEYD_TPM_GONE;
    enum keyd_event event = KEYD_EVENT_WAITING;
    if (rc == ATT_OK) {
        phase = KEYD_READY;
        event = KEYD_EVENT_READY;
    } else if (is_foreign(rc, err)) {
        att_err_prefix(err, "the host secret is sealed in another TPM, or from before this one was "
                            "cleared");
        att_err_reason(err, "foreignTpm");
        phase = KEYD_FOREIGN_TPM;
        event = KEYD_EVENT_FAILED;
    } else if (keyd_seal_refusal(err)) {
        phase = KEYD_SEALED;
        event = KEYD_EVENT_SEALED;
    } else if (is_final(rc)) {
        phase = KEYD_FAILED;
        event = KEYD_EVENT_FAILED;
    }
    pthread_mutex_lock(&keyd->lock);
    bool news =
        keyd->phase != phase || (phase == KEYD_SEALED && strcmp(keyd->why.msg, err->msg) != 0);
    keyd->phase = phase;
    keyd->why = *err;
    pthread_mutex_unlock(&keyd->lock);
    if (news) {
        keyd_tell(keyd, event, NULL, rc == ATT_OK ? NULL : err);
    }
}

/* True when the process stops. */
static bool pause_for(struct keyd *keyd, int64_t ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += (ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    pthread_mutex_lock(&keyd->lock);
    while (!keyd->stopping && !keyd->nudged &&
           pthread_cond_timedwait(&keyd->changed, &keyd->lock, &until) != ETIMEDOUT) {
    }
    bool stopping = keyd->stopping;
    keyd->nudged = false;
    pthread_mutex_unlock(&keyd->lock);
    return stopping;
}

void *keyd_bringup_thread(void *arg)
{
    struct keyd *keyd = arg;
    int64_t pause = PAUSE_MIN_MS;
    for (;;) {
        struct att_err err = {0};
        enum att_rc rc = climb(keyd, &err);
        settle(keyd, rc, &err);
        bool final = is_final(rc) && !keyd_seal_refusal(&err);
        if (rc == ATT_OK || final || pause_for(keyd, pause)) {
            return NULL;
        }
        pause = pause * 2 < PAUSE_MAX_MS ? pause * 2 : PAUSE_MAX_MS;
    }
}
