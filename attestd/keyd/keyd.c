/* Birth, service and end of a keyd. */
#include "attestd/keyd/internal.h"
#include "attestd/keyd/token.h"
#include "attestd/proc/keyd_token.h"

#include "attestd/base/io.h"
#include "attestd/proc/links.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FRAME_TIMEOUT_MS 10000

static const struct {
    enum proc_keyd_op op;
    enum att_rc (*fn)(struct keyd *keyd, const struct proc_op *op, const struct proc_msg *request,
                      struct att_buf *ret_payload, struct att_err *err);
} operations[] = {
    {PROC_KEYD_INFO, keyd_op_info},
    {PROC_KEYD_IDENTITY, keyd_op_identity},
    {PROC_KEYD_ACCOUNT, keyd_op_account},
    {PROC_KEYD_ACCOUNT_SIGN, keyd_op_account_sign},
    {PROC_KEYD_SIGN_START, keyd_op_sign_start},
    {PROC_KEYD_SIGN_PART, keyd_op_sign_part},
    {PROC_KEYD_SIGN_END, keyd_op_sign_end},
    {PROC_KEYD_ISSUER, keyd_op_issuer},
    {PROC_KEYD_ENROL_PROVE, keyd_op_enrol_prove},
    {PROC_KEYD_KEY_CREATE, keyd_op_key_create},
    {PROC_KEYD_KEY_LIST, keyd_op_key_list},
    {PROC_KEYD_KEY_EVIDENCE, keyd_op_key_evidence},
    {PROC_KEYD_KEY_CSR, keyd_op_key_csr},
    {PROC_KEYD_KEY_TOKEN, keyd_op_key_token},
    {PROC_KEYD_KEY_ACTIVATE, keyd_op_key_activate},
    {PROC_KEYD_KEY_RETIRE, keyd_op_key_retire},
    {PROC_KEYD_KEY_DESTROY, keyd_op_key_destroy},
    {PROC_KEYD_KEY_CERTIFY, keyd_op_key_certify},
    {PROC_KEYD_KEY_CSR_DEVICE, keyd_op_key_csr_device},
    {PROC_KEYD_USER_QUOTE, keyd_op_user_quote},
    {PROC_KEYD_AK_CREATION, keyd_op_ak_creation},
    {PROC_KEYD_AK_ACTIVATE, keyd_op_ak_activate},
    {PROC_KEYD_FREEZE, keyd_op_freeze},
    {PROC_KEYD_THAW, keyd_op_thaw},
};

static enum att_rc serve(void *user, const struct proc_peer *peer, const struct proc_op *op,
                         const struct proc_msg *request, struct att_buf *ret_payload,
                         struct att_err *err)
{
    struct keyd *keyd = user;
    (void)peer;
    enum att_rc rc = att_fail(err, ATT_E_INTERNAL, "%s has no function", op->name);
    for (size_t i = 0; i < sizeof operations / sizeof operations[0]; i++) {
        if (operations[i].op == op->op) {
            att_err_clear(err);
            rc = operations[i].fn(keyd, op, request, ret_payload, err);
            break;
        }
    }
    if (rc != ATT_OK) {
        keyd_tell(keyd, KEYD_EVENT_REFUSED, op->name, err);
    }
    return rc;
}

static enum att_rc listen_for_signers(struct keyd *keyd, const struct keyd_opts *opts,
                                      struct att_err *err)
{
    keyd->quota = opts->quota;
    keyd->exporters = opts->exporters;
    if (!opts->sign_socket_path) {
        return ATT_OK;
    }
    const struct proc_server_opts server = {
        .path = opts->sign_socket_path,
        .clients = opts->signers,
        .table = proc_sign_table,
        .handler = keyd_sign_serve,
        .user = keyd,
        .frame_timeout_ms = FRAME_TIMEOUT_MS,
        .connections = PROC_PLACES_SIGN,
    };
    return proc_server_new(&server, &keyd->sign_server, err);
}

static enum att_rc copy_text(const char *from, char **ret, struct att_err *err)
{
    if (!from) {
        return ATT_OK;
    }
    *ret = strdup(from);
    return *ret ? ATT_OK : att_fail(err, ATT_E_NOMEM, "text");
}

static void init_locks(struct keyd *keyd)
{
    pthread_condattr_t attr;
    pthread_mutex_init(&keyd->lock, NULL);
    pthread_mutex_init(&keyd->files, NULL);
    pthread_mutex_init(&keyd->account_lock, NULL);
    pthread_mutex_init(&keyd->quota_lock, NULL);
    pthread_mutex_init(&keyd->refusals.lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&keyd->changed, &attr);
    pthread_condattr_destroy(&attr);
}

void keyd_set_acme(struct keyd *keyd, enum keyd_acme acme)
{
    atomic_store(&keyd->acme, (int)acme);
}

