/* systemd.exec(5), EnvironmentFile=: the quoting of a shell without its expansions. */
#include "attestd/scan/pairs.h"

#include <string.h>

struct env {
    struct scan_text text;
    const struct scan_sink *sink;
    size_t at, to; /* read from, written to */
    uint32_t line;
    bool no_close[2]; /* of ' and ": there is none from here on */
};

static bool blank(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static bool more(const struct env *e)
{
    return e->at < e->text.len;
}

/* The next byte, taken; lines are counted. */
static uint8_t take(struct env *e)
{
    uint8_t c = e->text.ptr[e->at++];
    e->line += c == '\n';
    return c;
}

static void put(struct env *e, uint8_t c)
{
    e->text.ptr[e->to++] = c;
}

static void comment(struct env *e)
{
    size_t from = e->at;
    uint32_t line = e->line;
    while (more(e) && e->text.ptr[e->at] != '\n') {
        if (take(e) == '\\' && more(e)) {
            take(e);
        }
    }
    scan_nameless(e->sink, "comment", line, ATT_SLICE(e->text.ptr + from, e->at - from),
                  e->text.len - from);
}

/* A quote that nothing closes is no quote: a lone apostrophe does not swallow the file. */
static bool closes(struct env *e, uint8_t quote)
{
    bool *none = &e->no_close[quote == '"'];
    for (size_t i = e->at; !*none && i < e->text.len; i++) {
        if (e->text.ptr[i] == '\\' && quote == '"') {
            i++;
        } else if (e->text.ptr[i] == quote) {
            return true;
        }
    }
    *none = true;
    return false;
}

static void quoted(struct env *e, uint8_t quote)
{
    while (more(e)) {
        uint8_t c = take(e);
        if (c == quote) {
            return;
        }
        if (c == '\\' && quote == '"' && more(e)) {
            uint8_t next = take(e);
            if (next != '\n' && !memchr("\"\\`$", next, 4)) {
                put(e, '\\');
            }
            if (next != '\n') {
                put(e, next);
            }
            continue;
        }
        put(e, c);
    }
}

static void skip_blanks(struct env *e)
{
    while (more(e) && blank(e->text.ptr[e->at])) {
        take(e);
    }
}

/* Returns where an unquoted " #" began, as a shell or dotenv cuts it; SIZE_MAX: nowhere. */
static size_t value(struct env *e)
{
    size_t start = e->to, solid = e->to, hash = SIZE_MAX;
    skip_blanks(e);
    while (more(e) && e->text.ptr[e->at] != '\n') {
        uint8_t c = take(e);
        if ((c == '\'' || c == '"') && closes(e, c)) {
            quoted(e, c);
            solid = e->to;
            skip_blanks(e);
        } else if (c == '\\' && more(e)) {
            uint8_t next = take(e);
            if (next != '\n') {
                put(e, next);
                solid = e->to;
            }
        } else {
            if (c == '#' && hash == SIZE_MAX &&
                (e->to > start ? blank(e->text.ptr[e->to - 1]) || solid < e->to : false)) {
                hash = e->to;
            }
            put(e, c);
            solid = blank(c) ? solid : e->to;
        }
    }
    e->to = solid;
    return hash < solid ? hash : SIZE_MAX;
}

static struct att_slice key(const uint8_t *ptr, size_t len)
{
    while (len && blank(ptr[len - 1])) {
        len--;
    }
    if (len > 7 && memcmp(ptr, "export ", 7) == 0) {
        ptr += 7;
        len -= 7;
    }
    while (len && blank(ptr[0])) {
        ptr++;
        len--;
    }
    return ATT_SLICE(ptr, len);
}

static void assignment(struct env *e)
{
    size_t from = e->at;
    uint32_t line = e->line;
    while (more(e) && e->text.ptr[e->at] != '\n' && e->text.ptr[e->at] != '=') {
        e->at++;
    }
    if (!more(e) || e->text.ptr[e->at] == '\n') {
        scan_nameless(e->sink, "", line, ATT_SLICE(e->text.ptr + from, e->at - from),
                      e->text.len - from);
        return;
    }
    struct scan_pair pair = {.name = key(e->text.ptr + from, e->at - from), .line = line, .at = ""};
    bool url =
        scan_name_has_url(pair.name); /* a command: the line as a whole, before it is moved */
    if (url) {
        const uint8_t *end = memchr(e->text.ptr + from, '\n', e->text.len - from);
        size_t len = end ? (size_t)(end - (e->text.ptr + from)) : e->text.len - from;
        scan_nameless(e->sink, "", line, ATT_SLICE(e->text.ptr + from, len), e->text.len - from);
    }
    size_t start = e->to = ++e->at;
    size_t hash = value(e), end = hash == SIZE_MAX ? e->to : hash;
    pair.value = ATT_SLICE(e->text.ptr + start, end - start);
    if (!url || e->line != line) {
        e->sink->pair(e->sink->user, &pair);
    }
    if (hash != SIZE_MAX) {
        scan_nameless(e->sink, "comment", line, ATT_SLICE(e->text.ptr + hash, e->to - hash),
                      e->to - hash);
    }
}

void scan_envfile(struct scan_text text, const struct scan_sink *sink)
{
    struct env e = {.text = text, .sink = sink, .line = 1};
    while (more(&e)) {
        uint8_t c = e.text.ptr[e.at];
        if (c == '\n' || blank(c)) {
            take(&e);
        } else if (c == '#' || c == ';') {
            comment(&e);
        } else {
            assignment(&e);
        }
    }
}
