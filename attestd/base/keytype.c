#include "attestd/base/keytype.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <string.h>

/* SEQUENCE { SEQUENCE { rsaEncryption, NULL }, BIT STRING { SEQUENCE { modulus, 65537 } } }: RFC
 * 8017 §A.1. The modulus's first bit is set, so a zero stands in front of it. */
#define ALGORITHM                                                                                  \
    0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00
#define HEAD_LEN 33
static const uint8_t head_2048[HEAD_LEN] = {0x30, 0x82, 0x01, 0x22, ALGORITHM, 0x03, 0x82,
                                            0x01, 0x0f, 0x00, 0x30, 0x82,      0x01, 0x0a,
                                            0x02, 0x82, 0x01, 0x01, 0x00};
static const uint8_t head_3072[HEAD_LEN] = {0x30, 0x82, 0x01, 0xa2, ALGORITHM, 0x03, 0x82,
                                            0x01, 0x8f, 0x00, 0x30, 0x82,      0x01, 0x8a,
                                            0x02, 0x82, 0x01, 0x81, 0x00};
static const uint8_t tail[] = {0x02, 0x03, 0x01, 0x00, 0x01};
#define BITS_AT 24 /* of the BIT STRING's content, behind the count of unused bits */

static const struct {
    const char *name;
    size_t modulus_len, sig_len;
    const uint8_t *head;
} types[ATT_KEYTYPE_COUNT] = {
    [ATT_KEYTYPE_NONE] = {"none", 0, 0, NULL},
    [ATT_KEYTYPE_P256] = {"ec-p256", 0, ATT_P256_XY_LEN, NULL},
    [ATT_KEYTYPE_RSA2048] = {"rsa-2048", 256, 256, head_2048},
    [ATT_KEYTYPE_RSA3072] = {"rsa-3072", 384, 384, head_3072},
};

const char *att_keytype_name(enum att_keytype type)
{
    return (size_t)type < ATT_KEYTYPE_COUNT ? types[type].name : "none";
}

enum att_keytype att_keytype_parse(struct att_slice name)
{
    for (size_t i = ATT_KEYTYPE_P256; i < ATT_KEYTYPE_COUNT; i++) {
        if (att_slice_eq_str(name, types[i].name)) {
            return (enum att_keytype)i;
        }
    }
    return ATT_KEYTYPE_NONE;
}

bool att_keytype_is_rsa(enum att_keytype type)
{
    return att_keytype_modulus_len(type) != 0;
}

size_t att_keytype_sig_len(enum att_keytype type)
{
    return (size_t)type < ATT_KEYTYPE_COUNT ? types[type].sig_len : 0;
}

size_t att_keytype_modulus_len(enum att_keytype type)
{
    return (size_t)type < ATT_KEYTYPE_COUNT ? types[type].modulus_len : 0;
}

/* The RSA type whose constant parts these are; the modulus is odd and of full length. */
static enum att_keytype rsa_of(struct att_slice spki)
{
    for (size_t i = ATT_KEYTYPE_RSA2048; i < ATT_KEYTYPE_COUNT; i++) {
        size_t len = types[i].modulus_len;
        if (spki.len == HEAD_LEN + len + sizeof tail &&
            memcmp(spki.ptr, types[i].head, HEAD_LEN) == 0 &&
            memcmp(spki.ptr + HEAD_LEN + len, tail, sizeof tail) == 0) {
            return spki.ptr[HEAD_LEN] & 0x80 && spki.ptr[HEAD_LEN + len - 1] & 1
                       ? (enum att_keytype)i
                       : ATT_KEYTYPE_NONE;
        }
    }
    return ATT_KEYTYPE_NONE;
}

struct att_slice att_keytype_modulus(struct att_slice spki)
{
    size_t len = att_keytype_modulus_len(rsa_of(spki));
    return len ? ATT_SLICE(spki.ptr + HEAD_LEN, len) : ATT_SLICE(NULL, 0);
}

struct att_slice att_keytype_bits(struct att_slice spki)
{
    const uint8_t *xy = att_p256_of_spki(spki);
    return xy             ? ATT_SLICE(xy - 1, 1 + ATT_P256_XY_LEN)
           : rsa_of(spki) ? ATT_SLICE(spki.ptr + BITS_AT, spki.len - BITS_AT)
                          : ATT_SLICE(NULL, 0);
}

/* ---- what is refused, and why ------------------------------------------------------------------
 */

/* The content of an element with this tag and a length in its shortest form; cur fails otherwise.
 */
