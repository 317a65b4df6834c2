#include "attestd/host/tokens.h"

#include "attestd/base/secret.h"
#include "attestd/conf/entries.h"
#include "attestd/host/internal.h"
#include "attestd/proc/keyd_token.h"

#include <stdlib.h>
#include <string.h>

#define KEPT_MAX       1024
#define KEPT_PER_AGENT 64
#define PACES_MAX      512
#define FETCH_MS       8000  /* of one request to the issuer */
#define AWAY_MS        2000  /* after a failure nobody is asked for so long, … */
#define AWAY_MOST_MS   30000 /* … twice as long after each further one, up to this */
#define REFUSED_MS     30000 /* the issuer's no is believed for so long */
#define RENEW_MS       5000  /* while the agent is renewed for want of fresh evidence */
#define BURST          32    /* of an agent: tokens at once, and … */
#define REFILL_MS      2000  /* … one more each so often */
#define WAIT_MS        2000  /* a question that takes longer is not waited for by others */
#define REFUSALS_MAX   300   /* of this host within REFUSALS_MS: the account has other work */
#define REFUSALS_AGENT 30    /* of these, of one agent */
#define REFUSALS_MS    600000
#define LEAST_S        5 /* a token of less life is not given any more */
#define AUDIENCES_TEXT (PROC_AUDIENCES_MAX * (PROC_AUDIENCE_MAX + 1))
#define SLOT           (HOST_WORKERS + 1)

struct kept {
    char agent[AGENT_NAME_MAX + 1];
    char serial[sizeof(((struct agent_record *)0)->serial)];
    char *audience; /* sorted, a newline after each */
    char *token;
    char kid[64];
    int64_t issued_at, expires_at; /* the issuer's clock, UTC seconds */
    int64_t got_ms, used_ms;       /* CLOCK_BOOTTIME */
};

/* Of an agent: how fast it may ask, and what it was refused last. */
struct pace {
    char agent[AGENT_NAME_MAX + 1];
    int64_t at_ms, left; /* left: of BURST, in thousandths */
    int64_t until_ms;    /* refused is the answer until then */
    char *audience;      /* to this question */
    struct att_err refused;
    int64_t refusals_from_ms;
    unsigned refusals;
};

struct host_tokens {
    pthread_mutex_t lock; /* around the rest; no blocking call under it */
    pthread_cond_t done;  /* CLOCK_MONOTONIC: busy is false again */
    bool busy;            /* one question at a time is on its way, … */
    int64_t busy_ms;      /* … since then, CLOCK_MONOTONIC */
    struct kept *kept[KEPT_MAX];
    struct pace paces[PACES_MAX];
    int64_t away_ms; /* nobody is asked until then: what is kept is given, or the failure */
    int64_t away_span_ms;
    struct att_err away;
    int64_t refusals_from_ms;
    unsigned refusals;
};

/* One question on its way. */
struct want {
    struct host *host;
    const char *agent;
    const char *audience[PROC_AUDIENCES_MAX];
    size_t n;
    char text[AUDIENCES_TEXT + 1];
    char spiffe_id[AGENT_SPIFFE_ID_MAX + 1];
    char key_id[AGENT_KEY_ID_MAX + 1];
    char serial[sizeof(((struct agent_record *)0)->serial)];
    json_t *view;  /* of that time */
    bool new_only; /* what is kept will not do */
    bool no_proof; /* keyd would not sign: a matter of this agent */
};

static enum att_rc refuse(struct att_err *err, enum att_rc rc, const char *reason,
                          const char *agent, const char *what)
{
    (void)!att_fail(err, rc, "agent %.64s: %s", agent, what);
    att_err_reason(err, reason);
    return rc;
}

/* ---- the view -------------------------------------------------------------------------------- */

json_t *host_tokens_view(const json_t *view)
{
    const json_t *tokens = json_object_get(view, "tokens"), *entries, *entry;
    json_t *all = json_object();
    size_t i;
    entries = json_object_get(view, "entries");
    json_array_foreach(entries, i, entry)
    {
        const char *name = json_string_value(json_object_get(entry, "name"));
        json_t *audiences = json_object_get(entry, "audiences");
        if (name && json_is_array(audiences)) {
            json_object_set_new(all, name, json_deep_copy(audiences));
        }
    }
    return json_pack("{s:o?, s:o}", "tokens", tokens ? json_deep_copy(tokens) : NULL, "audiences",
                     all);
}

