/* Hostile CSRs: what is accepted must hold what was promised. */
#include "certs/csr.h"
#include "certs/key.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct certs_csr csr;
    EVP_PKEY *key = NULL;
    struct att_slice der = {data, size};
    if (certs_csr_verify(der, "spiffe://bank.example/agent/rebalancer", &csr, NULL) == ATT_OK) {
        if (certs_key_from_spki(ATT_SLICE(csr.spki, csr.spki_len), &key, NULL) != ATT_OK) {
            abort();
        }
        EVP_PKEY_free(key);
    }
    return 0;
}
