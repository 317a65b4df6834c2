/* What one address has of the admin API's workers, so that nobody keeps all of them from the
 * others: how many of its requests run, and how many wait. Addresses of one IPv6 /64 are one. For
 * one thread at a time (the caller's lock). */
#ifndef PROVISION_ISSUER_SHARES_H
#define PROVISION_ISSUER_SHARES_H

#include <stdbool.h>

#define ISSUER_SHARE_RUNNING 2
#define ISSUER_SHARE_WAITING 8
#define ISSUER_SHARE_KEY     48
#define ISSUER_SHARES_MAX    80 /* at least as many as all that wait and run at a time */

struct issuer_share {
    char key[ISSUER_SHARE_KEY];
    unsigned running, waiting; /* both 0: free */
};
struct issuer_shares {
    struct issuer_share v[ISSUER_SHARES_MAX];
};

/* address: text, NULL where it is not known (all of these are one). */
void issuer_share_key(const char *address, char ret[ISSUER_SHARE_KEY]);
/* One more waits; false when this address has all that may, and then nothing is counted. */
bool issuer_share_wait(struct issuer_shares *shares, const char *key);
/* One that waits runs now; false when this address has all that may, and then it waits on. */
bool issuer_share_start(struct issuer_shares *shares, const char *key);
void issuer_share_end(struct issuer_shares *shares, const char *key);  /* one that ran */
void issuer_share_drop(struct issuer_shares *shares, const char *key); /* one that waited */

#endif
