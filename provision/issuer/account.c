/* Accounts and their external binding to a ticket (RFC 8555 §7.3). */
#include "provision/issuer/context.h"
#include "provision/issuer/dns.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How many account keys may come with a ticket of so many uses; some are lost on the way. */
#define TICKET_ACCOUNTS(uses) (8 + 4 * (uses))

struct opening {
    struct issuer_call *call;
    struct acme_account_request *request;
    char thumbprint[ACME_THUMBPRINT_LEN];
    struct store_account *account; /* found or made */
    bool made;
};

static enum att_rc reply_account(struct issuer_call *call, const struct store_account *account,
                                 int status, struct att_err *err)
{
    att_autojson *contact = issuer_json(account->contact);
    att_autojson *eab = issuer_json(account->eab);
    issuer_autofree *url = issuer_url(call->issuer, "account", account->id);
    json_t *body = json_pack("{s:s, s:o}", "status", account->status, "orders",
                             json_sprintf("%s/orders/%s", call->issuer->base_url, account->id));
    if (json_is_array(contact) && json_array_size(contact)) {
        json_object_set(body, "contact", contact);
    }
    if (json_object_size(eab)) {
        json_object_set(body, "externalAccountBinding", eab);
    }
    if (url) {
        snprintf(call->response->location, sizeof call->response->location, "%s", url);
    }
    return issuer_reply(call, status, body, err);
}

static enum att_rc bad_ticket(struct issuer_call *call, struct att_err *err, const char *what)
{
    return issuer_problem(call, err, ACME_P_UNAUTHORIZED, "ticketInvalid", "%s", what);
}

/* RFC 8555 §7.3.4: which ticket vouches for this key. It is spent at M2, not here. */
static enum att_rc check_eab(struct opening *o, struct store_tx *tx,
                             struct store_ticket *ret_ticket, struct att_err *err)
{
    struct issuer_call *call = o->call;
    struct acme_jws eab = {0};
    enum att_rc rc = acme_eab_parse(o->request->eab, &eab, err);
    if (rc) {
        return rc;
    }
    issuer_autofree *url = NULL;
    if (asprintf(&url, "%s/newAccount", call->issuer->base_url) < 0) {
        url = NULL;
        rc = att_fail(err, ATT_E_NOMEM, "no memory");
    }
    if (!rc) {
        rc = store_get(tx, &store_tickets, eab.kid, ret_ticket, NULL);
        if (rc == ATT_E_NOTFOUND) {
            rc = bad_ticket(call, err, "the enrolment ticket is not known");
        } else if (rc) {
            rc = att_fail(err, rc, "tickets cannot be read");
        }
    }
    if (!rc) {
        rc = acme_eab_verify(&eab, att_buf_slice(&ret_ticket->mac_key), url, call->jws.jwk, err);
    }
    if (!rc && ret_ticket->expires_at <= call->now) {
        rc = bad_ticket(call, err, "the enrolment ticket has expired");
    }
    if (!rc && ret_ticket->uses_left < 1) {
        rc = bad_ticket(call, err, "the enrolment ticket is used up");
    }
    int64_t opened = 0;
    if (!rc) {
        rc = store_ticket_accounts(tx, eab.kid, &opened, err);
    }
    /* A ticket is spent by enrolling. Keys that never get there must not fill the table. */
    if (!rc && opened >= TICKET_ACCOUNTS(ret_ticket->uses)) {
        rc = issuer_problem(call, err, ACME_P_RATE_LIMITED, "ticketInvalid",
                            "%lld accounts were opened with this ticket and it is good for %lld "
                            "enrolments",
                            (long long)opened, (long long)ret_ticket->uses);
        /* It does not get better while the ticket lives. */
        int64_t left = ret_ticket->expires_at - call->now;
        call->problem.retry_after_s = left < 3600 ? (int)left : 3600;
    }
    acme_jws_done(&eab);
    return rc;
}

static enum att_rc make_account(struct opening *o, struct store_tx *tx, struct att_err *err)
{
    struct issuer_call *call = o->call;
    struct store_ticket ticket = {0};
    char id[ISSUER_ID_LEN];
    enum att_rc rc = issuer_new_id(id, err);
    if (!rc && !o->request->eab && call->settings->conf->eab_required) {
        rc = issuer_problem(call, err, ACME_P_EXTERNAL_ACCOUNT_REQUIRED, NULL,
                            "an account needs an enrolment ticket (externalAccountBinding)");
    } else if (!rc && o->request->eab) {
        rc = check_eab(o, tx, &ticket, err);
    }
    if (!rc) {
        issuer_autofree *jwk = issuer_json_text(call->jws.jwk);
        issuer_autofree *contact = issuer_json_text(o->request->contact);
        issuer_autofree *eab = issuer_json_text(o->request->eab);
        struct store_account *a = o->account;
        bool ok = jwk && issuer_set(&a->id, id) && issuer_set(&a->thumbprint, o->thumbprint) &&
                  issuer_set(&a->jwk, jwk) && issuer_set(&a->status, STORE_ACCOUNT_VALID) &&
                  issuer_set(&a->ticket, ticket.kid) && issuer_set(&a->eab, eab) &&
                  issuer_set(&a->contact, contact);
        a->created_at = call->now;
        rc = ok ? store_insert(tx, &store_accounts, a, err)
                : att_fail(err, ATT_E_NOMEM, "no memory");
    }
    if (!rc) {
        json_t *record = issuer_record("account", "granted", NULL, NULL, o->thumbprint);
        json_object_set_new(record, "account", json_string(id));
        json_object_set_new(record, "ticket", json_string(ticket.kid ? ticket.kid : ""));
        rc = issuer_audit(tx, call->now, record, NULL, err);
    }
    o->made = !rc;
    store_record_done(&store_tickets, &ticket);
    return rc;
}

