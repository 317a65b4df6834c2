/* entry.*, policy.*, audit.* */
#include "provision/issuer/admin.h"
#include "provision/issuer/order.h"

#include "provision/issuer/ca.h"
#include "provision/issuer/clashes.h"
#include "provision/issuer/revoke.h"

#include "certs/san.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AUDIT_LIMIT_MAX 1000

/* ---- entries
 * -----------------------------------------------------------------------------------------------
 */

static json_t *entry_json(const struct store_entry *row)
{
    json_t *json = issuer_json(row->json);
    json_object_set_new(json, "spiffeId", json_string(row->spiffe_id));
    json_object_set_new(json, "version", json_integer(row->version));
    json_object_set_new(json, "updatedAt", issuer_time_json(row->updated_at));
    return json;
}

struct apply {
    struct issuer_admin_call *call;
    struct issuer_settings *settings;
    json_t *added, *changed, *unchanged;
    bool dry_run;
};

static enum att_rc check_entry(const struct apply *a, const struct conf_entry *entry,
                               struct att_err *err)
{
    const struct conf_profile *profile = conf_issuer_profile(a->settings->conf, entry->profile);
    if (!profile) {
        return issuer_refuse(err, ATT_E_INVAL, "invalidProfile",
                             "agent %s: profile %s is not in the issuer's configuration",
                             entry->name, entry->profile);
    }
    if (!issuer_profile_allows(profile, entry->key)) {
        return issuer_refuse(err, ATT_E_INVAL, "keyStore",
                             "agent %s: profile %s does not allow %s keys", entry->name,
                             entry->profile, conf_key_kind_name(entry->key));
    }
    if (!issuer_profile_allows_type(profile, entry->key_type)) {
        return issuer_refuse(err, ATT_E_INVAL, "keyType",
                             "agent %s: profile %s does not allow %s keys (key_types)", entry->name,
                             entry->profile, att_keytype_name(entry->key_type));
    }
    if (entry->hsm && !issuer_profile_allows_hsm(profile, entry->hsm)) {
        return issuer_refuse(err, ATT_E_INVAL, "keyHsm",
                             "agent %s: profile %s does not allow keys in the HSM module %s (hsms)",
                             entry->name, entry->profile, entry->hsm);
    }
    for (size_t i = 0; i < entry->n_federates_with; i++) {
        if (!conf_federated(a->settings->conf->federation, entry->federates_with[i])) {
            return issuer_refuse(
                err, ATT_E_INVAL, "federationUnknown",
                "agent %s: federates_with: trust domain %.80s is not in the issuer's configuration",
                entry->name, entry->federates_with[i]);
        }
    }
    return ATT_OK;
}

/* What is there now must be one's own, too. */
static enum att_rc stored_in_scope(const struct issuer_admin_call *call,
                                   const struct store_entry *row, struct att_err *err)
{
    struct conf_entry *entry = NULL;
    att_autojson *json = issuer_json(row->json);
    enum att_rc rc = call->scope.all ? ATT_OK : conf_entry_from_json(json, &entry, err);
    rc = rc ? rc : issuer_scope_agent(&call->scope, row->spiffe_id, entry, err);
    conf_entry_free(entry);
    return rc;
}

