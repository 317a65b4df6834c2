#include "provision/issuer/renewal.h"

#include "certs/chain.h"
#include "certs/oid.h"
#include "provision/acme/requests.h"
#include "provision/issuer/generations.h"
#include "provision/issuer/dns.h"
#include "provision/issuer/dns_ca.h"
#include "provision/issuer/order.h"

#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define POLL_LEAST_S  60
#define POLL_MOST_S   21600
#define POLLS_A_LIFE  20
#define PAST_WINDOW_S 60 /* a window in the past has to have some length */

/* ---- naming a certificate
 * -------------------------------------------------------------------------------------------- */

static bool has_key_id(const X509 *ca, const struct acme_cert_id *id)
{
    const ASN1_OCTET_STRING *ski =
        ca ? X509_get0_subject_key_id((X509 *)(uintptr_t)ca) : NULL; /* fills a cache only */
    return ski && (size_t)ASN1_STRING_length(ski) == id->aki_len &&
           memcmp(ASN1_STRING_get0_data(ski), id->aki, id->aki_len) == 0;
}

static bool is_of_authority(const struct issuer *issuer, const char *kind,
                            const struct acme_cert_id *id)
{
    struct issuer_authority all[ISSUER_GENERATIONS_MAX + 1];
    size_t n = issuer_authorities_all(issuer, kind, all);
    for (size_t i = 0; i < n; i++) {
        if (has_key_id(all[i].ca, id)) {
            return true;
        }
    }
    return false;
}

/* The row, if the identifier's authority is the one that issued it. */
static enum att_rc find_cert(const struct issuer *issuer, struct store_tx *tx, const char *text,
                             struct store_cert *ret_cert, struct att_err *err)
{
    struct acme_cert_id id;
    char serial[ISSUER_SERIAL_HEX];
    enum att_rc rc = acme_cert_id_parse(text, &id, err);
    if (rc) {
        return rc;
    }
    att_hex(serial, ATT_SLICE(id.serial, id.serial_len));
    rc = store_get(tx, &store_certs, serial, ret_cert, err);
    if (!rc && !is_of_authority(issuer, ret_cert->kind, &id)) {
        store_record_done(&store_certs, ret_cert);
        rc = att_fail(err, ATT_E_NOTFOUND, "certificate %s is of another authority", serial);
    }
    return rc;
}

/* ---- windows
 * --------------------------------------------------------------------------------------------------
 */

/* The newest word of an operator that speaks of this certificate; 0 when there is none. */
static enum att_rc asked_at(struct store_tx *tx, const struct store_cert *cert, int64_t *ret_at,
                            struct att_err *err)
{
    char scopes[4][128];
    snprintf(scopes[0], sizeof scopes[0], "all");
    snprintf(scopes[1], sizeof scopes[1], "serial/%s", cert->serial);
    snprintf(scopes[2], sizeof scopes[2], "host/%s", cert->host);
    snprintf(scopes[3], sizeof scopes[3], "profile/%s", cert->profile);
    for (size_t i = 0; i < 4; i++) {
        struct store_renewal row = {0};
        enum att_rc rc = store_get(tx, &store_renewals, scopes[i], &row, NULL);
        if (rc && rc != ATT_E_NOTFOUND) {
            return att_fail(err, rc, "renewals cannot be read");
        }
        if (!rc && row.at >= cert->created_at && row.at > *ret_at) {
            *ret_at = row.at;
        }
        store_record_done(&store_renewals, &row);
    }
    return ATT_OK;
}

enum att_rc issuer_renewal_window(struct store_tx *tx, const struct store_cert *cert,
                                  int64_t *ret_start, int64_t *ret_end, struct att_err *err)
{
    int64_t life = cert->not_after - cert->created_at, past = 0;
    enum att_rc rc = asked_at(tx, cert, &past, err);
    if (strcmp(cert->status, STORE_CERT_REVOKED) == 0 && (!past || cert->ended_at < past)) {
        past = cert->ended_at;
    }
    if (rc) {
        return rc;
    }
    *ret_start = past ? past - PAST_WINDOW_S : cert->created_at + life / 2;
    *ret_end = past ? past : cert->created_at + life / 3 * 2;
    return ATT_OK;
}

struct looking {
    const struct issuer *issuer;
    const char *id;
    struct store_cert cert;
    struct acme_renewal_info info;
};

static enum att_rc look(void *user, struct store_tx *tx, struct att_err *err)
{
    struct looking *l = user;
    enum att_rc rc = find_cert(l->issuer, tx, l->id, &l->cert, err);
    if (!rc && strcmp(l->cert.status, STORE_CERT_ISSUED) != 0 &&
        strcmp(l->cert.status, STORE_CERT_REVOKED) != 0) {
        rc = att_fail(err, ATT_E_NOTFOUND, "it was not issued");
    }
    return rc ? rc : issuer_renewal_window(tx, &l->cert, &l->info.start, &l->info.end, err);
}

