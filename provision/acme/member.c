#include "provision/acme/member.h"

#include "attestd/base/clock.h"
#include "provision/acme/jws.h"
#include "provision/acme/objects.h"

#include <stdlib.h>
#include <string.h>

bool acme_text_ok(const char *text)
{
    for (const char *c = text; *c; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f) {
            return false;
        }
    }
    return true;
}

bool acme_url_ok(const char *url)
{
    static const char scheme[] = "https://";
    if (strncmp(url, scheme, sizeof scheme - 1) != 0 || strlen(url) > ACME_URL_MAX ||
        url[sizeof scheme - 1] == 0) {
        return false;
    }
    for (const char *c = url; *c; c++) {
        if (*c <= 0x20 || *c >= 0x7f || *c == '"' || *c == '\\') {
            return false;
        }
    }
    return true;
}

static enum att_rc borrow_text(const json_t *obj, const char *name, size_t max, bool optional,
                               const char **ret_text, struct att_err *err)
{
    const json_t *member = json_object_get(obj, name);
    if (!member && optional) {
        *ret_text = NULL;
        return ATT_OK;
    }
    enum att_rc rc = att_json_str(obj, name, ret_text, err);
    if (rc != ATT_OK) {
        return rc;
    }
    if (json_string_length(member) == 0 || json_string_length(member) > max) {
        return att_fail(err, ATT_E_PARSE, "\"%s\": expected 1 … %zu bytes, found %zu", name, max,
                        json_string_length(member));
    }
    if (!acme_text_ok(*ret_text)) {
        return att_fail(err, ATT_E_PARSE, "\"%s\": control characters in it", name);
    }
    return ATT_OK;
}

static enum att_rc dup_text(const char *text, char **ret_text, struct att_err *err)
{
    char *copy = text ? strdup(text) : NULL;
    if (text && !copy) {
        return att_fail(err, ATT_E_NOMEM, "no memory");
    }
    *ret_text = copy;
    return ATT_OK;
}

enum att_rc acme_member_text(const json_t *obj, const char *name, size_t max, bool optional,
                             char **ret_text, struct att_err *err)
{
    const char *text = NULL;
    enum att_rc rc = borrow_text(obj, name, max, optional, &text, err);
    return rc == ATT_OK ? dup_text(text, ret_text, err) : rc;
}

enum att_rc acme_member_url(const json_t *obj, const char *name, bool optional, char **ret_url,
                            struct att_err *err)
{
    const char *text = NULL;
    enum att_rc rc = borrow_text(obj, name, ACME_URL_MAX, optional, &text, err);
    if (rc == ATT_OK && text && !acme_url_ok(text)) {
        rc = att_fail(err, ATT_E_PARSE, "\"%s\": expected an https URL", name);
    }
    return rc == ATT_OK ? dup_text(text, ret_url, err) : rc;
}

enum att_rc acme_member_fixed(const json_t *obj, const char *name, char *ret, size_t room,
                              struct att_err *err)
{
    const char *text = NULL;
    enum att_rc rc = borrow_text(obj, name, room - 1, false, &text, err);
    if (rc == ATT_OK) {
        memcpy(ret, text, strlen(text) + 1);
    }
    return rc;
}

enum att_rc acme_member_time(const json_t *obj, const char *name, int64_t *ret_utc_s,
                             struct att_err *err)
{
    const char *text = NULL;
    enum att_rc rc = borrow_text(obj, name, 64, true, &text, err);
    if (rc != ATT_OK || !text) {
        *ret_utc_s = 0;
        return rc;
    }
    rc = att_time_parse(text, ret_utc_s, err);
    if (rc != ATT_OK) {
        att_err_prefix(err, "\"%s\"", name);
    }
    return rc;
}

enum att_rc acme_member_bool(const json_t *obj, const char *name, bool *ret_v, struct att_err *err)
{
    const json_t *member = json_object_get(obj, name);
    if (member && !json_is_boolean(member)) {
        return att_fail(err, ATT_E_PARSE, "\"%s\": expected true or false", name);
    }
    *ret_v = json_is_true(member);
    return ATT_OK;
}

int acme_put_text(json_t *obj, const char *name, const char *text)
{
    return text ? json_object_set_new(obj, name, json_string(text)) : 0;
}

int acme_put_time(json_t *obj, const char *name, int64_t utc_s)
{
    char text[ATT_TIME_TEXT_LEN];
    if (utc_s == 0) {
        return 0;
    }
    att_time_text(text, utc_s);
    return acme_put_text(obj, name, text);
}

enum att_rc acme_malformed(enum att_rc rc, struct att_err *err)
{
    if (rc != ATT_OK && rc != ATT_E_NOMEM && err && !err->reason[0]) {
        att_err_reason(err, "malformed");
    }
    return rc;
}

enum att_rc acme_request_object(struct att_slice payload, json_t **ret_obj, struct att_err *err)
{
    json_t *obj = NULL;
    enum att_rc rc = att_json_parse_few(payload, ACME_OBJECT_MAX, ACME_VALUES_MAX, &obj, err);
    if (rc == ATT_OK && !json_is_object(obj)) {
        json_decref(obj);
        rc = att_fail(err, ATT_E_PARSE, "payload: expected an object");
    }
    if (rc == ATT_OK) {
        *ret_obj = obj;
    }
    return acme_malformed(rc, err);
}