static enum att_rc apply_one(struct apply *a, struct store_tx *tx, const struct conf_entry *entry,
                             struct att_err *err)
{
    struct store_entry row = {0};
    att_autojson *json = NULL;
    att_autobuf id = {0};
    enum att_rc rc = check_entry(a, entry, err);
    if (!rc) {
        rc = conf_entry_to_json(entry, &json, err);
    }
    if (!rc) {
        rc = certs_spiffe_agent(&id, a->call->issuer->trust_domain, entry->name, err);
    }
    issuer_autofree *text = rc ? NULL : issuer_json_text(json);
    const char *spiffe = rc ? NULL : att_buf_cstr(&id);
    if (rc || !text || !spiffe) {
        return rc ? rc : att_fail(err, ATT_E_NOMEM, "no memory");
    }
    rc = issuer_scope_agent(&a->call->scope, spiffe, entry, err);
    if (rc) {
        return rc;
    }
    rc = store_get(tx, &store_entries, entry->name, &row, NULL);
    bool there = rc == ATT_OK;
    if (rc && rc != ATT_E_NOTFOUND) {
        return att_fail(err, rc, "entries cannot be read");
    }
    rc = there ? stored_in_scope(a->call, &row, err) : ATT_OK;
    if (rc) {
        /* told by the caller */
    } else if (there && strcmp(row.json, text) == 0) {
        json_array_append_new(a->unchanged, json_string(entry->name));
    } else {
        if (there) {
            json_array_append_new(a->changed, json_pack("{s:s, s:o, s:O}", "name", entry->name,
                                                        "from", issuer_json(row.json), "to", json));
        } else {
            json_array_append_new(a->added, json_string(entry->name));
        }
        row.version++;
        row.updated_at = a->call->now;
        bool ok = issuer_set(&row.name, entry->name) && issuer_set(&row.spiffe_id, spiffe) &&
                  issuer_set(&row.json, text);
        rc = !ok          ? att_fail(err, ATT_E_NOMEM, "no memory")
             : a->dry_run ? ATT_OK
                          : store_put(tx, &store_entries, &row, err);
        if (!rc && !a->dry_run) {
            json_t *record =
                issuer_record("entry", "done", NULL, there ? "changed" : "added", entry->name);
            json_object_set_new(record, "version", json_integer(row.version));
            json_object_set(record, "entry", json);
            rc = issuer_admin_audit(a->call, tx, record, err);
        }
    }
    store_record_done(&store_entries, &row);
    return rc;
}

static enum att_rc parse_entries(struct issuer_admin_call *call, struct conf_entries **ret_entries,
                                 struct att_err *err)
{
    const char *file = issuer_arg(call, "filename");
    file = file && *file ? file : "entries";
    struct conf_errors *errors = calloc(1, sizeof *errors);
    if (!errors) {
        return att_fail(err, ATT_E_NOMEM, "no memory");
    }
    struct att_err why = {0};
    enum att_rc rc =
        conf_entries_parse(att_slice_str(issuer_arg(call, "text")), ret_entries, errors, &why);
    if (rc && errors->n) {
        att_autobuf text = ATT_BUF_INIT(2048);
        conf_error_text(&errors->v[0], file, &text);
        const char *first = att_buf_cstr(&text);
        (void)att_fail(err, rc, "%s%s", first ? first : file,
                       errors->n + errors->dropped > 1 ? " (and more errors)" : "");
    } else if (rc && err) {
        *err = why;
    }
    free(errors);
    return rc;
}

/* ---- agents that only digests tell apart ---- */

struct stored {
    const struct conf_entries *entries; /* of the file */
    const json_t *named;                /* its names */
    struct issuer_clashes clashes;
};

static enum att_rc note_stored(void *user, const void *record, struct att_err *err)
{
    struct stored *s = user;
    const struct store_entry *row = record;
    struct conf_entry *entry = NULL;
    if (json_object_get(s->named, row->name)) {
        return ATT_OK; /* as the file has it */
    }
    att_autojson *json = issuer_json(row->json);
    enum att_rc rc = conf_entry_from_json(json, &entry, err);
    for (size_t i = 0; !rc && i < s->entries->n_agents; i++) {
        rc = issuer_clashes_note(&s->clashes, &s->entries->agents[i], entry, err);
    }
    conf_entry_free(entry);
    return rc;
}

static enum att_rc warn_of_clashes(struct issuer_admin_call *call, struct store_tx *tx,
                                   const struct conf_entries *entries, struct att_err *err)
{
    att_autojson *named = json_object();
    struct stored s = {.entries = entries, .named = named};
    enum att_rc rc = ATT_OK;
    for (size_t i = 0; !rc && i < entries->n_agents; i++) {
        json_object_set_new(named, entries->agents[i].name, json_true());
        for (size_t k = i + 1; !rc && k < entries->n_agents; k++) {
            rc = issuer_clashes_note(&s.clashes, &entries->agents[i], &entries->agents[k], err);
        }
    }
    if (!rc) {
        rc = store_each(tx, &store_entries, NULL, NULL, note_stored, &s, err);
    }
    json_t *warnings = rc ? NULL : issuer_clashes_warnings(&s.clashes);
    if (!rc && json_object_set_new(call->result, "warnings", warnings) != 0) {
        rc = att_fail(err, ATT_E_NOMEM, "no memory");
    }
    issuer_clashes_done(&s.clashes);
    return rc;
}

