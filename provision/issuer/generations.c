#include "provision/issuer/generations.h"

#include "attestd/base/io.h"
#include "certs/key.h"
#include "certs/oid.h"
#include "provision/issuer/ca_files.h"
#include "provision/issuer/jwt.h"
#include "provision/issuer/kinds.h"
#include "provision/issuer/tls_root.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define COUNTER      "authorities"
#define PERIOD_MS    1000
#define TELL_MS      5000
#define TRY_AGAIN_MS 3000
#define BUNDLE_MAX   ((size_t)256 << 10)

void issuer_generations_free(struct issuer_generations *newest)
{
    while (newest) {
        struct issuer_generations *older = newest->older;
        for (size_t i = 0; i < newest->n; i++) {
            X509_free(newest->v[i].ca);
            X509_free(newest->v[i].root);
            EVP_PKEY_free(newest->v[i].key);
            free(newest->v[i].pem);
        }
        free(newest->bundle);
        free(newest->ak_roots);
        free(newest->dns_roots);
        free(newest->tls_roots);
        free(newest);
        newest = older;
    }
}

const struct issuer_generations *issuer_generations_now(const struct issuer *issuer)
{
    return atomic_load(&issuer->ca->generations);
}

enum att_rc issuer_generation_id(const EVP_PKEY *key, char ret[ISSUER_GENERATION_ID],
                                 struct att_err *err)
{
    uint8_t digest[ATT_SHA256_LEN];
    enum att_rc rc = certs_key_spki_sha256(key, digest, err);
    if (!rc) {
        att_hex(ret, ATT_SLICE(digest, ISSUER_GENERATION_ID / 2));
    }
    return rc;
}

/* ---- which one --------------------------------------------------------------------------------
 */

static struct issuer_authority as_authority(const struct issuer_generation *g)
{
    return (struct issuer_authority){.ca = g->ca,
                                     .key = g->key,
                                     .pem = g->pem,
                                     .end = g->end,
                                     .crl = g->crl,
                                     .id = g->first ? "" : g->id,
                                     .lacks = g->lacks};
}

struct issuer_authority issuer_authority_of(const struct issuer *issuer, const char *kind)
{
    const struct issuer_generations *now = issuer_generations_now(issuer);
    for (size_t i = 0; now && i < now->n; i++) {
        if (strcmp(now->v[i].kind, kind) == 0 &&
            strcmp(now->v[i].state, STORE_AUTHORITY_ACTIVE) == 0) {
            return as_authority(&now->v[i]);
        }
    }
    return issuer_authority_first(issuer, kind);
}

size_t issuer_authorities_all(const struct issuer *issuer, const char *kind,
                              struct issuer_authority ret[ISSUER_GENERATIONS_MAX + 1])
{
    const struct issuer_generations *now = issuer_generations_now(issuer);
    size_t n = 0;
    ret[n++] = issuer_authority_first(issuer, kind);
    for (size_t i = 0; now && i < now->n; i++) {
        if (strcmp(now->v[i].kind, kind) == 0 && now->v[i].ca && !now->v[i].first) {
            ret[n++] = as_authority(&now->v[i]);
        }
    }
    return n;
}

/* ---- reading ----------------------------------------------------------------------------------
 */

struct reading {
    struct issuer *issuer;
    struct issuer_generations *fresh;
    bool same; /* the number did not change: nothing more was read */
};

enum att_rc issuer_generations_number(struct store_tx *tx, int64_t *ret, struct att_err *err)
{
    att_autobuf value = {0};
    enum att_rc rc = store_meta_get(tx, COUNTER, &value, NULL);
    if (rc && rc != ATT_E_NOTFOUND) {
        return att_fail(err, rc, "the number of the authorities cannot be read");
    }
    struct att_cur cur = att_cur_init(att_buf_slice(&value));
    *ret = value.len ? (int64_t)att_cur_be64(&cur) : 0;
    return ATT_OK;
}

static enum att_rc parse_first(const char *pem, X509 **ret_cert, struct att_err *err)
{
    certs_autostack *certs = NULL;
    enum att_rc rc = certs_pem_parse(att_slice_str(pem), &certs, err);
    if (!rc) {
        *ret_cert = sk_X509_shift(certs);
    }
    return rc;
}

static bool in_state(const struct issuer_generation *g, const char *state)
{
    return strcmp(g->state, state) == 0;
}

/* The TLS root's key is used when it begins to sign, and once a year: a copy of it that is kept
 * elsewhere meanwhile keeps nobody from serving. */
