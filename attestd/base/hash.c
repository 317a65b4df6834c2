#include "attestd/base/hash.h"

#include <openssl/evp.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static EVP_MD *sha256_md;
static pthread_once_t sha256_once = PTHREAD_ONCE_INIT;

static void fetch_sha256(void)
{
    sha256_md = EVP_MD_fetch(NULL, "SHA256", NULL);
    if (!sha256_md) {
        abort();
    }
}

static const EVP_MD *get_sha256(void)
{
    pthread_once(&sha256_once, fetch_sha256);
    return sha256_md;
}

static int digest_v(const EVP_MD *md, uint8_t *ret, const struct att_slice *parts, size_t n)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    int ok = ctx && EVP_DigestInit_ex2(ctx, md, NULL) == 1;
    for (size_t i = 0; ok && i < n; i++) {
        ok = EVP_DigestUpdate(ctx, parts[i].ptr, parts[i].len) == 1;
    }
    ok = ok && EVP_DigestFinal_ex(ctx, ret, NULL) == 1;
    EVP_MD_CTX_free(ctx);
    return ok;
}

void att_sha256_v(uint8_t ret[ATT_SHA256_LEN], const struct att_slice *parts, size_t n)
{
    if (!digest_v(get_sha256(), ret, parts, n)) {
        abort();
    }
}

void att_sha256(uint8_t ret[ATT_SHA256_LEN], struct att_slice bytes)
{
    att_sha256_v(ret, &bytes, 1);
}

void att_hmac_sha256_v(uint8_t ret[ATT_SHA256_LEN], struct att_slice key,
                       const struct att_slice *parts, size_t n)
{
    /* RFC 2104 over att_sha256_v: EVP_MAC would fetch and copy contexts for each call. */
    uint8_t block[64] = {0}, ipad[64], opad[64], inner[ATT_SHA256_LEN];
    if (key.len > sizeof block) {
        att_sha256(block, key);
    } else if (key.len) {
        memcpy(block, key.ptr, key.len);
    }
    for (size_t i = 0; i < sizeof block; i++) {
        ipad[i] = block[i] ^ 0x36;
        opad[i] = block[i] ^ 0x5c;
    }
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    int ok = ctx && EVP_DigestInit_ex2(ctx, get_sha256(), NULL) == 1 &&
             EVP_DigestUpdate(ctx, ipad, sizeof ipad) == 1;
    for (size_t i = 0; ok && i < n; i++) {
        ok = EVP_DigestUpdate(ctx, parts[i].ptr, parts[i].len) == 1;
    }
    ok = ok && EVP_DigestFinal_ex(ctx, inner, NULL) == 1;
    EVP_MD_CTX_free(ctx);
    if (!ok) {
        abort();
    }
    const struct att_slice outer[] = {ATT_SLICE_ARRAY(opad), ATT_SLICE_ARRAY(inner)};
    att_sha256_v(ret, outer, 2);
    OPENSSL_cleanse(block, sizeof block);
    OPENSSL_cleanse(ipad, sizeof ipad);
    OPENSSL_cleanse(opad, sizeof opad);
    OPENSSL_cleanse(inner, sizeof inner);
}

enum att_rc att_hkdf_sha256(uint8_t *ret, size_t len, struct att_slice ikm, struct att_slice salt,
                            struct att_slice info, struct att_err *err)
{
    uint8_t prk[ATT_SHA256_LEN], t[ATT_SHA256_LEN], counter = 0;
    if (len > 255 * sizeof t) {
        return att_fail(err, ATT_E_INVAL, "HKDF-SHA256 of %zu bytes", len);
    }
    att_hmac_sha256_v(prk, salt, &ikm,
                      1); /* §2.2; no salt: an HMAC key of zeros, as an empty one */
    while (len) {
        counter++;
        const struct att_slice parts[] = {
            {t, counter > 1 ? sizeof t : 0}, info, {&counter, sizeof counter}}; /* §2.3 */
        att_hmac_sha256_v(t, ATT_SLICE_ARRAY(prk), parts, 3);
        size_t step = len < sizeof t ? len : sizeof t;
        memcpy(ret, t, step);
        ret += step;
        len -= step;
    }
    OPENSSL_cleanse(prk, sizeof prk);
    OPENSSL_cleanse(t, sizeof t);
    return ATT_OK;
}

enum att_rc att_hash_v(const char *name, uint8_t ret[ATT_HASH_MAX], size_t *ret_len,
                       const struct att_slice *parts, size_t n, struct att_err *err)
{
    if (strcmp(name, "SHA256") == 0) {
        att_sha256_v(ret, parts, n);
        *ret_len = ATT_SHA256_LEN;
        return ATT_OK;
    }
    EVP_MD *md = EVP_MD_fetch(NULL, name, NULL);
    if (!md) {
        return att_fail_openssl(err, ATT_E_UNSUPPORTED, "digest %s", name);
    }
    int size = EVP_MD_get_size(md);
    int ok = size > 0 && size <= ATT_HASH_MAX && digest_v(md, ret, parts, n);
    EVP_MD_free(md);
    if (!ok) {
        return att_fail_openssl(err, ATT_E_CRYPTO, "digest %s", name);
    }
    *ret_len = (size_t)size;
    return ATT_OK;
}

enum att_rc att_random(uint8_t *ret, size_t len, struct att_err *err)
{
    if (RAND_bytes(ret, (int)len) != 1) {
        return att_fail_openssl(err, ATT_E_CRYPTO, "%zu random bytes", len);
    }
    return ATT_OK;
}
