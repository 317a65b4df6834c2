/* Who asks for an admin operation, and what he may: roles and scopes as issuer.yaml binds them. */
#ifndef PROVISION_ISSUER_WHO_H
#define PROVISION_ISSUER_WHO_H

#include "provision/issuer/context.h"

#define ISSUER_WHO_MAX     1100
#define ISSUER_REQUEST_MAX 64

struct issuer_who {
    bool remote;                   /* over HTTPS; else the socket, or the issuer itself */
    int64_t uid;                   /* of the socket's peer; -1 */
    char id[ISSUER_WHO_MAX];       /* "uid:0", "spiffe://…", "x509:CN=…", "oidc:ISSUER#SUB" */
    char identity[ISSUER_WHO_MAX]; /* "person:alice" where that id is a person's; else the id */
    char peer[64];                 /* address; "" */
    char request[ISSUER_REQUEST_MAX + 1]; /* the request's own id; "" */
    const char *proposed_by; /* identity of who proposed what this one approved; or NULL */
};

/* Of the socket's peer (NULL: the issuer itself). */
void issuer_who_local(struct issuer_who *ret_who, const struct conf_admin *admin,
                      const struct att_ctl_peer *peer);
/* By a credential that was verified. ATT_E_LIMIT: the id is too long. */
ATT_MUST_USE enum att_rc issuer_who_remote(struct issuer_who *ret_who,
                                           const struct conf_admin *admin, const char *id,
                                           const char *peer, struct att_err *err);
/* "uid" (of the socket), "principal", "person", "address", "proposedBy", as far as there are. who
 * NULL: the issuer itself. */
void issuer_who_put(json_t *record, const struct issuer_who *who);
/* Is this stored identity (or id) the one who asks? */
bool issuer_who_is(const struct issuer_who *who, const struct conf_admin *admin,
                   const char *identity);

/* ---- what an operation asks for ---------------------------------------------------------------
 */

enum issuer_reach {
    ISSUER_REACH_ANY,  /* any role, whatever its scope: nothing is changed */
    ISSUER_REACH_PART, /* the operation asks for each thing that it touches */
    ISSUER_REACH_ALL,  /* only a binding without paths and labels */
};
struct issuer_duty {
    const char *op;
    unsigned roles; /* any of these (enum conf_admin_role); 0: of no role, for the socket alone */
    enum issuer_reach reach;
    unsigned approver; /* with four eyes: a proposal, for these to approve; 0: done at once */
    bool dry_run;      /* it can say what it would do */
};
/* By the table, and for what is not in it by its noun: ca.* is the CA operator's, and what it
 * changes another one approves; audit.* is read by auditors; what else changes something is for the
 * socket alone. */
struct issuer_duty issuer_duty_of(const char *op, bool write);

/* Of any role at all: ATT_E_DENIED with reason "roleMissing". The socket's people have them. */
ATT_MUST_USE enum att_rc issuer_who_bound(const struct conf_admin *admin,
                                          const struct issuer_who *who, struct att_err *err);

/* In what somebody acts: all zero refuses. */
struct issuer_scope {
    const struct conf_admin *admin;
    const char *id;
    unsigned roles;
    bool all; /* the socket */
};
/* ATT_E_DENIED with reason "roleMissing" or "roleScope". */
ATT_MUST_USE enum att_rc issuer_scope_enter(const struct conf_admin *admin,
                                            const struct issuer_who *who, unsigned roles,
                                            enum issuer_reach reach, struct issuer_scope *ret_scope,
                                            struct att_err *err);
/* Each is ATT_E_DENIED, reason "roleScope", where no binding covers it. labels: JSON object. */
ATT_MUST_USE enum att_rc issuer_scope_all(const struct issuer_scope *scope, struct att_err *err);
ATT_MUST_USE enum att_rc issuer_scope_host(const struct issuer_scope *scope, const char *host,
                                           const json_t *labels, struct att_err *err);
ATT_MUST_USE enum att_rc issuer_scope_agent(const struct issuer_scope *scope, const char *spiffe_id,
                                            const struct conf_entry *entry, struct att_err *err);
ATT_MUST_USE enum att_rc issuer_scope_cert(const struct issuer_scope *scope, struct store_tx *tx,
                                           const struct store_cert *cert, struct att_err *err);

#endif
