/* What answers on the socket for workloads, after our own request: HTTP/2 frames in two pieces, the
 * first byte says where they are cut. Refused with one clean line, or one message that is then read
 * as a ChainResponse. */
#include "attestd/apiclient/agent.h"
#include "attestd/apiclient/call.h"

#include "attestd/base/text.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct att_err *err)
{
    bool ok = err->msg[0];
    for (const char *c = err->msg; *c && ok;) {
        c += att_text_next(c, &ok);
        ok = ok || !*c; /* cut at its end */
    }
    if (!ok) {
        abort();
    }
}

static void chain(struct att_slice message)
{
    struct apiclient_agent agent = {0};
    struct att_err err = {0};
    if (apiclient_agent_parse(message, &agent, &err) == ATT_OK) {
        if (!agent.chain || !agent.spiffe_id[0] || !agent.key_id[0]) {
            abort();
        }
        apiclient_agent_done(&agent);
    } else if (agent.chain || !err.msg[0]) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct apiclient_call *call = NULL;
    struct att_slice sent = {0}, message = {0};
    struct att_err err = {0};
    if (size < 1) {
        return 0;
    }
    chain(ATT_SLICE(data, size));
    size_t cut = 1 + data[0] % size;
    if (apiclient_call_new("/attestd.v1.Signer/Chain", 0, ATT_SLICE(NULL, 0), &call, &err)) {
        return 0;
    }
    do {
        if (apiclient_call_send(call, &sent, &err)) {
            abort();
        }
    } while (sent.len);
    enum att_rc rc = apiclient_call_recv(call, ATT_SLICE(data + 1, cut - 1), &err);
    rc = rc ? rc : apiclient_call_recv(call, ATT_SLICE(data + cut, size - cut), &err);
    rc = rc ? rc : apiclient_call_reply(call, &message, &err);
    if (rc == ATT_OK) {
        chain(message);
    } else {
        check(&err);
    }
    apiclient_call_free(call);
    return 0;
}
