/* Revocation: one certificate's end, and the lists that tell of it (RFC 5280 §5). */
#ifndef PROVISION_ISSUER_REVOKE_H
#define PROVISION_ISSUER_REVOKE_H

#include "certs/crl.h"
#include "provision/issuer/context.h"

#define ISSUER_CRL_FRESH_S 30 /* a list that is asked for is no older */
#define ISSUER_CRL_SKEW_S  60 /* one made so far in the future is none of a clock set back */

struct issuer_revocation {
    const char *serial;
    const char *reason;           /* one of certs_crl_reason_name, or the word of what led to it */
    const char *void_detail;      /* what the order of a certificate hears that was only intended */
    const struct issuer_who *who; /* an operator; NULL: the issuer itself, or by */
    const char *by;               /* "account/<id>", "key"; NULL: who says it ("uid/N",
                                   * "admin/<identity>", "issuer") */
};
/* In the caller's transaction, with its audit record; with an AK's certificate ends the AK.
 * ATT_E_NOTFOUND when there is no such certificate; ATT_E_CONFLICT, reason "alreadyRevoked" (RFC
 * 8555 §6.7); ATT_E_CONFLICT, reason "certEnded", when it was abandoned or its time is over. The
 * caller bumps the view. */
ATT_MUST_USE enum att_rc issuer_revoke(struct store_tx *tx, const struct issuer_revocation *what,
                                       int64_t now, struct att_err *err);
/* What a CRL says of a reason that is not one of RFC 5280's. */
enum certs_crl_reason issuer_crl_reason(const char *word);

/* Of what each intermediate signed: agents' certificates, AK certificates, those for DNS names.
 * Each generation of one has a list of its own, under its own key; all name whatever is revoked of
 * that kind. */
enum issuer_crl_of { ISSUER_CRL_WORKLOAD, ISSUER_CRL_ATTESTATION, ISSUER_CRL_DNS, ISSUER_CRLS };
struct issuer_crl_ref {
    enum issuer_crl_of of;
    char id[17]; /* of a generation; "": the one of state_dir/ca */
};
const char *issuer_crl_file(enum issuer_crl_of of); /* of the first one: "workload.crl" */
/* "workload.crl", "workload-0123456789abcdef.crl". */
bool issuer_crl_parse(const char *file, struct issuer_crl_ref *ret_ref);

/* The latest lists made or read; several threads. */
struct issuer_crls;
struct issuer_crls *issuer_crls_new(void); /* NULL without memory */
void issuer_crls_free(struct issuer_crls *crls);
/* ATT_E_NOTFOUND: this issuer has no such authority. DER, appended, of the present list: made anew
 * when one was revoked since, or after ISSUER_CRL_FRESH_S. Numbers and lists are in the store, so
 * that several issuers on one store never give one number to two lists. */
ATT_MUST_USE enum att_rc issuer_crl_get(struct issuer *issuer, const struct issuer_crl_ref *ref,
                                        struct att_buf *ret_der, uint64_t *ret_number,
                                        struct att_err *err);

/* When the list was made that was handed out last by this process; 0: none yet. Any thread. */
int64_t issuer_crl_made_at(struct issuer *issuer, enum issuer_crl_of of);

/* Serves the lists in the clear on crl.listen (RFC 5280 §4.2.1.13: they are signed, and who asks
 * for one is about to verify a certificate), in a thread of its own. */
struct issuer_crl_server;
ATT_MUST_USE enum att_rc issuer_crl_server_new(struct issuer *issuer,
                                               struct issuer_crl_server **ret_server,
                                               struct att_err *err);
void issuer_crl_server_free(struct issuer_crl_server *server); /* NULL is fine */
uint16_t issuer_crl_server_port(const struct issuer_crl_server *server);

#endif
