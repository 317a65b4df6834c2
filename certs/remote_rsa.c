/* Signatures by RSA keys that sign elsewhere (provider-signature(7)), as TLS asks for them: over a
 * digest of SHA-256, SHA-384 or SHA-512, PKCS #1 v1.5, or PSS with one hash for both and a salt of
 * its length (RFC 8446 §4.2.3). Anything else is refused before the key is asked. */
#include "certs/remote.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/params.h>
#include <openssl/rsa.h>
#include <stdlib.h>
#include <string.h>

#define SIG_MAX ATT_RSA_MODULUS_MAX

struct rsa_ctx {
    struct remote_key *key;
    EVP_MD_CTX *md;     /* only between digest_sign_init and _final */
    const EVP_MD *hash; /* NULL: not said yet */
    bool pss;
    int salt;           /* bytes, or RSA_PSS_SALTLEN_DIGEST */
    const EVP_MD *mgf1; /* NULL: the hash */
};

static int refuse(const char *what, const char *found)
{
    ERR_raise_data(ERR_LIB_USER, 1, "an RSA key held elsewhere: %s, not %s", what,
                   found ? found : "nothing");
    return 0;
}

static const EVP_MD *hash_of(const char *name)
{
    const EVP_MD *const known[] = {EVP_sha256(), EVP_sha384(), EVP_sha512()};
    EVP_MD *md = name ? EVP_MD_fetch(NULL, name, NULL) : NULL;
    const EVP_MD *found = NULL;
    for (size_t i = 0; md && i < sizeof known / sizeof known[0]; i++) {
        found = EVP_MD_is_a(md, EVP_MD_get0_name(known[i])) ? known[i] : found;
    }
    EVP_MD_free(md);
    return found;
}

static void *rsa_new(void *provctx, const char *propq)
{
    (void)provctx;
    (void)propq;
    struct rsa_ctx *sig = calloc(1, sizeof *sig);
    if (sig) {
        sig->salt = RSA_PSS_SALTLEN_DIGEST;
    }
    return sig;
}

static void rsa_free(void *ctx)
{
    struct rsa_ctx *sig = ctx;
    if (sig) {
        EVP_MD_CTX_free(sig->md);
        remote_key_free(sig->key);
        free(sig);
    }
}

static void *rsa_dup(void *ctx)
{
    struct rsa_ctx *sig = ctx, *copy = malloc(sizeof *copy);
    if (!copy) {
        return NULL;
    }
    *copy = *sig;
    copy->key = NULL;
    copy->md = NULL;
    if (sig->key) {
        (void)remote_key_take(&copy->key, sig->key);
    }
    if (sig->md) {
        copy->md = EVP_MD_CTX_new();
        if (!copy->md || EVP_MD_CTX_copy_ex(copy->md, sig->md) != 1) {
            rsa_free(copy);
            return NULL;
        }
    }
    return copy;
}

/* ---- parameters: as a number or by name (provider-signature(7)) ---- */

static int set_padding(struct rsa_ctx *sig, const OSSL_PARAM *p)
{
    const char *name = NULL;
    int mode = 0;
    if (p->data_type == OSSL_PARAM_UTF8_STRING) {
        bool text = OSSL_PARAM_get_utf8_string_ptr(p, &name) && name;
        mode = text && strcmp(name, OSSL_PKEY_RSA_PAD_MODE_PKCSV15) == 0 ? RSA_PKCS1_PADDING
               : text && strcmp(name, OSSL_PKEY_RSA_PAD_MODE_PSS) == 0   ? RSA_PKCS1_PSS_PADDING
                                                                         : 0;
    } else if (!OSSL_PARAM_get_int(p, &mode)) {
        mode = 0;
    }
    if (mode != RSA_PKCS1_PADDING && mode != RSA_PKCS1_PSS_PADDING) {
        return refuse("PKCS #1 v1.5 or PSS", "another padding");
    }
    sig->pss = mode == RSA_PKCS1_PSS_PADDING;
    return 1;
}

