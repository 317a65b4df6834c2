#include "provision/issuer/metrics.h"

#include "provision/issuer/ca.h"
#include "provision/issuer/federation.h"
#include "provision/issuer/revoke.h"
#include "provision/issuer/server.h"

#include <stdio.h>
#include <string.h>

#define RESOURCES 48
#define DECISIONS 64
#define REFUSALS  256
#define CLASSES   6
#define OTHER     "other"

/* What stands for a status. */
static const char *const classes[CLASSES] = {"2xx", "3xx", "4xx", "429", "5xx", "503"};

/* A set of words that grows up to its room; what comes after that is "other". */
struct counted {
    char a[40], b[40];
    atomic_ullong n;
};

static struct {
    pthread_mutex_t lock; /* around taking a new place */
    struct {
        const char *name;
        struct att_histogram time;
        atomic_ullong by_class[CLASSES];
    } resources[RESOURCES];
    atomic_size_t n_resources;
    struct counted decisions[DECISIONS], refusals[REFUSALS];
    atomic_size_t n_decisions, n_refusals;
    atomic_ullong nonces[3], limited[ISSUER_LIMITS], proxy[ISSUER_PROXY_RESULTS];
} all = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- counting ----------------------------------------------------------------------------------
 */

static size_t class_of(int status)
{
    return status == 429   ? 3
           : status == 503 ? 5
           : status >= 500 ? 4
           : status >= 400 ? 2
           : status >= 300 ? 1
                           : 0;
}

static size_t find_resource(const char *name)
{
    size_t n = atomic_load(&all.n_resources);
    for (size_t i = 0; i < n; i++) {
        if (strcmp(all.resources[i].name, name) == 0) {
            return i;
        }
    }
    return n;
}

static size_t resource_of(const char *name)
{
    size_t i = find_resource(name);
    if (i < atomic_load(&all.n_resources)) {
        return i;
    }
    pthread_mutex_lock(&all.lock);
    i = find_resource(name); /* another thread may have taken it meanwhile */
    if (i == atomic_load(&all.n_resources)) {
        i = i < RESOURCES - 1 ? i : RESOURCES - 1;
        all.resources[i].name = i < RESOURCES - 1 ? name : OTHER;
        atomic_store(&all.n_resources, i + 1);
    }
    pthread_mutex_unlock(&all.lock);
    return i;
}

void issuer_metrics_request(const char *resource, int status, int64_t us)
{
    size_t i = resource_of(resource);
    att_histogram_add(&all.resources[i].time, us);
    atomic_fetch_add(&all.resources[i].by_class[class_of(status)], 1);
}

static struct counted *find_counted(struct counted *list, size_t n, const char *a, const char *b)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(list[i].a, a) == 0 && strcmp(list[i].b, b) == 0) {
            return &list[i];
        }
    }
    return NULL;
}

static void count(struct counted *list, size_t room, atomic_size_t *n, const char *a, const char *b)
{
    struct counted *at = find_counted(list, atomic_load(n), a, b);
    if (!at) {
        pthread_mutex_lock(&all.lock);
        size_t have = atomic_load(n);
        bool last = have >= room - 1;
        at = find_counted(list, have, last ? OTHER : a, last ? OTHER : b);
        if (!at) {
            at = &list[have];
            snprintf(at->a, sizeof at->a, "%s", last ? OTHER : a);
            snprintf(at->b, sizeof at->b, "%s", last ? OTHER : b);
            atomic_store(n, have + 1);
        }
        pthread_mutex_unlock(&all.lock);
    }
    atomic_fetch_add(&at->n, 1);
}

void issuer_metrics_decision(const char *kind, const char *outcome, const char *reason)
{
    count(all.decisions, DECISIONS, &all.n_decisions, kind, outcome);
    if (strcmp(outcome, "refused") == 0) {
        count(all.refusals, REFUSALS, &all.n_refusals, kind, reason[0] ? reason : OTHER);
    }
}

void issuer_metrics_nonce(enum att_rc rc)
{
    atomic_fetch_add(&all.nonces[rc == ATT_E_PARSE ? 0 : rc == ATT_E_AUTH ? 1 : 2], 1);
}

void issuer_metrics_limited(enum issuer_limit_kind kind)
{
    atomic_fetch_add(&all.limited[kind], 1);
}

void issuer_metrics_proxy(enum issuer_proxy_result why)
{
    atomic_fetch_add(&all.proxy[why], 1);
}

/* ---- writing -----------------------------------------------------------------------------------
 */

static double number(const atomic_ullong *n)
{
    return (double)atomic_load_explicit(n, memory_order_relaxed);
}

