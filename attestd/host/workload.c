/* Which agent is a caller? whod says what it sees, the view's entries what is wanted; each decision
 * is one line in the log. Served to tokend and spiffed on run_dir/workload.sock
 * (proc/workload_proto.h). */
#include "attestd/host/internal.h"
#include "attestd/base/enc.h"
#include "attestd/host/decision.h"
#include "attestd/proc/links.h"
#include "attestd/proc/workload_proto.h"
#include "certs/build.h"
#include "certs/install.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#define FRAME_TIMEOUT_MS 5000
#define SWITCH_TRIES     100 /* of 10 ms: a key's change takes a few */
#define LIMIT_TOLD_MS    1000

/* ---- the decision ------------------------------------------------------------------------------
 */

/* A foreign server in whod's place says nothing about the caller, who must not be taken for
 * nobody's. */
static enum att_rc ask_whod(struct host *host, const struct host_caller *from,
                            const struct att_slice *paths, size_t n,
                            struct workload_caller *ret_caller, struct att_err *err)
{
    enum att_rc rc = workload_wire_who(host->whod, from->pidfd, from->pid, from->accepted_ms,
                                       from->again, paths, n, ret_caller, err);
    if (rc == ATT_E_DENIED && strcmp(err->reason, "foreignServer") == 0) {
        rc = err->rc = ATT_E_UNREACHABLE;
    }
    return rc;
}

static enum att_rc look_at_manifests(struct host *host, const struct host_caller *from,
                                     struct host_decision *decision, struct att_err *err)
{
    struct workload_caller *first = &decision->caller;
    struct workload_caller again;
    enum att_rc rc = workload_match_wanted(decision->selectors->rules, decision->selectors->n,
                                           first, &decision->wanted, err);
    if (rc != ATT_OK || decision->wanted.n == 0) {
        return rc;
    }
    rc = ask_whod(host, from, decision->wanted.paths, decision->wanted.n, &again, err);
    if (rc == ATT_OK && memcmp(again.facts.identity, first->facts.identity, ATT_SHA256_LEN) != 0) {
        rc = att_fail(err, ATT_E_GONE, "the process became another while it was looked at");
    }
    if (rc == ATT_OK) {
        *first = again;
    }
    return rc;
}

enum att_rc host_decide(struct host *host, const struct host_caller *from,
                        struct host_decision *decision, struct att_err *err)
{
    {
        HOST_LOCKED(host);
        decision->selectors = host_selectors_ref(host->selectors);
        decision->local = host_local_ref(host->local);
    }
    enum att_rc rc = ask_whod(host, from, NULL, 0, &decision->caller, err);
    decision->seen = rc == ATT_OK;
    if (rc == ATT_OK && !decision->selectors) {
        rc = att_fail(err, ATT_E_DENIED, "the issuer has not said yet which agents this host runs");
        att_err_reason(err, "notAssigned");
    }
    if (rc == ATT_OK) {
        rc = look_at_manifests(host, from, decision, err);
    }
    size_t rule = 0;
    if (rc == ATT_OK) {
        rc = workload_match(decision->selectors->rules, decision->selectors->n, &decision->caller,
                            &decision->wanted, &rule, err);
    }
    if (rc == ATT_OK) { /* granted by the entry; this host may say no */
        rc = host_local_check(decision->local, decision->selectors->rules[rule].agent,
                              &decision->caller, err);
    }
    if (rc == ATT_OK) {
        decision->agent = decision->selectors->rules[rule].agent;
        const struct conf_measured *measured = &decision->selectors->measured[rule];
        rc = measured->manifest ? host_measure_caller(host, decision, from, measured, err) : rc;
    }
    return rc;
}

void host_decision_done(struct host_decision *decision)
{
    host_selectors_unref(&decision->selectors);
    host_local_unref(&decision->local);
}

/* ---- the log -----------------------------------------------------------------------------------
 */

