/* A file that may be a keystore, as attestctl migrate scan looks at it. */
#include "attestd/scan/judge.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 65536) {
        return 0;
    }
    uint8_t *copy = malloc(size ? size : 1); /* so that a byte beyond it is seen */
    if (!copy) {
        return 0;
    }
    if (size) {
        memcpy(copy, data, size);
    }
    struct scan_verdict v = scan_shape_store(ATT_SLICE(copy, size));
    if ((v.kind != SCAN_NONE && v.kind != SCAN_KEYSTORE && v.kind != SCAN_PRIVATE_KEY) ||
        v.confidence > SCAN_HIGH || (v.kind == SCAN_NONE) != (v.confidence == SCAN_NO)) {
        __builtin_trap();
    }
    if (v.kind != SCAN_NONE && !scan_is_store(ATT_SLICE(copy, size))) {
        __builtin_trap();
    }
    free(copy);
    return 0;
}
