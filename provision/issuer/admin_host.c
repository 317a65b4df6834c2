/* host.*, ticket.*, ca.status; host.list is in admin_list.c. */
#include "provision/issuer/admin.h"
#include "provision/issuer/generations.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IMPORT_LINES_MAX 100000
#define TICKET_USES_MAX  100000
#define TICKET_MAX_S     (90 * 86400)
#define SHOWN_MAX        2000 /* rows of a kind in an answer: a frame has 4 MiB */

/* ---- telling
 * --------------------------------------------------------------------------------------------- */

json_t *issuer_host_json(const struct store_host *host)
{
    att_autojson *notes = issuer_json(host->notes);
    json_t *last = json_object_get(notes, "lastVerdict");
    return json_pack("{s:s, s:s, s:o, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:o, s:o, s:o, s:o}", "id",
                     host->id, "label", host->label, "labels", issuer_json(host->labels), "state",
                     host->state, "reason", host->reason, "account", host->account, "manufacturer",
                     host->manufacturer, "model", host->model, "version", host->version, "ekSource",
                     host->ek_source, "createdAt", issuer_time_json(host->created_at), "updatedAt",
                     issuer_time_json(host->updated_at), "seenAt", issuer_time_json(host->seen_at),
                     "lastVerdict", last ? json_incref(last) : json_null());
}

json_t *issuer_cert_json(const struct store_cert *c)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:o, s:o, s:o, s:s, s:s}", "serial", c->serial,
                     "kind", c->kind, "status", c->status, "subject", c->subject, "host", c->host,
                     "profile", c->profile, "notBefore", issuer_time_json(c->not_before),
                     "notAfter", issuer_time_json(c->not_after), "createdAt",
                     issuer_time_json(c->created_at), "reason", c->reason, "decision", c->decision);
}

static json_t *ak_json(const struct store_ak *ak)
{
    char firmware[17] = "";
    if (ak->firmware.len == 8) {
        att_hex(firmware, att_buf_slice(&ak->firmware));
    }
    return json_pack("{s:s, s:s, s:s, s:o, s:o, s:I, s:I, s:s}", "id", ak->id, "state", ak->state,
                     "endedReason", ak->ended_reason, "createdAt", issuer_time_json(ak->created_at),
                     "expiresAt", issuer_time_json(ak->expires_at), "resetCount",
                     (json_int_t)ak->reset_count, "restartCount", (json_int_t)ak->restart_count,
                     "firmware", firmware);
}

static enum att_rc add_ek(void *user, const void *record, struct att_err *err)
{
    const struct store_host_ek *row = record;
    (void)err;
    json_array_append_new(user, json_string(row->ek));
    return ATT_OK;
}

static enum att_rc add_claim(void *user, const void *record, struct att_err *err)
{
    const struct store_ek_claim *claim = record;
    (void)err;
    json_array_append_new(user, json_string(claim->ek));
    return ATT_OK;
}

static enum att_rc add_ak(void *user, const void *record, struct att_err *err)
{
    const struct store_ak *ak = record;
    (void)err;
    /* Ended ones are swept when they would have expired; until then there may be many. */
    if (strcmp(ak->state, STORE_AK_ENDED) != 0 || json_array_size(user) < SHOWN_MAX) {
        json_array_append_new(user, ak_json(ak));
    }
    return ATT_OK;
}

static enum att_rc add_cert(void *user, const void *record, struct att_err *err)
{
    (void)err;
    json_array_append_new(user, issuer_cert_json(record));
    return ATT_OK;
}

static void put_host(struct issuer_admin_call *call, const struct store_host *host)
{
    json_t *json = issuer_host_json(host);
    json_object_update(call->result, json);
    json_decref(json);
}

enum att_rc issuer_admin_host_show(struct issuer_admin_call *call, struct store_tx *tx,
                                   struct att_err *err)
{
    struct store_host host = {0};
    json_t *eks = json_array(), *claimed = json_array();
    json_t *aks = json_array(), *certs = json_array();
    enum att_rc rc = issuer_arg_host(call, tx, &host, err);
    if (!rc) {
        put_host(call, &host);
        rc = store_each(tx, &store_host_eks, "host", host.id, add_ek, eks, err);
    }
    if (!rc) {
        rc = store_each(tx, &store_ek_claims, "host", host.id, add_claim, claimed, err);
    }
    if (!rc) {
        rc = store_each(tx, &store_aks, "host", host.id, add_ak, aks, err);
    }
    if (!rc) {
        rc = store_cert_live(tx, STORE_CERT_OF_HOST, host.id, call->now, SHOWN_MAX, add_cert, certs,
                             err);
    }
    int64_t n = 0;
    if (!rc) {
        rc = store_cert_count(tx, host.id, &n, err);
    }
    json_object_set_new(call->result, "eks", eks);
    json_object_set_new(call->result, "claimedEks", claimed);
    json_object_set_new(call->result, "aks", aks);
    json_object_set_new(call->result, "certificates", certs);
    json_object_set_new(call->result, "certificatesEver", json_integer(n));
    store_record_done(&store_hosts, &host);
    return rc;
}

