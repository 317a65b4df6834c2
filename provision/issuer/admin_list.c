/* Lists: each a page at a time, by a key that rows keep. What is there all the while a client goes
 * through the pages is in exactly one of them, whatever comes and goes meanwhile. */
#include "provision/issuer/admin.h"

#include <stdio.h>
#include <string.h>

#define PAGE_BYTES  ((size_t)4 << 20) /* of a page's text, about: a frame has 8 MiB */
#define WHOLE_BYTES ((size_t)7 << 20) /* and of a list that was asked for as a whole */
#define PAGE        1000
#define PART        1000 /* hosts of one statement: a database client may hold a whole answer */
#define CERTS       200
#define SELECTED    200

/* ---- pages
 * ---------------------------------------------------------------------------------------- */

enum att_rc issuer_page_begin(struct issuer_admin_call *call, const char *member, int64_t otherwise,
                              struct issuer_page *ret_page, struct att_err *err)
{
    const char *after = issuer_arg(call, "after");
    const json_t *limit = json_object_get(call->args, "limit");
    bool whole = !otherwise && !after && !json_is_integer(limit);
    int64_t n =
        whole ? ISSUER_LISTED_MAX : issuer_arg_int(call, "limit", otherwise ? otherwise : PAGE);
    json_t *list = json_array();
    json_object_set_new(call->result, member, list);
    if (n < 1 || n > ISSUER_LISTED_MAX) {
        return issuer_refuse(err, ATT_E_INVAL, "usage", "limit: expected 1 to %d, found %lld",
                             ISSUER_LISTED_MAX, (long long)n);
    }
    *ret_page = (struct issuer_page){.call = call,
                                     .list = list,
                                     .member = member,
                                     .after = after,
                                     .limit = n,
                                     .room = whole ? WHOLE_BYTES : PAGE_BYTES,
                                     .whole = whole};
    return ATT_OK;
}

bool issuer_page_take(struct issuer_page *page, const char *key, size_t bytes)
{
    if (page->more || page->seen == page->limit || (bytes > page->room && page->seen)) {
        page->more = true;
        return false;
    }
    page->room -= bytes < page->room ? bytes : page->room;
    page->seen++;
    snprintf(page->last, sizeof page->last, "%s", key);
    return true;
}

enum att_rc issuer_page_end(const struct issuer_page *page, struct att_err *err)
{
    if (page->more && page->whole) {
        return issuer_refuse(
            err, ATT_E_LIMIT, "listTooLong",
            "more than %lld of the %s: expected \"limit\" (1 to %d), and \"after\" "
            "for the next page",
            (long long)page->seen, page->member, ISSUER_LISTED_MAX);
    }
    if (page->more) {
        json_object_set_new(page->call->result, "next", json_string(page->last));
    }
    return ATT_OK;
}

static enum att_rc bad_cursor(const char *after, const char *expected, struct att_err *err)
{
    return issuer_refuse(err, ATT_E_INVAL, "usage", "after: expected %s, found \"%.70s\"", expected,
                         after);
}

static bool hex_of(const char *text, size_t least, size_t most)
{
    size_t n = strlen(text);
    return n >= least && n <= most && strspn(text, "0123456789abcdef") == n;
}

enum att_rc issuer_page_host(const char *after, struct att_err *err)
{
    return !after || hex_of(after, 64, 64)
               ? ATT_OK
               : bad_cursor(after, "a host's id of 64 lowercase hex digits", err);
}

/* ---- hosts
 * ---------------------------------------------------------------------------------------- */

static size_t host_bytes(const struct store_host *host)
{
    return 512 + strlen(host->labels) + strlen(host->reason) + strlen(host->notes);
}

static enum att_rc add_host(void *user, const void *record, struct att_err *err)
{
    struct issuer_page *page = user;
    const struct store_host *host = record;
    (void)err;
    if (issuer_page_take(page, host->id, host_bytes(host))) {
        json_array_append_new(page->list, issuer_host_json(host));
    }
    return ATT_OK;
}

enum att_rc issuer_admin_host_list(struct issuer_admin_call *call, struct store_tx *tx,
                                   struct att_err *err)
{
    struct issuer_page page;
    const char *state = issuer_arg(call, "state");
    if (state && strcmp(state, STORE_HOST_PENDING) != 0 &&
        strcmp(state, STORE_HOST_APPROVED) != 0 && strcmp(state, STORE_HOST_BANNED) != 0) {
        return issuer_refuse(err, ATT_E_INVAL, "usage",
                             "state: expected pending, approved or banned, found \"%.40s\"", state);
    }
    enum att_rc rc = issuer_page_begin(call, "hosts", 0, &page, err);
    rc = rc ? rc : issuer_page_host(page.after, err);
    rc = rc ? rc : store_host_list(tx, page.after, state, page.limit + 1, add_host, &page, err);
    return rc ? rc : issuer_page_end(&page, err);
}

