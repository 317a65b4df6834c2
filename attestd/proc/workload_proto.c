#include "attestd/proc/workload_proto.h"

/* name, type, least, most, longest item */
const struct proc_op proc_workload_table[] = {
    {PROC_WORKLOAD_IDENTIFY,
     PROC_OP_AGAIN | PROC_OP_FD,
     "IDENTIFY",
     {{{"pid", PROC_U32, 1, INT32_MAX, 0},
       {"acceptedMs", PROC_U64, 0, 0, 0},
       {"service", PROC_TEXT, 1, 32, 0}}},
     {{{"agent", PROC_TEXT, 1, PROC_AGENT_MAX, 0}, {"identity", PROC_BYTES, 32, 32, 0}}}},
    {PROC_WORKLOAD_VIEW,
     PROC_OP_AGAIN,
     "VIEW",
     {{{"agent", PROC_TEXT, 1, PROC_AGENT_MAX, 0}}},
     {{{"spiffeId", PROC_TEXT, 1, PROC_SPIFFE_ID_MAX, 0},
       {"keyId", PROC_TEXT, PROC_KEY_ID_LEN, PROC_KEY_ID_LEN, 0},
       {"notAfter", PROC_U64, 0, 0, 0},
       {"chain", PROC_LIST, 1, PROC_CHAIN_MAX, PROC_CERT_MAX},
       {"bundle", PROC_LIST, 0, PROC_BUNDLE_MAX, PROC_CERT_MAX},
       {"generation", PROC_U64, 0, 0, 0}}}},
    {0, 0, NULL, {{{0}}}, {{{0}}}},
};
