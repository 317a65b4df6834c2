/* Tokens for those who ask here: spiffed by workload.sock, people by the control socket. */
#include "attestd/host/internal.h"
#include "attestd/proc/workload_proto.h"

#include <string.h>

/* Texts, each with a newline behind it. */
static enum att_rc split(char *text, size_t len, const char *ret[PROC_AUDIENCES_MAX], size_t *ret_n,
                         struct att_err *err)
{
    size_t n = 0;
    for (char *at = text; at < text + len;) {
        char *end = memchr(at, '\n', (size_t)(text + len - at));
        if (!end || n == PROC_AUDIENCES_MAX || memchr(at, 0, (size_t)(end - at))) {
            return att_fail(err, ATT_E_INVAL, "audience: expected 1 to %d texts",
                            PROC_AUDIENCES_MAX);
        }
        *end = 0;
        ret[n++] = at;
        at = end + 1;
    }
    *ret_n = n;
    return ATT_OK;
}

static enum att_rc token(struct host *host, const struct proc_op *op, const struct proc_value *v,
                         struct att_buf *ret_payload, struct att_err *err)
{
    char name[AGENT_NAME_MAX + 1], text[PROC_AUDIENCES_TEXT + 1];
    const char *audience[PROC_AUDIENCES_MAX];
    struct att_slice list = v[PROC_WORKLOAD_TOKEN_REQ_AUDIENCE].bytes;
    size_t n = 0;
    proc_take_text(v[PROC_WORKLOAD_TOKEN_REQ_AGENT].bytes, name, sizeof(name));
    memcpy(text, list.ptr, list.len); /* at most PROC_AUDIENCES_TEXT: the table */
    enum att_rc rc = split(text, list.len, audience, &n, err);
    struct host_token_reply reply = {0};
    if (rc == ATT_OK) {
        rc = op->op == PROC_WORKLOAD_TOKEN_KEPT
                 ? host_token_kept(host, name, audience, n, &reply, err)
                 : host_token_get(host, name, audience, n, op->op == PROC_WORKLOAD_TOKEN_FRESH,
                                  &reply, err);
    }
    if (rc == ATT_OK) {
        const struct proc_value values[] = {
            [PROC_WORKLOAD_TOKEN_REP_SPIFFE_ID] = proc_text(reply.spiffe_id),
            [PROC_WORKLOAD_TOKEN_REP_TOKEN] = proc_text(reply.token),
            [PROC_WORKLOAD_TOKEN_REP_EXPIRES_AT] = proc_num((uint64_t)reply.expires_at)};
        rc = proc_reply_encode(op, values, ret_payload, err);
    }
    host_token_reply_done(&reply);
    return rc;
}

static enum att_rc jwt_bundle(struct host *host, const struct proc_op *op,
                              struct att_buf *ret_payload, struct att_err *err)
{
    char trust_domain[sizeof(host->trust_domain)];
    att_autojson *tokens = NULL;
    att_autobuf text = ATT_BUF_INIT(PROC_JWT_KEYS_MAX);
    enum att_rc rc = host_token_keys(host, &tokens, err);
    if (rc != ATT_OK) {
        return rc;
    }
    {
        HOST_LOCKED(host);
        memcpy(trust_domain, host->trust_domain, sizeof(trust_domain));
    }
    att_autojson *set = json_pack("{s:O?}", "keys", json_object_get(tokens, "keys"));
    const char *issuer = json_string_value(json_object_get(tokens, "issuer"));
    if (!set || !issuer) {
        return att_fail(err, ATT_E_PROTOCOL, "hostView: tokens: expected issuer and keys");
    }
    rc = att_json_dump(set, false, &text, err);
    const struct proc_value values[] = {
        [PROC_WORKLOAD_JWT_BUNDLE_REP_TRUST_DOMAIN] = proc_text(trust_domain),
        [PROC_WORKLOAD_JWT_BUNDLE_REP_ISSUER] = proc_text(issuer),
        [PROC_WORKLOAD_JWT_BUNDLE_REP_KEYS] = proc_bytes(att_buf_slice(&text))};
    return rc == ATT_OK ? proc_reply_encode(op, values, ret_payload, err) : rc;
}

enum att_rc host_tokens_answer(struct host *host, const struct proc_op *op,
                               const struct proc_value *v, struct att_buf *ret_payload,
                               struct att_err *err)
{
    return op->op == PROC_WORKLOAD_JWT_BUNDLE ? jwt_bundle(host, op, ret_payload, err)
                                              : token(host, op, v, ret_payload, err);
}

/* args: {"audience": "A" or ["A", …], "fresh": true?} */
enum att_rc host_tokens_control(struct host *host, const char *agent, const json_t *args,
                                json_t **ret_result, struct att_err *err)
{
    const json_t *given = json_object_get(args, "audience");
    const char *audience[PROC_AUDIENCES_MAX];
    size_t n = json_is_string(given) ? 1 : json_array_size(given);
    if (n < 1 || n > PROC_AUDIENCES_MAX) {
        return att_fail(err, ATT_E_INVAL, "audience: expected 1 to %d texts", PROC_AUDIENCES_MAX);
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *one = json_is_string(given) ? given : json_array_get(given, i);
        audience[i] = json_string_value(one);
        if (!audience[i] || strlen(audience[i]) != json_string_length(one)) {
            return att_fail(err, ATT_E_INVAL, "audience: expected texts");
        }
    }
    struct host_token_reply reply = {0};
    bool fresh = json_is_true(json_object_get(args, "fresh"));
    enum att_rc rc = host_token_get(host, agent, audience, n, fresh, &reply, err);
    if (rc == ATT_OK) {
        *ret_result =
            json_pack("{s:s, s:s, s:o, s:b}", "token", reply.token, "spiffeId", reply.spiffe_id,
                      "expiresAt", host_time_json(reply.expires_at), "kept", reply.kept);
        rc = *ret_result ? ATT_OK : att_fail(err, ATT_E_NOMEM, "token");
    }
    host_token_reply_done(&reply);
    return rc;
}
