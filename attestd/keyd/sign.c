/* Signatures for agents, and keys that their agents may have: the requests of tokend and spiffed
 * (attestd/proc/sign_proto.h), on a socket of its own. Whose signature it is was decided when
 * tokend accepted the connection; here it is held against the key, the frozen agents and the
 * agent's quota. */
#include "attestd/keyd/internal.h"

#include "attestd/base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- quotas: a token bucket an agent -------------------------------------------------------- */

#define MILLI         1000 /* a signature in a bucket's unit */
#define BUCKETS_MAX   4096
#define REFUSAL_PAUSE 1000 /* ms: of refusals for want of quota one a second is told */

struct keyd_bucket {
    char agent[PROC_AGENT_MAX + 1];
    int64_t at_ms;
    uint64_t left; /* thousandths of a signature */
    int64_t told_ms;
};

static struct keyd_bucket *bucket_of(struct keyd *keyd, const char *agent, int64_t now_ms)
{
    struct keyd_bucket *oldest = NULL;
    for (size_t i = 0; i < keyd->bucket_count; i++) {
        struct keyd_bucket *bucket = &keyd->buckets[i];
        if (strcmp(bucket->agent, agent) == 0) {
            return bucket;
        }
        oldest = !oldest || bucket->at_ms < oldest->at_ms ? bucket : oldest;
    }
    if (keyd->bucket_count < BUCKETS_MAX) {
        struct keyd_bucket *more = realloc(keyd->buckets, (keyd->bucket_count + 1) * sizeof *more);
        if (!more) {
            return NULL;
        }
        keyd->buckets = more;
        oldest = &more[keyd->bucket_count++];
    }
    *oldest = (struct keyd_bucket){.at_ms = now_ms,
                                   .left = (uint64_t)keyd->quota.burst * MILLI,
                                   .told_ms = now_ms - REFUSAL_PAUSE};
    memcpy(oldest->agent, agent, strlen(agent) + 1);
    return oldest;
}

static void refill(struct keyd_bucket *bucket, const struct keyd_quota *quota, int64_t now_ms)
{
    uint64_t most = (uint64_t)quota->burst * MILLI;
    uint64_t passed = now_ms > bucket->at_ms ? (uint64_t)(now_ms - bucket->at_ms) : 0;
    passed = passed < 3600000 ? passed : 3600000;
    bucket->left += passed * quota->per_second; /* thousandths: ms × signatures/s */
    bucket->left = bucket->left < most ? bucket->left : most;
    bucket->at_ms = now_ms;
}

/* Takes one signature out of the agent's bucket. ret_tell: whether this refusal is worth a line. */
static enum att_rc take_quota(struct keyd *keyd, const char *agent, bool *ret_tell,
                              struct att_err *err)
{
    if (keyd->quota.per_second == 0) {
        return ATT_OK;
    }
    int64_t now_ms = att_boottime_ms();
    enum att_rc rc = ATT_OK;
    pthread_mutex_lock(&keyd->quota_lock);
    struct keyd_bucket *bucket = bucket_of(keyd, agent, now_ms);
    if (!bucket) {
        rc = att_fail(err, ATT_E_NOMEM, "quota");
    } else {
        refill(bucket, &keyd->quota, now_ms);
        if (bucket->left >= MILLI) {
            bucket->left -= MILLI;
        } else {
            *ret_tell = now_ms - bucket->told_ms >= REFUSAL_PAUSE;
            bucket->told_ms = *ret_tell ? now_ms : bucket->told_ms;
            rc = att_fail(err, ATT_E_LIMIT,
                          "agent %s has used its %u signatures per second (burst %u)", agent,
                          keyd->quota.per_second, keyd->quota.burst);
            att_err_reason(err, "quota");
        }
    }
    pthread_mutex_unlock(&keyd->quota_lock);
    return rc;
}

/* ---- SIGN ----------------------------------------------------------------------------------- */

