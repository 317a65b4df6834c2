#include "attestd/apiclient/agent.h"

#include "attestd/apiclient/unary.h"
#include "attestd/base/secret.h"
#include "attestd/client/wire.h"
#include "certs/chain.h"
#include "certs/key.h"
#include "certs/oid.h"

#include "signer.pb-c.h"
#include "workload.pb-c.h"

#include <stdlib.h>
#include <string.h>

#define SIGNATURE_MAX 512
#define JWT_MAX       ((size_t)16 << 10)

enum att_rc apiclient_socket(char ret_path[108], struct att_err *err)
{
    const char *text = getenv("SPIFFE_ENDPOINT_SOCKET");
    const char *path = APICLIENT_SOCKET;
    if (text && *text) {
        path = strncmp(text, "unix:", 5) == 0 ? text + 5 : "";
        path += strncmp(path, "///", 3) == 0 ? 2 : 0;
    }
    if (path[0] != '/' || path[1] == '/' || strlen(path) >= 108) {
        return att_fail(err, ATT_E_INVAL,
                        "SPIFFE_ENDPOINT_SOCKET: expected unix:///PATH of at most 107 bytes, found "
                        "\"%.120s\"",
                        text ? text : "");
    }
    memcpy(ret_path, path, strlen(path) + 1);
    return ATT_OK;
}

/* ---- Chain ---- */

static enum att_rc bad_chain(struct att_err *err, const char *what)
{
    return att_fail(err, ATT_E_PROTOCOL, "attestd's Chain: expected %s", what);
}

static enum att_rc take_type(const X509 *cert, struct apiclient_agent *agent, struct att_err *err)
{
    const EVP_PKEY *key = X509_get0_pubkey(cert);
    int type = key ? EVP_PKEY_get_base_id(key) : EVP_PKEY_NONE;
    if (type != EVP_PKEY_RSA && (type != EVP_PKEY_EC || !certs_key_is_p256(key))) {
        return bad_chain(err, "a certificate for P-256 or RSA");
    }
    agent->type = type == EVP_PKEY_RSA ? APICLIENT_RSA : APICLIENT_EC_P256;
    return ATT_OK;
}

static enum att_rc take_chain(const Attestd__V1__ChainResponse *m, struct apiclient_agent *agent,
                              struct att_err *err)
{
    struct att_slice ders[CERTS_CHAIN_MAX_CERTS];
    size_t id = strlen(m->spiffe_id), key = strlen(m->key_id);
    if (id == 0 || id >= sizeof agent->spiffe_id || key == 0 || key >= sizeof agent->key_id ||
        m->n_chain == 0 || m->n_chain > CERTS_CHAIN_MAX_CERTS) {
        return bad_chain(err, "spiffe_id, key_id and 1 to 10 certificates");
    }
    memcpy(agent->spiffe_id, m->spiffe_id, id + 1);
    memcpy(agent->key_id, m->key_id, key + 1);
    for (size_t i = 0; i < m->n_chain; i++) {
        ders[i] = ATT_SLICE(m->chain[i].data, m->chain[i].len);
    }
    enum att_rc rc = certs_der_parse(ders, m->n_chain, &agent->chain, err);
    const X509 *leaf = rc ? NULL : sk_X509_value(agent->chain, 0);
    struct certs_cert_info info;
    rc = rc ? rc : certs_cert_info(leaf, &info, err);
    if (rc == ATT_OK) {
        memcpy(agent->sha256, info.sha256, sizeof agent->sha256);
        agent->not_after = info.not_after;
        rc = take_type(leaf, agent, err);
    }
    return rc;
}

enum att_rc apiclient_agent_parse(struct att_slice message, struct apiclient_agent *ret_agent,
                                  struct att_err *err)
{
    Attestd__V1__ChainResponse *m =
        attestd__v1__chain_response__unpack(NULL, message.len, message.ptr);
    if (!m) {
        return bad_chain(err, "a ChainResponse");
    }
    struct apiclient_agent agent = {0};
    enum att_rc rc = take_chain(m, &agent, err);
    attestd__v1__chain_response__free_unpacked(m, NULL);
    if (rc != ATT_OK) {
        apiclient_agent_done(&agent);
        return rc;
    }
    *ret_agent = agent;
    return ATT_OK;
}

enum att_rc apiclient_agent_get(const char *socket_path, struct apiclient_agent *ret_agent,
                                struct att_err *err)
{
    att_autobuf reply = ATT_BUF_INIT(WIRE_MESSAGE_MAX);
    enum att_rc rc = apiclient_unary(socket_path, "/attestd.v1.Signer/Chain", NULL,
                                     ATT_SLICE(NULL, 0), &reply, NULL, err);
    rc = rc ? rc : apiclient_agent_parse(att_buf_slice(&reply), ret_agent, err);
    if (rc == ATT_OK) {
        memcpy(ret_agent->socket, socket_path, strlen(socket_path) + 1); /* it was connected to */
    }
    return rc;
}

void apiclient_agent_done(struct apiclient_agent *agent)
{
    sk_X509_pop_free(agent->chain, X509_free);
    *agent = (struct apiclient_agent){0};
}

/* ---- Sign ---- */

