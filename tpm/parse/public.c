/* TPMT_PUBLIC: parse and marshal. */
#include "tpm/parse/public.h"

#include <string.h>

#define ATTRS_KNOWN                                                                                \
    (PARSE_OA_FIXED_TPM | PARSE_OA_ST_CLEAR | PARSE_OA_FIXED_PARENT |                              \
     PARSE_OA_SENSITIVE_DATA_ORIGIN | PARSE_OA_USER_WITH_AUTH | PARSE_OA_ADMIN_WITH_POLICY |       \
     PARSE_OA_FIRMWARE_LIMITED | PARSE_OA_SVN_LIMITED | PARSE_OA_NO_DA |                           \
     PARSE_OA_ENCRYPTED_DUPLICATION | PARSE_OA_RESTRICTED | PARSE_OA_DECRYPT | PARSE_OA_SIGN |     \
     PARSE_OA_X509_SIGN)

static enum att_rc short_area(struct att_err *err)
{
    return att_fail(err, ATT_E_PARSE, "public area: it ends too soon");
}

/* A TPM2B of at most max bytes into a fixed array. */
static enum att_rc take_2b(struct att_cur *cur, uint8_t *ret, size_t max, size_t *ret_len,
                           const char *what, struct att_err *err)
{
    size_t len = att_cur_be16(cur);
    if (!cur->failed && len > max) {
        return att_fail(err, ATT_E_PARSE, "public area: %s of %zu bytes, at most %zu expected",
                        what, len, max);
    }
    struct att_slice bytes = att_cur_take(cur, len);
    if (cur->failed) {
        return short_area(err);
    }
    if (len) {
        memcpy(ret, bytes.ptr, len);
    }
    *ret_len = len;
    return ATT_OK;
}

static enum att_rc take_hash(struct att_cur *cur, uint16_t *ret, const char *what,
                             struct att_err *err)
{
    uint16_t alg = att_cur_be16(cur);
    if (cur->failed) {
        return short_area(err);
    }
    if (parse_alg_digest_len(alg) == 0) {
        return att_fail(err, ATT_E_PARSE, "public area: %s names hash 0x%04x, which is none", what,
                        alg);
    }
    *ret = alg;
    return ATT_OK;
}

/* TPMT_SYM_DEF_OBJECT, Part 2 clause 11.1.7: AES-CFB or nothing. */
static enum att_rc take_sym(struct att_cur *cur, struct parse_sym *ret, struct att_err *err)
{
    ret->alg = att_cur_be16(cur);
    if (cur->failed) {
        return short_area(err);
    }
    if (ret->alg == PARSE_ALG_NULL) {
        return ATT_OK;
    }
    ret->key_bits = att_cur_be16(cur);
    ret->mode = att_cur_be16(cur);
    if (cur->failed) {
        return short_area(err);
    }
    bool bits_ok = ret->key_bits == 128 || ret->key_bits == 192 || ret->key_bits == 256;
    if (ret->alg != PARSE_ALG_AES || !bits_ok || ret->mode != PARSE_ALG_CFB) {
        return att_fail(err, ATT_E_UNSUPPORTED,
                        "public area: symmetric 0x%04x-%u mode 0x%04x, not AES-CFB", ret->alg,
                        ret->key_bits, ret->mode);
    }
    return ATT_OK;
}

static bool scheme_allowed(uint16_t type, uint16_t alg)
{
    switch (type) {
    case PARSE_ALG_RSA:
        return alg == PARSE_ALG_RSASSA || alg == PARSE_ALG_RSAPSS || alg == PARSE_ALG_OAEP ||
               alg == PARSE_ALG_RSAES;
    case PARSE_ALG_ECC:
        return alg == PARSE_ALG_ECDSA || alg == PARSE_ALG_ECDH;
    default:
        return alg == PARSE_ALG_HMAC || alg == PARSE_ALG_XOR;
    }
}

