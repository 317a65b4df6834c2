/* Envoy's Secret Discovery Service v3 (state of the world) beside the Workload API: the trust
 * domain's roots and revocation list as validation contexts, the caller's certificate and key where
 * the key may leave its store. Each response has everything that the stream is subscribed to. */
#include "attestd/spiffe/sds_secret.h"
#include "attestd/spiffe/service.h"

#include "attestd/base/hash.h"
#include "attestd/base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PEM_MAX                                                                                    \
    (2 * GRPC_ANSWER_MAX) /* of lists that fit into an answer as DER: once, not at each request */

bool spiffed_sds_is(const struct job *job)
{
    return job->kind == JOB_SDS_STREAM || job->kind == JOB_SDS_FETCH;
}

void spiffed_sds_stream_free(struct sds_stream *sds)
{
    if (sds) {
        sds_request_done(&sds->want);
        free(sds);
    }
}

void spiffed_sds_done(struct sds_bundle *bundle)
{
    att_buf_done(&bundle->roots);
    att_buf_done(&bundle->crl);
    bundle->generation = 0;
}

/* ---- requests ------------------------------------------------------------------------------ */

/* What it was sent is not sent again: it would be refused again. The next change is. */
static void rejected(const struct job *job, const struct sds_request *request)
{
    const struct peer *peer = job->peer;
    unsigned left_out;
    if (spiffed_worth_a_line(peer->share, &left_out)) {
        att_log(ATT_WARN, "spiffed.sds-rejected", ATT_N("pid", peer->pid), ATT_N("uid", peer->uid),
                ATT_S("agent", peer->agent ? peer->agent->name : ""),
                ATT_S("version", job->sds->version), ATT_S("message", request->detail),
                ATT_N("leftOut", left_out));
    }
}

/* Takes the request's names. Other names than before are another state: due, also if their secrets
 * were sent. */
static void subscribe(struct job *job, struct sds_request *request)
{
    struct sds_stream *sds = job->sds;
    bool others = !sds->want.names || strcmp(sds->want.names, request->names) != 0;
    sds_request_done(&sds->want);
    sds->want = *request;
    *request = (struct sds_request){0};
    sds->anew = sds->anew || others;
    job->due = job->due || others;
}

static void take(struct job *job, struct sds_request *request)
{
    struct sds_stream *sds = job->sds;
    char nonce[24] = "";
    if (sds->nonce) {
        snprintf(nonce, sizeof nonce, "%" PRIu64, sds->nonce);
    }
    switch (sds_request_meaning(request, !sds->want.names, nonce, sds->version)) {
    case SDS_STALE:
        return;
    case SDS_REJECTS:
        rejected(job, request);
        break;
    case SDS_SUBSCRIBES:
    case SDS_ACCEPTS:
        break;
    }
    subscribe(job, request);
}

bool spiffed_sds_take(struct job *job, struct att_slice message)
{
    struct sds_request request = {0};
    const char *why = sds_request_parse(message, &request);
    if (!why && !job->sds && request.name_count == 0) {
        why = "resource_names: at least one expected";
    }
    if (!why && !job->sds) {
        job->sds = calloc(1, sizeof *job->sds);
        why = job->sds ? NULL : "no memory for a subscription";
    }
    if (why) {
        spiffed_finish(job, GRPC_INVALID_ARGUMENT, why);
    } else {
        take(job, &request);
    }
    sds_request_done(&request);
    return !why;
}

/* ---- secrets ------------------------------------------------------------------------------- */

/* The agent's certificate and private key, PEM, and their generation. False: the call is finished
 * or remains due. No private key leaves by this service yet. */
static bool certificate(struct job *job, struct sds_secret *ret, uint64_t *ret_generation)
{
    (void)ret;
    (void)ret_generation;
    spiffed_finish(job, GRPC_PERMISSION_DENIED,
                   "no private key is served by SDS: use PKCS#11 (public/pkcs11.sock), the service "
                   "attestd.v1.Signer, or FetchX509SVID where the entry says exportable");
    return false;
}

/* False: no memory. */
static bool bundle_in_pem(struct spiffed *spiffed)
{
    struct sds_bundle *pem = &spiffed->sds;
    struct bundle *bundle = &spiffed->bundle;
    struct att_err err = {0};
    if (pem->generation == bundle->generation) {
        return true;
    }
    spiffed_sds_done(pem);
    pem->roots = ATT_BUF_INIT(PEM_MAX);
    pem->crl = ATT_BUF_INIT(PEM_MAX);
    enum att_rc rc = sds_pem_put(&pem->roots, "CERTIFICATE", att_buf_slice(&bundle->roots), &err);
    rc = rc != ATT_OK ? rc : sds_pem_put(&pem->crl, "X509 CRL", att_buf_slice(&bundle->crl), &err);
    if (rc != ATT_OK) {
        att_log_err(ATT_ERROR, "spiffed.sds-bundle", &err);
        return false;
    }
    pem->generation = bundle->generation;
    return true;
}

static bool of_trust_domain(const struct spiffed *spiffed, const char *name)
{
    return strcmp(name, "ROOTCA") == 0 || strcmp(name, "ALL") == 0 ||
           (strncmp(name, "spiffe://", 9) == 0 &&
            strcmp(name + 9, spiffed->bundle.trust_domain) == 0);
}

