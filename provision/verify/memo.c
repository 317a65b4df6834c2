#include "provision/verify/memo.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct place {
    bool used;
    uint64_t at; /* when it was used last, by count */
    uint8_t key[ATT_SHA256_LEN];
    struct parse_ima_pcrs pcrs;
};

struct verify_memo {
    pthread_mutex_t lock;
    uint64_t clock;
    size_t n;
    struct place places[];
};

struct verify_memo *verify_memo_new(size_t places)
{
    struct verify_memo *memo = calloc(1, sizeof(*memo) + places * sizeof(memo->places[0]));
    if (memo) {
        pthread_mutex_init(&memo->lock, NULL);
        memo->n = places;
    }
    return memo;
}

void verify_memo_free(struct verify_memo *memo)
{
    if (memo) {
        pthread_mutex_destroy(&memo->lock);
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
static struct place *find(struct verify_memo *memo, const uint8_t key[ATT_SHA256_LEN],
                          bool *ret_found)
{
    struct place *oldest = NULL;
    *ret_found = false;
    for (size_t i = 0; i < memo->n; i++) {
        struct place *place = &memo->places[i];
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

bool verify_memo_get(struct verify_memo *memo, const uint8_t list_sha256[ATT_SHA256_LEN],
                     uint16_t bank, const uint8_t *start, struct parse_ima_pcrs *ret_pcrs)
{
    uint8_t key[ATT_SHA256_LEN];
    bool found = false;
    if (!memo) {
        return false;
    }
    key_of(list_sha256, bank, start, key);
    pthread_mutex_lock(&memo->lock);
    struct place *place = find(memo, key, &found);
    if (found) {
        place->at = ++memo->clock;
        *ret_pcrs = place->pcrs;
    }
    pthread_mutex_unlock(&memo->lock);
    return found;
}

void verify_memo_put(struct verify_memo *memo, const uint8_t list_sha256[ATT_SHA256_LEN],
                     const uint8_t *start, const struct parse_ima_pcrs *pcrs)
{
    uint8_t key[ATT_SHA256_LEN];
    bool found = false;
    if (!memo) {
        return;
    }
    key_of(list_sha256, pcrs->bank, start, key);
    pthread_mutex_lock(&memo->lock);
    struct place *place = find(memo, key, &found);
    if (place) {
        place->used = true;
        place->at = ++memo->clock;
        memcpy(place->key, key, sizeof(place->key));
        place->pcrs = *pcrs;
    }
    pthread_mutex_unlock(&memo->lock);
}
