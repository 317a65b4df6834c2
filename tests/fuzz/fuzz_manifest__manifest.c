/* A manifest: there is one encoding of what was read, with the same root. */
#include "provision/manifest/sign.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct manifest m = {0}, back = {0};
    uint8_t signer[ATT_SHA256_LEN];
    if (manifest_parse(ATT_SLICE(data, size), &m, NULL) != ATT_OK) {
        return 0;
    }
    att_autobuf once = ATT_BUF_INIT(2 * MANIFEST_MAX), twice = ATT_BUF_INIT(2 * MANIFEST_MAX);
    if (manifest_encode(&m, &once, NULL) != ATT_OK ||
        (once.len <= MANIFEST_MAX && (manifest_parse(att_buf_slice(&once), &back, NULL) != ATT_OK ||
                                      manifest_encode(&back, &twice, NULL) != ATT_OK ||
                                      !att_slice_eq(att_buf_slice(&once), att_buf_slice(&twice)) ||
                                      memcmp(m.root, back.root, sizeof m.root) != 0 ||
                                      (manifest_verify(&m, signer, NULL) == ATT_OK) !=
                                          (manifest_verify(&back, signer, NULL) == ATT_OK)))) {
        abort();
    }
    manifest_done(&m);
    manifest_done(&back);
    return 0;
}
