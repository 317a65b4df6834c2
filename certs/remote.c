/* Keys that sign elsewhere: an OpenSSL provider (provider-keymgmt(7), provider-signature(7)) built
 * into the library. Declared in key.h.
 *
 * It lives in a library context of its own beside the default provider. A key from here in a call
 * of the default context works because libcrypto first tries to export the key to its own ECDSA,
 * which export_key refuses for private selections, and then fetches the signature from the key's
 * provider. */
#include "certs/remote.h"

#include "attestd/base/keytype.h"
#include "certs/der.h"
#include "certs/oid.h"

#include <openssl/core.h>
#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/params.h>
#include <openssl/provider.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define PROVIDER   "attestd"
#define PROPERTIES "provider=" PROVIDER
#define PARAM_NEWBORN                                                                              \
    "attestd-newborn" /* octet pointer to a struct newborn, within this file only */

struct newborn {
    EVP_PKEY *pub;
    const struct certs_signer *signer;
    struct remote_key **ret_key; /* so that the maker can arm release when all has gone well */
};

static _Thread_local struct att_err last_error;

enum att_rc certs_key_remote_error(struct att_err *err)
{
    enum att_rc rc = last_error.rc;
    if (rc != ATT_OK && err) {
        att_err_clear(err);
        *err = last_error;
    }
    att_err_clear(&last_error);
    return rc;
}

/* ---- key management ---- */

static void *key_new(void *provctx)
{
    (void)provctx;
    struct remote_key *key = calloc(1, sizeof *key);
    if (key) {
        atomic_init(&key->refs, 1);
    }
    return key;
}

void remote_key_free(void *keydata)
{
    struct remote_key *key = keydata;
    if (!key || atomic_fetch_sub(&key->refs, 1) != 1) {
        return;
    }
    if (key->has_signer && key->signer.release) {
        key->signer.release(key->signer.user);
    }
    EVP_PKEY_free(key->pub);
    free(key);
}

static int key_has(const void *keydata, int selection)
{
    const struct remote_key *key = keydata;
    bool signs = key && (key->signer.sign || key->signer.sign_rsa);
    return key && key->pub && (!(selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) || signs);
}

/* Either the newborn of certs_key_remote_new or, for comparing, a public key of another provider.
 */
static int key_import(void *keydata, int selection, const OSSL_PARAM params[])
{
    struct remote_key *key = keydata;
    const OSSL_PARAM *p = OSSL_PARAM_locate_const(params, PARAM_NEWBORN);
    const void *ptr = NULL;
    size_t len = 0;
    if (p && OSSL_PARAM_get_octet_ptr(p, &ptr, &len) && len == sizeof(struct newborn)) {
        const struct newborn *newborn = ptr;
        key->pub = newborn->pub;
        key->signer = *newborn->signer;
        *newborn->ret_key = key;
        return EVP_PKEY_up_ref(key->pub);
    }
    if (selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY || key->pub) {
        return 0;
    }
    OSSL_PARAM *copy = OSSL_PARAM_dup(params);
    bool rsa = OSSL_PARAM_locate_const(params, OSSL_PKEY_PARAM_RSA_N);
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, rsa ? "RSA" : "EC", NULL);
    int ok = copy && ctx && EVP_PKEY_fromdata_init(ctx) == 1 &&
             EVP_PKEY_fromdata(ctx, &key->pub, EVP_PKEY_PUBLIC_KEY, copy) == 1;
    EVP_PKEY_CTX_free(ctx);
    OSSL_PARAM_free(copy);
    return ok;
}

static int key_export(void *keydata, int selection, OSSL_CALLBACK *callback, void *arg)
{
    const struct remote_key *key = keydata;
    if (selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY || !key->pub) {
        return 0;
    }
    OSSL_PARAM *params = NULL;
    int want =
        selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY ? EVP_PKEY_PUBLIC_KEY : EVP_PKEY_KEY_PARAMETERS;
    int ok = EVP_PKEY_todata(key->pub, want, &params) == 1 && callback(params, arg);
    OSSL_PARAM_free(params);
    return ok;
}

static const OSSL_PARAM *key_types(int selection)
{
    static const OSSL_PARAM types[] = {
        OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, NULL, 0),
        OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, NULL, 0),
        OSSL_PARAM_END,
    };
    return selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY ? types : NULL;
}

static const OSSL_PARAM *rsa_types(int selection)
{
    static const OSSL_PARAM types[] = {
        OSSL_PARAM_BN(OSSL_PKEY_PARAM_RSA_N, NULL, 0),
        OSSL_PARAM_BN(OSSL_PKEY_PARAM_RSA_E, NULL, 0),
        OSSL_PARAM_END,
    };
    return selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY ? types : NULL;
}

