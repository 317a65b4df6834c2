/* The attestation object: there is exactly one encoding of what parses. */
#include "provision/evidence/attobj.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct evidence_attobj attobj = {0};
    if (evidence_attobj_parse(ATT_SLICE(data, size), &attobj, NULL) == ATT_OK) {
        struct att_buf again = {0};
        if (evidence_attobj_encode(&attobj, &again, NULL) != ATT_OK ||
            !att_slice_eq(att_buf_slice(&again), ATT_SLICE(data, size))) {
            __builtin_trap();
        }
        att_buf_done(&again);
    }
    return 0;
}
