/* M7: what a host may run, signed, with a version that only grows. */
#include "provision/issuer/federation.h"
#include "provision/issuer/generations.h"
#include "provision/issuer/jwt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum att_rc issuer_view_bump(struct store_tx *tx, struct att_err *err)
{
    int64_t version = 0;
    return store_meta_count(tx, "view_version", &version, err);
}

static enum att_rc read_version(void *user, struct store_tx *tx, struct att_err *err)
{
    int64_t *version = user;
    att_autobuf value = {0};
    enum att_rc rc = store_meta_get(tx, "view_version", &value, err);
    if (!rc) {
        struct att_cur cur = att_cur_init(att_buf_slice(&value));
        *version = (int64_t)att_cur_be64(&cur);
    }
    return rc;
}

void issuer_view_wake(struct issuer *issuer)
{
    int64_t version = 0;
    struct att_err err = {0};
    if (store_run(issuer->store, false, read_version, &version, &err)) {
        att_log_err(ATT_ERROR, "view.version", &err);
        return;
    }
    pthread_mutex_lock(&issuer->lock);
    if (version > atomic_load(&issuer->view_version)) {
        atomic_store(&issuer->view_version, version);
        if (issuer->server) {
            issuer_server_wake(issuer->server);
        }
    }
    pthread_mutex_unlock(&issuer->lock);
}

struct view {
    struct issuer *issuer;
    struct issuer_settings *settings;
    const char *host_id, *account;
    struct store_host host;
    json_t *labels, *entries, *policies;
    json_t *tokens;                 /* NULL: none are minted */
    json_t *federates, *federation; /* trust domains that entries name; their bundles */
    int64_t version;
};

static enum att_rc add_entry(void *user, const void *record, struct att_err *err)
{
    struct view *v = user;
    const struct store_entry *row = record;
    struct conf_entry *entry = NULL;
    att_autojson *json = issuer_json(row->json);
    enum att_rc rc = conf_entry_from_json(json, &entry, err);
    if (!rc && conf_entry_selects(entry, v->host.id, v->labels)) {
        const struct conf_profile *profile = conf_issuer_profile(v->settings->conf, entry->profile);
        json_t *workload = NULL, *measured = NULL, *audiences = NULL, *federates = NULL;
        for (size_t i = 0; i < entry->n_federates_with && v->settings->conf->federation; i++) {
            federates = federates ? federates : json_array();
            json_array_append_new(federates, json_string(entry->federates_with[i]));
            json_object_set_new(v->federates, entry->federates_with[i], json_true());
        }
        for (size_t i = 0; i < entry->n_audiences && v->settings->conf->jwt; i++) {
            audiences = audiences ? audiences : json_array();
            json_array_append_new(audiences, json_string(entry->audiences[i]));
        }
        rc = conf_workloads_to_json(entry, &workload, err);
        if (!rc) {
            rc = conf_measured_to_json(&entry->measured, &measured, err);
        }
        if (!rc) {
            bool rsa = att_keytype_is_rsa(entry->key_type);
            json_array_append_new(
                v->entries,
                json_pack(
                    "{s:s, s:s, s:s, s:s*, s:s*, s:s, s:I, s:o, s:o*, s:o*, s:o*}", "name",
                    row->name, "spiffeId", row->spiffe_id, "key", conf_key_kind_name(entry->key),
                    "keyType", rsa ? att_keytype_name(entry->key_type) : NULL, "hsm", entry->hsm,
                    "profile", entry->profile, "lifetimeS",
                    (json_int_t)(profile ? profile->lifetime_s : 0), "workload", workload,
                    "measured", measured, "audiences", audiences, "federatesWith", federates));
        } else {
            json_decref(audiences);
            json_decref(federates);
        }
    }
    conf_entry_free(entry);
    return rc;
}

static enum att_rc add_policy(void *user, const void *record, struct att_err *err)
{
    struct view *v = user;
    const struct store_policy *row = record;
    (void)err;
    json_array_append_new(v->policies, json_pack("{s:s, s:I}", "name", row->name, "version",
                                                 (json_int_t)row->version));
    return ATT_OK;
}

