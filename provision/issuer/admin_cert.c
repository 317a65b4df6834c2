/* cert.revoke; cert.renew: windows of renewal information move into the past. */
#include "provision/issuer/admin.h"
#include "provision/issuer/revoke.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What RFC 5280 has, but for what is not revocation by an operator (certificateHold …). */
#define REASONS                                                                                    \
    "unspecified, keyCompromise, affiliationChanged, superseded, cessationOfOperation or "         \
    "privilegeWithdrawn"

/* ATT_E_NOTFOUND when there is none. */
static enum att_rc cert_in_scope(struct issuer_admin_call *call, struct store_tx *tx,
                                 const char *serial, struct att_err *err)
{
    struct store_cert row = {0};
    enum att_rc rc = store_get(tx, &store_certs, serial, &row, err);
    if (rc == ATT_E_NOTFOUND) {
        att_err_clear(err);
        return issuer_refuse(err, rc, "certUnknown", "there is no certificate %.60s", serial);
    }
    rc = rc ? rc : issuer_scope_cert(&call->scope, tx, &row, err);
    store_record_done(&store_certs, &row);
    return rc;
}

enum att_rc issuer_admin_cert_revoke(struct issuer_admin_call *call, struct store_tx *tx,
                                     struct att_err *err)
{
    const char *serial = issuer_arg(call, "serial"), *reason = issuer_arg(call, "reason");
    enum certs_crl_reason parsed = CERTS_CRL_UNSPECIFIED;
    size_t digits = strlen(serial);
    if (digits == 0 || digits > (size_t)2 * CERTS_CRL_SERIAL_MAX ||
        strspn(serial, "0123456789abcdef") != digits) {
        return issuer_refuse(err, ATT_E_INVAL, "usage",
                             "serial: expected lowercase hex digits as cert list shows them, found "
                             "\"%.60s\"",
                             serial);
    }
    if (reason && !certs_crl_reason_parse(reason, &parsed)) {
        return issuer_refuse(err, ATT_E_INVAL, "usage",
                             "reason: expected " REASONS ", found \"%.40s\"", reason);
    }
    const struct issuer_revocation what = {serial, certs_crl_reason_name(parsed),
                                           "the certificate was revoked before it was signed",
                                           call->who, NULL};
    enum att_rc rc = cert_in_scope(call, tx, serial, err);
    rc = rc ? rc : issuer_revoke(tx, &what, call->now, err);
    if (!rc) {
        call->wake = true;
        rc = issuer_view_bump(tx, err);
    }
    json_object_set_new(call->result, "serial", json_string(serial));
    json_object_set_new(call->result, "reason", json_string(what.reason));
    return rc;
}

#define SCOPE_ROOM 128

static enum att_rc one_scope(struct issuer_admin_call *call, struct store_tx *tx,
                             char ret[SCOPE_ROOM], struct att_err *err)
{
    const char *host = issuer_arg(call, "host"), *serial = issuer_arg(call, "serial"),
               *profile = issuer_arg(call, "profile");
    bool all = json_is_true(json_object_get(call->args, "all"));
    if ((host != NULL) + (serial != NULL) + (profile != NULL) + all != 1) {
        return issuer_refuse(err, ATT_E_INVAL, "usage",
                             "cert.renew: expected one of all, host, serial and profile");
    }
    if (host) {
        struct store_host row = {0};
        enum att_rc rc = issuer_arg_host(call, tx, &row, err);
        snprintf(ret, SCOPE_ROOM, "host/%s", rc ? "" : row.id);
        if (!rc) {
            att_autojson *labels = issuer_json(row.labels);
            rc = issuer_scope_host(&call->scope, row.id, labels, err);
        }
        store_record_done(&store_hosts, &row);
        return rc;
    }
    if (serial) {
        struct store_cert row = {0};
        enum att_rc rc = store_get(tx, &store_certs, serial, &row, err);
        snprintf(ret, SCOPE_ROOM, "serial/%s", rc ? "" : row.serial);
        rc = rc ? rc : issuer_scope_cert(&call->scope, tx, &row, err);
        store_record_done(&store_certs, &row);
        return rc;
    }
    issuer_autosettings *settings = issuer_settings_get(call->issuer);
    if (profile && !conf_issuer_profile(settings->conf, profile) &&
        !conf_dns_profile(settings->conf, profile) &&
        !conf_device_profile(settings->conf, profile)) {
        return issuer_refuse(err, ATT_E_NOTFOUND, "usage", "there is no profile \"%.64s\"",
                             profile);
    }
    snprintf(ret, SCOPE_ROOM, profile ? "profile/%.100s" : "all%.0s", profile ? profile : "");
    return issuer_scope_all(&call->scope, err);
}

enum att_rc issuer_admin_cert_renew(struct issuer_admin_call *call, struct store_tx *tx,
                                    struct att_err *err)
{
    char scope[SCOPE_ROOM];
    struct store_renewal row = {.at = call->now};
    enum att_rc rc = one_scope(call, tx, scope, err);
    if (!rc) {
        rc = issuer_set(&row.scope, scope) && issuer_set(&row.reason, issuer_arg(call, "reason"))
                 ? store_put(tx, &store_renewals, &row, err)
                 : att_fail(err, ATT_E_NOMEM, "no memory");
    }
    if (!rc) {
        json_t *record = issuer_record("renewal", "done", NULL, row.reason, scope);
        rc = issuer_admin_audit(call, tx, record, err);
    }
    store_record_done(&store_renewals, &row);
    if (!rc) {
        rc = issuer_view_bump(tx, err); /* hosts ask anew when their view changes */
        call->wake = !rc;
    }
    if (!rc) {
        json_object_set_new(call->result, "scope", json_string(scope));
        json_object_set_new(call->result, "at", issuer_time_json(call->now));
    }
    return rc;
}
