/* Which issuer can use which key for tokens: the rows are the store's, the keys are where each
 * issuer finds them. A key that an issuer cannot use is said by name, and signs for nobody as long
 * as the one before it can. */
#include "provision/issuer/jwt_internal.h"

#include "provision/issuer/generations.h"
#include "provision/issuer/signer.h"

#include <stdio.h>
#include <string.h>

#define SOON_S       30 /* so long before its time a key is asked for */
#define WAIT_LEAST_S 60
#define WAIT_MOST_S  3600
#define TRY_AGAIN_MS 3000
#define OFF          "off" /* an issuer whose configuration has no section jwt */

/* ---- this issuer ----------------------------------------------------------------------------- */

static void take_seen(struct issuer_jwt *jwt, const struct jwt_rows *rows,
                      const struct jwt_seen *seen)
{
    pthread_mutex_lock(&jwt->lock);
    memcpy(jwt->seen, seen, sizeof jwt->seen);
    jwt->n_seen = rows->n;
    pthread_mutex_unlock(&jwt->lock);
}

/* Of this key; NULL: it was not looked at yet. */
static const struct jwt_seen *find(const struct jwt_seen *seen, size_t n, const char *kid)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(seen[i].kid, kid) == 0) {
            return &seen[i];
        }
    }
    return NULL;
}

static void try_one(struct issuer *issuer, const struct store_jwt_key *row, struct jwt_seen *ret)
{
    struct att_err why = {0};
    EVP_PKEY *key = NULL;
    enum att_rc rc = jwt_key_open(issuer, row, &key, &why);
    rc = rc ? rc : issuer_key_try(key, &why);
    EVP_PKEY_free(key);
    snprintf(ret->lacks, sizeof ret->lacks, "%.190s", rc ? why.msg : "");
}

static void say(const struct jwt_seen *before, const struct jwt_seen *is)
{
    if (is->lacks[0] && (!before || !before->lacks[0])) {
        att_log(ATT_ERROR, "jwt.keyAway", ATT_S("kid", is->kid), ATT_S("reason", "jwtKeyMissing"),
                ATT_S("message", is->lacks));
    } else if (!is->lacks[0] && before && before->lacks[0]) {
        att_log(ATT_INFO, "jwt.keyUsable", ATT_S("kid", is->kid));
    }
}

static enum att_rc read_all(void *user, struct store_tx *tx, struct att_err *err)
{
    struct jwt_rows *rows = user;
    jwt_rows_done(rows);
    return jwt_rows_read(tx, rows, err);
}

/* seen is written by this thread alone: it may be read without the lock here. */
static bool look_at(struct issuer *issuer, const struct jwt_rows *rows)
{
    struct issuer_jwt *jwt = issuer->jwt;
    struct jwt_seen seen[ISSUER_JWT_KEYS_MAX] = {0};
    bool again = att_boottime_ms() >= jwt->look_ms, changed = rows->n != jwt->n_seen;
    if (again) {
        jwt->look_ms = att_boottime_ms() + TRY_AGAIN_MS;
    }
    for (size_t i = 0; i < rows->n; i++) {
        const struct jwt_seen *before = find(jwt->seen, jwt->n_seen, rows->v[i].kid);
        if (before && (!before->lacks[0] || !again)) {
            seen[i] = *before;
            continue;
        }
        snprintf(seen[i].kid, sizeof seen[i].kid, "%s", rows->v[i].kid);
        try_one(issuer, &rows->v[i], &seen[i]);
        say(before, &seen[i]);
        changed = changed || !before || (before->lacks[0] == 0) != (seen[i].lacks[0] == 0);
    }
    take_seen(jwt, rows, seen);
    return changed;
}

bool issuer_jwt_look(struct issuer *issuer)
{
    struct jwt_rows rows = {.n = 0};
    struct att_err err = {0};
    if (!issuer->jwt || store_run(issuer->store, false, read_all, &rows, &err)) {
        return false; /* the store's health is told elsewhere */
    }
    bool changed = look_at(issuer, &rows);
    jwt_rows_done(&rows);
    return changed;
}

