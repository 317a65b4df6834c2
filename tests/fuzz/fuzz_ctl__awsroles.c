/* CreateSession's answer, the first byte its status: refused with a reason and one clean line, or
 * one line of JSON with the five members that credential_process has. */
#include "attestd/ctl/awsroles.h"

#include "attestd/base/json.h"
#include "attestd/base/text.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char endpoint[] = "https://a.example/sessions";
    struct conf_exchange profile = {.endpoint = endpoint, .grant = CONF_GRANT_AWS_ROLES_ANYWHERE};
    struct exchange_token token = {0};
    struct att_err err = {0};
    if (size < 1) {
        return 0;
    }
    int status = data[0] == 'C' ? 201 : 100 + (data[0] << 1);
    if (awsroles_answer(&profile, status, data[0] & 1 ? "" : "AccessDeniedException",
                        ATT_SLICE(data + 1, size - 1), 1635940800, &token, &err) == ATT_OK) {
        att_autojson *json = NULL;
        if (token.lifetime_s < 1 || token.lifetime_s > EXCHANGE_LIFETIME_MAX ||
            memchr(token.token.ptr, '\n', token.token.len) ||
            att_json_parse(att_buf_slice(&token.token), EXCHANGE_TOKEN_MAX, &json, NULL) ||
            json_object_size(json) != 5) {
            abort();
        }
        exchange_token_done(&token);
        return 0;
    }
    bool ok = err.rc == ATT_E_NOMEM || err.reason[0];
    for (const char *c = err.msg; *c && ok;) {
        c += att_text_next(c, &ok);
        ok = ok || !*c; /* cut at its end */
    }
    if (!ok) {
        abort();
    }
    return 0;
}
