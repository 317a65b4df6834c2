/* keyd's side of attestd-hsmd: requests, a thread that looks after it, and the waste: keys of the
 * token that nobody was told of or that were destroyed, until they are gone from it. */
#ifndef ATTESTD_KEYD_HSMLINK_H
#define ATTESTD_KEYD_HSMLINK_H

#include "attestd/keyd/internal.h"
#include "attestd/proc/caller.h"
#include "attestd/proc/hsm_proto.h"

/* As proc_call; what is an operator's to mend there is ATT_E_UNREACHABLE here, with its reason.
 * ATT_E_RETRY tokenBusy: too many ask, or the module has not come back from any call for
 * KEYD_HSM_SILENT_MS. ATT_E_UNSUPPORTED keyStore: this host has none. ret_asked (may be NULL):
 * false when hsmd cannot have heard of it. */
ATT_MUST_USE enum att_rc keyd_hsm_ask(struct keyd *keyd, enum proc_hsm_op op,
                                      const struct proc_value *values,
                                      struct proc_answer *ret_answer, bool *ret_asked,
                                      struct att_err *err);
#define KEYD_HSM_SILENT_MS 8000 /* above the period in which hsmd looks at its token */

enum keyd_waste {
    KEYD_WASTE_KEY, /* it was made and told of, or destroyed: absent is absent */
    /* Nobody was told whether it was made. What the HSM still does with the request of a process
     * that ended may come after the first look: there is a second one. */
    KEYD_WASTE_RIDDLE,
};
/* Destroys it in the token, as soon as that can be, then removes agents/<id>.hsm. */
void keyd_hsm_throw_away(struct keyd *keyd, const char *id,
                         const uint8_t cka_id[PROC_HSM_KEY_ID_LEN], enum keyd_waste kind);
/* ATT_E_RETRY hsmWaste: so many wait to be destroyed that no more are made. */
ATT_MUST_USE enum att_rc keyd_hsm_check_waste(struct keyd *keyd, struct att_err *err);

/* dir/agents/<id>.hsm */
ATT_MUST_USE enum att_rc keyd_hsm_path(const struct keyd *keyd, const char *id,
                                       char ret[KEYD_PATH_MAX], struct att_err *err);
/* For INFO: what hsmd said last. Does not block. */
void keyd_hsm_describe(const struct keyd *keyd, json_t *object);

#endif
