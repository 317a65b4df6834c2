/* PCR values as a file of tpm2-tools: what parses is exactly what encoding it gives. */
#include "tpm/parse/pcr_file.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct parse_pcr_sel wanted[] = {
        {PARSE_ALG_SHA256, 0x43ff}, {PARSE_ALG_SHA256, 1}, {PARSE_ALG_SHA384, 0xffffff}};
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        struct parse_pcr_set set;
        if (parse_pcr_file_parse(ATT_SLICE(data, size), &wanted[i], &set, NULL) != ATT_OK) {
            continue;
        }
        att_autobuf again = {0};
        if (parse_pcr_file_encode(&set, &again, NULL) != ATT_OK ||
            !att_slice_eq(att_buf_slice(&again), ATT_SLICE(data, size))) {
            abort();
        }
    }
    return 0;
}