static bool lists(const json_t *list, const char *audience)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *one = json_string_value(json_array_get(list, i));
        if (one && strcmp(one, audience) == 0) {
            return true;
        }
    }
    return false;
}

static bool has_kid(const json_t *view, const char *kid)
{
    const json_t *keys = json_object_get(json_object_get(view, "tokens"), "keys");
    for (size_t i = 0; i < json_array_size(keys); i++) {
        const char *one = json_string_value(json_object_get(json_array_get(keys, i), "kid"));
        if (one && strcmp(one, kid) == 0) {
            return true;
        }
    }
    return false;
}

enum att_rc host_token_keys(struct host *host, json_t **ret_tokens, struct att_err *err)
{
    HOST_LOCKED(host);
    const json_t *tokens = json_object_get(host->token_view, "tokens");
    if (!json_is_object(tokens)) {
        (void)!att_fail(err, ATT_E_NOTFOUND, "the issuer mints no tokens");
        att_err_reason(err, "tokensOff");
        return ATT_E_NOTFOUND;
    }
    *ret_tokens = json_deep_copy(tokens);
    return *ret_tokens ? ATT_OK : att_fail(err, ATT_E_NOMEM, "keys of tokens");
}

/* ---- who asks for what ----------------------------------------------------------------------- */

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static enum att_rc take_audiences(struct want *w, const char *const *audience, size_t n,
                                  struct att_err *err)
{
    if (n < 1 || n > PROC_AUDIENCES_MAX) {
        return att_fail(err, ATT_E_INVAL, "expected 1 to %d audiences, found %zu",
                        PROC_AUDIENCES_MAX, n);
    }
    for (size_t i = 0; i < n; i++) {
        if (!conf_audience_ok(audience[i])) {
            return att_fail(err, ATT_E_INVAL,
                            "audience: expected 1 to %d printable characters without space",
                            CONF_AUDIENCE_MAX);
        }
        w->audience[i] = audience[i];
    }
    qsort(w->audience, n, sizeof w->audience[0], by_text);
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || strcmp(w->audience[i], w->audience[i - 1]) != 0) {
            w->audience[w->n++] = w->audience[i];
            strcat(w->text, w->audience[i]);
            strcat(w->text, "\n");
        }
    }
    return ATT_OK;
}

/* What the agent has now, and whether its entry allows this; the issuer asks again. */
static enum att_rc look(struct want *w, struct att_err *err)
{
    struct host *host = w->host;
    struct agent_now now = host_now();
    HOST_LOCKED(host);
    const struct agent *agent = agent_registry_find(host->reg, w->agent);
    if (!agent || agent->rec.life.state == AGENT_REMOVED) {
        return refuse(err, ATT_E_DENIED, "notAssigned", w->agent, "there is no such agent here");
    }
    if (agent->rec.life.state == AGENT_FROZEN) {
        return refuse(err, ATT_E_DENIED, "frozen", w->agent, "it is frozen");
    }
    if (!json_is_object(json_object_get(host->token_view, "tokens"))) {
        return refuse(err, ATT_E_DENIED, "tokensOff", w->agent, "the issuer mints no tokens");
    }
    const json_t *allowed =
        json_object_get(json_object_get(host->token_view, "audiences"), w->agent);
    for (size_t i = 0; i < w->n; i++) {
        if (!lists(allowed, w->audience[i])) {
            return refuse(err, ATT_E_DENIED, "audienceDenied", w->agent,
                          "its entry does not allow this audience");
        }
    }
    if (!agent_life_serving(&agent->rec.life) || agent_sched_expired(&agent->rec.dates, now)) {
        return refuse(err, ATT_E_DENIED, "noCertificate", w->agent, "no certificate is in force");
    }
    memcpy(w->spiffe_id, agent->rec.spiffe_id, sizeof w->spiffe_id);
    memcpy(w->key_id, agent->rec.key_id, sizeof w->key_id);
    memcpy(w->serial, agent->rec.serial, sizeof w->serial);
    json_decref(w->view);
    w->view = json_deep_copy(host->token_view);
    return w->view ? ATT_OK : att_fail(err, ATT_E_NOMEM, "token");
}

/* ---- what is kept ---------------------------------------------------------------------------- */

static void kept_free(struct kept *kept)
{
    if (kept) {
        if (kept->token) {
            att_wipe(kept->token, strlen(kept->token));
        }
        free(kept->token);
        free(kept->audience);
        free(kept);
    }
}

