/* The keys that sign tokens: rows that all issuers of a store share, and those of them that are
 * open here. */
#include "provision/issuer/jwt_internal.h"

#include "attestd/base/io.h"
#include "certs/key.h"
#include "certs/oid.h"
#include "provision/issuer/ca_files.h"
#include "provision/issuer/admin.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FOLDER   "jwt"
#define IN_FILE  "file:"
#define PAUSE_S  60   /* between tries to make a key, when one failed */
#define ORPHAN_S 3600 /* a file that no row has named for so long is nobody's */

/* ---- rows ------------------------------------------------------------------------------------ */

void jwt_rows_done(struct jwt_rows *rows)
{
    while (rows->n > 0) {
        store_record_done(&store_jwt_keys, &rows->v[--rows->n]);
    }
}

/* In the order in which they sign. */
static enum att_rc take_row(void *user, const void *record, struct att_err *err)
{
    struct jwt_rows *rows = user;
    const struct store_jwt_key *from = record;
    if (rows->n == ISSUER_JWT_KEYS_MAX) {
        return att_fail(err, ATT_E_LIMIT, "more than %d keys for tokens", ISSUER_JWT_KEYS_MAX);
    }
    struct store_jwt_key copy = {.created_at = from->created_at, .active_at = from->active_at};
    if (!issuer_set(&copy.kid, from->kid) || !issuer_set(&copy.keyref, from->keyref) ||
        !issuer_set(&copy.jwk, from->jwk)) {
        store_record_done(&store_jwt_keys, &copy);
        return att_fail(err, ATT_E_NOMEM, "no memory");
    }
    size_t at = rows->n++;
    for (; at > 0 && rows->v[at - 1].active_at > copy.active_at; at--) {
        rows->v[at] = rows->v[at - 1];
    }
    rows->v[at] = copy;
    return ATT_OK;
}

enum att_rc jwt_rows_read(struct store_tx *tx, struct jwt_rows *ret, struct att_err *err)
{
    enum att_rc rc = store_each(tx, &store_jwt_keys, NULL, NULL, take_row, ret, err);
    if (rc) {
        jwt_rows_done(ret);
    }
    return rc;
}

/* The last whose time has come. After a clock that went back, the first: better a key that was
 * published than none. */
const struct store_jwt_key *jwt_rows_signing(const struct jwt_rows *rows, int64_t now)
{
    const struct store_jwt_key *found = rows->n ? &rows->v[0] : NULL;
    for (size_t i = 1; i < rows->n && rows->v[i].active_at <= now; i++) {
        found = &rows->v[i];
    }
    return found;
}

/* ---- open keys ------------------------------------------------------------------------------- */

static void forget_open(struct issuer_jwt *jwt, const char *kid)
{
    pthread_mutex_lock(&jwt->lock);
    for (size_t i = 0; i < ISSUER_JWT_KEYS_MAX; i++) {
        if (!kid || strcmp(jwt->open[i].kid, kid) == 0) {
            EVP_PKEY_free(jwt->open[i].key);
            jwt->open[i].key = NULL;
            jwt->open[i].kid[0] = 0;
        }
    }
    pthread_mutex_unlock(&jwt->lock);
}

const struct store_jwt_key *jwt_rows_find(const struct jwt_rows *rows, const char *kid)
{
    for (size_t i = 0; i < rows->n; i++) {
        if (strcmp(rows->v[i].kid, kid) == 0) {
            return &rows->v[i];
        }
    }
    return NULL;
}

/* What another issuer took away, too. */
static void prune_open(struct issuer_jwt *jwt, const struct jwt_rows *rows)
{
    pthread_mutex_lock(&jwt->lock);
    for (size_t i = 0; i < ISSUER_JWT_KEYS_MAX; i++) {
        if (jwt->open[i].key && !jwt_rows_find(rows, jwt->open[i].kid)) {
            EVP_PKEY_free(jwt->open[i].key);
            jwt->open[i].key = NULL;
            jwt->open[i].kid[0] = 0;
        }
    }
    pthread_mutex_unlock(&jwt->lock);
}

/* ret_path: of a key in a file; false for one in an HSM. */
static bool path_of(const struct issuer *issuer, const char *keyref, char ret_path[ISSUER_CA_PATH])
{
    char name[ISSUER_KEYREF_MAX + 8];
    if (strncmp(keyref, IN_FILE, sizeof IN_FILE - 1) != 0) {
        return false;
    }
    snprintf(name, sizeof name, "%s.key", keyref + sizeof IN_FILE - 1);
    issuer_ca_path(ret_path, issuer->state_dir, name);
    return true;
}

