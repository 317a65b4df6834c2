/* Public keys, decoded once: to read a JWK and make a key of it costs a third of a verification,
 * and each issuance has six requests of one account; a certificate's key costs more than a
 * verification (libcrypto 3.0), and its agent asks for token after token. Looked up by the whole
 * text and by nothing else, so an entry cannot become wrong: who has another key has another text,
 * and whether an account or a certificate may still do anything is not known here. Bounded: a new
 * key takes the place of an older one. Thread-safe. */
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
/* The same for texts of another form, by their own decoder; not both forms in one struct. */
typedef enum att_rc acme_keys_decode(const char *text, EVP_PKEY **ret_key, struct att_err *err);
ATT_MUST_USE enum att_rc acme_keys_get_by(struct acme_keys *keys, acme_keys_decode *decode,
                                          const char *text, EVP_PKEY **ret_key,
                                          struct att_err *err);

#endif
