/* DNS names in certificates and in the CSRs of services that use plain ACME clients: other keys and
 * several names, where an agent's CSR (csr.h) has one key of one kind and one URI. */
#ifndef CERTS_DNS_H
#define CERTS_DNS_H

#include "attestd/base/buf.h"

#define CERTS_DNS_NAMES_MAX 16
#define CERTS_DNS_NAME_MAX  253
#define CERTS_DNS_SPKI_MAX  1024
#define CERTS_DNS_CSR_MAX   16384 /* bytes of DER */

/* A host name that may stand in a certificate: lowercase letters, digits and hyphens in labels of
 * 1 … 63 that neither begin nor end with a hyphen, at most 253 in all, not an IPv4 address (its
 * last label has a letter), no wildcard, no final dot (RFC 1123 §2.1, RFC 5280 §4.2.1.6). */
bool certs_dns_name_ok(const char *name);

struct certs_dns_csr {
    uint8_t spki[CERTS_DNS_SPKI_MAX]; /* DER SubjectPublicKeyInfo */
    size_t spki_len;
};

/* Reads a hostile CSR for exactly these names (RFC 8555 §7.4): whole DER of version 1 that encodes
 * again to the same bytes; a key that is P-256, P-384 or RSA of 2048 … 4096 bits with an odd
 * exponent ≥ 65537; a self-signature that holds, by SHA-256, -384 or -512; an empty subject, or one
 * CN that is one of the names; SANs that are DNS names only; names and CN together are the set
 * wanted, in any order and case. Other requested extensions are refused, but keyUsage, extKeyUsage,
 * basicConstraints and subjectKeyIdentifier, which are not taken over. ATT_E_LIMIT, ATT_E_PARSE,
 * ATT_E_AUTH (self-signature) or ATT_E_DENIED (names something else); reason "badCSR" in each. */
ATT_MUST_USE enum att_rc certs_dns_csr_verify(struct att_slice der, const char *const *names,
                                              size_t n_names, struct certs_dns_csr *ret_csr,
                                              struct att_err *err);

/* The same for a device's permanent identifier: the same keys, signatures and extensions; the
 * subject is empty or one CN that is the identifier; SANs are absent, or exactly one otherName
 * PermanentIdentifier (RFC 4043) with this value and no assigner. */
ATT_MUST_USE enum att_rc certs_device_csr_verify(struct att_slice der, const char *identifier,
                                                 struct certs_dns_csr *ret_csr,
                                                 struct att_err *err);

#endif
