/* The main loop: sockets up, ready, reload, housekeeping, down. */
#include "provision/issuer/admin_https.h"
#include "provision/issuer/ca.h"
#include "provision/issuer/dns.h"
#include "provision/issuer/generations.h"
#include "provision/issuer/federation.h"
#include "provision/issuer/jwt.h"
#include "provision/issuer/metrics.h"
#include "provision/issuer/revoke.h"
#include "provision/issuer/server.h"
#include "provision/issuer/sweep.h"

#include "attestd/base/io.h"
#include "attestd/proc/notify.h"

#include <openssl/crypto.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HEAD_PERIOD_MS 1000

static void housekeeping(struct issuer *issuer, struct issuer_sweep *sweep)
{
    struct att_err err = {0};
    if (issuer_audit_save_head(issuer, &err)) {
        att_log_err(ATT_ERROR, "audit.head", &err);
    }
    issuer_log_tick(issuer, false);
    issuer_sweep_tick(issuer, sweep);
}

static const char *admin_listen(const struct conf_issuer *conf)
{
    return conf->admin && conf->admin->listen ? conf->admin->listen : "none";
}

/* A setting that was read at the start and holds until a restart. */
struct fixed {
    const char *name;
    const char *old, *fresh;
};

static const char *crl_listen(const struct conf_issuer *conf)
{
    return conf->crl && conf->crl->listen ? conf->crl->listen : "none";
}

static const char *jwt_text(const char *text)
{
    return text ? text : "none";
}

static const char *log_tpm(const struct conf_issuer *conf)
{
    return conf->log_tpm ? conf->log_tpm->dir : "none";
}

/* ATT_E_INVAL names each that another configuration wants otherwise. */
static enum att_rc check_fixed(const struct conf_issuer *old, const struct conf_issuer *fresh,
                               struct att_err *err)
{
    char threads[2][16];
    snprintf(threads[0], sizeof threads[0], "%u", old->threads);
    snprintf(threads[1], sizeof threads[1], "%u", fresh->threads);
    const struct fixed all[] = {
        {"url", old->url, fresh->url},
        {"trust_domain", old->trust_domain, fresh->trust_domain},
        {"state_dir", old->state_dir, fresh->state_dir},
        {"run_dir", old->run_dir, fresh->run_dir},
        {"store", "as it was", strcmp(old->store, fresh->store) == 0 ? "as it was" : "other"},
        {"listen", old->listen, fresh->listen},
        {"threads", threads[0], threads[1]},
        {"crl.listen", crl_listen(old), crl_listen(fresh)},
        {"admin.listen", admin_listen(old), admin_listen(fresh)},
        {"metrics_listen", old->metrics_listen, fresh->metrics_listen},
        {"control_group", old->control_group ? old->control_group : "none",
         fresh->control_group ? fresh->control_group : "none"},
        {"log", old->log, fresh->log},
        {"jwt.issuer", jwt_text(old->jwt ? old->jwt->issuer : NULL),
         jwt_text(fresh->jwt ? fresh->jwt->issuer : NULL)},
        {"jwt.listen", jwt_text(old->jwt ? old->jwt->listen : NULL),
         jwt_text(fresh->jwt ? fresh->jwt->listen : NULL)},
        {"jwt.cert_file", jwt_text(old->jwt ? old->jwt->cert_file : NULL),
         jwt_text(fresh->jwt ? fresh->jwt->cert_file : NULL)},
        {"jwt.key_file", jwt_text(old->jwt ? old->jwt->key_file : NULL),
         jwt_text(fresh->jwt ? fresh->jwt->key_file : NULL)},
        {"dns", "not there", fresh->dns && !old->dns ? "there" : "not there"},
        {"log_tpm", log_tpm(old), log_tpm(fresh)},
        {"devices", "not there", fresh->devices && !old->devices ? "there" : "not there"}};
    att_autobuf text = ATT_BUF_INIT(300);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (strcmp(all[i].old, all[i].fresh) != 0) {
            att_buf_printf(&text, "%s%s (%.60s, now %.60s)", text.len ? ", " : "", all[i].name,
                           all[i].old, all[i].fresh);
        }
    }
    if (!text.len && !text.failed) {
        return ATT_OK;
    }
    const char *what = att_buf_cstr(&text);
    enum att_rc rc = att_fail(err, ATT_E_INVAL,
                              "a restart is needed to change %s; nothing of the file is in force",
                              what ? what : "several settings");
    att_err_reason(err, "needsRestart");
    return rc;
}

