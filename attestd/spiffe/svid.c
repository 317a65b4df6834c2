/* FetchX509SVID. The standard puts the private key into this answer, so it is for agents alone
 * whose entry says "exportable". For each message attestd is asked, who writes a record of it, and
 * then keyd for the key: nothing here keeps one for the next message. */
#include "attestd/spiffe/service.h"

#include "attestd/base/clock.h"
#include "workload.pb-c.h"

#include <stdio.h>
#include <string.h>

#define STAYS                                                                                      \
    "the key of this agent never leaves its store, and this method must hand it out: use PKCS#11 " \
    "(public/pkcs11.sock) or the service attestd.v1.Signer on this socket"

/* ---- the message --------------------------------------------------------------------------- */

static ProtobufCBinaryData data_of(struct att_slice slice)
{
    return (ProtobufCBinaryData){slice.len, (uint8_t *)(uintptr_t)slice.ptr};
}

/* One place in the message's map of other trust domains. */
struct place {
    char id[sizeof "spiffe://" + PROC_TRUST_DOMAIN_MAX];
    X509SVIDResponse__FederatedBundlesEntry entry;
};

static size_t fill_federated(const struct agent *agent, struct place places[PROC_FEDERATED_MAX],
                             X509SVIDResponse__FederatedBundlesEntry *ret[PROC_FEDERATED_MAX])
{
    const struct federated *one;
    size_t n = 0, at = 0;
    while ((one = spiffed_federated(agent->spiffed, agent, &at))) {
        struct place *place = &places[n];
        if (!one->roots.len) {
            continue;
        }
        snprintf(place->id, sizeof place->id, "spiffe://%s", one->trust_domain);
        protobuf_c_message_init(&x509_svidresponse__federated_bundles_entry__descriptor,
                                &place->entry);
        place->entry.key = place->id;
        place->entry.value = data_of(att_buf_slice(&one->roots));
        ret[n++] = &place->entry;
    }
    return n;
}

/* The only copy of the key that is made here is the message's own. NULL: no memory, or longer than
 * an answer may be. */
static struct grpc_bytes *encode(struct agent *agent, struct att_slice pkcs8)
{
    const struct bundle *bundle = &agent->spiffed->bundle;
    ProtobufCBinaryData crls[SPIFFED_CRLS_MAX];
    struct place places[PROC_FEDERATED_MAX];
    X509SVIDResponse__FederatedBundlesEntry *federated[PROC_FEDERATED_MAX];
    X509SVIDResponse message;
    X509SVID svid;
    X509SVID *svids[] = {&svid};
    x509_svidresponse__init(&message);
    x509_svid__init(&svid);
    svid.spiffe_id = agent->spiffe_id;
    svid.x509_svid = data_of(att_buf_slice(&agent->svid));
    svid.x509_svid_key = data_of(pkcs8);
    svid.bundle = data_of(att_buf_slice(&bundle->roots));
    message.svids = svids;
    message.n_svids = 1;
    message.crl = crls;
    message.n_crl = spiffed_bundle_lists(bundle, crls);
    message.federated_bundles = federated;
    message.n_federated_bundles = fill_federated(agent, places, federated);
    struct grpc_bytes *bytes = grpc_bytes_new(protobuf_c_message_get_packed_size(&message.base));
    if (!bytes && message.n_federated_bundles) { /* as in FetchX509Bundles */
        message.n_federated_bundles = 0;
        bytes = grpc_bytes_new(protobuf_c_message_get_packed_size(&message.base));
    }
    if (bytes) {
        bytes->secret = bytes->own = true;
        (void)protobuf_c_message_pack(&message.base, bytes->data + 5);
    }
    return bytes;
}

/* ---- what became of it --------------------------------------------------------------------- */

/* Who has a message keeps it and waits for the next one; who has none is told to come again. */
static void later(struct job *job, const struct att_err *err)
{
    if (!job->sent) {
        spiffed_finish_err(job, ATT_E_UNREACHABLE, err);
        return;
    }
    job->due = true;
    job->retry_ms = att_boottime_ms() + RETRY_MS;
}

/* Decided by others, another agent, another key in force or no certificate: what was asked for then
 * is nobody's. */
static bool is_old(const struct job *job)
{
    const struct peer *peer = job->peer;
    const struct agent *agent = peer->agent;
    return job->entries != peer->spiffed->entries || !agent ||
           strcmp(job->agent, agent->name) != 0 || !agent->exportable || !agent->chain ||
           agent->not_after <= att_now_utc_s() || strcmp(job->key_id, agent->key_id) != 0;
}

/* A key that has just been retired, or is not active yet: keyd is ahead of what attestd knows. */
static bool is_final(enum att_rc rc, const struct att_err *err)
{
    return rc == ATT_E_DENIED && strcmp(err->reason, "keyState") != 0;
}

