/* Settings, and opening the issuer. */
#include "provision/issuer/admin_auth.h"
#include "provision/issuer/alternates.h"
#include "provision/issuer/generations.h"
#include "provision/issuer/federation.h"
#include "provision/issuer/jwt.h"
#include "provision/issuer/keys_check.h"
#include "provision/issuer/ca.h"
#include "provision/issuer/revoke.h"
#include "provision/issuer/dns.h"
#include "provision/issuer/dns_ca.h"
#include "provision/issuer/http01.h"
#include "provision/issuer/log_tpm.h"

#include "attestd/base/io.h"
#include "certs/ekcert.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <unistd.h>

#define NONCE_WINDOW ((size_t)1 << 20)

/* ---- settings
 * ------------------------------------------------------------------------------------ */

static void settings_free(struct issuer_settings *s)
{
    if (!s) {
        return;
    }
    for (size_t i = 0; i < s->n_deny; i++) {
        free((void *)(uintptr_t)s->deny[i].versions);
    }
    free(s->deny);
    certs_ek_store_free(s->ek_roots);
    issuer_admin_auth_free(s->admin); /* it borrows from conf */
    conf_issuer_free(s->conf);
    free(s);
}

static enum att_rc make_deny(struct issuer_settings *s, struct att_err *err)
{
    const struct conf_ek *ek = s->conf->ek;
    s->deny = calloc(ek->n_deny ? ek->n_deny : 1, sizeof *s->deny);
    if (!s->deny) {
        return att_fail(err, ATT_E_NOMEM, "no memory for ek.deny");
    }
    for (size_t i = 0; i < ek->n_deny; i++) {
        const struct conf_deny *from = &ek->deny[i];
        const char **versions = calloc(from->n_versions ? from->n_versions : 1, sizeof *versions);
        if (!versions) {
            return att_fail(err, ATT_E_NOMEM, "no memory for ek.deny");
        }
        for (size_t v = 0; v < from->n_versions; v++) {
            versions[v] = from->versions[v];
        }
        s->deny[i] = (struct verify_deny){from->manufacturer, versions, from->n_versions};
        s->n_deny = i + 1;
        enum att_rc rc = verify_deny_check(&s->deny[i], err);
        if (rc) {
            att_err_prefix(err, "ek.deny[%zu]", i);
            return rc;
        }
    }
    return ATT_OK;
}

static void log_conf_errors(const char *path, const struct conf_errors *errors)
{
    for (size_t i = 0; i < errors->n; i++) {
        att_autobuf text = {0};
        conf_error_text(&errors->v[i], path, &text);
        att_log(ATT_ERROR, "config.error", ATT_S("error", att_buf_cstr(&text)));
    }
}

enum att_rc issuer_settings_load(const char *path, struct issuer_settings **ret_settings,
                                 struct att_err *err)
{
    struct conf_errors *errors = calloc(1, sizeof *errors);
    struct issuer_settings *s = calloc(1, sizeof *s);
    if (!errors || !s) {
        free(errors);
        free(s);
        return att_fail(err, ATT_E_NOMEM, "%s: no memory", path);
    }
    atomic_init(&s->refs, 1);
    enum att_rc rc = conf_issuer_load(path, &s->conf, errors, err);
    if (rc) {
        log_conf_errors(path, errors);
    }
    free(errors);
    if (!rc) {
        rc = make_deny(s, err);
    }
    if (!rc) {
        rc = certs_ek_store_load(s->conf->ek->roots_dir, &s->ek_roots, err);
    }
    if (!rc && !s->conf->enrolment->ek_inventory && certs_ek_store_roots(s->ek_roots) == 0) {
        rc = att_fail(err, ATT_E_INVAL, "ek.roots_dir %s: holds no root certificate",
                      s->conf->ek->roots_dir);
    }
    if (!rc) {
        rc = issuer_admin_auth_new(s->conf, &s->admin, err);
    }
    if (rc) {
        settings_free(s);
        return rc;
    }
    *ret_settings = s;
    return ATT_OK;
}

struct issuer_settings *issuer_settings_get(struct issuer *issuer)
{
    pthread_mutex_lock(&issuer->lock);
    struct issuer_settings *s = issuer->settings;
    atomic_fetch_add(&s->refs, 1);
    pthread_mutex_unlock(&issuer->lock);
    return s;
}

