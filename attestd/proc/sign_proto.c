#include "attestd/proc/sign_proto.h"

/* name, type, least, most, longest item */
const struct proc_op proc_sign_table[] = {
    {PROC_SIGN_SIGN,
     PROC_OP_AGAIN,
     "SIGN",
     {{{"agent", PROC_TEXT, 1, PROC_AGENT_MAX, 0},
       {"keyId", PROC_TEXT, PROC_KEY_ID_LEN, PROC_KEY_ID_LEN, 0},
       {"digest", PROC_BYTES, 20, 64, 0}}},
     {{{"signature", PROC_BYTES, 64, 64, 0}}}},
    {PROC_SIGN_SIGN_RSA,
     PROC_OP_AGAIN,
     "SIGN_RSA",
     {{{"agent", PROC_TEXT, 1, PROC_AGENT_MAX, 0},
       {"keyId", PROC_TEXT, PROC_KEY_ID_LEN, PROC_KEY_ID_LEN, 0},
       {"scheme", PROC_U32, 1, 2, 0},
       {"digest", PROC_BYTES, 32, 64, 0}}},
     {{{"signature", PROC_BYTES, 256, PROC_SIGN_RSA_MAX, 0}}}},
    {PROC_SIGN_EXPORT,
     PROC_OP_SECRET, /* not repeated: each is one export, and one line */
     "EXPORT",
     {{{"agent", PROC_TEXT, 1, PROC_AGENT_MAX, 0},
       {"keyId", PROC_TEXT, PROC_KEY_ID_LEN, PROC_KEY_ID_LEN, 0}}},
     {{{"pkcs8", PROC_BYTES, 1, PROC_EXPORT_MAX, 0}}}},
    {0, 0, NULL, {{{0}}}, {{{0}}}},
};
