/* The end of single certificates. */
#ifndef PROVISION_ISSUER_REVOKE_H
#define PROVISION_ISSUER_REVOKE_H

#include "provision/issuer/context.h"

/* In a transaction: the certificate is revoked from now on, with an audit record that says by whom
 * ("account/<id>", "key", "uid/0", "issuer"). reason: a word of RFC 5280 §5.3.1 ("keyCompromise")
 * or one of ours ("hostBanned"), which the row keeps. One that was only intended will not be
 * signed. ATT_E_NOTFOUND; ATT_E_CONFLICT, reason "alreadyRevoked": it is revoked (or was never
 * issued); the row is as it was. */
ATT_MUST_USE enum att_rc issuer_revoke(struct store_tx *tx, const char *serial, const char *reason,
                                       const char *who, int64_t now, struct att_err *err);
/* CRLReason of such a word, for who makes CRLs: ours are 9 (privilegeWithdrawn), but for tpmCleared
 * and superseded, 4, and retired, 5. */
int issuer_revocation_code(const char *reason);
/* The word of a CRLReason that an owner may give; NULL for any other. */
const char *issuer_revocation_word(int code);

#endif
