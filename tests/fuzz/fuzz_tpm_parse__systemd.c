/* systemd's user-space log: the iterator, the replay, the explainer. */
#include "tpm/parse/logform.h"
#include "tpm/parse/systemd.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct att_slice bytes = ATT_SLICE(data, size);
    struct parse_systemd log;
    struct att_err err = {0};
    if (parse_systemd_init(&log, bytes, NULL) != ATT_OK) {
        return 0;
    }
    enum att_rc rc = ATT_OK;
    size_t end = 0;
    while (rc == ATT_OK) {
        ATT_CLEANUP(parse_systemd_record_done) struct parse_systemd_record record = {0};
        rc = parse_systemd_next(&log, &record, &err);
        if (rc == ATT_OK &&
            (record.offset != end || log.pos != end + record.size || record.n_digests == 0)) {
            abort();
        }
        end = log.pos;
    }
    if (rc != ATT_E_NOTFOUND && err.msg[0] == 0) {
        abort();
    }
    struct parse_systemd_pcrs pcrs;
    struct parse_systemd_replay how = {PARSE_ALG_SHA256, NULL, SIZE_MAX, NULL, 0xffffff};
    if (parse_systemd_replay(bytes, &how, &pcrs, NULL) == ATT_OK &&
        (rc != ATT_E_NOTFOUND || pcrs.used != size ||
         (pcrs.with_records & ~(1u << 9 | 7u << 11 | 1u << 15)))) {
        abort();
    }
    json_t *json = NULL;
    if ((parse_systemd_explain(bytes, &json, NULL) == ATT_OK) != (rc == ATT_E_NOTFOUND)) {
        abort();
    }
    json_decref(json);
    json = NULL;
    (void)!parse_logform_explain(bytes, &json, NULL);
    json_decref(json);
    return 0;
}
