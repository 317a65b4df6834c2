/* What is done each minute in the main loop: the rows of what has ended go, in short transactions,
 * so that requests come between them, and for so long at a time that everything else the loop does
 * is done in time. What is left is gone on with in the loop's next turn. */
#ifndef PROVISION_ISSUER_SWEEP_H
#define PROVISION_ISSUER_SWEEP_H

#include "provision/issuer/context.h"

#define ISSUER_SWEEP_MS 1000 /* in one turn; the transaction that is under way then ends */

struct issuer_sweep {
    int64_t last_ms; /* when it began last; 0: not yet */
    bool more;       /* orders or AK records are left over */
};

/* Says itself what goes wrong: it is tried again a minute later. */
void issuer_sweep_tick(struct issuer *issuer, struct issuer_sweep *sweep);

#endif
