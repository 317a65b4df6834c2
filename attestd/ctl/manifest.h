/* attestctl manifest …: the parts. */
#ifndef ATTESTD_CTL_MANIFEST_H
#define ATTESTD_CTL_MANIFEST_H

#include "attestd/ctl/ctl.h"
#include "provision/manifest/check.h"

/* What create did, for people. */
struct ctl_manifest_made {
    size_t enabled; /* files on which fs-verity is, now or before */
    size_t without; /* files whose file system has it not, or that we may not enable it on */
    char why[200];  /* of the first of those */
};

/* words: "ROLE=PATH" or "PATH" each; a folder is taken with all that is in it. verity: enable it.
 */
ATT_MUST_USE enum att_rc ctl_manifest_make(const json_t *words, bool verity,
                                           struct manifest *ret_manifest,
                                           struct ctl_manifest_made *ret_made, struct att_err *err);
/* Looks at this machine's own files. */
ATT_MUST_USE enum att_rc ctl_manifest_look(const struct manifest *manifest,
                                           struct manifest_report *ret_report, struct att_err *err);

/* What the options --bundle… name agrees with the manifest, or there are none. */
ATT_MUST_USE enum att_rc ctl_manifest_bundle(const struct ctl_args *args,
                                             const struct manifest *manifest, struct att_err *err);

enum ctl_exit ctl_manifest_create(const struct ctl_ctx *, const struct ctl_args *, const json_t *);
enum ctl_exit ctl_manifest_check(const struct ctl_ctx *, const struct ctl_args *, const json_t *);
enum ctl_exit ctl_manifest_sign(const struct ctl_ctx *, const struct ctl_args *, const json_t *);

#endif