static bool signs(const struct issuer_generation *g)
{
    bool tls = strcmp(g->kind, "tls") == 0;
    return g->ca &&
           (tls ? in_state(g, STORE_AUTHORITY_PREPARED) || in_state(g, STORE_AUTHORITY_PUBLISHED)
                : !in_state(g, STORE_AUTHORITY_RETIRED));
}

/* Keys are asked for something only once the transaction is over. */
static void open_key(struct issuer *issuer, struct issuer_generation *g)
{
    struct att_err why = {0};
    if (!signs(g)) {
        return;
    }
    enum att_rc rc =
        issuer_key_open(issuer->ca->hsm, issuer->state_dir, g->keyref, g->ca, &g->key, &why);
    if (rc) {
        snprintf(g->lacks, sizeof g->lacks, "%.150s", why.msg);
    }
}

static void name_crl(struct issuer_generation *g)
{
    const struct issuer_kind *kind = issuer_kind_of(g->kind);
    const char *stem = kind ? kind->crl : NULL;
    if (!stem) {
        g->crl[0] = 0;
    } else if (g->first) {
        snprintf(g->crl, sizeof g->crl, "%s.crl", stem);
    } else {
        char id[ISSUER_GENERATION_ID];
        memcpy(id, g->id, sizeof id);
        snprintf(g->crl, sizeof g->crl, "%s-%s.crl", stem, id);
    }
}

static enum att_rc take_row(void *user, const void *record, struct att_err *err)
{
    struct reading *r = user;
    const struct store_authority *row = record;
    struct issuer_generations *fresh = r->fresh;
    if (fresh->n == ISSUER_GENERATIONS_MAX) {
        return att_fail(err, ATT_E_LIMIT, "more than %d generations of authorities",
                        ISSUER_GENERATIONS_MAX);
    }
    struct issuer_generation *g = &fresh->v[fresh->n++];
    const struct issuer_authority first = issuer_authority_first(r->issuer, row->kind);
    snprintf(g->id, sizeof g->id, "%s", row->id);
    snprintf(g->kind, sizeof g->kind, "%s", row->kind);
    snprintf(g->state, sizeof g->state, "%s", row->state);
    snprintf(g->keyref, sizeof g->keyref, "%s", row->keyref);
    g->view = row->view;
    enum att_rc rc = ATT_OK;
    if (row->chain[0]) {
        rc = parse_first(row->chain, &g->ca, err);
    }
    if (!rc && row->root[0]) {
        rc = parse_first(row->root, &g->root, err);
    }
    if (!rc && !issuer_set(&g->pem, row->chain)) {
        rc = att_fail(err, ATT_E_NOMEM, "authorities: no memory");
    }
    if (rc) {
        att_err_prefix(err, "authority %s", row->id);
        return rc;
    }
    g->first = g->ca && first.ca && X509_cmp(g->ca, first.ca) == 0;
    g->end = issuer_ca_end(g->ca);
    name_crl(g);
    open_key(r->issuer, g);
    return ATT_OK;
}

static const struct issuer_generation *in(const struct issuer_generations *all, const char *kind,
                                          const char *state)
{
    for (size_t i = 0; i < all->n; i++) {
        if (strcmp(all->v[i].kind, kind) == 0 && in_state(&all->v[i], state)) {
            return &all->v[i];
        }
    }
    return NULL;
}

/* Hosts are waited for before a generation signs, and once more before the TLS root goes that they
 * may have been told of at their enrolment. */
static void await(struct issuer_generations *fresh)
{
    for (size_t i = 0; i < fresh->n; i++) {
        const struct issuer_generation *g = &fresh->v[i];
        bool awaited = in_state(g, STORE_AUTHORITY_PUBLISHED) ||
                       (strcmp(g->kind, "tls") == 0 && in_state(g, STORE_AUTHORITY_ACTIVE) &&
                        in(fresh, "tls", STORE_AUTHORITY_OUTGOING));
        if (awaited && g->view > fresh->awaited_view) {
            fresh->awaited_view = g->view;
        }
    }
}

static enum att_rc read_rows(void *user, struct store_tx *tx, struct att_err *err)
{
    struct reading *r = user;
    const struct issuer_generations *now = issuer_generations_now(r->issuer);
    enum att_rc rc = issuer_generations_number(tx, &r->fresh->number, err);
    bool lacks = false;
    for (size_t i = 0; now && i < now->n; i++) {
        lacks = lacks || now->v[i].lacks[0];
    }
    r->same = !rc && now && now->number == r->fresh->number && !lacks;
    if (!rc && !r->same) {
        rc = store_each(tx, &store_authorities, NULL, NULL, take_row, r, err);
        await(r->fresh);
    }
    return rc;
}

