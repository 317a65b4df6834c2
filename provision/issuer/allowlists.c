/* Allow lists of IMA: stored once by their digest, read once, named by boot policies. A list is too
 * long for one call: it comes in parts, which are kept like evidence until it is whole. */
#include "provision/issuer/admin.h"

#include "attestd/base/enc.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PARTS_MAX 256
/* Of all lists together, so that nobody fills the database with them. */
#define LISTS_MAX       256
#define LISTS_BYTES_MAX ((int64_t)1 << 30)

struct issuer_allowlists {
    pthread_mutex_t lock;
    struct verify_imalist *slots[ISSUER_ALLOWLISTS_KEPT];
    size_t next; /* to be replaced */
};

struct issuer_allowlists *issuer_allowlists_new(void)
{
    struct issuer_allowlists *lists = calloc(1, sizeof *lists);
    if (lists) {
        pthread_mutex_init(&lists->lock, NULL);
    }
    return lists;
}

void issuer_allowlists_free(struct issuer_allowlists *lists)
{
    for (size_t i = 0; lists && i < ISSUER_ALLOWLISTS_KEPT; i++) {
        verify_imalist_free(lists->slots[i]);
    }
    if (lists) {
        pthread_mutex_destroy(&lists->lock);
    }
    free(lists);
}

/* ---- reading --------------------------------------------------------------------------------- */

static struct verify_imalist *look_up(struct issuer_allowlists *lists,
                                      const uint8_t sha256[ATT_SHA256_LEN])
{
    struct verify_imalist *found = NULL;
    pthread_mutex_lock(&lists->lock);
    for (size_t i = 0; !found && i < ISSUER_ALLOWLISTS_KEPT; i++) {
        struct verify_imalist *list = lists->slots[i];
        if (list && memcmp(verify_imalist_sha256(list), sha256, ATT_SHA256_LEN) == 0) {
            found = verify_imalist_ref(list);
        }
    }
    pthread_mutex_unlock(&lists->lock);
    return found;
}

static void keep(struct issuer_allowlists *lists, struct verify_imalist *list)
{
    pthread_mutex_lock(&lists->lock);
    struct verify_imalist **slot = &lists->slots[lists->next++ % ISSUER_ALLOWLISTS_KEPT];
    struct verify_imalist *old = *slot;
    *slot = verify_imalist_ref(list);
    pthread_mutex_unlock(&lists->lock);
    verify_imalist_free(old);
}

static enum att_rc missing(struct att_err *err, const char *hex, const char *why)
{
    return issuer_refuse(err, ATT_E_NOTFOUND, "allowlistMissing",
                         "allow list %s %s (attestctl allowlist apply FILE)", hex, why);
}

static enum att_rc read_list(struct issuer *issuer, struct store_tx *tx,
                             const uint8_t sha256[ATT_SHA256_LEN], struct verify_imalist **ret,
                             struct att_err *err)
{
    char hex[2 * ATT_SHA256_LEN + 1];
    struct store_allowlist row = {.data = {.max = VERIFY_IMALIST_BYTES_MAX}};
    struct att_err why = {0};
    *ret = look_up(issuer->allowlists, sha256);
    if (*ret) {
        return ATT_OK;
    }
    att_hex(hex, ATT_SLICE(sha256, ATT_SHA256_LEN));
    enum att_rc rc = store_get(tx, &store_allowlists, hex, &row, NULL);
    if (rc) {
        return rc == ATT_E_NOTFOUND ? missing(err, hex, "is not at this issuer")
                                    : att_fail(err, rc, "allow lists cannot be read");
    }
    verify_autoimalist *list = NULL;
    rc = verify_imalist_parse(att_buf_slice(&row.data), &list, &why);
    store_record_done(&store_allowlists, &row);
    if (rc == ATT_E_NOMEM) {
        return att_fail(err, rc, "%s", why.msg);
    }
    if (rc || memcmp(verify_imalist_sha256(list), sha256, ATT_SHA256_LEN) != 0) {
        return missing(err, hex, "is not stored as it was");
    }
    keep(issuer->allowlists, list);
    *ret = list;
    list = NULL;
    return ATT_OK;
}

