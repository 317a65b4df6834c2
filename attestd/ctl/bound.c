#include "attestd/ctl/bound.h"

#include "attestd/base/enc.h"
#include "attestd/base/json.h"
#include "attestd/base/secret.h"

#include <string.h>

#define JSON_MAX   ((size_t)64 << 10)
#define VALUES_MAX 1000

void bound_thumbprint(const uint8_t sha256[ATT_SHA256_LEN], char ret[BOUND_THUMBPRINT_LEN + 1])
{
    att_autobuf text = {0};
    att_buf_b64u(&text, ATT_SLICE(sha256, ATT_SHA256_LEN));
    const char *made = att_buf_cstr(&text);
    size_t len = made && text.len == BOUND_THUMBPRINT_LEN ? BOUND_THUMBPRINT_LEN : 0;
    memcpy(ret, made ? made : "", len);
    ret[len] = 0;
}

static enum att_rc refuse(struct att_err *err, enum att_rc rc, const char *reason, const char *what)
{
    (void)att_fail(err, rc, "the token %s", what);
    att_err_reason(err, reason);
    return rc;
}

static enum att_rc check(const json_t *claims, const uint8_t sha256[ATT_SHA256_LEN],
                         struct att_err *err)
{
    char own[BOUND_THUMBPRINT_LEN + 1];
    const char *text =
        json_string_value(json_object_get(json_object_get(claims, "cnf"), "x5t#S256"));
    bound_thumbprint(sha256, own);
    if (!text) {
        return refuse(err, ATT_E_DENIED, "notBound",
                      "is not bound to a certificate (no cnf with x5t#S256)");
    }
    if (strlen(own) != BOUND_THUMBPRINT_LEN || strcmp(text, own) != 0) {
        return refuse(err, ATT_E_DENIED, "boundOther", "is bound to another certificate");
    }
    return ATT_OK;
}

/* RFC 7515 §7.1: three parts; the second is the claims. */
enum att_rc bound_check_jwt(struct att_slice token, const uint8_t sha256[ATT_SHA256_LEN],
                            struct att_err *err)
{
    att_autobuf text = ATT_BUF_INIT(JSON_MAX);
    att_autojson *claims = NULL;
    const uint8_t *end = token.ptr + token.len;
    const uint8_t *first = token.len ? memchr(token.ptr, '.', token.len) : NULL;
    const uint8_t *second = first ? memchr(first + 1, '.', (size_t)(end - first - 1)) : NULL;
    bool jwt = second && !memchr(second + 1, '.', (size_t)(end - second - 1)) &&
               att_unb64u(&text, ATT_SLICE(first + 1, (size_t)(second - first - 1)), NULL) == 0 &&
               att_json_parse_few(att_buf_slice(&text), JSON_MAX, VALUES_MAX, &claims, NULL) == 0 &&
               json_is_object(claims);
    enum att_rc rc = jwt ? check(claims, sha256, err)
                         : refuse(err, ATT_E_UNSUPPORTED, "boundUnknown",
                                  "is no JWT: name its introspection endpoint in the profile, or "
                                  "\"bound: unchecked\"");
    if (text.ptr) {
        att_wipe(text.ptr, text.cap);
    }
    return rc;
}

enum att_rc bound_check_introspection(int status, struct att_slice body,
                                      const uint8_t sha256[ATT_SHA256_LEN], struct att_err *err)
{
    att_autojson *json = NULL;
    bool good = status == 200 &&
                att_json_parse_few(body, JSON_MAX, VALUES_MAX, &json, NULL) == ATT_OK &&
                json_is_object(json) && json_is_boolean(json_object_get(json, "active"));
    if (!good) {
        (void)att_fail(err, ATT_E_PROTOCOL,
                       "the introspection's answer (status %d): expected a JSON object with active",
                       status);
        att_err_reason(err, "introspection");
        return ATT_E_PROTOCOL;
    }
    return json_is_true(json_object_get(json, "active"))
               ? check(json, sha256, err)
               : refuse(err, ATT_E_DENIED, "tokenInactive", "is not active, says introspection");
}
