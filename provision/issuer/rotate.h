/* Rotating an authority: each step is one transaction that looks at everything it rests on, so that
 * several issuers of a store take it once, and what is interrupted is where it was (keys that were
 * made for a step that did not come about stay unused).
 *
 *   prepare ──► prepared ──► publish ──► published ──► activate ──► active ──► outgoing ──► retired
 *      └─ with csr: requested ──► chain ─┘                             (the one before)  retire
 *
 * Refusals, by reason: caBusy (one is under way), caState (it is in another state), caUnknown,
 * caRootAway (the root's key is not here), caTooMany, caIssuerBehind (an issuer of the store has
 * not taken the last step into use, or cannot use the key), caKeyMissing (this one cannot),
 * caHostsBehind (hosts that do not have the new root), caTooSoon (ca.publish_wait is not over),
 * caInUse (certificates of the old one are in force), and what certs_authority_check has. */
#ifndef PROVISION_ISSUER_ROTATE_H
#define PROVISION_ISSUER_ROTATE_H

#include "provision/issuer/admin.h"
#include "provision/issuer/generations.h"

struct issuer_rotation {
    struct issuer_admin_call *call;
    const char *kind;  /* of issuer_kinds */
    const char *id;    /* of a generation; prepare: unused */
    bool new_root;     /* prepare */
    bool csr;          /* prepare: somebody else signs */
    bool in_hsm;       /* prepare */
    bool force;        /* activate, retire: neither hosts nor time are waited for */
    const char *chain; /* chain: PEM */
};

/* Each outside of any transaction; call->result says what became of it. */
ATT_MUST_USE enum att_rc issuer_rotate_prepare(struct issuer_rotation *r, struct att_err *err);
ATT_MUST_USE enum att_rc issuer_rotate_chain(struct issuer_rotation *r, struct att_err *err);
ATT_MUST_USE enum att_rc issuer_rotate_publish(struct issuer_rotation *r, struct att_err *err);
ATT_MUST_USE enum att_rc issuer_rotate_activate(struct issuer_rotation *r, struct att_err *err);
ATT_MUST_USE enum att_rc issuer_rotate_retire(struct issuer_rotation *r, struct att_err *err);
/* The step that is due, if it can be taken: result {"step", "id"?, "waiting": text?}. start: one
 * begins where none is under way. */
ATT_MUST_USE enum att_rc issuer_rotate_next(struct issuer_rotation *r, bool start,
                                            struct att_err *err);

/* The step that issuer_rotate_next would take by the call's arguments, as members of ret: "step"
 * ("prepare", "publish", "activate", "retire"; "waiting" for a certificate, "none") and "id". */
ATT_MUST_USE enum att_rc issuer_rotate_due(const struct issuer_admin_call *call,
                                           struct store_tx *tx, json_t *ret, struct att_err *err);

/* ---- between the files of it ------------------------------------------------------------------
 */
struct issuer_rotation_rows {
    const char *kind;
    size_t n;                                           /* of this kind, retired ones too */
    struct store_authority under_way, active, outgoing; /* id NULL: none */
};
ATT_MUST_USE enum att_rc issuer_rotate_rows(struct store_tx *tx, struct issuer_rotation_rows *rows,
                                            struct att_err *err);
void issuer_rotate_rows_done(struct issuer_rotation_rows *rows);
/* There is room for one more row of this kind, two where there is none, or there is once retired
 * ones are gone: those that never signed, and those of whose time no certificate is in force; the
 * oldest first. forget: they are removed as far as it takes. caTooMany. */
ATT_MUST_USE enum att_rc issuer_rotate_room(struct store_tx *tx, const char *kind, int64_t now,
                                            bool forget, struct att_err *err);
/* ATT_E_AUTH, reason caChain: a key of this chain is one of an authority of another kind: the other
 * one here, that for DNS names, the issuer's own TLS. Whoever trusts one would trust the other. */
ATT_MUST_USE enum att_rc issuer_rotate_apart(const struct issuer *issuer, struct store_tx *tx,
                                             const char *kind, const STACK_OF(X509) * chain,
                                             struct att_err *err);
/* Counts the step, with its record; after the commit issuer_rotate_done takes it into use. What
 * fails there is said as "warning" of the result and tried again by the issuer itself: the step is
 * taken. */
ATT_MUST_USE enum att_rc issuer_rotate_note(struct issuer_rotation *r, struct store_tx *tx,
                                            const struct store_authority *row, const char *step,
                                            struct att_err *err);
void issuer_rotate_done(struct issuer_rotation *r);

#endif
