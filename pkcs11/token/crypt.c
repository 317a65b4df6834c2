/* Signing by the store; verifying, digests and random numbers in software. */
#include "pkcs11/token/internal.h"

#include <string.h>

#define DIGEST_LEAST 20 /* what C_Sign takes: a digest of SHA-1 … */
#define DIGEST_MOST  64 /* … to SHA-512 */

unsigned long token_module_rv(enum att_rc rc)
{
    switch (rc) {
    case ATT_OK:
        return CKR_OK;
    case ATT_E_DENIED: /* frozen, another caller by now, a key without a certificate */
        return CKR_FUNCTION_REJECTED;
    case ATT_E_NOTFOUND: /* the key is gone: look for the agent's key again */
        return CKR_KEY_HANDLE_INVALID;
    case ATT_E_LIMIT: /* the agent's signatures per second are used up */
        return CKR_FUNCTION_FAILED;
    case ATT_E_GONE: /* tokend: this connection will not work again */
        return CKR_DEVICE_REMOVED;
    case ATT_E_UNREACHABLE:
    case ATT_E_TIMEOUT:
    case ATT_E_RETRY:
    case ATT_E_LOCKOUT:
    case ATT_E_IO:
        return CKR_DEVICE_ERROR; /* may work again soon, on this connection */
    case ATT_E_NOMEM:
        return CKR_HOST_MEMORY;
    case ATT_E_INVAL:
        return CKR_DATA_INVALID;
    default:
        return CKR_GENERAL_ERROR;
    }
}

/* ---- signing -----------------------------------------------------------------------------------
 */

static CK_RV check_ecdsa(const CK_MECHANISM *mechanism)
{
    return mechanism->mechanism != CKM_ECDSA ? CKR_MECHANISM_INVALID
           : mechanism->ulParameterLen       ? CKR_MECHANISM_PARAM_INVALID
                                             : CKR_OK;
}

static CK_RV check_sign_key(CK_OBJECT_HANDLE key)
{
    size_t index;
    if (!token_set_of(key, &index)) {
        return token_peer_of(key) ? CKR_KEY_FUNCTION_NOT_PERMITTED : CKR_KEY_HANDLE_INVALID;
    }
    return index == INDEX_PRIVATE  ? CKR_OK
           : index == INDEX_PUBLIC ? CKR_KEY_FUNCTION_NOT_PERMITTED
                                   : CKR_KEY_HANDLE_INVALID;
}

static void sign_end(struct session *s)
{
    s->sign_key = 0;
    token_rsa_end(&s->sign_rsa);
}

static void verify_end(struct session *s)
{
    s->verify_key = 0;
    token_rsa_end(&s->verify_rsa);
}

/* A key's mechanisms are those of its type: the others are none of this token's. rsa is begun where
 * it is an RSA key's. */
static CK_RV begin(const CK_MECHANISM *mechanism, bool is_rsa, struct token_rsa *rsa)
{
    return is_rsa ? token_rsa_begin(mechanism, rsa) : check_ecdsa(mechanism);
}

static bool is_rsa_key(CK_OBJECT_HANDLE key)
{
    size_t index;
    const struct peer_key *peer = token_peer_of(key);
    const struct token_set *set = peer ? NULL : token_set_of(key, &index);
    return peer ? peer->modulus_len != 0 : set && set->modulus.len != 0;
}

CK_RV token_C_SignInit(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key)
{
    struct session *s;
    CK_RV rv = token_session(session, &s);
    if (rv != CKR_OK) {
        return rv;
    }
    if (!mechanism) { /* PKCS#11 3.0 §5.12: ends the operation */
        sign_end(s);
        return CKR_OK;
    }
    if (s->sign_key) {
        return CKR_OPERATION_ACTIVE;
    }
    rv = begin(mechanism, is_rsa_key(key), &s->sign_rsa);
    if (rv == CKR_OK) {
        rv = check_sign_key(key);
    }
    if (rv == CKR_OK) {
        s->sign_key = key;
    } else {
        sign_end(s);
    }
    return rv;
}

static size_t signature_len(CK_OBJECT_HANDLE key)
{
    size_t index;
    const struct token_set *set = token_set_of(key, &index);
    return set && set->modulus.len ? set->modulus.len : TOKEN_SIGNATURE_LEN;
}

