#include "provision/verify/members.h"

#include "attestd/base/clock.h"
#include "attestd/base/enc.h"

#include <string.h>

enum att_rc verify_member_only(const json_t *object, const char *const *known, struct att_err *err)
{
    const char *key = NULL;
    json_t *value = NULL;
    if (!json_is_object(object)) {
        return att_fail(err, ATT_E_PARSE, "expected an object");
    }
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        size_t i = 0;
        while (known[i] && strcmp(known[i], key) != 0) {
            i++;
        }
        if (!known[i]) {
            return att_fail(err, ATT_E_PARSE, "unknown member \"%.40s\"", key);
        }
    }
    return ATT_OK;
}

enum att_rc verify_member_text(const json_t *object, const char *member, size_t max, bool optional,
                               const char **ret, struct att_err *err)
{
    const json_t *value = json_object_get(object, member);
    if (!value && optional) {
        *ret = NULL;
        return ATT_OK;
    }
    size_t len = json_is_string(value) ? json_string_length(value) : 0;
    if (len < 1 || len > max) {
        return att_fail(err, ATT_E_PARSE, "%s: expected a text of 1-%zu bytes", member, max);
    }
    *ret = json_string_value(value);
    return ATT_OK;
}

enum att_rc verify_member_time(const json_t *object, const char *member, int64_t *ret,
                               struct att_err *err)
{
    const json_t *value = json_object_get(object, member);
    struct att_err why = {0};
    if (value && (!json_is_string(value) || att_time_parse(json_string_value(value), ret, &why) ||
                  *ret <= 0)) {
        return att_fail(err, ATT_E_PARSE, "%s: expected a time like 2026-11-23T15:00:00Z", member);
    }
    return ATT_OK;
}

enum att_rc verify_member_hex(const json_t *value, const char *member, size_t len, uint8_t *ret,
                              struct att_err *err)
{
    const char *digits = json_string_value(value);
    struct att_err why = {0};
    if (!digits || att_unhex_exact(ret, len, digits, &why)) {
        return att_fail(err, ATT_E_PARSE, "%s: expected %zu hex digits", member, 2 * len);
    }
    return ATT_OK;
}

enum att_rc verify_member_severity(const json_t *object, enum verify_severity *ret,
                                   struct att_err *err)
{
    const json_t *value = json_object_get(object, "severity");
    return value && verify_severity_from_word(json_string_value(value), ret)
               ? att_fail(err, ATT_E_PARSE, "severity: expected \"refuse\", \"warn\" or \"info\"")
               : ATT_OK;
}
