/* JSON Web Signatures for ACME: flattened JSON serialization only (RFC 7515 §7.2.2, RFC 8555 §6.2).
 *
 * Errors of this file carry the ACME error word in err->reason ("malformed",
 * "badSignatureAlgorithm", "badPublicKey", "unauthorized", …): acme_problem_from_err turns them
 * into the problem document to answer. Nothing here does I/O; all of it is thread-safe. */
#ifndef ATTESTD_PROVISION_ACME_JWS_H
#define ATTESTD_PROVISION_ACME_JWS_H

#include "attestd/base/json.h"

#include <openssl/types.h>

#define ACME_JWS_MAX        ((size_t)12 << 20) /* bytes of a request body */
#define ACME_PROTECTED_MAX  ((size_t)16 << 10) /* bytes of a decoded protected header */
#define ACME_URL_MAX        ((size_t)2048)     /* bytes of any URL */
#define ACME_KID_MAX        ((size_t)2048)
#define ACME_X5C_MAX        8  /* certificates in an x5c header */
#define ACME_ES256_LEN      64 /* r ‖ s, each 32 bytes, RFC 7518 §3.4 */
#define ACME_THUMBPRINT_LEN 44 /* 43 characters of base64url and a NUL */

enum acme_alg {
    ACME_ALG_NONE = 0,
    ACME_ALG_ES256, /* P-256, r ‖ s of fixed 64 bytes */
    ACME_ALG_RS256, /* RSA 2048 … 4096, PKCS #1 v1.5 */
    ACME_ALG_HS256, /* external account bindings only */
};

/* A parsed JWS whose signature is NOT yet checked. Owns everything; acme_jws_done. Which of nonce,
 * url, kid, jwk, typ, x5c are set depends on the parser that made it. */
struct acme_jws {
    enum acme_alg alg;
    char *nonce; /* the text as sent; NULL when absent */
    char *url;
    char *kid;
    json_t *jwk;
    struct att_buf x5c[ACME_X5C_MAX]; /* DER */
    size_t x5c_len;
    struct att_buf payload;   /* decoded; len 0 is POST-as-GET (RFC 8555 §6.3) */
    struct att_buf signature; /* decoded */
    struct att_buf input;     /* ASCII: protected "." payload, what is signed (RFC 7515 §5.1) */
};

/* A request body as an ACME server gets it: exactly the members protected, payload, signature;
 * protected has alg (ES256 or RS256), nonce, url and exactly one of jwk and kid. Compact, general,
 * unprotected "header", "crit", "b64" and any unknown member of the outer object are refused;
 * unknown header parameters are ignored (RFC 7515 §4). ATT_E_UNSUPPORTED with reason
 * "badSignatureAlgorithm" for any other alg; "badNonce" when there is no nonce; else "malformed".
 * text.len > max is ATT_E_LIMIT. */
ATT_MUST_USE enum att_rc acme_jws_parse(struct att_slice text, size_t max, struct acme_jws *ret_jws,
                                        struct att_err *err);
/* The inner JWS of a key change (RFC 8555 §7.3.5), as parsed from the outer one's payload: alg, jwk
 * and url, no nonce, no kid. */
ATT_MUST_USE enum att_rc acme_jws_parse_key_change(const json_t *inner, struct acme_jws *ret_jws,
                                                   struct att_err *err);
/* A signed document: protected has exactly alg ES256, typ (== typ) and x5c (1 … ACME_X5C_MAX
 * standard-base64 DER certificates, leaf first). The caller checks the chain, then calls
 * acme_jws_verify_cert. Used for hostView (docs/PROTOCOL.md M7). */
ATT_MUST_USE enum att_rc acme_jws_parse_signed(struct att_slice text, size_t max, const char *typ,
                                               struct acme_jws *ret_jws, struct att_err *err);
void acme_jws_done(struct acme_jws *jws);

/* Is jws signed by this key? The key's kind must fit jws->alg. ATT_E_AUTH, reason "unauthorized"
 * ("badPublicKey" when the key itself is no good). */
ATT_MUST_USE enum att_rc acme_jws_verify_spki(const struct acme_jws *jws, struct att_slice spki_der,
                                              struct att_err *err);
ATT_MUST_USE enum att_rc acme_jws_verify_jwk(const struct acme_jws *jws, const json_t *jwk,
                                             struct att_err *err);
ATT_MUST_USE enum att_rc acme_jws_verify_key(const struct acme_jws *jws, EVP_PKEY *key,
                                             struct att_err *err);