static void try_keys(struct issuer_generations *fresh)
{
    for (size_t i = 0; i < fresh->n; i++) {
        struct issuer_generation *g = &fresh->v[i];
        struct att_err why = {0};
        if (g->key && issuer_key_try(g->key, &why)) {
            snprintf(g->lacks, sizeof g->lacks, "%.150s", why.msg);
        }
    }
}

/* ---- bundles ----------------------------------------------------------------------------------
 */

bool issuer_generation_counts(const struct issuer_generation *g)
{
    return g->ca && g->root &&
           (strcmp(g->state, STORE_AUTHORITY_PUBLISHED) == 0 ||
            strcmp(g->state, STORE_AUTHORITY_ACTIVE) == 0 ||
            strcmp(g->state, STORE_AUTHORITY_OUTGOING) == 0);
}

static bool is_trusted(const struct issuer_generation *g, const char *kind)
{
    return strcmp(g->kind, kind) == 0 && issuer_generation_counts(g);
}

static enum att_rc make_bundle(const struct issuer_generations *fresh, const char *kind,
                               const X509 *otherwise, char **ret_pem, struct att_err *err)
{
    att_autobuf pem = {0};
    const X509 *have[ISSUER_GENERATIONS_MAX + 1];
    size_t n = 0;
    enum att_rc rc = ATT_OK;
    for (size_t i = 0; i <= fresh->n && !rc; i++) {
        const X509 *root = i < fresh->n ? fresh->v[i].root : n == 0 ? otherwise : NULL;
        bool twice = !root || (i < fresh->n && !is_trusted(&fresh->v[i], kind));
        for (size_t k = 0; k < n && !twice; k++) {
            twice = X509_cmp(have[k], root) == 0;
        }
        if (!twice) {
            have[n++] = root;
            rc = certs_pem_dump(root, &pem, err);
        }
    }
    *ret_pem = rc ? NULL : issuer_steal_text(&pem);
    return rc || *ret_pem ? rc : att_fail(err, ATT_E_NOMEM, "authorities: no memory");
}

static enum att_rc write_bundle(const struct issuer *issuer, const char *file, const char *pem,
                                struct att_err *err)
{
    char path[ISSUER_CA_PATH];
    att_autobuf there = {0};
    issuer_ca_path(path, issuer->state_dir, file);
    if (att_io_read_file(path, BUNDLE_MAX, &there, NULL) == ATT_OK &&
        att_slice_eq(att_buf_slice(&there), att_slice_str(pem))) {
        return ATT_OK;
    }
    return att_io_write_file(path, att_slice_str(pem), 0644, err);
}

static bool has_kind(const struct issuer_generations *fresh, const char *kind)
{
    for (size_t i = 0; i < fresh->n; i++) {
        if (strcmp(fresh->v[i].kind, kind) == 0) {
            return true;
        }
    }
    return false;
}

/* Only what the store knows of is written: without a rotation the files are `init`'s, and may have
 * become an operator's. */
static enum att_rc put_bundles(const struct issuer *issuer, struct issuer_generations *fresh,
                               struct att_err *err)
{
    char **const of[ISSUER_KINDS] = {&fresh->bundle, &fresh->ak_roots, &fresh->dns_roots,
                                     &fresh->tls_roots};
    enum att_rc rc = ATT_OK;
    for (size_t i = 0; i < ISSUER_KINDS && !rc; i++) {
        const struct issuer_kind *kind = &issuer_kinds[i];
        bool known = has_kind(fresh, kind->kind);
        if (known || i < 2) { /* the first two are asked for at any time */
            rc = make_bundle(fresh, kind->kind, issuer_kind_first_root(issuer, kind->kind), of[i],
                             err);
        }
        if (!rc && known) {
            rc = write_bundle(issuer, kind->bundle, *of[i], err);
        }
    }
    return rc;
}

/* ---- the issuer's own TLS ---------------------------------------------------------------------
 */

/* Between leaf and root, while the root before is trusted: the new root signed by it, and itself.
 */
