/* What attestd answers tokend (run_dir/workload.sock): which agent is this caller, and what does it
 * have? attestd asks whod, compares with the entries of the issuer's view, and writes each decision
 * to the host's log. */
#ifndef ATTESTD_PROC_WORKLOAD_PROTO_H
#define ATTESTD_PROC_WORKLOAD_PROTO_H

#include "attestd/proc/ipc.h"
#include "attestd/proc/keyd_proto.h"

#define PROC_SPIFFE_ID_MAX 512
#define PROC_CHAIN_MAX     8
#define PROC_BUNDLE_MAX    32

enum proc_workload_op {
    PROC_WORKLOAD_IDENTIFY = 1,
    PROC_WORKLOAD_VIEW = 2,
};

/* IDENTIFY: the caller's pidfd; pid, acceptedMs (as in WHO), service ("pkcs11") → agent, identity
 * (WHO's, for SAME). ATT_E_DENIED: notAssigned (no entry fits), ambiguous (more than one does; the
 * message names them), pidReused. ATT_E_UNREACHABLE: whod is away. ATT_E_LIMIT rateLimited. */
enum {
    PROC_WORKLOAD_IDENTIFY_REQ_PID,
    PROC_WORKLOAD_IDENTIFY_REQ_ACCEPTED_MS,
    PROC_WORKLOAD_IDENTIFY_REQ_SERVICE,
};
enum { PROC_WORKLOAD_IDENTIFY_REP_AGENT, PROC_WORKLOAD_IDENTIFY_REP_IDENTITY };

/* VIEW: agent → what it has now: spiffeId, keyId (of the key in force), notAfter (UTC seconds),
 * chain (DER, leaf first), bundle (DER, workload roots), generation (another number when anything
 * of it changed). ATT_E_NOTFOUND noCertificate: nothing is in force (not issued yet, expired,
 * removed). */
enum { PROC_WORKLOAD_VIEW_REQ_AGENT };
enum {
    PROC_WORKLOAD_VIEW_REP_SPIFFE_ID,
    PROC_WORKLOAD_VIEW_REP_KEY_ID,
    PROC_WORKLOAD_VIEW_REP_NOT_AFTER,
    PROC_WORKLOAD_VIEW_REP_CHAIN,
    PROC_WORKLOAD_VIEW_REP_BUNDLE,
    PROC_WORKLOAD_VIEW_REP_GENERATION,
};

extern const struct proc_op proc_workload_table[];

#endif
