/* Client certificates of administrators: of a CA of the operator's, and agents' own. */
#ifndef PROVISION_ISSUER_ADMIN_CERTS_H
#define PROVISION_ISSUER_ADMIN_CERTS_H

#include "provision/issuer/context.h"

#include <openssl/x509.h>

/* The roots and revocation lists of files, read again when they were replaced: a CA makes a new
 * list far more often than somebody reloads a service. Thread-safe. */
struct issuer_client_ca;

/* crl_file NULL: this CA has no list. ATT_E_PARSE …: what is wrong with the files. */
ATT_MUST_USE enum att_rc issuer_client_ca_new(const char *ca_file, const char *crl_file,
                                              struct issuer_client_ca **ret_ca,
                                              struct att_err *err);
void issuer_client_ca_free(struct issuer_client_ca *ca); /* NULL is fine */
/* A path to one of the roots (RFC 5280, strict, security level 2), for TLS clients, every
 * certificate of it not revoked by a list in force. sent may be NULL. ATT_E_AUTH with reason
 * certUntrusted certExpired certNotYet certRevoked certPurpose crlMissing crlStale. */
ATT_MUST_USE enum att_rc issuer_client_ca_verify(struct issuer_client_ca *ca, X509 *cert,
                                                 STACK_OF(X509) * sent, int64_t now,
                                                 struct att_err *err);
/* "x509:" and the subject as RFC 2253 writes it; refused, "certName", where it is empty. Appends.
 */
ATT_MUST_USE enum att_rc issuer_client_subject(const X509 *cert, struct att_buf *ret_id,
                                               struct att_err *err);

/* An agent's certificate under the workload root: its path, and that the store has it as issued.
 * Appends the SPIFFE ID. ATT_E_AUTH with the same reasons, and certExportable: its key was made to
 * be given away. */
ATT_MUST_USE enum att_rc issuer_client_agent_verify(struct issuer *issuer, X509 *cert,
                                                    STACK_OF(X509) * sent, struct att_buf *ret_id,
                                                    struct att_err *err);

#endif
