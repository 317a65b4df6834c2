/* The admin socket's operations (docs/ADMIN.md), one file a noun. */
#ifndef PROVISION_ISSUER_ADMIN_H
#define PROVISION_ISSUER_ADMIN_H

#include "provision/issuer/context.h"

struct issuer_admin_call {
    struct issuer *issuer;
    const json_t *args; /* an object; its members have been checked against the table */
    int64_t uid, now;
    json_t *result; /* an object, for the operation to fill */
    bool wake;      /* the view changed: wake who waits, after the commit */
};

typedef enum att_rc (*issuer_admin_fn)(struct issuer_admin_call *call, struct store_tx *tx,
                                       struct att_err *err);

enum att_rc issuer_admin_host_list(struct issuer_admin_call *, struct store_tx *, struct att_err *);
enum att_rc issuer_admin_host_show(struct issuer_admin_call *, struct store_tx *, struct att_err *);
enum att_rc issuer_admin_host_import(struct issuer_admin_call *, struct store_tx *,
                                     struct att_err *);
enum att_rc issuer_admin_host_approve(struct issuer_admin_call *, struct store_tx *,
                                      struct att_err *);
enum att_rc issuer_admin_host_ban(struct issuer_admin_call *, struct store_tx *, struct att_err *);
enum att_rc issuer_admin_host_evict(struct issuer_admin_call *, struct store_tx *,
                                    struct att_err *);
enum att_rc issuer_admin_host_rebind(struct issuer_admin_call *, struct store_tx *,
                                     struct att_err *);
enum att_rc issuer_admin_ticket_create(struct issuer_admin_call *, struct store_tx *,
                                       struct att_err *);
enum att_rc issuer_admin_entry_apply(struct issuer_admin_call *, struct store_tx *,
                                     struct att_err *);
enum att_rc issuer_admin_entry_list(struct issuer_admin_call *, struct store_tx *,
                                    struct att_err *);
enum att_rc issuer_admin_entry_show(struct issuer_admin_call *, struct store_tx *,
                                    struct att_err *);
enum att_rc issuer_admin_entry_delete(struct issuer_admin_call *, struct store_tx *,
                                      struct att_err *);
enum att_rc issuer_admin_policy_apply(struct issuer_admin_call *, struct store_tx *,
                                      struct att_err *);
enum att_rc issuer_admin_policy_list(struct issuer_admin_call *, struct store_tx *,
                                     struct att_err *);
enum att_rc issuer_admin_policy_mode(struct issuer_admin_call *, struct store_tx *,
                                     struct att_err *);
enum att_rc issuer_admin_policy_dryrun(struct issuer_admin_call *, struct store_tx *,
                                       struct att_err *);
enum att_rc issuer_admin_policy_show(struct issuer_admin_call *, struct store_tx *,
                                     struct att_err *);
enum att_rc issuer_admin_cert_renew(struct issuer_admin_call *, struct store_tx *,
                                    struct att_err *);
enum att_rc issuer_admin_cert_list(struct issuer_admin_call *, struct store_tx *, struct att_err *);
enum att_rc issuer_admin_cert_revoke(struct issuer_admin_call *, struct store_tx *,
                                     struct att_err *);
enum att_rc issuer_admin_ca_status(struct issuer_admin_call *, struct store_tx *, struct att_err *);
enum att_rc issuer_admin_audit_list(struct issuer_admin_call *, struct store_tx *,
                                    struct att_err *);
enum att_rc issuer_admin_audit_why(struct issuer_admin_call *, struct store_tx *, struct att_err *);
enum att_rc issuer_admin_audit_evidence(struct issuer_admin_call *, struct store_tx *,
                                        struct att_err *);
enum att_rc issuer_admin_audit_prove(struct issuer_admin_call *, struct store_tx *,
                                     struct att_err *);
enum att_rc issuer_admin_audit_export(struct issuer_admin_call *, struct store_tx *,
                                      struct att_err *);
enum att_rc issuer_admin_audit_erase(struct issuer_admin_call *, struct store_tx *,
                                     struct att_err *);
enum att_rc issuer_admin_audit_verify(struct issuer_admin_call *, struct store_tx *,
                                      struct att_err *);
enum att_rc issuer_admin_status(struct issuer_admin_call *, struct store_tx *, struct att_err *);

/* ---- shared
 * --------------------------------------------------------------------------------------- */

/* A text argument; NULL when absent. */
const char *issuer_arg(const struct issuer_admin_call *call, const char *name);
int64_t issuer_arg_int(const struct issuer_admin_call *call, const char *name, int64_t otherwise);
/* The host that args.id names: an id, an unambiguous prefix of at least 8 digits, or a label. */
ATT_MUST_USE enum att_rc issuer_arg_host(const struct issuer_admin_call *call, struct store_tx *tx,
                                         struct store_host *ret_host, struct att_err *err);
ATT_MUST_USE enum att_rc issuer_admin_audit(struct issuer_admin_call *call, struct store_tx *tx,
                                            json_t *record, struct att_err *err);
json_t *issuer_host_json(const struct store_host *host);
json_t *issuer_cert_json(const struct store_cert *cert);

#endif