/* By both clocks: one that was set back does not make a token younger, and one that runs through a
 * suspend does not miss its end. */
static int64_t life_left_s(const struct kept *kept, int64_t now_ms, int64_t utc_s)
{
    int64_t life = kept->expires_at - kept->issued_at;
    int64_t by_boot = life - (now_ms - kept->got_ms) / 1000, by_utc = kept->expires_at - utc_s;
    return by_boot < by_utc ? by_boot : by_utc;
}

/* Not when our clock is behind the token's beginning: who checks it by a clock like ours refuses.
 */
static bool usable(const struct kept *kept, const struct want *w, int64_t now_ms, int64_t utc_s)
{
    return life_left_s(kept, now_ms, utc_s) > LEAST_S && kept->issued_at <= utc_s + 60 &&
           strcmp(kept->serial, w->serial) == 0 && has_kid(w->view, kept->kid);
}

/* lock is held by all of these. NULL: nothing that can be given. */
static struct kept *find_kept(struct host_tokens *tokens, const struct want *w)
{
    int64_t now_ms = att_boottime_ms(), utc_s = att_now_utc_s();
    for (size_t i = 0; i < KEPT_MAX; i++) {
        struct kept *kept = tokens->kept[i];
        if (kept && strcmp(kept->agent, w->agent) == 0 && strcmp(kept->audience, w->text) == 0) {
            if (usable(kept, w, now_ms, utc_s)) {
                kept->used_ms = now_ms;
                return kept;
            }
            kept_free(kept);
            tokens->kept[i] = NULL;
        }
    }
    return NULL;
}

static bool fresh(const struct kept *kept)
{
    int64_t left = life_left_s(kept, att_boottime_ms(), att_now_utc_s());
    return left * 2 > kept->expires_at - kept->issued_at;
}

/* The place of its own, a free one, or that of who was used longest ago: of this agent when it has
 * its part. */
static struct kept **place_of(struct host_tokens *tokens, const struct kept *fresh_one)
{
    struct kept **empty = NULL, **oldest = NULL, **own_oldest = NULL;
    size_t own = 0;
    for (size_t i = 0; i < KEPT_MAX; i++) {
        struct kept **at = &tokens->kept[i];
        if (!*at) {
            empty = empty ? empty : at;
            continue;
        }
        bool same = strcmp((*at)->agent, fresh_one->agent) == 0;
        if (same && strcmp((*at)->audience, fresh_one->audience) == 0) {
            return at;
        }
        own += same;
        own_oldest =
            same && (!own_oldest || (*at)->used_ms < (*own_oldest)->used_ms) ? at : own_oldest;
        oldest = !oldest || (*at)->used_ms < (*oldest)->used_ms ? at : oldest;
    }
    return own >= KEPT_PER_AGENT ? own_oldest : empty ? empty : oldest;
}

static enum att_rc give(const struct kept *kept, const struct want *w,
                        struct host_token_reply *ret_reply, struct att_err *err)
{
    ret_reply->token = strdup(kept->token);
    ret_reply->spiffe_id = strdup(w->spiffe_id);
    ret_reply->expires_at = kept->expires_at;
    if (ret_reply->token && ret_reply->spiffe_id) {
        return ATT_OK;
    }
    host_token_reply_done(ret_reply);
    return att_fail(err, ATT_E_NOMEM, "token");
}

void host_token_reply_done(struct host_token_reply *reply)
{
    if (reply->token) {
        att_wipe(reply->token, strlen(reply->token));
    }
    free(reply->token);
    free(reply->spiffe_id);
    *reply = (struct host_token_reply){0};
}

/* ---- how fast -------------------------------------------------------------------------------- */

static struct pace *pace_of(struct host_tokens *tokens, const char *agent, int64_t now_ms)
{
    struct pace *oldest = &tokens->paces[0];
    for (size_t i = 0; i < PACES_MAX; i++) {
        struct pace *pace = &tokens->paces[i];
        if (strcmp(pace->agent, agent) == 0) {
            return pace;
        }
        oldest = pace->at_ms < oldest->at_ms ? pace : oldest;
    }
    free(oldest->audience);
    *oldest = (struct pace){.at_ms = now_ms, .left = BURST * 1000};
    snprintf(oldest->agent, sizeof oldest->agent, "%s", agent);
    return oldest;
}