/* A caller beyond its limit is told about once a second, with what was left out. */
static bool worth_a_line(struct host *host, enum att_rc rc, const struct att_err *why,
                         int64_t *ret_left_out)
{
    HOST_LOCKED(host);
    struct host_workload_counts *counts = &host->workload_counts;
    counts->granted += rc == ATT_OK;
    counts->refused += rc != ATT_OK;
    counts->by_local_rule += rc != ATT_OK && strcmp(why->reason, "localRule") == 0;
    *ret_left_out = 0;
    if (rc != ATT_E_LIMIT) {
        return true;
    }
    int64_t now_ms = att_boottime_ms();
    counts->limited++;
    if (counts->told_ms && now_ms - counts->told_ms < LIMIT_TOLD_MS) {
        counts->left_out++;
        return false;
    }
    counts->told_ms = now_ms;
    *ret_left_out = (int64_t)counts->left_out;
    counts->left_out = 0;
    return true;
}

static void hex_of(bool known, const uint8_t sha256[ATT_SHA256_LEN],
                   char ret[2 * ATT_SHA256_LEN + 1])
{
    ret[0] = '\0';
    if (known) {
        att_hex(ret, ATT_SLICE(sha256, ATT_SHA256_LEN));
    }
}

static void log_granted(const struct host_decision *d, const char *service)
{
    const struct workload_caller *c = &d->caller;
    char exe[2 * ATT_SHA256_LEN + 1], script[2 * ATT_SHA256_LEN + 1];
    hex_of(true, c->exe_sha256, exe);
    hex_of(c->script.known, c->script.sha256, script);
    att_log(ATT_INFO, "workload.granted", ATT_S("agent", d->agent), ATT_S("service", service),
            ATT_N("pid", c->facts.pid), ATT_N("uid", c->facts.uid), ATT_N("gid", c->facts.gid),
            ATT_N("parent", c->facts.parent), ATT_S("unit", c->facts.unit),
            ATT_S("invocation", c->facts.invocation_id), ATT_S("exe", c->exe_path),
            ATT_S("exeSha256", exe), ATT_S("script", c->script_path), ATT_S("scriptSha256", script),
            ATT_N("manifests", c->n_files));
}

static void log_refused(const struct host_decision *d, const struct host_caller *from,
                        const char *service, int64_t left_out, const struct att_err *why)
{
    const struct workload_caller *c = &d->caller;
    char exe[2 * ATT_SHA256_LEN + 1], script[2 * ATT_SHA256_LEN + 1];
    const char *reason = why->reason[0] ? why->reason : att_rc_name(why->rc);
    if (!d->seen) {
        att_log(ATT_WARN, "workload.refused", ATT_S("reason", reason), ATT_S("message", why->msg),
                ATT_S("service", service), ATT_N("pid", from->pid), ATT_N("leftOut", left_out));
        return;
    }
    hex_of(true, c->exe_sha256, exe);
    hex_of(c->script.known, c->script.sha256, script);
    att_log(ATT_WARN, "workload.refused", ATT_S("reason", reason), ATT_S("message", why->msg),
            ATT_S("service", service), ATT_N("pid", c->facts.pid), ATT_N("uid", c->facts.uid),
            ATT_N("euid", c->facts.euid), ATT_N("gid", c->facts.gid),
            ATT_N("parent", c->facts.parent), ATT_S("unit", c->facts.unit),
            ATT_S("cgroup", c->facts.cgroup), ATT_S("exe", c->exe_path), ATT_S("exeSha256", exe),
            ATT_S("script", c->script_path), ATT_S("scriptSha256", script));
}

/* ---- IDENTIFY ----------------------------------------------------------------------------------
 */

