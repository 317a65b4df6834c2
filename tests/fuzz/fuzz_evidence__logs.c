/* The `logs` array, and gzip by itself under a small bound (the bomb cap). */
#include "provision/evidence/logs.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CAP ((size_t)1000)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *json = NULL;
    struct evidence_logs logs = {0}, back = {0};
    struct att_buf out = {0};
    if (evidence_gunzip(ATT_SLICE(data, size), CAP, &out, NULL) == ATT_OK && out.len > CAP) {
        __builtin_trap();
    }
    att_buf_done(&out);
    if (att_json_parse(ATT_SLICE(data, size), 1 << 20, &json, NULL) != ATT_OK) {
        return 0;
    }
    if (evidence_logs_parse(json, &logs, NULL) == ATT_OK) {
        json_t *again = NULL;
        uint8_t known[EVIDENCE_LOGS_MAX][ATT_SHA256_LEN];
        for (size_t i = 0; i < logs.n; i++) {
            __builtin_memcpy(known[i], logs.log[i].sha256, ATT_SHA256_LEN);
        }
        if (evidence_logs_encode(&logs, (const uint8_t(*)[ATT_SHA256_LEN])known, logs.n, &again,
                                 NULL) != ATT_OK ||
            evidence_logs_parse(again, &back, NULL) != ATT_OK ||
            !evidence_logs_match(&logs, &back)) {
            __builtin_trap();
        }
        json_decref(again);
        evidence_logs_done(&back);
        evidence_logs_done(&logs);
    }
    json_decref(json);
    return 0;
}
