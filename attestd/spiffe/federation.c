/* Other trust domains' bundles, and which agents are given which. Read from attestd one by one into
 * a second set, which takes the place of the first when it is whole. */
#include "attestd/spiffe/service.h"

#include "attestd/base/clock.h"
#include "attestd/base/hash.h"
#include "attestd/base/log.h"
#include "attestd/spiffe/sds_secret.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PEM_MAX ((size_t)2 * PROC_FEDERATED_DER_MAX)

static void set_free(struct federated_set *set)
{
    for (size_t i = 0; set && i < set->n; i++) {
        struct federated *one = &set->v[i];
        att_buf_done(&one->roots);
        att_buf_done(&one->pem);
        att_buf_done(&one->keys);
        att_buf_done(&one->agents);
        oidc_jwks_free(one->jwks);
    }
    free(set);
}

void spiffed_federation_done(struct federation *federation)
{
    ask_forget(federation->asking);
    set_free(federation->now);
    set_free(federation->coming);
}

/* ---- who has what ---------------------------------------------------------------------------- */

static bool gives_to(const struct federated *one, const char *agent)
{
    size_t len = strlen(agent);
    struct att_slice left = att_buf_slice(&one->agents);
    while (left.len > 0) {
        const uint8_t *end = memchr(left.ptr, '\n', left.len);
        size_t name = end ? (size_t)(end - left.ptr) : left.len;
        if (name == len && memcmp(left.ptr, agent, len) == 0) {
            return true;
        }
        left = end ? ATT_SLICE(end + 1, left.len - name - 1) : (struct att_slice){0};
    }
    return false;
}

const struct federated *spiffed_federated(const struct spiffed *spiffed, const struct agent *agent,
                                          size_t *at)
{
    const struct federated_set *set = spiffed->federation.now;
    while (set && agent && *at < set->n) {
        const struct federated *one = &set->v[(*at)++];
        if (gives_to(one, agent->name)) {
            return one;
        }
    }
    return NULL;
}

const struct federated *spiffed_federated_by(const struct spiffed *spiffed,
                                             const struct agent *agent, const char *trust_domain,
                                             size_t len)
{
    size_t at = 0;
    const struct federated *one;
    while ((one = spiffed_federated(spiffed, agent, &at))) {
        if (strlen(one->trust_domain) == len && memcmp(one->trust_domain, trust_domain, len) == 0) {
            return one;
        }
    }
    return NULL;
}

static uint64_t mix(uint64_t number, uint64_t with)
{
    return number * 1099511628211U + with;
}

uint64_t spiffed_federated_roots(const struct spiffed *spiffed, const struct agent *agent)
{
    size_t at = 0;
    uint64_t number = 0;
    const struct federated *one;
    while ((one = spiffed_federated(spiffed, agent, &at))) {
        number = one->roots.len ? mix(number, one->roots_number) : number;
    }
    return number;
}

uint64_t spiffed_federated_keys(const struct spiffed *spiffed, const struct agent *agent)
{
    size_t at = 0;
    uint64_t number = 0;
    const struct federated *one;
    while ((one = spiffed_federated(spiffed, agent, &at))) {
        number = mix(number, one->keys_number);
    }
    return number;
}

bool spiffed_federation_known(const struct spiffed *spiffed)
{
    return spiffed->federation.there;
}

/* ---- reading them ---------------------------------------------------------------------------- */

static void look_again(struct spiffed *spiffed)
{
    struct peer *next;
    for (struct peer *peer = spiffed->peers; peer; peer = next) {
        next = peer->next;
        for (struct job *job = peer->jobs; job; job = job->next) {
            job->due = job->due || job->kind == JOB_X509_SVID || job->kind == JOB_X509_BUNDLES ||
                       job->kind == JOB_JWT_BUNDLES || spiffed_sds_is(job);
        }
        spiffed_peer_pump(peer);
    }
}

static void complete(struct spiffed *spiffed)
{
    struct federation *federation = &spiffed->federation;
    bool other = !federation->there || federation->number != federation->coming_number;
    set_free(federation->now);
    federation->now = federation->coming;
    federation->coming = NULL;
    federation->number = federation->coming_number;
    federation->known = federation->asked;
    federation->there = true;
    if (other) {
        look_again(spiffed);
    }
}

static void later(struct spiffed *spiffed)
{
    set_free(spiffed->federation.coming);
    spiffed->federation.coming = NULL;
    spiffed->federation.retry_ms = att_boottime_ms() + RETRY_MS;
}

