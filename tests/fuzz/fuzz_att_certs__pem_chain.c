/* Hostile PEM chains: what is accepted is written again, read again, and is the same; every
 * question that is asked of certificates of strangers is asked of these. */
#include "certs/chain.h"
#include "certs/ekcert.h"
#include "certs/oid.h"
#include "certs/san.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void ask(const STACK_OF(X509) * certs)
{
    const X509 *leaf = sk_X509_value(certs, 0);
    struct certs_cert_info info;
    struct certs_ek_info *ek = calloc(1, sizeof *ek);
    att_autobuf text = {0}, der = {0};
    (void)!certs_cert_info(leaf, &info, NULL);
    (void)!certs_san_spiffe(leaf, &text, NULL);
    for (int p = CERTS_PURPOSE_WORKLOAD; p <= CERTS_PURPOSE_HOST_VIEW; p++) {
        (void)!certs_chain_verify(certs, certs, (enum certs_purpose)p, 1795449600, NULL);
    }
    if (ek && certs_cert_der(leaf, &der, NULL) == ATT_OK) {
        (void)!certs_ek_parse(att_buf_slice(&der), ek, NULL);
    }
    free(ek);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    certs_autostack *certs = NULL, *again = NULL;
    att_autobuf pem = {0};
    if (certs_pem_parse(ATT_SLICE(data, size), &certs, NULL) != ATT_OK) {
        return 0;
    }
    ask(certs);
    /* libcrypto may re-encode a few odd certificates longer than they came: those are let go. */
    if (certs_pem_dump_all(certs, &pem, NULL) == ATT_OK &&
        certs_pem_parse(att_buf_slice(&pem), &again, NULL) == ATT_OK &&
        sk_X509_num(again) != sk_X509_num(certs)) {
        abort();
    }
    return 0;
}