static int key_match(const void *a, const void *b, int selection)
{
    const struct remote_key *x = a, *y = b;
    (void)selection;
    return x->pub && y->pub && EVP_PKEY_eq(x->pub, y->pub) == 1;
}

static int key_get_params(void *keydata, OSSL_PARAM params[])
{
    struct remote_key *key = keydata;
    return key->pub && EVP_PKEY_get_params(key->pub, params) == 1;
}

static const OSSL_PARAM *key_gettable_params(void *provctx)
{
    static const OSSL_PARAM gettable[] = {
        OSSL_PARAM_int(OSSL_PKEY_PARAM_BITS, NULL),
        OSSL_PARAM_int(OSSL_PKEY_PARAM_SECURITY_BITS, NULL),
        OSSL_PARAM_int(OSSL_PKEY_PARAM_MAX_SIZE, NULL),
        OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_DEFAULT_DIGEST, NULL, 0),
        OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, NULL, 0),
        OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_EC_ENCODING, NULL, 0),
        OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_EC_POINT_CONVERSION_FORMAT, NULL, 0),
        OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, NULL, 0),
        OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY, NULL, 0),
        OSSL_PARAM_BN(OSSL_PKEY_PARAM_EC_PUB_X, NULL, 0),
        OSSL_PARAM_BN(OSSL_PKEY_PARAM_EC_PUB_Y, NULL, 0),
        OSSL_PARAM_END,
    };
    (void)provctx;
    return gettable;
}

static const OSSL_PARAM *rsa_gettable_params(void *provctx)
{
    static const OSSL_PARAM gettable[] = {
        OSSL_PARAM_int(OSSL_PKEY_PARAM_BITS, NULL),
        OSSL_PARAM_int(OSSL_PKEY_PARAM_SECURITY_BITS, NULL),
        OSSL_PARAM_int(OSSL_PKEY_PARAM_MAX_SIZE, NULL),
        OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_DEFAULT_DIGEST, NULL, 0),
        OSSL_PARAM_BN(OSSL_PKEY_PARAM_RSA_N, NULL, 0),
        OSSL_PARAM_BN(OSSL_PKEY_PARAM_RSA_E, NULL, 0),
        OSSL_PARAM_END,
    };
    (void)provctx;
    return gettable;
}

static const char *key_operation_name(int operation)
{
    return operation == OSSL_OP_SIGNATURE ? "ECDSA" : NULL;
}

static const char *rsa_operation_name(int operation)
{
    return operation == OSSL_OP_SIGNATURE ? "RSA" : NULL;
}

/* ---- signatures ---- */

struct sig_ctx {
    struct remote_key *key;
    EVP_MD_CTX *md; /* only between digest_sign_init and _final */
};

static void *sig_new(void *provctx, const char *propq)
{
    (void)provctx;
    (void)propq;
    return calloc(1, sizeof(struct sig_ctx));
}

static void sig_free(void *ctx)
{
    struct sig_ctx *sig = ctx;
    if (sig) {
        EVP_MD_CTX_free(sig->md);
        remote_key_free(sig->key);
        free(sig);
    }
}

int remote_key_take(struct remote_key **at, void *keydata)
{
    struct remote_key *key = keydata;
    if (!key) {
        return *at != NULL; /* once more with the same key */
    }
    atomic_fetch_add(&key->refs, 1);
    remote_key_free(*at);
    *at = key;
    return 1;
}

static void *sig_dup(void *ctx)
{
    struct sig_ctx *sig = ctx, *copy = calloc(1, sizeof *copy);
    if (!copy) {
        return NULL;
    }
    if (sig->key) {
        (void)remote_key_take(&copy->key, sig->key);
    }
    if (sig->md) {
        copy->md = EVP_MD_CTX_new();
        if (!copy->md || EVP_MD_CTX_copy_ex(copy->md, sig->md) != 1) {
            sig_free(copy);
            return NULL;
        }
    }
    return copy;
}

static bool is_sha256(const char *name)
{
    EVP_MD *md = EVP_MD_fetch(NULL, name, NULL);
    bool is = md && EVP_MD_is_a(md, "SHA256");
    EVP_MD_free(md);
    return is;
}

static int refuse_digest(const char *name)
{
    ERR_raise_data(ERR_LIB_USER, 1, "a key held elsewhere signs SHA-256 only, not %s",
                   name ? name : "nothing");
    return 0;
}

