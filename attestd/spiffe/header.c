#include "attestd/spiffe/header.h"

#include <string.h>

enum {
    METHOD = 1 << 0,
    SCHEME = 1 << 1,
    PATH = 1 << 2,
    AUTHORITY = 1 << 3,
    CONTENT_TYPE = 1 << 4,
    TE = 1 << 5,
    ENCODING = 1 << 6,
    TIMEOUT = 1 << 7,
    FRESH = 1 << 8,
};

void grpc_headers_init(struct grpc_headers *headers, const char *mark)
{
    *headers = (struct grpc_headers){.mark = mark, .identity = true, .timeout_us = -1};
}

static void malformed(struct grpc_headers *headers, const char *why)
{
    if (!headers->malformed) {
        headers->malformed = true;
        headers->why = why;
    }
}

/* Which known header this is; 0: another. */
static unsigned which(struct att_slice name)
{
    static const struct {
        const char *name;
        unsigned bit;
    } known[] = {{":method", METHOD},
                 {":scheme", SCHEME},
                 {":path", PATH},
                 {":authority", AUTHORITY},
                 {"te", TE},
                 {"content-type", CONTENT_TYPE},
                 {"grpc-encoding", ENCODING},
                 {"grpc-timeout", TIMEOUT},
                 {"attestd-fresh", FRESH}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (att_slice_eq_str(name, known[i].name)) {
            return known[i].bit;
        }
    }
    return 0;
}

/* RFC 9113 §8.2.2: what belongs to a connection of HTTP/1.1. */
static bool of_connection(struct att_slice name)
{
    static const char *const names[] = {"connection", "proxy-connection", "keep-alive",
                                        "transfer-encoding", "upgrade"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (att_slice_eq_str(name, names[i])) {
            return true;
        }
    }
    return false;
}

/* RFC 9113 §8.2.1: no upper case, no control character, no space; ":" at the front only. */
static bool name_ok(struct att_slice name)
{
    for (size_t i = 0; i < name.len; i++) {
        uint8_t c = name.ptr[i];
        if (c <= 0x20 || c >= 0x7f || (c >= 'A' && c <= 'Z') || (c == ':' && i > 0)) {
            return false;
        }
    }
    return name.len > 0;
}

static bool value_ok(struct att_slice value)
{
    return value.len == 0 ||
           (!memchr(value.ptr, 0, value.len) && !memchr(value.ptr, '\r', value.len) &&
            !memchr(value.ptr, '\n', value.len));
}

static bool starts_with(struct att_slice value, const char *text)
{
    size_t len = strlen(text);
    return value.len >= len && memcmp(value.ptr, text, len) == 0;
}

/* "application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8": not
 * "application/grpc-web". */
static bool is_grpc(struct att_slice value)
{
    static const char type[] = "application/grpc";
    const size_t len = sizeof type - 1;
    return starts_with(value, type) &&
           (value.len == len || value.ptr[len] == '+' || value.ptr[len] == ';');
}

bool grpc_timeout_parse(struct att_slice value, int64_t *ret_us)
{
    int64_t number = 0;
    if (value.len < 2 || value.len > 9) {
        return false;
    }
    for (size_t i = 0; i + 1 < value.len; i++) {
        if (value.ptr[i] < '0' || value.ptr[i] > '9') {
            return false;
        }
        number = number * 10 + (value.ptr[i] - '0');
    }
    switch (value.ptr[value.len - 1]) {
    case 'H':
        *ret_us = number * 3600 * 1000000;
        return true;
    case 'M':
        *ret_us = number * 60 * 1000000;
        return true;
    case 'S':
        *ret_us = number * 1000000;
        return true;
    case 'm':
        *ret_us = number * 1000;
        return true;
    case 'u':
        *ret_us = number;
        return true;
    case 'n':
        *ret_us = number / 1000;
        return true;
    default:
        return false;
    }
}

static void take_path(struct grpc_headers *headers, struct att_slice value)
{
    if (value.len == 0 || value.ptr[0] != '/') {
        malformed(headers, ":path does not begin with a slash");
    } else if (value.len <= GRPC_PATH_MAX) { /* a longer one is no method's */
        memcpy(headers->path, value.ptr, value.len);
        headers->path[value.len] = 0;
    }
}

