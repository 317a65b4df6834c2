#include "tpm/tss2pem.h"

#include "attestd/base/enc.h"
#include "tpm/parse/public.h"

#include <string.h>

#include <openssl/asn1.h>
#include <openssl/asn1t.h>
#include <openssl/objects.h>

#define BEGIN_LINE  "-----BEGIN TSS2 PRIVATE KEY-----"
#define END_LINE    "-----END TSS2 PRIVATE KEY-----"
#define PARENT_NAME "Parent-Name: "
#define OID_KEY     "2.23.133.10.1.3"
#define OID_SEALED  "2.23.133.10.1.5"
#define RH_OWNER    0x40000001u

/* OpenSSL's ASN.1 macros want a type name. */
typedef struct {
    ASN1_OBJECT *type;
    ASN1_BOOLEAN empty_auth; /* -1: absent */
    ASN1_TYPE *policy, *secret, *auth_policy, *description, *rsa_parent;
    ASN1_INTEGER *parent;
    ASN1_OCTET_STRING *pubkey, *privkey;
} TPMKEY;

/* TPMKey of draft-bottomley-tpm2-keys §3.1 */
ASN1_SEQUENCE(TPMKEY) =
    {
        ASN1_SIMPLE(TPMKEY, type, ASN1_OBJECT),
        ASN1_EXP_OPT(TPMKEY, empty_auth, ASN1_BOOLEAN, 0),
        ASN1_EXP_OPT(TPMKEY, policy, ASN1_ANY, 1),
        ASN1_EXP_OPT(TPMKEY, secret, ASN1_ANY, 2),
        ASN1_EXP_OPT(TPMKEY, auth_policy, ASN1_ANY, 3),
        ASN1_EXP_OPT(TPMKEY, description, ASN1_ANY, 4),
        ASN1_EXP_OPT(TPMKEY, rsa_parent, ASN1_ANY, 5),
        ASN1_SIMPLE(TPMKEY, parent, ASN1_INTEGER),
        ASN1_SIMPLE(TPMKEY, pubkey, ASN1_OCTET_STRING),
        ASN1_SIMPLE(TPMKEY, privkey, ASN1_OCTET_STRING),
} static_ASN1_SEQUENCE_END(TPMKEY)

        static void tpmkey_free(TPMKEY * *key)
{
    ASN1_item_free((ASN1_VALUE *)*key, ASN1_ITEM_rptr(TPMKEY));
    *key = NULL;
}

void tpm_blob_done(struct tpm_blob *blob)
{
    att_buf_done(&blob->pub);
    att_buf_done(&blob->priv);
    *blob = (struct tpm_blob){0};
}

enum att_rc tpm_blob_name(const struct tpm_blob *blob, struct parse_name *ret_name,
                          struct att_err *err)
{
    return parse_name_of_area(att_buf_slice(&blob->pub), ret_name, err);
}

static bool parent_ok(uint32_t handle)
{
    return handle == RH_OWNER || (handle >> 24) == 0x81;
}

/* ---- encode ------------------------------------------------------------------------------- */

static enum att_rc check_blob(const struct tpm_blob *blob, struct att_err *err)
{
    if (blob->type != TPM_BLOB_KEY && blob->type != TPM_BLOB_SEALED) {
        return att_fail(err, ATT_E_INVAL, "a TPM blob of type %d", (int)blob->type);
    }
    if (!parent_ok(blob->parent_handle)) {
        return att_fail(err, ATT_E_INVAL, "a TPM blob with parent 0x%08x", blob->parent_handle);
    }
    if (blob->pub.len == 0 || blob->pub.len > TPM_BLOB_PUB_MAX || blob->priv.len == 0 ||
        blob->priv.len > TPM_BLOB_PRIV_MAX) {
        return att_fail(err, ATT_E_INVAL, "a TPM blob with %zu and %zu bytes", blob->pub.len,
                        blob->priv.len);
    }
    return ATT_OK;
}

static int set_2b(ASN1_OCTET_STRING *ret, const struct att_buf *bytes)
{
    att_autobuf field = {0};
    att_buf_field_be16(&field, att_buf_slice(bytes));
    return att_buf_ok(&field, NULL) == ATT_OK &&
           ASN1_OCTET_STRING_set(ret, field.ptr, (int)field.len);
}

static enum att_rc encode_der(const struct tpm_blob *blob, struct att_buf *ret_der,
                              struct att_err *err)
{
    ATT_CLEANUP(tpmkey_free) TPMKEY *key = (TPMKEY *)ASN1_item_new(ASN1_ITEM_rptr(TPMKEY));
    if (!key) {
        return att_fail_openssl(err, ATT_E_NOMEM, "no memory for a TPMKey");
    }
    ASN1_OBJECT_free(key->type);
    key->type = OBJ_txt2obj(blob->type == TPM_BLOB_KEY ? OID_KEY : OID_SEALED, 1);
    key->empty_auth = blob->empty_auth ? 0xff : 0;
    unsigned char *der = NULL;
    int len = -1;
    if (key->type && ASN1_INTEGER_set_uint64(key->parent, blob->parent_handle) &&
        set_2b(key->pubkey, &blob->pub) && set_2b(key->privkey, &blob->priv)) {
        len = ASN1_item_i2d((ASN1_VALUE *)key, &der, ASN1_ITEM_rptr(TPMKEY));
    }
    if (len < 0) {
        return att_fail_openssl(err, ATT_E_CRYPTO, "encoding a TPMKey");
    }
    att_buf_put(ret_der, der, (size_t)len);
    OPENSSL_free(der);
    return att_buf_ok(ret_der, err);
}

