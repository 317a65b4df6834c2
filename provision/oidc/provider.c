#include "provision/oidc/provider.h"

#include "attestd/base/clock.h"
#include "attestd/base/io.h"
#include "attestd/base/log.h"
#include "provision/acme/http.h"
#include "provision/acme/member.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define REFRESH_MS    600000
#define UNKNOWN_MS    10000
#define STALE_MS      86400000
#define FETCH_MS      10000
#define FILE_LOOK_MS  1000
#define ISSUER_SUFFIX "/.well-known/openid-configuration"

/* What tells one content of a file from another without reading it. */
struct stamp {
    dev_t dev;
    ino_t ino;
    off_t size;
    struct timespec at;
};

struct oidc_provider {
    char *issuer, *jwks_file;
    int64_t refresh_ms, unknown_ms, stale_ms;
    int fetch_timeout_ms;
    pthread_mutex_t lock;
    pthread_cond_t turn;
    struct oidc_jwks *jwks; /* NULL: none yet */
    int64_t have_ms;        /* since when, by the boot clock */
    /* a file */
    struct stamp stamp;
    int64_t look_ms;
    /* fetching */
    struct acme_http *http;
    pthread_t thread;
    bool started, stop, wanted, fetching;
    int64_t begun_ms; /* the last fetch; 0: none */
    uint64_t fetches;
};

/* ---- life ----------------------------------------------------------------------------------- */

static enum att_rc read_file(struct oidc_provider *p, struct att_err *err)
{
    struct stat st;
    struct oidc_jwks *jwks = NULL;
    att_autobuf text = ATT_BUF_INIT(OIDC_JWKS_MAX + 1);
    if (stat(p->jwks_file, &st) != 0) {
        return att_fail_errno(err, ATT_E_IO, "%s", p->jwks_file);
    }
    enum att_rc rc = att_io_read_file(p->jwks_file, OIDC_JWKS_MAX, &text, err);
    rc = rc ? rc : oidc_jwks_parse(att_buf_slice(&text), &jwks, err);
    if (rc) {
        att_err_prefix(err, "%s", p->jwks_file);
        return rc;
    }
    oidc_jwks_free(p->jwks);
    p->jwks = jwks;
    p->have_ms = att_boottime_ms();
    p->stamp = (struct stamp){st.st_dev, st.st_ino, st.st_size, st.st_mtim};
    return ATT_OK;
}

static int64_t or_default(int64_t value, int64_t otherwise)
{
    return value > 0 ? value : otherwise;
}

enum att_rc oidc_provider_new(const struct oidc_provider_config *config,
                              struct oidc_provider **ret_provider, struct att_err *err)
{
    struct oidc_provider *p = calloc(1, sizeof *p);
    if (!p) {
        return att_fail(err, ATT_E_NOMEM, "OpenID provider: no memory");
    }
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->turn, &attr);
    pthread_condattr_destroy(&attr);
    p->refresh_ms = or_default(config->refresh_ms, REFRESH_MS);
    p->unknown_ms = or_default(config->unknown_ms, UNKNOWN_MS);
    p->stale_ms = or_default(config->stale_ms, STALE_MS);
    p->fetch_timeout_ms = config->fetch_timeout_ms > 0 ? config->fetch_timeout_ms : FETCH_MS;
    p->issuer = strdup(config->issuer);
    p->jwks_file = config->jwks_file ? strdup(config->jwks_file) : NULL;
    enum att_rc rc = !p->issuer || (config->jwks_file && !p->jwks_file)
                         ? att_fail(err, ATT_E_NOMEM, "OpenID provider: no memory")
                         : ATT_OK;
    if (!rc && p->jwks_file) {
        rc = read_file(p, err);
    } else if (!rc) {
        rc = acme_http_new(&(struct acme_http_config){.ca_file = config->ca_file,
                                                      .connect_timeout_ms = p->fetch_timeout_ms},
                           &p->http, err);
    }
    if (rc) {
        oidc_provider_free(p);
        return rc;
    }
    *ret_provider = p;
    return ATT_OK;
}

void oidc_provider_free(struct oidc_provider *p)
{
    if (!p) {
        return;
    }
    if (p->started) {
        pthread_mutex_lock(&p->lock);
        p->stop = true;
        pthread_cond_broadcast(&p->turn);
        pthread_mutex_unlock(&p->lock);
        acme_http_cancel(p->http, true);
        pthread_join(p->thread, NULL);
    }
    acme_http_free(p->http);
    oidc_jwks_free(p->jwks);
    pthread_cond_destroy(&p->turn);
    pthread_mutex_destroy(&p->lock);
    free(p->issuer);
    free(p->jwks_file);
    free(p);
}

