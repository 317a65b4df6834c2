#include "provision/federation/fetch.h"

#include "attestd/base/clock.h"
#include "certs/chain.h"
#include "certs/oid.h"
#include "certs/san.h"
#include "provision/acme/http.h"
#include "provision/federation/bundle.h"

#include <stdio.h>
#include <string.h>

void federation_stop_init(struct federation_stop *stop)
{
    pthread_mutex_init(&stop->lock, NULL);
    stop->http = NULL;
    stop->stopped = false;
}

void federation_stop_done(struct federation_stop *stop)
{
    pthread_mutex_destroy(&stop->lock);
}

void federation_stop(struct federation_stop *stop)
{
    pthread_mutex_lock(&stop->lock);
    stop->stopped = true;
    if (stop->http) {
        acme_http_cancel(stop->http, true);
    }
    pthread_mutex_unlock(&stop->lock);
}

static void set_http(struct federation_stop *stop, struct acme_http *http)
{
    if (!stop) {
        return;
    }
    pthread_mutex_lock(&stop->lock);
    stop->http = http;
    if (http && stop->stopped) {
        acme_http_cancel(http, true);
    }
    pthread_mutex_unlock(&stop->lock);
}

/* ---- https_spiffe ---------------------------------------------------------------------------- */

struct peer {
    const struct federation_endpoint *endpoint;
    bool other_id;
    char why[400];
};

static const char *judge_id(struct peer *peer, const X509 *leaf)
{
    att_autobuf id = {0};
    struct att_err err = {0};
    if (certs_san_spiffe(leaf, &id, &err) != ATT_OK) {
        snprintf(peer->why, sizeof peer->why, "%s", err.msg);
        return peer->why;
    }
    if (!att_slice_eq_str(att_buf_slice(&id), peer->endpoint->spiffe_id)) {
        const char *text = att_buf_cstr(&id);
        peer->other_id = true;
        snprintf(peer->why, sizeof peer->why, "the endpoint is %.150s, expected %.150s",
                 text ? text : "another", peer->endpoint->spiffe_id);
        return peer->why;
    }
    return NULL;
}

/* §5.2.2: an X.509-SVID under the trust domain's last known bundle, of exactly this SPIFFE ID. */
static const char *judge(void *user, X509_STORE_CTX *store_ctx)
{
    struct peer *peer = user;
    struct att_err err = {0};
    X509 *leaf = X509_STORE_CTX_get0_cert(store_ctx);
    STACK_OF(X509) *sent = X509_STORE_CTX_get0_untrusted(store_ctx);
    certs_autostack *chain = sk_X509_new_null();
    if (!leaf || !chain || X509_add_cert(chain, leaf, X509_ADD_FLAG_UP_REF) != 1) {
        return "there is no certificate, or no memory for it";
    }
    for (int i = 0; i < sk_X509_num(sent); i++) {
        X509 *cert = sk_X509_value(sent, i);
        if (cert != leaf && X509_cmp(cert, leaf) != 0 &&
            X509_add_cert(chain, cert, X509_ADD_FLAG_UP_REF) != 1) {
            return "no memory";
        }
    }
    if (certs_chain_verify(chain, peer->endpoint->roots, CERTS_PURPOSE_WORKLOAD, att_now_utc_s(),
                           &err) != ATT_OK) {
        snprintf(peer->why, sizeof peer->why, "%s", err.msg);
        return peer->why;
    }
    return judge_id(peer, leaf);
}

/* ---- one look -------------------------------------------------------------------------------- */

static const char *reason_of(const struct att_err *err, const struct peer *peer)
{
    if (strcmp(err->reason, "issuerTls") == 0) {
        return peer->other_id ? "endpointId" : "endpointTls";
    }
    return strcmp(err->reason, "addressRefused") == 0 ? "endpointAddress"
           : err->rc == ATT_E_LIMIT                   ? "bundleSize"
           : err->rc == ATT_E_UNREACHABLE || err->rc == ATT_E_TIMEOUT || err->rc == ATT_E_PROTOCOL
               ? "endpointAway"
               : err->reason;
}

static enum att_rc get(struct acme_http *http, const struct federation_endpoint *endpoint,
                       struct att_buf *ret_text, struct att_err *err)
{
    struct acme_http_response response = {0};
    const struct acme_http_request request = {.method = "GET",
                                              .url = endpoint->url,
                                              .accept = "application/json",
                                              .max_body = FEDERATION_BUNDLE_MAX,
                                              .timeout_ms = endpoint->timeout_ms};
    enum att_rc rc = acme_http_perform(http, &request, &response, err);
    if (rc == ATT_OK && response.status != 200) {
        rc = att_fail_native(err, ATT_E_PROTOCOL, ATT_DOM_HTTP, response.status,
                             "%s: HTTP status %d", endpoint->url, response.status);
        att_err_reason(err, "endpointStatus");
    } else if (rc == ATT_OK) {
        *ret_text = response.body;
        response.body = (struct att_buf){0};
    }
    acme_http_response_done(&response);
    return rc;
}

enum att_rc federation_fetch(const struct federation_endpoint *endpoint,
                             struct federation_stop *stop, struct att_buf *ret_text,
                             struct att_err *err)
{
    struct peer peer = {.endpoint = endpoint};
    struct acme_http *http = NULL;
    struct att_err why = {0};
    const bool spiffe = endpoint->spiffe_id != NULL;
    const struct acme_http_config config = {
        .ca_file = spiffe ? NULL : endpoint->ca_file,
        .system_roots = !spiffe && !endpoint->ca_file,
        .peer = spiffe ? judge : NULL,
        .peer_user = &peer,
        .address = endpoint->refused,
        .address_user = endpoint->user,
        .tls12 = true,
        .connect_timeout_ms = endpoint->timeout_ms,
    };
    enum att_rc rc = acme_http_new(&config, &http, err);
    if (rc != ATT_OK) {
        return rc;
    }
    set_http(stop, http);
    rc = get(http, endpoint, ret_text, &why);
    set_http(stop, NULL);
    acme_http_free(http);
    if (rc != ATT_OK) {
        if (strcmp(why.reason, "endpointStatus") != 0) {
            att_err_reason(&why, reason_of(&why, &peer));
        }
        if (err) {
            *err = why;
        }
    }
    return rc;
}