/* What is known without asking: that the issuer is away, or its no. */
static enum att_rc known_answer(struct host_tokens *tokens, const struct want *w,
                                struct att_err *err)
{
    int64_t now_ms = att_boottime_ms();
    const struct pace *pace = pace_of(tokens, w->agent, now_ms);
    if (now_ms < tokens->away_ms) {
        *err = tokens->away;
        return err->rc;
    }
    if (now_ms < pace->until_ms && (!pace->audience || strcmp(pace->audience, w->text) == 0)) {
        *err = pace->refused;
        return err->rc;
    }
    return ATT_OK;
}

/* May the issuer be asked for it now? */
static enum att_rc may_ask(struct host_tokens *tokens, const struct want *w, struct att_err *err)
{
    int64_t now_ms = att_boottime_ms();
    struct pace *pace = pace_of(tokens, w->agent, now_ms);
    int64_t gone = now_ms - pace->at_ms, most = BURST * 1000;
    enum att_rc rc = known_answer(tokens, w, err);
    if (rc != ATT_OK) {
        return rc;
    }
    if (now_ms - tokens->refusals_from_ms > REFUSALS_MS) {
        tokens->refusals_from_ms = now_ms;
        tokens->refusals = 0;
    }
    if (now_ms - pace->refusals_from_ms > REFUSALS_MS) {
        pace->refusals_from_ms = now_ms;
        pace->refusals = 0;
    }
    if (tokens->refusals >= REFUSALS_MAX || pace->refusals >= REFUSALS_AGENT) {
        return refuse(err, ATT_E_LIMIT, "tokenRate", w->agent,
                      tokens->refusals >= REFUSALS_MAX
                          ? "the issuer refused this host's agents too often of late"
                          : "the issuer refused it too often of late");
    }
    pace->left += gone > (int64_t)BURST * REFILL_MS ? most : gone * 1000 / REFILL_MS;
    pace->left = pace->left < most ? pace->left : most;
    pace->at_ms = now_ms;
    if (pace->left < 1000) {
        return refuse(err, ATT_E_LIMIT, "tokenRate", w->agent, "it asks for new tokens too fast");
    }
    pace->left -= 1000;
    return ATT_OK;
}

/* Whom the issuer's no is about. */
enum whom { THIS_QUESTION, THIS_AGENT, THIS_HOST };

static enum whom whom(const char *reason)
{
    static const char *const host[] = {"hostUnknown", "hostBanned", "firmwareDenied", NULL};
    static const char *const question[] = {"audienceDenied", "tokenProof", "tokenNonce",
                                           "malformed", NULL};
    for (const char *const *word = host; *word; word++) {
        if (strcmp(reason, *word) == 0) {
            return THIS_HOST;
        }
    }
    for (const char *const *word = question; *word; word++) {
        if (strcmp(reason, *word) == 0) {
            return THIS_QUESTION;
        }
    }
    return THIS_AGENT;
}

/* What a renewal mends, if anything does: the certificate rests on a verdict that is not enough
 * any more (M8). */
static bool renewal_mends(const char *reason)
{
    static const char *const words[] = {"evidenceStale", "policyExpired", "bootPolicy", "keyParent",
                                        "akStale",       "akUnknown",     NULL};
    for (const char *const *word = words; *word; word++) {
        if (strcmp(reason, *word) == 0) {
            return true;
        }
    }
    return false;
}

/* pace->audience NULL: whatever the agent asks for. */
static void note_refusal(struct host_tokens *tokens, const struct want *w, int64_t for_ms,
                         const struct att_err *why)
{
    struct pace *pace = pace_of(tokens, w->agent, att_boottime_ms());
    free(pace->audience);
    pace->audience = whom(why->reason) == THIS_QUESTION ? strdup(w->text) : NULL;
    pace->until_ms = att_boottime_ms() + for_ms;
    pace->refused = *why;
    pace->refusals++;
    tokens->refusals++;
}

/* ---- asking ---------------------------------------------------------------------------------- */

