/* What a process asks attestd as the agent that it is: certificate, signatures, tokens, on the
 * socket for workloads (api.sock). attestd says whose process the caller is; a name or a secret is
 * not sent. Each call is one of its own and takes APICLIENT_TIMEOUT_MS at most; errors as of
 * unary.h. */
#ifndef ATTESTD_APICLIENT_AGENT_H
#define ATTESTD_APICLIENT_AGENT_H

#include "attestd/base/buf.h"
#include "attestd/base/hash.h"

#include <openssl/evp.h>
#include <openssl/x509.h>

#define APICLIENT_SOCKET "/run/attestd/public/api.sock"
#define APICLIENT_ID_MAX 2048 /* bytes of a SPIFFE ID */

enum apiclient_key_type { APICLIENT_EC_P256, APICLIENT_RSA };

struct apiclient_agent {
    char socket[108];
    char spiffe_id[APICLIENT_ID_MAX + 1];
    char key_id[64];
    STACK_OF(X509) * chain;         /* the agent's own first, without roots */
    uint8_t sha256[ATT_SHA256_LEN]; /* of the agent's certificate */
    int64_t not_after;              /* UTC seconds */
    enum apiclient_key_type type;
};

/* SPIFFE_ENDPOINT_SOCKET (SPIFFE Workload Endpoint §4: "unix:///path") or APICLIENT_SOCKET.
 * ATT_E_INVAL: the variable names something else. */
ATT_MUST_USE enum att_rc apiclient_socket(char ret_path[108], struct att_err *err);
/* Signer.Chain: who the caller is, and with which certificate. */
ATT_MUST_USE enum att_rc apiclient_agent_get(const char *socket_path,
                                             struct apiclient_agent *ret_agent,
                                             struct att_err *err);
ATT_MUST_USE enum att_rc apiclient_agent_parse(struct att_slice message,
                                               struct apiclient_agent *ret_agent,
                                               struct att_err *err);
void apiclient_agent_done(struct apiclient_agent *agent);
/* Signer.Sign with that certificate's key, over SHA-256: DER of ECDSA, or RSASSA-PKCS1-v1_5. */
ATT_MUST_USE enum att_rc apiclient_sign(const struct apiclient_agent *agent,
                                        const uint8_t digest[ATT_SHA256_LEN],
                                        struct att_buf *ret_sig, struct att_err *err);
/* A key for TLS that signs so, with RSA also over SHA-384 and SHA-512 and by RSASSA-PSS
 * (certs_key_remote_new); agent is borrowed for as long as the key lives. */
ATT_MUST_USE enum att_rc apiclient_key(const struct apiclient_agent *agent, EVP_PKEY **ret_key,
                                       struct att_err *err);
/* A JWT-SVID (SPIFFE Workload API, FetchJWTSVID), appended; the caller wipes it. fresh: one that
 * was given to nobody, unless the issuer cannot be asked. ret_kept: whether it was in memory. */
ATT_MUST_USE enum att_rc apiclient_jwt(const char *socket_path, const char *audience, bool fresh,
                                       struct att_buf *ret_jwt, bool *ret_kept,
                                       struct att_err *err);

#endif
