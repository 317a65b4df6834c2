/* Entries and boot policies, as the handlers see them. */
#include "provision/issuer/context.h"

#include "attestd/base/io.h"
#include "provision/verify/policy_signed.h"
#include "provision/issuer/who.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum att_rc issuer_entry_for(struct issuer *issuer, struct store_tx *tx, const char *name,
                             const struct store_host *host, struct store_entry *ret_entry,
                             struct issuer_entry **ret_parsed, struct att_err *err)
{
    struct store_entry entry = {0};
    issuer_autoentry *parsed = NULL;
    enum att_rc rc = store_get(tx, &store_entries, name, &entry, NULL);
    if (rc == ATT_E_NOTFOUND) {
        return issuer_refuse(err, ATT_E_DENIED, "notAssigned", "there is no entry for agent %.64s",
                             name);
    }
    if (rc) {
        return att_fail(err, rc, "entries cannot be read");
    }
    att_autojson *labels = issuer_json(host->labels);
    rc = issuer_entry_read(issuer->entries, entry.json, &parsed, err);
    if (!rc && !conf_entry_selects(parsed->v, host->id, labels)) {
        rc = issuer_refuse(err, ATT_E_DENIED, "notAssigned",
                           "agent %.64s is not assigned to host %.12s", name, host->id);
    }
    if (rc) {
        store_record_done(&store_entries, &entry);
        return rc;
    }
    *ret_entry = entry;
    *ret_parsed = parsed;
    parsed = NULL;
    return ATT_OK;
}

/* ---- policies, read once
 * -----------------------------------------------------------------------------------
 * Found by the text of the row and by nothing else; the row is read each time, so that a changed
 * policy is never judged by from memory. */

struct issuer_policies {
    pthread_mutex_t lock;
    struct issuer_policy *slots[ISSUER_POLICIES_KEPT];
    size_t next; /* to be replaced */
};

struct issuer_policies *issuer_policies_new(void)
{
    struct issuer_policies *policies = calloc(1, sizeof *policies);
    if (policies) {
        pthread_mutex_init(&policies->lock, NULL);
    }
    return policies;
}

void issuer_policies_free(struct issuer_policies *policies)
{
    for (size_t i = 0; policies && i < ISSUER_POLICIES_KEPT; i++) {
        issuer_policy_put(policies->slots[i]);
    }
    if (policies) {
        pthread_mutex_destroy(&policies->lock);
    }
    free(policies);
}

void issuer_policy_put(struct issuer_policy *policy)
{
    if (policy && atomic_fetch_sub(&policy->refs, 1) == 1) {
        verify_policy_free(policy->v);
        pthread_mutex_destroy(&policy->binding);
        free(policy->text);
        free(policy);
    }
}

void issuer_policy_cleanup(struct issuer_policy **policy)
{
    issuer_policy_put(*policy);
    *policy = NULL;
}

static struct issuer_policy *look_up(struct issuer_policies *policies, const char *text)
{
    struct issuer_policy *found = NULL;
    pthread_mutex_lock(&policies->lock);
    for (size_t i = 0; !found && i < ISSUER_POLICIES_KEPT; i++) {
        if (policies->slots[i] && strcmp(policies->slots[i]->text, text) == 0) {
            found = policies->slots[i];
            atomic_fetch_add(&found->refs, 1);
        }
    }
    pthread_mutex_unlock(&policies->lock);
    return found;
}

static void keep(struct issuer_policies *policies, struct issuer_policy *policy)
{
    atomic_fetch_add(&policy->refs, 1);
    pthread_mutex_lock(&policies->lock);
    struct issuer_policy **slot = &policies->slots[policies->next++ % ISSUER_POLICIES_KEPT];
    struct issuer_policy *old = *slot;
    *slot = policy;
    pthread_mutex_unlock(&policies->lock);
    issuer_policy_put(old);
}

static enum att_rc read_once(struct issuer_policies *policies, const char *text,
                             struct issuer_policy **ret_policy, struct att_err *err)
{
    *ret_policy = look_up(policies, text);
    if (*ret_policy) {
        return ATT_OK;
    }
    issuer_autopolicy *policy = calloc(1, sizeof *policy);
    if (!policy) {
        return att_fail(err, ATT_E_NOMEM, "no memory for a boot policy");
    }
    atomic_init(&policy->refs, 1);
    pthread_mutex_init(&policy->binding, NULL);
    policy->text = strdup(text);
    enum att_rc rc = policy->text ? verify_policy_parse(att_slice_str(text), &policy->v, err)
                                  : att_fail(err, ATT_E_NOMEM, "no memory for a boot policy");
    if (!rc) {
        keep(policies, policy);
        *ret_policy = policy;
        policy = NULL;
    }
    return rc;
}

/* What an earlier version took and this one refuses, or what the database lost: it judges nothing,
 * and is no reason to stand still. */
