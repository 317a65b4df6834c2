/* One key's life: made, read, used, destroyed. */
#include "pkcs11/hsm/internal.h"

#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <string.h>

#define DESTROY_MAX 8 /* objects of one id and class */

/* ---- handles that are known ---------------------------------------------------------------- */

static struct hsm_cached *place_of(struct hsm *hsm, const uint8_t id[HSM_KEY_ID_LEN])
{
    return &hsm->cache[((size_t)id[0] << 8 | id[1]) % HSM_CACHE]; /* ids are random */
}

static bool recall(struct hsm_call *call, const uint8_t id[HSM_KEY_ID_LEN], CK_OBJECT_HANDLE *ret)
{
    pthread_mutex_lock(&call->hsm->lock);
    const struct hsm_cached *place = place_of(call->hsm, id);
    bool known =
        place->connection == call->connection && memcmp(place->id, id, HSM_KEY_ID_LEN) == 0;
    if (known) {
        *ret = place->handle;
    }
    pthread_mutex_unlock(&call->hsm->lock);
    return known;
}

/* connection 0 forgets it. */
static void remember(struct hsm_call *call, const uint8_t id[HSM_KEY_ID_LEN], uint64_t connection,
                     CK_OBJECT_HANDLE handle)
{
    pthread_mutex_lock(&call->hsm->lock);
    struct hsm_cached *place = place_of(call->hsm, id);
    memcpy(place->id, id, HSM_KEY_ID_LEN);
    place->connection = connection;
    place->handle = handle;
    pthread_mutex_unlock(&call->hsm->lock);
}

/* ---- signing ------------------------------------------------------------------------------- */

static enum att_rc sign_with(struct hsm_call *call, CK_OBJECT_HANDLE key,
                             const uint8_t digest[ATT_SHA256_LEN], uint8_t ret[HSM_SIGNATURE_LEN],
                             struct att_err *err)
{
    CK_MECHANISM mechanism = {CKM_ECDSA, NULL, 0};
    uint8_t data[ATT_SHA256_LEN], signature[256];
    CK_ULONG len = sizeof signature;
    memcpy(data, digest, sizeof data);
    CK_RV rv = call->module->C_SignInit(call->session, &mechanism, key);
    if (rv != CKR_OK) {
        return hsm_call_failed(call, rv, "C_SignInit", err);
    }
    rv = call->module->C_Sign(call->session, data, sizeof data, signature, &len);
    if (rv != CKR_OK) {
        return hsm_call_failed(call, rv, "C_Sign", err);
    }
    if (len != HSM_SIGNATURE_LEN) {
        (void)!att_fail(err, ATT_E_PROTOCOL, "C_Sign: a signature of %lu bytes, expected %d", len,
                        HSM_SIGNATURE_LEN);
        att_err_reason(err, "moduleAnswer");
        return ATT_E_PROTOCOL;
    }
    memcpy(ret, signature, HSM_SIGNATURE_LEN);
    return ATT_OK;
}

struct sign_job {
    const uint8_t *id, *digest;
    uint8_t signature[HSM_SIGNATURE_LEN];
};

static enum att_rc run_sign(struct hsm_call *call, void *arg, struct att_err *err)
{
    struct sign_job *job = arg;
    CK_OBJECT_HANDLE key = CK_INVALID_HANDLE;
    enum att_rc rc = ATT_OK;
    if (!recall(call, job->id, &key)) {
        rc = hsm_object_find(call, CKO_PRIVATE_KEY, job->id, &key, err);
        if (rc == ATT_OK) {
            remember(call, job->id, call->connection, key);
        }
    }
    return rc == ATT_OK ? sign_with(call, key, job->digest, job->signature, err) : rc;
}

enum att_rc hsm_key_sign(struct hsm *hsm, const uint8_t id[HSM_KEY_ID_LEN],
                         const uint8_t digest[ATT_SHA256_LEN],
                         uint8_t ret_signature[HSM_SIGNATURE_LEN], struct att_err *err)
{
    struct sign_job job = {.id = id, .digest = digest};
    enum att_rc rc = hsm_run(hsm, run_sign, &job, err);
    if (rc == ATT_OK) {
        memcpy(ret_signature, job.signature, HSM_SIGNATURE_LEN);
    }
    return rc;
}

