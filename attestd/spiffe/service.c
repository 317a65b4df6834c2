/* The methods, and what becomes of a call once its caller is known. */
#include "attestd/spiffe/service.h"

#include "attestd/base/clock.h"
#include "attestd/base/log.h"
#include "workload.pb-c.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORKLOAD            "/SpiffeWorkloadAPI/"
#define SIGNER              "/attestd.v1.Signer/"
#define SDS                 "/envoy.service.secret.v3.SecretDiscoveryService/"
#define REFLECTION(version) "/grpc.reflection." version ".ServerReflection/ServerReflectionInfo"
#define MARK                                                                                       \
    "workload.spiffe.io" /* SPIFFE Workload Endpoint §3: against requests that a caller was made  \
                            to send */

const struct grpc_method spiffed_methods[] = {
    {WORKLOAD "FetchX509SVID", GRPC_SERVER_STREAM, MARK, JOB_X509_SVID},
    {WORKLOAD "FetchX509Bundles", GRPC_SERVER_STREAM, MARK, JOB_X509_BUNDLES},
    {WORKLOAD "FetchJWTSVID", GRPC_UNARY, MARK, JOB_JWT_SVID},
    {WORKLOAD "FetchJWTBundles", GRPC_SERVER_STREAM, MARK, JOB_JWT_BUNDLES},
    {WORKLOAD "ValidateJWTSVID", GRPC_UNARY, MARK, JOB_JWT_VALIDATE},
    {SIGNER "Sign", GRPC_UNARY, NULL, JOB_SIGN},
    {SIGNER "Chain", GRPC_UNARY, NULL, JOB_CHAIN},
    {SIGNER "Watch", GRPC_SERVER_STREAM, NULL, JOB_WATCH},
    {SDS "StreamSecrets", GRPC_BIDI, NULL, JOB_SDS_STREAM},
    {SDS "FetchSecrets", GRPC_UNARY, NULL, JOB_SDS_FETCH},
    {"/grpc.health.v1.Health/Check", GRPC_UNARY, NULL, JOB_HEALTH},
    {"/grpc.health.v1.Health/Watch", GRPC_SERVER_STREAM, NULL, JOB_HEALTH_WATCH},
    {REFLECTION("v1"), GRPC_BIDI, NULL, JOB_REFLECTION},
    {REFLECTION("v1alpha"), GRPC_BIDI, NULL, JOB_REFLECTION}, /* the same messages */
    {NULL, GRPC_UNARY, NULL, 0},
};

/* ---- answers ------------------------------------------------------------------------------- */

void spiffed_finish(struct job *job, enum grpc_status status, const char *message)
{
    job->due = false;
    spiffed_export_done(job);
    grpc_call_finish(job->call, status, message);
}

void spiffed_finish_err(struct job *job, enum att_rc rc, const struct att_err *err)
{
    static const struct {
        enum att_rc rc;
        enum grpc_status status;
    } table[] = {{ATT_E_DENIED, GRPC_PERMISSION_DENIED},
                 {ATT_E_NOTFOUND, GRPC_NOT_FOUND},
                 {ATT_E_LIMIT, GRPC_UNAVAILABLE}, /* its rate: the same may succeed soon */
                 {ATT_E_CONFLICT, GRPC_FAILED_PRECONDITION},
                 {ATT_E_UNSUPPORTED, GRPC_FAILED_PRECONDITION},
                 {ATT_E_INVAL, GRPC_INVALID_ARGUMENT},
                 {ATT_E_INTERNAL, GRPC_INTERNAL}};
    enum grpc_status status = GRPC_UNAVAILABLE;
    char text[512];
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        status = table[i].rc == rc ? table[i].status : status;
    }
    snprintf(text, sizeof text, "%s%s%s", err->reason, err->reason[0] ? ": " : "", err->msg);
    spiffed_finish(job, status, text);
}

/* The method's request must be one; nothing of the Workload API's is in it. */
static bool is_message(const ProtobufCMessageDescriptor *of, struct att_slice message)
{
    ProtobufCMessage *got = protobuf_c_message_unpack(of, NULL, message.len, message.ptr);
    bool ok = got != NULL;
    if (got) {
        protobuf_c_message_free_unpacked(got, NULL);
    }
    return ok;
}

/* ---- jobs ---------------------------------------------------------------------------------- */

bool spiffed_is_public(const struct job *job)
{
    return job->kind == JOB_HEALTH || job->kind == JOB_HEALTH_WATCH || job->kind == JOB_REFLECTION;
}

static struct job *job_new(struct peer *peer, struct grpc_call *call, enum job_kind kind)
{
    struct job *job = calloc(1, sizeof *job);
    if (!job) {
        return NULL;
    }
    *job = (struct job){.peer = peer, .call = call, .kind = kind, .next = peer->jobs};
    job->at = &peer->jobs;
    if (job->next) {
        job->next->at = &job->next;
    }
    peer->jobs = job;
    grpc_call_set(call, job);
    return job;
}

void spiffed_ended(void *user, struct grpc_call *call)
{
    struct job *job = grpc_call_get(call);
    (void)user;
    if (!job) {
        return;
    }
    ask_forget(job->asking);
    *job->at = job->next;
    if (job->next) {
        job->next->at = job->at;
    }
    job->peer->idle_ms = att_boottime_ms();
    free(job->jwt_audience);
    free(job->jwt);
    spiffed_export_done(job);
    spiffed_sds_stream_free(job->sds);
    free(job);
}

