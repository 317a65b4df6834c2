#include "attestd/ctl/exchange.h"

#include "attestd/base/clock.h"
#include "attestd/base/json.h"
#include "attestd/base/secret.h"
#include "attestd/base/text.h"
#include "attestd/ctl/bound.h"
#include "certs/key.h"
#include "certs/oid.h"
#include "provision/acme/http.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define VALUES_MAX 1000 /* of an answer */
#define BODY_MAX   ((size_t)512 << 10)
#define WORD_MAX   48 /* characters; what is longer in an error's text may be a token */
#define URN        "urn:ietf:params:oauth:"

static void wipe(struct att_buf *buf)
{
    if (buf->ptr) {
        att_wipe(buf->ptr, buf->cap);
    }
    att_buf_done(buf);
}

void exchange_token_done(struct exchange_token *token)
{
    wipe(&token->token);
}

/* ---- the request ---- */

/* application/x-www-form-urlencoded (RFC 6749 appendix B). */
static void put_encoded(struct att_buf *body, const char *text)
{
    static const char hex[] = "0123456789ABCDEF";
    for (const char *c = text; *c; c++) {
        unsigned char byte = (unsigned char)*c;
        if (byte < 0x80 && (isalnum(byte) || strchr("-._~", byte))) {
            att_buf_put(body, c, 1);
        } else {
            char escape[3] = {'%', hex[byte >> 4], hex[byte & 15]};
            att_buf_put(body, escape, sizeof escape);
        }
    }
}

/* Into either form of body: json NULL is a form. */
static bool put(struct att_buf *body, json_t *json, const char *name, const char *value)
{
    if (!value) {
        return true;
    }
    if (json) {
        return json_object_set_new(json, name, json_string(value)) == 0;
    }
    att_buf_put_str(body, body->len ? "&" : "");
    put_encoded(body, name);
    att_buf_put_str(body, "=");
    put_encoded(body, value);
    return !body->failed;
}

static bool put_grant(const struct conf_exchange *p, const char *jwt, struct att_buf *body,
                      json_t *json)
{
    switch (p->grant) {
    case CONF_GRANT_TOKEN_EXCHANGE: /* RFC 8693 §2.1 */
        return put(body, json, "grant_type", URN "grant-type:token-exchange") &&
               put(body, json, "subject_token_type", p->subject_token_type) &&
               put(body, json, "subject_token", jwt);
    case CONF_GRANT_JWT_BEARER: /* RFC 7523 §2.1 */
        return put(body, json, "grant_type", URN "grant-type:jwt-bearer") &&
               put(body, json, "assertion", jwt);
    case CONF_GRANT_CLIENT_ASSERTION: /* RFC 7523 §2.2 */
        return put(body, json, "grant_type", "client_credentials") &&
               put(body, json, "client_assertion_type", URN "client-assertion-type:jwt-bearer") &&
               put(body, json, "client_assertion", jwt);
    case CONF_GRANT_CLIENT_CREDENTIALS: /* RFC 6749 §4.4.2, RFC 8705 §2 */
        return put(body, json, "grant_type", "client_credentials");
    case CONF_GRANT_AWS_ROLES_ANYWHERE: /* awsroles.h */
        break;
    }
    return false;
}

enum att_rc exchange_body(const struct conf_exchange *p, const char *jwt, struct att_buf *ret_body,
                          struct att_err *err)
{
    att_autojson *json = p->json ? json_object() : NULL;
    if (p->json && !json) {
        return att_fail(err, ATT_E_NOMEM, "token exchange");
    }
    bool good = put_grant(p, jwt, ret_body, json) && put(ret_body, json, "client_id", p->client_id);
    for (size_t i = 0; good && i < p->n_fields; i++) {
        good = put(ret_body, json, p->fields[i].name, p->fields[i].value);
    }
    if (!good) {
        return att_fail(err, ATT_E_LIMIT, "token exchange: the request is too long");
    }
    return json ? att_json_dump(json, false, ret_body, err) : att_buf_ok(ret_body, err);
}

/* ---- the answer ---- */

/* Where somebody repeats in an error what he was sent, it is not shown: a run of base64url and dots
 * that is longer than any name or UUID. */
static void hide_tokens(char *text)
{
    char *to = text;
    for (char *c = text; *c;) {
        size_t run = 0;
        while (isalnum((unsigned char)c[run]) || (c[run] && strchr("-_.~+/=%", c[run]))) {
            run++;
        }
        if (run > WORD_MAX) {
            memcpy(to, "[...]", 5);
            to += 5;
        } else {
            run = run ? run : 1;
            memmove(to, c, run);
            to += run;
            c += run;
            continue;
        }
        c += run;
    }
    *to = 0;
}

/* The whole text first: what is cut in the middle of a token is a token's beginning. */
static char *shown(const char *text)
{
    char *copy = strdup(text ? text : "");
    if (copy) {
        att_text_clean(copy);
        hide_tokens(copy);
    }
    return copy;
}

