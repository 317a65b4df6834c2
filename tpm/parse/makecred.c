#include "tpm/parse/makecred.h"

#include "attestd/base/hash.h"
#include "attestd/base/secret.h"

#include <openssl/core_names.h>
#include <openssl/kdf.h>
#include <openssl/rsa.h>
#include <string.h>

#define AES_BLOCK 16

/* The parameters of one credential. */
struct cred {
    const struct parse_public *ek;
    const char *hash;
    size_t digest_len;
    EVP_PKEY *ek_pkey;
    uint8_t seed[PARSE_DIGEST_MAX]; /* digest_len bytes; wiped by the caller */
};

static void pkey_done(EVP_PKEY **pkey)
{
    EVP_PKEY_free(*pkey);
}
static void pctx_done(EVP_PKEY_CTX **ctx)
{
    EVP_PKEY_CTX_free(*ctx);
}
static void cctx_done(EVP_CIPHER_CTX **ctx)
{
    EVP_CIPHER_CTX_free(*ctx);
}
static void cipher_done(EVP_CIPHER **cipher)
{
    EVP_CIPHER_free(*cipher);
}
static void mac_done(EVP_MAC **mac)
{
    EVP_MAC_free(*mac);
}
static void mctx_done(EVP_MAC_CTX **ctx)
{
    EVP_MAC_CTX_free(*ctx);
}

static enum att_rc hmac_v(const char *hash, struct att_slice key, const struct att_slice *parts,
                          size_t n, uint8_t *ret, size_t len, struct att_err *err)
{
    ATT_CLEANUP(mac_done) EVP_MAC *mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    ATT_CLEANUP(mctx_done) EVP_MAC_CTX *ctx = mac ? EVP_MAC_CTX_new(mac) : NULL;
    char name[16];
    (void)strncpy(name, hash, sizeof name - 1);
    name[sizeof name - 1] = 0;
    OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, name, 0),
                           OSSL_PARAM_construct_end()};
    bool ok = ctx && EVP_MAC_init(ctx, key.ptr, key.len, params) == 1;
    for (size_t i = 0; ok && i < n; i++) {
        ok = parts[i].len == 0 || EVP_MAC_update(ctx, parts[i].ptr, parts[i].len) == 1;
    }
    size_t out = 0;
    if (!ok || EVP_MAC_final(ctx, ret, &out, len) != 1 || out != len) {
        return att_fail_openssl(err, ATT_E_CRYPTO, "make credential: HMAC failed");
    }
    return ATT_OK;
}

/* KDFa, Part 1 clause 11.4.10.2, for up to one block: HMAC(key, 1 ‖ label ‖ 0 ‖ contextU ‖ bits).
 */
static enum att_rc kdfa(const struct cred *c, const char *label, struct att_slice context,
                        uint8_t *ret, size_t len, struct att_err *err)
{
    uint32_t bits = (uint32_t)len * 8;
    uint8_t counter[4] = {0, 0, 0, 1};
    uint8_t tail[4] = {0, 0, (uint8_t)(bits >> 8), (uint8_t)bits};
    struct att_slice parts[] = {ATT_SLICE_ARRAY(counter), ATT_SLICE(label, strlen(label) + 1),
                                context, ATT_SLICE_ARRAY(tail)};
    uint8_t block[PARSE_DIGEST_MAX];
    enum att_rc rc =
        hmac_v(c->hash, ATT_SLICE(c->seed, c->digest_len), parts, 4, block, c->digest_len, err);
    if (rc == ATT_OK) {
        memcpy(ret, block, len);
    }
    att_wipe(block, sizeof block);
    return rc;
}

/* KDFe, Part 1 clause 11.4.10.3, for exactly one block:
 * H(1 ‖ Z ‖ label ‖ 0 ‖ PartyUInfo ‖ PartyVInfo). */
static enum att_rc kdfe(struct cred *c, struct att_slice z, const char *label, struct att_slice u,
                        struct att_slice v, struct att_err *err)
{
    uint8_t counter[4] = {0, 0, 0, 1};
    struct att_slice parts[] = {ATT_SLICE_ARRAY(counter), z, ATT_SLICE(label, strlen(label) + 1), u,
                                v};
    size_t len = 0;
    return att_hash_v(c->hash, c->seed, &len, parts, 5, err);
}

/* Part 1 annex B.10.3: a random seed, OAEP with nameAlg (also in MGF1) and the label "IDENTITY"
 * with its NUL. */