static enum att_rc write_proof(void *user, const char *nonce, struct att_buf *ret_payload,
                               struct att_err *err)
{
    struct want *w = user;
    struct att_slice audience[PROC_AUDIENCES_MAX];
    att_autobuf proof = ATT_BUF_INIT(PROC_PROOF_MAX);
    for (size_t i = 0; i < w->n; i++) {
        audience[i] = att_slice_str(w->audience[i]);
    }
    enum att_rc rc = proc_keyd_key_token(w->host->keyd, w->key_id, w->serial, nonce, w->spiffe_id,
                                         audience, w->n, &proof, err);
    w->no_proof = rc != ATT_OK;
    if (rc == ATT_OK) {
        att_autojson *json = json_pack("{s:s}", "proof", att_buf_cstr(&proof));
        rc = json ? att_json_dump(json, false, ret_payload, err)
                  : att_fail(err, ATT_E_NOMEM, "token");
    }
    return rc;
}

static enum att_rc read_answer(const struct want *w, const json_t *json, struct kept **ret_kept,
                               struct att_err *err)
{
    const char *token = json_string_value(json_object_get(json, "token"));
    const char *kid = json_string_value(json_object_get(json, "kid"));
    const char *id = json_string_value(json_object_get(json, "spiffeId"));
    struct kept *kept = calloc(1, sizeof *kept);
    if (!kept) {
        return att_fail(err, ATT_E_NOMEM, "token");
    }
    kept->issued_at = json_integer_value(json_object_get(json, "issuedAt"));
    kept->expires_at = json_integer_value(json_object_get(json, "expiresAt"));
    kept->got_ms = kept->used_ms = att_boottime_ms();
    if (!token || !kid || !id || strlen(kid) >= sizeof kept->kid || strlen(token) > 16384 ||
        strcmp(id, w->spiffe_id) != 0 || kept->expires_at <= kept->issued_at) {
        kept_free(kept);
        return att_fail(err, ATT_E_PROTOCOL,
                        "newToken: expected token, kid, spiffeId, issuedAt "
                        "and expiresAt for what was asked");
    }
    snprintf(kept->agent, sizeof kept->agent, "%s", w->agent);
    snprintf(kept->kid, sizeof kept->kid, "%s", kid);
    memcpy(kept->serial, w->serial, sizeof kept->serial);
    kept->token = strdup(token);
    kept->audience = strdup(w->text);
    if (!kept->token || !kept->audience) {
        kept_free(kept);
        return att_fail(err, ATT_E_NOMEM, "token");
    }
    *ret_kept = kept;
    return ATT_OK;
}

/* One at a time. */
static enum att_rc ask_issuer(struct want *w, struct kept **ret_kept, struct att_err *err)
{
    struct acme_client *client = NULL;
    att_autojson *json = NULL;
    enum att_rc rc = host_client_get(w->host, SLOT, &client, err);
    if (rc == ATT_OK) {
        rc = acme_client_new_token(client, write_proof, w, FETCH_MS, &json, err);
        host_client_heard(w->host, client);
    }
    return rc == ATT_OK ? read_answer(w, json, ret_kept, err) : rc;
}

/* Fresh evidence comes with a renewal, which is due to nobody before that. What failed of late is
 * not tried sooner for it. */
static void renew_now(struct want *w)
{
    {
        HOST_LOCKED(w->host);
        struct agent *agent = agent_registry_find(w->host->reg, w->agent);
        if (agent && agent->rec.life.state == AGENT_VALID) {
            agent->forced = true;
        }
    }
    host_wake(w->host);
}

/* lock is held. */
static enum att_rc after_failure(struct host_tokens *tokens, struct want *w, enum att_rc rc,
                                 struct att_err *err)
{
    if (rc == ATT_E_DENIED && strcmp(err->reason, "keyState") == 0) {
        err->rc = ATT_E_RETRY; /* its key changes at this moment */
        return ATT_E_RETRY;
    }
    bool stale = rc == ATT_E_DENIED && renewal_mends(err->reason);
    if (stale) {
        err->rc = rc = ATT_E_RETRY;
        note_refusal(tokens, w, RENEW_MS, err);
    } else if (rc == ATT_E_DENIED) {
        note_refusal(tokens, w, REFUSED_MS, err);
    } else if (w->no_proof) {
        note_refusal(tokens, w, RENEW_MS, err);
    } else {
        int64_t twice = 2 * tokens->away_span_ms;
        tokens->away_span_ms = twice < AWAY_MS        ? AWAY_MS
                               : twice > AWAY_MOST_MS ? AWAY_MOST_MS
                                                      : twice;
        tokens->away_ms = att_boottime_ms() + tokens->away_span_ms;
        tokens->away = *err;
    }
    return rc;
}

/* What the issuer takes back is not given from memory: not to this audience, and where the reason
 * is the agent's or the host's not to any, nor to any agent. */
