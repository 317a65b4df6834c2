/* attestd.v1.Signer: signatures by keyd, for the agent that the caller is. */
#include "attestd/spiffe/service.h"

#include "attestd/base/clock.h"
#include "signer.pb-c.h"

#include <openssl/ecdsa.h>
#include <string.h>

bool spiffed_sign_parse(struct job *job, struct att_slice message)
{
    const char *why = sign_request_parse(message, &job->sign);
    if (why) {
        spiffed_finish(job, GRPC_INVALID_ARGUMENT, why);
    }
    return !why;
}

/* ---- the signature ------------------------------------------------------------------------- */

/* r and s, 32 bytes each, as DER. 0: no memory. */
static size_t ecdsa_der(struct att_slice raw, uint8_t ret[80])
{
    ECDSA_SIG *sig = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn(raw.ptr, 32, NULL), *s = BN_bin2bn(raw.ptr + 32, 32, NULL);
    uint8_t *at = ret;
    int len = 0;
    if (sig && r && s && ECDSA_SIG_set0(sig, r, s) == 1) {
        r = s = NULL; /* sig's now */
        len = i2d_ECDSA_SIG(sig, &at);
    }
    BN_free(r);
    BN_free(s);
    ECDSA_SIG_free(sig);
    return len > 0 ? (size_t)len : 0;
}

static void answer(struct job *job, struct att_slice signature)
{
    uint8_t der[80];
    Attestd__V1__SignResponse message;
    attestd__v1__sign_response__init(&message);
    message.signature = (ProtobufCBinaryData){signature.len, (uint8_t *)(uintptr_t)signature.ptr};
    if (!job->sign.scheme) {
        message.signature =
            (ProtobufCBinaryData){signature.len == 64 ? ecdsa_der(signature, der) : 0, der};
    }
    message.key_id = job->sign.key_id;
    struct grpc_bytes *bytes = grpc_bytes_new(protobuf_c_message_get_packed_size(&message.base));
    if (!bytes || !message.signature.len) {
        grpc_bytes_unref(bytes);
        spiffed_finish(job, GRPC_UNAVAILABLE, "no memory for a signature");
        return;
    }
    (void)protobuf_c_message_pack(&message.base, bytes->data + 5);
    job->peer->spiffed->signatures++;
    grpc_call_send(job->call, bytes);
    grpc_bytes_unref(bytes);
    spiffed_finish(job, GRPC_OK, NULL);
}

static void signed_by_keyd(void *user, enum att_rc rc, const struct proc_msg *reply,
                           const struct att_err *err)
{
    struct job *job = user;
    job->asking = NULL;
    if (grpc_call_finished(job->call)) {
        return;
    }
    if (rc == ATT_OK && job->entries != job->peer->spiffed->entries) {
        job->due = true; /* decided by others: what was made then is nobody's; it begins anew */
        spiffed_peer_pump(job->peer);
    } else if (rc == ATT_OK) {
        answer(job, reply->v[PROC_SIGN_REP_SIGNATURE].bytes);
    } else {
        spiffed_finish_err(job, rc, err);
    }
}

static void ask_keyd(struct job *job)
{
    struct agent *agent = job->peer->agent;
    struct spiffed *spiffed = job->peer->spiffed;
    struct att_err err = {0};
    struct att_slice digest = ATT_SLICE(job->sign.digest, job->sign.digest_len);
    const struct proc_value ecdsa[] = {proc_text(agent->name), proc_text(job->sign.key_id),
                                       proc_bytes(digest)};
    const struct proc_value rsa[] = {proc_text(agent->name), proc_text(job->sign.key_id),
                                     proc_num(job->sign.scheme), proc_bytes(digest)};
    struct ask *keyd = agent->in_hsm ? spiffed_hsm(spiffed, agent->hsm) : spiffed->keyd;
    if (!keyd) {
        spiffed_finish(job, GRPC_UNAVAILABLE, "no memory for a signature");
        return;
    }
    job->due = false;
    job->entries = job->peer->entries;
    memcpy(job->agent, agent->name, sizeof job->agent);
    enum att_rc rc = ask_call(keyd, job->sign.scheme ? PROC_SIGN_SIGN_RSA : PROC_SIGN_SIGN,
                              job->sign.scheme ? rsa : ecdsa, job->sign.scheme ? 4 : 3, -1, agent,
                              signed_by_keyd, job, &job->asking, &err);
    if (rc != ATT_OK) {
        spiffed_finish_err(job, rc, &err);
    }
}

/* ---- what the agent has -------------------------------------------------------------------- */

/* False: asked for, or nothing is in force, and then the call is finished. */
static bool has_chain(struct job *job)
{
    struct agent *agent = job->peer->agent;
    if (!spiffed_agent_known(agent)) {
        spiffed_agent_refresh(agent);
        return false; /* due until it is known */
    }
    if (!agent->chain || agent->not_after <= att_now_utc_s()) {
        spiffed_finish(job, GRPC_NOT_FOUND, "noCertificate: no certificate is in force");
        return false;
    }
    return true;
}

void spiffed_sign_serve(struct job *job)
{
    struct agent *agent = job->peer->agent;
    if (job->agent[0] && strcmp(job->agent, agent->name) != 0) {
        spiffed_finish(job, GRPC_PERMISSION_DENIED, "the caller became another agent meanwhile");
        return;
    }
    if (!has_chain(job)) {
        return;
    }
    if (job->sign.spiffe_id[0] && strcmp(job->sign.spiffe_id, agent->spiffe_id) != 0) {
        spiffed_finish(job, GRPC_PERMISSION_DENIED, "spiffe_id: not the caller's");
        return;
    }
    if (!job->sign.key_id[0]) {
        memcpy(job->sign.key_id, agent->key_id, sizeof job->sign.key_id);
    }
    ask_keyd(job);
}

void spiffed_chain_serve(struct job *job)
{
    struct agent *agent = job->peer->agent;
    if (!has_chain(job)) {
        return;
    }
    job->due = false;
    if (!job->sent || job->generation != agent->generation) {
        job->sent = true;
        job->generation = agent->generation;
        grpc_call_send(job->call, agent->chain);
    }
    if (job->kind == JOB_CHAIN) {
        spiffed_finish(job, GRPC_OK, NULL);
    }
}