static struct att_slice element(struct att_cur *cur, uint8_t tag)
{
    if (att_cur_u8(cur) != tag) {
        cur->failed = true;
    }
    size_t len = att_cur_u8(cur);
    if (len == 0x81) {
        len = att_cur_u8(cur);
        cur->failed |= len < 0x80;
    } else if (len == 0x82) {
        len = (size_t)att_cur_u8(cur) << 8;
        len |= att_cur_u8(cur);
        cur->failed |= len < 0x100;
    } else if (len > 0x7f) {
        cur->failed = true;
    }
    return cur->failed ? ATT_SLICE(NULL, 0) : att_cur_take(cur, len);
}

static size_t bits_of(struct att_slice n)
{
    while (n.len && n.ptr[0] == 0) {
        n.ptr++;
        n.len--;
    }
    return n.len ? 8 * n.len - (size_t)(__builtin_clz(n.ptr[0]) - 24) : 0;
}

/* An RSA key in DER, but not one of ours: which part of it is to blame. */
static bool other_rsa(struct att_slice spki, size_t *ret_bits, struct att_slice *ret_exponent)
{
    static const uint8_t algorithm[] = {ALGORITHM};
    struct att_cur outer = att_cur_init(spki);
    struct att_cur cur = att_cur_init(element(&outer, 0x30));
    struct att_slice alg = att_cur_take(&cur, sizeof algorithm);
    if (cur.failed || !att_slice_eq(alg, ATT_SLICE_ARRAY(algorithm))) {
        return false;
    }
    struct att_slice bits = element(&cur, 0x03);
    if (!att_cur_done(&outer) || !att_cur_done(&cur) || bits.len < 1 || bits.ptr[0] != 0) {
        return false;
    }
    struct att_cur key = att_cur_init(ATT_SLICE(bits.ptr + 1, bits.len - 1));
    struct att_cur parts = att_cur_init(element(&key, 0x30));
    struct att_slice n = element(&parts, 0x02);
    *ret_exponent = element(&parts, 0x02);
    *ret_bits = bits_of(n);
    return att_cur_done(&key) && att_cur_done(&parts);
}

static enum att_rc refuse_other(struct att_slice spki, struct att_err *err)
{
    static const uint8_t wanted[] = {0x01, 0x00, 0x01};
    size_t bits = 0;
    struct att_slice exponent = {NULL, 0};
    if (!other_rsa(spki, &bits, &exponent)) {
        return att_fail(err, ATT_E_PARSE,
                        "expected the SubjectPublicKeyInfo of a key on P-256 (named curve, "
                        "uncompressed point) or of RSA, found %zu bytes of something else",
                        spki.len);
    }
    if (bits == 2048 || bits == 3072) {
        if (att_slice_eq(exponent, ATT_SLICE_ARRAY(wanted))) {
            return att_fail(err, ATT_E_PARSE, "an RSA key whose modulus is even or not in DER");
        }
        (void)!att_fail(err, ATT_E_DENIED,
                        "an RSA key with a public exponent of %zu bits, expected 65537",
                        bits_of(exponent));
    } else {
        (void)!att_fail(err, ATT_E_DENIED, "an RSA key of %zu bits, expected 2048 or 3072", bits);
    }
    att_err_reason(err, "keyType");
    return ATT_E_DENIED;
}

enum att_rc att_keytype_of_spki(struct att_slice spki, enum att_keytype *ret_type,
                                struct att_err *err)
{
    const uint8_t *xy = att_p256_of_spki(spki);
    enum att_keytype rsa = xy ? ATT_KEYTYPE_NONE : rsa_of(spki);
    if (!xy && !rsa) {
        return refuse_other(spki, err);
    }
    enum att_rc rc = xy ? att_p256_check(xy, err) : ATT_OK;
    if (rc == ATT_OK) {
        *ret_type = xy ? ATT_KEYTYPE_P256 : rsa;
    }
    return rc;
}

/* ---- as a key ----------------------------------------------------------------------------------
 */

static EVP_PKEY *rsa_key(struct att_slice modulus)
{
    uint8_t native[ATT_RSA_MODULUS_MAX]; /* OSSL_PARAM's numbers are in the machine's order */
    uint32_t exponent = ATT_RSA_EXPONENT;
    BIGNUM *n = BN_bin2bn(modulus.ptr, (int)modulus.len, NULL);
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
    EVP_PKEY *key = NULL;
    bool ok = n && ctx && BN_bn2nativepad(n, native, (int)modulus.len) == (int)modulus.len;
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_BN(OSSL_PKEY_PARAM_RSA_N, native, modulus.len),
        OSSL_PARAM_construct_uint32(OSSL_PKEY_PARAM_RSA_E, &exponent),
        OSSL_PARAM_construct_end(),
    };
    if (!ok || EVP_PKEY_fromdata_init(ctx) != 1 ||
        EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params) != 1) {
        key = NULL;
    }
    EVP_PKEY_CTX_free(ctx);
    BN_free(n);
    return key;
}

