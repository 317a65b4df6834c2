#include "provision/acme/nonce.h"

#include "attestd/base/buf.h"
#include "attestd/base/enc.h"
#include "attestd/base/hash.h"
#include "attestd/base/secret.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define HEAD_LEN  20 /* issuer id, boot epoch, counter */
#define MAC_LEN   16
#define NONCE_LEN (HEAD_LEN + MAC_LEN)

/* Counter c lives in bit c % window. A bit is set while its nonce can be spent; issuing number c
 * overwrites the bit of c - window, which thereby falls out. Numbers start at 1. */
struct acme_nonces {
    pthread_mutex_t lock;
    uint32_t issuer_id;
    uint64_t boot_epoch;
    uint64_t issued; /* the highest counter given out */
    size_t window;
    uint64_t *live;
    uint8_t key[ATT_SHA256_LEN];
};

enum att_rc acme_nonces_new(uint32_t issuer_id, uint64_t boot_epoch, size_t window,
                            struct acme_nonces **ret_nonces, struct att_err *err)
{
    if (window == 0 || window > ACME_NONCE_WINDOW_MAX) {
        return att_fail(err, ATT_E_INVAL, "nonce window of %zu: expected 1 … %zu", window,
                        ACME_NONCE_WINDOW_MAX);
    }
    struct acme_nonces *nonces = calloc(1, sizeof *nonces);
    if (!nonces) {
        return att_fail(err, ATT_E_NOMEM, "nonces: no memory");
    }
    nonces->issuer_id = issuer_id;
    nonces->boot_epoch = boot_epoch;
    nonces->window = (window + 63) / 64 * 64;
    nonces->live = calloc(nonces->window / 64, sizeof *nonces->live);
    pthread_mutex_init(&nonces->lock, NULL);
    enum att_rc rc = nonces->live ? att_random(nonces->key, sizeof nonces->key, err)
                                  : att_fail(err, ATT_E_NOMEM, "nonces: no memory");
    if (rc != ATT_OK) {
        acme_nonces_free(nonces);
        return rc;
    }
    *ret_nonces = nonces;
    return ATT_OK;
}

void acme_nonces_free(struct acme_nonces *nonces)
{
    if (nonces) {
        pthread_mutex_destroy(&nonces->lock);
        att_wipe(nonces->key, sizeof nonces->key);
        free(nonces->live);
        free(nonces);
    }
}

static void seal(const struct acme_nonces *nonces, const uint8_t head[HEAD_LEN],
                 uint8_t ret_mac[MAC_LEN])
{
    uint8_t mac[ATT_SHA256_LEN];
    const struct att_slice part = ATT_SLICE(head, HEAD_LEN);
    att_hmac_sha256_v(mac, ATT_SLICE_ARRAY(nonces->key), &part, 1);
    memcpy(ret_mac, mac, MAC_LEN);
}

static void put_be(uint8_t *at, uint64_t v, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        at[i] = (uint8_t)(v >> (8 * (len - 1 - i)));
    }
}

void acme_nonces_issue(struct acme_nonces *nonces, char ret[ACME_NONCE_TEXT])
{
    pthread_mutex_lock(&nonces->lock);
    uint64_t counter = ++nonces->issued;
    size_t bit = (size_t)(counter % nonces->window);
    nonces->live[bit / 64] |= (uint64_t)1 << bit % 64;
    pthread_mutex_unlock(&nonces->lock);

    uint8_t raw[NONCE_LEN];
    put_be(raw, nonces->issuer_id, 4);
    put_be(raw + 4, nonces->boot_epoch, 8);
    put_be(raw + 12, counter, 8);
    seal(nonces, raw, raw + HEAD_LEN);
    att_autobuf text = {0};
    att_buf_b64u(&text, ATT_SLICE_ARRAY(raw));
    /* Without memory the nonce is empty, and its use is refused like any bad one. */
    size_t len = text.failed || text.len >= ACME_NONCE_TEXT ? 0 : text.len;
    if (len) {
        memcpy(ret, text.ptr, len);
    }
    ret[len] = 0;
}

static enum att_rc bad_nonce(struct att_err *err, enum att_rc code, const char *why)
{
    enum att_rc rc = att_fail(err, code, "nonce: %s", why);
    att_err_reason(err, "badNonce");
    return rc;
}

static enum att_rc spend_counter(struct acme_nonces *nonces, uint64_t counter, struct att_err *err)
{
    size_t bit = (size_t)(counter % nonces->window);
    uint64_t mask = (uint64_t)1 << bit % 64;
    pthread_mutex_lock(&nonces->lock);
    bool known = counter && counter <= nonces->issued;
    bool in_window = known && nonces->issued - counter < nonces->window;
    bool live = in_window && (nonces->live[bit / 64] & mask);
    if (live) {
        nonces->live[bit / 64] &= ~mask;
    }
    pthread_mutex_unlock(&nonces->lock);
    if (live) {
        return ATT_OK;
    }
    return bad_nonce(err, ATT_E_CONFLICT, in_window ? "spent already" : "too old");
}

enum att_rc acme_nonces_spend(struct acme_nonces *nonces, const char *text, struct att_err *err)
{
    att_autobuf raw = {0};
    if (!text || strlen(text) >= ACME_NONCE_TEXT ||
        att_unb64u(&raw, att_slice_str(text), NULL) != ATT_OK || raw.len != NONCE_LEN) {
        return bad_nonce(err, ATT_E_PARSE, "not one of ours");
    }
    uint8_t mac[MAC_LEN];
    seal(nonces, raw.ptr, mac);
    if (!att_slice_eq_secret(ATT_SLICE_ARRAY(mac), ATT_SLICE(raw.ptr + HEAD_LEN, MAC_LEN))) {
        return bad_nonce(err, ATT_E_AUTH, "not issued by this process");
    }
    struct att_cur cur = att_cur_init(att_buf_slice(&raw));
    bool ours = att_cur_be32(&cur) == nonces->issuer_id;
    ours = att_cur_be64(&cur) == nonces->boot_epoch && ours;
    if (!ours) {
        return bad_nonce(err, ATT_E_AUTH, "not issued by this process");
    }
    return spend_counter(nonces, att_cur_be64(&cur), err);
}
