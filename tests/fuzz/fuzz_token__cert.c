/* Certificates whose parts are shown as attributes: each part lies within the certificate. */
#include "pkcs11/token/cert.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void inside(struct att_slice part, const uint8_t *data, size_t size)
{
    if (part.len &&
        (part.ptr < data || part.len > size || (size_t)(part.ptr - data) > size - part.len)) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct token_cert cert;
    struct att_err err = {0};
    if (token_cert_parse(ATT_SLICE(data, size), &cert, &err) == ATT_OK) {
        const struct att_slice parts[] = {cert.serial, cert.issuer,    cert.subject,
                                          cert.spki,   cert.ec_params, cert.ec_point};
        for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
            inside(parts[i], data, size);
        }
    }
    return 0;
}