static CK_RV sign_by_store(CK_OBJECT_HANDLE key, enum att_rsa_scheme scheme,
                           struct att_slice digest, CK_BYTE *signature, CK_ULONG *signature_room)
{
    size_t index;
    const struct token_store *store = token_self.store;
    struct token_set *set = token_set_of(key, &index);
    uint8_t bytes[ATT_RSA_MODULUS_MAX];
    size_t len = TOKEN_SIGNATURE_LEN;
    if (!set) {
        return CKR_KEY_HANDLE_INVALID; /* its generation had to make room */
    }
    enum att_rc rc =
        scheme ? store->sign_rsa(store->user, set->key_id, scheme, digest, bytes, &len, NULL)
               : store->sign(store->user, set->key_id, digest, bytes, NULL);
    if (rc == ATT_OK && len > *signature_room) {
        rc = ATT_E_PROTOCOL; /* of another length than its certificate's key signs */
    }
    if (rc == ATT_OK) {
        memcpy(signature, bytes, len);
        *signature_room = len;
    }
    set->key_gone = set->key_gone || rc == ATT_E_NOTFOUND;
    return token_module_rv(rc);
}

/* Data, or its last part, is here. */
static CK_RV sign_data(struct session *s, struct att_slice data, CK_BYTE *signature,
                       CK_ULONG *ret_len)
{
    struct token_digest digest;
    if (s->sign_rsa.scheme) {
        CK_RV rv = token_rsa_digest(&s->sign_rsa, data, &digest);
        return rv != CKR_OK
                   ? rv
                   : sign_by_store(s->sign_key, s->sign_rsa.scheme,
                                   ATT_SLICE(digest.bytes, digest.len), signature, ret_len);
    }
    if (data.len < DIGEST_LEAST || data.len > DIGEST_MOST) {
        return CKR_DATA_LEN_RANGE;
    }
    return sign_by_store(s->sign_key, (enum att_rsa_scheme)0, data, signature, ret_len);
}

CK_RV token_C_Sign(CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG len, CK_BYTE *signature,
                   CK_ULONG *ret_len)
{
    struct session *s;
    CK_RV rv = token_session(session, &s);
    if (rv != CKR_OK) {
        return rv;
    }
    if (!s->sign_key) {
        return CKR_OPERATION_NOT_INITIALIZED;
    }
    /* PKCS#11 2.40 §5.2: questions of size leave the operation as it is, and cost nothing here. */
    size_t needed = signature_len(s->sign_key);
    if (ret_len && (!signature || *ret_len < needed)) {
        *ret_len = needed;
        return signature ? CKR_BUFFER_TOO_SMALL : CKR_OK;
    }
    if (!ret_len || !data) {
        rv = CKR_ARGUMENTS_BAD;
    } else if (s->sign_rsa.updated) {
        rv = CKR_OPERATION_ACTIVE;
    } else {
        rv = sign_data(s, ATT_SLICE(data, len), signature, ret_len);
    }
    sign_end(s);
    return rv;
}

/* CKM_ECDSA signs in a single part (PKCS#11 2.40 mechanisms §2.3.6); of RSA's, those that hash. */
CK_RV token_C_SignUpdate(CK_SESSION_HANDLE session, CK_BYTE *part, CK_ULONG len)
{
    struct session *s;
    CK_RV rv = token_session(session, &s);
    if (rv != CKR_OK) {
        return rv;
    }
    rv = !s->sign_key   ? CKR_OPERATION_NOT_INITIALIZED
         : len && !part ? CKR_ARGUMENTS_BAD
                        : token_rsa_update(&s->sign_rsa, ATT_SLICE(part, len));
    if (rv != CKR_OK) {
        sign_end(s);
    }
    return rv;
}

CK_RV token_C_SignFinal(CK_SESSION_HANDLE session, CK_BYTE *signature, CK_ULONG *ret_len)
{
    struct session *s;
    CK_RV rv = token_session(session, &s);
    if (rv != CKR_OK || !s->sign_key) {
        return rv != CKR_OK ? rv : CKR_OPERATION_NOT_INITIALIZED;
    }
    size_t needed = signature_len(s->sign_key);
    if (s->sign_rsa.md && ret_len && (!signature || *ret_len < needed)) {
        *ret_len = needed;
        return signature ? CKR_BUFFER_TOO_SMALL : CKR_OK;
    }
    rv = !s->sign_rsa.md ? CKR_FUNCTION_NOT_SUPPORTED
         : !ret_len      ? CKR_ARGUMENTS_BAD
                         : sign_data(s, ATT_SLICE(NULL, 0), signature, ret_len);
    sign_end(s);
    return rv;
}

/* ---- verifying ---------------------------------------------------------------------------------
 */

