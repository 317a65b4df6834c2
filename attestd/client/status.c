#include "attestd/client/status.h"

#include "attestd/base/text.h"

#include <stdio.h>
#include <string.h>

long status_number(struct att_slice value)
{
    long n = 0;
    for (size_t i = 0; i < value.len && i < 6; i++) {
        if (value.ptr[i] < '0' || value.ptr[i] > '9') {
            return -1;
        }
        n = n * 10 + (value.ptr[i] - '0');
    }
    return value.len > 0 && value.len < 6 ? n : -1;
}

static int hex_digit(uint8_t c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

void status_text(struct att_slice value, char ret_text[STATUS_TEXT_MAX])
{
    const uint8_t *at = value.ptr;
    size_t n = 0;
    for (size_t i = 0; i < value.len && n + 1 < STATUS_TEXT_MAX; i++) {
        bool escape = at[i] == '%' && value.len - i > 2 && hex_digit(at[i + 1]) >= 0 &&
                      hex_digit(at[i + 2]) >= 0;
        char c = escape ? (char)(hex_digit(at[i + 1]) * 16 + hex_digit(at[i + 2])) : (char)at[i];
        i += escape ? 2 : 0;
        ret_text[n++] = c ? c : '?';
    }
    ret_text[n] = 0;
    att_text_clean(ret_text);
}

static enum att_rc rc_of(long status)
{
    static const enum att_rc rcs[] = {
        [3] = ATT_E_INVAL,        [4] = ATT_E_TIMEOUT, [5] = ATT_E_NOTFOUND,
        [7] = ATT_E_DENIED,       [8] = ATT_E_LIMIT,   [9] = ATT_E_CONFLICT,
        [12] = ATT_E_UNSUPPORTED, [14] = ATT_E_RETRY,  [16] = ATT_E_DENIED};
    bool known = status >= 0 && (size_t)status < sizeof rcs / sizeof rcs[0] && rcs[status];
    return known ? rcs[status] : ATT_E_PROTOCOL;
}

#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

/* "word: sentence", or "sentence (word)". */
enum att_rc status_refusal(long status, const char *text, struct att_err *err)
{
    const char *open = strrchr(text, '(');
    char word[sizeof err->reason] = "";
    size_t len = strspn(text, LETTERS);
    size_t last = open ? strspn(open + 1, LETTERS) : 0;
    if (len > 0 && len < sizeof word && text[len] == ':' && text[len + 1] == ' ') {
        snprintf(word, sizeof word, "%.*s", (int)len, text);
        text += len + 2;
    } else if (open && last > 0 && last < sizeof word && strcmp(open + 1 + last, ")") == 0) {
        snprintf(word, sizeof word, "%.*s", (int)last, open + 1);
    }
    enum att_rc rc = att_fail(err, rc_of(status), "%s",
                              text[0] ? text : "attestd's socket for workloads refused");
    if (word[0]) {
        att_err_reason(err, word);
    }
    return rc;
}
