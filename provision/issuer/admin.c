/* The table of operations, argument checks, status. */
#include "provision/issuer/admin.h"

#include "certs/ekcert.h"
#include "provision/issuer/ca.h"

#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum arg_kind { ARG_TEXT, ARG_INT, ARG_BOOL, ARG_OBJECT };
#define ARGS_MAX 6

struct arg {
    const char *name;
    enum arg_kind kind;
    bool required;
};

struct operation {
    const char *op;
    issuer_admin_fn fn;
    /* Its own transaction, or none at all: NONE only reads, STEPS changes something in transactions
     * of its own (and keys, files). */
    enum { READ, WRITE, NONE, STEPS } store;
    struct arg args[ARGS_MAX];
};

#define ID                                                                                         \
    {                                                                                              \
        "id", ARG_TEXT, true                                                                       \
    }
#define NAME                                                                                       \
    {                                                                                              \
        "name", ARG_TEXT, true                                                                     \
    }
#define APPLY                                                                                      \
    {"text", ARG_TEXT, true}, {"filename", ARG_TEXT, false},                                       \
    {                                                                                              \
        "dryRun", ARG_BOOL, false                                                                  \
    }

#define PAGE                                                                                       \
    {"after", ARG_TEXT, false},                                                                    \
    {                                                                                              \
        "limit", ARG_INT, false                                                                    \
    }

#define ROTATION                                                                                   \
    {"kind", ARG_TEXT, true}, {"newRoot", ARG_BOOL, false}, {"csr", ARG_BOOL, false},              \
    {                                                                                              \
        "keys", ARG_TEXT, false                                                                    \
    }

