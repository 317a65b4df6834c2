/* Formats whose lines stand for themselves. */
#include "attestd/scan/judge.h"
#include "attestd/scan/pairs.h"

#include <string.h>

#define PEM_MAX 512 /* header, OpenSSL's two lines, and some Base64 */

/* ---- lines ---- */

struct line {
    struct scan_text text; /* without the newline and white space around it */
    size_t rest;           /* bytes from its beginning to the end of all */
    uint32_t n;
};

static bool blank(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static bool next(struct scan_text *all, struct line *line)
{
    if (all->len == 0) {
        return false;
    }
    uint8_t *end = memchr(all->ptr, '\n', all->len);
    size_t len = end ? (size_t)(end - all->ptr) : all->len, taken = end ? len + 1 : len;
    struct scan_text t = {all->ptr, len};
    line->rest = all->len;
    while (t.len && blank(t.ptr[0])) {
        t = (struct scan_text){t.ptr + 1, t.len - 1};
        line->rest--;
    }
    while (t.len && blank(t.ptr[t.len - 1])) {
        t.len--;
    }
    line->text = t;
    line->n++;
    *all = (struct scan_text){all->ptr + taken, all->len - taken};
    return true;
}

static void give(const struct scan_sink *sink, uint32_t line, struct att_slice name,
                 struct att_slice value)
{
    struct scan_pair pair = {name, value, line, ""};
    sink->pair(sink->user, &pair);
}

void scan_nameless(const struct scan_sink *sink, const char *at, uint32_t line,
                   struct att_slice text, size_t rest)
{
    struct scan_pair pair = {{text.ptr, 0}, text, line, at};
    if (rest > text.len && text.len && memmem(text.ptr, text.len, "-----BEGIN ", 11)) {
        pair.value.len = rest < PEM_MAX ? rest : PEM_MAX;
    }
    if (text.len) {
        sink->pair(sink->user, &pair);
    }
}

bool scan_name_has_url(struct att_slice name)
{
    return name.len && memmem(name.ptr, name.len, "://", 3);
}

static void nameless(const struct scan_sink *sink, const struct line *l)
{
    scan_nameless(sink, "", l->n, ATT_SLICE(l->text.ptr, l->text.len), l->rest);
}

void scan_lines(struct scan_text text, uint32_t first, const struct scan_sink *sink)
{
    struct line l = {.n = first - 1};
    while (next(&text, &l)) {
        nameless(sink, &l);
    }
}

/* ---- key = value, key: value ---- */

static struct att_slice strip(const uint8_t *ptr, size_t len)
{
    return scan_value_trim(ATT_SLICE(ptr, len));
}

/* A comment behind an unquoted value goes; a quoted value ends with its quote. */
static struct att_slice value_of(const uint8_t *ptr, size_t len)
{
    struct att_slice v = ATT_SLICE(ptr, len);
    while (v.len && blank(v.ptr[0])) {
        v = ATT_SLICE(v.ptr + 1, v.len - 1);
    }
    if (v.len && (v.ptr[0] == '"' || v.ptr[0] == '\'')) {
        const uint8_t *close = memrchr(v.ptr + 1, v.ptr[0], v.len - 1);
        return close ? ATT_SLICE(v.ptr + 1, (size_t)(close - v.ptr) - 1) : v;
    }
    for (size_t i = 1; i < v.len; i++) {
        if ((v.ptr[i] == '#' || v.ptr[i] == ';') && blank(v.ptr[i - 1])) {
            v.len = i;
        }
    }
    return scan_value_trim(v);
}

static bool is_comment(const struct line *l)
{
    return l->text.len && (l->text.ptr[0] == '#' || l->text.ptr[0] == ';');
}

static void commented(const struct scan_sink *sink, const struct line *l)
{
    scan_nameless(sink, "comment", l->n, ATT_SLICE(l->text.ptr, l->text.len), l->text.len);
}

/* //registry.example/:_authToken and [section.key] names: the last part. */
static struct att_slice last_part(struct att_slice name)
{
    const uint8_t *colon = name.len ? memrchr(name.ptr, ':', name.len) : NULL;
    size_t n = colon ? (size_t)(colon - name.ptr) + 1 : 0;
    return ATT_SLICE(name.ptr + n, name.len - n);
}

void scan_ini(struct scan_text text, const struct scan_sink *sink)
{
    struct line l = {.n = 0};
    while (next(&text, &l)) {
        struct scan_text t = l.text;
        uint8_t *sep = t.len ? memchr(t.ptr, '=', t.len) : NULL;
        sep = sep || !t.len ? sep : memchr(t.ptr, ':', t.len);
        bool url = sep && (scan_name_has_url(ATT_SLICE(t.ptr, (size_t)(sep - t.ptr))) ||
                           (t.len - (size_t)(sep - t.ptr) > 2 && memcmp(sep, "://", 3) == 0));
        if (is_comment(&l)) {
            commented(sink, &l);
        } else if (sep && !url && t.ptr[0] != '[' && t.ptr[0] != '-') {
            size_t n = (size_t)(sep - t.ptr);
            give(sink, l.n, last_part(strip(t.ptr, n)), value_of(sep + 1, t.len - n - 1));
        } else {
            nameless(sink, &l);
        }
    }
}

/* The ": " (or ':' at the end) that ends a key; NULL: none. */
static uint8_t *yaml_colon(struct scan_text t)
{
    for (size_t i = 0; i < t.len; i++) {
        if (t.ptr[i] == ':' && (i + 1 == t.len || blank(t.ptr[i + 1]))) {
            return t.ptr + i;
        }
    }
    return NULL;
}

void scan_yaml(struct scan_text text, const struct scan_sink *sink)
{
    struct line l = {.n = 0};
    while (next(&text, &l)) {
        struct scan_text t = l.text;
        if (is_comment(&l)) {
            commented(sink, &l);
            continue;
        }
        while (t.len > 1 && t.ptr[0] == '-' && blank(t.ptr[1])) { /* items of a list */
            t = (struct scan_text){t.ptr + 2, t.len - 2};
        }
        uint8_t *sep = yaml_colon(t);
        if (sep) {
            size_t n = (size_t)(sep - t.ptr);
            give(sink, l.n, strip(t.ptr, n), value_of(sep + 1, t.len - n - 1));
        } else if (t.ptr != l.text.ptr && t.len) {
            struct att_slice item = value_of(t.ptr, t.len);
            const uint8_t *equals = item.len ? memchr(item.ptr, '=', item.len) : NULL;
            size_t n = equals ? (size_t)(equals - item.ptr) : 0;
            bool name = equals && !scan_name_has_url(ATT_SLICE(item.ptr, n));
            give(sink, l.n, ATT_SLICE(item.ptr, name ? n : 0),
                 name ? ATT_SLICE(equals + 1, item.len - n - 1) : item);
        } else {
            nameless(sink, &l);
        }
    }
}

/* ---- .netrc, .pgpass ---- */

/* macdef: up to an empty line. */
static void skip_macro(struct scan_text *text, uint32_t *line)
{
    struct line l = {.n = *line};
    while (next(text, &l) && l.text.len) {
    }
    *line = l.n;
}

void scan_netrc(struct scan_text text, const struct scan_sink *sink)
{
    uint32_t line = 1;
    bool password = false;
    while (text.len) {
        struct scan_text word;
        while (text.len && (blank(text.ptr[0]) || text.ptr[0] == '\n')) {
            line += text.ptr[0] == '\n';
            text = (struct scan_text){text.ptr + 1, text.len - 1};
        }
        if (text.len && text.ptr[0] == '#') {
            uint8_t *end = memchr(text.ptr, '\n', text.len);
            size_t n = end ? (size_t)(end - text.ptr) : text.len;
            scan_nameless(sink, "comment", line, ATT_SLICE(text.ptr, n), n);
            text = (struct scan_text){text.ptr + n, text.len - n};
            continue;
        }
        uint32_t here = line;
        const uint8_t *from = text.ptr;
        if (!scan_word_next(&text, &word)) {
            break;
        }
        for (; from < text.ptr; from++) { /* a quoted word may hold lines */
            line += *from == '\n';
        }
        struct att_slice w = {word.ptr, word.len};
        if (password || (w.len && scan_shape(w).confidence)) {
            give(sink, here, password ? ATT_SLICE_LIT("password") : ATT_SLICE(word.ptr, 0), w);
        }
        password = !password && att_slice_eq_str(w, "password");
        if (att_slice_eq_str(w, "macdef")) {
            skip_macro(&text, &line);
        }
    }
}

void scan_pgpass(struct scan_text text, const struct scan_sink *sink)
{
    struct line l = {.n = 0};
    while (next(&text, &l)) {
        size_t colons = 0, i = 0;
        if (is_comment(&l)) {
            commented(sink, &l);
            continue;
        }
        for (; i < l.text.len && colons < 4; i++) {
            i += l.text.ptr[i] == '\\' ? 1 : 0;
            colons += i < l.text.len && l.text.ptr[i] == ':';
        }
        if (colons == 4 && i <= l.text.len) {
            give(sink, l.n, ATT_SLICE_LIT("password"), ATT_SLICE(l.text.ptr + i, l.text.len - i));
        } else if (l.text.len) {
            if (sink->bad) {
                sink->bad(sink->user, l.n);
            }
            nameless(sink, &l);
        }
    }
}

/* ---- by format ---- */

static bool braces(struct scan_text t)
{
    size_t i = 0;
    while (i < t.len && (blank(t.ptr[i]) || t.ptr[i] == '\n')) {
        i++;
    }
    return i < t.len && (t.ptr[i] == '{' || t.ptr[i] == '[');
}

void scan_parse(enum scan_format format, struct scan_text text, const struct scan_sink *sink)
{
    if (text.len >= 3 && memcmp(text.ptr, "\xef\xbb\xbf", 3) == 0) {
        text = (struct scan_text){text.ptr + 3, text.len - 3};
    }
    if (format == SCAN_JSON || format == SCAN_YAML) {
        format = braces(text) ? SCAN_JSON : SCAN_YAML;
    }
    switch (format) {
    case SCAN_ENV:
        scan_envfile(text, sink);
        break;
    case SCAN_UNIT:
        scan_unitfile(text, sink);
        break;
    case SCAN_INI:
        scan_ini(text, sink);
        break;
    case SCAN_YAML:
        scan_yaml(text, sink);
        break;
    case SCAN_JSON:
        scan_json(text, sink);
        break;
    case SCAN_NETRC:
        scan_netrc(text, sink);
        break;
    case SCAN_PGPASS:
        scan_pgpass(text, sink);
        break;
    case SCAN_WHOLE:
        give(sink, 0, ATT_SLICE(text.ptr, 0), ATT_SLICE(text.ptr, text.len));
        break;
    case SCAN_LINES:
        scan_lines(text, 1, sink);
        break;
    case SCAN_HISTORY:
        scan_history(text, sink);
        break;
    }
}