static void take(struct grpc_headers *headers, unsigned bit, struct att_slice value)
{
    switch (bit) {
    case METHOD:
        headers->post = att_slice_eq_str(value, "POST");
        break;
    case SCHEME:
        if (!att_slice_eq_str(value, "http") && !att_slice_eq_str(value, "https")) {
            malformed(headers, ":scheme is neither http nor https");
        }
        break;
    case PATH:
        take_path(headers, value);
        break;
    case CONTENT_TYPE:
        headers->grpc = is_grpc(value);
        break;
    case TE:
        headers->trailers = att_slice_eq_str(value, "trailers");
        break;
    case ENCODING:
        headers->identity = att_slice_eq_str(value, "identity");
        break;
    case TIMEOUT:
        headers->timeout_bad = !grpc_timeout_parse(value, &headers->timeout_us);
        break;
    case FRESH:
        headers->fresh = att_slice_eq_str(value, "true");
        headers->fresh_bad = !headers->fresh;
        break;
    default:
        break;
    }
}

bool grpc_headers_add(struct grpc_headers *headers, struct att_slice name, struct att_slice value)
{
    headers->count++;
    headers->bytes += name.len + value.len + 32;
    if (headers->count > GRPC_HEADERS_MAX || headers->bytes > GRPC_HEADER_BYTES_MAX) {
        return false;
    }
    if (!name_ok(name) || !value_ok(value) || of_connection(name)) {
        malformed(headers, "a header that HTTP/2 does not allow");
        return true;
    }
    unsigned bit = which(name);
    bool pseudo = name.ptr[0] == ':';
    if (pseudo && headers->regular) {
        malformed(headers, "a pseudo-header after a header");
    }
    if (pseudo && !bit) {
        malformed(headers, "a pseudo-header that no request has");
    }
    if (bit && (headers->seen & bit)) {
        malformed(headers, "a header that may come once came again");
    }
    headers->seen |= bit;
    headers->regular = headers->regular || !pseudo;
    if (headers->mark && att_slice_eq_str(name, headers->mark)) {
        headers->marks++;
        headers->mark_true = att_slice_eq_str(value, "true");
    }
    take(headers, bit, value);
    return true;
}

bool grpc_headers_marked(const struct grpc_headers *headers)
{
    return headers->marks == 1 && headers->mark_true;
}

static enum grpc_headers_verdict say(enum grpc_headers_verdict verdict, int code, const char *why,
                                     int *ret_code, const char **ret_why)
{
    *ret_code = code;
    *ret_why = why;
    return verdict;
}

enum grpc_headers_verdict grpc_headers_check(const struct grpc_headers *headers, int *ret_code,
                                             const char **ret_why)
{
    const unsigned needed = METHOD | SCHEME | PATH;
    if (headers->malformed) {
        return say(GRPC_HEADERS_MALFORMED, 0, headers->why, ret_code, ret_why);
    }
    if ((headers->seen & needed) != needed) {
        return say(GRPC_HEADERS_MALFORMED, 0, ":method, :scheme or :path is missing", ret_code,
                   ret_why);
    }
    if (!headers->post) {
        return say(GRPC_HEADERS_HTTP, 405, "the method is not POST", ret_code, ret_why);
    }
    if (!headers->grpc) {
        return say(GRPC_HEADERS_HTTP, 415, "the content-type is not application/grpc", ret_code,
                   ret_why);
    }
    if (!headers->trailers) {
        return say(GRPC_HEADERS_REFUSED, GRPC_INTERNAL, "te: trailers is missing", ret_code,
                   ret_why);
    }
    if (headers->timeout_bad) {
        return say(GRPC_HEADERS_REFUSED, GRPC_INTERNAL, "grpc-timeout has not its form", ret_code,
                   ret_why);
    }
    if (!headers->identity) {
        return say(GRPC_HEADERS_REFUSED, GRPC_UNIMPLEMENTED,
                   "grpc-encoding: only identity is understood", ret_code, ret_why);
    }
    if (headers->fresh_bad) {
        return say(GRPC_HEADERS_REFUSED, GRPC_INVALID_ARGUMENT, "attestd-fresh: expected true",
                   ret_code, ret_why);
    }
    return say(GRPC_HEADERS_OK, 0, "", ret_code, ret_why);
}

size_t grpc_message_encode(const char *text, char *ret, size_t room)
{
    static const char hex[] = "0123456789ABCDEF";
    size_t len = 0;
    for (; *text; text++) {
        uint8_t c = (uint8_t)*text;
        bool plain = c >= 0x20 && c <= 0x7e && c != '%';
        if (len + (plain ? 1 : 3) > room) {
            break;
        }
        if (plain) {
            ret[len++] = (char)c;
        } else {
            ret[len++] = '%';
            ret[len++] = hex[c >> 4];
            ret[len++] = hex[c & 15];
        }
    }
    return len;
}
