/* Objects as attributes, and the calls that look at them. */
#include "pkcs11/token/internal.h"

#include "attestd/base/hash.h"

#include <stdlib.h>
#include <string.h>

#define LABEL_AGENT "agent"

void token_attr_bool(struct attr_value *ret, bool value)
{
    ret->room[0] = 0;
    memcpy(ret->room, &(CK_BBOOL){value}, sizeof(CK_BBOOL));
    ret->ptr = ret->room;
    ret->len = sizeof(CK_BBOOL);
}

void token_attr_ulong(struct attr_value *ret, CK_ULONG value)
{
    memcpy(ret->room, &value, sizeof value);
    ret->ptr = ret->room;
    ret->len = sizeof value;
}

void token_attr_bytes(struct attr_value *ret, struct att_slice bytes)
{
    ret->ptr = bytes.len ? bytes.ptr : (const uint8_t *)"";
    ret->len = bytes.len;
}

static struct att_slice text(const char *s)
{
    return att_slice_str(s);
}

/* ---- what every object of the token has ---- */
static enum attr_result common_attr(CK_ATTRIBUTE_TYPE type, struct attr_value *ret)
{
    switch (type) {
    case CKA_TOKEN:
        token_attr_bool(ret, true);
        return ATTR_OK;
    case CKA_PRIVATE: /* all can be seen without a login: the connection is the login */
    case CKA_MODIFIABLE:
    case CKA_COPYABLE:
    case CKA_DESTROYABLE:
        token_attr_bool(ret, false);
        return ATTR_OK;
    default:
        return ATTR_NONE;
    }
}

/* ---- both halves of the key; no ALLOWED_MECHANISMS, whose size p11-kit 0.24 cannot carry ---- */
static enum attr_result key_attr(const struct token_set *set, CK_ATTRIBUTE_TYPE type,
                                 struct attr_value *ret)
{
    switch (type) {
    case CKA_KEY_TYPE:
        token_attr_ulong(ret, set->modulus.len ? CKK_RSA : CKK_EC);
        return ATTR_OK;
    case CKA_ID:
        token_attr_bytes(ret, ATT_SLICE_ARRAY(set->id));
        return ATTR_OK;
    case CKA_LABEL:
        token_attr_bytes(ret, text(LABEL_AGENT));
        return ATTR_OK;
    case CKA_SUBJECT:
        token_attr_bytes(ret, set->leaf.subject);
        return ATTR_OK;
    case CKA_EC_PARAMS:
    case CKA_EC_POINT:
        token_attr_bytes(ret, type == CKA_EC_PARAMS ? set->leaf.ec_params
                                                    : ATT_SLICE(set->point, set->point_len));
        return set->modulus.len ? ATTR_NONE : ATTR_OK;
    case CKA_MODULUS:
    case CKA_PUBLIC_EXPONENT:
        token_attr_bytes(ret, type == CKA_MODULUS ? set->modulus : TOKEN_RSA_EXPONENT);
        return set->modulus.len ? ATTR_OK : ATTR_NONE;
    case CKA_MODULUS_BITS:
        token_attr_ulong(ret, 8 * set->modulus.len);
        return set->modulus.len ? ATTR_OK : ATTR_NONE;
    case CKA_PUBLIC_KEY_INFO:
        token_attr_bytes(ret, set->leaf.spki);
        return ATTR_OK;
    case CKA_START_DATE:
    case CKA_END_DATE:
        token_attr_bytes(ret, ATT_SLICE(NULL, 0));
        return ATTR_OK;
    case CKA_KEY_GEN_MECHANISM:
        token_attr_ulong(ret, set->modulus.len ? CKM_RSA_PKCS_KEY_PAIR_GEN : CKM_EC_KEY_PAIR_GEN);
        return ATTR_OK;
    case CKA_LOCAL:
        token_attr_bool(ret, true);
        return ATTR_OK;
    case CKA_DERIVE:
        token_attr_bool(ret, false);
        return ATTR_OK;
    default:
        return common_attr(type, ret);
    }
}

