#include "provision/verify/memo.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct place {
    bool used;
    uint64_t at; /* when it was used last, by count */
    uint8_t key[ATT_SHA256_LEN];
    union {
        struct parse_ima_pcrs pcrs;
        struct verify_ima_judged judged;
    };
};

/* Of replays and of judgements, so that neither displaces the other. */
struct table {
    size_t n;
    struct place *places;
};

struct verify_memo {
    pthread_mutex_t lock;
    uint64_t clock;
    struct table replays, judged;
};

struct verify_memo *verify_memo_new(size_t places)
{
    struct verify_memo *memo = calloc(1, sizeof(*memo));
    if (!memo) {
        return NULL;
    }
    pthread_mutex_init(&memo->lock, NULL);
    memo->replays = (struct table){places, calloc(places, sizeof(struct place))};
    memo->judged = (struct table){places, calloc(places, sizeof(struct place))};
    if (!memo->replays.places || !memo->judged.places) {
        verify_memo_free(memo);
        return NULL;
    }
    return memo;
}

void verify_memo_free(struct verify_memo *memo)
{
    if (memo) {
        pthread_mutex_destroy(&memo->lock);
        free(memo->replays.places);
        free(memo->judged.places);
        free(memo);
    }
}

static void key_of(const uint8_t list_sha256[ATT_SHA256_LEN], uint16_t bank, const uint8_t *start,
                   uint8_t ret[ATT_SHA256_LEN])
{
    uint8_t alg[2] = {(uint8_t)(bank >> 8), (uint8_t)bank};
    struct att_slice parts[] = {ATT_SLICE(list_sha256, ATT_SHA256_LEN), ATT_SLICE_ARRAY(alg),
                                ATT_SLICE(start, parse_alg_digest_len(bank))};
    att_sha256_v(ret, parts, 3);
}

/* The place with that key, else the one to take. */
static struct place *find(const struct table *table, const uint8_t key[ATT_SHA256_LEN],
                          bool *ret_found)
{
    struct place *oldest = NULL;
    *ret_found = false;
    for (size_t i = 0; i < table->n; i++) {
        struct place *place = &table->places[i];
        if (place->used && memcmp(place->key, key, ATT_SHA256_LEN) == 0) {
            *ret_found = true;
            return place;
        }
        if (!oldest || place->at < oldest->at) {
            oldest = place;
        }
    }
    return oldest;
}

/* The place of that key, used now; NULL: none. The lock is held. */
static struct place *take(struct verify_memo *memo, const struct table *table,
                          const uint8_t key[ATT_SHA256_LEN])
{
    bool found = false;
    struct place *place = find(table, key, &found);
    if (found) {
        place->at = ++memo->clock;
    }
    return found ? place : NULL;
}

/* That place, or the oldest one; NULL where there are none at all. The lock is held. */
static struct place *give(struct verify_memo *memo, const struct table *table,
                          const uint8_t key[ATT_SHA256_LEN])
{
    bool found = false;
    struct place *place = find(table, key, &found);
    if (place) {
        place->used = true;
        place->at = ++memo->clock;
        memcpy(place->key, key, sizeof(place->key));
    }
    return place;
}

bool verify_memo_get(struct verify_memo *memo, const uint8_t list_sha256[ATT_SHA256_LEN],
                     uint16_t bank, const uint8_t *start, struct parse_ima_pcrs *ret_pcrs)
{
    uint8_t key[ATT_SHA256_LEN];
    if (!memo) {
        return false;
    }
    key_of(list_sha256, bank, start, key);
    pthread_mutex_lock(&memo->lock);
    const struct place *place = take(memo, &memo->replays, key);
    if (place) {
        *ret_pcrs = place->pcrs;
    }
    pthread_mutex_unlock(&memo->lock);
    return place != NULL;
}

void verify_memo_put(struct verify_memo *memo, const uint8_t list_sha256[ATT_SHA256_LEN],
                     const uint8_t *start, const struct parse_ima_pcrs *pcrs)
{
    uint8_t key[ATT_SHA256_LEN];
    if (!memo) {
        return;
    }
    key_of(list_sha256, pcrs->bank, start, key);
    pthread_mutex_lock(&memo->lock);
    struct place *place = give(memo, &memo->replays, key);
    if (place) {
        place->pcrs = *pcrs;
    }
    pthread_mutex_unlock(&memo->lock);
}

static void judged_key(const uint8_t list_sha256[ATT_SHA256_LEN],
                       const uint8_t rule_sha256[ATT_SHA256_LEN], uint8_t ret[ATT_SHA256_LEN])
{
    struct att_slice parts[] = {ATT_SLICE(list_sha256, ATT_SHA256_LEN),
                                ATT_SLICE(rule_sha256, ATT_SHA256_LEN)};
    att_sha256_v(ret, parts, 2);
}

bool verify_memo_get_judged(struct verify_memo *memo, const uint8_t list_sha256[ATT_SHA256_LEN],
                            const uint8_t rule_sha256[ATT_SHA256_LEN],
                            struct verify_ima_judged *ret)
{
    uint8_t key[ATT_SHA256_LEN];
    if (!memo) {
        return false;
    }
    judged_key(list_sha256, rule_sha256, key);
    pthread_mutex_lock(&memo->lock);
    const struct place *place = take(memo, &memo->judged, key);
    if (place) {
        *ret = place->judged;
    }
    pthread_mutex_unlock(&memo->lock);
    return place != NULL;
}

void verify_memo_put_judged(struct verify_memo *memo, const uint8_t list_sha256[ATT_SHA256_LEN],
                            const uint8_t rule_sha256[ATT_SHA256_LEN],
                            const struct verify_ima_judged *judged)
{
    uint8_t key[ATT_SHA256_LEN];
    if (!memo) {
        return;
    }
    judged_key(list_sha256, rule_sha256, key);
    pthread_mutex_lock(&memo->lock);
    struct place *place = give(memo, &memo->judged, key);
    if (place) {
        place->judged = *judged;
    }
    pthread_mutex_unlock(&memo->lock);
}
