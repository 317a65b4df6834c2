/* TPMT_SIGNATURE: what parses must be written back as it was; nothing verifies. */
#include "tpm/parse/sig.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Either result is right. */
static void either(enum att_rc rc)
{
    (void)rc;
}

/* P-256's base point: a key whose private half everybody knows, but no fuzzer finds its signatures.
 */
static void base_point(struct parse_public *ret)
{
    static const uint8_t x[32] = {0x6b, 0x17, 0xd1, 0xf2, 0xe1, 0x2c, 0x42, 0x47, 0xf8, 0xbc, 0xe6,
                                  0xe5, 0x63, 0xa4, 0x40, 0xf2, 0x77, 0x03, 0x7d, 0x81, 0x2d, 0xeb,
                                  0x33, 0xa0, 0xf4, 0xa1, 0x39, 0x45, 0xd8, 0x98, 0xc2, 0x96};
    static const uint8_t y[32] = {0x4f, 0xe3, 0x42, 0xe2, 0xfe, 0x1a, 0x7f, 0x9b, 0x8e, 0xe7, 0xeb,
                                  0x4a, 0x7c, 0x0f, 0x9e, 0x16, 0x2b, 0xce, 0x33, 0x57, 0x6b, 0x31,
                                  0x5e, 0xce, 0xcb, 0xb6, 0x40, 0x68, 0x37, 0xbf, 0x51, 0xf5};
    parse_public_ak_template(ret);
    memcpy(ret->x, x, sizeof x);
    memcpy(ret->y, y, sizeof y);
    ret->x_len = ret->y_len = 32;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct att_slice bytes = ATT_SLICE(data, size);
    struct parse_sig sig;
    att_autobuf again = {0}, der = {0}, other = {0};
    either(parse_sig_from_der(PARSE_ALG_ECDSA, PARSE_ALG_SHA256, bytes, &other, NULL));
    if (parse_sig_parse(bytes, &sig, NULL) != ATT_OK) {
        return 0;
    }
    if (parse_sig_encode(&sig, &again, NULL) != ATT_OK ||
        !att_slice_eq(att_buf_slice(&again), bytes)) {
        abort();
    }
    if (parse_sig_der(&sig, &der, NULL) != ATT_OK) {
        abort();
    }
    struct parse_public key;
    base_point(&key);
    if (parse_sig_verify(&key, bytes, ATT_SLICE_LIT("attestd"), NULL) == ATT_OK) {
        abort();
    }
    return 0;
}
