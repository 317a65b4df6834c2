/* Has anything changed? One question waits at attestd all the time (WATCH). The trust domain's
 * roots and revocation list, as one encoded answer for all. */
#include "attestd/spiffe/service.h"

#include "attestd/base/clock.h"
#include "attestd/base/hash.h"
#include "attestd/base/log.h"
#include "workload.pb-c.h"

#include <stdio.h>
#include <string.h>

#define ROOTS_MAX ((size_t)PROC_BUNDLE_MAX * PROC_CERT_MAX)
#define CRLS_MAX  SPIFFED_CRLS_MAX
#define SVID_MAX  ((size_t)PROC_CHAIN_MAX * PROC_CERT_MAX)
#define CRL_MAX   (GRPC_ANSWER_MAX - ROOTS_MAX - SVID_MAX - 8192) /* what an answer has room for */

/* ---- the bundle ---------------------------------------------------------------------------- */

void spiffed_bundle_done(struct bundle *bundle)
{
    ask_forget(bundle->asking);
    att_buf_done(&bundle->roots);
    att_buf_done(&bundle->crl);
    att_buf_done(&bundle->crl_coming);
    grpc_bytes_unref(bundle->message);
}

/* attestd's lists come as DER, one behind the other: each a SEQUENCE with its length. */
static size_t split_lists(struct att_slice all, ProtobufCBinaryData ret[CRLS_MAX])
{
    size_t n = 0;
    for (struct att_cur cur = att_cur_init(all); cur.left > 0 && n < CRLS_MAX; n++) {
        const uint8_t *begin = cur.ptr;
        (void)att_cur_u8(&cur);
        size_t len = att_cur_u8(&cur);
        if (len > 0x80) {
            struct att_cur octets = att_cur_init(att_cur_take(&cur, len & 0x7f));
            for (len = 0; octets.left > 0 && !octets.failed && len < CRL_MAX;) {
                len = len << 8 | att_cur_u8(&octets);
            }
        }
        (void)att_cur_take(&cur, len);
        if (cur.failed) {
            return n;
        }
        ret[n] = (ProtobufCBinaryData){(size_t)(cur.ptr - begin), (uint8_t *)(uintptr_t)begin};
    }
    return n;
}

size_t spiffed_bundle_lists(const struct bundle *bundle, ProtobufCBinaryData ret[SPIFFED_CRLS_MAX])
{
    return split_lists(att_buf_slice(&bundle->crl), ret);
}

/* Whose messages have the bundle in them. */
static bool of_bundle(const struct job *job)
{
    return job->kind == JOB_X509_BUNDLES || job->kind == JOB_X509_SVID || spiffed_sds_is(job);
}

/* One place in the message's map. */
struct place {
    char id[sizeof "spiffe://" + PROC_TRUST_DOMAIN_MAX];
    X509BundlesResponse__BundlesEntry entry;
};

static void fill(struct place *place, const char *trust_domain, const struct att_buf *roots)
{
    snprintf(place->id, sizeof place->id, "spiffe://%s", trust_domain);
    protobuf_c_message_init(&x509_bundles_response__bundles_entry__descriptor, &place->entry);
    place->entry.key = place->id;
    place->entry.value = (ProtobufCBinaryData){roots->len, roots->ptr};
}

/* agent NULL: the own trust domain's alone. */
static struct grpc_bytes *encode(const struct spiffed *spiffed, const struct agent *agent)
{
    const struct bundle *bundle = &spiffed->bundle;
    struct place places[1 + PROC_FEDERATED_MAX];
    X509BundlesResponse message = X509_BUNDLES_RESPONSE__INIT;
    X509BundlesResponse__BundlesEntry *entries[1 + PROC_FEDERATED_MAX];
    ProtobufCBinaryData crls[CRLS_MAX];
    const struct federated *one;
    size_t n = 0, at = 0;
    fill(&places[n++], bundle->trust_domain, &bundle->roots);
    while ((one = spiffed_federated(spiffed, agent, &at))) {
        if (one->roots.len) {
            fill(&places[n++], one->trust_domain, &one->roots);
        }
    }
    for (size_t i = 0; i < n; i++) {
        entries[i] = &places[i].entry;
    }
    message.bundles = entries;
    message.n_bundles = n;
    message.crl = crls;
    message.n_crl = spiffed_bundle_lists(bundle, crls);
    struct grpc_bytes *bytes = grpc_bytes_new(protobuf_c_message_get_packed_size(&message.base));
    if (bytes) {
        (void)protobuf_c_message_pack(&message.base, bytes->data + 5);
    }
    return bytes;
}

static uint64_t generation_of(const struct grpc_bytes *bytes)
{
    uint8_t sha256[ATT_SHA256_LEN];
    att_sha256(sha256, ATT_SLICE(bytes->data, bytes->len));
    struct att_cur cur = att_cur_init(ATT_SLICE_ARRAY(sha256));
    return att_cur_be64(&cur);
}

uint64_t spiffed_bundle_number(const struct spiffed *spiffed, const struct agent *agent)
{
    return spiffed->bundle.generation ^ spiffed_federated_roots(spiffed, agent);
}