static enum att_rc sign(const struct apiclient_agent *agent, Attestd__V1__Algorithm algorithm,
                        struct att_slice digest, struct att_buf *ret_sig, struct att_err *err)
{
    Attestd__V1__SignRequest request;
    attestd__v1__sign_request__init(&request);
    request.algorithm = algorithm;
    request.digest = (ProtobufCBinaryData){digest.len, (uint8_t *)(uintptr_t)digest.ptr};
    request.key_id = (char *)(uintptr_t)agent->key_id;
    uint8_t packed[256]; /* a digest of at most 64 bytes, a key id of at most 63 */
    size_t len = attestd__v1__sign_request__pack(&request, packed);
    att_autobuf reply = ATT_BUF_INIT(WIRE_MESSAGE_MAX);
    enum att_rc rc = apiclient_unary(agent->socket, "/attestd.v1.Signer/Sign", NULL,
                                     ATT_SLICE(packed, len), &reply, NULL, err);
    if (rc != ATT_OK) {
        return rc;
    }
    Attestd__V1__SignResponse *m = attestd__v1__sign_response__unpack(NULL, reply.len, reply.ptr);
    if (!m || m->signature.len == 0 || m->signature.len > SIGNATURE_MAX ||
        strcmp(m->key_id, agent->key_id) != 0) {
        rc = att_fail(err, ATT_E_PROTOCOL, "attestd's Sign: expected a signature by this key");
    } else {
        att_buf_put(ret_sig, m->signature.data, m->signature.len);
        rc = att_buf_ok(ret_sig, err);
    }
    attestd__v1__sign_response__free_unpacked(m, NULL);
    return rc;
}

enum att_rc apiclient_sign(const struct apiclient_agent *agent,
                           const uint8_t digest[ATT_SHA256_LEN], struct att_buf *ret_sig,
                           struct att_err *err)
{
    return sign(agent,
                agent->type == APICLIENT_RSA ? ATTESTD__V1__ALGORITHM__ALGORITHM_RSA_PKCS1
                                             : ATTESTD__V1__ALGORITHM__ALGORITHM_ECDSA,
                ATT_SLICE(digest, ATT_SHA256_LEN), ret_sig, err);
}

static enum att_rc sign_for_tls(void *user, struct att_slice digest, struct att_buf *ret_sig,
                                struct att_err *err)
{
    return sign(user, ATTESTD__V1__ALGORITHM__ALGORITHM_ECDSA, digest, ret_sig, err);
}

static enum att_rc sign_rsa_for_tls(void *user, enum att_rsa_scheme scheme, struct att_slice digest,
                                    struct att_buf *ret_sig, struct att_err *err)
{
    return sign(user,
                scheme == ATT_RSA_PSS ? ATTESTD__V1__ALGORITHM__ALGORITHM_RSA_PSS
                                      : ATTESTD__V1__ALGORITHM__ALGORITHM_RSA_PKCS1,
                digest, ret_sig, err);
}

enum att_rc apiclient_key(const struct apiclient_agent *agent, EVP_PKEY **ret_key,
                          struct att_err *err)
{
    const struct certs_signer signer = {
        .sign = sign_for_tls, .sign_rsa = sign_rsa_for_tls, .user = (void *)(uintptr_t)agent};
    return certs_key_remote_new(X509_get0_pubkey(sk_X509_value(agent->chain, 0)), &signer, ret_key,
                                err);
}

/* ---- FetchJWTSVID ---- */

static enum att_rc take_jwt(const struct att_buf *reply, struct att_buf *ret_jwt,
                            struct att_err *err)
{
    static const char allowed[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.";
    JWTSVIDResponse *m = jwtsvidresponse__unpack(NULL, reply->len, reply->ptr);
    char *jwt = m && m->n_svids == 1 ? m->svids[0]->svid : NULL;
    size_t len = jwt ? strlen(jwt) : 0;
    enum att_rc rc = ATT_OK;
    if (len == 0 || len > JWT_MAX || strspn(jwt, allowed) != len) {
        rc = att_fail(err, ATT_E_PROTOCOL, "attestd's FetchJWTSVID: expected one token");
    } else {
        att_buf_put(ret_jwt, jwt, len);
        rc = att_buf_ok(ret_jwt, err);
    }
    if (jwt) {
        att_wipe(jwt, len);
    }
    jwtsvidresponse__free_unpacked(m, NULL);
    return rc;
}

enum att_rc apiclient_jwt(const char *socket_path, const char *audience, bool fresh,
                          struct att_buf *ret_jwt, bool *ret_kept, struct att_err *err)
{
    /* The second is what the SPIFFE Workload API demands. */
    static const char *const fields[] = {"attestd-fresh", "true", "workload.spiffe.io", "true",
                                         NULL};
    char *audiences[] = {(char *)(uintptr_t)audience};
    JWTSVIDRequest request;
    jwtsvidrequest__init(&request);
    request.audience = audiences;
    request.n_audience = 1;
    att_autobuf packed = {0}, reply = ATT_BUF_INIT(WIRE_MESSAGE_MAX);
    size_t len = jwtsvidrequest__get_packed_size(&request);
    uint8_t *room = att_buf_extend(&packed, len);
    if (!room) {
        return att_fail(err, ATT_E_NOMEM, "token");
    }
    (void)jwtsvidrequest__pack(&request, room);
    enum att_rc rc =
        apiclient_unary(socket_path, "/SpiffeWorkloadAPI/FetchJWTSVID", fresh ? fields : fields + 2,
                        att_buf_slice(&packed), &reply, ret_kept, err);
    rc = rc ? rc : take_jwt(&reply, ret_jwt, err);
    if (reply.ptr) {
        att_wipe(reply.ptr, reply.cap);
    }
    return rc;
}