/* TPMT_RSA_SCHEME, TPMT_ECC_SCHEME, TPMT_KEYEDHASH_SCHEME: Part 2 clauses 11.2.4.2, 11.2.5.6,
 * 11.1.20. */
static enum att_rc take_scheme(struct att_cur *cur, uint16_t type, struct parse_scheme *ret,
                               struct att_err *err)
{
    ret->alg = att_cur_be16(cur);
    if (cur->failed) {
        return short_area(err);
    }
    if (ret->alg == PARSE_ALG_NULL) {
        return ATT_OK;
    }
    if (!scheme_allowed(type, ret->alg)) {
        return att_fail(err, ATT_E_UNSUPPORTED,
                        "public area: scheme 0x%04x for a key of type 0x%04x", ret->alg, type);
    }
    if (ret->alg == PARSE_ALG_RSAES) {
        return ATT_OK;
    }
    enum att_rc rc = take_hash(cur, &ret->hash, "the scheme", err);
    if (rc == ATT_OK && ret->alg == PARSE_ALG_XOR) {
        ret->kdf = att_cur_be16(cur);
        if (cur->failed) {
            return short_area(err);
        }
    }
    return rc;
}

/* TPMT_KDF_SCHEME, Part 2 clause 11.2.3.3. */
static enum att_rc take_kdf(struct att_cur *cur, struct parse_scheme *ret, struct att_err *err)
{
    ret->alg = att_cur_be16(cur);
    if (cur->failed) {
        return short_area(err);
    }
    switch (ret->alg) {
    case PARSE_ALG_NULL:
        return ATT_OK;
    case PARSE_ALG_MGF1:
    case PARSE_ALG_KDF1_800_56A:
    case PARSE_ALG_KDF2:
    case PARSE_ALG_KDF1_800_108:
        return take_hash(cur, &ret->hash, "the kdf", err);
    default:
        return att_fail(err, ATT_E_PARSE, "public area: 0x%04x is not a kdf", ret->alg);
    }
}