/* One that no answer has room for with the others' bundles is given without them. */
struct grpc_bytes *spiffed_bundle_message(const struct spiffed *spiffed, const struct agent *agent)
{
    struct grpc_bytes *bytes =
        spiffed_federated_roots(spiffed, agent) ? encode(spiffed, agent) : NULL;
    if (!bytes && spiffed_federated_roots(spiffed, agent)) {
        const struct att_err large = {.rc = ATT_E_LIMIT,
                                      .reason = "federationTooLong",
                                      .msg = "the revocation lists and the bundles of other trust "
                                             "domains are longer than an answer may be"};
        att_log_err(ATT_ERROR, "spiffed.bundle", &large);
    }
    return bytes ? bytes : grpc_bytes_ref(spiffed->bundle.message);
}

static void pump_all(struct spiffed *spiffed)
{
    struct peer *next;
    for (struct peer *peer = spiffed->peers; peer; peer = next) {
        next = peer->next;
        for (struct job *job = peer->jobs; job; job = job->next) {
            job->due = job->due || job->kind == JOB_X509_SVID || spiffed_sds_is(job) ||
                       (job->kind == JOB_X509_BUNDLES &&
                        job->generation != spiffed_bundle_number(spiffed, peer->agent));
        }
        spiffed_peer_pump(peer);
    }
}

static void complete(struct spiffed *spiffed)
{
    struct bundle *bundle = &spiffed->bundle;
    struct grpc_bytes *bytes = encode(spiffed, NULL);
    if (!bytes) {
        bundle->retry_ms = att_boottime_ms() + RETRY_MS;
        return;
    }
    grpc_bytes_unref(bundle->message);
    bundle->message = bytes;
    bundle->generation = generation_of(bytes);
    bundle->known = bundle->asked;
    pump_all(spiffed);
}

/* Who has no bundle yet is told; others keep what they have, and it is asked again. */
static void failed(struct spiffed *spiffed, const struct att_err *err)
{
    spiffed->bundle.retry_ms = att_boottime_ms() + RETRY_MS;
    for (struct peer *peer = spiffed->peers; peer && !spiffed->bundle.message; peer = peer->next) {
        for (struct job *job = peer->jobs; job; job = job->next) {
            if (of_bundle(job) && job->due && !job->sent) {
                spiffed_finish_err(job, ATT_E_UNREACHABLE, err);
            }
        }
    }
}

static void ask_crl(struct spiffed *spiffed);

static void heard_crl(void *user, enum att_rc rc, const struct proc_msg *reply,
                      const struct att_err *err)
{
    struct spiffed *spiffed = user;
    struct bundle *bundle = &spiffed->bundle;
    bundle->asking = NULL;
    if (rc != ATT_OK) { /* another list by now: from the beginning, at the next step */
        failed(spiffed, err);
        return;
    }
    att_buf_put_slice(&bundle->crl_coming, reply->v[PROC_WORKLOAD_CRL_REP_BYTES].bytes);
    if (bundle->crl_coming.failed || bundle->crl_coming.len > bundle->crl_size) {
        const struct att_err wrong = {.rc = ATT_E_PROTOCOL, .msg = "the revocation list's size"};
        failed(spiffed, &wrong);
    } else if (bundle->crl_coming.len < bundle->crl_size) {
        ask_crl(spiffed);
    } else {
        att_buf_done(&bundle->crl);
        bundle->crl = bundle->crl_coming;
        bundle->crl_coming = (struct att_buf){0};
        bundle->crl_has = bundle->crl_number;
        complete(spiffed);
    }
}

static void ask_crl(struct spiffed *spiffed)
{
    struct bundle *bundle = &spiffed->bundle;
    struct att_err err = {0};
    const struct proc_value values[] = {
        [PROC_WORKLOAD_CRL_REQ_NUMBER] = proc_num(bundle->crl_number),
        [PROC_WORKLOAD_CRL_REQ_OFFSET] = proc_num(bundle->crl_coming.len)};
    if (ask_call(spiffed->views, PROC_WORKLOAD_CRL, values, 2, -1, NULL, heard_crl, spiffed,
                 &bundle->asking, &err) != ATT_OK) {
        failed(spiffed, &err);
    }
}

/* Lists that no answer has room for: those that were served before stay, beside the roots as they
 * are now. Who never had one gets no bundle: peers would take it for one without revocations. */
static void take_crl(struct spiffed *spiffed)
{
    struct bundle *bundle = &spiffed->bundle;
    att_buf_done(&bundle->crl_coming);
    if (bundle->crl_size == 0 || (bundle->crl.len && bundle->crl_number == bundle->crl_has)) {
        complete(spiffed); /* a list is not unsaid: attestd has just started, and fetches it */
    } else if (bundle->crl_size > CRL_MAX) {
        const struct att_err large = {.rc = ATT_E_LIMIT,
                                      .reason = "crlTooLong",
                                      .msg = "the revocation list is longer than an answer may be"};
        att_log_err(ATT_ERROR, "spiffed.bundle", &large);
        if (bundle->crl.len) {
            complete(spiffed); /* asked again when anything in force has changed */
        } else {
            failed(spiffed, &large);
        }
    } else {
        bundle->crl_coming = ATT_BUF_INIT(CRL_MAX);
        ask_crl(spiffed);
    }
}

