/* Hostile CSRs: what is accepted must hold what was promised, and libcrypto must read the same. */
#include "certs/csr.h"
#include "certs/key.h"

#include <openssl/x509.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool openssl_agrees(struct att_slice der, struct att_slice spki)
{
    const uint8_t *at = der.ptr;
    uint8_t *key = NULL;
    X509_REQ *req = d2i_X509_REQ(NULL, &at, (long)der.len);
    int len = req ? i2d_X509_PUBKEY(X509_REQ_get_X509_PUBKEY(req), &key) : -1;
    bool ok = len > 0 && at == der.ptr + der.len && X509_REQ_get_version(req) == 0 &&
              att_slice_eq(spki, ATT_SLICE(key, (size_t)len)) &&
              X509_REQ_verify(req, X509_REQ_get0_pubkey(req)) == 1;
    OPENSSL_free(key);
    X509_REQ_free(req);
    return ok;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct certs_csr csr;
    EVP_PKEY *key = NULL;
    struct att_slice der = {data, size};
    if (certs_csr_verify(der, "spiffe://bank.example/agent/rebalancer", &csr, NULL) == ATT_OK) {
        if (certs_key_from_spki(ATT_SLICE(csr.spki, csr.spki_len), &key, NULL) != ATT_OK ||
            !openssl_agrees(der, ATT_SLICE(csr.spki, csr.spki_len))) {
            abort();
        }
        EVP_PKEY_free(key);
    }
    return 0;
}
