/* A provider's set of keys and its discovery document, as its server (or who stands for it) sends
 * them. */
#include "provision/oidc/provider.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct oidc_jwks *jwks = NULL;
    char *uri = NULL;
    if (oidc_jwks_parse(ATT_SLICE(data, size), &jwks, NULL) == ATT_OK) {
        if (jwks->n == 0 || jwks->n > OIDC_KEYS_MAX) {
            __builtin_trap();
        }
        for (size_t i = 0; i < jwks->n; i++) {
            const struct oidc_key *key = &jwks->key[i];
            bool ec = EVP_PKEY_is_a(key->pkey, "EC") == 1;
            if (oidc_jwks_find(jwks, key->kid) != key || !key->algs ||
                ec != (key->algs == OIDC_ES256)) {
                __builtin_trap();
            }
        }
        oidc_jwks_free(jwks);
    }
    if (oidc_discovery_parse(ATT_SLICE(data, size), "https://idp.example", &uri, NULL) == ATT_OK) {
        if (strncmp(uri, "https://", 8) != 0) {
            __builtin_trap();
        }
        free(uri);
    }
    return 0;
}