static enum attr_result private_attr(const struct token_set *set, CK_ATTRIBUTE_TYPE type,
                                     struct attr_value *ret)
{
    switch (type) {
    case CKA_CLASS:
        token_attr_ulong(ret, CKO_PRIVATE_KEY);
        return ATTR_OK;
    case CKA_SENSITIVE:
    case CKA_ALWAYS_SENSITIVE:
    case CKA_NEVER_EXTRACTABLE:
    case CKA_SIGN:
        token_attr_bool(ret, true);
        return ATTR_OK;
    case CKA_EXTRACTABLE:
    case CKA_SIGN_RECOVER:
    case CKA_DECRYPT:
    case CKA_UNWRAP:
    case CKA_WRAP_WITH_TRUSTED:
    case CKA_ALWAYS_AUTHENTICATE:
        token_attr_bool(ret, false);
        return ATTR_OK;
    case CKA_VALUE:
        return ATTR_SENSITIVE;
    case CKA_PRIVATE_EXPONENT:
    case CKA_PRIME_1:
    case CKA_PRIME_2:
    case CKA_EXPONENT_1:
    case CKA_EXPONENT_2:
    case CKA_COEFFICIENT:
        return set->modulus.len ? ATTR_SENSITIVE : ATTR_NONE;
    default:
        return key_attr(set, type, ret);
    }
}

static enum attr_result public_attr(const struct token_set *set, CK_ATTRIBUTE_TYPE type,
                                    struct attr_value *ret)
{
    switch (type) {
    case CKA_CLASS:
        token_attr_ulong(ret, CKO_PUBLIC_KEY);
        return ATTR_OK;
    case CKA_VERIFY:
        token_attr_bool(ret, true);
        return ATTR_OK;
    case CKA_ENCRYPT:
    case CKA_WRAP:
    case CKA_VERIFY_RECOVER:
    case CKA_TRUSTED:
        token_attr_bool(ret, false);
        return ATTR_OK;
    default:
        return key_attr(set, type, ret);
    }
}

static enum attr_result data_attr(const struct token_set *set, CK_ATTRIBUTE_TYPE type,
                                  struct attr_value *ret)
{
    switch (type) {
    case CKA_CLASS:
        token_attr_ulong(ret, CKO_DATA);
        return ATTR_OK;
    case CKA_LABEL:
        token_attr_bytes(ret, text("spiffe-id"));
        return ATTR_OK;
    case CKA_APPLICATION:
        token_attr_bytes(ret, text("attestd"));
        return ATTR_OK;
    case CKA_OBJECT_ID:
        token_attr_bytes(ret, ATT_SLICE(NULL, 0));
        return ATTR_OK;
    case CKA_VALUE:
        token_attr_bytes(ret, text(set->spiffe_id));
        return ATTR_OK;
    default:
        return common_attr(type, ret);
    }
}

/* ---- certificates ---- */
static struct att_slice part_of(const struct token_cert *cert, CK_ATTRIBUTE_TYPE type)
{
    switch (type) {
    case CKA_SUBJECT:
        return cert->subject;
    case CKA_ISSUER:
        return cert->issuer;
    case CKA_SERIAL_NUMBER:
        return cert->serial;
    default:
        return cert->spki;
    }
}

/* The leaf's is the key's; a CA's is of its own public key, so that it is the same everywhere. */
static void cert_id(const struct token_set *set, size_t index, struct attr_value *ret)
{
    static uint8_t digest[ATT_SHA256_LEN];
    struct token_cert cert;
    if (index == 0) {
        token_attr_bytes(ret, ATT_SLICE_ARRAY(set->id));
    } else if (token_cert_parse(set->certs[index], &cert, NULL) == ATT_OK) {
        att_sha256(digest, cert.spki);
        token_attr_bytes(ret, ATT_SLICE(digest, 20));
    } else {
        token_attr_bytes(ret, ATT_SLICE(NULL, 0));
    }
}

