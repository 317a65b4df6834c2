/* What the files of federation share. */
#ifndef PROVISION_ISSUER_FEDERATION_INTERNAL_H
#define PROVISION_ISSUER_FEDERATION_INTERNAL_H

#include "provision/federation/bundle.h"
#include "provision/issuer/federation.h"

/* A bundle on its way into the store. */
struct take {
    struct issuer *issuer;
    const char *name;
    const struct federation_bundle *bundle;
    bool from_file;
    int64_t now;
    /* Of the look, to see whether another one has begun and ended meanwhile, at another issuer,
     * say, whose bundle is not older than this one; 0: nobody asks. anew: of the row then. An
     * operator who has said since that all begins anew does not mean this one: it was fetched by
     * what he takes out of force. */
    int64_t claimed_at, fetched_at, anew;
    /* after it */
    bool overtaken;   /* nothing was changed: the later look's counts */
    bool changed;     /* it is another than before */
    char shares[256]; /* another trust domain that has a root or key of it, too; empty: none */
};
/* A transaction (struct take): looks whether it may be theirs, and puts it in the place of what was
 * there. ATT_E_RETRY: issuer_generations_refresh, and again. */
enum att_rc federation_take(void *user, struct store_tx *tx, struct att_err *err);
/* The row, or one of a trust domain of which nothing is known. */
ATT_MUST_USE enum att_rc federation_row(struct store_tx *tx, const char *name,
                                        struct store_federated *ret, struct att_err *err);

#endif
