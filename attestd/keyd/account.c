/* The ACME account key: a P-256 key of our own, at rest only as a sealed object, in use only in
 * locked memory. It signs what jwsguard.c lets through. */
#include "attestd/keyd/account.h"

#include "certs/key.h"
#include "tpm/seal.h"

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/obj_mac.h>
#include <openssl/param_build.h>
#include <string.h>

#define FILE_NAME "account.pem"
#define SEED_ID   "account/1"
#define POINT_LEN 65

/* ---- key ----------------------------------------------------------------------------------- */

static enum att_rc public_point(const BIGNUM *scalar, uint8_t ret[POINT_LEN], struct att_err *err)
{
    EC_GROUP *group = EC_GROUP_new_by_curve_name(NID_X9_62_prime256v1);
    EC_POINT *point = group ? EC_POINT_new(group) : NULL;
    bool ok = point && !BN_is_zero(scalar) && BN_cmp(scalar, EC_GROUP_get0_order(group)) < 0 &&
              EC_POINT_mul(group, point, scalar, NULL, NULL, NULL) == 1 &&
              EC_POINT_point2oct(group, point, POINT_CONVERSION_UNCOMPRESSED, ret, POINT_LEN,
                                 NULL) == POINT_LEN;
    EC_POINT_free(point);
    EC_GROUP_free(group);
    return ok ? ATT_OK : att_fail_openssl(err, ATT_E_CRYPTO, "account key");
}

static enum att_rc build_pkey(const BIGNUM *scalar, const uint8_t point[POINT_LEN], EVP_PKEY **ret,
                              struct att_err *err)
{
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    OSSL_PARAM *params = NULL;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
    EVP_PKEY *pkey = NULL;
    if (build && ctx &&
        OSSL_PARAM_BLD_push_utf8_string(build, OSSL_PKEY_PARAM_GROUP_NAME, "prime256v1", 0) &&
        OSSL_PARAM_BLD_push_octet_string(build, OSSL_PKEY_PARAM_PUB_KEY, point, POINT_LEN) &&
        OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_PRIV_KEY, scalar) &&
        (params = OSSL_PARAM_BLD_to_param(build)) != NULL && EVP_PKEY_fromdata_init(ctx) == 1) {
        (void)!EVP_PKEY_fromdata(ctx, &pkey, EVP_PKEY_KEYPAIR, params);
    }
    OSSL_PARAM_free(params); /* wipes what came from a secure BIGNUM */
    OSSL_PARAM_BLD_free(build);
    EVP_PKEY_CTX_free(ctx);
    if (!pkey) {
        return att_fail_openssl(err, ATT_E_CRYPTO, "account key");
    }
    *ret = pkey;
    return ATT_OK;
}

/* An EVP_PKEY for one use: between uses the scalar is in its own locked page only. point: the
 * public half, NULL where it is not known yet. */
static enum att_rc open_pkey(const struct att_secret *scalar, const uint8_t *point, EVP_PKEY **ret,
                             struct att_err *err)
{
    uint8_t made[POINT_LEN];
    BIGNUM *number = BN_secure_new();
    if (!number || !BN_bin2bn(scalar->ptr, (int)scalar->len, number)) {
        BN_clear_free(number);
        return att_fail_openssl(err, ATT_E_NOMEM, "account key");
    }
    BN_set_flags(number, BN_FLG_CONSTTIME);
    enum att_rc rc = ATT_OK;
    if (!point) {
        rc = public_point(number, made, err);
        point = made;
    }
    if (rc == ATT_OK) {
        rc = build_pkey(number, point, ret, err);
    }
    BN_clear_free(number);
    return rc;
}

static enum att_rc make_scalar(struct att_secret *ret_scalar, struct att_err *err)
{
    EVP_PKEY *pkey = NULL;
    BIGNUM *number = BN_secure_new();
    enum att_rc rc = certs_key_generate(&pkey, err);
    if (rc == ATT_OK) {
        rc = att_secret_new(ret_scalar, KEYD_SECRET_LEN, err);
    }
    if (rc == ATT_OK &&
        (!number || !EVP_PKEY_get_bn_param(pkey, OSSL_PKEY_PARAM_PRIV_KEY, &number) ||
         BN_bn2binpad(number, ret_scalar->ptr, KEYD_SECRET_LEN) < 0)) {
        rc = att_fail_openssl(err, ATT_E_CRYPTO, "account key");
    }
    BN_clear_free(number);
    EVP_PKEY_free(pkey);
    return rc;
}

/* Fills the public side from the scalar and takes it over. account_lock is held. */
static enum att_rc adopt(struct keyd *keyd, struct att_secret *scalar, struct att_err *err)
{
    EVP_PKEY *pkey = NULL;
    enum att_rc rc =
        scalar->len == KEYD_SECRET_LEN
            ? open_pkey(scalar, NULL, &pkey, err)
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
    enum att_rc rc = make_scalar(&scalar, err);
    if (rc == ATT_OK) {
        rc = with_auth(keyd, &job, run_seal, err);
    }
    if (rc == ATT_OK) {
        pthread_mutex_lock(&keyd->files);
        rc = keyd_state_write_blob(keyd, FILE_NAME, &blob, err);
        pthread_mutex_unlock(&keyd->files);
    }
    if (rc == ATT_OK) {
        rc = adopt(keyd, &scalar, err);
    }
    if (rc == ATT_OK) {
        keyd_tell(keyd, KEYD_EVENT_CREATED, "account", NULL);
    }
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
    pthread_mutex_lock(&keyd->account_lock);
    /* The point is the SubjectPublicKeyInfo's end (RFC 5480 §2). */
    enum att_rc rc =
        keyd->account_known && keyd->account_spki.len > POINT_LEN
            ? open_pkey(&keyd->account_priv,
                        keyd->account_spki.ptr + keyd->account_spki.len - POINT_LEN, &pkey, err)
            : att_fail(err, ATT_E_INTERNAL, "no account key");
    pthread_mutex_unlock(&keyd->account_lock);
    if (rc != ATT_OK) {
        return rc;
    }
    uint8_t der[CERTS_SIG_DER_MAX];
    size_t len = sizeof der;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, pkey, NULL);
    if (!ctx || EVP_PKEY_sign_init(ctx) != 1 ||
        EVP_PKEY_CTX_set_signature_md(ctx, EVP_sha256()) != 1 ||
        EVP_PKEY_sign(ctx, der, &len, digest, ATT_SHA256_LEN) != 1) {
        rc = att_fail_openssl(err, ATT_E_CRYPTO, "signature");
    }
    EVP_PKEY_CTX_free(ctx);
    EVP_PKEY_free(pkey);
    return rc == ATT_OK ? certs_sig_raw(ATT_SLICE(der, len), ret_raw, err) : rc;
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
