#include "tpm/parse/sig.h"

#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/rsa.h>

enum att_rc parse_sig_parse(struct att_slice bytes, struct parse_sig *ret_sig, struct att_err *err)
{
    if (bytes.len > PARSE_SIG_MAX) {
        return att_fail(err, ATT_E_LIMIT, "signature: %zu bytes, at most %d taken", bytes.len,
                        PARSE_SIG_MAX);
    }
    struct att_cur cur = att_cur_init(bytes);
    struct parse_sig sig = {.alg = att_cur_be16(&cur)};
    if (!cur.failed && sig.alg != PARSE_ALG_ECDSA && sig.alg != PARSE_ALG_RSASSA &&
        sig.alg != PARSE_ALG_RSAPSS) {
        return att_fail(err, ATT_E_UNSUPPORTED,
                        "signature: algorithm 0x%04x, not ECDSA, RSASSA or RSAPSS", sig.alg);
    }
    sig.hash = att_cur_be16(&cur);
    if (!cur.failed && parse_alg_digest_len(sig.hash) == 0) {
        return att_fail(err, ATT_E_PARSE, "signature: 0x%04x is not a hash", sig.hash);
    }
    bool empty = false;
    if (sig.alg == PARSE_ALG_ECDSA) {
        sig.r = att_cur_take_be16(&cur, PARSE_COORD_MAX);
        sig.s = att_cur_take_be16(&cur, PARSE_COORD_MAX);
        empty = sig.r.len == 0 || sig.s.len == 0;
    } else {
        sig.rsa = att_cur_take_be16(&cur, PARSE_RSA_MAX);
        empty = sig.rsa.len == 0;
    }
    if (!att_cur_done(&cur)) {
        return att_fail(err, ATT_E_PARSE, "signature: %zu bytes are not exactly one TPMT_SIGNATURE",
                        bytes.len);
    }
    if (empty) {
        return att_fail(err, ATT_E_PARSE, "signature: it is empty");
    }
    *ret_sig = sig;
    return ATT_OK;
}

enum att_rc parse_sig_encode(const struct parse_sig *sig, struct att_buf *ret_bytes,
                             struct att_err *err)
{
    att_buf_be16(ret_bytes, sig->alg);
    att_buf_be16(ret_bytes, sig->hash);
    if (sig->alg == PARSE_ALG_ECDSA) {
        att_buf_field_be16(ret_bytes, sig->r);
        att_buf_field_be16(ret_bytes, sig->s);
    } else {
        att_buf_field_be16(ret_bytes, sig->rsa);
    }
    return att_buf_ok(ret_bytes, err);
}

static void bn_done(BIGNUM **bn)
{
    BN_free(*bn);
}
static void ecsig_done(ECDSA_SIG **sig)
{
    ECDSA_SIG_free(*sig);
}
static void pkey_done(EVP_PKEY **pkey)
{
    EVP_PKEY_free(*pkey);
}
static void mdctx_done(EVP_MD_CTX **ctx)
{
    EVP_MD_CTX_free(*ctx);
}

enum att_rc parse_sig_der(const struct parse_sig *sig, struct att_buf *ret_der, struct att_err *err)
{
    if (sig->alg != PARSE_ALG_ECDSA) {
        att_buf_put_slice(ret_der, sig->rsa);
        return att_buf_ok(ret_der, err);
    }
    ATT_CLEANUP(ecsig_done) ECDSA_SIG *ec = ECDSA_SIG_new();
    ATT_CLEANUP(bn_done) BIGNUM *r = BN_bin2bn(sig->r.ptr, (int)sig->r.len, NULL);
    ATT_CLEANUP(bn_done) BIGNUM *s = BN_bin2bn(sig->s.ptr, (int)sig->s.len, NULL);
    if (!ec || !r || !s || ECDSA_SIG_set0(ec, r, s) != 1) {
        return att_fail_openssl(err, ATT_E_CRYPTO, "signature: cannot hold r and s");
    }
    r = s = NULL; /* ec has them */
    uint8_t *der = NULL;
    int len = i2d_ECDSA_SIG(ec, &der);
    if (len <= 0) {
        return att_fail_openssl(err, ATT_E_CRYPTO, "signature: cannot write it as DER");
    }
    att_buf_put(ret_der, der, (size_t)len);
    OPENSSL_free(der);
    return att_buf_ok(ret_der, err);
}

/* r and s as a TPM writes them: left-padded to the field; longer than P-384's is not ours. */
static enum att_rc ecdsa_from_der(uint16_t hash, struct att_slice der, struct att_buf *ret_bytes,
                                  struct att_err *err)
{
    const uint8_t *at = der.ptr;
    ATT_CLEANUP(ecsig_done) ECDSA_SIG *ec = d2i_ECDSA_SIG(NULL, &at, (long)der.len);
    if (!ec || at != der.ptr + der.len) {
        return att_fail_openssl(err, ATT_E_PARSE, "signature: not exactly one DER Ecdsa-Sig-Value");
    }
    const BIGNUM *r = ECDSA_SIG_get0_r(ec), *s = ECDSA_SIG_get0_s(ec);
    int longer = BN_num_bytes(r) > BN_num_bytes(s) ? BN_num_bytes(r) : BN_num_bytes(s);
    int field = longer <= 32 ? 32 : PARSE_COORD_MAX;
    uint8_t rb[PARSE_COORD_MAX], sb[PARSE_COORD_MAX];
    if (BN_is_negative(r) || BN_is_negative(s) || BN_bn2binpad(r, rb, field) != field ||
        BN_bn2binpad(s, sb, field) != field) {
        return att_fail(err, ATT_E_PARSE, "signature: r or s is negative or beyond 48 bytes");
    }
    struct parse_sig sig = {.alg = PARSE_ALG_ECDSA,
                            .hash = hash,
                            .r = ATT_SLICE(rb, (size_t)field),
                            .s = ATT_SLICE(sb, (size_t)field)};
    return parse_sig_encode(&sig, ret_bytes, err);
}

