/* JWKs (RFC 7517) of a bundle's elements: which kinds, and of what they are the key. Internal to
 * this folder. */
#ifndef PROVISION_FEDERATION_JWK_H
#define PROVISION_FEDERATION_JWK_H

#include "attestd/base/json.h"

#include <openssl/types.h>

/* Members that only private and symmetric keys have (RFC 7518 §6.2.2, §6.3.2, §6.4). */
bool federation_jwk_has_secret(const json_t *jwk);
/* Of a kind by which JWT-SVIDs are signed: kty EC or RSA. */
bool federation_jwk_known(const json_t *jwk);
/* A public key on P-256, P-384 or P-521, or RSA of 2048 … 4096 bits: *ret_own is a JWK with the
 * members that make it one, and no others. */
bool federation_jwk_public(const json_t *jwk, json_t **ret_own);
/* Is it this certificate's key? One of a kind that is not known here needs no more than its kty. */
bool federation_jwk_is_of(const json_t *jwk, const EVP_PKEY *key);
/* Of two that federation_jwk_public gave. */
bool federation_jwk_same(const json_t *a, const json_t *b);

#endif
