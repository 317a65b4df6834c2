/* ValidateJWTSVID's token, as a caller sends it: nobody has the key, so none holds; and the claims
 * of what parses are encoded, whatever they are. */
#include "attestd/spiffe/jwt_claims.h"
#include "attestd/spiffe/service.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char set[] =
    "{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"k\",\"alg\":\"ES256\","
    "\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\","
    "\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\"}]}"; /* RFC 7515 A.3.1 */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const any[] = {"", "JWT", NULL};
    static struct jwt_keys keys;
    struct oidc_jwt jwt = {0};
    if (!keys.n) {
        static struct oidc_jwks *jwks; /* of two trust domains: the own, and one federated with */
        if (oidc_jwks_parse(att_slice_str(set), &jwks, NULL) != ATT_OK) {
            abort();
        }
        keys.of[0].trust_domain = "bank.example";
        keys.of[1].trust_domain = "partner.example";
        keys.of[0].jwks = keys.of[1].jwks = jwks;
        keys.n = 2;
    }
    char *text = malloc(size + 1);
    if (!text) {
        return 0;
    }
    memcpy(text, data, size);
    text[size] = 0;
    if (spiffed_jwt_judge(&keys, text, "a", 1800000000, &jwt, NULL) == ATT_OK) {
        abort();
    }
    if (oidc_jwt_parse_as(att_slice_str(text), any, &jwt, NULL) == ATT_OK) {
        att_autobuf out = ATT_BUF_INIT(65536);
        if (jwt_claims_encode(jwt.claims, &out, NULL) == ATT_OK && json_object_size(jwt.claims) &&
            !out.len) {
            abort();
        }
        oidc_jwt_done(&jwt);
    }
    free(text);
    return 0;
}
