/* FetchX509SVID. The standard puts the private key into this answer, so it is for agents alone
 * whose entry says "exportable" (export.c). */
#include "attestd/spiffe/service.h"

#include "attestd/base/clock.h"
#include "workload.pb-c.h"

#include <stdio.h>

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

/* ---- the job ------------------------------------------------------------------------------- */

static void respond(struct job *job)
{
    const struct agent *agent = job->peer->agent;
    struct grpc_bytes *bytes = encode(job->peer->agent, att_buf_slice(&job->key));
    if (!bytes) {
        const struct att_err large = {.rc = ATT_E_LIMIT, .msg = "no memory for an answer"};
        spiffed_export_later(job, &large);
        return;
    }
    spiffed_export_done(job);
    job->due = false;
    job->sent = true;
    job->generation = agent->generation;
    job->bundle_generation = spiffed_bundle_number(agent->spiffed, agent);
    grpc_call_send(job->call, bytes);
    grpc_bytes_unref(bytes);
}

void spiffed_svid_serve(struct job *job)
{
    const struct agent *agent = job->peer->agent;
    if (job->asking || att_boottime_ms() < job->retry_ms || !spiffed_export_may(job, STAYS)) {
        return; /* due until it is known */
    }
    if (job->sent && job->generation == agent->generation &&
        job->bundle_generation == spiffed_bundle_number(agent->spiffed, agent)) {
        spiffed_export_done(job);
        job->due = false;
    } else if (spiffed_has_room(job) && spiffed_export_key(job)) {
        respond(job);
    }
}