static const struct operation operations[] = {
    {"status", issuer_admin_status, READ, {{0}}},
    {"host.list", issuer_admin_host_list, READ, {{"state", ARG_TEXT, false}, PAGE}},
    {"host.show", issuer_admin_host_show, READ, {ID}},
    {"host.import", issuer_admin_host_import, WRITE, {APPLY}},
    {"host.approve",
     issuer_admin_host_approve,
     WRITE,
     {ID, {"label", ARG_TEXT, false}, {"labels", ARG_OBJECT, false}}},
    {"host.ban", issuer_admin_host_ban, WRITE, {ID, {"reason", ARG_TEXT, true}}},
    {"host.evict", issuer_admin_host_evict, WRITE, {ID}},
    {"host.rebind", issuer_admin_host_rebind, WRITE, {ID}},
    {"ticket.create",
     issuer_admin_ticket_create,
     WRITE,
     {{"ek", ARG_TEXT, false},
      {"host", ARG_TEXT, false},
      {"uses", ARG_INT, false},
      {"lifetime", ARG_TEXT, false}}},
    {"entry.apply", issuer_admin_entry_apply, WRITE, {APPLY}},
    {"entry.list", issuer_admin_entry_list, READ, {PAGE}},
    {"entry.show", issuer_admin_entry_show, READ, {NAME, PAGE}},
    {"entry.delete", issuer_admin_entry_delete, WRITE, {NAME}},
    {"policy.apply", issuer_admin_policy_apply, WRITE, {APPLY}},
    {"policy.mode",
     issuer_admin_policy_mode,
     WRITE,
     {{"profile", ARG_TEXT, true}, {"mode", ARG_TEXT, true}}},
    {"policy.dryrun",
     issuer_admin_policy_dryrun,
     READ,
     {{"text", ARG_TEXT, true},
      {"filename", ARG_TEXT, false},
      {"id", ARG_TEXT, false},
      {"all", ARG_BOOL, false},
      {"after", ARG_TEXT, false},
      {"limit", ARG_INT, false}}},
    {"allowlist.part", issuer_admin_allowlist_part, WRITE, {{"text", ARG_TEXT, true}}},
    {"allowlist.apply",
     issuer_admin_allowlist_apply,
     WRITE,
     {{"parts", ARG_TEXT, true},
      {"filename", ARG_TEXT, false},
      {"label", ARG_TEXT, false},
      {"dryRun", ARG_BOOL, false}}},
    {"allowlist.list", issuer_admin_allowlist_list, READ, {{0}}},
    {"allowlist.delete", issuer_admin_allowlist_delete, WRITE, {{"sha256", ARG_TEXT, true}}},
    {"policy.list", issuer_admin_policy_list, READ, {{0}}},
    {"policy.show", issuer_admin_policy_show, READ, {NAME}},
    {"cert.list",
     issuer_admin_cert_list,
     READ,
     {{"host", ARG_TEXT, false},
      {"name", ARG_TEXT, false},
      {"status", ARG_TEXT, false},
      {"kind", ARG_TEXT, false},
      PAGE}},
    {"cert.revoke",
     issuer_admin_cert_revoke,
     WRITE,
     {{"serial", ARG_TEXT, true}, {"reason", ARG_TEXT, false}}},
    {"cert.renew",
     issuer_admin_cert_renew,
     WRITE,
     {{"all", ARG_BOOL, false},
      {"host", ARG_TEXT, false},
      {"serial", ARG_TEXT, false},
      {"profile", ARG_TEXT, false},
      {"reason", ARG_TEXT, true}}},
    {"ca.status", issuer_admin_ca_status, READ, {{0}}},
    {"ca.prepare", issuer_admin_ca_prepare, STEPS, {ROTATION}},
    {"ca.rotate", issuer_admin_ca_rotate, STEPS, {ROTATION, {"start", ARG_BOOL, false}}},
    {"ca.chain",
     issuer_admin_ca_chain,
     STEPS,
     {ID, {"text", ARG_TEXT, true}, {"filename", ARG_TEXT, false}}},
    {"ca.publish", issuer_admin_ca_publish, STEPS, {ID}},
    {"ca.activate", issuer_admin_ca_activate, STEPS, {ID, {"force", ARG_BOOL, false}}},
    {"ca.retire", issuer_admin_ca_retire, STEPS, {ID, {"force", ARG_BOOL, false}}},
    {"ca.bundle", issuer_admin_ca_bundle, NONE, {{"kind", ARG_TEXT, true}}},
    {"ca.jwt", issuer_admin_ca_jwt, READ, {{0}}},
    {"ca.jwt.replace", issuer_admin_ca_jwt_replace, STEPS, {{"withdraw", ARG_BOOL, false}}},
    {"federation.list", issuer_admin_federation_list, READ, {{0}}},
    {"federation.show", issuer_admin_federation_show, READ, {NAME}},
    {"federation.refresh", issuer_admin_federation_refresh, STEPS, {NAME}},
    {"federation.reset", issuer_admin_federation_reset, WRITE, {NAME}},
    {"audit.list",
     issuer_admin_audit_list,
     READ,
     {{"after", ARG_INT, false},
      {"limit", ARG_INT, false},
      {"kind", ARG_TEXT, false},
      {"subject", ARG_TEXT, false}}},
    {"audit.why", issuer_admin_audit_why, READ, {ID}},
    {"audit.evidence", issuer_admin_audit_evidence, READ, {{"sha256", ARG_TEXT, true}}},
    {"audit.verify", issuer_admin_audit_verify, NONE, {{0}}},
    {"audit.prove", issuer_admin_audit_prove, READ, {ID}},
    {"audit.export",
     issuer_admin_audit_export,
     READ,
     {{"after", ARG_INT, false},
      {"limit", ARG_INT, false},
      {"profile", ARG_TEXT, false},
      {"before", ARG_TEXT, false}}},
    {"audit.erase",
     issuer_admin_audit_erase,
     WRITE,
     {{"seq", ARG_INT, true}, {"reason", ARG_TEXT, true}}},
    {"proposal.list", issuer_admin_proposal_list, READ, {{"state", ARG_TEXT, false}, PAGE}},
    {"proposal.show", issuer_admin_proposal_show, READ, {ID}},
    {"proposal.approve", issuer_admin_proposal_approve, WRITE, {ID}},
    {"proposal.reject", issuer_admin_proposal_reject, WRITE, {ID, {"reason", ARG_TEXT, true}}},
};

/* ---- arguments
 * ------------------------------------------------------------------------------------------ */

static bool kind_fits(const json_t *value, enum arg_kind kind)
{
    switch (kind) {
    case ARG_TEXT:
        return json_is_string(value);
    case ARG_INT:
        return json_is_integer(value);
    case ARG_BOOL:
        return json_is_boolean(value);
    case ARG_OBJECT:
        return json_is_object(value);
    }
    return false;
}

static const struct arg *find_arg(const struct operation *op, const char *name)
{
    for (size_t i = 0; i < ARGS_MAX && op->args[i].name; i++) {
        if (strcmp(op->args[i].name, name) == 0) {
            return &op->args[i];
        }
    }
    return NULL;
}

