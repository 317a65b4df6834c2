/* Hostile CSRs for a permanent identifier: a key that was taken can stand in a certificate. */
#include "certs/dns.h"

#include <openssl/x509.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char id[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    struct certs_dns_csr csr;
    if (certs_device_csr_verify(ATT_SLICE(data, size), id, &csr, NULL) == ATT_OK) {
        const uint8_t *at = csr.spki;
        EVP_PKEY *key = d2i_PUBKEY(NULL, &at, (long)csr.spki_len);
        if (!key || at != csr.spki + csr.spki_len) {
            abort();
        }
        EVP_PKEY_free(key);
    }
    return 0;
}