static enum att_rc gather(void *user, struct store_tx *tx, struct att_err *err)
{
    struct view *v = user;
    att_autobuf version = {0};
    /* A version says which bundle a host has: never a bundle of before with a version of after. */
    enum att_rc rc = issuer_generations_check(v->issuer, tx, err);
    if (!rc) {
        rc = store_meta_get(tx, "view_version", &version, err);
    }
    if (!rc) {
        struct att_cur cur = att_cur_init(att_buf_slice(&version));
        v->version = (int64_t)att_cur_be64(&cur);
        rc = store_get(tx, &store_hosts, v->host_id, &v->host, NULL);
        if (rc) {
            return rc == ATT_E_NOTFOUND
                       ? issuer_refuse(err, ATT_E_DENIED, "hostUnknown", "the host is gone")
                       : att_fail(err, rc, "hosts cannot be read");
        }
    }
    if (!rc && strcmp(v->host.account, v->account) != 0) {
        return issuer_refuse(err, ATT_E_DENIED, "accountMismatch",
                             "host %.12s belongs to another account", v->host.id);
    }
    if (!rc && strcmp(v->host.state, STORE_HOST_BANNED) == 0) {
        return issuer_host_check(&v->host, err);
    }
    if (!rc && v->settings->conf->jwt && v->issuer->jwt) {
        json_t *keys = NULL;
        rc = issuer_jwt_public(tx, NULL, &keys, err);
        v->tokens =
            rc ? NULL
               : json_pack("{s:s, s:o}", "issuer", v->settings->conf->jwt->issuer, "keys", keys);
    }
    v->labels = issuer_json(v->host.labels);
    if (!rc && strcmp(v->host.state, STORE_HOST_APPROVED) == 0) {
        rc = store_each(tx, &store_entries, NULL, NULL, add_entry, v, err);
    }
    if (!rc && json_object_size(v->federates) > 0) {
        rc = issuer_federation_view(v->settings->conf->federation, tx, v->federates, &v->federation,
                                    err);
    }
    return rc ? rc : store_each(tx, &store_policies, NULL, NULL, add_policy, v, err);
}

/* The lists of all whose certificates may be in force, or will soon be; NULL where there is the
 * first one's only. */
static json_t *list_crls(const struct issuer *issuer)
{
    const struct issuer_generations *now = issuer_generations_now(issuer);
    json_t *list = NULL;
    for (size_t i = 0; i < now->n; i++) {
        const struct issuer_generation *g = &now->v[i];
        if (strcmp(g->kind, "agent") == 0 && (strcmp(g->state, STORE_AUTHORITY_PUBLISHED) == 0 ||
                                              strcmp(g->state, STORE_AUTHORITY_ACTIVE) == 0 ||
                                              strcmp(g->state, STORE_AUTHORITY_OUTGOING) == 0)) {
            list = list ? list : json_array();
            json_array_append_new(list, json_string(g->crl));
        }
    }
    return list;
}

/* What TLS to this issuer and its views may be signed under; NULL before the first rotation. */
static json_t *list_tls_roots(const struct issuer *issuer)
{
    const struct issuer_generations *now = issuer_generations_now(issuer);
    json_t *retired = now->tls_roots ? json_array() : NULL;
    for (size_t i = 0; retired && i < now->n; i++) {
        const struct issuer_generation *g = &now->v[i];
        uint8_t digest[ATT_SHA256_LEN];
        char hex[65];
        if (strcmp(g->kind, "tls") == 0 && strcmp(g->state, STORE_AUTHORITY_RETIRED) == 0 &&
            certs_cert_sha256(g->root, digest, NULL) == ATT_OK) {
            att_hex(hex, ATT_SLICE_ARRAY(digest));
            json_array_append_new(retired, json_string(hex));
        }
    }
    return retired ? json_pack("{s:s, s:o}", "pem", now->tls_roots, "retired", retired) : NULL;
}

static enum att_rc sign_view(struct view *v, struct att_buf *ret_jws, struct att_err *err)
{
    issuer_autoendpoints *endpoints = issuer_endpoints_get(v->issuer->ca);
    att_autojson *json = json_pack(
        "{s:I, s:o, s:s, s:{s:s, s:s}, s:O, s:s, s:O}", "version", (json_int_t)v->version,
        "issuedAt", issuer_time_json(att_now_utc_s()), "trustDomain", v->issuer->trust_domain,
        "host", "id", v->host.id, "state", v->host.state, "entries", v->entries, "bundle",
        issuer_generations_now(v->issuer)->bundle, "policies", v->policies);
    json_t *crls = list_crls(v->issuer);
    if (json && crls) {
        json_object_set_new(json, "crls", crls);
    }
    json_t *roots = list_tls_roots(v->issuer);
    if (json && roots) {
        json_object_set_new(json, "issuerRoots", roots);
    }
    if (json && v->tokens) {
        json_object_set(json, "tokens", v->tokens);
    }
    if (json && json_array_size(v->federation) > 0) {
        json_object_set(json, "federation", v->federation);
    }
    att_autobuf payload = {0}, header = {0};
    if (!json) {
        return att_fail(err, ATT_E_NOMEM, "host view: no memory");
    }
    struct att_slice chain[1 + ISSUER_TLS_CHAIN_MAX] = {att_buf_slice(&endpoints->view_der)};
    for (size_t i = 0; i < endpoints->n_roots; i++) {
        chain[1 + i] = att_buf_slice(&endpoints->root_der[i]);
    }
    struct acme_signer signer = acme_signer_pkey(endpoints->view_key);
    enum att_rc rc = att_json_dump(json, false, &payload, err);
    if (!rc) {
        rc =
            acme_jws_protected_x5c("attestd-hostview", chain, 1 + endpoints->n_roots, &header, err);
    }
    return rc ? rc
              : acme_jws_sign(&signer, att_buf_slice(&header), att_buf_slice(&payload), ret_jws,
                              err);
}

