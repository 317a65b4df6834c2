/* A balancer's PROXY header, versions 1 and 2: also that what is read in pieces is read as the
 * whole is, and that no piece of a header is taken for one. */
#include "provision/issuer/proxy.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct issuer_proxy_source source, part;
    size_t len = 0, part_len = 0;
    char text[INET6_ADDRSTRLEN];
    enum issuer_proxy_result result = issuer_proxy_parse(ATT_SLICE(data, size), &len, &source);
    if (result == ISSUER_PROXY_MORE && size >= ISSUER_PROXY_MAX) {
        abort();
    }
    if (result != ISSUER_PROXY_OK) {
        return 0;
    }
    if (len == 0 || len > size || len > ISSUER_PROXY_MAX) {
        abort();
    }
    if (source.known) {
        issuer_proxy_text(&source, text);
        if (!text[0]) {
            abort();
        }
    }
    for (size_t n = 0; n < len; n++) {
        if (issuer_proxy_parse(ATT_SLICE(data, n), &part_len, &part) != ISSUER_PROXY_MORE) {
            abort();
        }
    }
    if (issuer_proxy_parse(ATT_SLICE(data, len), &part_len, &part) != ISSUER_PROXY_OK ||
        part_len != len || memcmp(&part, &source, sizeof part) != 0) {
        abort();
    }
    return 0;
}