static enum att_rc share_rsa(struct cred *c, struct att_buf *ret_secret, struct att_err *err)
{
    enum att_rc rc = att_random(c->seed, c->digest_len, err);
    if (rc != ATT_OK) {
        return rc;
    }
    ATT_CLEANUP(pctx_done) EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, c->ek_pkey, NULL);
    char hash[16], pad[] = OSSL_PKEY_RSA_PAD_MODE_OAEP, label[] = "IDENTITY";
    (void)strncpy(hash, c->hash, sizeof hash - 1);
    hash[sizeof hash - 1] = 0;
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_ASYM_CIPHER_PARAM_PAD_MODE, pad, 0),
        OSSL_PARAM_construct_utf8_string(OSSL_ASYM_CIPHER_PARAM_OAEP_DIGEST, hash, 0),
        OSSL_PARAM_construct_utf8_string(OSSL_ASYM_CIPHER_PARAM_MGF1_DIGEST, hash, 0),
        OSSL_PARAM_construct_octet_string(OSSL_ASYM_CIPHER_PARAM_OAEP_LABEL, label, sizeof label),
        OSSL_PARAM_construct_end(),
    };
    uint8_t out[PARSE_RSA_MAX];
    size_t len = sizeof out;
    if (!ctx || EVP_PKEY_encrypt_init_ex(ctx, params) != 1 ||
        EVP_PKEY_encrypt(ctx, out, &len, c->seed, c->digest_len) != 1) {
        return att_fail_openssl(err, ATT_E_CRYPTO, "make credential: OAEP failed");
    }
    att_buf_field_be16(ret_secret, ATT_SLICE(out, len));
    return ATT_OK;
}

/* Z = x coordinate of ECDH, padded to the field. */
static enum att_rc ecdh(EVP_PKEY *own, EVP_PKEY *peer, uint8_t *ret_z, size_t field,
                        struct att_err *err)
{
    ATT_CLEANUP(pctx_done) EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, own, NULL);
    size_t len = field;
    if (!ctx || EVP_PKEY_derive_init(ctx) != 1 || EVP_PKEY_derive_set_peer(ctx, peer) != 1 ||
        EVP_PKEY_derive(ctx, ret_z, &len) != 1 || len != field) {
        return att_fail_openssl(err, ATT_E_CRYPTO, "make credential: ECDH failed");
    }
    return ATT_OK;
}

/* Part 1 annex C.6.3: seed = KDFe(nameAlg, Z, "IDENTITY", ephemeral x, EK's x); the secret is the
 * ephemeral point as TPMS_ECC_POINT. */
static enum att_rc share_ecc(struct cred *c, struct att_buf *ret_secret, struct att_err *err)
{
    const char *group = c->ek->curve == PARSE_ECC_P256 ? "P-256" : "P-384";
    size_t field = c->ek->curve == PARSE_ECC_P256 ? 32 : 48;
    ATT_CLEANUP(pkey_done) EVP_PKEY *eph = EVP_PKEY_Q_keygen(NULL, NULL, "EC", group);
    if (!eph) {
        return att_fail_openssl(err, ATT_E_CRYPTO, "make credential: no ephemeral %s key", group);
    }
    struct parse_public own = {0}, ek = {0}; /* both with coordinates of full length */
    uint8_t z[PARSE_COORD_MAX];
    enum att_rc rc = parse_public_set_pkey(&own, eph, err);
    if (rc == ATT_OK) {
        rc = parse_public_set_pkey(&ek, c->ek_pkey, err);
    }
    if (rc == ATT_OK) {
        rc = ecdh(eph, c->ek_pkey, z, field, err);
    }
    if (rc == ATT_OK) {
        rc = kdfe(c, ATT_SLICE(z, field), "IDENTITY", ATT_SLICE(own.x, field),
                  ATT_SLICE(ek.x, field), err);
    }
    att_wipe(z, sizeof z);
    if (rc != ATT_OK) {
        return rc;
    }
    att_buf_be16(ret_secret, (uint16_t)(2 * (2 + field)));
    att_buf_field_be16(ret_secret, ATT_SLICE(own.x, field));
    att_buf_field_be16(ret_secret, ATT_SLICE(own.y, field));
    return ATT_OK;
}

/* CFB with a zero IV, in place. */
static enum att_rc encrypt(const struct cred *c, const uint8_t *key, uint8_t *bytes, size_t len,
                           struct att_err *err)
{
    const char *name = c->ek->sym.key_bits == 128   ? "AES-128-CFB"
                       : c->ek->sym.key_bits == 192 ? "AES-192-CFB"
                                                    : "AES-256-CFB";
    static const uint8_t zero_iv[AES_BLOCK];
    ATT_CLEANUP(cipher_done) EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, name, NULL);
    ATT_CLEANUP(cctx_done) EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    int out = 0, more = 0;
    if (!cipher || !ctx || EVP_EncryptInit_ex2(ctx, cipher, key, zero_iv, NULL) != 1 ||
        EVP_EncryptUpdate(ctx, bytes, &out, bytes, (int)len) != 1 ||
        EVP_EncryptFinal_ex(ctx, bytes + out, &more) != 1 || (size_t)(out + more) != len) {
        return att_fail_openssl(err, ATT_E_CRYPTO, "make credential: %s failed", name);
    }
    return ATT_OK;
}

