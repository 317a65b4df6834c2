/* /live, /ready and /metrics: a listener of its own, so that a flood at the ACME address hides
 * nothing, and strangers learn nothing. What is asked of the store is asked by the main loop, once
 * a turn: an answer here waits for nobody. */
#include "provision/issuer/metrics.h"

#include "attestd/web/plain.h"
#include "provision/issuer/ca.h"
#include "provision/issuer/jwt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STALLED_MS 15000 /* without a turn: what was seen last is not known to hold */
#define DEAD_MS    60000
#define TEXT_MAX   ((size_t)1 << 20)

/* ---- looking ----------------------------------------------------------------------------------
 */

static enum att_rc ask_store(void *user, struct store_tx *tx, struct att_err *err)
{
    struct store_audit head;
    (void)user;
    return store_audit_head(tx, &head, err);
}

static bool store_answers(struct issuer *issuer, struct att_err *err)
{
    return store_run(issuer->store, false, ask_store, NULL, err) == ATT_OK;
}

static bool authority_usable(struct issuer *issuer, const char *kind, int64_t now,
                             struct att_err *err)
{
    struct issuer_authority authority = issuer_authority_of(issuer, kind);
    if (!authority.ca || (!authority.key && !authority.lacks[0])) {
        (void)!att_fail(err, ATT_E_GONE, "there is no authority for %s", kind);
        return false;
    }
    if (authority.lacks[0]) {
        (void)!att_fail(err, ATT_E_GONE, "the key of the authority for %s: %s", kind,
                        authority.lacks);
        return false;
    }
    if (authority.end <= now) {
        (void)!att_fail(err, ATT_E_DENIED, "the authority for %s has ended", kind);
        return false;
    }
    return true;
}

/* Each authority that signs here can still do so, and TLS has a certificate in date, under the root
 * that is active. */
static bool ca_usable(struct issuer *issuer, struct att_err *err)
{
    int64_t now = issuer->clock();
    if (!authority_usable(issuer, "agent", now, err) || !authority_usable(issuer, "ak", now, err) ||
        (issuer->dns_ca && !authority_usable(issuer, "dns", now, err))) {
        return false;
    }
    if (atomic_load(&issuer->ca->tls_behind)) {
        (void)!att_fail(err, ATT_E_GONE, "TLS is not under the root that is active");
        return false;
    }
    issuer_autoendpoints *endpoints = issuer_endpoints_get(issuer->ca);
    struct certs_cert_info tls = {0};
    if (certs_cert_info(endpoints->tls, &tls, err) != ATT_OK || tls.not_after <= now) {
        (void)!att_fail(err, ATT_E_DENIED, "the TLS certificate has ended");
        return false;
    }
    return true;
}

static const char *const words[] = {
    [ISSUER_HEALTH_STARTING] = "starting", [ISSUER_HEALTH_OK] = NULL,
    [ISSUER_HEALTH_STORE] = "store",       [ISSUER_HEALTH_CA] = "ca",
    [ISSUER_HEALTH_LOG] = "auditLog",      [ISSUER_HEALTH_TOKENS] = "jwt"};

void issuer_health_look(struct issuer *issuer)
{
    struct att_err err = {0};
    enum issuer_health now = ISSUER_HEALTH_OK;
    if (!store_answers(issuer, &err)) {
        now = ISSUER_HEALTH_STORE;
    } else if (!ca_usable(issuer, &err)) {
        now = ISSUER_HEALTH_CA;
    } else if (atomic_load(&issuer->log_broken)) {
        now = ISSUER_HEALTH_LOG;
        (void)!att_fail(&err, ATT_E_AUTH, "the audit log does not continue what was published");
    } else if (issuer_jwt_elsewhere(issuer)) {
        now = ISSUER_HEALTH_TOKENS;
        (void)!att_fail(&err, ATT_E_GONE,
                        "the key that signs tokens is another issuer's and cannot be used here");
    }
    enum issuer_health before = (enum issuer_health)atomic_exchange(&issuer->health, (int)now);
    atomic_store(&issuer->turned_ms, att_boottime_ms());
    if (now != before && now != ISSUER_HEALTH_OK) {
        att_log(ATT_ERROR, "issuer.notReady", ATT_S("reason", words[now]),
                ATT_S("detail", err.msg));
    } else if (now != before) {
        att_log(ATT_INFO, "issuer.readyAgain", ATT_S("after", words[before]));
    }
}