enum att_rc issuer_allowlists_bind(struct issuer *issuer, struct store_tx *tx,
                                   struct verify_policy *policy, struct att_err *err)
{
    const struct verify_ima_allow *allow;
    while ((allow = verify_imarule_unbound(&policy->ima)) != NULL) {
        verify_autoimalist *list = NULL;
        enum att_rc rc = read_list(issuer, tx, allow->sha256, &list, err);
        if (rc) {
            return rc;
        }
        verify_imarule_bind(&policy->ima, list);
    }
    return ATT_OK;
}

/* ---- storing --------------------------------------------------------------------------------- */

struct apply {
    struct issuer *issuer;
    struct att_slice text;
    const char *label;
    const struct issuer_who *who;
    char hex[2 * ATT_SHA256_LEN + 1];
    size_t entries;
    bool dry_run, changed;
};

static enum att_rc insert(struct apply *a, struct store_tx *tx, struct att_err *err)
{
    int64_t now = a->issuer->clock();
    struct store_allowlist row = {.data = {.max = VERIFY_IMALIST_BYTES_MAX},
                                  .entries = (int64_t)a->entries,
                                  .created_at = now};
    att_buf_put_slice(&row.data, a->text);
    bool ok = issuer_set(&row.sha256, a->hex) && issuer_set(&row.label, a->label) &&
              att_buf_ok(&row.data, NULL) == ATT_OK;
    enum att_rc rc = ok ? store_insert(tx, &store_allowlists, &row, err)
                        : att_fail(err, ATT_E_NOMEM, "no memory");
    store_record_done(&store_allowlists, &row);
    if (!rc) {
        json_t *record = issuer_record("allowlist", "done", NULL, NULL, a->hex);
        json_object_set_new(record, "entries", json_integer((json_int_t)a->entries));
        json_object_set_new(record, "label", json_string(a->label));
        issuer_who_put(record, a->who);
        rc = issuer_audit(tx, now, record, NULL, err);
    }
    return rc;
}

struct room {
    int64_t n, bytes;
};

static enum att_rc add_room(void *user, const void *record, struct att_err *err)
{
    struct room *room = user;
    (void)err;
    room->n++;
    room->bytes += ((const struct store_allowlist_sum *)record)->bytes;
    return ATT_OK;
}

static enum att_rc has_room(const struct apply *a, struct store_tx *tx, struct att_err *err)
{
    struct room room = {0};
    enum att_rc rc = store_allowlist_sums(tx, add_room, &room, err);
    if (!rc && (room.n >= LISTS_MAX || room.bytes > LISTS_BYTES_MAX - (int64_t)a->text.len)) {
        rc = issuer_refuse(
            err, ATT_E_CONFLICT, "allowlistsMany",
            "there are %lld allow lists with %lld bytes, at most %d and %lld: delete "
            "one that no policy names (attestctl allowlist list)",
            (long long)room.n, (long long)room.bytes, LISTS_MAX, (long long)LISTS_BYTES_MAX);
    }
    return rc;
}

static enum att_rc apply_tx(void *user, struct store_tx *tx, struct att_err *err)
{
    struct apply *a = user;
    struct store_allowlist row = {.data = {.max = VERIFY_IMALIST_BYTES_MAX}};
    enum att_rc rc = store_get(tx, &store_allowlists, a->hex, &row, NULL);
    store_record_done(&store_allowlists, &row);
    if (rc && rc != ATT_E_NOTFOUND) {
        return att_fail(err, rc, "allow lists cannot be read");
    }
    a->changed = rc == ATT_E_NOTFOUND;
    rc = a->changed ? has_room(a, tx, err) : ATT_OK;
    if (rc) {
        return rc;
    }
    return a->changed && !a->dry_run ? insert(a, tx, err) : ATT_OK;
}

