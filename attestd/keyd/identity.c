/* INFO and IDENTITY. */
#include "attestd/keyd/internal.h"

#include "attestd/base/clock.h"
#include "tpm/parse/types.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define INFO_TIMEOUT_MS 1500
#define BUSY_MS         1000 /* a TPM that is at something for so long is not asked for news */

/* ---- INFO ---------------------------------------------------------------------------------- */

static const char *phase_name(enum keyd_phase phase, const struct tpm_queue_stats *stats)
{
    switch (phase) {
    case KEYD_STARTING:
        return "starting";
    case KEYD_READY:
        return stats->stuck ? "tpmSilent" : stats->alive ? "ready" : "tpmGone";
    case KEYD_TPM_GONE:
        return "tpmGone";
    case KEYD_FOREIGN_TPM:
        return "foreignTpm";
    case KEYD_SEALED:
        return "sealed";
    case KEYD_FAILED:
        return "failed";
    }
    return "failed";
}

struct news {
    struct tpm_info info;
    struct tpm_parent_stats stats;
};

static enum att_rc run_info(struct tpm_context *ctx, void *arg, struct att_err *err)
{
    struct news *news = arg;
    struct tpm_clock
        clock; /* asked so that a night is noticed, and what was loaded before forgotten */
    tpm_parent_stats(ctx, &news->stats);
    enum att_rc rc = tpm_context_clock(ctx, &clock, err);
    return rc == ATT_OK ? tpm_context_info(ctx, &news->info, err) : rc;
}

/* What can change, asked anew; an unwilling TPM leaves what was known. */
static void refresh(struct keyd *keyd, struct tpm_queue *queue)
{
    struct news news;
    if (tpm_queue_run(queue, TPM_OP_OTHER, TPM_PRIO_RENEWAL, "",
                      att_boottime_ms() + INFO_TIMEOUT_MS, run_info, &news, NULL) == ATT_OK) {
        pthread_mutex_lock(&keyd->lock);
        keyd->info = news.info;
        if (keyd->seal.opened) { /* before that they are the bring-up's */
            keyd->seal.stats = news.stats;
        }
        pthread_mutex_unlock(&keyd->lock);
    }
}

/* Which EK is used, where it lies and where its certificate does. */
static json_t *ek_json(const struct keyd *keyd)
{
    static const char *const names[] = {
        [PARSE_EK_NONE] = "none",   [PARSE_EK_L1] = "RSA-2048", [PARSE_EK_L2] = "P-256",
        [PARSE_EK_H1] = "RSA-2048", [PARSE_EK_H2] = "P-256",    [PARSE_EK_H3] = "P-384",
        [PARSE_EK_H6] = "RSA-3072",
    };
    json_t *json = json_pack("{s:s, s:b}", "kind", names[keyd->ek_kind], "highRange",
                             (int)(keyd->ek_kind >= PARSE_EK_H1));
    if (keyd->ek_handle) {
        json_object_set_new(json, "handle", json_sprintf("0x%08" PRIx32, keyd->ek_handle));
    }
    if (keyd->ek_index) {
        json_object_set_new(json, "certificate", json_sprintf("0x%08" PRIx32, keyd->ek_index));
    }
    return json;
}

static json_t *tpm_json(const struct keyd *keyd)
{
    char manufacturer[9], firmware[17];
    const struct tpm_info *info = &keyd->info;
    snprintf(manufacturer, sizeof manufacturer, "%08" PRIx32, info->manufacturer);
    snprintf(firmware, sizeof firmware, "%016" PRIx64, info->firmware_version);
    json_t *banks = json_array();
    for (size_t i = 0; i < info->banks_count; i++) {
        const char *name = parse_alg_name(info->banks[i]);
        json_array_append_new(banks, json_string(name ? name : "unknown"));
    }
    json_t *skipped = json_array();
    for (size_t i = 0; i < keyd->nv_skipped_count; i++) {
        json_array_append_new(skipped, json_sprintf("0x%08" PRIx32, keyd->nv_skipped[i]));
    }
    return json_pack(
        "{s:s, s:s, s:s, s:s, s:I, s:I, s:b, s:I, s:I, s:o, s:s, s:b, s:o, s:o}", "manufacturer",
        manufacturer, "manufacturerText", info->manufacturer_text, "vendor", info->vendor,
        "firmware", firmware, "lockoutCounter", (json_int_t)info->lockout_counter, "lockoutMax",
        (json_int_t)info->lockout_max, "inLockout", (int)info->in_lockout, "lockoutIntervalS",
        (json_int_t)info->lockout_interval_s, "slotsFree", (json_int_t)info->transient_avail,
        "banks", banks, "srk", keyd->srk_persistent ? "persistent" : "transient", "ekCertificate",
        (int)keyd->ek_certificate, "ek", ek_json(keyd), "nvSkipped", skipped);
}