void jwt_file_remove(const struct issuer *issuer, const char *keyref)
{
    char path[ISSUER_CA_PATH];
    if (path_of(issuer, keyref, path)) {
        (void)unlink(path);
    }
}

static bool file_lost(const struct issuer *issuer, const struct store_jwt_key *row)
{
    char path[ISSUER_CA_PATH];
    return path_of(issuer, row->keyref, path) && access(path, F_OK) != 0 && errno == ENOENT;
}

static bool named(const struct issuer *issuer, const struct jwt_rows *rows, const char *path)
{
    char own[ISSUER_CA_PATH];
    for (size_t i = 0; i < rows->n; i++) {
        if (path_of(issuer, rows->v[i].keyref, own) && strcmp(own, path) == 0) {
            return true;
        }
    }
    return false;
}

/* Copies of keys that are no more, here by a copied folder or a making that was interrupted. */
static void prune_files(const struct issuer *issuer, const struct jwt_rows *rows, int64_t now)
{
    char folder[ISSUER_CA_PATH], path[ISSUER_CA_PATH + NAME_MAX + 2];
    issuer_ca_path(folder, issuer->state_dir, FOLDER);
    DIR *dir = opendir(folder);
    for (const struct dirent *at = dir ? readdir(dir) : NULL; at; at = readdir(dir)) {
        struct stat st;
        size_t len = strlen(at->d_name);
        bool key = len > 4 && strcmp(at->d_name + len - 4, ".key") == 0;
        int n = snprintf(path, sizeof path, "%s/%s", folder, at->d_name);
        if (key && n > 0 && (size_t)n < sizeof path && !named(issuer, rows, path) &&
            stat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_mtime + ORPHAN_S < now &&
            unlink(path) == 0) {
            att_log(ATT_INFO, "jwt.fileGone", ATT_S("file", path));
        }
    }
    if (dir) {
        (void)closedir(dir);
    }
}

static EVP_PKEY *find_open(struct issuer_jwt *jwt, const char *kid)
{
    EVP_PKEY *key = NULL;
    pthread_mutex_lock(&jwt->lock);
    for (size_t i = 0; i < ISSUER_JWT_KEYS_MAX && !key; i++) {
        if (jwt->open[i].key && strcmp(jwt->open[i].kid, kid) == 0 &&
            EVP_PKEY_up_ref(jwt->open[i].key) == 1) {
            key = jwt->open[i].key;
        }
    }
    pthread_mutex_unlock(&jwt->lock);
    return key;
}

static void keep_open(struct issuer_jwt *jwt, const char *kid, EVP_PKEY *key)
{
    pthread_mutex_lock(&jwt->lock);
    for (size_t i = 0; i < ISSUER_JWT_KEYS_MAX; i++) {
        if (!jwt->open[i].key && EVP_PKEY_up_ref(key) == 1) {
            jwt->open[i].key = key;
            snprintf(jwt->open[i].kid, sizeof jwt->open[i].kid, "%s", kid);
            break;
        }
    }
    pthread_mutex_unlock(&jwt->lock);
}

/* Keys are found by a certificate's public half elsewhere; here the row has it. */
static enum att_rc carrier(const char *jwk_text, X509 **ret_cert, struct att_err *err)
{
    att_autobuf spki = {0};
    certs_autokey *pub = NULL;
    att_autojson *jwk = issuer_json(jwk_text);
    enum att_rc rc = acme_jwk_to_spki(jwk, &spki, err);
    if (!rc) {
        rc = certs_key_from_spki(att_buf_slice(&spki), &pub, err);
    }
    if (rc) {
        return rc;
    }
    *ret_cert = X509_new();
    return *ret_cert && X509_set_pubkey(*ret_cert, pub) == 1
               ? ATT_OK
               : att_fail_openssl(err, ATT_E_NOMEM, "a key for tokens");
}