static enum att_rc make_also(const struct issuer_generation *active,
                             const struct issuer_generation *outgoing, struct att_buf *ret_pem,
                             struct att_err *err)
{
    certs_autostack *chain = NULL;
    enum att_rc rc = outgoing ? certs_pem_parse(att_slice_str(active->pem), &chain, err) : ATT_OK;
    for (int i = 1; !rc && chain && i < sk_X509_num(chain); i++) {
        rc = certs_pem_dump(sk_X509_value(chain, i), ret_pem, err);
    }
    return rc || !outgoing ? rc : certs_pem_dump(outgoing->root, ret_pem, err);
}

/* Whether connections and views are under this root, and what leads to it is sent. */
static enum att_rc tls_in_use(const struct issuer *issuer, const struct issuer_generation *active,
                              const char *also, bool *ret_is, struct att_err *err)
{
    issuer_autoendpoints *e = issuer_endpoints_get(issuer->ca);
    att_autobuf sent = {0};
    enum att_rc rc = ATT_OK;
    for (int i = 0; !rc && e->also && i < sk_X509_num(e->also); i++) {
        rc = certs_pem_dump(sk_X509_value(e->also, i), &sent, err);
    }
    *ret_is = !rc && e->under_root && X509_cmp(e->root, active->root) == 0 &&
              strcmp(e->root_ref, active->keyref) == 0 &&
              att_slice_eq(att_buf_slice(&sent), att_slice_str(also));
    return rc;
}

/* New connections and views are under the active root from here on. What is in use is compared, not
 * what a file says: where the certificates cannot be made it stays undone, and is tried again. */
static enum att_rc use_tls(struct issuer *issuer, const struct issuer_generation *active,
                           const char *also, struct att_err *err)
{
    bool changed = false, is = false;
    struct att_err why = {0};
    enum att_rc rc =
        issuer_tls_root_save(issuer->state_dir, active->keyref, active->root, also, &changed, err);
    if (!rc) {
        rc = tls_in_use(issuer, active, also, &is, err);
    }
    if (rc || is) {
        return rc;
    }
    issuer_autosettings *settings = issuer_settings_get(issuer);
    enum att_rc made = issuer_endpoints_refresh(issuer->ca, settings->conf, issuer->clock(), &why);
    rc = tls_in_use(issuer, active, also, &is, err);
    if (rc || is) {
        return rc; /* a renewal that failed besides is issuer_ca_tick's */
    }
    if (!made) {
        return att_fail(err, ATT_E_CONFLICT, "TLS is not under the root of authority %s",
                        active->id);
    }
    if (err) {
        *err = why;
    }
    return made;
}

static enum att_rc put_tls(struct issuer *issuer, const struct issuer_generations *fresh,
                           struct att_err *err)
{
    const struct issuer_generation *active = in(fresh, "tls", STORE_AUTHORITY_ACTIVE);
    att_autobuf also = {0};
    if (!active) {
        return ATT_OK;
    }
    enum att_rc rc = make_also(active, in(fresh, "tls", STORE_AUTHORITY_OUTGOING), &also, err);
    const char *text = also.len ? att_buf_cstr(&also) : "";
    if (!rc) {
        rc = text ? use_tls(issuer, active, text, err)
                  : att_fail(err, ATT_E_NOMEM, "authorities: no memory");
    }
    atomic_store(&issuer->ca->tls_behind, rc != ATT_OK);
    return rc;
}

/* ---- taking it into use -----------------------------------------------------------------------
 */

/* What is lacking counts, not the words for it: a key that is away says now this, now that. */
static bool same_use(const struct issuer_generations *a, const struct issuer_generations *b)
{
    if (!a || a->number != b->number || a->n != b->n) {
        return false;
    }
    for (size_t i = 0; i < a->n; i++) {
        if ((a->v[i].lacks[0] == 0) != (b->v[i].lacks[0] == 0)) {
            return false;
        }
    }
    return true;
}

static void tell(const struct issuer_generations *fresh)
{
    for (size_t i = 0; i < fresh->n; i++) {
        const struct issuer_generation *g = &fresh->v[i];
        if (g->lacks[0]) {
            att_log(ATT_WARN, "ca.keyAway", ATT_S("authority", g->id), ATT_S("state", g->state),
                    ATT_S("message", g->lacks));
        } else {
            att_log(ATT_INFO, "ca.inUse", ATT_S("authority", g->id), ATT_S("kind", g->kind),
                    ATT_S("state", g->state), ATT_N("generation", fresh->number));
        }
    }
}

/* Nobody that took part of one has it any more: no request takes that many looks. */
static void free_outlived(const struct issuer_ca *ca, struct issuer_generations *newest)
{
    for (struct issuer_generations *at = newest; at->older; at = at->older) {
        if (ca->looks - at->older->replaced_at >= ISSUER_GENERATION_LOOKS) {
            issuer_generations_free(at->older);
            at->older = NULL;
            return;
        }
    }
}

