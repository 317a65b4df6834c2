/* The issuer's admin API over HTTPS: the same operations and answers as over its socket. */
#include "attestd/ctl/ctl.h"

#include "attestd/base/enc.h"
#include "attestd/base/hash.h"
#include "attestd/base/io.h"
#include "attestd/base/secret.h"
#include "provision/acme/http.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOKEN_MAX  ((size_t)16 << 10)
#define ANSWER_MAX ((size_t)8 << 20)
#define PATH       "/admin/v1"
#define TRIES      10 /* of what is to be asked again */
#define PAUSE_S    5  /* at most, between them */

bool ctl_is_remote(const struct ctl_ctx *ctx)
{
    return strncmp(ctx->admin_path, "https://", 8) == 0;
}

static enum att_rc usage(struct att_err *err, const char *what)
{
    enum att_rc rc = att_fail(err, ATT_E_INVAL, "%s", what);
    att_err_reason(err, "usage");
    return rc;
}

static enum att_rc check(const struct ctl_ctx *ctx, struct att_err *err)
{
    if (!ctx->cacert) {
        return usage(err, "--issuer https://…: expected --cacert FILE, the root of its "
                          "certificate");
    }
    if ((ctx->cert == NULL) != (ctx->key == NULL)) {
        return usage(err, "--cert and --key belong together");
    }
    if (ctx->cert && ctx->token_file) {
        return usage(err, "a certificate and a token: expected one of them");
    }
    return ATT_OK;
}

/* One token, and white space behind it. */
static enum att_rc read_token(const char *path, struct att_buf *ret_token, struct att_err *err)
{
    *ret_token = ATT_BUF_INIT(TOKEN_MAX + 2);
    enum att_rc rc = att_io_read_file(path, TOKEN_MAX + 1, ret_token, err);
    while (!rc && ret_token->len && strchr(" \t\r\n", ret_token->ptr[ret_token->len - 1])) {
        ret_token->len--;
    }
    static const char allowed[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/=";
    const char *text = rc ? NULL : att_buf_cstr(ret_token);
    if (!rc && (!text || !*text || strspn(text, allowed) != ret_token->len)) {
        rc = att_fail(err, ATT_E_PARSE, "%s: expected one token", path);
    }
    return rc;
}

/* Its own id, so that a request which is sent again is not done again. */
static enum att_rc body_of(const struct ctl_ctx *ctx, const char *op, const json_t *args,
                           struct att_buf *ret_body, struct att_err *err)
{
    uint8_t random[16];
    att_autobuf id = {0};
    if (ctx->request_id) {
        att_buf_put_str(&id, ctx->request_id);
    } else {
        enum att_rc rc = att_random(random, sizeof random, err);
        if (rc) {
            return rc;
        }
        att_buf_b64u(&id, ATT_SLICE_ARRAY(random));
    }
    att_autojson *json = json_pack("{s:s, s:s}", "op", op, "id", att_buf_cstr(&id));
    if (!json || (args && json_object_set(json, "args", (json_t *)(uintptr_t)args))) {
        return att_fail(err, ATT_E_NOMEM, "no memory");
    }
    *ret_body = ATT_BUF_INIT(ANSWER_MAX);
    return att_json_dump(json, false, ret_body, err);
}

static enum att_rc rc_of(const char *code)
{
    for (int rc = ATT_OK + 1; rc <= ATT_E_INTERNAL; rc++) {
        if (strcmp(att_rc_name((enum att_rc)rc), code) == 0) {
            return (enum att_rc)rc;
        }
    }
    return ATT_E_PROTOCOL;
}

static const char *text_of(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text ? text : "";
}

static enum att_rc take_answer(const char *url, const struct acme_http_response *response,
                               json_t **ret_result, struct att_err *err)
{
    att_autojson *json = NULL;
    if (att_json_parse(att_buf_slice(&response->body), ANSWER_MAX, &json, NULL) ||
        !json_is_boolean(json_object_get(json, "ok"))) {
        return att_fail(err, ATT_E_PROTOCOL, "%s: HTTP status %d, and no answer of the admin API",
                        url, response->status);
    }
    if (json_is_true(json_object_get(json, "ok"))) {
        json_t *result = json_object_get(json, "result");
        if (!json_is_object(result)) {
            return att_fail(err, ATT_E_PROTOCOL, "%s: the answer has no result", url);
        }
        *ret_result = json_incref(result);
        return ATT_OK;
    }
    const json_t *error = json_object_get(json, "error");
    enum att_rc rc = att_fail(err, rc_of(text_of(error, "code")), "%s", text_of(error, "message"));
    att_err_reason(err, text_of(error, "reason"));
    return rc;
}

struct call {
    struct acme_http *http;
    const char *url, *token;
    struct att_slice body;
    int timeout_ms;
};

/* What is not done yet (its provider's keys are being fetched, it is busy) is asked again. */
static enum att_rc exchange(const struct call *c, json_t **ret_result, int *ret_status,
                            struct att_err *err)
{
    const struct acme_http_request request = {.method = "POST",
                                              .url = c->url,
                                              .content_type = "application/json",
                                              .bearer = c->token,
                                              .body = c->body,
                                              .max_body = ANSWER_MAX,
                                              .timeout_ms = c->timeout_ms};
    for (int try = 1;; try++) {
        struct acme_http_response response = {0};
        enum att_rc rc = acme_http_perform(c->http, &request, &response, err);
        if (rc) {
            return rc;
        }
        *ret_status = response.status;
        int64_t pause = response.retry_after_s;
        if (response.status == 503 && pause >= 0 && try < TRIES) {
            acme_http_response_done(&response);
            rc = acme_http_sleep(c->http, 1000 * (pause < PAUSE_S ? pause : PAUSE_S), err);
            if (rc) {
                return rc;
            }
            continue;
        }
        rc = take_answer(c->url, &response, ret_result, err);
        acme_http_response_done(&response);
        return rc;
    }
}

enum att_rc ctl_remote_call(const struct ctl_ctx *ctx, const char *op, const json_t *args,
                            json_t **ret_result, bool *ret_forbidden, struct att_err *err)
{
    att_autobuf token = {0}, body = {0};
    char url[2100];
    int status = 0;
    size_t len = strlen(ctx->admin_path);
    len -= ctx->admin_path[len - 1] == '/';
    const struct acme_http_config config = {
        .ca_file = ctx->cacert, .cert_file = ctx->cert, .key_file = ctx->key};
    struct call c = {.url = url, .timeout_ms = ctx->timeout_ms};
    if ((size_t)snprintf(url, sizeof url, "%.*s" PATH, (int)len, ctx->admin_path) >= sizeof url) {
        return usage(err, "--issuer: too long an address");
    }
    enum att_rc rc = check(ctx, err);
    if (!rc && ctx->token_file) {
        rc = read_token(ctx->token_file, &token, err);
        c.token = (const char *)token.ptr;
    }
    rc = rc ? rc : body_of(ctx, op, args, &body, err);
    rc = rc ? rc : acme_http_new(&config, &c.http, err);
    if (!rc) {
        c.body = att_buf_slice(&body);
        rc = exchange(&c, ret_result, &status, err);
    }
    acme_http_free(c.http);
    if (token.ptr) {
        att_wipe(token.ptr, token.cap);
    }
    *ret_forbidden = status == 401 || status == 403;
    return rc;
}