static const char *first_text(const json_t *object, const char *const *names)
{
    const char *text = NULL;
    for (size_t i = 0; names[i] && !text; i++) {
        text = json_string_value(json_object_get(object, names[i]));
    }
    return text;
}

enum att_rc exchange_refused(const char *endpoint, int status, const char *name, const char *text,
                             struct att_err *err)
{
    char *word = shown(name), *words = shown(text);
    bool known = word && word[0] && strlen(word) < sizeof err->reason &&
                 strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") ==
                     strlen(word);
    enum att_rc rc = status >= 500 || status == 429 ? ATT_E_RETRY : ATT_E_DENIED;
    (void)att_fail_native(err, rc, ATT_DOM_HTTP, status, "%.120s refused with status %d%s%.200s",
                          endpoint, status, words && words[0] ? ": " : "", words ? words : "");
    att_err_reason(err, known ? word : "answerStatus");
    free(word);
    free(words);
    return rc;
}

/* RFC 6749 §5.2 has text in "error"; others an object there, with a word and a message. */
static enum att_rc refusal(const struct conf_exchange *p, int status, const json_t *json,
                           struct att_err *err)
{
    static const char *const names[] = {"type", "status", "code", NULL};
    static const char *const told[] = {"error_description", "message", NULL};
    const json_t *error = json_object_get(json, "error");
    const char *name = json_is_string(error) ? json_string_value(error) : first_text(error, names);
    const char *text = first_text(json, told);
    return exchange_refused(p->endpoint, status, name, text ? text : first_text(error, told), err);
}

static enum att_rc bad(struct att_err *err, const char *reason, const char *what)
{
    (void)att_fail(err, ATT_E_PROTOCOL, "the token endpoint's answer: %s", what);
    att_err_reason(err, reason);
    return ATT_E_PROTOCOL;
}

static const json_t *at_path(const json_t *json, const char *path)
{
    char key[132];
    for (const char *dot; (dot = strchr(path, '.')); path = dot + 1) {
        snprintf(key, sizeof key, "%.*s", (int)(dot - path), path);
        json = json_object_get(json, key);
    }
    return json_object_get(json, path);
}

/* It becomes a file that others read as a line, or a header's value. */
static bool token_ok(const json_t *value)
{
    const char *text = json_string_value(value);
    size_t len = json_string_length(value);
    bool good = text && len >= 1 && len <= EXCHANGE_TOKEN_MAX;
    for (size_t i = 0; good && i < len; i++) {
        good = text[i] > 0x20 && text[i] < 0x7f;
    }
    return good;
}

/* RFC 6749 §5.1 has a number; a text of digits is taken, too. 0: it is neither, or is over. */
static int64_t lifetime_of(const json_t *value, int64_t fallback)
{
    int64_t s = json_integer_value(value);
    if (!value || json_is_null(value)) {
        s = fallback;
    } else if (json_is_string(value)) {
        const char *text = json_string_value(value);
        bool digits = text[0] && strlen(text) < 10 && strspn(text, "0123456789") == strlen(text);
        s = digits ? strtoll(text, NULL, 10) : 0;
    }
    return s < 1 ? 0 : s > EXCHANGE_LIFETIME_MAX ? EXCHANGE_LIFETIME_MAX : s;
}

/* RFC 6749 §7.1: a type that is not known is not used. N_A: RFC 8693 §2.2.1. */
static bool type_ok(const json_t *value)
{
    const char *text = json_string_value(value);
    return !value || (text && (strcasecmp(text, "Bearer") == 0 || strcasecmp(text, "N_A") == 0));
}

static enum att_rc take(const struct conf_exchange *p, const json_t *json,
                        struct exchange_token *ret_token, struct att_err *err)
{
    const json_t *value = at_path(json, p->token);
    int64_t lifetime_s = lifetime_of(json_object_get(json, "expires_in"), p->lifetime_s);
    if (!token_ok(value)) {
        char what[200];
        snprintf(what, sizeof what, "expected %s, 1 to %zu visible characters", p->token,
                 EXCHANGE_TOKEN_MAX);
        return bad(err, "answerToken", what);
    }
    if (!type_ok(json_object_get(json, "token_type"))) {
        return bad(err, "answerType", "expected token_type Bearer");
    }
    if (!lifetime_s) {
        return bad(err, "answerLifetime", "expected expires_in, seconds from 1");
    }
    struct exchange_token made = {.token = ATT_BUF_INIT(EXCHANGE_TOKEN_MAX + 1),
                                  .lifetime_s = lifetime_s};
    att_buf_put_str(&made.token, json_string_value(value));
    if (!att_buf_cstr(&made.token)) {
        exchange_token_done(&made);
        return att_fail(err, ATT_E_NOMEM, "token exchange");
    }
    *ret_token = made;
    return ATT_OK;
}

