/* A token and an introspection's answer: bound to the one certificate only if its thumbprint is in
 * them, else refused with a reason. */
#include "attestd/ctl/bound.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t digest[ATT_SHA256_LEN] = {1};
    char own[BOUND_THUMBPRINT_LEN + 1];
    struct att_err err = {0};
    bound_thumbprint(digest, own);
    if (bound_check_jwt(ATT_SLICE(data, size), digest, &err) != ATT_OK && !err.reason[0]) {
        abort();
    }
    att_err_clear(&err);
    if (bound_check_introspection(200, ATT_SLICE(data, size), digest, &err) != ATT_OK) {
        if (!err.reason[0]) {
            abort();
        }
    } else if (!memmem(data, size, "active", 6)) {
        abort();
    }
    return 0;
}
