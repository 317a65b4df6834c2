/* Whether an issuer has what the store says that its issuers have (issuers of a shared store). */
#ifndef PROVISION_ISSUER_KEYS_CHECK_H
#define PROVISION_ISSUER_KEYS_CHECK_H

#include "provision/issuer/context.h"

/* Transactions (struct issuer). At start, one that writes: ATT_E_CONFLICT, reason caOther, where
 * state_dir/ca is another CA than that of the store's first issuer. */
ATT_MUST_USE enum att_rc issuer_first_check(void *user, struct store_tx *tx, struct att_err *err);
/* For --check, one that reads: also caKeyMissing and jwtKeyMissing, of a key that signs or is to
 * sign and that cannot be used here. Asks the HSM. */
ATT_MUST_USE enum att_rc issuer_keys_check(void *user, struct store_tx *tx, struct att_err *err);

#endif