static enum att_rc check_args(const struct operation *op, const json_t *args, struct att_err *err)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)args, name, value)
    {
        const struct arg *arg = find_arg(op, name);
        if (!arg) {
            return issuer_refuse(err, ATT_E_INVAL, "usage", "%s: unknown argument \"%.40s\"",
                                 op->op, name);
        }
        if (!json_is_null(value) && !kind_fits(value, arg->kind)) {
            static const char *const kinds[] = {"text", "a number", "true or false", "an object"};
            return issuer_refuse(err, ATT_E_INVAL, "usage", "%s: %s: expected %s", op->op, name,
                                 kinds[arg->kind]);
        }
    }
    for (size_t i = 0; i < ARGS_MAX && op->args[i].name; i++) {
        value = json_object_get(args, op->args[i].name);
        if (op->args[i].required && (!value || json_is_null(value))) {
            return issuer_refuse(err, ATT_E_INVAL, "usage", "%s: %s is missing", op->op,
                                 op->args[i].name);
        }
    }
    return ATT_OK;
}

const char *issuer_arg(const struct issuer_admin_call *call, const char *name)
{
    return json_string_value(json_object_get(call->args, name));
}

int64_t issuer_arg_int(const struct issuer_admin_call *call, const char *name, int64_t otherwise)
{
    const json_t *value = json_object_get(call->args, name);
    return json_is_integer(value) ? json_integer_value(value) : otherwise;
}

enum att_rc issuer_admin_audit(struct issuer_admin_call *call, struct store_tx *tx, json_t *record,
                               struct att_err *err)
{
    issuer_who_put(record, call->who);
    return issuer_audit(tx, call->now, record, NULL, err);
}

/* ---- naming a host
 * ---------------------------------------------------------------------------------------- */

#define MATCHES_MAX 100

struct match {
    char id[VERIFY_ID_HEX];
    size_t n;
};

static enum att_rc match_host(void *user, const void *record, struct att_err *err)
{
    struct match *m = user;
    const struct store_host *host = record;
    (void)err;
    m->n++;
    snprintf(m->id, sizeof m->id, "%s", host->id);
    return ATT_OK;
}

enum att_rc issuer_arg_host(const struct issuer_admin_call *call, struct store_tx *tx,
                            struct store_host *ret_host, struct att_err *err)
{
    const char *text = issuer_arg(call, "id");
    text = text ? text : issuer_arg(call, "host");
    struct match m = {.n = 0};
    size_t len = strlen(text);
    bool prefix = len >= 8 && strspn(text, "0123456789abcdef") == len;
    struct store_host_ek row = {0};
    if (store_get(tx, &store_host_eks, text, &row, NULL) == ATT_OK) {
        enum att_rc rc = store_get(tx, &store_hosts, row.host, ret_host, err);
        store_record_done(&store_host_eks, &row);
        return rc;
    }
    enum att_rc rc =
        len ? store_host_called(tx, text, prefix ? text : NULL, MATCHES_MAX, match_host, &m, err)
            : ATT_OK;
    if (rc) {
        return rc;
    }
    if (m.n > 1) {
        return issuer_refuse(err, ATT_E_CONFLICT, "hostAmbiguous", "%zu hosts %smatch \"%.64s\"",
                             m.n, m.n == MATCHES_MAX ? "and more " : "", text);
    }
    if (m.n == 0) {
        return issuer_refuse(err, ATT_E_NOTFOUND, "hostUnknown", "no host is called \"%.64s\"",
                             text);
    }
    return store_get(tx, &store_hosts, m.id, ret_host, err);
}

/* ---- status
 * --------------------------------------------------------------------------------------------------
 */

static const char *mode_now(struct store_tx *tx, const struct conf_issuer *conf, const char *name)
{
    struct issuer_policy_use use;
    return issuer_policy_use(tx, conf, name, &use, NULL) ? "?" : verify_mode_word(use.mode);
}

static json_t *profiles_json(struct store_tx *tx, const struct conf_issuer *conf)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < conf->n_profiles; i++) {
        const struct conf_profile *p = &conf->profiles[i];
        json_t *keys = json_array();
        for (unsigned k = 0; k < p->n_keys; k++) {
            json_array_append_new(keys, json_string(p->keys[k]));
        }
        json_array_append_new(
            list, json_pack("{s:s, s:s, s:s, s:b, s:I, s:o, s:s}", "name", p->name, "boot", p->boot,
                            "mode", mode_now(tx, conf, p->name), "policySigned",
                            p->n_policy_signers > 0, "lifetimeS", (json_int_t)p->lifetime_s, "keys",
                            keys, "parentPolicy", p->parent_policy ? p->parent_policy : "none"));
    }
    return list;
}

static json_t *tls_json(struct issuer *issuer)
{
    pthread_mutex_lock(&issuer->lock);
    json_t *groups = issuer_server_groups(issuer->server);
    pthread_mutex_unlock(&issuer->lock);
    const char *most = "", *name;
    json_t *n;
    json_int_t best = 0;
    json_object_foreach(groups, name, n)
    {
        if (json_integer_value(n) > best) {
            best = json_integer_value(n);
            most = name;
        }
    }
    issuer_autoendpoints *endpoints = issuer_endpoints_get(issuer->ca);
    struct certs_cert_info info = {0};
    (void)!certs_cert_info(endpoints->tls, &info, NULL);
    return json_pack("{s:s, s:s, s:o, s:b, s:o}", "version", "TLSv1.3", "group", most, "groups",
                     groups, "postQuantum", certs_tls_has_pq() ? 1 : 0, "notAfter",
                     issuer_time_json(info.not_after));
}

