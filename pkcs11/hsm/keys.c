/* One key's life: made, read, used, destroyed. */
#include "pkcs11/hsm/internal.h"

#include <string.h>

#define DESTROY_MAX 8 /* objects of one id and class */

/* ---- handles that are known ---------------------------------------------------------------- */

static struct hsm_cached *place_of(struct hsm *hsm, const uint8_t id[HSM_KEY_ID_LEN])
{
    return &hsm->cache[((size_t)id[0] << 8 | id[1]) % HSM_CACHE]; /* ids are random */
}

static bool recall(struct hsm_call *call, const uint8_t id[HSM_KEY_ID_LEN], CK_OBJECT_HANDLE *ret,
                   bool *ret_rsa)
{
    pthread_mutex_lock(&call->hsm->lock);
    const struct hsm_cached *place = place_of(call->hsm, id);
    bool known =
        place->connection == call->connection && memcmp(place->id, id, HSM_KEY_ID_LEN) == 0;
    if (known) {
        *ret = place->handle;
        *ret_rsa = place->rsa;
    }
    pthread_mutex_unlock(&call->hsm->lock);
    return known;
}

/* connection 0 forgets it. */
static void remember(struct hsm_call *call, const uint8_t id[HSM_KEY_ID_LEN], uint64_t connection,
                     CK_OBJECT_HANDLE handle, bool rsa)
{
    pthread_mutex_lock(&call->hsm->lock);
    struct hsm_cached *place = place_of(call->hsm, id);
    memcpy(place->id, id, HSM_KEY_ID_LEN);
    place->connection = connection;
    place->handle = handle;
    place->rsa = rsa;
    pthread_mutex_unlock(&call->hsm->lock);
}

/* ---- signing ------------------------------------------------------------------------------- */

struct sign_job {
    const uint8_t *id;
    struct att_slice digest;
    enum att_rsa_scheme scheme; /* 0: ECDSA */
    uint8_t signature[HSM_SIGNATURE_MAX];
    size_t len;
};

/* The private key with its type, found again or searched for. */
static enum att_rc find_private(struct hsm_call *call, const uint8_t *id, CK_OBJECT_HANDLE *ret_key,
                                bool *ret_rsa, struct att_err *err)
{
    CK_KEY_TYPE type = CKK_EC;
    CK_ATTRIBUTE attr = {CKA_KEY_TYPE, &type, sizeof type};
    if (recall(call, id, ret_key, ret_rsa)) {
        return ATT_OK;
    }
    enum att_rc rc = hsm_object_find(call, CKO_PRIVATE_KEY, id, ret_key, err);
    if (rc != ATT_OK) {
        return rc;
    }
    CK_RV rv = call->module->C_GetAttributeValue(call->session, *ret_key, &attr, 1);
    if (rv != CKR_OK) {
        return hsm_call_failed(call, rv, "C_GetAttributeValue of CKA_KEY_TYPE", err);
    }
    *ret_rsa = type == CKK_RSA;
    remember(call, id, call->connection, *ret_key, *ret_rsa);
    return ATT_OK;
}

static enum att_rc run_sign(struct hsm_call *call, void *arg, struct att_err *err)
{
    struct sign_job *job = arg;
    CK_OBJECT_HANDLE key = CK_INVALID_HANDLE;
    bool rsa = false;
    enum att_rc rc = find_private(call, job->id, &key, &rsa, err);
    if (rc != ATT_OK) {
        return rc;
    }
    if (rsa != (job->scheme != 0)) {
        (void)!att_fail(err, ATT_E_UNSUPPORTED, "the key is %s RSA key: it does not sign so",
                        rsa ? "an" : "no");
        att_err_reason(err, "keyType");
        return ATT_E_UNSUPPORTED;
    }
    return rsa ? hsm_sign_rsa(call, key, job->scheme, job->digest, job->signature, &job->len, err)
               : hsm_sign_ecdsa(call, key, job->digest.ptr, job->signature, err);
}

enum att_rc hsm_key_sign(struct hsm *hsm, const uint8_t id[HSM_KEY_ID_LEN],
                         const uint8_t digest[ATT_SHA256_LEN],
                         uint8_t ret_signature[HSM_SIGNATURE_LEN], struct att_err *err)
{
    struct sign_job job = {.id = id, .digest = ATT_SLICE(digest, ATT_SHA256_LEN)};
    enum att_rc rc = hsm_run(hsm, run_sign, &job, err);
    if (rc == ATT_OK) {
        memcpy(ret_signature, job.signature, HSM_SIGNATURE_LEN);
    }
    return rc;
}

