/* The Workload API's methods for JWT-SVIDs. attestd has the tokens; the trust domain's keys are
 * kept here, and tokens of others are judged here: this process holds no key, and nothing but its
 * own crash is to be had from a token that is made to deceive a parser. */
#include "attestd/spiffe/service.h"

#include "attestd/base/clock.h"
#include "attestd/base/hash.h"
#include "attestd/base/log.h"
#include "attestd/base/secret.h"
#include "attestd/spiffe/jwt_claims.h"
#include "provision/oidc/jwks.h"
#include "workload.pb-c.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LEEWAY_S    30
#define CLAIMS_MAX  ((size_t)128 << 10)
#define PATIENCE_MS 2000 /* as attestd's with questions of others */

/* ---- requests -------------------------------------------------------------------------------- */

static bool refuse_request(struct job *job, const char *why)
{
    spiffed_finish(job, GRPC_INVALID_ARGUMENT, why);
    return false;
}

/* Printable, and no longer than attestd takes it. */
static bool audience_ok(const char *text)
{
    size_t len = strlen(text);
    for (size_t i = 0; i < len; i++) {
        if (text[i] <= 0x20 || text[i] > 0x7e) {
            return false;
        }
    }
    return len > 0 && len <= PROC_AUDIENCE_MAX;
}

static bool take_audiences(struct job *job, const JWTSVIDRequest *request)
{
    att_autobuf text = ATT_BUF_INIT(PROC_AUDIENCES_TEXT);
    if (request->n_audience < 1 || request->n_audience > PROC_AUDIENCES_MAX) {
        return refuse_request(job, "audience: 1 to 8 expected");
    }
    for (size_t i = 0; i < request->n_audience; i++) {
        if (!audience_ok(request->audience[i])) {
            return refuse_request(job,
                                  "audience: 1 to 255 printable characters without space expected");
        }
        att_buf_put_str(&text, request->audience[i]);
        att_buf_put_str(&text, "\n");
    }
    const char *all = att_buf_cstr(&text);
    job->jwt_audience = all ? strdup(all) : NULL;
    if (strlen(request->spiffe_id) >= sizeof job->sign.spiffe_id) {
        return refuse_request(job, "spiffe_id: too long");
    }
    memcpy(job->sign.spiffe_id, request->spiffe_id, strlen(request->spiffe_id) + 1);
    return job->jwt_audience ? true : refuse_request(job, "no memory");
}

static bool parse_fetch(struct job *job, struct att_slice message)
{
    JWTSVIDRequest *request = jwtsvidrequest__unpack(NULL, message.len, message.ptr);
    bool ok = request ? take_audiences(job, request)
                      : refuse_request(job, "the request is no JWTSVIDRequest");
    if (request) {
        jwtsvidrequest__free_unpacked(request, NULL);
    }
    return ok;
}

static bool take_validate(struct job *job, const ValidateJWTSVIDRequest *request)
{
    if (!request->audience[0] || strlen(request->audience) > PROC_AUDIENCES_TEXT) {
        return refuse_request(job, "audience: expected");
    }
    if (!request->svid[0] || strlen(request->svid) > OIDC_TOKEN_MAX) {
        return refuse_request(job, "tokenForm: svid: 1 to 16384 characters expected");
    }
    job->jwt_audience = strdup(request->audience);
    job->jwt = strdup(request->svid);
    return job->jwt_audience && job->jwt ? true : refuse_request(job, "no memory");
}

static bool parse_validate(struct job *job, struct att_slice message)
{
    ValidateJWTSVIDRequest *request =
        validate_jwtsvidrequest__unpack(NULL, message.len, message.ptr);
    bool ok = request ? take_validate(job, request)
                      : refuse_request(job, "the request is no ValidateJWTSVIDRequest");
    if (request) {
        validate_jwtsvidrequest__free_unpacked(request, NULL);
    }
    return ok;
}

bool spiffed_jwt_parse(struct job *job, struct att_slice message)
{
    return job->kind == JOB_JWT_SVID ? parse_fetch(job, message) : parse_validate(job, message);
}

/* ---- the trust domain's keys ----------------------------------------------------------------- */

