#include "attestd/scan/pairs.h"

#include <string.h>

static bool blank(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static int hex(uint8_t c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* digits of base behind text[0]; how many there are of n: the escape is one only with all. */
static bool number(struct scan_text text, size_t n, int base, uint32_t *ret)
{
    uint32_t value = 0;
    for (size_t i = 0; i < n; i++) {
        int digit = i < text.len ? hex(text.ptr[i]) : -1;
        if (digit < 0 || digit >= base) {
            return false;
        }
        value = value * (uint32_t)base + (uint32_t)digit;
    }
    *ret = value;
    return true;
}

static size_t utf8(uint8_t *to, uint32_t point)
{
    if (point < 0x80) {
        to[0] = (uint8_t)point;
        return 1;
    }
    if (point < 0x800) {
        to[0] = (uint8_t)(0xc0 | point >> 6);
        to[1] = (uint8_t)(0x80 | (point & 0x3f));
        return 2;
    }
    if (point < 0x10000) {
        to[0] = (uint8_t)(0xe0 | point >> 12);
        to[1] = (uint8_t)(0x80 | (point >> 6 & 0x3f));
        to[2] = (uint8_t)(0x80 | (point & 0x3f));
        return 3;
    }
    to[0] = (uint8_t)(0xf0 | (point >> 18 & 7));
    to[1] = (uint8_t)(0x80 | (point >> 12 & 0x3f));
    to[2] = (uint8_t)(0x80 | (point >> 6 & 0x3f));
    to[3] = (uint8_t)(0x80 | (point & 0x3f));
    return 4;
}

/* text begins behind a backslash. Returns what was taken of it, 0: no escape (both stay). */
static size_t escape(struct scan_text text, uint8_t *to, size_t *ret_put)
{
    /* "\\/" is JSON's alone, and nothing else is meant by it elsewhere. */
    static const char from[] = "abfnrtv\\\"'s/", into[] = "\a\b\f\n\r\t\v\\\"' /";
    uint32_t value = 0;
    const char *simple = text.len && text.ptr[0] ? strchr(from, text.ptr[0]) : NULL;
    struct scan_text behind = {text.ptr + 1, text.len ? text.len - 1 : 0};
    size_t digits = 0;
    if (simple) {
        to[0] = (uint8_t)into[simple - from];
        *ret_put = 1;
        return 1;
    }
    if (text.len && text.ptr[0] == 'x' && number(behind, 2, 16, &value)) {
        digits = 2;
    } else if (text.len && text.ptr[0] == 'u' && number(behind, 4, 16, &value)) {
        digits = 4;
    } else if (text.len && text.ptr[0] == 'U' && number(behind, 8, 16, &value)) {
        digits = 8;
    } else if (number(text, 3, 8, &value) && value < 256) {
        to[0] = (uint8_t)value;
        *ret_put = 1;
        return 3;
    }
    if (digits == 0) {
        return 0;
    }
    if (digits == 2) {
        to[0] = (uint8_t)value;
        *ret_put = 1;
    } else {
        *ret_put = utf8(to, value & 0x1fffff);
    }
    return digits + 1;
}

/* At text[*from] stands a backslash: both indices go on. */
static void take_escape(struct scan_text text, size_t *from, size_t *to)
{
    size_t put = 0;
    uint8_t bytes[4] = {0};
    struct scan_text behind = {text.ptr + *from + 1, text.len - *from - 1};
    size_t taken = escape(behind, bytes, &put);
    if (taken == 0) {
        text.ptr[(*to)++] = '\\';
        *from += 1;
        return;
    }
    memcpy(text.ptr + *to, bytes, put);
    memset(bytes, 0, sizeof bytes);
    *to += put;
    *from += 1 + taken;
}

size_t scan_unescape(struct scan_text text)
{
    size_t from = 0, to = 0;
    while (from < text.len) {
        if (text.ptr[from] == '\\') {
            take_escape(text, &from, &to);
        } else {
            text.ptr[to++] = text.ptr[from++];
        }
    }
    return to;
}

bool scan_word_next(struct scan_text *rest, struct scan_text *ret_word)
{
    size_t from = 0, to = 0;
    uint8_t quote = 0;
    while (from < rest->len && blank(rest->ptr[from])) {
        from++;
    }
    if (from == rest->len) {
        *rest = (struct scan_text){rest->ptr + from, 0};
        return false;
    }
    size_t start = to = from;
    while (from < rest->len && (quote || !blank(rest->ptr[from]))) {
        uint8_t c = rest->ptr[from];
        if (c == '\\') {
            take_escape(*rest, &from, &to);
        } else if (quote ? c == quote : c == '"' || c == '\'') {
            quote = quote ? 0 : c;
            from++;
        } else {
            rest->ptr[to++] = rest->ptr[from++];
        }
    }
    *ret_word = (struct scan_text){rest->ptr + start, to - start};
    *rest = (struct scan_text){rest->ptr + from, rest->len - from};
    return true;
}

/* ---- a command's arguments ---- */

static bool name_char(uint8_t c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' ||
           c == '-' || c == '.';
}

static void give(const struct scan_sink *sink, const char *at, uint32_t line, struct att_slice name,
                 struct att_slice value)
{
    struct scan_pair pair = {name, value, line, at};
    sink->pair(sink->user, &pair);
}

/* NAME=VALUE, --option=VALUE, "Header: value"; else the value of the option before it. */
static void plain(const struct scan_sink *sink, const char *at, uint32_t line,
                  struct att_slice option, struct att_slice word)
{
    size_t n = 0;
    while (n < word.len && name_char(word.ptr[n])) {
        n++;
    }
    struct att_slice none = {word.ptr, 0};
    if (n && n < word.len && word.ptr[n] == '=') {
        give(sink, at, line, ATT_SLICE(word.ptr, n), ATT_SLICE(word.ptr + n + 1, word.len - n - 1));
    } else if (n && n + 1 < word.len && word.ptr[n] == ':' && word.ptr[n + 1] == ' ') {
        give(sink, at, line, ATT_SLICE(word.ptr, n), ATT_SLICE(word.ptr + n + 2, word.len - n - 2));
    } else if (option.len && option.ptr[0] == '-' && !(word.len && word.ptr[0] == '-')) {
        give(sink, at, line, option, word);
    } else {
        give(sink, at, line, none, word);
    }
}

void scan_argument(const struct scan_sink *sink, const char *at, uint32_t line,
                   struct att_slice option, struct scan_text word)
{
    struct att_slice text = ATT_SLICE(word.ptr, word.len), before = {word.ptr, 0};
    plain(sink, at, line, option, text);
    if (!memchr(word.ptr, ' ', word.len) || word.len < 8) {
        return;
    }
    /* sh -c "export X=…; curl -H '…'": its words, once. */
    struct scan_text rest = word, part;
    while (scan_word_next(&rest, &part)) {
        while (part.len && (part.ptr[part.len - 1] == ';' || part.ptr[part.len - 1] == ')')) {
            part.len--;
        }
        plain(sink, at, line, before, ATT_SLICE(part.ptr, part.len));
        before = ATT_SLICE(part.ptr, part.len);
    }
}

/* zsh: ": 1700000000:0;command"; fish: "- cmd: command", "  when: 1700000000"; bash: "#1700000000"
 */
static struct scan_text command(struct scan_text line)
{
    static const char fish[] = "- cmd: ";
    size_t skip = 0;
    if (line.len > 2 && line.ptr[0] == ':' && line.ptr[1] == ' ') {
        size_t n = 2;
        while (n < line.len && ((line.ptr[n] >= '0' && line.ptr[n] <= '9') || line.ptr[n] == ':')) {
            n++;
        }
        skip = n > 2 && n < line.len && line.ptr[n] == ';' ? n + 1 : 0;
    } else if (line.len > sizeof fish - 1 && memcmp(line.ptr, fish, sizeof fish - 1) == 0) {
        skip = sizeof fish - 1;
    }
    return (struct scan_text){line.ptr + skip, line.len - skip};
}

/* Words are rewritten within their line; what begins a PEM block is looked at with what follows. */
void scan_history(struct scan_text text, const struct scan_sink *sink)
{
    for (uint32_t n = 1; text.len; n++) {
        uint8_t *end = memchr(text.ptr, '\n', text.len);
        size_t len = end ? (size_t)(end - text.ptr) : text.len, taken = end ? len + 1 : len;
        struct scan_text line = {text.ptr, len}, rest = command(line), word;
        struct att_slice before = {line.ptr, 0};
        if (len && memmem(line.ptr, len, "-----BEGIN ", 11)) {
            scan_nameless(sink, "history", n, ATT_SLICE(line.ptr, len), text.len);
        }
        while (scan_word_next(&rest, &word)) {
            scan_argument(sink, "history", n, before, word);
            before = ATT_SLICE(word.ptr, word.len);
        }
        text = (struct scan_text){text.ptr + taken, text.len - taken};
    }
}

void scan_cmdline(struct scan_text text, const struct scan_sink *sink)
{
    struct att_slice before = {text.ptr, 0};
    for (size_t at = 0; at < text.len;) {
        const uint8_t *end = memchr(text.ptr + at, 0, text.len - at);
        size_t len = end ? (size_t)(end - text.ptr) - at : text.len - at;
        struct scan_text word = {text.ptr + at, len};
        scan_argument(sink, "argument", 0, before, word);
        before = ATT_SLICE(text.ptr + at, len);
        at += len + 1;
    }
}

void scan_environ(struct scan_text text, const struct scan_sink *sink)
{
    for (size_t at = 0; at < text.len;) {
        const uint8_t *begin = text.ptr + at;
        const uint8_t *end = memchr(begin, 0, text.len - at);
        size_t len = end ? (size_t)(end - begin) : text.len - at;
        const uint8_t *equals = memchr(begin, '=', len);
        size_t n = equals ? (size_t)(equals - begin) : 0;
        struct att_slice name = {begin, n};
        /* A process may have overwritten it with anything. */
        struct att_slice value =
            equals ? ATT_SLICE(equals + 1, len - n - 1) : ATT_SLICE(begin, len);
        give(sink, "", 0, name, value);
        at += len + 1;
    }
}