static bool take_request(struct job *job, struct att_slice message)
{
    const ProtobufCMessageDescriptor *of = NULL;
    switch (job->kind) {
    case JOB_X509_SVID:
        of = &x509_svidrequest__descriptor;
        break;
    case JOB_X509_BUNDLES:
        of = &x509_bundles_request__descriptor;
        break;
    case JOB_JWT_SVID:
    case JOB_JWT_VALIDATE:
        return spiffed_jwt_parse(job, message);
    case JOB_JWT_BUNDLES:
        of = &jwtbundles_request__descriptor;
        break;
    case JOB_SIGN:
        return spiffed_sign_parse(job, message);
    case JOB_SDS_STREAM:
    case JOB_SDS_FETCH:
        return spiffed_sds_take(job, message);
    default: /* ChainRequest is as empty */
        of = &x509_bundles_request__descriptor;
    }
    if (!is_message(of, message)) {
        spiffed_finish(job, GRPC_INVALID_ARGUMENT, "the request is no message of this method");
        return false;
    }
    return true;
}

bool spiffed_leaves_room(int64_t own, int64_t taken, int64_t all)
{
    return own < all - taken;
}

static void too_many(struct peer *peer)
{
    unsigned left_out;
    peer->spiffed->refused++;
    if (spiffed_worth_a_line(peer->share, &left_out)) {
        att_log(ATT_WARN, "spiffed.limit", ATT_N("pid", peer->pid), ATT_N("uid", peer->uid),
                ATT_S("message", "too many calls at one time"), ATT_N("leftOut", left_out));
    }
}

bool spiffed_begin(void *user)
{
    struct peer *peer = user;
    if (peer->share->calls >= UID_CALLS_MAX ||
        !spiffed_leaves_room(peer->share->calls, peer->spiffed->calls, CALLS_MAX)) {
        too_many(peer);
        return false;
    }
    peer->share->calls++;
    peer->spiffed->calls++;
    return true;
}

bool spiffed_has_room(const struct job *job)
{
    const struct peer *peer = job->peer;
    return peer->share->waits < UID_WAITS_MAX &&
           spiffed_leaves_room(peer->share->waits, peer->spiffed->waits, WAITS_MAX);
}

void spiffed_waits(void *user, int64_t bytes)
{
    struct peer *peer = user;
    peer->share->waits += bytes;
    peer->spiffed->waits += bytes;
}

void spiffed_end_of_call(void *user)
{
    struct peer *peer = user;
    peer->share->calls--;
    peer->spiffed->calls--;
}

void spiffed_request(void *user, struct grpc_call *call, const struct grpc_method *method,
                     struct att_slice message)
{
    struct peer *peer = user;
    struct job *job = grpc_call_get(call);
    if (job && job->kind == JOB_REFLECTION) {
        spiffed_reflection(job, message);
        return;
    }
    if (job) { /* a further message of a stream of them */
        if (take_request(job, message)) {
            spiffed_peer_pump(peer);
        }
        return;
    }
    job = job_new(peer, call, (enum job_kind)method->id);
    if (!job) {
        grpc_call_finish(call, GRPC_UNAVAILABLE, "no memory");
        return;
    }
    if (job->kind == JOB_HEALTH || job->kind == JOB_HEALTH_WATCH) {
        spiffed_health(job, message);
    } else if (job->kind == JOB_REFLECTION) {
        spiffed_reflection(job, message);
    } else if (take_request(job, message)) {
        job->due = true;
        spiffed_peer_pump(peer);
    }
}

/* ---- the Workload API ---------------------------------------------------------------------- */

static void serve_bundles(struct job *job)
{
    struct spiffed *spiffed = job->peer->spiffed;
    struct agent *agent = job->peer->agent;
    if (!spiffed->bundle.message) {
        spiffed_bundle_refresh(spiffed);
    }
    if (!spiffed_federation_known(spiffed)) {
        spiffed_federation_refresh(spiffed);
    }
    if (!spiffed->bundle.message || !spiffed_federation_known(spiffed)) {
        return; /* due until it is there */
    }
    job->due = false;
    uint64_t number = spiffed_bundle_number(spiffed, agent);
    if (job->sent && job->generation == number) {
        return;
    }
    struct grpc_bytes *bytes = spiffed_bundle_message(spiffed, agent);
    job->sent = true;
    job->generation = number;
    grpc_call_send(job->call, bytes);
    grpc_bytes_unref(bytes);
}

void spiffed_job_serve(struct job *job)
{
    switch (job->kind) {
    case JOB_X509_SVID:
        spiffed_svid_serve(job);
        return;
    case JOB_SDS_STREAM:
    case JOB_SDS_FETCH:
        spiffed_sds_serve(job);
        return;
    case JOB_X509_BUNDLES:
        serve_bundles(job);
        return;
    case JOB_JWT_SVID:
    case JOB_JWT_BUNDLES:
    case JOB_JWT_VALIDATE:
        spiffed_jwt_serve(job);
        return;
    case JOB_SIGN:
        spiffed_sign_serve(job);
        return;
    case JOB_CHAIN:
    case JOB_WATCH:
        spiffed_chain_serve(job);
        return;
    case JOB_HEALTH:
    case JOB_HEALTH_WATCH:
    case JOB_REFLECTION:
        return;
    }
}