static void put_requests(struct att_metrics *m)
{
    size_t n = atomic_load(&all.n_resources);
    att_metrics_family(m, "attest_issuer_requests", ATT_COUNTER,
                       "Requests answered, by resource and class of status.");
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < CLASSES; k++) {
            if (atomic_load(&all.resources[i].by_class[k])) {
                att_metrics_value2(m, "resource", all.resources[i].name, "code", classes[k],
                                   number(&all.resources[i].by_class[k]));
            }
        }
    }
    att_metrics_family(m, "attest_issuer_request_duration_seconds", ATT_HISTOGRAM,
                       "Time from a whole request to its answer (waits for a view not counted).");
    for (size_t i = 0; i < n; i++) {
        att_metrics_histogram(m, "resource", all.resources[i].name, &all.resources[i].time);
    }
}

/* An order's outcomes among the decisions. */
static void put_orders(struct att_metrics *m)
{
    static const char *const outcomes[][3] = {{"ready", "issue", "granted"},
                                              {"refused", "issue", "refused"},
                                              {"issued", "issued", "done"},
                                              {"abandoned", "abandoned", "done"}};
    att_metrics_family(m, "attest_issuer_orders", ATT_COUNTER,
                       "Orders by outcome: verdicts (ready, refused) and signatures.");
    size_t n = atomic_load(&all.n_decisions);
    for (size_t i = 0; i < sizeof outcomes / sizeof outcomes[0]; i++) {
        struct counted *c = find_counted(all.decisions, n, outcomes[i][1], outcomes[i][2]);
        att_metrics_value(m, "outcome", outcomes[i][0], c ? number(&c->n) : 0);
    }
}

static void put_decisions(struct att_metrics *m)
{
    att_metrics_family(m, "attest_issuer_decisions", ATT_COUNTER,
                       "Records of the audit log, by kind and outcome.");
    for (size_t i = 0; i < atomic_load(&all.n_decisions); i++) {
        att_metrics_value2(m, "kind", all.decisions[i].a, "outcome", all.decisions[i].b,
                           number(&all.decisions[i].n));
    }
    att_metrics_family(m, "attest_issuer_refusals", ATT_COUNTER, "Verdicts of no, by reason.");
    for (size_t i = 0; i < atomic_load(&all.n_refusals); i++) {
        att_metrics_value2(m, "kind", all.refusals[i].a, "reason", all.refusals[i].b,
                           number(&all.refusals[i].n));
    }
}

static const char *const limit_words[ISSUER_LIMITS] = {
    [ISSUER_LIMIT_REFUSALS] = "account_refusals",
    [ISSUER_LIMIT_CHANGES] = "account_changes",
    [ISSUER_LIMIT_REFUSED_LOGS] = "refused_logs",
    [ISSUER_LIMIT_NEW_LOGS] = "new_logs",
    [ISSUER_LIMIT_REVOCATIONS] = "revocations",
    [ISSUER_LIMIT_HOST_ORDERS] = "host_orders",
    [ISSUER_LIMIT_HOST_TOKENS] = "host_tokens",
    [ISSUER_LIMIT_HOST_STEP] = "host_step",
    [ISSUER_LIMIT_ADDRESS_STEP] = "address_step",
    [ISSUER_LIMIT_ADDRESS_REQUESTS] = "address_requests",
    [ISSUER_LIMIT_ADDRESS_ACCOUNTS] = "address_accounts",
    [ISSUER_LIMIT_ADMIN_REFUSALS] = "admin_refusals"};

const char *issuer_metrics_limit_word(enum issuer_limit_kind kind)
{
    return limit_words[kind];
}

static void put_refused(struct att_metrics *m)
{
    static const char *const nonces[] = {"malformed", "foreign", "spent"};
    att_metrics_family(m, "attest_issuer_nonces_rejected", ATT_COUNTER,
                       "Nonces refused: no nonce, another issuer's or start's, spent or too old.");
    for (size_t i = 0; i < 3; i++) {
        att_metrics_value(m, "reason", nonces[i], number(&all.nonces[i]));
    }
    att_metrics_family(m, "attest_issuer_limit_reached", ATT_COUNTER,
                       "How often a limit was found reached.");
    for (size_t i = 0; i < ISSUER_LIMITS; i++) {
        att_metrics_value(m, "limit", limit_words[i] ? limit_words[i] : OTHER,
                          number(&all.limited[i]));
    }
}

static void put_proxy(struct att_metrics *m)
{
    att_metrics_family(m, "attest_issuer_proxy_refused", ATT_COUNTER,
                       "Connections of balancers that were ended for their PROXY header.");
    for (size_t i = 0; i < ISSUER_PROXY_RESULTS; i++) {
        const char *word = issuer_proxy_word((enum issuer_proxy_result)i);
        if (word) {
            att_metrics_value(m, "reason", word, number(&all.proxy[i]));
        }
    }
}

