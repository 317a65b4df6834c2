/* KEY_TOKEN, an operation of keyd's socket beside those of keyd_proto.h: what an agent's key says
 * when a token is asked for (docs/PROTOCOL.md, M8). All of it is written by keyd; no digest of the
 * caller's is signed. */
#ifndef ATTESTD_PROC_KEYD_TOKEN_H
#define ATTESTD_PROC_KEYD_TOKEN_H

#include "attestd/proc/keyd_client.h"

#define PROC_KEYD_KEY_TOKEN 24 /* of enum proc_keyd_op's numbers */
#define PROC_PROOF_MAX      8192
#define PROC_AUDIENCES_MAX  8
#define PROC_AUDIENCE_MAX   255

/* KEY_TOKEN: keyId (active), serial (of its certificate), nonce (the issuer's), spiffeId (last path
 * segment = this key's agent, else ATT_E_DENIED tokenAgent), audience (list) → proof: a compact JWS
 * of {"nonce", "spiffeId", "audience"} with typ "attestd-token" and kid = serial. ATT_E_DENIED
 * frozen, keyState. */
enum {
    PROC_KEY_TOKEN_REQ_KEY_ID,
    PROC_KEY_TOKEN_REQ_SERIAL,
    PROC_KEY_TOKEN_REQ_NONCE,
    PROC_KEY_TOKEN_REQ_SPIFFE_ID,
    PROC_KEY_TOKEN_REQ_AUDIENCE,
};
enum { PROC_KEY_TOKEN_REP_PROOF };

/* The client's side (keyd_client.h). Appends the proof. */
ATT_MUST_USE enum att_rc proc_keyd_key_token(struct proc_keyd *keyd, const char *key_id,
                                             const char *serial, const char *nonce,
                                             const char *spiffe_id,
                                             const struct att_slice *audience, size_t n_audience,
                                             struct att_buf *ret_proof, struct att_err *err);

#endif
