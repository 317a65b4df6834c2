#include "attestd/proc/workload_proto.h"

/* name, type, least, most, longest item */
#define VIEW_FIELDS                                                                                \
    {"spiffeId", PROC_TEXT, 0, PROC_SPIFFE_ID_MAX, 0},                                             \
        {"keyId", PROC_TEXT, PROC_KEY_ID_LEN, PROC_KEY_ID_LEN, 0},                                 \
        {"notAfter", PROC_U64, 0, 0, 0}, {"chain", PROC_LIST, 1, PROC_CHAIN_MAX, PROC_CERT_MAX},   \
        {"bundle", PROC_LIST, 0, PROC_BUNDLE_MAX, PROC_CERT_MAX},                                  \
        {"generation", PROC_U64, 0, 0, 0},                                                         \
    {                                                                                              \
        "keyStore", PROC_TEXT, 1, 16, 0                                                            \
    }
#define TOKEN_REQUEST                                                                              \
    {"agent", PROC_TEXT, 1, PROC_AGENT_MAX, 0},                                                    \
    {                                                                                              \
        "audience", PROC_BYTES, 2, PROC_AUDIENCES_TEXT, 0                                          \
    }
#define TOKEN_REPLY                                                                                \
    {"spiffeId", PROC_TEXT, 1, PROC_SPIFFE_ID_MAX, 0}, {"token", PROC_TEXT, 1, PROC_TOKEN_MAX, 0}, \
    {                                                                                              \
        "expiresAt", PROC_U64, 0, 0, 0                                                             \
    }
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
     {{VIEW_FIELDS}}},
    {PROC_WORKLOAD_VIEW_HSM,
     PROC_OP_AGAIN,
     "VIEW_HSM",
     {{{"agent", PROC_TEXT, 1, PROC_AGENT_MAX, 0}}},
     {{VIEW_FIELDS, {"hsm", PROC_TEXT, 0, PROC_HSM_NAME_MAX, 0}}}},
    {PROC_WORKLOAD_REPORT,
     PROC_OP_AGAIN,
     "REPORT",
     {{{"version", PROC_TEXT, 1, 64, 0},
       {"startedAt", PROC_U64, 0, 0, 0},
       {"connections", PROC_U32, 0, UINT32_MAX, 0},
       {"strangers", PROC_U32, 0, UINT32_MAX, 0},
       {"accepted", PROC_U64, 0, 0, 0},
       {"refused", PROC_U64, 0, 0, 0},
       {"signatures", PROC_U64, 0, 0, 0},
       {"refusals", PROC_U64, 0, 0, 0},
       {"died", PROC_U64, 0, 0, 0},
       {"agents", PROC_LIST, 0, PROC_REPORT_AGENTS_MAX, PROC_REPORT_ITEM_MAX},
       {"leftOut", PROC_U32, 0, UINT32_MAX, 0}}},
     {{{0}}}},
    {PROC_WORKLOAD_CHANGES,
     PROC_OP_AGAIN,
     "CHANGES",
     {{{"known", PROC_U64, 0, 0, 0}}},
     {{{"entries", PROC_U64, 0, 0, 0}}}},
    {PROC_WORKLOAD_WATCH,
     PROC_OP_AGAIN,
     "WATCH",
     {{{"entries", PROC_U64, 0, 0, 0}, {"standing", PROC_U64, 0, 0, 0}}},
     {{{"entries", PROC_U64, 0, 0, 0}, {"standing", PROC_U64, 0, 0, 0}}}},
    {PROC_WORKLOAD_BUNDLE,
     PROC_OP_AGAIN,
     "BUNDLE",
     {{{0}}},
     {{{"trustDomain", PROC_TEXT, 1, PROC_TRUST_DOMAIN_MAX, 0},
       {"bundle", PROC_LIST, 1, PROC_BUNDLE_MAX, PROC_CERT_MAX},
       {"crlNumber", PROC_U64, 0, 0, 0},
       {"crlSize", PROC_U64, 0, 0, 0}}}},
    {PROC_WORKLOAD_CRL,
     PROC_OP_AGAIN,
     "CRL",
     {{{"number", PROC_U64, 0, 0, 0}, {"offset", PROC_U64, 0, 0, 0}}},
     {{{"bytes", PROC_BYTES, 1, PROC_CRL_PART_MAX, 0}}}},
    {PROC_WORKLOAD_TOKEN, PROC_OP_AGAIN, "TOKEN", {{TOKEN_REQUEST}}, {{TOKEN_REPLY}}},
    {PROC_WORKLOAD_TOKEN_KEPT, PROC_OP_AGAIN, "TOKEN_KEPT", {{TOKEN_REQUEST}}, {{TOKEN_REPLY}}},
    {PROC_WORKLOAD_TOKEN_FRESH, PROC_OP_AGAIN, "TOKEN_FRESH", {{TOKEN_REQUEST}}, {{TOKEN_REPLY}}},
    {PROC_WORKLOAD_JWT_BUNDLE,
     PROC_OP_AGAIN,
     "JWT_BUNDLE",
     {{{0}}},
     {{{"trustDomain", PROC_TEXT, 1, PROC_TRUST_DOMAIN_MAX, 0},
       {"issuer", PROC_TEXT, 1, PROC_JWT_ISSUER_MAX, 0},
       {"keys", PROC_BYTES, 1, PROC_JWT_KEYS_MAX, 0}}}},
    {PROC_WORKLOAD_EXPORT,
     0, /* each is a record */
     "EXPORT",
     {{{"agent", PROC_TEXT, 1, PROC_AGENT_MAX, 0},
       {"keyId", PROC_TEXT, PROC_KEY_ID_LEN, PROC_KEY_ID_LEN, 0},
       {"pid", PROC_U32, 1, INT32_MAX, 0},
       {"uid", PROC_U32, 0, UINT32_MAX, 0}}},
     {{{0}}}},
    {PROC_WORKLOAD_FEDERATION,
     PROC_OP_AGAIN,
     "FEDERATION",
     {{{"index", PROC_U32, 0, PROC_FEDERATED_MAX - 1, 0}}},
     {{{"number", PROC_U64, 0, 0, 0},
       {"count", PROC_U32, 0, PROC_FEDERATED_MAX, 0},
       {"trustDomain", PROC_TEXT, 0, PROC_TRUST_DOMAIN_MAX, 0},
       {"roots", PROC_LIST, 0, PROC_FEDERATED_ROOTS_MAX, PROC_CERT_MAX},
       {"keys", PROC_BYTES, 0, PROC_JWT_KEYS_MAX, 0},
       {"agents", PROC_BYTES, 0, PROC_FEDERATED_AGENTS_MAX, 0}}}},
    {0, 0, NULL, {{{0}}}, {{{0}}}},
};
