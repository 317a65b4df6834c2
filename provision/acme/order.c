#include "attestd/base/enc.h"
#include "provision/acme/member.h"
#include "provision/acme/objects.h"

#include <stdlib.h>
#include <string.h>

static enum att_rc parse_identifiers(const json_t *obj, struct acme_identifier *ret_ids,
                                     size_t *ret_n, struct att_err *err)
{
    const json_t *array = json_object_get(obj, "identifiers");
    size_t n = json_array_size(array);
    if (n == 0 || n > ACME_IDENTIFIERS_MAX) {
        return att_fail(err, ATT_E_PARSE, "\"identifiers\": expected an array of 1 … %d",
                        ACME_IDENTIFIERS_MAX);
    }
    for (size_t i = 0; i < n; i++) {
        enum att_rc rc = acme_identifier_parse(json_array_get(array, i), &ret_ids[i], err);
        if (rc != ATT_OK) {
            return rc;
        }
    }
    *ret_n = n;
    return ATT_OK;
}

static int put_identifiers(json_t *obj, const struct acme_identifier *ids, size_t n)
{
    json_t *array = json_array();
    int bad = 0;
    for (size_t i = 0; i < n; i++) {
        json_t *id = NULL;
        bad |= acme_identifier_encode(&ids[i], &id, NULL) != ATT_OK;
        bad |= json_array_append_new(array, id);
    }
    return bad | json_object_set_new(obj, "identifiers", array);
}

/* ---- order -------------------------------------------------------------------------------------
 */
void acme_order_done(struct acme_order *order)
{
    if (order) {
        free(order->profile);
        for (size_t i = 0; i < ACME_IDENTIFIERS_MAX; i++) {
            free(order->authorizations[i]);
        }
        free(order->finalize);
        free(order->certificate);
        *order = (struct acme_order){0};
    }
}

static enum att_rc parse_authorizations(const json_t *obj, struct acme_order *order,
                                        struct att_err *err)
{
    const json_t *array = json_object_get(obj, "authorizations");
    if (!json_is_array(array) || json_array_size(array) > ACME_IDENTIFIERS_MAX) {
        return att_fail(err, ATT_E_PARSE, "\"authorizations\": expected an array of at most %d",
                        ACME_IDENTIFIERS_MAX);
    }
    for (size_t i = 0; i < json_array_size(array); i++) {
        att_autojson *one = json_pack("{s:O}", "url", json_array_get(array, i));
        enum att_rc rc = acme_member_url(one, "url", false, &order->authorizations[i], err);
        if (rc != ATT_OK) {
            att_err_prefix(err, "\"authorizations\"");
            return rc;
        }
        order->n_authorizations++;
    }
    return ATT_OK;
}

static enum att_rc take_order(const json_t *json, struct acme_order *order, struct att_err *err)
{
    const char *status = NULL;
    enum att_rc rc = att_json_str(json, "status", &status, err);
    order->status = acme_status_by_word(status);
    if (rc == ATT_OK && order->status == ACME_S_NONE) {
        rc = att_fail(err, ATT_E_PARSE, "\"status\": \"%.32s\" is no order's", status);
    }
    if (rc == ATT_OK) {
        rc = acme_member_time(json, "expires", &order->expires_at, err);
    }
    if (rc == ATT_OK) {
        rc = parse_identifiers(json, order->identifiers, &order->n_identifiers, err);
    }
    if (rc == ATT_OK) {
        rc = acme_member_text(json, "profile", ACME_TEXT_MAX, true, &order->profile, err);
    }
    if (rc == ATT_OK) {
        rc = parse_authorizations(json, order, err);
    }
    if (rc == ATT_OK) {
        rc = acme_member_url(json, "finalize", false, &order->finalize, err);
    }
    if (rc == ATT_OK) {
        rc = acme_member_url(json, "certificate", true, &order->certificate, err);
    }
    const json_t *error = json_object_get(json, "error");
    if (rc == ATT_OK && error) {
        order->has_error = true;
        rc = acme_problem_parse_json(error, &order->error, err);
    }
    return rc;
}

enum att_rc acme_order_parse(const json_t *json, struct acme_order *ret_order, struct att_err *err)
{
    struct acme_order order = {0};
    enum att_rc rc = take_order(json, &order, err);
    if (rc != ATT_OK) {
        att_err_prefix(err, "order");
        acme_order_done(&order);
        return rc;
    }
    *ret_order = order;
    return ATT_OK;
}

