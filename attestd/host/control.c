/* The control socket's operations; the table is docs/CONTROL.md. */
#include "attestd/host/internal.h"
#include "attestd/base/enc.h"
#include "attestd/base/io.h"
#include "certs/install.h"
#include "certs/build.h"
#include "certs/san.h"

#include <stdio.h>
#include <string.h>

#define ROTATE_WAIT_MS 60000
#define ROTATE_LOOK_MS 1000
#define NONCE_MIN      8
#define NONCE_MAX      64
#define PCRS_DEFAULT   "sha256:0,1,2,3,4,5,6,7"

struct call {
    struct host *host;
    const struct att_ctl_peer *peer;
    const json_t *args;
    char name[AGENT_NAME_MAX + 1];
};

static enum att_rc get_name(struct call *call, struct att_err *err)
{
    const char *name;
    enum att_rc rc = att_json_str(call->args, "name", &name, err);
    if (rc == ATT_OK) {
        rc = agent_name_check(name, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    memcpy(call->name, name, strlen(name) + 1);
    HOST_LOCKED(call->host);
    if (!agent_registry_find(call->host->reg, name)) {
        return att_fail(err, ATT_E_NOTFOUND, "no agent \"%s\" is assigned to this host", name);
    }
    return ATT_OK;
}

static enum att_rc show(struct call *call, json_t **ret_result, struct att_err *err)
{
    HOST_LOCKED(call->host);
    const struct agent *agent = agent_registry_find(call->host->reg, call->name);
    if (!agent) {
        return att_fail(err, ATT_E_NOTFOUND, "agent %s is gone", call->name);
    }
    *ret_result = host_agent_json(agent, host_now());
    return ATT_OK;
}

static enum att_rc op_status(struct call *call, json_t **ret_result, struct att_err *err)
{
    return host_status(call->host, ret_result, err);
}

static enum att_rc op_list(struct call *call, json_t **ret_result, struct att_err *err)
{
    json_t *list = json_array();
    struct agent_now now = host_now();
    HOST_LOCKED(call->host);
    for (size_t i = 0; i < agent_registry_count(call->host->reg); i++) {
        json_array_append_new(list, host_agent_json(agent_registry_at(call->host->reg, i), now));
    }
    *ret_result = json_pack("{s:o}", "agents", list);
    return *ret_result ? ATT_OK : att_fail(err, ATT_E_NOMEM, "no memory for a list");
}

static enum att_rc op_show(struct call *call, json_t **ret_result, struct att_err *err)
{
    enum att_rc rc = get_name(call, err);
    return rc == ATT_OK ? show(call, ret_result, err) : rc;
}

/* ---- rotate ------------------------------------------------------------------------------------
 */

/* A new key and certificate as soon as a worker is free; a running back-off ends. */
static enum att_rc rotate_begin(struct call *call, uint64_t *ret_issued, uint64_t *ret_since,
                                struct att_err *err)
{
    HOST_LOCKED(call->host);
    struct agent *agent = agent_registry_find(call->host->reg, call->name);
    if (!agent) {
        return att_fail(err, ATT_E_NOTFOUND, "agent %s is gone", call->name);
    }
    enum agent_state state = agent->rec.life.state;
    if (state == AGENT_FROZEN || state == AGENT_REMOVED) {
        return att_fail(err, ATT_E_CONFLICT, "agent %s is %s", call->name, agent_state_name(state));
    }
    agent->forced = state == AGENT_VALID || agent->busy;
    agent->not_before_ms = 0;
    if (call->host->phase <= HOST_ENROLLING) {
        host_nudge(call->host); /* or its back-off would be ours */
    }
    *ret_issued = agent->rec.issued;
    *ret_since = host_error_newest();
    return ATT_OK;
}

/* Nobody issues now, and why; since: errors up to this one are old. Under lock. */
static bool host_in_the_way(const struct host *host, uint64_t since, struct att_err *err)
{
    if (host->phase == HOST_PENDING) {
        (void)!att_fail(err, ATT_E_DENIED, "the host waits for an operator's approval");
        att_err_reason(err, "hostPending");
        return true;
    }
    if (host->phase <= HOST_ENROLLING && host->last_error.number > since) {
        (void)!att_fail(err, ATT_E_DENIED, "%s", host->last_error.message);
        att_err_reason(err, host->last_error.reason);
        return true;
    }
    return false;
}

/* 1: issued; -1: failed, err says why; 0: not yet. Under lock. */
static int rotate_state(struct call *call, uint64_t issued, uint64_t since, struct att_err *err)
{
    const struct agent *agent = agent_registry_find(call->host->reg, call->name);
    if (!agent) {
        (void)!att_fail(err, ATT_E_GONE, "agent %s was removed", call->name);
        return -1;
    }
    const struct agent_record *rec = &agent->rec;
    if (agent->busy && !agent->settled) {
        return 0; /* what is installed is still to be written down, the old key to be destroyed */
    }
    if (rec->issued > issued) {
        return 1;
    }
    if (host_in_the_way(call->host, since, err)) {
        return -1;
    }
    if (rec->last_error.number > since && rec->attempts > 0) {
        (void)!att_fail(err, ATT_E_DENIED, "%s", rec->last_error.message);
        att_err_reason(err, rec->last_error.reason);
        return -1;
    }
    return 0;
}

/* Until the worker is done with the agent, or the time is over. */
static int rotate_wait(struct call *call, uint64_t issued, uint64_t since, int64_t until_ms,
                       struct att_err *err)
{
    HOST_LOCKED(call->host);
    for (;;) {
        int state = rotate_state(call, issued, since, err);
        int64_t left = until_ms - att_boottime_ms();
        if (state != 0 || left <= 0 || atomic_load(&call->host->stop)) {
            return state;
        }
        host_wait(call->host, left < ROTATE_LOOK_MS ? left : ROTATE_LOOK_MS);
    }
}

static enum att_rc rotate_result(struct call *call, int64_t start_us, json_t **ret_result,
                                 struct att_err *err)
{
    int64_t stage_us[AGENT_STAGE_COUNT] = {0};
    enum att_rc rc = show(call, ret_result, err);
    if (rc != ATT_OK) {
        return rc;
    }
    {
        HOST_LOCKED(call->host);
        const struct agent *agent = agent_registry_find(call->host->reg, call->name);
        if (agent) {
            memcpy(stage_us, agent->stage_us, sizeof(stage_us));
        }
    }
    json_t *stages = json_object();
    for (int i = 0; i < AGENT_STAGE_COUNT; i++) {
        json_object_set_new(stages, agent_stage_name((enum agent_stage)i),
                            json_real((double)stage_us[i] / 1000));
    }
    json_object_set_new(*ret_result, "ms", json_integer((att_boottime_us() - start_us) / 1000));
    json_object_set_new(*ret_result, "stages", stages);
    return ATT_OK;
}

static enum att_rc op_rotate(struct call *call, json_t **ret_result, struct att_err *err)
{
    uint64_t issued = 0, since = 0;
    int64_t start_us = att_boottime_us();
    enum att_rc rc = get_name(call, err);
    if (rc == ATT_OK) {
        rc = rotate_begin(call, &issued, &since, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    att_log(ATT_INFO, "agent.rotateAsked", ATT_S("agent", call->name),
            ATT_N("uid", call->peer->uid));
    host_wake(call->host);
    int state = rotate_wait(call, issued, since, start_us / 1000 + ROTATE_WAIT_MS, err);
    if (state > 0) {
        return rotate_result(call, start_us, ret_result, err);
    }
    return state < 0 ? ATT_E_DENIED
                     : att_fail(err, ATT_E_TIMEOUT,
                                "no new certificate for %s within %d s: see `agent show`",
                                call->name, ROTATE_WAIT_MS / 1000);
}

/* ---- freeze, thaw ------------------------------------------------------------------------------
 */

static enum att_rc op_freeze(struct call *call, json_t **ret_result, struct att_err *err)
{
    HOST_FREEZING(call->host);
    enum att_rc rc = get_name(call, err);
    /* keyd first: from its answer on nothing is signed, whatever happens to us. */
    if (rc == ATT_OK) {
        rc = proc_keyd_freeze(call->host->keyd, call->name, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    struct att_err why = {0};
    rc = host_agent_event(call->host, call->name, AGENT_EV_FREEZE, NULL, &why);
    if (rc == ATT_OK) {
        att_log(ATT_WARN, "agent.frozen", ATT_S("agent", call->name),
                ATT_N("uid", call->peer->uid));
        host_note(call->host, "frozen",
                  json_pack("{s:s, s:I}", "agent", call->name, "by", (json_int_t)call->peer->uid));
        rc = host_agent_save(call->host, call->name, err);
    } else if (rc == ATT_E_CONFLICT) {
        rc = ATT_OK; /* frozen already: the same request twice is no error */
    }
    return rc == ATT_OK ? show(call, ret_result, err) : att_fail(err, rc, "%s", why.msg);
}

static enum att_rc op_thaw(struct call *call, json_t **ret_result, struct att_err *err)
{
    HOST_FREEZING(call->host);
    enum att_rc rc = get_name(call, err);
    if (rc == ATT_OK) {
        rc = proc_keyd_thaw(call->host->keyd, call->name, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    struct att_err why = {0};
    rc = host_agent_event(call->host, call->name, AGENT_EV_THAW, NULL, &why);
    if (rc == ATT_OK) {
        att_log(ATT_WARN, "agent.thawed", ATT_S("agent", call->name),
                ATT_N("uid", call->peer->uid));
        host_note(call->host, "thawed",
                  json_pack("{s:s, s:I}", "agent", call->name, "by", (json_int_t)call->peer->uid));
        {
            HOST_LOCKED(call->host);
            struct agent *agent = agent_registry_find(call->host->reg, call->name);
            if (agent) {
                agent->check_keys = true; /* one in memory may be gone since */
            }
        }
        rc = host_agent_save(call->host, call->name, err);
        host_wake(call->host);
    } else if (rc == ATT_E_CONFLICT) {
        rc = ATT_OK;
    }
    return rc == ATT_OK ? show(call, ret_result, err) : att_fail(err, rc, "%s", why.msg);
}

/* ---- cert.show ---------------------------------------------------------------------------------
 */

/* What opens the key's parent: {"authPolicy", "counter": "0x…" | null}; null where the certificate
 * says nothing of it. */
static void put_sealed(const X509 *leaf, json_t *json)
{
    struct certs_sealed sealed = {0};
    char policy[2 * ATT_SHA256_LEN + 1], counter[11];
    if (certs_sealed_get(leaf, &sealed, NULL) != ATT_OK) {
        json_object_set_new(json, "sealed", json_null());
        return;
    }
    att_hex(policy, ATT_SLICE_ARRAY(sealed.policy));
    snprintf(counter, sizeof(counter), "0x%08x", sealed.counter);
    json_object_set_new(json, "sealed",
                        json_pack("{s:s, s:o}", "authPolicy", policy, "counter",
                                  sealed.counter ? json_string(counter) : json_null()));
}

static enum att_rc cert_fields(json_t *json, const X509 *leaf, struct att_err *err)
{
    struct certs_cert_info info;
    struct certs_key_holding holding = {0};
    att_autobuf id = {0};
    enum att_rc rc = certs_cert_info(leaf, &info, err);
    if (rc == ATT_OK) {
        (void)!certs_san_spiffe(leaf, &id, NULL); /* another server's names none */
    }
    if (rc != ATT_OK) {
        return rc;
    }
    char digest[2 * ATT_SHA256_LEN + 1], spki[2 * ATT_SHA256_LEN + 1];
    att_hex(digest, ATT_SLICE_ARRAY(info.sha256));
    att_hex(spki, ATT_SLICE_ARRAY(info.spki_sha256));
    json_object_set_new(json, "spiffeId",
                        id.len ? json_stringn((const char *)id.ptr, id.len) : json_null());
    json_object_set_new(json, "serial", json_string(info.serial_hex));
    json_object_set_new(json, "notBefore", host_time_json(info.not_before));
    json_object_set_new(json, "notAfter", host_time_json(info.not_after));
    json_object_set_new(json, "leftS", json_integer(info.not_after - att_now_utc_s()));
    json_object_set_new(json, "sha256", json_string(digest));
    json_object_set_new(json, "spkiSha256", json_string(spki));
    struct certs_measured measured = {0};
    if (certs_measured_get(leaf, &measured, NULL) == ATT_OK) {
        char root[2 * ATT_SHA256_LEN + 1];
        att_hex(root, ATT_SLICE_ARRAY(measured.root));
        json_object_set_new(json, "measuredLevel", json_integer(measured.level));
        json_object_set_new(json, "manifestRoot", json_string(root));
    }
    put_sealed(leaf, json);
    struct certs_hsm hsm = {{0}};
    if (certs_hsm_get(leaf, &hsm, NULL) == ATT_OK) {
        json_object_set_new(json, "hsm", json_string(hsm.name));
    }
    if (certs_key_holding_get(leaf, &holding, NULL) == ATT_OK) {
        char decision[2 * ATT_SHA256_LEN + 1];
        att_hex(decision, ATT_SLICE_ARRAY(holding.decision));
        json_object_set_new(json, "keyStore", json_string(certs_key_store_name(holding.store)));
        json_object_set_new(json, "boot", json_string(holding.boot));
        json_object_set_new(json, "decision", json_string(decision));
    }
    return ATT_OK;
}

static enum att_rc op_cert(struct call *call, json_t **ret_result, struct att_err *err)
{
    att_autobuf pem = {0}, uri = {0};
    certs_autostack *chain = NULL;
    enum att_rc rc = get_name(call, err);
    if (rc == ATT_OK) {
        rc = certs_install_load(call->host->paths.agents, call->name, &pem, &uri, err);
    }
    if (rc == ATT_OK) {
        rc = certs_pem_parse(att_buf_slice(&pem), &chain, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    json_t *json = json_pack("{s:s}", "name", call->name);
    rc = cert_fields(json, sk_X509_value(chain, 0), err);
    json_object_set_new(json, "chainLength", json_integer(sk_X509_num(chain)));
    json_object_set_new(json, "keyUri", json_stringn((const char *)uri.ptr, uri.len));
    json_object_set_new(json, "path",
                        json_sprintf("%s/%s/chain.pem", call->host->paths.agents, call->name));
    json_object_set_new(json, "pem", json_stringn((const char *)pem.ptr, pem.len));
    if (rc != ATT_OK) {
        json_decref(json);
        return rc;
    }
    *ret_result = json;
    return ATT_OK;
}

/* ---- quote -------------------------------------------------------------------------------------
 */

static enum att_rc op_quote(struct call *call, json_t **ret_result, struct att_err *err)
{
    const char *text, *pcrs = PCRS_DEFAULT;
    att_autobuf nonce = ATT_BUF_INIT(NONCE_MAX);
    enum att_rc rc = att_json_str(call->args, "nonce", &text, err);
    if (rc == ATT_OK) {
        rc = att_unhex(&nonce, att_slice_str(text), err);
    }
    if (rc == ATT_OK && (nonce.len < NONCE_MIN || nonce.len > NONCE_MAX)) {
        rc = att_fail(err, ATT_E_INVAL, "nonce: %zu bytes, expected %d to %d in hex", nonce.len,
                      NONCE_MIN, NONCE_MAX);
    }
    if (rc == ATT_OK && json_object_get(call->args, "pcrs")) {
        rc = att_json_str(call->args, "pcrs", &pcrs, err);
    }
    if (rc == ATT_OK) {
        rc = conf_pcrs_check(pcrs, err);
        if (rc != ATT_OK) {
            att_err_prefix(err, "pcrs");
        }
    }
    if (rc != ATT_OK) {
        return rc;
    }
    json_t *files = NULL;
    char extra[2 * ATT_SHA256_LEN + 1];
    rc = host_user_quote(call->host, att_buf_slice(&nonce), pcrs, &files, extra, err);
    if (rc == ATT_OK) {
        att_log(ATT_INFO, "quote", ATT_S("pcrs", pcrs), ATT_N("uid", call->peer->uid));
        *ret_result = json_pack("{s:s, s:s, s:s, s:o}", "nonce", text, "pcrs", pcrs, "extraData",
                                extra, "files", files);
    }
    return rc;
}

/* ---- host.enrol --------------------------------------------------------------------------------
 */

static enum att_rc op_enrol(struct call *call, json_t **ret_result, struct att_err *err)
{
    const char *ticket;
    enum att_rc rc = att_json_str(call->args, "ticket", &ticket, err);
    if (rc == ATT_OK) {
        att_log(ATT_INFO, "ticket.given", ATT_N("uid", call->peer->uid));
        rc = host_given_enrol(call->host, att_slice_str(ticket), ret_result, err);
    }
    return rc;
}

static enum att_rc op_token(struct call *call, json_t **ret_result, struct att_err *err)
{
    enum att_rc rc = get_name(call, err);
    return rc == ATT_OK ? host_tokens_control(call->host, call->name, call->args, ret_result, err)
                        : rc;
}

static enum att_rc op_doctor(struct call *call, json_t **ret_result, struct att_err *err)
{
    return host_doctor(call->host, ret_result, err);
}

static enum att_rc op_who(struct call *call, json_t **ret_result, struct att_err *err)
{
    return host_who(call->host, call->args, ret_result, err);
}

static const struct {
    const char *op;
    enum att_rc (*fn)(struct call *, json_t **, struct att_err *);
} ops[] = {
    {"status", op_status},       {"agent.list", op_list},     {"agent.show", op_show},
    {"agent.rotate", op_rotate}, {"agent.freeze", op_freeze}, {"agent.thaw", op_thaw},
    {"cert.show", op_cert},      {"quote", op_quote},         {"token", op_token},
    {"doctor", op_doctor},       {"host.enrol", op_enrol},    {"who", op_who},
};

enum att_rc host_control(void *user, const struct att_ctl_peer *peer, const char *op,
                         const json_t *args, json_t **ret_result, struct att_err *err)
{
    struct call call = {.host = user, .peer = peer, .args = args};
    for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
        if (strcmp(op, ops[i].op) == 0) {
            return ops[i].fn(&call, ret_result, err);
        }
    }
    return att_fail(err, ATT_E_UNSUPPORTED, "no operation \"%.60s\"", op);
}