/* ---- states
 * --------------------------------------------------------------------------------------------------
 */

static enum att_rc host_event(struct issuer_admin_call *call, struct store_tx *tx,
                              struct store_host *host, const char *what, const char *reason,
                              int64_t revoked, struct att_err *err)
{
    json_t *record = issuer_record("host", "done", reason, what, host->id);
    if (revoked >= 0) {
        json_object_set_new(record, "revoked", json_integer(revoked));
        json_object_set_new(call->result, "revoked", json_integer(revoked));
    }
    enum att_rc rc = issuer_admin_audit(call, tx, record, err);
    call->wake = true;
    return rc ? rc : issuer_view_bump(tx, err);
}

/* As it is now. */
static enum att_rc in_scope(const struct issuer_admin_call *call, const struct store_host *host,
                            struct att_err *err)
{
    att_autojson *labels = issuer_json(host->labels);
    return issuer_scope_host(&call->scope, host->id, labels, err);
}

static enum att_rc save_host(struct issuer_admin_call *call, struct store_tx *tx,
                             struct store_host *host, struct att_err *err)
{
    host->updated_at = call->now;
    return store_put(tx, &store_hosts, host, err);
}

static bool label_form(const char *text)
{
    size_t n = strlen(text);
    return n >= 1 && n <= 64 &&
           strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == n;
}

static enum att_rc set_labels(struct store_host *host, const char *label, const json_t *labels,
                              struct att_err *err)
{
    const char *key;
    json_t *value;
    if (label && *label && !label_form(label)) {
        return issuer_refuse(err, ATT_E_INVAL, "usage",
                             "label: expected 1 to 64 of A-Z a-z 0-9 . _ -, found \"%.80s\"",
                             label);
    }
    json_object_foreach((json_t *)(uintptr_t)labels, key, value)
    {
        if (!label_form(key) || !json_is_string(value) || !label_form(json_string_value(value))) {
            return issuer_refuse(err, ATT_E_INVAL, "usage",
                                 "labels: expected key=value of A-Z a-z 0-9 . _ -, found \"%.80s\"",
                                 key);
        }
    }
    issuer_autofree *text = labels ? issuer_json_text(labels) : NULL;
    bool ok = (!label || issuer_set(&host->label, label)) &&
              (!labels || (text && issuer_set(&host->labels, text)));
    return ok ? ATT_OK : att_fail(err, ATT_E_NOMEM, "no memory");
}

enum att_rc issuer_admin_host_approve(struct issuer_admin_call *call, struct store_tx *tx,
                                      struct att_err *err)
{
    struct store_host host = {0};
    const json_t *labels = json_object_get(call->args, "labels");
    enum att_rc rc = issuer_arg_host(call, tx, &host, err);
    /* A host without labels is nobody's yet. */
    if (!rc && strcmp(host.labels, "{}") != 0) {
        rc = in_scope(call, &host, err);
    }
    if (!rc) {
        rc = issuer_four_eyes(call, &host, err);
    }
    if (!rc) {
        rc = set_labels(&host, issuer_arg(call, "label"), labels, err);
    }
    if (!rc) {
        rc = in_scope(call, &host, err);
    }
    if (!rc) {
        att_autojson *notes = issuer_json(host.notes);
        int bad = json_object_set_new(notes, "approvedAt", json_integer(call->now));
        issuer_autofree *text = bad ? NULL : issuer_json_text(notes);
        rc = text && issuer_set(&host.notes, text) &&
                     issuer_set(&host.state, STORE_HOST_APPROVED) && issuer_set(&host.reason, "")
                 ? save_host(call, tx, &host, err)
                 : att_fail(err, ATT_E_NOMEM, "no memory");
    }
    if (!rc) {
        put_host(call, &host);
        rc = host_event(call, tx, &host, "approved", NULL, -1, err);
    }
    store_record_done(&store_hosts, &host);
    return rc;
}

