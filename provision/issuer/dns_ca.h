/* The authority for DNS names: a root and an intermediate of its own, in state_dir/ca/dns-root.*
 * and dns-ca.*, made when dns profiles are first configured. No agent's peer trusts it. */
#ifndef PROVISION_ISSUER_DNS_CA_H
#define PROVISION_ISSUER_DNS_CA_H

#include "provision/issuer/context.h"

#include <openssl/evp.h>
#include <openssl/x509.h>

struct issuer_dns_ca {
    X509 *root, *ca;
    EVP_PKEY *key;
    int64_t end;
    char *pem; /* what follows a leaf */
};

/* create: makes what is not there; otherwise ATT_OK and NULL, too. */
ATT_MUST_USE enum att_rc issuer_dns_ca_load(const struct conf_issuer *conf, bool create,
                                            struct issuer_dns_ca **ret_ca, struct att_err *err);
void issuer_dns_ca_free(struct issuer_dns_ca *ca);

#endif
