#include "attestd/conf/check.h"

#include "attestd/base/clock.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOWER  "abcdefghijklmnopqrstuvwxyz"
#define UPPER  "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS "0123456789"

const char *const conf_log_names[] = {"firmware", "systemd", "ima", NULL};

struct conf_path conf_path(const char *fmt, ...)
{
    struct conf_path path;
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(path.text, sizeof path.text, fmt, args);
    va_end(args);
    return path;
}

bool conf_default(char **text, const char *fallback)
{
    if (!*text) {
        *text = strdup(fallback);
    }
    return *text != NULL;
}

/* ---- forms ---- */

enum att_rc conf_name_check(const char *text, struct att_err *err)
{
    size_t len = text ? strlen(text) : 0;
    bool ok = len > 0 && len <= CONF_NAME_MAX && strspn(text, LOWER DIGITS "._-") == len &&
              !strchr("._-", text[0]);
    return ok ? ATT_OK
              : att_fail(err, ATT_E_PARSE,
                         "expected a name of [a-z0-9][a-z0-9._-]{0,63}, found \"%.80s\"",
                         text ? text : "");
}

static bool pcr_list_ok(const char *list)
{
    long previous = -1;
    for (;;) {
        size_t n = strspn(list, DIGITS);
        if (n == 0 || n > 2 || (n == 2 && *list == '0')) {
            return false;
        }
        long index = strtol(list, NULL, 10);
        if (index <= previous || index >= CONF_PCRS_MAX) {
            return false;
        }
        previous = index;
        list += n;
        if (*list == 0) {
            return true;
        }
        if (*list++ != ',') {
            return false;
        }
    }
}

enum att_rc conf_pcrs_check(const char *text, struct att_err *err)
{
    static const char *const banks[] = {"sha256:", "sha384:", "sha512:"};
    for (size_t i = 0; text && i < sizeof banks / sizeof *banks; i++) {
        size_t len = strlen(banks[i]);
        if (strncmp(text, banks[i], len) == 0 && pcr_list_ok(text + len)) {
            return ATT_OK;
        }
    }
    return att_fail(
        err, ATT_E_PARSE,
        "expected BANK:PCR,PCR… such as \"sha256:0,2,7\" (sha256, sha384 or sha512; PCRs "
        "0 … 23, ascending), found \"%.80s\"",
        text ? text : "");
}

/* After the host: nothing, or ":port", 1 … 65535. */
static bool port_ok(const char *text, size_t len)
{
    if (len == 0) {
        return true;
    }
    size_t digits = strspn(text + 1, DIGITS);
    if (text[0] != ':' || digits + 1 != len || digits == 0 || digits > 5 || text[1] == '0') {
        return false;
    }
    return strtol(text + 1, NULL, 10) <= 65535;
}

static bool authority_ok(const char *text, size_t len)
{
    if (len > 0 && text[0] == '[') {
        const char *end = memchr(text, ']', len);
        char host[INET6_ADDRSTRLEN];
        uint8_t addr[16];
        if (!end || (size_t)(end - text - 1) >= sizeof host) {
            return false;
        }
        snprintf(host, sizeof host, "%.*s", (int)(end - text - 1), text + 1);
        return inet_pton(AF_INET6, host, addr) == 1 &&
               port_ok(end + 1, len - (size_t)(end + 1 - text));
    }
    size_t host = strspn(text, LOWER UPPER DIGITS ".-");
    return host > 0 && host <= len && host <= 253 && !strchr(".-", text[0]) &&
           port_ok(text + host, len - host);
}

static enum att_rc check_url(const char *text, const char *scheme, struct att_err *err)
{
    const size_t head = strlen(scheme);
    size_t len = text ? strlen(text) : 0;
    bool ok = len > head && len <= 512 && strncmp(text, scheme, head) == 0;
    if (ok) {
        const char *rest = text + head;
        size_t authority = strcspn(rest, "/");
        const char *path = rest + authority;
        ok = authority_ok(rest, authority) &&
             strspn(path, LOWER UPPER DIGITS "/._~-") == strlen(path) && text[len - 1] != '/' &&
             !strstr(path, "//");
    }
    return ok ? ATT_OK
              : att_fail(err, ATT_E_PARSE,
                         "expected %sHOST[:PORT][/PATH] without trailing slash, query or "
                         "user, found \"%.100s\"",
                         scheme, text ? text : "");
}

enum att_rc conf_url_check(const char *text, struct att_err *err)
{
    return check_url(text, "https://", err);
}

enum att_rc conf_http_url_check(const char *text, struct att_err *err)
{
    return check_url(text, "http://", err);
}

/* ---- noted ---- */

static bool note(struct conf_check *check, const char *path, enum att_rc rc,
                 const struct att_err *err)
{
    if (rc != ATT_OK) {
        conf_bad(check, path, "%s", err->msg);
    }
    return rc == ATT_OK;
}

bool conf_check_name(struct conf_check *check, const char *path, const char *text)
{
    struct att_err err = {0};
    return !text || note(check, path, conf_name_check(text, &err), &err);
}

bool conf_check_pcrs(struct conf_check *check, const char *path, const char *text)
{
    struct att_err err = {0};
    return !text || note(check, path, conf_pcrs_check(text, &err), &err);
}