CK_RV token_C_VerifyInit(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key)
{
    struct session *s;
    size_t index;
    CK_RV rv = token_session(session, &s);
    if (rv != CKR_OK) {
        return rv;
    }
    if (!mechanism) {
        verify_end(s);
        return CKR_OK;
    }
    if (s->verify_key) {
        return CKR_OPERATION_ACTIVE;
    }
    rv = begin(mechanism, is_rsa_key(key), &s->verify_rsa);
    if (rv == CKR_OK && !token_peer_of(key)) {
        rv = !token_set_of(key, &index) || index > INDEX_PUBLIC ? CKR_KEY_HANDLE_INVALID
             : index == INDEX_PUBLIC                            ? CKR_OK
                                                                : CKR_KEY_FUNCTION_NOT_PERMITTED;
    }
    if (rv == CKR_OK) {
        s->verify_key = key;
    } else {
        verify_end(s);
    }
    return rv;
}

static CK_RV verify_rsa(struct session *s, struct att_slice data, struct att_slice signature)
{
    size_t index;
    struct token_digest digest;
    const struct peer_key *peer = token_peer_of(s->verify_key);
    const struct token_set *set = peer ? NULL : token_set_of(s->verify_key, &index);
    CK_RV rv =
        peer || set ? token_rsa_digest(&s->verify_rsa, data, &digest) : CKR_KEY_HANDLE_INVALID;
    if (rv != CKR_OK) {
        return rv;
    }
    return token_rsa_verify(peer ? ATT_SLICE(peer->modulus, peer->modulus_len) : set->modulus,
                            peer ? ATT_SLICE(peer->exponent, peer->exponent_len)
                                 : TOKEN_RSA_EXPONENT,
                            &s->verify_rsa, &digest, signature);
}

CK_RV token_C_Verify(CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG len, CK_BYTE *signature,
                     CK_ULONG signature_len)
{
    struct session *s;
    size_t index;
    CK_RV rv = token_session(session, &s);
    if (rv != CKR_OK) {
        return rv;
    }
    if (!s->verify_key) {
        return CKR_OPERATION_NOT_INITIALIZED;
    }
    if (s->verify_rsa.scheme) {
        rv = !data || !signature ? CKR_ARGUMENTS_BAD
             : s->verify_rsa.updated
                 ? CKR_OPERATION_ACTIVE
                 : verify_rsa(s, ATT_SLICE(data, len), ATT_SLICE(signature, signature_len));
        verify_end(s);
        return rv;
    }
    const struct peer_key *peer = token_peer_of(s->verify_key);
    const struct token_set *set = peer ? NULL : token_set_of(s->verify_key, &index);
    s->verify_key = 0;
    if (!peer && !set) {
        return CKR_KEY_HANDLE_INVALID;
    }
    if (!data || !signature) {
        return CKR_ARGUMENTS_BAD;
    }
    if (len < DIGEST_LEAST || len > DIGEST_MOST) {
        return CKR_DATA_LEN_RANGE;
    }
    return peer ? token_peer_verify(peer->curve, ATT_SLICE(peer->point, peer->point_len),
                                    ATT_SLICE(data, len), ATT_SLICE(signature, signature_len))
                : token_peer_verify(PEER_CURVE_P256, ATT_SLICE(set->point, set->point_len),
                                    ATT_SLICE(data, len), ATT_SLICE(signature, signature_len));
}

CK_RV token_C_VerifyUpdate(CK_SESSION_HANDLE session, CK_BYTE *part, CK_ULONG len)
{
    struct session *s;
    CK_RV rv = token_session(session, &s);
    if (rv != CKR_OK) {
        return rv;
    }
    rv = !s->verify_key ? CKR_OPERATION_NOT_INITIALIZED
         : len && !part ? CKR_ARGUMENTS_BAD
                        : token_rsa_update(&s->verify_rsa, ATT_SLICE(part, len));
    if (rv != CKR_OK) {
        verify_end(s);
    }
    return rv;
}

CK_RV token_C_VerifyFinal(CK_SESSION_HANDLE session, CK_BYTE *signature, CK_ULONG signature_len)
{
    struct session *s;
    CK_RV rv = token_session(session, &s);
    if (rv != CKR_OK || !s->verify_key) {
        return rv != CKR_OK ? rv : CKR_OPERATION_NOT_INITIALIZED;
    }
    rv = !s->verify_rsa.md ? CKR_FUNCTION_NOT_SUPPORTED
         : !signature      ? CKR_ARGUMENTS_BAD
                           : verify_rsa(s, ATT_SLICE(NULL, 0), ATT_SLICE(signature, signature_len));
    verify_end(s);
    return rv;
}

/* ---- digests ------------------------------------------------------------------------------------
 */

