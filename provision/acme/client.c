/* The session half of client.h: directory, nonces, the signed POST. */
#include "attestd/base/hash.h"
#include "provision/acme/client_session.h"
#include "provision/acme/member.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- life --------------------------------------------------------------------------------------
 */
/* Length of "https://host:port" in url. */
static size_t origin_length(const char *url)
{
    const char *host = url + strlen("https://");
    return strlen("https://") + strcspn(host, "/?#");
}

static bool same_origin(const struct acme_client *client, const char *url)
{
    return acme_url_ok(url) && origin_length(url) == client->origin_len &&
           strncmp(url, client->base_url, client->origin_len) == 0;
}

static enum att_rc start(const struct acme_client_config *config, struct acme_client *client,
                         struct att_err *err)
{
    client->base_url = strdup(config->base_url);
    const char *directory = config->directory ? config->directory : "directory";
    if (strlen(directory) > ACME_DIRECTORY_PATH_MAX) {
        return att_fail(err, ATT_E_LIMIT, "the directory's path: %d bytes at most",
                        ACME_DIRECTORY_PATH_MAX);
    }
    memcpy(client->directory, directory, strlen(directory) + 1);
    if (!client->base_url) {
        return att_fail(err, ATT_E_NOMEM, "ACME client: no memory");
    }
    size_t len = strlen(client->base_url);
    if (client->base_url[len - 1] == '/') {
        client->base_url[len - 1] = 0;
    }
    client->origin_len = origin_length(client->base_url);
    client->signer = config->signer;
    client->last.retry_after_s = -1;
    enum att_rc rc = acme_spki_to_jwk(config->account_spki, &client->jwk, err);
    if (rc == ATT_OK) {
        rc = acme_jwk_thumbprint(client->jwk, client->thumbprint, err);
    }
    if (rc == ATT_OK) {
        rc = acme_http_new(&config->http, &client->http, err);
    }
    return rc == ATT_OK && config->kid ? acme_client_set_kid(client, config->kid, err) : rc;
}

enum att_rc acme_client_new(const struct acme_client_config *config,
                            struct acme_client **ret_client, struct att_err *err)
{
    if (!config->base_url || !acme_url_ok(config->base_url) || strpbrk(config->base_url, "?#@")) {
        return att_fail(err, ATT_E_INVAL, "issuer URL \"%.80s\": expected https://host[:port]/path",
                        config->base_url ? config->base_url : "");
    }
    struct acme_client *client = calloc(1, sizeof *client);
    if (!client) {
        return att_fail(err, ATT_E_NOMEM, "ACME client: no memory");
    }
    enum att_rc rc = start(config, client, err);
    if (rc != ATT_OK) {
        acme_client_free(client);
        return rc;
    }
    *ret_client = client;
    return ATT_OK;
}

void acme_client_free(struct acme_client *client)
{
    if (client) {
        acme_directory_done(&client->dir);
        acme_http_free(client->http);
        json_decref(client->jwk);
        free(client->kid);
        free(client->base_url);
        free(client);
    }
}

void acme_client_cancel(struct acme_client *client, bool cancel)
{
    acme_http_cancel(client->http, cancel);
}

const struct acme_client_last *acme_client_last(const struct acme_client *client)
{
    return &client->last;
}

const char *acme_client_thumbprint(const struct acme_client *client)
{
    return client->thumbprint;
}

const char *acme_client_kid(const struct acme_client *client)
{
    return client->kid;
}

enum att_rc acme_client_set_kid(struct acme_client *client, const char *kid, struct att_err *err)
{
    if (!same_origin(client, kid)) {
        return att_fail(err, ATT_E_INVAL, "account URL \"%.80s\" is not one of the issuer's", kid);
    }
    char *copy = strdup(kid);
    if (!copy) {
        return att_fail(err, ATT_E_NOMEM, "ACME client: no memory");
    }
    free(client->kid);
    client->kid = copy;
    return ATT_OK;
}

enum att_rc acme_client_location(const struct acme_client *client,
                                 const struct acme_http_response *response, char **ret_url,
                                 struct att_err *err)
{
    if (!same_origin(client, response->location)) {
        return att_fail(err, ATT_E_PROTOCOL, "the issuer's answer has no Location of its own");
    }
    char *copy = strdup(response->location);
    if (!copy) {
        return att_fail(err, ATT_E_NOMEM, "ACME client: no memory");
    }
    *ret_url = copy;
    return ATT_OK;
}

/* ---- exchanges ---------------------------------------------------------------------------------
 */
