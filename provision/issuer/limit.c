/* What one account, host or address may do within a time that leaves something for ever: refusals
 * and changes are audit records, and that log is never cut. In memory, of a fixed size. Who is not
 * in a full set takes the place of its least and goes on from that one's count: a count may be too
 * high when a set of eight is full of offenders, and is never too low, so that accounts which meet
 * do not reset each other. */
#include "provision/issuer/metrics.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SETS 1024
#define WAYS 8
/* Of a host's id so many digits do; a longer text is cut. */
#define KEY_ROOM 48

struct place {
    char who[KEY_ROOM];
    int64_t since;
    unsigned n;
};

struct issuer_limit {
    pthread_mutex_t lock;
    uint64_t seed; /* who meets whom is not for strangers to choose */
    struct place places[ISSUER_LIMITS][SETS][WAYS];
};

static const unsigned most[ISSUER_LIMITS] = {
    [ISSUER_LIMIT_REFUSALS] = ISSUER_RECENT_REFUSALS,
    [ISSUER_LIMIT_CHANGES] = ISSUER_RECENT_CHANGES,
    [ISSUER_LIMIT_REFUSED_LOGS] = ISSUER_RECENT_REFUSED_LOGS,
    [ISSUER_LIMIT_NEW_LOGS] = ISSUER_RECENT_NEW_LOGS,
    [ISSUER_LIMIT_REVOCATIONS] = ISSUER_RECENT_REVOCATIONS};

struct issuer_limit *issuer_limit_new(void)
{
    struct issuer_limit *limit = calloc(1, sizeof *limit);
    if (limit && att_random((uint8_t *)&limit->seed, sizeof limit->seed, NULL)) {
        free(limit);
        return NULL;
    }
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

/* FNV-1a from a seed. */
static struct place *set_of(struct issuer_limit *limit, enum issuer_limit_kind kind,
                            const char *who)
{
    uint64_t at = 0xcbf29ce484222325 ^ limit->seed;
    for (size_t i = 0; who[i] && i < KEY_ROOM - 1; i++) {
        at = (at ^ (unsigned char)who[i]) * 0x100000001b3;
    }
    return limit->places[kind][(at ^ at >> 32) % SETS];
}

static bool live(const struct place *p, int64_t now)
{
    return p->n && now - p->since < ISSUER_RECENT_S;
}

/* NULL when it is not there. */
static struct place *find(struct place *set, const char *account, int64_t now)
{
    for (size_t i = 0; i < WAYS; i++) {
        if (live(&set[i], now) && strncmp(set[i].who, account, KEY_ROOM - 1) == 0) {
            return &set[i];
        }
    }
    return NULL;
}

/* The place to take: one that is free, or else the least, whose count whoever is not here may have
 * had. */
static struct place *least_of(struct place *set, int64_t now)
{
    struct place *least = &set[0];
    for (size_t i = 0; i < WAYS; i++) {
        if (!live(&set[i], now)) {
            set[i] = (struct place){.since = now};
        }
        least = set[i].n < least->n ? &set[i] : least;
    }
    return least;
}

bool issuer_limit_reached(struct issuer_limit *limit, enum issuer_limit_kind kind,
                          const char *account, int64_t now)
{
    pthread_mutex_lock(&limit->lock);
    struct place *set = set_of(limit, kind, account), *p = find(set, account, now);
    p = p ? p : least_of(set, now);
    bool reached = p->n >= most[kind];
    pthread_mutex_unlock(&limit->lock);
    if (reached) {
        issuer_metrics_limited(kind);
    }
    return reached;
}

void issuer_limit_count(struct issuer_limit *limit, enum issuer_limit_kind kind,
                        const char *account, int64_t now)
{
    pthread_mutex_lock(&limit->lock);
    struct place *set = set_of(limit, kind, account), *p = find(set, account, now);
    if (!p) {
        p = least_of(set, now);
        snprintf(p->who, sizeof p->who, "%s", account);
    }
    p->n++;
    pthread_mutex_unlock(&limit->lock);
}

bool issuer_limit_take(struct issuer_limit *limit, enum issuer_limit_kind kind, const char *who,
                       unsigned most_now, int64_t now)
{
    pthread_mutex_lock(&limit->lock);
    struct place *set = set_of(limit, kind, who), *p = find(set, who, now);
    if (!p) {
        p = least_of(set, now);
        snprintf(p->who, sizeof p->who, "%s", who);
    }
    bool reached = p->n >= most_now;
    p->n += reached ? 0 : 1;
    pthread_mutex_unlock(&limit->lock);
    if (reached) {
        issuer_metrics_limited(kind);
    }
    return reached;
}

void issuer_limit_source(const char *address, char ret[ISSUER_SOURCE_LEN])
{
    uint8_t bytes[16];
    ret[0] = 0;
    if (!address) {
        return;
    }
    if (inet_pton(AF_INET6, address, bytes) != 1 ||
        memcmp(bytes, "\0\0\0\0\0\0\0\0\0\0\xff\xff", 12) == 0) {
        const char *v4 = strrchr(address, ':');
        snprintf(ret, ISSUER_SOURCE_LEN, "%s", v4 ? v4 + 1 : address);
        return;
    }
    att_hex(ret, ATT_SLICE(bytes, 8));
}

bool issuer_limit_take_address(struct issuer_limit *limit, enum issuer_limit_kind kind,
                               const char *address, unsigned most_now, int64_t now)
{
    char key[ISSUER_SOURCE_LEN];
    issuer_limit_source(address, key);
    return address && most_now && issuer_limit_take(limit, kind, key, most_now, now);
}