#define STATUS_ROOM 240

static void status_line(struct issuer *issuer, char ret[STATUS_ROOM])
{
    issuer_autoendpoints *endpoints = issuer_endpoints_get(issuer->ca);
    struct certs_cert_info info = {0};
    (void)!certs_cert_info(endpoints->tls, &info, NULL);
    att_autojson *end = issuer_time_json(info.not_after);
    const char *text = json_string_value(end);
    snprintf(ret, STATUS_ROOM, "serving %.120s, TLS certificate until %.30s", issuer->base_url,
             text ? text : "?");
}

static void tell_status(struct issuer *issuer)
{
    char status[STATUS_ROOM];
    if (issuer->status_changed) {
        issuer->status_changed = false;
        status_line(issuer, status);
        proc_notify_status(status);
    }
}

static void reload(struct issuer *issuer)
{
    struct att_err err = {0};
    struct issuer_settings *fresh = NULL;
    proc_notify_reloading();
    enum att_rc rc = issuer_settings_load(issuer->config_path, &fresh, &err);
    if (!rc) {
        issuer_autosettings *old = issuer_settings_get(issuer);
        rc = check_fixed(old->conf, fresh->conf, &err);
    }
    if (!rc) {
        rc = issuer_policies_import(issuer, fresh->conf->policies_dir, &err);
    }
    if (rc) {
        issuer_settings_put(fresh);
        att_log_err(ATT_ERROR, "reload.failed", &err);
    } else {
        pthread_mutex_lock(&issuer->lock);
        struct issuer_settings *old = issuer->settings;
        issuer->settings = fresh;
        pthread_mutex_unlock(&issuer->lock);
        issuer_settings_put(old);
        issuer_admin_auth_start(fresh->admin);
        att_log_level(fresh->conf->log_least);
        att_log(ATT_INFO, "reload.done", ATT_S("config", issuer->config_path));
        struct att_err why = {0};
        if (issuer_federation_sync(issuer, &why)) {
            att_log_err(ATT_ERROR, "federation.sync", &why);
        }
        issuer_ca_tick(issuer, true);
    }
    char status[STATUS_ROOM];
    status_line(issuer, status);
    proc_notify_ready(status);
}

static void loop(struct issuer *issuer)
{
    struct issuer_sweep sweep = {0};
    int64_t watchdog_ms = proc_notify_watchdog_period_ms();
    int period =
        watchdog_ms > 0 && watchdog_ms < HEAD_PERIOD_MS ? (int)watchdog_ms : HEAD_PERIOD_MS;
    while (!atomic_load(&issuer->stop)) {
        struct pollfd fd = {.fd = issuer->wake_fd, .events = POLLIN};
        uint64_t n;
        if (poll(&fd, 1, period) > 0 && read(issuer->wake_fd, &n, sizeof n) < 0) {
            continue;
        }
        if (atomic_exchange(&issuer->reload, 0)) {
            reload(issuer);
        }
        issuer_generations_tick(issuer);
        issuer_ca_tick(issuer, false);
        if (store_shared(issuer->store)) {
            issuer_view_wake(issuer); /* for what another issuer changed */
        }
        issuer_health_look(issuer);
        tell_status(issuer);
        issuer_intent_tick(issuer);
        issuer_dns_tick(issuer);
        issuer_jwt_tick(issuer);
        housekeeping(issuer, &sweep);
        proc_notify_watchdog();
    }
}

static enum att_rc start_admin(struct issuer *issuer, struct att_ctl_server **ret_server,
                               struct att_err *err)
{
    issuer_autosettings *settings = issuer_settings_get(issuer);
    issuer_autofree *path = NULL;
    if (asprintf(&path, "%s/admin.sock", issuer->run_dir) < 0) {
        path = NULL;
        return att_fail(err, ATT_E_NOMEM, "no memory");
    }
    enum att_rc rc = att_io_mkdirs(issuer->run_dir, 0755, err);
    return rc ? rc
              : att_ctl_server_new(path, settings->conf->control_group, issuer_admin, issuer,
                                   ret_server, err);
}

