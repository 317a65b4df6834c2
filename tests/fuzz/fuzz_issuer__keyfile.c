/* state_dir/ca/NAME.hsm: which key of the HSM is NAME's. */
#include "provision/issuer/signer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t id[ISSUER_CKA_ID_LEN];
    (void)!issuer_keyfile_parse(ATT_SLICE(data, size), id, NULL);
    return 0;
}
