/* Shares of the admin API's workers. */
#include "provision/issuer/shares.h"

#include "attestd/base/enc.h"

#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

void issuer_share_key(const char *address, char ret[ISSUER_SHARE_KEY])
{
    uint8_t bytes[16];
    const char *text = address ? address : "";
    if (inet_pton(AF_INET6, text, bytes) != 1 ||
        memcmp(bytes, "\0\0\0\0\0\0\0\0\0\0\xff\xff", 12) == 0) {
        const char *v4 = strrchr(text, ':');
        snprintf(ret, ISSUER_SHARE_KEY, "%s", v4 ? v4 + 1 : text);
        return;
    }
    att_hex(ret, ATT_SLICE(bytes, 8));
}

static struct issuer_share *find(struct issuer_shares *shares, const char *key)
{
    struct issuer_share *spare = NULL;
    for (size_t i = 0; i < ISSUER_SHARES_MAX; i++) {
        struct issuer_share *s = &shares->v[i];
        if (!s->running && !s->waiting) {
            spare = spare ? spare : s;
        } else if (strcmp(s->key, key) == 0) {
            return s;
        }
    }
    if (spare) {
        snprintf(spare->key, sizeof spare->key, "%s", key);
    }
    return spare;
}

bool issuer_share_wait(struct issuer_shares *shares, const char *key)
{
    struct issuer_share *s = find(shares, key);
    if (!s || s->waiting >= ISSUER_SHARE_WAITING) {
        return false;
    }
    s->waiting++;
    return true;
}

bool issuer_share_start(struct issuer_shares *shares, const char *key)
{
    struct issuer_share *s = find(shares, key);
    if (!s || !s->waiting || s->running >= ISSUER_SHARE_RUNNING) {
        return false;
    }
    s->waiting--;
    s->running++;
    return true;
}

void issuer_share_end(struct issuer_shares *shares, const char *key)
{
    struct issuer_share *s = find(shares, key);
    if (s && s->running) {
        s->running--;
    }
}

void issuer_share_drop(struct issuer_shares *shares, const char *key)
{
    struct issuer_share *s = find(shares, key);
    if (s && s->waiting) {
        s->waiting--;
    }
}