static enum att_rc fill(struct keyd *keyd, const struct keyd_opts *opts, struct att_err *err)
{
    size_t len = strlen(opts->dir);
    if (len == 0 || len >= sizeof keyd->dir - 128) {
        return att_fail(err, ATT_E_INVAL, "state folder's path of %zu bytes", len);
    }
    memcpy(keyd->dir, opts->dir, len + 1);
    keyd->on_event = opts->on_event;
    keyd->user = opts->user;
    keyd->issuer_fixed = opts->issuer_url != NULL;
    keyd_set_acme(keyd, opts->acme);
    keyd->ak_rsa = opts->ak_rsa;
    enum att_rc rc = copy_text(opts->tcti, &keyd->tcti, err);
    if (rc == ATT_OK) {
        rc = copy_text(opts->ticket_path, &keyd->ticket_path, err);
    }
    return rc == ATT_OK ? copy_text(opts->issuer_url, &keyd->issuer_url, err) : rc;
}

enum att_rc keyd_new(const struct keyd_opts *opts, struct keyd **ret_keyd, struct att_err *err)
{
    struct keyd *keyd = calloc(1, sizeof *keyd);
    if (!keyd) {
        return att_fail(err, ATT_E_NOMEM, "keyd");
    }
    keyd->lock_fd = -1;
    init_locks(keyd);
    enum att_rc rc = fill(keyd, opts, err);
    if (rc == ATT_OK) {
        rc = keyd_new_id(keyd->instance, err);
    }
    if (rc == ATT_OK) {
        rc = keyd_seal_new(keyd, &opts->sealing, err);
    }
    if (rc == ATT_OK) {
        rc = keyd_hsms_new(keyd, opts, err);
    }
    if (rc == ATT_OK) {
        rc = keyd_state_open(keyd, err);
    }
    if (rc == ATT_OK) {
        const struct proc_server_opts server = {
            .path = opts->socket_path,
            .clients = opts->clients,
            .table = proc_keyd_table,
            .handler = serve,
            .user = keyd,
            .frame_timeout_ms = FRAME_TIMEOUT_MS,
        };
        rc = proc_server_new(&server, &keyd->server, err);
    }
    if (rc == ATT_OK) {
        rc = listen_for_signers(keyd, opts, err);
    }
    if (rc != ATT_OK) {
        keyd_free(keyd);
        return rc;
    }
    *ret_keyd = keyd;
    return ATT_OK;
}

void keyd_set_sandbox(struct keyd *keyd, const struct proc_sandbox_report *report)
{
    keyd->sandbox = *report;
}

enum att_rc keyd_start(struct keyd *keyd, struct att_err *err)
{
    int failed = pthread_create(&keyd->starter, NULL, keyd_bringup_thread, keyd);
    if (failed) {
        errno = failed;
        return att_fail_errno(err, ATT_E_IO, "start a thread");
    }
    keyd->starter_runs = true;
    enum att_rc rc = keyd_hsms_start(keyd, err);
    if (rc == ATT_OK) {
        rc = proc_server_start(keyd->server, err);
    }
    return rc == ATT_OK && keyd->sign_server ? proc_server_start(keyd->sign_server, err) : rc;
}

void keyd_free(struct keyd *keyd)
{
    if (!keyd) {
        return;
    }
    pthread_mutex_lock(&keyd->lock);
    keyd->stopping = true;
    pthread_cond_broadcast(&keyd->changed);
    pthread_mutex_unlock(&keyd->lock);
    proc_server_free(keyd->sign_server);
    proc_server_free(keyd->server); /* first nobody asks any more … */
    if (keyd->starter_runs) {
        pthread_join(keyd->starter, NULL);
    }
    tpm_queue_free(keyd->queue); /* … then the worker ends … */
    keyd_worker_done(&keyd->worker);
    for (size_t i = 0; i < keyd->keys_count; i++) {
        keyd_key_done(&keyd->keys[i]);
    }
    free(keyd->keys);
    keyd_hsms_free(keyd);
    keyd_seal_free(keyd);
    free(keyd->frozen);
    free(keyd->buckets);
    for (size_t i = 0; i < keyd->bad_count; i++) {
        free(keyd->bad[i]);
    }
    keyd_series_done(keyd);
    att_secret_done(&keyd->host_secret);
    att_secret_done(&keyd->account_priv);
    att_buf_done(&keyd->account_spki);
    att_json_done(&keyd->account_jwk);
    free(keyd->issuer_url);
    free(keyd->issuer_kept);
    free(keyd->ticket_path);
    free(keyd->tcti);
    att_close(&keyd->lock_fd); /* … and the folder is free last */
    pthread_cond_destroy(&keyd->changed);
    pthread_mutex_destroy(&keyd->account_lock);
    pthread_mutex_destroy(&keyd->quota_lock);
    pthread_mutex_destroy(&keyd->refusals.lock);
    pthread_mutex_destroy(&keyd->files);
    pthread_mutex_destroy(&keyd->lock);
    free(keyd);
}