void issuer_settings_put(struct issuer_settings *settings)
{
    if (settings && atomic_fetch_sub(&settings->refs, 1) == 1) {
        settings_free(settings);
    }
}

void issuer_settings_cleanup(struct issuer_settings **settings)
{
    issuer_settings_put(*settings);
    *settings = NULL;
}

/* ---- opening
 * ----------------------------------------------------------------------------------------- */

static enum att_rc copy_fixed(struct issuer *issuer, const struct conf_issuer *conf,
                              struct att_err *err)
{
    const char *host = strstr(conf->url, "://");
    const char *path = host ? strchr(host + 3, '/') : NULL;
    issuer->base_url = strdup(conf->url);
    issuer->base_path = strdup(path ? path : "");
    issuer->trust_domain = strdup(conf->trust_domain);
    issuer->state_dir = strdup(conf->state_dir);
    issuer->run_dir = strdup(conf->run_dir);
    issuer->store_spec = strdup(conf->store);
    return issuer->base_url && issuer->base_path && issuer->trust_domain && issuer->state_dir &&
                   issuer->run_dir && issuer->store_spec
               ? ATT_OK
               : att_fail(err, ATT_E_NOMEM, "issuer: no memory");
}

/* A new store starts with view 1: 0 is what a host has that has none. */
static enum att_rc first_view(void *user, struct store_tx *tx, struct att_err *err)
{
    att_autobuf value = {0};
    (void)user;
    return store_meta_get(tx, "view_version", &value, NULL) == ATT_OK ? ATT_OK
                                                                      : issuer_view_bump(tx, err);
}

/* A profile that names a policy which is not there, or that this version does not take (an earlier
 * one may have), refuses everything: said at start. */
static enum att_rc check_policies(void *user, struct store_tx *tx, struct att_err *err)
{
    struct issuer *issuer = user;
    const struct conf_issuer *conf = issuer->settings->conf;
    for (unsigned i = 0; i <= conf->n_profiles; i++) {
        const char *boot = i < conf->n_profiles ? conf->profiles[i].boot : conf->enrolment->boot;
        issuer_autopolicy *policy = NULL;
        struct att_err why = {0};
        enum att_rc rc = issuer_policy_get(issuer, tx, boot, &policy, &why);
        if (rc == ATT_E_DENIED) {
            att_log(ATT_ERROR, "policy.unusable", ATT_S("policy", boot),
                    ATT_S("profile", i < conf->n_profiles ? conf->profiles[i].name : "enrolment"),
                    ATT_S("detail", why.msg));
            continue;
        }
        if (rc) {
            *err = why;
            return rc;
        }
        if (!policy && strcmp(boot, "none") != 0) {
            att_log(ATT_WARN, "policy.missing", ATT_S("policy", boot),
                    ATT_S("profile", i < conf->n_profiles ? conf->profiles[i].name : "enrolment"));
        }
    }
    return ATT_OK;
}

/* One process a state folder: another would renew this one's keys, and with SQLite complete or
 * abandon its signatures. Issuers that share a PostgreSQL have a folder each. */
static enum att_rc take_lock(struct issuer *issuer, struct att_err *err)
{
    issuer_autofree *path = NULL;
    if (asprintf(&path, "%s/lock", issuer->state_dir) < 0) {
        path = NULL;
        return att_fail(err, ATT_E_NOMEM, "issuer: no memory");
    }
    issuer->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (issuer->lock_fd < 0 && errno == ENOENT) {
        return att_fail(err, ATT_E_NOTFOUND,
                        "state_dir %s: is not there (made by "
                        "`attest-issuerd init`)",
                        issuer->state_dir);
    }
    if (issuer->lock_fd < 0) {
        return att_fail_errno(err, ATT_E_IO, "%s", path);
    }
    if (flock(issuer->lock_fd, LOCK_EX | LOCK_NB) == 0) {
        return ATT_OK;
    }
    if (errno != EWOULDBLOCK) {
        return att_fail_errno(err, ATT_E_IO, "lock %s", path);
    }
    enum att_rc rc = att_fail(err, ATT_E_EXISTS, "another attest-issuerd uses this state_dir: %s",
                              issuer->state_dir);
    att_err_reason(err, "stateDirInUse");
    return rc;
}

