/* Certificates and logs of the forge. Private to tests/support. */
#ifndef ATTESTD_TESTS_FORGE_PARTS_H
#define ATTESTD_TESTS_FORGE_PARTS_H

#include "tests/support/forge.h"

/* A self-signed CA, or one issued by issuer. */
X509 *forge_ca(EVP_PKEY *key, const char *name, X509 *issuer, EVP_PKEY *issuer_key);
/* The EK certificate of forge->ek_cert_spec into forge->ek_cert, with its padding. */
void forge_ek_certificate(struct forge *forge);
/* The AK certificate into forge->ak_cert. */
void forge_ak_certificate(struct forge *forge, const char *ek_id);
/* A store with exactly this root. */
struct certs_ek_store *forge_store(X509 *root);
/* The firmware log: a healthy boot, what it makes of the PCRs, its bytes. */
void forge_events_default(struct forge *forge);
void forge_extend(struct forge *forge);
void forge_log_encode(const struct forge *forge, struct att_buf *ret);
/* Aborts with the sentence when ok is false. */
void forge_must(bool ok, const char *what);

#endif
