/* The calls of client.h, M1 … M7. */
#include "attestd/base/clock.h"
#include "provision/acme/client_session.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ORDER_POLL_FIRST_MS 1000
#define ORDER_POLL_MAX_MS   8000
#define RETRY_AFTER_MAX_MS  300000

/* The issuer's object did not have its form. */
static enum att_rc protocol(enum att_rc rc)
{
    return rc == ATT_OK || rc == ATT_E_NOMEM ? rc : ATT_E_PROTOCOL;
}

/* ---- account -----------------------------------------------------------------------------------
 */
static enum att_rc account_payload(struct acme_client *client, const char *eab_kid,
                                   struct att_slice eab_mac, bool existing_only,
                                   struct att_buf *ret_payload, struct att_err *err)
{
    struct acme_account_request request = {.only_return_existing = existing_only,
                                           .terms_agreed = !existing_only};
    enum att_rc rc = ATT_OK;
    if (eab_kid) {
        rc = acme_eab_create(eab_kid, eab_mac, client->dir.new_account, client->jwk, &request.eab,
                             err);
    }
    if (rc == ATT_OK) {
        rc = acme_account_request_encode(&request, ret_payload, err);
    }
    acme_account_request_done(&request);
    return rc;
}

enum att_rc acme_client_new_account(struct acme_client *client, const char *eab_kid,
                                    struct att_slice eab_mac, bool existing_only,
                                    struct att_err *err)
{
    att_autobuf payload = {0};
    enum att_rc rc = acme_client_directory(client, false, NULL, err);
    if (rc == ATT_OK) {
        rc = account_payload(client, eab_kid, eab_mac, existing_only, &payload, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    att_autojson *json = NULL;
    struct acme_http_response response = {0};
    const struct acme_client_post post = {
        .url = client->dir.new_account, .payload = att_buf_slice(&payload), .use_jwk = true};
    rc = acme_client_post_json(client, &post, &json, &response, err);
    if (rc != ATT_OK) {
        return rc;
    }
    struct acme_account account = {0};
    char *kid = NULL;
    rc = protocol(acme_account_parse(json, &account, err));
    if (rc == ATT_OK && account.status != ACME_S_VALID) {
        rc = att_fail(err, ATT_E_DENIED, "the ACME account is %s",
                      account.status ? acme_status_word(account.status) : "in an unknown state");
    }
    if (rc == ATT_OK) {
        rc = acme_client_location(client, &response, &kid, err);
    }
    if (rc == ATT_OK) {
        rc = acme_client_set_kid(client, kid, err);
    }
    free(kid);
    acme_account_done(&account);
    acme_http_response_done(&response);
    return rc;
}

/* ---- enrolment ---------------------------------------------------------------------------------
 */
enum att_rc acme_client_new_attestation_key(struct acme_client *client, struct att_slice payload,
                                            struct att_buf *ret_body, char **ret_url,
                                            struct att_err *err)
{
    enum att_rc rc = acme_client_directory(client, false, NULL, err);
    if (rc == ATT_OK && !client->dir.new_attestation_key) {
        rc = att_fail(err, ATT_E_UNSUPPORTED,
                      "the issuer has no newAttestationKey: not attest-issuerd?");
    }
    if (rc != ATT_OK) {
        return rc;
    }
    struct acme_http_response response = {0};
    const struct acme_client_post post = {.url = client->dir.new_attestation_key,
                                          .payload = payload};
    rc = acme_client_post(client, &post, &response, err);
    if (rc == ATT_OK) {
        rc = acme_client_location(client, &response, ret_url, err);
    }
    if (rc == ATT_OK) {
        att_buf_put_slice(ret_body, att_buf_slice(&response.body));
        rc = att_buf_ok(ret_body, err);
        if (rc != ATT_OK) {
            free(*ret_url);
            *ret_url = NULL;
        }
    }
    acme_http_response_done(&response);
    return rc;
}

enum att_rc acme_client_activate(struct acme_client *client, const char *ak_url,
                                 struct att_slice payload, struct att_buf *ret_body,
                                 struct att_err *err)
{
    struct acme_http_response response = {0};
    const struct acme_client_post post = {.url = ak_url, .payload = payload};
    enum att_rc rc = acme_client_post(client, &post, &response, err);
    if (rc == ATT_OK) {
        att_buf_put_slice(ret_body, att_buf_slice(&response.body));
        rc = att_buf_ok(ret_body, err);
    }
    acme_http_response_done(&response);
    return rc;
}

/* ---- orders ------------------------------------------------------------------------------------
 */
enum att_rc acme_client_new_order(struct acme_client *client,
                                  const struct acme_order_request *request,
                                  struct acme_order *ret_order, char **ret_url, struct att_err *err)
{
    att_autobuf payload = {0};
    enum att_rc rc = acme_client_directory(client, false, NULL, err);
    if (rc == ATT_OK) {
        rc = acme_order_request_encode(request, &payload, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    att_autojson *json = NULL;
    struct acme_http_response response = {0};
    const struct acme_client_post post = {.url = client->dir.new_order,
                                          .payload = att_buf_slice(&payload)};
    rc = acme_client_post_json(client, &post, &json, &response, err);
    if (rc != ATT_OK) {
        return rc;
    }
    char *url = NULL;
    rc = acme_client_location(client, &response, &url, err);
    acme_http_response_done(&response);
    if (rc == ATT_OK) {
        rc = protocol(acme_order_parse(json, ret_order, err));
    }
    if (rc != ATT_OK) {
        free(url);
        return rc;
    }
    *ret_url = url;
    return ATT_OK;
}

enum att_rc acme_client_order(struct acme_client *client, const char *url,
                              struct acme_order *ret_order, struct att_err *err)
{
    att_autojson *json = NULL;
    const struct acme_client_post post = {.url = url};
    enum att_rc rc = acme_client_post_json(client, &post, &json, NULL, err);
    return rc == ATT_OK ? protocol(acme_order_parse(json, ret_order, err)) : rc;
}

enum att_rc acme_client_authz(struct acme_client *client, const char *url,
                              struct acme_authz *ret_authz, struct att_err *err)
{
    att_autojson *json = NULL;
    const struct acme_client_post post = {.url = url};
    enum att_rc rc = acme_client_post_json(client, &post, &json, NULL, err);
    return rc == ATT_OK ? protocol(acme_authz_parse(json, ret_authz, err)) : rc;
}

/* The error inside an object that turned invalid, as this call's error. */
static enum att_rc object_error(struct acme_client *client, bool has_error,
                                const struct acme_problem *error, const char *what,
                                struct att_err *err)
{
    if (!has_error) {
        return att_fail(err, ATT_E_DENIED, "the %s is invalid; the issuer gives no reason", what);
    }
    client->last.has_problem = true;
    client->last.problem = *error;
    return acme_problem_to_err(error, err);
}

enum att_rc acme_client_challenge(struct acme_client *client, const char *url,
                                  struct att_slice payload, struct acme_challenge *ret_challenge,
                                  struct att_err *err)
{
    att_autojson *json = NULL;
    struct acme_challenge challenge = {0};
    const struct acme_client_post post = {.url = url, .payload = payload};
    enum att_rc rc = acme_client_post_json(client, &post, &json, NULL, err);
    if (rc == ATT_OK) {
        rc = protocol(acme_challenge_parse(json, &challenge, err));
    }
    if (rc != ATT_OK) {
        return rc;
    }
    if (challenge.status == ACME_S_INVALID) {
        rc = object_error(client, challenge.has_error, &challenge.error, "challenge", err);
        acme_challenge_done(&challenge);
        return rc;
    }
    *ret_challenge = challenge;
    return ATT_OK;
}

/* Gives an order to the caller, or its error if it is invalid. */
static enum att_rc give_order(struct acme_client *client, struct acme_order *order,
                              struct acme_order *ret_order, struct att_err *err)
{
    if (order->status == ACME_S_INVALID) {
        enum att_rc rc = object_error(client, order->has_error, &order->error, "order", err);
        acme_order_done(order);
        return rc;
    }
    *ret_order = *order;
    return ATT_OK;
}

enum att_rc acme_client_finalize(struct acme_client *client, const char *url,
                                 struct att_slice csr_der, struct acme_order *ret_order,
                                 struct att_err *err)
{
    att_autobuf payload = {0};
    att_autojson *json = NULL;
    struct acme_order order = {0};
    enum att_rc rc = acme_finalize_request_encode(csr_der, &payload, err);
    if (rc == ATT_OK) {
        const struct acme_client_post post = {.url = url, .payload = att_buf_slice(&payload)};
        rc = acme_client_post_json(client, &post, &json, NULL, err);
    }
    if (rc == ATT_OK) {
        rc = protocol(acme_order_parse(json, &order, err));
    }
    return rc == ATT_OK ? give_order(client, &order, ret_order, err) : rc;
}

static bool still_waiting(const struct acme_order *order, bool while_pending)
{
    return order->status == ACME_S_PROCESSING || (while_pending && order->status == ACME_S_PENDING);
}

enum att_rc acme_client_wait_order(struct acme_client *client, const char *url, bool while_pending,
                                   int64_t timeout_ms, struct acme_order *ret_order,
                                   struct att_err *err)
{
    int64_t deadline = att_boottime_ms() + timeout_ms;
    int64_t step_ms = ORDER_POLL_FIRST_MS;
    for (;;) {
        struct acme_order order = {0};
        enum att_rc rc = acme_client_order(client, url, &order, err);
        if (rc != ATT_OK) {
            return rc;
        }
        if (!still_waiting(&order, while_pending)) {
            return give_order(client, &order, ret_order, err);
        }
        acme_order_done(&order);
        int64_t wait_ms = step_ms;
        if (client->last.retry_after_s >= 0) {
            wait_ms = acme_client_delay_ms(client, 0, ORDER_POLL_FIRST_MS, RETRY_AFTER_MAX_MS);
        }
        step_ms = step_ms * 2 > ORDER_POLL_MAX_MS ? ORDER_POLL_MAX_MS : step_ms * 2;
        if (att_boottime_ms() + wait_ms >= deadline) {
            return att_fail(err, ATT_E_TIMEOUT, "order %s: not decided within %" PRId64 " ms", url,
                            timeout_ms);
        }
        rc = acme_client_sleep(client, wait_ms, err);
        if (rc != ATT_OK) {
            return rc;
        }
    }
}

/* ---- certificate and host view -----------------------------------------------------------------
 */
enum att_rc acme_client_certificate(struct acme_client *client, const char *url,
                                    struct att_buf *ret_pem, struct att_err *err)
{
    static const char type[] = "application/pem-certificate-chain";
    struct acme_http_response response = {0};
    const struct acme_client_post post = {.url = url, .accept = type, .max_body = ACME_CERT_MAX};
    enum att_rc rc = acme_client_post(client, &post, &response, err);
    if (rc != ATT_OK) {
        return rc;
    }
    if (strcmp(response.content_type, type) != 0) {
        rc = att_fail(err, ATT_E_PROTOCOL, "%s: expected %s, found \"%s\"", url, type,
                      response.content_type);
    } else {
        att_buf_put_slice(ret_pem, att_buf_slice(&response.body));
        rc = att_buf_ok(ret_pem, err);
    }
    acme_http_response_done(&response);
    return rc;
}

enum att_rc acme_client_host_view(struct acme_client *client, uint64_t version, int wait_s,
                                  bool *ret_changed, struct att_buf *ret_jws, struct att_err *err)
{
    enum att_rc rc = acme_client_directory(client, false, NULL, err);
    if (rc == ATT_OK && !client->dir.host_view) {
        rc = att_fail(err, ATT_E_UNSUPPORTED, "the issuer has no hostView: not attest-issuerd?");
    }
    if (rc != ATT_OK) {
        return rc;
    }
    char etag[32], prefer[32];
    wait_s = wait_s > ACME_HOST_VIEW_WAIT_MAX ? ACME_HOST_VIEW_WAIT_MAX : wait_s;
    snprintf(etag, sizeof etag, "%" PRIu64, version);
    snprintf(prefer, sizeof prefer, "wait=%d", wait_s);
    struct acme_http_response response = {0};
    const struct acme_client_post post = {
        .url = client->dir.host_view,
        .if_none_match = version ? etag : NULL,
        .prefer = version && wait_s > 0 ? prefer : NULL,
        .max_body = ACME_HOST_VIEW_MAX,
        .timeout_ms = ACME_HTTP_TIMEOUT_MS + (wait_s > 0 ? wait_s * 1000 : 0),
    };
    rc = acme_client_post(client, &post, &response, err);
    if (rc == ATT_OK && response.status != 304) {
        att_buf_put_slice(ret_jws, att_buf_slice(&response.body));
        rc = att_buf_ok(ret_jws, err);
    }
    if (rc == ATT_OK) {
        *ret_changed = response.status != 304;
    }
    acme_http_response_done(&response);
    return rc;
}

enum att_rc acme_client_new_token(struct acme_client *client,
                                  enum att_rc (*payload_of)(void *user, const char *nonce,
                                                            struct att_buf *ret_payload,
                                                            struct att_err *err),
                                  void *user, int timeout_ms, json_t **ret_json,
                                  struct att_err *err)
{
    enum att_rc rc = acme_client_directory(client, false, NULL, err);
    if (rc == ATT_OK && !client->dir.new_token) {
        rc = acme_client_directory(client, true, NULL, err); /* it may do so since */
    }
    if (rc == ATT_OK && !client->dir.new_token) {
        rc = att_fail(err, ATT_E_UNSUPPORTED, "the issuer mints no tokens");
        att_err_reason(err, "tokensOff");
    }
    if (rc != ATT_OK) {
        return rc;
    }
    const struct acme_client_post post = {.url = client->dir.new_token,
                                          .payload_of = payload_of,
                                          .user = user,
                                          .timeout_ms = timeout_ms};
    return acme_client_post_json(client, &post, ret_json, NULL, err);
}