void issuer_jwt_usable(struct issuer *issuer, struct att_buf *ret)
{
    struct issuer_jwt *jwt = issuer->jwt;
    issuer_autosettings *settings = issuer_settings_get(issuer);
    if (!jwt || !settings->conf->jwt) {
        att_buf_put_str(ret, OFF);
        return;
    }
    pthread_mutex_lock(&jwt->lock);
    for (size_t i = 0; i < jwt->n_seen; i++) {
        if (!jwt->seen[i].lacks[0]) {
            att_buf_put_str(ret, ret->len ? " " : "");
            att_buf_put_str(ret, jwt->seen[i].kid);
        }
    }
    pthread_mutex_unlock(&jwt->lock);
}

/* ret_lacks: "" where it can be used here. False: it was not looked at yet. */
static bool seen_of(struct issuer_jwt *jwt, const char *kid, char ret_lacks[200])
{
    pthread_mutex_lock(&jwt->lock);
    const struct jwt_seen *one = find(jwt->seen, jwt->n_seen, kid);
    snprintf(ret_lacks, 200, "%s", one ? one->lacks : "");
    pthread_mutex_unlock(&jwt->lock);
    return one != NULL;
}

void jwt_signing_seen(struct issuer *issuer, const struct store_jwt_key *row,
                      const struct jwt_others *others)
{
    char lacks[200] = "";
    bool known = row && seen_of(issuer->jwt, row->kid, lacks);
    pthread_mutex_lock(&issuer->jwt->lock);
    issuer->jwt->elsewhere = known && lacks[0] && others->has;
    pthread_mutex_unlock(&issuer->jwt->lock);
}

bool issuer_jwt_elsewhere(struct issuer *issuer)
{
    if (!issuer->jwt) {
        return false;
    }
    pthread_mutex_lock(&issuer->jwt->lock);
    bool elsewhere = issuer->jwt->elsewhere;
    pthread_mutex_unlock(&issuer->jwt->lock);
    return elsewhere;
}

/* ---- the others ------------------------------------------------------------------------------ */

static bool names(const char *kids, const char *kid)
{
    size_t len = strlen(kid);
    for (const char *at = kids; len && (at = strstr(at, kid)); at += len) {
        if ((at == kids || at[-1] == ' ') && (at[len] == 0 || at[len] == ' ')) {
            return true;
        }
    }
    return false;
}

static enum att_rc see_other(void *user, const void *record, struct att_err *err)
{
    struct jwt_others *o = user;
    const struct store_issuer *row = record;
    (void)err;
    if (row->seen_at + ISSUER_LIVE_S < o->now || strcmp(row->id, o->self) == 0 ||
        (o->name && strcmp(row->name, o->name) == 0)) {
        return ATT_OK;
    }
    o->there = true;
    if (names(row->jwt, o->kid)) {
        o->has = true;
    } else if (strcmp(row->jwt, OFF) != 0) {
        o->lacks = true;
        snprintf(o->behind, sizeof o->behind, "%.150s", row->name);
    }
    return ATT_OK;
}

enum att_rc jwt_others_read(struct store_tx *tx, const char *kid, struct jwt_others *others,
                            struct att_err *err)
{
    others->kid = kid;
    return store_each(tx, &store_issuers, NULL, NULL, see_other, others, err);
}

/* ---- a key that not everybody has ------------------------------------------------------------ */

bool jwt_rows_soon(const struct jwt_rows *rows, int64_t now)
{
    const struct store_jwt_key *last = rows->n > 1 ? &rows->v[rows->n - 1] : NULL;
    return last && last->active_at > now && last->active_at <= now + SOON_S;
}