static bool ek_form(const char *text)
{
    return text && strlen(text) == 64 && strspn(text, "0123456789abcdef") == 64;
}

static enum att_rc put_new_host(struct store_tx *tx, struct store_host *host, struct att_err *err)
{
    struct store_host_ek row = {0};
    enum att_rc rc = store_get(tx, &store_host_eks, host->id, &row, NULL);
    if (rc != ATT_E_NOTFOUND) {
        rc = rc ? att_fail(err, rc, "EK ids cannot be read")
                : issuer_refuse(err, ATT_E_CONFLICT, "ekTaken", "EK %.12s is host %.12s's",
                                host->id, row.host);
        store_record_done(&store_host_eks, &row);
        return rc;
    }
    rc = store_insert(tx, &store_hosts, host, err);
    if (!rc) {
        rc = issuer_set(&row.ek, host->id) && issuer_set(&row.host, host->id)
                 ? store_put(tx, &store_host_eks, &row, err)
                 : att_fail(err, ATT_E_NOMEM, "no memory");
    }
    store_record_done(&store_host_eks, &row);
    return rc;
}

/* Who lifts the ban is somebody else. */
static enum att_rc note_ban(const struct issuer_admin_call *call, struct store_host *host,
                            const char *reason, struct att_err *err)
{
    att_autojson *notes = issuer_json(host->notes);
    json_object_set_new(notes, ISSUER_BANNED_BY, json_string(call->who->identity));
    issuer_autofree *text = issuer_json_text(notes);
    return text && issuer_set(&host->notes, text) && issuer_set(&host->state, STORE_HOST_BANNED) &&
                   issuer_set(&host->reason, reason)
               ? ATT_OK
               : att_fail(err, ATT_E_NOMEM, "no memory");
}

/* An EK that nobody has met: it is his who bans it. */
static enum att_rc ban_unknown(const struct issuer_admin_call *call, struct store_tx *tx,
                               const char *ek, struct store_host *ret_host, struct att_err *err)
{
    enum att_rc rc = issuer_host_new(ek, STORE_HOST_BANNED, "inventory", call->now, ret_host, err);
    if (!rc && !issuer_set(&ret_host->registered_by, call->who->identity)) {
        rc = att_fail(err, ATT_E_NOMEM, "no memory");
    }
    return rc ? rc : put_new_host(tx, ret_host, err);
}

enum att_rc issuer_admin_host_ban(struct issuer_admin_call *call, struct store_tx *tx,
                                  struct att_err *err)
{
    struct store_host host = {0};
    const char *id = issuer_arg(call, "id"), *reason = issuer_arg(call, "reason");
    int64_t revoked = 0;
    if (!*reason || strlen(reason) > 200) {
        return issuer_refuse(err, ATT_E_INVAL, "usage", "reason: expected 1 to 200 characters");
    }
    enum att_rc rc = issuer_arg_host(call, tx, &host, err);
    if (rc == ATT_E_NOTFOUND && ek_form(id)) {
        att_err_clear(err);
        rc = ban_unknown(call, tx, id, &host, err);
    }
    if (!rc) {
        rc = in_scope(call, &host, err);
    }
    if (!rc) {
        rc = issuer_host_end(tx, host.id, "hostBanned", call->now, &revoked, err);
    }
    if (!rc) {
        rc = note_ban(call, &host, reason, err);
    }
    rc = rc ? rc : save_host(call, tx, &host, err);
    if (!rc) {
        put_host(call, &host);
        rc = host_event(call, tx, &host, "banned", reason, revoked, err);
    }
    store_record_done(&store_hosts, &host);
    return rc;
}

enum att_rc issuer_admin_host_evict(struct issuer_admin_call *call, struct store_tx *tx,
                                    struct att_err *err)
{
    struct store_host host = {0};
    int64_t revoked = 0;
    enum att_rc rc = issuer_arg_host(call, tx, &host, err);
    rc = rc ? rc : in_scope(call, &host, err);
    if (!rc && strcmp(host.state, STORE_HOST_BANNED) == 0) {
        /* Forgetting it would lift the ban. */
        rc = issuer_refuse(err, ATT_E_CONFLICT, "hostBanned",
                           "host %.12s is banned: approve it first to forget it", host.id);
    }
    if (!rc) {
        rc = issuer_host_end(tx, host.id, "hostEvicted", call->now, &revoked, err);
    }
    if (!rc) {
        rc = store_delete(tx, &store_hosts, host.id, err);
    }
    if (!rc) {
        json_object_set_new(call->result, "id", json_string(host.id));
        rc = host_event(call, tx, &host, "evicted", NULL, revoked, err);
    }
    store_record_done(&store_hosts, &host);
    return rc;
}

