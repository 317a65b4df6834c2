/* Envoy's Secret Discovery Service v3 (state of the world) beside the Workload API: the trust
 * domain's roots and revocation list as validation contexts, the caller's certificate and key where
 * the key may leave its store. Each response has everything that the stream is subscribed to. */
#include "attestd/spiffe/sds_secret.h"
#include "attestd/spiffe/service.h"

#include "attestd/base/clock.h"
#include "attestd/base/hash.h"
#include "attestd/base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PEM_MAX                                                                                    \
    (2 * GRPC_ANSWER_MAX) /* of lists that fit into an answer as DER: once, not at each request */
#define STAYS                                                                                      \
    "the key of this agent never leaves its store, and this secret would hand it out: use "        \
    "PKCS#11 (public/pkcs11.sock) or the service attestd.v1.Signer on this socket"

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

/* NULL: it is no other trust domain that the agent is given. */
static const struct federated *of_other(const struct job *job, const char *name)
{
    const struct federated *one =
        strncmp(name, "spiffe://", 9) == 0
            ? spiffed_federated_by(job->peer->spiffed, job->peer->agent, name + 9, strlen(name + 9))
            : NULL;
    return one && one->pem.len ? one : NULL;
}

static bool of_agent(const struct agent *agent, const char *name)
{
    return strcmp(name, "default") == 0 ||
           (agent->spiffe_id[0] && strcmp(name, agent->spiffe_id) == 0);
}

/* Which of the caller's names it is. False: the call is over, or it is not known yet. */
static bool look_up(struct job *job, const char *name, bool *ret_certificate)
{
    struct agent *agent = job->peer->agent;
    *ret_certificate = false;
    if (of_trust_domain(job->peer->spiffed, name) || of_other(job, name)) {
        return true;
    }
    if (!spiffed_agent_known(agent)) { /* its SPIFFE ID may be meant */
        spiffed_agent_refresh(agent);
        return false;
    }
    *ret_certificate = of_agent(agent, name);
    if (!*ret_certificate) {
        spiffed_finish(job, GRPC_INVALID_ARGUMENT,
                       "resource_names: default, the caller's SPIFFE ID, ROOTCA, ALL or the SPIFFE "
                       "ID of the trust domain, or of one that its entry federates with, expected");
    }
    return *ret_certificate;
}

/* ---- responses ----------------------------------------------------------------------------- */

/* What a response is made of. */
struct state {
    char *names; /* what name of secrets borrows */
    struct sds_secret secrets[SDS_NAMES_MAX];
    bool certificates[SDS_NAMES_MAX];
    size_t n;
    uint64_t generation; /* of the certificate; 0: there is none in it */
    char version[17];
    struct att_buf chain, key; /* PEM */
};

static void state_done(struct state *state)
{
    free(state->names);
    att_buf_done(&state->chain);
    att_buf_done(&state->key);
}

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

/* Which secrets, and their version; no key yet. False: the call is over, or it remains due. */
static bool find_secrets(struct job *job, struct state *state)
{
    bool any = false, contexts = false;
    char *rest = NULL;
    for (char *name = strtok_r(state->names, "\n", &rest); name && state->n < SDS_NAMES_MAX;
         name = strtok_r(NULL, "\n", &rest), state->n++) {
        if (!look_up(job, name, &state->certificates[state->n])) {
            return false;
        }
        any = any || state->certificates[state->n];
        contexts = contexts || !state->certificates[state->n];
        state->secrets[state->n].name = name;
    }
    if (any && !spiffed_export_may(job, STAYS)) {
        return false;
    }
    state->generation = any ? job->peer->agent->generation : 0;
    version_of(job->sds->want.names,
               contexts ? spiffed_bundle_number(job->peer->spiffed, job->peer->agent) : 0,
               state->generation, state->version);
    return true;
}

/* False: no memory. */
static bool fill(struct job *job, struct state *state)
{
    struct spiffed *spiffed = job->peer->spiffed;
    struct att_err err = {0};
    enum att_rc rc = bundle_in_pem(spiffed) ? ATT_OK : att_fail(&err, ATT_E_NOMEM, "a bundle");
    state->chain = state->key = ATT_BUF_INIT(PEM_MAX);
    if (rc == ATT_OK && state->generation) {
        rc =
            sds_pem_put(&state->chain, "CERTIFICATE", att_buf_slice(&job->peer->agent->svid), &err);
    }
    if (rc == ATT_OK && state->generation) {
        rc = sds_pem_put_key(&state->key, att_buf_slice(&job->key), &err);
    }
    for (size_t i = 0; i < state->n; i++) {
        struct sds_secret *secret = &state->secrets[i];
        if (state->certificates[i]) {
            secret->chain = att_buf_slice(&state->chain);
            secret->key = att_buf_slice(&state->key);
        } else if (of_other(job, secret->name)) {
            secret->trusted_ca = att_buf_slice(&of_other(job, secret->name)->pem);
        } else {
            secret->trusted_ca = att_buf_slice(&spiffed->sds.roots);
            secret->crl = att_buf_slice(&spiffed->sds.crl);
        }
    }
    return rc == ATT_OK;
}

static void respond(struct job *job, const struct state *state)
{
    struct sds_stream *sds = job->sds;
    char nonce[24] = "";
    if (job->kind == JOB_SDS_STREAM) {
        snprintf(nonce, sizeof nonce, "%" PRIu64, sds->nonce + 1);
    }
    struct grpc_bytes *bytes = sds_response_encode(state->secrets, state->n, state->version, nonce);
    if (!bytes) {
        spiffed_finish(job, GRPC_RESOURCE_EXHAUSTED,
                       "no memory for the secrets, or they are longer than an answer may be");
        return;
    }
    bytes->own = true;
    job->due = false;
    job->sent = true;
    sds->anew = false;
    sds->nonce++;
    memcpy(sds->version, state->version, sizeof sds->version);
    grpc_call_send(job->call, bytes);
    grpc_bytes_unref(bytes);
    if (job->kind == JOB_SDS_FETCH) {
        spiffed_finish(job, GRPC_OK, NULL);
    }
}

/* A key is asked for only when there is something to send. */
static void serve_state(struct job *job, struct state *state)
{
    const struct sds_stream *sds = job->sds;
    if (!find_secrets(job, state)) {
        return;
    }
    if (job->sent && !sds->anew && strcmp(state->version, sds->version) == 0) {
        job->due = false;
    } else if (!spiffed_has_room(job)) {
        return; /* due until others of this user have read theirs */
    } else if (state->generation && !spiffed_export_key(job)) {
        return; /* asked for */
    } else if (fill(job, state)) {
        respond(job, state);
    } else {
        spiffed_finish(job, GRPC_UNAVAILABLE, "no memory for secrets");
    }
    spiffed_export_done(job); /* also one that was asked for under other names */
}

void spiffed_sds_serve(struct job *job)
{
    struct spiffed *spiffed = job->peer->spiffed;
    struct sds_stream *sds = job->sds;
    if (job->asking || att_boottime_ms() < job->retry_ms) {
        return; /* due again with the answer, or then */
    }
    if (!sds->want.name_count) { /* it wants nothing for now */
        spiffed_export_done(job);
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
    struct state *state = calloc(1, sizeof *state);
    if (state && (state->names = strdup(sds->want.names))) {
        serve_state(job, state);
    } else {
        spiffed_finish(job, GRPC_UNAVAILABLE, "no memory for secrets");
    }
    if (state) {
        state_done(state);
    }
    free(state);
}
