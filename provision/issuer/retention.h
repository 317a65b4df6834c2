/* How long records of a profile are kept (profiles[].retention). */
#ifndef PROVISION_ISSUER_RETENTION_H
#define PROVISION_ISSUER_RETENTION_H

#include "provision/issuer/context.h"

/* Empties what is due among the next records of the chain, in one transaction with the record that
 * says so ("retention", with "erases": a list). ret_more: there are further ones to look at. */
ATT_MUST_USE enum att_rc issuer_retention_step(struct issuer *issuer,
                                               const struct conf_profile *profile, bool *ret_more,
                                               struct att_err *err);
/* A few steps for each profile that has a retention; says itself what goes wrong. Main thread. */
void issuer_retention_tick(struct issuer *issuer, const struct conf_issuer *conf);

#endif
