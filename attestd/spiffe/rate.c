#include "attestd/spiffe/rate.h"

static int64_t cost_of(unsigned a_second)
{
    return 1000 / (int64_t)a_second;
}

void rate_init(struct rate *rate, unsigned a_second, unsigned burst, int64_t now_ms)
{
    *rate = (struct rate){.filled_at_ms = now_ms, .saved_ms = cost_of(a_second) * burst};
}

bool rate_take(struct rate *rate, unsigned a_second, unsigned burst, int64_t now_ms)
{
    const int64_t cost = cost_of(a_second), most = cost * burst;
    int64_t passed = now_ms > rate->filled_at_ms ? now_ms - rate->filled_at_ms : 0;
    rate->filled_at_ms = now_ms;
    rate->saved_ms = passed > most - rate->saved_ms ? most : rate->saved_ms + passed;
    if (rate->saved_ms < cost) {
        return false;
    }
    rate->saved_ms -= cost;
    return true;
}
