/* An agent's state file. What parses must encode and parse to the same record. */
#include "attestd/agent/registry.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct agent_record rec = {0}, again = {0};
    if (agent_record_parse(ATT_SLICE(data, size), &rec, NULL) != ATT_OK) {
        return 0;
    }
    att_autobuf text = {0};
    if (agent_record_encode(&rec, &text, NULL) != ATT_OK ||
        agent_record_parse(att_buf_slice(&text), &again, NULL) != ATT_OK ||
        memcmp(&rec, &again, sizeof(rec)) != 0) {
        abort();
    }
    return 0;
}
