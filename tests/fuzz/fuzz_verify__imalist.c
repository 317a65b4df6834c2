/* Allow lists of IMA: from an operator's file. What is read is found again, and written as it was.
 */
#include "provision/verify/imadraft.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    verify_autoimalist *list = NULL;
    if (verify_imalist_parse(ATT_SLICE(data, size), &list, NULL)) {
        return 0;
    }
    att_autobuf lines = {0}, again = {0};
    verify_autoimalist *second = NULL;
    for (size_t i = 0; i < verify_imalist_count(list); i++) {
        struct verify_imalist_entry entry = verify_imalist_at(list, i);
        bool named = false;
        if (!verify_imalist_has(list, entry.name, entry.kind, entry.digest, &named) || !named) {
            abort();
        }
        verify_imalist_put(&lines, &entry);
    }
    if (verify_imadraft_list(att_buf_slice(&lines), NULL, &again, NULL) ||
        verify_imalist_parse(att_buf_slice(&again), &second, NULL) ||
        verify_imalist_count(second) != verify_imalist_count(list)) {
        abort();
    }
    return 0;
}
