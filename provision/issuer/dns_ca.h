/* The authority for DNS names: a root and an intermediate of its own, in state_dir/ca/dns-root.*
 * and dns-ca.*, made by `init`, or at the first start with dns profiles. No agent's peer trusts it.
 */
#ifndef PROVISION_ISSUER_DNS_CA_H
#define PROVISION_ISSUER_DNS_CA_H

#include "provision/issuer/context.h"
#include "provision/issuer/signer.h"

#include <openssl/evp.h>
#include <openssl/x509.h>

struct issuer_dns_ca {
    X509 *root, *ca;
    EVP_PKEY *key;
    int64_t end;
    char *pem; /* what follows a leaf */
};

/* For `init`, also where the other authorities are there already: ATT_E_EXISTS when this one is. */
ATT_MUST_USE enum att_rc issuer_dns_ca_create(const struct conf_issuer *conf,
                                              struct issuer_hsm *hsm, struct att_err *err);
/* create: makes what is not there; otherwise ATT_OK and NULL, too. ATT_E_NOTFOUND with reason
 * "dnsCa" when it is not there and the store is one that issuers share: each would make its own. */
ATT_MUST_USE enum att_rc issuer_dns_ca_load(const struct conf_issuer *conf, struct issuer_hsm *hsm,
                                            bool create, struct issuer_dns_ca **ret_ca,
                                            struct att_err *err);
void issuer_dns_ca_free(struct issuer_dns_ca *ca);

#endif