static enum att_rc take_rsa(struct att_cur *cur, struct parse_public *pub, struct att_err *err)
{
    enum att_rc rc = take_sym(cur, &pub->sym, err);
    if (rc == ATT_OK) {
        rc = take_scheme(cur, pub->type, &pub->scheme, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    pub->key_bits = att_cur_be16(cur);
    pub->exponent = att_cur_be32(cur);
    if (cur->failed) {
        return short_area(err);
    }
    if (pub->key_bits != 2048 && pub->key_bits != 3072) {
        return att_fail(err, ATT_E_UNSUPPORTED, "public area: RSA of %u bits, not 2048 or 3072",
                        pub->key_bits);
    }
    if (pub->exponent != 0 && pub->exponent != 65537) {
        return att_fail(err, ATT_E_UNSUPPORTED, "public area: RSA exponent %u, not 65537",
                        pub->exponent);
    }
    size_t want = pub->key_bits / 8u;
    rc = take_2b(cur, pub->unique, want, &pub->unique_len, "modulus", err);
    if (rc == ATT_OK && pub->unique_len != 0 && pub->unique_len != want) {
        return att_fail(err, ATT_E_PARSE, "public area: modulus of %zu bytes, %zu expected",
                        pub->unique_len, want);
    }
    return rc;
}

static enum att_rc take_ecc(struct att_cur *cur, struct parse_public *pub, struct att_err *err)
{
    enum att_rc rc = take_sym(cur, &pub->sym, err);
    if (rc == ATT_OK) {
        rc = take_scheme(cur, pub->type, &pub->scheme, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    pub->curve = att_cur_be16(cur);
    if (cur->failed) {
        return short_area(err);
    }
    if (pub->curve != PARSE_ECC_P256 && pub->curve != PARSE_ECC_P384) {
        return att_fail(err, ATT_E_UNSUPPORTED, "public area: curve 0x%04x, not P-256 or P-384",
                        pub->curve);
    }
    size_t field = pub->curve == PARSE_ECC_P256 ? 32 : 48;
    rc = take_kdf(cur, &pub->kdf, err);
    if (rc == ATT_OK) {
        rc = take_2b(cur, pub->x, field, &pub->x_len, "x coordinate", err);
    }
    if (rc == ATT_OK) {
        rc = take_2b(cur, pub->y, field, &pub->y_len, "y coordinate", err);
    }
    if (rc == ATT_OK && (pub->x_len == 0) != (pub->y_len == 0)) {
        return att_fail(err, ATT_E_PARSE, "public area: one coordinate without the other");
    }
    return rc;
}

static enum att_rc take_keyedhash(struct att_cur *cur, struct parse_public *pub,
                                  struct att_err *err)
{
    enum att_rc rc = take_scheme(cur, pub->type, &pub->scheme, err);
    size_t want = parse_alg_digest_len(pub->name_alg);
    if (rc == ATT_OK) {
        rc = take_2b(cur, pub->unique, want, &pub->unique_len, "unique", err);
    }
    if (rc == ATT_OK && pub->unique_len != 0 && pub->unique_len != want) {
        return att_fail(err, ATT_E_PARSE, "public area: unique of %zu bytes, %zu expected",
                        pub->unique_len, want);
    }
    return rc;
}

/* type … authPolicy: the members that every type has. */
static enum att_rc take_head(struct att_cur *cur, struct parse_public *pub, struct att_err *err)
{
    pub->type = att_cur_be16(cur);
    pub->name_alg = att_cur_be16(cur);
    pub->attrs = att_cur_be32(cur);
    if (cur->failed) {
        return short_area(err);
    }
    if (pub->type != PARSE_ALG_RSA && pub->type != PARSE_ALG_ECC &&
        pub->type != PARSE_ALG_KEYEDHASH) {
        return att_fail(err, ATT_E_UNSUPPORTED, "public area: type 0x%04x, not RSA, ECC, keyedhash",
                        pub->type);
    }
    if (pub->name_alg != PARSE_ALG_SHA256 && pub->name_alg != PARSE_ALG_SHA384 &&
        pub->name_alg != PARSE_ALG_SHA512) {
        return att_fail(err, ATT_E_UNSUPPORTED,
                        "public area: nameAlg 0x%04x, not SHA-256, -384, -512", pub->name_alg);
    }
    if (pub->attrs & ~ATTRS_KNOWN) {
        return att_fail(err, ATT_E_PARSE, "public area: reserved attribute bits 0x%08x are set",
                        pub->attrs & ~ATTRS_KNOWN);
    }
    size_t want = parse_alg_digest_len(pub->name_alg);
    enum att_rc rc = take_2b(cur, pub->policy, want, &pub->policy_len, "authPolicy", err);
    if (rc == ATT_OK && pub->policy_len != 0 && pub->policy_len != want) {
        return att_fail(err, ATT_E_PARSE, "public area: authPolicy of %zu bytes, %zu expected",
                        pub->policy_len, want);
    }
    return rc;
}

enum att_rc parse_public_parse(struct att_slice area, struct parse_public *ret_pub,
                               struct att_err *err)
{
    if (area.len > PARSE_AREA_MAX) {
        return att_fail(err, ATT_E_LIMIT, "public area: %zu bytes, at most %d taken", area.len,
                        PARSE_AREA_MAX);
    }
    struct parse_public pub;
    memset(&pub, 0, sizeof pub);
    struct att_cur cur = att_cur_init(area);
    enum att_rc rc = take_head(&cur, &pub, err);
    if (rc == ATT_OK) {
        rc = pub.type == PARSE_ALG_RSA   ? take_rsa(&cur, &pub, err)
             : pub.type == PARSE_ALG_ECC ? take_ecc(&cur, &pub, err)
                                         : take_keyedhash(&cur, &pub, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    if (!att_cur_done(&cur)) {
        return att_fail(err, ATT_E_PARSE, "public area: %zu bytes too many", cur.left);
    }
    *ret_pub = pub;
    return ATT_OK;
}

enum att_rc parse_public_unwrap(struct att_slice tpm2b, struct att_slice *ret_area,
                                struct att_err *err)
{
    struct att_cur cur = att_cur_init(tpm2b);
    struct att_slice area = att_cur_take_be16(&cur, PARSE_AREA_MAX);
    if (!att_cur_done(&cur) || area.len == 0) {
        return att_fail(err, ATT_E_PARSE, "TPM2B_PUBLIC: its size is not that of its %zu bytes",
                        tpm2b.len);
    }
    *ret_area = area;
    return ATT_OK;
}

static void put_scheme(struct att_buf *buf, const struct parse_scheme *scheme)
{
    att_buf_be16(buf, scheme->alg);
    if (scheme->alg != PARSE_ALG_NULL && scheme->alg != PARSE_ALG_RSAES) {
        att_buf_be16(buf, scheme->hash);
    }
    if (scheme->alg == PARSE_ALG_XOR) {
        att_buf_be16(buf, scheme->kdf);
    }
}

static void put_sym(struct att_buf *buf, const struct parse_sym *sym)
{
    att_buf_be16(buf, sym->alg);
    if (sym->alg != PARSE_ALG_NULL) {
        att_buf_be16(buf, sym->key_bits);
        att_buf_be16(buf, sym->mode);
    }
}

static void put_area(struct att_buf *buf, const struct parse_public *pub)
{
    att_buf_be16(buf, pub->type);
    att_buf_be16(buf, pub->name_alg);
    att_buf_be32(buf, pub->attrs);
    att_buf_field_be16(buf, ATT_SLICE(pub->policy, pub->policy_len));
    if (pub->type != PARSE_ALG_KEYEDHASH) {
        put_sym(buf, &pub->sym);
    }
    put_scheme(buf, &pub->scheme);
    if (pub->type == PARSE_ALG_RSA) {
        att_buf_be16(buf, pub->key_bits);
        att_buf_be32(buf, pub->exponent);
    }
    if (pub->type == PARSE_ALG_ECC) {
        att_buf_be16(buf, pub->curve);
        put_scheme(buf, &pub->kdf);
        att_buf_field_be16(buf, ATT_SLICE(pub->x, pub->x_len));
        att_buf_field_be16(buf, ATT_SLICE(pub->y, pub->y_len));
    } else {
        att_buf_field_be16(buf, ATT_SLICE(pub->unique, pub->unique_len));
    }
}

enum att_rc parse_public_encode(const struct parse_public *pub, struct att_buf *ret_area,
                                struct att_err *err)
{
    if (pub->policy_len > sizeof pub->policy || pub->unique_len > sizeof pub->unique ||
        pub->x_len > sizeof pub->x || pub->y_len > sizeof pub->y) {
        return att_fail(err, ATT_E_INVAL, "public area: a length beyond its array");
    }
    att_autobuf area = ATT_BUF_INIT(PARSE_AREA_MAX);
    put_area(&area, pub);
    enum att_rc rc = att_buf_ok(&area, err);
    if (rc != ATT_OK) {
        return rc;
    }
    /* What we write is what we would read: one grammar, in the parser. */
    struct parse_public again;
    if (parse_public_parse(att_buf_slice(&area), &again, err) != ATT_OK) {
        if (err) {
            err->rc = ATT_E_INVAL;
        }
        return ATT_E_INVAL;
    }
    att_buf_put_slice(ret_area, att_buf_slice(&area));
    return att_buf_ok(ret_area, err);
}

enum att_rc parse_public_name(const struct parse_public *pub, struct parse_name *ret_name,
                              struct att_err *err)
{
    att_autobuf area = ATT_BUF_INIT(PARSE_AREA_MAX);
    enum att_rc rc = parse_public_encode(pub, &area, err);
    if (rc == ATT_OK) {
        rc = parse_name_of_area(att_buf_slice(&area), ret_name, err);
    }
    return rc;
}
