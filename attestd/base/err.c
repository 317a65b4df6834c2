#include "attestd/base/err.h"

#include "attestd/base/text.h"

#include <openssl/err.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const names[] = {
    [ATT_OK] = "ok",
    [ATT_E_NOMEM] = "no-memory",
    [ATT_E_INVAL] = "invalid",
    [ATT_E_PARSE] = "parse",
    [ATT_E_LIMIT] = "limit",
    [ATT_E_NOTFOUND] = "not-found",
    [ATT_E_EXISTS] = "exists",
    [ATT_E_CONFLICT] = "conflict",
    [ATT_E_DENIED] = "denied",
    [ATT_E_AUTH] = "auth",
    [ATT_E_REENROL] = "re-enrol",
    [ATT_E_RETRY] = "retry",
    [ATT_E_TIMEOUT] = "timeout",
    [ATT_E_UNREACHABLE] = "unreachable",
    [ATT_E_GONE] = "gone",
    [ATT_E_LOCKOUT] = "lockout",
    [ATT_E_IO] = "io",
    [ATT_E_CRYPTO] = "crypto",
    [ATT_E_PROTOCOL] = "protocol",
    [ATT_E_UNSUPPORTED] = "unsupported",
    [ATT_E_INTERNAL] = "internal",
};

const char *att_rc_name(enum att_rc rc)
{
    size_t i = (size_t)rc;
    return i < sizeof names / sizeof names[0] && names[i] ? names[i] : "unknown";
}

static void append_native(struct att_err *err, uint64_t native)
{
    char text[160] = "";
    if (err->domain == ATT_DOM_ERRNO) {
        char scratch[128];
        snprintf(text, sizeof text, "%s", strerror_r((int)native, scratch, sizeof scratch));
    } else if (err->domain == ATT_DOM_OPENSSL) {
        unsigned long code = ERR_peek_last_error();
        err->native = code;
        if (code) {
            ERR_error_string_n(code, text, sizeof text);
        }
        ERR_clear_error();
    }
    size_t used = strlen(err->msg);
    if (text[0] && used + 3 < sizeof err->msg) {
        snprintf(err->msg + used, sizeof err->msg - used, ": %s", text);
    }
}

enum att_rc att_err_set(struct att_err *err, enum att_rc rc, enum att_domain domain,
                        uint64_t native, const char *file, int line, const char *fmt, ...)
{
    if (!err) {
        if (domain == ATT_DOM_OPENSSL) {
            ERR_clear_error();
        }
        return rc;
    }
    if (err->rc != ATT_OK) {
        return rc; /* the first, innermost error is the one worth reading */
    }
    err->rc = rc;
    err->domain = domain;
    err->native = native;
    err->file = file;
    err->line = line;
    va_list args;
    va_start(args, fmt);
    vsnprintf(err->msg, sizeof err->msg, fmt, args);
    va_end(args);
    append_native(err, native);
    att_text_clean(err->msg); /* it may quote a peer, and may have been cut within a character */
    return rc;
}

void att_err_reason(struct att_err *err, const char *reason)
{
    if (err) {
        snprintf(err->reason, sizeof err->reason, "%s", reason);
        att_text_clean(err->reason);
    }
}

void att_err_prefix(struct att_err *err, const char *fmt, ...)
{
    if (!err || err->rc == ATT_OK) {
        return;
    }
    char prefix[160];
    va_list args;
    va_start(args, fmt);
    vsnprintf(prefix, sizeof prefix, fmt, args);
    va_end(args);
    char old[sizeof err->msg];
    memcpy(old, err->msg, sizeof old);
    snprintf(err->msg, sizeof err->msg, "%s: %.*s", prefix,
             (int)(sizeof err->msg - strlen(prefix) - 3), old);
    att_text_clean(err->msg);
}

void att_err_clear(struct att_err *err)
{
    if (err) {
        memset(err, 0, sizeof *err);
    }
}