static json_t *ops_json(const struct tpm_queue_stats *stats)
{
    json_t *ops = json_object();
    for (int i = 0; i < TPM_OP_COUNT; i++) {
        const struct tpm_op_stats *op = &stats->ops[i];
        json_object_set_new(ops, tpm_op_name((enum tpm_op)i),
                            json_pack("{s:I, s:I, s:I, s:I, s:I}", "n", (json_int_t)op->count,
                                      "failed", (json_int_t)op->failed, "p50Us",
                                      (json_int_t)op->p50_us, "p95Us", (json_int_t)op->p95_us,
                                      "waitP95Us", (json_int_t)op->wait_p95_us));
    }
    return ops;
}

static json_t *sandbox_json(const struct proc_sandbox_report *report)
{
    return json_pack("{s:s, s:s, s:i, s:b, s:s}", "profile",
                     report->profile ? report->profile : "none", "seccomp",
                     report->seccomp ? report->seccomp : "none", "landlock", report->landlock_abi,
                     "memlock", (int)report->memlock_ok, "reason", report->reason);
}

/* lock is held. */
static json_t *stores_json(const struct keyd *keyd)
{
    json_t *list = json_array();
    const struct keyd_store *store;
    for (size_t i = 0; (store = keyd_store_at(i)) != NULL; i++) {
        json_int_t keys = 0;
        for (size_t k = 0; k < keyd->keys_count; k++) {
            keys += keyd->keys[k].store == store;
        }
        json_t *one =
            json_pack("{s:s, s:I, s:I, s:b}", "name", store->name, "keys", keys, "keysMax",
                      (json_int_t)store->keys_max, "durable", store->keep != NULL);
        if (one && store->describe) {
            store->describe(keyd, one);
        }
        json_array_append_new(list, one);
    }
    return list;
}

/* lock is held. */
static json_t *info_json(const struct keyd *keyd, const struct tpm_queue_stats *stats)
{
    const char *state = phase_name(keyd->phase, stats);
    json_t *json =
        json_pack("{s:i, s:s, s:s, s:I, s:o, s:o}", "version", PROC_KEYD_VERSION, "instance",
                  keyd->instance, "state", state, "keys", (json_int_t)keyd->keys_count, "stores",
                  stores_json(keyd), "sandbox", sandbox_json(&keyd->sandbox));
    if (strcmp(state, "tpmSilent") == 0) {
        json_object_set_new(json, "reason",
                            json_sprintf("the TPM has not answered a %s for %lld s",
                                         tpm_op_name(stats->running),
                                         (long long)(stats->running_ms / 1000)));
    } else if (strcmp(state, "ready") != 0) {
        json_object_set_new(json, "reason",
                            json_string(keyd->why.msg[0] ? keyd->why.msg : "waiting for the TPM"));
        if (keyd->why.reason[0]) {
            json_object_set_new(json, "cause", json_string(keyd->why.reason));
        }
    }
    if (keyd->info_known) {
        json_object_set_new(json, "tpm", tpm_json(keyd));
        json_object_set_new(json, "ops", ops_json(stats));
    }
    json_t *bad = json_array(), *frozen = json_array();
    for (size_t i = 0; i < keyd->bad_count; i++) {
        json_array_append_new(bad, json_string(keyd->bad[i]));
    }
    for (size_t i = 0; i < keyd->frozen_count; i++) {
        json_array_append_new(frozen, json_string(keyd->frozen[i]));
    }
    json_object_set_new(json, "bad", bad);
    json_object_set_new(json, "frozen", frozen);
    json_object_set_new(json, "sealing", keyd_seal_json(keyd));
    return json;
}