static enum att_rc refresh(struct issuer *issuer, struct att_err *err)
{
    struct issuer_generations *fresh = calloc(1, sizeof *fresh);
    struct reading r = {.issuer = issuer, .fresh = fresh};
    if (!fresh) {
        return att_fail(err, ATT_E_NOMEM, "authorities: no memory");
    }
    enum att_rc rc = store_run(issuer->store, false, read_rows, &r, err);
    if (!rc && !r.same) {
        try_keys(fresh);
        rc = put_bundles(issuer, fresh, err);
    }
    if (!rc && !r.same) {
        rc = put_tls(issuer, fresh, err);
    }
    struct issuer_generations *now = atomic_load(&issuer->ca->generations);
    if (rc || r.same || same_use(now, fresh)) {
        issuer_generations_free(fresh);
        return rc;
    }
    if (now) {
        now->replaced_at = issuer->ca->looks;
    }
    fresh->older = now;
    atomic_store(&issuer->ca->generations, fresh);
    free_outlived(issuer->ca, fresh);
    tell(fresh);
    return ATT_OK;
}

enum att_rc issuer_generations_refresh(struct issuer *issuer, struct att_err *err)
{
    pthread_mutex_lock(&issuer->ca->generations_lock);
    enum att_rc rc = refresh(issuer, err);
    pthread_mutex_unlock(&issuer->ca->generations_lock);
    return rc;
}

enum att_rc issuer_generations_check(struct issuer *issuer, struct store_tx *tx,
                                     struct att_err *err)
{
    const struct issuer_generations *now = issuer_generations_now(issuer);
    int64_t number = 0;
    enum att_rc rc = issuer_generations_number(tx, &number, err);
    if (rc || (now && now->number == number)) {
        return rc;
    }
    issuer_poke(issuer);
    rc = att_fail(err, ATT_E_RETRY, "an authority is being rotated: ask again in a second");
    att_err_reason(err, "caChanged");
    return rc;
}

/* ---- telling the other issuers ----------------------------------------------------------------
 */

char *issuer_self_name(const struct issuer *issuer)
{
    char host[65] = "", *name = NULL;
    (void)gethostname(host, sizeof host - 1);
    return asprintf(&name, "%s:%s", host, issuer->state_dir) < 0 ? NULL : name;
}

static enum att_rc put_self(void *user, struct store_tx *tx, struct att_err *err)
{
    struct issuer *issuer = user;
    const struct issuer_generations *now = issuer_generations_now(issuer);
    att_autobuf lacks = {0}, usable = {0};
    for (size_t i = 0; i < now->n; i++) {
        if (now->v[i].lacks[0]) {
            att_buf_put_str(&lacks, lacks.len ? " " : "");
            att_buf_put_str(&lacks, now->v[i].id);
        }
    }
    issuer_autofree *name = issuer_self_name(issuer);
    issuer_jwt_usable(issuer, &usable);
    const char *text = att_buf_cstr(&lacks), *jwt = att_buf_cstr(&usable);
    struct store_issuer row = {.id = issuer->ca->self,
                               .name = name,
                               .generation = now->number,
                               .lacks = (char *)(uintptr_t)(text ? text : ""),
                               .jwt = (char *)(uintptr_t)(jwt ? jwt : ""),
                               .seen_at = issuer->clock()};
    enum att_rc rc = name ? store_put(tx, &store_issuers, &row, err)
                          : att_fail(err, ATT_E_NOMEM, "issuers: no memory");
    return rc ? rc : store_issuers_forget(tx, row.seen_at - 86400, err);
}

/* An issuer that cannot take a step into use says so, too: it is there, and behind. */
static void tell_others(struct issuer *issuer, int64_t now_ms, bool changed)
{
    struct issuer_ca *ca = issuer->ca;
    struct att_err err = {0};
    if (store_shared(issuer->store) && (changed || now_ms >= ca->tell_ms)) {
        ca->tell_ms = now_ms + TELL_MS;
        if (store_run_soft(issuer->store, put_self, issuer, &err)) {
            att_log_err(ATT_WARN, "ca.tell", &err);
        }
    }
}