enum att_rc jwt_key_open(struct issuer *issuer, const struct store_jwt_key *row, EVP_PKEY **ret_key,
                         struct att_err *err)
{
    struct att_err why = {0};
    X509 *cert = NULL;
    *ret_key = issuer->jwt ? find_open(issuer->jwt, row->kid) : NULL;
    if (*ret_key) {
        return ATT_OK;
    }
    enum att_rc rc = carrier(row->jwk, &cert, &why);
    if (!rc) {
        rc = issuer_key_open(issuer->ca->hsm, issuer->state_dir, row->keyref, cert, ret_key, &why);
    }
    X509_free(cert);
    if (rc) {
        rc = att_fail(err, ATT_E_RETRY, "the key %.43s of tokens cannot be used here: %.200s",
                      row->kid, why.msg);
        att_err_reason(err, "jwtKeyMissing");
        return rc;
    }
    if (issuer->jwt) {
        keep_open(issuer->jwt, row->kid, *ret_key);
    }
    return ATT_OK;
}

enum att_rc issuer_jwt_signer(struct issuer *issuer, struct store_tx *tx, int64_t now,
                              char ret_kid[ACME_THUMBPRINT_LEN], EVP_PKEY **ret_key,
                              struct att_err *err)
{
    struct jwt_rows rows = {.n = 0};
    enum att_rc rc = jwt_rows_read(tx, &rows, err);
    const struct store_jwt_key *row = rc ? NULL : jwt_rows_signing(&rows, now);
    if (!rc && !row) {
        rc = att_fail(err, ATT_E_RETRY, "there is no key for tokens yet");
        att_err_reason(err, "jwtKeyMissing");
    }
    if (!rc) {
        rc = jwt_key_open(issuer, row, ret_key, err);
    }
    if (!rc) {
        snprintf(ret_kid, ACME_THUMBPRINT_LEN, "%s", row->kid);
    }
    jwt_rows_done(&rows);
    return rc;
}

enum att_rc issuer_jwt_public(struct store_tx *tx, const char *use, json_t **ret_keys,
                              struct att_err *err)
{
    struct jwt_rows rows = {.n = 0};
    enum att_rc rc = jwt_rows_read(tx, &rows, err);
    json_t *list = rc ? NULL : json_array();
    for (size_t i = 0; i < rows.n; i++) {
        json_t *jwk = issuer_json(rows.v[i].jwk);
        json_object_set_new(jwk, "kid", json_string(rows.v[i].kid));
        json_object_set_new(jwk, "alg", json_string("ES256"));
        if (use) {
            json_object_set_new(jwk, "use", json_string(use));
        }
        json_array_append_new(list, jwk);
    }
    jwt_rows_done(&rows);
    if (!rc && !list) {
        rc = att_fail(err, ATT_E_NOMEM, "no memory");
    }
    if (!rc) {
        *ret_keys = list;
    }
    return rc;
}

/* ---- making ---------------------------------------------------------------------------------- */

struct making {
    struct issuer *issuer;
    const struct conf_jwt *conf;
    const struct issuer_admin_call *call; /* an operator's; NULL: it is due, or nobody's */
    bool by_hand, withdraw;
    char lost[ACME_THUMBPRINT_LEN]; /* the key that signs and whose file is gone, or "" */
    int64_t now;
    struct store_jwt_key row;
    struct jwt_rows gone; /* rows that were removed */
    bool made;
};

static enum att_rc describe(struct making *m, EVP_PKEY *key, const char *ref, struct att_err *err)
{
    att_autobuf spki = {0};
    char kid[ACME_THUMBPRINT_LEN];
    att_autojson *jwk = NULL;
    enum att_rc rc = certs_key_spki(key, &spki, err);
    if (!rc) {
        rc = acme_spki_to_jwk(att_buf_slice(&spki), &jwk, err);
    }
    if (!rc) {
        rc = acme_jwk_thumbprint(jwk, kid, err);
    }
    issuer_autofree *text = rc ? NULL : issuer_json_text(jwk);
    if (!rc && !(text && issuer_set(&m->row.kid, kid) && issuer_set(&m->row.jwk, text) &&
                 issuer_set(&m->row.keyref, ref))) {
        rc = att_fail(err, ATT_E_NOMEM, "no memory");
    }
    return rc;
}

