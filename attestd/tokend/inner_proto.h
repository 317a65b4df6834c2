/* What a token process can ask tokend, over the one socket that it has: for its own agent, which it
 * does not name. The token has been talked to by strangers: tokend reads it as strictly. */
#ifndef TOKEND_INNER_PROTO_H
#define TOKEND_INNER_PROTO_H

#include "attestd/proc/workload_proto.h"

#define TOKEND_INNER_REQUEST_MAX 256 /* bytes of a whole frame */
#define TOKEND_WHY_MAX           160

enum tokend_inner_op {
    TOKEND_INNER_VIEW = 1,
    TOKEND_INNER_SIGN = 2,
    TOKEND_INNER_BYE = 3,
    TOKEND_INNER_SIGN_RSA = 4,
};

/* VIEW: known (the generation that the token holds; 0: none) → same (1: still that one, the rest is
 * empty), spiffeId, keyId, chain, bundle, generation. Errors as in VIEW of workload_proto.h. */
enum { TOKEND_VIEW_REQ_KNOWN };
enum {
    TOKEND_VIEW_REP_SAME,
    TOKEND_VIEW_REP_SPIFFE_ID,
    TOKEND_VIEW_REP_KEY_ID,
    TOKEND_VIEW_REP_CHAIN,
    TOKEND_VIEW_REP_BUNDLE,
    TOKEND_VIEW_REP_GENERATION,
};

/* SIGN: keyId, digest → signature. Errors as in SIGN of sign_proto.h; and ATT_E_DENIED
 * callerChanged, ATT_E_UNREACHABLE. */
enum { TOKEND_SIGN_REQ_KEY_ID, TOKEND_SIGN_REQ_DIGEST };
enum { TOKEND_SIGN_REP_SIGNATURE };

/* SIGN_RSA: keyId, scheme, digest → signature, as in sign_proto.h. */
enum { TOKEND_SIGN_RSA_REQ_KEY_ID, TOKEND_SIGN_RSA_REQ_SCHEME, TOKEND_SIGN_RSA_REQ_DIGEST };

/* BYE: why (for the log). Not answered; the token's last word. */
enum { TOKEND_BYE_REQ_WHY };

extern const struct proc_op tokend_inner_table[];

#endif