static void forget(struct host_tokens *tokens, const struct want *w, const char *reason)
{
    enum whom of = whom(reason);
    for (size_t i = 0; i < KEPT_MAX; i++) {
        struct kept *kept = tokens->kept[i];
        bool agent = kept && strcmp(kept->agent, w->agent) == 0;
        if (kept && (of == THIS_HOST ||
                     (agent && (of == THIS_AGENT || strcmp(kept->audience, w->text) == 0)))) {
            kept_free(kept);
            tokens->kept[i] = NULL;
        }
    }
}

/* What is kept and fresh, or what is kept while the issuer cannot be asked. */
static bool give_kept(struct host_tokens *tokens, const struct want *w, bool also_old,
                      struct host_token_reply *ret_reply, enum att_rc *ret_rc, struct att_err *err)
{
    pthread_mutex_lock(&tokens->lock);
    const struct kept *kept = find_kept(tokens, w);
    bool given =
        kept && (also_old || (fresh(kept) && !w->new_only) || att_boottime_ms() < tokens->away_ms);
    if (given) {
        *ret_rc = give(kept, w, ret_reply, err);
        ret_reply->kept = true;
    }
    pthread_mutex_unlock(&tokens->lock);
    return given;
}

/* lock is held. kept is taken. */
static enum att_rc keep_and_give(struct host_tokens *tokens, const struct want *w,
                                 struct kept *kept, struct host_token_reply *ret_reply,
                                 struct att_err *err)
{
    struct kept **at = place_of(tokens, kept);
    enum att_rc rc = give(kept, w, ret_reply, err);
    kept_free(*at);
    *at = kept;
    tokens->away_span_ms = tokens->away_ms = 0;
    return rc;
}

static enum att_rc get_new(struct want *w, struct host_token_reply *ret_reply, struct att_err *err)
{
    struct host_tokens *tokens = w->host->tokens;
    struct kept *kept = NULL;
    struct att_err why = {0};
    pthread_mutex_lock(&tokens->lock);
    enum att_rc rc = may_ask(tokens, w, &why);
    pthread_mutex_unlock(&tokens->lock);
    bool asked = rc == ATT_OK;
    rc = asked ? ask_issuer(w, &kept, &why) : rc;
    why.rc = rc;
    pthread_mutex_lock(&tokens->lock);
    if (asked && rc != ATT_OK) {
        rc = after_failure(tokens, w, rc, &why);
    }
    if (rc == ATT_E_DENIED) {
        forget(tokens, w, why.reason);
    }
    pthread_mutex_unlock(&tokens->lock);
    if (asked && (renewal_mends(why.reason) || strcmp(why.reason, "verdictRefused") == 0)) {
        renew_now(w);
    }
    /* It took seconds: what was taken from the agent meanwhile is not given any more. */
    enum att_rc now = asked ? look(w, err) : ATT_OK;
    if (now != ATT_OK) {
        kept_free(kept);
        return now;
    }
    enum att_rc kept_rc = ATT_OK;
    if (kept) {
        pthread_mutex_lock(&tokens->lock);
        rc = keep_and_give(tokens, w, kept, ret_reply, &why);
        pthread_mutex_unlock(&tokens->lock);
    } else if (rc != ATT_E_DENIED && give_kept(tokens, w, true, ret_reply, &kept_rc, &why)) {
        rc = kept_rc;
    }
    if (rc != ATT_OK && err) {
        *err = why;
    }
    return rc;
}

static int64_t monotonic_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* False: another question is on its way and takes long. Who could be given what is kept, and takes
 * it, does not wait for it at all. */
static bool begin(struct host_tokens *tokens, const struct want *w)
{
    pthread_mutex_lock(&tokens->lock);
    bool wait = w->new_only || !find_kept(tokens, w);
    while (tokens->busy && wait) {
        int64_t until = tokens->busy_ms + WAIT_MS;
        const struct timespec at = {.tv_sec = (time_t)(until / 1000),
                                    .tv_nsec = (long)(until % 1000) * 1000000};
        wait = monotonic_ms() < until;
        if (wait) {
            (void)pthread_cond_timedwait(&tokens->done, &tokens->lock, &at);
        }
    }
    bool mine = !tokens->busy;
    if (mine) {
        tokens->busy = true;
        tokens->busy_ms = monotonic_ms();
    }
    pthread_mutex_unlock(&tokens->lock);
    return mine;
}

