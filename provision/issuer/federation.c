/* What is kept of other trust domains: taking a bundle, refusing one, forgetting one. */
#include "provision/issuer/federation.h"

#include "provision/federation/bundle.h"
#include "provision/issuer/federation_internal.h"
#include "provision/issuer/generations.h"
#include "provision/issuer/jwt.h"

#include "certs/bundle.h"
#include "certs/oid.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define META "federation"
/* Changes of one trust domain that have a record each: so many at once, one more each quarter. */
#define RECORDS  8
#define RECORD_S 900

const char *issuer_federation_word(enum issuer_federation_outcome outcome)
{
    static const char *const words[] = {"updated", "unchanged", "refused", "away"};
    return outcome < ISSUER_FEDERATION_OUTCOMES ? words[outcome] : "";
}

/* ---- rows ------------------------------------------------------------------------------------ */

enum att_rc federation_row(struct store_tx *tx, const char *name, struct store_federated *ret,
                           struct att_err *err)
{
    enum att_rc rc = store_get(tx, &store_federated, name, ret, NULL);
    if (rc && rc != ATT_E_NOTFOUND) {
        return att_fail(err, rc, "bundles of other trust domains cannot be read");
    }
    if (!rc) {
        return ATT_OK;
    }
    *ret = (struct store_federated){.sequence = -1, .hint_s = -1};
    bool ok = issuer_set(&ret->name, name) && issuer_set(&ret->bundle, "") &&
              issuer_set(&ret->sha256, "") && issuer_set(&ret->source, "") &&
              issuer_set(&ret->outcome, "") && issuer_set(&ret->reason, "") &&
              issuer_set(&ret->detail, "");
    return ok ? ATT_OK : att_fail(err, ATT_E_NOMEM, "no memory");
}

static enum att_rc read_kept(const char *text, struct federation_bundle *ret, struct att_err *err)
{
    att_autojson *json = issuer_json(text);
    return federation_bundle_from_json(json, ret, err);
}

/* ---- may it be theirs? ----------------------------------------------------------------------- */

/* Whoever holds a key of ours would speak for it, too. */
static enum att_rc check_own(struct take *t, struct store_tx *tx, struct att_err *err)
{
    struct federation_bundle own = {.sequence = -1};
    certs_autostack *roots = NULL;
    enum att_rc rc = issuer_jwt_public(tx, NULL, &own.keys, err);
    rc = rc ? rc
            : certs_bundle_parse(att_slice_str(issuer_generations_now(t->issuer)->bundle), &roots,
                                 err);
    own.roots = roots;
    const char *what = rc ? NULL : federation_bundle_shared(&own, t->bundle);
    json_decref(own.keys);
    return what ? issuer_refuse(err, ATT_E_DENIED, "bundleOwn",
                                "the bundle of %.80s has %s of this issuer's own trust domain",
                                t->name, what)
                : rc;
}

/* The bundle of a third trust domain is not this one's: the wrong URL. One that has some of its
 * keys is taken, and told: bundles are public, so that anybody could put into his own what another
 * one is about to publish, and have that one's refused from then on. Whose keys they are speaks for
 * both then, by the word of who took them over. */
static enum att_rc check_other(void *user, const void *record, struct att_err *err)
{
    struct take *t = user;
    const struct store_federated *row = record;
    struct federation_bundle other;
    if (strcmp(row->name, t->name) == 0 || !row->bundle[0]) {
        return ATT_OK;
    }
    enum att_rc rc = read_kept(row->bundle, &other, err);
    if (rc) {
        return rc;
    }
    bool same = federation_bundle_same(&other, t->bundle);
    if (!same && federation_bundle_shared(&other, t->bundle)) {
        snprintf(t->shares, sizeof t->shares, "%s", row->name);
    }
    federation_bundle_done(&other);
    return same ? issuer_refuse(err, ATT_E_DENIED, "bundleDomain",
                                "the bundle of %.80s is that of %.80s", t->name, row->name)
                : ATT_OK;
}

