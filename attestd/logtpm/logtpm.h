/* attest-issuerd-tpm: the one process of an issuer that opens the TPM. It signs checkpoints of the
 * audit log by a key that never leaves the TPM, each after one that it continues, and counts them
 * by an NV counter (attestd/proc/logtpm_proto.h). */
#ifndef ATTESTD_LOGTPM_LOGTPM_H
#define ATTESTD_LOGTPM_LOGTPM_H

#include "attestd/logtpm/record.h"
#include "attestd/proc/peer.h"
#include "attestd/proc/sandbox.h"

#define LOGTPM_CREDENTIAL "attest-issuerd-tpm.owner" /* of systemd: the TPM's owner password */

/* attest-issuerd-tpm's main. Returns the exit status. */
int logtpm_main(int argc, char **argv);

struct logtpm;
struct logtpm_opts {
    const char *tcti, *dir; /* dir: state_dir, made if absent, mode 0700 */
    const char *socket_path;
    const char *owner_file; /* the TPM's owner password; NULL: none is given */
    uint32_t counter;       /* NV index */
    int64_t counter_interval_s;
    struct proc_users clients; /* beside root */
};
/* Takes the folder's lock and binds (socket_path NULL: does not); opens no TPM yet. */
ATT_MUST_USE enum att_rc logtpm_new(const struct logtpm_opts *opts, struct logtpm **ret_logtpm,
                                    struct att_err *err);
ATT_MUST_USE enum att_rc logtpm_start(struct logtpm *logtpm, struct att_err *err);
/* Brings the TPM up where that is not done; logs what changes. Any thread. */
void logtpm_poll(struct logtpm *logtpm);
bool logtpm_ready(struct logtpm *logtpm);
void logtpm_status(struct logtpm *logtpm, char *ret, size_t room);
void logtpm_free(struct logtpm *logtpm);

/* An operator's acts, while no other process has the folder. ret_said: a sentence. */
ATT_MUST_USE enum att_rc logtpm_new_log(struct logtpm *logtpm, const char *reason, char *ret_said,
                                        size_t room, struct att_err *err);
ATT_MUST_USE enum att_rc logtpm_new_counter(struct logtpm *logtpm, const char *reason,
                                            char *ret_said, size_t room, struct att_err *err);

#endif
