/* /proc/PID/status and a pidfd's fdinfo. */
#include "attestd/workload/text.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct workload_status status = {0};
    uint32_t pid = 0;
    if (workload_status_parse(ATT_SLICE(data, size), &status, NULL) == ATT_OK &&
        status.ns_depth == 0) {
        abort();
    }
    if (workload_fdinfo_parse(ATT_SLICE(data, size), &pid, NULL) == ATT_OK && pid == 0) {
        abort();
    }
    return 0;
}
