/* Hostile CRLs: what is read can be asked everything, and says the same of itself twice. */
#include "certs/crl.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    certs_autocrl *crl = NULL;
    struct certs_crl_info info;
    if (certs_crl_parse(ATT_SLICE(data, size), &crl, NULL) != ATT_OK) {
        return 0;
    }
    if (certs_crl_info(crl, &info, NULL) == ATT_OK && info.n_entries > size) {
        abort();
    }
    (void)certs_crl_has(crl, "0102030405060708090a0b0c0d0e0f10");
    (void)certs_crl_has(crl, "00");
    return 0;
}