static void put_store(struct issuer *issuer, struct att_metrics *m)
{
    const struct store_stats *s = store_stats(issuer->store);
    att_metrics_family(m, "attest_issuer_store_duration_seconds", ATT_HISTOGRAM,
                       "Time of a transaction, from its begin to its commit.");
    att_metrics_histogram(m, "op", "read", &s->read);
    att_metrics_histogram(m, "op", "write", &s->write);
    att_metrics_family(m, "attest_issuer_store_errors", ATT_COUNTER,
                       "Transactions that the store could not carry out.");
    att_metrics_value(m, "kind", "unreachable", number(&s->unreachable));
    att_metrics_value(m, "kind", "failed", number(&s->failed));
    att_metrics_value(m, "kind", "busy", number(&s->busy));
}

/* By the names that ca.status gives them. */
static void put_certificates(struct issuer *issuer, struct att_metrics *m)
{
    att_autojson *list = issuer_ca_status(issuer->ca, issuer->state_dir, issuer->clock());
    att_metrics_family(m, "attest_issuer_certificate_not_after_seconds", ATT_GAUGE,
                       "When the issuer's own certificates end, as Unix time.");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *ca = json_array_get(list, i);
        int64_t at = 0;
        if (!json_is_true(json_object_get(ca, "replaced")) &&
            att_time_parse(issuer_string(ca, "notAfter"), &at, NULL) == ATT_OK) {
            att_metrics_value(m, "certificate", issuer_string(ca, "name"), (double)at);
        }
    }
}

static void put_lists(struct issuer *issuer, struct att_metrics *m)
{
    int64_t now = issuer->clock();
    att_metrics_family(m, "attest_issuer_crl_age_seconds", ATT_GAUGE,
                       "Age of the revocation list that was handed out last.");
    for (size_t i = 0; i < ISSUER_CRLS; i++) {
        int64_t made = issuer_crl_made_at(issuer, (enum issuer_crl_of)i);
        if (made) {
            att_metrics_value(m, "list", issuer_crl_file((enum issuer_crl_of)i),
                              (double)(now - made));
        }
    }
    int64_t published = atomic_load(&issuer->log_published_at);
    att_metrics_family(m, "attest_issuer_log_checkpoint_age_seconds", ATT_GAUGE,
                       "Since all decisions were last known to be published.");
    if (published) {
        att_metrics_value(m, NULL, NULL, (double)(att_now_utc_s() - published));
    }
    att_metrics_family(m, "attest_issuer_log_size", ATT_GAUGE, "Published decisions.");
    att_metrics_value(m, NULL, NULL, (double)atomic_load(&issuer->log_published));
    att_metrics_family(m, "attest_issuer_log_broken", ATT_GAUGE,
                       "1: nothing is published until a restart (docs/AUDIT.md).");
    att_metrics_value(m, NULL, NULL, atomic_load(&issuer->log_broken) ? 1 : 0);
}

static void put_process(struct issuer *issuer, struct att_metrics *m)
{
    att_metrics_family(m, "attest_issuer_info", ATT_GAUGE, "The version that runs.");
    att_metrics_value(m, "version", ATT_VERSION, 1);
    att_metrics_family(m, "attest_issuer_start_time_seconds", ATT_GAUGE, "Start, as Unix time.");
    att_metrics_value(m, NULL, NULL, (double)issuer->started_at);
    att_metrics_family(m, "attest_issuer_ready", ATT_GAUGE, "What /ready says.");
    att_metrics_value(m, NULL, NULL, issuer_health_why(issuer) ? 0 : 1);
    att_metrics_family(m, "attest_issuer_connections", ATT_GAUGE, "Connections that are open.");
    att_metrics_value(m, NULL, NULL, (double)atomic_load(&issuer->counters.connections));
    att_metrics_family(m, "attest_issuer_connections_max", ATT_GAUGE,
                       "Connections for which there is room.");
    pthread_mutex_lock(&issuer->lock);
    unsigned most = issuer->server ? issuer_server_most(issuer->server) : 0;
    pthread_mutex_unlock(&issuer->lock);
    att_metrics_value(m, NULL, NULL, (double)most);
    att_metrics_family(m, "attest_issuer_certificates_issued", ATT_COUNTER,
                       "Certificates issued by this process.");
    att_metrics_value(m, NULL, NULL, (double)atomic_load(&issuer->counters.issued));
    att_metrics_family(m, "attest_issuer_intents_waiting", ATT_GAUGE,
                       "1: signatures were interrupted, and are tried again.");
    att_metrics_value(m, NULL, NULL, atomic_load(&issuer->intents_left) ? 1 : 0);
}

enum att_rc issuer_metrics_write(struct issuer *issuer, enum att_metrics_form form,
                                 struct att_buf *ret_text, struct att_err *err)
{
    struct att_metrics m = {.out = ret_text, .form = form};
    put_process(issuer, &m);
    put_requests(&m);
    put_orders(&m);
    put_decisions(&m);
    put_refused(&m);
    put_proxy(&m);
    put_store(issuer, &m);
    put_certificates(issuer, &m);
    put_lists(issuer, &m);
    issuer_federation_metrics(issuer, &m);
    att_metrics_end(&m);
    return att_buf_ok(ret_text, err);
}