static enum attr_result cert_attr(const struct token_set *set, size_t index, CK_ATTRIBUTE_TYPE type,
                                  struct attr_value *ret)
{
    struct token_cert cert = {0};
    switch (type) {
    case CKA_CLASS:
        token_attr_ulong(ret, CKO_CERTIFICATE);
        return ATTR_OK;
    case CKA_CERTIFICATE_TYPE:
        token_attr_ulong(ret, CKC_X_509);
        return ATTR_OK;
    case CKA_CERTIFICATE_CATEGORY: /* 1: the token's user, 2: an authority */
        token_attr_ulong(ret, index == 0 ? 1 : 2);
        return ATTR_OK;
    case CKA_JAVA_MIDP_SECURITY_DOMAIN:
        token_attr_ulong(ret, 0);
        return ATTR_OK;
    case CKA_TRUSTED: /* the bundle is for peers with SPIFFE IDs; a program has to choose it */
        token_attr_bool(ret, false);
        return ATTR_OK;
    case CKA_ID:
        cert_id(set, index, ret);
        return ATTR_OK;
    case CKA_LABEL:
        token_attr_bytes(ret, text(index == 0                 ? LABEL_AGENT
                                   : index < set->chain_count ? "intermediate"
                                                              : "root"));
        return ATTR_OK;
    case CKA_VALUE:
        token_attr_bytes(ret, set->certs[index]);
        return ATTR_OK;
    case CKA_SUBJECT:
    case CKA_ISSUER:
    case CKA_SERIAL_NUMBER:
    case CKA_PUBLIC_KEY_INFO:
        (void)!token_cert_parse(set->certs[index], &cert, NULL);
        token_attr_bytes(ret, part_of(&cert, type));
        return ATTR_OK;
    case CKA_START_DATE:
    case CKA_END_DATE:
    case CKA_URL:
        token_attr_bytes(ret, ATT_SLICE(NULL, 0));
        return ATTR_OK;
    default:
        return common_attr(type, ret);
    }
}

enum attr_result token_object_attr(CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type,
                                   struct attr_value *ret)
{
    size_t index;
    const struct peer_key *peer = token_peer_of(object);
    if (peer) {
        return token_peer_attr(peer, type, ret);
    }
    const struct token_set *set = token_set_of(object, &index);
    switch (set ? index : SET_STRIDE) {
    case INDEX_PRIVATE:
        return private_attr(set, type, ret);
    case INDEX_PUBLIC:
        return public_attr(set, type, ret);
    case INDEX_DATA:
        return data_attr(set, type, ret);
    case SET_STRIDE:
        return ATTR_NONE;
    default:
        return cert_attr(set, index - INDEX_CERTS, type, ret);
    }
}

bool token_object_exists(CK_OBJECT_HANDLE object)
{
    size_t index;
    return token_peer_of(object) || token_set_of(object, &index);
}

/* ---- calls ----------------------------------------------------------------------------------- */

/* PKCS#11 2.40 §5.7: every attribute is tried; the call's result is one of what failed. */
static CK_RV give(CK_OBJECT_HANDLE object, CK_ATTRIBUTE *attr)
{
    struct attr_value value;
    switch (token_object_attr(object, attr->type, &value)) {
    case ATTR_SENSITIVE:
        attr->ulValueLen = CK_UNAVAILABLE_INFORMATION;
        return CKR_ATTRIBUTE_SENSITIVE;
    case ATTR_NONE:
        attr->ulValueLen = CK_UNAVAILABLE_INFORMATION;
        return CKR_ATTRIBUTE_TYPE_INVALID;
    case ATTR_OK:
        break;
    }
    if (attr->pValue && attr->ulValueLen < value.len) {
        attr->ulValueLen = CK_UNAVAILABLE_INFORMATION;
        return CKR_BUFFER_TOO_SMALL;
    }
    if (attr->pValue && value.len) {
        memcpy(attr->pValue, value.ptr, value.len);
    }
    attr->ulValueLen = value.len;
    return CKR_OK;
}

CK_RV token_C_GetAttributeValue(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object,
                                CK_ATTRIBUTE *templ, CK_ULONG count)
{
    struct session *s;
    CK_RV rv = token_session(session, &s);
    if (rv != CKR_OK) {
        return rv;
    }
    if (!token_object_exists(object)) {
        return CKR_OBJECT_HANDLE_INVALID;
    }
    if (count && !templ) {
        return CKR_ARGUMENTS_BAD;
    }
    for (CK_ULONG i = 0; i < count; i++) {
        CK_RV one = give(object, &templ[i]);
        rv = one == CKR_OK ? rv : one;
    }
    return rv;
}

CK_RV token_C_GetObjectSize(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ULONG *size)
{
    struct session *s;
    CK_RV rv = token_session(session, &s);
    if (rv == CKR_OK && !token_object_exists(object)) {
        rv = CKR_OBJECT_HANDLE_INVALID;
    }
    if (rv == CKR_OK && size) {
        *size = CK_UNAVAILABLE_INFORMATION;
    }
    return rv;
}