/* False: the call is over, or it begins anew. */
static bool goes_on(struct job *job, enum att_rc rc, const struct att_err *err)
{
    job->asking = NULL;
    if (grpc_call_finished(job->call)) {
        return false;
    }
    if (is_old(job)) {
        job->due = true;
        spiffed_peer_pump(job->peer);
    } else if (is_final(rc, err)) { /* not by the entry any more, frozen, not on this host */
        spiffed_finish_err(job, rc, err);
    } else if (rc != ATT_OK) {
        later(job, err);
    } else {
        return true;
    }
    return false;
}

static void exported(void *user, enum att_rc rc, const struct proc_msg *reply,
                     const struct att_err *err)
{
    struct job *job = user;
    if (!goes_on(job, rc, err)) {
        return;
    }
    struct agent *agent = job->peer->agent;
    struct grpc_bytes *bytes = encode(agent, reply->v[PROC_SIGN_EXPORT_REP_PKCS8].bytes);
    if (!bytes) {
        const struct att_err large = {.rc = ATT_E_LIMIT, .msg = "no memory for an answer"};
        later(job, &large);
        return;
    }
    job->ready = bytes;
    job->ready_generation = agent->generation;
    job->ready_bundle = spiffed_bundle_number(agent->spiffed, agent);
    job->due = true; /* attestd and keyd may have been slow: is it still the same program? */
    spiffed_peer_pump(job->peer);
}

/* Its peer is proved. False: nothing is ready, or what was is nobody's by now. */
static bool deliver(struct job *job)
{
    struct grpc_bytes *bytes = job->ready;
    bool good = bytes && !is_old(job);
    job->ready = NULL;
    if (good) {
        job->due = false;
        job->sent = true;
        job->generation = job->ready_generation;
        job->bundle_generation = job->ready_bundle;
        grpc_call_send(job->call, bytes);
    }
    grpc_bytes_unref(bytes);
    return good;
}

static void noted(void *user, enum att_rc rc, const struct proc_msg *reply,
                  const struct att_err *err)
{
    struct job *job = user;
    struct att_err why = {0};
    const struct proc_value values[] = {
        [PROC_SIGN_EXPORT_REQ_AGENT] = proc_text(job->agent),
        [PROC_SIGN_EXPORT_REQ_KEY_ID] = proc_text(job->key_id),
    };
    (void)reply;
    if (goes_on(job, rc, err) &&
        ask_call(job->peer->spiffed->keyd, PROC_SIGN_EXPORT, values, 2, -1, job->peer->agent,
                 exported, job, &job->asking, &why) != ATT_OK) {
        later(job, &why);
    }
}

/* ---- the job ------------------------------------------------------------------------------- */

static void ask_attestd(struct job *job)
{
    struct agent *agent = job->peer->agent;
    struct att_err err = {0};
    const struct proc_value values[] = {
        [PROC_WORKLOAD_EXPORT_REQ_AGENT] = proc_text(agent->name),
        [PROC_WORKLOAD_EXPORT_REQ_KEY_ID] = proc_text(agent->key_id),
        [PROC_WORKLOAD_EXPORT_REQ_PID] = proc_num((uint64_t)job->peer->pid),
        [PROC_WORKLOAD_EXPORT_REQ_UID] = proc_num(job->peer->uid),
    };
    job->entries = job->peer->entries;
    memcpy(job->agent, agent->name, sizeof job->agent);
    memcpy(job->key_id, agent->key_id, sizeof job->key_id);
    if (ask_call(agent->spiffed->views, PROC_WORKLOAD_EXPORT, values, 4, -1, agent, noted, job,
                 &job->asking, &err) != ATT_OK) {
        later(job, &err);
    }
}

/* False: not known yet, or the call is over. */
static bool may_have(struct job *job, struct agent *agent)
{
    if (job->agent[0] && strcmp(job->agent, agent->name) != 0) {
        spiffed_finish(job, GRPC_PERMISSION_DENIED, "the caller became another agent meanwhile");
    } else if (!spiffed_agent_known(agent)) {
        spiffed_agent_refresh(agent);
    } else if (!agent->chain || agent->not_after <= att_now_utc_s()) {
        spiffed_finish(job, job->sent ? GRPC_PERMISSION_DENIED : GRPC_UNAVAILABLE,
                       "noCertificate: no certificate is in force");
    } else if (!agent->exportable) {
        spiffed_finish(job, GRPC_PERMISSION_DENIED, STAYS);
    } else if (!agent->spiffed->bundle.message) {
        spiffed_bundle_refresh(agent->spiffed);
    } else if (!spiffed_federation_known(agent->spiffed)) {
        spiffed_federation_refresh(agent->spiffed);
    } else {
        return true;
    }
    return false;
}

void spiffed_svid_serve(struct job *job)
{
    struct agent *agent = job->peer->agent;
    if (job->asking || deliver(job) || att_boottime_ms() < job->retry_ms || !may_have(job, agent)) {
        return; /* due until it is known */
    }
    bool same = job->sent && job->generation == agent->generation &&
                job->bundle_generation == spiffed_bundle_number(agent->spiffed, agent);
    if (!same && !spiffed_has_room(job)) {
        return; /* due until others of this user have read theirs */
    }
    job->due = false;
    if (!same) {
        ask_attestd(job);
    }
}
