/* Is this manifest one that an entry allows? The same words at the host and at the issuer. */
#ifndef ATTESTD_PROVISION_MANIFEST_ALLOW_H
#define ATTESTD_PROVISION_MANIFEST_ALLOW_H

#include "provision/manifest/sign.h"

#define MANIFEST_GZ_MAX ((size_t)1 << 20) /* bytes of a document as it travels in M4, packed */

/* An entry's demand; borrowed. Digests are 64 lowercase hex digits. */
struct manifest_wanted {
    char *const *roots; /* any of them, or … */
    size_t n_roots;
    char *const *signers; /* … signed by any of them */
    size_t n_signers;
};
/* ATT_E_DENIED manifestRoot: another root than those (and no signer would do);
 * manifestSignature: unsigned, a signature that does not hold, or another's. */
ATT_MUST_USE enum att_rc manifest_allowed(const struct manifest *manifest,
                                          const struct manifest_wanted *wanted,
                                          struct att_err *err);

#endif
