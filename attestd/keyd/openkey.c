#include "attestd/keyd/openkey.h"

#include <pthread.h>

static struct {
    pthread_mutex_t lock;
    struct keyd_openkey *newest, *oldest;
    size_t count;
} open_keys = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- the list, with the lock held --------------------------------------------------------------
 */

static void unlink_key(struct keyd_openkey *key)
{
    *(key->newer ? &key->newer->older : &open_keys.newest) = key->older;
    *(key->older ? &key->older->newer : &open_keys.oldest) = key->newer;
    key->newer = key->older = NULL;
    open_keys.count--;
}

static void link_newest(struct keyd_openkey *key)
{
    key->newer = NULL;
    key->older = open_keys.newest;
    *(open_keys.newest ? &open_keys.newest->newer : &open_keys.oldest) = key;
    open_keys.newest = key;
    open_keys.count++;
}

/* The last reference to an EVP_PKEY wipes it: here, or with the use that is under way. */
static void close_key(struct keyd_openkey *key)
{
    if (!key->pkey) {
        return;
    }
    unlink_key(key);
    while (key->idle_count) {
        EVP_PKEY_CTX_free(key->idle[--key->idle_count]);
    }
    EVP_PKEY_free(key->pkey);
    key->pkey = NULL;
}

static bool take_open(struct keyd_openkey *key, struct keyd_openuse *use)
{
    if (!key->pkey || EVP_PKEY_up_ref(key->pkey) != 1) {
        return false;
    }
    unlink_key(key);
    link_newest(key);
    use->pkey = key->pkey;
    use->ctx = key->idle_count ? key->idle[--key->idle_count] : NULL;
    return true;
}

/* Keeps what was made for a use; another thread may have been faster. */
static void keep(struct keyd_openkey *key, EVP_PKEY *pkey)
{
    if (key->pkey || EVP_PKEY_up_ref(pkey) != 1) {
        return;
    }
    while (open_keys.count >= KEYD_OPEN_MAX) {
        close_key(open_keys.oldest);
    }
    key->pkey = pkey;
    link_newest(key);
}

/* ---- outside -----------------------------------------------------------------------------------
 */

enum att_rc keyd_openkey_take(struct keyd_openkey *key, const struct att_secret *scalar,
                              const uint8_t point[KEYD_POINT_LEN], struct keyd_openuse *ret_use,
                              struct att_err *err)
{
    struct keyd_openuse use = {0};
    enum att_rc rc = ATT_OK;
    pthread_mutex_lock(&open_keys.lock);
    bool open = take_open(key, &use);
    pthread_mutex_unlock(&open_keys.lock);
    if (!open) {
        rc = keyd_softkey_open(scalar, point, &use.pkey, err);
    }
    if (rc == ATT_OK && !use.ctx) {
        rc = keyd_softkey_ready(use.pkey, &use.ctx, err);
    }
    if (rc != ATT_OK) {
        EVP_PKEY_free(use.pkey);
        return rc;
    }
    if (!open) {
        pthread_mutex_lock(&open_keys.lock);
        keep(key, use.pkey);
        pthread_mutex_unlock(&open_keys.lock);
    }
    *ret_use = use;
    return ATT_OK;
}

void keyd_openkey_give(struct keyd_openkey *key, struct keyd_openuse *use)
{
    pthread_mutex_lock(&open_keys.lock);
    if (key->pkey == use->pkey && key->idle_count < KEYD_OPEN_CTX) {
        key->idle[key->idle_count++] = use->ctx;
        use->ctx = NULL;
    }
    pthread_mutex_unlock(&open_keys.lock);
    EVP_PKEY_CTX_free(use->ctx);
    EVP_PKEY_free(use->pkey);
    *use = (struct keyd_openuse){0};
}

void keyd_openkey_close(struct keyd_openkey *key)
{
    pthread_mutex_lock(&open_keys.lock);
    close_key(key);
    pthread_mutex_unlock(&open_keys.lock);
}

size_t keyd_openkey_count(void)
{
    pthread_mutex_lock(&open_keys.lock);
    size_t count = open_keys.count;
    pthread_mutex_unlock(&open_keys.lock);
    return count;
}