static enum att_rc open_account(void *user, struct store_tx *tx, struct att_err *err)
{
    struct opening *o = user;
    enum att_rc rc = store_find(tx, &store_accounts, "thumbprint", o->thumbprint, o->account, NULL);
    if (rc != ATT_E_NOTFOUND) {
        return rc ? att_fail(err, rc, "accounts cannot be read") : ATT_OK;
    }
    if (o->request->only_return_existing) {
        return issuer_problem(o->call, err, ACME_P_ACCOUNT_DOES_NOT_EXIST, NULL,
                              "no account has this key");
    }
    return make_account(o, tx, err);
}

static enum att_rc check_address(struct issuer_call *call, struct att_err *err)
{
    if (!issuer_limit_take_address(call->issuer->limit, ISSUER_LIMIT_ADDRESS_ACCOUNTS,
                                   call->request->peer,
                                   call->settings->conf->limits->address_accounts, call->now)) {
        return ATT_OK;
    }
    enum att_rc rc = issuer_problem(
        call, err, ACME_P_RATE_LIMITED, NULL, "%u newAccount requests of this address in %d s",
        call->settings->conf->limits->address_accounts, ISSUER_RECENT_S);
    call->problem.retry_after_s = ISSUER_RECENT_S / 2;
    return rc;
}

enum att_rc issuer_new_account(struct issuer_call *call, struct att_err *err)
{
    struct acme_account_request request = {0};
    struct opening o = {.call = call, .request = &request, .account = &call->account};
    enum att_rc rc = check_address(call, err);
    if (!rc) {
        rc = acme_account_request_parse(att_buf_slice(&call->jws.payload), &request, err);
    }
    if (!rc) {
        rc = acme_jwk_thumbprint(call->jws.jwk, o.thumbprint, err);
    }
    if (!rc) {
        rc = store_run(call->issuer->store, true, open_account, &o, err);
    }
    if (!rc && strcmp(call->account.status, STORE_ACCOUNT_VALID) != 0) {
        rc = issuer_problem(call, err, ACME_P_UNAUTHORIZED, NULL, "the account is %s",
                            call->account.status);
    }
    if (!rc) {
        rc = reply_account(call, &call->account, o.made ? 201 : 200, err);
    }
    if (!rc && o.made) {
        att_log(ATT_INFO, "account.created", ATT_S("account", call->account.id),
                ATT_S("ticket", call->account.ticket));
    }
    acme_account_request_done(&request);
    return rc;
}

/* ---- the account's own URL: RFC 8555 §7.3.2, §7.3.6
 * -------------------------------------------------------- */

struct change {
    struct issuer_call *call;
    const char *contact; /* NULL: as it was */
    bool deactivate;
    bool changed;
};

/* The account as it is in this transaction, which may have been deactivated since the request was
 * authenticated. */
static enum att_rc take_account(struct issuer_call *call, struct store_tx *tx, struct att_err *err)
{
    struct store_account now = {0};
    enum att_rc rc = store_get(tx, &store_accounts, call->account.id, &now, err);
    if (!rc && strcmp(now.status, STORE_ACCOUNT_VALID) != 0) {
        rc = issuer_problem(call, err, ACME_P_UNAUTHORIZED, NULL, "the account is %s", now.status);
    }
    if (!rc) {
        store_record_done(&store_accounts, &call->account);
        call->account = now;
        return ATT_OK;
    }
    store_record_done(&store_accounts, &now);
    return rc;
}

static enum att_rc put_account(void *user, struct store_tx *tx, struct att_err *err)
{
    struct change *c = user;
    struct issuer_call *call = c->call;
    enum att_rc rc = take_account(call, tx, err);
    bool same = !rc && !c->deactivate && strcmp(c->contact, call->account.contact) == 0;
    if (rc || same) {
        return rc;
    }
    bool ok = (!c->contact || issuer_set(&call->account.contact, c->contact)) &&
              (!c->deactivate || issuer_set(&call->account.status, STORE_ACCOUNT_DEACTIVATED));
    rc = ok ? store_put(tx, &store_accounts, &call->account, err)
            : att_fail(err, ATT_E_NOMEM, "no memory");
    if (!rc) {
        json_t *record =
            issuer_record("account", "done", NULL, call->account.status, call->account.thumbprint);
        json_object_set_new(record, "account", json_string(call->account.id));
        rc = issuer_audit(tx, call->now, record, NULL, err);
    }
    c->changed = !rc;
    return rc;
}