struct postponing {
    struct issuer *issuer;
    const struct conf_jwt *conf;
    int64_t now;
    char kid[ACME_THUMBPRINT_LEN];
    char behind[160]; /* "": all have it */
};

static int64_t wait_of(const struct conf_jwt *conf)
{
    int64_t wait = conf->publish_wait_s;
    return wait < WAIT_LEAST_S ? WAIT_LEAST_S : wait > WAIT_MOST_S ? WAIT_MOST_S : wait;
}

static enum att_rc put_off(struct postponing *p, struct store_tx *tx, struct store_jwt_key *row,
                           struct att_err *err)
{
    json_t *r = issuer_record("jwtKey", "postponed", "jwtIssuerBehind", p->behind, row->kid);
    row->active_at = p->now + wait_of(p->conf);
    json_object_set_new(r, "activeAt", issuer_time_json(row->active_at));
    enum att_rc rc = issuer_audit(tx, p->now, r, NULL, err);
    return rc ? rc : store_put(tx, &store_jwt_keys, row, err);
}

static enum att_rc postpone(void *user, struct store_tx *tx, struct att_err *err)
{
    struct postponing *p = user;
    struct jwt_rows rows = {.n = 0};
    struct jwt_others others = {.now = p->now, .self = p->issuer->ca->self};
    char lacks[200] = "";
    p->behind[0] = 0;
    enum att_rc rc = jwt_rows_read(tx, &rows, err);
    struct store_jwt_key *last = !rc && jwt_rows_soon(&rows, p->now) ? &rows.v[rows.n - 1] : NULL;
    if (last && store_shared(p->issuer->store)) {
        rc = jwt_others_read(tx, last->kid, &others, err);
    }
    if (last && !rc) {
        bool here = seen_of(p->issuer->jwt, last->kid, lacks) && !lacks[0];
        snprintf(p->kid, sizeof p->kid, "%s", last->kid);
        snprintf(p->behind, sizeof p->behind, "%s",
                 others.lacks ? others.behind
                 : here       ? ""
                 : lacks[0]   ? "this issuer cannot use it"
                              : "this issuer has not looked yet");
        rc = p->behind[0] ? put_off(p, tx, last, err) : ATT_OK;
    }
    jwt_rows_done(&rows);
    return rc;
}

enum att_rc jwt_keys_postpone(struct issuer *issuer, const struct conf_jwt *conf, int64_t now,
                              struct att_err *err)
{
    struct postponing p = {.issuer = issuer, .conf = conf, .now = now};
    if (!store_shared(issuer->store)) {
        return ATT_OK; /* the next one is the only issuer's own */
    }
    enum att_rc rc = store_run(issuer->store, true, postpone, &p, err);
    if (!rc && p.behind[0]) {
        att_log(ATT_ERROR, "jwt.postponed", ATT_S("kid", p.kid), ATT_S("reason", "jwtIssuerBehind"),
                ATT_S("issuer", p.behind), ATT_N("signsInS", wait_of(conf)));
    }
    return rc;
}

/* ---- for ca.jwt ------------------------------------------------------------------------------ */

enum att_rc issuer_jwt_tell(struct issuer *issuer, struct store_tx *tx, json_t *keys,
                            struct att_err *err)
{
    enum att_rc rc = ATT_OK;
    json_t *one;
    size_t i;
    json_array_foreach(keys, i, one)
    {
        const char *kid = issuer_string(one, "kid");
        struct jwt_others others = {.now = issuer->clock(), .self = issuer->ca->self};
        char lacks[200] = "";
        if (issuer->jwt && seen_of(issuer->jwt, kid, lacks) && lacks[0]) {
            json_object_set_new(one, "lacks", json_string(lacks));
        }
        if (!rc && store_shared(issuer->store)) {
            rc = jwt_others_read(tx, kid, &others, err);
        }
        if (others.lacks) {
            json_object_set_new(one, "issuerBehind", json_string(others.behind));
        }
    }
    return rc;
}
