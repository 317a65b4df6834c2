/* Other trust domains' bundles (SPIFFE Federation): looked at from time to time by a thread of its
 * own, kept in the store, given to the hosts whose entries say federates_with. Off where the
 * configuration has no section `federation`.
 *
 * What a look finds counts whole or not at all; what was good last stays until something good takes
 * its place, however long that takes. */
#ifndef PROVISION_ISSUER_FEDERATION_H
#define PROVISION_ISSUER_FEDERATION_H

#include "provision/issuer/context.h"

struct att_metrics;
struct issuer_admin_call;

/* At start and after a reload: what the configuration has no longer is forgotten, each change a
 * record; hosts are told. */
ATT_MUST_USE enum att_rc issuer_federation_sync(struct issuer *issuer, struct att_err *err);
/* While serving. */
ATT_MUST_USE enum att_rc issuer_federation_start(struct issuer *issuer, struct att_err *err);
void issuer_federation_stop(struct issuer *issuer);

enum issuer_federation_outcome {
    ISSUER_FEDERATION_UPDATED,
    ISSUER_FEDERATION_UNCHANGED,
    ISSUER_FEDERATION_REFUSED, /* what the endpoint gave, or the endpoint itself, is no good */
    ISSUER_FEDERATION_AWAY,
    ISSUER_FEDERATION_OUTCOMES /* how many */
};
const char *issuer_federation_word(enum issuer_federation_outcome outcome);

/* One look now, whoever is due. ATT_OK: ret_outcome is one of the first two. Else what is wrong is
 * kept beside the bundle, and is the error; reasons are those of provision/federation, and:
 *   bundleOwn       it has a root or key of this issuer's own trust domain
 *   bundleDomain    it is the bundle of another trust domain that is federated with
 *   bundleSequence  its spiffe_sequence is less than the one that is known, or gone
 *   bundleFile      https_spiffe: the file to begin with is no good
 *   bundleEmpty     https_spiffe: the last known bundle has no root to believe the endpoint by */
ATT_MUST_USE enum att_rc issuer_federation_look(struct issuer *issuer, const char *name,
                                                enum issuer_federation_outcome *ret_outcome,
                                                struct att_err *err);

/* For a host's view: [{"trustDomain", "roots": PEM, "keys": [JWK…]}…] of those of names (an object
 * whose members are trust domains) that are configured and known. The caller owns it. */
ATT_MUST_USE enum att_rc issuer_federation_view(const struct conf_federation *conf,
                                                struct store_tx *tx, const json_t *names,
                                                json_t **ret_list, struct att_err *err);

void issuer_federation_metrics(struct issuer *issuer, struct att_metrics *m);

#endif