static enum att_rc identify(struct host *host, const struct proc_peer *peer,
                            const struct proc_op *op, const struct proc_value *v,
                            struct att_buf *ret_payload, struct att_err *err)
{
    struct host_decision *decision = calloc(1, sizeof(*decision));
    if (!decision) {
        return att_fail(err, ATT_E_NOMEM, "no memory for a decision");
    }
    struct host_caller from = {
        .pidfd = peer->passed,
        .pid = (pid_t)v[PROC_WORKLOAD_IDENTIFY_REQ_PID].num,
        .accepted_ms = (int64_t)(v[PROC_WORKLOAD_IDENTIFY_REQ_ACCEPTED_MS].num & INT64_MAX)};
    char service[33];
    struct att_err why = {0};
    int64_t left_out;
    proc_take_text(v[PROC_WORKLOAD_IDENTIFY_REQ_SERVICE].bytes, service, sizeof(service));
    from.again = strcmp(service, PROC_WORKLOAD_AGAIN) == 0 ||
                 strcmp(service, PROC_WORKLOAD_AGAIN_SPIFFE) == 0;
    enum att_rc rc = host_decide(host, &from, decision, &why);
    bool tell = worth_a_line(host, rc, &why, &left_out);
    if (rc == ATT_OK) {
        log_granted(decision, service);
        host_note_granted(host, decision, service);
        const struct proc_value reply[] = {
            [PROC_WORKLOAD_IDENTIFY_REP_AGENT] = proc_text(decision->agent),
            [PROC_WORKLOAD_IDENTIFY_REP_IDENTITY] =
                proc_bytes(ATT_SLICE_ARRAY(decision->caller.facts.identity))};
        rc = proc_reply_encode(op, reply, ret_payload, &why);
    } else if (tell) {
        log_refused(decision, &from, service, left_out, &why);
        host_note_refused(host, decision, &from, service, left_out, &why);
    }
    host_decision_done(decision);
    free(decision);
    if (rc != ATT_OK && err) {
        *err = why;
    }
    return rc;
}

/* ---- VIEW --------------------------------------------------------------------------------------
 */

struct view {
    char spiffe_id[AGENT_SPIFFE_ID_MAX + 1];
    char key_id[AGENT_KEY_ID_MAX + 1];
    char key_store[sizeof(((struct agent_record *)0)->key_store)];
    char hsm[sizeof(((struct agent_record *)0)->hsm)];
    int64_t not_after;
    bool frozen;
    STACK_OF(X509) * chain, *bundle;
};

static void view_free(struct view *view)
{
    certs_stack_cleanup(&view->chain);
    certs_stack_cleanup(&view->bundle);
    free(view);
}

static enum att_rc no_certificate(const char *agent, struct att_err *err)
{
    (void)!att_fail(err, ATT_E_NOTFOUND, "agent %s has no certificate in force", agent);
    att_err_reason(err, "noCertificate");
    return ATT_E_NOTFOUND;
}

/* What the record says is in force now, and the roots. */
static enum att_rc read_record(struct host *host, const char *name, struct view *view,
                               struct att_err *err)
{
    HOST_LOCKED(host);
    const struct agent *agent = agent_registry_find(host->reg, name);
    if (!agent || !agent_life_serving(&agent->rec.life) ||
        agent_sched_expired(&agent->rec.dates, host_now())) {
        return no_certificate(name, err);
    }
    memcpy(view->spiffe_id, agent->rec.spiffe_id, sizeof(view->spiffe_id));
    memcpy(view->key_id, agent->rec.key_id, sizeof(view->key_id));
    memcpy(view->key_store, agent->rec.key_store, sizeof(view->key_store));
    memcpy(view->hsm, agent->rec.hsm, sizeof(view->hsm));
    view->not_after = agent->rec.dates.not_after;
    view->frozen = agent->rec.life.state == AGENT_FROZEN;
    certs_stack_cleanup(&view->bundle);
    view->bundle = host->bundle ? X509_chain_up_ref(host->bundle) : sk_X509_new_null();
    return view->bundle ? ATT_OK : att_fail(err, ATT_E_NOMEM, "no memory for a bundle");
}

/* The installed chain, if it is of the key that the record names. ATT_E_RETRY: a change of keys is
 * under way. */