/* ---- reading ------------------------------------------------------------------------------- */

struct read_job {
    const uint8_t *id;
    struct hsm_key key;
};

static enum att_rc run_read(struct hsm_call *call, void *arg, struct att_err *err)
{
    struct read_job *job = arg;
    CK_OBJECT_HANDLE private, public;
    enum att_rc rc = hsm_object_find(call, CKO_PRIVATE_KEY, job->id, &private, err);
    if (rc == ATT_OK) {
        rc = hsm_object_attrs(call, private, &job->key, err);
    }
    if (rc == ATT_OK) {
        rc = hsm_object_find(call, CKO_PUBLIC_KEY, job->id, &public, err);
    }
    return rc == ATT_OK ? hsm_object_point(call, public, job->key.xy, err) : rc;
}

enum att_rc hsm_key_read(struct hsm *hsm, const uint8_t id[HSM_KEY_ID_LEN], struct hsm_key *ret_key,
                         struct att_err *err)
{
    struct read_job job = {.id = id};
    enum att_rc rc = hsm_run(hsm, run_read, &job, err);
    if (rc == ATT_OK) {
        *ret_key = job.key;
    }
    return rc;
}

/* ---- destroying ---------------------------------------------------------------------------- */

/* All that have this id: a making that failed half way and was tried again may have left two. */
static enum att_rc destroy_each(struct hsm_call *call, CK_OBJECT_CLASS class, const uint8_t *id,
                                struct att_err *err)
{
    struct att_err why = {0};
    enum att_rc rc = ATT_OK;
    for (int i = 0; rc == ATT_OK && i < DESTROY_MAX; i++) {
        CK_OBJECT_HANDLE handle = CK_INVALID_HANDLE;
        rc = hsm_object_any(call, class, id, &handle, &why);
        if (rc == ATT_OK) {
            CK_RV rv = call->module->C_DestroyObject(call->session, handle);
            rc = rv == CKR_OK ? ATT_OK : hsm_call_failed(call, rv, "C_DestroyObject", &why);
        }
    }
    if (rc == ATT_E_NOTFOUND && call->rv == CKR_OK) {
        return ATT_OK;
    }
    if (rc == ATT_OK) {
        rc = att_fail(&why, ATT_E_PROTOCOL, "C_DestroyObject: CKR_OK %d times, and one is left",
                      DESTROY_MAX);
        att_err_reason(&why, "moduleAnswer");
    }
    if (err) {
        *err = why;
    }
    return rc;
}

/* The private key first: what is left of a destruction that was cut off is a public key. */
static enum att_rc destroy_both(struct hsm_call *call, const uint8_t *id, struct att_err *err)
{
    remember(call, id, 0, CK_INVALID_HANDLE);
    enum att_rc rc = destroy_each(call, CKO_PRIVATE_KEY, id, err);
    return rc == ATT_OK ? destroy_each(call, CKO_PUBLIC_KEY, id, err) : rc;
}

static enum att_rc run_destroy(struct hsm_call *call, void *arg, struct att_err *err)
{
    return destroy_both(call, arg, err);
}

enum att_rc hsm_key_destroy(struct hsm *hsm, const uint8_t id[HSM_KEY_ID_LEN], struct att_err *err)
{
    uint8_t copy[HSM_KEY_ID_LEN];
    memcpy(copy, id, sizeof copy);
    return hsm_run(hsm, run_destroy, copy, err);
}

/* ---- making -------------------------------------------------------------------------------- */

