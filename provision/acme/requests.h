/* Bodies of requests that are not about an object's making (RFC 8555 §7.3.5, §7.5.1, §7.5.2, §7.6;
 * RFC 9773 §4.1). Errors carry an ACME word as reason. */
#ifndef ATTESTD_PROVISION_ACME_REQUESTS_H
#define ATTESTD_PROVISION_ACME_REQUESTS_H

#include "provision/acme/jws.h"

/* {"status": "deactivated"}, of an authorization. */
ATT_MUST_USE enum att_rc acme_deactivation_parse(struct att_slice payload, struct att_err *err);

/* What answers an http-01 challenge: an object, whose members are ignored. */
ATT_MUST_USE enum att_rc acme_challenge_answer_parse(struct att_slice payload, struct att_err *err);

/* RFC 8555 §7.6: {"certificate": b64u(DER), "reason"?}. */
#define ACME_REVOKE_CERT_MAX ((size_t)16 << 10)
struct acme_revocation_request {
    struct att_buf cert; /* DER, not parsed */
    int reason;          /* RFC 5280 §5.3.1; 0 when absent */
};
/* badRevocationReason: one that is no CRLReason that an owner may give (2 cACompromise, 6
 * certificateHold, 8 removeFromCRL and 10 aACompromise are the CA's, 7 is none). */
ATT_MUST_USE enum att_rc acme_revocation_request_parse(struct att_slice payload,
                                                       struct acme_revocation_request *ret_request,
                                                       struct att_err *err);
void acme_revocation_request_done(struct acme_revocation_request *request);

/* RFC 8555 §7.3.5: the payload of the outer JWS is the inner one, signed by the new key; that one's
 * payload is {"account", "oldKey"}. */
struct acme_key_change {
    struct acme_jws inner; /* its signature is checked, by its own jwk */
    char *account;         /* URL */
    json_t *old_key;
};
ATT_MUST_USE enum att_rc acme_key_change_parse(struct att_slice payload,
                                               struct acme_key_change *ret_change,
                                               struct att_err *err);
void acme_key_change_done(struct acme_key_change *change);

/* RFC 9773 §4.1: b64u(AKI keyIdentifier) "." b64u(serial number's DER content). */
#define ACME_CERT_ID_AKI_MAX    32
#define ACME_CERT_ID_SERIAL_MAX 20 /* RFC 5280 §4.1.2.2 */
#define ACME_CERT_ID_LEN        80 /* text with its NUL */
struct acme_cert_id {
    uint8_t aki[ACME_CERT_ID_AKI_MAX];
    size_t aki_len;
    uint8_t serial[ACME_CERT_ID_SERIAL_MAX]; /* without the zero byte that keeps it positive */
    size_t serial_len;
};
ATT_MUST_USE enum att_rc acme_cert_id_parse(const char *text, struct acme_cert_id *ret_id,
                                            struct att_err *err);
ATT_MUST_USE enum att_rc acme_cert_id_encode(const struct acme_cert_id *id,
                                             char ret[ACME_CERT_ID_LEN], struct att_err *err);

/* RFC 9773 §4.2. */
struct acme_renewal_info {
    int64_t start, end; /* UTC seconds, start ≤ end */
    char *explanation;  /* URL; NULL when absent */
};
ATT_MUST_USE enum att_rc acme_renewal_info_parse(const json_t *json,
                                                 struct acme_renewal_info *ret_info,
                                                 struct att_err *err);
ATT_MUST_USE enum att_rc acme_renewal_info_encode(const struct acme_renewal_info *info,
                                                  json_t **ret_json, struct att_err *err);
void acme_renewal_info_done(struct acme_renewal_info *info);

#endif