static enum att_rc read_chain(struct host *host, const char *name, struct view *view,
                              struct att_err *err)
{
    att_autobuf pem = {0}, uri = {0}, expected = {0};
    enum att_rc rc = certs_install_load(host->paths.agents, name, &pem, &uri, err);
    if (rc == ATT_E_NOTFOUND) {
        att_err_clear(err);
        return no_certificate(name, err);
    }
    if (rc == ATT_OK) {
        rc = host_key_uri(view->key_id, &expected, err);
    }
    if (rc == ATT_OK && !att_slice_eq(att_buf_slice(&uri), att_buf_slice(&expected))) {
        (void)!att_fail(err, ATT_E_RETRY, "agent %s changes its key", name);
        att_err_reason(err, "keyChanging");
        return ATT_E_RETRY;
    }
    if (rc == ATT_OK) {
        rc = certs_pem_parse(att_buf_slice(&pem), &view->chain, err);
    }
    return rc;
}

static enum att_rc read_view(struct host *host, const char *name, struct view *view,
                             struct att_err *err)
{
    for (int i = 0;; i++) {
        struct att_err why = {0};
        enum att_rc rc = read_record(host, name, view, &why);
        if (rc == ATT_OK) {
            rc = read_chain(host, name, view, &why);
        }
        if (rc != ATT_E_RETRY || i == SWITCH_TRIES || atomic_load(&host->stop)) {
            if (rc != ATT_OK && err) {
                *err = why;
            }
            return rc;
        }
        usleep(10000);
    }
}

enum att_rc host_put_ders(const STACK_OF(X509) * certs, size_t max, struct att_buf *ders,
                          struct att_slice *items, size_t *ret_n, struct att_err *err)
{
    size_t n = (size_t)sk_X509_num(certs), marks[PROC_BUNDLE_MAX + 1] = {0};
    if (n > max) {
        return att_fail(err, ATT_E_LIMIT, "%zu certificates, at most %zu", n, max);
    }
    for (size_t i = 0; i < n; i++) {
        enum att_rc rc = certs_cert_der(sk_X509_value(certs, (int)i), ders, err);
        if (rc != ATT_OK) {
            return rc;
        }
        marks[i + 1] = ders->len;
    }
    for (size_t i = 0; i < n; i++) {
        items[i] = ATT_SLICE(ders->ptr + marks[i], marks[i + 1] - marks[i]);
    }
    *ret_n = n;
    return ATT_OK;
}

/* Another number whenever anything of it is another. */
static uint64_t generation_of(const struct view *view, struct att_slice chain,
                              struct att_slice bundle)
{
    uint8_t sha256[ATT_SHA256_LEN];
    const struct att_slice parts[] = {att_slice_str(view->spiffe_id),
                                      ATT_SLICE_LIT("\n"),
                                      att_slice_str(view->key_id),
                                      ATT_SLICE_LIT("\n"),
                                      chain,
                                      bundle};
    att_sha256_v(sha256, parts, sizeof(parts) / sizeof(parts[0]));
    struct att_cur cur = att_cur_init(ATT_SLICE_ARRAY(sha256));
    return att_cur_be64(&cur);
}

