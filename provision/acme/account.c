#include "provision/acme/member.h"
#include "provision/acme/objects.h"

#include <stdlib.h>

#define CONTACTS_MAX 8

enum att_rc acme_contact_check(const json_t *contact, struct att_err *err)
{
    if (!json_is_array(contact) || json_array_size(contact) > CONTACTS_MAX) {
        return att_fail(err, ATT_E_PARSE, "\"contact\": expected an array of at most %d",
                        CONTACTS_MAX);
    }
    for (size_t i = 0; i < json_array_size(contact); i++) {
        const json_t *one = json_array_get(contact, i);
        if (!json_is_string(one) || json_string_length(one) > ACME_TEXT_MAX ||
            !acme_text_ok(json_string_value(one))) {
            return att_fail(err, ATT_E_PARSE, "\"contact\": entry %zu is no URL", i);
        }
    }
    return ATT_OK;
}

static enum att_rc copy_contact(const json_t *obj, json_t **ret_contact, struct att_err *err)
{
    const json_t *contact = json_object_get(obj, "contact");
    if (!contact) {
        *ret_contact = NULL;
        return ATT_OK;
    }
    enum att_rc rc = acme_contact_check(contact, err);
    if (rc) {
        return rc;
    }
    *ret_contact = json_deep_copy(contact);
    return *ret_contact ? ATT_OK : att_fail(err, ATT_E_NOMEM, "no memory");
}

static enum att_rc copy_eab(const json_t *obj, json_t **ret_eab, struct att_err *err)
{
    const json_t *eab = json_object_get(obj, "externalAccountBinding");
    if (eab && !json_is_object(eab)) {
        return att_fail(err, ATT_E_PARSE, "\"externalAccountBinding\": expected an object");
    }
    *ret_eab = eab ? json_deep_copy(eab) : NULL;
    return eab && !*ret_eab ? att_fail(err, ATT_E_NOMEM, "no memory") : ATT_OK;
}

static int put_copy(json_t *obj, const char *name, const json_t *value)
{
    return value ? json_object_set_new(obj, name, json_deep_copy(value)) : 0;
}

/* ---- account -----------------------------------------------------------------------------------
 */
void acme_account_done(struct acme_account *account)
{
    if (account) {
        free(account->orders);
        json_decref(account->contact);
        json_decref(account->eab);
        *account = (struct acme_account){0};
    }
}

enum att_rc acme_account_parse(const json_t *json, struct acme_account *ret_account,
                               struct att_err *err)
{
    struct acme_account account = {0};
    const char *status = NULL;
    enum att_rc rc = att_json_str(json, "status", &status, err);
    if (rc == ATT_OK) {
        account.status = acme_status_by_word(status);
        rc = acme_member_url(json, "orders", true, &account.orders, err);
    }
    if (rc == ATT_OK) {
        rc = copy_contact(json, &account.contact, err);
    }
    if (rc == ATT_OK) {
        rc = copy_eab(json, &account.eab, err);
    }
    if (rc != ATT_OK) {
        att_err_prefix(err, "account");
        acme_account_done(&account);
        return rc;
    }
    *ret_account = account;
    return ATT_OK;
}

enum att_rc acme_account_encode(const struct acme_account *account, json_t **ret_json,
                                struct att_err *err)
{
    att_autojson *json = json_object();
    int bad = acme_put_text(json, "status", acme_status_word(account->status));
    bad |= put_copy(json, "contact", account->contact);
    bad |= put_copy(json, "externalAccountBinding", account->eab);
    bad |= acme_put_text(json, "orders", account->orders);
    if (!json || bad) {
        return att_fail(err, ATT_E_NOMEM, "account: no memory");
    }
    *ret_json = json;
    json = NULL;
    return ATT_OK;
}

/* ---- newAccount --------------------------------------------------------------------------------
 */
void acme_account_request_done(struct acme_account_request *request)
{
    if (request) {
        json_decref(request->contact);
        json_decref(request->eab);
        *request = (struct acme_account_request){0};
    }
}

static enum att_rc take_request(const json_t *obj, struct acme_account_request *request,
                                struct att_err *err)
{
    enum att_rc rc =
        acme_member_bool(obj, "onlyReturnExisting", &request->only_return_existing, err);
    if (rc == ATT_OK) {
        rc = acme_member_bool(obj, "termsOfServiceAgreed", &request->terms_agreed, err);
    }
    if (rc == ATT_OK) {
        rc = copy_contact(obj, &request->contact, err);
    }
    return rc == ATT_OK ? copy_eab(obj, &request->eab, err) : rc;
}

enum att_rc acme_account_request_parse(struct att_slice payload,
                                       struct acme_account_request *ret_request,
                                       struct att_err *err)
{
    att_autojson *obj = NULL;
    enum att_rc rc = acme_request_object(payload, &obj, err);
    if (rc != ATT_OK) {
        return rc;
    }
    struct acme_account_request request = {0};
    rc = take_request(obj, &request, err);
    if (rc != ATT_OK) {
        att_err_prefix(err, "newAccount");
        acme_account_request_done(&request);
        return acme_malformed(rc, err);
    }
    *ret_request = request;
    return ATT_OK;
}

enum att_rc acme_account_request_encode(const struct acme_account_request *request,
                                        struct att_buf *ret_payload, struct att_err *err)
{
    att_autojson *json = json_object();
    int bad = 0;
    if (request->only_return_existing) {
        bad |= json_object_set_new(json, "onlyReturnExisting", json_true());
    }
    if (request->terms_agreed) {
        bad |= json_object_set_new(json, "termsOfServiceAgreed", json_true());
    }
    bad |= put_copy(json, "contact", request->contact);
    bad |= put_copy(json, "externalAccountBinding", request->eab);
    if (!json || bad) {
        return att_fail(err, ATT_E_NOMEM, "newAccount: no memory");
    }
    return att_json_dump(json, false, ret_payload, err);
}