/* Part 1 clause 24.4 and 24.5: encIdentity under KDFa(seed, "STORAGE", Name), outer HMAC under
 * KDFa(seed, "INTEGRITY"). */
static enum att_rc protect(const struct cred *c, struct att_slice credential,
                           const struct parse_name *name, struct att_buf *ret_blob,
                           struct att_err *err)
{
    uint8_t key[32], mac_key[PARSE_DIGEST_MAX], mac[PARSE_DIGEST_MAX];
    uint8_t enc[2 + PARSE_DIGEST_MAX];
    size_t enc_len = 2 + credential.len;
    enc[0] = (uint8_t)(credential.len >> 8);
    enc[1] = (uint8_t)credential.len;
    memcpy(enc + 2, credential.ptr, credential.len);
    struct att_slice none = {NULL, 0};
    enum att_rc rc = kdfa(c, "STORAGE", parse_name_slice(name), key, c->ek->sym.key_bits / 8u, err);
    if (rc == ATT_OK) {
        rc = encrypt(c, key, enc, enc_len, err);
    }
    if (rc == ATT_OK) {
        rc = kdfa(c, "INTEGRITY", none, mac_key, c->digest_len, err);
    }
    if (rc == ATT_OK) {
        struct att_slice parts[] = {ATT_SLICE(enc, enc_len), parse_name_slice(name)};
        rc = hmac_v(c->hash, ATT_SLICE(mac_key, c->digest_len), parts, 2, mac, c->digest_len, err);
    }
    att_wipe(key, sizeof key);
    att_wipe(mac_key, sizeof mac_key);
    if (rc == ATT_OK) {
        att_buf_be16(ret_blob, (uint16_t)(2 + c->digest_len + enc_len));
        att_buf_field_be16(ret_blob, ATT_SLICE(mac, c->digest_len));
        att_buf_put(ret_blob, enc, enc_len);
    }
    att_wipe(enc, sizeof enc);
    return rc;
}

static enum att_rc check_args(const struct parse_public *ek, struct att_slice credential,
                              const struct parse_name *name, struct att_err *err)
{
    struct parse_name checked;
    enum att_rc rc = parse_name_parse(parse_name_slice(name), &checked, err);
    if (rc != ATT_OK) {
        return rc;
    }
    uint32_t need = PARSE_OA_RESTRICTED | PARSE_OA_DECRYPT;
    if ((ek->attrs & need) != need || ek->sym.alg != PARSE_ALG_AES ||
        ek->type == PARSE_ALG_KEYEDHASH) {
        return att_fail(err, ATT_E_INVAL, "make credential: the EK is not a storage key");
    }
    size_t digest_len = parse_alg_digest_len(ek->name_alg);
    if (credential.len == 0 || credential.len > digest_len) {
        return att_fail(err, ATT_E_INVAL, "make credential: a credential of %zu bytes, not 1…%zu",
                        credential.len, digest_len);
    }
    if (ek->sym.key_bits > 256 || ek->sym.key_bits / 8u > digest_len) {
        return att_fail(err, ATT_E_UNSUPPORTED, "make credential: AES-%u with a shorter hash",
                        ek->sym.key_bits);
    }
    return ATT_OK;
}

enum att_rc parse_makecred_create(const struct parse_public *ek, struct att_slice credential,
                                  const struct parse_name *name, struct att_buf *ret_blob,
                                  struct att_buf *ret_secret, struct att_err *err)
{
    enum att_rc rc = check_args(ek, credential, name, err);
    if (rc != ATT_OK) {
        return rc;
    }
    ATT_CLEANUP(pkey_done) EVP_PKEY *pkey = NULL;
    rc = parse_public_pkey(ek, &pkey, err);
    if (rc != ATT_OK) {
        return rc;
    }
    struct cred c = {.ek = ek,
                     .hash = parse_alg_openssl_name(ek->name_alg),
                     .digest_len = parse_alg_digest_len(ek->name_alg),
                     .ek_pkey = pkey};
    att_autobuf secret = {0}, blob = {0};
    rc = ek->type == PARSE_ALG_RSA ? share_rsa(&c, &secret, err) : share_ecc(&c, &secret, err);
    if (rc == ATT_OK) {
        rc = protect(&c, credential, name, &blob, err);
    }
    att_wipe(c.seed, sizeof c.seed);
    if (rc == ATT_OK) {
        rc = att_buf_ok(&secret, err);
    }
    if (rc == ATT_OK) {
        rc = att_buf_ok(&blob, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    att_buf_put_slice(ret_secret, att_buf_slice(&secret));
    att_buf_put_slice(ret_blob, att_buf_slice(&blob));
    rc = att_buf_ok(ret_secret, err);
    return rc == ATT_OK ? att_buf_ok(ret_blob, err) : rc;
}
