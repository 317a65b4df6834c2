#include "attestd/tokend/inner_proto.h"

#include "attestd/proc/sign_proto.h"

/* name, type, least, most, longest item */
const struct proc_op tokend_inner_table[] = {
    {TOKEND_INNER_VIEW,
     0,
     "VIEW",
     {{{"known", PROC_U64, 0, 0, 0}}},
     {{{"same", PROC_U32, 0, 1, 0},
       {"spiffeId", PROC_TEXT, 0, PROC_SPIFFE_ID_MAX, 0},
       {"keyId", PROC_TEXT, 0, PROC_KEY_ID_LEN, 0},
       {"chain", PROC_LIST, 0, PROC_CHAIN_MAX, PROC_CERT_MAX},
       {"bundle", PROC_LIST, 0, PROC_BUNDLE_MAX, PROC_CERT_MAX},
       {"generation", PROC_U64, 0, 0, 0}}}},
    {TOKEND_INNER_SIGN,
     0,
     "SIGN",
     {{{"keyId", PROC_TEXT, PROC_KEY_ID_LEN, PROC_KEY_ID_LEN, 0},
       {"digest", PROC_BYTES, 20, 64, 0}}},
     {{{"signature", PROC_BYTES, 64, 64, 0}}}},
    {TOKEND_INNER_BYE, 0, "BYE", {{{"why", PROC_TEXT, 1, TOKEND_WHY_MAX, 0}}}, {{{0}}}},
    {TOKEND_INNER_SIGN_RSA,
     0,
     "SIGN_RSA",
     {{{"keyId", PROC_TEXT, PROC_KEY_ID_LEN, PROC_KEY_ID_LEN, 0},
       {"scheme", PROC_U32, 1, 2, 0},
       {"digest", PROC_BYTES, 32, 64, 0}}},
     {{{"signature", PROC_BYTES, 256, PROC_SIGN_RSA_MAX, 0}}}},
    {0, 0, NULL, {{{0}}}, {{{0}}}},
};