enum att_rc parse_sig_from_der(uint16_t alg, uint16_t hash, struct att_slice der,
                               struct att_buf *ret_bytes, struct att_err *err)
{
    if (alg == PARSE_ALG_ECDSA) {
        return ecdsa_from_der(hash, der, ret_bytes, err);
    }
    if (alg != PARSE_ALG_RSASSA && alg != PARSE_ALG_RSAPSS) {
        return att_fail(err, ATT_E_UNSUPPORTED, "signature: algorithm 0x%04x", alg);
    }
    if (der.len == 0 || der.len > PARSE_RSA_MAX) {
        return att_fail(err, ATT_E_PARSE, "signature: RSA of %zu bytes", der.len);
    }
    struct parse_sig sig = {.alg = alg, .hash = hash, .rsa = der};
    return parse_sig_encode(&sig, ret_bytes, err);
}

static enum att_rc auth_fail(struct att_err *err, const char *why)
{
    return att_fail(err, ATT_E_AUTH, "signature: %s", why);
}

/* What the caller and the key pin, before the message is looked at. */
static enum att_rc check_pins(const struct parse_public *signer, uint16_t alg, uint16_t hash,
                              struct att_err *err)
{
    if (hash != PARSE_ALG_SHA256 && hash != PARSE_ALG_SHA384 && hash != PARSE_ALG_SHA512) {
        return auth_fail(err, "the key's hash is not SHA-256, SHA-384 or SHA-512");
    }
    bool fits =
        (signer->type == PARSE_ALG_ECC && alg == PARSE_ALG_ECDSA) ||
        (signer->type == PARSE_ALG_RSA && (alg == PARSE_ALG_RSASSA || alg == PARSE_ALG_RSAPSS));
    if (!fits) {
        return auth_fail(err, "the key's type has no such signing scheme");
    }
    if (signer->scheme.alg != PARSE_ALG_NULL &&
        (signer->scheme.alg != alg || signer->scheme.hash != hash)) {
        return auth_fail(err, "the key's own scheme is another");
    }
    return ATT_OK;
}

static enum att_rc check_with(EVP_PKEY *pkey, uint16_t alg, uint16_t hash, struct att_slice der,
                              struct att_slice message, struct att_err *err)
{
    ATT_CLEANUP(mdctx_done) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    EVP_PKEY_CTX *pctx = NULL; /* ctx's */
    if (!ctx || EVP_DigestVerifyInit_ex(ctx, &pctx, parse_alg_openssl_name(hash), NULL, NULL, pkey,
                                        NULL) != 1) {
        return att_fail_openssl(err, ATT_E_CRYPTO, "signature: cannot begin to verify");
    }
    /* Part 1 annex B.7: the salt is as long as the digest, or as long as fits; read, not assumed.
     */
    if (alg == PARSE_ALG_RSAPSS &&
        (EVP_PKEY_CTX_set_rsa_padding(pctx, RSA_PKCS1_PSS_PADDING) != 1 ||
         EVP_PKEY_CTX_set_rsa_pss_saltlen(pctx, RSA_PSS_SALTLEN_AUTO) != 1)) {
        return att_fail_openssl(err, ATT_E_CRYPTO, "signature: cannot verify RSAPSS");
    }
    static const uint8_t nothing = 0;
    const uint8_t *text = message.ptr ? message.ptr : &nothing;
    if (EVP_DigestVerify(ctx, der.ptr, der.len, text, message.len) != 1) {
        return att_fail_openssl(err, ATT_E_AUTH, "signature: it does not verify with this key");
    }
    return ATT_OK;
}

enum att_rc parse_sig_verify_as(const struct parse_public *signer, uint16_t alg, uint16_t hash,
                                struct att_slice sig_bytes, struct att_slice message,
                                struct att_err *err)
{
    enum att_rc rc = check_pins(signer, alg, hash, err);
    struct parse_sig sig;
    if (rc == ATT_OK) {
        rc = parse_sig_parse(sig_bytes, &sig, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    if (sig.alg != alg || sig.hash != hash) {
        return auth_fail(err, "it names another algorithm or hash than the key's scheme");
    }
    ATT_CLEANUP(pkey_done) EVP_PKEY *pkey = NULL;
    rc = parse_public_pkey(signer, &pkey, err);
    if (rc != ATT_OK) {
        return rc;
    }
    att_autobuf der = ATT_BUF_INIT(PARSE_SIG_MAX);
    rc = parse_sig_der(&sig, &der, err);
    if (rc != ATT_OK) {
        return rc;
    }
    return check_with(pkey, alg, hash, att_buf_slice(&der), message, err);
}

enum att_rc parse_sig_verify(const struct parse_public *signer, struct att_slice sig_bytes,
                             struct att_slice message, struct att_err *err)
{
    if (signer->scheme.alg == PARSE_ALG_NULL) {
        return auth_fail(err, "the key has no scheme of its own");
    }
    return parse_sig_verify_as(signer, signer->scheme.alg, signer->scheme.hash, sig_bytes, message,
                               err);
}
