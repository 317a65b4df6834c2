/* The issuer URL, under which alone the account key signs: from the configuration, else where the
 * account is (issuer.json), else from a ticket. A ticket that nobody has accepted yet binds
 * nothing: the next one takes its place. */
#include "attestd/keyd/internal.h"

#include "attestd/base/io.h"
#include "attestd/conf/conf.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define TICKET_MAX 65536

/* ---- comparing URLs ------------------------------------------------------------------------ */

struct url {
    struct att_slice host, port, path;
};

static bool char_ok(uint8_t c)
{
    return isalnum(c) || strchr("-._~/:[]!$&'()*+,;=@%", c);
}

/* No escape and no dot segment: what a server may normalise must not matter. */
static bool path_ok(struct att_slice path)
{
    for (size_t i = 0; i < path.len; i++) {
        if (path.ptr[i] == '%' || path.ptr[i] == '@') {
            return false;
        }
        if (path.ptr[i] != '/') {
            continue;
        }
        size_t n = 0;
        while (i + 1 + n < path.len && path.ptr[i + 1 + n] != '/') {
            n++;
        }
        const uint8_t *segment = path.ptr + i + 1;
        if ((n == 1 && segment[0] == '.') || (n == 2 && segment[0] == '.' && segment[1] == '.')) {
            return false;
        }
    }
    return true;
}

static bool split(struct att_slice text, struct url *ret)
{
    static const char scheme[] = "https://";
    size_t n = sizeof scheme - 1;
    if (text.len <= n || memcmp(text.ptr, scheme, n) != 0) {
        return false;
    }
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] == 0 || !char_ok(text.ptr[i])) {
            return false;
        }
    }
    const uint8_t *at = text.ptr + n, *end = text.ptr + text.len;
    const uint8_t *slash = memchr(at, '/', (size_t)(end - at));
    const uint8_t *host_end = slash ? slash : end;
    ret->path = ATT_SLICE(host_end, (size_t)(end - host_end));
    ret->port = ATT_SLICE_LIT("443");
    for (const uint8_t *c = host_end; c > at && c[-1] != ']'; c--) {
        if (c[-1] == ':') {
            ret->port = ATT_SLICE(c, (size_t)(host_end - c));
            host_end = c - 1;
            break;
        }
    }
    ret->host = ATT_SLICE(at, (size_t)(host_end - at));
    return ret->host.len && ret->port.len && !memchr(ret->host.ptr, '@', ret->host.len) &&
           !memchr(ret->host.ptr, '%', ret->host.len) && path_ok(ret->path);
}

enum att_rc keyd_url_under(const char *base, struct att_slice url, struct att_err *err)
{
    struct url b, u;
    if (!split(att_slice_str(base), &b) || !split(url, &u)) {
        return att_fail(err, ATT_E_DENIED, "not a plain https URL");
    }
    if (b.path.len && b.path.ptr[b.path.len - 1] == '/') {
        b.path.len--;
    }
    /* As text, like the client: one spelling, the configured one. */
    bool same = att_slice_eq(u.host, b.host) && att_slice_eq(u.port, b.port);
    bool below = u.path.len >= b.path.len &&
                 att_slice_eq(ATT_SLICE(u.path.ptr, b.path.len), b.path) &&
                 (u.path.len == b.path.len || u.path.ptr[b.path.len] == '/');
    if (!same || !below) {
        return att_fail(err, ATT_E_DENIED, "not under the issuer's %.200s", base);
    }
    return ATT_OK;
}

/* ---- which issuer -------------------------------------------------------------------------- */

/* {"url": …} of a ticket or of issuer.json. */
static enum att_rc read_url(const char *path, char **ret_url, struct att_err *err)
{
    att_autobuf text = ATT_BUF_INIT(TICKET_MAX);
    att_autojson *json = NULL;
    const char *url = NULL;
    enum att_rc rc = att_io_read_file(path, TICKET_MAX, &text, err);
    if (rc == ATT_OK) {
        rc = att_json_parse(att_buf_slice(&text), TICKET_MAX, &json, err);
    }
    if (rc == ATT_OK) {
        rc = att_json_str(json, "url", &url, err);
    }
    if (rc == ATT_OK) {
        rc = conf_url_check(url, err);
    }
    if (rc == ATT_OK) {
        *ret_url = strdup(url);
        rc = *ret_url ? ATT_OK : att_fail(err, ATT_E_NOMEM, "URL");
    }
    att_wipe(text.ptr, text.len); /* a ticket holds a MAC key */
    return rc;
}

