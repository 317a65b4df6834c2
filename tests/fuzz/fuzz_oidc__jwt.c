/* A bearer token as a stranger sends it: what parses is verified by a key, and its claims are
 * judged, whatever the signature said. */
#include "provision/oidc/jwt.h"

#include <openssl/ec.h>
#include <openssl/rsa.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void judge(const struct oidc_jwt *jwt)
{
    static char tenant[] = "tid=bank", *const claims[] = {tenant};
    const char *sub = NULL;
    const struct oidc_expect expect = {
        "https://idp.example", "attestd-admin", 60, 86400, claims, 1};
    if (oidc_jwt_check(jwt, &expect, 1800000000, &sub, NULL) == ATT_OK &&
        (strlen(sub) == 0 || strlen(sub) > OIDC_SUB_MAX ||
         strcmp(oidc_jwt_issuer(jwt), expect.issuer) != 0)) {
        __builtin_trap();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static EVP_PKEY *ec, *rsa;
    struct oidc_jwt jwt;
    if (!ec) {
        ec = EVP_EC_gen("P-256");
        rsa = EVP_RSA_gen(2048);
    }
    if (oidc_jwt_parse(ATT_SLICE(data, size), &jwt, NULL) != ATT_OK) {
        return 0;
    }
    /* Nobody has these keys. */
    if (size > OIDC_TOKEN_MAX || !jwt.kid[0] || !json_is_object(jwt.claims) ||
        oidc_jwt_verify(&jwt, ec, NULL) == ATT_OK || oidc_jwt_verify(&jwt, rsa, NULL) == ATT_OK) {
        __builtin_trap();
    }
    judge(&jwt);
    oidc_jwt_done(&jwt);
    return 0;
}