void issuer_renewal_info(struct issuer *issuer, const char *id, struct issuer_response *response)
{
    struct looking l = {.issuer = issuer, .id = id};
    struct att_err err = {0};
    att_autojson *json = NULL;
    enum att_rc rc = store_run(issuer->store, false, look, &l, &err);
    if (!rc) {
        rc = acme_renewal_info_encode(&l.info, &json, &err);
    }
    if (!rc) {
        rc = att_json_dump(json, false, &response->body, &err);
    }
    if (rc) {
        bool theirs = rc == ATT_E_NOTFOUND || rc == ATT_E_PARSE;
        issuer_refuse_plain(response,
                            rc == ATT_E_NOTFOUND ? 404
                            : theirs             ? 400
                                                 : 500,
                            theirs ? ACME_P_MALFORMED : ACME_P_SERVER_INTERNAL,
                            rc == ATT_E_NOTFOUND
                                ? "no certificate of this issuer has this identifier"
                            : theirs ? err.msg
                                     : "the issuer could not do its work");
    } else {
        int64_t every = (l.cert.not_after - l.cert.created_at) / POLLS_A_LIFE;
        every = every < POLL_LEAST_S ? POLL_LEAST_S : every > POLL_MOST_S ? POLL_MOST_S : every;
        response->status = 200;
        response->content_type = "application/json";
        response->retry_after_s = (int)every; /* RFC 9773 §4.3 */
    }
    store_record_done(&store_certs, &l.cert);
}

/* ---- replaces
 * --------------------------------------------------------------------------------------------------
 */

/* Is the order by which it is to be replaced still alive, or done? */
static enum att_rc is_replaced(const struct issuer_call *call, struct store_tx *tx,
                               const struct store_cert *cert, bool *ret_replaced,
                               struct att_err *err)
{
    struct store_order order = {0};
    struct store_dns_order dns = {0};
    *ret_replaced = cert->replaced[0] == '!';
    if (!cert->replaced[0] || *ret_replaced) {
        return ATT_OK;
    }
    enum att_rc rc = store_get(tx, &store_orders, cert->replaced, &order, NULL);
    if (!rc) {
        *ret_replaced = strcmp(issuer_order_status(&order, call->now), "invalid") != 0;
    } else if (rc == ATT_E_NOTFOUND) {
        rc = store_get(tx, &store_dns_orders, cert->replaced, &dns, NULL);
        *ret_replaced = !rc && strcmp(issuer_dns_status(&dns, call->now), "invalid") != 0;
    }
    store_record_done(&store_orders, &order);
    store_record_done(&store_dns_orders, &dns);
    return rc && rc != ATT_E_NOTFOUND ? att_fail(err, rc, "orders cannot be read") : ATT_OK;
}

static bool names_one(const struct store_cert *cert, const struct acme_order_request *request)
{
    certs_autostack *chain = NULL;
    bool dns = strcmp(cert->kind, "dns") == 0 && cert->pem[0] &&
               certs_pem_parse(att_slice_str(cert->pem), &chain, NULL) == ATT_OK;
    for (size_t i = 0; i < request->n_identifiers; i++) {
        const char *value = request->identifiers[i].value;
        if (strcmp(cert->subject, value) == 0 ||
            (dns && X509_check_host(sk_X509_value(chain, 0), value, 0, X509_CHECK_FLAG_NO_WILDCARDS,
                                    NULL) == 1)) {
            return true;
        }
    }
    return false;
}

enum att_rc issuer_replaces_check(struct issuer_call *call, struct store_tx *tx,
                                  const struct acme_order_request *request,
                                  char ret_serial[ISSUER_SERIAL_HEX], struct att_err *err)
{
    struct store_cert cert = {0};
    struct att_err why = {0};
    bool replaced = false;
    enum att_rc rc = find_cert(call->issuer, tx, request->replaces, &cert, &why);
    if (rc == ATT_E_NOTFOUND || rc == ATT_E_PARSE) {
        call->uncounted = true;
        return issuer_problem(call, err, ACME_P_MALFORMED, NULL, "replaces: %s", why.msg);
    }
    if (rc) {
        return att_fail(err, rc, "certificates cannot be read");
    }
    if (strcmp(cert.account, call->account.id) != 0) {
        rc = issuer_problem(call, err, ACME_P_UNAUTHORIZED, NULL,
                            "replaces: another account's certificate");
    } else if (!names_one(&cert, request)) {
        rc = issuer_problem(call, err, ACME_P_MALFORMED, NULL,
                            "replaces: a certificate for none of the order's identifiers");
    } else {
        rc = is_replaced(call, tx, &cert, &replaced, err);
    }
    if (!rc && replaced) {
        rc = issuer_problem(call, err, ACME_P_ALREADY_REPLACED, NULL,
                            "replaces: another order has replaced certificate %s, or will",
                            cert.serial);
    }
    call->uncounted = rc == ATT_E_DENIED;
    if (!rc) {
        snprintf(ret_serial, ISSUER_SERIAL_HEX, "%s", cert.serial);
    }
    store_record_done(&store_certs, &cert);
    return rc;
}

static enum att_rc set_replaced(struct store_tx *tx, const char *serial, const char *from,
                                const char *to, struct att_err *err)
{
    struct store_cert cert = {0};
    enum att_rc rc = store_get(tx, &store_certs, serial, &cert, err);
    if (!rc && (!from || strcmp(cert.replaced, from) == 0)) {
        rc = issuer_set(&cert.replaced, to) ? store_put(tx, &store_certs, &cert, err)
                                            : att_fail(err, ATT_E_NOMEM, "no memory");
    }
    store_record_done(&store_certs, &cert);
    return rc;
}

enum att_rc issuer_replaces_mark(struct store_tx *tx, const char *serial, const char *order,
                                 struct att_err *err)
{
    return serial[0] ? set_replaced(tx, serial, NULL, order, err) : ATT_OK;
}

enum att_rc issuer_replaces_done(struct store_tx *tx, const char *serial, const char *order,
                                 struct att_err *err)
{
    char done[80];
    snprintf(done, sizeof done, "!%.72s", order);
    return serial[0] ? set_replaced(tx, serial, order, done, err) : ATT_OK;
}
