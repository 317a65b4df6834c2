#include "attestd/host/trust.h"
#include "attestd/base/enc.h"

#include <string.h>

static bool put(char *ret, size_t size, const char *text)
{
    size_t len = strlen(text);
    if (len >= size) {
        return false;
    }
    memcpy(ret, text, len + 1);
    return true;
}

/* What the configuration does not say is in the ticket; but a host that has an account (at home;
 * NULL: it has none) does not follow a ticket to another issuer. */
static enum att_rc fill_from_ticket(struct host *host, const char *home, struct host_issuer *issuer,
                                    struct att_err *err)
{
    struct host_ticket ticket = {0};
    uint64_t n;
    enum att_rc rc = host_ticket_get(host, &ticket, &n, err);
    if (rc != ATT_OK) {
        return rc;
    }
    if (home && strcmp(home, ticket.url) != 0) {
        host_ticket_done(&ticket);
        return att_fail(err, ATT_E_NOTFOUND, "the ticket is another issuer's than the account");
    }
    if (issuer->url[0] == '\0') {
        put(issuer->url, sizeof(issuer->url), ticket.url);
    }
    if (issuer->ca_file[0] == '\0' && !issuer->has_pin) {
        issuer->has_pin = true;
        memcpy(issuer->ca_sha256, ticket.ca_sha256_bytes, sizeof(issuer->ca_sha256));
    }
    host_ticket_done(&ticket);
    return ATT_OK;
}

static void fill_from_conf(const struct conf_attestd *conf, struct host_issuer *issuer)
{
    const struct conf_attestd_issuer *c = conf->issuer;
    if (!c) {
        return;
    }
    if (c->url) {
        put(issuer->url, sizeof(issuer->url), c->url);
    }
    if (c->ca_file) {
        put(issuer->ca_file, sizeof(issuer->ca_file), c->ca_file);
    } else if (c->ca_sha256) {
        issuer->has_pin = true;
        memcpy(issuer->ca_sha256, c->ca_sha256_bytes, sizeof(issuer->ca_sha256));
    }
}

/* The host's own record knows what a ticket, gone since, had said. */
static void fill_from_record(const struct host_record *rec, struct host_issuer *issuer)
{
    if (issuer->url[0] == '\0') {
        put(issuer->url, sizeof(issuer->url), rec->issuer_url);
    }
    if (issuer->ca_file[0] == '\0' && !issuer->has_pin && rec->ca_sha256[0] &&
        att_unhex_exact(issuer->ca_sha256, ATT_SHA256_LEN, rec->ca_sha256, NULL) == ATT_OK) {
        issuer->has_pin = true;
    }
}

/* Another server than an attest-issuerd: everything is in the configuration. */
static void from_acme(const struct conf_attestd_acme *acme, struct host_issuer *ret)
{
    struct host_issuer issuer = {.origin_len = conf_acme_origin(acme->directory)};
    put(issuer.url, sizeof(issuer.url), acme->directory);
    if (acme->ca_file) {
        put(issuer.ca_file, sizeof(issuer.ca_file), acme->ca_file);
    } else {
        issuer.has_pin = true;
        memcpy(issuer.ca_sha256, acme->ca_sha256_bytes, sizeof(issuer.ca_sha256));
        att_hex(issuer.ca_sha256_hex, ATT_SLICE(issuer.ca_sha256, ATT_SHA256_LEN));
    }
    *ret = issuer;
}

enum att_rc host_issuer_get(struct host *host, struct host_issuer *ret_issuer, struct att_err *err)
{
    struct host_issuer issuer = {0};
    struct host_record rec;
    {
        HOST_LOCKED(host);
        if (host->conf->acme) {
            from_acme(host->conf->acme, ret_issuer);
            return ATT_OK;
        }
        fill_from_conf(host->conf, &issuer);
        rec = host->rec;
    }
    bool complete = issuer.url[0] && (issuer.ca_file[0] || issuer.has_pin);
    if (!complete) {
        struct att_err ticket_err = {0};
        const char *home = rec.kid[0] && issuer.url[0] == '\0' ? rec.issuer_url : NULL;
        enum att_rc rc = fill_from_ticket(host, home, &issuer, &ticket_err);
        if (rc != ATT_OK) {
            fill_from_record(&rec, &issuer);
        }
        if (issuer.url[0] == '\0' || (issuer.ca_file[0] == '\0' && !issuer.has_pin)) {
            rc = att_fail(err, ATT_E_NOTFOUND,
                          "which issuer? Neither issuer.url and issuer.ca_file or ca_sha256 nor a "
                          "ticket: %s",
                          ticket_err.msg);
            att_err_reason(err, "issuerUnknown");
            return rc;
        }
    }
    if (issuer.has_pin) {
        att_hex(issuer.ca_sha256_hex, ATT_SLICE(issuer.ca_sha256, ATT_SHA256_LEN));
    }
    enum att_rc rc = host_trust_apply(host, &issuer, err);
    if (rc == ATT_OK) {
        *ret_issuer = issuer;
    }
    return rc;
}

