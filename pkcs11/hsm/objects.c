/* Objects of ours on the token: found, and read. */
#include "pkcs11/hsm/internal.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    CK_ATTRIBUTE_TYPE type;
    const char *name;
    enum { ANY, MUST, MUST_NOT, NOT_IF_STATED } rule;
} attrs[HSM_ATTR_COUNT] = {
    [HSM_ATTR_LOCAL] = {CKA_LOCAL, "local", MUST},
    [HSM_ATTR_ALWAYS_SENSITIVE] = {CKA_ALWAYS_SENSITIVE, "alwaysSensitive", MUST},
    [HSM_ATTR_NEVER_EXTRACTABLE] = {CKA_NEVER_EXTRACTABLE, "neverExtractable", MUST},
    [HSM_ATTR_SENSITIVE] = {CKA_SENSITIVE, "sensitive", MUST},
    [HSM_ATTR_EXTRACTABLE] = {CKA_EXTRACTABLE, "extractable", MUST_NOT},
    [HSM_ATTR_TOKEN] = {CKA_TOKEN, "token", MUST},
    [HSM_ATTR_PRIVATE] = {CKA_PRIVATE, "private", MUST},
    [HSM_ATTR_SIGN] = {CKA_SIGN, "sign", MUST},
    [HSM_ATTR_DECRYPT] = {CKA_DECRYPT, "decrypt", NOT_IF_STATED},
    [HSM_ATTR_UNWRAP] = {CKA_UNWRAP, "unwrap", NOT_IF_STATED},
    [HSM_ATTR_DERIVE] = {CKA_DERIVE, "derive", NOT_IF_STATED},
    [HSM_ATTR_COPYABLE] = {CKA_COPYABLE, "copyable", ANY},
    [HSM_ATTR_MODIFIABLE] = {CKA_MODIFIABLE, "modifiable", ANY},
};

const char *hsm_attr_name(enum hsm_attr attr)
{
    return attrs[attr].name;
}

enum att_rc hsm_object_check(uint32_t stated, uint32_t holds, struct att_err *err)
{
    for (size_t i = 0; i < HSM_ATTR_COUNT; i++) {
        bool said = stated >> i & 1, holding = said && (holds >> i & 1);
        bool bad = (attrs[i].rule == MUST && !holding) ||
                   (attrs[i].rule == MUST_NOT && (!said || holding)) ||
                   (attrs[i].rule == NOT_IF_STATED && holding);
        if (bad) {
            (void)!att_fail(err, ATT_E_UNSUPPORTED,
                            "the module %s of a new key that %s is %s, expected %s",
                            said ? "states" : "does not state", attrs[i].name,
                            holding ? "true"
                            : said  ? "false"
                                    : "anything",
                            attrs[i].rule == MUST ? "true" : "false");
            att_err_reason(err, "keyAttributes");
            return ATT_E_UNSUPPORTED;
        }
    }
    return ATT_OK;
}

/* ---- finding ------------------------------------------------------------------------------- */

static enum att_rc find_at_most(struct hsm_call *call, CK_ATTRIBUTE *template, CK_ULONG attr_count,
                                CK_OBJECT_HANDLE *ret, CK_ULONG room, CK_ULONG *ret_count,
                                struct att_err *err)
{
    CK_ULONG count = 0;
    CK_RV rv = call->module->C_FindObjectsInit(call->session, template, attr_count);
    if (rv != CKR_OK) {
        return hsm_call_failed(call, rv, "C_FindObjectsInit", err);
    }
    do {
        CK_ULONG got = 0;
        rv = call->module->C_FindObjects(call->session, ret + count, room - count, &got);
        if (got > room - count) {
            rv = rv == CKR_OK ? CKR_BUFFER_TOO_SMALL : rv;
        } else if (got == 0) {
            break;
        } else {
            count += got;
        }
    } while (rv == CKR_OK && count < room);
    if (rv != CKR_OK) {
        return hsm_call_failed(call, rv, "C_FindObjects", err);
    }
    rv = call->module->C_FindObjectsFinal(call->session);
    if (rv != CKR_OK) {
        return hsm_call_failed(call, rv, "C_FindObjectsFinal", err);
    }
    *ret_count = count;
    return ATT_OK;
}

/* Without a login private objects are not refused but not seen: nothing found says nothing then. */
enum att_rc hsm_check_login(struct hsm_call *call, struct att_err *err)
{
    CK_SESSION_INFO info;
    CK_RV rv = call->module->C_GetSessionInfo(call->session, &info);
    if (rv == CKR_OK && info.state != CKS_RW_USER_FUNCTIONS &&
        info.state != CKS_RO_USER_FUNCTIONS && call->hsm->login_required) {
        rv = CKR_USER_NOT_LOGGED_IN;
    }
    return rv == CKR_OK ? ATT_OK : hsm_call_failed(call, rv, "C_GetSessionInfo", err);
}