static uint64_t number_of(const char *trust_domain, struct att_slice bytes)
{
    uint8_t sha256[ATT_SHA256_LEN];
    const struct att_slice parts[] = {att_slice_str(trust_domain), ATT_SLICE_LIT("\n"), bytes};
    att_sha256_v(sha256, parts, sizeof parts / sizeof parts[0]);
    struct att_cur cur = att_cur_init(ATT_SLICE_ARRAY(sha256));
    return att_cur_be64(&cur);
}

/* The next one of the set that is coming. False: no memory, or it is not what it should be. */
static bool take(struct federated_set *set, const struct proc_value *v)
{
    struct federated *one = &set->v[set->n++];
    struct proc_value roots = v[PROC_WORKLOAD_FEDERATION_REP_ROOTS];
    struct att_err err = {0};
    proc_take_text(v[PROC_WORKLOAD_FEDERATION_REP_TRUST_DOMAIN].bytes, one->trust_domain,
                   sizeof one->trust_domain);
    one->roots = ATT_BUF_INIT(PROC_FEDERATED_DER_MAX);
    one->pem = ATT_BUF_INIT(PEM_MAX);
    one->keys = ATT_BUF_INIT(PROC_JWT_KEYS_MAX);
    one->agents = ATT_BUF_INIT(PROC_FEDERATED_AGENTS_MAX);
    for (size_t i = 0; i < roots.item_count; i++) {
        att_buf_put_slice(&one->roots, roots.items[i]);
    }
    att_buf_put_slice(&one->keys, v[PROC_WORKLOAD_FEDERATION_REP_KEYS].bytes);
    att_buf_put_slice(&one->agents, v[PROC_WORKLOAD_FEDERATION_REP_AGENTS].bytes);
    one->roots_number = number_of(one->trust_domain, att_buf_slice(&one->roots));
    one->keys_number = number_of(one->trust_domain, att_buf_slice(&one->keys));
    /* Without a key that verifies here: its tokens are refused, and others may read the set. */
    (void)!oidc_jwks_parse(att_buf_slice(&one->keys), &one->jwks, NULL);
    return !one->roots.failed && !one->keys.failed && !one->agents.failed &&
           sds_pem_put(&one->pem, "CERTIFICATE", att_buf_slice(&one->roots), &err) == ATT_OK;
}

static void ask_next(struct spiffed *spiffed);

static void heard(void *user, enum att_rc rc, const struct proc_msg *reply,
                  const struct att_err *err)
{
    struct spiffed *spiffed = user;
    struct federation *federation = &spiffed->federation;
    struct federated_set *set = federation->coming;
    federation->asking = NULL;
    if (rc == ATT_E_UNSUPPORTED || (rc == ATT_E_PROTOCOL && !federation->there && !set->n)) {
        set_free(set); /* an attestd of before this one, or a part of another's */
        federation->coming = NULL;
        federation->coming_number = 0;
        complete(spiffed);
        return;
    }
    if (rc != ATT_OK) {
        if (!federation->there) {
            att_log_err(ATT_WARN, "spiffed.federation", err);
        }
        later(spiffed);
        return;
    }
    uint64_t number = reply->v[PROC_WORKLOAD_FEDERATION_REP_NUMBER].num;
    size_t count = (size_t)reply->v[PROC_WORKLOAD_FEDERATION_REP_COUNT].num;
    /* Another view came in between; or attestd has just started, and knows none yet: what it said
     * before holds. */
    if ((set->n > 0 && number != federation->coming_number) || (!number && federation->there)) {
        later(spiffed);
        return;
    }
    federation->coming_number = number;
    if (count > set->n && !take(set, reply->v)) {
        later(spiffed);
    } else if (count > set->n) {
        ask_next(spiffed);
    } else {
        complete(spiffed);
    }
}

static void ask_next(struct spiffed *spiffed)
{
    struct federation *federation = &spiffed->federation;
    const struct proc_value values[] = {[PROC_WORKLOAD_FEDERATION_REQ_INDEX] =
                                            proc_num(federation->coming->n)};
    if (ask_call(spiffed->views, PROC_WORKLOAD_FEDERATION, values, 1, -1, NULL, heard, spiffed,
                 &federation->asking, NULL) != ATT_OK) {
        later(spiffed);
    }
}

void spiffed_federation_refresh(struct spiffed *spiffed)
{
    struct federation *federation = &spiffed->federation;
    bool known = federation->there && federation->known == spiffed->standing;
    if (federation->asking || known || att_boottime_ms() < federation->retry_ms) {
        return;
    }
    set_free(federation->coming);
    federation->coming = calloc(1, sizeof *federation->coming);
    if (!federation->coming) {
        later(spiffed);
        return;
    }
    federation->asked = spiffed->standing;
    ask_next(spiffed);
}
