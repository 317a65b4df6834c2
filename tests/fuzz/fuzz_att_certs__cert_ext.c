/* The key-holding extension: an encoding that is accepted is the one that we would write. */
#include "certs/build.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct certs_key_holding holding;
    att_autobuf der = {0};
    if (certs_key_holding_parse(ATT_SLICE(data, size), &holding, NULL) != ATT_OK) {
        return 0;
    }
    if (certs_key_holding_encode(&holding, &der, NULL) != ATT_OK ||
        !att_slice_eq(att_buf_slice(&der), ATT_SLICE(data, size))) {
        abort();
    }
    return 0;
}
