/* The HMACs of a session's commands. ESYS (tss2 3.2 and 4.1) makes an HMAC key and a context for
 * each by EVP_PKEY_new_raw_private_key(_ex) and EVP_DigestSignInit: twice a command, and each time
 * OpenSSL 3 looks the same algorithms up by name, which is three fifths of all that the caller
 * computes for a signature. As in ossl.c the program's definitions stand before libcrypto's, and
 * within TPM_CALL an HMAC is what RFC 2104 says: two digests, by libcrypto's EVP_Digest. The key is
 * kept for the one HMAC and wiped with it. Everything else goes through unchanged: other keys, a
 * second HMAC beside one that runs, whatever is outside of TPM_CALL.
 *
 * What stands for the key between the two calls is an HMAC key of random bytes: were it used in a
 * way that is not known here, no HMAC would come out that anybody can compute, and the TPM would
 * refuse it. After that (a key that was handed out and not taken) the short way is left for good.
 */
#include "tpm/internal.h"

#include <dlfcn.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdatomic.h>

#define BLOCK_MAX 144 /* of SHA-512: 128 */

typedef EVP_PKEY *key_fn(int type, ENGINE *engine, const unsigned char *key, size_t len);
typedef EVP_PKEY *key_ex_fn(OSSL_LIB_CTX *libctx, const char *type, const char *props,
                            const unsigned char *key, size_t len);
typedef int init_fn(EVP_MD_CTX *ctx, EVP_PKEY_CTX **ret_pctx, const EVP_MD *md, ENGINE *engine,
                    EVP_PKEY *key);
typedef int update_fn(EVP_MD_CTX *ctx, const void *bytes, size_t len);
typedef int final_fn(EVP_MD_CTX *ctx, unsigned char *ret, size_t *len);

static pthread_once_t once = PTHREAD_ONCE_INIT;
static key_fn *real_key;
static key_ex_fn *real_key_ex;
static init_fn *real_init;
static update_fn *real_update;
static final_fn *real_final;
static EVP_PKEY *stand_in; /* to the end of the process; NULL: no short way */
static atomic_bool off;

static _Thread_local struct {
    enum { IDLE, KEYED, RUNNING } state;
    uint8_t key[BLOCK_MAX]; /* padded with zeros to the block */
    size_t len;             /* of the key, then of the block */
    EVP_MD_CTX *ctx;
    const EVP_MD *md; /* ESYS's, which outlives the HMAC */
} hmac;

static void find(const char *name, void *ret_fn)
{
    void *found = dlsym(RTLD_NEXT, name);
    memcpy(ret_fn, &found, sizeof(found));
}

static void set_up(void)
{
    uint8_t bytes[ATT_SHA256_LEN];
    find("EVP_PKEY_new_raw_private_key", &real_key);
    find("EVP_PKEY_new_raw_private_key_ex", &real_key_ex);
    find("EVP_DigestSignInit", &real_init);
    find("EVP_DigestSignUpdate", &real_update);
    find("EVP_DigestSignFinal", &real_final);
    if (real_key && real_key_ex && real_init && real_update && real_final &&
        att_random(bytes, sizeof(bytes), NULL) == ATT_OK) {
        stand_in = real_key(EVP_PKEY_HMAC, NULL, bytes, sizeof(bytes));
    }
    att_wipe(bytes, sizeof(bytes));
}

static void forget(void)
{
    att_wipe(&hmac, sizeof(hmac));
}

void tpm_ossl_hmac_done(void)
{
    if (hmac.state == KEYED) {
        atomic_store(&off, true);
    }
    if (hmac.state != IDLE) {
        forget();
    }
}

/* Takes the key; NULL: not the short way. */
static EVP_PKEY *take_key(const unsigned char *key, size_t len)
{
    (void)pthread_once(&once, set_up);
    if (!tpm_ossl_inside() || !stand_in || hmac.state != IDLE || len > BLOCK_MAX ||
        (len != 0 && !key) || atomic_load(&off) || EVP_PKEY_up_ref(stand_in) != 1) {
        return NULL;
    }
    hmac.state = KEYED;
    hmac.len = len;
    if (len != 0) {
        memcpy(hmac.key, key, len);
    }
    return stand_in;
}