static int sig_set_params(void *ctx, const OSSL_PARAM params[])
{
    (void)ctx;
    const OSSL_PARAM *p =
        params ? OSSL_PARAM_locate_const(params, OSSL_SIGNATURE_PARAM_DIGEST) : NULL;
    const char *name = NULL;
    if (!p) {
        return 1;
    }
    if (!OSSL_PARAM_get_utf8_string_ptr(p, &name) || !is_sha256(name)) {
        return refuse_digest(name);
    }
    return 1;
}

static const OSSL_PARAM *sig_settable(void *ctx, void *provctx)
{
    static const OSSL_PARAM settable[] = {
        OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_DIGEST, NULL, 0),
        OSSL_PARAM_END,
    };
    (void)ctx;
    (void)provctx;
    return settable;
}

static int sig_get_params(void *ctx, OSSL_PARAM params[])
{
    (void)ctx;
    OSSL_PARAM *p = OSSL_PARAM_locate(params, OSSL_SIGNATURE_PARAM_ALGORITHM_ID);
    if (p &&
        !OSSL_PARAM_set_octet_string(p, certs_der_ecdsa_sha256.ptr, certs_der_ecdsa_sha256.len)) {
        return 0;
    }
    p = OSSL_PARAM_locate(params, OSSL_SIGNATURE_PARAM_DIGEST);
    return !p || OSSL_PARAM_set_utf8_string(p, "SHA256");
}

static const OSSL_PARAM *sig_gettable(void *ctx, void *provctx)
{
    static const OSSL_PARAM gettable[] = {
        OSSL_PARAM_octet_string(OSSL_SIGNATURE_PARAM_ALGORITHM_ID, NULL, 0),
        OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_DIGEST, NULL, 0),
        OSSL_PARAM_END,
    };
    (void)ctx;
    (void)provctx;
    return gettable;
}

static int sign_init(void *ctx, void *keydata, const OSSL_PARAM params[])
{
    struct sig_ctx *sig = ctx;
    return remote_key_take(&sig->key, keydata) && sig_set_params(ctx, params);
}

int remote_signed(enum att_rc rc, struct att_buf *sig, struct att_err *err, uint8_t *ret,
                  size_t *ret_len, size_t room)
{
    rc = rc ? rc : att_buf_ok(sig, err);
    if (rc == ATT_OK && (sig->len == 0 || sig->len > room)) {
        rc =
            att_fail(err, ATT_E_PROTOCOL, "a signature of %zu bytes, room for %zu", sig->len, room);
    }
    if (rc == ATT_OK) {
        memcpy(ret, sig->ptr, sig->len);
        *ret_len = sig->len;
    } else {
        last_error = *err;
        last_error.rc = rc;
        ERR_raise_data(ERR_LIB_USER, 1, "%s", last_error.msg);
    }
    att_buf_done(sig);
    return rc == ATT_OK;
}

static int sign_digest(void *ctx, uint8_t *ret, size_t *ret_len, size_t room, const uint8_t *digest,
                       size_t digest_len)
{
    struct sig_ctx *sig = ctx;
    if (!ret) {
        *ret_len = CERTS_SIG_DER_MAX;
        return 1;
    }
    if (digest_len != ATT_SHA256_LEN || !sig->key || !sig->key->signer.sign) {
        ERR_raise_data(ERR_LIB_USER, 1, "a key held elsewhere signs 32-byte digests, not %zu",
                       digest_len);
        return 0;
    }
    struct att_buf der = ATT_BUF_INIT(CERTS_SIG_DER_MAX);
    struct att_err err = {0};
    att_err_clear(&last_error);
    enum att_rc rc =
        sig->key->signer.sign(sig->key->signer.user, ATT_SLICE(digest, digest_len), &der, &err);
    return remote_signed(rc, &der, &err, ret, ret_len, room);
}

static int digest_sign_init(void *ctx, const char *md_name, void *keydata,
                            const OSSL_PARAM params[])
{
    struct sig_ctx *sig = ctx;
    if (!sign_init(ctx, keydata, params)) {
        return 0;
    }
    if (md_name && *md_name && !is_sha256(md_name)) {
        return refuse_digest(md_name);
    }
    EVP_MD_CTX_free(sig->md);
    sig->md = EVP_MD_CTX_new();
    return sig->md && EVP_DigestInit_ex(sig->md, EVP_sha256(), NULL) == 1;
}

static int digest_sign_update(void *ctx, const unsigned char *bytes, size_t len)
{
    struct sig_ctx *sig = ctx;
    return sig->md && EVP_DigestUpdate(sig->md, bytes, len) == 1;
}