void spiffed_jwt_done(struct jwt_bundle *bundle)
{
    ask_forget(bundle->asking);
    oidc_jwks_free(bundle->jwks);
    att_buf_done(&bundle->keys);
}

/* One place in the message's map. */
struct place {
    char id[sizeof "spiffe://" + PROC_TRUST_DOMAIN_MAX];
    JWTBundlesResponse__BundlesEntry entry;
};

static void fill(struct place *place, const char *trust_domain, struct att_slice keys)
{
    snprintf(place->id, sizeof place->id, "spiffe://%s", trust_domain);
    protobuf_c_message_init(&jwtbundles_response__bundles_entry__descriptor, &place->entry);
    place->entry.key = place->id;
    place->entry.value = (ProtobufCBinaryData){keys.len, (uint8_t *)(uintptr_t)keys.ptr};
}

/* NULL: no memory, or longer than an answer may be. */
static struct grpc_bytes *encode(const struct spiffed *spiffed, const struct agent *agent)
{
    const struct jwt_bundle *bundle = &spiffed->jwt;
    struct place places[1 + PROC_FEDERATED_MAX];
    JWTBundlesResponse message = JWTBUNDLES_RESPONSE__INIT;
    JWTBundlesResponse__BundlesEntry *entries[1 + PROC_FEDERATED_MAX];
    const struct federated *one;
    size_t n = 0, at = 0;
    if (bundle->keys.len) {
        fill(&places[n++], bundle->trust_domain, att_buf_slice(&bundle->keys));
    }
    while ((one = spiffed_federated(spiffed, agent, &at))) {
        fill(&places[n++], one->trust_domain, att_buf_slice(&one->keys));
    }
    for (size_t i = 0; i < n; i++) {
        entries[i] = &places[i].entry;
    }
    message.bundles = entries;
    message.n_bundles = n;
    struct grpc_bytes *bytes = grpc_bytes_new(protobuf_c_message_get_packed_size(&message.base));
    if (bytes) {
        (void)protobuf_c_message_pack(&message.base, bytes->data + 5);
    }
    return bytes;
}

/* The keys are known, also as "none". */
static bool is_there(const struct jwt_bundle *bundle)
{
    return bundle->off || bundle->keys.len > 0;
}

static bool of_bundle(const struct job *job)
{
    return job->kind == JOB_JWT_BUNDLES || job->kind == JOB_JWT_VALIDATE;
}

static uint64_t number_for(const struct spiffed *spiffed, const struct agent *agent)
{
    return spiffed->jwt.generation ^ spiffed_federated_keys(spiffed, agent);
}

static void pump_all(struct spiffed *spiffed)
{
    struct peer *next;
    for (struct peer *peer = spiffed->peers; peer; peer = next) {
        next = peer->next;
        for (struct job *job = peer->jobs; job; job = job->next) {
            job->due = job->due ||
                       (job->kind == JOB_JWT_BUNDLES &&
                        (spiffed->jwt.off || job->generation != number_for(spiffed, peer->agent)));
        }
        spiffed_peer_pump(peer);
    }
}

static uint64_t number_of(struct att_slice keys)
{
    uint8_t sha256[ATT_SHA256_LEN];
    att_sha256(sha256, keys);
    struct att_cur cur = att_cur_init(ATT_SLICE_ARRAY(sha256));
    return att_cur_be64(&cur);
}

static void failed(struct spiffed *spiffed, enum att_rc rc, const struct att_err *err)
{
    struct jwt_bundle *bundle = &spiffed->jwt;
    bundle->retry_ms = att_boottime_ms() + RETRY_MS;
    if (rc == ATT_E_NOTFOUND) { /* the issuer's word: no tokens, and no keys */
        oidc_jwks_free(bundle->jwks);
        att_buf_done(&bundle->keys);
        bundle->jwks = NULL;
        bundle->off = true;
        bundle->off_why = *err;
        bundle->generation = 0;
        bundle->known = bundle->asked;
        pump_all(spiffed);
        return;
    }
    for (struct peer *peer = spiffed->peers; peer && !is_there(bundle); peer = peer->next) {
        for (struct job *job = peer->jobs; job; job = job->next) {
            if (of_bundle(job) && !grpc_call_finished(job->call) && (job->due || job->sent)) {
                spiffed_finish_err(job, ATT_E_UNREACHABLE, err);
            }
        }
    }
}

