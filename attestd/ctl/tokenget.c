#include "attestd/ctl/tokenget.h"

#include "attestd/apiclient/agent.h"
#include "attestd/base/clock.h"
#include "attestd/base/ctl.h"
#include "attestd/base/io.h"
#include "attestd/base/secret.h"
#include "attestd/ctl/awsroles.h"
#include "attestd/ctl/bound.h"
#include "attestd/ctl/exchange.h"
#include "attestd/ctl/tokencache.h"

#include <openssl/rand.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define SPARE_S    60    /* a kept token of less life is no help while its service is away */
#define LOCK_MS    30000 /* for the token that another process is making */
#define SIGN_TRIES 5

void tokenget_done(struct tokenget *got)
{
    json_decref(got->result);
    *got = (struct tokenget){0};
}

/* A service or attestd that was not there. */
static enum ctl_exit report(const struct att_err *err)
{
    enum ctl_exit code = ctl_report(err);
    return err->rc == ATT_E_UNREACHABLE ? CTL_UNREACHABLE : code;
}

static enum att_rc result_of(const char *token, int64_t expires_at, struct tokenget *ret_got,
                             struct att_err *err)
{
    char until[ATT_TIME_TEXT_LEN], thumbprint[BOUND_THUMBPRINT_LEN + 1];
    att_time_text(until, expires_at);
    bound_thumbprint(ret_got->sha256, thumbprint);
    ret_got->expires_at = expires_at;
    ret_got->result = json_pack("{s:s, s:s, s:s*}", "token", token, "expiresAt", until, "boundTo",
                                ret_got->bound ? thumbprint : NULL);
    return ret_got->result ? ATT_OK : att_fail(err, ATT_E_NOMEM, "token");
}

/* ---- by attestd's control socket ---- */

static enum att_rc ask(const struct tokenget_job *job, bool fresh, json_t **ret_result,
                       struct att_err *err)
{
    const char *audience = job->profile ? job->profile->audience : job->audience;
    att_autojson *args = json_pack("{s:s, s:s}", "name", job->name, "audience", audience);
    if (!args || (fresh && json_object_set_new(args, "fresh", json_true()) != 0)) {
        return att_fail(err, ATT_E_INVAL, "--audience: expected UTF-8 text");
    }
    return att_ctl_call(job->ctx->control_path, "token", args, job->ctx->timeout_ms, ret_result,
                        err);
}

static enum ctl_exit plain(const struct tokenget_job *job, struct tokenget *ret_got)
{
    const char *until = NULL;
    struct att_err err = {0};
    enum att_rc rc = ask(job, false, &ret_got->result, &err);
    rc = rc ? rc : att_json_str(ret_got->result, "expiresAt", &until, &err);
    rc = rc ? rc : att_time_parse(until, &ret_got->expires_at, &err);
    return rc ? ctl_report(&err) : CTL_OK;
}

/* A server that takes each assertion once has no word of its own for that (RFC 7523 §3: a "jti"
 * that was used is just an invalid grant). */
static bool maybe_used(const struct att_err *err, bool kept)
{
    return kept && (strcmp(err->reason, "invalid_grant") == 0 ||
                    strcmp(err->reason, "invalid_client") == 0);
}

/* ret_code: what was reported already. What attestd refuses is ATT_E_DENIED here, too: only who is
 * away, or says later (as over gRPC, also of a rate), leaves a kept token in its place. */
static enum att_rc exchange(const struct tokenget_job *job, bool fresh,
                            struct exchange_token *ret_token, bool *ret_again,
                            enum ctl_exit *ret_code, struct att_err *err)
{
    att_autojson *svid = NULL;
    enum att_rc rc = ask(job, fresh, &svid, err);
    if (rc != ATT_OK) {
        *ret_code = ctl_report(err);
        return rc == ATT_E_LIMIT ? ATT_E_RETRY : rc;
    }
    const char *jwt = json_string_value(json_object_get(svid, "token"));
    if (!jwt) {
        return att_fail(err, ATT_E_PROTOCOL, "attestd answered without a token");
    }
    rc = exchange_run(job->profile, jwt, NULL, ret_token, err);
    *ret_again = rc == ATT_E_DENIED && maybe_used(err, json_is_true(json_object_get(svid, "kept")));
    return rc;
}

static enum att_rc by_control(const struct tokenget_job *job, struct exchange_token *ret_token,
                              enum ctl_exit *ret_code, struct att_err *err)
{
    bool again = false;
    enum att_rc rc = exchange(job, false, ret_token, &again, ret_code, err);
    if (again) { /* once, with one that was given to nobody */
        att_err_clear(err);
        rc = exchange(job, true, ret_token, &again, ret_code, err);
    }
    return rc;
}