/* By the public key of x5c[0]. Says nothing about the chain. */
ATT_MUST_USE enum att_rc acme_jws_verify_cert(const struct acme_jws *jws, struct att_err *err);

/* ---- keys -------------------------------------------------------------------------------- */
/* Accepted public keys: EC P-256 with a point on the curve; RSA of 2048 … 4096 bits with an odd
 * exponent ≥ 65537 (at most 64 bits). A JWK with private members is refused; members beside the
 * required ones are ignored (RFC 7517 §4). Reason "badPublicKey". */
ATT_MUST_USE enum att_rc acme_jwk_to_spki(const json_t *jwk, struct att_buf *ret_spki_der,
                                          struct att_err *err);
/* Only the required members, so that equal keys give equal JWKs. The caller owns *ret_jwk. */
ATT_MUST_USE enum att_rc acme_spki_to_jwk(struct att_slice spki_der, json_t **ret_jwk,
                                          struct att_err *err);
/* RFC 7638, SHA-256, base64url. */
ATT_MUST_USE enum att_rc acme_jwk_thumbprint(const json_t *jwk, char ret[ACME_THUMBPRINT_LEN],
                                             struct att_err *err);
ATT_MUST_USE enum att_rc acme_spki_thumbprint(struct att_slice spki_der,
                                              char ret[ACME_THUMBPRINT_LEN], struct att_err *err);

/* ---- signing ----------------------------------------------------------------------------- */
/* Who signs with ES256. Exactly one of the two functions is set. sign gets the bytes to be signed
 * (ASCII: base64url(protected) "." base64url(payload)); sign_parts gets protected (JSON text) and
 * payload undecoded, for a signer that re-checks the header (keyd). Both write r ‖ s. */
struct acme_signer {
    void *user;
    enum att_rc (*sign)(void *user, struct att_slice input, uint8_t ret_rs[ACME_ES256_LEN],
                        struct att_err *err);
    enum att_rc (*sign_parts)(void *user, struct att_slice protected_json, struct att_slice payload,
                              uint8_t ret_rs[ACME_ES256_LEN], struct att_err *err);
};
/* A signer of a P-256 EVP_PKEY (software or provider); borrows pkey. */
struct acme_signer acme_signer_pkey(EVP_PKEY *pkey);

/* The protected header of an ACME request: {"alg":"ES256","nonce","url", and "jwk" or "kid"}. The
 * one of jwk and kid that is not meant is NULL; nonce NULL leaves it out (key change, RFC 8555
 * §7.3.5). Text appended to ret_json is what the signer gets. */
ATT_MUST_USE enum att_rc acme_jws_protected(const char *nonce, const char *url, const json_t *jwk,
                                            const char *kid, struct att_buf *ret_json,
                                            struct att_err *err);
/* {"alg":"ES256","typ":typ,"x5c":[…]} from DER certificates, leaf first. */
ATT_MUST_USE enum att_rc acme_jws_protected_x5c(const char *typ, const struct att_slice *certs,
                                                size_t n_certs, struct att_buf *ret_json,
                                                struct att_err *err);
/* base64url(protected) "." base64url(payload), appended: for who signs by himself (keyd). */
void acme_jws_input(struct att_slice protected_json, struct att_slice payload,
                    struct att_buf *ret_input);
/* The flattened JWS, appended to ret_text. payload {NULL, 0} is POST-as-GET. */
ATT_MUST_USE enum att_rc acme_jws_sign(const struct acme_signer *signer,
                                       struct att_slice protected_json, struct att_slice payload,
                                       struct att_buf *ret_text, struct att_err *err);

/* ---- external account binding, RFC 8555 §7.3.4 ------------------------------------------- */
/* The inner JWS for a newAccount request; the caller owns *ret_eab. */
ATT_MUST_USE enum att_rc acme_eab_create(const char *kid, struct att_slice mac_key, const char *url,
                                         const json_t *account_jwk, json_t **ret_eab,
                                         struct att_err *err);
/* Parses the inner JWS (alg HS256, kid, url, nothing else), so that kid can be looked up. */
ATT_MUST_USE enum att_rc acme_eab_parse(const json_t *eab, struct acme_jws *ret_jws,
                                        struct att_err *err);
/* MAC (constant time), url and payload == account key. ATT_E_AUTH, reason "unauthorized";
 * "malformed" for an url or a key that differs. */
ATT_MUST_USE enum att_rc acme_eab_verify(const struct acme_jws *eab, struct att_slice mac_key,
                                         const char *url, const json_t *account_jwk,
                                         struct att_err *err);

#endif
