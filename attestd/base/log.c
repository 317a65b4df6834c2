#include "attestd/base/log.h"

#include "attestd/base/buf.h"
#include "attestd/base/clock.h"
#include "attestd/base/text.h"

#include <string.h>
#include <unistd.h>

static const char *program_name = "attestd";
static enum att_log_level least_level = ATT_INFO;
static bool as_json;

static const char *const level_names[] = {"debug", "info", "warn", "error"};

void att_log_level(enum att_log_level least)
{
    least_level = least;
}

static _Thread_local char request_id[64];

void att_log_request(const char *id)
{
    size_t len = id ? strnlen(id, sizeof request_id - 1) : 0;
    memcpy(request_id, id ? id : "", len);
    request_id[len] = 0;
}

const char *att_log_request_id(void)
{
    return request_id;
}

void att_log_setup(const char *program, enum att_log_level least, bool json)
{
    program_name = program;
    least_level = least;
    as_json = json;
}

static void put_quoted(struct att_buf *line, const char *s)
{
    att_buf_u8(line, '"');
    while (*s) {
        bool ok;
        size_t len = att_text_next(s, &ok);
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\') {
            att_buf_u8(line, '\\');
            att_buf_u8(line, c);
        } else if (c < 0x20 || c == 0x7f) {
            att_buf_printf(line, "\\u%04x", c);
        } else if (!ok) {
            att_buf_u8(line, '?'); /* no UTF-8, or it would steer whoever reads the journal */
        } else {
            att_buf_put(line, s, len);
        }
        s += len;
    }
    att_buf_u8(line, '"');
}

static bool is_plain(const char *s)
{
    return *s && s[strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                             "-_./:@+,#")] == 0;
}

static void put_field(struct att_buf *line, const char *key, const char *str, int64_t num)
{
    if (line->len > 1) {
        att_buf_put_str(line, as_json ? "," : " ");
    }
    if (as_json) {
        put_quoted(line, key);
        att_buf_u8(line, ':');
    } else {
        att_buf_printf(line, "%s=", key);
    }
    if (!str) {
        att_buf_printf(line, "%lld", (long long)num);
    } else if (as_json || !is_plain(str)) {
        put_quoted(line, str);
    } else {
        att_buf_put_str(line, str);
    }
}

void att_log_fields(enum att_log_level level, const char *event, const struct att_log_field *fields)
{
    if (level < least_level) {
        return;
    }
    att_autobuf line = ATT_BUF_INIT(16384);
    char now[ATT_TIME_TEXT_LEN];
    att_time_text(now, att_now_utc_s());
    if (as_json) {
        att_buf_u8(&line, '{');
    }
    put_field(&line, "time", now, 0);
    put_field(&line, "level", level_names[level], 0);
    put_field(&line, "program", program_name, 0);
    put_field(&line, "event", event, 0);
    for (; fields->key; fields++) {
        put_field(&line, fields->key, fields->str, fields->num);
    }
    if (request_id[0]) {
        put_field(&line, "request", request_id, 0);
    }
    att_buf_put_str(&line, as_json ? "}\n" : "\n");
    if (!line.failed) {
        ssize_t put = write(STDERR_FILENO, line.ptr, line.len);
        (void)put; /* nowhere to report it to */
    }
}

void att_log_err(enum att_log_level level, const char *event, const struct att_err *err)
{
    att_log(level, event, ATT_S("code", att_rc_name(err->rc)), ATT_S("reason", err->reason),
            ATT_S("message", err->msg), ATT_S("at", err->file), ATT_N("line", err->line),
            ATT_N("native", err->native));
}