/* Before any row speaks of it: what is interrupted leaves a key that nobody uses. */
static enum att_rc make_key(struct making *m, struct att_err *err)
{
    char folder[ISSUER_CA_PATH], name[48], ref[ISSUER_KEYREF_MAX], id[ISSUER_ID_LEN];
    certs_autokey *key = NULL;
    struct issuer *issuer = m->issuer;
    issuer_ca_path(folder, issuer->state_dir, FOLDER);
    enum att_rc rc = issuer_new_id(id, err);
    if (!rc && !m->conf->keys_hsm) {
        rc = att_io_mkdirs(folder, 0700, err);
    }
    if (!rc) {
        snprintf(name, sizeof name, FOLDER "/%s", id);
        rc = issuer_key_make(issuer->ca->hsm, m->conf->keys_hsm, issuer->state_dir, name, ref, &key,
                             err);
    }
    if (!rc) {
        rc = describe(m, key, ref, err);
    }
    if (!rc) {
        keep_open(issuer->jwt, m->row.kid, key);
    }
    return rc;
}

static enum att_rc record(struct making *m, struct store_tx *tx, struct att_err *err)
{
    json_t *r =
        issuer_record("jwtKey", m->by_hand ? "replaced" : "published", NULL, NULL, m->row.kid);
    json_object_set_new(r, "activeAt", issuer_time_json(m->row.active_at));
    if (m->lost[0]) {
        json_object_set_new(r, "lost", json_string(m->lost));
    }
    if (m->by_hand) {
        json_object_set_new(r, "withdraw", json_boolean(m->withdraw));
        issuer_who_put(r, m->call ? m->call->who : NULL);
    }
    return issuer_audit(tx, m->now, r, NULL, err);
}

/* When the next key is to be made; 0: now. */
static int64_t due_at(const struct jwt_rows *rows, const struct conf_jwt *conf)
{
    return rows->n ? rows->v[rows->n - 1].active_at + conf->rotate_s - conf->publish_wait_s : 0;
}

static enum att_rc remove_row(struct making *m, struct store_tx *tx,
                              const struct store_jwt_key *row, struct att_err *err)
{
    const char *why = m->withdraw ? "withdrawn" : m->by_hand ? "unused" : "ended";
    json_t *r = issuer_record("jwtKey", "removed", why, NULL, row->kid);
    json_object_set_new(r, "activeAt", issuer_time_json(row->active_at));
    if (m->by_hand) {
        issuer_who_put(r, m->call ? m->call->who : NULL);
    }
    enum att_rc rc = issuer_audit(tx, m->now, r, NULL, err);
    rc = rc ? rc : store_delete(tx, &store_jwt_keys, row->kid, err);
    return rc ? rc : take_row(&m->gone, row, err);
}

/* The key that signs now is in a file that is not here: of a folder that was lost, or of a backup
 * that is older than it. No issuer takes the key of one that has it out of use, and none makes more
 * than one while tokens of the last one live. */
static bool lost(const struct issuer *issuer, const struct jwt_rows *rows,
                 const struct jwt_others *others, int64_t now)
{
    const struct store_jwt_key *row = jwt_rows_signing(rows, now);
    return row && file_lost(issuer, row) && !others->has &&
           rows->v[rows->n - 1].created_at + ISSUER_JWT_LINGER_S <= now;
}

/* A key in a file that signs at once: the other issuers would mint nothing from then on. A key that
 * was stolen is worth that. */
static enum att_rc check_others(const struct making *m, struct store_tx *tx, struct att_err *err)
{
    struct jwt_others others = {.now = m->now, .self = m->issuer->ca->self};
    if (!m->by_hand || m->withdraw || m->conf->keys_hsm || !store_shared(m->issuer->store)) {
        return ATT_OK;
    }
    enum att_rc rc = jwt_others_read(tx, m->row.kid, &others, err);
    return rc || !others.lacks ? rc
                               : issuer_refuse(err, ATT_E_CONFLICT, "jwtIssuerBehind",
                                               "issuer %s would not have the key, which is made in "
                                               "a file here (jwt.keys: file)",
                                               others.behind);
}

static bool wanted(const struct making *m, const struct jwt_rows *rows)
{
    const struct store_jwt_key *row = jwt_rows_signing(rows, m->now);
    return m->by_hand || due_at(rows, m->conf) <= m->now ||
           (m->lost[0] && row && strcmp(row->kid, m->lost) == 0);
}