static void heard_bundle(void *user, enum att_rc rc, const struct proc_msg *reply,
                         const struct att_err *err)
{
    struct spiffed *spiffed = user;
    struct jwt_bundle *bundle = &spiffed->jwt;
    struct oidc_jwks *jwks = NULL;
    struct att_err why = {0};
    bundle->asking = NULL;
    if (rc != ATT_OK) {
        failed(spiffed, rc, err);
        return;
    }
    const struct proc_value *v = reply->v;
    struct att_slice keys = v[PROC_WORKLOAD_JWT_BUNDLE_REP_KEYS].bytes;
    proc_take_text(v[PROC_WORKLOAD_JWT_BUNDLE_REP_TRUST_DOMAIN].bytes, bundle->trust_domain,
                   sizeof bundle->trust_domain);
    rc = oidc_jwks_parse(keys, &jwks, &why);
    att_autobuf copy = ATT_BUF_INIT(PROC_JWT_KEYS_MAX);
    att_buf_put_slice(&copy, keys);
    rc = rc == ATT_OK ? att_buf_ok(&copy, &why) : rc;
    if (rc != ATT_OK) {
        oidc_jwks_free(jwks);
        failed(spiffed, ATT_E_UNREACHABLE, &why);
        return;
    }
    oidc_jwks_free(bundle->jwks);
    att_buf_done(&bundle->keys);
    bundle->jwks = jwks;
    bundle->keys = copy;
    copy = (struct att_buf){0};
    bundle->off = false;
    bundle->generation = number_of(keys);
    bundle->known = bundle->asked;
    pump_all(spiffed);
}

void spiffed_jwt_refresh(struct spiffed *spiffed)
{
    struct jwt_bundle *bundle = &spiffed->jwt;
    bool known = is_there(bundle) && bundle->known == spiffed->standing;
    if (bundle->asking || known || att_boottime_ms() < bundle->retry_ms) {
        return;
    }
    bundle->asked = spiffed->standing;
    if (ask_call(spiffed->views, PROC_WORKLOAD_JWT_BUNDLE, NULL, 0, -1, NULL, heard_bundle, spiffed,
                 &bundle->asking, NULL) != ATT_OK) {
        bundle->retry_ms = att_boottime_ms() + RETRY_MS;
    }
}

void spiffed_jwt_look(struct spiffed *spiffed)
{
    bool wanted = is_there(&spiffed->jwt);
    for (const struct peer *peer = spiffed->peers; peer && !wanted; peer = peer->next) {
        for (const struct job *job = peer->jobs; job; job = job->next) {
            wanted = wanted || of_bundle(job);
        }
    }
    if (wanted) {
        spiffed_jwt_refresh(spiffed);
    }
}

/* ---- FetchJWTSVID ---------------------------------------------------------------------------- */

static void answer_token(struct job *job, const struct proc_msg *reply)
{
    char id[PROC_SPIFFE_ID_MAX + 1], token[PROC_TOKEN_MAX + 1];
    proc_take_text(reply->v[PROC_WORKLOAD_TOKEN_REP_SPIFFE_ID].bytes, id, sizeof id);
    proc_take_text(reply->v[PROC_WORKLOAD_TOKEN_REP_TOKEN].bytes, token, sizeof token);
    JWTSVID svid, *svids[] = {&svid};
    JWTSVIDResponse message = JWTSVIDRESPONSE__INIT;
    jwtsvid__init(&svid);
    svid.spiffe_id = id;
    svid.svid = token;
    message.svids = svids;
    message.n_svids = 1;
    struct grpc_bytes *bytes = grpc_bytes_new(protobuf_c_message_get_packed_size(&message.base));
    if (!bytes) {
        spiffed_finish(job, GRPC_UNAVAILABLE, "no memory for a token");
        return;
    }
    bytes->secret = true;
    (void)protobuf_c_message_pack(&message.base, bytes->data + 5);
    grpc_call_send(job->call, bytes);
    grpc_bytes_unref(bytes);
    att_wipe(token, sizeof token);
    spiffed_finish(job, GRPC_OK, NULL);
}

