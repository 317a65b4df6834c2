/* A provider's keys: a JWK Set (RFC 7517 §5) as bytes from outside. */
#ifndef PROVISION_OIDC_JWKS_H
#define PROVISION_OIDC_JWKS_H

#include "provision/oidc/jwt.h"

#define OIDC_JWKS_MAX ((size_t)256 << 10)
#define OIDC_KEYS_MAX 64

struct oidc_key {
    char kid[OIDC_KID_MAX + 1];
    unsigned algs; /* that it may verify: by its type, and its "alg" where it has one */
    EVP_PKEY *pkey;
};
struct oidc_jwks {
    struct oidc_key key[OIDC_KEYS_MAX];
    size_t n;
    size_t skipped; /* other types, other uses, or no kid */
};

/* Keys that this program cannot use (P-384, OKP, "use":"enc") are skipped, as §5 wants; P-256 and
 * RSA of 2048 to 4096 bits stay. ATT_E_PARSE with reason "jwksForm": not a set; more than
 * OIDC_KEYS_MAX; private or symmetric key material in it; a kid twice; no key left. ATT_E_LIMIT,
 * reason "jwksSize". The caller calls oidc_jwks_free. */
ATT_MUST_USE enum att_rc oidc_jwks_parse(struct att_slice text, struct oidc_jwks **ret_jwks,
                                         struct att_err *err);
void oidc_jwks_free(struct oidc_jwks *jwks); /* NULL is fine */
/* NULL: none of this kid. */
const struct oidc_key *oidc_jwks_find(const struct oidc_jwks *jwks, const char *kid);

#endif
