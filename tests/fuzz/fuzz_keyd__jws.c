/* What the account key is asked to sign: a protected header that passes names a URL of the
 * issuer's, and nothing else than ES256. */
#include "attestd/keyd/internal.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ISSUER "https://issuer.example:8443/acme"

/* The configured URL itself, or something below it. */
static bool is_ours(struct att_slice url)
{
    return att_slice_eq_str(url, ISSUER) ||
           (url.len >= sizeof ISSUER && memcmp(url.ptr, ISSUER "/", sizeof ISSUER) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    att_autojson *own =
        json_pack("{s:s, s:s, s:s, s:s}", "kty", "EC", "crv", "P-256", "x", "AA", "y", "AA");
    att_autojson *header = NULL;
    bool kid = false;
    if (own && keyd_jws_check(ATT_SLICE(data, size), ISSUER, own, &kid, NULL) == ATT_OK) {
        const char *url = NULL, *alg = NULL;
        if (att_json_parse(ATT_SLICE(data, size), size, &header, NULL) != ATT_OK ||
            att_json_str(header, "url", &url, NULL) != ATT_OK ||
            att_json_str(header, "alg", &alg, NULL) != ATT_OK || strcmp(alg, "ES256") != 0 ||
            !is_ours(att_slice_str(url)) || strstr(url, "/../") ||
            kid != (json_object_get(header, "kid") != NULL)) {
            abort();
        }
    }
    if (keyd_url_under(ISSUER, ATT_SLICE(data, size), NULL) == ATT_OK &&
        !is_ours(ATT_SLICE(data, size))) {
        abort();
    }
    return 0;
}
