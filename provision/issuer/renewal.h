/* ACME Renewal Information (RFC 9773): when a certificate should be renewed, and which order
 * replaces which certificate. */
#ifndef PROVISION_ISSUER_RENEWAL_H
#define PROVISION_ISSUER_RENEWAL_H

#include "provision/issuer/context.h"

#define ISSUER_SERIAL_HEX 41 /* 20 bytes as hex, and a NUL */

/* GET renewalInfo/<certificate identifier>, which anybody may read. */
void issuer_renewal_info(struct issuer *issuer, const char *id, struct issuer_response *response);
/* When it should be renewed: from an operator's word, else a part of its life. start ≤ end. */
ATT_MUST_USE enum att_rc issuer_renewal_window(struct store_tx *tx, const struct store_cert *cert,
                                               int64_t *ret_start, int64_t *ret_end,
                                               struct att_err *err);

/* newOrder's `replaces`: a certificate of this account, for one of these identifiers at least, that
 * no order replaces yet (409 alreadyReplaced). */
ATT_MUST_USE enum att_rc issuer_replaces_check(struct issuer_call *call, struct store_tx *tx,
                                               const struct acme_order_request *request,
                                               char ret_serial[ISSUER_SERIAL_HEX],
                                               struct att_err *err);
/* This order is to replace it; it did, now that it has its certificate. serial may be "". */
ATT_MUST_USE enum att_rc issuer_replaces_mark(struct store_tx *tx, const char *serial,
                                              const char *order, struct att_err *err);
ATT_MUST_USE enum att_rc issuer_replaces_done(struct store_tx *tx, const char *serial,
                                              const char *order, struct att_err *err);

#endif
