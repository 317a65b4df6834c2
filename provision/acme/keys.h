/* Account keys, decoded once: to read a JWK and make a key of it costs a third of a verification,
 * and each issuance has six requests of one account. Looked up by the JWK's text and by nothing
 * else, so an entry cannot become wrong: who has another key has another text, and whether an
 * account may still do anything is not known here. Bounded: a new key takes the place of an older
 * one. Thread-safe. */
#ifndef ATTESTD_PROVISION_ACME_KEYS_H
#define ATTESTD_PROVISION_ACME_KEYS_H

#include "attestd/base/err.h"

#include <openssl/types.h>

#define ACME_KEYS_MAX 4096

struct acme_keys;

struct acme_keys *acme_keys_new(void); /* NULL without memory */
void acme_keys_free(struct acme_keys *keys);
/* The public key of a JWK in JSON, under the rules of jws.h; refused texts are not kept. The caller
 * frees it (EVP_PKEY_free). */
ATT_MUST_USE enum att_rc acme_keys_get(struct acme_keys *keys, const char *jwk, EVP_PKEY **ret_key,
                                       struct att_err *err);

#endif