enum att_rc issuer_admin_host_rebind(struct issuer_admin_call *call, struct store_tx *tx,
                                     struct att_err *err)
{
    struct store_host host = {0};
    enum att_rc rc = issuer_arg_host(call, tx, &host, err);
    rc = rc ? rc : in_scope(call, &host, err);
    rc = rc ? rc : issuer_four_eyes(call, &host, err);
    if (!rc) {
        rc = issuer_set(&host.account, "") ? save_host(call, tx, &host, err)
                                           : att_fail(err, ATT_E_NOMEM, "no memory");
    }
    if (!rc) {
        put_host(call, &host);
        rc = host_event(call, tx, &host, "rebind", NULL, -1, err);
    }
    store_record_done(&store_hosts, &host);
    return rc;
}

/* ---- import: CSV "ek,label,labels"
 * ------------------------------------------------------------------------------ */

static enum att_rc parse_labels(const char *text, json_t **ret_labels, struct att_err *err)
{
    json_t *labels = json_object();
    while (*text) {
        size_t n = strcspn(text, ";");
        const char *eq = memchr(text, '=', n);
        char key[65], value[65];
        if (!eq || eq == text || (size_t)(eq - text) > 64 || n - (size_t)(eq - text) - 1 > 64) {
            json_decref(labels);
            return att_fail(err, ATT_E_PARSE,
                            "labels: expected key=value;key=value, found \"%.60s\"", text);
        }
        snprintf(key, sizeof key, "%.*s", (int)(eq - text), text);
        snprintf(value, sizeof value, "%.*s", (int)(n - (size_t)(eq - text) - 1), eq + 1);
        json_object_set_new(labels, key, json_string(value));
        text += n + (text[n] ? 1 : 0);
    }
    *ret_labels = labels;
    return ATT_OK;
}

static char *host_text(const struct store_host *host)
{
    att_autojson *json = issuer_host_json(host);
    return issuer_json_text(json);
}

/* Who is remembered as the one that registered a host. */
static const char *registrar_of(const struct issuer_admin_call *call)
{
    return call->who->proposed_by ? call->who->proposed_by : call->who->identity;
}

struct import {
    json_t *added, *changed;
    json_t *pending; /* stay so, for a reason that only host.approve overrides */
    int64_t unchanged;
    json_t *seen; /* EK ids of earlier lines */
    bool dry_run;
};

static enum att_rc import_line(struct issuer_admin_call *call, struct store_tx *tx,
                               struct import *im, char *line, struct att_err *err)
{
    char *label = strchr(line, ','), *labels_text = label ? strchr(label + 1, ',') : NULL;
    if (label) {
        *label++ = 0;
    }
    if (labels_text) {
        *labels_text++ = 0;
    }
    if (!ek_form(line)) {
        return att_fail(err, ATT_E_PARSE, "ek: expected 64 lowercase hex digits, found \"%.70s\"",
                        line);
    }
    if (json_object_get(im->seen, line)) {
        return att_fail(err, ATT_E_PARSE, "ek: %.12s... stands in an earlier line, too", line);
    }
    json_object_set_new(im->seen, line, json_true());
    struct store_host host = {0};
    att_autojson *labels = NULL;
    enum att_rc rc = parse_labels(labels_text ? labels_text : "", &labels, err);
    if (rc) {
        return rc;
    }
    rc = store_get(tx, &store_hosts, line, &host, NULL);
    bool fresh = rc == ATT_E_NOTFOUND;
    if (!rc && strcmp(host.labels, "{}") != 0) {
        rc = in_scope(call, &host, err);
    }
    issuer_autofree *before = fresh || rc ? NULL : host_text(&host);
    if (fresh) {
        rc = issuer_host_new(line, STORE_HOST_APPROVED, "inventory", call->now, &host, err);
    } else if (!rc && strcmp(host.state, STORE_HOST_BANNED) == 0) {
        rc = issuer_refuse(err, ATT_E_CONFLICT, "hostBanned", "host %.12s is banned", line);
    } else if (!rc && strcmp(host.state, STORE_HOST_PENDING) == 0 && host.reason[0]) {
        /* tpmCleared, a dispute: the same file again is no answer to that. */
        json_array_append_new(im->pending,
                              json_pack("{s:s, s:s}", "id", line, "reason", host.reason));
    } else if (!rc) {
        rc = issuer_set(&host.state, STORE_HOST_APPROVED) ? ATT_OK : ATT_E_NOMEM;
    }
    if (!rc) {
        rc = set_labels(&host, label && *label ? label : NULL, labels, err);
    }
    if (!rc) {
        rc = in_scope(call, &host, err);
    }
    if (!rc) {
        issuer_autofree *after = host_text(&host);
        bool same = before && after && strcmp(before, after) == 0;
        im->unchanged += same;
        if (!same && !issuer_set(&host.registered_by, registrar_of(call))) {
            rc = att_fail(err, ATT_E_NOMEM, "no memory");
        }
        if (rc) {
            /* nothing is told of it */
        } else if (fresh) {
            rc = im->dry_run ? ATT_OK : put_new_host(tx, &host, err);
            json_array_append_new(im->added, json_string(line));
        } else if (!same) {
            rc = im->dry_run ? ATT_OK : save_host(call, tx, &host, err);
            json_array_append_new(im->changed, json_string(line));
        }
    }
    store_record_done(&store_hosts, &host);
    return rc;
}

