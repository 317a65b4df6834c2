#include "provision/issuer/http01.h"

#include "attestd/base/buf.h"
#include "attestd/base/log.h"
#include "provision/issuer/addrs.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WHERE_ROOM 96

struct job {
    struct issuer_http01_request request;
    CURL *curl;
    struct att_buf body;
    size_t heads;
    char refused[WHERE_ROOM]; /* an address or port that was not connected to, and what it is */
    enum { FINE, TOO_BIG, HEADS_TOO_BIG } limit;
    struct job *next;
};

struct issuer_http01 {
    issuer_http01_fn done;
    void *user;
    pthread_t thread;
    bool started;
    CURLM *multi;
    pthread_mutex_t lock;
    struct job *first, **last; /* those that wait; under lock */
    size_t waiting;
    struct job *running; /* changed by the thread only, under lock */
    size_t n_running;
    atomic_int stop;
};

/* ---- what may be connected to
 * ------------------------------------------------------------------------------------ */

static bool port_ok(const struct job *job, unsigned port)
{
    return port == 80 || port == 443 || port == job->request.port;
}

static unsigned port_of(const struct sockaddr *address)
{
    struct sockaddr_in in = {0};
    struct sockaddr_in6 in6 = {0};
    if (address->sa_family == AF_INET) {
        memcpy(&in, address, sizeof in);
        return ntohs(in.sin_port);
    }
    memcpy(&in6, address, sizeof in6);
    return address->sa_family == AF_INET6 ? ntohs(in6.sin6_port) : 0;
}

static void address_text(const struct sockaddr *address, char ret[INET6_ADDRSTRLEN])
{
    struct sockaddr_in in = {0};
    struct sockaddr_in6 in6 = {0};
    ret[0] = 0;
    if (address->sa_family == AF_INET) {
        memcpy(&in, address, sizeof in);
        inet_ntop(AF_INET, &in.sin_addr, ret, INET6_ADDRSTRLEN);
    } else if (address->sa_family == AF_INET6) {
        memcpy(&in6, address, sizeof in6);
        inet_ntop(AF_INET6, &in6.sin6_addr, ret, INET6_ADDRSTRLEN);
    }
}

/* libcurl connects the socket that is made here to this very address. */
static curl_socket_t on_socket(void *user, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct job *job = user;
    char text[INET6_ADDRSTRLEN];
    const struct sockaddr *to = &address->addr;
    const char *what = issuer_addr_refused(to, job->request.allow, job->request.n_allow);
    unsigned port = port_of(to);
    if (purpose != CURLSOCKTYPE_IPCXN || address->socktype != SOCK_STREAM) {
        return CURL_SOCKET_BAD;
    }
    if (what || !port_ok(job, port)) {
        address_text(to, text);
        if (what) {
            snprintf(job->refused, sizeof job->refused, "%s is %s", text, what);
        } else {
            snprintf(job->refused, sizeof job->refused, "port %u is not 80 or 443", port);
        }
        return CURL_SOCKET_BAD;
    }
    job->refused[0] = 0; /* a name may have an address beside this one that is not for us */
    return socket(address->family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, address->protocol);
}

static size_t on_body(char *bytes, size_t size, size_t n, void *user)
{
    struct job *job = user;
    if (size * n > ISSUER_HTTP01_BODY_MAX - job->body.len) {
        job->limit = TOO_BIG;
        return 0;
    }
    att_buf_put(&job->body, bytes, size * n);
    return job->body.failed ? 0 : size * n;
}

static size_t on_head(char *bytes, size_t size, size_t n, void *user)
{
    struct job *job = user;
    (void)bytes;
    job->heads += size * n;
    if (job->heads > ISSUER_HTTP01_HEADS_MAX) {
        job->limit = HEADS_TOO_BIG;
        return 0;
    }
    /* Of a redirect's own body nothing counts. */
    if (n >= 5 && memcmp(bytes, "HTTP/", 5) == 0) {
        att_buf_reset(&job->body);
    }
    return size * n;
}

/* ---- one validation
 * -------------------------------------------------------------------------------------------- */

static void job_free(struct job *job)
{
    if (job) {
        curl_easy_cleanup(job->curl);
        att_buf_done(&job->body);
        free(job);
    }
}

