/* Lines of a host's own log, and decisions that hold its head, as attestctl reads them. */
#include "attestd/ctl/hostlog.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct att_slice bytes = ATT_SLICE(data, size);
    struct hostlog_record r;
    struct hostlog_anchor a;
    const uint8_t *end = size ? memchr(data, '\n', size) : NULL;
    if (hostlog_record_parse(bytes, &r, NULL) == ATT_OK && (r.seq == 0 || !r.kind[0])) {
        __builtin_trap();
    }
    if (end) { /* a record, and a leaf */
        struct att_slice leaf = ATT_SLICE(end + 1, size - (size_t)(end + 1 - data));
        if (hostlog_anchor_parse(ATT_SLICE(data, (size_t)(end - data)), leaf, &a, NULL) == ATT_OK &&
            (a.decision == 0 || a.at < 0)) {
            __builtin_trap();
        }
    }
    return 0;
}
