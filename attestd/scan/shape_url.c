#include "attestd/scan/judge.h"

#include <string.h>

/* Bounds of what a hostile text can cost. */
#define URL_MAX 4096
#define TRIES   64

static bool scheme_char(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '+' ||
           c == '-' || c == '.';
}

static const uint8_t *find(struct att_slice v, const char *what)
{
    return memmem(v.ptr, v.len, what, strlen(what));
}

static bool ends_url(uint8_t c)
{
    return c <= ' ' || c == '"' || c == '\'' || c == '<' || c == '>' || c == '`' || c == '\\';
}

/* RFC 3986 §3.2.1: user:password before the last '@' of the authority. */
static struct att_slice password(struct att_slice authority)
{
    const uint8_t *at = authority.len ? memrchr(authority.ptr, '@', authority.len) : NULL;
    const uint8_t *colon = at ? memchr(authority.ptr, ':', (size_t)(at - authority.ptr)) : NULL;
    return colon ? ATT_SLICE(colon + 1, (size_t)(at - colon - 1)) : ATT_SLICE(authority.ptr, 0);
}

static bool database(struct att_slice scheme)
{
    static const char *const all[] = {
        "postgres", "postgresql", "mysql",     "mariadb", "mongodb", "mongodb+srv", "redis",
        "rediss",   "mssql",      "sqlserver", "amqp",    "amqps",   "clickhouse",  "cockroachdb"};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (scan_is(scheme, all[i])) {
            return true;
        }
    }
    /* SQLAlchemy's dialect+driver */
    return scan_starts(scheme, "postgresql+") || scan_starts(scheme, "mysql+");
}

static struct scan_verdict parameters(struct att_slice query)
{
    struct scan_verdict none = {SCAN_NONE, SCAN_NO};
    while (query.len) {
        const uint8_t *amp = memchr(query.ptr, '&', query.len);
        size_t len = amp ? (size_t)(amp - query.ptr) : query.len;
        const uint8_t *equals = memchr(query.ptr, '=', len);
        if (equals) {
            struct att_slice name = ATT_SLICE(query.ptr, (size_t)(equals - query.ptr));
            struct att_slice value = ATT_SLICE(equals + 1, len - name.len - 1);
            bool sas = scan_is(name, "sig") && value.len >= 40;
            if (sas && !scan_value_placeholder(value)) {
                return (struct scan_verdict){SCAN_AZURE_CONNECTION, SCAN_MEDIUM};
            }
            bool secret = scan_name_class(name) >= SCAN_NAME_SECRET || scan_is(name, "key");
            if (secret && !scan_value_dull(value) && scan_value_random(value)) {
                return (struct scan_verdict){SCAN_URL_PASSWORD, SCAN_MEDIUM};
            }
        }
        size_t taken = amp ? len + 1 : len;
        query = ATT_SLICE(query.ptr + taken, query.len - taken);
    }
    return none;
}

/* A number is a password, too, where one is asked for. */
static bool digits(struct att_slice v)
{
    size_t i = 0;
    while (i < v.len && v.ptr[i] >= '0' && v.ptr[i] <= '9') {
        i++;
    }
    return v.len >= 4 && i == v.len;
}

/* scheme://authority/path?query, where all ends with v. */
static struct scan_verdict one(struct att_slice scheme, struct att_slice v)
{
    size_t len = 0, authority = 0;
    while (len < v.len && len < URL_MAX && !ends_url(v.ptr[len])) {
        len++;
    }
    while (authority < len && !memchr("/?#", v.ptr[authority], 3)) {
        authority++;
    }
    struct att_slice pass = password(ATT_SLICE(v.ptr, authority));
    bool reference = pass.len && (pass.ptr[0] == '$' || pass.ptr[0] == '%' || pass.ptr[0] == '{');
    if (pass.len >= 3 && !reference && (digits(pass) || !scan_value_dull(pass))) {
        return (struct scan_verdict){database(scheme) ? SCAN_DATABASE : SCAN_URL_PASSWORD,
                                     SCAN_HIGH};
    }
    const uint8_t *query = memchr(v.ptr, '?', len);
    return query ? parameters(ATT_SLICE(query + 1, len - (size_t)(query + 1 - v.ptr)))
                 : (struct scan_verdict){SCAN_NONE, SCAN_NO};
}

/* RFC 7512 §2.4: a PIN within the URI. */
static bool pin(struct att_slice v)
{
    const uint8_t *at = scan_has(v, "pkcs11:") ? find(v, "pin-value=") : NULL;
    size_t left = at ? v.len - (size_t)(at + 10 - v.ptr) : 0;
    return left && at[10] != '$' && at[10] != '&' && at[10] != '<' && !ends_url(at[10]);
}

struct scan_verdict scan_shape_url(struct att_slice v)
{
    struct scan_verdict found = {SCAN_NONE, SCAN_NO};
    struct att_slice rest = v;
    unsigned tries = 0;
    if (pin(v)) {
        return (struct scan_verdict){SCAN_PIN, SCAN_HIGH};
    }
    for (const uint8_t *at;
         rest.len && found.confidence == SCAN_NO && tries++ < TRIES && (at = find(rest, "://"));) {
        size_t n = 0;
        while (at - n > rest.ptr && n < 32 && scheme_char(*(at - n - 1))) {
            n++;
        }
        rest = ATT_SLICE(at + 3, rest.len - (size_t)(at + 3 - rest.ptr));
        if (n > 0) {
            found = one(ATT_SLICE(at - n, n), rest);
        }
    }
    return found;
}