void issuer_health_drain(struct issuer *issuer)
{
    atomic_store(&issuer->draining, true);
}

static bool turned_within(struct issuer *issuer, int64_t ms)
{
    int64_t at = atomic_load(&issuer->turned_ms);
    return at && att_boottime_ms() - at < ms;
}

const char *issuer_health_why(struct issuer *issuer)
{
    if (atomic_load(&issuer->draining)) {
        return "draining";
    }
    enum issuer_health health = (enum issuer_health)atomic_load(&issuer->health);
    if (health == ISSUER_HEALTH_STARTING) {
        return words[health];
    }
    return turned_within(issuer, STALLED_MS) ? words[health] : "stalled";
}

bool issuer_health_live(struct issuer *issuer)
{
    return atomic_load(&issuer->draining) || turned_within(issuer, DEAD_MS);
}

/* ---- the listener -----------------------------------------------------------------------------
 */

struct issuer_metrics_server {
    struct web_plain *web;
};

static void say(struct web_answer *answer, bool good, const char *text)
{
    answer->status = good ? "200 OK" : "503 Service Unavailable";
    snprintf(answer->headers, sizeof answer->headers,
             "Content-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\n");
    att_buf_printf(&answer->body, "%s\n", text);
}

static void answer(void *user, const struct web_request *request, struct web_answer *ret_answer)
{
    struct issuer *issuer = user;
    const char *type;
    if (strcmp(request->path, "/live") == 0) {
        bool live = issuer_health_live(issuer);
        say(ret_answer, live, live ? "live" : "stalled");
    } else if (strcmp(request->path, "/ready") == 0) {
        const char *why = issuer_health_why(issuer);
        say(ret_answer, !why, why ? why : "ready");
    } else if (strcmp(request->path, "/metrics") == 0) {
        enum att_metrics_form form = att_metrics_accept(request->accept, &type);
        ret_answer->body = ATT_BUF_INIT(TEXT_MAX);
        ret_answer->status = "200 OK";
        snprintf(ret_answer->headers, sizeof ret_answer->headers, "Content-Type: %s\r\n", type);
        (void)!issuer_metrics_write(issuer, form, &ret_answer->body, NULL);
    }
}

enum att_rc issuer_metrics_server_new(struct issuer *issuer,
                                      struct issuer_metrics_server **ret_server,
                                      struct att_err *err)
{
    issuer_autosettings *settings = issuer_settings_get(issuer);
    const struct conf_listener *at = &settings->conf->metrics_at;
    *ret_server = NULL;
    if (at->none) {
        return ATT_OK;
    }
    struct issuer_metrics_server *server = calloc(1, sizeof *server);
    if (!server) {
        return att_fail(err, ATT_E_NOMEM, "metrics_listen: no memory");
    }
    const struct web_opts opts = {.what = "metrics_listen",
                                  .host = at->host,
                                  .port = at->port,
                                  .unix_path = at->path[0] ? at->path : NULL,
                                  .handler = answer,
                                  .user = issuer};
    enum att_rc rc = web_plain_new(&opts, &server->web, err);
    if (rc) {
        free(server);
        return rc;
    }
    *ret_server = server;
    att_log(ATT_INFO, "metrics.listening", ATT_S("listen", settings->conf->metrics_listen),
            ATT_N("port", web_plain_port(server->web)));
    return ATT_OK;
}

void issuer_metrics_server_free(struct issuer_metrics_server *server)
{
    if (server) {
        web_plain_free(server->web);
        free(server);
    }
}

uint16_t issuer_metrics_server_port(const struct issuer_metrics_server *server)
{
    return server ? web_plain_port(server->web) : 0;
}