static void look(struct issuer *issuer)
{
    struct issuer_ca *ca = issuer->ca;
    int64_t now_ms = att_boottime_ms();
    struct att_err err = {0};
    ca->look_ms = now_ms + PERIOD_MS;
    pthread_mutex_lock(&ca->generations_lock);
    ca->looks++;
    pthread_mutex_unlock(&ca->generations_lock);
    int64_t before = issuer_generations_now(issuer)->number;
    bool tokens = issuer_jwt_look(issuer);
    if (issuer_generations_refresh(issuer, &err)) {
        att_log_err(ATT_ERROR, "ca.refresh", &err);
        ca->look_ms = att_boottime_ms() + TRY_AGAIN_MS;
        tell_others(issuer, now_ms, tokens);
        return;
    }
    const struct issuer_generations *now = issuer_generations_now(issuer);
    for (size_t i = 0; i < now->n; i++) {
        if (now->v[i].lacks[0]) { /* it is asked again, not each second */
            ca->look_ms = att_boottime_ms() + TRY_AGAIN_MS;
        }
    }
    tell_others(issuer, now_ms, tokens || now->number != before);
}

static void *look_beside(void *user)
{
    struct issuer *issuer = user;
    look(issuer);
    atomic_store(&issuer->ca->looked, true);
    return NULL;
}

void issuer_generations_tick(struct issuer *issuer)
{
    struct issuer_ca *ca = issuer->ca;
    if (ca->looking && atomic_load(&ca->looked)) {
        issuer_generations_wait(ca);
    }
    if (ca->looking || att_boottime_ms() < ca->look_ms) {
        return;
    }
    atomic_store(&ca->looked, false);
    /* An HSM may take seconds to answer, or not to. */
    ca->looking = ca->hsm && pthread_create(&ca->looker, NULL, look_beside, issuer) == 0;
    if (!ca->looking) {
        look(issuer);
    }
}

void issuer_generations_wait(struct issuer_ca *ca)
{
    if (ca->looking) {
        pthread_join(ca->looker, NULL);
        ca->looking = false;
    }
}

/* ---- for ca.status ----------------------------------------------------------------------------
 */

static const struct issuer_generation *by_id(const struct issuer *issuer, const char *id)
{
    const struct issuer_generations *now = issuer_generations_now(issuer);
    for (size_t i = 0; now && i < now->n; i++) {
        if (strcmp(now->v[i].id, id) == 0) {
            return &now->v[i];
        }
    }
    return NULL;
}

struct listing {
    const struct issuer *issuer;
    json_t *list;
    int64_t now;
};

static enum att_rc list_row(void *user, const void *record, struct att_err *err)
{
    struct listing *l = user;
    const struct store_authority *row = record;
    const struct issuer_generation *g = by_id(l->issuer, row->id);
    (void)err;
    size_t colon = strcspn(row->keyref, ":");
    char store[8];
    snprintf(store, sizeof store, "%.*s", (int)colon, row->keyref);
    json_array_append_new(
        l->list,
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:I}", "id", row->id, "kind",
                  issuer_kind_of(row->kind) ? issuer_kind_of(row->kind)->word : row->kind, "state",
                  row->state, "key", store, "lacks", g ? g->lacks : "", "notAfter",
                  issuer_time_json(g ? g->end : 0), "createdAt", issuer_time_json(row->created_at),
                  "publishedAt", issuer_time_json(row->published_at), "activatedAt",
                  issuer_time_json(row->activated_at), "retiredAt",
                  issuer_time_json(row->retired_at), "view", (json_int_t)row->view));
    return ATT_OK;
}

static enum att_rc list_issuer(void *user, const void *record, struct att_err *err)
{
    struct listing *l = user;
    const struct store_issuer *row = record;
    (void)err;
    if (row->seen_at + ISSUER_LIVE_S >= l->now) {
        json_array_append_new(l->list,
                              json_pack("{s:s, s:I, s:s, s:o}", "name", row->name, "generation",
                                        (json_int_t)row->generation, "lacks", row->lacks, "seenAt",
                                        issuer_time_json(row->seen_at)));
    }
    return ATT_OK;
}

enum att_rc issuer_generations_json(const struct issuer *issuer, struct store_tx *tx, int64_t now,
                                    json_t *result, struct att_err *err)
{
    struct listing rows = {issuer, json_array(), now}, issuers = {issuer, json_array(), now};
    json_object_set_new(result, "generations", rows.list);
    json_object_set_new(result, "issuers", issuers.list);
    enum att_rc rc = store_each(tx, &store_authorities, NULL, NULL, list_row, &rows, err);
    return rc ? rc : store_each(tx, &store_issuers, NULL, NULL, list_issuer, &issuers, err);
}