static enum att_rc open_store(struct issuer *issuer, struct att_err *err)
{
    const struct conf_issuer *conf = issuer->settings->conf;
    const struct store_place place = {conf->store, conf->store_password_file};
    enum att_rc rc = att_io_mkdirs(issuer->state_dir, 0700, err);
    if (!rc) {
        rc = store_open_place(&place, &issuer->store, err);
    }
    if (!rc) { /* before anything is written to a database that may be an old one */
        rc = issuer_log_start(issuer, err);
    }
    if (!rc) {
        rc = issuer_log_tpm_start(issuer, err);
    }
    if (!rc) {
        rc = issuer_audit_start(issuer, err);
    }
    if (!rc) {
        rc = issuer_log_tpm_say(issuer, err);
    }
    if (!rc && store_shared(issuer->store)) {
        rc = store_run(issuer->store, true, issuer_first_check, issuer, err);
    }
    if (!rc) {
        rc = store_run(issuer->store, true, first_view, NULL, err);
    }
    if (!rc) {
        rc = issuer_policies_import(issuer, issuer->settings->conf->policies_dir, err);
    }
    if (!rc) {
        rc = store_run(issuer->store, false, check_policies, issuer, err);
    }
    if (!rc) {
        rc = issuer_generations_refresh(issuer, err);
    }
    if (!rc) {
        issuer_view_wake(issuer);
    }
    return rc;
}

/* What cannot be completed now is tried again while we serve. */
static enum att_rc first_recovery(struct issuer *issuer, struct att_err *err)
{
    size_t left = 0;
    struct att_err why = {0};
    enum att_rc rc = issuer_intent_recover(issuer, store_shared(issuer->store), &left, &why);
    if (rc) {
        if (err) {
            *err = why;
        }
        return rc;
    }
    if (left) {
        att_log_err(ATT_WARN, "intent.left", &why);
        atomic_store(&issuer->intents_left, 1);
    }
    return ATT_OK;
}

/* With settings, and nothing that could be shared with another process. */
static enum att_rc new_issuer(const char *config_path, struct issuer **ret_issuer,
                              struct att_err *err)
{
    struct issuer *issuer = calloc(1, sizeof *issuer);
    if (!issuer) {
        return att_fail(err, ATT_E_NOMEM, "issuer: no memory");
    }
    pthread_mutex_init(&issuer->lock, NULL);
    pthread_mutex_init(&issuer->claim_lock, NULL);
    pthread_cond_init(&issuer->claim_gone, NULL);
    issuer->clock = att_now_utc_s;
    issuer->started_at = att_now_utc_s();
    issuer->lock_fd = -1;
    issuer->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    issuer->config_path = strdup(config_path);
    enum att_rc rc = issuer->wake_fd >= 0 && issuer->config_path
                         ? ATT_OK
                         : att_fail_errno(err, ATT_E_IO, "issuer: eventfd");
    if (!rc) {
        rc = issuer_settings_load(config_path, &issuer->settings, err);
    }
    if (!rc) {
        rc = copy_fixed(issuer, issuer->settings->conf, err);
    }
    if (rc) {
        issuer_free(issuer);
        return rc;
    }
    *ret_issuer = issuer;
    return ATT_OK;
}

static enum att_rc load_dns(struct issuer *issuer, bool create, struct att_err *err)
{
    const struct conf_issuer *conf = issuer->settings->conf;
    enum att_rc rc = issuer_alternate_load(conf->state_dir, "workload", issuer->ca->workload_ca,
                                           &issuer->workload_alternate, err);
    if (!rc && (conf->dns || conf->devices)) {
        rc = issuer_dns_ca_load(conf, issuer->ca->hsm, create, &issuer->dns_ca, err);
    }
    if (!rc && issuer->dns_ca) {
        issuer->ca->dns_root = issuer->dns_ca->root;
        rc = issuer_alternate_load(conf->state_dir, "dns", issuer->dns_ca->ca,
                                   &issuer->dns_alternate, err);
    }
    return rc;
}

/* Any number that the other issuers of this store do not have; what makes their nonces unknown here
 * is the MAC's key. */
