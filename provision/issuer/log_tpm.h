/* attest-issuerd-tpm, where issuer.yaml has log_tpm: the audit log's second signer. */
#ifndef PROVISION_ISSUER_LOG_TPM_H
#define PROVISION_ISSUER_LOG_TPM_H

#include "attestd/base/err.h"

struct conf_issuer;
struct issuer;
struct issuer_log_tpm;

/* Right after the log is open: from now on it is published with the TPM's signature. Nothing where
 * the configuration has no log_tpm. Waits a while for a TPM that comes later (then reason
 * "logTpmAway"); refusals as of audit_log_cosign, and as attest-issuerd-tpm says them. */
ATT_MUST_USE enum att_rc issuer_log_tpm_start(struct issuer *issuer, struct att_err *err);
/* For --check: whether the process answers, and its key, log and counter are those that state_dir
 * knows. Changes nothing, waits for nobody; nothing where the configuration has no log_tpm.
 * Reasons: "logTpmAway" (no socket, nobody there, no TPM yet), those of audit_cosign_check, and
 * what the process says. */
ATT_MUST_USE enum att_rc issuer_log_tpm_check(const struct conf_issuer *conf, struct att_err *err);
/* Records a key that is new here, and what an operator told the other process. */
ATT_MUST_USE enum att_rc issuer_log_tpm_say(struct issuer *issuer, struct att_err *err);
void issuer_log_tpm_free(struct issuer_log_tpm *tpm);

#endif
