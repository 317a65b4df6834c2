/* Looks at bundle endpoints: one now, and a thread that looks at each when its time has come. */
#include "provision/issuer/federation_internal.h"

#include "provision/federation/fetch.h"
#include "provision/issuer/addrs.h"
#include "provision/issuer/generations.h"

#include "attestd/base/io.h"
#include "attestd/base/metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOOK_MS        1000 /* how often is asked who is due */
#define TOLD_MS        60000
#define HINT_DEFAULT_S 300 /* Trust Domain and Bundle §4.1.2: where a bundle says nothing */

struct issuer_federation {
    struct issuer *issuer;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t turn; /* CLOCK_MONOTONIC */
    bool ended;
    struct federation_stop stop;
    int64_t told_ms; /* of the thread: when it last said that it cannot look; 0: never */
};

static atomic_ullong counts[ISSUER_FEDERATION_OUTCOMES];

/* What the thread read last, for metrics, which must not wait for the store. */
static struct {
    pthread_mutex_t lock;
    size_t n;
    struct {
        char name[256];
        int64_t fetched_at, failures;
    } v[CONF_FEDERATION_MAX];
} seen = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- when ------------------------------------------------------------------------------------ */

static int64_t pause_s(const struct conf_federation *conf, const struct store_federated *row)
{
    int64_t hint = row->hint_s > 0 ? row->hint_s : HINT_DEFAULT_S;
    int64_t least = conf->refresh_min_s;
    hint = hint < least ? least : hint > conf->refresh_max_s ? conf->refresh_max_s : hint;
    for (int64_t i = 0; i < row->failures && row->failures; i++) {
        if (least >= hint) {
            return hint; /* a failure is no reason to look less often */
        }
        if (i + 1 == row->failures) {
            return least;
        }
        least *= 2;
    }
    return hint;
}

static bool is_due(const struct conf_federation *conf, const struct store_federated *row,
                   int64_t now)
{
    int64_t pause = pause_s(conf, row);
    return now >= row->tried_at + pause || row->tried_at > now + pause; /* a clock went back */
}

/* ---- one look -------------------------------------------------------------------------------- */

struct look {
    struct issuer *issuer;
    const struct conf_federation *conf;
    const struct conf_federated *domain;
    struct federation_stop *stop; /* may be NULL */
    bool when_due;
    int64_t now;
    /* after the claim */
    bool claimed;
    struct store_federated row;
    struct federation_bundle known; /* the last one; roots NULL: none */
    bool changed;
};

/* One issuer of those that share a store looks; the others see that somebody did. */
static enum att_rc claim(void *user, struct store_tx *tx, struct att_err *err)
{
    struct look *l = user;
    store_record_done(&store_federated, &l->row);
    l->row = (struct store_federated){0};
    l->claimed = false;
    enum att_rc rc = federation_row(tx, l->domain->name, &l->row, err);
    if (rc || (l->when_due && !is_due(l->conf, &l->row, l->now))) {
        return rc;
    }
    l->claimed = true;
    /* Each claim is another one, within one second, too. */
    l->row.tried_at = l->row.tried_at == l->now ? l->now + 1 : l->now;
    return store_put(tx, &store_federated, &l->row, err);
}

static enum att_rc take(struct look *l, const struct federation_bundle *bundle, bool from_file,
                        struct att_err *err)
{
    struct take t = {.issuer = l->issuer,
                     .name = l->domain->name,
                     .bundle = bundle,
                     .from_file = from_file,
                     .now = l->now,
                     .claimed_at = l->row.tried_at,
                     .fetched_at = l->row.fetched_at,
                     .anew = l->row.anew};
    enum att_rc rc = store_run(l->issuer->store, true, federation_take, &t, err);
    if (rc == ATT_E_RETRY) {
        att_err_clear(err);
        rc = issuer_generations_refresh(l->issuer, err);
        rc = rc ? rc : store_run(l->issuer->store, true, federation_take, &t, err);
    }
    if (!rc && t.changed) {
        l->changed = true;
        issuer_view_wake(l->issuer);
        att_log(ATT_INFO, "federation.updated", ATT_S("trustDomain", t.name),
                ATT_S("source", from_file ? STORE_FEDERATED_FILE : STORE_FEDERATED_ENDPOINT),
                ATT_N("sequence", bundle->sequence), ATT_N("roots", sk_X509_num(bundle->roots)),
                ATT_N("keys", json_array_size(bundle->keys)));
    }
    if (!rc && t.changed && t.shares[0]) {
        att_log(ATT_WARN, "federation.sharedKeys", ATT_S("trustDomain", t.name),
                ATT_S("with", t.shares),
                ATT_S("message", "both bundles have a root or key: who holds it speaks for both"));
    }
    return rc;
}

