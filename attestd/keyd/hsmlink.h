/* keyd's side of one attestd-hsmd: requests, a thread that looks after it, and the waste: keys of
 * its token that nobody was told of or that were destroyed, until they are gone from it. A host has
 * as many as modules (hsms.c); they share nothing. */
#ifndef ATTESTD_KEYD_HSMLINK_H
#define ATTESTD_KEYD_HSMLINK_H

#include "attestd/keyd/internal.h"
#include "attestd/proc/caller.h"
#include "attestd/proc/hsm_proto.h"
#include "provision/evidence/statement.h"

/* keyd is kept by reference, for the paths of files. */
ATT_MUST_USE enum att_rc keyd_hsm_new(const struct keyd *keyd, const struct keyd_hsm_opts *opts,
                                      struct keyd_hsm **ret_hsm, struct att_err *err);
void keyd_hsm_free(struct keyd_hsm *hsm);
ATT_MUST_USE enum att_rc keyd_hsm_start(struct keyd_hsm *hsm, struct att_err *err);
const char *keyd_hsm_name(const struct keyd_hsm *hsm);

/* As proc_call; what is an operator's to mend there is ATT_E_UNREACHABLE here, with its reason.
 * ATT_E_RETRY tokenBusy: too many ask, or the module has not come back from any call for
 * KEYD_HSM_SILENT_MS. ret_asked (may be NULL): false when hsmd cannot have heard of it. */
ATT_MUST_USE enum att_rc keyd_hsm_ask(struct keyd_hsm *hsm, enum proc_hsm_op op,
                                      const struct proc_value *values,
                                      struct proc_answer *ret_answer, bool *ret_asked,
                                      struct att_err *err);
/* The token that hsmd serves now. ATT_E_RETRY tokenUnknown: it does not say. */
struct keyd_token {
    char label[KEYD_TOKEN_LABEL_MAX + 1], serial[KEYD_TOKEN_SERIAL_MAX + 1];
};
ATT_MUST_USE enum att_rc keyd_hsm_token(struct keyd_hsm *hsm, struct keyd_token *ret_token,
                                        struct att_err *err);
/* What the module said last of its token; false: nothing yet. Does not block. */
bool keyd_hsm_token_seen(struct keyd_hsm *hsm, struct evidence_hsm_token *ret_token);
#define KEYD_HSM_SILENT_MS 8000 /* above the period in which hsmd looks at its token */

enum keyd_waste {
    KEYD_WASTE_KEY, /* it was made and told of, or destroyed: absent is absent */
    /* Nobody was told whether it was made. What the HSM still does with the request of a process
     * that ended may come after the first look: there is a second one. */
    KEYD_WASTE_RIDDLE,
};
/* Destroys it in the token that its file names, as soon as that can be, then removes the file,
 * agents/<id>.hsm. While the module serves another token (tokenOther) the file stays. Where it
 * names none, the key has to be found first. */
void keyd_hsm_throw_away(struct keyd_hsm *hsm, const char *id,
                         const uint8_t cka_id[PROC_HSM_KEY_ID_LEN], enum keyd_waste kind);
/* ATT_E_RETRY hsmWaste: so many wait to be destroyed that no more are made. */
ATT_MUST_USE enum att_rc keyd_hsm_check_waste(struct keyd_hsm *hsm, struct att_err *err);

/* dir/agents/<id>.hsm */
ATT_MUST_USE enum att_rc keyd_hsm_path(const struct keyd *keyd, const char *id,
                                       char ret[KEYD_PATH_MAX], struct att_err *err);
/* For INFO: what hsmd said last. Does not block. */
void keyd_hsm_describe(struct keyd_hsm *hsm, json_t *object);

/* ---- hsms.c ---- */

/* NULL: this host has none of that name. */
struct keyd_hsm *keyd_hsms_find(const struct keyd *keyd, const char *name);
/* The key's; ATT_E_UNSUPPORTED hsmModule: the configuration does not name it. */
ATT_MUST_USE enum att_rc keyd_hsms_of(const struct keyd *keyd, const struct keyd_key *key,
                                      struct keyd_hsm **ret_hsm, struct att_err *err);
/* A store's functions. */
enum att_rc keyd_hsms_choose(struct keyd *keyd, struct att_slice name, struct keyd_key *key,
                             struct att_err *err);
bool keyd_hsms_usual(const struct keyd *keyd, const struct keyd_key *key);
enum att_rc keyd_hsms_ready(struct keyd *keyd, const struct keyd_key *key, struct att_err *err);
void keyd_hsms_describe(const struct keyd *keyd, json_t *object);

#endif