/* Performs and notes what acme_client_last tells, and the nonce. */
static enum att_rc exchange(struct acme_client *client, const struct acme_http_request *request,
                            struct acme_http_response *ret_response, struct att_err *err)
{
    client->last.status = 0;
    client->last.retry_after_s = -1;
    client->last.has_problem = false;
    enum att_rc rc = acme_http_perform(client->http, request, ret_response, err);
    if (rc != ATT_OK) {
        return rc;
    }
    client->last.status = ret_response->status;
    client->last.retry_after_s = ret_response->retry_after_s;
    memcpy(client->last.tls_group, ret_response->tls_group, sizeof client->last.tls_group);
    if (ret_response->nonce[0]) {
        if (client->n_nonces == ACME_CLIENT_NONCES) { /* the oldest is the likeliest to be stale */
            memmove(client->nonces[0], client->nonces[1],
                    sizeof client->nonces - sizeof client->nonces[0]);
            client->n_nonces--;
        }
        memcpy(client->nonces[client->n_nonces++], ret_response->nonce, sizeof ret_response->nonce);
    }
    return ATT_OK;
}

/* An answer that is not a success, as an error; the problem stays in client->last. */
static enum att_rc answer_error(struct acme_client *client,
                                const struct acme_http_response *response, const char *url,
                                struct att_err *err)
{
    struct acme_problem *problem = &client->last.problem;
    *problem = (struct acme_problem){0};
    client->last.has_problem =
        strcmp(response->content_type, ACME_PROBLEM_CONTENT_TYPE) == 0 &&
        acme_problem_parse(att_buf_slice(&response->body), problem, NULL) == ATT_OK;
    if (client->last.has_problem) {
        problem->status = response->status;
        problem->retry_after_s = (int)response->retry_after_s;
        return acme_problem_to_err(problem, err);
    }
    int status = response->status;
    enum att_rc rc = status >= 500 || status == 429 ? ATT_E_RETRY
                     : status == 404                ? ATT_E_NOTFOUND
                                                    : ATT_E_PROTOCOL;
    return att_fail_native(err, rc, ATT_DOM_HTTP, status,
                           "%s: HTTP status %d without a problem document", url, status);
}

static enum att_rc expect_json(const struct acme_http_response *response, const char *url,
                               json_t **ret_json, struct att_err *err)
{
    json_t *json = NULL;
    if (strcmp(response->content_type, "application/json") != 0) {
        return att_fail(err, ATT_E_PROTOCOL, "%s: expected application/json, found \"%s\"", url,
                        response->content_type);
    }
    enum att_rc rc = att_json_parse(att_buf_slice(&response->body), ACME_OBJECT_MAX, &json, err);
    if (rc == ATT_OK && !json_is_object(json)) {
        json_decref(json);
        rc = att_fail(err, ATT_E_PARSE, "expected an object");
    }
    if (rc != ATT_OK) {
        att_err_prefix(err, "%s", url);
        return ATT_E_PROTOCOL;
    }
    *ret_json = json;
    return ATT_OK;
}

/* ---- directory ---------------------------------------------------------------------------------
 */
static enum att_rc check_origins(const struct acme_client *client, const struct acme_directory *dir,
                                 struct att_err *err)
{
    const char *const urls[] = {dir->new_nonce,   dir->new_account, dir->new_order,
                                dir->host_view,   dir->new_token,   dir->new_attestation_key,
                                dir->revoke_cert, dir->key_change,  dir->renewal_info};
    for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++) {
        if (urls[i] && !same_origin(client, urls[i])) {
            return att_fail(err, ATT_E_PROTOCOL, "directory: %.200s is not under %.*s", urls[i],
                            (int)client->origin_len, client->base_url);
        }
    }
    return ATT_OK;
}

static enum att_rc fetch_directory(struct acme_client *client, struct att_err *err)
{
    char url[ACME_URL_MAX + sizeof client->directory + 1];
    snprintf(url, sizeof url, "%s/%s", client->base_url, client->directory);
    struct acme_http_response response = {0};
    const struct acme_http_request request = {.method = "GET", .url = url};
    enum att_rc rc = exchange(client, &request, &response, err);
    if (rc != ATT_OK) {
        return rc;
    }
    att_autojson *json = NULL;
    struct acme_directory dir = {0};
    rc = response.status == 200 ? expect_json(&response, url, &json, err)
                                : answer_error(client, &response, url, err);
    acme_http_response_done(&response);
    if (rc == ATT_OK && acme_directory_parse(json, &dir, err) != ATT_OK) {
        rc = ATT_E_PROTOCOL;
    }
    if (rc == ATT_OK) {
        rc = check_origins(client, &dir, err);
    }
    if (rc != ATT_OK) {
        acme_directory_done(&dir);
        return rc;
    }
    acme_directory_done(&client->dir);
    client->dir = dir;
    client->have_dir = true;
    return ATT_OK;
}