/* False: the call is over, or was decided by others meanwhile: who is it now? */
static bool still_its(struct job *job)
{
    const struct peer *peer = job->peer;
    job->asking = NULL;
    job->jwt_asked_ms = 0;
    if (grpc_call_finished(job->call)) {
        return false;
    }
    bool same = job->entries == peer->spiffed->entries && peer->agent &&
                strcmp(job->agent, peer->agent->name) == 0;
    if (!same) {
        job->due = true;
        spiffed_peer_pump(job->peer);
    }
    return same;
}

static void heard_token(void *user, enum att_rc rc, const struct proc_msg *reply,
                        const struct att_err *err)
{
    struct job *job = user;
    if (!still_its(job)) {
        return;
    }
    job->jwt_made = job->jwt_made || rc == ATT_OK;
    if (rc == ATT_OK && !spiffed_peer_proved(job->peer)) {
        job->due = true; /* seconds have gone: who is it now? What was made is kept by then. */
        spiffed_peer_pump(job->peer);
    } else if (rc == ATT_OK) {
        answer_token(job, reply);
    } else {
        spiffed_finish_err(job, rc, err);
    }
}

static void ask_for_token(struct job *job, struct ask *ask, enum proc_workload_op op,
                          ask_done_fn *done)
{
    struct att_err err = {0};
    const struct proc_value values[] = {[PROC_WORKLOAD_TOKEN_REQ_AGENT] = proc_text(job->agent),
                                        [PROC_WORKLOAD_TOKEN_REQ_AUDIENCE] =
                                            proc_bytes(att_slice_str(job->jwt_audience))};
    enum att_rc rc =
        ask_call(ask, (uint16_t)op, values, 2, -1, job->peer->agent, done, job, &job->asking, &err);
    if (rc != ATT_OK) {
        spiffed_finish_err(job, rc, &err);
    }
}

/* What is kept, or known, does not wait behind the agent's own questions to the issuer. */
static void heard_kept(void *user, enum att_rc rc, const struct proc_msg *reply,
                       const struct att_err *err)
{
    struct job *job = user;
    if (rc == ATT_OK && !grpc_call_finished(job->call)) {
        grpc_call_kept(job->call);
    }
    bool before = strcmp(err->reason, "unknownOperation") == 0; /* an attestd of before this one */
    bool ask = before || (rc == ATT_E_NOTFOUND && strcmp(err->reason, "tokenNotKept") == 0);
    if (!ask) {
        heard_token(user, rc, reply, err);
    } else if (still_its(job)) {
        job->jwt_asked_ms = att_boottime_ms();
        ask_for_token(job, job->peer->spiffed->tokens, PROC_WORKLOAD_TOKEN, heard_token);
    }
}

/* Behind another question of its agent that is long in coming. */
static void give_up(struct job *job)
{
    if (job->kind == JOB_JWT_SVID && job->asking && job->jwt_asked_ms &&
        att_boottime_ms() >= job->jwt_asked_ms + PATIENCE_MS && ask_waits(job->asking)) {
        ask_forget(job->asking);
        job->asking = NULL;
        spiffed_finish(job, GRPC_UNAVAILABLE,
                       "tokenWait: the issuer is slow to answer another question");
    }
}

static void serve_token(struct job *job)
{
    struct agent *agent = job->peer->agent;
    if (job->agent[0] && strcmp(job->agent, agent->name) != 0) {
        spiffed_finish(job, GRPC_PERMISSION_DENIED, "the caller became another agent meanwhile");
        return;
    }
    if (!spiffed_agent_known(agent)) {
        spiffed_agent_refresh(agent);
        return; /* due until it is known */
    }
    if (!agent->chain || agent->not_after <= att_now_utc_s()) {
        spiffed_finish(job, GRPC_PERMISSION_DENIED, "noCertificate: no certificate is in force");
        return;
    }
    if (job->sign.spiffe_id[0] && strcmp(job->sign.spiffe_id, agent->spiffe_id) != 0) {
        spiffed_finish(job, GRPC_PERMISSION_DENIED, "spiffe_id: not the caller's");
        return;
    }
    job->due = false;
    job->entries = job->peer->entries;
    memcpy(job->agent, agent->name, sizeof job->agent);
    if (grpc_call_wants_fresh(job->call) && !job->jwt_made) {
        job->jwt_asked_ms = att_boottime_ms();
        ask_for_token(job, job->peer->spiffed->tokens, PROC_WORKLOAD_TOKEN_FRESH, heard_token);
        return;
    }
    ask_for_token(job, job->peer->spiffed->views, PROC_WORKLOAD_TOKEN_KEPT, heard_kept);
}

