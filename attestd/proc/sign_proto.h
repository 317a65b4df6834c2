/* What tokend and spiffed can ask keyd: signatures, and spiffed alone keys that are made to be
 * given away (run_dir/keyd/sign.sock, a socket of its own, so that tokend can ask nothing else and
 * attestd cannot ask this). */
#ifndef ATTESTD_PROC_SIGN_PROTO_H
#define ATTESTD_PROC_SIGN_PROTO_H

#include "attestd/proc/ipc.h"
#include "attestd/proc/keyd_proto.h"

#define PROC_SIGN_RSA_MAX 384 /* bytes of an RSA signature */

enum proc_sign_op {
    PROC_SIGN_SIGN = 1,
    PROC_SIGN_SIGN_RSA = 2,
    PROC_SIGN_EXPORT = 3,
};

/* SIGN: agent (recorded by tokend when it accepted the connection, never one that the peer named),
 * keyId, digest (20 to 64 bytes; ECDSA takes the leftmost 32, FIPS 186-5 §6.4.1) → signature
 * (r ‖ s, 64 bytes). ATT_E_DENIED: frozen, keyAgent (another agent's key), keyState (a key that has
 * no certificate yet). ATT_E_NOTFOUND: the key is gone. ATT_E_LIMIT quota: the agent has used its
 * signatures per second. */
enum { PROC_SIGN_REQ_AGENT, PROC_SIGN_REQ_KEY_ID, PROC_SIGN_REQ_DIGEST };
enum { PROC_SIGN_REP_SIGNATURE };

/* SIGN_RSA: agent, keyId, scheme (as enum att_rsa_scheme: 1 PKCS #1 v1.5, 2 PSS with a salt as long
 * as the digest), digest (32, 48 or 64 bytes: SHA-256, SHA-384, SHA-512) → signature (as long as
 * the modulus). The structure around the digest is not the caller's to make. Errors as of SIGN;
 * both: ATT_E_UNSUPPORTED keyType, the key is of the other type. */
enum {
    PROC_SIGN_RSA_REQ_AGENT,
    PROC_SIGN_RSA_REQ_KEY_ID,
    PROC_SIGN_RSA_REQ_SCHEME,
    PROC_SIGN_RSA_REQ_DIGEST,
};

/* EXPORT: agent, keyId → pkcs8 (DER, RFC 5958): the private key, for the agent itself. Answered to
 * exporters only (attestd-spiffed's user). Both sides wipe what they held of it. ATT_E_DENIED:
 * exportUser (the asking user is no exporter), keyNotExportable (made in another store, which is
 * for good), keyState (not the agent's key in force), keyAgent, frozen. Others as of SIGN. */
#define PROC_EXPORT_MAX 256
enum { PROC_SIGN_EXPORT_REQ_AGENT, PROC_SIGN_EXPORT_REQ_KEY_ID };
enum { PROC_SIGN_EXPORT_REP_PKCS8 };

extern const struct proc_op proc_sign_table[];

#endif