struct part {
    store_each_fn each;
    void *user;
    int64_t seen;
    char last[VERIFY_ID_HEX];
};

static enum att_rc each_of_part(void *user, const void *record, struct att_err *err)
{
    struct part *p = user;
    const struct store_host *host = record;
    p->seen++;
    snprintf(p->last, sizeof p->last, "%s", host->id);
    return p->each(p->user, record, err);
}

enum att_rc issuer_hosts_behind(struct store_tx *tx, const char *after, store_each_fn each,
                                void *user, const bool *enough, struct att_err *err)
{
    struct part p = {.each = each, .user = user};
    snprintf(p.last, sizeof p.last, "%s", after ? after : "");
    enum att_rc rc;
    do {
        char from[VERIFY_ID_HEX];
        memcpy(from, p.last, sizeof from);
        p.seen = 0;
        rc = store_host_list(tx, from, NULL, PART, each_of_part, &p, err);
    } while (!rc && p.seen == PART && !*enough);
    return rc;
}

struct selected {
    const struct conf_entry *entry;
    struct issuer_page page;
};

static enum att_rc add_selected(void *user, const void *record, struct att_err *err)
{
    struct selected *s = user;
    const struct store_host *host = record;
    att_autojson *labels = s->page.more ? NULL : issuer_json(host->labels);
    (void)err;
    if (labels && conf_entry_selects(s->entry, host->id, labels) &&
        issuer_page_take(&s->page, host->id, host_bytes(host))) {
        json_array_append_new(s->page.list, issuer_host_json(host));
    }
    return ATT_OK;
}

enum att_rc issuer_page_selected(struct issuer_admin_call *call, struct store_tx *tx,
                                 const struct conf_entry *entry, struct att_err *err)
{
    struct selected s = {.entry = entry};
    enum att_rc rc = issuer_page_begin(call, "selectedHosts", SELECTED, &s.page, err);
    rc = rc ? rc : issuer_page_host(s.page.after, err);
    rc = rc ? rc : issuer_hosts_behind(tx, s.page.after, add_selected, &s, &s.page.more, err);
    return rc ? rc : issuer_page_end(&s.page, err);
}

/* ---- certificates
 * --------------------------------------------------------------------------------- */

static enum att_rc add_cert(void *user, const void *record, struct att_err *err)
{
    struct issuer_page *page = user;
    const struct store_cert *cert = record;
    (void)err;
    if (issuer_page_take(page, cert->serial, 512 + strlen(cert->subject) + strlen(cert->reason))) {
        json_array_append_new(page->list, issuer_cert_json(cert));
    }
    return ATT_OK;
}

/* Its row is never removed, and stands where its creation does. */
static enum att_rc cert_cursor(struct store_tx *tx, struct store_cert_query *q, struct att_err *err)
{
    struct store_cert row = {0};
    if (!q->after) {
        return ATT_OK;
    }
    if (!hex_of(q->after, 1, 64)) {
        return bad_cursor(q->after, "a certificate's serial number in lowercase hex", err);
    }
    enum att_rc rc = store_get(tx, &store_certs, q->after, &row, NULL);
    q->after_at = row.created_at;
    store_record_done(&store_certs, &row);
    return rc == ATT_E_NOTFOUND
               ? issuer_refuse(err, rc, "certUnknown", "after: no certificate has the serial %.64s",
                               q->after)
           : rc ? att_fail(err, rc, "certificates cannot be read")
                : ATT_OK;
}

enum att_rc issuer_admin_cert_list(struct issuer_admin_call *call, struct store_tx *tx,
                                   struct att_err *err)
{
    struct issuer_page page;
    struct store_host host = {0};
    enum att_rc rc = issuer_page_begin(call, "certificates", CERTS, &page, err);
    if (rc) {
        return rc;
    }
    struct store_cert_query q = {.name = issuer_arg(call, "name"),
                                 .status = issuer_arg(call, "status"),
                                 .kind = issuer_arg(call, "kind"),
                                 .after = page.after,
                                 .limit = page.limit + 1};
    rc = cert_cursor(tx, &q, err);
    if (!rc && issuer_arg(call, "host")) {
        rc = issuer_arg_host(call, tx, &host, err);
        q.host = host.id;
    }
    rc = rc ? rc : store_cert_list(tx, &q, add_cert, &page, err);
    store_record_done(&store_hosts, &host);
    return rc ? rc : issuer_page_end(&page, err);
}