void spiffed_jwt_step(struct spiffed *spiffed)
{
    for (struct peer *peer = spiffed->peers; peer; peer = peer->next) {
        for (struct job *job = peer->jobs; job; job = job->next) {
            give_up(job);
        }
    }
}

/* ---- FetchJWTBundles ------------------------------------------------------------------------- */

/* False: due until the keys are there, or the call is over: there are none for this agent. */
static bool has_keys(struct job *job)
{
    struct spiffed *spiffed = job->peer->spiffed;
    const struct jwt_bundle *bundle = &spiffed->jwt;
    if (!is_there(bundle)) {
        spiffed_jwt_refresh(spiffed);
    }
    if (!spiffed_federation_known(spiffed)) {
        spiffed_federation_refresh(spiffed);
    }
    if (!is_there(bundle) || !spiffed_federation_known(spiffed)) {
        return false;
    }
    if (bundle->off && !spiffed_federated_keys(spiffed, job->peer->agent)) {
        spiffed_finish_err(job, ATT_E_NOTFOUND, &bundle->off_why);
        return false;
    }
    return true;
}

static void serve_bundles(struct job *job)
{
    struct spiffed *spiffed = job->peer->spiffed;
    if (!has_keys(job)) {
        return;
    }
    uint64_t number = number_for(spiffed, job->peer->agent);
    job->due = false;
    if (job->sent && job->generation == number) {
        return;
    }
    struct grpc_bytes *bytes = encode(spiffed, job->peer->agent);
    if (!bytes) {
        spiffed_finish(job, GRPC_UNAVAILABLE,
                       "no memory for the keys, or they are longer than an answer may be");
        return;
    }
    job->sent = true;
    job->generation = number;
    grpc_call_send(job->call, bytes);
    grpc_bytes_unref(bytes);
}

/* ---- ValidateJWTSVID ------------------------------------------------------------------------- */

static enum att_rc bad(struct att_err *err, const char *reason, const char *what)
{
    (void)!att_fail(err, ATT_E_AUTH, "token: %s", what);
    att_err_reason(err, reason);
    return ATT_E_AUTH;
}

/* JWT-SVID §3.1: the trust domain is that of sub, and its keys decide, no other's. */
static enum att_rc find_domain(const struct jwt_keys *keys, const struct oidc_jwt *jwt,
                               const struct oidc_jwks **ret_jwks, struct att_err *err)
{
    char prefix[sizeof "spiffe:///" + PROC_TRUST_DOMAIN_MAX];
    const json_t *sub = json_object_get(jwt->claims, "sub");
    const char *text = json_string_value(sub);
    size_t len = text ? strlen(text) : 0;
    if (len == 0 || len > PROC_SPIFFE_ID_MAX || len != json_string_length(sub)) {
        return bad(err, "tokenSubject", "it has no sub that is a SPIFFE ID");
    }
    for (size_t i = 0; i < keys->n; i++) {
        snprintf(prefix, sizeof prefix, "spiffe://%s/", keys->of[i].trust_domain);
        if (strncmp(text, prefix, strlen(prefix)) == 0 && text[strlen(prefix)]) {
            *ret_jwks = keys->of[i].jwks;
            return ATT_OK;
        }
    }
    return bad(err, "tokenDomain",
               "its sub is not of this trust domain, nor of one that the agent federates with");
}

