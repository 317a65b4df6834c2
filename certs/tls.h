/* TLS as we use it (RFC 8446): 1.3 only, no resumption, no renegotiation, no compression, groups
 * with X25519MLKEM768 first where libssl has it (OpenSSL 3.5). SSL_CTXs are the caller's
 * (SSL_CTX_free). */
#ifndef CERTS_TLS_H
#define CERTS_TLS_H

#include "attestd/base/buf.h"
#include "attestd/base/hash.h"

#include <openssl/ssl.h>

/* A server without client authentication. chain: leaf first; the root too when clients pin it by
 * its digest, since a pinned root must be seen to be recognised. key may be one held elsewhere.
 * Refuses a key that is not the leaf's. */
ATT_MUST_USE enum att_rc certs_tls_server_new(const STACK_OF(X509) * chain, EVP_PKEY *key,
                                              SSL_CTX **ret_ctx, struct att_err *err);
/* Which issuer a client believes: exactly one of the two. */
struct certs_tls_pin {
    const char *ca_file;                 /* PEM roots; NULL: by digest */
    uint8_t root_sha256[ATT_SHA256_LEN]; /* SHA-256 of the root's DER, which the server sends */
};
ATT_MUST_USE enum att_rc certs_tls_client_new(const struct certs_tls_pin *pin, SSL_CTX **ret_ctx,
                                              struct att_err *err);
/* The same settings on a context that somebody else made (libcurl's CURLOPT_SSL_CTX_FUNCTION); the
 * pin is copied and lives as long as ctx. The caller sets the name or address to expect
 * (SSL_set1_host, X509_VERIFY_PARAM_set1_ip_asc; libcurl does it itself). */
ATT_MUST_USE enum att_rc certs_tls_client_setup(SSL_CTX *ctx, const struct certs_tls_pin *pin,
                                                struct att_err *err);
/* Mutual TLS between agents: presents chain with key, demands a peer chain under roots; each side
 * checks the other's SPIFFE ID with certs_tls_peer_spiffe after the handshake. server: which side.
 */
ATT_MUST_USE enum att_rc certs_tls_mutual_new(const STACK_OF(X509) * chain, EVP_PKEY *key,
                                              const STACK_OF(X509) * roots, bool server,
                                              SSL_CTX **ret_ctx, struct att_err *err);
/* Appends the peer's SPIFFE ID. */
ATT_MUST_USE enum att_rc certs_tls_peer_spiffe(const SSL *ssl, struct att_buf *ret_text,
                                               struct att_err *err);
/* The negotiated key exchange group ("X25519MLKEM768", "x25519", …); "" before the handshake. */
const char *certs_tls_group(SSL *ssl);
/* Whether libssl here can do X25519MLKEM768. */
bool certs_tls_has_pq(void);
/* The group list in use, for SSL_CTX_set1_groups_list and CURLOPT_SSL_EC_CURVES. */
const char *certs_tls_groups(void);

#endif
