/* A stock client's attestation object: what is taken is of fmt "tpm", and writes and reads again in
 * our own order. */
#include "provision/evidence/attobj.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct evidence_attobj attobj = {0}, back = {0};
    if (evidence_attobj_parse_standard(ATT_SLICE(data, size), &attobj, NULL) != ATT_OK) {
        return 0;
    }
    struct att_buf again = {0};
    if (attobj.fmt != EVIDENCE_FMT_TPM || evidence_attobj_encode(&attobj, &again, NULL) != ATT_OK ||
        evidence_attobj_parse(att_buf_slice(&again), &back, NULL) != ATT_OK ||
        back.x5c_len != attobj.x5c_len || !att_slice_eq(back.sig, attobj.sig) ||
        !att_slice_eq(back.cert_info, attobj.cert_info) ||
        !att_slice_eq(back.pub_area, attobj.pub_area)) {
        __builtin_trap();
    }
    att_buf_done(&again);
    return 0;
}
