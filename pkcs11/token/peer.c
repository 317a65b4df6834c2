/* Public keys that a workload brings along as session objects, and verifying with them in software:
 * TLS libraries that load a provider late send their peers' signatures to the token. */
#include "pkcs11/token/internal.h"

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/params.h>
#include <string.h>

/* DER of the named curves (RFC 5480 §2.1.1.1). */
static const struct {
    const char *name;
    size_t field_len;
    uint8_t params_len, params[10];
} curves[] = {
    {"P-256", 32, 10, {0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}},
    {"P-384", 48, 7, {0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22}},
    {"P-521", 66, 7, {0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23}},
};

static int curve_of(const CK_ATTRIBUTE *params)
{
    for (size_t i = 0; i < sizeof curves / sizeof curves[0]; i++) {
        if (params->ulValueLen == curves[i].params_len &&
            memcmp(params->pValue, curves[i].params, curves[i].params_len) == 0) {
            return (int)i;
        }
    }
    return -1;
}

struct peer_key *token_peer_of(CK_OBJECT_HANDLE handle)
{
    for (size_t i = 0; handle && i < PEER_KEYS_MAX; i++) {
        if (token_self.peers[i].handle == handle) {
            return &token_self.peers[i];
        }
    }
    return NULL;
}

void token_peer_forget(CK_SESSION_HANDLE session)
{
    for (size_t i = 0; i < PEER_KEYS_MAX; i++) {
        if (token_self.peers[i].session == session) {
            token_self.peers[i] = (struct peer_key){0};
        }
    }
}

/* ---- verifying ------------------------------------------------------------------------------- */

/* The point inside an OCTET STRING; some programs send it bare. */
static struct att_slice point_in(struct att_slice octets, size_t field_len)
{
    size_t bare = 2 * field_len + 1, head = bare < 128 ? 2 : 3;
    bool wrapped = octets.len == bare + head && octets.ptr[0] == 0x04 &&
                   octets.ptr[head - 1] == bare && (head == 2 || octets.ptr[1] == 0x81);
    if (wrapped) {
        octets = ATT_SLICE(octets.ptr + head, bare);
    }
    return octets.len == bare && octets.ptr[0] == 0x04 ? octets : ATT_SLICE(NULL, 0);
}

static EVP_PKEY *key_of(int curve, struct att_slice octets)
{
    struct att_slice point = point_in(octets, curves[curve].field_len);
    EVP_PKEY_CTX *ctx = point.len ? EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL) : NULL;
    EVP_PKEY *key = NULL;
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME,
                                         (char *)(uintptr_t)curves[curve].name, 0),
        OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, (void *)(uintptr_t)point.ptr,
                                          point.len),
        OSSL_PARAM_construct_end(),
    };
    if (!ctx || EVP_PKEY_fromdata_init(ctx) != 1 ||
        EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params) != 1) {
        key = NULL;
    }
    EVP_PKEY_CTX_free(ctx);
    return key;
}

/* r ‖ s of equal length → the DER that libcrypto wants; 0: no memory. */
static int to_der(struct att_slice signature, unsigned char **ret_der)
{
    int half = (int)(signature.len / 2), len = 0;
    ECDSA_SIG *sig = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn(signature.ptr, half, NULL);
    BIGNUM *s = BN_bin2bn(signature.ptr + half, half, NULL);
    if (sig && r && s && ECDSA_SIG_set0(sig, r, s) == 1) {
        r = s = NULL;
        len = i2d_ECDSA_SIG(sig, ret_der);
    }
    BN_free(r);
    BN_free(s);
    ECDSA_SIG_free(sig);
    return len > 0 ? len : 0;
}

CK_RV token_peer_verify(int curve, struct att_slice octets, struct att_slice digest,
                        struct att_slice signature)
{
    if (signature.len != 2 * curves[curve].field_len) {
        return CKR_SIGNATURE_LEN_RANGE;
    }
    unsigned char *der = NULL;
    int len = to_der(signature, &der), good = -1;
    EVP_PKEY *key = key_of(curve, octets);
    EVP_PKEY_CTX *ctx = key && len ? EVP_PKEY_CTX_new(key, NULL) : NULL;
    if (ctx && EVP_PKEY_verify_init(ctx) == 1) {
        good = EVP_PKEY_verify(ctx, der, (size_t)len, digest.ptr, digest.len) == 1;
    }
    EVP_PKEY_CTX_free(ctx);
    EVP_PKEY_free(key);
    OPENSSL_free(der);
    return good == 1 ? CKR_OK : good == 0 ? CKR_SIGNATURE_INVALID : CKR_FUNCTION_FAILED;
}