static bool set_up(struct job *job)
{
    char url[512];
    const struct issuer_http01_request *r = &job->request;
    CURL *c = job->curl = curl_easy_init();
    if (!c) {
        return false;
    }
    snprintf(url, sizeof url, "http://%s:%u/.well-known/acme-challenge/%s", r->name, r->port,
             r->token);
    if (r->port == 80) { /* RFC 9110 §7.2: a port that is the default is left out */
        snprintf(url, sizeof url, "http://%s/.well-known/acme-challenge/%s", r->name, r->token);
    }
    bool bad = curl_easy_setopt(c, CURLOPT_URL, url) != CURLE_OK;
    bad |= curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https") != CURLE_OK;
    bad |= curl_easy_setopt(c, CURLOPT_REDIR_PROTOCOLS_STR, "http,https") != CURLE_OK;
    bad |= curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 1L) != CURLE_OK;
    bad |= curl_easy_setopt(c, CURLOPT_MAXREDIRS, (long)ISSUER_HTTP01_REDIRECTS) != CURLE_OK;
    bad |= curl_easy_setopt(c, CURLOPT_PROXY, "") != CURLE_OK;
    bad |= curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L) != CURLE_OK;
    bad |= curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, (long)r->timeout_ms) != CURLE_OK;
    bad |= curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS, (long)r->timeout_ms) != CURLE_OK;
    bad |= curl_easy_setopt(c, CURLOPT_FRESH_CONNECT, 1L) != CURLE_OK;
    bad |= curl_easy_setopt(c, CURLOPT_FORBID_REUSE, 1L) != CURLE_OK;
    bad |= curl_easy_setopt(c, CURLOPT_DNS_CACHE_TIMEOUT, 0L) != CURLE_OK;
    /* A name server that does not answer would keep whoever ends its lookup, which is everybody. */
    bad |= curl_easy_setopt(c, CURLOPT_QUICK_EXIT, 1L) != CURLE_OK;
    bad |= curl_easy_setopt(c, CURLOPT_DISALLOW_USERNAME_IN_URL, 1L) != CURLE_OK;
    bad |= curl_easy_setopt(c, CURLOPT_SSL_VERIFYPEER, 0L) != CURLE_OK;
    bad |= curl_easy_setopt(c, CURLOPT_SSL_VERIFYHOST, 0L) != CURLE_OK;
    bad |= curl_easy_setopt(c, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1) != CURLE_OK;
    bad |= curl_easy_setopt(c, CURLOPT_HTTP09_ALLOWED, 0L) != CURLE_OK;
    bad |= curl_easy_setopt(c, CURLOPT_USERAGENT, "attest-issuerd/" ATT_VERSION) != CURLE_OK;
    bad |= curl_easy_setopt(c, CURLOPT_OPENSOCKETFUNCTION, on_socket) != CURLE_OK;
    bad |= curl_easy_setopt(c, CURLOPT_OPENSOCKETDATA, job) != CURLE_OK;
    bad |= curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body) != CURLE_OK;
    bad |= curl_easy_setopt(c, CURLOPT_WRITEDATA, job) != CURLE_OK;
    bad |= curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_head) != CURLE_OK;
    bad |= curl_easy_setopt(c, CURLOPT_HEADERDATA, job) != CURLE_OK;
    bad |= curl_easy_setopt(c, CURLOPT_PRIVATE, job) != CURLE_OK;
    return !bad;
}