KEYD_OPERATION(info)
{
    (void)request;
    struct tpm_queue_stats stats = {0};
    pthread_mutex_lock(&keyd->lock);
    struct tpm_queue *queue = keyd->queue;
    pthread_mutex_unlock(&keyd->lock);
    if (queue) {
        tpm_queue_stats(queue, &stats);
        if (stats.running_ms < BUSY_MS) {
            refresh(keyd, queue);
            tpm_queue_stats(queue, &stats);
        }
    }
    pthread_mutex_lock(&keyd->lock);
    att_autojson *json = info_json(keyd, &stats);
    pthread_mutex_unlock(&keyd->lock);
    att_autobuf text = ATT_BUF_INIT(PROC_FRAME_MAX);
    enum att_rc rc =
        json ? att_json_dump(json, false, &text, err) : att_fail(err, ATT_E_NOMEM, "INFO");
    const struct proc_value values[] = {[PROC_INFO_REP_JSON] = {.bytes = att_buf_slice(&text)}};
    return rc == ATT_OK ? proc_reply_encode(op, values, ret_payload, err) : rc;
}

void keyd_status(struct keyd *keyd, char *ret, size_t room)
{
    struct tpm_queue_stats stats = {0};
    pthread_mutex_lock(&keyd->lock);
    struct tpm_queue *queue = keyd->queue;
    pthread_mutex_unlock(&keyd->lock);
    if (queue) {
        tpm_queue_stats(queue, &stats);
    }
    pthread_mutex_lock(&keyd->lock);
    snprintf(ret, room, "%s, %zu keys%s%.150s", phase_name(keyd->phase, &stats), keyd->keys_count,
             keyd->why.msg[0] ? ": " : "", keyd->why.msg);
    pthread_mutex_unlock(&keyd->lock);
}

/* ---- IDENTITY ------------------------------------------------------------------------------ */

struct identity_job {
    struct keyd *keyd;
    const struct proc_op *op;
    struct att_buf *payload;
};

/* The whole answer is made on the worker, which owns what is in it. */
static enum att_rc run_identity(struct tpm_context *ctx, void *arg, struct att_err *err)
{
    struct identity_job *job = arg;
    struct keyd_worker *worker = &job->keyd->worker;
    struct tpm_info info;
    struct tpm_clock clock;
    enum att_rc rc = keyd_worker_identity(job->keyd, ctx, err);
    if (rc == ATT_OK) {
        rc = tpm_context_info(ctx, &info, err);
    }
    if (rc == ATT_OK) {
        rc = tpm_context_clock(ctx, &clock, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    struct att_slice certs[TPM_EK_CERTS_MAX], chain[TPM_EK_CHAIN_MAX];
    for (size_t i = 0; i < worker->certs.certs_count; i++) {
        certs[i] = att_buf_slice(&worker->certs.certs[i].der);
    }
    for (size_t i = 0; i < worker->certs.chain_count; i++) {
        chain[i] = att_buf_slice(&worker->certs.chain[i]);
    }
    char manufacturer[9], firmware[17];
    snprintf(manufacturer, sizeof manufacturer, "%08" PRIx32, info.manufacturer);
    snprintf(firmware, sizeof firmware, "%016" PRIx64, info.firmware_version);
    const struct proc_value values[] = {
        [PROC_IDENTITY_REP_EK_CERTS] = {.items = certs, .item_count = worker->certs.certs_count},
        [PROC_IDENTITY_REP_EK_CHAIN] = {.items = chain, .item_count = worker->certs.chain_count},
        [PROC_IDENTITY_REP_EK_CERT] = {.bytes = att_buf_slice(&worker->ek.cert)},
        [PROC_IDENTITY_REP_EK_PUB] = {.bytes = att_buf_slice(&worker->ek.pub)},
        [PROC_IDENTITY_REP_AK_PUB] = {.bytes = att_buf_slice(&worker->ak.pub)},
        [PROC_IDENTITY_REP_SRK_PUB] = {.bytes = att_buf_slice(&worker->srk_pub)},
        [PROC_IDENTITY_REP_AK_NAME] = {.bytes = parse_name_slice(&worker->ak.name)},
        [PROC_IDENTITY_REP_MANUFACTURER] = {.bytes = att_slice_str(manufacturer)},
        [PROC_IDENTITY_REP_FIRMWARE] = {.bytes = att_slice_str(firmware)},
        [PROC_IDENTITY_REP_RESET_COUNT] = {.num = clock.reset_count},
        [PROC_IDENTITY_REP_RESTART_COUNT] = {.num = clock.restart_count},
    };
    return proc_reply_encode(job->op, values, job->payload, err);
}

KEYD_OPERATION(identity)
{
    (void)request;
    struct identity_job job = {keyd, op, ret_payload};
    enum att_rc rc = keyd_ready(keyd, err);
    return rc == ATT_OK
               ? keyd_run(keyd, TPM_OP_OTHER, TPM_PRIO_RENEWAL, "", run_identity, &job, err)
               : rc;
}
