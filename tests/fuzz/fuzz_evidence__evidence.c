/* The evidence statement and the log manifest: there is exactly one encoding of what parses. */
#include "provision/evidence/statement.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct evidence_statement statement = {0};
    struct evidence_logs logs = {0};
    struct att_buf again = {0};
    struct att_slice input = ATT_SLICE(data, size);
    if (evidence_statement_parse(input, &statement, NULL) == ATT_OK) {
        if (evidence_statement_encode(&statement, &again, NULL) != ATT_OK ||
            !att_slice_eq(att_buf_slice(&again), input)) {
            __builtin_trap();
        }
        evidence_statement_done(&statement);
    }
    att_buf_reset(&again);
    if (evidence_manifest_parse(input, &logs, NULL) == ATT_OK) {
        if (evidence_manifest_encode(&logs, &again, NULL) != ATT_OK ||
            !att_slice_eq(att_buf_slice(&again), input)) {
            __builtin_trap();
        }
        evidence_logs_done(&logs);
    }
    att_buf_done(&again);
    return 0;
}
