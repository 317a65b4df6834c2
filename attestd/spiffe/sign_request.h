/* A SignRequest of attestd.v1.Signer as keyd can be asked it. Bytes in, struct out; no I/O. */
#ifndef ATTESTD_SPIFFE_SIGN_REQUEST_H
#define ATTESTD_SPIFFE_SIGN_REQUEST_H

#include "attestd/base/slice.h"
#include "attestd/proc/keyd_proto.h"
#include "attestd/proc/workload_proto.h"

struct sign_request {
    uint32_t scheme;                        /* of RSA, as PROC_SIGN_SIGN_RSA's; 0: ECDSA */
    char key_id[PROC_KEY_ID_LEN + 1];       /* empty: the key in force */
    char spiffe_id[PROC_SPIFFE_ID_MAX + 1]; /* whose key; empty: the caller's */
    uint8_t digest[64];
    size_t digest_len;
};

/* NULL, and *ret; or what is wrong with it, a sentence in static storage. */
const char *sign_request_parse(struct att_slice message, struct sign_request *ret);

#endif
