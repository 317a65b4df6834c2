/* keyChange (RFC 8555 §7.3.5): an account gets another key, its host and certificates stay its own.
 */
#include "provision/acme/requests.h"
#include "provision/issuer/context.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

struct change {
    struct issuer_call *call;
    struct acme_key_change request;
    char thumbprint[ACME_THUMBPRINT_LEN];
    char *jwk; /* of the new key, its required members only */
    bool taken;
};

static enum att_rc check_inner(struct change *c, struct att_err *err)
{
    struct issuer_call *call = c->call;
    char old[ACME_THUMBPRINT_LEN];
    enum att_rc rc = ATT_OK;
    if (strcmp(c->request.inner.url, call->jws.url) != 0) {
        return issuer_problem(call, err, ACME_P_MALFORMED, NULL,
                              "keyChange: the inner url is not the outer one");
    }
    if (strcmp(c->request.account, call->jws.kid) != 0) {
        return issuer_problem(call, err, ACME_P_MALFORMED, NULL,
                              "keyChange: \"account\" is not the kid of the request");
    }
    rc = acme_jwk_thumbprint(c->request.old_key, old, err);
    if (!rc && strcmp(old, call->account.thumbprint) != 0) {
        rc = issuer_problem(call, err, ACME_P_MALFORMED, NULL,
                            "keyChange: \"oldKey\" is not the account's key");
    }
    if (!rc) {
        rc = acme_jwk_thumbprint(c->request.inner.jwk, c->thumbprint, err);
    }
    return rc;
}

/* The key as newAccount would keep it. */
static enum att_rc take_jwk(struct change *c, struct att_err *err)
{
    c->jwk = issuer_json_text(c->request.inner.jwk);
    return c->jwk ? ATT_OK : att_fail(err, ATT_E_NOMEM, "no memory");
}

/* A host is known by its account's thumbprint. */
static enum att_rc move_hosts(struct store_tx *tx, const char *from, const char *to,
                              struct att_err *err)
{
    for (;;) {
        struct store_host host = {0};
        enum att_rc rc = store_find(tx, &store_hosts, "account", from, &host, NULL);
        if (rc) {
            return rc == ATT_E_NOTFOUND ? ATT_OK : att_fail(err, rc, "hosts cannot be read");
        }
        rc = issuer_set(&host.account, to) ? store_put(tx, &store_hosts, &host, err)
                                           : att_fail(err, ATT_E_NOMEM, "no memory");
        store_record_done(&store_hosts, &host);
        if (rc) {
            return rc;
        }
    }
}

static enum att_rc refuse_taken(struct change *c, const struct store_account *other,
                                struct att_err *err)
{
    struct issuer_call *call = c->call;
    enum att_rc rc = issuer_problem(call, err, ACME_P_MALFORMED, NULL,
                                    "keyChange: another account has this key");
    call->problem.status = 409; /* RFC 8555 §7.3.5: with that account's URL */
    c->taken = true;
    snprintf(call->response->location, sizeof call->response->location, "%s/account/%s",
             call->issuer->base_url, other->id);
    return rc;
}

static enum att_rc put_key(struct change *c, struct store_tx *tx, struct store_account *account,
                           struct att_err *err)
{
    struct issuer_call *call = c->call;
    json_t *record = issuer_record("account", "done", NULL, "keyChange", call->account.thumbprint);
    json_object_set_new(record, "account", json_string(account->id));
    json_object_set_new(record, "newThumbprint", json_string(c->thumbprint));
    enum att_rc rc = issuer_audit(tx, call->now, record, NULL, err);
    if (!rc) {
        rc = move_hosts(tx, account->thumbprint, c->thumbprint, err);
    }
    if (!rc) {
        rc = issuer_set(&account->thumbprint, c->thumbprint) && issuer_set(&account->jwk, c->jwk)
                 ? store_put(tx, &store_accounts, account, err)
                 : att_fail(err, ATT_E_NOMEM, "no memory");
    }
    return rc;
}

static enum att_rc change_key(void *user, struct store_tx *tx, struct att_err *err)
{
    struct change *c = user;
    struct store_account now = {0}, other = {0};
    enum att_rc rc = store_get(tx, &store_accounts, c->call->account.id, &now, err);
    /* As it was when the request was authenticated: neither deactivated nor changed since. */
    if (!rc && (strcmp(now.status, STORE_ACCOUNT_VALID) != 0 ||
                strcmp(now.thumbprint, c->call->account.thumbprint) != 0)) {
        rc = issuer_problem(c->call, err, ACME_P_UNAUTHORIZED, NULL,
                            "the account changed meanwhile");
    }
    if (!rc) {
        rc = store_find(tx, &store_accounts, "thumbprint", c->thumbprint, &other, NULL);
        rc = rc == ATT_E_NOTFOUND ? ATT_OK
             : rc                 ? att_fail(err, rc, "accounts cannot be read")
                                  : refuse_taken(c, &other, err);
    }
    if (!rc) {
        rc = put_key(c, tx, &now, err);
    }
    store_record_done(&store_accounts, &now);
    store_record_done(&store_accounts, &other);
    return rc;
}

static enum att_rc run(struct change *c, struct att_err *err)
{
    struct issuer_call *call = c->call;
    struct issuer_limit *limit = call->issuer->limit;
    enum att_rc rc = acme_key_change_parse(att_buf_slice(&call->jws.payload), &c->request, err);
    if (!rc) {
        rc = check_inner(c, err);
    }
    if (!rc) {
        rc = take_jwk(c, err);
    }
    if (!rc && issuer_limit_reached(limit, ISSUER_LIMIT_CHANGES, call->account.id, call->now)) {
        rc = issuer_problem(call, err, ACME_P_RATE_LIMITED, NULL,
                            "%d changes of the account within %d s", ISSUER_RECENT_CHANGES,
                            ISSUER_RECENT_S);
        call->problem.retry_after_s = ISSUER_RECENT_S / 2;
    }
    if (!rc) {
        rc = store_run(call->issuer->store, true, change_key, c, err);
    }
    if (!rc) {
        issuer_limit_count(limit, ISSUER_LIMIT_CHANGES, call->account.id, call->now);
        rc = issuer_account_reload(call, err);
    }
    return rc;
}

enum att_rc issuer_key_change(struct issuer_call *call, struct att_err *err)
{
    struct change c = {.call = call};
    enum att_rc rc = run(&c, err);
    if (!rc) {
        att_log(ATT_INFO, "account.keyChanged", ATT_S("account", call->account.id),
                ATT_S("thumbprint", c.thumbprint));
    }
    acme_key_change_done(&c.request);
    issuer_free_text(&c.jwk);
    return rc;
}