enum att_rc acme_client_directory(struct acme_client *client, bool refresh,
                                  const struct acme_directory **ret_dir, struct att_err *err)
{
    enum att_rc rc = client->have_dir && !refresh ? ATT_OK : fetch_directory(client, err);
    if (rc == ATT_OK && ret_dir) {
        *ret_dir = &client->dir;
    }
    return rc;
}

enum att_rc acme_client_crl(struct acme_client *client, const char *file, uint64_t number,
                            bool *ret_changed, struct att_buf *ret_der, struct att_err *err)
{
    char url[ACME_URL_MAX + 64], etag[32];
    snprintf(url, sizeof url, "%s/crl/%.48s", client->base_url, file);
    snprintf(etag, sizeof etag, "%" PRIu64, number);
    struct acme_http_response response = {0};
    const struct acme_http_request request = {.method = "GET",
                                              .url = url,
                                              .if_none_match = number ? etag : NULL,
                                              .max_body = ACME_CRL_MAX};
    enum att_rc rc = exchange(client, &request, &response, err);
    if (rc == ATT_OK && response.status == 404) {
        rc = att_fail(err, ATT_E_NOTFOUND, "the issuer has no revocation list");
    } else if (rc == ATT_OK && response.status == 200) {
        att_buf_put_slice(ret_der, att_buf_slice(&response.body));
        rc = att_buf_ok(ret_der, err);
    } else if (rc == ATT_OK && (response.status != 304 || !number)) {
        rc = answer_error(client, &response, url, err);
    }
    if (rc == ATT_OK) {
        *ret_changed = response.status == 200;
    }
    acme_http_response_done(&response);
    return rc;
}

enum att_rc acme_client_renewal_info(struct acme_client *client, const char *cert_id,
                                     struct acme_renewal_info *ret_info, struct att_err *err)
{
    char url[ACME_URL_MAX + ACME_CERT_ID_LEN + 1];
    enum att_rc rc = acme_client_directory(client, false, NULL, err);
    if (rc == ATT_OK && !client->dir.renewal_info) {
        rc = att_fail(err, ATT_E_UNSUPPORTED, "the issuer has no renewalInfo");
    }
    if (rc != ATT_OK) {
        return rc;
    }
    snprintf(url, sizeof url, "%s/%s", client->dir.renewal_info, cert_id);
    struct acme_http_response response = {0};
    const struct acme_http_request request = {.method = "GET", .url = url};
    rc = exchange(client, &request, &response, err);
    if (rc != ATT_OK) {
        return rc;
    }
    att_autojson *json = NULL;
    rc = response.status == 200 ? expect_json(&response, url, &json, err)
                                : answer_error(client, &response, url, err);
    acme_http_response_done(&response);
    if (rc == ATT_OK && acme_renewal_info_parse(json, ret_info, err) != ATT_OK) {
        rc = ATT_E_PROTOCOL;
    }
    return rc;
}

/* ---- signed requests ---------------------------------------------------------------------------
 */
static enum att_rc take_nonce(struct acme_client *client, char ret[256], struct att_err *err)
{
    if (client->n_nonces == 0) {
        enum att_rc rc = acme_client_directory(client, false, NULL, err);
        if (rc != ATT_OK) {
            return rc;
        }
        struct acme_http_response response = {0};
        const struct acme_http_request request = {.method = "HEAD", .url = client->dir.new_nonce};
        rc = exchange(client, &request, &response, err);
        if (rc == ATT_OK && response.status != 200 && response.status != 204) {
            rc = answer_error(client, &response, client->dir.new_nonce, err);
        }
        acme_http_response_done(&response);
        if (rc == ATT_OK && client->n_nonces == 0) {
            rc = att_fail(err, ATT_E_PROTOCOL, "newNonce: there is no Replay-Nonce in the answer");
        }
        if (rc != ATT_OK) {
            return rc;
        }
    }
    memcpy(ret, client->nonces[--client->n_nonces], 256);
    return ATT_OK;
}

static enum att_rc sign_body(struct acme_client *client, const struct acme_client_post *post,
                             struct att_buf *ret_body, struct att_err *err)
{
    char nonce[256];
    enum att_rc rc = take_nonce(client, nonce, err);
    if (rc != ATT_OK) {
        return rc;
    }
    if (!post->use_jwk && !client->kid) {
        return att_fail(err, ATT_E_CONFLICT, "there is no ACME account yet");
    }
    att_autobuf header = {0};
    rc = acme_jws_protected(nonce, post->url, post->use_jwk ? client->jwk : NULL,
                            post->use_jwk ? NULL : client->kid, &header, err);
    if (rc != ATT_OK) {
        return rc;
    }
    if (!post->payload_of) {
        return acme_jws_sign(&client->signer, att_buf_slice(&header), post->payload, ret_body, err);
    }
    att_autobuf payload = {0};
    rc = post->payload_of(post->user, nonce, &payload, err);
    return rc != ATT_OK ? rc
                        : acme_jws_sign(&client->signer, att_buf_slice(&header),
                                        att_buf_slice(&payload), ret_body, err);
}

