/* libcrypto takes some objects it only reads (or whose cache it fills under its own lock) without
 * const. Internal to certs/. */
#ifndef CERTS_MUT_H
#define CERTS_MUT_H

#include <openssl/x509.h>
#include <stdint.h>

static inline X509 *certs_mut_x509(const X509 *cert)
{
    return (X509 *)(uintptr_t)cert;
}

static inline STACK_OF(X509) * certs_mut_stack(const STACK_OF(X509) * certs)
{
    return (STACK_OF(X509) *)(uintptr_t)certs;
}

#endif
