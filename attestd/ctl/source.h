/* Where a boot is taken from, for policies: a folder of evidence (what attestd keeps of an
 * issuance, or attestctl quote wrote), a firmware log with PCR values beside it, or this host's
 * attestd. The quote's signature is for attestctl verify: here its values are taken at their word.
 */
#ifndef ATTESTD_CTL_SOURCE_H
#define ATTESTD_CTL_SOURCE_H

#include "attestd/ctl/ctl.h"
#include "provision/evidence/logs.h"
#include "provision/verify/policy.h"

struct ctl_source {
    struct evidence_logs logs;
    uint32_t bits; /* VERIFY_LOG_* of logs */
    struct parse_pcr_set pcrs;
    bool replayed; /* nobody gave values: those that the logs themselves lead to */
};
void ctl_source_done(struct ctl_source *source);

/* path: a folder or a firmware log. values (may be NULL): a file {"sha256": {"0": hex, …}} of a
 * log. selection (may be NULL): PCRs to keep of them; without values those to replay. */
ATT_MUST_USE enum att_rc ctl_source_read(const char *path, const char *values,
                                         const char *selection, struct ctl_source *ret,
                                         struct att_err *err);
/* From the answer to attestd's quote. */
ATT_MUST_USE enum att_rc ctl_source_from_quote(const json_t *files, struct ctl_source *ret,
                                               struct att_err *err);

/* allowlist.c: "/tmp/,/run/" cut at its commas in place; NULL: none. ret ends in NULL. */
#define CTL_EXCLUDES_MAX 64
ATT_MUST_USE enum att_rc ctl_excludes(char *text, const char *ret[CTL_EXCLUDES_MAX + 1],
                                      struct att_err *err);
/* A list's file. */
ATT_MUST_USE enum att_rc ctl_allowlist_load(const char *path, struct verify_imalist **ret,
                                            struct att_err *err);
/* Binds the allow lists that a policy names: those of its own folder, DIR/NAME.imalist. Those that
 * are not there stay unbound. */
ATT_MUST_USE enum att_rc ctl_allowlists_beside(const char *policy_path,
                                               struct verify_policy *policy, struct att_err *err);

/* policy_command.c: a policy's file, signed or not; its text where it is asked for. Allow lists
 * that lie beside it are bound. */
ATT_MUST_USE enum att_rc ctl_policy_load(const char *path, struct verify_policy **ret,
                                         struct att_buf *ret_text, struct att_err *err);
/* --policy-signer HEX; none: 0. */
ATT_MUST_USE enum att_rc ctl_signer_arg(const char *hex, uint8_t ret[1][ATT_SHA256_LEN],
                                        size_t *ret_n, struct att_err *err);

#endif
