/* ID and access tokens of an OpenID provider: JWTs in the compact form (RFC 7519, RFC 7515 §3.1),
 * as RFC 8725 wants them checked. Nothing of a token is believed before its signature holds; the
 * key is always one of the provider's, never one that the token brings (jwk, x5c, jku and x5u are
 * not looked at). */
#ifndef PROVISION_OIDC_JWT_H
#define PROVISION_OIDC_JWT_H

#include "attestd/base/json.h"

#include <openssl/evp.h>

#define OIDC_TOKEN_MAX  ((size_t)16 << 10) /* bytes of the compact form */
#define OIDC_KID_MAX    255
#define OIDC_ISSUER_MAX 512
#define OIDC_SUB_MAX    255 /* OpenID Connect Core §2 */

/* A set of these is what a configuration allows. There is no "none" and no MAC among them, so that
 * a public key can never be taken for a secret. */
enum oidc_alg { OIDC_ES256 = 1, OIDC_RS256 = 2, OIDC_PS256 = 4 };
#define OIDC_ALGS_ALL ((unsigned)(OIDC_ES256 | OIDC_RS256 | OIDC_PS256))
/* 0: no such. */
unsigned oidc_alg_parse(const char *name);

struct oidc_jwt {
    enum oidc_alg alg;
    char kid[OIDC_KID_MAX + 1];
    json_t *claims; /* an object */
    struct att_buf signature;
    struct att_buf input; /* what was signed */
};

/* The form alone. ATT_E_AUTH with reason "tokenForm", "tokenAlg" (none of ours) or "tokenKid"
 * (there is none). The caller calls oidc_jwt_done. */
ATT_MUST_USE enum att_rc oidc_jwt_parse(struct att_slice text, struct oidc_jwt *ret_jwt,
                                        struct att_err *err);
/* The same for a token of another kind: its typ must be one of types (ended by NULL; "" among them:
 * there may be none). */
ATT_MUST_USE enum att_rc oidc_jwt_parse_as(struct att_slice text, const char *const *types,
                                           struct oidc_jwt *ret_jwt, struct att_err *err);
void oidc_jwt_done(struct oidc_jwt *jwt);
/* What the token says of its issuer, to find out whose keys to try; "" where it says nothing. */
const char *oidc_jwt_issuer(const struct oidc_jwt *jwt);

/* By a key of the provider. ATT_E_AUTH, reason "tokenAlg": not an algorithm of this key;
 * "tokenSignature". */
ATT_MUST_USE enum att_rc oidc_jwt_verify(const struct oidc_jwt *jwt, EVP_PKEY *key,
                                         struct att_err *err);

struct oidc_expect {
    const char *issuer, *audience;
    int64_t leeway_s;       /* of exp, nbf and iat */
    int64_t lifetime_max_s; /* from now to exp */
    char *const *claims;    /* "name=value", each of which must be there as a text; may be NULL */
    size_t n_claims;
};
/* exp, nbf and iat alone, as below; lifetime_max_s 0: any. */
ATT_MUST_USE enum att_rc oidc_jwt_check_times(const struct oidc_jwt *jwt, int64_t leeway_s,
                                              int64_t lifetime_max_s, int64_t now,
                                              struct att_err *err);
bool oidc_jwt_has_audience(const struct oidc_jwt *jwt, const char *audience);
/* The claims of a token whose signature holds. ATT_E_AUTH with reason "tokenIssuer",
 * "tokenAudience", "tokenExpired", "tokenNotYet", "tokenLifetime", "tokenSubject" or "tokenClaim"
 * (the tenant, say). now: UTC seconds. *ret_sub borrows from the claims. */
ATT_MUST_USE enum att_rc oidc_jwt_check(const struct oidc_jwt *jwt,
                                        const struct oidc_expect *expect, int64_t now,
                                        const char **ret_sub, struct att_err *err);

#endif