/* ---- as the agent itself ---- */

static bool as_agent(const struct tokenget_job *job)
{
    return job->profile->grant == CONF_GRANT_AWS_ROLES_ANYWHERE || job->profile->client_tls;
}

static enum att_rc get_agent(const struct tokenget_job *job, struct apiclient_agent *ret_agent,
                             struct att_err *err)
{
    char socket[108];
    struct apiclient_agent agent = {0};
    enum att_rc rc = apiclient_socket(socket, err);
    rc = rc ? rc : apiclient_agent_get(socket, &agent, err);
    if (rc != ATT_OK) {
        return rc;
    }
    const char *own = strrchr(agent.spiffe_id, '/');
    if (!own || strcmp(own + 1, job->name) != 0) {
        rc = att_fail(err, ATT_E_DENIED,
                      "this process is %.200s: agent %.64s's key signs for its own processes only",
                      agent.spiffe_id, job->name);
        att_err_reason(err, "callerAgent");
        apiclient_agent_done(&agent);
        return rc;
    }
    *ret_agent = agent;
    return ATT_OK;
}

static enum att_rc exchange_as(const struct tokenget_job *job, const struct apiclient_agent *agent,
                               bool fresh, struct exchange_token *ret_token, bool *ret_again,
                               struct att_err *err)
{
    const struct conf_exchange *p = job->profile;
    struct att_buf jwt = {0};
    bool kept = false;
    enum att_rc rc = ATT_OK;
    if (p->audience) {
        rc = apiclient_jwt(agent->socket, p->audience, fresh, &jwt, &kept, err);
    }
    const char *text = p->audience ? att_buf_cstr(&jwt) : NULL;
    rc = rc ? rc : exchange_run(p, text, agent, ret_token, err);
    if (jwt.ptr) {
        att_wipe(jwt.ptr, jwt.cap);
    }
    att_buf_done(&jwt);
    *ret_again = rc == ATT_E_DENIED && maybe_used(err, kept);
    return rc;
}

static enum att_rc by_agent(const struct tokenget_job *job, const struct apiclient_agent *agent,
                            struct exchange_token *ret_token, struct att_err *err)
{
    bool again = false;
    if (job->profile->grant == CONF_GRANT_AWS_ROLES_ANYWHERE) {
        return awsroles_run(job->profile, agent, ret_token, err);
    }
    enum att_rc rc = exchange_as(job, agent, false, ret_token, &again, err);
    if (again) { /* as by_control */
        att_err_clear(err);
        rc = exchange_as(job, agent, true, ret_token, &again, err);
    }
    return rc;
}

/* ---- kept ---- */

static void put_text(struct att_buf *text, const char *value)
{
    att_buf_field_be32(text, att_slice_str(value));
}

/* All that the token depends on. A bound one is of no use to another certificate; others are. */
static enum att_rc cache_key(const struct tokenget_job *job, const struct apiclient_agent *agent,
                             uint8_t ret[ATT_SHA256_LEN], struct att_err *err)
{
    const struct conf_exchange *p = job->profile;
    att_autobuf text = {0};
    const char *const values[] = {job->name,
                                  p->endpoint,
                                  p->audience,
                                  p->client_id,
                                  p->subject_token_type,
                                  p->token,
                                  p->introspection,
                                  p->aws.trust_anchor_arn,
                                  p->aws.profile_arn,
                                  p->aws.role_arn,
                                  p->aws.region,
                                  p->aws.session_name};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        put_text(&text, values[i]);
    }
    att_buf_be32(&text, (uint32_t)p->grant);
    att_buf_be64(&text, (uint64_t)p->aws.duration_s);
    att_buf_u8(&text, (uint8_t)(p->json | p->client_tls << 1 | p->bound_required << 2));
    for (size_t i = 0; i < p->n_fields; i++) {
        put_text(&text, p->fields[i].name);
        put_text(&text, p->fields[i].value);
    }
    att_buf_put(&text, agent ? agent->sha256 : NULL, agent ? sizeof agent->sha256 : 0);
    enum att_rc rc = att_buf_ok(&text, err);
    if (rc == ATT_OK) {
        att_sha256(ret, att_buf_slice(&text));
    }
    return rc;
}

/* As --refresh: half of its life is before it. A clock that was put back makes nothing younger. */
static bool still_good(const struct tokencache *kept, int64_t now)
{
    return kept->issued_at <= now &&
           kept->expires_at - now > (kept->expires_at - kept->issued_at) / 2;
}

