/* Small helpers of the handlers. */
#include "provision/issuer/context.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void issuer_free_text(char **text)
{
    free(*text);
    *text = NULL;
}

enum att_rc issuer_refuse(struct att_err *err, enum att_rc rc, const char *reason, const char *fmt,
                          ...)
{
    char text[320];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    (void)att_fail(err, rc, "%s", text);
    att_err_reason(err, reason);
    return rc;
}

enum att_rc issuer_problem(struct issuer_call *call, struct att_err *err,
                           enum acme_problem_type type, const char *reason, const char *fmt, ...)
{
    char text[320];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    acme_problem_set(&call->problem, type, "%s", text);
    if (reason) {
        acme_problem_add(&call->problem, reason, text);
    }
    call->has_problem = true;
    (void)att_fail(err, ATT_E_DENIED, "%s", text);
    att_err_reason(err, reason ? reason : acme_problem_word(type));
    return ATT_E_DENIED;
}

enum att_rc issuer_reply(struct issuer_call *call, int status, json_t *body, struct att_err *err)
{
    att_autojson *owned = body;
    if (!owned) {
        return att_fail(err, ATT_E_NOMEM, "no memory for an answer");
    }
    att_buf_reset(&call->response->body);
    enum att_rc rc = att_json_dump(owned, false, &call->response->body, err);
    if (!rc) {
        call->response->status = status;
        call->response->content_type = "application/json";
    }
    return rc;
}

void issuer_response_done(struct issuer_response *response)
{
    att_buf_done(&response->body);
    *response = (struct issuer_response){0};
}

enum att_rc issuer_check_rate(struct issuer_call *call, struct store_tx *tx, struct att_err *err)
{
    const struct conf_limits *l = call->settings->conf->limits;
    struct store_recent n = {0};
    enum att_rc rc =
        store_account_recent(tx, call->account.id, call->now - ISSUER_RECENT_S, &n, err);
    if (rc || (n.orders < l->account_orders && n.fruitless < l->account_fruitless_orders &&
               n.aks < l->account_enrolments)) {
        return rc;
    }
    rc = issuer_problem(call, err, ACME_P_RATE_LIMITED, NULL,
                        "%lld orders, %lld of them without a certificate, and %lld enrolments in "
                        "%d s",
                        (long long)n.orders, (long long)n.fruitless, (long long)n.aks,
                        ISSUER_RECENT_S);
    call->problem.retry_after_s = 60;
    return rc;
}

enum att_rc issuer_check_host_rate(struct issuer_call *call, const struct store_host *host,
                                   struct att_err *err)
{
    unsigned most = call->settings->conf->limits->host_orders;
    if (!issuer_limit_take(call->issuer->limit, ISSUER_LIMIT_HOST_ORDERS, host->id, most,
                           call->now)) {
        return ATT_OK;
    }
    enum att_rc rc =
        issuer_problem(call, err, ACME_P_RATE_LIMITED, NULL, "%u orders of host %.12s in %d s",
                       most, host->id, ISSUER_RECENT_S);
    call->problem.retry_after_s = 60;
    return rc;
}

enum att_rc issuer_new_id(char ret[ISSUER_ID_LEN], struct att_err *err)
{
    uint8_t bytes[19]; /* 26 characters */
    enum att_rc rc = att_random(bytes, sizeof bytes, err);
    if (rc) {
        return rc;
    }
    att_autobuf text = {0};
    att_buf_b64u(&text, ATT_SLICE_ARRAY(bytes));
    rc = att_buf_ok(&text, err);
    if (!rc) {
        snprintf(ret, ISSUER_ID_LEN, "%.*s", (int)text.len, (const char *)text.ptr);
    }
    return rc;
}

char *issuer_url(const struct issuer *issuer, const char *noun, const char *id)
{
    char *url = NULL;
    return asprintf(&url, "%s/%s/%s", issuer->base_url, noun, id) < 0 ? NULL : url;
}

static bool id_form(const char *id)
{
    size_t n = strspn(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_");
    return n > 0 && n <= 64 && id[n] == 0;
}

const char *issuer_url_id(const struct issuer *issuer, const char *noun, const char *url)
{
    size_t base = strlen(issuer->base_url), name = strlen(noun);
    if (strncmp(url, issuer->base_url, base) != 0 || url[base] != '/' ||
        strncmp(url + base + 1, noun, name) != 0 || url[base + 1 + name] != '/') {
        return NULL;
    }
    const char *id = url + base + name + 2;
    return id_form(id) ? id : NULL;
}

bool issuer_set(char **text, const char *value)
{
    char *copy = strdup(value ? value : "");
    if (!copy) {
        return false;
    }
    free(*text);
    *text = copy;
    return true;
}

char *issuer_steal_text(struct att_buf *text)
{
    size_t len = 0;
    att_buf_u8(text, 0);
    if (text->failed) {
        att_buf_done(text);
        return NULL;
    }
    return (char *)att_buf_steal(text, &len);
}

char *issuer_logs_join(char *const *names, size_t n)
{
    struct att_buf text = {0};
    for (size_t i = 0; i < n; i++) {
        att_buf_printf(&text, "%s%s", i ? "," : "", names[i]);
    }
    return issuer_steal_text(&text);
}

uint32_t issuer_logs_bits(const char *joined)
{
    uint32_t bits = 0;
    while (*joined) {
        size_t n = strcspn(joined, ",");
        bits |= verify_log_bit(ATT_SLICE(joined, n));
        joined += n + (joined[n] ? 1 : 0);
    }
    return bits;
}

enum att_rc issuer_wanted(const char *pcr_selection, const char *logs, const json_t *known,
                          struct acme_wanted *ret_wanted, struct att_err *err)
{
    struct acme_wanted w = {0};
    snprintf(w.pcr_selection, sizeof w.pcr_selection, "%s", pcr_selection);
    while (*logs) {
        size_t n = strcspn(logs, ",");
        if (n >= ACME_LOG_NAME_LEN || w.n_logs == ACME_LOGS_MAX) {
            return att_fail(err, ATT_E_INTERNAL, "too many logs in \"%s\"", logs);
        }
        memcpy(w.logs[w.n_logs++], logs, n);
        logs += n + (logs[n] ? 1 : 0);
    }
    for (size_t i = 0; i < w.n_logs; i++) {
        const char *digest = json_string_value(json_object_get(known, w.logs[i]));
        if (digest && w.n_known < ACME_KNOWN_MAX &&
            att_unhex_exact(w.known[w.n_known], 32, digest, NULL) == ATT_OK) {
            w.n_known++;
        }
    }
    *ret_wanted = w;
    return ATT_OK;
}

json_t *issuer_time_json(int64_t utc_s)
{
    char text[ATT_TIME_TEXT_LEN];
    if (utc_s == 0) {
        return json_null();
    }
    att_time_text(text, utc_s);
    return json_string(text);
}

json_t *issuer_json(const char *text)
{
    json_t *json = NULL;
    if (text && *text &&
        att_json_parse(att_slice_str(text), (size_t)4 << 20, &json, NULL) == ATT_OK) {
        return json;
    }
    return json_object();
}

char *issuer_json_text(const json_t *json)
{
    struct att_buf text = {0};
    if (!json || att_json_dump(json, true, &text, NULL)) {
        att_buf_done(&text);
        return NULL;
    }
    return issuer_steal_text(&text);
}

const char *issuer_string(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text ? text : "";
}
