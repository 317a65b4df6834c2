#include "attestd/conf/p11uri.h"

#include <string.h>

static int hex_digit(uint8_t c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* RFC 7512 §2.3: unreserved / pk11-res-avail [/ extra] / pct-encoded. */
static bool plain_ok(uint8_t c, bool query)
{
    bool unreserved = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                      memchr("-._~", c, 4);
    return unreserved || memchr(":[]@!$'()*+,=", c, 13) ||
           (query ? memchr("/?|", c, 3) != NULL : c == '&');
}

/* Decodes one value, 1 … room - 1 bytes, no control character. */
static enum att_rc decode(struct att_slice value, bool query, const char *name, char *ret,
                          size_t room, struct att_err *err)
{
    size_t len = 0;
    for (size_t i = 0; i < value.len; i++) {
        uint8_t c = value.ptr[i];
        if (c == '%') {
            int high = value.len - i > 2 ? hex_digit(value.ptr[i + 1]) : -1;
            int low = value.len - i > 2 ? hex_digit(value.ptr[i + 2]) : -1;
            if (high < 0 || low < 0) {
                return att_fail(err, ATT_E_PARSE, "%s: %% is not followed by two hex digits", name);
            }
            c = (uint8_t)(high << 4 | low);
            i += 2;
        } else if (!plain_ok(c, query)) {
            return att_fail(err, ATT_E_PARSE,
                            "%s: byte %zu of the value has to be percent-encoded (RFC 7512)", name,
                            i + 1);
        }
        if (c < 0x20 || c == 0x7f) {
            return att_fail(err, ATT_E_PARSE, "%s: a control character", name);
        }
        if (len + 1 >= room) {
            return att_fail(err, ATT_E_PARSE, "%s: longer than %zu bytes", name, room - 1);
        }
        ret[len++] = (char)c;
    }
    ret[len] = 0;
    return len ? ATT_OK : att_fail(err, ATT_E_PARSE, "%s: empty", name);
}

/* ---- attributes ---------------------------------------------------------------------------- */

struct attribute {
    const char *name;
    char *ret; /* NULL: refused */
    size_t room;
    const char *why;
};

static enum att_rc take(const struct attribute *known, struct att_slice part, bool query,
                        struct att_err *err)
{
    const uint8_t *equals = part.len ? memchr(part.ptr, '=', part.len) : NULL;
    if (!equals) {
        return att_fail(err, ATT_E_PARSE, "expected NAME=VALUE in %s of the URI",
                        query ? "the query" : "the path");
    }
    struct att_slice name = {part.ptr, (size_t)(equals - part.ptr)};
    struct att_slice value = {equals + 1, part.len - name.len - 1};
    for (; known->name; known++) {
        if (!att_slice_eq_str(name, known->name)) {
            continue;
        }
        if (!known->ret) {
            return att_fail(err, ATT_E_PARSE, "%s: %s", known->name, known->why);
        }
        if (known->ret[0]) {
            return att_fail(err, ATT_E_PARSE, "%s: stands there twice", known->name);
        }
        return decode(value, query, known->name, known->ret, known->room, err);
    }
    return att_fail(err, ATT_E_PARSE, "an attribute that is not known in %s of the URI",
                    query ? "the query (expected pin-source)"
                          : "the path (expected token, serial, manufacturer, model)");
}

static enum att_rc take_all(const struct attribute *known, struct att_slice text, char separator,
                            struct att_err *err)
{
    for (;;) {
        const uint8_t *end = text.len ? memchr(text.ptr, separator, text.len) : NULL;
        struct att_slice part = {text.ptr, end ? (size_t)(end - text.ptr) : text.len};
        enum att_rc rc = take(known, part, separator == '&', err);
        if (rc != ATT_OK || !end) {
            return rc;
        }
        text = (struct att_slice){end + 1, text.len - part.len - 1};
    }
}

/* "file:/path", "file:///path" or "/path" becomes the path. */
static enum att_rc settle_pin_source(char *source, struct att_err *err)
{
    size_t skip = strncmp(source, "file:///", 8) == 0 ? 7
                  : strncmp(source, "file:/", 6) == 0 ? 5
                                                      : 0;
    memmove(source, source + skip, strlen(source + skip) + 1);
    if (source[0] == '|') {
        return att_fail(err, ATT_E_PARSE,
                        "pin-source: a command is not run for a PIN; expected "
                        "file:/PATH");
    }
    return source[0] == '/' && source[1] != '/'
               ? ATT_OK
               : att_fail(err, ATT_E_PARSE,
                          "pin-source: expected file:/PATH with an absolute path");
}

enum att_rc conf_p11uri_parse(struct att_slice text, struct conf_p11uri *ret_uri,
                              struct att_err *err)
{
    static const char slots[] = "slots and libraries change: name the token by token and serial";
    static const char key[] = "the URI names a token, not a key";
    static const char module[] = "the module is named by hsm.module";
    struct conf_p11uri uri = {{0}, {0}, {0}, {0}, {0}};
    const struct attribute path[] = {
        {"token", uri.token, sizeof uri.token, NULL},
        {"serial", uri.serial, sizeof uri.serial, NULL},
        {"manufacturer", uri.manufacturer, sizeof uri.manufacturer, NULL},
        {"model", uri.model, sizeof uri.model, NULL},
        {"slot-id", NULL, 0, slots},
        {"slot-description", NULL, 0, slots},
        {"slot-manufacturer", NULL, 0, slots},
        {"library-description", NULL, 0, slots},
        {"library-manufacturer", NULL, 0, slots},
        {"library-version", NULL, 0, slots},
        {"object", NULL, 0, key},
        {"id", NULL, 0, key},
        {"type", NULL, 0, key},
        {NULL, NULL, 0, NULL},
    };
    const struct attribute query[] = {
        {"pin-source", uri.pin_source, sizeof uri.pin_source, NULL},
        {"pin-value", NULL, 0,
         "a PIN does not stand in a configuration: use pin-source=file:/PATH, or the systemd "
         "credential attestd.hsm-pin"},
        {"module-path", NULL, 0, module},
        {"module-name", NULL, 0, module},
        {NULL, NULL, 0, NULL},
    };
    const size_t head = strlen("pkcs11:");
    if (text.len > CONF_P11URI_MAX || text.len < head || memcmp(text.ptr, "pkcs11:", head) != 0) {
        return att_fail(err, ATT_E_PARSE, "expected a URI pkcs11:token=…;serial=… (RFC 7512)");
    }
    text = (struct att_slice){text.ptr + head, text.len - head};
    const uint8_t *mark = text.len ? memchr(text.ptr, '?', text.len) : NULL;
    struct att_slice left = {text.ptr, mark ? (size_t)(mark - text.ptr) : text.len};
    enum att_rc rc = ATT_OK;
    if (mark) { /* first: a PIN is the worst that can stand there */
        rc = take_all(query, (struct att_slice){mark + 1, text.len - left.len - 1}, '&', err);
    }
    if (rc == ATT_OK && uri.pin_source[0]) {
        rc = settle_pin_source(uri.pin_source, err);
    }
    if (rc == ATT_OK) {
        rc = take_all(path, left, ';', err);
    }
    if (rc == ATT_OK && (!uri.token[0] || !uri.serial[0])) {
        rc = att_fail(err, ATT_E_PARSE, "expected token= and serial= in the URI, %s is missing",
                      uri.token[0] ? "serial" : "token");
    }
    if (rc == ATT_OK) {
        *ret_uri = uri;
    }
    return rc;
}
