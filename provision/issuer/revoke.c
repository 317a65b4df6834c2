#include "provision/issuer/revoke.h"

#include "provision/issuer/ca.h"
#include "provision/issuer/who.h"

#include <string.h>

enum certs_crl_reason issuer_crl_reason(const char *word)
{
    enum certs_crl_reason reason = CERTS_CRL_UNSPECIFIED;
    if (certs_crl_reason_parse(word, &reason)) {
        return reason;
    }
    return strcmp(word, "hostBanned") == 0 ? CERTS_CRL_PRIVILEGE_WITHDRAWN
                                           : CERTS_CRL_CESSATION_OF_OPERATION;
}

static enum att_rc check(const struct store_cert *cert, int64_t now, struct att_err *err)
{
    if (strcmp(cert->status, STORE_CERT_REVOKED) == 0) {
        return issuer_refuse(err, ATT_E_CONFLICT, "alreadyRevoked",
                             "certificate %s was revoked before (%s)", cert->serial, cert->reason);
    }
    if (strcmp(cert->status, STORE_CERT_ABANDONED) == 0 || cert->not_after <= now) {
        return issuer_refuse(err, ATT_E_CONFLICT, "certEnded",
                             "certificate %s was never signed, or has expired", cert->serial);
    }
    return ATT_OK;
}

static enum att_rc put(struct store_tx *tx, struct store_cert *cert,
                       const struct issuer_revocation *what, int64_t now, struct att_err *err)
{
    cert->ended_at = now;
    if (!issuer_set(&cert->status, STORE_CERT_REVOKED) ||
        !issuer_set(&cert->reason, what->reason)) {
        return att_fail(err, ATT_E_NOMEM, "no memory");
    }
    int64_t count = 0;
    enum att_rc rc = store_put(tx, &store_certs, cert, err);
    return rc ? rc : store_meta_count(tx, "revocations", &count, err);
}

static enum att_rc record(struct store_tx *tx, const struct store_cert *cert,
                          const struct issuer_revocation *what, int64_t now, struct att_err *err)
{
    json_t *json = issuer_record("revoke", "done", what->reason, NULL, cert->subject);
    json_object_set_new(json, "serial", json_string(cert->serial));
    json_object_set_new(json, "host", json_string(cert->host));
    const struct issuer_who *who = what->who;
    if (who && (who->remote || who->uid >= 0)) {
        issuer_who_put(json, who);
    }
    json_object_set_new(json, "by",
                        what->by               ? json_string(what->by)
                        : who && who->remote   ? json_sprintf("admin/%s", who->identity)
                        : who && who->uid >= 0 ? json_sprintf("uid/%lld", (long long)who->uid)
                                               : json_string("issuer"));
    return issuer_audit(tx, now, json, NULL, err);
}

enum att_rc issuer_revoke(struct store_tx *tx, const struct issuer_revocation *what, int64_t now,
                          struct att_err *err)
{
    struct store_cert cert = {0};
    enum att_rc rc = store_get(tx, &store_certs, what->serial, &cert, err);
    bool intended = !rc && strcmp(cert.status, STORE_CERT_INTENT) == 0;
    if (!rc) {
        rc = check(&cert, now, err);
    }
    if (!rc) {
        rc = put(tx, &cert, what, now, err);
    }
    if (!rc) {
        rc = record(tx, &cert, what, now, err);
    }
    /* No evidence under an AK whose certificate is no good any more. */
    if (!rc && strcmp(cert.kind, issuer_ca_kind_name(ISSUER_CA_AK)) == 0) {
        rc = issuer_ak_end(tx, cert.ord, what->reason, err);
    }
    if (!rc && intended) {
        rc = issuer_intent_void(tx, &cert, what->reason, what->void_detail, err);
    }
    store_record_done(&store_certs, &cert);
    return rc;
}