static int set_salt(struct rsa_ctx *sig, const OSSL_PARAM *p)
{
    const char *name = NULL;
    int len = RSA_PSS_SALTLEN_MAX;
    if (p->data_type == OSSL_PARAM_UTF8_STRING) {
        bool text = OSSL_PARAM_get_utf8_string_ptr(p, &name) && name;
        len = text && strcmp(name, OSSL_PKEY_RSA_PSS_SALT_LEN_DIGEST) == 0 ? RSA_PSS_SALTLEN_DIGEST
              : text && name[0] >= '0' && name[0] <= '9'                   ? atoi(name)
                                                                           : RSA_PSS_SALTLEN_MAX;
    } else if (!OSSL_PARAM_get_int(p, &len)) {
        len = RSA_PSS_SALTLEN_MAX;
    }
    if (len < 0 && len != RSA_PSS_SALTLEN_DIGEST) {
        return refuse("a salt as long as the digest", "another");
    }
    sig->salt = len;
    return 1;
}

static int set_hash(const OSSL_PARAM *p, const EVP_MD **at)
{
    const char *name = NULL;
    const EVP_MD *md = OSSL_PARAM_get_utf8_string_ptr(p, &name) ? hash_of(name) : NULL;
    if (!md) {
        return refuse("SHA-256, SHA-384 or SHA-512", name);
    }
    *at = md;
    return 1;
}

static int rsa_set_params(void *ctx, const OSSL_PARAM params[])
{
    struct rsa_ctx *sig = ctx;
    int ok = 1;
    for (const OSSL_PARAM *p = params; ok && p && p->key; p++) {
        if (strcmp(p->key, OSSL_SIGNATURE_PARAM_DIGEST) == 0) {
            ok = set_hash(p, &sig->hash);
        } else if (strcmp(p->key, OSSL_SIGNATURE_PARAM_MGF1_DIGEST) == 0) {
            ok = set_hash(p, &sig->mgf1);
        } else if (strcmp(p->key, OSSL_SIGNATURE_PARAM_PAD_MODE) == 0) {
            ok = set_padding(sig, p);
        } else if (strcmp(p->key, OSSL_SIGNATURE_PARAM_PSS_SALTLEN) == 0) {
            ok = set_salt(sig, p);
        }
    }
    return ok;
}

static const OSSL_PARAM *rsa_settable(void *ctx, void *provctx)
{
    static const OSSL_PARAM settable[] = {
        OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_DIGEST, NULL, 0),
        OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_PAD_MODE, NULL, 0),
        OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_PSS_SALTLEN, NULL, 0),
        OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_MGF1_DIGEST, NULL, 0),
        OSSL_PARAM_END,
    };
    (void)ctx;
    (void)provctx;
    return settable;
}

/* ---- signing ---- */

static int rsa_init(void *ctx, void *keydata, const OSSL_PARAM params[])
{
    struct rsa_ctx *sig = ctx;
    return remote_key_take(&sig->key, keydata) && rsa_set_params(ctx, params);
}

static bool consistent(const struct rsa_ctx *sig, size_t digest_len)
{
    size_t hash_len = sig->hash ? (size_t)EVP_MD_get_size(sig->hash) : digest_len;
    bool known = digest_len == 32 || digest_len == 48 || digest_len == 64;
    bool salt = sig->salt == RSA_PSS_SALTLEN_DIGEST || (size_t)sig->salt == digest_len;
    bool mgf1 = !sig->mgf1 || (size_t)EVP_MD_get_size(sig->mgf1) == digest_len;
    return known && hash_len == digest_len && (!sig->pss || (salt && mgf1));
}

