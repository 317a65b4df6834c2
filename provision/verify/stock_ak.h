/* The AK of a stock client (go-attestation's, which step uses): a key under a storage key, RSA or
 * P-256, with the TPM's word on its creation. An agent's AK is judged by verify_ak, which takes no
 * such key. Checks, in order: malformed, akAttributes, certifyType, certifyName, certifySignature.
 */
#ifndef ATTESTD_VERIFY_STOCK_AK_H
#define ATTESTD_VERIFY_STOCK_AK_H

#include "provision/verify/ak.h"
#include "tpm/parse/public.h"

struct verify_stock_ak_in {
    struct att_slice pub;                                               /* TPMT_PUBLIC */
    struct att_slice create_data, create_attestation, create_signature; /* as TPM2_CertifyCreation
                                                                         * gave them, by the AK */
};

/* restricted, sign, fixedTPM, fixedParent, sensitiveDataOrigin set; decrypt, encryptedDuplication
 * clear; no authPolicy; RSA of 2048 or 3072 bits (exponent 65537) with rsassa, or P-256 with ecdsa,
 * of SHA-256, as its Name is. The statement: TPM2_CertifyCreation of this very key by itself. */
ATT_MUST_USE enum verify_result verify_stock_ak(const struct verify_stock_ak_in *in,
                                                struct verify_verdict *verdict,
                                                struct verify_ak_facts *ret);

#endif
