/* The ACME account key: a P-256 key of our own, at rest only as a sealed object, in use only in
 * locked memory. It signs what jwsguard.c lets through. */
#include "attestd/keyd/account.h"
#include "attestd/keyd/softkey.h"

#include "certs/key.h"
#include "tpm/seal.h"

#include <string.h>

#define FILE_NAME "account.pem"
#define SEED_ID   "account/1"

/* ---- key ----------------------------------------------------------------------------------- */

/* Fills the public side from the scalar and takes it over. account_lock is held. */
static enum att_rc adopt(struct keyd *keyd, struct att_secret *scalar, struct att_err *err)
{
    EVP_PKEY *pkey = NULL;
    enum att_rc rc =
        scalar->len == KEYD_SECRET_LEN
            ? keyd_softkey_open(scalar, NULL, &pkey, err)
            : att_fail(err, ATT_E_CONFLICT, "account.pem holds %zu bytes", scalar->len);
    att_autobuf spki = ATT_BUF_INIT(CERTS_SPKI_MAX);
    att_autojson *jwk = NULL;
    if (rc == ATT_OK) {
        rc = certs_key_spki(pkey, &spki, err);
    }
    EVP_PKEY_free(pkey);
    if (rc == ATT_OK) {
        rc = acme_spki_to_jwk(att_buf_slice(&spki), &jwk, err);
    }
    if (rc == ATT_OK) {
        rc = acme_jwk_thumbprint(jwk, keyd->thumbprint, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    keyd->account_spki = spki;
    spki = (struct att_buf){0};
    keyd->account_jwk = jwk;
    jwk = NULL;
    keyd->account_priv = *scalar;
    *scalar = (struct att_secret){0};
    keyd->account_known = true;
    return ATT_OK;
}

/* ---- at rest ------------------------------------------------------------------------------- */

struct seal_job {
    uint8_t auth[TPM_KEY_AUTH_LEN];
    struct tpm_blob *blob;
    struct att_secret *data;
};

static enum att_rc run_seal(struct tpm_context *ctx, void *arg, struct att_err *err)
{
    struct seal_job *job = arg;
    return tpm_seal_create(ctx, att_secret_slice(job->data), ATT_SLICE_ARRAY(job->auth), job->blob,
                           err);
}

static enum att_rc run_unseal(struct tpm_context *ctx, void *arg, struct att_err *err)
{
    struct seal_job *job = arg;
    return tpm_seal_open(ctx, job->blob, ATT_SLICE_ARRAY(job->auth), job->data, err);
}

static enum att_rc with_auth(struct keyd *keyd, struct seal_job *job, tpm_queue_fn *fn,
                             struct att_err *err)
{
    enum att_rc rc = tpm_key_auth_derive(att_secret_slice(&keyd->host_secret),
                                         ATT_SLICE_LIT(SEED_ID), job->auth, err);
    if (rc == ATT_OK) {
        rc = keyd_run(keyd, TPM_OP_SEAL, TPM_PRIO_HANDSHAKE, "", fn, job, err);
    }
    att_wipe(job->auth, sizeof job->auth);
    return rc;
}

/* job->data to the file. */
static enum att_rc seal_to_file(struct keyd *keyd, struct seal_job *job, struct att_err *err)
{
    enum att_rc rc = with_auth(keyd, job, run_seal, err);
    if (rc == ATT_OK) {
        pthread_mutex_lock(&keyd->files);
        rc = keyd_state_write_blob(keyd, FILE_NAME, job->blob, err);
        pthread_mutex_unlock(&keyd->files);
    }
    return rc;
}

static enum att_rc load(struct keyd *keyd, struct att_err *err)
{
    tpm_autoblob blob = {0};
    att_autosecret scalar = {0};
    struct seal_job job = {.blob = &blob, .data = &scalar};
    enum att_rc rc = keyd_state_blob(keyd, FILE_NAME, TPM_BLOB_SEALED, &blob, err);
    if (rc == ATT_OK) {
        rc = with_auth(keyd, &job, run_unseal, err);
    }
    return rc == ATT_OK ? adopt(keyd, &scalar, err) : rc;
}

static enum att_rc create(struct keyd *keyd, struct att_err *err)
{
    tpm_autoblob blob = {0};
    att_autosecret scalar = {0};
    struct seal_job job = {.blob = &blob, .data = &scalar};
    if (keyd_state_was_bad(keyd, FILE_NAME)) {
        /* A new account would be a stranger to the issuer: an operator decides, by removing it. */
        return att_fail(err, ATT_E_CONFLICT, "%s was set aside as .bad: no new account is made",
                        FILE_NAME);
    }
    enum att_rc rc = keyd_softkey_make(&scalar, err);
    if (rc == ATT_OK) {
        rc = seal_to_file(keyd, &job, err);
    }
    if (rc == ATT_OK) {
        rc = adopt(keyd, &scalar, err);
    }
    if (rc == ATT_OK) {
        keyd_tell(keyd, KEYD_EVENT_CREATED, "account", NULL);
    }
    return rc;
}

enum att_rc keyd_account_reseal(struct keyd *keyd, struct att_err *err)
{
    tpm_autoblob old = {0}, blob = {0};
    struct seal_job job = {.blob = &blob, .data = &keyd->account_priv};
    enum att_rc rc = ATT_OK;
    pthread_mutex_lock(&keyd->account_lock);
    if (keyd->account_known) {
        rc = keyd_state_blob(keyd, FILE_NAME, TPM_BLOB_SEALED, &old, err);
    }
    if (rc == ATT_OK && keyd->account_known && keyd_seal_outside(keyd, &old.parent_name)) {
        rc = seal_to_file(keyd, &job, err);
        if (rc == ATT_OK) {
            keyd_tell(keyd, KEYD_EVENT_MIGRATED, FILE_NAME, NULL);
        }
    }
    pthread_mutex_unlock(&keyd->account_lock);
    return rc;
}

enum att_rc keyd_account_load(struct keyd *keyd, struct att_err *err)
{
    pthread_mutex_lock(&keyd->account_lock);
    enum att_rc rc = ATT_OK;
    if (!keyd->account_known && keyd_state_exists(keyd, FILE_NAME)) {
        rc = load(keyd, err);
    }
    pthread_mutex_unlock(&keyd->account_lock);
    return rc;
}

/* account_lock is held. */
static enum att_rc need(struct keyd *keyd, struct att_err *err)
{
    if (keyd->account_known) {
        return ATT_OK;
    }
    enum att_rc rc = keyd_ready(keyd, err);
    if (rc != ATT_OK) {
        return rc;
    }
    return keyd_state_exists(keyd, FILE_NAME) ? load(keyd, err) : create(keyd, err);
}

enum att_rc keyd_account_need(struct keyd *keyd, char ret_thumb[ACME_THUMBPRINT_LEN],
                              struct att_err *err)
{
    pthread_mutex_lock(&keyd->account_lock);
    enum att_rc rc = need(keyd, err);
    if (rc == ATT_OK) {
        memcpy(ret_thumb, keyd->thumbprint, ACME_THUMBPRINT_LEN);
    }
    pthread_mutex_unlock(&keyd->account_lock);
    return rc;
}

enum att_rc keyd_account_check_header(struct keyd *keyd, struct att_slice protected_json,
                                      struct att_err *err)
{
    char *issuer = NULL;
    enum att_rc rc = keyd_issuer_get(keyd, &issuer, err);
    if (rc != ATT_OK) {
        return rc;
    }
    bool kid = false;
    pthread_mutex_lock(&keyd->account_lock);
    rc = need(keyd, err);
    if (rc == ATT_OK) {
        rc = keyd_jws_check(protected_json, issuer, keyd->account_jwk, &kid, err);
    }
    pthread_mutex_unlock(&keyd->account_lock);
    if (rc == ATT_OK && kid) {
        rc = keyd_issuer_keep(keyd, issuer, err);
    }
    free(issuer);
    return rc;
}

enum att_rc keyd_account_sign(struct keyd *keyd, const uint8_t digest[ATT_SHA256_LEN],
                              struct att_buf *ret_raw, struct att_err *err)
{
    EVP_PKEY *pkey = NULL;
    EVP_PKEY_CTX *ctx = NULL;
    pthread_mutex_lock(&keyd->account_lock);
    /* The point is the SubjectPublicKeyInfo's end (RFC 5480 §2). */
    enum att_rc rc =
        keyd->account_known && keyd->account_spki.len > KEYD_POINT_LEN
            ? keyd_softkey_open(&keyd->account_priv,
                                keyd->account_spki.ptr + keyd->account_spki.len - KEYD_POINT_LEN,
                                &pkey, err)
            : att_fail(err, ATT_E_INTERNAL, "no account key");
    pthread_mutex_unlock(&keyd->account_lock);
    if (rc != ATT_OK) {
        return rc;
    }
    rc = keyd_softkey_ready(pkey, &ctx, err);
    if (rc == ATT_OK) {
        rc = keyd_softkey_sign(ctx, digest, ret_raw, err);
    }
    EVP_PKEY_CTX_free(ctx);
    EVP_PKEY_free(pkey);
    return rc;
}

/* ---- ACCOUNT ------------------------------------------------------------------------------- */

KEYD_OPERATION(account)
{
    (void)request;
    att_autobuf jwk = ATT_BUF_INIT(4096);
    pthread_mutex_lock(&keyd->account_lock);
    enum att_rc rc = need(keyd, err);
    if (rc == ATT_OK) {
        rc = att_json_dump(keyd->account_jwk, true, &jwk, err);
    }
    if (rc == ATT_OK) {
        const struct proc_value values[] = {
            [PROC_ACCOUNT_REP_JWK] = {.bytes = att_buf_slice(&jwk)},
            [PROC_ACCOUNT_REP_THUMBPRINT] = {.bytes = att_slice_str(keyd->thumbprint)},
            [PROC_ACCOUNT_REP_SPKI] = {.bytes = att_buf_slice(&keyd->account_spki)},
        };
        rc = proc_reply_encode(op, values, ret_payload, err);
    }
    pthread_mutex_unlock(&keyd->account_lock);
    return rc;
}