static bool soft(enum att_rc rc)
{
    return rc == ATT_E_UNREACHABLE || rc == ATT_E_TIMEOUT || rc == ATT_E_RETRY || rc == ATT_E_GONE;
}

/* ---- whose it is, is asked each time ---- */

/* The key signs for nobody who is frozen, and keyd's word counts: a digest of no protocol's. Where
 * the agent's signatures per second are used up, or somebody is just starting, it is tried again.
 */
static enum att_rc key_signs(const struct apiclient_agent *agent, struct att_err *err)
{
    static const struct timespec pause = {.tv_nsec = 300 * 1000 * 1000};
    uint8_t text[64] = "attestctl token --cache: is this agent in force?";
    uint8_t digest[ATT_SHA256_LEN];
    enum att_rc rc = ATT_E_RETRY;
    if (RAND_bytes(text + 48, 16) != 1) {
        return att_fail_openssl(err, ATT_E_CRYPTO, "random bytes");
    }
    att_sha256(digest, ATT_SLICE_ARRAY(text));
    for (int tries = 0; rc == ATT_E_RETRY && tries < SIGN_TRIES; tries++) {
        att_autobuf signature = {0};
        if (tries) {
            att_err_clear(err);
            nanosleep(&pause, NULL);
        }
        rc = apiclient_sign(agent, digest, &signature, err);
    }
    return rc;
}

/* ret_code: what was reported already. */
static enum att_rc control_knows(const struct tokenget_job *job, enum ctl_exit *ret_code,
                                 struct att_err *err)
{
    att_autojson *args = json_pack("{s:s}", "name", job->name), *shown = NULL;
    enum att_rc rc =
        att_ctl_call(job->ctx->control_path, "agent.show", args, job->ctx->timeout_ms, &shown, err);
    if (rc != ATT_OK) {
        *ret_code = ctl_report(err);
        return rc;
    }
    const char *state = json_string_value(json_object_get(shown, "state"));
    bool frozen = state && strcmp(state, "frozen") == 0;
    if (frozen || !json_is_true(json_object_get(shown, "certificate"))) {
        (void)att_fail(err, ATT_E_DENIED, "agent %.64s %s", job->name,
                       frozen ? "is frozen" : "has no certificate in force");
        att_err_reason(err, frozen ? "frozen" : "noCertificate");
        return ATT_E_DENIED;
    }
    return ATT_OK;
}

static void drop_kept(const struct tokenget_job *job, enum att_rc rc, const struct att_err *err)
{
    struct att_err why = {0};
    bool gone = (rc == ATT_E_DENIED || rc == ATT_E_NOTFOUND) &&
                strcmp(err->reason, "callerAgent") != 0 && /* another's cache is his */
                strcmp(err->reason, "socket") != 0;        /* nothing was said of the agent */
    if (job->cache && gone && tokencache_remove(job->cache, &why) != ATT_OK) {
        (void)ctl_report(&why);
    }
}

/* Of an agent that is frozen, revoked or removed nothing is given, and nothing is left lying there;
 * nor is it while nobody says what it is. */
static enum ctl_exit in_force(const struct tokenget_job *job, struct apiclient_agent *agent)
{
    struct att_err err = {0};
    enum ctl_exit code = CTL_OK;
    enum att_rc rc = ATT_OK;
    if (as_agent(job)) {
        rc = agent->chain ? ATT_OK : get_agent(job, agent, &err);
        rc = rc ? rc : key_signs(agent, &err);
    } else {
        rc = control_knows(job, &code, &err);
    }
    if (rc == ATT_OK) {
        return CTL_OK;
    }
    drop_kept(job, rc, &err);
    return code ? code : report(&err);
}

/* ---- all of it ---- */

static enum att_rc fetch(const struct tokenget_job *job, struct apiclient_agent *agent,
                         struct tokencache *ret_new, enum ctl_exit *ret_code, struct att_err *err)
{
    struct exchange_token token = {0};
    enum att_rc rc = ATT_OK;
    if (as_agent(job) && !agent->chain) {
        rc = get_agent(job, agent, err);
    }
    int64_t asked_at = att_now_utc_s();
    if (rc == ATT_OK) {
        rc = as_agent(job) ? by_agent(job, agent, &token, err)
                           : by_control(job, &token, ret_code, err);
    }
    if (rc == ATT_OK) {
        *ret_new = (struct tokencache){
            .token = token.token, .issued_at = asked_at, .expires_at = asked_at + token.lifetime_s};
    }
    return rc;
}

