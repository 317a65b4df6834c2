/* What jws.c needs of the account key. Internal to keyd. */
#ifndef ATTESTD_KEYD_ACCOUNT_H
#define ATTESTD_KEYD_ACCOUNT_H

#include "attestd/keyd/internal.h"

/* May a JWS with this header be signed? Makes the account key at first use. */
ATT_MUST_USE enum att_rc keyd_account_check_header(struct keyd *keyd,
                                                   struct att_slice protected_json,
                                                   struct att_err *err);
/* r ‖ s appended. Only for digests that keyd made itself of a header it has checked. */
ATT_MUST_USE enum att_rc keyd_account_sign(struct keyd *keyd, const uint8_t digest[ATT_SHA256_LEN],
                                           struct att_buf *ret_raw, struct att_err *err);

#endif