static enum att_rc new_nonces(struct issuer *issuer, struct att_err *err)
{
    uint32_t id = 0;
    enum att_rc rc = att_random((uint8_t *)&id, sizeof id, err);
    return rc ? rc
              : acme_nonces_new(id, (uint64_t)att_now_utc_ms(), NONCE_WINDOW, &issuer->nonces, err);
}

/* An HSM that is not there yet keeps nobody from serving what needs no signature; said once. */
static void tell_keys(const struct issuer_ca *ca)
{
    struct att_err why = {0};
    if (ca->hsm && issuer_ca_try(ca, &why)) {
        att_log_err(ATT_WARN, "ca.keyAway", &why);
    }
}

/* The lock first: whoever has not got it must not even renew a key of the one who has. */
static enum att_rc open_all(struct issuer *issuer, struct att_err *err)
{
    enum att_rc rc = take_lock(issuer, err);
    if (!rc) {
        rc = issuer_ca_load(issuer->settings->conf, true, &issuer->ca, err);
    }
    if (!rc) {
        tell_keys(issuer->ca);
        rc = load_dns(issuer, true, err);
    }
    if (!rc) {
        issuer->limit = issuer_limit_new();
        issuer->memo = verify_memo_new(ISSUER_MEMO_PLACES);
        issuer->keys = acme_keys_new();
        issuer->cert_keys = acme_keys_new();
        issuer->policies = issuer_policies_new();
        issuer->allowlists = issuer_allowlists_new();
        issuer->crls = issuer_crls_new();
        issuer->entries = issuer_entries_new();
        rc = issuer->crls && issuer->limit && issuer->memo && issuer->keys && issuer->cert_keys &&
                     issuer->policies && issuer->allowlists && issuer->entries
                 ? ATT_OK
                 : att_fail(err, ATT_E_NOMEM, "issuer: no memory");
    }
    if (!rc) {
        rc = new_nonces(issuer, err);
    }
    if (!rc) {
        rc = open_store(issuer, err);
    }
    if (!rc) {
        rc = first_recovery(issuer, err);
    }
    if (!rc) {
        rc = issuer_jwt_start(issuer, err);
    }
    if (!rc) {
        rc = issuer_federation_sync(issuer, err);
    }
    return rc || !issuer->settings->conf->dns ? rc : issuer_dns_start(issuer, err);
}

enum att_rc issuer_open(const char *config_path, struct issuer **ret_issuer, struct att_err *err)
{
    struct issuer *issuer = NULL;
    enum att_rc rc = new_issuer(config_path, &issuer, err);
    if (!rc) {
        rc = open_all(issuer, err);
    }
    if (rc) {
        issuer_free(issuer);
        return rc;
    }
    *ret_issuer = issuer;
    return ATT_OK;
}

enum att_rc issuer_check(const char *config_path, struct att_err *err)
{
    struct issuer *issuer = NULL;
    enum att_rc rc = new_issuer(config_path, &issuer, err);
    if (!rc) {
        rc = issuer_ca_load(issuer->settings->conf, false, &issuer->ca, err);
    }
    if (!rc) {
        rc = issuer_ca_try(issuer->ca, err);
    }
    if (!rc) {
        rc = load_dns(issuer, false, err);
    }
    if (!rc) {
        rc = issuer_policies_check(issuer->settings->conf->policies_dir, err);
    }
    if (!rc) {
        const struct conf_issuer *conf = issuer->settings->conf;
        rc = store_check_read(&(struct store_place){conf->store, conf->store_password_file},
                              issuer_keys_check, issuer, err);
        rc = rc ? rc : issuer_log_tpm_check(conf, err);
    }
    issuer_free(issuer);
    return rc;
}

enum att_rc issuer_new(const char *config_path, struct issuer **ret_issuer, struct att_err *err)
{
    return issuer_open(config_path, ret_issuer, err);
}