enum att_rc spiffed_jwt_judge(const struct jwt_keys *keys, const char *token, const char *audience,
                              int64_t now, struct oidc_jwt *ret_jwt, struct att_err *err)
{
    static const char *const types[] = {"", "JWT", "JOSE", NULL}; /* JWT-SVID §2.3 */
    enum att_rc rc = oidc_jwt_parse_as(att_slice_str(token), types, ret_jwt, err);
    if (rc != ATT_OK) {
        return rc;
    }
    const struct oidc_jwks *jwks = NULL;
    rc = find_domain(keys, ret_jwt, &jwks, err);
    const struct oidc_key *key = rc == ATT_OK ? oidc_jwks_find(jwks, ret_jwt->kid) : NULL;
    if (rc == ATT_OK && !key) {
        rc = bad(err, "tokenKid", "its key (kid) is none of its trust domain's");
    }
    if (rc == ATT_OK && !(key->algs & (unsigned)ret_jwt->alg)) {
        rc = bad(err, "tokenAlg", "its alg is not that of its key");
    }
    rc = rc != ATT_OK ? rc : oidc_jwt_verify(ret_jwt, key->pkey, err);
    if (rc == ATT_OK && !oidc_jwt_has_audience(ret_jwt, audience)) {
        rc = bad(err, "tokenAudience", "its aud does not name the audience");
    }
    rc = rc != ATT_OK ? rc : oidc_jwt_check_times(ret_jwt, LEEWAY_S, 0, now, err);
    if (rc != ATT_OK) {
        oidc_jwt_done(ret_jwt);
    }
    return rc;
}

static void answer_validate(struct job *job, const struct oidc_jwt *jwt)
{
    att_autobuf claims = ATT_BUF_INIT(CLAIMS_MAX);
    ValidateJWTSVIDResponse message;
    struct grpc_bytes *bytes = NULL;
    validate_jwtsvidresponse__init(&message);
    if (jwt_claims_encode(jwt->claims, &claims, NULL) == ATT_OK) {
        message.spiffe_id =
            (char *)(uintptr_t)json_string_value(json_object_get(jwt->claims, "sub"));
        message.claims = (ProtobufCBinaryData){claims.len, claims.ptr};
        bytes = grpc_bytes_new(protobuf_c_message_get_packed_size(&message.base));
    }
    if (!bytes) {
        spiffed_finish(job, GRPC_UNAVAILABLE, "no memory for the claims, or they are too deep");
        return;
    }
    (void)protobuf_c_message_pack(&message.base, bytes->data + 5);
    grpc_call_send(job->call, bytes);
    grpc_bytes_unref(bytes);
    spiffed_finish(job, GRPC_OK, NULL);
}

static void keys_for(const struct spiffed *spiffed, const struct agent *agent, struct jwt_keys *ret)
{
    const struct federated *one;
    size_t at = 0;
    *ret = (struct jwt_keys){.n = 0};
    if (!spiffed->jwt.off) {
        ret->of[ret->n].trust_domain = spiffed->jwt.trust_domain;
        ret->of[ret->n++].jwks = spiffed->jwt.jwks;
    }
    while ((one = spiffed_federated(spiffed, agent, &at))) {
        ret->of[ret->n].trust_domain = one->trust_domain;
        ret->of[ret->n++].jwks = one->jwks;
    }
}

static void serve_validate(struct job *job)
{
    struct jwt_keys keys;
    struct oidc_jwt jwt = {0};
    struct att_err err = {0};
    if (!has_keys(job)) {
        return;
    }
    job->due = false;
    keys_for(job->peer->spiffed, job->peer->agent, &keys);
    if (spiffed_jwt_judge(&keys, job->jwt, job->jwt_audience, att_now_utc_s(), &jwt, &err) !=
        ATT_OK) {
        spiffed_finish_err(job, ATT_E_INVAL, &err);
        return;
    }
    answer_validate(job, &jwt);
    oidc_jwt_done(&jwt);
}

void spiffed_jwt_serve(struct job *job)
{
    if (job->kind == JOB_JWT_SVID) {
        serve_token(job);
    } else if (job->kind == JOB_JWT_BUNDLES) {
        serve_bundles(job);
    } else {
        serve_validate(job);
    }
}