static CK_RV generate(struct hsm_call *call, const uint8_t id[HSM_KEY_ID_LEN], bool all,
                      CK_OBJECT_HANDLE *ret_public, CK_OBJECT_HANDLE *ret_private)
{
    CK_MECHANISM mechanism = {CKM_EC_KEY_PAIR_GEN, NULL, 0};
    CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
    CK_OBJECT_CLASS public = CKO_PUBLIC_KEY, private = CKO_PRIVATE_KEY;
    CK_KEY_TYPE type = CKK_EC;
    uint8_t curve[] = {0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}; /* prime256v1 */
    uint8_t copy[HSM_KEY_ID_LEN];
    char label[] = HSM_LABEL;
    memcpy(copy, id, sizeof copy);
    /* Those after the mark are of later versions of the standard, or taken as given by some modules
     * and refused in a template. */
    CK_ATTRIBUTE for_public[] = {
        {CKA_CLASS, &public, sizeof public},
        {CKA_KEY_TYPE, &type, sizeof type},
        {CKA_TOKEN, &yes, sizeof yes},
        {CKA_EC_PARAMS, curve, sizeof curve},
        {CKA_ID, copy, sizeof copy},
        {CKA_LABEL, label, strlen(label)},
        /* mark */
        {CKA_PRIVATE, &no, sizeof no},
        {CKA_MODIFIABLE, &no, sizeof no},
        {CKA_COPYABLE, &no, sizeof no},
    };
    CK_ATTRIBUTE for_private[] = {
        {CKA_CLASS, &private, sizeof private},
        {CKA_KEY_TYPE, &type, sizeof type},
        {CKA_TOKEN, &yes, sizeof yes},
        {CKA_PRIVATE, &yes, sizeof yes},
        {CKA_SENSITIVE, &yes, sizeof yes},
        {CKA_EXTRACTABLE, &no, sizeof no},
        {CKA_SIGN, &yes, sizeof yes},
        {CKA_ID, copy, sizeof copy},
        {CKA_LABEL, label, strlen(label)},
        /* mark */
        {CKA_DECRYPT, &no, sizeof no},
        {CKA_UNWRAP, &no, sizeof no},
        {CKA_DERIVE, &no, sizeof no},
        {CKA_MODIFIABLE, &no, sizeof no},
        {CKA_COPYABLE, &no, sizeof no},
    };
    const CK_ULONG few_public = 6, few_private = 9;
    return call->module->C_GenerateKeyPair(
        call->session, &mechanism, for_public,
        all ? sizeof for_public / sizeof for_public[0] : few_public, for_private,
        all ? sizeof for_private / sizeof for_private[0] : few_private, ret_public, ret_private);
}

/* What a module answers to a template that it does not like: each has its own word for that. */
static bool is_template_rv(CK_RV rv)
{
    return rv == CKR_ATTRIBUTE_TYPE_INVALID || rv == CKR_ATTRIBUTE_VALUE_INVALID ||
           rv == CKR_ATTRIBUTE_READ_ONLY || rv == CKR_TEMPLATE_INCONSISTENT ||
           rv == CKR_GENERAL_ERROR || rv == CKR_FUNCTION_FAILED || rv == CKR_ARGUMENTS_BAD;
}

/* Once more without what some modules do not know or set themselves; reading back decides whether
 * that is enough. */
static enum att_rc generate_pair(struct hsm_call *call, const uint8_t id[HSM_KEY_ID_LEN],
                                 CK_OBJECT_HANDLE *ret_public, CK_OBJECT_HANDLE *ret_private,
                                 CK_RV *ret_first, struct att_err *err)
{
    CK_RV rv = generate(call, id, true, ret_public, ret_private);
    *ret_first = rv;
    if (is_template_rv(rv)) {
        enum att_rc rc = destroy_both(call, id, err); /* if anything was left */
        if (rc != ATT_OK) {
            return rc;
        }
        rv = generate(call, id, false, ret_public, ret_private);
    }
    return rv == CKR_OK ? ATT_OK : hsm_call_failed(call, rv, "C_GenerateKeyPair", err);
}