enum att_rc issuer_allowlist_apply(struct issuer *issuer, struct store_tx *tx,
                                   struct att_slice text, const char *label, bool dry_run,
                                   const struct issuer_who *who, json_t **ret_result,
                                   struct att_err *err)
{
    verify_autoimalist *list = NULL;
    enum att_rc rc = verify_imalist_parse(text, &list, err);
    if (rc) {
        return rc;
    }
    struct apply a = {.issuer = issuer,
                      .text = text,
                      .label = label ? label : "",
                      .who = who,
                      .entries = verify_imalist_count(list),
                      .dry_run = dry_run};
    att_hex(a.hex, ATT_SLICE(verify_imalist_sha256(list), ATT_SHA256_LEN));
    rc = tx ? apply_tx(&a, tx, err) : store_run(issuer->store, true, apply_tx, &a, err);
    if (!rc && a.changed && !dry_run) {
        att_log(ATT_INFO, "allowlist.applied", ATT_S("sha256", a.hex), ATT_N("entries", a.entries));
    }
    if (!rc && ret_result) {
        *ret_result = json_pack("{s:s, s:I, s:I, s:b, s:b}", "sha256", a.hex, "entries",
                                (json_int_t)a.entries, "bytes", (json_int_t)text.len, "changed",
                                a.changed ? 1 : 0, "dryRun", dry_run ? 1 : 0);
    }
    return rc;
}

/* ---- operations ------------------------------------------------------------------------------ */

enum att_rc issuer_admin_allowlist_part(struct issuer_admin_call *call, struct store_tx *tx,
                                        struct att_err *err)
{
    char sha256[65];
    enum att_rc rc =
        store_blob_put(tx, att_slice_str(issuer_arg(call, "text")), call->now, sha256, err);
    if (!rc) {
        json_object_set_new(call->result, "sha256", json_string(sha256));
    }
    return rc;
}

/* "hex,hex,…": the parts, one after the other. */
static enum att_rc join(struct store_tx *tx, const char *parts, struct att_buf *ret,
                        struct att_err *err)
{
    size_t n = 0;
    for (const char *at = parts; *at; at += 64 + (at[64] == ',')) {
        att_autobuf part = ATT_BUF_INIT(VERIFY_IMALIST_BYTES_MAX);
        char hex[65] = "";
        if (strspn(at, "0123456789abcdef") != 64 || (at[64] && at[64] != ',') ||
            (at[64] == ',' && !at[65]) || ++n > PARTS_MAX) {
            return issuer_refuse(err, ATT_E_INVAL, "usage",
                                 "parts: expected 1-%d SHA-256 in hex, with commas between them",
                                 PARTS_MAX);
        }
        memcpy(hex, at, 64);
        enum att_rc rc = store_blob_get(tx, hex, &part, err);
        if (rc) {
            return rc;
        }
        att_buf_put_slice(ret, att_buf_slice(&part));
    }
    return att_buf_ok(ret, err);
}

enum att_rc issuer_admin_allowlist_apply(struct issuer_admin_call *call, struct store_tx *tx,
                                         struct att_err *err)
{
    const char *file = issuer_arg(call, "filename");
    att_autobuf text = ATT_BUF_INIT(VERIFY_IMALIST_BYTES_MAX);
    att_autojson *result = NULL;
    enum att_rc rc = join(tx, issuer_arg(call, "parts"), &text, err);
    if (rc) {
        return rc;
    }
    rc = issuer_allowlist_apply(call->issuer, tx, att_buf_slice(&text), issuer_arg(call, "label"),
                                json_is_true(json_object_get(call->args, "dryRun")), call->who,
                                &result, err);
    if (rc) {
        att_err_prefix(err, "%s", file && *file ? file : "allow list");
        return rc;
    }
    json_object_update(call->result, result);
    return ATT_OK;
}

/* Names of the policies that name a list, with a comma between them. */
struct users {
    const uint8_t *sha256;
    struct att_buf names;
};

