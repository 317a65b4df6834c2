/* cert.revoke */
#include "provision/issuer/admin.h"
#include "provision/issuer/revoke.h"

#include <string.h>

/* What RFC 5280 has, but for what is not revocation by an operator (certificateHold …). */
#define REASONS                                                                                    \
    "unspecified, keyCompromise, affiliationChanged, superseded, cessationOfOperation or "         \
    "privilegeWithdrawn"

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
        return issuer_refuse(err, ATT_E_INVAL, "usage", "reason: expected " REASONS
                                                        ", found \"%.40s\"",
                             reason);
    }
    const struct issuer_revocation what = {serial, certs_crl_reason_name(parsed),
                                           "the certificate was revoked before it was signed",
                                           call->uid};
    enum att_rc rc = issuer_revoke(tx, &what, call->now, err);
    if (rc == ATT_E_NOTFOUND) {
        return issuer_refuse(err, rc, "certUnknown", "there is no certificate %.60s", serial);
    }
    if (!rc) {
        call->wake = true;
        rc = issuer_view_bump(tx, err);
    }
    json_object_set_new(call->result, "serial", json_string(serial));
    json_object_set_new(call->result, "reason", json_string(what.reason));
    return rc;
}
