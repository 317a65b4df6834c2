/* How often somebody may have something: so many in a second on average, more at once after a rest.
 * Pure. */
#ifndef ATTESTD_SPIFFE_RATE_H
#define ATTESTD_SPIFFE_RATE_H

#include <stdbool.h>
#include <stdint.h>

struct rate {
    int64_t filled_at_ms, saved_ms;
};

/* a_second: 1 to 1000; burst: how many at once. Both the same in each call. */
void rate_init(struct rate *rate, unsigned a_second, unsigned burst, int64_t now_ms);
/* False: used up, and nothing is taken. */
bool rate_take(struct rate *rate, unsigned a_second, unsigned burst, int64_t now_ms);

#endif