static enum att_rc add_user(void *user, const void *record, struct att_err *err)
{
    struct users *users = user;
    const struct store_policy *row = record;
    verify_autopolicy *policy = NULL;
    (void)err;
    if (verify_policy_parse(att_slice_str(row->json), &policy, NULL)) {
        return ATT_OK; /* it judges nobody */
    }
    for (size_t i = 0; i < policy->ima.n_lists; i++) {
        if (memcmp(policy->ima.lists[i].sha256, users->sha256, ATT_SHA256_LEN) == 0) {
            att_buf_printf(&users->names, "%s%s", users->names.len ? ", " : "", row->name);
        }
    }
    return ATT_OK;
}

/* Which policies name which list, of all policies at once: {hex: "name, name"}. */
static enum att_rc add_names(void *user, const void *record, struct att_err *err)
{
    json_t *names = user;
    const struct store_policy *row = record;
    verify_autopolicy *policy = NULL;
    (void)err;
    if (verify_policy_parse(att_slice_str(row->json), &policy, NULL)) {
        return ATT_OK; /* it judges nobody */
    }
    for (size_t i = 0; i < policy->ima.n_lists; i++) {
        char hex[2 * ATT_SHA256_LEN + 1];
        att_autobuf text = {0};
        att_hex(hex, ATT_SLICE_ARRAY(policy->ima.lists[i].sha256));
        const char *before = json_string_value(json_object_get(names, hex));
        att_buf_printf(&text, "%s%s%s", before ? before : "", before ? ", " : "", row->name);
        json_object_set_new(names, hex, json_string(att_buf_cstr(&text)));
    }
    return ATT_OK;
}

struct listing {
    const json_t *names;
    json_t *list;
};

static enum att_rc add_list(void *user, const void *record, struct att_err *err)
{
    struct listing *l = user;
    const struct store_allowlist_sum *row = record;
    const char *names = json_string_value(json_object_get(l->names, row->sha256));
    (void)err;
    json_array_append_new(
        l->list,
        json_pack("{s:s, s:s, s:I, s:I, s:o, s:s}", "sha256", row->sha256, "label", row->label,
                  "entries", (json_int_t)row->entries, "bytes", (json_int_t)row->bytes, "createdAt",
                  issuer_time_json(row->created_at), "policies", names ? names : ""));
    return ATT_OK;
}

enum att_rc issuer_admin_allowlist_list(struct issuer_admin_call *call, struct store_tx *tx,
                                        struct att_err *err)
{
    att_autojson *names = json_object();
    struct listing l = {.names = names, .list = json_array()};
    json_object_set_new(call->result, "allowlists", l.list);
    enum att_rc rc = store_each(tx, &store_policies, NULL, NULL, add_names, names, err);
    return rc ? rc : store_allowlist_sums(tx, add_list, &l, err);
}

enum att_rc issuer_admin_allowlist_delete(struct issuer_admin_call *call, struct store_tx *tx,
                                          struct att_err *err)
{
    const char *hex = issuer_arg(call, "sha256");
    uint8_t sha256[ATT_SHA256_LEN];
    struct users users = {.sha256 = sha256};
    if (strlen(hex) != 64 || att_unhex_exact(sha256, sizeof sha256, hex, NULL)) {
        return issuer_refuse(err, ATT_E_INVAL, "usage", "sha256: expected 64 hex digits");
    }
    enum att_rc rc = store_each(tx, &store_policies, NULL, NULL, add_user, &users, err);
    if (!rc && users.names.len) {
        rc = issuer_refuse(err, ATT_E_CONFLICT, "allowlistUsed",
                           "allow list %s is named by boot policy %.200s", hex,
                           att_buf_cstr(&users.names));
    }
    att_buf_done(&users.names);
    rc = rc ? rc : store_delete(tx, &store_allowlists, hex, err);
    if (!rc) {
        rc = issuer_admin_audit(call, tx, issuer_record("allowlist", "done", NULL, "deleted", hex),
                                err);
        json_object_set_new(call->result, "sha256", json_string(hex));
    }
    return rc;
}
