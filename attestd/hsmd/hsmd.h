/* attestd-hsmd: the process in which a vendor's PKCS#11 module runs, with nothing else in it. It
 * serves keyd (attestd/proc/hsm_proto.h) the keys of one token.
 *
 * The PIN is read once, before the sandbox is entered, from the file that the token's URI names
 * (pin-source) or from systemd's credential; from then on the file is out of reach. The module has
 * the PIN, as it must: this process holds nothing that the module could not have. */
#ifndef ATTESTD_HSMD_HSMD_H
#define ATTESTD_HSMD_HSMD_H

#include "attestd/base/secret.h"
#include "attestd/proc/peer.h"
#include "attestd/proc/sandbox.h"
#include "pkcs11/hsm/hsm.h"

#define HSMD_CREDENTIAL "attestd.hsm-pin" /* LoadCredential= */

/* attestd-hsmd's main. Does not return after the module was loaded: leaves by _exit(). */
int hsmd_main(int argc, char **argv);

/* ---- the PIN ---- */

/* From the file, of which one trailing newline is taken off. ATT_E_DENIED pinMode: others than
 * owner and group may read it; ATT_E_PARSE pinForm: empty, more than one line, a NUL, or longer
 * than HSM_PIN_MAX. */
ATT_MUST_USE enum att_rc hsmd_pin_load(const char *path, struct att_secret *ret_pin,
                                       struct att_err *err);

/* A PIN that the token refused is not tried again until the host boots anew, however often this
 * process is started: mark_path (in the run folder) keeps SHA-256(salt ‖ token ‖ PIN) of it. */
struct hsmd_mark {
    const char *path, *label, *serial;
    const struct att_secret *pin;
};
/* ATT_E_AUTH pinRefused: it is this one. */
ATT_MUST_USE enum att_rc hsmd_mark_check(const struct hsmd_mark *mark, struct att_err *err);
ATT_MUST_USE enum att_rc hsmd_mark_set(const struct hsmd_mark *mark, struct att_err *err);

/* ---- the server ---- */

struct hsmd_opts {
    const char *socket_path;
    struct proc_users clients; /* beside root */
    /* Called from several threads; may be NULL. */
    void (*on_event)(void *user, const char *event, const struct att_err *err);
    void *user;
};
struct hsmd;
/* Binds. The sandbox is entered next, then the module is loaded. */
ATT_MUST_USE enum att_rc hsmd_new(const struct hsmd_opts *opts, struct hsmd **ret_hsmd,
                                  struct att_err *err);
void hsmd_set_sandbox(struct hsmd *hsmd, const struct proc_sandbox_report *report);
/* Serves; hsm is kept by reference. */
ATT_MUST_USE enum att_rc hsmd_start(struct hsmd *hsmd, struct hsm *hsm, struct att_err *err);
/* Looks after the token; tells changes (events "tokenReady", "tokenAway", "failed", and of what the
 * token says of its PIN "pinWarning", "pinOk"). */
void hsmd_poll(struct hsmd *hsmd);
/* Has a call into the module lasted for longer than this? Nothing but another process helps then.
 * Never blocks. */
#define HSMD_STUCK_MS 60000
bool hsmd_stuck(const struct hsmd *hsmd);
void hsmd_status(struct hsmd *hsmd, char *ret, size_t room);
/* Nobody is served any more; the module's threads may still be there. */
void hsmd_free(struct hsmd *hsmd);

#endif