enum att_rc issuer_admin_host_import(struct issuer_admin_call *call, struct store_tx *tx,
                                     struct att_err *err)
{
    const char *file = issuer_arg(call, "filename");
    file = file ? file : "import";
    att_autojson *seen = json_object();
    struct import im = {.added = json_array(),
                        .changed = json_array(),
                        .pending = json_array(),
                        .seen = seen,
                        .dry_run = json_is_true(json_object_get(call->args, "dryRun"))};
    json_object_set_new(call->result, "added", im.added);
    json_object_set_new(call->result, "changed", im.changed);
    json_object_set_new(call->result, "pending", im.pending);
    issuer_autofree *text = strdup(issuer_arg(call, "text"));
    if (!text) {
        return att_fail(err, ATT_E_NOMEM, "no memory");
    }
    char *rest = text, *line;
    bool none = true;
    enum att_rc rc = ATT_OK;
    for (int n = 1; (line = strsep(&rest, "\n")) && !rc; n++) {
        size_t len = strlen(line);
        if (len && line[len - 1] == '\r') {
            line[len - 1] = 0;
        }
        if (n == 1 && strcmp(line, "ek,label,labels") != 0) {
            rc = att_fail(err, ATT_E_PARSE, "expected the header ek,label,labels");
        } else if (n > 1 && *line) {
            none = false;
            rc = n > IMPORT_LINES_MAX
                     ? att_fail(err, ATT_E_LIMIT, "more than %d lines", IMPORT_LINES_MAX)
                     : import_line(call, tx, &im, line, err);
        }
        if (rc) {
            att_err_prefix(err, "%s:%d", file, n);
        }
    }
    if (!rc && none) {
        rc = att_fail(err, ATT_E_PARSE,
                      "%s:2: expected a line ek,label,labels of a host, found none", file);
    }
    json_object_set_new(call->result, "unchanged", json_integer(im.unchanged));
    json_object_set_new(call->result, "dryRun", json_boolean(im.dry_run));
    if (!rc && !im.dry_run && (json_array_size(im.added) || json_array_size(im.changed))) {
        json_t *record = issuer_record("host", "done", NULL, "imported", file);
        json_object_set(record, "added", im.added);
        json_object_set(record, "changed", im.changed);
        rc = issuer_admin_audit(call, tx, record, err);
        call->wake = true;
        if (!rc) {
            rc = issuer_view_bump(tx, err);
        }
    }
    return rc;
}

/* ---- tickets
 * ------------------------------------------------------------------------------------------------------
 */

