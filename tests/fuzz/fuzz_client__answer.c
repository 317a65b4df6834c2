/* What answers libattest-client: HTTP/2 frames in two pieces after its own request (the first byte
 * says where they are cut), each message read as a chain and as a signature; the same bytes as such
 * messages themselves. Refused with one clean line, or whole. */
#include "attestd/client/answer.h"
#include "attestd/client/wire.h"

#include "attestd/base/text.h"

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

static void read_message(struct att_slice message)
{
    struct attest_client_chain *chain = NULL;
    uint8_t sig[ATTEST_CLIENT_SIGNATURE_MAX];
    struct att_err err = {0};
    size_t len = 0;
    if (answer_chain(message, &chain, &err) == ATT_OK) {
        volatile size_t sum = strlen(chain->spiffe_id) + strlen(chain->key_store);
        for (size_t i = 0; i < chain->n_certs; i++) {
            sum += chain->certs[i].len ? chain->certs[i].data[chain->certs[i].len - 1] : 0;
        }
        attest_client_chain_free(chain);
    } else {
        check(&err);
    }
    if (answer_signature(message, "k", sig, &len, NULL) == ATT_OK && len > sizeof sig) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct wire *wire = NULL;
    struct att_slice message;
    struct att_err err = {0};
    if (size < 1) {
        return 0;
    }
    read_message(ATT_SLICE(data, size));
    size_t cut = 1 + data[0] % size;
    if (wire_new(-1, &wire, NULL)) {
        return 0;
    }
    enum att_rc rc = wire_begin(wire, "/attestd.v1.Signer/Watch", ATT_SLICE(NULL, 0), &err);
    rc = rc ? rc : wire_send(wire, -1, &err);
    if (rc) {
        abort();
    }
    rc = wire_take(wire, ATT_SLICE(data + 1, cut - 1), &err);
    rc = rc ? rc : wire_take(wire, ATT_SLICE(data + cut, size - cut), &err);
    while (rc == ATT_OK && (rc = wire_message(wire, &message, &err)) == ATT_OK) {
        read_message(message);
    }
    rc = rc == ATT_E_NOTFOUND && !err.rc ? wire_status(wire, &err) : rc;
    if (rc) {
        check(&err);
    }
    wire_free(wire);
    return 0;
}
