/* What answers on the socket for workloads, libattest-client and our own programs alike: HTTP/2
 * frames in two pieces after a request of ours. The first byte says where they are cut, and (odd)
 * that the call is a unary one. Each message is read as a chain by both, and as a signature; the
 * same bytes as such messages themselves. Refused with one clean line, or whole. */
#include "attestd/apiclient/agent.h"
#include "attestd/base/text.h"
#include "attestd/client/answer.h"
#include "attestd/client/wire.h"

#include <stdlib.h>
#include <string.h>

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

static void read_agent(struct att_slice message)
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

static volatile size_t read_sum; /* what was read is used */

static void read_message(struct att_slice message)
{
    struct attest_client_chain *chain = NULL;
    uint8_t sig[ATTEST_CLIENT_SIGNATURE_MAX];
    struct att_err err = {0};
    size_t len = 0;
    read_agent(message);
    if (answer_chain(message, &chain, &err) == ATT_OK) {
        size_t sum = strlen(chain->spiffe_id) + strlen(chain->key_store);
        for (size_t i = 0; i < chain->n_certs; i++) {
            sum += chain->certs[i].len ? chain->certs[i].data[chain->certs[i].len - 1] : 0;
        }
        read_sum = sum;
        attest_client_chain_free(chain);
    } else {
        check(&err);
    }
    if (answer_signature(message, "k", sig, &len, NULL) == ATT_OK && len > sizeof sig) {
        abort();
    }
}

static enum att_rc read_stream(struct wire *wire, struct att_err *err)
{
    struct att_slice message;
    enum att_rc rc;
    while ((rc = wire_message(wire, &message, err)) == ATT_OK) {
        read_message(message);
    }
    return rc == ATT_E_NOTFOUND && !err->rc ? wire_status(wire, err) : rc;
}

static enum att_rc read_reply(struct wire *wire, struct att_err *err)
{
    struct att_slice message;
    enum att_rc rc = wire_reply(wire, &message, err);
    if (rc == ATT_OK) {
        read_message(message);
    }
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct wire_request request = {.method = "/attestd.v1.Signer/Watch", .until_ms = -1};
    struct wire *wire = NULL;
    struct att_err err = {0};
    if (size < 1) {
        return 0;
    }
    read_message(ATT_SLICE(data, size));
    size_t cut = 1 + data[0] % size;
    if (wire_new(-1, "fuzz", &wire, NULL)) {
        return 0;
    }
    enum att_rc rc = wire_begin(wire, &request, &err);
    rc = rc ? rc : wire_send(wire, -1, &err);
    if (rc) {
        abort();
    }
    rc = wire_take(wire, ATT_SLICE(data + 1, cut - 1), &err);
    rc = rc ? rc : wire_take(wire, ATT_SLICE(data + cut, size - cut), &err);
    (void)(wire_kept(wire) && wire_ended(wire));
    if (rc == ATT_OK) {
        rc = data[0] & 1 ? read_reply(wire, &err) : read_stream(wire, &err);
    }
    if (rc) {
        check(&err);
    }
    wire_free(wire);
    return 0;
}
