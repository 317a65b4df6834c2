/* One decision's proof as JSON, as `audit prove` and `audit export` print it. */
#ifndef PROVISION_ISSUER_ADMIN_PROOF_H
#define PROVISION_ISSUER_ADMIN_PROOF_H

#include "provision/issuer/context.h"

/* Adds its members to result; record "": it was erased. */
ATT_MUST_USE enum att_rc issuer_admin_put_proof(json_t *result, int64_t seq, const char *record,
                                                const struct audit_inclusion *in,
                                                struct att_err *err);

#endif
