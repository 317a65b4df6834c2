/* Agents with connections, and what each of them has: asked again when attestd says that something
 * changed; while attestd is away, what it said last holds until the certificate ends. */
#include "attestd/spiffe/service.h"

#include "attestd/base/clock.h"
#include "signer.pb-c.h"

#include <stdlib.h>
#include <string.h>

struct agent *spiffed_agent_join(struct spiffed *spiffed, struct att_slice name)
{
    struct agent *agent = spiffed->agents;
    while (agent && !att_slice_eq_str(name, agent->name)) {
        agent = agent->next;
    }
    if (!agent) {
        agent = name.len < sizeof agent->name ? calloc(1, sizeof *agent) : NULL;
        if (!agent) {
            return NULL;
        }
        memcpy(agent->name, name.ptr, name.len);
        agent->spiffed = spiffed;
        agent->next = spiffed->agents;
        spiffed->agents = agent;
    }
    agent->peers++;
    return agent;
}

void spiffed_agent_leave(struct agent *agent)
{
    if (!agent || --agent->peers) {
        return;
    }
    struct agent **at = &agent->spiffed->agents;
    while (*at != agent) {
        at = &(*at)->next;
    }
    *at = agent->next;
    ask_forget(agent->asking);
    grpc_bytes_unref(agent->chain);
    att_buf_done(&agent->svid);
    free(agent);
}

bool spiffed_agent_known(const struct agent *agent)
{
    return agent->fetched &&
           (agent->known == agent->spiffed->standing || att_boottime_ms() < agent->retry_ms);
}

/* ---- what attestd said --------------------------------------------------------------------- */

static void point(struct proc_value value, ProtobufCBinaryData *ret)
{
    for (size_t i = 0; i < value.item_count; i++) {
        ret[i] =
            (ProtobufCBinaryData){value.items[i].len, (uint8_t *)(uintptr_t)value.items[i].ptr};
    }
}

static struct grpc_bytes *encode_chain(struct agent *agent, const struct proc_value *v)
{
    ProtobufCBinaryData chain[PROC_CHAIN_MAX], bundle[PROC_BUNDLE_MAX];
    char key_store[17];
    Attestd__V1__ChainResponse message;
    attestd__v1__chain_response__init(&message);
    point(v[PROC_WORKLOAD_VIEW_REP_CHAIN], chain);
    point(v[PROC_WORKLOAD_VIEW_REP_BUNDLE], bundle);
    proc_take_text(v[PROC_WORKLOAD_VIEW_REP_KEY_STORE].bytes, key_store, sizeof key_store);
    message.spiffe_id = agent->spiffe_id;
    message.key_id = agent->key_id;
    message.chain = chain;
    message.n_chain = v[PROC_WORKLOAD_VIEW_REP_CHAIN].item_count;
    message.bundle = bundle;
    message.n_bundle = v[PROC_WORKLOAD_VIEW_REP_BUNDLE].item_count;
    message.not_after = agent->not_after;
    message.key_store = key_store;
    struct grpc_bytes *bytes = grpc_bytes_new(protobuf_c_message_get_packed_size(&message.base));
    if (bytes) {
        (void)protobuf_c_message_pack(&message.base, bytes->data + 5);
    }
    return bytes;
}

static void keep(struct agent *agent, const struct proc_value *v)
{
    uint64_t generation = v[PROC_WORKLOAD_VIEW_REP_GENERATION].num;
    agent->fetched = true;
    agent->known = agent->asked;
    proc_take_text(v[PROC_WORKLOAD_VIEW_REP_HSM].bytes, agent->hsm, sizeof agent->hsm);
    agent->in_hsm = att_slice_eq_str(v[PROC_WORKLOAD_VIEW_REP_KEY_STORE].bytes, "hsm");
    agent->exportable = att_slice_eq_str(v[PROC_WORKLOAD_VIEW_REP_KEY_STORE].bytes, "exportable");
    if (agent->chain && !agent->svid.failed && agent->generation == generation) {
        return;
    }
    proc_take_text(v[PROC_WORKLOAD_VIEW_REP_SPIFFE_ID].bytes, agent->spiffe_id,
                   sizeof agent->spiffe_id);
    proc_take_text(v[PROC_WORKLOAD_VIEW_REP_KEY_ID].bytes, agent->key_id, sizeof agent->key_id);
    agent->not_after = (int64_t)v[PROC_WORKLOAD_VIEW_REP_NOT_AFTER].num;
    grpc_bytes_unref(agent->chain);
    agent->chain = encode_chain(agent, v);
    agent->generation = generation;
    att_buf_done(&agent->svid);
    agent->svid = ATT_BUF_INIT((size_t)PROC_CHAIN_MAX * PROC_CERT_MAX);
    for (size_t i = 0; i < v[PROC_WORKLOAD_VIEW_REP_CHAIN].item_count; i++) {
        att_buf_put_slice(&agent->svid, v[PROC_WORKLOAD_VIEW_REP_CHAIN].items[i]);
    }
    agent->fetched = agent->chain && !agent->svid.failed; /* no memory: asked again */
}

static void keep_none(struct agent *agent)
{
    agent->fetched = true;
    agent->known = agent->asked;
    grpc_bytes_unref(agent->chain);
    agent->chain = NULL;
    agent->generation = 0;
    att_buf_done(&agent->svid);
}

static void tell_jobs(struct agent *agent, enum att_rc rc, const struct att_err *err)
{
    struct peer *next;
    for (struct peer *peer = agent->spiffed->peers; peer; peer = next) {
        next = peer->next;
        if (peer->agent != agent) {
            continue;
        }
        for (struct job *job = peer->jobs; job; job = job->next) {
            bool asks = job->kind == JOB_CHAIN || job->kind == JOB_WATCH || job->kind == JOB_SIGN ||
                        job->kind == JOB_X509_SVID || spiffed_sds_is(job);
            if (asks && job->due && !job->sent && !job->asking && rc != ATT_OK) {
                spiffed_finish_err(job, ATT_E_UNREACHABLE, err);
            }
            job->due = job->due || job->kind == JOB_SDS_STREAM || job->kind == JOB_X509_SVID ||
                       (job->kind == JOB_WATCH && job->generation != agent->generation);
        }
        spiffed_peer_pump(peer);
    }
}

static void viewed(void *user, enum att_rc rc, const struct proc_msg *reply,
                   const struct att_err *err)
{
    struct agent *agent = user;
    agent->asking = NULL;
    if (rc == ATT_OK) {
        keep(agent, reply->v);
    } else if (rc == ATT_E_NOTFOUND || rc == ATT_E_DENIED) {
        keep_none(agent);
        rc = ATT_OK; /* "no certificate" is an answer */
    } else {
        agent->retry_ms = att_boottime_ms() + RETRY_MS;
        rc = agent->fetched ? ATT_OK : rc; /* what it said last holds */
    }
    tell_jobs(agent, rc, err);
}

void spiffed_agent_refresh(struct agent *agent)
{
    const struct proc_value values[] = {[PROC_WORKLOAD_VIEW_REQ_AGENT] = proc_text(agent->name)};
    if (agent->asking || spiffed_agent_known(agent) || att_boottime_ms() < agent->retry_ms) {
        return;
    }
    agent->asked = agent->spiffed->standing;
    if (ask_call(agent->spiffed->views, PROC_WORKLOAD_VIEW_HSM, values, 1, -1, agent, viewed, agent,
                 &agent->asking, NULL) != ATT_OK) {
        agent->retry_ms = att_boottime_ms() + RETRY_MS; /* the next step asks again */
    }
}