static void heard_bundle(void *user, enum att_rc rc, const struct proc_msg *reply,
                         const struct att_err *err)
{
    struct spiffed *spiffed = user;
    struct bundle *bundle = &spiffed->bundle;
    bundle->asking = NULL;
    if (rc != ATT_OK) {
        failed(spiffed, err);
        return;
    }
    const struct proc_value *v = reply->v;
    struct proc_value roots = v[PROC_WORKLOAD_BUNDLE_REP_BUNDLE];
    proc_take_text(v[PROC_WORKLOAD_BUNDLE_REP_TRUST_DOMAIN].bytes, bundle->trust_domain,
                   sizeof bundle->trust_domain);
    att_buf_done(&bundle->roots);
    bundle->roots = ATT_BUF_INIT(ROOTS_MAX);
    for (size_t i = 0; i < roots.item_count; i++) {
        att_buf_put_slice(&bundle->roots, roots.items[i]);
    }
    bundle->crl_number = v[PROC_WORKLOAD_BUNDLE_REP_CRL_NUMBER].num;
    bundle->crl_size = v[PROC_WORKLOAD_BUNDLE_REP_CRL_SIZE].num;
    take_crl(spiffed);
}

void spiffed_bundle_refresh(struct spiffed *spiffed)
{
    struct bundle *bundle = &spiffed->bundle;
    struct att_err err = {0};
    bool known = bundle->message && bundle->known == spiffed->standing;
    if (bundle->asking || known || att_boottime_ms() < bundle->retry_ms) {
        return;
    }
    bundle->asked = spiffed->standing;
    if (ask_call(spiffed->views, PROC_WORKLOAD_BUNDLE, NULL, 0, -1, NULL, heard_bundle, spiffed,
                 &bundle->asking, &err) != ATT_OK) {
        bundle->retry_ms = att_boottime_ms() + RETRY_MS;
    }
}

/* ---- WATCH --------------------------------------------------------------------------------- */

static bool wants_bundle(const struct spiffed *spiffed)
{
    for (const struct peer *peer = spiffed->peers; peer; peer = peer->next) {
        for (const struct job *job = peer->jobs; job; job = job->next) {
            if (of_bundle(job)) {
                return true;
            }
        }
    }
    return spiffed->bundle.message; /* the next caller gets it at once */
}

static void look_again(struct spiffed *spiffed)
{
    for (struct agent *agent = spiffed->agents; agent; agent = agent->next) {
        spiffed_agent_refresh(agent);
    }
    if (wants_bundle(spiffed)) {
        spiffed_bundle_refresh(spiffed);
    }
    if (spiffed->federation.there) { /* somebody wanted it, and may again */
        spiffed_federation_refresh(spiffed);
    }
    spiffed_jwt_look(spiffed);
}

static void decide_again(struct spiffed *spiffed)
{
    struct peer *next;
    for (struct peer *peer = spiffed->peers; peer; peer = next) {
        next = peer->next;
        peer->prove_again = peer->identified;
        spiffed_peer_pump(peer);
    }
}

static void heard(void *user, enum att_rc rc, const struct proc_msg *reply,
                  const struct att_err *err)
{
    struct spiffed *spiffed = user;
    spiffed->watching = NULL;
    if (rc != ATT_OK) { /* away: what it said last holds */
        if (!spiffed->watch_fails) {
            att_log_err(ATT_WARN, "spiffed.attestd-away", err);
        }
        spiffed->watch_fails = true;
        spiffed_health_changed(spiffed);
        spiffed->watch_retry_ms = att_boottime_ms() + RETRY_MS;
        return;
    }
    spiffed->watch_fails = false;
    uint64_t entries = reply->v[PROC_WORKLOAD_WATCH_REP_ENTRIES].num;
    bool others = entries && entries != spiffed->entries;
    spiffed->entries = entries ? entries : spiffed->entries;
    spiffed->standing = reply->v[PROC_WORKLOAD_WATCH_REP_STANDING].num;
    spiffed_health_changed(spiffed);
    if (others) {
        decide_again(spiffed);
    }
    look_again(spiffed);
    spiffed_watch(spiffed);
}

void spiffed_watch(struct spiffed *spiffed)
{
    const struct proc_value values[] = {
        [PROC_WORKLOAD_WATCH_REQ_ENTRIES] = proc_num(spiffed->entries),
        [PROC_WORKLOAD_WATCH_REQ_STANDING] = proc_num(spiffed->standing)};
    if (!spiffed->watching && att_boottime_ms() >= spiffed->watch_retry_ms &&
        ask_call(spiffed->watch, PROC_WORKLOAD_WATCH, values, 2, -1, NULL, heard, spiffed,
                 &spiffed->watching, NULL) != ATT_OK) {
        spiffed->watch_retry_ms = att_boottime_ms() + RETRY_MS;
    }
    if (spiffed->standing) {
        look_again(spiffed); /* what failed before */
    }
}
