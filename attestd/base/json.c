#include "attestd/base/json.h"

#include "attestd/base/enc.h"
#include "attestd/base/secret.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#define NESTING_MAX 32

/* What jansson frees may have held a ticket's MAC key. From before main on, so that no thread sees
 * the change; what is freed is still malloc's, whoever frees it. */
static void wipe_and_free(void *ptr)
{
    if (ptr) {
        att_wipe(ptr, malloc_usable_size(ptr));
        free(ptr);
    }
}

__attribute__((constructor)) static void set_json_memory(void)
{
    json_set_alloc_funcs(malloc, wipe_and_free);
}

void att_json_done(json_t **json)
{
    json_decref(*json);
    *json = NULL;
}

/* jansson recurses on nesting with a cap of its own (2048) and builds whatever it is given; our
 * bounds are checked before it runs. ret_values: not fewer than there are. */
static bool too_deep(struct att_slice text, size_t *ret_values)
{
    int depth = 0;
    size_t values = 1;
    bool in_string = false;
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.ptr[i];
        if (in_string) {
            if (c == '\\') {
                i++;
            } else if (c == '"') {
                in_string = false;
            }
        } else if (c == '"') {
            in_string = true;
        } else if (c == ',') {
            values++;
        } else if (c == '{' || c == '[') {
            values++;
            if (++depth > NESTING_MAX) {
                return true;
            }
        } else if (c == '}' || c == ']') {
            depth--;
        }
    }
    *ret_values = values;
    return false;
}

/* In our words: jansson quotes what it stumbled over, which may be a ticket's MAC key, and errors
 * go into logs and replies. */
static const char *what_is_wrong(const json_error_t *where)
{
    switch (json_error_code(where)) {
    case json_error_out_of_memory:
        return "out of memory";
    case json_error_stack_overflow:
        return "nested too deep";
    case json_error_invalid_utf8:
        return "not UTF-8";
    case json_error_premature_end_of_input:
        return "ends too early";
    case json_error_end_of_input_expected:
        return "something follows the end";
    case json_error_null_character:
    case json_error_null_byte_in_key:
        return "a NUL in a string";
    case json_error_duplicate_key:
        return "a member occurs twice";
    case json_error_numeric_overflow:
        return "a number is too large";
    default:
        return "not JSON from here on";
    }
}

enum att_rc att_json_parse(struct att_slice text, size_t max, json_t **ret_json,
                           struct att_err *err)
{
    return att_json_parse_few(text, max, ATT_JSON_VALUES_MAX, ret_json, err);
}

enum att_rc att_json_parse_few(struct att_slice text, size_t max, size_t values_max,
                               json_t **ret_json, struct att_err *err)
{
    size_t values = 0;
    if (text.len > max) {
        return att_fail(err, ATT_E_LIMIT, "JSON of %zu bytes, at most %zu are read", text.len, max);
    }
    if (too_deep(text, &values)) {
        return att_fail(err, ATT_E_LIMIT, "JSON nested deeper than %d", NESTING_MAX);
    }
    if (values > values_max) {
        return att_fail(err, ATT_E_LIMIT, "JSON of %zu values, at most %zu are read", values,
                        values_max);
    }
    json_error_t where;
    json_t *json = json_loadb((const char *)text.ptr, text.len, JSON_REJECT_DUPLICATES, &where);
    if (!json) {
        return att_fail(err, ATT_E_PARSE, "JSON line %d column %d: %s", where.line, where.column,
                        what_is_wrong(&where));
    }
    *ret_json = json;
    return ATT_OK;
}

static int dump_to_buf(const char *bytes, size_t len, void *user)
{
    struct att_buf *buf = user;
    att_buf_put(buf, bytes, len);
    return buf->failed ? -1 : 0;
}

enum att_rc att_json_dump(const json_t *json, bool sorted, struct att_buf *ret_text,
                          struct att_err *err)
{
    size_t flags = JSON_COMPACT | JSON_ENCODE_ANY | (sorted ? JSON_SORT_KEYS : 0u);
    if (json_dump_callback(json, dump_to_buf, ret_text, flags) != 0) {
        enum att_rc rc = att_buf_ok(ret_text, err);
        return rc != ATT_OK ? rc : att_fail(err, ATT_E_NOMEM, "JSON could not be written");
    }
    return att_buf_ok(ret_text, err);
}

enum att_rc att_json_str(const json_t *obj, const char *name, const char **ret_str,
                         struct att_err *err)
{
    const json_t *member = json_object_get(obj, name);
    if (!json_is_string(member)) {
        return att_fail(err, ATT_E_PARSE, "\"%s\": expected a string, found %s", name,
                        member ? "another type" : "nothing");
    }
    *ret_str = json_string_value(member);
    return ATT_OK;
}

enum att_rc att_json_b64u(const json_t *obj, const char *name, size_t max,
                          struct att_buf *ret_bytes, struct att_err *err)
{
    const char *text = NULL;
    enum att_rc rc = att_json_str(obj, name, &text, err);
    if (rc != ATT_OK) {
        return rc;
    }
    if (strlen(text) / 4 * 3 > max) {
        return att_fail(err, ATT_E_LIMIT, "\"%s\": more than %zu bytes", name, max);
    }
    rc = att_unb64u(ret_bytes, att_slice_str(text), err);
    if (rc != ATT_OK) {
        att_err_prefix(err, "\"%s\"", name);
    }
    return rc;
}

enum att_rc att_json_set_b64u(json_t *obj, const char *name, struct att_slice bytes,
                              struct att_err *err)
{
    att_autobuf text = {0};
    att_buf_b64u(&text, bytes);
    enum att_rc rc = att_buf_ok(&text, err);
    if (rc != ATT_OK) {
        return rc;
    }
    if (json_object_set_new(obj, name, json_stringn((const char *)text.ptr, text.len)) != 0) {
        return att_fail(err, ATT_E_NOMEM, "\"%s\" could not be set", name);
    }
    return ATT_OK;
}