static bool of_agent(const struct agent *agent, const char *name)
{
    return strcmp(name, "default") == 0 ||
           (agent->spiffe_id[0] && strcmp(name, agent->spiffe_id) == 0);
}

/* One secret. False: the call is finished, or remains due. */
static bool fill(struct job *job, const char *name, struct sds_secret *ret,
                 uint64_t *ret_generation)
{
    const struct spiffed *spiffed = job->peer->spiffed;
    struct agent *agent = job->peer->agent;
    const struct federated *one;
    *ret = (struct sds_secret){.name = name};
    if (of_trust_domain(spiffed, name)) {
        ret->trusted_ca = att_buf_slice(&spiffed->sds.roots);
        ret->crl = att_buf_slice(&spiffed->sds.crl);
        return true;
    }
    if (strncmp(name, "spiffe://", 9) == 0 &&
        (one = spiffed_federated_by(spiffed, agent, name + 9, strlen(name + 9))) && one->pem.len) {
        ret->trusted_ca = att_buf_slice(&one->pem);
        return true;
    }
    if (!spiffed_agent_known(agent)) { /* its SPIFFE ID may be meant */
        spiffed_agent_refresh(agent);
        return false;
    }
    if (of_agent(agent, name)) {
        return certificate(job, ret, ret_generation);
    }
    spiffed_finish(job, GRPC_INVALID_ARGUMENT,
                   "resource_names: default, the caller's SPIFFE ID, ROOTCA, ALL or the SPIFFE "
                   "ID of the trust domain, or of one that its entry federates with, expected");
    return false;
}

/* ---- responses ----------------------------------------------------------------------------- */

/* The same for the same secrets under the same names, whichever process serves them. */
static void version_of(const char *names, uint64_t bundle, uint64_t agent, char ret[17])
{
    uint8_t numbers[16], sha256[ATT_SHA256_LEN];
    for (unsigned i = 0; i < 8; i++) {
        numbers[i] = (uint8_t)(bundle >> (8 * i));
        numbers[8 + i] = (uint8_t)(agent >> (8 * i));
    }
    const struct att_slice parts[] = {ATT_SLICE_ARRAY(numbers), att_slice_str(names)};
    att_sha256_v(sha256, parts, 2);
    for (unsigned i = 0; i < 8; i++) {
        snprintf(ret + 2 * (size_t)i, 3, "%02x", sha256[i]);
    }
}

static void send_all(struct job *job, const struct sds_secret *secrets, size_t n,
                     uint64_t generation)
{
    struct sds_stream *sds = job->sds;
    char version[17], nonce[24] = "";
    version_of(sds->want.names, spiffed_bundle_number(job->peer->spiffed, job->peer->agent),
               generation, version);
    job->due = false;
    if (job->sent && !sds->anew && strcmp(version, sds->version) == 0) {
        return;
    }
    if (job->kind == JOB_SDS_STREAM) {
        snprintf(nonce, sizeof nonce, "%" PRIu64, sds->nonce + 1);
    }
    struct grpc_bytes *bytes = sds_response_encode(secrets, n, version, nonce);
    if (!bytes) {
        spiffed_finish(job, GRPC_RESOURCE_EXHAUSTED,
                       "no memory for the secrets, or they are longer than an answer may be");
        return;
    }
    bytes->own = true;
    job->sent = true;
    sds->anew = false;
    sds->nonce++;
    memcpy(sds->version, version, sizeof version);
    grpc_call_send(job->call, bytes);
    grpc_bytes_unref(bytes);
    if (job->kind == JOB_SDS_FETCH) {
        spiffed_finish(job, GRPC_OK, NULL);
    }
}

static void serve_names(struct job *job, char *names)
{
    struct sds_secret secrets[SDS_NAMES_MAX];
    uint64_t generation = 0;
    size_t n = 0;
    char *rest = NULL;
    for (char *name = strtok_r(names, "\n", &rest); name && n < SDS_NAMES_MAX;
         name = strtok_r(NULL, "\n", &rest)) {
        if (!fill(job, name, &secrets[n++], &generation)) {
            return;
        }
    }
    send_all(job, secrets, n, generation);
}

void spiffed_sds_serve(struct job *job)
{
    struct spiffed *spiffed = job->peer->spiffed;
    struct sds_stream *sds = job->sds;
    if (!sds->want.name_count) { /* it wants nothing for now */
        job->due = false;
        return;
    }
    if (!spiffed->bundle.message) {
        spiffed_bundle_refresh(spiffed);
    }
    if (!spiffed_federation_known(spiffed)) {
        spiffed_federation_refresh(spiffed);
    }
    if (!spiffed->bundle.message || !spiffed_federation_known(spiffed)) {
        return; /* due until it is there */
    }
    if (!spiffed_has_room(job)) {
        return; /* due until others of this user have read theirs */
    }
    char *names = bundle_in_pem(spiffed) ? strdup(sds->want.names) : NULL;
    if (!names) {
        spiffed_finish(job, GRPC_UNAVAILABLE, "no memory for secrets");
        return;
    }
    serve_names(job, names);
    free(names);
}