static void tell_start(struct issuer *issuer, const struct issuer_server *server)
{
    issuer_autosettings *settings = issuer_settings_get(issuer);
    char status[STATUS_ROOM];
    att_log(ATT_INFO, "issuer.ready", ATT_S("version", ATT_VERSION),
            ATT_S("listen", settings->conf->listen), ATT_N("port", issuer_server_port(server)),
            ATT_S("url", issuer->base_url), ATT_S("openssl", OpenSSL_version(OPENSSL_VERSION)),
            ATT_S("tls_groups", certs_tls_groups()),
            ATT_S("post_quantum", certs_tls_has_pq() ? "X25519MLKEM768" : "not in this OpenSSL"));
    for (unsigned i = 0; i < settings->conf->n_profiles; i++) {
        if (settings->conf->profiles[i].boot_none) {
            att_log(ATT_WARN, "profile.boot_none",
                    ATT_S("profile", settings->conf->profiles[i].name));
        }
    }
    status_line(issuer, status);
    proc_notify_ready(status);
}

/* Not ready from the first instant, so that a balancer that asks sends nobody here any more; then
 * the listener closes, and what was begun ends. */
static void end_serving(struct issuer *issuer, struct issuer_server *server)
{
    issuer_autosettings *settings = issuer_settings_get(issuer);
    int64_t from = att_boottime_ms(), notice_ms = settings->conf->drain_notice_s * 1000;
    proc_notify_stopping("stopping");
    issuer_health_drain(issuer);
    att_log(ATT_INFO, "issuer.stopping", ATT_N("requests", issuer->counters.requests),
            ATT_N("issued", issuer->counters.issued), ATT_N("noticeMs", notice_ms));
    while (att_boottime_ms() - from < notice_ms) {
        (void)poll(NULL, 0, 100);
        proc_notify_watchdog();
    }
    issuer_server_drain(server, settings->conf->drain_timeout_s * 1000);
    att_log(ATT_INFO, "issuer.drained", ATT_N("ms", att_boottime_ms() - from),
            ATT_N("cut", issuer->counters.connections));
}

enum att_rc issuer_serve(struct issuer *issuer, struct att_err *err)
{
    struct issuer_server *server = NULL;
    struct att_ctl_server *admin = NULL;
    struct issuer_crl_server *crl = NULL;
    struct issuer_admin_server *https = NULL;
    struct issuer_metrics_server *metrics = NULL;
    struct issuer_jwt_server *jwt = NULL;
    enum att_rc rc = issuer_server_new(issuer, &server, err);
    if (!rc) {
        pthread_mutex_lock(&issuer->lock);
        issuer->server = server;
        pthread_mutex_unlock(&issuer->lock);
        rc = issuer_crl_server_new(issuer, &crl, err);
    }
    if (!rc) {
        rc = issuer_metrics_server_new(issuer, &metrics, err);
    }
    if (!rc) {
        rc = issuer_jwt_server_new(issuer, &jwt, err);
    }
    if (!rc) {
        rc = issuer_federation_start(issuer, err);
    }
    if (!rc) {
        rc = start_admin(issuer, &admin, err);
    }
    if (!rc) {
        rc = issuer_admin_server_new(issuer, &https, err);
    }
    if (!rc) {
        issuer_health_look(issuer);
        tell_start(issuer, server);
        loop(issuer);
        end_serving(issuer, server);
    }
    issuer_federation_stop(issuer);
    att_ctl_server_free(admin);
    issuer_admin_server_free(https);
    issuer_crl_server_free(crl);
    issuer_jwt_server_free(jwt);
    issuer_metrics_server_free(metrics);
    pthread_mutex_lock(&issuer->lock);
    issuer->server = NULL;
    pthread_mutex_unlock(&issuer->lock);
    issuer_server_free(server);
    struct att_err head = {0};
    if (issuer_audit_save_head(issuer, &head)) {
        att_log_err(ATT_ERROR, "audit.head", &head);
    }
    issuer_log_tick(issuer, true);
    return rc;
}
