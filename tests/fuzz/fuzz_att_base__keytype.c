/* SubjectPublicKeyInfo and DigestInfo of strangers: what is taken is what we would write. */
#include "attestd/base/keytype.h"

#include <openssl/evp.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_spki(struct att_slice spki)
{
    enum att_keytype type = ATT_KEYTYPE_NONE;
    att_autobuf again = {0};
    EVP_PKEY *key = NULL;
    if (att_keytype_of_spki(spki, &type, NULL) != ATT_OK) {
        return;
    }
    if (att_keytype_is_rsa(type) &&
        (att_keytype_rsa_spki(type, att_keytype_modulus(spki), &again, NULL) != ATT_OK ||
         !att_slice_eq(att_buf_slice(&again), spki))) {
        abort();
    }
    if (att_keytype_bits(spki).len == 0 || att_keytype_key(spki, &key, NULL) != ATT_OK) {
        abort();
    }
    EVP_PKEY_free(key);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t info[ATT_RSA_DIGEST_INFO_MAX];
    struct att_slice bytes = ATT_SLICE(data, size);
    struct att_slice digest = att_rsa_digest_of_info(bytes);
    check_spki(bytes);
    if (digest.len && !att_slice_eq(ATT_SLICE(info, att_rsa_digest_info(digest, info)), bytes)) {
        abort();
    }
    return 0;
}
