/* Certificates for permanent identifiers (docs/PROTOCOL.md, "Permanent identifiers"): what is asked
 * of the store about the AK certificate that vouches for a key. Orders, authorizations and their
 * rows are those of dns.h, of type "permanent-identifier". */
#ifndef PROVISION_ISSUER_DEVICE_H
#define PROVISION_ISSUER_DEVICE_H

#include "provision/issuer/dns.h"

/* In a transaction: is the AK certificate of this serial number in force, is its TPM that of an
 * approved host which has this identifier, and may this account speak of it? der: the certificate
 * as it was sent; empty: not compared. ATT_E_DENIED: hostUnknown, hostBanned, akUnknown,
 * firmwareDenied (by what the AK's enrolment signed; of the endpoints below by what was said to
 * them), identifierMismatch, accountMismatch. ret_host is the caller's. */
ATT_MUST_USE enum att_rc issuer_device_check(struct issuer_call *call, struct store_tx *tx,
                                             const char *ak_serial, struct att_slice der,
                                             const char *identifier, struct store_host *ret_host,
                                             struct att_err *err);

/* The deny list as it is now, for an AK of these endpoints: its certificate's firmware, read. */
ATT_MUST_USE enum att_rc issuer_step_firmware(const struct issuer_settings *settings,
                                              const json_t *firmware, struct att_err *err);

#define ISSUER_STEP "attestation-ca/" /* path of the endpoints in Smallstep's dialect */
/* POST attestation-ca/attest and attestation-ca/secret; rest is what follows ISSUER_STEP. Not
 * configured: 404. */
void issuer_step(struct issuer *issuer, const char *rest, const struct issuer_request *request,
                 struct issuer_response *response);

#endif
