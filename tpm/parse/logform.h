/* Which of the three logs some bytes are, by their beginning. */
#ifndef TPM_PARSE_LOGFORM_H
#define TPM_PARSE_LOGFORM_H

#include "attestd/base/json.h"

enum parse_logform {
    PARSE_LOGFORM_UNKNOWN = 0,
    PARSE_LOGFORM_FIRMWARE,
    PARSE_LOGFORM_SYSTEMD,
    PARSE_LOGFORM_IMA,
};
/* Says nothing about the rest. What begins like none of the others is taken for a firmware log
 * where it could be one (PCR below 24). */
enum parse_logform parse_logform_of(struct att_slice bytes);
/* parse_eventlog_explain, parse_systemd_explain or parse_ima_explain; ATT_E_PARSE for no log. */
ATT_MUST_USE enum att_rc parse_logform_explain(struct att_slice bytes, json_t **ret_json,
                                               struct att_err *err);

#endif