static enum att_rc sign(void *user, struct att_slice protected_json, struct att_slice payload,
                        uint8_t ret_rs[ACME_ES256_LEN], struct att_err *err)
{
    struct host *host = user;
    return proc_keyd_account_sign(host->keyd, protected_json, payload, ret_rs, err);
}

static enum att_rc make(struct host *host, struct acme_client **ret_client, struct att_err *err)
{
    struct host_issuer issuer;
    enum att_rc rc = host_issuer_get(host, &issuer, err);
    if (rc != ATT_OK) {
        return rc;
    }
    att_autobuf spki = {0};
    {
        HOST_LOCKED(host);
        att_buf_put_slice(&spki, att_buf_slice(&host->account.spki));
    }
    rc = att_buf_ok(&spki, err);
    if (rc != ATT_OK) {
        return rc;
    }
    const char *directory = NULL;
    if (issuer.origin_len) {
        issuer.url[issuer.origin_len] = '\0'; /* there is a slash: conf_acme_check */
        directory = issuer.url + issuer.origin_len + 1;
    }
    struct acme_client_config config = {
        .base_url = issuer.url,
        .directory = directory,
        .http = {.ca_file = issuer.ca_file[0] ? issuer.ca_file : NULL,
                 .ca_sha256 = issuer.has_pin ? issuer.ca_sha256 : NULL},
        .signer = {.user = host, .sign_parts = sign},
        .account_spki = att_buf_slice(&spki),
    };
    return acme_client_new(&config, ret_client, err);
}

enum att_rc host_client_get(struct host *host, unsigned slot, struct acme_client **ret_client,
                            struct att_err *err)
{
    struct host_client *own = &host->clients[slot];
    uint64_t generation;
    char kid[HOST_URL_MAX + 1];
    {
        HOST_LOCKED(host);
        generation = host->generation;
        memcpy(kid, host->rec.kid, sizeof(kid));
        if (generation == 0) {
            return att_fail(err, ATT_E_RETRY, "keyd has not said yet who we are");
        }
    }
    if (!own->acme || own->generation != generation) {
        struct acme_client *fresh = NULL;
        enum att_rc rc = make(host, &fresh, err);
        if (rc != ATT_OK) {
            return rc;
        }
        struct acme_client *old = own->acme;
        {
            HOST_LOCKED(host);
            own->acme = fresh;
            own->generation = generation;
            acme_client_cancel(fresh, atomic_load(&host->stop));
        }
        acme_client_free(old);
    }
    const char *known = acme_client_kid(own->acme);
    if (kid[0] && (!known || strcmp(known, kid) != 0)) {
        enum att_rc rc = acme_client_set_kid(own->acme, kid, err);
        if (rc != ATT_OK) {
            return rc;
        }
    }
    *ret_client = own->acme;
    return ATT_OK;
}

void host_clients_cancel(struct host *host, bool cancel)
{
    HOST_LOCKED(host);
    for (size_t i = 0; i < sizeof(host->clients) / sizeof(host->clients[0]); i++) {
        if (host->clients[i].acme) {
            acme_client_cancel(host->clients[i].acme, cancel);
        }
    }
}

void host_clients_free(struct host *host)
{
    for (size_t i = 0; i < sizeof(host->clients) / sizeof(host->clients[0]); i++) {
        acme_client_free(host->clients[i].acme);
        host->clients[i] = (struct host_client){0};
    }
}

void host_client_heard(struct host *host, const struct acme_client *client)
{
    const struct acme_client_last *last = acme_client_last(client);
    if (last->status == 0) {
        return;
    }
    HOST_LOCKED(host);
    host->last_contact_at = att_now_utc_s();
    if (last->tls_group[0]) {
        memcpy(host->tls_group, last->tls_group, sizeof(host->tls_group));
    }
}
