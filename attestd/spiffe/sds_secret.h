/* What Envoy's Secret Discovery Service answers: secrets, in PEM, as an encoded DiscoveryResponse.
 * No I/O. */
#ifndef ATTESTD_SPIFFE_SDS_SECRET_H
#define ATTESTD_SPIFFE_SDS_SECRET_H

#include "attestd/base/buf.h"
#include "attestd/spiffe/grpc.h"

/* Either a validation context or a certificate; all PEM, borrowed. */
struct sds_secret {
    const char *name;
    struct att_slice trusted_ca, crl; /* crl empty: none */
    struct att_slice chain, key;      /* chain empty: it is a validation context */
};

/* Appends the objects that lie in ders one behind the other. label: "CERTIFICATE", "X509 CRL".
 * ATT_E_PARSE: it is not DER; ATT_E_NOMEM, also for a full ret_pem; pem is then not to be used. */
ATT_MUST_USE enum att_rc sds_pem_put(struct att_buf *pem, const char *label, struct att_slice ders,
                                     struct att_err *err);
/* A private key, PKCS #8 (DER): "PRIVATE KEY" (RFC 7468 §10). No copy is left but ret_pem's own,
 * which att_buf_done wipes. ATT_E_NOMEM, also for a full ret_pem; it is then not to be used. */
ATT_MUST_USE enum att_rc sds_pem_put_key(struct att_buf *pem, struct att_slice pkcs8,
                                         struct att_err *err);
/* secret where there is a private key in it, so that the last reference wipes it; no other copy is
 * left. NULL: no memory, or longer than GRPC_ANSWER_MAX. */
struct grpc_bytes *sds_response_encode(const struct sds_secret *secrets, size_t n,
                                       const char *version, const char *nonce);

#endif
