#include "provision/acme/keys.h"

#include "provision/acme/jwk.h"

#include <openssl/evp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define JWK_MAX ((size_t)8192)

struct slot {
    char *text;
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
    free(slot->text);
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
static struct slot *slot_of(struct acme_keys *keys, const char *text)
{
    uint64_t hash = 0xcbf29ce484222325;
    for (const char *c = text; *c; c++) {
        hash = (hash ^ (uint8_t)*c) * 0x100000001b3;
    }
    return &keys->slots[(hash ^ hash >> 32) % ACME_KEYS_MAX];
}

static EVP_PKEY *look_up(struct acme_keys *keys, const char *text)
{
    EVP_PKEY *key = NULL;
    pthread_mutex_lock(&keys->lock);
    const struct slot *slot = slot_of(keys, text);
    if (slot->text && strcmp(slot->text, text) == 0 && EVP_PKEY_up_ref(slot->key) == 1) {
        key = slot->key;
    }
    pthread_mutex_unlock(&keys->lock);
    return key;
}

/* Without memory it is simply not kept. */
static void keep(struct acme_keys *keys, const char *text, EVP_PKEY *key)
{
    struct slot fresh = {.text = strdup(text)};
    if (fresh.text && EVP_PKEY_up_ref(key) == 1) {
        fresh.key = key;
        pthread_mutex_lock(&keys->lock);
        struct slot *slot = slot_of(keys, text), old = *slot;
        *slot = fresh;
        fresh = old;
        pthread_mutex_unlock(&keys->lock);
    }
    empty(&fresh);
}

enum att_rc acme_keys_get_by(struct acme_keys *keys, acme_keys_decode *decode, const char *text,
                             EVP_PKEY **ret_key, struct att_err *err)
{
    EVP_PKEY *key = look_up(keys, text);
    if (key) {
        *ret_key = key;
        return ATT_OK;
    }
    enum att_rc rc = decode(text, &key, err);
    if (rc == ATT_OK) {
        keep(keys, text, key);
        *ret_key = key;
    }
    return rc;
}

static enum att_rc decode_jwk(const char *text, EVP_PKEY **ret_key, struct att_err *err)
{
    att_autojson *json = NULL;
    enum att_rc rc = att_json_parse(att_slice_str(text), JWK_MAX, &json, err);
    return rc ? rc : acme_jwk_pkey(json, ret_key, err);
}

enum att_rc acme_keys_get(struct acme_keys *keys, const char *jwk, EVP_PKEY **ret_key,
                          struct att_err *err)
{
    return acme_keys_get_by(keys, decode_jwk, jwk, ret_key, err);
}
