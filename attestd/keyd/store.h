/* Where agents' keys are held: one table of functions per store. keys.c keeps the registry, the
 * files of a key's state and the answers; it, sign.c and prove.c know of a key's store nothing but
 * this table.
 *
 * Threads: all functions are called from several at once, without keyd's locks, but for keep,
 * keep_state and drop, which are called with keyd->files held. Each may block; none may call back
 * into the operations. */
#ifndef ATTESTD_KEYD_STORE_H
#define ATTESTD_KEYD_STORE_H

#include "attestd/base/buf.h"
#include "attestd/base/hash.h"
#include "attestd/base/json.h"
#include "attestd/base/keytype.h"
#include "attestd/base/secret.h"
#include "tpm/queue.h"

struct keyd;
struct keyd_key;

enum keyd_mechanism {
    KEYD_ECDSA = 1, /* of a digest; keyd_digest_fit has made it 32 bytes for P-256 */
    /* Of a digest of 32, 48 or 64 bytes (SHA-256, SHA-384, SHA-512): att_rsa_scheme. */
    KEYD_RSA_PKCS1,
    KEYD_RSA_PSS,
};

/* ECDSA: r ‖ s, each as long as the curve's order (PKCS#11 2.40 §2.3.1). Room for RSA-4096. */
#define KEYD_SIG_MAX 512
struct keyd_sig {
    uint8_t bytes[KEYD_SIG_MAX];
    size_t len;
};

/* What a store states of a key in M4, beside the quote (docs/PROTOCOL.md). The digest of statement
 * enters the quote; a store that can state nothing leaves it empty. Owns its buffers. */
struct keyd_proof {
    struct att_buf statement; /* tpm: certInfo (TPMS_ATTEST); hsm: attributes (CBOR) */
    struct att_buf sig;       /* tpm: TPMT_SIGNATURE over it; hsm: r ‖ s by the key */
    struct att_buf pub_area;  /* tpm only: TPMT_PUBLIC, as srk_pub and parent_pub */
    struct att_buf srk_pub;
    struct att_buf parent_pub; /* empty: the SRK is the parent */
};
void keyd_proof_done(struct keyd_proof *proof);
#define keyd_autoproof ATT_CLEANUP(keyd_proof_done) struct keyd_proof

struct keyd_store {
    const char *name; /* "tpm", "hsm", "memory", "exportable": as in entries, certificates */
    size_t keys_max;  /* at once, of all agents, in each module */
    bool rsa;         /* keys of RSA, too; else P-256 only */

    /* Which of the store's modules a new key goes to: by name, or, where that is empty, the host's
     * default; into key->module. ATT_E_UNSUPPORTED hsmModule: no such one here. NULL: the store has
     * no modules. */
    enum att_rc (*choose)(struct keyd *keyd, struct att_slice name, struct keyd_key *key,
                          struct att_err *err);
    /* Is the key where choose would put one without a name? NULL with choose. Must not block. */
    bool (*usual)(const struct keyd *keyd, const struct keyd_key *key);
    /* ATT_OK when this key, which may be yet to be made, can be made and used now; else what to
     * answer. */
    enum att_rc (*ready)(struct keyd *keyd, const struct keyd_key *key, struct att_err *err);

    /* A new key. id, agent and type of *key are set; fills held, spki and, where the key has one,
     * name. On failure nothing is left, neither in *key nor in the store. */
    enum att_rc (*create)(struct keyd *keyd, struct keyd_key *key, struct att_err *err);
    /* What must be on disk before anybody is told of the new key; a later start finds it there
     * (state.c). On failure nothing is left there. NULL: nothing is ever written, the key ends with
     * this process. */
    enum att_rc (*keep)(struct keyd *keyd, const struct keyd_key *key, struct att_err *err);
    /* state and active_seq changed. NULL with keep. */
    enum att_rc (*keep_state)(struct keyd *keyd, const struct keyd_key *key, struct att_err *err);
    /* A later start must not find the key. NULL with keep. */
    enum att_rc (*drop)(struct keyd *keyd, const struct keyd_key *key, struct att_err *err);
    /* Nobody will ask for the key again: what is loaded or kept elsewhere goes, at once or as soon
     * as that can be. It was dropped, or never kept, or keeping or dropping it failed. Others may
     * still be in sign with their own hold. */
    void (*destroy)(struct keyd *keyd, const struct keyd_key *key);

    /* ATT_E_DENIED frozen is asked for again at the last moment before the key is used.
     * ATT_E_UNSUPPORTED: not a mechanism of this key. */
    enum att_rc (*sign)(struct keyd *keyd, const struct keyd_key *key, enum tpm_prio prio,
                        enum keyd_mechanism mechanism, struct att_slice digest,
                        struct keyd_sig *ret_sig, struct att_err *err);
    /* key_authorization: checked by the caller to be our account's. */
    enum att_rc (*prove)(struct keyd *keyd, const struct keyd_key *key,
                         struct att_slice key_authorization, struct keyd_proof *ret_proof,
                         struct att_err *err);
    /* The private key, as PKCS#8 DER (RFC 5958 §2), for its agent. The key is of this store from
     * its first moment to its last, so that one made elsewhere never leaves. ATT_E_DENIED frozen,
     * as for sign. NULL: no key of this store is ever shown. */
    enum att_rc (*export_key)(struct keyd *keyd, const struct keyd_key *key,
                              struct att_secret *ret_pkcs8, struct att_err *err);
    /* The key's agent is frozen: what is kept ready of the key for its next use (held) goes, until
     * it is used again. NULL: nothing is. Called with keyd->lock held: must not block. */
    void (*rest)(void *held);
    /* Adds members to the store's object in INFO ("stores"), which has name, keys, keysMax. NULL:
     * nothing to add. Called with keyd->lock held: must not block. */
    void (*describe)(const struct keyd *keyd, json_t *object);

    /* keyd_key.held: shared by the copies of a key. hold returns held with one reference more;
     * release gives one back, the last one wipes and frees. Neither is called with NULL. */
    void *(*hold)(void *held);
    void (*release)(void *held);
};

extern const struct keyd_store keyd_store_tpm, keyd_store_hsm, keyd_store_memory;
extern const struct keyd_store keyd_store_exportable;

/* NULL for a name that is none here. */
const struct keyd_store *keyd_store_by_name(struct att_slice name);
/* In the order of INFO; NULL after the last. */
const struct keyd_store *keyd_store_at(size_t i);

/* ECDSA takes the leftmost 256 bits of a longer digest, and a shorter one as the number that it is
 * (FIPS 186-5 §6.4.1, SEC 1 §4.1.3). */
void keyd_digest_fit(struct att_slice digest, uint8_t ret[ATT_SHA256_LEN]);

/* ---- what stores share ---------------------------------------------------------------------- */

/* Checks that the mechanism is one of the key's type and the digest one of its lengths
 * (ATT_E_UNSUPPORTED keyType, ATT_E_INVAL), then signs by the key's store. digest: 20 to 64 bytes.
 */
ATT_MUST_USE enum att_rc keyd_key_sign(struct keyd *keyd, const struct keyd_key *key,
                                       enum tpm_prio prio, enum keyd_mechanism mechanism,
                                       struct att_slice digest, struct keyd_sig *ret_sig,
                                       struct att_err *err);

#endif