static enum att_rc write_kept(const struct keyd *keyd, const char *url, struct att_err *err)
{
    char path[KEYD_PATH_MAX];
    att_autojson *json = json_pack("{s:s}", "url", url);
    att_autobuf text = ATT_BUF_INIT(TICKET_MAX);
    enum att_rc rc =
        json ? att_json_dump(json, false, &text, err) : att_fail(err, ATT_E_NOMEM, "issuer.json");
    if (rc == ATT_OK) {
        rc = keyd_path(keyd, "issuer.json", path, err);
    }
    return rc == ATT_OK ? att_io_write_file(path, att_buf_slice(&text), 0600, err) : rc;
}

static enum att_rc set_url(char **url, const char *to, struct att_err *err)
{
    char *copy = strdup(to);
    if (!copy) {
        return att_fail(err, ATT_E_NOMEM, "URL");
    }
    free(*url);
    *url = copy;
    return ATT_OK;
}

/* lock need not be held: only at start, or with it. */
static enum att_rc from_ticket(struct keyd *keyd, struct att_err *err)
{
    char *url = NULL;
    if (!keyd->ticket_path) {
        return att_fail(err, ATT_E_NOTFOUND, "no ticket");
    }
    enum att_rc rc = read_url(keyd->ticket_path, &url, err);
    if (rc == ATT_OK) {
        free(keyd->issuer_url);
        keyd->issuer_url = url;
    }
    return rc;
}

/* Where the account is, else the ticket. lock as above. */
static enum att_rc from_files(struct keyd *keyd, struct att_err *err)
{
    keyd->issuer_given = false;
    return keyd->issuer_kept ? set_url(&keyd->issuer_url, keyd->issuer_kept, err)
                             : from_ticket(keyd, err);
}

/* Who lays down another issuer's ticket beside an account should hear why nothing comes of it. */
static void tell_other_ticket(struct keyd *keyd)
{
    char *url = NULL;
    struct att_err why = {0};
    if (keyd->ticket_path && read_url(keyd->ticket_path, &url, NULL) == ATT_OK &&
        strcmp(url, keyd->issuer_kept) != 0) {
        (void)att_fail(&why, ATT_E_CONFLICT,
                       "names %.200s, but the account is at %.200s: ignored (issuer.url in the "
                       "configuration moves the host)",
                       url, keyd->issuer_kept);
        att_err_reason(&why, "issuerOther");
        keyd_tell(keyd, KEYD_EVENT_BAD, "ticket", &why);
    }
    free(url);
}

static enum att_rc load_kept(struct keyd *keyd, struct att_err *err)
{
    char path[KEYD_PATH_MAX];
    enum att_rc rc = keyd_path(keyd, "issuer.json", path, err);
    if (rc != ATT_OK) {
        return rc;
    }
    struct att_err cause = {0};
    rc = read_url(path, &keyd->issuer_kept, &cause);
    if (rc == ATT_E_PARSE || rc == ATT_E_LIMIT || rc == ATT_E_INVAL) {
        return keyd_state_bad(keyd, "issuer.json", err);
    }
    /* What cannot be read is not "no account": a ticket must not take its place. */
    return rc == ATT_OK || rc == ATT_E_NOTFOUND ? ATT_OK : att_fail(err, rc, "%s", cause.msg);
}

enum att_rc keyd_issuer_load(struct keyd *keyd, struct att_err *err)
{
    enum att_rc rc = load_kept(keyd, err);
    if (rc != ATT_OK || keyd->issuer_fixed) {
        return rc;
    }
    if (keyd->issuer_kept) {
        tell_other_ticket(keyd);
    }
    struct att_err cause = {0};
    rc = from_files(keyd, &cause);
    if (rc != ATT_OK && rc != ATT_E_NOTFOUND) {
        /* A bad ticket is its owner's trouble: it is tried again, and said, when it is needed. */
        keyd_tell(keyd, KEYD_EVENT_BAD, "ticket", &cause);
    }
    return ATT_OK;
}

