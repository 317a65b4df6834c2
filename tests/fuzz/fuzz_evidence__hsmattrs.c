/* What a module states of a key: what parses encodes to the same bytes again. */
#include "provision/evidence/hsmattrs.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct evidence_hsm_attrs attrs;
    att_autobuf again = {0};
    if (evidence_hsm_attrs_parse(ATT_SLICE(data, size), &attrs, NULL) != ATT_OK) {
        return 0;
    }
    if (evidence_hsm_attrs_encode(&attrs, &again, NULL) != ATT_OK ||
        !att_slice_eq(att_buf_slice(&again), ATT_SLICE(data, size))) {
        abort();
    }
    return 0;
}