enum att_rc issuer_admin_entry_apply(struct issuer_admin_call *call, struct store_tx *tx,
                                     struct att_err *err)
{
    issuer_autosettings *settings = issuer_settings_get(call->issuer);
    struct apply a = {call,         settings,
                      json_array(), json_array(),
                      json_array(), json_is_true(json_object_get(call->args, "dryRun"))};
    json_object_set_new(call->result, "added", a.added);
    json_object_set_new(call->result, "changed", a.changed);
    json_object_set_new(call->result, "unchanged", a.unchanged);
    json_object_set_new(call->result, "dryRun", json_boolean(a.dry_run));
    struct conf_entries *entries = NULL;
    enum att_rc rc = parse_entries(call, &entries, err);
    if (!rc && strcmp(entries->trust_domain, call->issuer->trust_domain) != 0) {
        rc = issuer_refuse(err, ATT_E_INVAL, "trustDomain", "trust_domain: expected %s, found %s",
                           call->issuer->trust_domain, entries->trust_domain);
    }
    if (!rc) {
        rc = warn_of_clashes(call, tx, entries, err);
    }
    for (size_t i = 0; !rc && i < entries->n_agents; i++) {
        rc = apply_one(&a, tx, &entries->agents[i], err);
    }
    if (!rc && !a.dry_run && (json_array_size(a.added) || json_array_size(a.changed))) {
        call->wake = true;
        rc = issuer_view_bump(tx, err);
    }
    json_object_set_new(
        call->result, "version",
        json_integer(atomic_load(&call->issuer->view_version) + (call->wake ? 1 : 0)));
    conf_entries_free(entries);
    return rc;
}

static enum att_rc add_entry(void *user, const void *record, struct att_err *err)
{
    struct issuer_page *page = user;
    const struct store_entry *row = record;
    (void)err;
    if (issuer_page_take(page, row->name, 256 + strlen(row->json) + strlen(row->spiffe_id))) {
        json_array_append_new(page->list, entry_json(row));
    }
    return ATT_OK;
}

enum att_rc issuer_admin_entry_list(struct issuer_admin_call *call, struct store_tx *tx,
                                    struct att_err *err)
{
    struct issuer_page page;
    enum att_rc rc = issuer_page_begin(call, "entries", 0, &page, err);
    json_object_set_new(call->result, "version",
                        json_integer(atomic_load(&call->issuer->view_version)));
    if (!rc && page.after && conf_name_check(page.after, NULL)) {
        rc = issuer_refuse(err, ATT_E_INVAL, "usage",
                           "after: expected an entry's name, found \"%.70s\"", page.after);
    }
    rc = rc ? rc : store_entry_list(tx, page.after, page.limit + 1, add_entry, &page, err);
    return rc ? rc : issuer_page_end(&page, err);
}

enum att_rc issuer_admin_entry_show(struct issuer_admin_call *call, struct store_tx *tx,
                                    struct att_err *err)
{
    struct store_entry row = {0};
    struct conf_entry *entry = NULL;
    enum att_rc rc = store_get(tx, &store_entries, issuer_arg(call, "name"), &row, err);
    if (!rc) {
        att_autojson *parsed = issuer_json(row.json), *shown = entry_json(&row);
        json_object_update(call->result, shown);
        rc = conf_entry_from_json(parsed, &entry, err);
    }
    /* "hosts" of the entry are its selectors; the hosts they select now come beside. */
    rc = rc ? rc : issuer_page_selected(call, tx, entry, err);
    conf_entry_free(entry);
    store_record_done(&store_entries, &row);
    return rc;
}

struct doomed {
    char (*serials)[72];
    size_t n, room;
};

static enum att_rc doom(void *user, const void *record, struct att_err *err)
{
    struct doomed *d = user;
    const struct store_cert *c = record;
    if (d->n == d->room) {
        size_t room = d->room ? 2 * d->room : 32;
        void *more = realloc(d->serials, room * sizeof *d->serials);
        if (!more) {
            return att_fail(err, ATT_E_NOMEM, "no memory");
        }
        d->serials = more;
        d->room = room;
    }
    snprintf(d->serials[d->n++], sizeof d->serials[0], "%s", c->serial);
    return ATT_OK;
}