enum att_rc acme_order_encode(const struct acme_order *order, json_t **ret_json,
                              struct att_err *err)
{
    att_autojson *json = json_object();
    json_t *authorizations = json_array(), *error = NULL;
    int bad = acme_put_text(json, "status", acme_status_word(order->status));
    bad |= acme_put_time(json, "expires", order->expires_at);
    bad |= put_identifiers(json, order->identifiers, order->n_identifiers);
    bad |= acme_put_text(json, "profile", order->profile);
    for (size_t i = 0; i < order->n_authorizations; i++) {
        bad |= json_array_append_new(authorizations, json_string(order->authorizations[i]));
    }
    bad |= json_object_set_new(json, "authorizations", authorizations);
    bad |= acme_put_text(json, "finalize", order->finalize);
    bad |= acme_put_text(json, "certificate", order->certificate);
    if (order->has_error) {
        bad |= acme_problem_encode(&order->error, &error, NULL) != ATT_OK;
        bad |= json_object_set_new(json, "error", error);
    }
    if (!json || bad) {
        return att_fail(err, ATT_E_NOMEM, "order: no memory, or a text is not UTF-8");
    }
    *ret_json = json;
    json = NULL;
    return ATT_OK;
}

/* ---- newOrder ----------------------------------------------------------------------------------
 */
void acme_order_request_done(struct acme_order_request *request)
{
    if (request) {
        free(request->profile);
        free(request->replaces);
        *request = (struct acme_order_request){0};
    }
}

/* No certificate is of the year 1: it is how clients in Go, step among them, write a time that
 * nobody set. */
static bool no_time(const json_t *obj, const char *name)
{
    const json_t *value = json_object_get(obj, name);
    return !value ||
           (json_is_string(value) && !strcmp(json_string_value(value), "0001-01-01T00:00:00Z"));
}

static enum att_rc take_request(const json_t *obj, struct acme_order_request *request,
                                struct att_err *err)
{
    if (!no_time(obj, "notBefore") || !no_time(obj, "notAfter")) {
        return att_fail(err, ATT_E_PARSE, "notBefore and notAfter are the profile's to decide");
    }
    enum att_rc rc = parse_identifiers(obj, request->identifiers, &request->n_identifiers, err);
    if (rc == ATT_OK) {
        rc = acme_member_text(obj, "profile", ACME_TEXT_MAX, true, &request->profile, err);
    }
    return rc == ATT_OK
               ? acme_member_text(obj, "replaces", ACME_TEXT_MAX, true, &request->replaces, err)
               : rc;
}

enum att_rc acme_order_request_parse(struct att_slice payload,
                                     struct acme_order_request *ret_request, struct att_err *err)
{
    att_autojson *obj = NULL;
    enum att_rc rc = acme_request_object(payload, &obj, err);
    if (rc != ATT_OK) {
        return rc;
    }
    struct acme_order_request request = {0};
    rc = take_request(obj, &request, err);
    if (rc != ATT_OK) {
        att_err_prefix(err, "newOrder");
        acme_order_request_done(&request);
        return acme_malformed(rc, err);
    }
    *ret_request = request;
    return ATT_OK;
}

enum att_rc acme_order_request_encode(const struct acme_order_request *request,
                                      struct att_buf *ret_payload, struct att_err *err)
{
    att_autojson *json = json_object();
    int bad = put_identifiers(json, request->identifiers, request->n_identifiers);
    bad |= acme_put_text(json, "profile", request->profile);
    bad |= acme_put_text(json, "replaces", request->replaces);
    if (!json || bad) {
        return att_fail(err, ATT_E_NOMEM, "newOrder: no memory, or a text is not UTF-8");
    }
    return att_json_dump(json, false, ret_payload, err);
}

/* ---- finalize ----------------------------------------------------------------------------------
 */
enum att_rc acme_finalize_request_parse(struct att_slice payload, struct att_buf *ret_csr_der,
                                        struct att_err *err)
{
    att_autojson *obj = NULL;
    enum att_rc rc = acme_request_object(payload, &obj, err);
    if (rc != ATT_OK) {
        return rc;
    }
    rc = att_json_b64u(obj, "csr", ACME_CSR_MAX, ret_csr_der, err);
    if (rc == ATT_OK && ret_csr_der->len == 0) {
        rc = att_fail(err, ATT_E_PARSE, "\"csr\" is empty");
    }
    if (rc != ATT_OK) {
        att_err_prefix(err, "finalize");
        att_err_reason(err, "badCSR");
    }
    return rc;
}

enum att_rc acme_finalize_request_encode(struct att_slice csr_der, struct att_buf *ret_payload,
                                         struct att_err *err)
{
    att_autojson *json = json_object();
    enum att_rc rc = att_json_set_b64u(json, "csr", csr_der, err);
    return rc == ATT_OK ? att_json_dump(json, false, ret_payload, err) : rc;
}