/* Is the private key the public one's, and does it sign at all? */
static enum att_rc check_signature(struct hsm_call *call, CK_OBJECT_HANDLE private,
                                   const struct hsm_key *key, struct att_err *err)
{
    uint8_t digest[ATT_SHA256_LEN], raw[HSM_SIGNATURE_LEN];
    enum att_rc rc = att_random(digest, sizeof digest, err);
    if (rc == ATT_OK) {
        rc = sign_with(call, private, digest, raw, err);
    }
    EVP_PKEY *pkey = NULL;
    if (rc == ATT_OK) {
        rc = att_p256_key(key->xy, &pkey, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    ECDSA_SIG *sig = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn(raw, 32, NULL), *s = BN_bin2bn(raw + 32, 32, NULL);
    unsigned char *der = NULL;
    int len = -1;
    if (sig && r && s && ECDSA_SIG_set0(sig, r, s) == 1) {
        r = s = NULL;
        len = i2d_ECDSA_SIG(sig, &der);
    }
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(pkey, NULL);
    bool good = len > 0 && ctx && EVP_PKEY_verify_init(ctx) == 1 &&
                EVP_PKEY_verify(ctx, der, (size_t)len, digest, sizeof digest) == 1;
    EVP_PKEY_CTX_free(ctx);
    OPENSSL_free(der);
    BN_free(r);
    BN_free(s);
    ECDSA_SIG_free(sig);
    EVP_PKEY_free(pkey);
    if (!good) {
        (void)!att_fail(err, ATT_E_UNSUPPORTED, "a new key's signature does not verify");
        att_err_reason(err, "keySignature");
    }
    return good ? ATT_OK : ATT_E_UNSUPPORTED;
}

static enum att_rc inspect(struct hsm_call *call, CK_OBJECT_HANDLE public, CK_OBJECT_HANDLE private,
                           struct hsm_key *key, struct att_err *err)
{
    enum att_rc rc = hsm_object_attrs(call, private, key, err);
    if (rc == ATT_OK) {
        rc = hsm_object_check(key->stated, key->holds, err);
    }
    if (rc == ATT_OK) {
        rc = hsm_object_point(call, public, key->xy, err);
    }
    return rc == ATT_OK ? check_signature(call, private, key, err) : rc;
}

/* On the second try the first may have left something: the caller has not been told of it. */
static enum att_rc make_room(struct hsm_call *call, const uint8_t *id, struct att_err *err)
{
    CK_OBJECT_HANDLE handle;
    struct att_err why = {0};
    if (call->again) {
        return destroy_both(call, id, err);
    }
    enum att_rc rc = hsm_object_find(call, CKO_PRIVATE_KEY, id, &handle, &why);
    if (rc == ATT_E_NOTFOUND && call->rv == CKR_OK) {
        return ATT_OK;
    }
    if (rc == ATT_OK || rc == ATT_E_CONFLICT) {
        return att_fail(err, ATT_E_EXISTS, "the token has a key with this CKA_ID");
    }
    if (err) {
        *err = why;
    }
    return rc;
}

static enum att_rc run_create(struct hsm_call *call, void *arg, struct att_err *err)
{
    struct read_job *job = arg;
    CK_OBJECT_HANDLE public = CK_INVALID_HANDLE, private = CK_INVALID_HANDLE;
    CK_RV first = CKR_OK;
    enum att_rc rc = make_room(call, job->id, err);
    if (rc == ATT_OK) {
        rc = generate_pair(call, job->id, &public, &private, &first, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    rc = inspect(call, public, private, &job->key, err);
    if (rc != ATT_OK && call->rv == CKR_OK && !call->again && hsm_errors_again(first)) {
        /* Was it the template, or the device for a moment? The latter is asked first. */
        return hsm_call_failed(call, first, "C_GenerateKeyPair", err);
    }
    if (rc == ATT_OK) {
        remember(call, job->id, call->connection, private);
    } else if (!hsm_errors_again(call->rv)) { /* else the second try does it */
        (void)call->module->C_DestroyObject(call->session, private);
        (void)call->module->C_DestroyObject(call->session, public);
    }
    return rc;
}

enum att_rc hsm_key_create(struct hsm *hsm, const uint8_t id[HSM_KEY_ID_LEN],
                           struct hsm_key *ret_key, struct att_err *err)
{
    struct read_job job = {.id = id};
    enum att_rc rc = hsm_run(hsm, run_create, &job, err);
    if (rc == ATT_OK) {
        *ret_key = job.key;
    }
    return rc;
}