/* What was ordered, or judged, for this entry is not for another one of that name, whose versions
 * begin again at 1. */
static enum att_rc part_from(void *user, const void *record, struct att_err *err)
{
    struct store_tx *tx = user;
    const struct store_order *order = record;
    if (strcmp(order->status, "pending") != 0 && strcmp(order->status, "ready") != 0) {
        return ATT_OK;
    }
    struct store_order parted = {0};
    enum att_rc rc = store_get(tx, &store_orders, order->id, &parted, err);
    if (!rc) {
        parted.entry_version = ISSUER_ENTRY_GONE;
        rc = store_put(tx, &store_orders, &parted, err);
    }
    store_record_done(&store_orders, &parted);
    return rc;
}

enum att_rc issuer_admin_entry_delete(struct issuer_admin_call *call, struct store_tx *tx,
                                      struct att_err *err)
{
    struct store_entry row = {0};
    struct doomed d = {0};
    const char *name = issuer_arg(call, "name");
    enum att_rc rc = store_get(tx, &store_entries, name, &row, err);
    rc = rc ? rc : stored_in_scope(call, &row, err);
    if (!rc) {
        rc =
            store_cert_live(tx, STORE_CERT_OF_SUBJECT, row.spiffe_id, call->now, -1, doom, &d, err);
    }
    if (!rc) {
        rc = store_delete(tx, &store_entries, name, err);
    }
    if (!rc) {
        rc = store_each(tx, &store_orders, "entry", name, part_from, tx, err);
    }
    for (size_t i = 0; i < d.n && !rc; i++) {
        const struct issuer_revocation what = {
            d.serials[i], "notAssigned", "the agent was taken from the host before it was signed",
            call->who, NULL};
        rc = issuer_revoke(tx, &what, call->now, err);
    }
    if (!rc) {
        rc = issuer_admin_audit(call, tx, issuer_record("entry", "done", NULL, "deleted", name),
                                err);
    }
    if (!rc) {
        call->wake = true;
        rc = issuer_view_bump(tx, err);
    }
    json_object_set_new(call->result, "name", json_string(name));
    json_object_set_new(call->result, "revoked", json_integer((json_int_t)d.n));
    json_object_set_new(call->result, "version",
                        json_integer(atomic_load(&call->issuer->view_version) + 1));
    free(d.serials);
    store_record_done(&store_entries, &row);
    return rc;
}

/* ---- policies
 * ----------------------------------------------------------------------------------------------------
 */

enum att_rc issuer_admin_policy_apply(struct issuer_admin_call *call, struct store_tx *tx,
                                      struct att_err *err)
{
    const char *file = issuer_arg(call, "filename");
    json_t *result = NULL;
    enum att_rc rc = issuer_policy_apply(call->issuer, tx, att_slice_str(issuer_arg(call, "text")),
                                         json_is_true(json_object_get(call->args, "dryRun")),
                                         call->who, &result, err);
    if (rc) {
        att_err_prefix(err, "%s", file && *file ? file : "policy");
        return rc;
    }
    json_object_update(call->result, result);
    json_decref(result);
    call->wake = true;
    return ATT_OK;
}

static json_t *policy_json(const struct store_policy *row, bool whole)
{
    att_autojson *json = NULL;
    verify_autopolicy *policy = NULL;
    uint8_t digest[ATT_SHA256_LEN];
    char hex[65];
    att_sha256(digest, att_slice_str(row->json));
    att_hex(hex, ATT_SLICE_ARRAY(digest));
    json_t *out =
        json_pack("{s:s, s:I, s:s, s:o}", "name", row->name, "version", (json_int_t)row->version,
                  "sha256", hex, "updatedAt", issuer_time_json(row->updated_at));
    struct att_err why = {0};
    if (verify_policy_parse(att_slice_str(row->json), &policy, &why)) {
        json_object_set_new(out, "error", json_string(why.msg));
        if (whole) { /* so that it can be mended */
            json = issuer_json(row->json);
            json_object_set(out, "policy", json);
        }
        return out;
    }
    json = json_incref(policy->json);
    json_object_set_new(out, "format", json_integer((json_int_t)policy->format));
    json_object_set_new(out, "signed", json_boolean(policy->is_signed));
    if (policy->is_signed) {
        att_hex(hex, ATT_SLICE_ARRAY(policy->signer));
        json_object_set_new(out, "signer", json_string(hex));
    }
    static const char *const times[] = {"notBefore", "notAfter"};
    for (size_t i = 0; i < 2; i++) {
        if (json_object_get(json, times[i])) {
            json_object_set(out, times[i], json_object_get(json, times[i]));
        }
    }
    if (whole) {
        json_object_set(out, "policy", json);
    }
    return out;
}