/* Each change is a record in a log that is never cut. */
static enum att_rc store_change(struct change *c, struct att_err *err)
{
    struct issuer_call *call = c->call;
    struct issuer_limit *limit = call->issuer->limit;
    if (!c->deactivate &&
        issuer_limit_reached(limit, ISSUER_LIMIT_CHANGES, call->account.id, call->now)) {
        enum att_rc rc = issuer_problem(call, err, ACME_P_RATE_LIMITED, NULL,
                                        "%d changes of the account within %d s",
                                        ISSUER_RECENT_CHANGES, ISSUER_RECENT_S);
        call->problem.retry_after_s = ISSUER_RECENT_S / 2;
        return rc;
    }
    enum att_rc rc = store_run(call->issuer->store, true, put_account, c, err);
    if (!rc && c->changed) {
        issuer_limit_count(limit, ISSUER_LIMIT_CHANGES, call->account.id, call->now);
    }
    return rc;
}

static enum att_rc change_account(struct issuer_call *call, struct att_err *err)
{
    att_autojson *json = NULL;
    enum att_rc rc = att_json_parse(att_buf_slice(&call->jws.payload), 65536, &json, err);
    if (rc || !json_is_object(json)) {
        return issuer_problem(call, err, ACME_P_MALFORMED, NULL, "expected a JSON object");
    }
    const json_t *status = json_object_get(json, "status"),
                 *contact = json_object_get(json, "contact");
    struct att_err why = {0};
    if (contact && acme_contact_check(contact, &why)) {
        return issuer_problem(call, err, ACME_P_INVALID_CONTACT, NULL, "%s", why.msg);
    }
    if (status &&
        (!json_is_string(status) || strcmp(json_string_value(status), "deactivated") != 0)) {
        return issuer_problem(call, err, ACME_P_MALFORMED, NULL,
                              "status: expected \"deactivated\"");
    }
    if (!contact && !status) {
        return ATT_OK;
    }
    issuer_autofree *text = contact ? issuer_json_text(contact) : NULL;
    if (contact && !text) {
        return att_fail(err, ATT_E_NOMEM, "no memory");
    }
    struct change change = {.call = call, .contact = text, .deactivate = status != NULL};
    return store_change(&change, err);
}

static enum att_rc load_account(void *user, struct store_tx *tx, struct att_err *err)
{
    return take_account(user, tx, err);
}

enum att_rc issuer_account_reload(struct issuer_call *call, struct att_err *err)
{
    enum att_rc rc = store_run(call->issuer->store, false, load_account, call, err);
    return rc ? rc : reply_account(call, &call->account, 200, err);
}

enum att_rc issuer_account(struct issuer_call *call, struct att_err *err)
{
    if (strcmp(call->id, call->account.id) != 0) {
        return issuer_problem(call, err, ACME_P_UNAUTHORIZED, NULL, "another account's resource");
    }
    enum att_rc rc = call->jws.payload.len ? change_account(call, err) : ATT_OK;
    return rc ? rc : reply_account(call, &call->account, 200, err);
}

#define ORDERS_TOLD 1000

struct orders {
    struct issuer_call *call;
    json_t *list;
};

static enum att_rc add_order(void *user, const void *record, struct att_err *err)
{
    struct orders *o = user;
    const struct store_order *order = record;
    issuer_autofree *url = issuer_url(o->call->issuer, "order", order->id);
    (void)err;
    if (json_array_size(o->list) < ORDERS_TOLD && strcmp(order->status, "invalid") != 0) {
        json_array_append_new(o->list, json_string(url));
    }
    return ATT_OK;
}

static enum att_rc add_dns_order(void *user, const void *record, struct att_err *err)
{
    struct orders *o = user;
    const struct store_dns_order *order = record;
    const char *noun = issuer_dns_is_device(order->type) ? "device-order" : "dns-order";
    issuer_autofree *url = issuer_url(o->call->issuer, noun, order->id);
    (void)err;
    if (json_array_size(o->list) < ORDERS_TOLD && strcmp(order->status, "invalid") != 0) {
        json_array_append_new(o->list, json_string(url));
    }
    return ATT_OK;
}

static enum att_rc list_orders(void *user, struct store_tx *tx, struct att_err *err)
{
    struct orders *o = user;
    const char *account = o->call->account.id;
    enum att_rc rc = store_each(tx, &store_orders, "account", account, add_order, o, err);
    return rc ? rc : store_each(tx, &store_dns_orders, "account", account, add_dns_order, o, err);
}

/* RFC 8555 §7.1.2.1 */
enum att_rc issuer_account_orders(struct issuer_call *call, struct att_err *err)
{
    if (strcmp(call->id, call->account.id) != 0) {
        return issuer_problem(call, err, ACME_P_UNAUTHORIZED, NULL, "another account's resource");
    }
    struct orders o = {.call = call, .list = json_array()};
    enum att_rc rc = store_run(call->issuer->store, false, list_orders, &o, err);
    if (rc) {
        json_decref(o.list);
        return rc;
    }
    return issuer_reply(call, 200, json_pack("{s:o}", "orders", o.list), err);
}
