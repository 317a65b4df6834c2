/* Which stores there are, and what they share. */
#include "attestd/keyd/internal.h"

#include <string.h>

static const struct keyd_store *const stores[] = {&keyd_store_tpm, &keyd_store_hsm,
                                                  &keyd_store_memory, NULL};

const struct keyd_store *keyd_store_at(size_t i)
{
    return stores[i];
}

const struct keyd_store *keyd_store_by_name(struct att_slice name)
{
    for (size_t i = 0; stores[i]; i++) {
        if (att_slice_eq_str(name, stores[i]->name)) {
            return stores[i];
        }
    }
    return NULL;
}

const char *keyd_key_type_name(enum keyd_key_type type)
{
    return type == KEYD_TYPE_P256 ? "ec-p256" : "none";
}

void keyd_proof_done(struct keyd_proof *proof)
{
    if (proof) {
        att_buf_done(&proof->statement);
        att_buf_done(&proof->sig);
        att_buf_done(&proof->pub_area);
        att_buf_done(&proof->srk_pub);
        att_buf_done(&proof->parent_pub);
        *proof = (struct keyd_proof){0};
    }
}

void keyd_digest_fit(struct att_slice digest, uint8_t ret[ATT_SHA256_LEN])
{
    size_t len = digest.len < ATT_SHA256_LEN ? digest.len : ATT_SHA256_LEN;
    memset(ret, 0, ATT_SHA256_LEN);
    if (len) {
        memcpy(ret + ATT_SHA256_LEN - len, digest.ptr, len);
    }
}

enum att_rc keyd_key_sign(struct keyd *keyd, const struct keyd_key *key, enum tpm_prio prio,
                          struct att_slice digest, struct keyd_sig *ret_sig, struct att_err *err)
{
    uint8_t fitted[ATT_SHA256_LEN];
    if (key->type != KEYD_TYPE_P256) {
        enum att_rc rc = att_fail(err, ATT_E_UNSUPPORTED, "key %s is of type %s, expected ec-p256",
                                  key->id, keyd_key_type_name(key->type));
        att_err_reason(err, "keyType");
        return rc;
    }
    keyd_digest_fit(digest, fitted);
    *ret_sig = (struct keyd_sig){0};
    return key->store->sign(keyd, key, prio, KEYD_ECDSA, ATT_SLICE_ARRAY(fitted), ret_sig, err);
}