static enum att_rc unusable(const struct store_policy *row, enum att_rc rc,
                            const struct att_err *why, struct att_err *err)
{
    if (rc == ATT_E_NOMEM || rc == ATT_E_INTERNAL || rc == ATT_E_CRYPTO) {
        if (err) {
            *err = *why;
        }
        return rc;
    }
    return issuer_refuse(
        err, ATT_E_DENIED, "policyMissing",
        "boot policy %s version %lld cannot be used (apply a newer version): %.300s", row->name,
        (long long)row->version, why->msg);
}

/* Once, by whoever comes first: a bound policy is never changed. */
static enum att_rc bind_lists(struct issuer *issuer, struct store_tx *tx,
                              const struct store_policy *row, struct issuer_policy *policy,
                              struct att_err *err)
{
    struct att_err why = {0};
    enum att_rc rc = ATT_OK;
    pthread_mutex_lock(&policy->binding);
    if (verify_imarule_unbound(&policy->v->ima)) {
        rc = issuer_allowlists_bind(issuer, tx, policy->v, &why);
    }
    pthread_mutex_unlock(&policy->binding);
    if (rc == ATT_E_NOTFOUND || rc == ATT_E_PARSE || rc == ATT_E_LIMIT) {
        return unusable(row, rc, &why, err);
    }
    return rc ? att_fail(err, rc, "%s", why.msg) : ATT_OK;
}

enum att_rc issuer_policy_get(struct issuer *issuer, struct store_tx *tx, const char *name,
                              struct issuer_policy **ret_policy, struct att_err *err)
{
    *ret_policy = NULL;
    if (strcmp(name, "none") == 0) {
        return ATT_OK;
    }
    struct store_policy row = {0};
    enum att_rc rc = store_get(tx, &store_policies, name, &row, NULL);
    if (rc == ATT_E_NOTFOUND) {
        return ATT_OK;
    }
    if (rc) {
        rc = att_fail(err, rc, "policies cannot be read");
    } else {
        struct att_err why = {0};
        rc = read_once(issuer->policies, row.json, ret_policy, &why);
        rc = rc ? unusable(&row, rc, &why, err) : ATT_OK;
        if (!rc && (*ret_policy)->v->ima.given) {
            rc = bind_lists(issuer, tx, &row, *ret_policy, err);
            if (rc) {
                issuer_policy_put(*ret_policy);
                *ret_policy = NULL;
            }
        }
    }
    store_record_done(&store_policies, &row);
    return rc;
}

struct policy_apply {
    struct issuer *issuer;
    struct verify_policy *policy;
    char *text;
    char sha256[65];
    const struct issuer_who *who;
    bool dry_run, changed;
};

static enum att_rc apply_tx(void *user, struct store_tx *tx, struct att_err *err)
{
    struct policy_apply *a = user;
    struct store_policy row = {0};
    int64_t now = a->issuer->clock();
    enum att_rc rc = store_get(tx, &store_policies, a->policy->name, &row, NULL);
    if (rc && rc != ATT_E_NOTFOUND) {
        return att_fail(err, rc, "policies cannot be read");
    }
    bool there = !rc;
    a->changed = !there || strcmp(row.json, a->text) != 0;
    rc = ATT_OK;
    /* Whoever changes a policy gives it a new version: a verdict names what it was judged by. */
    if (a->changed && there && row.version > (int64_t)a->policy->version) {
        rc = att_fail(err, ATT_E_CONFLICT,
                      "policy %s: version %u is older than version %lld, which is in force",
                      a->policy->name, a->policy->version, (long long)row.version);
        att_err_reason(err, "policyRolledBack");
    } else if (a->changed && there && row.version == (int64_t)a->policy->version) {
        rc = att_fail(
            err, ATT_E_CONFLICT,
            "policy %s: version %lld is there with other content; give version %lld or more",
            a->policy->name, (long long)row.version, (long long)row.version + 1);
        att_err_reason(err, "policyVersion");
    }
    /* A policy whose allow lists are not here would judge nobody. */
    rc = rc ? rc : issuer_allowlists_bind(a->issuer, tx, a->policy, err);
    if (!rc && a->changed && !a->dry_run) {
        row.version = a->policy->version;
        row.updated_at = now;
        rc = issuer_set(&row.name, a->policy->name) && issuer_set(&row.json, a->text)
                 ? store_put(tx, &store_policies, &row, err)
                 : att_fail(err, ATT_E_NOMEM, "no memory");
        if (!rc) {
            json_t *record = issuer_record("policy", "done", NULL, NULL, a->policy->name);
            json_object_set_new(record, "version", json_integer(a->policy->version));
            json_object_set_new(record, "sha256", json_string(a->sha256));
            issuer_who_put(record, a->who);
            json_object_set_new(record, "policy", json_string(a->text));
            rc = issuer_audit(tx, now, record, NULL, err);
        }
        if (!rc) {
            rc = issuer_view_bump(tx, err);
        }
    }
    store_record_done(&store_policies, &row);
    return rc;
}