/* One or two of them. */
static enum att_rc find_by_id(struct hsm_call *call, CK_OBJECT_CLASS class,
                              const uint8_t id[HSM_KEY_ID_LEN], CK_OBJECT_HANDLE ret_found[2],
                              CK_ULONG *ret_count, struct att_err *err)
{
    CK_BBOOL yes = CK_TRUE;
    char label[] = HSM_LABEL;
    uint8_t copy[HSM_KEY_ID_LEN];
    memcpy(copy, id, sizeof copy);
    CK_ATTRIBUTE template[] = {
        {CKA_CLASS, &class, sizeof class},
        {CKA_ID, copy, sizeof copy},
        {CKA_LABEL, label, strlen(label)},
        {CKA_TOKEN, &yes, sizeof yes},
    };
    enum att_rc rc = find_at_most(call, template, sizeof template / sizeof template[0], ret_found,
                                  2, ret_count, err);
    if (rc == ATT_OK && *ret_count == 0) {
        rc = hsm_check_login(call, err);
    }
    if (rc == ATT_OK && *ret_count == 0) {
        rc = att_fail(err, ATT_E_NOTFOUND, "the token has no such key");
        att_err_reason(err, "keyGone");
    }
    return rc;
}

enum att_rc hsm_object_any(struct hsm_call *call, CK_OBJECT_CLASS class,
                           const uint8_t id[HSM_KEY_ID_LEN], CK_OBJECT_HANDLE *ret_handle,
                           struct att_err *err)
{
    CK_OBJECT_HANDLE found[2] = {CK_INVALID_HANDLE};
    CK_ULONG count = 0;
    enum att_rc rc = find_by_id(call, class, id, found, &count, err);
    if (rc == ATT_OK) {
        *ret_handle = found[0];
    }
    return rc;
}

enum att_rc hsm_object_find(struct hsm_call *call, CK_OBJECT_CLASS class,
                            const uint8_t id[HSM_KEY_ID_LEN], CK_OBJECT_HANDLE *ret_handle,
                            struct att_err *err)
{
    CK_OBJECT_HANDLE found[2] = {CK_INVALID_HANDLE};
    CK_ULONG count = 0;
    enum att_rc rc = find_by_id(call, class, id, found, &count, err);
    if (rc == ATT_OK && count == 1) {
        *ret_handle = found[0];
    } else if (rc == ATT_OK) {
        rc = att_fail(err, ATT_E_CONFLICT, "the token has two keys with this CKA_ID");
        att_err_reason(err, "keyTwice");
    }
    return rc;
}

/* ---- reading ------------------------------------------------------------------------------- */

/* One at a time: what a module does with the others when one is unknown to it is not to be relied
 * on. */
static enum att_rc read_bool(struct hsm_call *call, CK_OBJECT_HANDLE object, size_t which,
                             struct hsm_key *key, struct att_err *err)
{
    CK_BBOOL value = 2;
    CK_ATTRIBUTE attr = {attrs[which].type, &value, sizeof value};
    CK_RV rv = call->module->C_GetAttributeValue(call->session, object, &attr, 1);
    if (rv == CKR_ATTRIBUTE_TYPE_INVALID || rv == CKR_ATTRIBUTE_SENSITIVE) {
        return ATT_OK; /* not stated */
    }
    if (rv != CKR_OK) {
        return hsm_call_failed(call, rv, "C_GetAttributeValue", err);
    }
    if (attr.ulValueLen == sizeof value && value <= CK_TRUE) {
        key->stated |= 1u << which;
        key->holds |= value == CK_TRUE ? 1u << which : 0;
    }
    return ATT_OK;
}

enum att_rc hsm_object_attrs(struct hsm_call *call, CK_OBJECT_HANDLE private,
                             struct hsm_key *ret_key, struct att_err *err)
{
    ret_key->stated = ret_key->holds = 0;
    for (size_t i = 0; i < HSM_ATTR_COUNT; i++) {
        enum att_rc rc = read_bool(call, private, i, ret_key, err);
        if (rc != ATT_OK) {
            return rc;
        }
    }
    return ATT_OK;
}

