/* Refusals of one account within a time: each leaves an audit record, and that log is never cut. In
 * memory, lossy (accounts whose hashes meet share a place by turns), so that it cannot be filled.
 */
#include "provision/issuer/context.h"

#include <stdlib.h>
#include <string.h>

#define PLACES 4096

struct place {
    char account[ISSUER_ID_LEN];
    int64_t since;
    unsigned n;
};

struct issuer_limit {
    pthread_mutex_t lock;
    struct place places[PLACES];
};

struct issuer_limit *issuer_limit_new(void)
{
    struct issuer_limit *limit = calloc(1, sizeof *limit);
    if (limit) {
        pthread_mutex_init(&limit->lock, NULL);
    }
    return limit;
}

void issuer_limit_free(struct issuer_limit *limit)
{
    if (limit) {
        pthread_mutex_destroy(&limit->lock);
        free(limit);
    }
}

/* Account ids are random, ours, and base64url: their characters are as good as a hash. */
static struct place *place_of(struct issuer_limit *limit, const char *account)
{
    size_t at = 0;
    for (size_t i = 0; account[i] && i < 8; i++) {
        at = at * 31 + (unsigned char)account[i];
    }
    return &limit->places[at % PLACES];
}

static bool is_of(const struct place *p, const char *account, int64_t now)
{
    return strcmp(p->account, account) == 0 && now - p->since < ISSUER_RECENT_S;
}

bool issuer_limit_reached(struct issuer_limit *limit, const char *account, int64_t now)
{
    pthread_mutex_lock(&limit->lock);
    const struct place *p = place_of(limit, account);
    bool reached = is_of(p, account, now) && p->n >= ISSUER_RECENT_REFUSALS;
    pthread_mutex_unlock(&limit->lock);
    return reached;
}

void issuer_limit_count(struct issuer_limit *limit, const char *account, int64_t now)
{
    pthread_mutex_lock(&limit->lock);
    struct place *p = place_of(limit, account);
    if (!is_of(p, account, now)) {
        *p = (struct place){.since = now};
        size_t len = strnlen(account, sizeof p->account - 1);
        memcpy(p->account, account, len);
    }
    p->n++;
    pthread_mutex_unlock(&limit->lock);
}
