/* The log's Ed25519 key: state_dir/ca/log.key (PKCS#8 PEM, mode 0600) and log.vkey (the verifier to
 * hand out). Through a rotation the key before signs, too: log.before.key, log.before.vkey. */
#ifndef PROVISION_AUDIT_KEY_H
#define PROVISION_AUDIT_KEY_H

#include "provision/audit/note.h"

struct audit_key {
    EVP_PKEY *key; /* NULL: there is none */
    struct audit_vkey vkey;
};
void audit_key_done(struct audit_key *key);

/* name: "log" or "log.before". ATT_E_NOTFOUND; ATT_E_DENIED when others may read the key;
 * ATT_E_CONFLICT when the two files do not belong together. */
ATT_MUST_USE enum att_rc audit_key_load(const char *state_dir, const char *name,
                                        struct audit_key *ret_key, struct att_err *err);
/* In memory; nothing is written. */
ATT_MUST_USE enum att_rc audit_key_new(const char *origin, struct audit_key *ret_key,
                                       struct att_err *err);
/* Writes log.vkey, then log.key: where the key is, the verifier is, too. */
ATT_MUST_USE enum att_rc audit_key_save(const char *state_dir, const struct audit_key *key,
                                        struct att_err *err);

#endif