/* ---- making and unmaking --------------------------------------------------------------------- */

static const CK_ATTRIBUTE *find(const CK_ATTRIBUTE *templ, CK_ULONG count, CK_ATTRIBUTE_TYPE type)
{
    for (CK_ULONG i = 0; i < count; i++) {
        if (templ[i].type == type && templ[i].pValue) {
            return &templ[i];
        }
    }
    return NULL;
}

/* fallback where the attribute is not there. */
static CK_ULONG number(const CK_ATTRIBUTE *attr, CK_ULONG fallback)
{
    CK_ULONG value = fallback;
    if (attr && attr->ulValueLen == sizeof value) {
        memcpy(&value, attr->pValue, sizeof value);
    }
    return value;
}

static bool flag(const CK_ATTRIBUTE *attr)
{
    return attr && attr->ulValueLen == sizeof(CK_BBOOL) && *(const CK_BBOOL *)attr->pValue;
}

static void take_text(const CK_ATTRIBUTE *attr, uint8_t *ret, size_t *ret_len)
{
    *ret_len = attr && attr->ulValueLen <= PEER_TEXT_MAX ? attr->ulValueLen : 0;
    if (*ret_len) {
        memcpy(ret, attr->pValue, *ret_len);
    }
}

static CK_RV check_template(const CK_ATTRIBUTE *templ, CK_ULONG count)
{
    const CK_ATTRIBUTE *class = find(templ, count, CKA_CLASS);
    const CK_ATTRIBUTE *type = find(templ, count, CKA_KEY_TYPE);
    if (flag(find(templ, count, CKA_TOKEN))) {
        return CKR_TOKEN_WRITE_PROTECTED;
    }
    if (!class) {
        return CKR_TEMPLATE_INCOMPLETE;
    }
    if (number(class, 0) != CKO_PUBLIC_KEY) { /* no private or secret key ever comes in */
        return CKR_ATTRIBUTE_VALUE_INVALID;
    }
    if (type && number(type, CKK_EC) == CKK_RSA) {
        return find(templ, count, CKA_MODULUS) && find(templ, count, CKA_PUBLIC_EXPONENT)
                   ? CKR_OK
                   : CKR_TEMPLATE_INCOMPLETE;
    }
    if (!type || !find(templ, count, CKA_EC_PARAMS) || !find(templ, count, CKA_EC_POINT)) {
        return type && number(type, CKK_EC) != CKK_EC ? CKR_ATTRIBUTE_VALUE_INVALID
                                                      : CKR_TEMPLATE_INCOMPLETE;
    }
    return number(type, ~CKK_EC) == CKK_EC ? CKR_OK : CKR_ATTRIBUTE_VALUE_INVALID;
}

static bool take_number(const CK_ATTRIBUTE *attr, uint8_t *ret, size_t room, size_t *ret_len)
{
    struct att_slice n = ATT_SLICE(attr->pValue, attr->ulValueLen);
    while (n.len && n.ptr[0] == 0) {
        n.ptr++;
        n.len--;
    }
    if (n.len == 0 || n.len > room) {
        return false;
    }
    memcpy(ret, n.ptr, n.len);
    *ret_len = n.len;
    return true;
}

static CK_RV fill_rsa(struct peer_key *peer, const CK_ATTRIBUTE *templ, CK_ULONG count)
{
    bool ok = take_number(find(templ, count, CKA_MODULUS), peer->modulus, sizeof peer->modulus,
                          &peer->modulus_len) &&
              take_number(find(templ, count, CKA_PUBLIC_EXPONENT), peer->exponent,
                          sizeof peer->exponent, &peer->exponent_len) &&
              token_rsa_key_ok(ATT_SLICE(peer->modulus, peer->modulus_len),
                               ATT_SLICE(peer->exponent, peer->exponent_len));
    take_text(find(templ, count, CKA_LABEL), peer->label, &peer->label_len);
    take_text(find(templ, count, CKA_ID), peer->id, &peer->id_len);
    return ok ? CKR_OK : CKR_ATTRIBUTE_VALUE_INVALID;
}