static int digest_sign_final(void *ctx, unsigned char *ret, size_t *ret_len, size_t room)
{
    struct sig_ctx *sig = ctx;
    uint8_t digest[ATT_SHA256_LEN];
    unsigned len = 0;
    if (!sig->md) {
        return 0;
    }
    if (ret && (EVP_DigestFinal_ex(sig->md, digest, &len) != 1 || len != sizeof digest)) {
        return 0;
    }
    return sign_digest(ctx, ret, ret_len, room, digest, sizeof digest);
}

/* ---- the provider ---- */

#define ENTRY REMOTE_ENTRY

static const OSSL_DISPATCH key_functions[] = {
    ENTRY(OSSL_FUNC_KEYMGMT_NEW, key_new),
    ENTRY(OSSL_FUNC_KEYMGMT_FREE, remote_key_free),
    ENTRY(OSSL_FUNC_KEYMGMT_HAS, key_has),
    ENTRY(OSSL_FUNC_KEYMGMT_IMPORT, key_import),
    ENTRY(OSSL_FUNC_KEYMGMT_IMPORT_TYPES, key_types),
    ENTRY(OSSL_FUNC_KEYMGMT_EXPORT, key_export),
    ENTRY(OSSL_FUNC_KEYMGMT_EXPORT_TYPES, key_types),
    ENTRY(OSSL_FUNC_KEYMGMT_MATCH, key_match),
    ENTRY(OSSL_FUNC_KEYMGMT_GET_PARAMS, key_get_params),
    ENTRY(OSSL_FUNC_KEYMGMT_GETTABLE_PARAMS, key_gettable_params),
    ENTRY(OSSL_FUNC_KEYMGMT_QUERY_OPERATION_NAME, key_operation_name),
    {0, NULL},
};

static const OSSL_DISPATCH rsa_functions[] = {
    ENTRY(OSSL_FUNC_KEYMGMT_NEW, key_new),
    ENTRY(OSSL_FUNC_KEYMGMT_FREE, remote_key_free),
    ENTRY(OSSL_FUNC_KEYMGMT_HAS, key_has),
    ENTRY(OSSL_FUNC_KEYMGMT_IMPORT, key_import),
    ENTRY(OSSL_FUNC_KEYMGMT_IMPORT_TYPES, rsa_types),
    ENTRY(OSSL_FUNC_KEYMGMT_EXPORT, key_export),
    ENTRY(OSSL_FUNC_KEYMGMT_EXPORT_TYPES, rsa_types),
    ENTRY(OSSL_FUNC_KEYMGMT_MATCH, key_match),
    ENTRY(OSSL_FUNC_KEYMGMT_GET_PARAMS, key_get_params),
    ENTRY(OSSL_FUNC_KEYMGMT_GETTABLE_PARAMS, rsa_gettable_params),
    ENTRY(OSSL_FUNC_KEYMGMT_QUERY_OPERATION_NAME, rsa_operation_name),
    {0, NULL},
};

static const OSSL_DISPATCH sig_functions[] = {
    ENTRY(OSSL_FUNC_SIGNATURE_NEWCTX, sig_new),
    ENTRY(OSSL_FUNC_SIGNATURE_FREECTX, sig_free),
    ENTRY(OSSL_FUNC_SIGNATURE_DUPCTX, sig_dup),
    ENTRY(OSSL_FUNC_SIGNATURE_SIGN_INIT, sign_init),
    ENTRY(OSSL_FUNC_SIGNATURE_SIGN, sign_digest),
    ENTRY(OSSL_FUNC_SIGNATURE_DIGEST_SIGN_INIT, digest_sign_init),
    ENTRY(OSSL_FUNC_SIGNATURE_DIGEST_SIGN_UPDATE, digest_sign_update),
    ENTRY(OSSL_FUNC_SIGNATURE_DIGEST_SIGN_FINAL, digest_sign_final),
    ENTRY(OSSL_FUNC_SIGNATURE_SET_CTX_PARAMS, sig_set_params),
    ENTRY(OSSL_FUNC_SIGNATURE_SETTABLE_CTX_PARAMS, sig_settable),
    ENTRY(OSSL_FUNC_SIGNATURE_GET_CTX_PARAMS, sig_get_params),
    ENTRY(OSSL_FUNC_SIGNATURE_GETTABLE_CTX_PARAMS, sig_gettable),
    {0, NULL},
};

