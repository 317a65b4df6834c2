#include "attestd/apiclient/unary.h"

#include "attestd/base/clock.h"
#include "attestd/client/wire.h"

enum att_rc apiclient_unary(const char *socket_path, const char *method, const char *const *fields,
                            struct att_slice message, struct att_buf *ret_message, bool *ret_kept,
                            struct att_err *err)
{
    const struct wire_request request = {.method = method,
                                         .message = message,
                                         .fields = fields,
                                         .until_ms = att_boottime_ms() + APICLIENT_TIMEOUT_MS};
    struct wire *wire = NULL;
    struct att_slice reply = {0};
    enum att_rc rc =
        wire_connect(socket_path, "attestctl/" ATT_VERSION, request.until_ms, &wire, err);
    rc = rc ? rc : wire_call(wire, &request, &reply, err);
    if (rc == ATT_OK) {
        att_buf_put_slice(ret_message, reply);
        rc = att_buf_ok(ret_message, err);
        if (ret_kept) {
            *ret_kept = wire_kept(wire);
        }
    }
    wire_free(wire);
    return rc;
}
