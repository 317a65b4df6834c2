/* The store "tpm": keys under the SRK, of which keyd has no more than blobs and authValues. */
#include "attestd/keyd/internal.h"

#include "provision/evidence/formula.h"
#include "tpm/certify.h"
#include "tpm/parse/public.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct held {
    atomic_uint refs;
    struct tpm_blob blob;
};

static void *hold(void *user)
{
    struct held *held = user;
    atomic_fetch_add(&held->refs, 1);
    return held;
}

static void release(void *user)
{
    struct held *held = user;
    if (atomic_fetch_sub(&held->refs, 1) == 1) {
        tpm_blob_done(&held->blob);
        free(held);
    }
}

const struct tpm_blob *keyd_tpm_blob(const struct keyd_key *key)
{
    const struct held *held = key->held;
    return &held->blob;
}

static enum att_rc describe_key(struct keyd_key *key, const struct tpm_blob *blob,
                                struct att_err *err)
{
    struct parse_public pub;
    enum att_rc rc = parse_public_parse(att_buf_slice(&blob->pub), &pub, err);
    if (rc == ATT_OK) {
        rc = parse_public_check_agent(&pub, err);
    }
    if (rc == ATT_OK) {
        rc = parse_public_name(&pub, &key->name, err);
    }
    if (rc == ATT_OK) {
        key->type = ATT_KEYTYPE_P256; /* the only type that check_agent lets through */
        key->spki = ATT_BUF_INIT(PROC_TPM_STRUCT_MAX);
        rc = parse_public_spki(&pub, &key->spki, err);
    }
    return rc;
}

enum att_rc keyd_tpm_adopt(struct keyd_key *key, struct tpm_blob *blob, struct att_err *err)
{
    enum att_rc rc = describe_key(key, blob, err);
    struct held *held = rc == ATT_OK ? calloc(1, sizeof *held) : NULL;
    if (rc == ATT_OK && !held) {
        rc = att_fail(err, ATT_E_NOMEM, "a key");
    }
    if (rc != ATT_OK) {
        return rc;
    }
    atomic_init(&held->refs, 1);
    held->blob = *blob;
    *blob = (struct tpm_blob){0};
    key->held = held;
    return ATT_OK;
}

/* The key's authValue; the caller wipes it. */
static enum att_rc derive_auth(const struct keyd *keyd, const struct keyd_key *key,
                               uint8_t ret_auth[TPM_KEY_AUTH_LEN], struct att_err *err)
{
    return tpm_key_auth_derive(att_secret_slice(&keyd->host_secret), att_slice_str(key->seed_id),
                               ret_auth, err);
}

/* ---- create -------------------------------------------------------------------------------- */

struct create_job {
    struct keyd *keyd;
    const char *agent;
    uint8_t auth[TPM_KEY_AUTH_LEN];
    struct tpm_blob *blob;
};

static enum att_rc run_create(struct tpm_context *ctx, void *arg, struct att_err *err)
{
    struct create_job *job = arg;
    /* Frozen while the request waited in the queue? */
    enum att_rc rc = keyd_frozen_check(job->keyd, job->agent, err);
    return rc == ATT_OK ? tpm_key_create(ctx, ATT_SLICE_ARRAY(job->auth), job->blob, err) : rc;
}

static enum att_rc create(struct keyd *keyd, struct keyd_key *key, struct att_err *err)
{
    tpm_autoblob blob = {0};
    struct create_job job = {.keyd = keyd, .agent = key->agent, .blob = &blob};
    enum att_rc rc = derive_auth(keyd, key, job.auth, err);
    if (rc == ATT_OK) {
        rc = keyd_run(keyd, TPM_OP_CREATE, TPM_PRIO_BACKGROUND, key->agent, run_create, &job, err);
    }
    att_wipe(job.auth, sizeof job.auth);
    return rc == ATT_OK ? keyd_tpm_adopt(key, &blob, err) : rc;
}

static enum att_rc keep(struct keyd *keyd, const struct keyd_key *key, struct att_err *err)
{
    enum att_rc rc = keyd_keyfile_write(keyd, key, err);
    if (rc != ATT_OK && keyd_keyfile_remove(keyd, key->id, NULL) != ATT_OK) {
        keyd_tell(keyd, KEYD_EVENT_BAD, key->id, err); /* an orphan: the next start removes it */
    }
    return rc;
}

static enum att_rc keep_state(struct keyd *keyd, const struct keyd_key *key, struct att_err *err)
{
    return keyd_keyfile_write_state(keyd, key, err);
}

static enum att_rc drop(struct keyd *keyd, const struct keyd_key *key, struct att_err *err)
{
    return keyd_keyfile_drop(keyd, key->id, err);
}

static enum att_rc run_evict(struct tpm_context *ctx, void *arg, struct att_err *err)
{
    (void)err;
    tpm_key_evict(ctx, arg);
    return ATT_OK;
}

static void destroy(struct keyd *keyd, const struct keyd_key *key)
{
    if (keyd_ready(keyd, NULL) == ATT_OK) {
        /* The loaded copy goes now, or with the next load; without its blob it is of no use. */
        struct att_err ignored = {0};
        struct held *held = key->held;
        (void)!keyd_run(keyd, TPM_OP_OTHER, TPM_PRIO_HANDSHAKE, key->agent, run_evict, &held->blob,
                        &ignored);
    }
}