static enum att_rc load_file(const struct look *l, struct federation_bundle *ret,
                             struct att_err *err)
{
    att_autobuf text = {0};
    const char *path = l->domain->bundle_file;
    enum att_rc rc = att_io_read_file(path, FEDERATION_BUNDLE_MAX, &text, err);
    rc = rc ? rc : federation_bundle_parse(att_buf_slice(&text), l->domain->name, ret, err);
    if (rc) {
        att_err_prefix(err, "%.200s", path);
        att_err_reason(err, "bundleFile");
    }
    return rc;
}

/* By whose roots an https_spiffe endpoint is believed: the last known bundle's; where there is none
 * yet, or an operator said so, the file's, which is taken for the bundle then. */
static enum att_rc find_known(struct look *l, struct att_err *err)
{
    enum att_rc rc;
    if (l->row.bundle[0] && !l->row.anew) {
        att_autojson *json = issuer_json(l->row.bundle);
        rc = federation_bundle_from_json(json, &l->known, err);
    } else {
        rc = load_file(l, &l->known, err);
        rc = rc ? rc : take(l, &l->known, true, err);
    }
    if (!rc && sk_X509_num(l->known.roots) == 0) {
        rc = issuer_refuse(err, ATT_E_DENIED, "bundleEmpty",
                           "the last known bundle of %.80s has no root: its endpoint cannot be "
                           "believed",
                           l->domain->name);
    }
    return rc;
}

static const char *refused_address(void *user, const struct sockaddr *address)
{
    const struct conf_federation *conf = user;
    return issuer_addr_refused(address, conf->ranges, conf->n_allow);
}

static enum att_rc fetch(struct look *l, struct att_err *err)
{
    const struct conf_federated *d = l->domain;
    att_autobuf text = {0};
    struct federation_bundle bundle;
    const struct federation_endpoint endpoint = {
        .url = d->url,
        .ca_file = d->ca_file,
        .spiffe_id = d->by_spiffe ? d->spiffe_id : NULL,
        .roots = l->known.roots,
        .refused = refused_address,
        .user = (void *)(uintptr_t)l->conf,
        .timeout_ms = (int)l->conf->timeout_s * 1000,
    };
    enum att_rc rc = federation_fetch(&endpoint, l->stop, &text, err);
    rc = rc ? rc : federation_bundle_parse(att_buf_slice(&text), d->name, &bundle, err);
    if (rc) {
        return rc;
    }
    rc = take(l, &bundle, false, err);
    federation_bundle_done(&bundle);
    return rc;
}

/* ---- what went wrong ------------------------------------------------------------------------- */

struct failure {
    const struct look *look;
    const struct att_err *why;
    enum issuer_federation_outcome outcome;
};

static enum att_rc note(void *user, struct store_tx *tx, struct att_err *err)
{
    const struct failure *f = user;
    struct store_federated row = {0};
    enum att_rc rc = federation_row(tx, f->look->domain->name, &row, err);
    row.failures++;
    if (!rc && !(issuer_set(&row.outcome, issuer_federation_word(f->outcome)) &&
                 issuer_set(&row.reason, f->why->reason) && issuer_set(&row.detail, f->why->msg))) {
        rc = att_fail(err, ATT_E_NOMEM, "no memory");
    }
    rc = rc ? rc : store_put(tx, &store_federated, &row, err);
    store_record_done(&store_federated, &row);
    return rc;
}

/* All else could not be looked at, for whatever reason: a server or our store that is away. */
static bool is_refusal(const struct att_err *why)
{
    static const char *const endpoint[] = {"endpointTls", "endpointId", "endpointAddress", NULL};
    for (const char *const *word = endpoint; *word; word++) {
        if (strcmp(why->reason, *word) == 0) {
            return true;
        }
    }
    return strncmp(why->reason, "bundle", 6) == 0;
}