enum att_rc hsm_object_point_parse(struct att_slice value, uint8_t ret_xy[ATT_P256_XY_LEN],
                                   struct att_err *err)
{
    static const uint8_t wrapped[] = {0x04, 0x41, 0x04}; /* OCTET STRING, 65 bytes, uncompressed */
    size_t skip = value.len == 3 + ATT_P256_XY_LEN && memcmp(value.ptr, wrapped, 3) == 0 ? 3
                  : value.len == 1 + ATT_P256_XY_LEN && value.ptr[0] == 0x04             ? 1
                                                                                         : 0;
    if (!skip) {
        return att_fail(err, ATT_E_PROTOCOL,
                        "CKA_EC_POINT: %zu bytes, an uncompressed point on P-256 expected",
                        value.len);
    }
    enum att_rc rc = att_p256_check(value.ptr + skip, err);
    if (rc != ATT_OK) {
        att_err_prefix(err, "CKA_EC_POINT");
        return rc == ATT_E_PARSE ? ATT_E_PROTOCOL : rc;
    }
    memcpy(ret_xy, value.ptr + skip, ATT_P256_XY_LEN);
    return ATT_OK;
}

static enum att_rc read_point(struct hsm_call *call, CK_OBJECT_HANDLE public,
                              struct hsm_key *ret_key, struct att_err *err)
{
    uint8_t value[128], xy[ATT_P256_XY_LEN];
    CK_ATTRIBUTE attr = {CKA_EC_POINT, value, sizeof value};
    CK_RV rv = call->module->C_GetAttributeValue(call->session, public, &attr, 1);
    if (rv != CKR_OK) {
        return hsm_call_failed(call, rv, "C_GetAttributeValue of CKA_EC_POINT", err);
    }
    size_t len = attr.ulValueLen <= sizeof value ? attr.ulValueLen : 0;
    enum att_rc rc = hsm_object_point_parse(ATT_SLICE(value, len), xy, err);
    if (rc == ATT_OK) {
        att_p256_spki(ret_key->spki, xy);
        ret_key->spki_len = ATT_P256_SPKI_LEN;
        ret_key->type = ATT_KEYTYPE_P256;
    }
    return rc;
}

static struct att_slice without_zeroes(struct att_slice n)
{
    while (n.len && n.ptr[0] == 0) {
        n.ptr++;
        n.len--;
    }
    return n;
}

enum att_rc hsm_object_rsa_parse(struct att_slice modulus, struct att_slice exponent,
                                 struct hsm_key *ret_key, struct att_err *err)
{
    static const uint8_t wanted[] = {0x01, 0x00, 0x01};
    att_autobuf spki = ATT_BUF_INIT(ATT_KEYTYPE_SPKI_MAX);
    modulus = without_zeroes(modulus);
    enum att_keytype type = modulus.len == att_keytype_modulus_len(ATT_KEYTYPE_RSA2048)
                                ? ATT_KEYTYPE_RSA2048
                                : ATT_KEYTYPE_RSA3072;
    bool good = att_slice_eq(without_zeroes(exponent), ATT_SLICE_ARRAY(wanted)) &&
                att_keytype_rsa_spki(type, modulus, &spki, NULL) == ATT_OK;
    if (!good) {
        (void)!att_fail(err, ATT_E_UNSUPPORTED,
                        "an RSA key with a modulus of %zu bytes and an exponent of %zu, expected "
                        "2048 or 3072 bits and 65537",
                        modulus.len, without_zeroes(exponent).len);
        att_err_reason(err, "keyAttributes");
        return ATT_E_UNSUPPORTED;
    }
    memcpy(ret_key->spki, spki.ptr, spki.len);
    ret_key->spki_len = spki.len;
    ret_key->type = type;
    return ATT_OK;
}

static enum att_rc read_rsa(struct hsm_call *call, CK_OBJECT_HANDLE public, struct hsm_key *ret_key,
                            struct att_err *err)
{
    uint8_t modulus[520], exponent[16]; /* RSA-4096 is read, and refused by name */
    CK_ATTRIBUTE attrs_of[] = {{CKA_MODULUS, modulus, sizeof modulus},
                               {CKA_PUBLIC_EXPONENT, exponent, sizeof exponent}};
    CK_RV rv = call->module->C_GetAttributeValue(call->session, public, attrs_of, 2);
    if (rv != CKR_OK) {
        return hsm_call_failed(call, rv, "C_GetAttributeValue of CKA_MODULUS", err);
    }
    bool sane =
        attrs_of[0].ulValueLen <= sizeof modulus && attrs_of[1].ulValueLen <= sizeof exponent;
    return hsm_object_rsa_parse(ATT_SLICE(modulus, sane ? attrs_of[0].ulValueLen : 0),
                                ATT_SLICE(exponent, sane ? attrs_of[1].ulValueLen : 0), ret_key,
                                err);
}