CK_RV token_C_SetAttributeValue(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object,
                                CK_ATTRIBUTE *templ, CK_ULONG count)
{
    struct session *s;
    CK_RV rv = token_session(session, &s);
    (void)templ;
    (void)count;
    return rv != CKR_OK                   ? rv
           : !token_object_exists(object) ? CKR_OBJECT_HANDLE_INVALID
           : token_peer_of(object)        ? CKR_ACTION_PROHIBITED
                                          : CKR_TOKEN_WRITE_PROTECTED;
}

CK_RV token_C_CopyObject(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE *templ,
                         CK_ULONG count, CK_OBJECT_HANDLE *copy)
{
    struct session *s;
    CK_RV rv = token_session(session, &s);
    (void)templ;
    (void)count;
    (void)copy;
    return rv != CKR_OK                   ? rv
           : !token_object_exists(object) ? CKR_OBJECT_HANDLE_INVALID
                                          : CKR_ACTION_PROHIBITED;
}

/* ---- searching ---- */

static bool matches(CK_OBJECT_HANDLE object, const CK_ATTRIBUTE *templ, CK_ULONG count)
{
    struct attr_value value;
    for (CK_ULONG i = 0; i < count; i++) {
        if (token_object_attr(object, templ[i].type, &value) != ATTR_OK ||
            templ[i].ulValueLen != value.len ||
            (value.len &&
             (!templ[i].pValue || memcmp(templ[i].pValue, value.ptr, value.len) != 0))) {
            return false;
        }
    }
    return true;
}

static CK_RV search(struct session *s, const CK_ATTRIBUTE *templ, CK_ULONG count)
{
    const struct token_set *set = token_self.current;
    size_t of_set = set ? token_set_count(set) : 0;
    s->found = calloc(of_set + PEER_KEYS_MAX, sizeof *s->found);
    if (!s->found) {
        return CKR_HOST_MEMORY;
    }
    s->found_count = s->found_at = 0;
    for (size_t i = 0; i < of_set; i++) {
        CK_OBJECT_HANDLE object = token_set_handle(set, i);
        if (matches(object, templ, count)) {
            s->found[s->found_count++] = object;
        }
    }
    for (size_t i = 0; i < PEER_KEYS_MAX; i++) {
        CK_OBJECT_HANDLE object = token_self.peers[i].handle;
        if (object && matches(object, templ, count)) {
            s->found[s->found_count++] = object;
        }
    }
    s->finding = true;
    return CKR_OK;
}

CK_RV token_C_FindObjectsInit(CK_SESSION_HANDLE session, CK_ATTRIBUTE *templ, CK_ULONG count)
{
    struct session *s;
    CK_RV rv = token_session(session, &s);
    if (rv == CKR_OK && s->finding) {
        rv = CKR_OPERATION_ACTIVE;
    }
    if (rv == CKR_OK && count && !templ) {
        rv = CKR_ARGUMENTS_BAD;
    }
    if (rv == CKR_OK) {
        rv = token_set_refresh();
    }
    return rv == CKR_OK ? search(s, templ, count) : rv;
}

CK_RV token_C_FindObjects(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE *objects, CK_ULONG max,
                          CK_ULONG *count)
{
    struct session *s;
    CK_RV rv = token_session(session, &s);
    if (rv != CKR_OK) {
        return rv;
    }
    if (!s->finding) {
        return CKR_OPERATION_NOT_INITIALIZED;
    }
    if (!count || (max && !objects)) {
        return CKR_ARGUMENTS_BAD;
    }
    size_t left = s->found_count - s->found_at, n = left < max ? left : max;
    if (n) {
        memcpy(objects, s->found + s->found_at, n * sizeof *objects);
    }
    s->found_at += n;
    *count = n;
    return CKR_OK;
}

CK_RV token_C_FindObjectsFinal(CK_SESSION_HANDLE session)
{
    struct session *s;
    CK_RV rv = token_session(session, &s);
    if (rv == CKR_OK && !s->finding) {
        rv = CKR_OPERATION_NOT_INITIALIZED;
    }
    if (rv == CKR_OK) {
        free(s->found);
        s->found = NULL;
        s->finding = false;
    }
    return rv;
}