static void failed(struct look *l, const struct att_err *why)
{
    struct failure f = {l, why,
                        is_refusal(why) ? ISSUER_FEDERATION_REFUSED : ISSUER_FEDERATION_AWAY};
    struct att_err err = {0};
    if (why->rc == ATT_E_GONE) {
        return; /* stopped */
    }
    atomic_fetch_add(&counts[f.outcome], 1);
    att_log(ATT_WARN, "federation.failed", ATT_S("trustDomain", l->domain->name),
            ATT_S("outcome", issuer_federation_word(f.outcome)), ATT_S("reason", why->reason),
            ATT_S("message", why->msg), ATT_N("failures", l->row.failures + 1),
            ATT_S("kept", l->row.bundle[0] ? "the bundle that was good last" : "none"));
    if (store_run_soft(l->issuer->store, note, &f, &err)) {
        att_log_err(ATT_ERROR, "federation.unrecorded", &err);
    }
}

static enum att_rc look(struct look *l, struct att_err *err)
{
    struct att_err why = {0};
    enum att_rc rc = store_run_soft(l->issuer->store, claim, l, err);
    if (rc || !l->claimed) {
        l->claimed = false; /* it may have gone wrong at the end */
        return rc;
    }
    rc = l->domain->by_spiffe ? find_known(l, &why) : ATT_OK;
    rc = rc ? rc : fetch(l, &why);
    if (rc) {
        failed(l, &why);
        if (err) {
            *err = why;
        }
        return rc;
    }
    atomic_fetch_add(&counts[l->changed ? ISSUER_FEDERATION_UPDATED : ISSUER_FEDERATION_UNCHANGED],
                     1);
    return ATT_OK;
}

static void look_done(struct look *l)
{
    store_record_done(&store_federated, &l->row);
    federation_bundle_done(&l->known);
}

enum att_rc issuer_federation_look(struct issuer *issuer, const char *name,
                                   enum issuer_federation_outcome *ret_outcome, struct att_err *err)
{
    issuer_autosettings *settings = issuer_settings_get(issuer);
    const struct conf_federation *conf = settings->conf->federation;
    const struct conf_federated *domain = conf_federated(conf, name);
    if (!domain) {
        return issuer_refuse(err, ATT_E_NOTFOUND, "federationUnknown",
                             "trust domain %.80s is not in the issuer's configuration", name);
    }
    struct look l = {.issuer = issuer, .conf = conf, .domain = domain, .now = issuer->clock()};
    enum att_rc rc = look(&l, err);
    if (!rc) {
        *ret_outcome = l.changed ? ISSUER_FEDERATION_UPDATED : ISSUER_FEDERATION_UNCHANGED;
    }
    look_done(&l);
    return rc;
}

/* ---- the thread ------------------------------------------------------------------------------ */

struct due {
    const struct conf_federation *conf;
    int64_t now;
    bool due[CONF_FEDERATION_MAX];
};

static void see(unsigned at, const struct store_federated *row)
{
    pthread_mutex_lock(&seen.lock);
    snprintf(seen.v[at].name, sizeof seen.v[at].name, "%s", row->name);
    seen.v[at].fetched_at = row->fetched_at;
    seen.v[at].failures = row->failures;
    seen.n = at + 1;
    pthread_mutex_unlock(&seen.lock);
}

static void see_none(void)
{
    pthread_mutex_lock(&seen.lock);
    seen.n = 0;
    pthread_mutex_unlock(&seen.lock);
}

static enum att_rc find_due(void *user, struct store_tx *tx, struct att_err *err)
{
    struct due *d = user;
    enum att_rc rc = ATT_OK;
    for (unsigned i = 0; !rc && i < d->conf->n_trust_domains; i++) {
        struct store_federated row = {0};
        rc = federation_row(tx, d->conf->trust_domains[i].name, &row, err);
        d->due[i] = !rc && is_due(d->conf, &row, d->now);
        if (!rc) {
            see(i, &row);
        }
        store_record_done(&store_federated, &row);
    }
    return rc;
}

static bool has_ended(struct issuer_federation *f)
{
    pthread_mutex_lock(&f->lock);
    bool ended = f->ended;
    pthread_mutex_unlock(&f->lock);
    return ended;
}

/* That it was looked at could not be written: nobody did. Each second anew, so that it is not said
 * each time. */
static void unclaimed(struct issuer_federation *f, const struct look *l, const struct att_err *why)
{
    int64_t now = att_boottime_ms();
    if (f->told_ms && now - f->told_ms < TOLD_MS) {
        return;
    }
    f->told_ms = now;
    att_log(ATT_WARN, "federation.unclaimed", ATT_S("trustDomain", l->domain->name),
            ATT_S("reason", why->reason), ATT_S("message", why->msg));
}