static int rsa_sign(void *ctx, uint8_t *ret, size_t *ret_len, size_t room, const uint8_t *digest,
                    size_t digest_len)
{
    struct rsa_ctx *sig = ctx;
    if (!sig->key || !sig->key->signer.sign_rsa) {
        return refuse("a key", NULL);
    }
    if (!ret) {
        *ret_len = (size_t)EVP_PKEY_get_size(sig->key->pub);
        return 1;
    }
    if (!consistent(sig, digest_len)) {
        return refuse("one hash of SHA-256, SHA-384 or SHA-512 for digest, MGF1 and salt", "these");
    }
    struct att_buf made = ATT_BUF_INIT(SIG_MAX);
    struct att_err err = {0};
    (void)certs_key_remote_error(NULL); /* what was said before is of no signature of now */
    enum att_rc rc =
        sig->key->signer.sign_rsa(sig->key->signer.user, sig->pss ? ATT_RSA_PSS : ATT_RSA_PKCS1,
                                  ATT_SLICE(digest, digest_len), &made, &err);
    if (rc == ATT_OK && made.len != (size_t)EVP_PKEY_get_size(sig->key->pub)) {
        rc = att_fail(&err, ATT_E_PROTOCOL, "an RSA signature of %zu bytes, %d expected", made.len,
                      EVP_PKEY_get_size(sig->key->pub));
    }
    return remote_signed(rc, &made, &err, ret, ret_len, room);
}

static int rsa_digest_init(void *ctx, const char *md_name, void *keydata, const OSSL_PARAM params[])
{
    struct rsa_ctx *sig = ctx;
    const EVP_MD *hash = md_name && *md_name ? hash_of(md_name) : EVP_sha256();
    if (!hash) {
        return refuse("SHA-256, SHA-384 or SHA-512", md_name);
    }
    sig->hash = hash;
    if (!rsa_init(ctx, keydata, params)) {
        return 0;
    }
    EVP_MD_CTX_free(sig->md);
    sig->md = EVP_MD_CTX_new();
    return sig->md && EVP_DigestInit_ex(sig->md, sig->hash, NULL) == 1;
}

static int rsa_digest_update(void *ctx, const unsigned char *bytes, size_t len)
{
    struct rsa_ctx *sig = ctx;
    return sig->md && EVP_DigestUpdate(sig->md, bytes, len) == 1;
}

static int rsa_digest_final(void *ctx, unsigned char *ret, size_t *ret_len, size_t room)
{
    struct rsa_ctx *sig = ctx;
    uint8_t digest[EVP_MAX_MD_SIZE] = {0};
    unsigned len = 0;
    if (!sig->md || (ret && EVP_DigestFinal_ex(sig->md, digest, &len) != 1)) {
        return 0;
    }
    return rsa_sign(ctx, ret, ret_len, room, digest, len);
}

const OSSL_DISPATCH remote_rsa_signature[] = {
    REMOTE_ENTRY(OSSL_FUNC_SIGNATURE_NEWCTX, rsa_new),
    REMOTE_ENTRY(OSSL_FUNC_SIGNATURE_FREECTX, rsa_free),
    REMOTE_ENTRY(OSSL_FUNC_SIGNATURE_DUPCTX, rsa_dup),
    REMOTE_ENTRY(OSSL_FUNC_SIGNATURE_SIGN_INIT, rsa_init),
    REMOTE_ENTRY(OSSL_FUNC_SIGNATURE_SIGN, rsa_sign),
    REMOTE_ENTRY(OSSL_FUNC_SIGNATURE_DIGEST_SIGN_INIT, rsa_digest_init),
    REMOTE_ENTRY(OSSL_FUNC_SIGNATURE_DIGEST_SIGN_UPDATE, rsa_digest_update),
    REMOTE_ENTRY(OSSL_FUNC_SIGNATURE_DIGEST_SIGN_FINAL, rsa_digest_final),
    REMOTE_ENTRY(OSSL_FUNC_SIGNATURE_SET_CTX_PARAMS, rsa_set_params),
    REMOTE_ENTRY(OSSL_FUNC_SIGNATURE_SETTABLE_CTX_PARAMS, rsa_settable),
    {0, NULL},
};