static void end(struct host_tokens *tokens)
{
    pthread_mutex_lock(&tokens->lock);
    tokens->busy = false;
    pthread_cond_broadcast(&tokens->done);
    pthread_mutex_unlock(&tokens->lock);
}

static enum att_rc too_slow(const struct want *w, struct att_err *err)
{
    return refuse(err, ATT_E_RETRY, "tokenWait", w->agent,
                  "the issuer is slow to answer another question");
}

/* Nothing fresh is kept. */
static enum att_rc fetch(struct want *w, struct host_token_reply *ret_reply, struct att_err *err)
{
    struct host_tokens *tokens = w->host->tokens;
    bool mine = begin(tokens, w);
    /* Time has gone, and another may have fetched it meanwhile. */
    enum att_rc rc = look(w, err);
    if (rc == ATT_OK && !give_kept(tokens, w, !mine, ret_reply, &rc, err)) {
        rc = mine ? get_new(w, ret_reply, err) : too_slow(w, err);
    }
    if (mine) {
        end(tokens);
    }
    return rc;
}

enum att_rc host_token_get(struct host *host, const char *agent, const char *const *audience,
                           size_t n, bool fresh, struct host_token_reply *ret_reply,
                           struct att_err *err)
{
    struct want w = {.host = host, .agent = agent, .new_only = fresh};
    enum att_rc rc = agent_name_check(agent, err);
    rc = rc != ATT_OK ? rc : take_audiences(&w, audience, n, err);
    rc = rc != ATT_OK ? rc : look(&w, err);
    if (rc == ATT_OK && !give_kept(host->tokens, &w, false, ret_reply, &rc, err)) {
        rc = fetch(&w, ret_reply, err);
    }
    json_decref(w.view);
    return rc;
}

/* lock is held. */
static enum att_rc give_at_once(struct host_tokens *tokens, const struct want *w,
                                struct host_token_reply *ret_reply, struct att_err *err)
{
    struct att_err why = {0};
    const struct kept *kept = find_kept(tokens, w);
    enum att_rc known = known_answer(tokens, w, &why);
    bool asks = known == ATT_OK && !tokens->busy;
    if (kept && known != ATT_E_DENIED && (fresh(kept) || !asks)) {
        return give(kept, w, ret_reply, err);
    }
    if (known != ATT_OK) {
        if (err) {
            *err = why;
        }
        return known;
    }
    if (tokens->busy && monotonic_ms() >= tokens->busy_ms + WAIT_MS) {
        return too_slow(w, err);
    }
    return refuse(err, ATT_E_NOTFOUND, "tokenNotKept", w->agent, "the issuer is to be asked");
}

enum att_rc host_token_kept(struct host *host, const char *agent, const char *const *audience,
                            size_t n, struct host_token_reply *ret_reply, struct att_err *err)
{
    struct want w = {.host = host, .agent = agent};
    enum att_rc rc = agent_name_check(agent, err);
    rc = rc != ATT_OK ? rc : take_audiences(&w, audience, n, err);
    rc = rc != ATT_OK ? rc : look(&w, err);
    if (rc == ATT_OK) {
        pthread_mutex_lock(&host->tokens->lock);
        rc = give_at_once(host->tokens, &w, ret_reply, err);
        pthread_mutex_unlock(&host->tokens->lock);
    }
    json_decref(w.view);
    return rc;
}

/* ---- birth and end --------------------------------------------------------------------------- */

enum att_rc host_tokens_new(struct host_tokens **ret_tokens, struct att_err *err)
{
    struct host_tokens *tokens = calloc(1, sizeof *tokens);
    if (!tokens) {
        return att_fail(err, ATT_E_NOMEM, "tokens");
    }
    pthread_mutex_init(&tokens->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&tokens->done, &attr);
    pthread_condattr_destroy(&attr);
    *ret_tokens = tokens;
    return ATT_OK;
}

void host_tokens_free(struct host_tokens *tokens)
{
    if (!tokens) {
        return;
    }
    for (size_t i = 0; i < KEPT_MAX; i++) {
        kept_free(tokens->kept[i]);
    }
    for (size_t i = 0; i < PACES_MAX; i++) {
        free(tokens->paces[i].audience);
    }
    pthread_mutex_destroy(&tokens->lock);
    pthread_cond_destroy(&tokens->done);
    free(tokens);
}
