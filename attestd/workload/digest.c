#include "attestd/workload/digest.h"

#include "attestd/base/clock.h"

#include <errno.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CHUNK   ((size_t)256 << 10)
#define FRESH_S 2 /* a ctime of the last seconds may hide a second change */

/* What cannot stay as it is when the content changes. */
struct key {
    uint64_t dev, ino, size;
    int64_t ctime_s, mtime_s;
    long ctime_ns, mtime_ns;
};

enum slot_state { EMPTY = 0, BUSY, DONE };
struct slot {
    struct key key;
    enum slot_state state;
    uint64_t used; /* the cache's tick at the last use */
    uint8_t sha256[ATT_SHA256_LEN];
};
struct workload_cache {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t tick;
    struct workload_cache_counts counts;
    size_t n;
    struct slot slots[];
};

static struct key key_of(const struct stat *st)
{
    struct key key;
    memset(&key, 0, sizeof key); /* compared as bytes, padding too */
    key.dev = st->st_dev;
    key.ino = st->st_ino;
    key.size = (uint64_t)st->st_size;
    key.ctime_s = st->st_ctim.tv_sec;
    key.mtime_s = st->st_mtim.tv_sec;
    key.ctime_ns = st->st_ctim.tv_nsec;
    key.mtime_ns = st->st_mtim.tv_nsec;
    return key;
}

static bool same_key(const struct key *a, const struct key *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

/* ---- reading ---- */

static enum att_rc look(int fd, uint64_t max, struct key *ret_key, struct att_err *err)
{
    struct stat st;
    if (fstat(fd, &st) != 0) {
        return att_fail_errno(err, ATT_E_IO, "fstat");
    }
    if (!S_ISREG(st.st_mode)) {
        (void)!att_fail(err, ATT_E_INVAL, "not a regular file");
        att_err_reason(err, "notRegular");
        return ATT_E_INVAL;
    }
    if (st.st_size < 0 || (uint64_t)st.st_size > max) {
        (void)!att_fail(err, ATT_E_LIMIT, "a file of %lld bytes, at most %llu are read",
                        (long long)st.st_size, (unsigned long long)max);
        att_err_reason(err, "fileTooLarge");
        return ATT_E_LIMIT;
    }
    *ret_key = key_of(&st);
    return ATT_OK;
}

static enum att_rc read_all(int fd, uint64_t max, int64_t deadline_ms, EVP_MD_CTX *md,
                            uint8_t *chunk, struct att_err *err)
{
    uint64_t at = 0;
    for (;;) {
        if (att_boottime_ms() > deadline_ms) {
            return att_fail(err, ATT_E_TIMEOUT, "reading it takes too long");
        }
        ssize_t got = pread(fd, chunk, CHUNK, (off_t)at);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return att_fail_errno(err, ATT_E_IO, "read");
        }
        if (got == 0) {
            return ATT_OK;
        }
        at += (uint64_t)got;
        if (at > max) {
            return att_fail(err, ATT_E_LIMIT, "it grows beyond %llu bytes",
                            (unsigned long long)max);
        }
        if (EVP_DigestUpdate(md, chunk, (size_t)got) != 1) {
            return att_fail_openssl(err, ATT_E_CRYPTO, "SHA-256");
        }
    }
}

static enum att_rc hash(int fd, uint64_t max, int64_t deadline_ms, uint8_t ret[ATT_SHA256_LEN],
                        struct att_err *err)
{
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    uint8_t *chunk = malloc(CHUNK);
    enum att_rc rc = md && chunk ? ATT_OK : att_fail(err, ATT_E_NOMEM, "SHA-256");
    if (rc == ATT_OK && EVP_DigestInit_ex(md, EVP_sha256(), NULL) != 1) {
        rc = att_fail_openssl(err, ATT_E_CRYPTO, "SHA-256");
    }
    if (rc == ATT_OK) {
        rc = read_all(fd, max, deadline_ms, md, chunk, err);
    }
    unsigned len = ATT_SHA256_LEN;
    if (rc == ATT_OK && EVP_DigestFinal_ex(md, ret, &len) != 1) {
        rc = att_fail_openssl(err, ATT_E_CRYPTO, "SHA-256");
    }
    EVP_MD_CTX_free(md);
    free(chunk);
    return rc;
}

/* The digest of what the file was, unchanged, from before the first byte to behind the last. */
static enum att_rc digest_stable(int fd, uint64_t max, int64_t deadline_ms, struct key *ret_key,
                                 uint8_t ret[ATT_SHA256_LEN], struct att_err *err)
{
    for (int tries = 0; tries < 2; tries++) {
        struct key before, after;
        enum att_rc rc = look(fd, max, &before, err);
        if (rc == ATT_OK) {
            rc = hash(fd, max, deadline_ms, ret, err);
        }
        if (rc == ATT_OK) {
            rc = look(fd, max, &after, err);
        }
        if (rc != ATT_OK) {
            return rc;
        }
        if (same_key(&before, &after)) {
            *ret_key = after;
            return ATT_OK;
        }
    }
    (void)!att_fail(err, ATT_E_RETRY, "it changes while it is read");
    att_err_reason(err, "fileChanging");
    return ATT_E_RETRY;
}

enum att_rc workload_digest(int fd, uint64_t max, uint8_t ret[ATT_SHA256_LEN], struct att_err *err)
{
    return workload_digest_until(fd, max, att_boottime_ms() + WORKLOAD_HASH_MS, ret, err);
}

