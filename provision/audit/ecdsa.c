#include "provision/audit/ecdsa.h"

#include "attestd/base/enc.h"

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>

#define ALG_ECDSA 2

/* Exactly this form of key, so that one key has one id. */
static EVP_PKEY *read_spki(struct att_slice spki)
{
    char group[32] = "";
    const unsigned char *at = spki.ptr;
    if (spki.len != AUDIT_P256_SPKI_LEN) {
        return NULL;
    }
    EVP_PKEY *key = d2i_PUBKEY(NULL, &at, (long)spki.len);
    if (key && (at != spki.ptr + spki.len || !EVP_PKEY_is_a(key, "EC") ||
                EVP_PKEY_get_group_name(key, group, sizeof group, NULL) != 1 ||
                strcmp(group, "prime256v1") != 0)) {
        EVP_PKEY_free(key);
        key = NULL;
    }
    return key;
}

enum att_rc audit_p256_vkey_make(const char *name, struct att_slice spki,
                                 struct audit_p256_vkey *ret_vkey, struct att_err *err)
{
    uint8_t hash[ATT_SHA256_LEN];
    struct audit_p256_vkey vkey = {0};
    EVP_PKEY *key = audit_name_ok(att_slice_str(name)) ? read_spki(spki) : NULL;
    EVP_PKEY_free(key);
    if (!key) {
        return att_fail(err, ATT_E_INVAL,
                        "audit log: \"%.80s\" with a key of %zu bytes: expected a log's name and a "
                        "P-256 key as SubjectPublicKeyInfo of %d bytes",
                        name, spki.len, AUDIT_P256_SPKI_LEN);
    }
    att_sha256_v(hash, &spki, 1);
    struct att_cur cur = att_cur_init(ATT_SLICE_ARRAY(hash));
    vkey.id = att_cur_be32(&cur);
    snprintf(vkey.name, sizeof vkey.name, "%s", name);
    memcpy(vkey.spki, spki.ptr, sizeof vkey.spki);
    *ret_vkey = vkey;
    return ATT_OK;
}

void audit_p256_vkey_text(const struct audit_p256_vkey *vkey, char ret[AUDIT_P256_VKEY_MAX])
{
    att_autobuf base64 = {0};
    uint8_t key[1 + AUDIT_P256_SPKI_LEN] = {ALG_ECDSA};
    memcpy(key + 1, vkey->spki, AUDIT_P256_SPKI_LEN);
    att_buf_b64(&base64, ATT_SLICE_ARRAY(key));
    const char *text = att_buf_cstr(&base64);
    snprintf(ret, AUDIT_P256_VKEY_MAX, "%s+%08x+%s", vkey->name, (unsigned)vkey->id,
             text ? text : "");
}

static bool read_vkey(struct att_slice text, struct audit_p256_vkey *vkey)
{
    char name[AUDIT_NAME_MAX + 1], id[9];
    att_autobuf key = ATT_BUF_INIT(256);
    const uint8_t *plus = text.len ? memchr(text.ptr, '+', text.len) : NULL;
    size_t len = plus ? (size_t)(plus - text.ptr) : 0;
    if (!len || len > AUDIT_NAME_MAX || text.len < len + 11 || text.ptr[len + 9] != '+' ||
        att_unb64(&key, ATT_SLICE(plus + 10, text.len - len - 10), NULL) ||
        key.len != 1 + AUDIT_P256_SPKI_LEN || key.ptr[0] != ALG_ECDSA) {
        return false;
    }
    memcpy(name, text.ptr, len);
    name[len] = 0;
    if (strlen(name) != len ||
        audit_p256_vkey_make(name, ATT_SLICE(key.ptr + 1, AUDIT_P256_SPKI_LEN), vkey, NULL)) {
        return false;
    }
    snprintf(id, sizeof id, "%08x", (unsigned)vkey->id);
    return memcmp(id, plus + 1, 8) == 0;
}

enum att_rc audit_p256_vkey_parse(struct att_slice text, struct audit_p256_vkey *ret_vkey,
                                  struct att_err *err)
{
    struct audit_p256_vkey vkey;
    if (text.len && text.ptr[text.len - 1] == '\n') {
        text.len--;
    }
    if (text.len >= AUDIT_P256_VKEY_MAX || !read_vkey(text, &vkey)) {
        enum att_rc rc =
            att_fail(err, ATT_E_PARSE,
                     "audit log: expected a verifier key of a TPM, NAME+KEYID+BASE64, of P-256");
        att_err_reason(err, "logTpmKey");
        return rc;
    }
    *ret_vkey = vkey;
    return ATT_OK;
}

bool audit_p256_holds(struct att_slice spki, struct att_slice text, struct att_slice der)
{
    EVP_PKEY *key = read_spki(spki);
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool ok = key && md && EVP_DigestVerifyInit(md, NULL, EVP_sha256(), NULL, key) == 1 &&
              EVP_DigestVerify(md, der.ptr, der.len, text.ptr, text.len) == 1;
    EVP_MD_CTX_free(md);
    EVP_PKEY_free(key);
    return ok;
}

enum att_rc audit_p256_verify(const struct audit_note *note, const struct audit_p256_vkey *vkey,
                              struct att_err *err)
{
    bool any = false, all = true;
    for (size_t i = 0; i < note->n; i++) {
        const struct audit_note_sig *sig = &note->sig[i];
        att_autobuf bytes = ATT_BUF_INIT(AUDIT_NOTE_MAX);
        if (sig->id != vkey->id || !att_slice_eq_str(sig->name, vkey->name)) {
            continue;
        }
        any = true;
        all = all && att_unb64(&bytes, sig->base64, NULL) == ATT_OK && bytes.len > 4 &&
              audit_p256_holds(ATT_SLICE_ARRAY(vkey->spki), note->text,
                               ATT_SLICE(bytes.ptr + 4, bytes.len - 4));
    }
    if (any && all) {
        return ATT_OK;
    }
    enum att_rc rc = att_fail(err, ATT_E_AUTH, "audit log: %s",
                              any ? "the TPM's signature does not hold"
                                  : "the checkpoint is not signed by the TPM's key");
    att_err_reason(err, any ? "logTpmSignature" : "logTpmMissing");
    return rc;
}