static const EVP_MD *digest_of(CK_MECHANISM_TYPE type)
{
    switch (type) {
    case CKM_SHA_1:
        return EVP_sha1();
    case CKM_SHA256:
        return EVP_sha256();
    case CKM_SHA384:
        return EVP_sha384();
    case CKM_SHA512:
        return EVP_sha512();
    default:
        return NULL;
    }
}

static void digest_end(struct session *s)
{
    EVP_MD_CTX_free(s->digest);
    s->digest = NULL;
    s->digest_updated = false;
}

CK_RV token_C_DigestInit(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism)
{
    struct session *s;
    CK_RV rv = token_session(session, &s);
    if (rv != CKR_OK) {
        return rv;
    }
    if (!mechanism) {
        digest_end(s);
        return CKR_OK;
    }
    if (s->digest) {
        return CKR_OPERATION_ACTIVE;
    }
    const EVP_MD *md = digest_of(mechanism->mechanism);
    if (!md) {
        return CKR_MECHANISM_INVALID;
    }
    s->digest = EVP_MD_CTX_new();
    if (!s->digest || EVP_DigestInit_ex(s->digest, md, NULL) != 1) {
        digest_end(s);
        return CKR_FUNCTION_FAILED;
    }
    return CKR_OK;
}

static CK_RV digest_running(CK_SESSION_HANDLE session, struct session **ret_session)
{
    CK_RV rv = token_session(session, ret_session);
    return rv != CKR_OK || (*ret_session)->digest ? rv : CKR_OPERATION_NOT_INITIALIZED;
}

CK_RV token_C_DigestUpdate(CK_SESSION_HANDLE session, CK_BYTE *part, CK_ULONG len)
{
    struct session *s;
    CK_RV rv = digest_running(session, &s);
    if (rv == CKR_OK && len && !part) {
        rv = CKR_ARGUMENTS_BAD;
    } else if (rv == CKR_OK && len && EVP_DigestUpdate(s->digest, part, len) != 1) {
        rv = CKR_FUNCTION_FAILED;
    }
    if (rv == CKR_OK) {
        s->digest_updated = true;
    } else if (rv != CKR_OPERATION_NOT_INITIALIZED && rv != CKR_SESSION_HANDLE_INVALID &&
               rv != CKR_CRYPTOKI_NOT_INITIALIZED) {
        digest_end(s);
    }
    return rv;
}

CK_RV token_C_DigestFinal(CK_SESSION_HANDLE session, CK_BYTE *digest, CK_ULONG *digest_len)
{
    struct session *s;
    CK_RV rv = digest_running(session, &s);
    if (rv != CKR_OK) {
        return rv;
    }
    CK_ULONG size = (CK_ULONG)EVP_MD_CTX_get_size(s->digest);
    if (digest_len && (!digest || *digest_len < size)) {
        *digest_len = size;
        return digest ? CKR_BUFFER_TOO_SMALL : CKR_OK;
    }
    if (!digest_len) {
        rv = CKR_ARGUMENTS_BAD;
    } else if (EVP_DigestFinal_ex(s->digest, digest, NULL) != 1) {
        rv = CKR_FUNCTION_FAILED;
    } else {
        *digest_len = size;
    }
    digest_end(s);
    return rv;
}

CK_RV token_C_Digest(CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG len, CK_BYTE *digest,
                     CK_ULONG *digest_len)
{
    struct session *s;
    CK_RV rv = digest_running(session, &s);
    if (rv == CKR_OK && s->digest_updated) {
        rv = CKR_OPERATION_ACTIVE;
    }
    if (rv != CKR_OK) {
        return rv;
    }
    CK_ULONG size = (CK_ULONG)EVP_MD_CTX_get_size(s->digest);
    if (digest && digest_len && *digest_len >= size) {
        rv = token_C_DigestUpdate(session, data, len);
    }
    return rv == CKR_OK ? token_C_DigestFinal(session, digest, digest_len) : rv;
}

/* ---- random -------------------------------------------------------------------------------------
 */

CK_RV token_C_SeedRandom(CK_SESSION_HANDLE session, CK_BYTE *seed, CK_ULONG len)
{
    struct session *s;
    (void)seed; /* taken and not needed */
    (void)len;
    return token_session(session, &s);
}

CK_RV token_C_GenerateRandom(CK_SESSION_HANDLE session, CK_BYTE *random, CK_ULONG len)
{
    struct session *s;
    CK_RV rv = token_session(session, &s);
    if (rv == CKR_OK && !random && len) {
        rv = CKR_ARGUMENTS_BAD;
    }
    if (rv == CKR_OK && len) { /* over the wire a buffer of no bytes is no buffer */
        rv = token_module_rv(token_self.store->random(token_self.store->user, random, len, NULL));
    }
    return rv;
}