enum att_rc tpm_tss2pem_encode(const struct tpm_blob *blob, struct att_buf *ret_text,
                               struct att_err *err)
{
    att_autobuf der = {0}, b64 = {0};
    enum att_rc rc = check_blob(blob, err);
    if (rc == ATT_OK) {
        rc = encode_der(blob, &der, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    att_buf_b64(&b64, att_buf_slice(&der));
    if (blob->parent_name.len != 0) {
        att_buf_put_str(ret_text, PARENT_NAME);
        att_buf_hex(ret_text, parse_name_slice(&blob->parent_name));
        att_buf_put_str(ret_text, "\n");
    }
    att_buf_put_str(ret_text, BEGIN_LINE "\n");
    for (size_t at = 0; at < b64.len; at += 64) {
        att_buf_put(ret_text, b64.ptr + at, b64.len - at < 64 ? b64.len - at : 64);
        att_buf_put_str(ret_text, "\n");
    }
    att_buf_put_str(ret_text, END_LINE "\n");
    rc = att_buf_ok(&b64, err);
    return rc == ATT_OK ? att_buf_ok(ret_text, err) : rc;
}

/* ---- parse -------------------------------------------------------------------------------- */

/* The next line without its newline; the last may lack one. */
static bool next_line(struct att_slice *text, struct att_slice *ret_line)
{
    if (text->len == 0) {
        return false;
    }
    const uint8_t *end = memchr(text->ptr, '\n', text->len);
    size_t len = end ? (size_t)(end - text->ptr) : text->len;
    size_t skip = end ? len + 1 : len;
    *ret_line = ATT_SLICE(text->ptr, len);
    *text = ATT_SLICE(text->ptr + skip, text->len - skip);
    return true;
}

static enum att_rc parse_parent_name(struct att_slice line, struct parse_name *ret_name,
                                     struct att_err *err)
{
    size_t skip = sizeof(PARENT_NAME) - 1;
    att_autobuf bytes = {0};
    if (line.len < skip || memcmp(line.ptr, PARENT_NAME, skip) != 0) {
        return att_fail(err, ATT_E_PARSE,
                        "sealed blob: expected \"" PARENT_NAME "…\" or \"" BEGIN_LINE "\"");
    }
    enum att_rc rc = att_unhex(&bytes, ATT_SLICE(line.ptr + skip, line.len - skip), err);
    if (rc == ATT_OK) {
        rc = parse_name_parse(att_buf_slice(&bytes), ret_name, err);
    }
    if (rc != ATT_OK) {
        att_err_prefix(err, "sealed blob, Parent-Name: ");
    }
    return rc;
}

static enum att_rc parse_armor(struct att_slice text, struct att_buf *ret_der,
                               struct parse_name *ret_name, struct att_err *err)
{
    struct att_slice line;
    att_autobuf b64 = {0};
    if (!next_line(&text, &line)) {
        return att_fail(err, ATT_E_PARSE, "sealed blob: empty");
    }
    if (!att_slice_eq_str(line, BEGIN_LINE)) {
        enum att_rc rc = parse_parent_name(line, ret_name, err);
        if (rc != ATT_OK) {
            return rc;
        }
        if (!next_line(&text, &line) || !att_slice_eq_str(line, BEGIN_LINE)) {
            return att_fail(err, ATT_E_PARSE, "sealed blob: expected \"" BEGIN_LINE "\"");
        }
    }
    while (next_line(&text, &line) && !att_slice_eq_str(line, END_LINE)) {
        if (line.len == 0 || line.len > 76) {
            return att_fail(err, ATT_E_PARSE, "sealed blob: a base64 line of %zu characters",
                            line.len);
        }
        att_buf_put_slice(&b64, line);
        line = (struct att_slice){0};
    }
    if (!att_slice_eq_str(line, END_LINE) || text.len != 0) {
        return att_fail(err, ATT_E_PARSE, "sealed blob: expected \"" END_LINE "\" at the end");
    }
    enum att_rc rc = att_buf_ok(&b64, err);
    return rc == ATT_OK ? att_unb64(ret_der, att_buf_slice(&b64), err) : rc;
}

/* Exactly one value in the one encoding that DER allows: what we would write for it. */
static enum att_rc decode_der(struct att_slice der, TPMKEY **ret_key, struct att_err *err)
{
    const unsigned char *p = der.ptr;
    unsigned char *again = NULL;
    ATT_CLEANUP(tpmkey_free)
    TPMKEY *key = (TPMKEY *)ASN1_item_d2i(NULL, &p, (long)der.len, ASN1_ITEM_rptr(TPMKEY));
    if (!key || p != der.ptr + der.len) {
        return att_fail_openssl(err, ATT_E_PARSE, "sealed blob: not one DER TPMKey");
    }
    int len = ASN1_item_i2d((ASN1_VALUE *)key, &again, ASN1_ITEM_rptr(TPMKEY));
    bool same = len >= 0 && att_slice_eq(der, ATT_SLICE(again, (size_t)len));
    OPENSSL_free(again);
    /* A BOOLEAN is written back as it came; DER has one TRUE (X.690 §11.1). */
    if (!same || (key->empty_auth > 0 && key->empty_auth != 0xff)) {
        return att_fail(err, ATT_E_PARSE, "sealed blob: TPMKey is not in DER");
    }
    if (key->policy || key->secret || key->auth_policy || key->description || key->rsa_parent) {
        return att_fail(err, ATT_E_UNSUPPORTED,
                        "sealed blob: TPMKey with policy, secret, authPolicy, description or "
                        "rsaParent");
    }
    *ret_key = key;
    key = NULL;
    return ATT_OK;
}

static enum att_rc take_2b(const ASN1_OCTET_STRING *octets, size_t max, const char *what,
                           struct att_buf *ret_bytes, struct att_err *err)
{
    struct att_slice bytes =
        ATT_SLICE(ASN1_STRING_get0_data(octets), (size_t)ASN1_STRING_length(octets));
    struct att_cur cur = att_cur_init(bytes);
    struct att_slice content = att_cur_take_be16(&cur, max);
    if (!att_cur_done(&cur) || content.len == 0) {
        return att_fail(err, ATT_E_PARSE, "sealed blob: %s of %zu bytes is no TPM2B of 1…%zu bytes",
                        what, bytes.len, max);
    }
    att_buf_put_slice(ret_bytes, content);
    return att_buf_ok(ret_bytes, err);
}

static enum att_rc take_type(const TPMKEY *key, struct tpm_blob *blob, struct att_err *err)
{
    char oid[32];
    struct parse_public pub;
    if (OBJ_obj2txt(oid, sizeof(oid), key->type, 1) <= 0) {
        oid[0] = '\0';
    }
    if (strcmp(oid, OID_KEY) == 0) {
        blob->type = TPM_BLOB_KEY;
    } else if (strcmp(oid, OID_SEALED) == 0) {
        blob->type = TPM_BLOB_SEALED;
    } else {
        return att_fail(err, ATT_E_UNSUPPORTED,
                        "sealed blob: type %s, expected " OID_KEY " or " OID_SEALED, oid);
    }
    enum att_rc rc = parse_public_parse(att_buf_slice(&blob->pub), &pub, err);
    if (rc != ATT_OK) {
        att_err_prefix(err, "sealed blob: ");
        return rc;
    }
    if ((pub.type == PARSE_ALG_KEYEDHASH) != (blob->type == TPM_BLOB_SEALED)) {
        return att_fail(err, ATT_E_PARSE, "sealed blob: type %s with a public area of type 0x%04x",
                        oid, pub.type);
    }
    return ATT_OK;
}

enum att_rc tpm_tss2pem_parse(struct att_slice text, struct tpm_blob *ret_blob, struct att_err *err)
{
    att_autobuf der = {0};
    tpm_autoblob blob = {0};
    uint64_t parent = 0;
    ATT_CLEANUP(tpmkey_free) TPMKEY *key = NULL;
    if (text.len > TPM_BLOB_PEM_MAX) {
        return att_fail(err, ATT_E_LIMIT, "sealed blob: %zu bytes, at most %u", text.len,
                        TPM_BLOB_PEM_MAX);
    }
    enum att_rc rc = parse_armor(text, &der, &blob.parent_name, err);
    if (rc == ATT_OK) {
        rc = decode_der(att_buf_slice(&der), &key, err);
    }
    if (rc == ATT_OK) {
        rc = take_2b(key->pubkey, TPM_BLOB_PUB_MAX, "pubkey", &blob.pub, err);
    }
    if (rc == ATT_OK) {
        rc = take_2b(key->privkey, TPM_BLOB_PRIV_MAX, "privkey", &blob.priv, err);
    }
    if (rc == ATT_OK) {
        rc = take_type(key, &blob, err);
    }
    if (rc == ATT_OK && (!ASN1_INTEGER_get_uint64(&parent, key->parent) || parent > UINT32_MAX ||
                         !parent_ok((uint32_t)parent))) {
        rc = att_fail(err, ATT_E_UNSUPPORTED,
                      "sealed blob: its parent is neither 0x40000001 nor a persistent handle");
    }
    if (rc != ATT_OK) {
        return rc;
    }
    blob.parent_handle = (uint32_t)parent;
    blob.empty_auth = key->empty_auth > 0;
    *ret_blob = blob;
    blob = (struct tpm_blob){0};
    return ATT_OK;
}