static enum att_rc ticket_args(struct issuer_admin_call *call, struct store_ticket *t,
                               struct att_err *err)
{
    const char *ek = issuer_arg(call, "ek"), *host = issuer_arg(call, "host");
    const char *lifetime = issuer_arg(call, "lifetime");
    int64_t seconds = 0;
    enum att_rc rc = att_duration_parse(lifetime ? lifetime : "1h", &seconds, err);
    t->uses_left = issuer_arg_int(call, "uses", 1);
    if (rc) {
        att_err_prefix(err, "lifetime");
        return rc;
    }
    if (seconds > TICKET_MAX_S) {
        return issuer_refuse(err, ATT_E_INVAL, "usage", "lifetime: at most 90 days");
    }
    if (ek && *ek && !ek_form(ek)) {
        return issuer_refuse(err, ATT_E_INVAL, "usage",
                             "ek: expected 64 lowercase hex digits, found \"%.70s\"", ek);
    }
    if (host && *host && !label_form(host)) {
        return issuer_refuse(err, ATT_E_INVAL, "usage",
                             "host: expected 1 to 64 of A-Z a-z 0-9 . _ -, found \"%.70s\"", host);
    }
    if (t->uses_left < 1 || t->uses_left > TICKET_USES_MAX ||
        (t->uses_left > 1 && ((ek && *ek) || (host && *host)))) {
        return issuer_refuse(err, ATT_E_INVAL, "usage",
                             "uses: 1, or up to %d for a ticket that names no EK and no host",
                             TICKET_USES_MAX);
    }
    t->uses = t->uses_left;
    t->created_at = call->now;
    t->expires_at = call->now + seconds;
    return issuer_set(&t->ek, ek) && issuer_set(&t->label, host) &&
                   issuer_set(&t->created_by, call->who->identity)
               ? ATT_OK
               : att_fail(err, ATT_E_NOMEM, "no memory");
}

enum att_rc issuer_admin_ticket_create(struct issuer_admin_call *call, struct store_tx *tx,
                                       struct att_err *err)
{
    struct store_ticket t = {0};
    char kid[ISSUER_ID_LEN];
    uint8_t key[32];
    enum att_rc rc = ticket_args(call, &t, err);
    if (!rc) {
        rc = issuer_new_id(kid, err);
    }
    if (!rc) {
        rc = att_random(key, sizeof key, err);
    }
    if (!rc) {
        att_buf_put(&t.mac_key, key, sizeof key);
        rc = issuer_set(&t.kid, kid) && !t.mac_key.failed
                 ? store_insert(tx, &store_tickets, &t, err)
                 : att_fail(err, ATT_E_NOMEM, "no memory");
    }
    if (!rc) {
        issuer_autoendpoints *endpoints = issuer_endpoints_get(call->issuer->ca);
        json_t *ticket = json_pack("{s:s, s:s, s:s}", "url", call->issuer->base_url, "caSha256",
                                   endpoints->ca_sha256, "kid", kid);
        rc = att_json_set_b64u(ticket, "macKey", ATT_SLICE_ARRAY(key), err);
        if (t.label[0]) {
            json_object_set_new(ticket, "host", json_string(t.label));
        }
        json_object_set_new(call->result, "ticket", ticket);
        json_object_set_new(call->result, "uses", json_integer(t.uses_left));
        json_object_set_new(call->result, "expires", issuer_time_json(t.expires_at));
        if (t.ek[0]) {
            json_object_set_new(call->result, "ek", json_string(t.ek));
        }
    }
    if (!rc) {
        json_t *record = issuer_record("ticket", "done", NULL, NULL, kid);
        json_object_set_new(record, "ek", json_string(t.ek));
        json_object_set_new(record, "host", json_string(t.label));
        json_object_set_new(record, "uses", json_integer(t.uses_left));
        json_object_set_new(record, "expires", issuer_time_json(t.expires_at));
        rc = issuer_admin_audit(call, tx, record, err);
    }
    att_wipe(key, sizeof key);
    store_record_done(&store_tickets, &t);
    return rc;
}

/* ---- authorities
 * ---------------------------------------------------------------------------------- */

enum att_rc issuer_admin_ca_status(struct issuer_admin_call *call, struct store_tx *tx,
                                   struct att_err *err)
{
    int64_t issued = 0, intents = 0;
    struct issuer_ca *ca = call->issuer->ca;
    issuer_autosettings *settings = issuer_settings_get(call->issuer);
    issuer_autoendpoints *endpoints = issuer_endpoints_get(ca);
    enum att_rc rc = store_cert_states(tx, &issued, &intents, err);
    json_object_set_new(call->result, "authorities",
                        issuer_ca_status(ca, call->issuer->state_dir, call->now));
    json_object_set_new(call->result, "issued", json_integer(issued));
    json_object_set_new(call->result, "pendingIntents", json_integer(intents));
    json_object_set_new(call->result, "caSha256", json_string(endpoints->ca_sha256));
    json_object_set_new(call->result, "warnings",
                        issuer_ca_warnings(ca, settings->conf, call->now));
    json_object_set_new(call->result, "hsm", issuer_hsm_json(ca->hsm));
    return rc ? rc : issuer_generations_json(call->issuer, tx, call->now, call->result, err);
}
