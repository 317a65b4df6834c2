/* One request of the admin API over HTTPS: who it is, what it asks, which status answers it. */
#include "attestd/base/often.h"
#include "provision/issuer/admin.h"
#include "provision/issuer/admin_https.h"

#include <string.h>
#include <strings.h>

#define ANSWER_MAX ATT_CTL_FRAME_MAX

static int status_of(const struct att_err *err)
{
    switch (err->rc) {
    case ATT_E_AUTH:
        return 401;
    case ATT_E_DENIED:
        return 403;
    case ATT_E_NOTFOUND:
        return 404;
    case ATT_E_EXISTS:
    case ATT_E_CONFLICT:
        return 409;
    case ATT_E_INVAL:
    case ATT_E_PARSE:
    case ATT_E_LIMIT:
    case ATT_E_UNSUPPORTED:
        return 400;
    case ATT_E_RETRY:
        return 503;
    default:
        return 500;
    }
}

static void put(struct issuer_admin_answer *answer, const json_t *json)
{
    answer->body = ATT_BUF_INIT(ANSWER_MAX);
    if (!json || att_json_dump(json, false, &answer->body, NULL)) {
        static const char plain[] = "{\"ok\":false,\"error\":{\"code\":\"limit\",\"reason\":\"\","
                                    "\"message\":\"the answer cannot be sent\"}}";
        att_buf_done(&answer->body);
        answer->body = (struct att_buf){0};
        att_buf_put_str(&answer->body, plain);
        answer->status = 500;
    }
}

/* The socket's error, with a status. */
static void refuse(struct issuer_admin_answer *answer, int status, const struct att_err *err)
{
    att_autojson *json =
        json_pack("{s:b, s:{s:s, s:s, s:s}}", "ok", 0, "error", "code", att_rc_name(err->rc),
                  "reason", err->reason, "message", err->msg);
    answer->status = status;
    answer->retry_after_s = status == 503 ? 1 : 0;
    answer->challenge = status == 401;
    put(answer, json);
}

static bool is_json(const char *content_type)
{
    static const char type[] = "application/json";
    size_t len = sizeof type - 1;
    return content_type && strncasecmp(content_type, type, len) == 0 &&
           (!content_type[len] || content_type[len] == ';');
}

/* 404, 405, 415: before anybody is asked who he is. */
static int check_route(const struct issuer_admin_request *request, struct att_err *err)
{
    if (strcmp(request->path, ISSUER_ADMIN_PATH) != 0) {
        (void)att_fail(err, ATT_E_NOTFOUND, "expected POST " ISSUER_ADMIN_PATH);
        return 404;
    }
    if (request->method != ISSUER_POST) {
        (void)att_fail(err, ATT_E_INVAL, "expected POST");
        return 405;
    }
    if (!is_json(request->content_type)) {
        (void)att_fail(err, ATT_E_INVAL, "Content-Type: expected application/json");
        return 415;
    }
    return 0;
}

static bool request_id(const json_t *id, char ret[ISSUER_REQUEST_MAX + 1])
{
    static const char allowed[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
    const char *text = json_string_value(id);
    size_t len = json_string_length(id);
    if (!text || len < 16 || len > ISSUER_REQUEST_MAX || strspn(text, allowed) != len) {
        return false;
    }
    memcpy(ret, text, len + 1);
    return true;
}

static enum att_rc take_body(const struct issuer_admin_request *request, struct issuer_who *who,
                             json_t **ret_json, const char **ret_op, struct att_err *err)
{
    json_t *json = NULL;
    enum att_rc rc = att_json_parse(request->body, ISSUER_BODY_MAX, &json, err);
    if (rc) {
        return rc;
    }
    *ret_json = json;
    const char *name;
    json_t *value;
    json_object_foreach(json, name, value)
    {
        if (strcmp(name, "op") != 0 && strcmp(name, "args") != 0 && strcmp(name, "id") != 0) {
            return att_fail(err, ATT_E_PARSE, "unknown member \"%.40s\"", name);
        }
    }
    rc = att_json_str(json, "op", ret_op, err);
    const json_t *args = json_object_get(json, "args"), *id = json_object_get(json, "id");
    if (!rc && args && !json_is_object(args)) {
        rc = att_fail(err, ATT_E_PARSE, "\"args\": expected an object");
    }
    if (!rc && id && !request_id(id, who->request)) {
        rc = att_fail(err, ATT_E_PARSE, "\"id\": expected 16 to 64 of A-Z a-z 0-9 _ -");
    }
    return rc;
}

static enum att_rc run(struct issuer *issuer, const struct issuer_admin_request *request,
                       struct issuer_who *who, json_t **ret_result, struct att_err *err)
{
    att_autojson *json = NULL, *none = json_object();
    const char *op = NULL;
    enum att_rc rc = take_body(request, who, &json, &op, err);
    if (rc) {
        return rc;
    }
    const json_t *args = json_object_get(json, "args");
    return issuer_admin_run(issuer, who, op, args ? args : none, ret_result, err);
}

/* Who is not known, or has no role, is told why, and so is the log; only so many times for ever. */
static void refuse_stranger(struct issuer *issuer, const struct issuer_who *who,
                            const struct att_err *err, struct issuer_admin_answer *answer)
{
    refuse(answer, status_of(err), err);
    if (err->rc == ATT_E_AUTH || err->rc == ATT_E_DENIED) {
        static struct att_often often = ATT_OFTEN_INIT;
        if (att_often(&often, err->reason, att_boottime_ms())) {
            att_log(ATT_WARN, "admin.stranger", ATT_S("address", who->peer),
                    ATT_S("who", who->identity), ATT_S("reason", err->reason),
                    ATT_S("detail", err->msg));
        }
        issuer_admin_refused(issuer, who, "", err);
    }
}

void issuer_admin_answer(struct issuer *issuer, const struct issuer_admin_request *request,
                         struct issuer_admin_answer *ret_answer)
{
    struct issuer_who who;
    struct att_err err = {0};
    json_t *result = NULL;
    *ret_answer = (struct issuer_admin_answer){.status = 200};
    int wrong = check_route(request, &err);
    if (wrong) {
        refuse(ret_answer, wrong, &err);
        return;
    }
    issuer_autosettings *settings = issuer_settings_get(issuer);
    enum att_rc rc = issuer_admin_authenticate(issuer, settings, &request->credential, &who, &err);
    /* Of what somebody without a role brings nothing is read. */
    rc = rc ? rc : issuer_who_bound(settings->conf->admin, &who, &err);
    if (rc) {
        err.rc = rc;
        refuse_stranger(issuer, &who, &err, ret_answer);
        return;
    }
    rc = run(issuer, request, &who, &result, &err);
    if (rc) {
        err.rc = rc;
        /* Of somebody who is known, a failed signature is one in what he brought. */
        refuse(ret_answer, rc == ATT_E_AUTH ? 400 : status_of(&err), &err);
        return;
    }
    att_autojson *json =
        json_pack("{s:b, s:o}", "ok", 1, "result", result ? result : json_object());
    put(ret_answer, json);
}