static enum att_rc check_key(const struct keyd_key *key, const char *agent, struct att_err *err)
{
    if (strcmp(key->agent, agent) != 0) {
        return keyd_deny(err, "keyAgent", "key %s is agent %s's, not %s's", key->id, key->agent,
                         agent);
    }
    if (key->state == KEYD_KEY_NEW) {
        return keyd_deny(err, "keyState", "key %s has no certificate yet", key->id);
    }
    return ATT_OK;
}

/* Both operations have agent and keyId first. */
_Static_assert((int)PROC_SIGN_RSA_REQ_AGENT == (int)PROC_SIGN_REQ_AGENT, "SIGN and SIGN_RSA");
_Static_assert((int)PROC_SIGN_RSA_REQ_KEY_ID == (int)PROC_SIGN_REQ_KEY_ID, "SIGN and SIGN_RSA");

static enum att_rc sign_by_key(struct keyd *keyd, const struct proc_op *op,
                               const struct proc_msg *request, const struct keyd_key *key,
                               struct keyd_sig *ret_sig, struct att_err *err)
{
    const struct proc_value *v = request->v;
    if (op->op == PROC_SIGN_SIGN) {
        return keyd_key_sign(keyd, key, TPM_PRIO_HANDSHAKE, KEYD_ECDSA,
                             v[PROC_SIGN_REQ_DIGEST].bytes, ret_sig, err);
    }
    enum keyd_mechanism mechanism =
        v[PROC_SIGN_RSA_REQ_SCHEME].num == ATT_RSA_PSS ? KEYD_RSA_PSS : KEYD_RSA_PKCS1;
    return keyd_key_sign(keyd, key, TPM_PRIO_HANDSHAKE, mechanism,
                         v[PROC_SIGN_RSA_REQ_DIGEST].bytes, ret_sig, err);
}

static enum att_rc sign(struct keyd *keyd, const struct proc_op *op, const struct proc_msg *request,
                        struct keyd_sig *ret_sig, bool *ret_tell, struct att_err *err)
{
    struct att_slice agent_text = request->v[PROC_SIGN_REQ_AGENT].bytes;
    char agent[PROC_AGENT_MAX + 1];
    keyd_autokey key = {0};
    if (!proc_agent_name_ok(agent_text)) {
        return att_fail(err, ATT_E_INVAL, "agent: a name as [a-z0-9][a-z0-9._-]* expected");
    }
    KEYD_TEXT(agent_text, agent);
    enum att_rc rc = keyd_frozen_check(keyd, agent, err);
    if (rc == ATT_OK) {
        rc = keyd_keys_get(keyd, request->v[PROC_SIGN_REQ_KEY_ID].bytes, &key, err);
    }
    if (rc == ATT_OK) {
        rc = check_key(&key, agent, err);
    }
    if (rc == ATT_OK) {
        rc = keyd_store_ready(keyd, &key, err);
    }
    if (rc == ATT_OK) {
        rc = take_quota(keyd, agent, ret_tell, err);
    }
    if (rc == ATT_OK) {
        rc = sign_by_key(keyd, op, request, &key, ret_sig, err);
    }
    return rc;
}

/* ---- EXPORT --------------------------------------------------------------------------------- */

_Static_assert((int)PROC_SIGN_EXPORT_REQ_AGENT == (int)PROC_SIGN_REQ_AGENT, "SIGN and EXPORT");

/* Root, too, is no exporter unless it is named: it has no use for this. */
static bool is_exporter(const struct keyd *keyd, uid_t uid)
{
    for (size_t i = 0; i < keyd->exporters.count; i++) {
        if (keyd->exporters.uids[i] == uid) {
            return true;
        }
    }
    return false;
}