static enum att_rc encode_view(const struct proc_op *op, const struct view *view,
                               struct att_buf *ret_payload, struct att_err *err)
{
    att_autobuf chain = {0}, bundle = {0};
    struct att_slice chain_items[PROC_CHAIN_MAX], bundle_items[PROC_BUNDLE_MAX];
    size_t n_chain = 0, n_bundle = 0;
    enum att_rc rc = host_put_ders(view->chain, PROC_CHAIN_MAX, &chain, chain_items, &n_chain, err);
    if (rc == ATT_OK) {
        rc = host_put_ders(view->bundle, PROC_BUNDLE_MAX, &bundle, bundle_items, &n_bundle, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    uint64_t generation = generation_of(view, att_buf_slice(&chain), att_buf_slice(&bundle));
    const struct proc_value reply[] = {
        [PROC_WORKLOAD_VIEW_REP_SPIFFE_ID] = proc_text(view->spiffe_id),
        [PROC_WORKLOAD_VIEW_REP_KEY_ID] = proc_text(view->key_id),
        [PROC_WORKLOAD_VIEW_REP_NOT_AFTER] = proc_num((uint64_t)view->not_after),
        [PROC_WORKLOAD_VIEW_REP_CHAIN] = {.items = chain_items, .item_count = n_chain},
        [PROC_WORKLOAD_VIEW_REP_BUNDLE] = {.items = bundle_items, .item_count = n_bundle},
        [PROC_WORKLOAD_VIEW_REP_GENERATION] = proc_num(generation),
        [PROC_WORKLOAD_VIEW_REP_KEY_STORE] = proc_text(view->key_store),
        [PROC_WORKLOAD_VIEW_REP_HSM] = proc_text(view->hsm)};
    return proc_reply_encode(op, reply, ret_payload, err);
}

static enum att_rc view(struct host *host, const struct proc_op *op, const struct proc_value *v,
                        struct att_buf *ret_payload, struct att_err *err)
{
    char name[AGENT_NAME_MAX + 1];
    struct view *seen = calloc(1, sizeof(*seen));
    if (!seen) {
        return att_fail(err, ATT_E_NOMEM, "no memory for a view");
    }
    proc_take_text(v[PROC_WORKLOAD_VIEW_REQ_AGENT].bytes, name, sizeof(name));
    enum att_rc rc = agent_name_check(name, err);
    if (rc == ATT_OK) {
        rc = read_view(host, name, seen, err);
    }
    if (rc == ATT_OK) {
        rc = encode_view(op, seen, ret_payload, err);
    }
    view_free(seen);
    return rc;
}

/* ---- EXPORT ------------------------------------------------------------------------------------
 */

/* The entry says so now, and the certificate in force says so to everybody else. */
static enum att_rc check_export(struct host *host, const char *name, const char *key_id,
                                struct view *seen, struct att_err *err)
{
    struct certs_key_holding holding = {0};
    enum att_rc rc = read_view(host, name, seen, err);
    if (rc != ATT_OK) {
        return rc;
    }
    if (seen->frozen) { /* keyd would say so, too, after a record of what never was */
        rc = att_fail(err, ATT_E_DENIED, "agent %s is frozen", name);
        att_err_reason(err, "frozen");
        return rc;
    }
    if (strcmp(seen->key_store, "exportable") != 0) {
        rc = att_fail(err, ATT_E_DENIED, "the entry of agent %s says %s: its key stays where it is",
                      name, seen->key_store);
        att_err_reason(err, "keyNotExportable");
        return rc;
    }
    bool marked = sk_X509_num(seen->chain) > 0 &&
                  certs_key_holding_get(sk_X509_value(seen->chain, 0), &holding, NULL) == ATT_OK &&
                  holding.store == CERTS_STORE_EXPORTABLE;
    if (!marked || strcmp(seen->key_id, key_id) != 0) {
        rc = att_fail(err, ATT_E_RETRY, "agent %s has no such key in force, or not yet", name);
        att_err_reason(err, "keyChanging");
    }
    return rc;
}

static enum att_rc note_export(struct host *host, const struct proc_value *v, const char *name,
                               const char *key_id, struct att_err *err)
{
    json_int_t pid = (json_int_t)v[PROC_WORKLOAD_EXPORT_REQ_PID].num;
    json_int_t uid = (json_int_t)v[PROC_WORKLOAD_EXPORT_REQ_UID].num;
    enum att_rc rc = host_note_must(
        host, "exported",
        json_pack("{s:s, s:s, s:I, s:I}", "agent", name, "keyId", key_id, "pid", pid, "uid", uid),
        err);
    if (rc == ATT_OK) {
        att_log(ATT_WARN, "workload.exported", ATT_S("agent", name), ATT_S("keyId", key_id),
                ATT_N("pid", pid), ATT_N("uid", uid));
    }
    return rc;
}

static enum att_rc export_key(struct host *host, const struct proc_peer *peer,
                              const struct proc_op *op, const struct proc_value *v,
                              struct att_buf *ret_payload, struct att_err *err)
{
    char name[AGENT_NAME_MAX + 1], key_id[PROC_KEY_ID_LEN + 1];
    if (peer->uid != host->spiffed_uid) {
        (void)!att_fail(err, ATT_E_DENIED, "user %u does not export keys", (unsigned)peer->uid);
        att_err_reason(err, "exportUser");
        return ATT_E_DENIED;
    }
    struct view *seen = calloc(1, sizeof(*seen));
    if (!seen) {
        return att_fail(err, ATT_E_NOMEM, "no memory for a view");
    }
    proc_take_text(v[PROC_WORKLOAD_EXPORT_REQ_AGENT].bytes, name, sizeof(name));
    proc_take_text(v[PROC_WORKLOAD_EXPORT_REQ_KEY_ID].bytes, key_id, sizeof(key_id));
    enum att_rc rc = agent_name_check(name, err);
    if (rc == ATT_OK) {
        rc = check_export(host, name, key_id, seen, err);
    }
    if (rc == ATT_OK) {
        rc = note_export(host, v, name, key_id, err);
    }
    view_free(seen);
    return rc == ATT_OK ? proc_reply_encode(op, NULL, ret_payload, err) : rc;
}

/* ---- CHANGES -----------------------------------------------------------------------------------
 */

/* Whoever puts a view in force wakes all that wait. */
static enum att_rc changes(struct host *host, const struct proc_op *op, const struct proc_value *v,
                           struct att_buf *ret_payload, struct att_err *err)
{
    uint64_t known = v[PROC_WORKLOAD_CHANGES_REQ_KNOWN].num, now;
    int64_t until_ms = att_boottime_ms() + PROC_CHANGES_WAIT_MS;
    {
        HOST_LOCKED(host);
        for (;;) {
            now = host_local_mix(host->local, host->selectors ? host->selectors->number : 0);
            int64_t left_ms = until_ms - att_boottime_ms();
            if ((now && now != known) || left_ms <= 0 || atomic_load(&host->stop)) {
                break;
            }
            host_wait(host, left_ms);
        }
    }
    const struct proc_value reply[] = {[PROC_WORKLOAD_CHANGES_REP_ENTRIES] = proc_num(now)};
    return proc_reply_encode(op, reply, ret_payload, err);
}

/* ---- the server --------------------------------------------------------------------------------
 */

static enum att_rc handle(void *user, const struct proc_peer *peer, const struct proc_op *op,
                          const struct proc_msg *request, struct att_buf *ret_payload,
                          struct att_err *err)
{
    if (op->op == PROC_WORKLOAD_REPORT) {
        enum att_rc rc = host_token_keep(user, request->v, err);
        return rc == ATT_OK ? proc_reply_encode(op, NULL, ret_payload, err) : rc;
    }
    switch (op->op) {
    case PROC_WORKLOAD_IDENTIFY:
        return identify(user, peer, op, request->v, ret_payload, err);
    case PROC_WORKLOAD_VIEW:
    case PROC_WORKLOAD_VIEW_HSM:
        return view(user, op, request->v, ret_payload, err);
    case PROC_WORKLOAD_EXPORT:
        return export_key(user, peer, op, request->v, ret_payload, err);
    case PROC_WORKLOAD_CHANGES:
        return changes(user, op, request->v, ret_payload, err);
    case PROC_WORKLOAD_TOKEN:
    case PROC_WORKLOAD_TOKEN_KEPT:
    case PROC_WORKLOAD_TOKEN_FRESH:
    case PROC_WORKLOAD_JWT_BUNDLE:
        return host_tokens_answer(user, op, request->v, ret_payload, err);
    default:
        return host_standing_answer(user, op, request->v, ret_payload, err);
    }
}

enum att_rc host_workload_start(struct host *host, struct att_err *err)
{
    const struct proc_server_opts opts = {
        .path = host->paths.workload,
        .clients = {.uids = {host->tokend_uid, host->spiffed_uid}, .count = 2},
        .group = host->ipc_gid,
        .table = proc_workload_table,
        .handler = handle,
        .user = host,
        .frame_timeout_ms = FRAME_TIMEOUT_MS,
        .connections = PROC_PLACES_WORKLOAD};
    enum att_rc rc = proc_server_new(&opts, &host->workload_server, err);
    return rc == ATT_OK ? proc_server_start(host->workload_server, err) : rc;
}