void issuer_free(struct issuer *issuer)
{
    if (!issuer) {
        return;
    }
    issuer_http01_free(issuer->http01); /* it writes to the store */
    if (issuer->ca) {
        issuer_generations_wait(issuer->ca); /* so does this */
    }
    free(issuer->dns_seen);
    audit_log_free(issuer->log);
    issuer_log_tpm_free(issuer->log_tpm);
    issuer_jwt_free(issuer);
    store_free(issuer->store);
    issuer_dns_ca_free(issuer->dns_ca);
    free(issuer->workload_alternate);
    free(issuer->dns_alternate);
    issuer_ca_free(issuer->ca);
    acme_nonces_free(issuer->nonces);
    acme_keys_free(issuer->keys);
    acme_keys_free(issuer->cert_keys);
    issuer_policies_free(issuer->policies);
    issuer_allowlists_free(issuer->allowlists);
    issuer_crls_free(issuer->crls);
    issuer_entries_free(issuer->entries);
    issuer_limit_free(issuer->limit);
    verify_memo_free(issuer->memo);
    issuer_settings_put(issuer->settings);
    if (issuer->wake_fd >= 0) {
        close(issuer->wake_fd);
    }
    att_close(&issuer->lock_fd); /* after the store: the folder may be another's now */
    pthread_mutex_destroy(&issuer->lock);
    pthread_cond_destroy(&issuer->claim_gone);
    pthread_mutex_destroy(&issuer->claim_lock);
    free(issuer->config_path);
    free(issuer->base_url);
    free(issuer->base_path);
    free(issuer->trust_domain);
    free(issuer->state_dir);
    free(issuer->run_dir);
    free(issuer->store_spec);
    free(issuer);
}

/* DNS names were configured later: what is missing is added, nothing is replaced. No log's key:
 * this may be a copy of another issuer's ca/. */
static enum att_rc init_more(const struct conf_issuer *conf, struct issuer_hsm *hsm,
                             struct att_err *err)
{
    struct att_err why = {0};
    bool names = conf->dns || conf->devices;
    enum att_rc rc = names ? issuer_dns_ca_create(conf, hsm, &why) : ATT_E_EXISTS;
    if (rc != ATT_E_EXISTS && err) {
        *err = why;
    }
    return rc;
}

/* What an issuer needs beside the authorities. */
static enum att_rc init_rest(const struct conf_issuer *conf, struct issuer_hsm *hsm,
                             struct att_err *err)
{
    issuer_autofree *origin = issuer_log_origin(conf->url, att_now_utc_s());
    enum att_rc rc = audit_log_make_key(conf->state_dir, origin ? origin : "", err);
    return rc || !(conf->dns || conf->devices) ? rc : issuer_dns_ca_create(conf, hsm, err);
}

/* ret_complete NULL: the roots are made here. */
static enum att_rc init_with(const char *config_path, bool *ret_complete, struct att_err *err)
{
    issuer_autosettings *settings = NULL;
    struct issuer_hsm *hsm = NULL;
    enum att_rc rc = issuer_settings_load(config_path, &settings, err);
    if (!rc) {
        rc = issuer_hsm_new(settings->conf, &hsm, err);
    }
    if (rc) {
        return rc;
    }
    const struct conf_issuer *conf = settings->conf;
    rc = ret_complete ? issuer_ca_offline(conf, hsm, ret_complete, err)
                      : issuer_ca_create(conf, hsm, err);
    if (rc == ATT_E_EXISTS && !ret_complete) {
        rc = init_more(conf, hsm, err);
    } else if (!rc && (!ret_complete || *ret_complete)) {
        rc = init_rest(conf, hsm, err);
    }
    issuer_hsm_put(hsm);
    return rc;
}

enum att_rc issuer_init(const char *config_path, struct att_err *err)
{
    return init_with(config_path, NULL, err);
}

enum att_rc issuer_init_offline(const char *config_path, bool *ret_complete, struct att_err *err)
{
    return init_with(config_path, ret_complete, err);
}

void issuer_poke(struct issuer *issuer)
{
    int saved = errno;
    uint64_t one = 1;
    ssize_t n = write(issuer->wake_fd, &one, sizeof one);
    (void)n; /* full means it is awake already */
    errno = saved;
}

void issuer_stop(struct issuer *issuer)
{
    atomic_store(&issuer->stop, 1);
    issuer_poke(issuer);
}

void issuer_reload(struct issuer *issuer)
{
    atomic_store(&issuer->reload, 1);
    issuer_poke(issuer);
}