EVP_PKEY *EVP_PKEY_new_raw_private_key(int type, ENGINE *e, const unsigned char *priv, size_t len)
{
    EVP_PKEY *taken = type == EVP_PKEY_HMAC && !e ? take_key(priv, len) : NULL;
    (void)pthread_once(&once, set_up);
    return taken ? taken : real_key ? real_key(type, e, priv, len) : NULL;
}

EVP_PKEY *EVP_PKEY_new_raw_private_key_ex(OSSL_LIB_CTX *libctx, const char *keytype,
                                          const char *propq, const unsigned char *priv, size_t len)
{
    EVP_PKEY *taken = keytype && strcmp(keytype, "HMAC") == 0 ? take_key(priv, len) : NULL;
    (void)pthread_once(&once, set_up);
    return taken ? taken : real_key_ex ? real_key_ex(libctx, keytype, propq, priv, len) : NULL;
}

static bool put_pad(uint8_t pad)
{
    uint8_t block[BLOCK_MAX];
    for (size_t i = 0; i < hmac.len; i++) {
        block[i] = hmac.key[i] ^ pad;
    }
    bool ok = EVP_DigestInit_ex2(hmac.ctx, hmac.md, NULL) == 1 &&
              EVP_DigestUpdate(hmac.ctx, block, hmac.len) == 1;
    att_wipe(block, sizeof(block));
    return ok;
}

/* The key that was taken, as libcrypto has it. */
static int init_real(EVP_MD_CTX *ctx, EVP_PKEY_CTX **ret_pctx, const EVP_MD *md, ENGINE *engine)
{
    EVP_PKEY *key = real_key(EVP_PKEY_HMAC, NULL, hmac.key, hmac.len);
    forget();
    int ok = key ? real_init(ctx, ret_pctx, md, engine, key) : 0;
    EVP_PKEY_free(key); /* ctx has its own reference */
    return ok;
}

int EVP_DigestSignInit(EVP_MD_CTX *ctx, EVP_PKEY_CTX **pctx, const EVP_MD *type, ENGINE *e,
                       EVP_PKEY *pkey)
{
    (void)pthread_once(&once, set_up);
    if (hmac.state == RUNNING && ctx == hmac.ctx) {
        forget(); /* given up, and its place has another one now */
    }
    if (!pkey || pkey != stand_in || hmac.state != KEYED) {
        return real_init ? real_init(ctx, pctx, type, e, pkey) : 0;
    }
    int block = type ? EVP_MD_get_block_size(type) : 0;
    if (pctx || e || block <= 0 || block > BLOCK_MAX || hmac.len > (size_t)block) {
        return init_real(ctx, pctx, type, e);
    }
    hmac.state = RUNNING;
    hmac.len = (size_t)block;
    hmac.ctx = ctx;
    hmac.md = type;
    if (!put_pad(0x36)) {
        forget();
        return 0;
    }
    return 1;
}

int EVP_DigestSignUpdate(EVP_MD_CTX *ctx, const void *data, size_t dsize)
{
    (void)pthread_once(&once, set_up);
    if (hmac.state == RUNNING && ctx == hmac.ctx) {
        return EVP_DigestUpdate(ctx, data, dsize);
    }
    return real_update ? real_update(ctx, data, dsize) : 0;
}

int EVP_DigestSignFinal(EVP_MD_CTX *ctx, unsigned char *sigret, size_t *siglen)
{
    uint8_t inner[EVP_MAX_MD_SIZE];
    unsigned inner_len = 0;
    (void)pthread_once(&once, set_up);
    if (hmac.state != RUNNING || ctx != hmac.ctx) {
        return real_final ? real_final(ctx, sigret, siglen) : 0;
    }
    int size = EVP_MD_get_size(hmac.md);
    if (size <= 0 || (sigret && *siglen < (size_t)size)) {
        return 0;
    }
    *siglen = (size_t)size;
    if (!sigret) {
        return 1;
    }
    bool ok = EVP_DigestFinal_ex(ctx, inner, &inner_len) == 1 && put_pad(0x5c) &&
              EVP_DigestUpdate(ctx, inner, inner_len) == 1 &&
              EVP_DigestFinal_ex(ctx, sigret, NULL) == 1;
    att_wipe(inner, sizeof(inner));
    forget();
    return ok ? 1 : 0;
}