static CK_RV fill(struct peer_key *peer, const CK_ATTRIBUTE *templ, CK_ULONG count)
{
    if (number(find(templ, count, CKA_KEY_TYPE), CKK_EC) == CKK_RSA) {
        return fill_rsa(peer, templ, count);
    }
    const CK_ATTRIBUTE *point = find(templ, count, CKA_EC_POINT);
    peer->curve = curve_of(find(templ, count, CKA_EC_PARAMS));
    if (peer->curve < 0) {
        return CKR_CURVE_NOT_SUPPORTED;
    }
    if (point->ulValueLen > sizeof peer->point) {
        return CKR_ATTRIBUTE_VALUE_INVALID;
    }
    memcpy(peer->point, point->pValue, point->ulValueLen);
    peer->point_len = point->ulValueLen;
    take_text(find(templ, count, CKA_LABEL), peer->label, &peer->label_len);
    take_text(find(templ, count, CKA_ID), peer->id, &peer->id_len);
    EVP_PKEY *key = key_of(peer->curve, ATT_SLICE(peer->point, peer->point_len));
    EVP_PKEY_free(key);
    return key ? CKR_OK : CKR_ATTRIBUTE_VALUE_INVALID; /* not a point of the curve */
}

CK_RV token_C_CreateObject(CK_SESSION_HANDLE session, CK_ATTRIBUTE *templ, CK_ULONG count,
                           CK_OBJECT_HANDLE *object)
{
    struct session *s;
    CK_RV rv = token_session(session, &s);
    if (rv == CKR_OK && (!object || (count && !templ))) {
        rv = CKR_ARGUMENTS_BAD;
    }
    if (rv == CKR_OK) {
        rv = check_template(templ, count);
    }
    struct peer_key *place = NULL;
    for (size_t i = 0; rv == CKR_OK && !place && i < PEER_KEYS_MAX; i++) {
        place = token_self.peers[i].handle ? NULL : &token_self.peers[i];
    }
    if (rv == CKR_OK && !place) {
        rv = CKR_DEVICE_MEMORY;
    }
    struct peer_key peer = {0};
    if (rv == CKR_OK) {
        rv = fill(&peer, templ, count);
    }
    if (rv == CKR_OK) {
        peer.handle = PEER_HANDLE_BIT | ++token_self.next_peer;
        peer.session = session;
        *place = peer;
        *object = peer.handle;
    }
    return rv;
}

CK_RV token_C_DestroyObject(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object)
{
    struct session *s;
    CK_RV rv = token_session(session, &s);
    struct peer_key *peer = token_peer_of(object);
    if (rv != CKR_OK) {
        return rv;
    }
    if (!peer) {
        return token_object_exists(object) ? CKR_TOKEN_WRITE_PROTECTED : CKR_OBJECT_HANDLE_INVALID;
    }
    *peer = (struct peer_key){0};
    return CKR_OK;
}

enum attr_result token_peer_attr(const struct peer_key *peer, CK_ATTRIBUTE_TYPE type,
                                 struct attr_value *ret)
{
    switch (type) {
    case CKA_CLASS:
        token_attr_ulong(ret, CKO_PUBLIC_KEY);
        return ATTR_OK;
    case CKA_KEY_TYPE:
        token_attr_ulong(ret, peer->modulus_len ? CKK_RSA : CKK_EC);
        return ATTR_OK;
    case CKA_VERIFY:
        token_attr_bool(ret, true);
        return ATTR_OK;
    case CKA_TOKEN:
    case CKA_PRIVATE:
    case CKA_MODIFIABLE:
    case CKA_COPYABLE:
    case CKA_LOCAL:
    case CKA_TRUSTED:
        token_attr_bool(ret, false);
        return ATTR_OK;
    case CKA_DESTROYABLE:
        token_attr_bool(ret, true);
        return ATTR_OK;
    case CKA_LABEL:
        token_attr_bytes(ret, ATT_SLICE(peer->label, peer->label_len));
        return ATTR_OK;
    case CKA_ID:
        token_attr_bytes(ret, ATT_SLICE(peer->id, peer->id_len));
        return ATTR_OK;
    case CKA_MODULUS:
        token_attr_bytes(ret, ATT_SLICE(peer->modulus, peer->modulus_len));
        return peer->modulus_len ? ATTR_OK : ATTR_NONE;
    case CKA_PUBLIC_EXPONENT:
        token_attr_bytes(ret, ATT_SLICE(peer->exponent, peer->exponent_len));
        return peer->modulus_len ? ATTR_OK : ATTR_NONE;
    case CKA_MODULUS_BITS:
        token_attr_ulong(ret, 8 * peer->modulus_len);
        return peer->modulus_len ? ATTR_OK : ATTR_NONE;
    case CKA_EC_PARAMS:
        if (peer->modulus_len) {
            return ATTR_NONE;
        }
        token_attr_bytes(ret,
                         ATT_SLICE(curves[peer->curve].params, curves[peer->curve].params_len));
        return ATTR_OK;
    case CKA_EC_POINT:
        token_attr_bytes(ret, ATT_SLICE(peer->point, peer->point_len));
        return peer->modulus_len ? ATTR_NONE : ATTR_OK;
    default:
        return ATTR_NONE;
    }
}