/* ---- fetching ------------------------------------------------------------------------------- */

static enum att_rc bad_discovery(struct att_err *err, const char *what)
{
    enum att_rc rc = att_fail(err, ATT_E_PARSE, "discovery document: %s", what);
    att_err_reason(err, "discovery");
    return rc;
}

enum att_rc oidc_discovery_parse(struct att_slice text, const char *issuer, char **ret_jwks_uri,
                                 struct att_err *err)
{
    att_autojson *json = NULL;
    if (att_json_parse_few(text, OIDC_DISCOVERY_MAX, 2048, &json, NULL) || !json_is_object(json)) {
        return bad_discovery(err, "not a JSON object without duplicates");
    }
    const char *iss = json_string_value(json_object_get(json, "issuer"));
    const char *uri = json_string_value(json_object_get(json, "jwks_uri"));
    if (!iss || strcmp(iss, issuer) != 0) {
        return bad_discovery(err, "it is another issuer's");
    }
    if (!uri || !acme_url_ok(uri)) {
        return bad_discovery(err, "its jwks_uri is not an https address");
    }
    char *copy = strdup(uri);
    if (!copy) {
        return att_fail(err, ATT_E_NOMEM, "discovery document: no memory");
    }
    *ret_jwks_uri = copy;
    return ATT_OK;
}

static enum att_rc get(struct oidc_provider *p, const char *url, size_t max, struct att_buf *ret,
                       struct att_err *err)
{
    struct acme_http_response response = {0};
    const struct acme_http_request request = {.method = "GET",
                                              .url = url,
                                              .accept = "application/json",
                                              .max_body = max,
                                              .timeout_ms = p->fetch_timeout_ms};
    enum att_rc rc = acme_http_perform(p->http, &request, &response, err);
    if (!rc && response.status != 200) {
        rc = att_fail(err, ATT_E_PROTOCOL, "%s: HTTP status %d", url, response.status);
    }
    if (!rc) {
        *ret = response.body;
        response.body = (struct att_buf){0};
    }
    acme_http_response_done(&response);
    return rc;
}

static enum att_rc fetch(struct oidc_provider *p, struct oidc_jwks **ret_jwks, struct att_err *err)
{
    char url[OIDC_ISSUER_MAX + sizeof ISSUER_SUFFIX];
    att_autobuf found = {0}, keys = {0};
    char *uri = NULL;
    size_t len = strlen(p->issuer);
    /* §4.1: a "/" that ends the issuer is taken away first. */
    len -= len > 0 && p->issuer[len - 1] == '/';
    snprintf(url, sizeof url, "%.*s%s", (int)len, p->issuer, ISSUER_SUFFIX);
    enum att_rc rc = get(p, url, OIDC_DISCOVERY_MAX, &found, err);
    rc = rc ? rc : oidc_discovery_parse(att_buf_slice(&found), p->issuer, &uri, err);
    rc = rc ? rc : get(p, uri, OIDC_JWKS_MAX, &keys, err);
    rc = rc ? rc : oidc_jwks_parse(att_buf_slice(&keys), ret_jwks, err);
    free(uri);
    return rc;
}

/* With the lock. Until when there is nothing to do, by the boot clock. */
static int64_t next_ms(const struct oidc_provider *p)
{
    bool failed = !p->jwks || p->begun_ms > p->have_ms;
    int64_t pause = p->wanted || failed ? p->unknown_ms : p->refresh_ms;
    return p->begun_ms ? p->begun_ms + pause : 0;
}

static void take(struct oidc_provider *p, struct oidc_jwks *jwks, const struct att_err *err)
{
    if (!jwks) {
        if (!p->stop) {
            att_log_err(ATT_WARN, "oidc.keys", err);
        }
        return;
    }
    oidc_jwks_free(p->jwks);
    p->jwks = jwks;
    p->have_ms = att_boottime_ms();
    att_log(ATT_INFO, "oidc.keys", ATT_S("issuer", p->issuer), ATT_N("keys", jwks->n),
            ATT_N("skipped", jwks->skipped));
}