static enum att_rc check_sequence(const struct take *t, const struct store_federated *row,
                                  struct att_err *err)
{
    int64_t next = t->bundle->sequence;
    if (row->anew || next >= row->sequence) {
        return ATT_OK;
    }
    return next < 0 ? issuer_refuse(err, ATT_E_DENIED, "bundleSequence",
                                    "the bundle of %.80s has no spiffe_sequence, the one before "
                                    "had %lld",
                                    t->name, (long long)row->sequence)
                    : issuer_refuse(err, ATT_E_DENIED, "bundleSequence",
                                    "the bundle of %.80s has spiffe_sequence %lld, the one before "
                                    "had %lld",
                                    t->name, (long long)next, (long long)row->sequence);
}

/* ---- taking one ------------------------------------------------------------------------------ */

static enum att_rc record_change(const struct take *t, struct store_tx *tx,
                                 const struct store_federated *row, struct att_err *err)
{
    json_t *r = issuer_record("federation", "updated", NULL, NULL, t->name);
    json_object_set_new(r, "source", json_string(row->source));
    json_object_set_new(r, "sha256", json_string(row->sha256));
    json_object_set_new(r, "roots", json_integer(sk_X509_num(t->bundle->roots)));
    json_object_set_new(r, "keys", json_integer((json_int_t)json_array_size(t->bundle->keys)));
    if (row->sequence >= 0) {
        json_object_set_new(r, "sequence", json_integer(row->sequence));
    }
    if (row->anew) {
        json_object_set_new(r, "anew", json_true());
    }
    if (row->unrecorded) {
        json_object_set_new(r, "unrecorded", json_integer(row->unrecorded));
    }
    if (t->shares[0]) {
        json_object_set_new(r, "sharesKeysWith", json_string(t->shares));
    }
    return issuer_audit(tx, t->now, r, NULL, err);
}

/* A partner whose bundle is another one at each look fills no log: each record is paid for with a
 * quarter of an hour, RECORDS of them in advance. What is in force is recorded when it can be paid
 * for again, with how many there were. What an operator asked for is recorded at once; the file
 * that is in force meanwhile, again only when it can be paid for: each look may be the last that
 * finds no endpoint. */
static enum att_rc record_due(struct take *t, struct store_tx *tx, struct store_federated *row,
                              struct att_err *err)
{
    const int64_t most = t->now + RECORDS * (int64_t)RECORD_S;
    int64_t paid = row->records_paid_at;
    if (paid < t->now || paid > most) { /* or the clock went back */
        paid = t->now;
    }
    paid += RECORD_S;
    bool soon = paid > most;
    bool asked = row->anew && (t->changed || !t->from_file);
    bool none = !row->anew && !t->changed && !row->unrecorded;
    if (!asked && (soon || none)) {
        row->unrecorded += t->changed;
        return ATT_OK;
    }
    enum att_rc rc = record_change(t, tx, row, err);
    row->records_paid_at = soon ? most : paid;
    row->unrecorded = 0;
    return rc;
}

static bool fill(struct take *t, struct store_federated *row, const char *text, const char *sha256)
{
    const char *source = t->from_file ? STORE_FEDERATED_FILE : STORE_FEDERATED_ENDPOINT;
    row->sequence = t->bundle->sequence;
    row->hint_s = t->bundle->hint_s;
    row->failures = 0;
    row->fetched_at = t->from_file ? row->fetched_at : t->now;
    row->changed_at = t->changed ? t->now : row->changed_at;
    return issuer_set(&row->bundle, text) && issuer_set(&row->sha256, sha256) &&
           issuer_set(&row->source, source) && issuer_set(&row->reason, "") &&
           issuer_set(&row->detail, "") &&
           issuer_set(&row->outcome,
                      issuer_federation_word(t->changed ? ISSUER_FEDERATION_UPDATED
                                                        : ISSUER_FEDERATION_UNCHANGED));
}