static const OSSL_ALGORITHM *provider_query(void *provctx, int operation, int *no_cache)
{
    static const OSSL_ALGORITHM keys[] = {
        {"EC:id-ecPublicKey:1.2.840.10045.2.1", PROPERTIES, key_functions, NULL},
        {"RSA:rsaEncryption:1.2.840.113549.1.1.1", PROPERTIES, rsa_functions, NULL},
        {NULL, NULL, NULL, NULL},
    };
    static const OSSL_ALGORITHM signatures[] = {
        {"ECDSA", PROPERTIES, sig_functions, NULL},
        {"RSA:rsaEncryption:1.2.840.113549.1.1.1", PROPERTIES, remote_rsa_signature, NULL},
        {NULL, NULL, NULL, NULL},
    };
    (void)provctx;
    *no_cache = 0;
    return operation == OSSL_OP_KEYMGMT ? keys : operation == OSSL_OP_SIGNATURE ? signatures : NULL;
}

static int provider_init(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in,
                         const OSSL_DISPATCH **out, void **ret_provctx)
{
    static const OSSL_DISPATCH functions[] = {
        ENTRY(OSSL_FUNC_PROVIDER_QUERY_OPERATION, provider_query),
        {0, NULL},
    };
    (void)handle;
    (void)in;
    *out = functions;
    static int context;
    *ret_provctx = &context; /* nothing per provider, but NULL reads as failure in places */
    return 1;
}

static OSSL_LIB_CTX *remote_libctx;
static pthread_once_t remote_once = PTHREAD_ONCE_INIT;

static void remote_setup(void)
{
    OSSL_LIB_CTX *libctx = OSSL_LIB_CTX_new();
    if (libctx && OSSL_PROVIDER_load(libctx, "default") &&
        OSSL_PROVIDER_add_builtin(libctx, PROVIDER, provider_init) == 1 &&
        OSSL_PROVIDER_load(libctx, PROVIDER)) {
        remote_libctx = libctx; /* for the life of the process */
        return;
    }
    OSSL_LIB_CTX_free(libctx);
}

/* The public half alone, of a type for which there is a callback. */
static enum att_rc public_half(const EVP_PKEY *key, const struct certs_signer *signer,
                               EVP_PKEY **ret_pub, struct att_err *err)
{
    att_autobuf spki = {0};
    enum att_keytype type = ATT_KEYTYPE_NONE;
    enum att_rc rc = certs_key_spki(key, &spki, err);
    bool rsa = rc == ATT_OK && signer->sign_rsa &&
               att_keytype_of_spki(att_buf_slice(&spki), &type, NULL) == ATT_OK &&
               att_keytype_is_rsa(type);
    if (rc != ATT_OK) {
        return rc;
    }
    if (!rsa && !signer->sign) {
        return att_fail(err, ATT_E_INVAL, "a key held elsewhere: RSA-2048 or RSA-3072 expected");
    }
    return rsa ? att_keytype_key(att_buf_slice(&spki), ret_pub, err)
               : certs_key_from_spki(att_buf_slice(&spki), ret_pub, err);
}

enum att_rc certs_key_remote_new(const EVP_PKEY *public_key, const struct certs_signer *signer,
                                 EVP_PKEY **ret_key, struct att_err *err)
{
    if (!signer || (!signer->sign && !signer->sign_rsa)) {
        return att_fail(err, ATT_E_INVAL, "a key held elsewhere needs a sign function");
    }
    certs_autokey *pub = NULL;
    enum att_rc rc = public_half(public_key, signer, &pub, err);
    if (rc != ATT_OK) {
        return rc;
    }
    pthread_once(&remote_once, remote_setup);
    if (!remote_libctx) {
        return att_fail_openssl(err, ATT_E_CRYPTO, "load the provider for keys held elsewhere");
    }
    struct remote_key *made = NULL;
    struct newborn newborn = {pub, signer, &made};
    void *ptr = &newborn;
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_octet_ptr(PARAM_NEWBORN, &ptr, sizeof newborn),
        OSSL_PARAM_construct_end(),
    };
    certs_autokey *key = NULL;
    const char *name = EVP_PKEY_is_a(pub, "RSA") ? "RSA" : "EC";
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(remote_libctx, name, PROPERTIES);
    bool ok = ctx && EVP_PKEY_fromdata_init(ctx) == 1 &&
              EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_KEYPAIR, params) == 1 && made;
    EVP_PKEY_CTX_free(ctx);
    if (!ok) {
        return att_fail_openssl(err, ATT_E_CRYPTO, "make a key held elsewhere");
    }
    made->has_signer = true;
    *ret_key = key;
    key = NULL;
    return ATT_OK;
}