static enum att_rc add_policy(void *user, const void *record, struct att_err *err)
{
    (void)err;
    json_array_append_new(user, policy_json(record, false));
    return ATT_OK;
}

enum att_rc issuer_admin_policy_list(struct issuer_admin_call *call, struct store_tx *tx,
                                     struct att_err *err)
{
    json_t *list = json_array();
    json_object_set_new(call->result, "policies", list);
    return store_each(tx, &store_policies, NULL, NULL, add_policy, list, err);
}

enum att_rc issuer_admin_policy_show(struct issuer_admin_call *call, struct store_tx *tx,
                                     struct att_err *err)
{
    struct store_policy row = {0};
    enum att_rc rc = store_get(tx, &store_policies, issuer_arg(call, "name"), &row, err);
    if (!rc) {
        att_autojson *json = policy_json(&row, true);
        json_object_update(call->result, json);
    }
    store_record_done(&store_policies, &row);
    return rc;
}

/* ---- audit
 * ---------------------------------------------------------------------------------------------------------
 */

struct audit_query {
    json_t *list;
    const char *kind, *subject;
    size_t limit;
    bool newest_first;
    /* why */
    const char *id;
    const char *host; /* whose label, or beginning of its EK id, that is */
    int64_t seq;
    char decision[65];
};

static json_t *audit_json(const struct store_audit *a)
{
    char hash[65], prev[65];
    att_hex(hash, ATT_SLICE_ARRAY(a->hash));
    att_hex(prev, ATT_SLICE_ARRAY(a->prev));
    return json_pack("{s:I, s:o, s:s, s:s, s:o}", "seq", (json_int_t)a->seq, "at",
                     issuer_time_json(a->at), "hash", hash, "prev", prev, "record",
                     issuer_json(a->record));
}

static enum att_rc list_record(void *user, const struct store_audit *a, struct att_err *err)
{
    struct audit_query *q = user;
    att_autojson *record = issuer_json(a->record);
    (void)err;
    bool fits = (!q->kind || strcmp(issuer_string(record, "kind"), q->kind) == 0) &&
                (!q->subject || strstr(issuer_string(record, "subject"), q->subject));
    if (fits) {
        json_array_append_new(q->list, audit_json(a));
    }
    return json_array_size(q->list) < q->limit ? ATT_OK : ATT_E_LIMIT; /* no more is read */
}

enum att_rc issuer_admin_audit_list(struct issuer_admin_call *call, struct store_tx *tx,
                                    struct att_err *err)
{
    int64_t limit = issuer_arg_int(call, "limit", 100);
    if (limit < 1 || limit > AUDIT_LIMIT_MAX) {
        return issuer_refuse(err, ATT_E_INVAL, "usage", "limit: expected 1 to %d, found %lld",
                             AUDIT_LIMIT_MAX, (long long)limit);
    }
    struct audit_query q = {.list = json_array(),
                            .kind = issuer_arg(call, "kind"),
                            .subject = issuer_arg(call, "subject"),
                            .limit = (size_t)limit};
    struct store_audit head = {0};
    json_object_set_new(call->result, "records", q.list);
    enum att_rc rc = store_audit_head(tx, &head, err);
    /* Without a start: the newest ones. */
    int64_t after = issuer_arg_int(call, "after", -1);
    if (after < 0) {
        after =
            q.kind || q.subject || head.seq < (int64_t)q.limit ? 0 : head.seq - (int64_t)q.limit;
    }
    if (!rc) {
        rc = store_audit_each(tx, after + 1, q.kind || q.subject ? 0 : (int64_t)q.limit,
                              list_record, &q, err);
        rc = rc == ATT_E_LIMIT && json_array_size(q.list) == q.limit ? ATT_OK : rc;
    }
    char hash[65];
    att_hex(hash, ATT_SLICE_ARRAY(head.hash));
    json_object_set_new(call->result, "head",
                        json_pack("{s:I, s:s}", "seq", (json_int_t)head.seq, "hash", hash));
    return rc;
}