static void failed(const struct job *job, CURLcode code, struct acme_problem *ret)
{
    const char *name = job->request.name;
    if (job->limit) {
        acme_problem_set(ret, ACME_P_UNAUTHORIZED, "%s: its answer's %s of more than %zu bytes",
                         name, job->limit == TOO_BIG ? "body is" : "headers are",
                         job->limit == TOO_BIG ? ISSUER_HTTP01_BODY_MAX : ISSUER_HTTP01_HEADS_MAX);
        return;
    }
    switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
        acme_problem_set(ret, ACME_P_DNS, "%s: no address was found for it", name);
        return;
    case CURLE_TOO_MANY_REDIRECTS:
        acme_problem_set(ret, ACME_P_CONNECTION, "%s: more than %d redirects", name,
                         ISSUER_HTTP01_REDIRECTS);
        return;
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT:
        acme_problem_set(ret, ACME_P_CONNECTION, "%s: redirects elsewhere than http or https",
                         name);
        return;
    case CURLE_OPERATION_TIMEDOUT:
        acme_problem_set(ret, ACME_P_CONNECTION, "%s: did not answer within %lld ms", name,
                         (long long)job->request.timeout_ms);
        return;
    case CURLE_SSL_CONNECT_ERROR:
        acme_problem_set(ret, ACME_P_TLS, "%s: a redirect's TLS handshake failed", name);
        return;
    default:
        /* Of several addresses one may have been refused and another connected to: then the code
         * says what became of that. */
        if (job->refused[0]) {
            acme_problem_set(ret, ACME_P_CONNECTION, "%s: not connected to: %s", name,
                             job->refused);
            return;
        }
        acme_problem_set(ret, ACME_P_CONNECTION, "%s: %s", name, curl_easy_strerror(code));
    }
}

static bool serves(const struct job *job)
{
    struct att_slice body = att_buf_slice(&job->body);
    /* RFC 8555 §8.3: whitespace at the end is ignored. */
    while (body.len && strchr(" \t\r\n", body.ptr[body.len - 1])) {
        body.len--;
    }
    return att_slice_eq(body, att_slice_str(job->request.key_authorization));
}

/* False: with the problem. */
static bool judge(const struct job *job, CURLcode code, struct acme_problem *ret)
{
    long status = 0;
    if (code != CURLE_OK) {
        failed(job, code, ret);
        return false;
    }
    curl_easy_getinfo(job->curl, CURLINFO_RESPONSE_CODE, &status);
    if (status != 200) {
        acme_problem_set(ret, ACME_P_UNAUTHORIZED, "%s: answered with status %ld, expected 200",
                         job->request.name, status);
        return false;
    }
    if (!serves(job)) {
        acme_problem_set(ret, ACME_P_INCORRECT_RESPONSE,
                         "%s: serves something else than the key authorization (%zu bytes)",
                         job->request.name, job->body.len);
        return false;
    }
    return true;
}

/* ---- the thread
 * ------------------------------------------------------------------------------------------------
 */

static void drop(struct issuer_http01 *h, struct job *job)
{
    pthread_mutex_lock(&h->lock);
    struct job **at = &h->running;
    while (*at != job) {
        at = &(*at)->next;
    }
    *at = job->next;
    h->n_running--;
    pthread_mutex_unlock(&h->lock);
}

static void end_job(struct issuer_http01 *h, struct job *job, CURLcode code)
{
    struct acme_problem problem = {0};
    bool good = judge(job, code, &problem);
    curl_multi_remove_handle(h->multi, job->curl);
    drop(h, job);
    h->done(h->user, &job->request, good ? NULL : &problem);
    job_free(job);
}

static void look_at_ends(struct issuer_http01 *h)
{
    CURLMsg *message;
    int left = 0;
    while ((message = curl_multi_info_read(h->multi, &left))) {
        struct job *job = NULL;
        if (message->msg == CURLMSG_DONE) {
            CURLcode code = message->data.result; /* gone with the handle */
            curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &job);
            end_job(h, job, code);
        }
    }
}

/* serverInternal leaves it to the next process. */
static void give_up(struct issuer_http01 *h, struct job *job, enum acme_problem_type type,
                    const char *why)
{
    struct acme_problem problem;
    acme_problem_set(&problem, type, "%s: %s", job->request.name, why);
    h->done(h->user, &job->request, &problem);
    job_free(job);
}

static unsigned running_for(const struct issuer_http01 *h, const char *name)
{
    unsigned n = 0;
    for (const struct job *j = h->running; j; j = j->next) {
        n += strcmp(j->request.name, name) == 0;
    }
    return n;
}

