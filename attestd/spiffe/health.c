/* gRPC's health service, for everybody: it says nothing about agents. SERVING: attestd answers. */
#include "attestd/spiffe/service.h"

#include "health.pb-c.h"

#include <string.h>

#define STATUS(name) GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__##name

static bool serving(const struct spiffed *spiffed)
{
    return spiffed->standing && !spiffed->watch_fails;
}

static bool send_status(struct job *job,
                        Grpc__Health__V1__HealthCheckResponse__ServingStatus status)
{
    Grpc__Health__V1__HealthCheckResponse answer = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    answer.status = status;
    struct grpc_bytes *bytes = grpc_bytes_new(protobuf_c_message_get_packed_size(&answer.base));
    if (!bytes) {
        spiffed_finish(job, GRPC_UNAVAILABLE, "no memory");
        return false;
    }
    (void)protobuf_c_message_pack(&answer.base, bytes->data + 5);
    grpc_call_send(job->call, bytes);
    grpc_bytes_unref(bytes);
    return true;
}

/* generation is the status that was sent: neither of these two is 0. */
static void tell(struct job *job, bool is_serving)
{
    job->generation = is_serving ? STATUS(SERVING) : STATUS(NOT_SERVING);
    (void)send_status(job, is_serving ? STATUS(SERVING) : STATUS(NOT_SERVING));
}

/* Everybody may have one, for ever: so one a connection. */
static bool has_another(const struct job *watch)
{
    for (const struct job *job = watch->peer->jobs; job; job = job->next) {
        if (job != watch && job->kind == JOB_HEALTH_WATCH && !grpc_call_finished(job->call)) {
            return true;
        }
    }
    return false;
}

/* An unknown service has no status yet, and may have one later: none of ours does. */
static void begin_watch(struct job *job, bool known)
{
    if (has_another(job)) {
        spiffed_finish(job, GRPC_RESOURCE_EXHAUSTED, "one Watch a connection");
    } else if (known) {
        tell(job, serving(job->peer->spiffed));
    } else {
        (void)send_status(job, STATUS(SERVICE_UNKNOWN));
    }
}

static void check(struct job *job, bool known)
{
    if (!known) {
        spiffed_finish(job, GRPC_NOT_FOUND, "no such service");
    } else if (send_status(job,
                           serving(job->peer->spiffed) ? STATUS(SERVING) : STATUS(NOT_SERVING))) {
        spiffed_finish(job, GRPC_OK, NULL);
    }
}

void spiffed_health(struct job *job, struct att_slice message)
{
    static const char *const services[] = {"", "SpiffeWorkloadAPI", "attestd.v1.Signer",
                                           "envoy.service.secret.v3.SecretDiscoveryService"};
    Grpc__Health__V1__HealthCheckRequest *request =
        grpc__health__v1__health_check_request__unpack(NULL, message.len, message.ptr);
    bool known = false;
    for (size_t i = 0; request && i < sizeof services / sizeof services[0]; i++) {
        known = known || strcmp(request->service, services[i]) == 0;
    }
    if (!request) {
        spiffed_finish(job, GRPC_INVALID_ARGUMENT, "the request is no HealthCheckRequest");
        return;
    }
    grpc__health__v1__health_check_request__free_unpacked(request, NULL);
    if (job->kind == JOB_HEALTH_WATCH) {
        begin_watch(job, known);
    } else {
        check(job, known);
    }
}

void spiffed_health_changed(struct spiffed *spiffed)
{
    bool now = serving(spiffed);
    for (struct peer *peer = spiffed->peers; peer; peer = peer->next) {
        for (struct job *job = peer->jobs; job; job = job->next) {
            if (job->kind == JOB_HEALTH_WATCH && job->generation &&
                job->generation != (now ? STATUS(SERVING) : STATUS(NOT_SERVING)) &&
                !grpc_call_finished(job->call)) {
                tell(job, now);
            }
        }
    }
}