static enum att_rc put(struct take *t, struct store_tx *tx, struct store_federated *row,
                       struct att_err *err)
{
    att_autojson *json = NULL;
    att_autobuf text = {0};
    uint8_t digest[ATT_SHA256_LEN];
    char sha256[2 * ATT_SHA256_LEN + 1];
    enum att_rc rc = federation_bundle_to_json(t->bundle, &json, err);
    rc = rc ? rc : att_json_dump(json, true, &text, err);
    if (rc) {
        return rc;
    }
    att_sha256(digest, att_buf_slice(&text));
    att_hex(sha256, ATT_SLICE_ARRAY(digest));
    const char *plain = att_buf_cstr(&text);
    t->changed = strcmp(row->sha256, sha256) != 0;
    if (!plain || !fill(t, row, plain, sha256)) {
        return att_fail(err, ATT_E_NOMEM, "no memory");
    }
    rc = record_due(t, tx, row, err);
    row->anew = t->from_file ? row->anew : 0; /* until the endpoint's is there */
    rc = rc ? rc : store_put(tx, &store_federated, row, err);
    return !rc && t->changed ? issuer_view_bump(tx, err) : rc;
}

enum att_rc federation_take(void *user, struct store_tx *tx, struct att_err *err)
{
    struct take *t = user;
    struct store_federated row = {0};
    t->changed = false;
    t->shares[0] = 0;
    enum att_rc rc = issuer_generations_check(t->issuer, tx, err);
    rc = rc ? rc : federation_row(tx, t->name, &row, err);
    t->overtaken =
        !rc && t->claimed_at &&
        (row.anew != t->anew || (row.tried_at != t->claimed_at && row.fetched_at != t->fetched_at));
    if (rc || t->overtaken) {
        store_record_done(&store_federated, &row);
        return rc;
    }
    rc = check_sequence(t, &row, err);
    rc = rc ? rc : check_own(t, tx, err);
    rc = rc ? rc : store_each(tx, &store_federated, NULL, NULL, check_other, t, err);
    rc = rc ? rc : put(t, tx, &row, err);
    store_record_done(&store_federated, &row);
    return rc;
}

/* ---- what is configured ---------------------------------------------------------------------- */

struct sync {
    struct issuer *issuer;
    const struct conf_federation *conf;
    json_t *was, *is; /* {name: how} */
    int64_t now;
    bool changed;
    char gone[CONF_FEDERATION_MAX * 4][256]; /* rows to delete, at most so many at once */
    size_t n_gone;
};

static json_t *configured(const struct conf_federation *conf)
{
    json_t *all = json_object();
    for (unsigned i = 0; conf && i < conf->n_trust_domains; i++) {
        const struct conf_federated *d = &conf->trust_domains[i];
        json_object_set_new(all, d->name,
                            json_pack("{s:s, s:s, s:s*}", "url", d->url, "profile", d->profile,
                                      "spiffeId", d->spiffe_id));
    }
    return all;
}

static enum att_rc see_row(void *user, const void *record, struct att_err *err)
{
    struct sync *s = user;
    const struct store_federated *row = record;
    (void)err;
    if (!conf_federated(s->conf, row->name) && s->n_gone < sizeof s->gone / sizeof s->gone[0]) {
        snprintf(s->gone[s->n_gone++], sizeof s->gone[0], "%s", row->name);
    }
    return ATT_OK;
}

static enum att_rc record_config(struct sync *s, struct store_tx *tx, const char *outcome,
                                 const char *name, const json_t *how, struct att_err *err)
{
    json_t *r = issuer_record("federation", outcome, NULL, NULL, name);
    json_object_update_missing(r, (json_t *)(uintptr_t)how);
    s->changed = true;
    return issuer_audit(tx, s->now, r, NULL, err);
}

static enum att_rc record_changes(struct sync *s, struct store_tx *tx, struct att_err *err)
{
    const char *name;
    json_t *how;
    enum att_rc rc = ATT_OK;
    json_object_foreach(s->is, name, how)
    {
        if (!rc && !json_equal(how, json_object_get(s->was, name))) {
            rc = record_config(s, tx, "configured", name, how, err);
        }
    }
    json_object_foreach(s->was, name, how)
    {
        if (!rc && !json_object_get(s->is, name)) {
            rc = record_config(s, tx, "removed", name, how, err);
        }
    }
    return rc;
}