enum att_rc exchange_answer(const struct conf_exchange *p, int status, struct att_slice body,
                            struct exchange_token *ret_token, struct att_err *err)
{
    att_autojson *json = NULL;
    if (status >= 300 && status < 400) {
        return bad(err, "redirect", "a redirect, which is not followed");
    }
    /* The parser's own error may quote the answer: it is not passed on. */
    bool parsed =
        att_json_parse_few(body, EXCHANGE_ANSWER_MAX, VALUES_MAX, &json, NULL) == ATT_OK &&
        json_is_object(json);
    if (status != 200) {
        return refusal(p, status, parsed ? json : NULL, err);
    }
    return parsed ? take(p, json, ret_token, err)
                  : bad(err, "answerForm", "expected a JSON object");
}

/* ---- over HTTPS ---- */

static enum att_rc post(const struct conf_exchange *p, struct acme_http *http, const char *url,
                        bool json, struct att_slice body, struct acme_http_response *ret_response,
                        struct att_err *err)
{
    const struct acme_http_request request = {
        .method = "POST",
        .url = url,
        .content_type = json ? "application/json" : "application/x-www-form-urlencoded",
        .accept = "application/json",
        .body = body,
        .max_body = EXCHANGE_ANSWER_MAX,
        .timeout_ms = (int)p->timeout_s * 1000,
    };
    enum att_rc rc = acme_http_perform(http, &request, ret_response, err);
    struct att_err signing = {0};
    if (rc != ATT_OK && certs_key_remote_error(&signing) != ATT_OK && err) {
        *err = signing; /* why the handshake failed: attestd would not sign it */
        rc = signing.rc;
    }
    return rc;
}

/* RFC 7662 §2.1. */
static enum att_rc introspect(const struct conf_exchange *p, struct acme_http *http,
                              const char *token, const struct apiclient_agent *agent,
                              struct att_err *err)
{
    struct att_buf body = ATT_BUF_INIT(BODY_MAX);
    struct acme_http_response response = {0};
    bool good = put(&body, NULL, "token", token) && put(&body, NULL, "client_id", p->client_id);
    enum att_rc rc =
        good ? post(p, http, p->introspection, false, att_buf_slice(&body), &response, err)
             : att_fail(err, ATT_E_NOMEM, "introspection");
    if (rc == ATT_OK) {
        rc = bound_check_introspection(response.status, att_buf_slice(&response.body),
                                       agent->sha256, err);
        acme_http_response_done(&response);
    }
    wipe(&body);
    return rc;
}

/* RFC 8705 §3. Who trusts the certificate does no longer than it lives. */
static enum att_rc check_bound(const struct conf_exchange *p, struct acme_http *http,
                               const struct apiclient_agent *agent, struct exchange_token *token,
                               struct att_err *err)
{
    int64_t left = agent->not_after - att_now_utc_s();
    enum att_rc rc = ATT_OK;
    if (!p->bound_required) {
        return ATT_OK;
    }
    rc = p->introspection ? introspect(p, http, (const char *)token->token.ptr, agent, err)
                          : bound_check_jwt(att_buf_slice(&token->token), agent->sha256, err);
    if (rc == ATT_OK && left < 1) {
        rc = bad(err, "answerLifetime", "the certificate that the token is bound to has ended");
    }
    token->lifetime_s = token->lifetime_s < left ? token->lifetime_s : left;
    return rc;
}

static enum att_rc perform(const struct conf_exchange *p, struct acme_http *http,
                           struct att_slice body, const struct apiclient_agent *agent,
                           struct exchange_token *ret_token, struct att_err *err)
{
    struct acme_http_response response = {0};
    struct exchange_token token = {0};
    enum att_rc rc = post(p, http, p->endpoint, p->json, body, &response, err);
    if (rc == ATT_OK) {
        rc = exchange_answer(p, response.status, att_buf_slice(&response.body), &token, err);
        wipe(&response.body);
        acme_http_response_done(&response);
    }
    if (rc == ATT_OK && agent) {
        rc = check_bound(p, http, agent, &token, err);
    }
    if (rc != ATT_OK) {
        exchange_token_done(&token);
        return rc;
    }
    *ret_token = token;
    return ATT_OK;
}

enum att_rc exchange_run(const struct conf_exchange *p, const char *jwt,
                         const struct apiclient_agent *agent, struct exchange_token *ret_token,
                         struct att_err *err)
{
    struct att_buf body = ATT_BUF_INIT(BODY_MAX);
    struct acme_http *http = NULL;
    certs_autokey *key = NULL;
    enum att_rc rc = exchange_body(p, jwt, &body, err);
    if (rc == ATT_OK && agent) {
        rc = apiclient_key(agent, &key, err);
    }
    const struct acme_http_config config = {.ca_file = p->ca_file,
                                            .client_chain = agent ? agent->chain : NULL,
                                            .client_key = key,
                                            .proxy_from_env = true,
                                            .tls12 = true};
    rc = rc ? rc : acme_http_new(&config, &http, err);
    rc = rc ? rc : perform(p, http, att_buf_slice(&body), agent, ret_token, err);
    acme_http_free(http);
    wipe(&body);
    return rc;
}
