#include "provision/store/dialect.h"

#include <string.h>

static bool word_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* Length of a quoted text that starts here, with both quotes; the rest where it is not closed. */
static size_t quoted(const char *at)
{
    const char *end = strchr(at + 1, *at);
    return end ? (size_t)(end - at) + 1 : strlen(at);
}

struct word {
    const char *from, *to;
    bool scripts_only;
};

static const struct word words[] = {
    {"instr", "strpos", false},
    {"BLOB", "BYTEA", true},
    {"TEXT", "TEXT COLLATE \"C\"", true},
};

static void put_word(const char *at, size_t len, bool script, struct att_buf *out)
{
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strlen(words[i].from) == len && strncmp(at, words[i].from, len) == 0 &&
            (script || !words[i].scripts_only)) {
            att_buf_put_str(out, words[i].to);
            return;
        }
    }
    att_buf_put(out, at, len);
}

enum att_rc store_dialect_postgres(const char *sql, bool script, struct att_buf *ret_sql,
                                   struct att_err *err)
{
    const char *at = sql;
    while (*at) {
        size_t len = 1;
        if (*at == '\'' || *at == '"') {
            len = quoted(at);
            att_buf_put(ret_sql, at, len);
        } else if (strncmp(at, "x'", 2) == 0) {
            len = 1 + quoted(at + 1);
            att_buf_put_str(ret_sql, "'\\x");
            att_buf_put(ret_sql, at + 2, len - 2);
            att_buf_put_str(ret_sql, "::bytea");
        } else if (*at == '?') {
            if (at[1] < '1' || at[1] > '9') {
                return att_fail(err, ATT_E_INVAL, "store: a ? without a number in %.80s", sql);
            }
            att_buf_put_str(ret_sql, "$");
        } else if (word_char(*at)) {
            while (word_char(at[len])) {
                len++;
            }
            put_word(at, len, script, ret_sql);
        } else {
            att_buf_put(ret_sql, at, 1);
        }
        at += len;
    }
    return att_buf_ok(ret_sql, err);
}

/* Bytes of the character at p, 0 where there is none of RFC 3629 (overlong, surrogate, beyond). */
static size_t character(const uint8_t *p, size_t left)
{
    size_t len = p[0] < 0x80                   ? 1
                 : p[0] >= 0xc2 && p[0] < 0xe0 ? 2
                 : p[0] >= 0xe0 && p[0] < 0xf0 ? 3
                 : p[0] >= 0xf0 && p[0] < 0xf5 ? 4
                                               : 0;
    if (len == 0 || len > left || p[0] == 0) {
        return 0;
    }
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    bool bad = (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
               (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f);
    return bad ? 0 : len;
}

bool store_dialect_text_ok(struct att_slice text)
{
    size_t at = 0;
    while (at < text.len) {
        size_t len = character(text.ptr + at, text.len - at);
        if (len == 0) {
            return false;
        }
        at += len;
    }
    return true;
}
