/* An intermediate that somebody else signs: the request, and the chain that comes back. */
#ifndef CERTS_AUTHORITY_H
#define CERTS_AUTHORITY_H

#include "attestd/base/buf.h"

#include <openssl/evp.h>
#include <openssl/x509.h>

#define CERTS_AUTHORITY_CHAIN_MAX 5 /* certificates, the root among them */

struct certs_authority_spec {
    const char *common_name;  /* of the request's subject; not looked at in the certificate */
    const char *trust_domain; /* workload: the name constraints; NULL: none are asked for */
};

/* PKCS#10 (RFC 2986), DER, appended: subject, and as requested extensions (RFC 2985 §5.4.2) what
 * the certificate has to have: CA with path length 0, keyCertSign and cRLSign, and with
 * trust_domain critical name constraints, as certs_intermediate_tbs makes them. key may be one held
 * elsewhere. */
ATT_MUST_USE enum att_rc certs_authority_csr(const struct certs_authority_spec *spec, EVP_PKEY *key,
                                             struct att_buf *ret_der, struct att_err *err);

/* What came back: the intermediate first, each signed by the next, the last one a root. spki: the
 * requested key's. least_s: how long the intermediate has to last from at_s. ATT_E_AUTH with reason
 *   caChain        not 2 … 5 certificates, or the last is not self-issued
 *   caKey          another key than the request's
 *   caBasic        not a CA (RFC 5280 §4.2.1.9)
 *   caPathLength   the intermediate's is not 0, or one above it allows no CA below itself
 *   caKeyUsage     without keyCertSign or cRLSign (§4.2.1.3)
 *   caEku          an extended key usage that leaves out serverAuth or clientAuth
 *   caConstraints  with trust_domain: not critical, or names outside of it are not refused; or one
 *                  above refuses names of the trust domain (§4.2.1.10)
 *   caValidity     not valid now, not for least_s, or longer than what signed it
 *   caSignature    not signed by the next one
 *   caAlgorithm    a signature with SHA-1 or weaker
 *   caPath         path validation refuses it (RFC 5280 §6); the text says what */
ATT_MUST_USE enum att_rc certs_authority_check(const STACK_OF(X509) * chain,
                                               const struct certs_authority_spec *spec,
                                               struct att_slice spki, int64_t at_s, int64_t least_s,
                                               struct att_err *err);

#endif