/* Another agent's is none (get_agent), and so is one for another certificate where it is bound. */
static enum ctl_exit load_kept(const struct tokenget_job *job, const uint8_t key[ATT_SHA256_LEN],
                               struct apiclient_agent *agent, struct tokencache *ret_kept)
{
    struct att_err err = {0};
    tokencache_done(ret_kept);
    *ret_kept = (struct tokencache){0};
    enum att_rc rc = tokencache_load(job->cache, key, ret_kept, &err);
    if (rc == ATT_E_NOTFOUND) {
        return CTL_OK;
    }
    return rc ? report(&err) : in_force(job, agent);
}

static enum ctl_exit look_up(const struct tokenget_job *job, struct apiclient_agent *agent,
                             uint8_t key[ATT_SHA256_LEN], struct tokencache *ret_kept)
{
    struct att_err err = {0};
    enum att_rc rc = ATT_OK;
    if (job->profile->client_tls) {
        rc = get_agent(job, agent, &err);
        drop_kept(job, rc, &err);
    }
    rc = rc ? rc : cache_key(job, agent->chain ? agent : NULL, key, &err);
    if (rc != ATT_OK) {
        return report(&err);
    }
    return job->cache ? load_kept(job, key, agent, ret_kept) : CTL_OK;
}

/* kept: in and out. */
static enum ctl_exit renew(const struct tokenget_job *job, struct apiclient_agent *agent,
                           const uint8_t key[ATT_SHA256_LEN], struct tokencache *kept)
{
    struct att_err err = {0};
    struct tokencache made = {0};
    enum ctl_exit code = CTL_OK;
    enum att_rc rc = fetch(job, agent, &made, &code, &err);
    if (rc != ATT_OK && kept->token.len && soft(rc) &&
        kept->expires_at - att_now_utc_s() > SPARE_S) {
        code = code ? code : report(&err); /* told, and the kept one is given */
        return CTL_OK;
    }
    if (rc != ATT_OK) {
        return code ? code : report(&err);
    }
    tokencache_done(kept);
    *kept = made;
    if (job->cache && tokencache_save(job->cache, key, kept, &err) != ATT_OK) {
        (void)ctl_report(&err); /* it is given all the same */
    }
    return CTL_OK;
}

/* Of several that find nothing one makes it. Without the lock each makes its own, as without a
 * cache. */
static enum ctl_exit make(const struct tokenget_job *job, struct apiclient_agent *agent,
                          const uint8_t key[ATT_SHA256_LEN], struct tokencache *kept)
{
    struct att_err err = {0};
    att_autofd lock = -1;
    enum ctl_exit code = CTL_OK;
    if (job->cache && tokencache_lock(job->cache, LOCK_MS, &lock, &err) != ATT_OK) {
        code = ctl_report(&err);
        if (err.rc == ATT_E_DENIED) {
            return code;
        }
    } else if (job->cache) {
        code = load_kept(job, key, agent, kept);
        if (code != CTL_OK || (kept->token.len && still_good(kept, att_now_utc_s()))) {
            return code;
        }
    }
    return renew(job, agent, key, kept);
}

enum ctl_exit tokenget_run(const struct tokenget_job *job, struct tokenget *ret_got)
{
    struct tokenget got = {0};
    struct apiclient_agent agent = {0};
    struct tokencache kept = {0};
    uint8_t key[ATT_SHA256_LEN] = {0};
    struct att_err err = {0};
    if (!job->profile) {
        enum ctl_exit code = plain(job, &got);
        if (code != CTL_OK) {
            tokenget_done(&got);
            return code;
        }
        *ret_got = got;
        return CTL_OK;
    }
    enum ctl_exit code = look_up(job, &agent, key, &kept);
    if (code == CTL_OK && !(kept.token.len && still_good(&kept, att_now_utc_s()))) {
        code = make(job, &agent, key, &kept);
    }
    if (code == CTL_OK) {
        got.bound = job->profile->bound_required;
        memcpy(got.sha256, agent.sha256, sizeof got.sha256);
        code = result_of((const char *)kept.token.ptr, kept.expires_at, &got, &err) == ATT_OK
                   ? CTL_OK
                   : report(&err);
    }
    tokencache_done(&kept);
    apiclient_agent_done(&agent);
    if (code == CTL_OK) {
        *ret_got = got;
    }
    return code;
}

bool tokenget_outdated(const struct tokenget *got)
{
    char socket[108];
    struct apiclient_agent agent = {0};
    bool other = got->bound && apiclient_socket(socket, NULL) == ATT_OK &&
                 apiclient_agent_get(socket, &agent, NULL) == ATT_OK &&
                 memcmp(agent.sha256, got->sha256, sizeof agent.sha256) != 0;
    apiclient_agent_done(&agent);
    return other;
}
