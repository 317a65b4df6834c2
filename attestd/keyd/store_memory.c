/* The store "memory": keys for agents that open thousands of connections. A key is a scalar in
 * locked memory of its own (memfd_secret where the kernel has it, else mlock, not dumped, not
 * inherited), never written, wiped when it is destroyed and when keyd ends. It does not outlive
 * keyd, and no TPM speaks for it: the AK's quote carries its digest, and the issuer gives it
 * minutes.
 *
 * The store "exportable" is the same with one function more: what its keys' agents may be given.
 * Which store a key is of is said once, when it is made. */
#include "attestd/base/p256.h"
#include "attestd/keyd/internal.h"
#include "attestd/keyd/openkey.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Each takes a page of locked memory. Two for each of 500 agents, and a few that wait. */
#define KEYS_MAX 1024

struct held {
    atomic_uint refs;
    struct att_secret scalar;
    uint8_t point[KEYD_POINT_LEN];
    struct keyd_openkey open;
};

static void *hold(void *user)
{
    struct held *held = user;
    atomic_fetch_add(&held->refs, 1);
    return held;
}

static void release(void *user)
{
    struct held *held = user;
    if (atomic_fetch_sub(&held->refs, 1) == 1) {
        keyd_openkey_close(&held->open);
        att_secret_done(&held->scalar);
        free(held);
    }
}

/* Also while the TPM is away: what is asked of it is the quote's to say. */
static enum att_rc ready(struct keyd *keyd, const struct keyd_key *key, struct att_err *err)
{
    (void)key;
    (void)keyd;
    (void)err;
    return ATT_OK;
}

static enum att_rc check_locked(const struct att_secret *scalar, struct att_err *err)
{
    if (scalar->locked) {
        return ATT_OK;
    }
    enum att_rc rc =
        att_fail(err, ATT_E_LIMIT,
                 "no more memory can be locked (LimitMEMLOCK): keys in memory are made in no "
                 "other");
    att_err_reason(err, "memoryLock");
    return rc;
}

static enum att_rc fill(struct held *held, struct keyd_key *key, struct att_err *err)
{
    EVP_PKEY *pkey = NULL;
    struct att_buf spki = ATT_BUF_INIT(ATT_P256_SPKI_LEN);
    size_t len = 0;
    enum att_rc rc = keyd_softkey_make(&held->scalar, err);
    if (rc == ATT_OK) {
        rc = check_locked(&held->scalar, err);
    }
    if (rc == ATT_OK) {
        rc = keyd_softkey_open(&held->scalar, NULL, &pkey, err);
    }
    if (rc == ATT_OK && (EVP_PKEY_get_octet_string_param(pkey, "encoded-pub-key", held->point,
                                                         KEYD_POINT_LEN, &len) != 1 ||
                         len != KEYD_POINT_LEN)) {
        rc = att_fail_openssl(err, ATT_E_CRYPTO, "a key's public point");
    }
    EVP_PKEY_free(pkey);
    if (rc == ATT_OK) {
        uint8_t bytes[ATT_P256_SPKI_LEN];
        att_p256_spki(bytes, held->point + 1);
        att_buf_put(&spki, bytes, sizeof bytes);
        rc = att_buf_ok(&spki, err);
    }
    if (rc != ATT_OK) {
        att_buf_done(&spki);
        return rc;
    }
    key->spki = spki;
    key->type = ATT_KEYTYPE_P256;
    return ATT_OK;
}

static enum att_rc create(struct keyd *keyd, struct keyd_key *key, struct att_err *err)
{
    (void)keyd;
    struct held *held = calloc(1, sizeof *held);
    if (!held) {
        return att_fail(err, ATT_E_NOMEM, "a key");
    }
    atomic_init(&held->refs, 1);
    enum att_rc rc = fill(held, key, err);
    if (rc != ATT_OK) {
        release(held);
        return rc;
    }
    memset(key->seed_id, 0, sizeof key->seed_id);
    key->held = held;
    return ATT_OK;
}

/* The scalar's page stays: an agent that was frozen may be thawed. */
static void rest(void *user)
{
    struct held *held = user;
    keyd_openkey_close(&held->open);
}

/* The registry's reference is gone already; that of a signature under way goes with it. */
static void destroy(struct keyd *keyd, const struct keyd_key *key)
{
    (void)keyd;
    rest(key->held);
}

static enum att_rc sign(struct keyd *keyd, const struct keyd_key *key, enum tpm_prio prio,
                        enum keyd_mechanism mechanism, struct att_slice digest,
                        struct keyd_sig *ret_sig, struct att_err *err)
{
    (void)prio;      /* no queue */
    (void)mechanism; /* ECDSA: the only one of a P-256 key */
    struct held *held = key->held;
    struct keyd_openuse use = {0};
    struct att_buf raw = ATT_BUF_INIT(KEYD_SIG_MAX);
    enum att_rc rc = keyd_openkey_take(&held->open, &held->scalar, held->point, &use, err);
    if (rc != ATT_OK) {
        return rc;
    }
    rc = keyd_frozen_check(keyd, key->agent, err);
    bool frozen = rc != ATT_OK;
    if (!frozen) {
        rc = keyd_softkey_sign(use.ctx, digest.ptr, &raw, err);
    }
    keyd_openkey_give(&held->open, &use);
    if (frozen) { /* it may have been opened after FREEZE had closed the agent's keys */
        rest(held);
    }
    if (rc == ATT_OK) {
        memcpy(ret_sig->bytes, raw.ptr, raw.len);
        ret_sig->len = raw.len;
    }
    att_buf_done(&raw);
    return rc;
}

static void describe(const struct keyd *keyd, json_t *object)
{
    (void)keyd;
    json_object_set_new(object, "open", json_integer((json_int_t)keyd_openkey_count()));
}

/* Nothing: the quote over the key's digest is all there is. */
static enum att_rc prove(struct keyd *keyd, const struct keyd_key *key,
                         struct att_slice key_authorization, struct keyd_proof *ret_proof,
                         struct att_err *err)
{
    (void)key_authorization;
    *ret_proof = (struct keyd_proof){0};
    return keyd_frozen_check(keyd, key->agent, err);
}

static enum att_rc export_key(struct keyd *keyd, const struct keyd_key *key,
                              struct att_secret *ret_pkcs8, struct att_err *err)
{
    const struct held *held = key->held;
    enum att_rc rc = keyd_frozen_check(keyd, key->agent, err);
    return rc == ATT_OK ? keyd_softkey_pkcs8(&held->scalar, held->point, ret_pkcs8, err) : rc;
}

const struct keyd_store keyd_store_memory = {
    .name = "memory",
    .keys_max = KEYS_MAX,
    .ready = ready,
    .create = create,
    .destroy = destroy,
    .sign = sign,
    .prove = prove,
    .rest = rest,
    .describe = describe,
    .hold = hold,
    .release = release,
};

const struct keyd_store keyd_store_exportable = {
    .name = "exportable",
    .keys_max = KEYS_MAX,
    .ready = ready,
    .create = create,
    .destroy = destroy,
    .sign = sign,
    .prove = prove,
    .export_key = export_key,
    .rest = rest,
    .describe = describe,
    .hold = hold,
    .release = release,
};