enum att_rc hsm_key_sign_rsa(struct hsm *hsm, const uint8_t id[HSM_KEY_ID_LEN],
                             enum att_rsa_scheme scheme, struct att_slice digest,
                             uint8_t ret_signature[HSM_SIGNATURE_MAX], size_t *ret_len,
                             struct att_err *err)
{
    struct sign_job job = {.id = id, .digest = digest, .scheme = scheme};
    enum att_rc rc = hsm_run(hsm, run_sign, &job, err);
    if (rc == ATT_OK) {
        memcpy(ret_signature, job.signature, job.len);
        *ret_len = job.len;
    }
    return rc;
}

/* ---- reading ------------------------------------------------------------------------------- */

struct read_job {
    const uint8_t *id;
    enum att_keytype type; /* that is to be made */
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
    return rc == ATT_OK ? hsm_object_public(call, public, &job->key, err) : rc;
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
    remember(call, id, 0, CK_INVALID_HANDLE, false);
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

/* What a module answers to a template that it does not like: each has its own word for that. */
static bool is_template_rv(CK_RV rv)
{
    return rv == CKR_ATTRIBUTE_TYPE_INVALID || rv == CKR_ATTRIBUTE_VALUE_INVALID ||
           rv == CKR_ATTRIBUTE_READ_ONLY || rv == CKR_TEMPLATE_INCONSISTENT ||
           rv == CKR_GENERAL_ERROR || rv == CKR_FUNCTION_FAILED || rv == CKR_ARGUMENTS_BAD;
}

/* Once more without what some modules do not know or set themselves; reading back decides whether
 * that is enough. */
static enum att_rc generate_pair(struct hsm_call *call, const struct read_job *job,
                                 CK_OBJECT_HANDLE *ret_public, CK_OBJECT_HANDLE *ret_private,
                                 CK_RV *ret_first, struct att_err *err)
{
    CK_RV rv = hsm_generate(call, job->id, job->type, true, ret_public, ret_private);
    *ret_first = rv;
    if (is_template_rv(rv)) {
        enum att_rc rc = destroy_both(call, job->id, err); /* if anything was left */
        if (rc != ATT_OK) {
            return rc;
        }
        rv = hsm_generate(call, job->id, job->type, false, ret_public, ret_private);
    }
    return rv == CKR_OK ? ATT_OK : hsm_call_failed(call, rv, "C_GenerateKeyPair", err);
}

static enum att_rc inspect(struct hsm_call *call, CK_OBJECT_HANDLE public, CK_OBJECT_HANDLE private,
                           enum att_keytype wanted, struct hsm_key *key, struct att_err *err)
{
    enum att_rc rc = hsm_object_attrs(call, private, key, err);
    if (rc == ATT_OK) {
        rc = hsm_object_check(key->stated, key->holds, err);
    }
    if (rc == ATT_OK) {
        rc = hsm_object_public(call, public, key, err);
    }
    if (rc == ATT_OK && key->type != wanted) {
        (void)!att_fail(err, ATT_E_UNSUPPORTED, "the module made a key of type %s, expected %s",
                        att_keytype_name(key->type), att_keytype_name(wanted));
        att_err_reason(err, "keyAttributes");
        rc = ATT_E_UNSUPPORTED;
    }
    return rc == ATT_OK ? hsm_sign_check(call, private, key, err) : rc;
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
        rc = generate_pair(call, job, &public, &private, &first, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    rc = inspect(call, public, private, job->type, &job->key, err);
    if (rc != ATT_OK && call->rv == CKR_OK && !call->again && hsm_errors_again(first)) {
        /* Was it the template, or the device for a moment? The latter is asked first. */
        return hsm_call_failed(call, first, "C_GenerateKeyPair", err);
    }
    if (rc == ATT_OK) {
        remember(call, job->id, call->connection, private, att_keytype_is_rsa(job->type));
    } else if (!hsm_errors_again(call->rv)) { /* else the second try does it */
        (void)call->module->C_DestroyObject(call->session, private);
        (void)call->module->C_DestroyObject(call->session, public);
    }
    return rc;
}

enum att_rc hsm_key_create(struct hsm *hsm, const uint8_t id[HSM_KEY_ID_LEN], enum att_keytype type,
                           struct hsm_key *ret_key, struct att_err *err)
{
    struct read_job job = {.id = id, .type = type};
    if (type == ATT_KEYTYPE_NONE) {
        return att_fail(err, ATT_E_INVAL, "a key of no type");
    }
    enum att_rc rc = hsm_run(hsm, run_create, &job, err);
    if (rc == ATT_OK) {
        *ret_key = job.key;
    }
    return rc;
}
