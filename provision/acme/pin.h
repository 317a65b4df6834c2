/* Trust in the issuer's TLS certificate: by a CA file, or by the SHA-256 of a root's DER, which is
 * what a ticket carries. Internal to this folder. */
#ifndef ATTESTD_PROVISION_ACME_PIN_H
#define ATTESTD_PROVISION_ACME_PIN_H

#include "attestd/base/hash.h"

#include <openssl/types.h>

struct acme_pin {
    /* Where it is set it alone decides: NULL, or why it is not trusted. */
    const char *(*peer)(void *user, X509_STORE_CTX *store_ctx);
    void *peer_user;
    bool pinned; /* otherwise the context's own store (the CA file) is the anchor */
    uint8_t sha256[ATT_SHA256_LEN];
    const char *why; /* set by a refusal: a sentence, static or peer's */
};

/* For SSL_CTX_set_cert_verify_callback; arg is a struct acme_pin. A pinned root must be among the
 * certificates that the server sent; then it alone is the trust anchor of a full verification
 * (dates, signatures, purpose), and the verified chain must end in it. 1 = trusted. */
int acme_pin_verify(X509_STORE_CTX *store_ctx, void *arg);

#endif
