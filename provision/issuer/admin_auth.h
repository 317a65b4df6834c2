/* Who is behind a request over HTTPS: a client certificate, of a CA that the configuration names or
 * of an agent of this trust domain, or a token of an OpenID provider. */
#ifndef PROVISION_ISSUER_ADMIN_AUTH_H
#define PROVISION_ISSUER_ADMIN_AUTH_H

#include "provision/issuer/who.h"

#include <openssl/x509.h>

/* Reads the files that conf.admin names. *ret_auth NULL where nobody may come over HTTPS. */
ATT_MUST_USE enum att_rc issuer_admin_auth_new(const struct conf_issuer *conf,
                                               struct issuer_admin_auth **ret_auth,
                                               struct att_err *err);
void issuer_admin_auth_free(struct issuer_admin_auth *auth); /* NULL is fine */
/* Has the providers' keys fetched. */
void issuer_admin_auth_start(struct issuer_admin_auth *auth);

/* What came with a request. */
struct issuer_credential {
    X509 *cert;                /* the peer proved its key in the handshake; NULL: none */
    STACK_OF(X509) * sent;     /* what it sent beside; may be NULL */
    const char *authorization; /* the header; NULL: none */
    const char *peer;          /* address; may be NULL */
};

/* Exactly one credential: both are refused, "credentials", so that nobody wonders which counted.
 * ATT_E_AUTH with reason
 *   certMissing certUntrusted certExpired certNotYet certRevoked certPurpose certName crlMissing
 *   crlStale, or a token's (provision/oidc), tokenForm for a header that is not "Bearer TOKEN";
 * ATT_E_RETRY, "keysPending". ret_who is filled on failure, too, without an id: who cannot be
 * known has an address. */
ATT_MUST_USE enum att_rc issuer_admin_authenticate(struct issuer *issuer,
                                                   struct issuer_settings *settings,
                                                   const struct issuer_credential *credential,
                                                   struct issuer_who *ret_who, struct att_err *err);

#endif
