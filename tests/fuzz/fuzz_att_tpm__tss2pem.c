/* Sealed blobs as text: whatever parses can be written again, and reads the same. */
#include "tpm/tss2pem.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    tpm_autoblob blob = {0}, again = {0};
    att_autobuf text = {0};
    struct parse_name name;
    struct att_err err = {0};
    if (tpm_tss2pem_parse(ATT_SLICE(data, size), &blob, &err) != ATT_OK) {
        if (err.rc == ATT_OK || err.msg[0] == '\0') {
            abort();
        }
        return 0;
    }
    if (tpm_tss2pem_encode(&blob, &text, NULL) != ATT_OK ||
        tpm_tss2pem_parse(att_buf_slice(&text), &again, NULL) != ATT_OK ||
        again.type != blob.type || again.empty_auth != blob.empty_auth ||
        again.parent_handle != blob.parent_handle ||
        !att_slice_eq(att_buf_slice(&again.pub), att_buf_slice(&blob.pub)) ||
        !att_slice_eq(att_buf_slice(&again.priv), att_buf_slice(&blob.priv)) ||
        !att_slice_eq(parse_name_slice(&again.parent_name), parse_name_slice(&blob.parent_name)) ||
        tpm_blob_name(&blob, &name, NULL) != ATT_OK) {
        abort();
    }
    return 0;
}