/* The first that may run now; names that have enough running are passed over. */
static struct job *take_next(struct issuer_http01 *h)
{
    struct job *job = NULL;
    pthread_mutex_lock(&h->lock);
    for (struct job **at = &h->first; *at && h->n_running < ISSUER_HTTP01_RUNNING;
         at = &(*at)->next) {
        if (running_for(h, (*at)->request.name) < ISSUER_HTTP01_PER_NAME) {
            job = *at;
            *at = job->next;
            if (!*at) {
                h->last = at;
            }
            h->waiting--;
            job->next = h->running;
            h->running = job;
            h->n_running++;
            break;
        }
    }
    pthread_mutex_unlock(&h->lock);
    return job;
}

static void start_waiting(struct issuer_http01 *h)
{
    struct job *job;
    while ((job = take_next(h))) {
        job->body = ATT_BUF_INIT(ISSUER_HTTP01_BODY_MAX);
        if (!set_up(job) || curl_multi_add_handle(h->multi, job->curl) != CURLM_OK) {
            drop(h, job);
            give_up(h, job, ACME_P_CONNECTION,
                    "the issuer could not start a validation: order anew");
        }
    }
}

static void *run(void *user)
{
    struct issuer_http01 *h = user;
    while (!atomic_load(&h->stop)) {
        int running = 0;
        start_waiting(h);
        (void)curl_multi_perform(h->multi, &running);
        look_at_ends(h);
        (void)curl_multi_poll(h->multi, NULL, 0, 1000, NULL); /* woken by curl_multi_wakeup */
    }
    while (h->running) {
        struct job *job = h->running;
        drop(h, job);
        curl_multi_remove_handle(h->multi, job->curl);
        give_up(h, job, ACME_P_SERVER_INTERNAL, "the issuer was stopped: try again");
    }
    return NULL;
}

/* ---- from outside
 * ---------------------------------------------------------------------------------------------- */

enum att_rc issuer_http01_new(issuer_http01_fn done, void *user, struct issuer_http01 **ret_http01,
                              struct att_err *err)
{
    struct issuer_http01 *h = calloc(1, sizeof *h);
    if (!h ||
        curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) { /* counted, and locked since 7.84 */
        free(h);
        return att_fail(err, ATT_E_NOMEM, "http-01: no memory");
    }
    h->done = done;
    h->user = user;
    h->last = &h->first;
    pthread_mutex_init(&h->lock, NULL);
    h->multi = curl_multi_init();
    if (!h->multi || pthread_create(&h->thread, NULL, run, h)) {
        issuer_http01_free(h);
        return att_fail(err, ATT_E_NOMEM, "http-01: a thread cannot be started");
    }
    h->started = true;
    *ret_http01 = h;
    return ATT_OK;
}

void issuer_http01_free(struct issuer_http01 *h)
{
    if (!h) {
        return;
    }
    atomic_store(&h->stop, 1);
    if (h->started) {
        curl_multi_wakeup(h->multi);
        pthread_join(h->thread, NULL);
    }
    while (h->first) {
        struct job *job = h->first;
        h->first = job->next;
        give_up(h, job, ACME_P_SERVER_INTERNAL, "the issuer was stopped: try again");
    }
    if (h->multi) {
        curl_multi_cleanup(h->multi);
    }
    pthread_mutex_destroy(&h->lock);
    free(h);
}

static bool among(const struct job *job, const char *id)
{
    while (job && strcmp(job->request.id, id) != 0) {
        job = job->next;
    }
    return job != NULL;
}

enum att_rc issuer_http01_start(struct issuer_http01 *h,
                                const struct issuer_http01_request *request, struct att_err *err)
{
    struct job *job = calloc(1, sizeof *job);
    if (!job) {
        return att_fail(err, ATT_E_NOMEM, "http-01: no memory");
    }
    job->request = *request;
    pthread_mutex_lock(&h->lock);
    bool under_way = among(h->running, request->id) || among(h->first, request->id);
    bool full = !under_way && h->waiting >= ISSUER_HTTP01_WAITING;
    if (!full && !under_way) {
        *h->last = job;
        h->last = &job->next;
        h->waiting++;
    }
    pthread_mutex_unlock(&h->lock);
    if (under_way) {
        free(job);
        return ATT_OK;
    }
    if (full) {
        free(job);
        return att_fail(err, ATT_E_RETRY, "%d validations wait already: try again",
                        ISSUER_HTTP01_WAITING);
    }
    curl_multi_wakeup(h->multi);
    return ATT_OK;
}