static enum att_rc read_policy(struct att_slice text, struct verify_policy **ret_policy,
                               struct att_err *err)
{
    verify_autopolicy *policy = NULL;
    enum att_rc rc = verify_policy_parse(text, &policy, err);
    if (rc) {
        return rc;
    }
    *ret_policy = policy;
    policy = NULL;
    return ATT_OK;
}

enum att_rc issuer_policy_apply(struct issuer *issuer, struct store_tx *tx, struct att_slice text,
                                bool dry_run, const struct issuer_who *who, json_t **ret_result,
                                struct att_err *err)
{
    verify_autopolicy *policy = NULL;
    enum att_rc rc = read_policy(text, &policy, err);
    rc = rc ? rc : issuer_policy_signer_check(issuer, policy, err);
    if (rc) {
        return rc;
    }
    struct policy_apply a = {.issuer = issuer,
                             .policy = policy,
                             .text = strndup((const char *)text.ptr, text.len),
                             .who = who,
                             .dry_run = dry_run};
    att_hex(a.sha256, ATT_SLICE_ARRAY(policy->digest));
    rc = !a.text ? att_fail(err, ATT_E_NOMEM, "no memory")
         : tx    ? apply_tx(&a, tx, err)
                 : store_run(issuer->store, true, apply_tx, &a, err);
    free(a.text);
    if (rc) {
        return rc;
    }
    if (a.changed && !dry_run) {
        if (!tx) {
            issuer_view_wake(issuer); /* else after the commit */
        }
        att_log(ATT_INFO, "policy.applied", ATT_S("policy", policy->name),
                ATT_N("version", policy->version));
    }
    if (ret_result) {
        *ret_result = json_pack("{s:s, s:I, s:s, s:b, s:b}", "name", policy->name, "version",
                                (json_int_t)policy->version, "sha256", a.sha256, "changed",
                                a.changed ? 1 : 0, "dryRun", dry_run ? 1 : 0);
    }
    return ATT_OK;
}

static enum att_rc take_allowlist(struct issuer *issuer, const char *path, struct att_err *err)
{
    att_autobuf text = ATT_BUF_INIT(VERIFY_IMALIST_BYTES_MAX);
    verify_autoimalist *list = NULL;
    enum att_rc rc = att_io_read_file(path, VERIFY_IMALIST_BYTES_MAX, &text, err);
    if (!rc) {
        rc = issuer ? issuer_allowlist_apply(issuer, NULL, att_buf_slice(&text), "", false, NULL,
                                             NULL, err)
                    : verify_imalist_parse(att_buf_slice(&text), &list, err);
        if (rc) {
            att_err_prefix(err, "%s", path);
        }
    }
    return rc;
}

/* issuer NULL: nothing is applied. */
static enum att_rc take_policy(struct issuer *issuer, const char *path, struct att_err *err)
{
    att_autobuf text = {0};
    verify_autopolicy *policy = NULL;
    enum att_rc rc = att_io_read_file(path, VERIFY_POLICY_SIGNED_MAX, &text, err);
    if (!rc) {
        rc = issuer
                 ? issuer_policy_apply(issuer, NULL, att_buf_slice(&text), false, NULL, NULL, err)
                 : read_policy(att_buf_slice(&text), &policy, err);
        if (rc) {
            att_err_prefix(err, "%s", path);
        }
    }
    return rc;
}

static enum att_rc take_files(struct issuer *issuer, const char *dir, const char *suffix,
                              enum att_rc (*take)(struct issuer *, const char *, struct att_err *),
                              struct att_err *err)
{
    size_t end = strlen(suffix);
    struct dirent **names = NULL;
    int n = scandir(dir, &names, NULL, alphasort);
    if (n < 0) {
        return errno == ENOENT
                   ? ATT_OK
                   : att_fail_errno(err, ATT_E_IO, "policies_dir %s: cannot be read", dir);
    }
    enum att_rc rc = ATT_OK;
    for (int i = 0; i < n; i++) {
        size_t len = strlen(names[i]->d_name);
        issuer_autofree *path = NULL;
        if (!rc && len > end && strcmp(names[i]->d_name + len - end, suffix) == 0) {
            rc = asprintf(&path, "%s/%s", dir, names[i]->d_name) < 0
                     ? att_fail(err, ATT_E_NOMEM, "no memory")
                     : take(issuer, path, err);
        }
        free(names[i]);
    }
    free(names);
    return rc;
}

/* Allow lists first, which policies name. */
static enum att_rc take_policies(struct issuer *issuer, const char *dir, struct att_err *err)
{
    enum att_rc rc = take_files(issuer, dir, ".imalist", take_allowlist, err);
    return rc ? rc : take_files(issuer, dir, ".json", take_policy, err);
}

enum att_rc issuer_policies_import(struct issuer *issuer, const char *dir, struct att_err *err)
{
    return take_policies(issuer, dir, err);
}

enum att_rc issuer_policies_check(const char *dir, struct att_err *err)
{
    return take_policies(NULL, dir, err);
}