enum att_rc keyd_issuer_get(struct keyd *keyd, char **ret_url, struct att_err *err)
{
    struct att_err cause = {0};
    pthread_mutex_lock(&keyd->lock);
    if (!keyd->issuer_fixed && !keyd->issuer_kept && !keyd->issuer_given) {
        (void)!from_ticket(keyd, &cause); /* perhaps another one by now */
    }
    char *url = keyd->issuer_url ? strdup(keyd->issuer_url) : NULL;
    bool known = keyd->issuer_url;
    pthread_mutex_unlock(&keyd->lock);
    if (!url) {
        enum att_rc rc = known ? att_fail(err, ATT_E_NOMEM, "URL")
                               : att_fail(err, ATT_E_CONFLICT,
                                          "the issuer's URL is not known yet (issuer.url or a "
                                          "ticket): %s",
                                          cause.msg);
        att_err_reason(err, "issuerUnknown");
        return rc;
    }
    *ret_url = url;
    return ATT_OK;
}

enum att_rc keyd_issuer_keep(struct keyd *keyd, const char *url, struct att_err *err)
{
    enum att_rc rc = ATT_OK;
    pthread_mutex_lock(&keyd->lock);
    if (!keyd->issuer_kept || strcmp(keyd->issuer_kept, url) != 0) {
        /* Another request may have named another issuer since url was looked up. */
        rc = keyd->issuer_url && strcmp(keyd->issuer_url, url) == 0
                 ? write_kept(keyd, url, err)
                 : att_fail(err, ATT_E_RETRY, "the issuer's URL has just changed");
        if (rc == ATT_OK) {
            rc = set_url(&keyd->issuer_kept, url, err);
        }
    }
    pthread_mutex_unlock(&keyd->lock);
    return rc;
}

enum att_rc keyd_set_ticket(struct keyd *keyd, const char *path, struct att_err *err)
{
    char *copy = path ? strdup(path) : NULL;
    if (path && !copy) {
        return att_fail(err, ATT_E_NOMEM, "the ticket's path");
    }
    pthread_mutex_lock(&keyd->lock);
    free(keyd->ticket_path);
    keyd->ticket_path = copy;
    pthread_mutex_unlock(&keyd->lock);
    return ATT_OK;
}

enum att_rc keyd_set_issuer(struct keyd *keyd, const char *url, struct att_err *err)
{
    enum att_rc rc = url ? conf_url_check(url, err) : ATT_OK;
    if (rc != ATT_OK) {
        return rc;
    }
    pthread_mutex_lock(&keyd->lock);
    if (url) {
        rc = set_url(&keyd->issuer_url, url, err);
    } else {
        rc = from_files(keyd, err);
        rc = rc == ATT_E_NOTFOUND && keyd->issuer_url ? ATT_OK : rc;
    }
    if (rc == ATT_OK) {
        keyd->issuer_fixed = url != NULL;
    }
    pthread_mutex_unlock(&keyd->lock);
    return rc;
}

/* ---- ISSUER -------------------------------------------------------------------------------- */

/* lock is held. */
static enum att_rc learn(struct keyd *keyd, const char *url, struct att_err *err)
{
    const char *settled = keyd->issuer_fixed ? keyd->issuer_url : keyd->issuer_kept;
    if (settled && strcmp(settled, url) != 0) {
        enum att_rc rc = att_fail(err, ATT_E_CONFLICT, "the issuer is %.200s, not %.200s%s",
                                  settled, url, keyd->issuer_fixed ? "" : ": the account is there");
        att_err_reason(err, "issuerOther");
        return rc;
    }
    enum att_rc rc = set_url(&keyd->issuer_url, url, err);
    if (rc == ATT_OK) {
        keyd->issuer_given = true;
    }
    return rc;
}

KEYD_OPERATION(issuer)
{
    char url[PROC_ISSUER_URL_MAX + 1];
    KEYD_TEXT(request->v[PROC_ISSUER_REQ_URL].bytes, url);
    enum att_rc rc = conf_url_check(url, err);
    if (rc == ATT_OK) {
        pthread_mutex_lock(&keyd->lock);
        rc = learn(keyd, url, err);
        pthread_mutex_unlock(&keyd->lock);
    }
    return rc == ATT_OK ? proc_reply_encode(op, NULL, ret_payload, err) : rc;
}
