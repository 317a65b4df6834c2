/* TPMT_PUBLIC and TPM2B_PUBLIC: what parses must be written back as it was. */
#include "tpm/parse/public.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Either result is right. */
static void either(enum att_rc rc)
{
    (void)rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct att_slice area = ATT_SLICE(data, size), inner;
    struct parse_public pub;
    if (parse_public_unwrap(area, &inner, NULL) == ATT_OK) {
        area = inner;
    }
    struct att_err err = {0};
    if (parse_public_parse(area, &pub, &err) != ATT_OK) {
        return 0;
    }
    att_autobuf again = {0}, der = {0};
    if (parse_public_encode(&pub, &again, NULL) != ATT_OK ||
        !att_slice_eq(att_buf_slice(&again), area)) {
        abort();
    }
    struct parse_name name;
    if (parse_name_of_area(area, &name, NULL) != ATT_OK) {
        abort();
    }
    enum parse_ek_template which = PARSE_EK_NONE;
    either(parse_public_check_ek(&pub, &which, NULL));
    either(parse_public_check_ak(&pub, NULL));
    either(parse_public_check_agent(&pub, NULL));
    either(parse_public_check_storage(&pub, NULL));
    if (pub.type == PARSE_ALG_ECC) { /* RSA's check is too slow for a fuzzer */
        either(parse_public_spki(&pub, &der, NULL));
    }
    return 0;
}
