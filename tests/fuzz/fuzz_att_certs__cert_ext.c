/* The extensions on key holding, on measured files, on a sealed parent and on an HSM module: an
 * encoding that is accepted is the one that we would write. */
#include "certs/build.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct certs_key_holding holding;
    struct certs_measured measured;
    struct certs_sealed sealed;
    struct certs_hsm hsm;
    att_autobuf third = {0}, fourth = {0};
    att_autobuf der = {0}, other = {0};
    if (certs_measured_parse(ATT_SLICE(data, size), &measured, NULL) == ATT_OK &&
        (certs_measured_encode(&measured, &other, NULL) != ATT_OK ||
         !att_slice_eq(att_buf_slice(&other), ATT_SLICE(data, size)))) {
        abort();
    }
    if (certs_sealed_parse(ATT_SLICE(data, size), &sealed, NULL) == ATT_OK &&
        (certs_sealed_encode(&sealed, &third, NULL) != ATT_OK ||
         !att_slice_eq(att_buf_slice(&third), ATT_SLICE(data, size)))) {
        abort();
    }
    if (certs_hsm_parse(ATT_SLICE(data, size), &hsm, NULL) == ATT_OK &&
        (certs_hsm_encode(&hsm, &fourth, NULL) != ATT_OK ||
         !att_slice_eq(att_buf_slice(&fourth), ATT_SLICE(data, size)))) {
        abort();
    }
    if (certs_key_holding_parse(ATT_SLICE(data, size), &holding, NULL) != ATT_OK) {
        return 0;
    }
    if (certs_key_holding_encode(&holding, &der, NULL) != ATT_OK ||
        !att_slice_eq(att_buf_slice(&der), ATT_SLICE(data, size))) {
        abort();
    }
    return 0;
}
