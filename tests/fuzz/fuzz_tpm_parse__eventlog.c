/* Firmware event logs: the iterator, the replay of each bank, and the explainer. */
#include "tpm/parse/eventlog_explain.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool inside(struct att_slice part, struct att_slice whole)
{
    return part.len == 0 || (part.ptr >= whole.ptr && part.len <= whole.len &&
                             part.ptr <= whole.ptr + (whole.len - part.len));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct att_slice bytes = ATT_SLICE(data, size);
    struct parse_eventlog log;
    struct parse_eventlog_event event;
    if (parse_eventlog_init(&log, bytes, NULL) != ATT_OK) {
        return 0;
    }
    struct parse_eventlog start = log;
    enum att_rc rc;
    size_t end = 0;
    struct att_err err = {0};
    while ((rc = parse_eventlog_next(&log, &event, &err)) == ATT_OK) {
        struct att_slice measured = {NULL, 0};
        if (event.offset != end || log.pos <= end || !inside(event.data, bytes) ||
            (event.pcr >= PARSE_PCR_COUNT && event.type != PARSE_EV_NO_ACTION)) {
            abort();
        }
        end = log.pos;
        if (parse_eventlog_covers(&event, &measured) != PARSE_EVENTLOG_COVERS_NONE &&
            !inside(measured, event.data)) {
            abort();
        }
    }
    if (rc != ATT_E_NOTFOUND && err.msg[0] == 0) {
        abort(); /* every refusal says why */
    }
    struct parse_eventlog_pcrs pcrs;
    for (size_t i = 0; i < start.n_algs; i++) {
        if (parse_eventlog_replay(bytes, start.algs[i].alg, &pcrs, NULL) == ATT_OK &&
            rc != ATT_E_NOTFOUND) {
            abort();
        }
        /* A log passes through the values that it ends with. */
        struct parse_pcr_set last = {.sel = {start.algs[i].alg, 0xffffff}};
        uint32_t passed = 0;
        if (parse_eventlog_replay(bytes, start.algs[i].alg, &pcrs, NULL) == ATT_OK) {
            memcpy(last.value, pcrs.value, sizeof last.value);
            if (parse_eventlog_passes(bytes, &last, &passed, NULL) != ATT_OK ||
                passed != 0xffffff) {
                abort();
            }
        }
    }
    json_t *json = NULL;
    enum att_rc explained = parse_eventlog_explain(bytes, &json, NULL);
    if ((explained == ATT_OK) != (rc == ATT_E_NOTFOUND)) {
        abort();
    }
    if (json) {
        att_autobuf text = {0};
        if (att_json_dump(json, false, &text, NULL) != ATT_OK) {
            abort();
        }
        json_decref(json);
    }
    return 0;
}