static void turn(struct issuer_federation *f)
{
    issuer_autosettings *settings = issuer_settings_get(f->issuer);
    const struct conf_federation *conf = settings->conf->federation;
    struct due d = {.conf = conf, .now = f->issuer->clock()};
    struct att_err err = {0};
    if (!conf) {
        see_none();
        return;
    }
    if (store_run(f->issuer->store, false, find_due, &d, &err)) {
        return; /* the store's health is told elsewhere */
    }
    for (unsigned i = 0; i < conf->n_trust_domains && !has_ended(f); i++) {
        struct look l = {.issuer = f->issuer,
                         .conf = conf,
                         .domain = &conf->trust_domains[i],
                         .stop = &f->stop,
                         .when_due = true,
                         .now = f->issuer->clock()};
        struct att_err why = {0};
        if (d.due[i]) {
            enum att_rc rc = look(&l, &why);
            if (rc && !l.claimed) { /* all else was said where it happened */
                unclaimed(f, &l, &why);
            }
            look_done(&l);
        }
    }
}

static void *run(void *user)
{
    struct issuer_federation *f = user;
    while (!has_ended(f)) {
        struct timespec at;
        turn(f);
        clock_gettime(CLOCK_MONOTONIC, &at);
        at.tv_sec += LOOK_MS / 1000;
        pthread_mutex_lock(&f->lock);
        if (!f->ended) {
            pthread_cond_timedwait(&f->turn, &f->lock, &at);
        }
        pthread_mutex_unlock(&f->lock);
    }
    return NULL;
}

static void federation_free(struct issuer_federation *f)
{
    federation_stop_done(&f->stop);
    pthread_cond_destroy(&f->turn);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

/* Also without the section: a reload may bring it. */
enum att_rc issuer_federation_start(struct issuer *issuer, struct att_err *err)
{
    struct issuer_federation *f = calloc(1, sizeof *f);
    pthread_condattr_t attr;
    if (!f) {
        return att_fail(err, ATT_E_NOMEM, "federation: no memory");
    }
    f->issuer = issuer;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->turn, &attr);
    pthread_condattr_destroy(&attr);
    federation_stop_init(&f->stop);
    if (pthread_create(&f->thread, NULL, run, f) != 0) {
        federation_free(f);
        return att_fail(err, ATT_E_NOMEM, "federation: no thread");
    }
    issuer->federation = f;
    return ATT_OK;
}

void issuer_federation_stop(struct issuer *issuer)
{
    struct issuer_federation *f = issuer->federation;
    if (!f) {
        return;
    }
    pthread_mutex_lock(&f->lock);
    f->ended = true;
    pthread_cond_broadcast(&f->turn);
    pthread_mutex_unlock(&f->lock);
    federation_stop(&f->stop);
    pthread_join(f->thread, NULL);
    federation_free(f);
    issuer->federation = NULL;
}

/* ---- metrics --------------------------------------------------------------------------------- */

static void put_ages(struct issuer *issuer, struct att_metrics *m)
{
    int64_t now = issuer->clock();
    att_metrics_family(m, "attest_issuer_federation_age_seconds", ATT_GAUGE,
                       "Since the endpoint of a federated trust domain last gave a good bundle.");
    for (size_t i = 0; i < seen.n; i++) {
        if (seen.v[i].fetched_at) {
            att_metrics_value(m, "trust_domain", seen.v[i].name,
                              (double)(now - seen.v[i].fetched_at));
        }
    }
    att_metrics_family(m, "attest_issuer_federation_failures_in_row", ATT_GAUGE,
                       "Looks at the endpoint that failed, since one did not.");
    for (size_t i = 0; i < seen.n; i++) {
        att_metrics_value(m, "trust_domain", seen.v[i].name, (double)seen.v[i].failures);
    }
}

void issuer_federation_metrics(struct issuer *issuer, struct att_metrics *m)
{
    att_metrics_family(m, "attest_issuer_federation_looks", ATT_COUNTER,
                       "Looks at endpoints of federated trust domains, by how they ended.");
    for (size_t i = 0; i < ISSUER_FEDERATION_OUTCOMES; i++) {
        att_metrics_value(m, "outcome", issuer_federation_word((enum issuer_federation_outcome)i),
                          (double)atomic_load(&counts[i]));
    }
    pthread_mutex_lock(&seen.lock);
    put_ages(issuer, m);
    pthread_mutex_unlock(&seen.lock);
}
