/* The payload of a hostView, and whole documents against a pin that nothing has. */
#include "attestd/host/view.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t nobody[32];
    const struct host_view_anchor anchor = {.root_sha256 = nobody};
    struct host_view view = {0};
    if (host_view_payload_parse(ATT_SLICE(data, size), &view, NULL) == ATT_OK) {
        if (view.version == 0 || !view.bundle || view.n_retired > HOST_RETIRED_MAX ||
            (view.issuer_roots && sk_X509_num(view.issuer_roots) == 0)) {
            abort();
        }
        host_view_done(&view);
    }
    if (host_view_parse(ATT_SLICE(data, size), &anchor, 1, &view, NULL) == ATT_OK) {
        abort();
    }
    return 0;
}
