/* Orders for DNS names (docs/PROTOCOL.md, "DNS names"), between the files that move one from
 * newOrder to its certificate. */
#ifndef PROVISION_ISSUER_DNS_H
#define PROVISION_ISSUER_DNS_H

#include "provision/issuer/context.h"

#include "certs/dns.h"

#define ISSUER_DNS_ORDER_S 3600 /* life of an order and of its authorizations */

/* An order with its authorizations, as they are in one transaction. */
struct issuer_dns_view {
    struct store_dns_order order;
    struct store_dns_authz *authzs; /* in the order of the names */
    size_t n;
};
void issuer_dns_view_done(struct issuer_dns_view *view);
/* Of this id; unauthorized when it is another account's. */
ATT_MUST_USE enum att_rc issuer_dns_load(struct issuer_call *call, struct store_tx *tx,
                                         const char *id, struct issuer_dns_view *ret_view,
                                         struct att_err *err);
/* Is it of type "permanent-identifier"? The noun of its URLs: "device" or "dns". */
bool issuer_dns_is_device(const char *type);
const char *issuer_dns_noun(const char *type);
/* "invalid" for one whose time is over. */
const char *issuer_dns_status(const struct store_dns_order *order, int64_t now);
json_t *issuer_dns_order_json(const struct issuer *issuer, const struct issuer_dns_view *view,
                              int64_t now);

/* unauthorized, reason "hostBanned": the account is a banned host's. */
ATT_MUST_USE enum att_rc issuer_dns_check_host(struct issuer_call *call, struct store_tx *tx,
                                               struct att_err *err);
/* newOrder of identifiers of type dns, or of one of type permanent-identifier (an order of which
 * lives as long as an agent's: ISSUER_ORDER_S). */
ATT_MUST_USE enum att_rc issuer_dns_new_order(struct issuer_call *call,
                                              const struct acme_order_request *request,
                                              struct att_err *err);
json_t *issuer_dns_challenge_json(const struct issuer *issuer, const struct store_dns_authz *authz);
/* Starts the thread of validations, and those that were under way when the last process ended. */
ATT_MUST_USE enum att_rc issuer_dns_start(struct issuer *issuer, struct att_err *err);
/* Main thread. Once a minute asks again what was under way a minute ago, too, and nobody finished:
 * an issuer that died had it, of this store's several perhaps. */
void issuer_dns_tick(struct issuer *issuer);
/* What the tick does, whatever the time. */
ATT_MUST_USE enum att_rc issuer_dns_look(struct issuer *issuer, struct att_err *err);
/* In the transaction that ends an authorization: its order becomes invalid, with this problem. */
ATT_MUST_USE enum att_rc issuer_dns_fail_order(struct store_tx *tx, const char *id,
                                               const char *problem, struct att_err *err);

/* In the transaction that proves a name: its order becomes ready when all are proved. */
ATT_MUST_USE enum att_rc issuer_dns_order_ready(struct store_tx *tx, const char *id,
                                                struct att_err *err);
/* RFC 8555 §11.1: badCSR, reason csrAccountKey, for the key of any account. */
ATT_MUST_USE enum att_rc issuer_dns_check_accounts(struct issuer_call *call, struct store_tx *tx,
                                                   struct att_slice spki, struct att_err *err);

#endif
