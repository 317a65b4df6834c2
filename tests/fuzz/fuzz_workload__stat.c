/* /proc/PID/stat: a name may hold anything; what is read comes from behind its last parenthesis. */
#include "attestd/workload/text.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct workload_stat stat = {0};
    if (workload_stat_parse(ATT_SLICE(data, size), &stat, NULL) == ATT_OK) {
        const uint8_t *end = memrchr(data, ')', size);
        if (!end || end[2] != (uint8_t)stat.state || stat.pid == 0) {
            abort();
        }
    }
    return 0;
}
