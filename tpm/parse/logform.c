#include "tpm/parse/logform.h"

#include "tpm/parse/eventlog_explain.h"
#include "tpm/parse/ima.h"
#include "tpm/parse/systemd.h"

#include <string.h>

/* PCR, template hash, length and name of a template that we know. */
static bool is_binary_ima(struct att_slice bytes)
{
    static const size_t shown[] = {20, 32, 48, 64};
    for (size_t i = 0; i < sizeof shown / sizeof shown[0]; i++) {
        struct att_cur cur = att_cur_init(bytes);
        uint32_t pcr = att_cur_le32(&cur);
        (void)att_cur_take(&cur, shown[i]);
        struct att_slice name = att_cur_take(&cur, att_cur_le32(&cur));
        if (!cur.failed && pcr < PARSE_PCR_COUNT && parse_ima_template_by_name(name)) {
            return true;
        }
    }
    return false;
}

enum parse_logform parse_logform_of(struct att_slice bytes)
{
    if (bytes.len == 0) {
        return PARSE_LOGFORM_UNKNOWN;
    }
    if (bytes.ptr[0] == 0x1E || bytes.ptr[0] == '{') {
        return PARSE_LOGFORM_SYSTEMD;
    }
    if ((bytes.ptr[0] >= '0' && bytes.ptr[0] <= '9') || is_binary_ima(bytes)) {
        return PARSE_LOGFORM_IMA;
    }
    struct att_cur cur = att_cur_init(bytes);
    uint32_t pcr = att_cur_le32(&cur);
    return !cur.failed && pcr < PARSE_PCR_COUNT ? PARSE_LOGFORM_FIRMWARE : PARSE_LOGFORM_UNKNOWN;
}

enum att_rc parse_logform_explain(struct att_slice bytes, json_t **ret_json, struct att_err *err)
{
    switch (parse_logform_of(bytes)) {
    case PARSE_LOGFORM_FIRMWARE:
        return parse_eventlog_explain(bytes, ret_json, err);
    case PARSE_LOGFORM_SYSTEMD:
        return parse_systemd_explain(bytes, ret_json, err);
    case PARSE_LOGFORM_IMA:
        return parse_ima_explain(bytes, ret_json, err);
    case PARSE_LOGFORM_UNKNOWN:
        break;
    }
    return att_fail(err, ATT_E_PARSE,
                    "neither a firmware log, nor systemd's, nor an IMA list, by its beginning "
                    "(%zu bytes)",
                    bytes.len);
}
