/* The cache file of attestctl token: refused, or a token of one line that has a life. */
#include "attestd/ctl/tokencache.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t key[ATT_SHA256_LEN] = {1, 2, 3};
    struct tokencache cache = {0};
    if (tokencache_parse(ATT_SLICE(data, size), key, &cache, NULL) != ATT_OK) {
        return 0;
    }
    if (!cache.token.len || cache.issued_at < 1 || cache.expires_at <= cache.issued_at ||
        memchr(cache.token.ptr, '\n', cache.token.len)) {
        abort();
    }
    tokencache_done(&cache);
    return 0;
}
