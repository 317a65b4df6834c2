/* The admin operations (docs/ADMIN.md), one file a noun; over the socket and over HTTPS. */
#ifndef PROVISION_ISSUER_ADMIN_H
#define PROVISION_ISSUER_ADMIN_H

#include "provision/issuer/who.h"

struct issuer_admin_call {
    struct issuer *issuer;
    const json_t *args; /* an object; its members have been checked against the table */
    const struct issuer_who *who;
    const struct conf_admin *conf; /* may be NULL */
    struct issuer_scope scope;     /* what who may act on */
    int64_t now;
    json_t *result;                         /* an object, for the operation to fill */
    bool wake;                              /* the view changed: wake who waits, after the commit */
    const struct issuer_approval *approval; /* that it is carried out by; NULL: by none */
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
enum att_rc issuer_admin_allowlist_part(struct issuer_admin_call *, struct store_tx *,
                                        struct att_err *);
enum att_rc issuer_admin_allowlist_apply(struct issuer_admin_call *, struct store_tx *,
                                         struct att_err *);
enum att_rc issuer_admin_allowlist_list(struct issuer_admin_call *, struct store_tx *,
                                        struct att_err *);
enum att_rc issuer_admin_allowlist_delete(struct issuer_admin_call *, struct store_tx *,
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
enum att_rc issuer_admin_ca_prepare(struct issuer_admin_call *, struct store_tx *,
                                    struct att_err *);
enum att_rc issuer_admin_ca_rotate(struct issuer_admin_call *, struct store_tx *, struct att_err *);
enum att_rc issuer_admin_ca_chain(struct issuer_admin_call *, struct store_tx *, struct att_err *);
enum att_rc issuer_admin_ca_publish(struct issuer_admin_call *, struct store_tx *,
                                    struct att_err *);
enum att_rc issuer_admin_ca_activate(struct issuer_admin_call *, struct store_tx *,
                                     struct att_err *);
enum att_rc issuer_admin_ca_retire(struct issuer_admin_call *, struct store_tx *, struct att_err *);
enum att_rc issuer_admin_ca_bundle(struct issuer_admin_call *, struct store_tx *, struct att_err *);
enum att_rc issuer_admin_ca_jwt(struct issuer_admin_call *, struct store_tx *, struct att_err *);
enum att_rc issuer_admin_ca_jwt_replace(struct issuer_admin_call *, struct store_tx *,
                                        struct att_err *);
enum att_rc issuer_admin_federation_list(struct issuer_admin_call *, struct store_tx *,
                                         struct att_err *);
enum att_rc issuer_admin_federation_show(struct issuer_admin_call *, struct store_tx *,
                                         struct att_err *);
enum att_rc issuer_admin_federation_refresh(struct issuer_admin_call *, struct store_tx *,
                                            struct att_err *);
enum att_rc issuer_admin_federation_reset(struct issuer_admin_call *, struct store_tx *,
                                          struct att_err *);
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
enum att_rc issuer_admin_proposal_list(struct issuer_admin_call *, struct store_tx *,
                                       struct att_err *);
enum att_rc issuer_admin_proposal_show(struct issuer_admin_call *, struct store_tx *,
                                       struct att_err *);
enum att_rc issuer_admin_proposal_approve(struct issuer_admin_call *, struct store_tx *,
                                          struct att_err *);
enum att_rc issuer_admin_proposal_reject(struct issuer_admin_call *, struct store_tx *,
                                         struct att_err *);

/* ---- running one
 * -------------------------------------------------------------------------------- */

struct issuer_admin_op {
    const char *op;
    issuer_admin_fn fn;
    bool write; /* changes something */
    bool store; /* in one transaction; else in its own, if it needs any */
};
/* The n-th of all; false after the last. */
bool issuer_admin_op_at(size_t n, struct issuer_admin_op *ret_op);
/* By its name, with its arguments checked: ATT_E_UNSUPPORTED, ATT_E_INVAL. */
ATT_MUST_USE enum att_rc issuer_admin_op_find(const char *op, const json_t *args,
                                              struct issuer_admin_op *ret_op, struct att_err *err);
/* One operation by somebody who is known: asks for his role, does it once (who->request), makes a
 * proposal of it where four eyes want that, records it, and a refusal, too. */
ATT_MUST_USE enum att_rc issuer_admin_run(struct issuer *issuer, const struct issuer_who *who,
                                          const char *op, const json_t *args, json_t **ret_result,
                                          struct att_err *err);
/* A refusal's record, bounded for each identity (or address, where there is none). */
void issuer_admin_refused(struct issuer *issuer, const struct issuer_who *who, const char *op,
                          const struct att_err *why);
/* Makes a proposal of the call. */
ATT_MUST_USE enum att_rc issuer_proposal_make(struct issuer_admin_call *call,
                                              const struct issuer_admin_op *op, struct store_tx *tx,
                                              struct att_err *err);
/* The approval of an operation that takes its own transactions: check and note are transactions,
 * carry_out is what stands between. What fails leaves the proposal open; where the note fails the
 * step is taken, is recorded as who took it, and the proposal is stale. */
struct issuer_approval {
    struct issuer_admin_call *call;
    struct store_proposal proposal;
    struct issuer_admin_op op;
    json_t *args;
};
/* Whether what is approved is such an operation; what is wrong with it is said by the approval. The
 * error is the store's. */
ATT_MUST_USE enum att_rc issuer_approval_in_steps(const struct issuer_admin_call *call,
                                                  bool *ret_steps, struct att_err *err);
ATT_MUST_USE enum att_rc issuer_approval_check(void *user, struct store_tx *tx,
                                               struct att_err *err);
ATT_MUST_USE enum att_rc issuer_approval_carry_out(struct issuer_approval *approval,
                                                   struct att_err *err);
ATT_MUST_USE enum att_rc issuer_approval_note(void *user, struct store_tx *tx, struct att_err *err);
/* Each writing transaction of a step asks for it, before it changes anything: what was approved is
 * still what would be done. ATT_E_CONFLICT, reason "proposalStale": another step was taken since.
 * ATT_OK where the call carries out no approval. */
ATT_MUST_USE enum att_rc issuer_approval_holds(const struct issuer_admin_call *call,
                                               struct store_tx *tx, struct att_err *err);
void issuer_approval_done(struct issuer_approval *approval);
/* In a banned host's notes: the identity that banned it last. */
#define ISSUER_BANNED_BY "bannedBy"
/* ATT_E_CONFLICT, reason "fourEyes": who asks is who registered the host, or banned it; or he gives
 * labels to one that is not new. */
ATT_MUST_USE enum att_rc issuer_four_eyes(const struct issuer_admin_call *call,
                                          const struct store_host *host, struct att_err *err);

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
/* A page of a list: args "after", "limit"; result: the member, and "next" where there is more. */
#define ISSUER_LISTED_MAX 5000 /* rows of an answer */
struct issuer_page {
    struct issuer_admin_call *call;
    json_t *list;       /* borrowed */
    const char *member; /* its name in the result */
    const char *after;  /* NULL: from the start */
    int64_t limit, seen;
    size_t room;
    bool whole, more; /* whole: no page was asked for */
    char last[256];   /* key of the last row that was looked at */
};
/* otherwise: the limit of who names none; 0: all, if they are ISSUER_LISTED_MAX at most. Refused as
 * "usage" for a limit that is none. The caller asks the store for limit + 1 rows. */
ATT_MUST_USE enum att_rc issuer_page_begin(struct issuer_admin_call *call, const char *member,
                                           int64_t otherwise, struct issuer_page *ret_page,
                                           struct att_err *err);
/* Whether the next row, of about so many bytes as JSON, still belongs to the page. */
bool issuer_page_take(struct issuer_page *page, const char *key, size_t bytes);
/* ATT_E_LIMIT, reason "listTooLong": it was asked for as a whole, and there is more. */
ATT_MUST_USE enum att_rc issuer_page_end(const struct issuer_page *page, struct att_err *err);
/* "usage" if a cursor is no host's id; NULL is fine. */
ATT_MUST_USE enum att_rc issuer_page_host(const char *after, struct att_err *err);
/* Each host behind an id (NULL: each), in their order, until enough is set, which is looked at now
 * and then. */
ATT_MUST_USE enum att_rc issuer_hosts_behind(struct store_tx *tx, const char *after,
                                             store_each_fn each, void *user, const bool *enough,
                                             struct att_err *err);
/* The page "selectedHosts" of those that an entry selects. */
ATT_MUST_USE enum att_rc issuer_page_selected(struct issuer_admin_call *call, struct store_tx *tx,
                                              const struct conf_entry *entry, struct att_err *err);
json_t *issuer_host_json(const struct store_host *host);
json_t *issuer_cert_json(const struct store_cert *cert);

#endif
