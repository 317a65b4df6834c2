/* Who signs a checkpoint beside the log's key: the issuer's TPM process, which remembers what it
 * signed last, signs what continues that and nothing else, and counts by a counter in the TPM that
 * never goes back.
 *
 * A checkpoint has the counter's value (c) in its text, so that both signatures cover it. The
 * counter (V) is raised to c after the checkpoint was written with c = V + 1: of what stands on the
 * disk after a crash c is V, or V + 1, and then the counter follows. So a lower c is never a
 * crash's: the disk is an older one. */
#ifndef PROVISION_AUDIT_COSIGN_H
#define PROVISION_AUDIT_COSIGN_H

#include "provision/audit/ecdsa.h"

#define AUDIT_COSIGN_BEFORE_MAX 1024

/* What the other process says of itself. */
struct audit_cosigned {
    uint8_t spki[AUDIT_P256_SPKI_LEN];
    uint64_t counter; /* V */
    uint64_t was; /* where it stood before an operator had it made anew, until the next signature;
                     0: nobody did */
    struct audit_checkpoint last; /* signed last; no origin: nothing yet */
    /* Why its memory begins anew (JSON, an operator's doing), until the next signature; else "" */
    char before[AUDIT_COSIGN_BEFORE_MAX + 1];
};

/* Calls block, a few seconds at most. What is away answers ATT_E_GONE, ATT_E_UNREACHABLE,
 * ATT_E_TIMEOUT or ATT_E_RETRY: later, then; what refuses, anything else. */
struct audit_cosigner {
    enum att_rc (*look)(void *user, struct audit_cosigned *ret, struct att_err *err);
    /* text: a checkpoint. proof: that its tree continues that of `last`, of old leaves. ATT_E_LIMIT
     * with reason "counterEarly": not with V + 1 yet. ret_der: room for AUDIT_ECDSA_SIG_MAX. */
    enum att_rc (*sign)(void *user, struct att_slice text, uint64_t old,
                        const struct audit_proof *proof, uint8_t *ret_der, size_t *ret_len,
                        struct att_err *err);
    /* To the counter of the checkpoint that was signed last. */
    enum att_rc (*raise)(void *user, uint64_t counter, struct att_err *err);
    void *user;
    int64_t raise_every_ms;
};

#endif
