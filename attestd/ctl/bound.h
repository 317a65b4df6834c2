/* Whether a token is bound to a certificate (RFC 8705 §3): "cnf": {"x5t#S256"} in the JWT itself
 * (§3.1), or in what introspection says of it (§3.2). No token is ever in an error. */
#ifndef ATTESTD_CTL_BOUND_H
#define ATTESTD_CTL_BOUND_H

#include "attestd/base/buf.h"
#include "attestd/base/hash.h"

#define BOUND_THUMBPRINT_LEN 43 /* base64url of a SHA-256 */

void bound_thumbprint(const uint8_t sha256[ATT_SHA256_LEN], char ret[BOUND_THUMBPRINT_LEN + 1]);
/* A token that is a JWT by its form; its signature is the resource server's to check. ATT_E_DENIED:
 * notBound (it says nothing of a certificate), boundOther (of another certificate);
 * ATT_E_UNSUPPORTED boundUnknown: it is no JWT, so that nobody but its server knows. */
ATT_MUST_USE enum att_rc bound_check_jwt(struct att_slice token,
                                         const uint8_t sha256[ATT_SHA256_LEN], struct att_err *err);
/* An introspection's answer (RFC 7662 §2.2). Also tokenInactive; ATT_E_PROTOCOL introspection: it
 * is none. */
ATT_MUST_USE enum att_rc bound_check_introspection(int status, struct att_slice body,
                                                   const uint8_t sha256[ATT_SHA256_LEN],
                                                   struct att_err *err);

#endif