bool conf_check_url(struct conf_check *check, const char *path, const char *text)
{
    struct att_err err = {0};
    return !text || note(check, path, conf_url_check(text, &err), &err);
}

bool conf_check_http_url(struct conf_check *check, const char *path, const char *text)
{
    struct att_err err = {0};
    return !text || note(check, path, conf_http_url_check(text, &err), &err);
}

bool conf_check_text(struct conf_check *check, const char *path, const char *text, size_t max)
{
    size_t len = text ? strlen(text) : 1;
    bool ok = len > 0 && len <= max;
    for (const char *c = text; ok && c && *c; c++) {
        ok = (unsigned char)*c >= 0x20 && *c != 0x7f;
    }
    if (!ok) {
        conf_bad(check, path, "expected 1 … %zu bytes on one line, found \"%.80s\"", max, text);
    }
    return ok;
}

bool conf_check_path(struct conf_check *check, const char *path, const char *text)
{
    if (!text) {
        return true;
    }
    if (text[0] != '/') {
        conf_bad(check, path, "expected an absolute path, found \"%.80s\"", text);
        return false;
    }
    return conf_check_text(check, path, text, 1024);
}

bool conf_check_hex256(struct conf_check *check, const char *path, const char *text)
{
    bool ok = !text || (strlen(text) == 64 && strspn(text, DIGITS "abcdef") == 64);
    if (!ok) {
        conf_bad(check, path, "expected 64 lowercase hex digits, found \"%.80s\"", text);
    }
    return ok;
}

bool conf_check_trust_domain(struct conf_check *check, const char *path, const char *text)
{
    size_t len = text ? strlen(text) : 1;
    bool ok = !text || (len > 0 && len <= 255 && strspn(text, LOWER DIGITS ".-_") == len);
    if (!ok) {
        conf_bad(check, path,
                 "expected a SPIFFE trust domain of a-z 0-9 . - _, such as bank.example, found "
                 "\"%.80s\"",
                 text);
    }
    return ok;
}

bool conf_check_duration(struct conf_check *check, const char *path, const char *text,
                         int64_t least_s, int64_t *ret_s)
{
    struct att_err err = {0};
    int64_t value = 0;
    if (!text || !note(check, path, att_duration_parse(text, &value, &err), &err)) {
        return text == NULL;
    }
    if (value < least_s) {
        conf_bad(check, path, "expected at least %lld s, found \"%.40s\"", (long long)least_s,
                 text);
        return false;
    }
    *ret_s = value;
    return true;
}

static bool is_word(const char *text, const char *const *words)
{
    for (; *words; words++) {
        if (strcmp(text, *words) == 0) {
            return true;
        }
    }
    return false;
}

bool conf_check_word(struct conf_check *check, const char *path, const char *text,
                     const char *const *words)
{
    char list[128] = "";
    if (!text || is_word(text, words)) {
        return true;
    }
    for (size_t len = 0; *words && len < sizeof list; words++) {
        int n = snprintf(list + len, sizeof list - len, "%s%s", len ? ", " : "", *words);
        len += n > 0 ? (size_t)n : 0;
    }
    conf_bad(check, path, "expected one of: %s; found \"%.60s\"", list, text);
    return false;
}

bool conf_check_words(struct conf_check *check, const char *path, char *const *texts, size_t n,
                      const char *const *words)
{
    bool ok = true;
    for (size_t i = 0; i < n; i++) {
        struct conf_path at = conf_path("%.100s[%zu]", path, i);
        ok &= conf_check_word(check, at.text, texts[i], words);
        for (size_t k = 0; k < i; k++) {
            if (strcmp(texts[i], texts[k]) == 0) {
                conf_bad(check, at.text, "\"%.60s\" stands there twice", texts[i]);
                ok = false;
                break;
            }
        }
    }
    return ok;
}

void conf_check_log(struct conf_check *check, const char *log, const char *level, bool *ret_json,
                    enum att_log_level *ret_least)
{
    static const char *const forms[] = {"text", "json", NULL};
    static const char *const levels[] = {"debug", "info", "warn", "error", NULL};
    (void)conf_check_word(check, "log", log, forms);
    (void)conf_check_word(check, "log_level", level, levels);
    *ret_json = strcmp(log, "json") == 0;
    *ret_least = strcmp(level, "debug") == 0   ? ATT_DEBUG
                 : strcmp(level, "warn") == 0  ? ATT_WARN
                 : strcmp(level, "error") == 0 ? ATT_ERROR
                                               : ATT_INFO;
}

bool conf_check_group(struct conf_check *check, char **group)
{
    if (!**group || strcmp(*group, "none") == 0) {
        free(*group);
        *group = NULL;
        return true;
    }
    size_t len = strlen(*group);
    if (len > 32 || strspn(*group, LOWER DIGITS "_-") != len || strchr(DIGITS "-", **group)) {
        conf_bad(check, "control_group", "expected a group's name or none, found \"%.60s\"",
                 *group);
        return false;
    }
    return true;
}

bool conf_check_policy_ref(struct conf_check *check, const char *path, const char *text)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
                                  "._-/:";
    size_t len = text ? strlen(text) : 1;
    if (len < 1 || len > 32 || (text && strspn(text, letters) != len)) {
        conf_bad(check, path, "expected 1-32 of [A-Za-z0-9._-/:], found \"%.60s\"", text);
        return false;
    }
    return true;
}
