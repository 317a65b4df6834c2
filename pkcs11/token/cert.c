#include "pkcs11/token/cert.h"

enum { SEQUENCE = 0x30, INTEGER = 0x02, OID = 0x06, BIT_STRING = 0x03, VERSION = 0xa0 };

/* One element: DER, definite length of at most 4 bytes (X.690 §10.1). ret_whole includes the head.
 */
static bool element(struct att_cur *cur, uint8_t tag, struct att_slice *ret_whole,
                    struct att_slice *ret_content)
{
    const uint8_t *begin = cur->ptr;
    if (att_cur_u8(cur) != tag) {
        cur->failed = true;
        return false;
    }
    size_t len = att_cur_u8(cur);
    if (len > 0x80) {
        size_t bytes = len & 0x7f;
        if (bytes > 4) {
            cur->failed = true;
            return false;
        }
        for (len = 0; bytes; bytes--) {
            len = len << 8 | att_cur_u8(cur);
        }
    } else if (len == 0x80) { /* indefinite: BER */
        cur->failed = true;
    }
    struct att_slice content = att_cur_take(cur, len);
    if (cur->failed) {
        return false;
    }
    *ret_content = content;
    *ret_whole = ATT_SLICE(begin, (size_t)(content.ptr + content.len - begin));
    return true;
}

static bool enter(struct att_cur *cur, uint8_t tag, struct att_cur *ret_inner)
{
    struct att_slice whole, content;
    if (!element(cur, tag, &whole, &content)) {
        return false;
    }
    *ret_inner = att_cur_init(content);
    return true;
}

static bool skip(struct att_cur *cur, uint8_t tag)
{
    struct att_slice whole, content;
    return element(cur, tag, &whole, &content);
}

/* 1.2.840.10045.2.1 id-ecPublicKey (RFC 5480 §2.1.1) */
static const uint8_t ec_public_key[] = {0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01};

static bool read_key(struct att_slice spki, struct token_cert *ret)
{
    struct att_cur outer = att_cur_init(spki), key, algorithm;
    struct att_slice whole, oid, params, bits;
    if (!enter(&outer, SEQUENCE, &key) || !enter(&key, SEQUENCE, &algorithm) ||
        !element(&algorithm, OID, &whole, &oid)) {
        return false;
    }
    if (!att_slice_eq(oid, ATT_SLICE_ARRAY(ec_public_key))) {
        return true;
    }
    if (!element(&algorithm, OID, &params, &whole) || !element(&key, BIT_STRING, &whole, &bits) ||
        bits.len < 2 || bits.ptr[0] != 0) {
        return false;
    }
    ret->ec_params = params;
    ret->ec_point = ATT_SLICE(bits.ptr + 1, bits.len - 1);
    return true;
}

enum att_rc token_cert_parse(struct att_slice der, struct token_cert *ret_cert, struct att_err *err)
{
    struct att_cur cur = att_cur_init(der), cert, tbs;
    struct token_cert got = {0};
    struct att_slice content;
    bool ok = enter(&cur, SEQUENCE, &cert) && cur.left == 0 && enter(&cert, SEQUENCE, &tbs);
    if (ok && tbs.left && tbs.ptr[0] == VERSION) {
        ok = skip(&tbs, VERSION);
    }
    ok = ok && element(&tbs, INTEGER, &got.serial, &content) &&
         skip(&tbs, SEQUENCE) /* signature */ && element(&tbs, SEQUENCE, &got.issuer, &content) &&
         skip(&tbs, SEQUENCE) /* validity */ && element(&tbs, SEQUENCE, &got.subject, &content) &&
         element(&tbs, SEQUENCE, &got.spki, &content) && read_key(got.spki, &got);
    if (!ok) {
        return att_fail(err, ATT_E_PARSE, "not a certificate's DER");
    }
    *ret_cert = got;
    return ATT_OK;
}