/* Another issuer, or another thread, may have done it meanwhile: then this key stays unused. */
static enum att_rc add_key(void *user, struct store_tx *tx, struct att_err *err)
{
    struct making *m = user;
    struct jwt_rows rows = {.n = 0};
    m->made = false;
    jwt_rows_done(&m->gone);
    enum att_rc rc = m->call ? issuer_approval_holds(m->call, tx, err) : ATT_OK;
    rc = rc ? rc : jwt_rows_read(tx, &rows, err);
    rc = rc ? rc : check_others(m, tx, err);
    if (!rc && wanted(m, &rows)) {
        bool at_once = rows.n == 0 || m->by_hand || m->lost[0];
        m->row.created_at = m->now;
        m->row.active_at = at_once ? m->now : m->now + m->conf->publish_wait_s;
        for (size_t i = 0; i < rows.n && !m->withdraw; i++) { /* one signs at a time */
            if (rows.v[i].active_at == m->row.active_at) {
                m->row.active_at++;
            }
        }
        for (size_t i = 0; i < rows.n && !rc && m->by_hand; i++) {
            if (m->withdraw || rows.v[i].active_at > m->now) {
                rc = remove_row(m, tx, &rows.v[i], err); /* one that has not signed yet goes, too */
            }
        }
        if (!rc && rows.n - m->gone.n >= ISSUER_JWT_KEYS_MAX) {
            rc = issuer_refuse(err, ATT_E_CONFLICT, "jwtKeysMany",
                               "%zu keys are published already; wait, or withdraw them", rows.n);
        }
        rc = rc ? rc : store_insert(tx, &store_jwt_keys, &m->row, err);
        rc = rc ? rc : record(m, tx, err);
        rc = rc ? rc : issuer_view_bump(tx, err);
        m->made = !rc;
    }
    jwt_rows_done(&rows);
    return rc;
}

/* What is in a file is destroyed with its row; an HSM keeps its own. Other issuers' copies go with
 * their next tick. */
static void destroy(struct making *m)
{
    for (size_t i = 0; i < m->gone.n; i++) {
        const struct store_jwt_key *row = &m->gone.v[i];
        forget_open(m->issuer->jwt, row->kid);
        jwt_file_remove(m->issuer, row->keyref);
        att_log(ATT_INFO, "jwt.keyGone", ATT_S("kid", row->kid));
    }
    jwt_rows_done(&m->gone);
}

static enum att_rc make(struct making *m, struct att_err *err)
{
    enum att_rc rc = make_key(m, err);
    if (!rc) {
        rc = store_run(m->issuer->store, true, add_key, m, err);
    }
    if (!rc && m->made) {
        destroy(m);
        issuer_view_wake(m->issuer);
        att_log(ATT_INFO, "jwt.keyMade", ATT_S("kid", m->row.kid),
                ATT_N("signsInS", m->row.active_at - m->now));
    } else if (m->row.keyref && (!rc || rc == ATT_E_CONFLICT)) {
        /* Nothing was committed: this key is nobody's. */
        forget_open(m->issuer->jwt, m->row.kid);
        jwt_file_remove(m->issuer, m->row.keyref);
    }
    jwt_rows_done(&m->gone);
    return rc;
}

/* ---- the clock ------------------------------------------------------------------------------- */

struct look {
    struct making m;
    struct jwt_rows rows;
    bool due, stale, soon;
    struct jwt_others others; /* of the key that signs */
};

/* A key that the next one has followed for so long has no token left. */
static bool over(const struct jwt_rows *rows, size_t i, int64_t now)
{
    return i + 1 < rows->n && rows->v[i + 1].active_at + ISSUER_JWT_LINGER_S <= now;
}

static enum att_rc look(void *user, struct store_tx *tx, struct att_err *err)
{
    struct look *l = user;
    jwt_rows_done(&l->rows);
    enum att_rc rc = jwt_rows_read(tx, &l->rows, err);
    l->due = !rc && due_at(&l->rows, l->m.conf) <= l->m.now;
    l->stale = !rc && over(&l->rows, 0, l->m.now);
    l->soon = !rc && jwt_rows_soon(&l->rows, l->m.now);
    const struct store_jwt_key *row = rc ? NULL : jwt_rows_signing(&l->rows, l->m.now);
    l->others = (struct jwt_others){.now = l->m.now, .self = l->m.issuer->ca->self};
    return row && store_shared(l->m.issuer->store) ? jwt_others_read(tx, row->kid, &l->others, err)
                                                   : rc;
}

static enum att_rc clear(void *user, struct store_tx *tx, struct att_err *err)
{
    struct making *m = user;
    struct jwt_rows rows = {.n = 0};
    jwt_rows_done(&m->gone);
    enum att_rc rc = jwt_rows_read(tx, &rows, err);
    for (size_t i = 0; i < rows.n && !rc && over(&rows, i, m->now); i++) {
        rc = remove_row(m, tx, &rows.v[i], err);
    }
    jwt_rows_done(&rows);
    return rc ? rc : issuer_view_bump(tx, err);
}