enum att_rc issuer_view_answer(struct issuer *issuer, const char *host, const char *account,
                               int64_t if_newer_than, struct issuer_response *response,
                               struct att_err *err)
{
    issuer_autosettings *settings = issuer_settings_get(issuer);
    struct view v = {.issuer = issuer,
                     .settings = settings,
                     .host_id = host,
                     .account = account,
                     .entries = json_array(),
                     .policies = json_array(),
                     .federates = json_object()};
    enum att_rc rc = store_run(issuer->store, false, gather, &v, err);
    if (rc == ATT_E_RETRY) {
        rc = issuer_generations_refresh(issuer, err);
        rc = rc ? rc : store_run(issuer->store, false, gather, &v, err);
    }
    if (!rc) {
        snprintf(response->etag, sizeof response->etag, "\"%lld\"", (long long)v.version);
        if (v.version < if_newer_than) {
            /* The database is older than the host's view. It is answered, and the host refuses it
             * by name: silence would look like health. */
            att_log(ATT_ERROR, "view.older", ATT_S("host", host), ATT_N("version", v.version),
                    ATT_N("hostHas", if_newer_than));
        }
        if (v.version == if_newer_than) {
            response->status = 304;
        } else {
            response->status = 200;
            response->content_type = "application/jose+json";
            rc = sign_view(&v, &response->body, err);
        }
    }
    json_decref(v.labels);
    json_decref(v.entries);
    json_decref(v.policies);
    json_decref(v.tokens);
    json_decref(v.federates);
    json_decref(v.federation);
    store_record_done(&store_hosts, &v.host);
    return rc;
}

struct whose {
    struct issuer_call *call;
    struct store_host host;
    int64_t have;
};

/* A rotation waits for the hosts to have what was published: what a host says to have is in force
 * there. More than there is was of another time: the database is one of before. */
static enum att_rc note_seen(void *user, struct store_tx *tx, struct att_err *err)
{
    struct whose *w = user;
    int64_t version = 0;
    enum att_rc rc = read_version(&version, tx, err);
    return rc || w->have > version ? rc : store_host_saw_view(tx, w->host.id, w->have, err);
}

static void note_if_awaited(struct whose *w)
{
    struct issuer *issuer = w->call->issuer;
    int64_t awaited = issuer_generations_now(issuer)->awaited_view;
    struct att_err err = {0};
    if (awaited && w->have >= awaited && w->host.view_seen < awaited &&
        store_run_soft(issuer->store, note_seen, w, &err)) {
        att_log_err(ATT_WARN, "view.seen", &err);
    }
}

static enum att_rc find_host(void *user, struct store_tx *tx, struct att_err *err)
{
    struct whose *w = user;
    return issuer_host_by_account(tx, w->call->account.thumbprint, &w->host, err);
}

/* "\"17\"" or "17"; 0 when absent or not a number: then everything is newer. */
static int64_t etag_version(const char *text)
{
    if (!text) {
        return 0;
    }
    text += strspn(text, " \"W/");
    return strtoll(text, NULL, 10);
}

static int wait_of(const char *prefer)
{
    const char *at = prefer ? strstr(prefer, "wait=") : NULL;
    long s = at ? strtol(at + 5, NULL, 10) : 0;
    return s <= 0 ? 0 : s > ISSUER_WAIT_MAX_S ? ISSUER_WAIT_MAX_S : (int)s;
}

enum att_rc issuer_host_view(struct issuer_call *call, struct att_err *err)
{
    if (call->jws.payload.len) {
        return issuer_problem(call, err, ACME_P_MALFORMED, NULL,
                              "this resource is read with POST-as-GET: expected an empty payload");
    }
    struct whose w = {.call = call};
    struct att_err why = {0};
    int64_t have = w.have = etag_version(call->request->if_none_match);
    enum att_rc rc = store_run(call->issuer->store, false, find_host, &w, &why);
    if (!rc) {
        note_if_awaited(&w);
        rc = issuer_view_answer(call->issuer, w.host.id, call->account.thumbprint, have,
                                call->response, &why);
    }
    if (!rc && call->response->status == 304) {
        call->response->hold_s = wait_of(call->request->prefer);
        call->response->hold_version = have;
        snprintf(call->response->hold_host, sizeof call->response->hold_host, "%s", w.host.id);
        snprintf(call->response->hold_account, sizeof call->response->hold_account, "%s",
                 call->account.thumbprint);
    }
    store_record_done(&store_hosts, &w.host);
    if (rc == ATT_E_DENIED) {
        return issuer_problem(call, err, ACME_P_UNAUTHORIZED, why.reason, "%s", why.msg);
    }
    if (rc && err) {
        *err = why;
    }
    return rc;
}
