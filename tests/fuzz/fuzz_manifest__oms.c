/* A model-signing bundle's form; with the key of the corpus's good one, also its statement. */
#include "certs/oid.h"
#include "provision/manifest/oms.h"

#include <openssl/bio.h>
#include <openssl/pem.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char pem[] = "-----BEGIN PUBLIC KEY-----\n"
                          "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEOewAf0c2BRhtmvybYMCe4+B8Bhpz\n"
                          "2JQGuwgIlOUylAxbyF1jZDaAJ48Kd5PSdC7TTPFG1gDStbQbEbMmkLukug==\n"
                          "-----END PUBLIC KEY-----\n";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static EVP_PKEY *key;
    static STACK_OF(X509) * roots;
    if (!key) {
        BIO *bio = BIO_new_mem_buf(pem, -1);
        key = PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL);
        BIO_free(bio);
        roots = sk_X509_new_null();
    }
    const struct manifest_oms_trust trust[] = {{key, NULL, 0}, {NULL, roots, 0}};
    for (size_t i = 0; i < 2; i++) {
        struct manifest_oms oms = {0};
        if (manifest_oms_parse(ATT_SLICE(data, size), &trust[i], &oms, NULL) == ATT_OK) {
            if (i == 1) {
                abort(); /* nobody is trusted */
            }
            manifest_oms_done(&oms);
        }
    }
    return 0;
}