enum att_rc issuer_admin_status(struct issuer_admin_call *call, struct store_tx *tx,
                                struct att_err *err)
{
    struct issuer *issuer = call->issuer;
    issuer_autosettings *settings = issuer_settings_get(issuer);
    const struct conf_issuer *conf = settings->conf;
    struct store_counts c = {0};
    struct store_audit head = {0};
    enum att_rc rc = store_counts(tx, &c, err);
    if (!rc) {
        rc = store_audit_head(tx, &head, err);
    }
    if (rc) {
        return rc;
    }
    char hash[65];
    att_hex(hash, ATT_SLICE_ARRAY(head.hash));
    json_t *more = json_pack(
        "{s:s, s:s, s:s, s:i, s:o, s:i, s:s, s:o, s:I, s:I, s:I, s:I, s:{s:I, s:I, s:I}, s:I}",
        "version", ATT_VERSION, "url", issuer->base_url, "trustDomain", issuer->trust_domain, "pid",
        (int)getpid(), "startedAt", issuer_time_json(issuer->started_at), "threads",
        (int)conf->threads, "listen", conf->listen, "tls", tls_json(issuer), "connections",
        (json_int_t)atomic_load(&issuer->counters.connections), "requests",
        (json_int_t)atomic_load(&issuer->counters.requests), "refused",
        (json_int_t)atomic_load(&issuer->counters.refused), "issued",
        (json_int_t)atomic_load(&issuer->counters.issued), "hosts", "approved",
        (json_int_t)c.approved, "pending", (json_int_t)c.pending, "banned", (json_int_t)c.banned,
        "agents", (json_int_t)c.entries);
    json_object_update(call->result, more);
    json_decref(more);
    more = json_pack(
        "{s:{s:I, s:s}, s:I, s:o, s:I, s:s, s:o}", "audit", "seq", (json_int_t)head.seq, "hash",
        hash, "viewVersion", (json_int_t)atomic_load(&issuer->view_version), "profiles",
        profiles_json(tx, conf), "ekRoots", (json_int_t)certs_ek_store_roots(settings->ek_roots),
        "opensslVersion", OpenSSL_version(OPENSSL_VERSION), "warnings",
        issuer_ca_warnings(issuer->ca, conf, call->now));
    json_object_update(call->result, more);
    json_decref(more);
    char vkey[AUDIT_VKEY_MAX];
    audit_vkey_text(audit_log_vkey(issuer->log), vkey);
    json_object_set_new(call->result, "log",
                        json_pack("{s:s, s:s, s:b}", "origin", audit_log_vkey(issuer->log)->name,
                                  "vkey", vkey, "broken",
                                  atomic_load(&issuer->log_broken) ? 1 : 0));
    const struct audit_p256_vkey *tpm = audit_log_tpm_vkey(issuer->log);
    if (tpm) {
        char text[AUDIT_P256_VKEY_MAX];
        audit_p256_vkey_text(tpm, text);
        json_t *log = json_object_get(call->result, "log");
        json_object_set_new(log, "tpmVkey", json_string(text));
        json_object_set_new(log, "waiting", json_boolean(atomic_load(&issuer->log_waits)));
    }
    return ATT_OK;
}

/* ---- the table
 * --------------------------------------------------------------------------------------------------
 */

bool issuer_admin_op_at(size_t n, struct issuer_admin_op *ret_op)
{
    if (n >= sizeof operations / sizeof operations[0]) {
        return false;
    }
    const struct operation *o = &operations[n];
    *ret_op = (struct issuer_admin_op){o->op, o->fn, o->store == WRITE || o->store == STEPS,
                                       o->store == READ || o->store == WRITE};
    return true;
}

enum att_rc issuer_admin_op_find(const char *op, const json_t *args, struct issuer_admin_op *ret_op,
                                 struct att_err *err)
{
    for (size_t i = 0; i < sizeof operations / sizeof operations[0]; i++) {
        if (strcmp(operations[i].op, op) == 0) {
            (void)issuer_admin_op_at(i, ret_op);
            return check_args(&operations[i], args, err);
        }
    }
    return issuer_refuse(err, ATT_E_UNSUPPORTED, "usage", "there is no operation \"%.60s\"", op);
}