enum att_rc workload_digest_until(int fd, uint64_t max, int64_t deadline_ms,
                                  uint8_t ret[ATT_SHA256_LEN], struct att_err *err)
{
    struct key key;
    uint8_t sha256[ATT_SHA256_LEN];
    enum att_rc rc = digest_stable(fd, max, deadline_ms, &key, sha256, err);
    if (rc == ATT_OK) {
        memcpy(ret, sha256, sizeof sha256);
    }
    return rc;
}

/* ---- the cache ---- */

enum att_rc workload_cache_new(size_t entries, struct workload_cache **ret_cache,
                               struct att_err *err)
{
    struct workload_cache *cache = calloc(1, sizeof *cache + entries * sizeof(struct slot));
    if (!cache || entries == 0) {
        free(cache);
        return att_fail(err, ATT_E_NOMEM, "cache of %zu digests", entries);
    }
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&cache->lock, NULL);
    pthread_cond_init(&cache->changed, &attr);
    pthread_condattr_destroy(&attr);
    cache->n = entries;
    *ret_cache = cache;
    return ATT_OK;
}

void workload_cache_free(struct workload_cache *cache)
{
    if (cache) {
        pthread_cond_destroy(&cache->changed);
        pthread_mutex_destroy(&cache->lock);
        free(cache);
    }
}

static struct slot *find(struct workload_cache *cache, const struct key *key)
{
    for (size_t i = 0; i < cache->n; i++) {
        if (cache->slots[i].state != EMPTY && same_key(&cache->slots[i].key, key)) {
            return &cache->slots[i];
        }
    }
    return NULL;
}

/* An empty one, else the one that was not used for longest; NULL when all are being read. */
static struct slot *victim(struct workload_cache *cache)
{
    struct slot *oldest = NULL;
    for (size_t i = 0; i < cache->n; i++) {
        struct slot *slot = &cache->slots[i];
        if (slot->state == EMPTY) {
            return slot;
        }
        if (slot->state == DONE && (!oldest || slot->used < oldest->used)) {
            oldest = slot;
        }
    }
    cache->counts.evictions += oldest != NULL;
    return oldest;
}

/* True: found (ret is filled). False: *ret_mine is this thread's to fill, or NULL when there is no
 * room. Waits while another thread reads the same file. */
static bool claim(struct workload_cache *cache, const struct key *key, uint8_t ret[ATT_SHA256_LEN],
                  struct slot **ret_mine)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += WORKLOAD_HASH_MS / 1000 + 1;
    pthread_mutex_lock(&cache->lock);
    struct slot *slot;
    bool late = false;
    while ((slot = find(cache, key)) != NULL && slot->state == BUSY && !late) {
        late = pthread_cond_timedwait(&cache->changed, &cache->lock, &until) != 0;
    }
    bool hit = slot && slot->state == DONE;
    *ret_mine = NULL;
    if (hit) {
        memcpy(ret, slot->sha256, ATT_SHA256_LEN);
        slot->used = ++cache->tick;
        cache->counts.hits++;
    } else {
        cache->counts.misses++;
        *ret_mine = slot ? NULL : victim(cache);
        if (*ret_mine) {
            **ret_mine = (struct slot){.key = *key, .state = BUSY};
        }
    }
    pthread_mutex_unlock(&cache->lock);
    return hit;
}

static bool is_fresh(const struct key *key)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return key->ctime_s >= (int64_t)now.tv_sec - FRESH_S;
}

static void settle(struct workload_cache *cache, struct slot *slot, bool keep,
                   const uint8_t sha256[ATT_SHA256_LEN])
{
    pthread_mutex_lock(&cache->lock);
    slot->state = keep ? DONE : EMPTY;
    slot->used = ++cache->tick;
    if (keep) {
        memcpy(slot->sha256, sha256, ATT_SHA256_LEN);
    }
    pthread_cond_broadcast(&cache->changed);
    pthread_mutex_unlock(&cache->lock);
}

enum att_rc workload_cache_digest(struct workload_cache *cache, int fd, uint8_t ret[ATT_SHA256_LEN],
                                  struct att_err *err)
{
    struct key wanted, seen;
    struct slot *mine;
    uint8_t sha256[ATT_SHA256_LEN];
    enum att_rc rc = look(fd, WORKLOAD_EXE_MAX, &wanted, err);
    if (rc != ATT_OK || claim(cache, &wanted, ret, &mine)) {
        return rc;
    }
    bool fresh = is_fresh(&wanted); /* when reading began */
    rc = digest_stable(fd, WORKLOAD_EXE_MAX, att_boottime_ms() + WORKLOAD_HASH_MS, &seen, sha256,
                       err);
    if (mine) {
        settle(cache, mine, rc == ATT_OK && !fresh && same_key(&wanted, &seen), sha256);
    }
    if (rc == ATT_OK) {
        memcpy(ret, sha256, sizeof sha256);
    }
    return rc;
}

void workload_cache_count(struct workload_cache *cache, struct workload_cache_counts *ret)
{
    pthread_mutex_lock(&cache->lock);
    *ret = cache->counts;
    ret->used = 0;
    for (size_t i = 0; i < cache->n; i++) {
        ret->used += cache->slots[i].state != EMPTY;
    }
    pthread_mutex_unlock(&cache->lock);
}
