/* Which stores there are, and what they share. */
#include "attestd/keyd/internal.h"

#include <string.h>

static const struct keyd_store *const stores[] = {&keyd_store_tpm, &keyd_store_hsm,
                                                  &keyd_store_memory, &keyd_store_exportable, NULL};

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

static enum att_rc check_mechanism(const struct keyd_key *key, enum keyd_mechanism mechanism,
                                   struct att_slice digest, struct att_err *err)
{
    bool rsa = mechanism == KEYD_RSA_PKCS1 || mechanism == KEYD_RSA_PSS;
    if ((!rsa && mechanism != KEYD_ECDSA) || rsa != att_keytype_is_rsa(key->type)) {
        (void)!att_fail(err, ATT_E_UNSUPPORTED, "key %s is of type %s: no %s signature", key->id,
                        att_keytype_name(key->type), rsa ? "RSA" : "ECDSA");
        att_err_reason(err, "keyType");
        return ATT_E_UNSUPPORTED;
    }
    if (rsa && digest.len != 32 && digest.len != 48 && digest.len != 64) {
        return att_fail(err, ATT_E_INVAL, "digest: %zu bytes, expected 32, 48 or 64 for RSA",
                        digest.len);
    }
    return ATT_OK;
}

enum att_rc keyd_key_sign(struct keyd *keyd, const struct keyd_key *key, enum tpm_prio prio,
                          enum keyd_mechanism mechanism, struct att_slice digest,
                          struct keyd_sig *ret_sig, struct att_err *err)
{
    uint8_t fitted[ATT_SHA256_LEN];
    enum att_rc rc = check_mechanism(key, mechanism, digest, err);
    if (rc != ATT_OK) {
        return rc;
    }
    if (mechanism == KEYD_ECDSA) {
        keyd_digest_fit(digest, fitted);
        digest = ATT_SLICE_ARRAY(fitted);
    }
    *ret_sig = (struct keyd_sig){0};
    return key->store->sign(keyd, key, prio, mechanism, digest, ret_sig, err);
}