static enum att_rc check_export(const struct keyd_key *key, const char *agent, struct att_err *err)
{
    enum att_rc rc = check_key(key, agent, err);
    if (rc == ATT_OK && !key->store->export_key) {
        rc = keyd_deny(err, "keyNotExportable",
                       "key %s was made in store %s: it never leaves it, only a new key can",
                       key->id, key->store->name);
    }
    if (rc == ATT_OK && key->state != KEYD_KEY_ACTIVE) {
        rc = keyd_deny(err, "keyState", "key %s is not the one in force", key->id);
    }
    return rc;
}

static enum att_rc export_for(struct keyd *keyd, uid_t uid, const struct proc_msg *request,
                              struct att_secret *ret_pkcs8, bool *ret_tell, struct att_err *err)
{
    struct att_slice agent_text = request->v[PROC_SIGN_EXPORT_REQ_AGENT].bytes;
    char agent[PROC_AGENT_MAX + 1], what[PROC_KEY_ID_LEN + PROC_AGENT_MAX + 16];
    keyd_autokey key = {0};
    if (!is_exporter(keyd, uid)) {
        return keyd_deny(err, "exportUser", "user %u is none of those who may export keys",
                         (unsigned)uid);
    }
    if (!proc_agent_name_ok(agent_text)) {
        return att_fail(err, ATT_E_INVAL, "agent: a name as [a-z0-9][a-z0-9._-]* expected");
    }
    KEYD_TEXT(agent_text, agent);
    enum att_rc rc = keyd_frozen_check(keyd, agent, err);
    if (rc == ATT_OK) {
        rc = keyd_keys_get(keyd, request->v[PROC_SIGN_EXPORT_REQ_KEY_ID].bytes, &key, err);
    }
    if (rc == ATT_OK) {
        rc = check_export(&key, agent, err);
    }
    if (rc == ATT_OK) {
        rc = keyd_store_ready(keyd, &key, err);
    }
    if (rc == ATT_OK) {
        rc = take_quota(keyd, agent, ret_tell, err);
    }
    if (rc == ATT_OK) {
        rc = key.store->export_key(keyd, &key, ret_pkcs8, err);
    }
    if (rc == ATT_OK) {
        snprintf(what, sizeof what, "key %s agent %s", key.id, key.agent);
        keyd_tell(keyd, KEYD_EVENT_EXPORTED, what, NULL);
    }
    return rc;
}

/* A program that is refused tries again, as fast as it can, and chooses the key's id. */
static bool worth_telling(struct keyd *keyd, struct att_slice agent, enum att_rc rc,
                          const struct att_err *err)
{
    char text[PROC_AGENT_MAX + sizeof err->reason + 40];
    snprintf(text, sizeof text, "%.*s %s %s", (int)agent.len, (const char *)agent.ptr,
             att_rc_name(rc), err->reason);
    return att_often(&keyd->refusals, text, att_boottime_ms());
}

enum att_rc keyd_sign_serve(void *user, const struct proc_peer *peer, const struct proc_op *op,
                            const struct proc_msg *request, struct att_buf *ret_payload,
                            struct att_err *err)
{
    struct keyd *keyd = user;
    struct keyd_sig sig;
    att_autosecret pkcs8 = {0};
    bool tell = true, exports = op->op == PROC_SIGN_EXPORT;
    att_err_clear(err);
    enum att_rc rc = exports ? export_for(keyd, peer->uid, request, &pkcs8, &tell, err)
                             : sign(keyd, op, request, &sig, &tell, err);
    if (rc != ATT_OK) {
        if (tell && worth_telling(keyd, request->v[PROC_SIGN_REQ_AGENT].bytes, rc, err)) {
            keyd_tell(keyd, KEYD_EVENT_REFUSED, op->name, err);
        }
        return rc;
    }
    const struct proc_value values[] = {
        {.bytes = exports ? att_secret_slice(&pkcs8) : ATT_SLICE(sig.bytes, sig.len)}};
    return proc_reply_encode(op, values, ret_payload, err);
}
