/* JSON without a copy: jansson would leave each value in memory that is not wiped. Lenient (commas,
 * comments), since nothing is decided by it but where to look. */
#include "attestd/scan/pairs.h"

#include <string.h>

#define DEPTH_MAX 64

struct json {
    struct scan_text text;
    const struct scan_sink *sink;
    size_t at;
    uint32_t line;
    unsigned depth;
    bool bad;
};

static uint8_t peek(const struct json *j)
{
    return j->at < j->text.len ? j->text.ptr[j->at] : 0;
}

static void to_line_end(struct json *j)
{
    while (j->at < j->text.len && peek(j) != '\n') {
        j->at++;
    }
}

/* White space, commas, // and # comments. */
static void skip(struct json *j)
{
    while (j->at < j->text.len) {
        uint8_t c = peek(j);
        bool slashes = c == '/' && j->at + 1 < j->text.len && j->text.ptr[j->at + 1] == '/';
        if (slashes || c == '#') {
            to_line_end(j);
        } else if (c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == ',') {
            j->line += c == '\n';
            j->at++;
        } else {
            break;
        }
    }
}

/* At a quote. The escapes of JSON are those of C, but for \/ and what \u has above 0xffff. */
static struct att_slice string(struct json *j)
{
    size_t from = ++j->at, end = from;
    while (end < j->text.len && j->text.ptr[end] != '"') {
        j->line += j->text.ptr[end] == '\n';
        end += j->text.ptr[end] == '\\' ? 2 : 1;
    }
    if (end >= j->text.len) {
        j->bad = true;
        j->at = from; /* the rest is looked at by lines */
        return ATT_SLICE(j->text.ptr + from, 0);
    }
    j->at = end + 1;
    return ATT_SLICE(j->text.ptr + from,
                     scan_unescape((struct scan_text){j->text.ptr + from, end - from}));
}

static void give(struct json *j, struct att_slice name, struct att_slice value, uint32_t line)
{
    struct scan_pair pair = {name, value, line, ""};
    j->sink->pair(j->sink->user, &pair);
}

static void value(struct json *j, struct att_slice name);

static void members(struct json *j, struct att_slice outer, uint8_t close)
{
    j->at++;
    for (skip(j); !j->bad && peek(j) != close; skip(j)) {
        struct att_slice name = outer;
        if (j->at == j->text.len) {
            j->bad = true;
            return;
        }
        if (close == '}') {
            if (peek(j) != '"') {
                j->bad = true;
                return;
            }
            name = string(j);
            skip(j);
            if (j->bad || peek(j) != ':') {
                j->bad = true;
                return;
            }
            j->at++;
            skip(j);
        }
        value(j, name);
    }
    j->at += j->bad ? 0 : 1;
}

static void scalar(struct json *j, struct att_slice name)
{
    size_t from = j->at;
    while (j->at < j->text.len && !memchr(",]} \t\r\n", peek(j), 7)) {
        j->at++;
    }
    if (j->at == from) {
        j->bad = true;
    } else {
        give(j, name, ATT_SLICE(j->text.ptr + from, j->at - from), j->line);
    }
}

static void value(struct json *j, struct att_slice name)
{
    uint8_t c = peek(j);
    if (c == '"') {
        uint32_t line = j->line;
        struct att_slice text = string(j);
        if (!j->bad) {
            give(j, name, text, line);
        }
    } else if (c == '{' || c == '[') {
        if (++j->depth > DEPTH_MAX) {
            j->bad = true;
            return;
        }
        members(j, name, c == '{' ? '}' : ']');
        j->depth--;
    } else {
        scalar(j, name);
    }
}

void scan_json(struct scan_text text, const struct scan_sink *sink)
{
    struct json j = {.text = text, .sink = sink, .line = 1};
    for (skip(&j); j.at < text.len && !j.bad; skip(&j)) { /* several: JSON lines */
        value(&j, ATT_SLICE(text.ptr, 0));
    }
    if (j.bad) {
        if (sink->bad) {
            sink->bad(sink->user, j.line);
        }
        size_t at = j.at < text.len ? j.at : text.len;
        scan_lines((struct scan_text){text.ptr + at, text.len - at}, j.line, sink);
    }
}