enum att_rc hsm_object_public(struct hsm_call *call, CK_OBJECT_HANDLE public,
                              struct hsm_key *ret_key, struct att_err *err)
{
    CK_KEY_TYPE type = ~(CK_KEY_TYPE)0;
    CK_ATTRIBUTE attr = {CKA_KEY_TYPE, &type, sizeof type};
    CK_RV rv = call->module->C_GetAttributeValue(call->session, public, &attr, 1);
    if (rv != CKR_OK) {
        return hsm_call_failed(call, rv, "C_GetAttributeValue of CKA_KEY_TYPE", err);
    }
    if (type == CKK_EC) {
        return read_point(call, public, ret_key, err);
    }
    if (type == CKK_RSA) {
        return read_rsa(call, public, ret_key, err);
    }
    (void)!att_fail(err, ATT_E_UNSUPPORTED, "CKA_KEY_TYPE: %#lx, CKK_EC or CKK_RSA expected", type);
    att_err_reason(err, "keyAttributes");
    return ATT_E_UNSUPPORTED;
}

/* ---- listing ------------------------------------------------------------------------------- */

#define LIST_MAX 8192 /* objects looked at */

struct list {
    const uint8_t *after;
    uint8_t (*ids)[HSM_KEY_ID_LEN];
    size_t room, count;
    CK_OBJECT_HANDLE handles[LIST_MAX];
};

static enum att_rc read_id(struct hsm_call *call, CK_OBJECT_HANDLE object,
                           uint8_t ret_id[HSM_KEY_ID_LEN], bool *ret_ours, struct att_err *err)
{
    uint8_t value[64];
    CK_ATTRIBUTE attr = {CKA_ID, value, sizeof value};
    CK_RV rv = call->module->C_GetAttributeValue(call->session, object, &attr, 1);
    if (rv != CKR_OK && rv != CKR_BUFFER_TOO_SMALL) {
        return hsm_call_failed(call, rv, "C_GetAttributeValue of CKA_ID", err);
    }
    *ret_ours = rv == CKR_OK && attr.ulValueLen == HSM_KEY_ID_LEN;
    if (*ret_ours) {
        memcpy(ret_id, value, HSM_KEY_ID_LEN);
    }
    return ATT_OK;
}

/* Keeps the smallest room ids, in order. */
static void insert(struct list *list, const uint8_t id[HSM_KEY_ID_LEN])
{
    size_t at = 0;
    while (at < list->count && memcmp(list->ids[at], id, HSM_KEY_ID_LEN) < 0) {
        at++;
    }
    bool twice = at < list->count && memcmp(list->ids[at], id, HSM_KEY_ID_LEN) == 0;
    if (twice || at == list->room) {
        return;
    }
    size_t last = list->count < list->room ? list->count : list->room - 1;
    memmove(list->ids[at + 1], list->ids[at], (last - at) * HSM_KEY_ID_LEN);
    memcpy(list->ids[at], id, HSM_KEY_ID_LEN);
    list->count = last + 1;
}

static enum att_rc run_list(struct hsm_call *call, void *arg, struct att_err *err)
{
    struct list *list = arg;
    CK_OBJECT_CLASS class = CKO_PRIVATE_KEY;
    CK_BBOOL yes = CK_TRUE;
    char label[] = HSM_LABEL;
    CK_ATTRIBUTE template[] = {{CKA_CLASS, &class, sizeof class},
                               {CKA_LABEL, label, strlen(label)},
                               {CKA_TOKEN, &yes, sizeof yes}};
    CK_ULONG count = 0;
    list->count = 0;
    enum att_rc rc = find_at_most(call, template, 3, list->handles, LIST_MAX, &count, err);
    for (CK_ULONG i = 0; rc == ATT_OK && i < count; i++) {
        uint8_t id[HSM_KEY_ID_LEN];
        bool ours = false;
        rc = read_id(call, list->handles[i], id, &ours, err);
        if (rc == ATT_OK && ours && (!list->after || memcmp(id, list->after, sizeof id) > 0)) {
            insert(list, id);
        }
    }
    if (rc == ATT_OK) {
        rc = hsm_check_login(call, err);
    }
    if (rc == ATT_OK && count == LIST_MAX) {
        rc = att_fail(err, ATT_E_LIMIT, "the token has %d keys of ours, or more", LIST_MAX);
    }
    return rc;
}

enum att_rc hsm_key_list(struct hsm *hsm, const uint8_t *after, uint8_t (*ret_ids)[HSM_KEY_ID_LEN],
                         size_t room, size_t *ret_count, struct att_err *err)
{
    if (room == 0) {
        return att_fail(err, ATT_E_INVAL, "no room");
    }
    struct list *list = calloc(1, sizeof *list);
    if (!list) {
        return att_fail(err, ATT_E_NOMEM, "list of keys");
    }
    list->after = after;
    list->ids = ret_ids;
    list->room = room;
    enum att_rc rc = hsm_run(hsm, run_list, list, err);
    if (rc == ATT_OK) {
        *ret_count = list->count;
    }
    free(list);
    return rc;
}
