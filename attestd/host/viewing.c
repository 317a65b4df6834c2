#include "attestd/host/trust.h"
#include "attestd/base/io.h"
#include "certs/bundle.h"

#include <stdio.h>
#include <string.h>

/* The roots that a view's signer must chain to: those that TLS to the issuer is checked with. */
static enum att_rc anchor_of(struct host *host, struct host_issuer *issuer,
                             STACK_OF(X509) * *ret_roots, char ret_id[65],
                             struct host_view_anchor *ret_anchor, struct att_err *err)
{
    enum att_rc rc = host_issuer_get(host, issuer, err);
    if (rc != ATT_OK) {
        return rc;
    }
    {
        HOST_LOCKED(host);
        memcpy(ret_id, host->rec.host_id, sizeof(host->rec.host_id));
    }
    if (issuer->has_pin) {
        *ret_anchor =
            (struct host_view_anchor){.root_sha256 = issuer->ca_sha256, .host_id = ret_id};
        return ATT_OK;
    }
    rc = certs_bundle_load(issuer->ca_file, ret_roots, err);
    if (rc == ATT_OK) {
        *ret_anchor = (struct host_view_anchor){.roots = *ret_roots, .host_id = ret_id};
    }
    return rc;
}

static void report_bad(const struct host_selectors *selectors)
{
    for (size_t i = 0; i < selectors->n; i++) {
        if (selectors->bad[i].rc != ATT_OK) {
            att_log(ATT_ERROR, "workload.unusable", ATT_S("agent", selectors->rules[i].agent),
                    ATT_S("message", selectors->bad[i].msg),
                    ATT_S("effect", "no caller will be this agent"));
        }
    }
}

/* Puts a judged view in force. */
static enum att_rc apply(struct host *host, struct host_view *view, struct att_err *err)
{
    ATT_CLEANUP(host_selectors_unref) struct host_selectors *selectors = NULL;
    att_autojson *tokens = host_tokens_view(view->json);
    enum att_rc rc =
        !tokens ? att_fail(err, ATT_E_NOMEM, "no memory for a view")
                : host_selectors_new(json_object_get(view->json, "entries"), &selectors, err);
    if (rc == ATT_OK) {
        rc = host_agents_sync(host, view, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    report_bad(selectors);
    HOST_LOCKED(host);
    struct host_selectors *before = host->selectors;
    host->selectors = selectors;
    json_t *tokens_before = host->token_view;
    host->token_view = tokens;
    tokens = tokens_before;
    selectors = before; /* let go at the end */
    STACK_OF(X509) *old = host->bundle;
    host->bundle = view->bundle;
    view->bundle = old; /* freed with the view */
    struct host_federation *federation = host->federation;
    host->federation = view->federation;
    view->federation = federation; /* likewise */
    host->view_version = view->version;
    host_crls_name(&host->crls, &view->crls);
    memcpy(host->view_state, view->host_state, sizeof(host->view_state));
    snprintf(host->trust_domain, sizeof(host->trust_domain), "%s", view->trust_domain);
    bool approved = strcmp(view->host_state, "approved") == 0;
    if (host->phase == HOST_PENDING || host->phase == HOST_ENROLLED) {
        host->phase = approved ? HOST_ENROLLED : HOST_PENDING;
    }
    host->rec.approved = approved;
    return ATT_OK;
}

/* Only then the issuer may hear of this version: it takes it for known here what the view says of
 * the roots of its TLS, and may retire one. */
static enum att_rc learn(struct host *host, const struct host_view *view, struct att_err *err)
{
    enum att_rc rc = host_trust_learn(host, view, err);
    if (rc == ATT_OK) {
        HOST_LOCKED(host);
        host->view_kept = view->version;
    }
    return rc;
}

enum att_rc host_view_load(struct host *host, struct att_err *err)
{
    att_autobuf text = ATT_BUF_INIT(HOST_VIEW_MAX);
    enum att_rc rc = att_io_read_file(host->paths.view, HOST_VIEW_MAX, &text, err);
    if (rc != ATT_OK) {
        return rc;
    }
    struct host_issuer issuer;
    certs_autostack *roots = NULL;
    struct host_view_anchor anchor;
    char id[65];
    struct host_view view = {0};
    rc = anchor_of(host, &issuer, &roots, id, &anchor, err);
    if (rc != ATT_OK) {
        return rc; /* nothing is known about the file */
    }
    rc = host_view_parse(att_buf_slice(&text), &anchor, 0, &view, err);
    if (rc == ATT_OK) {
        rc = apply(host, &view, err);
        if (rc == ATT_OK) { /* a crash may have come between the two */
            rc = learn(host, &view, err);
        }
        host_view_done(&view);
        return rc;
    }
    struct att_err aside = {0};
    att_err_prefix(err, "%s (kept as .bad)", host->paths.view);
    if (att_io_set_aside(host->paths.view, &aside) != ATT_OK) {
        att_err_prefix(err, "could not be set aside (%s)", aside.msg);
    }
    return rc;
}

enum att_rc host_view_accept(struct host *host, struct att_slice text, struct att_err *err)
{
    struct host_issuer issuer;
    certs_autostack *roots = NULL;
    struct host_view_anchor anchor;
    char id[65];
    struct host_view view = {0};
    uint64_t known;
    {
        HOST_LOCKED(host);
        known = host->view_version;
    }
    enum att_rc rc = anchor_of(host, &issuer, &roots, id, &anchor, err);
    if (rc == ATT_OK) {
        rc = host_view_parse(text, &anchor, att_now_utc_s(), &view, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    if (view.version < known) {
        rc = att_fail(err, ATT_E_PROTOCOL, "hostView version %llu after %llu",
                      (unsigned long long)view.version, (unsigned long long)known);
        att_err_reason(err, "hostViewVersion");
    }
    if (rc == ATT_OK) {
        rc = att_io_write_file(host->paths.bundle, view.bundle_pem, 0644, err);
    }
    if (rc == ATT_OK) {
        rc = apply(host, &view, err);
    }
    if (rc == ATT_OK) {
        /* Last: what is cached has been put in force in full. */
        rc = att_io_write_file(host->paths.view, text, 0600, err);
    }
    if (rc == ATT_OK) {
        rc = learn(host, &view, err);
    }
    if (rc == ATT_OK) {
        att_log(ATT_INFO, "view.accepted", ATT_N("version", view.version),
                ATT_S("hostState", view.host_state), ATT_N("entries", view.n_entries));
    }
    host_view_done(&view);
    return rc;
}

enum att_rc host_view_poll(struct host *host, struct acme_client *client, int wait_s,
                           struct att_err *err)
{
    uint64_t kept;
    {
        HOST_LOCKED(host);
        kept = host->view_kept;
    }
    att_autobuf text = ATT_BUF_INIT(HOST_VIEW_MAX);
    bool changed = false;
    enum att_rc rc = acme_client_host_view(client, kept, wait_s, &changed, &text, err);
    host_client_heard(host, client);
    if (rc == ATT_OK && changed) {
        rc = host_view_accept(host, att_buf_slice(&text), err);
        host_wake(host);
    } else if (rc == ATT_E_DENIED && err && strcmp(err->reason, "hostBanned") == 0) {
        host_banned(host);
    }
    return rc;
}
