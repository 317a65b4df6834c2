/* systemd.syntax(7): sections, assignments, lines that go on behind a backslash, with comments in
 * between that are left out. */
#include "attestd/scan/judge.h"
#include "attestd/scan/pairs.h"

#include <string.h>

static bool blank(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static struct scan_text trim(struct scan_text t)
{
    while (t.len && blank(t.ptr[0])) {
        t = (struct scan_text){t.ptr + 1, t.len - 1};
    }
    while (t.len && blank(t.ptr[t.len - 1])) {
        t.len--;
    }
    return t;
}

struct unit {
    const struct scan_sink *sink;
    uint32_t line;
};

static void pair(const struct unit *u, const char *at, struct att_slice name,
                 struct scan_text value)
{
    struct scan_pair p = {name, ATT_SLICE(value.ptr, value.len), u->line, at};
    u->sink->pair(u->sink->user, &p);
}

static void bad(const struct unit *u)
{
    if (u->sink->bad) {
        u->sink->bad(u->sink->user, u->line);
    }
}

/* NAME=VALUE as one word. */
static void environment(const struct unit *u, const char *at, struct scan_text value)
{
    struct scan_text word;
    if (value.len == 0 && u->sink->reset) {
        u->sink->reset(u->sink->user, at);
    }
    while (scan_word_next(&value, &word)) {
        uint8_t *equals = word.len ? memchr(word.ptr, '=', word.len) : NULL;
        size_t n = equals ? (size_t)(equals - word.ptr) : 0;
        if (equals) {
            struct scan_text rest = {equals + 1, word.len - n - 1};
            pair(u, at, ATT_SLICE(word.ptr, n), rest);
        } else {
            bad(u);
            pair(u, at, ATT_SLICE(word.ptr, 0), word);
        }
    }
}

static void file(const struct unit *u, const char *at, struct scan_text value)
{
    struct att_slice name = {value.ptr, 0};
    if (value.len == 0 && u->sink->reset) {
        u->sink->reset(u->sink->user, at);
    }
    if (strcmp(at, "LoadCredential") == 0) {
        uint8_t *colon = value.len ? memchr(value.ptr, ':', value.len) : NULL;
        size_t n = colon ? (size_t)(colon - value.ptr) : value.len;
        name = ATT_SLICE(value.ptr, n);
        if (colon) { /* without a path it is of that name in a credential store */
            value = (struct scan_text){colon + 1, value.len - n - 1};
        }
    }
    if (value.len && u->sink->file) {
        u->sink->file(u->sink->user, at, name, ATT_SLICE(value.ptr, value.len), u->line);
    }
}

static void credential(const struct unit *u, const char *at, struct scan_text value)
{
    uint8_t *colon = value.len ? memchr(value.ptr, ':', value.len) : NULL;
    if (!colon) {
        if (value.len) {
            bad(u);
        }
        pair(u, at, ATT_SLICE(value.ptr, 0), value);
        return;
    }
    size_t n = (size_t)(colon - value.ptr);
    struct scan_text rest = {colon + 1, value.len - n - 1};
    rest.len = scan_unescape(rest);
    pair(u, at, ATT_SLICE(value.ptr, n), rest);
}

static void command(const struct unit *u, const char *at, struct scan_text value)
{
    struct scan_text word;
    struct att_slice before = {value.ptr, 0};
    while (scan_word_next(&value, &word)) {
        scan_argument(u->sink, at, u->line, before, word);
        before = ATT_SLICE(word.ptr, word.len);
    }
}

static void assignment(const struct unit *u, struct scan_text key, struct scan_text value)
{
    /* The last three: podman's quadlets (*.container), systemd's own system.conf. */
    static const struct {
        const char *key;
        void (*take)(const struct unit *, const char *, struct scan_text);
    } all[] = {
        {"Environment", environment},
        {"EnvironmentFile", file},
        {"ExecStart", command},
        {"ExecStartPre", command},
        {"ExecStartPost", command},
        {"ExecCondition", command},
        {"ExecReload", command},
        {"ExecStop", command},
        {"ExecStopPost", command},
        {"SetCredential", credential},
        {"LoadCredential", file},
        {"Exec", command},
        {"PodmanArgs", command},
        {"DefaultEnvironment", environment},
        {"ManagerEnvironment", environment},
    };
    struct att_slice name = {key.ptr, key.len};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (att_slice_eq_str(name, all[i].key)) {
            all[i].take(u, all[i].key, value);
            return;
        }
    }
    /* What systemd encrypts is not in clear, whatever it looks like. */
    if (!scan_ends(name, "Encrypted")) {
        pair(u, "", name, value);
    }
}

static void logical(const struct unit *u, struct scan_text line, size_t rest)
{
    line = trim(line);
    if (line.len == 0) {
        return;
    }
    if (line.ptr[0] == '[') {
        if (line.ptr[line.len - 1] != ']') {
            bad(u);
        }
        return;
    }
    uint8_t *equals = memchr(line.ptr, '=', line.len);
    if (!equals) {
        bad(u);
        scan_nameless(u->sink, "", u->line, ATT_SLICE(line.ptr, line.len), rest);
        return;
    }
    struct scan_text key = {line.ptr, (size_t)(equals - line.ptr)};
    struct scan_text value = {equals + 1, line.len - key.len - 1};
    assignment(u, trim(key), trim(value));
}

void scan_unitfile(struct scan_text text, const struct scan_sink *sink)
{
    struct unit u = {sink, 1};
    size_t start = 0, to = 0; /* the logical line so far, moved together */
    uint32_t n = 0;
    bool goes_on = false;
    for (size_t at = 0; at < text.len;) {
        uint8_t *end = memchr(text.ptr + at, '\n', text.len - at);
        size_t len = end ? (size_t)(end - text.ptr) - at : text.len - at;
        struct scan_text line = trim((struct scan_text){text.ptr + at, len});
        at += len + (end ? 1 : 0);
        n++;
        if (line.len && (line.ptr[0] == '#' || line.ptr[0] == ';')) {
            struct unit c = {sink, n};
            scan_nameless(sink, "comment", c.line, ATT_SLICE(line.ptr, line.len), line.len);
            continue;
        }
        if (!goes_on) {
            start = to = (size_t)(line.ptr - text.ptr);
            u.line = n;
        }
        memmove(text.ptr + to, line.ptr, line.len);
        to += line.len;
        goes_on = line.len && line.ptr[line.len - 1] == '\\' && at < text.len;
        if (to > start && text.ptr[to - 1] == '\\' && line.len) {
            text.ptr[to - 1] = ' ';
            goes_on = at < text.len;
        }
        if (!goes_on) {
            logical(&u, (struct scan_text){text.ptr + start, to - start}, to - start);
        }
    }
    if (goes_on) {
        logical(&u, (struct scan_text){text.ptr + start, to - start}, to - start);
    }
}