static enum att_rc tick(struct issuer *issuer, const struct conf_jwt *conf, struct att_err *err)
{
    struct look l = {.m = {.issuer = issuer, .conf = conf, .now = issuer->clock()}};
    enum att_rc rc = store_run(issuer->store, false, look, &l, err);
    if (!rc) {
        prune_open(issuer->jwt, &l.rows);
        prune_files(issuer, &l.rows, l.m.now);
    }
    if (!rc) {
        jwt_signing_seen(issuer, jwt_rows_signing(&l.rows, l.m.now), &l.others);
    }
    if (!rc && l.soon) {
        rc = jwt_keys_postpone(issuer, conf, l.m.now, err);
    }
    if (!rc && lost(issuer, &l.rows, &l.others, l.m.now)) {
        snprintf(l.m.lost, sizeof l.m.lost, "%s", jwt_rows_signing(&l.rows, l.m.now)->kid);
        att_log(ATT_ERROR, "jwt.keyLost", ATT_S("kid", l.m.lost));
    }
    if (!rc && l.stale) {
        rc = store_run(issuer->store, true, clear, &l.m, err);
        if (!rc) {
            destroy(&l.m);
            issuer_view_wake(issuer);
        }
    }
    if (!rc && (l.due || l.m.lost[0])) {
        rc = make(&l.m, err);
    }
    jwt_rows_done(&l.rows);
    jwt_rows_done(&l.m.gone);
    store_record_done(&store_jwt_keys, &l.m.row);
    return rc;
}

void issuer_jwt_tick(struct issuer *issuer)
{
    issuer_autosettings *settings = issuer_settings_get(issuer);
    struct att_err err = {0};
    int64_t now = att_boottime_ms() / 1000;
    if (!issuer->jwt || !settings->conf->jwt || now < issuer->jwt->not_before) {
        return;
    }
    if (tick(issuer, settings->conf->jwt, &err)) {
        att_log_err(ATT_ERROR, "jwt.keys", &err);
        issuer->jwt->not_before = now + PAUSE_S;
    }
}

enum att_rc issuer_jwt_start(struct issuer *issuer, struct att_err *err)
{
    const struct conf_jwt *conf = issuer->settings->conf->jwt;
    enum att_rc rc = issuer_restored(issuer, err);
    if (rc || !conf) {
        return rc;
    }
    issuer->jwt = calloc(1, sizeof *issuer->jwt);
    if (!issuer->jwt) {
        return att_fail(err, ATT_E_NOMEM, "jwt: no memory");
    }
    pthread_mutex_init(&issuer->jwt->lock, NULL);
    struct att_err why = {0};
    (void)issuer_jwt_look(issuer);
    if (tick(issuer, conf, &why)) { /* an HSM that is away: the tick tries again */
        att_log_err(ATT_ERROR, "jwt.keys", &why);
    }
    return ATT_OK;
}

void issuer_jwt_free(struct issuer *issuer)
{
    if (issuer->jwt) {
        forget_open(issuer->jwt, NULL);
        pthread_mutex_destroy(&issuer->jwt->lock);
        free(issuer->jwt);
        issuer->jwt = NULL;
    }
}

enum att_rc issuer_jwt_replace(struct issuer *issuer, bool withdraw,
                               const struct issuer_admin_call *call,
                               char ret_kid[ACME_THUMBPRINT_LEN], struct att_err *err)
{
    issuer_autosettings *settings = issuer_settings_get(issuer);
    if (!issuer->jwt || !settings->conf->jwt) {
        return issuer_refuse(err, ATT_E_UNSUPPORTED, "tokensOff",
                             "the configuration has no section jwt: no tokens are minted");
    }
    struct making m = {.issuer = issuer,
                       .conf = settings->conf->jwt,
                       .call = call,
                       .by_hand = true,
                       .withdraw = withdraw,
                       .now = issuer->clock()};
    enum att_rc rc = make(&m, err);
    if (!rc) {
        snprintf(ret_kid, ACME_THUMBPRINT_LEN, "%s", m.row.kid);
    }
    store_record_done(&store_jwt_keys, &m.row);
    return rc;
}