enum att_rc att_keytype_key(struct att_slice spki, EVP_PKEY **ret_key, struct att_err *err)
{
    enum att_keytype type = ATT_KEYTYPE_NONE;
    enum att_rc rc = att_keytype_of_spki(spki, &type, err);
    if (rc != ATT_OK) {
        return rc;
    }
    if (type == ATT_KEYTYPE_P256) {
        return att_p256_key(att_p256_of_spki(spki), ret_key, err);
    }
    EVP_PKEY *key = rsa_key(att_keytype_modulus(spki));
    if (!key) {
        return att_fail_openssl(err, ATT_E_CRYPTO, "an RSA key from its modulus");
    }
    *ret_key = key;
    return ATT_OK;
}

enum att_rc att_keytype_rsa_spki(enum att_keytype type, struct att_slice modulus,
                                 struct att_buf *ret_spki, struct att_err *err)
{
    size_t len = att_keytype_modulus_len(type);
    if (len == 0 || modulus.len != len || !(modulus.ptr[0] & 0x80) || !(modulus.ptr[len - 1] & 1)) {
        return att_fail(err, ATT_E_INVAL, "a modulus of %zu bytes, an odd one of %zu expected",
                        modulus.len, len);
    }
    att_buf_put(ret_spki, types[type].head, HEAD_LEN);
    att_buf_put_slice(ret_spki, modulus);
    att_buf_put_slice(ret_spki, ATT_SLICE_ARRAY(tail));
    return att_buf_ok(ret_spki, err);
}

/* ---- signatures with RSA ------------------------------------------------------------------------
 */

#define INFO_HEAD 19
static const struct {
    size_t digest_len;
    uint8_t head[INFO_HEAD];
    const char *name;
} hashes[] = {
    {32,
     {0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01,
      0x05, 0x00, 0x04, 0x20},
     "SHA256"},
    {48,
     {0x30, 0x41, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02,
      0x05, 0x00, 0x04, 0x30},
     "SHA384"},
    {64,
     {0x30, 0x51, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03,
      0x05, 0x00, 0x04, 0x40},
     "SHA512"},
};
#define HASHES (sizeof hashes / sizeof hashes[0])

static size_t hash_of(size_t digest_len)
{
    size_t i = 0;
    while (i < HASHES && hashes[i].digest_len != digest_len) {
        i++;
    }
    return i;
}

size_t att_rsa_digest_info(struct att_slice digest, uint8_t ret[ATT_RSA_DIGEST_INFO_MAX])
{
    size_t i = hash_of(digest.len);
    if (i == HASHES) {
        return 0;
    }
    memcpy(ret, hashes[i].head, INFO_HEAD);
    memcpy(ret + INFO_HEAD, digest.ptr, digest.len);
    return INFO_HEAD + digest.len;
}

struct att_slice att_rsa_digest_of_info(struct att_slice info)
{
    size_t i = info.len > INFO_HEAD ? hash_of(info.len - INFO_HEAD) : HASHES;
    return i < HASHES && memcmp(info.ptr, hashes[i].head, INFO_HEAD) == 0
               ? ATT_SLICE(info.ptr + INFO_HEAD, info.len - INFO_HEAD)
               : ATT_SLICE(NULL, 0);
}

enum att_rc att_rsa_verify(EVP_PKEY *key, enum att_rsa_scheme scheme, struct att_slice digest,
                           struct att_slice signature, struct att_err *err)
{
    size_t i = hash_of(digest.len);
    EVP_MD *md = i < HASHES ? EVP_MD_fetch(NULL, hashes[i].name, NULL) : NULL;
    EVP_PKEY_CTX *ctx = md && key && EVP_PKEY_is_a(key, "RSA") ? EVP_PKEY_CTX_new(key, NULL) : NULL;
    int padding = scheme == ATT_RSA_PSS ? RSA_PKCS1_PSS_PADDING : RSA_PKCS1_PADDING;
    bool good = ctx && EVP_PKEY_verify_init(ctx) == 1 &&
                EVP_PKEY_CTX_set_rsa_padding(ctx, padding) == 1 &&
                EVP_PKEY_CTX_set_signature_md(ctx, md) == 1 &&
                (scheme != ATT_RSA_PSS ||
                 EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, RSA_PSS_SALTLEN_DIGEST) == 1) &&
                EVP_PKEY_verify(ctx, signature.ptr, signature.len, digest.ptr, digest.len) == 1;
    EVP_PKEY_CTX_free(ctx);
    EVP_MD_free(md);
    return good ? ATT_OK : att_fail_openssl(err, ATT_E_AUTH, "the signature does not hold");
}