static enum att_rc sync_tx(void *user, struct store_tx *tx, struct att_err *err)
{
    struct sync *s = user;
    att_autobuf was = {0};
    s->changed = false;
    s->n_gone = 0;
    enum att_rc rc = store_meta_get(tx, META, &was, NULL);
    if (rc && rc != ATT_E_NOTFOUND) {
        return att_fail(err, rc, "the store cannot be read");
    }
    const char *text = was.len ? att_buf_cstr(&was) : "";
    json_decref(s->was);
    s->was = issuer_json(text ? text : "");
    rc = record_changes(s, tx, err);
    rc = rc ? rc : store_each(tx, &store_federated, NULL, NULL, see_row, s, err);
    for (size_t i = 0; !rc && i < s->n_gone; i++) {
        rc = store_delete(tx, &store_federated, s->gone[i], err);
    }
    if (!rc && s->changed) {
        issuer_autofree *now = issuer_json_text(s->is);
        rc = now ? store_meta_set(tx, META, att_slice_str(now), err)
                 : att_fail(err, ATT_E_NOMEM, "no memory");
        rc = rc ? rc : issuer_view_bump(tx, err);
    }
    return rc;
}

static enum att_rc has_change(void *user, struct store_tx *tx, struct att_err *err)
{
    struct sync *s = user;
    att_autobuf was = {0};
    enum att_rc rc = store_meta_get(tx, META, &was, NULL);
    if (rc && rc != ATT_E_NOTFOUND) {
        return att_fail(err, rc, "the store cannot be read");
    }
    const char *text = was.len ? att_buf_cstr(&was) : "";
    att_autojson *before = issuer_json(text ? text : "");
    s->n_gone = 0;
    /* Also one that another issuer of this store, not reloaded yet, has written since. */
    rc = store_each(tx, &store_federated, NULL, NULL, see_row, s, err);
    s->changed = !json_equal(before, s->is) || s->n_gone > 0;
    return rc;
}

enum att_rc issuer_federation_sync(struct issuer *issuer, struct att_err *err)
{
    issuer_autosettings *settings = issuer_settings_get(issuer);
    struct sync *s = calloc(1, sizeof *s);
    if (!s) {
        return att_fail(err, ATT_E_NOMEM, "federation: no memory");
    }
    s->issuer = issuer;
    s->conf = settings->conf->federation;
    s->now = issuer->clock();
    s->is = configured(s->conf);
    enum att_rc rc = store_run(issuer->store, false, has_change, s, err);
    if (!rc && s->changed) {
        rc = store_run(issuer->store, true, sync_tx, s, err);
        if (!rc) {
            issuer_view_wake(issuer);
        }
    }
    json_decref(s->was);
    json_decref(s->is);
    free(s);
    return rc;
}

/* ---- the view -------------------------------------------------------------------------------- */

enum att_rc issuer_federation_view(const struct conf_federation *conf, struct store_tx *tx,
                                   const json_t *names, json_t **ret_list, struct att_err *err)
{
    att_autojson *list = json_array();
    enum att_rc rc = list ? ATT_OK : att_fail(err, ATT_E_NOMEM, "host view: no memory");
    for (unsigned i = 0; !rc && conf && i < conf->n_trust_domains; i++) {
        const char *name = conf->trust_domains[i].name;
        struct store_federated row = {0};
        if (!json_object_get(names, name)) {
            continue;
        }
        rc = federation_row(tx, name, &row, err);
        if (!rc && row.bundle[0]) {
            json_t *one = issuer_json(row.bundle);
            json_object_set_new(one, "trustDomain", json_string(name));
            rc =
                json_array_append_new(list, one) ? att_fail(err, ATT_E_NOMEM, "no memory") : ATT_OK;
        }
        store_record_done(&store_federated, &row);
    }
    if (!rc) {
        *ret_list = list;
        list = NULL;
    }
    return rc;
}
