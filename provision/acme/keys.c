#include "provision/acme/keys.h"

#include "provision/acme/jwk.h"

#include <openssl/evp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define JWK_MAX ((size_t)8192)

struct slot {
    char *jwk;
    EVP_PKEY *key;
};

struct acme_keys {
    pthread_mutex_t lock;
    struct slot slots[ACME_KEYS_MAX];
};

struct acme_keys *acme_keys_new(void)
{
    struct acme_keys *keys = calloc(1, sizeof *keys);
    if (keys) {
        pthread_mutex_init(&keys->lock, NULL);
    }
    return keys;
}

static void empty(struct slot *slot)
{
    free(slot->jwk);
    EVP_PKEY_free(slot->key);
    *slot = (struct slot){0};
}

void acme_keys_free(struct acme_keys *keys)
{
    if (!keys) {
        return;
    }
    for (size_t i = 0; i < ACME_KEYS_MAX; i++) {
        empty(&keys->slots[i]);
    }
    pthread_mutex_destroy(&keys->lock);
    free(keys);
}

/* FNV-1a: where a text belongs. Whoever finds texts of one place has them replace each other. */
static struct slot *slot_of(struct acme_keys *keys, const char *jwk)
{
    uint64_t hash = 0xcbf29ce484222325;
    for (const char *c = jwk; *c; c++) {
        hash = (hash ^ (uint8_t)*c) * 0x100000001b3;
    }
    return &keys->slots[(hash ^ hash >> 32) % ACME_KEYS_MAX];
}

static EVP_PKEY *look_up(struct acme_keys *keys, const char *jwk)
{
    EVP_PKEY *key = NULL;
    pthread_mutex_lock(&keys->lock);
    const struct slot *slot = slot_of(keys, jwk);
    if (slot->jwk && strcmp(slot->jwk, jwk) == 0 && EVP_PKEY_up_ref(slot->key) == 1) {
        key = slot->key;
    }
    pthread_mutex_unlock(&keys->lock);
    return key;
}

/* Without memory it is simply not kept. */
static void keep(struct acme_keys *keys, const char *jwk, EVP_PKEY *key)
{
    struct slot fresh = {.jwk = strdup(jwk)};
    if (fresh.jwk && EVP_PKEY_up_ref(key) == 1) {
        fresh.key = key;
        pthread_mutex_lock(&keys->lock);
        struct slot *slot = slot_of(keys, jwk), old = *slot;
        *slot = fresh;
        fresh = old;
        pthread_mutex_unlock(&keys->lock);
    }
    empty(&fresh);
}

enum att_rc acme_keys_get(struct acme_keys *keys, const char *jwk, EVP_PKEY **ret_key,
                          struct att_err *err)
{
    EVP_PKEY *key = look_up(keys, jwk);
    if (key) {
        *ret_key = key;
        return ATT_OK;
    }
    att_autojson *json = NULL;
    enum att_rc rc = att_json_parse(att_slice_str(jwk), JWK_MAX, &json, err);
    if (rc == ATT_OK) {
        rc = acme_jwk_pkey(json, &key, err);
    }
    if (rc == ATT_OK) {
        keep(keys, jwk, key);
        *ret_key = key;
    }
    return rc;
}
