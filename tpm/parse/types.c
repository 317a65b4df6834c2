#include "tpm/parse/types.h"

#include <string.h>

static const struct {
    uint16_t alg;
    uint16_t len;
    const char *name;
    const char *openssl;
} hashes[] = {
    {PARSE_ALG_SHA1, 20, "sha1", "SHA1"},
    {PARSE_ALG_SHA256, 32, "sha256", "SHA256"},
    {PARSE_ALG_SHA384, 48, "sha384", "SHA384"},
    {PARSE_ALG_SHA512, 64, "sha512", "SHA512"},
    {PARSE_ALG_SM3_256, 32, "sm3_256", "SM3"},
    {PARSE_ALG_SHA3_256, 32, "sha3_256", "SHA3-256"},
    {PARSE_ALG_SHA3_384, 48, "sha3_384", "SHA3-384"},
    {PARSE_ALG_SHA3_512, 64, "sha3_512", "SHA3-512"},
};
#define N_HASHES (sizeof hashes / sizeof hashes[0])

size_t parse_alg_digest_len(uint16_t alg)
{
    for (size_t i = 0; i < N_HASHES; i++) {
        if (hashes[i].alg == alg) {
            return hashes[i].len;
        }
    }
    return 0;
}

const char *parse_alg_name(uint16_t alg)
{
    for (size_t i = 0; i < N_HASHES; i++) {
        if (hashes[i].alg == alg) {
            return hashes[i].name;
        }
    }
    return NULL;
}

uint16_t parse_alg_by_name(const char *name)
{
    for (size_t i = 0; name && i < N_HASHES; i++) {
        if (strcmp(hashes[i].name, name) == 0) {
            return hashes[i].alg;
        }
    }
    return 0;
}

const char *parse_alg_openssl_name(uint16_t alg)
{
    for (size_t i = 0; i < N_HASHES; i++) {
        if (hashes[i].alg == alg) {
            return hashes[i].openssl;
        }
    }
    return NULL;
}