static enum att_rc why_record(void *user, const struct store_audit *a, struct att_err *err)
{
    struct audit_query *q = user;
    att_autojson *record = issuer_json(a->record);
    (void)err;
    static const char *const members[] = {"subject", "serial", "order", "host", "ak", "account"};
    bool fits = q->seq == a->seq;
    for (size_t i = 0; !fits && q->seq == 0 && i < sizeof members / sizeof members[0]; i++) {
        const char *value = issuer_string(record, members[i]);
        const char *name = strrchr(value, '/');
        fits = strcmp(value, q->id) == 0 || (name && strcmp(name + 1, q->id) == 0) ||
               (q->host && strcmp(value, q->host) == 0);
    }
    if (!fits && q->decision[0]) {
        uint8_t digest[ATT_SHA256_LEN];
        char hex[65];
        att_sha256(digest, att_slice_str(a->record));
        att_hex(hex, ATT_SLICE_ARRAY(digest));
        fits = strcmp(hex, q->decision) == 0;
    }
    if (fits) {
        json_array_insert_new(q->list, 0, audit_json(a));
        if (json_array_size(q->list) > q->limit) {
            json_array_remove(q->list, q->limit);
        }
    }
    return ATT_OK;
}

enum att_rc issuer_admin_audit_why(struct issuer_admin_call *call, struct store_tx *tx,
                                   struct att_err *err)
{
    const char *id = issuer_arg(call, "id");
    struct audit_query q = {.list = json_array(), .id = id, .limit = 100};
    json_object_set_new(call->result, "records", q.list);
    size_t n = strlen(id);
    if (n > 0 && n < 19 && strspn(id, "0123456789") == n) {
        q.seq = atoll(id);
    }
    struct store_cert cert = {0};
    if (store_get(tx, &store_certs, id, &cert, NULL) == ATT_OK) {
        snprintf(q.decision, sizeof q.decision, "%s", cert.decision);
    }
    /* A host's records have its EK id; a ticket's has the label that it gives. Both are meant. */
    struct store_host host = {0};
    if (!q.seq && issuer_arg_host(call, tx, &host, NULL) == ATT_OK) {
        q.host = host.id;
    }
    /* The decision of a certificate names the order (or AK record) that the certificate is of. */
    const char *also = cert.ord && cert.ord[0] ? cert.ord : q.host ? q.host : id;
    enum att_rc rc = q.seq ? store_audit_each(tx, q.seq, 1, why_record, &q, err)
                           : store_audit_search(tx, id, also, why_record, &q, err);
    store_record_done(&store_certs, &cert);
    store_record_done(&store_hosts, &host);
    if (!rc && json_array_size(q.list) == 0) {
        rc = issuer_refuse(err, ATT_E_NOTFOUND, "auditUnknown", "no decision speaks of \"%.80s\"",
                           id);
    }
    return rc;
}

enum att_rc issuer_admin_audit_evidence(struct issuer_admin_call *call, struct store_tx *tx,
                                        struct att_err *err)
{
    att_autobuf bytes = {0};
    const char *sha256 = issuer_arg(call, "sha256");
    enum att_rc rc = store_blob_get(tx, sha256, &bytes, err);
    if (!rc && bytes.len > ((size_t)5 << 20)) {
        rc = att_fail(err, ATT_E_LIMIT, "evidence %.64s: too big for the socket", sha256);
    }
    if (!rc) {
        json_object_set_new(call->result, "sha256", json_string(sha256));
        json_object_set_new(call->result, "length", json_integer((json_int_t)bytes.len));
        rc = att_json_set_b64u(call->result, "data", att_buf_slice(&bytes), err);
    }
    return rc;
}

enum att_rc issuer_admin_audit_verify(struct issuer_admin_call *call, struct store_tx *tx,
                                      struct att_err *err)
{
    (void)tx;
    json_t *result = NULL;
    enum att_rc rc = issuer_audit_verify(call->issuer, &result, err);
    if (!rc) {
        json_object_update(call->result, result);
        json_decref(result);
    }
    return rc;
}