static enum att_rc post_once(struct acme_client *client, const struct acme_client_post *post,
                             struct acme_http_response *ret_response, struct att_err *err)
{
    att_autobuf body = ATT_BUF_INIT(2 * ACME_JWS_MAX);
    enum att_rc rc = sign_body(client, post, &body, err);
    if (rc != ATT_OK) {
        return rc;
    }
    const struct acme_http_request request = {
        .method = "POST",
        .url = post->url,
        .content_type = "application/jose+json",
        .accept = post->accept,
        .if_none_match = post->if_none_match,
        .prefer = post->prefer,
        .body = att_buf_slice(&body),
        .max_body = post->max_body,
        .timeout_ms = post->timeout_ms,
    };
    struct acme_http_response response = {0};
    rc = exchange(client, &request, &response, err);
    if (rc != ATT_OK) {
        return rc;
    }
    bool good = (response.status >= 200 && response.status < 300) ||
                (response.status == 304 && post->if_none_match);
    if (!good) {
        rc = answer_error(client, &response, post->url, err);
        acme_http_response_done(&response);
        return rc;
    }
    *ret_response = response;
    return ATT_OK;
}

enum att_rc acme_client_post(struct acme_client *client, const struct acme_client_post *post,
                             struct acme_http_response *ret_response, struct att_err *err)
{
    if (!post->url || !same_origin(client, post->url)) {
        return att_fail(err, ATT_E_INVAL, "\"%.80s\" is not one of the issuer's URLs",
                        post->url ? post->url : "");
    }
    for (int try = 1;; try++) {
        struct att_err now = {0};
        enum att_rc rc = post_once(client, post, ret_response, &now);
        bool bad_nonce = rc != ATT_OK && client->last.has_problem &&
                         client->last.problem.type == ACME_P_BAD_NONCE;
        if (!bad_nonce || try == ACME_CLIENT_NONCE_TRIES) {
            if (rc != ATT_OK && err && err->rc == ATT_OK) {
                *err = now;
            }
            return rc;
        }
        /* RFC 8555 §6.5: go on with the nonce that came with the refusal; older ones are suspect.
         */
        if (client->n_nonces > 1) {
            memmove(client->nonces[0], client->nonces[client->n_nonces - 1],
                    sizeof client->nonces[0]);
            client->n_nonces = 1;
        }
    }
}

enum att_rc acme_client_post_json(struct acme_client *client, const struct acme_client_post *post,
                                  json_t **ret_json, struct acme_http_response *ret_response,
                                  struct att_err *err)
{
    struct acme_http_response response = {0};
    enum att_rc rc = acme_client_post(client, post, &response, err);
    if (rc == ATT_OK) {
        rc = expect_json(&response, post->url, ret_json, err);
    }
    if (rc == ATT_OK && ret_response) {
        *ret_response = response;
    } else {
        acme_http_response_done(&response);
    }
    return rc;
}

/* ---- waiting -----------------------------------------------------------------------------------
 */
int64_t acme_backoff_ms(unsigned attempt, int64_t base_ms, int64_t max_ms)
{
    int64_t whole = base_ms > 0 ? base_ms : 1;
    for (unsigned i = 0; i < attempt && whole < max_ms; i++) {
        whole = whole > max_ms / 2 ? max_ms : whole * 2;
    }
    whole = whole > max_ms ? max_ms : whole;
    uint32_t random = UINT32_MAX / 2;
    (void)!att_random((uint8_t *)&random, sizeof random, NULL);
    int64_t half = whole / 2;
    return whole - half + (int64_t)((double)half * random / UINT32_MAX);
}

int64_t acme_client_delay_ms(const struct acme_client *client, unsigned attempt, int64_t base_ms,
                             int64_t max_ms)
{
    int64_t asked_s = client->last.retry_after_s;
    if (asked_s < 0) {
        return acme_backoff_ms(attempt, base_ms, max_ms);
    }
    int64_t asked_ms = asked_s > max_ms / 1000 ? max_ms : asked_s * 1000;
    return asked_ms < base_ms ? base_ms : asked_ms;
}

enum att_rc acme_client_sleep(struct acme_client *client, int64_t ms, struct att_err *err)
{
    return acme_http_sleep(client->http, ms, err);
}