static void *run(void *user)
{
    struct oidc_provider *p = user;
    pthread_mutex_lock(&p->lock);
    while (!p->stop) {
        int64_t now = att_boottime_ms(), until = next_ms(p);
        if (until > now) {
            struct timespec at;
            int64_t wait = until - now < 60000 ? until - now : 60000; /* the clocks may differ */
            clock_gettime(CLOCK_MONOTONIC, &at);
            at.tv_sec += wait / 1000;
            at.tv_nsec += wait % 1000 * 1000000;
            at.tv_sec += at.tv_nsec / 1000000000;
            at.tv_nsec %= 1000000000;
            pthread_cond_timedwait(&p->turn, &p->lock, &at);
            continue;
        }
        struct oidc_jwks *jwks = NULL;
        struct att_err err = {0};
        p->begun_ms = now ? now : 1;
        p->fetches++;
        p->wanted = false;
        p->fetching = true;
        pthread_mutex_unlock(&p->lock);
        (void)!fetch(p, &jwks, &err);
        pthread_mutex_lock(&p->lock);
        p->fetching = false;
        take(p, jwks, &err);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

static void start(struct oidc_provider *p)
{
    if (!p->jwks_file && !p->started) {
        p->started = pthread_create(&p->thread, NULL, run, p) == 0;
    }
}

void oidc_provider_start(struct oidc_provider *p)
{
    pthread_mutex_lock(&p->lock);
    start(p);
    pthread_mutex_unlock(&p->lock);
}

uint64_t oidc_provider_fetches(struct oidc_provider *p)
{
    pthread_mutex_lock(&p->lock);
    uint64_t n = p->fetches;
    pthread_mutex_unlock(&p->lock);
    return n;
}

/* ---- asking --------------------------------------------------------------------------------- */

static enum att_rc refuse(struct att_err *err, enum att_rc rc, const char *reason, const char *what)
{
    rc = att_fail(err, rc, "token: %s", what);
    att_err_reason(err, reason);
    return rc;
}

/* A file that was replaced is read again; a bad one is told of, and what was there stays. */
static void look_at_file(struct oidc_provider *p)
{
    struct stat st;
    struct att_err err = {0};
    int64_t now = att_boottime_ms();
    if (p->look_ms && now - p->look_ms < FILE_LOOK_MS) {
        return;
    }
    p->look_ms = now;
    const struct stamp *have = &p->stamp;
    if (stat(p->jwks_file, &st) != 0 ||
        (st.st_dev == have->dev && st.st_ino == have->ino && st.st_size == have->size &&
         st.st_mtim.tv_sec == have->at.tv_sec && st.st_mtim.tv_nsec == have->at.tv_nsec)) {
        return;
    }
    if (read_file(p, &err)) {
        p->stamp = (struct stamp){st.st_dev, st.st_ino, st.st_size, st.st_mtim};
        att_log_err(ATT_ERROR, "oidc.keys", &err);
    }
}

/* With the lock: nobody knows this kid (yet). */
static enum att_rc unknown(struct oidc_provider *p, struct att_err *err)
{
    bool due = !p->jwks_file &&
               (p->fetching || !p->begun_ms || att_boottime_ms() >= p->begun_ms + p->unknown_ms);
    if (due || (!p->jwks_file && !p->jwks)) {
        p->wanted = p->wanted || !p->fetching;
        pthread_cond_broadcast(&p->turn);
        return refuse(err, ATT_E_RETRY, "keysPending",
                      "the provider's keys are being fetched: try again in a second");
    }
    return refuse(err, ATT_E_AUTH, "tokenKid", "the provider has no key of its kid");
}

static enum att_rc find(struct oidc_provider *p, const char *kid, enum oidc_alg alg,
                        EVP_PKEY **ret_key, struct att_err *err)
{
    const struct oidc_key *key = oidc_jwks_find(p->jwks, kid);
    if (!key) {
        return unknown(p, err);
    }
    if (!p->jwks_file && att_boottime_ms() - p->have_ms > p->stale_ms) {
        return refuse(err, ATT_E_AUTH, "keysStale",
                      "the provider's keys could not be fetched for too long");
    }
    if (!(key->algs & (unsigned)alg)) {
        return refuse(err, ATT_E_AUTH, "tokenAlg", "its alg is not one of its key's");
    }
    EVP_PKEY_up_ref(key->pkey);
    *ret_key = key->pkey;
    return ATT_OK;
}

enum att_rc oidc_provider_key(struct oidc_provider *p, const char *kid, enum oidc_alg alg,
                              EVP_PKEY **ret_key, struct att_err *err)
{
    pthread_mutex_lock(&p->lock);
    if (p->jwks_file) {
        look_at_file(p);
    }
    start(p);
    enum att_rc rc = find(p, kid, alg, ret_key, err);
    pthread_mutex_unlock(&p->lock);
    return rc;
}
