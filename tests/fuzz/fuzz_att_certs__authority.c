/* The certificates that come back for an intermediate's request. Two bytes, how the check is made;
 * then PEM. What is accepted for the key of its own first certificate is held to what follows from
 * it. */
#include "certs/authority.h"
#include "certs/chain.h"
#include "certs/oid.h"

#include <openssl/x509v3.h>
#include <stdlib.h>

#define AT_S INT64_C(1800000000) /* within the seeds' validity */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    certs_autostack *chain = NULL;
    if (size < 1 || certs_pem_parse(ATT_SLICE(data + 1, size - 1), &chain, NULL) != ATT_OK) {
        return 0;
    }
    const struct certs_authority_spec spec = {.trust_domain = data[0] & 1 ? "bank.example" : NULL};
    uint8_t *der = NULL;
    X509 *first = sk_X509_value(chain, 0);
    int len = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(first), &der);
    if (len > 0 && certs_authority_check(chain, &spec, ATT_SLICE(der, (size_t)len), AT_S, 86400,
                                         NULL) == ATT_OK) {
        if (sk_X509_num(chain) < 2 || X509_get_pathlen(first) != 0 || X509_check_ca(first) != 1) {
            abort();
        }
    }
    OPENSSL_free(der);
    return 0;
}