/* ---- sign ---------------------------------------------------------------------------------- */

struct sign_job {
    struct keyd *keyd;
    const struct keyd_key *key;
    const uint8_t *digest;
    uint8_t auth[TPM_KEY_AUTH_LEN];
    struct tpm_signature *sig;
};

static enum att_rc run_sign(struct tpm_context *ctx, void *arg, struct att_err *err)
{
    struct sign_job *job = arg;
    enum att_rc rc = keyd_frozen_check(job->keyd, job->key->agent, err);
    return rc == ATT_OK ? tpm_key_sign(ctx, keyd_tpm_blob(job->key), ATT_SLICE_ARRAY(job->auth),
                                       job->digest, job->sig, err)
                        : rc;
}

static enum att_rc sign(struct keyd *keyd, const struct keyd_key *key, enum tpm_prio prio,
                        enum keyd_mechanism mechanism, struct att_slice digest,
                        struct keyd_sig *ret_sig, struct att_err *err)
{
    struct tpm_signature sig;
    struct sign_job job = {.keyd = keyd, .key = key, .digest = digest.ptr, .sig = &sig};
    (void)mechanism;                        /* ECDSA: the only one of a P-256 key */
    enum att_rc rc = keyd_ready(keyd, err); /* the host's secret is there */
    if (rc == ATT_OK) {
        rc = derive_auth(keyd, key, job.auth, err); /* while the TPM works for others */
    }
    if (rc == ATT_OK) {
        rc = keyd_run(keyd, TPM_OP_SIGN, prio, key->agent, run_sign, &job, err);
    }
    att_wipe(job.auth, sizeof job.auth);
    if (rc == ATT_OK) {
        memcpy(ret_sig->bytes, sig.raw, sizeof sig.raw);
        ret_sig->len = sizeof sig.raw;
    }
    return rc;
}

/* ---- prove --------------------------------------------------------------------------------- */

struct certify_job {
    struct keyd *keyd;
    const struct keyd_key *key;
    uint8_t extra[ATT_SHA256_LEN];
    struct tpm_certify certify;
    struct att_buf *srk_pub;
};

static enum att_rc run_certify(struct tpm_context *ctx, void *arg, struct att_err *err)
{
    struct certify_job *job = arg;
    uint8_t auth[TPM_KEY_AUTH_LEN];
    enum att_rc rc = keyd_frozen_check(job->keyd, job->key->agent, err);
    if (rc == ATT_OK) {
        rc = keyd_worker_identity(job->keyd, ctx, err);
    }
    if (rc == ATT_OK) {
        rc = derive_auth(job->keyd, job->key, auth, err);
    }
    if (rc == ATT_OK) {
        rc = tpm_certify_create(ctx, keyd_tpm_blob(job->key), ATT_SLICE_ARRAY(auth),
                                ATT_SLICE_ARRAY(job->extra), &job->certify, err);
        att_wipe(auth, sizeof auth);
    }
    if (rc == ATT_OK) {
        att_buf_put_slice(job->srk_pub, att_buf_slice(&job->keyd->worker.srk_pub));
        rc = att_buf_ok(job->srk_pub, err);
    }
    return rc;
}

/* A TPM2_Certify by the AK: what and where the key is. */
static enum att_rc prove(struct keyd *keyd, const struct keyd_key *key,
                         struct att_slice key_authorization, struct keyd_proof *ret_proof,
                         struct att_err *err)
{
    keyd_autoproof proof = {.pub_area = ATT_BUF_INIT(PROC_TPM_STRUCT_MAX),
                            .srk_pub = ATT_BUF_INIT(PROC_TPM_STRUCT_MAX)};
    struct certify_job job = {.keyd = keyd, .key = key, .srk_pub = &proof.srk_pub};
    proof.parent_pub = ATT_BUF_INIT(PROC_TPM_STRUCT_MAX);
    evidence_certify_extra(job.extra, key_authorization);
    enum att_rc rc =
        keyd_run(keyd, TPM_OP_CERTIFY, TPM_PRIO_RENEWAL, key->agent, run_certify, &job, err);
    proof.statement = job.certify.attest;
    proof.sig = job.certify.sig;
    if (rc == ATT_OK) {
        att_buf_put_slice(&proof.pub_area, att_buf_slice(&keyd_tpm_blob(key)->pub));
        rc = att_buf_ok(&proof.pub_area, err);
    }
    if (rc == ATT_OK) {
        rc = keyd_seal_parent_pub(keyd, &keyd_tpm_blob(key)->parent_name, &proof.parent_pub, err);
    }
    if (rc == ATT_OK) {
        *ret_proof = proof;
        proof = (struct keyd_proof){0};
    }
    return rc;
}

static enum att_rc ready(struct keyd *keyd, const struct keyd_key *key, struct att_err *err)
{
    (void)key;
    return keyd_ready(keyd, err);
}

const struct keyd_store keyd_store_tpm = {
    .name = "tpm",
    .keys_max = KEYD_KEYS_MAX,
    .ready = ready,
    .create = create,
    .keep = keep,
    .keep_state = keep_state,
    .drop = drop,
    .destroy = destroy,
    .sign = sign,
    .prove = prove,
    .hold = hold,
    .release = release,
};
